//! What the answers to a batch say. No I/O: replies come in, samples and findings go out.

use std::collections::BTreeSet;

use super::batch::{After, Batch, COMMANDS_PER_STREAM, Finding, GroupAsked, PageAsked, PageRead, PagesRead, Question};
use super::batch::{Read, Unread, commands_of};
use super::lane::{Lane, Names};
use crate::model::FailureReason;
use crate::model::sample::{GroupSample, ReadError, RefusedCommand, SampleError, StreamSample};
use crate::resp::{Items, Refusal, Reply};
use crate::xinfo::{self, DecodeError};

impl Batch {
    /// Reads the replies into `streams`, into `findings` what is not part of a sample, and into `refused` what Redis
    /// refuses and what it allows again.
    ///
    /// # Errors
    /// Where Redis says that it cannot serve at all, or answers something that is no answer to what was asked.
    pub(super) fn read(
        &self,
        replies: &crate::resp::Replies,
        lanes: &[Lane],
        streams: &mut [Option<Read>],
        findings: &mut Vec<Finding>,
        refused: &mut BTreeSet<RefusedCommand>,
    ) -> Result<(), SampleError> {
        let mut replies = Replies { replies: replies.iter(), asking: self.asking };
        for question in &self.questions {
            match question {
                Question::Probe(RefusedCommand::Multi) => {
                    // An error inside is the stream's, and shows that it ran.
                    if replies.transaction(1)?.is_ok() {
                        refused.remove(&RefusedCommand::Multi);
                    }
                }
                Question::Probe(command) => {
                    if !replies.next()?.error().is_some_and(|refusal| is_command_refused(&refusal)) {
                        refused.remove(command);
                    }
                }
                Question::Stream { at, groups } => {
                    let commands = COMMANDS_PER_STREAM + commands_of(groups);
                    let answer = if self.may(RefusedCommand::Multi) {
                        replies.transaction(commands)?
                    } else {
                        replies.between_two_alike(commands + 1)?
                    };
                    let names = &lanes[*at].names;
                    let read = answer.and_then(|items| stream_of(items, groups, names)).map_err(|error| {
                        let newly_refused = refused_by(&error, COMMANDS_PER_STREAM, groups);
                        refused.extend(&newly_refused);
                        error.into_unread(!newly_refused.is_empty())
                    });
                    streams[*at] = Some(read);
                }
                Question::Details { at, groups } => {
                    let commands = commands_of(groups);
                    let answer = if self.may(RefusedCommand::Multi) {
                        replies.transaction(commands)?
                    } else {
                        Ok(replies.take(commands)?)
                    };
                    let detailed = match &mut streams[*at] {
                        Some(Ok(stream)) => {
                            answer.and_then(|mut items| add_details(stream, &mut items, groups, &lanes[*at].names))
                        }
                        Some(Err(_)) | None => Ok(()),
                    };
                    if let Err(error) = detailed {
                        let newly_refused = refused_by(&error, 0, groups);
                        if newly_refused.is_empty() {
                            streams[*at] = Some(Err(error.into_unread(false)));
                        }
                        refused.extend(&newly_refused);
                    }
                }
                Question::First { at, group } => {
                    let reply = replies.next()?;
                    if reply.error().is_some_and(|refusal| is_command_refused(&refusal)) {
                        refused.insert(RefusedCommand::Xrange);
                    } else if let Ok(id) = xinfo::first_in_range(reply) {
                        // A stream that went away since has no entry to show; the next sample will say why.
                        findings.push(Finding::First { at: *at, group: *group, id });
                    }
                }
                Question::Glance { at, groups, kept, probe } => {
                    let before = if *probe { 3 } else { 2 };
                    let answer = replies.transaction(before + commands_of(groups))?;
                    let names = &lanes[*at].names;
                    let read = glanced(answer, groups, kept, *probe, names).map_err(|error| {
                        if let StreamError::NotQueued(refusals) = &error
                            && refusals.iter().any(|(at, error)| *at == 0 && is_command_refused(error))
                        {
                            refused.insert(RefusedCommand::Xlen);
                        }
                        refused.extend(&refused_by(&error, before, groups));
                        match error {
                            StreamError::Changed(sample) => Unread::Changed(Some(sample)),
                            // Whatever it is, reading the whole stream tells.
                            _ => Unread::Changed(None),
                        }
                    });
                    streams[*at] = Some(read);
                }
                Question::Counts { at, pages, after, with_groups } => {
                    let (before, multi) = (usize::from(*with_groups), self.may(RefusedCommand::Multi));
                    let commands = before + pages.len() + after.commands();
                    let answer =
                        if multi { replies.transaction(commands)? } else { replies.between_two_alike(1 + commands)? };
                    let names = with_groups.then_some(&lanes[*at].names);
                    match answer {
                        Ok(items) if multi => findings.extend(pages_of(*at, pages, after, names, items)),
                        Ok(mut items) => {
                            // The first says what the last says.
                            let first = items.next();
                            findings.extend(pages_of(*at, pages, after, names, items.chain(first)));
                        }
                        Err(StreamError::NotQueued(errors))
                            if errors.iter().all(|(_, error)| is_command_refused(error)) =>
                        {
                            let of_pages = errors.iter().any(|(place, _)| *place != before + pages.len());
                            refused.insert(if of_pages { RefusedCommand::Xrange } else { RefusedCommand::Xlen });
                        }
                        Err(_) => {}
                    }
                }
                Question::Witness { at } => {
                    if !matches!(xinfo::first_in_range(replies.next()?), Ok(Some(_))) {
                        findings.push(Finding::WitnessGone { at: *at });
                    }
                }
                Question::Ghosts { at, group } => {
                    let reply = replies.next()?;
                    if let (Some(Ok(stream)), Ok(count)) = (&mut streams[*at], xinfo::pending_count(reply)) {
                        stream.groups[*group].ghost_pending = Some(count);
                    }
                }
            }
        }
        Ok(())
    }
}

