//! Valid requests of every API in every version, with seeded random content, as whole frames. Shared by the tests of
//! `wire` and `shard` and by the fuzzer; never decides what is right.
// Each test binary that includes this file uses a part of it.
#![allow(dead_code)]

mod admin_requests;
mod group_requests;

use bytes::Bytes;
use pelton_model::Prng;
use pelton_wire::api_key::{self, ApiKey};
use pelton_wire::compression::Codec;
use pelton_wire::messages::{self as m, KafkaString, KafkaUuid, Message, encode_request};
use pelton_wire::records::BatchBuilder;
use uuid::Uuid;

/// What requests may speak of.
#[derive(Clone, Debug)]
pub struct Topics(pub Vec<(String, Uuid)>);

impl Topics {
    /// A few names, some of which no broker accepts, and ids.
    pub fn any() -> Topics {
        let names = ["orders", "a", "", "__consumer_offsets", "größe", "bad name!", "x.y_z-9"];
        Topics(
            names
                .iter()
                .enumerate()
                .map(|(i, name)| ((*name).to_string(), Uuid::from_u128(i as u128)))
                .collect(),
        )
    }
}

/// Makes requests.
pub struct Requests<'a> {
    /// Where everything random comes from.
    pub prng: &'a mut Prng,
    /// What they speak of.
    pub topics: &'a Topics,
    /// Arrays have at most this many elements.
    pub elements_max: u64,
}

fn text(text: &str) -> KafkaString {
    KafkaString::from(text.to_string())
}

/// One whole batch of `count` records.
pub fn batch(prng: &mut Prng, codec: Codec, count: u64) -> Vec<u8> {
    let mut builder = BatchBuilder::new(codec);
    if prng.one_in(3) {
        builder = builder.producer(prng.below(4) as i64, 0, prng.below(3) as i32);
    }
    for _ in 0..count {
        let value = vec![prng.below(256) as u8; prng.below(60) as usize];
        let key = prng.one_in(2).then(|| prng.next_u64().to_le_bytes());
        let timestamp_ms = 1_700_000_000_000 + prng.below(100_000) as i64;
        builder.add(
            timestamp_ms,
            key.as_ref().map(|key| &key[..]),
            Some(&value),
            &[("h", None), ("i", Some(b"1"))],
        );
    }
    builder.build().expect("compressing into memory does not fail")
}

/// Any codec.
pub fn codec(prng: &mut Prng) -> Codec {
    [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd][prng.below(5) as usize]
}

