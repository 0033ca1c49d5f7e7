"""Message schemas of the group APIs, copied by hand from Kafka 4.3's common/message/*.json; see apis.py."""
from .apis import Api

NEVER = 99  # no flexible version

FIND_COORDINATOR = Api("FindCoordinator", 10, 3, [
    ("key", "str", 0, 3), ("key_type", "i8", 1), ("keys", ("arr", "str"), 4),
], [
    ("throttle_time_ms", "i32", 1), ("error_code", "i16", 0, 3), ("error_message", "str", 1, 3), ("node_id", "i32", 0, 3),
    ("host", "str", 0, 3), ("port", "i32", 0, 3),
    ("coordinators", [("key", "str"), ("node_id", "i32"), ("host", "str"), ("port", "i32"), ("error_code", "i16"),
                      ("error_message", "str")], 4),
])

JOIN_GROUP = Api("JoinGroup", 11, 6, [
    ("group", "str"), ("session_timeout_ms", "i32"), ("rebalance_timeout_ms", "i32", 1), ("member", "str"), ("instance", "str", 5),
    ("protocol_type", "str"), ("protocols", [("name", "str"), ("metadata", "bytes")]), ("reason", "str", 8),
], [
    ("throttle_time_ms", "i32", 2), ("error_code", "i16"), ("generation", "i32"), ("protocol_type", "str", 7), ("protocol", "str"),
    ("leader", "str"), ("skip_assignment", "bool", 9), ("member", "str"),
    ("members", [("member", "str"), ("instance", "str", 5), ("metadata", "bytes")]),
])

SYNC_GROUP = Api("SyncGroup", 14, 4, [
    ("group", "str"), ("generation", "i32"), ("member", "str"), ("instance", "str", 3), ("protocol_type", "str", 5),
    ("protocol", "str", 5), ("assignments", [("member", "str"), ("assignment", "bytes")]),
], [
    ("throttle_time_ms", "i32", 1), ("error_code", "i16"), ("protocol_type", "str", 5), ("protocol", "str", 5), ("assignment", "bytes"),
])

HEARTBEAT = Api("Heartbeat", 12, 4, [
    ("group", "str"), ("generation", "i32"), ("member", "str"), ("instance", "str", 3),
], [("throttle_time_ms", "i32", 1), ("error_code", "i16")])

LEAVE_GROUP = Api("LeaveGroup", 13, 4, [
    ("group", "str"), ("member", "str", 0, 2), ("members", [("member", "str"), ("instance", "str"), ("reason", "str", 5)], 3),
], [
    ("throttle_time_ms", "i32", 1), ("error_code", "i16"),
    ("members", [("member", "str"), ("instance", "str"), ("error_code", "i16")], 3),
])

OFFSET_COMMIT = Api("OffsetCommit", 8, 8, [
    ("group", "str"), ("generation", "i32"), ("member", "str"), ("instance", "str", 7), ("retention_ms", "i64", 2, 4),
    ("topics", [("name", "str", 0, 9), ("topic_id", "uuid", 10), ("partitions", [
        ("index", "i32"), ("offset", "i64"), ("leader_epoch", "i32", 6), ("metadata", "str")])]),
], [
    ("throttle_time_ms", "i32", 3),
    ("topics", [("name", "str", 0, 9), ("topic_id", "uuid", 10), ("partitions", [("index", "i32"), ("error_code", "i16")])]),
])

_FETCHED = [("index", "i32"), ("offset", "i64"), ("leader_epoch", "i32", 5), ("metadata", "str"), ("error_code", "i16")]
OFFSET_FETCH = Api("OffsetFetch", 9, 6, [
    ("group", "str", 0, 7), ("topics", [("name", "str"), ("partitions", ("arr", "i32"))], 0, 7),
    ("groups", [("group", "str"), ("member", "str", 9), ("member_epoch", "i32", 9), ("topics", [
        ("name", "str", 0, 9), ("topic_id", "uuid", 10), ("partitions", ("arr", "i32"))])], 8),
    ("require_stable", "bool", 7),
], [
    ("throttle_time_ms", "i32", 3), ("topics", [("name", "str"), ("partitions", _FETCHED)], 0, 7), ("error_code", "i16", 2, 7),
    ("groups", [("group", "str"), ("topics", [("name", "str", 0, 9), ("topic_id", "uuid", 10), ("partitions", _FETCHED)]),
                ("error_code", "i16")], 8),
])

DESCRIBE_GROUPS = Api("DescribeGroups", 15, 5, [("groups", ("arr", "str")), ("operations", "bool", 3)], [
    ("throttle_time_ms", "i32", 1),
    ("groups", [("error_code", "i16"), ("error_message", "str", 6), ("group", "str"), ("state", "str"), ("protocol_type", "str"),
                ("protocol", "str"), ("members", [("member", "str"), ("instance", "str", 4), ("client_id", "str"), ("host", "str"),
                                                  ("metadata", "bytes"), ("assignment", "bytes")]), ("operations", "i32", 3)]),
])

LIST_GROUPS = Api("ListGroups", 16, 3, [("states", ("arr", "str"), 4), ("types", ("arr", "str"), 5)], [
    ("throttle_time_ms", "i32", 1), ("error_code", "i16"),
    ("groups", [("group", "str"), ("protocol_type", "str"), ("state", "str", 4), ("type", "str", 5)]),
])

DELETE_GROUPS = Api("DeleteGroups", 42, 2, [("groups", ("arr", "str"))], [
    ("throttle_time_ms", "i32"), ("results", [("group", "str"), ("error_code", "i16")]),
])

OFFSET_DELETE = Api("OffsetDelete", 47, NEVER, [
    ("group", "str"), ("topics", [("name", "str"), ("partitions", [("index", "i32")])]),
], [
    ("error_code", "i16"), ("throttle_time_ms", "i32"),
    ("topics", [("name", "str"), ("partitions", [("index", "i32"), ("error_code", "i16")])]),
])

_BY_ID = [("topic_id", "uuid"), ("partitions", ("arr", "i32"))]
CONSUMER_GROUP_HEARTBEAT = Api("ConsumerGroupHeartbeat", 68, 0, [
    ("group", "str"), ("member", "str"), ("member_epoch", "i32"), ("instance", "str"), ("rack", "str"),
    ("rebalance_timeout_ms", "i32"), ("names", ("arr", "str")), ("regex", "str", 1), ("assignor", "str"), ("owned", _BY_ID),
], [
    ("throttle_time_ms", "i32"), ("error_code", "i16"), ("error_message", "str"), ("member", "str"), ("member_epoch", "i32"),
    ("heartbeat_interval_ms", "i32"), ("assignment", ("opt", [("partitions", _BY_ID)])),
])

_ASSIGNMENT = ("one", [("partitions", [("topic_id", "uuid"), ("name", "str"), ("partitions", ("arr", "i32"))])])
CONSUMER_GROUP_DESCRIBE = Api("ConsumerGroupDescribe", 69, 0, [("groups", ("arr", "str")), ("operations", "bool")], [
    ("throttle_time_ms", "i32"),
    ("groups", [("error_code", "i16"), ("error_message", "str"), ("group", "str"), ("state", "str"), ("epoch", "i32"),
                ("assignment_epoch", "i32"), ("assignor", "str"),
                ("members", [("member", "str"), ("instance", "str"), ("rack", "str"), ("member_epoch", "i32"), ("client_id", "str"),
                             ("host", "str"), ("names", ("arr", "str")), ("regex", "str"), ("assignment", _ASSIGNMENT),
                             ("target", _ASSIGNMENT), ("type", "i8", 1)]), ("operations", "i32")]),
])
