//! What is remembered of a stream from sample to sample, and the lags that follow from it.
//!
//! The server's own arithmetic is never taken for proof: its entries-read can be set by hand (`ENTRIESREAD`), is not
//! moved by `XCLAIM … LASTID`, and has bugs in most versions. Three things are relied on instead, each with its argument
//! where it is used: what the sample says of the stream (length, first and last entry), how its own counter of added
//! entries moves while we watch, and counting by `XRANGE`. What each rule assumes about removals is in docs/lag.md.

mod count;
pub(in crate::analysis) mod counters;
mod cursors;
mod group_tracker;

use std::collections::VecDeque;

pub use count::CountRange;
use count::{Count, Sides};
use cursors::{Cursor, cursors_of, lowest_that_only_rose};
use group_tracker::GroupTracker;

use crate::analysis::lag::bounds::{LastTold, ends};
use crate::analysis::lag::timeline::Timeline;
use crate::model::lag::{Continuity, EntryPage, Lag, Resolved};
use crate::model::reply::{GroupReply, StreamReply};
use crate::model::{EntryId, GroupName};

/// A lag up to this is counted again whenever anything changed, and the counters are not believed: that costs Redis some 30 µs,
/// and no manual `XSETID`, no restored key can make it wrong.
pub const SMALL_LAG: u64 = 100;

/// Samples after which entries below the oldest pending entry are counted again, where nothing else tells. Once an entry stands still,
/// they are counted at the next sample.
const HELD_AGAIN: u32 = 12;

/// Entries in a page that tells a lag by itself, at the most: some 300 µs of Redis's time.
const AT_ONCE: u64 = 1000;

/// A lag that the counters tell is counted afresh only if that reads no more than this.
const SMALL_BYTES: u64 = 64 * 1024;

/// Tracks one stream and its groups from sample to sample.
#[derive(Debug)]
pub struct LagTracker {
    /// A lag up to this is counted afresh whenever anything changed: [`SMALL_LAG`].
    small: u64,
    /// The newest sample.
    facts: Option<StreamReply>,
    /// The last entry of the sample before: as long as it is there, the stream is not a fork of the one that was seen.
    anchor: Option<EntryId>,
    /// Whether anything was removed between the newest sample and the one before.
    shrinking: bool,
    /// Where all groups stood, where the server can remove entries without a trace.
    cursors: Option<Vec<Cursor>>,
    marks: Timeline,
    groups: Vec<GroupTracker>,
    /// What is known of the entries that some group still needs: [`LagTracker::hold`].
    held: Option<Box<HeldBack>>,
}

/// The entries from the one on that holds a stream back: they are counted as those of a group would be that was given all before.
#[derive(Debug)]
struct HeldBack {
    tracked: GroupTracker,
    /// Samples since they were counted.
    age: u32,
    /// Whether they were counted from this entry on.
    is_counted: bool,
}

/// What would have to be asked to know a group's lag, in entries and in time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Queries {
    /// The first entry after this cursor, for its age.
    pub first: Option<EntryId>,
    /// Whether that comes along with the count.
    pub comes_along: bool,
    /// A count, whose range [`LagTracker::rest`] tells: the uncertainty of the lag without it, in entries.
    pub count: Option<u64>,
    /// Entries that the first page of the count should be allowed, where that is known.
    pub page: Option<u64>,
}

/// What came of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted {
    /// It was taken.
    Taken,
    /// It is the last of a count that began before the group moved on. From what it tells, the lag can be counted now.
    Nearer,
    /// Entries that it should have shown may have been removed since the sample, after the group was given them. It tells the lag
    /// in its own moment only: see [`LagTracker::counted_at_once`].
    Outdated,
}

impl Default for LagTracker {
    fn default() -> Self {
        Self::with_small_lag(SMALL_LAG)
    }
}

impl LagTracker {
    /// Nothing known yet; counts lags up to `small` afresh. Short streams have lags of both kinds where it is small.
    #[must_use]
    pub fn with_small_lag(small: u64) -> Self {
        Self {
            small,
            facts: None,
            anchor: None,
            shrinking: false,
            cursors: None,
            marks: Timeline::default(),
            groups: Vec::new(),
            held: None,
        }
    }

