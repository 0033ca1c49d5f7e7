//! A node's logs read alone, while no broker runs: of Pelton through the recovery of its own log crate, which here may read files
//! and nothing else; of Kafka from its segment files. What is found must be the clients' records; whose log it is says its
//! first record.

use crate::connection::Connection;
use crate::directory::{self, Directory};
use crate::stamps::Stamps;
use bytes::Bytes;
use pelton_bench::{Outcome, batch, frames};
use pelton_crash::payload;
use pelton_crash::verify::{Found, Verdict};
use pelton_log::disk::{DiskDone, DiskEffect, DiskError, FileKind, SegmentFile};
use pelton_log::{
    DiskImage, PartitionSlot, Progress, ReadPlan, ReadStart, SegmentReader, Storage, StorageConfig,
};
use pelton_model::{Now, Offset};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Bytes of one read.
const PIECE: usize = 1 << 20;

/// One partition's log.
#[derive(Clone, Debug)]
pub struct Log {
    /// Base offset and checksum over all bytes of each batch, in order.
    pub batches: Vec<(i64, u32)>,
    /// What leaders wrote into the batches' headers, and producers.
    pub stamps: Stamps,
    /// Where each batch of the clients was found.
    pub found: Found,
    /// What was wrong with it by itself.
    pub verdict: Verdict,
}

impl Default for Log {
    fn default() -> Log {
        Log::starting_at(0)
    }
}

impl Log {
    /// An empty one.
    pub fn starting_at(offset: i64) -> Log {
        let verdict = Verdict { defers: true, ..Verdict::default() };
        let (batches, stamps) = (Vec::new(), Stamps::default());
        Log { batches, stamps, found: Found::starting_at(offset), verdict }
    }

    /// Takes the next batches of the log.
    pub fn add(&mut self, partition: i32, bytes: &[u8]) -> Outcome<()> {
        let mut rest = bytes;
        loop {
            let before = rest;
            let Some(batch) = batch::take(&mut rest)? else {
                return if rest.is_empty() {
                    Ok(())
                } else {
                    Err(format!("{} bytes that are no batch", rest.len()))
                };
            };
            let bytes = &before[..before.len() - rest.len()];
            self.batches.push((batch.base_offset, batch::crc32c(bytes)));
            self.stamps.add(bytes);
            self.found.add(partition, &batch, &mut self.verdict)?;
        }
    }

    /// The offset behind the last batch.
    pub fn end(&self) -> i64 {
        self.found.next_offset()
    }

    /// The batches below `end`.
    pub fn below(&self, end: i64) -> &[(i64, u32)] {
        &self.batches[..self.batches.partition_point(|(base, _)| *base < end)]
    }
}

/// The logs of the clients' topic on one node, by partition; `owner` tells whose partition a producer writes to.
pub type Logs = BTreeMap<i32, Log>;

/// Whose partition the first record of a log says it is; none if it is not of these clients.
fn claimed(bytes: &[u8], owner: &dyn Fn(u32) -> Option<i32>) -> Option<i32> {
    let batch = batch::take(&mut &bytes[..]).ok()??;
    let values = batch.values().ok()?;
    owner(payload::read(values.first()?)?.producer)
}

/// Reads all logs of a node of Pelton.
pub fn pelton(data: &Path, owner: &dyn Fn(u32) -> Option<i32>) -> Outcome<Logs> {
    let meta = std::fs::read_to_string(data.join("meta"));
    let meta = meta.map_err(|error| format!("{}: {error}", data.join("meta").display()))?;
    let number = |name: &str| -> Outcome<u32> {
        let line = meta.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        line.and_then(|text| text.parse().ok()).ok_or(format!("meta does not say {name}"))
    };
    let (generation, shards) = (number("generation")?, number("shards")?);
    let mut logs = Logs::new();
    for shard in 0..shards {
        let dir = data.join(format!("g{generation}/shard-{shard}"));
        read_shard(&dir, &dir.join("partitions"), owner, &mut logs)
            .map_err(|error| format!("shard {shard}: {error}"))?;
    }
    Ok(logs)
}

