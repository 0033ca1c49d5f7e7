//! Settings from every source, their order, their bounds, and the words of refusals.

use super::*;
use crate::failure::Exit;

fn settings(list: &[&str]) -> Result<StartConfig, Failure> {
    let settings = list.iter().map(|setting| setting.to_string()).collect();
    load(&StartArguments { settings, ..StartArguments::default() }, [])
}

fn refused(list: &[&str]) -> String {
    let failure = settings(list).unwrap_err();
    assert_eq!(failure.exit, Exit::Usage);
    failure.message
}

#[test]
fn without_settings_it_is_a_node_on_loopback() {
    let config = settings(&[]).unwrap();
    assert_eq!(config.kafka.to_string(), "127.0.0.1:9092");
    assert_eq!(config.admin.unwrap().to_string(), "127.0.0.1:9644");
    assert!(config.warnings.is_empty() && config.broker.given.is_empty() && config.broker.auto_create_topics);
}

#[test]
fn names_of_kafka_reach_the_broker_and_its_topics() {
    let config = settings(&[
        "num.partitions=4",
        "auto.create.topics.enable=false",
        "log.segment.bytes=1048576",
        "log.flush.interval.messages=100",
        "log.retention.ms=5",
        "log.retention.hours=1",
        "message.max.bytes=2000000",
    ])
    .unwrap();
    assert_eq!((config.broker.num_partitions, config.broker.auto_create_topics), (4, false));
    let default = |name: &str| {
        let found =
            config.broker.topic_defaults.iter().filter(|(known, _)| known == name).collect::<Vec<_>>();
        assert_eq!(found.len(), 1, "{name}");
        found[0].1.clone()
    };
    assert_eq!(default("flush.messages"), "100");
    assert_eq!(default("segment.bytes"), "1048576");
    assert_eq!(default("retention.ms"), "5", "the finer unit wins, as in Kafka");
    assert_eq!(default("max.message.bytes"), "2000000");
    assert!(config.broker.given.contains(&("num.partitions".to_string(), "4".to_string())));
}

#[test]
fn every_number_has_bounds_and_says_them() {
    for wrong in [
        "num.partitions=0",
        "num.partitions=100001",
        "num.partitions=four",
        "node.id=-1",
        "node.id=8388607",
        "pelton.shards=257",
        "pelton.shards=0",
        "max.connections=0",
        "fetch.max.bytes=1023",
        "pelton.journal.bytes=8388609",
        "pelton.journal.bytes=1048576",
        "pelton.journal.writes.in.flight=33",
        "pelton.mode=both",
        "log.segment.bytes=1000",
        "log.roll.hours=9223372036854775807",
        "log.flush.interval.messages=0",
        "log.cleanup.policy=delete,shred",
        "compression.type=brotli",
        "compression.gzip.level=0",
        "compression.zstd.level=23",
        "unclean.leader.election.enable=true",
        "default.replication.factor=0",
        "auto.create.topics.enable=yes",
        "connections.max.idle.ms=5",
        "cluster.id=short",
        "listeners=SSL://a:1",
        "advertised.listeners=broker:0",
        "log.dirs=/a,/b",
    ] {
        let message = refused(&[wrong]);
        assert!(message.starts_with(wrong.split('=').next().unwrap()), "{message}");
        assert!(message.contains("(from -X): "), "{message}");
    }
    assert!(
        settings(&["connections.max.idle.ms=-1", "log.cleanup.policy=compact,delete", "log.roll.hours=1"])
            .is_ok()
    );
}

#[test]
fn a_mistyped_name_gets_the_right_one() {
    assert!(refused(&["num.partition=3"]).ends_with("Did you mean \"num.partitions\"?"));
    assert!(refused(&["zzz=3"]).contains("unknown setting zzz (from -X)."));
    assert!(refused(&["num.partitions"]).contains("key=value"));
}

