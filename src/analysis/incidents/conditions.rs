//! When a rule's condition holds, read from a view where Prometheus reads series.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::analysis::group_state::GroupState;
use crate::analysis::incident::{IncidentEvidence, IncidentSubject};
use crate::analysis::snapshot::{GroupSnapshot, PresentGroup, StreamSnapshot};
use crate::analysis::view::View;
use crate::model::thresholds::Thresholds;
use crate::model::{GroupName, StreamKey};

/// How far back rules look that are about events: `[5m]`.
const LOOK_BACK: Duration = Duration::from_secs(300);

/// Losses that come closer together than this count as one, so that few are remembered.
const LOSS_STEP: Duration = Duration::from_secs(10);

/// A rule, and the PromQL that its condition says.
#[derive(Debug)]
pub(super) struct IncidentCondition {
    pub(super) rule: &'static str,
    /// The expression that the condition was written for. A test compares it with the file: who changes the one looks at the other.
    pub(super) expr: &'static str,
    /// The state that the alert has as a label.
    pub(super) state: Option<GroupState>,
    kind: ConditionKind,
}

/// What a condition is about, and the value for which it holds; `None` where it does not hold or is not known.
#[derive(Clone, Copy, Debug)]
enum ConditionKind {
    RedisDown,
    NodeDown,
    StreamUnreadable,
    Missing,
    Losing,
    LossNear,
    Rewound,
    /// The lag is above this, or above as many times the stream's own threshold of unhealthy as this is of 1,000.
    LagOver(u64),
    Group(fn(&PresentGroup) -> Option<f64>),
}

/// Every rule that is evaluated here, the worst first. Rules about trends (PromQL over 15 minutes), about streamlag itself and about
/// housekeeping are Prometheus's alone.
pub(super) const CONDITIONS: &[IncidentCondition] = &[
    IncidentCondition {
        rule: "StreamlagRedisDown",
        expr: "streamlag_redis_up == 0",
        state: None,
        kind: ConditionKind::RedisDown,
    },
    IncidentCondition {
        rule: "StreamlagRedisNodeDown",
        expr: "streamlag_redis_node_up == 0 unless on (job, instance) streamlag_redis_up == 0",
        state: None,
        kind: ConditionKind::NodeDown,
    },
    IncidentCondition {
        rule: "EventStreamUnreadable",
        expr: "event_stream_up == 0",
        state: None,
        kind: ConditionKind::StreamUnreadable,
    },
    IncidentCondition {
        rule: "EventConsumerGroupMissing",
        expr: "event_consumer_group_state{state=\"no_group\"} == 1",
        state: Some(GroupState::NoGroup),
        kind: ConditionKind::Missing,
    },
    IncidentCondition {
        rule: "EventConsumerLosingEntries",
        expr: "increase(event_consumer_group_lost_entries_total[5m]) > 0",
        state: None,
        kind: ConditionKind::Losing,
    },
    IncidentCondition {
        rule: "EventConsumerLossNear",
        expr: "min_over_time(event_consumer_group_trim_headroom_seconds[5m]) < 600 and \
               event_consumer_lag > event_consumer_group_trim_headroom_entries + event_consumer_lag_uncertainty",
        state: None,
        kind: ConditionKind::LossNear,
    },
    IncidentCondition {
        rule: "EventConsumerGroupStopped",
        expr: "(event_consumer_group_state{state=\"stopped\"} == 1) * ignoring (state) group_left () event_consumer_lag",
        state: Some(GroupState::Stopped),
        kind: ConditionKind::Group(|group| in_state(group, GroupState::Stopped).then_some(group.lag.point as f64)),
    },
    IncidentCondition {
        rule: "CriticalEventConsumerLag",
        expr: "( event_consumer_lag > 5000 unless ignoring (consumer_group, level) event_stream_lag_threshold{level=\"unhealthy\"} ) \
               or event_consumer_lag > ignoring (consumer_group, level) group_left () (5 * event_stream_lag_threshold{level=\"unhealthy\"})",
        state: None,
        kind: ConditionKind::LagOver(5_000),
    },
    IncidentCondition {
        rule: "CriticalEventConsumerLagSeconds",
        expr: "event_consumer_lag_seconds > 600",
        state: None,
        kind: ConditionKind::Group(|group| over(group.lag_seconds?, 600.0)),
    },
    IncidentCondition {
        rule: "EventConsumerGroupStalled",
        expr: "(event_consumer_group_state{state=\"stalled\"} == 1) * ignoring (state) group_left () event_consumer_lag",
        state: Some(GroupState::Stalled),
        kind: ConditionKind::Group(|group| in_state(group, GroupState::Stalled).then_some(group.lag.point as f64)),
    },
    IncidentCondition {
        rule: "HighEventConsumerLag",
        expr: "( event_consumer_lag > 1000 unless ignoring (consumer_group, level) event_stream_lag_threshold{level=\"unhealthy\"} ) \
               or event_consumer_lag > ignoring (consumer_group, level) group_left () event_stream_lag_threshold{level=\"unhealthy\"}",
        state: None,
        kind: ConditionKind::LagOver(1_000),
    },
    IncidentCondition {
        rule: "HighEventConsumerLagSeconds",
        expr: "event_consumer_lag_seconds > 60",
        state: None,
        kind: ConditionKind::Group(|group| over(group.lag_seconds?, 60.0)),
    },
    IncidentCondition {
        rule: "EventConsumerDeadWithPending",
        expr: "event_consumer_group_dead_consumers_with_pending > 0",
        state: None,
        kind: ConditionKind::Group(|group| over(group.dead?.0 as f64, 0.0)),
    },
    IncidentCondition {
        rule: "EventConsumerGhostPending",
        expr: "event_consumer_group_ghost_pending > 0",
        state: None,
        kind: ConditionKind::Group(|group| over(group.ghost_pending? as f64, 0.0)),
    },
    IncidentCondition {
        rule: "EventConsumerPendingOld",
        expr: "event_consumer_group_oldest_pending_seconds and event_consumer_group_oldest_pending_seconds \
               - (event_consumer_lag_seconds or 0 * event_consumer_group_oldest_pending_seconds) > 300",
        state: None,
        kind: ConditionKind::Group(|group| is_pending_old(group).then_some(group.oldest_pending_seconds?)),
    },
    IncidentCondition {
        rule: "EventConsumerGroupAckStalled",
        expr: "event_consumer_group_state{state=\"ack_stalled\"} == 1 unless ignoring (state) event_consumer_group_oldest_pending_seconds \
               - (event_consumer_lag_seconds or 0 * event_consumer_group_oldest_pending_seconds) > 300",
        state: Some(GroupState::AckStalled),
        kind: ConditionKind::Group(|group| {
            (in_state(group, GroupState::AckStalled) && !is_pending_old(group)).then_some(1.0)
        }),
    },
    IncidentCondition {
        rule: "EventConsumerGroupRewound",
        expr: "max_over_time(event_consumer_group_state{state=\"rewound\"}[5m]) == 1",
        state: Some(GroupState::Rewound),
        kind: ConditionKind::Rewound,
    },
];

