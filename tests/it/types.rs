//! Types of the program, read from the source: each name means one thing, and errors are types.

use std::collections::BTreeMap;

use super::layers::{is_test_only, module, program, sources};

/// The type that a line defines. Associated types are none, and so an alias counts only outside of blocks.
fn defined(line: &str) -> Option<&str> {
    let code = line.trim_start();
    let code = match code.strip_prefix("pub(") {
        Some(rest) => rest.split_once(") ")?.1,
        None => code.strip_prefix("pub ").unwrap_or(code),
    };
    let (keyword, rest) = code.split_once(' ')?;
    let is_type = match keyword {
        "struct" | "enum" | "trait" | "union" => true,
        "type" => !line.starts_with(' '),
        _ => false,
    };
    let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(rest.len());
    (is_type && end > 0).then(|| &rest[..end])
}

#[test]
fn a_type_name_means_one_thing() {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for path in sources() {
        let source = std::fs::read_to_string(&path).unwrap();
        for (number, line) in (1..).zip(source.lines()) {
            if let Some(name) = defined(line) {
                found.entry(name.to_owned()).or_default().push(format!("{}:{number}", path.display()));
            }
        }
    }
    assert!(found.len() > 500, "{} types", found.len());
    found.retain(|_, places| places.len() > 1);
    assert!(found.is_empty(), "a type name is defined twice: {found:#?}");
}

#[test]
fn definitions_are_found() {
    let check = |line: &str, expected| assert_eq!(defined(line), expected, "{line}");
    check("struct Row<'a> {", Some("Row"));
    check("    pub(super) struct Row(u64);", Some("Row"));
    check("pub(in crate::analysis) enum Row {", Some("Row"));
    check("pub trait Room: Debug {", Some("Room"));
    check("type Task = Pin<Box<dyn Future>>;", Some("Task"));
    check("    type Error = Misfit;", None);
    check("/// struct Row", None);
    check("let structure = Row {", None);
}

/// The error of each `Result<_, E>` in the source, whatever lines it takes.
fn errors(source: &str) -> Vec<&str> {
    let error = |(begins, _): (usize, &str)| {
        let inside = &source[begins + "Result<".len()..];
        let (mut depth, mut error, mut before) = (0, None, ' ');
        for (place, c) in inside.char_indices() {
            match c {
                '<' | '(' | '[' => depth += 1,
                '>' if depth == 0 && before != '-' => {
                    return error.map(|at| inside[at..place].trim_matches([' ', '\n', ',']));
                }
                '>' if before == '-' => {}
                '>' | ')' | ']' => depth -= 1,
                ',' if depth == 0 && error.is_none() => error = Some(place + 1),
                _ => {}
            }
            before = c;
        }
        None
    };
    source.match_indices("Result<").filter_map(error).collect()
}

#[test]
fn errors_are_types_and_not_text() {
    let mut results = 0;
    for path in sources().into_iter().filter(|path| !is_test_only(&module(path))) {
        let program = program(&path);
        for error in errors(&program) {
            results += 1;
            let is_text = error == "String" || (error.starts_with('&') && error.ends_with("str"));
            assert!(!is_text, "{}: {error}: expected an error type, such as an enum with thiserror", path.display());
        }
    }
    assert!(results > 300, "{results} results");
}

#[test]
fn the_errors_of_results_are_found() {
    let check = |source: &str, expected: &[&str]| assert_eq!(errors(source), expected, "{source}");
    check("fn a() -> Result<Vec<String>, ConfigError> {", &["ConfigError"]);
    check("fn a() -> Result<(u64, String), String> {", &["String"]);
    check("Vec<(String, Result<(), String>)>", &["String"]);
    check("Result<\n    Map<u64, String>,\n    String,\n>", &["String"]);
    check("Result<Box<dyn Fn(u64) -> bool>, String>", &["String"]);
    check("Result<Self, &'static str>", &["&'static str"]);
    check("std::io::Result<(String, bool)>", &[]);
}
