//! A journal as a power cut may leave it: one group that was never flushed is missing, and those behind it, not flushed either, are
//! there. The next life writes over the missing one and no further, and is killed: what lies behind its last group has the right number
//! and a right checksum, and is of the life before. It must not be taken for more of the log.

use crate::campaign::Campaign;
use crate::own_topic::{self, PATIENCE};
use crate::{damage, power};
use pelton_bench::net::NODES;
use pelton_bench::{Outcome, batch, load};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// One replica, never flushed by itself: what of it a power cut takes was promised to nobody.
const TOPIC: &str = "one-life";
const CONFIGS: &[(&str, &str)] = &[("flush.messages", "9223372036854775807")];
/// Batches that are written, each a group of its own.
const BATCHES: usize = 600;
/// So many groups of them, one behind the other, are enough for what the next life may write before it is killed.
const RUN: usize = 40;
/// Groups of a node do not always come to lie as they must.
const TRIES: usize = 12;
/// Bytes of a block, and where in a frame there are: number of entries, life, number, what was flushed before.
const BLOCK: usize = 4096;
const ENTRIES: usize = 20;
const LIFE: usize = 24;

/// A group that the journal has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Frame {
    at: usize,
    blocks: usize,
    life: u64,
    sequence: u64,
    durable: u64,
    /// Nothing but a batch of ours.
    ours: bool,
}

fn frames(journal: &[u8]) -> Vec<Frame> {
    let starts = (0..journal.len() / BLOCK).map(|block| block * BLOCK);
    let starts = starts.filter(|at| journal[*at..].starts_with(damage::MAGIC));
    starts
        .map(|at| {
            let field = |place: usize| damage::number(journal, at + place);
            let blocks = (damage::HEADER + field(damage::BODY_LENGTH) as u32 as usize).div_ceil(BLOCK);
            let block = &journal[at..at + BLOCK];
            let named = block.windows(TOPIC.len()).any(|bytes| bytes == TOPIC.as_bytes());
            Frame {
                at,
                blocks,
                life: field(LIFE),
                sequence: field(damage::SEQUENCE),
                durable: field(damage::DURABLE),
                ours: named && field(ENTRIES) as u32 == 1,
            }
        })
        .collect()
}

/// The groups of the last life from the first on that nobody knows to be flushed, each in one block right behind the one before. The
/// last is one of ours: had any before it been flushed by itself, its header would say so.
fn unflushed(mut frames: Vec<Frame>) -> Vec<Frame> {
    let life = frames.iter().map(|frame| frame.life).max();
    frames.retain(|frame| Some(frame.life) == life);
    frames.sort_by_key(|frame| frame.sequence);
    let durable = frames.iter().map(|frame| frame.durable).max().unwrap_or(0);
    let mut run: Vec<Frame> = Vec::new();
    for frame in frames.into_iter().rev() {
        let next =
            run.last().is_none_or(|next| (next.at, next.sequence) == (frame.at + BLOCK, frame.sequence + 1));
        if frame.blocks != 1 || frame.sequence <= durable || !next || (run.is_empty() && !frame.ours) {
            break;
        }
        run.push(frame);
    }
    run.reverse();
    run
}

/// Whether a group of an earlier life lies where the next of the last one would.
fn is_followed(frames: &[Frame], life_before: u64) -> bool {
    let newest = frames.iter().map(|frame| frame.life).max();
    let last = frames.iter().filter(|frame| Some(frame.life) == newest).max_by_key(|frame| frame.sequence);
    last.filter(|last| last.life != life_before).is_some_and(|last| {
        frames.iter().any(|frame| {
            frame.at == last.at + last.blocks * BLOCK
                && (frame.life, frame.sequence) == (life_before, last.sequence + 1)
        })
    })
}

fn read(path: &Path) -> Outcome<Vec<Frame>> {
    let bytes = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(frames(&bytes))
}

fn write(campaign: &Campaign, node: usize) -> Outcome<()> {
    let partition = own_topic::led_by(campaign, node, TOPIC)?;
    let mut client = own_topic::leader(campaign, node, TOPIC, partition)?;
    for _ in 0..BATCHES {
        let bytes = batch::build([TOPIC.as_bytes()].into_iter(), load::now_ms());
        own_topic::append(&mut client, TOPIC, partition, &bytes)?;
    }
    Ok(())
}

