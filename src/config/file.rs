//! The configuration file: YAML whose keys are the flags' names, nested or with dots, dashes or underscores.

mod node;
mod notify;
pub(in crate::config) mod remediation;
mod scaler;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_saphyr::Error;

use crate::config::nearest::nearest;
use crate::config::settings::{COLLECTORS, Flag, SETTINGS, Setting, collectors};
use crate::config::values::{ConfigError, Location, RawValue, ValueOrigin, truth};
use crate::model::TargetName;
use crate::sys::files;
pub(crate) use node::Given;
use node::{Entries, YamlNode};
pub(crate) use notify::{NotifySection, WebhookItem};
use remediation::REMEDIATION;
pub(crate) use remediation::RemediationSection;
pub(crate) use scaler::ScalerItem;

/// Targets of a file: each has a connection, a page and a poll of its own, and is one to look at.
pub const MAX_TARGETS: usize = 1000;

/// The longest key that is repeated where there is no such setting: twice the longest there is.
const MAX_NAMED: usize = 80;

/// The values of a setting, and where they stand.
#[derive(Clone, Debug)]
pub(crate) struct FileValues {
    pub(super) values: Vec<String>,
    pub(super) place: Location,
}

impl FileValues {
    /// The values as those of this setting.
    pub(super) fn given(&self, setting: &'static Setting, origin: impl FnOnce(Location) -> ValueOrigin) -> RawValue {
        RawValue::new(setting, origin(self.place.clone()), self.values.iter().map(OsString::from).collect())
    }

    /// Whether it turns a switch on.
    pub(super) fn switch(&self) -> bool {
        self.values.first().and_then(|value| truth(value)) == Some(true)
    }
}

/// Settings by key.
pub(crate) type Section = BTreeMap<&'static str, FileValues>;

/// A section, and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct Located<T> {
    file: Arc<Path>,
    /// Where it begins.
    line: u64,
    pub(super) section: T,
}

impl<T> Located<T> {
    /// Where it begins.
    pub(super) fn begins(&self) -> Location {
        Location { file: Arc::clone(&self.file), line: self.line }
    }

    /// Where one of its values stands.
    pub(super) fn location(&self, given: &Given) -> Location {
        Location { line: given.line, ..self.begins() }
    }

    /// The file that one of its values names.
    pub(super) fn path(&self, given: &Given) -> PathBuf {
        self.begins().beside(Path::new(&given.value))
    }
}

impl<T: Hash> Hash for Located<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.section.hash(state);
    }
}

/// What is wrong with a file.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConfigFileError {
    #[error(transparent)]
    Unreadable(#[from] files::FileError),
    #[error("{0}")]
    Whole(String),
    #[error("line {line}: {why}")]
    Line { line: u64, why: String },
    #[error("line {line} column {column}: {why}")]
    Place { line: u64, column: u64, why: String },
    /// It says itself where it is.
    #[error("{0}")]
    Scaler(ConfigError),
}

impl ConfigFileError {
    fn at(line: u64, why: &str) -> Self {
        Self::Line { line, why: why.to_owned() }
    }
}

/// The settings of a file.
#[derive(Clone, Debug, Default)]
pub(super) struct File {
    settings: Section,
    targets: Vec<(TargetName, Section)>,
    scalers: Vec<Located<ScalerItem>>,
    notify: Option<Located<NotifySection>>,
    remediation: Option<Located<RemediationSection>>,
}

impl File {
    /// Reads a file.
    ///
    /// # Errors
    /// What is wrong with it, and where.
    pub(super) fn read(path: &Path) -> Result<Self, ConfigFileError> {
        Self::parse(&files::read_settled_text(path)?, path)
    }

    /// Reads a file's text, which is that of `path`.
    ///
    /// # Errors
    /// What is wrong with it, and where.
    pub(super) fn parse(text: &str, path: &Path) -> Result<Self, ConfigFileError> {
        let path: Arc<Path> = path.into();
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let node = YamlNode::parse(text, serde_saphyr::Options::default());
        match node.map_err(|error| scaler_key_twice(text, &path, &error).unwrap_or_else(|| describe(&error)))? {
            YamlNode::Empty => Ok(Self::default()),
            YamlNode::Map(mut entries) => {
                let scalers = scaler::scalers(&path, &mut entries)?;
                let notify = notify::notify(&path, &mut entries)?;
                let remediation = remediation::remediation(&path, &mut entries)?;
                let targets = targets(&path, &mut entries)?;
                let mut settings = Section::new();
                flatten(&path, "", entries, SettingScope::ToAll, &mut settings)?;
                Ok(Self { settings, targets, scalers, notify, remediation })
            }
            YamlNode::Value(_) | YamlNode::Typed(..) | YamlNode::List(_) => {
                Err(ConfigFileError::Whole("expected a mapping of settings".to_owned()))
            }
        }
    }

