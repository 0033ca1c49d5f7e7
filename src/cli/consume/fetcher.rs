//! Reads partitions from their leaders: one fetch per leader on its way at a time, all leaders at once. Follows leaders that
//! move; tells a gap in time from an error.

use std::collections::BTreeMap;
use std::time::Instant;

use bytes::Bytes;
use pelton_wire::api_key::ApiKey;
use pelton_wire::error_code::ErrorCode;
use pelton_wire::messages::fetch_request::{FetchPartition, FetchTopic};
use pelton_wire::messages::fetch_response::PartitionData;
use pelton_wire::messages::{FetchRequestData, FetchResponseData};
use pelton_wire::record_batch::{BatchIter, crc_matches};
use pelton_wire::records::Records;

use crate::cli::client::{Client, RETRY_PAUSE, passes};
use crate::cli::connection::{CallError, Sent};
use crate::cli::output::write_out;
use crate::cli::record_format::RecordFormat;
use crate::failure::Failure;

/// The newest version spoken: the last that names topics instead of giving their ids.
const FETCH_VERSION: i16 = 12;
/// Longest wait of a broker for something new.
const MAX_WAIT_MS: i32 = 500;
/// The same when several brokers are asked, so that one does not hold up what another has.
const MAX_WAIT_SEVERAL_MS: i32 = 100;
/// Most bytes of one answer.
const MAX_BYTES: i32 = 50 << 20;
/// Most bytes of one partition in an answer.
const PARTITION_MAX_BYTES: i32 = 1 << 20;
/// Most bytes that one batch may hold when it is taken out of its compression.
const DECOMPRESSED_BYTES_MAX: usize = 1 << 30;
/// Output is passed on when this many bytes have gathered.
const OUT_BYTES: usize = 64 << 10;

/// How far a partition has been read.
pub struct PartitionState {
    /// Topic.
    pub topic: String,
    /// Partition.
    pub partition: i32,
    /// Offset of the next record wanted.
    pub next: i64,
    /// Offset to stop before; none = never.
    pub stop: Option<i64>,
}

impl PartitionState {
    fn is_done(&self) -> bool {
        self.stop.is_some_and(|stop| self.next >= stop)
    }
}

/// Reads until everything wanted has been read.
pub struct Fetcher {
    client: Client,
    states: Vec<PartitionState>,
    /// Partitions read to their stop, and how far.
    finished: BTreeMap<(String, i32), i64>,
    left: Option<u64>,
    out: Vec<u8>,
    /// When the first of a row of failures happened.
    failing_since: Option<Instant>,
}

impl Fetcher {
    /// Reads at most `number` records.
    pub fn new(client: Client, states: Vec<PartitionState>, number: Option<u64>) -> Fetcher {
        Fetcher {
            client,
            states,
            finished: BTreeMap::new(),
            left: number,
            out: Vec::new(),
            failing_since: None,
        }
    }

    /// Prints records until the end, if there is one.
    pub fn run(mut self, format: &RecordFormat) -> Result<(), Failure> {
        while !self.is_done(true) {
            self.step(format)?;
        }
        Ok(())
    }

    /// Asks every leader once and prints what comes; waits a little after what may pass.
    pub fn step(&mut self, format: &RecordFormat) -> Result<(), Failure> {
        for done in self.states.extract_if(.., |state| state.is_done()) {
            self.finished.insert((done.topic, done.partition), done.next);
        }
        let result = self.round(format);
        self.flush()?;
        match result? {
            None => self.failing_since = None,
            Some(problem) => self.pause(problem)?,
        }
        Ok(())
    }

    /// True when as many records as wanted have been printed or, if there `is_an_end`, all partitions are read.
    pub fn is_done(&self, is_an_end: bool) -> bool {
        self.left == Some(0) || is_an_end && self.states.iter().all(PartitionState::is_done)
    }

    /// True when there is no partition to read.
    pub fn is_idle(&self) -> bool {
        self.states.is_empty()
    }

    /// Reads these partitions from now on, and no other.
    pub fn assign(&mut self, states: Vec<PartitionState>) {
        self.finished.clear();
        self.states = states;
    }

    /// The offset behind the last record printed, of every partition assigned.
    pub fn positions(&self) -> BTreeMap<(String, i32), i64> {
        let mut positions = self.finished.clone();
        positions
            .extend(self.states.iter().map(|state| ((state.topic.clone(), state.partition), state.next)));
        positions
    }

    /// The client, for other questions between two steps.
    pub fn client(&mut self) -> &mut Client {
        &mut self.client
    }

    fn flush(&mut self) -> Result<(), Failure> {
        let written = if self.out.is_empty() { Ok(()) } else { write_out(&self.out) };
        self.out.clear();
        written
    }

    /// Waits a little and looks for the leaders again; gives up after the time an answer may take.
    fn pause(&mut self, problem: Failure) -> Result<(), Failure> {
        let since = *self.failing_since.get_or_insert_with(Instant::now);
        if since.elapsed().as_millis() >= u128::from(self.client.timeout_ms().unsigned_abs()) {
            return Err(problem);
        }
        std::thread::sleep(RETRY_PAUSE);
        let topics: Vec<String> = self.states.iter().map(|state| state.topic.clone()).collect();
        // A failure here is a failure of the next round too, which then says it.
        let _ = self.client.metadata(Some(&topics), false);
        Ok(())
    }

