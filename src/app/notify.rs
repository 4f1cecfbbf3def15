//! `streamlag notify test`.

use std::fmt::Write as _;

use crate::actions::notify::{NotifyConfig, test};
use crate::sys::terminal::escaped;

/// Tells every receiver that telling works: what became of each, a line each, and whether all took it.
///
/// # Errors
/// Where there is no runtime.
pub fn notify_test(config: &NotifyConfig) -> std::io::Result<(String, bool)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcomes = runtime.block_on(test(config));
    // A name that is still looked up is not waited for.
    runtime.shutdown_background();
    let (mut lines, mut all_told) = (String::new(), true);
    for (receiver, outcome) in outcomes {
        let said = outcome.as_ref().map_or_else(|why| format!("failed: {why}"), |()| "delivered".to_owned());
        all_told &= outcome.is_ok();
        // Writing to a string does not fail.
        let _ = writeln!(lines, "{}: {}", escaped(&receiver), escaped(&said));
    }
    Ok((lines, all_told))
}
