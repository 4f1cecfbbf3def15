//! Files that settings name, such as keys and passwords: small, nothing but files, and read whole or not at all.

use std::fs::{File, Metadata};
use std::io::Read as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

/// The largest such file, in bytes: four times all the certificates that a system trusts.
pub const MAX_BYTES: u64 = 1024 * 1024;

/// How often a file is read again that changed while it was read.
const ATTEMPTS: usize = 3;

/// How long a file must not have been written to before it counts as complete: writers cut a file short, and then fill it.
const SETTLED_AFTER: Duration = Duration::from_millis(100);

/// How often that is waited for: a file that is written to again and again is refused.
const SETTLE_ATTEMPTS: usize = 10;

/// The permission of other users to read.
const READABLE_BY_ALL: u32 = 0o004;

/// Why a file cannot be used: what is expected instead. It does not name the file.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It is not there, or not for this user.
    #[error("expected a file that can be read ({0})")]
    Unreadable(#[from] std::io::Error),
    /// A directory, a device, a pipe.
    #[error("expected a regular file")]
    NotRegular,
    /// More than [`MAX_BYTES`].
    #[error("expected a file of at most {MAX_BYTES} bytes")]
    TooLarge,
    /// It is not the same twice.
    #[error("expected a file that does not change while it is read")]
    Changing,
    /// A secret that any user can read: its mode.
    #[error("expected a file that not everybody can read, such as mode 0640; it has {0:04o}")]
    Exposed(u32),
    /// It is no UTF-8.
    #[error("expected a file of UTF-8 text")]
    NotText,
}

/// What tells a file from what it was: which file it is, when it was changed, and how long it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileFingerprint {
    length: u64,
    modified: Option<SystemTime>,
    /// Device, inode and when it was changed, in seconds and nanoseconds.
    #[cfg(unix)]
    node: (u64, u64, i64, i64),
    #[cfg(not(unix))]
    created: Option<SystemTime>,
}

impl From<&Metadata> for FileFingerprint {
    fn from(file: &Metadata) -> Self {
        #[cfg(unix)]
        use std::os::unix::fs::MetadataExt as _;

        Self {
            length: file.len(),
            modified: file.modified().ok(),
            #[cfg(unix)]
            node: (file.dev(), file.ino(), file.ctime(), file.ctime_nsec()),
            #[cfg(not(unix))]
            created: file.created().ok(),
        }
    }
}

impl FileFingerprint {
    /// That of the file at this path; `None` if there is none.
    #[must_use]
    pub fn of(path: &Path) -> Option<Self> {
        std::fs::metadata(path).ok().as_ref().map(Self::from)
    }
}

/// What is in a file, all of it of one moment. Never waits.
///
/// A file that another one replaces meanwhile, as `mv` and Kubernetes do it, is read as it was.
///
/// # Errors
/// What is expected instead, without naming the file.
pub fn read(path: &Path) -> Result<Vec<u8>, FileError> {
    for _ in 0..ATTEMPTS {
        if let Some(read) = attempt(path)? {
            return Ok(read.content);
        }
    }
    Err(FileError::Changing)
}

/// The text in a file. Never waits.
///
/// # Errors
/// What is expected instead, without naming the file.
pub fn read_text(path: &Path) -> Result<String, FileError> {
    text(read(path)?)
}

/// The text of a secret in a file that other users may not read. Never waits.
///
/// That a group can read it, or others write it, is a warning as with every file of secrets.
///
/// # Errors
/// What is expected instead, without naming the file.
pub fn read_private_text(path: &Path) -> Result<String, FileError> {
    match exposed_mode(path).filter(|mode| mode & READABLE_BY_ALL != 0) {
        Some(mode) => Err(FileError::Exposed(mode)),
        None => read_text(path),
    }
}

