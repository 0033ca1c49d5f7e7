//! `--cluster 1@host:port,2@…`, `--node-address` and `--cluster-secret-file`: who the nodes of a cluster are and what they prove to
//! each other.
//! Reads the secret's file; resolves no names.

use std::path::{Path, PathBuf};

use pelton_cluster::peer::Secret;
use pelton_model::NodeId;
use pelton_model::limits::{NODE_ID_MAX, SHARDS_MAX};
use pelton_wire::messages::KafkaUuid;

use super::StartConfig;
use super::address::HostPort;
use crate::failure::Failure;

/// Most nodes in the list: they are those that form the cluster, and its voters.
const NODES_MAX: usize = 15;

/// A node in the list.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClusterNode {
    /// Its id.
    pub node_id: NodeId,
    /// Where its shard 0 listens for other nodes; shard i listens on the port + i.
    pub address: HostPort,
}

/// The flags of a cluster as they were given.
#[derive(Clone, Default, Debug)]
pub struct GivenCluster {
    /// `--cluster`.
    pub list: Option<String>,
    /// `--node-address`.
    pub node_address: Option<HostPort>,
    /// `--cluster-secret-file`.
    pub secret_file: Option<PathBuf>,
}

/// What the flags of a cluster say together.
#[derive(Clone, Debug)]
pub struct ClusterFlags {
    /// This node.
    pub node_id: NodeId,
    /// The nodes that found the cluster, by id; this one is among them unless it joins.
    pub nodes: Vec<ClusterNode>,
    /// Where this node listens for the others.
    pub own_address: HostPort,
    /// What they prove to each other.
    pub secret: Secret,
}

impl ClusterFlags {
    /// The id of a new cluster of these nodes, the same on all of them.
    pub fn cluster_id(&self) -> String {
        let nodes = self.nodes.iter().map(|node| (node.node_id, &node.address.host[..], node.address.port));
        KafkaUuid::from(pelton_cluster::founding::cluster_id(nodes)).to_string()
    }

    /// Whether the nodes have a secret, in a word.
    pub fn secret_word(&self) -> String {
        format!("{:?}", self.secret)
    }

    /// The ids of the nodes.
    pub fn ids(&self) -> Vec<NodeId> {
        self.nodes.iter().map(|node| node.node_id).collect()
    }

    /// It joins a cluster that others have founded.
    pub fn joins(&self) -> bool {
        !self.nodes.iter().any(|node| node.node_id == self.node_id)
    }
}

/// Takes the flags into the configuration, and holds against them what has a meaning only in a cluster.
pub fn check(config: &mut StartConfig) -> Result<(), Failure> {
    let given = &config.cluster_flags;
    let (list, secret_file) = (given.list.as_deref(), given.secret_file.as_deref());
    config.cluster = parse(config.node_id, list, given.node_address.as_ref(), secret_file)?;
    let nodes = config.cluster.as_ref().map_or(1, |cluster| cluster.nodes.len() as u16);
    if config.cluster.is_none() {
        if config.broker.default_replication_factor > 1 {
            return Err(Failure::usage(
                "default.replication.factor must be 1: there is one node, and copies on one machine protect from nothing. \
                 Form a cluster with --cluster 1@HOST:PORT,2@HOST:PORT,…",
            ));
        }
        let given = [
            ("broker.rack", config.rack.is_some()),
            ("offsets.topic.replication.factor", config.offsets_factor.is_some()),
            ("replica.lag.time.max.ms", config.replica_lag_ms.is_some()),
        ];
        let given: Vec<&str> = given.iter().filter(|(_, given)| *given).map(|(name, _)| *name).collect();
        if !given.is_empty() {
            config.warnings.push(format!("without effect on a single node: {}", given.join(", ")));
        }
    }
    config.broker.founders = nodes;
    // Kafka's default, but for clusters that cannot have as many.
    config.broker.offsets_topic_replication_factor = config.offsets_factor.unwrap_or(3.min(nodes as i16));
    Ok(())
}

