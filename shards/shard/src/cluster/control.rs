//! Changes of metadata that clients ask for, in a cluster: a request goes to the node that is the controller, whose shard 0 plans
//! it as a single node's does (`api/plan.rs`); the answer leaves when all shards of the asker's node have applied it (A9).

use bytes::{Buf, BufMut, Bytes, BytesMut};
use pelton_cluster::control::asks::{Answer, Ask};
use pelton_cluster::node_message::PLAN_BYTES_MAX;
use pelton_cluster::record::MetadataRecord;
use pelton_model::Now;
use pelton_wire::api_key::ApiKey;
use pelton_wire::error_code::ErrorCode;
use pelton_wire::header::RequestHeader;

use super::Sabotage;
use super::member::Asked;
use crate::Shard;
use crate::control::{ControlOrigin, ControlRequest};
use crate::effect::Effect;

/// A request that no controller has taken, or whose answer was lost, is asked again after this, nanoseconds.
const AGAIN_NS: u64 = 200_000_000;
/// One without an answer, nanoseconds: it may be under way for long, and a change that is asked for twice is refused.
const LOST_NS: u64 = 5_000_000_000;
/// It is given up after this, nanoseconds.
const GIVE_UP_NS: u64 = 30_000_000_000;

/// What is begun for one request at a time; the rest follows when it is asked again.
const BEGINS_MAX: usize = 100;

const FRAME: u8 = 0;
const AUTO_CREATE: u8 = 1;

/// A request of a client of this node.
#[derive(Clone)]
pub(super) struct Planning {
    origin: ControlOrigin,
    request: Bytes,
    give_up_ns: u64,
}

impl Planning {
    /// API, version, correlation id and body of a client's request; none of topics that are to be there.
    pub(super) fn parsed(&self) -> Option<(ApiKey, i16, i32, Bytes)> {
        let Some(ControlRequest::Frame(frame)) = decode(self.request.clone()) else { return None };
        let header = RequestHeader::parse(&frame).ok()?;
        let body = frame.slice(header.body_offset..);
        Some((ApiKey::from_code(header.api_key)?, header.api_version, header.correlation_id, body))
    }

    /// The same, as the controller gets it.
    pub(super) fn request(&self) -> Bytes {
        self.request.clone()
    }

    /// Who asked.
    pub(super) fn origin(&self) -> ControlOrigin {
        self.origin
    }

    fn is_frame(&self) -> bool {
        self.request.first() == Some(&FRAME)
    }
}

fn encode(request: &ControlRequest) -> Bytes {
    let mut bytes = BytesMut::new();
    match request {
        ControlRequest::Frame(frame) => {
            bytes.put_u8(FRAME);
            bytes.put_slice(frame);
        }
        ControlRequest::AutoCreate(topics) => {
            bytes.put_u8(AUTO_CREATE);
            for topic in topics {
                bytes.put_u32_le(topic.len() as u32);
                bytes.put_slice(topic.as_bytes());
            }
        }
    }
    bytes.freeze()
}

fn decode(mut bytes: Bytes) -> Option<ControlRequest> {
    match bytes.try_get_u8().ok()? {
        FRAME => Some(ControlRequest::Frame(bytes)),
        AUTO_CREATE => {
            let mut topics = Vec::new();
            while bytes.has_remaining() {
                let length = bytes.try_get_u32_le().ok()? as usize;
                let name = (length <= bytes.len()).then(|| bytes.split_to(length))?;
                topics.push(String::from_utf8(name.to_vec()).ok()?);
            }
            Some(ControlRequest::AutoCreate(topics))
        }
        _ => None,
    }
}

impl Shard {
    /// Asks the controller of the cluster on behalf of a client of this node.
    pub(crate) fn ask_cluster(
        &mut self,
        now: Now,
        origin: ControlOrigin,
        request: &ControlRequest,
        out: &mut Vec<Effect>,
    ) {
        let give_up_ns = now.monotonic_ns.saturating_add(GIVE_UP_NS);
        let planning = Planning { origin, request: encode(request), give_up_ns };
        if planning.request.len() > PLAN_BYTES_MAX {
            let why = format!("The request has over {PLAN_BYTES_MAX} bytes; ask for less at a time.");
            return self.refuse_control(now, origin, request, (ErrorCode::PolicyViolation, why), out);
        }
        self.ask_plan(now, planning, out);
    }

    fn ask_plan(&mut self, now: Now, planning: Planning, out: &mut Vec<Effect>) {
        let ask = Ask::Plan { node: self.config.node_id, request: planning.request.clone() };
        self.ask_member(now, Asked::Plan(planning), ask, out);
    }

