//! InitProducerId (key 22, KIP-98, KIP-360): ids for idempotent producers. Ids are taken from a block that was put on
//! stable storage before the first of it is given out, so that none is given twice.

use pelton_cluster::record::MetadataRecord;
use pelton_wire::error_code::ErrorCode;
use pelton_wire::messages::{InitProducerIdRequestData, InitProducerIdResponseData};

use super::context::{ApiContext, Planned};

/// Ids per block.
const BLOCK: i64 = 1000;

/// What is left of the current block; on shard 0 only.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProducerIdBlock {
    next: i64,
    end: i64,
}

/// Gives out an id, or raises a producer's epoch.
pub fn handle(
    context: &ApiContext<'_>,
    block: &mut ProducerIdBlock,
    _version: i16,
    request: InitProducerIdRequestData,
) -> Planned<InitProducerIdResponseData> {
    let refuse = |error: ErrorCode| Planned {
        records: Vec::new(),
        response: InitProducerIdResponseData {
            error_code: error.code(),
            producer_id: -1,
            producer_epoch: -1,
            ..InitProducerIdResponseData::default()
        },
    };
    match &request.transactional_id {
        Some(id) if id.as_str().is_empty() => return refuse(ErrorCode::InvalidRequest),
        // Transactions come later. Clients take this error as final and show it; a retriable one would make them try
        // for ever.
        Some(_) => return refuse(ErrorCode::TransactionalIdAuthorizationFailed),
        None => {}
    }
    // A producer that lost a sequence asks for its next epoch; at the end of epochs it gets a new id (KIP-360).
    if request.producer_id >= 0 && (0..i16::MAX - 1).contains(&request.producer_epoch) {
        return given(Vec::new(), request.producer_id, request.producer_epoch + 1);
    }
    let mut records = Vec::new();
    // In a cluster the block may have come to nothing with the controller that took it.
    if block.next >= block.end || block.end > context.image.next_producer_id() {
        block.next = context.image.next_producer_id();
        block.end = block.next + BLOCK;
        records.push(MetadataRecord::ProducerIds { next: block.end });
    }
    block.next += 1;
    given(records, block.next - 1, 0)
}

fn given(
    records: Vec<MetadataRecord>,
    producer_id: i64,
    producer_epoch: i16,
) -> Planned<InitProducerIdResponseData> {
    let response = InitProducerIdResponseData { producer_id, producer_epoch, ..Default::default() };
    Planned { records, response }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pelton_cluster::image::MetadataImage;
    use pelton_model::{BrokerConfig, Now, ShardId};

    #[test]
    fn no_id_is_given_twice_even_across_a_restart() {
        let config = BrokerConfig::defaults();
        let mut image = MetadataImage::default();
        let mut ids = Vec::new();
        for _restart in 0..3 {
            let mut block = ProducerIdBlock::default();
            for _ in 0..1500 {
                let context =
                    ApiContext { config: &config, image: &image, shard: ShardId(0), now: Now::default() };
                let planned = handle(
                    &context,
                    &mut block,
                    4,
                    InitProducerIdRequestData {
                        producer_id: -1,
                        producer_epoch: -1,
                        ..InitProducerIdRequestData::default()
                    },
                );
                image.apply(image.applied_offset() + 1, &planned.records);
                assert_eq!((planned.response.error_code, planned.response.producer_epoch), (0, 0));
                ids.push(planned.response.producer_id);
            }
        }
        let count = ids.len();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), count);
    }
}
