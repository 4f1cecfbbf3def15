//! What is remembered of a stream from sample to sample, and the lags that follow from it.
//!
//! The server's own arithmetic is never taken for proof: its entries-read can be set by hand (`ENTRIESREAD`), is not
//! moved by `XCLAIM … LASTID`, and has bugs in most versions. Three things are relied on instead, each with its argument
//! where it is used: what the sample says of the stream (length, first and last entry), how its own counter of added
//! entries moves while we watch, and counting by `XRANGE`. What each rule assumes about removals is in docs/lag.md.

mod count;
pub(in crate::analysis) mod counters;
mod cursors;

use std::collections::VecDeque;

pub use count::CountRange;
use count::{Count, Sides};
pub use counters::StreamCounters;
use cursors::Cursors;

use crate::analysis::lag::bounds::{Told, ends, estimate};
use crate::analysis::lag::timeline::Timeline;
use crate::model::lag::{Continuity, EntryPage, Lag, Resolved};
use crate::model::sample::{GroupSample, StreamSample};
use crate::model::{EntryId, GroupName};

/// A lag up to this is counted afresh whenever anything changed, whatever the counters say: that costs Redis some 30 µs,
/// and no manual `XSETID`, no restored key can make it wrong.
///
/// In this crate's own tests it is next to nothing, so that their short streams have lags of both kinds.
pub const SMALL: u64 = if cfg!(test) { 2 } else { 100 };

/// Samples after which entries below the oldest pending entry are counted again, where nothing else tells. Once an entry stands still,
/// they are counted at the next sample.
const HELD_AGAIN: u32 = 12;

/// Entries in a page that tells a lag by itself, at the most: some 300 µs of Redis's time.
const AT_ONCE: u64 = 1000;

/// A lag that the counters tell is counted afresh only if that reads no more than this.
const SMALL_BYTES: u64 = 64 * 1024;

/// One stream's ledger.
#[derive(Debug, Default)]
pub struct LagTracker {
    /// The newest sample.
    facts: Option<StreamCounters>,
    /// The last entry of the sample before: as long as it is there, the stream is not a fork of the one that was seen.
    anchor: Option<EntryId>,
    /// Whether anything was removed between the newest sample and the one before.
    shrinking: bool,
    /// Where all groups stood, where the server can remove entries without a trace.
    cursors: Option<Cursors>,
    marks: Timeline,
    groups: Vec<GroupTracker>,
    /// What is known of the entries that some group still needs: [`LagTracker::hold`].
    held: Option<Box<HeldBack>>,
}

/// The entries from the one on that holds a stream back: they are counted as those of a group would be that was given all before.
#[derive(Debug)]
struct HeldBack {
    account: GroupTracker,
    /// Samples since they were counted.
    age: u32,
    /// Whether they were counted from this entry on.
    is_counted: bool,
}

/// What is known of one group.
#[derive(Debug)]
struct GroupTracker {
    name: GroupName,
    /// What the server says of entries read: no proof of anything, but a sign of change.
    entries_read: Option<u64>,
    /// What is known of the cursor.
    here: CursorKnowledge,
    /// What was known of the last one that the group has moved on from.
    before: Option<Box<CursorKnowledge>>,
    /// The first entry after the cursor, and the sample for which it was found.
    oldest_undelivered: Option<(EntryId, StreamCounters)>,
    /// Entries up to this id may have been removed without a trace since then.
    oldest_untraced: EntryId,
    /// Whether the lag at this sample hangs on what earlier ones told.
    hangs_on_earlier: bool,
    /// Seldom there, and large.
    count: Option<Box<Count>>,
    /// The most that the lag was at some sample, with this cursor or a lower one.
    most: Option<(u64, StreamCounters)>,
    /// More entries lie at or below the cursor than one page reads.
    many_below: bool,
    /// The lag that was told at the last sample.
    told: Option<Told>,
}

