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
    ("replica-forget-guard", "the last copies"),
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
    ("shard-always-released", "deposed, unheard"),
    ("shard-forget-ping", "halted in part"),
    ("control-grant-while-fencing", "fenced, unheard"),
    ("control-unfence-unseen", "fenced, unheard"),
    ("replica-answer-after-release", "handed over, unheard"),
    ("control-no-initial-wait", "a new controller"),
    ("shard-stop-at-once", "stopped in vain"),
    ("replica-drop-maximal-isr", "taken in, unheard"),
    ("control-no-compare", "an old wish"),
    ("control-stale-epochs", "a wish of an old life"),
    ("replica-expand-early", "a short follower"),
    ("replica-answer-of-old-join", "an old answer"),
    ("replica-skip-epoch-on-ack", "an old acknowledgement"),
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
const ONE_NODE: &str = "pelton-sim --sabotage all";
const CONTROL: &str = "pelton-control-sim --sabotage all";
const LOG: &str = "cargo test -p pelton-log every_fault_on_purpose_is_noticed";

/// Faults that real processes do not show: why, and what shows them.
pub const NOT_SHOWN: &[(&str, &str, &str)] = &[
    (
        "replica-count-written",
        "what is to be flushed is written with DSYNC: nothing is written and not flushed there",
        MACHINE,
    ),
    (
        "shard-trust-lossy",
        "a node that lost power leaves the ISR while another is in it; alone in it only where loss is accepted",
        "cargo test -p pelton-cluster lossy",
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
