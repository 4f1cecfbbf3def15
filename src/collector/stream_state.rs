//! What is kept of one stream from sample to sample. Pure.

use crate::analysis::lag::tracker::LagTracker;
use crate::collector::query::{GroupQuery, ReadOutcome};
use crate::collector::reading::{KeptGroup, KeptStream, StreamReading};
use crate::collector::request::{COMMANDS_PER_STREAM, cost};
use crate::model::reply::{ConsumerReply, GroupReply, OldestPending, StreamReply};
use crate::model::sample::{GroupSample, ReadError};
use crate::model::{ConsumerName, EntryId, GroupName, OfStream, StreamKey};
use crate::redis::reply_memory::{DecodedCharge, Full, ReplyMemory};
use crate::redis::script::Script;

/// From this many bytes in the first and last entry on, a stream is read only when it changed, and then by a script that
/// leaves them on the server. Below, that costs Redis more than sending them does.
const LARGE_BYTES: u64 = 16 * 1024;

/// A stream that was large is read plainly again below this share, so that entries of changing size are no reason to go
/// back and forth.
const PLAIN_AGAIN: u64 = 4;

/// What asking for a stream takes where nothing is known of it.
const UNKNOWN_COST: u64 = 4 * cost::COMMAND;

/// What an entry costs on the wire in addition to its fields: id, lengths, line ends.
const ENTRY_OVERHEAD_BYTES: u64 = 64;

/// Samples after which a group's oldest pending entry is asked for again though nothing shows that it has changed: `XCLAIM …
/// FORCE` and a cursor that was moved back and forth change it without a trace.
const PENDING_AGAIN: u32 = 12;

/// Samples after which a stream is asked about in full again though it told too much: half an hour where they are five seconds apart.
const ASIDE_SAMPLES: u32 = 360;

/// What is left out of a stream whose answers are more than a sample may read, or than it could read in time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Omitted {
    /// Nothing.
    #[default]
    Nothing,
    /// Consumers, and the oldest pending entry with its consumer.
    Consumers,
    /// Everything.
    All,
}

/// The names that the last sample had, so that those that stay are not allocated again.
#[derive(Debug, Default)]
pub(super) struct NameCache {
    /// Of all groups, in Redis's order.
    pub(super) groups: Vec<GroupName>,
    /// Of the consumers of each of them, where they were asked for.
    members: Vec<Vec<ConsumerName>>,
}

impl NameCache {
    /// What they take, in bytes.
    fn held(&self) -> usize {
        let groups: usize = self.groups.iter().map(|name| size_of::<GroupName>() + name_bytes(name.as_bytes())).sum();
        let members = self.members.iter().flatten();
        groups + members.map(|name| size_of::<ConsumerName>() + name_bytes(name.as_bytes())).sum::<usize>()
    }

    /// The consumers of a group.
    pub(super) fn members(&self, group: &GroupName) -> &[ConsumerName] {
        let place = self.groups.iter().position(|name| name == group);
        place.and_then(|place| self.members.get(place)).map_or(&[], Vec::as_slice)
    }
}

/// What is known of a group's pending entries.
#[derive(Debug)]
struct PendingCache {
    group: GroupName,
    /// What changes where they do: the cursor, how many there are, and how many each consumer has.
    marks: (EntryId, u64, u64),
    /// The oldest one.
    oldest: Option<OldestPending>,
    /// How many of them lay before the stream's first entry, and which that was; `None` where that was not counted.
    ghosts: Option<(u64, EntryId)>,
    /// Whether they had changed at the last sample, so that they may have again.
    changing: bool,
    /// Samples since they were asked for.
    age: u32,
}

/// What changes where a group's pending entries do.
fn marks(group: &GroupReply) -> (EntryId, u64, u64) {
    // FNV-1a: entries that change hands mostly change how many each has.
    let members = group.members.iter().flatten();
    let shares = members.fold(0xcbf2_9ce4_8422_2325_u64, |hash, consumer| {
        (hash ^ consumer.pending.unwrap_or(u64::MAX)).wrapping_mul(0x0100_0000_01b3)
    });
    (group.last_delivered, group.pending, shares)
}

/// What one stream's groups take of the memory for replies each, until they are sampled: as a reply, or as what follows from it.
pub(super) const GROUP_BYTES: usize =
    if size_of::<GroupReply>() > size_of::<GroupSample>() { size_of::<GroupReply>() } else { size_of::<GroupSample>() };

