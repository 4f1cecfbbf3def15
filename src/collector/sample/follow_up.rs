//! What only a sample's first round could tell: groups that are new, the entry after a cursor that moved to mid stream, lags that
//! have to be counted, anchors.

use std::collections::BTreeMap;

use tokio::time::Instant;

use crate::analysis::lag::tracker::{CountRange, Counted, Queries};
use crate::collector::count_budget::{CountBudget, CountRequest, FIRST_PAGE, PAGE_COST};
use crate::collector::query::{GroupQuery, Observation, PageQuery, PagesReply, ReadOutcome};
use crate::collector::reading::{MonitoredGroup, StreamReading};
use crate::collector::request::Batch;
use crate::collector::sample::SampleRun;
use crate::collector::sample::pipeline::room;
use crate::collector::sample_state::SampleState;
use crate::collector::stream_state::{Omitted, StreamState};
use crate::model::GroupName;
use crate::model::lag::Continuity;
use crate::model::sample::{RefusedCommand, SampleError};

/// Pages of one stream in a transaction, during which Redis serves no other client.
const PAGES_AT_ONCE: usize = 4;

impl SampleRun<'_> {
    /// What only the first round could tell. Nothing is sent where nothing is missing.
    pub(super) async fn later_rounds(&mut self, mut budget: CountBudget) -> Result<(), SampleError> {
        let mut batches = std::mem::take(&mut self.rest);
        loop {
            let page_time = self.server.pacer.expected(PAGE_COST);
            let pages = budget.round(&mut self.wanted, Instant::now(), page_time);
            self.add_counts(&mut batches, &pages);
            // A count that must wait does not bring the first entry along.
            for place in 0..self.wanted.len() {
                let wanted = &mut self.wanted[place];
                let (at, group) = (wanted.at, wanted.group);
                if wanted.asked == 0
                    && let (Some(cursor), Some(group)) = (wanted.first.take(), group)
                {
                    let state = &self.server.streams[at];
                    let script = state.script(self.connected.script);
                    room(&mut batches, self.server).first(at, &state.key, group, cursor, script);
                }
            }
            batches.retain(|batch| !batch.is_empty());
            if batches.is_empty() {
                return Ok(());
            }
            let observations = self.ask(std::mem::take(&mut batches)).await?;
            let another = self.apply(observations, &mut budget);
            let mut wanted = std::mem::take(&mut self.wanted);
            wanted.retain(|wanted| self.rest_of(wanted).is_some() && !another.contains(&wanted.at));
            self.wanted = wanted;
            for at in another {
                if let Some(stream) = self.take_read(at) {
                    self.ask_for_lags(at, &stream);
                    self.server.streams[at].read = Some(Ok(stream));
                }
            }
            for at in std::mem::take(&mut self.detailed) {
                if let Some(stream) = self.take_read(at) {
                    self.ask_for_ghosts(at, &stream);
                    self.server.streams[at].read = Some(Ok(stream));
                }
            }
            batches = std::mem::take(&mut self.rest);
        }
    }

    /// Asks for what only this sample could tell is missing of a stream; whether anything is.
    pub(super) fn ask_for_the_rest(&mut self, at: usize) -> bool {
        let Some(mut stream) = self.take_read(at) else { return false };
        if stream.is_partial {
            self.server.streams[at].read = Some(Ok(stream));
            return false;
        }
        let asked_before = self.asked_so_far();
        let server = &mut *self.server;
        let state = &mut server.streams[at];
        state.sampled(&stream.reply);
        stream.select(&server.sampling.selection, server.sampling.group_limit);
        let may = state.left_out() == Omitted::Nothing;
        let (may_ask_consumers, may_ask_pending) = (
            may && server.sampling.consumers && !server.refused.contains(&RefusedCommand::XinfoConsumers),
            may && !server.refused.contains(&RefusedCommand::Xpending),
        );
        let (mut details, first) = (Vec::new(), stream.reply.first);
        for (place, monitored) in stream.monitored.iter_mut().enumerate() {
            let group = &stream.groups[monitored.place];
            let is_new = !state.tracker.groups().any(|known| *known == group.name);
            let mut changed = may_ask_pending && group.oldest_pending.is_none();
            if changed && let Some(known) = state.known_pending(place, group, first) {
                (monitored.known_oldest, monitored.known_ghosts) = known;
                changed = false;
            }
            if (is_new || changed) && group.name.is_whole() {
                details.push(GroupQuery::of(&group.name, may_ask_consumers && is_new, may_ask_pending));
            }
        }
        if !details.is_empty() {
            room(&mut self.rest, server).details(at, &server.streams[at].key, details);
            self.detailed.push(at);
        }
        let state = &mut server.streams[at];
        if stream.reply.ends_unknown {
            // Nothing that is remembered of it can be held against what cannot be.
            state.tracker.forget();
            self.server.streams[at].read = Some(Ok(stream));
            return asked_before != self.asked_so_far();
        }
        // Without its counters nothing is concluded from what leaves a trace and what does not.
        stream.trims_acknowledged = self.connected.server.trims_acknowledged() && stream.reply.entries_added.is_some();
        stream.continuity = stream.open(&mut state.tracker);
        self.ask_for_ghosts(at, &stream);
        self.ask_for_lags(at, &stream);
        self.ask_for_held(at, &stream);
        let server = &mut *self.server;
        let script = server.streams[at].script(self.connected.script);
        for anchor in server.streams[at].tracker.anchors() {
            if !room(&mut self.rest, server).anchor(at, &server.streams[at].key, anchor, script) {
                server.streams[at].tracker.anchor_is_gone();
            }
        }
        self.server.streams[at].read = Some(Ok(stream));
        asked_before != self.asked_so_far()
    }

    /// What is to be asked in later rounds: commands, and lags to be counted.
    fn asked_so_far(&self) -> (usize, usize) {
        (self.rest.iter().map(|batch| batch.commands()).sum(), self.wanted.len())
    }

    /// Takes a stream out that was read, for as long as it is looked at.
    fn take_read(&mut self, at: usize) -> Option<StreamReading> {
        match self.server.streams[at].read.take() {
            Some(Ok(stream)) => Some(stream),
            other => {
                self.server.streams[at].read = other;
                None
            }
        }
    }

    /// Pending entries are not trimmed with the stream: those before its first entry are gone.
    fn ask_for_ghosts(&mut self, at: usize, stream: &StreamReading) {
        for (monitored, group) in stream.with_cursors() {
            if let (Some(oldest), Some(first), None) =
                (monitored.oldest_pending(group), stream.reply.first, monitored.ghosts(group))
                && oldest.id < first
            {
                let server = &*self.server;
                room(&mut self.rest, server).ghosts(at, &server.streams[at].key, (monitored.place, &group.name), first);
            }
        }
    }

    /// What is missing to know the lags of a stream's groups, in entries and in time.
    fn ask_for_lags(&mut self, at: usize, stream: &StreamReading) {
        for (MonitoredGroup { place, .. }, group) in stream.with_cursors() {
            let state = &mut self.server.streams[at];
            let ask = state.tracker.ask(&stream.reply, group, state.entry_bytes());
            if let Some(cursor) = ask.first.filter(|_| !ask.comes_along) {
                let (server, script) = (&*self.server, self.server.streams[at].script(self.connected.script));
                room(&mut self.rest, server).first(at, &server.streams[at].key, *place, cursor, script);
            }
            self.want(at, Some(*place), ask);
        }
    }

    /// Asks for the count of a group's lag, or of what no group needs, where there is one to be asked for.
    fn want(&mut self, at: usize, group: Option<usize>, ask: Queries) {
        let Some(uncertainty) = ask.count else { return };
        let state = &self.server.streams[at];
        self.wanted.push(CountRequest {
            at,
            group,
            uncertainty,
            entry_bytes: state.entry_bytes(),
            most_bytes: state.most_bytes(),
            first: ask.first.filter(|_| ask.comes_along),
            page: ask.page.unwrap_or(FIRST_PAGE),
            asked: 0,
        });
    }

    /// What is missing to know how many entries no group needs any more.
    fn ask_for_held(&mut self, at: usize, stream: &StreamReading) {
        let Some((safe, _)) = stream.lowest_needed() else { return };
        let state = &mut self.server.streams[at];
        let ask = state.tracker.hold(&stream.reply, safe, state.entry_bytes());
        self.want(at, None, ask);
    }

    /// Adds pages to the batches, those of one stream together.
    fn add_counts(&self, batches: &mut Vec<Batch>, pages: &[(CountRequest, u64)]) {
        let mut by_stream: BTreeMap<usize, Vec<PageQuery>> = BTreeMap::new();
        for (wanted, limit) in pages {
            if let Some(range) = self.rest_of(wanted) {
                let page = PageQuery { group: wanted.group, range, limit: *limit, most_bytes: wanted.most_bytes };
                by_stream.entry(wanted.at).or_default().push(page);
            }
        }
        for (at, pages) in by_stream {
            let state = &self.server.streams[at];
            if let Some(stream) = state.reading() {
                let (key, script) = (&state.key, state.script(self.connected.script));
                for pages in pages.chunks(PAGES_AT_ONCE) {
                    let batch = room(batches, self.server);
                    let with_groups = state.tracker.counts_with_groups();
                    batch.counts((at, key, &stream.reply), pages.to_vec(), with_groups, state.is_large(), script);
                }
            }
        }
    }

    /// What is left of a count.
    fn rest_of(&self, wanted: &CountRequest) -> Option<CountRange> {
        let state = &self.server.streams[wanted.at];
        let stream = state.reading()?;
        state.tracker.rest(wanted.group.map(|group| &stream.groups[group].name))
    }

    /// Takes what was found into the trackers, and what it cost out of the budget. Answers with the streams of which lags have to
    /// be asked for again: they turned out to be others than they were, or their sample is now one of a later moment.
    fn apply(&mut self, observations: Vec<Observation>, budget: &mut CountBudget) -> Vec<usize> {
        let mut another = Vec::new();
        let mut outdated = Vec::new();
        let SampleState { streams, commands, .. } = &mut *self.server;
        for observation in observations {
            match observation {
                Observation::First { at, group, id } => {
                    let StreamState { tracker, read, .. } = &mut streams[at];
                    if let Some(name) = name_of(read, group) {
                        tracker.found_first(name, id);
                    }
                }
                Observation::AnchorGone { at } => {
                    if !another.contains(&at) {
                        streams[at].tracker.anchor_is_gone();
                        another.push(at);
                    }
                }
                Observation::Pages(found) => {
                    let state = &mut streams[found.at];
                    let (mut is_outdated, mut is_nearer) = (false, false);
                    for (asked, page) in &found.pages {
                        let read = page.entries + page.beyond;
                        budget.settle(asked.limit, read, asked.most_bytes, page.bytes);
                        commands.counted(read);
                        state.read_page(read, page.bytes);
                        let whose = asked.group.and_then(|group| name_of(&state.read, group));
                        if whose.is_some() == asked.group.is_some() {
                            let counted = state.tracker.counted(whose, page, &found.stream, found.groups.as_deref());
                            is_outdated |= counted == Counted::Outdated;
                            is_nearer |= counted == Counted::Nearer;
                        }
                    }
                    if is_nearer && !another.contains(&found.at) {
                        another.push(found.at);
                    }
                    if is_outdated {
                        outdated.push(found);
                    }
                }
            }
        }
        for found in outdated {
            if !another.contains(&found.at) && self.move_on(&found) {
                another.push(found.at);
            }
        }
        another
    }

    /// Makes the moment of some pages the stream's sample: what was to be counted at the sample's own may have been read,
    /// acknowledged and removed since. Whether that can be done.
    fn move_on(&mut self, found: &PagesReply) -> bool {
        let Some(mut stream) = self.take_read(found.at) else { return false };
        let later = found.groups.as_deref().unwrap_or_default();
        let same_groups = stream.groups.iter().map(|group| &group.name).eq(later.iter().map(|group| &group.name));
        if same_groups {
            stream.move_on(&found.stream, later);
            let tracker = &mut self.server.streams[found.at].tracker;
            let continuity = stream.open(tracker);
            if continuity != Continuity::Continuous {
                stream.continuity = continuity;
            }
            for (asked, page) in &found.pages {
                if let Some(group) = asked.group {
                    tracker.counted_at_once(&stream.groups[group].name, &asked.range, page);
                }
            }
        }
        self.server.streams[found.at].read = Some(Ok(stream));
        same_groups
    }
}

/// The name of the group at this place of a stream, if that was read.
fn name_of(read: &Option<Result<StreamReading, ReadOutcome>>, group: usize) -> Option<&GroupName> {
    Some(&read.as_ref()?.as_ref().ok()?.groups[group].name)
}
