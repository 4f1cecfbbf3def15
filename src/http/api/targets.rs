//! What there is to know of the targets: JSON for people, and the document by which Prometheus finds them.

use std::time::Duration;

use serde::Serialize;

use crate::analysis::view::View;
use crate::http::api::summary::{HealthSummary, StateCounts};
use crate::http::api::{Word, seconds};
use crate::model::TargetName;
use crate::model::text::rfc3339;
use crate::model::thresholds::{Status, ThresholdRules};

/// One target, and what was made of its newest poll.
#[derive(Clone, Copy, Debug)]
pub struct TargetView<'a> {
    /// What the operator calls it.
    pub name: &'a TargetName,
    /// Where it is, without credentials.
    pub redis: &'a str,
    /// What is there: one Redis, a cluster, sentinels.
    pub mode: &'static str,
    /// The configured time between polls.
    pub interval: Duration,
    /// What there is to see.
    pub view: &'a View,
    /// How long ago the newest good sample was taken; `None` before the first.
    pub age: Option<Duration>,
    /// What a lag is called.
    pub thresholds: &'a ThresholdRules,
}

#[derive(Serialize)]
struct Targets<'a> {
    targets: Vec<TargetRow<'a>>,
}

#[derive(Serialize)]
struct TargetRow<'a> {
    name: &'a str,
    redis: &'a str,
    mode: &'static str,
    up: bool,
    status: Word<Status>,
    streams: usize,
    unknown_streams: usize,
    max_lag: Option<i64>,
    total_lag: Option<i64>,
    states: StateCounts,
    lost_entries: Option<u64>,
    sampled_at: Option<String>,
    age_seconds: Option<f64>,
    poll_interval_seconds: f64,
    effective_poll_interval_seconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// `GET /api/v1/targets`.
#[must_use]
pub fn targets(watched: Vec<TargetView<'_>>) -> impl Serialize {
    Targets { targets: watched.into_iter().map(row).collect() }
}

fn row(watched: TargetView<'_>) -> TargetRow<'_> {
    let TargetView { name, redis, mode, interval, view, age, thresholds } = watched;
    let whole = HealthSummary::of(view, None, thresholds);
    TargetRow {
        name: name.as_str(),
        redis,
        mode,
        up: view.redis_up(),
        status: Word(whole.status),
        streams: view.streams.len(),
        unknown_streams: view.streams.iter().filter(|stream| stream.read.is_err()).count(),
        max_lag: whole.max_lag,
        total_lag: whole.total_lag,
        states: whole.states,
        lost_entries: whole.lost_entries,
        sampled_at: view.last_success.map(rfc3339),
        age_seconds: age.map(seconds),
        poll_interval_seconds: seconds(interval),
        effective_poll_interval_seconds: seconds(view.interval),
        error: view.error(),
    }
}

/// How one target is, for viewers of another.
#[derive(Serialize)]
struct TargetState<'a> {
    name: &'a str,
    status: Word<Status>,
    redis_connected: bool,
}

/// How each target is, in short.
pub(in crate::http) fn target_states<'a>(
    targets: impl Iterator<Item = (&'a TargetName, &'a View, &'a ThresholdRules)>,
) -> impl Serialize {
    let state = |(name, view, thresholds): (&'a TargetName, &View, &ThresholdRules)| TargetState {
        name: name.as_str(),
        status: Word(HealthSummary::of(view, None, thresholds).status),
        redis_connected: view.redis_up(),
    };
    targets.map(state).collect::<Vec<_>>()
}

/// A group of Prometheus's HTTP service discovery: one per target, as each has labels of its own.
#[derive(Serialize)]
struct Discovered<'a> {
    targets: [&'a str; 1],
    labels: TargetLabels<'a>,
}

#[derive(Serialize)]
struct TargetLabels<'a> {
    #[serde(rename = "__metrics_path__")]
    metrics_path: &'static str,
    #[serde(rename = "__param_target")]
    parameter: &'a str,
    redis_target: &'a str,
}

/// `GET /api/v1/sd`: each target's page, at `address`.
#[must_use]
pub fn discovery<'a>(address: &'a str, names: Vec<&'a TargetName>) -> impl Serialize + use<'a> {
    let discovered = |name: &'a TargetName| Discovered {
        targets: [address],
        labels: TargetLabels { metrics_path: "/probe", parameter: name.as_str(), redis_target: name.as_str() },
    };
    names.into_iter().map(discovered).collect::<Vec<_>>()
}
