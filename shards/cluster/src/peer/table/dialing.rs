//! Dialing: who is to be dialed, when, and when again.

use pelton_model::{ConnectionId, Prng, Replica};

use super::super::backoff;
use super::super::link::Link;
use super::super::log_gate::LogGate;
use super::super::proof::Nonce;
use super::super::{Effect, Peer};
use super::{Peers, say};
use crate::peer::cutter::Want;

/// A connection that was open for less counts as a failure, nanoseconds.
const SHORT_NS: u64 = 2_000_000_000;

/// Where dialing a peer stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Dial {
    /// It is the other side's business, or there is a connection.
    Rests,
    /// At this time.
    Waits { at_ns: u64 },
    /// Under way, at most until then.
    Dials { attempt: u64, until_ns: u64 },
    /// Connected, not yet open.
    Greets { connection: ConnectionId },
}

/// A peer that is known.
pub struct Known {
    pub peer: Peer,
    dials: bool,
    dial: Dial,
    failures: u32,
    pub gate: LogGate,
}

impl Known {
    pub fn new(peer: Peer, dials: bool, now_ns: u64) -> Known {
        let dial = if dials { Dial::Waits { at_ns: now_ns } } else { Dial::Rests };
        Known { peer, dials, dial, failures: 0, gate: LogGate::default() }
    }

    /// The same place, perhaps at another address: then it is dialed there without waiting.
    pub fn changed(mut self, peer: Peer, dials: bool, now_ns: u64) -> Known {
        let moved = (&self.peer.host, self.peer.port) != (&peer.host, peer.port) || dials != self.dials;
        self.peer = peer;
        self.dials = dials;
        match self.dial {
            Dial::Waits { .. } | Dial::Rests if moved => {
                self.failures = 0;
                self.dial = if dials { Dial::Waits { at_ns: now_ns } } else { Dial::Rests };
            }
            _ => {}
        }
        self
    }

    /// When something is next due.
    pub fn due(&self) -> Option<u64> {
        match self.dial {
            Dial::Waits { at_ns } => Some(at_ns),
            Dial::Dials { until_ns, .. } => Some(until_ns),
            Dial::Rests | Dial::Greets { .. } => None,
        }
    }

    /// There is an open connection. The attempt that is not needed any more, if any.
    pub fn opened(&mut self, connection: ConnectionId) -> Option<u64> {
        self.gate.reset();
        match self.dial {
            // It comes to its own end: the other side keeps the same one of the two.
            Dial::Greets { connection: other } if other != connection => None,
            Dial::Dials { attempt, .. } => {
                self.dial = Dial::Rests;
                Some(attempt)
            }
            _ => {
                self.dial = Dial::Rests;
                None
            }
        }
    }

    /// It ended, or did not come to be.
    fn again(&mut self, now_ns: u64, refused: bool, prng: &mut Prng) {
        if self.dials {
            self.failures = self.failures.saturating_add(1);
            self.dial = Dial::Waits { at_ns: now_ns + backoff::wait_ns(self.failures, refused, prng) };
        } else {
            self.dial = Dial::Rests;
        }
    }
}

impl Peers {
    /// Dials whom it is time to dial, and gives up what takes too long.
    pub(super) fn dial_due(&mut self, now_ns: u64, out: &mut Vec<Effect>) {
        let mut late = Vec::new();
        for (place, known) in &mut self.known {
            match known.dial {
                Dial::Waits { at_ns } if at_ns <= now_ns && self.open.contains_key(place) => {
                    known.dial = Dial::Rests
                }
                Dial::Waits { at_ns } if at_ns <= now_ns => {
                    self.next_attempt += 1;
                    let attempt = self.next_attempt;
                    known.dial = Dial::Dials { attempt, until_ns: now_ns + self.limits.dial_ns };
                    self.attempts.insert(attempt, *place);
                    out.push(Effect::Dial { attempt, host: known.peer.host.clone(), port: known.peer.port });
                }
                Dial::Dials { attempt, until_ns } if until_ns <= now_ns => late.push(attempt),
                _ => {}
            }
        }
        for attempt in late {
            out.push(Effect::Undial { attempt });
            self.not_dialed(now_ns, attempt, "it does not answer in time", out);
        }
    }

