//! Reads the replies to a batch. No I/O: replies come in, readings of streams and observations go out.

use std::collections::BTreeSet;

use crate::collector::query::{GroupQuery, Observation, PageQuery, PagesReply, Query, ReadOutcome, commands_of};
use crate::collector::reading::{KeptGroup, KeptStream, StreamReading};
use crate::collector::request::{Batch, COMMANDS_PER_STREAM};
use crate::collector::stream_state::{DecodeMemory, GROUP_BYTES, NameCache, StreamState};
use crate::model::reply::{ConsumerReply, GroupReply, StreamReply};
use crate::model::sample::{ReadError, RefusedCommand, SampleError};
use crate::redis::refusals::{is_command_refused, protocol, server_wide};
use crate::redis::replies::{self, DecodeError};
use crate::redis::resp::{Items, Refusal, Reply};

impl Batch {
    /// Reads the replies into `streams`, as far as there is memory for them, into `observations` what is not part of a sample, and into
    /// `refused` what Redis refuses and what it allows again.
    ///
    /// # Errors
    /// Where Redis says that it cannot serve at all, or answers something that is no answer to what was asked.
    pub(super) fn read(
        &self,
        replies: &crate::redis::resp::ReplyReader,
        streams: &mut [StreamState],
        memory: &mut DecodeMemory,
        observations: &mut Vec<Observation>,
        refused: &mut BTreeSet<RefusedCommand>,
    ) -> Result<(), SampleError> {
        let (replies, asking, transacts) = (replies.iter(), self.asking, self.transacts());
        let mut reading = Reading { replies, asking, transacts, streams, memory, observations, refused };
        self.queries.iter().try_for_each(|query| reading.read(query))
    }
}

/// The replies to a batch while they are read, and what comes of them.
struct Reading<'a, 'r> {
    /// Those that are not read yet, in the order of the commands.
    replies: Items<'r>,
    /// Whether each transaction has an `ASKING` before it.
    asking: bool,
    /// Whether queries about a stream were sent in a transaction.
    transacts: bool,
    streams: &'a mut [StreamState],
    memory: &'a mut DecodeMemory,
    observations: &'a mut Vec<Observation>,
    refused: &'a mut BTreeSet<RefusedCommand>,
}

