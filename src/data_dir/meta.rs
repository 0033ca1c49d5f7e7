//! What the file `meta` of a data directory says, as text with a checksum. Format 1 had neither the directory's id nor the count
//! of starts; it is read, and written as format 2. Format 3 is that of a node of a cluster: a program that knows only single
//! nodes must not start it as one.

use pelton_model::NodeId;
use pelton_wire::crc::crc32c;
use pelton_wire::messages::KafkaUuid;

/// Version of the layout; raised when an older program could misread it, or lose what it does not know.
const FORMAT: u32 = 2;
/// The same for a node of a cluster.
const FORMAT_CLUSTER: u32 = 3;
/// The oldest that is read.
const FORMAT_OLDEST: u32 = 1;

/// What `meta` says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Meta {
    /// The cluster this directory belongs to.
    pub cluster_id: String,
    /// The node this directory belongs to.
    pub node_id: NodeId,
    /// The directory itself (KIP-858), so that a node is not taken for one that was set up anew under its id. None in one of
    /// format 1.
    pub directory_id: Option<KafkaUuid>,
    /// The nodes that founded its cluster; none if it is that of a single node.
    pub founders: Option<Vec<NodeId>>,
    /// Of a node of a cluster: the boot of the machine since when something may have been written and not flushed; none after a
    /// clean stop.
    pub boot: Option<String>,
    /// How often a process has started on it.
    pub start: u64,
    /// Shards of this generation.
    pub shards: u16,
    /// Grows by one when partitions are redistributed over another number of shards.
    pub generation: u32,
}

impl Meta {
    /// The text.
    pub fn encode(&self) -> String {
        let directory_id = self.directory_id.map_or(String::new(), |id| format!("directory.id={id}\n"));
        let (format, founders) = match &self.founders {
            None => (FORMAT, String::new()),
            Some(nodes) => {
                let nodes: Vec<String> = nodes.iter().map(|node| node.0.to_string()).collect();
                let boot = self.boot.as_ref().map_or(String::new(), |boot| format!("boot={boot}\n"));
                (FORMAT_CLUSTER, format!("founders={}\n{boot}", nodes.join(",")))
            }
        };
        let body = format!(
            "# Pelton data directory. Do not edit; use the same program version or a newer one.\n\
             format={format}\ncluster.id={}\nnode.id={}\n{directory_id}{founders}start={}\nshards={}\ngeneration={}\n",
            self.cluster_id, self.node_id.0, self.start, self.shards, self.generation
        );
        let checksum = crc32c(body.as_bytes());
        format!("{body}crc32c={checksum:08x}\n")
    }

    /// Reads the text; the error is what is wrong with it.
    pub fn decode(text: &str) -> Result<Meta, String> {
        let find = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        let value = |name: &str| find(name).ok_or(format!("{name} is missing"));
        let number = |name: &str| -> Result<u32, String> {
            value(name)?.parse().map_err(|_| format!("{name} is no number"))
        };
        let format = number("format")?;
        if !(FORMAT_OLDEST..=FORMAT_CLUSTER).contains(&format) {
            return Err(format!(
                "it has format {format}, this program reads {FORMAT_OLDEST} to {FORMAT_CLUSTER}; use the program that wrote it"
            ));
        }
        let at = text.find("crc32c=").ok_or("crc32c is missing")?;
        if value("crc32c")? != format!("{:08x}", crc32c(&text.as_bytes()[..at])) {
            return Err("its checksum does not match".to_string());
        }
        let directory_id = |id: &str| KafkaUuid::from_base64(id).map_err(|_| "directory.id is no id");
        let start = match find("start") {
            None if format == FORMAT_OLDEST => 0,
            None => return Err("start is missing".to_string()),
            Some(start) => start.parse().map_err(|_| "start is no number")?,
        };
        let founders = |nodes: &str| -> Result<Vec<NodeId>, &str> {
            let node = |node: &str| node.parse().map(NodeId).map_err(|_| "founders are no node ids");
            nodes.split(',').map(node).collect()
        };
        let founders = match format {
            FORMAT_CLUSTER => Some(founders(value("founders")?)?),
            _ => None,
        };
        let meta = Meta {
            cluster_id: value("cluster.id")?.to_string(),
            node_id: NodeId(number("node.id")? as i32),
            directory_id: find("directory.id").map(directory_id).transpose()?,
            founders,
            boot: find("boot").map(str::to_string),
            start,
            shards: u16::try_from(number("shards")?).map_err(|_| "shards is too large")?,
            generation: number("generation")?,
        };
        if meta.shards == 0 { Err("shards is 0".to_string()) } else { Ok(meta) }
    }
}
