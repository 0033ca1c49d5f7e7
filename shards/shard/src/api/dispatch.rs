//! From a frame to its handler. A request that cannot be read closes its connection, as Kafka does, but for an
//! ApiVersions of an unknown version, which is answered so that the client can step down (KIP-511).

use bytes::Bytes;
use pelton_cluster::names::OFFSETS_TOPIC;
use pelton_model::{BrokerId, ListenerMode, Now, PartitionKey, Replica, ShardId, TopicId};
use pelton_wire::WireError;
use pelton_wire::api_key::{self, ApiKey};
use pelton_wire::fetch::FetchRequest;
use pelton_wire::header::RequestHeader;
use pelton_wire::messages::{self, decode, decode_front};

use crate::Shard;
use crate::api::context::client_address;
use crate::api::produce::LeaderHint;
use crate::api::{self, RequestContext};
use crate::connection::RequestRef;
use crate::effect::Effect;
use crate::message::RequestId;

/// Largest request of any API but Produce, bytes: a quarter of a million partitions in one Fetch. Read into memory such a
/// request grows up to 60 times (`wire/tests/mutations.rs`), so that `socket.request.max.bytes` is no bound for it.
const CONTROL_REQUEST_BYTES_MAX: usize = 8 * 1024 * 1024;

impl Shard {
    /// Deals with one request.
    pub(crate) fn handle_request(
        &mut self,
        now: Now,
        request: RequestRef,
        frame: Bytes,
        out: &mut Vec<Effect>,
    ) {
        if let Err(reason) = self.try_request(now, request, frame, out) {
            self.close_connection(request.connection, reason, out);
        }
    }

    fn try_request(
        &mut self,
        now: Now,
        request: RequestRef,
        frame: Bytes,
        out: &mut Vec<Effect>,
    ) -> Result<(), String> {
        let header = RequestHeader::parse(&frame).map_err(|error| error.to_string())?;
        let Some(api_key) = ApiKey::from_code(header.api_key) else {
            return Err(format!("API key {} is not one of Kafka's that this broker serves", header.api_key));
        };
        let (version, correlation_id) = (header.api_version, header.correlation_id);
        if !api_key::serves(api_key, version) {
            if api_key == ApiKey::ApiVersions {
                let response = api::api_versions::unsupported_version(correlation_id);
                self.respond(request, response, out);
                return Ok(());
            }
            return Err(format!("version {version} of {} is not served", api_key.name()));
        }
        if api_key != ApiKey::Produce && frame.len() > CONTROL_REQUEST_BYTES_MAX {
            let (name, length) = (api_key.name(), frame.len());
            return Err(format!(
                "a {name} request of {length} bytes; at most {CONTROL_REQUEST_BYTES_MAX} are read"
            ));
        }
        let outcome = if api_key == ApiKey::Produce {
            self.produce(now, request, &header, &frame, out)
        } else {
            let client_id = header.client_id.map(str::to_string);
            let context = RequestContext { request, api_key, version, correlation_id, client_id };
            let body_offset = header.body_offset;
            self.run_request(now, &context, frame, body_offset, out)
        };
        outcome.map_err(|error| format!("{} version {version}: {error}", api_key.name()))?;
        if let Some(connection) = self.connections.get_mut(request.connection) {
            connection.prove(self.config.request_bytes_max);
        }
        Ok(())
    }

    fn run_request(
        &mut self,
        now: Now,
        context: &RequestContext,
        frame: Bytes,
        body_offset: usize,
        out: &mut Vec<Effect>,
    ) -> Result<(), WireError> {
        let version = context.version;
        let body = || frame.slice(body_offset..);
        match context.api_key {
            ApiKey::Fetch => {
                let request = FetchRequest::parse(version, &frame[body_offset..])?;
                self.fetch(now, context, request, out);
            }
            ApiKey::ListOffsets => {
                let request = decode(version, body())?;
                self.list_offsets(now, context.clone(), request, out);
            }
            ApiKey::DeleteRecords => {
                let request = decode(version, body())?;
                self.delete_records_request(now, context.clone(), request, out);
            }
            ApiKey::OffsetForLeaderEpoch => {
                let request = decode(version, body())?;
                self.offset_for_leader_epoch(now, context.clone(), request, out);
            }
            ApiKey::DescribeProducers => {
                let request = decode(version, body())?;
                self.describe_producers(now, context.clone(), request, out);
            }
            ApiKey::DescribeLogDirs => {
                let request = decode(version, body())?;
                self.describe_log_dirs(context.clone(), request, out);
            }
            ApiKey::AlterReplicaLogDirs => {
                self.alter_replica_log_dirs(now, context, &frame, body_offset, out)?;
            }
            ApiKey::Metadata => self.metadata(now, context, frame, body_offset, out)?,
            ApiKey::CreateTopics
            | ApiKey::DeleteTopics
            | ApiKey::CreatePartitions
            | ApiKey::AlterConfigs
            | ApiKey::IncrementalAlterConfigs
            | ApiKey::InitProducerId
            | ApiKey::ElectLeaders
            | ApiKey::AlterPartitionReassignments
            | ApiKey::ListPartitionReassignments
            | ApiKey::DescribeQuorum
            | ApiKey::UnregisterBroker
            | ApiKey::AddRaftVoter
            | ApiKey::RemoveRaftVoter => {
                api::plan::check(context.api_key, version, body())?;
                self.ask_controller(now, context.request, frame, out);
            }
            ApiKey::FindCoordinator => self.find_coordinator(now, context, frame, body_offset, out)?,
            ApiKey::OffsetCommit
            | ApiKey::OffsetFetch
            | ApiKey::OffsetDelete
            | ApiKey::JoinGroup
            | ApiKey::SyncGroup
            | ApiKey::Heartbeat
            | ApiKey::LeaveGroup
            | ApiKey::ListGroups
            | ApiKey::DescribeGroups
            | ApiKey::DeleteGroups
            | ApiKey::ConsumerGroupHeartbeat
            | ApiKey::ConsumerGroupDescribe => return self.group_request(now, context, body(), out),
            _ => {
                let response = self.read_only(now, context, body())?;
                self.respond(context.request, response, out);
            }
        }
        Ok(())
    }

