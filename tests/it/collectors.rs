//! What the metrics page shows: by default, by `--collector.NAME`, and by `collect[]`.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;

use crate::common::{Redis, Streamlag, eventually, eventually_right, streamlag, streamlag_with_env};
use streamlag::exposition::collectors::Collectors;
use streamlag::sys::metric_catalog;

/// Only Redis 8.8 has what it counts.
const OF_8_8: &str = "event_consumer_group_unowned_pending";

/// Series by default, at most: per stream, per group, per consumer.
const MOST: [usize; 3] = [6, 16, 2];

/// A stream that is trimmed, with all that can be said of a group and of its consumers: some dead, some over the limit.
fn busy(redis: &Redis) {
    redis.run("XGROUP CREATE s g 0 MKSTREAM");
    redis.add("s", 1000);
    for consumer in ["c1", "c2", "c3"] {
        redis.read("s", "g", consumer, 5);
    }
    redis.run("XREADGROUP GROUP g c4 NOACK COUNT 1 STREAMS s >");
    // The payload of the first ten is gone.
    redis.run("XTRIM s MAXLEN 990");
}

const ARGUMENTS: [&str; 8] =
    ["--streams", "s", "--groups", "g,absent", "--group.window", "1s", "--limit.consumers", "2"];

fn watch(redis: &Redis, more: &[&str]) -> Streamlag {
    streamlag(&[&["--redis.url", &redis.url()], &ARGUMENTS[..], more].concat()).ready()
}

/// The families that a page has series of, without those of the exporter itself.
fn families(page: &str) -> BTreeSet<String> {
    let of = |line: &str| line.split(['{', ' ']).next().unwrap().to_owned();
    page.lines().map(of).filter(|name| name.starts_with("event_")).collect()
}

/// The families that a page describes, likewise.
fn described(page: &str) -> BTreeSet<String> {
    let helps = page.lines().filter_map(|line| line.strip_prefix("# HELP "));
    helps.map(|help| help.split(' ').next().unwrap().to_owned()).filter(|name| name.starts_with("event_")).collect()
}

/// The families that these collectors show, by the names of their series; those of logical streams and of thresholds are left out, as
/// there are none.
fn shown_by(collectors: &[&str]) -> BTreeSet<String> {
    let shows = |name: &&&metric_catalog::MetricName| {
        let of = Collectors::of(name.family).map(Collectors::names).unwrap_or_default();
        of.split(", ").any(|collector| collectors.contains(&collector))
            && !name.labels.iter().any(|label| ["logical_stream", "level"].contains(label))
    };
    metric_catalog::ALL.iter().filter(shows).map(|name| name.series()).collect()
}

const DEFAULT: [&str; 5] = ["groups", "consumers", "loss", "states", "streams"];
const OPTIONAL: [&str; 2] = ["consumer-health", "rates"];

/// The page once nothing is missing of what comes and goes, and how many series it has per stream, group and consumer at most.
fn fullest(redis: &Redis, streamlag: &Streamlag, missing: impl Fn(&str) -> BTreeSet<String>) -> (String, [usize; 3]) {
    let mut most = [0; 3];
    let page = eventually_right(|| {
        // It is trimmed, and catches up.
        redis.run("XADD s MAXLEN 990 * n 1");
        redis.read("s", "g", "c1", 2);
        let page = streamlag.metrics();
        let mut counts: BTreeMap<(usize, String), usize> = BTreeMap::new();
        for line in page.lines().filter(|line| line.starts_with("event_")) {
            let labels = line.split_once('{').unwrap().1;
            let things = ["\",consumer_group=\"", "\",consumer=\""];
            let depth = things.iter().filter(|thing| labels.contains(*thing)).count();
            let labels = labels.split("\",state=").next().unwrap().split("\"}").next().unwrap();
            *counts.entry((depth, labels.to_owned())).or_default() += 1;
        }
        for ((depth, _), count) in counts {
            most[depth] = most[depth].max(count);
        }
        let missing = missing(&page);
        if missing.is_empty() { Ok(page) } else { Err(format!("missing: {missing:?}")) }
    });
    (page, most)
}