fn stream_of(mut items: Items<'_>, groups: &[GroupAsked], names: &Names) -> Result<StreamSample, StreamError> {
    let mut stream = xinfo::stream(next(&mut items)?)?;
    stream.groups = xinfo::groups(next(&mut items)?, &names.groups)?;
    add_details(&mut stream, &mut items, groups, names)?;
    Ok(stream)
}

/// With a probe, the answers to `XLEN` and to `XRANGE` above the last id stand before those about the groups, else only the
/// former.
fn glanced(
    answer: Result<Items<'_>, StreamError>,
    groups: &[GroupAsked],
    kept: &StreamSample,
    probe: bool,
    names: &Names,
) -> Result<StreamSample, StreamError> {
    let mut items = answer?;
    let length = next(&mut items)?;
    let added = if probe { items.next() } else { None };
    let listed = xinfo::groups(next(&mut items)?, &names.groups)?;
    let mut stream = StreamSample { length: xinfo::length(length)?, groups: listed, ..kept.clone() };
    add_details(&mut stream, &mut items, groups, names)?;
    if added.is_some_and(|added| is_unchanged(length, added, kept)) && groups_go_on(&stream.groups, &kept.groups) {
        return Ok(stream);
    }
    stream.carried = true;
    Err(StreamError::Changed(Box::new(stream)))
}

fn add_details(
    stream: &mut StreamSample,
    items: &mut Items<'_>,
    groups: &[GroupAsked],
    names: &Names,
) -> Result<(), StreamError> {
    for asked in groups {
        let consumers = if asked.consumers { items.next() } else { None };
        let pending = if asked.pending { items.next() } else { None };
        let Some(group) = stream.groups.iter_mut().find(|group| group.name == asked.name) else { continue };
        // An error here is NOGROUP: the group is not in the stream's list either, or will not be in the next.
        if let Some(reply) = consumers.filter(|reply| !reply.is_error()) {
            group.members = Some(xinfo::consumers(reply, names.members(&group.name))?);
        }
        if let Some(reply) = pending.filter(|reply| !reply.is_error()) {
            (group.oldest_pending, group.oldest_pending_consumer) = xinfo::oldest_pending(reply)?.unzip();
            group.oldest_pending_asked = true;
        }
    }
    Ok(())
}

