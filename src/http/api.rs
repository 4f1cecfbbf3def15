//! The API's JSON: the only types that are serialized. The requirement's keys stand as written there; the rest is beside
//! them. Durations are seconds as numbers, times RFC 3339 in UTC, and what the server does not tell is null.

pub(crate) mod forecast;
pub(crate) mod history;
pub mod incidents;
mod logical;
pub mod remediation;
pub mod scale;
mod summary;
pub mod targets;

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};

use crate::analysis::group_state::GroupState;
use crate::analysis::snapshot::{ConsumerSnapshot, GroupSnapshot, Presence, PresentGroup, StreamSnapshot};
use crate::analysis::view::View;
use crate::http::api::summary::{HealthSummary, StateCounts, StatusCounts};
use crate::model::sample::ReadError;
use crate::model::text::{END_OF_RFC3339, rfc3339};
use crate::model::thresholds::{Status, ThresholdRules};
use crate::model::{GroupName, GroupSelection};

/// The event transport's settings, as far as the API reports them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transport {
    /// `redis_streams`, `http` or `hybrid`.
    pub mode: &'static str,
    /// Whether the transport falls back to HTTP.
    pub fallback_to_http: bool,
    /// What a Redis round trip is held against.
    pub publish_timeout: Duration,
}

/// Everything a response is made from.
#[derive(Clone, Copy, Debug)]
pub struct Api<'a> {
    /// What there is to see.
    pub view: &'a View,
    /// How long ago the newest good sample was taken; `None` before the first.
    pub age: Option<Duration>,
    /// What a lag is called.
    pub thresholds: &'a ThresholdRules,
    /// Which groups are monitored.
    pub selection: &'a GroupSelection,
    /// The event transport's settings.
    pub transport: Transport,
}

/// The `lag` of a stream that could not be read.
const UNREADABLE_LAG: i64 = -1;

impl<'a> Api<'a> {
    /// The group that is asked for by name; `None` where it is not monitored.
    #[must_use]
    pub fn asked(&self, name: &str) -> Option<GroupName> {
        let by_name = GroupName::from(name);
        // A name that is not UTF-8 can only be asked for as it is shown.
        let shown = self.all_groups().map(|group| &group.name).find(|group| group.display_name() == name).cloned();
        shown.or_else(|| self.selection.contains(&by_name).then_some(by_name))
    }

    /// The default group, where one is meant and none is asked for: the first that the configuration names, else the first
    /// monitored one that exists. `None` where only patterns are configured and no group matches.
    #[must_use]
    pub fn first_group(&self) -> Option<GroupName> {
        let first_existing = || self.all_groups().map(|group| &group.name).min();
        self.selection.literals().first().or_else(first_existing).cloned()
    }

