//! Incremental fetch sessions (KIP-227): what each session asked for and was last told, so that a fetch names only
//! what changed. Knows nothing of records.

use std::collections::BTreeMap;

use pelton_model::{Now, Prng, TopicId};
use pelton_wire::error_code::ErrorCode;

/// A session unused this long gives way to a new one when all slots are taken
/// (Kafka's `min.incremental.fetch.session.eviction.ms`).
const EVICTION_MS: i64 = 120_000;
/// Request epoch of a fetch without a session.
const FINAL_EPOCH: i32 = -1;

/// A partition as a client names it: by id from Fetch v13, by name before.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct SessionKey {
    /// Topic id; nil when named by name.
    pub topic_id: TopicId,
    /// Topic name; empty when named by id.
    pub topic: String,
    /// Partition index.
    pub partition: i32,
}

/// What a client wants of a partition.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wanted {
    /// First offset.
    pub fetch_offset: i64,
    /// Cap, bytes.
    pub partition_bytes_max: i32,
    /// Leader epoch it believes in; -1 = none.
    pub current_leader_epoch: i32,
    /// Epoch of its last record; -1 = none.
    pub last_fetched_epoch: i32,
}

/// What was last told of a partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Told {
    high_watermark: i64,
    log_start_offset: i64,
}

struct SessionPartition {
    key: SessionKey,
    wanted: Wanted,
    told: Option<Told>,
}

struct FetchSession {
    epoch: i32,
    by_ids: bool,
    used_ns: u64,
    next_order: u64,
    partitions: BTreeMap<u64, SessionPartition>,
    orders: BTreeMap<SessionKey, u64>,
}

/// How a fetch relates to sessions, from its request until its answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SessionUse {
    /// No session is wanted.
    Sessionless,
    /// Everything is told; a session begins if there is room.
    Begin,
    /// Only changes are told.
    Incremental {
        /// The session.
        id: i32,
    },
}

/// The session part of a fetch request.
#[derive(Clone, Debug)]
pub struct SessionRequest {
    /// Session id; 0 = none.
    pub id: i32,
    /// Session epoch; 0 = begin, -1 = none or end.
    pub epoch: i32,
    /// True when topics are named by id.
    pub by_ids: bool,
    /// Partitions named.
    pub partitions: Vec<(SessionKey, Wanted)>,
    /// Partitions the session shall forget.
    pub forgotten: Vec<SessionKey>,
}

/// The sessions of one shard.
pub struct FetchSessions {
    sessions: BTreeMap<i32, FetchSession>,
    sessions_max: usize,
    prng: Prng,
}

impl FetchSessions {
    /// At most `sessions_max` sessions; `seed` sets their ids.
    pub fn new(sessions_max: usize, seed: u64) -> FetchSessions {
        FetchSessions { sessions: BTreeMap::new(), sessions_max, prng: Prng::new(seed) }
    }

    /// How many sessions there are.
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// True when there is none.
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// Enters a request: the use, and every partition to read, in the order to read them.
    pub fn enter(
        &mut self,
        now: Now,
        request: SessionRequest,
    ) -> Result<(SessionUse, Vec<(SessionKey, Wanted)>), ErrorCode> {
        if request.epoch == FINAL_EPOCH || request.epoch == 0 {
            self.sessions.remove(&request.id);
            let usage = if request.epoch == 0 { SessionUse::Begin } else { SessionUse::Sessionless };
            return Ok((usage, request.partitions));
        }
        let session = self.sessions.get_mut(&request.id).ok_or(ErrorCode::FetchSessionIdNotFound)?;
        if session.epoch != request.epoch {
            return Err(ErrorCode::InvalidFetchSessionEpoch);
        }
        if session.by_ids != request.by_ids {
            return Err(ErrorCode::FetchSessionTopicIdError);
        }
        session.epoch = if session.epoch == i32::MAX { 1 } else { session.epoch + 1 };
        session.used_ns = now.monotonic_ns;
        for key in &request.forgotten {
            session.forget(key);
        }
        for (key, wanted) in request.partitions {
            session.want(key, wanted);
        }
        let all = session.partitions.values().map(|p| (p.key.clone(), p.wanted.clone())).collect();
        Ok((SessionUse::Incremental { id: request.id }, all))
    }

