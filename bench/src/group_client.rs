//! A blocking connection to a group's coordinator. One request, one answer; errors that pass are the caller's to try again.

use crate::client::Client;
use crate::group_frames::{self as frames, Beat, Beaten, Joined};
use crate::{Outcome, sys};
use std::time::{Duration, Instant};

/// Error codes that a group has while it moves or loads: worth asking again.
pub const MOVES: &[i16] = &[14, 15, 16];
/// ILLEGAL_GENERATION.
pub const ILLEGAL_GENERATION: i16 = 22;
/// UNKNOWN_MEMBER_ID.
pub const UNKNOWN_MEMBER: i16 = 25;
/// REBALANCE_IN_PROGRESS.
pub const REBALANCE: i16 = 27;
/// MEMBER_ID_REQUIRED.
pub const MEMBER_ID_REQUIRED: i16 = 79;

/// A connection to the coordinator of one group.
#[derive(Debug)]
pub struct GroupClient {
    client: Client,
    group: String,
}

impl GroupClient {
    /// Finds the coordinator of `group` and connects to it; tries again for `patience` while there is none. Answers are
    /// waited for at most `timeout`.
    pub fn connect(
        bootstrap: &str,
        group: &str,
        patience: Duration,
        timeout: Duration,
    ) -> Outcome<GroupClient> {
        let deadline = Instant::now() + patience;
        loop {
            let why = match find(bootstrap, group, timeout) {
                Ok((0, address)) => match Client::connect(&address, timeout) {
                    Ok(client) => return Ok(GroupClient { client, group: group.to_string() }),
                    Err(error) => error,
                },
                Ok((code, _)) => format!("FindCoordinator: error code {code}"),
                Err(error) => error,
            };
            if Instant::now() >= deadline {
                return Err(format!("group {group}: {why}"));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// JoinGroup; waits for the other members.
    pub fn join(&mut self, member_id: &str, topic: &str) -> Outcome<Joined> {
        let id = self.client.id();
        frames::joined(self.client.call(id, &frames::join(id, &self.group, member_id, topic))?)
    }

    /// SyncGroup: error code and partitions.
    pub fn sync(
        &mut self,
        generation: i32,
        member_id: &str,
        topic: &str,
        given: &[(String, Vec<i32>)],
    ) -> Outcome<(i16, Vec<i32>)> {
        let id = self.client.id();
        let frame = frames::sync(id, &self.group, generation, member_id, topic, given);
        frames::synced(self.client.call(id, &frame)?)
    }

    /// Heartbeat: error code.
    pub fn heartbeat(&mut self, generation: i32, member_id: &str) -> Outcome<i16> {
        let id = self.client.id();
        frames::error_only(self.client.call(id, &frames::heartbeat(id, &self.group, generation, member_id))?)
    }

    /// LeaveGroup: error code.
    pub fn leave(&mut self, member_id: &str) -> Outcome<i16> {
        let id = self.client.id();
        frames::error_only(self.client.call(id, &frames::leave(id, &self.group, member_id))?)
    }

    /// OffsetCommit: the first error code.
    pub fn commit(
        &mut self,
        generation: i32,
        member_id: &str,
        topic: &str,
        offsets: &[(i32, i64)],
    ) -> Outcome<i16> {
        let id = self.client.id();
        let frame = frames::commit(id, &self.group, generation, member_id, topic, offsets);
        frames::committed(self.client.call(id, &frame)?)
    }

    /// OffsetFetch: error code, partitions with offsets.
    pub fn offsets(&mut self, topic: &str, partitions: &[i32]) -> Outcome<(i16, Vec<(i32, i64)>)> {
        let id = self.client.id();
        frames::fetched_offsets(
            self.client.call(id, &frames::fetch_offsets(id, &self.group, topic, partitions))?,
        )
    }

    /// ConsumerGroupHeartbeat.
    pub fn beat(&mut self, beat: &Beat<'_>) -> Outcome<Beaten> {
        let id = self.client.id();
        frames::beaten(self.client.call(id, &frames::beat(id, beat))?)
    }

    /// Joins as the only member, with all of the `partitions` of `topic`: the generation. `member_id` is what is known
    /// of an earlier membership, and becomes what it is now.
    pub fn join_alone(&mut self, member_id: &mut String, topic: &str, partitions: i32) -> Outcome<i32> {
        let deadline = Instant::now() + Duration::from_secs(60);
        while Instant::now() < deadline {
            let joined = self.join(member_id, topic)?;
            match joined.error {
                0 | MEMBER_ID_REQUIRED => *member_id = joined.member_id,
                UNKNOWN_MEMBER => member_id.clear(),
                code if MOVES.contains(&code) || code == REBALANCE => pause(),
                code => return Err(format!("JoinGroup: error code {code}")),
            }
            if joined.error != 0 {
                continue;
            }
            let given = vec![(member_id.clone(), (0..partitions).collect())];
            match self.sync(joined.generation, member_id, topic, &given)? {
                (0, all) if all.len() == partitions as usize => return Ok(joined.generation),
                (0, some) => return Err(format!("{} of {partitions} partitions were given", some.len())),
                (UNKNOWN_MEMBER, _) => member_id.clear(),
                (code, _) if MOVES.contains(&code) || [REBALANCE, ILLEGAL_GENERATION].contains(&code) => {
                    pause()
                }
                (code, _) => return Err(format!("SyncGroup: error code {code}")),
            }
        }
        Err(format!("group {}: not joined within a minute", self.group))
    }
}

fn pause() {
    std::thread::sleep(Duration::from_millis(20));
}

fn find(bootstrap: &str, group: &str, timeout: Duration) -> Outcome<(i16, String)> {
    let mut client = Client::connect(bootstrap, timeout)?;
    let id = client.id();
    frames::coordinator(client.call(id, &frames::find_coordinator(id, group))?)
}

/// A member id as clients of the new protocol make one up: 22 characters, different for each call.
pub fn new_member_id(seed: u64) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut state = seed ^ sys::unique() | 1;
    let mut letter = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        LETTERS[(state >> 20) as usize % 64] as char
    };
    (0..22).map(|_| letter()).collect()
}
