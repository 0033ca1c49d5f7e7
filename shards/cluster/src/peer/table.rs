//! All connections of one shard to the shards of other nodes: which are dialed and when again, which of two is kept, what may
//! wait to be sent, who has been silent too long.

mod dialing;
mod ending;

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use pelton_model::{ConnectionId, Prng, Replica};
use uuid::Uuid;

use super::cutter::{Kind, Want, message};
use super::hello::Identity;
use super::link::{Link, Phase, Step, Surroundings};
use super::log_gate::LogGate;
use super::proof::{Nonce, Role, Secret};
use super::refusal::Refusal;
use super::{Effect, Event, Limits, MEMBER_BYTES, Peer};
use dialing::Known;

/// A first part of a frame up to this long is put behind the message's head, bytes.
const JOINED_BYTES_MAX: usize = 256;

/// What became of frames, since start.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Counts {
    /// Frames queued on a connection.
    pub sent: u64,
    /// Frames dropped because there was none.
    pub dropped_down: u64,
    /// Frames dropped because too much waited.
    pub dropped_full: u64,
    /// Frames received.
    pub received: u64,
    /// Connections that opened.
    pub opened: u64,
}

/// See the module.
pub struct Peers {
    me: Identity,
    secret: Secret,
    limits: Limits,
    prng: Prng,
    known: BTreeMap<Replica, Known>,
    /// Who is being dialed, by attempt.
    attempts: BTreeMap<u64, Replica>,
    next_attempt: u64,
    links: BTreeMap<ConnectionId, Link>,
    /// The proven ones.
    open: BTreeMap<Replica, ConnectionId>,
    /// Accepted and perhaps not proven, oldest first.
    strangers: VecDeque<ConnectionId>,
    stranger_gate: LogGate,
    /// Nothing is due before, monotonic nanoseconds.
    due_ns: u64,
    /// When anything last happened.
    seen_ns: u64,
    counts: Counts,
}

impl Peers {
    /// No peers yet. `seed` varies how long is waited; nothing secret comes of it.
    pub fn new(me: Identity, secret: Secret, limits: Limits, seed: u64) -> Peers {
        Peers {
            me,
            secret,
            limits,
            prng: Prng::new(seed),
            known: BTreeMap::new(),
            attempts: BTreeMap::new(),
            next_attempt: 0,
            links: BTreeMap::new(),
            open: BTreeMap::new(),
            strangers: VecDeque::new(),
            stranger_gate: LogGate::of_strangers(),
            due_ns: u64::MAX,
            seen_ns: 0,
            counts: Counts::default(),
        }
    }

    /// What became of frames.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Whether frames for `peer` have a connection.
    pub fn is_open(&self, peer: Replica) -> bool {
        self.open.contains_key(&peer)
    }

    /// Monotonic nanoseconds of the next [`Peers::tick`] wanted.
    pub fn deadline(&self) -> Option<u64> {
        (self.due_ns != u64::MAX).then_some(self.due_ns)
    }

    /// Sends a frame of `parts`. False: it was dropped, because there is no connection or too much waits; never an error.
    pub fn send(
        &mut self,
        now_ns: u64,
        to: Replica,
        kind: Kind,
        mut parts: Vec<Bytes>,
        out: &mut Vec<Effect>,
    ) -> bool {
        let Some(connection) = self.open.get(&to).copied() else {
            self.counts.dropped_down += 1;
            return false;
        };
        let Some(link) = self.links.get_mut(&connection) else { return false };
        let body: usize = parts.iter().map(Bytes::len).sum();
        let reserve = if kind == Kind::Member { MEMBER_BYTES } else { 0 };
        let room = (self.limits.queue_bytes_max + reserve).saturating_sub(link.unsent_bytes);
        // A frame longer than the queue may still go alone, or it never would.
        if body >= self.limits.message_bytes_max || (body > room && link.unsent_bytes > 0) {
            self.counts.dropped_full += 1;
            return false;
        }
        match parts.first_mut() {
            Some(first) if first.len() <= JOINED_BYTES_MAX => *first = message(kind, body, first),
            _ => parts.insert(0, message(kind, body, &[])),
        }
        self.counts.sent += 1;
        say(link, now_ns, connection, parts, out);
        true
    }

