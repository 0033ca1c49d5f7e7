//! Which recipe shows which fault of the broker on purpose; and those that processes cannot show, with the reason and what shows them.
//! Every switch of the broker is in one of the two.

/// Which recipe shows which fault; those of one recipe together.
pub const SHOWN: &[(&str, &str)] = &[
    ("host-follow-without-producers", "at rest"),
    ("host-stamp-earlier-epoch", "at rest"),
    ("host-acknowledge-at-once", "at rest"),
    ("shard-settle-at-once", "at rest"),
    ("log-wrong-stamp", "at rest"),
    ("log-reuse-buffer-early", "at rest"),
    ("host-empty-snapshot", "clean restart"),
    ("host-follow-without-epochs", "clean restart"),
    ("shard-leave-unsaid", "handed over"),
    ("shard-keep-quorum", "handed over"),
    ("shard-delete-alone", "trimmed"),
    ("group-skip-generation-check", "rules of groups"),
    ("group-same-generation", "rules of groups"),
    ("group-skip-owner-check", "rules of groups"),
    ("group-skip-epoch-check", "rules of groups"),
    ("group-skip-replayed-epoch", "rules of groups"),
    ("group-skip-replayed-offset", "rules of groups"),
    ("group-fetch-before-durable", "rules of groups"),
    ("shard-load-early", "coordinators killed"),
    ("shard-keep-seat", "coordinators moved"),
    ("group-expire-live-offsets", "old offsets"),
    ("log-skip-frame-crc", "damaged journal"),
    ("log-skip-torn-check", "damaged journal"),
    ("log-retention-too-eager", "old records"),
    ("log-compact-too-much", "compacted"),
    ("log-delete-before-checkpoint", "compacted"),
    ("replica-ignore-min-isr", "too few"),
    ("shard-elect-anyone", "laggard first"),
    ("control-elect-anyone", "laggard first"),
    ("control-register-any-life", "an old copy"),
    ("replica-cut-to-high-watermark", "killed followers"),
    ("control-register-unfenced", "killed followers"),
    ("log-cut-at-wrong-place", "killed when idle"),
    ("shard-drop-unnamed", "killed when idle"),
    ("log-checkpoint-too-far", "all killed, much load"),
    ("replica-ack-unwritten", "all killed, frozen disks"),
    ("replica-skip-matching", "cut off"),
    ("replica-high-watermark-before-cut", "cut off"),
    ("replica-lease-twice", "cut off"),
    ("replica-forget-lease", "cut off"),
    ("shard-forget-lease", "cut off"),
    ("shard-short-wait", "cut off"),
    ("control-short-wait", "cut off"),
    ("quorum-confirm-alone", "cut off"),
    ("group-answer-before-durable", "cut off"),
    ("host-keep-state-on-cut", "cut off"),
    ("log-cut-not-journaled", "cut off, killed later"),
    ("replica-answer-while-activating", "leaders deposed"),
    ("log-direct-not-awaited", "power of all"),
    ("log-ack-before-flush", "power of all, slow disks"),
    ("log-direct-not-verified", "power of all, large batches"),
    ("log-round-not-awaited", "power of all, small journal"),
    ("replica-count-stale-replica-epoch", "power of each, unflushed"),
    ("log-dsync-covers-earlier", "power of each, unflushed"),
    ("log-ignore-write-error", "failing writes"),
];

/// Runs of simulators and tests that show what processes do not.
const MACHINE: &str = "cargo test -p pelton-replica every_fault_on_purpose_is_caught";
const BROKERS: &str = "pelton-sim --nodes --sabotage all";
const ONE_NODE: &str = "pelton-sim --sabotage all";
const CONTROL: &str = "pelton-control-sim --sabotage all";
const LOG: &str = "cargo test -p pelton-log every_fault_on_purpose_is_noticed";

