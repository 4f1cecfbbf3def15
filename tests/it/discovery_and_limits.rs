//! Which streams, groups and consumers are sampled where there are many: found by patterns, left out, limited, shared, summed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::common::monitor::Monitor;
use crate::common::proxy::{Fault, Proxy};
use crate::common::{Redis, Streamlag, eventually, eventually_right, grants, servers, streamlag, value_of};
use serde_json::{Value, json};

/// A stream with a group that has read nothing of so many entries.
fn stream(redis: &Redis, key: &str, entries: usize) {
    redis.run(&format!("XGROUP CREATE {key} g 0 MKSTREAM"));
    if entries > 0 {
        redis.add(key, entries);
    }
}

/// A page with a sample on it. On a machine that is busy with other things, samples come so late that old ones are withdrawn.
fn page_of(streamlag: &Streamlag) -> String {
    eventually("a page with a sample", || {
        Some(streamlag.metrics()).filter(|page| page.contains("\nstreamlag_streams "))
    })
}

/// The streams of a page, and whether each could be read.
fn up(page: &str) -> BTreeMap<&str, bool> {
    let lines = page.lines().filter_map(|line| line.strip_prefix("event_stream_up{stream=\"")?.split_once("\"} "));
    lines.map(|(stream, up)| (stream, up == "1")).collect()
}

fn lag(page: &str, stream: &str, group: &str) -> Option<f64> {
    value_of(page, &format!("event_consumer_lag{{stream=\"{stream}\",consumer_group=\"{group}\"}}"))
}

/// Names of the groups of a stream that have a lag.
fn groups<'a>(page: &'a str, stream: &str) -> Vec<&'a str> {
    let begin = format!("event_consumer_lag{{stream=\"{stream}\",consumer_group=\"");
    page.lines().filter_map(|line| line.strip_prefix(&begin)?.split('"').next()).collect()
}

fn over(streamlag: &Streamlag, limit: &str) -> Option<f64> {
    value_of(&page_of(streamlag), &format!("streamlag_over_limit{{limit=\"{limit}\"}}"))
}

#[test]
fn streams_that_patterns_mean_are_there_at_once_come_and_go() {
    for server in servers() {
        let redis = Redis::start_with(&server, &[]);
        ["events:a", "events:b", "events:secret", "mail:c"].iter().for_each(|key| stream(&redis, key, 3));
        redis.run("SET events:string x");
        let url = redis.url_as(&finder(&redis, &server));
        let arguments = ["--redis.url", &url, "--streams", "events:*,named", "--streams.exclude", "*:secret"];
        let arguments = [&arguments[..], &["--groups", "g", "--discovery.interval", "1s"]].concat();

        // There is no second poll within the test.
        let once = streamlag(&[&arguments[..], &["--poll.interval", "1h"]].concat()).ready();
        let page = page_of(&once);
        let expected = BTreeMap::from([("events:a", true), ("events:b", true), ("named", false)]);
        assert_eq!(up(&page), expected, "{}", server.display());
        assert_eq!(lag(&page, "events:a", "g"), Some(3.0));

        let streamlag = streamlag(&arguments).ready();
        let named = streamlag.log_lines("stream read failed");
        assert!(named.len() == 1 && named[0].contains("stream=named"), "{named:?}");
        let shows = |key: &str| {
            eventually(&format!("{key} shows"), || {
                let page = page_of(&streamlag);
                let streams = up(&page);
                for never in ["events:secret", "events:string", "mail:c"] {
                    assert!(!streams.contains_key(never), "{}: {never} shows", server.display());
                }
                (streams.get(key) == Some(&true)).then_some(())
            });
        };
        let left = |key: &str| {
            streamlag.next_sample();
            let page = page_of(&streamlag);
            assert!(!page.contains(key), "{}: {key} is still there", server.display());
        };
        stream(&redis, "events:new", 1);
        shows("events:new");
        redis.run("DEL events:a");
        left("events:a");
        redis.run("DEL events:b");
        redis.run("SET events:b x");
        left("events:b");
        stream(&redis, "events:a", 1);
        shows("events:a");
        redis.run("XADD named * a b");
        shows("named");
        redis.run("DEL named");
        streamlag.next_sample();
        let page = page_of(&streamlag);
        assert_eq!(up(&page), BTreeMap::from([("events:a", true), ("events:new", true), ("named", false)]));
        assert_eq!(value_of(&page, "streamlag_streams"), Some(3.0));
        assert_eq!(value_of(&page, "streamlag_discovery_streams"), Some(2.0));
        assert_eq!(value_of(&page, "streamlag_discovery_interval_seconds"), Some(1.0));
        assert!(value_of(&page, "streamlag_discovery_scan_seconds").is_some());
        assert!(value_of(&page, "streamlag_discovery_last_scan_timestamp_seconds") > Some(1.5e9));
        // That one of those that are found is gone is no news.
        let said = streamlag.log_lines("stream read failed");
        assert!(said.len() == 2 && said.iter().all(|line| line.contains("stream=named")), "{said:?}");
    }
}

