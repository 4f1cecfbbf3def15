//! The annotations' templates. Prometheus has them in Go's template language; this is the part of it that the rules use, and a test holds
//! that nothing is left over.

use std::collections::BTreeMap;

/// The text of a template for these labels and this value. What it does not know stays as it is.
pub(super) fn expand(template: &str, labels: &BTreeMap<String, String>, value: f64) -> String {
    let mut scopes = vec![Scope { shown: true, with: String::new() }];
    let mut text = String::new();
    let mut rest = template;
    while let Some((before, (action, after))) =
        rest.split_once("{{").and_then(|(before, rest)| Some((before, rest.split_once("}}")?)))
    {
        let shown = scopes.iter().all(|scope| scope.shown);
        if shown {
            text.push_str(before);
        }
        rest = after;
        match action.trim() {
            "else" => scopes.iter_mut().last().into_iter().for_each(|scope| scope.shown = !scope.shown),
            "end" if scopes.len() > 1 => drop(scopes.pop()),
            "." if shown => text.push_str(scopes.last().map_or("", |scope| &scope.with)),
            action => match condition(action, labels, value) {
                Some(scope) => scopes.push(scope),
                None if shown => match pipeline(action, labels, value) {
                    Some(part) => text.push_str(&part),
                    None => text.extend(["{{ ", action, " }}"]),
                },
                None => {}
            },
        }
    }
    text + rest
}

/// Between `if` or `with` and `end`.
struct Scope {
    shown: bool,
    /// What a dot stands for.
    with: String,
}

fn condition(action: &str, labels: &BTreeMap<String, String>, value: f64) -> Option<Scope> {
    if let Some(limit) = action.strip_prefix("if lt $value ") {
        return Some(Scope { shown: value < limit.parse().ok()?, with: String::new() });
    }
    let label = labels.get(action.strip_prefix("with $labels.")?).cloned().unwrap_or_default();
    Some(Scope { shown: !label.is_empty(), with: label })
}

fn pipeline(action: &str, labels: &BTreeMap<String, String>, value: f64) -> Option<String> {
    if let Some(label) = action.strip_prefix("$labels.") {
        return Some(labels.get(label).cloned().unwrap_or_default());
    }
    Some(match action {
        "$value" => value.to_string(),
        "$value | humanize" => humanize(value),
        "$value | humanizeDuration" => humanize_duration(value),
        r#"printf "%.0f" $value | humanize"# => humanize(value.round()),
        _ => return None,
    })
}

/// Four significant digits, as C's `%.4g`, for numbers from 0.0001 to 9999.
fn four_digits(value: f64) -> String {
    let before = if value == 0.0 { 1 } else { value.abs().log10().floor() as i32 + 1 };
    let places = usize::try_from(4 - before).unwrap_or(0);
    let text = format!("{value:.places$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// Prometheus's `humanize`, for what is not negative: 12300 is 12.3k.
fn humanize(value: f64) -> String {
    let (mut value, mut prefix) = (value, "");
    for larger in ["k", "M", "G", "T", "P", "E", "Z", "Y"] {
        if value < 1000.0 {
            break;
        }
        (value, prefix) = (value / 1000.0, larger);
    }
    four_digits(value) + prefix
}

/// Prometheus's `humanizeDuration`, for what is not negative: 5400 is 1h 30m 0s.
fn humanize_duration(seconds: f64) -> String {
    if seconds < 60.0 {
        return if seconds >= 1.0 || seconds == 0.0 {
            four_digits(seconds) + "s"
        } else {
            four_digits(seconds * 1000.0) + "ms"
        };
    }
    let whole = seconds as u64;
    let (days, hours, minutes, seconds) = (whole / 86_400, whole / 3600 % 24, whole / 60 % 60, whole % 60);
    match (days, hours) {
        (0, 0) => format!("{minutes}m {seconds}s"),
        (0, _) => format!("{hours}h {minutes}m {seconds}s"),
        _ => format!("{days}d {hours}h {minutes}m {seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_as_prometheus_writes_them() {
        for (value, humanized, duration) in [
            (0.0, "0", "0s"),
            (1.0, "1", "1s"),
            (0.25, "0.25", "250ms"),
            (59.5, "59.5", "59.5s"),
            (60.0, "60", "1m 0s"),
            (90.0, "90", "1m 30s"),
            (999.0, "999", "16m 39s"),
            (1000.0, "1k", "16m 40s"),
            (12_345.0, "12.35k", "3h 25m 45s"),
            (123_456_789.0, "123.5M", "1428d 21h 33m 9s"),
        ] {
            assert_eq!((humanize(value).as_str(), humanize_duration(value).as_str()), (humanized, duration));
        }
    }

    #[test]
    fn a_template_is_expanded_as_far_as_it_is_known() {
        let labels = BTreeMap::from([("stream".to_owned(), "orders".to_owned())]);
        let check = |template: &str, value, expected: &str| assert_eq!(expand(template, &labels, value), expected);
        check("{{ $value }} of {{ $labels.stream }}, {{ $labels.nothing }}.", 1500.0, "1500 of orders, .");
        check("{{ if lt $value 1.0 }}now{{ else }}in {{ $value | humanizeDuration }}{{ end }}!", 0.5, "now!");
        check("{{ if lt $value 1.0 }}now{{ else }}in {{ $value | humanizeDuration }}{{ end }}!", 90.0, "in 1m 30s!");
        check("{{ if lt $value 1.0 }}now{{ else }}in {{ $value | humanizeDuration }}{{ end }}!", 1.0, "in 1s!");
        check("<{{ if lt $value 1.0 }}{{ with $labels.stream }}{{ . }}{{ end }}{{ end }}>", 2.0, "<>");
        check("{{ with $labels.stream }}<{{ . }}>{{ else }}none{{ end }}", 0.0, "<orders>");
        check("{{ with $labels.nothing }}<{{ . }}>{{ else }}none{{ end }}", 0.0, "none");
        check("{{ query \"x\" }} {{", 0.0, "{{ query \"x\" }} {{");
        check("{{ end }} of {{ $labels.stream }}", 0.0, "{{ end }} of orders");
    }
}
