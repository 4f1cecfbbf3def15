//! Names as Redis has them: any bytes at all, not necessarily text.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::sync::Arc;

/// Declares a name type, so that a group's name cannot be passed where a stream's is wanted.
macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(Arc<[u8]>);

        impl $name {
            /// The name as Redis has it.
            #[must_use]
            pub fn as_bytes(&self) -> &[u8] {
                &self.0
            }

            /// The name as people are shown it; see [`shown`].
            #[must_use]
            pub fn shown(&self) -> Cow<'_, str> {
                shown(&self.0)
            }
        }

        impl AsRef<[u8]> for $name {
            fn as_ref(&self) -> &[u8] {
                &self.0
            }
        }

        impl From<&str> for $name {
            fn from(name: &str) -> Self {
                Self(name.as_bytes().into())
            }
        }

        impl From<&[u8]> for $name {
            fn from(name: &[u8]) -> Self {
                Self(name.into())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.shown())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.shown(), f)
            }
        }
    };
}

name!(
    /// The key of a stream.
    StreamKey
);
name!(
    /// The name of a consumer group.
    GroupName
);
name!(
    /// The name of a consumer in a group.
    ConsumerName
);

/// A name as text. Text stays as it is. Bytes that are not UTF-8 become U+FFFD and the whole name is followed by its
/// bytes in hexadecimal, because two names must never be shown as one: their series would be merged.
///
/// The rule is injective: what is shown without U+FFFD is the name itself, and what is shown with one ends in its bytes.
#[must_use]
pub fn shown(name: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(name) {
        Ok(text) if text.is_ascii() || !text.contains(char::REPLACEMENT_CHARACTER) => Cow::Borrowed(text),
        _ => Cow::Owned(with_bytes(name)),
    }
}

fn with_bytes(name: &[u8]) -> String {
    let mut text = String::from_utf8_lossy(name).into_owned();
    text.push_str(" (0x");
    for byte in name {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text.push(')');
    text
}

/// What is kept of each stream, in the order of `after`: of those that are in `before` what there was, of others nothing yet.
pub fn rearranged<T: Default>(before: &[StreamKey], kept: Vec<T>, after: &[StreamKey]) -> Vec<T> {
    let mut kept: BTreeMap<_, T> = before.iter().zip(kept).collect();
    after.iter().map(|key| kept.remove(key).unwrap_or_default()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_shown_as_it_is_and_bytes_are_never_merged() {
        assert_eq!(shown("événements:€".as_bytes()), "événements:€");
        assert_eq!(shown(b"bad\xff"), "bad\u{fffd} (0x626164ff)");
        let lookalike = shown(b"bad\xff").into_owned();
        let names: [&[u8]; 5] = [b"bad\xff", b"bad\xfe", "bad\u{fffd}".as_bytes(), b"bad", lookalike.as_bytes()];
        for (i, a) in names.iter().enumerate() {
            for b in &names[i + 1..] {
                assert_ne!(shown(a), shown(b));
            }
        }
    }
}
