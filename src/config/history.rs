//! The settings of history.

use std::path::PathBuf;
use std::time::Duration;

use crate::config::values::{ConfigError, RawValue};
use crate::config::{SettingSources, values};
use crate::store::history::HistoryConfig;
use crate::store::history::prometheus::{self, PrometheusConfig};
use crate::sys::files;
use crate::sys::http_client::{Client, Endpoint};

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

/// What belongs to the URL.
const OF_PROMETHEUS: [&str; 3] =
    ["history.prometheus-token-file", "history.prometheus-ca-file", "history.prometheus-labels"];

fn prometheus(sources: &impl SettingSources) -> Result<Option<PrometheusConfig>, ConfigError> {
    let Some(given) = sources.get("history.prometheus-url") else {
        let alone = OF_PROMETHEUS.iter().find_map(|key| sources.get(key));
        return match alone {
            Some(alone) => Err(alone.problem("expected --history.prometheus-url beside it")),
            None => Ok(None),
        };
    };
    let url = given.text()?;
    let endpoint = Endpoint::parse(&url).map_err(|why| {
        // What is between :// and @ is not repeated.
        if url.contains('@') {
            ConfigError::new(format!("invalid value (not shown) for --history.prometheus-url: {why}"))
        } else {
            given.problem(why)
        }
    })?;
    if url.contains(['?', '#']) {
        return Err(given.problem("expected a URL without a query, such as http://prometheus:9090"));
    }
    let file = |key: &str, check: fn(&PathBuf) -> Result<(), String>| {
        let check = |given: RawValue| {
            let path = given.path();
            check(&path).map_err(|why| given.problem(&why))?;
            Ok(path)
        };
        sources.get(key).map(check).transpose()
    };
    let [token_file, ca_file, labels] = OF_PROMETHEUS;
    Ok(Some(PrometheusConfig {
        url,
        endpoint,
        token_file: file(token_file, |path| prometheus::token(path).map(drop))?,
        ca_file: file(ca_file, |path| {
            let pem = files::read(path).map_err(|why| why.to_string())?;
            Client::new(Some(&pem)).map(drop).map_err(|why| why.to_string())
        })?,
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
