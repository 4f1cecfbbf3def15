//! Whether the program is to end: told once, to all its parts.

use tokio::sync::watch;

/// Turns true when the program is to end.
pub type Ending = watch::Receiver<bool>;

/// Waits until the program is to end.
pub async fn begins(ending: &mut Ending) {
    // An error means that nobody can say so any more, which is no reason to end.
    if ending.wait_for(|&ending| ending).await.is_err() {
        std::future::pending::<()>().await;
    }
}
