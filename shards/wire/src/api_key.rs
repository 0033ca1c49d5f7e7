//! The APIs this broker serves and their versions. A version is in the table only when it is served completely.

/// An API of Kafka's that this broker serves.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(i16)]
pub enum ApiKey {
    /// Produce.
    Produce = 0,
    /// Fetch.
    Fetch = 1,
    /// ListOffsets.
    ListOffsets = 2,
    /// Metadata.
    Metadata = 3,
    /// OffsetCommit.
    OffsetCommit = 8,
    /// OffsetFetch.
    OffsetFetch = 9,
    /// FindCoordinator.
    FindCoordinator = 10,
    /// JoinGroup.
    JoinGroup = 11,
    /// Heartbeat.
    Heartbeat = 12,
    /// LeaveGroup.
    LeaveGroup = 13,
    /// SyncGroup.
    SyncGroup = 14,
    /// DescribeGroups.
    DescribeGroups = 15,
    /// ListGroups.
    ListGroups = 16,
    /// ApiVersions.
    ApiVersions = 18,
    /// CreateTopics.
    CreateTopics = 19,
    /// DeleteTopics.
    DeleteTopics = 20,
    /// DeleteRecords.
    DeleteRecords = 21,
    /// InitProducerId.
    InitProducerId = 22,
    /// OffsetForLeaderEpoch.
    OffsetForLeaderEpoch = 23,
    /// DescribeConfigs.
    DescribeConfigs = 32,
    /// AlterConfigs.
    AlterConfigs = 33,
    /// AlterReplicaLogDirs.
    AlterReplicaLogDirs = 34,
    /// DescribeLogDirs.
    DescribeLogDirs = 35,
    /// CreatePartitions.
    CreatePartitions = 37,
    /// DeleteGroups.
    DeleteGroups = 42,
    /// ElectLeaders.
    ElectLeaders = 43,
    /// IncrementalAlterConfigs.
    IncrementalAlterConfigs = 44,
    /// AlterPartitionReassignments.
    AlterPartitionReassignments = 45,
    /// ListPartitionReassignments.
    ListPartitionReassignments = 46,
    /// OffsetDelete.
    OffsetDelete = 47,
    /// DescribeQuorum.
    DescribeQuorum = 55,
    /// DescribeCluster.
    DescribeCluster = 60,
    /// DescribeProducers.
    DescribeProducers = 61,
    /// UnregisterBroker.
    UnregisterBroker = 64,
    /// ConsumerGroupHeartbeat.
    ConsumerGroupHeartbeat = 68,
    /// ConsumerGroupDescribe.
    ConsumerGroupDescribe = 69,
    /// ListConfigResources.
    ListConfigResources = 74,
    /// DescribeTopicPartitions.
    DescribeTopicPartitions = 75,
    /// AddRaftVoter.
    AddRaftVoter = 80,
    /// RemoveRaftVoter.
    RemoveRaftVoter = 81,
}

/// What is served of one API.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ApiVersionRange {
    /// The API.
    pub api_key: ApiKey,
    /// First version served.
    pub min: i16,
    /// Last version served.
    pub max: i16,
    /// First version that ApiVersions names; none: the API is not advertised. Produce names 0 although 0-2 are refused,
    /// as Kafka does: librdkafka before 2025 turns compression off otherwise (KAFKA-18659).
    pub advertised_min: Option<i16>,
    /// First flexible version (KIP-482).
    pub flexible_from: i16,
}

/// No version uses compact encodings.
const NEVER_FLEXIBLE: i16 = i16::MAX;

const fn row(
    api_key: ApiKey,
    min: i16,
    max: i16,
    advertised_min: Option<i16>,
    flexible_from: i16,
) -> ApiVersionRange {
    ApiVersionRange { api_key, min, max, advertised_min, flexible_from }
}

