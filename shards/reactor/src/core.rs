//! What the reactor asks of the state machine it drives, so that tests can drive a small one. No I/O here.

use std::sync::Arc;

use pelton_model::{BrokerConfig, Now};
use pelton_shard::peer::Kind;
use pelton_shard::{DiskImage, Effect, Event, Shard};

use crate::peers::{PeerNews, PeerOrder};
use crate::start::ShardPlan;

/// A shard's state machine: events in, effects out.
pub trait Core: Sized + 'static {
    /// Starts as planned from what is on disk; the error is text for the operator, with cause and remedy.
    fn start(
        config: Arc<BrokerConfig>,
        plan: &ShardPlan,
        image: DiskImage,
        seed: u64,
        now: Now,
        out: &mut Vec<Effect>,
    ) -> Result<Self, String>;

    /// Takes one event; effects are performed in order.
    fn handle(&mut self, now: Now, event: Event, out: &mut Vec<Effect>);

    /// Called once per turn, after all its events.
    fn end_turn(&mut self, now: Now, out: &mut Vec<Effect>);

    /// Monotonic nanoseconds of the next `Tick` wanted.
    fn deadline(&self) -> Option<u64>;

    /// Takes news of other nodes. A machine that knows of none has no plan for peers, and gets none.
    fn handle_peer(&mut self, _now: Now, _news: PeerNews, _out: &mut Vec<Effect>) {}

    /// Until when it may answer for its node in a cluster, monotonic nanoseconds; none if nobody has to allow it.
    fn lease_until_ns(&self) -> Option<u64> {
        None
    }

    /// What it wants of other nodes beside the effects that send to them; asked for after each of the calls above.
    fn take_peer_order(&mut self) -> Option<PeerOrder> {
        None
    }
}

impl Core for Shard {
    fn start(
        config: Arc<BrokerConfig>,
        plan: &ShardPlan,
        image: DiskImage,
        seed: u64,
        now: Now,
        out: &mut Vec<Effect>,
    ) -> Result<Shard, String> {
        let shard = match &plan.cluster {
            None => Shard::new(config, plan.shard, image, seed, now, out),
            Some(cluster) => Shard::in_cluster(config, cluster, plan.shard, image, seed, now, out),
        };
        shard.map_err(|error| error.to_string())
    }

    fn handle(&mut self, now: Now, event: Event, out: &mut Vec<Effect>) {
        Shard::handle(self, now, event, out);
    }

    fn end_turn(&mut self, now: Now, out: &mut Vec<Effect>) {
        Shard::end_turn(self, now, out);
    }

    fn deadline(&self) -> Option<u64> {
        Shard::deadline(self)
    }

    fn handle_peer(&mut self, now: Now, news: PeerNews, out: &mut Vec<Effect>) {
        let event = match news {
            // Replicas and members ask again by themselves.
            PeerNews::Up { .. } => return,
            PeerNews::Frame { from, kind: Kind::Replica, bytes } => Event::PeerFrame { from, bytes },
            PeerNews::Frame { from, bytes, .. } => Event::MemberFrame { from: from.node, bytes },
            PeerNews::Down { peer } => Event::PeerGone { peer },
        };
        Shard::handle(self, now, event, out);
    }

    fn lease_until_ns(&self) -> Option<u64> {
        Shard::lease_until_ns(self)
    }

    fn take_peer_order(&mut self) -> Option<PeerOrder> {
        self.take_peers().map(|peers| PeerOrder::Know { peers })
    }
}
