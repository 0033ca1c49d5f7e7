"""Message schemas of the APIs that the raw tests use, copied by hand from Kafka 4.3's common/message/*.json.

Fields: (name, kind, first version, last version); see wire.py. Tagged fields are not listed: requests send none, answers keep
theirs as raw bytes under `_tags`.
"""


class Api:
    def __init__(self, name, key, flexible, request, response):
        self.name, self.key, self.flexible, self.request, self.response = name, key, flexible, request, response


_CONFIGS = [("name", "str"), ("value", "str")]

PRODUCE = Api("Produce", 0, 9, [
    ("transactional_id", "str", 3), ("acks", "i16"), ("timeout_ms", "i32"),
    ("topics", [("name", "str", 0, 12), ("topic_id", "uuid", 13),
                ("partitions", [("index", "i32"), ("records", "bytes")])]),
], [
    ("topics", [("name", "str", 0, 12), ("topic_id", "uuid", 13), ("partitions", [
        ("index", "i32"), ("error_code", "i16"), ("base_offset", "i64"), ("log_append_time_ms", "i64", 2),
        ("log_start_offset", "i64", 5),
        ("record_errors", [("batch_index", "i32"), ("message", "str")], 8), ("error_message", "str", 8)])]),
    ("throttle_time_ms", "i32", 1),
])

FETCH = Api("Fetch", 1, 12, [
    ("replica_id", "i32", 0, 14), ("max_wait_ms", "i32"), ("min_bytes", "i32"), ("max_bytes", "i32", 3),
    ("isolation_level", "i8", 4), ("session_id", "i32", 7), ("session_epoch", "i32", 7),
    ("topics", [("name", "str", 0, 12), ("topic_id", "uuid", 13), ("partitions", [
        ("index", "i32"), ("current_leader_epoch", "i32", 9), ("fetch_offset", "i64"), ("last_fetched_epoch", "i32", 12),
        ("log_start_offset", "i64", 5), ("partition_max_bytes", "i32")])]),
    ("forgotten", [("name", "str", 0, 12), ("topic_id", "uuid", 13), ("partitions", ("arr", "i32"))], 7),
    ("rack_id", "str", 11),
], [
    ("throttle_time_ms", "i32", 1), ("error_code", "i16", 7), ("session_id", "i32", 7),
    ("topics", [("name", "str", 0, 12), ("topic_id", "uuid", 13), ("partitions", [
        ("index", "i32"), ("error_code", "i16"), ("high_watermark", "i64"), ("last_stable_offset", "i64", 4),
        ("log_start_offset", "i64", 5), ("aborted", [("producer_id", "i64"), ("first_offset", "i64")], 4),
        ("preferred_read_replica", "i32", 11), ("records", "bytes")])]),
])

LIST_OFFSETS = Api("ListOffsets", 2, 6, [
    ("replica_id", "i32"), ("isolation_level", "i8", 2),
    ("topics", [("name", "str"), ("partitions", [("index", "i32"), ("current_leader_epoch", "i32", 4), ("timestamp", "i64")])]),
    ("timeout_ms", "i32", 10),
], [
    ("throttle_time_ms", "i32", 2),
    ("topics", [("name", "str"), ("partitions", [
        ("index", "i32"), ("error_code", "i16"), ("timestamp", "i64"), ("offset", "i64"), ("leader_epoch", "i32", 4)])]),
])

METADATA = Api("Metadata", 3, 9, [
    ("topics", [("topic_id", "uuid", 10), ("name", "str")]),
    ("allow_auto_topic_creation", "bool", 4), ("include_cluster_authorized_operations", "bool", 8, 10),
    ("include_topic_authorized_operations", "bool", 8),
], [
    ("throttle_time_ms", "i32", 3),
    ("brokers", [("node_id", "i32"), ("host", "str"), ("port", "i32"), ("rack", "str", 1)]),
    ("cluster_id", "str", 2), ("controller_id", "i32", 1),
    ("topics", [("error_code", "i16"), ("name", "str"), ("topic_id", "uuid", 10), ("is_internal", "bool", 1), ("partitions", [
        ("error_code", "i16"), ("index", "i32"), ("leader_id", "i32"), ("leader_epoch", "i32", 7),
        ("replicas", ("arr", "i32")), ("isr", ("arr", "i32")), ("offline", ("arr", "i32"), 5)]),
        ("authorized_operations", "i32", 8)]),
    ("cluster_authorized_operations", "i32", 8, 10),
    ("error_code", "i16", 13),
])

API_VERSIONS = Api("ApiVersions", 18, 3, [
    ("software_name", "str", 3), ("software_version", "str", 3),
], [
    ("error_code", "i16"), ("apis", [("key", "i16"), ("min", "i16"), ("max", "i16")]), ("throttle_time_ms", "i32", 1),
])

