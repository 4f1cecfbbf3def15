//! RESP2, Redis's protocol: commands written as bytes, replies read as a flat list of values over the bytes they came in.
//! Pure.
//!
//! A sample is some hundred thousand small values. As a tree they would each be an allocation; here a value is 16 bytes in a
//! list that is used again. Measured at 1,000 streams with 3 groups of 5 consumers: docs/performance.md.

use std::fmt;

use sha2::{Digest as _, Sha256};

use crate::model::names::{self, HEAD_BYTES, RawName};
use crate::redis::reply_memory::{BufferCharge, FREE_PER_CONNECTION, Growth, ReplyMemory};

/// Bytes that one sample may read: twice what it means to read of large entries while their size is unknown, which is by far
/// the most it ever does. A thousand streams take some 2 MB.
pub const MAX_REPLY_BYTES: u64 = 512 * 1024 * 1024;

/// Values that one sample may read, as each takes some memory, however short it is on the wire: those of 50,000 streams with
/// three groups of five consumers.
pub const MAX_REPLY_VALUES: u64 = 8 * 1024 * 1024;

/// How deep replies may be nested: twice as deep as the fields of an entry lie in the answer to a transaction.
const MAX_DEPTH: usize = 8;

/// The longest line: an error, a status, a number. Redis itself cuts what it repeats to 128 bytes.
const MAX_LINE_BYTES: usize = 4096;

/// The longest text that is kept whole. Of a longer one only the beginning, the length and the SHA-256 are: it is somebody's
/// payload, of which only the length matters, or an absurd name. Streams with larger entries are mostly read by a
/// script that leaves them on the server.
pub const MAX_TEXT_BYTES: u64 = 16 * 1024;

/// Bytes of replies that are held before they are looked at: what a batch may take of the memory that a container usually has.
pub const MAX_HELD_BYTES: usize = 128 * 1024 * 1024;

/// What is left out of a long text is closed up where what stands behind it is at most this many times as long, so that no more is moved
/// than comes in.
const MOVED_PER_BYTE: usize = 8;

/// What is kept of an error's text, in bytes.
const MAX_ERROR_BYTES: usize = 1024;

/// The fewest bytes of a value: `+` and a line end.
const LEAST_BYTES: u64 = 3;

/// What a buffer keeps of its capacity from one set of replies to the next, in bytes: what is beyond it was for large replies.
const KEPT_IN_SAMPLE_BYTES: usize = 2 * 1024 * 1024;

/// The same from one sample to the next. Two buffers of that size are what every connection may hold.
const KEPT_BYTES: usize = FREE_PER_CONNECTION / 2;

/// A large buffer grows by one part of so many of its length. More would be memory for nothing, less would have it moved more often, and what
/// the allocator has not given back of the places where it was would be more than it is.
const GROWTH: usize = 2;

/// Appends a command, given as its words.
pub fn command<'a>(bytes: &mut Vec<u8>, words: impl IntoIterator<Item = &'a [u8], IntoIter: Clone>) {
    let words = words.into_iter();
    let mut digits = itoa::Buffer::new();
    let mut number = |bytes: &mut Vec<u8>, kind: u8, number: usize| {
        // Nearly all are.
        if number < 10 {
            return bytes.extend_from_slice(&[kind, b'0' + number as u8, b'\r', b'\n']);
        }
        bytes.push(kind);
        bytes.extend_from_slice(digits.format(number).as_bytes());
        bytes.extend_from_slice(b"\r\n");
    };
    number(bytes, b'*', words.clone().count());
    for word in words {
        number(bytes, b'$', word.len());
        bytes.extend_from_slice(word);
        bytes.extend_from_slice(b"\r\n");
    }
}

/// What is wrong with what a server sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RespError {
    /// More bytes than one sample may read.
    #[error("Redis sent more than {} MiB in one sample", MAX_REPLY_BYTES / MIB)]
    TooManyBytes,
    /// More values than one sample may read.
    #[error("Redis sent more than {MAX_REPLY_VALUES} values in one sample")]
    TooManyValues,
    /// More bytes are to come than are `left` to one sample.
    #[error("Redis announced {announced} bytes, where one sample may have {left} more")]
    BytesAnnounced {
        /// How many.
        announced: u64,
        /// How many it may have.
        left: u64,
    },
    /// More values are to come than are `left` to one sample.
    #[error("Redis announced {announced} values, where one sample may have {left} more")]
    ValuesAnnounced {
        /// How many.
        announced: u64,
        /// How many it may have.
        left: u64,
    },
    /// More than this many bytes would have to be held.
    #[error("Redis sent more than {} MiB at a time", .0 / MIB as usize)]
    TooMuchAtOnce(usize),
    /// A list in a list in a list, and so on.
    #[error("Redis sent a reply that is nested more than {MAX_DEPTH} deep")]
    TooDeep,
    /// A line that does not end.
    #[error("Redis sent a line of more than {MAX_LINE_BYTES} bytes")]
    LineTooLong,
    /// It is no RESP2.
    #[error("Redis sent something that is no reply")]
    NoReply,
}

