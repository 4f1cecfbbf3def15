//! The data types that every part shares: names, entry ids, what a poll read, and what it means. Pure data, no I/O, no clock.

pub mod entry_id;
pub mod failure;
pub mod glob;
pub mod lag;
pub mod names;
pub mod read_error;
pub mod reply;
pub mod sample;
pub mod shard;
pub mod stream_selection;
pub mod target;
pub mod text;
pub mod thresholds;

pub use entry_id::EntryId;
pub use failure::{FailureReason, RedirectKind};
pub use glob::GroupSelection;
pub use names::{ConsumerName, GroupName, OfStream, StreamKey, carry_over};
pub use shard::Shard;
pub use stream_selection::StreamSelection;
pub use target::TargetName;
