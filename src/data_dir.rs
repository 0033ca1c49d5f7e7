//! The data directory as a whole: whose it is, in which generation, and that one process uses it. Layout:
//! `<data>/meta`, `<data>/lock`, `<data>/g<generation>/shard-<k>/`, `<data>/partitions/`. Never looks inside a journal, a
//! checkpoint or a partition.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use pelton_model::NodeId;
use pelton_wire::messages::KafkaUuid;

use crate::failure::Failure;
pub use meta::Meta;

mod meta;

const META: &str = "meta";
const LOCK: &str = "lock";

/// A data directory that this process holds.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    /// Held as long as this lives.
    _lock: File,
    meta: Option<Meta>,
}

impl DataDir {
    /// Takes hold of `path`, making it if it is missing.
    pub fn open(path: &Path) -> Result<DataDir, Failure> {
        let failed = |what: &str, error: std::io::Error| {
            Failure::error(format!(
                "data directory {}: {what}: {error}. Choose another with --data-dir",
                path.display()
            ))
        };
        fs::create_dir_all(path).map_err(|error| failed("cannot make it", error))?;
        let path = path.canonicalize().map_err(|error| failed("cannot use it", error))?;
        let lock = lock(&path)?;
        let meta = read_meta(&path)?;
        let dir = DataDir { path, _lock: lock, meta };
        match &dir.meta {
            None => dir.check_empty()?,
            Some(meta) => dir.check_shards(meta)?,
        }
        Ok(dir)
    }

    /// The directory, absolute.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it is; none while it is new.
    pub fn meta(&self) -> Option<&Meta> {
        self.meta.as_ref()
    }

    /// Directory of the journals and checkpoints of a generation.
    pub fn generation(&self, generation: u32) -> PathBuf {
        self.path.join(format!("g{generation}"))
    }

    /// Directory of one shard's journal and checkpoints.
    pub fn shard(&self, generation: u32, shard: u16) -> PathBuf {
        self.generation(generation).join(format!("shard-{shard}"))
    }

    /// Directory of the segments of all partitions.
    pub fn partitions(&self) -> PathBuf {
        self.path.join("partitions")
    }

    /// Refuses a directory of another cluster or node than asked for.
    pub fn check_owner(&self, cluster_id: Option<&str>, node_id: Option<NodeId>) -> Result<(), Failure> {
        let Some(meta) = &self.meta else { return Ok(()) };
        let path = self.path.display();
        if let Some(asked) = cluster_id
            && asked != meta.cluster_id
        {
            return Err(Failure::error(format!(
                "data directory {path} belongs to cluster {}, not {asked}. Leave --cluster-id out, or choose another \
                 --data-dir",
                meta.cluster_id
            )));
        }
        if let Some(asked) = node_id
            && asked != meta.node_id
        {
            return Err(Failure::error(format!(
                "data directory {path} belongs to node {}, not {}. Leave --node-id out, or choose another --data-dir",
                meta.node_id.0, asked.0
            )));
        }
        Ok(())
    }

    /// Refuses to start the directory of a single node as a part of a cluster, and the other way round: the one would not
    /// find the other's records.
    pub fn check_kind(&self, in_cluster: bool) -> Result<(), Failure> {
        let Some(meta) = &self.meta else { return Ok(()) };
        let path = self.path.display();
        match (&meta.founders, in_cluster) {
            (None, true) => Err(Failure::error(format!(
                "data directory {path} holds the records of a single node, and a cluster cannot take them over yet. Start it \
                 without --cluster, or give the node of the cluster another --data-dir"
            ))),
            (Some(founders), false) => {
                let founders: Vec<String> =
                    founders.iter().map(|node| format!("{}@HOST:PORT", node.0)).collect();
                Err(Failure::error(format!(
                    "data directory {path} belongs to node {} of a cluster. Start it with --node-id {} --cluster {}, or choose \
                     another --data-dir",
                    meta.node_id.0,
                    meta.node_id.0,
                    founders.join(",")
                )))
            }
            _ => Ok(()),
        }
    }

    /// Makes `meta` what the directory is, durably: after a crash it holds the old one or the new one. The directories of
    /// the new shards have to exist.
    pub fn commit(&mut self, meta: Meta) -> Result<(), Failure> {
        self.try_commit(&meta).map_err(|error| {
            Failure::error(format!("{}: {error}. Is the disk full?", self.path.join(META).display()))
        })?;
        self.meta = Some(meta);
        Ok(())
    }

    /// Counts this start, and gives a directory of a program before format 2 its id. Both are durable when this returns, and
    /// nothing may be said to other nodes before: that a node comes with a higher count is how they know that its former
    /// process has ended (rule L6).
    pub fn begin_life(&mut self) -> Result<(), Failure> {
        let Some(meta) = self.meta.clone() else { return Ok(()) };
        let directory_id = meta.directory_id.map_or_else(new_directory_id, Ok)?;
        // What another boot may have taken is taken until the cluster has heard of it.
        let boot = meta.founders.as_ref().map(|_| meta.boot.clone().unwrap_or_else(boot));
        self.commit(Meta { directory_id: Some(directory_id), start: meta.start + 1, boot, ..meta })
    }

    /// The cluster knows this life: from here on this boot of the machine counts.
    pub fn be_known(&mut self) -> Result<(), Failure> {
        match self.meta.clone() {
            Some(meta) if meta.boot.as_ref().is_some_and(|last| *last != boot()) => {
                self.commit(Meta { boot: Some(boot()), ..meta })
            }
            _ => Ok(()),
        }
    }

