//! The flexible encoding of newer versions of requests (KIP-482): numbers as long as they need be, lengths plus one, tags. Only what the
//! frames here need; answers are read leniently, tags are skipped.

use crate::Outcome;
use crate::frames::Reader;

/// Appends an unsigned varint.
pub fn put_uvarint(out: &mut Vec<u8>, mut value: usize) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a compact string.
pub fn put_compact(out: &mut Vec<u8>, text: &str) {
    put_uvarint(out, text.len() + 1);
    out.extend_from_slice(text.as_bytes());
}

/// An unsigned varint. A frame that ends early, or a number of more than five bytes, is an error.
pub fn uvarint(reader: &mut Reader<'_>) -> Outcome<usize> {
    let mut value = 0;
    for shift in (0..35).step_by(7) {
        let byte = reader.take(1)?[0];
        value |= usize::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err("a number has too many bytes".into())
}

/// A compact string; null reads as empty, and what is not UTF-8 is replaced.
pub fn compact(reader: &mut Reader<'_>) -> Outcome<String> {
    let length = uvarint(reader)?.saturating_sub(1);
    Ok(String::from_utf8_lossy(reader.take(length)?).to_string())
}

/// Skips tags.
pub fn tags(reader: &mut Reader<'_>) -> Outcome<()> {
    for _ in 0..uvarint(reader)? {
        uvarint(reader)?;
        let length = uvarint(reader)?;
        reader.take(length)?;
    }
    Ok(())
}
