//! Positions in a partition as people write them: `start`, `end`, `47`, `-10`, `+5`, `@2024-01-15`, `@-1h`, and ranges of
//! two with a colon. Parses, and resolves against offsets handed in; asks nobody.

use crate::arguments::duration;

/// A position, relative to what is only known when it is used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Position {
    /// The first record there is.
    Start,
    /// Behind the last record.
    End,
    /// This offset.
    Offset(i64),
    /// So many records behind the first.
    FromStart(i64),
    /// So many records before the end.
    FromEnd(i64),
    /// The first record at or after a time, milliseconds since 1970.
    Time(i64),
}

/// From where to where; the end is not included.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Range {
    /// First.
    pub from: Position,
    /// Behind the last; none = no end.
    pub to: Option<Position>,
}

const WRONG: &str = "is no position; write start, end, 47, -10 (before the end), +10 (behind the start), @2024-01-15, \
                     @2024-01-15T10:00:00Z, @1705312800000, @-1h, or two of them with a colon between";

/// Reads a position. `now_ms` is what `@-1h` and `@now` count from.
pub fn position(text: &str, now_ms: i64) -> Result<Position, String> {
    let wrong = || format!("{text:?} {WRONG}");
    match text {
        "start" | "beginning" | "earliest" | "oldest" => return Ok(Position::Start),
        "end" | "latest" | "newest" => return Ok(Position::End),
        _ => {}
    }
    if let Some(time) = text.strip_prefix('@') {
        return time_ms(time, now_ms).map(Position::Time).ok_or_else(wrong);
    }
    let number = |digits: &str| -> Result<i64, String> {
        let only_digits = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        if only_digits { digits.parse().map_err(|_| wrong()) } else { Err(wrong()) }
    };
    match text.as_bytes().first() {
        Some(b'-') => number(&text[1..]).map(Position::FromEnd),
        Some(b'+') => number(&text[1..]).map(Position::FromStart),
        _ => number(text).map(Position::Offset),
    }
}

/// Reads a position or a range.
pub fn range(text: &str, now_ms: i64) -> Result<Range, String> {
    if let Ok(from) = position(text, now_ms) {
        return Ok(Range { from, to: None });
    }
    // Times of day have colons too: the split is the first that leaves a position on either side.
    for (at, _) in text.match_indices(':') {
        if let (Ok(from), Ok(to)) = (position(&text[..at], now_ms), position(&text[at + 1..], now_ms)) {
            return Ok(Range { from, to: Some(to) });
        }
    }
    Err(format!("{text:?} {WRONG}"))
}

/// Milliseconds since 1970 of what follows an `@`.
fn time_ms(text: &str, now_ms: i64) -> Option<i64> {
    if text == "now" {
        return Some(now_ms);
    }
    if let Some(ago) = text.strip_prefix('-').filter(|ago| ago.ends_with(|c: char| c.is_ascii_alphabetic())) {
        let ago_ms = i64::try_from(duration(ago).ok()?.as_millis()).ok()?;
        return now_ms.checked_sub(ago_ms);
    }
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        let number: i64 = text.parse().ok()?;
        // Ten digits are seconds until the year 2286; more are milliseconds.
        return if text.len() <= 10 { number.checked_mul(1000) } else { Some(number) };
    }
    iso_ms(text)
}

/// `2024-01-15`, `2024-01-15T10:00`, `…:00`, `….123`, each with or without `Z`; always UTC.
fn iso_ms(text: &str) -> Option<i64> {
    let text = text.strip_suffix('Z').unwrap_or(text);
    let (date, time) = text.split_once(['T', ' ']).unwrap_or((text, "00:00"));
    let digits = |part: &str, length: usize| -> Option<i64> {
        (part.len() == length && part.bytes().all(|byte| byte.is_ascii_digit())).then(|| part.parse().ok())?
    };
    let mut parts = date.split('-');
    let (year, month, day) =
        (digits(parts.next()?, 4)?, digits(parts.next()?, 2)?, digits(parts.next()?, 2)?);
    let mut clock = time.split(':');
    let (hour, minute) = (digits(clock.next()?, 2)?, digits(clock.next()?, 2)?);
    let seconds = clock.next().unwrap_or("00");
    let (second, fraction) = seconds.split_once('.').unwrap_or((seconds, "0"));
    let second = digits(second, 2)?;
    let fraction_ms = digits(fraction, fraction.len()).filter(|_| (1..=3).contains(&fraction.len()))?
        * 10i64.pow(3 - fraction.len() as u32);
    let in_range =
        (1..=12).contains(&month) && (1..=31).contains(&day) && hour < 24 && minute < 60 && second < 60;
    let over = parts.next().is_some() || clock.next().is_some();
    (in_range && !over)
        .then(|| ((days_since_1970(year, month, day) * 24 + hour) * 60 + minute) * 60 + second)
        .map(|seconds| seconds * 1000 + fraction_ms)
}

