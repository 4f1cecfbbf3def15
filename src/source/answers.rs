//! What the answers to a batch say. No I/O: replies come in, samples and findings go out.

use std::collections::BTreeSet;

use redis::{ServerError, Value};

use super::batch::{After, Batch, COMMANDS_PER_STREAM, Finding, PageAsked, PageRead, Question};
use super::batch::{Read, Unread};
use crate::lag::ledger::Facts;
use crate::model::sample::{GroupSample, ReadError, RefusedCommand, SampleError, StreamSample};
use crate::model::{FailureReason, GroupName};
use crate::xinfo::{self, DecodeError};

impl Batch {
    /// Reads the replies into `streams`, into `findings` what is not part of a sample, and into `refused` what Redis
    /// refuses and what it allows again.
    ///
    /// # Errors
    /// Where Redis says that it cannot serve at all, or answers something that is no answer to what was asked.
    pub(super) fn read(
        &self,
        replies: Vec<Value>,
        streams: &mut [Read],
        findings: &mut Vec<Finding>,
        refused: &mut BTreeSet<RefusedCommand>,
    ) -> Result<(), SampleError> {
        let per_group = self.commands_per_group();
        let mut replies = Replies { replies: replies.into_iter(), asking: self.asking };
        for question in &self.questions {
            match question {
                Question::Probe(RefusedCommand::Multi) => {
                    // An error inside is the stream's, and shows that it ran.
                    if replies.transaction(1)?.is_ok() {
                        refused.remove(&RefusedCommand::Multi);
                    }
                }
                Question::Probe(command) => {
                    if !is_command_refused(&replies.next()?) {
                        refused.remove(command);
                    }
                }
                Question::Stream { at, groups } => {
                    let commands = COMMANDS_PER_STREAM + groups.len() * per_group;
                    let answer = if self.may(RefusedCommand::Multi) {
                        replies.transaction(commands)?
                    } else {
                        replies.between_two_alike(commands + 1)?
                    };
                    streams[*at] = answer.and_then(|items| self.stream_of(&items, groups)).map_err(|error| {
                        let newly_refused = self.refused_by(&error, COMMANDS_PER_STREAM);
                        refused.extend(&newly_refused);
                        error.into_unread(!newly_refused.is_empty())
                    });
                }
                Question::Details { at, groups } => {
                    let commands = groups.len() * per_group;
                    let answer = if self.may(RefusedCommand::Multi) {
                        replies.transaction(commands)?
                    } else {
                        Ok(replies.take(commands)?)
                    };
                    let detailed = match &mut streams[*at] {
                        Ok(stream) => answer.and_then(|items| self.add_details(stream, &items, groups)),
                        Err(_) => Ok(()),
                    };
                    if let Err(error) = detailed {
                        let newly_refused = self.refused_by(&error, 0);
                        if newly_refused.is_empty() {
                            streams[*at] = Err(error.into_unread(false));
                        }
                        refused.extend(&newly_refused);
                    }
                }
                Question::First { at, group } => {
                    let reply = replies.next()?;
                    if is_command_refused(&reply) {
                        refused.insert(RefusedCommand::Xrange);
                    } else if let Ok(id) = xinfo::first_in_range(&reply) {
                        // A stream that went away since has no entry to show; the next sample will say why.
                        findings.push(Finding::First { at: *at, group: *group, id });
                    }
                }
                Question::Glance { at, groups, kept, probe } => {
                    let before = if *probe { 3 } else { 2 };
                    let answer = replies.transaction(before + groups.len() * per_group)?;
                    streams[*at] = self.glanced(answer, groups, kept, before).map_err(|error| {
                        if let StreamError::NotQueued(refusals) = &error
                            && refusals.iter().any(|(at, error)| *at == 0 && is_refusal(error))
                        {
                            refused.insert(RefusedCommand::Xlen);
                        }
                        refused.extend(&self.refused_by(&error, before));
                        match error {
                            StreamError::Changed(sample) => Unread::Changed(Some(sample)),
                            // Whatever it is, reading the whole stream tells.
                            _ => Unread::Changed(None),
                        }
                    });
                }
                Question::Counts { at, pages, after } if !self.may(RefusedCommand::Multi) => {
                    if let Ok(items) = replies.between_two_alike(1 + pages.len() + after.commands())? {
                        // The first says what the last says.
                        let (pages_read, first) = (&items[1..], &items[..1]);
                        read_pages(*at, pages, after, &[pages_read, first].concat(), findings);
                    }
                }
                Question::Counts { at, pages, after } => match replies.transaction(pages.len() + after.commands())? {
                    Ok(items) => read_pages(*at, pages, after, &items, findings),
                    Err(StreamError::NotQueued(errors)) if errors.iter().all(|(_, error)| is_refusal(error)) => {
                        let of_pages = errors.iter().any(|(place, _)| *place != pages.len());
                        refused.insert(if of_pages { RefusedCommand::Xrange } else { RefusedCommand::Xlen });
                    }
                    Err(_) => {}
                },
                Question::Witness { at } => {
                    if !matches!(xinfo::first_in_range(&replies.next()?), Ok(Some(_))) {
                        findings.push(Finding::WitnessGone { at: *at });
                    }
                }
                Question::Ghosts { at, group } => {
                    let reply = replies.next()?;
                    if let (Ok(stream), Ok(count)) = (&mut streams[*at], xinfo::pending_count(&reply)) {
                        stream.groups[*group].ghost_pending = Some(count);
                    }
                }
            }
        }
        Ok(())
    }

