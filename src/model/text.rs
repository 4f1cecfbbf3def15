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
