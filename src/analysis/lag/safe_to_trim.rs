//! Which entries of a stream some group still needs.

use crate::model::reply::GroupReply;
use crate::model::{EntryId, GroupName};

/// The smallest id that some group has not been given, or has not acknowledged, and that group. `groups` are all groups of the stream,
/// each with its oldest pending entry. `None` unless each tells its cursor, how much is pending and its oldest pending entry.
///
/// A trim up to it (`XTRIM … MINID`) takes nothing from any group.
#[must_use]
pub fn lowest_needed<'a>(
    groups: impl IntoIterator<Item = (&'a GroupReply, Option<EntryId>)>,
) -> Option<(EntryId, &'a GroupName)> {
    let mut lowest: Option<(EntryId, &GroupName)> = None;
    for (group, oldest_pending) in groups {
        let not_given = group.last_delivered.next().unwrap_or(group.last_delivered);
        let needed = match (group.pending, oldest_pending) {
            _ if group.unknown.last_delivered || group.unknown.pending => return None,
            (0, _) => not_given,
            (_, oldest) => oldest?.min(not_given),
        };
        if lowest.is_none_or(|(id, _)| needed < id) {
            lowest = Some((needed, &group.name));
        }
    }
    lowest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::reply::UnknownFields;

    fn id(ms: u64) -> EntryId {
        EntryId { ms, seq: 0 }
    }

    fn group(name: &str, cursor: u64, pending: Option<Option<u64>>) -> (GroupReply, Option<EntryId>) {
        let pending_entries = pending.map_or(0, |_| 3);
        let last_delivered = id(cursor);
        let reply = GroupReply { name: name.into(), last_delivered, pending: pending_entries, ..GroupReply::default() };
        (reply, pending.flatten().map(id))
    }

    #[test]
    fn the_lowest_of_what_is_pending_and_what_was_not_given() {
        let check = |groups: &[(GroupReply, Option<EntryId>)], expected: Option<(EntryId, &str)>| {
            let expected = expected.map(|(id, name)| (id, GroupName::from(name)));
            let groups = groups.iter().map(|(group, oldest)| (group, *oldest));
            assert_eq!(lowest_needed(groups).map(|(id, name)| (id, name.clone())), expected);
        };
        let after = |ms| EntryId { ms, seq: 1 };
        check(&[], None);
        check(&[group("a", 50, None), group("b", 40, None)], Some((after(40), "b")));
        check(&[group("a", 50, Some(Some(20))), group("b", 40, None)], Some((id(20), "a")));
        // Of groups that need the same one, the first is named.
        check(&[group("a", 40, None), group("b", 40, None)], Some((after(40), "a")));
        // Set back: what it is given again lies below what is pending.
        check(&[group("a", 10, Some(Some(20)))], Some((after(10), "a")));
        // Not told.
        check(&[group("a", 50, Some(None)), group("b", 40, None)], None);
        for unknown in [
            UnknownFields { pending: true, ..UnknownFields::default() },
            UnknownFields { last_delivered: true, ..UnknownFields::default() },
        ] {
            let (other, oldest) = group("b", 60, None);
            check(&[group("a", 50, None), (GroupReply { unknown, ..other }, oldest)], None);
        }
    }
}
