//! One connection to one broker: connect, agree on versions, send a request, read its answer. Blocking, one thread.
//! Never retries and knows nothing of topics; that is `client.rs`.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use bytes::Bytes;
use pelton_wire::api_key::ApiKey;
use pelton_wire::error_code::ErrorCode;
use pelton_wire::messages::{
    ApiVersionsRequestData, ApiVersionsResponseData, Message, decode_response, encode_request,
};

use crate::failure::Failure;

/// Largest answer that is taken, bytes: Kafka's default cap of a fetch (55 MiB) and one oversized batch fit.
const RESPONSE_BYTES_MAX: usize = 256 << 20;
/// The name the broker sees.
pub const CLIENT_ID: &str = "pelton-cli";

/// Why a request has no answer.
#[derive(Debug)]
pub enum CallError {
    /// The connection could not be made, broke, or timed out. Trying elsewhere may help.
    Network(String),
    /// The answer makes no sense, or the broker is too old. Trying again does not help.
    Protocol(String),
}

impl From<CallError> for Failure {
    fn from(error: CallError) -> Failure {
        match error {
            CallError::Network(words) => Failure::unreachable(words),
            CallError::Protocol(words) => Failure::error(words),
        }
    }
}

/// A connection on which versions have been agreed.
pub struct Connection {
    stream: TcpStream,
    address: String,
    correlation_id: i32,
    versions: BTreeMap<i16, (i16, i16)>,
    timeout: Duration,
}

/// A request that has been sent and not been answered yet.
#[must_use]
pub struct Sent {
    api_key: ApiKey,
    version: i16,
    correlation_id: i32,
}

impl Connection {
    /// Connects to `host:port` and asks for the versions served. `timeout` holds for connecting and for each answer.
    pub fn open(address: &str, timeout: Duration) -> Result<Connection, CallError> {
        let stream = connect(address, timeout)?;
        let mut connection = Connection {
            stream,
            address: address.to_string(),
            correlation_id: 0,
            versions: BTreeMap::new(),
            timeout,
        };
        connection.agree()?;
        Ok(connection)
    }

    fn agree(&mut self) -> Result<(), CallError> {
        let request = ApiVersionsRequestData {
            client_software_name: "pelton".to_string().into(),
            client_software_version: env!("CARGO_PKG_VERSION").to_string().into(),
            ..ApiVersionsRequestData::default()
        };
        let mut answer: ApiVersionsResponseData = match self.ask(ApiKey::ApiVersions, 3, &request) {
            Ok(answer) => answer,
            // A broker that only knows version 0 answers in version 0 (KIP-511), which does not read as version 3.
            Err(CallError::Protocol(_)) => {
                self.ask(ApiKey::ApiVersions, 0, &ApiVersionsRequestData::default())?
            }
            Err(network) => return Err(network),
        };
        if answer.error_code == ErrorCode::UnsupportedVersion.code() {
            answer = self.ask(ApiKey::ApiVersions, 0, &ApiVersionsRequestData::default())?;
        }
        if answer.error_code != 0 {
            let error = ErrorCode::from_code(answer.error_code);
            return Err(CallError::Protocol(format!(
                "{}: asked for its versions, it answers {error}",
                self.address
            )));
        }
        self.versions =
            answer.api_keys.iter().map(|api| (api.api_key, (api.min_version, api.max_version))).collect();
        Ok(())
    }

    /// The version to speak: the highest that both sides have and that is not above `newest`.
    pub fn version(&self, api_key: ApiKey, newest: i16) -> Result<i16, CallError> {
        let ours = api_key.range();
        let (min, max) = self.versions.get(&api_key.code()).copied().unwrap_or((0, -1));
        let version = max.min(newest).min(ours.max);
        if version < min || version < ours.min {
            return Err(CallError::Protocol(format!(
                "{} serves {} in versions {min} to {max}; this program speaks {} to {}",
                self.address,
                api_key.name(),
                ours.min,
                newest.min(ours.max),
            )));
        }
        Ok(version)
    }