    /// Takes what happened to a connection.
    pub fn handle(&mut self, now_ns: u64, event: Event, out: &mut Vec<Effect>) {
        self.see(now_ns);
        match event {
            Event::Accepted { connection, address, nonce } => {
                self.accepted(now_ns, connection, address, nonce, out)
            }
            Event::Dialed { attempt, connection, nonce } => {
                self.dialed(now_ns, attempt, connection, nonce, out)
            }
            Event::NotDialed { attempt, reason } => self.not_dialed(now_ns, attempt, &reason, out),
            Event::Received { connection, bytes } => self.received(now_ns, connection, bytes, out),
            Event::Progress { connection } => {
                if let Some(link) = self.links.get_mut(&connection) {
                    link.heard_ns = now_ns;
                }
            }
            Event::Sent { connection, bytes } => {
                if let Some(link) = self.links.get_mut(&connection) {
                    link.unsent_bytes = link.unsent_bytes.saturating_sub(bytes);
                    link.said_ns = now_ns;
                    if link.unsent_bytes == 0 && link.phase == Phase::Open {
                        self.due_ns = self.due_ns.min(now_ns + self.limits.keep_alive_ns);
                    }
                }
            }
            Event::Closed { connection } => self.closed(now_ns, connection, out),
        }
    }

    /// After a pause of this process silence proves nothing: what was said meanwhile may not have been received yet.
    fn see(&mut self, now_ns: u64) {
        let patience_ns = self.limits.silence_ns / 2;
        if now_ns.saturating_sub(self.seen_ns) > patience_ns {
            for link in self.links.values_mut() {
                link.heard_ns = link.heard_ns.max(now_ns.saturating_sub(patience_ns));
            }
        }
        self.seen_ns = now_ns;
    }

    fn accepted(
        &mut self,
        now_ns: u64,
        connection: ConnectionId,
        address: String,
        nonce: Nonce,
        out: &mut Vec<Effect>,
    ) {
        // The port says nothing: the other side's kernel chose it.
        let address = address.rsplit_once(':').map_or(address.clone(), |(host, _)| host.to_string());
        if self.links.len() >= self.limits.links_max {
            self.gate(
                now_ns,
                format!("no room for a connection of {address}: there are {}", self.links.len()),
                out,
            );
            out.push(Effect::Kill { connection });
            return;
        }
        let links = &self.links;
        let strange = |link: &Link| matches!(link.phase, Phase::Hello | Phase::Proof);
        self.strangers.retain(|stranger| links.get(stranger).is_some_and(strange));
        if self.strangers.len() >= self.limits.strangers_max
            && let Some(oldest) = self.strangers.pop_front()
        {
            let text = "more connections than there may be have not shown yet that they are of this cluster";
            self.broken(now_ns, oldest, text, out);
        }
        self.strangers.push_back(connection);
        self.links.insert(connection, Link::accepted(address, nonce, now_ns));
        self.due_ns = self.due_ns.min(now_ns + self.limits.hello_ns);
        out.push(Effect::Receive { connection, want: Want::Any });
    }

    fn received(&mut self, now_ns: u64, connection: ConnectionId, bytes: Bytes, out: &mut Vec<Effect>) {
        let Some(link) = self.links.get_mut(&connection) else { return };
        if matches!(link.phase, Phase::Ending { .. }) {
            return;
        }
        link.heard_ns = now_ns;
        link.cutter.put(bytes);
        loop {
            let Some(link) = self.links.get_mut(&connection) else { return };
            let known = &self.known;
            let directory = |place: Replica| known.get(&place).and_then(|known| known.peer.directory);
            let around = Surroundings { me: &self.me, secret: &self.secret, directory: &directory };
            match link.cutter.cut() {
                Err(text) => return self.broken(now_ns, connection, &text, out),
                Ok(None) => {
                    let want = link.cutter.want();
                    return out.push(Effect::Receive { connection, want });
                }
                Ok(Some((kind, body))) => {
                    let step = link.handle_message(&around, kind, body);
                    if !self.take(now_ns, connection, step, out) {
                        return;
                    }
                }
            }
        }
    }