    fn stream_of(&self, items: &[Value], groups: &[GroupName]) -> Result<StreamSample, StreamError> {
        let mut stream = xinfo::stream(ok(&items[0])?)?;
        stream.groups = xinfo::groups(ok(&items[1])?)?;
        self.add_details(&mut stream, &items[COMMANDS_PER_STREAM..], groups)?;
        Ok(stream)
    }

    /// `before` is how many answers stand before those about the groups.
    fn glanced(
        &self,
        answer: Result<Vec<Value>, StreamError>,
        groups: &[GroupName],
        kept: &StreamSample,
        before: usize,
    ) -> Result<StreamSample, StreamError> {
        let items = answer?;
        let length = xinfo::length(ok(&items[0])?)?;
        let mut stream = StreamSample { length, groups: xinfo::groups(ok(&items[before - 1])?)?, ..kept.clone() };
        self.add_details(&mut stream, &items[before..], groups)?;
        if is_unchanged(&items[..before - 1], kept) && groups_go_on(&stream.groups, &kept.groups) {
            return Ok(stream);
        }
        stream.carried = true;
        Err(StreamError::Changed(Box::new(stream)))
    }

    fn add_details(&self, stream: &mut StreamSample, items: &[Value], groups: &[GroupName]) -> Result<(), StreamError> {
        for (name, answers) in groups.iter().zip(items.chunks(self.commands_per_group().max(1))) {
            let Some(group) = stream.groups.iter_mut().find(|group| group.name == *name) else { continue };
            let mut answers = answers.iter();
            // An error here is NOGROUP: the group is not in the stream's list either, or will not be in the next.
            if self.may(RefusedCommand::XinfoConsumers)
                && let Some(Ok(reply)) = answers.next().map(ok)
            {
                group.members = Some(xinfo::consumers(reply)?);
            }
            if self.may(RefusedCommand::Xpending)
                && let Some(Ok(reply)) = answers.next().map(ok)
            {
                (group.oldest_pending, group.oldest_pending_consumer) = xinfo::oldest_pending(reply)?.unzip();
            }
        }
        Ok(())
    }

    /// The commands, of those that can be done without, that Redis would not even queue.
    ///
    /// `before` is how many commands stand before the groups' own; without those there is no sample.
    fn refused_by(&self, error: &StreamError, before: usize) -> Vec<RefusedCommand> {
        let StreamError::NotQueued(refusals) = error else { return Vec::new() };
        if refusals.iter().all(|(_, error)| error.code() == "OOM") {
            return vec![RefusedCommand::Multi];
        }
        let optional: Vec<RefusedCommand> =
            [RefusedCommand::XinfoConsumers, RefusedCommand::Xpending].into_iter().filter(|c| self.may(*c)).collect();
        let refused = |(at, error): &(usize, ServerError)| {
            let per_group = at.checked_sub(before).filter(|_| is_refusal(error))?;
            Some(optional[per_group % optional.len()])
        };
        refusals.iter().map(refused).collect::<Option<_>>().unwrap_or_default()
    }
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
fn is_unchanged(items: &[Value], kept: &StreamSample) -> bool {
    matches!(items, [length, added]
        if xinfo::length(length) == Ok(kept.length) && xinfo::first_in_range(added) == Ok(None))
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
fn read_pages(at: usize, pages: &[PageAsked], after: &After, items: &[Value], findings: &mut Vec<Finding>) {
    let (items, rest) = items.split_at(pages.len());
    let after = match after {
        After::Read => rest.first().and_then(|reply| xinfo::stream(reply).ok()),
        After::Glance(kept) => is_unchanged(rest, kept).then(|| (**kept).clone()),
    };
    let Some(after) = after.as_ref().map(Facts::from) else { return };
    for (asked, reply) in pages.iter().zip(items) {
        if let Ok((page, bytes)) = xinfo::range(reply, asked.range.to, asked.limit) {
            findings.push(Finding::Page(Box::new(PageRead { at, asked: *asked, page, bytes, after })));
        }
    }
}

/// Why a stream's transaction gave no sample.
#[derive(Debug)]
enum StreamError {
    /// Redis would not queue these commands, by their place in the transaction.
    NotQueued(Vec<(usize, ServerError)>),
    /// Redis answered an error.
    Server(ServerError),
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
            Self::NotQueued(refusals) => refusals.first().map_or_else(String::new, |(_, error)| error_text(error)),
            Self::Server(error) => error_text(&error),
            Self::Decode(error) => error.to_string(),
            Self::Moved => {
                "it changed while it was read, and Redis is out of memory and runs no transactions".to_owned()
            }
            Self::Changed(sample) => return Unread::Changed(Some(sample)),
        };
        if refused { Unread::Refused(ReadError(error)) } else { Unread::Error(ReadError(error)) }
    }
}

