//! What the documents say of the program, held against the program. `STREAMLAG_BLESS=1` writes the tables anew.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod common;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use common::{Redis, eventually, streamlag};
use streamlag::config::{API_TOKEN_VARIABLE, SETTINGS, Setting};
use streamlag::render::names::{self, Kind, Name};

fn path(relative: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(relative)
}

/// Holds the text between two marker lines of a document against `expected`.
fn check(document: &str, marker: &str, expected: &str) {
    let (begin, end) = (format!("<!-- {marker}: begin -->\n"), format!("<!-- {marker}: end -->\n"));
    let text = std::fs::read_to_string(path(document)).unwrap();
    let (head, rest) = text.split_once(&begin).unwrap_or_else(|| panic!("{document} lacks {begin}"));
    let (table, tail) = rest.split_once(&end).unwrap_or_else(|| panic!("{document} lacks {end}"));
    if std::env::var_os("STREAMLAG_BLESS").is_some() {
        std::fs::write(path(document), format!("{head}{begin}{expected}{end}{tail}")).unwrap();
        return;
    }
    assert_eq!(table, expected, "{document}: run STREAMLAG_BLESS=1 cargo test --test docs");
}

#[test]
fn the_table_of_settings() {
    let code = |text: &str| if text.is_empty() { String::new() } else { format!("`{}`", text.replace('|', "\\|")) };
    let row = |setting: &Setting| {
        let has_flag = !setting.key.starts_with("event-transport.");
        let flag = if has_flag { code(&format!("--{}", setting.key)) } else { String::new() };
        let (env, default) = (code(setting.env.unwrap_or_default()), code(setting.default.unwrap_or_default()));
        format!("| {flag} | {env} | {default} | {} |\n", setting.help.replace('|', "\\|").replace('*', "\\*"))
    };
    let mut table = "| flag | environment | default | what |\n| --- | --- | --- | --- |\n".to_owned();
    table.extend(SETTINGS.iter().map(row));
    table.push_str(&format!(
        "|  | `{API_TOKEN_VARIABLE}` |  | The API's bearer token; no flag, because it would show in `ps` |\n"
    ));
    check("README.md", "flags", &table);
}

#[test]
fn the_table_of_metrics() {
    let kind = |name: &Name| match name.kind {
        Kind::Gauge => "gauge",
        Kind::Counter => "counter",
        Kind::Histogram => "histogram",
        Kind::Info => "info",
    };
    let row = |name: &&Name| {
        let labels: Vec<String> = name.labels.iter().map(|label| format!("`{label}`")).collect();
        format!("| `{}` | {} | {} | {} |\n", name.series(), kind(name), labels.join(", "), name.help)
    };
    let mut table = "| metric | type | labels | meaning |\n| --- | --- | --- | --- |\n".to_owned();
    table.extend(names::ALL.iter().map(row));
    check("docs/metrics.md", "metrics", &table);
}

