//! What a message between nodes is, as far as it is told apart here: read from its bytes, held to the broker's own encoders by tests.

/// Kinds of messages: see `Kind` of pelton-cluster.
const REPLICA: u8 = 5;
const MEMBER: u8 = 6;
/// Where a member's frame says what it is: behind magic, version, cluster, sender and receiver.
const MEMBER_CODE: usize = 21;
/// Where a request's kind is, behind its token.
const ASK_CODE: usize = 30;
/// Where a frame of the quorum says whether it is a message or a part of a snapshot.
const QUORUM_KIND: usize = 5;
/// Where a message of the quorum says what it is: behind magic, version, kind and envelope.
const QUORUM_CODE: usize = 38;

const QUORUM_MAGIC: [u8; 4] = 0x314d_5150u32.to_le_bytes();
const NODE_MAGIC: [u8; 4] = 0x314d_4e50u32.to_le_bytes();

/// Which messages are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// Every one.
    All,
    /// Entries of the metadata, and that they are committed.
    Entries,
    /// A voter stands for election, or asks whether it should.
    Candidacies,
    /// A node asks for its lease.
    Renewals,
    /// A leader asks for another ISR.
    Isr,
    /// A node that stops says that it does nothing more.
    Farewell,
    /// The controller answers.
    Answers,
    /// The controller asks a leader to hand over.
    Transfers,
    /// A leader answers a follower that asks for the log.
    JoinAnswers,
    /// Batches, and news of the high watermark.
    Appends,
    /// How far a follower is.
    Acks,
}

impl What {
    /// A message: its kind and its body.
    pub fn means(self, message: &[u8]) -> bool {
        let Some((kind, body)) = message.split_first() else { return false };
        let at = |magic: [u8; 4], place: usize, code: u8| {
            *kind == MEMBER && body.starts_with(&magic) && body.get(place) == Some(&code)
        };
        let quorum = |code| at(QUORUM_MAGIC, QUORUM_KIND, 1) && at(QUORUM_MAGIC, QUORUM_CODE, code);
        let asks = |code| at(NODE_MAGIC, MEMBER_CODE, 4) && body.get(ASK_CODE) == Some(&code);
        // A length in front.
        let replica = |codes: &[u8]| *kind == REPLICA && body.get(1).is_some_and(|code| codes.contains(code));
        match self {
            What::All => true,
            What::Entries => quorum(1),
            What::Candidacies => quorum(3) || quorum(8),
            What::Renewals => at(NODE_MAGIC, MEMBER_CODE, 1),
            What::Isr => asks(2),
            What::Farewell => asks(4),
            What::Answers => at(NODE_MAGIC, MEMBER_CODE, 5),
            What::Transfers => at(NODE_MAGIC, MEMBER_CODE, 6),
            What::JoinAnswers => replica(&[2, 3, 4, 5]),
            What::Appends => replica(&[6]),
            What::Acks => replica(&[7]),
        }
    }
}

/// Topic, partition and leader epoch of a message of replicas, as bytes.
pub fn leadership(message: &[u8]) -> &[u8] {
    message.get(3..27).unwrap_or_default()
}

/// Of a follower whose log differs from its leader's: the answer to its question says so.
pub fn differs(message: &[u8]) -> bool {
    What::JoinAnswers.means(message) && message.get(2) == Some(&3)
}

#[cfg(test)]
mod tests {
    use super::*;
    use pelton_cluster::control::asks::{Answer, Ask};
    use pelton_cluster::control::isr::Asker;
    use pelton_cluster::lease::Renewal;
    use pelton_cluster::node_message::{NodeMessage, encode};
    use pelton_model::{
        LeaderEpoch, NodeEpoch, NodeId, Offset, PartitionKey, ReplicaEpoch, ShardEpoch, TopicId,
    };
    use pelton_replica::frame::{Body, Frame, Verdict};

    const ALL: [What; 10] = [
        What::Entries,
        What::Candidacies,
        What::Renewals,
        What::Isr,
        What::Farewell,
        What::Answers,
        What::Transfers,
        What::JoinAnswers,
        What::Appends,
        What::Acks,
    ];

    /// All that mean a message.
    fn meaning(message: &[u8]) -> Vec<What> {
        ALL.into_iter().filter(|what| what.means(message)).collect()
    }

