//! The command line as a user meets it: the real binary, its output, its exit codes. The tests further down start a broker
//! of their own, on loopback, with its data below cargo's directory for tests.

#[path = "cli/cluster.rs"]
mod cluster;
#[path = "cli/groups.rs"]
mod groups;
#[path = "cli/harness.rs"]
mod harness;
#[path = "cli/kip_member.rs"]
mod kip_member;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use harness::{Broker, expect, ports};

#[test]
fn help_is_as_recorded() {
    let mut all = String::new();
    for command in [
        "",
        "start",
        "topic",
        "topic create",
        "topic list",
        "topic describe",
        "topic alter",
        "topic add-partitions",
        "topic trim",
        "topic delete",
        "produce",
        "consume",
        "group",
        "group list",
        "group describe",
        "group lag",
        "group seek",
        "group delete",
        "group delete-offsets",
        "group state",
        "cluster",
        "cluster info",
        "cluster health",
    ] {
        let mut arguments: Vec<&str> = command.split_whitespace().collect();
        arguments.push("--help");
        let (out, _) = expect(0, &arguments, "");
        all.push_str(&format!("$ pelton {}\n{out}\n", arguments.join(" ")));
    }
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/cli/help.txt");
    if std::env::var_os("PELTON_RECORD").is_some() {
        std::fs::write(&path, &all).unwrap();
    }
    let recorded = std::fs::read_to_string(&path).unwrap();
    assert!(
        recorded == all,
        "help differs from tests/cli/help.txt; record it with PELTON_RECORD=1. Now:\n{all}"
    );
}

#[test]
fn wrong_use_ends_with_2_and_says_what_is_right() {
    for (arguments, words) in [
        (&["topik"][..], "topic"),
        (&["topic", "lst"], "'list'"),
        (&["start", "-X", "num.partition=3"], "Did you mean \"num.partitions\"?"),
        (&["start", "-X", "num.partitions=0"], "must be a whole number from 1 to"),
        (&["start", "--shards", "0"], "(from --shards)"),
        (&["start", "--mode", "both"], "one of: direct, single"),
        (&["start", "--kafka", "0.0.0.0:18699"], "--advertise"),
        (&["start", "--kafka", "nonsense"], "must be HOST:PORT"),
        (
            &["start", "--kafka", "127.0.0.1:65535", "--shards", "2", "--data-dir", "/dev/null/x"],
            "/dev/null/x",
        ),
        (&["start", "--config", "/no/such/file"], "/no/such/file"),
        (&["start", "--cluster", "1@127.0.0.1:18690"], "--node-id"),
        (&["start", "--node-id", "4", "--cluster", "1@127.0.0.1:18690"], "--node-address"),
        (&["start", "--node-id", "1", "--cluster", "1@10.0.0.1:18690"], "--cluster-secret-file"),
        (&["start", "--cluster-secret-file", "x"], "--cluster"),
        (&["consume", "t", "-o", "yesterday"], "is no position"),
        (&["consume", "t", "-f", "%x"], "%x is no verb"),
        (&["consume", "t", "-f", "%v", "-J"], "cannot be used with"),
        (&["produce", "t", "-H", "nothing"], "must be KEY=VALUE"),
        (&["produce", "t", "--acks", "2"], "invalid value"),
        (&["topic", "alter", "t"], "required"),
        (&["topic", "create", "t", "-p", "0"], "invalid value"),
        (&["topic", "list", "--timeout", "soon"], "is not a time"),
        (&["group", "lst"], "'list'"),
        (&["group", "seek", "g"], "required"),
        (&["group", "seek", "g", "--to", "start", "--by", "1"], "cannot be used with"),
        (&["group", "seek", "g", "--to", "start", "--topics", "t:x"], "write orders or orders:0,1"),
        (&["group", "state", "g", "-n", "1"], "--watch"),
        (&["group", "delete-offsets", "g"], "required"),
        (&["consume", "t", "-g", "g", "-p", "0"], "cannot be used with"),
        (&["consume", "t", "--no-commit"], "--group"),
    ] {
        let code = if words == "/dev/null/x" { 1 } else { 2 };
        let (out, err) = expect(code, arguments, "");
        assert!(err.contains(words), "pelton {}: {err}", arguments.join(" "));
        assert_eq!(out, "", "messages belong on standard error");
    }
}

