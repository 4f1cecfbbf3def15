//! Who acts at Redis. Nothing outside of this folder can name it, so that nothing else can act.

use std::fmt;
use std::path::PathBuf;

use crate::sys::password::{Password, PasswordFileError};

/// A user, and the file of its password, which is read again for each act.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Login {
    pub(super) user: String,
    file: PathBuf,
}

/// Without the password, which it does not hold.
impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("user", &self.user).finish_non_exhaustive()
    }
}

impl Login {
    /// Reads the file to see that it can be used.
    pub(super) fn new(user: String, file: PathBuf) -> Result<Self, PasswordFileError> {
        let login = Self { user, file };
        login.password()?;
        Ok(login)
    }

    /// The password as it is now.
    pub(super) fn password(&self) -> Result<Password, PasswordFileError> {
        Password::read_private(&self.file)
    }
}
