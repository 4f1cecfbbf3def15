//! What the documents say of the program, held against the program. `STREAMLAG_BLESS=1` writes the tables anew.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod common;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use common::{Redis, eventually, streamlag};
use rcgen::{CertificateParams, KeyPair};
use streamlag::config::{API_TOKEN_VARIABLE, SETTINGS, Setting, WebConfig};
use streamlag::render::collectors::Collectors;
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
        let no = if setting.key.starts_with("collector.") { "[no-]" } else { "" };
        let flag = if has_flag { code(&format!("--{no}{}", setting.key)) } else { String::new() };
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
fn the_list_of_what_a_target_may_have_of_its_own() {
    let keys = SETTINGS.iter().filter(|setting| setting.per_target).map(|setting| format!("`{}`", setting.key));
    check("docs/targets.md", "per-target", &format!("{}\n", keys.collect::<Vec<_>>().join(", ")));
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
        let (labels, collectors) =
            (labels.join(", "), Collectors::of(name.family).map_or(String::new(), Collectors::names));
        format!("| `{}` | {} | {labels} | {collectors} | {} |\n", name.series(), kind(name), name.help)
    };
    let mut table = "| metric | type | labels | collector | meaning |\n| --- | --- | --- | --- | --- |\n".to_owned();
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
    redis.run("XGROUP CREATECONSUMER events:chat there instance-2");
    let url = redis.url_of_everybody();
    let arguments = ["--redis.url", &url, "--groups", "there,absent", "--group.window", "1s", "--limit.consumers", "1"];
    let many = ["--streams", "events:*", "--logical-streams", "all=events:*", "--shard", "0/1"];
    let own = ["--lag.thresholds", "events:chat=10/50"];
    let all = ["--collector.rates", "--collector.consumer-health"];
    let streamlag = streamlag(&[&arguments[..], &many, &own, &all].concat()).ready();
    // Only told while a stream is trimmed, and while a group catches up.
    let changing = ["trim_headroom_seconds", "drain_seconds", "recommended_consumers"];
    let page = eventually("the series of a stream that changes", || {
        redis.run("XADD events:chat MAXLEN 1000 * n 1");
        redis.read("events:chat", "there", "instance-1", 2);
        let page = streamlag.metrics();
        changing.iter().all(|name| page.contains(&format!("event_consumer_group_{name}{{"))).then_some(page)
    });
    // Told by servers from 7.2 on only, or where there is a cluster, or sentinels.
    let elsewhere = |series: &&String| {
        let parts = ["event_consumer_instance_inactive_seconds", "streamlag_redis_node_"];
        parts.iter().any(|part| series.starts_with(part))
    };
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
    let lacking: Vec<&String> = listed.difference(&found).filter(|series| !elsewhere(series)).collect();
    assert!(lacking.is_empty(), "listed, and not on the page: {lacking:?}");
}

/// The collectors, off by default, that a query takes to have something to say.
fn collectors_needed(expr: &str) -> BTreeSet<String> {
    let words: BTreeSet<&str> = expr.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').collect();
    let asked = names::ALL.iter().filter(|name| words.contains(name.series().as_str()));
    let off =
        asked.filter(|name| !Collectors::default().show(name.family)).filter_map(|name| Collectors::of(name.family));
    off.map(Collectors::names).collect()
}