    /// Everything is on stable storage: a cluster need not take this node for one that the power took something from.
    pub fn end_life(&mut self) -> Result<(), Failure> {
        match self.meta.clone() {
            Some(meta) if meta.boot.is_some() => self.commit(Meta { boot: None, ..meta }),
            _ => Ok(()),
        }
    }

    /// What the last process wrote and did not flush may be gone: the machine has started anew since, or it is another one.
    pub fn is_lossy(&self) -> bool {
        let last = self.meta.as_ref().and_then(|meta| meta.boot.as_ref());
        last.is_some_and(|last| *last != boot() || last == BOOT_UNKNOWN)
    }

    fn try_commit(&self, meta: &Meta) -> std::io::Result<()> {
        let (new, path) = (self.path.join("meta.new"), self.path.join(META));
        let mut file = File::create(&new)?;
        file.write_all(meta.encode().as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, &path)?;
        sync_directory(&self.path)
    }

    /// Makes the directories of the shards of a generation, durably.
    pub fn make_shards(&self, generation: u32, shards: u16) -> Result<(), Failure> {
        let make = || -> std::io::Result<()> {
            for shard in 0..shards {
                fs::create_dir_all(self.shard(generation, shard))?;
            }
            fs::create_dir_all(self.partitions())?;
            sync_directory(&self.generation(generation))?;
            sync_directory(&self.path)
        };
        make().map_err(|error| Failure::error(format!("data directory {}: {error}", self.path.display())))
    }

    /// Removes what a crash left of generations other than `keep`.
    pub fn remove_other_generations(&self, keep: u32) -> Result<(), Failure> {
        for generation in self.generations()? {
            if generation != keep {
                let path = self.generation(generation);
                fs::remove_dir_all(&path)
                    .map_err(|error| Failure::error(format!("{}: {error}", path.display())))?;
            }
        }
        Ok(())
    }

    fn generations(&self) -> Result<Vec<u32>, Failure> {
        let failed = |error: std::io::Error| {
            Failure::error(format!("data directory {}: {error}", self.path.display()))
        };
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            found.extend(name.to_str().and_then(|name| name.strip_prefix('g')?.parse::<u32>().ok()));
        }
        Ok(found)
    }

    /// Without `meta` there must be no data: it may have been lost, and starting anew would hide that.
    fn check_empty(&self) -> Result<(), Failure> {
        let path = self.path.display();
        if self.path.join("meta.properties").exists() {
            return Err(Failure::error(format!(
                "{path} is a data directory of Apache Kafka. Choose another --data-dir"
            )));
        }
        let partitions = fs::read_dir(self.partitions()).is_ok_and(|mut entries| entries.next().is_some());
        if partitions {
            return Err(Failure::corruption(format!(
                "data directory {path} holds partitions but its file `meta` is missing. Restore it from a backup, or move \
                 the directory away to start empty"
            )));
        }
        Ok(())
    }

    fn check_shards(&self, meta: &Meta) -> Result<(), Failure> {
        for shard in 0..meta.shards {
            let path = self.shard(meta.generation, shard);
            if !path.is_dir() {
                return Err(Failure::corruption(format!(
                    "{} is missing: the records of shard {shard} that were not yet in segments were in it. Restore the \
                     data directory from a backup",
                    path.display()
                )));
            }
        }
        Ok(())
    }
}

/// The boot of a machine that does not say.
const BOOT_UNKNOWN: &str = "unknown";

/// An id that the machine has since it started.
pub fn boot() -> String {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let id: String = id.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').take(64).collect();
    if id.is_empty() { BOOT_UNKNOWN.to_string() } else { id }
}

/// An id no other data directory has.
pub fn new_directory_id() -> Result<KafkaUuid, Failure> {
    KafkaUuid::random().map_err(|error| Failure::error(format!("no random bytes: {error}")))
}

/// Makes the names in a directory durable.
pub fn sync_directory(path: &Path) -> std::io::Result<()> {
    File::open(path)?.sync_all()
}

fn lock(path: &Path) -> Result<File, Failure> {
    let lock_path = path.join(LOCK);
    let failed = |error: std::io::Error| {
        Failure::error(format!("{}: {error}. Give this user the right to write there", lock_path.display()))
    };
    let mut options = OpenOptions::new();
    let mut file =
        options.read(true).write(true).create(true).truncate(false).open(&lock_path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => {
            // For people only; the lock itself is the kernel's and ends with the process.
            let written = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
            written.map_err(failed)?;
            Ok(file)
        }
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            let _ = file.read_to_string(&mut holder);
            let holder = holder.trim();
            let holder = if holder.is_empty() { String::new() } else { format!(" (process {holder})") };
            Err(Failure::error(format!(
                "data directory {} is in use by another broker{holder}. Stop it, or choose another --data-dir",
                path.display()
            )))
        }
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}

fn read_meta(path: &Path) -> Result<Option<Meta>, Failure> {
    let path = path.join(META);
    match fs::read_to_string(&path) {
        Ok(text) => Meta::decode(&text).map(Some).map_err(|problem| {
            Failure::corruption(format!("{}: {problem}. Restore it from a backup", path.display()))
        }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Failure::error(format!("{}: {error}", path.display()))),
    }
}

#[cfg(test)]
mod tests;
