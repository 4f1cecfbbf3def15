//! A stream while its sample is taken: what the server said so far, and which of its groups are looked at. Pure.

use crate::analysis::lag::lowest_needed;
use crate::analysis::lag::tracker::LagTracker;
use crate::model::lag::Continuity;
use crate::model::reply::{GroupReply, OldestPending, StreamReply};
use crate::model::{EntryId, GroupName, GroupSelection};

/// A stream that was read.
#[derive(Debug)]
pub(super) struct StreamReading {
    pub(super) reply: StreamReply,
    /// Every group of the stream, in Redis's order.
    pub(super) groups: Vec<GroupReply>,
    /// Those that are monitored, in the same order; none before they are [selected](Self::select).
    pub(super) monitored: Vec<MonitoredGroup>,
    /// Groups that are to be monitored and are not, because there are too many.
    pub(super) groups_left_out: u64,
    /// Whether its server may remove entries without a trace, and its counters would tell of others.
    pub(super) trims_acknowledged: bool,
    /// How it goes on from the sample before.
    pub(super) continuity: Continuity,
    /// Whether only its length and its groups are of this sample: its entries are too large to be read every time.
    pub(super) is_partial: bool,
}

/// A monitored group.
#[derive(Debug)]
pub(super) struct MonitoredGroup {
    /// Its place among the groups of the stream.
    pub(super) place: usize,
    /// What an earlier sample found of its pending entries, where nothing has changed since and this one did not ask.
    pub(super) known_oldest: Option<OldestPending>,
    /// How many of them lay before the stream's first entry, likewise.
    pub(super) known_ghosts: Option<u64>,
}

impl MonitoredGroup {
    /// Its oldest pending entry, where that is known.
    pub(super) fn oldest_pending<'a>(&'a self, reply: &'a GroupReply) -> Option<&'a OldestPending> {
        reply.oldest_pending.as_ref().map_or(self.known_oldest.as_ref(), Option::as_ref)
    }

    /// Pending entries without payload, where they were counted.
    pub(super) fn ghosts(&self, reply: &GroupReply) -> Option<u64> {
        reply.ghost_pending.or(self.known_ghosts)
    }
}

impl StreamReading {
    /// What the server said.
    pub(super) fn of(reply: StreamReply, groups: Vec<GroupReply>) -> Self {
        Self {
            reply,
            groups,
            monitored: Vec::new(),
            groups_left_out: 0,
            trims_acknowledged: false,
            continuity: Continuity::Unknown,
            is_partial: false,
        }
    }

    /// Selects the groups that are monitored: those that are named, then others in their order, up to the limit.
    pub(super) fn select(&mut self, selection: &GroupSelection, limit: usize) {
        let monitor = |place| MonitoredGroup { place, known_oldest: None, known_ghosts: None };
        let selected = self.groups.iter().enumerate().filter(|(_, group)| selection.contains(&group.name));
        self.monitored.reserve_exact(self.groups.len());
        self.monitored.extend(selected.map(|(place, _)| monitor(place)));
        if self.monitored.len() <= limit {
            return;
        }
        self.groups_left_out = (self.monitored.len() - limit) as u64;
        let is_named = |group: &MonitoredGroup| selection.literals().contains(&self.groups[group.place].name);
        let named = self.monitored.iter().filter(|group| is_named(group)).count().min(limit);
        let (mut of_named, mut of_others) = (named, limit - named);
        self.monitored.retain(|group| {
            let left = if is_named(group) { &mut of_named } else { &mut of_others };
            let fits = *left > 0;
            *left = left.saturating_sub(1);
            fits
        });
    }

    /// The monitored groups.
    pub(super) fn monitored(&self) -> impl Iterator<Item = (&MonitoredGroup, &GroupReply)> + Clone {
        self.monitored.iter().map(|group| (group, &self.groups[group.place]))
    }

    /// Those whose cursor is known: of others nothing can be remembered.
    pub(super) fn with_cursors(&self) -> impl Iterator<Item = (&MonitoredGroup, &GroupReply)> + Clone {
        self.monitored().filter(|(_, reply)| !reply.unknown.last_delivered)
    }

