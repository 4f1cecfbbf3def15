//! What there is to tell the viewers of one target: every row encoded once per snapshot, every message once for all who
//! are told the same.

mod incident_rows;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use serde::Serialize;
use tokio::time::Instant;

use crate::analysis::view::View;
use crate::http::api::{GroupRow, seconds};
use crate::http::live::request::RowFilter;
use crate::http::reader_memory::{NoMemory, ReaderMemory, Reservation};
use crate::model::text::rfc3339;
use crate::model::thresholds::ThresholdRules;
use crate::model::{GroupName, StreamKey, TargetName};
use crate::store::deliveries::Deliveries;
use incident_rows::IncidentRows;

/// The most bytes of a message that are handed to a connection at once: what a viewer that does not read costs, beside
/// the message itself, which all share.
pub(super) const MAX_PIECE_BYTES: usize = 16 * 1024;

/// How many versions back a viewer may be and still be told what has changed. One that is further behind gets everything.
const KEPT_VERSIONS: u64 = 16;

/// Bytes of a message body that are not counted as memory for readers: no more than a connection takes beside.
const UNCOUNTED: usize = MAX_PIECE_BYTES;

/// Bytes of a message body beside its rows, at most.
const BRACKETS: usize = 32;

/// One group, as viewers get it.
#[derive(Debug)]
struct FeedRow {
    stream: StreamKey,
    group: GroupName,
    /// A row of `/groups`.
    json: Bytes,
    /// The version in which it last changed.
    changed: u64,
}

/// A group that is gone.
#[derive(Clone, Debug)]
struct GoneRow {
    stream: StreamKey,
    group: GroupName,
    json: Bytes,
    /// The version from which on it is.
    version: u64,
}

/// What every message begins with, apart from its age.
#[derive(Clone, Debug, Default)]
struct Facts {
    /// The target's name in JSON.
    target: String,
    /// A JSON object without its braces.
    json: String,
    /// When the newest good sample was taken.
    sampled: Option<Instant>,
}

/// Everything there is to tell after one snapshot.
#[derive(Debug)]
pub(super) struct Version {
    pub(super) number: u64,
    /// Rows are the same ones in the same order in all versions with the same layout.
    layout: u64,
    rows: Vec<FeedRow>,
    /// What is gone since [`KEPT_VERSIONS`] ago, oldest first.
    gone: VecDeque<GoneRow>,
    incidents: IncidentRows,
    facts: Facts,
}

#[derive(Serialize)]
struct GoneKey<'a> {
    stream: &'a str,
    consumer_group: &'a str,
}

/// A group of a stream.
type RowKey<'a> = (&'a StreamKey, &'a GroupName);

impl Version {
    /// The version after `before`, with what is to be seen now, which was sampled then. `targets` is a JSON array of all targets.
    pub(super) fn next(
        before: Option<&Self>,
        (view, sampled): (&View, Option<Instant>),
        target: &TargetName,
        thresholds: &ThresholdRules,
        targets: &str,
        deliveries: &Deliveries,
    ) -> serde_json::Result<Self> {
        let number = before.map_or(1, |before| before.number + 1);
        let old = before.map_or(&[][..], |before| &before.rows);
        let mut places: HashMap<RowKey<'_>, usize> =
            old.iter().enumerate().map(|(place, row)| ((&row.stream, &row.group), place)).collect();
        let (mut rows, mut same_layout) = (Vec::with_capacity(old.len()), true);
        for stream in view.streams.iter() {
            for group in &stream.groups {
                let json = serde_json::to_vec(&GroupRow::of(stream, Some(group), thresholds))?;
                let place = places.remove(&(&stream.key, &group.name));
                same_layout &= place == Some(rows.len());
                // Most rows of most samples are as they were: they share their bytes.
                let unchanged = place.and_then(|place| old.get(place)).filter(|row| row.json == json);
                let (json, changed) =
                    unchanged.map_or_else(|| (json.into(), number), |row| (row.json.clone(), row.changed));
                rows.push(FeedRow { stream: stream.key.clone(), group: group.name.clone(), json, changed });
            }
        }
        same_layout &= places.is_empty();
        let gone = gone(before, places, &rows, number)?;
        let layout = before.filter(|_| same_layout).map_or(number, |before| before.layout);
        let incidents = before.map(|before| &before.incidents);
        let incidents = IncidentRows::next(incidents, &view.incidents, deliveries, number)?;
        Ok(Self { number, layout, rows, gone, incidents, facts: Facts::of(view, sampled, target, targets)? })
    }

