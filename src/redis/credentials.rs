//! Credentials for Redis. The password is read again for each connection, so that one that was changed is taken up without a
//! restart.

use std::path::{Path, PathBuf};

use crate::sys::password::{Password, PasswordFileError};

/// A user and a password.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    /// The ACL user; `None` is the default one.
    user: Option<String>,
    password: Option<Password>,
    file: Option<PathBuf>,
    /// Whether the log has said that the file cannot be read.
    said: bool,
}

impl Credentials {
    /// As this user.
    #[must_use]
    pub fn with_user(self, user: String) -> Self {
        Self { user: Some(user), ..self }
    }

    /// A password that stays what it is.
    #[must_use]
    pub fn with_password(self, password: String) -> Self {
        Self { password: Some(password.into()), ..self }
    }

    /// The password that is in a file.
    ///
    /// # Errors
    /// What is expected instead.
    pub fn with_password_file(self, file: PathBuf) -> Result<Self, PasswordFileError> {
        let password = Some(Password::read(&file)?);
        Ok(Self { password, file: Some(file), ..self })
    }

    /// Whether it is the same user with the same password, or with one from the same file.
    #[must_use]
    pub fn same_target(&self, other: &Self) -> bool {
        let fixed = |credentials: &Self| credentials.password.clone().filter(|_| credentials.file.is_none());
        self.user == other.user && self.file == other.file && fixed(self) == fixed(other)
    }

    /// The user's name at Redis.
    #[must_use]
    pub fn user_name(&self) -> &str {
        self.user.as_deref().unwrap_or("default")
    }

    /// Whether it is not the default user.
    #[must_use]
    pub fn has_user(&self) -> bool {
        self.user.is_some()
    }

    /// The file that the password is in.
    #[must_use]
    pub fn password_file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// Whether there is a password.
    #[must_use]
    pub fn has_password(&self) -> bool {
        self.password.is_some()
    }

    /// Reads the file again. Where that fails, the last password stands: it may be the right one still.
    pub(crate) fn renew(&mut self) {
        let Some(file) = &self.file else { return };
        let file_shown = file.display();
        match Password::read(file) {
            Ok(password) => {
                self.password = Some(password);
                if std::mem::take(&mut self.said) {
                    tracing::info!(file = %file_shown, "Redis password file readable again");
                }
            }
            Err(error) if !self.said => {
                self.said = true;
                tracing::warn!(file = %file_shown, %error, "cannot read the Redis password file; using the last password");
            }
            Err(_) => {}
        }
    }

    /// The user and the password to log in with.
    pub(crate) fn credentials(&self) -> (Option<&str>, Option<&str>) {
        let password = self.password.as_ref().map(Password::as_str);
        // Without one, Redis would not be told the user either. To a user who needs none, any will do.
        let none_needed = self.user.as_ref().map(|_| "");
        (self.user.as_deref(), password.or(none_needed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_read_again_and_the_last_good_one_stands() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().to_owned();
        let empty = Credentials::default().with_password_file(path.clone());
        assert_eq!(empty.unwrap_err(), PasswordFileError::Empty);
        std::fs::write(&path, " first\n").unwrap();
        let mut credentials = Credentials::default().with_password_file(path.clone()).unwrap();
        let mut check = |expected: &str| {
            credentials.renew();
            assert_eq!(credentials.credentials(), (None, Some(expected)));
            assert!(!format!("{credentials:?}").contains(expected));
        };
        check("first");
        std::fs::write(&path, "second").unwrap();
        check("second");
        std::fs::write(&path, "\n").unwrap();
        check("second");
        std::fs::write(&path, b"\xff").unwrap();
        check("second");
        std::fs::remove_file(&path).unwrap();
        check("second");
        std::fs::write(&path, "third").unwrap();
        check("third");
    }

    #[test]
    fn a_user_without_a_password_is_still_the_user() {
        let credentials = Credentials::default().with_user("streamlag".to_owned());
        assert_eq!(credentials.credentials(), (Some("streamlag"), Some("")));
        assert_eq!(Credentials::default().credentials(), (None, None));
    }
}