fn over(value: f64, limit: f64) -> Option<f64> {
    (value > limit).then_some(value)
}

fn in_state(group: &PresentGroup, state: GroupState) -> bool {
    group.trend.verdict.state == state
}

/// Whether the oldest pending entry is more than five minutes older than the oldest undelivered one.
fn is_pending_old(group: &PresentGroup) -> bool {
    let undelivered = group.lag_seconds.unwrap_or(0.0);
    group.oldest_pending_seconds.is_some_and(|pending| pending - undelivered > 300.0)
}

/// What happened to groups within [`LOOK_BACK`].
#[derive(Debug, Default)]
pub(super) struct RecentEvents {
    groups: BTreeMap<(StreamKey, GroupName), RecentOfGroup>,
}

#[derive(Debug, Default)]
struct RecentOfGroup {
    /// When entries were lost, and how many.
    losses: VecDeque<(Duration, u64)>,
    /// Entries lost so far, as of the newest poll.
    lost: u64,
    /// When loss was nearest, and how near; and when it was near for the last time.
    nearest: Option<(Duration, f64)>,
    last_near: Option<(Duration, f64)>,
    rewound: Option<Duration>,
}

impl RecentOfGroup {
    fn see(&mut self, at: Duration, group: &PresentGroup) {
        // A count that falls has begun anew.
        let lost = group.trend.lost;
        let more = lost.checked_sub(self.lost).unwrap_or(lost);
        self.lost = lost;
        match self.losses.back_mut() {
            Some((when, of_step)) if at.saturating_sub(*when) < LOSS_STEP => *of_step = of_step.saturating_add(more),
            _ if more > 0 => self.losses.push_back((at, more)),
            _ => {}
        }
        if let Some(seconds) = group.trim_headroom_seconds.filter(|seconds| *seconds < 600.0) {
            let nearest = self.nearest.filter(|(when, nearest)| !is_past(at, *when) && *nearest < seconds);
            self.nearest = nearest.or(Some((at, seconds)));
            self.last_near = Some((at, seconds));
        }
        if group.trend.verdict.state == GroupState::Rewound {
            self.rewound = Some(at);
        }
        while self.losses.front().is_some_and(|(when, _)| is_past(at, *when)) {
            self.losses.pop_front();
        }
        // Where the least value is past, that of the newest poll of those that are not: it holds for as long as the alert, and the value is one
        // of its own.
        let within = |near: &(Duration, f64)| !is_past(at, near.0);
        self.nearest = self.nearest.filter(within).or(self.last_near.filter(within));
        self.rewound = self.rewound.filter(|when| !is_past(at, *when));
    }

    /// Entries lost within the look back; `None` where none was.
    fn lost(&self) -> Option<f64> {
        let lost = self.losses.iter().map(|(_, lost)| *lost).fold(0_u64, u64::saturating_add);
        (lost > 0).then_some(lost as f64)
    }
}

fn is_past(at: Duration, when: Duration) -> bool {
    at.saturating_sub(when) >= LOOK_BACK
}

