//! `pelton-spec`: all states of one partition's replicas, controller and leases within bounds, with the production code in
//! each replica and at the controller; then with each guard left out, until something breaks.
//!
//! `[--size small|full] [--only NAME] [--budget V,C,L,F,S,M,C] [--steps-max N] [--threads N] [--steps]`. Prints
//! `N passed, N failed`.

mod canon;
mod checks;
mod controller;
mod guard;
mod model;
mod part;
mod replica;
#[cfg(test)]
mod same;
#[path = "../../sim/src/seeds.rs"]
mod seeds;
mod state;

use std::time::{Duration, Instant};

use stateright::{Checker, HasDiscoveries, Model as _};

use guard::Guard;
use model::Model;
use seeds::{Arguments, Tally};
use state::Budget;

/// A search that has not ended when so many steps were tried has failed: a bound that is the same on every machine.
const STEPS_MAX: usize = 12_000_000;
/// The same of `--size full`.
const FULL_STEPS_MAX: usize = 1_000_000_000;

/// A long search says so often how far it is.
const SAY: Duration = Duration::from_secs(30);

/// What is searched, to the end.
fn whole(full: bool) -> Vec<(&'static str, Model)> {
    let budget = Budget { values: 2, crashes: 1, lossy: 1, fences: 1, shrinks: 1, moves: 0, copies: 0 };
    let model = Model { without: None, sync: true, lying: false, out: false, merged: true, budget };
    let small = |budget| Model { budget, ..model.clone() };
    if full {
        return vec![
            ("flushed", model.clone()),
            ("written", Model { sync: false, ..model.clone() }),
            ("one out of sync", Model { out: true, ..model.clone() }),
            ("lying disks", Model { lying: true, ..model }),
        ];
    }
    let one = Budget { values: 1, ..Budget::default() };
    let two = Budget { values: 2, ..one };
    let crash = Budget { crashes: 1, lossy: 1, ..one };
    let lying = Model { lying: true, out: true, ..small(Budget { fences: 1, ..crash }) };
    vec![
        ("fence and shrink", small(Budget { fences: 1, shrinks: 1, ..two })),
        ("crash and fence", small(Budget { fences: 1, ..crash })),
        ("crash and shrink", small(Budget { shrinks: 1, ..crash })),
        ("crash, written", Model { sync: false, ..small(Budget { values: 2, ..crash }) }),
        ("moves", small(Budget { moves: 2, ..two })),
        ("shrink and expand", Model { out: true, ..small(Budget { shrinks: 1, copies: 1, ..two }) }),
        ("lying disks", lying),
    ]
}

fn exhaust(name: &str, model: Model, threads: usize, steps_max: usize) -> Result<(), String> {
    let began = Instant::now();
    let builder = model.checker().threads(threads).target_state_count(steps_max);
    let checker = builder.spawn_bfs();
    let mut said = Instant::now();
    while !checker.is_done() {
        std::thread::sleep(Duration::from_millis(20));
        if said.elapsed() > SAY {
            said = Instant::now();
            let (states, depth) = (checker.unique_state_count(), checker.max_depth());
            println!("  {name}: {states} states so far, depth {depth}, {} s", began.elapsed().as_secs());
        }
    }
    let checker = checker.join();
    let seconds = began.elapsed();
    println!(
        "{name}: {} states, {} steps tried, depth {}, {:.1} s, {} properties",
        checker.unique_state_count(),
        checker.state_count(),
        checker.max_depth(),
        seconds.as_secs_f64(),
        checker.model().properties().len()
    );
    let (must_not, should): (Vec<_>, Vec<_>) =
        checker.model().properties().into_iter().partition(|it| it.expectation.discovery_is_failure());
    for property in must_not {
        if let Some(path) = checker.discovery(property.name) {
            return Err(format!("{}: {:?}", property.name, path.into_actions()));
        }
    }
    if checker.state_count() >= steps_max {
        return Err(format!("not all states are visited after {steps_max} steps"));
    }
    match should.into_iter().find(|property| checker.discovery(property.name).is_none()) {
        Some(property) => Err(format!("{} is never so", property.name)),
        None => Ok(()),
    }
}

/// One thread: only then is the first counterexample one of the shortest.
fn breaks(guard: Guard, model: Model, steps_max: usize, steps: bool) -> Result<(), String> {
    let began = Instant::now();
    let builder = model.checker().target_state_count(steps_max);
    let checker = builder.finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let (states, seconds) = (checker.unique_state_count(), began.elapsed().as_secs_f64());
    for property in checker.model().properties() {
        if property.expectation.discovery_is_failure()
            && let Some(path) = checker.discovery(property.name)
        {
            let actions = path.into_actions();
            let (length, name) = (actions.len(), property.name);
            println!("without {guard:?}: {length} steps, {states} states, {seconds:.1} s: {name}");
            if steps {
                println!("  {actions:?}");
            }
            return Ok(());
        }
    }
    Err(format!("nothing breaks in {states} states, {seconds:.1} s"))
}

/// `--budget`: another one than the model has by itself, its fields in order.
fn budget(text: &str) -> Option<Budget> {
    let fields: Vec<u8> = text.split(',').map(str::parse).collect::<Result<_, _>>().ok()?;
    let [values, crashes, lossy, fences, shrinks, moves, copies] = fields.try_into().ok()?;
    Some(Budget { values, crashes, lossy, fences, shrinks, moves, copies })
}

fn main() {
    let (arguments, mut tally) = (Arguments::read(), Tally::default());
    let threads = arguments.number("--threads").map_or(1, |threads| threads as usize);
    let only = arguments.value("--only");
    let wanted = |name: &str| only.is_none_or(|only| name.contains(only));
    let full = arguments.value("--size") == Some("full");
    let most = if full { FULL_STEPS_MAX } else { STEPS_MAX };
    let steps_max = arguments.number("--steps-max").map_or(most, |steps| steps as usize);
    let given = arguments.value("--budget").map(|text| {
        budget(text).unwrap_or_else(|| {
            eprintln!(
                "--budget wants values,crashes,lossy,fences,shrinks,moves,copies as numbers, not {text:?}"
            );
            std::process::exit(2);
        })
    });
    let within = |model: Model| Model { budget: given.unwrap_or(model.budget), ..model };
    for (name, model) in whole(full) {
        if wanted(name) {
            tally.count(name, exhaust(name, within(model), threads, steps_max));
        }
    }
    for (guard, model) in guard::all() {
        let name = format!("{guard:?}");
        if wanted(&name) {
            let broken = breaks(guard, within(model), steps_max, arguments.has("--steps"));
            tally.count(&format!("without {name}"), broken);
        }
    }
    tally.end();
}
