//! Passwords, and the files that they are in.

use std::fmt;
use std::path::Path;

use crate::sys::files::{self, FileError};

/// A password, which cannot be printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(String);

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(not shown)")
    }
}

/// Why a file gives no password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PasswordFileError {
    /// It cannot be read: why not, and what is expected.
    #[error("{0}")]
    Unreadable(String),
    /// There is nothing in it.
    #[error("expected a file with the password in it; this one is empty")]
    Empty,
}

impl From<String> for Password {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl Password {
    /// The password in a file.
    ///
    /// # Errors
    /// What is expected instead.
    pub fn read(file: &Path) -> Result<Self, PasswordFileError> {
        Self::of(files::read_text(file))
    }

    /// The same of a file that other users may not read.
    ///
    /// # Errors
    /// What is expected instead.
    pub fn read_private(file: &Path) -> Result<Self, PasswordFileError> {
        Self::of(files::read_private_text(file))
    }

    fn of(text: Result<String, FileError>) -> Result<Self, PasswordFileError> {
        match text.map_err(|why| PasswordFileError::Unreadable(why.to_string()))?.trim() {
            "" => Err(PasswordFileError::Empty),
            password => Ok(Self(password.to_owned())),
        }
    }

    /// To log in with.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