/// What is known of one cursor.
#[derive(Clone, Copy, Debug, Default)]
struct CursorKnowledge {
    cursor: EntryId,
    /// The lag at some sample, exact then.
    exact: Option<(u64, StreamCounters)>,
    /// Entries up to this id may have been removed without a trace since then.
    untraced: EntryId,
    /// Entries ever added up to and including the cursor.
    rank: Option<u64>,
}

/// What would have to be asked to know a group's lag, in entries and in time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ask {
    /// The first entry after this cursor, for its age.
    pub first: Option<EntryId>,
    /// Whether that comes along with the count.
    pub comes_along: bool,
    /// A count, whose range [`LagTracker::rest`] tells: by so many entries the lag is uncertain without it.
    pub count: Option<u64>,
    /// Entries that the first page of the count should be allowed, where that is known.
    pub page: Option<u64>,
}

/// A stream in the moment of a page.
#[derive(Clone, Debug)]
pub struct Moment {
    /// What it says.
    pub facts: StreamCounters,
    /// All its groups, where they were asked for.
    pub groups: Option<Vec<GroupSample>>,
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

impl LagTracker {
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
        self.groups.iter().map(|account| &account.name)
    }

    /// Opens a sample: what it says is held against what is remembered. Returns how the stream goes on from
    /// the sample before.
    pub fn open(&mut self, stream: &StreamSample) -> Continuity {
        let now = StreamCounters::from(stream);
        let monitored = || stream.groups.iter().filter(|group| group.monitored);
        self.shrinking = self.facts.is_some_and(|before| !now.nothing_removed_since(&before));
        let untraced = self.untraced_since_facts(&now, stream.trims_acknowledged.then_some(&stream.groups));
        let mut continuity = self.facts.map_or(Continuity::Unknown, |before| now.since(&before, untraced));
        // All entries up to a mark below the first entry are gone, so many must have been removed.
        let passed = now.first.and_then(EntryId::previous).and_then(|before| self.marks.added_at_or_below(before));
        if passed.is_some_and(|rank| now.removed() < Some(rank)) {
            continuity = Continuity::Broken;
        }
        if continuity != Continuity::Same {
            // Where nothing was ever removed, nothing was without a trace.
            let traced = !stream.trims_acknowledged || now.removed() == Some(0);
            self.marks.begin(if traced { EntryId::default() } else { now.last_generated });
            self.groups.iter_mut().for_each(GroupTracker::forget);
            self.held = None;
        }
        self.marks.removed_up_to(untraced);
        self.groups.iter_mut().for_each(|account| account.removed_up_to(untraced));
        if let Some(held) = &mut self.held {
            held.account.removed_up_to(untraced);
        }
        self.anchor = self.facts.and_then(|before| before.last).filter(|_| self.facts != Some(now));
        self.facts = Some(now);
        self.cursors = stream.trims_acknowledged.then(|| Cursors::of(&stream.groups));
        if !monitored().map(|group| &group.name).eq(self.groups.iter().map(|account| &account.name)) {
            let mut old = VecDeque::from(std::mem::take(&mut self.groups));
            self.groups.reserve_exact(monitored().count());
            for group in monitored() {
                // Redis lists groups in the same order each time, so the one looked for is mostly the first.
                let place = old.iter().position(|account| account.name == group.name);
                let known = place.and_then(|place| old.remove(place));
                self.groups.push(known.unwrap_or_else(|| GroupTracker::new(group.name.clone())));
            }
        }
        for (group, account) in monitored().zip(&mut self.groups) {
            if account.entries_read > group.entries_read {
                // Only `SETID` does that, or making the group anew, maybe together with the stream.
                account.forget();
                self.marks.clear();
            }
            account.entries_read = group.entries_read;
            account.at(group.last_delivered);
        }
        if let Some(added) = now.added {
            let lowest = self.groups.iter().map(|account| account.here.cursor).min();
            self.marks.add(now.last_generated, added, lowest);
        }
        continuity
    }