    /// Forgets everything but which groups there are. For when the connection is new: the server may have been
    /// restarted from an old file, or be another one.
    pub fn forget(&mut self) {
        self.facts = None;
        self.shrinking = false;
        self.cursors = None;
        self.marks.clear();
        self.groups.iter_mut().for_each(GroupTracker::forget);
        self.held = None;
    }

    /// The groups of the last sample.
    pub fn groups(&self) -> impl Iterator<Item = &GroupName> {
        self.groups.iter().map(|tracked| &tracked.name)
    }

    /// Opens a sample: what it says of the stream, of all its groups, and of the `monitored` ones among them, in the same order, is
    /// held against what is remembered. `trims_acknowledged` is whether the server may remove entries without a trace, by
    /// `XTRIM … ACKED` of Redis 8.2. Returns how the stream goes on from the sample before.
    pub fn open<'a>(
        &mut self,
        now: &StreamReply,
        groups: &[GroupReply],
        monitored: impl Iterator<Item = &'a GroupReply> + Clone,
        trims_acknowledged: bool,
    ) -> Continuity {
        self.shrinking = self.facts.is_some_and(|before| !now.nothing_removed_since(&before));
        let untraced = self.untraced_since_facts(now, trims_acknowledged.then_some(groups));
        let mut continuity = self.facts.map_or(Continuity::Unknown, |before| now.since(&before, untraced));
        // All entries up to a mark below the first entry are gone, so at least that many were removed.
        let passed = now.first.and_then(EntryId::previous).and_then(|before| self.marks.added_at_or_below(before));
        if passed.is_some_and(|rank| now.removed() < Some(rank)) {
            continuity = Continuity::Discontinuous;
        }
        if continuity != Continuity::Continuous {
            // Where nothing was ever removed, nothing was without a trace.
            let traced = !trims_acknowledged || now.removed() == Some(0);
            self.marks.begin(if traced { EntryId::default() } else { now.last_generated });
            self.groups.iter_mut().for_each(GroupTracker::forget);
            self.held = None;
        }
        self.marks.removed_up_to(untraced);
        self.groups.iter_mut().for_each(|tracked| tracked.removed_up_to(untraced));
        if let Some(held) = &mut self.held {
            held.tracked.removed_up_to(untraced);
        }
        self.anchor = self.facts.and_then(|before| before.last).filter(|_| self.facts != Some(*now));
        self.facts = Some(*now);
        self.cursors = trims_acknowledged.then(|| cursors_of(groups));
        if !monitored.clone().map(|group| &group.name).eq(self.groups.iter().map(|tracked| &tracked.name)) {
            let mut old = VecDeque::from(std::mem::take(&mut self.groups));
            self.groups.reserve_exact(monitored.clone().count());
            for group in monitored.clone() {
                // Redis lists groups in the same order each time, so the one looked for is mostly the first.
                let place = old.iter().position(|tracked| tracked.name == group.name);
                let known = place.and_then(|place| old.remove(place));
                self.groups.push(known.unwrap_or_else(|| GroupTracker::new(group.name.clone())));
            }
        }
        for (group, tracked) in monitored.zip(&mut self.groups) {
            if tracked.entries_read > group.entries_read {
                // Only `SETID` does that, or creating the group again, maybe together with the stream.
                tracked.forget();
                self.marks.clear();
            }
            tracked.entries_read = group.entries_read;
            tracked.at(group.last_delivered);
        }
        if let Some(added) = now.entries_added {
            let lowest = self.groups.iter().map(|tracked| tracked.here.cursor).min();
            self.marks.add(now.last_generated, added, lowest);
        }
        continuity
    }

    /// The highest entry that may have been removed without a trace between the newest sample and `now`. `groups` are all groups
    /// then; `None` where the server does no such thing.
    fn untraced_since_facts(&self, now: &StreamReply, groups: Option<&[GroupReply]>) -> EntryId {
        match (groups, self.facts) {
            (Some(groups), Some(before)) if !now.nothing_removed_since(&before) => {
                let limit = self.cursors.as_ref().and_then(|cursors| lowest_that_only_rose(cursors, groups));
                limit.unwrap_or(now.last_generated)
            }
            _ => EntryId::default(),
        }
    }

    /// Whether pages of counts should come with the stream's groups: entries may vanish without a trace before they are read.
    #[must_use]
    pub fn counts_with_groups(&self) -> bool {
        self.cursors.is_some() && (self.shrinking || self.marks.ever_untraced() > EntryId::default())
    }

    /// Says which is the lowest entry that some group still needs. What would have to be asked to know how many lie below it: nothing
    /// where its neighbours tell, and seldom while it moves.
    pub fn hold(&mut self, stream: &StreamReply, safe: EntryId, entry_bytes: u64) -> Queries {
        let Some(cursor) = safe.previous() else {
            self.held = None;
            return Queries::default();
        };
        let held = self.held.get_or_insert_with(|| {
            Box::new(HeldBack { tracked: GroupTracker::new(GroupName::from("")), age: HELD_AGAIN, is_counted: false })
        });
        let is_still = held.tracked.here.cursor == cursor;
        held.is_counted &= is_still;
        held.age = held.age.saturating_add(1);
        held.tracked.at(cursor);
        let is_due = is_still && !held.is_counted || held.age > HELD_AGAIN || held.tracked.count.is_some();
        let ask = if is_due { self.ask_of(None, stream, cursor, None, entry_bytes) } else { Queries::default() };
        Queries { first: None, ..ask }
    }

    /// How many entries lie below `safe`, the lowest one that some group still needs: a lower bound.
    pub fn below_held(&mut self, now: &StreamReply, safe: EntryId) -> Option<u64> {
        // What was asked about may be a lower one, where groups have moved on since.
        let cursor = self.held.as_ref().map(|held| held.tracked.here.cursor).filter(|cursor| *cursor < safe)?;
        // A group that stands just there has counted for it.
        let standing = self.groups.iter().find(|group| group.here.cursor == cursor).and_then(|group| group.here.exact);
        let tracked = &mut self.held.as_mut()?.tracked;
        let lag = match (ends(now, cursor), standing) {
            (Some(lag), _) => lag,
            (None, Some((lag, then))) if then == *now => Lag::bounded(lag, lag, lag),
            (None, _) => tracked.lag(now, &self.marks, None),
        };
        if lag.uncertainty() == 0 {
            tracked.remember(lag.point, now, &self.marks);
        }
        tracked.most = Some((lag.max, *now));
        Some(now.length.saturating_sub(lag.max))
    }

    /// What would have to be asked to know the group's lag, in entries and in time.
    pub fn ask(&mut self, stream: &StreamReply, group: &GroupReply, entry_bytes: u64) -> Queries {
        self.ask_of(Some(&group.name), stream, group.last_delivered, group.server_lag, entry_bytes)
    }

    /// The same for a group, or for what is held.
    fn ask_of(
        &mut self,
        whose: Option<&GroupName>,
        now: &StreamReply,
        cursor: EntryId,
        server_lag: Option<u64>,
        entry_bytes: u64,
    ) -> Queries {
        let at_once = self.counts_with_groups();
        let (marks, shrinking) = (&self.marks, self.shrinking);
        let Some(tracked) = tracker_of(&mut self.groups, &mut self.held, whose) else { return Queries::default() };
        tracked.depends_on_earlier = false;
        tracked.many_below &= shrinking;
        if ends(now, cursor).is_some() {
            // The first entry tells the rest.
            return Queries::default();
        }
        let lag = tracked.lag(now, marks, server_lag);
        let unchanged = tracked.here.exact.is_some_and(|(_, then)| then == *now);
        let small =
            lag.point <= self.small && (lag.uncertainty() > 0 || lag.max.saturating_mul(entry_bytes) <= SMALL_BYTES);
        let mut ask = Queries::default();
        if !unchanged && (small || lag.uncertainty() > 0) {
            // A small lag is counted to the end of the stream, so that it does not hang on any counter.
            let beyond_removed = tracked.here.cursor.max(now.max_deleted.unwrap_or_default()).max(marks.untraced());
            let to = if small { None } else { marks.at_or_above(beyond_removed) };
            let resumed = tracked.count.take().filter(|count| count.still_good(now) && !(small && count.is_ahead()));
            let below = match (shrinking, at_once) {
                (false, _) => u64::MAX,
                (true, true) if !tracked.many_below => AT_ONCE,
                (true, _) => 0,
            };
            let sides = if small { Sides::Above } else { Sides::Any { floor: tracked.floor(now, marks), below } };
            tracked.count = resumed.or_else(|| Count::begin(now, cursor, to, lag, sides).map(Box::new));
            ask.count = tracked.count.as_ref().map(|_| lag.uncertainty().max(1));
            ask.page = tracked.count.as_ref().filter(|count| count.is_at_once()).map(|_| AT_ONCE);
        } else {
            if lag.uncertainty() == 0 {
                // It may be exact thanks to what is counted so far.
                tracked.remember(lag.point, now, marks);
            }
            tracked.count = None;
        }
        let counts_afresh = tracked.count.as_deref().is_some_and(Count::is_self_contained);
        tracked.depends_on_earlier = !unchanged && !counts_afresh;
        ask.comes_along = tracked.count.as_ref().is_some_and(|count| count.range.begins_after(tracked.here.cursor));
        ask.first = tracked.oldest_undelivered(now).is_none().then_some(tracked.here.cursor);
        ask
    }

    /// Entries that must still be there, if the stream is the one that was seen and a lag depends on that: its last one of the
    /// sample before, and those that were to be delivered next. They are asked for before anything is resolved.
    #[must_use]
    pub fn anchors(&self) -> Vec<EntryId> {
        let (Some(now), Some(last)) = (self.facts, self.anchor) else { return Vec::new() };
        let dependent: Vec<&GroupTracker> = self.groups.iter().filter(|tracked| tracked.depends_on_earlier).collect();
        let next = dependent.iter().filter_map(|tracked| tracked.oldest_undelivered(&now));
        let mut anchors: Vec<EntryId> = next.chain((!dependent.is_empty()).then_some(last)).collect();
        anchors.sort_unstable();
        anchors.dedup();
        anchors
    }

    /// An anchor is not there: nothing that is remembered counts.
    pub fn anchor_is_gone(&mut self) {
        self.begin_anew();
        for tracked in &mut self.groups {
            let count = tracked.count.take().filter(|count| count.is_self_contained());
            tracked.forget();
            tracked.count = count;
        }
    }

    /// Nothing that is remembered is believed any longer, but the newest sample.
    fn begin_anew(&mut self) {
        let removed = self.facts.is_some_and(|now| now.removed() != Some(0));
        let top = self.facts.filter(|_| self.cursors.is_some() && removed).map(|now| now.last_generated);
        self.marks.begin(top.unwrap_or_default());
        self.held = None;
    }

    /// What is left of a group's count; of that of what is held where there is no name.
    #[must_use]
    pub fn rest(&self, whose: Option<&GroupName>) -> Option<CountRange> {
        let tracked = match whose {
            Some(name) => self.groups.iter().find(|tracked| tracked.name == *name)?,
            None => &self.held.as_ref()?.tracked,
        };
        Some(tracked.count.as_ref()?.range)
    }

    /// Takes the first entry after the cursor, as it was answered.
    pub fn found_first(&mut self, name: &GroupName, first: Option<EntryId>) {
        if let Some(tracked) = named(&mut self.groups, name) {
            (tracked.oldest_undelivered, tracked.oldest_untraced) = (first.zip(self.facts), EntryId::default());
        }
    }

    /// Takes a page of a count. `after` is what the server said of the stream in the same moment, and `groups` of all its groups,
    /// where they were asked for.
    pub fn counted(
        &mut self,
        whose: Option<&GroupName>,
        page: &EntryPage,
        after: &StreamReply,
        groups: Option<&[GroupReply]>,
    ) -> Counted {
        let Some(now) = self.facts else { return Counted::Taken };
        let untraced = match &self.cursors {
            Some(_) if groups.is_some() => self.untraced_since_facts(after, groups),
            Some(_) if !after.nothing_removed_since(&now) => after.last_generated,
            _ => EntryId::default(),
        };
        if let (None, Some(held)) = (whose, &mut self.held) {
            (held.age, held.is_counted) = (0, true);
        }
        let Some(tracked) = tracker_of(&mut self.groups, &mut self.held, whose) else { return Counted::Taken };
        let Some(count) = &mut tracked.count else { return Counted::Taken };
        count.removed_up_to(untraced);
        if count.range.begins_after(tracked.here.cursor) {
            tracked.oldest_undelivered = page.first.map(|first| (first, now));
            tracked.oldest_untraced = untraced;
        }
        let complete = count.take(page);
        tracked.many_below |= !complete && count.is_at_once();
        if !complete {
            if count.is_at_once() {
                tracked.count = None;
            }
            return Counted::Taken;
        }
        let holds = count.holds(&now, after, page, untraced);
        let lag = count.lag(&now).filter(|_| holds);
        if holds {
            count.boundaries().for_each(|(id, rank)| self.marks.add_counted(id, rank));
        }
        let is_ahead = count.is_ahead();
        // Where something was removed meanwhile it tells nothing; the next sample begins again.
        tracked.count = None;
        if is_ahead {
            return if holds { Counted::Nearer } else { Counted::Taken };
        }
        let Some(lag) = lag else {
            let tells_something = whose.is_some() && groups.is_some() && untraced > EntryId::default();
            return if tells_something { Counted::Outdated } else { Counted::Taken };
        };
        if tracked.contradicts(lag, &now, &self.marks) {
            // The counters were tampered with: nothing that depends on them is believed any longer.
            self.begin_anew();
            self.groups.iter_mut().for_each(GroupTracker::forget);
        }
        if let Some(tracked) = tracker_of(&mut self.groups, &mut self.held, whose) {
            tracked.remember(lag, &now, &self.marks);
        }
        Counted::Taken
    }

    /// Takes a page that was read in the very moment of the sample, by the ids that are in it: the lag follows from it alone.
    pub fn counted_at_once(&mut self, name: &GroupName, range: &CountRange, page: &EntryPage) {
        let Some(now) = self.facts else { return };
        let Some(tracked) = named(&mut self.groups, name) else { return };
        let cursor = tracked.here.cursor;
        let Some(lag) = range.lag_at_once(page, cursor, &now, &self.marks) else { return };
        if let Some(first) = page.ids.iter().find(|id| **id > cursor) {
            (tracked.oldest_undelivered, tracked.oldest_untraced) = (Some((*first, now)), EntryId::default());
        }
        if !tracked.contradicts(lag, &now, &self.marks) {
            tracked.remember(lag, &now, &self.marks);
        }
    }

    /// The lag of a monitored group, from everything known by now.
    pub fn resolve(&mut self, now: &StreamReply, group: &GroupReply) -> Option<Resolved> {
        let tracked = named(&mut self.groups, &group.name)?;
        let lag = match ends(now, group.last_delivered) {
            Some(lag) => lag,
            None => tracked.lag(now, &self.marks, group.server_lag),
        };
        if lag.uncertainty() == 0 {
            tracked.remember(lag.point, now, &self.marks);
        }
        tracked.most = Some((lag.max, *now));
        tracked.told =
            now.last.map(|last| LastTold::new(lag.point, tracked.here.cursor, now.length, last, now.entries_added));
        Some(Resolved {
            lag,
            added_after: tracked.added_after(now, &self.marks),
            oldest_undelivered: tracked.oldest_undelivered(now),
            untraced: self.marks.ever_untraced(),
        })
    }
}

/// The tracked of a group, or of what is held where there is no name.
fn tracker_of<'a>(
    groups: &'a mut [GroupTracker],
    held: &'a mut Option<Box<HeldBack>>,
    whose: Option<&GroupName>,
) -> Option<&'a mut GroupTracker> {
    match whose {
        Some(name) => named(groups, name),
        None => held.as_mut().map(|held| &mut held.tracked),
    }
}

fn named<'a>(groups: &'a mut [GroupTracker], name: &GroupName) -> Option<&'a mut GroupTracker> {
    groups.iter_mut().find(|tracked| tracked.name == *name)
}

#[cfg(test)]
mod tests;
