//! What topics may be called: Kafka's Topic.java.

use pelton_model::limits::TOPIC_NAME_BYTES_MAX;

/// The topic of committed offsets and groups.
pub const OFFSETS_TOPIC: &str = "__consumer_offsets";
/// Kafka's internal topics: clients may read them and not produce to them.
const INTERNAL: &[&str] = &[OFFSETS_TOPIC, "__transaction_state", "__share_group_state"];

/// Whether the broker itself writes the topic.
pub fn is_internal(name: &str) -> bool {
    INTERNAL.contains(&name)
}

/// Whether `name` may be a topic's.
pub fn is_valid(name: &str) -> bool {
    check(name).is_ok()
}

/// Why `name` may not be a topic's, in Kafka's words.
pub fn check(name: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err("Topic name is invalid: the empty string is not allowed".to_string());
    }
    if name == "." || name == ".." {
        return Err("Topic name is invalid: '.' or '..' is not allowed".to_string());
    }
    if name.len() > TOPIC_NAME_BYTES_MAX {
        return Err(format!(
            "Topic name is invalid: the length of '{}…' is longer than the max allowed length {TOPIC_NAME_BYTES_MAX}",
            name.chars().take(40).collect::<String>()
        ));
    }
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if !name.chars().all(legal) {
        return Err(format!(
            "Topic name is invalid: '{}' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'",
            name.escape_debug()
        ));
    }
    Ok(())
}

/// Names that collide share this: '.' and '_' look the same in metric names.
pub fn collision_key(name: &str) -> String {
    name.replace('.', "_")
}

/// Another name may look like this one.
pub fn may_collide(name: &str) -> bool {
    name.contains(['.', '_'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kafkas_rules() {
        for good in ["a", "a.b-c_D9", &"x".repeat(249)] {
            assert!(is_valid(good), "{good}");
        }
        for bad in ["", ".", "..", "a b", "a/b", "ä", "a\n", &"x".repeat(250)] {
            assert!(!is_valid(bad), "{bad:?}");
        }
        assert_eq!(collision_key("a.b"), collision_key("a_b"));
    }
}
