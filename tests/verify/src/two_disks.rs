//! Segments on a file system of their own, which nobody else's flush reaches: a compacted segment is on stable storage only if the broker
//! has said so to that disk before a checkpoint, on the other, names it in the place of those it was made from.

use crate::campaign::Campaign;
use crate::own_topic::{self, PATIENCE};
use crate::power_disk::PowerDisk;
use crate::small_disk::run as command;
use crate::{damage, power};
use pelton_bench::client::Client;
use pelton_bench::net::NODES;
use pelton_bench::{Outcome, batch, load};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const TOPIC: &str = "swapped";
/// Nothing is compacted while it is still being written: what the writing flushes must come before.
const CONFIGS: &[(&str, &str)] = &[
    ("cleanup.policy", "compact"),
    ("segment.bytes", "1048576"),
    ("min.cleanable.dirty.ratio", "0.01"),
    ("min.compaction.lag.ms", "3000"),
];
/// Each batch goes straight to its segment.
const VALUE_BYTES: usize = 300_000;
const BATCHES: usize = 24;
/// Bytes of a segment in which its first key is.
const HEAD: u64 = 200;
/// The first record, whose key comes once: it stays, in the segment that compaction makes.
const ONLY: &[u8] = b"only once";

fn failed(path: &Path) -> impl Fn(std::io::Error) -> String {
    let text = path.display().to_string();
    move |error| format!("{text}: {error}")
}

/// Where a node's segments are.
fn partitions_of(campaign: &Campaign, node: usize) -> Outcome<PathBuf> {
    Ok(damage::journal_of(campaign.cluster.data_dir(node))?.with_file_name("partitions"))
}

/// What is in a directory comes to another one.
fn copy_all(from: &Path, to: &Path) -> Outcome<()> {
    command("cp", &["-a", &format!("{}/.", from.display()), &to.to_string_lossy()])
}

/// Moves a node's segments to a disk of their own, whose file system writes nothing by itself.
fn apart(campaign: &mut Campaign, node: usize) -> Outcome<PowerDisk> {
    campaign.cluster.kill(node);
    let disk = PowerDisk::new(&campaign.cluster.node_dir(node).join("apart"), node as u64)?;
    command("mount", &["-o", "remount,commit=900", &disk.path.to_string_lossy()])?;
    let (here, there) = (partitions_of(campaign, node)?, disk.path.join("partitions"));
    std::fs::create_dir(&there).map_err(failed(&there))?;
    copy_all(&here, &there)?;
    command("sync", &["-f", &there.to_string_lossy()])?;
    std::fs::remove_dir_all(&here)
        .and_then(|()| std::os::unix::fs::symlink(&there, &here))
        .map_err(failed(&here))?;
    campaign.cluster.start(node)?;
    campaign.recover()?;
    Ok(disk)
}

/// And back: whoever reads the files at the end has one disk a node.
fn together(campaign: &mut Campaign, node: usize, disk: PowerDisk) -> Outcome<()> {
    campaign.cluster.kill(node);
    let here = partitions_of(campaign, node)?;
    std::fs::remove_file(&here).and_then(|()| std::fs::create_dir(&here)).map_err(failed(&here))?;
    copy_all(&disk.path.join("partitions"), &here)?;
    drop(disk);
    campaign.cluster.start(node)?;
    campaign.recover()
}

fn append(client: &mut Client, partition: i32, key: &[u8]) -> Outcome<()> {
    let value = vec![7; VALUE_BYTES];
    let bytes = batch::build_keyed([(Some(key), Some(&value[..]))].into_iter(), load::now_ms());
    own_topic::append(client, TOPIC, partition, &bytes).map(drop)
}

/// Reads the first batch that is left, from offset 0 on: whether its first record is the one that must stay.
fn starts_with_only(campaign: &Campaign, node: usize, partition: i32) -> Outcome<bool> {
    let mut client = own_topic::leader(campaign, node, TOPIC, partition)?;
    let fetched = client.fetch(TOPIC, partition, 0, 1 << 20)?;
    if fetched.error != 0 {
        return Err(format!("Fetch of {TOPIC}-{partition} at 0: error code {}", fetched.error));
    }
    let mut rest = fetched.records;
    let first = batch::take_compacted(&mut rest)?.ok_or(format!("{TOPIC}-{partition}: nothing at 0"))?;
    Ok(first.records()?.iter().any(|(offset, key, _)| *offset == 0 && *key == Some(ONLY)))
}

/// Whether the segment is there that the first record was written to. The one that compaction makes of it has another name.
fn is_first_there(root: &Path) -> Outcome<bool> {
    for directory in std::fs::read_dir(root).map_err(failed(root))?.flatten() {
        let path = directory.path().join("00000000000000000000.log");
        let mut head = Vec::new();
        if let Ok(file) = File::open(&path) {
            file.take(HEAD).read_to_end(&mut head).map_err(failed(&path))?;
        }
        if head.windows(ONLY.len()).any(|bytes| bytes == ONLY) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn one(campaign: &mut Campaign, disks: &mut [PowerDisk], node: usize) -> Outcome<()> {
    let mut disk = apart(campaign, node)?;
    let partition = own_topic::led_by(campaign, node, TOPIC)?;
    let mut client = own_topic::leader(campaign, node, TOPIC, partition)?;
    append(&mut client, partition, ONLY)?;
    for number in 0..BATCHES {
        append(&mut client, partition, [&b"a"[..], b"b"][number % 2])?;
    }
    let (root, deadline) = (disk.path.join("partitions"), Instant::now() + PATIENCE);
    if !is_first_there(&root)? {
        return Err(format!("{TOPIC}-{partition} was compacted at once, or is not in {}", root.display()));
    }
    // What was compacted goes when a checkpoint that does not name it is durable.
    while is_first_there(&root)? {
        if Instant::now() > deadline {
            return Err(format!("{TOPIC}-{partition} was not compacted within {PATIENCE:?}"));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    disk.cut_wholly()?;
    power::take_all(campaign, disks, &[node])?;
    disk.restore()?;
    campaign.cluster.start(node)?;
    std::thread::sleep(Duration::from_secs(2));
    campaign.recover()?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        match starts_with_only(campaign, node, partition) {
            Ok(true) => break,
            found if Instant::now() > deadline => {
                return Err(format!("{TOPIC}-{partition} has lost the record at 0: {found:?}"));
            }
            _ => std::thread::sleep(Duration::from_millis(100)),
        }
    }
    together(campaign, node, disk)
}

/// Each node in turn.
pub fn run(campaign: &mut Campaign, disks: &mut [PowerDisk]) -> Outcome<()> {
    own_topic::create_spread(campaign, TOPIC, 1, CONFIGS)?;
    (1..=NODES).try_for_each(|node| one(campaign, disks, node))?;
    own_topic::forget(campaign, &[TOPIC])
}
