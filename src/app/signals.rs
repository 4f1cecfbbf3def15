//! Signals: the first SIGTERM or SIGINT starts a graceful shutdown, a second one exits at once.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
use signal_hook_tokio::Signals;
use tokio::sync::watch;

use crate::app::systemd;
use crate::sys::log;
use crate::sys::reload::ReloadHandle;
use crate::sys::shutdown::Shutdown;

/// How long the second signal waits until the log has what was said.
const LOG_TIME: Duration = Duration::from_millis(100);

/// Listens for signals from now on; what is returned with it handles them, and never ends. SIGHUP has everything reloaded there.
///
/// # Errors
/// Where the operating system refuses a handler.
pub fn listen(reloads: ReloadHandle) -> std::io::Result<(Shutdown, impl Future<Output = ()>)> {
    // Where a file may not grow any more, the write is to fail and not the program.
    signal_hook::flag::register(SIGXFSZ, Arc::default())?;
    let signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
    let (sender, shutdown) = watch::channel(false);
    Ok((shutdown, handle(signals, sender, reloads)))
}

async fn handle(mut signals: Signals, shutdown: watch::Sender<bool>, reloads: ReloadHandle) {
    while let Some(signal) = signals.next().await {
        match signal {
            SIGHUP => reloads.ask(),
            signal if *shutdown.borrow() => {
                tracing::warn!(signal = name(signal), "second signal; exiting immediately");
                log::drain(LOG_TIME);
                // As a shell reports a process that a signal ended.
                std::process::exit(128 + signal);
            }
            signal => {
                tracing::info!(signal = name(signal), "shutting down; finishing requests in flight");
                systemd::stopping().await;
                shutdown.send_replace(true);
            }
        }
    }
    std::future::pending().await
}

fn name(signal: i32) -> &'static str {
    signal_hook::low_level::signal_name(signal).unwrap_or("unknown")
}
