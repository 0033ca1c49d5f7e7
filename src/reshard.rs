//! A restart with another number of shards: partitions get other owners, their files stay where they are. The old shards
//! have stopped cleanly before; here their checkpoints become those of a new generation, in steps that survive a crash
//! after each: new directories, then `meta` by rename, then the old directories go. Never touches a partition's files.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::Path;

use bytes::Bytes;
use pelton_cluster::image::MetadataImage;
use pelton_cluster::placement;
use pelton_log::{RecoveryError, metadata_of, redistribute};
use pelton_model::NodeId;

use crate::data_dir::{DataDir, Meta, sync_directory};
use crate::failure::Failure;

/// The slot of a checkpoint that [`redistribute`] writes.
const NEW_SLOT: u8 = 1;

/// Both checkpoint slots of one shard.
type Slots = [Option<Bytes>; 2];

/// Redistributes the partitions of `data` over `shards` shards. The shards of its present generation must have stopped
/// cleanly. On an error, or a crash, the directory is as before, or as after.
pub fn reshard(data: &mut DataDir, shards: u16) -> Result<(), Failure> {
    let meta = data
        .meta()
        .cloned()
        .ok_or_else(|| Failure::error("a new data directory has nothing to redistribute"))?;
    let old: Vec<Slots> = (0..meta.shards)
        .map(|shard| read_slots(&data.shard(meta.generation, shard)))
        .collect::<Result<_, _>>()?;
    let new = new_checkpoints(&old, meta.node_id, shards)?;
    switch(data, &meta, &new)
}

/// Checkpoints of the new shards.
fn new_checkpoints(old: &[Slots], node_id: NodeId, shards: u16) -> Result<Vec<Bytes>, Failure> {
    let first = old.first().ok_or_else(|| Failure::corruption("`meta` names no shards"))?;
    let metadata = metadata_of(first).map_err(damaged)?;
    let mut image = MetadataImage::from_snapshot(&metadata).map_err(|error| {
        Failure::corruption(format!("the metadata in the checkpoint is damaged: {error}"))
    })?;
    let records = placement::reshard(&image, node_id, shards);
    let offset = image.applied_offset() + 1;
    image.apply(offset, &records);
    let owner = |key| image.leader(key).map_or(0, |replica| replica.shard.0);
    redistribute(old, shards, &owner, image.snapshot()).map_err(damaged)
}

fn damaged(error: RecoveryError) -> Failure {
    Failure::corruption(error)
}

/// The file-level steps.
fn switch(data: &mut DataDir, meta: &Meta, checkpoints: &[Bytes]) -> Result<(), Failure> {
    let shards = checkpoints.len() as u16;
    let new = Meta { shards, generation: meta.generation + 1, ..meta.clone() };
    // 1. What a crash left of an earlier try. Until `meta` names it, a generation does not exist.
    data.remove_other_generations(meta.generation)?;
    // 2. The new generation, complete and durable.
    data.make_shards(new.generation, shards)?;
    for (shard, checkpoint) in checkpoints.iter().enumerate() {
        let directory = data.shard(new.generation, shard as u16);
        write_checkpoint(&directory, checkpoint).map_err(|error| {
            Failure::error(format!("{}: {error}. Is the disk full?", directory.display()))
        })?;
    }
    // 3. The switch, one rename. 4. The old generation goes; after a crash before this, the next start removes it.
    data.commit(new.clone())?;
    data.remove_other_generations(new.generation)
}

fn read_slots(directory: &Path) -> Result<Slots, Failure> {
    let read = |slot: u8| {
        let path = directory.join(format!("checkpoint.{slot}"));
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(Bytes::from(bytes))),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Failure::error(format!("{}: {error}", path.display()))),
        }
    };
    Ok([read(0)?, read(1)?])
}

fn write_checkpoint(directory: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = File::create(directory.join(format!("checkpoint.{NEW_SLOT}")))?;
    file.write_all(bytes)?;
    file.sync_all()?;
    sync_directory(directory)
}

#[cfg(test)]
mod tests;
