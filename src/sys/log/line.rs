//! Escapes and cuts log lines. Pure.

use crate::sys::log::Format;

/// The longest line, in bytes, with its line end: what is written to a pipe in one piece, and more than a person reads.
pub(super) const MAX_LINE_BYTES: usize = 4096;

/// Room for what ends a line that is cut.
const ROOM: usize = 64;

/// How deep the objects and lists of a JSON line nest. Ours have one level.
const MAX_DEPTH: usize = 8;

/// A line as it is written: without characters that would end it, move the cursor or turn the direction of text, and no longer than
/// [`MAX_LINE_BYTES`]. One that is cut ends in `cut=true`, or in `"cut":true`, and is still a line of its format.
pub(super) fn clean(line: &str, format: Format) -> String {
    let line = line.strip_suffix('\n').unwrap_or(line);
    let mut cleaned = String::with_capacity(line.len() + 1);
    if line.len() < MAX_LINE_BYTES && !line.contains(is_harmful) {
        cleaned.push_str(line);
    } else {
        match format {
            Format::Logfmt => logfmt(line, &mut cleaned),
            Format::Json => json(line, &mut cleaned),
        }
    }
    cleaned.push('\n');
    cleaned
}

/// Control characters, the line separators of Unicode, and what turns the direction of text.
fn is_harmful(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn has_room(cleaned: &str, more: &str) -> bool {
    cleaned.len() + more.len() + ROOM < MAX_LINE_BYTES
}

fn logfmt(line: &str, cleaned: &mut String) {
    let (mut quoted, mut in_value, mut escape) = (false, false, Escape::No);
    // Up to where it can be cut, and what ends it then.
    let mut end = (0, "");
    let mut bytes = [0; 4];
    for character in line.chars() {
        let escaped;
        let piece: &str = if is_harmful(character) {
            escaped = format!("\\u{{{:x}}}", u32::from(character));
            &escaped
        } else {
            character.encode_utf8(&mut bytes)
        };
        if !has_room(cleaned, piece) {
            cleaned.truncate(end.0);
            cleaned.push_str(end.1);
            cleaned.push_str(" cut=true");
            return;
        }
        if escape == Escape::No {
            match character {
                '"' => quoted = !quoted,
                '\\' if quoted => escape = Escape::Begun,
                ' ' if !quoted => {
                    end = (cleaned.len(), "");
                    in_value = false;
                }
                '=' if !quoted => in_value = true,
                _ => {}
            }
        } else {
            escape = match (escape, character) {
                (Escape::Begun, 'u') => Escape::Braces,
                (Escape::Braces, character) if character != '}' => Escape::Braces,
                _ => Escape::No,
            };
        }
        cleaned.push_str(piece);
        if in_value && escape == Escape::No {
            end = (cleaned.len(), if quoted { "…\"" } else { "…" });
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Escape {
    No,
    /// A backslash came.
    Begun,
    /// `\u{` came.
    Braces,
    /// Digits of `\u` that are to come.
    Digits(u8),
}

fn json(line: &str, cleaned: &mut String) {
    let (mut quoted, mut is_value, mut escape) = (false, false, Escape::No);
    let mut open: Vec<char> = Vec::new();
    // Up to where it can be cut, whether in a string, and how many objects and lists are open there.
    let mut end = (0, false, 0);
    let mut bytes = [0; 4];
    for character in line.chars() {
        let escaped;
        let piece: &str = if is_harmful(character) {
            escaped = format!("\\u{:04x}", u32::from(character));
            &escaped
        } else {
            character.encode_utf8(&mut bytes)
        };
        if !has_room(cleaned, piece) || open.len() > MAX_DEPTH {
            cleaned.truncate(end.0);
            cleaned.push_str(if end.1 { "…\"" } else { "" });
            open.truncate(end.2);
            cleaned.extend(open.drain(1.min(open.len())..).rev());
            cleaned.push_str(if cleaned.is_empty() { "{\"cut\":true}" } else { ",\"cut\":true}" });
            return;
        }
        match (quoted, escape, character) {
            (true, Escape::No, '"') => quoted = false,
            (true, Escape::No, '\\') => escape = Escape::Begun,
            (true, Escape::Begun, 'u') => escape = Escape::Digits(4),
            (true, Escape::Digits(left), _) if left > 1 => escape = Escape::Digits(left - 1),
            (true, ..) => escape = Escape::No,
            (false, _, '"') => quoted = true,
            (false, _, '{') => {
                open.push('}');
                is_value = false;
            }
            (false, _, '[') => open.push(']'),
            (false, _, '}' | ']') => drop(open.pop()),
            (false, _, ':') => is_value = true,
            (false, _, ',') => {
                end = (cleaned.len(), false, open.len());
                is_value = open.last() == Some(&']');
            }
            _ => {}
        }
        cleaned.push_str(piece);
        if quoted && is_value && escape == Escape::No {
            end = (cleaned.len(), true, open.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every character that must not be in a line, and some that may.
    fn hostile() -> String {
        let controls = (0..=0xffff).filter_map(char::from_u32).filter(|character| is_harmful(*character));
        controls.chain("a\"b\\c=d e€🦀\u{fffd}".chars()).collect()
    }

    /// Pairs of a logfmt line, by its rules: values with blanks are in quotes, in which a backslash escapes.
    fn pairs(line: &str) -> Vec<(String, String)> {
        let mut pairs = Vec::new();
        let mut rest = line;
        while !rest.is_empty() {
            let (key, after) = rest.split_once('=').unwrap_or_else(|| panic!("{rest:?} of {line:?}"));
            assert!(!key.is_empty() && !key.contains([' ', '"']), "{key:?} of {line:?}");
            let length = match after.strip_prefix('"') {
                None => after.find(' ').unwrap_or(after.len()),
                Some(quoted) => {
                    let mut escaped = false;
                    let end = quoted.find(|character| {
                        let ends = character == '"' && !escaped;
                        escaped = character == '\\' && !escaped;
                        ends
                    });
                    end.unwrap_or_else(|| panic!("no end: {line:?}")) + 2
                }
            };
            pairs.push((key.to_owned(), after[..length].to_owned()));
            rest = &after[length..];
            assert!(rest.is_empty() || rest.starts_with(' '), "{rest:?} of {line:?}");
            rest = rest.trim_start_matches(' ');
        }
        pairs
    }

    fn is_clean(line: &str) {
        assert!(line.len() <= MAX_LINE_BYTES, "{} bytes", line.len());
        let text = line.strip_suffix('\n').unwrap();
        assert!(!text.contains(is_harmful), "{text:?}");
    }

    #[test]
    fn an_ordinary_line_stays_as_it_is() {
        for (line, format) in [("ts=1 level=info msg=\"a b\" x=é\n", Format::Logfmt), ("{\"a\":\"é\"}\n", Format::Json)]
        {
            assert_eq!(clean(line, format), line);
        }
    }

    #[test]
    fn harmful_characters_are_escaped() {
        assert_eq!(
            clean("a=x\u{202e}y\x1b b=\"\u{85} \u{2028}\"\n", Format::Logfmt),
            "a=x\\u{202e}y\\u{1b} b=\"\\u{85} \\u{2028}\"\n"
        );
        assert_eq!(clean("{\"a\":\"\u{9b}\u{2066}\"}\n", Format::Json), "{\"a\":\"\\u009b\\u2066\"}\n");
        let line = clean(&format!("msg=ok name={}\n", hostile().replace([' ', '"', '='], "")), Format::Logfmt);
        is_clean(&line);
        assert_eq!(pairs(line.trim_end()).len(), 2);
        let value = serde_json::json!({ "msg": hostile(), hostile(): 1 });
        let line = clean(&format!("{value}\n"), Format::Json);
        is_clean(&line);
        assert_eq!(serde_json::from_str::<serde_json::Value>(&line).unwrap(), value, "nothing is lost");
    }

    #[test]
    fn a_line_is_cut_wherever_that_falls_and_stays_one() {
        let quoted = |text: &str| format!("\"{}\"", text.escape_debug());
        for shift in [0, 1, 2, 3, 4, 5, 13, 64, 99] {
            for piece in ["x", "€", "\u{202e}", "\"", "\\", "\u{2028}a\"", "=", " "] {
                let (before, long) = ("y".repeat(shift), piece.repeat(6000));
                let values = [(quoted(&long), true), (long.replace([' ', '"', '='], "z"), false)];
                for (value, _) in values {
                    for line in [
                        format!("m=1 a={before} k={value} z=2\n"),
                        format!("m=1 {} z=2\n", format!("a={before}0 ").repeat(1500)),
                        format!("m=1 {}=2 z=3\n", "k".repeat(5000)),
                    ] {
                        let line = clean(&line, Format::Logfmt);
                        is_clean(&line);
                        let pairs = pairs(line.trim_end());
                        assert_eq!(pairs[0], ("m".to_owned(), "1".to_owned()));
                        assert_eq!(pairs.last().unwrap(), &("cut".to_owned(), "true".to_owned()), "{line}");
                    }
                }
                let many: serde_json::Map<String, serde_json::Value> =
                    (0..900).map(|n| (format!("{before}{n}"), piece.into())).collect();
                for value in [
                    serde_json::json!({ "m": 1, "n": { "k": before, "long": long, "z": [1, 2] }, "z": 2 }),
                    serde_json::json!({ "m": 1, "n": many }),
                    serde_json::json!({ "m": 1, "n": [before, long] }),
                    serde_json::json!({ "m": 1, long.as_str(): 2 }),
                ] {
                    let line = clean(&format!("{value}\n"), Format::Json);
                    is_clean(&line);
                    let cut: serde_json::Value =
                        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
                    assert_eq!(cut["cut"], true, "{line}");
                }
            }
        }
    }
}