/// Rules need no collector that is off by default; panels and queries that do say so.
#[test]
fn what_needs_a_collector_that_is_off_says_so() {
    for rules in files("alerts", "yml").iter().filter(|file| !file.display().to_string().contains("tests")) {
        let code = read(rules);
        let code: String = code.lines().filter(|line| !line.trim_start().starts_with('#')).collect();
        assert!(collectors_needed(&code).is_empty(), "{}: {:?}", rules.display(), collectors_needed(&code));
    }
    let mut found = BTreeSet::new();
    let mut check = |place: &str, expr: &str, said: &str| {
        for collector in collectors_needed(expr) {
            assert!(said.contains(&format!("--collector.{collector}")), "{place} needs {collector}: {expr}");
            found.insert(collector);
        }
    };
    let dashboard: serde_json::Value = serde_json::from_str(&read(&path("dashboards/streamlag.json"))).unwrap();
    let list = |value: &serde_json::Value| value.as_array().cloned().unwrap_or_default();
    for row in list(&dashboard["panels"]) {
        for panel in [vec![row.clone()], list(&row["panels"])].concat() {
            for target in list(&panel["targets"]) {
                check(&panel["title"].to_string(), &target["expr"].to_string(), &panel["description"].to_string());
            }
        }
    }
    for document in documents() {
        let text = read(&document);
        // What stands between a query and the block of code before it.
        let mut before = "";
        for (place, piece) in text.split("```").enumerate() {
            match piece.strip_prefix("promql\n").filter(|_| place % 2 == 1) {
                Some(expr) => check(&document.display().to_string(), expr, before),
                None => before = piece,
            }
        }
    }
    assert_eq!(found, ["consumer-health", "rates"].map(str::to_owned).into());
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
    // One page is about a question, not about an alert.
    let expected: BTreeSet<String> = expected.into_iter().chain(["SafeToTrim.md".to_owned()]).collect();
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

/// Every document.
fn documents() -> Vec<PathBuf> {
    let mut documents: Vec<PathBuf> =
        ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "dashboards/README.md"]
            .map(path)
            .to_vec();
    documents.extend(files("docs", "md"));
    documents
}

/// The files below a folder with this extension.
fn files(folder: &str, extension: &str) -> Vec<PathBuf> {
    let (mut found, mut folders) = (Vec::new(), vec![path(folder)]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() {
                folders.push(entry);
            } else if entry.extension().is_some_and(|is| is == extension) {
                found.push(entry);
            }
        }
    }
    found
}

fn read(file: &Path) -> String {
    std::fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// Links from one document to another lead somewhere, to the heading if they name one.
#[test]
fn links_between_documents_lead_somewhere() {
    for document in documents() {
        let text = read(&document);
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.contains("://") {
                continue;
            }
            let (target, heading) = link.split_once('#').unwrap_or((link, ""));
            let target = if target.is_empty() { document.clone() } else { document.parent().unwrap().join(target) };
            assert!(target.exists(), "{}: {link}", document.display());
            assert!(heading.is_empty() || anchors(&read(&target)).contains(heading), "{}: {link}", document.display());
        }
    }
}

/// What GitHub makes of headings.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = text.lines().filter_map(|line| Some(line.strip_prefix('#')?.trim_start_matches('#').trim()));
    let kept = |c: &char| c.is_alphanumeric() || " -_".contains(*c);
    headings.map(|heading| heading.to_lowercase().chars().filter(kept).collect::<String>().replace(' ', "-")).collect()
}

/// Flags and variables that documents and the files of `deploy/systemd` name are there.
#[test]
fn flags_and_variables_that_are_named_exist() {
    let keys: BTreeSet<&str> = SETTINGS.iter().map(|setting| setting.key).collect();
    let variables: BTreeSet<&str> = SETTINGS
        .iter()
        .flat_map(|setting| [setting.env, setting.env_alias])
        .flatten()
        .chain([API_TOKEN_VARIABLE])
        .collect();
    let systemd = ["service", "socket", "conf", "example"].iter().flat_map(|kind| files("deploy/systemd", kind));
    for file in documents().into_iter().chain(systemd) {
        let text = read(&file);
        // The flags of the exporter family have a dot; those of other programs that are named here have none.
        for flag in text.split("--").skip(1) {
            let flag = flag.split(|c: char| !c.is_ascii_lowercase() && !".-".contains(c)).next().unwrap();
            let flag = flag.trim_end_matches(['.', '-']);
            let flag = flag.strip_prefix("no-").filter(|flag| flag.starts_with("collector.")).unwrap_or(flag);
            assert!(!flag.contains('.') || keys.contains(flag), "{}: there is no --{flag}", file.display());
        }
        for variable in text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_') {
            // STREAMLAG_TEST_SERVERS and STREAMLAG_BLESS are of the tests.
            let ours = variable.starts_with("STREAMLAG_") || variable.starts_with("EVENT_TRANSPORT_");
            let known =
                variables.contains(variable) || ["TEST_SERVERS", "BLESS"].iter().any(|of| variable.ends_with(of));
            assert!(!ours || known || variable.ends_with('_'), "{}: there is no {variable}", file.display());
        }
    }
}

