//! Checks generated tables, links and runbooks. `STREAMLAG_BLESS=1` regenerates the tables.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::common::{Redis, eventually, streamlag};
use streamlag::analysis::remediation::Action;
use streamlag::config::{API_TOKEN_VARIABLE, SETTINGS, Setting};
use streamlag::exposition::collectors::Collectors;
use streamlag::sys::metric_catalog::{self, Kind, MetricName};

fn path(relative: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(relative)
}

/// Compares the text between two marker lines of a document with `expected`.
pub fn check(document: &str, marker: &str, expected: &str) {
    let (begin, end) = (format!("<!-- {marker}: begin -->\n"), format!("<!-- {marker}: end -->\n"));
    let text = std::fs::read_to_string(path(document)).unwrap();
    let (head, rest) = text.split_once(&begin).unwrap_or_else(|| panic!("{document} lacks {begin}"));
    let (table, tail) = rest.split_once(&end).unwrap_or_else(|| panic!("{document} lacks {end}"));
    if std::env::var_os("STREAMLAG_BLESS").is_some() {
        std::fs::write(path(document), format!("{head}{begin}{expected}{end}{tail}")).unwrap();
        return;
    }
    assert_eq!(table, expected, "{document}: run STREAMLAG_BLESS=1 cargo test --locked --test it docs::");
}

#[path = "../../benches/scaling/simulation/mod.rs"]
mod simulation;

#[test]
fn the_tables_of_the_scaling_simulation() {
    check("docs/scaling.md", "simulation", &simulation::tables());
}

#[test]
fn the_table_of_settings() {
    let code = |text: &str| if text.is_empty() { String::new() } else { format!("`{}`", text.replace('|', "\\|")) };
    let row = |setting: &Setting| {
        let has_flag = !setting.key.starts_with("event-transport.");
        let no = if setting.key.starts_with("collector.") { "[no-]" } else { "" };
        let flag = if has_flag { code(&format!("--{no}{}", setting.key)) } else { String::new() };
        let (env, default) = (code(setting.env.unwrap_or_default()), code(setting.default.unwrap_or_default()));
        let target = if setting.per_target { "yes" } else { "" };
        format!(
            "| {flag} | {env} | {default} | {target} | {} |\n",
            setting.help.replace('|', "\\|").replace('*', "\\*")
        )
    };
    let mut table =
        "| flag | environment | default | per target | what |\n| --- | --- | --- | --- | --- |\n".to_owned();
    table.extend(SETTINGS.iter().map(row));
    table.push_str(&format!(
        "|  | `{API_TOKEN_VARIABLE}` |  |  | The API's bearer token; no flag, because it would show in `ps` |\n"
    ));
    check("docs/configuration.md", "flags", &table);
}

#[test]
fn the_table_of_metrics() {
    let kind = |name: &MetricName| match name.kind {
        Kind::Gauge => "gauge",
        Kind::Counter => "counter",
        Kind::Histogram => "histogram",
        Kind::Info => "info",
    };
    let row = |name: &&MetricName| {
        let labels: Vec<String> = name.labels.iter().map(|label| format!("`{label}`")).collect();
        let (labels, collectors) =
            (labels.join(", "), Collectors::of(name.family).map_or(String::new(), Collectors::names));
        format!("| `{}` | {} | {labels} | {collectors} | {} |\n", name.series(), kind(name), name.help)
    };
    let mut table = "| metric | type | labels | collector | meaning |\n| --- | --- | --- | --- | --- |\n".to_owned();
    table.extend(metric_catalog::ALL.iter().map(row));
    check("docs/metrics.md", "metrics", &table);
}

