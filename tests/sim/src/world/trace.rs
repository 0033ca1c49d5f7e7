//! Events and effects as lines of a trace.

use pelton_log::disk::DiskEffect;
use pelton_shard::Event;
use pelton_wire::crc::crc32c;

pub fn describe(event: &Event) -> String {
    match event {
        Event::Accepted { connection, .. } => format!("accepted {}", connection.0),
        Event::Received { connection, bytes } => {
            format!("received {} {} {:08x}", connection.0, bytes.len(), crc32c(bytes))
        }
        Event::Sent { connection, bytes } => format!("sent {} {bytes}", connection.0),
        Event::Closed { connection } => format!("closed {}", connection.0),
        Event::Disk(done) => match &done.result {
            Ok(bytes) => format!("disk {} ok {}", done.ticket.0, bytes.len()),
            Err(error) => format!("disk {} {}", done.ticket.0, error.text),
        },
        Event::FromShard { from, .. } => format!("from shard {}", from.0),
        Event::PeerFrame { from, bytes } => format!("peer {from} {} {:08x}", bytes.len(), crc32c(bytes)),
        Event::PeerGone { peer } => format!("peer {peer} gone"),
        Event::MemberFrame { bytes, .. } => format!("member {} {:08x}", bytes.len(), crc32c(bytes)),
        Event::Tick => "tick".to_string(),
        Event::Volume { .. } => "volume".to_string(),
        Event::Stop => "stop".to_string(),
    }
}

pub fn describe_disk(effect: &DiskEffect) -> String {
    match effect {
        DiskEffect::JournalWrite { ticket, position, bytes, sync } => {
            format!("journal {} at {position} {} {sync} {:08x}", ticket.0, bytes.len(), crc32c(bytes))
        }
        DiskEffect::SegmentWrite { ticket, file, position, bytes } => format!(
            "segment {} {}/{}.{:x} at {position} {} {:08x}",
            ticket.0,
            file.partition,
            file.base_offset.0,
            file.generation,
            bytes.len(),
            crc32c(bytes)
        ),
        DiskEffect::FileDelete { ticket, file } => {
            let (base_offset, generation) = (file.base_offset.0, file.generation);
            format!("delete {} {}/{base_offset}.{generation:x} {:?}", ticket.0, file.partition, file.kind)
        }
        other => format!("{other:?}").chars().take(120).collect(),
    }
}
