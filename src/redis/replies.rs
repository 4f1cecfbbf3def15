//! Decodes Redis's replies into the model: pure, total; unknown fields are ignored.
//!
//! A field that cannot be (a negative count, an id that is none, ids out of order, a value of another type) becomes unknown, and
//! everything else is read: servers that are compatible with Redis answer such things, and Redis itself did. Only a reply without
//! what nothing can be said without is an error, which names the field.
//!
//! The redis crate has typed replies for these commands; they drop fields, wrap a negative lag to 18446744073709551517 and fail on a
//! group whose name is not UTF-8, hence this decoder over [`Reply`].

use crate::model::lag::EntryPage;
use crate::model::names::{self, Name, RawName};
use crate::model::reply::{ConsumerReply, GroupReply, OldestPending, StreamReply, UnknownFields};
use crate::model::sample::ServerInfo;
use crate::model::{ConsumerName, EntryId, GroupName};
use crate::redis::resp::{Items, Reply};

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
/// Where there is no usable length, or it contradicts the entries.
pub fn stream(reply: Reply<'_>) -> Decoded<StreamReply> {
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
    let length = needed_count(COMMAND, "length", length)?;
    let payload_bytes = [first, last].into_iter().flatten().map(payload_bytes).fold(0, u64::saturating_add);
    let (first, last) = match (first.and_then(entry_id), last.and_then(entry_id)) {
        (first, last) if length == 0 => {
            // Either the length or the entry is wrong, and which is unknown: it must not become 0.
            if let Some(id) = first.or(last) {
                return Err(wrong(COMMAND, &format!("length is 0, with an entry {id}")));
            }
            (None, None)
        }
        (Some(first), Some(last)) if first <= last => (Some(first), Some(last)),
        _ => (None, None),
    };
    // The last entry is there for all to see: an id below it is not the last one given out.
    let last_generated = last_generated.and_then(id).max(last).unwrap_or_default();
    Ok(StreamReply {
        length,
        first,
        last,
        ends_unknown: length > 0 && first.is_none(),
        last_generated,
        entries_added: added.and_then(count).filter(|added| *added >= length),
        max_deleted: deleted.and_then(id),
        payload_bytes,
    })
}

/// `XINFO GROUPS key`. `known` are the names of last time: those that are the same are not allocated again.
///
/// # Errors
/// Where the reply is no list of groups, or a group has no name, or two have the same.
pub fn groups(reply: Reply<'_>, known: &[GroupName]) -> Decoded<Vec<GroupReply>> {
    const COMMAND: &str = "XINFO GROUPS";
    let mut known = KnownNames::from(known);
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
        let consumers = consumers.and_then(count);
        let pending = pending.and_then(count);
        let delivered = delivered.and_then(id);
        Ok(GroupReply {
            name: known.name(needed_name(COMMAND, name)?),
            consumers: consumers.unwrap_or_default(),
            pending: pending.unwrap_or_default(),
            last_delivered: delivered.unwrap_or_default(),
            entries_read: read.and_then(count),
            server_lag: lag.and_then(count),
            unknown: UnknownFields {
                consumers: consumers.is_none(),
                pending: pending.is_none(),
                last_delivered: delivered.is_none(),
            },
            ..GroupReply::default()
        })
    };
    let groups = all(items(COMMAND, reply)?, decode)?;
    if known.another {
        each_once(COMMAND, groups.iter().map(|group| &group.name))?;
    }
    Ok(groups)
}

/// `XINFO CONSUMERS key group`. `known` are the names of last time: those that are the same are not allocated again.
///
/// # Errors
/// Where the reply is no list of consumers, or a consumer has no name, or two have the same.
pub fn consumers(reply: Reply<'_>, known: &[ConsumerName]) -> Decoded<Vec<ConsumerReply>> {
    const COMMAND: &str = "XINFO CONSUMERS";
    let mut known = KnownNames::from(known);
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
        Ok(ConsumerReply {
            name: known.name(needed_name(COMMAND, name)?),
            pending: pending.and_then(count),
            idle_ms: idle.and_then(count),
            inactive_ms: inactive.and_then(count),
        })
    };
    let consumers = all(items(COMMAND, reply)?, decode)?;
    if known.another {
        each_once(COMMAND, consumers.iter().map(|consumer| &consumer.name))?;
    }
    Ok(consumers)
}

