//! What replicas of a partition say to each other, as bytes: fixed frames of at most [`FRAME_BYTES_MAX`], the same for the
//! rings between shards, TCP between nodes, and the simulator. Batches travel beside their frame as handles, never in it.
//! The transport says from whom a frame is; it may lose, double and reorder frames, and nothing more.

use pelton_model::{LeaderEpoch, NodeEpoch, Offset, PartitionKey, ReplicaEpoch, ShardEpoch, TopicId};
use uuid::Uuid;

/// Largest frame: one cache line.
pub const FRAME_BYTES_MAX: usize = 64;

/// A frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Frame {
    /// Which partition.
    pub partition: PartitionKey,
    /// The leader epoch its sender is in.
    pub leader_epoch: LeaderEpoch,
    /// What it says.
    pub body: Body,
}

/// What a frame says.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Body {
    /// Follower to leader: send me the log (rule R1).
    Join {
        /// The follower's life.
        replica_epoch: ReplicaEpoch,
        /// Counts what the follower asks; the answer repeats it.
        join: u32,
        /// Its log's end.
        log_end: Offset,
        /// The epoch of its last record; -1 = none.
        last_epoch: i32,
        /// Bytes that may be on their way to it, not yet written there.
        window_bytes: u32,
    },
    /// Leader to follower: what becomes of the Join (rule R2).
    Answer {
        /// Of the Join.
        join: u32,
        /// What the follower has to do.
        verdict: Verdict,
        /// The leader's high watermark.
        high_watermark: Offset,
        /// The leader's log start for clients.
        log_start: Offset,
    },
    /// Leader to follower: `bytes` of batches that follow `prev_offset` (rule R4). Without bytes: news of the high
    /// watermark, and a question how far the follower is.
    Append {
        /// Where they begin: the end of what was sent before.
        prev_offset: Offset,
        /// The epoch of the record before; -1 = unknown or none.
        prev_epoch: i32,
        /// The leader's high watermark.
        high_watermark: Offset,
        /// The leader's log start for clients.
        log_start: Offset,
        /// Length of the batches.
        bytes: u32,
    },
    /// Follower to leader: how far it is (rule R5).
    Ack {
        /// The follower's life.
        replica_epoch: ReplicaEpoch,
        /// Behind the last record whose write has completed.
        written_end: Offset,
        /// Behind the last record on stable storage.
        flushed_end: Offset,
        /// Its high watermark.
        high_watermark: Offset,
    },
    /// Follower to leader: where its log begins for clients, on stable storage. Said when it has moved, and with each
    /// acknowledgement that was asked for.
    LogStart {
        /// The follower's life.
        replica_epoch: ReplicaEpoch,
        /// There.
        log_start: Offset,
    },
    /// Follower to leader: whether there is room on its disk for more. Said when that has changed, and from then on with each
    /// acknowledgement that is asked for.
    Space {
        /// The follower's life.
        replica_epoch: ReplicaEpoch,
        /// There is none.
        full: bool,
    },
}

/// A leader's answer to a Join.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Verdict {
    /// The logs match up to the follower's end; the stream begins there.
    Matches,
    /// Cut what lies beyond `end` of `epoch`, then join again.
    Diverged {
        /// The largest epoch of the leader's log that is not above the follower's last; -1 = none.
        epoch: i32,
        /// Where it ends.
        end: Offset,
    },
    /// All the follower has lies before what the leader keeps: drop it, begin anew.
    Restart {
        /// Where: a batch of the leader begins there.
        at: Offset,
    },
    /// The sender of the Join is in another leader epoch than the leader (whose epoch the frame says).
    OtherEpoch,
}

/// Why bytes are no frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FrameError {
    /// Too few or too many bytes for its kind.
    #[error(
        "a replica frame of kind {kind} has {bytes} bytes; the peer runs another version, or the stream is damaged"
    )]
    Length {
        /// Its first byte.
        kind: u8,
        /// Bytes given.
        bytes: usize,
    },
    /// No such kind.
    #[error(
        "a replica frame has the unknown kind {0}; the peer runs another version, or the stream is damaged"
    )]
    Kind(u8),
    /// A position or count below its least value.
    #[error("a replica frame has the impossible value {0}; the stream is damaged")]
    Value(i64),
}

const JOIN: u8 = 1;
const MATCHES: u8 = 2;
const DIVERGED: u8 = 3;
const RESTART: u8 = 4;
const OTHER_EPOCH: u8 = 5;
const APPEND: u8 = 6;
const ACK: u8 = 7;
const LOG_START: u8 = 8;
const SPACE: u8 = 9;

/// A frame as bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FrameBytes {
    bytes: [u8; FRAME_BYTES_MAX],
    length: usize,
}

