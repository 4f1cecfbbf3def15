//! Names as Redis has them: any bytes at all, of any length, not necessarily text.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use crate::model::text::hex;

/// The longest form in which a name is shown in full, in bytes. A longer one is cut here, and its digest follows.
pub const MAX_SHOWN_BYTES: usize = 256;

/// The longest name that is kept in full, in bytes, so that it can be sent to Redis. That is less than the lines take that a page has
/// about it. Longer names of streams and groups are mistakes.
pub const MAX_NAME_BYTES: usize = 4096;

/// As many of a name's first bytes determine what is shown of it before its digest: each is shown as one byte or more, and the last
/// ones may be a part of a character.
pub const HEAD_BYTES: usize = MAX_SHOWN_BYTES + 4;

/// What stands between what is shown of a long name and its digest.
const MARKER: &str = "…#";

/// Bytes of the SHA-256 that are shown, twice as many hexadecimal digits: a second name for them cannot be found.
const DIGEST_BYTES: usize = 16;

/// What decides on a key's slot in a cluster in place of all of it: what stands between its first `{` and the next `}`, unless that is
/// nothing.
#[must_use]
pub fn hash_tag(key: &[u8]) -> Option<&[u8]> {
    let open = memchr::memchr(b'{', key)?;
    let rest = &key[open + 1..];
    let close = memchr::memchr(b'}', rest).filter(|close| *close > 0)?;
    Some(&rest[..close])
}

/// A name as it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RawName<'a> {
    /// All of it.
    Whole(&'a [u8]),
    /// What was kept of a name that was too long to be kept.
    Cut {
        /// Its first bytes: [`HEAD_BYTES`] or more.
        head: &'a [u8],
        /// The SHA-256 of all of it.
        digest: &'a [u8; 32],
        /// How many bytes it has.
        length: u64,
    },
}

impl RawName<'_> {
    /// The name as it is shown where that is not all of it; `None` where it is.
    fn shortened(self) -> Option<Box<str>> {
        match self {
            Self::Whole(name) if is_shown_in_full(name) => None,
            Self::Whole(name) => Some(shortened(name, &Sha256::digest(name).into())),
            Self::Cut { head, digest, .. } => Some(shortened(head, digest)),
        }
    }

    fn length(self) -> u64 {
        match self {
            Self::Whole(name) => name.len() as u64,
            Self::Cut { length, .. } => length,
        }
    }

    /// All of it, where that is not too long to be kept.
    fn whole(self) -> Option<Box<[u8]>> {
        match self {
            Self::Whole(name) if name.len() <= MAX_NAME_BYTES => Some(name.into()),
            Self::Whole(_) | Self::Cut { .. } => None,
        }
    }
}

/// A name that is shown by its beginning and its digest. Not public by itself: the macro's types hold it.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LongName {
    shown: Box<str>,
    length: u64,
    whole: Option<Box<[u8]>>,
}

/// What decoders need of any kind of name.
pub trait Name: Clone + Ord + for<'a> From<RawName<'a>> {
    /// The name, where it is shown in full.
    fn plain(&self) -> Option<&[u8]>;
}

/// Declares a name type, so that a group's name cannot be passed where a stream's is wanted. `$is_sent`: whether it has to be sent to
/// Redis, so that a long one is kept in full where that can be.
macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $is_sent:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            /// One that is shown in full.
            Plain(Arc<[u8]>),
            /// Any other.
            Long(Arc<LongName>),
        }

        impl $name {
            /// The name as Redis has it; of one that is not [`whole`](Self::is_whole), what is shown of it.
            #[must_use]
            pub fn as_bytes(&self) -> &[u8] {
                match self {
                    Self::Plain(name) => name,
                    Self::Long(long) => long.whole.as_deref().unwrap_or(long.shown.as_bytes()),
                }
            }

            /// Whether all of it is at hand. Where it is not, Redis cannot be asked about it.
            #[must_use]
            pub fn is_whole(&self) -> bool {
                match self {
                    Self::Plain(_) => true,
                    Self::Long(long) => long.whole.is_some(),
                }
            }

            /// How many bytes it has in Redis.
            #[must_use]
            pub fn length(&self) -> u64 {
                match self {
                    Self::Plain(name) => name.len() as u64,
                    Self::Long(long) => long.length,
                }
            }

            /// The name as people are shown it; see [`display_name`].
            #[must_use]
            pub fn display_name(&self) -> Cow<'_, str> {
                match self {
                    Self::Plain(name) => in_full(name),
                    Self::Long(long) => Cow::Borrowed(&long.shown),
                }
            }
        }

        impl Name for $name {
            fn plain(&self) -> Option<&[u8]> {
                match self {
                    Self::Plain(name) => Some(name),
                    Self::Long(_) => None,
                }
            }
        }

        impl Default for $name {
            fn default() -> Self {
                Self::Plain(Arc::default())
            }
        }

        impl AsRef<[u8]> for $name {
            fn as_ref(&self) -> &[u8] {
                self.as_bytes()
            }
        }

        impl From<RawName<'_>> for $name {
            fn from(name: RawName<'_>) -> Self {
                match (name, name.shortened()) {
                    (RawName::Whole(name), None) => Self::Plain(name.into()),
                    (_, shown) => {
                        let whole = if $is_sent { name.whole() } else { None };
                        Self::Long(Arc::new(LongName { shown: shown.unwrap_or_default(), length: name.length(), whole }))
                    }
                }
            }
        }

        impl From<&[u8]> for $name {
            fn from(name: &[u8]) -> Self {
                RawName::Whole(name).into()
            }
        }

        impl From<Vec<u8>> for $name {
            fn from(name: Vec<u8>) -> Self {
                name.as_slice().into()
            }
        }

        impl From<&str> for $name {
            fn from(name: &str) -> Self {
                name.as_bytes().into()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.display_name())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.display_name(), f)
            }
        }
    };
}