    /// The highest entry that may have been removed without a trace between the newest sample and `now`. `groups` are all groups
    /// then; `None` where the server does no such thing.
    fn untraced_since_facts(&self, now: &StreamCounters, groups: Option<&Vec<GroupSample>>) -> EntryId {
        match (groups, self.facts) {
            (Some(groups), Some(before)) if !now.nothing_removed_since(&before) => {
                let limit = self.cursors.as_ref().and_then(|cursors| cursors.lowest_that_only_rose(groups));
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
    pub fn hold(&mut self, stream: &StreamSample, safe: EntryId, entry_bytes: u64) -> Ask {
        let Some(cursor) = safe.previous() else {
            self.held = None;
            return Ask::default();
        };
        let held = self.held.get_or_insert_with(|| {
            Box::new(HeldBack { account: GroupTracker::new(GroupName::from("")), age: HELD_AGAIN, is_counted: false })
        });
        let is_still = held.account.here.cursor == cursor;
        held.is_counted &= is_still;
        held.age = held.age.saturating_add(1);
        held.account.at(cursor);
        let is_due = is_still && !held.is_counted || held.age > HELD_AGAIN || held.account.count.is_some();
        let ask = if is_due { self.ask_of(None, stream, cursor, None, entry_bytes) } else { Ask::default() };
        Ask { first: None, ..ask }
    }

    /// How many entries lie below `safe`, the lowest one that some group still needs; at least so many.
    pub fn below_held(&mut self, stream: &StreamSample, safe: EntryId) -> Option<u64> {
        let now = StreamCounters::from(stream);
        // What was asked about may be a lower one, where groups have moved on since.
        let cursor = self.held.as_ref().map(|held| held.account.here.cursor).filter(|cursor| *cursor < safe)?;
        // A group that stands just there has counted for it.
        let standing = self.groups.iter().find(|group| group.here.cursor == cursor).and_then(|group| group.here.exact);
        let account = &mut self.held.as_mut()?.account;
        let lag = match (ends(stream, cursor), standing) {
            (Some(lag), _) => lag,
            (None, Some((lag, then))) if then == now => Lag::bounded(lag, lag, lag),
            (None, _) => account.lag(&now, &self.marks, None),
        };
        if lag.uncertainty() == 0 {
            account.remember(lag.point, &now, &self.marks);
        }
        account.most = Some((lag.max, now));
        Some(now.length.saturating_sub(lag.max))
    }

    /// What would have to be asked to know the group's lag, in entries and in time.
    pub fn ask(&mut self, stream: &StreamSample, group: &GroupSample, entry_bytes: u64) -> Ask {
        self.ask_of(Some(&group.name), stream, group.last_delivered, group.server_lag, entry_bytes)
    }

    /// The same for a group, or for what is held.
    fn ask_of(
        &mut self,
        whose: Option<&GroupName>,
        stream: &StreamSample,
        cursor: EntryId,
        server_lag: Option<u64>,
        entry_bytes: u64,
    ) -> Ask {
        let now = StreamCounters::from(stream);
        let at_once = self.counts_with_groups();
        let (marks, shrinking) = (&self.marks, self.shrinking);
        let Some(account) = account_of(&mut self.groups, &mut self.held, whose) else { return Ask::default() };
        account.hangs_on_earlier = false;
        account.many_below &= shrinking;
        if ends(stream, cursor).is_some() {
            // The first entry tells the rest.
            return Ask::default();
        }
        let lag = account.lag(&now, marks, server_lag);
        let unchanged = account.here.exact.is_some_and(|(_, then)| then == now);
        let small = lag.point <= SMALL && (lag.uncertainty() > 0 || lag.max.saturating_mul(entry_bytes) <= SMALL_BYTES);
        let mut ask = Ask::default();
        if !unchanged && (small || lag.uncertainty() > 0) {
            // A small lag is counted to the end of the stream, so that it does not hang on any counter.
            let beyond_removed = account.here.cursor.max(now.max_deleted.unwrap_or_default()).max(marks.untraced());
            let to = if small { None } else { marks.at_or_above(beyond_removed) };
            let resumed = account.count.take().filter(|count| count.still_good(&now) && !(small && count.is_ahead()));
            let below = match (shrinking, at_once) {
                (false, _) => u64::MAX,
                (true, true) if !account.many_below => AT_ONCE,
                (true, _) => 0,
            };
            let sides = if small { Sides::Above } else { Sides::Any { floor: account.floor(&now, marks), below } };
            account.count = resumed.or_else(|| Count::begin(&now, cursor, to, lag, sides).map(Box::new));
            ask.count = account.count.as_ref().map(|_| lag.uncertainty().max(1));
            ask.page = account.count.as_ref().filter(|count| count.is_at_once()).map(|_| AT_ONCE);
        } else {
            if lag.uncertainty() == 0 {
                // It may be exact thanks to what is counted so far.
                account.remember(lag.point, &now, marks);
            }
            account.count = None;
        }
        let counts_afresh = account.count.as_deref().is_some_and(Count::hangs_on_itself);
        account.hangs_on_earlier = !unchanged && !counts_afresh;
        ask.comes_along = account.count.as_ref().is_some_and(|count| count.range.begins_after(account.here.cursor));
        ask.first = account.oldest_undelivered(&now).is_none().then_some(account.here.cursor);
        ask
    }

    /// Entries that must still be there, if the stream is the one that was seen and a lag hangs on that: its last one of the
    /// sample before, and those that were to be delivered next. They are asked for before anything is resolved.
    #[must_use]
    pub fn witnesses(&self) -> Vec<EntryId> {
        let (Some(now), Some(last)) = (self.facts, self.anchor) else { return Vec::new() };
        let accounts: Vec<&GroupTracker> = self.groups.iter().filter(|account| account.hangs_on_earlier).collect();
        let next = accounts.iter().filter_map(|account| account.oldest_undelivered(&now));
        let mut witnesses: Vec<EntryId> = next.chain((!accounts.is_empty()).then_some(last)).collect();
        witnesses.sort_unstable();
        witnesses.dedup();
        witnesses
    }

    /// A witness is not there, for whatever reason: nothing that is remembered tells anything.
    pub fn witness_is_gone(&mut self) {
        self.begin_anew();
        for account in &mut self.groups {
            let count = account.count.take().filter(|count| count.hangs_on_itself());
            account.forget();
            account.count = count;
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
        let account = match whose {
            Some(name) => self.groups.iter().find(|account| account.name == *name)?,
            None => &self.held.as_ref()?.account,
        };
        Some(account.count.as_ref()?.range)
    }

    /// Takes the first entry after the cursor, as it was answered.
    pub fn found_first(&mut self, name: &GroupName, first: Option<EntryId>) {
        if let Some(account) = named(&mut self.groups, name) {
            (account.oldest_undelivered, account.oldest_untraced) = (first.zip(self.facts), EntryId::default());
        }
    }

    /// Takes a page of a count. `after` is the stream in the same moment as the page.
    pub fn counted(&mut self, whose: Option<&GroupName>, page: &EntryPage, after: &Moment) -> Counted {
        let Some(now) = self.facts else { return Counted::Taken };
        let untraced = match &self.cursors {
            Some(_) if after.groups.is_some() => self.untraced_since_facts(&after.facts, after.groups.as_ref()),
            Some(_) if !after.facts.nothing_removed_since(&now) => after.facts.last_generated,
            _ => EntryId::default(),
        };
        if let (None, Some(held)) = (whose, &mut self.held) {
            (held.age, held.is_counted) = (0, true);
        }
        let Some(account) = account_of(&mut self.groups, &mut self.held, whose) else { return Counted::Taken };
        let Some(count) = &mut account.count else { return Counted::Taken };
        count.removed_up_to(untraced);
        if count.range.begins_after(account.here.cursor) {
            account.oldest_undelivered = page.first.map(|first| (first, now));
            account.oldest_untraced = untraced;
        }
        let complete = count.take(page);
        account.many_below |= !complete && count.is_at_once();
        if !complete {
            if count.is_at_once() {
                account.count = None;
            }
            return Counted::Taken;
        }
        let holds = count.holds(&now, &after.facts, page, untraced);
        let lag = count.lag(&now).filter(|_| holds);
        if holds {
            count.boundaries().for_each(|(id, rank)| self.marks.add_counted(id, rank));
        }
        let is_ahead = count.is_ahead();
        // Where something was removed meanwhile it tells nothing; the next sample begins again.
        account.count = None;
        if is_ahead {
            return if holds { Counted::Nearer } else { Counted::Taken };
        }
        let Some(lag) = lag else {
            let tells_something = whose.is_some() && after.groups.is_some() && untraced > EntryId::default();
            return if tells_something { Counted::Outdated } else { Counted::Taken };
        };
        if account.contradicts(lag, &now, &self.marks) {
            // The counters were tampered with: nothing that hangs on them is believed any longer.
            self.begin_anew();
            self.groups.iter_mut().for_each(GroupTracker::forget);
        }
        if let Some(account) = account_of(&mut self.groups, &mut self.held, whose) {
            account.remember(lag, &now, &self.marks);
        }
        Counted::Taken
    }

    /// Takes a page that was read in the very moment of the sample, by the ids that are in it: the lag follows from it alone.
    pub fn counted_at_once(&mut self, name: &GroupName, range: &CountRange, page: &EntryPage) {
        let Some(now) = self.facts else { return };
        let Some(account) = named(&mut self.groups, name) else { return };
        let cursor = account.here.cursor;
        let Some(lag) = range.lag_at_once(page, cursor, &now, &self.marks) else { return };
        if let Some(first) = page.ids.iter().find(|id| **id > cursor) {
            (account.oldest_undelivered, account.oldest_untraced) = (Some((*first, now)), EntryId::default());
        }
        if !account.contradicts(lag, &now, &self.marks) {
            account.remember(lag, &now, &self.marks);
        }
    }

    /// The lag of a monitored group, from everything known by now.
    pub fn resolve(&mut self, stream: &StreamSample, group: &GroupSample) -> Option<Resolved> {
        let now = StreamCounters::from(stream);
        let account = named(&mut self.groups, &group.name)?;
        let lag = match ends(stream, group.last_delivered) {
            Some(lag) => lag,
            None => account.lag(&now, &self.marks, group.server_lag),
        };
        if lag.uncertainty() == 0 {
            account.remember(lag.point, &now, &self.marks);
        }
        account.most = Some((lag.max, now));
        account.told = now.last.map(|last| Told::new(lag.point, account.here.cursor, now.length, last, now.added));
        Some(Resolved {
            lag,
            added_after: account.added_after(&now, &self.marks),
            oldest_undelivered: account.oldest_undelivered(&now),
            untraced: self.marks.ever_untraced(),
        })
    }
}

/// The account of a group, or of what is held where there is no name.
fn account_of<'a>(
    groups: &'a mut [GroupTracker],
    held: &'a mut Option<Box<HeldBack>>,
    whose: Option<&GroupName>,
) -> Option<&'a mut GroupTracker> {
    match whose {
        Some(name) => named(groups, name),
        None => held.as_mut().map(|held| &mut held.account),
    }
}

fn named<'a>(groups: &'a mut [GroupTracker], name: &GroupName) -> Option<&'a mut GroupTracker> {
    groups.iter_mut().find(|account| account.name == *name)
}