impl FrameBytes {
    fn put(&mut self, value: &[u8]) {
        self.bytes[self.length..self.length + value.len()].copy_from_slice(value);
        self.length += value.len();
    }
    fn i64(&mut self, value: Offset) {
        self.put(&value.0.to_le_bytes());
    }
    fn u32(&mut self, value: u32) {
        self.put(&value.to_le_bytes());
    }
    fn i32(&mut self, value: i32) {
        self.put(&value.to_le_bytes());
    }
    fn replica_epoch(&mut self, value: ReplicaEpoch) {
        self.put(&value.node_epoch.0.to_le_bytes());
        self.u32(value.shard_epoch.0);
    }
    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl Frame {
    /// As bytes; no allocation.
    pub fn encode(&self) -> FrameBytes {
        let mut out = FrameBytes { bytes: [0; FRAME_BYTES_MAX], length: 0 };
        out.put(&[self.kind()]);
        out.put(self.partition.topic_id.0.as_bytes());
        out.i32(self.partition.partition);
        out.i32(self.leader_epoch.0);
        match self.body {
            Body::Join { replica_epoch, join, log_end, last_epoch, window_bytes } => {
                out.replica_epoch(replica_epoch);
                out.u32(join);
                out.i64(log_end);
                out.i32(last_epoch);
                out.u32(window_bytes);
            }
            Body::Answer { join, verdict, high_watermark, log_start } => {
                out.u32(join);
                out.i64(high_watermark);
                out.i64(log_start);
                match verdict {
                    Verdict::Diverged { epoch, end } => {
                        out.i32(epoch);
                        out.i64(end);
                    }
                    Verdict::Restart { at } => out.i64(at),
                    Verdict::Matches | Verdict::OtherEpoch => {}
                }
            }
            Body::Append { prev_offset, prev_epoch, high_watermark, log_start, bytes } => {
                out.i64(prev_offset);
                out.i32(prev_epoch);
                out.i64(high_watermark);
                out.i64(log_start);
                out.u32(bytes);
            }
            Body::Ack { replica_epoch, written_end, flushed_end, high_watermark } => {
                out.replica_epoch(replica_epoch);
                out.i64(written_end);
                out.i64(flushed_end);
                out.i64(high_watermark);
            }
            Body::LogStart { replica_epoch, log_start } => {
                out.replica_epoch(replica_epoch);
                out.i64(log_start);
            }
            Body::Space { replica_epoch, full } => {
                out.replica_epoch(replica_epoch);
                out.put(&[u8::from(full)]);
            }
        }
        out
    }

    fn kind(&self) -> u8 {
        match self.body {
            Body::Join { .. } => JOIN,
            Body::Answer { verdict: Verdict::Matches, .. } => MATCHES,
            Body::Answer { verdict: Verdict::Diverged { .. }, .. } => DIVERGED,
            Body::Answer { verdict: Verdict::Restart { .. }, .. } => RESTART,
            Body::Answer { verdict: Verdict::OtherEpoch, .. } => OTHER_EPOCH,
            Body::Append { .. } => APPEND,
            Body::Ack { .. } => ACK,
            Body::LogStart { .. } => LOG_START,
            Body::Space { .. } => SPACE,
        }
    }

    /// From exactly the bytes of one frame.
    pub fn decode(bytes: &[u8]) -> Result<Frame, FrameError> {
        let kind = *bytes.first().ok_or(FrameError::Length { kind: 0, bytes: 0 })?;
        if !(JOIN..=SPACE).contains(&kind) {
            return Err(FrameError::Kind(kind));
        }
        let mut input = Input { rest: &bytes[1..], kind, bytes: bytes.len() };
        let topic_id = TopicId(Uuid::from_bytes(input.take()?));
        let partition = PartitionKey { topic_id, partition: input.count()? };
        let leader_epoch = LeaderEpoch(input.count()?);
        let body = match kind {
            JOIN => Body::Join {
                replica_epoch: input.replica_epoch()?,
                join: input.u32()?,
                log_end: input.offset()?,
                last_epoch: input.epoch()?,
                window_bytes: input.u32()?,
            },
            APPEND => Body::Append {
                prev_offset: input.offset()?,
                prev_epoch: input.epoch()?,
                high_watermark: input.offset()?,
                log_start: input.offset()?,
                bytes: input.u32()?,
            },
            ACK => Body::Ack {
                replica_epoch: input.replica_epoch()?,
                written_end: input.offset()?,
                flushed_end: input.offset()?,
                high_watermark: input.offset()?,
            },
            LOG_START => Body::LogStart { replica_epoch: input.replica_epoch()?, log_start: input.offset()? },
            SPACE => Body::Space { replica_epoch: input.replica_epoch()?, full: input.flag()? },
            _ => input.answer()?,
        };
        if !input.rest.is_empty() {
            return Err(FrameError::Length { kind, bytes: bytes.len() });
        }
        Ok(Frame { partition, leader_epoch, body })
    }
}

struct Input<'a> {
    rest: &'a [u8],
    kind: u8,
    bytes: usize,
}

