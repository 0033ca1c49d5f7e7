//! One entry of the metadata log as bytes, the same on disk and between nodes. A change of members is written in our own
//! form; what the crate `raft` wants of it (protobuf) is made from that, and never read from outside.

use bytes::Bytes;
use protobuf::Message as _;
use raft::eraftpb::{ConfChangeSingle, ConfChangeType, ConfChangeV2, ConfState, Entry, EntryType};

use crate::codec::{In, Malformed, Out};

/// Largest payload of one entry, bytes. With it an entry always fits into one record of the journal and one frame.
pub const ENTRY_BYTES_MAX: usize = 256 * 1024;
/// Terms and indexes stay below this, so that adding to them never overflows.
pub const NUMBER_MAX: u64 = 1 << 62;
/// Most members of a configuration that is read: voters and learners.
pub const MEMBERS_MAX: usize = 10_000;

const DATA: u8 = 0;
const MEMBERS: u8 = 2;

fn change_code(change: ConfChangeType) -> u8 {
    match change {
        ConfChangeType::AddNode => 0,
        ConfChangeType::RemoveNode => 1,
        ConfChangeType::AddLearnerNode => 2,
    }
}

/// Appends an entry.
pub fn write(out: &mut Out, entry: &Entry) {
    out.u64(entry.term);
    out.u64(entry.index);
    match entry.get_entry_type() {
        EntryType::EntryNormal => {
            out.u8(DATA);
            out.bytes(&entry.data);
        }
        EntryType::EntryConfChange | EntryType::EntryConfChangeV2 => {
            out.u8(MEMBERS);
            out.list(&member_changes(entry), |out, change| {
                out.u8(change_code(change.get_change_type()));
                out.u64(change.node_id);
            });
        }
    }
}

/// The members that an entry adds and removes; none in an entry that leaves a joint configuration. Its bytes are ours:
/// only [`change_entry`] and the crate make them.
pub fn member_changes(entry: &Entry) -> Vec<ConfChangeSingle> {
    let mut change = ConfChangeV2::default();
    if change.merge_from_bytes(&entry.data).is_err() {
        return Vec::new();
    }
    change.take_changes().into_vec()
}

/// A change of members.
pub fn change_of(changes: Vec<ConfChangeSingle>) -> ConfChangeV2 {
    let mut change = ConfChangeV2::default();
    change.set_changes(changes.into());
    change
}

/// Its bytes for the crate.
fn change_entry(changes: Vec<ConfChangeSingle>) -> Result<Bytes, Malformed> {
    if changes.is_empty() {
        return Ok(Bytes::new());
    }
    change_of(changes).write_to_bytes().map(Bytes::from).map_err(|_| Malformed)
}

/// Reads an entry.
pub fn read(from: &mut In<'_>) -> Result<Entry, Malformed> {
    let mut entry = Entry { term: number(from)?, index: number(from)?, ..Entry::default() };
    match from.u8()? {
        DATA => {
            let data = from.bytes()?;
            if data.len() > ENTRY_BYTES_MAX {
                return Err(Malformed);
            }
            entry.data = Bytes::copy_from_slice(data);
        }
        MEMBERS => {
            entry.set_entry_type(EntryType::EntryConfChangeV2);
            let changes = from.list(|from| {
                let mut change = ConfChangeSingle::default();
                change.set_change_type(match from.u8()? {
                    0 => ConfChangeType::AddNode,
                    1 => ConfChangeType::RemoveNode,
                    2 => ConfChangeType::AddLearnerNode,
                    _ => return Err(Malformed),
                });
                change.node_id = member(from)?;
                Ok(change)
            })?;
            entry.data = change_entry(changes)?;
        }
        _ => return Err(Malformed),
    }
    Ok(entry)
}

/// A term or an index.
pub fn number(from: &mut In<'_>) -> Result<u64, Malformed> {
    let value = from.u64()?;
    if value < NUMBER_MAX { Ok(value) } else { Err(Malformed) }
}

