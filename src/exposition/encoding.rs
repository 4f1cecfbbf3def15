//! The bytes of the metrics page: two formats, each plain and gzip, from one encoding.
//!
//! The lines about streams come in blocks, one per family and some hundred streams. A block that says what it said last time is
//! not compressed again, nor held twice; and both formats share all of them. A long page is encoded before it is published. A
//! short one is made at the first request: making it takes longer than to sample so few streams, and most are never asked for.

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::sync::{Arc, LazyLock, Mutex, OnceLock, PoisonError};

use bytes::Bytes;
use crc32fast::Hasher;
use flate2::{Compress, Compression, FlushCompress};

use crate::exposition::part::PagePart;
use crate::sys::metric_catalog::{Kind, MetricName};

/// The content type of OpenMetrics 1.0.0.
pub const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The content type of Prometheus's classic text format.
pub const CLASSIC: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Fast rather than small: level 6 takes some fifteen times as long to save a third.
const GZIP_LEVEL: Compression = Compression::new(1);

/// With fewer bytes of lines about streams than this, a page is short: made when it is asked for, and compressed as a whole, as its
/// blocks are too short to be compressed well one by one.
const SHORT_PAGE: usize = 32 * 1024;

/// The pieces of a page shorter than this are put together for those who read it: some thirty would be three writes to the socket
/// where one will do.
const JOINED_PAGE: usize = 1024 * 1024;

/// Parts of a page that are kept with it: one per scrape job with collectors of its own. A
/// further part is made again for each scrape.
const MAX_PARTS: usize = 16;

/// Bytes of compressed text that are made at a time.
const ROOM: usize = 16 * 1024;

/// A gzip header that says nothing (RFC 1952): no name, no time, an unknown system.
const GZIP_HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];

/// An empty last block of deflated data (RFC 1951).
const LAST_BLOCK: [u8; 2] = [3, 0];

/// A page, or how to make it.
#[derive(Clone)]
pub struct Page(Arc<SharedPage>);

struct SharedPage {
    forms: LazyLock<EncodedPage, PageEncoder>,
    /// Parts of it that were requested, up to [`MAX_PARTS`].
    parts: Mutex<Vec<(PagePart, Arc<EncodedPage>)>>,
}

type PageEncoder = Box<dyn FnOnce() -> EncodedPage + Send>;

impl Page {
    /// A page that is there.
    #[must_use]
    pub fn made(forms: EncodedPage) -> Self {
        let page = Self::lazy(move || forms);
        LazyLock::force(&page.0.forms);
        page
    }

    /// A page that the first request makes: a defect in that fails the scrape, and is counted as one of a
    /// connection.
    #[must_use]
    pub fn lazy(make: impl FnOnce() -> EncodedPage + Send + 'static) -> Self {
        Self(Arc::new(SharedPage { forms: LazyLock::new(Box::new(make)), parts: Mutex::default() }))
    }

    /// The page in every form.
    #[must_use]
    pub fn forms(&self) -> &EncodedPage {
        &self.0.forms
    }

    /// A part of the page. Its text shares the bytes of the whole; its gzip form is made again. Some parts are kept for as long as the page
    /// is, so that each is made once.
    #[must_use]
    pub fn part(&self, part: PagePart) -> Arc<EncodedPage> {
        let of = |form: &Encoded| Encoded::of(part.of(form.plain()));
        let mut parts = self.0.parts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, kept)) = parts.iter().find(|(kept, _)| *kept == part) {
            return Arc::clone(kept);
        }
        let whole = self.forms();
        let made = Arc::new(EncodedPage { openmetrics: of(&whole.openmetrics), classic: of(&whole.classic) });
        if parts.len() < MAX_PARTS {
            parts.push((part, Arc::clone(&made)));
        }
        made
    }
}

impl fmt::Debug for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Page").finish_non_exhaustive()
    }
}

/// One encoded page in every form in which it is served.
#[derive(Clone, Debug, Default)]
pub struct EncodedPage {
    /// OpenMetrics.
    pub openmetrics: Encoded,
    /// Prometheus's classic text.
    pub classic: Encoded,
}

/// The bytes of an answer, in pieces. All who read the same answer share one list, so that a reader costs no list of its own, and what is
/// held for readers can be counted by answer.
pub type Pieces = Arc<[Bytes]>;

/// One format of a page.
#[derive(Clone, Debug, Default)]
pub struct Encoded {
    /// The text in pieces. The two formats share the bytes of their samples and differ in a few lines between.
    pieces: Pieces,
    /// The same in one piece, after the first request.
    joined: OnceLock<Pieces>,
    /// The same compressed, of a short page after the first request.
    gzip: OnceLock<Pieces>,
}

