//! Every setting by name: Kafka's where Kafka has one, `pelton.*` for ours, its bounds, and where it goes. A table; the
//! order matters where two names mean the same setting: the later wins.

use pelton_model::limits::{NODE_ID_MAX, PARTITIONS_PER_TOPIC_MAX, SHARDS_MAX};
use pelton_model::{FetchPath, ListenerMode, MigrationPolicy, NodeId};

use super::StartConfig;
use super::address::HostPort;
use super::bounds::{boolean, bytes, integer, word};

/// One setting.
pub struct Key {
    /// Its name.
    pub name: &'static str,
    /// Checks a value and puts it where it belongs. The error says what would be right.
    pub apply: fn(&mut StartConfig, &str) -> Result<(), String>,
    /// Known to Kafka, accepted here, and without effect so far.
    pub idle: bool,
}

const MAX: i64 = i64::MAX;
const INT_MAX: i64 = i32::MAX as i64;
const MIB: i64 = 1 << 20;
/// Longest `broker.rack`, bytes.
const RACK_BYTES_MAX: usize = 255;

/// Other spellings: (name, the name in the table).
const ALIASES: &[(&str, &str)] = &[
    ("log.dir", "log.dirs"),
    ("pelton.data.dir", "log.dirs"),
    ("pelton.kafka", "listeners"),
    ("pelton.advertise", "advertised.listeners"),
    ("broker.id", "node.id"),
];

const fn key(name: &'static str, apply: fn(&mut StartConfig, &str) -> Result<(), String>) -> Key {
    Key { name, apply, idle: false }
}

const fn idle(name: &'static str) -> Key {
    Key { name, apply: |_, _| Ok(()), idle: true }
}

/// Checks with `check` and hands the value on as the default of a topic setting.
fn topic(
    config: &mut StartConfig,
    name: &str,
    value: &str,
    check: impl FnOnce(&str) -> Result<i64, String>,
) -> Result<(), String> {
    check(value)?;
    set_topic(config, name, value.to_string());
    Ok(())
}

fn set_topic(config: &mut StartConfig, name: &str, value: String) {
    config.broker.topic_defaults.retain(|(known, _)| known != name);
    config.broker.topic_defaults.push((name.to_string(), value));
}

/// A topic default given in another unit: `unit_ms` milliseconds each; -1 stays -1.
fn topic_time(
    config: &mut StartConfig,
    name: &str,
    value: &str,
    least: i64,
    unit_ms: i64,
) -> Result<(), String> {
    let number = integer(value, least..=MAX / unit_ms)?;
    let value_ms = if number < 0 { number } else { number * unit_ms };
    set_topic(config, name, value_ms.to_string());
    Ok(())
}

fn no_zero(level: i64) -> Result<i64, String> {
    if level == 0 { Err("must be -1 or from 1 to 9".to_string()) } else { Ok(level) }
}

fn flag(value: &str) -> Result<i64, String> {
    boolean(value).map(i64::from)
}

fn cleanup_policy(value: &str) -> Result<i64, String> {
    let mut words = value.split(',').map(str::trim).filter(|word| !word.is_empty());
    words.try_fold(0, |count, policy| word(policy, &["delete", "compact"]).map(|_| count + 1))
}

fn ratio(value: &str) -> Result<i64, String> {
    match value.trim().parse::<f64>() {
        Ok(number) if (0.0..=1.0).contains(&number) => Ok(0),
        _ => Err("must be a number from 0 to 1".to_string()),
    }
}

fn data_dir(config: &mut StartConfig, value: &str) -> Result<(), String> {
    if value.is_empty() || value.contains(',') {
        return Err("one directory, so far".to_string());
    }
    config.data_dir = value.into();
    Ok(())
}

fn cluster_id(config: &mut StartConfig, value: &str) -> Result<(), String> {
    let fits =
        value.len() == 22 && value.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    if !fits {
        return Err(
            "must be 22 characters of URL-safe base64, such as kafka-storage random-uuid prints".to_string()
        );
    }
    config.cluster_id = Some(value.to_string());
    Ok(())
}