impl CursorKnowledge {
    /// The lag, where the counters prove it.
    ///
    /// It was exact at an earlier sample, and what was added since was added above the cursor. Since then nothing was removed at
    /// all, or nothing above the cursor: no such removal left a trace, and those that leave none took lower entries only.
    fn exact_by_counters(&self, now: &StreamCounters) -> Option<u64> {
        let (lag, then) = self.exact.filter(|(_, then)| self.cursor <= then.last_generated)?;
        let none_above = || now.no_trace_of_removal_above(self.cursor) && self.untraced <= self.cursor;
        let intact = now.nothing_removed_since(&then) || none_above();
        lag.checked_add(now.added_since(&then).filter(|_| intact)?)
    }
}

impl GroupTracker {
    fn new(name: GroupName) -> Self {
        Self {
            name,
            entries_read: None,
            here: CursorKnowledge::default(),
            before: None,
            oldest_undelivered: None,
            hangs_on_earlier: false,
            oldest_untraced: EntryId::default(),
            count: None,
            most: None,
            many_below: false,
            told: None,
        }
    }

    /// Entries up to this id may have been removed without a trace since the newest sample.
    fn removed_up_to(&mut self, id: EntryId) {
        self.here.untraced = self.here.untraced.max(id);
        self.oldest_untraced = self.oldest_untraced.max(id);
        if let Some(before) = &mut self.before {
            before.untraced = before.untraced.max(id);
        }
        if let Some(count) = &mut self.count {
            count.removed_up_to(id);
        }
    }

