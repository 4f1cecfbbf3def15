//! `streamlag audit verify`.

use std::path::Path;

use crate::actions::remediate::{Verified, verify};
use crate::sys::terminal::escaped;

/// Checks an audit file; what there is in it.
///
/// # Errors
/// The first line that is wrong.
pub fn audit_verify(file: &Path) -> Result<String, String> {
    let shown = file.display().to_string();
    let Verified { records, intents, outcomes, last } =
        verify(file).map_err(|why| format!("{}: {}", escaped(&shown), escaped(&why.to_string())))?;
    Ok(format!(
        "{}: {records} records, {intents} intents, {outcomes} outcomes; the last line's SHA-256 is {last}\n",
        escaped(&shown)
    ))
}
