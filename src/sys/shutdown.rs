//! Whether the program is to end: told once, to all its parts.

use tokio::sync::watch;

/// Turns true when the program is to end.
pub type Shutdown = watch::Receiver<bool>;

/// Waits until the program is to end.
pub async fn triggered(shutdown: &mut Shutdown) {
    // An error means that no sender is left, which is no reason to end.
    if shutdown.wait_for(|&shutdown| shutdown).await.is_err() {
        std::future::pending::<()>().await;
    }
}
