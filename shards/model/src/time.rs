//! Time as the pure crates see it: handed in with every event, never asked for.

/// The instant of an event.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Now {
    /// Nanoseconds on a clock that never goes back; only differences mean anything.
    pub monotonic_ns: u64,
    /// Milliseconds since 1970, for timestamps in records; may jump.
    pub wall_ms: i64,
}

impl Now {
    /// The monotonic instant `timeout_ms` from now; negative timeouts count as 0.
    pub fn after_ms(self, timeout_ms: i64) -> u64 {
        self.monotonic_ns.saturating_add((timeout_ms.max(0) as u64).saturating_mul(1_000_000))
    }
}