/// `XPENDING key group - + 1`: the smallest pending id, the consumer that holds it, and how often it was delivered.
///
/// An entry that was released by `XNACK` (Redis 8.8) has no consumer: its consumer is the empty text and its idle time -1. With
/// another idle time, the empty text is a name that a consumer was given.
///
/// # Errors
/// Where the reply is not a list of pending entries.
pub fn oldest_pending(reply: Reply<'_>) -> Decoded<Option<OldestPending>> {
    const COMMAND: &str = "XPENDING";
    let Some(first) = items(COMMAND, reply)?.next() else { return Ok(None) };
    let Some(mut parts) = first.list() else {
        return Err(wrong(COMMAND, &format!("{} where a pending entry belongs", first.kind())));
    };
    let id = parts.next().and_then(id);
    let id = id.ok_or_else(|| wrong(COMMAND, "a pending entry without an id"))?;
    let name = parts.next().and_then(Reply::name);
    let idle = parts.next().and_then(Reply::int);
    let is_released = name == Some(RawName::Whole(b"")) && idle.is_some_and(|idle| idle < 0);
    Ok(Some(OldestPending {
        id,
        consumer: name.filter(|_| !is_released).map(ConsumerName::from),
        deliveries: parts.next().and_then(count),
    }))
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

/// `XRANGE key start end COUNT limit`: the entries counted, up to the id `to` and beyond it.
///
/// # Errors
/// Where the reply is not a list of entries.
pub fn range(reply: Reply<'_>, to: EntryId, limit: u64, with_ids: bool) -> Decoded<EntryPage> {
    let mut page = EntryPage::default();
    let entries = items("XRANGE", reply)?;
    let told = entries.len() as u64;
    if told > limit {
        return Err(wrong("XRANGE", "more entries than were asked for"));
    }
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
        page.bytes = payload_bytes(entry).saturating_add(page.bytes);
    }
    page.ended = told < limit;
    Ok(page)
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
/// What a server does not tell is empty.
///
/// # Errors
/// Where the reply is not a list of fields.
pub fn hello(reply: Reply<'_>) -> Decoded<ServerInfo> {
    const COMMAND: &str = "HELLO";
    let [mut server, mut version, mut dragonfly] = [None; 3];
    each_field(COMMAND, reply, |name, value| {
        let slot = match name {
            b"server" => &mut server,
            b"version" => &mut version,
            b"dragonfly_version" => &mut dragonfly,
            _ => return,
        };
        slot.get_or_insert(value);
    })?;
    let text = |value: Option<Reply<'_>>| match value.and_then(Reply::name) {
        Some(RawName::Whole(bytes)) => names::text(bytes, MAX_SERVER_BYTES),
        Some(RawName::Cut { head, .. }) => names::text(head, MAX_SERVER_BYTES),
        None => String::new(),
    };
    if dragonfly.is_some() {
        return Ok(ServerInfo { name: ServerInfo::DRAGONFLY.to_owned(), version: text(dragonfly) });
    }
    Ok(ServerInfo { name: text(server), version: text(version) })
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

/// A count that must be there.
fn needed_count(command: &'static str, name: &str, value: Option<Reply<'_>>) -> Decoded<u64> {
    let value = value.ok_or_else(|| missing(command, name))?;
    count(value).ok_or_else(|| wrong(command, &format!("{name} is {}, not a count", value.kind())))
}

/// A name that must be there.
#[inline]
fn needed_name<'a>(command: &'static str, value: Option<Reply<'a>>) -> Decoded<RawName<'a>> {
    let value = value.ok_or_else(|| missing(command, "name"))?;
    value.name().ok_or_else(|| wrong(command, "name is not a string"))
}

fn missing(command: &'static str, name: &str) -> DecodeError {
    wrong(command, &format!("no field {name}"))
}

/// The names of last time, each of which was there once. Redis lists names in order, and mostly they are the same.
struct KnownNames<'a, N> {
    names: &'a [N],
    next: usize,
    /// Whether there was a name that was not the next one of last time.
    another: bool,
}

impl<'a, N> From<&'a [N]> for KnownNames<'a, N> {
    fn from(names: &'a [N]) -> Self {
        Self { names, next: 0, another: false }
    }
}

impl<N: Name> KnownNames<'_, N> {
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

