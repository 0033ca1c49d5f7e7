//! Ends of connections: refusals by either side, nonsense, silence, and the plain end.

use pelton_model::{ConnectionId, Replica};

use super::super::cutter::{Kind, message};
use super::super::link::{Link, Phase};
use super::super::refusal::Refusal;
use super::{Effect, Peers, Role, say};

impl Peers {
    /// Takes a connection out of use; the caller closes it. `cause` is for the log if it was open.
    pub(super) fn end(&mut self, now_ns: u64, connection: ConnectionId, cause: &str, out: &mut Vec<Effect>) {
        self.retire(now_ns, connection, cause, false, out);
    }

    fn retire(
        &mut self,
        now_ns: u64,
        connection: ConnectionId,
        cause: &str,
        refused: bool,
        out: &mut Vec<Effect>,
    ) {
        let Some(link) = self.links.get_mut(&connection) else { return };
        if matches!(link.phase, Phase::Ending { .. }) {
            return;
        }
        let open_ns = (link.phase == Phase::Open).then_some(link.began_ns);
        link.phase = Phase::Ending { since_ns: now_ns };
        self.due_ns = self.due_ns.min(now_ns + self.limits.hello_ns);
        let (place, meant, address) = (link.place(), link.meant(), link.address.clone());
        if let Some(peer) = place
            && self.open.get(&peer) == Some(&connection)
        {
            self.open.remove(&peer);
            let text = format!("the connection to {} ended: {cause}", named(peer, &address));
            out.push(Effect::Log { warn: false, text });
            out.push(Effect::Down { peer });
        }
        // A dialed connection is that of whom it was meant for, whoever answered.
        if let Some(place) = meant.or(place) {
            self.dial_again(now_ns, place, connection, open_ns, refused);
        }
    }

    /// This side refuses.
    pub(super) fn refuse(
        &mut self,
        now_ns: u64,
        connection: ConnectionId,
        refusal: Refusal,
        out: &mut Vec<Effect>,
    ) {
        let Some(link) = self.links.get_mut(&connection) else { return };
        let role = link.role;
        say(link, now_ns, connection, vec![message(Kind::Refusal, 1, &[refusal as u8])], out);
        self.report(now_ns, connection, refusal, role, out);
        self.retire(now_ns, connection, "it is refused", refusal.needs_a_person(), out);
        out.push(Effect::Close { connection });
    }

    /// The other side refused.
    pub(super) fn refused(
        &mut self,
        now_ns: u64,
        connection: ConnectionId,
        refusal: Option<Refusal>,
        out: &mut Vec<Effect>,
    ) {
        let Some(link) = self.links.get(&connection) else { return };
        let role = link.role.other();
        match refusal {
            Some(refusal) => self.report(now_ns, connection, refusal, role, out),
            None => {
                let text = "for a reason this version does not know; see its log";
                self.tell(now_ns, connection, true, "refused this node", text, out);
            }
        }
        self.retire(now_ns, connection, "it was refused", refusal.is_none_or(Refusal::needs_a_person), out);
        out.push(Effect::Kill { connection });
    }

    fn report(
        &mut self,
        now_ns: u64,
        connection: ConnectionId,
        refusal: Refusal,
        by: Role,
        out: &mut Vec<Effect>,
    ) {
        let Some(link) = self.links.get(&connection) else { return };
        let what = if by == link.role { "refused" } else { "refused this node" };
        let why = link.why(refusal, by).unwrap_or_else(|| format!("{refusal:?}"));
        self.tell(now_ns, connection, refusal != Refusal::Connected, what, &why, out);
    }

    /// What comes makes no sense, or nothing comes.
    pub(super) fn broken(
        &mut self,
        now_ns: u64,
        connection: ConnectionId,
        text: &str,
        out: &mut Vec<Effect>,
    ) {
        let Some(link) = self.links.get(&connection) else { return };
        if link.phase != Phase::Open {
            self.tell(now_ns, connection, true, "closed", text, out);
        }
        self.end(now_ns, connection, text, out);
        out.push(Effect::Kill { connection });
    }

    pub(super) fn closed(&mut self, now_ns: u64, connection: ConnectionId, out: &mut Vec<Effect>) {
        let Some(link) = self.links.get(&connection) else { return };
        if link.role == Role::Dialer && matches!(link.phase, Phase::Hello | Phase::Proof) {
            let text = "the other side closed it before the hello was over; see its log";
            self.tell(now_ns, connection, true, "lost", text, out);
        }
        self.end(now_ns, connection, "the other side closed it, or the network did", out);
        self.links.remove(&connection);
    }

    /// A line about a connection, unless it was written a moment ago.
    fn tell(
        &mut self,
        now_ns: u64,
        connection: ConnectionId,
        warn: bool,
        what: &str,
        why: &str,
        out: &mut Vec<Effect>,
    ) {
        let Some(link) = self.links.get(&connection) else { return };
        let text = match (what, speaker(link)) {
            ("refused this node", who) => format!("{who} refused this node: {why}"),
            (what, who) => format!("{what} the connection of {who}: {why}"),
        };
        // Who came in may say that it is anyone.
        let known = link.meant().and_then(|place| self.known.get_mut(&place));
        let gate = known.map_or(&mut self.stranger_gate, |known| &mut known.gate);
        if let Some(text) = gate.pass(now_ns, text) {
            out.push(Effect::Log { warn, text });
        }
    }

    pub(super) fn gate(&mut self, now_ns: u64, text: String, out: &mut Vec<Effect>) {
        if let Some(text) = self.stranger_gate.pass(now_ns, text) {
            out.push(Effect::Log { warn: true, text });
        }
    }
}

fn named(peer: Replica, address: &str) -> String {
    format!("node {} shard {} ({address})", peer.node.0, peer.shard.0)
}

fn speaker(link: &Link) -> String {
    link.place().map_or_else(|| link.address.clone(), |place| named(place, &link.address))
}
