//! Every setting there is: name, type, default, what it does. Names and types are Kafka's (LogConfig, KafkaConfig);
//! ours begin with `pelton.`.

mod group;
mod topic;

pub use group::{GROUP, OF_ONE_GROUP};
pub use topic::TOPIC;

/// What values a setting takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A 32-bit number, at least this.
    Int(i32),
    /// A 32-bit number in one of these ranges, ends included.
    IntIn(&'static [(i32, i32)]),
    /// A 64-bit number, at least this.
    Long(i64),
    /// A number from 0 to 1.
    Ratio,
    /// true or false.
    Bool,
    /// One of these.
    Choice(&'static [&'static str]),
    /// Any of these, separated by commas; may be empty.
    List(&'static [&'static str]),
    /// Partitions with brokers, `0:101,0:102,1:102`, or `*` for all (Kafka's ThrottledReplicaListValidator).
    Replicas,
    /// Any text.
    Text,
}

/// One setting.
#[derive(Clone, Copy, Debug)]
pub struct ConfigDef {
    /// Its name.
    pub name: &'static str,
    /// Its values.
    pub kind: Kind,
    /// Its value if nobody sets it.
    pub default: &'static str,
    /// The broker setting that is the default of this topic setting.
    pub synonym: Option<&'static str>,
    /// What it does.
    pub doc: &'static str,
}

/// Settings of brokers beside the defaults of topics; given at start.
pub const BROKER: &[ConfigDef] = &[
    ConfigDef { name: "node.id", kind: Kind::Int(0), default: "1", synonym: None, doc: "The node's id." },
    ConfigDef {
        name: "num.partitions",
        kind: Kind::Int(1),
        default: "1",
        synonym: None,
        doc: "Partitions of topics created without a number.",
    },
    ConfigDef {
        name: "default.replication.factor",
        kind: Kind::Int(1),
        default: "1",
        synonym: None,
        doc: "Replicas of topics created without a number.",
    },
    ConfigDef {
        name: "auto.create.topics.enable",
        kind: Kind::Bool,
        default: "true",
        synonym: None,
        doc: "Create topics on first use.",
    },
    ConfigDef {
        name: "delete.topic.enable",
        kind: Kind::Bool,
        default: "true",
        synonym: None,
        doc: "Allow topics to be deleted.",
    },
    ConfigDef {
        name: "socket.request.max.bytes",
        kind: Kind::Int(1),
        default: "104857600",
        synonym: None,
        doc: "Largest request, bytes.",
    },
    ConfigDef {
        name: "max.connections",
        kind: Kind::Int(0),
        default: "10000",
        synonym: None,
        doc: "Connections per shard.",
    },
    ConfigDef {
        name: "connections.max.idle.ms",
        kind: Kind::Long(0),
        default: "600000",
        synonym: None,
        doc: "Idle connections are closed after this time, milliseconds.",
    },
    ConfigDef {
        name: "fetch.max.bytes",
        kind: Kind::Int(1024),
        default: "57671680",
        synonym: None,
        doc: "Largest answer to a fetch, bytes.",
    },
    ConfigDef {
        name: "max.incremental.fetch.session.cache.slots",
        kind: Kind::Int(0),
        default: "1000",
        synonym: None,
        doc: "Fetch sessions kept per shard.",
    },
    ConfigDef {
        name: "producer.id.expiration.ms",
        kind: Kind::Int(1),
        default: "86400000",
        synonym: None,
        doc: "Idle producer ids are forgotten after this time, milliseconds.",
    },
    ConfigDef {
        name: "transaction.max.timeout.ms",
        kind: Kind::Int(1),
        default: "900000",
        synonym: None,
        doc: "Longest transaction timeout a client may ask for, milliseconds.",
    },
    ConfigDef {
        name: "log.cleaner.backoff.ms",
        kind: Kind::Long(0),
        default: "15000",
        synonym: None,
        doc: "Time between two looks for logs to compact, milliseconds.",
    },
    ConfigDef {
        name: "log.cleaner.dedupe.buffer.size",
        kind: Kind::Long(1024),
        default: "134217728",
        synonym: None,
        doc: "Memory for the keys of compactions, bytes; with less a log takes several passes.",
    },
    ConfigDef {
        name: "log.cleaner.enable",
        kind: Kind::Bool,
        default: "true",
        synonym: None,
        doc: "Compact the logs of topics whose cleanup.policy says so.",
    },
    ConfigDef {
        name: "log.initial.task.delay.ms",
        kind: Kind::Long(0),
        default: "30000",
        synonym: None,
        doc: "Wait after the start before old segments are first looked for, milliseconds.",
    },
    ConfigDef {
        name: "log.retention.check.interval.ms",
        kind: Kind::Long(1),
        default: "300000",
        synonym: None,
        doc: "Time between two looks for segments that may be deleted, milliseconds.",
    },
    ConfigDef {
        name: "pelton.journal.bytes",
        kind: Kind::Long(1048576),
        default: "134217728",
        synonym: None,
        doc: "Size of each shard's journal, bytes.",
    },
    ConfigDef {
        name: "pelton.journal.writes.in.flight",
        kind: Kind::Int(1),
        default: "4",
        synonym: None,
        doc: "Journal writes in flight per shard.",
    },
    ConfigDef {
        name: "pelton.tail.bytes",
        kind: Kind::Long(1048576),
        default: "134217728",
        synonym: None,
        doc: "Memory of recent batches per shard, bytes.",
    },
    ConfigDef {
        name: "pelton.spin.us",
        kind: Kind::Long(0),
        default: "0",
        synonym: None,
        doc: "Longest busy spin before a shard sleeps, microseconds.",
    },
    ConfigDef {
        name: "pelton.fetch.path",
        kind: Kind::Choice(&["direct", "splice", "read"]),
        default: "direct",
        synonym: None,
        doc: "How stored records are sent: read directly and ahead, spliced, or read through the page cache.",
    },
    ConfigDef {
        name: "pelton.request.receive.timeout.ms",
        kind: Kind::Long(1),
        default: "30000",
        synonym: None,
        doc: "Longest time a request may take to arrive, milliseconds.",
    },
];

