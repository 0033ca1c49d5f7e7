//! The APIs that change metadata, on shard 0: from a request to the records that carry it out and the answer then.

use bytes::Bytes;
use pelton_model::Now;
use pelton_wire::WireError;
use pelton_wire::api_key::ApiKey;
use pelton_wire::header::RequestHeader;
use pelton_wire::messages::{self as m, decode};

use crate::Shard;
use crate::api::{self, encode_response};
use crate::control::{Begins, ControlPlan, ControlRequest};

/// Whether a request's body can be read, so that one that cannot is refused where it came in.
pub(crate) fn check(api_key: ApiKey, version: i16, body: Bytes) -> Result<(), WireError> {
    match api_key {
        ApiKey::CreateTopics => decode::<m::CreateTopicsRequestData>(version, body).map(drop),
        ApiKey::DeleteTopics => decode::<m::DeleteTopicsRequestData>(version, body).map(drop),
        ApiKey::CreatePartitions => decode::<m::CreatePartitionsRequestData>(version, body).map(drop),
        ApiKey::AlterConfigs => decode::<m::AlterConfigsRequestData>(version, body).map(drop),
        ApiKey::IncrementalAlterConfigs => {
            decode::<m::IncrementalAlterConfigsRequestData>(version, body).map(drop)
        }
        ApiKey::InitProducerId => decode::<m::InitProducerIdRequestData>(version, body).map(drop),
        ApiKey::ElectLeaders => decode::<m::ElectLeadersRequestData>(version, body).map(drop),
        ApiKey::AlterPartitionReassignments => {
            decode::<m::AlterPartitionReassignmentsRequestData>(version, body).map(drop)
        }
        ApiKey::ListPartitionReassignments => {
            decode::<m::ListPartitionReassignmentsRequestData>(version, body).map(drop)
        }
        ApiKey::DescribeQuorum => decode::<m::DescribeQuorumRequestData>(version, body).map(drop),
        ApiKey::UnregisterBroker => decode::<m::UnregisterBrokerRequestData>(version, body).map(drop),
        ApiKey::AddRaftVoter => decode::<m::AddRaftVoterRequestData>(version, body).map(drop),
        ApiKey::RemoveRaftVoter => decode::<m::RemoveRaftVoterRequestData>(version, body).map(drop),
        other => Err(WireError::NotServed(other.name())),
    }
}

impl Shard {
    /// Plans one request against the image as it is now.
    pub(crate) fn plan_control(&mut self, now: Now, request: &ControlRequest) -> ControlPlan {
        match request {
            ControlRequest::AutoCreate(topics) => {
                let Shard { config, image, prng, .. } = self;
                let context = api::context::ApiContext { config, image, shard: self.id, now };
                let records = api::create_topics::auto_create(&context, prng, topics);
                ControlPlan::new(records, Bytes::new())
            }
            ControlRequest::Frame(frame) => {
                // The shard the request came in at has read it once already (`check`).
                self.plan_frame(now, frame).unwrap_or(ControlPlan::new(Vec::new(), Bytes::new()))
            }
        }
    }

    fn plan_frame(&mut self, now: Now, frame: &Bytes) -> Result<ControlPlan, WireError> {
        let header = RequestHeader::parse(frame)?;
        let (version, correlation_id) = (header.api_version, header.correlation_id);
        let body = frame.slice(header.body_offset..);
        let api_key = ApiKey::from_code(header.api_key).ok_or(WireError::NotServed("this API"))?;
        if matches!(api_key, ApiKey::DescribeQuorum | ApiKey::AddRaftVoter | ApiKey::RemoveRaftVoter) {
            return self.plan_quorum(now, api_key, version, correlation_id, body);
        }
        let voters = self.voters();
        let Shard { config, image, prng, producer_ids, .. } = self;
        let context = api::context::ApiContext { config, image, shard: self.id, now };
        macro_rules! plan {
            ($planned:expr) => {{
                let planned = $planned;
                let response = encode_response(api_key, version, correlation_id, &planned.response);
                ControlPlan::new(planned.records, response)
            }};
        }
        Ok(match api_key {
            ApiKey::CreateTopics => {
                plan!(api::create_topics::handle(&context, prng, version, decode(version, body)?))
            }
            ApiKey::DeleteTopics => {
                plan!(api::delete_topics::handle(&context, version, decode(version, body)?))
            }
            ApiKey::CreatePartitions => {
                plan!(api::create_partitions::handle(&context, version, decode(version, body)?))
            }
            ApiKey::AlterConfigs => {
                plan!(api::alter_configs::handle_alter(&context, version, decode(version, body)?))
            }
            ApiKey::IncrementalAlterConfigs => {
                plan!(api::alter_configs::handle_incremental(&context, version, decode(version, body)?))
            }
            ApiKey::InitProducerId => {
                plan!(api::init_producer_id::handle(&context, producer_ids, version, decode(version, body)?))
            }
            ApiKey::ElectLeaders => {
                let elections = api::elect_leaders::handle(&context, version, decode(version, body)?);
                let response = encode_response(api_key, version, correlation_id, &elections.response);
                let begins = elections.transfers.into_iter().map(Begins::Transfer).collect();
                ControlPlan { records: elections.records, response, begins }
            }
            ApiKey::AlterPartitionReassignments => {
                plan!(api::reassignments::alter(&context, version, decode(version, body)?))
            }
            ApiKey::AlterReplicaLogDirs => {
                plan!(api::alter_replica_log_dirs::handle(&context, decode(version, body)?))
            }
            ApiKey::ListPartitionReassignments => {
                let response = api::reassignments::list(&context, version, decode(version, body)?);
                let response = encode_response(api_key, version, correlation_id, &response);
                ControlPlan::new(Vec::new(), response)
            }
            ApiKey::UnregisterBroker => {
                plan!(api::unregister_broker::handle(&context, &voters, &decode(version, body)?))
            }
            other => return Err(WireError::NotServed(other.name())),
        })
    }

    /// What concerns the quorum itself, not what it has decided.
    fn plan_quorum(
        &self,
        now: Now,
        api_key: ApiKey,
        version: i16,
        correlation_id: i32,
        body: Bytes,
    ) -> Result<ControlPlan, WireError> {
        let (view, context) = (self.quorum_view(now), self.api_context(now));
        let encode = |voters: api::raft_voters::Voters| {
            let (change, outcome) = match voters {
                Ok(change) => (Some(change), Ok(())),
                Err(refused) => (None, Err(refused)),
            };
            let response = match api_key {
                ApiKey::AddRaftVoter => {
                    let answer = api::raft_voters::added(outcome);
                    encode_response(api_key, version, correlation_id, &answer)
                }
                _ => {
                    let answer = api::raft_voters::removed(outcome);
                    encode_response(api_key, version, correlation_id, &answer)
                }
            };
            let begins = change.into_iter().map(Begins::Members).collect();
            ControlPlan { records: Vec::new(), response, begins }
        };
        Ok(match api_key {
            ApiKey::AddRaftVoter => {
                encode(api::raft_voters::add(&context, view.as_ref(), &decode(version, body)?))
            }
            ApiKey::RemoveRaftVoter => {
                encode(api::raft_voters::remove(&context, view.as_ref(), &decode(version, body)?))
            }
            _ => {
                let answer = api::describe_quorum::handle(view.as_ref(), version, decode(version, body)?);
                let response = encode_response(api_key, version, correlation_id, &answer);
                ControlPlan::new(Vec::new(), response)
            }
        })
    }
}
