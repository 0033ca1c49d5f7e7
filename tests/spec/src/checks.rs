//! What must hold in every state, and what must be reachable, lest the model prove nothing.

use pelton_model::LeaderEpoch;
use stateright::Property;

use crate::guard::Guard;
use crate::model::Model;
use crate::state::{N, Node, State, Wrong, epoch_of, replica};

/// The properties; with lying disks only that nobody cuts below its high watermark.
pub fn properties(lying: bool) -> Vec<Property<Model>> {
    let cut: Property<Model> =
        Property::always("I12 no cut below the high watermark", |_: &Model, s: &State| {
            s.wrong != Some(Wrong::CutBelow)
        });
    if lying {
        return vec![cut];
    }
    vec![
        cut,
        Property::always("I1 one leader answers", |model: &Model, s: &State| {
            s.nodes.iter().filter(|node| model.may_answer(node)).count() <= 1
        }),
        Property::always("I2 the leader has all that is committed", |_: &Model, s: &State| {
            let now = s.control.state.leader_epoch;
            let leads = |node: &Node| node.leads() && node.machine.leader_epoch() == now;
            s.nodes.iter().all(|node| !leads(node) || node.holds(&s.committed))
        }),
        Property::always("I3 ISR and ELR have all that is committed", |model: &Model, s: &State| {
            (0..N).all(|at| !is_candidate(model, s, at) || s.nodes[at].holds(&s.committed))
        }),
        Property::always("I5 logs agree below the high watermarks", |_: &Model, s: &State| {
            s.nodes.iter().all(|node| {
                let below = node.high_watermark();
                below <= s.committed.len()
                    && node.log.len() >= below
                    && node.log[..below] == s.committed[..below]
            })
        }),
        Property::always("I10 nothing is committed without its copies", |_: &Model, s: &State| {
            s.wrong != Some(Wrong::IllCommitted)
        }),
        Property::always("R3 no replica gives up", |_: &Model, s: &State| s.wrong != Some(Wrong::Faulted)),
        Property::always("R8 who says the latest offset knows it", |model: &Model, s: &State| {
            s.nodes.iter().filter(|node| node.up).all(|node| {
                let latest = match model.has(Guard::LatestWaits) {
                    true => node.machine.check_latest(0, model.lease(node)),
                    false => node.machine.check_read(0, model.lease(node)),
                };
                latest.is_err() || node.high_watermark() >= s.committed.len()
            })
        }),
        Property::sometimes("all values are committed", |model: &Model, s: &State| {
            s.committed.len() == usize::from(model.budget.values)
        }),
        Property::sometimes("a later leader commits", |model: &Model, s: &State| {
            let moves = model.budget.fences + model.budget.moves + model.budget.crashes > 0;
            !moves || s.committed.iter().any(|rec| LeaderEpoch(rec.epoch) > LeaderEpoch(1))
        }),
        Property::sometimes("a restarted replica is in sync again", |model: &Model, s: &State| {
            let crashed = s.left.crashes < model.budget.crashes;
            model.budget.crashes == 0 || (crashed && (0..N).all(|at| in_sync(s, at)))
        }),
    ]
}

fn in_sync(s: &State, at: usize) -> bool {
    s.nodes[at].up && s.control.state.isr_epoch(replica(at)) == Some(epoch_of(s.nodes[at].life))
}

/// May be elected as it is. What is not flushed may be lost with the power: such a replica leaves the ELR before it takes
/// part again, so one that is fenced is none.
fn is_candidate(model: &Model, s: &State, at: usize) -> bool {
    let takes_part = s.control.fenced >> at & 1 == 0 && s.nodes[at].up;
    let eligible = s.control.state.elr.contains(&replica(at));
    in_sync(s, at) || (eligible && (model.sync || takes_part))
}
