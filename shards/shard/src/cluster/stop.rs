//! How a node of a cluster stops (rule R12, Kafka's controlled shutdown): what it leads is led elsewhere first, then another
//! voter leads the quorum, then its shards stop serving, and at last the controller hears that nothing is served under the
//! node's lease any more (rule L6). Nobody waits for a lease to end. Requests are repeated until they are answered; where no
//! majority answers, the node ends after the limits below all the same.

use pelton_cluster::control::asks::Ask;
use pelton_model::{Now, ShardId};

use super::Sabotage;
use super::member::Asked;
use crate::Shard;
use crate::effect::Effect;
use crate::message::ShardMessage;

/// What was not answered is asked again after this, nanoseconds.
const AGAIN_NS: u64 = 200_000_000;
/// Leaderships are waited for this long, nanoseconds.
const LEADERSHIPS_NS: u64 = 10_000_000_000;
/// And so long while no controller is known: longer than an election takes, nanoseconds.
const NO_CONTROLLER_NS: u64 = 3_000_000_000;
/// Another leader of the quorum is waited for this long, nanoseconds.
const QUORUM_NS: u64 = 2_000_000_000;
/// The controller's last answer is waited for this long, nanoseconds.
const FAREWELL_NS: u64 = 2_000_000_000;

/// How far it is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Leaderships go elsewhere; everything is served as ever.
    Leaderships,
    /// The lead of the quorum does.
    Quorum,
    /// The shards stop serving.
    Serving,
    /// The controller is told so.
    Farewell,
}

/// A node that stops, as shard 0 keeps it.
pub(super) struct Leaving {
    step: Step,
    /// When this step began.
    since_ns: u64,
    /// When a controller was last known.
    heard_ns: u64,
    asked_ns: Option<u64>,
    /// The entry up to which the image was looked at, and when.
    looked: Option<(u64, u64)>,
    /// The controller has answered the last request.
    answered: bool,
}

impl Leaving {
    fn enter(&mut self, now: Now, step: Step) {
        (self.step, self.since_ns, self.asked_ns) = (step, now.monotonic_ns, None);
    }

    fn lasts(&self, now: Now) -> u64 {
        now.monotonic_ns.saturating_sub(self.since_ns)
    }

    /// It is time to ask; counts as asked.
    fn asks(&mut self, now: Now) -> bool {
        let due = self.asked_ns.is_none_or(|at| now.monotonic_ns >= at.saturating_add(AGAIN_NS));
        if due {
            self.asked_ns = Some(now.monotonic_ns);
        }
        due
    }

    /// The controller has answered the last request, or (false) it was not the controller.
    pub(super) fn answered(&mut self, done: bool) {
        match done {
            true => self.answered = true,
            false => self.asked_ns = None,
        }
    }
}

impl Shard {
    /// The node is to stop. Shard 0 begins; the others go on until it tells them.
    pub(crate) fn begin_leaving(&mut self, now: Now) {
        let at_once = self.sabotaged(Sabotage::StopAtOnce);
        let Some(seat) = self.seat_mut() else { return };
        seat.leaving.get_or_insert(Leaving {
            step: if at_once { Step::Quorum } else { Step::Leaderships },
            since_ns: now.monotonic_ns,
            heard_ns: now.monotonic_ns,
            asked_ns: None,
            looked: None,
            answered: false,
        });
    }

    /// Does what comes next, at the end of each turn.
    pub(super) fn go_on_leaving(&mut self, now: Now, out: &mut Vec<Effect>) {
        while let Some(step) = self.leaving().map(|leaving| leaving.step) {
            let next = match step {
                Step::Leaderships if self.leaderships_are_gone(now, out) => Step::Quorum,
                Step::Quorum if self.quorum_is_led_elsewhere(now, out) => Step::Serving,
                _ => return,
            };
            if let Some(leaving) = self.leaving() {
                leaving.enter(now, next);
            }
            if next == Step::Serving {
                for to in (1..self.config.shards).map(ShardId) {
                    out.push(Effect::ToShard { to, message: ShardMessage::StopServing });
                }
                self.stop_serving(now, out);
            }
        }
    }

    fn leaving(&mut self) -> Option<&mut Leaving> {
        self.seat_mut()?.leaving.as_mut()
    }

    /// Nothing that another node could lead is led here, or it has been waited for long enough.
    fn leaderships_are_gone(&mut self, now: Now, out: &mut Vec<Effect>) -> bool {
        let (node, applied) = (self.config.node_id, self.image.applied_offset());
        let Some(seat) = self.seat_mut() else { return true };
        let (asker, known) = (seat.asker(node), seat.member.leader().is_some());
        let (Some(asker), Some(leaving)) = (asker, &mut seat.leaving) else { return true };
        if known {
            leaving.heard_ns = now.monotonic_ns;
        }
        let silent = now.monotonic_ns.saturating_sub(leaving.heard_ns);
        if leaving.lasts(now) >= LEADERSHIPS_NS || silent >= NO_CONTROLLER_NS {
            self.say(
                out,
                "stops though other nodes could lead what it leads: no controller has answered in time",
            );
            return true;
        }
        // A look is at every partition: once for each change of the metadata.
        let due = |(index, at): (u64, u64)| index != applied || now.monotonic_ns >= at + AGAIN_NS;
        if !leaving.looked.is_none_or(due) {
            return false;
        }
        leaving.looked = Some((applied, now.monotonic_ns));
        let image = &self.image;
        let led = image.partitions_on(node, None).any(|(_, partition)| {
            let here = partition.leader.is_some_and(|leader| leader.node == node);
            here && partition.isr.iter().any(|member| {
                let replica = member.replica;
                replica.node != node && image.is_live(replica) && !image.is_draining(replica.node)
            })
        });
        if !led {
            return true;
        }
        let draining = image.is_draining(node);
        if !draining && self.leaving().is_some_and(|leaving| leaving.asks(now)) {
            self.ask_member(now, Asked::Nobody, Ask::ControlledShutdown { asker }, out);
        }
        false
    }

    fn quorum_is_led_elsewhere(&mut self, now: Now, out: &mut Vec<Effect>) -> bool {
        let tired = self.leaving().is_none_or(|leaving| leaving.lasts(now) >= QUORUM_NS);
        if tired || self.sabotaged(Sabotage::KeepQuorum) {
            return true;
        }
        let mut under_way = false;
        self.with_member(now, out, |member, now_ns, effects| {
            under_way = member.hand_over_quorum(now_ns, effects);
        });
        !under_way
    }

    /// Every shard of the node has stopped serving. True when the controller knows, or has not answered in time: the log may
    /// stop, and with it the node's vote.
    pub(crate) fn has_left(&mut self, now: Now, out: &mut Vec<Effect>) -> bool {
        let node = self.config.node_id;
        if self.sabotaged(Sabotage::LeaveUnsaid) {
            return true;
        }
        let Some(seat) = self.seat_mut() else { return true };
        let (Some(asker), Some(leaving)) = (seat.asker(node), &mut seat.leaving) else { return true };
        if leaving.step != Step::Farewell {
            leaving.enter(now, Step::Farewell);
            seat.member.leave();
        }
        if !leaving.answered && leaving.lasts(now) < FAREWELL_NS {
            if leaving.asks(now) {
                self.ask_member(now, Asked::Farewell, Ask::Shutdown { asker }, out);
            }
            if self.leaving().is_some_and(|leaving| !leaving.answered) {
                return false;
            }
        }
        // Whoever was to lead the quorum may have failed, and this node have been elected again.
        self.quorum_is_led_elsewhere(now, out)
    }
}