    fn all_groups(&self) -> impl Iterator<Item = &'a GroupSnapshot> {
        self.view.streams.iter().flat_map(|stream| &stream.groups)
    }

    /// `GET /api/v1/events/consumer-lag`, of one group.
    #[must_use]
    pub fn consumer_lag(&self, group: Option<&'a GroupName>) -> impl Serialize + use<'a> {
        let streams: Vec<StreamLag<'a>> =
            self.view.streams.iter().map(|stream| StreamLag::of(stream, group, self.thresholds)).collect();
        ConsumerLag {
            total_lag: total(&streams),
            stream_count: streams.len(),
            streams: Keyed(streams),
            consumer_group: group.map(GroupName::display_name),
            sample: self.sample(),
        }
    }

    /// `GET /api/v1/events/streams`.
    #[must_use]
    pub fn streams(&self, group: Option<&'a GroupName>) -> impl Serialize + use<'a> {
        let row = |stream: &'a StreamSnapshot| {
            let facts = stream.read.as_ref().ok();
            let safe = facts.and_then(|facts| facts.safe_to_trim.as_ref());
            StreamRow {
                name: stream.key.display_name(),
                length: facts.map(|facts| facts.length),
                groups: facts.map(|facts| facts.groups),
                consumer_group: group.map(GroupName::display_name),
                safe_to_trim_id: safe.map(|safe| safe.id.to_string()),
                reclaimable_entries: safe.map(|safe| safe.reclaimable),
                held_by: safe.map(|safe| safe.held_by.display_name()),
                error: error(stream),
            }
        };
        Streams { streams: self.view.streams.iter().map(row).collect(), sample: self.sample() }
    }

    /// `GET /api/v1/events/health`: of every monitored group, or of one.
    #[must_use]
    pub fn health(&self, only: Option<&'a GroupName>) -> impl Serialize + use<'a> {
        let whole = HealthSummary::of(self.view, only, self.thresholds);
        let fresh = self.view.fresh.as_ref();
        Health {
            status: Word(whole.status),
            redis_connected: self.view.redis_up(),
            transport_mode: self.transport.mode,
            streams: whole.streams,
            max_lag: whole.max_lag.unwrap_or(0),
            total_lag: whole.total_lag.unwrap_or(0),
            consumer_group: only.or_else(|| self.selection.literals().first()).map(GroupName::display_name),
            states: whole.states,
            lost_entries: whole.lost_entries,
            fallback_to_http: self.transport.fallback_to_http,
            redis_round_trip_seconds: fresh.map(|fresh| seconds(fresh.meta.round_trip)),
            redis_round_trip_limit_seconds: seconds(self.transport.publish_timeout),
            error: self.view.error(),
            sample: self.sample(),
        }
    }

    /// `GET /api/v1/events/groups`: every monitored group, or those of one name.
    #[must_use]
    pub fn groups(&self, only: Option<&GroupName>) -> impl Serialize + use<'a> {
        let thresholds = self.thresholds;
        let rows = |stream: &'a StreamSnapshot| {
            stream.groups.iter().map(move |group| GroupRow::of(stream, Some(group), thresholds))
        };
        let wanted =
            |row: &GroupRow<'a>| only.is_none_or(|only| row.consumer_group.as_ref() == Some(&only.display_name()));
        Groups { groups: self.view.streams.iter().flat_map(rows).filter(wanted).collect(), sample: self.sample() }
    }

    /// `GET /api/v1/events/consumers`: every consumer of every monitored group, or of those of one name. Rows are made as they are written:
    /// all at once, a hundred thousand would take more memory than the answer.
    #[must_use]
    pub fn consumers(&self, only: Option<&'a GroupName>) -> impl Serialize + use<'a> {
        let view = self.view;
        let rows = move || {
            let groups = view.streams.iter().flat_map(|stream| stream.groups.iter().map(move |group| (stream, group)));
            let wanted = groups.filter(move |(_, group)| only.is_none_or(|only| group.name == *only));
            wanted
                .flat_map(|(stream, group)| members(group).iter().map(|member| ConsumerRow::of(stream, group, member)))
        };
        Consumers { consumers: Rows(rows), sample: self.sample() }
    }

    fn sample(&self) -> SampleTime {
        SampleTime { sampled_at: self.view.last_success.map(rfc3339), age_seconds: self.age.map(seconds) }
    }
}

/// When the facts were read; null before the first good sample.
#[derive(Serialize)]
struct SampleTime {
    sampled_at: Option<String>,
    age_seconds: Option<f64>,
}

#[derive(Serialize)]
struct ConsumerLag<'a> {
    streams: Keyed<'a>,
    total_lag: i64,
    stream_count: usize,
    consumer_group: Option<Cow<'a, str>>,
    #[serde(flatten)]
    sample: SampleTime,
}

/// Streams by name, in the order of the configuration.
struct Keyed<'a>(Vec<StreamLag<'a>>);

impl Serialize for Keyed<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for stream in &self.0 {
            map.serialize_entry(&stream.name, stream)?;
        }
        map.end()
    }
}

