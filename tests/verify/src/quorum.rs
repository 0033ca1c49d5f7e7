//! Who leads the quorum of the metadata, by DescribeQuorum. (What Metadata names as the controller is any broker that passes requests
//! on, in Pelton the one that is asked, as in Kafka.)

use crate::connection::Connection;
use pelton_bench::Outcome;
use pelton_bench::flexible::{compact, put_compact, tags, uvarint};
use pelton_bench::frames::{self, Reader};
use std::time::Duration;

/// DescribeQuorum, the oldest version; its headers have tags.
const DESCRIBE_QUORUM: (i16, i16) = (55, 0);
const TOPIC: &str = "__cluster_metadata";
/// Longest wait for an answer.
const WAIT: Duration = Duration::from_millis(500);

fn request(id: i32) -> Vec<u8> {
    let mut out = frames::start(DESCRIBE_QUORUM, id);
    // Tags; one topic, its name; one partition, 0, tags; tags of the topic and of all.
    out.extend([0, 2]);
    put_compact(&mut out, TOPIC);
    out.extend([2, 0, 0, 0, 0, 0, 0, 0]);
    frames::finish(out)
}

/// The leader's broker id; none from one who does not know it.
fn answer(frame: &[u8]) -> Outcome<Option<i32>> {
    let mut reader = Reader::new(frame);
    reader.i32()?;
    tags(&mut reader)?;
    if reader.i16()? != 0 || uvarint(&mut reader)? != 2 {
        return Ok(None);
    }
    compact(&mut reader)?;
    uvarint(&mut reader)?;
    reader.i32()?;
    let error = reader.i16()?;
    let leader = reader.i32()?;
    Ok((error == 0 && leader >= 0).then_some(leader))
}

/// The broker id of whoever leads, as the first of these nodes that knows says.
pub fn leader(nodes: &[String]) -> Option<i32> {
    let ask = |node: &String| {
        let mut connection = Connection::open(node)?;
        answer(&connection.call(1, &request(1), WAIT)?)
    };
    nodes.iter().find_map(|node| ask(node).ok().flatten())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_leader_says_so_and_others_do_not() {
        let mut frame = vec![0, 0, 0, 1, 0, 0, 0, 2, TOPIC.len() as u8 + 1];
        frame.extend(TOPIC.as_bytes());
        frame.extend([2, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0]);
        assert_eq!(answer(&frame), Ok(Some(512)));
        let error = 9 + TOPIC.len() + 5;
        frame[error + 1] = 6;
        assert_eq!(answer(&frame), Ok(None));
        assert!(answer(&frame[..error]).is_err());
        assert_eq!(request(7)[4..8], [0, 55, 0, 0]);
    }
}
