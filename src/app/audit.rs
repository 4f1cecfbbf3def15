//! `streamlag audit verify`.

use std::path::{Path, PathBuf};

use crate::actions::remediate::{Verified, VerifyError, verify};
use crate::sys::terminal::escaped;

/// What is wrong with an audit file.
#[derive(Debug, thiserror::Error)]
#[error("{}: {}", escaped(&file.display().to_string()), escaped(&error.to_string()))]
pub struct AuditVerifyError {
    file: PathBuf,
    error: VerifyError,
}

/// Checks an audit file; what there is in it.
///
/// # Errors
/// The first line that is wrong.
pub fn audit_verify(file: &Path) -> Result<String, AuditVerifyError> {
    let Verified { records, intents, outcomes, last } =
        verify(file).map_err(|error| AuditVerifyError { file: file.to_owned(), error })?;
    Ok(format!(
        "{}: {records} records, {intents} intents, {outcomes} outcomes; the last line's SHA-256 is {last}\n",
        escaped(&file.display().to_string())
    ))
}