/// What is kept of one stream.
#[derive(Debug)]
pub(super) struct StreamState {
    pub(super) key: StreamKey,
    /// What this sample read of it so far; `None` once that was handed on.
    pub(super) read: Option<Result<StreamReading, ReadOutcome>>,
    /// What is known of it, to resolve lags.
    pub(super) tracker: LagTracker,
    /// The names that the last sample had.
    pub(super) names: NameCache,
    /// What is known of the pending entries of its monitored groups.
    pending: Vec<PendingCache>,
    /// Estimated cost of asking for it, in microseconds of Redis's time.
    cost: u64,
    /// Bytes in the fields of its first and last entry together; `None` before they were ever read.
    payload_bytes: Option<u64>,
    /// Bytes of an entry, on average over the last page that was counted.
    entry_bytes: Option<u64>,
    large: bool,
    left_out: Omitted,
    /// Samples since that is left out.
    left_out_for: u32,
    /// What the last sample read, where its entries are large: whether it changed since is found out without them.
    pub(super) kept: Option<KeptStream>,
    /// Whether it had changed by the newest sample.
    pub(super) changed: bool,
    /// How often in a row it was only asked whether it changed.
    pub(super) checks: u32,
    /// What its groups and consumers take of the memory for replies, in bytes.
    pub(super) held: usize,
}

impl OfStream for StreamState {
    fn new(key: StreamKey) -> Self {
        Self {
            key,
            read: None,
            tracker: LagTracker::default(),
            names: NameCache::default(),
            pending: Vec::new(),
            cost: 0,
            payload_bytes: None,
            entry_bytes: None,
            large: false,
            left_out: Omitted::Nothing,
            left_out_for: 0,
            kept: None,
            changed: false,
            checks: 0,
            held: 0,
        }
    }

    fn key(&self) -> &StreamKey {
        &self.key
    }
}

/// The memory that decoded streams of one server take.
#[derive(Debug)]
pub(super) struct DecodeMemory {
    charge: DecodedCharge,
    /// The place of the stream that is decoded.
    at: usize,
    /// Bytes that it holds so far.
    held: usize,
    /// Streams that would take more than they may, by their place, and whether they would even if no other server held anything.
    refused: Vec<(usize, Full)>,
}

impl DecodeMemory {
    /// Nothing is held yet.
    pub(super) fn of(memory: &'static ReplyMemory) -> Self {
        Self { charge: DecodedCharge::of(memory), at: 0, held: 0, refused: Vec::new() }
    }

    /// A stream is decoded.
    pub(super) fn begin(&mut self, at: usize, held: usize) {
        (self.at, self.held) = (at, held);
    }

    /// So many values of this size follow; whether there is memory for them.
    pub(super) fn take(&mut self, values: usize, size: usize) -> bool {
        self.set(self.held.saturating_add(values.saturating_mul(size)))
    }

    fn set(&mut self, bytes: usize) -> bool {
        match self.charge.change(self.held, bytes) {
            Ok(()) => self.held = bytes,
            Err(full) => self.refused.push((self.at, full)),
        }
        self.held == bytes
    }

    /// The stream is decoded further later on.
    pub(super) fn go_on(&self, held: &mut usize) {
        *held = self.held;
    }

    /// The stream is decoded, names included; whether there is memory for it. What it holds from now on is in `held`.
    pub(super) fn end(&mut self, held: &mut usize, groups: Option<&Vec<GroupReply>>) -> bool {
        let is_held = self.set(groups.map_or(0, held_by));
        *held = self.held;
        is_held
    }

    /// From now on only what the next sample needs of a stream is held.
    pub(super) fn keep(&mut self, state: &mut StreamState) {
        let kept = state.names.held() + state.kept.as_ref().map_or(0, held_by_kept);
        if self.charge.change(state.held, kept).is_ok() {
            state.held = kept;
        }
    }

    /// The streams of these states are all there are.
    pub(super) fn recount(&mut self, states: &[StreamState]) {
        self.charge.recount(states.iter().map(|state| state.held));
    }

    /// The streams that would take more than they may, by their place, and whether they would even if no other server held anything.
    pub(super) fn take_refused(&mut self) -> Vec<(usize, Full)> {
        std::mem::take(&mut self.refused)
    }
}

