//! What members of the quorum send each other, as bytes of our own: nothing from the network is ever given to a protobuf
//! parser. A frame says whose cluster it belongs to and from which data directory it comes; a snapshot travels in parts.

use bytes::Bytes;
use raft::eraftpb::{Message, MessageType, Snapshot};

use crate::codec::{In, Malformed, Out};
use crate::frame;
use crate::quorum::entry;
use crate::quorum::journal::SnapshotAt;

/// Entries of one message, bytes; the crate adds one more entry at most.
pub const APPEND_BYTES: u64 = 256 * 1024;
/// Bytes of a snapshot in one frame.
pub const PART_BYTES: usize = 256 * 1024;

const MAGIC: u32 = 0x314d_5150;
const VERSION: u8 = 1;
const MESSAGE: u8 = 1;
const PART: u8 = 2;
const CONTEXT_BYTES_MAX: usize = 64;

/// Who sends, and to whom.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Envelope {
    /// The cluster, as a number of its id.
    pub cluster: u64,
    /// The sender's data directory, as a number of its id; changes when a node is set up anew.
    pub directory: u64,
    /// The sender.
    pub from: u64,
    /// The receiver.
    pub to: u64,
}

/// A part of a snapshot.
#[derive(Clone, PartialEq, Debug)]
pub struct Part {
    /// The leader's term.
    pub term: u64,
    /// The snapshot, with only these bytes of it.
    pub snapshot: SnapshotAt,
    /// Where they begin.
    pub offset: u64,
    /// How many there are in all.
    pub total: u64,
}

/// What a frame holds.
#[derive(Clone, PartialEq, Debug)]
pub enum Content {
    /// A message, complete.
    Message(Message),
    /// A part of a snapshot.
    Part(Part),
}

/// Kinds that peers may send. Proposals and reads are not forwarded: whoever asks finds the leader.
fn kind_code(kind: MessageType) -> Option<u8> {
    Some(match kind {
        MessageType::MsgAppend => 1,
        MessageType::MsgAppendResponse => 2,
        MessageType::MsgRequestVote => 3,
        MessageType::MsgRequestVoteResponse => 4,
        MessageType::MsgHeartbeat => 5,
        MessageType::MsgHeartbeatResponse => 6,
        MessageType::MsgTimeoutNow => 7,
        MessageType::MsgRequestPreVote => 8,
        MessageType::MsgRequestPreVoteResponse => 9,
        _ => return None,
    })
}

fn kind_of(code: u8) -> Result<MessageType, Malformed> {
    Ok(match code {
        1 => MessageType::MsgAppend,
        2 => MessageType::MsgAppendResponse,
        3 => MessageType::MsgRequestVote,
        4 => MessageType::MsgRequestVoteResponse,
        5 => MessageType::MsgHeartbeat,
        6 => MessageType::MsgHeartbeatResponse,
        7 => MessageType::MsgTimeoutNow,
        8 => MessageType::MsgRequestPreVote,
        9 => MessageType::MsgRequestPreVoteResponse,
        _ => return Err(Malformed),
    })
}

fn head(envelope: &Envelope, kind: u8) -> Out {
    let mut out = frame::begin(MAGIC, VERSION);
    out.u8(kind);
    for number in [envelope.cluster, envelope.directory, envelope.from, envelope.to] {
        out.u64(number);
    }
    out
}

/// The numbers of a message, in the order of the mask's bits.
fn numbers(message: &Message) -> [u64; 7] {
    [
        message.term,
        message.log_term,
        message.index,
        message.commit,
        message.commit_term,
        message.request_snapshot,
        message.reject_hint,
    ]
}

