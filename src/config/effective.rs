//! `streamlag config`: the value of every setting and where it comes from, without secrets.

use std::borrow::Cow;
use std::fmt;

use serde::Serialize;

use crate::actions::notify::NotifyConfig;
use crate::actions::remediate::RemediationConfig;
use crate::analysis::scaling::Signal;
use crate::config::file::{Given, Located, NotifySection, RemediationSection, ScalerItem, Section, WebhookItem};
use crate::config::settings::{Flag, SETTINGS, Setting};
use crate::config::values::{Location, RawValue, ValueOrigin, shown};
use crate::config::{API_TOKEN_VARIABLE, Config, SettingSources, redis_target};
use crate::http::{DeclaredScaler, Scalers};
use crate::model::{TargetName, text};
use crate::sys::http_client::HttpEndpoint;
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
    settings: Vec<EffectiveSetting>,
    /// What each target of the file sets itself. Its other settings are those of the program.
    targets: Vec<Named>,
    scalers: Vec<Named>,
    notify: Vec<EffectiveSetting>,
    remediation: Vec<EffectiveSetting>,
}

/// The settings of one of several.
#[derive(Serialize)]
struct Named {
    name: String,
    settings: Vec<EffectiveSetting>,
}

/// One setting.
#[derive(Serialize)]
struct EffectiveSetting {
    setting: Cow<'static, str>,
    /// Null where it is not set.
    value: Option<EffectiveValue>,
    from: Option<SettingOrigin>,
}

/// A value, or the values of a list.
#[derive(Serialize)]
#[serde(untagged)]
enum EffectiveValue {
    One(String),
    Many(Vec<String>),
}

/// Where a value comes from.
#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum SettingOrigin {
    Flag,
    Environment { variable: &'static str },
    File { file: String, line: u64 },
    Default,
}

