//! One client connection: cuts frames from the byte stream, keeps answers in the order of their requests (Kafka's
//! protocol guide demands it), and bounds what a client may have in flight. Decides nothing about requests.

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};
use pelton_model::limits::{FRAME_BYTES_UNPROVEN, REQUESTS_IN_FLIGHT_MAX};
use pelton_model::{ConnectionId, Now};

use crate::effect::{Effect, ReceiveMode, SendPart, SendParts};

/// Bytes queued to a client that does not read; past this its requests wait.
const UNSENT_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Length of the size in front of each frame.
const PREFIX_BYTES: usize = 4;

/// Names the place of one request's answer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RequestRef {
    /// The connection.
    pub connection: ConnectionId,
    /// Counts the connection's requests from 0.
    pub sequence: u64,
}

/// What the next frame of a connection is.
#[derive(Debug)]
pub enum NextFrame {
    /// A whole frame, without its length.
    Frame(Bytes),
    /// Nothing more to do until something happens (bytes, or room for answers).
    None,
    /// The stream is not Kafka's, or breaks a limit: close, saying why.
    Broken(String),
}

enum Slot {
    Waiting,
    Ready(SendParts),
}

/// Memory for requests that are arriving (Kafka's `queued.max.request.bytes`): taken before the buffer is asked for, so
/// that a thousand clients that each announce a large request cannot make the shard run out of it.
pub struct ReceiveBudget {
    cap_bytes: usize,
    taken_bytes: usize,
}

impl ReceiveBudget {
    /// A budget of `cap_bytes`; a single request may exceed it when nothing else is arriving.
    pub fn new(cap_bytes: usize) -> ReceiveBudget {
        ReceiveBudget { cap_bytes, taken_bytes: 0 }
    }

    fn take(&mut self, bytes: usize) -> bool {
        if self.taken_bytes > 0 && self.taken_bytes + bytes > self.cap_bytes {
            return false;
        }
        self.taken_bytes += bytes;
        true
    }

    /// Gives back what a connection had taken.
    pub fn give_back(&mut self, bytes: usize) {
        self.taken_bytes = self.taken_bytes.saturating_sub(bytes);
    }
}

/// The state of one connection.
pub struct Connection {
    /// Who, for messages.
    pub peer: String,
    id: ConnectionId,
    input: Bytes,
    slots: VecDeque<Slot>,
    first_sequence: u64,
    unsent_bytes: usize,
    frame_bytes_max: usize,
    receiving: bool,
    reserved_bytes: usize,
    blocked: bool,
    closing: bool,
    frame_begun_ns: Option<u64>,
    active_ns: u64,
}

impl Connection {
    /// A connection that has just been accepted.
    pub fn new(id: ConnectionId, peer: String, now: Now) -> Connection {
        Connection {
            peer,
            id,
            input: Bytes::new(),
            slots: VecDeque::new(),
            first_sequence: 0,
            unsent_bytes: 0,
            frame_bytes_max: FRAME_BYTES_UNPROVEN,
            receiving: false,
            reserved_bytes: 0,
            blocked: false,
            closing: false,
            frame_begun_ns: None,
            active_ns: now.monotonic_ns,
        }
    }

    /// After the first valid request the configured frame cap holds.
    pub fn prove(&mut self, request_bytes_max: usize) {
        self.frame_bytes_max = request_bytes_max;
    }

    /// What it has taken of the receive budget, given up.
    pub fn take_reserved(&mut self) -> usize {
        std::mem::take(&mut self.reserved_bytes)
    }

    /// Takes bytes that arrived.
    pub fn handle_received(&mut self, now: Now, bytes: Bytes) {
        self.receiving = false;
        self.active_ns = now.monotonic_ns;
        if self.input.is_empty() {
            self.input = bytes;
        } else {
            let mut joined = BytesMut::with_capacity(self.input.len() + bytes.len());
            joined.extend_from_slice(&self.input);
            joined.extend_from_slice(&bytes);
            self.input = joined.freeze();
        }
    }

    /// Takes the news that `bytes` have left.
    pub fn handle_sent(&mut self, now: Now, bytes: usize) {
        self.unsent_bytes = self.unsent_bytes.saturating_sub(bytes);
        self.active_ns = now.monotonic_ns;
    }

    /// Cuts the next frame, if it is whole and the connection may have another request in flight.
    pub fn next_frame(&mut self) -> NextFrame {
        if self.closing || self.blocked || self.is_full() {
            return NextFrame::None;
        }
        let Some(length) = self.frame_length() else { return NextFrame::None };
        let length = match length {
            Ok(length) => length,
            Err(reason) => return NextFrame::Broken(reason),
        };
        if self.input.len() < PREFIX_BYTES + length {
            return NextFrame::None;
        }
        let mut frame = self.input.split_to(PREFIX_BYTES + length);
        self.frame_begun_ns = None;
        frame.advance(PREFIX_BYTES);
        NextFrame::Frame(frame)
    }

