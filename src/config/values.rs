//! Values as they are given, and what is made of them.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::analysis::logical::split_list;
use crate::config::settings::{Flag, Setting};
use crate::model::TargetName;
use crate::model::names::{self, MAX_NAME_BYTES};
use crate::model::text;

/// What an error repeats of a value, in bytes.
const MAX_VALUE_BYTES: usize = 1024;

/// What an error says of what is wrong with a value, in bytes: that may repeat a piece of a file.
const MAX_WHY_BYTES: usize = 2048;

/// Bytes of a mebibyte.
pub(super) const MIB: u64 = 1 << 20;

/// A key or a value of a section as it is repeated. What looks like a URL may have a password in it.
pub(super) fn shown(text: &str) -> String {
    if text.contains("://") { "(not shown)".to_owned() } else { names::text(text.as_bytes(), MAX_VALUE_BYTES) }
}

/// What is wrong with the configuration: one line that names the setting, its value and what is expected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(String);

impl ConfigError {
    pub(super) fn new(text: String) -> Self {
        Self(text)
    }

    pub(super) fn missing(key: &str) -> Self {
        Self(format!("--{key} is missing"))
    }

    /// A value of an argument that is no setting, and what was expected.
    pub(super) fn invalid(value: &str, argument: &str, why: &str) -> Self {
        Self(format!("invalid value {:?} for {argument}: {why}", names::text(value.as_bytes(), MAX_VALUE_BYTES)))
    }
}

/// No duration, or none within bounds.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a duration between {} and {}, such as {example}", text::duration(*.min), text::duration(*.max))]
pub(super) struct DurationError {
    min: Duration,
    max: Duration,
    example: &'static str,
}

/// A duration within bounds, both included.
pub(super) fn duration(
    text: &str,
    min: Duration,
    max: Duration,
    example: &'static str,
) -> Result<Duration, DurationError> {
    let duration = humantime::parse_duration(text).ok().filter(|duration| (min..=max).contains(duration));
    duration.ok_or(DurationError { min, max, example })
}

/// A place in the configuration file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Location {
    pub(super) file: Arc<Path>,
    pub(super) line: u64,
}

impl Location {
    /// A path that the file names, which is relative to the file.
    pub(super) fn beside(&self, path: &Path) -> PathBuf {
        self.file.parent().unwrap_or(Path::new("")).join(path)
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, line {}", names::text(self.file.to_string_lossy().as_bytes(), MAX_VALUE_BYTES), self.line)
    }
}

/// Where a value was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ValueOrigin {
    /// On the command line.
    Flag,
    /// In this environment variable.
    Environment(&'static str),
    /// In the file, for all targets.
    File(Location),
    /// In the file, for this target.
    Target(TargetName, Location),
    /// Nowhere.
    Default,
}

/// The value of a setting as it was given.
#[derive(Clone, Debug)]
pub struct RawValue {
    setting: &'static Setting,
    origin: ValueOrigin,
    values: Vec<OsString>,
    is_inherited: bool,
}

/// Units of sizes in bytes; none is bytes.
const BYTE_UNITS: [(&str, u64); 8] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("kB", 1000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("B", 1),
    ("", 1),
];

fn with_byte_unit(bytes: u64) -> String {
    let exact = |(unit, size): &&(&str, u64)| !unit.is_empty() && size.is_power_of_two() && bytes.is_multiple_of(*size);
    let largest = BYTE_UNITS.iter().filter(exact).max_by_key(|(_, size)| *size);
    largest.map_or_else(|| bytes.to_string(), |(unit, size)| format!("{}{unit}", bytes / size))
}

/// A truth value in words, whatever their case.
pub(super) fn truth(text: &str) -> Option<bool> {
    let is_one_of = |words: [&str; 3]| words.iter().any(|word| word.eq_ignore_ascii_case(text));
    if is_one_of(["true", "yes", "on"]) {
        return Some(true);
    }
    is_one_of(["false", "no", "off"]).then_some(false)
}

impl RawValue {
    pub(super) fn new(setting: &'static Setting, origin: ValueOrigin, values: Vec<OsString>) -> Self {
        Self { setting, origin, values, is_inherited: false }
    }

    /// The same, for a target that does not give it itself.
    pub(super) fn inherited(self) -> Self {
        Self { is_inherited: true, ..self }
    }

    /// Whether a target has it from what holds for all of them, and so may be meant or not.
    pub(super) fn is_inherited(&self) -> bool {
        self.is_inherited
    }

