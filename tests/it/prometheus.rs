//! The dashboard, the alert rules and the documented queries in a real Prometheus that scrapes real exporters.

use std::collections::BTreeSet;
use std::fs;

use crate::common::events::{self, GROUP, MONITORED, STREAMS, Traffic, VERDICTS};
use crate::common::prometheus::{AT_ONCE, Asked, Prometheus, Query, prometheuses, repository, victoria_metrics};
use crate::common::{Redis, Streamlag, streamlag};
use serde_json::{Value, json};
use streamlag::sys::metric_catalog::{self, Kind};

/// What stands for Grafana's `$__rate_interval`, which is at least four scrape intervals; more, so that a loaded
/// machine may miss some.
const RATE_INTERVAL: &str = "10s";
/// What stands for Grafana's `$__range`, the time that the dashboard shows.
const RANGE: &str = "1h";

/// Nothing listens on port 1.
const NOBODY: &str = "127.0.0.1:1";

const LATE: &[&str] = &[
    "events:chat is-draining",
    "events:remote is-late",
    "events:remote signalr-consumers",
    "events:ticket is-stalled",
    "events:ticket signalr-consumers",
];

/// Every rule, and the streams and groups for which it is to fire, and no other. Where it is about an exporter, `""`.
/// Those that fire for nobody need an outage in the middle of things; `alerts/tests` has cases for all.
const RULES: [(&str, &[&str]); 33] = [
    (
        "CriticalEventConsumerLag",
        &["events:chat is-draining", "events:ticket is-stalled", "events:ticket signalr-consumers"],
    ),
    ("CriticalEventConsumerLagSeconds", LATE),
    ("EventConsumerDeadWithPending", &["events:remote signalr-consumers"]),
    ("EventConsumerDeadWithoutPending", &["events:ticket signalr-consumers"]),
    ("EventConsumerGhostPending", &["events:short is-haunted"]),
    ("EventConsumerGroupAckStalled", &["events:chat is-holding", "events:short is-haunted"]),
    ("EventConsumerGroupLagging", &["events:chat is-lagging"]),
    (
        "EventConsumerGroupMissing",
        &[
            "events:chat absent",
            "events:chat audit",
            "events:remote absent",
            "events:short absent",
            "events:short audit",
            "events:short signalr-consumers",
            "events:ticket absent",
            "events:ticket audit",
        ],
    ),
    ("EventConsumerGroupRewound", &["events:chat is-rewound"]),
    ("EventConsumerGroupStalled", &["events:ticket is-stalled"]),
    ("EventConsumerGroupStopped", &["events:remote signalr-consumers", "events:ticket signalr-consumers"]),
    ("EventConsumerLagForecast", &[]),
    ("EventConsumerLagUncertain", &["events:remote signalr-consumers"]),
    ("EventConsumerLosingEntries", &["events:short is-losing"]),
    ("EventConsumerLossForecast", &[]),
    ("EventConsumerLossNear", &["events:chat is-draining", "events:short is-losing"]),
    ("EventConsumerNotCatchingUp", &["events:remote is-late"]),
    ("EventConsumerPendingOld", &["events:remote signalr-consumers"]),
    ("EventLogicalStreamSkewed", &[]),
    ("EventStreamUnreadable", &["events:gone"]),
    (
        "HighEventConsumerLag",
        &["events:chat is-draining", "events:ticket is-stalled", "events:ticket signalr-consumers"],
    ),
    ("HighEventConsumerLagSeconds", LATE),
    ("StreamlagDiscoveryStale", &[]),
    ("StreamlagDown", &[""]),
    ("StreamlagIntervalStretched", &[]),
    ("StreamlagLimitBites", &[""]),
    ("StreamlagPanicked", &[]),
    ("StreamlagPollsFailing", &[]),
    ("StreamlagRedisDown", &[""]),
    ("StreamlagRedisNodeDown", &[]),
    ("StreamlagRedisSlow", &[]),
    ("StreamlagReloadFailed", &[]),
    ("StreamlagSampleStale", &[]),
];

/// Beginnings of metrics that these exporters do not tell: they have no cluster, no sentinels and too little history for forecasts.
const ELSEWHERE: [&str; 10] = [
    "event_consumer_lag_forecast",
    "event_consumer_lag_threshold_forecast",
    "event_consumer_loss_forecast",
    "streamlag_forecast_coverage",
    "streamlag_forecast_mase",
    "streamlag_notifications",
    "streamlag_remediation_acts",
    "streamlag_redis_master_changes",
    "streamlag_redis_node_",
    "streamlag_redis_redirects",
];

