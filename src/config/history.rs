//! The settings of history.

use std::time::Duration;

use crate::config::values::{ConfigError, RawValue};
use crate::config::{SettingSources, values};
use crate::store::history::HistoryConfig;

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
    Ok(HistoryConfig {
        path: path.transpose()?,
        memory: usize::try_from(memory).unwrap_or(usize::MAX),
        retention: retention(&need("history.retention")?)?,
        coarse_retention: retention(&need("history.coarse-retention")?)?,
        max_size: need("history.max-size")?.bytes(MIN_FILE, MAX_FILE)?,
    })
}

fn retention(given: &RawValue) -> Result<Duration, ConfigError> {
    let kept = humantime::parse_duration(&given.text()?).ok();
    kept.filter(|kept| (MIN_RETENTION..=MAX_RETENTION).contains(kept))
        .ok_or_else(|| given.problem("expected a duration between 1m and 3650d, such as 36h or 14d"))
}
