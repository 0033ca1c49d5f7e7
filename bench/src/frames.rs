//! The Kafka requests the bench sends and their answers, in fixed old versions that every broker of the Kafka 4 line
//! serves: Produce 7, Fetch 4, Metadata 4, CreateTopics 2, DeleteTopics 1, InitProducerId 1, ListOffsets 1. Never negotiates.

use crate::Outcome;

/// Produce.
pub const PRODUCE: (i16, i16) = (0, 7);
/// Fetch.
pub const FETCH: (i16, i16) = (1, 4);
/// ListOffsets.
pub const LIST_OFFSETS: (i16, i16) = (2, 1);
/// Metadata.
pub const METADATA: (i16, i16) = (3, 4);
/// CreateTopics.
pub const CREATE_TOPICS: (i16, i16) = (19, 2);

/// DeleteTopics.
pub const DELETE_TOPICS: (i16, i16) = (20, 1);
/// InitProducerId.
pub const INIT_PRODUCER_ID: (i16, i16) = (22, 1);

/// Error codes that pass by themselves after a topic was made or a broker started.
pub const RETRIABLE: &[i16] = &[3, 5, 6, 7, 14, 15, 72, 78, 89];

/// Reads big-endian fields off a frame and refuses to read past its end.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads `bytes` from their start.
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { bytes }
    }

    /// The next `n` bytes.
    pub fn take(&mut self, n: usize) -> Outcome<&'a [u8]> {
        if n > self.bytes.len() {
            return Err(format!("a frame ends early: {n} bytes wanted, {} left", self.bytes.len()));
        }
        let (head, rest) = self.bytes.split_at(n);
        self.bytes = rest;
        Ok(head)
    }

    /// The next two bytes as a number.
    pub fn i16(&mut self) -> Outcome<i16> {
        Ok(i16::from_be_bytes(self.take(2)?.try_into().expect("two bytes")))
    }

    /// The next four bytes as a number.
    pub fn i32(&mut self) -> Outcome<i32> {
        Ok(i32::from_be_bytes(self.take(4)?.try_into().expect("four bytes")))
    }

    /// The next eight bytes as a number.
    pub fn i64(&mut self) -> Outcome<i64> {
        Ok(i64::from_be_bytes(self.take(8)?.try_into().expect("eight bytes")))
    }

    /// A count of array elements; null counts as none.
    pub fn count(&mut self) -> Outcome<usize> {
        let count = self.i32()?.max(0) as usize;
        if count > self.bytes.len() { Err(format!("an array claims {count} elements")) } else { Ok(count) }
    }

    /// A string; null reads as empty.
    pub fn string(&mut self) -> Outcome<&'a str> {
        let length = self.i16()?.max(0) as usize;
        std::str::from_utf8(self.take(length)?).map_err(|_| "a string is not UTF-8".to_string())
    }

    /// A byte field; null reads as empty.
    pub fn blob(&mut self) -> Outcome<&'a [u8]> {
        let length = self.i32()?.max(0) as usize;
        self.take(length)
    }
}

/// Writes a string.
pub fn put_string(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&(text.len() as i16).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// Writes four bytes.
pub fn put_i32(out: &mut Vec<u8>, value: i32) {
    out.extend_from_slice(&value.to_be_bytes());
}

/// Starts a request: size (filled in by [`finish`]), key, version, correlation id, client id.
pub fn start(api: (i16, i16), correlation_id: i32) -> Vec<u8> {
    let mut out = vec![0; 4];
    out.extend_from_slice(&api.0.to_be_bytes());
    out.extend_from_slice(&api.1.to_be_bytes());
    put_i32(&mut out, correlation_id);
    put_string(&mut out, "pelton-bench");
    out
}

/// Fills in the size.
pub fn finish(mut out: Vec<u8>) -> Vec<u8> {
    let size = (out.len() - 4) as i32;
    out[..4].copy_from_slice(&size.to_be_bytes());
    out
}

/// Where the correlation id lies in a request frame (size included).
pub const CORRELATION: std::ops::Range<usize> = 8..12;

/// A Produce request of one partition, acks=all.
pub fn produce(correlation_id: i32, topic: &str, partition: i32, records: &[u8]) -> Vec<u8> {
    produce_acks(correlation_id, topic, partition, records, -1)
}

/// The same with any acks: 1 asks the leader alone.
pub fn produce_acks(correlation_id: i32, topic: &str, partition: i32, records: &[u8], acks: i16) -> Vec<u8> {
    let mut out = start(PRODUCE, correlation_id);
    out.reserve(records.len() + topic.len() + 64);
    out.extend_from_slice(&(-1i16).to_be_bytes());
    out.extend_from_slice(&acks.to_be_bytes());
    put_i32(&mut out, 30_000);
    put_i32(&mut out, 1);
    put_string(&mut out, topic);
    put_i32(&mut out, 1);
    put_i32(&mut out, partition);
    put_i32(&mut out, records.len() as i32);
    out.extend_from_slice(records);
    finish(out)
}

/// The answer of one partition of a Produce.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Produced {
    pub correlation_id: i32,
    pub partition: i32,
    pub error: i16,
    pub base_offset: i64,
}

