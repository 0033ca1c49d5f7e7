//! Nodes for the tests of `peers`: a state machine that notes what it hears and sends what the test says, and a proxy between
//! nodes that can stall and cut.

use std::collections::{BTreeMap, VecDeque};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicI32, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use bytes::Bytes;
use pelton_model::{BrokerConfig, ListenerMode, NodeId, Now, Prng, Replica, ShardId};
use pelton_reactor::{
    Core, Counters, PeerNews, PeerOrder, PeerPlan, Running, ShardPlan, StartError, log_to_stderr, start_core,
};
use pelton_shard::peer::{Identity, Kind, Limits, Peer, Secret};
use pelton_shard::{DiskImage, Effect, Event};

const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until `holds`.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < PATIENCE, "{what}: not in {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Bytes that differ from place to place.
pub fn pattern(seed: u32, length: usize) -> Bytes {
    let mut prng = Prng::new(u64::from(seed));
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        bytes.extend_from_slice(&prng.next_u64().to_le_bytes());
    }
    bytes.truncate(length);
    bytes.into()
}

/// What a shard under test has heard, and what it is to do.
#[derive(Default)]
struct Shared {
    frames: Vec<(Replica, Kind, Bytes)>,
    up: BTreeMap<Replica, u64>,
    downs: usize,
    orders: VecDeque<PeerOrder>,
}

type Boards = BTreeMap<Replica, Arc<Mutex<Shared>>>;

static BOARDS: Mutex<Boards> = Mutex::new(BTreeMap::new());

fn board(place: Replica) -> Arc<Mutex<Shared>> {
    BOARDS.lock().unwrap().entry(place).or_default().clone()
}

struct Machine {
    shared: Arc<Mutex<Shared>>,
    ready: VecDeque<PeerOrder>,
    next_ns: u64,
}

impl Core for Machine {
    fn start(
        config: Arc<BrokerConfig>,
        plan: &ShardPlan,
        _: DiskImage,
        _: u64,
        _: Now,
        out: &mut Vec<Effect>,
    ) -> Result<Machine, String> {
        out.push(Effect::Ready);
        let shared = board(Replica { node: config.node_id, shard: plan.shard });
        Ok(Machine { shared, ready: VecDeque::new(), next_ns: 0 })
    }

    fn handle(&mut self, now: Now, event: Event, out: &mut Vec<Effect>) {
        match event {
            Event::Tick => {
                self.next_ns = now.after_ms(2);
                for order in self.shared.lock().unwrap().orders.drain(..) {
                    match order {
                        PeerOrder::Send { to, kind: Kind::Replica, parts } => {
                            out.push(Effect::ToPeer { to, parts });
                        }
                        PeerOrder::Send { to, parts, .. } => {
                            let bytes = parts.concat().into();
                            out.push(Effect::ToMember { node: to.node, bytes });
                        }
                        PeerOrder::Know { .. } => self.ready.push_back(order),
                    }
                }
            }
            Event::Stop => out.push(Effect::Stopped),
            Event::Volume { .. } => {}
            other => panic!("no client is connected: {other:?}"),
        }
    }

    fn end_turn(&mut self, _: Now, _: &mut Vec<Effect>) {}

    fn deadline(&self) -> Option<u64> {
        Some(self.next_ns)
    }

    fn handle_peer(&mut self, _: Now, news: PeerNews, _: &mut Vec<Effect>) {
        let mut shared = self.shared.lock().unwrap();
        match news {
            PeerNews::Up { peer, start } => assert!(shared.up.insert(peer, start).is_none(), "up twice"),
            PeerNews::Down { peer } => {
                assert!(shared.up.remove(&peer).is_some(), "down, never up");
                shared.downs += 1;
            }
            PeerNews::Frame { from, kind, bytes } => {
                assert!(shared.up.contains_key(&from), "a frame of one who is not up");
                shared.frames.push((from, kind, bytes));
            }
        }
    }

    fn take_peer_order(&mut self) -> Option<PeerOrder> {
        self.ready.pop_front()
    }
}

/// A node of one or more shards.
pub struct Node {
    id: i32,
    running: Running,
    directory: PathBuf,
}

