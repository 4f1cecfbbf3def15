//! The configuration file: YAML whose keys are the flags' names, nested or with dots, dashes or underscores.

mod notify;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Error, Spanned};

use crate::config::nearest::nearest;
use crate::config::scaler_entry::{ListedScaler, MAX_SCALERS};
use crate::config::settings::{COLLECTORS, Flag, SETTINGS, Setting, collectors};
use crate::config::values::{Location, Origin, RawValue};
use crate::model::TargetName;
use crate::sys::files;
pub(crate) use notify::{Given, ListedNotify};

/// Targets of a file: each has a connection, a page and a poll of its own, and is one to look at.
pub const MAX_TARGETS: usize = 1000;

/// The longest key that is repeated where there is no such setting: twice the longest there is.
const MAX_NAMED: usize = 80;

/// The key under which a file lists targets.
const TARGETS: &str = "targets";

/// The key under which a file lists scalers.
const SCALERS: &str = "scalers";

/// The values of a setting, and where they stand.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(super) values: Vec<String>,
    pub(super) place: Location,
}

impl Entry {
    /// The values as those of this setting.
    pub(super) fn given(&self, setting: &'static Setting, origin: impl FnOnce(Location) -> Origin) -> RawValue {
        RawValue::new(setting, origin(self.place.clone()), self.values.iter().map(OsString::from).collect())
    }

    /// Whether it turns a switch on.
    pub(super) fn switch(&self) -> bool {
        self.values == ["true"]
    }
}

/// Settings by key.
pub(crate) type Section = BTreeMap<&'static str, Entry>;

/// The settings of a file.
#[derive(Clone, Debug, Default)]
pub(super) struct File {
    settings: Section,
    targets: Vec<(TargetName, Section)>,
    scalers: Vec<ListedScaler>,
    notify: Option<ListedNotify>,
}

impl File {
    /// Reads a file.
    ///
    /// # Errors
    /// What is wrong with it, and where.
    pub(super) fn read(path: &Path) -> Result<Self, String> {
        Self::parse(&files::read_settled_text(path)?, path)
    }

    /// Reads a file's text, which is that of `path`.
    ///
    /// # Errors
    /// What is wrong with it, and where.
    pub(super) fn parse(text: &str, path: &Path) -> Result<Self, String> {
        let path: Arc<Path> = path.into();
        let mut file = Self::default();
        if text.trim().is_empty() {
            return Ok(file);
        }
        let node = serde_saphyr::from_str(text);
        match node.map_err(|error| scaler_key_twice(text, &path, &error).unwrap_or_else(|| describe(&error)))? {
            YamlNode::Empty => {}
            YamlNode::Map(mut entries) => {
                file.scalers = take_scalers(&path, &mut entries)?;
                file.notify = notify::take(&path, &mut entries)?;
                if let Some(place) = entries.iter().position(|(key, _)| key.value == TARGETS) {
                    let (key, node) = entries.remove(place);
                    file.targets = targets(&path, key.referenced.line(), node)?;
                }
                flatten(&path, "", entries, SettingScope::ToAll, &mut file.settings)?;
            }
            YamlNode::Value(_) | YamlNode::List(_) => return Err("expected a mapping of settings".to_owned()),
        }
        Ok(file)
    }

    pub(super) fn get(&self, key: &str) -> Option<&Entry> {
        self.settings.get(key)
    }

    /// The targets in the order of the file, with what is theirs alone; none where the file lists none.
    pub(super) fn targets(&self) -> &[(TargetName, Section)] {
        &self.targets
    }

    /// Whom to tell of incidents, not checked yet.
    pub(super) fn notify(&self) -> Option<&ListedNotify> {
        self.notify.as_ref()
    }

    /// The scalers in the order of the file, not checked yet.
    pub(super) fn scalers(&self) -> &[ListedScaler] {
        &self.scalers
    }
}

/// Takes the scalers out of the top level.
fn take_scalers(path: &Arc<Path>, entries: &mut Vec<(Spanned<String>, YamlNode)>) -> Result<Vec<ListedScaler>, String> {
    const EXPECTED: &str = "scalers: expected a list of mappings, each with a name";
    let Some(place) = entries.iter().position(|(key, _)| key.value == SCALERS) else { return Ok(Vec::new()) };
    let (key, node) = entries.remove(place);
    let line = key.referenced.line();
    let listed = match node {
        YamlNode::Empty => return Ok(Vec::new()),
        YamlNode::List(listed) => listed,
        YamlNode::Value(_) | YamlNode::Map(_) => return Err(format!("line {line}: {EXPECTED}")),
    };
    if listed.len() > MAX_SCALERS {
        return Err(format!("line {line}: scalers: expected at most {MAX_SCALERS} scalers, not {}", listed.len()));
    }
    let location = |line| Location { file: Arc::clone(path), line };
    let scaler = |node| {
        let YamlNode::Map(entries) = node else { return Err(format!("line {line}: {EXPECTED}")) };
        let begins = entries.first().map_or(line, |(key, _)| key.referenced.line());
        let entry = |(key, node): (Spanned<String>, YamlNode)| {
            let values = match node {
                YamlNode::Value(value) => vec![value],
                YamlNode::List(nodes) => nodes.into_iter().filter_map(YamlNode::into_value).collect(),
                YamlNode::Empty | YamlNode::Map(_) => Vec::new(),
            };
            (key.value.replace('-', "_"), location(key.referenced.line()), values)
        };
        Ok(ListedScaler { location: location(begins), entries: entries.into_iter().map(entry).collect() })
    };
    listed.into_iter().map(scaler).collect()
}