/// Settings of brokers that are set while they run, and only then.
pub const DYNAMIC: &[ConfigDef] = &[
    ConfigDef {
        name: "follower.replication.throttled.rate",
        kind: Kind::Long(0),
        default: "9223372036854775807",
        synonym: None,
        doc: "Bytes per second that a broker takes for the followers named by follower.replication.throttled.replicas, as long as \
              they are not in sync.",
    },
    ConfigDef {
        name: "leader.replication.throttled.rate",
        kind: Kind::Long(0),
        default: "9223372036854775807",
        synonym: None,
        doc: "Bytes per second that a broker sends for the leaders named by leader.replication.throttled.replicas, to followers \
              that are not in sync.",
    },
];

/// Where clients are told to find a broker. Each shard in direct mode has one of its own, so it is worth what the command line
/// gave plus the shard, and no value is common to the node.
pub const ADVERTISED_LISTENERS: ConfigDef = ConfigDef {
    name: "advertised.listeners",
    kind: Kind::Text,
    default: "",
    synonym: None,
    doc: "The address that clients are told to connect to.",
};

/// Accepted when a topic is created and otherwise unknown, so that old tools pass (KIP-724).
pub const IGNORED: &[&str] = &["message.downconversion.enable", "message.format.version"];

/// Every setting of brokers that is not a topic's default.
pub fn broker() -> impl Iterator<Item = &'static ConfigDef> {
    BROKER.iter().chain(GROUP)
}

/// A topic setting.
pub fn topic(name: &str) -> Option<&'static ConfigDef> {
    TOPIC.iter().find(|def| def.name == name)
}

/// The topic setting whose default this broker setting is.
pub fn topic_of_synonym(name: &str) -> Option<&'static ConfigDef> {
    TOPIC.iter().find(|def| def.synonym == Some(name))
}

/// The name most like `name`, for "did you mean".
pub fn closest(name: &str) -> Option<&'static str> {
    TOPIC
        .iter()
        .chain(broker())
        .map(|def| def.name)
        .min_by_key(|known| distance(known, name))
        .filter(|known| distance(known, name) <= known.len() / 3)
}

/// Edit distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(128).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let cost = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = cost.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

