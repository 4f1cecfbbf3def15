//! Structured logs to standard error: logfmt or JSON, one line per event.
//!
//! Every line passes here: `rate` bounds how many lines of one kind there are, `format` writes one, `line` bounds what is in it,
//! and `queue` bounds how many wait to be written.

mod format;
mod line;
mod queue;
mod rate;

use std::io;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use prometheus_client::metrics::counter::Counter;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::{Layer as _, Registry, reload};

use queue::Queue;
use rate::{LineRate, PERIOD, RateLimited};

/// What is left of the log is written for so long when the program ends.
pub const END_TIME: Duration = Duration::from_secs(2);

/// The log of this process.
static LOG: OnceLock<(Arc<Queue>, Arc<LineRate>)> = OnceLock::new();

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

/// Takes lines as they are made.
#[derive(Clone, Debug)]
struct LogWriter {
    queue: Arc<Queue>,
    format: Format,
}

impl MakeWriter<'_> for LogWriter {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

impl io::Write for LogWriter {
    /// Takes a line; each comes whole.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.queue.push(line::clean(&String::from_utf8_lossy(line), self.format));
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Sends the program's log lines of this level and above to standard error. What its libraries say is heard from
/// warnings upward only: their debug output may hold what a server or a client sent.
///
/// The log never blocks. A line that cannot be written (a full disk, a log reader that has ended) is lost, and so is what comes while
/// `queue::MAX_WAITING` lines wait, as with a stalled reader: see [`dropped`].
#[must_use]
pub fn start(level: LevelFilter, format: Format) -> Level {
    let (filter, handle) = reload::Layer::new(targets(level));
    let (queue, rate) = LOG.get_or_init(|| {
        let queue = Arc::<Queue>::default();
        let rate = LineRate::new(Arc::clone(&queue));
        (queue, Arc::new(rate))
    });
    // Where that fails all lines count as dropped, once the queue is full.
    let due = Arc::clone(rate);
    let _ = queue.write_apart(move |now| due.say(now));
    let lines = LogWriter { queue: Arc::clone(queue), format };
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(lines)
        .log_internal_errors(false)
        .fmt_fields(format::LogFormatter(format))
        .event_format(RateLimited { format: format::LogFormatter(format), rate: Arc::clone(rate) });
    let subscriber = tracing::subscriber::set_global_default(Registry::default().with(layer.with_filter(filter)));
    // Fails only where one is set, as in tests.
    let _ = subscriber;
    Level(handle)
}

/// Counts the lines that were not written.
#[must_use]
pub fn dropped() -> Counter {
    LOG.get().map(|(queue, _)| queue.dropped.clone()).unwrap_or_default()
}

/// Waits until what was logged so far is written, or for so long.
pub fn drain(most: Duration) {
    if let Some((queue, _)) = LOG.get() {
        queue.drain(most);
    }
}

/// Has what is left of the log written when it is dropped, however the program ends.
#[derive(Debug)]
pub struct FlushOnDrop;

impl Drop for FlushOnDrop {
    fn drop(&mut self) {
        if let Some((_, rate)) = LOG.get() {
            // Their period would end later.
            rate.say(Instant::now() + PERIOD);
        }
        drain(END_TIME);
    }
}