const MIB: u64 = 1024 * 1024;

/// What may still be read until the next sample begins.
#[derive(Clone, Copy, Debug)]
pub struct DecodeBudget {
    bytes: u64,
    values: u64,
}

impl Default for DecodeBudget {
    fn default() -> Self {
        Self { bytes: MAX_REPLY_BYTES, values: MAX_REPLY_VALUES }
    }
}

impl DecodeBudget {
    fn take_bytes(&mut self, bytes: u64) -> Result<(), RespError> {
        self.bytes = self.bytes.checked_sub(bytes).ok_or(RespError::TooManyBytes)?;
        Ok(())
    }

    fn take_value(&mut self) -> Result<(), RespError> {
        self.values = self.values.checked_sub(1).ok_or(RespError::TooManyValues)?;
        Ok(())
    }

    /// Whether this many bytes may still come.
    ///
    /// # Errors
    /// Why not.
    pub fn may_come(&self, bytes: u64) -> Result<(), RespError> {
        let left = self.bytes;
        if bytes <= left { Ok(()) } else { Err(RespError::BytesAnnounced { announced: bytes, left }) }
    }

    fn values_may_come(&self, values: u64) -> Result<(), RespError> {
        let left = self.values;
        if values <= left {
            self.may_come(values * LEAST_BYTES)
        } else {
            Err(RespError::ValuesAnnounced { announced: values, left })
        }
    }
}

/// One value of a reply. Text is named by its place among the bytes.
#[derive(Clone, Copy, Debug)]
enum ReplyNode {
    Nil,
    Int(i64),
    /// A number that 64 bits with a sign do not hold, by its digits.
    Beyond {
        at: u32,
        length: u32,
    },
    Text {
        at: u32,
        length: u32,
    },
    /// The beginning of a text that was too long to be kept, and the place of its [`CutText`].
    CutText {
        at: u32,
        cut: u32,
    },
    Error {
        at: u32,
        length: u32,
    },
    /// `end` is the place of the first node that is not in the list.
    List {
        items: u32,
        end: u32,
    },
}

/// What is known of a text that was too long to be kept, in addition to its beginning.
#[derive(Debug, PartialEq, Eq)]
struct CutText {
    length: u64,
    digest: [u8; 32],
}

/// A text that is too long to be kept, on its way.
#[derive(Debug)]
struct PartialCut {
    /// Where its beginning is kept.
    at: usize,
    length: u64,
    /// How many of its bytes came.
    came: u64,
    digest: Sha256,
}

/// Replies as they come in.
#[derive(Debug, Default)]
pub struct ReplyReader {
    bytes: Vec<u8>,
    cutting: Option<PartialCut>,
    cuts: Vec<CutText>,
    /// Bytes of the value that is being read that are not kept.
    skipped: u64,
    /// The bytes up to here have become values.
    read: usize,
    nodes: Vec<ReplyNode>,
    /// For each list that is not at its end: its node, and how many values it still wants.
    open: Vec<(usize, u32)>,
    /// Whole replies.
    whole: usize,
    /// Bytes of the reply that is not whole yet, as far as they have become values.
    of_this_one: u64,
    /// What its newest value announced, in bytes.
    announced: u64,
    /// What the buffers take of the memory that there is for replies.
    charge: BufferCharge,
    /// Whether the next value has to wait for memory.
    is_short: bool,
}

impl ReplyReader {
    /// Nothing read yet, and what is read takes memory of this budget.
    #[must_use]
    pub fn of(memory: &'static ReplyMemory) -> Self {
        Self { charge: BufferCharge::of(memory), ..Self::default() }
    }

    /// Makes room for so many further bytes. Without a budget there is always more.
    ///
    /// # Errors
    /// The replies that are held would take more memory than there is.
    pub fn make_room(&mut self, bytes: usize) -> Result<bool, RespError> {
        if self.bytes.capacity() - self.bytes.len() >= bytes {
            return Ok(true);
        }
        let more = bytes.max(grown(self.bytes.len(), 1) - self.bytes.len());
        let is_granted = self.grow(self.bytes.len() + more, self.nodes.capacity())?;
        if is_granted {
            self.bytes.reserve_exact(more);
        }
        Ok(is_granted)
    }

    /// Makes room for further values.
    fn make_room_for_values(&mut self) -> Result<bool, RespError> {
        let more = grown(self.nodes.len(), size_of::<ReplyNode>()) - self.nodes.len();
        let is_granted = self.grow(self.bytes.capacity(), self.nodes.len() + more)?;
        if is_granted {
            self.nodes.reserve_exact(more);
        }
        Ok(is_granted)
    }

