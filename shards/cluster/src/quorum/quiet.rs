//! How long no earlier leader can have had an answer of those who elected this one: the time of an election need not be waited for
//! again before leases of the predecessor count as ended (rule L5).
//!
//! A grant of an earlier leader was confirmed by a majority after it was asked for. One of those who answered elected the next
//! leader, and says with its vote how long ago it last heard any leader, or was one. So that confirmation, and with it the
//! instant from which the lease counts, lies at least the least of these times back; each is measured on one clock, from the later
//! event to the earlier one, and a member that has just started counts from its start.

use std::collections::BTreeMap;

use bytes::Bytes;
use raft::StateRole;
use raft::eraftpb::{Message, MessageType};

/// What a member knows about it.
#[derive(Default)]
pub(super) struct Quiet {
    /// A tick, milliseconds; 0 = nothing is ever claimed.
    tick_ms: u64,
    /// Ticks since a leader was heard, or since this member was one.
    ticks: u64,
    /// What those say who vote for this member in the term, milliseconds.
    votes: (u64, BTreeMap<u64, u64>),
    /// Fault on purpose: what leaders say does not count as heard.
    pub(super) deaf: bool,
}

impl Quiet {
    pub(super) fn new(tick_ms: u64) -> Quiet {
        Quiet { tick_ms, ..Quiet::default() }
    }

    pub(super) fn tick(&mut self, state: StateRole) {
        self.ticks = if state == StateRole::Leader { 0 } else { self.ticks + 1 };
    }

    /// The first tick may come at once behind what was heard.
    fn ms(&self) -> u64 {
        self.ticks.saturating_sub(1) * self.tick_ms
    }

    /// A message is about to be sent.
    pub(super) fn mark(&self, message: &mut Message) {
        if message.get_msg_type() == MessageType::MsgRequestVoteResponse && !message.reject {
            message.context = Bytes::copy_from_slice(&self.ms().to_le_bytes());
        }
    }

    /// A message has come, and is taken by the member whose term is `term`.
    pub(super) fn note(&mut self, message: &mut Message, term: u64) {
        match message.get_msg_type() {
            MessageType::MsgHeartbeat | MessageType::MsgAppend | MessageType::MsgSnapshot if !self.deaf => {
                self.ticks = 0;
            }
            MessageType::MsgRequestVoteResponse if !message.reject && message.term == term => {
                let quiet = <[u8; 8]>::try_from(&message.context[..]).map_or(0, u64::from_le_bytes);
                message.context = Bytes::new();
                if self.votes.0 != term {
                    self.votes = (term, BTreeMap::new());
                }
                // One that comes twice counts as it came first, which is the lesser.
                self.votes.1.entry(message.from).or_insert(quiet);
            }
            _ => {}
        }
    }

    /// This member has just been elected in `term`.
    pub(super) fn elected_ms(&self, term: u64) -> u64 {
        let votes = (self.votes.0 == term).then(|| self.votes.1.values().copied().min()).flatten();
        votes.unwrap_or(u64::MAX).min(self.ms())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: MessageType, from: u64, term: u64) -> Message {
        let mut message = Message { from, term, ..Message::default() };
        message.set_msg_type(kind);
        message
    }

    fn vote(quiet: &Quiet, from: u64, term: u64) -> Message {
        let mut vote = message(MessageType::MsgRequestVoteResponse, from, term);
        quiet.mark(&mut vote);
        vote
    }

    fn after(ticks: u64) -> Quiet {
        let mut quiet = Quiet::new(50);
        (0..ticks).for_each(|_| quiet.tick(StateRole::Follower));
        quiet
    }

    #[test]
    fn the_least_of_those_who_elected_counts() {
        let mut elected = after(15);
        assert_eq!(elected.elected_ms(1), 700, "the only voter, that long after it started or led");
        let mut late = vote(&after(11), 2, 4);
        elected.note(&mut late, 4);
        assert!(late.context.is_empty(), "the crate gets what it knows");
        elected.note(&mut vote(&after(9), 3, 4), 4);
        elected.note(&mut vote(&after(20), 3, 4), 4);
        assert_eq!(elected.elected_ms(4), 400);
        elected.note(&mut vote(&after(13), 2, 5), 5);
        assert_eq!(elected.elected_ms(5), 600, "votes of an earlier term are none");
        let mut refused = message(MessageType::MsgRequestVoteResponse, 3, 5);
        refused.reject = true;
        elected.note(&mut refused, 5);
        assert_eq!(elected.elected_ms(5), 600);
        elected.note(&mut message(MessageType::MsgRequestVoteResponse, 3, 5), 5);
        assert_eq!(elected.elected_ms(5), 0, "a vote that says nothing");
    }

    #[test]
    fn leaders_are_heard_and_a_leader_hears_itself() {
        for kind in [MessageType::MsgHeartbeat, MessageType::MsgAppend, MessageType::MsgSnapshot] {
            let mut quiet = after(12);
            quiet.note(&mut message(kind, 2, 3), 3);
            assert_eq!(quiet.ms(), 0);
            quiet.tick(StateRole::Follower);
            assert_eq!(quiet.ms(), 0, "the tick may have been due");
            quiet.tick(StateRole::Candidate);
            assert_eq!(quiet.ms(), 50);
            quiet.tick(StateRole::Leader);
            assert_eq!(quiet.ms(), 0);
        }
        let mut untold = Quiet::new(0);
        (0..100).for_each(|_| untold.tick(StateRole::Follower));
        assert_eq!(untold.ms(), 0);
    }
}
