//! What an operator may set of the group coordinator, under Kafka's names, and the coordinator's own caps.

/// Which groups may change between the classic protocol and KIP-848 while members are in them
/// (`group.consumer.migration.policy`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MigrationPolicy {
    /// Neither way.
    Disabled,
    /// Classic to consumer.
    Upgrade,
    /// Consumer to classic.
    Downgrade,
    /// Both (Kafka's default).
    Bidirectional,
}

impl MigrationPolicy {
    /// True if a classic group with members may become a consumer group.
    pub fn upgrades(self) -> bool {
        matches!(self, MigrationPolicy::Upgrade | MigrationPolicy::Bidirectional)
    }

    /// True if a consumer group whose last consumer-protocol member left may become a classic group.
    pub fn downgrades(self) -> bool {
        matches!(self, MigrationPolicy::Downgrade | MigrationPolicy::Bidirectional)
    }
}

/// Settings of a coordinator. Times are milliseconds unless named otherwise.
#[derive(Clone, Debug)]
pub struct GroupConfig {
    /// `group.min.session.timeout.ms`.
    pub min_session_timeout_ms: i32,
    /// `group.max.session.timeout.ms`.
    pub max_session_timeout_ms: i32,
    /// `group.initial.rebalance.delay.ms`.
    pub initial_rebalance_delay_ms: i32,
    /// `group.max.size`: members of one classic group.
    pub group_max_size: usize,
    /// How long a member without an id may wait for its first generation (Kafka's group.new.member.join.timeout.ms).
    pub new_member_join_timeout_ms: i32,
    /// `offset.metadata.max.bytes`.
    pub offset_metadata_max_bytes: usize,
    /// `offsets.retention.minutes`, minutes.
    pub offsets_retention_minutes: i64,
    /// `offsets.retention.check.interval.ms`.
    pub offsets_retention_check_interval_ms: i64,
    /// `group.consumer.session.timeout.ms`.
    pub consumer_session_timeout_ms: i32,
    /// `group.consumer.heartbeat.interval.ms`.
    pub consumer_heartbeat_interval_ms: i32,
    /// `group.consumer.assignment.interval.ms`, if it is set (KIP-1263): a new target assignment at most once in it. Not set: see
    /// [`ConsumerGroupConfig::assignment_interval_ms`].
    pub consumer_assignment_interval_ms: Option<i32>,
    /// `group.consumer.min.session.timeout.ms` and `…max…`: what may be set for a single group.
    pub consumer_session_timeout_bounds_ms: (i32, i32),
    /// `group.consumer.min.heartbeat.interval.ms` and `…max…`: what may be set for a single group.
    pub consumer_heartbeat_interval_bounds_ms: (i32, i32),
    /// `group.consumer.min.assignment.interval.ms` and `…max…`: what may be set for a single group.
    pub consumer_assignment_interval_bounds_ms: (i32, i32),
    /// `group.consumer.max.size`: members of one KIP-848 group.
    pub consumer_max_size: usize,
    /// `group.consumer.assignors`: the first is the default. Known: `uniform`, `range`.
    pub consumer_assignors: Vec<String>,
    /// `group.consumer.migration.policy`.
    pub migration_policy: MigrationPolicy,
    /// `group.consumer.regex.refresh.interval.ms`.
    pub regex_refresh_interval_ms: i64,
    /// Groups of one coordinator; a join or commit that needs one more is refused. Not in Kafka.
    pub groups_max: usize,
    /// Protocol metadata and assignments of one group, bytes, all members together. Not in Kafka.
    pub group_bytes_max: usize,
    /// Memory one compiled topic pattern may take, bytes. Not in Kafka.
    pub regex_bytes_max: usize,
}

/// The default of `group.consumer.assignment.interval.ms` (Kafka's), milliseconds: reached by groups of that many members.
const ASSIGNMENT_INTERVAL_MS: usize = 1000;
/// Smaller groups get every target assignment at once: it costs next to nothing.
const INTERVAL_MEMBERS_MIN: usize = 32;

/// The settings one KIP-848 group runs with, milliseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ConsumerGroupConfig {
    /// `consumer.session.timeout.ms`.
    pub session_timeout_ms: i32,
    /// `consumer.heartbeat.interval.ms`.
    pub heartbeat_interval_ms: i32,
    /// `consumer.assignment.interval.ms`, if it is set.
    pub assignment_interval_ms: Option<i32>,
}

impl ConsumerGroupConfig {
    /// Least time between two target assignments of the group with so many members. A target assignment costs time in
    /// proportion to the members; so, unless it is set, the wait is too: a millisecond for each, at most a second.
    pub fn assignment_interval_ms(&self, members: usize) -> i32 {
        self.assignment_interval_ms.unwrap_or(match members {
            0..INTERVAL_MEMBERS_MIN => 0,
            more => more.min(ASSIGNMENT_INTERVAL_MS) as i32,
        })
    }
}

impl From<&GroupConfig> for ConsumerGroupConfig {
    /// Of a group that has no settings of its own.
    fn from(config: &GroupConfig) -> ConsumerGroupConfig {
        ConsumerGroupConfig {
            session_timeout_ms: config.consumer_session_timeout_ms,
            heartbeat_interval_ms: config.consumer_heartbeat_interval_ms,
            assignment_interval_ms: config.consumer_assignment_interval_ms,
        }
    }
}

impl Default for GroupConfig {
    fn default() -> GroupConfig {
        GroupConfig {
            min_session_timeout_ms: 6_000,
            max_session_timeout_ms: 1_800_000,
            initial_rebalance_delay_ms: 3_000,
            group_max_size: 10_000,
            new_member_join_timeout_ms: 300_000,
            offset_metadata_max_bytes: 4096,
            offsets_retention_minutes: 10_080,
            offsets_retention_check_interval_ms: 600_000,
            consumer_session_timeout_ms: 45_000,
            consumer_heartbeat_interval_ms: 5_000,
            consumer_assignment_interval_ms: None,
            consumer_session_timeout_bounds_ms: (45_000, 60_000),
            consumer_heartbeat_interval_bounds_ms: (5_000, 15_000),
            consumer_assignment_interval_bounds_ms: (0, 15_000),
            consumer_max_size: 10_000,
            consumer_assignors: vec!["uniform".to_string(), "range".to_string()],
            migration_policy: MigrationPolicy::Bidirectional,
            regex_refresh_interval_ms: 600_000,
            groups_max: 100_000,
            group_bytes_max: 64 << 20,
            regex_bytes_max: 1 << 20,
        }
    }
}
