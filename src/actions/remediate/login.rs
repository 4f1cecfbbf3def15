//! Who acts at Redis. Nothing outside of this folder can name it, so that nothing else can act.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::sys::files;

/// The permission of everybody to read.
const READABLE_BY_ALL: u32 = 0o004;

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
    pub(super) fn new(user: String, file: PathBuf) -> Result<Self, String> {
        let login = Self { user, file };
        login.password()?;
        Ok(login)
    }

    /// The password as it is now.
    pub(super) fn password(&self) -> Result<String, String> {
        refuse_readable_by_all(&self.file)?;
        match files::read_text(&self.file).map_err(|why| why.to_string())?.trim() {
            "" => Err("expected a file with the password in it; this one is empty".to_owned()),
            password => Ok(password.to_owned()),
        }
    }
}

fn refuse_readable_by_all(file: &Path) -> Result<(), String> {
    match files::exposed_mode(file).filter(|mode| mode & READABLE_BY_ALL != 0) {
        Some(mode) => Err(format!("expected a file that not everybody can read, such as mode 0640; it has {mode:04o}")),
        None => Ok(()),
    }
}