/// What a name takes, as it is shared by all who have it.
fn name_bytes(name: &[u8]) -> usize {
    const COUNTERS: usize = 2 * size_of::<usize>();
    name.len() + COUNTERS
}

/// What is kept of a stream with large entries takes, in bytes.
fn held_by_kept(kept: &KeptStream) -> usize {
    let names = kept.groups.iter().map(|group| name_bytes(group.name.as_bytes()));
    kept.groups.capacity() * size_of::<KeptGroup>() + names.sum::<usize>()
}

/// What some groups and their consumers take, in bytes.
fn held_by(groups: &Vec<GroupReply>) -> usize {
    let of_consumers = |members: &Vec<ConsumerReply>| -> usize {
        let names: usize = members.iter().map(|member| name_bytes(member.name.as_bytes())).sum();
        members.capacity() * size_of::<ConsumerReply>() + names
    };
    let of_group =
        |group: &GroupReply| name_bytes(group.name.as_bytes()) + group.members.as_ref().map_or(0, of_consumers);
    groups.capacity() * GROUP_BYTES + groups.iter().map(of_group).sum::<usize>()
}

impl StreamState {
    /// Forgets what need not be true of the server behind the next connection.
    pub(super) fn forget(&mut self) {
        self.tracker.forget();
        self.kept = None;
        self.pending.clear();
    }

    /// Forgets everything but the size of its entries: the stream could not be read.
    pub(super) fn forget_all(&mut self) {
        let Self { payload_bytes, large, left_out, left_out_for, held, .. } = *self;
        *self = Self { payload_bytes, large, left_out, left_out_for, held, ..Self::new(self.key.clone()) };
    }

    /// What is left out of it, as it told too much.
    pub(super) fn left_out(&self) -> Omitted {
        self.left_out
    }

    /// It told too much: more of it is left out.
    pub(super) fn tells_too_much(&mut self) {
        let left_out = if self.left_out == Omitted::Nothing { Omitted::Consumers } else { Omitted::All };
        (self.left_out, self.left_out_for) = (left_out, 0);
    }

    /// A sample begins: after some of them it is asked about in full again. Until it was read, it has a reason why not.
    pub(super) fn begin_sample(&mut self) {
        self.left_out_for += 1;
        if self.left_out_for > ASIDE_SAMPLES {
            self.left_out = Omitted::Nothing;
        }
        let why = match self.left_out {
            _ if !self.key.is_whole() => ReadError::NameTooLong(self.key.length()),
            Omitted::All => ReadError::TooLarge,
            Omitted::Nothing | Omitted::Consumers => ReadError::NotRead,
        };
        self.read = Some(Err(ReadOutcome::Error(why)));
    }

    /// Whether it is asked about.
    pub(super) fn may_be_asked(&self) -> bool {
        self.key.is_whole() && self.left_out != Omitted::All
    }

    /// What was read of it.
    pub(super) fn reading(&self) -> Option<&StreamReading> {
        self.read.as_ref()?.as_ref().ok()
    }

    /// Takes what a sample says of the size of its entries.
    pub(super) fn sampled(&mut self, stream: &StreamReply) {
        let bytes = stream.payload_bytes;
        self.large = bytes > if self.large { LARGE_BYTES / PLAIN_AGAIN } else { LARGE_BYTES };
        self.payload_bytes = Some(bytes);
    }

    /// What is asked about its groups: of pending entries only where something may have changed.
    pub(super) fn groups_asked(&self, consumers: bool, pending: bool) -> Vec<GroupQuery> {
        let may = self.left_out == Omitted::Nothing;
        let (consumers, pending) = (consumers && may, pending && may);
        let asked = |(place, name): (usize, &GroupName)| {
            let quiet = self.pending_of(place, name).is_some_and(|known| !known.changing && known.age < PENDING_AGAIN);
            GroupQuery::of(name, consumers, pending && !quiet)
        };
        self.tracker.groups().enumerate().map(asked).collect()
    }

    /// What is known of a group's pending entries. It is likely to be at this place.
    fn pending_of(&self, place: usize, group: &GroupName) -> Option<&PendingCache> {
        let likely = self.pending.get(place).filter(|known| known.group == *group);
        likely.or_else(|| self.pending.iter().find(|known| known.group == *group))
    }

