//! The queries of one round trip. No I/O: a batch becomes the bytes of its commands; [`response`](crate::collector::response) reads what comes back.
//!
//! A stream's queries go out in a `MULTI`/`EXEC`, so that its facts are of one moment; or, where Redis refuses those or has no
//! memory left to queue anything, between two queries about the stream, whose answers have to agree.

use std::collections::BTreeSet;

use crate::collector::query::{GroupQuery, PageQuery, Query, commands_of};
use crate::collector::reading::KeptStream;
use crate::model::reply::StreamReply;
use crate::model::sample::RefusedCommand;
use crate::model::{EntryId, GroupName, StreamKey};
use crate::redis::resp;
use crate::redis::script::Script;

/// Pending entries without a payload are counted up to this number per group, where they may have changed: 40 to 60 µs of Redis's
/// time on 6.0 to 8.6, as measured (1,000 took 210 to 370).
const MAX_GHOSTS: u64 = 200;

/// `XINFO STREAM` and `XINFO GROUPS`, before the queries about its groups.
pub(super) const COMMANDS_PER_STREAM: usize = 2;

/// What the questions about a stream with some groups take on the wire, more or less.
const BYTES_PER_STREAM: usize = 512;

/// Questions for one round trip, in the order in which they are sent.
#[derive(Debug)]
pub(super) struct Batch {
    requests: Vec<u8>,
    commands: usize,
    pub(super) queries: Vec<Query>,
    /// For each of them, how many replies there are up to its end.
    ends: Vec<usize>,
    without: BTreeSet<RefusedCommand>,
    /// Whether the answers of a transaction are of one moment.
    isolated: bool,
    /// Whether the streams are on their way to this node of a cluster, which serves them only to those who know that.
    pub(super) asking: bool,
    sent: Vec<(&'static str, u64)>,
    /// What it will take of Redis's time, in microseconds, as a guess: see [`cost`].
    pub(super) cost: u64,
}

/// What commands take of Redis's time in microseconds, pipelined, measured with a thousand streams on Redis 7.0.
pub(super) mod cost {
    /// Any command.
    pub(crate) const COMMAND: u64 = 2;
    /// Each group that `XINFO GROUPS` lists.
    pub(crate) const GROUP: u64 = 1;
    /// Two consumers that `XINFO CONSUMERS` lists.
    pub(crate) const TWO_CONSUMERS: u64 = 1;
    /// Three entries that `XRANGE` reads: 500 take some 150.
    pub(crate) const THREE_ENTRIES: u64 = 1;
}

impl Batch {
    /// An empty batch that leaves out what Redis refuses.
    pub(super) fn without(refused: &BTreeSet<RefusedCommand>) -> Self {
        Self {
            requests: Vec::new(),
            commands: 0,
            queries: Vec::new(),
            ends: Vec::new(),
            without: refused.clone(),
            isolated: true,
            asking: false,
            sent: Vec::new(),
            cost: 0,
        }
    }

    /// The same, where the answers of a transaction are of one moment, or not.
    pub(super) fn isolated(self, isolated: bool) -> Self {
        Self { isolated, ..self }
    }

    /// The same, for streams that are on their way to this node of a cluster.
    pub(super) fn asking(self, asking: bool) -> Self {
        Self { asking, ..self }
    }

    /// The same, with capacity for the queries of this many streams.
    pub(super) fn with_room_for(mut self, streams: usize) -> Self {
        self.requests.reserve(streams * BYTES_PER_STREAM);
        self
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queries.is_empty()
    }

    /// What is to be sent.
    pub(super) fn requests(&self) -> &[u8] {
        &self.requests
    }

    /// The streams that it reads.
    pub(super) fn streams(&self) -> impl Iterator<Item = usize> {
        self.queries.iter().filter_map(|query| match query {
            Query::Stream { at, .. } | Query::Unchanged { at, .. } => Some(*at),
            _ => None,
        })
    }

    /// How many replies there will be.
    pub(super) fn commands(&self) -> usize {
        self.commands
    }

    /// How many replies there are up to the end of each question, and the stream that it is about.
    pub(super) fn ends(&self) -> impl Iterator<Item = (usize, Option<usize>)> {
        self.ends.iter().copied().zip(self.queries.iter().map(Query::at))
    }

    /// It was sent: its bytes are of no use any more.
    pub(super) fn was_sent(&mut self) {
        self.requests = Vec::new();
    }