impl Effective {
    /// From the settings as they were given, what the file lists, and what was made of that.
    pub(super) fn new(
        given: impl Fn(&'static Setting) -> Option<RawValue>,
        sources: &impl SettingSources,
        config: &Config,
    ) -> Self {
        let has_token = sources.api_token().is_some();
        let settings = SETTINGS.iter().filter(|setting| !ACTIONS.contains(&setting.key));
        let mut settings: Vec<EffectiveSetting> = settings.map(|setting| line(setting, given(setting))).collect();
        settings.push(EffectiveSetting {
            setting: API_TOKEN_VARIABLE.into(),
            value: has_token.then(|| EffectiveValue::One(NOT_SHOWN.to_owned())),
            from: has_token.then_some(SettingOrigin::Environment { variable: API_TOKEN_VARIABLE }),
        });
        let of_target = |(name, section): &(TargetName, Section)| {
            let own = SETTINGS.iter().filter_map(|setting| {
                let entry = section.get(setting.key)?;
                Some(line(setting, Some(entry.given(setting, ValueOrigin::File))))
            });
            Named { name: name.to_string(), settings: own.collect() }
        };
        Self {
            settings,
            targets: sources.targets().iter().map(of_target).collect(),
            scalers: sources.scalers().iter().map(|listed| scaler(listed, &config.scalers)).collect(),
            notify: sources.notify().map(|listed| notify(listed, &config.notify)).unwrap_or_default(),
            remediation: sources
                .remediation()
                .map(|listed| remediation(listed, &config.remediation))
                .unwrap_or_default(),
        }
    }

    /// For people: a table, and one for each target, each scaler, `notify` and `remediation`.
    pub(super) fn table(&self) -> String {
        let mut text = table(&self.settings);
        for Named { name, settings } in &self.targets {
            text.push_str(&format!("\nTarget {name}: the settings above, and\n"));
            text.push_str(&table(settings));
        }
        for Named { name, settings } in &self.scalers {
            text.push_str(&format!("\nScaler {name}\n"));
            text.push_str(&table(settings));
        }
        for (name, settings) in [("Notifications", &self.notify), ("Remediation", &self.remediation)] {
            if !settings.is_empty() {
                text.push_str(&format!("\n{name}\n"));
                text.push_str(&table(settings));
            }
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

fn table(lines: &[EffectiveSetting]) -> String {
    let row = |line: &EffectiveSetting| {
        let value = match &line.value {
            None => NOT_SET.to_owned(),
            Some(EffectiveValue::One(value)) => value.clone(),
            Some(EffectiveValue::Many(values)) => values.join(","),
        };
        let from = line.from.as_ref().map_or(String::new(), SettingOrigin::to_string);
        [line.setting.as_ref(), &value, &from].map(Cell::new).to_vec()
    };
    let columns = ["SETTING", "VALUE", "FROM"].map(|name| (name, Align::Left));
    terminal::table(&columns, &lines.iter().map(row).collect::<Vec<_>>(), false)
}

fn line(setting: &'static Setting, given: Option<RawValue>) -> EffectiveSetting {
    EffectiveSetting {
        setting: setting.key.into(),
        value: given.as_ref().map(|given| value(setting, given)),
        from: given.map(|given| match given.origin() {
            ValueOrigin::Flag => SettingOrigin::Flag,
            ValueOrigin::Environment(variable) => SettingOrigin::Environment { variable },
            ValueOrigin::File(place) | ValueOrigin::Target(_, place) => SettingOrigin::file(place),
            ValueOrigin::Default => SettingOrigin::Default,
        }),
    }
}

/// A value of a section, or its default.
fn listed<T>(
    of: &Located<T>,
    setting: impl Into<Cow<'static, str>>,
    given: Option<&Given>,
    value: Option<String>,
) -> EffectiveSetting {
    let from = given.map_or(SettingOrigin::Default, |given| SettingOrigin::file(&of.location(given)));
    EffectiveSetting {
        setting: setting.into(),
        from: value.is_some().then_some(from),
        value: value.map(EffectiveValue::One),
    }
}

fn scaler(listed_as: &Located<ScalerItem>, scalers: &Scalers) -> Named {
    let given = &listed_as.section;
    let name = given.name.value.clone();
    let mut lines = Vec::new();
    for (key, given) in
        [("stream", &given.stream), ("streams", &given.streams), ("logical_stream", &given.logical_stream)]
    {
        if given.is_some() {
            lines.push(listed(listed_as, key, given.as_ref(), given.as_ref().map(|given| shown(&given.value))));
        }
    }
    // It is there: the configuration was checked.
    if let Some(DeclaredScaler { redis_target, scaler }) = scalers.find(&name) {
        let ahead = (scaler.signal == Signal::Forecast).then(|| text::duration(scaler.look_ahead));
        lines.extend([
            listed(listed_as, "group", given.group.as_ref(), Some(shown(&scaler.group.to_string()))),
            listed(listed_as, "signal", given.signal.as_ref(), Some(scaler.signal.as_str().to_owned())),
            listed(listed_as, "target", given.target.as_ref(), Some(scaler.target.to_string())),
            listed(listed_as, "look_ahead", given.look_ahead.as_ref(), ahead),
            listed(listed_as, "redis_target", given.redis_target.as_ref(), Some(redis_target.to_string())),
        ]);
    }
    Named { name, settings: lines }
}

/// A URL of a receiver without its path, which may be a secret.
fn url(url: &Given) -> String {
    HttpEndpoint::parse(&url.value).map_or_else(|_| NOT_SHOWN.to_owned(), |to| to.without_path())
}

/// A file by its path, where there is one.
fn file<T>(listed_as: &Located<T>, setting: String, given: Option<&Given>) -> EffectiveSetting {
    let path = given.map(|given| listed_as.path(given).to_string_lossy().into_owned());
    listed(listed_as, setting, given, path)
}

fn webhook<T>(listed_as: &Located<T>, setting: &str, item: &WebhookItem) -> impl Iterator<Item = EffectiveSetting> {
    let WebhookItem { url: to, secret_file, allow_plain } = item;
    let to = listed(listed_as, format!("{setting}.url"), Some(to), Some(url(to)));
    let secret = secret_file.as_ref().map(|given| file(listed_as, format!("{setting}.secret_file"), Some(given)));
    let plain = allow_plain
        .as_ref()
        .map(|given| listed(listed_as, format!("{setting}.allow_plain"), Some(given), Some(given.value.clone())));
    [Some(to), secret, plain].into_iter().flatten()
}

fn notify(listed_as: &Located<NotifySection>, config: &NotifyConfig) -> Vec<EffectiveSetting> {
    let given = &listed_as.section;
    let mut lines = Vec::new();
    for (n, to) in (1..).zip(&given.alertmanagers) {
        lines.push(listed(listed_as, format!("alertmanagers.{n}"), Some(to), Some(url(to))));
    }
    for (n, item) in (1..).zip(&given.webhooks) {
        lines.extend(webhook(listed_as, &format!("webhooks.{n}"), item));
    }
    for (name, value) in &config.labels {
        lines.push(listed(listed_as, format!("labels.{name}"), given.labels.get(name), Some(value.clone())));
    }
    let timing = &config.timing;
    lines.push(listed(listed_as, "for", given.r#for.as_ref(), config.hold.map(text::duration)));
    for (key, given, value) in [
        ("group_wait", &given.group_wait, timing.group_wait),
        ("group_interval", &given.group_interval, timing.group_interval),
        ("repeat_interval", &given.repeat_interval, timing.repeat_interval),
    ] {
        lines.push(listed(listed_as, key, given.as_ref(), Some(text::duration(value))));
    }
    lines.push(file(listed_as, "ca_file".to_owned(), given.ca_file.as_ref()));
    lines
}

fn remediation(listed_as: &Located<RemediationSection>, config: &RemediationConfig) -> Vec<EffectiveSetting> {
    let given = &listed_as.section;
    let mut lines =
        vec![listed(listed_as, "user", given.user.as_ref(), given.user.as_ref().map(|user| shown(&user.value)))];
    for (key, given) in [
        ("password_file", &given.password_file),
        ("audit_file", &given.audit_file),
        ("kill_switch_file", &given.kill_switch_file),
        ("ca_file", &given.ca_file),
    ] {
        lines.push(file(listed_as, key.to_owned(), given.as_ref()));
    }
    lines.push(listed(listed_as, "two_person", given.two_person.as_ref(), Some(config.two_person.to_string())));
    for ((n, item), rule) in (1..).zip(&given.rules).zip(&*config.rules) {
        let mut line = |key: &str, given: Option<&Given>, value: Option<String>| {
            lines.push(listed(listed_as, format!("rules.{n}.{key}"), given, value));
        };
        line("target", item.target.as_ref(), Some(shown(&rule.target)));
        line("stream", Some(&item.stream), Some(shown(&rule.stream)));
        line("group", Some(&item.group), Some(shown(&rule.group)));
        line("mode", Some(&item.mode), Some(rule.mode.as_str().to_owned()));
        let actions: Vec<&str> = rule.actions.iter().map(|action| action.as_str()).collect();
        line("actions", item.actions.first(), (!actions.is_empty()).then(|| actions.join(",")));
        let budget = item.budget.as_ref();
        let acts = rule.budget.map(|budget| budget.acts_per_hour.to_string());
        line("budget.acts_per_hour", budget.map(|budget| &budget.acts_per_hour), acts);
        line("budget.entries_per_act", budget.map(|budget| &budget.entries_per_act), Some(rule.entries().to_string()));
        if let (Some(item), Some(to)) = (&item.dead_letter, &rule.dead_letter) {
            line("dead_letter.stream", Some(&item.stream), Some(shown(&to.stream.to_string())));
            line("dead_letter.deliveries", Some(&item.deliveries), Some(to.deliveries.to_string()));
            line("dead_letter.idle", item.idle.as_ref(), Some(text::duration(to.idle)));
        }
        if let Some(hook) = &item.hook {
            lines.extend(webhook(listed_as, &format!("rules.{n}.hook"), hook));
        }
    }
    lines
}

fn value(setting: &Setting, given: &RawValue) -> EffectiveValue {
    if setting.secret {
        let shown = given.text().ok().and_then(|url| match setting.key {
            "redis.url" => redis_target::without_login(&url),
            _ => Some(HttpEndpoint::parse(&url).ok()?.without_path()),
        });
        return EffectiveValue::One(shown.unwrap_or_else(|| NOT_SHOWN.to_owned()));
    }
    let names = match (setting.flag, setting.key) {
        (Flag::List, "logical-streams") => given.names_with_braces().ok(),
        (Flag::List, _) => given.names().ok(),
        _ => None,
    };
    match names {
        Some(names) => EffectiveValue::Many(names),
        // Where the program looks for it.
        None if setting.value_name == FILE => EffectiveValue::One(given.path().to_string_lossy().into_owned()),
        None => EffectiveValue::One(
            given.values().iter().map(|value| value.to_string_lossy()).collect::<Vec<_>>().join(","),
        ),
    }
}

impl SettingOrigin {
    fn file(Location { file, line }: &Location) -> Self {
        Self::File { file: file.to_string_lossy().into_owned(), line: *line }
    }
}

impl fmt::Display for SettingOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag => f.write_str("flag"),
            Self::Environment { variable } => write!(f, "environment {variable}"),
            Self::File { file, line } => write!(f, "{file}:{line}"),
            Self::Default => f.write_str("default"),
        }
    }
}
