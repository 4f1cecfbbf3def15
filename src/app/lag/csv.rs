//! The rows as CSV (RFC 4180), for spreadsheets and scripts.

use std::borrow::Cow;

use crate::app::lag::rows::{LagRow, Sampled};
use crate::model::text::rfc3339;
use crate::sys::terminal::escaped;

/// The columns. An unknown value is an empty cell, also where the API has a number in its place (-1, or 0 of a missing group).
const COLUMNS: [&str; 16] = [
    "target",
    "stream",
    "consumer_group",
    "group_exists",
    "status",
    "lag",
    "lag_quality",
    "lag_min",
    "lag_max",
    "lag_seconds",
    "pending",
    "oldest_pending_seconds",
    "consumers",
    "last_delivered_id",
    "sampled_at",
    "note",
];

/// All targets below one header. On a terminal, characters that would act on it are escaped, as in the table.
pub(super) fn render(sampled: &[Sampled], terminal: bool) -> String {
    let mut text = COLUMNS.join(",") + "\r\n";
    for target in sampled {
        let sampled_at = target.view.last_success.map(rfc3339).unwrap_or_default();
        for row in target.rows() {
            let cells = cells(&row, &sampled_at);
            let line: Vec<String> = cells.iter().map(|cell| cell.text(terminal)).collect();
            text.push_str(&line.join(","));
            text.push_str("\r\n");
        }
    }
    text
}

/// A name as a field.
pub(in crate::app) fn field(text: &str, terminal: bool) -> String {
    CsvCell::Text(text.into()).text(terminal)
}

/// What stands in a cell.
enum CsvCell<'a> {
    /// A name or a sentence, from Redis or from the configuration.
    Text(Cow<'a, str>),
    /// A number or a word of the program's own.
    Own(String),
}

impl CsvCell<'_> {
    fn text(&self, terminal: bool) -> String {
        match self {
            Self::Own(text) => text.clone(),
            Self::Text(text) if terminal => quoted(&harmless(&escaped(text))),
            Self::Text(text) => quoted(&harmless(text)),
        }
    }
}

fn cells<'a>(row: &'a LagRow<'_>, sampled_at: &str) -> [CsvCell<'a>; COLUMNS.len()] {
    fn own(value: Option<impl ToString>) -> CsvCell<'static> {
        CsvCell::Own(value.map(|value| value.to_string()).unwrap_or_default())
    }
    let group = &row.group;
    [
        CsvCell::Text(row.target.into()),
        CsvCell::Text(Cow::Borrowed(&group.stream)),
        CsvCell::Text(group.consumer_group.as_deref().unwrap_or_default().into()),
        own(group.group_exists),
        own(Some(group.status.0.as_str())),
        own(row.is_known().then_some(group.lag)),
        own(group.lag_quality),
        own(group.lag_min),
        own(group.lag_max),
        own(group.lag_seconds),
        own(group.pending),
        own(group.oldest_pending_seconds),
        own(group.consumers),
        own(group.last_delivered_id.as_ref()),
        own(Some(sampled_at)),
        CsvCell::Text(row.note().unwrap_or_default()),
    ]
}

/// Text that no spreadsheet takes for a formula: one that could be gets an apostrophe in front, as OWASP recommends.
fn harmless(text: &str) -> Cow<'_, str> {
    // The full-width forms count as well in spreadsheets of some languages.
    let begins = ['=', '+', '-', '@', '\t', '\r', '\n', '＝', '＋', '－', '＠'];
    if text.starts_with(begins) { Cow::Owned(format!("'{text}")) } else { Cow::Borrowed(text) }
}

/// A field, in quotes where it needs them.
fn quoted(text: &str) -> String {
    let needs = text.contains(|c: char| matches!(c, ',' | '"' | ';' | '\t' | '\'') || c.is_control())
        || text.starts_with(' ')
        || text.ends_with(' ');
    if needs { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_quoted_and_no_formulas() {
        let check =
            |text: &str, expected: &str| assert_eq!(CsvCell::Text(text.into()).text(false), expected, "{text:?}");
        check("orders:eu", "orders:eu");
        check("", "");
        check("a,b", "\"a,b\"");
        check("say \"hi\"", "\"say \"\"hi\"\"\"");
        check("a\r\nb", "\"a\r\nb\"");
        check(" a", "\" a\"");
        check("=HYPERLINK(\"http://x\")", "\"'=HYPERLINK(\"\"http://x\"\")\"");
        check("+1", "\"'+1\"");
        check("-1", "\"'-1\"");
        check("@SUM(A1)", "\"'@SUM(A1)\"");
        check("\t=1", "\"'\t=1\"");
        check("＝1", "\"'＝1\"");
        assert_eq!(CsvCell::Text("a\x1b[2J".into()).text(true), "a\\u{1b}[2J");
        assert_eq!(CsvCell::Text("a\x1b[2J".into()).text(false), "\"a\x1b[2J\"");
    }
}
