//! DeleteRecords: what is answered to be gone must not come back with another leader, if all replicas lived when it was answered.

use bytes::Bytes;
use pelton_wire::api_key::ApiKey;
use pelton_wire::messages::{self as m, KafkaString};

use super::Judges;
use super::bodies::{decoded, encoded};
use super::client::Next;
use crate::client::offset_body;

/// What is asked.
pub struct Trim {
    goal: u64,
    done: u64,
    /// What was asked to be deleted up to, or (asking for the start) what it must not be before.
    offset: i64,
    /// Asks where the log starts, instead of moving it.
    looks: bool,
    last: (i16, i64),
}

impl Trim {
    /// Deletes everything that is acknowledged, so many times.
    pub fn new(goal: u64) -> Trim {
        Trim { goal, done: 0, offset: 0, looks: false, last: (0, 0) }
    }

    /// The log must start at `offset` or behind it.
    pub fn look(offset: i64) -> Trim {
        Trim { goal: 1, done: 0, offset, looks: true, last: (0, 0) }
    }

    /// Up to where it has deleted records.
    pub fn offset(&self) -> i64 {
        self.offset
    }

    pub fn is_done(&self) -> bool {
        self.done >= self.goal
    }

    /// For an error.
    pub fn text(&self) -> String {
        let what = if self.looks { "looks for" } else { "deletes up to" };
        format!("{what} {}, {} of {}, last {:?}", self.offset, self.done, self.goal, self.last)
    }

    pub fn next(&mut self, topic: &'static str, id: i32, judges: &Judges) -> (i16, Vec<u8>) {
        if self.looks {
            return (5, encoded(ApiKey::ListOffsets, 5, id, &offset_body(topic, 0, -2)));
        }
        self.offset = judges.end(topic, 0);
        let partition = m::delete_records_request::DeleteRecordsPartition {
            partition_index: 0,
            offset: self.offset,
            ..Default::default()
        };
        let topic = m::delete_records_request::DeleteRecordsTopic {
            name: KafkaString::from_static(topic),
            partitions: vec![partition],
            ..Default::default()
        };
        let body =
            m::DeleteRecordsRequestData { topics: vec![topic], timeout_ms: 3_000, ..Default::default() };
        (2, encoded(ApiKey::DeleteRecords, 2, id, &body))
    }

    pub fn answered(&mut self, version: i16, frame: Bytes, judges: &mut Judges) -> Result<Next, String> {
        let (code, offset) = if self.looks {
            let body: m::ListOffsetsResponseData = decoded(ApiKey::ListOffsets, version, frame)?;
            let data = body.topics.first().and_then(|topic| topic.partitions.first());
            let data = data.ok_or("an answer without its partition")?;
            (data.error_code, data.offset)
        } else {
            let body: m::DeleteRecordsResponseData = decoded(ApiKey::DeleteRecords, version, frame)?;
            let data = body.topics.first().and_then(|topic| topic.partitions.first());
            let data = data.ok_or("an answer without its partition")?;
            (data.error_code, data.low_watermark)
        };
        self.last = (code, offset);
        match code {
            0 if offset < self.offset => {
                Err(format!("{}: the log starts at {offset} all the same", self.text()))
            }
            0 => {
                self.done += 1;
                judges.trims += u64::from(!self.looks);
                Ok(Next::Again)
            }
            3 | 5 | 6 => Ok(Next::Moved),
            // Not all live replicas have followed in time; a new leader does not know yet how far the log is committed.
            1 | 7 | 56 | 78 => Ok(Next::Again),
            code => Err(format!("{}: error {code}", self.text())),
        }
    }
}
