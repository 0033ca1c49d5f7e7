//! The broker's settings, parsed and bounded once at start; keys are Kafka's where Kafka has one.

use crate::group_config::GroupConfig;
use crate::ids::{BrokerId, ClusterId, NodeId, Replica, ShardId};

/// How clients reach partitions of other shards (DESIGN section 4).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ListenerMode {
    /// Every shard is a broker with a port of its own.
    Direct,
    /// One broker id and one port per node; foreign partitions cost one hop.
    Single,
}

/// How stored records get from disk to a consumer's socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FetchPath {
    /// Direct reads ahead of each reader into memory that several readers share, sent from there.
    Direct,
    /// From page cache to pipe to socket, without copying.
    Splice,
    /// Read through the page cache and sent: for comparison.
    Read,
}

/// What every shard of the process knows about itself and its peers at start.
#[derive(Clone, Debug)]
pub struct BrokerConfig {
    /// This node.
    pub node_id: NodeId,
    /// The cluster's id, from the data directory.
    pub cluster_id: ClusterId,
    /// Listener mode.
    pub mode: ListenerMode,
    /// Shards of this node, at least 1.
    pub shards: u16,
    /// Host that Metadata names to clients.
    pub advertised_host: String,
    /// Port of shard 0; shard i has `advertised_port + i` in direct mode.
    pub advertised_port: u16,
    /// `replica.selector.class` is the rack aware one: consumers are sent to a replica in their rack (KIP-392).
    pub rack_aware_reads: bool,
    /// The id of the data directory; nil = has none.
    pub directory_id: uuid::Uuid,
    /// What each shard's directory is called to clients, by shard.
    pub log_dirs: Vec<String>,
    /// `num.partitions`.
    pub num_partitions: i32,
    /// `default.replication.factor`; 1 on a single node.
    pub default_replication_factor: i16,
    /// Nodes that found the cluster; 1 for a single node.
    pub founders: u16,
    /// `auto.create.topics.enable`.
    pub auto_create_topics: bool,
    /// `delete.topic.enable`.
    pub delete_topics: bool,
    /// `socket.request.max.bytes`: largest request frame of a proven connection, bytes.
    pub request_bytes_max: usize,
    /// `max.connections` per shard.
    pub connections_max: usize,
    /// `connections.max.idle.ms`.
    pub connection_idle_ms: i64,
    /// Longest time a begun request may take to arrive, milliseconds (`pelton.request.receive.timeout.ms`).
    pub request_receive_timeout_ms: i64,
    /// `fetch.max.bytes`: cap of one fetch answer, bytes.
    pub fetch_bytes_max: usize,
    /// `max.incremental.fetch.session.cache.slots` per shard.
    pub fetch_sessions_max: usize,
    /// `producer.id.expiration.ms`.
    pub producer_id_expiration_ms: i64,
    /// `transaction.max.timeout.ms`.
    pub transaction_timeout_max_ms: i32,
    /// Size of each shard's journal file, bytes, a multiple of 1 MiB (`pelton.journal.bytes`).
    pub journal_bytes: u64,
    /// Journal writes in flight (`pelton.journal.writes.in.flight`), 1 to 32.
    pub journal_writes_in_flight: usize,
    /// A batch of at least this size goes straight to its segment, and the journal has only its header, bytes
    /// (`pelton.direct.bytes`).
    pub direct_bytes: usize,
    /// Memory of recent batches per shard, bytes (`pelton.tail.bytes`).
    pub tail_bytes: usize,
    /// Longest busy spin before a shard sleeps, microseconds (`pelton.spin.us`); 0 = none.
    pub spin_us: u64,
    /// How ranges of segments get to consumers (`pelton.fetch.path`).
    pub fetch_path: FetchPath,
    /// Settings of the group coordinator.
    pub group: GroupConfig,
    /// `offsets.topic.num.partitions`: partitions of `__consumer_offsets` when it is created.
    pub offsets_topic_partitions: i32,
    /// `offsets.topic.replication.factor`: replicas of each in a cluster.
    pub offsets_topic_replication_factor: i16,
    /// `offsets.topic.segment.bytes`: its segments, bytes.
    pub offsets_topic_segment_bytes: i32,
    /// `log.retention.check.interval.ms`: between two looks for old segments, milliseconds.
    pub retention_check_interval_ms: i64,
    /// `log.initial.task.delay.ms`: before the first of these, milliseconds.
    pub initial_task_delay_ms: i64,
    /// `log.cleaner.enable`: compact topics whose policy says so.
    pub cleaner_enabled: bool,
    /// `log.cleaner.backoff.ms`: between two looks for logs to compact, milliseconds.
    pub cleaner_backoff_ms: i64,
    /// `log.cleaner.dedupe.buffer.size`: memory for keys of all compactions of the node, bytes.
    pub cleaner_dedupe_bytes: usize,
    /// `log.cleaner.io.max.bytes.per.second`, of the node; 0 = without limit.
    pub cleaner_bytes_per_second: u64,
    /// `log.*` defaults for topics, as (topic config name, value).
    pub topic_defaults: Vec<(String, String)>,
    /// Every broker setting given by the user, as (name, value), for DescribeConfigs.
    pub given: Vec<(String, String)>,
}

impl BrokerConfig {
    /// The broker that a replica's place is, or is part of.
    pub fn broker_of(&self, replica: Replica) -> BrokerId {
        let shard = match self.mode {
            ListenerMode::Direct => replica.shard,
            ListenerMode::Single => ShardId(0),
        };
        BrokerId::of(replica.node, shard)
    }

    /// Kafka's defaults, and ours where Kafka has none, for a single node on loopback.
    pub fn defaults() -> BrokerConfig {
        BrokerConfig {
            node_id: NodeId(1),
            cluster_id: ClusterId(String::new()),
            mode: ListenerMode::Direct,
            shards: 1,
            advertised_host: "127.0.0.1".to_string(),
            advertised_port: 9092,
            rack_aware_reads: false,
            directory_id: uuid::Uuid::nil(),
            log_dirs: Vec::new(),
            num_partitions: 1,
            default_replication_factor: 1,
            founders: 1,
            auto_create_topics: true,
            delete_topics: true,
            request_bytes_max: 100 * 1024 * 1024,
            connections_max: 10_000,
            connection_idle_ms: 600_000,
            request_receive_timeout_ms: 30_000,
            fetch_bytes_max: 55 * 1024 * 1024,
            fetch_sessions_max: 1000,
            producer_id_expiration_ms: 86_400_000,
            transaction_timeout_max_ms: 900_000,
            journal_bytes: 128 * 1024 * 1024,
            journal_writes_in_flight: 4,
            direct_bytes: 256 * 1024,
            tail_bytes: 128 * 1024 * 1024,
            spin_us: 0,
            fetch_path: FetchPath::Direct,
            group: GroupConfig::default(),
            offsets_topic_partitions: 50,
            offsets_topic_replication_factor: 3,
            offsets_topic_segment_bytes: 104_857_600,
            retention_check_interval_ms: 300_000,
            initial_task_delay_ms: 30_000,
            cleaner_enabled: true,
            cleaner_backoff_ms: 15_000,
            cleaner_dedupe_bytes: 128 * 1024 * 1024,
            cleaner_bytes_per_second: 0,
            topic_defaults: Vec::new(),
            given: Vec::new(),
        }
    }

    /// Largest `max.message.bytes` a topic may have: a group of the journal must hold the batch four times over.
    pub fn message_bytes_limit(&self) -> i32 {
        (self.journal_bytes / 4).min(i32::MAX as u64) as i32
    }
}
