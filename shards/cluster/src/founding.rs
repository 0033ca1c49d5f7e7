//! The id of a cluster that is told none: made from the list of the nodes that found it, so that all of them have the same one
//! before they have met.

use pelton_model::NodeId;
use sha2::{Digest, Sha256};
use uuid::{Builder, Uuid};

/// The id of the cluster that these nodes found: node, host, and port for other nodes, in any order. Another list is another
/// cluster; hosts are compared as they are written, but for the case of letters.
pub fn cluster_id<'a>(nodes: impl IntoIterator<Item = (NodeId, &'a str, u16)>) -> Uuid {
    let mut nodes: Vec<(NodeId, String, u16)> =
        nodes.into_iter().map(|(node, host, port)| (node, host.to_ascii_lowercase(), port)).collect();
    nodes.sort();
    let mut hash = Sha256::new();
    hash.update(b"the cluster of\n");
    for (node, host, port) in nodes {
        hash.update(format!("{}@{host}:{port}\n", node.0));
    }
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash.finalize()[..16]);
    // No id may look like an option on a command line.
    bytes[0] &= 0x7f;
    Builder::from_custom_bytes(bytes).into_uuid()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_list_is_the_same_cluster_and_another_is_another() {
        let id = |nodes: &[(i32, &str, u16)]| {
            cluster_id(nodes.iter().map(|(node, host, port)| (NodeId(*node), *host, *port)))
        };
        let three = [(1, "a", 7000), (2, "b", 7000), (3, "c", 7000)];
        assert_eq!(id(&three), id(&[three[2], (1, "A", 7000), three[1]]));
        for other in
            [&three[..2], &[three[0], three[1], (3, "c", 7001)], &[three[0], three[1], (4, "c", 7000)]]
        {
            assert_ne!(id(&three), id(other));
        }
        // On disks and in hellos: it must never become another one.
        assert_eq!(id(&three).to_string(), "71f6f06c-0a9e-8515-9e64-2b2dca8f28d6");
    }
}
