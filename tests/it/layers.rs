//! Imports between the parts of the program go one way: read from the source, held against the table below.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The folders of `src`, and which of the others each may import: only ones that stand above it here.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("analysis", &["model"]),
    ("sys", &["model"]),
    ("redis", &["model", "sys"]),
    ("exposition", &["analysis", "model", "sys"]),
    ("store", &["analysis", "exposition", "model", "sys"]),
    ("actions", &["analysis", "model", "store", "sys"]),
    ("collector", &["analysis", "exposition", "model", "redis", "store", "sys"]),
    ("http", &["analysis", "exposition", "model", "store", "sys"]),
    ("config", &["actions", "analysis", "collector", "exposition", "http", "model", "redis", "store", "sys"]),
    ("app", &["actions", "analysis", "collector", "config", "exposition", "http", "model", "store", "sys"]),
];

/// Built for tests and fuzzers only.
const FUZZING: &str = "fuzzing";

/// Entries in `src` beside `main.rs` and `lib.rs`, at most.
const MAX_FOLDERS: usize = 12;

/// Every file of `src`.
pub fn sources() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/src"))];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found
}

/// `crate::` path of a file: `["http", "api"]`.
pub fn module(path: &Path) -> Vec<String> {
    let inside = path.strip_prefix(concat!(env!("CARGO_MANIFEST_DIR"), "/src")).unwrap().with_extension("");
    inside.iter().map(|part| part.to_str().unwrap().to_owned()).collect()
}

/// What a file says outside of its tests.
pub fn program(path: &Path) -> String {
    let source = std::fs::read_to_string(path).unwrap();
    // Tests in a file of their own end nothing here: they may be named first.
    let is_tests = |at: &usize| {
        let module = source[*at..].lines().nth(1).unwrap_or_default();
        module.ends_with("mod tests {")
    };
    let end = source.match_indices("#[cfg(test)]\n").map(|(at, _)| at).find(is_tests).unwrap_or(source.len());
    source[..end].lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// Whether a file is built for tests and fuzzers only.
pub fn is_test_only(module: &[String]) -> bool {
    module.iter().any(|part| part == "tests" || part == FUZZING)
}

/// The paths behind each `crate::` of a file.
fn imports(source: &str) -> Vec<Vec<String>> {
    let path = |rest: &str| {
        let end = rest.find(|c: char| !(c.is_ascii_lowercase() || c == '_' || c == ':')).unwrap_or(rest.len());
        rest[..end].split("::").filter(|part| !part.is_empty()).map(str::to_owned).collect()
    };
    source.split("crate::").skip(1).map(path).collect()
}

#[test]
fn folders_are_few_and_import_downward_only() {
    let mut folders = BTreeSet::new();
    let mut wrong = Vec::new();
    for path in sources() {
        let module = module(&path);
        if ["lib", "main"].contains(&module[0].as_str()) {
            continue;
        }
        folders.insert(module[0].clone());
        if is_test_only(&module) {
            continue;
        }
        let Some((_, allowed)) = MAY_IMPORT.iter().find(|(folder, _)| *folder == module[0]) else {
            panic!("{} is in no folder of the table", path.display());
        };
        for import in imports(&program(&path)) {
            let target = import.first().map_or("", String::as_str);
            if target != module[0] && target != FUZZING && !target.is_empty() && !allowed.contains(&target) {
                wrong.push(format!("{} imports {}", module.join("::"), import.join("::")));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(folders.len() <= MAX_FOLDERS, "{folders:?}");
    for (place, (folder, allowed)) in MAY_IMPORT.iter().enumerate() {
        let above: Vec<&str> = MAY_IMPORT[..place].iter().map(|(folder, _)| *folder).collect();
        assert!(allowed.iter().all(|target| above.contains(target)), "{folder} imports what does not stand above it");
    }
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    let files: BTreeMap<Vec<String>, PathBuf> =
        sources().into_iter().map(|path| (module(&path), path)).filter(|(module, _)| !is_test_only(module)).collect();
    let mut arrows: BTreeMap<&Vec<String>, BTreeSet<&Vec<String>>> = BTreeMap::new();
    for (module, path) in &files {
        for import in imports(&program(path)) {
            let longest = (1..=import.len()).rev().map(|len| import[..len].to_vec());
            let target = longest.filter_map(|prefix| files.get_key_value(&prefix)).map(|(target, _)| target).next();
            // A folder's own file names the files in it, and they may name it.
            if let Some(target) = target.filter(|target| !target.starts_with(module) && !module.starts_with(target)) {
                arrows.entry(module).or_default().insert(target);
            }
        }
    }
    let mut circles = BTreeSet::new();
    for start in arrows.keys() {
        let (mut seen, mut next) = (BTreeSet::new(), vec![*start]);
        while let Some(module) = next.pop() {
            for target in arrows.get(module).into_iter().flatten() {
                if target == start {
                    circles.insert(format!("{} and {}", module.join("::"), start.join("::")));
                }
                if seen.insert(*target) {
                    next.push(target);
                }
            }
        }
    }
    assert_eq!(circles, BTreeSet::new());
}
