//! Brokers that do wrong on purpose: the verdict on each must be red. One that was never seen red proves nothing.

use crate::campaign::{Campaign, Load};
use crate::fault::Dice;
use crate::power_disk::{self, PowerDisk};
use crate::recipe::{self, Recipe};
use crate::run::finish;
use crate::shown::SHOWN;
use crate::wire::Wire;
use crate::{Tally, interrupt, load_of, network, staged};
use pelton_bench::Outcome;
use pelton_bench::args::Args;
use pelton_bench::cluster::{Cluster, System};
use pelton_bench::net::{NODES, Net};
use pelton_bench::server::{self, Scratch};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Letters of what was noticed first, from its beginning and from its end.
const WORDS: (usize, usize) = (240, 420);
/// All must be well this long after a fault was undone; a broker that does wrong on purpose is waited for no longer.
const SETTLE: Duration = Duration::from_secs(20);

/// One trial: what was noticed first. In a thread of its own, whose mounts are its own.
fn trial(
    args: &Args,
    program: &Path,
    name: Option<&str>,
    recipe: &Recipe,
    seed: u64,
) -> Outcome<Option<String>> {
    if !recipe.needs_power() {
        return trial_here(args, program, name, recipe, seed);
    }
    let work = || power_disk::own_mounts().and_then(|()| trial_here(args, program, name, recipe, seed));
    std::thread::scope(|scope| scope.spawn(work).join().map_err(|_| "a trial panicked")?)
}

fn trial_here(
    args: &Args,
    program: &Path,
    name: Option<&str>,
    recipe: &Recipe,
    seed: u64,
) -> Outcome<Option<String>> {
    let scratch = Scratch::new(args.text("dir"), "sabotage")?;
    let port = args.number("port", 19_900)?;
    let mut tally = Tally { quiet: true, ..Tally::default() };
    let net = match recipe.network {
        true => network(args, port, &mut tally)?,
        false => Net::loopback(port),
    };
    let settings = recipe.settings.iter().map(|setting| setting.to_string());
    let system = System::Pelton(program.to_path_buf(), args.extra.iter().cloned().chain(settings).collect());
    let mut cluster = Cluster::new(system, net, &scratch.path)?;
    let mut disks = Vec::new();
    if recipe.needs_power() {
        for node in 1..=NODES {
            let disk = PowerDisk::new(cluster.node_dir(node), seed + node as u64)?;
            cluster.set_data_dir(node, disk.path.join("data"));
            disks.push(disk);
        }
    }
    if let Some(name) = name {
        cluster.set_environment(vec![("PELTON_SABOTAGE".to_string(), name.to_string())]);
    }
    let logs: Vec<PathBuf> = (1..=NODES).map(|node| cluster.log_path(node)).collect();
    let wire = if recipe.wire { Some(Wire::new(&cluster)?) } else { None };
    let pause = Duration::from_millis(recipe.pause_ms);
    let load = Load {
        pause,
        settle: SETTLE,
        min_isr: recipe.min_isr,
        age_ms: recipe.age_ms,
        value_bytes: recipe.value_bytes,
        ..load_of(args)?
    };
    let mut campaign = match Campaign::start(cluster, None, load) {
        Ok(campaign) => campaign,
        // It did not even come to a topic.
        Err(error) => return Ok(Some(error)),
    };
    campaign.wire = wire;
    let mut dice = Dice::new(seed);
    for stage in recipe.stages {
        let done = staged::run(*stage, &mut campaign, &mut disks, &mut dice);
        let noticed = if recipe.stages_judge { None } else { campaign.noticed() };
        if let Some(words) = noticed.or(done.err()) {
            if name.is_none() {
                keep_logs(args, recipe, &logs);
            }
            return Ok(Some(words));
        }
    }
    if recipe.stages_judge {
        return Ok(None);
    }
    finish(&mut campaign, seed, None, &mut tally);
    // Processes first, then the disks they are on.
    drop(campaign);
    Ok(tally.faults.into_iter().next())
}

/// What the sound program's processes said, for whoever looks into it: into `--out`.
fn keep_logs(args: &Args, recipe: &Recipe, logs: &[PathBuf]) {
    let Some(out) = args.text("out").map(Path::new) else { return };
    for (index, log) in logs.iter().enumerate() {
        let name = format!("{}-node-{}.log", recipe.name.replace([' ', ','], "-"), index + 1);
        if let Err(error) = std::fs::create_dir_all(out).and_then(|()| std::fs::copy(log, out.join(name))) {
            eprintln!("{}: {error}", log.display());
        }
    }
}