/// The frames of a message; several for a snapshot, none for a kind that never leaves a node.
pub fn encode(envelope: &Envelope, message: &Message, into: &mut Vec<Bytes>) {
    if message.get_msg_type() == MessageType::MsgSnapshot {
        encode_parts(envelope, message, into);
        return;
    }
    let Some(code) = kind_code(message.get_msg_type()) else { return };
    let mut out = head(envelope, MESSAGE);
    out.u8(code);
    let numbers = numbers(message);
    let mask = numbers.iter().enumerate().fold(0, |mask, (at, number)| mask | (u8::from(*number != 0) << at));
    out.u8(mask | (u8::from(message.reject) << 7));
    numbers.iter().filter(|number| **number != 0).for_each(|number| out.u64(*number));
    out.u8(message.context.len() as u8);
    out.0.extend_from_slice(&message.context);
    out.list(&message.entries, entry::write);
    into.push(frame::finish(out));
}

fn encode_parts(envelope: &Envelope, message: &Message, into: &mut Vec<Bytes>) {
    let snapshot = message.get_snapshot();
    let metadata = snapshot.get_metadata();
    let total = snapshot.data.len();
    let mut offset = 0;
    loop {
        let bytes = &snapshot.data[offset..total.min(offset + PART_BYTES)];
        let mut out = head(envelope, PART);
        for number in [message.term, metadata.index, metadata.term, offset as u64, total as u64] {
            out.u64(number);
        }
        entry::write_members(&mut out, metadata.get_conf_state());
        out.bytes(bytes);
        into.push(frame::finish(out));
        offset += bytes.len();
        if offset == total {
            return;
        }
    }
}

/// Reads a frame. Whatever it says is then still to be held against this node's own log.
pub fn decode(frame: &[u8]) -> Result<(Envelope, Content), Malformed> {
    let mut from = frame::open(frame, MAGIC, VERSION)?;
    let kind = from.u8()?;
    let envelope =
        Envelope { cluster: from.u64()?, directory: from.u64()?, from: from.u64()?, to: from.u64()? };
    let content = match kind {
        MESSAGE => Content::Message(decode_message(&mut from, &envelope)?),
        PART => Content::Part(decode_part(&mut from)?),
        _ => return Err(Malformed),
    };
    from.end()?;
    Ok((envelope, content))
}

fn decode_message(from: &mut In<'_>, envelope: &Envelope) -> Result<Message, Malformed> {
    let mut message = Message { from: envelope.from, to: envelope.to, ..Message::default() };
    message.set_msg_type(kind_of(from.u8()?)?);
    let mask = from.u8()?;
    message.reject = mask & 0x80 != 0;
    let mut numbers = [0; 7];
    for (at, number) in numbers.iter_mut().enumerate() {
        if mask & (1 << at) != 0 {
            *number = entry::number(from)?;
        }
    }
    let [term, log_term, index, commit, commit_term, request_snapshot, reject_hint] = numbers;
    (message.term, message.log_term, message.index, message.commit) = (term, log_term, index, commit);
    (message.commit_term, message.request_snapshot, message.reject_hint) =
        (commit_term, request_snapshot, reject_hint);
    let length = usize::from(from.u8()?);
    if length > CONTEXT_BYTES_MAX {
        return Err(Malformed);
    }
    message.context = Bytes::copy_from_slice(from.slice(length)?);
    message.entries = from.list(entry::read)?.into();
    // Term 0 would make the crate take a message for one of its own.
    if message.term == 0 || (!message.entries.is_empty() && message.get_msg_type() != MessageType::MsgAppend)
    {
        return Err(Malformed);
    }
    let mut last = (message.index, message.log_term);
    for entry in &message.entries {
        if entry.index != last.0 + 1 || entry.term < last.1 || entry.term > message.term {
            return Err(Malformed);
        }
        last = (entry.index, entry.term);
    }
    Ok(message)
}

fn decode_part(from: &mut In<'_>) -> Result<Part, Malformed> {
    let (term, index, snapshot_term) = (entry::number(from)?, entry::number(from)?, entry::number(from)?);
    let (offset, total) = (from.u64()?, from.u64()?);
    let members = entry::read_members(from)?;
    let data = from.bytes()?;
    let end = offset.checked_add(data.len() as u64).ok_or(Malformed)?;
    if term == 0 || index == 0 || snapshot_term == 0 || snapshot_term > term || end > total {
        return Err(Malformed);
    }
    let snapshot = SnapshotAt { index, term: snapshot_term, members, data: Bytes::copy_from_slice(data) };
    Ok(Part { term, snapshot, offset, total })
}

