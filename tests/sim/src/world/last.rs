//! The last records of each shard before its journal is damaged: written, and looked for afterwards.

use bytes::Bytes;
use pelton_wire::api_key::ApiKey;
use pelton_wire::compression::Codec;
use pelton_wire::messages::{self as m, KafkaString};
use pelton_wire::records::BatchBuilder;

use super::{EPOCH_MS, World};

/// Records that end the log of each shard before it is damaged.
const LAST_RECORDS: i64 = 8;

impl World {
    /// Produces records to partition `shard` of topic "last", one journal group each, so that something follows what came
    /// before.
    pub fn touch_shard(&mut self, shard: u16) -> Result<(), String> {
        for _ in 0..LAST_RECORDS {
            let mut builder = BatchBuilder::new(Codec::None);
            builder.add(EPOCH_MS, None, Some(b"last"), &[]);
            let records = builder.build().map_err(|error| error.to_string())?;
            let body = m::ProduceRequestData {
                acks: -1,
                timeout_ms: 30_000,
                topic_data: vec![m::produce_request::TopicProduceData {
                    name: KafkaString::from_static("last"),
                    partition_data: vec![m::produce_request::PartitionProduceData {
                        index: i32::from(shard),
                        records: Some(Bytes::from(records)),
                        ..Default::default()
                    }],
                    ..Default::default()
                }],
                ..Default::default()
            };
            let answer: m::ProduceResponseData = self.admin_to(shard, ApiKey::Produce, 9, &body)?;
            let data = answer.responses.first().and_then(|topic| topic.partition_responses.first());
            match data.map(|data| data.error_code) {
                Some(0) => {}
                other => return Err(format!("last-{shard}: produce answered {other:?}")),
            }
        }
        Ok(())
    }

    /// What `touch_shard` wrote is there, but for the very last group, which damage may have made look torn.
    pub fn judge_touched(&mut self) -> Result<(), String> {
        for shard in 0..self.config.shards {
            let end = self.offset("last", i32::from(shard), -1)?;
            if end < LAST_RECORDS - 1 {
                return Err(format!(
                    "last-{shard} ends at {end}, but {LAST_RECORDS} records were acknowledged"
                ));
            }
        }
        Ok(())
    }
}