/// What is in a file that nobody is writing to: one that was written to just now is waited for, up to a second.
///
/// For files that say more, the shorter they are: without its end, a file may let in who was to be kept out.
///
/// # Errors
/// What is expected instead, without naming the file.
pub fn read_settled(path: &Path) -> Result<Vec<u8>, FileError> {
    for _ in 0..SETTLE_ATTEMPTS {
        match attempt(path)? {
            Some(Attempt { content, wait: None }) => return Ok(content),
            Some(Attempt { wait: Some(wait), .. }) => std::thread::sleep(wait),
            None => std::thread::sleep(SETTLED_AFTER),
        }
    }
    Err(FileError::Changing)
}

/// The text in a file that nobody is writing to.
///
/// # Errors
/// What is expected instead, without naming the file.
pub fn read_settled_text(path: &Path) -> Result<String, FileError> {
    text(read_settled(path)?)
}

fn text(content: Vec<u8>) -> Result<String, FileError> {
    String::from_utf8(content).map_err(|_| FileError::NotText)
}

/// What came of reading a file once.
struct Attempt {
    content: Vec<u8>,
    /// How long to wait until it counts as complete; `None` if it does.
    wait: Option<Duration>,
}

/// Reads a file once; `None` if it changed meanwhile.
fn attempt(path: &Path) -> Result<Option<Attempt>, FileError> {
    // Asked before it is opened: opening a pipe would wait for a writer.
    if !std::fs::metadata(path)?.is_file() {
        return Err(FileError::NotRegular);
    }
    let mut content = Vec::new();
    let mut file = File::open(path)?;
    let before = file.metadata()?;
    (&mut file).take(MAX_BYTES + 1).read_to_end(&mut content)?;
    if content.len() as u64 > MAX_BYTES {
        return Err(FileError::TooLarge);
    }
    let after = file.metadata()?;
    let same = FileFingerprint::from(&before) == FileFingerprint::from(&after);
    if !same || content.len() as u64 != after.len() {
        return Ok(None);
    }
    let wait = unsettled(&after);
    Ok(Some(Attempt { content, wait }))
}

/// How long to wait until a file that was written to just now counts as complete.
fn unsettled(file: &Metadata) -> Option<Duration> {
    // A time ahead of the clock says nothing.
    let age = SystemTime::now().duration_since(file.modified().ok()?).ok()?;
    SETTLED_AFTER.checked_sub(age).filter(|wait| !wait.is_zero())
}

/// The permission bits of a file of secrets, if users other than its owner may read it or write to it and need not; `None` also if there is
/// no such file.
///
/// A group that may read the file of another user is how Kubernetes hands us a secret.
#[cfg(unix)]
#[must_use]
pub fn exposed_mode(path: &Path) -> Option<u32> {
    use std::os::unix::fs::MetadataExt as _;

    let file = std::fs::metadata(path).ok()?;
    // Who we are, as Linux says. Elsewhere every file counts as another user's, so that fewer count as exposed.
    let is_ours = std::fs::metadata("/proc/self").is_ok_and(|us| us.uid() == file.uid());
    let mode = file.mode() & 0o7777;
    let needless = if is_ours { 0o066 } else { 0o026 };
    (mode & needless != 0).then_some(mode)
}