    /// The name under which it was given.
    fn name(&self) -> String {
        match (&self.origin, self.setting.env) {
            (ValueOrigin::Environment(variable), _) => (*variable).to_owned(),
            (ValueOrigin::File(place), _) => format!("{} in {place}", self.setting.key),
            (ValueOrigin::Target(target, place), _) => format!("{} of target {target} in {place}", self.setting.key),
            (_, Some(env)) if self.setting.flag == Flag::None => env.to_owned(),
            _ => format!("--{}", self.setting.key),
        }
    }

    /// Its value, where that may be shown.
    fn value(&self) -> String {
        if self.setting.secret {
            return "(not shown)".to_owned();
        }
        let values: Vec<_> = self.values.iter().map(|value| value.to_string_lossy()).collect();
        format!("{:?}", names::text(values.join(",").as_bytes(), MAX_VALUE_BYTES))
    }

    /// The setting by the name under which it was given, and its value where it may be shown.
    pub(super) fn shown(&self) -> String {
        format!("{} {}", self.name(), self.value())
    }

    /// Where it was given.
    pub(super) fn origin(&self) -> &ValueOrigin {
        &self.origin
    }

    /// Its values as they were given.
    pub(super) fn values(&self) -> &[OsString] {
        &self.values
    }

    /// Whether it was not given.
    pub(super) fn is_default(&self) -> bool {
        self.origin == ValueOrigin::Default
    }

    /// A problem with this value. The one place where it becomes text: `why` says what was expected.
    pub(super) fn problem(&self, why: impl fmt::Display) -> ConfigError {
        let why = names::text(why.to_string().as_bytes(), MAX_WHY_BYTES);
        ConfigError(format!("invalid value {} for {}: {why}", self.value(), self.name()))
    }

    /// The value as text; where a flag takes one value, there is one.
    pub(super) fn text(&self) -> Result<String, ConfigError> {
        let value = self.values.last().cloned().unwrap_or_default();
        value.into_string().map_err(|_| self.problem("expected UTF-8 text"))
    }

    /// A whole number within bounds, both included.
    pub(super) fn whole_number(&self, min: u64, max: u64) -> Result<u64, ConfigError> {
        let text = self.text()?;
        let number = text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten();
        number.filter(|number| (min..=max).contains(number)).ok_or_else(|| {
            let takes = if max == u64::MAX { format!("of at least {min}") } else { format!("between {min} and {max}") };
            self.problem(format!("expected a whole number {takes}"))
        })
    }

