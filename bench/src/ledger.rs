//! What a load was promised: which offsets each partition acknowledged, dense and each once. Never holds payloads.

use crate::Outcome;

/// Acknowledged batches of one partition, all of the same number of records.
#[derive(Debug)]
pub struct Ledger {
    start: i64,
    records: i64,
    seen: Vec<u64>,
    acknowledged: u64,
}

impl Ledger {
    /// A partition whose next offset is `start` and which gets batches of `records`.
    pub fn new(start: i64, records: i64) -> Ledger {
        Ledger { start, records, seen: Vec::new(), acknowledged: 0 }
    }

    /// Notes that a batch was acknowledged at `base_offset`; an error when that cannot be or was said before.
    pub fn acknowledge(&mut self, base_offset: i64) -> Outcome<()> {
        let ahead = base_offset - self.start;
        if ahead < 0 || ahead % self.records != 0 {
            return Err(format!("offset {base_offset} is no place for a batch of {} records", self.records));
        }
        let slot = (ahead / self.records) as usize;
        if slot as u64 > self.acknowledged + 1_000_000 {
            return Err(format!(
                "offset {base_offset} is far ahead of {} acknowledged batches",
                self.acknowledged
            ));
        }
        if slot / 64 >= self.seen.len() {
            self.seen.resize(slot / 64 + 64, 0);
        }
        let bit = 1 << (slot % 64);
        if self.seen[slot / 64] & bit != 0 {
            return Err(format!("offset {base_offset} was acknowledged twice"));
        }
        self.seen[slot / 64] |= bit;
        self.acknowledged += 1;
        Ok(())
    }

    /// When nothing is in flight any more: every offset from the start on was acknowledged, without holes.
    pub fn dense(&self) -> Outcome<()> {
        let hole =
            (0..self.acknowledged).find(|slot| self.seen[*slot as usize / 64] & (1 << (slot % 64)) == 0);
        match hole {
            None => Ok(()),
            Some(slot) => Err(format!(
                "{} batches acknowledged, but none at offset {}",
                self.acknowledged,
                self.start + slot as i64 * self.records
            )),
        }
    }

    /// The offset after the last acknowledged batch (meaningful once [`Ledger::dense`] holds).
    pub fn end(&self) -> i64 {
        self.start + self.acknowledged as i64 * self.records
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn out_of_order_but_dense() {
        let mut ledger = Ledger::new(10, 5);
        for base in [20, 10, 15] {
            ledger.acknowledge(base).unwrap();
        }
        ledger.dense().unwrap();
        assert_eq!(ledger.end(), 25);
    }

    #[test]
    fn holes_doubles_and_strange_offsets() {
        let mut ledger = Ledger::new(10, 5);
        ledger.acknowledge(20).unwrap();
        assert!(ledger.dense().unwrap_err().contains("offset 10"));
        assert!(ledger.acknowledge(20).unwrap_err().contains("twice"));
        assert!(
            ledger.acknowledge(12).is_err()
                && ledger.acknowledge(5).is_err()
                && ledger.acknowledge(i64::MAX - 7).is_err()
        );
    }
}