#[derive(Serialize)]
struct StreamLag<'a> {
    #[serde(skip)]
    name: Cow<'a, str>,
    lag: i64,
    consumers: Vec<Cow<'a, str>>,
    status: Word<Status>,
    state: Option<Word<GroupState>>,
    state_reason: Option<String>,
    lag_quality: Option<&'static str>,
    lag_min: Option<u64>,
    lag_max: Option<u64>,
    lag_seconds: Option<f64>,
    pending: Option<u64>,
    oldest_pending_seconds: Option<f64>,
    group_exists: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl<'a> StreamLag<'a> {
    fn of(stream: &'a StreamSnapshot, name: Option<&GroupName>, thresholds: &ThresholdRules) -> Self {
        let group = stream.groups.iter().find(|group| Some(&group.name) == name);
        let row = RowFacts::of(stream, group, thresholds);
        Self {
            name: stream.key.display_name(),
            lag: row.lag,
            consumers: group
                .map(members)
                .unwrap_or_default()
                .iter()
                .map(|consumer| consumer.sample.name.display_name())
                .collect(),
            status: Word(row.status),
            state: row.state.map(Word),
            state_reason: row.state_reason(),
            lag_quality: row.present.map(|group| group.lag.quality().as_str()),
            lag_min: row.present.map(|group| group.lag.min),
            lag_max: row.present.map(|group| group.lag.max),
            lag_seconds: row.present.and_then(|group| group.lag_seconds),
            pending: row.present.and_then(|group| group.pending),
            oldest_pending_seconds: row.present.and_then(|group| group.oldest_pending_seconds),
            group_exists: row.exists,
            error: error(stream),
        }
    }

    /// The lag, where the stream could be read.
    fn known(&self) -> Option<i64> {
        (self.lag != UNREADABLE_LAG).then_some(self.lag)
    }
}

fn total(streams: &[StreamLag<'_>]) -> i64 {
    streams.iter().filter_map(StreamLag::known).fold(0, i64::saturating_add)
}

/// What the rows of a stream and of a group have in common.
pub(super) struct RowFacts<'a> {
    pub(super) lag: i64,
    pub(super) status: Status,
    pub(super) state: Option<GroupState>,
    exists: Option<bool>,
    pub(super) present: Option<&'a PresentGroup>,
}

impl<'a> RowFacts<'a> {
    /// `group` is `None` where a pattern matches a group that this stream does not have.
    pub(super) fn of(stream: &StreamSnapshot, group: Option<&'a GroupSnapshot>, thresholds: &ThresholdRules) -> Self {
        let unknown = Self { lag: UNREADABLE_LAG, status: Status::Unknown, state: None, exists: None, present: None };
        match group.map(|group| &group.presence) {
            _ if stream.read.is_err() => unknown,
            Some(Presence::Unknown) => unknown,
            Some(Presence::Present(group)) => Self {
                lag: i64::try_from(group.lag.point).unwrap_or(i64::MAX),
                status: thresholds.of(&stream.key).status(group.lag.point),
                state: Some(group.trend.verdict.state),
                exists: Some(true),
                present: Some(group),
            },
            // No consumer reads, so a lag of 0 says nothing about health.
            None | Some(Presence::Missing) => {
                Self { lag: 0, state: Some(GroupState::NoGroup), exists: Some(false), ..unknown }
            }
        }
    }
}

impl RowFacts<'_> {
    /// The rule that decided on the state, and the evidence.
    fn state_reason(&self) -> Option<String> {
        let missing = || "the group does not exist".to_owned();
        self.state.map(|_| self.present.map_or_else(missing, |group| group.trend.verdict.to_string()))
    }
}

#[derive(Serialize)]
struct Streams<'a> {
    streams: Vec<StreamRow<'a>>,
    #[serde(flatten)]
    sample: SampleTime,
}

#[derive(Serialize)]
struct StreamRow<'a> {
    name: Cow<'a, str>,
    length: Option<u64>,
    groups: Option<u64>,
    consumer_group: Option<Cow<'a, str>>,
    safe_to_trim_id: Option<String>,
    reclaimable_entries: Option<u64>,
    held_by: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

#[derive(Serialize)]
struct Health<'a> {
    status: Word<Status>,
    redis_connected: bool,
    transport_mode: &'static str,
    streams: StatusCounts,
    max_lag: i64,
    total_lag: i64,
    consumer_group: Option<Cow<'a, str>>,
    states: StateCounts,
    lost_entries: Option<u64>,
    fallback_to_http: bool,
    redis_round_trip_seconds: Option<f64>,
    redis_round_trip_limit_seconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(flatten)]
    sample: SampleTime,
}

