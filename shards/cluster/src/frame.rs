//! What all frames between nodes have: a magic number and a version in front, a checksum behind, and a longest length.

use bytes::Bytes;
use pelton_wire::crc::crc32c;

use crate::codec::{In, Malformed, Out};

/// No frame is longer, bytes; what a transport reserves for one.
pub const FRAME_BYTES_MAX: usize = 1024 * 1024;

/// Begins a frame.
pub fn begin(magic: u32, version: u8) -> Out {
    let mut out = Out(Vec::with_capacity(96));
    out.u32(magic);
    out.u8(version);
    out
}

/// Ends it.
pub fn finish(mut out: Out) -> Bytes {
    let crc = crc32c(&out.0);
    out.u32(crc);
    Bytes::from(out.0)
}

/// Reads what is between. Nothing of it is believed before the checksum is.
pub fn open(frame: &[u8], magic: u32, version: u8) -> Result<In<'_>, Malformed> {
    if frame.len() > FRAME_BYTES_MAX {
        return Err(Malformed);
    }
    let (body, crc) = frame.split_last_chunk::<4>().ok_or(Malformed)?;
    if crc32c(body) != u32::from_le_bytes(*crc) {
        return Err(Malformed);
    }
    let mut from = In(body);
    if from.u32()? != magic || from.u8()? != version {
        return Err(Malformed);
    }
    Ok(from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_opened_as_what_it_is_and_nothing_else() {
        let mut out = begin(7, 1);
        out.u64(5);
        let frame = finish(out);
        assert_eq!(open(&frame, 7, 1).and_then(|mut from| from.u64()), Ok(5));
        assert!(open(&frame, 8, 1).is_err() && open(&frame, 7, 2).is_err());
        assert!(open(&frame[..frame.len() - 1], 7, 1).is_err() && open(&frame[..3], 7, 1).is_err());
        let long = finish(Out(vec![0; FRAME_BYTES_MAX]));
        assert!(open(&long, 0, 0).is_err());
    }
}
