//! The ACL user that the documents tell an operator to make. In the tests streamlag runs as this user, so that whatever they
//! show, it does with these grants.

use std::path::Path;
use std::process::Command;

pub const USER: &str = "streamlag";
pub const PASSWORD: &str = "pw";

/// The user that may run scripts as well, for streams with large entries.
pub const USER_WITH_SCRIPTS: &str = "streamlag-with-scripts";

/// Where the line begins, in README and in docs/deploy.md.
const LINE: &str = "redis-cli ACL SETUSER streamlag on '>PASSWORD' ";

/// The line in a document, as it is to be pasted into a shell.
pub fn line_in(document: &str) -> String {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(document)).unwrap();
    let lines: Vec<&str> = text.lines().filter(|line| line.starts_with(LINE)).collect();
    let [line] = lines[..] else { panic!("{document} has {} lines that begin with {LINE:?}", lines.len()) };
    line.to_owned()
}

/// The words of the line in a document, after the password and without the shell's quotes.
pub fn documented_in(document: &str) -> Vec<String> {
    line_in(document)[LINE.len()..].split(' ').map(|word| word.trim_matches('\'').to_owned()).collect()
}

/// The documented words as the documents say that this server takes them, with `keys` in place of the pattern that has to
/// match every stream.
pub fn on(server: &Path, keys: &str) -> Vec<String> {
    let version = version(server);
    let words = documented_in("docs/deploy.md").into_iter().filter_map(|word| match word.strip_prefix("%R~") {
        Some(_) if version < (7, 0) => Some(format!("~{keys}")),
        Some(_) => Some(format!("%R~{keys}")),
        None => Some(word).filter(|word| word != "resetchannels" || version >= (6, 2)),
    });
    words.collect()
}

/// The grant that lets streamlag run its scripts.
pub fn of_scripts(server: &Path) -> &'static str {
    if version(server) < (7, 0) { "+eval" } else { "+eval_ro" }
}

/// The grant that the documents give for patterns.
pub fn of_patterns() -> String {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/deploy.md")).unwrap();
    let lines: Vec<&str> = text.lines().filter(|line| line.contains("for [patterns]")).collect();
    let [line] = lines[..] else { panic!("docs/deploy.md says {} times what patterns need", lines.len()) };
    line.split('`').nth(1).unwrap().to_owned()
}

/// The options that make a server have both users from its start on.
pub fn options(server: &Path) -> Vec<String> {
    let user = |name: &str, more: &[&str]| {
        let head = ["--user", name, "on", &format!(">{PASSWORD}")].map(str::to_owned).to_vec();
        [head, on(server, "*"), more.iter().map(|word| (*word).to_owned()).collect()].concat()
    };
    [user(USER, &[]), user(USER_WITH_SCRIPTS, &[of_scripts(server)])].concat()
}

/// The version of a server's binary.
pub fn version(server: &Path) -> (u32, u32) {
    let output = Command::new(server).arg("--version").output();
    let output = output.unwrap_or_else(|error| {
        panic!("{} cannot be started ({error}): run 'make test', which installs it", server.display())
    });
    let text = String::from_utf8(output.stdout).unwrap();
    let version = text.split_whitespace().find_map(|word| word.strip_prefix("v=")).unwrap();
    let mut numbers = version.split('.').map(|number| number.parse().unwrap());
    (numbers.next().unwrap(), numbers.next().unwrap())
}
