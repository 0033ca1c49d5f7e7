//! File ranges to sockets from pieces in memory: what is there is sent like any bytes, what is not is waited for, and what
//! comes next is read meanwhile.

use bytes::Bytes;
use pelton_shard::SendPart;

use crate::context::Context;
use crate::meter;
use crate::pieces::{PIECE_BYTES, Pieces};
use crate::send::{Step, failed, transmit, wait_writable};
use crate::sockets::Connection;

/// Looked ahead within the answer under way.
const ANSWER_BYTES_MAX: u64 = 4 * PIECE_BYTES as u64;
/// Looked ahead behind each of its ranges: about what the next request will ask for.
const NEXT_BYTES_MAX: u64 = 2 * PIECE_BYTES as u64;
/// Pieces sent from at once.
const TAKEN_MAX: usize = 2;

/// Sends what there is of the file range at the front of the queue, or has the connection wait for it. A range keeps no
/// memory while its socket is full.
pub fn send_pieces(
    context: &mut Context,
    pieces: &mut Pieces,
    connection: &mut Connection,
    now_ns: u64,
) -> Step {
    look_ahead(pieces, connection, now_ns);
    let Some(SendPart::File { file, position, length, laid_to }) = connection.queue.front_mut() else {
        return Step::Broken(Some("no file range at the front".to_string()));
    };
    let (from, end) = (*position, *position + *length as u64);
    let mut at = from;
    let mut found: [Bytes; TAKEN_MAX] = Default::default();
    for place in &mut found {
        match pieces.take(*file, at, end, now_ns) {
            Some(bytes) if at < end => {
                at += bytes.len() as u64;
                *place = bytes;
            }
            _ => break,
        }
    }
    if at == from {
        pieces.want(*file, at, (end, *laid_to), connection.id, now_ns);
        connection.send_waits = true;
        connection.piece_waits = true;
        return Step::Waits;
    }
    let more = at < end || connection.queue.len() > 1;
    let sent = match transmit(context, &connection.socket, found.iter(), more) {
        Err(error) => return failed(context, connection, error),
        Ok(sent) => sent,
    };
    meter::add(&context.meter.sent_file_bytes, sent as u64);
    if let Some(SendPart::File { position, length, .. }) = connection.queue.front_mut() {
        *position += sent as u64;
        *length -= sent;
        if *length == 0 {
            connection.queue.pop_front();
        }
    }
    if (sent as u64) < at - from {
        wait_writable(context, connection);
    }
    Step::Sent(sent)
}

/// The rest of the answer first, then what the next one will be about.
fn look_ahead(pieces: &mut Pieces, connection: &Connection, now_ns: u64) {
    let mut left = ANSWER_BYTES_MAX;
    let ranges = || {
        connection.queue.iter().filter_map(|part| match part {
            SendPart::File { file, position, length, laid_to } => {
                Some((*file, *position, *position + *length as u64, *laid_to))
            }
            SendPart::Bytes(_) => None,
        })
    };
    for (file, position, end, laid_to) in ranges() {
        let end = end.min(position + left);
        pieces.look_ahead(file, (position, end), laid_to, false, now_ns);
        left -= end - position;
        if left == 0 {
            return;
        }
    }
    for (file, _, end, laid_to) in ranges() {
        pieces.look_ahead(file, (end, end + NEXT_BYTES_MAX), laid_to, true, now_ns);
    }
}
