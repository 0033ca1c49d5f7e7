//! Why a side ends a connection that begins: checked by both, sent as one byte, said in the logs of both in the same words.

use pelton_model::ListenerMode;
use uuid::Uuid;

use super::hello::Hello;
use super::proof::Role;

/// A reason.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Refusal {
    /// No version of the protocol is spoken by both.
    Version = 1,
    /// They belong to different clusters.
    Cluster = 2,
    /// A node reached itself.
    Itself = 3,
    /// Two processes have the same node id.
    SameNode = 4,
    /// At the address dialed is another node or shard than was meant.
    Address = 5,
    /// Two nodes have the same data directory.
    CopiedDirectory = 6,
    /// A node comes with another data directory than it is registered with.
    Directory = 7,
    /// The secrets differ.
    Secret = 8,
    /// A later start of the same data directory is connected.
    Stale = 9,
    /// There is a connection already.
    Connected = 10,
    /// The node is not one of the cluster's any more.
    Removed = 11,
    /// Clients reach their shards in different ways.
    Mode = 12,
}

const ALL: [Refusal; 12] = [
    Refusal::Version,
    Refusal::Cluster,
    Refusal::Itself,
    Refusal::SameNode,
    Refusal::Address,
    Refusal::CopiedDirectory,
    Refusal::Directory,
    Refusal::Secret,
    Refusal::Stale,
    Refusal::Connected,
    Refusal::Removed,
    Refusal::Mode,
];

impl Refusal {
    /// What a body says; none for one that later versions may have.
    pub fn decode(body: &[u8]) -> Option<Refusal> {
        ALL.into_iter().find(|refusal| body == [*refusal as u8])
    }

    /// Whether only a person can mend it.
    pub fn needs_a_person(self) -> bool {
        !matches!(self, Refusal::Connected | Refusal::Stale)
    }

    /// Cause and remedy, the same on both sides. `by` refused.
    pub fn text(self, dialer: &Hello, acceptor: &Hello, by: Role) -> String {
        let (d, a) = (&dialer.identity, &acceptor.identity);
        let (dn, an) = (d.place.node.0, a.place.node.0);
        let refused = if by == Role::Dialer { a } else { d };
        let node = refused.place.node.0;
        match self {
            Refusal::Version => format!(
                "node {dn} speaks versions {} to {} of the protocol between nodes, node {an} {} to {}; upgrade the older \
                 one by way of a version that speaks both",
                dialer.versions.0, dialer.versions.1, acceptor.versions.0, acceptor.versions.1
            ),
            Refusal::Cluster => format!(
                "node {dn} belongs to cluster {}, node {an} to cluster {}; give each the --cluster addresses of its own \
                 cluster, and a node that is to join an empty data directory",
                d.cluster_id, a.cluster_id
            ),
            Refusal::Itself => format!(
                "node {dn} dialed node {} and reached itself; correct the addresses of --cluster",
                dialer.to.node.0
            ),
            Refusal::SameNode => {
                format!("two processes are node {dn}; give each node an id of its own with --node-id")
            }
            Refusal::Address => format!(
                "node {dn} dialed node {} shard {} and reached node {an} shard {}; correct the addresses of --cluster",
                dialer.to.node.0, dialer.to.shard.0, a.place.shard.0
            ),
            Refusal::CopiedDirectory => format!(
                "nodes {dn} and {an} run on copies of one data directory ({}); give one of them an empty one",
                d.directory
            ),
            Refusal::Directory => format!(
                "node {node} comes with data directory {}, which is not the one it is registered with; bring that back, or \
                 remove the node from the cluster before it joins with another",
                refused.directory
            ),
            Refusal::Secret => format!(
                "nodes {dn} and {an} have different cluster secrets; give both the same --cluster-secret-file"
            ),
            Refusal::Stale => format!(
                "a later start of the data directory of node {node} is connected than start {}; stop the process that uses \
                 a copy of that directory",
                refused.start
            ),
            Refusal::Connected => format!("nodes {dn} and {an} are connected already"),
            Refusal::Removed => format!("node {node} is not in the cluster any more"),
            Refusal::Mode => format!(
                "node {dn} was started with --mode {}, node {an} with --mode {}; start all nodes of a cluster with the same",
                mode(d.mode),
                mode(a.mode)
            ),
        }
    }
}

/// As `pelton start` knows it.
fn mode(mode: ListenerMode) -> &'static str {
    match mode {
        ListenerMode::Direct => "direct",
        ListenerMode::Single => "single",
    }
}

/// What is wrong with the other side's hello. `mine` was sent, or will be; `directory` is the one the other is registered with.
pub fn judge(role: Role, mine: &Hello, theirs: &Hello, directory: Option<Uuid>) -> Result<(), Refusal> {
    let (me, them) = (&mine.identity, &theirs.identity);
    if !mine.shares_a_version(theirs) {
        return Err(Refusal::Version);
    }
    if me.cluster_id != them.cluster_id {
        return Err(Refusal::Cluster);
    }
    if me.place.node == them.place.node {
        let itself = me.directory == them.directory && me.start == them.start;
        return Err(if itself { Refusal::Itself } else { Refusal::SameNode });
    }
    let met = match role {
        Role::Dialer => mine.to == them.place && theirs.to == me.place,
        Role::Acceptor => theirs.to == me.place,
    };
    if !met {
        return Err(Refusal::Address);
    }
    if me.directory == them.directory {
        return Err(Refusal::CopiedDirectory);
    }
    if directory.is_some_and(|directory| directory != them.directory) {
        return Err(Refusal::Directory);
    }
    if me.mode != them.mode {
        return Err(Refusal::Mode);
    }
    Ok(())
}
