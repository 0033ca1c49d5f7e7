//! One connection from its first byte: hello, proof, then frames. What a message means is decided here; whether a proven peer is
//! let in beside others, in `table`.

use bytes::Bytes;
use pelton_model::Replica;
use uuid::Uuid;

use super::cutter::{Cutter, Kind, message};
use super::hello::{HELLO_BYTES_MAX, Hello, Identity};
use super::proof::{Nonce, Role, Secret};
use super::refusal::{Refusal, judge};

/// How far a connection is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// Waits for the other side's hello.
    Hello,
    /// Waits for its proof.
    Proof,
    /// Carries frames.
    Open,
    /// Told to close since this time; what still comes is not looked at.
    Ending { since_ns: u64 },
}

/// What follows from a message.
#[derive(Debug)]
pub enum Step {
    /// Nothing.
    Nothing,
    /// Say this.
    Say(Bytes),
    /// Say this, then refuse.
    SayAndRefuse(Bytes, Refusal),
    /// Refuse.
    Refuse(Refusal),
    /// The other side has proven itself.
    Proven,
    /// The other side refused, for a reason this version may not know.
    Refused(Option<Refusal>),
    /// A frame.
    Frame(Kind, Bytes),
    /// What the other side sends makes no sense; for the log.
    Broken(String),
}

/// What a link is told of its surroundings.
pub struct Surroundings<'a> {
    /// This side.
    pub me: &'a Identity,
    /// The cluster's secret.
    pub secret: &'a Secret,
    /// The data directory the node of a place is registered with.
    pub directory: &'a dyn Fn(Replica) -> Option<Uuid>,
}

/// One connection.
pub struct Link {
    /// Which side this is.
    pub role: Role,
    /// How far it is.
    pub phase: Phase,
    /// The other side's address, for the log.
    pub address: String,
    /// Cuts what arrives.
    pub cutter: Cutter,
    /// When it began, or, once open, when it opened.
    pub began_ns: u64,
    /// When something last came.
    pub heard_ns: u64,
    /// When something was last said or had left.
    pub said_ns: u64,
    /// Bytes queued and not yet sent.
    pub unsent_bytes: usize,
    nonce: Nonce,
    mine: Option<(Hello, Bytes)>,
    theirs: Option<(Hello, Bytes)>,
}

impl Link {
    fn new(role: Role, address: String, nonce: Nonce, now_ns: u64) -> Link {
        Link {
            role,
            phase: Phase::Hello,
            address,
            cutter: Cutter::new(HELLO_BYTES_MAX),
            began_ns: now_ns,
            heard_ns: now_ns,
            said_ns: now_ns,
            unsent_bytes: 0,
            nonce,
            mine: None,
            theirs: None,
        }
    }

    /// One that came in; the other side speaks first.
    pub fn accepted(address: String, nonce: Nonce, now_ns: u64) -> Link {
        Link::new(Role::Acceptor, address, nonce, now_ns)
    }

    /// One that was dialed, and what to say first.
    pub fn dialed(me: &Identity, to: Replica, address: String, nonce: Nonce, now_ns: u64) -> (Link, Bytes) {
        let mut link = Link::new(Role::Dialer, address, nonce, now_ns);
        let hello = link.introduce(me, to);
        (link, hello)
    }

    fn introduce(&mut self, me: &Identity, to: Replica) -> Bytes {
        let hello = Hello::new(me, to, self.nonce);
        let body = hello.encode();
        self.mine = Some((hello, body.clone()));
        message(Kind::Hello, body.len(), &body)
    }

    /// Who the other side says it is; proven once the link is open. For one that was dialed, who was meant until it says so.
    pub fn place(&self) -> Option<Replica> {
        match (&self.theirs, &self.mine) {
            (Some((theirs, _)), _) => Some(theirs.identity.place),
            (None, Some((mine, _))) => Some(mine.to),
            (None, None) => None,
        }
    }

    /// Whom this side meant to reach.
    pub fn meant(&self) -> Option<Replica> {
        self.mine.as_ref().filter(|_| self.role == Role::Dialer).map(|(mine, _)| mine.to)
    }

    /// The other side's identity.
    pub fn theirs(&self) -> Option<&Identity> {
        self.theirs.as_ref().map(|(hello, _)| &hello.identity)
    }

    /// Both hellos, the dialer's first.
    fn hellos(&self) -> Option<[&(Hello, Bytes); 2]> {
        let (mine, theirs) = (self.mine.as_ref()?, self.theirs.as_ref()?);
        Some(if self.role == Role::Dialer { [mine, theirs] } else { [theirs, mine] })
    }

    /// Why, in words; `by` refused. None before both have said who they are.
    pub fn why(&self, refusal: Refusal, by: Role) -> Option<String> {
        self.hellos().map(|[dialer, acceptor]| refusal.text(&dialer.0, &acceptor.0, by))
    }

    /// What this side says to prove itself.
    pub fn proof(&self, secret: &Secret) -> Bytes {
        let Some([dialer, acceptor]) = self.hellos() else { return Bytes::new() };
        let proof = secret.prove(self.role, &dialer.1, &acceptor.1);
        message(Kind::Proof, proof.len(), &proof)
    }

    /// Takes a message.
    pub fn handle_message(&mut self, around: &Surroundings<'_>, kind: Kind, body: Bytes) -> Step {
        match (self.phase, kind) {
            (Phase::Ending { .. }, _) => Step::Nothing,
            (_, Kind::Refusal) if self.mine.is_some() => Step::Refused(Refusal::decode(&body)),
            (Phase::Hello, Kind::Hello) => self.handle_hello(around, body),
            (Phase::Proof, Kind::Proof) => self.handle_proof(around, &body),
            (Phase::Open, Kind::Alive) => Step::Nothing,
            (Phase::Open, Kind::Replica | Kind::Member) => Step::Frame(kind, body),
            (phase, kind) => Step::Broken(format!("it sends a message of kind {kind:?} in phase {phase:?}")),
        }
    }

    fn handle_hello(&mut self, around: &Surroundings<'_>, body: Bytes) -> Step {
        let Ok(theirs) = Hello::decode(&body) else {
            return Step::Broken("it does not say who it is as a node would".to_string());
        };
        let place = theirs.identity.place;
        let answer = (self.role == Role::Acceptor).then(|| self.introduce(around.me, place));
        let Some((mine, _)) = &self.mine else { return Step::Nothing };
        let judged = judge(self.role, mine, &theirs, (around.directory)(place));
        self.theirs = Some((theirs, body));
        match (judged, answer) {
            (Ok(()), Some(answer)) => {
                self.phase = Phase::Proof;
                Step::Say(answer)
            }
            (Ok(()), None) => {
                self.phase = Phase::Proof;
                Step::Say(self.proof(around.secret))
            }
            (Err(refusal), Some(answer)) => Step::SayAndRefuse(answer, refusal),
            (Err(refusal), None) => Step::Refuse(refusal),
        }
    }

    fn handle_proof(&mut self, around: &Surroundings<'_>, body: &[u8]) -> Step {
        let Some([dialer, acceptor]) = self.hellos() else { return Step::Refuse(Refusal::Secret) };
        if around.secret.accepts(body, self.role.other(), &dialer.1, &acceptor.1) {
            Step::Proven
        } else {
            Step::Refuse(Refusal::Secret)
        }
    }
}