/// Evaluates every condition on a view.
pub(super) struct Conditions<'a> {
    pub(super) view: &'a View,
    pub(super) at: Duration,
    pub(super) recent: &'a mut RecentEvents,
}

impl Conditions<'_> {
    /// Calls `holds` with each rule's place in the table, and what its condition holds for.
    pub(super) fn each(&mut self, holds: &mut dyn FnMut(usize, IncidentSubject, IncidentEvidence)) {
        let view = self.view;
        let reason = |error: &dyn std::fmt::Display| IncidentEvidence {
            reason: Some(error.to_string()),
            ..IncidentEvidence::default()
        };
        if view.fresh.is_some() {
            self.remember();
        }
        let thresholds: BTreeMap<&StreamKey, Thresholds> =
            view.thresholds.iter().map(|(stream, thresholds)| (stream, *thresholds)).collect();
        let own: Vec<Option<Thresholds>> =
            view.streams.iter().map(|stream| thresholds.get(&stream.key).copied()).collect();
        // By rule, so that what is worse has its room first.
        for (rule, condition) in CONDITIONS.iter().enumerate() {
            match condition.kind {
                ConditionKind::RedisDown => {
                    if let Some(Err(error)) = &view.newest_poll {
                        holds(rule, IncidentSubject::Target, reason(error));
                    }
                }
                ConditionKind::NodeDown => {
                    for node in view.nodes.iter().filter(|_| view.redis_up()) {
                        if let Some(error) = &node.error {
                            holds(rule, IncidentSubject::Node(node.address.as_str().into()), reason(error));
                        }
                    }
                }
                // What is too old to be shown says nothing.
                _ if view.fresh.is_none() => {}
                ConditionKind::StreamUnreadable => {
                    for stream in view.streams.iter() {
                        if let Err(error) = &stream.read {
                            holds(rule, IncidentSubject::Stream(stream.key.clone()), reason(error));
                        }
                    }
                }
                kind => {
                    for (stream, own) in view.streams.iter().zip(&own) {
                        for group in &stream.groups {
                            if let Some(value) = self.value(kind, stream, group, *own) {
                                let subject = IncidentSubject::Group(stream.key.clone(), group.name.clone());
                                holds(rule, subject, evidence(group, value));
                            }
                        }
                    }
                }
            }
        }
    }

    fn value(
        &self,
        kind: ConditionKind,
        stream: &StreamSnapshot,
        group: &GroupSnapshot,
        own: Option<Thresholds>,
    ) -> Option<f64> {
        let recent = || {
            // Most targets have none, and then there is no name to be looked up.
            let groups = &self.recent.groups;
            if groups.is_empty() { None } else { groups.get(&(stream.key.clone(), group.name.clone())) }
        };
        match (kind, group.present()) {
            (ConditionKind::Missing, _) => (group.state() == Some(GroupState::NoGroup)).then_some(1.0),
            (ConditionKind::Losing, Some(_)) => recent()?.lost(),
            (ConditionKind::LossNear, Some(group)) => {
                let (_, seconds) = recent()?.nearest?;
                let room = group.trim_headroom_entries?.saturating_add(group.lag.uncertainty());
                (group.lag.point > room).then_some(seconds)
            }
            (ConditionKind::Rewound, Some(_)) => recent()?.rewound.map(|_| 1.0),
            (ConditionKind::LagOver(limit), Some(group)) => {
                let limit = own.map_or(limit, |own| own.unhealthy.saturating_mul(limit / 1_000));
                over(group.lag.point as f64, limit as f64)
            }
            (ConditionKind::Group(condition), Some(group)) => condition(group),
            _ => None,
        }
    }

    /// Notes what rules about events look back at.
    fn remember(&mut self) {
        let at = self.at;
        for stream in self.view.streams.iter() {
            for group in &stream.groups {
                let Some(present) = group.present() else { continue };
                let happens = present.trend.lost > 0
                    || present.trim_headroom_seconds.is_some_and(|seconds| seconds < 600.0)
                    || present.trend.verdict.state == GroupState::Rewound;
                let place = || (stream.key.clone(), group.name.clone());
                if happens {
                    self.recent.groups.entry(place()).or_default().see(at, present);
                } else if !self.recent.groups.is_empty()
                    && let Some(recent) = self.recent.groups.get_mut(&place())
                {
                    recent.see(at, present);
                }
            }
        }
        // A group that has lost something is remembered for as long as it is there: what it loses next is more.
        if !self.recent.groups.is_empty() {
            let there: std::collections::BTreeSet<&StreamKey> =
                self.view.streams.iter().map(|stream| &stream.key).collect();
            self.recent.groups.retain(|(stream, _), recent| {
                let is_recent = !recent.losses.is_empty() || recent.nearest.is_some() || recent.rewound.is_some();
                there.contains(stream) && (recent.lost > 0 || is_recent)
            });
        }
    }
}

fn evidence(group: &GroupSnapshot, value: f64) -> IncidentEvidence {
    let present = group.present();
    IncidentEvidence {
        value,
        state: group.state(),
        reason: present.map(|group| group.trend.verdict.to_string()),
        lag: present.map(|group| group.lag),
    }
}

#[cfg(test)]
mod tests;