/// Everything served, by ascending key.
pub const SUPPORTED: &[ApiVersionRange] = &[
    row(ApiKey::Produce, 3, 13, Some(0), 9),
    row(ApiKey::Fetch, 4, 17, Some(4), 12),
    row(ApiKey::ListOffsets, 1, 9, Some(1), 6),
    row(ApiKey::Metadata, 0, 13, Some(0), 9),
    row(ApiKey::OffsetCommit, 2, 10, Some(2), 8),
    row(ApiKey::OffsetFetch, 1, 10, Some(1), 6),
    row(ApiKey::FindCoordinator, 0, 5, Some(0), 3),
    row(ApiKey::JoinGroup, 0, 9, Some(0), 6),
    row(ApiKey::Heartbeat, 0, 4, Some(0), 4),
    row(ApiKey::LeaveGroup, 0, 5, Some(0), 4),
    row(ApiKey::SyncGroup, 0, 5, Some(0), 4),
    row(ApiKey::DescribeGroups, 0, 6, Some(0), 5),
    row(ApiKey::ListGroups, 0, 5, Some(0), 3),
    row(ApiKey::ApiVersions, 0, 4, Some(0), 3),
    row(ApiKey::CreateTopics, 2, 7, Some(2), 5),
    row(ApiKey::DeleteTopics, 1, 6, Some(1), 4),
    row(ApiKey::DeleteRecords, 0, 2, Some(0), 2),
    row(ApiKey::InitProducerId, 0, 5, Some(0), 2),
    row(ApiKey::OffsetForLeaderEpoch, 2, 4, Some(2), 4),
    row(ApiKey::DescribeConfigs, 1, 4, Some(1), 4),
    row(ApiKey::AlterConfigs, 0, 2, Some(0), 2),
    row(ApiKey::AlterReplicaLogDirs, 1, 2, Some(1), 2),
    row(ApiKey::DescribeLogDirs, 1, 5, Some(1), 2),
    row(ApiKey::CreatePartitions, 0, 3, Some(0), 2),
    row(ApiKey::DeleteGroups, 0, 2, Some(0), 2),
    row(ApiKey::ElectLeaders, 0, 2, Some(0), 2),
    row(ApiKey::IncrementalAlterConfigs, 0, 1, Some(0), 1),
    row(ApiKey::AlterPartitionReassignments, 0, 1, Some(0), 0),
    row(ApiKey::ListPartitionReassignments, 0, 0, Some(0), 0),
    row(ApiKey::OffsetDelete, 0, 0, Some(0), NEVER_FLEXIBLE),
    row(ApiKey::DescribeQuorum, 0, 2, Some(0), 0),
    row(ApiKey::DescribeCluster, 0, 2, Some(0), 0),
    row(ApiKey::DescribeProducers, 0, 0, Some(0), 0),
    row(ApiKey::UnregisterBroker, 0, 0, Some(0), 0),
    row(ApiKey::ConsumerGroupHeartbeat, 0, 1, Some(0), 0),
    row(ApiKey::ConsumerGroupDescribe, 0, 1, Some(0), 0),
    row(ApiKey::ListConfigResources, 0, 1, Some(0), 0),
    row(ApiKey::DescribeTopicPartitions, 0, 0, Some(0), 0),
    row(ApiKey::AddRaftVoter, 0, 1, Some(0), 0),
    row(ApiKey::RemoveRaftVoter, 0, 0, Some(0), 0),
];

impl ApiKey {
    /// The API of a key; none if it is not served.
    pub fn from_code(code: i16) -> Option<ApiKey> {
        Some(match code {
            0 => ApiKey::Produce,
            1 => ApiKey::Fetch,
            2 => ApiKey::ListOffsets,
            3 => ApiKey::Metadata,
            8 => ApiKey::OffsetCommit,
            9 => ApiKey::OffsetFetch,
            10 => ApiKey::FindCoordinator,
            11 => ApiKey::JoinGroup,
            12 => ApiKey::Heartbeat,
            13 => ApiKey::LeaveGroup,
            14 => ApiKey::SyncGroup,
            15 => ApiKey::DescribeGroups,
            16 => ApiKey::ListGroups,
            18 => ApiKey::ApiVersions,
            19 => ApiKey::CreateTopics,
            20 => ApiKey::DeleteTopics,
            21 => ApiKey::DeleteRecords,
            22 => ApiKey::InitProducerId,
            23 => ApiKey::OffsetForLeaderEpoch,
            32 => ApiKey::DescribeConfigs,
            33 => ApiKey::AlterConfigs,
            34 => ApiKey::AlterReplicaLogDirs,
            35 => ApiKey::DescribeLogDirs,
            37 => ApiKey::CreatePartitions,
            42 => ApiKey::DeleteGroups,
            43 => ApiKey::ElectLeaders,
            44 => ApiKey::IncrementalAlterConfigs,
            45 => ApiKey::AlterPartitionReassignments,
            46 => ApiKey::ListPartitionReassignments,
            47 => ApiKey::OffsetDelete,
            55 => ApiKey::DescribeQuorum,
            60 => ApiKey::DescribeCluster,
            61 => ApiKey::DescribeProducers,
            64 => ApiKey::UnregisterBroker,
            68 => ApiKey::ConsumerGroupHeartbeat,
            69 => ApiKey::ConsumerGroupDescribe,
            74 => ApiKey::ListConfigResources,
            75 => ApiKey::DescribeTopicPartitions,
            80 => ApiKey::AddRaftVoter,
            81 => ApiKey::RemoveRaftVoter,
            _ => return None,
        })
    }