    /// Stops dialing a peer that is not known any more.
    pub(super) fn undial(&mut self, now_ns: u64, known: &Known, out: &mut Vec<Effect>) {
        match known.dial {
            Dial::Dials { attempt, .. } => self.give_up(attempt, out),
            Dial::Greets { connection } => {
                self.end(now_ns, connection, "", out);
                out.push(Effect::Kill { connection });
            }
            Dial::Rests | Dial::Waits { .. } => {}
        }
    }

    /// Nobody waits for an attempt any more.
    pub(super) fn give_up(&mut self, attempt: u64, out: &mut Vec<Effect>) {
        self.attempts.remove(&attempt);
        out.push(Effect::Undial { attempt });
    }

    /// Whom an attempt that is over was for; none if nobody waits for it.
    fn attempted(&mut self, attempt: u64) -> Option<Replica> {
        let place = self.attempts.remove(&attempt)?;
        let dial = self.known.get(&place)?.dial;
        matches!(dial, Dial::Dials { attempt: named, .. } if named == attempt).then_some(place)
    }

    pub(super) fn dialed(
        &mut self,
        now_ns: u64,
        attempt: u64,
        connection: ConnectionId,
        nonce: Nonce,
        out: &mut Vec<Effect>,
    ) {
        let place = self.attempted(attempt);
        let Some(known) = place.and_then(|place| self.known.get_mut(&place)) else {
            // Given up meanwhile.
            return out.push(Effect::Kill { connection });
        };
        known.dial = Dial::Greets { connection };
        let (to, address) = (known.peer.place, format!("{}:{}", known.peer.host, known.peer.port));
        let (mut link, hello) = Link::dialed(&self.me, to, address, nonce, now_ns);
        say(&mut link, now_ns, connection, vec![hello], out);
        self.links.insert(connection, link);
        self.due_ns = self.due_ns.min(now_ns + self.limits.hello_ns);
        out.push(Effect::Receive { connection, want: Want::Any });
    }

    pub(super) fn not_dialed(&mut self, now_ns: u64, attempt: u64, reason: &str, out: &mut Vec<Effect>) {
        let place = self.attempted(attempt);
        let Some(known) = place.and_then(|place| self.known.get_mut(&place)) else { return };
        known.again(now_ns, false, &mut self.prng);
        self.due_ns = self.due_ns.min(known.due().unwrap_or(u64::MAX));
        let Peer { place, host, port, .. } = &known.peer;
        let text = format!(
            "cannot connect to node {} shard {} at {host}:{port}: {reason}; trying again",
            place.node.0, place.shard.0
        );
        if let Some(text) = known.gate.pass(now_ns, text) {
            out.push(Effect::Log { warn: true, text });
        }
    }

    /// A connection to `place` has ended that began, or opened, at `began_ns`.
    pub(super) fn dial_again(
        &mut self,
        now_ns: u64,
        place: Replica,
        connection: ConnectionId,
        open_ns: Option<u64>,
        refused: bool,
    ) {
        let Some(known) = self.known.get_mut(&place) else { return };
        let greeted = known.dial == Dial::Greets { connection };
        let was_open = open_ns.is_some() && known.dial == Dial::Rests && !self.open.contains_key(&place);
        if !greeted && !was_open {
            return;
        }
        if open_ns.is_some_and(|since_ns| now_ns - since_ns >= SHORT_NS) {
            known.failures = 0;
        }
        known.again(now_ns, refused, &mut self.prng);
        self.due_ns = self.due_ns.min(known.due().unwrap_or(u64::MAX));
    }
}