/// A user that may look for streams as well; its name.
fn finder(redis: &Redis, server: &std::path::Path) -> String {
    let words = [grants::on(server, "*"), vec![grants::of_patterns()]].concat().join(" ");
    redis.run(&format!("ACL SETUSER finder on >{} {words}", grants::PASSWORD));
    "finder".to_owned()
}

#[test]
fn streams_are_found_among_many_keys_in_few_calls_a_poll() {
    for server in servers() {
        let redis = Redis::start_with(&server, &[]);
        redis.run_bytes(&[
            b"EVAL",
            b"for n = 1, 100000 do redis.call('SET', 'events:' .. n, 'x') redis.call('SET', 'other:' .. n, 'x') end",
            b"0",
        ]);
        ["events:a", "events:b"].iter().for_each(|key| stream(&redis, key, 1));
        let began = Instant::now();
        let url = redis.url_as(&finder(&redis, &server));
        let streamlag =
            streamlag(&["--redis.url", &url, "--streams", "events:*", "--groups", "g", "--discovery.interval", "1s"])
                .ready();
        let mut most = 0.0_f64;
        let mut before = None;
        let mut shows = |expected: &[&str]| {
            eventually(&format!("{expected:?} show"), || {
                let page = page_of(&streamlag);
                let scans = value_of(&page, "streamlag_redis_commands_total{command=\"scan\"}").unwrap_or_default();
                let polls: f64 = ["success", "partial", "failure"]
                    .iter()
                    .filter_map(|outcome| value_of(&page, &format!("streamlag_polls_total{{outcome=\"{outcome}\"}}")))
                    .sum();
                // 400 in the first poll, then sixty a second, and one more a poll for what does not divide.
                let allowed = 400.0 + 60.0 * began.elapsed().as_secs_f64() + polls;
                assert!(scans <= allowed, "{}: {scans} calls, not {allowed}", server.display());
                if let Some((polls_before, scans_before)) = before.replace((polls, scans))
                    && polls == polls_before + 1.0
                {
                    most = most.max(scans - scans_before);
                }
                (up(&page).into_keys().collect::<Vec<_>>() == expected).then_some(())
            });
        };
        shows(&["events:a", "events:b"]);
        stream(&redis, "events:c", 1);
        shows(&["events:a", "events:b", "events:c"]);
        redis.run("DEL events:b");
        shows(&["events:a", "events:c"]);
        assert!(most <= 600.0, "{}: {most} calls in one poll", server.display());
    }
}

