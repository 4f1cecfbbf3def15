//! The ready bytes of the metrics page: two formats, each plain and gzip, from one encoding.

use std::io::{self, Write as _};

use bytes::{Bytes, BytesMut};
use flate2::Compression;
use flate2::write::GzEncoder;

/// The content type of OpenMetrics 1.0.0.
pub const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The content type of Prometheus's classic text format.
pub const CLASSIC: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Fast rather than small: level 6 takes some fifteen times as long to save a third.
const GZIP_LEVEL: u32 = 1;

/// One encoded page in every form in which it is served.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// OpenMetrics.
    pub openmetrics: Encoded,
    /// Prometheus's classic text.
    pub classic: Encoded,
}

/// One format of a page.
#[derive(Clone, Debug, Default)]
pub struct Encoded {
    /// The text in pieces. The two formats share the bytes of their samples and differ in a few lines between.
    pub plain: Vec<Bytes>,
    /// The same compressed.
    pub gzip: Bytes,
}

impl Page {
    /// All forms of a page that is OpenMetrics text.
    ///
    /// # Errors
    /// Never by itself: writing to memory does not fail. The compressor's signature has one.
    pub fn from_openmetrics(text: Bytes) -> io::Result<Self> {
        let classic = classic_pieces(&text);
        Ok(Self {
            openmetrics: Encoded { gzip: gzip(std::slice::from_ref(&text))?, plain: vec![text] },
            classic: Encoded { gzip: gzip(&classic)?, plain: classic },
        })
    }

    /// The buffer of a page that nobody reads any more, empty, to write the next page into; a new one where somebody
    /// still does. Pages are megabytes: freeing and asking for that much every poll fragments the heap.
    #[must_use]
    pub fn into_buffer(self) -> BytesMut {
        let Self { openmetrics, classic } = self;
        // Its pieces are slices of the same buffer.
        drop(classic);
        let text = openmetrics.plain.into_iter().next().unwrap_or_default();
        let mut buffer = text.try_into_mut().unwrap_or_default();
        buffer.clear();
        buffer
    }
}

fn gzip(pieces: &[Bytes]) -> io::Result<Bytes> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::new(GZIP_LEVEL));
    for piece in pieces {
        encoder.write_all(piece)?;
    }
    Ok(encoder.finish()?.into())
}

/// The classic format of an OpenMetrics page: its samples as they are, and its descriptions where the formats differ.
///
/// They differ in this: in the classic format a counter's and an info's description carry the name of the samples, with
/// `_total` and `_info`; there is no type info, which becomes a gauge; there is no `# EOF`.
fn classic_pieces(openmetrics: &Bytes) -> Vec<Bytes> {
    let mut pieces = Vec::new();
    let mut kept_from = 0;
    let mut help = None;
    for at in description_lines(openmetrics) {
        let end = memchr::memchr(b'\n', &openmetrics[at..]).map_or(openmetrics.len(), |length| at + length + 1);
        let line = std::str::from_utf8(&openmetrics[at..end]).unwrap_or_default().trim_end();
        let mut words = line.splitn(4, ' ').skip(1);
        let (from, rewritten) = match (words.next(), words.next(), words.next()) {
            (Some("HELP"), Some(_), Some(text)) => {
                help = Some((at, text));
                continue;
            }
            (Some("TYPE"), Some(family), Some("counter")) => describe(at, help.take(), family, "_total", "counter"),
            (Some("TYPE"), Some(family), Some("info")) => describe(at, help.take(), family, "_info", "gauge"),
            (Some("EOF"), None, None) => (at, String::new()),
            _ => continue,
        };
        pieces.push(openmetrics.slice(kept_from..from));
        pieces.push(Bytes::from(rewritten));
        kept_from = end;
    }
    pieces.push(openmetrics.slice(kept_from..));
    pieces.retain(|piece| !piece.is_empty());
    pieces
}

/// A family's description with a suffix to its name, and where the description that it replaces begins.
fn describe(at: usize, help: Option<(usize, &str)>, family: &str, suffix: &str, kind: &str) -> (usize, String) {
    let mut text = String::new();
    let from = match help {
        Some((help_at, help)) => {
            text.push_str(&format!("# HELP {family}{suffix} {help}\n"));
            help_at
        }
        None => at,
    };
    text.push_str(&format!("# TYPE {family}{suffix} {kind}\n"));
    (from, text)
}

/// Where the lines begin that are no samples. A sample holds no line feed: label values escape it.
fn description_lines(text: &[u8]) -> impl Iterator<Item = usize> {
    let first = text.starts_with(b"# ").then_some(0);
    first.into_iter().chain(memchr::memmem::find_iter(text, b"\n# ").map(|at| at + 1))
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    const OPENMETRICS_TEXT: &str = "\
# HELP a A gauge.
# TYPE a gauge
a{x=\"# TYPE a counter\"} 1
# HELP b A counter.
# TYPE b counter
b_total{x=\"1\"} 2
b_total{x=\"2\"} 3
# HELP c An info.
# TYPE c info
c_info{v=\"1\"} 1
# HELP d A histogram.
# TYPE d histogram
d_sum 0.0
d_count 0
d_bucket{le=\"+Inf\"} 0
# EOF
";

    const CLASSIC_TEXT: &str = "\
# HELP a A gauge.
# TYPE a gauge
a{x=\"# TYPE a counter\"} 1
# HELP b_total A counter.
# TYPE b_total counter
b_total{x=\"1\"} 2
b_total{x=\"2\"} 3
# HELP c_info An info.
# TYPE c_info gauge
c_info{v=\"1\"} 1
# HELP d A histogram.
# TYPE d histogram
d_sum 0.0
d_count 0
d_bucket{le=\"+Inf\"} 0
";

    fn inflated(gzip: &Bytes) -> String {
        let mut text = String::new();
        flate2::read::GzDecoder::new(&gzip[..]).read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn classic_differs_only_in_descriptions_and_gzip_says_the_same() {
        let page = Page::from_openmetrics(Bytes::from(OPENMETRICS_TEXT)).unwrap();
        let joined = |pieces: &[Bytes]| String::from_utf8(pieces.concat()).unwrap();
        assert_eq!(joined(&page.openmetrics.plain), OPENMETRICS_TEXT);
        assert_eq!(joined(&page.classic.plain), CLASSIC_TEXT);
        assert_eq!(inflated(&page.openmetrics.gzip), OPENMETRICS_TEXT);
        assert_eq!(inflated(&page.classic.gzip), CLASSIC_TEXT);
    }

    #[test]
    fn a_buffer_is_used_again_only_when_nobody_reads_it() {
        let page = || Page::from_openmetrics(Bytes::from(OPENMETRICS_TEXT.as_bytes().to_vec())).unwrap();
        let buffer = page().into_buffer();
        assert!(buffer.is_empty() && buffer.capacity() >= OPENMETRICS_TEXT.len());
        let being_read = page();
        let reader = being_read.classic.plain[0].clone();
        assert_eq!(being_read.into_buffer().capacity(), 0);
        assert!(reader.starts_with(b"# HELP a"));
    }
}
