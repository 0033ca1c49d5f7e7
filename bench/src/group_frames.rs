//! The requests of group members and their answers, in fixed versions that every broker of the Kafka 4 line serves:
//! FindCoordinator 1, JoinGroup 4, SyncGroup 1, Heartbeat 1, LeaveGroup 1, OffsetCommit 9, OffsetFetch 5 and, of the new
//! protocol, ConsumerGroupHeartbeat 1. Never negotiates.

use crate::Outcome;
use crate::flexible::{compact, put_compact, put_uvarint, tags, uvarint};
use crate::frames::{Reader, finish, put_i32, put_string, start};

const FIND_COORDINATOR: (i16, i16) = (10, 1);
const JOIN_GROUP: (i16, i16) = (11, 4);
const SYNC_GROUP: (i16, i16) = (14, 1);
const HEARTBEAT: (i16, i16) = (12, 1);
const LEAVE_GROUP: (i16, i16) = (13, 1);
const OFFSET_COMMIT: (i16, i16) = (8, 9);
const OFFSET_FETCH: (i16, i16) = (9, 5);
const CONSUMER_GROUP_HEARTBEAT: (i16, i16) = (68, 1);

/// The assignor that members of ours name.
pub const ASSIGNOR: &str = "range";

fn put_blob(out: &mut Vec<u8>, bytes: &[u8]) {
    put_i32(out, bytes.len() as i32);
    out.extend_from_slice(bytes);
}

/// FindCoordinator of a group.
pub fn find_coordinator(id: i32, group: &str) -> Vec<u8> {
    let mut out = start(FIND_COORDINATOR, id);
    put_string(&mut out, group);
    out.push(0);
    finish(out)
}

/// Error code and address of a coordinator.
pub fn coordinator(frame: &[u8]) -> Outcome<(i16, String)> {
    let mut reader = Reader::new(frame);
    reader.take(8)?;
    let error = reader.i16()?;
    reader.string()?;
    reader.i32()?;
    let host = reader.string()?.to_string();
    Ok((error, format!("{host}:{}", reader.i32()?)))
}

/// JoinGroup of a consumer of one topic with the assignor [`ASSIGNOR`].
pub fn join(id: i32, group: &str, member_id: &str, topic: &str) -> Vec<u8> {
    let mut subscription = vec![0, 0];
    put_i32(&mut subscription, 1);
    put_string(&mut subscription, topic);
    put_i32(&mut subscription, -1);
    let mut out = start(JOIN_GROUP, id);
    put_string(&mut out, group);
    put_i32(&mut out, 30_000);
    put_i32(&mut out, 60_000);
    put_string(&mut out, member_id);
    put_string(&mut out, "consumer");
    put_i32(&mut out, 1);
    put_string(&mut out, ASSIGNOR);
    put_blob(&mut out, &subscription);
    finish(out)
}

/// An answer to JoinGroup.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Joined {
    pub error: i16,
    pub generation: i32,
    pub leader: String,
    pub member_id: String,
    /// All members, for the leader.
    pub members: Vec<String>,
}

/// Reads a JoinGroup answer.
pub fn joined(frame: &[u8]) -> Outcome<Joined> {
    let mut reader = Reader::new(frame);
    reader.take(8)?;
    let (error, generation) = (reader.i16()?, reader.i32()?);
    reader.string()?;
    let (leader, member_id) = (reader.string()?.to_string(), reader.string()?.to_string());
    let mut joined = Joined { error, generation, leader, member_id, members: Vec::new() };
    for _ in 0..reader.count()? {
        joined.members.push(reader.string()?.to_string());
        reader.blob()?;
    }
    Ok(joined)
}

/// SyncGroup; the leader brings everyone's partitions of `topic`.
pub fn sync(
    id: i32,
    group: &str,
    generation: i32,
    member_id: &str,
    topic: &str,
    given: &[(String, Vec<i32>)],
) -> Vec<u8> {
    let mut out = start(SYNC_GROUP, id);
    put_string(&mut out, group);
    put_i32(&mut out, generation);
    put_string(&mut out, member_id);
    put_i32(&mut out, given.len() as i32);
    for (member, partitions) in given {
        let mut assignment = vec![0, 0];
        put_i32(&mut assignment, 1);
        put_string(&mut assignment, topic);
        put_i32(&mut assignment, partitions.len() as i32);
        partitions.iter().for_each(|partition| put_i32(&mut assignment, *partition));
        put_i32(&mut assignment, -1);
        put_string(&mut out, member);
        put_blob(&mut out, &assignment);
    }
    finish(out)
}

