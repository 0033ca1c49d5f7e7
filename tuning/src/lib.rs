//! What of the machine decides whether Pelton runs, and how fast: rules as data, read and judged. Reads only; it never
//! changes the machine, opens no socket, and never stops a start by itself.

pub mod disk;
mod judge;
pub mod read;
mod rules;

use std::path::Path;

pub use rules::RULES;

/// How a rule came out.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum State {
    /// As wanted.
    Ok,
    /// Worth knowing, changes nothing by itself.
    Info,
    /// Works, but slower or less safe than it could be.
    Warn,
    /// Pelton cannot run like this.
    Fatal,
    /// Could not be read.
    Unknown,
}

impl State {
    /// One word.
    pub fn name(self) -> &'static str {
        match self {
            State::Ok => "ok",
            State::Info => "info",
            State::Warn => "warn",
            State::Fatal => "fatal",
            State::Unknown => "unknown",
        }
    }
}

/// One rule: what is read, what is wanted, what to do about it.
pub struct Rule {
    /// Stable code, for scripts and documents: a letter for the area (K kernel, M memory, D disk, N network, C CPU,
    /// F files) and a number that is never used for something else.
    pub code: &'static str,
    /// What is looked at.
    pub what: &'static str,
    /// What is wanted, in words.
    pub want: &'static str,
    /// The command or setting that brings it about.
    pub fix: &'static str,
    /// Reads the current value; none if it cannot be read here.
    pub read: fn(&Machine<'_>) -> Option<String>,
    /// Judges the value that was read.
    pub judge: fn(&str) -> State,
}

/// Where to look: the root of the file system (another one in tests) and the data directory.
pub struct Machine<'a> {
    /// `/`, or a fake tree.
    pub root: &'a Path,
    /// Where the broker's data lies; it must exist for the disk rules to say anything.
    pub data_dir: &'a Path,
}

/// One row of the check.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// [`Rule::code`].
    pub code: &'static str,
    /// How it came out.
    pub state: State,
    /// [`Rule::what`].
    pub what: &'static str,
    /// The value that was read, or `?`.
    pub current: String,
    /// [`Rule::want`].
    pub want: &'static str,
    /// [`Rule::fix`].
    pub fix: &'static str,
}

/// Looks at every rule on this machine, for a broker with its data in `data_dir`. Takes milliseconds, changes nothing.
pub fn check(data_dir: &Path) -> Vec<Finding> {
    check_at(&Machine { root: Path::new("/"), data_dir })
}

/// As [`check`], for any tree.
pub fn check_at(machine: &Machine<'_>) -> Vec<Finding> {
    RULES.iter().map(|rule| finding(rule, machine)).collect()
}

fn finding(rule: &Rule, machine: &Machine<'_>) -> Finding {
    let current = (rule.read)(machine);
    let state = current.as_deref().map_or(State::Unknown, rule.judge);
    Finding {
        code: rule.code,
        state,
        what: rule.what,
        current: current.unwrap_or_else(|| "?".to_string()),
        want: rule.want,
        fix: rule.fix,
    }
}

#[cfg(test)]
mod tests;