#[test]
fn without_a_broker_it_ends_with_3() {
    let dead = format!("127.0.0.1:{}", ports(1));
    for arguments in [
        &["topic", "list"][..],
        &["cluster", "info"],
        &["consume", "t"],
        &["consume", "t", "-g", "g"],
        &["produce", "t"],
        &["group", "list"],
        &["group", "describe", "g"],
        &["group", "lag", "g"],
        &["group", "seek", "g", "--to", "end"],
        &["group", "delete", "g"],
        &["group", "delete-offsets", "g", "--topics", "t"],
        &["group", "state", "g"],
    ] {
        let mut all = arguments.to_vec();
        all.extend(["-b", &dead]);
        let (out, err) = expect(3, &all, "x\n");
        assert!(err.contains(&dead) && err.contains("cannot connect"), "{err}");
        assert_eq!(out, "");
    }
}

#[test]
fn a_server_that_is_no_broker_is_said_to_be_none() {
    let port = ports(1);
    let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
    std::thread::spawn(move || {
        // As a web server does: it reads the request, and answers in its own words.
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        }
    });
    let address = format!("127.0.0.1:{port}");
    let (_, err) = expect(1, &["topic", "list", "-b", &address], "");
    assert!(err.contains("no Kafka broker"), "{err}");
}

#[test]
fn a_silent_server_is_given_up_in_time() {
    let port = ports(1);
    let _listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
    let began = Instant::now();
    let (_, err) =
        expect(3, &["topic", "list", "-b", &format!("127.0.0.1:{port}"), "--timeout", "300ms"], "");
    assert!(err.contains("no answer in 300ms"), "{err}");
    assert!(began.elapsed() < Duration::from_secs(3));
}

#[test]
fn a_taken_port_or_directory_is_said_by_name() {
    let broker = Broker::start("taken", &["--shards", "1"]);
    let data = broker.dir.join("data");
    let (_, err) = expect(1, &["start", "--data-dir", data.to_str().unwrap()], "");
    assert!(err.contains("in use by another broker") && err.contains("--data-dir"), "{err}");
    let other = broker.dir.join("other");
    let (kafka, admin) = (broker.address(), format!("127.0.0.1:{}", broker.port + 4));
    let (_, err) = expect(1, &["start", "--data-dir", other.to_str().unwrap(), "--kafka", &kafka], "");
    assert!(err.contains(&broker.port.to_string()) && err.contains("--kafka"), "{err}");
    let free = format!("127.0.0.1:{}", ports(1));
    let arguments = [
        "start",
        "--data-dir",
        other.to_str().unwrap(),
        "--kafka",
        &free,
        "--admin",
        &admin,
        "--shards",
        "1",
    ];
    let (_, err) = expect(1, &arguments, "");
    assert!(err.contains(&admin) && err.contains("--admin"), "{err}");
    broker.finish();
}

#[test]
fn a_directory_keeps_its_node_and_cluster() {
    let broker = Broker::start("owner", &["--shards", "1", "--node-id", "7"]);
    let (dir, port) = broker.stop();
    let (data, kafka) = (dir.join("data"), format!("127.0.0.1:{port}"));
    let base =
        ["start", "--data-dir", data.to_str().unwrap(), "--kafka", &kafka, "--admin", "off", "--shards", "1"];
    let mut other_node = base.to_vec();
    other_node.extend(["--node-id", "8"]);
    assert!(expect(1, &other_node, "").1.contains("belongs to node 7, not 8"));
    let mut other_cluster = base.to_vec();
    other_cluster.extend(["--cluster-id", "5m4hXyJ2Q7yTaaaaaaaaaa"]);
    assert!(expect(1, &other_cluster, "").1.contains("belongs to cluster"));
    let broker = Broker::start_in(dir, port, &["--shards", "1"]);
    let (out, _) = broker.expect(0, &["cluster", "info", "--format", "json"], "");
    assert!(out.contains("\"id\":1792"), "node 7 is broker 7 × 256: {out}");
    broker.finish();
}

#[test]
fn health_is_asked_over_http() {
    let broker = Broker::start("http", &["--shards", "1"]);
    for path in ["/livez", "/readyz"] {
        let mut stream = TcpStream::connect(("127.0.0.1", broker.port + 4)).unwrap();
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{path}: {answer}");
    }
    broker.finish();
}

