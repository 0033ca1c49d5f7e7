//! A real shard that gets arbitrary bytes from a client, in arbitrary pieces: it answers in order or closes, comes to rest,
//! and still serves the next client.

use bytes::Bytes;
use pelton_model::{BrokerConfig, ClusterId, Prng};
use pelton_wire::api_key::{ApiKey, SUPPORTED};
use pelton_wire::crc::crc32c;
use pelton_wire::messages::{self as m, KafkaString, decode_response, encode_request};

use crate::mutate::{fix_frame_length, mutate_some};
use crate::node::Node;
use crate::requests::{Requests, Topics};

/// The client whose bytes are fuzzed, and an orderly one.
const FUZZED: u64 = 1;
const ORDERLY: u64 = 2;
/// Longer than waits of valid requests.
const WAIT_MS: u64 = 1500;

/// A shard with three topics; always the same.
fn node() -> Node {
    let config = BrokerConfig {
        cluster_id: ClusterId("fuzzcluster00000000000".to_string()),
        journal_bytes: 1 << 20,
        tail_bytes: 1 << 20,
        ..BrokerConfig::defaults()
    };
    let mut node = Node::new(config).expect("an empty disk starts");
    let topic = |(name, num_partitions): (&'static str, i32)| m::create_topics_request::CreatableTopic {
        name: KafkaString::from_static(name),
        num_partitions,
        replication_factor: 1,
        ..Default::default()
    };
    let topics = [("orders", 3), ("a", 1), ("x.y_z-9", 2)].map(topic).to_vec();
    let body = m::CreateTopicsRequestData { topics, timeout_ms: 1000, ..Default::default() };
    let _: m::CreateTopicsResponseData = ask(&mut node, ApiKey::CreateTopics, 7, &body);
    node
}

fn ask<Q: m::Message, A: m::Message>(node: &mut Node, api_key: ApiKey, version: i16, body: &Q) -> A {
    let frame = encode_request(api_key, version, 1, "orderly", body).expect("the request is valid");
    node.connect(ORDERLY);
    node.send(ORDERLY, &frame);
    let (answer, closed) = node.answers(ORDERLY);
    assert!(answer.len() > 4, "an orderly client gets no answer; closed: {closed:?}");
    node.disconnect(ORDERLY);
    decode_response(api_key, version, answer.slice(4..)).expect("the answer is Kafka's").1
}

/// Streams of a few requests about topics that exist and topics that do not.
pub fn corpus(prng: &mut Prng) -> Vec<Vec<u8>> {
    let body = m::MetadataRequestData { topics: None, ..Default::default() };
    let answer: m::MetadataResponseData = ask(&mut node(), ApiKey::Metadata, 12, &body);
    let mut topics = Topics::any();
    for topic in &answer.topics {
        let name = topic.name.as_ref().map_or("", |name| name.as_str());
        if let Some(known) = topics.0.iter_mut().find(|(known, _)| known == name) {
            known.1 = *topic.topic_id.inner();
        }
    }
    let stream = |prng: &mut Prng| {
        let mut bytes = Vec::new();
        for _ in 0..1 + prng.below(6) {
            let range = match prng.below(3) {
                0 => SUPPORTED[prng.below(2) as usize],
                _ => SUPPORTED[prng.below(SUPPORTED.len() as u64) as usize],
            };
            let version = range.min + prng.below((range.max - range.min + 1) as u64) as i16;
            bytes.extend_from_slice(
                &Requests { prng, topics: &topics, elements_max: 3 }.frame(range.api_key, version),
            );
        }
        bytes
    };
    (0..400).map(|_| stream(prng)).collect()
}

/// The frames of a stream, with their lengths, and what follows them.
fn cut(bytes: &[u8]) -> (Vec<Vec<u8>>, Vec<u8>) {
    let (mut frames, mut rest) = (Vec::new(), bytes);
    while let Some(length) = rest.first_chunk::<4>() {
        let length = 4 + u32::from_be_bytes(*length) as usize;
        let Some(frame) = rest.get(..length) else { break };
        frames.push(frame.to_vec());
        rest = &rest[length..];
    }
    (frames, rest.to_vec())
}

/// Damages one request and mostly makes its length right again; or whole requests change places.
pub fn mutate(prng: &mut Prng, bytes: &mut Vec<u8>, other: &[u8]) {
    let (mut frames, rest) = cut(bytes);
    if frames.is_empty() || prng.one_in(10) {
        return mutate_some(prng, bytes, other);
    }
    let at = prng.below(frames.len() as u64) as usize;
    match prng.below(8) {
        0 => frames.push(frames[at].clone()),
        1 => {
            let to = prng.below(frames.len() as u64) as usize;
            frames.swap(at, to);
        }
        2 => frames.extend(cut(other).0.into_iter().take(2)),
        _ => {
            let keep = if prng.one_in(8) { 4 } else { 12 }.min(frames[at].len());
            let mut body = frames[at].split_off(keep);
            mutate_some(prng, &mut body, other);
            frames[at].extend_from_slice(&body);
            if !prng.one_in(8) {
                fix_frame_length(&mut frames[at]);
            }
        }
    }
    *bytes = [frames.concat(), rest].concat();
}

/// Sends the input and looks at what comes back.
pub fn run(input: &[u8]) {
    let mut node = node();
    node.pieces = Some(Prng::new(u64::from(crc32c(input))));
    node.connect(FUZZED);
    node.send(FUZZED, input);
    node.advance(WAIT_MS);
    let (answers, _) = node.answers(FUZZED);
    let (answers, rest) = cut(&answers);
    assert!(rest.is_empty(), "half an answer");
    let requests = cut(input).0;
    let id = |frame: &Vec<u8>, at: usize| frame.get(at..at + 4).map(Bytes::copy_from_slice);
    let mut asked = requests.iter().map(|frame| id(frame, 8));
    for answer in &answers {
        let answered = id(answer, 4);
        assert!(asked.any(|asked| asked == answered), "an answer to what was not asked, or out of order");
    }
    node.pieces = None;
    let body = m::ApiVersionsRequestData::default();
    let versions: m::ApiVersionsResponseData = ask(&mut node, ApiKey::ApiVersions, 0, &body);
    assert_eq!(versions.error_code, 0);
    node.disconnect(FUZZED);
    node.advance(WAIT_MS);
}
