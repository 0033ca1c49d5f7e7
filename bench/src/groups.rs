//! Consumer groups: how long a group takes to settle, and what one commit costs, Pelton beside Apache Kafka in one run.
//! Members are raw connections of ours. Every assignment and every committed offset is checked.

pub mod board;
pub mod commits;
pub mod member;
pub mod report;

use crate::client::Client;
use crate::group_client::GroupClient;
use crate::limits::{self, Limit};
use crate::server::{self, Place, Scratch, Server};
use crate::{Outcome, sys};
use board::Board;
use commits::{Cost, Load};
use member::{Membership, Protocol};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Barrier};
use std::time::Duration;

/// Partitions of the topic that the groups share.
const PARTITIONS: i32 = 100;
/// Members of the groups.
pub const MEMBERS: [usize; 3] = [1, 10, 100];
/// Connections that commit at the same time.
pub const CONNECTIONS: [usize; 2] = [1, 16];
/// Longest wait for a group to settle.
const PATIENCE: Duration = Duration::from_secs(60);
/// A broker with its settings.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct System {
    pub name: &'static str,
    kafka: bool,
    settings: &'static [&'static str],
}

/// All of them, in the order of a round. Kafka collects the changes of a KIP-848 group for a second before it assigns
/// anew; the column "and at once" does without.
pub const SYSTEMS: [System; 4] = [
    System { name: "Pelton", kafka: false, settings: &[] },
    System {
        name: "Pelton unflushed",
        kafka: false,
        settings: &["log.flush.interval.messages=9223372036854775807"],
    },
    System {
        name: "Kafka flushed and at once",
        kafka: true,
        settings: &["log.flush.interval.messages=1", "group.consumer.assignment.interval.ms=0"],
    },
    System { name: "Kafka default", kafka: true, settings: &[] },
];

/// How it runs.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where the report goes, as `<date>-groups.md`; none: to standard output only.
    pub out: Option<PathBuf>,
    pub rounds: usize,
    /// Rebalances of each kind in a round.
    pub repeats: usize,
    pub warmup: Duration,
    pub measure: Duration,
    pub heartbeat: Duration,
    /// Only these, by name; empty: all.
    pub systems: Vec<String>,
    /// Only `rebalances` or `commits`; none: both.
    pub part: Option<String>,
    pub port: u16,
    pub pelton: Option<PathBuf>,
    pub jars: Option<PathBuf>,
    pub scratch: Option<String>,
    pub extra: Vec<String>,
}

impl Options {
    fn wants(&self, part: &str) -> bool {
        self.part.as_deref().is_none_or(|wanted| wanted == part)
    }
}

/// How long one group took: to settle with all members, and again after one had left (none if nobody was left).
pub type Settled = (f64, Option<f64>);

/// What was measured of one system.
#[derive(Clone, Debug, Default)]
pub struct Measured {
    /// By protocol and number of members, milliseconds.
    pub rebalances: Vec<((Protocol, usize), Vec<Settled>)>,
    /// By number of connections.
    pub commits: Vec<(usize, Vec<Cost>)>,
}

impl Measured {
    fn rebalances(&mut self, key: (Protocol, usize)) -> &mut Vec<Settled> {
        let at = self.rebalances.iter().position(|(found, _)| *found == key).unwrap_or_else(|| {
            self.rebalances.push((key, Vec::new()));
            self.rebalances.len() - 1
        });
        &mut self.rebalances[at].1
    }

    fn commits(&mut self, key: usize) -> &mut Vec<Cost> {
        let at = self.commits.iter().position(|(found, _)| *found == key).unwrap_or_else(|| {
            self.commits.push((key, Vec::new()));
            self.commits.len() - 1
        });
        &mut self.commits[at].1
    }
}

/// Runs everything and gives the report, which is written after every round.
pub fn run(options: &Options) -> Outcome<String> {
    sys::raise_descriptors();
    let unknown = options.systems.iter().find(|name| !SYSTEMS.iter().any(|system| system.name == **name));
    if let Some(unknown) = unknown {
        let known = SYSTEMS.map(|system| system.name).join(", ");
        return Err(format!("--systems {unknown}: there are {known}"));
    }
    if let Some(part) = options.part.as_deref().filter(|part| !["rebalances", "commits"].contains(part)) {
        return Err(format!("--part {part}: there are rebalances and commits"));
    }
    let scratch = Scratch::new(options.scratch.as_deref(), "groups")?;
    let machine: Vec<Limit> = limits::measure(&scratch.path)?;
    let mut results: Vec<(System, Measured)> = Vec::new();
    let mut text = String::new();
    for round in 0..options.rounds {
        for system in SYSTEMS {
            let wanted =
                options.systems.is_empty() || options.systems.iter().any(|name| *name == system.name);
            let dir = scratch.path.join("server");
            let Some(server) = wanted.then(|| start(system, options, &dir)).transpose()?.flatten() else {
                continue;
            };
            if !results.iter().any(|(known, _)| *known == system) {
                results.push((system, Measured::default()));
            }
            let (_, measured) = results.iter_mut().find(|(known, _)| *known == system).expect("pushed above");
            one(options, &server, measured)
                .map_err(|error| format!("round {round}, {}: {error}", system.name))?;
            drop(server);
            let _ = std::fs::remove_dir_all(&dir);
        }
        text = report::markdown(options, &machine, &results, round + 1);
        if let Some(out) = &options.out {
            report::write(out, options.part.as_deref(), &text)?;
        }
    }
    Ok(text)
}