/// Parts of documented queries that have nothing to say here, each of them rightly.
const QUIET: [(&str, &str); 6] = [
    ("offset 1d", "nothing was scraped yesterday"),
    ("offset 15m", "nor a quarter of an hour ago"),
    ("event_consumer_instance_idle_seconds > 60", "no consumer is as old as that"),
    ("or 0 * event_consumer_group_state)", "no state comes and goes so often"),
    ("unless on () (streamlag_redis_up == 0)", "the total is incomplete"),
    ("event_logical_stream_lag_skew_ratio > 3", "three partitions cannot be as uneven as that"),
];

/// The dashboards, and how many queries each has at least.
const DASHBOARDS: [(&str, usize); 2] = [("dashboards/streamlag.json", 40), ("dashboards/streamlag-exporter.json", 45)];

/// What some panels say of one exporter: a count that finds nothing shows 0, so that having data proves little.
const NUMBERS: [(&str, &str); 14] = [
    ("panel Redis, query A", "1"),
    ("panel Streams by status, query A", "1"),
    ("panel Streams by status, query B", "1"),
    ("panel Streams by status, query C", "2"),
    ("panel Streams by status, query D", "1"),
    ("panel Groups by state, query A", "4"),
    ("panel Groups by state, query B", "1"),
    ("panel Groups by state, query C", "2"),
    ("panel Groups by state, query D", "1"),
    ("panel Groups by state, query E", "2"),
    ("panel Groups by state, query F", "1"),
    ("panel Groups by state, query G", "1"),
    ("panel Groups by state, query H", "8"),
    ("panel Dead, with entries, query A", "1"),
];

#[test]
fn dashboards_alerts_and_documented_queries_work_in_prometheus() {
    let redis = Redis::start();
    let _traffic = Traffic::start(&redis);
    let exporter = |url: &str, streams: &[&str], groups: &str, more: &[&str]| {
        let about = ["--redis.url", url, "--streams", &streams.join(","), "--groups", groups];
        streamlag(&[&about, &VERDICTS[..], more].concat())
    };
    // Two on one Redis, as some run it: a query that matches series too loosely fails only then. One that does not count
    // what the counters leave open, and is refused a command. One without a Redis. One with patterns, and with limits that bite.
    let url = redis.url();
    redis.run("ACL SETUSER limited on nopass allkeys +@all -xpending");
    let limited = redis.url_as("limited");
    redis.run("ACL SETUSER finder on nopass allkeys +@all");
    let finder = redis.url_as("finder");
    let exporters = [
        exporter(&url, &STREAMS, MONITORED, &[]).ready(),
        exporter(&url, &STREAMS, MONITORED, &[]).ready(),
        exporter(&limited, &["events:remote"], GROUP, &["--lag.count-budget", "0"]).ready(),
        exporter(&format!("redis://{NOBODY}"), &STREAMS, MONITORED, &[]),
        exporter(&finder, &["events:*"], "signalr-consumers,audit,is-*", &FLEET).ready(),
    ];
    exporters[..2].iter().for_each(events::settled);
    // A rate of refused requests takes one before the first scrape and one after it.
    let be_refused = || ["/nothing", "/api/v1/events/health"].map(|path| exporters[0].request("GET", path, &[]));
    be_refused();
    let addresses = exporters.iter().map(|exporter| exporter.address.to_string());
    let addresses: Vec<String> = addresses.chain([NOBODY.to_owned()]).collect();

    let mut found = Vec::new();
    let mut shipped = Vec::new();
    for (binary, is_prometheus) in prometheuses()
        .into_iter()
        .map(|binary| (binary, true))
        .chain(victoria_metrics().into_iter().map(|one| (one, false)))
    {
        let server = if is_prometheus {
            Prometheus::start(&binary, &addresses)
        } else {
            Prometheus::victoria_metrics(&binary, &addresses)
        };
        let mut of_this = targets(&server, &exporters, is_prometheus);
        be_refused();
        for (file, least) in DASHBOARDS {
            of_this.extend(dashboard(&server, &exporters, file, least, is_prometheus));
        }
        if is_prometheus {
            shipped = shipped_rules(&server);
            of_this.extend(rules(&server));
        } else {
            of_this.extend(rules_elsewhere(&server, &shipped));
        }
        of_this.extend(documented_queries(&server, is_prometheus));
        found.extend(of_this.into_iter().map(|found| format!("{}: {found}", binary.display())));
    }
    assert!(found.is_empty(), "{} found:\n{}", found.len(), found.join("\n"));
}

