//! What an autoscaler is told: how much work there is for a group, or that this is unknown. Pure.
//!
//! **Never a zero that is not true.** A value comes from one sample in which every stream of the scaler was read. Where a lag is
//! bounded its upper bound counts. Where anything is unknown the answer is [`DemandUnknown`], not a number: an autoscaler that gets an
//! error keeps its replicas, one that gets 0 removes them.

#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::analysis::consumers::Recommendation;
use crate::analysis::snapshot::{Presence, PresentGroup, StreamSnapshot};
use crate::analysis::view::{Fresh, View};
use crate::model::glob::any_matches;
use crate::model::lag::Lag;
use crate::model::sample::{ReadError, RefusedCommand, SampleError};
use crate::model::{ConsumerName, GroupName, StreamKey, text};

/// Streams and groups that a reason names: the first few say enough.
const MAX_NAMED: usize = 3;

/// The target of [`Signal::Consumers`]: one replica per recommended consumer.
pub const CONSUMERS_TARGET: f64 = 1.0;

/// How far ahead a forecast looks by default.
pub const DEFAULT_LOOK_AHEAD: Duration = Duration::from_secs(300);

/// What a scaler scales by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Signal {
    /// Entries that were not delivered.
    Lag,
    /// The same plus entries that are pending, so that nothing is scaled away under running work.
    #[default]
    Work,
    /// How many consumers the group should have.
    Consumers,
    /// Work in a while: the 0.9 quantile of the lag then, plus entries that are pending now.
    Forecast,
}

impl Signal {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Lag, Self::Work, Self::Consumers, Self::Forecast];

    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Lag => "lag",
            Self::Work => "work",
            Self::Consumers => "consumers",
            Self::Forecast => "forecast",
        }
    }

    /// The signal of this word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|signal| signal.as_str() == word)
    }
}

/// The streams of a scaler: names, which count as empty where they do not exist, and patterns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScaledStreams {
    /// Streams by name.
    pub names: BTreeSet<StreamKey>,
    /// Redis globs.
    pub patterns: Vec<String>,
}

impl ScaledStreams {
    /// One stream.
    #[must_use]
    pub fn named(name: StreamKey) -> Self {
        Self { names: BTreeSet::from([name]), patterns: Vec::new() }
    }

    /// Takes in others.
    pub fn add(&mut self, others: &Self) {
        self.names.extend(others.names.iter().cloned());
        for pattern in &others.patterns {
            if !self.patterns.contains(pattern) {
                self.patterns.push(pattern.clone());
            }
        }
    }

    fn contains(&self, key: &StreamKey) -> bool {
        self.names.contains(key) || any_matches(&self.patterns, key.as_bytes())
    }
}

/// What is scaled, and by what.
#[derive(Clone, Debug, PartialEq)]
pub struct Scaler {
    /// The streams whose entries are the work.
    pub streams: ScaledStreams,
    /// The group whose consumers do it.
    pub group: GroupName,
    /// What the value is.
    pub signal: Signal,
    /// The value that one replica should have.
    pub target: f64,
    /// How far ahead a forecast looks.
    pub look_ahead: Duration,
}

/// The 0.9 quantile of each stream's lag after [`Scaler::look_ahead`], of the scaler's group, where there is a forecast.
pub type LagForecasts = BTreeMap<StreamKey, f64>;

/// What a scaler is told.
#[derive(Clone, Debug, PartialEq)]
pub struct Demand {
    /// The value; 0 where there is nothing to do.
    pub value: u64,
    /// Entries not delivered, over all streams.
    pub lag: Lag,
    /// Entries delivered and not acknowledged; `None` where the server told something that cannot be.
    pub pending: Option<u64>,
    /// Those of them that a consumer holds which is not dead; `None` where the consumers are not all known.
    pub in_flight: Option<u64>,
    /// How many consumers the group should have, where that is known.
    pub recommended: Option<u64>,
    /// Where the value comes from, in a sentence.
    pub reason: String,
}