#[test]
fn a_search_that_takes_long_does_not_take_the_samples_time() {
    let redis = Redis::start();
    redis.run_bytes(&[b"EVAL", b"for n = 1, 20000 do redis.call('SET', 'other:' .. n, 'x') end", b"0"]);
    ["events:a", "named"].iter().for_each(|key| stream(&redis, key, 1));
    let proxy = Proxy::start(redis.port);
    // Forty calls of SCAN take longer than a poll may.
    proxy.set(Fault::Latency(Duration::from_millis(40)));
    let arguments = ["--redis.url", &proxy.url(), "--streams", "events:*,named", "--groups", "g"];
    let pace = ["--redis.timeout", "1s", "--poll.interval", "500ms", "--poll.max-redis-share", "50%"];
    let streamlag = streamlag(&[&arguments[..], &pace].concat()).ready();
    assert_eq!(lag(&page_of(&streamlag), "named", "g"), Some(1.0));
    let page = eventually("events:a is found, and the search is complete", || {
        let page = page_of(&streamlag);
        let complete = value_of(&page, "streamlag_discovery_scan_seconds").is_some();
        (complete && up(&page).contains_key("events:a")).then_some(page)
    });
    assert_eq!(value_of(&page, "streamlag_polls_total{outcome=\"failure\"}"), Some(0.0), "{:?}", streamlag.log());

    // The way there and back is not Redis's time, from the first poll on.
    proxy.set(Fault::Latency(Duration::from_millis(200)));
    let once = ["--redis.timeout", "10s", "--poll.interval", "1h"];
    let once = crate::common::streamlag(&[&arguments[..], &once].concat()).ready();
    let page = page_of(&once);
    assert!(value_of(&page, "streamlag_redis_commands_total{command=\"scan\"}") > Some(5.0));
    assert!(value_of(&page, "streamlag_redis_time_seconds_total").is_some_and(|taken| taken < 1.0), "{page}");
}

#[test]
fn without_the_grant_what_is_named_is_sampled_and_the_rest_once_it_is_given() {
    let redis = Redis::start();
    ["events:a", "events:b"].iter().for_each(|key| stream(&redis, key, 1));
    let streamlag =
        streamlag(&["--redis.url", &redis.url(), "--streams", "events:*,events:a", "--groups", "g"]).ready();
    streamlag.next_sample();
    let page = page_of(&streamlag);
    assert_eq!(up(&page), BTreeMap::from([("events:a", true)]));
    assert_eq!(value_of(&page, "streamlag_polls_total{outcome=\"success\"}"), Some(0.0), "no poll is complete");
    assert_eq!(value_of(&page, "streamlag_discovery_last_scan_timestamp_seconds"), Some(0.0));
    assert_eq!(streamlag.log_lines("Redis command refused\" command=SCAN").len(), 1, "{:?}", streamlag.log());
    let health = || {
        let health = streamlag.json("health");
        (health["status"].clone(), health["error"].clone())
    };
    assert_eq!(health(), (json!("degraded"), json!("Redis refuses SCAN: streams that match a pattern are not found")));
    redis.run(&format!("ACL SETUSER {} +scan", grants::USER));
    eventually("events:b is found", || up(&page_of(&streamlag)).contains_key("events:b").then_some(()));
    assert_eq!(health(), (json!("healthy"), Value::Null));
    streamlag.next_sample();
    assert_eq!(streamlag.log_lines("Redis command refused").len(), 1, "{:?}", streamlag.log());
    assert_eq!(streamlag.log_lines("Redis command allowed again\" command=SCAN").len(), 1, "{:?}", streamlag.log());
}