/// Nothing: files have no such bits here.
#[cfg(not(unix))]
#[must_use]
pub fn exposed_mode(_path: &Path) -> Option<u32> {
    None
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn only_regular_files_of_bounded_size() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let check = |content: &[u8], expected: Result<(), &str>| {
            std::fs::write(&path, content).unwrap();
            match (read(&path), expected) {
                (Ok(read), Ok(())) => assert_eq!(read, content),
                (Err(error), Err(expected)) => assert!(error.to_string().contains(expected), "{error}"),
                (read, expected) => panic!("{read:?} {expected:?}"),
            }
        };
        check(b"", Ok(()));
        check(&vec![b'x'; 1024 * 1024], Ok(()));
        check(&vec![b'x'; 1024 * 1024 + 1], Err("at most 1048576 bytes"));
        assert!(read(dir.path()).unwrap_err().to_string().contains("a regular file"));
        assert!(read(Path::new("/dev/zero")).unwrap_err().to_string().contains("a regular file"));
        assert!(read(&dir.path().join("absent")).unwrap_err().to_string().contains("can be read (No such file"));
        let pipe = dir.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        assert!(read(&pipe).unwrap_err().to_string().contains("a regular file"));
        // It says that it is empty, and is not: as one that grew while it was read.
        #[cfg(target_os = "linux")]
        {
            assert!(matches!(read(Path::new("/proc/self/status")), Err(FileError::Changing)));
            assert!(matches!(read_settled(Path::new("/proc/self/status")), Err(FileError::Changing)));
        }
    }

    /// The writer cuts the file short, writes half of it, and the rest a moment later, as an editor on a slow disk.
    #[test]
    fn a_file_that_is_being_written_is_read_whole_or_refused() {
        let path = tempfile::NamedTempFile::new().unwrap().into_temp_path();
        let whole = "first line\nsecond line\n".repeat(100);
        let ended = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for pause in [5, 20, 40, 5, 20, 40] {
                    let mut file = File::create(&path).unwrap();
                    let (one, other) = whole.split_at(whole.len() / 2);
                    file.write_all(one.as_bytes()).unwrap();
                    std::thread::sleep(Duration::from_millis(pause));
                    file.write_all(other.as_bytes()).unwrap();
                    std::thread::sleep(Duration::from_millis(pause * 5));
                }
                ended.store(true, Ordering::Relaxed);
            });
            while !ended.load(Ordering::Relaxed) {
                match read_settled_text(&path) {
                    // Before it was written the first time.
                    Ok(read) => assert!(read == whole || read.is_empty(), "{} of {} bytes", read.len(), whole.len()),
                    Err(why) => assert!(matches!(why, FileError::Changing), "{why}"),
                }
            }
        });
        assert_eq!(read_settled_text(&path).unwrap(), whole);
    }

    #[cfg(unix)]
    #[test]
    fn a_file_that_another_one_replaces_is_read_as_it_was_or_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let (link, new) = (dir.path().join("data"), dir.path().join("new"));
        let contents = ["a".repeat(10_000), "b".repeat(20_000)];
        for (name, content) in ["a", "b"].iter().zip(&contents) {
            std::fs::create_dir(dir.path().join(name)).unwrap();
            std::fs::write(dir.path().join(name).join("file"), content).unwrap();
        }
        // As Kubernetes does it: a link to another directory takes the place of the last one.
        let swap = |to: &str| {
            std::os::unix::fs::symlink(to, &new).unwrap();
            std::fs::rename(&new, &link).unwrap();
        };
        swap("a");
        let ended = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for n in 0..500 {
                    swap(["a", "b"][n % 2]);
                }
                ended.store(true, Ordering::Relaxed);
            });
            while !ended.load(Ordering::Relaxed) {
                let read = read_text(&link.join("file")).unwrap();
                assert!(contents.contains(&read), "{} bytes", read.len());
            }
        });
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn who_else_may_read_or_write_a_file_of_secrets() {
        use std::os::unix::fs::PermissionsExt as _;

        let file = tempfile::NamedTempFile::new().unwrap();
        for (mode, expected) in [
            (0o600, None),
            (0o400, None),
            (0o700, None),
            (0o640, Some(0o640)),
            (0o604, Some(0o604)),
            (0o620, Some(0o620)),
            (0o602, Some(0o602)),
            (0o644, Some(0o644)),
        ] {
            std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(exposed_mode(file.path()), expected, "{mode:o}");
        }
        assert_eq!(exposed_mode(Path::new("/absent")), None);
        // Only root can give a file away. Of somebody else's, the group may read, as it is how we do.
        std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o440)).unwrap();
        if std::os::unix::fs::chown(file.path(), Some(65534), None).is_ok() {
            assert_eq!(exposed_mode(file.path()), None);
            std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o444)).unwrap();
            assert_eq!(exposed_mode(file.path()), Some(0o444));
        }
    }
}
