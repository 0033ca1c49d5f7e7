//! How old the first record is that a group has not committed: the record is read. No index of times tells it, since what
//! is asked is the time of an offset, not the offset of a time.

use pelton_wire::api_key::ApiKey;
use pelton_wire::error_code::ErrorCode;
use pelton_wire::messages::fetch_request::{FetchPartition, FetchTopic};
use pelton_wire::messages::{FetchRequestData, FetchResponseData};
use pelton_wire::record_batch::BatchIter;
use pelton_wire::records::Records;

use crate::cli::client::Client;
use crate::cli::connection::CallError;
use crate::failure::Failure;

/// The newest version spoken: the last that names topics instead of giving their ids.
const FETCH_VERSION: i16 = 12;
/// Brokers give at least one whole batch, however little is asked for (KIP-74).
const MAX_BYTES: i32 = 1;
/// Most bytes that one batch may hold when it is taken out of its compression.
const DECOMPRESSED_BYTES_MAX: usize = 1 << 30;

/// Timestamp of the first record of a partition at or behind `offset` and before `end`; none if there is none, if it
/// has no timestamp, or if the records went meanwhile. The partition's leader must be known to the client.
pub fn first_timestamp_ms(
    client: &mut Client,
    topic: &str,
    partition: i32,
    mut offset: i64,
    end: i64,
) -> Result<Option<i64>, Failure> {
    while offset < end {
        let Some(leader) = client.leader(topic, partition) else { return Ok(None) };
        let answer = fetch(client, leader, topic, partition, offset)?;
        let Some(data) = answer.responses.iter().flat_map(|topic| &topic.partitions).next() else {
            return Ok(None);
        };
        match ErrorCode::from_code(data.error_code) {
            ErrorCode::None => {}
            ErrorCode::OffsetOutOfRange | ErrorCode::NotLeaderOrFollower => return Ok(None),
            error => return Err(Failure::error(format!("{topic}[{partition}]: {error}"))),
        }
        let before = offset;
        for (info, batch) in data.records.iter().flat_map(|records| BatchIter::new(records)) {
            if info.last_offset() < offset {
                continue;
            }
            let wrong = |error| Failure::error(format!("{topic}[{partition}]: {error}"));
            if !info.is_control() {
                let records = Records::of(batch, DECOMPRESSED_BYTES_MAX).map_err(wrong)?;
                for record in records.iter() {
                    let record = record.map_err(wrong)?;
                    if record.offset >= offset {
                        return Ok((record.timestamp_ms >= 0).then_some(record.timestamp_ms));
                    }
                }
            }
            // A batch of control records, or one that compaction has emptied.
            offset = info.last_offset() + 1;
        }
        if offset == before {
            return Ok(None);
        }
    }
    Ok(None)
}

fn fetch(
    client: &mut Client,
    leader: i32,
    topic: &str,
    partition: i32,
    offset: i64,
) -> Result<FetchResponseData, CallError> {
    client.ask_broker(leader, ApiKey::Fetch, FETCH_VERSION, |_| FetchRequestData {
        max_wait_ms: 500,
        min_bytes: 1,
        max_bytes: MAX_BYTES,
        topics: vec![FetchTopic {
            topic: topic.to_string().into(),
            partitions: vec![FetchPartition {
                partition,
                fetch_offset: offset,
                partition_max_bytes: MAX_BYTES,
                ..FetchPartition::default()
            }],
            ..FetchTopic::default()
        }],
        ..FetchRequestData::default()
    })
}
