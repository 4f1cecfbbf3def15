//! Types of the program, read from the source: each name means one thing.

use std::collections::BTreeMap;

use super::layers::sources;

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
