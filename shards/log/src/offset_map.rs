//! The last offset of each key, in bounded memory, as compaction needs it: keys are kept as 128-bit hashes under a secret of
//! this life (Kafka's SkimpyOffsetMap, which takes MD5), so that no client can choose two keys that are taken for one.

/// Bytes an entry takes.
const ENTRY_BYTES: usize = 24;

/// A table of open addressing.
pub(crate) struct OffsetMap {
    /// Hash, and offset + 1; 0 = free.
    slots: Vec<[u64; 3]>,
    len: usize,
    secret: [u64; 2],
    /// The last offset it knows everything up to.
    pub latest: i64,
}

impl OffsetMap {
    /// For about `keys` keys, but of at most `bytes_max` bytes; one entry at least.
    pub fn new(keys: usize, bytes_max: usize, secret: [u64; 2]) -> OffsetMap {
        let wanted = keys.saturating_add(keys / 4).saturating_add(8);
        let slots = vec![[0; 3]; wanted.min(bytes_max / ENTRY_BYTES).max(2)];
        OffsetMap { slots, len: 0, secret, latest: -1 }
    }

    /// No further key fits: nine tenths are taken (`log.cleaner.io.buffer.load.factor`).
    pub fn is_full(&self) -> bool {
        self.len + 1 > (self.slots.len() * 9 / 10).max(1)
    }

    /// The key has a record at `offset`, later than all before. False if it does not fit.
    pub fn put(&mut self, key: &[u8], offset: i64) -> bool {
        let (place, hash, found) = self.find(key);
        if found.is_none() {
            if self.is_full() {
                return false;
            }
            self.len += 1;
        }
        self.slots[place] = [hash[0], hash[1], offset as u64 + 1];
        self.latest = offset;
        true
    }

    /// The last offset of the key.
    pub fn get(&self, key: &[u8]) -> Option<i64> {
        self.find(key).2
    }

    /// Where the key is or would be.
    fn find(&self, key: &[u8]) -> (usize, [u64; 2], Option<i64>) {
        let hash = siphash128(self.secret, key);
        let count = self.slots.len();
        let mut place = (hash[0] % count as u64) as usize;
        // Never full, so this ends.
        loop {
            let [first, second, offset] = self.slots[place];
            if offset == 0 {
                return (place, hash, None);
            }
            if [first, second] == hash {
                return (place, hash, Some(offset as i64 - 1));
            }
            place = (place + 1) % count;
        }
    }
}

impl std::fmt::Debug for OffsetMap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "OffsetMap({} of {}, up to {})", self.len, self.slots.len(), self.latest)
    }
}

/// SipHash-2-4 with 128 bits of output.
fn siphash128(secret: [u64; 2], bytes: &[u8]) -> [u64; 2] {
    let mut state = [
        secret[0] ^ 0x736f_6d65_7073_6575,
        secret[1] ^ 0x646f_7261_6e64_6f6d ^ 0xee,
        secret[0] ^ 0x6c79_6765_6e65_7261,
        secret[1] ^ 0x7465_6462_7974_6573,
    ];
    let mut words = bytes.chunks_exact(8);
    for word in &mut words {
        let mut value = [0; 8];
        value.copy_from_slice(word);
        absorb(&mut state, u64::from_le_bytes(value));
    }
    let mut last = [0; 8];
    last[..words.remainder().len()].copy_from_slice(words.remainder());
    last[7] = bytes.len() as u8;
    absorb(&mut state, u64::from_le_bytes(last));
    let mut finish = |mark: u64, at: usize| {
        state[at] ^= mark;
        (0..4).for_each(|_| round(&mut state));
        state.iter().fold(0, |all, part| all ^ part)
    };
    [finish(0xee, 2), finish(0xdd, 1)]
}

fn absorb(state: &mut [u64; 4], word: u64) {
    state[3] ^= word;
    round(state);
    round(state);
    state[0] ^= word;
}

fn round([a, b, c, d]: &mut [u64; 4]) {
    *a = a.wrapping_add(*b);
    *b = b.rotate_left(13) ^ *a;
    *a = a.rotate_left(32);
    *c = c.wrapping_add(*d);
    *d = d.rotate_left(16) ^ *c;
    *a = a.wrapping_add(*d);
    *d = d.rotate_left(21) ^ *a;
    *c = c.wrapping_add(*b);
    *b = b.rotate_left(17) ^ *c;
    *c = c.rotate_left(32);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first vectors of SipHash's authors: key 00 01 … 0f, input of 0 and 1 bytes.
    #[test]
    fn hashes_are_those_of_the_reference() {
        let secret = [0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908];
        let hash = |bytes: &[u8]| siphash128(secret, bytes).map(u64::to_le_bytes).concat();
        let none =
            [0xa3, 0x81, 0x7f, 0x04, 0xba, 0x25, 0xa8, 0xe6, 0x6d, 0xf6, 0x72, 0x14, 0xc7, 0x55, 0x02, 0x93];
        assert_eq!(hash(b""), none);
        let one =
            [0xda, 0x87, 0xc1, 0xd8, 0x6b, 0x99, 0xaf, 0x44, 0x34, 0x76, 0x59, 0x11, 0x9b, 0x22, 0xfc, 0x45];
        assert_eq!(hash(&[0]), one);
    }

    #[test]
    fn the_last_offset_counts_until_it_is_full() {
        let mut map = OffsetMap::new(100, 100 * ENTRY_BYTES, [1, 2]);
        for offset in 0..90 {
            assert!(map.put(&[offset as u8], offset), "{offset}");
        }
        assert!(map.is_full() && !map.put(&[200], 200));
        assert!(map.put(&[5], 95), "a key it has still moves");
        assert_eq!(
            (map.get(&[5]), map.get(&[6]), map.get(&[200]), map.latest),
            (Some(95), Some(6), None, 95)
        );
        let mut least = OffsetMap::new(0, 0, [1, 2]);
        assert!(least.put(b"a", 1) && !least.put(b"b", 2));
    }
}
