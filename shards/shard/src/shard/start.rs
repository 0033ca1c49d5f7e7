//! How a shard starts: from what is on its disk.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use pelton_cluster::image::MetadataImage;
use pelton_log::{DiskImage, Progress, Storage, StorageConfig};
use pelton_model::{BrokerConfig, Now, Prng, ShardId};

use super::{Shard, StartError};
use crate::acks::Acks;
use crate::answers::Answers;
use crate::connection::ReceiveBudget;
use crate::connections::Connections;
use crate::control::{CONTROLLER, Control};
use crate::effect::{Effect, LogLevel};
use crate::fetch_session::FetchSessions;
use crate::fetching::Fetches;
use crate::gather::Gather;
use crate::groups::Groups;
use crate::partitions::Partitions;

/// Requests arriving at one time may take this much memory, bytes (`queued.max.request.bytes`).
const RECEIVE_BYTES_MAX: usize = 256 * 1024 * 1024;

impl Shard {
    /// A shard that starts from what is on its disk. `seed` makes session and topic ids differ between runs.
    pub fn new(
        config: Arc<BrokerConfig>,
        id: ShardId,
        image: DiskImage,
        seed: u64,
        now: Now,
        out: &mut Vec<Effect>,
    ) -> Result<Shard, StartError> {
        let storage = storage_config(&config);
        Shard::with_storage(config, id, storage, image, seed, now, out)
    }

    /// As `new`, with a fault on purpose.
    #[cfg(feature = "sabotage")]
    pub fn with_sabotage(
        config: Arc<BrokerConfig>,
        id: ShardId,
        image: DiskImage,
        seed: u64,
        now: Now,
        sabotage: Option<crate::Sabotage>,
        out: &mut Vec<Effect>,
    ) -> Result<Shard, StartError> {
        let log = sabotage.and_then(crate::Sabotage::log);
        let storage = StorageConfig { sabotage: log, ..storage_config(&config) };
        let mut shard = Shard::with_storage(config, id, storage, image, seed, now, out)?;
        shard.groups.set_sabotage(sabotage.and_then(crate::Sabotage::groups));
        Ok(shard)
    }

    fn with_storage(
        config: Arc<BrokerConfig>,
        id: ShardId,
        storage: StorageConfig,
        image: DiskImage,
        seed: u64,
        now: Now,
        out: &mut Vec<Effect>,
    ) -> Result<Shard, StartError> {
        let (mut shard, snapshot, records) = Shard::recover(config, id, storage, image, seed, now, out)?;
        if id == CONTROLLER {
            let image = recover_image(snapshot, &records).map_err(StartError::Metadata)?;
            shard.install_image(now, image, out);
            shard.spread_image(out);
        }
        Ok(shard)
    }

    /// A shard with what its log had, and what that has of metadata: the last snapshot, and the records since.
    pub(crate) fn recover(
        config: Arc<BrokerConfig>,
        id: ShardId,
        storage: StorageConfig,
        image: DiskImage,
        seed: u64,
        now: Now,
        out: &mut Vec<Effect>,
    ) -> Result<(Shard, Option<Bytes>, Vec<Bytes>), StartError> {
        let mut prng = Prng::new(seed);
        let (storage, recovered) = Storage::recover(storage, image, now)?;
        let sessions = FetchSessions::new(config.fetch_sessions_max, prng.next_u64());
        let mut shard = Shard {
            config,
            id,
            image: MetadataImage::default(),
            storage,
            partitions: Partitions::default(),
            connections: Connections::default(),
            sessions,
            acks: Acks::default(),
            decided: Vec::new(),
            answers: Answers::default(),
            fetches: Fetches::default(),
            gather: Gather::default(),
            log_dirs: Gather::default(),
            volume: None,
            groups: Groups::default(),
            lookups: BTreeMap::new(),
            delete_waits: VecDeque::new(),
            control: Control::default(),
            control_asked: BTreeMap::new(),
            metadata_waiting: BTreeMap::new(),
            produce_asked: BTreeMap::new(),
            blocked: VecDeque::new(),
            unblocking: false,
            to_pump: Vec::new(),
            receive_budget: ReceiveBudget::new(RECEIVE_BYTES_MAX),
            wanting_memory: VecDeque::new(),
            recovered: BTreeMap::new(),
            producer_ids: Default::default(),
            prng,
            disk: Vec::new(),
            progress: Progress::default(),
            installed: false,
            ready: false,
            stopping: false,
            drained: false,
            others_drained: BTreeSet::new(),
            parted: false,
            log_stopping: false,
            stopped: false,
            next_id: 0,
            sweep_connections_ns: None,
            sweep_produces_ns: None,
            retention_sweep: Default::default(),
            cleaner: Default::default(),
            cluster: None,
        };
        let report = recovered.report();
        out.push(Effect::Log { level: LogLevel::Info, text: format!("shard {}: {report}", id.0) });
        shard.recovered = recovered.partitions.into_iter().map(|p| (p.key, p)).collect();
        Ok((shard, recovered.metadata_snapshot, recovered.metadata_records))
    }
}

pub(crate) fn storage_config(config: &BrokerConfig) -> StorageConfig {
    StorageConfig {
        journal_bytes: config.journal_bytes,
        writes_in_flight: config.journal_writes_in_flight,
        direct_bytes: config.direct_bytes,
        tail_bytes: config.tail_bytes,
        dedupe_bytes: config.cleaner_dedupe_bytes / usize::from(config.shards.max(1)),
        compaction_bytes_per_second: config.cleaner_bytes_per_second / u64::from(config.shards.max(1)),
        ..StorageConfig::default()
    }
}

fn recover_image(snapshot: Option<Bytes>, records: &[Bytes]) -> Result<MetadataImage, String> {
    let mut image = match snapshot {
        Some(snapshot) => MetadataImage::from_snapshot(&snapshot).map_err(|error| error.to_string())?,
        None => MetadataImage::default(),
    };
    for batch in records {
        let (offset, records) =
            pelton_cluster::record::decode_batch(batch).map_err(|error| error.to_string())?;
        image.apply(offset, &records);
    }
    Ok(image)
}
