//! Redis's replies to the model: pure, total, and deaf to fields it does not know.
//!
//! The redis crate, which is used for its URLs only, has typed replies for these commands; they drop fields, wrap a negative lag to
//! 18446744073709551517 and fail on a group whose name is not UTF-8, hence this decoder over [`Reply`].

use crate::lag::ledger::{Continuity, Page};
use crate::model::names::{self, Name, RawName};
use crate::model::sample::{ConsumerSample, GroupSample, ServerInfo, StreamSample};
use crate::model::{ConsumerName, EntryId, GroupName};
use crate::resp::{Items, Reply};

/// What is kept of a server's name, and of its version, in bytes.
const MAX_SERVER_BYTES: usize = 64;

/// A reply that is not what the command's documentation says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unexpected reply to {command}: {what}")]
pub struct DecodeError {
    /// The command that was answered.
    pub command: &'static str,
    /// What was missing or of the wrong kind.
    pub what: String,
}

type Decoded<T> = Result<T, DecodeError>;

/// `XINFO STREAM key`, without its groups.
///
/// # Errors
/// Where a field is missing or is not what it should be.
pub fn stream(reply: Reply<'_>) -> Decoded<StreamSample> {
    const COMMAND: &str = "XINFO STREAM";
    let [mut length, mut first, mut last, mut last_generated, mut added, mut deleted] = [None; 6];
    each_field(COMMAND, reply, |name, value| {
        let slot = match name {
            b"length" => &mut length,
            b"first-entry" => &mut first,
            b"last-entry" => &mut last,
            b"last-generated-id" => &mut last_generated,
            b"entries-added" => &mut added,
            b"max-deleted-entry-id" => &mut deleted,
            _ => return,
        };
        slot.get_or_insert(value);
    })?;
    let field = |name, value| Field { command: COMMAND, name, value };
    let length = field("length", length).count()?;
    let (first, last) = (field("first-entry", first), field("last-entry", last));
    let payload_bytes = first.payload_bytes().saturating_add(last.payload_bytes());
    let (first, last) = (first.entry()?, last.entry()?);
    if (length == 0) != (first.is_none() && last.is_none()) || first.is_some() != last.is_some() {
        let what = format!("a length of {length} with first entry {first:?} and last entry {last:?}");
        return Err(wrong(COMMAND, &what));
    }
    if first > last {
        return Err(wrong(COMMAND, &format!("first entry {first:?} after last entry {last:?}")));
    }
    Ok(StreamSample {
        length,
        first,
        last,
        last_generated: field("last-generated-id", last_generated).id()?,
        entries_added: field("entries-added", added).optional_count()?,
        max_deleted: field("max-deleted-entry-id", deleted).optional_id()?,
        payload_bytes,
        continuity: Continuity::Unknown,
        ..StreamSample::default()
    })
}

/// `XINFO GROUPS key`. `known` are the names of last time: those that are the same are not made anew.
///
/// # Errors
/// Where a field is missing or is not what it should be.
pub fn groups(reply: Reply<'_>, known: &[GroupName]) -> Decoded<Vec<GroupSample>> {
    const COMMAND: &str = "XINFO GROUPS";
    let mut known = Known::from(known);
    let decode = |reply| {
        let [mut name, mut consumers, mut pending, mut delivered, mut read, mut lag] = [None; 6];
        each_field(COMMAND, reply, |field, value| {
            let slot = match field {
                b"name" => &mut name,
                b"consumers" => &mut consumers,
                b"pending" => &mut pending,
                b"last-delivered-id" => &mut delivered,
                b"entries-read" => &mut read,
                b"lag" => &mut lag,
                _ => return,
            };
            slot.get_or_insert(value);
        })?;
        let field = |name, value| Field { command: COMMAND, name, value };
        Ok(GroupSample {
            name: known.name(field("name", name).raw_name()?),
            consumers: field("consumers", consumers).count()?,
            pending: field("pending", pending).count()?,
            last_delivered: field("last-delivered-id", delivered).id()?,
            entries_read: field("entries-read", read).optional_count()?,
            server_lag: field("lag", lag).optional_count()?,
            ..GroupSample::default()
        })
    };
    let groups: Vec<GroupSample> = items(COMMAND, reply)?.map(decode).collect::<Decoded<_>>()?;
    if known.another {
        each_once(COMMAND, groups.iter().map(|group| &group.name))?;
    }
    Ok(groups)
}

