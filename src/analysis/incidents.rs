//! Incidents: which alert rules hold for which streams and groups, since when, and when that ended.
//!
//! Each rule is one of `alerts/streamlag.rules.yml`, with its text, severity, `for` and `keep_firing_for`; only its condition is written
//! in Rust, for a view in place of series. What cannot be known (Redis is down, a stream cannot be read) changes nothing: a firing incident
//! neither ends nor begins by that.

mod conditions;
mod rules;
mod saved;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::analysis::incident::{AlertRule, Incident, IncidentEvidence, IncidentStatus, IncidentSubject, Incidents};
use crate::analysis::snapshot::Presence;
use crate::analysis::view::View;
use crate::model::{GroupName, StreamKey, TargetName};
use conditions::{Conditions, RecentEvents};
pub use rules::all as rules;

/// How long an incident that ended is kept: Prometheus sends it to Alertmanager for as long.
pub const RESOLVED_KEPT: Duration = Duration::from_secs(15 * 60);

/// Incidents of a target. A storm of more is one storm: those of rules further up in the table are kept.
pub const MAX_INCIDENTS: usize = 20_000;

/// The time that restored incidents may be older than the tracker. Its own clock begins there.
const BEFORE: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// What a tracker goes by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IncidentSettings {
    /// The target's name.
    pub target: TargetName,
    /// Whether it is one of several.
    pub several_targets: bool,
    /// In place of each rule's `for`, to try it out.
    pub hold: Option<Duration>,
}

/// The time, by two clocks.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// By one that never steps: for durations.
    pub at: Duration,
    /// By the one that people read: for what is told.
    pub clock: SystemTime,
}

/// An incident over time.
#[derive(Debug)]
struct Tracked {
    incident: Arc<Incident>,
    /// Since when it has its status.
    since: Duration,
    /// Since when the condition of a firing one does not hold any more.
    quiet: Option<Duration>,
    /// The newest poll in which its condition held.
    round: u64,
}

/// The state machine of a target's incidents.
#[derive(Debug, Default)]
pub struct IncidentTracker {
    settings: IncidentSettings,
    tracked: BTreeMap<(usize, IncidentSubject), Tracked>,
    recent: RecentEvents,
    round: u64,
    newest: Incidents,
}

impl IncidentTracker {
    /// Goes by these settings from now on.
    pub fn reconfigure(&mut self, settings: IncidentSettings) {
        if self.settings.target != settings.target || self.settings.several_targets != settings.several_targets {
            *self = Self::default();
        }
        self.settings = settings;
    }

    /// Another Redis is sampled from now on: nothing that held before holds of it.
    pub fn retarget(&mut self) {
        *self = Self { settings: std::mem::take(&mut self.settings), ..Self::default() };
    }

    /// Goes on with incidents of the process before, as far as they are of this target. What fired goes on firing until it is known that
    /// its condition does not hold; what was pending is as old as it says, though nobody looked meanwhile.
    pub fn restore(&mut self, now: Now, incidents: Vec<Incident>) {
        for mut incident in incidents {
            if incident.target != self.settings.target || self.tracked.len() >= MAX_INCIDENTS {
                continue;
            }
            let Some(rule) = rules().iter().position(|rule| std::ptr::eq(rule, incident.rule)) else { continue };
            incident.several_targets = self.settings.several_targets;
            let began = incident.resolved_at.or(incident.fired_at).unwrap_or(incident.active_since);
            // A clock that was set back says that it began later than now.
            let age = now.clock.duration_since(began).unwrap_or_default();
            let since = (now.at + BEFORE).saturating_sub(age);
            let key = (rule, incident.subject.clone());
            self.tracked.insert(key, Tracked { incident: Arc::new(incident), since, quiet: None, round: 0 });
        }
    }

    /// What the newest poll changes.
    pub fn update(&mut self, now: Now, view: &View) -> Incidents {
        let now = Now { at: now.at + BEFORE, ..now };
        if view.newest_poll.is_none() {
            return self.newest.clone();
        }
        self.round += 1;
        let mut left_out = 0;
        // What was restored has not been shown.
        let mut changed = self.round == 1 && !self.tracked.is_empty();
        let mut recent = std::mem::take(&mut self.recent);
        Conditions { view, at: now.at, recent: &mut recent }.each(&mut |rule, subject, evidence| match self
            .holds(now, rule, subject, evidence)
        {
            Some(new) => changed |= new,
            None => left_out += 1,
        });
        self.recent = recent;
        changed |= self.does_not_hold(now, view);
        if changed || left_out != self.newest.left_out {
            let mut all: Vec<Arc<Incident>> =
                self.tracked.values().map(|tracked| Arc::clone(&tracked.incident)).collect();
            // The keys are in the order of the rules, which is that of their severity.
            all.sort_by_key(|incident| incident.status == IncidentStatus::Resolved);
            self.newest = Incidents { all: all.into(), left_out };
        }
        self.newest.clone()
    }

