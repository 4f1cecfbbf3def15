//! `notify:` of the configuration file, checked. No error repeats a URL: that of many webhooks is a secret.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::actions::notify::{MAX_RECEIVERS, NotifyConfig, Timing, Webhook};
use crate::config::MAX_DURATION;
use crate::config::file::{Given, InFile, NotifySection, WebhookItem};
use crate::config::values::{self, ConfigError, Location, shown};
use crate::sys::files;
use crate::sys::http_client::{Client, Endpoint};

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
pub(super) fn checked(listed: Option<&InFile<NotifySection>>) -> Result<NotifyConfig, ConfigError> {
    let Some(listed) = listed else { return Ok(NotifyConfig::default()) };
    let given = &listed.section;
    let default = Timing::default();
    let of_a_second = Duration::from_secs(1);
    let config = NotifyConfig {
        alertmanagers: given.alertmanagers.iter().map(|url| alertmanager(listed, url)).collect::<Result<_, _>>()?,
        webhooks: given.webhooks.iter().map(|item| webhook(listed, item)).collect::<Result<_, _>>()?,
        labels: labels(listed)?,
        hold: duration(listed, "for", given.r#for.as_ref(), Duration::ZERO)?,
        ca: ca(listed)?,
        timing: Timing {
            group_wait: duration(listed, "group_wait", given.group_wait.as_ref(), Duration::ZERO)?
                .unwrap_or(default.group_wait),
            group_interval: duration(listed, "group_interval", given.group_interval.as_ref(), of_a_second)?
                .unwrap_or(default.group_interval),
            repeat_interval: duration(listed, "repeat_interval", given.repeat_interval.as_ref(), of_a_second)?
                .unwrap_or(default.repeat_interval),
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
pub(super) fn secret_files(listed: &InFile<NotifySection>) -> Vec<PathBuf> {
    let of = |webhook: &WebhookItem| {
        let is_secret = Endpoint::parse(&webhook.url.value).is_ok_and(|to| to.has_path());
        let file = is_secret.then(|| listed.begins().file.to_path_buf());
        [file, webhook.secret_file.as_ref().map(|given| listed.path(given))]
    };
    listed.section.webhooks.iter().flat_map(of).flatten().collect()
}

fn problem(key: &str, location: &Location, why: impl fmt::Display) -> ConfigError {
    ConfigError::new(format!("notify.{key} in {location}: {why}"))
}

fn duration(
    listed: &InFile<NotifySection>,
    key: &str,
    given: Option<&Given>,
    least: Duration,
) -> Result<Option<Duration>, ConfigError> {
    let Some(given) = given else { return Ok(None) };
    values::duration(&given.value, least, MAX_DURATION, "30s")
        .map(Some)
        .map_err(|why| problem(key, &listed.location(given), format!("invalid value {:?}: {why}", shown(&given.value))))
}

fn alertmanager(listed: &InFile<NotifySection>, url: &Given) -> Result<Endpoint, ConfigError> {
    Endpoint::parse(&url.value).map_err(|why| problem("alertmanagers", &listed.location(url), why))
}

fn labels(listed: &InFile<NotifySection>) -> Result<BTreeMap<String, String>, ConfigError> {
    let mut labels = BTreeMap::from([("job".to_owned(), JOB.to_owned())]);
    for (name, given) in &listed.section.labels {
        let mut letters = name.bytes();
        let is_first = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_';
        let is_name =
            letters.next().is_some_and(is_first) && letters.all(|byte| is_first(byte) || byte.is_ascii_digit());
        if !is_name || OWN_LABELS.contains(&name.as_str()) {
            let (name, own) = (shown(name), OWN_LABELS.join(", "));
            let why = format!("invalid label {name:?}: expected letters, digits and _, and none of {own}");
            return Err(problem("labels", &listed.location(given), &why));
        }
        // An empty label is none.
        if given.value.is_empty() {
            labels.remove(name);
        } else {
            labels.insert(name.clone(), given.value.clone());
        }
    }
    Ok(labels)
}

fn ca(listed: &InFile<NotifySection>) -> Result<Option<Arc<[u8]>>, ConfigError> {
    let Some(given) = &listed.section.ca_file else { return Ok(None) };
    let pem = files::read(&listed.path(given)).map_err(|why| problem("ca_file", &listed.location(given), why))?;
    Client::new(Some(&pem)).map_err(|why| problem("ca_file", &listed.location(given), why))?;
    Ok(Some(pem.into()))
}

fn webhook(listed: &InFile<NotifySection>, item: &WebhookItem) -> Result<Webhook, ConfigError> {
    let problem = |key: &str, given: &Given, why: &dyn fmt::Display| {
        problem(&format!("webhooks.{key}"), &listed.location(given), why)
    };
    let endpoint = Endpoint::parse(&item.url.value).map_err(|why| problem("url", &item.url, &why))?;
    let allows_plain = match &item.allow_plain {
        None => false,
        Some(given) => given.value.parse().map_err(|_| problem("allow_plain", given, &"expected true or false"))?,
    };
    if endpoint.is_plain_elsewhere() && !allows_plain {
        let why = "expected https:// for another host; allow_plain: true sends without TLS";
        return Err(problem("url", &item.url, &why));
    }
    let secret = item
        .secret_file
        .as_ref()
        .map(|given| secret(&listed.path(given)).map_err(|why| problem("secret_file", given, &why)));
    Ok(Webhook { endpoint, secret: secret.transpose()? })
}

/// Why a file is not the secret that messages are signed with.
#[derive(Debug, thiserror::Error)]
pub(super) enum SecretError {
    #[error(transparent)]
    Unreadable(#[from] files::FileError),
    #[error("expected a file that not everybody can read, such as mode 0640; it has {0:04o}")]
    Exposed(u32),
    #[error("expected base64 behind {SECRET_PREFIX}")]
    NotBase64,
    #[error("expected a secret of {least} to {most} bytes, found {0}", least = SECRET_BYTES.start(), most = SECRET_BYTES.end())]
    Length(usize),
}

pub(super) fn secret(path: &Path) -> Result<Arc<[u8]>, SecretError> {
    let text = files::read_text(path)?;
    // That a group can read it, or others write it, is a warning as with every file of secrets.
    if let Some(mode) = files::exposed_mode(path).filter(|mode| mode & READABLE_BY_ALL != 0) {
        return Err(SecretError::Exposed(mode));
    }
    let text = text.trim();
    let secret = match text.strip_prefix(SECRET_PREFIX) {
        Some(encoded) => STANDARD.decode(encoded).map_err(|_| SecretError::NotBase64)?,
        None => text.as_bytes().to_vec(),
    };
    if !SECRET_BYTES.contains(&secret.len()) {
        return Err(SecretError::Length(secret.len()));
    }
    Ok(secret.into())
}