/// `XINFO CONSUMERS key group`. `known` are the names of last time: those that are the same are not made anew.
///
/// # Errors
/// Where a field is missing or is not what it should be.
pub fn consumers(reply: Reply<'_>, known: &[ConsumerName]) -> Decoded<Vec<ConsumerSample>> {
    const COMMAND: &str = "XINFO CONSUMERS";
    let mut known = Known::from(known);
    let decode = |reply| {
        let [mut name, mut pending, mut idle, mut inactive] = [None; 4];
        each_field(COMMAND, reply, |field, value| {
            let slot = match field {
                b"name" => &mut name,
                b"pending" => &mut pending,
                b"idle" => &mut idle,
                b"inactive" => &mut inactive,
                _ => return,
            };
            slot.get_or_insert(value);
        })?;
        let field = |name, value| Field { command: COMMAND, name, value };
        Ok(ConsumerSample {
            name: known.name(field("name", name).raw_name()?),
            pending: field("pending", pending).count()?,
            // A server's clock that steps back makes this negative for a moment.
            idle_ms: field("idle", idle).optional_count()?.unwrap_or(0),
            inactive_ms: field("inactive", inactive).optional_count()?,
        })
    };
    let consumers: Vec<ConsumerSample> = items(COMMAND, reply)?.map(decode).collect::<Decoded<_>>()?;
    if known.another {
        each_once(COMMAND, consumers.iter().map(|consumer| &consumer.name))?;
    }
    Ok(consumers)
}

/// `XPENDING key group - + 1`: the smallest pending id, and the consumer that holds it.
///
/// # Errors
/// Where the reply is not a list of pending entries.
pub fn oldest_pending(reply: Reply<'_>) -> Decoded<Option<(EntryId, ConsumerName)>> {
    const COMMAND: &str = "XPENDING";
    let Some(first) = items(COMMAND, reply)?.next() else { return Ok(None) };
    let Some(mut parts) = first.list() else {
        return Err(wrong(COMMAND, &format!("{} where a pending entry belongs", first.kind())));
    };
    match (parts.next().and_then(Reply::bytes).and_then(EntryId::parse), parts.next()) {
        (Some(id), Some(consumer)) => {
            let consumer = consumer.name().ok_or_else(|| wrong(COMMAND, "a consumer without a name"))?;
            Ok(Some((id, consumer.into())))
        }
        _ => Err(wrong(COMMAND, "an entry without id and consumer")),
    }
}

/// `XLEN key`.
///
/// # Errors
/// Where the reply is not a number.
pub fn length(reply: Reply<'_>) -> Decoded<u64> {
    count(reply).ok_or_else(|| wrong("XLEN", &format!("{}, not a count", reply.kind())))
}

/// `XPENDING key group start end count`: how many pending entries there are.
///
/// # Errors
/// Where the reply is not a list.
pub fn pending_count(reply: Reply<'_>) -> Decoded<u64> {
    Ok(items("XPENDING", reply)?.len() as u64)
}

