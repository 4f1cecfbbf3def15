//! What a server said of one stream and its groups: decoded, and not yet held against what is known from before.

use crate::model::{ConsumerName, EntryId, GroupName};

/// The reply to `XINFO STREAM`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamReply {
    /// Entries in the stream.
    pub length: u64,
    /// The id of the first entry; `None` where the stream is empty, or with [`ends_unknown`](Self::ends_unknown).
    pub first: Option<EntryId>,
    /// The id of the last entry; `None` where the stream is empty, or with [`ends_unknown`](Self::ends_unknown).
    pub last: Option<EntryId>,
    /// Whether the server told ids of its ends that cannot be: all that is known of a lag then is that it lies within the length.
    pub ends_unknown: bool,
    /// The highest id the stream ever gave out.
    pub last_generated: EntryId,
    /// Entries ever added (Redis 7.0 and later).
    pub entries_added: Option<u64>,
    /// The highest id that `XDEL` ever removed (Redis 7.0 and later); trimming does not count.
    pub max_deleted: Option<EntryId>,
    /// Bytes in the fields of the first and the last entry, which come along unasked.
    pub payload_bytes: u64,
}

/// One group in the reply to `XINFO GROUPS`, with the replies about its consumers and its pending entries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupReply {
    /// Its name.
    pub name: GroupName,
    /// How many consumers it has.
    pub consumers: u64,
    /// Entries delivered and not acknowledged.
    pub pending: u64,
    /// The group's cursor: the last id it was given.
    pub last_delivered: EntryId,
    /// Entries ever delivered, where the server knows it (7.0 and later, and not after every `SETID`).
    pub entries_read: Option<u64>,
    /// The server's own lag, where it has one and it is not negative. Not to be trusted by itself.
    pub server_lag: Option<u64>,
    /// What the server told that cannot be.
    pub unknown: UnknownFields,
    /// `XPENDING … 1`: its oldest pending entry, `Some(None)` where nothing is pending; `None` where that was not asked or not told.
    pub oldest_pending: Option<Option<OldestPending>>,
    /// `XPENDING` up to the stream's first entry: pending entries that are gone from the stream, a lower bound. `None` where they
    /// were not counted.
    pub ghost_pending: Option<u64>,
    /// Pending entries that no consumer holds, where the group and all of its consumers are of one moment.
    pub unowned_pending: Option<u64>,
    /// `XINFO CONSUMERS`, where that was asked and told.
    pub members: Option<Vec<ConsumerReply>>,
}

impl GroupReply {
    /// Pending entries that no consumer holds (Redis 8.8: `XNACK`), if the group and all of its consumers are of one moment.
    #[must_use]
    pub fn unowned(&self) -> Option<u64> {
        let members = self.members.as_ref()?;
        if self.unknown.pending || self.unknown.consumers || members.len() as u64 != self.consumers {
            return None;
        }
        let held = members.iter().try_fold(0_u64, |sum, consumer| sum.checked_add(consumer.pending?))?;
        self.pending.checked_sub(held)
    }

    /// Takes what a later reply to `XINFO GROUPS` says. Its consumers stay, and are of another moment from now on.
    pub fn move_on(&mut self, later: &Self) {
        (self.consumers, self.pending, self.last_delivered) = (later.consumers, later.pending, later.last_delivered);
        (self.entries_read, self.server_lag) = (later.entries_read, later.server_lag);
        (self.unknown, self.unowned_pending) = (later.unknown, None);
    }
}

/// Fields of a group that the server left out, or told as something that cannot be. The reply has 0 in their place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UnknownFields {
    /// [`GroupReply::consumers`].
    pub consumers: bool,
    /// [`GroupReply::pending`].
    pub pending: bool,
    /// [`GroupReply::last_delivered`].
    pub last_delivered: bool,
}

/// A group's pending entry with the smallest id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OldestPending {
    /// Its id.
    pub id: EntryId,
    /// The consumer that holds it; `None` where none does.
    pub consumer: Option<ConsumerName>,
    /// How often it was delivered; up to 2^63 - 1, which `XNACK … FATAL` sets. `None` where the server told something that cannot be.
    pub deliveries: Option<u64>,
}

/// One consumer of one group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumerReply {
    /// Its name.
    pub name: ConsumerName,
    /// Entries delivered to it and not acknowledged; `None` where the server told something that cannot be.
    pub pending: Option<u64>,
    /// Milliseconds since it last tried to read (7.2 and later), or last read something (before); `None` where the server told
    /// something that cannot be.
    pub idle_ms: Option<u64>,
    /// Milliseconds since it last was given something (7.2 and later); `None` where never, or not told.
    pub inactive_ms: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_moves_on_and_its_consumers_stay_those_of_another_moment() {
        let consumer = ConsumerReply { name: "c".into(), pending: Some(1), idle_ms: Some(5), inactive_ms: None };
        let mut group = GroupReply {
            name: "g".into(),
            consumers: 1,
            pending: 3,
            last_delivered: EntryId { ms: 5, seq: 0 },
            unowned_pending: Some(2),
            members: Some(vec![consumer]),
            ..GroupReply::default()
        };
        let later = GroupReply {
            name: "g".into(),
            consumers: 2,
            pending: 4,
            last_delivered: EntryId { ms: 6, seq: 1 },
            entries_read: Some(7),
            server_lag: Some(8),
            unknown: UnknownFields { pending: true, ..UnknownFields::default() },
            unowned_pending: Some(1),
            ..GroupReply::default()
        };
        let members = group.members.clone();
        group.move_on(&later);
        assert_eq!(group, GroupReply { unowned_pending: None, members, ..later });
    }
}