fn start(
    id: i32,
    shards: u16,
    secret: Secret,
    limits: Limits,
    listen: SocketAddr,
) -> Result<Node, StartError> {
    let base = option_env!("CARGO_TARGET_TMPDIR").unwrap_or("/tmp");
    let directory = PathBuf::from(base).join(format!("peers-{}-{id}", std::process::id()));
    let _ = std::fs::remove_dir_all(&directory);
    std::fs::create_dir_all(&directory).unwrap();
    let identity = |shard| Identity {
        place: Replica { node: NodeId(id), shard },
        cluster_id: "5m4hXyJ2Q7yTaaaaaaaaaa".to_string(),
        directory: uuid::Uuid::from_u128(1000 + id as u128),
        start: 1,
        mode: ListenerMode::Direct,
    };
    let plans = (0..shards).map(ShardId).map(|shard| ShardPlan {
        shard,
        cpu: None,
        directory: directory.join(format!("shard-{}", shard.0)),
        partitions_directory: directory.join("partitions"),
        listen: None,
        cluster: None,
        peers: Some(PeerPlan {
            listen,
            identity: identity(shard),
            secret: secret.clone(),
            limits,
            peers: Vec::new(),
        }),
    });
    let defaults = BrokerConfig::defaults();
    let config = BrokerConfig { journal_bytes: 4 << 20, node_id: NodeId(id), shards, ..defaults };
    let running = start_core::<Machine>(plans.collect(), Arc::new(config), log_to_stderr())?;
    Ok(Node { id, running, directory })
}

/// Ids that no other test uses; the first is the lower.
fn ids() -> [i32; 2] {
    static NEXT: AtomicI32 = AtomicI32::new(100);
    let first = NEXT.fetch_add(2, Ordering::Relaxed);
    [first, first + 1]
}

fn anywhere() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

fn secret() -> Secret {
    Secret::from_file(b"the secret of the tests").unwrap()
}

/// Two nodes with these secrets that do not know each other.
pub fn nodes(secrets: [Secret; 2]) -> [Node; 2] {
    let [a, b] = secrets;
    let [first, second] = ids();
    [(first, a), (second, b)].map(|(id, secret)| start(id, 1, secret, Limits::default(), anywhere()).unwrap())
}

/// Two nodes that do not know each other.
pub fn strangers() -> [Node; 2] {
    nodes([secret(), secret()])
}

/// The same with other limits.
pub fn nodes_with(limits: Limits) -> [Node; 2] {
    ids().map(|id| start(id, 1, secret(), limits, anywhere()).unwrap())
}

/// The same with more shards.
pub fn nodes_of_shards(shards: u16) -> [Node; 2] {
    ids().map(|id| start(id, shards, secret(), Limits::default(), anywhere()).unwrap())
}

/// Two nodes that are connected.
pub fn pair() -> [Node; 2] {
    let [a, b] = strangers();
    a.know(vec![b.peer(0)]);
    b.know(vec![a.peer(0)]);
    a.wait_up(&b);
    b.wait_up(&a);
    [a, b]
}

/// A node that listens for others there.
pub fn try_node(listen: SocketAddr) -> Result<Node, StartError> {
    start(ids()[0], 1, secret(), Limits::default(), listen)
}

impl Node {
    pub fn place(&self, shard: u16) -> Replica {
        Replica { node: NodeId(self.id), shard: ShardId(shard) }
    }

    pub fn peer_address(&self, shard: u16) -> SocketAddr {
        self.running.peer_addresses()[usize::from(shard)].unwrap()
    }

    pub fn peer(&self, shard: u16) -> Peer {
        self.peer_at(shard, "127.0.0.1", self.peer_address(shard).port())
    }

    /// A shard of this node as if it were there.
    pub fn peer_at(&self, shard: u16, host: &str, port: u16) -> Peer {
        let place = self.place(shard);
        Peer { place, host: host.to_string(), port, directory: None, eager: false }
    }

    /// A node that does not exist, `above` this one.
    pub fn other_peer(&self, above: i32, port: u16) -> Peer {
        let place = Replica { node: NodeId(self.id + 10_000 + above), shard: ShardId(0) };
        Peer { place, ..self.peer_at(0, "127.0.0.1", port) }
    }

    fn shared(&self, shard: u16) -> Arc<Mutex<Shared>> {
        board(self.place(shard))
    }

    fn order(&self, shard: u16, order: PeerOrder) {
        let shared = self.shared(shard);
        let mut shared: MutexGuard<'_, Shared> = shared.lock().unwrap();
        shared.orders.push_back(order);
    }