    /// Asks every leader once. Returns what went wrong but may pass.
    fn round(&mut self, format: &RecordFormat) -> Result<Option<Failure>, Failure> {
        let mut problem = None;
        let mut groups: BTreeMap<i32, Vec<usize>> = BTreeMap::new();
        for (index, state) in self.states.iter().enumerate() {
            match self.client.leader(&state.topic, state.partition) {
                Some(leader) => groups.entry(leader).or_default().push(index),
                None => {
                    let words =
                        format!("{}[{}]: {}", state.topic, state.partition, ErrorCode::LeaderNotAvailable);
                    problem = Some(Failure::error(words));
                }
            }
        }
        let max_wait_ms = if groups.len() > 1 { MAX_WAIT_SEVERAL_MS } else { MAX_WAIT_MS };
        let mut asked = Vec::new();
        for (leader, indexes) in groups {
            match self.send(leader, &indexes, max_wait_ms) {
                Ok(sent) => asked.push((leader, sent)),
                Err(error) => problem = Some(self.lost(leader, error)?),
            }
        }
        for (leader, sent) in asked {
            let answer: Result<FetchResponseData, CallError> =
                self.client.broker(leader).and_then(|connection| connection.receive(sent));
            match answer {
                Ok(answer) => problem = self.take(&answer, format)?.or(problem),
                Err(error) => problem = Some(self.lost(leader, error)?),
            }
        }
        // Whoever came first goes last next time, so that a full answer never starves the same partition.
        self.states.rotate_left(1);
        Ok(problem)
    }

    fn lost(&mut self, leader: i32, error: CallError) -> Result<Failure, Failure> {
        self.client.drop_broker(leader);
        match error {
            CallError::Network(words) => Ok(Failure::unreachable(words)),
            protocol => Err(protocol.into()),
        }
    }

    fn send(&mut self, leader: i32, indexes: &[usize], max_wait_ms: i32) -> Result<Sent, CallError> {
        let mut topics: Vec<FetchTopic> = Vec::new();
        for state in indexes.iter().map(|index| &self.states[*index]) {
            let partition = FetchPartition {
                partition: state.partition,
                fetch_offset: state.next,
                partition_max_bytes: PARTITION_MAX_BYTES,
                ..FetchPartition::default()
            };
            match topics.iter_mut().find(|topic| topic.topic.as_str() == state.topic) {
                Some(topic) => topic.partitions.push(partition),
                None => topics.push(FetchTopic {
                    topic: state.topic.clone().into(),
                    partitions: vec![partition],
                    ..FetchTopic::default()
                }),
            }
        }
        let request = FetchRequestData {
            max_wait_ms,
            min_bytes: 1,
            max_bytes: MAX_BYTES,
            topics,
            ..FetchRequestData::default()
        };
        let connection = self.client.broker(leader)?;
        let version = connection.version(ApiKey::Fetch, FETCH_VERSION)?;
        connection.send(ApiKey::Fetch, version, &request)
    }

    fn take(
        &mut self,
        answer: &FetchResponseData,
        format: &RecordFormat,
    ) -> Result<Option<Failure>, Failure> {
        let mut problem = None;
        let whole = ErrorCode::from_code(answer.error_code);
        if whole != ErrorCode::None {
            return Err(Failure::error(format!("fetch: {whole}")));
        }
        for topic in &answer.responses {
            for data in &topic.partitions {
                problem = self.take_partition(topic.topic.as_str(), data, format)?.or(problem);
            }
        }
        Ok(problem)
    }

    fn take_partition(
        &mut self,
        topic: &str,
        data: &PartitionData,
        format: &RecordFormat,
    ) -> Result<Option<Failure>, Failure> {
        let found = self
            .states
            .iter()
            .position(|state| state.topic == topic && state.partition == data.partition_index);
        let Some(index) = found else { return Ok(None) };
        let item = format!("{topic}[{}]", data.partition_index);
        match ErrorCode::from_code(data.error_code) {
            ErrorCode::None => {
                if let Some(records) = &data.records {
                    self.print(index, records, format)
                        .map_err(|problem| Failure::error(format!("{item}: {problem}")))?;
                }
                Ok(None)
            }
            ErrorCode::OffsetOutOfRange => Err(Failure::error(format!(
                "{item}: {}: there is no offset {}; -o start reads from the first there is",
                ErrorCode::OffsetOutOfRange,
                self.states[index].next,
            ))),
            error if passes(error) || error == ErrorCode::UnknownTopicOrPartition => {
                Ok(Some(Failure::error(format!("{item}: {error}"))))
            }
            error => Err(Failure::error(format!("{item}: {error}"))),
        }
    }

    /// Prints the records of some batches that are wanted and moves the position behind them.
    fn print(&mut self, index: usize, bytes: &Bytes, format: &RecordFormat) -> Result<(), String> {
        for (info, batch) in BatchIter::new(bytes) {
            let state = &mut self.states[index];
            if info.last_offset() < state.next {
                continue;
            }
            if !crc_matches(batch) {
                return Err(format!(
                    "the batch at offset {} is damaged: its CRC does not match",
                    info.base_offset
                ));
            }
            if !info.is_control() {
                let records =
                    Records::of(batch, DECOMPRESSED_BYTES_MAX).map_err(|error| error.to_string())?;
                for record in records.iter() {
                    let record = record.map_err(|error| error.to_string())?;
                    let wanted =
                        record.offset >= state.next && state.stop.is_none_or(|stop| record.offset < stop);
                    if !wanted {
                        continue;
                    }
                    if self.left == Some(0) {
                        return Ok(());
                    }
                    format.write(&state.topic, state.partition, &record, &mut self.out);
                    state.next = record.offset + 1;
                    self.left = self.left.map(|left| left - 1);
                }
            }
            self.states[index].next = info.last_offset() + 1;
            if self.out.len() >= OUT_BYTES {
                self.flush().map_err(|failure| failure.message)?;
            }
        }
        Ok(())
    }
}
