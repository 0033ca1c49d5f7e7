//! The bench program: `load`, `limits`, `floor`, `first`, `compare`, `groups`, `referee`, `modes`, `replicas`, `smoke`, `idle`. Only reads arguments and
//! prints; the work is in the library.

use pelton_bench::args::Args;
use pelton_bench::compare::{self, cases::Times, systems::Programs};
use pelton_bench::load::{self, Plan};
use pelton_bench::{
    Outcome, checks, first, floor, generator, groups, limits, modes, referee, replicas, server,
};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

const HELP: &str = "\
pelton-bench load   --bootstrap H:P --case sync|tiny|bulk|paced [--seconds 5] [--warmup 2] [--rate REQUESTS/S] [--tails N]
                    [--partitions N] [--conns N] [--replicas N]
                    [--broker-pid PID] [--topic T] [--core 1] [-X topic.config=value]
pelton-bench limits [--dir DIR]
pelton-bench floor  --port P [--durable DEPTH --data FILE] [--spin-us 0]
pelton-bench first  --out DIR [--rounds 3] [--seconds 6] [--warmup 3] [--port 19700] [--pelton FILE|none]
                    [--kafka yes|no] [--jars DIR] [--dir DIR] [-X broker.key=value]
pelton-bench compare --out DIR [--quick] [--rounds 5] [--cases H1,H2,H3,H4,H5,H6,H7,H9] [--seconds 3] [--long 60]
                    [--fair 28] [--warmup 1] [--tansu FILE] [--port 19700] [--pelton FILE|none] [--kafka yes|no] [--jars DIR] [--dir DIR]
pelton-bench groups [--out DIR] [--rounds 3] [--repeats 3] [--seconds 3] [--warmup 2] [--heartbeat-ms 50]
                    [--systems NAME,NAME] [--part rebalances|commits] [--port 19700] [--pelton FILE|none]
                    [--kafka yes|no] [--jars DIR] [--dir DIR] [-X broker.key=value]
pelton-bench referee --referee FILE [--rounds 3] [--seconds 3] [--warmup 1.5] [--port 19700] [--pelton FILE|none] [--kafka yes|no] [--jars DIR]
pelton-bench modes  [--rounds 3] [--seconds 3] [--warmup 1] [--rate 20000] [--port 19700] [--pelton FILE]
pelton-bench replicas [--rounds 3] [--seconds 3] [--warmup 1] [--systems PART-OF-NAME] [--port 19700] [--pelton FILE|none] [--kafka yes|no] [--jars DIR]
                    [--dir DIR] [-X broker.key=value]
pelton-bench smoke  [--seconds 2] [--port 19700] [--pelton FILE|none] [-X broker.key=value]
pelton-bench idle   [--seconds 5] [--port 19700] [--pelton FILE] [-X broker.key=value]";

const OPTIONS: &[&str] = &[
    "bootstrap",
    "case",
    "seconds",
    "rate",
    "quick!",
    "long",
    "fair",
    "tansu",
    "cases",
    "tails",
    "partitions",
    "replicas",
    "conns",
    "warmup",
    "broker-pid",
    "topic",
    "core",
    "dir",
    "port",
    "durable",
    "data",
    "spin-us",
    "out",
    "rounds",
    "pelton",
    "kafka",
    "jars",
    "repeats",
    "heartbeat-ms",
    "systems",
    "part",
    "referee",
];

