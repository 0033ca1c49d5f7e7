//! `compression.type` of a topic other than producer: batches that come with another codec are compressed anew before they are
//! appended, as Kafka does. It costs the shard time in proportion to the batch, which topics with the default never pay.

use bytes::Bytes;
use pelton_log::{Admission, Storage};
use pelton_model::{StoredCompression, TopicConfig};
use pelton_wire::compression::Codec;
use pelton_wire::error_code::ErrorCode;
use pelton_wire::recompress::recompress;
use pelton_wire::record_batch::BatchInfo;

use crate::append::{AppendOutcome, UNPACK_BYTES_MAX, refuse, refuse_batch};

/// What may come out of a batch is at most this many times the topic's largest batch: packed well, no bomb.
const UNPACK_FACTOR: usize = 16;

/// The batch as the topic stores it. It may have grown beyond what the log was asked for; then the log is asked again.
pub(crate) fn batch_as_stored(
    config: &TopicConfig,
    to: StoredCompression,
    batch: &BatchInfo,
    records: Bytes,
    log: &Storage,
) -> Result<Bytes, AppendOutcome> {
    let Some(codec) = Codec::from_attributes(to.codec).filter(|codec| batch.codec() != Some(*codec)) else {
        return Ok(records);
    };
    let size_max = config.max_message_bytes.max(0) as usize;
    let cap_bytes = size_max.saturating_mul(UNPACK_FACTOR).min(UNPACK_BYTES_MAX);
    let stored = recompress(&records, codec, to.level, cap_bytes).map_err(refuse_batch)?;
    if stored.len() > size_max {
        return Err(refuse(
            ErrorCode::MessageTooLarge,
            format!(
                "The record batch takes {} bytes with compression.type={}, which exceeds the maximum configured value of \
                 {size_max} (max.message.bytes).",
                stored.len(),
                if codec == Codec::None { "uncompressed" } else { codec.name() },
            ),
        ));
    }
    if stored.len() > records.len() && log.admit(stored.len()) != Admission::Yes {
        let text =
            format!("no room in the log for the {} bytes the batch takes there; try again", stored.len());
        return Err(refuse(ErrorCode::KafkaStorageError, text));
    }
    Ok(Bytes::from(stored))
}
