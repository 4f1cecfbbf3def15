//! A scaler as the configuration file lists it.

use crate::config::nearest::nearest;
use crate::config::values::{ConfigError, Location};
use crate::model::TargetName;
use crate::model::glob::is_pattern;
use crate::model::names::{self, MAX_NAME_BYTES};

/// Scalers of a file: each is asked for about six times a minute.
pub(super) const MAX_SCALERS: usize = 10_000;

/// What an error repeats of a key or a value, in bytes.
const MAX_SHOWN: usize = 200;

/// The keys of a scaler.
const KEYS: [&str; 9] =
    ["name", "stream", "streams", "logical_stream", "group", "signal", "target", "look_ahead", "redis_target"];

/// A key, where it stands, and its values.
type Entry = (String, Location, Vec<String>);

/// A scaler as the file lists it, not checked yet.
#[derive(Clone, Debug)]
pub(crate) struct ListedScaler {
    /// Where it begins.
    pub(super) location: Location,
    /// Its keys.
    pub(super) entries: Vec<Entry>,
}

impl ListedScaler {
    /// Its name, as far as there is one.
    pub(super) fn name(&self) -> String {
        let name = self.entries.iter().find(|(key, ..)| key == "name").and_then(|(.., values)| values.first());
        name.map(|name| shown(name)).unwrap_or_default()
    }

    /// Everything about it but where it stands.
    pub(super) fn values(&self) -> Vec<(&str, &[String])> {
        self.entries.iter().map(|(key, _, values)| (key.as_str(), values.as_slice())).collect()
    }

    /// Checks its name and its keys: each is known and has one value.
    pub(super) fn fields(&self) -> Result<ScalerFields<'_>, ConfigError> {
        const EXPECTED: &str = "expected 1 to 64 letters, digits, '.', '_' and '-'";
        let Self { location, entries } = self;
        let Some((_, line, values)) = entries.iter().find(|(key, ..)| key == "name") else {
            return Err(ConfigError::new(format!("a scaler in {location}: expected a name: {EXPECTED}")));
        };
        let name = match values.as_slice() {
            // It can be what the name of a target can.
            [name] if TargetName::new(name).is_some() => name,
            values => {
                let value = shown(&values.join(","));
                return Err(ConfigError::new(format!(
                    "invalid value {value:?} for name of a scaler in {line}: {EXPECTED}"
                )));
            }
        };
        for (place, (key, line, values)) in entries.iter().enumerate() {
            if !KEYS.contains(&key.as_str()) {
                let near = nearest(key, KEYS).map(|near| format!("did you mean {near}?"));
                let expected = near.unwrap_or_else(|| format!("expected one of {}", KEYS.join(", ")));
                let key = shown(key);
                return Err(ConfigError::new(format!("unknown key {key:?} of scaler {name} in {line}: {expected}")));
            }
            if entries[..place].iter().any(|(other, ..)| other == key) {
                return Err(ConfigError::new(format!("{key} of scaler {name} in {line} is given twice")));
            }
            if values.len() != 1 {
                let found =
                    if values.is_empty() { String::new() } else { format!(", found {:?}", shown(&values.join(","))) };
                return Err(ConfigError::new(format!("{key} of scaler {name} in {line}: expected one value{found}")));
            }
        }
        Ok(ScalerFields { name, location, entries })
    }
}

/// The fields of a scaler whose name is known, so that errors can say which it is.
pub(super) struct ScalerFields<'a> {
    pub(super) name: &'a str,
    location: &'a Location,
    entries: &'a [Entry],
}

impl<'a> ScalerFields<'a> {
    /// The value of a key.
    pub(super) fn get(&self, key: &str) -> Option<&'a str> {
        let (.., values) = self.entries.iter().find(|(given, ..)| given == key)?;
        values.first().map(String::as_str)
    }

    /// What is wrong with the whole scaler.
    pub(super) fn problem(&self, why: &str) -> ConfigError {
        ConfigError::new(format!("scaler {} in {}: {why}", self.name, self.location))
    }

    /// What is wrong with the value of this key.
    pub(super) fn invalid(&self, key: &str, why: &str) -> ConfigError {
        match self.entries.iter().find(|(given, ..)| given == key) {
            Some((_, line, values)) => {
                let (name, value) = (self.name, shown(&values.join(",")));
                ConfigError::new(format!("invalid value {value:?} for {key} of scaler {name} in {line}: {why}"))
            }
            None => self.problem(&format!("{key}: {why}")),
        }
    }

    /// A name or a pattern that is not empty and not too long.
    pub(super) fn name_or_pattern(&self, key: &str) -> Result<Option<&'a str>, ConfigError> {
        match self.get(key) {
            Some(text) if text.is_empty() || text.len() > MAX_NAME_BYTES => {
                Err(self.invalid(key, &format!("expected 1 to {MAX_NAME_BYTES} bytes")))
            }
            text => Ok(text),
        }
    }

    /// A name, and no pattern; `otherwise` says what to do with one.
    pub(super) fn plain_name(&self, key: &str, otherwise: &str) -> Result<Option<&'a str>, ConfigError> {
        match self.name_or_pattern(key)? {
            Some(text) if is_pattern(text) => {
                Err(self.invalid(key, &format!("expected a name, not a pattern{otherwise}")))
            }
            text => Ok(text),
        }
    }
}

/// A key or a value as it is repeated. What looks like a URL may have a password in it.
fn shown(text: &str) -> String {
    if text.contains("://") { "(not shown)".to_owned() } else { names::text(text.as_bytes(), MAX_SHOWN) }
}