name!(
    /// The key of a stream.
    StreamKey,
    true
);
name!(
    /// The name of a consumer group.
    GroupName,
    true
);
name!(
    /// The name of a consumer in a group.
    ConsumerName,
    false
);

/// A name as text: on the metrics page, in JSON, in the log, in reasons.
///
/// - Text stays as it is.
/// - Bytes that are not UTF-8 become U+FFFD, and the whole name is followed by its bytes in hexadecimal.
/// - Where that is longer than [`MAX_SHOWN_BYTES`], its beginning is shown, then `…#` and half of the SHA-256 of all its bytes. A name
///   that ends like that is shown so as well, however short it is.
///
/// Two names must never be shown as one: their series would be merged. What is shown without U+FFFD and `…#` is the name itself; what
/// ends in bytes or in a digest is the name of these.
#[must_use]
pub fn display_name(name: &[u8]) -> Cow<'_, str> {
    match RawName::Whole(name).shortened() {
        None => in_full(name),
        Some(shortened) => Cow::Owned(shortened.into()),
    }
}

/// Text from Redis that is no name: at most `most` bytes of it, then `…`.
#[must_use]
pub fn text(bytes: &[u8], most: usize) -> String {
    // Each byte is shown as one byte or more.
    let mut text = String::from_utf8_lossy(&bytes[..bytes.len().min(most + 4)]).into_owned();
    if text.len() > most {
        text.truncate(text.floor_char_boundary(most));
        text.push('…');
    }
    text
}

fn is_shown_in_full(name: &[u8]) -> bool {
    name.len() <= MAX_SHOWN_BYTES && {
        let shown = in_full(name);
        shown.len() <= MAX_SHOWN_BYTES && !looks_shortened(&shown)
    }
}

fn looks_shortened(shown: &str) -> bool {
    let digits = 2 * DIGEST_BYTES;
    let end = shown.len().checked_sub(digits).and_then(|at| shown.split_at_checked(at));
    end.is_some_and(|(before, digest)| {
        before.ends_with(MARKER) && digest.bytes().all(|digit| digit.is_ascii_digit() || (b'a'..=b'f').contains(&digit))
    })
}

fn shortened(head: &[u8], digest: &[u8; 32]) -> Box<str> {
    let mut shown = String::from_utf8_lossy(&head[..head.len().min(HEAD_BYTES)]).into_owned();
    shown.truncate(shown.floor_char_boundary(MAX_SHOWN_BYTES));
    shown.push_str(MARKER);
    shown.push_str(&hex(&digest[..DIGEST_BYTES]));
    shown.into()
}

fn in_full(name: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(name) {
        Ok(text) if text.is_ascii() || !text.contains(char::REPLACEMENT_CHARACTER) => Cow::Borrowed(text),
        _ => Cow::Owned(with_bytes(name)),
    }
}

fn with_bytes(name: &[u8]) -> String {
    let mut text = String::from_utf8_lossy(name).into_owned();
    text.push_str(" (0x");
    text.push_str(&hex(name));
    text.push(')');
    text
}

/// What is kept of one stream, from sample to sample.
pub trait OfStream {
    /// Nothing yet.
    fn new(key: StreamKey) -> Self;

    /// The stream.
    fn key(&self) -> &StreamKey;
}

