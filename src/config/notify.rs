//! `notify:` of the configuration file, checked. No error repeats a URL: that of many webhooks is a secret.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use crate::actions::notify::{MAX_RECEIVERS, NotifyConfig, Timing};
use crate::config::file::{Given, Located, NotifySection};
use crate::config::values::{ConfigError, shown};
use crate::sys::http_client::HttpEndpoint;

/// The job that the rules and the documents name.
const JOB: &str = "streamlag";

/// Labels that an alert gets from its rule.
const OWN_LABELS: [&str; 8] =
    ["alertname", "severity", "stream", "consumer_group", "logical_stream", "node", "state", "redis_target"];

/// Whom to tell of incidents; nobody where nothing is listed.
pub(super) fn checked(listed: Option<&Located<NotifySection>>) -> Result<NotifyConfig, ConfigError> {
    let Some(listed) = listed else { return Ok(NotifyConfig::default()) };
    let given = &listed.section;
    let default = Timing::default();
    let of_a_second = Duration::from_secs(1);
    let config = NotifyConfig {
        alertmanagers: given.alertmanagers.iter().map(|url| alertmanager(listed, url)).collect::<Result<_, _>>()?,
        webhooks: given
            .webhooks
            .iter()
            .map(|item| listed.webhook("notify.webhooks", item))
            .collect::<Result<_, _>>()?,
        labels: labels(listed)?,
        hold: listed.duration("notify.for", given.r#for.as_ref(), Duration::ZERO)?,
        ca: listed.certificates("notify.ca_file", given.ca_file.as_ref())?,
        timing: Timing {
            group_wait: listed
                .duration("notify.group_wait", given.group_wait.as_ref(), Duration::ZERO)?
                .unwrap_or(default.group_wait),
            group_interval: listed
                .duration("notify.group_interval", given.group_interval.as_ref(), of_a_second)?
                .unwrap_or(default.group_interval),
            repeat_interval: listed
                .duration("notify.repeat_interval", given.repeat_interval.as_ref(), of_a_second)?
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
    let endpoints: BTreeSet<&HttpEndpoint> = config.webhooks.iter().map(|webhook| &webhook.endpoint).collect();
    let alertmanagers: BTreeSet<&HttpEndpoint> = config.alertmanagers.iter().collect();
    if endpoints.len() + alertmanagers.len() < names.len() {
        return Err(ConfigError::new("notify: a receiver is listed twice".to_owned()));
    }
    Ok(config)
}

/// The files of secrets: those that webhooks sign with, and the configuration file if a webhook's URL in it may be one.
pub(super) fn secret_files(listed: &Located<NotifySection>) -> Vec<PathBuf> {
    listed.webhook_secrets(listed.section.webhooks.iter())
}

fn alertmanager(listed: &Located<NotifySection>, url: &Given) -> Result<HttpEndpoint, ConfigError> {
    HttpEndpoint::parse(&url.value).map_err(|why| listed.wrong("notify.alertmanagers", url, why))
}

fn labels(listed: &Located<NotifySection>) -> Result<BTreeMap<String, String>, ConfigError> {
    let mut labels = BTreeMap::from([("job".to_owned(), JOB.to_owned())]);
    for (name, given) in &listed.section.labels {
        let mut letters = name.bytes();
        let is_first = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_';
        let is_name =
            letters.next().is_some_and(is_first) && letters.all(|byte| is_first(byte) || byte.is_ascii_digit());
        if !is_name || OWN_LABELS.contains(&name.as_str()) {
            let (name, own) = (shown(name), OWN_LABELS.join(", "));
            let why = format!("invalid label {name:?}: expected letters, digits and _, and none of {own}");
            return Err(listed.wrong("notify.labels", given, why));
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