/// The commands, of those that can be done without, that Redis would not even queue.
///
/// `before` is how many commands stand before the groups' own; without those there is no sample.
fn refused_by(error: &StreamError, before: usize, groups: &[GroupAsked]) -> Vec<RefusedCommand> {
    let StreamError::NotQueued(refusals) = error else { return Vec::new() };
    if refusals.iter().all(|(_, error)| error.code() == "OOM") {
        return vec![RefusedCommand::Multi];
    }
    let optional: Vec<RefusedCommand> = groups.iter().flat_map(GroupAsked::commands).collect();
    let refused = |(at, error): &(usize, Refusal)| {
        let of_groups = at.checked_sub(before).filter(|_| is_command_refused(error))?;
        optional.get(of_groups).copied()
    };
    refusals.iter().map(refused).collect::<Option<_>>().unwrap_or_default()
}

impl After {
    /// How many commands it took.
    fn commands(&self) -> usize {
        match self {
            Self::Read => 1,
            Self::Glance(_) => 2,
        }
    }
}

/// Whether the answers to `XLEN` and to `XRANGE` above the last id say that a stream is what it was.
fn is_unchanged(length: Reply<'_>, added: Reply<'_>, kept: &StreamSample) -> bool {
    xinfo::length(length) == Ok(kept.length) && xinfo::first_in_range(added) == Ok(None)
}

/// Whether groups are what they were, or have read on. A stream that was made anew may have its length and its last id, but
/// hardly its groups as well.
fn groups_go_on(now: &[GroupSample], before: &[GroupSample]) -> bool {
    now.len() == before.len()
        && now.iter().zip(before).all(|(now, before)| {
            now.name == before.name
                && now.last_delivered >= before.last_delivered
                && now.entries_read >= before.entries_read
        })
}

/// Reads the answers to [`Question::Counts`]. Where the stream went away since, there are none; the next sample says why.
/// `names` are those of the groups, where they were asked for.
fn pages_of<'a>(
    at: usize,
    pages: &[PageAsked],
    after: &After,
    names: Option<&Names>,
    mut items: impl Iterator<Item = Reply<'a>>,
) -> Option<Finding> {
    let groups = names.map(|names| xinfo::groups(items.next()?, &names.groups).ok());
    let with_groups = groups.is_some();
    let read: Vec<Reply<'_>> = items.by_ref().take(pages.len()).collect();
    let after = match (after, items.next()) {
        (After::Read, Some(reply)) => xinfo::stream(reply).ok(),
        (After::Glance(kept), Some(length)) => {
            items.next().filter(|added| is_unchanged(length, *added, kept)).map(|_| (**kept).clone())
        }
        (_, None) => None,
    };
    let after = StreamSample { groups: groups.unwrap_or_else(|| Some(Vec::new()))?, ..after? };
    let page = |(asked, reply): (&PageAsked, Reply<'_>)| {
        let (page, bytes) = xinfo::range(reply, asked.range.to, asked.limit, with_groups).ok()?;
        Some(PageRead { asked: *asked, page, bytes })
    };
    let pages = pages.iter().zip(read).filter_map(page).collect();
    Some(Finding::Pages(Box::new(PagesRead { at, pages, after, with_groups })))
}

/// Why a stream's transaction gave no sample.
#[derive(Debug)]
enum StreamError {
    /// Redis would not queue these commands, by their place in the transaction.
    NotQueued(Vec<(usize, Refusal)>),
    /// Redis answered an error.
    Server(Refusal),
    /// It changed while it was read.
    Moved,
    /// Redis answered something else than it should.
    Decode(DecodeError),
    /// The stream may not be what it was. This is what was asked of it all the same.
    Changed(Box<StreamSample>),
}

impl StreamError {
    fn into_unread(self, refused: bool) -> Unread {
        let error = match self {
            Self::NotQueued(refusals) => {
                refusals.first().map_or_else(String::new, |(_, error)| error.text().to_owned())
            }
            Self::Server(error) => error.text().to_owned(),
            Self::Decode(error) => error.to_string(),
            Self::Moved => {
                "it changed while it was read, and Redis is out of memory and runs no transactions".to_owned()
            }
            Self::Changed(sample) => return Unread::Changed(Some(sample)),
        };
        if refused { Unread::Refused(ReadError(error)) } else { Unread::Error(ReadError(error)) }
    }
}