CREATE_TOPICS = Api("CreateTopics", 19, 5, [
    ("topics", [("name", "str"), ("num_partitions", "i32"), ("replication_factor", "i16"),
                ("assignments", [("index", "i32"), ("brokers", ("arr", "i32"))]), ("configs", _CONFIGS)]),
    ("timeout_ms", "i32"), ("validate_only", "bool", 1),
], [
    ("throttle_time_ms", "i32", 2),
    ("topics", [("name", "str"), ("topic_id", "uuid", 7), ("error_code", "i16"), ("error_message", "str", 1),
                ("num_partitions", "i32", 5), ("replication_factor", "i16", 5),
                ("configs", [("name", "str"), ("value", "str"), ("read_only", "bool"), ("source", "i8"), ("sensitive", "bool")], 5)]),
])

DELETE_TOPICS = Api("DeleteTopics", 20, 4, [
    ("topics", [("name", "str"), ("topic_id", "uuid")], 6), ("names", ("arr", "str"), 0, 5), ("timeout_ms", "i32"),
], [
    ("throttle_time_ms", "i32", 1),
    ("topics", [("name", "str"), ("topic_id", "uuid", 6), ("error_code", "i16"), ("error_message", "str", 5)]),
])

DELETE_RECORDS = Api("DeleteRecords", 21, 2, [
    ("topics", [("name", "str"), ("partitions", [("index", "i32"), ("offset", "i64")])]), ("timeout_ms", "i32"),
], [
    ("throttle_time_ms", "i32"),
    ("topics", [("name", "str"), ("partitions", [("index", "i32"), ("low_watermark", "i64"), ("error_code", "i16")])]),
])

INIT_PRODUCER_ID = Api("InitProducerId", 22, 2, [
    ("transactional_id", "str"), ("transaction_timeout_ms", "i32"), ("producer_id", "i64", 3), ("producer_epoch", "i16", 3),
], [
    ("throttle_time_ms", "i32"), ("error_code", "i16"), ("producer_id", "i64"), ("producer_epoch", "i16"),
])

OFFSET_FOR_LEADER_EPOCH = Api("OffsetForLeaderEpoch", 23, 4, [
    ("replica_id", "i32", 3),
    ("topics", [("name", "str"), ("partitions", [("index", "i32"), ("current_leader_epoch", "i32", 2), ("leader_epoch", "i32")])]),
], [
    ("throttle_time_ms", "i32", 2),
    ("topics", [("name", "str"), ("partitions", [
        ("error_code", "i16"), ("index", "i32"), ("leader_epoch", "i32", 1), ("end_offset", "i64")])]),
])

DESCRIBE_CONFIGS = Api("DescribeConfigs", 32, 4, [
    ("resources", [("type", "i8"), ("name", "str"), ("keys", ("arr", "str"))]),
    ("include_synonyms", "bool", 1), ("include_documentation", "bool", 3),
], [
    ("throttle_time_ms", "i32"),
    ("results", [("error_code", "i16"), ("error_message", "str"), ("type", "i8"), ("name", "str"), ("configs", [
        ("name", "str"), ("value", "str"), ("read_only", "bool"), ("source", "i8", 1), ("sensitive", "bool"),
        ("synonyms", [("name", "str"), ("value", "str"), ("source", "i8")], 1),
        ("config_type", "i8", 3), ("documentation", "str", 3)])]),
])

INCREMENTAL_ALTER_CONFIGS = Api("IncrementalAlterConfigs", 44, 1, [
    ("resources", [("type", "i8"), ("name", "str"), ("configs", [("name", "str"), ("operation", "i8"), ("value", "str")])]),
    ("validate_only", "bool"),
], [
    ("throttle_time_ms", "i32"),
    ("responses", [("error_code", "i16"), ("error_message", "str"), ("type", "i8"), ("name", "str")]),
])

CREATE_PARTITIONS = Api("CreatePartitions", 37, 2, [
    ("topics", [("name", "str"), ("count", "i32"), ("assignments", [("brokers", ("arr", "i32"))])]),
    ("timeout_ms", "i32"), ("validate_only", "bool"),
], [
    ("throttle_time_ms", "i32"), ("results", [("name", "str"), ("error_code", "i16"), ("error_message", "str")]),
])

LIST_CONFIG_RESOURCES = Api("ListConfigResources", 74, 0, [("types", ("arr", "i8"), 1)], [
    ("throttle_time_ms", "i32"), ("error_code", "i16"),
    ("resources", [("name", "str"), ("type", "i8", 1)]),
])

DESCRIBE_CLUSTER = Api("DescribeCluster", 60, 0, [
    ("include_authorized_operations", "bool"), ("endpoint_type", "i8", 1), ("include_fenced", "bool", 2),
], [
    ("throttle_time_ms", "i32"), ("error_code", "i16"), ("error_message", "str"), ("endpoint_type", "i8", 1),
    ("cluster_id", "str"), ("controller_id", "i32"),
    ("brokers", [("id", "i32"), ("host", "str"), ("port", "i32"), ("rack", "str"), ("fenced", "bool", 2)]),
    ("authorized_operations", "i32"),
])

