//! Keeps what goes wrong again and again from filling the log: the same words are written once a minute, others at once; of
//! strangers, who may say anything, one line a second.

const AGAIN_NS: u64 = 60_000_000_000;
const STRANGER_NS: u64 = 1_000_000_000;

/// The gate of one subject.
#[derive(Default, Debug)]
pub struct LogGate {
    last: Option<(u64, String)>,
    /// Between two lines, nanoseconds.
    gap_ns: u64,
    /// Lines held back since.
    held: u64,
}

impl LogGate {
    /// One for what strangers do.
    pub fn of_strangers() -> LogGate {
        LogGate { gap_ns: STRANGER_NS, ..LogGate::default() }
    }

    /// `text` if it is to be written now, with the number of lines held back before it.
    pub fn pass(&mut self, now_ns: u64, text: String) -> Option<String> {
        if let Some((at, last)) = &self.last
            && now_ns < at.saturating_add(if *last == text { AGAIN_NS } else { self.gap_ns })
        {
            self.held += 1;
            return None;
        }
        let held = std::mem::take(&mut self.held);
        self.last = Some((now_ns, text.clone()));
        Some(if held > 0 { format!("{text} (and {held} lines like it or others left out)") } else { text })
    }

    /// Whatever comes next is news.
    pub fn reset(&mut self) {
        self.last = None;
        self.held = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_is_said_once_a_minute_and_other_things_at_once() {
        let mut gate = LogGate::default();
        let mut pass = |now_s: u64, text: &str| gate.pass(now_s * 1_000_000_000, text.to_string());
        assert_eq!(pass(0, "a").as_deref(), Some("a"));
        assert_eq!(pass(1, "a"), None);
        assert_eq!(pass(59, "a"), None);
        assert_eq!(pass(60, "a").as_deref(), Some("a (and 2 lines like it or others left out)"));
        assert_eq!(pass(61, "b").as_deref(), Some("b"));
        assert_eq!(pass(62, "a").as_deref(), Some("a"));
        gate.reset();
        assert_eq!(gate.pass(0, "a".to_string()).as_deref(), Some("a"));
    }

    #[test]
    fn strangers_get_a_line_a_second() {
        let mut gate = LogGate::of_strangers();
        let lines = (0..10_000u64).filter_map(|ms| gate.pass(ms * 1_000_000, format!("line {ms}")));
        assert_eq!(lines.count(), 10);
    }
}
