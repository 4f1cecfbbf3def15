//! The configuration file: YAML whose keys are the flags' names, nested or with dots, dashes or underscores.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Error, Spanned};

use super::settings::{Flag, SETTINGS, Setting};
use crate::small_file;

/// The longest key that is repeated where there is no such setting: twice the longest there is.
const MAX_NAMED: usize = 80;

const PLAIN_VALUES: &str = "a list takes plain values";

/// The settings of a file, by key.
#[derive(Clone, Debug, Default)]
pub(super) struct File(BTreeMap<&'static str, Vec<String>>);

impl File {
    /// Reads a file.
    ///
    /// # Errors
    /// What is wrong with it, and where.
    pub(super) fn read(path: &Path) -> Result<Self, String> {
        Self::parse(&small_file::read_text(path)?)
    }

    /// Reads a file's text.
    ///
    /// # Errors
    /// What is wrong with it, and where.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut settings = BTreeMap::new();
        if text.trim().is_empty() {
            return Ok(Self(settings));
        }
        match serde_saphyr::from_str(text).map_err(|error| said(&error))? {
            Node::Empty => {}
            Node::Map(entries) => flatten("", entries, &mut settings)?,
            Node::Value(_) | Node::List(_) => return Err("it takes a mapping of settings".to_owned()),
        }
        Ok(Self(settings))
    }

    pub(super) fn get(&self, key: &str) -> Option<&[String]> {
        self.0.get(key).map(Vec::as_slice)
    }
}

/// What the parser found, and where, but not the text that it found there: that may be a URL with a password in it.
fn said(error: &Error) -> String {
    let wrong = match error.without_snippet() {
        Error::DuplicateMappingKey { key: Some(key), .. } if is_key(key) => format!("{key} is given twice"),
        Error::DuplicateMappingKey { .. } => "a key is given twice".to_owned(),
        Error::MultipleDocuments { .. } => "it takes one document".to_owned(),
        Error::Eof { .. } => "it ends in the middle of something".to_owned(),
        Error::Message { msg, .. } if msg.contains(PLAIN_VALUES) => PLAIN_VALUES.to_owned(),
        _ => "it takes YAML: settings with a value, a list of values, or more settings".to_owned(),
    };
    match error.location() {
        Some(place) if place.line() > 0 => format!("line {} column {}: {wrong}", place.line(), place.column()),
        _ => wrong,
    }
}

fn flatten(
    prefix: &str,
    entries: Vec<(Spanned<String>, Node)>,
    settings: &mut BTreeMap<&'static str, Vec<String>>,
) -> Result<(), String> {
    for (key, node) in entries {
        let line = key.referenced.line();
        let path = format!("{prefix}{}", key.value.replace('_', "-"));
        let values = match node {
            // Nothing in it is as good as no section, and no value as good as no setting; but a slip is a slip.
            Node::Empty if is_section(&path) || Setting::find(&path).is_some() => continue,
            Node::Empty => Vec::new(),
            Node::Map(_) if Setting::find(&path).is_some() => {
                return Err(format!("line {line}: {path} takes a value, not a mapping"));
            }
            Node::Map(entries) if is_section(&path) => {
                flatten(&format!("{path}."), entries, settings)?;
                continue;
            }
            Node::Value(value) => vec![value],
            Node::List(values) => values,
            Node::Map(_) => Vec::new(),
        };
        let setting = Setting::find(&path).filter(|setting| !BARRED.contains(&setting.key));
        let Some(setting) = setting else {
            return Err(format!("line {line}: there is no setting {} for a file", named(&path)));
        };
        if values.len() != 1 && setting.flag != Flag::List {
            return Err(format!("line {line}: {path} takes one value, not {}", values.len()));
        }
        if setting.flag == Flag::Switch && !["true", "false"].contains(&values[0].as_str()) {
            return Err(format!("line {line}: {path} takes true or false"));
        }
        if settings.insert(setting.key, values).is_some() {
            return Err(format!("line {line}: {path} is given twice"));
        }
    }
    Ok(())
}

/// Whether settings have this in front of a dot.
fn is_section(path: &str) -> bool {
    SETTINGS.iter().any(|setting| setting.key.strip_prefix(path).is_some_and(|rest| rest.starts_with('.')))
}

/// A key as it is repeated.
fn named(path: &str) -> String {
    if is_key(path) { format!("{path:?}") } else { "of this name".to_owned() }
}

/// Whether it looks like a key. What does not may be a slip that has a URL in it, and a password in that.
fn is_key(text: &str) -> bool {
    text.len() <= MAX_NAMED && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

/// Settings that a file cannot hold: they say what to do with it.
const BARRED: [&str; 3] = ["config.file", "config.check", "healthcheck"];

/// A piece of the file. Scalars are kept as text: what they must be is the setting's business.
enum Node {
    Empty,
    Value(String),
    List(Vec<String>),
    Map(Vec<(Spanned<String>, Node)>),
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value, a list of values or a mapping")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Empty)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Value(value.to_string()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Value(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Value(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
        Ok(Node::Value(value.to_string()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Value(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Node, A::Error> {
        let mut values = Vec::new();
        while let Some(node) = seq.next_element()? {
            match node {
                Node::Value(value) => values.push(value),
                Node::Empty | Node::List(_) | Node::Map(_) => {
                    return Err(serde::de::Error::custom(PLAIN_VALUES));
                }
            }
        }
        Ok(Node::List(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Node::Map(entries))
    }
}