    /// A group's oldest pending entry, if nothing has changed since it was asked for; and how many lie before the stream's first entry,
    /// where that has not changed either. It is likely to be the one at this place of those that are monitored.
    pub(super) fn known_pending(
        &self,
        place: usize,
        group: &GroupReply,
        first: Option<EntryId>,
    ) -> Option<(Option<OldestPending>, Option<u64>)> {
        let known = self.pending_of(place, &group.name).filter(|known| known.marks == marks(group))?;
        let ghosts = known.ghosts.filter(|(_, then)| Some(*then) == first).map(|(ghosts, _)| ghosts);
        Some((known.oldest.clone(), ghosts))
    }

    /// Keeps what the next sample can do without: `at` is the stream's place, so that not all are asked again at once.
    pub(super) fn keep(&mut self, at: usize, stream: &StreamReading) {
        let same = self.names.groups.len() == stream.groups.len()
            && self.names.groups.iter().zip(&stream.groups).all(|(name, group)| *name == group.name);
        if !same {
            self.names.groups = stream.groups.iter().map(|group| group.name.clone()).collect();
            self.names.members.clear();
        }
        self.names.members.resize_with(stream.groups.len(), Vec::new);
        let consumers: usize = stream.groups.iter().filter_map(|group| group.members.as_ref()).map(Vec::len).sum();
        let commands = COMMANDS_PER_STREAM + 2 + 2 * stream.monitored.len();
        let mut known = std::mem::take(&mut self.pending);
        self.pending.reserve_exact(stream.monitored.len());
        for (monitored, group) in stream.monitored() {
            let members = &mut self.names.members[monitored.place];
            let now = group.members.as_deref().unwrap_or_default();
            let same = members.len() == now.len() && members.iter().zip(now).all(|(name, now)| *name == now.name);
            if !same {
                *members = now.iter().map(|consumer| consumer.name.clone()).collect();
            }
            let marks = marks(group);
            let before = known.iter().position(|known| known.group == group.name).map(|place| known.swap_remove(place));
            let age = match &before {
                _ if group.oldest_pending.is_some() && before.is_some() => 0,
                Some(before) => before.age + 1,
                None => at as u32 % PENDING_AGAIN,
            };
            self.pending.push(PendingCache {
                group: group.name.clone(),
                marks,
                oldest: monitored.oldest_pending(group).cloned(),
                ghosts: monitored.ghosts(group).zip(stream.reply.first),
                changing: before.is_none_or(|before| before.marks != marks),
                age,
            });
        }
        self.cost = commands as u64 * cost::COMMAND
            + stream.groups.len() as u64 * cost::GROUP
            + consumers as u64 / 2 * cost::TWO_CONSUMERS;
        self.kept = stream.may_be_carried(self.large).then(|| KeptStream::of(stream));
    }

    /// Estimated cost of asking for it, in microseconds of Redis's time.
    pub(super) fn cost(&self) -> u64 {
        self.cost.max(UNKNOWN_COST)
    }

    /// Takes what a page says of the size of entries.
    pub(super) fn read_page(&mut self, entries: u64, bytes: u64) {
        self.entry_bytes = bytes.checked_div(entries).or(self.entry_bytes);
    }

    /// Whether its entries are large.
    pub(super) fn is_large(&self) -> bool {
        self.large
    }

    /// Whether it is known that asking for it costs little; `may_check` is whether it may be asked whether it changed.
    pub(super) fn may_be_asked_with_others(&self, may_check: bool) -> bool {
        (self.kept.is_some() && may_check) || (self.payload_bytes.is_some() && !self.large)
    }

    /// The script that should read it: where its entries are large, or of unknown size.
    pub(super) fn script(&self, script: Option<Script>) -> Option<Script> {
        script.filter(|_| self.large || self.payload_bytes.is_none())
    }

    /// Bytes in its first and last entry, as far as is known.
    pub(super) fn payload_bytes(&self) -> u64 {
        self.payload_bytes.unwrap_or(0)
    }

    /// What an entry is expected to take.
    pub(super) fn entry_bytes(&self) -> u64 {
        let guess = || self.payload_bytes.unwrap_or(0) / 2;
        self.entry_bytes.unwrap_or_else(guess).saturating_add(ENTRY_OVERHEAD_BYTES)
    }

    /// What an entry may take: as much as the first and the last one do together, at least.
    pub(super) fn most_bytes(&self) -> u64 {
        self.entry_bytes().max(self.payload_bytes.unwrap_or(0).saturating_add(ENTRY_OVERHEAD_BYTES))
    }
}