    /// How often each command is in the batch.
    pub(super) fn sent(&self) -> &[(&'static str, u64)] {
        &self.sent
    }

    /// Asks whether what was refused is allowed by now, with questions that cost nothing to answer.
    pub(super) fn recheck_refused(&mut self, key: &StreamKey) {
        if self.asking {
            return;
        }
        for command in self.without.clone() {
            match command {
                // A MULTI that nothing ends would swallow what comes after it.
                RefusedCommand::Multi if !self.may(RefusedCommand::Exec) => continue,
                // TIME is always asked, and SCAN when its turn comes.
                RefusedCommand::Time | RefusedCommand::Scan => continue,
                RefusedCommand::XinfoConsumers => {
                    self.command("xinfo_consumers", &[b"XINFO", b"CONSUMERS"], key, &[b""])
                }
                RefusedCommand::Xpending => self.command("xpending", &[b"XPENDING"], key, &[b"", b"-", b"+", b"1"]),
                RefusedCommand::Xlen => self.command("xlen", &[b"XLEN"], key, &[]),
                RefusedCommand::Xrange => self.command("xrange", &[b"XRANGE"], key, &[b"+", b"-", b"COUNT", b"1"]),
                RefusedCommand::Multi => {
                    self.bare("multi", b"MULTI");
                    self.command("xinfo_groups", &[b"XINFO", b"GROUPS"], key, &[]);
                    self.bare("exec", b"EXEC");
                }
                // By itself it is an error, and another one where it is refused.
                RefusedCommand::Exec => self.bare("exec", b"EXEC"),
            }
            self.push(Query::Recheck(command));
        }
    }

    /// Asks for everything about a stream and its known groups; by `script` where its entries are large.
    pub(super) fn stream(&mut self, at: usize, key: &StreamKey, groups: Vec<GroupQuery>, script: Option<Script>) {
        self.begin();
        self.facts(key, script);
        self.command("xinfo_groups", &[b"XINFO", b"GROUPS"], key, &[]);
        self.group_details(key, &groups);
        self.end();
        if !self.transacts() {
            self.facts(key, script);
        }
        self.push(Query::Stream { at, groups });
    }

    /// Asks whether a stream with large entries is still what it was, without reading them, and for everything about its
    /// groups. Unless it `probes`, for the latter only.
    pub(super) fn check_unchanged(
        &mut self,
        at: usize,
        key: &StreamKey,
        groups: Vec<GroupQuery>,
        kept: &KeptStream,
        probes: bool,
        script: Option<Script>,
    ) {
        self.bare("multi", b"MULTI");
        if probes {
            self.unchanged(key, &kept.reply, script);
        } else {
            self.command("xlen", &[b"XLEN"], key, &[]);
        }
        self.command("xinfo_groups", &[b"XINFO", b"GROUPS"], key, &[]);
        self.group_details(key, &groups);
        self.bare("exec", b"EXEC");
        self.push(Query::Unchanged { at, groups, kept: Box::new(kept.clone()), probes });
    }

    /// Nothing was added after the last id and as many entries are there: so nothing was removed either, and the stream is
    /// what it was.
    fn unchanged(&mut self, key: &StreamKey, kept: &StreamReply, script: Option<Script>) {
        let from = kept.last_generated.next().unwrap_or(kept.last_generated);
        self.command("xlen", &[b"XLEN"], key, &[]);
        self.range(key, &from.to_string(), "+", 1, script);
    }

    fn facts(&mut self, key: &StreamKey, script: Option<Script>) {
        match script {
            Some(script) => self.command(script.name(), &script.facts(), key, &[]),
            None => self.command("xinfo_stream", &[b"XINFO", b"STREAM"], key, &[]),
        }
    }

    /// Asks for consumers and oldest pending entry of groups; not where Redis tells neither.
    pub(super) fn details(&mut self, at: usize, key: &StreamKey, groups: Vec<GroupQuery>) {
        if commands_of(&groups) == 0 {
            return;
        }
        self.begin();
        self.group_details(key, &groups);
        self.end();
        self.push(Query::Details { at, groups });
    }

    /// Asks for the first entry after a cursor, where that is allowed.
    pub(super) fn first(&mut self, at: usize, key: &StreamKey, group: usize, cursor: EntryId, script: Option<Script>) {
        let Some(from) = cursor.next().filter(|_| self.may(RefusedCommand::Xrange) && !self.asking) else { return };
        // An exclusive `(cursor` would be plainer, but needs 6.2.
        self.range(key, &from.to_string(), "+", 1, script);
        self.push(Query::First { at, group });
    }

    /// Asks whether an entry is there; not where Redis does not tell.
    pub(super) fn anchor(&mut self, at: usize, key: &StreamKey, id: EntryId, script: Option<Script>) -> bool {
        let may = self.may(RefusedCommand::Xrange);
        if may {
            self.range(key, &id.to_string(), &id.to_string(), 1, script);
            self.push(Query::Anchor { at });
        }
        may
    }

    /// Asks for pages of counts, where that is allowed, and for the stream in the same moment; `with_groups` for its groups as well.
    pub(super) fn counts(
        &mut self,
        (at, key, stream): (usize, &StreamKey, &StreamReply),
        pages: Vec<PageQuery>,
        with_groups: bool,
        large: bool,
        script: Option<Script>,
    ) {
        if pages.is_empty() || !self.may(RefusedCommand::Xrange) {
            return;
        }
        self.begin();
        if !self.transacts() {
            self.facts(key, script);
        }
        if with_groups {
            self.command("xinfo_groups", &[b"XINFO", b"GROUPS"], key, &[]);
        }
        for page in &pages {
            // Before 7.0 only what was added meanwhile shows whether something was removed. And a group that has read on meanwhile
            // has entries beyond the end at or below its cursor.
            let open = if with_groups {
                page.range.is_from_the_front()
            } else {
                stream.entries_added.is_none() && page.range.is_to_the_end()
            };
            let to = if open { "+".to_owned() } else { page.range.to.to_string() };
            self.range(key, &page.range.from.to_string(), &to, page.limit, script);
        }
        let unchanged = if large && self.may(RefusedCommand::Xlen) && self.transacts() {
            self.unchanged(key, stream, script);
            Some(Box::new(*stream))
        } else {
            self.facts(key, script);
            None
        };
        self.end();
        self.push(Query::Counts { at, pages, unchanged, with_groups });
    }

    /// Asks how many of a group's pending entries lie before the stream's first entry, where that is allowed.
    pub(super) fn ghosts(&mut self, at: usize, key: &StreamKey, group: (usize, &GroupName), first: EntryId) {
        let may = self.may(RefusedCommand::Xpending) && !self.asking && group.1.is_whole();
        let Some(end) = first.previous().filter(|_| may) else { return };
        let (end, limit) = (end.to_string(), MAX_GHOSTS.to_string());
        self.command("xpending", &[b"XPENDING"], key, &[group.1.as_bytes(), b"-", end.as_bytes(), limit.as_bytes()]);
        self.push(Query::Ghosts { at, group: group.0 });
    }

    fn range(&mut self, key: &StreamKey, from: &str, to: &str, limit: u64, script: Option<Script>) {
        self.cost += limit / 3 * cost::THREE_ENTRIES;
        let (from, to, limit) = (from.as_bytes(), to.as_bytes(), limit.to_string());
        match script {
            Some(script) => self.command(script.name(), &script.range(), key, &[from, to, limit.as_bytes()]),
            None => self.command("xrange", &[b"XRANGE"], key, &[from, to, b"COUNT", limit.as_bytes()]),
        }
    }

    fn group_details(&mut self, key: &StreamKey, groups: &[GroupQuery]) {
        for group in groups {
            if group.consumers {
                self.command("xinfo_consumers", &[b"XINFO", b"CONSUMERS"], key, &[group.name.as_bytes()]);
            }
            if group.pending {
                self.command("xpending", &[b"XPENDING"], key, &[group.name.as_bytes(), b"-", b"+", b"1"]);
            }
        }
    }

    pub(super) fn may(&self, command: RefusedCommand) -> bool {
        !self.without.contains(&command)
    }

    /// Whether what belongs together is asked in one transaction.
    pub(super) fn transacts(&self) -> bool {
        self.isolated && self.may(RefusedCommand::Multi) && self.may(RefusedCommand::Exec)
    }

    /// What follows is to be of one moment.
    fn begin(&mut self) {
        if self.transacts() {
            if self.asking {
                // It holds for the next command, and where that is MULTI, to the end of the transaction.
                self.bare("asking", b"ASKING");
            }
            self.bare("multi", b"MULTI");
        }
    }

    fn end(&mut self) {
        if self.transacts() {
            self.bare("exec", b"EXEC");
        }
    }

    fn push(&mut self, query: Query) {
        self.queries.push(query);
        self.ends.push(self.commands);
    }

    fn bare(&mut self, name: &'static str, word: &[u8]) {
        resp::command(&mut self.requests, [word]);
        self.count(name);
    }

    fn command(&mut self, name: &'static str, words: &[&[u8]], key: &StreamKey, rest: &[&[u8]]) {
        let key = [key.as_bytes()];
        resp::command(&mut self.requests, words.iter().chain(&key).chain(rest).copied());
        self.count(name);
    }

    fn count(&mut self, name: &'static str) {
        self.commands += 1;
        self.cost += cost::COMMAND;
        match self.sent.iter_mut().find(|(sent, _)| *sent == name) {
            Some((_, count)) => *count += 1,
            None => self.sent.push((name, 1)),
        }
    }
}
