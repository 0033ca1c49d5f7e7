//! Requests to a group's coordinator: finds it, asks it, and asks again while it moves or loads.

use std::time::{Duration, Instant};

use pelton_wire::api_key::ApiKey;
use pelton_wire::error_code::ErrorCode;
use pelton_wire::messages::{FindCoordinatorRequestData, FindCoordinatorResponseData, Message};

use super::client::{Client, RETRY_PAUSE};
use super::connection::CallError;
use super::topic::message_of;
use crate::failure::Failure;

/// The newest FindCoordinator spoken: the last that asks for one group.
const FIND_VERSION: i16 = 3;
/// FindCoordinator's type of a group.
const KEY_TYPE_GROUP: i8 = 0;

/// True for errors of a coordinator that is elsewhere or not ready yet.
pub fn moves(error: ErrorCode) -> bool {
    matches!(
        error,
        ErrorCode::NotCoordinator
            | ErrorCode::CoordinatorNotAvailable
            | ErrorCode::CoordinatorLoadInProgress
            | ErrorCode::RequestTimedOut
            | ErrorCode::NetworkException
    )
}

impl Client {
    /// The broker that coordinates `group`. It may take a while until the offsets topic has been made.
    pub fn find_coordinator(&mut self, group: &str) -> Result<i32, Failure> {
        let deadline = self.deadline();
        loop {
            let request = |_version: i16| FindCoordinatorRequestData {
                key: group.to_string().into(),
                key_type: KEY_TYPE_GROUP,
                ..FindCoordinatorRequestData::default()
            };
            let answer: FindCoordinatorResponseData =
                self.ask_any(ApiKey::FindCoordinator, FIND_VERSION, request)?;
            match ErrorCode::from_code(answer.error_code) {
                ErrorCode::None => {
                    self.learn_broker(answer.node_id, answer.host.as_str(), answer.port);
                    self.set_coordinator(group, Some(answer.node_id));
                    return Ok(answer.node_id);
                }
                error if moves(error) && Instant::now() < deadline => std::thread::sleep(RETRY_PAUSE),
                error => {
                    let message = message_of(answer.error_message.as_ref());
                    return Err(Failure::error(format!("group {group}: {error} {message}").trim_end()));
                }
            }
        }
    }

    /// Asks the coordinator of `group`, again while `error` of the answer is one that passes or the network fails; at the
    /// end of the time the last answer is given as it is.
    pub fn ask_coordinator<Q: Message, A: Message>(
        &mut self,
        group: &str,
        api_key: ApiKey,
        newest: i16,
        request: impl Fn(i16) -> Q,
        error: impl Fn(&A) -> i16,
    ) -> Result<A, Failure> {
        self.ask_coordinator_patiently(group, api_key, newest, Duration::ZERO, request, error)
    }

    /// The same for requests whose answer may take `patience` longer than others: a join waits for the other members.
    pub fn ask_coordinator_patiently<Q: Message, A: Message>(
        &mut self,
        group: &str,
        api_key: ApiKey,
        newest: i16,
        patience: Duration,
        request: impl Fn(i16) -> Q,
        error: impl Fn(&A) -> i16,
    ) -> Result<A, Failure> {
        let deadline = self.deadline() + patience;
        loop {
            let coordinator = match self.coordinator(group) {
                Some(known) => known,
                None => self.find_coordinator(group)?,
            };
            match self.ask_broker_patiently(coordinator, api_key, newest, patience, &request) {
                Ok(answer) => {
                    if !moves(ErrorCode::from_code(error(&answer))) || Instant::now() >= deadline {
                        return Ok(answer);
                    }
                }
                Err(CallError::Network(words)) if Instant::now() >= deadline => {
                    return Err(Failure::unreachable(words));
                }
                Err(CallError::Network(_)) => {}
                Err(protocol) => return Err(protocol.into()),
            }
            self.set_coordinator(group, None);
            std::thread::sleep(RETRY_PAUSE);
        }
    }
}