/// Days from 1970-01-01 to a date of the Gregorian calendar (Howard Hinnant's days_from_civil).
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// `2024-01-15T10:00:00.000Z`: a time as [`position`] reads it, milliseconds since 1970.
pub fn utc(time_ms: i64) -> String {
    let (days, of_day_ms) = (time_ms.div_euclid(86_400_000), time_ms.rem_euclid(86_400_000));
    // Howard Hinnant's civil_from_days.
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    let (hour, minute) = (of_day_ms / 3_600_000, of_day_ms / 60_000 % 60);
    let (second, milli) = (of_day_ms / 1000 % 60, of_day_ms % 1000);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z")
}

impl Position {
    /// The offset meant in a partition that holds `start..end`; none for a time, which only the broker can look up.
    /// Relative positions are kept inside; a given offset is taken as it is.
    pub fn resolve(self, start: i64, end: i64) -> Option<i64> {
        match self {
            Position::Start => Some(start),
            Position::End => Some(end),
            Position::Offset(offset) => Some(offset),
            Position::FromStart(count) => Some(start.saturating_add(count).min(end)),
            Position::FromEnd(count) => Some(end.saturating_sub(count).max(start)),
            Position::Time(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_705_312_800_000;

    #[test]
    fn every_form_is_read() {
        for (text, expected) in [
            ("start", Position::Start),
            ("end", Position::End),
            ("47", Position::Offset(47)),
            ("-10", Position::FromEnd(10)),
            ("+3", Position::FromStart(3)),
            ("@2024-01-15", Position::Time(1_705_276_800_000)),
            ("@2024-01-15T10:00:00Z", Position::Time(NOW)),
            ("@2024-01-15T10:00", Position::Time(NOW)),
            ("@2024-01-15T10:00:01.5", Position::Time(NOW + 1500)),
            ("@1705312800", Position::Time(NOW)),
            ("@1705312800000", Position::Time(NOW)),
            ("@-1h", Position::Time(NOW - 3_600_000)),
            ("@now", Position::Time(NOW)),
            ("@1970-01-01", Position::Time(0)),
            ("@2000-02-29", Position::Time(951_782_400_000)),
        ] {
            assert_eq!(position(text, NOW), Ok(expected), "{text}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "",
            "-",
            "+",
            "--1",
            "1e3",
            "@",
            "@x",
            "@2024-13-01",
            "@2024-01-15T25:00",
            "@2024-1-1",
            "99999999999999999999",
            "@2024-01-15T10:00:00.",
            "@2024-01-15-01",
            "now",
            "0x1",
            "@-1",
        ] {
            assert!(position(text, NOW).is_err(), "{text}");
        }
    }

    #[test]
    fn ranges_split_where_both_sides_make_sense() {
        let both = |from, to| Ok(Range { from, to: Some(to) });
        assert_eq!(range("3:9", NOW), both(Position::Offset(3), Position::Offset(9)));
        assert_eq!(range("@-1h:@now", NOW), both(Position::Time(NOW - 3_600_000), Position::Time(NOW)));
        assert_eq!(range("@2024-01-15T10:00:00Z:end", NOW), both(Position::Time(NOW), Position::End));
        assert_eq!(range("@2024-01-15T10:00", NOW), Ok(Range { from: Position::Time(NOW), to: None }));
        assert_eq!(range("start:-5", NOW), both(Position::Start, Position::FromEnd(5)));
        assert!(range("3:", NOW).is_err() && range(":3", NOW).is_err() && range("a:b", NOW).is_err());
    }

    #[test]
    fn times_are_written_as_they_are_read() {
        assert_eq!(utc(NOW + 7), "2024-01-15T10:00:00.007Z");
        for time in [0, 951_782_399_999, 951_782_400_000, 4_107_542_399_000, NOW] {
            assert_eq!(iso_ms(&utc(time)), Some(time));
        }
    }

    #[test]
    fn relative_positions_stay_inside() {
        assert_eq!(Position::FromEnd(10).resolve(5, 8), Some(5));
        assert_eq!(Position::FromEnd(2).resolve(5, 8), Some(6));
        assert_eq!(Position::FromStart(9).resolve(5, 8), Some(8));
        assert_eq!(Position::Offset(99).resolve(5, 8), Some(99));
        assert_eq!(Position::Time(1).resolve(5, 8), None);
    }
}
