//! A search breadth first by one thread, with little memory for each state: its fingerprint, and from which other by which step
//! it was reached first. Of the states themselves only those are kept whose steps are still to be tried.

use std::collections::VecDeque;
use std::hash::{Hash, Hasher};
use std::time::{Duration, Instant};

use stateright::{Expectation, Model as _, Property};

use crate::model::{Action, Model};
use crate::part::Mixer;
use crate::state::State;

/// A long search says so often how far it is.
const SAY: Duration = Duration::from_secs(30);

/// Numbers, each once: open addressing.
struct Fingerprints {
    /// 0: free.
    slots: Vec<u64>,
    count: usize,
}

impl Fingerprints {
    fn new() -> Fingerprints {
        Fingerprints { slots: vec![0; 1 << 16], count: 0 }
    }

    /// False if it was there.
    fn insert(&mut self, number: u64) -> bool {
        if (self.count + 1) * 8 > self.slots.len() * 7 {
            let larger = vec![0; self.slots.len() * 2];
            let old = std::mem::replace(&mut self.slots, larger);
            old.into_iter().filter(|number| *number != 0).for_each(|number| {
                let at = self.place(number);
                self.slots[at] = number;
            });
        }
        let at = self.place(number);
        let new = self.slots[at] == 0;
        self.slots[at] = number;
        self.count += usize::from(new);
        new
    }

    /// Where it is or would be.
    fn place(&self, number: u64) -> usize {
        let mask = self.slots.len() - 1;
        let mut at = number as usize & mask;
        while self.slots[at] != 0 && self.slots[at] != number {
            at = (at + 1) & mask;
        }
        at
    }
}

/// What a state is known by; never 0.
pub fn fingerprint(state: &State) -> u64 {
    let mut mixer = Mixer::default();
    state.hash(&mut mixer);
    mixer.finish().max(1)
}

/// How far a search is.
#[derive(Default)]
pub struct Search {
    /// States found, by number from 0: from which, and by the how manieth of its steps.
    reached: Vec<(u32, u8)>,
    /// Steps tried that lead to another state.
    pub steps: usize,
    /// Of the state that is farthest from the first, which counts.
    pub depth: usize,
    /// Names of what was to be met with and was.
    pub met: Vec<&'static str>,
    /// What is violated, and how.
    pub violated: Option<(&'static str, Vec<Action>)>,
    /// Not all was visited.
    pub given_up: bool,
}

impl Search {
    /// States found.
    pub fn states(&self) -> usize {
        self.reached.len()
    }

    /// Visits all states, until something is violated or more than `steps_max` steps were tried.
    pub fn run(name: &str, model: &Model, steps_max: usize) -> Search {
        let properties = model.properties();
        let (began, mut said) = (Instant::now(), Instant::now());
        let (mut search, mut found, mut pending) = (Search::default(), Fingerprints::new(), VecDeque::new());
        for state in model.init_states() {
            search.found((model, &properties), &mut found, &mut pending, state, (u32::MAX, 0));
        }
        let (mut actions, mut number, mut next_depth) = (Vec::new(), 0, 0);
        while let Some(state) = pending.pop_front() {
            if number == next_depth {
                (search.depth, next_depth) = (search.depth + 1, search.states());
            }
            actions.clear();
            model.actions(&state, &mut actions);
            for (at, action) in actions.iter().enumerate() {
                if let Some(next) = model.next_state(&state, *action) {
                    search.steps += 1;
                    search.found(
                        (model, &properties),
                        &mut found,
                        &mut pending,
                        next,
                        (number as u32, at as u8),
                    );
                }
            }
            number += 1;
            search.given_up = search.steps > steps_max;
            if search.given_up || search.violated.is_some() {
                break;
            }
            if said.elapsed() > SAY {
                said = Instant::now();
                let (states, depth, seconds) = (search.states(), search.depth, began.elapsed().as_secs());
                println!(
                    "  {name}: {states} states, {} to be tried, depth {depth}, {seconds} s",
                    pending.len()
                );
            }
        }
        search
    }

    fn found(
        &mut self,
        (model, properties): (&Model, &[Property<Model>]),
        found: &mut Fingerprints,
        pending: &mut VecDeque<State>,
        state: State,
        from: (u32, u8),
    ) {
        if !found.insert(fingerprint(&state)) {
            return;
        }
        self.reached.push(from);
        for property in properties.iter() {
            match property.expectation {
                Expectation::Always if !(property.condition)(model, &state) && self.violated.is_none() => {
                    self.violated = Some((property.name, self.path(model)));
                }
                Expectation::Sometimes
                    if !self.met.contains(&property.name) && (property.condition)(model, &state) =>
                {
                    self.met.push(property.name);
                }
                _ => {}
            }
        }
        pending.push_back(state);
    }

    /// To the state that was found last.
    fn path(&self, model: &Model) -> Vec<Action> {
        let mut which = Vec::new();
        let mut at = self.reached.len() - 1;
        while let (from, action) = self.reached[at]
            && from != u32::MAX
        {
            which.push(action);
            at = from as usize;
        }
        let (mut path, mut actions) = (Vec::new(), Vec::new());
        let Some(mut state) = model.init_states().pop() else { return path };
        for action in which.into_iter().rev() {
            actions.clear();
            model.actions(&state, &mut actions);
            let action = actions[usize::from(action)];
            path.push(action);
            match model.next_state(&state, action) {
                Some(next) => state = next,
                None => break,
            }
        }
        path
    }
}

#[cfg(test)]
mod tests {
    use stateright::{Checker, HasDiscoveries, Model as _};

    use super::*;
    use crate::guard::{self, Guard};
    use crate::state::Budget;

    #[test]
    fn finds_as_many_states_as_stateright() {
        let budget = Budget { values: 1, crashes: 1, lossy: 1, ..Budget::default() };
        let model = Model {
            without: None,
            sync: false,
            lying: false,
            out: false,
            merged: true,
            symmetric: true,
            budget,
        };
        let search = Search::run("own", &model, usize::MAX);
        let checker = model.checker().spawn_bfs().join();
        assert_eq!(search.states(), checker.unique_state_count());
        assert_eq!((search.depth, search.violated), (checker.max_depth(), None));
        assert_eq!(search.met.len(), 3);
    }

    /// stateright tells the last that it finds among 1,500 states.
    #[test]
    fn finds_the_shortest_way_to_what_is_violated() {
        let all = guard::all();
        let (_, model) = all.into_iter().find(|(guard, _)| *guard == Guard::LeaseWait).expect("a guard");
        let search = Search::run("own", &model, usize::MAX);
        let (property, path) = search.violated.expect("two leaders that answer");
        assert_eq!(path, [Action::Fence(0), Action::Apply(1)]);
        let checker = model.checker().finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
        assert!(checker.discovery(property).expect("the same").into_actions().len() >= 2);
    }
}
