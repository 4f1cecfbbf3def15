//! A part of a page: the families of some collectors, and with or without what is of the process.

use bytes::Bytes;

use crate::exposition::collectors::Collectors;
use crate::sys::metric_catalog;

/// What begins a family: prometheus-client describes each, help first.
const BEGINS: &[u8] = b"# HELP ";

/// What ends a page of OpenMetrics text.
const END: &[u8] = b"# EOF";

/// Which part of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PagePart {
    /// The collectors whose families are in it; `None` for all that the page has.
    pub collectors: Option<Collectors>,
    /// Whether what is of the process is in it.
    pub process: bool,
}

impl PagePart {
    /// The part of a page's text, in one of the two formats. It shares the bytes of the whole.
    #[must_use]
    pub fn of(self, text: &[Bytes]) -> Vec<Bytes> {
        let mut kept = Vec::new();
        // A family may be cut into pieces, of which only the first begins with its description.
        let mut keeps = true;
        for piece in text {
            let mut from = 0;
            for at in family_begins(piece) {
                let keeps_next = self.keeps(&piece[at..]);
                if keeps && !keeps_next {
                    kept.push(piece.slice(from..at));
                }
                if !keeps && keeps_next {
                    from = at;
                }
                keeps = keeps_next;
            }
            if keeps {
                kept.push(piece.slice(from..));
            }
        }
        kept.retain(|piece| !piece.is_empty());
        kept
    }

    /// Whether the family that begins here is in it. The end is a family to itself.
    fn keeps(self, text: &[u8]) -> bool {
        let name = text.strip_prefix(BEGINS).and_then(|line| line.split(|byte| *byte == b' ').next());
        let Some(name) = name.and_then(|name| std::str::from_utf8(name).ok()) else { return true };
        // The classic format describes counters by the name of their samples.
        let family = name.strip_suffix("_total").unwrap_or(name);
        let of_process = || metric_catalog::OF_PROCESS.iter().any(|of_process| of_process.family == family);
        self.collectors.is_none_or(|collectors| collectors.show(family)) && (self.process || !of_process())
    }
}

/// Where families begin, and the end. No sample holds a line feed: label values escape it.
fn family_begins(text: &[u8]) -> impl Iterator<Item = usize> {
    let begins = |at: &usize| text[*at..].starts_with(BEGINS) || text[*at..].starts_with(END);
    let lines = memchr::memmem::find_iter(text, b"\n# ").map(|at| at + 1);
    [0].into_iter().chain(lines).filter(begins)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exposition::collectors::Collector;

    const LAG: &str = "# HELP event_consumer_lag L.\n# TYPE event_consumer_lag gauge\n\
                       event_consumer_lag{stream=\"# HELP process_cpu_seconds x\"} 1\n";
    const ADDED: &str = "# HELP event_stream_entries_added A.\n# TYPE event_stream_entries_added counter\n\
                         event_stream_entries_added_total{stream=\"s\"} 1\n";
    const ADDED_CLASSIC: &str = "# HELP event_stream_entries_added_total A.\n# TYPE event_stream_entries_added_total \
                                 counter\nevent_stream_entries_added_total{stream=\"s\"} 1\n";
    const PROCESS: &str =
        "# HELP process_cpu_seconds T.\n# TYPE process_cpu_seconds counter\nprocess_cpu_seconds_total 1\n";
    const PROCESS_CLASSIC: &str =
        "# HELP process_cpu_seconds_total T.\n# TYPE process_cpu_seconds_total counter\nprocess_cpu_seconds_total 1\n";
    const POLLS: &str = "# HELP streamlag_polls P.\n# TYPE streamlag_polls counter\nstreamlag_polls_total 1\n";
    const END: &str = "# EOF\n";

    fn check(part: PagePart, pieces: &[&str], expected: &[&str]) {
        let of = |pieces: &[Bytes]| String::from_utf8(part.of(pieces).concat()).unwrap();
        let bytes = |text: &str| Bytes::from(text.to_owned());
        let whole: String = pieces.concat();
        assert_eq!(of(&[bytes(&whole)]), expected.concat(), "in one piece");
        assert_eq!(of(&pieces.iter().map(|piece| bytes(piece)).collect::<Vec<_>>()), expected.concat(), "by family");
        // As blocks of lines are: each line a piece.
        let lines: Vec<Bytes> = whole.split_inclusive('\n').map(bytes).collect();
        assert_eq!(of(&lines), expected.concat(), "by line");
    }

    #[test]
    fn families_of_the_process_go_and_all_else_stays() {
        let alone = PagePart { collectors: None, process: false };
        check(alone, &[LAG, ADDED, PROCESS, POLLS, END], &[LAG, ADDED, POLLS, END]);
        check(alone, &[PROCESS_CLASSIC, POLLS], &[POLLS]);
        check(alone, &[PROCESS, END], &[END]);
        check(alone, &[], &[]);
    }

    #[test]
    fn collectors_show_their_families_and_those_of_the_exporter() {
        let streams = PagePart { collectors: Some(Collectors::NONE.with(Collector::Streams)), process: true };
        check(streams, &[LAG, ADDED, PROCESS, POLLS, END], &[ADDED, PROCESS, POLLS, END]);
        check(streams, &[LAG, ADDED_CLASSIC, PROCESS_CLASSIC, POLLS], &[ADDED_CLASSIC, PROCESS_CLASSIC, POLLS]);
        let groups = PagePart { collectors: Some(Collectors::NONE.with(Collector::Groups)), process: false };
        check(groups, &[LAG, ADDED, PROCESS, POLLS, END], &[LAG, POLLS, END]);
    }
}