/// Error code and partitions (of the one topic) of a SyncGroup answer.
pub fn synced(frame: &[u8]) -> Outcome<(i16, Vec<i32>)> {
    let mut reader = Reader::new(frame);
    reader.take(8)?;
    let error = reader.i16()?;
    let mut assignment = Reader::new(reader.blob()?);
    let mut partitions = Vec::new();
    if error == 0 {
        assignment.i16()?;
        for _ in 0..assignment.count()? {
            assignment.string()?;
            for _ in 0..assignment.count()? {
                partitions.push(assignment.i32()?);
            }
        }
    }
    Ok((error, partitions))
}

/// Heartbeat.
pub fn heartbeat(id: i32, group: &str, generation: i32, member_id: &str) -> Vec<u8> {
    let mut out = start(HEARTBEAT, id);
    put_string(&mut out, group);
    put_i32(&mut out, generation);
    put_string(&mut out, member_id);
    finish(out)
}

/// LeaveGroup.
pub fn leave(id: i32, group: &str, member_id: &str) -> Vec<u8> {
    let mut out = start(LEAVE_GROUP, id);
    put_string(&mut out, group);
    put_string(&mut out, member_id);
    finish(out)
}

/// The error code of an answer to Heartbeat or LeaveGroup.
pub fn error_only(frame: &[u8]) -> Outcome<i16> {
    let mut reader = Reader::new(frame);
    reader.take(8)?;
    reader.i16()
}

/// OffsetCommit of partitions of one topic; from outside of the group with generation -1 and no member id. (Version 9 is
/// the first that members of the new protocol may use.)
pub fn commit(
    id: i32,
    group: &str,
    generation: i32,
    member_id: &str,
    topic: &str,
    offsets: &[(i32, i64)],
) -> Vec<u8> {
    let mut out = start(OFFSET_COMMIT, id);
    out.push(0);
    put_compact(&mut out, group);
    put_i32(&mut out, generation);
    put_compact(&mut out, member_id);
    out.extend_from_slice(&[0, 2]);
    put_compact(&mut out, topic);
    put_uvarint(&mut out, offsets.len() + 1);
    for (partition, offset) in offsets {
        put_i32(&mut out, *partition);
        out.extend_from_slice(&offset.to_be_bytes());
        put_i32(&mut out, -1);
        put_compact(&mut out, "");
        out.push(0);
    }
    out.extend_from_slice(&[0, 0]);
    finish(out)
}

/// The first error code of an OffsetCommit answer, 0 if there is none; an answer without partitions is an error.
pub fn committed(frame: &[u8]) -> Outcome<i16> {
    let mut reader = Reader::new(frame);
    reader.i32()?;
    tags(&mut reader)?;
    reader.i32()?;
    let (mut first, mut seen) = (0, 0);
    for _ in 1..uvarint(&mut reader)? {
        compact(&mut reader)?;
        for _ in 1..uvarint(&mut reader)? {
            reader.i32()?;
            let error = reader.i16()?;
            tags(&mut reader)?;
            first = if first == 0 { error } else { first };
            seen += 1;
        }
        tags(&mut reader)?;
    }
    if seen == 0 { Err("OffsetCommit was answered for no partition".into()) } else { Ok(first) }
}

/// OffsetFetch of partitions of one topic.
pub fn fetch_offsets(id: i32, group: &str, topic: &str, partitions: &[i32]) -> Vec<u8> {
    let mut out = start(OFFSET_FETCH, id);
    put_string(&mut out, group);
    put_i32(&mut out, 1);
    put_string(&mut out, topic);
    put_i32(&mut out, partitions.len() as i32);
    partitions.iter().for_each(|partition| put_i32(&mut out, *partition));
    finish(out)
}

/// Error code, and partition with committed offset (-1: none), of an OffsetFetch answer.
pub fn fetched_offsets(frame: &[u8]) -> Outcome<(i16, Vec<(i32, i64)>)> {
    let mut reader = Reader::new(frame);
    reader.take(8)?;
    let (mut offsets, mut error) = (Vec::new(), 0);
    for _ in 0..reader.count()? {
        reader.string()?;
        for _ in 0..reader.count()? {
            let (partition, offset) = (reader.i32()?, reader.i64()?);
            reader.i32()?;
            reader.string()?;
            let of_partition = reader.i16()?;
            error = if error == 0 { of_partition } else { error };
            offsets.push((partition, offset));
        }
    }
    let whole = reader.i16()?;
    Ok((if whole == 0 { error } else { whole }, offsets))
}