#[test]
fn what_is_known_of_streams_that_stay_survives_when_others_come_and_go() {
    for server in servers() {
        let redis = Redis::start_with(&server, &[]);
        let counts_added = !redis.is_before_7();
        ["events:m", "named"].iter().for_each(|key| stream(&redis, key, 100));
        let url = redis.url_as(&finder(&redis, &server));
        let arguments = ["--redis.url", &url, "--streams", "named,events:*", "--groups", "g", "--group.window", "1s"];
        let more = ["--discovery.interval", "1s", "--collector.rates"];
        let streamlag = streamlag(&[&arguments[..], &more].concat()).ready();
        let lost = |page: &str, key: &str| {
            value_of(page, &format!("event_consumer_group_lost_entries_total{{stream=\"{key}\",consumer_group=\"g\"}}"))
        };
        let rate = |page: &str| value_of(page, "event_stream_added_per_second{stream=\"events:m\"}");
        streamlag.next_sample();
        ["events:m", "named"].iter().for_each(|key| drop(redis.run(&format!("XTRIM {key} MAXLEN 40"))));
        let before = eventually("losses and rates are known", || {
            let page = page_of(&streamlag);
            let known = lost(&page, "events:m") > Some(0.0) && lost(&page, "named") > Some(0.0);
            (known && (rate(&page).is_some() || !counts_added)).then_some(page)
        });
        let unharmed = |page: &str| {
            for key in ["events:m", "named"] {
                assert_eq!(lost(page, key), lost(&before, key), "{}: {key}", server.display());
            }
            assert!(rate(page).is_some() || !counts_added, "{}: the rate is gone", server.display());
        };
        for round in 0..3 {
            // Before it, and behind it.
            let others = [format!("events:a{round}"), format!("events:z{round}")];
            others.iter().for_each(|key| stream(&redis, key, 1));
            eventually("the others show", || {
                let page = page_of(&streamlag);
                unharmed(&page);
                others.iter().all(|key| up(&page).contains_key(&**key)).then_some(())
            });
            others.iter().for_each(|key| drop(redis.run(&format!("DEL {key}"))));
            eventually("the others are gone", || {
                let page = page_of(&streamlag);
                unharmed(&page);
                (up(&page).len() == 2).then_some(())
            });
        }
    }
}

#[test]
fn groups_that_are_excluded_are_not_monitored_however_they_were_given() {
    let redis = Redis::start();
    for group in ["a", "audit", "tmp-1", "z"] {
        redis.run(&format!("XGROUP CREATE s {group} 0 MKSTREAM"));
    }
    let arguments = ["--redis.url", &redis.url(), "--streams", "s", "--groups", "z,audit,*"];
    let streamlag = streamlag(&[&arguments[..], &["--groups.exclude", "audit,tmp-*"]].concat()).ready();
    let page = page_of(&streamlag);
    assert_eq!(groups(&page, "s"), ["a", "z"]);
    assert_eq!(value_of(&page, "event_stream_groups{stream=\"s\"}"), Some(4.0));
    assert_eq!(streamlag.get("/api/v1/events/consumer-lag?group=audit").status, 404);
}

/// One share of few streams may have none of them.
#[test]
fn a_share_without_streams_is_no_bad_health() {
    let redis = Redis::start();
    stream(&redis, "events:a", 0);
    let health = ["0/2", "1/2"].map(|shard| {
        let base = ["--redis.url", &redis.url(), "--streams", "events:a", "--groups", "g", "--shard", shard];
        let health = streamlag(&base).ready().json("health");
        (health["streams"]["healthy"].clone(), health["status"].clone(), health["error"].clone())
    });
    let mut healthy = health.map(|(streams, status, error)| {
        assert_eq!((status, error), (json!("healthy"), Value::Null));
        streams.as_u64()
    });
    healthy.sort_unstable();
    assert_eq!(healthy, [Some(0), Some(1)]);
}

/// Where there is nothing to watch, nothing is healthy.
#[test]
fn a_pattern_that_means_no_stream_is_no_good_health() {
    let redis = Redis::start();
    stream(&redis, "events:a", 1);
    let streamlag = streamlag(&[
        "--redis.url",
        &redis.url_of_everybody(),
        "--streams",
        "evnts:*",
        "--groups",
        "g",
        "--discovery.interval",
        "1s",
    ])
    .ready();
    let health = eventually("the search has ended", || {
        Some(streamlag.json("health")).filter(|health| !health["error"].to_string().contains("first search"))
    });
    let error = "no stream is watched: patterns have found none, or all are excluded";
    assert_eq!((&health["status"], &health["error"]), (&json!("degraded"), &json!(error)));
    stream(&redis, "evnts:b", 0);
    eventually_right(|| {
        let health = streamlag.json("health?group=g");
        if (&health["status"], &health["error"]) == (&json!("healthy"), &Value::Null) {
            Ok(())
        } else {
            Err(health.to_string())
        }
    });
}