/// Of these streams from now on, in this order. Of those that were there already, what was kept stays.
pub fn carry_over<T: OfStream>(kept: &mut Vec<T>, streams: &[StreamKey]) {
    if kept.iter().map(OfStream::key).eq(streams) {
        return;
    }
    let mut before: BTreeMap<StreamKey, T> = kept.drain(..).map(|of| (of.key().clone(), of)).collect();
    kept.extend(streams.iter().map(|key| before.remove(key).unwrap_or_else(|| T::new(key.clone()))));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_shown_as_it_is_and_bytes_are_never_merged() {
        assert_eq!(display_name("événements:€".as_bytes()), "événements:€");
        assert_eq!(display_name(b"bad\xff"), "bad\u{fffd} (0x626164ff)");
        let lookalike = display_name(b"bad\xff").into_owned();
        let names: [&[u8]; 5] = [b"bad\xff", b"bad\xfe", "bad\u{fffd}".as_bytes(), b"bad", lookalike.as_bytes()];
        for (i, a) in names.iter().enumerate() {
            for b in &names[i + 1..] {
                assert_ne!(display_name(a), display_name(b));
            }
        }
    }

    /// The SHA-256 of a name, to be cut in decoding.
    fn digest(name: &[u8]) -> [u8; 32] {
        Sha256::digest(name).into()
    }

    #[test]
    fn a_long_name_is_shown_by_its_beginning_and_its_digest() {
        let check = |name: &[u8], before: &str| {
            let hash: String = digest(name)[..16].iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(display_name(name), format!("{before}…#{hash}"));
        };
        assert_eq!(display_name(&[b'a'; 256]), "a".repeat(256));
        check(&[b'a'; 257], &"a".repeat(256));
        check(&vec![b'a'; 5_000_000], &"a".repeat(256));
        // At a character's boundary.
        check("€".repeat(86).as_bytes(), &"€".repeat(85));
        // Each byte is three bytes of U+FFFD, and two digits behind.
        assert_eq!(display_name(&[0xff; 50]).len(), 50 * 5 + 5);
        check(&[0xff; 51], &"\u{fffd}".repeat(51));
        check(&[0xff; 86], &"\u{fffd}".repeat(85));
        // What looks like one is one.
        let lookalike = display_name(&[b'a'; 257]).into_owned();
        check(lookalike.as_bytes(), &"a".repeat(256));
        let short = format!("x…#{}", "0".repeat(32));
        check(short.as_bytes(), &short);
        for plain in
            [format!("x…#{}", "0".repeat(31)), format!("x…#{}", "F".repeat(32)), format!("x#{}", "0".repeat(32))]
        {
            assert_eq!(display_name(plain.as_bytes()), plain);
        }
    }

    #[test]
    fn no_two_names_are_shown_as_one() {
        let mut names: Vec<Vec<u8>> =
            vec![b"a".to_vec(), vec![b'a'; 256], vec![b'a'; 257], vec![b'a'; 258], vec![0xff; 51]];
        names.extend([vec![0xff; 60], vec![0xff; 300], "€".repeat(86).into_bytes(), "€".repeat(87).into_bytes()]);
        names.push([vec![b'a'; 5000], b"b".to_vec()].concat());
        names.push([vec![b'a'; 5000], b"c".to_vec()].concat());
        // What each is shown as, as a name, and so on.
        for _ in 0..3 {
            let shown: Vec<Vec<u8>> = names.iter().map(|name| display_name(name).into_owned().into_bytes()).collect();
            names.extend(shown);
            names.sort();
            names.dedup();
        }
        let all: std::collections::BTreeSet<String> =
            names.iter().map(|name| display_name(name).into_owned()).collect();
        assert_eq!(all.len(), names.len());
        let keys: std::collections::BTreeSet<StreamKey> = names.iter().map(|name| name.as_slice().into()).collect();
        assert_eq!(keys.len(), names.len());
        let shown: std::collections::BTreeSet<_> = keys.iter().map(StreamKey::display_name).collect();
        assert_eq!(shown.len(), names.len());
    }

    #[test]
    fn a_name_that_was_cut_as_it_was_read_is_the_same() {
        for byte in [&b"a"[..], "€".as_bytes(), "🦀".as_bytes(), b"\xff", b"\xf0\x9f"] {
            for offset in 0..4 {
                let name = [&vec![b'x'; offset], byte.repeat(20_000).as_slice()].concat();
                let (head, digest) = (&name[..HEAD_BYTES], digest(&name));
                let cut = RawName::Cut { head, digest: &digest, length: name.len() as u64 };
                assert_eq!(ConsumerName::from(cut), ConsumerName::from(name.as_slice()), "{offset}");
                assert_eq!(ConsumerName::from(cut).display_name(), display_name(&name));
                assert_eq!(GroupName::from(cut), GroupName::from(name.as_slice()));
            }
        }
    }

    #[test]
    fn a_name_that_is_sent_is_kept_in_full_up_to_a_bound() {
        let held = |length: usize| GroupName::from(vec![b'g'; length].as_slice());
        assert!(held(MAX_NAME_BYTES).is_whole() && held(MAX_NAME_BYTES).as_bytes().len() == MAX_NAME_BYTES);
        let long = held(MAX_NAME_BYTES + 1);
        assert!(!long.is_whole() && long.as_bytes() == long.display_name().as_bytes());
        assert_eq!(long.length(), MAX_NAME_BYTES as u64 + 1);
        assert!(!ConsumerName::from([b'c'; 257].as_slice()).is_whole());
    }

    #[test]
    fn text_is_cut_at_a_character() {
        assert_eq!(text(b"7.4.1", 64), "7.4.1");
        assert_eq!(text(b"7.4.1", 5), "7.4.1");
        assert_eq!(text(b"7.4.1", 4), "7.4.…");
        assert_eq!((text(b"", 0).as_str(), text(b"7.4.1", 0).as_str()), ("", "…"));
        assert_eq!(text("€€€".as_bytes(), 7), "€€…");
        assert_eq!(text(b"\xff\xffabc", 7), "\u{fffd}\u{fffd}a…");
        assert_eq!(text(&[b'v'; 5000], 64).len(), 64 + "…".len());
    }
}
