//! Parts of states. Of equal ones a thread keeps one, with its digest: a state is a few pointers, however much it holds, and
//! what a step did not touch is not hashed again.

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::sync::Arc;

use crate::state::{Ack, Control, Node, Proposal, Rec};

#[derive(Clone, Debug)]
struct Held<T> {
    /// 0: not sealed.
    digest: u64,
    value: T,
}

/// A part.
#[derive(Debug)]
pub struct Part<T>(Arc<Held<T>>);

impl<T> Clone for Part<T> {
    fn clone(&self) -> Part<T> {
        Part(self.0.clone())
    }
}

impl<T> Deref for Part<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0.value
    }
}

impl<T: Eq> PartialEq for Part<T> {
    fn eq(&self, other: &Part<T>) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || (self.0.digest == other.0.digest && self.0.value == other.0.value)
    }
}
impl<T: Eq> Eq for Part<T> {}

impl<T: Hash> Hash for Part<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        debug_assert!(self.0.digest != 0, "not sealed");
        state.write_u64(self.0.digest);
    }
}

impl<T: Clone + Hash + Eq + Kept> Part<T> {
    /// To be sealed before it is compared or hashed.
    pub fn new(value: T) -> Part<T> {
        Part(Arc::new(Held { digest: 0, value }))
    }

    /// To change it; it must be sealed again.
    pub fn make_mut(&mut self) -> &mut T {
        let held = Arc::make_mut(&mut self.0);
        held.digest = 0;
        &mut held.value
    }

    /// It is as it shall be.
    pub fn seal(&mut self) {
        if self.0.digest != 0 {
            return;
        }
        let mut mixer = Mixer::default();
        self.0.value.hash(&mut mixer);
        let digest = mixer.finish().max(1);
        Arc::make_mut(&mut self.0).digest = digest;
        T::kept(|kept| {
            let known = kept.entry(digest).or_insert_with(|| self.clone());
            if *known == *self {
                *self = known.clone();
            }
        });
    }

    /// Once sealed.
    pub fn digest(&self) -> u64 {
        self.0.digest
    }

    /// The same, in memory too.
    pub fn is(&self, other: &Part<T>) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

const SEED: u64 = 0x9e37_79b9_7f4a_7c15;

/// Mixes by multiplication to 128 bits, whose halves fall on each other.
pub struct Mixer(u64);

impl Default for Mixer {
    fn default() -> Mixer {
        Mixer(SEED)
    }
}

impl Mixer {
    #[inline(always)]
    fn mix(&mut self, value: u64) {
        let product = u128::from(value ^ 0xa076_1d64_78bd_642f) * u128::from(self.0 ^ 0xe703_7ed1_a0b4_28db);
        self.0 = (product as u64) ^ (product >> 64) as u64 ^ value.rotate_left(32);
    }
}

impl Hasher for Mixer {
    fn finish(&self) -> u64 {
        let mut last = Mixer(self.0);
        last.mix(SEED);
        last.0
    }
    #[inline(always)]
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.mix(u64::from_le_bytes(word) ^ (chunk.len() as u64) << 60);
        }
    }
    #[inline(always)]
    fn write_u8(&mut self, value: u8) {
        self.mix(value.into());
    }
    #[inline(always)]
    fn write_u32(&mut self, value: u32) {
        self.mix(value.into());
    }
    #[inline(always)]
    fn write_u64(&mut self, value: u64) {
        self.mix(value);
    }
    #[inline(always)]
    fn write_usize(&mut self, value: usize) {
        self.mix(value as u64);
    }
}

/// Where a thread keeps parts of a kind, by digest.
pub trait Kept: Sized {
    /// Looks there.
    fn kept(look: impl FnOnce(&mut HashMap<u64, Part<Self>>));
}

macro_rules! kept {
    ($($kind:ty),*) => {$(
        impl Kept for $kind {
            fn kept(look: impl FnOnce(&mut HashMap<u64, Part<Self>>)) {
                thread_local! {
                    static KEPT: RefCell<HashMap<u64, Part<$kind>>> = RefCell::default();
                }
                KEPT.with_borrow_mut(look);
            }
        }
    )*};
}
kept!(Node, Control, Vec<Ack>, Vec<Proposal>, Vec<Rec>);