impl Encoded {
    fn of(pieces: Vec<Bytes>) -> Self {
        Self { pieces: pieces.into(), joined: OnceLock::new(), gzip: OnceLock::new() }
    }

    /// The text, in few pieces.
    #[must_use]
    pub fn plain(&self) -> &Pieces {
        let is_long = || self.pieces.iter().map(Bytes::len).sum::<usize>() >= JOINED_PAGE;
        if self.pieces.len() <= 1 || (self.joined.get().is_none() && is_long()) {
            return &self.pieces;
        }
        self.joined.get_or_init(|| [self.pieces.concat().into()].into())
    }

    /// The text compressed.
    #[must_use]
    pub fn gzip(&self) -> &Pieces {
        self.gzip.get_or_init(|| [compressed(&self.pieces)].into())
    }
}

impl EncodedPage {
    /// All forms of a short page: the families, and then `rest`, which is OpenMetrics text to its end.
    #[must_use]
    pub fn short(families: &[Family], rest: &Bytes) -> Self {
        let [openmetrics, classic] = plain(families, rest).map(Encoded::of);
        Self { openmetrics, classic }
    }
}

/// Whether a page with these families is short.
#[must_use]
pub fn is_short(families: &[Family]) -> bool {
    let blocks = families.iter().flat_map(|family| &family.blocks);
    blocks.map(|block| block.text.len()).sum::<usize>() < SHORT_PAGE
}

/// A text as a gzip file.
fn compressed(pieces: &[Bytes]) -> Bytes {
    thread_local! {
        // Made again each time, it would take as long as what it is for.
        static PACKER: RefCell<GzipEncoder> = RefCell::default();
    }
    let packed = PACKER.with_borrow_mut(|encoder| encoder.pack(pieces));
    // Writing to memory does not fail; should it, an empty answer fails the scrape, which is seen.
    packed.map(|packed| gzip([&packed])).unwrap_or_default()
}

/// The lines of one family about some streams.
#[derive(Clone, Debug)]
pub struct Chunk {
    text: Bytes,
    /// Made when it is first needed.
    packed: Option<GzipChunk>,
}

/// A piece of text compressed by itself, so that it can stand anywhere in a page.
#[derive(Clone, Debug)]
struct GzipChunk {
    deflated: Bytes,
    checksum: Hasher,
    /// Bytes of the text.
    length: u64,
}

impl Chunk {
    /// A block of this text; the one of last time where that says the same.
    #[must_use]
    pub fn of(text: &[u8], last: Option<&Self>) -> Self {
        match last.filter(|last| last.text == text) {
            Some(last) => last.clone(),
            None => Self { text: Bytes::copy_from_slice(text), packed: None },
        }
    }

    /// What it says.
    #[must_use]
    pub fn text(&self) -> &Bytes {
        &self.text
    }
}

/// A family on the page: how it is described in both formats, and its blocks.
#[derive(Clone, Debug)]
pub struct Family {
    openmetrics: Chunk,
    classic: Chunk,
    /// Its lines, in the order of the streams.
    pub blocks: Vec<Chunk>,
}

impl Family {
    /// A family without lines.
    #[must_use]
    pub fn new(name: &MetricName) -> Self {
        let MetricName { family, help, .. } = name;
        let describe = |name: &str, kind: &str| {
            Chunk::of(format!("# HELP {name} {help}\n# TYPE {name} {kind}\n").as_bytes(), None)
        };
        // In the classic format a counter's and an info's description carry the name of the samples, and there are no infos.
        let kind = name.kind.as_str();
        let classic = describe(&name.series(), if name.kind == Kind::Info { "gauge" } else { kind });
        Self { openmetrics: describe(family, kind), classic, blocks: Vec::new() }
    }
}

/// Compresses pages.
#[derive(Debug)]
pub struct GzipEncoder {
    deflate: Compress,
    /// Where compressed text is put, a piece at a time.
    room: Vec<u8>,
    buffer: Vec<u8>,
}

impl Default for GzipEncoder {
    fn default() -> Self {
        Self { deflate: Compress::new(GZIP_LEVEL, false), room: vec![0; ROOM], buffer: Vec::new() }
    }
}

