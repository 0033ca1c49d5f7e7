//! Requests that name partitions topic by topic and want one answer for each.

use bytes::Bytes;
use pelton_model::{Now, TopicId};
use pelton_wire::messages::KafkaString;
use uuid::Uuid;

use crate::Shard;
use crate::api::RequestContext;
use crate::api::partition::{PartitionAnswer, PartitionOp};
use crate::effect::Effect;

/// The topics of a request, and of each the partitions named with their answers.
pub type Named<'a> = Vec<(KafkaString, Vec<(i32, &'a PartitionAnswer)>)>;

impl Shard {
    /// Asks `op` of every partition named; `encode` makes the response of the answers, in the request's order.
    pub(crate) fn gather_named<P>(
        &mut self,
        now: Now,
        context: RequestContext,
        topics: impl IntoIterator<Item = (KafkaString, Vec<P>)>,
        op: impl Fn(TopicId, &P) -> PartitionOp,
        encode: fn(&RequestContext, Named<'_>) -> Bytes,
        out: &mut Vec<Effect>,
    ) {
        let mut asks = Vec::new();
        let mut named = Vec::new();
        for (name, partitions) in topics {
            // No topic has the nil id: partitions of one that is not there are answered like any that are not.
            let route = self.partitions.topic_by_name(name.as_str());
            let id = route.map_or(TopicId(Uuid::nil()), |route| route.id);
            let ops: Vec<PartitionOp> = partitions.iter().map(|partition| op(id, partition)).collect();
            named.push((name, ops.iter().map(|op| op.key().partition).collect::<Vec<i32>>()));
            asks.extend(ops);
        }
        let request = context.request;
        let shape = Box::new(move |answers: &[PartitionAnswer]| {
            let mut answers = answers.iter();
            let topics = named.into_iter();
            let topics =
                topics.map(|(name, indexes)| (name, indexes.into_iter().zip(answers.by_ref()).collect()));
            encode(&context, topics.collect())
        });
        self.gather(now, request, asks, shape, out);
    }
}
