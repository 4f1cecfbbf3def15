//! The state of each group that was reported last.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::analysis::changes::{Change, GroupStateChange};
use crate::analysis::group_state::GroupState;
use crate::analysis::snapshot::{GroupSnapshot, PresentGroup, TargetSnapshot};
use crate::model::{GroupName, StreamKey};

/// Every group that is not `ok`. Streams without one are not here, so that a healthy fleet costs a lookup per stream.
#[derive(Debug, Default)]
pub(super) struct GroupStates {
    told: HashMap<StreamKey, BTreeMap<GroupName, GroupState>>,
}

pub(super) fn keys(snapshot: &TargetSnapshot) -> HashSet<&StreamKey> {
    snapshot.streams.iter().map(|stream| &stream.key).collect()
}

/// The state of a group that is not `ok`. `no_group` is told as [`Change::GroupMissing`].
fn notable(group: &PresentGroup) -> Option<GroupState> {
    let state = group.trend.verdict.state;
    (!matches!(state, GroupState::Ok | GroupState::NoGroup)).then_some(state)
}

impl GroupStates {
    /// Tells which groups are in another state than before. A group that is gone or cannot be read is forgotten: that is told
    /// elsewhere, and its state is news when it is back.
    pub(super) fn sample(&mut self, snapshot: &TargetSnapshot, emit: &mut dyn FnMut(Change<'_>)) {
        let mut met = 0;
        for stream in &snapshot.streams {
            let before = self.told.get(&stream.key);
            let (mut same, mut changed) = (0, false);
            for group in &stream.groups {
                let Some(present) = group.present() else { continue };
                let was = before.and_then(|before| before.get(&group.name)).copied();
                if was == notable(present) {
                    same += usize::from(was.is_some());
                    continue;
                }
                changed = true;
                emit(Change::GroupState(GroupStateChange {
                    stream: &stream.key,
                    group: &group.name,
                    was: was.unwrap_or(GroupState::Ok),
                    verdict: &present.trend.verdict,
                    lag: present.lag.point,
                    lost: present.trend.lost,
                }));
            }
            if changed || same != before.map_or(0, BTreeMap::len) {
                let told = |group: &GroupSnapshot| Some((group.name.clone(), notable(group.present()?)?));
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
    }

    /// Forgets everything: another Redis is sampled.
    pub(super) fn clear(&mut self) {
        self.told.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::changes::detector::tests::{in_state, snapshot};
    use crate::analysis::snapshot::Presence;
    use crate::model::sample::ReadError;

    #[test]
    fn groups_that_are_gone_or_not_known_are_forgotten() {
        let told = || {
            let group = BTreeMap::from([("g".into(), GroupState::Stopped)]);
            GroupStates { told: HashMap::from([("s:0".into(), group.clone()), ("s:1".into(), group)]) }
        };
        let check = |change: fn(&mut TargetSnapshot)| {
            let (mut states, mut snapshot) = (told(), snapshot(0..2));
            change(&mut snapshot);
            states.sample(&snapshot, &mut |change| panic!("{change:?}"));
            assert!(states.told.is_empty(), "{:?}", states.told);
        };
        check(|snapshot| snapshot.streams.clear());
        check(|snapshot| snapshot.streams.iter_mut().for_each(|stream| stream.groups.clear()));
        check(|snapshot| {
            let all = snapshot.streams.iter_mut().flat_map(|stream| &mut stream.groups);
            all.for_each(|group| group.presence = Presence::Unknown);
        });
        check(|snapshot| {
            snapshot.streams.iter_mut().for_each(|stream| stream.read = Err(ReadError::Server(String::new())))
        });
        let mut states = told();
        states.clear();
        assert!(states.told.is_empty());
    }

    #[test]
    fn a_state_is_told_where_it_is_another_than_before() {
        use GroupState::{NoGroup, Ok, Stalled, Stopped};

        let mut states = GroupStates::default();
        let mut check = |now: [GroupState; 2], expected: &[(&str, GroupState, GroupState)]| {
            let mut snapshot = snapshot(0..2);
            for (stream, state) in snapshot.streams.iter_mut().zip(now) {
                stream.groups[0].presence = in_state(state);
            }
            let mut told = Vec::new();
            states.sample(&snapshot, &mut |change| {
                let Change::GroupState(change) = change else { panic!("{change:?}") };
                told.push((change.stream.to_string(), change.was, change.verdict.state));
            });
            let expected: Vec<_> =
                expected.iter().map(|(stream, was, state)| ((*stream).to_owned(), *was, *state)).collect();
            assert_eq!(told, expected, "{now:?}");
        };
        check([Ok, Ok], &[]);
        check([Stalled, Ok], &[("s:0", Ok, Stalled)]);
        check([Stalled, Ok], &[]);
        check([Stopped, Stalled], &[("s:0", Stalled, Stopped), ("s:1", Ok, Stalled)]);
        check([Stopped, Ok], &[("s:1", Stalled, Ok)]);
        // That there is no group is told as such.
        check([Ok, NoGroup], &[("s:0", Stopped, Ok)]);
        check([Ok, Ok], &[]);
    }
}