/// Reads a Produce answer (after its size) of exactly one partition.
pub fn produced(frame: &[u8]) -> Outcome<Produced> {
    let mut reader = Reader::new(frame);
    let correlation_id = reader.i32()?;
    let topics = reader.count()?;
    reader.string()?;
    let partitions = reader.count()?;
    if (topics, partitions) != (1, 1) {
        return Err(format!(
            "a Produce of one partition was answered for {topics} topics, {partitions} partitions"
        ));
    }
    let partition = reader.i32()?;
    let error = reader.i16()?;
    let base_offset = reader.i64()?;
    reader.i64()?;
    reader.i64()?;
    reader.i32()?;
    Ok(Produced { correlation_id, partition, error, base_offset })
}

/// A CreateTopics request of one topic.
pub fn create_topics(
    id: i32,
    topic: &str,
    partitions: i32,
    replicas: i16,
    configs: &[(&str, &str)],
) -> Vec<u8> {
    let mut out = start(CREATE_TOPICS, id);
    put_i32(&mut out, 1);
    put_string(&mut out, topic);
    put_i32(&mut out, partitions);
    out.extend_from_slice(&replicas.to_be_bytes());
    put_i32(&mut out, 0);
    put_i32(&mut out, configs.len() as i32);
    for (key, value) in configs {
        put_string(&mut out, key);
        put_string(&mut out, value);
    }
    put_i32(&mut out, 30_000);
    out.push(0);
    finish(out)
}

/// Error code and message of a CreateTopics answer for one topic.
pub fn created(frame: &[u8]) -> Outcome<(i16, String)> {
    let mut reader = Reader::new(frame);
    reader.i32()?;
    reader.i32()?;
    if reader.count()? != 1 {
        return Err("CreateTopics of one topic was answered for another number".into());
    }
    reader.string()?;
    Ok((reader.i16()?, reader.string()?.to_string()))
}

/// An InitProducerId request of a producer without transactions.
pub fn init_producer_id(correlation_id: i32) -> Vec<u8> {
    let mut out = start(INIT_PRODUCER_ID, correlation_id);
    out.extend_from_slice(&(-1i16).to_be_bytes());
    put_i32(&mut out, 60_000);
    finish(out)
}

/// Error code, producer id and epoch of an InitProducerId answer.
pub fn producer_id(frame: &[u8]) -> Outcome<(i16, i64, i16)> {
    let mut reader = Reader::new(frame);
    reader.i32()?;
    reader.i32()?;
    Ok((reader.i16()?, reader.i64()?, reader.i16()?))
}

/// A Metadata request for one topic, never creating it.
pub fn metadata(correlation_id: i32, topic: &str) -> Vec<u8> {
    let mut out = start(METADATA, correlation_id);
    put_i32(&mut out, 1);
    put_string(&mut out, topic);
    out.push(0);
    finish(out)
}

/// A Metadata answer about one topic.
#[derive(Clone, Debug, Default)]
pub struct Metadata {
    /// Node id and address of every broker.
    pub brokers: Vec<(i32, String)>,
    /// The topic's error code.
    pub error: i16,
    /// Error and leader of each partition, by index.
    pub leaders: Vec<(i16, i32)>,
}

/// Reads a Metadata answer about one topic.
pub fn metadata_answer(frame: &[u8]) -> Outcome<Metadata> {
    let mut reader = Reader::new(frame);
    reader.i32()?;
    reader.i32()?;
    let mut metadata = Metadata::default();
    for _ in 0..reader.count()? {
        let node = reader.i32()?;
        let host = reader.string()?.to_string();
        let port = reader.i32()?;
        reader.string()?;
        metadata.brokers.push((node, format!("{host}:{port}")));
    }
    reader.string()?;
    reader.i32()?;
    for _ in 0..reader.count()? {
        metadata.error = reader.i16()?;
        reader.string()?;
        reader.take(1)?;
        let count = reader.count()?;
        metadata.leaders = vec![(3, -1); count];
        for _ in 0..count {
            let error = reader.i16()?;
            let index = reader.i32()? as usize;
            let leader = reader.i32()?;
            for _ in 0..2 {
                let ids = reader.count()?;
                reader.take(4 * ids)?;
            }
            *metadata.leaders.get_mut(index).ok_or("Metadata names a partition past its count")? =
                (error, leader);
        }
    }
    Ok(metadata)
}

/// A ListOffsets of one partition by time: -2 the first offset, -1 the high watermark.
pub fn list_offset(id: i32, topic: &str, partition: i32, time: i64) -> Vec<u8> {
    let mut out = start(LIST_OFFSETS, id);
    put_i32(&mut out, -1);
    put_i32(&mut out, 1);
    put_string(&mut out, topic);
    put_i32(&mut out, 1);
    put_i32(&mut out, partition);
    out.extend_from_slice(&time.to_be_bytes());
    finish(out)
}