fn whole(path: &Path) -> Outcome<Option<Bytes>> {
    match std::fs::read(path) {
        Ok(bytes) if bytes.is_empty() => Ok(None),
        Ok(bytes) => Ok(Some(Bytes::from(bytes))),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("{}: {error}", path.display())),
    }
}

fn path_of(root: &Path, file: SegmentFile) -> PathBuf {
    let extension = match file.kind {
        FileKind::Log => "log",
        FileKind::Index => "index",
    };
    let name = match file.generation {
        0 => format!("{:020}.{extension}", file.base_offset.0),
        generation => format!("{:020}-{generation:016x}.{extension}", file.base_offset.0),
    };
    root.join(file.partition.to_string()).join(name)
}

fn read_range(root: &Path, file: SegmentFile, position: u64, length: usize) -> Outcome<Option<Bytes>> {
    let path = path_of(root, file);
    let failed = |error: std::io::Error| format!("{}: {error}", path.display());
    let open = match File::open(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        open => open.map_err(failed)?,
    };
    let left = open.metadata().map_err(failed)?.len().saturating_sub(position);
    let mut bytes = vec![0; length.min(left as usize)];
    open.read_exact_at(&mut bytes, position).map_err(failed)?;
    Ok(Some(Bytes::from(bytes)))
}

/// A shard's log, open for reading only.
struct Shard {
    storage: Storage,
    root: PathBuf,
}

fn read_shard(dir: &Path, root: &Path, owner: &dyn Fn(u32) -> Option<i32>, logs: &mut Logs) -> Outcome<()> {
    let journal = whole(&dir.join("journal"))?.unwrap_or_default();
    let config = StorageConfig { journal_bytes: journal.len() as u64, ..StorageConfig::default() };
    let checkpoints = [whole(&dir.join("checkpoint.0"))?, whole(&dir.join("checkpoint.1"))?];
    let reader_root = root.to_path_buf();
    let segments =
        SegmentReader::new(move |file, position, length| read_range(&reader_root, file, position, length));
    let image = DiskImage { checkpoints, journal, segments };
    let (storage, recovered) =
        Storage::recover(config, image, Now::default()).map_err(|error| error.to_string())?;
    let mut shard = Shard { storage, root: root.to_path_buf() };
    for partition in recovered.partitions {
        let named = |error| format!("log {}: {error}", partition.key);
        let (start, end) = (partition.log_start_offset, partition.log_end_offset);
        let first = shard.read(partition.slot, start, end).map_err(named)?;
        let Some(number) = claimed(&first, owner) else { continue };
        if logs.contains_key(&number) {
            return Err(format!("log {}: a second log of partition {number}", partition.key));
        }
        let mut log = Log::starting_at(start.0);
        log.add(number, &first).map_err(named)?;
        while log.end() < end.0 {
            let from = log.end();
            let bytes = shard.read(partition.slot, Offset(from), end).map_err(named)?;
            log.add(number, &bytes).map_err(named)?;
            if log.end() == from {
                return Err(named(format!("nothing at offset {from}, though it ends at {}", end.0)));
            }
        }
        logs.insert(number, log);
    }
    Ok(())
}

impl Shard {
    /// Whole batches from `offset` on, some of those before `end`.
    fn read(&mut self, slot: PartitionSlot, offset: Offset, end: Offset) -> Outcome<Vec<u8>> {
        let mut effects = Vec::new();
        let started = self.storage.start_read_of_all(slot, offset, PIECE, end, true, true, &mut effects);
        let token = match started.map_err(|error| format!("offset {}: {error:?}", offset.0))? {
            ReadStart::Ready(plan) => return self.bytes(plan),
            ReadStart::Pending(token) => token,
        };
        let mut progress = Progress::default();
        while let Some(effect) = effects.pop() {
            let ticket = effect.ticket();
            let result = match effect {
                DiskEffect::SegmentRead { file, position, length, .. } => {
                    read_range(&self.root, file, position, length)
                        .map(Option::unwrap_or_default)
                        .map_err(|text| DiskError { no_space: false, text })
                }
                _ => Err(DiskError { no_space: false, text: "nothing may be written here".into() }),
            };
            self.storage.handle(Now::default(), DiskDone { ticket, result }, &mut effects, &mut progress);
            if let Some(at) = progress.reads.iter().position(|(done, _)| *done == token) {
                let (_, plan) = progress.reads.swap_remove(at);
                return self.bytes(plan.map_err(|error| format!("offset {}: {error}", offset.0))?);
            }
        }
        Err(format!("offset {}: the read came to no end", offset.0))
    }

