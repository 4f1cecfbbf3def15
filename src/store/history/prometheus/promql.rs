//! The query to Prometheus: one expression for all that a point is made of.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use crate::store::history::memory::SeriesKey;
use crate::sys::metric_catalog::{self, MetricName};

/// The label that tells the parts of an answer apart.
pub(super) const PART: &str = "streamlag_part";

/// The label of a target that is not the first. docs/fleet.md has Prometheus add it.
pub(super) const TARGET: &str = "redis_target";

/// Parts of an answer, in the order of [`PARTS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    Lag,
    Mean,
    Lowest,
    Highest,
    Samples,
    Uncertainty,
    SampledAt,
    LagSeconds,
    Pending,
    Delivered,
    Consumers,
    Lost,
    State,
    Length,
    Added,
}

/// How many parts there are.
pub(super) const PARTS_COUNT: usize = 15;

/// What a part is in PromQL: the metric, and what is put around its selector, where `STEP` is the width of a bucket.
const PARTS: [(Part, &MetricName, &str, &str); PARTS_COUNT] = [
    (Part::Lag, &metric_catalog::LAG, "last_over_time(", "[STEP])"),
    (Part::Mean, &metric_catalog::LAG, "avg_over_time(", "[STEP])"),
    (Part::Lowest, &metric_catalog::LAG, "min_over_time(", "[STEP])"),
    (Part::Highest, &metric_catalog::LAG, "max_over_time(", "[STEP])"),
    (Part::Samples, &metric_catalog::LAG, "count_over_time(", "[STEP])"),
    (Part::Uncertainty, &metric_catalog::LAG_UNCERTAINTY, "max_over_time(", "[STEP])"),
    // Of the sample that holds at the end of the bucket.
    (Part::SampledAt, &metric_catalog::LAG, "timestamp(", ")"),
    (Part::LagSeconds, &metric_catalog::LAG_SECONDS, "last_over_time(", "[STEP])"),
    (Part::Pending, &metric_catalog::GROUP_PENDING, "last_over_time(", "[STEP])"),
    (Part::Delivered, &metric_catalog::GROUP_ENTRIES_READ, "last_over_time(", "[STEP])"),
    (Part::Consumers, &metric_catalog::GROUP_CONSUMERS, "last_over_time(", "[STEP])"),
    (Part::Lost, &metric_catalog::GROUP_LOST, "last_over_time(", "[STEP])"),
    // A state that ended within the bucket would still be there over all of it.
    (Part::State, &metric_catalog::GROUP_STATE, "(", ")"),
    (Part::Length, &metric_catalog::STREAM_LENGTH, "last_over_time(", "[STEP])"),
    (Part::Added, &metric_catalog::STREAM_ENTRIES_ADDED, "last_over_time(", "[STEP])"),
];

impl Part {
    /// The part that this value of the label stands for.
    pub(super) fn find(label: &str) -> Option<Self> {
        PARTS.get(label.parse::<usize>().ok()?).map(|(part, ..)| *part)
    }
}

/// Everything about some groups of one target, at the end of buckets of so many seconds.
pub(super) fn expression(keys: &[SeriesKey], of_first_target: bool, labels: &[(String, String)], step: i64) -> String {
    let more: String = labels.iter().map(|(name, value)| format!(",{name}={}", quoted(value))).collect();
    let target = keys.first().map_or("", |key| &*key.target);
    let target = if of_first_target {
        format!("{TARGET}=~{}", quoted(&format!("|{}", literal(target))))
    } else {
        format!("{TARGET}={}", quoted(target))
    };
    let stream = matcher("stream", keys.iter().map(|key| &*key.stream));
    let group = matcher("consumer_group", keys.iter().map(|key| &*key.group));
    let mut all = String::new();
    for (number, (_, metric, before, after)) in PARTS.iter().enumerate() {
        let group = if metric.labels.contains(&"consumer_group") { format!(",{group}") } else { String::new() };
        let after = after.replace("STEP", &format!("{step}s"));
        let or = if number == 0 { "" } else { " or " };
        let series = metric.series();
        // Writing to a String does not fail.
        let _ = write!(
            all,
            r#"{or}label_replace({before}{series}{{{stream}{group},{target}{more}}}{after},"{PART}","{number}","","")"#
        );
    }
    all
}

/// One value exactly, or one of several.
fn matcher<'a>(label: &str, values: impl Iterator<Item = &'a str>) -> String {
    let values: BTreeSet<&str> = values.collect();
    if values.len() == 1 {
        return values.iter().map(|value| format!("{label}={}", quoted(value))).collect();
    }
    let literals: Vec<String> = values.iter().map(|value| literal(value)).collect();
    format!("{label}=~{}", quoted(&literals.join("|")))
}

/// Text as a regular expression that matches it alone (RE2).
fn literal(text: &str) -> String {
    text.chars().fold(String::new(), |mut escaped, c| {
        if r"\.+*?()|[]{}^$".contains(c) {
            escaped.push('\\');
        }
        escaped.push(c);
        escaped
    })
}

/// Text as a string of PromQL, whatever is in it.
fn quoted(text: &str) -> String {
    let escaped = text.chars().fold(String::new(), |mut escaped, c| {
        match c {
            '"' | '\\' => escaped.extend(['\\', c]),
            // As Go writes them. All are below U+10000.
            c if c.is_control() => escaped.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => escaped.push(c),
        }
        escaped
    });
    format!("\"{escaped}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(stream: &str, group: &str) -> SeriesKey {
        SeriesKey { target: "default".into(), stream: stream.into(), group: group.into() }
    }

    #[test]
    fn parts_are_found_by_their_number() {
        for (number, (part, ..)) in PARTS.iter().enumerate() {
            assert_eq!(Part::find(&number.to_string()), Some(*part));
            assert_eq!(*part as usize, number);
        }
        assert_eq!((Part::find("15"), Part::find(""), Part::find("-1")), (None, None, None));
    }

    #[test]
    fn one_group_is_matched_exactly_and_several_by_a_pattern() {
        let labels = [("cluster".to_owned(), "a".to_owned())];
        let one = expression(&[key("s", "g")], true, &labels, 60);
        assert!(one.starts_with(
            r#"label_replace(last_over_time(event_consumer_lag{stream="s",consumer_group="g",redis_target=~"|default",cluster="a"}[60s]),"streamlag_part","0","","") or "#
        ), "{one}");
        assert!(
            one.contains(
                r#"last_over_time(event_stream_length{stream="s",redis_target=~"|default",cluster="a"}[60s])"#
            ),
            "{one}"
        );
        let several = expression(&[key("s.1", "g"), key("s.2", "g")], false, &[], 5);
        assert!(
            several.contains(r#"{stream=~"s\\.1|s\\.2",consumer_group="g",redis_target="default"}[5s]"#),
            "{several}"
        );
    }

    #[test]
    fn whatever_a_name_has_it_stays_a_name() {
        assert_eq!(quoted("a\"} or vector(1) #"), r#""a\"} or vector(1) #""#);
        assert_eq!(quoted("\\\n\t\u{0}\u{85}ä"), "\"\\\\\\u000a\\u0009\\u0000\\u0085ä\"");
        assert_eq!(literal("a.b|c$"), r"a\.b\|c\$");
        assert_eq!(quoted(&literal("a\\\"")), r#""a\\\\\"""#);
    }
}
