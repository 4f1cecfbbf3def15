//! Notifies systemd (sd_notify(3)). Where the program was not started by it, nothing is.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};

use crate::store::latest::{Reader, Readers};

/// How often the watchdog is told in the time that it allows, as sd_watchdog_enabled(3) advises.
const PINGS_PER_TIMEOUT: u32 = 2;

/// Messages that wait to be sent. Sending blocks while systemd does not read, which must not hold anything up: it has a thread of
/// its own, and what comes on top is left out.
const MAX_WAITING: usize = 16;

/// How long the end waits until systemd has been told of it: a program that is gone tells nothing.
const STOPPING_TIME: Duration = Duration::from_millis(100);

/// What systemd is to be told, and what is dropped once it has been.
type Notification = (Vec<NotifyState<'static>>, Option<oneshot::Sender<()>>);

static TELLER: OnceLock<Option<SyncSender<Notification>>> = OnceLock::new();

/// Whether systemd knows that the program is ready.
static READY: AtomicBool = AtomicBool::new(false);

/// The program is about to read its configuration again.
pub fn reloading() {
    if READY.load(Ordering::Relaxed) {
        let now = NotifyState::monotonic_usec_now();
        tell([NotifyState::Reloading].into_iter().chain(now.ok()).collect());
    }
}

/// The program has read its configuration again.
pub fn reloaded() {
    if READY.load(Ordering::Relaxed) {
        tell(vec![NotifyState::Ready]);
    }
}

/// The program is about to end. Waits until systemd knows, but not for long.
pub async fn stopping() {
    let (done, told) = oneshot::channel();
    send((vec![NotifyState::Stopping], Some(done)));
    // An error is the news: nothing is ever sent.
    let _ = timeout(STOPPING_TIME, told).await;
}

/// Says that the program is ready once the first poll of every target has ended, and then, where systemd has a watchdog on
/// it, that it is well as long as all of them are polled. systemd restarts a program whose poller hangs. Never ends.
pub async fn watch(mut readers: Readers) {
    loop {
        let now = readers.borrow_and_update().clone();
        tokio::select! {
            () = all_polled(now) => break,
            Ok(()) = readers.changed() => {}
        }
    }
    READY.store(true, Ordering::Relaxed);
    tell(vec![NotifyState::Ready]);
    let Some(timeout) = sd_notify::watchdog_enabled() else { return std::future::pending().await };
    loop {
        let now = Instant::now();
        if readers.borrow().iter().all(|reader| now < reader.newest().next_by) {
            tell(vec![NotifyState::Watchdog]);
        } else {
            tracing::error!("polls have stopped; the watchdog will end the program");
        }
        sleep(timeout / PINGS_PER_TIMEOUT).await;
    }
}

async fn all_polled(readers: Vec<Reader>) {
    for mut reader in readers {
        reader.polled().await;
    }
}

fn tell(states: Vec<NotifyState<'static>>) {
    send((states, None));
}

fn send(message: Notification) {
    if let Some(teller) = TELLER.get_or_init(teller)
        && teller.try_send(message).is_err()
    {
        tracing::debug!("systemd does not listen: a message to it is left out");
    }
}

/// A thread that notifies systemd; none without a socket to notify.
fn teller() -> Option<SyncSender<Notification>> {
    std::env::var_os("NOTIFY_SOCKET")?;
    let (sender, messages) = sync_channel::<Notification>(MAX_WAITING);
    let thread = std::thread::Builder::new().name("systemd".to_owned()).spawn(move || {
        for (states, _done) in messages {
            if let Err(error) = sd_notify::notify(&states) {
                tracing::debug!(%error, "systemd could not be told");
            }
        }
    });
    thread.is_ok().then_some(sender)
}