impl Requests<'_> {
    /// A frame of this API in this version.
    pub fn frame(&mut self, api_key: ApiKey, version: i16) -> Bytes {
        let frame = match api_key {
            ApiKey::Produce => self.produce(version),
            ApiKey::Fetch => self.fetch(version),
            ApiKey::ListOffsets => self.list_offsets(version),
            ApiKey::Metadata => self.metadata(version),
            ApiKey::FindCoordinator => self.find_coordinator(version),
            ApiKey::OffsetCommit => self.offset_commit(version),
            ApiKey::OffsetFetch => self.offset_fetch(version),
            ApiKey::JoinGroup => self.join_group(version),
            ApiKey::Heartbeat => self.heartbeat(version),
            ApiKey::LeaveGroup => self.leave_group(version),
            ApiKey::SyncGroup => self.sync_group(version),
            ApiKey::DescribeGroups => self.describe_groups(version),
            ApiKey::ListGroups => self.list_groups(version),
            ApiKey::DeleteGroups => self.delete_groups(version),
            ApiKey::OffsetDelete => self.offset_delete(version),
            ApiKey::ConsumerGroupHeartbeat => self.consumer_group_heartbeat(version),
            ApiKey::ConsumerGroupDescribe => self.consumer_group_describe(version),
            ApiKey::ApiVersions => self.api_versions(version),
            ApiKey::CreateTopics => self.create_topics(version),
            ApiKey::DeleteTopics => self.delete_topics(version),
            ApiKey::DeleteRecords => self.delete_records(version),
            ApiKey::InitProducerId => self.init_producer_id(version),
            ApiKey::OffsetForLeaderEpoch => self.offset_for_leader_epoch(version),
            ApiKey::DescribeConfigs => self.describe_configs(version),
            ApiKey::AlterConfigs => self.alter_configs(version),
            ApiKey::CreatePartitions => self.create_partitions(version),
            ApiKey::IncrementalAlterConfigs => self.incremental_alter_configs(version),
            ApiKey::AlterReplicaLogDirs => self.alter_replica_log_dirs(version),
            ApiKey::DescribeLogDirs => self.describe_log_dirs(version),
            ApiKey::ElectLeaders => self.elect_leaders(version),
            ApiKey::AlterPartitionReassignments => self.alter_partition_reassignments(version),
            ApiKey::ListPartitionReassignments => self.list_partition_reassignments(version),
            ApiKey::DescribeQuorum => self.describe_quorum(version),
            ApiKey::DescribeProducers => self.describe_producers(version),
            ApiKey::UnregisterBroker => self.unregister_broker(version),
            ApiKey::AddRaftVoter => self.add_raft_voter(version),
            ApiKey::RemoveRaftVoter => self.remove_raft_voter(version),
            ApiKey::DescribeCluster => self.describe_cluster(version),
            ApiKey::ListConfigResources => self.list_config_resources(version),
            ApiKey::DescribeTopicPartitions => self.describe_topic_partitions(version),
        };
        if api_key::flexible(api_key, version) && self.prng.one_in(4) {
            self.with_tags(&frame)
        } else {
            frame
        }
    }

    /// The same request with tagged fields that no version knows at its end.
    fn with_tags(&mut self, frame: &Bytes) -> Bytes {
        let mut bytes = frame.to_vec();
        if bytes.pop() != Some(0) {
            return frame.clone();
        }
        bytes.extend_from_slice(&[2, 100, 3, 1, 2, 3, 101, 0]);
        let length = (bytes.len() - 4) as u32;
        bytes[..4].copy_from_slice(&length.to_be_bytes());
        Bytes::from(bytes)
    }

    fn encode<T: Message>(&mut self, api_key: ApiKey, version: i16, body: &T) -> Bytes {
        let client_id = ["", "client", "größe"][self.prng.below(3) as usize];
        let correlation_id = self.prng.next_u64() as i32;
        encode_request(api_key, version, correlation_id, client_id, body)
            .unwrap_or_else(|error| panic!("{} version {version}: {error}", api_key.name()))
    }

    fn list<T>(&mut self, mut element: impl FnMut(&mut Self) -> T) -> Vec<T> {
        let count = self.prng.below(self.elements_max + 1);
        (0..count).map(|_| element(self)).collect()
    }

    fn topic(&mut self) -> (KafkaString, KafkaUuid) {
        let (name, id) = &self.topics.0[self.prng.below(self.topics.0.len() as u64) as usize];
        (text(name), KafkaUuid::from_uuid(*id))
    }

    /// Name and id, the one that this version has.
    fn name_or_id(&mut self, ids: bool) -> (KafkaString, KafkaUuid) {
        let (name, id) = self.topic();
        if ids { (KafkaString::default(), id) } else { (name, KafkaUuid::ZERO) }
    }

    fn partition(&mut self) -> i32 {
        [0, 0, 0, 1, 2, -1, i32::MAX][self.prng.below(7) as usize]
    }

    fn config(&mut self) -> (KafkaString, Option<KafkaString>) {
        let names = [
            "retention.ms",
            "cleanup.policy",
            "max.message.bytes",
            "segment.bytes",
            "flush.messages",
            "consumer.session.timeout.ms",
            "consumer.heartbeat.interval.ms",
            "nonsense",
        ];
        let values = ["1", "50000", "compact", "delete", "-1", "1048576", "", "9223372036854775807"];
        let name = names[self.prng.below(names.len() as u64) as usize];
        let value = values[self.prng.below(values.len() as u64) as usize];
        (text(name), (!self.prng.one_in(5)).then(|| text(value)))
    }

    fn resource(&mut self) -> (i8, KafkaString) {
        match self.prng.below(5) {
            0 => (4, text(["", "256", "1"][self.prng.below(3) as usize])),
            4 => (32, text(["", "g", "other"][self.prng.below(3) as usize])),
            1 => (self.prng.below(127) as i8, text("what")),
            _ => (2, self.topic().0),
        }
    }

    fn produce(&mut self, version: i16) -> Bytes {
        let topic_data = self.list(|it| {
            let (name, topic_id) = it.name_or_id(version >= 13);
            let partition_data = it.list(|it| {
                let (codec, count) = (codec(it.prng), 1 + it.prng.below(4));
                let records = (!it.prng.one_in(6)).then(|| Bytes::from(batch(it.prng, codec, count)));
                m::produce_request::PartitionProduceData {
                    index: it.partition(),
                    records,
                    ..Default::default()
                }
            });
            m::produce_request::TopicProduceData { name, topic_id, partition_data, ..Default::default() }
        });
        let body = m::ProduceRequestData {
            transactional_id: self.prng.one_in(8).then(|| text("tx")),
            acks: [-1, -1, 1, 0, 7][self.prng.below(5) as usize],
            timeout_ms: 1000,
            topic_data,
            ..Default::default()
        };
        self.encode(ApiKey::Produce, version, &body)
    }

    fn fetch(&mut self, version: i16) -> Bytes {
        let topics = self.list(|it| {
            let (topic, topic_id) = it.name_or_id(version >= 13);
            let partitions = it.list(|it| m::fetch_request::FetchPartition {
                partition: it.partition(),
                fetch_offset: it.prng.below(5) as i64 - 1,
                partition_max_bytes: 1 << it.prng.below(31),
                ..Default::default()
            });
            m::fetch_request::FetchTopic { topic, topic_id, partitions, ..Default::default() }
        });
        let mut body = m::FetchRequestData {
            max_wait_ms: self.prng.below(2) as i32 * 100,
            min_bytes: self.prng.below(3) as i32,
            max_bytes: 1 << self.prng.below(31),
            isolation_level: self.prng.below(2) as i8,
            topics,
            ..Default::default()
        };
        if version >= 7 {
            (body.session_id, body.session_epoch) =
                (self.prng.below(2) as i32, self.prng.below(3) as i32 - 1);
            body.forgotten_topics_data = self.list(|it| {
                let (topic, topic_id) = it.name_or_id(version >= 13);
                let partitions = it.list(|it| it.partition());
                m::fetch_request::ForgottenTopic { topic, topic_id, partitions, ..Default::default() }
            });
        }
        if version >= 11 {
            body.rack_id = text("rack");
        }
        self.encode(ApiKey::Fetch, version, &body)
    }

    fn list_offsets(&mut self, version: i16) -> Bytes {
        let topics = self.list(|it| {
            let partitions = it.list(|it| m::list_offsets_request::ListOffsetsPartition {
                partition_index: it.partition(),
                timestamp: it.prng.below(9) as i64 - 6,
                ..Default::default()
            });
            m::list_offsets_request::ListOffsetsTopic { name: it.topic().0, partitions, ..Default::default() }
        });
        let isolation_level = if version >= 2 { self.prng.below(2) as i8 } else { 0 };
        let body =
            m::ListOffsetsRequestData { replica_id: -1, isolation_level, topics, ..Default::default() };
        self.encode(ApiKey::ListOffsets, version, &body)
    }

    fn metadata(&mut self, version: i16) -> Bytes {
        let topics = self.list(|it| {
            let by_id = version >= 12 && it.prng.one_in(2);
            let (name, topic_id) = it.name_or_id(by_id);
            m::metadata_request::MetadataRequestTopic {
                topic_id,
                name: (!by_id).then_some(name),
                ..Default::default()
            }
        });
        let all = version >= 1 && self.prng.one_in(4);
        let mut body = m::MetadataRequestData { topics: (!all).then_some(topics), ..Default::default() };
        if version >= 4 {
            body.allow_auto_topic_creation = self.prng.one_in(2);
        }
        if version >= 8 {
            body.include_topic_authorized_operations = self.prng.one_in(2);
        }
        self.encode(ApiKey::Metadata, version, &body)
    }

    fn find_coordinator(&mut self, version: i16) -> Bytes {
        let mut body = m::FindCoordinatorRequestData::default();
        if version >= 4 {
            body.coordinator_keys = self.list(|it| it.topic().0);
        } else {
            body.key = self.topic().0;
        }
        if version >= 1 {
            body.key_type = self.prng.below(3) as i8;
        }
        self.encode(ApiKey::FindCoordinator, version, &body)
    }

    fn api_versions(&mut self, version: i16) -> Bytes {
        let mut body = m::ApiVersionsRequestData::default();
        if version >= 3 {
            (body.client_software_name, body.client_software_version) = (text("client"), text("1.0"));
        }
        self.encode(ApiKey::ApiVersions, version, &body)
    }

    fn create_topics(&mut self, version: i16) -> Bytes {
        let topics = self.list(|it| {
            let (num_partitions, assignments) = match it.prng.below(3) {
                0 => (
                    -1,
                    it.list(|it| m::create_topics_request::CreatableReplicaAssignment {
                        partition_index: it.partition(),
                        broker_ids: it.list(|it| 256 * it.prng.below(3) as i32),
                        ..Default::default()
                    }),
                ),
                _ => (it.prng.below(4) as i32 - 1, Vec::new()),
            };
            m::create_topics_request::CreatableTopic {
                name: it.topic().0,
                num_partitions,
                replication_factor: if assignments.is_empty() { it.prng.below(3) as i16 - 1 } else { -1 },
                assignments,
                configs: it.list(|it| {
                    let (name, value) = it.config();
                    m::create_topics_request::CreatableTopicConfig { name, value, ..Default::default() }
                }),
                ..Default::default()
            }
        });
        let validate_only = self.prng.one_in(3);
        let body =
            m::CreateTopicsRequestData { topics, timeout_ms: 1000, validate_only, ..Default::default() };
        self.encode(ApiKey::CreateTopics, version, &body)
    }

    fn delete_topics(&mut self, version: i16) -> Bytes {
        let mut body = m::DeleteTopicsRequestData { timeout_ms: 1000, ..Default::default() };
        if version >= 6 {
            body.topics = self.list(|it| {
                let by_id = it.prng.one_in(2);
                let (name, topic_id) = it.name_or_id(by_id);
                m::delete_topics_request::DeleteTopicState {
                    name: (!by_id).then_some(name),
                    topic_id,
                    ..Default::default()
                }
            });
        } else {
            body.topic_names = self.list(|it| it.topic().0);
        }
        self.encode(ApiKey::DeleteTopics, version, &body)
    }

    fn delete_records(&mut self, version: i16) -> Bytes {
        let topics = self.list(|it| {
            let partitions = it.list(|it| m::delete_records_request::DeleteRecordsPartition {
                partition_index: it.partition(),
                offset: it.prng.below(4) as i64 - 1,
                ..Default::default()
            });
            m::delete_records_request::DeleteRecordsTopic {
                name: it.topic().0,
                partitions,
                ..Default::default()
            }
        });
        let body = m::DeleteRecordsRequestData { topics, timeout_ms: 1000, ..Default::default() };
        self.encode(ApiKey::DeleteRecords, version, &body)
    }

    fn init_producer_id(&mut self, version: i16) -> Bytes {
        let mut body = m::InitProducerIdRequestData {
            transactional_id: self.prng.one_in(4).then(|| text("tx")),
            transaction_timeout_ms: 1000,
            ..Default::default()
        };
        if version >= 3 {
            (body.producer_id, body.producer_epoch) =
                (self.prng.below(3) as i64 - 1, self.prng.below(3) as i16 - 1);
        }
        self.encode(ApiKey::InitProducerId, version, &body)
    }

    fn offset_for_leader_epoch(&mut self, version: i16) -> Bytes {
        let topics = self.list(|it| {
            let partitions = it.list(|it| m::offset_for_leader_epoch_request::OffsetForLeaderPartition {
                partition: it.partition(),
                leader_epoch: it.prng.below(3) as i32 - 1,
                ..Default::default()
            });
            let topic = it.topic().0;
            m::offset_for_leader_epoch_request::OffsetForLeaderTopic {
                topic,
                partitions,
                ..Default::default()
            }
        });
        let body = m::OffsetForLeaderEpochRequestData { topics, ..Default::default() };
        self.encode(ApiKey::OffsetForLeaderEpoch, version, &body)
    }

    fn describe_configs(&mut self, version: i16) -> Bytes {
        let resources = self.list(|it| {
            let (resource_type, resource_name) = it.resource();
            let keys = it.list(|it| it.config().0);
            m::describe_configs_request::DescribeConfigsResource {
                resource_type,
                resource_name,
                configuration_keys: it.prng.one_in(2).then_some(keys),
                ..Default::default()
            }
        });
        let include_documentation = version >= 3 && self.prng.one_in(2);
        let include_synonyms = self.prng.one_in(2);
        let body = m::DescribeConfigsRequestData {
            resources,
            include_synonyms,
            include_documentation,
            ..Default::default()
        };
        self.encode(ApiKey::DescribeConfigs, version, &body)
    }

    fn alter_configs(&mut self, version: i16) -> Bytes {
        let resources = self.list(|it| {
            let (resource_type, resource_name) = it.resource();
            let configs = it.list(|it| {
                let (name, value) = it.config();
                m::alter_configs_request::AlterableConfig { name, value, ..Default::default() }
            });
            m::alter_configs_request::AlterConfigsResource {
                resource_type,
                resource_name,
                configs,
                ..Default::default()
            }
        });
        let validate_only = self.prng.one_in(3);
        self.encode(
            ApiKey::AlterConfigs,
            version,
            &m::AlterConfigsRequestData { resources, validate_only, ..Default::default() },
        )
    }

    fn create_partitions(&mut self, version: i16) -> Bytes {
        let topics = self.list(|it| {
            let assignments = it.list(|it| m::create_partitions_request::CreatePartitionsAssignment {
                broker_ids: it.list(|it| 256 * it.prng.below(3) as i32),
                ..Default::default()
            });
            m::create_partitions_request::CreatePartitionsTopic {
                name: it.topic().0,
                count: it.prng.below(6) as i32,
                assignments: it.prng.one_in(2).then_some(assignments),
                ..Default::default()
            }
        });
        let body = m::CreatePartitionsRequestData { topics, timeout_ms: 1000, ..Default::default() };
        self.encode(ApiKey::CreatePartitions, version, &body)
    }

    fn incremental_alter_configs(&mut self, version: i16) -> Bytes {
        let resources = self.list(|it| {
            let (resource_type, resource_name) = it.resource();
            let configs = it.list(|it| {
                let (name, value) = it.config();
                let config_operation = it.prng.below(5) as i8;
                m::incremental_alter_configs_request::AlterableConfig {
                    name,
                    config_operation,
                    value,
                    ..Default::default()
                }
            });
            m::incremental_alter_configs_request::AlterConfigsResource {
                resource_type,
                resource_name,
                configs,
                ..Default::default()
            }
        });
        let body = m::IncrementalAlterConfigsRequestData { resources, ..Default::default() };
        self.encode(ApiKey::IncrementalAlterConfigs, version, &body)
    }

    fn describe_cluster(&mut self, version: i16) -> Bytes {
        let include_cluster_authorized_operations = self.prng.one_in(2);
        let mut body =
            m::DescribeClusterRequestData { include_cluster_authorized_operations, ..Default::default() };
        if version >= 1 {
            body.endpoint_type = self.prng.below(3) as i8;
        }
        if version >= 2 {
            body.include_fenced_brokers = self.prng.one_in(2);
        }
        self.encode(ApiKey::DescribeCluster, version, &body)
    }

    fn describe_topic_partitions(&mut self, version: i16) -> Bytes {
        let cursor = self.prng.one_in(3).then(|| {
            let (topic_name, partition_index) = (self.topic().0, self.partition());
            Box::new(m::describe_topic_partitions_request::Cursor {
                topic_name,
                partition_index,
                ..Default::default()
            })
        });
        let body = m::DescribeTopicPartitionsRequestData {
            topics: self.list(|it| m::describe_topic_partitions_request::TopicRequest {
                name: it.topic().0,
                ..Default::default()
            }),
            response_partition_limit: self.prng.below(10) as i32,
            cursor,
            ..Default::default()
        };
        self.encode(ApiKey::DescribeTopicPartitions, version, &body)
    }

    fn list_config_resources(&mut self, version: i16) -> Bytes {
        let types = self.list(|it| [2, 4, 8, 16, 32, 0, 64][it.prng.below(7) as usize]);
        let resource_types = if version >= 1 { types } else { Vec::new() };
        let body = m::ListConfigResourcesRequestData { resource_types, ..Default::default() };
        self.encode(ApiKey::ListConfigResources, version, &body)
    }
}