impl<'r> Reading<'_, 'r> {
    fn read(&mut self, query: &Query) -> Result<(), SampleError> {
        match query {
            Query::Recheck(command) => self.recheck(*command),
            Query::Stream { at, groups } => self.stream(*at, groups),
            Query::Details { at, groups } => self.details(*at, groups),
            Query::First { at, group } => self.first(*at, *group),
            Query::Unchanged { at, groups, kept, probes } => self.unchanged(*at, groups, kept, *probes),
            Query::Counts { at, pages, unchanged, with_groups } => {
                self.counts(*at, pages, unchanged.as_deref(), *with_groups)
            }
            Query::Anchor { at } => self.anchor(*at),
            Query::Ghosts { at, group } => self.ghosts(*at, *group),
        }
    }

    fn recheck(&mut self, command: RefusedCommand) -> Result<(), SampleError> {
        let is_allowed = match command {
            // An error inside is the stream's, and shows that it ran.
            RefusedCommand::Multi => self.transaction(1)?.is_ok(),
            _ => !is_refused(self.next()?),
        };
        if is_allowed {
            self.refused.remove(&command);
        }
        Ok(())
    }

    fn stream(&mut self, at: usize, groups: &[GroupQuery]) -> Result<(), SampleError> {
        let parts = CommandParts { before: &STREAM, groups };
        let answer =
            if self.transacts { self.transaction(parts.len())? } else { self.between_two_alike(parts.len() + 1)? };
        note_refused(&answer, parts, self.refused);
        let (state, memory) = (&mut self.streams[at], &mut *self.memory);
        memory.begin(at, state.held);
        let read = answer.and_then(|items| stream_of(items, groups, &state.names, self.transacts, memory));
        let is_held = memory.end(&mut state.held, read.as_ref().ok().map(|stream| &stream.groups));
        let read = if is_held { read } else { Err(StreamError::TooMuch) };
        state.read = Some(read.map_err(|error| {
            let newly_refused = refused_by(&error, parts);
            self.refused.extend(&newly_refused);
            error.into_unread(parts, !newly_refused.is_empty())
        }));
        Ok(())
    }

    fn details(&mut self, at: usize, groups: &[GroupQuery]) -> Result<(), SampleError> {
        let parts = CommandParts { before: &[], groups };
        let answer = if self.transacts { self.transaction(parts.len())? } else { Ok(self.take(parts.len())?) };
        note_refused(&answer, parts, self.refused);
        let (state, memory) = (&mut self.streams[at], &mut *self.memory);
        memory.begin(at, state.held);
        let detailed = match &mut state.read {
            Some(Ok(stream)) => answer.and_then(|mut items| {
                add_details(&mut stream.groups, &mut items, groups, &state.names, false, memory);
                if memory.end(&mut state.held, Some(&stream.groups)) { Ok(()) } else { Err(StreamError::TooMuch) }
            }),
            Some(Err(_)) | None => Ok(()),
        };
        if let Err(error) = detailed {
            let newly_refused = refused_by(&error, parts);
            if newly_refused.is_empty() {
                state.read = Some(Err(error.into_unread(parts, false)));
            }
            self.refused.extend(&newly_refused);
        }
        Ok(())
    }

    fn first(&mut self, at: usize, group: usize) -> Result<(), SampleError> {
        let reply = self.next()?;
        if is_refused(reply) {
            self.refused.insert(RefusedCommand::Xrange);
        } else if let Ok(id) = replies::first_in_range(reply) {
            // A stream that went away since has no entry to show; the next sample will say why.
            self.observations.push(Observation::First { at, group, id });
        }
        Ok(())
    }

    fn unchanged(
        &mut self,
        at: usize,
        groups: &[GroupQuery],
        kept: &KeptStream,
        probes: bool,
    ) -> Result<(), SampleError> {
        let before = if probes { &PROBED[..] } else { &UNPROBED[..] };
        let parts = CommandParts { before, groups };
        let answer = self.transaction(parts.len())?;
        note_refused(&answer, parts, self.refused);
        let (state, memory) = (&mut self.streams[at], &mut *self.memory);
        memory.begin(at, state.held);
        let read = changed_or_not(answer, groups, kept, probes, &state.names, memory);
        let is_held = memory.end(&mut state.held, reading_of(&read).map(|stream| &stream.groups));
        let read = if is_held { read } else { Err(StreamError::TooMuch) };
        let read = read.map_err(|error| {
            self.refused.extend(&refused_by(&error, parts));
            match error {
                StreamError::Changed(reading) => ReadOutcome::Changed(Some(reading)),
                // Reading the whole stream tells what it is.
                _ => ReadOutcome::Changed(None),
            }
        });
        state.read = Some(read);
        Ok(())
    }

    fn counts(
        &mut self,
        at: usize,
        pages: &[PageQuery],
        unchanged: Option<&StreamReply>,
        with_groups: bool,
    ) -> Result<(), SampleError> {
        let before = usize::from(with_groups);
        let commands = before + pages.len() + if unchanged.is_some() { 2 } else { 1 };
        let answer = if self.transacts { self.transaction(commands)? } else { self.between_two_alike(1 + commands)? };
        let (state, memory) = (&mut self.streams[at], &mut *self.memory);
        memory.begin(at, state.held);
        let names = with_groups.then_some((&state.names, &mut *memory));
        match answer {
            Ok(items) if self.transacts => {
                self.observations.extend(pages_of(at, pages, unchanged, names, items, self.refused));
            }
            Ok(mut items) => {
                // The first says what the last says.
                let first = items.next();
                self.observations.extend(pages_of(at, pages, unchanged, names, items.chain(first), self.refused));
            }
            Err(StreamError::NotQueued(errors)) if errors.iter().all(|(_, error)| is_command_refused(error)) => {
                let of_pages = errors.iter().any(|(place, _)| *place != before + pages.len());
                self.refused.insert(if of_pages { RefusedCommand::Xrange } else { RefusedCommand::Xlen });
            }
            Err(error) => self.refused.extend(&refused_by(&error, CommandParts { before: &[], groups: &[] })),
        }
        memory.go_on(&mut state.held);
        Ok(())
    }

    fn anchor(&mut self, at: usize) -> Result<(), SampleError> {
        let reply = self.next()?;
        if is_refused(reply) {
            self.refused.insert(RefusedCommand::Xrange);
        }
        if !matches!(replies::first_in_range(reply), Ok(Some(_))) {
            self.observations.push(Observation::AnchorGone { at });
        }
        Ok(())
    }

    fn ghosts(&mut self, at: usize, group: usize) -> Result<(), SampleError> {
        let reply = self.next()?;
        if let (Some(Ok(stream)), Ok(count)) = (&mut self.streams[at].read, replies::pending_count(reply)) {
            stream.groups[group].ghost_pending = Some(count);
        }
        Ok(())
    }

    fn next(&mut self) -> Result<Reply<'r>, SampleError> {
        let reply = self.replies.next().ok_or_else(|| protocol("fewer replies than commands"))?;
        match reply.error().and_then(|error| server_wide(&error)) {
            Some(error) => Err(error),
            None => Ok(reply),
        }
    }

    fn take(&mut self, commands: usize) -> Result<Items<'r>, SampleError> {
        let taken = self.replies.first(commands);
        (0..commands).try_for_each(|_| self.next().map(drop))?;
        Ok(taken)
    }

    /// The answers to `commands` commands, of which the first and the last ask for the same, without the last: of one moment
    /// where those two are alike, as nothing that they tell goes back to what it was.
    fn between_two_alike(&mut self, commands: usize) -> Result<Result<Items<'r>, StreamError>, SampleError> {
        let items = self.take(commands)?;
        let (first, last) = (items.clone().next(), items.clone().last());
        let alike = first.zip(last).is_some_and(|(first, last)| first.is_like(last));
        Ok(if alike { Ok(items.first(commands - 1)) } else { Err(StreamError::Moved) })
    }

    /// The answers of one transaction of `commands` commands.
    fn transaction(&mut self, commands: usize) -> Result<Result<Items<'r>, StreamError>, SampleError> {
        let asked = if self.asking { Some(self.next()?) } else { None };
        let begun = self.next()?;
        let mut not_queued = Vec::new();
        for at in 0..commands {
            if let Some(error) = self.next()?.error() {
                not_queued.push((at, error));
            }
        }
        let answer = self.next()?;
        // What followed was sent back to where it came from.
        if let Some(error) = asked.and_then(Reply::error) {
            return Ok(Err(StreamError::Server(None, error)));
        }
        if let Some(error) = begun.error() {
            let refused = is_command_refused(&error);
            return Ok(Err(if refused {
                StreamError::NoTransaction(RefusedCommand::Multi, error)
            } else {
                StreamError::Server(None, error)
            }));
        }
        // Refused by ACL, it ends its transaction all the same; a command that is unknown does not.
        if let Some(error) = answer.error().and_then(|error| error.why_aborted()).filter(is_command_refused) {
            return Ok(Err(StreamError::NoTransaction(RefusedCommand::Exec, error)));
        }
        if let Some(error) = answer.error().filter(is_command_refused) {
            // The connection is in a transaction now that nothing ends.
            self.refused.insert(RefusedCommand::Exec);
            return Err(protocol(&format!("EXEC was answered {}", error.text())));
        }
        if !not_queued.is_empty() {
            return Ok(Err(StreamError::NotQueued(not_queued)));
        }
        match (answer.list(), answer.error()) {
            (Some(items), _) if items.len() == commands => Ok(Ok(items)),
            (None, Some(error)) => Ok(Err(StreamError::Server(None, error))),
            _ => Err(protocol("the reply to EXEC does not fit the commands it runs")),
        }
    }
}

