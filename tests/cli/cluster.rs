//! `pelton start --cluster`: three processes form a cluster, and what does not belong together is refused.

use std::path::PathBuf;

use crate::harness::{Broker, expect, ports};

/// Ports of a node: clients, other nodes two above, HTTP four above.
const NODE_PORTS: u16 = 5;

/// A cluster of three nodes that are to be started: the list for `--cluster`, and directory and port of each.
fn three(name: &str) -> (String, Vec<(PathBuf, u16)>) {
    let first = ports(3 * NODE_PORTS);
    let root =
        PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("cli-cluster-{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&root);
    let places: Vec<(PathBuf, u16)> =
        (0..3).map(|node| (root.join(format!("node-{}", node + 1)), first + node * NODE_PORTS)).collect();
    let list: Vec<String> = places
        .iter()
        .enumerate()
        .map(|(at, (_, port))| format!("{}@127.0.0.1:{}", at + 1, port + 2))
        .collect();
    (list.join(","), places)
}

fn flags<'a>(id: &'a str, list: &'a str) -> [&'a str; 8] {
    ["--node-id", id, "--cluster", list, "--shards", "1", "-X", "offsets.topic.num.partitions=3"]
}

#[test]
fn three_processes_are_one_cluster() {
    let (list, places) = three("one");
    let ids = ["1", "2", "3"];
    let spawn = |at: usize| Broker::spawn(places[at].0.clone(), places[at].1, &flags(ids[at], &list));
    // The first waits for a second; a signal ends the wait.
    let alone = spawn(0);
    std::thread::sleep(std::time::Duration::from_secs(1));
    assert!(!alone.log().lines().any(|line| line.starts_with("ready ")), "{}", alone.log());
    alone.stop();
    let mut nodes: Vec<Broker> = (0..3).map(spawn).collect();
    nodes.iter_mut().for_each(Broker::wait_until_ready);
    nodes[0].expect(0, &["topic", "create", "t", "-p", "6", "-r", "3", "-c", "min.insync.replicas=2"], "");
    for node in &nodes {
        let (out, _) = node.expect(0, &["cluster", "info", "--format", "json"], "");
        assert!(["256", "512", "768"].iter().all(|id| out.contains(&format!("\"id\":{id}"))), "{out}");
    }
    let lines: String = (0..500).map(|number| format!("{number}\n")).collect();
    for partition in 0..6 {
        nodes[1].expect(0, &["produce", "t", "-p", &partition.to_string()], &lines);
    }
    let read = ["consume", "t", "-e", "-g", "readers", "--timeout", "30s"];
    assert_eq!(nodes[1].expect(0, &read, "").0.lines().count(), 3000);
    // Any one of them may be away.
    drop(nodes.remove(0));
    for partition in 0..6 {
        nodes[0].expect(0, &["produce", "t", "-p", &partition.to_string(), "--timeout", "30s"], "more\n");
    }
    assert_eq!(nodes[1].expect(0, &read, "").0, "more\n".repeat(6), "the group goes on where it was");
    let mut back = spawn(0);
    back.wait_until_ready();
    let (out, _) = back.expect(0, &["consume", "t", "-e"], "");
    assert_eq!(out.lines().count(), 3006);
    nodes.push(back);
    for node in nodes {
        node.stop();
    }
    std::fs::remove_dir_all(places[0].0.parent().unwrap()).unwrap();
}

#[test]
fn a_directory_is_started_as_what_it_is() {
    let (list, places) = three("kind");
    let (dir, port) = places[0].clone();
    let (data, kafka) = (dir.join("data"), format!("127.0.0.1:{port}"));
    let start = |more: &[&str]| {
        let base = ["start", "--data-dir", data.to_str().unwrap(), "--kafka", &kafka, "--admin", "off"];
        expect(1, &[&base[..], more].concat(), "").1
    };
    // It belongs to the cluster from the moment it begins to wait for it.
    let node = Broker::spawn(dir.clone(), port, &flags("1", &list));
    let began = std::time::Instant::now();
    while !data.join("meta").exists() {
        assert!(began.elapsed().as_secs() < 30, "{}", node.log());
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    node.stop();
    let err = start(&[]);
    assert!(
        err.contains("belongs to node 1 of a cluster") && err.contains("--node-id 1 --cluster 1@"),
        "{err}"
    );
    let err = start(&["--node-id", "2", "--cluster", &list]);
    assert!(err.contains("belongs to node 1, not 2"), "{err}");
    let err = start(&["--node-id", "1", "--cluster", &list, "--cluster-id", "5m4hXyJ2Q7yTaaaaaaaaaa"]);
    assert!(err.contains("belongs to cluster"), "{err}");
    let err = start(&["--node-id", "1", "--cluster", &list, "--shards", "2"]);
    assert!(err.contains("Start it with --shards 1"), "{err}");
    let single = Broker::start_in(places[1].0.clone(), places[1].1, &["--shards", "1"]);
    single.expect(0, &["topic", "create", "t"], "");
    let (dir, port) = single.stop();
    let (data, kafka) = (dir.join("data"), format!("127.0.0.1:{port}"));
    let own = flags("1", &list);
    let base = ["start", "--data-dir", data.to_str().unwrap(), "--kafka", &kafka, "--admin", "off"];
    let (_, err) = expect(1, &[&base[..], &own].concat(), "");
    assert!(err.contains("records of a single node") && err.contains("without --cluster"), "{err}");
    let single = Broker::start_in(dir, port, &["--shards", "1"]);
    assert!(single.expect(0, &["topic", "list"], "").0.contains("t "), "nothing of it is lost");
    single.stop();
    std::fs::remove_dir_all(places[0].0.parent().unwrap()).unwrap();
}
