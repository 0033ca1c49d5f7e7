//! Coordinators load: the log of their partition is read from its start to its high watermark through the ordinary read
//! path, a piece at a time, so that a shard that starts serves its other partitions meanwhile.

use bytes::Bytes;
use pelton_cluster::names::OFFSETS_TOPIC;
use pelton_log::{ReadPlan, ReadStart, ReadToken};
use pelton_model::{Now, Offset};
use pelton_wire::record_batch;
use pelton_wire::records::Records;

use crate::Shard;
use crate::cluster::Sabotage;
use crate::effect::{Effect, LogLevel};

use super::topics::ImageTopics;

/// Read and replayed in one step, bytes; a larger batch is a step of its own.
const STEP_BYTES: usize = 256 * 1024;
/// Most bytes that may come out of one batch's compression.
const UNPACK_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Unreadable records that get a line of their own in the log; a load counts the others.
const REPORTS_MAX: usize = 10;
/// Wait before it is asked again whether a new leader may read its log, milliseconds.
const AWAIT_MS: i64 = 20;
/// Wait before a partition that could not be read is read again, milliseconds.
const RETRY_MS: i64 = 1000;

impl Shard {
    /// The shard serves: what its coordinators have to load they load now.
    pub(crate) fn start_loading(&mut self, now: Now) {
        if !self.groups.to_load.is_empty() {
            self.groups.load_ns = Some(now.monotonic_ns + 1);
        }
    }

    /// Reads the next piece of the partition that is loading.
    pub(super) fn load_step(&mut self, now: Now, out: &mut Vec<Effect>) {
        let Some(partition) = self.groups.to_load.front().copied() else { return };
        let Some(seat) = self.groups.seats.get(&partition) else { return };
        let (slot, offset) = (seat.slot, seat.load_offset);
        if seat.reading.is_some() {
            return;
        }
        let Some(state) = self.readable(slot).map(|readable| readable.state) else { return };
        // A new leader has to wait until it answers at all, and until all that was committed before it counts for it, too.
        let checked = match self.sabotaged(Sabotage::LoadEarly) {
            true => Ok(state.high_watermark()),
            false => state.check_latest(now.monotonic_ns, self.lease()),
        };
        let Ok(end) = checked else {
            self.groups.to_load.rotate_left(1);
            self.groups.load_ns = Some(now.after_ms(AWAIT_MS));
            return;
        };
        if offset >= end {
            return self.finish_load(now, partition, out);
        }
        let start = self.storage.start_read(slot, offset, STEP_BYTES, end, true, true, &mut self.disk);
        self.emit_disk(out);
        match start {
            Ok(ReadStart::Ready(plan)) => self.replay_step(now, partition, plan, out),
            Ok(ReadStart::Pending(token)) => {
                self.groups.reads.insert(token, partition);
                if let Some(seat) = self.groups.seats.get_mut(&partition) {
                    seat.reading = Some(token);
                }
            }
            // Records below the new start are gone since the last step: they no longer count.
            Err(_) => {
                let start = self.storage.log_start_offset(slot);
                if let Some(seat) = self.groups.seats.get_mut(&partition) {
                    seat.load_offset = start.max(offset);
                }
                self.groups.load_ns = Some(now.after_ms(RETRY_MS));
            }
        }
    }

    /// A piece that had to come from disk is there. False: the read is not a coordinator's.
    pub(crate) fn handle_load_read(
        &mut self,
        now: Now,
        token: ReadToken,
        plan: &Result<ReadPlan, String>,
        out: &mut Vec<Effect>,
    ) -> bool {
        let Some(partition) = self.groups.reads.remove(&token) else { return false };
        let seat = self.groups.seats.get_mut(&partition).filter(|seat| seat.reading == Some(token));
        let Some(seat) = seat else { return true };
        seat.reading = None;
        match plan {
            Ok(plan) => self.replay_step(now, partition, plan.clone(), out),
            Err(text) => {
                let text = format!("{OFFSETS_TOPIC}-{partition} cannot be read, its groups wait: {text}");
                self.log_error(out, text);
                // Others first.
                self.groups.to_load.rotate_left(1);
                self.groups.load_ns = Some(now.after_ms(RETRY_MS));
            }
        }
        true
    }