    /// Whether the next samples may be this one again: its entries are large, and it is known what they are.
    pub(super) fn may_be_carried(&self, is_large: bool) -> bool {
        is_large && !self.reply.ends_unknown
    }

    /// The lowest entry that some group still needs, and that group; `None` unless all groups are monitored and tell.
    pub(super) fn lowest_needed(&self) -> Option<(EntryId, &GroupName)> {
        let all = self.monitored.len() == self.groups.len();
        let oldest = |(group, reply): (&MonitoredGroup, _)| Some(group.oldest_pending(reply)?.id);
        lowest_needed(self.monitored().map(|of| (of.1, oldest(of)))).filter(|_| all)
    }

    /// Holds it against what is known of it from before: how it goes on from that.
    pub(super) fn open(&self, tracker: &mut LagTracker) -> Continuity {
        let monitored = self.monitored().map(|(_, reply)| reply);
        tracker.open(&self.reply, &self.groups, monitored, self.trims_acknowledged)
    }

    /// Takes what a later moment of the same poll says of the stream and of its groups, which are the same ones in the same order.
    /// Consumers and the oldest pending entry stay as they were.
    pub(super) fn move_on(&mut self, later: &StreamReply, groups: &[GroupReply]) {
        self.reply = *later;
        for (group, later) in self.groups.iter_mut().zip(groups) {
            group.move_on(later);
        }
        for group in &mut self.monitored {
            let reply = &mut self.groups[group.place];
            if reply.pending == 0 && !reply.unknown.pending {
                (reply.oldest_pending, group.known_oldest) = (Some(None), None);
            }
        }
    }
}

/// What is kept of a stream with large entries.
#[derive(Clone, Debug)]
pub(super) struct KeptStream {
    pub(super) reply: StreamReply,
    pub(super) groups: Vec<KeptGroup>,
}

/// One of its groups.
#[derive(Clone, Debug)]
pub(super) struct KeptGroup {
    pub(super) name: GroupName,
    pub(super) last_delivered: EntryId,
    pub(super) entries_read: Option<u64>,
}

impl KeptStream {
    pub(super) fn of(reading: &StreamReading) -> Self {
        let group = |group: &GroupReply| KeptGroup {
            name: group.name.clone(),
            last_delivered: group.last_delivered,
            entries_read: group.entries_read,
        };
        Self { reply: reading.reply, groups: reading.groups.iter().map(group).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(names: &[&str]) -> StreamReading {
        let group = |name: &&str| GroupReply { name: (*name).into(), ..GroupReply::default() };
        StreamReading::of(StreamReply::default(), names.iter().map(group).collect())
    }

    #[test]
    fn named_groups_are_monitored_first_and_others_in_their_order_up_to_the_limit() {
        let selection = GroupSelection::new(["z", "y", "b*"].map(str::to_owned).to_vec());
        let check = |limit, expected: &[&str], left_out| {
            let mut reading = reading(&["a", "b1", "b2", "b3", "y", "z"]);
            reading.select(&selection, limit);
            let names: Vec<String> = reading.monitored().map(|(_, group)| group.name.to_string()).collect();
            assert_eq!(
                (names, reading.groups_left_out),
                (expected.iter().map(|n| (*n).to_owned()).collect(), left_out)
            );
        };
        check(usize::MAX, &["b1", "b2", "b3", "y", "z"], 0);
        check(5, &["b1", "b2", "b3", "y", "z"], 0);
        check(4, &["b1", "b2", "y", "z"], 1);
        check(2, &["y", "z"], 3);
        check(1, &["y"], 4);
        check(0, &[], 5);
    }

    #[test]
    fn what_is_needed_is_known_only_where_all_groups_are_monitored() {
        let mut reading = reading(&["a", "b"]);
        reading.select(&GroupSelection::new(vec!["*".to_owned()]), 2);
        assert!(reading.lowest_needed().is_some());
        reading.monitored.clear();
        reading.select(&GroupSelection::new(vec!["a".to_owned()]), 2);
        assert!(reading.lowest_needed().is_none());
    }
}
