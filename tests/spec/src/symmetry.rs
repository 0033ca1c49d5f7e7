//! Replicas that nobody tells apart: when no election is to come in which the controller goes by their order, states that differ
//! in the names of replicas only are one.

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::Hash;

use pelton_model::{IsrMember, Replica};

use crate::part::{Kept, Part};
use crate::state::{Ack, Control, N, Node, Proposal, State, index, replica};

/// New names, by index.
pub type Names = [u8; N];

/// All there are, the present ones first.
pub const ALL: [Names; 6] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];

/// The controller elects the first of several only when it takes the leadership from somebody: whose node is fenced, or has
/// crashed and begins anew. Later, whoever comes back is alone among those that may lead. A leader with a full disk hands over to the first.
pub fn applies(s: &State) -> bool {
    let leader_is_up = s.control.state.leader.is_none_or(|leader| s.nodes[index(leader)].up);
    let has_room = |node: &Part<Node>| !node.machine.is_full();
    s.left.fences == 0
        && s.left.crashes == 0
        && leader_is_up
        && s.left.fills == 0
        && s.nodes.iter().all(has_room)
}

/// The names worth trying: the leader is the first.
pub fn worth_trying(s: &State) -> impl Iterator<Item = &'static Names> {
    let leader = s.control.state.leader.map(index);
    ALL.iter().filter(move |names| leader.is_none_or(|leader| names[leader] == 0))
}

/// Something with replicas in it.
pub trait Rename: Kept + Clone + Hash + Eq {
    /// The same with other names.
    fn rename(&mut self, names: Names);
    /// Where a thread keeps what became of parts.
    fn renamed(look: impl FnOnce(&mut HashMap<(u64, Names), Part<Self>>) -> Part<Self>) -> Part<Self>;
}

fn other(names: Names, from: Replica) -> Replica {
    replica(names[index(from)].into())
}

fn bits(names: Names, bits: u8) -> u8 {
    (0..N).filter(|at| bits >> at & 1 == 1).fold(0, |all, at| all | 1 << names[at])
}

fn members(names: Names, list: &mut [IsrMember]) {
    list.iter_mut().for_each(|member| member.replica = other(names, member.replica));
    list.sort_unstable();
}

macro_rules! rename {
    ($($kind:ty: $with:expr),*) => {$(
        impl Rename for $kind {
            fn rename(&mut self, names: Names) {
                let with: fn(&mut $kind, Names) = $with;
                with(self, names);
            }
            fn renamed(
                look: impl FnOnce(&mut HashMap<(u64, Names), Part<$kind>>) -> Part<$kind>,
            ) -> Part<$kind> {
                thread_local! {
                    static RENAMED: RefCell<HashMap<(u64, Names), Part<$kind>>> = RefCell::default();
                }
                RENAMED.with_borrow_mut(look)
            }
        }
    )*};
}

rename!(
    Node: |node, names| {
        node.feeds.iter_mut().for_each(|feed| feed.0 = names[usize::from(feed.0)]);
        node.feeds.sort_unstable();
        node.machine.rename(|from| other(names, from));
    },
    Control: |control, names| {
        let lives = control.lives;
        (0..N).for_each(|at| control.lives[usize::from(names[at])] = lives[at]);
        control.fenced = bits(names, control.fenced);
        control.holders = bits(names, control.holders);
        control.state.leader = control.state.leader.map(|leader| other(names, leader));
        members(names, &mut control.state.isr);
        control.state.elr.iter_mut().for_each(|replica| *replica = other(names, *replica));
        control.state.elr.sort_unstable();
    },
    Vec<Ack>: |acks, names| {
        for ack in acks.iter_mut() {
            (ack.from, ack.to) = (names[usize::from(ack.from)], names[usize::from(ack.to)]);
        }
        acks.sort_unstable();
    },
    Vec<Proposal>: |proposals, names| {
        for proposal in proposals.iter_mut() {
            proposal.from = names[usize::from(proposal.from)];
            // The proposer is the first.
            members(names, &mut proposal.wish.isr);
            let own = proposal.wish.isr.iter().position(|member| index(member.replica) == usize::from(proposal.from));
            proposal.wish.isr[..=own.unwrap_or(0)].rotate_right(1);
        }
        proposals.sort_unstable();
    }
);

fn renamed<T: Rename>(part: &Part<T>, names: Names) -> Part<T> {
    T::renamed(|known| {
        let rename = || {
            let mut part = part.clone();
            part.make_mut().rename(names);
            part.seal();
            part
        };
        known.entry((part.digest(), names)).or_insert_with(rename).clone()
    })
}

/// The state with other names. Its parts are sealed, before and after.
pub fn rename(s: &State, names: Names) -> State {
    let mut new = s.clone();
    for at in 0..N {
        new.nodes[usize::from(names[at])] = renamed(&s.nodes[at], names);
    }
    new.control = renamed(&s.control, names);
    new.acks = renamed(&s.acks, names);
    new.proposals = renamed(&s.proposals, names);
    new
}

/// Of all names the ones that come first, by digests.
pub fn settle(s: &mut State) {
    if !applies(s) {
        return;
    }
    let order = |s: &State| {
        let nodes: [u64; N] = std::array::from_fn(|at| s.nodes[at].digest());
        (nodes, s.control.digest(), s.acks.digest(), s.proposals.digest())
    };
    let best = worth_trying(s)
        .map(|names| if *names == ALL[0] { s.clone() } else { rename(s, *names) })
        .min_by_key(order);
    if let Some(best) = best {
        *s = best;
    }
}
