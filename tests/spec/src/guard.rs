//! The guards of the protocol: each can be left out, and then something must break. Most are switches of the production
//! code; the others concern what this model decides itself: the clocks of leases, and when nodes are registered.

use pelton_replica::sabotage::Sabotage;

use crate::model::Model;
use crate::state::Budget;

/// One guard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Guard {
    /// In the replica machine.
    Replica(Sabotage),
    /// The controller fences only whose lease has surely ended (L4).
    LeaseWait,
    /// A leader answers only while its lease holds (L8).
    LeaseOnUse,
    /// A fenced node gets no lease before it has applied what it lost.
    SeenFencing,
    /// Only members of the ISR, or of the ELR if there are none, are elected (R11).
    ElectEligible,
    /// A proposal counts only on the partition epoch it builds on.
    CompareAndSet,
    /// A proposal counts only with the lives that are registered (R10).
    RegisteredLives,
    /// Who may have lost what it acknowledged leaves the ELR (S4).
    SuspectLeavesElr,
    /// A change of leader of which the former one knows nothing waits for it (L7).
    ReleaseBeforeUse,
    /// Whoever was in sync counts until the controller has decided that it no longer is (R9).
    ShrinkDecided,
    /// A leader says no latest offset before it knows all that was committed (R8).
    LatestWaits,
}

/// All there are, each with what it takes to show.
pub fn all() -> Vec<(Guard, Model)> {
    let replica = Sabotage::ALL.into_iter().filter(|fault| {
        // Clocks and queues are not the replica machine's: `LeaseWait` and `LeaseOnUse` stand for the first two; answers
        // to earlier Joins never come here, as a Join and its answer are one step.
        !matches!(fault, Sabotage::LeaseTwice | Sabotage::ForgetLease | Sabotage::AnswerOfOldJoin)
    });
    let model = [
        Guard::LeaseWait,
        Guard::LeaseOnUse,
        Guard::SeenFencing,
        Guard::ElectEligible,
        Guard::CompareAndSet,
        Guard::RegisteredLives,
        Guard::SuspectLeavesElr,
        Guard::ReleaseBeforeUse,
        Guard::ShrinkDecided,
        Guard::LatestWaits,
    ];
    replica.map(Guard::Replica).chain(model).map(|guard| (guard, without(guard))).collect()
}

/// A small model in which the lack of this guard shows.
fn without(guard: Guard) -> Model {
    let budget = Budget { values: 1, ..Budget::default() };
    let mut model = Model {
        without: Some(guard),
        sync: true,
        lying: false,
        out: false,
        merged: true,
        symmetric: false,
        budget,
    };
    let budget = &mut model.budget;
    match guard {
        Guard::Replica(fault) => match fault {
            Sabotage::AnswerWhileActivating | Sabotage::AnswerAfterRelease | Sabotage::CutToHighWatermark => {
                budget.moves = 1;
            }
            Sabotage::SkipEpochOnAck => budget.moves = 2,
            Sabotage::SkipMatching | Sabotage::HighWatermarkBeforeCut => {
                (budget.values, budget.fences) = (2, 1)
            }
            Sabotage::IgnoreMinIsr => budget.shrinks = 1,
            Sabotage::DropMaximalIsr => model.out = true,
            Sabotage::ExpandEarly => (model.out, budget.fences) = (true, 1),
            Sabotage::CountStaleReplicaEpoch => (model.sync, budget.crashes, budget.lossy) = (false, 1, 1),
            Sabotage::AckUnwritten => model.sync = false,
            Sabotage::ForgetGuard => {
                (model.lying, model.out) = (true, true);
                (budget.crashes, budget.lossy, budget.fences) = (1, 1, 1);
            }
            _ => {}
        },
        Guard::LeaseWait | Guard::LeaseOnUse | Guard::SeenFencing => budget.fences = 1,
        Guard::ElectEligible => (model.out, budget.fences) = (true, 2),
        Guard::CompareAndSet => (model.out, budget.shrinks, budget.copies) = (true, 1, 1),
        Guard::RegisteredLives => {
            (model.sync, model.out) = (false, true);
            (budget.crashes, budget.lossy, budget.shrinks) = (1, 1, 1);
        }
        Guard::SuspectLeavesElr => {
            (model.sync, model.out, budget.crashes, budget.lossy) = (false, true, 1, 1);
        }
        Guard::ReleaseBeforeUse | Guard::LatestWaits => budget.moves = 1,
        Guard::ShrinkDecided => budget.shrinks = 1,
    }
    model
}
