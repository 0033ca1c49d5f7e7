//! Record batches of Kafka's format v2: built for producing, taken apart and checked after fetching. Never compresses.

use crate::Outcome;

/// Bytes of a batch before its first record.
pub const HEADER: usize = 61;

/// CRC-32C as Kafka uses it.
pub fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, bytes) as u32
}

fn put_varint(out: &mut Vec<u8>, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)) as u64;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

fn varint(bytes: &[u8], pos: &mut usize) -> Outcome<i64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = *bytes.get(*pos).ok_or("a record ends inside a number")?;
        *pos += 1;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok((value >> 1) as i64 ^ -((value & 1) as i64));
        }
    }
    Err("a number of a record is too long".into())
}

/// Builds an uncompressed batch, base offset 0, no producer id, all records with time `timestamp_ms` and no key.
pub fn build<'a>(values: impl Iterator<Item = &'a [u8]>, timestamp_ms: i64) -> Vec<u8> {
    let mut out = vec![0; HEADER];
    let mut count = 0i32;
    let mut record = Vec::new();
    for value in values {
        record.clear();
        record.push(0);
        put_varint(&mut record, 0);
        put_varint(&mut record, i64::from(count));
        put_varint(&mut record, -1);
        put_varint(&mut record, value.len() as i64);
        record.extend_from_slice(value);
        put_varint(&mut record, 0);
        put_varint(&mut out, record.len() as i64);
        out.extend_from_slice(&record);
        count += 1;
    }
    let len = out.len();
    out[8..12].copy_from_slice(&((len - 12) as i32).to_be_bytes());
    out[12..16].copy_from_slice(&(-1i32).to_be_bytes());
    out[16] = 2;
    out[23..27].copy_from_slice(&(count - 1).to_be_bytes());
    out[27..35].copy_from_slice(&timestamp_ms.to_be_bytes());
    out[35..43].copy_from_slice(&timestamp_ms.to_be_bytes());
    out[43..51].copy_from_slice(&(-1i64).to_be_bytes());
    out[51..53].copy_from_slice(&(-1i16).to_be_bytes());
    out[53..57].copy_from_slice(&(-1i32).to_be_bytes());
    out[57..61].copy_from_slice(&count.to_be_bytes());
    let crc = crc32c(&out[21..]);
    out[17..21].copy_from_slice(&crc.to_be_bytes());
    out
}

/// Makes a built batch one of an idempotent producer (KIP-98).
pub fn stamp_producer(batch: &mut [u8], producer_id: i64, epoch: i16, base_sequence: i32) {
    batch[43..51].copy_from_slice(&producer_id.to_be_bytes());
    batch[51..53].copy_from_slice(&epoch.to_be_bytes());
    batch[53..57].copy_from_slice(&base_sequence.to_be_bytes());
    let crc = crc32c(&batch[21..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
}

/// One whole batch inside fetched bytes.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    pub base_offset: i64,
    /// Number of records, which for our own batches is also the number of offsets.
    pub count: i32,
    bytes: &'a [u8],
}

/// Length in bytes of the batch at the start of `bytes`, if its length field is there.
pub fn length(bytes: &[u8]) -> Option<usize> {
    let field = bytes.get(8..12)?;
    let length = i32::from_be_bytes(field.try_into().expect("four bytes"));
    usize::try_from(length).ok().map(|length| length + 12)
}

/// Takes the first whole batch off `bytes`; `None` when only a part of one (or nothing) is left. Checks magic, CRC, counts.
pub fn take<'a>(bytes: &mut &'a [u8]) -> Outcome<Option<Batch<'a>>> {
    let Some(length) = length(bytes) else { return Ok(None) };
    if length < HEADER {
        return Err(format!("a batch claims {length} bytes, less than its header"));
    }
    let Some(batch) = bytes.get(..length) else { return Ok(None) };
    *bytes = &bytes[length..];
    let i32_at = |i: usize| i32::from_be_bytes(batch[i..i + 4].try_into().expect("four bytes"));
    let base_offset = i64::from_be_bytes(batch[..8].try_into().expect("eight bytes"));
    if batch[16] != 2 {
        return Err(format!("batch at offset {base_offset}: magic {}", batch[16]));
    }
    if crc32c(&batch[21..]) != i32_at(17) as u32 {
        return Err(format!("batch at offset {base_offset}: CRC does not match its {length} bytes"));
    }
    let count = i32_at(57);
    if count < 1 || i32_at(23) != count - 1 {
        return Err(format!(
            "batch at offset {base_offset}: {count} records, last offset delta {}",
            i32_at(23)
        ));
    }
    Ok(Some(Batch { base_offset, count, bytes: batch }))
}

impl<'a> Batch<'a> {
    /// Bytes of the batch, header included.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The values of the records, in order.
    pub fn values(&self) -> Outcome<Vec<&'a [u8]>> {
        let mut pos = HEADER;
        let mut values = Vec::with_capacity(self.count as usize);
        for i in 0..self.count {
            let length = varint(self.bytes, &mut pos)?;
            let end = pos + usize::try_from(length).map_err(|_| "a record of negative length")?;
            pos += 1;
            varint(self.bytes, &mut pos)?;
            if varint(self.bytes, &mut pos)? != i64::from(i) {
                return Err(format!("batch at offset {}: record {i} has another offset", self.base_offset));
            }
            let key = varint(self.bytes, &mut pos)?;
            pos += key.max(0) as usize;
            let value = varint(self.bytes, &mut pos)?.max(0) as usize;
            values.push(self.bytes.get(pos..pos + value).ok_or("a record ends inside its value")?);
            pos = end;
        }
        Ok(values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip() {
        let values: Vec<Vec<u8>> = (0..300usize).map(|i| vec![i as u8; i]).collect();
        let bytes = build(values.iter().map(Vec::as_slice), 1_700_000_000_000);
        let mut rest = &bytes[..];
        let batch = take(&mut rest).unwrap().unwrap();
        assert_eq!((batch.count, rest.len()), (300, 0));
        assert_eq!(batch.values().unwrap(), values.iter().map(Vec::as_slice).collect::<Vec<_>>());
    }

    #[test]
    fn known_crc_and_damage() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        let mut bytes = build([&b"hello"[..]].into_iter(), 0);
        assert!(take(&mut &bytes[..bytes.len() - 1]).unwrap().is_none());
        *bytes.last_mut().unwrap() ^= 1;
        assert!(take(&mut &bytes[..]).unwrap_err().contains("CRC"));
    }
}