/// `XRANGE key start end COUNT limit`: the entries counted, up to the id `to` and beyond it, and their size in bytes.
///
/// # Errors
/// Where the reply is not a list of entries.
pub fn range(reply: Reply<'_>, to: EntryId, limit: u64, with_ids: bool) -> Decoded<(Page, u64)> {
    let mut page = Page::default();
    let entries = items("XRANGE", reply)?;
    let told = entries.len() as u64;
    let mut size = 0;
    let mut before = None;
    for entry in entries {
        let id = entry_id(entry).ok_or_else(|| wrong("XRANGE", "an entry without an id"))?;
        // A count of what is out of order, or there twice, would be called exact.
        if before.replace(id) >= Some(id) {
            return Err(wrong("XRANGE", "entries out of order"));
        }
        page.first = page.first.or(Some(id));
        if with_ids {
            page.ids.push(id);
        }
        if id <= to {
            page.entries += 1;
            page.last = Some(id);
        } else {
            page.beyond += 1;
        }
        size = payload_bytes(entry).saturating_add(size);
    }
    page.ended = told < limit;
    Ok((page, size))
}

/// `XRANGE key start + COUNT 1`: the first entry's id.
///
/// # Errors
/// Where the reply is not a list of entries.
pub fn first_in_range(reply: Reply<'_>) -> Decoded<Option<EntryId>> {
    let Some(entry) = items("XRANGE", reply)?.next() else { return Ok(None) };
    entry_id(entry).map(Some).ok_or_else(|| wrong("XRANGE", "an entry without an id"))
}

/// `TIME`: milliseconds since the Unix epoch.
///
/// # Errors
/// Where the reply is not two numbers.
pub fn time(reply: Reply<'_>) -> Decoded<u64> {
    const COMMAND: &str = "TIME";
    let mut parts = items(COMMAND, reply)?;
    let (Some(seconds), Some(micros)) = (parts.next(), parts.next()) else {
        return Err(wrong(COMMAND, "fewer than two numbers"));
    };
    match (count(seconds), count(micros)) {
        (Some(seconds), Some(micros)) => Ok(seconds.saturating_mul(1000).saturating_add(micros / 1000)),
        _ => Err(wrong(COMMAND, "something that is not a number")),
    }
}

/// `HELLO`: who answers.
///
/// # Errors
/// Where the reply is not a list of fields.
pub fn hello(reply: Reply<'_>) -> Decoded<ServerInfo> {
    const COMMAND: &str = "HELLO";
    let [mut server, mut version] = [None; 2];
    each_field(COMMAND, reply, |name, value| {
        let slot = match name {
            b"server" => &mut server,
            b"version" => &mut version,
            _ => return,
        };
        slot.get_or_insert(value);
    })?;
    let text = |name, value| {
        let field = Field { command: COMMAND, name, value };
        field.raw_name().map(|text| match text {
            RawName::Whole(bytes) => names::text(bytes, MAX_SERVER_BYTES),
            RawName::Cut { head, .. } => names::text(head, MAX_SERVER_BYTES),
        })
    };
    Ok(ServerInfo { name: text("server", server)?, version: text("version", version)? })
}

/// Whether the answer to `HELLO` is a sentinel's.
#[must_use]
pub fn is_sentinel(reply: Reply<'_>) -> bool {
    let mut mode = None;
    let read = each_field("HELLO", reply, |name, value| {
        if name == b"mode" {
            mode = value.bytes();
        }
    });
    read.is_ok() && mode == Some(b"sentinel")
}

/// `SCAN`: the cursor to go on from, 0 at the end, and the keys.
///
/// # Errors
/// Where the reply is not a cursor and a list of keys.
pub fn scan(reply: Reply<'_>) -> Decoded<(u64, impl Iterator<Item = RawName<'_>>)> {
    const COMMAND: &str = "SCAN";
    let mut parts = items(COMMAND, reply)?;
    // The cursor takes all 64 bits.
    let cursor = parts.next().and_then(Reply::bytes).and_then(|digits| str::from_utf8(digits).ok()?.parse().ok());
    match (cursor, parts.next().and_then(Reply::list)) {
        (Some(cursor), Some(keys)) => Ok((cursor, keys.filter_map(Reply::name))),
        _ => Err(wrong(COMMAND, "something that is no cursor with keys")),
    }
}