    pub(super) fn get(&self, key: &str) -> Option<&FileValues> {
        self.settings.get(key)
    }

    /// The targets in the order of the file, with what is theirs alone; none where the file lists none.
    pub(super) fn targets(&self) -> &[(TargetName, Section)] {
        &self.targets
    }

    /// Whom to tell of incidents.
    pub(super) fn notify(&self) -> Option<&Located<NotifySection>> {
        self.notify.as_ref()
    }

    /// What may be done about sick groups, not checked yet.
    pub(super) fn remediation(&self) -> Option<&Located<RemediationSection>> {
        self.remediation.as_ref()
    }

    /// The scalers in the order of the file.
    pub(super) fn scalers(&self) -> &[Located<ScalerItem>] {
        &self.scalers
    }
}

/// Takes a section out of the top level: the line of its key, and what is behind it.
fn take(entries: &mut Entries, key: &str) -> Option<(u64, YamlNode)> {
    let place = entries.iter().position(|(given, _)| given.value == key)?;
    let (key, node) = entries.remove(place);
    Some((key.referenced.line(), node))
}

/// The error where a key of a scaler is given twice: YAML's own error does not name the scaler.
fn scaler_key_twice(text: &str, path: &Arc<Path>, error: &Error) -> Option<ConfigFileError> {
    if !matches!(error.without_snippet(), Error::DuplicateMappingKey { .. }) {
        return None;
    }
    let mut options = serde_saphyr::Options::default();
    options.duplicate_keys = serde_saphyr::DuplicateKeyPolicy::PassThrough;
    let Ok(YamlNode::Map(mut entries)) = YamlNode::parse(text, options) else { return None };
    scaler::scalers(path, &mut entries).err().filter(|error| matches!(error, ConfigFileError::Scaler(_)))
}

/// Takes the targets out of the top level.
fn targets(path: &Arc<Path>, entries: &mut Entries) -> Result<Vec<(TargetName, Section)>, ConfigFileError> {
    const TAKES: &str = "targets: expected a list of mappings, each with a name";
    let (line, listed) = match take(entries, "targets") {
        None | Some((_, YamlNode::Empty)) => return Ok(Vec::new()),
        Some((line, YamlNode::List(listed))) => (line, listed),
        Some((line, _)) => return Err(ConfigFileError::at(line, TAKES)),
    };
    if listed.len() > MAX_TARGETS {
        let why = format!("targets: expected at most {MAX_TARGETS} targets, not {}", listed.len());
        return Err(ConfigFileError::at(line, &why));
    }
    let mut targets: Vec<(TargetName, Section)> = Vec::with_capacity(listed.len());
    let mut names = BTreeSet::new();
    for node in listed {
        let YamlNode::Map(mut entries) = node else { return Err(ConfigFileError::at(line, TAKES)) };
        let begins = entries.first().map_or(line, |(key, _)| key.referenced.line());
        let (line, name) =
            take(&mut entries, "name").ok_or_else(|| ConfigFileError::at(begins, "expected a name in each target"))?;
        let name = if let YamlNode::Value(name) = name { TargetName::new(&name) } else { None };
        let takes = "name: expected 1 to 64 letters, digits, '.', '_' and '-'";
        let name = name.ok_or_else(|| ConfigFileError::at(line, takes))?;
        if !names.insert(name.clone()) {
            return Err(ConfigFileError::at(line, &format!("there are two targets of the name {name}")));
        }
        let mut section = Section::new();
        flatten(path, "", entries, SettingScope::To(&name), &mut section)?;
        targets.push((name, section));
    }
    if targets.is_empty() {
        return Err(ConfigFileError::at(line, &format!("{TAKES}; the list is empty")));
    }
    Ok(targets)
}

