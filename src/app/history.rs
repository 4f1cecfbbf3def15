//! `streamlag history`: what is in a history file. Reads it beside the daemon that writes it, or without one.

use std::io::{IsTerminal as _, Write};
use std::path::PathBuf;

use serde::Serialize;

use crate::analysis::history::{Point, resample};
use crate::app::lag::csv_field;
use crate::config::{HistoryAction, HistoryRequest, Output};
use crate::model::text::{count, rfc3339_of_unix};
use crate::store::history::file::{self, FileInfo};
use crate::store::history::memory::SeriesKey;

/// The columns of an export.
const COLUMNS: &str = "time,target,stream,consumer_group,samples,lag,lag_min,lag_max,lag_mean,lag_lowest,lag_highest,lag_seconds,\
pending,length,added_per_second,delivered_per_second,consumers,lost_entries,state";

/// Groups of which points are read at a time: each may have some ten thousand.
const EXPORTED_AT_ONCE: usize = 16;

/// What `info` prints.
#[derive(Serialize)]
struct Info {
    path: String,
    schema_version: i32,
    bytes: u64,
    groups: u64,
    resolutions: Vec<ResolutionRow>,
}

#[derive(Serialize)]
struct ResolutionRow {
    resolution_seconds: i64,
    points: u64,
    bytes: u64,
    oldest: Option<String>,
    newest: Option<String>,
}

/// Why nothing is printed, or not all.
#[derive(Debug, thiserror::Error)]
pub enum HistoryCommandError {
    /// The file cannot be read.
    #[error("cannot read the history file {}: {error}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        error: file::Fault,
    },
    /// Nobody reads what is printed, or it cannot be written.
    #[error("cannot print: {0}")]
    Print(#[from] std::io::Error),
}

/// Prints what is asked for.
///
/// # Errors
/// Where the file cannot be read, or nobody reads what is printed.
pub fn history(request: &HistoryRequest, out: &mut dyn Write) -> Result<(), HistoryCommandError> {
    let path = &request.path;
    let failed = |error| HistoryCommandError::Unreadable { path: path.clone(), error };
    let connection = file::open_to_read(path).map_err(failed)?;
    match &request.action {
        HistoryAction::Info(output) => {
            let info = Info::new(path, &file::info(&connection, path).map_err(failed)?);
            let text = match output {
                Output::Json => serde_json::to_string_pretty(&info).unwrap_or_default() + "\n",
                Output::Table | Output::Csv => info.text(),
            };
            Ok(out.write_all(text.as_bytes())?)
        }
        HistoryAction::Export { from, to, step, stream, group } => {
            let terminal = std::io::stdout().is_terminal();
            write!(out, "{COLUMNS}\r\n")?;
            let is_wanted = |wanted: &Option<String>, name: &str| wanted.as_deref().is_none_or(|wanted| wanted == name);
            let keys = file::keys(&connection).map_err(failed)?;
            let wanted = keys.iter().filter(|key| is_wanted(stream, &key.stream) && is_wanted(group, &key.group));
            for keys in wanted.collect::<Vec<_>>().chunks(EXPORTED_AT_ONCE) {
                let found = file::points(&connection, keys, *from, *to, *step).map_err(failed)?;
                for (key, points) in keys.iter().zip(found.series) {
                    for point in resample(points.unwrap_or_default(), *step) {
                        write!(out, "{}\r\n", line(key, &point, terminal))?;
                    }
                }
            }
            Ok(out.flush()?)
        }
    }
}

fn line(key: &SeriesKey, point: &Point, terminal: bool) -> String {
    let number = |number: Option<u64>| number.map(|number| number.to_string()).unwrap_or_default();
    let thousandths =
        |number: Option<u64>| number.map(|number| (number as f64 / 1000.0).to_string()).unwrap_or_default();
    [
        rfc3339_of_unix(point.time),
        csv_field(&key.target, terminal),
        csv_field(&key.stream, terminal),
        csv_field(&key.group, terminal),
        point.samples.to_string(),
        point.lag.to_string(),
        point.bound_min.to_string(),
        point.bound_max.to_string(),
        point.mean.to_string(),
        point.lowest.to_string(),
        point.highest.to_string(),
        thousandths(point.lag_ms),
        number(point.pending),
        number(point.length),
        thousandths(point.added_milli),
        thousandths(point.delivered_milli),
        number(point.consumers),
        number(point.lost),
        point.state.map(|state| state.as_str().to_owned()).unwrap_or_default(),
    ]
    .join(",")
}

impl Info {
    fn new(path: &std::path::Path, info: &FileInfo) -> Self {
        let resolution = |of: &file::Resolution| ResolutionRow {
            resolution_seconds: of.seconds,
            points: of.points,
            bytes: of.bytes,
            oldest: of.span.map(|(oldest, _)| rfc3339_of_unix(oldest)),
            newest: of.span.map(|(_, newest)| rfc3339_of_unix(newest)),
        };
        Self {
            path: path.display().to_string(),
            schema_version: info.schema,
            bytes: info.bytes,
            groups: info.series,
            resolutions: info.resolutions.iter().map(resolution).collect(),
        }
    }

    fn text(&self) -> String {
        let Self { path, schema_version, bytes, groups, .. } = self;
        let mut text = format!(
            "file            {path}\nschema version  {schema_version}\nbytes           {bytes}\ngroups          {groups}\n"
        );
        for ResolutionRow { resolution_seconds, points, bytes, oldest, newest } in &self.resolutions {
            let name = if *resolution_seconds == 60 { "minutes" } else { "hours" };
            let span = match (oldest, newest) {
                (Some(oldest), Some(newest)) => format!(", from {oldest} to {newest}"),
                _ => String::new(),
            };
            let (points, bytes) = (count(*points, "point", "points"), count(*bytes, "byte", "bytes"));
            text.push_str(&format!("{name:14}  {points}, {bytes}{span}\n"));
        }
        text
    }
}