/// The exporters are scraped, in OpenMetrics, and Prometheus understood every family as what it is.
fn targets(prometheus: &Prometheus, exporters: &[Streamlag], is_prometheus: bool) -> Vec<String> {
    let health = |address: &str| -> Vec<String> {
        let targets = prometheus.api("targets", &[("state", "active")]).unwrap();
        let targets = targets["activeTargets"].as_array().unwrap();
        let target = targets.iter().find(|target| target["labels"]["instance"] == address);
        let well = target.is_some_and(|target| target["health"] == "up" && target["lastError"] == "");
        if well { Vec::new() } else { vec![format!("{address} is not scraped: {target:?}")] }
    };
    for exporter in exporters {
        let found = prometheus.settled(|| health(&exporter.address.to_string()));
        assert!(found.is_empty(), "{found:?}: {:?}", exporter.log());
    }

    // VictoriaMetrics keeps no types of targets.
    if !is_prometheus {
        return Vec::new();
    }
    let [one, .., fleet] = exporters else { panic!("too few exporters") };
    let selector = format!("{{instance=~\"{}|{}\"}}", one.address, fleet.address);
    let families = prometheus.api("targets/metadata", &[("match_target", &selector)]).unwrap();
    let families = families.as_array().unwrap();
    let misunderstood = metric_catalog::ALL.iter().filter(|name| !is_elsewhere(name.family)).filter_map(|name| {
        // Only OpenMetrics has a type info, and names a counter's family without `_total`.
        let kind = format!("{:?}", name.kind).to_lowercase();
        let family = families.iter().find(|family| family["metric"] == name.family);
        let well = family.is_some_and(|family| family["type"] == kind && family["help"] == name.help);
        (!well).then(|| format!("{} is no {kind} in OpenMetrics, but {family:?}", name.family))
    });
    misunderstood.collect()
}

/// Whether a query, or a family, is about what these exporters do not tell.
fn is_elsewhere(expr: &str) -> bool {
    ELSEWHERE.iter().any(|part| expr.contains(part))
}

/// What makes an exporter tell what is about many streams, all of it on few, and all that collectors have.
const FLEET: [&str; 16] = [
    "--shard",
    "0/1",
    "--logical-streams",
    "all=events:*",
    "--lag.thresholds",
    "events:chat=100/1000",
    "--discovery.interval",
    "1s",
    "--limit.streams",
    "3",
    "--limit.groups",
    "2",
    "--limit.consumers",
    "1",
    "--collector.consumer-health",
    "--collector.rates",
];

/// What is chosen in the dashboard's variables: name, and what takes its place in a regular expression.
type Choice = Vec<(String, String)>;

fn choice(values: [&[&str]; 4]) -> Choice {
    ["job", "instance", "stream", "group"].map(str::to_owned).into_iter().zip(values.map(chosen)).collect()
}