    /// Reserves the place of the answer of the frame just cut.
    pub fn reserve(&mut self) -> RequestRef {
        let sequence = self.first_sequence + self.slots.len() as u64;
        self.slots.push_back(Slot::Waiting);
        RequestRef { connection: self.id, sequence }
    }

    /// Fills a reserved place (no parts: a request that gets no answer), and sends what is now in turn.
    pub fn fill(&mut self, sequence: u64, parts: SendParts, out: &mut Vec<Effect>) {
        let Some(index) = sequence.checked_sub(self.first_sequence) else { return };
        let Some(slot) = self.slots.get_mut(index as usize) else { return };
        *slot = Slot::Ready(parts);
        while let Some(Slot::Ready(_)) = self.slots.front() {
            let Some(Slot::Ready(parts)) = self.slots.pop_front() else { return };
            self.first_sequence += 1;
            let bytes: usize = parts.iter().map(SendPart::length).sum();
            if bytes > 0 && !self.closing {
                self.unsent_bytes += bytes;
                out.push(Effect::Send { connection: self.id, parts });
            }
        }
    }

    /// Asks for more bytes if there is room for what they may bring; called when every whole frame is cut. False: the
    /// budget is spent, ask again when some is given back.
    pub fn receive_more(&mut self, now: Now, budget: &mut ReceiveBudget, out: &mut Vec<Effect>) -> bool {
        if self.receiving || self.closing || self.blocked || self.is_full() {
            return true;
        }
        if self.input.is_empty() {
            self.frame_begun_ns = None;
        } else if self.frame_begun_ns.is_none() {
            self.frame_begun_ns = Some(now.monotonic_ns);
        }
        let mode = match self.frame_length() {
            Some(Ok(length)) => {
                let length = PREFIX_BYTES + length;
                if !budget.take(length) {
                    return false;
                }
                self.reserved_bytes = length;
                ReceiveMode::Frame { prefix: std::mem::take(&mut self.input), length }
            }
            _ => ReceiveMode::Any,
        };
        self.receiving = true;
        out.push(Effect::Receive { connection: self.id, mode });
        true
    }

    /// True when the connection waits neither for bytes nor for another shard, so that filling an answer may have made
    /// room for the next frame.
    pub fn wants_pump(&self) -> bool {
        !self.receiving && !self.blocked && !self.closing
    }

    /// True while a request has begun to arrive but is not whole.
    pub fn has_begun_frame(&self) -> bool {
        self.frame_begun_ns.is_some()
    }

    /// Nothing more is read or answered; what is queued still goes out.
    pub fn close(&mut self, reason: String, out: &mut Vec<Effect>) {
        if !self.closing {
            self.closing = true;
            self.input = Bytes::new();
            out.push(Effect::Close { connection: self.id, reason });
        }
    }

    /// While blocked no further frame is cut, so that the requests behind keep their order.
    pub fn set_blocked(&mut self, blocked: bool) {
        self.blocked = blocked;
    }

    /// When the connection must have moved on, given the two time limits, and why it is closed if it has not.
    pub fn expiry(&self, receive_timeout_ms: i64, idle_ms: i64) -> (u64, &'static str) {
        let after = |from: u64, ms: i64| Now { monotonic_ns: from, wall_ms: 0 }.after_ms(ms);
        let idle = after(self.active_ns, idle_ms);
        match self.frame_begun_ns {
            Some(begun) if self.slots.is_empty() && after(begun, receive_timeout_ms) < idle => {
                (after(begun, receive_timeout_ms), "a request was begun but not finished in time")
            }
            _ if !self.slots.is_empty() => (after(self.active_ns, idle_ms.max(3_600_000)), "stuck"),
            _ => (idle, "idle for connections.max.idle.ms"),
        }
    }

    /// True once `close` was called.
    pub fn is_closing(&self) -> bool {
        self.closing
    }

    fn is_full(&self) -> bool {
        self.slots.len() >= REQUESTS_IN_FLIGHT_MAX || self.unsent_bytes > UNSENT_BYTES_MAX
    }

    /// The length the input's front announces: none before it is whole, an error when it breaks a limit.
    fn frame_length(&self) -> Option<Result<usize, String>> {
        let prefix = self.input.first_chunk::<PREFIX_BYTES>()?;
        Some(
            pelton_wire::frame::frame_length(*prefix, self.frame_bytes_max)
                .map_err(|error| error.to_string()),
        )
    }
}

#[cfg(test)]
mod tests;