fn is_refused(reply: Reply<'_>) -> bool {
    reply.error().is_some_and(|refusal| is_command_refused(&refusal))
}

/// A command among those that are asked in one moment.
#[derive(Clone, Copy, Debug)]
enum CommandPart {
    /// Without it there is no sample.
    Needed(&'static str),
    /// Without it something is left out.
    Optional(RefusedCommand),
}

const XINFO_STREAM: CommandPart = CommandPart::Needed("XINFO STREAM");
const XINFO_GROUPS: CommandPart = CommandPart::Needed("XINFO GROUPS");

/// What stands before the groups' own commands in a [`Query::Stream`], and in a [`Query::Unchanged`] with and without a probe.
const STREAM: [CommandPart; COMMANDS_PER_STREAM] = [XINFO_STREAM, XINFO_GROUPS];
const PROBED: [CommandPart; 3] =
    [CommandPart::Optional(RefusedCommand::Xlen), CommandPart::Optional(RefusedCommand::Xrange), XINFO_GROUPS];
const UNPROBED: [CommandPart; 2] = [CommandPart::Optional(RefusedCommand::Xlen), XINFO_GROUPS];

/// The commands of a transaction.
#[derive(Clone, Copy)]
struct CommandParts<'a> {
    before: &'a [CommandPart],
    groups: &'a [GroupQuery],
}

