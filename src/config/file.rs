//! The configuration file: YAML whose keys are the flags' names, nested or with dots, dashes or underscores.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

use super::settings::{Flag, SETTINGS, Setting};
use crate::small_file;

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
        match serde_saphyr::from_str(text).map_err(|error| one_line(&error.to_string()))? {
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

/// The first line of what the parser says; it draws the place in more.
fn one_line(message: &str) -> String {
    message.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned()
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
            Node::Empty => continue,
            Node::Map(_) if Setting::find(&path).is_some() => {
                return Err(format!("line {line}: {path} takes a value, not a mapping"));
            }
            Node::Map(entries) if SETTINGS.iter().any(|setting| setting.key.starts_with(&format!("{path}."))) => {
                flatten(&format!("{path}."), entries, settings)?;
                continue;
            }
            Node::Value(value) => vec![value],
            Node::List(values) => values,
            Node::Map(_) => Vec::new(),
        };
        let setting = Setting::find(&path).filter(|setting| !BARRED.contains(&setting.key));
        let Some(setting) = setting else {
            return Err(format!("line {line}: there is no setting {path:?} for a file"));
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
                    return Err(serde::de::Error::custom("a list takes plain values"));
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