/// A page with every collector on has exactly the metrics and labels of the table.
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
    // Only told where somebody is told of incidents; nothing listens there.
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("streamlag.yml");
    std::fs::write(&file, "notify: {alertmanagers: ['http://127.0.0.1:1']}\n").unwrap();
    let told = ["--config.file", file.to_str().unwrap()];
    let streamlag = streamlag(&[&arguments[..], &many, &own, &all, &told].concat()).ready();
    // Only told while a stream is trimmed, and while a group catches up.
    let changing = ["trim_headroom_seconds", "drain_seconds", "recommended_consumers"];
    let page = eventually("the series of a stream that changes", || {
        redis.run("XADD events:chat MAXLEN 1000 * n 1");
        redis.read("events:chat", "there", "instance-1", 2);
        let page = streamlag.metrics();
        changing.iter().all(|name| page.contains(&format!("event_consumer_group_{name}{{"))).then_some(page)
    });
    // Of servers from 7.2 or 8.8 on only, of clusters and sentinels, where notifications or remediation are configured, or of groups
    // with an hour of history.
    let elsewhere = |series: &&String| {
        let parts = [
            "event_consumer_instance_inactive_seconds",
            "event_consumer_group_unowned_pending",
            "streamlag_redis_node_",
            "streamlag_notifications_total",
            "event_consumer_lag_forecast",
            "event_consumer_lag_threshold_forecast_seconds",
            "event_consumer_loss_forecast_seconds",
            "streamlag_forecast_mase",
            "streamlag_forecast_coverage_ratio",
            "streamlag_remediation_acts_total",
        ];
        parts.iter().any(|part| series.starts_with(part))
    };
    let mut found = BTreeSet::new();
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        let (series, _) = line.rsplit_once(' ').unwrap();
        let (metric, labels) = series.split_once('{').unwrap_or((series, ""));
        let name = metric_catalog::ALL.iter().find(|name| {
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
    let listed: BTreeSet<String> = metric_catalog::ALL.iter().map(|name| name.series()).collect();
    let lacking: Vec<&String> = listed.difference(&found).filter(|series| !elsewhere(series)).collect();
    assert!(lacking.is_empty(), "listed, and not on the page: {lacking:?}");
}

/// Collectors that an expression needs and that are off by default.
fn collectors_needed(expr: &str) -> BTreeSet<String> {
    let words: BTreeSet<&str> = expr.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').collect();
    let asked = metric_catalog::ALL.iter().filter(|name| words.contains(name.series().as_str()));
    let off =
        asked.filter(|name| !Collectors::default().show(name.family)).filter_map(|name| Collectors::of(name.family));
    off.map(Collectors::names).collect()
}

/// Names that every Prometheus takes as they are, whatever escaping it asks for.
#[test]
fn no_name_needs_utf8() {
    let is_plain = |name: &str| {
        let mut chars = name.chars();
        chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
            && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    for name in metric_catalog::ALL {
        assert!(is_plain(&name.series()), "{}", name.series());
        assert!(name.labels.iter().all(|label| is_plain(label)), "{:?}", name.labels);
    }
}

/// Alert rules use no metric of a collector that is off by default but for forecasts. Panels that do name the flag.
#[test]
fn rules_and_panels_name_the_collectors_they_need() {
    for rules in files("alerts", "yml").iter().filter(|file| !file.display().to_string().contains("tests")) {
        let code = read(rules);
        let code: String = code.lines().filter(|line| !line.trim_start().starts_with('#')).collect();
        let mut needed = collectors_needed(&code);
        // Forecasts have rules of their own, which are silent without them.
        needed.remove("forecast");
        assert!(needed.is_empty(), "{}: {needed:?}", rules.display());
    }
    for panel in files("dashboards", "json").iter().filter(|file| is_dashboard(file)).flat_map(|file| panels(file)) {
        for expr in list(&panel["targets"]).iter().map(|target| target["expr"].to_string()) {
            for collector in collectors_needed(&expr) {
                let said = panel["description"].to_string();
                assert!(said.contains(&format!("--collector.{collector}")), "{expr} needs {collector}");
            }
        }
    }
}

fn is_dashboard(file: &Path) -> bool {
    file.parent().is_some_and(|folder| folder.ends_with("dashboards"))
}

fn list(value: &serde_json::Value) -> Vec<serde_json::Value> {
    value.as_array().cloned().unwrap_or_default()
}

/// The panels of a dashboard, rows and what is in them.
fn panels(file: &Path) -> Vec<serde_json::Value> {
    let dashboard: serde_json::Value = serde_json::from_str(&read(file)).unwrap();
    list(&dashboard["panels"]).iter().flat_map(|row| [vec![row.clone()], list(&row["panels"])].concat()).collect()
}

/// The dashboard for who is on call: at most 20 panels on two screens of 24 rows each. Alerts, with links to their runbooks, are on the
/// first one. Nothing is folded.
#[test]
fn the_dashboard_on_call_fits_two_screens() {
    let panels = panels(&path("dashboards/streamlag.json"));
    assert!(panels.len() <= 20, "{} panels", panels.len());
    let ends =
        |panel: &serde_json::Value| panel["gridPos"]["y"].as_u64().unwrap() + panel["gridPos"]["h"].as_u64().unwrap();
    for panel in &panels {
        assert_ne!(panel["type"], "row");
        assert!(ends(panel) <= 48, "{} ends at {}", panel["title"], ends(panel));
    }
    let alerts = panels.iter().find(|panel| panel["targets"][0]["expr"].to_string().contains("ALERTS{")).unwrap();
    assert!(ends(alerts) <= 24);
    let linked = alerts["fieldConfig"].to_string();
    assert!(linked.contains("/blob/main/docs/runbooks/${__value.raw}.md"), "{linked}");
}

/// Every alert links to its runbook, and every runbook has an alert.
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

/// Whoever is on call reads a page at night: it is short, and always in the same order.
#[test]
fn runbooks_are_short_have_one_template_and_name_the_plan_that_does_a_step() {
    let known = Action::ALL.map(Action::as_str);
    let (mut all, mut named) = (0, BTreeSet::new());
    for file in files("docs/runbooks", "md").into_iter().filter(|file| !file.ends_with("README.md")) {
        let (text, name) = (read(&file), file.file_stem().unwrap().to_str().unwrap().to_owned());
        let headings: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("## ")).collect();
        assert_eq!(headings, ["Meaning", "Look", "Act", "Resolved"], "{name}");
        assert!(text.len() <= 2500, "{name} has {} bytes", text.len());
        all += text.len();
        // Nothing is done about streamlag itself.
        if name.starts_with("Streamlag") {
            continue;
        }
        let plan =
            text.split("## Act").nth(1).and_then(|rest| rest.split("\n\n").find(|part| part.starts_with("[Plan]")));
        let plan = plan.unwrap_or_else(|| panic!("{name} names no plan"));
        let words: Vec<&str> = plan.split('`').skip(1).step_by(2).filter(|word| known.contains(word)).collect();
        assert!(words.is_empty() == plan.contains(": none") || name == "EventConsumerLosingEntries", "{name}: {plan}");
        named.extend(words.into_iter().map(str::to_owned));
        // The steps that it names are there, as they are done by hand.
        for step in plan.split(|c: char| !c.is_ascii_digit()).filter(|digits| !digits.is_empty()) {
            assert!(text.contains(&format!("\n{step}. ")), "{name} has no step {step}");
        }
    }
    assert!(all <= 70_000, "{all} bytes");
    assert_eq!(named, known.map(str::to_owned).into());
}

/// Tests run streamlag as this user.
#[test]
fn readme_and_deploy_have_the_same_acl_line() {
    assert_eq!(
        crate::common::grants::documented_in("README.md"),
        crate::common::grants::documented_in("docs/deploy.md")
    );
}

/// Every document.
fn documents() -> Vec<PathBuf> {
    let mut documents: Vec<PathBuf> =
        ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "dashboards/README.md"]
            .map(path)
            .to_vec();
    documents.push(path("deploy/helm/streamlag/README.md"));
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

/// Relative links lead to existing files and headings.
#[test]
fn links_between_documents_resolve() {
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

/// Anchors that GitHub generates for headings.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = text.lines().filter_map(|line| Some(line.strip_prefix('#')?.trim_start_matches('#').trim()));
    let kept = |c: &char| c.is_alphanumeric() || " -_".contains(*c);
    headings.map(|heading| heading.to_lowercase().chars().filter(kept).collect::<String>().replace(' ', "-")).collect()
}
