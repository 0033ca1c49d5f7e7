//! The bake-off's driver: starts each candidate pinned to core 0, loads it from core 1, prints one Markdown table.
//! Never links a runtime itself; its own raw epoll echo is the yardstick.

mod client;
mod epoll_echo;

use client::{Load, Outcome};
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;

/// A program under test and the arguments before `PORT CONNS`.
struct Candidate {
    name: &'static str,
    program: PathBuf,
    mode: &'static str,
    spin_us: u64,
}

const LOADS: &[(&str, Load)] = &[
    ("64 x 1", Load { conns: 64, depth: 1, seconds: 3.0 }),
    ("16 x 32", Load { conns: 16, depth: 32, seconds: 3.0 }),
    ("1 x 1", Load { conns: 1, depth: 1, seconds: 2.0 }),
    ("4000 x 1", Load { conns: 4000, depth: 1, seconds: 5.0 }),
];

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.first().map(String::as_str) == Some("echo-epoll") {
        return epoll_echo::run(args[1].parse().expect("port"), args[2].parse().expect("conns"));
    }
    let rounds: usize = args.first().and_then(|a| a.parse().ok()).unwrap_or(3);
    let out = args.get(1).cloned();
    let here = std::env::current_exe().expect("own path");
    let beside = |name: &str| here.with_file_name(name);
    let (old, new) = (beside("bakeoff-host-glommio09"), beside("bakeoff-host-glommio-ng"));
    let candidate =
        |name, program: &PathBuf, mode, spin_us| Candidate { name, program: program.clone(), mode, spin_us };
    let candidates = vec![
        candidate("raw epoll", &here, "echo-epoll", 0),
        candidate("glommio 0.9.0 streams", &old, "stream", 0),
        candidate("glommio-ng 0.12.0 streams", &new, "stream", 0),
        candidate("glommio 0.9.0 + own ring, yielding, preempt 1 ms", &old, "ring-yield", 0),
        candidate("glommio-ng 0.12.0 + own ring, yielding, preempt 1 ms", &new, "ring-yield", 0),
        candidate("glommio 0.9.0 + own ring", &old, "ring", 0),
        candidate("glommio-ng 0.12.0 + own ring", &new, "ring", 0),
    ];
    client::pin(1);
    if std::env::var_os("BAKEOFF_HANG_HUNT").is_some() {
        return hang_hunt(&candidates, rounds);
    }
    let mut text = facts(&old, &new);
    text.push_str(&loads(&candidates, rounds));
    print!("{text}");
    if let Some(path) = out {
        std::fs::write(&path, text).unwrap_or_else(|error| panic!("{path}: {error}"));
    }
}

/// Repeats one short load on the ring candidates only: a lost wake-up shows as a load that makes no progress.
fn hang_hunt(candidates: &[Candidate], rounds: usize) {
    let load = Load { conns: 64, depth: 1, seconds: 1.0 };
    for round in 0..rounds {
        for candidate in candidates.iter().filter(|c| c.mode.starts_with("ring")) {
            let outcome = measure(candidate, &load, 19_600 + (round % 50) as u16);
            println!(
                "round {round} {}: {:.0}/s max {:.0} us stalled {}",
                candidate.name, outcome.per_s, outcome.max_us, outcome.stalled
            );
        }
    }
}

fn median(mut values: Vec<f64>) -> (f64, f64, f64) {
    values.sort_by(f64::total_cmp);
    (values[values.len() / 2], values[0], values[values.len() - 1])
}

fn spread(values: Vec<f64>, digits: usize) -> String {
    let (mid, low, high) = median(values);
    format!("{mid:.digits$} ({low:.digits$}-{high:.digits$})")
}

