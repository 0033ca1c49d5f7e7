//! Our own codecs of Produce and Fetch against the one generated from Kafka's definitions: what that one writes, ours
//! reads alike, and the other way round; every version, seeded content. Never judges what a broker does with it.

use bytes::{Bytes, BytesMut};
use kacrab_protocol::RawTaggedField;
use pelton_model::Prng;
use pelton_wire::api_key::ApiKey;
use pelton_wire::error_code::ErrorCode;
use pelton_wire::fetch::{self, FetchRequest, ResponsePart};
use pelton_wire::header::RequestHeader;
use pelton_wire::messages::{self as m, KafkaString, KafkaUuid, Message, decode_response, encode_request};
use pelton_wire::produce::{self, NodeEndpoint, ProduceItem, ProduceRequest, ResponseWriter};
use uuid::Uuid;

const ROUNDS: u64 = 300;

fn text(prng: &mut Prng) -> String {
    let long = "ü".repeat(70); // longer than a varint of one byte can say
    ["", "orders", "größe", "x", &long][prng.below(5) as usize].to_string()
}

fn uuid(prng: &mut Prng) -> Uuid {
    if prng.one_in(5) { Uuid::nil() } else { Uuid::from_u64_pair(prng.next_u64(), prng.next_u64()) }
}

fn i32_of(prng: &mut Prng) -> i32 {
    [0, -1, 1, i32::MAX, i32::MIN, prng.next_u64() as i32][prng.below(6) as usize]
}

fn i64_of(prng: &mut Prng) -> i64 {
    [0, -1, 1, i64::MAX, i64::MIN, prng.next_u64() as i64][prng.below(6) as usize]
}

fn some<T>(prng: &mut Prng, most: u64, mut one: impl FnMut(&mut Prng) -> T) -> Vec<T> {
    (0..prng.below(most + 1)).map(|_| one(prng)).collect()
}

/// Tagged fields that no version knows: a reader skips them.
fn tags(prng: &mut Prng, flexible: bool) -> Vec<RawTaggedField> {
    if !flexible || !prng.one_in(3) {
        return Vec::new();
    }
    let data = Bytes::from(vec![7; prng.below(300) as usize]);
    let empty = RawTaggedField { tag: 1000, data: Bytes::new() };
    vec![RawTaggedField { tag: 90, data }, empty]
}

/// Each version of an API, `ROUNDS` times, with a generator of its own.
fn rounds(api_key: ApiKey, mut round: impl FnMut(&mut Prng, i16)) {
    let range = api_key.range();
    for version in range.min..=range.max {
        for seed in 0..ROUNDS {
            round(&mut Prng::new(seed << 8 | version as u64), version);
        }
    }
}

/// Header and frame (without its length) of an encoded request.
fn frame_of<T: Message>(api_key: ApiKey, version: i16, body: &T) -> (usize, Bytes) {
    let frame = encode_request(api_key, version, -7, "größe", body).unwrap().slice(4..);
    let header = RequestHeader::parse(&frame).unwrap();
    assert_eq!((header.api_key, header.api_version, header.correlation_id), (api_key.code(), version, -7));
    assert_eq!(header.client_id, Some("größe"));
    (header.body_offset, frame)
}

fn produce_request(prng: &mut Prng, version: i16) -> m::ProduceRequestData {
    let flexible = version >= 9;
    m::ProduceRequestData {
        transactional_id: prng.one_in(2).then(|| KafkaString::from(text(prng))),
        acks: prng.next_u64() as i16,
        timeout_ms: i32_of(prng),
        topic_data: some(prng, 4, |prng| m::produce_request::TopicProduceData {
            name: KafkaString::from(if version < 13 { text(prng) } else { String::new() }),
            topic_id: KafkaUuid::from_uuid(if version >= 13 { uuid(prng) } else { Uuid::nil() }),
            partition_data: some(prng, 4, |prng| m::produce_request::PartitionProduceData {
                index: i32_of(prng),
                records: (!prng.one_in(4)).then(|| Bytes::from(vec![3; prng.below(400) as usize])),
                _unknown_tagged_fields: tags(prng, flexible),
            }),
            _unknown_tagged_fields: tags(prng, flexible),
        }),
        _unknown_tagged_fields: tags(prng, flexible),
    }
}

