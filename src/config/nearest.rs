//! The known name nearest to one that is unknown, to suggest it.

/// Longer names have no near miss: they would only cost time.
const MAX_BYTES: usize = 80;

/// Typing errors in a name that still suggest another: one per this many bytes, and at least one.
const BYTES_PER_SLIP: usize = 5;

/// The known name that is most like this one, if one is like it at all. Case, dots, dashes and underscores do not count.
pub(super) fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let plain = |text: &str| text.to_ascii_lowercase().replace(['.', '_'], "-");
    if name.len() > MAX_BYTES {
        return None;
    }
    let name = plain(name);
    let most = (name.len() / BYTES_PER_SLIP).max(1);
    let distances = known.into_iter().map(|known| (distance(name.as_bytes(), plain(known).as_bytes()), known));
    distances
        .filter(|(distance, known)| *distance <= most && *distance < known.len())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, known)| known)
}

/// Bytes to insert, remove or replace to make one of the other (Levenshtein).
fn distance(one: &[u8], other: &[u8]) -> usize {
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.iter().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, b) in other.iter().enumerate() {
            let replaced = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_finds_its_name_and_another_word_finds_none() {
        let check = |name: &str, expected: Option<&str>| {
            assert_eq!(
                nearest(name, ["poll.interval", "poll.spread", "streams", "STREAMLAG_STREAMS"]),
                expected,
                "{name}"
            );
        };
        check("poll.intervall", Some("poll.interval"));
        check("poll-interval", Some("poll.interval"));
        check("pol.inteval", Some("poll.interval"));
        check("STREAMLAG_STREAM", Some("STREAMLAG_STREAMS"));
        check("stream", Some("streams"));
        check("nonsense", None);
        check("poll", None);
        check("", None);
        check(&"x".repeat(100_000), None);
        assert_eq!((distance(b"", b"abc"), distance(b"kitten", b"sitting"), distance(b"ab", b"ab")), (3, 3, 0));
    }
}