/// Tests that ARCHITECTURE.md says hold an invariant are there.
#[test]
fn tests_that_are_named_exist() {
    let architecture = read(&path("ARCHITECTURE.md"));
    let (_, invariants) = architecture.split_once("\n## Invariants\n").unwrap();
    let (invariants, _) = invariants.split_once("\n## ").unwrap();
    let code: String = files("src", "rs").iter().chain(&files("tests", "rs")).map(|file| read(file)).collect();
    let mut named = 0;
    for held_by in invariants.lines().filter_map(|row| row.rsplit_once(" | ")).map(|(_, held_by)| held_by) {
        for name in held_by.split('`').skip(1).step_by(2) {
            if name.ends_with(".rs") {
                assert!(path(name).exists() || path("src").join(name).exists(), "there is no {name}");
            } else if name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_') {
                named += 1;
                assert!(code.contains(&format!("fn {name}(")), "there is no test {name}");
            }
        }
    }
    assert!(named > 100, "only {named} tests are named");
}

/// Bounds whose value the tables give in words of their own: a time by its year, three numbers at once, one that is
/// smaller in tests.
const IN_WORDS: [&str; 6] = ["PENALTIES", "OLD_PENDING", "EARLIEST_CLOCK_MS", "CLOCK_SKEW_MS", "SMALL", "SLOWNESS"];

/// What tables say of bounds, by the column that names the constants: file, constant, value.
fn bounds(document: &str) -> Vec<(String, String, String)> {
    let (mut found, mut columns) = (Vec::new(), None);
    for line in read(&path(document)).lines() {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let column = |name: &str| cells.iter().position(|cell| *cell == name);
        if let (Some(constant), Some(value)) = (column("constant"), column("value")) {
            columns = Some((constant, value));
        } else if !line.starts_with('|') {
            columns = None;
        }
        let Some((constants, values)) = columns else { continue };
        let constants: Vec<&str> = cells.get(constants).unwrap_or(&"").split('`').skip(1).step_by(2).collect();
        let values: Vec<&str> = cells.get(values).unwrap_or(&"").split(", ").collect();
        let mut module = String::new();
        for (place, constant) in constants.iter().enumerate() {
            let name = constant.rsplit("::").next().unwrap();
            if let Some((path, _)) = constant.rsplit_once("::") {
                module = format!("src/{}.rs", path.replace("::", "/"));
            }
            found.push((module.clone(), name.to_owned(), values.get(place).unwrap_or(&"").trim().to_owned()));
        }
    }
    found
}

/// A constant's value in its source: in seconds, bytes, or what it counts.
fn in_source(source: &str, name: &str) -> Option<f64> {
    let (_, rest) = source.split_once(&format!("const {name}: "))?;
    let (_, value) = rest.split_once(" = ")?;
    let (value, _) = value.split_once(';')?;
    let (value, unit) = match value.strip_suffix(')').and_then(|value| value.split_once('(')) {
        Some(("Duration::from_secs", value)) => (value, 1.0),
        Some(("Duration::from_millis", value)) => (value, 0.001),
        Some(_) => return None,
        None => (value, 1.0),
    };
    let factor = |text: &str| text.replace('_', "").parse().ok().or_else(|| in_source(source, text));
    value.split(" * ").map(factor).product::<Option<f64>>().map(|product| product * unit)
}

