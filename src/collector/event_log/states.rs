//! Which states of groups the log has told of, so that it tells of each change once.

use std::collections::{BTreeMap, HashMap};

use crate::analysis::group_state::GroupState;
use crate::analysis::snapshot::{GroupSnapshot, PresentGroup, StreamSnapshot, TargetSnapshot};
use crate::collector::event_log::{LineLimit, keys};
use crate::model::{GroupName, StreamKey};

/// The states of groups that were logged and have not ended.
#[derive(Debug, Default)]
pub(super) struct States {
    /// Only those that the log tells of. Streams without one are not here.
    told: HashMap<StreamKey, BTreeMap<GroupName, GroupState>>,
}

/// What one poll logs, a few lines of each kind.
#[derive(Default)]
struct SeriesWriter {
    warnings: LineLimit,
    notes: LineLimit,
    ends: LineLimit,
}

impl States {
    /// Logs which groups have come into a state that is worth it, and which are out of it.
    pub(super) fn sample(&mut self, snapshot: &TargetSnapshot) {
        let mut lines = SeriesWriter::default();
        let mut met = 0;
        for stream in &snapshot.streams {
            let before = self.told.get(&stream.key);
            let (mut same, mut changed) = (0, false);
            for group in &stream.groups {
                let Some(present) = group.present() else { continue };
                let was = before.and_then(|before| before.get(&group.name)).copied();
                if was == told_state(present) {
                    same += usize::from(was.is_some());
                } else {
                    changed = true;
                    lines.change(stream, group, present, was);
                }
            }
            // That a group or its stream is gone, or cannot be read, is said elsewhere. What it comes to later is news again.
            if changed || same != before.map_or(0, BTreeMap::len) {
                let told = |group: &GroupSnapshot| Some((group.name.clone(), told_state(group.present()?)?));
                let now: BTreeMap<_, _> = stream.groups.iter().filter_map(told).collect();
                self.told.remove(&stream.key);
                if !now.is_empty() {
                    self.told.insert(stream.key.clone(), now);
                    met += 1;
                }
            } else {
                met += usize::from(before.is_some());
            }
        }
        if self.told.len() > met {
            let there = keys(snapshot);
            self.told.retain(|key, _| there.contains(key));
        }
        lines.rest();
    }

    /// Forgets everything: another Redis is sampled.
    pub(super) fn clear(&mut self) {
        self.told.clear();
    }
}

/// The state of a group, where the log tells of it. `lagging` and `ack_stalled` come and go with the load and with slow handlers, and
/// that a group does not exist is said elsewhere.
fn told_state(group: &PresentGroup) -> Option<GroupState> {
    let state = group.trend.verdict.state;
    match state {
        GroupState::Losing | GroupState::Stopped | GroupState::Stalled | GroupState::Rewound => Some(state),
        GroupState::Ok | GroupState::Lagging | GroupState::AckStalled | GroupState::NoGroup => None,
    }
}

impl SeriesWriter {
    /// A group is in another state than before, `was` being the one that was told.
    fn change(
        &mut self,
        stream: &StreamSnapshot,
        group: &GroupSnapshot,
        present: &PresentGroup,
        was: Option<GroupState>,
    ) {
        let verdict = &present.trend.verdict;
        // The fields of each line.
        macro_rules! say {
            ($level:ident, $($message:tt)+) => {
                tracing::$level!(
                    stream = %stream.key,
                    consumer_group = %group.name,
                    state = verdict.state.as_str(),
                    reason = %verdict,
                    lag = present.lag.point,
                    lost = present.trend.lost,
                    $($message)+
                )
            };
        }
        if let Some(was) = was
            && self.ends.has_room()
        {
            say!(info, "consumer group is no longer {}", was.as_str());
        }
        let room = match verdict.state {
            GroupState::Losing | GroupState::Stopped | GroupState::Stalled => &mut self.warnings,
            GroupState::Rewound => &mut self.notes,
            GroupState::Ok | GroupState::Lagging | GroupState::AckStalled | GroupState::NoGroup => return,
        };
        if !room.has_room() {
            return;
        }
        match verdict.state {
            GroupState::Losing => say!(warn, "consumer group is losing entries"),
            GroupState::Stopped => say!(warn, "consumer group stopped reading"),
            GroupState::Stalled => say!(warn, "consumer group stalled: live consumers read nothing new"),
            GroupState::Rewound => say!(info, "consumer group cursor moved back"),
            GroupState::Ok | GroupState::Lagging | GroupState::AckStalled | GroupState::NoGroup => {}
        }
    }

    /// Says how many more there were.
    fn rest(&self) {
        if let Some(more) = self.warnings.rest() {
            tracing::warn!(more, "more consumer groups are losing, stopped or stalled");
        }
        if let Some(more) = self.notes.rest() {
            tracing::info!(more, "more consumer group cursors moved back");
        }
        if let Some(more) = self.ends.rest() {
            tracing::info!(more, "more consumer groups left such a state");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::snapshot::Presence;
    use crate::collector::event_log::tests::snapshot;
    use crate::model::sample::ReadError;

    #[test]
    fn groups_that_are_gone_or_not_known_are_forgotten() {
        let told = || {
            let group = BTreeMap::from([("g".into(), GroupState::Stopped)]);
            States { told: HashMap::from([("s:0".into(), group.clone()), ("s:1".into(), group)]) }
        };
        let check = |change: fn(&mut TargetSnapshot)| {
            let (mut states, mut snapshot) = (told(), snapshot(0..2));
            change(&mut snapshot);
            states.sample(&snapshot);
            assert!(states.told.is_empty(), "{:?}", states.told);
        };
        check(|snapshot| snapshot.streams.clear());
        check(|snapshot| snapshot.streams.iter_mut().for_each(|stream| stream.groups.clear()));
        check(|snapshot| {
            let all = snapshot.streams.iter_mut().flat_map(|stream| &mut stream.groups);
            all.for_each(|group| group.presence = Presence::Unknown);
        });
        check(|snapshot| snapshot.streams.iter_mut().for_each(|stream| stream.read = Err(ReadError(String::new()))));
        let mut states = told();
        states.clear();
        assert!(states.told.is_empty());
    }
}