#[test]
fn limits_leave_out_what_they_say_and_say_so_once() {
    for server in servers() {
        let redis = Redis::start_with(&server, &[]);
        ["events:1", "events:2", "events:3", "events:4", "named"].iter().for_each(|key| stream(&redis, key, 30));
        for group in ["a", "b", "c", "z"] {
            redis.run(&format!("XGROUP CREATE named {group} 0"));
        }
        // Consumers that hold 1 to 6.
        (1..=6).for_each(|n| redis.read("named", "z", &format!("consumer-{n}"), n));
        let url = redis.url_as(&finder(&redis, &server));
        let arguments = ["--redis.url", &url, "--streams", "events:*,named", "--groups", "z,*"];
        let limits = ["--limit.streams", "3", "--limit.groups", "3", "--limit.consumers", "2"];
        let more = ["--discovery.interval", "1s", "--collector.consumer-health"];
        let streamlag = streamlag(&[&arguments[..], &limits, &more].concat()).ready();

        let page = page_of(&streamlag);
        assert_eq!(
            up(&page).into_keys().collect::<Vec<_>>(),
            ["events:1", "events:2", "named"],
            "{}",
            server.display()
        );
        assert_eq!(over(&streamlag, "streams"), Some(2.0), "{}", server.display());
        // The named one first, then by name.
        assert_eq!(groups(&page, "named"), ["a", "b", "z"], "{}", server.display());
        assert_eq!(over(&streamlag, "groups"), Some(2.0), "{}", server.display());
        let of_z = |metric: &str| {
            value_of(&page_of(&streamlag), &format!("event_consumer_{metric}{{stream=\"named\",consumer_group=\"z\"}}"))
        };
        let instances = |page: &str| -> BTreeMap<String, f64> {
            let begin = "event_consumer_instance_pending{stream=\"named\",consumer_group=\"z\",consumer=\"";
            let lines = page.lines().filter_map(|line| line.strip_prefix(begin)?.split_once("\"} "));
            lines.map(|(name, pending)| (name.to_owned(), pending.parse().unwrap())).collect()
        };
        let shown = instances(&page);
        assert_eq!(shown, [("consumer-5".to_owned(), 5.0), ("consumer-6".to_owned(), 6.0)].into());
        assert_eq!(over(&streamlag, "consumers"), Some(4.0), "{}", server.display());
        assert_eq!(of_z("group_overflow_consumers"), Some(4.0));
        let summed = of_z("group_overflow_pending").unwrap();
        assert_eq!(Some(shown.values().sum::<f64>() + summed), of_z("group_pending"), "{}", server.display());
        assert_eq!((summed, of_z("group_consumers")), (10.0, Some(6.0)));
        let row = |streamlag: &Streamlag| -> Value {
            let rows = streamlag.json("groups?group=z")["groups"].as_array().unwrap().clone();
            rows.into_iter().find(|row| row["stream"] == "named").unwrap()
        };
        assert_eq!(row(&streamlag)["consumers_not_shown"], 4);
        assert_eq!(row(&streamlag)["consumers"], 6);

        // Nothing is called healthy that nobody looks at.
        let health = streamlag.json("health?group=z");
        let error =
            "streams over limit.streams, which nobody watches: 2; groups over limit.groups, which nobody watches: 2";
        assert_eq!((&health["status"], &health["error"]), (&json!("degraded"), &json!(error)), "{}", server.display());
        assert_eq!(streamlag.get("/api/v1/targets").json()["targets"][0]["error"], json!(error));

        // Down to the limits, and they say so, once each.
        streamlag.next_sample();
        let warned = |limit: &str| streamlag.log_lines(&format!("limit={limit} left_out=")).len();
        let limits = ["limit.streams", "limit.groups", "limit.consumers"];
        assert_eq!(limits.map(warned), [1; 3], "{:?}", streamlag.log());
        assert!(streamlag.log_lines("limit no longer exceeded").is_empty());
        redis.run("DEL events:1 events:3");
        (1..=4).for_each(|n| drop(redis.run(&format!("XGROUP DELCONSUMER named z consumer-{n}"))));
        ["a", "g"].iter().for_each(|group| drop(redis.run(&format!("XGROUP DESTROY named {group}"))));
        eventually("no limit bites", || {
            ["streams", "groups", "consumers"].iter().all(|limit| over(&streamlag, limit) == Some(0.0)).then_some(())
        });
        streamlag.next_sample();
        let page = page_of(&streamlag);
        assert_eq!(
            up(&page).into_keys().collect::<Vec<_>>(),
            ["events:2", "events:4", "named"],
            "{}",
            server.display()
        );
        assert_eq!(groups(&page, "named"), ["b", "c", "z"], "{}", server.display());
        assert!(!page.contains("event_consumer_group_overflow_consumers{"), "{}", server.display());
        assert!(!page.contains("event_consumer_group_overflow_pending{"), "{}", server.display());
        assert_eq!(row(&streamlag)["consumers_not_shown"], 0);
        assert_eq!(limits.map(warned), [1; 3], "{:?}", streamlag.log());
        assert_eq!(streamlag.log_lines("limit no longer exceeded").len(), 3, "{:?}", streamlag.log());
    }
}

