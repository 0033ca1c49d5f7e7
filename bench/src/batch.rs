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
    build_keyed(values.map(|value| (None, Some(value))), timestamp_ms)
}

fn put_bytes(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    put_varint(out, bytes.map_or(-1, |bytes| bytes.len() as i64));
    out.extend_from_slice(bytes.unwrap_or_default());
}

/// Key and value of a record.
pub type Pair<'a> = (Option<&'a [u8]>, Option<&'a [u8]>);

/// The same of records with keys and values, either of which may be null.
pub fn build_keyed<'a>(records: impl Iterator<Item = Pair<'a>>, timestamp_ms: i64) -> Vec<u8> {
    let mut out = vec![0; HEADER];
    let mut count = 0i32;
    let mut record = Vec::new();
    for (key, value) in records {
        record.clear();
        record.push(0);
        put_varint(&mut record, 0);
        put_varint(&mut record, i64::from(count));
        put_bytes(&mut record, key);
        put_bytes(&mut record, value);
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
    last_offset_delta: i32,
    bytes: &'a [u8],
}

/// A record: offset, key, value.
pub type Record<'a> = (i64, Option<&'a [u8]>, Option<&'a [u8]>);

/// Length in bytes of the batch at the start of `bytes`, if its length field is there.
pub fn length(bytes: &[u8]) -> Option<usize> {
    let field = bytes.get(8..12)?;
    let length = i32::from_be_bytes(field.try_into().expect("four bytes"));
    usize::try_from(length).ok().map(|length| length + 12)
}

/// Takes the first whole batch off `bytes`; `None` when only a part of one (or nothing) is left. Checks magic, CRC, counts.
pub fn take<'a>(bytes: &mut &'a [u8]) -> Outcome<Option<Batch<'a>>> {
    let Some(batch) = take_compacted(bytes)? else { return Ok(None) };
    if batch.count < 1 || batch.last_offset_delta != batch.count - 1 {
        return Err(format!(
            "batch at offset {}: {} records, last offset delta {}",
            batch.base_offset, batch.count, batch.last_offset_delta
        ));
    }
    Ok(Some(batch))
}

/// The same of a compacted topic, whose batches may have lost records.
pub fn take_compacted<'a>(bytes: &mut &'a [u8]) -> Outcome<Option<Batch<'a>>> {
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
    let (count, last_offset_delta) = (i32_at(57), i32_at(23));
    if count < 0 || last_offset_delta < count - 1 {
        return Err(format!(
            "batch at offset {base_offset}: {count} records, last offset delta {last_offset_delta}"
        ));
    }
    Ok(Some(Batch { base_offset, count, last_offset_delta, bytes: batch }))
}

impl<'a> Batch<'a> {
    /// Bytes of the batch, header included.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The offset of the last record the batch was made with.
    pub fn last_offset(&self) -> i64 {
        self.base_offset + i64::from(self.last_offset_delta)
    }

    /// The values of the records, in order; offsets must be dense.
    pub fn values(&self) -> Outcome<Vec<&'a [u8]>> {
        let mut values = Vec::with_capacity(self.count as usize);
        for (i, (offset, _, value)) in self.records()?.into_iter().enumerate() {
            if offset != self.base_offset + i as i64 {
                return Err(format!("batch at offset {}: record {i} has another offset", self.base_offset));
            }
            values.push(value.unwrap_or_default());
        }
        Ok(values)
    }

    /// The records, in order.
    pub fn records(&self) -> Outcome<Vec<Record<'a>>> {
        let mut pos = HEADER;
        let mut records = Vec::with_capacity(self.count as usize);
        for _ in 0..self.count {
            let length = varint(self.bytes, &mut pos)?;
            let end = pos + usize::try_from(length).map_err(|_| "a record of negative length")?;
            pos += 1;
            varint(self.bytes, &mut pos)?;
            let offset = self.base_offset + varint(self.bytes, &mut pos)?;
            let (key, value) = (self.field(&mut pos)?, self.field(&mut pos)?);
            records.push((offset, key, value));
            pos = end;
        }
        Ok(records)
    }

    fn field(&self, pos: &mut usize) -> Outcome<Option<&'a [u8]>> {
        let Ok(length) = usize::try_from(varint(self.bytes, pos)?) else { return Ok(None) };
        let end = pos.checked_add(length).ok_or("a field of a record is too long")?;
        let field = self.bytes.get(*pos..end).ok_or("a record ends inside its key or value")?;
        *pos = end;
        Ok(Some(field))
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
    fn keys_and_nulls_come_back() {
        let records: [Pair<'_>; 3] = [(Some(b"k"), Some(b"v")), (Some(b"gone"), None), (None, Some(b""))];
        let bytes = build_keyed(records.into_iter(), 5);
        let batch = take(&mut &bytes[..]).unwrap().unwrap();
        let found: Vec<_> =
            batch.records().unwrap().into_iter().map(|(_, key, value)| (key, value)).collect();
        assert_eq!((found, batch.last_offset()), (records.to_vec(), 2));
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
