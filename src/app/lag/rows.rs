//! What was sampled, as rows with a status each.

use std::borrow::Cow;
use std::time::Duration;

use crate::analysis::view::View;
use crate::http;
use crate::http::api::GroupRow;
use crate::model::lag::Quality;
use crate::model::sample::RefusedCommand;
use crate::model::text;
use crate::model::thresholds::Status;

/// One target, sampled.
pub(super) struct Sampled {
    pub(super) target: http::ServedTarget,
    pub(super) view: View,
    /// How long ago the sample was taken; `None` if there is none.
    pub(super) age: Option<Duration>,
    may_count: bool,
    wait: Duration,
}

/// A row: one stream and group, or a stream without any monitored group.
pub(super) struct LagRow<'a> {
    pub(super) target: &'a str,
    /// As in `/api/v1/events/groups`.
    pub(super) group: GroupRow<'a>,
    /// Why the lag is bounded; `None` where it is not.
    pub(super) bounded: Option<String>,
}

impl Sampled {
    /// The newest there is of a target; `wait` is how long that was waited for.
    pub(super) fn new(target: http::ServedTarget, may_count: bool, wait: Duration) -> Self {
        let newest = target.reader.newest();
        let (view, age) = (newest.view.clone(), newest.sampled.map(|sampled| sampled.elapsed()));
        Self { target, view, age, may_count, wait }
    }

    /// All rows, in the order of the streams.
    pub(super) fn rows(&self) -> Vec<LagRow<'_>> {
        let mut rows = Vec::new();
        for stream in self.view.streams.iter() {
            let mut groups: Vec<_> = stream.groups.iter().map(Some).collect();
            if groups.is_empty() {
                // Nobody who is monitored reads it, or it could not be read: that is to be seen.
                groups.push(None);
            }
            rows.extend(groups.into_iter().map(|group| {
                let bounded = group.and_then(|group| group.present()).map(|group| group.lag.quality());
                LagRow {
                    target: self.target.name.as_str(),
                    group: GroupRow::of(stream, group, &self.target.thresholds),
                    bounded: (bounded == Some(Quality::Bounded)).then(|| self.why_bounded()),
                }
            }));
        }
        rows
    }

    /// The worst of its rows; at least degraded if not everything is watched; unhealthy if Redis failed, unknown without any row.
    pub(super) fn status(&self) -> Status {
        if !self.view.redis_up() {
            return Status::Unhealthy;
        }
        let is_share = self.view.fresh.as_ref().is_some_and(|fresh| fresh.is_share);
        let rows = self.rows();
        let nothing = (rows.is_empty() && !is_share).then_some(Status::Unknown);
        let unwatched = self.error().map(|_| Status::Degraded);
        worst(rows.iter().map(|row| row.group.status.0).chain(nothing).chain(unwatched))
    }

    /// Why Redis could not be read, or not all of it.
    pub(super) fn error(&self) -> Option<String> {
        self.view.error()
    }

    fn why_bounded(&self) -> String {
        let refuses = |command| self.view.fresh.as_ref().is_some_and(|fresh| fresh.meta.refused.contains(&command));
        if !self.may_count {
            "counting is off (--lag.count-budget 0)".to_owned()
        } else if refuses(RefusedCommand::Xrange) {
            "Redis refuses XRANGE, so entries cannot be counted".to_owned()
        } else {
            let wait = text::duration(self.wait);
            format!("not counted within {wait}; raise --wait or --lag.count-budget")
        }
    }
}

impl LagRow<'_> {
    /// What there is to say beside the numbers: why nothing is known, or why the lag is bounded.
    pub(super) fn note(&self) -> Option<Cow<'_, str>> {
        let missing = match self.group.group_exists {
            Some(false) if self.group.consumer_group.is_some() => Some("the group does not exist"),
            Some(false) => Some("no monitored group"),
            Some(true) | None => None,
        };
        let bounded = self.bounded.as_ref().map(|why| format!("bounded: {why}").into());
        self.group.error.as_deref().or(missing).map(Cow::from).or(bounded)
    }

    /// Whether the lag is known: not of a stream that cannot be read or a group that does not exist.
    pub(super) fn is_known(&self) -> bool {
        self.group.group_exists == Some(true)
    }
}

/// The worst of these; healthy where there are none.
pub(super) fn worst(statuses: impl Iterator<Item = Status>) -> Status {
    statuses
        .max_by_key(|status| match status {
            Status::Healthy => 0,
            Status::Degraded => 1,
            Status::Unknown => 2,
            Status::Unhealthy => 3,
        })
        .unwrap_or(Status::Healthy)
}