/// Every item, decoded. A list takes no more memory than it has items.
fn all<'a, T>(items: Items<'a>, mut decode: impl FnMut(Reply<'a>) -> Decoded<T>) -> Decoded<Vec<T>> {
    let mut all = Vec::with_capacity(items.len());
    for item in items {
        all.push(decode(item)?);
    }
    Ok(all)
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

/// The id of an entry, `[id, [field, value, …]]`.
fn entry_id(entry: Reply<'_>) -> Option<EntryId> {
    entry.list()?.next().and_then(id)
}

/// An id, where the server tells one.
#[inline]
fn id(value: Reply<'_>) -> Option<EntryId> {
    value.bytes().and_then(EntryId::parse)
}

/// A count, where the server tells one that can be. Older servers do not tell some, and others only sometimes; a negative one is an
/// unknown one: servers answer `-1` for "never", and a negative lag where their own arithmetic broke.
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

/// What a server is, as `ROLE` says: `master`, `slave` or `sentinel`. `None` where it would not say.
pub(crate) fn role(reply: Reply<'_>) -> Option<&str> {
    std::str::from_utf8(reply.list()?.next()?.bytes()?).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::redis::resp::ReplyReader;
    use crate::redis::resp::tests::whole;

    /// A value as Redis would send it.
    #[derive(Clone, Debug)]
    enum SentValue {
        Nil,
        Okay,
        Int(i64),
        /// A number that has wrapped: it does not fit into 64 bits with a sign.
        Wrapped(u64),
        BulkString(Vec<u8>),
        Array(Vec<SentValue>),
    }

    impl SentValue {
        fn write(&self, bytes: &mut Vec<u8>) {
            match self {
                Self::Nil => bytes.extend(b"$-1\r\n"),
                Self::Okay => bytes.extend(b"+OK\r\n"),
                Self::Wrapped(number) => bytes.extend(format!(":{number}\r\n").bytes()),
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

        fn sent(&self) -> ReplyReader {
            let mut bytes = Vec::new();
            self.write(&mut bytes);
            whole(&bytes)
        }
    }

    fn root(replies: &ReplyReader) -> Reply<'_> {
        replies.iter().next().unwrap()
    }

    fn text(text: &str) -> SentValue {
        SentValue::BulkString(text.as_bytes().to_vec())
    }

    fn flat(fields: &[(&str, SentValue)]) -> SentValue {
        SentValue::Array(fields.iter().flat_map(|(name, value)| [text(name), value.clone()]).collect())
    }

    fn entry(id: &str) -> SentValue {
        SentValue::Array(vec![text(id), SentValue::Array(vec![text("field"), text("payload")])])
    }

    fn stream_fields() -> Vec<(&'static str, SentValue)> {
        vec![
            ("length", SentValue::Int(2)),
            ("radix-tree-keys", SentValue::Int(1)),
            ("last-generated-id", text("9-1")),
            ("max-deleted-entry-id", text("3-0")),
            ("entries-added", SentValue::Int(i64::MAX)),
            ("a-field-of-the-future", SentValue::Array(vec![SentValue::Nil])),
            ("groups", SentValue::Int(1)),
            ("first-entry", entry("4-0")),
            ("last-entry", entry("9-1")),
        ]
    }

    fn with(name: &str, value: SentValue) -> Vec<(&'static str, SentValue)> {
        let mut fields = stream_fields();
        fields.iter_mut().find(|(field, _)| *field == name).unwrap().1 = value;
        fields
    }

    #[test]
    fn stream_of_every_generation() {
        let expected = StreamReply {
            length: 2,
            first: Some(EntryId { ms: 4, seq: 0 }),
            last: Some(EntryId { ms: 9, seq: 1 }),
            last_generated: EntryId { ms: 9, seq: 1 },
            entries_added: Some(i64::MAX as u64),
            max_deleted: Some(EntryId { ms: 3, seq: 0 }),
            payload_bytes: 24,
            ..StreamReply::default()
        };
        assert_eq!(stream(root(&flat(&stream_fields()).sent())), Ok(expected));
        let mut old = stream_fields();
        old.retain(|(name, _)| !["max-deleted-entry-id", "entries-added"].contains(name));
        assert_eq!(
            stream(root(&flat(&old).sent())),
            Ok(StreamReply { entries_added: None, max_deleted: None, ..expected })
        );
    }

    #[test]
    fn a_stream_without_a_usable_length_is_an_error_that_names_it() {
        let check = |fields: &[(&'static str, SentValue)], expected: &str| {
            let error = stream(root(&flat(fields).sent())).unwrap_err().to_string();
            assert!(error.contains(expected), "{error:?} lacks {expected:?}");
        };
        check(&with("length", SentValue::Int(-1)), "length is a number, not a count");
        check(
            &with("length", SentValue::Wrapped(u64::MAX - 7)),
            "length is a number that does not fit 64 bits, not a count",
        );
        check(&with("length", SentValue::Nil), "length is nil, not a count");
        check(&with("length", SentValue::Int(0)), "length is 0, with an entry 4-0");
        check(&stream_fields()[1..], "no field length");
        assert!(stream(root(&SentValue::Okay.sent())).is_err());
        assert!(stream(root(&SentValue::Array(vec![text("length")]).sent())).is_err());
    }

    /// Of each field what cannot be is that field's trouble: everything else is as without it.
    #[test]
    fn a_field_of_a_stream_that_cannot_be_is_unknown_and_the_rest_is_read() {
        let right = stream(root(&flat(&stream_fields()).sent())).unwrap();
        let no_ends = StreamReply { first: None, last: None, ends_unknown: true, ..right };
        let check = |name: &str, values: &[SentValue], expected: &StreamReply| {
            for value in values {
                let read = stream(root(&flat(&with(name, value.clone())).sent())).unwrap();
                // How large an entry is that is none is not looked at.
                let read = StreamReply { payload_bytes: expected.payload_bytes, ..read };
                assert_eq!(read, *expected, "{name}: {value:?}");
            }
        };
        let odd = [SentValue::Nil, SentValue::Okay, SentValue::Array(vec![]), SentValue::Array(vec![SentValue::Nil])];
        let numbers = [
            SentValue::Int(-1),
            SentValue::Int(i64::MIN),
            SentValue::Wrapped(u64::MAX - 7),
            text("18446744073709551608"),
        ];
        let ids = [text("nonsense"), text("-1"), text("1-18446744073709551616"), SentValue::Int(3)];
        let unknown = StreamReply { entries_added: None, ..right };
        check("entries-added", &[&odd[..], &numbers].concat(), &unknown);
        // Fewer were ever added than are there.
        check("entries-added", &[SentValue::Int(1)], &unknown);
        check("max-deleted-entry-id", &[&odd[..], &ids].concat(), &StreamReply { max_deleted: None, ..right });
        // The last entry is the least that was given out; here it is what was given out last.
        check("last-generated-id", &[&odd[..], &ids, &[text("9-0")]].concat(), &right);
        check("first-entry", &[&odd[..], &ids, &[entry("nonsense"), entry("99-0")]].concat(), &no_ends);
        check("last-entry", &[&odd[..], &ids, &[entry("nonsense"), entry("1-0")]].concat(), &no_ends);
        let gone: Vec<_> = stream_fields().into_iter().filter(|(name, _)| *name == "length").collect();
        let least = stream(root(&flat(&gone).sent())).unwrap();
        assert_eq!(least, StreamReply { length: 2, ends_unknown: true, ..StreamReply::default() });
    }

    #[test]
    fn groups_keep_what_the_server_knows_and_never_wrap() {
        let group = |lag: SentValue, read: SentValue| {
            flat(&[
                ("name", SentValue::BulkString(b"bad\xff".to_vec())),
                ("consumers", SentValue::Int(1)),
                ("pending", SentValue::Int(i64::MAX)),
                ("last-delivered-id", text("5-0")),
                ("entries-read", read),
                ("lag", lag),
            ])
        };
        let decoded =
            |lag, read| groups(root(&SentValue::Array(vec![group(lag, read)]).sent()), &[]).unwrap().remove(0);
        let known = decoded(SentValue::Int(7), SentValue::Int(3));
        assert_eq!(known.name.as_bytes(), b"bad\xff");
        assert_eq!((known.server_lag, known.entries_read, known.pending), (Some(7), Some(3), i64::MAX as u64));
        let unknown = decoded(SentValue::Nil, SentValue::Nil);
        assert_eq!((unknown.server_lag, unknown.entries_read), (None, None));
        let negative = decoded(SentValue::Int(-99), SentValue::Int(-1));
        assert_eq!((negative.server_lag, negative.entries_read), (None, None));
        // As apache/kvrocks#3578 and #3581 have it.
        let wrapped = decoded(SentValue::Wrapped(18_446_744_073_709_551_608), SentValue::Wrapped(u64::MAX));
        assert_eq!((wrapped.server_lag, wrapped.entries_read), (None, None));
        assert_eq!((wrapped.pending, wrapped.unknown), (i64::MAX as u64, UnknownFields::default()));
    }

    #[test]
    fn a_field_of_a_group_or_a_consumer_that_cannot_be_is_unknown_and_the_rest_is_read() {
        let fields = |name: &str, value: &SentValue| {
            let mut fields = vec![
                ("name", text("g")),
                ("consumers", SentValue::Int(3)),
                ("pending", SentValue::Int(5)),
                ("last-delivered-id", text("5-0")),
            ];
            fields.iter_mut().filter(|(field, _)| *field == name).for_each(|(_, old)| *old = value.clone());
            flat(&fields)
        };
        let read = |name: &str, value: &SentValue| {
            let other = fields("name", &text("other"));
            let read = groups(root(&SentValue::Array(vec![fields(name, value), other]).sent()), &[]).unwrap();
            assert_eq!((read[1].consumers, read[1].pending, read[1].unknown), (3, 5, UnknownFields::default()));
            read.into_iter().next().unwrap()
        };
        let right = read("name", &text("g"));
        for value in [
            SentValue::Nil,
            SentValue::Okay,
            SentValue::Int(-3),
            SentValue::Wrapped(u64::MAX),
            SentValue::Array(vec![]),
        ] {
            let unknown = UnknownFields { consumers: true, ..UnknownFields::default() };
            assert_eq!(read("consumers", &value), GroupReply { consumers: 0, unknown, ..right.clone() });
            let unknown = UnknownFields { pending: true, ..UnknownFields::default() };
            assert_eq!(read("pending", &value), GroupReply { pending: 0, unknown, ..right.clone() });
            let unknown = UnknownFields { last_delivered: true, ..UnknownFields::default() };
            let last_delivered = EntryId::default();
            assert_eq!(read("last-delivered-id", &value), GroupReply { last_delivered, unknown, ..right.clone() });

            let consumer = |pending, idle| {
                flat(&[("name", text("c")), ("pending", pending), ("idle", idle), ("inactive", value.clone())])
            };
            let one = |consumer| consumers(root(&SentValue::Array(vec![consumer]).sent()), &[]).unwrap().remove(0);
            let known = ConsumerReply { name: "c".into(), pending: Some(1), idle_ms: Some(2), inactive_ms: None };
            let pending_unknown = ConsumerReply { pending: None, ..known.clone() };
            assert_eq!(one(consumer(value.clone(), SentValue::Int(2))), pending_unknown);
            let idle_unknown = ConsumerReply { idle_ms: None, ..known };
            assert_eq!(one(consumer(SentValue::Int(1), value.clone())), idle_unknown);
        }
        // Without a name there is no group to say it of.
        assert!(groups(root(&SentValue::Array(vec![fields("name", &SentValue::Nil)]).sent()), &[]).is_err());
    }

    /// As the documentation of XNACK shows them (redis/docs, content/commands/xnack.md; Redis 8.8), and fakeredis-py#521 has them.
    #[test]
    fn pending_entries_of_nobody_and_how_often_the_oldest_was_delivered() {
        let check = |consumer: &str, idle: i64, deliveries: SentValue, expected_consumer: Option<&str>, expected| {
            let pending =
                SentValue::Array(vec![text("1526569498055-0"), text(consumer), SentValue::Int(idle), deliveries]);
            let oldest = oldest_pending(root(&SentValue::Array(vec![pending]).sent())).unwrap().unwrap();
            assert_eq!(oldest.id, EntryId { ms: 1_526_569_498_055, seq: 0 });
            assert_eq!(oldest.consumer, expected_consumer.map(ConsumerName::from));
            assert_eq!(oldest.deliveries, expected);
        };
        check("", -1, SentValue::Int(1), None, Some(1));
        // XNACK SILENT takes a delivery back; FATAL says that it is hopeless.
        check("", -1, SentValue::Int(0), None, Some(0));
        check("", -1, SentValue::Int(i64::MAX), None, Some(i64::MAX as u64));
        check("c", 12, SentValue::Int(3), Some("c"), Some(3));
        // A consumer may be called that.
        check("", 12, SentValue::Int(3), Some(""), Some(3));
        check("c", 12, SentValue::Int(-3), Some("c"), None);
        check("c", 12, SentValue::Wrapped(u64::MAX), Some("c"), None);

        let held =
            |name: &str, pending| ConsumerReply { name: name.into(), pending, idle_ms: Some(0), inactive_ms: None };
        let members = Some(vec![held("a", Some(2)), held("b", Some(1))]);
        let group = GroupReply { pending: 5, consumers: 2, members, ..GroupReply::default() };
        assert_eq!(group.unowned(), Some(2));
        assert_eq!(GroupReply { pending: 3, ..group.clone() }.unowned(), Some(0));
        // Not all are listed, one holds an unknown number, they hold more than there is, or none was asked about.
        assert_eq!(GroupReply { consumers: 3, ..group.clone() }.unowned(), None);
        let members = Some(vec![held("a", Some(2)), held("b", None)]);
        assert_eq!(GroupReply { members, ..group.clone() }.unowned(), None);
        assert_eq!(GroupReply { pending: 2, ..group.clone() }.unowned(), None);
        assert_eq!(GroupReply { members: None, ..group.clone() }.unowned(), None);
        let unknown = UnknownFields { pending: true, ..UnknownFields::default() };
        assert_eq!(GroupReply { unknown, ..group }.unowned(), None);
    }

    #[test]
    fn a_name_twice_is_no_reply() {
        let group = |name| {
            flat(&[
                ("name", text(name)),
                ("consumers", SentValue::Int(0)),
                ("pending", SentValue::Int(0)),
                ("last-delivered-id", text("0-0")),
            ])
        };
        let consumer =
            |name| flat(&[("name", text(name)), ("pending", SentValue::Int(0)), ("idle", SentValue::Int(0))]);
        assert_eq!(groups(root(&SentValue::Array(["b", "a", "c"].map(group).to_vec()).sent()), &[]).unwrap().len(), 3);
        assert!(groups(root(&SentValue::Array(["b", "a", "b"].map(group).to_vec()).sent()), &[]).is_err());
        assert_eq!(
            consumers(root(&SentValue::Array(["b", "a", "c"].map(consumer).to_vec()).sent()), &[]).unwrap().len(),
            3
        );
        assert!(consumers(root(&SentValue::Array(["b", "a", "b"].map(consumer).to_vec()).sent()), &[]).is_err());
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
            let mut fields = vec![("name", text("c")), ("pending", SentValue::Int(0)), ("idle", SentValue::Int(12))];
            fields.extend(inactive.map(|ms| ("inactive", SentValue::Int(ms))));
            consumers(root(&SentValue::Array(vec![flat(&fields)]).sent()), &[]).unwrap().remove(0).inactive_ms
        };
        assert_eq!(consumer(None), None);
        assert_eq!(consumer(Some(-1)), None);
        assert_eq!(consumer(Some(8)), Some(8));
    }

    #[test]
    fn a_range_is_counted_up_to_an_id_and_beyond_it() {
        let check = |entries: &[SentValue], to, limit| {
            range(root(&SentValue::Array(entries.to_vec()).sent()), to, limit, false)
        };
        let reply = ["1-0", "2-0", "3-0"].map(entry);
        let id = |ms| EntryId { ms, seq: 0 };
        let (first, last) = (Some(id(1)), Some(id(2)));
        let page = EntryPage { entries: 2, beyond: 1, first, last, bytes: 36, ..EntryPage::default() };
        assert_eq!(check(&reply, id(2), 3), Ok(page.clone()));
        assert_eq!(check(&reply, id(2), 4), Ok(EntryPage { ended: true, ..page }));
        assert_eq!(check(&[], id(2), 4), Ok(EntryPage { ended: true, ..EntryPage::default() }));
        assert!(range(root(&SentValue::Nil.sent()), id(2), 4, false).is_err());
        assert!(check(&[entry("2-0"), entry("1-0")], id(2), 4).is_err());
        assert!(check(&[entry("2-0"), entry("2-0")], id(2), 4).is_err());
    }

    #[test]
    fn names_of_last_time_are_not_made_anew() {
        fn consumer(name: &str) -> SentValue {
            flat(&[("name", text(name)), ("pending", SentValue::Int(0)), ("idle", SentValue::Int(0))])
        }
        let decoded = |names: &[&str], known: &[ConsumerName]| -> Vec<ConsumerName> {
            let reply = SentValue::Array(names.iter().map(|name| consumer(name)).collect()).sent();
            consumers(root(&reply), known).unwrap().into_iter().map(|consumer| consumer.name).collect()
        };
        let before = decoded(&["a", "b", "d"], &[]);
        let after = decoded(&["a", "c", "d"], &before);
        assert_eq!(after, ["a", "c", "d"].map(ConsumerName::from));
        let same = |one: &ConsumerName, other: &ConsumerName| std::ptr::eq(one.as_bytes(), other.as_bytes());
        assert!(same(&after[0], &before[0]) && same(&after[2], &before[2]));
        // Long ones, one that is cut as it comes, and one that is named as it is shown.
        let [long, longer] = [300, 20_000].map(|length| "x".repeat(length));
        let shown = ConsumerName::from(longer.as_str()).display_name().into_owned();
        let names = ["a", &long, &longer, &shown];
        let before = decoded(&names, &[]);
        assert_eq!(before, names.map(ConsumerName::from));
        let after = decoded(&names, &before);
        assert!(before.iter().zip(&after).all(|(before, after)| same(before, after)), "{after:?}");
        let after = decoded(&[&shown], &before[..3]);
        assert_eq!(after, [ConsumerName::from(shown.as_str())]);
        assert_ne!(after[0].display_name(), shown);
        let twice = SentValue::Array(vec![consumer(&longer), consumer("a"), consumer(&longer)]).sent();
        assert!(consumers(root(&twice), &[]).is_err());
    }

    #[test]
    fn the_small_replies() {
        let pending = SentValue::Array(vec![SentValue::Array(vec![
            text("5-1"),
            text("c"),
            SentValue::Int(1),
            SentValue::Int(1),
        ])]);
        let oldest = OldestPending { id: EntryId { ms: 5, seq: 1 }, consumer: Some("c".into()), deliveries: Some(1) };
        assert_eq!(oldest_pending(root(&pending.sent())), Ok(Some(oldest)));
        assert_eq!(pending_count(root(&pending.sent())), Ok(1));
        assert_eq!(oldest_pending(root(&SentValue::Array(vec![]).sent())), Ok(None));
        let entries = SentValue::Array(vec![entry("7-7")]);
        assert_eq!(first_in_range(root(&entries.sent())), Ok(Some(EntryId { ms: 7, seq: 7 })));
        assert_eq!(time(root(&SentValue::Array(vec![text("12"), text("345678")]).sent())), Ok(12_345));
        assert!(time(root(&SentValue::Array(vec![text("12")]).sent())).is_err());
        let reply = flat(&[("server", text("redis")), ("version", text("7.0.15")), ("proto", SentValue::Int(2))]);
        assert_eq!(hello(root(&reply.sent())), Ok(ServerInfo { name: "redis".into(), version: "7.0.15".into() }));
        let reply = flat(&[("server", text(&"s".repeat(20_000))), ("version", text(&"7".repeat(65)))]);
        let server = hello(root(&reply.sent())).unwrap();
        assert_eq!(server.name, "s".repeat(MAX_SERVER_BYTES) + "…");
        assert_eq!(server.version, "7".repeat(MAX_SERVER_BYTES) + "…");
        let nothing = ServerInfo::default();
        assert_eq!(hello(root(&flat(&[("proto", SentValue::Int(2))]).sent())), Ok(nothing));
        let found =
            SentValue::Array(vec![text("18446744073709551615"), SentValue::Array(vec![text("a"), text("b")])]).sent();
        let (cursor, keys) = scan(root(&found)).unwrap();
        assert_eq!((cursor, keys.collect::<Vec<_>>()), (u64::MAX, vec![RawName::Whole(b"a"), RawName::Whole(b"b")]));
        assert!(scan(root(&SentValue::Array(vec![text("x"), SentValue::Array(vec![])]).sent())).is_err());
    }

    /// Any value at all, a few levels deep.
    fn any_value() -> impl Strategy<Value = SentValue> {
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
            Just(SentValue::Nil),
            Just(SentValue::Okay),
            any::<i64>().prop_map(SentValue::Int),
            any::<u64>().prop_map(SentValue::Wrapped),
            prop::collection::vec(any::<u8>(), 0..8).prop_map(SentValue::BulkString),
            field.prop_map(text),
        ];
        leaf.prop_recursive(4, 64, 12, |inner| prop::collection::vec(inner, 0..12).prop_map(SentValue::Array))
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