    /// Does what follows from a message; false when the connection ends.
    fn take(&mut self, now_ns: u64, connection: ConnectionId, step: Step, out: &mut Vec<Effect>) -> bool {
        let Some(link) = self.links.get_mut(&connection) else { return false };
        match step {
            Step::Nothing => {}
            Step::Say(bytes) => say(link, now_ns, connection, vec![bytes], out),
            Step::Frame(kind, bytes) => {
                if let Some(from) = link.place() {
                    self.counts.received += 1;
                    out.push(Effect::Frame { from, kind, bytes });
                }
            }
            Step::Proven => return self.proven(now_ns, connection, out),
            Step::SayAndRefuse(bytes, refusal) => {
                say(link, now_ns, connection, vec![bytes], out);
                self.refuse(now_ns, connection, refusal, out);
                return false;
            }
            Step::Refuse(refusal) => {
                self.refuse(now_ns, connection, refusal, out);
                return false;
            }
            Step::Refused(refusal) => {
                self.refused(now_ns, connection, refusal, out);
                return false;
            }
            Step::Broken(text) => {
                self.broken(now_ns, connection, &text, out);
                return false;
            }
        }
        true
    }

    /// The other side is who it says it is: is it let in beside what there is?
    fn proven(&mut self, now_ns: u64, connection: ConnectionId, out: &mut Vec<Effect>) -> bool {
        let Some(link) = self.links.get(&connection) else { return false };
        let Some(peer) = link.place() else { return false };
        if let Some(old) = self.open.get(&peer).copied() {
            if let Some(refusal) = self.links.get(&old).and_then(|old| self.keep(peer, old, link)) {
                self.refuse(now_ns, connection, refusal, out);
                return false;
            }
            self.end(now_ns, old, "another connection takes its place", out);
            out.push(Effect::Kill { connection: old });
        }
        let Some(link) = self.links.get_mut(&connection) else { return false };
        if link.role == Role::Acceptor {
            let proof = link.proof(&self.secret);
            say(link, now_ns, connection, vec![proof], out);
        }
        link.phase = Phase::Open;
        link.began_ns = now_ns;
        link.cutter.allow(self.limits.message_bytes_max);
        self.open.insert(peer, connection);
        self.due_ns = self.due_ns.min(now_ns + self.limits.keep_alive_ns);
        self.counts.opened += 1;
        let start = link.theirs().map_or(0, |identity| identity.start);
        let text = format!("connected to node {} shard {} ({})", peer.node.0, peer.shard.0, link.address);
        out.push(Effect::Log { warn: false, text });
        out.push(Effect::Up { peer, start });
        if let Some(known) = self.known.get_mut(&peer) {
            let needless = known.opened(connection);
            needless.into_iter().for_each(|attempt| self.give_up(attempt, out));
        }
        true
    }

    /// Why the `old` connection stays and the `new` one goes; none if the new one takes its place. Both sides decide alike: of two
    /// in the same lives that which the lower place dialed, of two dialed by the same side the later.
    fn keep(&self, peer: Replica, old: &Link, new: &Link) -> Option<Refusal> {
        let (before, now) = (old.theirs()?, new.theirs()?);
        if before.directory == now.directory && now.start < before.start {
            return Some(Refusal::Stale);
        }
        if before.directory != now.directory || now.start != before.start {
            return None;
        }
        let dialer = |link: &Link| if link.role == Role::Dialer { self.me.place } else { peer };
        (dialer(old) < dialer(new)).then_some(Refusal::Connected)
    }

