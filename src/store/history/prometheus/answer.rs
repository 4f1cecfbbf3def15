//! Decodes responses of Prometheus into points.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use hyper::StatusCode;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::error::{OtherServer, QueryError};
use super::promql::{PART, PARTS_COUNT, Part, TARGET};
use crate::analysis::group_state::GroupState;
use crate::analysis::history::Point;
use crate::store::history::memory::SeriesKey;

/// The longest time between two values of a counter that a rate is made of, seconds, where steps are shorter.
pub(super) const MAX_RATE_SPREAD: i64 = 300;

/// An answer of the API.
#[derive(Deserialize)]
struct PrometheusReply<'a, D> {
    #[serde(borrow)]
    status: Cow<'a, str>,
    #[serde(borrow, default)]
    error: Option<Cow<'a, str>>,
    data: Option<D>,
}

/// The data of a good answer.
pub(super) fn data<'a, D: Deserialize<'a>>(status: StatusCode, body: &'a [u8]) -> Result<D, QueryError> {
    let words = |error: Option<Cow<'_, str>>| shown(&error.unwrap_or_default());
    if !status.is_success() {
        // What else there is in it is nothing that was asked for.
        return Err(match serde_json::from_slice::<PrometheusReply<'_, IgnoredAny>>(body) {
            Ok(PrometheusReply { status: word, error, .. }) if word == "error" && status.is_client_error() => {
                QueryError::Refused { status, error: words(error) }
            }
            Ok(PrometheusReply { status: word, error, .. }) if word == "error" => {
                QueryError::Failed { status, error: words(error) }
            }
            Ok(PrometheusReply { status: word, .. }) if word == "success" => OtherServer::Status(status).into(),
            // A proxy may say so, and has its own words. None says that nobody asks like this.
            _ if is_about_access(status) || (status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED) => {
                QueryError::Status(status)
            }
            _ if status.is_redirection() => OtherServer::Redirect(status).into(),
            _ => OtherServer::Answer(status).into(),
        });
    }
    match serde_json::from_slice::<PrometheusReply<'_, D>>(body) {
        Ok(PrometheusReply { status: word, data: Some(data), .. }) if word == "success" => Ok(data),
        Ok(PrometheusReply { status: word, error, .. }) if word == "error" => {
            Err(QueryError::Failed { status, error: words(error) })
        }
        Ok(_) => Err(OtherServer::Answer(status).into()),
        Err(error) => Err(OtherServer::Json { status, line: error.line(), column: error.column() }.into()),
    }
}

/// Characters of an error of Prometheus that are repeated.
const MAX_SHOWN: usize = 200;

fn shown(why: &str) -> String {
    why.chars().filter(|c| !c.is_control()).take(MAX_SHOWN).collect()
}

/// Whether the status is about authentication or authorization.
fn is_about_access(status: StatusCode) -> bool {
    [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN, StatusCode::PROXY_AUTHENTICATION_REQUIRED].contains(&status)
}

/// What `query_range` answers.
#[derive(Deserialize)]
struct Matrix<'a> {
    #[serde(borrow)]
    result: Vec<PrometheusSeries<'a>>,
}

#[derive(Deserialize)]
struct PrometheusSeries<'a> {
    metric: BTreeMap<String, String>,
    #[serde(borrow)]
    values: Vec<(f64, &'a str)>,
}

/// What tells the series of one replica from those of another.
type Labels = Vec<(String, String)>;

/// What one replica has of a bucket.
type BucketValues = [Option<f64>; PARTS_COUNT];

/// Rows by the start of their bucket.
type Buckets = BTreeMap<i64, BucketValues>;

/// The rows of some groups, by replica. Those of streams are apart, as all groups of a stream share them.
#[derive(Debug, Default)]
pub(super) struct Found {
    groups: HashMap<(String, String), BTreeMap<Labels, Buckets>>,
    streams: HashMap<String, BTreeMap<Labels, Buckets>>,
}

