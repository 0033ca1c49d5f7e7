//! What a peer says, held against this node's own log before the crate `raft` sees it: where the crate would end the
//! process, the message is refused and the process lives.

use pelton_model::NodeId;
use raft::eraftpb::{Message, MessageType};
use raft::{RawNode, StateRole};

use crate::quorum::store::Store;

/// Why a frame is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refused {
    /// Not a frame of ours.
    #[error("a frame of the quorum is damaged or of another release")]
    Malformed,
    /// Meant for another cluster.
    #[error(
        "a member of another cluster speaks to this node; compare the cluster ids and the addresses in --cluster"
    )]
    OtherCluster,
    /// Meant for another node.
    #[error(
        "a frame of the quorum is meant for another node; compare the node ids and the addresses in --cluster"
    )]
    OtherNode,
    /// It says to be of a node that it is not from.
    #[error(
        "node {} sends a frame in the name of node {}; it runs a damaged program, or somebody else knows the cluster's secret",
        is.0, says.0
    )]
    OtherSender {
        /// Whose it says to be.
        says: NodeId,
        /// Whose connection it came over.
        is: NodeId,
    },
    /// A node that was set up anew speaks under the id of its predecessor.
    #[error(
        "node {0} speaks from another data directory than the one it was registered with; \
         bring that directory back, or remove the node and add a new one with an id of its own"
    )]
    OtherDirectory(u64),
    /// This node should have what it does not have.
    #[error(
        "node {0} relies on metadata this node does not have: its data directory has lost what it had acknowledged; \
         remove this node and add a new one with an id of its own"
    )]
    LostOurs(u64),
    /// The peer claims to have what nobody can have.
    #[error(
        "node {0} claims more of the metadata log than there is; remove it and add a new one with an id of its own"
    )]
    BeyondOurs(u64),
    /// A snapshot is longer than this node takes, or came in the wrong order.
    #[error("a snapshot from node {0} is too large or incomplete")]
    Snapshot(u64),
}

/// May the crate have it?
pub fn check(raw: &RawNode<Store>, message: &Message) -> Result<(), Refused> {
    let log = &raw.raft.raft_log;
    let node = message.from.saturating_sub(1);
    match message.get_msg_type() {
        MessageType::MsgHeartbeat if message.term >= raw.raft.term && message.commit > log.last_index() => {
            Err(Refused::LostOurs(node))
        }
        // A former leader of this term, restarted without what it had not yet written, may get such answers rightly.
        MessageType::MsgAppendResponse
            if message.term == raw.raft.term && raw.raft.state == StateRole::Leader =>
        {
            let beyond = if message.reject {
                message.index.max(message.reject_hint) > log.last_index()
            } else {
                message.index > log.last_index()
            };
            if beyond || message.request_snapshot > log.committed {
                Err(Refused::BeyondOurs(node))
            } else {
                Ok(())
            }
        }
        // A node that knows nothing yet has no say in who leads.
        MessageType::MsgRequestVote | MessageType::MsgRequestPreVote if raw.raft.term == 0 => {
            Err(Refused::Malformed)
        }
        _ => Ok(()),
    }
}
