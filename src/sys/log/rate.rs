//! Rate limit of log lines by call site. The text of a line does not count and is not remembered, so that names and addresses that
//! differ each time do not evade it.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::callsite::Identifier;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::sys::log::format::message;
use crate::sys::log::queue::Queue;

/// Lines of one kind in a [`PERIOD`]; one more says how many were left out. Debugging has no such limit.
pub(super) const LINES_PER_PERIOD: u64 = 100;

/// Over which lines of one kind are counted.
pub(super) const PERIOD: Duration = Duration::from_secs(60);

/// What is kept of the message of lines that are left out, in bytes, to say which they were.
const MAX_MESSAGE_BYTES: usize = 120;

/// Lines of each kind so far.
#[derive(Debug)]
pub(super) struct LineRate {
    kinds: Mutex<HashMap<Identifier, LineKind>>,
    queue: Arc<Queue>,
}

#[derive(Debug)]
struct LineKind {
    began: Instant,
    lines: u64,
    /// The message of the first one that was left out.
    message: String,
}

impl LineKind {
    fn left_out(&self) -> u64 {
        self.lines.saturating_sub(LINES_PER_PERIOD)
    }

    /// Whether one more line passes. At the first that does not, the caller has to log that.
    fn admits(&mut self, now: Instant) -> bool {
        // Those that were left out are told of first.
        if self.left_out() == 0 && now.duration_since(self.began) >= PERIOD {
            (self.began, self.lines) = (now, 0);
        }
        self.lines += 1;
        self.left_out() == 0
    }

    /// How many were left out, where it is time to say so, and what they said. Then the period ends.
    fn take(&mut self, now: Instant) -> Option<(u64, String)> {
        let left_out = self.left_out();
        let is_due = left_out > 0 && now.duration_since(self.began) >= PERIOD;
        is_due.then(|| {
            (self.began, self.lines) = (now, 0);
            (left_out, std::mem::take(&mut self.message))
        })
    }
}

impl LineRate {
    pub(super) fn new(queue: Arc<Queue>) -> Self {
        Self { kinds: Mutex::default(), queue }
    }

    fn admits(&self, event: &Event<'_>) -> bool {
        if *event.metadata().level() > Level::INFO {
            return true;
        }
        let now = Instant::now();
        let mut kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        let kind = kinds.entry(event.metadata().callsite()).or_insert_with(|| LineKind {
            began: now,
            lines: 0,
            message: String::new(),
        });
        let admitted = kind.admits(now);
        if kind.left_out() == 1 {
            kind.message = crate::model::names::text(message(event).as_bytes(), MAX_MESSAGE_BYTES);
            self.queue.wake_at(kind.began + PERIOD);
        }
        admitted
    }

    /// Says how many lines were left out, of the kinds whose period has ended.
    pub(super) fn say(&self, now: Instant) {
        let mut left_out = Vec::new();
        let mut next: Option<Instant> = None;
        for kind in self.kinds.lock().unwrap_or_else(PoisonError::into_inner).values_mut() {
            left_out.extend(kind.take(now));
            if kind.left_out() > 0 {
                let due = kind.began + PERIOD;
                next = Some(next.map_or(due, |before| before.min(due)));
            }
        }
        for (left_out, like) in left_out {
            tracing::warn!(left_out, like, "log lines suppressed by the rate limit");
        }
        if let Some(next) = next {
            self.queue.wake_at(next);
        }
    }
}

/// Formats events, those that are said.
#[derive(Debug)]
pub(super) struct RateLimited<F> {
    pub(super) format: F,
    pub(super) rate: Arc<LineRate>,
}

impl<S, N, F> FormatEvent<S, N> for RateLimited<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        // Nothing that is formatted is nothing that is written.
        if self.rate.admits(event) { self.format.format_event(context, writer, event) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_says_so_many_lines_in_a_period_and_then_how_many_more_there_were() {
        let began = Instant::now();
        let mut kind = LineKind { began, lines: 0, message: String::new() };
        let said = |kind: &mut LineKind, now| (0..1000).filter(|_| kind.admits(now)).count() as u64;
        assert_eq!(said(&mut kind, began), LINES_PER_PERIOD);
        kind.message = "it".to_owned();
        assert_eq!(kind.take(began), None, "the period goes on");
        // More of them that come late are told of together with the others.
        let later = began + PERIOD;
        assert_eq!(said(&mut kind, later), 0);
        assert_eq!(kind.take(later), Some((2000 - LINES_PER_PERIOD, "it".to_owned())));
        assert_eq!(kind.take(later + PERIOD), None);
        assert_eq!(said(&mut kind, later), LINES_PER_PERIOD);
        // Where none was left out, a period begins with the next line.
        let mut kind = LineKind { began, lines: 0, message: String::new() };
        assert!(kind.admits(began));
        assert_eq!(said(&mut kind, later), LINES_PER_PERIOD);
    }
}
