//! Consumer groups on the command line, as one transcript that is held against `groups.txt`. The same transcript comes from
//! Apache Kafka: `PELTON_CLI_BROKER=HOST:PORT cargo test --test cli groups` runs it against a fresh broker that is there.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::harness::{Broker, pelton, run, text};
use super::kip_member::KipMember;

/// Longest wait for a group to get to a state.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(60);

/// Commands and what they said, with what differs from run to run taken out.
struct Transcript {
    address: String,
    text: String,
}

impl Transcript {
    fn run(&mut self, arguments: &[&str], input: &str) -> String {
        let mut all = arguments.to_vec();
        all.extend(["-b", &self.address]);
        let output = run(&all, input);
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        self.text.push_str(&format!("$ pelton {}\n", arguments.join(" ")));
        for part in [&out, &err] {
            let mut columns = Vec::new();
            for line in part.lines() {
                let plain = self.plain(line, &mut columns);
                self.text.push_str(&format!("{plain}\n"));
            }
        }
        match output.status.code() {
            Some(0) => self.text.push('\n'),
            code => self.text.push_str(&format!("exit code {}\n\n", code.unwrap_or(-1))),
        }
        out
    }

    /// A line with ids, times and addresses named instead of told, and columns two blanks apart. `columns` are those of
    /// the last headers, in which the coordinator has its own.
    fn plain(&self, line: &str, columns: &mut Vec<String>) -> String {
        let word = |word: &str| {
            let bare = word.trim_end_matches(['.', ';', ',', ':']);
            match bare {
                _ if bare.starts_with("pelton-cli-") || bare.starts_with("i1-") => {
                    word.replace(bare, "MEMBER")
                }
                _ if bare.ends_with("ms") && bare != "0ms" || is_seconds(bare) => word.replace(bare, "TIME"),
                _ if bare == self.address => word.replace(bare, "ADDRESS"),
                _ => word.to_string(),
            }
        };
        let mut cells: Vec<String> = line
            .split("  ")
            .filter(|cell| !cell.is_empty())
            .map(|cell| cell.trim().split(' ').map(word).collect::<Vec<_>>().join(" "))
            .collect();
        if cells.len() > 1
            && cells.iter().all(|cell| cell.chars().all(|c| c.is_ascii_uppercase() || c == '-'))
        {
            *columns = cells.clone();
        } else if cells.len() == columns.len() {
            // Kafka 4.3 begins to count epochs at another number.
            for (column, name) in [("COORDINATOR", "BROKER"), ("EPOCH", "NUMBER")] {
                let Some(at) = columns.iter().position(|found| found == column) else { continue };
                if cells[at] != "-" {
                    assert!(cells[at].parse::<u32>().is_ok(), "{line}");
                    cells[at] = name.to_string();
                }
            }
        }
        cells.join("  ")
    }

