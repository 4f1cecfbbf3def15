//! Redis values to the model: pure, total, and deaf to fields it does not know.
//!
//! The redis crate has typed replies for these commands; they drop fields, wrap a negative lag to 18446744073709551517
//! and fail on a group whose name is not UTF-8, hence this decoder over [`Value`].

use redis::Value;

use crate::lag::ledger::{Continuity, Page};
use crate::model::sample::{ConsumerSample, GroupSample, ServerInfo, StreamSample};
use crate::model::{ConsumerName, EntryId};

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
pub fn stream(reply: &Value) -> Decoded<StreamSample> {
    let fields = Fields::of("XINFO STREAM", reply)?;
    let length = fields.count("length")?;
    let first = fields.entry("first-entry")?;
    let last = fields.entry("last-entry")?;
    if (length == 0) != (first.is_none() && last.is_none()) || first.is_some() != last.is_some() {
        return Err(fields.wrong(&format!("a length of {length} with first entry {first:?} and last entry {last:?}")));
    }
    if first > last {
        return Err(fields.wrong(&format!("first entry {first:?} after last entry {last:?}")));
    }
    Ok(StreamSample {
        length,
        first,
        last,
        last_generated: fields.id("last-generated-id")?,
        entries_added: fields.optional_count("entries-added")?,
        max_deleted: fields.optional_id("max-deleted-entry-id")?,
        payload_bytes: fields.payload_bytes("first-entry").saturating_add(fields.payload_bytes("last-entry")),
        carried: false,
        may_be_carried: false,
        now_ms: 0,
        continuity: Continuity::Unknown,
        groups: Vec::new(),
    })
}

/// `XINFO GROUPS key`.
///
/// # Errors
/// Where a field is missing or is not what it should be.
pub fn groups(reply: &Value) -> Decoded<Vec<GroupSample>> {
    const COMMAND: &str = "XINFO GROUPS";
    let decode = |reply: &Value| {
        let fields = Fields::of(COMMAND, reply)?;
        Ok(GroupSample {
            name: fields.bytes("name")?.into(),
            consumers: fields.count("consumers")?,
            pending: fields.count("pending")?,
            last_delivered: fields.id("last-delivered-id")?,
            entries_read: fields.optional_count("entries-read")?,
            server_lag: fields.optional_count("lag")?,
            ..GroupSample::default()
        })
    };
    let groups: Vec<GroupSample> = items(COMMAND, reply)?.iter().map(decode).collect::<Decoded<_>>()?;
    each_once(COMMAND, groups.iter().map(|group| group.name.as_bytes()))?;
    Ok(groups)
}

/// `XINFO CONSUMERS key group`.
///
/// # Errors
/// Where a field is missing or is not what it should be.
pub fn consumers(reply: &Value) -> Decoded<Vec<ConsumerSample>> {
    const COMMAND: &str = "XINFO CONSUMERS";
    let decode = |reply: &Value| {
        let fields = Fields::of(COMMAND, reply)?;
        Ok(ConsumerSample {
            name: fields.bytes("name")?.into(),
            pending: fields.count("pending")?,
            // A server's clock that steps back makes this negative for a moment.
            idle_ms: fields.optional_count("idle")?.unwrap_or(0),
            inactive_ms: fields.optional_count("inactive")?,
        })
    };
    let consumers: Vec<ConsumerSample> = items(COMMAND, reply)?.iter().map(decode).collect::<Decoded<_>>()?;
    each_once(COMMAND, consumers.iter().map(|consumer| consumer.name.as_bytes()))?;
    Ok(consumers)
}

/// `XPENDING key group - + 1`: the smallest pending id, and the consumer that holds it.
///
/// # Errors
/// Where the reply is not a list of pending entries.
pub fn oldest_pending(reply: &Value) -> Decoded<Option<(EntryId, ConsumerName)>> {
    const COMMAND: &str = "XPENDING";
    match items(COMMAND, reply)?.first() {
        None => Ok(None),
        Some(Value::Array(parts)) => match (parts.first().and_then(bytes).and_then(EntryId::parse), parts.get(1)) {
            (Some(id), Some(consumer)) => {
                let consumer = bytes(consumer).ok_or_else(|| wrong(COMMAND, "a consumer without a name"))?;
                Ok(Some((id, consumer.into())))
            }
            _ => Err(wrong(COMMAND, "an entry without id and consumer")),
        },
        Some(other) => Err(wrong(COMMAND, &format!("{} where a pending entry belongs", kind(other)))),
    }
}

/// `XLEN key`.
///
/// # Errors
/// Where the reply is not a number.
pub fn length(reply: &Value) -> Decoded<u64> {
    count(reply).ok_or_else(|| wrong("XLEN", &format!("{}, not a count", kind(reply))))
}