#[test]
fn produce_requests_are_read_alike() {
    rounds(ApiKey::Produce, |prng, version| {
        let theirs = produce_request(prng, version);
        let (body_offset, frame) = frame_of(ApiKey::Produce, version, &theirs);
        let ours = ProduceRequest::parse(version, &frame, body_offset).unwrap();
        assert_eq!(ours.transactional_id, theirs.transactional_id.as_ref().map(|id| id.as_str()));
        assert_eq!((ours.acks, ours.timeout_ms), (theirs.acks, theirs.timeout_ms));
        assert_eq!(ours.topics(), theirs.topic_data.len());
        let mut items = ours.items();
        for theirs in &theirs.topic_data {
            let (name, topic_id) = (theirs.name.as_str(), *theirs.topic_id.inner());
            let topic = produce::ProduceTopic { name, topic_id, partitions: theirs.partition_data.len() };
            assert_eq!(items.next(), Some(ProduceItem::Topic(topic)));
            for theirs in &theirs.partition_data {
                let Some(ProduceItem::Partition(ours)) = items.next() else { panic!("too few partitions") };
                assert_eq!(ours.index, theirs.index);
                assert_eq!(ours.records.map(|range| frame.slice(range)), theirs.records);
            }
        }
        assert_eq!(items.next(), None);
        for cut in body_offset..frame.len() {
            assert!(ProduceRequest::parse(version, &frame[..cut], body_offset).is_err(), "cut at {cut}");
        }
    });
}

fn fetch_request(prng: &mut Prng, version: i16) -> m::FetchRequestData {
    let flexible = version >= 12;
    let name = |prng: &mut Prng| KafkaString::from(if version < 13 { text(prng) } else { String::new() });
    let id = |prng: &mut Prng| KafkaUuid::from_uuid(if version >= 13 { uuid(prng) } else { Uuid::nil() });
    let mut body = m::FetchRequestData {
        max_wait_ms: i32_of(prng),
        min_bytes: i32_of(prng),
        max_bytes: i32_of(prng),
        isolation_level: prng.next_u64() as i8,
        topics: some(prng, 4, |prng| m::fetch_request::FetchTopic {
            topic: name(prng),
            topic_id: id(prng),
            partitions: some(prng, 4, |prng| m::fetch_request::FetchPartition {
                partition: i32_of(prng),
                current_leader_epoch: if version >= 9 { i32_of(prng) } else { -1 },
                fetch_offset: i64_of(prng),
                last_fetched_epoch: if flexible { i32_of(prng) } else { -1 },
                log_start_offset: if version >= 5 { i64_of(prng) } else { -1 },
                partition_max_bytes: i32_of(prng),
                replica_directory_id: KafkaUuid::from_uuid(if version >= 17 {
                    uuid(prng)
                } else {
                    Uuid::nil()
                }),
                _unknown_tagged_fields: tags(prng, flexible),
                ..Default::default()
            }),
            _unknown_tagged_fields: tags(prng, flexible),
        }),
        _unknown_tagged_fields: tags(prng, flexible),
        ..Default::default()
    };
    if version <= 14 {
        body.replica_id = i32_of(prng);
    } else if prng.one_in(3) {
        body.replica_state.replica_id = i32_of(prng); // a tag that only followers set; ours skips it
    }
    if flexible && prng.one_in(3) {
        body.cluster_id = Some(KafkaString::from(text(prng)));
    }
    if version >= 7 {
        (body.session_id, body.session_epoch) = (i32_of(prng), i32_of(prng));
        body.forgotten_topics_data = some(prng, 3, |prng| m::fetch_request::ForgottenTopic {
            topic: name(prng),
            topic_id: id(prng),
            partitions: some(prng, 5, i32_of),
            _unknown_tagged_fields: tags(prng, flexible),
        });
    }
    if version >= 11 {
        body.rack_id = KafkaString::from(text(prng));
    }
    body
}