    /// Waits until `group state` says `state` with so many members.
    fn settle(&self, group: &str, state: &str, members: usize) {
        let began = Instant::now();
        loop {
            let output = run(&["group", "state", group, "--format", "json", "-b", &self.address], "");
            let object: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
            let found = &object["data"][0];
            if found["state"] == state && found["members"] == members {
                return;
            }
            assert!(
                began.elapsed() < SETTLE_TIMEOUT,
                "{group} is not {state} with {members} members: {object}"
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// A member of a group that reads until it is told to stop.
    fn member(&self, group: &str) -> Child {
        pelton(&["consume", "orders", "-g", group, "-b", &self.address])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    }
}

fn is_seconds(word: &str) -> bool {
    word.strip_suffix('s').is_some_and(|number| number.parse::<f64>().is_ok())
}

fn signal(child: &mut Child, name: &str) -> Option<i32> {
    assert!(Command::new("kill").args([name, &child.id().to_string()]).status().unwrap().success());
    child.wait().unwrap().code()
}

#[test]
fn groups_from_their_first_member_to_their_deletion() {
    let given = std::env::var("PELTON_CLI_BROKER").ok();
    let broker = given
        .is_none()
        .then(|| Broker::start("groups", &["--shards", "1", "-X", "group.initial.rebalance.delay.ms=0"]));
    let address = given.clone().unwrap_or_else(|| broker.as_ref().unwrap().address());
    let mut script = Transcript { address, text: String::new() };
    alone(&mut script);
    moved(&mut script);
    with_members(&mut script);
    new_protocol(&mut script);
    gone(&mut script);
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/cli/groups.txt");
    if std::env::var_os("PELTON_RECORD").is_some() {
        std::fs::write(&path, &script.text).unwrap();
    }
    let recorded = std::fs::read_to_string(&path).unwrap();
    let same = recorded.lines().zip(script.text.lines()).take_while(|(left, right)| left == right).count();
    assert!(
        recorded == script.text,
        "the transcript differs from tests/cli/groups.txt from line {} on; record it with PELTON_RECORD=1. Now:\n{}",
        same + 1,
        script.text
    );
    if let Some(broker) = broker {
        broker.finish();
    }
}

/// One member reads everything, goes, and more comes.
fn alone(script: &mut Transcript) {
    script.run(&["topic", "create", "orders", "-p", "2"], "");
    script.run(&["produce", "orders", "-p", "0"], "a\nb\nc\nd\n");
    script.run(&["produce", "orders", "-p", "1"], "x\ny\n");
    script.run(&["group", "list"], "");
    let read = run(&["consume", "orders", "-g", "g", "-e", "-b", &script.address], "");
    let mut lines: Vec<String> = text(&read.stdout).lines().map(String::from).collect();
    lines.sort();
    assert_eq!(lines, ["a", "b", "c", "d", "x", "y"], "{}", text(&read.stderr));
    script.settle("g", "Empty", 0);
    script.run(&["group", "list"], "");
    script.run(&["group", "list", "--states", "stable"], "");
    script.run(&["group", "list", "--types", "classic", "--states", "Empty"], "");
    script.run(&["group", "describe", "g"], "");
    script.run(&["group", "lag", "g"], "");
    script.run(&["produce", "orders", "-p", "1"], "z\n");
    let lag = script.run(&["group", "lag", "g", "--format", "json"], "");
    script.text.truncate(script.text.rfind("$ pelton").unwrap());
    let lag: serde_json::Value = serde_json::from_str(&lag).unwrap();
    let behind = &lag["data"]["partitions"][1];
    assert_eq!(
        (&behind["topic"], &behind["partition"], &behind["lag"]),
        (&"orders".into(), &1.into(), &1.into())
    );
    assert!(behind["time_lag_ms"].as_i64().is_some_and(|ms| (0..60_000).contains(&ms)), "{lag}");
    script.run(&["group", "lag", "g", "--no-time"], "");
    script.run(&["group", "lag"], "");
    script.run(&["consume", "orders", "-g", "g", "-e"], "");
    script.run(&["consume", "orders", "-g", "late", "-o", "end", "-e"], "");
    for command in ["describe", "lag", "state", "delete"] {
        script.run(&["group", command, "lat"], "");
    }
    script.run(&["group", "seek", "lat", "--to", "end"], "");
    script.run(&["consume", "ordres", "-g", "g"], "");
    script.run(&["topic", "create", "one", "-p", "1"], "");
    script.run(&["produce", "one", "-p", "0"], "1\n2\n3\n4\n5\n");
    script.run(&["consume", "one", "-g", "few", "-n", "2"], "");
    script.run(&["consume", "one", "-g", "few", "-n", "2", "--no-commit"], "");
    script.run(&["group", "lag", "few", "--no-time"], "");
    script.run(&["consume", "one", "-g", "few", "-e"], "");
    script.run(&["consume", "one", "-g", "few", "-o", "3:4"], "");
    script.run(&["group", "delete", "few", "--yes"], "");
}

/// Every way to say where to.
fn moved(script: &mut Transcript) {
    script.run(&["group", "seek", "g", "--to", "start"], "");
    script.run(&["group", "seek", "g", "--to", "start", "--topics", "orders:1", "--yes"], "");
    script.run(&["group", "lag", "g", "--no-time"], "");
    script.run(&["consume", "orders", "-g", "g", "-e"], "");
    script.run(&["group", "seek", "g", "--by", "-2", "--yes"], "");
    script.run(&["group", "seek", "g", "--to", "@-1h"], "");
    script.run(&["group", "seek", "g", "--to", "@now"], "");
    script.run(&["group", "seek", "g", "--to", "-1"], "");
    script.run(&["group", "seek", "g", "--to", "+1"], "");
    script.run(&["group", "seek", "g", "--to", "99", "--topics", "orders:0"], "");
    script.run(&["group", "seek", "g", "--to-group", "late"], "");
    script.run(&["group", "seek", "g", "--to-group", "nobody"], "");
    script.run(&["group", "seek", "g", "--to", "start", "--topics", "ordres"], "");
    script.run(&["group", "seek", "g", "--to", "start", "--topics", "orders:7"], "");
    script.run(&["group", "seek", "g", "--to", "yesterday"], "");
    script.run(&["group", "seek", "fresh", "--to", "start", "--topics", "orders"], "");
    script.run(&["group", "list"], "");
    let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("offsets-{}", std::process::id()));
    std::fs::write(&file, "# topic partition offset\norders 0 3\norders,1,1\n").unwrap();
    let path = file.to_str().unwrap();
    script.run(&["group", "seek", "g", "--to-file", path, "-y"], "");
    std::fs::write(&file, "orders 0\n").unwrap();
    script.run(&["group", "seek", "g", "--to-file", path, "-y"], "");
    script.text = script.text.replace(path, "FILE");
    std::fs::remove_file(file).unwrap();
    script.run(&["group", "seek", "fresh", "--to", "start", "--topics", "orders", "-y"], "");
    script.run(&["group", "describe"], "");
}

/// What a group with members lets be done to it, and how its partitions move.
fn with_members(script: &mut Transcript) {
    let mut watch = pelton(&["group", "state", "g", "--watch", "--format", "json", "--interval", "50ms"])
        .args(["-b", &script.address])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = script.member("g");
    script.settle("g", "Stable", 1);
    let mut second = script.member("g");
    script.settle("g", "Stable", 2);
    script.run(&["group", "describe", "g"], "");
    script.run(&["group", "lag", "g", "--no-time"], "");
    script.run(&["group", "seek", "g", "--to", "start"], "");
    script.run(&["group", "seek", "g", "--to", "start", "--yes"], "");
    script.run(&["group", "delete", "g"], "");
    script.run(&["group", "delete-offsets", "g", "--topics", "orders:0"], "");
    assert_eq!(signal(&mut second, "-TERM"), Some(143));
    script.settle("g", "Stable", 1);
    script.run(&["group", "state", "g"], "");
    script.run(&["group", "lag", "g", "--no-time"], "");
    assert_eq!(signal(&mut first, "-INT"), Some(130));
    script.settle("g", "Empty", 0);
    let mut seen: Vec<serde_json::Value> = Vec::new();
    for line in BufReader::new(watch.stdout.take().unwrap()).lines() {
        let line: serde_json::Value = serde_json::from_str(&line.unwrap()).unwrap();
        let over = line["state"] == "Empty" && !seen.is_empty();
        seen.push(line);
        if over {
            break;
        }
    }
    watch.kill().unwrap();
    watch.wait().unwrap();
    let said = |state: &str, members: usize| {
        seen.iter().any(|line| line["state"] == state && line["members"] == members)
    };
    assert!(said("Empty", 0) && said("Stable", 1) && said("Stable", 2), "{seen:?}");
    let came = seen.iter().flat_map(|line| line["changes"].as_array().unwrap());
    assert_eq!(came.filter(|change| change.as_str().unwrap().starts_with('+')).count(), 2, "{seen:?}");
}

/// A group of KIP-848.
fn new_protocol(script: &mut Transcript) {
    let member = KipMember::join(&script.address, "kip", "orders");
    script.settle("kip", "Stable", 1);
    script.run(&["group", "list", "--types", "consumer"], "");
    script.run(&["group", "describe", "kip"], "");
    script.run(&["group", "lag", "kip", "--no-time"], "");
    script.run(&["group", "seek", "kip", "--to", "start"], "");
    member.leave();
    script.settle("kip", "Empty", 0);
    script.run(&["group", "seek", "kip", "--to", "end", "--topics", "orders:1", "-y"], "");
    script.run(&["group", "lag", "kip", "--no-time"], "");
    script.run(&["group", "delete", "kip"], "");
}

/// Offsets and groups are deleted.
fn gone(script: &mut Transcript) {
    script.run(&["group", "delete-offsets", "g", "--topics", "ordres"], "");
    script.run(&["group", "delete-offsets", "g", "--topics", "orders:0"], "");
    script.run(&["group", "lag", "g", "--no-time"], "");
    script.run(&["group", "delete-offsets", "g", "--topics", "orders"], "");
    script.run(&["group", "delete", "g", "late", "nobody"], "");
    script.run(&["group", "state", "fresh", "g"], "");
    script.run(&["group", "delete", "fresh"], "");
    script.run(&["group", "list"], "");
    // A static member keeps its place when it stops.
    script.run(&["consume", "one", "-g", "fixed", "--instance-id", "i1", "-e"], "");
    script.run(&["consume", "one", "-g", "fixed", "--instance-id", "i1", "-e"], "");
    script.run(&["group", "describe", "fixed"], "");
}

/// Every shard coordinates some groups and is asked for them.
#[test]
fn groups_of_several_coordinators_are_found() {
    let broker = Broker::start("coordinators", &["--shards", "2", "-X", "offsets.topic.num.partitions=4"]);
    broker.expect(0, &["topic", "create", "t"], "");
    let names: Vec<String> = (0..12).map(|number| format!("group-{number:02}")).collect();
    for name in &names {
        broker.expect(0, &["group", "seek", name, "--to", "start", "--topics", "t", "-y"], "");
    }
    let (out, _) = broker.expect(0, &["group", "list", "--format", "json"], "");
    let list: serde_json::Value = serde_json::from_str(&out).unwrap();
    let groups = list["data"].as_array().unwrap();
    assert_eq!(groups.iter().map(|group| group["group"].as_str().unwrap()).collect::<Vec<_>>(), names);
    let coordinators: std::collections::BTreeSet<u64> =
        groups.iter().map(|group| group["coordinator"].as_u64().unwrap()).collect();
    assert_eq!(coordinators.len(), 2, "{out}");
    let mut all: Vec<&str> = vec!["group", "describe"];
    all.extend(names.iter().map(String::as_str));
    let (out, _) = broker.expect(0, &all, "");
    assert_eq!(out.matches("  Empty  ").count(), 12, "{out}");
    let (_, err) = broker.expect(1, &["group", "state", "group-0"], "");
    assert!(err.contains("Did you mean \"group-0"), "{err}");
    broker.finish();
}
