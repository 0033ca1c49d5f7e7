//! Why the process ends with something else than 0: a message for people and an exit code for scripts (DESIGN section 8).
//! Never prints; `main` does.

use std::fmt;

/// Exit codes that scripts rely on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exit {
    /// The cluster answered with an error; for `start`: the broker could not start or stop.
    Error = 1,
    /// The command or a setting makes no sense.
    Usage = 2,
    /// No broker could be reached, or none answered in time.
    Unreachable = 3,
    /// The cluster is unhealthy.
    Unhealthy = 10,
    /// Data on disk is damaged.
    Corruption = 20,
    /// SIGINT, as shells count it.
    Interrupted = 130,
    /// SIGTERM, as shells count it.
    Terminated = 143,
}

/// An ending, with its cause and remedy in words.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    /// Cause and remedy; empty when everything has been said on the way.
    pub message: String,
}

impl Failure {
    /// Ends with [`Exit::Error`].
    pub fn error(message: impl fmt::Display) -> Failure {
        Failure { exit: Exit::Error, message: message.to_string() }
    }

    /// Ends with [`Exit::Usage`].
    pub fn usage(message: impl fmt::Display) -> Failure {
        Failure { exit: Exit::Usage, message: message.to_string() }
    }

    /// Ends with [`Exit::Unreachable`].
    pub fn unreachable(message: impl fmt::Display) -> Failure {
        Failure { exit: Exit::Unreachable, message: message.to_string() }
    }

    /// Ends with [`Exit::Corruption`].
    pub fn corruption(message: impl fmt::Display) -> Failure {
        Failure { exit: Exit::Corruption, message: message.to_string() }
    }

    /// Ends with `exit`; the rows that were printed say why.
    pub fn silent(exit: Exit) -> Failure {
        Failure { exit, message: String::new() }
    }
}
