//! Log lines: one line each on stderr, UTC, written by a thread of its own so that a slow terminal never stops a shard.
//! Never on a hot path; when the queue is full, lines are dropped and the number of them is told later.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use crossbeam::channel::{Sender, bounded};
use pelton_shard::LogLevel;

/// Lines waiting for the writer.
const QUEUE_LINES: usize = 4096;

enum Line {
    Text(u64, LogLevel, String),
    Flush(Sender<()>),
}

/// A handle to the log; clones write to the same one.
#[derive(Clone)]
pub struct Logger {
    queue: Sender<Line>,
    dropped: Arc<AtomicU64>,
}

/// Starts the writer thread.
pub fn log_to_stderr() -> Logger {
    let (queue, lines) = bounded::<Line>(QUEUE_LINES);
    let dropped = Arc::new(AtomicU64::new(0));
    let lost = dropped.clone();
    let write = move || {
        for line in lines {
            match line {
                Line::Text(time_ms, level, text) => {
                    let lost = lost.swap(0, Ordering::Relaxed);
                    if lost > 0 {
                        let _ = writeln!(std::io::stderr(), "{} WARN {lost} log lines dropped", utc(time_ms));
                    }
                    let _ = writeln!(std::io::stderr(), "{} {} {text}", utc(time_ms), name(level));
                }
                Line::Flush(done) => drop(done),
            }
        }
    };
    // Without a writer, lines are dropped; a broker that serves is better than none.
    let _ = std::thread::Builder::new().name("pelton-log".to_string()).spawn(write);
    Logger { queue, dropped }
}

impl Logger {
    /// Queues one line; newlines inside become spaces.
    pub fn write(&self, level: LogLevel, text: impl Into<String>) {
        let time_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64);
        let text = text.into().replace('\n', " ");
        if self.queue.try_send(Line::Text(time_ms, level, text)).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until everything queued so far is written.
    pub fn flush(&self) {
        let (done, wait) = bounded::<()>(0);
        if self.queue.send(Line::Flush(done)).is_ok() {
            let _ = wait.recv();
        }
    }
}

fn name(level: LogLevel) -> &'static str {
    match level {
        LogLevel::Info => "INFO",
        LogLevel::Warn => "WARN",
        LogLevel::Error => "ERROR",
    }
}

/// Milliseconds since 1970 as `2026-11-23T12:00:00.000Z` (days to date after Howard Hinnant's civil_from_days).
fn utc(time_ms: u64) -> String {
    let (seconds, ms) = (time_ms / 1000, time_ms % 1000);
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_shifted + 2) / 5 + 1;
    let month = if month_shifted < 10 { month_shifted + 3 } else { month_shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
}

#[cfg(test)]
mod tests {
    use super::utc;

    #[test]
    fn dates_are_right_across_leap_days() {
        assert_eq!(utc(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(utc(951_782_400_000), "2000-02-29T00:00:00.000Z");
        assert_eq!(utc(1_709_251_199_999), "2024-02-29T23:59:59.999Z");
        assert_eq!(utc(1_735_689_600_000), "2025-01-01T00:00:00.000Z");
    }
}