/// `XPENDING key group start end count`: how many pending entries there are.
///
/// # Errors
/// Where the reply is not a list.
pub fn pending_count(reply: &Value) -> Decoded<u64> {
    Ok(items("XPENDING", reply)?.len() as u64)
}

/// `XRANGE key start end COUNT limit`: the entries counted, up to the id `to` and beyond it, and their size in bytes.
///
/// # Errors
/// Where the reply is not a list of entries.
pub fn range(reply: &Value, to: EntryId, limit: u64) -> Decoded<(Page, u64)> {
    let mut page = Page::default();
    let entries = items("XRANGE", reply)?;
    let mut size = 0;
    let mut before = None;
    for entry in entries {
        let id = entry_id(entry).ok_or_else(|| wrong("XRANGE", "an entry without an id"))?;
        // A count of what is out of order, or there twice, would be called exact.
        if before.replace(id) >= Some(id) {
            return Err(wrong("XRANGE", "entries out of order"));
        }
        page.first = page.first.or(Some(id));
        if id <= to {
            page.entries += 1;
            page.last = Some(id);
        } else {
            page.beyond += 1;
        }
        size = payload_bytes(entry).saturating_add(size);
    }
    page.ended = (entries.len() as u64) < limit;
    Ok((page, size))
}

/// `XRANGE key start + COUNT 1`: the first entry's id.
///
/// # Errors
/// Where the reply is not a list of entries.
pub fn first_in_range(reply: &Value) -> Decoded<Option<EntryId>> {
    first_id("XRANGE", reply)
}

/// `TIME`: milliseconds since the Unix epoch.
///
/// # Errors
/// Where the reply is not two numbers.
pub fn time(reply: &Value) -> Decoded<u64> {
    const COMMAND: &str = "TIME";
    match items(COMMAND, reply)? {
        [seconds, micros, ..] => match (count(seconds), count(micros)) {
            (Some(seconds), Some(micros)) => Ok(seconds.saturating_mul(1000).saturating_add(micros / 1000)),
            _ => Err(wrong(COMMAND, "something that is not a number")),
        },
        _ => Err(wrong(COMMAND, "fewer than two numbers")),
    }
}

/// `HELLO`: who answers.
///
/// # Errors
/// Where the reply is not a list of fields.
pub fn hello(reply: &Value) -> Decoded<ServerInfo> {
    let fields = Fields::of("HELLO", reply)?;
    let text = |name| fields.bytes(name).map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    Ok(ServerInfo { name: text("server")?, version: text("version")? })
}

fn first_id(command: &'static str, reply: &Value) -> Decoded<Option<EntryId>> {
    let Some(entry) = items(command, reply)?.first() else {
        return Ok(None);
    };
    match entry_id(entry) {
        Some(id) => Ok(Some(id)),
        None => Err(wrong(command, "an entry without an id")),
    }
}

/// The named fields of one reply: name, value, name, value, … in RESP2 and a map in RESP3.
struct Fields<'a> {
    command: &'static str,
    pairs: Pairs<'a>,
}

enum Pairs<'a> {
    Flat(&'a [Value]),
    Map(&'a [(Value, Value)]),
}

impl<'a> Fields<'a> {
    fn of(command: &'static str, reply: &'a Value) -> Decoded<Self> {
        let pairs = match reply {
            Value::Array(flat) if flat.len() % 2 == 0 => Pairs::Flat(flat),
            Value::Map(map) => Pairs::Map(map),
            other => return Err(wrong(command, &format!("{} where fields belong", kind(other)))),
        };
        Ok(Self { command, pairs })
    }

    fn get(&self, name: &str) -> Option<&'a Value> {
        let is_name = |value: &Value| bytes(value) == Some(name.as_bytes());
        match self.pairs {
            Pairs::Flat(flat) => flat.chunks_exact(2).find(|pair| is_name(&pair[0])).map(|pair| &pair[1]),
            Pairs::Map(map) => map.iter().find(|(key, _)| is_name(key)).map(|(_, value)| value),
        }
    }

    fn need(&self, name: &str) -> Decoded<&'a Value> {
        self.get(name).ok_or_else(|| self.wrong(&format!("no field {name}")))
    }

    /// A count that must be there.
    fn count(&self, name: &str) -> Decoded<u64> {
        let value = self.need(name)?;
        count(value).ok_or_else(|| self.wrong(&format!("{name} is {}, not a count", kind(value))))
    }

    /// A count that older servers do not tell, and others only sometimes. A negative one is an unknown one: servers
    /// answer `-1` for "never", and a negative lag where their own arithmetic broke.
    fn optional_count(&self, name: &str) -> Decoded<Option<u64>> {
        match self.get(name) {
            None | Some(Value::Nil) => Ok(None),
            Some(Value::Int(negative)) if *negative < 0 => Ok(None),
            Some(value) => match count(value) {
                Some(count) => Ok(Some(count)),
                None => Err(self.wrong(&format!("{name} is {}, not a count", kind(value)))),
            },
        }
    }

    fn id(&self, name: &str) -> Decoded<EntryId> {
        let value = self.need(name)?;
        bytes(value).and_then(EntryId::parse).ok_or_else(|| self.wrong(&format!("{name} is not an entry id")))
    }

    fn optional_id(&self, name: &str) -> Decoded<Option<EntryId>> {
        match self.get(name) {
            None | Some(Value::Nil) => Ok(None),
            Some(_) => self.id(name).map(Some),
        }
    }

    /// The id of an entry, `[id, [field, value, …]]`, or nil.
    fn entry(&self, name: &str) -> Decoded<Option<EntryId>> {
        match self.need(name)? {
            Value::Nil => Ok(None),
            entry => match entry_id(entry) {
                Some(id) => Ok(Some(id)),
                None => Err(self.wrong(&format!("{name} is not an entry"))),
            },
        }
    }

    fn payload_bytes(&self, name: &str) -> u64 {
        self.get(name).map_or(0, payload_bytes)
    }

    fn bytes(&self, name: &str) -> Decoded<&'a [u8]> {
        bytes(self.need(name)?).ok_or_else(|| self.wrong(&format!("{name} is not a string")))
    }

    fn wrong(&self, what: &str) -> DecodeError {
        wrong(self.command, what)
    }
}

