//! Between the nodes: what one says to another passes through this process, message by message, and is kept back, held and let go later, or
//! dropped as told. Frames of nodes may be lost and come late and in another order (their protocols are made for that), so windows
//! that last microseconds on a good day last as long as a recipe wants. Without orders everything passes as it comes.
//!
//! Where a node is, the others' addresses belong to this process: nodes need not know, and are configured as ever.

use crate::wire_what::What;
use pelton_bench::cluster::Cluster;
use pelton_bench::net::{NODES, Net};
use pelton_bench::{Outcome, client};
use std::io::{BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Longest wait for a connection to the node that was meant.
const CONNECT: Duration = Duration::from_millis(400);
/// How often a listener looks whether it is to end.
const LOOK: Duration = Duration::from_millis(5);
/// Largest message that is believed, bytes.
const MESSAGE_MAX: usize = 64 << 20;

/// What becomes of a message.
#[derive(Clone, Copy, Debug)]
enum Fate {
    /// Kept until it is let go.
    Held,
    Dropped,
    /// It arrives so much later, and all behind it.
    Late(Duration),
}

/// Names an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order(u64);

/// A message and where it goes when it is due; an empty one ends the connection.
type Due = (Instant, Vec<u8>);

/// A message that is kept, on the connection it came on.
#[derive(Clone, Debug)]
pub struct Kept {
    to: Sender<Due>,
    /// With its head.
    bytes: Vec<u8>,
}

impl Kept {
    /// Lets it go. It is lost if its connection has ended.
    pub fn send(self) {
        let _ = self.to.send((Instant::now(), self.bytes));
    }

    /// Kind and body.
    pub fn message(&self) -> &[u8] {
        &self.bytes[4..]
    }
}

#[derive(Debug)]
struct Rule {
    order: Order,
    from: usize,
    to: usize,
    what: What,
    fate: Fate,
    kept: Vec<Kept>,
}

#[derive(Debug, Default)]
struct Shared {
    rules: Mutex<(u64, Vec<Rule>)>,
    stop: AtomicBool,
    streams: Mutex<Vec<TcpStream>>,
}

impl Shared {
    fn rules(&self) -> MutexGuard<'_, (u64, Vec<Rule>)> {
        self.rules.lock().unwrap_or_else(|held| held.into_inner())
    }

    /// Sends a message on, or does what the first order that means it says. Under the lock, so that what is let go stays in order.
    fn pass(&self, from: usize, to: usize, bytes: Vec<u8>, way: &Sender<Due>) {
        let mut rules = self.rules();
        let means = |rule: &&mut Rule| (rule.from, rule.to) == (from, to) && rule.what.means(&bytes[4..]);
        let now = Instant::now();
        let due = match rules.1.iter_mut().find(means) {
            None => now,
            Some(rule) => match rule.fate {
                Fate::Dropped => return,
                Fate::Held => return rule.kept.push(Kept { to: way.clone(), bytes }),
                Fate::Late(late) => now + late,
            },
        };
        let _ = way.send((due, bytes));
    }
}

/// Everything between the nodes.
#[derive(Debug)]
pub struct Wire {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Wire {
    /// Goes between all nodes of a cluster, each in a network namespace of its own.
    pub fn new(cluster: &Cluster) -> Outcome<Wire> {
        let mut wire = Wire { shared: Arc::default(), threads: Vec::new() };
        for from in 1..=NODES {
            for to in (1..=NODES).filter(|to| *to != from) {
                let port = cluster.peer_port(to);
                cluster.net.pose(from, to, true)?;
                let listener = cluster.net.listen_as(from, to, port)?;
                let address = format!("{}:{port}", cluster.net.host(to));
                let shared = wire.shared.clone();
                wire.threads.push(std::thread::spawn(move || listen(&shared, &listener, from, to, &address)));
            }
        }
        Ok(wire)
    }

    /// Nodes reach each other directly again, once this is dropped.
    pub fn leave(net: &Net) -> Outcome<()> {
        let pairs = (1..=NODES).flat_map(|from| (1..=NODES).map(move |to| (from, to)));
        pairs.filter(|(from, to)| from != to).try_for_each(|(from, to)| net.pose(from, to, false))
    }

    fn order(&self, from: usize, to: usize, what: What, fate: Fate) -> Order {
        let mut rules = self.shared.rules();
        rules.0 += 1;
        let order = Order(rules.0);
        rules.1.push(Rule { order, from, to, what, fate, kept: Vec::new() });
        order
    }

    /// Keeps these from here on.
    pub fn hold(&self, from: usize, to: usize, what: What) -> Order {
        self.order(from, to, what, Fate::Held)
    }

    /// These are lost from here on.
    pub fn lose(&self, from: usize, to: usize, what: What) -> Order {
        self.order(from, to, what, Fate::Dropped)
    }

    /// These come so much later from here on.
    pub fn delay(&self, from: usize, to: usize, what: What, late: Duration) -> Order {
        self.order(from, to, what, Fate::Late(late))
    }

    /// How many of an order's are kept and fit.
    pub fn kept(&self, order: Order, fits: impl Fn(&[u8]) -> bool) -> usize {
        let rules = self.shared.rules();
        let rule = rules.1.iter().find(|rule| rule.order == order);
        rule.map_or(0, |rule| rule.kept.iter().filter(|kept| fits(kept.message())).count())
    }

