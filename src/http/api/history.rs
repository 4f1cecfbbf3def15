//! The JSON of history and trends.

use serde::Serialize;

use crate::analysis::group_state::GroupState;
use crate::analysis::history::Point;
use crate::analysis::history::query::Range;
use crate::analysis::history::trends::{RateQuantiles, Trend};
use crate::http::api::{Word, rounded};
use crate::model::text::rfc3339_of_unix;
use crate::store::history::memory::SeriesKey;
use crate::store::history::{Answer, HistorySource};

/// `GET /api/v1/events/history`.
#[derive(Serialize)]
pub(crate) struct HistoryBody<'a> {
    stream: &'a str,
    consumer_group: &'a str,
    from: String,
    to: String,
    step_seconds: i64,
    source: &'static str,
    points: Vec<PointRow>,
}

#[derive(Serialize)]
struct PointRow {
    time: String,
    lag: u64,
    lag_min: u64,
    lag_max: u64,
    lag_mean: f64,
    lag_lowest: u64,
    lag_highest: u64,
    lag_seconds: Option<f64>,
    pending: Option<u64>,
    length: Option<u64>,
    added_per_second: Option<f64>,
    delivered_per_second: Option<f64>,
    consumers: Option<u64>,
    lost_entries: Option<u64>,
    state: Option<Word<GroupState>>,
    samples: u32,
}

/// `GET /api/v1/events/trends`.
#[derive(Serialize)]
pub(crate) struct TrendsBody<'a> {
    from: String,
    to: String,
    window_seconds: i64,
    trends: Vec<TrendRow<'a>>,
}

#[derive(Serialize)]
struct TrendRow<'a> {
    stream: &'a str,
    consumer_group: &'a str,
    direction: Option<&'static str>,
    lag_slope_per_second: Option<f64>,
    peak_lag: u64,
    peak_at: String,
    mean_lag: f64,
    arrivals_per_second: Option<RateQuantilesRow>,
    capacity_per_second: Option<RateQuantilesRow>,
    source: &'static str,
}

#[derive(Serialize)]
struct RateQuantilesRow {
    q10: f64,
    q50: f64,
    q90: f64,
}

fn per_second(milli: Option<u64>) -> Option<f64> {
    milli.map(|milli| milli as f64 / 1000.0)
}

impl From<&Point> for PointRow {
    fn from(point: &Point) -> Self {
        Self {
            time: rfc3339_of_unix(point.time),
            lag: point.lag,
            lag_min: point.bound_min,
            lag_max: point.bound_max,
            lag_mean: rounded(point.mean),
            lag_lowest: point.lowest,
            lag_highest: point.highest,
            lag_seconds: point.lag_ms.map(|ms| ms as f64 / 1000.0),
            pending: point.pending,
            length: point.length,
            added_per_second: per_second(point.added_milli),
            delivered_per_second: per_second(point.delivered_milli),
            consumers: point.consumers,
            lost_entries: point.lost,
            state: point.state.map(Word),
            samples: point.samples,
        }
    }
}

impl<'a> HistoryBody<'a> {
    pub(crate) fn new(key: &'a SeriesKey, range: Range, answer: &Answer) -> Self {
        Self {
            stream: &key.stream,
            consumer_group: &key.group,
            from: rfc3339_of_unix(range.from),
            to: rfc3339_of_unix(range.to - 1),
            step_seconds: range.step,
            source: answer.source.as_str(),
            points: answer.points.iter().map(PointRow::from).collect(),
        }
    }
}

impl<'a> TrendsBody<'a> {
    pub(crate) fn new(range: Range, trends: &'a [(SeriesKey, HistorySource, Option<Trend>)]) -> Self {
        let quantiles = |quantiles: RateQuantiles| RateQuantilesRow {
            q10: rounded(quantiles.q10),
            q50: rounded(quantiles.q50),
            q90: rounded(quantiles.q90),
        };
        let row = |(key, source, trend): &'a (SeriesKey, HistorySource, Option<Trend>)| {
            let trend = (*trend)?;
            Some(TrendRow {
                stream: &key.stream,
                consumer_group: &key.group,
                direction: trend.direction.map(|direction| direction.as_str()),
                lag_slope_per_second: trend.slope.map(rounded),
                peak_lag: trend.peak,
                peak_at: rfc3339_of_unix(trend.peak_at),
                mean_lag: rounded(trend.mean),
                arrivals_per_second: trend.arrivals.map(quantiles),
                capacity_per_second: trend.capacity.map(quantiles),
                source: source.as_str(),
            })
        };
        Self {
            from: rfc3339_of_unix(range.from),
            to: rfc3339_of_unix(range.to - 1),
            window_seconds: range.to - 1 - range.from,
            trends: trends.iter().filter_map(row).collect(),
        }
    }
}