impl From<ServerError> for StreamError {
    fn from(error: ServerError) -> Self {
        Self::Server(error)
    }
}

impl From<DecodeError> for StreamError {
    fn from(error: DecodeError) -> Self {
        Self::Decode(error)
    }
}

/// The replies of a round trip, in the order of its commands.
struct Replies {
    replies: std::vec::IntoIter<Value>,
    /// Whether each transaction has an `ASKING` before it.
    asking: bool,
}

impl Replies {
    fn next(&mut self) -> Result<Value, SampleError> {
        let reply = self.replies.next().ok_or_else(|| protocol("fewer replies than commands"))?;
        match &reply {
            Value::ServerError(error) => server_wide(error).map_or(Ok(reply), Err),
            _ => Ok(reply),
        }
    }

    fn take(&mut self, commands: usize) -> Result<Vec<Value>, SampleError> {
        (0..commands).map(|_| self.next()).collect()
    }

    /// The answers to `commands` commands, of which the first and the last ask for the same, without the last: of one moment
    /// where those two are alike, as nothing that they tell goes back to what it was.
    fn between_two_alike(&mut self, commands: usize) -> Result<Result<Vec<Value>, StreamError>, SampleError> {
        let mut items = self.take(commands)?;
        let last = items.pop();
        Ok(if last.as_ref() == items.first() { Ok(items) } else { Err(StreamError::Moved) })
    }

    /// The answers of one transaction of `commands` commands.
    fn transaction(&mut self, commands: usize) -> Result<Result<Vec<Value>, StreamError>, SampleError> {
        let asked = if self.asking { self.next()? } else { Value::Okay };
        let begun = self.next()?;
        let mut not_queued = Vec::new();
        for at in 0..commands {
            if let Value::ServerError(error) = self.next()? {
                not_queued.push((at, error));
            }
        }
        let answer = self.next()?;
        // MULTI itself refused: what followed ran one by one, and its facts need not agree. ASKING refused: what followed was
        // sent back to where it came from.
        if let Some(error) = [asked, begun].into_iter().find_map(|reply| ok(&reply).err()) {
            return Ok(Err(StreamError::Server(error)));
        }
        if !not_queued.is_empty() {
            return Ok(Err(StreamError::NotQueued(not_queued)));
        }
        match answer {
            Value::Array(items) if items.len() == commands => Ok(Ok(items)),
            Value::ServerError(error) => Ok(Err(StreamError::Server(error))),
            _ => Err(protocol("the reply to EXEC does not fit the commands it runs")),
        }
    }
}

fn ok(reply: &Value) -> Result<&Value, ServerError> {
    match reply {
        Value::ServerError(error) => Err(error.clone()),
        reply => Ok(reply),
    }
}

/// An error that says that the server serves nobody now, rather than that one key cannot be read.
pub(super) fn server_wide(error: &ServerError) -> Option<SampleError> {
    let reason = match error.code() {
        "LOADING" => FailureReason::Loading,
        "NOAUTH" | "WRONGPASS" => FailureReason::Auth,
        // In a cluster that need not be whole, that is said of one slot.
        "CLUSTERDOWN" if error.details().is_some_and(|details| details.contains("slot not served")) => return None,
        "MASTERDOWN" | "CLUSTERDOWN" | "BUSY" => FailureReason::Server,
        _ => return None,
    };
    Some(SampleError { reason, detail: error_text(error) })
}

pub(super) fn protocol(what: &str) -> SampleError {
    SampleError { reason: FailureReason::Protocol, detail: what.to_owned() }
}

/// Whether Redis refuses the command by ACL; a refused key is no refused command.
pub(super) fn is_command_refused(reply: &Value) -> bool {
    matches!(reply, Value::ServerError(error) if is_refusal(error))
}

fn is_refusal(error: &ServerError) -> bool {
    error.code() == "NOPERM" && error.details().is_some_and(|details| details.contains("command"))
}

/// What Redis said, without the `ERR` that stands for "no particular code".
pub(super) fn error_text(error: &ServerError) -> String {
    match (error.code(), error.details()) {
        ("ERR", Some(details)) => details.to_owned(),
        (code, Some(details)) => format!("{code} {details}"),
        (code, None) => code.to_owned(),
    }
}