impl CommandParts<'_> {
    fn len(self) -> usize {
        self.before.len() + commands_of(self.groups)
    }

    fn iter(&self) -> impl Iterator<Item = CommandPart> {
        let of_groups = self.groups.iter().flat_map(GroupQuery::commands).map(CommandPart::Optional);
        self.before.iter().copied().chain(of_groups)
    }

    fn get(&self, at: usize) -> Option<CommandPart> {
        self.iter().nth(at)
    }
}

/// Commands that were answered by a refusal, where others next to them were not: outside of a transaction, or inside of one on
/// servers that look at a command only when they run it.
fn note_refused(
    answer: &Result<Items<'_>, StreamError>,
    parts: CommandParts<'_>,
    refused: &mut BTreeSet<RefusedCommand>,
) {
    let Ok(items) = answer else { return };
    for (reply, part) in items.clone().zip(parts.iter()) {
        if let CommandPart::Optional(command) = part
            && reply.error().is_some_and(|refusal| is_command_refused(&refusal))
        {
            refused.insert(command);
        }
    }
}

/// `of_one_moment` is whether nothing can have happened between the answers.
fn stream_of(
    mut items: Items<'_>,
    groups: &[GroupQuery],
    names: &NameCache,
    of_one_moment: bool,
    memory: &mut DecodeMemory,
) -> Result<StreamReading, StreamError> {
    let stream = replies::stream(next(&mut items, XINFO_STREAM)?)?;
    let mut listed = groups_of(next(&mut items, XINFO_GROUPS)?, names, memory)?;
    add_details(&mut listed, &mut items, groups, names, of_one_moment, memory);
    Ok(StreamReading::of(stream, listed))
}

/// The groups in the answer to `XINFO GROUPS`, if there is memory for so many.
fn groups_of(reply: Reply<'_>, names: &NameCache, memory: &mut DecodeMemory) -> Result<Vec<GroupReply>, StreamError> {
    if !memory.take(items_in(reply), GROUP_BYTES) {
        return Err(StreamError::TooMuch);
    }
    Ok(replies::groups(reply, &names.groups)?)
}

/// How many values a list has; none if the reply is no list.
fn items_in(reply: Reply<'_>) -> usize {
    reply.list().map_or(0, |items| items.len())
}

/// What was read of a stream, changed or not.
fn reading_of(read: &Result<StreamReading, StreamError>) -> Option<&StreamReading> {
    match read {
        Ok(stream) => Some(stream),
        Err(StreamError::Changed(stream)) => Some(stream),
        Err(_) => None,
    }
}

