//! What a request for history asks: a range of time and a step.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::model::text::{self, END_OF_RFC3339};

/// Points that an answer may have.
pub const MAX_POINTS: i64 = 11_000;

/// The longest range that may be asked for: longer than anything is kept.
const MAX_RANGE: i64 = 10 * 366 * 86_400;

/// Characters of a wrong value that are repeated.
const MAX_SHOWN: usize = 80;

/// A range of time in seconds since the Unix epoch, `from` included and `to` not, and the width of its buckets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// Start of the first bucket.
    pub from: i64,
    /// End of the last.
    pub to: i64,
    /// Width of a bucket, seconds.
    pub step: i64,
}

/// A parameter that cannot be used: what it is and what was expected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidQuery(String);

impl InvalidQuery {
    /// A value of a parameter, and what was expected.
    #[must_use]
    pub fn new(value: &str, name: &str, expected: &str) -> Self {
        let value: String = value.chars().take(MAX_SHOWN).collect();
        Self(format!("invalid value {value:?} for {name}: expected {expected}"))
    }
}

/// Seconds since the Unix epoch, rounded down.
#[must_use]
pub fn unix_seconds(time: SystemTime) -> i64 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        Err(before) => {
            i64::try_from(before.duration().as_nanos().div_ceil(1_000_000_000)).map_or(i64::MIN, |seconds| -seconds)
        }
    }
}

fn seconds(text: &str) -> Option<i64> {
    let duration = humantime::parse_duration(text).ok().or_else(|| text.parse().ok().map(Duration::from_secs))?;
    (duration.subsec_nanos() == 0).then(|| i64::try_from(duration.as_secs()).ok()).flatten()
}

fn time(text: &str, name: &str, now: i64) -> Result<i64, InvalidQuery> {
    let relative = || text.strip_prefix('-').and_then(seconds).map(|ago| now.saturating_sub(ago));
    let absolute = || humantime::parse_rfc3339_weak(text).ok().map(unix_seconds);
    let unix = || text.parse().ok().filter(|seconds| *seconds >= 0);
    let parsed = if text == "now" { Some(now) } else { relative().or_else(unix).or_else(absolute) };
    // The second after it is written, too.
    parsed.filter(|seconds| seconds.saturating_add(1) < END_OF_RFC3339 as i64).ok_or_else(|| {
        let expected = "now, a duration before now such as -1h, a time such as 2027-01-31T12:00:00Z, or Unix seconds";
        InvalidQuery::new(text, name, expected)
    })
}

/// A duration of a parameter, in seconds, of at least `min` and at most `max`.
///
/// # Errors
/// Where it is none, or not within the bounds.
pub fn duration(text: &str, name: &str, min: i64, max: i64) -> Result<i64, InvalidQuery> {
    seconds(text).filter(|seconds| (min..=max).contains(seconds)).ok_or_else(|| {
        let [min, max] = [min, max].map(written);
        InvalidQuery::new(text, name, &format!("whole seconds between {min} and {max}, such as 60s, 5m or 1h"))
    })
}

/// Seconds as the parameters take them.
fn written(seconds: i64) -> String {
    text::duration(Duration::from_secs(seconds.unsigned_abs())).replace(' ', "")
}

impl Range {
    /// The last `window` seconds before `now`, in buckets of `step`.
    #[must_use]
    pub fn last(window: i64, step: i64, now: i64) -> Self {
        Self { from: now.saturating_sub(window), to: now.saturating_add(1), step }
    }

    /// What the parameters ask for, `now` being seconds since the Unix epoch.
    ///
    /// # Errors
    /// The first parameter that cannot be used.
    pub fn parse(from: &str, to: &str, step: &str, now: i64) -> Result<Self, InvalidQuery> {
        let range = Self::unbounded(from, to, step, 1, now)?;
        let (length, width) = (range.to - 1 - range.from, range.step);
        let points = length / width + 1;
        if points > MAX_POINTS {
            let enough = length / MAX_POINTS + 1;
            let expected = format!(
                "a step of at least {} for this range: {points} points are more than {MAX_POINTS}",
                written(enough)
            );
            return Err(InvalidQuery::new(step, "step", &expected));
        }
        Ok(range)
    }