    /// This node is the controller: what a request comes to. One that cannot be read comes to nothing, and so does one whose
    /// answer would be too long for a frame between nodes.
    pub(super) fn plan_for_cluster(&mut self, now: Now, request: &Bytes) -> (Vec<MetadataRecord>, Bytes) {
        let Some(request) = decode(request.clone()) else { return (Vec::new(), Bytes::new()) };
        let plan = self.plan_control(now, &request);
        if plan.response.len() > PLAN_BYTES_MAX {
            return (Vec::new(), Bytes::new());
        }
        let mut records = plan.records;
        if self.sabotaged(Sabotage::AlwaysReleased) {
            for record in &mut records {
                if let MetadataRecord::PartitionChange { delta, .. } = record {
                    delta.released = true;
                }
            }
        }
        for begins in plan.begins.into_iter().take(BEGINS_MAX) {
            self.begin(now, begins);
        }
        (records, plan.response)
    }

    fn refuse_planning(
        &mut self,
        now: Now,
        planning: &Planning,
        error: ErrorCode,
        why: String,
        out: &mut Vec<Effect>,
    ) {
        if let Some(request) = decode(planning.request.clone()) {
            self.refuse_control(now, planning.origin, &request, (error, why), out);
        }
    }

    /// The controller has answered.
    pub(super) fn handle_planned(
        &mut self,
        now: Now,
        planning: Planning,
        answer: Answer,
        out: &mut Vec<Effect>,
    ) {
        match answer {
            // Every request of a client has an answer.
            Answer::Planned { response, .. } if response.is_empty() && planning.is_frame() => {
                let why =
                    format!("The answer would have over {PLAN_BYTES_MAX} bytes; ask for less at a time.");
                self.refuse_planning(now, &planning, ErrorCode::PolicyViolation, why, out);
            }
            Answer::Planned { index, response } => {
                let waits = self.wait_for_election(now, &planning, &response)
                    || self.wait_for_voters(now, &planning, &response);
                if !waits && let Some(seat) = self.seat_mut() {
                    seat.answered.push((index, planning.origin, response));
                }
                self.finish_answered(now, out);
            }
            Answer::Refused((_, why)) => {
                self.refuse_planning(now, &planning, ErrorCode::PolicyViolation, why, out);
            }
            _ => {
                if let Some(seat) = self.cluster.as_mut().and_then(|cluster| cluster.seat.as_mut()) {
                    seat.again.push((now.monotonic_ns + AGAIN_NS, planning));
                }
            }
        }
    }

    /// Answers whose changes all shards of this node have applied leave.
    pub(super) fn finish_answered(&mut self, now: Now, out: &mut Vec<Effect>) {
        self.look_at_elections(now, out);
        self.look_at_voters(now);
        let Some(seat) = self.cluster.as_mut().and_then(|cluster| cluster.seat.as_mut()) else { return };
        if seat.answered.is_empty() {
            return;
        }
        let followed = seat.followed();
        let (ready, waits) =
            std::mem::take(&mut seat.answered).into_iter().partition(|(index, ..)| *index <= followed);
        seat.answered = waits;
        let ready: Vec<(u64, ControlOrigin, Bytes)> = ready;
        for (_, origin, response) in ready {
            self.finish_control(now, origin, response, out);
        }
    }

    /// Asks again what had no controller, or whose answer may be lost; gives up what has waited for too long.
    pub(super) fn ask_again(&mut self, now: Now, out: &mut Vec<Effect>) {
        self.finish_answered(now, out);
        let Some(seat) = self.cluster.as_mut().and_then(|cluster| cluster.seat.as_mut()) else { return };
        let lost = seat.asked.extract_if(.., |_, (at, asked)| {
            matches!(asked, Asked::Plan(_)) && now.monotonic_ns >= at.saturating_add(LOST_NS)
        });
        let lost: Vec<Planning> = lost
            .filter_map(|(_, (_, asked))| match asked {
                Asked::Plan(planning) => Some(planning),
                _ => None,
            })
            .collect();
        let (due, waits): (Vec<_>, Vec<_>) =
            std::mem::take(&mut seat.again).into_iter().partition(|(at, _)| *at <= now.monotonic_ns);
        seat.again = waits;
        for planning in lost.into_iter().chain(due.into_iter().map(|(_, planning)| planning)) {
            if now.monotonic_ns >= planning.give_up_ns {
                let why = "No controller of the cluster has decided in time.".to_string();
                self.refuse_planning(now, &planning, ErrorCode::RequestTimedOut, why, out);
            } else {
                self.ask_plan(now, planning, out);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_come_back_as_they_went_and_cut_ones_are_none() {
        let frame = ControlRequest::Frame(Bytes::from_static(b"frame"));
        assert!(matches!(decode(encode(&frame)), Some(ControlRequest::Frame(it)) if &it[..] == b"frame"));
        let names = vec!["orders".to_string(), "x".to_string()];
        let bytes = encode(&ControlRequest::AutoCreate(names.clone()));
        assert!(matches!(decode(bytes.clone()), Some(ControlRequest::AutoCreate(it)) if it == names));
        for length in [0, 2, 4, 8, bytes.len() - 1] {
            assert!(decode(bytes.slice(..length)).is_none(), "{length}");
        }
        assert!(decode(Bytes::from_static(&[7, 1])).is_none());
    }
}
