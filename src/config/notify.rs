//! `notify:` of the configuration file, checked. No error repeats a URL: that of many webhooks is a secret.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::actions::notify::client::{Client, Endpoint};
use crate::actions::notify::{MAX_RECEIVERS, NotifyConfig, Timing, Webhook};
use crate::config::MAX_DURATION;
use crate::config::file::{Given, ListedNotify};
use crate::config::values::ConfigError;
use crate::sys::files;

/// What Standard Webhooks puts before a secret in base64.
const SECRET_PREFIX: &str = "whsec_";

/// Bytes that a secret has, as Standard Webhooks has it; of more, some are wasted.
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// The permission of everybody to read.
const READABLE_BY_ALL: u32 = 0o004;

/// The job that the rules and the documents name.
const JOB: &str = "streamlag";

/// Labels that an alert gets from its rule.
const OWN_LABELS: [&str; 8] =
    ["alertname", "severity", "stream", "consumer_group", "logical_stream", "node", "state", "redis_target"];

/// Whom to tell of incidents; nobody where nothing is listed.
pub(super) fn checked(listed: Option<&ListedNotify>) -> Result<NotifyConfig, ConfigError> {
    let Some(listed) = listed else { return Ok(NotifyConfig::default()) };
    let default = Timing::default();
    let duration = |key: &str, otherwise, least| duration(listed, key, least).map(|given| given.unwrap_or(otherwise));
    let config = NotifyConfig {
        alertmanagers: listed.alertmanagers.iter().map(endpoint).collect::<Result<_, _>>()?,
        webhooks: listed.webhooks.iter().map(|entries| webhook(entries)).collect::<Result<_, _>>()?,
        labels: labels(listed)?,
        hold: self::duration(listed, "for", Duration::ZERO)?,
        ca: ca(listed)?,
        timing: Timing {
            group_wait: duration("group_wait", default.group_wait, Duration::ZERO)?,
            group_interval: duration("group_interval", default.group_interval, Duration::from_secs(1))?,
            repeat_interval: duration("repeat_interval", default.repeat_interval, Duration::from_secs(1))?,
        },
    };
    let names: Vec<String> = config.receivers().collect();
    if names.len() > MAX_RECEIVERS {
        return Err(ConfigError::new(format!(
            "notify: expected at most {MAX_RECEIVERS} receivers, found {}",
            names.len()
        )));
    }
    let endpoints: BTreeSet<&Endpoint> = config.webhooks.iter().map(|webhook| &webhook.endpoint).collect();
    let alertmanagers: BTreeSet<&Endpoint> = config.alertmanagers.iter().collect();
    if endpoints.len() + alertmanagers.len() < names.len() {
        return Err(ConfigError::new("notify: a receiver is listed twice".to_owned()));
    }
    Ok(config)
}

/// The files of secrets: those that webhooks sign with, and the configuration file if a webhook's URL in it may be one.
pub(super) fn secret_files(listed: &ListedNotify) -> Vec<PathBuf> {
    let secret = |given: &Given| match given.0.as_str() {
        "secret_file" => Some(path(given)),
        "url" => Endpoint::parse(&given.2).is_ok_and(|to| to.has_path()).then(|| given.1.file.to_path_buf()),
        _ => None,
    };
    listed.webhooks.iter().flatten().filter_map(secret).collect()
}

fn problem((key, location, _): &Given, why: &str) -> ConfigError {
    ConfigError::new(format!("notify.{key} in {location}: {why}"))
}

fn value<'a>(listed: &'a ListedNotify, key: &str) -> Option<&'a Given> {
    listed.values.iter().find(|(given, ..)| given == key)
}

fn duration(listed: &ListedNotify, key: &str, least: Duration) -> Result<Option<Duration>, ConfigError> {
    let Some(given) = value(listed, key) else { return Ok(None) };
    let duration = humantime::parse_duration(&given.2).ok().filter(|time| (least..=MAX_DURATION).contains(time));
    let least = humantime::format_duration(least);
    duration.map(Some).ok_or_else(|| {
        problem(given, &format!("invalid value {:?}: expected a duration from {least} to 1d, such as 30s", given.2))
    })
}

