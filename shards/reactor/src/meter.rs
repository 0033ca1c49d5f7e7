//! Counters of one shard: one writer, any reader, no locked instruction on the hot path.

use std::sync::atomic::{AtomicU64, Ordering};

/// A turn longer than this counts as a stall, nanoseconds (DESIGN section 3).
pub const STALL_NS: u64 = 5_000_000;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {
        /// A snapshot of one shard's counters since start.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Counters { $($(#[$doc])* pub $name: u64),+ }

        /// The live counters; aligned so that two shards never share a cache line. Only the shard's own thread writes.
        #[repr(align(128))]
        #[derive(Default)]
        pub struct Meter { $($(#[$doc])* pub $name: AtomicU64),+ }

        impl Meter {
            /// The counters as they are now; fields may be from slightly different instants.
            pub fn snapshot(&self) -> Counters {
                Counters { $($name: self.$name.load(Ordering::Relaxed)),+ }
            }
        }
    };
}

counters! {
    /// Turns of the loop.
    turns,
    /// Turns longer than 5 ms.
    stalls,
    /// The longest turn, nanoseconds.
    longest_turn_ns,
    /// Time spent in turns, nanoseconds.
    busy_ns,
    /// Times the shard went to sleep.
    parks,
    /// Connections accepted.
    connections_accepted,
    /// Connections open now.
    connections,
    /// Bytes received from clients.
    received_bytes,
    /// Deliveries of received bytes to the shard.
    receives,
    /// Receives that found no pooled buffer free.
    receive_buffer_misses,
    /// Bytes sent to clients.
    sent_bytes,
    /// Send and splice calls.
    sends,
    /// Bytes sent from files.
    sent_file_bytes,
    /// Journal writes completed.
    journal_writes,
    /// Bytes of them.
    journal_bytes,
    /// Segment writes completed.
    segment_writes,
    /// Bytes of them.
    segment_bytes,
    /// Disk operations that failed.
    disk_errors,
    /// Messages sent to other shards.
    messages_sent,
    /// Messages received from other shards.
    messages_received,
    /// Messages that found the ring to the other shard full and waited.
    messages_delayed,
    /// Until when it may answer for its node in a cluster, monotonic nanoseconds.
    lease_until_ns,
    /// Connections to and from shards of other nodes now, proven or not.
    peer_connections,
    /// Bytes received from other nodes.
    peer_received_bytes,
    /// Bytes sent to other nodes.
    peer_sent_bytes,
    /// Frames from other nodes.
    peer_frames_received,
    /// Frames for other nodes.
    peer_frames_sent,
    /// Frames for other nodes that were dropped: no connection, or too much waited.
    peer_frames_dropped,
}

/// Adds to a counter that only this thread writes.
pub fn add(counter: &AtomicU64, by: u64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(by), Ordering::Relaxed);
}

impl Meter {
    /// Accounts for a turn of `ns` nanoseconds.
    pub fn turn(&self, ns: u64) {
        add(&self.turns, 1);
        add(&self.busy_ns, ns);
        if ns > STALL_NS {
            add(&self.stalls, 1);
        }
        if ns > self.longest_turn_ns.load(Ordering::Relaxed) {
            self.longest_turn_ns.store(ns, Ordering::Relaxed);
        }
    }
}