fn short(words: &str) -> String {
    let letters: Vec<char> = words.chars().map(|letter| if letter == '\n' { ' ' } else { letter }).collect();
    if letters.len() <= WORDS.0 + WORDS.1 {
        return letters.into_iter().collect();
    }
    let (head, tail) = (&letters[..WORDS.0], &letters[letters.len() - WORDS.1..]);
    [head, &[' ', '…', ' '], tail].concat().into_iter().collect()
}

/// What is to be tried: switch (none: nothing is switched on) and recipe, the sound program before the first fault of each recipe.
fn plan(args: &Args) -> Outcome<Vec<(Option<String>, Recipe)>> {
    let named = |name: &str| recipe::of_name(name).ok_or(format!("--recipe {name}: there is none"));
    let wanted: Option<Vec<&str>> = args.text("names").map(|names| names.split(',').collect());
    if let (Some(recipe), Some(names)) = (args.text("recipe"), &wanted) {
        let recipe = named(recipe)?;
        return Ok(names
            .iter()
            .map(|name| (Some(name.to_string()).filter(|name| name != "none"), recipe))
            .collect());
    }
    let mut plan: Vec<(Option<String>, Recipe)> = Vec::new();
    let mut known = 0;
    for (name, recipe) in SHOWN {
        if wanted.as_ref().is_some_and(|wanted| !wanted.contains(name)) {
            continue;
        }
        known += 1;
        if plan.last().is_none_or(|(_, last)| last.name != *recipe) {
            plan.push((None, named(recipe)?));
        }
        plan.push((Some(name.to_string()), named(recipe)?));
    }
    if let Some(wanted) = wanted.filter(|wanted| wanted.len() != known) {
        let unknown = wanted.iter().find(|name| SHOWN.iter().all(|(shown, _)| shown != *name));
        return Err(format!("--names {}: there is no such fault", unknown.unwrap_or(&"")));
    }
    Ok(plan)
}

/// What this machine does not allow, of what a recipe needs.
fn lacking(recipe: &Recipe, dir: &Path, port: u16) -> Option<String> {
    let lacks = |what: &str, error: String| format!("{what}: {error}");
    if recipe.network
        && let Err(error) = Net::namespaces(port)
    {
        return Some(lacks("network namespaces", error));
    }
    if recipe.needs_power() {
        let tried = || power_disk::own_mounts().and_then(|()| PowerDisk::new(dir, 1)).map(drop);
        let tried = std::thread::scope(|scope| scope.spawn(tried).join());
        return match tried {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(lacks("disks whose power can be cut", error)),
            Err(_) => Some("a thread panicked".into()),
        };
    }
    None
}

/// Tries each, a few times with other seeds until the verdict is red. Where nothing is wrong it must be green.
pub fn run(args: &Args, seed: u64) -> Outcome<Tally> {
    let own = std::env::current_exe().map_err(|error| error.to_string())?.with_file_name("pelton-sabotaged");
    let program = server::pelton_program(Some(&own.to_string_lossy()))?;
    let tries = args.number("tries", 3u64)?;
    let mut tally = Tally::default();
    let began_all = Instant::now();
    let mut lacks: BTreeMap<&str, Option<String>> = BTreeMap::new();
    for (name, recipe) in plan(args)? {
        let said = name.as_deref().unwrap_or("nothing");
        let scratch = Scratch::new(args.text("dir"), "lacking")?;
        let port = args.number("port", 19_900)?;
        let lack = lacks.entry(recipe.name).or_insert_with(|| lacking(&recipe, &scratch.path, port));
        if let Some(lack) = lack {
            tally.skip(&format!("sabotage {said}, {}", recipe.name), lack);
            continue;
        }
        let began = Instant::now();
        let mut first = None;
        for number in 0..if name.is_some() { tries } else { 1 } {
            first = trial(args, &program, name.as_deref(), &recipe, seed + number)?;
            // What a signal has ended was not noticed.
            interrupt::check()?;
            if first.is_some() {
                break;
            }
        }
        let seconds = began.elapsed().as_secs();
        let words = first.as_deref().map(short);
        println!(
            "sabotage {said}, {}: after {seconds} s: {}",
            recipe.name,
            words.as_deref().unwrap_or("nothing noticed")
        );
        let fault = match name {
            Some(_) => words.is_none().then(|| format!("was not noticed in {seconds} s")),
            None => words,
        };
        tally.count(&format!("sabotage {said}, {}", recipe.name), fault);
    }
    println!("{} s", began_all.elapsed().as_secs());
    Ok(tally)
}