#[test]
fn topics_live_from_create_to_delete() {
    let broker = Broker::start("topics", &["--shards", "2"]);
    let (out, _) = broker.expect(0, &["topic", "create", "orders", "-p", "3", "-c", "retention.ms=1000"], "");
    assert!(out.contains("orders  3           ok"), "{out}");
    let (out, _) = broker.expect(1, &["topic", "create", "orders"], "");
    assert!(out.contains("TOPIC_ALREADY_EXISTS (36)"), "{out}");
    broker.expect(0, &["topic", "create", "orders", "--if-not-exists"], "");
    let (out, _) = broker.expect(0, &["topic", "list"], "");
    assert_eq!(out, "TOPIC   PARTITIONS  REPLICAS\norders  3           1\n");
    broker.expect(0, &["topic", "alter", "orders", "-s", "flush.messages=10", "-d", "retention.ms"], "");
    let (out, err) = broker.expect(1, &["topic", "alter", "orders", "-s", "flush.massages=10"], "");
    assert!(out.contains("INVALID_CONFIG (40)") && err.contains("flush.massages"), "{out}{err}");
    broker.expect(0, &["topic", "add-partitions", "orders", "-n", "1"], "");
    let (out, _) = broker.expect(0, &["topic", "describe", "orders", "--format", "json"], "");
    assert!(out.contains("\"key\":\"flush.messages\"") && !out.contains("\"key\":\"retention.ms\""), "{out}");
    assert!(out.contains("\"partitions\":4") && out.contains("\"health\":\"ok\""), "{out}");
    let (_, err) = broker.expect(1, &["topic", "describe", "ordres"], "");
    assert!(
        err.contains("UNKNOWN_TOPIC_OR_PARTITION (3)") && err.contains("Did you mean \"orders\"?"),
        "{err}"
    );
    let (_, err) = broker.expect(1, &["consume", "order"], "");
    assert!(err.contains("Did you mean \"orders\"?"), "{err}");
    broker.expect(0, &["cluster", "health"], "");
    broker.expect(0, &["topic", "delete", "orders"], "");
    assert_eq!(broker.expect(0, &["topic", "list"], "").0, "TOPIC  PARTITIONS  REPLICAS\n");
    broker.finish();
}

#[test]
fn what_is_produced_is_consumed() {
    for mode in ["direct", "single"] {
        let broker = Broker::start(&format!("records-{mode}"), &["--shards", "2", "--mode", mode]);
        broker.expect(0, &["topic", "create", "t", "-p", "4"], "");
        let (_, err) =
            broker.expect(0, &["produce", "t", "-K", ":", "-H", "h=1", "-p", "1"], "a:1\nb:2\nc\n");
        assert!(err.contains("3 records to t [1] up to offset 2"), "{err}");
        let (out, _) = broker.expect(0, &["consume", "t", "-e", "-f", "%t %p %o %k %v %h"], "");
        assert_eq!(out, "t 1 0 a 1 h=1\nt 1 1 b 2 h=1\nt 1 2  c h=1\n");
        for (index, codec) in ["none", "gzip", "snappy", "lz4", "zstd"].into_iter().enumerate() {
            let lines: String = (0..2000).map(|number| format!("{codec} {number}\n")).collect();
            let acks = ["all", "1", "all", "1", "all"][index];
            broker.expect(0, &["produce", "t", "-p", "2", "--compression", codec, "--acks", acks], &lines);
        }
        let (out, _) = broker.expect(0, &["consume", "t", "-p", "2", "-o", "start", "-e"], "");
        assert_eq!(out.lines().count(), 10_000);
        assert_eq!(out.lines().nth(4001), Some("snappy 1"), "in order");
        assert_eq!(broker.expect(0, &["consume", "t", "-p", "2", "-o", "-1", "-e"], "").0, "zstd 1999\n");
        assert_eq!(broker.expect(0, &["consume", "t", "-p", "2", "-o", "3:5"], "").0, "none 3\nnone 4\n");
        assert_eq!(broker.expect(0, &["consume", "t", "-p", "2", "-o", "@-1h", "-n", "1"], "").0, "none 0\n");
        assert_eq!(broker.expect(0, &["consume", "t", "-o", "end", "-e"], "").0, "");
        let (copied, _) = broker.expect(0, &["consume", "t", "-e", "-J"], "");
        broker.expect(0, &["topic", "create", "copy", "-p", "4"], "");
        broker.expect(0, &["produce", "copy", "-J"], &copied);
        let (copy, _) = broker.expect(0, &["consume", "copy", "-p", "1", "-e", "--format", "json"], "");
        let original: Vec<&str> = copied.lines().filter(|line| line.contains("\"partition\":1,")).collect();
        assert_eq!(copy.replace("\"copy\"", "\"t\"").lines().collect::<Vec<_>>(), original);
        assert_eq!(original.len(), 3);
        let (out, _) = broker.expect(0, &["topic", "trim", "t", "-p", "2", "-o", "-2"], "");
        assert!(out.contains("9998"), "{out}");
        assert_eq!(broker.expect(0, &["consume", "t", "-p", "2", "-e"], "").0, "zstd 1998\nzstd 1999\n");
        let (_, err) = broker.expect(1, &["consume", "t", "-p", "2", "-o", "0"], "");
        assert!(err.contains("OFFSET_OUT_OF_RANGE (1)"), "{err}");
        broker.expect(0, &["produce", "made-by-use", "-k", "key", "-Z"], "\n");
        let (out, _) = broker.expect(0, &["consume", "made-by-use", "-e", "-J"], "");
        assert!(out.contains("\"value\":null") && out.contains("\"key\":\"key\""), "{out}");
        broker.finish();
    }
}