/// Reads the flags. Every error is one of usage and says what to write instead.
pub fn parse(
    node_id: Option<NodeId>,
    cluster: Option<&str>,
    node_address: Option<&HostPort>,
    secret_file: Option<&Path>,
) -> Result<Option<ClusterFlags>, Failure> {
    let Some(list) = cluster else {
        let lone = |flag| {
            Failure::usage(format!(
                "{flag} is for the nodes of a cluster. Name them with --cluster 1@HOST:PORT,2@HOST:PORT,…"
            ))
        };
        return match (secret_file, node_address) {
            (None, None) => Ok(None),
            (Some(_), _) => Err(lone("--cluster-secret-file")),
            (None, Some(_)) => Err(lone("--node-address")),
        };
    };
    let node_id = node_id.ok_or_else(|| {
        Failure::usage("--cluster needs --node-id N, which of the nodes listed this one is")
    })?;
    let nodes = nodes(list)?;
    let listed = nodes.iter().find(|node| node.node_id == node_id);
    let own_address = match (listed, node_address) {
        (Some(node), None) => node.address.clone(),
        (None, Some(address)) => {
            check_address(address).map_err(|problem| {
                Failure::usage(format!("--node-address {address} {problem}. Write HOST:PORT"))
            })?;
            address.clone()
        }
        (Some(_), Some(_)) => {
            return Err(Failure::usage(format!(
                "--node-address is for a node that joins, and --cluster lists node {}. Leave one of them out",
                node_id.0
            )));
        }
        (None, None) => {
            return Err(Failure::usage(format!(
                "--cluster does not list node {0}, which this one is by --node-id. Add {0}@HOST:PORT, where it listens for \
                 the other nodes, or correct --node-id. A node that joins a cluster of others says where it listens with \
                 --node-address HOST:PORT",
                node_id.0
            )));
        }
    };
    let secret = match secret_file {
        Some(path) => read_secret(path)?,
        None if own_address.is_loopback() && nodes.iter().all(|node| node.address.is_loopback()) => {
            Secret::none()
        }
        None => {
            return Err(Failure::usage(
                "nodes on several machines need --cluster-secret-file FILE, the same file on each: whoever reaches their \
                 port could be one of them otherwise. Make one with: head -c 32 /dev/urandom | base64 > FILE",
            ));
        }
    };
    Ok(Some(ClusterFlags { node_id, nodes, own_address, secret }))
}

fn nodes(list: &str) -> Result<Vec<ClusterNode>, Failure> {
    let wrong = |text: &str, problem: &str| {
        Failure::usage(format!("--cluster {list}: {text:?} {problem}. Write 1@HOST:PORT,2@HOST:PORT,…"))
    };
    let mut nodes: Vec<ClusterNode> = Vec::new();
    for text in list.split(',').map(str::trim) {
        let (id, address) =
            text.split_once('@').ok_or_else(|| wrong(text, "has no @ between id and address"))?;
        let id = id.parse::<i32>().ok().filter(|id| (0..=NODE_ID_MAX).contains(id));
        let id =
            id.ok_or_else(|| wrong(text, &format!("does not begin with a node id, 0 to {NODE_ID_MAX}")))?;
        let address = HostPort::parse(address)
            .map_err(|problem| wrong(text, &format!("names an address that {problem}")))?;
        check_address(&address).map_err(|problem| wrong(text, &problem))?;
        if nodes.iter().any(|node| node.node_id.0 == id) {
            return Err(wrong(text, "lists a node id for the second time"));
        }
        if nodes.iter().any(|node| node.address == address) {
            return Err(wrong(text, "names the address of another node"));
        }
        nodes.push(ClusterNode { node_id: NodeId(id), address });
    }
    if nodes.len() > NODES_MAX {
        return Err(Failure::usage(format!(
            "--cluster lists {} nodes, at most {NODES_MAX} may form a cluster. Let more nodes join when it is there",
            nodes.len()
        )));
    }
    nodes.sort_by_key(|node| node.node_id);
    Ok(nodes)
}

/// An address that other nodes can dial, with ports for all shards there may be.
fn check_address(address: &HostPort) -> Result<(), String> {
    let last_port = u32::from(address.port) + SHARDS_MAX as u32 - 1;
    if address.port == 0 || last_port > u32::from(u16::MAX) {
        let ports = u32::from(u16::MAX) - SHARDS_MAX as u32 + 1;
        return Err(format!("needs a port from 1 to {ports}, for shard i listens on the port + i"));
    }
    match address.is_unspecified() {
        true => Err("names no address that other nodes can dial".to_string()),
        false => Ok(()),
    }
}