    /// The same with any number of points, and steps of at least `min` seconds.
    ///
    /// # Errors
    /// The first parameter that cannot be used.
    pub fn unbounded(from: &str, to: &str, step: &str, min: i64, now: i64) -> Result<Self, InvalidQuery> {
        let width = duration(step, "step", min, MAX_RANGE)?;
        let (start, end) = (time(from, "from", now)?, time(to, "to", now)?);
        if start >= end {
            return Err(InvalidQuery::new(from, "from", &format!("a time before to, which is {to:?}")));
        }
        let range = end.saturating_sub(start);
        if range > MAX_RANGE {
            return Err(InvalidQuery::new(from, "from", &format!("a time at most {} before to", written(MAX_RANGE))));
        }
        // What is sampled in the second of the end counts.
        Ok(Self { from: start, to: end.saturating_add(1), step: width })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_800_000_000;

    fn wrong(from: &str, to: &str, step: &str) -> String {
        Range::parse(from, to, step, NOW).unwrap_err().to_string()
    }

    #[test]
    fn times_are_relative_absolute_or_unix() {
        let of = |from: &str, to: &str| Range::parse(from, to, "60s", NOW).map(|range| (range.from, range.to));
        assert_eq!(of("-1h", "now"), Ok((NOW - 3600, NOW + 1)));
        assert_eq!(of("1799990000", "-30m"), Ok((1_799_990_000, NOW - 1799)));
        assert_eq!(of("2027-01-15T07:00:00Z", "now"), Ok((1_799_996_400, NOW + 1)));
        assert_eq!(Range::parse("-1h", "now", "5", NOW).map(|range| range.step), Ok(5));
    }

    #[test]
    fn a_wrong_value_is_named_with_what_was_expected() {
        assert!(wrong("now", "-1h", "60s").starts_with("invalid value \"now\" for from: expected a time before to"));
        assert!(wrong("yesterday", "now", "60s").starts_with("invalid value \"yesterday\" for from: expected now"));
        for step in ["0", "0s", "-5", "500ms", "x", "99999999999999999999"] {
            assert!(wrong("-1h", "now", step).contains(" for step: expected whole seconds"), "{step}");
        }
        assert!(wrong("0", "now", "1h").contains("for from: expected a time at most"));
        let long = "9".repeat(10_000);
        assert!(wrong(&long, "now", "60s").len() < 300);
    }

    #[test]
    fn a_time_that_cannot_be_written_is_refused() {
        for time in ["253402300799", "253402300800", "9223372036854775807", "9999-12-31T23:59:59Z"] {
            assert!(
                wrong("-1h", time, "1h").starts_with(&format!("invalid value {time:?} for to: expected")),
                "{time}"
            );
        }
        let last = Range::parse("253402300000", "253402300798", "1h", NOW).unwrap();
        assert_eq!(crate::model::text::rfc3339_of_unix(last.to), "9999-12-31T23:59:59.000Z");
    }

    #[test]
    fn too_many_points_are_answered_with_a_step_that_would_do() {
        let text = wrong("-14d", "now", "60s");
        assert!(text.starts_with("invalid value \"60s\" for step: expected a step of at least 1m50s"), "{text}");
        assert!(Range::parse("-14d", "now", "1m50s", NOW).is_ok());
        assert!(Range::parse("-14d", "now", "1m49s", NOW).is_err());
        assert!(Range::parse("-10999s", "now", "1s", NOW).is_ok());
        assert!(Range::parse("-11000s", "now", "1s", NOW).is_err());
        for from in ["-11000s", "-21998s", "-21999s", "-22000s", "-1d", "-14d", "-366d"] {
            let text = wrong(from, "now", "1s");
            let (_, step) = text.split_once("a step of at least ").unwrap();
            let step = seconds(step.split(' ').next().unwrap()).unwrap();
            assert!(Range::parse(from, "now", &format!("{step}s"), NOW).is_ok(), "{text}");
            assert!(Range::parse(from, "now", &format!("{}s", step - 1), NOW).is_err(), "{text}");
        }
    }

    #[test]
    fn the_longest_range_may_be_asked_for_and_no_longer_one() {
        let text = wrong("0", "now", "1d");
        let (_, longest) = text.split_once("a time at most ").unwrap();
        let seconds = seconds(longest.strip_suffix(" before to").unwrap()).unwrap();
        let of = |seconds| Range::parse(&format!("-{seconds}s"), "now", "1d", NOW).map(|range| range.from);
        assert_eq!(of(seconds), Ok(NOW - seconds), "{text}");
        assert!(of(seconds + 1).is_err(), "{text}");
    }

    #[test]
    fn seconds_are_rounded_down_on_both_sides_of_the_epoch() {
        let millis = Duration::from_millis;
        assert_eq!([0, 999, 1500].map(|since| unix_seconds(UNIX_EPOCH + millis(since))), [0, 0, 1]);
        assert_eq!([1, 999, 1000, 1500].map(|before| unix_seconds(UNIX_EPOCH - millis(before))), [-1, -1, -1, -2]);
    }
}