/// Why there is no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DemandUnknown {
    /// There is no sample yet.
    #[error("the first poll of Redis has not ended yet")]
    NotPolled,
    /// The newest poll failed.
    #[error("the newest poll of Redis failed: {0}")]
    PollFailed(SampleError),
    /// The newest sample was withdrawn.
    #[error("the newest sample is too old")]
    Stale,
    /// The newest sample is this old, and was not withdrawn yet.
    #[error("the newest sample is {:.1} s old", .0.as_secs_f64())]
    Aged(Duration),
    /// A stream that is named is not sampled.
    #[error("the stream {0} is not in the newest sample")]
    NotSampled(StreamKey),
    /// A stream could not be read.
    #[error("the stream {stream} could not be read: {error}")]
    StreamUnreadable {
        /// The stream.
        stream: StreamKey,
        /// Why.
        error: ReadError,
    },
    /// The group could not be read.
    #[error("the group {group} of the stream {stream}: it could not be read")]
    GroupUnreadable {
        /// The group.
        group: GroupName,
        /// Its stream.
        stream: StreamKey,
    },
    /// The group may be among those that are left out.
    #[error("the group {group} of the stream {stream}: groups are left out over limit.groups")]
    GroupLeftOut {
        /// The group.
        group: GroupName,
        /// Its stream.
        stream: StreamKey,
    },
    /// The server told a number of pending entries that cannot be.
    #[error("how many entries of the stream {0} are pending is not known")]
    Pending(StreamKey),
    /// Not every stream that a pattern may mean is sampled.
    #[error("streams that match the pattern may be missing: {0}")]
    Incomplete(#[from] IncompleteSample),
}

/// Why streams that match a pattern may be missing from a sample.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IncompleteSample {
    /// Other processes sample the others.
    #[error("this process samples one shard of them")]
    Shard,
    /// A node of the cluster could not be sampled.
    #[error("{0}")]
    Node(ReadError),
    /// Streams cannot be searched for.
    #[error("Redis refuses SCAN")]
    ScanRefused,
    /// They are still searched for.
    #[error("the first search has not ended yet")]
    Searching,
    /// This many are left out.
    #[error("{0} are over limit.streams")]
    OverLimit(u64),
}

impl Scaler {
    /// What there is to do, by the newest sample.
    ///
    /// # Errors
    /// Where any part of it is unknown.
    pub fn demand(&self, view: &View, drain_target: Duration) -> Result<Demand, DemandUnknown> {
        self.demand_with(view, drain_target, &LagForecasts::new())
    }

    /// The same, with what is forecast of the streams; [`Signal::Forecast`] alone goes by it.
    ///
    /// # Errors
    /// Where any part of what there is now is unknown.
    pub fn demand_with(
        &self,
        view: &View,
        drain_target: Duration,
        forecasts: &LagForecasts,
    ) -> Result<Demand, DemandUnknown> {
        let fresh = match (&view.newest_poll, &view.fresh) {
            (None, _) => return Err(DemandUnknown::NotPolled),
            (Some(Err(error)), _) => return Err(DemandUnknown::PollFailed(error.clone())),
            (Some(Ok(())), None) => return Err(DemandUnknown::Stale),
            (Some(Ok(())), Some(fresh)) => fresh,
        };
        if !self.streams.patterns.is_empty() {
            all_found(view, fresh)?;
        }
        let streams: Vec<&StreamSnapshot> = self.streams_of(view).collect();
        let there: BTreeSet<&StreamKey> = streams.iter().map(|stream| &stream.key).collect();
        if let Some(name) = self.streams.names.iter().find(|name| !there.contains(name)) {
            return Err(DemandUnknown::NotSampled(name.clone()));
        }
        let mut sum = Sum { added: Some(0.0), delivered: Some(0.0), ..Sum::default() };
        for stream in &streams {
            sum.add(stream, &self.group, forecasts)?;
        }
        sum.demand(self, drain_target)
    }

    /// The streams of the scaler that the newest sample has.
    fn streams_of<'a>(&'a self, view: &'a View) -> impl Iterator<Item = &'a StreamSnapshot> {
        view.streams.iter().filter(|stream| self.streams.contains(&stream.key))
    }

    /// The streams of the scaler whose group there is, those with most lag first.
    #[must_use]
    pub fn present<'a>(&'a self, view: &'a View) -> Vec<&'a StreamKey> {
        let lag = |stream: &'a StreamSnapshot| {
            let group = stream.groups.iter().find(|group| group.name == self.group)?;
            Some((Reverse(group.present()?.lag.max), &stream.key))
        };
        let mut found: Vec<_> = self.streams_of(view).filter_map(lag).collect();
        found.sort_unstable();
        found.into_iter().map(|(_, key)| key).collect()
    }
}

/// Whether the sample has every stream that a pattern may mean.
fn all_found(view: &View, fresh: &Fresh) -> Result<(), IncompleteSample> {
    if fresh.is_share {
        return Err(IncompleteSample::Shard);
    }
    if let Some(why) = view.nodes.iter().find_map(|node| node.why()) {
        return Err(IncompleteSample::Node(why));
    }
    if fresh.meta.refused.contains(&RefusedCommand::Scan) {
        return Err(IncompleteSample::ScanRefused);
    }
    if fresh.meta.search.is_none_or(|search| search.completed.is_none()) {
        return Err(IncompleteSample::Searching);
    }
    match fresh.over.streams {
        0 => Ok(()),
        over => Err(IncompleteSample::OverLimit(over)),
    }
}