impl GzipEncoder {
    /// All forms of a page: the families, and then `rest`, which is OpenMetrics text to its end.
    ///
    /// # Errors
    /// Never by itself: writing to memory does not fail. The compressor's signature has one.
    pub fn page(&mut self, families: &mut [Family], rest: &Bytes) -> io::Result<EncodedPage> {
        for family in families.iter_mut() {
            for block in family.blocks.iter_mut().chain([&mut family.openmetrics, &mut family.classic]) {
                if block.packed.is_none() {
                    block.packed = Some(self.pack(std::slice::from_ref(&block.text))?);
                }
            }
        }
        let [openmetrics, classic] = plain(families, rest);
        let rests = [self.pack(std::slice::from_ref(rest))?, self.pack(&classic_pieces(rest))?];
        let form = |pieces, gzip: Bytes| Encoded { gzip: Pieces::from([gzip]).into(), ..Encoded::of(pieces) };
        Ok(EncodedPage {
            openmetrics: form(openmetrics, joined(families, |family| &family.openmetrics, &rests[0])),
            classic: form(classic, joined(families, |family| &family.classic, &rests[1])),
        })
    }

    /// Compresses a piece of text so that it depends on nothing before it and ends on a whole byte.
    fn pack(&mut self, pieces: &[Bytes]) -> io::Result<GzipChunk> {
        self.deflate.reset();
        self.buffer.clear();
        let (mut checksum, mut length) = (Hasher::new(), 0);
        for (place, piece) in pieces.iter().enumerate() {
            checksum.update(piece);
            length += piece.len() as u64;
            let flush = if place + 1 == pieces.len() { FlushCompress::Sync } else { FlushCompress::None };
            let mut text = &piece[..];
            loop {
                let (before_in, before_out) = (self.deflate.total_in(), self.deflate.total_out());
                self.deflate.compress(text, &mut self.room, flush).map_err(io::Error::other)?;
                let took = (self.deflate.total_in() - before_in) as usize;
                let made = (self.deflate.total_out() - before_out) as usize;
                text = &text[took..];
                self.buffer.extend_from_slice(&self.room[..made]);
                // With room to spare there is nothing left to be said.
                if text.is_empty() && made < self.room.len() {
                    break;
                }
            }
        }
        Ok(GzipChunk { deflated: Bytes::copy_from_slice(&self.buffer), checksum, length })
    }
}

/// A page's text in pieces: OpenMetrics, and the classic format.
fn plain(families: &[Family], rest: &Bytes) -> [Vec<Bytes>; 2] {
    [
        pieces(families, |family| &family.openmetrics, std::slice::from_ref(rest)),
        pieces(families, |family| &family.classic, &classic_pieces(rest)),
    ]
}

/// A page's text in one format.
fn pieces<'a>(families: &'a [Family], description: impl Fn(&'a Family) -> &'a Chunk, rest: &[Bytes]) -> Vec<Bytes> {
    let of_family = |family: &'a Family| {
        let lines = family.blocks.iter().map(|block| &block.text);
        [&description(family).text].into_iter().chain(lines).filter(|text| !text.is_empty()).cloned()
    };
    families.iter().flat_map(of_family).chain(rest.iter().cloned()).collect()
}

/// A page's compressed pieces as one gzip file.
fn joined<'a>(families: &'a [Family], description: impl Fn(&'a Family) -> &'a Chunk, rest: &GzipChunk) -> Bytes {
    let of_family = |family: &'a Family| {
        [description(family)].into_iter().chain(&family.blocks).filter_map(|block| block.packed.as_ref())
    };
    let all: Vec<&GzipChunk> = families.iter().flat_map(of_family).chain([rest]).collect();
    gzip(all.iter().copied())
}

