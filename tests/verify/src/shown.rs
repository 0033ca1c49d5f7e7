//! Which recipe shows which fault of the broker on purpose: every switch of the broker has one.

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
    ("log-ack-before-flush", "power of all, slow disks"),
    ("log-direct-not-awaited", "power of all, large batches"),
    ("log-direct-not-verified", "power of all, large batches"),
    ("log-round-not-awaited", "power of all, small journal"),
    ("replica-count-stale-replica-epoch", "power of each, unflushed"),
    ("log-dsync-covers-earlier", "power of each, unflushed"),
    ("log-ignore-write-error", "failing writes"),
    ("log-tombstone-too-early", "kept by compaction"),
    ("log-forget-last-sequence", "kept by compaction"),
    ("log-accept-old-incarnation", "an old life"),
    ("log-cut-forgotten", "a cut forgotten"),
    ("log-swap-before-sync", "segments on a disk of their own"),
    ("shard-trust-lossy", "who lost power first"),
    ("quorum-send-before-persisted", "power of the quorum"),
    ("replica-count-written", "power behind unflushed"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::{RECIPES, of_name};

    #[test]
    fn each_fault_on_purpose_is_shown_by_a_recipe() {
        let mut all: Vec<String> =
            pelton_shard::cluster::switches().into_iter().map(|(name, _)| name).collect();
        let mut said: Vec<String> = SHOWN.iter().map(|(name, _)| name.to_string()).collect();
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