impl From<Refusal> for StreamError {
    fn from(error: Refusal) -> Self {
        Self::Server(error)
    }
}

impl From<DecodeError> for StreamError {
    fn from(error: DecodeError) -> Self {
        Self::Decode(error)
    }
}

/// The replies of a round trip, in the order of its commands.
struct Replies<'a> {
    replies: Items<'a>,
    /// Whether each transaction has an `ASKING` before it.
    asking: bool,
}

impl<'a> Replies<'a> {
    fn next(&mut self) -> Result<Reply<'a>, SampleError> {
        let reply = self.replies.next().ok_or_else(|| protocol("fewer replies than commands"))?;
        match reply.error().and_then(|error| server_wide(&error)) {
            Some(error) => Err(error),
            None => Ok(reply),
        }
    }

    fn take(&mut self, commands: usize) -> Result<Items<'a>, SampleError> {
        let taken = self.replies.first(commands);
        (0..commands).try_for_each(|_| self.next().map(drop))?;
        Ok(taken)
    }

    /// The answers to `commands` commands, of which the first and the last ask for the same, without the last: of one moment
    /// where those two are alike, as nothing that they tell goes back to what it was.
    fn between_two_alike(&mut self, commands: usize) -> Result<Result<Items<'a>, StreamError>, SampleError> {
        let items = self.take(commands)?;
        let (first, last) = (items.clone().next(), items.clone().last());
        let alike = first.zip(last).is_some_and(|(first, last)| first.is_like(last));
        Ok(if alike { Ok(items.first(commands - 1)) } else { Err(StreamError::Moved) })
    }

    /// The answers of one transaction of `commands` commands.
    fn transaction(&mut self, commands: usize) -> Result<Result<Items<'a>, StreamError>, SampleError> {
        let asked = if self.asking { Some(self.next()?) } else { None };
        let begun = self.next()?;
        let mut not_queued = Vec::new();
        for at in 0..commands {
            if let Some(error) = self.next()?.error() {
                not_queued.push((at, error));
            }
        }
        let answer = self.next()?;
        // MULTI itself refused: what followed ran one by one, and its facts need not agree. ASKING refused: what followed was
        // sent back to where it came from.
        if let Some(error) = asked.into_iter().chain([begun]).find_map(Reply::error) {
            return Ok(Err(StreamError::Server(error)));
        }
        if !not_queued.is_empty() {
            return Ok(Err(StreamError::NotQueued(not_queued)));
        }
        match (answer.list(), answer.error()) {
            (Some(items), _) if items.len() == commands => Ok(Ok(items)),
            (None, Some(error)) => Ok(Err(StreamError::Server(error))),
            _ => Err(protocol("the reply to EXEC does not fit the commands it runs")),
        }
    }
}

/// The next answer, where it is not an error.
fn next<'a>(items: &mut Items<'a>) -> Result<Reply<'a>, StreamError> {
    // There are as many answers as commands.
    let reply = items.next().ok_or(StreamError::Moved)?;
    reply.error().map_or(Ok(reply), |error| Err(StreamError::Server(error)))
}

/// An error that says that the server serves nobody now, rather than that one key cannot be read.
pub(super) fn server_wide(error: &Refusal) -> Option<SampleError> {
    let reason = match error.code() {
        "LOADING" => FailureReason::Loading,
        "NOAUTH" | "WRONGPASS" => FailureReason::Auth,
        // In a cluster that need not be whole, that is said of one slot.
        "CLUSTERDOWN" if error.text().contains("slot not served") => return None,
        "MASTERDOWN" | "CLUSTERDOWN" | "BUSY" => FailureReason::Server,
        _ => return None,
    };
    Some(SampleError { reason, detail: error.text().to_owned() })
}

pub(super) fn protocol(what: &str) -> SampleError {
    SampleError { reason: FailureReason::Protocol, detail: what.to_owned() }
}

/// Whether Redis refuses the command by ACL; a refused key is no refused command.
pub(super) fn is_command_refused(error: &Refusal) -> bool {
    error.code() == "NOPERM" && error.text().contains("command")
}
