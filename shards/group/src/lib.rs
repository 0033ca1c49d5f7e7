//! Consumer groups. So far only where a group's coordinator is; the groups themselves come with their own issue. No I/O.
#![forbid(unsafe_code)]

use pelton_wire::hash::java_string_hash;

/// The partition of `__consumer_offsets` that a group's offsets belong to, and with it the group's coordinator
/// (Kafka's `Utils.abs(groupId.hashCode) % partitions`).
pub fn coordinator_partition(group_id: &str, partitions: i32) -> i32 {
    (java_string_hash(group_id) & 0x7fff_ffff) % partitions.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_kafka() {
        assert_eq!(coordinator_partition("hello", 50), 99162322 % 50);
        assert_eq!(coordinator_partition("", 50), 0);
        assert!((0..50).contains(&coordinator_partition("a group whose hash is negative", 50)));
    }
}