    /// The key on the wire.
    pub fn code(self) -> i16 {
        self as i16
    }

    /// Kafka's name.
    pub fn name(self) -> &'static str {
        match self {
            ApiKey::Produce => "Produce",
            ApiKey::Fetch => "Fetch",
            ApiKey::ListOffsets => "ListOffsets",
            ApiKey::Metadata => "Metadata",
            ApiKey::OffsetCommit => "OffsetCommit",
            ApiKey::OffsetFetch => "OffsetFetch",
            ApiKey::FindCoordinator => "FindCoordinator",
            ApiKey::JoinGroup => "JoinGroup",
            ApiKey::Heartbeat => "Heartbeat",
            ApiKey::LeaveGroup => "LeaveGroup",
            ApiKey::SyncGroup => "SyncGroup",
            ApiKey::DescribeGroups => "DescribeGroups",
            ApiKey::ListGroups => "ListGroups",
            ApiKey::ApiVersions => "ApiVersions",
            ApiKey::CreateTopics => "CreateTopics",
            ApiKey::DeleteTopics => "DeleteTopics",
            ApiKey::DeleteRecords => "DeleteRecords",
            ApiKey::InitProducerId => "InitProducerId",
            ApiKey::OffsetForLeaderEpoch => "OffsetForLeaderEpoch",
            ApiKey::DescribeConfigs => "DescribeConfigs",
            ApiKey::AlterConfigs => "AlterConfigs",
            ApiKey::AlterReplicaLogDirs => "AlterReplicaLogDirs",
            ApiKey::DescribeLogDirs => "DescribeLogDirs",
            ApiKey::CreatePartitions => "CreatePartitions",
            ApiKey::DeleteGroups => "DeleteGroups",
            ApiKey::ElectLeaders => "ElectLeaders",
            ApiKey::IncrementalAlterConfigs => "IncrementalAlterConfigs",
            ApiKey::AlterPartitionReassignments => "AlterPartitionReassignments",
            ApiKey::ListPartitionReassignments => "ListPartitionReassignments",
            ApiKey::OffsetDelete => "OffsetDelete",
            ApiKey::DescribeQuorum => "DescribeQuorum",
            ApiKey::DescribeCluster => "DescribeCluster",
            ApiKey::DescribeProducers => "DescribeProducers",
            ApiKey::UnregisterBroker => "UnregisterBroker",
            ApiKey::ConsumerGroupHeartbeat => "ConsumerGroupHeartbeat",
            ApiKey::ConsumerGroupDescribe => "ConsumerGroupDescribe",
            ApiKey::ListConfigResources => "ListConfigResources",
            ApiKey::DescribeTopicPartitions => "DescribeTopicPartitions",
            ApiKey::AddRaftVoter => "AddRaftVoter",
            ApiKey::RemoveRaftVoter => "RemoveRaftVoter",
        }
    }

    /// What is served of it.
    pub fn range(self) -> ApiVersionRange {
        *SUPPORTED.iter().find(|range| range.api_key == self).expect("every ApiKey has a row; a test looks")
    }
}

/// True when this version of the API is served.
pub fn serves(api_key: ApiKey, version: i16) -> bool {
    let range = api_key.range();
    (range.min..=range.max).contains(&version)
}

/// True when this version uses compact encodings and tagged fields.
pub fn flexible(api_key: ApiKey, version: i16) -> bool {
    version >= api_key.range().flexible_from
}

/// Versions of the (request, response) headers. An ApiVersions answer always has header 0, so that a client that does
/// not know the broker yet can read it (KIP-511).
pub fn header_versions(api_key: ApiKey, version: i16) -> (i16, i16) {
    match (flexible(api_key, version), api_key) {
        (true, ApiKey::ApiVersions) => (2, 0),
        (true, _) => (2, 1),
        (false, _) => (1, 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_has_a_row_and_keys_ascend() {
        for pair in SUPPORTED.windows(2) {
            assert!(pair[0].api_key < pair[1].api_key);
        }
        for code in -1..200 {
            if let Some(api_key) = ApiKey::from_code(code) {
                assert_eq!((api_key.code(), api_key.range().api_key), (code, api_key));
            }
        }
    }

    #[test]
    fn headers_follow_api_and_version() {
        assert_eq!(header_versions(ApiKey::ApiVersions, 3), (2, 0));
        assert_eq!(header_versions(ApiKey::Produce, 8), (1, 0));
        assert_eq!(header_versions(ApiKey::Produce, 9), (2, 1));
    }
}