#[derive(Serialize)]
struct Groups<'a> {
    groups: Vec<GroupRow<'a>>,
    #[serde(flatten)]
    sample: SampleTime,
}

/// One monitored group of a stream.
#[derive(Serialize)]
pub(crate) struct GroupRow<'a> {
    pub(crate) stream: Cow<'a, str>,
    pub(crate) consumer_group: Option<Cow<'a, str>>,
    pub(crate) group_exists: Option<bool>,
    pub(crate) lag: i64,
    pub(crate) lag_quality: Option<&'static str>,
    pub(crate) lag_min: Option<u64>,
    pub(crate) lag_max: Option<u64>,
    pub(crate) lag_seconds: Option<f64>,
    pub(crate) status: Word<Status>,
    pub(crate) state: Option<Word<GroupState>>,
    pub(crate) state_since: Option<String>,
    pub(crate) state_reason: Option<String>,
    pub(crate) pending: Option<u64>,
    pub(crate) ghost_pending: Option<u64>,
    pub(crate) oldest_pending_seconds: Option<f64>,
    pub(crate) oldest_pending_deliveries: Option<u64>,
    pub(crate) unowned_pending: Option<u64>,
    pub(crate) consumers: Option<u64>,
    pub(crate) consumers_not_shown: Option<u64>,
    pub(crate) dead_consumers_with_pending: Option<u64>,
    pub(crate) dead_consumers_without_pending: Option<u64>,
    pub(crate) recommended_consumers: Option<u64>,
    pub(crate) recommended_consumers_reason: Option<String>,
    pub(crate) last_delivered_id: Option<String>,
    pub(crate) entries_read: Option<u64>,
    pub(crate) lost_entries: Option<u64>,
    pub(crate) trim_headroom_entries: Option<u64>,
    pub(crate) trim_headroom_seconds: Option<f64>,
    pub(crate) added_per_second: Option<f64>,
    pub(crate) delivered_per_second: Option<f64>,
    pub(crate) acknowledged_estimate_per_second: Option<f64>,
    pub(crate) drain_seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
}

impl<'a> GroupRow<'a> {
    /// `group` is `None` where a stream has no monitored group.
    pub(crate) fn of(
        stream: &'a StreamSnapshot,
        group: Option<&'a GroupSnapshot>,
        thresholds: &ThresholdRules,
    ) -> Self {
        let row = RowFacts::of(stream, group, thresholds);
        let dead = row.present.and_then(|group| group.dead);
        let added = stream.read.as_ref().ok().and_then(|facts| facts.rates.added);
        Self {
            stream: stream.key.display_name(),
            consumer_group: group.map(|group| group.name.display_name()),
            group_exists: row.exists,
            lag: row.lag,
            lag_quality: row.present.map(|group| group.lag.quality().as_str()),
            lag_min: row.present.map(|group| group.lag.min),
            lag_max: row.present.map(|group| group.lag.max),
            lag_seconds: row.present.and_then(|group| group.lag_seconds),
            status: Word(row.status),
            state: row.state.map(Word),
            state_since: row.present.and_then(|group| since_epoch(group.trend.verdict.since)),
            state_reason: row.state_reason(),
            pending: row.present.and_then(|group| group.pending),
            ghost_pending: row.present.and_then(|group| group.ghost_pending),
            oldest_pending_seconds: row.present.and_then(|group| group.oldest_pending_seconds),
            oldest_pending_deliveries: row.present.and_then(|group| group.oldest_pending_deliveries),
            unowned_pending: row.present.and_then(|group| group.unowned_pending),
            consumers: row.present.and_then(|group| group.consumers),
            consumers_not_shown: row.present.and_then(not_shown),
            dead_consumers_with_pending: dead.map(|(holding, _)| holding),
            dead_consumers_without_pending: dead.map(|(_, empty)| empty),
            recommended_consumers: row.present.and_then(|group| group.recommendation.count()),
            recommended_consumers_reason: row.present.map(|group| group.recommendation.reason()),
            last_delivered_id: row.present.and_then(|group| group.last_delivered).map(|id| id.to_string()),
            entries_read: row.present.and_then(|group| group.entries_read),
            lost_entries: row.present.map(|group| group.trend.lost),
            trim_headroom_entries: row.present.and_then(|group| group.trim_headroom_entries),
            trim_headroom_seconds: row.present.and_then(|group| group.trim_headroom_seconds).map(rounded),
            added_per_second: added.map(rounded),
            delivered_per_second: row.present.and_then(|group| group.trend.delivered_rate).map(rounded),
            acknowledged_estimate_per_second: row.present.and_then(|group| group.trend.acknowledged_rate).map(rounded),
            drain_seconds: row.present.and_then(|group| group.drain_seconds).map(rounded),
            error: error(stream),
        }
    }
}

