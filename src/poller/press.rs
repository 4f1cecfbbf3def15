//! Where pages are made: the lines about streams, the rest, and all of it in the forms in which it is served.

use bytes::{Bytes, BytesMut};

use super::Own;
use crate::model::view::View;
use crate::process::process_stats;
use crate::render::exposition::{self, Settings};
use crate::render::lines::Lines;
use crate::render::page::{self, Forms, Packer, Page};

/// A page with more streams than this is compressed on a thread of its own, so that the pollers of other targets need not wait for
/// it: it takes more than a millisecond. With fewer, going there takes longer.
const COMPRESSED_AT_ONCE: usize = 100;

/// Makes pages.
#[derive(Default)]
pub(super) struct Press {
    pub(super) lines: Lines,
    packer: Packer,
}

impl Press {
    /// The page of a view whose streams' lines hold. `None` where the program ends before it is made.
    pub(super) async fn print(&mut self, view: View, shown: Settings, own: Own) -> Option<Page> {
        if view.fresh.is_none() {
            return Some(print_without_streams(view, shown, own));
        }
        if page::is_short(self.lines.families()) {
            let families = self.lines.families().to_vec();
            return Some(Page::when_asked(move || Forms::short(&families, &rest(view, shown, &own))));
        }
        if view.streams.len() <= COMPRESSED_AT_ONCE {
            return Some(self.print_now(view, shown, &own));
        }
        let mut press = std::mem::take(self);
        let printing = tokio::task::spawn_blocking(move || (press.print_now(view, shown, &own), press));
        match printing.await {
            Ok((page, press)) => {
                *self = press;
                Some(page)
            }
            Err(error) => match error.try_into_panic() {
                // Readers would be shown the last page for ever.
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => {
                    tracing::debug!("the program ends before the page is encoded");
                    None
                }
            },
        }
    }

    fn print_now(&mut self, view: View, shown: Settings, own: &Own) -> Page {
        let forms = self.packer.page(self.lines.families(), &rest(view, shown, own));
        Page::made(forms.unwrap_or_else(|error| {
            // Writing to memory does not fail; should it, an empty page fails the scrape, which is seen.
            tracing::error!(%error, "the metrics page could not be compressed");
            Forms::default()
        }))
    }
}

/// The page of a view without a fresh sample: nothing is said of streams.
pub(super) fn print_without_streams(view: View, shown: Settings, own: Own) -> Page {
    Page::when_asked(move || Forms::short(&[], &rest(view, shown, &own)))
}

/// What the page says beside the streams.
fn rest(view: View, shown: Settings, own: &Own) -> Bytes {
    let mut text = BytesMut::new();
    let process = shown.whole.then(process_stats).flatten();
    let registries = [&*own.polls, &*own.process];
    let registries = if shown.whole { &registries[..] } else { &registries[..1] };
    let encoded = exposition::encode_rest(&mut text, view, shown, process, registries);
    debug_assert!(encoded.is_ok(), "writing to memory does not fail");
    text.freeze()
}
