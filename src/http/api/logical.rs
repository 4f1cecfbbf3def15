//! `GET /api/v1/events/logical-streams`: what partitions are together.

use std::borrow::Cow;

use serde::Serialize;

use crate::analysis::group_state::GroupState;
use crate::analysis::logical_snapshot::LogicalGroup;
use crate::http::api::{Api, SampleTime, Word, rounded};
use crate::model::GroupName;
use crate::model::lag::Quality;
use crate::model::thresholds::Status;

/// The quality of a lag that is the sum of some partitions only: the whole is at least that.
const PARTIAL: &str = "partial";

impl<'a> Api<'a> {
    /// `GET /api/v1/events/logical-streams`: every monitored group of every logical stream, or those of one name.
    #[must_use]
    pub fn logical_streams(&self, only: Option<&GroupName>) -> impl Serialize + use<'a> {
        let mut rows = Vec::new();
        for stream in self.view.logical.iter() {
            let wanted = |group: &&LogicalGroup| only.is_none_or(|only| group.name == *only);
            rows.extend(stream.groups.iter().filter(wanted).map(|group| LogicalRow::of(&stream.name, group)));
        }
        LogicalStreamsBody { logical_streams: rows, sample: self.sample() }
    }
}

#[derive(Serialize)]
struct LogicalStreamsBody<'a> {
    logical_streams: Vec<LogicalRow<'a>>,
    #[serde(flatten)]
    sample: SampleTime,
}

#[derive(Serialize)]
struct LogicalRow<'a> {
    logical_stream: &'a str,
    consumer_group: Cow<'a, str>,
    partitions: u64,
    partitions_unknown: u64,
    lag: Option<u64>,
    lag_quality: Option<&'static str>,
    lag_min: Option<u64>,
    lag_max: Option<u64>,
    lag_seconds: Option<f64>,
    worst_stream: Option<Cow<'a, str>>,
    worst_lag: Option<u64>,
    skew_ratio: Option<f64>,
    pending: Option<u64>,
    status: Word<Status>,
    state: Option<Word<GroupState>>,
}

impl<'a> LogicalRow<'a> {
    fn of(name: &'a str, group: &'a LogicalGroup) -> Self {
        let complete = group.unknown == 0;
        Self {
            logical_stream: name,
            consumer_group: group.name.display_name(),
            partitions: group.partitions,
            partitions_unknown: group.unknown,
            lag: group.lag.map(|lag| lag.point),
            lag_quality: group.lag.map(|_| group.quality().map_or(PARTIAL, Quality::as_str)),
            lag_min: group.lag.map(|lag| lag.min),
            lag_max: group.lag.filter(|_| complete).map(|lag| lag.max),
            lag_seconds: group.lag_seconds,
            worst_stream: group.worst.as_ref().map(|worst| worst.stream.display_name()),
            worst_lag: group.worst.as_ref().map(|worst| worst.lag),
            skew_ratio: group.skew.map(rounded),
            pending: group.pending,
            status: Word(group.status),
            state: group.state.map(Word),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::analysis::logical_snapshot::WorstPartition;
    use crate::model::lag::Lag;

    #[test]
    fn what_is_not_known_is_null() {
        let mut group = LogicalGroup {
            name: "g".into(),
            partitions: 4,
            unknown: 0,
            lag: Some(Lag { min: 7, point: 7, max: 7 }),
            worst: Some(WorstPartition { stream: "p:1".into(), lag: 4 }),
            skew: Some(16.0 / 7.0),
            lag_seconds: Some(1.5),
            pending: Some(1),
            status: Status::Healthy,
            state: Some(GroupState::Ok),
        };
        let shown = |group: &LogicalGroup| serde_json::to_value(LogicalRow::of("orders", group)).unwrap();
        let mut expected = json!({
            "logical_stream": "orders", "consumer_group": "g", "partitions": 4, "partitions_unknown": 0,
            "lag": 7, "lag_quality": "exact", "lag_min": 7, "lag_max": 7, "lag_seconds": 1.5,
            "worst_stream": "p:1", "worst_lag": 4, "skew_ratio": 2.286, "pending": 1,
            "status": "healthy", "state": "ok",
        });
        assert_eq!(shown(&group), expected);
        (group.unknown, group.status) = (1, Status::Unknown);
        expected["partitions_unknown"] = json!(1);
        expected["lag_quality"] = json!("partial");
        expected["lag_max"] = json!(null);
        expected["status"] = json!("unknown");
        assert_eq!(shown(&group), expected);
        (group.lag, group.worst, group.skew, group.lag_seconds) = (None, None, None, None);
        for key in
            ["lag", "lag_quality", "lag_min", "lag_max", "lag_seconds", "worst_stream", "worst_lag", "skew_ratio"]
        {
            assert_eq!(shown(&group)[key], json!(null), "{key}");
        }
    }
}