/// Calls with each field of a reply: name, value, name, value, …
fn each_field<'a>(command: &'static str, reply: Reply<'a>, mut take: impl FnMut(&'a [u8], Reply<'a>)) -> Decoded<()> {
    let fields = reply.list().filter(|fields| fields.len() % 2 == 0);
    let Some(mut fields) = fields else {
        return Err(wrong(command, &format!("{} where fields belong", reply.kind())));
    };
    while let (Some(name), Some(value)) = (fields.next(), fields.next()) {
        if let Some(name) = name.bytes() {
            take(name, value);
        }
    }
    Ok(())
}

/// One field of a reply, if it is there.
#[derive(Clone, Copy)]
struct Field<'a> {
    command: &'static str,
    name: &'static str,
    value: Option<Reply<'a>>,
}

impl<'a> Field<'a> {
    #[inline]
    fn need(self) -> Decoded<Reply<'a>> {
        self.value.ok_or_else(|| wrong(self.command, &format!("no field {}", self.name)))
    }

    /// The value, where it is neither missing nor nil.
    fn told(self) -> Option<Reply<'a>> {
        self.value.filter(|value| !value.is_nil())
    }

    /// A count that must be there.
    #[inline]
    fn count(self) -> Decoded<u64> {
        let value = self.need()?;
        count(value).ok_or_else(|| self.wrong(&format!("is {}, not a count", value.kind())))
    }

    /// A count that older servers do not tell, and others only sometimes. A negative one is an unknown one: servers
    /// answer `-1` for "never", and a negative lag where their own arithmetic broke.
    #[inline]
    fn optional_count(self) -> Decoded<Option<u64>> {
        match self.told() {
            Some(value) if value.int().is_none_or(|number| number >= 0) => self.count().map(Some),
            _ => Ok(None),
        }
    }

    fn id(self) -> Decoded<EntryId> {
        let id = self.need()?.bytes().and_then(EntryId::parse);
        id.ok_or_else(|| self.wrong("is not an entry id"))
    }

    fn optional_id(self) -> Decoded<Option<EntryId>> {
        self.told().map(|_| self.id()).transpose()
    }

    /// The id of an entry, `[id, [field, value, …]]`, or nil.
    fn entry(self) -> Decoded<Option<EntryId>> {
        let value = self.need()?;
        if value.is_nil() {
            return Ok(None);
        }
        entry_id(value).map(Some).ok_or_else(|| self.wrong("is not an entry"))
    }

    fn payload_bytes(self) -> u64 {
        self.value.map_or(0, payload_bytes)
    }

    #[inline]
    fn raw_name(self) -> Decoded<RawName<'a>> {
        self.need()?.name().ok_or_else(|| self.wrong("is not a string"))
    }

    fn wrong(self, what: &str) -> DecodeError {
        wrong(self.command, &format!("{} {what}", self.name))
    }
}

/// The names of last time, each of which was there once. Redis lists names in order, and mostly they are the same.
struct Known<'a, N> {
    names: &'a [N],
    next: usize,
    /// Whether there was a name that was not the next one of last time.
    another: bool,
}

impl<'a, N> From<&'a [N]> for Known<'a, N> {
    fn from(names: &'a [N]) -> Self {
        Self { names, next: 0, another: false }
    }
}

impl<N: Name> Known<'_, N> {
    fn name(&mut self, name: RawName<'_>) -> N {
        let next = self.names.get(self.next);
        if let (Some(next), RawName::Whole(bytes)) = (next, name)
            && next.plain() == Some(bytes)
        {
            self.next += 1;
            return next.clone();
        }
        let made = N::from(name);
        let is_next = next == Some(&made);
        self.another |= !is_next;
        let place = if is_next { Some(self.next) } else { self.names.binary_search(&made).ok() };
        self.next = place.map_or(self.next, |place| place + 1);
        // The one of last time is shared.
        place.map_or(made, |place| self.names[place].clone())
    }
}