#[test]
fn with_consumers_off_they_are_not_asked_for() {
    for server in servers() {
        let asked = |consumers: &str| {
            let redis = Redis::start_with(&server, &[]);
            stream(&redis, "s", 10);
            redis.read("s", "g", "one", 4);
            let mut monitor = Monitor::start(&redis);
            let arguments = ["--redis.url", &redis.url(), "--streams", "s", "--groups", "g", "--consumers", consumers];
            let streamlag = streamlag(&arguments).ready();
            streamlag.next_sample();
            redis.read("s", "g", "one", 1);
            streamlag.next_sample();
            let executed = monitor.until_now(&redis);
            let has = |word: &str| executed.iter().any(|command| command.words.to_ascii_uppercase().contains(word));
            assert!(has("\"GROUPS\""), "{executed:?}");
            (has("\"CONSUMERS\""), page_of(&streamlag), streamlag.json("groups")["groups"][0].clone())
        };
        let (with, page, row) = asked("on");
        assert!(with && page.contains("event_consumer_instance_pending{"), "{}", server.display());
        assert_eq!(row["consumers_not_shown"], 0);
        let (with, page, row) = asked("off");
        assert!(!with && !page.contains("event_consumer_instance_pending{"), "{}", server.display());
        let of_group = |metric: &str| value_of(&page, &format!("{metric}{{stream=\"s\",consumer_group=\"g\"}}"));
        assert_eq!(of_group("event_consumer_group_consumers"), Some(1.0));
        assert_eq!(of_group("event_consumer_group_pending"), Some(5.0));
        assert!(of_group("event_consumer_group_oldest_pending_seconds").is_some());
        assert_eq!(value_of(&page, "streamlag_over_limit{limit=\"consumers\"}"), Some(0.0));
        assert_eq!((&row["consumers"], &row["consumers_not_shown"]), (&json!(1), &Value::Null));
    }
}

#[test]
fn shards_share_the_streams_each_one_on_one_of_them() {
    let redis = Redis::start();
    let found: Vec<String> = (0..60).map(|n| format!("events:{n}")).collect();
    found.iter().for_each(|key| stream(&redis, key, 1));
    let named: Vec<String> = (0..10).map(|n| format!("named-{n}")).collect();
    let streams = format!("{},events:*", named.join(","));
    let url = redis.url_as(&finder(&redis, std::path::Path::new("redis-server")));
    let shards = ["0/2", "1/2"].map(|shard| {
        streamlag(&["--redis.url", &url, "--streams", &streams, "--groups", "g", "--shard", shard]).ready()
    });
    let mut all = BTreeSet::new();
    for (n, streamlag) in shards.iter().enumerate() {
        let page = page_of(streamlag);
        assert_eq!(value_of(&page, &format!("streamlag_shard_info{{shard=\"{n}/2\"}}")), Some(1.0));
        let own = up(&page);
        assert_eq!(value_of(&page, "streamlag_streams"), Some(own.len() as f64));
        // Even shares, as hashes go: that one has fewer than 20 of 70 is as good as impossible.
        assert!(own.len() >= 20, "shard {n} has {}", own.len());
        for key in own.keys() {
            assert!(all.insert((*key).to_owned()), "{key} is sampled twice");
        }
    }
    assert_eq!(all, found.into_iter().chain(named).collect());
}

