//! Appends of coordinators: records become a batch of `__consumer_offsets`, appended as a produce with acks=all is, and a
//! coordinator hears of it when the high watermark has passed it (A1).

use bytes::Bytes;
use pelton_cluster::names::OFFSETS_TOPIC;
use pelton_group::records::RawRecord;
use pelton_group::{GroupEffect, Ticket};
use pelton_log::{Admission, PartitionSlot};
use pelton_model::{Now, PartitionKey};
use pelton_wire::compression::Codec;
use pelton_wire::error_code::ErrorCode;
use pelton_wire::records::BatchBuilder;

use crate::Shard;
use crate::api::partition::PartitionAnswer;
use crate::append::AppendOutcome;
use crate::effect::Effect;
use crate::producing::Blocked;

use super::topics::ImageTopics;

/// acks of a coordinator's append.
const ACKS_ALL: i16 = -1;

impl Shard {
    /// Appends a coordinator's records, or puts them in line for room in the log.
    pub(super) fn append_group(
        &mut self,
        now: Now,
        partition: i32,
        ticket: Ticket,
        records: &[RawRecord],
        out: &mut Vec<Effect>,
    ) -> Result<(), ErrorCode> {
        let mut batch = BatchBuilder::new(Codec::None);
        for (key, value) in records {
            batch.add(now.wall_ms, Some(key), value.as_deref(), &[]);
        }
        let batch = Bytes::from(batch.build().map_err(|_| ErrorCode::UnknownServerError)?);
        let Some(seat) = self.groups.seats.get_mut(&partition) else { return Err(ErrorCode::NotCoordinator) };
        // Nobody overtakes: neither the producers that wait, nor this coordinator's own earlier appends.
        let waits = seat.blocked > 0;
        match self.admit_produce(batch.len()) {
            Admission::Yes if !waits => self.append_group_batch(now, partition, ticket, batch, out),
            Admission::Yes | Admission::Later => {
                if let Some(seat) = self.groups.seats.get_mut(&partition) {
                    seat.blocked += 1;
                }
                self.blocked.push_back(Blocked::Group { partition, ticket, batch });
                Ok(())
            }
            // The log has said why, once.
            Admission::Refused { .. } => Err(ErrorCode::KafkaStorageError),
        }
    }

    fn append_group_batch(
        &mut self,
        now: Now,
        partition: i32,
        ticket: Ticket,
        batch: Bytes,
        out: &mut Vec<Effect>,
    ) -> Result<(), ErrorCode> {
        let topic = self.image.topic_by_name(OFFSETS_TOPIC).ok_or(ErrorCode::NotCoordinator)?;
        let key = PartitionKey { topic_id: topic.id, partition };
        let slot = self.partitions.slot(key).ok_or(ErrorCode::NotLeaderOrFollower)?;
        match self.append(now, slot, batch, ACKS_ALL, true) {
            AppendOutcome::Appended { last_offset, .. }
            | AppendOutcome::AppendedHosted { last_offset, .. } => {
                if let Some(seat) = self.groups.seats.get_mut(&partition) {
                    seat.unsettled.push_back((last_offset, ticket));
                    self.groups.unsettled += 1;
                }
                Ok(())
            }
            AppendOutcome::Refused(PartitionAnswer::Produce { error, message, .. }) => {
                let why = message.unwrap_or_default();
                let name = error.name();
                self.log_error(out, format!("{OFFSETS_TOPIC}-{partition} refuses a record: {name} {why}"));
                Err(error)
            }
            AppendOutcome::Refused(_) => Err(ErrorCode::UnknownServerError),
        }
    }

    /// There is room in the log for an append that waited.
    pub(crate) fn unblock_group(
        &mut self,
        now: Now,
        partition: i32,
        ticket: Ticket,
        batch: Bytes,
        out: &mut Vec<Effect>,
    ) {
        let Some(seat) = self.groups.seats.get_mut(&partition) else { return };
        seat.blocked -= 1;
        let appended = match self.admit_produce(batch.len()) {
            Admission::Refused { .. } => Err(ErrorCode::KafkaStorageError),
            _ => self.append_group_batch(now, partition, ticket, batch, out),
        };
        if let Err(error) = appended {
            let effects = self.fail_group_append(now, partition, ticket, error);
            self.run_group_effects(now, partition, effects, out);
        }
    }

    /// An append was refused or lost: it and what was to follow it are undone. What follows.
    pub(super) fn fail_group_append(
        &mut self,
        now: Now,
        partition: i32,
        ticket: Ticket,
        error: ErrorCode,
    ) -> Vec<GroupEffect> {
        let Shard { groups, image, blocked, .. } = self;
        let mut effects = Vec::new();
        let Some(seat) = groups.seats.get_mut(&partition) else { return effects };
        let waited = blocked.len();
        blocked.retain(|blocked| match blocked {
            Blocked::Group { partition: other, ticket: younger, .. } => {
                *other != partition || *younger < ticket
            }
            _ => true,
        });
        seat.blocked -= waited - blocked.len();
        let before = seat.unsettled.len();
        seat.unsettled.retain(|(_, other)| *other < ticket);
        groups.unsettled -= before - seat.unsettled.len();
        seat.coordinator.append_failed(now, ticket, error, &ImageTopics(image), &mut effects);
        effects
    }

    /// The high watermark of a partition is now `high_watermark`: what coordinators have stored below it is durable.
    pub(crate) fn advance_group(
        &mut self,
        now: Now,
        slot: PartitionSlot,
        high_watermark: i64,
        out: &mut Vec<Effect>,
    ) {
        if self.groups.unsettled == 0 {
            return;
        }
        let Shard { groups, image, .. } = self;
        let Some(partition) = groups.by_slot.get(&slot).copied() else { return };
        let Some(seat) = groups.seats.get_mut(&partition) else { return };
        let mut settled = None;
        while let Some((last_offset, ticket)) = seat.unsettled.front().copied() {
            if last_offset >= high_watermark {
                break;
            }
            seat.unsettled.pop_front();
            groups.unsettled -= 1;
            settled = Some(ticket);
        }
        let Some(ticket) = settled else { return };
        let mut effects = Vec::new();
        seat.coordinator.appended(now, ticket, &ImageTopics(image), &mut effects);
        self.run_group_effects(now, partition, effects, out);
    }

    /// The device failed: nothing that is not durable yet will be.
    pub(crate) fn fail_groups(&mut self, now: Now, out: &mut Vec<Effect>) {
        let oldest: Vec<(i32, Ticket)> = self
            .groups
            .seats
            .iter()
            .filter_map(|(partition, seat)| Some((*partition, seat.unsettled.front()?.1)))
            .collect();
        for (partition, ticket) in oldest {
            let effects = self.fail_group_append(now, partition, ticket, ErrorCode::KafkaStorageError);
            self.run_group_effects(now, partition, effects, out);
        }
    }
}