    fn forget(&mut self) {
        let here = CursorKnowledge { cursor: self.here.cursor, ..CursorKnowledge::default() };
        *self = Self { here, entries_read: self.entries_read, ..Self::new(self.name.clone()) };
    }

    /// Moves to a cursor. After reading on, what was known of the last one still tells something.
    fn at(&mut self, cursor: EntryId) {
        if cursor < self.here.cursor {
            self.forget();
        } else if cursor > self.here.cursor {
            if self.here.exact.is_some() {
                self.before = Some(Box::new(self.here));
            }
            self.here = CursorKnowledge::default();
            self.oldest_undelivered = None;
            // What was counted ahead of the new cursor is still of use.
            self.count = self.count.take().and_then(|count| count.go_on_from(cursor)).map(Box::new);
        }
        self.here.cursor = cursor;
    }

    /// The highest id at or below the cursor above which the number of entries is known, and that number.
    fn floor(&self, now: &StreamCounters, marks: &Timeline) -> Option<(EntryId, u64)> {
        let before = self.before.as_ref().and_then(|before| Some((before.cursor, before.exact_by_counters(now)?)));
        let mark = marks.at_or_below(self.here.cursor).filter(|(id, _)| marks.all_there_above(*id, now));
        let mark = mark.and_then(|(id, rank)| Some((id, now.added?.checked_sub(rank)?)));
        before.max(mark)
    }