    fn bytes(&self, plan: ReadPlan) -> Outcome<Vec<u8>> {
        match plan {
            ReadPlan::Empty => Ok(Vec::new()),
            ReadPlan::Memory { batches } => Ok(batches.concat()),
            ReadPlan::File { file, position, length, .. } => {
                let bytes = read_range(&self.root, file, position, length)?.unwrap_or_default();
                if bytes.len() == length {
                    Ok(bytes.to_vec())
                } else {
                    Err(format!(
                        "{}: ends at {}",
                        path_of(&self.root, file).display(),
                        position + bytes.len() as u64
                    ))
                }
            }
        }
    }
}

/// Reads the logs of a topic on a node of Kafka.
pub fn kafka(data: &Path, topic: &str) -> Outcome<Logs> {
    let root = data.join("logs");
    let failed = |error: std::io::Error| format!("{}: {error}", root.display());
    let mut logs = Logs::new();
    for entry in std::fs::read_dir(&root).map_err(failed)?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(partition) = name.strip_prefix(topic).and_then(|rest| rest.strip_prefix('-')?.parse().ok())
        else {
            continue;
        };
        let files = std::fs::read_dir(entry.path()).map_err(failed)?.flatten().map(|file| file.path());
        let mut files: Vec<PathBuf> =
            files.filter(|path| path.extension().is_some_and(|e| e == "log")).collect();
        files.sort_unstable();
        let mut log = Log::default();
        for file in files {
            let bytes = whole(&file)?.unwrap_or_default();
            log.add(partition, &bytes).map_err(|error| format!("{}: {error}", file.display()))?;
        }
        logs.insert(partition, log);
    }
    Ok(logs)
}

/// A leader that is new, or not one any more, is asked again for this long.
const PATIENCE: Duration = Duration::from_secs(30);

/// Reads a partition from whoever leads it, up to its end.
pub fn served(directory: &Directory, partition: i32) -> Outcome<Log> {
    let deadline = Instant::now() + PATIENCE;
    let mut log = Log::default();
    loop {
        match read_served(directory, partition, &mut log) {
            Ok(()) => return Ok(log),
            Err(error) if Instant::now() > deadline => return Err(error),
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

/// Reads on to the end, which is what ListOffsets says: a leader that has just become one may have an older high watermark,
/// and then gives no answer to that (rule R8), while it gives fewer records to a Fetch.
fn read_served(directory: &Directory, partition: i32, log: &mut Log) -> Outcome<()> {
    let (topic, wait) = (&directory.topic, Duration::from_secs(10));
    let leader = directory.leader(partition).ok_or("a partition has no leader")?;
    let mut connection = Connection::open(&leader.address)?;
    connection.call(0, &directory::request(0, topic), wait)?;
    let (error, end) =
        frames::listed_offset(&connection.call(1, &frames::list_offset(1, topic, partition, -1), wait)?)?;
    if error != 0 {
        return Err(format!("ListOffsets of {topic}-{partition}: error code {error}"));
    }
    for id in 2.. {
        if log.end() >= end {
            break;
        }
        let frame = frames::fetch(id, topic, partition, log.end(), 4 << 20, 100);
        let answer = connection.call(id, &frame, wait)?;
        let fetched = frames::fetched(&answer)?;
        if fetched.error != 0 {
            return Err(format!(
                "Fetch of {topic}-{partition} at {}: error code {}",
                log.end(),
                fetched.error
            ));
        }
        // The last batch of an answer may be cut short.
        let mut rest = fetched.records;
        while batch::take(&mut rest)?.is_some() {}
        let whole = fetched.records.len() - rest.len();
        if whole == 0 {
            return Err(format!(
                "{topic}-{partition}: no batch at offset {} although it ends at {end}",
                log.end()
            ));
        }
        log.add(partition, &fetched.records[..whole])?;
    }
    Ok(())
}
