//! A member of a KIP-848 group that takes whatever it is given: the command line itself joins by the classic protocol only.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use pelton_wire::api_key::ApiKey;
use pelton_wire::messages::consumer_group_heartbeat_request::TopicPartitions;
use pelton_wire::messages::{
    ConsumerGroupHeartbeatRequestData, ConsumerGroupHeartbeatResponseData, decode_response, encode_request,
};

/// A member that lives in a thread of its own.
pub struct KipMember {
    leaves: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl KipMember {
    /// Joins; `address` must coordinate the group.
    pub fn join(address: &str, group: &str, topic: &str) -> KipMember {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let leaves = Arc::new(AtomicBool::new(false));
        let told = leaves.clone();
        let mut request = ConsumerGroupHeartbeatRequestData {
            group_id: group.to_string().into(),
            member_id: format!("pelton-cli-kip-{}", std::process::id()).into(),
            rebalance_timeout_ms: 60_000,
            subscribed_topic_names: Some(vec![topic.to_string().into()]),
            topic_partitions: Some(Vec::new()),
            ..ConsumerGroupHeartbeatRequestData::default()
        };
        let thread = std::thread::spawn(move || {
            while !told.load(Ordering::Acquire) {
                let answer = ask(&mut stream, &request);
                // COORDINATOR_NOT_AVAILABLE and the like, while the offsets topic is being made.
                if (14..=16).contains(&answer.error_code) {
                    std::thread::sleep(Duration::from_millis(50));
                    continue;
                }
                assert_eq!(answer.error_code, 0, "{:?}", answer.error_message);
                request.member_epoch = answer.member_epoch;
                if let Some(assignment) = answer.assignment {
                    let given = assignment.topic_partitions.into_iter();
                    let owned = given.map(|topic| TopicPartitions {
                        topic_id: topic.topic_id,
                        partitions: topic.partitions,
                        ..TopicPartitions::default()
                    });
                    request.topic_partitions = Some(owned.collect());
                }
                std::thread::sleep(Duration::from_millis(50));
            }
            request.member_epoch = -1;
            request.topic_partitions = None;
            assert_eq!(ask(&mut stream, &request).error_code, 0);
        });
        KipMember { leaves, thread }
    }

    /// Leaves.
    pub fn leave(self) {
        self.leaves.store(true, Ordering::Release);
        self.thread.join().unwrap();
    }
}

fn ask(
    stream: &mut TcpStream,
    request: &ConsumerGroupHeartbeatRequestData,
) -> ConsumerGroupHeartbeatResponseData {
    let api_key = ApiKey::ConsumerGroupHeartbeat;
    let frame = encode_request(api_key, 1, 7, "kip", request).unwrap();
    stream.write_all(&frame).unwrap();
    let mut length = [0; 4];
    stream.read_exact(&mut length).unwrap();
    let mut answer = vec![0; i32::from_be_bytes(length) as usize];
    stream.read_exact(&mut answer).unwrap();
    let (id, answer) = decode_response(api_key, 1, Bytes::from(answer)).unwrap();
    assert_eq!(id, 7);
    answer
}