/// The generated request in our terms.
fn as_ours(theirs: &m::FetchRequestData) -> FetchRequest {
    FetchRequest {
        replica_id: theirs.replica_id,
        max_wait_ms: theirs.max_wait_ms,
        min_bytes: theirs.min_bytes,
        max_bytes: theirs.max_bytes,
        isolation_level: theirs.isolation_level,
        session_id: theirs.session_id,
        session_epoch: theirs.session_epoch,
        topics: theirs.topics.iter().map(topic_as_ours).collect(),
        forgotten: theirs
            .forgotten_topics_data
            .iter()
            .map(|topic| fetch::ForgottenTopic {
                topic: topic.topic.as_str().to_string(),
                topic_id: *topic.topic_id.inner(),
                partitions: topic.partitions.clone(),
            })
            .collect(),
        rack_id: theirs.rack_id.as_str().to_string(),
    }
}

fn topic_as_ours(theirs: &m::fetch_request::FetchTopic) -> fetch::FetchTopic {
    let partitions = theirs.partitions.iter().map(|partition| fetch::FetchPartition {
        partition: partition.partition,
        current_leader_epoch: partition.current_leader_epoch,
        fetch_offset: partition.fetch_offset,
        last_fetched_epoch: partition.last_fetched_epoch,
        partition_max_bytes: partition.partition_max_bytes,
    });
    fetch::FetchTopic {
        topic: theirs.topic.as_str().to_string(),
        topic_id: *theirs.topic_id.inner(),
        partitions: partitions.collect(),
    }
}

#[test]
fn fetch_requests_are_read_alike() {
    rounds(ApiKey::Fetch, |prng, version| {
        let theirs = fetch_request(prng, version);
        let (body_offset, frame) = frame_of(ApiKey::Fetch, version, &theirs);
        assert_eq!(FetchRequest::parse(version, &frame[body_offset..]).unwrap(), as_ours(&theirs));
        for cut in body_offset..frame.len() {
            assert!(FetchRequest::parse(version, &frame[body_offset..cut]).is_err(), "cut at {cut}");
        }
    });
}

fn endpoints(prng: &mut Prng) -> Vec<NodeEndpoint> {
    some(prng, 2, |prng| NodeEndpoint { node_id: i32_of(prng), host: text(prng), port: i32_of(prng) })
}

fn error(prng: &mut Prng) -> ErrorCode {
    [ErrorCode::None, ErrorCode::NotLeaderOrFollower, ErrorCode::InvalidRecord][prng.below(3) as usize]
}

struct Topic {
    name: String,
    topic_id: Uuid,
    partitions: Vec<produce::PartitionResponse<'static>>,
}

fn produce_topics(prng: &mut Prng) -> Vec<Topic> {
    some(prng, 4, |prng| Topic {
        name: text(prng),
        topic_id: uuid(prng),
        partitions: some(prng, 4, |prng| produce::PartitionResponse {
            index: i32_of(prng),
            error_code: error(prng),
            base_offset: i64_of(prng),
            log_append_time_ms: i64_of(prng),
            log_start_offset: i64_of(prng),
            error_message: [None, Some(""), Some("the reason")][prng.below(3) as usize],
            record_errors: [&[][..], &[3], &[0, 7]][prng.below(3) as usize],
            current_leader: prng.one_in(2).then(|| (i32_of(prng), i32_of(prng))),
        }),
    })
}

fn write_produce(version: i16, topics: &[Topic], nodes: &[NodeEndpoint]) -> Bytes {
    let mut writer = ResponseWriter::begin(b"of an answer before".to_vec(), version, 41, topics.len());
    for topic in topics {
        writer.topic(&topic.name, topic.topic_id, topic.partitions.len());
        topic.partitions.iter().for_each(|partition| writer.partition(partition));
        writer.end_topic();
    }
    Bytes::from(writer.finish(nodes))
}