/// With a probe, the answers to `XLEN` and to `XRANGE` above the last id stand before those about the groups, else only the
/// former.
fn changed_or_not(
    answer: Result<Items<'_>, StreamError>,
    groups: &[GroupQuery],
    kept: &KeptStream,
    probes: bool,
    names: &NameCache,
    memory: &mut DecodeMemory,
) -> Result<StreamReading, StreamError> {
    let mut items = answer?;
    let length = next(&mut items, CommandPart::Optional(RefusedCommand::Xlen))?;
    let added = if probes { items.next() } else { None };
    let mut listed = groups_of(next(&mut items, XINFO_GROUPS)?, names, memory)?;
    let reply = StreamReply { length: replies::length(length)?, ..kept.reply };
    add_details(&mut listed, &mut items, groups, names, true, memory);
    let is_same = added.is_some_and(|added| is_unchanged(length, added, &kept.reply));
    let reading = StreamReading::of(reply, listed);
    if is_same && groups_go_on(&reading.groups, &kept.groups) {
        return Ok(reading);
    }
    Err(StreamError::Changed(Box::new(StreamReading { is_partial: true, ..reading })))
}

/// Adds consumers and oldest pending entries to the groups, as far as they were told and there is memory for them.
fn add_details(
    listed: &mut [GroupReply],
    items: &mut Items<'_>,
    groups: &[GroupQuery],
    names: &NameCache,
    of_one_moment: bool,
    memory: &mut DecodeMemory,
) {
    for asked in groups {
        let consumers = if asked.consumers { items.next() } else { None };
        let pending = if asked.pending { items.next() } else { None };
        let Some(group) = listed.iter_mut().find(|group| group.name == asked.name) else { continue };
        let has_memory = |reply: &Reply<'_>| memory.take(items_in(*reply), size_of::<ConsumerReply>());
        let consumers = consumers.filter(has_memory);
        // An error is NOGROUP: the group is not in the stream's list either, or will not be in the next. Or it is a refusal.
        if let Some(Ok(members)) = consumers.map(|reply| replies::consumers(reply, names.members(&group.name))) {
            group.members = Some(members);
            group.unowned_pending = group.unowned().filter(|_| of_one_moment);
        }
        if let Some(Ok(oldest)) = pending.map(replies::oldest_pending) {
            group.oldest_pending = Some(oldest);
        }
    }
}

/// The commands, of those that can be done without, that Redis would not even queue; none where it did not queue others either.
fn refused_by(error: &StreamError, parts: CommandParts<'_>) -> Vec<RefusedCommand> {
    let refusals = match error {
        StreamError::NoTransaction(command, _) => return vec![*command],
        StreamError::NotQueued(refusals) => refusals,
        _ => return Vec::new(),
    };
    if refusals.iter().all(|(_, error)| error.code() == "OOM") {
        return vec![RefusedCommand::Multi];
    }
    let refused = |(at, error): &(usize, Refusal)| match parts.get(*at) {
        Some(CommandPart::Optional(command)) if is_command_refused(error) => Some(command),
        _ => None,
    };
    refusals.iter().map(refused).collect::<Option<_>>().unwrap_or_default()
}

/// Whether the answers to `XLEN` and to `XRANGE` above the last id say that a stream is what it was.
fn is_unchanged(length: Reply<'_>, added: Reply<'_>, kept: &StreamReply) -> bool {
    replies::length(length) == Ok(kept.length) && replies::first_in_range(added) == Ok(None)
}

/// Whether groups are what they were, or have read on. A stream that was created again may have its length and its last id, but
/// hardly its groups as well.
fn groups_go_on(now: &[GroupReply], before: &[KeptGroup]) -> bool {
    now.len() == before.len()
        && now.iter().zip(before).all(|(now, before)| {
            now.name == before.name
                && now.last_delivered >= before.last_delivered
                && now.entries_read >= before.entries_read
        })
}

