//! A Fetch answer read as it comes, piece by piece, without ever being in memory whole: parts and batches as they complete,
//! every batch's CRC computed on the way. Knows nothing about offsets asked for.

use crate::{Outcome, batch};
use crc_fast::{CrcAlgorithm, Digest};

/// Largest answer that is believed, bytes.
const FRAME_MAX: usize = 64 << 20;
/// Largest stretch between records that is believed, bytes.
const HEAD_MAX: usize = 1 << 20;

/// A partition's place in the answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Part {
    pub partition: i32,
    pub error: i16,
}

/// What a piece completed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Seen {
    /// The correlation id.
    Id(i32),
    /// A partition begins.
    Part(Part),
    /// A whole batch with a valid CRC.
    Batch { partition: i32, base_offset: i64, count: i32, bytes: usize },
    /// The answer is complete.
    End,
}

#[derive(Default)]
enum State {
    /// The length field.
    #[default]
    Size,
    /// Correlation id, throttle time, number of topics.
    Top,
    /// A topic's name and number of partitions.
    Topic,
    /// A partition up to its records.
    Part,
    /// Between batches.
    Batch,
    /// Inside a batch.
    Body { left: usize, bytes: usize, digest: Box<Digest> },
    /// A part of a batch at the end of a partition's records.
    Cut,
}

/// What a step led to.
enum Step {
    /// The next state.
    On,
    /// The piece is used up.
    Out,
    See(Seen),
}

/// The reading of answers of one connection, Fetch version 4.
#[derive(Default)]
pub struct Answer {
    state: State,
    head: Vec<u8>,
    /// Bytes of the answer, of its topics, partitions and records still to come.
    left: usize,
    topics: i32,
    parts: i32,
    records: usize,
    partition: i32,
    /// Everything was read; to be told.
    ended: bool,
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("the range has that length")
}

fn i32_at(bytes: &[u8], at: usize) -> i32 {
    i32::from_be_bytes(number(bytes, at))
}

impl Answer {
    /// Moves bytes from `rest` until the head has `count` of them; false when `rest` was too short for that.
    fn gather(&mut self, rest: &mut &[u8], count: usize) -> Outcome<bool> {
        let missing = count.saturating_sub(self.head.len());
        if missing > self.left || count > HEAD_MAX {
            return Err("a Fetch answer ends early, or claims an absurd length".into());
        }
        let (taken, others) = rest.split_at(missing.min(rest.len()));
        self.head.extend_from_slice(taken);
        self.left -= taken.len();
        *rest = others;
        Ok(self.head.len() >= count)
    }

    fn begin(&mut self, state: State) {
        self.head.clear();
        self.state = state;
    }

    /// The state after a partition's records.
    fn next_part(&mut self) {
        self.parts -= 1;
        self.begin(if self.parts > 0 {
            State::Part
        } else if self.topics > 0 {
            State::Topic
        } else {
            State::Size
        });
    }

    /// The next thing that `rest` completes; none when it is used up.
    pub fn next(&mut self, rest: &mut &[u8]) -> Outcome<Option<Seen>> {
        loop {
            let step = match self.state {
                State::Size | State::Top | State::Topic | State::Part => self.step_head(rest)?,
                State::Batch | State::Body { .. } | State::Cut => self.step_records(rest)?,
            };
            match step {
                Step::On => {}
                Step::Out => return Ok(None),
                Step::See(seen) => return Ok(Some(seen)),
            }
        }
    }

    fn step_head(&mut self, rest: &mut &[u8]) -> Outcome<Step> {
        match self.state {
            State::Size => {
                if std::mem::take(&mut self.ended) {
                    return Ok(Step::See(Seen::End));
                }
                self.left = 4 - self.head.len().min(4);
                if !self.gather(rest, 4)? {
                    return Ok(Step::Out);
                }
                self.left = i32_at(&self.head, 0) as usize;
                if self.left > FRAME_MAX {
                    return Err(format!("a Fetch answer of {} bytes", self.left));
                }
                self.begin(State::Top);
            }
            State::Top => {
                if !self.gather(rest, 12)? {
                    return Ok(Step::Out);
                }
                let id = i32_at(&self.head, 0);
                self.topics = i32_at(&self.head, 8);
                let empty = self.topics <= 0;
                self.begin(if empty { State::Size } else { State::Topic });
                self.end_if(empty)?;
                return Ok(Step::See(Seen::Id(id)));
            }
            State::Topic => {
                if !self.gather(rest, 2)? {
                    return Ok(Step::Out);
                }
                let name = u16::from_be_bytes(number(&self.head, 0)) as usize;
                if !self.gather(rest, 2 + name + 4)? {
                    return Ok(Step::Out);
                }
                self.topics -= 1;
                self.parts = i32_at(&self.head, 2 + name).clamp(0, 1_000_000) + 1;
                self.next_part();
                self.end_if(matches!(self.state, State::Size))?;
            }
            _ => return self.step_part(rest),
        }
        Ok(Step::On)
    }

    fn step_part(&mut self, rest: &mut &[u8]) -> Outcome<Step> {
        if !self.gather(rest, 26)? {
            return Ok(Step::Out);
        }
        let aborted = i32_at(&self.head, 22).max(0) as usize;
        let length_at = 26 + aborted.min(HEAD_MAX) * 16;
        if !self.gather(rest, length_at + 4)? {
            return Ok(Step::Out);
        }
        self.partition = i32_at(&self.head, 0);
        let error = i16::from_be_bytes(number(&self.head, 4));
        self.records = i32_at(&self.head, length_at).max(0) as usize;
        if self.records > self.left {
            return Err("a Fetch answer claims more records than it has bytes".into());
        }
        let part = Part { partition: self.partition, error };
        self.begin(State::Batch);
        Ok(Step::See(Seen::Part(part)))
    }

