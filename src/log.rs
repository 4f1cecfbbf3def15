//! Structured logs to standard error: logfmt or JSON, one line per event.

use std::io;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::{Layer as _, Registry, reload};

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `key=value` pairs.
    Logfmt,
    /// One JSON object a line.
    Json,
}

/// Changes what is logged while the program runs.
#[derive(Debug)]
pub struct Level(reload::Handle<Targets, Registry>);

impl Level {
    /// Logs this level and above from now on.
    pub fn set(&self, level: LevelFilter) {
        // Fails only where there is no subscriber any more.
        let _ = self.0.reload(targets(level));
    }
}

fn targets(level: LevelFilter) -> Targets {
    Targets::new().with_default(level.min(LevelFilter::WARN)).with_target("streamlag", level)
}

/// Sends the program's log lines of this level and above to standard error. What its libraries say is heard from
/// warnings upward only: their debug output may hold what a server or a client sent.
///
/// A line that cannot be written (a full disk, a log reader that has ended) is lost, and that is all: `tracing` would
/// complain of it on standard error, and panic where that fails too.
#[must_use]
pub fn start(level: LevelFilter, format: Format) -> Level {
    let (filter, handle) = reload::Layer::new(targets(level));
    let subscriber = match format {
        Format::Logfmt => {
            let layer =
                tracing_logfmt::builder().with_target(false).with_span_name(false).with_span_path(false).layer();
            let layer = layer.with_writer(io::stderr).log_internal_errors(false);
            tracing::subscriber::set_global_default(Registry::default().with(layer.with_filter(filter)))
        }
        Format::Json => {
            let layer = tracing_subscriber::fmt::layer()
                .json()
                .flatten_event(true)
                .with_current_span(true)
                .with_span_list(false)
                .with_target(false)
                .with_writer(io::stderr)
                .log_internal_errors(false);
            tracing::subscriber::set_global_default(Registry::default().with(layer.with_filter(filter)))
        }
    };
    // Fails only where somebody set one before, as tests may.
    let _ = subscriber;
    Level(handle)
}