impl Kind {
    /// Whether `value` is one of its values, and if not, why, in words.
    pub fn check(&self, value: &str) -> Result<(), String> {
        let bad = |wanted: String| Err(format!("must be {wanted}, not '{}'", value.escape_debug()));
        match self {
            Kind::Int(min) => match value.trim().parse::<i32>() {
                Ok(number) if number >= *min => Ok(()),
                _ => bad(format!("a whole number of at least {min} and at most {}", i32::MAX)),
            },
            Kind::IntIn(ranges) => {
                let is_in = |number: i32| ranges.iter().any(|(from, to)| (*from..=*to).contains(&number));
                match value.trim().parse::<i32>() {
                    Ok(number) if is_in(number) => Ok(()),
                    _ => {
                        let range = |(from, to): &(i32, i32)| match from == to {
                            true => from.to_string(),
                            false => format!("from {from} to {to}"),
                        };
                        let ranges: Vec<String> = ranges.iter().map(range).collect();
                        bad(format!("a whole number, {}", ranges.join(" or ")))
                    }
                }
            }
            Kind::Long(min) => match value.trim().parse::<i64>() {
                Ok(number) if number >= *min => Ok(()),
                _ => bad(format!("a whole number of at least {min}")),
            },
            Kind::Ratio => match value.trim().parse::<f64>() {
                Ok(number) if (0.0..=1.0).contains(&number) => Ok(()),
                _ => bad("a number from 0 to 1".to_string()),
            },
            Kind::Bool => match value.trim() {
                "true" | "false" => Ok(()),
                _ => bad("true or false".to_string()),
            },
            Kind::Replicas => {
                let number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
                let is_replica =
                    |part: &str| part.split_once(':').is_some_and(|(a, b)| number(a) && number(b));
                match value.trim() {
                    "" | "*" => Ok(()),
                    list if list.split(',').all(|part| is_replica(part.trim())) => Ok(()),
                    _ => bad("the literal '*' or a list of replicas in the following format: \
                         [partitionId]:[brokerId],[partitionId]:[brokerId],..."
                        .to_string()),
                }
            }
            Kind::Text => Ok(()),
            Kind::Choice(choices) if choices.contains(&value) => Ok(()),
            Kind::Choice(choices) => bad(format!("one of {}", choices.join(", "))),
            Kind::List(choices) => {
                let parts = value.split(',').map(str::trim).filter(|part| !part.is_empty());
                match parts.clone().find(|part| !choices.contains(part)) {
                    None => Ok(()),
                    Some(_) => bad(format!("a list of {}", choices.join(", "))),
                }
            }
        }
    }

    /// Kafka's number for the type (DescribeConfigs v3).
    pub fn code(&self) -> i8 {
        match self {
            Kind::Bool => 1,
            Kind::Choice(_) | Kind::Text => 2,
            Kind::Int(_) | Kind::IntIn(_) => 3,
            Kind::Long(_) => 5,
            Kind::Ratio => 6,
            Kind::List(_) | Kind::Replicas => 7,
        }
    }

    /// True for lists, which may be appended to.
    pub fn is_list(&self) -> bool {
        matches!(self, Kind::List(_) | Kind::Replicas)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_is_a_value_and_names_ascend() {
        for def in TOPIC.iter().chain(broker()) {
            assert_eq!(def.kind.check(def.default), Ok(()), "{}", def.name);
        }
        assert!(TOPIC.windows(2).all(|pair| pair[0].name < pair[1].name));
    }

    #[test]
    fn bad_values_say_what_is_wanted() {
        let check = |name: &str, value: &str| topic(name).unwrap().kind.check(value);
        assert!(check("segment.bytes", "1").unwrap_err().contains("1048576"));
        assert!(check("flush.messages", "0").is_err());
        assert!(check("message.timestamp.type", "logappendtime").is_err());
        assert!(check("cleanup.policy", "compact,delete").is_ok());
        assert!(check("cleanup.policy", "shred").is_err());
        let throttled = |value: &str| check("leader.replication.throttled.replicas", value);
        assert!(["", "*", "0:1", "0:1,12:33"].iter().all(|value| throttled(value).is_ok()));
        assert!(["**", "0", "0:", "0:1,", "a:1", "0:-1"].iter().all(|value| throttled(value).is_err()));
        assert!(
            check("compression.gzip.level", "-1").is_ok() && check("compression.gzip.level", "9").is_ok()
        );
        let message = check("compression.gzip.level", "0").unwrap_err();
        assert!(message.contains("a whole number, -1 or from 1 to 9"), "{message}");
        assert_eq!(closest("retention.mss"), Some("retention.ms"));
        assert_eq!(closest("something else entirely"), None);
    }
}
