//! The rows as JSON: those of `/api/v1/events/groups`, with the target of each.

use serde::Serialize;

use crate::app::lag::rows::{LagRow, Sampled, worst};
use crate::http::api::{GroupRow, Word, seconds};
use crate::model::text::rfc3339;
use crate::model::thresholds::Status;
use crate::sys::terminal::escaped_json;

#[derive(Serialize)]
struct JsonDocument<'a> {
    status: Word<Status>,
    targets: Vec<JsonTarget<'a>>,
    groups: Vec<JsonLine<'a>>,
}

#[derive(Serialize)]
struct JsonTarget<'a> {
    name: &'a str,
    redis: &'a str,
    mode: &'static str,
    status: Word<Status>,
    sampled_at: Option<String>,
    age_seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

#[derive(Serialize)]
struct JsonLine<'a> {
    target: &'a str,
    #[serde(flatten)]
    group: GroupRow<'a>,
    /// Why the lag is bounded; null where it is exact or not known.
    lag_quality_reason: Option<String>,
}

/// One document, with a final newline.
pub(super) fn render(sampled: &[Sampled]) -> String {
    let document = JsonDocument {
        status: Word(worst(sampled.iter().map(Sampled::status))),
        targets: sampled.iter().map(target).collect(),
        groups: sampled.iter().flat_map(Sampled::rows).map(line).collect(),
    };
    // Nothing of this can fail to be written: keys are text, and numbers are finite or null.
    let json = serde_json::to_string_pretty(&document).unwrap_or_default();
    escaped_json(&json).into_owned() + "\n"
}

fn target(sampled: &Sampled) -> JsonTarget<'_> {
    JsonTarget {
        name: sampled.target.name.as_str(),
        redis: &sampled.target.redis,
        mode: sampled.target.mode,
        status: Word(sampled.status()),
        sampled_at: sampled.view.last_success.map(rfc3339),
        age_seconds: sampled.age.map(seconds),
        error: sampled.error(),
    }
}

fn line(row: LagRow<'_>) -> JsonLine<'_> {
    JsonLine { target: row.target, group: row.group, lag_quality_reason: row.bounded }
}