/// Every query of every panel, variable and annotation returns data, with All chosen and with one of each. No panel may
/// stay empty.
fn dashboard(
    prometheus: &Prometheus,
    exporters: &[Streamlag],
    file: &str,
    least: usize,
    has_alerts: bool,
) -> Vec<String> {
    let dashboard = fs::read(repository(file)).unwrap();
    let dashboard: Value = serde_json::from_slice(&dashboard).unwrap();
    let all = variables(prometheus, &dashboard, exporters);
    let one = exporters[0].address.to_string();
    // Several groups, because none has a lag and is missing, or holds entries and catches up.
    let groups = ["absent", "is-draining", "is-holding", GROUP];
    let fleet = exporters[exporters.len() - 1].address.to_string();
    let few = choice([&["streamlag"], &[&one, &fleet], &["events:chat"], &groups]);
    let mut found = Vec::new();
    for (name, choice) in [("All", &all), ("few", &few)] {
        let mut queries = queries(&dashboard, choice);
        assert!(queries.len() >= least, "{file} has only {} queries", queries.len());
        found.extend(queries.iter().flat_map(|query| unknown_metrics(&query.place, &query.expr)));
        let mut errors = Vec::new();
        found.extend(prometheus.settled(|| {
            queries.retain(|query| match prometheus.run(query) {
                Ok(data) => {
                    let quiet = is_elsewhere(&query.expr) || (!has_alerts && query.expr.contains("ALERTS{"));
                    !has_data(&data) && !quiet
                }
                Err(error) => {
                    errors.push(format!("{}: {error}\n    in: {}", query.place, query.expr));
                    false
                }
            });
            let empty = |query: &Query| format!("{}: no data with {name} chosen\n    in: {}", query.place, query.expr);
            queries.iter().map(empty).collect()
        }));
        found.extend(errors);
    }
    if file != DASHBOARDS[0].0 {
        return found;
    }
    let mut choice = all;
    choice.iter_mut().filter(|(name, _)| name == "instance").for_each(|(_, value)| *value = chosen(&[&one]));
    let queries = queries(&dashboard, &choice);
    found.extend(prometheus.settled(|| {
        let differs = |(place, number): &(&str, &str)| {
            let query = queries.iter().find(|query| query.place == *place);
            let query = query.unwrap_or_else(|| panic!("there is no {place}"));
            let data = prometheus.run(query).unwrap_or_default();
            let right = data["result"][0]["value"][1] == *number && data["result"][1].is_null();
            (!right).then(|| format!("{place}: {} is not {number}\n    in: {}", data["result"], query.expr))
        };
        NUMBERS.iter().filter_map(differs).collect()
    }));
    found
}

/// Asks for the values of the variables, each filtered by those before it, and chooses All of each.
fn variables(prometheus: &Prometheus, dashboard: &Value, exporters: &[Streamlag]) -> Choice {
    let mut instances: Vec<String> = exporters.iter().map(|exporter| exporter.address.to_string()).collect();
    instances.sort_unstable();
    let texts = |texts: &[&str]| -> Vec<String> { texts.iter().map(|&text| text.to_owned()).collect() };
    let mut all = Choice::new();
    for variable in dashboard["templating"]["list"].as_array().unwrap() {
        let name = text(&variable["name"]);
        let expected = match name {
            "datasource" => continue,
            "job" => texts(&["streamlag"]),
            "instance" => instances.clone(),
            "stream" => texts(&STREAMS),
            "group" => events::groups(),
            _ => panic!("what are the values of the variable {name}?"),
        };
        let query = text(&variable["query"]["query"]);
        let inner = query.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')'));
        let (selector, label) = inner.and_then(|inner| inner.rsplit_once(", ")).unwrap();
        let kind = Asked::Label(label.to_owned());
        let query = Query { place: format!("variable {name}"), expr: substitute(selector, &all), kind };
        let differs = prometheus.settled(|| {
            let values = prometheus.run(&query).unwrap_or_else(|error| panic!("variable {name}: {error}"));
            let right = values == json!(expected);
            if right { Vec::new() } else { vec![format!("{values} is not {expected:?}\n    in: {}", query.expr)] }
        });
        assert!(differs.is_empty(), "variable {name}: {differs:?}");
        let values: Vec<&str> = expected.iter().map(String::as_str).collect();
        let value = variable["allValue"].as_str().map_or_else(|| chosen(&values), str::to_owned);
        all.push((name.to_owned(), value));
    }
    assert!(all.len() >= 2, "{all:?}");
    all
}

/// Grafana's text for the chosen values of a variable, inside a quoted regular expression.
fn chosen(values: &[&str]) -> String {
    let escape = |value: &&str| -> String {
        let special = |c: char| r"\$^*{}[]'+?.()|".contains(c);
        value.chars().map(|c| if special(c) { format!(r"\\{c}") } else { c.to_string() }).collect()
    };
    let values: Vec<String> = values.iter().map(escape).collect();
    if let [value] = values.as_slice() { value.clone() } else { format!("({})", values.join("|")) }
}

fn substitute(expr: &str, choice: &Choice) -> String {
    let expr = expr.replace("$__rate_interval", RATE_INTERVAL).replace("$__range", RANGE);
    let expr = choice.iter().fold(expr, |expr, (name, value)| expr.replace(&format!("${name}"), value));
    // A "$1" is label_replace's own.
    let left = |rest: &str| rest.starts_with(|c: char| c == '{' || c == '_' || c.is_ascii_alphabetic());
    assert!(!expr.split('$').skip(1).any(left), "a variable that is not known: {expr}");
    expr
}