#[test]
fn later_sources_win() {
    let dir = std::env::temp_dir().join(format!("pelton-config-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let file = dir.join("broker.properties");
    std::fs::write(
        &file,
        "# comment\nnum.partitions = 2\nmax.connections=5\nfetch.max.bytes=2048\nlog.dirs=\"/d\"\n",
    )
    .unwrap();
    let arguments = StartArguments {
        settings: vec!["fetch.max.bytes=4096".to_string(), "listeners=127.0.0.1:1".to_string()],
        kafka: Some("127.0.0.1:2".to_string()),
        config: Some(file.clone()),
        ..StartArguments::default()
    };
    let environment = [("PELTON_MAX_CONNECTIONS", "6"), ("PELTON_FETCH_MAX_BYTES", "3072"), ("PATH", "x")];
    let config = load(&arguments, environment.map(|(n, v)| (n.to_string(), v.to_string()))).unwrap();
    assert_eq!(config.broker.num_partitions, 2);
    assert_eq!(config.broker.connections_max, 6);
    assert_eq!(config.broker.fetch_bytes_max, 4096);
    assert_eq!(config.kafka.port, 2);
    assert_eq!(config.data_dir, PathBuf::from("/d"));
    std::fs::write(&file, "num.partitions=2\nnonsense\n").unwrap();
    let failure = load(&arguments, []).unwrap_err();
    assert!(failure.message.contains("broker.properties:2: a line is key=value"), "{}", failure.message);
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn environment_variables_of_others_are_left_alone() {
    let environment = [("PELTON_BIN", "x"), ("PELTON_NUM_PARTITION", "3"), ("PELTON_SIM_SEEDS", "1")];
    let environment = environment.map(|(name, value)| (name.to_string(), value.to_string()));
    let config = load(&StartArguments::default(), environment).unwrap();
    assert_eq!(config.warnings.len(), 1, "{:?}", config.warnings);
    assert!(config.warnings[0].contains("PELTON_NUM_PARTITIONS"));
}

#[test]
fn clients_are_never_told_an_address_that_is_none() {
    for listener in ["listeners=0.0.0.0:9092", "listeners=[::]:9092", "advertised.listeners=0.0.0.0:9092"] {
        assert!(refused(&[listener]).contains("--advertise"), "{listener}");
    }
    let config = settings(&["listeners=0.0.0.0:9092", "advertised.listeners=broker:19092"]).unwrap();
    assert_eq!((config.broker.advertised_host.as_str(), config.broker.advertised_port), ("broker", 19092));
    assert!(config.warnings.is_empty());
    let config = settings(&["listeners=0.0.0.0:9092", "advertised.listeners=localhost:9092"]).unwrap();
    assert!(config.warnings[0].contains("only local ones"));
}

#[test]
fn a_batch_must_fit_the_journal() {
    assert!(
        refused(&["pelton.journal.bytes=8388608", "message.max.bytes=2097153"])
            .contains("pelton.journal.bytes")
    );
    assert!(settings(&["pelton.journal.bytes=8388608", "message.max.bytes=2097152"]).is_ok());
}

#[test]
fn settings_without_effect_are_named() {
    let config = settings(&["num.network.threads=8"]).unwrap();
    assert!(config.warnings[0].contains("num.network.threads"));
}

#[test]
fn every_alias_leads_to_a_key_and_names_are_unique() {
    let mut names: Vec<&str> = keys::names().collect();
    names.sort_unstable();
    let all = names.len();
    names.dedup();
    assert_eq!(names.len(), all);
    assert!(names.iter().all(|name| keys::find(name).is_some()));
}

#[test]
fn a_cluster_comes_from_any_source_and_has_defaults_of_its_own() {
    let list = "pelton.cluster=2@127.0.0.1:7001,1@localhost:7000";
    let config = settings(&["node.id=1", list, "default.replication.factor=2", "broker.rack=a"]).unwrap();
    let cluster = config.cluster.unwrap();
    assert_eq!(cluster.ids(), [NodeId(1), NodeId(2)]);
    assert_eq!((config.broker.founders, config.broker.default_replication_factor), (2, 2));
    assert_eq!(config.broker.offsets_topic_replication_factor, 2, "two nodes cannot have Kafka's three");
    assert_eq!((config.rack.as_deref(), config.warnings.len()), (Some("a"), 0), "{:?}", config.warnings);
    let given = settings(&["node.id=1", list, "offsets.topic.replication.factor=3"]).unwrap();
    assert_eq!(given.broker.offsets_topic_replication_factor, 3);
    let id = cluster.cluster_id();
    let other_order = settings(&["node.id=2", "pelton.cluster=1@localhost:7000,2@127.0.0.1:7001"]).unwrap();
    assert_eq!(other_order.cluster.unwrap().cluster_id(), id);
    assert!(settings(&[&format!("cluster.id={id}")]).is_ok(), "it can be given as --cluster-id: {id}");
    assert!(refused(&[list]).contains("needs --node-id"));
}

#[test]
fn what_only_a_cluster_has_is_refused_or_said_to_have_no_effect() {
    assert!(refused(&["default.replication.factor=3"]).contains("Form a cluster with --cluster"));
    let config = settings(&["offsets.topic.replication.factor=3", "broker.rack=a"]).unwrap();
    let warning = &config.warnings[0];
    assert!(warning.contains("single node: broker.rack, offsets.topic.replication.factor"), "{warning}");
}
