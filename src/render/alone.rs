//! A target's page without what is of the process: the first target's, which is a part of the page of the whole.

use std::borrow::Cow;

use bytes::{Bytes, BytesMut};

use super::names;

/// What begins a family: prometheus-client describes each, help first.
const BEGINS: &[u8] = b"# HELP ";

/// OpenMetrics text without the families of the process.
#[must_use]
pub fn alone(text: &[Bytes]) -> Bytes {
    let text: Cow<'_, [u8]> = match text {
        [whole] => Cow::Borrowed(whole),
        pieces => Cow::Owned(pieces.concat()),
    };
    let mut kept = BytesMut::with_capacity(text.len());
    let mut rest = &text[..];
    while !rest.is_empty() {
        // The end is a family to itself, as nothing of the process comes behind it.
        let next = [&b"\n# HELP "[..], b"\n# EOF"].iter().filter_map(|mark| memchr::memmem::find(rest, mark)).min();
        let (family, behind) = rest.split_at(next.map_or(rest.len(), |line_feed| line_feed + 1));
        if !is_of_process(family) {
            kept.extend_from_slice(family);
        }
        rest = behind;
    }
    kept.freeze()
}

fn is_of_process(family: &[u8]) -> bool {
    let name = family.strip_prefix(BEGINS).and_then(|line| line.split(|byte| *byte == b' ').next());
    name.is_some_and(|name| names::OF_PROCESS.iter().any(|of_process| of_process.family.as_bytes() == name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_of_the_process_go_and_all_else_stays() {
        let text = "# HELP event_consumer_lag L.\n# TYPE event_consumer_lag gauge\n\
                    event_consumer_lag{stream=\"# HELP process_cpu_seconds x\"} 1\n";
        let process =
            "# HELP process_cpu_seconds T.\n# TYPE process_cpu_seconds counter\nprocess_cpu_seconds_total 1\n";
        let polls = "# HELP streamlag_polls P.\n# TYPE streamlag_polls counter\nstreamlag_polls_total 1\n";
        let panics = "# HELP streamlag_panics P.\n# TYPE streamlag_panics counter\nstreamlag_panics_total 0\n";
        let end = "# EOF\n";
        let check = |pieces: &[&str], expected: &[&str]| {
            let pieces: Vec<Bytes> = pieces.iter().map(|piece| Bytes::from((*piece).to_owned())).collect();
            assert_eq!(String::from_utf8_lossy(&alone(&pieces)), expected.concat());
        };
        check(&[&[text, process, polls, panics, end].concat()], &[text, polls, end]);
        check(&[text, process, polls, panics, end], &[text, polls, end]);
        check(&[&[process, end].concat()], &[end]);
        check(&[&[text, polls, end].concat()], &[text, polls, end]);
        check(&[], &[]);
    }
}