/// The error where a key of a scaler is given twice: YAML's own error does not name the scaler.
fn scaler_key_twice(text: &str, path: &Arc<Path>, error: &Error) -> Option<String> {
    if !matches!(error.without_snippet(), Error::DuplicateMappingKey { .. }) {
        return None;
    }
    let mut options = serde_saphyr::Options::default();
    options.duplicate_keys = serde_saphyr::DuplicateKeyPolicy::PassThrough;
    let Ok(YamlNode::Map(mut entries)) = serde_saphyr::from_str_with_options(text, options) else { return None };
    let scalers = take_scalers(path, &mut entries).ok()?;
    scalers.iter().find_map(|scaler| scaler.fields().err()).map(|problem| problem.to_string())
}

fn targets(path: &Arc<Path>, line: u64, node: YamlNode) -> Result<Vec<(TargetName, Section)>, String> {
    const TAKES: &str = "targets: expected a list of mappings, each with a name";
    let listed = match node {
        YamlNode::Empty => return Ok(Vec::new()),
        YamlNode::List(listed) => listed,
        YamlNode::Value(_) | YamlNode::Map(_) => return Err(format!("line {line}: {TAKES}")),
    };
    if listed.len() > MAX_TARGETS {
        return Err(format!("line {line}: targets: expected at most {MAX_TARGETS} targets, not {}", listed.len()));
    }
    let mut targets: Vec<(TargetName, Section)> = Vec::with_capacity(listed.len());
    let mut names = BTreeSet::new();
    for node in listed {
        let YamlNode::Map(mut entries) = node else { return Err(format!("line {line}: {TAKES}")) };
        let begins = entries.first().map_or(line, |(key, _)| key.referenced.line());
        let Some(place) = entries.iter().position(|(key, _)| key.value == "name") else {
            return Err(format!("line {begins}: expected a name in each target"));
        };
        let (key, node) = entries.remove(place);
        let line = key.referenced.line();
        let name = match &node {
            YamlNode::Value(name) => TargetName::new(name),
            YamlNode::Empty | YamlNode::List(_) | YamlNode::Map(_) => None,
        };
        let takes = "name: expected 1 to 64 letters, digits, '.', '_' and '-'";
        let name = name.ok_or_else(|| format!("line {line}: {takes}"))?;
        if !names.insert(name.clone()) {
            return Err(format!("line {line}: there are two targets of the name {name}"));
        }
        let mut section = Section::new();
        flatten(path, "", entries, SettingScope::To(&name), &mut section)?;
        targets.push((name, section));
    }
    if targets.is_empty() {
        return Err(format!("line {line}: {TAKES}; the list is empty"));
    }
    Ok(targets)
}

/// What the parser found, and where, but not the text that it found there: that may be a URL with a password in it.
fn describe(error: &Error) -> String {
    let wrong = match error.without_snippet() {
        Error::DuplicateMappingKey { key: Some(key), .. } if is_key(key) => format!("{key} is given twice"),
        Error::DuplicateMappingKey { .. } => "a key is given twice".to_owned(),
        Error::MultipleDocuments { .. } => "expected one document".to_owned(),
        Error::Eof { .. } => "it ends in the middle of something".to_owned(),
        _ => "expected YAML: settings with a value, a list of values, or more settings".to_owned(),
    };
    match error.location() {
        Some(place) if place.line() > 0 => format!("line {} column {}: {wrong}", place.line(), place.column()),
        _ => wrong,
    }
}

/// Whose settings are read.
#[derive(Clone, Copy)]
enum SettingScope<'a> {
    ToAll,
    To(&'a TargetName),
}