/// Error code and offset of a ListOffsets answer of one partition.
pub fn listed_offset(frame: &[u8]) -> Outcome<(i16, i64)> {
    let mut reader = Reader::new(frame);
    reader.i32()?;
    let topics = reader.count()?;
    reader.string()?;
    if (topics, reader.count()?) != (1, 1) {
        return Err("ListOffsets of one partition was answered for another number".into());
    }
    reader.i32()?;
    let error = reader.i16()?;
    reader.i64()?;
    Ok((error, reader.i64()?))
}

/// A Fetch of one partition from `offset`, at most `max_bytes`, waiting at most `wait_ms`.
pub fn fetch(id: i32, topic: &str, partition: i32, offset: i64, max_bytes: i32, wait_ms: i32) -> Vec<u8> {
    fetch_many(id, topic, &[(partition, offset)], max_bytes, max_bytes, wait_ms)
}

/// A Fetch of several partitions of one topic, each from its offset.
pub fn fetch_many(
    id: i32,
    topic: &str,
    places: &[(i32, i64)],
    partition_bytes: i32,
    max_bytes: i32,
    wait_ms: i32,
) -> Vec<u8> {
    let mut out = start(FETCH, id);
    put_i32(&mut out, -1);
    put_i32(&mut out, wait_ms);
    put_i32(&mut out, 1);
    put_i32(&mut out, max_bytes);
    out.push(0);
    put_i32(&mut out, 1);
    put_string(&mut out, topic);
    put_i32(&mut out, places.len() as i32);
    for (partition, offset) in places {
        put_i32(&mut out, *partition);
        out.extend_from_slice(&offset.to_be_bytes());
        put_i32(&mut out, partition_bytes);
    }
    finish(out)
}

/// A Fetch answer of one partition; the records stay in the frame.
#[derive(Clone, Copy, Debug)]
pub struct Fetched<'a> {
    pub error: i16,
    pub high_watermark: i64,
    pub records: &'a [u8],
}

/// Reads a Fetch answer of one partition.
pub fn fetched(frame: &[u8]) -> Outcome<Fetched<'_>> {
    match fetched_many(frame)?.1.pop() {
        Some((_, fetched)) => Ok(fetched),
        None => Err("a Fetch of one partition was answered for none".into()),
    }
}

/// Reads a Fetch answer about one topic: correlation id, and what each partition gave.
pub fn fetched_many(frame: &[u8]) -> Outcome<(i32, Vec<(i32, Fetched<'_>)>)> {
    let mut reader = Reader::new(frame);
    let id = reader.i32()?;
    reader.i32()?;
    let mut parts = Vec::new();
    for _ in 0..reader.count()? {
        reader.string()?;
        for _ in 0..reader.count()? {
            let partition = reader.i32()?;
            let error = reader.i16()?;
            let high_watermark = reader.i64()?;
            reader.i64()?;
            for _ in 0..reader.count()? {
                reader.take(16)?;
            }
            parts.push((partition, Fetched { error, high_watermark, records: reader.blob()? }));
        }
    }
    Ok((id, parts))
}

/// A DeleteTopics request of one topic.
pub fn delete_topics(correlation_id: i32, topic: &str) -> Vec<u8> {
    let mut out = start(DELETE_TOPICS, correlation_id);
    put_i32(&mut out, 1);
    put_string(&mut out, topic);
    put_i32(&mut out, 30_000);
    finish(out)
}

/// Error code of a DeleteTopics answer for one topic.
pub fn deleted(frame: &[u8]) -> Outcome<i16> {
    let mut reader = Reader::new(frame);
    reader.i32()?;
    reader.i32()?;
    if reader.count()? != 1 {
        return Err("DeleteTopics of one topic was answered for another number".into());
    }
    reader.string()?;
    reader.i16()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn produce_request_layout() {
        let frame = produce(7, "t", 3, b"abc");
        assert_eq!(i32::from_be_bytes(frame[..4].try_into().unwrap()) as usize, frame.len() - 4);
        assert_eq!(frame[CORRELATION], 7i32.to_be_bytes());
        let mut reader = Reader::new(&frame[4..]);
        assert_eq!((reader.i16().unwrap(), reader.i16().unwrap(), reader.i32().unwrap()), (0, 7, 7));
        assert_eq!(reader.string().unwrap(), "pelton-bench");
        assert_eq!((reader.i16().unwrap(), reader.i16().unwrap(), reader.i32().unwrap()), (-1, -1, 30_000));
        assert_eq!((reader.count().unwrap(), reader.string().unwrap()), (1, "t"));
        assert_eq!(
            (reader.count().unwrap(), reader.i32().unwrap(), reader.blob().unwrap()),
            (1, 3, &b"abc"[..])
        );
    }

    #[test]
    fn short_frames_are_errors() {
        assert!(produced(&[0, 0, 0, 1, 0, 0, 0, 1]).is_err());
        assert!(metadata_answer(&[0; 9]).is_err());
        assert!(fetched(&[0, 0, 0, 1]).is_err());
        assert!(Reader::new(&i32::MAX.to_be_bytes()).count().is_err());
    }
}
