//! Runs the core paths of a poll with fixed input: `make callgrind` counts the instructions within each of them.

#[path = "../benches/paths/mod.rs"]
mod paths;

use std::hint::black_box;

use paths::{Core, PageBuilder, SIZES};

/// As in the program.
#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() {
    // The smallest: callgrind takes some fifty times as long as the program by itself.
    let mut core = Core::warmed_up(SIZES[0]);
    let replies = core.next_replies();
    let sample = paths::decode(&mut core.decoder, &replies);
    let snapshot = paths::resolve(&mut core, sample);
    black_box(paths::encode(&mut PageBuilder::default(), &snapshot));
}