    /// A condition holds. Whether that is news; `None` where there is no room for it.
    fn holds(&mut self, now: Now, rule: usize, subject: IncidentSubject, evidence: IncidentEvidence) -> Option<bool> {
        let rules = rules();
        let hold = |rule: &AlertRule| self.settings.hold.unwrap_or(rule.hold);
        let key = (rule, subject);
        let full = self.tracked.len() >= MAX_INCIDENTS;
        if let Some(tracked) = self.tracked.get_mut(&key).filter(|tracked| tracked.incident.resolved_at.is_none()) {
            tracked.round = self.round;
            tracked.quiet = None;
            let incident = &tracked.incident;
            let fires = incident.status == IncidentStatus::Pending
                && now.at.saturating_sub(tracked.since) >= hold(incident.rule);
            if !fires && incident.evidence == evidence {
                return Some(false);
            }
            let mut incident = Incident::clone(incident);
            incident.evidence = evidence;
            if fires {
                incident.status = IncidentStatus::Firing;
                incident.fired_at = Some(now.clock);
                tracked.since = now.at;
            }
            tracked.incident = Arc::new(incident);
            return Some(true);
        }
        if full && !self.tracked.contains_key(&key) {
            // A worse one takes the place of the least severe. One of the same rule does not: they would take turns.
            let gives_way = self.tracked.last_key_value().is_some_and(|((last, _), _)| *last > key.0);
            if !gives_way {
                return None;
            }
            self.tracked.pop_last();
        }
        let rule = rules.get(rule)?;
        let fires = hold(rule).is_zero();
        let incident = Incident {
            rule,
            target: self.settings.target.clone(),
            several_targets: self.settings.several_targets,
            subject: key.1.clone(),
            status: if fires { IncidentStatus::Firing } else { IncidentStatus::Pending },
            active_since: now.clock,
            fired_at: fires.then_some(now.clock),
            resolved_at: None,
            evidence,
        };
        let tracked = Tracked { incident: Arc::new(incident), since: now.at, quiet: None, round: self.round };
        self.tracked.insert(key, tracked);
        Some(true)
    }

    /// Looks after incidents whose condition does not hold, or is not known. Whether one changed.
    fn does_not_hold(&mut self, now: Now, view: &View) -> bool {
        if self.tracked.is_empty() {
            return false;
        }
        let unreadable: BTreeSet<&StreamKey> =
            view.streams.iter().filter(|stream| stream.read.is_err()).map(|stream| &stream.key).collect();
        // Their streams were read, and their groups were not.
        let unknown: BTreeSet<(&StreamKey, &GroupName)> = view
            .streams
            .iter()
            .flat_map(|stream| stream.groups.iter().map(|group| (&stream.key, group)))
            .filter(|(_, group)| matches!(group.presence, Presence::Unknown))
            .map(|(stream, group)| (stream, &group.name))
            .collect();
        // A stream that a pattern means may be there and not be found yet: before the first pass over all keys has ended.
        let search = view.fresh.as_ref().and_then(|fresh| fresh.meta.search.as_ref());
        let is_searching = search.is_some_and(|search| search.completed.is_none());
        let found: BTreeSet<&StreamKey> =
            view.streams.iter().filter(|_| is_searching).map(|stream| &stream.key).collect();
        let is_unseen = |stream: &StreamKey| view.fresh.is_none() || (is_searching && !found.contains(stream));
        let is_unknown = |subject: &IncidentSubject| match subject {
            IncidentSubject::Target => false,
            IncidentSubject::Node(_) => !view.redis_up(),
            IncidentSubject::Stream(stream) => is_unseen(stream),
            IncidentSubject::Group(stream, group) => {
                is_unseen(stream) || unreadable.contains(stream) || unknown.contains(&(stream, group))
            }
        };
        let (round, mut changed) = (self.round, false);
        self.tracked.retain(|(_, subject), tracked| {
            if tracked.round == round {
                return true;
            }
            let stays = match tracked.incident.status {
                IncidentStatus::Pending => false,
                IncidentStatus::Resolved => now.at.saturating_sub(tracked.since) < RESOLVED_KEPT,
                IncidentStatus::Firing if is_unknown(subject) => true,
                IncidentStatus::Firing => {
                    let quiet = *tracked.quiet.get_or_insert(now.at);
                    if now.at.saturating_sub(quiet) >= tracked.incident.rule.keep_firing {
                        let mut incident = Incident::clone(&tracked.incident);
                        incident.status = IncidentStatus::Resolved;
                        incident.resolved_at = Some(now.clock);
                        tracked.incident = Arc::new(incident);
                        tracked.since = now.at;
                        changed = true;
                    }
                    true
                }
            };
            changed |= !stays;
            stays
        });
        changed
    }
}

#[cfg(test)]
pub(crate) mod tests;
