//! Topic patterns of members (KIP-848's SubscribedTopicRegex): RE2 syntax, matched against whole names, in linear time and
//! bounded memory. A pattern is resolved when a member brings it, later again when topics change (Kafka does the same
//! in the background).

use std::collections::{BTreeMap, BTreeSet};

use pelton_wire::error_code::ErrorCode;
use regex::{Regex, RegexBuilder};

use crate::records::RegexValue;
use crate::topics::TopicsView;

use super::draft::Draft;
use super::request::Refusal;

/// Patterns are resolved again at most this often, milliseconds (Kafka's REGEX_BATCH_REFRESH_MIN_INTERVAL_MS).
const REFRESH_MIN_INTERVAL_MS: u64 = 10_000;

/// What resolving needs.
#[derive(Clone, Copy)]
pub(crate) struct Resolver<'a> {
    pub topics: &'a dyn TopicsView,
    /// Milliseconds since 1970.
    pub now_ms: i64,
    /// Memory of one compiled pattern, bytes.
    pub bytes_max: usize,
    /// Patterns are resolved again at least this often, milliseconds.
    pub refresh_interval_ms: i64,
}

/// A pattern that matches whole names; refused if it cannot be read or takes more memory than allowed.
pub(crate) fn compile(pattern: &str, bytes_max: usize) -> Result<Regex, Refusal> {
    let build =
        |pattern: &str| RegexBuilder::new(pattern).size_limit(bytes_max).dfa_size_limit(bytes_max).build();
    let refuse = |error: regex::Error| {
        let message = format!("SubscribedTopicRegex `{pattern}` is not a valid regular expression: {error}.");
        Refusal::new(ErrorCode::InvalidRegularExpression, message)
    };
    // Alone first: `a)(b` would be fine between the parentheses below.
    build(pattern).map_err(refuse)?;
    build(&format!(r"\A(?:{pattern})\z")).map_err(refuse)
}

impl Resolver<'_> {
    /// The topics that match each pattern. One that cannot be read (any more) matches nothing.
    pub fn resolve(&self, patterns: &BTreeSet<&str>) -> BTreeMap<String, RegexValue> {
        let (version, timestamp_ms) = (self.topics.version() as i64, self.now_ms);
        let empty = || RegexValue { topics: BTreeSet::new(), version, timestamp_ms };
        let mut resolved: BTreeMap<String, RegexValue> =
            patterns.iter().map(|pattern| (pattern.to_string(), empty())).collect();
        let compiled: Vec<(&str, Regex)> = patterns
            .iter()
            .filter_map(|pattern| Some((*pattern, compile(pattern, self.bytes_max).ok()?)))
            .collect();
        self.topics.for_each_name(&mut |name| {
            for (pattern, regex) in &compiled {
                if regex.is_match(name)
                    && let Some(value) = resolved.get_mut(*pattern)
                {
                    value.topics.insert(name.to_string());
                }
            }
        });
        resolved
    }

    fn is_stale(&self, value: &RegexValue) -> bool {
        // The clock may have been set back.
        let age_ms = self.now_ms.abs_diff(value.timestamp_ms);
        age_ms > self.refresh_interval_ms.unsigned_abs()
            || (age_ms > REFRESH_MIN_INTERVAL_MS && value.version != self.topics.version() as i64)
    }

    /// A member went from one pattern to another. Refused if the new one cannot be read.
    pub fn change(&self, draft: &mut Draft<'_>, old: Option<&str>, new: Option<&str>) -> Result<(), Refusal> {
        if let Some(old) = old {
            forget_unused(draft, old);
        }
        let Some(new) = new else { return Ok(()) };
        if draft.group().regexes.contains_key(new) {
            return Ok(());
        }
        compile(new, self.bytes_max)?;
        for (pattern, value) in self.resolve(&BTreeSet::from([new])) {
            draft.set_regex(&pattern, Some(value));
        }
        Ok(())
    }

    /// Resolves all patterns of the group again if it is time. True if one of them now matches other topics.
    pub fn refresh(&self, draft: &mut Draft<'_>) -> bool {
        if !draft.group().regexes.values().any(|value| self.is_stale(value)) {
            return false;
        }
        let patterns: BTreeSet<String> = draft.group().regexes.keys().cloned().collect();
        let resolved = self.resolve(&patterns.iter().map(String::as_str).collect());
        let mut has_changed = false;
        for (pattern, value) in resolved {
            let old = draft.group().regexes.get(&pattern);
            has_changed |= old.is_none_or(|old| old.topics != value.topics);
            draft.set_regex(&pattern, Some(value));
        }
        has_changed
    }
}

/// Forgets a pattern that no member has any more.
pub(crate) fn forget_unused(draft: &mut Draft<'_>, pattern: &str) {
    let is_used = draft.group().counts.has_regex(pattern);
    if !is_used && draft.group().regexes.contains_key(pattern) {
        draft.set_regex(pattern, None);
    }
}
