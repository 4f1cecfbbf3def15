//! All monitored groups and streams of a target in a few numbers, for `health` and `targets`.

use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};

use crate::analysis::group_state::GroupState;
use crate::analysis::snapshot::{GroupSnapshot, StreamSnapshot};
use crate::analysis::view::View;
use crate::http::api::{RowFacts, Word};
use crate::model::GroupName;
use crate::model::thresholds::{Status, ThresholdRules};

/// A target in a few numbers.
#[derive(Debug)]
pub(super) struct HealthSummary {
    /// What the target is called; unknown before its first poll has ended.
    pub(super) status: Status,
    /// How many streams are called what. A stream counts as its worst group.
    pub(super) streams: StatusCounts,
    /// The largest lag of any group of any stream, in entries; `None` where none is known.
    pub(super) max_lag: Option<i64>,
    /// All lags together; `None` where none is known. A lower bound where some are not.
    pub(super) total_lag: Option<i64>,
    /// How many groups are in which state.
    pub(super) states: StateCounts,
    /// Entries that were lost before they were delivered, of all groups together, a lower bound; `None` where no group is known.
    pub(super) lost_entries: Option<u64>,
}

impl HealthSummary {
    /// All monitored groups of all streams; of `only` this group where it is given, whether or not a stream has it.
    pub(super) fn of(view: &View, only: Option<&GroupName>, thresholds: &ThresholdRules) -> Self {
        let mut whole = Self {
            status: Status::Unknown,
            streams: StatusCounts::default(),
            max_lag: None,
            total_lag: None,
            states: StateCounts::default(),
            lost_entries: None,
        };
        for stream in view.streams.iter() {
            let wanted = |group: &&GroupSnapshot| only.is_none_or(|only| group.name == *only);
            let groups = stream.groups.iter().filter(wanted).map(Some);
            let worst = groups.map(|group| whole.add(stream, group, thresholds)).max_by_key(|status| rank(*status));
            let status = match (worst, only) {
                (Some(worst), _) => worst,
                // The group that is asked for is missing here.
                (None, Some(_)) => whole.add(stream, None, thresholds),
                // No monitored group reads the stream, or it could not be read: it cannot be called healthy.
                (None, None) => Status::Unknown,
            };
            whole.streams.add(status);
        }
        whole.status = match (&view.newest_poll, &whole.streams) {
            (None, _) => Status::Unknown,
            (Some(Err(_)), _) => Status::Unhealthy,
            (_, streams) if streams.unhealthy > 0 => Status::Unhealthy,
            (_, streams) if streams.degraded + streams.unknown > 0 || view.error().is_some() => Status::Degraded,
            _ => Status::Healthy,
        };
        whole
    }

    /// Counts one group of a stream, and says what it is called. `group` is `None` where the stream does not have it.
    fn add(&mut self, stream: &StreamSnapshot, group: Option<&GroupSnapshot>, thresholds: &ThresholdRules) -> Status {
        let row = RowFacts::of(stream, group, thresholds);
        if let Some(state) = row.state {
            self.states.add(state);
        }
        if let Some(present) = row.present {
            self.max_lag = self.max_lag.max(Some(row.lag));
            self.total_lag = Some(self.total_lag.unwrap_or(0).saturating_add(row.lag));
            self.lost_entries = Some(self.lost_entries.unwrap_or(0).saturating_add(present.trend.lost));
        }
        row.status
    }
}

/// Which of two statuses is worse. What is not known is worse than what is known to be degraded; what is known to be unhealthy is
/// worse than that.
fn rank(status: Status) -> u8 {
    match status {
        Status::Healthy => 0,
        Status::Degraded => 1,
        Status::Unknown => 2,
        Status::Unhealthy => 3,
    }
}

/// Streams by status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct StatusCounts {
    healthy: usize,
    degraded: usize,
    unhealthy: usize,
    unknown: usize,
}

impl StatusCounts {
    fn add(&mut self, status: Status) {
        *match status {
            Status::Healthy => &mut self.healthy,
            Status::Degraded => &mut self.degraded,
            Status::Unhealthy => &mut self.unhealthy,
            Status::Unknown => &mut self.unknown,
        } += 1;
    }
}

/// Groups by state. Groups whose state is unknown are not counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct StateCounts([u64; GroupState::ALL.len()]);

impl StateCounts {
    fn add(&mut self, state: GroupState) {
        for (count, each) in self.0.iter_mut().zip(GroupState::ALL) {
            *count += u64::from(each == state);
        }
    }
}

/// Every state, those that no group is in with 0.
impl Serialize for StateCounts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (state, count) in GroupState::ALL.into_iter().zip(self.0) {
            map.serialize_entry(&Word(state), &count)?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use serde_json::json;

    use super::*;
    use crate::analysis::assess::{Assessor, Bounds, all_unreadable};
    use crate::analysis::snapshot::tests::WINDOWS;
    use crate::model::lag::Lag;
    use crate::model::lag::Resolved;
    use crate::model::sample::{GroupSample, ReadError, SampleError, StreamSample, TargetMeta, TargetSample};
    use crate::model::thresholds::Thresholds;
    use crate::model::{EntryId, FailureReason, GroupSelection};

