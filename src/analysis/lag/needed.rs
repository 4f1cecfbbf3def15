//! Which entries of a stream some group still needs.

use crate::model::sample::GroupSample;
use crate::model::{EntryId, GroupName};

/// The smallest id that some group has not been given, or has not acknowledged, and that group. `None` unless all groups of the stream
/// are monitored, and each tells its cursor, how much is pending and its oldest pending entry.
///
/// A trim up to it (`XTRIM … MINID`) takes nothing from any group.
#[must_use]
pub fn lowest_needed(groups: &[GroupSample]) -> Option<(EntryId, &GroupName)> {
    let needed = |group: &&GroupSample| {
        let not_given = group.last_delivered.next().unwrap_or(group.last_delivered);
        match (group.pending, group.oldest_pending) {
            _ if !group.monitored || group.unknown.last_delivered || group.unknown.pending => None,
            (0, _) => Some(not_given),
            (_, oldest) => Some(oldest?.min(not_given)),
        }
    };
    let all: Option<Vec<(EntryId, &GroupName)>> =
        groups.iter().map(|group| Some((needed(&group)?, &group.name))).collect();
    all?.into_iter().min_by_key(|(id, _)| *id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::sample::Unknown;

    fn id(ms: u64) -> EntryId {
        EntryId { ms, seq: 0 }
    }

    fn group(name: &str, cursor: u64, pending: Option<Option<u64>>) -> GroupSample {
        GroupSample {
            name: name.into(),
            monitored: true,
            last_delivered: id(cursor),
            pending: pending.map_or(0, |_| 3),
            oldest_pending: pending.flatten().map(id),
            ..GroupSample::default()
        }
    }

    #[test]
    fn the_lowest_of_what_is_pending_and_what_was_not_given() {
        let check = |groups: &[GroupSample], expected: Option<(EntryId, &str)>| {
            let expected = expected.map(|(id, name)| (id, GroupName::from(name)));
            assert_eq!(lowest_needed(groups).map(|(id, name)| (id, name.clone())), expected);
        };
        let after = |ms| EntryId { ms, seq: 1 };
        check(&[], None);
        check(&[group("a", 50, None), group("b", 40, None)], Some((after(40), "b")));
        check(&[group("a", 50, Some(Some(20))), group("b", 40, None)], Some((id(20), "a")));
        // Set back: what it is given again lies below what is pending.
        check(&[group("a", 10, Some(Some(20)))], Some((after(10), "a")));
        // Not told.
        check(&[group("a", 50, Some(None)), group("b", 40, None)], None);
        check(&[group("a", 50, None), GroupSample { monitored: false, ..group("b", 60, None) }], None);
        for unknown in
            [Unknown { pending: true, ..Unknown::default() }, Unknown { last_delivered: true, ..Unknown::default() }]
        {
            check(&[group("a", 50, None), GroupSample { unknown, ..group("b", 60, None) }], None);
        }
    }
}
