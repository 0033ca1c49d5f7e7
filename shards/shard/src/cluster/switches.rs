//! Faults on purpose of all parts of a cluster's node, by name, for real processes (`pelton-verify sabotage`). Only there with the
//! cargo feature `sabotage`.

use pelton_cluster::control::ControlSabotage;
use pelton_cluster::quorum::QuorumSabotage;

use super::{ClusterConfig, Sabotage};

/// Faults of parts that [`ClusterConfig`] does not reach otherwise.
#[derive(Clone, Copy, Debug, Default)]
pub struct Elsewhere {
    /// Of the hosts of replicas.
    pub host: Option<crate::replica_host::Sabotage>,
    /// Of the shard's log.
    pub log: Option<pelton_log::Sabotage>,
    /// Of the group coordinators.
    pub groups: Option<pelton_group::Sabotage>,
    /// Of the controller.
    pub control: ControlSabotage,
    /// Of the metadata quorum.
    pub quorum: QuorumSabotage,
}

/// A fault's name, and how to switch it on.
pub type Switch = (String, Box<dyn Fn(&mut ClusterConfig)>);

type Flag = (&'static str, fn(&mut Elsewhere));

/// Faults of the controller and the quorum, which are flags there.
const FLAGS: [Flag; 11] = [
    ("control-short-wait", |faults| faults.control.sessions.short_wait = true),
    ("control-no-initial-wait", |faults| faults.control.sessions.no_initial_wait = true),
    ("control-grant-while-fencing", |faults| faults.control.sessions.grant_while_fencing = true),
    ("control-no-compare", |faults| faults.control.isr.no_compare = true),
    ("control-stale-epochs", |faults| faults.control.isr.stale_epochs = true),
    ("control-elect-anyone", |faults| faults.control.elect_anyone = true),
    ("control-register-any-life", |faults| faults.control.register_any_life = true),
    ("control-register-unfenced", |faults| faults.control.register_unfenced = true),
    ("control-unfence-unseen", |faults| faults.control.unfence_unseen = true),
    ("quorum-send-before-persisted", |faults| faults.quorum.send_before_persisted = true),
    ("quorum-confirm-alone", |faults| faults.quorum.confirm_alone = true),
];

/// Every one.
pub fn switches() -> Vec<Switch> {
    let mut all: Vec<Switch> = Vec::new();
    for fault in pelton_replica::sabotage::Sabotage::ALL {
        let name = format!("replica-{}", words(&format!("{fault:?}")));
        all.push((name, Box::new(move |config| config.replicas.sabotage = Some(fault))));
    }
    for fault in Sabotage::ALL {
        let name = format!("shard-{}", words(&format!("{fault:?}")));
        all.push((name, Box::new(move |config| config.sabotage = Some(fault))));
    }
    for fault in crate::replica_host::Sabotage::ALL {
        let name = format!("host-{}", words(&format!("{fault:?}")));
        all.push((name, Box::new(move |config| config.below.host = Some(fault))));
    }
    for fault in pelton_log::Sabotage::ALL.into_iter().chain(pelton_log::Sabotage::OF_FOLLOWERS) {
        let name = format!("log-{}", fault.name());
        all.push((name, Box::new(move |config| config.below.log = Some(fault))));
    }
    for fault in pelton_group::Sabotage::ALL {
        all.push((fault.name().to_string(), Box::new(move |config| config.below.groups = Some(fault))));
    }
    for (name, set) in FLAGS {
        all.push((name.to_string(), Box::new(move |config| set(&mut config.below))));
    }
    all
}

/// `CutToHighWatermark` as `cut-to-high-watermark`.
fn words(name: &str) -> String {
    let mut words = String::new();
    for letter in name.chars() {
        if letter.is_uppercase() && !words.is_empty() {
            words.push('-');
        }
        words.extend(letter.to_lowercase());
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_faults_have_one_name() {
        let mut names: Vec<String> = switches().into_iter().map(|(name, _)| name).collect();
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count);
        assert!(names.contains(&"replica-cut-to-high-watermark".to_string()));
    }
}
