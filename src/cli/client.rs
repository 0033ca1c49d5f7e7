//! A client of a cluster: finds a broker, keeps the map of leaders, sends each request to the broker that can serve it and
//! tries again after what passes by itself. Knows Kafka's APIs; knows nothing of the command line.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use pelton_wire::api_key::ApiKey;
use pelton_wire::error_code::ErrorCode;
use pelton_wire::messages::{
    Message, MetadataRequestData, MetadataResponseData, metadata_request::MetadataRequestTopic,
};

use super::connection::{CallError, Connection};
use crate::arguments::Target;
use crate::failure::Failure;

/// Pause before a request is tried again.
pub const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// A cluster as this process sees it.
pub struct Client {
    bootstrap: Vec<String>,
    timeout: Duration,
    brokers: BTreeMap<i32, String>,
    controller_id: i32,
    connections: BTreeMap<String, Connection>,
    /// Leaders by topic and partition, as of the last metadata.
    leaders: BTreeMap<(String, i32), i32>,
    /// Coordinators by group, as they were last found.
    coordinators: BTreeMap<String, i32>,
}

/// True for errors that go away after a look at fresh metadata, or by waiting.
pub fn passes(error: ErrorCode) -> bool {
    matches!(
        error,
        ErrorCode::NotLeaderOrFollower
            | ErrorCode::LeaderNotAvailable
            | ErrorCode::FencedLeaderEpoch
            | ErrorCode::UnknownLeaderEpoch
            | ErrorCode::NotController
            | ErrorCode::RequestTimedOut
            | ErrorCode::NotEnoughReplicas
            | ErrorCode::NotEnoughReplicasAfterAppend
            | ErrorCode::ReplicaNotAvailable
            | ErrorCode::KafkaStorageError
            | ErrorCode::OffsetNotAvailable
            | ErrorCode::NetworkException
            | ErrorCode::CoordinatorLoadInProgress
            | ErrorCode::BrokerNotAvailable
    )
}

impl Client {
    /// A client that has not connected yet.
    pub fn new(target: &Target) -> Client {
        Client {
            bootstrap: target.brokers.split(',').map(|part| part.trim().to_string()).collect(),
            timeout: target.timeout,
            brokers: BTreeMap::new(),
            controller_id: -1,
            connections: BTreeMap::new(),
            leaders: BTreeMap::new(),
            coordinators: BTreeMap::new(),
        }
    }

    /// When a command that begins now gives up.
    pub fn deadline(&self) -> Instant {
        Instant::now() + self.timeout
    }

    /// The longest wait for one answer.
    pub fn timeout_ms(&self) -> i32 {
        i32::try_from(self.timeout.as_millis()).unwrap_or(i32::MAX)
    }

    /// Leader of a partition, as of the last metadata.
    pub fn leader(&self, topic: &str, partition: i32) -> Option<i32> {
        let leader = self.leaders.get(&(topic.to_string(), partition)).copied()?;
        self.brokers.contains_key(&leader).then_some(leader)
    }

    /// Ids of the brokers, as of the last metadata.
    pub fn broker_ids(&self) -> Vec<i32> {
        self.brokers.keys().copied().collect()
    }

    /// Where a broker is, if it is known.
    pub fn address(&self, broker_id: i32) -> Option<&str> {
        self.brokers.get(&broker_id).map(String::as_str)
    }

    /// Notes where a broker is.
    pub fn learn_broker(&mut self, broker_id: i32, host: &str, port: i32) {
        self.brokers.insert(broker_id, address_of(host, port));
    }

    /// The coordinator of a group, if it has been found.
    pub fn coordinator(&self, group: &str) -> Option<i32> {
        self.coordinators.get(group).copied()
    }

    /// Notes or forgets the coordinator of a group.
    pub fn set_coordinator(&mut self, group: &str, broker_id: Option<i32>) {
        match broker_id {
            Some(broker_id) => self.coordinators.insert(group.to_string(), broker_id),
            None => self.coordinators.remove(group),
        };
    }