impl Found {
    /// Reads an answer of which each value stands at the end of a bucket of so many seconds.
    pub(super) fn read(status: StatusCode, body: &[u8], step: i64) -> Result<Self, QueryError> {
        let mut found = Self::default();
        for PrometheusSeries { mut metric, values } in data::<Matrix<'_>>(status, body)?.result {
            let Some(part) = metric.remove(PART).as_deref().and_then(Part::find) else { continue };
            let Some(stream) = metric.remove("stream") else { continue };
            let group = metric.remove("consumer_group");
            let state = metric.remove("state");
            // The same group, whether its target is named or not.
            metric.remove(TARGET);
            metric.remove("__name__");
            let labels: Labels = metric.into_iter().collect();
            let replicas = match group {
                Some(group) => found.groups.entry((stream, group)).or_default(),
                None => found.streams.entry(stream).or_default(),
            };
            let rows = replicas.entry(labels).or_default();
            let state = state.and_then(|state| GroupState::ALL.iter().position(|known| known.as_str() == state));
            for (time, value) in values {
                let Some(mut value) = value.parse().ok().filter(|value: &f64| value.is_finite()) else { continue };
                let place = &mut rows.entry((time.round() as i64).saturating_sub(step)).or_default()[part as usize];
                if part == Part::State {
                    // Two at once are none that can be told.
                    value = state.filter(|_| place.is_none()).map_or(f64::INFINITY, |state| state as f64);
                }
                *place = Some(value);
            }
        }
        Ok(found)
    }

    /// The groups that there are.
    pub(super) fn keys(&self, target: &Arc<str>) -> impl Iterator<Item = SeriesKey> {
        self.groups.keys().map(|(stream, group)| SeriesKey {
            target: Arc::clone(target),
            stream: stream.as_str().into(),
            group: group.as_str().into(),
        })
    }

    /// The points of a group from a time on, one per bucket: of the replica that has most of them, and where it has none, of another.
    /// The bounds hold for all replicas: where they do not agree, the lag is not exact.
    pub(super) fn points(&self, key: &SeriesKey, from: i64, step: i64) -> Vec<Point> {
        let Some(replicas) = self.groups.get(&(key.stream.to_string(), key.group.to_string())) else {
            return Vec::new();
        };
        let nothing = Buckets::new();
        let streams = self.streams.get(&*key.stream);
        let mut all: Vec<Vec<Point>> = replicas
            .iter()
            .map(|(labels, rows)| {
                let of_stream = streams.and_then(|streams| streams.get(labels)).unwrap_or(&nothing);
                of_replica(rows, of_stream, from, step)
            })
            .collect();
        // Those that have as many stay in the order of their labels.
        all.sort_by_key(|points| std::cmp::Reverse(points.len()));
        let mut merged: BTreeMap<i64, Point> = BTreeMap::new();
        for point in all.into_iter().flatten() {
            let widen = |first: &mut Point| {
                let saw = |point: &Point| (point.lag, point.lowest, point.highest);
                first.widen(&point, saw(first) == saw(&point));
            };
            merged.entry(point.time).and_modify(widen).or_insert(point);
        }
        merged.into_values().collect()
    }
}

fn of_replica(rows: &Buckets, of_stream: &Buckets, from: i64, step: i64) -> Vec<Point> {
    let mut points = Vec::new();
    let mut before: Option<BucketValues> = None;
    for (time, row) in rows {
        let mut row = *row;
        if let Some(stream) = of_stream.get(time) {
            for part in [Part::Length, Part::Added] {
                row[part as usize] = stream[part as usize];
            }
        }
        if *time >= from {
            points.extend(point(*time, &row, before.as_ref(), step));
        }
        // What is older than the bucket says nothing of it.
        if row[Part::SampledAt as usize].is_some_and(|sampled| sampled >= *time as f64) {
            before = Some(row);
        }
    }
    points
}

fn point(time: i64, row: &BucketValues, before: Option<&BucketValues>, step: i64) -> Option<Point> {
    let number = |part: Part| row[part as usize];
    let count = |part: Part| number(part).filter(|value| *value >= 0.0).map(|value| value as u64);
    let lag = count(Part::Lag)?;
    // One of them may be missing, or of another moment.
    let lowest = count(Part::Lowest).map_or(lag, |lowest| lowest.min(lag));
    let highest = count(Part::Highest).map_or(lag, |highest| highest.max(lag));
    let uncertainty = count(Part::Uncertainty);
    let rate = |counter: Part| {
        let before = before?;
        let [earlier, later] = [before, row].map(|row| row[counter as usize].zip(row[Part::SampledAt as usize]));
        let ((earlier, began), (later, ended)) = earlier.zip(later)?;
        let (entries, seconds) = (later - earlier, ended - began);
        let is_rate = entries >= 0.0 && seconds > 0.0 && seconds <= MAX_RATE_SPREAD.max(2 * step) as f64;
        is_rate.then(|| (entries / seconds * 1000.0).round() as u64)
    };
    let state = number(Part::State).and_then(|place| GroupState::ALL.get(place as usize)).copied();
    Some(Point {
        time,
        samples: count(Part::Samples).map_or(1, |samples| u32::try_from(samples).unwrap_or(u32::MAX).max(1)),
        lag,
        mean: number(Part::Mean).unwrap_or(lag as f64).clamp(lowest as f64, highest as f64),
        lowest,
        highest,
        // How far the bounds were apart is all that the page tells: the lag is somewhere between them. Without even that, any lag may be.
        bound_min: uncertainty.map_or(0, |width| lowest.saturating_sub(width)),
        bound_max: uncertainty.map_or(u64::MAX, |width| highest.saturating_add(width)),
        lag_ms: number(Part::LagSeconds).filter(|age| *age >= 0.0).map(|age| (age * 1000.0).ceil() as u64),
        pending: count(Part::Pending),
        length: count(Part::Length),
        added_milli: rate(Part::Added),
        delivered_milli: rate(Part::Delivered),
        consumers: count(Part::Consumers),
        lost: count(Part::Lost),
        state,
    })
}