#[test]
fn by_default_a_page_has_few_series_and_with_all_collectors_all() {
    for server in crate::common::servers() {
        let redis = Redis::start_with(&server, &[]);
        busy(&redis);
        let place = server.display();
        let missing = |page: &str, collectors: &[&str]| -> BTreeSet<String> {
            let missing = shown_by(collectors).difference(&families(page)).cloned().collect::<BTreeSet<_>>();
            missing.into_iter().filter(|name| name != OF_8_8).collect()
        };
        // Counters, and all that follows from them, are of Redis 7.0 and later; inactivity is of 7.2 and later.
        let before_7 = redis.is_before_7();
        let modest = watch(&redis, &[]);
        let of_default = |page: &str| {
            let missing = missing(page, &DEFAULT);
            if before_7 && missing.len() <= 3 { BTreeSet::new() } else { missing }
        };
        let (page, most) = fullest(&redis, &modest, of_default);
        for (place, (count, most)) in ["stream", "group", "consumer"].iter().zip(most.iter().zip(&MOST)) {
            assert!(count <= most, "{count} series of a {place}: {page}");
        }
        assert_eq!(most[2], 2, "{page}");
        // Nor is anything said to be there that is not shown.
        let other = shown_by(&OPTIONAL);
        assert!(described(&page).intersection(&other).next().is_none(), "{place}: {:?}", described(&page));

        let whole = watch(&redis, &["--collector.rates", "--collector.consumer-health"]);
        let all = [&DEFAULT[..], &OPTIONAL].concat();
        let inactive = BTreeSet::from(["event_consumer_instance_inactive_seconds".to_owned()]);
        if !before_7 {
            fullest(&redis, &whole, |page| missing(page, &all).difference(&inactive).cloned().collect());
        }
    }
}

#[test]
fn flags_environment_and_file_turn_collectors_on_and_off() {
    let redis = Redis::start();
    busy(&redis);
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().to_str().unwrap();
    let check = |arguments: &[&str], env: &[(&str, &str)], text: &str, expected: &[&str]| {
        std::fs::write(path, text).unwrap();
        let url = redis.url();
        let arguments = [&["--redis.url", &url, "--config.file", path], &ARGUMENTS[..], arguments].concat();
        let page = streamlag_with_env(&arguments, env).ready().metrics();
        let counters = |name: &String| name.strip_suffix("_total").unwrap_or(name).to_owned();
        let described: BTreeSet<String> = described(&page).iter().map(counters).collect();
        let expected: BTreeSet<String> = shown_by(expected).iter().map(counters).collect();
        assert_eq!(described, expected, "{arguments:?} {env:?} {text:?}");
    };
    let rates = [&DEFAULT[..], &["rates"]].concat();
    check(&[], &[], "", &DEFAULT);
    check(&["--collector.rates"], &[], "", &rates);
    check(&[], &[("STREAMLAG_COLLECTOR_RATES", "true")], "", &rates);
    check(&[], &[], "collector: {rates: true}", &rates);
    check(&[], &[], "collector.consumer_health: true", &[&DEFAULT[..], &["consumer-health"]].concat());
    check(&["--no-collector.rates"], &[("STREAMLAG_COLLECTOR_RATES", "true")], "", &DEFAULT);
    check(&[], &[("STREAMLAG_COLLECTOR_RATES", "off")], "collector: {rates: true}", &DEFAULT);
    check(&["--collector.rates", "--no-collector.rates"], &[], "", &DEFAULT);
    check(&["--no-collector.rates", "--collector.rates"], &[], "", &rates);
    check(&[], &[], "targets: [{name: a, collector: {rates: true}}]", &rates);
    let none = ["--no-collector.consumers", "--no-collector.loss", "--no-collector.states", "--no-collector.streams"];
    check(&none, &[], "", &["groups"]);
    check(&["--consumers=off"], &[], "", &DEFAULT);
}