#[test]
fn produce_answers_are_read_alike() {
    rounds(ApiKey::Produce, |prng, version| {
        let (ours, nodes) = (produce_topics(prng), endpoints(prng));
        let frame = write_produce(version, &ours, &nodes);
        assert_eq!(u32::from_be_bytes(frame[..4].try_into().unwrap()) as usize, frame.len() - 4);
        let (correlation_id, theirs): (i32, m::ProduceResponseData) =
            decode_response(ApiKey::Produce, version, frame.slice(4..)).unwrap();
        assert_eq!((correlation_id, theirs.throttle_time_ms, theirs.responses.len()), (41, 0, ours.len()));
        for (ours, theirs) in ours.iter().zip(&theirs.responses) {
            let expected = if version >= 13 { ("", ours.topic_id) } else { (&ours.name[..], Uuid::nil()) };
            assert_eq!((theirs.name.as_str(), *theirs.topic_id.inner()), expected);
            assert_eq!(theirs.partition_responses.len(), ours.partitions.len());
            for (ours, theirs) in ours.partitions.iter().zip(&theirs.partition_responses) {
                same_produce_partition(version, ours, theirs);
            }
        }
        let named =
            theirs.node_endpoints.iter().map(|it| (it.node_id, it.host.as_str().to_string(), it.port));
        assert_eq!(named.collect::<Vec<_>>(), expected_endpoints(version >= 10, &nodes));
    });
}

fn expected_endpoints(served: bool, nodes: &[NodeEndpoint]) -> Vec<(i32, String, i32)> {
    let nodes = if served { nodes } else { &[] };
    nodes.iter().map(|it| (it.node_id, it.host.clone(), it.port)).collect()
}

fn same_produce_partition(
    version: i16,
    ours: &produce::PartitionResponse<'_>,
    theirs: &m::produce_response::PartitionProduceResponse,
) {
    assert_eq!((theirs.index, theirs.error_code), (ours.index, ours.error_code.code()));
    assert_eq!((theirs.base_offset, theirs.log_append_time_ms), (ours.base_offset, ours.log_append_time_ms));
    assert_eq!(theirs.log_start_offset, if version >= 5 { ours.log_start_offset } else { -1 });
    let (mut records, mut message) = (Vec::new(), None);
    if version >= 8 {
        (records, message) = (ours.record_errors.to_vec(), ours.error_message);
    }
    let found: Vec<i32> = theirs.record_errors.iter().map(|it| it.batch_index).collect();
    assert_eq!((found, theirs.error_message.as_ref().map(|it| it.as_str())), (records, message));
    let each = |it: &m::produce_response::BatchIndexAndErrorMessage| {
        it.batch_index_error_message.as_ref().map(|it| it.as_str()) == message
    };
    assert!(theirs.record_errors.iter().all(each));
    let leader = ours.current_leader.filter(|_| version >= 10).unwrap_or((-1, -1));
    assert_eq!((theirs.current_leader.leader_id, theirs.current_leader.leader_epoch), leader);
}

fn fetch_response(prng: &mut Prng, version: i16) -> fetch::FetchResponse {
    let flexible = version >= 12;
    fetch::FetchResponse {
        error_code: error(prng),
        session_id: i32_of(prng),
        topics: some(prng, 4, |prng| fetch::TopicResponse {
            topic: text(prng),
            topic_id: uuid(prng),
            partitions: some(prng, 4, |prng| fetch::PartitionResponse {
                partition_index: i32_of(prng),
                error_code: error(prng),
                high_watermark: i64_of(prng),
                last_stable_offset: i64_of(prng),
                log_start_offset: i64_of(prng),
                diverging_epoch: (flexible && prng.one_in(2)).then(|| (i32_of(prng), i64_of(prng))),
                current_leader: (flexible && prng.one_in(2)).then(|| (i32_of(prng), i32_of(prng))),
                aborted_transactions_empty: prng.one_in(2),
                records_length: [0, 1, 126, 127, 128, 300][prng.below(6) as usize],
                preferred_read_replica: prng.one_in(2).then(|| i32_of(prng)),
            }),
        }),
        node_endpoints: endpoints(prng),
    }
}

