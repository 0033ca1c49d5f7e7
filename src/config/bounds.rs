//! Values as text, read and held against their bounds. Every error says what would be right.

use std::ops::RangeInclusive;

/// A whole number within `range`.
pub fn integer(value: &str, range: RangeInclusive<i64>) -> Result<i64, String> {
    let wrong = || match (*range.start(), *range.end()) {
        (least, i64::MAX) => format!("must be a whole number, at least {least}"),
        (least, most) => format!("must be a whole number from {least} to {most}"),
    };
    let number: i64 = value.parse().map_err(|_| wrong())?;
    if range.contains(&number) { Ok(number) } else { Err(wrong()) }
}

/// `true` or `false`.
pub fn boolean(value: &str) -> Result<bool, String> {
    match value {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err("must be true or false".to_string()),
    }
}

/// A number of bytes within `range`, a whole multiple of `unit`.
pub fn bytes(value: &str, range: RangeInclusive<i64>, unit: i64) -> Result<u64, String> {
    let number = integer(value, range)?;
    if number % unit != 0 {
        return Err(format!("must be a multiple of {unit}; the next is {}", (number / unit + 1) * unit));
    }
    Ok(number as u64)
}

/// One of some words.
pub fn word<'a>(value: &str, words: &[&'a str]) -> Result<&'a str, String> {
    let found = words.iter().find(|word| **word == value).copied();
    found.ok_or_else(|| format!("must be one of: {}", words.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_hold_on_both_sides() {
        assert_eq!(integer("5", 1..=5), Ok(5));
        assert_eq!(integer("6", 1..=5).unwrap_err(), "must be a whole number from 1 to 5");
        assert_eq!(integer("0", 1..=i64::MAX).unwrap_err(), "must be a whole number, at least 1");
        assert!(
            integer("", 0..=1).is_err() && integer("1.5", 0..=9).is_err() && integer("1e3", 0..=9).is_err()
        );
        assert_eq!(bytes("2097152", 0..=i64::MAX, 1 << 20), Ok(2 << 20));
        assert!(bytes("2097153", 0..=i64::MAX, 1 << 20).unwrap_err().contains("3145728"));
        assert!(boolean("yes").is_err() && boolean("true").unwrap());
        assert!(word("a", &["b"]).unwrap_err().contains("one of: b"));
    }
}