    fn grow(&mut self, bytes: usize, nodes: usize) -> Result<bool, RespError> {
        match self.charge.grow(bytes + nodes * size_of::<ReplyNode>()) {
            Growth::Granted => Ok(true),
            Growth::Wait => Ok(false),
            Growth::Refused(most) => Err(RespError::TooMuchAtOnce(most)),
        }
    }

    /// Whether replies cannot be read on for want of memory, rather than of bytes.
    #[must_use]
    pub fn is_short(&self) -> bool {
        self.is_short
    }

    /// Waits until other connections have read what they hold.
    pub async fn wait_for_memory(&mut self) {
        self.charge.wait().await;
    }

    /// Whether the buffers hold more than every connection may.
    #[must_use]
    pub fn is_counted(&self) -> bool {
        self.charge.is_counted()
    }

    /// Where further bytes are to be put.
    pub fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Bytes that have not become values yet.
    #[must_use]
    pub fn unread(&self) -> u64 {
        (self.bytes.len() - self.read) as u64
    }

    /// Forgets the replies that were read, and keeps what came after them.
    pub fn next(&mut self) {
        self.forget(KEPT_IN_SAMPLE_BYTES);
    }

    /// The same at the end of a sample.
    pub fn rest(&mut self) {
        self.forget(KEPT_BYTES);
    }

    /// Forgets the replies that were read. A buffer of more than so many bytes is given back.
    fn forget(&mut self, kept: usize) {
        if self.bytes.capacity() > kept && self.unread() < (kept / 2) as u64 {
            self.bytes = self.bytes[self.read..].to_vec();
            self.read = 0;
        } else if self.read as u64 >= self.unread() {
            // Not each time: what is moved is never more than was read since.
            self.bytes.drain(..self.read);
            self.read = 0;
        }
        self.nodes.clear();
        if self.nodes.capacity() * size_of::<ReplyNode>() > kept {
            self.nodes = Vec::new();
        }
        self.cuts = Vec::new();
        self.whole = 0;
        if self.charge.is_counted() {
            self.charge.shrink(self.bytes.capacity() + self.nodes.capacity() * size_of::<ReplyNode>());
        }
    }

    /// How many whole replies there are.
    #[must_use]
    pub fn whole(&self) -> usize {
        self.whole
    }

    /// Bytes that came of the reply after those, or are announced.
    #[must_use]
    pub fn on_its_way(&self) -> u64 {
        let came = self.of_this_one + self.skipped + self.unread();
        // What is more than any sample may read is nothing that a Redis says.
        if self.announced <= MAX_REPLY_BYTES { came + self.announced } else { came }
    }

    /// Reads on, until there are this many whole replies. Whether there are.
    ///
    /// # Errors
    /// What is wrong with what came: it is no RESP2, or more than may come.
    pub fn read(&mut self, wanted: usize, budget: &mut DecodeBudget) -> Result<bool, RespError> {
        while self.whole < wanted {
            self.is_short = self.nodes.len() == self.nodes.capacity() && !self.make_room_for_values()?;
            if self.is_short {
                return Ok(false);
            }
            let Some(after) = self.value(budget)? else {
                return if self.bytes.len() <= MAX_HELD_BYTES {
                    Ok(false)
                } else {
                    Err(RespError::TooMuchAtOnce(MAX_HELD_BYTES))
                };
            };
            let took = (after - self.read) as u64 + std::mem::take(&mut self.skipped);
            self.announced = 0;
            self.of_this_one = if self.open.is_empty() { 0 } else { self.of_this_one + took };
            budget.take_bytes(took)?;
            budget.take_value()?;
            self.read = after;
        }
        Ok(true)
    }

    /// Reads one value, or the head of a list. Where it ends; `None` where it is not all there.
    fn value(&mut self, budget: &DecodeBudget) -> Result<Option<usize>, RespError> {
        if self.cutting.is_some() {
            return self.cut();
        }
        let Some(kind) = self.bytes.get(self.read) else { return Ok(None) };
        match kind {
            b'+' | b'-' => {
                let is_error = *kind == b'-';
                let Some(end) = self.line_end()? else { return Ok(None) };
                let (at, length) = (self.read as u32 + 1, (end - self.read - 1) as u32);
                self.push(if is_error { ReplyNode::Error { at, length } } else { ReplyNode::Text { at, length } });
                Ok(Some(end + 2))
            }
            b':' => {
                let read = self.number(|replies, number, after| {
                    replies.push(ReplyNode::Int(number));
                    Ok(Some(after))
                });
                if read.is_err() { self.long_number() } else { read }
            }
            b'$' => self.number(|replies, length, after| replies.text(budget, length, after)),
            b'*' => self.number(|replies, items, after| {
                replies.list(budget, items)?;
                Ok(Some(after))
            }),
            _ => Err(RespError::NoReply),
        }
    }