/// What several streams are together.
#[derive(Debug, Default)]
struct Sum<'a> {
    streams: u64,
    lag: Lag,
    /// The lag in a while: of streams with a forecast its 0.9 quantile, of others the lag now.
    ahead: u64,
    forecast: u64,
    not_forecast: Vec<&'a StreamKey>,
    pending: Option<u64>,
    pending_unknown: Vec<&'a StreamKey>,
    in_flight_unknown: bool,
    in_flight: u64,
    /// Entries per second; `None` once one is not known.
    added: Option<f64>,
    delivered: Option<f64>,
    /// Entries per second that the active consumers would take with enough to do.
    potential: f64,
    /// What one takes, of the groups for which that was measured.
    capacities: Vec<f64>,
    /// Names of consumers that are active. One that reads several streams is one.
    active: BTreeSet<&'a ConsumerName>,
    /// Active consumers, or ones that may be, whose names are not known.
    unnamed: u64,
    missing_streams: Vec<&'a StreamKey>,
    missing_groups: Vec<&'a StreamKey>,
}

impl<'a> Sum<'a> {
    fn add(
        &mut self,
        stream: &'a StreamSnapshot,
        group: &GroupName,
        forecasts: &LagForecasts,
    ) -> Result<(), DemandUnknown> {
        self.streams += 1;
        let facts = match &stream.read {
            Ok(facts) => facts,
            Err(ReadError::Missing) => {
                self.missing_streams.push(&stream.key);
                return Ok(());
            }
            Err(error) => {
                let (stream, error) = (stream.key.clone(), error.clone());
                return Err(DemandUnknown::StreamUnreadable { stream, error });
            }
        };
        match stream.groups.iter().find(|known| known.name == *group).map(|known| &known.presence) {
            Some(Presence::Unknown) => {
                let (group, stream) = (group.clone(), stream.key.clone());
                return Err(DemandUnknown::GroupUnreadable { group, stream });
            }
            None if stream.groups_left_out > 0 => {
                let (group, stream) = (group.clone(), stream.key.clone());
                return Err(DemandUnknown::GroupLeftOut { group, stream });
            }
            // A first consumer has to be started, which creates the group.
            None | Some(Presence::Missing) => {
                self.missing_groups.push(&stream.key);
                self.lag = self.lag.saturating_add(Lag::exact(facts.length));
                self.ahead = self.ahead.saturating_add(facts.length);
            }
            Some(Presence::Present(present)) => {
                self.lag = self.lag.saturating_add(present.lag);
                let ahead = match forecasts.get(&stream.key) {
                    Some(lag) => {
                        self.forecast += 1;
                        lag.ceil() as u64
                    }
                    None => {
                        self.not_forecast.push(&stream.key);
                        present.lag.max
                    }
                };
                self.ahead = self.ahead.saturating_add(ahead);
                self.add_present(&stream.key, present);
            }
        }
        self.added = self.added.zip(facts.rates.added).map(|(sum, added)| sum + added);
        Ok(())
    }

    fn add_present(&mut self, key: &'a StreamKey, group: &'a PresentGroup) {
        match group.pending {
            Some(pending) => self.pending = Some(self.pending.unwrap_or(0).saturating_add(pending)),
            None => self.pending_unknown.push(key),
        }
        self.delivered = self.delivered.zip(group.trend.delivered_rate).map(|(sum, delivered)| sum + delivered);
        // Too many consumers are less wrong than too few: what one of them takes is then lower, and more are recommended.
        let mut active = group.overflow.map_or(0, |overflow| overflow.consumers);
        self.in_flight_unknown |= group.overflow.is_some() || group.members.is_none();
        if group.members.is_none() {
            active = group.consumers.unwrap_or(0);
        }
        self.unnamed = self.unnamed.saturating_add(active);
        for consumer in group.members.iter().flatten() {
            if consumer.active == Some(true) {
                self.active.insert(&consumer.sample.name);
                active += 1;
            }
            if consumer.active != Some(false) {
                match consumer.sample.pending {
                    Some(pending) => self.in_flight = self.in_flight.saturating_add(pending),
                    None => self.in_flight_unknown = true,
                }
            }
        }
        let measured = group.trend.capacity;
        self.capacities.extend(measured);
        let now = group.trend.delivered_rate.unwrap_or(0.0);
        self.potential += measured.map_or(now, |measured| now.max(measured * active as f64));
    }

    /// What one active consumer takes with enough to do: of several streams that it reads together, or of the only one.
    fn capacity(&self, active: u64) -> Option<f64> {
        match *self.capacities.as_slice() {
            _ if active > 0 && self.potential > 0.0 => Some(self.potential / active as f64),
            [measured] if active == 0 => Some(measured),
            _ => None,
        }
    }

