//! Bytes and times as text.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The year 10000, which RFC 3339 cannot say, in seconds since the Unix epoch. To write a later time panics.
pub const END_OF_RFC3339: u64 = 253_402_300_800;

/// Bytes as lower-case hexadecimal digits, two each.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing to a String does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// A number of things: `1 entry`, `2 entries`.
#[must_use]
pub fn count(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// A duration as the settings take it: `2s`, `1m 30s`, `400d`. What is less than a nanosecond is left out.
#[must_use]
pub fn duration(duration: Duration) -> String {
    const UNITS: [(&str, u128); 7] = [
        ("d", 86_400_000_000_000),
        ("h", 3_600_000_000_000),
        ("m", 60_000_000_000),
        ("s", 1_000_000_000),
        ("ms", 1_000_000),
        ("us", 1000),
        ("ns", 1),
    ];
    let mut rest = duration.as_nanos();
    let mut parts = Vec::new();
    for (unit, nanoseconds) in UNITS {
        if rest >= nanoseconds {
            parts.push(format!("{}{unit}", rest / nanoseconds));
            rest %= nanoseconds;
        }
    }
    if parts.is_empty() { "0s".to_owned() } else { parts.join(" ") }
}

/// A time in UTC with milliseconds, before [`END_OF_RFC3339`].
#[must_use]
pub fn rfc3339(time: SystemTime) -> String {
    humantime::format_rfc3339_millis(time).to_string()
}

/// The same of whole seconds since the Unix epoch; the epoch for a time before it.
#[must_use]
pub fn rfc3339_of_unix(seconds: i64) -> String {
    rfc3339(UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or_default()))
}

/// Milliseconds since the Unix epoch; 0 before it.
#[must_use]
pub fn unix_millis(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// The time so many milliseconds after the Unix epoch; `None` where there is none so late.
#[must_use]
pub fn of_unix_millis(millis: u64) -> Option<SystemTime> {
    UNIX_EPOCH.checked_add(Duration::from_millis(millis))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_not_many() {
        assert_eq!([0, 1, 2].map(|n| count(n, "entry", "entries")), ["0 entries", "1 entry", "2 entries"]);
    }

    #[test]
    fn durations_are_written_as_they_are_given() {
        for text in ["0s", "1ns", "50ms", "1s 500ms", "59s", "1m", "1m 30s", "4h", "1d", "1d 2h", "400d", "3650d"] {
            let given = humantime::parse_duration(text).unwrap();
            assert_eq!(duration(given), text);
        }
    }
}
