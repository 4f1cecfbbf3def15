//! Builds metrics pages: the lines about streams, the rest, and all of it in the encodings in which it is served.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use prometheus_client::encoding::text::encode_registry;
use prometheus_client::registry::Registry;

use crate::analysis::view::View;
use crate::exposition::encoding::{self, EncodedPage, GzipEncoder, Page};
use crate::exposition::registry::{self, PageSettings};
use crate::exposition::series::SeriesWriter;
use crate::store::forecasts::ShownForecasts;
use crate::sys::process_metrics::process_stats;

/// The program's own counters, as far as this target's page shows them.
#[derive(Clone, Debug)]
pub struct SelfRegistries {
    /// What is counted of this target's polls.
    pub polls: Arc<Registry>,
    /// What is counted of the process, which only the page of the whole shows.
    pub process: Arc<Registry>,
    /// What is forecast of this target's groups.
    pub forecasts: ShownForecasts,
}

/// A page with more streams than this is compressed on a thread of its own, so that the pollers of other targets need not wait for
/// it: it takes more than a millisecond. With fewer, going there takes longer.
const COMPRESSED_AT_ONCE: usize = 100;

/// What the counters of polls take as text, more or less, in bytes.
const POLLS_ROOM: usize = 4096;

/// Makes pages.
#[derive(Default)]
pub(super) struct PageBuilder {
    pub(super) lines: SeriesWriter,
    pub(super) encoder: GzipEncoder,
}

impl PageBuilder {
    /// The page of a view whose streams' lines hold. `None` where the program ends before it is made.
    pub(super) async fn print(&mut self, view: View, shown: PageSettings, own: SelfRegistries) -> Option<Page> {
        if view.fresh.is_none() {
            return Some(print_without_streams(view, shown, own));
        }
        let rest = PageTail::of(view, shown, own);
        if encoding::is_short(self.lines.families()) {
            let families = self.lines.families().to_vec();
            return Some(Page::lazy(move || EncodedPage::short(&families, &rest.text())));
        }
        if rest.view.streams.len() <= COMPRESSED_AT_ONCE {
            return Some(self.print_now(rest));
        }
        let mut page_builder = std::mem::take(self);
        let printing = tokio::task::spawn_blocking(move || (page_builder.print_now(rest), page_builder));
        match printing.await {
            Ok((page, page_builder)) => {
                *self = page_builder;
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

    fn print_now(&mut self, rest: PageTail) -> Page {
        let forms = self.encoder.page(self.lines.families(), &rest.text());
        Page::made(forms.unwrap_or_else(|error| {
            // Writing to memory does not fail; should it, an empty page fails the scrape, which is seen.
            tracing::error!(%error, "cannot compress the metrics page");
            EncodedPage::default()
        }))
    }
}

/// The page of a view without a fresh sample: streams are left out.
pub(super) fn print_without_streams(view: View, shown: PageSettings, own: SelfRegistries) -> Page {
    let rest = PageTail::of(view, shown, own);
    Page::lazy(move || EncodedPage::short(&[], &rest.text()))
}

/// What a page tells apart from the streams.
struct PageTail {
    view: View,
    shown: PageSettings,
    /// The counters of the polls up to this view. When the page is asked for, the next poll may have counted already, and a page
    /// that says how one poll ended and counts another is wrong.
    polls: String,
    process: Arc<Registry>,
}

impl PageTail {
    fn of(view: View, shown: PageSettings, own: SelfRegistries) -> Self {
        let mut polls = String::with_capacity(POLLS_ROOM);
        let encoded = encode_registry(&mut polls, &own.polls);
        debug_assert!(encoded.is_ok(), "writing to memory does not fail");
        Self { view, shown, polls, process: own.process }
    }

    fn text(self) -> Bytes {
        let Self { view, shown, polls, process } = self;
        let stats = shown.whole.then(process_stats).flatten();
        let process = shown.whole.then_some(&*process);
        let mut text = BytesMut::new();
        let encoded = registry::encode_rest(&mut text, view, shown, stats, &polls, process);
        debug_assert!(encoded.is_ok(), "writing to memory does not fail");
        text.freeze()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::thresholds::Thresholds;
    use crate::sys::own_metrics::{PollMetrics, PollOutcome};

    fn view() -> View {
        View::unread(Duration::from_secs(5))
    }

    const SHOWN: PageSettings = PageSettings {
        poll_interval: Duration::from_secs(5),
        max_redis_share: 1.0,
        discovery_interval: None,
        shard: None,
        round_trip_limit: Duration::from_millis(1),
        thresholds: Thresholds { degraded: 100, unhealthy: 1000 },
        whole: true,
    };

    #[test]
    fn a_page_counts_the_polls_up_to_its_own_whenever_it_is_asked_for() {
        let mut registry = Registry::default();
        let metrics = PollMetrics::register(&mut registry);
        let own =
            SelfRegistries { polls: Arc::new(registry), process: Arc::default(), forecasts: ShownForecasts::default() };
        metrics.poll_ended(PollOutcome::Success, Duration::ZERO);
        let page = print_without_streams(view(), SHOWN, own);
        metrics.poll_ended(PollOutcome::Success, Duration::ZERO);
        let text = page.forms().openmetrics.plain().concat();
        let text = String::from_utf8_lossy(&text);
        assert!(text.contains("streamlag_polls_total{outcome=\"success\"} 1\n"), "{text}");
    }
}
