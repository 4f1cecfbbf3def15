//! The settings of history.

use std::time::Duration;

use crate::config::values::{ConfigError, RawValue};
use crate::config::{SettingSources, values};
use crate::store::history::HistoryConfig;
use crate::store::history::prometheus::{self, PrometheusConfig};
use crate::sys::files;
use crate::sys::http_client::{HttpClient, HttpEndpoint};

/// Points of the file are of a minute.
const MIN_RETENTION: Duration = Duration::from_secs(60);

/// Ten years: longer is no setting but a mistake.
const MAX_RETENTION: Duration = Duration::from_secs(3_650 * 24 * 60 * 60);

/// Less holds no group's two hours.
const MIN_MEMORY: u64 = values::MIB;

/// More is not what memory is for.
const MAX_MEMORY: u64 = 64 << 30;

/// Less holds little more than SQLite's own pages and log.
const MIN_FILE: u64 = 16 * values::MIB;

/// SQLite's own limit at pages of 4 KiB is 16 TiB.
const MAX_FILE: u64 = 16 << 40;

pub(super) fn history(sources: &impl SettingSources) -> Result<HistoryConfig, ConfigError> {
    let need = |key: &str| sources.get(key).ok_or_else(|| ConfigError::missing(key));
    let path = sources.get("history.path").map(|given| {
        let path = given.path();
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        if folder.is_some_and(|folder| !folder.is_dir()) {
            return Err(given.problem("expected a file in a directory that exists"));
        }
        if path.is_dir() || path.file_name().is_none() {
            return Err(given.problem("expected a file, and this is a directory"));
        }
        Ok(path)
    });
    let memory = need("history.memory")?.bytes(MIN_MEMORY, MAX_MEMORY)?;
    let path = path.transpose()?;
    let prometheus = prometheus(sources)?;
    if let (Some(_), Some(_)) = (&path, &prometheus) {
        let why = "--history.prometheus-url contradicts --history.path: give one of the two";
        return Err(ConfigError::new(why.to_owned()));
    }
    Ok(HistoryConfig {
        path,
        prometheus,
        memory: usize::try_from(memory).unwrap_or(usize::MAX),
        retention: retention(&need("history.retention")?)?,
        coarse_retention: retention(&need("history.coarse-retention")?)?,
        max_size: need("history.max-size")?.bytes(MIN_FILE, MAX_FILE)?,
    })
}

/// The first setting by which the two differ.
pub(super) fn changed(one: &HistoryConfig, other: &HistoryConfig) -> Option<&'static str> {
    let [was, is] = [one, other].map(|config| config.prometheus.as_ref());
    let [token_file, ca_file, labels] = OF_PROMETHEUS;
    let same = [
        ("history.path", one.path == other.path),
        ("history.memory", one.memory == other.memory),
        ("history.retention", one.retention == other.retention),
        ("history.coarse-retention", one.coarse_retention == other.coarse_retention),
        ("history.max-size", one.max_size == other.max_size),
        (URL, was.map(|config| &config.endpoint) == is.map(|config| &config.endpoint)),
        (token_file, was.map(|config| &config.token_file) == is.map(|config| &config.token_file)),
        (ca_file, was.map(|config| &config.ca) == is.map(|config| &config.ca)),
        (labels, was.map(|config| &config.labels) == is.map(|config| &config.labels)),
    ];
    same.iter().find(|(_, same)| !same).map(|(key, _)| *key)
}

const URL: &str = "history.prometheus-url";

/// What belongs to the URL.
const OF_PROMETHEUS: [&str; 3] =
    ["history.prometheus-token-file", "history.prometheus-ca-file", "history.prometheus-labels"];

fn prometheus(sources: &impl SettingSources) -> Result<Option<PrometheusConfig>, ConfigError> {
    let Some(given) = sources.get(URL) else {
        let alone = OF_PROMETHEUS.iter().find_map(|key| sources.get(key));
        return match alone {
            Some(alone) => Err(alone.problem("expected --history.prometheus-url beside it")),
            None => Ok(None),
        };
    };
    let url = given.text()?;
    let endpoint = HttpEndpoint::parse(&url).map_err(|why| given.problem(why))?;
    if url.contains(['?', '#']) {
        return Err(given.problem("expected a URL without a query, such as http://prometheus:9090"));
    }
    let [token_file, ca_file, labels] = OF_PROMETHEUS;
    let token_file = sources.get(token_file).map(|given| {
        let path = given.path();
        prometheus::token(&path).map_err(|why| given.problem(why))?;
        Ok(path)
    });
    let ca = sources.get(ca_file).map(|given| {
        let pem = files::read(&given.path()).map_err(|why| given.problem(why))?;
        HttpClient::new(Some(&pem)).map_err(|why| given.problem(why))?;
        Ok(pem)
    });
    Ok(Some(PrometheusConfig {
        endpoint,
        token_file: token_file.transpose()?,
        ca: ca.transpose()?,
        labels: sources.get(labels).map_or(Ok(Vec::new()), |given| of_series(&given))?,
    }))
}

/// Labels that are none of those that every series has, each with a value.
fn of_series(given: &RawValue) -> Result<Vec<(String, String)>, ConfigError> {
    const OWN: [&str; 5] = ["stream", "consumer_group", "redis_target", "state", "__name__"];
    let label = |text: &String| {
        let (name, value) = text.split_once('=')?;
        let is_name = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
            && !name.is_empty()
            && !name.starts_with(|c: char| c.is_ascii_digit());
        (is_name && !value.is_empty() && !OWN.contains(&name)).then(|| (name.to_owned(), value.to_owned()))
    };
    let labels: Option<Vec<_>> = given.names()?.iter().map(label).collect();
    labels.ok_or_else(|| {
        given.problem(format!("expected name=value,... such as cluster=eu, and no name of {}", OWN.join(", ")))
    })
}

fn retention(given: &RawValue) -> Result<Duration, ConfigError> {
    given.duration_like(MIN_RETENTION, MAX_RETENTION, "36h or 14d")
}