/// A page that has everything on it has exactly the metrics and labels of the table.
#[test]
fn the_running_program_has_the_metrics_of_the_table_and_no_other() {
    let redis = Redis::start();
    redis.run("XGROUP CREATE events:chat there 0 MKSTREAM");
    redis.add("events:chat", 1000);
    redis.read("events:chat", "there", "instance-1", 3);
    let arguments = ["--redis.url", &redis.url(), "--groups", "there,absent", "--group.window", "1s"];
    let streamlag = streamlag(&arguments).ready();
    // Only told while a stream is trimmed, and while a group catches up.
    let changing = ["trim_headroom_seconds", "drain_seconds", "recommended_consumers"];
    let page = eventually("the series of a stream that changes", || {
        redis.run("XADD events:chat MAXLEN 1000 * n 1");
        redis.read("events:chat", "there", "instance-1", 2);
        let page = streamlag.metrics();
        changing.iter().all(|name| page.contains(&format!("event_consumer_group_{name}{{"))).then_some(page)
    });
    // Told by servers from 7.2 on only.
    let elsewhere = BTreeSet::from(["event_consumer_instance_inactive_seconds".to_owned()]);
    let mut found = BTreeSet::new();
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        let (series, _) = line.rsplit_once(' ').unwrap();
        let (metric, labels) = series.split_once('{').unwrap_or((series, ""));
        let name = names::ALL.iter().find(|name| {
            let base = match name.kind {
                Kind::Histogram => ["_bucket", "_sum", "_count"].iter().find_map(|suffix| metric.strip_suffix(suffix)),
                Kind::Gauge | Kind::Counter | Kind::Info => None,
            };
            name.series() == base.unwrap_or(metric)
        });
        let name = name.unwrap_or_else(|| panic!("{metric} is in no table"));
        found.insert(name.series());
        let labels: Vec<&str> =
            labels.split("\",").filter_map(|label| label.split_once("=\"")).map(|(key, _)| key).collect();
        let labels: Vec<&str> = labels.into_iter().filter(|label| *label != "le").collect();
        assert_eq!(labels, name.labels, "{line}");
    }
    let listed: BTreeSet<String> = names::ALL.iter().map(|name| name.series()).collect();
    let lacking = &listed - &found;
    assert!(lacking.is_subset(&elsewhere), "listed, and not on the page: {lacking:?}");
}

/// Every alert has its runbook, and every runbook its alert.
#[test]
fn every_alert_has_a_runbook() {
    let rules = std::fs::read_to_string(path("alerts/streamlag.rules.yml")).unwrap();
    let alerts: BTreeSet<String> =
        rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).map(str::to_owned).collect();
    assert!(alerts.len() >= 9, "{alerts:?}");
    let linked: BTreeSet<String> = rules
        .lines()
        .filter_map(|line| line.trim().strip_prefix("runbook_url: "))
        .map(|url| url.trim_matches('"').rsplit_once("/docs/runbooks/").unwrap().1.to_owned())
        .collect();
    let expected: BTreeSet<String> = alerts.iter().map(|alert| format!("{alert}.md")).collect();
    assert_eq!(linked, expected);
    let files: BTreeSet<String> = std::fs::read_dir(path("docs/runbooks"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "README.md")
        .collect();
    assert_eq!(files, expected);
}

/// The tests run streamlag as the user of one of them.
#[test]
fn the_documents_give_the_same_acl_line() {
    assert_eq!(common::grants::documented_in("README.md"), common::grants::documented_in("docs/deploy.md"));
}

/// Links from one document to another lead somewhere.
#[test]
fn links_between_documents_lead_somewhere() {
    let mut documents: Vec<PathBuf> =
        ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "dashboards/README.md"]
            .map(path)
            .to_vec();
    for folder in ["docs", "docs/runbooks"] {
        let files = std::fs::read_dir(path(folder)).unwrap().map(|entry| entry.unwrap().path());
        documents.extend(files.filter(|file| file.extension().is_some_and(|extension| extension == "md")));
    }
    for document in documents {
        let text = std::fs::read_to_string(&document).unwrap_or_else(|error| panic!("{}: {error}", document.display()));
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let target = link.split('#').next().unwrap();
            if target.is_empty() || target.contains("://") {
                continue;
            }
            assert!(document.parent().unwrap().join(target).exists(), "{}: {link}", document.display());
        }
    }
}

/// Each promise in SECURITY.md names tests and checks that are there.
#[test]
fn every_promise_names_what_holds_it() {
    let text = std::fs::read_to_string(path("SECURITY.md")).unwrap();
    let promises = text.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |")?.split_once(" | "));
    let mut named = 0;
    for (promise, held_by) in promises {
        let mut source = String::new();
        for code in held_by.split('`').skip(1).step_by(2) {
            if code.ends_with(".rs") {
                source = std::fs::read_to_string(path(code)).unwrap_or_else(|error| panic!("{code}: {error}"));
            } else if !source.is_empty() {
                assert!(source.contains(&format!("fn {code}(")), "{promise}: there is no {code}");
                named += 1;
            }
        }
    }
    assert!(named > 50, "{named}");
}