/// The queries of panels and annotations.
fn queries(dashboard: &Value, choice: &Choice) -> Vec<Query> {
    let mut queries = Vec::new();
    let mut add = |place: String, target: &Value| {
        let kind = if target["instant"] == true { Asked::Instant } else { Asked::Range };
        queries.push(Query { place, expr: substitute(text(&target["expr"]), choice), kind });
    };
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    for annotation in list(&dashboard["annotations"]["list"]) {
        add(format!("annotation {}", text(&annotation["name"])), &annotation["target"]);
    }
    for row in list(&dashboard["panels"]) {
        let inside = list(&row["panels"]);
        for panel in [row].iter().chain(&inside) {
            for target in list(&panel["targets"]) {
                add(format!("panel {}, query {}", text(&panel["title"]), text(&target["refId"])), &target);
            }
        }
    }
    queries
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text"))
}

/// Is there a number in it, or a label's value?
fn has_data(data: &Value) -> bool {
    let number = |sample: &Value| sample[1].as_str().is_some_and(|number| number != "NaN");
    let in_series = |series: &Value| match series["values"].as_array() {
        Some(samples) => samples.iter().any(number),
        None => number(&series["value"]),
    };
    match data.as_array() {
        Some(values) => !values.is_empty(),
        None => data["result"].as_array().is_some_and(|result| result.iter().any(in_series)),
    }
}

/// Every rule is there and evaluates, and sees what is true here and nothing else, and fires in the copy without `for`.
fn rules(prometheus: &Prometheus) -> Vec<String> {
    prometheus.settled(|| {
        let groups = prometheus.api("rules", &[]).unwrap();
        let groups = groups["groups"].as_array().unwrap();
        let mut found = Vec::new();
        // On a machine so slow that a `for` has passed, what is pending fires.
        let files = [("streamlag.rules.yml", "", &["pending", "firing"][..]), ("at_once.yml", AT_ONCE, &["firing"])];
        for (file, prefix, states) in files {
            let of_file = groups.iter().filter(|group| text(&group["file"]).ends_with(file));
            let rules: Vec<&Value> = of_file.flat_map(|group| group["rules"].as_array().unwrap()).collect();
            let mut names: Vec<_> = rules.iter().map(|rule| text(&rule["name"])).collect();
            names.sort_unstable();
            assert_eq!(names, RULES.map(|(name, _)| format!("{prefix}{name}")), "the rules of {file}");
            for rule in rules {
                found.extend(unwell(rule));
                let name = text(&rule["name"]);
                let (_, places) = RULES.iter().find(|(rule, _)| *rule == &name[prefix.len()..]).unwrap();
                let expected: BTreeSet<String> = places.iter().map(|&place| place.to_owned()).collect();
                let alerts = rule["alerts"].as_array().unwrap().iter();
                let is: BTreeSet<String> =
                    alerts.filter(|alert| states.contains(&text(&alert["state"]))).map(place).collect();
                if is != expected {
                    found.push(format!("rule {name} is {states:?} for {is:?}, not {expected:?}: {}", rule["query"]));
                }
            }
        }
        found
    })
}

/// The shipped rules as a Prometheus has read them: name and expression.
fn shipped_rules(prometheus: &Prometheus) -> Vec<(String, String)> {
    let groups = prometheus.api("rules", &[]).unwrap();
    let groups = groups["groups"].as_array().unwrap();
    let of_file = groups.iter().filter(|group| text(&group["file"]).ends_with("streamlag.rules.yml"));
    let rules = of_file.flat_map(|group| group["rules"].as_array().unwrap());
    rules.map(|rule| (text(&rule["name"]).to_owned(), text(&rule["query"]).to_owned())).collect()
}