    /// How a message of this version begins, for a viewer that is told now.
    pub(super) fn head(&self, kind: MessageKind) -> String {
        if kind == MessageKind::Incident {
            return format!("{{\"type\":\"{}\",\"target\":{},", kind.as_str(), self.facts.target);
        }
        let age = self.facts.sampled.map(|sampled| seconds(sampled.elapsed()));
        let age = age.map_or_else(|| "null".to_owned(), |age| age.to_string());
        format!("{{\"type\":\"{}\",{},\"age_seconds\":{age},", kind.as_str(), self.facts.json)
    }

    /// The version that a viewer has seen, where it can be told what has changed since.
    fn known(&self, from: Option<u64>) -> Option<u64> {
        from.filter(|from| self.number.saturating_sub(*from) <= KEPT_VERSIONS)
    }

    /// The rest of a message: all rows of `members`, or what has changed for a viewer that has seen the version `from`, which is
    /// one of the last [`KEPT_VERSIONS`].
    fn body(
        &self,
        filter: &RowFilter,
        members: &[usize],
        from: Option<u64>,
        memory: &ReaderMemory,
    ) -> Result<MessageBody, NoMemory> {
        let rows = members.iter().filter_map(|place| self.rows.get(*place));
        let rows = rows.filter(|row| from.is_none_or(|from| row.changed > from)).map(|row| &row.json);
        let gone = self.gone.iter().filter(|gone| from.is_some_and(|from| gone.version > from));
        let gone = gone.filter(|gone| filter.matches(&gone.stream, &gone.group)).map(|gone| &gone.json);
        let bytes = rows.clone().chain(gone.clone()).map(|part| part.len() + 1).sum::<usize>() + BRACKETS;
        // Before it is made: what is refused costs nothing.
        let reservation = reserve(memory, bytes)?;
        let mut json = Vec::with_capacity(bytes);
        json.extend_from_slice(b"\"groups\":[");
        join(&mut json, rows);
        json.push(b']');
        if from.is_some() {
            json.extend_from_slice(b",\"gone\":[");
            join(&mut json, gone);
            json.push(b']');
        }
        json.push(b'}');
        let kind = from.map_or(MessageKind::Snapshot, |_| MessageKind::Update);
        Ok(MessageBody { kind, json: json.into(), _reservation: reservation })
    }

    fn members(&self, filter: &RowFilter) -> Vec<usize> {
        let rows = self.rows.iter().enumerate().filter(|(_, row)| filter.matches(&row.stream, &row.group));
        rows.map(|(place, _)| place).collect()
    }
}

/// What is gone: what was gone before, is not forgotten and has not come back, and what has gone now.
fn gone(
    before: Option<&Version>,
    now: HashMap<RowKey<'_>, usize>,
    rows: &[FeedRow],
    number: u64,
) -> serde_json::Result<VecDeque<GoneRow>> {
    let known = before.into_iter().flat_map(|before| before.gone.iter());
    let mut gone: VecDeque<GoneRow> = known.filter(|gone| number - gone.version < KEPT_VERSIONS).cloned().collect();
    if !gone.is_empty() {
        let back: HashSet<RowKey<'_>> = rows.iter().map(|row| (&row.stream, &row.group)).collect();
        gone.retain(|gone| !back.contains(&(&gone.stream, &gone.group)));
    }
    for (stream, group) in now.into_keys() {
        let key = GoneKey { stream: &stream.display_name(), consumer_group: &group.display_name() };
        let json = serde_json::to_vec(&key)?.into();
        gone.push_back(GoneRow { stream: stream.clone(), group: group.clone(), json, version: number });
    }
    Ok(gone)
}

/// Memory for a message body. A short one is never refused: what others hold ends nobody's news.
fn reserve(memory: &ReaderMemory, bytes: usize) -> Result<Reservation, NoMemory> {
    memory.reserve(if bytes > UNCOUNTED { bytes as u64 } else { 0 })
}

fn join<'a>(json: &mut Vec<u8>, parts: impl Iterator<Item = &'a Bytes>) {
    for (place, part) in parts.enumerate() {
        if place > 0 {
            json.push(b',');
        }
        json.extend_from_slice(part);
    }
}

#[derive(Serialize)]
struct Head<'a> {
    target: &'a str,
    redis_connected: bool,
    error: Option<String>,
    poll_interval_seconds: f64,
    sampled_at: Option<String>,
}