    /// Whether a lag that was counted cannot be true if the counters are.
    fn contradicts(&self, lag: u64, now: &StreamCounters, marks: &Timeline) -> bool {
        let whole = marks.all_ever_there_above(self.here.cursor, now);
        let told = self.here.rank.filter(|_| whole).and_then(|rank| now.added?.checked_sub(rank));
        told.is_some_and(|told| told != lag) || !marks.allow(self.here.cursor, now.added, lag, whole)
    }

    /// Keeps a lag that is exact at the sample `now`.
    fn remember(&mut self, lag: u64, now: &StreamCounters, marks: &Timeline) {
        (self.here.exact, self.here.untraced) = (Some((lag, *now)), EntryId::default());
        // A cursor ahead of every id (`XGROUP SETID`) may still see entries added below it.
        if marks.all_ever_there_above(self.here.cursor, now) && self.here.cursor <= now.last_generated {
            self.here.rank = now.added.and_then(|added| added.checked_sub(lag));
        }
    }

    /// The lag of a cursor in mid-stream.
    fn lag(&self, now: &StreamCounters, marks: &Timeline, server_lag: Option<u64>) -> Lag {
        // The first entry lies at or below the cursor, so at most length - 1 lie above it; the last entry lies above it,
        // so at least one does.
        let widest = (1, now.length.saturating_sub(1).max(1));
        let (mut min, mut max) = widest;
        let mut narrow = |low: u64, high: u64| (min, max) = (min.max(low), max.min(high));
        if let Some(lag) = self.here.exact_by_counters(now) {
            narrow(lag, lag);
        }
        if let Some((least, most)) = self.added_after(now, marks) {
            // What is there was added. What was added is there, unless it was removed.
            let all_there = match self.here.rank {
                Some(_) => marks.all_ever_there_above(self.here.cursor, now),
                None => marks.at_or_above(self.here.cursor).is_some_and(|(id, _)| marks.all_there_above(id, now)),
            };
            narrow(if all_there { least } else { 0 }, most);
        }
        if let Some((added, (_, rank))) = now.added.zip(marks.at_or_below(self.here.cursor)) {
            narrow(0, added.saturating_sub(rank));
        }
        if let Some((then, facts)) = self.here.exact.filter(|(_, facts)| self.here.cursor <= facts.last_generated) {
            // What was there then, and what was added since, less what was removed, wherever that was.
            match (now.added_since(&facts), now.removed().zip(facts.removed())) {
                (Some(added), Some((removed, removed_then))) => {
                    let grown = then.saturating_add(added);
                    narrow(grown.saturating_sub(removed.saturating_sub(removed_then)), grown);
                }
                // Nothing is ever added at or below the cursor, so what is not above it can only have become less.
                _ => narrow(now.length.saturating_sub(facts.length.saturating_sub(then)), u64::MAX),
            }
        }
        if let Some((most, facts)) = self.most
            && let Some(added) = now.added_since(&facts)
        {
            // Whatever was removed or read since: no more is there than was, and was added.
            narrow(0, most.saturating_add(added));
        }
        if let Some(count) = self.count.as_ref().filter(|count| count.still_good(now) && !count.is_ahead()) {
            let (least, most) = count.bounds(now);
            narrow(least, most);
        }
        if min > max {
            // Facts that contradict each other: what is remembered is not believed.
            (min, max) = widest;
        }
        let ids = (now.first, self.here.cursor, now.last);
        let moved = self.told.and_then(|told| told.moved(self.here.cursor, now.length, now.added));
        Lag::bounded(min, max, estimate(now.length, ids, (server_lag, moved), (min, max)))
    }

