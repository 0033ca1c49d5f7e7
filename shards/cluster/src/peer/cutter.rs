//! Messages on a connection: length (4 bytes, little-endian; counts what follows it), kind (1), body. Cut from what arrives without
//! copying a body, but for one that straddles two receives and has less than [`EXACT_BYTES_MIN`] to come.

use bytes::{Buf, Bytes, BytesMut};

/// Bytes of length and kind.
pub const HEAD_BYTES: usize = 5;
const LENGTH_BYTES: usize = 4;
/// With so much of a message to come, the rest is received into a buffer of its size.
pub const EXACT_BYTES_MIN: usize = 16 * 1024;

/// What a message is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Kind {
    /// Who is there.
    Hello = 1,
    /// That it knows the cluster's secret.
    Proof = 2,
    /// Why the connection ends.
    Refusal = 3,
    /// That the sender lives; empty.
    Alive = 4,
    /// A frame of `pelton-replica` and its batches.
    Replica = 5,
    /// A frame of the quorum or of `node_message`.
    Member = 6,
}

impl Kind {
    fn of(code: u8) -> Option<Kind> {
        [Kind::Hello, Kind::Proof, Kind::Refusal, Kind::Alive, Kind::Replica, Kind::Member]
            .into_iter()
            .find(|kind| *kind as u8 == code)
    }
}

/// How to receive next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Want {
    /// Whatever comes.
    Any,
    /// Exactly `length` bytes in one buffer, of which `prefix` is there already and is put in front.
    Exact { prefix: Bytes, length: usize },
}

/// The head of a message whose body has `length` bytes, and a small body or the beginning of a large one behind it.
pub fn message(kind: Kind, length: usize, first: &[u8]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(HEAD_BYTES + first.len());
    bytes.extend_from_slice(&(length as u32 + 1).to_le_bytes());
    bytes.extend_from_slice(&[kind as u8]);
    bytes.extend_from_slice(first);
    bytes.freeze()
}

/// Cuts messages from what arrives on one connection.
pub struct Cutter {
    bytes_max: usize,
    /// The last receive, as far as it is not cut.
    fresh: Bytes,
    /// The beginning of a message from earlier receives.
    joining: BytesMut,
}

impl Cutter {
    /// For messages of at most `bytes_max` bytes, kind and body.
    pub fn new(bytes_max: usize) -> Cutter {
        Cutter { bytes_max, fresh: Bytes::new(), joining: BytesMut::new() }
    }

    /// Sets another longest message, for what is not cut yet.
    pub fn allow(&mut self, bytes_max: usize) {
        self.bytes_max = bytes_max;
    }

    /// Takes what was received. Everything before must have been cut.
    pub fn put(&mut self, bytes: Bytes) {
        debug_assert!(self.fresh.is_empty(), "cut before receiving more");
        self.fresh = bytes;
    }

    /// Length of the message `bytes` begin, with its head; none while that cannot be told. An error is for the log.
    fn length(&self, bytes: &[u8]) -> Result<Option<usize>, String> {
        let Some(length) = bytes.first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
        let length = u32::from_le_bytes(*length) as usize;
        if length == 0 || length > self.bytes_max {
            return Err(format!(
                "it begins a message of {length} bytes, at most {} are allowed",
                self.bytes_max
            ));
        }
        Ok(Some(LENGTH_BYTES + length))
    }

    /// The next message that is there. An error is for the log, and the end of the connection.
    pub fn cut(&mut self) -> Result<Option<(Kind, Bytes)>, String> {
        let mut whole = if self.joining.is_empty() {
            match self.length(&self.fresh)? {
                Some(length) if length <= self.fresh.len() => self.fresh.split_to(length),
                _ => return Ok(None),
            }
        } else {
            match self.join()? {
                Some(whole) => whole,
                None => return Ok(None),
            }
        };
        whole.advance(LENGTH_BYTES);
        let code = whole.get_u8();
        match Kind::of(code) {
            Some(kind) => Ok(Some((kind, whole))),
            None => Err(format!("it sends a message of kind {code}, which this version does not know")),
        }
    }

    fn join(&mut self) -> Result<Option<Bytes>, String> {
        loop {
            let length = self.length(&self.joining)?;
            let missing = length.unwrap_or(LENGTH_BYTES) - self.joining.len();
            if length.is_some() && missing == 0 {
                return Ok(Some(std::mem::take(&mut self.joining).freeze()));
            }
            if self.fresh.is_empty() {
                return Ok(None);
            }
            let taken = self.fresh.split_to(missing.min(self.fresh.len()));
            self.joining.extend_from_slice(&taken);
        }
    }

    /// How to receive next. Called when [`Cutter::cut`] has said that no message is there.
    pub fn want(&mut self) -> Want {
        if !self.fresh.is_empty() && self.joining.is_empty() {
            if let Ok(Some(length)) = self.length(&self.fresh)
                && length - self.fresh.len() >= EXACT_BYTES_MIN
            {
                return Want::Exact { prefix: std::mem::take(&mut self.fresh), length };
            }
            self.joining.extend_from_slice(&std::mem::take(&mut self.fresh));
        }
        match self.length(&self.joining) {
            Ok(Some(length)) if length - self.joining.len() >= EXACT_BYTES_MIN => {
                Want::Exact { prefix: std::mem::take(&mut self.joining).freeze(), length }
            }
            _ => Want::Any,
        }
    }
}
