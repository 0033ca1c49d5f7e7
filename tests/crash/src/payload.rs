//! Self-describing record values: from the bytes alone one can tell which batch of which producer they belong to, and
//! whether any bit changed. Never knows where a record landed.

/// Bytes before the filler: batch id, producer, index in the batch, length.
pub const HEADER: usize = 20;

fn mix(mut state: u64) -> u64 {
    state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^ (state >> 31)
}

/// Name of one record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Name {
    /// Number of the batch, rising per producer.
    pub batch: u64,
    pub producer: u32,
    /// Index of the record in its batch.
    pub index: u32,
}

/// The value of the record `name`, `length` bytes long (at least [`HEADER`]).
pub fn build(name: Name, length: usize) -> Vec<u8> {
    let length = length.max(HEADER);
    let mut value = Vec::with_capacity(length + 8);
    value.extend_from_slice(&name.batch.to_be_bytes());
    value.extend_from_slice(&name.producer.to_be_bytes());
    value.extend_from_slice(&name.index.to_be_bytes());
    value.extend_from_slice(&(length as u32).to_be_bytes());
    let mut state = mix(name.batch ^ u64::from(name.producer) << 40 ^ u64::from(name.index) << 20);
    while value.len() < length {
        state = mix(state.wrapping_add(0x9e37_79b9_7f4a_7c15));
        value.extend_from_slice(&state.to_le_bytes());
    }
    value.truncate(length);
    value
}

/// Whose value this is; `None` when its bytes are not exactly what [`build`] makes.
pub fn read(value: &[u8]) -> Option<Name> {
    let header = value.first_chunk::<HEADER>()?;
    let name = Name {
        batch: u64::from_be_bytes(header[..8].try_into().expect("eight bytes")),
        producer: u32::from_be_bytes(header[8..12].try_into().expect("four bytes")),
        index: u32::from_be_bytes(header[12..16].try_into().expect("four bytes")),
    };
    (build(name, value.len()) == value).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bit_counts() {
        let name = Name { batch: 77, producer: 3, index: 9 };
        let value = build(name, 60);
        assert_eq!(read(&value), Some(name));
        for bit in 0..value.len() * 8 {
            let mut broken = value.clone();
            broken[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(read(&broken), Some(name), "bit {bit}");
        }
        assert_eq!(read(&value[..59]), None);
    }
}
