//! Where the groups of a stream stand: up to the lowest of them, entries can be removed without a trace.
//!
//! `XTRIM` and `XADD` with `ACKED` (Redis 8.2) remove entries that every group was given and acknowledged, wherever they lie. They
//! move neither `max-deleted-entry-id` nor, behind an entry that is still pending, the first entry. They take nothing above the
//! cursor of any group that exists then.

use crate::model::reply::GroupReply;
use crate::model::{EntryId, GroupName};

/// Where a group of a stream stood at a sample.
#[derive(Debug)]
pub(super) struct Cursor {
    group: GroupName,
    at: EntryId,
    entries_read: Option<u64>,
    consumers: u64,
}

/// What a sample tells of all groups of a stream, monitored or not.
pub(super) fn cursors_of(groups: &[GroupReply]) -> Vec<Cursor> {
    let cursor = |group: &GroupReply| Cursor {
        group: group.name.clone(),
        at: group.last_delivered,
        entries_read: group.entries_read,
        consumers: group.consumers,
    };
    groups.iter().filter(|group| is_known(group)).map(cursor).collect()
}

/// The lowest cursor, of the groups that were there all the time from `before` until they were as in `now`, and only read on: no entry
/// above it was removed without a trace meanwhile. `None` where there is no such group.
///
/// A group that was set back, or created again, may have stood anywhere. What it can show of that: a lower cursor, fewer entries read
/// or none known any more (`SETID` and `CREATE` forget them), fewer consumers.
pub(super) fn lowest_that_only_rose(before: &[Cursor], now: &[GroupReply]) -> Option<EntryId> {
    let only_rose = |(place, group): (usize, &GroupReply)| {
        // Redis lists groups in the same order each time.
        let likely = before.get(place).filter(|before| before.group == group.name);
        let before = likely.or_else(|| before.iter().find(|before| before.group == group.name))?;
        let rose = before.at <= group.last_delivered
            && before.entries_read <= group.entries_read
            && before.consumers <= group.consumers;
        rose.then_some(group.last_delivered)
    };
    now.iter().enumerate().filter(|(_, group)| is_known(group)).filter_map(only_rose).min()
}

/// Whether the server told what is looked at here, and nothing that cannot be.
fn is_known(group: &GroupReply) -> bool {
    !group.unknown.last_delivered && !group.unknown.consumers
}
