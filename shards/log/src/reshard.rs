//! Redistributes partitions over another number of shards, between two lives: rewrites checkpoints of cleanly stopped
//! shards. Partition files stay where they are; writing the files in an order that survives a crash is the caller's.

use bytes::Bytes;
use pelton_model::PartitionKey;

use crate::checkpoint::{Checkpoint, Slot};
use crate::recovery::REMEDY;
use crate::types::RecoveryError;

/// New first checkpoints (for slot 1, with empty journals), one for each of `shards`. `old` are both slots of every
/// shard of the old generation, each stopped cleanly; `owner` says which new shard gets a partition; `metadata` is the
/// image shard 0 starts from.
///
/// # Errors
/// If an old shard has no valid checkpoint, or was not stopped cleanly (then its journal is still needed).
pub fn redistribute(
    old: &[[Option<Bytes>; 2]],
    shards: u16,
    owner: &dyn Fn(PartitionKey) -> u16,
    metadata: Vec<u8>,
) -> Result<Vec<Bytes>, RecoveryError> {
    let mut new: Vec<Checkpoint> = (0..shards.max(1)).map(|_| blank()).collect();
    for (shard, slots) in old.iter().enumerate() {
        let checkpoint = clean_checkpoint(shard, slots)?;
        for partition in checkpoint.partitions {
            let to = usize::from(owner(partition.key())).min(new.len() - 1);
            if let Some(number) = checkpoint.cuts.get(&partition.key()) {
                new[to].cuts.insert(partition.key(), *number);
            }
            new[to].partitions.push(partition);
        }
        new[0].doomed.extend(checkpoint.doomed);
        let life = checkpoint.incarnation >> 32;
        for checkpoint in &mut new {
            checkpoint.incarnation = checkpoint.incarnation.max(life << 32);
        }
    }
    new[0].metadata = metadata;
    Ok(new.iter().map(Checkpoint::encode).collect())
}

/// The metadata image of a cleanly stopped shard 0, as [`crate::Snapshots::metadata`] gave it.
///
/// # Errors
/// As [`redistribute`].
pub fn metadata_of(slots: &[Option<Bytes>; 2]) -> Result<Vec<u8>, RecoveryError> {
    clean_checkpoint(0, slots).map(|checkpoint| checkpoint.metadata)
}

fn blank() -> Checkpoint {
    Checkpoint { generation: 1, start_sequence: 1, clean: true, ..Checkpoint::default() }
}

fn clean_checkpoint(shard: usize, slots: &[Option<Bytes>; 2]) -> Result<Checkpoint, RecoveryError> {
    let mut newest: Option<Checkpoint> = None;
    for slot in slots.iter().flatten() {
        if let Slot::Valid(checkpoint) = Checkpoint::decode(slot)?
            && newest.as_ref().is_none_or(|other| other.generation < checkpoint.generation)
        {
            newest = Some(*checkpoint);
        }
    }
    match newest {
        Some(checkpoint) if checkpoint.clean => Ok(checkpoint),
        Some(_) => Err(RecoveryError::Corrupt {
            cause: format!("shard {shard} was not stopped cleanly, so its journal is still needed"),
            remedy: "start with the old number of shards and stop again".to_string(),
        }),
        None => Err(RecoveryError::Corrupt {
            cause: format!("shard {shard} has no valid checkpoint"),
            remedy: REMEDY.to_string(),
        }),
    }
}