fn wrong(command: &'static str, what: &str) -> DecodeError {
    DecodeError { command, what: what.to_owned() }
}

fn items<'a>(command: &'static str, reply: Reply<'a>) -> Decoded<Items<'a>> {
    reply.list().ok_or_else(|| wrong(command, &format!("{} where a list belongs", reply.kind())))
}

/// Names are labels: one of them twice would be one series twice, for which Prometheus refuses the whole page.
fn each_once<'a, N: Name + 'a>(command: &'static str, names: impl Iterator<Item = &'a N> + Clone) -> Decoded<()> {
    // Redis lists them in order, and then no name is there twice.
    if names.clone().is_sorted_by(|one, next| one < next) {
        return Ok(());
    }
    let mut names: Vec<&N> = names.collect();
    names.sort_unstable();
    if names.windows(2).any(|pair| pair[0] == pair[1]) { Err(wrong(command, "the same name twice")) } else { Ok(()) }
}

/// Bytes in an entry's fields: what Redis sent, or the number that a script put in their place.
fn payload_bytes(entry: Reply<'_>) -> u64 {
    let Some(size) = entry.list().and_then(|mut parts| parts.nth(1)) else { return 0 };
    match size.list() {
        Some(fields) => fields.filter_map(Reply::text_length).fold(0, u64::saturating_add),
        None => count(size).unwrap_or(0),
    }
}

fn entry_id(entry: Reply<'_>) -> Option<EntryId> {
    entry.list()?.next().and_then(Reply::bytes).and_then(EntryId::parse)
}