#[test]
fn partitions_are_summed_on_the_page_and_by_the_api() {
    let redis = Redis::start();
    let orders = [5, 1, 10, 2];
    orders.iter().enumerate().for_each(|(n, entries)| stream(&redis, &format!("orders:{n}"), *entries));
    [("mail:eu", 3), ("mail:us", 0)].iter().for_each(|(key, entries)| stream(&redis, key, *entries));
    redis.run("XGROUP CREATE mail:eu audit $");
    stream(&redis, "a:1", 1);
    let url = redis.url_as(&finder(&redis, std::path::Path::new("redis-server")));
    let arguments = ["--redis.url", &url, "--streams", "orders:0,a:*", "--groups", "g,*", "--discovery.interval", "1s"];
    let thresholds = ["--lag.thresholds", "orders=18/100"];
    let logical = ["--logical-streams", "orders=orders:{0..3}", "--logical-streams", "mail=mail:*"];
    let streamlag = streamlag(&[&arguments[..], &thresholds, &logical].concat()).ready();

    let of = |page: &str, name: &str, group: &str, metric: &str| {
        let labels = format!("{{logical_stream=\"{name}\",consumer_group=\"{group}\"}}");
        value_of(page, &format!("event_logical_stream_{metric}{labels}"))
    };
    let rows = |query: &str| streamlag.json(&format!("logical-streams{query}"))["logical_streams"].clone();
    let row = |name: &str, group: &str| -> Value {
        let rows = rows("").as_array().unwrap().clone();
        rows.into_iter().find(|row| row["logical_stream"] == name && row["consumer_group"] == group).unwrap()
    };
    let page = page_of(&streamlag);
    let (sum, worst) = (orders.iter().sum::<usize>() as f64, *orders.iter().max().unwrap() as f64);
    let numbers = ["lag", "lag_uncertainty", "lag_worst", "lag_skew_ratio", "partitions", "partitions_unknown"];
    let expected = [sum, 0.0, worst, worst / (sum / 4.0), 4.0, 0.0].map(Some);
    assert_eq!(numbers.map(|metric| of(&page, "orders", "g", metric)), expected);
    let oldest = (0..4).filter_map(|n| {
        value_of(&page, &format!("event_consumer_lag_seconds{{stream=\"orders:{n}\",consumer_group=\"g\"}}"))
    });
    assert_eq!(of(&page, "orders", "g", "lag_seconds"), oldest.reduce(f64::max));
    let told = row("orders", "g");
    for (key, value) in [
        ("lag", json!(18)),
        ("lag_quality", json!("exact")),
        ("worst_stream", json!("orders:2")),
        ("worst_lag", json!(10)),
        ("skew_ratio", json!(2.222)),
        ("partitions", json!(4)),
        ("status", json!("degraded")),
    ] {
        assert_eq!(told[key], value, "{key}: {told}");
    }
    // The group is not in the other partition: the sum of the one that has it is 0, which may not be true of both.
    assert_eq!(
        numbers.map(|metric| of(&page, "mail", "audit", metric)),
        [None, None, None, None, Some(2.0), Some(1.0)]
    );
    assert_eq!(of(&page, "mail", "g", "lag"), Some(3.0));
    assert_eq!(rows("?group=audit").as_array().unwrap().len(), 1);
    assert_eq!(rows("?target=default"), rows(""));
    assert_eq!(streamlag.get("/api/v1/events/logical-streams?target=other").status, 404);
    assert_eq!(streamlag.request("GET", "/api/v1/events/logical-streams", &[]).status, 401);

    // A partition that is named stays one; one that was found leaves.
    redis.run("DEL orders:2 mail:us");
    streamlag.next_sample();
    let page = page_of(&streamlag);
    let expected = [Some(8.0), None, Some(5.0), Some(5.0 / (8.0 / 3.0)), Some(4.0), Some(1.0)];
    assert_eq!(numbers.map(|metric| of(&page, "orders", "g", metric)), expected);
    let told = row("orders", "g");
    assert_eq!(
        (&told["lag_quality"], &told["lag_max"], &told["status"]),
        (&json!("partial"), &Value::Null, &json!("unknown"))
    );
    assert_eq!((of(&page, "mail", "g", "partitions"), of(&page, "mail", "g", "lag")), (Some(1.0), Some(3.0)));
    // New ones join, before and behind.
    ["mail:asia", "mail:zz"].iter().for_each(|key| stream(&redis, key, 7));
    eventually_right(|| {
        let page = page_of(&streamlag);
        let is =
            [of(&page, "mail", "g", "partitions"), of(&page, "mail", "g", "lag"), of(&page, "mail", "g", "lag_worst")];
        // Not one page tells the one number without the other.
        let consistent = matches!(is, [Some(1.0), Some(3.0), Some(3.0)] | [Some(2.0), Some(10.0), Some(7.0)]);
        assert!(consistent || is == [Some(3.0), Some(17.0), Some(7.0)], "{is:?}");
        if consistent { Err(format!("{is:?}")) } else { Ok(()) }
    });
    // Not on one page is another stream taken for a partition, as one that stands before them goes.
    redis.run("DEL a:1");
    eventually("a:1 is gone", || {
        let page = page_of(&streamlag);
        assert_eq!([of(&page, "mail", "g", "partitions"), of(&page, "mail", "g", "lag")], [Some(3.0), Some(17.0)]);
        (!up(&page).contains_key("a:1")).then_some(())
    });
}