    /// Text of this length; below 0 it is null, and has no bytes.
    fn text(&mut self, budget: &DecodeBudget, length: i64, after: usize) -> Result<Option<usize>, RespError> {
        let Ok(length) = u64::try_from(length) else {
            self.push(ReplyNode::Nil);
            return Ok(Some(after));
        };
        self.announced = length;
        budget.may_come(length)?;
        if length > MAX_TEXT_BYTES {
            self.cutting = Some(PartialCut { at: after, length, came: 0, digest: Sha256::new() });
            return self.cut();
        }
        let end = after + length as usize;
        match self.bytes.get(end..end + 2) {
            None => Ok(None),
            Some(b"\r\n") => {
                self.push(ReplyNode::Text { at: after as u32, length: length as u32 });
                Ok(Some(end + 2))
            }
            Some(_) => Err(RespError::NoReply),
        }
    }

    /// Goes on with a text that is too long to be kept.
    fn cut(&mut self) -> Result<Option<usize>, RespError> {
        let Some(cutting) = &mut self.cutting else { return Ok(None) };
        let at = cutting.at;
        let kept = |came: u64| at + (came as usize).min(HEAD_BYTES);
        let from = kept(cutting.came);
        let end = self.bytes.len().min(from.saturating_add((cutting.length - cutting.came) as usize));
        let came = cutting.came + (end - from) as u64;
        let (keep, is_whole) = (kept(came), came == cutting.length);
        cutting.digest.update(&self.bytes[from..end]);
        cutting.came = came;
        let behind = if self.bytes.len() - end <= MOVED_PER_BYTE.saturating_mul(end - keep) {
            self.bytes.drain(keep..end);
            self.skipped += (end - keep) as u64;
            keep
        } else {
            end
        };
        if !is_whole {
            return Ok(None);
        }
        match self.bytes.get(behind..behind + 2) {
            // It may be all there but for its end: then nothing comes of it the next time.
            None if behind == keep => Ok(None),
            Some(b"\r\n") => {
                let node = ReplyNode::CutText { at: cutting.at as u32, cut: self.cuts.len() as u32 };
                let digest = std::mem::take(&mut cutting.digest).finalize().into();
                self.cuts.push(CutText { length: cutting.length, digest });
                self.cutting = None;
                self.push(node);
                Ok(Some(behind + 2))
            }
            None | Some(_) => Err(RespError::NoReply),
        }
    }

    /// The head of a list; below 0 it is null.
    fn list(&mut self, budget: &DecodeBudget, items: i64) -> Result<(), RespError> {
        match u64::try_from(items) {
            Err(_) => self.push(ReplyNode::Nil),
            Ok(0) => self.push(ReplyNode::List { items: 0, end: self.nodes.len() as u32 + 1 }),
            Ok(_) if self.open.len() == MAX_DEPTH => {
                return Err(RespError::TooDeep);
            }
            Ok(items) => {
                self.announced = items.saturating_mul(LEAST_BYTES);
                budget.values_may_come(items)?;
                self.open.push((self.nodes.len(), items as u32));
                self.nodes.push(ReplyNode::List { items: items as u32, end: 0 });
            }
        }
        Ok(())
    }

    /// Reads the number that makes up the rest of the line, and goes on with it and the place behind the line.
    fn number(
        &mut self,
        go_on: impl FnOnce(&mut Self, i64, usize) -> Result<Option<usize>, RespError>,
    ) -> Result<Option<usize>, RespError> {
        let from = self.read + 1;
        let line = &self.bytes[from..];
        let negative = line.first() == Some(&b'-');
        let mut number: i64 = 0;
        for (place, byte) in line.iter().enumerate().skip(usize::from(negative)) {
            match byte {
                b'0'..=b'9' => {
                    let (step, digit) = (number.checked_mul(10).ok_or(RespError::NoReply)?, i64::from(byte - b'0'));
                    number = if negative { step.checked_sub(digit) } else { step.checked_add(digit) }
                        .ok_or(RespError::NoReply)?;
                }
                b'\r' if place > usize::from(negative) => {
                    return match line.get(place + 1) {
                        None => Ok(None),
                        Some(b'\n') => go_on(self, number, from + place + 2),
                        Some(_) => Err(RespError::NoReply),
                    };
                }
                _ => return Err(RespError::NoReply),
            }
        }
        if line.len() > MAX_LINE_BYTES { Err(RespError::LineTooLong) } else { Ok(None) }
    }