impl SettingScope<'_> {
    /// What is wrong, and where.
    fn problem(self, line: u64, why: &str) -> String {
        match self {
            Self::ToAll => format!("line {line}: {why}"),
            Self::To(target) => format!("line {line}: target {target}: {why}"),
        }
    }

    /// The setting, where it can be given here.
    fn setting(self, path: &str) -> Result<&'static Setting, String> {
        let setting = Setting::find(path).filter(|setting| !BARRED.contains(&setting.key));
        match (self, setting) {
            (Self::ToAll, Some(setting)) => Ok(setting),
            (Self::To(_), Some(setting)) if setting.per_target => Ok(setting),
            (Self::To(_), Some(_)) => Err(format!("{path} is for the whole program, not for a target")),
            (_, None) if path.starts_with(COLLECTORS) => {
                let expected = format!("expected a collector that can be turned on or off: {}", collectors());
                Err(format!("invalid collector {}: {expected}", named(&path[COLLECTORS.len()..])))
            }
            (Self::ToAll, None) => Err(format!("unknown setting {}{}", named(path), near_miss(path))),
            (Self::To(_), None) => Err(format!("unknown setting {} for a target{}", named(path), near_miss(path))),
        }
    }
}

fn flatten(
    file: &Arc<Path>,
    prefix: &str,
    entries: Vec<(Spanned<String>, YamlNode)>,
    whose: SettingScope<'_>,
    settings: &mut Section,
) -> Result<(), String> {
    for (key, node) in entries {
        let line = key.referenced.line();
        let path = format!("{prefix}{}", key.value.replace('_', "-"));
        let problem = |why: &str| whose.problem(line, why);
        let values = match node {
            // Nothing in it is as good as no section, and no value as good as no setting; but a slip is a slip.
            YamlNode::Empty if is_section(&path) || Setting::find(&path).is_some() => continue,
            YamlNode::Empty => Vec::new(),
            YamlNode::Map(entries) if is_section(&path) => {
                flatten(file, &format!("{path}."), entries, whose, settings)?;
                continue;
            }
            YamlNode::Map(_) if Setting::find(&path).is_some() => {
                return Err(problem(&format!("{path}: expected a value, not a mapping")));
            }
            YamlNode::Value(value) => vec![value],
            YamlNode::List(nodes) => {
                let plain: Option<Vec<String>> = nodes.into_iter().map(YamlNode::into_value).collect();
                plain.ok_or_else(|| problem(&format!("{}: expected a list of plain values", named(&path))))?
            }
            YamlNode::Map(_) => Vec::new(),
        };
        let setting = whose.setting(&path).map_err(|why| problem(&why))?;
        if values.len() != 1 && setting.flag != Flag::List {
            return Err(problem(&format!("{path}: expected one value, not {}", values.len())));
        }
        if setting.flag == Flag::Switch && !["true", "false"].contains(&values[0].as_str()) {
            return Err(problem(&format!("{path}: expected true or false")));
        }
        if settings.insert(setting.key, Entry { values, place: Location { file: Arc::clone(file), line } }).is_some() {
            return Err(problem(&format!("{path} is given twice")));
        }
    }
    Ok(())
}

/// Whether settings have this in front of a dot.
fn is_section(path: &str) -> bool {
    SETTINGS.iter().any(|setting| setting.key.strip_prefix(path).is_some_and(|rest| rest.starts_with('.')))
}

/// The setting that may have been meant.
fn near_miss(path: &str) -> String {
    let near = nearest(path, SETTINGS.iter().map(|setting| setting.key).filter(|key| !BARRED.contains(key)));
    near.map_or_else(String::new, |near| format!(": did you mean {near}?"))
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
enum YamlNode {
    Empty,
    Value(String),
    List(Vec<YamlNode>),
    Map(Vec<(Spanned<String>, YamlNode)>),
}

impl YamlNode {
    fn into_value(self) -> Option<String> {
        match self {
            Self::Value(value) => Some(value),
            Self::Empty | Self::List(_) | Self::Map(_) => None,
        }
    }
}

impl<'de> Deserialize<'de> for YamlNode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(YamlVisitor)
    }
}

struct YamlVisitor;

impl<'de> Visitor<'de> for YamlVisitor {
    type Value = YamlNode;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value, a list of values or a mapping")
    }

    fn visit_unit<E>(self) -> Result<YamlNode, E> {
        Ok(YamlNode::Empty)
    }

    fn visit_bool<E>(self, value: bool) -> Result<YamlNode, E> {
        Ok(YamlNode::Value(value.to_string()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<YamlNode, E> {
        Ok(YamlNode::Value(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<YamlNode, E> {
        Ok(YamlNode::Value(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<YamlNode, E> {
        Ok(YamlNode::Value(value.to_string()))
    }

    fn visit_str<E>(self, value: &str) -> Result<YamlNode, E> {
        Ok(YamlNode::Value(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<YamlNode, A::Error> {
        let mut values = Vec::new();
        while let Some(node) = seq.next_element()? {
            values.push(node);
        }
        Ok(YamlNode::List(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<YamlNode, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(YamlNode::Map(entries))
    }
}