#[test]
fn records_survive_restarts_with_other_numbers_of_shards() {
    let mut broker = Broker::start("shards", &["--shards", "2"]);
    broker.expect(0, &["topic", "create", "t", "-p", "6"], "");
    let mut expected = Vec::new();
    for (round, shards) in ["2", "3", "1", "2"].into_iter().enumerate() {
        let lines: Vec<String> = (0..600).map(|number| format!("{round}/{number}")).collect();
        for partition in 0..6 {
            let some: String =
                lines.iter().skip(partition * 100).take(100).map(|line| format!("{line}\n")).collect();
            broker.expect(0, &["produce", "t", "-p", &partition.to_string()], &some);
        }
        expected.extend(lines);
        broker = broker.restart(&["--shards", shards]);
        let (out, _) = broker.expect(0, &["consume", "t", "-e"], "");
        let mut found: Vec<String> = out.lines().map(String::from).collect();
        let mut wanted = expected.clone();
        found.sort();
        wanted.sort();
        assert_eq!(found, wanted, "after a start with {shards} shards");
    }
    broker.finish();
}

#[test]
fn a_killed_broker_has_what_it_acknowledged() {
    let mut broker = Broker::start("killed", &["--shards", "2"]);
    broker.expect(0, &["topic", "create", "t", "-p", "4"], "");
    let lines: String = (0..1000).map(|number| format!("{number}\n")).collect();
    for partition in ["0", "1", "2", "3"] {
        broker.expect(0, &["produce", "t", "-p", partition], &lines);
    }
    broker.child.kill().unwrap();
    broker.child.wait().unwrap();
    let (dir, port) = (broker.dir.clone(), broker.port);
    drop(broker);
    let broker = Broker::start_in(dir, port, &["--shards", "2"]);
    for partition in ["0", "1", "2", "3"] {
        assert_eq!(broker.expect(0, &["consume", "t", "-p", partition, "-e"], "").0, lines);
    }
    broker.finish();
}

#[test]
fn damaged_data_end_the_start_with_20() {
    let broker = Broker::start("damaged", &["--shards", "1"]);
    broker.expect(0, &["topic", "create", "t"], "");
    let (dir, port) = broker.stop();
    for slot in ["checkpoint.0", "checkpoint.1"] {
        let path = dir.join("data/g1/shard-0").join(slot);
        // One of the two may not have been written yet.
        if let Ok(mut bytes) = std::fs::read(&path) {
            bytes[40] ^= 1;
            std::fs::write(&path, bytes).unwrap();
        }
    }
    let (data, kafka) = (dir.join("data"), format!("127.0.0.1:{port}"));
    let start =
        ["start", "--data-dir", data.to_str().unwrap(), "--kafka", &kafka, "--admin", "off", "--shards", "1"];
    let arguments: Vec<&str> = start.into_iter().chain(["-X", "pelton.journal.bytes=16777216"]).collect();
    let (_, err) = expect(20, &arguments, "");
    assert!(err.contains("is damaged"), "{err}");
    std::fs::remove_dir_all(dir).unwrap();
}
