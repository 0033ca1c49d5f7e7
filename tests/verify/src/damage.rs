//! A journal that was changed behind the broker's back: it must say so and not start, for what was acknowledged is not there. Then the
//! bytes are put back as they were.

use crate::campaign::Campaign;
use pelton_bench::Outcome;
use pelton_bench::net::NODES;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Bytes of a block, where frames begin.
const BLOCK: usize = 4096;
/// How a frame begins; its body's length, sequence number and what was durable before it lie at these places, little-endian.
pub const MAGIC: &[u8; 8] = b"PLTNJRN\n";
pub const BODY_LENGTH: usize = 16;
pub const SEQUENCE: usize = 32;
pub const DURABLE: usize = 40;
pub const HEADER: usize = 64;
/// Groups between the one that is damaged and the last: the last ones may be torn and nobody would miss them.
const BEFORE_LAST: u64 = 6;

/// The journal of a node's first shard.
pub fn journal_of(data: &Path) -> Outcome<PathBuf> {
    let failed = |error: std::io::Error| format!("{}: {error}", data.display());
    let generations = std::fs::read_dir(data).map_err(failed)?.flatten().map(|entry| entry.path());
    let mut journals: Vec<PathBuf> =
        generations.map(|path| path.join("shard-0/journal")).filter(|path| path.exists()).collect();
    journals.sort();
    journals.pop().ok_or(format!("{}: no journal", data.display()))
}

pub fn number(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).map_or(0, |field| u64::from_le_bytes(field.try_into().unwrap_or_default()))
}

/// A place inside a group that later ones say was on stable storage.
fn place(journal: &[u8]) -> Option<usize> {
    let frames = || {
        let blocks = (0..journal.len() / BLOCK).map(|block| block * BLOCK);
        blocks.filter(|at| journal[*at..].starts_with(MAGIC))
    };
    let last = frames().map(|at| number(journal, at + SEQUENCE)).max()?;
    let durable = frames().map(|at| number(journal, at + DURABLE)).max()?;
    let wanted = last.checked_sub(BEFORE_LAST).filter(|wanted| *wanted <= durable)?;
    let at = frames().find(|at| number(journal, at + SEQUENCE) == wanted)?;
    let body = number(journal, at + BODY_LENGTH) as u32 as usize;
    Some(at + HEADER + body / 2)
}

/// Damages the journal of each node in turn.
pub fn journal(campaign: &mut Campaign) -> Outcome<()> {
    for node in 1..=NODES {
        campaign.cluster.kill(node);
        let path = journal_of(campaign.cluster.data_dir(node))?;
        let failed = |error: std::io::Error| format!("{}: {error}", path.display());
        let file = File::options().read(true).write(true).open(&path).map_err(failed)?;
        let at = place(&std::fs::read(&path).map_err(failed)?).ok_or("no group to damage")?;
        let mut byte = [0];
        file.read_exact_at(&mut byte, at as u64).map_err(failed)?;
        file.write_all_at(&[byte[0] ^ 0x20], at as u64).map_err(failed)?;
        file.sync_all().map_err(failed)?;
        campaign.cluster.start(node)?;
        let deadline = Instant::now() + Duration::from_secs(5);
        let ended = loop {
            match campaign.cluster.ended(node) {
                None if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(20)),
                ended => break ended,
            }
        };
        if ended.is_none() {
            return Err(format!("node {node} started though byte {at} of its journal is not what it wrote"));
        }
        file.write_all_at(&byte, at as u64).map_err(failed)?;
        file.sync_all().map_err(failed)?;
        campaign.cluster.start(node)?;
        campaign.recover()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_is_inside_a_durable_group_that_is_not_among_the_last() {
        let mut journal = vec![0; 16 * BLOCK];
        for group in 0..10u64 {
            let frame = &mut journal[group as usize * BLOCK..];
            frame[..8].copy_from_slice(MAGIC);
            frame[BODY_LENGTH..BODY_LENGTH + 4].copy_from_slice(&100u32.to_le_bytes());
            frame[SEQUENCE..SEQUENCE + 8].copy_from_slice(&(20 + group).to_le_bytes());
            frame[DURABLE..DURABLE + 8].copy_from_slice(&(18 + group).to_le_bytes());
        }
        assert_eq!(place(&journal), Some(3 * BLOCK + HEADER + 50));
        assert_eq!(place(&journal[..4 * BLOCK]), None);
    }
}
