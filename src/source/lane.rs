//! What the source keeps of one stream from sample to sample. Pure.

use super::script::Script;
use crate::lag::Ledger;
use crate::model::sample::StreamSample;

/// From so many bytes in the first and last entry on, a stream is read only when it changed, and then by a script that
/// leaves them on the server. Below, that costs Redis more than sending them does.
const LARGE_BYTES: u64 = 16 * 1024;

/// A stream that was large is read plainly again below this share, so that entries of changing size are no reason to go
/// back and forth.
const PLAIN_AGAIN: u64 = 4;

/// What an entry costs on the wire beside its fields: id, lengths, line ends.
const ENTRY_OVERHEAD_BYTES: u64 = 64;

/// One stream's lane.
#[derive(Debug, Default)]
pub(super) struct Lane {
    /// What is known of it, to resolve lags.
    pub(super) ledger: Ledger,
    /// Bytes in the fields of its first and last entry together; `None` before they were ever read.
    payload_bytes: Option<u64>,
    /// Bytes of an entry, on average over the last page that was counted.
    entry_bytes: Option<u64>,
    large: bool,
    /// The last sample, where its entries are large: whether it changed since is found out without them.
    pub(super) kept: Option<StreamSample>,
    /// Whether it had changed by the newest sample.
    pub(super) changed: bool,
    /// How often in a row it was only asked whether it changed.
    pub(super) glances: u32,
}

impl Lane {
    /// Forgets what need not be true of the server behind the next connection.
    pub(super) fn forget(&mut self) {
        self.ledger.forget();
        self.kept = None;
    }

    /// Forgets everything but the size of its entries: the stream could not be read.
    pub(super) fn forget_all(&mut self) {
        *self = Self { payload_bytes: self.payload_bytes, large: self.large, ..Self::default() };
    }

    /// Takes what a sample says of the size of its entries.
    pub(super) fn sampled(&mut self, stream: &StreamSample) {
        let bytes = stream.payload_bytes;
        self.large = bytes > if self.large { LARGE_BYTES / PLAIN_AGAIN } else { LARGE_BYTES };
        self.payload_bytes = Some(bytes);
    }

    /// Takes what a page says of the size of entries.
    pub(super) fn read_page(&mut self, entries: u64, bytes: u64) {
        self.entry_bytes = bytes.checked_div(entries).or(self.entry_bytes);
    }

    /// Whether its entries are large.
    pub(super) fn is_large(&self) -> bool {
        self.large
    }

    /// Whether it is known that asking for it costs little; `glances` is whether it may be asked whether it changed.
    pub(super) fn may_be_asked_with_others(&self, glances: bool) -> bool {
        (self.kept.is_some() && glances) || (self.payload_bytes.is_some() && !self.large)
    }

    /// The script that should read it: where its entries are large, or nobody knows yet.
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