fn loads(candidates: &[Candidate], rounds: usize) -> String {
    let mut port = 19_500;
    let mut text = String::new();
    for (name, load) in LOADS {
        let mut results: Vec<Vec<Outcome>> = candidates.iter().map(|_| Vec::new()).collect();
        for round in 0..rounds {
            for (i, candidate) in candidates.iter().enumerate() {
                port = if port >= 19_598 { 19_500 } else { port + 1 };
                let outcome = measure(candidate, load, port);
                eprintln!(
                    "{name} round {round} {}: {:.0}/s {:.2} us cpu p50 {:.1} p99 {:.1} us stalled {}",
                    candidate.name,
                    outcome.per_s,
                    outcome.cpu_us,
                    outcome.p50_us,
                    outcome.p99_us,
                    outcome.stalled
                );
                results[i].push(outcome);
            }
        }
        text.push_str(&format!(
            "\n### {name}, 128 B echo ({} s, {rounds} rounds, median (min-max))\n\n| candidate | requests/s | server CPU us/request | CPU vs epoll | p50 us | p99 us | max us | slowest connection's share of the mean | runs that stopped for ever |\n|---|---|---|---|---|---|---|---|---|\n",
            load.seconds
        ));
        let base = median(results[0].iter().map(|o| o.cpu_us).collect()).0;
        for (candidate, outcomes) in candidates.iter().zip(&results) {
            let all = |f: fn(&Outcome) -> f64| outcomes.iter().map(f).collect::<Vec<_>>();
            let cpu = median(all(|o| o.cpu_us)).0;
            let stalls = outcomes.iter().filter(|o| o.stalled).count();
            text.push_str(&format!(
                "| {} | {} | {} | {:.2} | {} | {} | {} | {} | {stalls} |\n",
                candidate.name,
                spread(all(|o| o.per_s), 0),
                spread(all(|o| o.cpu_us), 2),
                cpu / base,
                spread(all(|o| o.p50_us), 0),
                spread(all(|o| o.p99_us), 0),
                spread(all(|o| o.max_us), 0),
                spread(all(|o| o.least_share), 2),
            ));
        }
    }
    text
}

fn measure(candidate: &Candidate, load: &Load, port: u16) -> Outcome {
    let mut child = Command::new("taskset")
        .args(["-c", "0"])
        .arg(&candidate.program)
        .args([candidate.mode, &port.to_string(), &load.conns.to_string(), &candidate.spin_us.to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .expect("taskset and the host program exist: build the whole bake-off workspace first");
    let lines = lines_of(child.stdout.take().expect("piped"));
    assert!(said(&lines, "ready"), "{} did not start", candidate.name);
    let mut conns = client::connect(port, load.conns);
    if !said(&lines, "go") {
        stop(child);
        return Outcome { stalled: true, ..Outcome::default() };
    }
    let outcome = client::run(&mut conns, load, child.id());
    if std::env::var_os("BAKEOFF_KEEP").is_some() && outcome.per_s < 100.0 {
        println!("stalled {}", child.id());
        std::thread::sleep(std::time::Duration::from_secs(300));
    }
    drop(conns);
    stop(child);
    outcome
}

fn stop(mut child: Child) {
    let _ = child.kill();
    let _ = child.wait();
}

/// The program's output, line by line, from a thread: a program that never speaks must not hang the driver.
fn lines_of(output: std::process::ChildStdout) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

fn said(lines: &mpsc::Receiver<String>, want: &str) -> bool {
    lines.recv_timeout(std::time::Duration::from_secs(5)).is_ok_and(|line| line == want)
}

fn host(program: &PathBuf, args: &[&str]) -> String {
    let output = Command::new("timeout")
        .args(["30", "taskset", "-c", "0"])
        .arg(program)
        .args(args)
        .output()
        .expect("host");
    let text = String::from_utf8_lossy(&output.stdout).trim().replace('\n', "; ");
    if output.status.success() { text } else { format!("{text} FAILED {}", output.status) }
}

/// The facts that need no load: one row each, a column per release.
fn facts(old: &PathBuf, new: &PathBuf) -> String {
    let dir = std::env::temp_dir().join(format!("bakeoff-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("temp dir");
    let probe = dir.join("probe");
    std::fs::write(&probe, vec![1u8; 1 << 20]).expect("probe file");
    let (probe, place) = (probe.display().to_string(), dir.display().to_string());
    let rows: &[(&str, Vec<&str>)] = &[
        (
            "direct read beside a busy-yielding task, default preempt_timer: p50 p99 max us",
            vec!["starve", &probe, "0"],
        ),
        ("the same, preempt_timer 1 ms", vec!["starve", &probe, "1000"]),
        ("the same, preempt_timer 200 us", vec!["starve", &probe, "200"]),
        ("first DMA open of the thread is of an empty file, then a read", vec!["empty", &place]),
        ("CPU us in 5 s of idling", vec!["idle", "5"]),
        ("the same with a side ring waiting for a socket", vec!["idle", "5", "ring"]),
        ("sleep(1 ms): the first; then p50 p99 max us", vec!["first-sleep"]),
    ];
    let mut text = String::from(
        "\n### Facts without load\n\n| fact | glommio 0.9.0 | glommio-ng 0.12.0 |\n|---|---|---|\n",
    );
    for (name, args) in rows {
        text.push_str(&format!("| {name} | {} | {} |\n", host(old, args), host(new, args)));
    }
    let _ = std::fs::remove_dir_all(&dir);
    text
}