    #[test]
    fn frames_of_members_are_told_apart() {
        let said = |message: NodeMessage| {
            let frame = encode(7, NodeId(1), NodeId(2), &message).unwrap();
            meaning(&[&[MEMBER][..], &frame].concat())
        };
        let (node, epoch) = (NodeId(1), NodeEpoch(5));
        let asker = Asker { node, epoch };
        assert_eq!(
            said(NodeMessage::Renew(Renewal { node, epoch, sequence: 4, applied: 4 })),
            [What::Renewals]
        );
        assert_eq!(said(NodeMessage::Ask(2, Ask::AlterIsr { asker, changes: Vec::new() })), [What::Isr]);
        assert_eq!(said(NodeMessage::Ask(4, Ask::Shutdown { asker })), [What::Farewell]);
        assert_eq!(said(NodeMessage::Answer(2, Answer::Done, None)), [What::Answers]);
        assert!(said(NodeMessage::Unknown(epoch)).is_empty());
    }

    /// Two members, one of which is elected: votes, then entries.
    #[test]
    fn frames_of_the_quorum_are_told_apart() {
        use pelton_cluster::quorum::{Quorum, QuorumConfig, QuorumEffect, Role, bootstrap};
        let voters = [NodeId(1), NodeId(2)];
        let member = |node: i32| {
            let config = QuorumConfig::new(NodeId(node), 7, node as u64);
            Quorum::new(config, bootstrap(&voters), node as u64).unwrap()
        };
        let (mut members, mut out) = ([member(1), member(2)], Vec::new());
        members[0].campaign(&mut out);
        let mut said: Vec<(bool, Option<What>)> = Vec::new();
        let mut due: Vec<(usize, QuorumEffect)> = out.into_iter().map(|effect| (0, effect)).collect();
        while let Some((at, effect)) = due.pop() {
            let (mut out, mut by) = (Vec::new(), at);
            match effect {
                QuorumEffect::Persist { number, .. } => members[at].persisted(number, &mut out),
                QuorumEffect::Send { frame, .. } => {
                    let means = meaning(&[&[MEMBER][..], &frame].concat());
                    let leads = matches!(members[at].role(), Role::Leader { .. });
                    assert!(means.len() < 2);
                    said.push((leads, means.first().copied()));
                    by = 1 - at;
                    let _ = members[by].receive(voters[at], &frame, &mut out);
                }
                _ => {}
            }
            due.splice(0..0, out.into_iter().rev().map(|effect| (by, effect)));
        }
        for wanted in [(true, Some(What::Entries)), (false, Some(What::Candidacies)), (false, None)] {
            assert!(said.contains(&wanted), "{said:?}");
        }
        assert!(!said.contains(&(false, Some(What::Entries))), "entries are a leader's: {said:?}");
    }

    #[test]
    fn frames_of_replicas_are_told_apart() {
        let partition = PartitionKey { topic_id: TopicId(uuid::Uuid::nil()), partition: 3 };
        let said = |body: Body| {
            let frame = Frame { partition, leader_epoch: LeaderEpoch(9), body }.encode();
            [&[REPLICA, frame.as_slice().len() as u8][..], frame.as_slice()].concat()
        };
        let replica_epoch = ReplicaEpoch { node_epoch: NodeEpoch(1), shard_epoch: ShardEpoch(0) };
        let end = Offset(4);
        let answer = |verdict| Body::Answer { join: 1, verdict, high_watermark: end, log_start: end };
        let join = Body::Join { replica_epoch, join: 1, log_end: end, last_epoch: 2, window_bytes: 1 };
        let append =
            Body::Append { prev_offset: end, prev_epoch: 1, high_watermark: end, log_start: end, bytes: 0 };
        let ack = Body::Ack { replica_epoch, written_end: end, flushed_end: end, high_watermark: end };
        let parted = said(answer(Verdict::Diverged { epoch: 1, end }));
        assert!(meaning(&said(join)).is_empty());
        assert_eq!(meaning(&said(append)), [What::Appends]);
        assert_eq!(meaning(&said(ack)), [What::Acks]);
        assert_eq!(meaning(&parted), [What::JoinAnswers]);
        assert!(differs(&parted) && !differs(&said(answer(Verdict::Matches))));
        assert_eq!(leadership(&parted)[16..], [3, 0, 0, 0, 9, 0, 0, 0]);
    }
}
