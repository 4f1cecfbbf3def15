//! Files that settings name, such as keys and passwords: small, and nothing but files.

use std::io::Read as _;
use std::path::Path;

/// The largest such file, in bytes: four times all the certificates that a system trusts.
pub const MAX_BYTES: u64 = 1024 * 1024;

/// What is in a file.
///
/// # Errors
/// What is expected instead, without naming the file.
pub fn read(path: &Path) -> Result<Vec<u8>, String> {
    let unreadable = |error: std::io::Error| format!("expected a file that can be read ({error})");
    // Asked before it is opened: opening a pipe would wait for a writer.
    if !std::fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err("expected a regular file".to_owned());
    }
    let mut content = Vec::new();
    let file = std::fs::File::open(path).map_err(unreadable)?;
    file.take(MAX_BYTES + 1).read_to_end(&mut content).map_err(unreadable)?;
    if content.len() as u64 > MAX_BYTES {
        return Err(format!("expected a file of at most {MAX_BYTES} bytes"));
    }
    Ok(content)
}

/// The text in a file.
///
/// # Errors
/// What is expected instead, without naming the file.
pub fn read_text(path: &Path) -> Result<String, String> {
    String::from_utf8(read(path)?).map_err(|_| "expected a file of UTF-8 text".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_regular_files_of_bounded_size() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let check = |content: &[u8], expected: Result<(), &str>| {
            std::fs::write(&path, content).unwrap();
            match (read(&path), expected) {
                (Ok(read), Ok(())) => assert_eq!(read, content),
                (Err(error), Err(expected)) => assert!(error.contains(expected), "{error}"),
                (read, expected) => panic!("{read:?} {expected:?}"),
            }
        };
        check(b"", Ok(()));
        check(&vec![b'x'; 1024 * 1024], Ok(()));
        check(&vec![b'x'; 1024 * 1024 + 1], Err("at most 1048576 bytes"));
        assert!(read(dir.path()).unwrap_err().contains("a regular file"));
        assert!(read(Path::new("/dev/zero")).unwrap_err().contains("a regular file"));
        assert!(read(&dir.path().join("absent")).unwrap_err().contains("can be read (No such file"));
        let pipe = dir.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        assert!(read(&pipe).unwrap_err().contains("a regular file"));
    }
}
