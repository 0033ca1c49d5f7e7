//! States that `canon.rs` makes one are one: whatever can be seen of a replica, the controller and what is committed in any
//! state that is reached without it is seen in a state that is reached with it.

use std::collections::HashSet;

use stateright::Model as _;

use crate::model::Model;
use crate::state::{Budget, State, index};

/// What can be seen of a state. Of epochs only the order.
fn view(s: &State) -> Vec<i32> {
    let mut epochs = vec![0, 1, s.control.state.leader_epoch.0];
    for node in &s.nodes {
        epochs.push(node.machine.leader_epoch().0);
        epochs.extend(node.log.iter().map(|rec| rec.epoch));
    }
    epochs.extend(s.committed.iter().map(|rec| rec.epoch));
    epochs.sort_unstable();
    epochs.dedup();
    let rank = |epoch: i32| epochs.binary_search(&epoch).map_or(-1, |at| at as i32);
    let mut seen = Vec::new();
    for node in &s.nodes {
        let machine = &node.machine;
        seen.extend([i32::from(node.up), node.life.into(), i32::from(node.lease), machine.role() as i32]);
        seen.extend([rank(machine.leader_epoch().0), machine.high_watermark().0 as i32]);
        seen.extend([node.written.into(), node.flushed.into(), node.log.len() as i32]);
        seen.extend(node.log.iter().flat_map(|rec| [rank(rec.epoch), rec.value.into()]));
    }
    let (control, state) = (&s.control, &s.control.state);
    seen.extend([state.leader.map_or(-1, |leader| index(leader) as i32), rank(state.leader_epoch.0)]);
    seen.extend([control.fenced.into(), control.holders.into(), -2]);
    seen.extend(
        state.isr.iter().flat_map(|member| [index(member.replica) as i32, member.epoch.node_epoch.0 as i32]),
    );
    seen.push(-3);
    seen.extend(state.elr.iter().map(|replica| index(*replica) as i32));
    seen.push(-4);
    seen.extend(s.committed.iter().flat_map(|rec| [rank(rec.epoch), rec.value.into()]));
    let left = s.left;
    seen.extend([left.values, left.crashes, left.lossy, left.fences, left.shrinks].map(i32::from));
    seen.extend([left.moves, left.copies].map(i32::from));
    seen
}

fn views(model: &Model) -> (HashSet<Vec<i32>>, usize) {
    let mut found: HashSet<State> = model.init_states().into_iter().collect();
    let mut pending: Vec<State> = found.iter().cloned().collect();
    let mut seen = HashSet::new();
    while let Some(state) = pending.pop() {
        seen.insert(view(&state));
        let mut actions = Vec::new();
        model.actions(&state, &mut actions);
        for action in actions {
            if let Some(next) = model.next_state(&state, action)
                && found.insert(next.clone())
            {
                pending.push(next);
            }
        }
    }
    (seen, found.len())
}

fn compare(name: &str, sync: bool, out: bool, budget: Budget) {
    let merged = Model { without: None, sync, lying: false, out, merged: true, budget };
    let (with, few) = views(&merged);
    let (without, many) = views(&Model { merged: false, ..merged });
    println!("{name}: {many} states, merged {few}; {} views, merged {}", without.len(), with.len());
    let missing = without.difference(&with).next();
    assert_eq!(
        missing,
        None,
        "{name}: seen without merging only, and {} more",
        without.difference(&with).count()
    );
    assert!(few * 2 < many, "{name}: {few} of {many}");
}

#[test]
fn merging_loses_nothing_that_can_be_seen() {
    let one = Budget { values: 1, ..Budget::default() };
    compare("crash", true, false, Budget { crashes: 1, lossy: 1, ..one });
    compare("crash, written", false, false, Budget { crashes: 1, lossy: 1, ..one });
    compare("fence", true, false, Budget { fences: 1, ..one });
    compare("fence and shrink", true, false, Budget { fences: 1, shrinks: 1, ..one });
    compare("move", true, false, Budget { values: 2, moves: 1, ..one });
    compare("shrink and expand", true, true, Budget { shrinks: 1, copies: 1, ..one });
}