/// A bound as a table has it, in the same units.
fn in_table(text: &str) -> Option<f64> {
    let shares = [("half", 2.0), ("a quarter", 4.0), ("an eighth", 8.0)];
    if let Some((_, share)) = shares.iter().find(|(word, _)| *word == text) {
        return Some(*share);
    }
    let (number, unit) = text.split_once(' ').unwrap_or(match text.strip_suffix('%') {
        Some(number) => (number, "%"),
        None => (text, ""),
    });
    let units =
        [("", 1.0), ("%", 0.01), ("KiB", 1024.0), ("MiB", 1_048_576.0), ("ms", 0.001), ("s", 1.0), ("day", 86400.0)];
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    Some(number.replace(',', "").parse::<f64>().ok()? * factor)
}

/// Bounds are what the tables say, and no bound of the server is missing from ARCHITECTURE.md.
#[test]
fn bounds_are_as_the_code_has_them() {
    let architecture = bounds("ARCHITECTURE.md");
    assert!(architecture.len() > 60, "{}", architecture.len());
    for (file, name, value) in architecture.iter().cloned().chain(bounds("docs/security.md")) {
        let source = read(&path(&file));
        assert!(source.contains(&format!("const {name}: ")), "there is no {name} in {file}");
        if IN_WORDS.contains(&name.as_str()) {
            continue;
        }
        let (is, said) = (in_source(&source, &name), in_table(&value));
        let (Some(is), Some(said)) = (is, said) else { panic!("{name}: {value:?} is {said:?}, the code has {is:?}") };
        // A share is said as such, whichever way the code divides.
        assert!((is - said).abs() < 1e-9 || (is * said - 1.0).abs() < 1e-9, "{name} is {is}, not {value}");
    }
    let listed: BTreeSet<&str> = architecture.iter().map(|(_, name, _)| name.as_str()).collect();
    let rooms = ["src/server", "src/app", "src/config/web"].map(|room| files(room, "rs")).concat();
    let floors = ["src/server.rs", "src/app.rs", "src/config/web.rs", "src/reload.rs", "src/systemd.rs"].map(path);
    // What is for fuzzers is not in the program.
    for file in rooms.iter().chain(&floors).filter(|file| !file.ends_with("fuzzing.rs")) {
        let text = read(file);
        for line in text.lines().filter(|line| !line.starts_with(' ')) {
            let Some((name, kind)) = line.split_once("const ").and_then(|(_, rest)| rest.split_once(": ")) else {
                continue;
            };
            let is_bound = ["usize", "u32", "u64", "Duration"].iter().any(|of| kind.starts_with(&format!("{of} =")));
            assert!(!is_bound || listed.contains(name), "{}: ARCHITECTURE.md has no {name}", file.display());
        }
    }
}

/// The web configuration that docs/security.md shows is good, and has every key.
#[test]
fn the_web_configuration_that_is_shown_is_good_and_has_every_key() {
    let text = read(&path("docs/security.md"));
    let (_, rest) = text.split_once("<!-- web-config: begin -->\n```yaml\n").unwrap();
    let (shown, _) = rest.split_once("```").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap().pem();
    for (name, content) in
        [("server.crt", &certificate), ("server.key", &key.serialize_pem()), ("clients-ca.pem", &certificate)]
    {
        std::fs::write(dir.path().join(name), content).unwrap();
    }
    let config = WebConfig::parse(shown, dir.path()).unwrap();
    assert!(config.tls.is_some_and(|tls| tls.needs_client_certificate) && !config.users.is_empty());
    assert!(config.headers.len() == 5 && config.rate_limit.is_some() && config.files.len() == 3);
    // The parser itself says what keys there are.
    for section in ["", "tls_server_config:\n  ", "http_server_config:\n  ", "rate_limit:\n  "] {
        let said = WebConfig::parse(&format!("{section}x: 1\n"), dir.path()).unwrap_err();
        let (_, keys) = said.split_once("there are ").unwrap_or_else(|| panic!("{said}"));
        for key in keys.split(", ") {
            // Where a key has one with _file beside it, the example has that.
            let is_shown = shown.contains(&format!("{key}:")) || shown.contains(&format!("{key}_file:"));
            assert!(is_shown, "docs/security.md does not show {key}");
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