    pub fn know(&self, peers: Vec<Peer>) {
        for shard in 0..self.running.addresses().len() {
            self.order(shard as u16, PeerOrder::Know { peers: peers.clone() });
        }
    }

    pub fn send(&self, to: &Node, kind: Kind, parts: Vec<Bytes>) {
        self.send_from(0, to.place(0), kind, parts);
    }

    pub fn send_from(&self, shard: u16, to: Replica, kind: Kind, parts: Vec<Bytes>) {
        self.order(shard, PeerOrder::Send { to, kind, parts });
    }

    pub fn frames_of(&self, shard: u16) -> Vec<(Replica, Kind, Bytes)> {
        self.shared(shard).lock().unwrap().frames.clone()
    }

    pub fn frames(&self) -> Vec<(Replica, Kind, Bytes)> {
        self.frames_of(0)
    }

    pub fn wait_for_frames(&self, count: usize) -> Vec<(Replica, Kind, Bytes)> {
        eventually("frames", || self.shared(0).lock().unwrap().frames.len() >= count);
        let frames = self.frames();
        assert_eq!(frames.len(), count);
        frames
    }

    pub fn ups_of(&self, shard: u16) -> BTreeMap<Replica, u64> {
        self.shared(shard).lock().unwrap().up.clone()
    }

    pub fn ups(&self) -> BTreeMap<Replica, u64> {
        self.ups_of(0)
    }

    pub fn downs(&self) -> usize {
        self.shared(0).lock().unwrap().downs
    }

    pub fn wait_up(&self, other: &Node) {
        eventually("a connection", || self.ups().contains_key(&other.place(0)));
    }

    pub fn counters(&self) -> Counters {
        self.running.counters()[0]
    }

    pub fn all_counters(&self) -> Vec<Counters> {
        self.running.counters()
    }

    pub fn stop(self) {
        let began = Instant::now();
        self.running.request_stop();
        self.running.join().unwrap();
        assert!(began.elapsed() < Duration::from_secs(4), "operations were left at the end");
        std::fs::remove_dir_all(self.directory).unwrap();
    }
}

/// What a proxy does with bytes.
#[derive(Clone, Copy)]
#[repr(u8)]
pub enum ProxyMode {
    /// Hands them on.
    Pass = 0,
    /// Leaves them where they are.
    Stall = 1,
}

/// Stands between two nodes.
pub struct Proxy {
    address: SocketAddr,
    mode: Arc<AtomicU8>,
    /// Connections begun before this number of cuts are closed.
    cuts: Arc<AtomicU64>,
}

impl Proxy {
    /// In front of `target`.
    pub fn start(target: SocketAddr) -> Proxy {
        let listener = TcpListener::bind(anywhere()).unwrap();
        let address = listener.local_addr().unwrap();
        let (mode, cuts) = (Arc::new(AtomicU8::new(0)), Arc::new(AtomicU64::new(0)));
        let (of_thread, cuts_of_thread) = (mode.clone(), cuts.clone());
        std::thread::spawn(move || {
            for near in listener.incoming() {
                let Ok(near) = near else { continue };
                let Ok(far) = TcpStream::connect(target) else { continue };
                for (from, to) in [(&near, &far), (&far, &near)] {
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    let (mode, cuts) = (of_thread.clone(), cuts_of_thread.clone());
                    std::thread::spawn(move || pump(from, to, &mode, &cuts));
                }
            }
        });
        Proxy { address, mode, cuts }
    }

    pub fn host(&self) -> String {
        self.address.ip().to_string()
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    pub fn mode(&self, mode: ProxyMode) {
        self.mode.store(mode as u8, Ordering::SeqCst);
    }

    /// Closes every connection there is.
    pub fn cut(&self) {
        self.cuts.fetch_add(1, Ordering::SeqCst);
    }
}

fn pump(mut from: TcpStream, mut to: TcpStream, mode: &AtomicU8, cuts: &AtomicU64) {
    let began = cuts.load(Ordering::SeqCst);
    from.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
    let mut buffer = vec![0; 64 << 10];
    while cuts.load(Ordering::SeqCst) == began {
        if mode.load(Ordering::SeqCst) == ProxyMode::Stall as u8 {
            std::thread::sleep(Duration::from_millis(5));
            continue;
        }
        match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) if to.write_all(&buffer[..count]).is_err() => break,
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => break,
        }
    }
    let _ = from.shutdown(std::net::Shutdown::Both);
    let _ = to.shutdown(std::net::Shutdown::Both);
}