/// Brings a node's journal to where it must be; false: its groups did not come to lie so. The node does not run then.
fn prepare(campaign: &mut Campaign, node: usize) -> Outcome<bool> {
    write(campaign, node)?;
    campaign.cluster.kill(node);
    let path = damage::journal_of(campaign.cluster.data_dir(node))?;
    let run = unflushed(read(&path)?);
    let Some(first) = run.first().filter(|_| run.len() >= RUN) else { return Ok(false) };
    let failed = |error: std::io::Error| format!("{}: {error}", path.display());
    let file = File::options().write(true).open(&path).map_err(failed)?;
    file.write_all_at(&[0; BLOCK], first.at as u64).and_then(|()| file.sync_all()).map_err(failed)?;
    power::boot_anew(campaign.cluster.data_dir(node))?;
    campaign.cluster.start(node)?;
    let deadline = Instant::now() + PATIENCE;
    let written =
        |frames: &[Frame]| frames.iter().any(|frame| frame.at == first.at && frame.life > first.life);
    while !written(&read(&path)?) {
        if Instant::now() > deadline {
            return Err(format!("node {node} has written nothing {PATIENCE:?} after a start"));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    campaign.cluster.kill(node);
    Ok(is_followed(&read(&path)?, first.life))
}

/// Each node in turn.
pub fn run(campaign: &mut Campaign) -> Outcome<()> {
    own_topic::create_spread(campaign, TOPIC, 1, CONFIGS)?;
    for node in 1..=NODES {
        let mut tries = 0;
        while !prepare(campaign, node)? {
            tries += 1;
            if tries == TRIES {
                return Err(format!(
                    "{TRIES} times no group of an earlier life lay behind node {node}'s last"
                ));
            }
            campaign.cluster.start(node)?;
            campaign.recover()?;
        }
        campaign.cluster.start(node)?;
        std::thread::sleep(Duration::from_secs(2));
        campaign.recover()?;
    }
    own_topic::forget(campaign, &[TOPIC])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(block: usize, life: u64, sequence: u64, durable: u64) -> Frame {
        Frame { at: block * BLOCK, blocks: 1, life, sequence, durable, ours: true }
    }

    #[test]
    fn the_run_begins_behind_what_is_flushed_and_has_no_hole() {
        let mut all: Vec<Frame> = (0..10).map(|n| frame(n, 7, 20 + n as u64, 22)).collect();
        assert_eq!(unflushed(all.clone()), all[3..]);
        all[5].blocks = 2;
        assert_eq!(unflushed(all.clone()), all[6..]);
        all[8].at += BLOCK;
        assert_eq!(unflushed(all.clone()), all[9..]);
        all[9].ours = false;
        assert_eq!(unflushed(all), []);
    }

    #[test]
    fn an_old_group_behind_the_last_is_seen() {
        let old = [frame(4, 7, 24, 0), frame(5, 7, 25, 0)];
        assert!(is_followed(&[frame(3, 9, 23, 0), old[0], old[1]], 7));
        assert!(!is_followed(&[frame(3, 9, 22, 0), old[0], old[1]], 7));
        assert!(!is_followed(&[Frame { blocks: 2, ..frame(3, 9, 23, 0) }, old[1]], 7));
        assert!(!is_followed(&old, 7));
    }

    #[test]
    fn frames_are_found_in_a_journal() {
        let mut journal = vec![0; 4 * BLOCK];
        let frame = &mut journal[BLOCK..];
        frame[..8].copy_from_slice(damage::MAGIC);
        frame[damage::BODY_LENGTH..damage::BODY_LENGTH + 4].copy_from_slice(&100u32.to_le_bytes());
        frame[ENTRIES] = 1;
        frame[LIFE] = 7;
        frame[damage::SEQUENCE] = 23;
        frame[100..100 + TOPIC.len()].copy_from_slice(TOPIC.as_bytes());
        assert_eq!(frames(&journal), [self::frame(1, 7, 23, 0)]);
    }
}