    fn connection(&mut self, address: &str) -> Result<&mut Connection, CallError> {
        if !self.connections.contains_key(address) {
            let connection = Connection::open(address, self.timeout)?;
            self.connections.insert(address.to_string(), connection);
        }
        Ok(self.connections.get_mut(address).expect("it was put there if it was missing"))
    }

    /// The connection to a broker. On an error of the network, [`Client::drop_broker`] is to be called.
    pub fn broker(&mut self, broker_id: i32) -> Result<&mut Connection, CallError> {
        let address = self.brokers.get(&broker_id).cloned();
        let address =
            address.ok_or_else(|| CallError::Network(format!("broker {broker_id} has no address")))?;
        self.connection(&address)
    }

    /// Forgets the connection to a broker after a failure on it; what was in flight is lost with it.
    pub fn drop_broker(&mut self, broker_id: i32) {
        if let Some(address) = self.brokers.get(&broker_id) {
            self.connections.remove(address);
        }
    }

    /// Asks any broker: those known, then those given at the start.
    pub fn ask_any<Q: Message, A: Message>(
        &mut self,
        api_key: ApiKey,
        newest: i16,
        request: impl Fn(i16) -> Q,
    ) -> Result<A, CallError> {
        let mut addresses: Vec<String> = self.connections.keys().cloned().collect();
        addresses.extend(self.bootstrap.iter().cloned());
        addresses.extend(self.brokers.values().cloned());
        let mut problem = CallError::Network("no broker is known".to_string());
        let mut tried = Vec::new();
        for address in addresses {
            if tried.contains(&address) {
                continue;
            }
            match self.ask_at(&address, api_key, newest, Duration::ZERO, &request) {
                Err(CallError::Network(words)) => {
                    self.connections.remove(&address);
                    problem = CallError::Network(words);
                }
                other => return other,
            }
            tried.push(address);
        }
        Err(problem)
    }

    fn ask_at<Q: Message, A: Message>(
        &mut self,
        address: &str,
        api_key: ApiKey,
        newest: i16,
        patience: Duration,
        request: &impl Fn(i16) -> Q,
    ) -> Result<A, CallError> {
        let connection = self.connection(address)?;
        let version = connection.version(api_key, newest)?;
        let sent = connection.send(api_key, version, &request(version))?;
        connection.receive_patiently(sent, patience)
    }

    /// Asks one broker; a broken connection is forgotten.
    pub fn ask_broker<Q: Message, A: Message>(
        &mut self,
        broker_id: i32,
        api_key: ApiKey,
        newest: i16,
        request: impl Fn(i16) -> Q,
    ) -> Result<A, CallError> {
        self.ask_broker_patiently(broker_id, api_key, newest, Duration::ZERO, request)
    }

    /// The same for an answer that may take `patience` longer than others.
    pub fn ask_broker_patiently<Q: Message, A: Message>(
        &mut self,
        broker_id: i32,
        api_key: ApiKey,
        newest: i16,
        patience: Duration,
        request: impl Fn(i16) -> Q,
    ) -> Result<A, CallError> {
        let address = self.brokers.get(&broker_id).cloned();
        let address =
            address.ok_or_else(|| CallError::Network(format!("broker {broker_id} has no address")))?;
        let answer = self.ask_at(&address, api_key, newest, patience, &request);
        if matches!(answer, Err(CallError::Network(_))) {
            self.connections.remove(&address);
        }
        answer
    }

