//! Replies, entry ids and names, one at a time.

use std::borrow::Cow;
use std::collections::HashSet;

use crate::model::EntryId;
use crate::model::names::{MAX_SHOWN_BYTES, display_name};
use crate::redis::replies;
use crate::redis::resp::{DecodeBudget, Reply, ReplyReader};

/// Redis's integers are signed: no count is greater, and one that is has wrapped.
const MAX_COUNT: u64 = i64::MAX as u64;

/// Bytes as Redis would send them, to every function that reads a reply.
pub fn decoder(data: &[u8]) {
    let (mut replies, mut budget) = (ReplyReader::default(), DecodeBudget::default());
    replies.buffer().extend_from_slice(data);
    // Up to the first that is none, or is not all there.
    while replies.read(1, &mut budget) == Ok(true) {
        for reply in replies.iter() {
            stream(reply);
            groups(reply);
            consumers(reply);
            range(reply);
            small(reply);
        }
        replies.next();
    }
}

fn stream(reply: Reply<'_>) {
    let Ok(stream) = replies::stream(reply) else { return };
    let no_ends = stream.length == 0 || stream.ends_unknown;
    assert_eq!(no_ends, stream.first.is_none(), "an empty stream has no entry: {stream:?}");
    assert_eq!(no_ends, stream.last.is_none(), "an empty stream has no entry: {stream:?}");
    assert!(stream.first <= stream.last, "{stream:?}");
    assert!(stream.last.is_none_or(|last| last <= stream.last_generated), "{stream:?}");
    assert!(stream.length <= MAX_COUNT && stream.entries_added.is_none_or(|added| added <= MAX_COUNT), "{stream:?}");
}

fn groups(reply: Reply<'_>) {
    let (Ok(groups), Some(told)) = (replies::groups(reply, &[]), reply.list()) else { return };
    assert_eq!(groups.len(), told.len());
    for (group, told) in groups.iter().zip(told) {
        assert!(group.consumers <= MAX_COUNT && group.pending <= MAX_COUNT, "{group:?}");
        for (count, name) in [(group.server_lag, "lag"), (group.entries_read, "entries-read")] {
            assert!(count.is_none_or(|count| count <= MAX_COUNT), "{group:?}");
            if let Some(number) = field(told, name).and_then(Reply::int) {
                assert_eq!(count, u64::try_from(number).ok(), "{name} of {group:?}");
            }
        }
    }
    all_distinct(groups.iter().map(|group| group.name.display_name()));
}

fn consumers(reply: Reply<'_>) {
    let Ok(consumers) = replies::consumers(reply, &[]) else { return };
    for consumer in &consumers {
        let counts = [consumer.pending, consumer.idle_ms, consumer.inactive_ms];
        assert!(counts.iter().flatten().all(|count| *count <= MAX_COUNT), "{consumer:?}");
    }
    all_distinct(consumers.iter().map(|consumer| consumer.name.display_name()));
}

/// Names are labels: one of them twice, or two that look the same, and the page has one series twice.
fn all_distinct<'a>(names: impl Iterator<Item = Cow<'a, str>>) {
    let mut seen = HashSet::new();
    for name in names {
        assert!(name.len() <= MAX_SHOWN_BYTES + 40, "{name:?} is long");
        assert!(seen.insert(name.clone()), "two are shown as {name:?}");
    }
}

fn range(reply: Reply<'_>) {
    let told = reply.list().map_or(0, |told| told.len() as u64);
    let limits = [0, 1, told, told + 1];
    for (to, limit) in
        [EntryId::default(), EntryId { ms: 5, seq: 5 }, MAX_ID].into_iter().zip(limits.into_iter().cycle())
    {
        let Ok(page) = replies::range(reply, to, limit, true) else { continue };
        assert_eq!(page.entries + page.beyond, told, "{page:?}");
        assert_eq!(page.ended, told < limit, "{page:?}");
        assert_eq!(page.first.is_none(), told == 0, "{page:?}");
        assert_eq!(page.last.is_none(), page.entries == 0, "{page:?}");
        assert!(page.last.is_none_or(|last| page.first <= Some(last) && last <= to), "{page:?}");
        assert!(to != MAX_ID || page.beyond == 0, "{page:?}");
    }
}

const MAX_ID: EntryId = EntryId { ms: u64::MAX, seq: u64::MAX };

fn small(reply: Reply<'_>) {
    assert!(replies::length(reply).unwrap_or(0) <= MAX_COUNT, "{reply:?}");
    if let (Ok(first), Ok(page)) = (replies::first_in_range(reply), replies::range(reply, MAX_ID, 1, false)) {
        assert_eq!(first, page.first);
    }
    let _ =
        (replies::oldest_pending(reply), replies::pending_count(reply), replies::time(reply), replies::hello(reply));
}

/// A field of a flat list, found without the decoder; the first where there are several.
fn field<'a>(fields: Reply<'a>, name: &str) -> Option<Reply<'a>> {
    let mut fields = fields.list()?;
    while let (Some(field), Some(value)) = (fields.next(), fields.next()) {
        if field.bytes() == Some(name.as_bytes()) {
            return Some(value);
        }
    }
    None
}

/// Two texts, separated by a blank, as entry ids.
pub fn entry_ids(data: &[u8]) {
    let mut texts = data.splitn(2, |byte| *byte == b' ');
    let (one, other) = (texts.next().unwrap_or_default(), texts.next().unwrap_or_default());
    let ids = [one, other].map(EntryId::parse);
    for (id, text) in ids.iter().zip([one, other]).filter_map(|(id, text)| Some(((*id)?, text))) {
        assert_eq!(EntryId::parse(id.to_string().as_bytes()), Some(id));
        assert!(text.iter().all(|byte| byte.is_ascii_digit() || *byte == b'-'), "{text:?} is no id");
        assert!(id.next().is_none_or(|next| next > id && next.previous() == Some(id)), "{id}");
        assert!(id.previous().is_none_or(|previous| previous < id && previous.next() == Some(id)), "{id}");
        for now in [0, id.seq, u64::MAX] {
            assert!(id.age_seconds(now).is_none_or(|age| age >= 0.0), "{id} at {now}");
            assert!(id.age_seconds(now).is_none() || id.timestamp_seconds(now).is_some(), "{id} at {now}");
        }
    }
    if let [Some(one), Some(other)] = ids {
        assert_eq!(one.cmp(&other), (one.ms, one.seq).cmp(&(other.ms, other.seq)));
        assert_eq!(one == other, one.to_string() == other.to_string());
    }
    // Any bytes may be a name.
    assert_eq!(one == other, display_name(one) == display_name(other), "{one:?} {other:?}");
}