    /// Ends an order. What was kept is the caller's.
    pub fn take(&self, order: Order) -> Vec<Kept> {
        let mut rules = self.shared.rules();
        let at = rules.1.iter().position(|rule| rule.order == order);
        at.map(|at| rules.1.remove(at).kept).unwrap_or_default()
    }

    /// Ends an order, and lets go what was kept, before anything that comes later.
    pub fn release(&self, order: Order) {
        let mut rules = self.shared.rules();
        if let Some(at) = rules.1.iter().position(|rule| rule.order == order) {
            rules.1.remove(at).kept.into_iter().for_each(Kept::send);
        }
    }

    /// Ends all orders; what was kept is lost.
    pub fn clear(&self) {
        self.shared.rules().1.clear();
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.clear();
        for stream in self.shared.streams.lock().unwrap_or_else(|held| held.into_inner()).drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Takes what `from` dials and dials the node that it means.
fn listen(shared: &Arc<Shared>, listener: &TcpListener, from: usize, to: usize, address: &str) {
    if listener.set_nonblocking(true).is_err() {
        return;
    }
    while !shared.stop.load(Ordering::Relaxed) {
        let Ok((near, _)) = listener.accept() else {
            std::thread::sleep(LOOK);
            continue;
        };
        let joined = near.set_nonblocking(false).is_ok() && near.set_nodelay(true).is_ok();
        let Some(far) = client::connect(address, CONNECT).ok().filter(|_| joined) else { continue };
        let mut ways = Vec::new();
        for (source, target, way) in [(&near, &far, (from, to)), (&far, &near, (to, from))] {
            let (Ok(source), Ok(target), Ok(known)) =
                (source.try_clone(), target.try_clone(), source.try_clone())
            else {
                break;
            };
            shared.streams.lock().unwrap_or_else(|held| held.into_inner()).push(known);
            ways.push((source, target, way));
        }
        if ways.len() < 2 {
            continue;
        }
        for (source, target, (from, to)) in ways {
            let (sender, receiver) = channel();
            let shared = shared.clone();
            std::thread::spawn(move || deliver(&target, &receiver));
            std::thread::spawn(move || {
                let _ = take(&shared, source, from, to, &sender);
                let _ = sender.send((Instant::now(), Vec::new()));
            });
        }
    }
}

/// Messages from one side, until it ends: four bytes of length, little-endian, and what they count.
fn take(
    shared: &Shared,
    source: TcpStream,
    from: usize,
    to: usize,
    way: &Sender<Due>,
) -> std::io::Result<()> {
    let mut reader = BufReader::with_capacity(1 << 16, source);
    loop {
        let mut head = [0; 4];
        reader.read_exact(&mut head)?;
        let length = u32::from_le_bytes(head) as usize;
        if length == 0 || length > MESSAGE_MAX {
            return Err(std::io::ErrorKind::InvalidData.into());
        }
        let mut bytes = vec![0; 4 + length];
        bytes[..4].copy_from_slice(&head);
        reader.read_exact(&mut bytes[4..])?;
        shared.pass(from, to, bytes, way);
    }
}

/// Writes what is due, in order, until the end of either side.
fn deliver(target: &TcpStream, due: &Receiver<Due>) {
    let mut stream = target;
    for (at, bytes) in due {
        std::thread::sleep(at.saturating_duration_since(Instant::now()));
        if bytes.is_empty() || stream.write_all(&bytes).is_err() {
            break;
        }
    }
    let _ = target.shutdown(Shutdown::Both);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_order_means_is_held_lost_or_late_and_the_rest_passes() {
        let wire = Wire { shared: Arc::default(), threads: Vec::new() };
        let (way, out) = channel();
        let message = |kind: u8| [&[2, 0, 0, 0][..], &[kind, 0]].concat();
        let said = |out: &Receiver<Due>| out.try_iter().map(|(_, bytes)| bytes[4]).collect::<Vec<u8>>();
        wire.shared.pass(1, 2, message(4), &way);
        let held = wire.hold(1, 2, What::All);
        (5..7).for_each(|kind| wire.shared.pass(1, 2, message(kind), &way));
        wire.shared.pass(2, 1, message(7), &way);
        assert_eq!((said(&out), wire.kept(held, |_| true)), (vec![4, 7], 2));
        wire.release(held);
        wire.shared.pass(1, 2, message(8), &way);
        assert_eq!(said(&out), [5, 6, 8]);
        let lost = wire.lose(1, 2, What::All);
        wire.shared.pass(1, 2, message(9), &way);
        assert!(said(&out).is_empty() && wire.take(lost).is_empty());
        let from = Instant::now();
        wire.delay(1, 2, What::All, Duration::from_secs(5));
        wire.shared.pass(1, 2, message(9), &way);
        assert!(out.try_recv().unwrap().0 >= from + Duration::from_secs(5));
        wire.clear();
        wire.shared.pass(1, 2, message(9), &way);
        assert!(out.try_recv().unwrap().0 < from + Duration::from_secs(5));
    }
}
