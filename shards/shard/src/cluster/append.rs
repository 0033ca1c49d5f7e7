//! Appends to a partition with several replicas, by its leader.

use bytes::Bytes;
use pelton_log::PartitionSlot;
use pelton_model::Now;
use pelton_wire::error_code::ErrorCode;

use crate::Shard;
use crate::api::partition::PartitionAnswer;
use crate::append::{AppendOutcome, check_batch, refuse};
use crate::recompress::batch_as_stored;
use crate::replica_host::Produced;

impl Shard {
    /// As [`Shard::append`], of a replica. What follows is performed when the turn ends, as followers are fed then.
    pub(crate) fn append_hosted(
        &mut self,
        now: Now,
        slot: PartitionSlot,
        records: Bytes,
        acks: i16,
        zstd_allowed: bool,
    ) -> AppendOutcome {
        let lease = self.lease();
        let Some(hosted) = self.partitions.hosted(slot) else {
            return refuse(ErrorCode::NotLeaderOrFollower, "this broker does not lead the partition");
        };
        let state = hosted.host.state();
        if let Err(error) = state.check_produce(acks, now.monotonic_ns, lease) {
            let text = match error {
                ErrorCode::NotEnoughReplicas => {
                    let min_isr = state.effective_min_isr(hosted.config.min_insync_replicas);
                    let size = state.isr_size();
                    format!("The size of the current ISR is {size}, below min.insync.replicas = {min_isr}")
                }
                _ => "this broker does not lead the partition now".to_string(),
            };
            return refuse(error, text);
        }
        let batch = match check_batch(now, &hosted.config, &records, zstd_allowed) {
            Ok(batch) => batch,
            Err(outcome) => return outcome,
        };
        let records = match hosted.config.compression {
            None => records,
            Some(to) => match batch_as_stored(&hosted.config, to, &batch, records, &self.storage) {
                Ok(records) => records,
                Err(refused) => return refused,
            },
        };
        let by_log = hosted.config.log_append_time;
        let log_start_offset = self.storage.log_start_offset(slot).0;
        let log_append_time_ms = by_log.then_some(now.wall_ms);
        let produced = self
            .with_host_later(now, slot, |host, turn| host.append(records, acks, log_append_time_ms, turn));
        match produced {
            Some(Produced::Waits { base_offset, last_offset, timestamp_ms, .. }) => {
                self.settle_later(slot);
                let answer = PartitionAnswer::Produce {
                    error: ErrorCode::None,
                    message: None,
                    base_offset: base_offset.0,
                    log_append_time_ms: if by_log { timestamp_ms } else { -1 },
                    log_start_offset,
                    record_errors: Vec::new(),
                };
                AppendOutcome::AppendedHosted { slot, last_offset: last_offset.0, answer }
            }
            Some(Produced::Refused(error)) => refuse(error, error.name()),
            Some(Produced::NoRoom) | None => refuse(ErrorCode::KafkaStorageError, "the log has no room"),
        }
    }
}
