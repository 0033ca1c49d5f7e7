//! What the headers of batches say beside their records: which leader appended them (partition leader epoch), and which producer sent
//! them. A leader's epochs and each replica's producers must say the same.

use std::collections::BTreeMap;

/// One leader's batches: they lie together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reign {
    pub epoch: i32,
    /// The first offset, and the one behind the last.
    pub start: i64,
    pub end: i64,
}

/// Of one log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stamps {
    pub reigns: Vec<Reign>,
    /// By producer id: epoch and last sequence number.
    pub producers: BTreeMap<i64, (i16, i32)>,
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

impl Stamps {
    /// Takes the next batch, which was found to be whole.
    pub fn add(&mut self, batch: &[u8]) {
        let i32_at = |at| field(batch, at).map_or(-1, i32::from_be_bytes);
        let i64_at = |at| field(batch, at).map_or(-1, i64::from_be_bytes);
        let (base, epoch, delta) = (i64_at(0), i32_at(12), i32_at(23));
        let end = base + i64::from(delta) + 1;
        match self.reigns.last_mut().filter(|last| last.epoch == epoch) {
            Some(last) => last.end = end,
            None => self.reigns.push(Reign { epoch, start: base, end }),
        }
        let (producer, sequence) = (i64_at(43), i32_at(53));
        if producer >= 0 {
            let producer_epoch = field(batch, 51).map_or(-1, i16::from_be_bytes);
            self.producers.insert(producer, (producer_epoch, sequence.wrapping_add(delta) & i32::MAX));
        }
    }

    /// What is wrong with the reigns by themselves.
    pub fn fault(&self) -> Option<String> {
        let falls = self.reigns.windows(2).find(|pair| pair[1].epoch <= pair[0].epoch);
        falls.map(|pair| format!("the batches of epoch {:?} come behind {:?}", pair[1], pair[0]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pelton_bench::batch;

    fn made(base: i64, epoch: i32, sequence: i32) -> Vec<u8> {
        let mut bytes = batch::build([&b"a"[..], &b"b"[..]].into_iter(), 0);
        batch::stamp_producer(&mut bytes, 7, 1, sequence);
        bytes[..8].copy_from_slice(&base.to_be_bytes());
        bytes[12..16].copy_from_slice(&epoch.to_be_bytes());
        bytes
    }

    #[test]
    fn leaders_and_producers_are_read_from_headers() {
        let mut stamps = Stamps::default();
        for (base, epoch, sequence) in [(0, 3, 0), (2, 3, 2), (4, 5, 4)] {
            stamps.add(&made(base, epoch, sequence));
        }
        let reigns = [Reign { epoch: 3, start: 0, end: 4 }, Reign { epoch: 5, start: 4, end: 6 }];
        assert_eq!((stamps.reigns.as_slice(), stamps.producers[&7]), (&reigns[..], (1, 5)));
        assert_eq!(stamps.fault(), None);
        stamps.add(&made(6, 4, 6));
        assert!(stamps.fault().unwrap().contains("epoch: 4"));
    }
}
