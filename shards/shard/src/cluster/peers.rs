//! Frames between replicas as bytes: the length of a frame of `pelton_replica::frame` in one byte, the frame, its batches. A
//! replica on another shard of this process is reached over the ring, with the batches as handles.

use bytes::Bytes;
use pelton_cluster::peer::{Peer, known_peers};
use pelton_model::{Now, Replica};
use pelton_replica::frame::{Body, FRAME_BYTES_MAX, Frame};

use super::hosts::joined;
use crate::Shard;
use crate::effect::Effect;
use crate::message::ShardMessage;

impl Shard {
    /// The shards of other nodes that this one meets from now on; none if they are as it said before.
    pub fn take_peers(&mut self) -> Option<Vec<Peer>> {
        let cluster = self.cluster.as_mut().filter(|cluster| cluster.peers_differ)?;
        cluster.peers_differ = false;
        Some(known_peers(&cluster.identity, self.image.nodes(), &cluster.first))
    }

    pub(super) fn send_to_peer(
        &mut self,
        to: Replica,
        frame: &Frame,
        batches: Vec<Bytes>,
        out: &mut Vec<Effect>,
    ) {
        let Some(cluster) = &self.cluster else { return };
        let frame = frame.encode();
        let mut head = Vec::with_capacity(1 + FRAME_BYTES_MAX);
        head.push(frame.as_slice().len() as u8);
        head.extend_from_slice(frame.as_slice());
        let head = Bytes::from(head);
        if to.node == cluster.me.node {
            let message = ShardMessage::Peer { head, batches: joined(batches) };
            out.push(Effect::ToShard { to: to.shard, message });
        } else {
            let mut parts = Vec::with_capacity(1 + batches.len());
            parts.push(head);
            parts.extend(batches);
            out.push(Effect::ToPeer { to, parts });
        }
    }

    /// A frame of a replica of another node has come.
    pub(crate) fn handle_peer_bytes(
        &mut self,
        now: Now,
        from: Replica,
        mut bytes: Bytes,
        out: &mut Vec<Effect>,
    ) {
        let length = 1 + bytes.first().map_or(0, |length| usize::from(*length));
        if length > bytes.len() {
            let text = format!(
                "replica {from} sends a frame that is cut; it runs another version, or the stream is damaged"
            );
            return self.log_error(out, text);
        }
        let head = bytes.split_to(length);
        self.handle_peer_frame(now, from, &head, &bytes, out);
    }

    /// A frame of another replica: its length and itself, and its batches.
    pub(crate) fn handle_peer_frame(
        &mut self,
        now: Now,
        from: Replica,
        head: &Bytes,
        batches: &Bytes,
        out: &mut Vec<Effect>,
    ) {
        let frame = match Frame::decode(head.get(1..).unwrap_or_default()) {
            Ok(frame) => frame,
            Err(error) => return self.log_error(out, format!("replica {from}: {error}")),
        };
        let expected = match frame.body {
            Body::Append { bytes, .. } => bytes as usize,
            _ => 0,
        };
        if batches.len() != expected {
            let text = format!("replica {from} sends {} bytes of batches, not {expected}", batches.len());
            return self.log_error(out, text);
        }
        // Of a partition that is not here, or not any more: as if lost.
        let slot = self.hosted_slot(frame.partition).filter(|_| !self.log_stopping());
        let known = slot
            .and_then(|slot| self.partitions.hosted(slot))
            .map(|hosted| hosted.host.state().leader_epoch());
        if self.cluster.as_mut().is_some_and(|cluster| cluster.early.keep(known, from, &frame)) {
            return;
        }
        let Some(slot) = slot else { return };
        self.with_host(now, slot, out, |host, turn| host.handle_frame(from, &frame, batches, turn));
        self.settle_later(slot);
    }

    /// The connection to a shard of another node is gone, with all that was on it.
    pub(crate) fn handle_peer_gone(&mut self, now: Now, peer: Replica, out: &mut Vec<Effect>) {
        for slot in self.partitions.hosted_slots() {
            self.with_host(now, slot, out, |host, turn| host.handle_disconnected(peer, turn));
        }
    }
}
