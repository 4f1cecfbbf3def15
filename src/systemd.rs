//! What systemd is told (sd_notify(3)). Where the program was not started by it, nothing is.

use sd_notify::NotifyState;
use tokio::time::{Instant, sleep};

use crate::snapshot::Reader;

/// How often the watchdog is told in the time that it allows, as sd_watchdog_enabled(3) advises.
const PINGS_PER_TIMEOUT: u32 = 2;

/// The program is about to read its configuration again.
pub fn reloading() {
    let now = NotifyState::monotonic_usec_now();
    tell(&[NotifyState::Reloading, now.unwrap_or(NotifyState::Custom(""))]);
}

/// The program has done what it does at the start, or at a reload.
pub fn ready() {
    tell(&[NotifyState::Ready]);
}

/// The program is about to end.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Says that the program is ready once the first poll has ended, and then, where systemd has a watchdog on it, that it is
/// well as long as polls go on. A poller that hangs is thus started anew. Never ends.
pub async fn watch(mut reader: Reader) {
    while reader.newest().view.newest_poll.is_none() {
        reader.changed().await;
    }
    ready();
    let Some(timeout) = sd_notify::watchdog_enabled() else { return std::future::pending().await };
    loop {
        if Instant::now() < reader.newest().next_by {
            tell(&[NotifyState::Watchdog]);
        } else {
            tracing::error!("polls have stopped; the watchdog will end the program");
        }
        sleep(timeout / PINGS_PER_TIMEOUT).await;
    }
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "systemd could not be told");
    }
}