#[inline]
fn count(value: Reply<'_>) -> Option<u64> {
    if let Some(number) = value.int() {
        return u64::try_from(number).ok();
    }
    // Some replies carry numbers as text. Redis's are signed: what does not fit has wrapped.
    let digits = std::str::from_utf8(value.bytes()?).ok()?;
    let number: i64 = digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())??;
    u64::try_from(number).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::resp::Replies;
    use crate::resp::tests::whole;

    /// A value as Redis would send it.
    #[derive(Clone, Debug)]
    enum Value {
        Nil,
        Okay,
        Int(i64),
        BulkString(Vec<u8>),
        Array(Vec<Value>),
    }

    impl Value {
        fn write(&self, bytes: &mut Vec<u8>) {
            match self {
                Self::Nil => bytes.extend(b"$-1\r\n"),
                Self::Okay => bytes.extend(b"+OK\r\n"),
                Self::Int(number) => bytes.extend(format!(":{number}\r\n").bytes()),
                Self::BulkString(text) => {
                    bytes.extend(format!("${}\r\n", text.len()).bytes());
                    bytes.extend(text);
                    bytes.extend(b"\r\n");
                }
                Self::Array(items) => {
                    bytes.extend(format!("*{}\r\n", items.len()).bytes());
                    items.iter().for_each(|item| item.write(bytes));
                }
            }
        }

        fn sent(&self) -> Replies {
            let mut bytes = Vec::new();
            self.write(&mut bytes);
            whole(&bytes)
        }
    }

    fn root(replies: &Replies) -> Reply<'_> {
        replies.iter().next().unwrap()
    }

    fn text(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    fn flat(fields: &[(&str, Value)]) -> Value {
        Value::Array(fields.iter().flat_map(|(name, value)| [text(name), value.clone()]).collect())
    }

    fn entry(id: &str) -> Value {
        Value::Array(vec![text(id), Value::Array(vec![text("field"), text("payload")])])
    }

    fn stream_fields() -> Vec<(&'static str, Value)> {
        vec![
            ("length", Value::Int(2)),
            ("radix-tree-keys", Value::Int(1)),
            ("last-generated-id", text("9-1")),
            ("max-deleted-entry-id", text("3-0")),
            ("entries-added", Value::Int(i64::MAX)),
            ("a-field-of-the-future", Value::Array(vec![Value::Nil])),
            ("groups", Value::Int(1)),
            ("first-entry", entry("4-0")),
            ("last-entry", entry("9-1")),
        ]
    }

    fn with(name: &str, value: Value) -> Vec<(&'static str, Value)> {
        let mut fields = stream_fields();
        fields.iter_mut().find(|(field, _)| *field == name).unwrap().1 = value;
        fields
    }

    #[test]
    fn stream_of_every_generation() {
        let expected = StreamSample {
            length: 2,
            first: Some(EntryId { ms: 4, seq: 0 }),
            last: Some(EntryId { ms: 9, seq: 1 }),
            last_generated: EntryId { ms: 9, seq: 1 },
            entries_added: Some(i64::MAX as u64),
            max_deleted: Some(EntryId { ms: 3, seq: 0 }),
            payload_bytes: 24,
            ..StreamSample::default()
        };
        assert_eq!(stream(root(&flat(&stream_fields()).sent())), Ok(expected.clone()));
        let mut old = stream_fields();
        old.retain(|(name, _)| !["max-deleted-entry-id", "entries-added"].contains(name));
        assert_eq!(
            stream(root(&flat(&old).sent())),
            Ok(StreamSample { entries_added: None, max_deleted: None, ..expected })
        );
    }

    #[test]
    fn stream_replies_that_cannot_be() {
        let check = |fields: &[(&'static str, Value)], expected: &str| {
            let error = stream(root(&flat(fields).sent())).unwrap_err().to_string();
            assert!(error.contains(expected), "{error:?} lacks {expected:?}");
        };
        check(&with("length", Value::Int(-1)), "length is a number, not a count");
        check(&with("length", Value::Int(0)), "a length of 0 with first entry");
        check(&with("first-entry", Value::Nil), "a length of 2 with first entry None");
        check(&with("first-entry", entry("99-0")), "after last entry");
        check(&with("first-entry", entry("nonsense")), "first-entry is not an entry");
        check(&with("last-generated-id", Value::Int(3)), "last-generated-id is not an entry id");
        check(&stream_fields()[1..], "no field length");
        assert!(stream(root(&Value::Okay.sent())).is_err());
        assert!(stream(root(&Value::Array(vec![text("length")]).sent())).is_err());
    }

    #[test]
    fn groups_keep_what_the_server_knows_and_never_wrap() {
        let group = |lag: Value, read: Value| {
            flat(&[
                ("name", Value::BulkString(b"bad\xff".to_vec())),
                ("consumers", Value::Int(1)),
                ("pending", Value::Int(i64::MAX)),
                ("last-delivered-id", text("5-0")),
                ("entries-read", read),
                ("lag", lag),
            ])
        };
        let decoded = |lag, read| groups(root(&Value::Array(vec![group(lag, read)]).sent()), &[]).unwrap().remove(0);
        let known = decoded(Value::Int(7), Value::Int(3));
        assert_eq!(known.name.as_bytes(), b"bad\xff");
        assert_eq!((known.server_lag, known.entries_read, known.pending), (Some(7), Some(3), i64::MAX as u64));
        let unknown = decoded(Value::Nil, Value::Nil);
        assert_eq!((unknown.server_lag, unknown.entries_read), (None, None));
        let negative = decoded(Value::Int(-99), Value::Int(-1));
        assert_eq!((negative.server_lag, negative.entries_read), (None, None));
    }

    #[test]
    fn a_name_twice_is_no_reply() {
        let group = |name| {
            flat(&[
                ("name", text(name)),
                ("consumers", Value::Int(0)),
                ("pending", Value::Int(0)),
                ("last-delivered-id", text("0-0")),
            ])
        };
        let consumer = |name| flat(&[("name", text(name)), ("pending", Value::Int(0)), ("idle", Value::Int(0))]);
        assert_eq!(groups(root(&Value::Array(["b", "a", "c"].map(group).to_vec()).sent()), &[]).unwrap().len(), 3);
        assert!(groups(root(&Value::Array(["b", "a", "b"].map(group).to_vec()).sent()), &[]).is_err());
        assert_eq!(
            consumers(root(&Value::Array(["b", "a", "c"].map(consumer).to_vec()).sent()), &[]).unwrap().len(),
            3
        );
        assert!(consumers(root(&Value::Array(["b", "a", "b"].map(consumer).to_vec()).sent()), &[]).is_err());
    }

    #[test]
    fn numbers_in_text_are_digits_and_have_not_wrapped() {
        let check = |number, expected| assert_eq!(length(root(&text(number).sent())).ok(), expected, "{number}");
        check("0", Some(0));
        check("9223372036854775807", Some(i64::MAX as u64));
        for wrong in ["", "+1", "-1", " 1", "1.0", "9223372036854775808", "18446744073709551517"] {
            check(wrong, None);
        }
    }

    #[test]
    fn consumers_inactive_is_absent_where_never_or_not_told() {
        let consumer = |inactive: Option<i64>| {
            let mut fields = vec![("name", text("c")), ("pending", Value::Int(0)), ("idle", Value::Int(12))];
            fields.extend(inactive.map(|ms| ("inactive", Value::Int(ms))));
            consumers(root(&Value::Array(vec![flat(&fields)]).sent()), &[]).unwrap().remove(0).inactive_ms
        };
        assert_eq!(consumer(None), None);
        assert_eq!(consumer(Some(-1)), None);
        assert_eq!(consumer(Some(8)), Some(8));
    }

    #[test]
    fn a_range_is_counted_up_to_an_id_and_beyond_it() {
        let check =
            |entries: &[Value], to, limit| range(root(&Value::Array(entries.to_vec()).sent()), to, limit, false);
        let reply = ["1-0", "2-0", "3-0"].map(entry);
        let id = |ms| EntryId { ms, seq: 0 };
        let page = Page { entries: 2, beyond: 1, first: Some(id(1)), last: Some(id(2)), ..Page::default() };
        assert_eq!(check(&reply, id(2), 3), Ok((page.clone(), 36)));
        assert_eq!(check(&reply, id(2), 4), Ok((Page { ended: true, ..page }, 36)));
        assert_eq!(check(&[], id(2), 4), Ok((Page { ended: true, ..Page::default() }, 0)));
        assert!(range(root(&Value::Nil.sent()), id(2), 4, false).is_err());
        assert!(check(&[entry("2-0"), entry("1-0")], id(2), 4).is_err());
        assert!(check(&[entry("2-0"), entry("2-0")], id(2), 4).is_err());
    }

    #[test]
    fn names_of_last_time_are_not_made_anew() {
        fn consumer(name: &str) -> Value {
            flat(&[("name", text(name)), ("pending", Value::Int(0)), ("idle", Value::Int(0))])
        }
        let decoded = |names: &[&str], known: &[ConsumerName]| -> Vec<ConsumerName> {
            let reply = Value::Array(names.iter().map(|name| consumer(name)).collect()).sent();
            consumers(root(&reply), known).unwrap().into_iter().map(|consumer| consumer.name).collect()
        };
        let before = decoded(&["a", "b", "d"], &[]);
        let after = decoded(&["a", "c", "d"], &before);
        assert_eq!(after, ["a", "c", "d"].map(ConsumerName::from));
        let same = |one: &ConsumerName, other: &ConsumerName| std::ptr::eq(one.as_bytes(), other.as_bytes());
        assert!(same(&after[0], &before[0]) && same(&after[2], &before[2]));
        // Long ones, one that is cut as it comes, and one that is named as it is shown.
        let [long, longer] = [300, 20_000].map(|length| "x".repeat(length));
        let shown = ConsumerName::from(longer.as_str()).shown().into_owned();
        let names = ["a", &long, &longer, &shown];
        let before = decoded(&names, &[]);
        assert_eq!(before, names.map(ConsumerName::from));
        let after = decoded(&names, &before);
        assert!(before.iter().zip(&after).all(|(before, after)| same(before, after)), "{after:?}");
        let after = decoded(&[&shown], &before[..3]);
        assert_eq!(after, [ConsumerName::from(shown.as_str())]);
        assert_ne!(after[0].shown(), shown);
        let twice = Value::Array(vec![consumer(&longer), consumer("a"), consumer(&longer)]).sent();
        assert!(consumers(root(&twice), &[]).is_err());
    }

    #[test]
    fn the_small_replies() {
        let pending = Value::Array(vec![Value::Array(vec![text("5-1"), text("c"), Value::Int(1), Value::Int(1)])]);
        assert_eq!(oldest_pending(root(&pending.sent())), Ok(Some((EntryId { ms: 5, seq: 1 }, "c".into()))));
        assert_eq!(pending_count(root(&pending.sent())), Ok(1));
        assert_eq!(oldest_pending(root(&Value::Array(vec![]).sent())), Ok(None));
        let entries = Value::Array(vec![entry("7-7")]);
        assert_eq!(first_in_range(root(&entries.sent())), Ok(Some(EntryId { ms: 7, seq: 7 })));
        assert_eq!(time(root(&Value::Array(vec![text("12"), text("345678")]).sent())), Ok(12_345));
        assert!(time(root(&Value::Array(vec![text("12")]).sent())).is_err());
        let reply = flat(&[("server", text("redis")), ("version", text("7.0.15")), ("proto", Value::Int(2))]);
        assert_eq!(hello(root(&reply.sent())), Ok(ServerInfo { name: "redis".into(), version: "7.0.15".into() }));
        let reply = flat(&[("server", text(&"s".repeat(20_000))), ("version", text(&"7".repeat(65)))]);
        let server = hello(root(&reply.sent())).unwrap();
        assert_eq!(server.name, "s".repeat(MAX_SERVER_BYTES) + "…");
        assert_eq!(server.version, "7".repeat(MAX_SERVER_BYTES) + "…");
        let found = Value::Array(vec![text("18446744073709551615"), Value::Array(vec![text("a"), text("b")])]).sent();
        let (cursor, keys) = scan(root(&found)).unwrap();
        assert_eq!((cursor, keys.collect::<Vec<_>>()), (u64::MAX, vec![RawName::Whole(b"a"), RawName::Whole(b"b")]));
        assert!(scan(root(&Value::Array(vec![text("x"), Value::Array(vec![])]).sent())).is_err());
    }

    /// Any value at all, a few levels deep.
    fn any_value() -> impl Strategy<Value = Value> {
        let field = prop::sample::select(vec![
            "name",
            "length",
            "groups",
            "pending",
            "lag",
            "idle",
            "first-entry",
            "last-entry",
            "last-generated-id",
            "1-1",
        ]);
        let leaf = prop_oneof![
            Just(Value::Nil),
            Just(Value::Okay),
            any::<i64>().prop_map(Value::Int),
            prop::collection::vec(any::<u8>(), 0..8).prop_map(Value::BulkString),
            field.prop_map(text),
        ];
        leaf.prop_recursive(4, 64, 12, |inner| prop::collection::vec(inner, 0..12).prop_map(Value::Array))
    }

    proptest! {
        #[test]
        fn no_reply_panics(value in any_value()) {
            let sent = value.sent();
            let value = root(&sent);
            let _ = (stream(value), groups(value, &[]), consumers(value, &[]), oldest_pending(value));
            let _ = (range(value, EntryId::default(), 3, true), pending_count(value), scan(value).map(drop));
            let _ = (first_in_range(value), time(value), hello(value));
        }
    }
}