    /// Does what is due.
    pub fn tick(&mut self, now_ns: u64, out: &mut Vec<Effect>) {
        self.see(now_ns);
        if now_ns < self.due_ns {
            return;
        }
        for connection in self.links.keys().copied().collect::<Vec<_>>() {
            self.tick_link(now_ns, connection, out);
        }
        self.dial_due(now_ns, out);
        let links = self.links.values().map(|link| link_due(link, &self.limits));
        let known = self.known.values().filter_map(Known::due);
        self.due_ns = links.chain(known).min().unwrap_or(u64::MAX);
    }

    fn tick_link(&mut self, now_ns: u64, connection: ConnectionId, out: &mut Vec<Effect>) {
        let limits = self.limits;
        let Some(link) = self.links.get_mut(&connection) else { return };
        match link.phase {
            Phase::Hello | Phase::Proof if now_ns >= link.began_ns + limits.hello_ns => {
                self.broken(now_ns, connection, "it does not say who it is in time", out);
            }
            Phase::Open if now_ns >= link.heard_ns + limits.silence_ns => {
                let text = format!("nothing was heard of it for {} ms", (now_ns - link.heard_ns) / 1_000_000);
                self.broken(now_ns, connection, &text, out);
            }
            Phase::Open if link.unsent_bytes == 0 && now_ns >= link.said_ns + limits.keep_alive_ns => {
                say(link, now_ns, connection, vec![message(Kind::Alive, 0, &[])], out);
            }
            Phase::Ending { since_ns } if now_ns >= since_ns + limits.hello_ns => {
                link.phase = Phase::Ending { since_ns: u64::MAX - limits.hello_ns };
                out.push(Effect::Kill { connection });
            }
            _ => {}
        }
    }

    /// Who is known, and the data directory its node is registered with, from now on. Others are let in when they come with the
    /// secret, but not dialed; those that were known and are not any more are let go.
    pub fn set_peers(&mut self, now_ns: u64, peers: Vec<Peer>, out: &mut Vec<Effect>) {
        let mut before = std::mem::take(&mut self.known);
        for peer in peers {
            if peer.place.node == self.me.place.node {
                continue;
            }
            let dials = peer.eager || self.me.place < peer.place;
            let known = match before.remove(&peer.place) {
                Some(known) => known.changed(peer, dials, now_ns),
                None => Known::new(peer, dials, now_ns),
            };
            self.known.insert(known.peer.place, known);
        }
        for (place, known) in before {
            self.undial(now_ns, &known, out);
            if let Some(connection) = self.open.get(&place).copied() {
                self.refuse(now_ns, connection, Refusal::Removed, out);
            }
        }
        self.check_directories(now_ns, out);
        self.due_ns = 0;
        self.tick(now_ns, out);
    }

    fn check_directories(&mut self, now_ns: u64, out: &mut Vec<Effect>) {
        let wrong = |(place, connection): (&Replica, &ConnectionId)| {
            let registered: Uuid = self.known.get(place)?.peer.directory?;
            let comes = self.links.get(connection)?.theirs()?.directory;
            (registered != comes).then_some(*connection)
        };
        for connection in self.open.iter().filter_map(wrong).collect::<Vec<_>>() {
            self.refuse(now_ns, connection, Refusal::Directory, out);
        }
    }
}

/// When something is next due of a link.
fn link_due(link: &Link, limits: &Limits) -> u64 {
    match link.phase {
        Phase::Hello | Phase::Proof => link.began_ns + limits.hello_ns,
        Phase::Open if link.unsent_bytes > 0 => link.heard_ns + limits.silence_ns,
        Phase::Open => (link.heard_ns + limits.silence_ns).min(link.said_ns + limits.keep_alive_ns),
        Phase::Ending { since_ns } => since_ns + limits.hello_ns,
    }
}

fn say(link: &mut Link, now_ns: u64, connection: ConnectionId, parts: Vec<Bytes>, out: &mut Vec<Effect>) {
    link.said_ns = now_ns;
    link.unsent_bytes += parts.iter().map(Bytes::len).sum::<usize>();
    out.push(Effect::Send { connection, parts });
}
