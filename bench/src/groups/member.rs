//! Members of a group, one thread and one connection each, as a client of Kafka's behaves: classic ones join, sync and give
//! everything up when the group rebalances; those of the new protocol take and give back what the heartbeat says, and say
//! so at once. Only the board says how it went.

use super::board::Board;
use crate::Outcome;
use crate::group_client::{
    GroupClient, ILLEGAL_GENERATION, MEMBER_ID_REQUIRED, MOVES, REBALANCE, UNKNOWN_MEMBER, new_member_id,
};
use crate::group_frames::Beat;
use std::time::Duration;

/// FENCED_MEMBER_EPOCH.
const FENCED: i16 = 110;

/// Which protocol a group speaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Protocol {
    Classic,
    Consumer,
}

/// The group a member belongs to.
#[derive(Clone, Debug)]
pub struct Membership {
    pub protocol: Protocol,
    pub group: String,
    pub topic: String,
    pub partitions: i32,
    /// How often members say that they live.
    pub heartbeat: Duration,
}

impl Membership {
    /// Runs member number `me` until it is told to leave.
    pub fn run(&self, me: usize, client: &mut GroupClient, board: &Board) -> Outcome<()> {
        match self.protocol {
            Protocol::Classic => self.classic(me, client, board),
            Protocol::Consumer => self.consumer(me, client, board),
        }
    }

    fn classic(&self, me: usize, client: &mut GroupClient, board: &Board) -> Outcome<()> {
        let mut member_id = String::new();
        board.begins();
        loop {
            board.post(me, None);
            let joined = client.join(&member_id, &self.topic)?;
            match joined.error {
                0 | MEMBER_ID_REQUIRED => member_id = joined.member_id.clone(),
                UNKNOWN_MEMBER => member_id.clear(),
                code if code == REBALANCE || MOVES.contains(&code) => pause(),
                code => return Err(format!("JoinGroup: error code {code}")),
            }
            if joined.error != 0 {
                continue;
            }
            let given = if joined.leader == member_id { self.range(joined.members) } else { Vec::new() };
            let (error, partitions) = client.sync(joined.generation, &member_id, &self.topic, &given)?;
            match error {
                0 => board.post(me, Some((joined.generation, partitions))),
                REBALANCE | ILLEGAL_GENERATION => continue,
                UNKNOWN_MEMBER => {
                    member_id.clear();
                    continue;
                }
                code => return Err(format!("SyncGroup: error code {code}")),
            }
            if self.stay(me, client, board, joined.generation, &mut member_id)? {
                return Ok(());
            }
        }
    }

    /// Heartbeats until the group rebalances (false) or the member has left (true).
    fn stay(
        &self,
        me: usize,
        client: &mut GroupClient,
        board: &Board,
        generation: i32,
        member_id: &mut String,
    ) -> Outcome<bool> {
        loop {
            if board.told_to_leave(me, self.heartbeat) {
                board.leaves_now(me);
                return match client.leave(member_id)? {
                    0 | UNKNOWN_MEMBER => Ok(true),
                    code => Err(format!("LeaveGroup: error code {code}")),
                };
            }
            match client.heartbeat(generation, member_id)? {
                0 => {}
                REBALANCE | ILLEGAL_GENERATION => return Ok(false),
                UNKNOWN_MEMBER => {
                    member_id.clear();
                    return Ok(false);
                }
                code => return Err(format!("Heartbeat: error code {code}")),
            }
        }
    }

    /// Partitions in runs, the first members get one more.
    fn range(&self, mut members: Vec<String>) -> Vec<(String, Vec<i32>)> {
        members.sort();
        let count = members.len() as i32;
        let mut next = 0;
        let mut share = |(index, member): (usize, String)| {
            let more = i32::from((index as i32) < self.partitions % count);
            let from = next;
            next += self.partitions / count + more;
            (member, (from..next).collect())
        };
        members.into_iter().enumerate().map(&mut share).collect()
    }

    fn consumer(&self, me: usize, client: &mut GroupClient, board: &Board) -> Outcome<()> {
        let member_id = new_member_id(me as u64);
        let (mut epoch, mut topic_id, mut owned) = (0, [0; 16], Vec::new());
        // What is said beside being alive: everything on joining, what is owned after it has changed.
        let mut news = true;
        board.begins();
        loop {
            let answer = client.beat(&Beat {
                group: &self.group,
                member_id: &member_id,
                epoch,
                topic: (epoch == 0).then_some(&self.topic),
                owned: news.then_some((topic_id, &owned)),
            })?;
            match answer.error {
                0 => {}
                FENCED | UNKNOWN_MEMBER => {
                    board.post(me, None);
                    (epoch, owned, news) = (0, Vec::new(), true);
                    continue;
                }
                code if MOVES.contains(&code) => {
                    pause();
                    continue;
                }
                code => return Err(format!("ConsumerGroupHeartbeat: error code {code} {}", answer.message)),
            }
            (epoch, news) = (answer.epoch, false);
            if let Some((id, partitions)) = answer.assignment
                && partitions != owned
            {
                // A client takes up its partitions or gives them back and says so without waiting.
                (topic_id, owned, news) = (id, partitions, true);
                continue;
            }
            board.post(me, Some((epoch, owned.clone())));
            if board.told_to_leave(me, self.heartbeat) {
                board.leaves_now(me);
                let last =
                    Beat { group: &self.group, member_id: &member_id, epoch: -1, topic: None, owned: None };
                return match client.beat(&last)?.error {
                    0 | UNKNOWN_MEMBER => Ok(()),
                    code => Err(format!("leaving: error code {code}")),
                };
            }
        }
    }
}

fn pause() {
    std::thread::sleep(Duration::from_millis(5));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_cover_every_partition_once() {
        let of = Membership {
            protocol: Protocol::Classic,
            group: String::new(),
            topic: String::new(),
            partitions: 7,
            heartbeat: Duration::ZERO,
        };
        let given = of.range(vec!["c".into(), "a".into(), "b".into()]);
        let expected: Vec<(String, Vec<i32>)> =
            vec![("a".into(), vec![0, 1, 2]), ("b".into(), vec![3, 4]), ("c".into(), vec![5, 6])];
        assert_eq!(given, expected);
    }
}