#[test]
fn status_goes_by_the_thresholds_of_the_stream() {
    let redis = Redis::start();
    [("mail", 500), ("orders:eu", 6), ("orders:us", 150), ("other", 150)]
        .iter()
        .for_each(|(key, entries)| stream(&redis, key, *entries));
    let arguments = ["--redis.url", &redis.url(), "--streams", "mail,orders:eu,orders:us,other", "--groups", "g"];
    let rules = ["--lag.thresholds", "orders:us=200/300,orders:*=1/5,mail=1000/2000"];
    let streamlag = streamlag(&[&arguments[..], &rules].concat()).ready();
    let lags = streamlag.json("consumer-lag")["streams"].clone();
    let groups = streamlag.json("groups")["groups"].clone();
    let expected = [("mail", "healthy"), ("orders:eu", "unhealthy"), ("orders:us", "healthy"), ("other", "degraded")];
    for ((key, status), row) in expected.into_iter().zip(groups.as_array().unwrap()) {
        assert_eq!(lags[key]["status"], status, "{key}");
        assert_eq!((&row["stream"], &row["status"]), (&json!(key), &json!(status)));
    }
    // As series, those of streams that have their own and can be read.
    redis.run("DEL orders:us");
    redis.run("SET orders:us string");
    let threshold = |page: &str, stream: &str| {
        let series = |level| format!("event_stream_lag_threshold{{stream=\"{stream}\",level=\"{level}\"}}");
        ["degraded", "unhealthy"].map(|level| value_of(page, &series(level)))
    };
    let page = streamlag.metrics();
    let shown = ["mail", "orders:eu", "other"].map(|stream| threshold(&page, stream));
    assert_eq!(shown, [[Some(1000.0), Some(2000.0)], [Some(1.0), Some(5.0)], [None, None]]);
    eventually("what cannot be read has none", || {
        (threshold(&streamlag.metrics(), "orders:us") == [None, None]).then_some(())
    });
    redis.run("DEL orders:us");
    stream(&redis, "orders:us", 150);
    streamlag.next_sample();
    assert_eq!(streamlag.json("health")["streams"], json!({"healthy": 2, "degraded": 1, "unhealthy": 1, "unknown": 0}));
}
