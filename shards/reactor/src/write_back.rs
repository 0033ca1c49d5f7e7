//! When the kernel is told to begin with the way of cached bytes to the device. Told nothing, it leaves them all to the flush, and
//! one of 16 MiB at once holds a core for milliseconds (decision 36).

use std::ops::Range;

/// Bytes of groups that are worth a call.
const DUE_BYTES: u64 = 1024 * 1024;

/// Groups of the journal that went to the page cache and that the kernel was not told to write.
#[derive(Debug, Default)]
pub struct WriteBack {
    groups: Range<u64>,
}

impl WriteBack {
    /// A group is on its way to the page cache. Returns what those before it take up, when they are enough or this one does not
    /// follow them. Of that, whatever has not arrived in the page cache yet is left to the flush.
    pub fn add(&mut self, position: u64, bytes: usize) -> Option<Range<u64>> {
        let end = position + bytes as u64;
        if position == self.groups.end && self.groups.end - self.groups.start < DUE_BYTES {
            self.groups.end = end;
            return None;
        }
        let due = std::mem::replace(&mut self.groups, position..end);
        (!due.is_empty()).then_some(due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_due_together_each_once() {
        let mut groups = WriteBack::default();
        let (mut due, half) = (Vec::new(), DUE_BYTES as usize / 2);
        // Five groups one after the other, then the journal begins again at 0.
        for position in [7, 7 + half, 7 + 2 * half, 7 + 3 * half, 7 + 4 * half, 0, half] {
            due.extend(groups.add(position as u64, half));
        }
        let half = half as u64;
        assert_eq!(due, [7..7 + 2 * half, 7 + 2 * half..7 + 4 * half, 7 + 4 * half..7 + 5 * half]);
    }
}