    type Sampled<'a> = (&'a str, Option<&'a [(&'a str, u64)]>);

    /// What is seen of streams, each with the lags of its groups; `None` where it cannot be read.
    fn view(streams: &[Sampled<'_>], groups: &[&str]) -> View {
        let group = |(name, lag): &(&str, u64)| GroupSample {
            name: (*name).into(),
            resolved: Some(Resolved { lag: Lag { min: *lag, point: *lag, max: *lag }, ..Resolved::default() }),
            last_delivered: EntryId { ms: 1, seq: 0 },
            ..GroupSample::default()
        };
        let stream = |(name, groups): &Sampled<'_>| {
            let read = groups
                .map(|groups| StreamSample { groups: groups.iter().map(group).collect(), ..StreamSample::default() });
            ((*name).into(), read.ok_or_else(|| ReadError::Server("no such key".to_owned())))
        };
        let meta = TargetMeta::at(SystemTime::UNIX_EPOCH);
        let sample = TargetSample { meta, streams: streams.iter().map(stream).collect(), redis_time: Duration::ZERO };
        let selection = GroupSelection::new(groups.iter().map(|group| (*group).to_owned()).collect());
        let keys = streams.iter().map(|(name, _)| (*name).into()).collect();
        View::from(Assessor::new(keys, selection, WINDOWS, Bounds::default()).assess(sample, Duration::ZERO))
    }

    fn whole(view: &View, only: Option<&str>) -> HealthSummary {
        let rules = ThresholdRules {
            otherwise: Thresholds { degraded: 100, unhealthy: 1000 },
            by_pattern: vec![("own".to_owned(), Thresholds { degraded: 1, unhealthy: 5 })],
        };
        HealthSummary::of(view, only.map(GroupName::from).as_ref(), &rules)
    }

    fn streams(healthy: usize, degraded: usize, unhealthy: usize, unknown: usize) -> StatusCounts {
        StatusCounts { healthy, degraded, unhealthy, unknown }
    }

    #[test]
    fn a_stream_counts_as_its_worst_group() {
        let view = view(
            &[
                ("orders", Some(&[("billing", 0), ("mail", 2001)])),
                ("invoices", Some(&[("billing", 100)])),
                ("own", Some(&[("billing", 6), ("mail", 0)])),
                ("late", Some(&[("billing", 7), ("mail", 150)])),
                ("well", Some(&[("billing", 0), ("mail", 99)])),
            ],
            &["billing", "mail"],
        );
        let all = whole(&view, None);
        assert_eq!((all.status, all.streams), (Status::Unhealthy, streams(1, 1, 2, 1)));
        assert_eq!((all.max_lag, all.total_lag), (Some(2001), Some(2001 + 100 + 6 + 157 + 99)));
        assert_eq!(all.lost_entries, Some(0));
        let states = json!({"ok": 9, "lagging": 0, "stalled": 0, "stopped": 0, "ack_stalled": 0, "losing": 0,
            "rewound": 0, "no_group": 1});
        assert_eq!(serde_json::to_value(all.states).unwrap(), states);
        let billing = whole(&view, Some("billing"));
        assert_eq!((billing.status, billing.streams), (Status::Unhealthy, streams(3, 1, 1, 0)));
        assert_eq!((billing.max_lag, billing.total_lag), (Some(100), Some(113)));
    }

    #[test]
    fn what_is_not_known_is_neither_healthy_nor_a_zero() {
        let check = |streams: &[Sampled<'_>], groups: &[&str], only, status, unknown| {
            let whole = whole(&view(streams, groups), only);
            assert_eq!((whole.status, whole.streams.unknown), (status, unknown), "{streams:?} {groups:?}");
            whole
        };
        check(&[("s", Some(&[("a", 0)]))], &["a"], None, Status::Healthy, 0);
        check(&[("s", Some(&[("a", 0)]))], &["a", "b"], None, Status::Degraded, 1);
        check(&[("s", Some(&[("a", 0)]))], &["*"], None, Status::Healthy, 0);
        check(&[("s", Some(&[("a", 0)]))], &["*"], Some("b"), Status::Degraded, 1);
        check(&[("s", Some(&[("a", 0)])), ("t", None)], &["a"], None, Status::Degraded, 1);
        // No group reads it, or no monitored one.
        let nobody = check(&[("s", Some(&[]))], &["*"], None, Status::Degraded, 1);
        assert_eq!((nobody.max_lag, nobody.total_lag, nobody.lost_entries), (None, None, None));
        assert_eq!(nobody.states, StateCounts::default());
        check(&[("s", None)], &["*"], None, Status::Degraded, 1);
        // Known to be bad is worse than not known.
        check(&[("s", Some(&[("a", 1001)]))], &["a", "b"], None, Status::Unhealthy, 0);
    }

    #[test]
    fn a_target_that_does_not_answer_is_unhealthy_and_one_that_was_not_polled_is_unknown() {
        let mut view = view(&[("s", Some(&[("a", 0)]))], &["a"]);
        view.failed(SampleError { reason: FailureReason::Timeout, detail: "late".to_owned() });
        assert_eq!(whole(&view, None).status, Status::Unhealthy);
        let selection = GroupSelection::new(vec!["a".to_owned()]);
        view.streams = all_unreadable(&["s".into()], &selection, &ReadError::Server("late".to_owned())).into();
        let down = whole(&view, None);
        assert_eq!((down.status, down.streams), (Status::Unhealthy, streams(0, 0, 0, 1)));
        assert_eq!((down.max_lag, down.total_lag, down.lost_entries), (None, None, None));
        view.newest_poll = None;
        assert_eq!(whole(&view, None).status, Status::Unknown);
    }

    #[test]
    fn sums_do_not_wrap() {
        let whole = whole(&view(&[("s", Some(&[("a", u64::MAX), ("b", u64::MAX)]))], &["*"]), None);
        assert_eq!((whole.max_lag, whole.total_lag), (Some(i64::MAX), Some(i64::MAX)));
    }
}