/// Puts an answer together as the reactor would; the records of the n-th partition are bytes n.
fn assemble(ours: &fetch::FetchResponse, version: i16) -> Bytes {
    let partitions: Vec<_> = ours.topics.iter().flat_map(|topic| &topic.partitions).collect();
    let mut frame = BytesMut::new();
    for part in ours.encode(version, 42) {
        match part {
            ResponsePart::Bytes(bytes) => frame.extend_from_slice(&bytes),
            ResponsePart::Records(n) => {
                assert!(partitions[n].records_length > 0, "a piece without records");
                frame.extend_from_slice(&vec![n as u8; partitions[n].records_length]);
            }
        }
    }
    frame.freeze()
}

#[test]
fn fetch_answers_are_read_alike() {
    rounds(ApiKey::Fetch, |prng, version| {
        let ours = fetch_response(prng, version);
        let frame = assemble(&ours, version);
        assert_eq!(u32::from_be_bytes(frame[..4].try_into().unwrap()) as usize, frame.len() - 4);
        let (correlation_id, theirs): (i32, m::FetchResponseData) =
            decode_response(ApiKey::Fetch, version, frame.slice(4..)).unwrap();
        assert_eq!(
            (correlation_id, theirs.throttle_time_ms, theirs.responses.len()),
            (42, 0, ours.topics.len())
        );
        let head = if version >= 7 { (ours.error_code.code(), ours.session_id) } else { (0, 0) };
        assert_eq!((theirs.error_code, theirs.session_id), head);
        let mut n = 0;
        for (ours, theirs) in ours.topics.iter().zip(&theirs.responses) {
            let expected = if version >= 13 { ("", ours.topic_id) } else { (&ours.topic[..], Uuid::nil()) };
            assert_eq!((theirs.topic.as_str(), *theirs.topic_id.inner()), expected);
            assert_eq!(theirs.partitions.len(), ours.partitions.len());
            for (ours, theirs) in ours.partitions.iter().zip(&theirs.partitions) {
                same_fetch_partition(version, ours, theirs, n);
                n += 1;
            }
        }
        let named =
            theirs.node_endpoints.iter().map(|it| (it.node_id, it.host.as_str().to_string(), it.port));
        assert_eq!(named.collect::<Vec<_>>(), expected_endpoints(version >= 16, &ours.node_endpoints));
    });
}

fn same_fetch_partition(
    version: i16,
    ours: &fetch::PartitionResponse,
    theirs: &m::fetch_response::PartitionData,
    n: u8,
) {
    assert_eq!((theirs.partition_index, theirs.error_code), (ours.partition_index, ours.error_code.code()));
    assert_eq!(
        (theirs.high_watermark, theirs.last_stable_offset),
        (ours.high_watermark, ours.last_stable_offset)
    );
    assert_eq!(theirs.log_start_offset, if version >= 5 { ours.log_start_offset } else { -1 });
    let preferred = ours.preferred_read_replica.filter(|_| version >= 11);
    assert_eq!(theirs.preferred_read_replica, preferred.unwrap_or(-1));
    assert_eq!(theirs.aborted_transactions, ours.aborted_transactions_empty.then(Vec::new));
    assert_eq!(theirs.records.as_deref(), Some(&vec![n; ours.records_length][..]), "never null");
    let diverging = (theirs.diverging_epoch.epoch, theirs.diverging_epoch.end_offset);
    assert_eq!(diverging, ours.diverging_epoch.unwrap_or((-1, -1)));
    let leader = (theirs.current_leader.leader_id, theirs.current_leader.leader_epoch);
    assert_eq!(leader, ours.current_leader.unwrap_or((-1, -1)));
}
