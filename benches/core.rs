//! `make bench-core`: how long the core paths of a poll take, alone. `make callgrind` counts their instructions.

mod paths;

use std::cell::RefCell;

use divan::Bencher;
use divan::counter::ItemsCount;
use paths::{Core, PageBuilder, SIZES, Size};

/// As in the program.
#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() {
    divan::main();
}

fn size(name: &str) -> Size {
    *SIZES.iter().find(|size| size.name == name).unwrap_or(&SIZES[0])
}

fn names() -> impl Iterator<Item = &'static str> {
    SIZES.iter().map(|size| size.name)
}

#[divan::bench(args = names())]
fn decode(bencher: Bencher<'_, '_>, name: &str) {
    let size = size(name);
    let mut core = Core::warmed_up(size);
    let replies = core.next_replies();
    bencher.counter(ItemsCount::new(size.streams)).bench_local(|| paths::decode(&mut core.decoder, &replies));
}

#[divan::bench(args = names())]
fn resolve(bencher: Bencher<'_, '_>, name: &str) {
    let size = size(name);
    let core = RefCell::new(Core::warmed_up(size));
    let next = || {
        let mut core = core.borrow_mut();
        let replies = core.next_replies();
        paths::decode(&mut core.decoder, &replies)
    };
    bencher
        .counter(ItemsCount::new(size.streams))
        .with_inputs(next)
        .bench_local_values(|sample| paths::resolve(&mut core.borrow_mut(), sample));
}

/// Everything that is said of streams has changed since the page before.
#[divan::bench(args = names())]
fn encode(bencher: Bencher<'_, '_>, name: &str) {
    let size = size(name);
    let mut core = Core::warmed_up(size);
    let mut snapshots = [(); 2].map(|()| {
        let replies = core.next_replies();
        let sample = paths::decode(&mut core.decoder, &replies);
        paths::resolve(&mut core, sample)
    });
    let mut press = PageBuilder::default();
    bencher.counter(ItemsCount::new(size.streams)).bench_local(|| {
        snapshots.swap(0, 1);
        paths::encode(&mut press, &snapshots[0])
    });
}