/// Reads the answers to [`Query::Counts`]. Where the stream went away since, there are none; the next sample says why.
/// `names` are those of the groups, where they were asked for.
fn pages_of<'a>(
    at: usize,
    pages: &[PageQuery],
    unchanged: Option<&StreamReply>,
    names: Option<(&NameCache, &mut DecodeMemory)>,
    mut items: impl Iterator<Item = Reply<'a>>,
    refused: &mut BTreeSet<RefusedCommand>,
) -> Option<Observation> {
    let known = |groups: &Vec<GroupReply>| groups.iter().all(|group| !group.unknown.last_delivered);
    let groups = names.map(|(names, memory)| groups_of(items.next()?, names, memory).ok().filter(known));
    let with_ids = groups.is_some();
    let read: Vec<Reply<'_>> = items.by_ref().take(pages.len()).collect();
    if read.iter().filter_map(|reply| reply.error()).any(|refusal| is_command_refused(&refusal)) {
        refused.insert(RefusedCommand::Xrange);
        return None;
    }
    let last = items.next()?;
    let stream = match unchanged {
        None => replies::stream(last).ok().filter(|stream| !stream.ends_unknown)?,
        Some(kept) => items.next().filter(|added| is_unchanged(last, *added, kept)).map(|_| *kept)?,
    };
    let groups = match groups {
        Some(told) => Some(told?),
        None => None,
    };
    let page = |(asked, reply): (&PageQuery, Reply<'_>)| {
        Some((*asked, replies::range(reply, asked.range.to, asked.limit, with_ids).ok()?))
    };
    let pages = pages.iter().zip(read).filter_map(page).collect();
    Some(Observation::Pages(Box::new(PagesReply { at, pages, stream, groups })))
}

/// Why a stream's transaction gave no sample.
#[derive(Debug)]
enum StreamError {
    /// Redis refuses `MULTI` or `EXEC`. What followed ran one by one, and its facts need not agree, or did not run.
    NoTransaction(RefusedCommand, Refusal),
    /// Redis would not queue these commands, by their place in the transaction.
    NotQueued(Vec<(usize, Refusal)>),
    /// Redis answered an error to a command, where that is known.
    Server(Option<CommandPart>, Refusal),
    /// It changed while it was read.
    Moved,
    /// There is no memory for its groups.
    TooMuch,
    /// Redis answered something else than it should.
    Decode(DecodeError),
    /// The stream may not be what it was. This is what was asked of it all the same.
    Changed(Box<StreamReading>),
}

impl StreamError {
    fn into_unread(self, parts: CommandParts<'_>, refused: bool) -> ReadOutcome {
        let again = refused || matches!(self, Self::Moved);
        let error = match self {
            Self::NotQueued(refusals) => {
                refusals.first().map_or_else(|| ReadError::of_server(""), |(at, error)| describe(parts.get(*at), error))
            }
            Self::Server(part, error) => describe(part, &error),
            Self::NoTransaction(_, error) => ReadError::of_server(error.text()),
            Self::Decode(error) => ReadError::Malformed(error.to_string()),
            Self::TooMuch => ReadError::NoMemory,
            Self::Moved => ReadError::Changing,
            Self::Changed(reading) => return ReadOutcome::Changed(Some(reading)),
        };
        if again { ReadOutcome::Refused(error) } else { ReadOutcome::Error(error) }
    }
}

/// The server's error, with the command that it refused where a sample needs that command.
fn describe(part: Option<CommandPart>, error: &Refusal) -> ReadError {
    match part {
        Some(CommandPart::Needed(command)) if is_command_refused(error) => {
            ReadError::Refused { command, text: error.text().to_owned() }
        }
        _ => ReadError::of_server(error.text()),
    }
}

impl From<DecodeError> for StreamError {
    fn from(error: DecodeError) -> Self {
        Self::Decode(error)
    }
}

/// The next answer, where it is not an error.
fn next<'a>(items: &mut Items<'a>, part: CommandPart) -> Result<Reply<'a>, StreamError> {
    // There are as many answers as commands.
    let reply = items.next().ok_or(StreamError::Moved)?;
    reply.error().map_or(Ok(reply), |error| Err(StreamError::Server(Some(part), error)))
}

#[cfg(test)]
mod tests;