fn wrong(command: &'static str, what: &str) -> DecodeError {
    DecodeError { command, what: what.to_owned() }
}

fn items<'a>(command: &'static str, reply: &'a Value) -> Decoded<&'a [Value]> {
    match reply {
        Value::Array(items) => Ok(items),
        other => Err(wrong(command, &format!("{} where a list belongs", kind(other)))),
    }
}

/// Names are labels: one of them twice would be one series twice, for which Prometheus refuses the whole page.
fn each_once<'a>(command: &'static str, names: impl Iterator<Item = &'a [u8]>) -> Decoded<()> {
    let mut names: Vec<&[u8]> = names.collect();
    // Redis lists them in order, and what is in order is sorted at a glance.
    names.sort_unstable();
    if names.windows(2).any(|pair| pair[0] == pair[1]) { Err(wrong(command, "the same name twice")) } else { Ok(()) }
}

/// Bytes in an entry's fields: what Redis sent, or the number that a script put in their place.
fn payload_bytes(entry: &Value) -> u64 {
    let Value::Array(parts) = entry else { return 0 };
    match parts.get(1) {
        Some(Value::Array(fields)) => {
            fields.iter().filter_map(bytes).map(|field| field.len() as u64).fold(0, u64::saturating_add)
        }
        Some(size) => count(size).unwrap_or(0),
        None => 0,
    }
}

fn entry_id(entry: &Value) -> Option<EntryId> {
    match entry {
        Value::Array(parts) => parts.first().and_then(bytes).and_then(EntryId::parse),
        _ => None,
    }
}

fn bytes(value: &Value) -> Option<&[u8]> {
    match value {
        Value::BulkString(bytes) => Some(bytes),
        Value::SimpleString(text) | Value::VerbatimString { text, .. } => Some(text.as_bytes()),
        _ => None,
    }
}

fn count(value: &Value) -> Option<u64> {
    match value {
        Value::Int(count) => u64::try_from(*count).ok(),
        // Some replies carry numbers as text. Redis's are signed: what does not fit has wrapped.
        other => {
            let digits = std::str::from_utf8(bytes(other)?).ok()?;
            let number: i64 = digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())??;
            u64::try_from(number).ok()
        }
    }
}