    /// Reads a number that 64 bits with a sign do not hold: a field that cannot be is no broken reply.
    #[cold]
    fn long_number(&mut self) -> Result<Option<usize>, RespError> {
        let Some(end) = self.line_end()? else { return Ok(None) };
        let (at, length) = (self.read + 1, end - self.read - 1);
        let line = &self.bytes[at..end];
        let digits = line.strip_prefix(b"-").unwrap_or(line);
        if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
            return Err(RespError::NoReply);
        }
        self.push(ReplyNode::Beyond { at: at as u32, length: length as u32 });
        Ok(Some(end + 2))
    }

    /// Where the line that begins at the first unread byte ends, before its line end; `None` where that has not come.
    fn line_end(&self) -> Result<Option<usize>, RespError> {
        let mut from = self.read;
        loop {
            let rest = &self.bytes[from..];
            let found = memchr::memchr(b'\n', rest);
            let length = from - self.read + found.unwrap_or(rest.len());
            if length > MAX_LINE_BYTES {
                return Err(RespError::LineTooLong);
            }
            match found {
                None => return Ok(None),
                // A line end is both its bytes.
                Some(at) if from + at > self.read && self.bytes[from + at - 1] == b'\r' => {
                    return Ok(Some(from + at - 1));
                }
                Some(at) => from += at + 1,
            }
        }
    }

    /// Adds a value that is whole, and ends the lists of which it is the last.
    fn push(&mut self, node: ReplyNode) {
        self.nodes.push(node);
        let here = self.nodes.len() as u32;
        while let Some((list, wanted)) = self.open.last_mut() {
            *wanted -= 1;
            if *wanted > 0 {
                return;
            }
            if let ReplyNode::List { end, .. } = &mut self.nodes[*list] {
                *end = here;
            }
            self.open.pop();
        }
        self.whole += 1;
    }

    /// The whole replies, in the order in which they came.
    #[must_use]
    pub fn iter(&self) -> Items<'_> {
        Items { all: self, at: 0, left: self.whole }
    }
}

/// The length to which a buffer grows, in items of so many bytes.
fn grown(length: usize, item: usize) -> usize {
    let is_large = length * item > KEPT_IN_SAMPLE_BYTES;
    (if is_large { length + length / GROWTH } else { length * 2 }).max(length + 64)
}

/// A value of a reply.
#[derive(Clone, Copy)]
pub struct Reply<'a> {
    all: &'a ReplyReader,
    at: usize,
}

impl<'a> Reply<'a> {
    /// Whether it is nothing.
    #[must_use]
    pub fn is_nil(self) -> bool {
        matches!(self.all.nodes[self.at], ReplyNode::Nil)
    }

    /// The number that it is.
    #[must_use]
    pub fn int(self) -> Option<i64> {
        if let ReplyNode::Int(number) = self.all.nodes[self.at] { Some(number) } else { None }
    }

    /// The text that it is; any bytes, at most [`MAX_TEXT_BYTES`] of them. `None` where it is longer.
    #[must_use]
    pub fn bytes(self) -> Option<&'a [u8]> {
        match self.all.nodes[self.at] {
            ReplyNode::Text { at, length } => Some(&self.all.bytes[at as usize..][..length as usize]),
            _ => None,
        }
    }

    /// The name that it is; a text of any length.
    #[must_use]
    pub fn name(self) -> Option<RawName<'a>> {
        match self.all.nodes[self.at] {
            ReplyNode::CutText { at, cut } => {
                let CutText { length, digest } = &self.all.cuts[cut as usize];
                let head = &self.all.bytes[at as usize..][..HEAD_BYTES];
                Some(RawName::Cut { head, digest, length: *length })
            }
            _ => self.bytes().map(RawName::Whole),
        }
    }

    /// Bytes in the text that it is, of any length.
    #[must_use]
    pub fn text_length(self) -> Option<u64> {
        match self.all.nodes[self.at] {
            ReplyNode::Text { length, .. } => Some(length.into()),
            ReplyNode::CutText { cut, .. } => Some(self.all.cuts[cut as usize].length),
            _ => None,
        }
    }

    /// The digits of a number that does not fit.
    fn beyond(self) -> Option<&'a [u8]> {
        match self.all.nodes[self.at] {
            ReplyNode::Beyond { at, length } => Some(&self.all.bytes[at as usize..][..length as usize]),
            _ => None,
        }
    }

    /// The error that it is.
    #[must_use]
    pub fn error(self) -> Option<Refusal> {
        match self.all.nodes[self.at] {
            ReplyNode::Error { at, length } => {
                let text = &self.all.bytes[at as usize..][..length as usize];
                Some(Refusal(names::text(text.trim_ascii_end(), MAX_ERROR_BYTES)))
            }
            _ => None,
        }
    }

    /// Whether it is an error.
    #[must_use]
    pub fn is_error(self) -> bool {
        matches!(self.all.nodes[self.at], ReplyNode::Error { .. })
    }

    /// What is in the list that it is.
    #[must_use]
    pub fn list(self) -> Option<Items<'a>> {
        match self.all.nodes[self.at] {
            ReplyNode::List { items, .. } => Some(Items { all: self.all, at: self.at + 1, left: items as usize }),
            _ => None,
        }
    }

    /// What kind of value it is; never its content, which may be private data.
    #[must_use]
    pub fn kind(self) -> &'static str {
        match self.all.nodes[self.at] {
            ReplyNode::Nil => "nil",
            ReplyNode::Int(_) => "a number",
            ReplyNode::Beyond { .. } => "a number that does not fit 64 bits",
            ReplyNode::Text { .. } | ReplyNode::CutText { .. } => "a string",
            ReplyNode::Error { .. } => "an error",
            ReplyNode::List { .. } => "a list",
        }
    }

    /// Whether it says the same as another.
    #[must_use]
    pub fn is_like(self, other: Self) -> bool {
        match (self.list(), other.list()) {
            (Some(mine), Some(others)) => {
                mine.len() == others.len() && mine.zip(others).all(|(mine, other)| mine.is_like(other))
            }
            (None, None) => {
                self.kind() == other.kind()
                    && self.int() == other.int()
                    && self.beyond() == other.beyond()
                    && self.name() == other.name()
                    && self.error() == other.error()
            }
            _ => false,
        }
    }
}