impl Facts {
    fn of(view: &View, sampled: Option<Instant>, target: &TargetName, targets: &str) -> serde_json::Result<Self> {
        let head = Head {
            target: target.as_str(),
            redis_connected: view.redis_up(),
            error: view.error(),
            poll_interval_seconds: seconds(view.interval),
            sampled_at: view.last_success.map(rfc3339),
        };
        let head = serde_json::to_string(&head)?;
        let inside = head.strip_prefix('{').and_then(|head| head.strip_suffix('}')).unwrap_or_default();
        let target = serde_json::to_string(target.as_str())?;
        Ok(Self { target, json: format!("{inside},\"targets\":{targets}"), sampled })
    }
}

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MessageKind {
    /// All rows.
    Snapshot,
    /// Rows that have changed, and rows that are gone.
    Update,
    /// Incidents: all of them, or those that have changed.
    Incident,
}

impl MessageKind {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Snapshot => "snapshot",
            Self::Update => "update",
            Self::Incident => "incident",
        }
    }
}

/// A message behind its head: the bytes that all who are told the same share.
#[derive(Debug)]
pub(super) struct MessageBody {
    pub(super) kind: MessageKind,
    pub(super) json: Bytes,
    _reservation: Reservation,
}

/// Viewers of the same groups.
#[derive(Debug)]
pub(super) struct Channel {
    pub(super) target: TargetName,
    filter: RowFilter,
    memory: ReaderMemory,
    encoded: Mutex<EncodedMessages>,
}

/// What was encoded of the newest version: at most one message for each version that a viewer may have seen.
#[derive(Debug, Default)]
struct EncodedMessages {
    version: u64,
    bodies: Vec<(Option<u64>, Arc<MessageBody>)>,
    /// The same of incidents; `None` where there is nothing to be told.
    incidents: Vec<(Option<u64>, Option<Arc<MessageBody>>)>,
    layout: u64,
    /// The places of the rows that match.
    members: Vec<usize>,
}

impl Channel {
    pub(super) fn new(target: TargetName, filter: RowFilter, memory: ReaderMemory) -> Self {
        Self { target, filter, memory, encoded: Mutex::default() }
    }

    /// What to tell a viewer that has seen the version `from`.
    ///
    /// # Errors
    /// Where the memory for readers is used up.
    pub(super) fn message(&self, version: &Version, from: Option<u64>) -> Result<Arc<MessageBody>, NoMemory> {
        let from = version.known(from);
        let mut encoded = self.lock(version);
        if encoded.layout != version.layout {
            encoded.members = version.members(&self.filter);
            encoded.layout = version.layout;
        }
        let is_newest = encoded.version == version.number;
        if let Some((_, body)) = encoded.bodies.iter().find(|(known, _)| is_newest && *known == from) {
            return Ok(Arc::clone(body));
        }
        let body = Arc::new(version.body(&self.filter, &encoded.members, from, &self.memory)?);
        // A viewer that looked before the newest version came is told of the version it looked at.
        if is_newest {
            encoded.bodies.push((from, Arc::clone(&body)));
        }
        Ok(body)
    }

    /// What to tell of incidents to a viewer that has seen those of the version `from`; `None` where there is no news.
    ///
    /// # Errors
    /// Where the memory for readers is used up.
    pub(super) fn incidents(&self, version: &Version, from: Option<u64>) -> Result<Option<Arc<MessageBody>>, NoMemory> {
        let from = version.known(from);
        let mut encoded = self.lock(version);
        let is_newest = encoded.version == version.number;
        if let Some((_, body)) = encoded.incidents.iter().find(|(known, _)| is_newest && *known == from) {
            return Ok(body.clone());
        }
        let body = version.incidents.body(&self.filter, from).map(|json| {
            let reservation = reserve(&self.memory, json.len())?;
            Ok(Arc::new(MessageBody { kind: MessageKind::Incident, json, _reservation: reservation }))
        });
        let body = body.transpose()?;
        if is_newest {
            encoded.incidents.push((from, body.clone()));
        }
        Ok(body)
    }

    /// What was encoded, of this version unless there is a newer one.
    fn lock(&self, version: &Version) -> MutexGuard<'_, EncodedMessages> {
        let mut encoded = self.encoded.lock().unwrap_or_else(PoisonError::into_inner);
        if version.number > encoded.version {
            encoded.version = version.number;
            encoded.bodies.clear();
            encoded.incidents.clear();
        }
        encoded
    }
}

#[cfg(test)]
mod tests;