fn endpoint(given: &Given) -> Result<Endpoint, ConfigError> {
    Endpoint::parse(&given.2).map_err(|why| problem(given, &why))
}

fn labels(listed: &ListedNotify) -> Result<BTreeMap<String, String>, ConfigError> {
    let mut labels = BTreeMap::from([("job".to_owned(), JOB.to_owned())]);
    for (name, location, value) in &listed.labels {
        let mut letters = name.bytes();
        let is_first = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_';
        let is_name =
            letters.next().is_some_and(is_first) && letters.all(|byte| is_first(byte) || byte.is_ascii_digit());
        if !is_name || OWN_LABELS.contains(&name.as_str()) {
            let own = OWN_LABELS.join(", ");
            let why = format!("invalid label {name:?}: expected letters, digits and _, and none of {own}");
            return Err(ConfigError::new(format!("notify.labels in {location}: {why}")));
        }
        // An empty label is none.
        if value.is_empty() { drop(labels.remove(name)) } else { drop(labels.insert(name.clone(), value.clone())) }
    }
    Ok(labels)
}

/// A path of the file, which is relative to the file.
fn path((_, location, value): &Given) -> PathBuf {
    location.beside(value)
}

fn ca(listed: &ListedNotify) -> Result<Option<Arc<[u8]>>, ConfigError> {
    let Some(given) = value(listed, "ca_file") else { return Ok(None) };
    let pem = files::read(&path(given)).and_then(|pem| Client::new(Some(&pem)).map(|_| pem));
    pem.map(|pem| Some(pem.into())).map_err(|why| problem(given, &why))
}

fn webhook(entries: &[Given]) -> Result<Webhook, ConfigError> {
    let get = |key: &str| entries.iter().find(|(given, ..)| given == key);
    let of = |given: &Given, why: &str| ConfigError::new(format!("notify.webhooks.{} in {}: {why}", given.0, given.1));
    let Some(url) = get("url") else {
        let place = entries.first().map_or(String::new(), |(_, location, _)| format!(" in {location}"));
        return Err(ConfigError::new(format!("notify.webhooks{place}: expected a url")));
    };
    let endpoint = Endpoint::parse(&url.2).map_err(|why| of(url, &why))?;
    let allows_plain = match get("allow_plain") {
        None => false,
        Some(given) => match given.2.as_str() {
            "true" => true,
            "false" => false,
            _ => return Err(of(given, "expected true or false")),
        },
    };
    if endpoint.is_plain_elsewhere() && !allows_plain {
        return Err(of(url, "expected https:// for another host; allow_plain: true sends without TLS"));
    }
    let secret = get("secret_file").map(|given| secret(&path(given)).map_err(|why| of(given, &why))).transpose()?;
    Ok(Webhook { endpoint, secret })
}

fn secret(path: &Path) -> Result<Arc<[u8]>, String> {
    let text = files::read_text(path)?;
    // That a group can read it, or others write it, is a warning as with every file of secrets.
    if let Some(mode) = files::exposed_mode(path).filter(|mode| mode & READABLE_BY_ALL != 0) {
        return Err(format!("expected a file that not everybody can read, such as mode 0640; it has {mode:04o}"));
    }
    let text = text.trim();
    let secret = match text.strip_prefix(SECRET_PREFIX) {
        Some(encoded) => STANDARD.decode(encoded).map_err(|_| format!("expected base64 behind {SECRET_PREFIX}"))?,
        None => text.as_bytes().to_vec(),
    };
    if !SECRET_BYTES.contains(&secret.len()) {
        let (least, most) = (SECRET_BYTES.start(), SECRET_BYTES.end());
        return Err(format!("expected a secret of {least} to {most} bytes, found {}", secret.len()));
    }
    Ok(secret.into())
}
