//! The series of logical streams: what each family says of a group of one.

use crate::analysis::logical_snapshot::LogicalGroup;
use crate::exposition::number::Number;
use crate::sys::metric_catalog::{self, MetricName};

/// What a family says of a group; `None` where there is nothing to say.
type GroupValue = fn(&LogicalGroup) -> Option<Number>;

/// The families, in the order of the page. Their labels are the logical stream's name and the group's.
pub(super) const FAMILIES: [(&MetricName, GroupValue); 7] = [
    (&metric_catalog::LOGICAL_LAG, |group| group.lag.map(|lag| Number::Whole(lag.point))),
    // With partitions unknown there is no upper bound.
    (&metric_catalog::LOGICAL_LAG_UNCERTAINTY, |group| {
        group.lag.filter(|_| group.unknown == 0).map(|lag| Number::Whole(lag.uncertainty()))
    }),
    (&metric_catalog::LOGICAL_LAG_WORST, |group| group.worst.as_ref().map(|worst| Number::Whole(worst.lag))),
    (&metric_catalog::LOGICAL_LAG_SECONDS, |group| group.lag_seconds.map(Number::Float)),
    (&metric_catalog::LOGICAL_LAG_SKEW, |group| group.skew.map(Number::Float)),
    (&metric_catalog::LOGICAL_PARTITIONS, |group| Some(Number::Whole(group.partitions))),
    (&metric_catalog::LOGICAL_PARTITIONS_UNKNOWN, |group| Some(Number::Whole(group.unknown))),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::logical_snapshot::WorstPartition;
    use crate::model::lag::Lag;
    use crate::model::thresholds::Status;

    fn told(group: &LogicalGroup) -> Vec<(&'static str, Number)> {
        FAMILIES.iter().filter_map(|(name, of)| Some((name.family, of(group)?))).collect()
    }

    #[test]
    fn what_is_not_known_has_no_series() {
        let mut group = LogicalGroup {
            name: "g".into(),
            partitions: 4,
            unknown: 0,
            lag: Some(Lag { min: 5, point: 6, max: 8 }),
            worst: Some(WorstPartition { stream: "p:1".into(), lag: 3 }),
            skew: Some(2.0),
            lag_seconds: Some(1.5),
            pending: Some(1),
            status: Status::Healthy,
            state: None,
        };
        let all = [
            ("event_logical_stream_lag", Number::Whole(6)),
            ("event_logical_stream_lag_uncertainty", Number::Whole(3)),
            ("event_logical_stream_lag_worst", Number::Whole(3)),
            ("event_logical_stream_lag_seconds", Number::Float(1.5)),
            ("event_logical_stream_lag_skew_ratio", Number::Float(2.0)),
            ("event_logical_stream_partitions", Number::Whole(4)),
            ("event_logical_stream_partitions_unknown", Number::Whole(0)),
        ];
        assert_eq!(told(&group), all);
        group.unknown = 1;
        assert!(told(&group).iter().all(|(name, _)| *name != "event_logical_stream_lag_uncertainty"));
        (group.lag, group.worst, group.skew, group.lag_seconds) = (None, None, None, None);
        assert_eq!(told(&group), [all[5], ("event_logical_stream_partitions_unknown", Number::Whole(1))]);
    }
}