fn main() -> ExitCode {
    match Args::parse(std::env::args().skip(1), OPTIONS).and_then(|args| run(&args)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pelton-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Outcome<()> {
    let port: u16 = args.number("port", 19_700)?;
    match args.command.as_str() {
        "load" => one_load(args),
        "limits" => {
            let dir = args.text("dir").map_or_else(std::env::temp_dir, PathBuf::from);
            print!("{}", limits::table(&limits::measure(&dir)?));
            Ok(())
        }
        "floor" => {
            let depth: usize = args.number("durable", 0)?;
            let durable = if depth > 0 { Some((PathBuf::from(args.required("data")?), depth)) } else { None };
            floor::serve(&floor::Options { port, durable, spin_us: args.number("spin-us", 0)? })
        }
        "first" => first_figures(args, port),
        "compare" => full(args, port),
        "groups" => group_figures(args, port),
        "referee" => {
            let programs = Programs {
                pelton: pelton(args)?,
                jars: jars(args)?,
                tansu: None,
                extra: args.extra.clone(),
                port,
            };
            let report = referee::run(&referee::Options {
                program: PathBuf::from(args.required("referee")?),
                rounds: args.number("rounds", 3)?,
                warmup: seconds(args, "warmup", 1.5)?,
                measure: seconds(args, "seconds", 3.0)?,
                programs,
                scratch: args.text("dir").map(str::to_string),
            })?;
            println!("{report}");
            Ok(())
        }
        "modes" => {
            let report = modes::run(&modes::Options {
                pelton: server::pelton_program(args.text("pelton"))?,
                port,
                rounds: args.number("rounds", 3)?,
                warmup: seconds(args, "warmup", 1.0)?,
                measure: seconds(args, "seconds", 3.0)?,
                rate: args.number("rate", 20_000.0)?,
                scratch: args.text("dir").map(str::to_string),
            })?;
            println!("{report}");
            Ok(())
        }
        "replicas" => replica_figures(args, port),
        "smoke" => {
            let pelton = pelton(args)?;
            checks::smoke(pelton.as_deref(), port, seconds(args, "seconds", 2.0)?, &args.extra)?;
            println!("smoke: ok");
            Ok(())
        }
        "idle" => {
            let program = server::pelton_program(args.text("pelton"))?;
            println!("{}", checks::idle(&program, port, args.number("seconds", 5)?, &args.extra)?);
            Ok(())
        }
        _ => Err(format!("usage:\n{HELP}")),
    }
}

fn seconds(args: &Args, name: &str, default: f64) -> Outcome<Duration> {
    Duration::try_from_secs_f64(args.number(name, default)?).map_err(|error| format!("--{name}: {error}"))
}

fn pelton(args: &Args) -> Outcome<Option<PathBuf>> {
    if args.text("pelton") == Some("none") {
        Ok(None)
    } else {
        server::pelton_program(args.text("pelton")).map(Some)
    }
}

fn one_load(args: &Args) -> Outcome<()> {
    let split = |text: &String| text.split_once('=').map(|(key, value)| (key.to_string(), value.to_string()));
    let configs: Option<Vec<(String, String)>> = args.extra.iter().map(split).collect();
    let pid: u32 = args.number("broker-pid", 0)?;
    let plan = Plan {
        bootstrap: args.required("bootstrap")?.to_string(),
        warmup: seconds(args, "warmup", 2.0)?,
        measure: seconds(args, "seconds", 5.0)?,
        broker_pids: if pid > 0 { vec![pid] } else { Vec::new() },
        replicas: args.number("replicas", 1)?,
        core: args.number("core", 1)?,
        topic: args.text("topic").map(str::to_string),
        configs: configs.ok_or("-X needs key=value")?,
        catch_up: None,
    };
    let mut case = load::case(args.required("case")?)?;
    case.rate = args.number("rate", case.rate)?;
    case.tails = args.number("tails", case.tails)?;
    case.partitions = args.number("partitions", case.partitions)?;
    case.conns = args.number("conns", case.conns)?;
    let measured = generator::run(&case, &plan)?;
    println!("{}", measured.json());
    eprintln!("{}", measured.line());
    Ok(())
}

fn jars(args: &Args) -> Outcome<Option<PathBuf>> {
    match args.text("kafka") {
        Some("no") => Ok(None),
        _ => server::kafka_jars(args.text("jars")).map(Some),
    }
}

/// The whole comparison; `--quick` in at most three minutes, and without Kafka unless asked for.
fn full(args: &Args, port: u16) -> Outcome<()> {
    let quick = args.text("quick").is_some();
    // Of 10,000 connections at 40,000 requests/s, 100 samples of each take 25 s.
    let (rounds, measure, long, fair, warmup) =
        if quick { (1, 2.0, 2.0, 2.0, 0.5) } else { (5, 3.0, 60.0, 28.0, 1.0) };
    let jars = if quick && args.text("kafka").is_none() { None } else { jars(args)? };
    let cases = args.text("cases").unwrap_or("H1,H2,H3,H4,H5,H6,H7,H9");
    let cases: Vec<String> = cases.split(',').map(str::to_string).collect();
    if let Some(unknown) = cases.iter().find(|case| !compare::cases::CASES.contains(&case.as_str())) {
        return Err(format!("--cases {unknown}: there are {}", compare::cases::CASES.join(", ")));
    }
    compare::run(&compare::Options {
        out: PathBuf::from(args.required("out")?),
        rounds: args.number("rounds", rounds)?,
        times: Times {
            warmup: seconds(args, "warmup", warmup)?,
            measure: seconds(args, "seconds", measure)?,
            long: seconds(args, "long", long)?,
            fair: seconds(args, "fair", fair)?,
        },
        cases,
        programs: Programs {
            pelton: pelton(args)?,
            jars,
            tansu: args.text("tansu").map(PathBuf::from),
            extra: args.extra.clone(),
            port,
        },
        scratch: args.text("dir").map(str::to_string),
        strict: quick,
    })
}

fn replica_figures(args: &Args, port: u16) -> Outcome<()> {
    let table = replicas::run(&replicas::Options {
        pelton: pelton(args)?,
        jars: jars(args)?,
        port,
        rounds: args.number("rounds", 3)?,
        warmup: seconds(args, "warmup", 1.0)?,
        measure: seconds(args, "seconds", 3.0)?,
        systems: args.text("systems").unwrap_or_default().to_string(),
        scratch: args.text("dir").map(str::to_string),
        extra: args.extra.clone(),
    })?;
    println!("{table}");
    Ok(())
}

fn first_figures(args: &Args, port: u16) -> Outcome<()> {
    let jars = jars(args)?;
    first::run(&first::Options {
        out: PathBuf::from(args.required("out")?),
        rounds: args.number("rounds", 3)?,
        measure: seconds(args, "seconds", 6.0)?,
        warmup: seconds(args, "warmup", 3.0)?,
        port,
        pelton: pelton(args)?,
        jars,
        scratch: args.text("dir").map(str::to_string),
        extra: args.extra.clone(),
    })
}

fn group_figures(args: &Args, port: u16) -> Outcome<()> {
    let systems =
        args.text("systems").map_or(Vec::new(), |names| names.split(',').map(str::to_string).collect());
    let report = groups::run(&groups::Options {
        out: args.text("out").map(PathBuf::from),
        rounds: args.number("rounds", 3)?,
        repeats: args.number("repeats", 3)?,
        warmup: seconds(args, "warmup", 2.0)?,
        measure: seconds(args, "seconds", 3.0)?,
        heartbeat: Duration::from_millis(args.number("heartbeat-ms", 50)?),
        systems,
        part: args.text("part").map(str::to_string),
        port,
        pelton: pelton(args)?,
        jars: jars(args)?,
        scratch: args.text("dir").map(str::to_string),
        extra: args.extra.clone(),
    })?;
    println!("{report}");
    Ok(())
}