/// Faults that real processes do not show: why, and what shows them.
pub const NOT_SHOWN: &[(&str, &str, &str)] = &[
    (
        "replica-drop-maximal-isr",
        "a leader must die between the controller's yes to a larger ISR and hearing of it, and the new member lack a record",
        MACHINE,
    ),
    (
        "replica-skip-epoch-on-ack",
        "an acknowledgement of an earlier epoch must come when the same node leads anew, with a shorter log; a connection ends before",
        MACHINE,
    ),
    (
        "replica-answer-of-old-join",
        "an answer to an earlier Join must come after a later Join was sent, on one connection that keeps the order",
        MACHINE,
    ),
    (
        "replica-answer-after-release",
        "a leader that has let go hears of its successor within a millisecond; a link must be cut in between",
        MACHINE,
    ),
    (
        "replica-forget-guard",
        "it guards against a leader that must not have been elected, which needs another fault at the same time",
        MACHINE,
    ),
    (
        "replica-expand-early",
        "the leader must die in the milliseconds in which a member taken in early lacks records",
        MACHINE,
    ),
    (
        "replica-count-written",
        "what is to be flushed is written with DSYNC: nothing is written and not flushed there",
        MACHINE,
    ),
    (
        "shard-stop-at-once",
        "nothing becomes wrong: the farewell that follows moves the leaderships, some milliseconds later",
        "nothing else; pelton-verify failover has the milliseconds",
    ),
    (
        "shard-forget-ping",
        "a thread that stands still answers nobody, and hears of the next leader before it answers again",
        BROKERS,
    ),
    (
        "shard-trust-lossy",
        "a node that lost power leaves the ISR while another is in it; alone in it only where loss is accepted",
        "cargo test -p pelton-cluster lossy",
    ),
    (
        "control-no-initial-wait",
        "a third of three nodes must be cut off after it has voted for the new controller and before it is fenced",
        CONTROL,
    ),
    (
        "control-grant-while-fencing",
        "a lease must be asked for in the milliseconds in which the quorum decides on the fence",
        CONTROL,
    ),
    ("control-no-compare", "two changes of one partition must cross within milliseconds", CONTROL),
    (
        "control-stale-epochs",
        "a proposal for a life that has just ended must be under way when the next is registered",
        CONTROL,
    ),
    (
        "control-unfence-unseen",
        "a node must get a lease in the milliseconds before it hears what it lost",
        CONTROL,
    ),
    (
        "control-always-released",
        "a leader that lives hands over before it is replaced, and the others are gone: no change is left that it tells wrongly",
        "nothing yet, pelton-sim --nodes says so too",
    ),
    (
        "shard-always-released",
        "the same switch, for pelton-sim --nodes",
        "nothing yet, pelton-sim --nodes says so too",
    ),
    (
        "quorum-send-before-persisted",
        "both followers must lose what the leader counted, and elect one of them; ten power cuts 25 ms before a flush did not do it",
        CONTROL,
    ),
    (
        "log-accept-old-incarnation",
        "a group of the life before must lie exactly behind the last one, with the next number",
        LOG,
    ),
    (
        "log-cut-forgotten",
        "the checkpoint must come after a cut, and an entry from before the cut still be in the journal behind it",
        LOG,
    ),
    (
        "log-swap-before-sync",
        "a compacted segment must be lost while the checkpoint that names it is not",
        ONE_NODE,
    ),
    (
        "log-tombstone-too-early",
        "a reader must be between a value and its tombstone for longer than delete.retention.ms",
        ONE_NODE,
    ),
    (
        "log-forget-last-sequence",
        "producers' state is in checkpoints; the log is read for it only behind them, where nothing is compacted",
        LOG,
    ),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::{RECIPES, of_name};

    #[test]
    fn each_fault_on_purpose_is_shown_by_a_recipe_or_said_not_to_be() {
        let mut all: Vec<String> =
            pelton_shard::cluster::switches().into_iter().map(|(name, _)| name).collect();
        let mut said: Vec<String> = SHOWN.iter().map(|(name, _)| name.to_string()).collect();
        said.extend(NOT_SHOWN.iter().map(|(name, ..)| name.to_string()));
        all.sort();
        said.sort();
        assert_eq!(said, all);
    }

    #[test]
    fn every_recipe_is_used_and_there() {
        for (switch, recipe) in SHOWN {
            assert!(of_name(recipe).is_some(), "{switch}: {recipe}");
        }
        for recipe in RECIPES {
            assert!(SHOWN.iter().any(|(_, name)| *name == recipe.name), "{}", recipe.name);
        }
    }
}
