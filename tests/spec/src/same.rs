//! States that `canon.rs` makes one are one: whatever can be seen of a replica, the controller and what is committed in any
//! state that is reached without it is seen in a state that is reached with it.

use std::collections::{HashSet, VecDeque};

use pelton_model::IsrMember;
use stateright::Model as _;

use crate::canon::is_orphan;
use crate::model::Model;
use crate::search::fingerprint;
use crate::state::{Budget, N, State, index};
use crate::symmetry::{self, Names};

/// What can be seen of a state. Of epochs and lives only the order; of records, which are the same.
fn view(model: &Model, s: &State, names: Names) -> Vec<i32> {
    let mut at = [0; N];
    (0..N).for_each(|old| at[usize::from(names[old])] = old);
    let name = |old: usize| i32::from(names[old]);
    let mut epochs = vec![0, 1, s.control.state.leader_epoch.0];
    // One that has nobody to lead or to follow: which epoch it was makes no difference.
    let alone =
        |at: usize| is_orphan(s, at) || s.nodes[at].machine.state().is_none_or(|it| it.leader.is_none());
    let idle =
        |at: usize| alone(at) || s.nodes[at].machine.role() == pelton_replica::partition::RoleKind::Idle;
    for (at, node) in s.nodes.iter().enumerate() {
        epochs.extend((!idle(at)).then_some(node.machine.leader_epoch().0));
        epochs.extend(node.log.iter().map(|rec| rec.epoch));
    }
    epochs.extend(s.committed.iter().map(|rec| rec.epoch));
    epochs.sort_unstable();
    epochs.dedup();
    let rank = |epoch: i32| epochs.binary_search(&epoch).map_or(-1, |at| at as i32);
    let mut records: Vec<(usize, i32, u8)> = Vec::new();
    let logs = s.nodes.iter().map(|node| &node.log).chain([&*s.committed]);
    records.extend(logs.flat_map(|log| log.iter().enumerate().map(|(at, rec)| (at, rec.epoch, rec.value))));
    records.sort_unstable();
    let mut values: Vec<u8> = Vec::new();
    for (_, _, value) in records {
        if !values.contains(&value) {
            values.push(value);
        }
    }
    let which = |value: u8| values.iter().position(|other| *other == value).map_or(-1, |at| at as i32);
    let (control, state) = (&s.control, &s.control.state);
    let life = |member: &IsrMember| {
        let at = index(member.replica);
        let (its, registered) = (s.nodes[at].life, control.lives[at]);
        let epoch = member.epoch.node_epoch.0;
        [its, registered].iter().filter(|other| epoch < u64::from(**other)).count() as i32
    };
    let mut seen = Vec::new();
    for at in at {
        let (node, machine) = (&s.nodes[at], &s.nodes[at].machine);
        let role = match () {
            () if idle(at) && machine.role() != pelton_replica::partition::RoleKind::Faulted => -1,
            () if model.is_retired(s, at) => -2,
            () => machine.role() as i32,
        };
        seen.extend([
            i32::from(node.up),
            i32::from(node.life > control.lives[at]),
            i32::from(node.lease),
            role,
        ]);
        let epoch = if role == -1 { -1 } else { rank(machine.leader_epoch().0) };
        seen.extend([epoch, machine.high_watermark().0 as i32]);
        seen.extend([node.written.into(), node.flushed.into(), node.log.len() as i32]);
        seen.extend(node.log.iter().flat_map(|rec| [rank(rec.epoch), which(rec.value)]));
        seen.push(i32::from(machine.is_full()));
        seen.extend([i32::from(control.fenced >> at & 1), i32::from(control.holders >> at & 1)]);
    }
    seen.extend([state.leader.map_or(-1, |leader| name(index(leader))), rank(state.leader_epoch.0), -2]);
    let mut isr: Vec<_> =
        state.isr.iter().map(|member| [name(index(member.replica)), life(member)]).collect();
    isr.sort_unstable();
    seen.extend(isr.into_iter().flatten());
    seen.push(-3);
    let mut elr: Vec<i32> = state.elr.iter().map(|replica| name(index(*replica))).collect();
    elr.sort_unstable();
    seen.extend(elr);
    seen.push(-4);
    seen.extend(s.committed.iter().flat_map(|rec| [rank(rec.epoch), which(rec.value)]));
    let left = s.left;
    // Power is lost in a crash only.
    seen.extend([left.values, left.crashes, left.lossy.min(left.crashes), left.fences].map(i32::from));
    seen.extend([left.shrinks, left.moves, left.copies, left.fills].map(i32::from));
    seen
}

fn views(model: &Model) -> (HashSet<Vec<i32>>, usize) {
    let mut pending: VecDeque<State> = model.init_states().into();
    let mut found: HashSet<u64> = pending.iter().map(fingerprint).collect();
    let mut seen = HashSet::new();
    let mut actions = Vec::new();
    while let Some(state) = pending.pop_back() {
        // Where replicas are not told apart, they are not seen apart.
        let views = symmetry::worth_trying(&state).map(|names| view(model, &state, *names)).min();
        let plain = || view(model, &state, symmetry::ALL[0]);
        seen.insert(views.filter(|_| symmetry::applies(&state)).unwrap_or_else(plain));
        actions.clear();
        model.actions(&state, &mut actions);
        for action in &actions {
            if let Some(next) = model.next_state(&state, *action)
                && found.insert(fingerprint(&next))
            {
                pending.push_back(next);
            }
        }
    }
    (seen, found.len())
}

fn compare(name: &str, sync: bool, out: bool, budget: Budget) {
    let merged = Model { without: None, sync, lying: false, out, merged: true, symmetric: true, budget };
    let (with, few) = views(&merged);
    let (without, many) = views(&Model { merged: false, ..merged });
    eprintln!("{name}: {many} states, merged {few}; {} views, merged {}", without.len(), with.len());
    let missing = without.difference(&with).next();
    assert_eq!(
        missing,
        None,
        "{name}: seen without merging only, and {} more",
        without.difference(&with).count()
    );
    assert_eq!(with.difference(&without).next(), None, "{name}: seen with merging only");
    assert!(few * 2 < many, "{name}: {few} of {many}");
}

#[test]
fn merging_loses_nothing_that_can_be_seen() {
    let none = Budget::default();
    let one = Budget { values: 1, ..none };
    compare("crash", true, false, Budget { crashes: 1, lossy: 1, ..one });
    compare("crash, written", false, false, Budget { crashes: 1, lossy: 1, ..one });
    compare("fence", true, false, Budget { fences: 1, ..one });
    compare("fence and shrink", true, false, Budget { fences: 1, shrinks: 1, ..none });
    compare("move", true, false, Budget { moves: 1, ..one });
    compare("full disk", true, false, Budget { fills: 1, ..none });
    compare("shrink and expand", true, true, Budget { shrinks: 1, copies: 1, ..one });
}
