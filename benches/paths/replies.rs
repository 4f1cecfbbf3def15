//! What Redis 7.0 answers to one sample, byte for byte: streams, groups and consumers of a given size, without a Redis.

/// How much there is to be sampled.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    pub name: &'static str,
    pub streams: u64,
    pub groups: u64,
    pub consumers: u64,
}

/// As `make bench` has them. The smallest one would measure what every poll does, whatever it finds.
pub const SIZES: [Size; 3] = [
    Size { name: "medium", streams: 100, groups: 2, consumers: 5 },
    Size { name: "large", streams: 1000, groups: 3, consumers: 5 },
    Size { name: "huge", streams: 10_000, groups: 2, consumers: 3 },
];

/// Entries of a stream, bytes of each, and the time of the first one.
const ENTRIES: u64 = 20;
const PAYLOAD: usize = 100;
const FIRST_MS: u64 = 1_700_000_000_000;

/// Replies to the questions about one stream at a sample: entry by entry is added, delivered and trimmed from sample to sample.
#[derive(Clone, Debug)]
pub struct StreamReplies {
    /// To `XINFO STREAM`.
    pub stream: Vec<u8>,
    /// To `XINFO GROUPS`.
    pub groups: Vec<u8>,
    /// To `XINFO CONSUMERS` and to `XPENDING key group - + 1`, for each group.
    pub details: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Size {
    /// The names of the streams.
    pub fn names(&self) -> impl Iterator<Item = String> + use<> {
        (0..self.streams).map(|n| format!("s:{n:05}"))
    }

    /// What there is to be read at the sample of this number.
    pub fn replies(&self, sample: u64) -> Vec<StreamReplies> {
        (0..self.streams).map(|_| self.stream(sample)).collect()
    }

    fn stream(&self, sample: u64) -> StreamReplies {
        let first = sample;
        let cursor = |group: u64| first + ENTRIES * (group + 1) / (self.groups + 1) - 1;
        let mut stream = Reply::array(20);
        stream.field("length", ENTRIES).field("radix-tree-keys", 1).field("radix-tree-nodes", 2);
        stream.id_field("last-generated-id", first + ENTRIES - 1);
        stream.text("max-deleted-entry-id").text("0-0");
        stream.field("entries-added", first + ENTRIES);
        stream.id_field("recorded-first-entry-id", first).field("groups", self.groups);
        stream.text("first-entry").entry(first).text("last-entry").entry(first + ENTRIES - 1);
        let mut groups = Reply::array(self.groups);
        let mut details = Vec::new();
        for group in 0..self.groups {
            groups.open(12).text("name").text(&format!("g{group}"));
            groups.field("consumers", self.consumers).field("pending", self.consumers);
            groups.id_field("last-delivered-id", cursor(group));
            groups.field("entries-read", cursor(group) + 1).field("lag", first + ENTRIES - 1 - cursor(group));
            let mut consumers = Reply::array(self.consumers);
            for consumer in 0..self.consumers {
                consumers.open(6).text("name").text(&format!("c{consumer}")).field("pending", 1).field("idle", 131);
            }
            let mut oldest = Reply::array(1);
            oldest.open(4).id(cursor(group) - self.consumers + 1).text("c0").number(181).number(1);
            details.push((consumers.0, oldest.0));
        }
        StreamReplies { stream: stream.0, groups: groups.0, details }
    }
}

/// A reply being written.
struct Reply(Vec<u8>);

impl Reply {
    fn array(items: u64) -> Self {
        let mut reply = Self(Vec::new());
        reply.open(items);
        reply
    }

    fn open(&mut self, items: u64) -> &mut Self {
        self.line(&format!("*{items}"))
    }

    fn text(&mut self, text: &str) -> &mut Self {
        self.line(&format!("${}", text.len())).line(text)
    }

    fn number(&mut self, number: u64) -> &mut Self {
        self.line(&format!(":{number}"))
    }

    fn id(&mut self, entry: u64) -> &mut Self {
        self.text(&format!("{}-0", FIRST_MS + entry))
    }

    fn field(&mut self, name: &str, number: u64) -> &mut Self {
        self.text(name).number(number)
    }

    fn id_field(&mut self, name: &str, entry: u64) -> &mut Self {
        self.text(name).id(entry)
    }

    fn entry(&mut self, entry: u64) -> &mut Self {
        self.open(2).id(entry).open(2).text("p").text(&"x".repeat(PAYLOAD))
    }

    fn line(&mut self, text: &str) -> &mut Self {
        self.0.extend_from_slice(text.as_bytes());
        self.0.extend_from_slice(b"\r\n");
        self
    }
}