/// Without consumers being asked for there is nothing to say of them, whatever collectors are on.
#[test]
fn consumers_that_are_not_asked_for_are_not_shown() {
    let redis = Redis::start();
    busy(&redis);
    let page = watch(&redis, &["--consumers=off", "--collector.consumers", "--collector.consumer-health"]).metrics();
    assert!(
        page.contains("# HELP event_consumer_instance_pending ") && !page.contains("event_consumer_instance_pending{")
    );
    let page = watch(&redis, &["--no-collector.consumers"]).metrics();
    assert!(!page.contains("event_consumer_instance"), "{page}");
    // They are asked for all the same: the group's sums need them.
    assert!(page.contains("event_consumer_group_dead_consumers_with_pending{"), "{page}");
}

#[test]
fn a_scrape_may_ask_for_some_collectors_only() {
    let redis = Redis::start();
    busy(&redis);
    let streamlag = watch(&redis, &["--collector.rates"]);
    let itself = |page: &str| -> BTreeSet<String> {
        let of = |line: &str| line.split(['{', ' ']).next().unwrap().to_owned();
        page.lines().filter(|line| !line.starts_with('#')).map(of).filter(|name| !name.starts_with("event_")).collect()
    };
    let whole = streamlag.metrics();
    let get = |path: &str, headers: &[(&str, &str)]| {
        let reply = streamlag.request("GET", path, headers);
        assert_eq!(reply.status, 200, "{path}: {}", reply.text());
        reply
    };
    let described_as = |collectors: &[&str], openmetrics: bool| -> BTreeSet<String> {
        let names = shown_by(collectors).into_iter();
        let family = |name: String| if openmetrics { name.trim_end_matches("_total").to_owned() } else { name };
        names.map(family).collect()
    };
    let check = |query: &str, collectors: &[&str]| {
        let plain = get(&format!("/metrics?{query}"), &[]);
        assert_eq!(described(&plain.text()), described_as(collectors, false), "{query}");
        // What is of the exporter itself is there, as in node_exporter.
        assert_eq!(itself(&plain.text()), itself(&whole), "{query}");
        assert_eq!(plain.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
        // Its samples are those of the whole page.
        let openmetrics = [("Accept", "application/openmetrics-text")];
        let page = get(&format!("/metrics?{query}"), &openmetrics).text();
        assert!(page.ends_with("# EOF\n"), "{query}: {page}");
        assert_eq!(described(&page), described_as(collectors, true), "{query}");
        // On the page of the target alone there is nothing of the process.
        let target = get(&format!("/probe?target=default&{query}"), &[]).text();
        assert_eq!(described(&target), described_as(collectors, false), "{query}");
        assert!(!target.contains("process_") && target.contains("\nstreamlag_redis_up 1\n"), "{target}");
    };
    check("collect[]=streams", &["streams"]);
    check("collect%5B%5D=consumers&collect[]=states", &["consumers", "states"]);
    check("collect[]=rates&collect[]=rates", &["rates"]);
    check("collect[]=groups&collect[]=loss", &["groups", "loss"]);
    // Other parameters are none of its business.
    check("x=1&collect[]=groups&exclude[]=groups", &["groups"]);
    check("collect=streams", &[&DEFAULT[..], &["rates"]].concat());
    let page = get("/metrics?collect[]=states", &[]).text();
    assert_eq!(page.matches("\nevent_").count(), 2, "{page}");
    assert!(page.contains("event_consumer_group_state{stream=\"s\",consumer_group=\"absent\",state=\"no_group\"} 1\n"));

    // Compressed it says the same; until the next poll it is the same page.
    let gzip = eventually("two answers of one poll", || {
        let plain = get("/metrics?collect[]=consumers", &[]).body;
        let packed = get("/metrics?collect[]=consumers", &[("Accept-Encoding", "gzip")]);
        assert_eq!(packed.header("content-encoding"), Some("gzip"));
        let mut text = Vec::new();
        flate2::read::GzDecoder::new(&packed.body[..]).read_to_end(&mut text).unwrap();
        (text == plain).then_some(packed)
    });
    let head = streamlag.request("HEAD", "/metrics?collect[]=consumers", &[]);
    assert!(head.status == 200 && head.body.is_empty() && !gzip.body.is_empty());
}

#[test]
fn collectors_that_there_are_not_or_that_are_off_are_refused() {
    let redis = Redis::start();
    busy(&redis);
    let streamlag = watch(&redis, &["--no-collector.loss"]);
    let check = |query: &str, expected: &str| {
        for path in ["/metrics?", "/probe?target=default&"] {
            let reply = streamlag.request("GET", &format!("{path}{query}"), &[]);
            let is = (reply.status, reply.header("content-type"));
            assert_eq!(is, (400, Some("application/problem+json")), "{query}");
            assert_eq!(reply.json()["detail"], expected, "{query}");
        }
    };
    let all = "groups, consumers, consumer-health, rates, loss, states, streams, forecast";
    let none = |name: &str| format!("invalid value {name} for collect[]: expected a collector: {all}");
    check("collect[]=nope", &none("\"nope\""));
    check("collect[]=streams&collect[]=forecasts", &none("\"forecasts\""));
    check("collect[]=", &none("\"\""));
    check("collect[]=Streams", &none("\"Streams\""));
    check("collect[]=a%0Ab%e2%80%ae", &none("\"a\\nb\\u{202e}\""));
    check(&format!("collect[]={}", "x".repeat(500)), &none(&format!("\"{}\"", "x".repeat(80))));
    let on = "groups, consumers, states, streams";
    let off = |name: &str| {
        let expected = format!("expected a collector that is on; --collector.NAME turns one on: {on}");
        format!("invalid value \"{name}\" for collect[]: {expected}")
    };
    check("collect[]=loss", &off("loss"));
    check("collect[]=forecast", &off("forecast"));
    check("collect[]=states&collect[]=rates", &off("rates"));
}

/// What readers see is of the new collectors at once, and of the last good sample, even where Redis is down.
#[test]
fn a_reload_changes_collectors_and_keeps_the_last_sample() {
    let mut redis = Redis::start();
    busy(&redis);
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().to_str().unwrap();
    let write = |collectors: &str| std::fs::write(path, format!("collector: {{{collectors}}}\n")).unwrap();
    write("rates: false");
    // Polled too seldom to be polled again but for the reload.
    let streamlag = watch(&redis, &["--config.file", path, "--poll.interval", "1h"]);
    assert!(!streamlag.metrics().contains("event_stream_first_entry_timestamp_seconds{"));
    assert_eq!(streamlag.request("GET", "/metrics?collect[]=rates", &[]).status, 400);
    write("rates: true");
    streamlag.signal("-HUP");
    eventually("the page shows what is on now", || {
        let page = streamlag.metrics();
        (page.contains("event_stream_first_entry_timestamp_seconds{") && page.contains("event_consumer_lag{"))
            .then_some(())
    });
    assert_eq!(streamlag.request("GET", "/metrics?collect[]=rates", &[]).status, 200);
    redis.stop();
    write("rates: true, loss: false");
    streamlag.signal("-HUP");
    let page = eventually("the page of a poll that failed", || {
        let page = streamlag.metrics();
        page.contains("\nstreamlag_redis_up 0\n").then_some(page)
    });
    assert!(page.contains("event_consumer_lag{stream=\"s\",consumer_group=\"g\"}"), "{page}");
    assert!(page.contains("event_stream_first_entry_timestamp_seconds{") && !page.contains("lost_entries"), "{page}");
}