DESCRIBE_LOG_DIRS = Api("DescribeLogDirs", 35, 2, [("topics", [("name", "str"), ("partitions", ("arr", "i32"))])], [
    ("throttle_time_ms", "i32"), ("error_code", "i16", 3),
    ("results", [("error_code", "i16"), ("log_dir", "str"), ("topics", [("name", "str"), ("partitions", [
        ("index", "i32"), ("size", "i64"), ("offset_lag", "i64"), ("is_future", "bool")])]),
        ("total_bytes", "i64", 4), ("usable_bytes", "i64", 4), ("is_cordoned", "bool", 5)]),
])

ALTER_REPLICA_LOG_DIRS = Api("AlterReplicaLogDirs", 34, 2, [
    ("dirs", [("path", "str"), ("topics", [("name", "str"), ("partitions", ("arr", "i32"))])]),
], [
    ("throttle_time_ms", "i32"),
    ("results", [("topic", "str"), ("partitions", [("index", "i32"), ("error_code", "i16")])]),
])

ELECT_LEADERS = Api("ElectLeaders", 43, 2, [
    ("type", "i8", 1), ("topics", [("name", "str"), ("partitions", ("arr", "i32"))]), ("timeout_ms", "i32"),
], [
    ("throttle_time_ms", "i32"), ("error_code", "i16", 1),
    ("results", [("name", "str"), ("partitions", [("index", "i32"), ("error_code", "i16"), ("error_message", "str")])]),
])

ALTER_PARTITION_REASSIGNMENTS = Api("AlterPartitionReassignments", 45, 0, [
    ("timeout_ms", "i32"), ("allow_factor_change", "bool", 1),
    ("topics", [("name", "str"), ("partitions", [("index", "i32"), ("replicas", ("arr", "i32"))])]),
], [
    ("throttle_time_ms", "i32"), ("allow_factor_change", "bool", 1), ("error_code", "i16"), ("error_message", "str"),
    ("topics", [("name", "str"), ("partitions", [("index", "i32"), ("error_code", "i16"), ("error_message", "str")])]),
])

LIST_PARTITION_REASSIGNMENTS = Api("ListPartitionReassignments", 46, 0, [
    ("timeout_ms", "i32"), ("topics", [("name", "str"), ("partitions", ("arr", "i32"))]),
], [
    ("throttle_time_ms", "i32"), ("error_code", "i16"), ("error_message", "str"),
    ("topics", [("name", "str"), ("partitions", [
        ("index", "i32"), ("replicas", ("arr", "i32")), ("adding", ("arr", "i32")), ("removing", ("arr", "i32"))])]),
])

_REPLICA_STATE = [("id", "i32"), ("directory_id", "uuid", 2), ("log_end_offset", "i64"), ("last_fetch_ms", "i64", 1),
                  ("last_caught_up_ms", "i64", 1)]

DESCRIBE_QUORUM = Api("DescribeQuorum", 55, 0, [("topics", [("name", "str"), ("partitions", [("index", "i32")])])], [
    ("error_code", "i16"), ("error_message", "str", 2),
    ("topics", [("name", "str"), ("partitions", [
        ("index", "i32"), ("error_code", "i16"), ("error_message", "str", 2), ("leader_id", "i32"), ("leader_epoch", "i32"),
        ("high_watermark", "i64"), ("voters", _REPLICA_STATE), ("observers", _REPLICA_STATE)])]),
    ("nodes", [("id", "i32"), ("listeners", [("name", "str"), ("host", "str"), ("port", "u16")])], 2),
])

DESCRIBE_PRODUCERS = Api("DescribeProducers", 61, 0, [("topics", [("name", "str"), ("partitions", ("arr", "i32"))])], [
    ("throttle_time_ms", "i32"),
    ("topics", [("name", "str"), ("partitions", [
        ("index", "i32"), ("error_code", "i16"), ("error_message", "str"), ("producers", [
            ("producer_id", "i64"), ("producer_epoch", "i32"), ("last_sequence", "i32"), ("last_timestamp_ms", "i64"),
            ("coordinator_epoch", "i32"), ("transaction_start", "i64")])])]),
])

UNREGISTER_BROKER = Api("UnregisterBroker", 64, 0, [("broker_id", "i32")], [
    ("throttle_time_ms", "i32"), ("error_code", "i16"), ("error_message", "str"),
])

ADD_RAFT_VOTER = Api("AddRaftVoter", 80, 0, [
    ("cluster_id", "str"), ("timeout_ms", "i32"), ("voter_id", "i32"), ("directory_id", "uuid"),
    ("listeners", [("name", "str"), ("host", "str"), ("port", "u16")]), ("ack_when_committed", "bool", 1),
], [("throttle_time_ms", "i32"), ("error_code", "i16"), ("error_message", "str")])

REMOVE_RAFT_VOTER = Api("RemoveRaftVoter", 81, 0, [
    ("cluster_id", "str"), ("voter_id", "i32"), ("directory_id", "uuid"),
], [("throttle_time_ms", "i32"), ("error_code", "i16"), ("error_message", "str")])