/// Who answers a consumer that names its rack (KIP-392).
fn selector(config: &mut StartConfig, value: &str) -> Result<(), String> {
    const PACKAGE: &str = "org.apache.kafka.common.replica.";
    config.broker.rack_aware_reads = match value.strip_prefix(PACKAGE).unwrap_or(value) {
        "RackAwareReplicaSelector" => true,
        "" | "LeaderSelector" => false,
        _ => {
            return Err(format!(
                "must be {PACKAGE}RackAwareReplicaSelector, {PACKAGE}LeaderSelector, or empty"
            ));
        }
    };
    Ok(())
}

fn mode(config: &mut StartConfig, value: &str) -> Result<(), String> {
    config.broker.mode = match word(value, &["direct", "single"])? {
        "direct" => ListenerMode::Direct,
        _ => ListenerMode::Single,
    };
    Ok(())
}

fn fetch_path(config: &mut StartConfig, value: &str) -> Result<(), String> {
    config.broker.fetch_path = match word(value, &["direct", "splice", "read"])? {
        "direct" => FetchPath::Direct,
        "splice" => FetchPath::Splice,
        _ => FetchPath::Read,
    };
    Ok(())
}

fn admin(config: &mut StartConfig, value: &str) -> Result<(), String> {
    config.admin = if value == "off" { None } else { Some(HostPort::parse(value)?) };
    Ok(())
}

fn rack(config: &mut StartConfig, value: &str) -> Result<(), String> {
    if value.is_empty() || value.len() > RACK_BYTES_MAX {
        return Err(format!("must have 1 to {RACK_BYTES_MAX} bytes"));
    }
    config.rack = Some(value.to_string());
    Ok(())
}

fn idle_ms(config: &mut StartConfig, value: &str) -> Result<(), String> {
    let number = integer(value, -1..=MAX)?;
    if (0..1000).contains(&number) {
        return Err("must be at least 1000, or -1 for never".to_string());
    }
    config.broker.connection_idle_ms = if number < 0 { MAX } else { number };
    Ok(())
}

fn assignors(config: &mut StartConfig, value: &str) -> Result<(), String> {
    let names: Vec<&str> = value.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
    if names.is_empty() {
        return Err("must name at least one of: uniform, range".to_string());
    }
    let names: Result<Vec<&str>, String> =
        names.into_iter().map(|name| word(name, &["uniform", "range"])).collect();
    config.broker.group.consumer_assignors = names?.into_iter().map(str::to_string).collect();
    Ok(())
}

fn migration_policy(config: &mut StartConfig, value: &str) -> Result<(), String> {
    let policies = ["disabled", "upgrade", "downgrade", "bidirectional"];
    config.broker.group.migration_policy = match word(&value.to_lowercase(), &policies)? {
        "disabled" => MigrationPolicy::Disabled,
        "upgrade" => MigrationPolicy::Upgrade,
        "downgrade" => MigrationPolicy::Downgrade,
        _ => MigrationPolicy::Bidirectional,
    };
    Ok(())
}

fn unclean(config: &mut StartConfig, value: &str) -> Result<(), String> {
    if boolean(value)? {
        return Err("must be false: an unclean leader loses acknowledged records".to_string());
    }
    topic(config, "unclean.leader.election.enable", value, flag)
}

/// Shorthand for settings that are one bounded number in the broker's configuration.
macro_rules! number {
    ($name:literal, $($field:tt).+, $range:expr) => {
        key($name, |config, value| {
            config.$($field).+ = integer(value, $range)? as _;
            Ok(())
        })
    };
}

/// Shorthand for defaults of topic settings.
macro_rules! topic_key {
    ($name:literal, $topic:literal, time $least:literal, $unit_ms:literal) => {
        key($name, |config, value| topic_time(config, $topic, value, $least, $unit_ms))
    };
    ($name:literal, $topic:literal, with $check:expr) => {
        key($name, |config, value| topic(config, $topic, value, $check))
    };
    ($name:literal, $topic:literal, $range:expr) => {
        key($name, |config, value| topic(config, $topic, value, |value| integer(value, $range)))
    };
}