impl Input<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], FrameError> {
        let short = FrameError::Length { kind: self.kind, bytes: self.bytes };
        let (value, rest) = self.rest.split_first_chunk::<N>().ok_or(short)?;
        self.rest = rest;
        Ok(*value)
    }
    fn u32(&mut self) -> Result<u32, FrameError> {
        Ok(u32::from_le_bytes(self.take()?))
    }
    /// An i32 of at least `least`.
    fn i32_from(&mut self, least: i32) -> Result<i32, FrameError> {
        let value = i32::from_le_bytes(self.take()?);
        if value < least { Err(FrameError::Value(value.into())) } else { Ok(value) }
    }
    fn count(&mut self) -> Result<i32, FrameError> {
        self.i32_from(0)
    }
    fn epoch(&mut self) -> Result<i32, FrameError> {
        self.i32_from(-1)
    }
    fn offset(&mut self) -> Result<Offset, FrameError> {
        let value = i64::from_le_bytes(self.take()?);
        if value < 0 { Err(FrameError::Value(value)) } else { Ok(Offset(value)) }
    }
    fn flag(&mut self) -> Result<bool, FrameError> {
        match self.take::<1>()? {
            [0] => Ok(false),
            [1] => Ok(true),
            [other] => Err(FrameError::Value(other.into())),
        }
    }
    fn replica_epoch(&mut self) -> Result<ReplicaEpoch, FrameError> {
        Ok(ReplicaEpoch {
            node_epoch: NodeEpoch(u64::from_le_bytes(self.take()?)),
            shard_epoch: ShardEpoch(self.u32()?),
        })
    }
    fn answer(&mut self) -> Result<Body, FrameError> {
        let (join, high_watermark, log_start) = (self.u32()?, self.offset()?, self.offset()?);
        let verdict = match self.kind {
            MATCHES => Verdict::Matches,
            DIVERGED => Verdict::Diverged { epoch: self.epoch()?, end: self.offset()? },
            RESTART => Verdict::Restart { at: self.offset()? },
            _ => Verdict::OtherEpoch,
        };
        Ok(Body::Answer { join, verdict, high_watermark, log_start })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames() -> Vec<Frame> {
        let replica_epoch = ReplicaEpoch { node_epoch: NodeEpoch(u64::MAX), shard_epoch: ShardEpoch(7) };
        let (join, high_watermark, log_start) = (u32::MAX, Offset(i64::MAX), Offset(3));
        let answer = |verdict| Body::Answer { join, verdict, high_watermark, log_start };
        [
            Body::Join { replica_epoch, join, log_end: Offset(9), last_epoch: -1, window_bytes: u32::MAX },
            answer(Verdict::Matches),
            answer(Verdict::Diverged { epoch: -1, end: Offset(4) }),
            answer(Verdict::Restart { at: Offset(2) }),
            answer(Verdict::OtherEpoch),
            Body::Append { prev_offset: Offset(5), prev_epoch: 2, high_watermark, log_start, bytes: 1 << 20 },
            Body::Ack { replica_epoch, written_end: Offset(8), flushed_end: Offset(7), high_watermark },
            Body::LogStart { replica_epoch, log_start },
            Body::Space { replica_epoch, full: true },
        ]
        .into_iter()
        .map(|body| Frame {
            partition: PartitionKey { topic_id: TopicId(Uuid::from_u128(1 << 100 | 5)), partition: 12 },
            leader_epoch: LeaderEpoch(i32::MAX),
            body,
        })
        .collect()
    }

    #[test]
    fn frames_come_back_as_they_went_and_fit_a_cache_line() {
        for frame in frames() {
            let bytes = frame.encode();
            assert!(bytes.as_slice().len() <= FRAME_BYTES_MAX);
            assert_eq!(Frame::decode(bytes.as_slice()), Ok(frame));
        }
    }

    #[test]
    fn anything_else_is_refused_and_never_a_panic() {
        for frame in frames() {
            let bytes = frame.encode();
            for length in 0..bytes.as_slice().len() {
                assert!(Frame::decode(&bytes.as_slice()[..length]).is_err());
            }
            let mut longer = bytes.as_slice().to_vec();
            longer.push(0);
            assert!(matches!(Frame::decode(&longer), Err(FrameError::Length { .. })));
            for at in 0..bytes.as_slice().len() {
                for value in [0, 1, 0x7f, 0x80, 0xff] {
                    let mut damaged = bytes.as_slice().to_vec();
                    damaged[at] = value;
                    if let Ok(decoded) = Frame::decode(&damaged) {
                        assert_eq!(decoded.encode().as_slice(), damaged);
                    }
                }
            }
        }
        assert_eq!(Frame::decode(&[10; 64]), Err(FrameError::Kind(10)));
    }
}
