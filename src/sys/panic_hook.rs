//! What happens where the program has a defect.
//!
//! A task that serves one connection ends alone: its client sees a closed connection. Everything else ends the program,
//! and its supervisor starts it again: a poller or a listener that is restarted within the process would go on with
//! what the panic left behind, and the one promise that counts is that no number is wrong.

use std::time::Duration;

use crate::sys::log;
use crate::sys::own_metrics::SelfMetrics;

/// How long a panic waits until the log has it.
const LOG_TIME: Duration = Duration::from_millis(100);

/// Has every panic counted, and logged with its place.
pub fn watch(metrics: SelfMetrics) {
    std::panic::set_hook(Box::new(move |panic| {
        metrics.panicked();
        let place = panic.location().map(ToString::to_string);
        let message = panic.payload_as_str().unwrap_or("no message");
        tracing::error!(place, panic = message, "panic in a streamlag task; please report it");
        // It may be the end of the program.
        log::drain(LOG_TIME);
    }));
}
