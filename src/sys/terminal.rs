//! Text for people at a terminal: tables, colours, and names that may hold any character.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::fmt::Write as _;

use unicode_width::UnicodeWidthStr as _;

/// Blanks between two columns.
const GAP: usize = 2;

/// When to print colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Color {
    /// On a terminal that has them, unless `NO_COLOR` is set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Nowhere.
    Never,
}

impl Color {
    /// Whether to print colours: `no_color` and `term` are the environment variables `NO_COLOR` (<https://no-color.org>) and `TERM`.
    #[must_use]
    pub fn is_on(self, is_terminal: bool, no_color: Option<&OsStr>, term: Option<&OsStr>) -> bool {
        match self {
            Self::Auto => is_terminal && no_color.is_none_or(OsStr::is_empty) && term.is_none_or(|term| term != "dumb"),
            Self::Always => true,
            Self::Never => false,
        }
    }
}

/// A colour of text, as terminals number them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paint {
    /// As it is.
    Plain,
    /// Good.
    Green,
    /// To be watched.
    Yellow,
    /// Bad.
    Red,
    /// Not known.
    Magenta,
}

impl Paint {
    /// The sequence that begins it; empty for plain text.
    fn begin(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Green => "\x1b[32m",
            Self::Yellow => "\x1b[33m",
            Self::Red => "\x1b[31m",
            Self::Magenta => "\x1b[35m",
        }
    }
}

/// How a column is aligned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    /// Text.
    Left,
    /// Numbers.
    Right,
}

/// One cell of a table.
#[derive(Clone, Debug)]
pub struct Cell {
    text: String,
    paint: Paint,
}

impl Cell {
    /// Text from anywhere: what could move the cursor or hide text is escaped.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self { text: escaped(text).into_owned(), paint: Paint::Plain }
    }

    /// The same in a colour.
    #[must_use]
    pub fn painted(self, paint: Paint) -> Self {
        Self { paint, ..self }
    }
}

/// Rows below a header, in columns as wide as their widest cell.
#[must_use]
pub fn table(columns: &[(&str, Align)], rows: &[Vec<Cell>], colored: bool) -> String {
    let width = |(at, (name, _)): (usize, &(&str, Align))| {
        let cells = rows.iter().filter_map(|row| row.get(at)).map(|cell| cell.text.width());
        cells.max().unwrap_or(0).max(name.width())
    };
    let widths: Vec<usize> = columns.iter().enumerate().map(width).collect();
    let mut text = String::new();
    let header: Vec<Cell> = columns.iter().map(|(name, _)| Cell::new(name)).collect();
    for row in std::iter::once(&header).chain(rows) {
        let mut line = String::new();
        for ((cell, (_, align)), width) in row.iter().zip(columns).zip(&widths) {
            let blanks = width.saturating_sub(cell.text.width());
            let (before, after) = if *align == Align::Right { (blanks, 0) } else { (0, blanks) };
            let (begin, end) = match cell.paint.begin() {
                begin if colored && !begin.is_empty() => (begin, "\x1b[0m"),
                _ => ("", ""),
            };
            // Writing to a String cannot fail.
            let _ = write!(line, "{:before$}{begin}{}{end}{:after$}", "", cell.text, "", after = after + GAP);
        }
        text.push_str(line.trim_end_matches(' '));
        text.push('\n');
    }
    text
}

/// Text without characters that move the cursor, change the terminal's state, or reorder or hide text: those are written as Rust
/// writes them (`\n`, `\u{1b}`). A backslash is doubled, so that no two texts look the same.
#[must_use]
pub fn escaped(text: &str) -> Cow<'_, str> {
    if !text.contains(|c| is_unsafe(c) || c == '\\') {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            '\\' | '\n' | '\r' | '\t' => safe.extend(c.escape_debug()),
            c if is_unsafe(c) => safe.extend(c.escape_unicode()),
            c => safe.push(c),
        }
    }
    Cow::Owned(safe)
}

/// JSON in which these characters are written as `\uXXXX`. In JSON they stand in strings only, so it means the same.
#[must_use]
pub fn escaped_json(json: &str) -> Cow<'_, str> {
    if !json.contains(|c| c != '\n' && is_unsafe(c)) {
        return Cow::Borrowed(json);
    }
    let mut safe = String::with_capacity(json.len() + 8);
    for c in json.chars() {
        if c != '\n' && is_unsafe(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(safe, "\\u{unit:04x}");
            }
        } else {
            safe.push(c);
        }
    }
    Cow::Owned(safe)
}

/// Whether a character does something to a terminal other than to be shown: controls (C0, DEL, C1), line separators, marks of
/// direction, and what has no width.
fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_text_is_escaped_and_no_two_texts_are_shown_as_one() {
        let check = |text: &str, expected: &str| assert_eq!(escaped(text), expected);
        check("événements:€ 流 🦀", "événements:€ 流 🦀");
        check("a\x1b[2Jb", "a\\u{1b}[2Jb");
        check("a\nb\r\t\0\u{7f}\u{9b}", "a\\nb\\r\\t\\u{0}\\u{7f}\\u{9b}");
        check("a\\nb", "a\\\\nb");
        check("user\u{202e}gpj.exe", "user\\u{202e}gpj.exe");
        check("a\u{200b}b\u{feff}", "a\\u{200b}b\\u{feff}");
        assert_eq!(
            escaped_json("{\"a\u{9b}\u{202e}\u{e0001}\":\n\"€\"}"),
            "{\"a\\u009b\\u202e\\udb40\\udc01\":\n\"€\"}"
        );
    }

    #[test]
    fn columns_are_aligned_by_what_is_shown() {
        let row = |name: &str, lag: &str| vec![Cell::new(name).painted(Paint::Red), Cell::new(lag)];
        let rows = [row("a", "1"), row("流流", "12345"), row("", "")];
        let columns = [("NAME", Align::Left), ("LAG", Align::Right)];
        assert_eq!(table(&columns, &rows, false), "NAME    LAG\na         1\n流流  12345\n\n");
        assert_eq!(table(&columns, &rows[..1], true), "NAME  LAG\n\x1b[31ma\x1b[0m       1\n");
    }

    #[test]
    fn colours_are_for_terminals_that_want_them() {
        let check = |color: Color, is_terminal, no_color: Option<&str>, term: Option<&str>, expected| {
            let is_on = color.is_on(is_terminal, no_color.map(OsStr::new), term.map(OsStr::new));
            assert_eq!(is_on, expected, "{color:?} {is_terminal} {no_color:?} {term:?}");
        };
        check(Color::Auto, true, None, Some("xterm"), true);
        check(Color::Auto, true, Some(""), None, true);
        check(Color::Auto, true, Some("1"), Some("xterm"), false);
        check(Color::Auto, true, None, Some("dumb"), false);
        check(Color::Auto, false, None, Some("xterm"), false);
        check(Color::Always, false, Some("1"), None, true);
        check(Color::Never, true, None, None, false);
    }
}