    /// A number of bytes with its unit, within bounds, both included.
    pub(super) fn bytes(&self, min: u64, max: u64) -> Result<u64, ConfigError> {
        let text = self.text()?;
        let bytes = BYTE_UNITS.iter().find_map(|(unit, size)| {
            let digits = text.strip_suffix(unit)?.trim_end();
            let number: u64 =
                digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok()).flatten()?;
            number.checked_mul(*size)
        });
        bytes.filter(|bytes| (min..=max).contains(bytes)).ok_or_else(|| {
            let [min, max] = [min, max].map(with_byte_unit);
            self.problem(format!("expected a size between {min} and {max}, such as 64MiB"))
        })
    }

    /// A duration within bounds, both included.
    pub(super) fn duration(&self, min: Duration, max: Duration) -> Result<Duration, ConfigError> {
        self.duration_like(min, max, "500ms, 5s or 1m")
    }

    /// The same with another example.
    pub(super) fn duration_like(
        &self,
        min: Duration,
        max: Duration,
        example: &'static str,
    ) -> Result<Duration, ConfigError> {
        duration(&self.text()?, min, max, example).map_err(|why| self.problem(why))
    }

    /// One of these words, in any case.
    pub(super) fn one_of<T: Copy>(&self, words: &[(&str, T)]) -> Result<T, ConfigError> {
        let text = self.text()?;
        words.iter().find(|(word, _)| word.eq_ignore_ascii_case(&text)).map(|(_, value)| *value).ok_or_else(|| {
            let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            self.problem(format!("expected one of {}", words.join(", ")))
        })
    }

    /// A truth value, in the spellings that are usual in environments.
    pub(super) fn boolean(&self) -> Result<bool, ConfigError> {
        let known = |text: &str| match text {
            "1" => Some(true),
            "0" => Some(false),
            word => truth(word),
        };
        self.text().ok().and_then(|text| known(&text)).ok_or_else(|| self.problem("expected true or false"))
    }

    /// A share, within bounds in percent, both included.
    pub(super) fn share(&self, min: f64, max: f64) -> Result<f64, ConfigError> {
        let text = self.text()?;
        let digits = text.strip_suffix('%').map(str::trim_end);
        let plain = digits.filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.'));
        let percent: Option<f64> = plain.and_then(|digits| digits.parse().ok());
        let percent = percent.filter(|percent| (min..=max).contains(percent));
        percent
            .map(|percent| percent / 100.0)
            .ok_or_else(|| self.problem(format!("expected a percentage between {min}% and {max}%")))
    }

    /// Names: separated by commas on the command line and in the environment, one by one in the file.
    pub(super) fn names(&self) -> Result<Vec<String>, ConfigError> {
        let names = self.pieces(|text| text.split(',').map(str::to_owned).collect())?;
        if names.iter().any(|name| name.len() > MAX_NAME_BYTES) {
            return Err(self.problem(format!("expected names of at most {MAX_NAME_BYTES} bytes each")));
        }
        Ok(names)
    }

    /// The same, where a comma between braces belongs to a name.
    pub(super) fn names_with_braces(&self) -> Result<Vec<String>, ConfigError> {
        self.pieces(|text| split_list(text).into_iter().map(str::to_owned).collect())
    }

    fn pieces(&self, split: impl Fn(&str) -> Vec<String>) -> Result<Vec<String>, ConfigError> {
        let mut names = Vec::new();
        for value in &self.values {
            let text = value.to_str().ok_or_else(|| self.problem("expected UTF-8 text"))?;
            match self.origin {
                ValueOrigin::File(_) | ValueOrigin::Target(..) => names.push(text.trim().to_owned()),
                _ => names.extend(split(text).iter().map(|name| name.trim().to_owned())),
            }
        }
        if names.is_empty() || names.iter().any(String::is_empty) {
            return Err(self.problem("expected one or more names separated by commas, none of them empty"));
        }
        Ok(names)
    }

    /// Hosts with their ports.
    pub(super) fn endpoints(&self) -> Result<Vec<(String, u16)>, ConfigError> {
        let endpoint = |given: &String| {
            let (host, port) = given.rsplit_once(':')?;
            let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
            let bare = bracketed.unwrap_or(host);
            let is_host = bare.bytes().all(|byte| byte.is_ascii_graphic() && !b"/@[]".contains(&byte));
            let fits = is_host && !bare.is_empty() && (bracketed.is_some() || !bare.contains(':'));
            let port = port.parse().ok().filter(|port| *port > 0)?;
            fits.then(|| (bare.to_owned(), port))
        };
        let endpoints: Option<_> = self.names()?.iter().map(endpoint).collect();
        endpoints.ok_or_else(|| self.problem("expected host:port, such as redis-2:6379 or [::1]:26379"))
    }

    /// Addresses to listen on. A missing host means every IPv4 address.
    pub(super) fn listen_addresses(&self) -> Result<Vec<String>, ConfigError> {
        let address = |given: String| {
            let (host, port) = given.rsplit_once(':')?;
            let _: u16 = port.parse().ok()?;
            let bare_ipv6 = host.contains(':') && !(host.starts_with('[') && host.ends_with(']'));
            let host = if host.is_empty() { "0.0.0.0" } else { host };
            let printable = host.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/');
            (printable && !bare_ipv6).then(|| format!("{host}:{port}"))
        };
        let addresses: Option<Vec<String>> = self.names()?.into_iter().map(address).collect();
        addresses.ok_or_else(|| self.problem("expected host:port, such as 0.0.0.0:8000, [::]:8000 or :8000"))
    }

    /// The configuration file, if it was given there.
    pub(super) fn file(&self) -> Option<PathBuf> {
        match &self.origin {
            ValueOrigin::File(place) | ValueOrigin::Target(_, place) => Some(place.file.to_path_buf()),
            ValueOrigin::Flag | ValueOrigin::Environment(_) | ValueOrigin::Default => None,
        }
    }

    /// The file that the value names: relative to the configuration file where it is given there, as the paths in the web configuration
    /// are to that file.
    pub(super) fn path(&self) -> PathBuf {
        let path = self.values.last().map(PathBuf::from).unwrap_or_default();
        match &self.origin {
            ValueOrigin::File(place) | ValueOrigin::Target(_, place) => place.beside(&path),
            ValueOrigin::Flag | ValueOrigin::Environment(_) | ValueOrigin::Default => path,
        }
    }
}

impl fmt::Display for RawValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown())
    }
}