    fn demand(self, scaler: &Scaler, drain_target: Duration) -> Result<Demand, DemandUnknown> {
        let active = (self.active.len() as u64).saturating_add(self.unnamed);
        let capacity = self.capacity(active);
        let recommendation =
            Recommendation::of(self.added, self.delivered, capacity, self.lag.max, active, drain_target);
        let pending = match self.pending_unknown.first() {
            Some(stream) => Err(DemandUnknown::Pending((*stream).clone())),
            None => Ok(self.pending.unwrap_or(0)),
        };
        let work = pending.clone().map(|pending| self.lag.max.saturating_add(pending));
        let pending = pending.ok();
        let (value, why) = match scaler.signal {
            Signal::Lag => (self.lag.max, self.lag_text()),
            Signal::Work => (work?, self.work_text(pending)),
            Signal::Forecast => {
                let work = work?;
                let ahead = text::duration(scaler.look_ahead);
                if self.forecast == 0 {
                    let why = format!("there is no forecast for {ahead} ahead, so the value is the work now: ");
                    (work, why + &self.work_text(pending))
                } else {
                    // What is there now is not done because it will be: an autoscaler that is told 0 removes who would do it.
                    let value = self.ahead.saturating_add(pending.unwrap_or(0)).max(work.min(1));
                    (value, self.forecast_text(&ahead, pending))
                }
            }
            Signal::Consumers => {
                // Lag alone is work enough to know that there is some.
                let is_idle = match work {
                    Ok(work) => work == 0,
                    Err(_) if self.lag.max > 0 => false,
                    Err(unknown) => return Err(unknown),
                };
                consumers(&recommendation, is_idle, self.added, (active, &self.active_text()))
            }
        };
        let in_flight = (!self.in_flight_unknown).then_some(self.in_flight);
        let reason = why + &self.missing_text();
        Ok(Demand { value, lag: self.lag, pending, in_flight, recommended: recommendation.count(), reason })
    }

    /// Who is there to do the work.
    fn active_text(&self) -> String {
        let text = |count| text::count(count, "consumer is active", "consumers are active");
        let active = text(self.active.len() as u64);
        match (self.unnamed, self.active.is_empty()) {
            (0, _) => active,
            (unnamed, true) => format!("whether {} is not known", text(unnamed)),
            (unnamed, false) => format!("{active}, and of {unnamed} more it is not known"),
        }
    }

    fn lag_text(&self) -> String {
        let Lag { min, max, .. } = self.lag;
        if min == max {
            return text::count(max, "entry is not delivered", "entries are not delivered");
        }
        format!("between {min} and {max} entries are not delivered, and the upper bound counts")
    }

    fn work_text(&self, pending: Option<u64>) -> String {
        format!("{}; {}", self.lag_text(), text::count(pending.unwrap_or(0), "is pending", "are pending"))
    }

    fn forecast_text(&self, ahead: &impl std::fmt::Display, pending: Option<u64>) -> String {
        let mut text = format!(
            "in {ahead} at most {} not delivered, with a probability of 0.9; now {}",
            text::count(self.ahead, "entry is", "entries are"),
            self.work_text(pending)
        );
        if !self.not_forecast.is_empty() {
            text.push_str(&format!("; there is no forecast of {}, so the lag now counts", named(&self.not_forecast)));
        }
        text
    }

    fn missing_text(&self) -> String {
        let mut text = String::new();
        if self.streams == 0 {
            text.push_str("; no stream matches the pattern");
        }
        if !self.missing_streams.is_empty() {
            text.push_str(&format!("; there is no stream {}", named(&self.missing_streams)));
        }
        if !self.missing_groups.is_empty() {
            let streams = named(&self.missing_groups);
            text.push_str(&format!("; the group does not exist, so every entry counts, of {streams}"));
        }
        text
    }
}

/// The value of [`Signal::Consumers`]. Where the recommendation is not known, there is work, which needs consumers: as many as there
/// are, and at least one.
fn consumers(
    recommendation: &Recommendation,
    is_idle: bool,
    added: Option<f64>,
    (active, who): (u64, &str),
) -> (u64, String) {
    match recommendation.count() {
        _ if is_idle && added.is_none_or(|added| added <= 0.0) => (0, "there is nothing to do".to_owned()),
        Some(count) => (count, recommendation.reason()),
        None if is_idle => (active.max(1), format!("entries are added; {}", recommendation.reason())),
        None => (active.max(1), format!("there is work, and {who}; {}", recommendation.reason())),
    }
}

fn named(keys: &[&StreamKey]) -> String {
    let mut names: Vec<String> = keys.iter().take(MAX_NAMED).map(ToString::to_string).collect();
    if keys.len() > MAX_NAMED {
        names.push(format!("{} more", keys.len() - MAX_NAMED));
    }
    names.join(", ")
}