/// A message that brings a whole snapshot.
pub fn snapshot_message(envelope: &Envelope, term: u64, at: SnapshotAt) -> Message {
    let mut message = Message { from: envelope.from, to: envelope.to, term, ..Message::default() };
    message.set_msg_type(MessageType::MsgSnapshot);
    let mut snapshot = Snapshot { data: at.data, ..Snapshot::default() };
    let metadata = snapshot.mut_metadata();
    metadata.index = at.index;
    metadata.term = at.term;
    metadata.set_conf_state(at.members);
    message.set_snapshot(snapshot);
    message
}

#[cfg(test)]
mod tests {
    use super::*;
    use pelton_model::Prng;
    use raft::eraftpb::{ConfState, Entry};

    fn envelope() -> Envelope {
        Envelope { cluster: 7, directory: 8, from: 2, to: 3 }
    }

    fn append() -> Message {
        let mut message = Message { from: 2, to: 3, term: 5, index: 9, log_term: 4, ..Message::default() };
        message.set_msg_type(MessageType::MsgAppend);
        message.commit = 8;
        let entries = [(10, 4), (11, 5)].map(|(index, term)| Entry {
            index,
            term,
            data: Bytes::from_static(b"change"),
            ..Entry::default()
        });
        message.entries = entries.to_vec().into();
        message
    }

    #[test]
    fn messages_round_trip_and_damaged_ones_are_refused() {
        let mut heartbeat = Message { from: 2, to: 3, term: 5, commit: 3, ..Message::default() };
        heartbeat.set_msg_type(MessageType::MsgHeartbeat);
        heartbeat.context = Bytes::from_static(b"12345678");
        let mut frames = Vec::new();
        for message in [append(), heartbeat] {
            frames.clear();
            encode(&envelope(), &message, &mut frames);
            assert_eq!(decode(&frames[0]), Ok((envelope(), Content::Message(message))));
        }
        assert!(frames[0].len() <= 80, "a heartbeat takes {} bytes", frames[0].len());
        let mut prng = Prng::new(1);
        for _ in 0..2000 {
            let mut bytes = frames[0].to_vec();
            let at = prng.below(bytes.len() as u64) as usize;
            bytes[at] ^= 1 << prng.below(8);
            assert!(decode(&bytes).is_err());
            assert!(decode(&bytes[..at]).is_err());
        }
    }

    #[test]
    fn appends_with_holes_or_rising_past_their_term_are_refused_though_their_checksum_is_right() {
        let spoil: [fn(&mut Message); 4] = [
            |message| message.entries[1].index = 12,
            |message| message.entries[0].term = 6,
            |message| message.term = 4,
            |message| message.index = 8,
        ];
        for spoil in spoil {
            let mut message = append();
            spoil(&mut message);
            let mut frames = Vec::new();
            encode(&envelope(), &message, &mut frames);
            assert!(decode(&frames[0]).is_err(), "{message:?}");
        }
    }

    #[test]
    fn a_snapshot_goes_in_parts() {
        let members = ConfState { voters: vec![2, 3], ..ConfState::default() };
        let at = SnapshotAt { index: 4, term: 2, members, data: Bytes::from(vec![5; PART_BYTES + 10]) };
        let message = snapshot_message(&envelope(), 3, at);
        let mut frames = Vec::new();
        encode(&envelope(), &message, &mut frames);
        let parts: Vec<_> = frames
            .iter()
            .map(|frame| match decode(frame) {
                Ok((_, Content::Part(part))) => {
                    (part.term, part.offset, part.total, part.snapshot.data.len())
                }
                other => panic!("{other:?}"),
            })
            .collect();
        let total = PART_BYTES as u64 + 10;
        assert_eq!(parts, [(3, 0, total, PART_BYTES), (3, PART_BYTES as u64, total, 10)]);
    }
}