    /// How many entries were ever added after the cursor. Sound by definition of entries-added: a mark says how many
    /// were added up to its id, and ids only rise.
    fn added_after(&self, now: &StreamCounters, marks: &Timeline) -> Option<(u64, u64)> {
        let added = now.added?;
        if let Some(rank) = self.here.rank {
            let after = added.checked_sub(rank)?;
            return Some((after, after));
        }
        let below = marks.added_at_or_below(self.here.cursor).unwrap_or(0);
        let above = marks.at_or_above(self.here.cursor).map_or(added, |(_, rank)| rank);
        Some((added.checked_sub(above)?, added.checked_sub(below)?))
    }

    /// The first entry after the cursor, where it must be the one of last time: it is neither trimmed nor deleted.
    fn oldest_undelivered(&self, now: &StreamCounters) -> Option<EntryId> {
        let (oldest, found) = self.oldest_undelivered?;
        let not_trimmed = now.first.is_some_and(|first| first <= oldest);
        let not_deleted = now.max_deleted.is_some_and(|deleted| deleted < oldest) && self.oldest_untraced < oldest;
        let untouched = || now.nothing_removed_since(&found);
        ((not_trimmed && not_deleted) || untouched()).then_some(oldest)
    }
}

#[cfg(test)]
mod tests;
