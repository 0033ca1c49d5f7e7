//! Who the peers of a shard are: by the flags until the metadata know a node, by its registration from then on.

use pelton_model::{Replica, ShardId};

use super::{Identity, Peer};
use crate::record::NodeRegistration;

/// The listener of a node's registration that other nodes use; its port is that of shard 0.
pub const PEER_ENDPOINT: &str = "peer";

/// The shards of other nodes that `me` meets: all of each node that is registered, at the data directory it is registered with;
/// of those in `first` that are not, shard 0, which has the node's member of the quorum. Until this start of the node is
/// registered it dials also those that would have to dial it: they may not know where it is, or know where it was.
pub fn known_peers<'a>(
    me: &Identity,
    nodes: impl Iterator<Item = &'a NodeRegistration>,
    first: &[Peer],
) -> Vec<Peer> {
    let mut known: Vec<Peer> = Vec::new();
    let mut registered = false;
    for node in nodes {
        if node.node == me.place.node {
            registered = node.directory == me.directory && node.start == me.start;
            continue;
        }
        let Some(endpoint) = node.endpoints.iter().find(|endpoint| endpoint.name == PEER_ENDPOINT) else {
            continue;
        };
        for shard in 0..node.shards.len() {
            let place = Replica { node: node.node, shard: ShardId(shard as u16) };
            known.extend(Peer::of(place, &endpoint.host, endpoint.port, Some(node.directory)));
        }
    }
    for peer in first {
        if peer.place.node != me.place.node && !known.iter().any(|known| known.place.node == peer.place.node)
        {
            known.push(peer.clone());
        }
    }
    for peer in &mut known {
        peer.eager = !registered && peer.place < me.place;
    }
    known
}

#[cfg(test)]
mod tests {
    use pelton_model::{ListenerMode, NodeEpoch, NodeId, ShardEpoch};
    use uuid::Uuid;

    use super::*;
    use crate::record::{Endpoint, ShardRegistration};

    fn place(node: i32, shard: u16) -> Replica {
        Replica { node: NodeId(node), shard: ShardId(shard) }
    }

    fn node(id: i32, shards: usize, port: u16) -> NodeRegistration {
        let endpoint =
            |name: &str, port| Endpoint { name: name.to_string(), host: format!("host{id}"), port };
        NodeRegistration {
            node: NodeId(id),
            epoch: NodeEpoch(5),
            directory: Uuid::from_u128(id as u128),
            incarnation: Uuid::nil(),
            start: 1,
            rack: None,
            endpoints: vec![endpoint("client", 9092), endpoint(PEER_ENDPOINT, port)],
            shards: vec![ShardRegistration { epoch: ShardEpoch(0), device: 0, online: true }; shards],
            fenced: false,
            draining: false,
            leaving: false,
            lossy: false,
        }
    }

    fn me(node: i32, shard: u16, start: u64) -> Identity {
        let cluster_id = String::new();
        let (directory, mode) = (Uuid::from_u128(node as u128), ListenerMode::Direct);
        Identity { place: place(node, shard), cluster_id, directory, start, mode }
    }

    fn first(id: i32) -> Peer {
        Peer::of(place(id, 0), "flag", 7000, None).unwrap()
    }

    #[test]
    fn a_node_that_joins_dials_shard_0_of_all_it_was_told_of() {
        let told = [first(1), first(2), first(3)];
        let known = known_peers(&me(2, 1, 1), [].iter(), &told);
        assert_eq!(known, [Peer { eager: true, ..first(1) }, first(3)]);
    }

    #[test]
    fn registered_nodes_are_met_shard_by_shard_where_they_are_now() {
        let nodes = [node(1, 2, 7100), node(2, 1, 7200), node(4, 3, 65_534)];
        let known = known_peers(&me(2, 0, 1), nodes.iter(), &[first(1), first(2), first(3)]);
        let directory = |id| Some(Uuid::from_u128(id));
        let at = |node, shard, port: u16| {
            Peer::of(place(node, shard), &format!("host{node}"), port, directory(node as u128))
        };
        let expected = [at(1, 0, 7100), at(1, 1, 7100), at(4, 0, 65_534), at(4, 1, 65_534), Some(first(3))];
        assert_eq!(known, expected.map(Option::unwrap), "the third shard of node 4 has no port");
        assert_eq!((known[1].port, known[0].eager), (7101, false));
    }

    #[test]
    fn a_node_that_restarts_may_have_moved_and_dials_until_that_is_known() {
        let nodes = [node(1, 1, 7100), node(2, 1, 7200), node(3, 1, 7300)];
        let eager = |start| {
            let known = known_peers(&me(2, 0, start), nodes.iter(), &[]);
            known.iter().map(|peer| (peer.place.node.0, peer.eager)).collect::<Vec<_>>()
        };
        assert_eq!(eager(1), [(1, false), (3, false)]);
        assert_eq!(eager(2), [(1, true), (3, false)]);
    }
}
