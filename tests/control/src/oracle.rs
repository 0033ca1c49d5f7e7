//! What must hold, whatever happens: kept from outside the nodes, with knowledge none of them has.

use std::collections::BTreeMap;

use pelton_cluster::control::isr::IsrChange;
use pelton_cluster::image::MetadataImage;
use pelton_cluster::record::{MetadataRecord, decode_records};
use pelton_model::{LeaderEpoch, NodeId, PartitionEpoch, PartitionKey, PartitionState};
use pelton_wire::crc::crc32c;

/// The judge.
#[derive(Default)]
pub struct Oracle {
    leaders: BTreeMap<u64, NodeId>,
    digests: BTreeMap<u64, u32>,
    /// The metadata as committed, as far as any node has applied them.
    pub image: MetadataImage,
    /// Each state a partition was in.
    history: BTreeMap<(PartitionKey, PartitionEpoch), PartitionState>,
    /// Acknowledged records of each partition, in order.
    pub acknowledged: BTreeMap<PartitionKey, Vec<(LeaderEpoch, u64)>>,
    /// Elections seen.
    pub elections: u64,
}

impl Oracle {
    /// A node leads the quorum in a term.
    pub fn leads(&mut self, term: u64, node: NodeId) -> Result<(), String> {
        let known = *self.leaders.entry(term).or_insert(node);
        if known == node {
            Ok(())
        } else {
            Err(format!("nodes {} and {} lead in term {term}", known.0, node.0))
        }
    }

    /// Terms that had a leader.
    pub fn terms(&self) -> usize {
        self.leaders.len()
    }

    /// A node has applied the entry of `index`.
    pub fn applied(&mut self, node: NodeId, index: u64, image: &MetadataImage) -> Result<(), String> {
        let digest = crc32c(&image.snapshot());
        let known = *self.digests.entry(index).or_insert(digest);
        if known != digest {
            return Err(format!("node {}: its image at {index} is not that of others", node.0));
        }
        Ok(())
    }

    /// An entry is committed: followed here once, the first time any node applies it.
    pub fn committed(&mut self, index: u64, payload: &[u8]) -> Result<(), String> {
        if index <= self.image.applied_offset() {
            return Ok(());
        }
        let records = decode_records(payload).map_err(|error| error.to_string())?;
        let before = self.image.clone();
        let touched = self.image.apply(index, &records);
        if touched.outdated > 0 {
            return Err(format!(
                "entry {index} changes a partition that had changed before (compare-and-set)"
            ));
        }
        for record in &records {
            match record {
                MetadataRecord::Partition { key, state } => {
                    self.history.insert((*key, state.partition_epoch), state.clone());
                }
                MetadataRecord::PartitionChange { key, .. } => self.changed(&before, *key)?,
                MetadataRecord::Node(node) if before.node(node.node).is_some_and(|known| !known.fenced) => {
                    return Err(format!("node {} is registered anew and was not fenced", node.node.0));
                }
                MetadataRecord::Node(node)
                    if before.node(node.node).is_some_and(|known| node.start < known.start) =>
                {
                    return Err(format!(
                        "node {} is registered in an earlier life, {}, than it lived already",
                        node.node.0, node.start
                    ));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn changed(&mut self, before: &MetadataImage, key: PartitionKey) -> Result<(), String> {
        let (Some(old), Some(new)) = (before.partition(key), self.image.partition(key)) else {
            return Ok(());
        };
        let (old, new) = (old.state(), new.state());
        let fault = |what: &str| Err(format!("{key}: {what}: {old:?} -> {new:?}"));
        for member in &new.isr {
            if self.image.replica_epoch(member.replica) != Some(member.epoch)
                && old.isr_epoch(member.replica).is_none()
            {
                return fault("someone in the ISR does not live that life");
            }
        }
        if new.leader_epoch < old.leader_epoch {
            return fault("the leader epoch goes back");
        }
        if let Some(leader) = new.leader
            && (new.leader, new.leader_epoch) != (old.leader, old.leader_epoch)
        {
            self.elections += 1;
            // The change that ends a reassignment takes in who has caught up, on the word of the leader that goes.
            let ends = |state: &PartitionState| state.adding.is_empty() && state.removing.is_empty();
            let arrives = !ends(&old) && ends(&new);
            let clean = old.isr_epoch(leader).is_some() || old.elr.contains(&leader) || arrives;
            if !clean && new.unclean_epoch != Some(new.leader_epoch) {
                return fault("a leader that was neither in sync nor eligible");
            }
            if new.isr_epoch(leader).is_none() || !self.image.is_live(leader) {
                return fault("a leader that is not in sync or does not live");
            }
        }
        self.history.insert((key, new.partition_epoch), new);
        Ok(())
    }

    /// A leader was told that the ISR it wanted is committed.
    pub fn isr_granted(
        &self,
        wanted: &IsrChange,
        leader_epoch: LeaderEpoch,
        partition_epoch: PartitionEpoch,
    ) -> Result<(), String> {
        let key = wanted.key;
        let Some(state) = self.history.get(&(key, partition_epoch)) else {
            return Err(format!(
                "{key}: partition epoch {} was granted and never committed",
                partition_epoch.0
            ));
        };
        let mut asked: Vec<_> =
            wanted.isr.iter().filter(|member| state.replicas.contains(&member.replica)).collect();
        let mut got: Vec<_> = state.isr.iter().collect();
        asked.sort();
        got.sort();
        if state.leader_epoch != leader_epoch || asked != got {
            return Err(format!("{key}: granted {wanted:?}, committed {state:?}"));
        }
        Ok(())
    }

    /// A leader has records up to its high watermark: what was acknowledged must be among them.
    pub fn acknowledge(
        &mut self,
        node: NodeId,
        key: PartitionKey,
        records: &[(LeaderEpoch, u64)],
    ) -> Result<(), String> {
        let known = self.acknowledged.entry(key).or_default();
        let common = known.len().min(records.len());
        if known[..common] != records[..common] {
            return Err(format!("{key}: node {} leads and has other records than were acknowledged", node.0));
        }
        if records.len() > known.len() {
            known.extend_from_slice(&records[common..]);
        }
        Ok(())
    }

    /// A leader's whole log must hold all that was acknowledged before.
    pub fn complete(
        &self,
        node: NodeId,
        key: PartitionKey,
        records: &[(LeaderEpoch, u64)],
    ) -> Result<(), String> {
        let Some(known) = self.acknowledged.get(&key) else { return Ok(()) };
        if records.len() < known.len() || records[..known.len()] != known[..] {
            return Err(format!(
                "{key}: node {} serves and lacks acknowledged records: it has {}, acknowledged are {}",
                node.0,
                records.len(),
                known.len()
            ));
        }
        Ok(())
    }
}
