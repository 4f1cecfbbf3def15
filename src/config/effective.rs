//! `streamlag config`: the value of every setting and where it comes from, without secrets.

use std::fmt;

use serde::Serialize;

use crate::config::file::Section;
use crate::config::settings::{Flag, SETTINGS, Setting};
use crate::config::values::{Location, Origin, RawValue};
use crate::config::{API_TOKEN_VARIABLE, redis_target};
use crate::model::TargetName;
use crate::sys::terminal::{self, Align, Cell, escaped_json};

/// What stands for a value that must not be seen.
const NOT_SHOWN: &str = "(not shown)";

/// What stands for a setting without a value and a default.
const NOT_SET: &str = "(not set)";

/// Settings that ask for something else than to run.
pub(super) const ACTIONS: [&str; 2] = ["config.check", "healthcheck"];

/// What a file's path is called in the help.
pub(super) const FILE: &str = "FILE";

/// Every setting.
#[derive(Serialize)]
pub(super) struct Effective {
    settings: Vec<Line>,
    targets: Vec<Target>,
}

/// What a target of the file sets itself. Its other settings are those of the program.
#[derive(Serialize)]
struct Target {
    name: String,
    settings: Vec<Line>,
}

/// One setting.
#[derive(Serialize)]
struct Line {
    setting: &'static str,
    /// Null where it is not set.
    value: Option<Value>,
    from: Option<From>,
}

/// A value, or the values of a list.
#[derive(Serialize)]
#[serde(untagged)]
enum Value {
    One(String),
    Many(Vec<String>),
}

/// Where a value comes from.
#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum From {
    Flag,
    Environment { variable: &'static str },
    File { file: String, line: u64 },
    Default,
}

impl Effective {
    /// From the settings as they were given, whether there is an API token, and the targets of the file.
    pub(super) fn new(
        given: impl Fn(&'static Setting) -> Option<RawValue>,
        has_token: bool,
        targets: &[(TargetName, Section)],
    ) -> Self {
        let settings = SETTINGS.iter().filter(|setting| !ACTIONS.contains(&setting.key));
        let mut settings: Vec<Line> = settings.map(|setting| line(setting, given(setting))).collect();
        settings.push(Line {
            setting: API_TOKEN_VARIABLE,
            value: has_token.then(|| Value::One(NOT_SHOWN.to_owned())),
            from: has_token.then_some(From::Environment { variable: API_TOKEN_VARIABLE }),
        });
        let of_target = |(name, section): &(TargetName, Section)| {
            let own = SETTINGS.iter().filter_map(|setting| {
                let entry = section.get(setting.key)?;
                Some(line(setting, Some(entry.given(setting, Origin::File))))
            });
            Target { name: name.to_string(), settings: own.collect() }
        };
        Self { settings, targets: targets.iter().map(of_target).collect() }
    }

    /// For people: a table, and one for each target.
    pub(super) fn table(&self) -> String {
        let mut text = table(&self.settings);
        for Target { name, settings } in &self.targets {
            text.push_str(&format!("\nTarget {name}: the settings above, and\n"));
            text.push_str(&table(settings));
        }
        text
    }

    /// For programs.
    pub(super) fn json(&self) -> String {
        // Nothing of this can fail to be written.
        let json = serde_json::to_string_pretty(self).unwrap_or_default();
        escaped_json(&json).into_owned() + "\n"
    }
}

fn table(lines: &[Line]) -> String {
    let row = |line: &Line| {
        let value = match &line.value {
            None => NOT_SET.to_owned(),
            Some(Value::One(value)) => value.clone(),
            Some(Value::Many(values)) => values.join(","),
        };
        let from = line.from.as_ref().map_or(String::new(), From::to_string);
        [line.setting, &value, &from].map(Cell::new).to_vec()
    };
    let columns = ["SETTING", "VALUE", "FROM"].map(|name| (name, Align::Left));
    terminal::table(&columns, &lines.iter().map(row).collect::<Vec<_>>(), false)
}

fn line(setting: &'static Setting, given: Option<RawValue>) -> Line {
    Line {
        setting: setting.key,
        value: given.as_ref().map(|given| value(setting, given)),
        from: given.map(|given| match given.origin() {
            Origin::Flag => From::Flag,
            Origin::Environment(variable) => From::Environment { variable },
            Origin::File(Location { file, line }) | Origin::Target(_, Location { file, line }) => {
                From::File { file: file.to_string_lossy().into_owned(), line: *line }
            }
            Origin::Default => From::Default,
        }),
    }
}

fn value(setting: &Setting, given: &RawValue) -> Value {
    if setting.secret {
        let url = (setting.key == "redis.url").then(|| given.text().ok()).flatten();
        let shown = url.and_then(|url| redis_target::without_login(&url));
        return Value::One(shown.unwrap_or_else(|| NOT_SHOWN.to_owned()));
    }
    let names = match (setting.flag, setting.key) {
        (Flag::List, "logical-streams") => given.names_with_braces().ok(),
        (Flag::List, _) => given.names().ok(),
        _ => None,
    };
    match names {
        Some(names) => Value::Many(names),
        // Where the program looks for it.
        None if setting.value_name == FILE => Value::One(given.path().to_string_lossy().into_owned()),
        None => Value::One(given.values().iter().map(|value| value.to_string_lossy()).collect::<Vec<_>>().join(",")),
    }
}

impl fmt::Display for From {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag => f.write_str("flag"),
            Self::Environment { variable } => write!(f, "environment {variable}"),
            Self::File { file, line } => write!(f, "{file}:{line}"),
            Self::Default => f.write_str("default"),
        }
    }
}