#[derive(Serialize)]
struct Consumers<R> {
    consumers: R,
    #[serde(flatten)]
    sample: SampleTime,
}

/// A list of rows that are made as they are written.
struct Rows<F>(F);

impl<F: Fn() -> I, I: Iterator<Item: Serialize>> Serialize for Rows<F> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0())
    }
}

#[derive(Serialize)]
struct ConsumerRow<'a> {
    stream: Cow<'a, str>,
    consumer_group: Cow<'a, str>,
    consumer: Cow<'a, str>,
    pending: Option<u64>,
    pending_share: Option<f64>,
    oldest_pending_seconds: Option<f64>,
    idle_seconds: Option<f64>,
    inactive_seconds: Option<f64>,
    active: Option<bool>,
    health_score: u8,
}

impl<'a> ConsumerRow<'a> {
    fn of(stream: &'a StreamSnapshot, group: &'a GroupSnapshot, consumer: &'a ConsumerSnapshot) -> Self {
        let pending = group.present().and_then(|group| group.pending).unwrap_or(0);
        let sample = &consumer.sample;
        Self {
            stream: stream.key.display_name(),
            consumer_group: group.name.display_name(),
            consumer: sample.name.display_name(),
            pending: sample.pending,
            pending_share: sample.pending.filter(|_| pending > 0).map(|held| rounded(held as f64 / pending as f64)),
            oldest_pending_seconds: consumer.oldest_pending_seconds,
            idle_seconds: sample.idle_ms.map(|ms| ms as f64 / 1000.0),
            inactive_seconds: sample.inactive_ms.map(|ms| ms as f64 / 1000.0),
            active: consumer.active,
            health_score: consumer.health,
        }
    }
}

/// A value that the API shows as one word.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Word<T>(pub(crate) T);

impl Serialize for Word<Status> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.as_str())
    }
}

impl Serialize for Word<GroupState> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.as_str())
    }
}

/// An error as RFC 9457 has it.
#[derive(Serialize)]
pub struct ProblemBody<'a> {
    /// What kind of problem: none beyond the status.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// The status in words.
    pub title: &'a str,
    /// The HTTP status.
    pub status: u16,
    /// What is wrong and what would be right.
    pub detail: &'a str,
}

fn members(group: &GroupSnapshot) -> &[ConsumerSnapshot] {
    group.present().and_then(|group| group.members.as_deref()).unwrap_or_default()
}

/// Consumers that are left out of the list because there are too many; `None` where there is no list.
fn not_shown(group: &PresentGroup) -> Option<u64> {
    group.members.as_ref().map(|_| group.overflow.map_or(0, |overflow| overflow.consumers))
}

fn error(stream: &StreamSnapshot) -> Option<String> {
    stream.read.as_ref().err().map(ReadError::to_string)
}

/// Seconds to the microsecond: the rest is noise.
pub(crate) fn seconds(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1e6
}

/// A computed number to three places: the rest is noise.
fn rounded(number: f64) -> f64 {
    (number * 1000.0).round() / 1000.0
}

/// A time of the server's clock, where it can be one.
fn since_epoch(ms: u64) -> Option<String> {
    let ms = Some(ms).filter(|ms| (1..END_OF_RFC3339 * 1000).contains(ms))?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(ms)).map(rfc3339)
}