    /// APIs that only read the metadata image.
    fn read_only(&self, now: Now, context: &RequestContext, body: Bytes) -> Result<Bytes, WireError> {
        let version = context.version;
        let api = self.api_context(now);
        Ok(match context.api_key {
            ApiKey::ApiVersions => {
                context.encode(&api::api_versions::handle(&api, version, decode(version, body)?))
            }
            ApiKey::DescribeCluster => {
                context.encode(&api::describe_cluster::handle(&api, version, decode(version, body)?))
            }
            ApiKey::ListConfigResources => {
                context.encode(&api::list_config_resources::handle(&api, version, decode(version, body)?))
            }
            ApiKey::DescribeTopicPartitions => {
                context.encode(&api::describe_topic_partitions::handle(&api, version, decode(version, body)?))
            }
            ApiKey::DescribeConfigs => {
                context.encode(&api::describe_configs::handle(&api, version, decode(version, body)?))
            }
            other => return Err(WireError::NotServed(other.name())),
        })
    }

    /// Metadata, which may first have to create topics (KIP-361).
    fn metadata(
        &mut self,
        now: Now,
        context: &RequestContext,
        frame: Bytes,
        body_offset: usize,
        out: &mut Vec<Effect>,
    ) -> Result<(), WireError> {
        let request: messages::MetadataRequestData =
            decode_front(context.version, frame.slice(body_offset..))?;
        let outcome = api::metadata::handle(&self.api_context(now), context.version, request);
        if outcome.missing.is_empty() || !self.config.auto_create_topics {
            let response = context.encode(&outcome.response);
            self.respond(context.request, response, out);
        } else {
            let id = self.next_id();
            self.metadata_waiting.insert(id, (context.request, frame));
            self.ask_auto_create(now, id, outcome.missing, out);
        }
        Ok(())
    }

    /// FindCoordinator, which may first have to create `__consumer_offsets`.
    fn find_coordinator(
        &mut self,
        now: Now,
        context: &RequestContext,
        frame: Bytes,
        body_offset: usize,
        out: &mut Vec<Effect>,
    ) -> Result<(), WireError> {
        let request = decode(context.version, frame.slice(body_offset..))?;
        let api = self.api_context(now);
        if api::find_coordinator::needs_offsets_topic(&api, &request) {
            let id = self.next_id();
            self.metadata_waiting.insert(id, (context.request, frame));
            self.ask_auto_create(now, id, vec![OFFSETS_TOPIC.to_string()], out);
        } else {
            let response = context.encode(&api::find_coordinator::handle(&api, context.version, request));
            self.respond(context.request, response, out);
        }
        Ok(())
    }

    /// Topics a Metadata or FindCoordinator request needs have been created, or cannot be: answer it with what there is
    /// now.
    pub(crate) fn handle_auto_created(&mut self, now: Now, id: RequestId, out: &mut Vec<Effect>) {
        let Some((request, frame)) = self.metadata_waiting.remove(&id) else { return };
        let Ok(header) = RequestHeader::parse(&frame) else { return };
        let (version, correlation_id) = (header.api_version, header.correlation_id);
        let (context, body) = (self.api_context(now), frame.slice(header.body_offset..));
        let response = match ApiKey::from_code(header.api_key) {
            Some(api_key @ ApiKey::Metadata) => decode_front(version, body).map(|body| {
                let outcome = api::metadata::handle(&context, version, body);
                api::encode_response(api_key, version, correlation_id, &outcome.response)
            }),
            Some(api_key @ ApiKey::FindCoordinator) => decode(version, body).map(|body| {
                let response = api::find_coordinator::handle(&context, version, body);
                api::encode_response(api_key, version, correlation_id, &response)
            }),
            _ => return,
        };
        // It has been read once already.
        if let Ok(response) = response {
            self.respond(request, response, out);
        }
    }

    /// What the metadata APIs look at.
    pub(crate) fn api_context(&self, now: Now) -> api::context::ApiContext<'_> {
        api::context::ApiContext { config: &self.config, image: &self.image, shard: self.id, now }
    }

    /// True when this broker answers for partitions of its node's other shards.
    pub(crate) fn serves_foreign(&self) -> bool {
        self.config.mode == ListenerMode::Single
    }

    /// The broker a client should turn to for a partition.
    pub(crate) fn leader_hint(&self, topic_id: TopicId, partition: i32) -> Option<LeaderHint> {
        let key = PartitionKey { topic_id, partition };
        let replica = self.image.leader(key)?;
        let shard = if self.serves_foreign() { ShardId(0) } else { replica.shard };
        let (host, port) = match self.cluster {
            Some(_) => client_address(&self.image, Replica { node: replica.node, shard })?,
            None => {
                let port = i32::from(self.config.advertised_port) + i32::from(shard.0);
                (&self.config.advertised_host[..], port)
            }
        };
        Some(LeaderHint {
            index: 0,
            leader_id: BrokerId::of(replica.node, shard).0,
            leader_epoch: self.image.leader_epoch(key).map_or(-1, |epoch| epoch.0),
            host: host.to_string(),
            port,
        })
    }
}