fn start(system: System, options: &Options, dir: &Path) -> Outcome<Option<Server>> {
    server::port_is_free(options.port)?;
    let place = Place { port: options.port, dir: dir.to_path_buf(), cores: Some("0".into()) };
    let mut settings: Vec<String> = system.settings.iter().map(|setting| setting.to_string()).collect();
    let server = if system.kafka {
        let jars = options.jars.as_ref();
        jars.map(|jars| server::kafka_with(jars, &place, &settings)).transpose()?
    } else {
        settings.extend(options.extra.iter().cloned());
        settings.push("group.initial.rebalance.delay.ms=0".into());
        options.pelton.as_ref().map(|program| server::pelton(program, &place, &settings)).transpose()?
    };
    if let Some(server) = &server {
        server::warm(&server.bootstrap)?;
    }
    Ok(server)
}

/// One round of one system.
fn one(options: &Options, server: &Server, measured: &mut Measured) -> Outcome<()> {
    let topic = format!("bench-groups-{}", sys::unique());
    let mut admin = Client::connect(&server.bootstrap, Duration::from_secs(30))?;
    admin.create_topic(&topic, PARTITIONS, &[])?;
    crate::client::leaders(&server.bootstrap, &topic, Duration::from_secs(30))?;
    let core = 1.min(sys::cores().max(2) - 1);
    std::thread::scope(|scope| {
        let work = || -> Outcome<()> {
            // Threads of this one take the core over.
            sys::pin(core)?;
            warm(options, server, &topic)?;
            let sizes = if options.wants("rebalances") { &MEMBERS[..] } else { &[] };
            for members in sizes.iter().copied() {
                for protocol in [Protocol::Classic, Protocol::Consumer] {
                    for _ in 0..options.repeats {
                        let settled = rebalance(&server.bootstrap, options, protocol, &topic, members)
                            .map_err(|error| format!("{members} members, {protocol:?}: {error}"))?;
                        measured.rebalances((protocol, members)).push(settled);
                    }
                }
            }
            let loads = if options.wants("commits") { &CONNECTIONS[..] } else { &[] };
            for connections in loads.iter().copied() {
                let cost = load(options, server, &topic, connections, options.measure).run()?;
                measured.commits(connections).push(cost);
            }
            Ok(())
        };
        scope.spawn(work).join().map_err(|_| "a measuring thread panicked".to_string())?
    })
}

/// Every path once or more before the clock runs: a JVM compiles what it has seen often.
fn warm(options: &Options, server: &Server, topic: &str) -> Outcome<()> {
    if options.wants("rebalances") {
        for protocol in [Protocol::Classic, Protocol::Consumer] {
            for members in [1, 10, 10, 30] {
                rebalance(&server.bootstrap, options, protocol, topic, members)
                    .map_err(|error| format!("warm-up, {members} members, {protocol:?}: {error}"))?;
            }
        }
    }
    if options.wants("commits") {
        load(options, server, topic, 16, options.warmup).run()?;
    }
    Ok(())
}

fn load(options: &Options, server: &Server, topic: &str, connections: usize, measure: Duration) -> Load {
    Load {
        bootstrap: server.bootstrap.clone(),
        broker_pid: server.pid(),
        topic: topic.to_string(),
        connections,
        warmup: options.warmup / 4,
        measure,
    }
}

/// One group: `count` members join at once, settle; then one leaves, and the others settle again.
fn rebalance(
    bootstrap: &str,
    options: &Options,
    protocol: Protocol,
    topic: &str,
    count: usize,
) -> Outcome<Settled> {
    let group = format!("bench-{count}-{}", sys::unique());
    let membership = Membership {
        protocol,
        group: group.clone(),
        topic: topic.to_string(),
        partitions: PARTITIONS,
        heartbeat: options.heartbeat,
    };
    let (board, ready) = (Arc::new(Board::new(count, PARTITIONS)), Arc::new(Barrier::new(count)));
    board.expect(count);
    let start = |me: usize| {
        let (membership, board, ready) = (membership.clone(), board.clone(), ready.clone());
        let (bootstrap, group) = (bootstrap.to_string(), group.clone());
        std::thread::spawn(move || {
            let client = GroupClient::connect(&bootstrap, &group, PATIENCE, PATIENCE);
            // Whoever fails must not keep the others waiting.
            ready.wait();
            let lived = client.and_then(|mut client| membership.run(me, &mut client, &board));
            if let Err(error) = lived {
                board.fail(error);
            }
        })
    };
    let threads: Vec<_> = (0..count).map(start).collect();
    let outcome = watch(&board, count);
    board.tell_to_leave(0..count);
    for thread in threads {
        thread.join().map_err(|_| "a member panicked".to_string())?;
    }
    outcome
}

fn watch(board: &Board, count: usize) -> Outcome<Settled> {
    let ms = |time: Duration| time.as_secs_f64() * 1000.0;
    let joined = ms(board.settle(PATIENCE)?);
    if count == 1 {
        return Ok((joined, None));
    }
    board.expect(count - 1);
    board.tell_to_leave(count - 1..count);
    Ok((joined, Some(ms(board.settle(PATIENCE)?))))
}
