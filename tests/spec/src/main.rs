//! `pelton-spec`: all states of one partition's replicas, controller and leases within bounds, with the production code in
//! each replica and at the controller; then with each guard left out, until something breaks.
//!
//! `[--size small|full] [--only NAME] [--budget V,C,L,F,S,M,C,F] [--steps-max N] [--steps]`. Prints
//! `N passed, N failed`.

mod canon;
mod checks;
mod controller;
mod guard;
mod model;
mod numbers;
mod part;
mod replica;
#[cfg(test)]
mod same;
mod search;
#[path = "../../sim/src/seeds.rs"]
mod seeds;
mod state;
mod symmetry;

use std::time::Instant;

use stateright::{Model as _, Property};

use guard::Guard;
use model::Model;
use search::Search;
use seeds::{Arguments, Tally};
use state::Budget;

/// A search that has not ended when so many steps were tried has failed: a bound that is the same on every machine.
const STEPS_MAX: usize = 12_000_000;
/// The same of `--size full`.
const FULL_STEPS_MAX: usize = 1_000_000_000;

/// What is searched, to the end.
fn whole(full: bool) -> Vec<(&'static str, Model)> {
    let budget =
        Budget { values: 2, crashes: 1, lossy: 1, fences: 1, shrinks: 1, moves: 0, copies: 0, fills: 0 };
    let model =
        Model { without: None, sync: true, lying: false, out: false, merged: true, symmetric: true, budget };
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
        ("full disk", small(Budget { fills: 1, fences: 1, ..one })),
    ]
}

fn exhaust(name: &str, model: &Model, steps_max: usize) -> Result<(), String> {
    let began = Instant::now();
    let search = Search::run(name, model, steps_max);
    println!(
        "{name}: {} states, {} steps tried, depth {}, {:.1} s, {} properties",
        search.states(),
        search.steps,
        search.depth,
        began.elapsed().as_secs_f64(),
        model.properties().len()
    );
    if let Some((property, path)) = search.violated {
        return Err(format!("{property}: {path:?}"));
    }
    if search.given_up {
        return Err(format!("not all states are visited after {steps_max} steps"));
    }
    let sometimes = |property: &Property<Model>| !property.expectation.discovery_is_failure();
    match model.properties().into_iter().filter(sometimes).find(|it| !search.met.contains(&it.name)) {
        Some(property) => Err(format!("{} is never so", property.name)),
        None => Ok(()),
    }
}

/// The counterexample is one of the shortest.
fn breaks(guard: Guard, model: &Model, steps_max: usize, steps: bool) -> Result<(), String> {
    let began = Instant::now();
    let search = Search::run(&format!("without {guard:?}"), model, steps_max);
    let (states, seconds) = (search.states(), began.elapsed().as_secs_f64());
    let Some((property, path)) = search.violated else {
        return Err(format!("nothing breaks in {states} states, {seconds:.1} s"));
    };
    println!("without {guard:?}: {} steps, {states} states, {seconds:.1} s: {property}", path.len());
    if steps {
        println!("  {path:?}");
    }
    Ok(())
}

/// `--budget`: another one than the model has by itself, its fields in order.
fn budget(text: &str) -> Option<Budget> {
    let fields: Vec<u8> = text.split(',').map(str::parse).collect::<Result<_, _>>().ok()?;
    let [values, crashes, lossy, fences, shrinks, moves, copies, fills] = fields.try_into().ok()?;
    Some(Budget { values, crashes, lossy, fences, shrinks, moves, copies, fills })
}

fn main() {
    let (arguments, mut tally) = (Arguments::read(), Tally::default());
    let only = arguments.value("--only");
    let wanted = |name: &str| only.is_none_or(|only| name.contains(only));
    let full = arguments.value("--size") == Some("full");
    let most = if full { FULL_STEPS_MAX } else { STEPS_MAX };
    let steps_max = arguments.number("--steps-max").map_or(most, |steps| steps as usize);
    let given = arguments.value("--budget").map(|text| {
        budget(text).unwrap_or_else(|| {
            eprintln!(
                "--budget wants values,crashes,lossy,fences,shrinks,moves,copies,fills as numbers, not {text:?}"
            );
            std::process::exit(2);
        })
    });
    let within = |model: Model| Model { budget: given.unwrap_or(model.budget), ..model };
    for (name, model) in whole(full) {
        if wanted(name) {
            tally.count(name, exhaust(name, &within(model), steps_max));
        }
    }
    for (guard, model) in guard::all() {
        let name = format!("{guard:?}");
        if wanted(&name) {
            let broken = breaks(guard, &within(model), steps_max, arguments.has("--steps"));
            tally.count(&format!("without {name}"), broken);
        }
    }
    tally.end();
}
