//! Requests of those who look after a cluster, in the manner of `requests.rs`.

use bytes::Bytes;
use pelton_wire::api_key::ApiKey;
use pelton_wire::messages::{
    self as m, KafkaString, KafkaUuid, alter_partition_reassignments_request as reassign,
    alter_replica_log_dirs_request as moves, describe_log_dirs_request as log_dirs,
    describe_producers_request as producers, describe_quorum_request as quorum,
    elect_leaders_request as elections, list_partition_reassignments_request as reassigning,
};

use super::{Requests, text};

impl Requests<'_> {
    fn broker(&mut self) -> i32 {
        [256, 256, 257, 512, 0, 1, -1, i32::MAX][self.prng.below(8) as usize]
    }

    pub(super) fn describe_log_dirs(&mut self, version: i16) -> Bytes {
        let topics = self.prng.one_in(2).then(|| {
            self.list(|it| log_dirs::DescribableLogDirTopic {
                topic: it.topic().0,
                partitions: it.list(|it| it.partition()),
                ..Default::default()
            })
        });
        let body = m::DescribeLogDirsRequestData { topics, ..Default::default() };
        self.encode(ApiKey::DescribeLogDirs, version, &body)
    }

    pub(super) fn alter_replica_log_dirs(&mut self, version: i16) -> Bytes {
        let dirs = self.list(|it| moves::AlterReplicaLogDir {
            path: KafkaString::from_static(["shard-0", "shard-1", "/nowhere", ""][it.prng.below(4) as usize]),
            topics: it.list(|it| moves::AlterReplicaLogDirTopic {
                name: it.topic().0,
                partitions: it.list(|it| it.partition()),
                ..Default::default()
            }),
            ..Default::default()
        });
        let body = m::AlterReplicaLogDirsRequestData { dirs, ..Default::default() };
        self.encode(ApiKey::AlterReplicaLogDirs, version, &body)
    }

    pub(super) fn elect_leaders(&mut self, version: i16) -> Bytes {
        let topic_partitions = self.prng.one_in(2).then(|| {
            self.list(|it| elections::TopicPartitions {
                topic: it.topic().0,
                partitions: it.list(|it| it.partition()),
                ..Default::default()
            })
        });
        let timeout_ms = [0, 100, 1000][self.prng.below(3) as usize];
        let mut body = m::ElectLeadersRequestData { topic_partitions, timeout_ms, ..Default::default() };
        if version >= 1 {
            body.election_type = [0, 1, 1, 2][self.prng.below(4) as usize];
        }
        self.encode(ApiKey::ElectLeaders, version, &body)
    }

    pub(super) fn alter_partition_reassignments(&mut self, version: i16) -> Bytes {
        let topics = self.list(|it| reassign::ReassignableTopic {
            name: it.topic().0,
            partitions: it.list(|it| reassign::ReassignablePartition {
                partition_index: it.partition(),
                replicas: (!it.prng.one_in(3)).then(|| it.list(|it| it.broker())),
                ..Default::default()
            }),
            ..Default::default()
        });
        let mut body =
            m::AlterPartitionReassignmentsRequestData { timeout_ms: 1000, topics, ..Default::default() };
        if version >= 1 {
            body.allow_replication_factor_change = self.prng.one_in(2);
        }
        self.encode(ApiKey::AlterPartitionReassignments, version, &body)
    }

    pub(super) fn list_partition_reassignments(&mut self, version: i16) -> Bytes {
        let topics = self.prng.one_in(2).then(|| {
            self.list(|it| reassigning::ListPartitionReassignmentsTopics {
                name: it.topic().0,
                partition_indexes: it.list(|it| it.partition()),
                ..Default::default()
            })
        });
        let body =
            m::ListPartitionReassignmentsRequestData { timeout_ms: 1000, topics, ..Default::default() };
        self.encode(ApiKey::ListPartitionReassignments, version, &body)
    }

    pub(super) fn describe_quorum(&mut self, version: i16) -> Bytes {
        let topic = |it: &mut Self| quorum::TopicData {
            topic_name: if it.prng.one_in(4) { it.topic().0 } else { text("__cluster_metadata") },
            partitions: vec![quorum::PartitionData {
                partition_index: if it.prng.one_in(4) { it.partition() } else { 0 },
                ..Default::default()
            }],
            ..Default::default()
        };
        let topics = if self.prng.one_in(2) { vec![topic(self)] } else { self.list(topic) };
        let body = m::DescribeQuorumRequestData { topics, ..Default::default() };
        self.encode(ApiKey::DescribeQuorum, version, &body)
    }

    pub(super) fn describe_producers(&mut self, version: i16) -> Bytes {
        let topics = self.list(|it| producers::TopicRequest {
            name: it.topic().0,
            partition_indexes: it.list(|it| it.partition()),
            ..Default::default()
        });
        let body = m::DescribeProducersRequestData { topics, ..Default::default() };
        self.encode(ApiKey::DescribeProducers, version, &body)
    }

    pub(super) fn unregister_broker(&mut self, version: i16) -> Bytes {
        let body = m::UnregisterBrokerRequestData { broker_id: self.broker(), ..Default::default() };
        self.encode(ApiKey::UnregisterBroker, version, &body)
    }

    /// The cluster's id as the tests' node has it, another one, or none.
    fn cluster_id(&mut self) -> Option<KafkaString> {
        [None, Some(text("testcluster00000000000")), Some(text("another"))][self.prng.below(3) as usize]
            .clone()
    }

    fn directory_id(&mut self) -> KafkaUuid {
        KafkaUuid::from_uuid(uuid::Uuid::from_u128(u128::from(self.prng.below(3))))
    }

    pub(super) fn add_raft_voter(&mut self, version: i16) -> Bytes {
        let mut body = m::AddRaftVoterRequestData {
            cluster_id: self.cluster_id(),
            timeout_ms: 100,
            voter_id: self.broker(),
            voter_directory_id: self.directory_id(),
            listeners: self.list(|it| m::add_raft_voter_request::Listener {
                name: text("CONTROLLER"),
                host: text("host"),
                port: it.prng.below(1 << 16) as u16,
                ..Default::default()
            }),
            ..Default::default()
        };
        if version >= 1 {
            body.ack_when_committed = self.prng.one_in(2);
        }
        self.encode(ApiKey::AddRaftVoter, version, &body)
    }

    pub(super) fn remove_raft_voter(&mut self, version: i16) -> Bytes {
        let body = m::RemoveRaftVoterRequestData {
            cluster_id: self.cluster_id(),
            voter_id: self.broker(),
            voter_directory_id: self.directory_id(),
            ..Default::default()
        };
        self.encode(ApiKey::RemoveRaftVoter, version, &body)
    }
}