/// What the parser found, and where, but not the text that it found there: that may be a URL with a password in it.
fn describe(error: &Error) -> ConfigFileError {
    let why = match error.without_snippet() {
        Error::DuplicateMappingKey { key: Some(key), .. } if is_key(key) => format!("{key} is given twice"),
        Error::DuplicateMappingKey { .. } => "a key is given twice".to_owned(),
        Error::MultipleDocuments { .. } => "expected one document".to_owned(),
        Error::Eof { .. } => "it ends in the middle of something".to_owned(),
        _ => "expected YAML: settings with a value, a list of values, or more settings".to_owned(),
    };
    match error.location() {
        Some(place) if place.line() > 0 => ConfigFileError::Place { line: place.line(), column: place.column(), why },
        _ => ConfigFileError::Whole(why),
    }
}

/// Whose settings are read.
#[derive(Clone, Copy)]
enum SettingScope<'a> {
    ToAll,
    To(&'a TargetName),
}

/// Why there is no such setting here.
#[derive(Debug, thiserror::Error)]
enum SettingPathError {
    #[error("{0} is for the whole program, not for a target")]
    NotOfTarget(String),
    #[error("invalid collector {}: expected a collector that can be turned on or off: {}", named(.0), collectors())]
    Collector(String),
    #[error("unknown setting {}{}", named(.0), near_miss(.0, &SECTIONS))]
    Unknown(String),
    #[error("unknown setting {} for a target{}", named(.0), near_miss(.0, &[]))]
    UnknownOfTarget(String),
}

impl SettingScope<'_> {
    /// What is wrong, and where.
    fn problem(self, line: u64, why: &str) -> ConfigFileError {
        match self {
            Self::ToAll => ConfigFileError::at(line, why),
            Self::To(target) => ConfigFileError::at(line, &format!("target {target}: {why}")),
        }
    }

    /// The setting, where it can be given here.
    fn setting(self, path: &str) -> Result<&'static Setting, SettingPathError> {
        let setting = Setting::find(path).filter(|setting| !BARRED.contains(&setting.key));
        match (self, setting) {
            (Self::ToAll, Some(setting)) => Ok(setting),
            (Self::To(_), Some(setting)) if setting.per_target => Ok(setting),
            (Self::To(_), Some(_)) => Err(SettingPathError::NotOfTarget(path.to_owned())),
            (_, None) if path.starts_with(COLLECTORS) => {
                Err(SettingPathError::Collector(path[COLLECTORS.len()..].to_owned()))
            }
            (Self::ToAll, None) => Err(SettingPathError::Unknown(path.to_owned())),
            (Self::To(_), None) => Err(SettingPathError::UnknownOfTarget(path.to_owned())),
        }
    }
}

fn flatten(
    file: &Arc<Path>,
    prefix: &str,
    entries: Entries,
    whose: SettingScope<'_>,
    settings: &mut Section,
) -> Result<(), ConfigFileError> {
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
            YamlNode::Map(_) => Vec::new(),
            node => {
                let values = node.values();
                let values =
                    values.ok_or_else(|| problem(&format!("{}: expected a list of plain values", named(&path))))?;
                values.into_iter().map(str::to_owned).collect()
            }
        };
        let setting = whose.setting(&path).map_err(|why| problem(&why.to_string()))?;
        if values.len() != 1 && setting.flag != Flag::List {
            return Err(problem(&format!("{path}: expected one value, not {}", values.len())));
        }
        if setting.flag == Flag::Switch && truth(&values[0]).is_none() {
            return Err(problem(&format!("{path}: expected true or false")));
        }
        if settings
            .insert(setting.key, FileValues { values, place: Location { file: Arc::clone(file), line } })
            .is_some()
        {
            return Err(problem(&format!("{path} is given twice")));
        }
    }
    Ok(())
}

/// Whether settings have this in front of a dot.
fn is_section(path: &str) -> bool {
    SETTINGS.iter().any(|setting| setting.key.strip_prefix(path).is_some_and(|rest| rest.starts_with('.')))
}

/// The setting that may have been meant, or the section, of these.
fn near_miss(path: &str, sections: &[&'static str]) -> String {
    let settings = SETTINGS.iter().map(|setting| setting.key).filter(|key| !BARRED.contains(key));
    let near = nearest(path, settings.chain(sections.iter().copied()));
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

/// What only a file has.
const SECTIONS: [&str; 4] = ["targets", "scalers", "notify", REMEDIATION];

/// Settings that a file cannot hold: they say what to do with it.
const BARRED: [&str; 3] = ["config.file", "config.check", "healthcheck"];