/// What a member of the new protocol says in a heartbeat.
#[derive(Clone, Debug)]
pub struct Beat<'a> {
    pub group: &'a str,
    pub member_id: &'a str,
    /// 0 joins, -1 leaves.
    pub epoch: i32,
    /// The topic, when it is to be said again.
    pub topic: Option<&'a str>,
    /// Topic id and the partitions of it that are owned, when that is to be said.
    pub owned: Option<([u8; 16], &'a [i32])>,
}

/// ConsumerGroupHeartbeat.
pub fn beat(id: i32, beat: &Beat<'_>) -> Vec<u8> {
    let mut out = start(CONSUMER_GROUP_HEARTBEAT, id);
    out.push(0);
    put_compact(&mut out, beat.group);
    put_compact(&mut out, beat.member_id);
    put_i32(&mut out, beat.epoch);
    out.extend_from_slice(&[0, 0]);
    put_i32(&mut out, if beat.topic.is_some() { 60_000 } else { -1 });
    match beat.topic {
        None => out.push(0),
        Some(topic) => {
            out.push(2);
            put_compact(&mut out, topic);
        }
    }
    out.extend_from_slice(&[0, 0]);
    match beat.owned {
        None => out.push(0),
        Some((_, [])) => out.push(1),
        Some((topic_id, partitions)) => {
            out.push(2);
            out.extend_from_slice(&topic_id);
            put_uvarint(&mut out, partitions.len() + 1);
            partitions.iter().for_each(|partition| put_i32(&mut out, *partition));
            out.push(0);
        }
    }
    out.push(0);
    finish(out)
}

/// An answer to ConsumerGroupHeartbeat.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Beaten {
    pub error: i16,
    pub message: String,
    pub epoch: i32,
    /// Topic id and partitions, when the broker says what the member shall own; partitions of several topics run together.
    pub assignment: Option<([u8; 16], Vec<i32>)>,
}

/// Reads a ConsumerGroupHeartbeat answer.
pub fn beaten(frame: &[u8]) -> Outcome<Beaten> {
    let mut reader = Reader::new(frame);
    reader.i32()?;
    tags(&mut reader)?;
    reader.i32()?;
    let error = reader.i16()?;
    let message = compact(&mut reader)?;
    compact(&mut reader)?;
    let epoch = reader.i32()?;
    reader.i32()?;
    let mut beaten = Beaten { error, message, epoch, assignment: None };
    if reader.take(1)?[0] as i8 >= 0 {
        let (mut topic_id, mut partitions) = ([0; 16], Vec::new());
        for _ in 1..uvarint(&mut reader)? {
            topic_id = reader.take(16)?.try_into().expect("sixteen bytes");
            for _ in 1..uvarint(&mut reader)? {
                partitions.push(reader.i32()?);
            }
            tags(&mut reader)?;
        }
        tags(&mut reader)?;
        beaten.assignment = Some((topic_id, partitions));
    }
    Ok(beaten)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read() {
        let mut frame = vec![0; 8];
        frame.extend_from_slice(&[0, 0]);
        let mut assignment = vec![0, 0, 0, 0, 0, 1, 0, 1, b't'];
        put_i32(&mut assignment, 2);
        put_i32(&mut assignment, 3);
        put_i32(&mut assignment, 5);
        put_i32(&mut assignment, -1);
        put_blob(&mut frame, &assignment);
        assert_eq!(synced(&frame), Ok((0, vec![3, 5])));
        let mut frame = vec![0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 3, b'm', b'1', 0, 0, 0, 4, 0, 0, 0, 9, 1, 2];
        frame.extend_from_slice(&[7; 16]);
        frame.extend_from_slice(&[2, 0, 0, 0, 8, 0, 0, 0]);
        let read = beaten(&frame).unwrap();
        assert_eq!((read.epoch, read.assignment), (4, Some(([7; 16], vec![8]))));
        let answer =
            [0, 0, 0, 7, 0, 0, 0, 0, 0, 2, 2, b't', 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 22, 0, 0, 0];
        assert_eq!(committed(&answer), Ok(22), "one of two was refused");
        let error = [0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 110, 2, b'x', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0];
        let read = beaten(&error).unwrap();
        assert_eq!((read.error, read.message.as_str(), read.assignment), (110, "x", None));
    }

    #[test]
    fn frames_that_end_early_are_errors() {
        let whole = [0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 110, 2, b'x', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0];
        for length in 0..whole.len() - 1 {
            assert!(beaten(&whole[..length]).is_err(), "{length}");
        }
        assert!(joined(&[0; 9]).is_err() && synced(&[0; 9]).is_err() && committed(&[0; 10]).is_err());
    }
}
