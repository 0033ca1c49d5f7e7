//! The size of the volume that holds the data, and what is left of it: looked at while there is other work, at most every few
//! seconds. A shard that sleeps is not woken for it.

use std::os::fd::RawFd;

use pelton_shard::Event;

/// Between two looks, nanoseconds.
const LOOK_NS: u64 = 5_000_000_000;

/// When it was last looked at.
#[derive(Default)]
pub struct Volume {
    looked_ns: Option<u64>,
}

impl Volume {
    /// What there is to tell, if it is time: `directory` lies on the volume.
    pub fn look(&mut self, directory: RawFd, now_ns: u64) -> Option<Event> {
        if self.looked_ns.is_some_and(|at| now_ns < at.saturating_add(LOOK_NS)) {
            return None;
        }
        self.looked_ns = Some(now_ns);
        let mut stat = std::mem::MaybeUninit::<libc::statvfs>::zeroed();
        // SAFETY: the descriptor is open as long as the files are, and the structure is large enough for the answer.
        let done = unsafe { libc::fstatvfs(directory, stat.as_mut_ptr()) };
        // SAFETY: zeroed is a valid statvfs, and a successful call has filled it.
        let stat = (done == 0).then(|| unsafe { stat.assume_init() })?;
        let bytes = |blocks: u64| i64::try_from(blocks.saturating_mul(stat.f_frsize)).unwrap_or(i64::MAX);
        Some(Event::Volume { total_bytes: bytes(stat.f_blocks), usable_bytes: bytes(stat.f_bavail) })
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn it_is_looked_at_now_and_then() {
        let directory = std::fs::File::open("/").unwrap();
        let mut volume = Volume::default();
        let Some(Event::Volume { total_bytes, usable_bytes }) = volume.look(directory.as_raw_fd(), 7) else {
            panic!("nothing to tell");
        };
        assert!(total_bytes >= usable_bytes && usable_bytes >= 0, "{usable_bytes} of {total_bytes}");
        assert!(volume.look(directory.as_raw_fd(), LOOK_NS).is_none());
        assert!(volume.look(directory.as_raw_fd(), LOOK_NS + 7).is_some());
        assert!(Volume::default().look(-1, 7).is_none(), "no volume");
    }
}