fn member(from: &mut In<'_>) -> Result<u64, Malformed> {
    match from.u64()? {
        id @ 1..=0x7fff_ffff => Ok(id),
        _ => Err(Malformed),
    }
}

/// Appends a configuration.
pub fn write_members(out: &mut Out, state: &ConfState) {
    for list in [&state.voters, &state.learners, &state.voters_outgoing, &state.learners_next] {
        out.list(list, |out, id| out.u64(*id));
    }
    out.u8(u8::from(state.auto_leave));
}

/// Reads a configuration and checks what the crate would otherwise end the process over.
pub fn read_members(from: &mut In<'_>) -> Result<ConfState, Malformed> {
    let mut state = ConfState {
        voters: from.list(member)?,
        learners: from.list(member)?,
        voters_outgoing: from.list(member)?,
        learners_next: from.list(member)?,
        auto_leave: from.bool()?,
        ..ConfState::default()
    };
    for list in [&mut state.voters, &mut state.learners, &mut state.voters_outgoing, &mut state.learners_next]
    {
        list.sort_unstable();
        if list.windows(2).any(|pair| pair[0] == pair[1]) || list.len() > MEMBERS_MAX {
            return Err(Malformed);
        }
    }
    let voter = |id: &u64| state.voters.contains(id) || state.voters_outgoing.contains(id);
    let joint = !state.voters_outgoing.is_empty();
    let sound = !state.voters.is_empty()
        && !state.learners.iter().any(voter)
        && state
            .learners_next
            .iter()
            .all(|id| state.voters_outgoing.contains(id) && !state.voters.contains(id))
        && (joint || (state.learners_next.is_empty() && !state.auto_leave));
    if sound { Ok(state) } else { Err(Malformed) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(kind: ConfChangeType, id: u64) -> ConfChangeSingle {
        let mut single = ConfChangeSingle::default();
        single.set_change_type(kind);
        single.node_id = id;
        single
    }

    #[test]
    fn entries_round_trip_and_cut_ones_are_refused() {
        let mut members = Entry { term: 3, index: 9, ..Entry::default() };
        members.set_entry_type(EntryType::EntryConfChangeV2);
        let changes = vec![change(ConfChangeType::AddLearnerNode, 4), change(ConfChangeType::RemoveNode, 2)];
        members.data = change_entry(changes).unwrap();
        let mut leave = members.clone();
        leave.data = Bytes::new();
        let data = Entry { term: 3, index: 8, data: Bytes::from_static(b"abc"), ..Entry::default() };
        for entry in [members, leave, data, Entry { term: 1, index: 2, ..Entry::default() }] {
            let mut out = Out::default();
            write(&mut out, &entry);
            let mut from = In(&out.0);
            assert_eq!(read(&mut from), Ok(entry.clone()));
            assert_eq!(from.end(), Ok(()));
            for length in 0..out.0.len() {
                assert!(read(&mut In(&out.0[..length])).is_err(), "{entry:?} cut to {length}");
            }
        }
    }

    #[test]
    fn configurations_the_crate_would_panic_over_are_refused() {
        let read_back = |state: &ConfState| {
            let mut out = Out::default();
            write_members(&mut out, state);
            read_members(&mut In(&out.0))
        };
        let good = ConfState { voters: vec![1, 2, 3], learners: vec![4], ..ConfState::default() };
        assert_eq!(read_back(&good), Ok(good.clone()));
        for bad in [
            ConfState::default(),
            ConfState { voters: vec![1, 1], ..ConfState::default() },
            ConfState { voters: vec![0], ..ConfState::default() },
            ConfState { voters: vec![1], learners: vec![1], ..ConfState::default() },
            ConfState { voters: vec![1], learners_next: vec![2], ..ConfState::default() },
            ConfState { voters: vec![1], auto_leave: true, ..ConfState::default() },
        ] {
            assert!(read_back(&bad).is_err(), "{bad:?}");
        }
    }
}