impl fmt::Debug for Reply<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind())
    }
}

/// Values one after the other.
#[derive(Clone)]
pub struct Items<'a> {
    all: &'a ReplyReader,
    at: usize,
    left: usize,
}

impl Items<'_> {
    /// The first `count` of them.
    #[must_use]
    pub fn first(&self, items: usize) -> Self {
        Self { left: items.min(self.left), ..*self }
    }
}

impl<'a> Iterator for Items<'a> {
    type Item = Reply<'a>;

    fn next(&mut self) -> Option<Reply<'a>> {
        self.left = self.left.checked_sub(1)?;
        let at = self.at;
        self.at = match self.all.nodes[at] {
            ReplyNode::List { end, .. } => end as usize,
            _ => at + 1,
        };
        Some(Reply { all: self.all, at })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Items<'_> {}

/// An error that Redis answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal(String);

impl Refusal {
    /// Its first word: `ERR`, `NOPERM`, …
    #[must_use]
    pub fn code(&self) -> &str {
        self.0.split(' ').next().unwrap_or_default()
    }

    /// What Redis said, without the `ERR` that stands for "no particular code".
    #[must_use]
    pub fn text(&self) -> &str {
        self.0.strip_prefix("ERR ").unwrap_or(&self.0)
    }

    /// What was wrong with `EXEC` itself, where it ended its transaction for that.
    #[must_use]
    pub fn why_aborted(&self) -> Option<Self> {
        let why = self.0.strip_prefix("EXECABORT Transaction discarded because of: ")?;
        Some(Self(why.to_owned()))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// No value, as sent.
    pub(crate) const NIL: &str = "$-1\r\n";

    /// A number, as sent.
    pub(crate) fn int(number: i64) -> String {
        format!(":{number}\r\n")
    }

    /// A text, as sent.
    pub(crate) fn text(text: &str) -> String {
        format!("${}\r\n{text}\r\n", text.len())
    }

    /// A list, as sent.
    pub(crate) fn list(items: &[String]) -> String {
        format!("*{}\r\n{}", items.len(), items.concat())
    }

    /// Replies that are all there.
    pub(crate) fn whole(bytes: &[u8]) -> ReplyReader {
        let mut replies = ReplyReader::default();
        replies.buffer().extend_from_slice(bytes);
        let read = replies.read(usize::MAX, &mut DecodeBudget::default());
        assert_eq!(read, Ok(false), "{}", bytes.escape_ascii());
        assert_eq!(replies.unread(), 0, "{}", bytes.escape_ascii());
        replies
    }

    /// Reads replies in pieces of every size; all must say the same.
    fn check(bytes: &[u8], expected: Result<u64, &str>) {
        for size in [1, 2, 3, 7, bytes.len().max(1)] {
            let (mut budget, mut replies) = (DecodeBudget::default(), ReplyReader::default());
            let read = bytes.chunks(size).try_for_each(|piece| {
                replies.buffer().extend_from_slice(piece);
                replies.read(usize::MAX, &mut budget).map(drop)
            });
            match (read, expected) {
                (Ok(()), Ok(expected)) => {
                    assert_eq!(MAX_REPLY_VALUES - budget.values, expected, "{}", bytes.escape_ascii());
                    assert_eq!(MAX_REPLY_BYTES - budget.bytes, bytes.len() as u64);
                    assert!(replies.open.is_empty() && replies.unread() == 0);
                }
                (Err(error), Err(expected)) => {
                    assert!(error.to_string().contains(expected), "{error} lacks {expected}")
                }
                (read, _) => panic!("{}: {read:?}, expected {expected:?}", bytes.escape_ascii()),
            }
        }
    }

    #[test]
    fn replies_pass() {
        check(b"", Ok(0));
        check(b"+OK\r\n-ERR no\r\n:1\r\n$-1\r\n*-1\r\n*0\r\n$0\r\n\r\n", Ok(7));
        check(b"*2\r\n*2\r\n$4\r\n\r\n*9\r\n:2\r\n$1\r\nx\r\n+OK\r\n", Ok(6));
        // A line end is both its bytes.
        check(b"+a\nb\rc\r\n:2\r\n", Ok(2));
        let deep = b"*1\r\n".repeat(MAX_DEPTH);
        check(&[&deep[..], b":1\r\n", &deep[..], b"*0\r\n"].concat(), Ok(2 * MAX_DEPTH as u64 + 2));
    }

    #[test]
    fn what_would_take_too_much_is_refused_as_soon_as_it_is_announced() {
        check(b"$2147483648\r\n", Err("announced 2147483648 bytes"));
        check(b"$9223372036854775807\r\n", Err("announced 9223372036854775807 bytes"));
        check(b"*2147483647\r\n", Err("announced 2147483647 values"));
        check(b"*9223372036854775807\r\n", Err("announced 9223372036854775807 values"));
        check(&b"*1\r\n".repeat(10_000), Err("nested more than 8 deep"));
        check(&[b"-ERR ".as_slice(), &[b'x'; MAX_LINE_BYTES]].concat(), Err("a line of more than 4096 bytes"));
        check(&[b":".as_slice(), &[b'0'; MAX_LINE_BYTES + 1]].concat(), Err("a line of more than 4096 bytes"));
    }

    #[test]
    fn what_is_no_reply_is_refused() {
        let numbers = ["$x\r\n", "*\r\n", "$99999999999999999999\r\n", ":\r\n", ":1x\r\n", ":-\r\n", "$2\r\nabc\r\n"];
        for junk in ["\r\n", "HTTP/1.1 200 OK\r\n", "%1\r\n", "_\r\n"].iter().chain(&numbers) {
            check(junk.as_bytes(), Err("is no reply"));
        }
    }

    #[test]
    fn a_number_that_does_not_fit_is_neither_a_number_nor_text_and_breaks_nothing() {
        // As apache/kvrocks#3578 has it: a lag of -8 in 64 bits without a sign.
        let wrapped = b"*3\r\n:18446744073709551608\r\n:-9223372036854775809\r\n:7\r\n";
        check(wrapped, Ok(4));
        let replies = whole(wrapped);
        let items: Vec<Reply<'_>> = replies.iter().next().unwrap().list().unwrap().collect();
        assert_eq!((items[0].int(), items[0].bytes()), (None, None));
        assert!(items[0].is_like(items[0]) && !items[0].is_like(items[1]));
        assert_eq!((items[1].int(), items[2].int()), (None, Some(7)));
        check(b":99999999999999999999x\r\n", Err("is no reply"));
        check(b":--9\r\n", Err("is no reply"));
        check(&[b":".as_slice(), &[b'9'; MAX_LINE_BYTES + 1]].concat(), Err("a line of more than 4096 bytes"));
    }

    #[test]
    fn a_sample_reads_only_so_much() {
        let read = |bytes: &[u8], mut budget: DecodeBudget| {
            let mut replies = ReplyReader::default();
            replies.buffer().extend_from_slice(bytes);
            replies.read(usize::MAX, &mut budget)
        };
        let six = DecodeBudget { bytes: 6, ..DecodeBudget::default() };
        // Neither what is announced nor what comes.
        assert!(read(b"$7\r\nxxx", six).unwrap_err().to_string().contains("announced 7 bytes"));
        assert!(read(b":12345\r\n", six).unwrap_err().to_string().contains("more than 512 MiB in one sample"));
        let one = DecodeBudget { values: 1, ..DecodeBudget::default() };
        assert!(read(b":1\r\n:2\r\n", one).unwrap_err().to_string().contains("more than 8388608 values"));
    }

    #[test]
    fn values_are_what_they_were_sent_as() {
        let replies = whole(b"*3\r\n:-9223372036854775808\r\n*2\r\n$2\r\na\n\r\n+b\r\n$-1\r\n-NOPERM this user\r\n");
        let all: Vec<Reply<'_>> = replies.iter().collect();
        assert_eq!(all.len(), 2);
        let mut items = all[0].list().unwrap();
        assert_eq!(items.len(), 3);
        assert_eq!(items.next().unwrap().int(), Some(i64::MIN));
        let texts: Vec<_> = items.next().unwrap().list().unwrap().filter_map(Reply::bytes).collect();
        assert_eq!(texts, [b"a\n".as_slice(), b"b"]);
        assert!(items.next().unwrap().is_nil() && items.next().is_none());
        let refusal = all[1].error().unwrap();
        assert_eq!((refusal.code(), refusal.text()), ("NOPERM", "NOPERM this user"));
        assert_eq!(whole(b"-ERR no such key\r\n").iter().next().unwrap().error().unwrap().text(), "no such key");
        assert!(all[0].is_like(all[0]) && !all[0].is_like(all[1]));
    }

    #[test]
    fn of_a_long_text_only_the_beginning_and_the_digest_are_kept() {
        let long = |byte: u8, length: usize| vec![byte; length];
        let lengths = [MAX_TEXT_BYTES as usize, MAX_TEXT_BYTES as usize + 1, 100_000, 1_000_000];
        let texts: Vec<Vec<u8>> = lengths.iter().map(|length| long(b'a', *length)).collect();
        let mut sent = format!("*{}\r\n", texts.len() + 1).into_bytes();
        for text in &texts {
            sent.extend(format!("${}\r\n", text.len()).bytes());
            sent.extend(text.iter().chain(b"\r\n"));
        }
        sent.extend(b":7\r\n");
        for size in [1000, 4097, 65_536, sent.len()] {
            let (mut budget, mut replies) = (DecodeBudget::default(), ReplyReader::default());
            let mut most = 0;
            for piece in sent.chunks(size) {
                replies.buffer().extend_from_slice(piece);
                replies.read(1, &mut budget).unwrap();
                most = most.max(replies.bytes.len());
            }
            assert_eq!(MAX_REPLY_BYTES - budget.bytes, sent.len() as u64, "{size}");
            assert!(size > 100_000 || most < 3 * MAX_TEXT_BYTES as usize + 2 * size, "{most} held at {size}");
            let items: Vec<Reply<'_>> = replies.iter().next().unwrap().list().unwrap().collect();
            assert_eq!(items.last().unwrap().int(), Some(7));
            for (item, text) in items.iter().zip(&texts) {
                assert_eq!((item.kind(), item.text_length()), ("a string", Some(text.len() as u64)));
                let digest = Sha256::digest(text).into();
                match item.name().unwrap() {
                    RawName::Whole(whole) => assert!(whole == text && text.len() as u64 <= MAX_TEXT_BYTES),
                    cut => {
                        let head = &text[..HEAD_BYTES];
                        assert_eq!(cut, RawName::Cut { head, digest: &digest, length: text.len() as u64 });
                        assert!(item.bytes().is_none());
                    }
                }
            }
            assert!(items[3].is_like(items[3]) && !items[3].is_like(items[2]));
        }
        check(&[b"$20000\r\n".as_slice(), &[b'x'; 20_000], b"xx"].concat(), Err("is no reply"));
    }

    #[test]
    fn no_more_is_held_than_may_be() {
        let (mut budget, mut replies) = (DecodeBudget::default(), ReplyReader::default());
        let text = [format!("${MAX_TEXT_BYTES}\r\n").as_bytes(), &[b'x'; MAX_TEXT_BYTES as usize], b"\r\n"].concat();
        replies.buffer().extend_from_slice(b"*100000\r\n");
        let mut held = 0;
        let refused = loop {
            replies.buffer().extend_from_slice(&text);
            match replies.read(1, &mut budget) {
                Ok(_) => held = replies.bytes.len(),
                Err(why) => break why.to_string(),
            }
        };
        assert!(refused.contains("more than 128 MiB at a time"), "{refused}");
        assert!(held > MAX_HELD_BYTES - 2 * text.len());
    }

    #[test]
    fn an_error_is_cut() {
        let replies = whole(&[b"-ERR ".as_slice(), &[b'x'; 3000], b"\r\n"].concat());
        let refusal = replies.iter().next().unwrap().error().unwrap();
        assert_eq!(refusal.text(), format!("{}…", "x".repeat(MAX_ERROR_BYTES - 4)));
    }

    #[test]
    fn what_comes_after_the_replies_that_are_wanted_is_kept() {
        let (mut replies, mut budget) = (ReplyReader::default(), DecodeBudget::default());
        replies.buffer().extend_from_slice(b":1\r\n:2\r\n:3");
        for expected in [1, 2] {
            assert_eq!(replies.read(1, &mut budget), Ok(true));
            assert_eq!(replies.iter().map(Reply::int).collect::<Vec<_>>(), [Some(expected)]);
            replies.next();
        }
        assert_eq!(replies.read(1, &mut budget), Ok(false));
        replies.buffer().extend_from_slice(b"\r\n");
        assert_eq!(replies.read(1, &mut budget), Ok(true));
        assert_eq!(replies.iter().next().and_then(Reply::int), Some(3));
    }

    #[test]
    fn commands_are_written_with_their_lengths() {
        let mut bytes = Vec::new();
        command(&mut bytes, [b"XLEN".as_slice(), b"a\r\nb"]);
        assert_eq!(bytes, b"*2\r\n$4\r\nXLEN\r\n$4\r\na\r\nb\r\n");
    }
}