/// Their expressions where no rules are evaluated: the same is true there.
fn rules_elsewhere(other: &Prometheus, rules: &[(String, String)]) -> Vec<String> {
    assert_eq!(rules.len(), RULES.len());
    other.settled(|| {
        let mut found = Vec::new();
        for (name, expr) in rules {
            let (_, places) = RULES.iter().find(|(rule, _)| *rule == name).unwrap();
            let expected: BTreeSet<String> = places.iter().map(|&place| place.to_owned()).collect();
            let query = Query { place: name.to_owned(), expr: expr.clone(), kind: Asked::Instant };
            match other.run(&query) {
                Ok(data) => {
                    let series = data["result"].as_array().unwrap().iter();
                    let is: BTreeSet<String> =
                        series.map(|series| place(&json!({"labels": series["metric"]}))).collect();
                    if is != expected {
                        found.push(format!("rule {name} is true for {is:?}, not {expected:?}: {}", query.expr));
                    }
                }
                Err(error) => found.push(format!("rule {name}: {error}\n    in: {}", query.expr)),
            }
        }
        found
    })
}

/// What an alert is about.
fn place(alert: &Value) -> String {
    let labels = ["stream", "consumer_group"].iter().filter_map(|label| alert["labels"][label].as_str());
    labels.collect::<Vec<_>>().join(" ")
}

fn unwell(rule: &Value) -> Vec<String> {
    let name = text(&rule["name"]);
    let mut found = unknown_metrics(name, text(&rule["query"]));
    if rule["health"] != "ok" || rule.get("lastError").is_some() {
        found.push(format!("rule {name} is {}: {}", rule["health"], rule["lastError"]));
    }
    // A template that fails puts its error into the text.
    for alert in rule["alerts"].as_array().unwrap() {
        let annotations = alert["annotations"].to_string();
        if annotations.contains("error expanding template") || annotations.contains("no value") {
            found.push(format!("rule {name} says {annotations}"));
        }
    }
    found
}

/// The PromQL of the documentation runs, and has something to say.
fn documented_queries(prometheus: &Prometheus, has_alerts: bool) -> Vec<String> {
    let mut found = Vec::new();
    let mut queries = Vec::new();
    let runbooks = fs::read_dir(repository("docs/runbooks")).unwrap().map(|entry| entry.unwrap().path());
    for file in runbooks.chain([repository("docs/queries.md")]) {
        for block in fs::read_to_string(&file).unwrap().split("```promql\n").skip(1) {
            let (expr, _) = block.split_once("```").unwrap();
            let place = file.display().to_string();
            found.extend(unknown_metrics(&place, expr));
            // The reader puts in the stream and the group that the alert names.
            let expr = expr.replace("stream=\"events:chat\"", "stream=~\".+\"");
            let expr = expr.replace("consumer_group=\"signalr-consumers\"", "consumer_group=~\".+\"");
            // A subquery looks at full minutes, of which there may be none yet.
            let expr = expr.replace(":1m]", ":1s]");
            queries.push(Query { place, expr, kind: Asked::Instant });
        }
    }
    assert!(queries.len() > 80, "only {} queries", queries.len());
    for (part, why) in QUIET {
        assert!(queries.iter().any(|query| query.expr.contains(part)), "there is no {part} any more: {why}");
    }
    let mut errors = Vec::new();
    let empty = prometheus.settled(|| {
        queries.retain(|query| match prometheus.run(query) {
            Ok(data) => {
                let quiet = QUIET.iter().any(|(part, _)| query.expr.contains(part))
                    || (!has_alerts && query.expr.contains("ALERTS"));
                !has_data(&data) && !quiet && !is_elsewhere(&query.expr)
            }
            Err(error) => {
                errors.push(format!("{}: {error}\n    in: {}", query.place, query.expr));
                false
            }
        });
        queries.iter().map(|query| format!("{}: no data\n    in: {}", query.place, query.expr)).collect()
    });
    found.extend(empty.into_iter().chain(errors));
    found
}

/// Names in a query that look like this program's and are not.
fn unknown_metrics(place: &str, expr: &str) -> Vec<String> {
    let known: BTreeSet<String> = metric_catalog::ALL
        .iter()
        .flat_map(|name| match name.kind {
            Kind::Histogram => ["_bucket", "_count", "_sum"].map(|part| name.series() + part).to_vec(),
            Kind::Gauge | Kind::Counter | Kind::Info => vec![name.series()],
        })
        .collect();
    let words = expr.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != ':');
    let ours = words.filter(|word| ["event_", "streamlag_", "process_"].iter().any(|ours| word.starts_with(ours)));
    let unknown = ours.filter(|word| !known.contains(*word));
    unknown.map(|word| format!("{place}: there is no metric {word}")).collect()
}