/// What kind of value it is; never its content, which may be somebody's data.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::Nil => "nil",
        Value::Int(_) => "a number",
        Value::BulkString(_) | Value::SimpleString(_) | Value::VerbatimString { .. } | Value::Okay => "a string",
        Value::Array(_) | Value::Set(_) => "a list",
        Value::Map(_) => "a map",
        Value::ServerError(_) => "an error",
        _ => "something else",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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
            carried: false,
            may_be_carried: false,
            now_ms: 0,
            continuity: Continuity::Unknown,
            groups: Vec::new(),
        };
        assert_eq!(stream(&flat(&stream_fields())), Ok(expected.clone()));
        let map = Value::Map(stream_fields().into_iter().map(|(name, value)| (text(name), value)).collect());
        assert_eq!(stream(&map), Ok(expected.clone()));
        let mut old = stream_fields();
        old.retain(|(name, _)| !["max-deleted-entry-id", "entries-added"].contains(name));
        assert_eq!(stream(&flat(&old)), Ok(StreamSample { entries_added: None, max_deleted: None, ..expected }));
    }

    #[test]
    fn stream_replies_that_cannot_be() {
        let check = |fields: &[(&'static str, Value)], expected: &str| {
            let error = stream(&flat(fields)).unwrap_err().to_string();
            assert!(error.contains(expected), "{error:?} lacks {expected:?}");
        };
        check(&with("length", Value::Int(-1)), "length is a number, not a count");
        check(&with("length", Value::Int(0)), "a length of 0 with first entry");
        check(&with("first-entry", Value::Nil), "a length of 2 with first entry None");
        check(&with("first-entry", entry("99-0")), "after last entry");
        check(&with("first-entry", entry("nonsense")), "first-entry is not an entry");
        check(&with("last-generated-id", Value::Int(3)), "last-generated-id is not an entry id");
        check(&stream_fields()[1..], "no field length");
        assert!(stream(&Value::Okay).is_err());
        assert!(stream(&Value::Array(vec![text("length")])).is_err());
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
        let decoded = |lag, read| groups(&Value::Array(vec![group(lag, read)])).unwrap().remove(0);
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
        assert_eq!(groups(&Value::Array(["b", "a", "c"].map(group).to_vec())).unwrap().len(), 3);
        assert!(groups(&Value::Array(["b", "a", "b"].map(group).to_vec())).is_err());
        assert_eq!(consumers(&Value::Array(["b", "a", "c"].map(consumer).to_vec())).unwrap().len(), 3);
        assert!(consumers(&Value::Array(["b", "a", "b"].map(consumer).to_vec())).is_err());
    }

    #[test]
    fn numbers_in_text_are_digits_and_have_not_wrapped() {
        let check = |number, expected| assert_eq!(length(&text(number)).ok(), expected, "{number}");
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
            consumers(&Value::Array(vec![flat(&fields)])).unwrap().remove(0).inactive_ms
        };
        assert_eq!(consumer(None), None);
        assert_eq!(consumer(Some(-1)), None);
        assert_eq!(consumer(Some(8)), Some(8));
    }

    #[test]
    fn a_range_is_counted_up_to_an_id_and_beyond_it() {
        let reply = Value::Array(vec![entry("1-0"), entry("2-0"), entry("3-0")]);
        let id = |ms| EntryId { ms, seq: 0 };
        let page = Page { entries: 2, beyond: 1, first: Some(id(1)), last: Some(id(2)), ended: false };
        assert_eq!(range(&reply, id(2), 3), Ok((page, 36)));
        assert_eq!(range(&reply, id(2), 4), Ok((Page { ended: true, ..page }, 36)));
        assert_eq!(range(&Value::Array(vec![]), id(2), 4), Ok((Page { ended: true, ..Page::default() }, 0)));
        assert!(range(&Value::Nil, id(2), 4).is_err());
        assert!(range(&Value::Array(vec![entry("2-0"), entry("1-0")]), id(2), 4).is_err());
        assert!(range(&Value::Array(vec![entry("2-0"), entry("2-0")]), id(2), 4).is_err());
    }

    #[test]
    fn the_small_replies() {
        let pending = Value::Array(vec![Value::Array(vec![text("5-1"), text("c"), Value::Int(1), Value::Int(1)])]);
        assert_eq!(oldest_pending(&pending), Ok(Some((EntryId { ms: 5, seq: 1 }, "c".into()))));
        assert_eq!(pending_count(&pending), Ok(1));
        assert_eq!(oldest_pending(&Value::Array(vec![])), Ok(None));
        assert_eq!(first_in_range(&Value::Array(vec![entry("7-7")])), Ok(Some(EntryId { ms: 7, seq: 7 })));
        assert_eq!(time(&Value::Array(vec![text("12"), text("345678")])), Ok(12_345));
        assert!(time(&Value::Array(vec![text("12")])).is_err());
        let reply = flat(&[("server", text("redis")), ("version", text("7.0.15")), ("proto", Value::Int(2))]);
        assert_eq!(hello(&reply), Ok(ServerInfo { name: "redis".into(), version: "7.0.15".into() }));
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
        leaf.prop_recursive(4, 64, 12, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..12).prop_map(Value::Array),
                prop::collection::vec((inner.clone(), inner), 0..6).prop_map(Value::Map),
            ]
        })
    }

    proptest! {
        #[test]
        fn no_reply_panics(value in any_value()) {
            let _ = (stream(&value), groups(&value), consumers(&value), oldest_pending(&value));
            let _ = (range(&value, EntryId::default(), 3), pending_count(&value));
            let _ = (first_in_range(&value), time(&value), hello(&value));
        }
    }
}
