//! Requests of the group APIs, in the manner of `requests.rs`.

use bytes::Bytes;
use pelton_wire::api_key::ApiKey;
use pelton_wire::messages::{
    self as m, KafkaString, consumer_group_heartbeat_request, join_group_request, leave_group_request,
    offset_commit_request, offset_delete_request, offset_fetch_request, sync_group_request,
};

use super::{Requests, text};

impl Requests<'_> {
    fn group_id(&mut self) -> KafkaString {
        text(["g", "h", "", "größe"][self.prng.below(4) as usize])
    }

    fn member_id(&mut self) -> KafkaString {
        text(["", "m1", "m2"][self.prng.below(3) as usize])
    }

    fn instance_id(&mut self, has: bool) -> Option<KafkaString> {
        (has && self.prng.one_in(3)).then(|| text("instance"))
    }

    fn blob(&mut self) -> Bytes {
        Bytes::from(vec![self.prng.below(3) as u8; self.prng.below(40) as usize])
    }

    pub(super) fn join_group(&mut self, version: i16) -> Bytes {
        let mut body = m::JoinGroupRequestData {
            group_id: self.group_id(),
            session_timeout_ms: [0, 300, 900][self.prng.below(3) as usize],
            member_id: self.member_id(),
            protocol_type: text(["consumer", "connect", ""][self.prng.below(3) as usize]),
            protocols: self.list(|it| join_group_request::JoinGroupRequestProtocol {
                name: text(["range", "roundrobin"][it.prng.below(2) as usize]),
                metadata: it.blob(),
                ..Default::default()
            }),
            group_instance_id: self.instance_id(version >= 5),
            ..Default::default()
        };
        if version >= 1 {
            body.rebalance_timeout_ms = [100, 1000][self.prng.below(2) as usize];
        }
        if version >= 8 && self.prng.one_in(2) {
            body.reason = Some(text("why"));
        }
        self.encode(ApiKey::JoinGroup, version, &body)
    }

    pub(super) fn sync_group(&mut self, version: i16) -> Bytes {
        let mut body = m::SyncGroupRequestData {
            group_id: self.group_id(),
            generation_id: self.prng.below(3) as i32 - 1,
            member_id: self.member_id(),
            group_instance_id: self.instance_id(version >= 3),
            assignments: self.list(|it| sync_group_request::SyncGroupRequestAssignment {
                member_id: it.member_id(),
                assignment: it.blob(),
                ..Default::default()
            }),
            ..Default::default()
        };
        if version >= 5 && self.prng.one_in(2) {
            (body.protocol_type, body.protocol_name) = (Some(text("consumer")), Some(text("range")));
        }
        self.encode(ApiKey::SyncGroup, version, &body)
    }

    pub(super) fn heartbeat(&mut self, version: i16) -> Bytes {
        let body = m::HeartbeatRequestData {
            group_id: self.group_id(),
            generation_id: self.prng.below(3) as i32 - 1,
            member_id: self.member_id(),
            group_instance_id: self.instance_id(version >= 3),
            ..Default::default()
        };
        self.encode(ApiKey::Heartbeat, version, &body)
    }

    pub(super) fn leave_group(&mut self, version: i16) -> Bytes {
        let mut body = m::LeaveGroupRequestData { group_id: self.group_id(), ..Default::default() };
        if version < 3 {
            body.member_id = self.member_id();
        } else {
            body.members = self.list(|it| leave_group_request::MemberIdentity {
                member_id: it.member_id(),
                group_instance_id: it.instance_id(true),
                reason: (version >= 5 && it.prng.one_in(2)).then(|| text("why")),
                ..Default::default()
            });
        }
        self.encode(ApiKey::LeaveGroup, version, &body)
    }

    pub(super) fn offset_commit(&mut self, version: i16) -> Bytes {
        let mut body = m::OffsetCommitRequestData {
            group_id: self.group_id(),
            generation_id_or_member_epoch: self.prng.below(3) as i32 - 1,
            member_id: self.member_id(),
            group_instance_id: self.instance_id(version >= 7),
            topics: self.list(|it| {
                let (name, topic_id) = it.name_or_id(version >= 10);
                let partitions = it.list(|it| offset_commit_request::OffsetCommitRequestPartition {
                    partition_index: it.prng.below(4) as i32 - 1,
                    committed_offset: it.prng.below(100) as i64,
                    committed_leader_epoch: if version >= 6 { it.prng.below(3) as i32 - 1 } else { -1 },
                    committed_metadata: it.prng.one_in(2).then(|| text("metadata")),
                    ..Default::default()
                });
                offset_commit_request::OffsetCommitRequestTopic {
                    name,
                    topic_id,
                    partitions,
                    ..Default::default()
                }
            }),
            ..Default::default()
        };
        if version <= 4 {
            body.retention_time_ms = self.prng.below(3) as i64 - 1;
        }
        self.encode(ApiKey::OffsetCommit, version, &body)
    }

    pub(super) fn offset_fetch(&mut self, version: i16) -> Bytes {
        let mut body = m::OffsetFetchRequestData {
            require_stable: version >= 7 && self.prng.one_in(2),
            ..Default::default()
        };
        if version >= 8 {
            body.groups = self.list(|it| {
                let topics = it.list(|it| {
                    let (name, topic_id) = it.name_or_id(version >= 10);
                    let partition_indexes = it.list(|it| it.prng.below(4) as i32);
                    offset_fetch_request::OffsetFetchRequestTopics {
                        name,
                        topic_id,
                        partition_indexes,
                        ..Default::default()
                    }
                });
                offset_fetch_request::OffsetFetchRequestGroup {
                    group_id: it.group_id(),
                    member_id: (version >= 9 && it.prng.one_in(3)).then(|| it.member_id()),
                    topics: (!it.prng.one_in(3)).then_some(topics),
                    ..Default::default()
                }
            });
        } else {
            body.group_id = self.group_id();
            let topics = self.list(|it| offset_fetch_request::OffsetFetchRequestTopic {
                name: it.topic().0,
                partition_indexes: it.list(|it| it.prng.below(4) as i32),
                ..Default::default()
            });
            body.topics = (version < 2 || !self.prng.one_in(3)).then_some(topics);
        }
        self.encode(ApiKey::OffsetFetch, version, &body)
    }

    pub(super) fn offset_delete(&mut self, version: i16) -> Bytes {
        let topics = self.list(|it| offset_delete_request::OffsetDeleteRequestTopic {
            name: it.topic().0,
            partitions: it.list(|it| offset_delete_request::OffsetDeleteRequestPartition {
                partition_index: it.prng.below(4) as i32,
                ..Default::default()
            }),
            ..Default::default()
        });
        let body = m::OffsetDeleteRequestData { group_id: self.group_id(), topics, ..Default::default() };
        self.encode(ApiKey::OffsetDelete, version, &body)
    }

    pub(super) fn list_groups(&mut self, version: i16) -> Bytes {
        let mut body = m::ListGroupsRequestData::default();
        if version >= 4 {
            body.states_filter = self.list(|_| text("Stable"));
        }
        if version >= 5 {
            body.types_filter = self.list(|_| text("classic"));
        }
        self.encode(ApiKey::ListGroups, version, &body)
    }

    pub(super) fn describe_groups(&mut self, version: i16) -> Bytes {
        let body = m::DescribeGroupsRequestData {
            groups: self.list(Requests::group_id),
            include_authorized_operations: version >= 3 && self.prng.one_in(2),
            ..Default::default()
        };
        self.encode(ApiKey::DescribeGroups, version, &body)
    }

    pub(super) fn delete_groups(&mut self, version: i16) -> Bytes {
        let groups_names = self.list(Requests::group_id);
        let body = m::DeleteGroupsRequestData { groups_names, ..Default::default() };
        self.encode(ApiKey::DeleteGroups, version, &body)
    }

    pub(super) fn consumer_group_heartbeat(&mut self, version: i16) -> Bytes {
        let topics = self.list(|it| it.topic().0);
        let owned = self.list(|it| consumer_group_heartbeat_request::TopicPartitions {
            topic_id: it.topic().1,
            partitions: it.list(|it| it.prng.below(4) as i32),
            ..Default::default()
        });
        let body = m::ConsumerGroupHeartbeatRequestData {
            group_id: self.group_id(),
            member_id: self.member_id(),
            member_epoch: self.prng.below(4) as i32 - 2,
            instance_id: self.instance_id(true),
            rebalance_timeout_ms: [-1, 1000][self.prng.below(2) as usize],
            subscribed_topic_names: self.prng.one_in(2).then_some(topics),
            subscribed_topic_regex: (version >= 1 && self.prng.one_in(3)).then(|| text("o.*")),
            server_assignor: self.prng.one_in(3).then(|| text("range")),
            topic_partitions: self.prng.one_in(2).then_some(owned),
            ..Default::default()
        };
        self.encode(ApiKey::ConsumerGroupHeartbeat, version, &body)
    }

    pub(super) fn consumer_group_describe(&mut self, version: i16) -> Bytes {
        let body = m::ConsumerGroupDescribeRequestData {
            group_ids: self.list(Requests::group_id),
            include_authorized_operations: self.prng.one_in(2),
            ..Default::default()
        };
        self.encode(ApiKey::ConsumerGroupDescribe, version, &body)
    }
}
