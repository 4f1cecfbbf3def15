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

/// Streams whose replies come together, as the program asks for them.
const STREAMS_PER_BATCH: u64 = 64;

/// Replies that come together, as they are on the wire.
#[derive(Clone, Debug)]
pub struct Batch {
    pub bytes: Vec<u8>,
    /// How many replies there are.
    pub replies: usize,
}

impl Size {
    /// The names of the streams.
    pub fn names(&self) -> impl Iterator<Item = String> + use<> {
        (0..self.streams).map(|n| format!("s:{n:05}"))
    }

    /// Commands about one stream: `XINFO STREAM`, `XINFO GROUPS`, and for each group `XINFO CONSUMERS` and `XPENDING`.
    pub fn commands_per_stream(&self) -> usize {
        2 + 2 * self.groups as usize
    }

    /// What there is to be read at the sample of this number: each stream's commands in a transaction. From sample to sample an
    /// entry is added, one is trimmed, and each group is given one and acknowledges one.
    pub fn replies(&self, sample: u64) -> Vec<Batch> {
        let batch = |first: u64| {
            let streams = STREAMS_PER_BATCH.min(self.streams - first);
            let mut replies = Reply(Vec::new());
            (0..streams).for_each(|_| self.transaction(&mut replies, sample));
            // The answers to MULTI and to EXEC are two more.
            Batch { bytes: replies.0, replies: streams as usize * (self.commands_per_stream() + 2) }
        };
        (0..self.streams).step_by(STREAMS_PER_BATCH as usize).map(batch).collect()
    }

    fn transaction(&self, reply: &mut Reply, sample: u64) {
        let commands = self.commands_per_stream();
        reply.line("+OK");
        (0..commands).for_each(|_| _ = reply.line("+QUEUED"));
        reply.open(commands as u64);
        let first = sample;
        let cursor = |group: u64| first + ENTRIES * (group + 1) / (self.groups + 1) - 1;
        reply.open(20).field("length", ENTRIES).field("radix-tree-keys", 1).field("radix-tree-nodes", 2);
        reply.id_field("last-generated-id", first + ENTRIES - 1);
        reply.text("max-deleted-entry-id").text("0-0");
        reply.field("entries-added", first + ENTRIES);
        reply.id_field("recorded-first-entry-id", first).field("groups", self.groups);
        reply.text("first-entry").entry(first).text("last-entry").entry(first + ENTRIES - 1);
        reply.open(self.groups);
        for group in 0..self.groups {
            reply.open(12).text("name").text(&format!("g{group}"));
            reply.field("consumers", self.consumers).field("pending", self.consumers);
            reply.id_field("last-delivered-id", cursor(group));
            reply.field("entries-read", cursor(group) + 1).field("lag", first + ENTRIES - 1 - cursor(group));
        }
        for group in 0..self.groups {
            reply.open(self.consumers);
            for consumer in 0..self.consumers {
                reply.open(6).text("name").text(&format!("c{consumer}")).field("pending", 1).field("idle", 131);
            }
            reply.open(1).open(4).id(cursor(group) - self.consumers + 1).text("c0").number(181).number(1);
        }
    }
}

/// A reply being written.
struct Reply(Vec<u8>);

impl Reply {
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