    /// Asks the controller, again while `error` of the answer is one that passes.
    pub fn ask_controller<Q: Message, A: Message>(
        &mut self,
        api_key: ApiKey,
        newest: i16,
        request: impl Fn(i16) -> Q,
        error: impl Fn(&A) -> i16,
    ) -> Result<A, Failure> {
        let deadline = self.deadline();
        loop {
            if !self.brokers.contains_key(&self.controller_id) {
                self.metadata(Some(&[]), false)?;
            }
            let answer: A = match self.brokers.contains_key(&self.controller_id) {
                true => self.ask_broker(self.controller_id, api_key, newest, &request)?,
                false => self.ask_any(api_key, newest, &request)?,
            };
            let moved = ErrorCode::from_code(error(&answer)) == ErrorCode::NotController;
            if !moved || Instant::now() >= deadline {
                return Ok(answer);
            }
            std::thread::sleep(RETRY_PAUSE);
            self.controller_id = -1;
        }
    }

    /// Fresh metadata of `topics` (none = all), which also becomes the map of leaders.
    pub fn metadata(
        &mut self,
        topics: Option<&[String]>,
        allow_auto_topic_creation: bool,
    ) -> Result<MetadataResponseData, CallError> {
        let request = |_version: i16| MetadataRequestData {
            topics: topics.map(|names| {
                let named = |name: &String| MetadataRequestTopic {
                    name: Some(name.clone().into()),
                    ..MetadataRequestTopic::default()
                };
                names.iter().map(named).collect()
            }),
            allow_auto_topic_creation,
            ..MetadataRequestData::default()
        };
        let answer: MetadataResponseData = self.ask_any(ApiKey::Metadata, 12, request)?;
        self.brokers = answer
            .brokers
            .iter()
            .map(|broker| (broker.node_id, address_of(broker.host.as_str(), broker.port)))
            .collect();
        self.controller_id = answer.controller_id;
        for topic in answer.topics.iter().filter(|topic| topic.error_code == 0) {
            let Some(name) = &topic.name else { continue };
            for partition in &topic.partitions {
                self.leaders.insert((name.to_string(), partition.partition_index), partition.leader_id);
            }
        }
        Ok(answer)
    }

    /// Names of all topics, for suggestions; empty if they cannot be had.
    pub fn topic_names(&mut self) -> Vec<String> {
        let metadata = self.metadata(None, false);
        metadata
            .map(|answer| {
                answer
                    .topics
                    .iter()
                    .filter_map(|topic| topic.name.as_ref())
                    .map(|name| name.to_string())
                    .collect()
            })
            .unwrap_or_default()
    }

    /// Waits until a topic and the leaders of its partitions are known. A topic that does not exist is an error with a
    /// suggestion, unless the broker creates it (`create`), for which it gets a moment.
    pub fn find_topic(&mut self, topic: &str, create: bool) -> Result<i32, Failure> {
        let deadline = self.deadline();
        let patience = Instant::now() + if create { Duration::from_secs(3) } else { Duration::ZERO };
        loop {
            let answer = self.metadata(Some(&[topic.to_string()]), create)?;
            let found = answer.topics.first();
            let error = found
                .map_or(ErrorCode::UnknownTopicOrPartition, |topic| ErrorCode::from_code(topic.error_code));
            let led =
                found.is_some_and(|topic| topic.partitions.iter().all(|partition| partition.leader_id >= 0));
            let now = Instant::now();
            match error {
                ErrorCode::None if led || now >= deadline => {
                    return Ok(found.map_or(0, |topic| topic.partitions.len() as i32));
                }
                ErrorCode::UnknownTopicOrPartition if now >= patience => {
                    return Err(Failure::error(self.unknown_topic(topic)));
                }
                ErrorCode::None | ErrorCode::UnknownTopicOrPartition => {}
                error if passes(error) && now < deadline => {}
                error => return Err(Failure::error(format!("topic {topic}: {error}"))),
            }
            std::thread::sleep(RETRY_PAUSE);
        }
    }

    /// What to say about a topic that does not exist.
    pub fn unknown_topic(&mut self, topic: &str) -> String {
        let names = self.topic_names();
        let hint = crate::suggest::hint(topic, names.iter().map(String::as_str));
        format!("topic {topic}: {}.{hint}", ErrorCode::UnknownTopicOrPartition)
    }
}

fn address_of(host: &str, port: i32) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}