/// Compressed pieces as one gzip file.
fn gzip<'a>(all: impl IntoIterator<Item = &'a GzipChunk, IntoIter: Clone>) -> Bytes {
    let all = all.into_iter();
    let length: usize = all.clone().map(|packed| packed.deflated.len()).sum();
    let mut gzip = Vec::with_capacity(length + 64);
    gzip.extend_from_slice(&GZIP_HEADER);
    let (mut checksum, mut text_length) = (Hasher::new(), 0);
    for packed in all {
        gzip.extend_from_slice(&packed.deflated);
        checksum.combine(&packed.checksum);
        text_length += packed.length;
    }
    gzip.extend_from_slice(&LAST_BLOCK);
    gzip.extend_from_slice(&checksum.finalize().to_le_bytes());
    // Its length modulo 2^32, as the format has it.
    gzip.extend_from_slice(&(text_length as u32).to_le_bytes());
    gzip.into()
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
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::exposition::collectors::{Collector, Collectors};
    use crate::sys::metric_catalog;

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

    fn inflated(gzip: &Pieces) -> String {
        let mut text = String::new();
        flate2::read::GzDecoder::new(&gzip[0][..]).read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn classic_differs_only_in_descriptions_and_gzip_says_the_same() {
        let text = Bytes::from(OPENMETRICS_TEXT);
        let joined = |pieces: &[Bytes]| String::from_utf8(pieces.concat()).unwrap();
        for page in [GzipEncoder::default().page(&mut [], &text).unwrap(), EncodedPage::short(&[], &text)] {
            assert_eq!(joined(page.openmetrics.plain()), OPENMETRICS_TEXT);
            assert_eq!(joined(page.classic.plain()), CLASSIC_TEXT);
            assert_eq!(inflated(page.openmetrics.gzip()), OPENMETRICS_TEXT);
            assert_eq!(inflated(page.classic.gzip()), CLASSIC_TEXT);
        }
    }

    #[test]
    fn parts_of_a_page_are_kept_up_to_a_bound_and_share_its_bytes() {
        let page = Page::made(EncodedPage::short(&[], &Bytes::from(OPENMETRICS_TEXT)));
        let whole = PagePart { collectors: None, process: true };
        let plain = |form: &Encoded| String::from_utf8(form.plain().concat()).unwrap();
        let part = page.part(whole);
        assert_eq!(
            (plain(&part.openmetrics).as_str(), plain(&part.classic).as_str()),
            (OPENMETRICS_TEXT, CLASSIC_TEXT)
        );
        assert_eq!(inflated(part.openmetrics.gzip()), OPENMETRICS_TEXT);
        assert!(std::ptr::eq(part.openmetrics.plain()[0].as_ref(), page.forms().openmetrics.plain()[0].as_ref()));
        assert!(Arc::ptr_eq(&part, &page.part(whole)));
        let sets = Collector::ALL.iter().flat_map(|one| {
            let with = |other: &Collector| Collectors::NONE.with(*one).with(*other);
            Collector::ALL.iter().map(with).collect::<Vec<_>>()
        });
        for collectors in sets {
            let _ = page.part(PagePart { collectors: Some(collectors), process: true });
        }
        assert_eq!(page.0.parts.lock().unwrap().len(), MAX_PARTS);
        assert!(Arc::ptr_eq(&part, &page.part(whole)));
    }

    #[test]
    fn a_page_is_made_once_and_not_before_it_is_asked_for() {
        let made = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&made);
        let page = Page::lazy(move || {
            counted.fetch_add(1, Ordering::Relaxed);
            EncodedPage::short(&[], &Bytes::from(OPENMETRICS_TEXT))
        });
        assert_eq!(made.load(Ordering::Relaxed), 0);
        let same = page.clone();
        for page in [page, same] {
            assert_eq!(page.forms().openmetrics.plain().concat(), OPENMETRICS_TEXT.as_bytes());
        }
        assert_eq!(made.load(Ordering::Relaxed), 1);
    }

    const LINE: &str = "streamlag_polls_total{outcome=\"success\"} 1\n";

    #[test]
    fn a_long_page_says_the_same_in_pieces_and_compresses_only_what_is_new() {
        let mut families = [Family::new(&metric_catalog::POLLS), Family::new(&metric_catalog::REDIS_SERVER)];
        families[0].blocks = [3000, 0, 2].map(|lines| Chunk::of(LINE.repeat(lines).as_bytes(), None)).to_vec();
        let mut encoder = GzipEncoder::default();
        let page = encoder.page(&mut families, &Bytes::from(OPENMETRICS_TEXT)).unwrap();
        let help = metric_catalog::POLLS.help;
        let samples = LINE.repeat(3002);
        let plain = |form: &Encoded| String::from_utf8(form.plain().concat()).unwrap();
        let expected = format!("# HELP streamlag_polls {help}\n# TYPE streamlag_polls counter\n{samples}");
        assert!(
            plain(&page.openmetrics).starts_with(&expected) && plain(&page.openmetrics).ends_with(OPENMETRICS_TEXT)
        );
        let expected = format!("# HELP streamlag_polls_total {help}\n# TYPE streamlag_polls_total counter\n{samples}");
        assert!(plain(&page.classic).starts_with(&expected) && plain(&page.classic).ends_with(CLASSIC_TEXT));
        assert!(plain(&page.classic).contains("# TYPE streamlag_redis_server_info gauge\n"));
        for form in [&page.openmetrics, &page.classic] {
            assert_eq!(inflated(form.gzip()), plain(form));
        }

        let again = |lines: usize, last: &Chunk| Chunk::of(LINE.repeat(lines).as_bytes(), Some(last));
        let same = again(3000, &families[0].blocks[0]);
        assert!(std::ptr::eq(same.text.as_ref(), families[0].blocks[0].text.as_ref()) && same.packed.is_some());
        let other = again(2999, &families[0].blocks[0]);
        assert!(other.packed.is_none());
        families[0].blocks[0] = other;
        let page = encoder.page(&mut families, &Bytes::from(OPENMETRICS_TEXT)).unwrap();
        assert_eq!(inflated(page.openmetrics.gzip()), plain(&page.openmetrics));
    }
}