/// Every setting.
pub const KEYS: &[Key] = &[
    // Who and where.
    key("node.id", |config, value| {
        config.node_id = Some(NodeId(integer(value, 0..=i64::from(NODE_ID_MAX))? as i32));
        Ok(())
    }),
    key("cluster.id", cluster_id),
    key("pelton.cluster", |config, value| {
        config.cluster_flags.list = Some(value.to_string());
        Ok(())
    }),
    key("pelton.cluster.secret.file", |config, value| {
        config.cluster_flags.secret_file = Some(value.into());
        Ok(())
    }),
    key("pelton.node.address", |config, value| {
        config.cluster_flags.node_address = Some(HostPort::parse(value)?);
        Ok(())
    }),
    key("broker.rack", rack),
    key("log.dirs", data_dir),
    key("listeners", |config, value| {
        config.kafka = HostPort::parse_listener(value)?;
        if config.kafka.port == 0 {
            Err("the port must not be 0: clients are told to connect to it".to_string())
        } else {
            Ok(())
        }
    }),
    key("advertised.listeners", |config, value| {
        let address = HostPort::parse_listener(value)?;
        if address.port == 0 {
            return Err("the port must not be 0: clients are told to connect to it".to_string());
        }
        config.advertised = Some(address);
        Ok(())
    }),
    key("pelton.admin", admin),
    key("pelton.mode", mode),
    key("pelton.shards", |config, value| {
        config.shards = Some(integer(value, 1..=SHARDS_MAX as i64)? as u16);
        Ok(())
    }),
    // Topics.
    number!("num.partitions", broker.num_partitions, 1..=i64::from(PARTITIONS_PER_TOPIC_MAX)),
    number!("default.replication.factor", broker.default_replication_factor, 1..=i64::from(i16::MAX)),
    key("auto.create.topics.enable", |config, value| {
        config.broker.auto_create_topics = boolean(value)?;
        Ok(())
    }),
    key("delete.topic.enable", |config, value| {
        config.broker.delete_topics = boolean(value)?;
        Ok(())
    }),
    // Connections, requests, sessions.
    number!("socket.request.max.bytes", broker.request_bytes_max, 65_536..=INT_MAX),
    number!("max.connections", broker.connections_max, 1..=INT_MAX),
    key("connections.max.idle.ms", idle_ms),
    number!("pelton.request.receive.timeout.ms", broker.request_receive_timeout_ms, 100..=3_600_000),
    number!("fetch.max.bytes", broker.fetch_bytes_max, 1024..=INT_MAX),
    number!("max.incremental.fetch.session.cache.slots", broker.fetch_sessions_max, 0..=1_000_000),
    number!("producer.id.expiration.ms", broker.producer_id_expiration_ms, 1..=INT_MAX),
    number!("transaction.max.timeout.ms", broker.transaction_timeout_max_ms, 1..=INT_MAX),
    // Groups and offsets.
    number!("group.min.session.timeout.ms", broker.group.min_session_timeout_ms, 1..=INT_MAX),
    number!("group.max.session.timeout.ms", broker.group.max_session_timeout_ms, 1..=INT_MAX),
    number!("group.initial.rebalance.delay.ms", broker.group.initial_rebalance_delay_ms, 0..=INT_MAX),
    number!("group.max.size", broker.group.group_max_size, 1..=INT_MAX),
    number!("group.consumer.session.timeout.ms", broker.group.consumer_session_timeout_ms, 1..=INT_MAX),
    number!("group.consumer.heartbeat.interval.ms", broker.group.consumer_heartbeat_interval_ms, 1..=INT_MAX),
    number!(
        "group.consumer.min.session.timeout.ms",
        broker.group.consumer_session_timeout_bounds_ms.0,
        1..=INT_MAX
    ),
    number!(
        "group.consumer.max.session.timeout.ms",
        broker.group.consumer_session_timeout_bounds_ms.1,
        1..=INT_MAX
    ),
    number!(
        "group.consumer.min.heartbeat.interval.ms",
        broker.group.consumer_heartbeat_interval_bounds_ms.0,
        1..=INT_MAX
    ),
    number!(
        "group.consumer.max.heartbeat.interval.ms",
        broker.group.consumer_heartbeat_interval_bounds_ms.1,
        1..=INT_MAX
    ),
    number!(
        "group.consumer.min.assignment.interval.ms",
        broker.group.consumer_assignment_interval_bounds_ms.0,
        0..=INT_MAX
    ),
    number!(
        "group.consumer.max.assignment.interval.ms",
        broker.group.consumer_assignment_interval_bounds_ms.1,
        0..=INT_MAX
    ),
    key("group.consumer.assignment.interval.ms", |config, value| {
        config.broker.group.consumer_assignment_interval_ms = Some(integer(value, 0..=INT_MAX)? as i32);
        Ok(())
    }),
    number!("group.consumer.max.size", broker.group.consumer_max_size, 1..=INT_MAX),
    number!(
        "group.consumer.regex.refresh.interval.ms",
        broker.group.regex_refresh_interval_ms,
        10_000..=INT_MAX
    ),
    key("group.consumer.assignors", assignors),
    key("group.consumer.migration.policy", migration_policy),
    number!("offset.metadata.max.bytes", broker.group.offset_metadata_max_bytes, 0..=INT_MAX),
    number!("offsets.retention.minutes", broker.group.offsets_retention_minutes, 1..=INT_MAX),
    number!("offsets.retention.check.interval.ms", broker.group.offsets_retention_check_interval_ms, 1..=MAX),
    number!(
        "offsets.topic.num.partitions",
        broker.offsets_topic_partitions,
        1..=i64::from(PARTITIONS_PER_TOPIC_MAX)
    ),
    key("offsets.topic.replication.factor", |config, value| {
        config.offsets_factor = Some(integer(value, 1..=i64::from(i16::MAX))? as i16);
        Ok(())
    }),
    number!("offsets.topic.segment.bytes", broker.offsets_topic_segment_bytes, MIB..=INT_MAX),
    number!("pelton.groups.max", broker.group.groups_max, 1..=INT_MAX),
    number!("pelton.group.bytes.max", broker.group.group_bytes_max, 65_536..=INT_MAX),
    // Replicas.
    key("replica.lag.time.max.ms", |config, value| {
        config.replica_lag_ms = Some(integer(value, 1..=INT_MAX)? as u64);
        Ok(())
    }),
    // Storage and the shards themselves.
    key("pelton.journal.bytes", |config, value| {
        config.broker.journal_bytes = bytes(value, 8 * MIB..=(1 << 40), MIB)?;
        Ok(())
    }),
    number!("pelton.journal.writes.in.flight", broker.journal_writes_in_flight, 1..=32),
    number!("pelton.direct.bytes", broker.direct_bytes, 4096..=(1 << 40)),
    number!("pelton.tail.bytes", broker.tail_bytes, MIB..=(1 << 40)),
    number!("pelton.spin.us", broker.spin_us, 0..=1_000_000),
    key("pelton.fetch.path", fetch_path),
    number!("log.retention.check.interval.ms", broker.retention_check_interval_ms, 1..=MAX),
    number!("log.initial.task.delay.ms", broker.initial_task_delay_ms, 0..=MAX),
    key("log.cleaner.enable", |config, value| {
        config.broker.cleaner_enabled = boolean(value)?;
        Ok(())
    }),
    number!("log.cleaner.backoff.ms", broker.cleaner_backoff_ms, 0..=MAX),
    number!("log.cleaner.dedupe.buffer.size", broker.cleaner_dedupe_bytes, 1024..=MAX),
    key("log.cleaner.io.max.bytes.per.second", |config, value| match value.trim().parse::<f64>() {
        Ok(number) if number >= 1.0 => {
            config.broker.cleaner_bytes_per_second = number as u64;
            Ok(())
        }
        _ => Err("must be a number of at least 1".to_string()),
    }),
    // Defaults of topics.
    topic_key!("message.max.bytes", "max.message.bytes", 0..=INT_MAX),
    topic_key!("min.insync.replicas", "min.insync.replicas", 1..=INT_MAX),
    topic_key!(
        "compression.type",
        "compression.type",
        with | value | word(value, &["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"]).map(|_| 0)
    ),
    topic_key!(
        "compression.gzip.level",
        "compression.gzip.level",
        with | value | integer(value, -1..=9).and_then(no_zero)
    ),
    topic_key!("compression.lz4.level", "compression.lz4.level", 1..=17),
    topic_key!("compression.zstd.level", "compression.zstd.level", -131_072..=22),
    key("unclean.leader.election.enable", unclean),
    topic_key!("log.cleanup.policy", "cleanup.policy", with cleanup_policy),
    topic_key!("log.flush.interval.messages", "flush.messages", 1..=MAX),
    topic_key!("log.flush.interval.ms", "flush.ms", 0..=MAX),
    topic_key!("log.index.interval.bytes", "index.interval.bytes", 0..=INT_MAX),
    topic_key!("log.index.size.max.bytes", "segment.index.bytes", 4..=INT_MAX),
    topic_key!(
        "log.message.timestamp.type",
        "message.timestamp.type",
        with | value | word(value, &["CreateTime", "LogAppendTime"]).map(|_| 0)
    ),
    topic_key!("log.message.timestamp.before.max.ms", "message.timestamp.before.max.ms", 0..=MAX),
    topic_key!("log.message.timestamp.after.max.ms", "message.timestamp.after.max.ms", 0..=MAX),
    topic_key!("log.preallocate", "preallocate", with flag),
    topic_key!("log.retention.bytes", "retention.bytes", -1..=MAX),
    topic_key!("log.retention.hours", "retention.ms", time - 1, 3_600_000),
    topic_key!("log.retention.minutes", "retention.ms", time - 1, 60_000),
    topic_key!("log.retention.ms", "retention.ms", -1..=MAX),
    topic_key!("log.roll.hours", "segment.ms", time 1, 3_600_000),
    topic_key!("log.roll.ms", "segment.ms", 1..=MAX),
    topic_key!("log.roll.jitter.hours", "segment.jitter.ms", time 0, 3_600_000),
    topic_key!("log.roll.jitter.ms", "segment.jitter.ms", 0..=MAX),
    topic_key!("log.segment.bytes", "segment.bytes", MIB..=INT_MAX),
    topic_key!("log.segment.delete.delay.ms", "file.delete.delay.ms", 0..=MAX),
    topic_key!("log.cleaner.delete.retention.ms", "delete.retention.ms", 0..=MAX),
    topic_key!("log.cleaner.min.compaction.lag.ms", "min.compaction.lag.ms", 0..=MAX),
    topic_key!("log.cleaner.min.cleanable.ratio", "min.cleanable.dirty.ratio", with ratio),
    topic_key!("log.cleaner.max.compaction.lag.ms", "max.compaction.lag.ms", 1..=MAX),
    key("replica.selector.class", selector),
    // Accepted so that files written for Kafka work; without effect so far.
    idle("process.roles"),
    idle("controller.quorum.voters"),
    idle("controller.quorum.bootstrap.servers"),
    idle("controller.listener.names"),
    idle("listener.security.protocol.map"),
    idle("inter.broker.listener.name"),
    idle("num.network.threads"),
    idle("num.io.threads"),
    idle("num.recovery.threads.per.data.dir"),
    idle("socket.send.buffer.bytes"),
    idle("socket.receive.buffer.bytes"),
    idle("log.cleaner.threads"),
    idle("log.cleaner.io.buffer.size"),
    idle("log.cleaner.io.buffer.load.factor"),
    idle("log.flush.scheduler.interval.ms"),
    idle("offsets.topic.compression.codec"),
    idle("offsets.load.buffer.size"),
    idle("offsets.commit.timeout.ms"),
    idle("group.coordinator.rebalance.protocols"),
    idle("group.coordinator.threads"),
    idle("group.coordinator.append.linger.ms"),
    idle("transaction.state.log.num.partitions"),
    idle("transaction.state.log.replication.factor"),
    idle("transaction.state.log.min.isr"),
    idle("transactional.id.expiration.ms"),
    idle("replica.fetch.max.bytes"),
];

/// The name in the table for a name or one of its other spellings.
pub fn find(name: &str) -> Option<&'static str> {
    let name = ALIASES.iter().find(|(alias, _)| *alias == name).map_or(name, |(_, name)| name);
    KEYS.iter().find(|key| key.name == name).map(|key| key.name)
}

/// Every name that [`find`] knows.
pub fn names() -> impl Iterator<Item = &'static str> {
    KEYS.iter().map(|key| key.name).chain(ALIASES.iter().map(|(alias, _)| *alias))
}

/// The environment variable of a name: `num.partitions` is PELTON_NUM_PARTITIONS, `pelton.tail.bytes` PELTON_TAIL_BYTES.
pub fn variable(name: &str) -> String {
    let name = name.strip_prefix("pelton.").unwrap_or(name);
    format!("PELTON_{}", name.to_uppercase().replace('.', "_"))
}