    /// Sends a request and reads its answer.
    pub fn ask<Q: Message, A: Message>(
        &mut self,
        api_key: ApiKey,
        version: i16,
        request: &Q,
    ) -> Result<A, CallError> {
        let sent = self.send(api_key, version, request)?;
        self.receive(sent)
    }

    /// Sends a request; its answer is to be read with [`Connection::receive`], in the order of sending.
    pub fn send<Q: Message>(
        &mut self,
        api_key: ApiKey,
        version: i16,
        request: &Q,
    ) -> Result<Sent, CallError> {
        self.correlation_id = self.correlation_id.wrapping_add(1);
        let frame = encode_request(api_key, version, self.correlation_id, CLIENT_ID, request)
            .map_err(|error| CallError::Protocol(format!("{} v{version}: {error}", api_key.name())))?;
        self.stream.write_all(&frame).map_err(|error| self.broken(&error))?;
        Ok(Sent { api_key, version, correlation_id: self.correlation_id })
    }

    /// Reads the next answer.
    pub fn receive<A: Message>(&mut self, sent: Sent) -> Result<A, CallError> {
        self.receive_patiently(sent, Duration::ZERO)
    }

    /// Reads the next answer, which may take `patience` longer than others.
    pub fn receive_patiently<A: Message>(&mut self, sent: Sent, patience: Duration) -> Result<A, CallError> {
        let wait = self.timeout + patience;
        let deadline = Instant::now() + wait;
        let mut length = [0; 4];
        self.fill(&mut length, deadline, wait)?;
        let length = usize::try_from(i32::from_be_bytes(length)).unwrap_or(usize::MAX);
        if !(4..=RESPONSE_BYTES_MAX).contains(&length) {
            return Err(CallError::Protocol(format!("{}: this is no Kafka broker", self.address)));
        }
        // Grows as bytes arrive: the length alone takes no memory.
        let mut frame = Vec::new();
        while frame.len() < length {
            let begin = frame.len();
            frame.resize((begin + (1 << 20)).min(length), 0);
            self.fill(&mut frame[begin..], deadline, wait)?;
        }
        let (correlation_id, answer) = decode_response(sent.api_key, sent.version, Bytes::from(frame))
            .map_err(|error| {
                CallError::Protocol(format!(
                    "{}: {} v{}: {error}",
                    self.address,
                    sent.api_key.name(),
                    sent.version
                ))
            })?;
        if correlation_id != sent.correlation_id {
            return Err(CallError::Protocol(format!("{}: an answer to another request", self.address)));
        }
        Ok(answer)
    }

    fn fill(&mut self, mut into: &mut [u8], deadline: Instant, wait: Duration) -> Result<(), CallError> {
        while !into.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(CallError::Network(format!("{}: no answer in {wait:?}", self.address)));
            }
            self.stream.set_read_timeout(Some(left)).map_err(|error| self.broken(&error))?;
            match self.stream.read(into) {
                Ok(0) => {
                    return Err(CallError::Network(format!(
                        "{}: the broker closed the connection",
                        self.address
                    )));
                }
                Ok(count) => into = &mut into[count..],
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(self.broken(&error)),
            }
        }
        Ok(())
    }

    fn broken(&self, error: &std::io::Error) -> CallError {
        CallError::Network(format!("{}: {error}", self.address))
    }
}

fn connect(address: &str, timeout: Duration) -> Result<TcpStream, CallError> {
    let network =
        |error: &dyn std::fmt::Display| CallError::Network(format!("cannot connect to {address}: {error}"));
    let mut problem = network(&"the name has no address");
    for socket_address in address.to_socket_addrs().map_err(|error| network(&error))? {
        match TcpStream::connect_timeout(&socket_address, timeout) {
            Ok(stream) => {
                stream.set_nodelay(true).map_err(|error| network(&error))?;
                stream.set_write_timeout(Some(timeout)).map_err(|error| network(&error))?;
                return Ok(stream);
            }
            Err(error) => problem = network(&error),
        }
    }
    Err(problem)
}