    fn step_records(&mut self, rest: &mut &[u8]) -> Outcome<Step> {
        match &mut self.state {
            State::Body { left, bytes, digest } => {
                let (taken, others) = rest.split_at((*left).min(rest.len()));
                digest.update(taken);
                *left -= taken.len();
                self.left -= taken.len();
                *rest = others;
                if *left > 0 {
                    return Ok(Step::Out);
                }
                let (bytes, crc) = (*bytes, digest.finalize() as u32);
                let seen = self.judge(bytes, crc)?;
                self.begin(State::Batch);
                return Ok(Step::See(seen));
            }
            State::Cut => {
                let skipped = self.records.min(rest.len());
                *rest = &rest[skipped..];
                self.records -= skipped;
                self.left -= skipped;
                if self.records > 0 {
                    return Ok(Step::Out);
                }
                self.begin(State::Batch);
            }
            _ if self.records == 0 => {
                self.next_part();
                self.end_if(matches!(self.state, State::Size))?;
            }
            _ => return self.step_batch(rest),
        }
        Ok(Step::On)
    }

    /// The header of a batch, or what is left of one that was cut off.
    fn step_batch(&mut self, rest: &mut &[u8]) -> Outcome<Step> {
        let wanted = batch::HEADER.min(self.records);
        if !self.gather(rest, wanted)? {
            return Ok(Step::Out);
        }
        let length = batch::length(&self.head).unwrap_or(usize::MAX);
        if wanted < batch::HEADER || length > self.records {
            self.records -= wanted;
            self.begin(State::Cut);
            return Ok(Step::On);
        }
        if length < batch::HEADER || self.head[16] != 2 {
            return Err(format!("a batch of {length} bytes with magic {}", self.head[16]));
        }
        let mut digest = Box::new(Digest::new(CrcAlgorithm::Crc32Iscsi));
        digest.update(&self.head[21..]);
        self.records -= length;
        // The head is kept: it is judged with the body.
        self.state = State::Body { left: length - batch::HEADER, bytes: length, digest };
        Ok(Step::On)
    }

    /// With the last topic the answer must end, which is told next.
    fn end_if(&mut self, last: bool) -> Outcome<()> {
        if last {
            if self.left > 0 {
                return Err(format!("a Fetch answer has {} bytes too many", self.left));
            }
            self.ended = true;
        }
        Ok(())
    }

    fn judge(&self, bytes: usize, crc: u32) -> Outcome<Seen> {
        let base_offset = i64::from_be_bytes(number(&self.head, 0));
        if crc != i32_at(&self.head, 17) as u32 {
            return Err(format!("batch at offset {base_offset}: CRC does not match its {bytes} bytes"));
        }
        let (count, last) = (i32_at(&self.head, 57), i32_at(&self.head, 23));
        if count < 1 || last != count - 1 {
            return Err(format!("batch at offset {base_offset}: {count} records, last offset delta {last}"));
        }
        Ok(Seen::Batch { partition: self.partition, base_offset, count, bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An answer about partitions 0 and 1: two batches and a part of one, and none.
    fn answer(batch: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        for number in [7i32, 0, 1] {
            out.extend_from_slice(&number.to_be_bytes());
        }
        out.extend_from_slice(&[0, 1, b't', 0, 0, 0, 2]);
        for (partition, records) in [(0i32, [batch, batch, &batch[..70]].concat()), (1, Vec::new())] {
            out.extend_from_slice(&partition.to_be_bytes());
            out.extend_from_slice(&[0; 18]);
            out.extend_from_slice(&(-1i32).to_be_bytes());
            out.extend_from_slice(&(records.len() as i32).to_be_bytes());
            out.extend_from_slice(&records);
        }
        [&(out.len() as i32).to_be_bytes(), &out[..]].concat()
    }

    fn read(bytes: &[u8], piece: usize) -> Outcome<Vec<Seen>> {
        let mut answer = Answer::default();
        let mut seen = Vec::new();
        for mut rest in bytes.chunks(piece) {
            while let Some(next) = answer.next(&mut rest)? {
                seen.push(next);
            }
        }
        Ok(seen)
    }

    #[test]
    fn answers_read_the_same_in_any_pieces_and_damage_is_seen() {
        let batch = batch::build([&b"value"[..], &[3; 100]].into_iter(), 0);
        let bytes = [answer(&batch), answer(&batch)].concat();
        let whole = Seen::Batch { partition: 0, base_offset: 0, count: 2, bytes: batch.len() };
        let part = |partition| Seen::Part(Part { partition, error: 0 });
        let one = [Seen::Id(7), part(0), whole, whole, part(1), Seen::End];
        for piece in [1, 2, 3, 61, 100, 1000] {
            assert_eq!(read(&bytes, piece).unwrap(), [one, one].concat(), "pieces of {piece}");
        }
        let mut damaged = bytes.clone();
        damaged[4 + 12 + 7 + 30 + 90] ^= 1;
        assert!(read(&damaged, 50).unwrap_err().contains("CRC"));
        damaged.clone_from(&bytes);
        damaged[3] -= 1;
        assert!(read(&damaged, 50).is_err());
    }
}