fn read_secret(path: &Path) -> Result<Secret, Failure> {
    let contents = std::fs::read(path)
        .map_err(|error| Failure::usage(format!("--cluster-secret-file {}: {error}", path.display())))?;
    Secret::from_file(&contents).map_err(|problem| {
        Failure::usage(format!(
            "--cluster-secret-file {}: {problem}. Make one with: head -c 32 /dev/urandom | base64 > FILE",
            path.display()
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Exit;

    fn refused(node_id: Option<i32>, cluster: &str, secret: Option<&Path>) -> String {
        let failure = parse(node_id.map(NodeId), Some(cluster), None, secret).unwrap_err();
        assert_eq!(failure.exit, Exit::Usage);
        failure.message
    }

    fn file(name: &str, contents: &str) -> std::path::PathBuf {
        let path = std::env::temp_dir().join(format!("pelton-secret-{}-{name}", std::process::id()));
        std::fs::write(&path, contents).unwrap();
        path
    }

    #[test]
    fn three_nodes_are_a_cluster() {
        let list = "2@127.0.0.1:7100, 1@localhost:7000,3@[::1]:7200";
        let flags = parse(Some(NodeId(2)), Some(list), None, None).unwrap().unwrap();
        let ids: Vec<i32> = flags.nodes.iter().map(|node| node.node_id.0).collect();
        assert_eq!((ids, flags.own_address.to_string()), (vec![1, 2, 3], "127.0.0.1:7100".to_string()));
        assert_eq!(format!("{:?}", flags.secret), "no secret");
        assert!(parse(Some(NodeId(1)), None, None, None).unwrap().is_none(), "a node alone is no cluster");
    }

    #[test]
    fn a_node_that_joins_says_where_it_listens() {
        let (list, here) = ("1@127.0.0.1:7000,2@127.0.0.1:7100", HostPort::new("127.0.0.1", 7300));
        let flags = parse(Some(NodeId(3)), Some(list), Some(&here), None).unwrap().unwrap();
        let founder = parse(Some(NodeId(1)), Some(list), None, None).unwrap().unwrap();
        assert!(flags.joins() && !founder.joins() && flags.own_address == here);
        assert_eq!((flags.ids(), flags.cluster_id()), (founder.ids(), founder.cluster_id()));
        let refused = |id, list, address: &HostPort| {
            parse(Some(NodeId(id)), list, Some(address), None).unwrap_err().message
        };
        assert!(refused(1, Some(list), &here).contains("lists node 1"));
        assert!(
            refused(3, Some(list), &HostPort::new("::", 7300))
                .contains("no address that other nodes can dial")
        );
        assert!(refused(3, None, &here).contains("--node-address is for the nodes of a cluster"));
        assert!(
            refused(3, Some(list), &HostPort::new("10.0.0.9", 7300)).contains("need --cluster-secret-file")
        );
    }

    #[test]
    fn other_machines_need_a_secret() {
        let list = "1@10.0.0.1:7000,2@10.0.0.2:7000";
        assert!(refused(Some(1), list, None).contains("need --cluster-secret-file FILE"));
        let good = file("good", "0123456789abcdef0123456789abcdef\n");
        let flags = parse(Some(NodeId(1)), Some(list), None, Some(&good)).unwrap().unwrap();
        assert_eq!(format!("{:?}", flags.secret), "a secret");
        let short = file("short", "abc\n");
        let text = refused(Some(1), list, Some(&short));
        assert!(text.contains("it holds 3 bytes") && text.contains("/dev/urandom"), "{text}");
        assert!(refused(Some(1), list, Some(Path::new("/nonexistent/secret"))).contains("No such file"));
        let failure = parse(Some(NodeId(1)), None, None, Some(&good)).unwrap_err();
        assert!(failure.message.contains("Name them with --cluster"));
        for path in [good, short] {
            std::fs::remove_file(path).unwrap();
        }
    }

    #[test]
    fn what_cannot_be_is_refused_with_what_to_write_instead() {
        assert!(refused(None, "1@localhost:1", None).contains("needs --node-id"));
        assert!(refused(Some(4), "1@localhost:1", None).contains("Add 4@HOST:PORT"));
        for (list, problem) in [
            ("", "has no @"),
            ("1@localhost:1,", "has no @"),
            ("localhost:1", "has no @"),
            ("x@localhost:1", "does not begin with a node id"),
            ("-1@localhost:1", "does not begin with a node id"),
            ("8388607@localhost:1", "does not begin with a node id"),
            ("1@localhost", "must be HOST:PORT"),
            ("1@a b:5", "must be HOST:PORT"),
            ("1@localhost:0", "needs a port from 1 to 65280"),
            ("1@localhost:65281", "needs a port from 1 to 65280"),
            ("1@0.0.0.0:5", "no address that other nodes can dial"),
            ("1@localhost:5,1@localhost:6", "for the second time"),
            ("1@localhost:5,2@localhost:5", "the address of another node"),
        ] {
            let text = refused(Some(1), list, None);
            assert!(text.contains(problem) && text.contains("1@HOST:PORT"), "{list}: {text}");
        }
        let many: Vec<String> = (1..=16).map(|id| format!("{id}@localhost:{id}")).collect();
        assert!(refused(Some(1), &many.join(","), None).contains("lists 16 nodes"));
    }
}
