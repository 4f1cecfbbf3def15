//! One table of settings and one catalogue of metrics: whatever shows them shows all of them, and nothing else. The documents' tables are held
//! by `docs`, the Helm chart's by `chart`, the page itself by `docs` and `prometheus`.

use std::collections::BTreeSet;
use std::path::Path;

use streamlag::config::{Flag, SETTINGS};
use streamlag::sys::metric_catalog::{self, Kind};

use crate::common::command;

fn printed(arguments: &[&str]) -> String {
    let output = command(arguments, &[]).output().unwrap();
    assert!(output.status.success(), "{arguments:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The flags of the table, and those that every program has.
fn flags() -> BTreeSet<String> {
    let mut flags: BTreeSet<String> = ["help", "version"].map(str::to_owned).into();
    for setting in SETTINGS.iter().filter(|setting| setting.flag != Flag::None) {
        flags.insert(setting.key.to_owned());
        if let Flag::Toggle(opposite) = setting.flag {
            flags.insert(opposite.to_owned());
        }
    }
    flags
}

/// What stands behind `--` at the beginning of a word.
fn named(text: &str) -> BTreeSet<String> {
    let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || ".-".contains(c);
    let mut names = BTreeSet::new();
    for (before, rest) in text.match_indices("--").map(|(at, _)| (text[..at].chars().next_back(), &text[at + 2..])) {
        if before.is_some_and(|c| is_name(c) || c == '/') {
            continue;
        }
        let name = rest.split(|c| !is_name(c)).next().unwrap_or_default().trim_end_matches(['.', '-']);
        if name.starts_with(|c: char| c.is_ascii_lowercase()) {
            names.insert(name.to_owned());
        }
    }
    names
}

/// Settings to help, manual page and completions of three shells.
#[test]
fn every_flag_is_in_the_help_the_manual_and_the_completions() {
    let flags = flags();
    let help = named(&printed(&["--help"]));
    assert_eq!(help, flags, "the help");
    let manual = printed(&["man"]).replace("\\-", "-");
    assert_eq!(named(&manual), flags, "the manual page");
    for shell in ["bash", "zsh", "fish"] {
        let script = printed(&["completions", shell]);
        // fish has `-l NAME`. Completions know the flags of subcommands too.
        let lacking: Vec<&String> = flags
            .iter()
            .filter(|flag| !script.contains(&format!("--{flag}")) && !script.contains(&format!("-l {flag}")))
            .collect();
        assert!(lacking.is_empty(), "{shell}: {lacking:?}");
    }
    // Variables and defaults as well.
    for setting in SETTINGS.iter().filter(|setting| setting.flag != Flag::None) {
        for env in setting.env.iter().chain(&setting.env_alias) {
            assert!(manual.contains(env), "the manual page lacks {env}");
        }
        if let Some(default) = setting.default {
            assert!(manual.contains(default), "the manual page lacks the default of {}", setting.key);
        }
    }
}

fn read(relative: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(relative)).unwrap()
}

/// Files of a folder with this end, without those in folders of it.
fn files(folder: &str, end: &str) -> Vec<String> {
    let entries = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.ends_with(end)).map(|name| format!("{folder}/{name}")).collect()
}

/// Catalogue to rules, dashboards, autoscalers and queries of documents: no name in them is unknown.
#[test]
fn every_metric_that_is_asked_for_exists() {
    let mut known: BTreeSet<String> = ["streamlag_fleet", "event_transport"].map(str::to_owned).into();
    for name in metric_catalog::ALL {
        known.insert(name.series());
        if name.kind == Kind::Histogram {
            known.extend(["_bucket", "_count", "_sum"].map(|part| name.series() + part));
        }
    }
    let unknown = |place: &str, text: &str| -> Vec<String> {
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && !"_:$".contains(c));
        let ours = words.filter(|word| ["event_", "streamlag_", "process_"].iter().any(|own| word.starts_with(own)));
        ours.filter(|word| !known.contains(*word)).map(|word| format!("{place}: {word}")).collect()
    };
    let mut found = Vec::new();
    let mut places = 0;
    let code = |text: &str| {
        let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
        lines.collect::<Vec<_>>().join("\n")
    };
    for file in files("alerts", ".rules.yml").into_iter().chain(files("deploy/keda", ".yaml")) {
        places += 1;
        let text: String =
            code(&read(&file)).lines().filter(|line| !line.contains("summary:")).map(|l| l.to_owned() + "\n").collect();
        // KEDA's own series of the adapter, named in docs/scaling.md.
        found.extend(unknown(&file, &text.replace("streamlag_work", "")));
    }
    for file in files("dashboards", ".json") {
        places += 1;
        let dashboard: serde_json::Value = serde_json::from_str(&read(&file)).unwrap();
        let mut exprs = Vec::new();
        collect(&dashboard, &mut exprs);
        assert!(exprs.len() > 20, "{file} has {} queries", exprs.len());
        exprs.iter().for_each(|expr| found.extend(unknown(&file, expr)));
    }
    for file in files("docs", ".md").into_iter().chain(files("docs/runbooks", ".md")) {
        for block in read(&file).split("```promql\n").skip(1) {
            places += 1;
            found.extend(unknown(&file, block.split("```").next().unwrap_or_default()));
        }
    }
    assert!(places > 60, "{places} places");
    assert!(found.is_empty(), "{found:#?}");
}

/// The texts of every `expr` and of every variable's query.
fn collect(value: &serde_json::Value, exprs: &mut Vec<String>) {
    match value {
        serde_json::Value::Object(map) => {
            for (key, value) in map {
                match value.as_str() {
                    Some(text) if key == "expr" || key == "query" => exprs.push(text.to_owned()),
                    _ => collect(value, exprs),
                }
            }
        }
        serde_json::Value::Array(values) => values.iter().for_each(|value| collect(value, exprs)),
        _ => {}
    }
}