    /// Begins a session over what a full answer told, if there is room: its id, else 0.
    pub fn begin(&mut self, now: Now, by_ids: bool, partitions: Vec<(SessionKey, Wanted, i64, i64)>) -> i32 {
        if partitions.is_empty() || !self.make_room(now) {
            return 0;
        }
        let mut id = 0;
        while id == 0 || self.sessions.contains_key(&id) {
            id = (self.prng.next_u64() & 0x7fff_ffff) as i32;
        }
        let mut session = FetchSession {
            epoch: 1,
            by_ids,
            used_ns: now.monotonic_ns,
            next_order: 0,
            partitions: BTreeMap::new(),
            orders: BTreeMap::new(),
        };
        for (key, wanted, high_watermark, log_start_offset) in partitions {
            session.want(key.clone(), wanted);
            session.tell(&key, Told { high_watermark, log_start_offset }, false);
        }
        self.sessions.insert(id, session);
        id
    }

    /// Whether an incremental answer must name this partition; notes what it is told, and lets partitions that had
    /// records go last next time, so that each gets its turn under a small `max_bytes`.
    pub fn tell(
        &mut self,
        id: i32,
        key: &SessionKey,
        error: ErrorCode,
        high_watermark: i64,
        log_start_offset: i64,
        has_records: bool,
    ) -> bool {
        let Some(session) = self.sessions.get_mut(&id) else { return true };
        if error != ErrorCode::None {
            session.forget_told(key);
            return true;
        }
        let changed = session.tell(key, Told { high_watermark, log_start_offset }, has_records);
        changed || has_records
    }

    fn make_room(&mut self, now: Now) -> bool {
        if self.sessions.len() < self.sessions_max {
            return true;
        }
        let oldest = self.sessions.iter().min_by_key(|(_, s)| s.used_ns).map(|(id, s)| (*id, s.used_ns));
        match oldest {
            Some((id, used_ns))
                if now.monotonic_ns.saturating_sub(used_ns) > EVICTION_MS as u64 * 1_000_000 =>
            {
                self.sessions.remove(&id);
                true
            }
            _ => false,
        }
    }
}

impl FetchSession {
    fn want(&mut self, key: SessionKey, wanted: Wanted) {
        if let Some(order) = self.orders.get(&key) {
            if let Some(partition) = self.partitions.get_mut(order) {
                partition.wanted = wanted;
            }
            return;
        }
        let order = self.next_order;
        self.next_order += 1;
        self.orders.insert(key.clone(), order);
        self.partitions.insert(order, SessionPartition { key, wanted, told: None });
    }

    fn forget(&mut self, key: &SessionKey) {
        if let Some(order) = self.orders.remove(key) {
            self.partitions.remove(&order);
        }
    }

    fn forget_told(&mut self, key: &SessionKey) {
        if let Some(partition) = self.orders.get(key).and_then(|order| self.partitions.get_mut(order)) {
            partition.told = None;
        }
    }

    fn tell(&mut self, key: &SessionKey, told: Told, to_back: bool) -> bool {
        let Some(order) = self.orders.get(key).copied() else { return true };
        let Some(mut partition) = self.partitions.remove(&order) else { return true };
        let changed = partition.told != Some(told);
        partition.told = Some(told);
        let order = if to_back {
            self.next_order += 1;
            self.next_order - 1
        } else {
            order
        };
        self.orders.insert(key.clone(), order);
        self.partitions.insert(order, partition);
        changed
    }
}

#[cfg(test)]
mod tests;
