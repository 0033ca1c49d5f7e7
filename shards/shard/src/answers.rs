//! Memory of small answers: they share blocks, so that most take no allocation of their own.

use bytes::{Bytes, BytesMut};

/// A block, bytes: what a single answer that is not sent may keep from being freed.
const BLOCK_BYTES: usize = 4096;
/// Answers up to this share a block, bytes.
const SHARED_BYTES_MAX: usize = 512;
/// What the scratch may keep of its memory, bytes.
const SCRATCH_BYTES_MAX: usize = 64 * 1024;

/// The memory of one shard.
#[derive(Default)]
pub struct Answers {
    scratch: Vec<u8>,
    /// Empty; its capacity is what is left of the block.
    block: BytesMut,
}

impl Answers {
    /// Where an answer is put together; [`Answers::keep`] takes it back.
    pub fn scratch(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.scratch)
    }

    /// The finished answer.
    pub fn keep(&mut self, mut written: Vec<u8>) -> Bytes {
        if written.len() > SHARED_BYTES_MAX {
            let kept = Bytes::copy_from_slice(&written);
            written.clear();
            written.shrink_to(SCRATCH_BYTES_MAX);
            self.scratch = written;
            return kept;
        }
        if self.block.capacity() < written.len() {
            self.block = BytesMut::with_capacity(BLOCK_BYTES);
        }
        self.block.extend_from_slice(&written);
        self.scratch = written;
        self.block.split().freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_stay_what_they_were() {
        let mut answers = Answers::default();
        let mut kept = Vec::new();
        for round in 0..300usize {
            let length = (round * 37) % 1000;
            let mut scratch = answers.scratch();
            scratch.clear();
            scratch.resize(length, round as u8);
            kept.push((length, round as u8, answers.keep(scratch)));
        }
        for (length, byte, bytes) in kept {
            assert_eq!(bytes, vec![byte; length]);
        }
    }
}
