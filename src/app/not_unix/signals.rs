//! Ctrl-C, where there are no signals: the first one starts a graceful shutdown, a second one exits at once. Nothing asks for a reload but a request.

use std::time::Duration;

use tokio::sync::watch;

use crate::sys::log;
use crate::sys::reload::ReloadHandle;
use crate::sys::shutdown::Shutdown;

/// How long the second Ctrl-C waits until the log has what was said.
const LOG_TIME: Duration = Duration::from_millis(100);

/// The exit code of a program that Ctrl-C ended (`STATUS_CONTROL_C_EXIT`).
const ENDED_BY_CTRL_C: i32 = 0xC000_013A_u32.cast_signed();

/// Listens for Ctrl-C from now on; what is returned with it handles it, and never ends.
///
/// # Errors
/// None here.
pub fn listen(_reloads: ReloadHandle) -> std::io::Result<(Shutdown, impl Future<Output = ()>)> {
    let (sender, shutdown) = watch::channel(false);
    Ok((shutdown, handle(sender)))
}

async fn handle(shutdown: watch::Sender<bool>) {
    while tokio::signal::ctrl_c().await.is_ok() {
        if *shutdown.borrow() {
            tracing::warn!("second Ctrl-C; exiting immediately");
            log::drain(LOG_TIME);
            std::process::exit(ENDED_BY_CTRL_C);
        }
        tracing::info!("shutting down; finishing requests in flight");
        shutdown.send_replace(true);
    }
    std::future::pending().await
}