    fn replay_step(&mut self, now: Now, partition: i32, plan: ReadPlan, out: &mut Vec<Effect>) {
        let stretches = match plan {
            ReadPlan::Memory { batches } => batches,
            ReadPlan::Empty | ReadPlan::File { .. } => Vec::new(),
        };
        let Some(seat) = self.groups.seats.get(&partition) else { return };
        let before = seat.load_offset;
        for stretch in stretches {
            self.replay_stretch(partition, stretch, out);
        }
        let Some(seat) = self.groups.seats.get(&partition) else { return };
        if seat.load_offset == before {
            // Kafka too ends a load where a read finds nothing more.
            let end = self.high_watermark(seat.slot);
            let text = format!("{OFFSETS_TOPIC}-{partition} has no records from {} to {end}", before.0);
            self.log_error(out, text);
            return self.finish_load(now, partition, out);
        }
        self.groups.load_ns = Some(now.monotonic_ns + 1);
    }

    fn replay_stretch(&mut self, partition: i32, mut stretch: Bytes, out: &mut Vec<Effect>) {
        let mut problems = Vec::new();
        let Some(seat) = self.groups.seats.get_mut(&partition) else { return };
        while let Some(info) = record_batch::peek(&stretch).filter(|info| info.size_bytes <= stretch.len()) {
            let batch = stretch.split_to(info.size_bytes);
            let next = Offset(info.last_offset().saturating_add(1));
            let known = seat.load_offset;
            seat.load_offset = known.max(next);
            if info.is_control() {
                continue;
            }
            let records = match Records::of(&batch, UNPACK_BYTES_MAX) {
                Ok(records) => records,
                Err(error) => {
                    problems.push(format!("batch at offset {}: {error}", info.base_offset));
                    continue;
                }
            };
            for record in records.iter() {
                let replayed = match &record {
                    Err(error) => Err((info.base_offset, error.to_string())),
                    Ok(record) if record.offset < known.0 => Ok(()),
                    Ok(record) => {
                        let key = record.key.unwrap_or_default();
                        match seat.coordinator.replay(key, record.value) {
                            Ok(true) => Ok(()),
                            Ok(false) => {
                                Err((record.offset, "a kind of record this broker does not know".into()))
                            }
                            Err(error) => Err((record.offset, error.to_string())),
                        }
                    }
                };
                if let Err((offset, error)) = replayed {
                    problems.push(format!("record at offset {offset}: {error}"));
                }
            }
        }
        let before = seat.unreadable;
        seat.unreadable += problems.len();
        for problem in problems.into_iter().take(REPORTS_MAX.saturating_sub(before)) {
            self.log_error(out, format!("{OFFSETS_TOPIC}-{partition}: skipped the {problem}"));
        }
    }

    /// Everything is replayed: requests are served from now on.
    pub(super) fn finish_load(&mut self, now: Now, partition: i32, out: &mut Vec<Effect>) {
        let Shard { groups, image, .. } = self;
        groups.to_load.retain(|other| *other != partition);
        if !groups.to_load.is_empty() {
            groups.load_ns = Some(now.monotonic_ns + 1);
        }
        let Some(seat) = groups.seats.get_mut(&partition) else { return };
        let mut effects = Vec::new();
        seat.coordinator.loaded(now, &ImageTopics(image), &mut effects);
        let (count, end) = (seat.coordinator.groups(), seat.load_offset.0);
        let unreadable = std::mem::take(&mut seat.unreadable);
        if unreadable > 0 {
            let text = format!(
                "{OFFSETS_TOPIC}-{partition} is loaded without {unreadable} records that could not be read; commits and members \
                 they may have held are not known"
            );
            self.log_error(out, text);
        }
        if count > 0 {
            let text =
                format!("shard {}: {OFFSETS_TOPIC}-{partition}: {count} groups, offset {end}", self.id.0);
            out.push(Effect::Log { level: LogLevel::Info, text });
        }
        self.run_group_effects(now, partition, effects, out);
    }
}
