//! What readers share: the newest view of each target, history, forecasts, remediation plans, and deliveries of notifications.

pub mod deliveries;
pub mod forecasts;
pub mod history;
pub mod latest;
pub mod remediation;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// What is behind the lock, as it was left where a holder panicked.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
