//! A table of slots with generations: a name given out once is never mistaken for a later tenant of its slot.

/// Values by a 64-bit name (generation × 2^32 + index). Names are never 0.
pub struct Slab<T> {
    slots: Vec<(u32, Option<T>)>,
    free: Vec<u32>,
    live: usize,
}

impl<T> Default for Slab<T> {
    fn default() -> Slab<T> {
        Slab { slots: Vec::new(), free: Vec::new(), live: 0 }
    }
}

impl<T> Slab<T> {
    /// Number of values.
    pub fn len(&self) -> usize {
        self.live
    }

    /// Puts `value` in and names it.
    pub fn insert(&mut self, value: T) -> u64 {
        self.live += 1;
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push((0, None));
            (self.slots.len() - 1) as u32
        });
        let slot = &mut self.slots[index as usize];
        slot.0 = slot.0.wrapping_add(1).max(1);
        slot.1 = Some(value);
        (u64::from(slot.0) << 32) | u64::from(index)
    }

    fn slot(&mut self, name: u64) -> Option<&mut (u32, Option<T>)> {
        let slot = self.slots.get_mut((name & 0xffff_ffff) as usize)?;
        (slot.0 == (name >> 32) as u32).then_some(slot)
    }

    /// The value named, if it is still there.
    pub fn get_mut(&mut self, name: u64) -> Option<&mut T> {
        self.slot(name)?.1.as_mut()
    }

    /// Takes the value named out; its name is void from here on.
    pub fn remove(&mut self, name: u64) -> Option<T> {
        let value = self.slot(name)?.1.take()?;
        self.free.push((name & 0xffff_ffff) as u32);
        self.live -= 1;
        Some(value)
    }

    /// The names of all values, in slot order.
    pub fn names(&self) -> Vec<u64> {
        let live = self.slots.iter().enumerate().filter(|(_, slot)| slot.1.is_some());
        live.map(|(index, slot)| (u64::from(slot.0) << 32) | index as u64).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_does_not_reach_the_next_tenant() {
        let mut slab = Slab::default();
        let first = slab.insert("first");
        assert_eq!(slab.remove(first), Some("first"));
        let second = slab.insert("second");
        assert_eq!(first as u32, second as u32, "the slot is used again");
        assert_eq!(slab.get_mut(first), None);
        assert_eq!(slab.remove(first), None);
        assert_eq!((slab.get_mut(second).copied(), slab.len()), (Some("second"), 1));
        assert_eq!(slab.names(), vec![second]);
    }
}
