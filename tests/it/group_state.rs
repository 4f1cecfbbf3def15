//! States, losses, rates and consumers of groups, as the running program tells them of a real Redis.

use crate::common::{Redis, Streamlag, eventually, streamlag};
use redis::Value;
use serde_json::Value as Json;

/// Verdicts in a second instead of half a minute.
const WINDOW: [&str; 8] =
    ["--poll.interval", "50ms", "--group.window", "1s", "--group.window-samples", "6", "--consumer.dead-after", "2s"];

fn watch(redis: &Redis) -> Streamlag {
    let url = redis.url();
    let mut arguments = vec!["--redis.url", &url, "--streams", "s", "--groups", "g"];
    arguments.extend(WINDOW);
    streamlag(&arguments).ready()
}

fn group(streamlag: &Streamlag) -> Json {
    streamlag.json("groups")["groups"][0].clone()
}

/// Does something over and over until the group is in a state; the reason that is given.
fn until(streamlag: &Streamlag, state: &str, mut step: impl FnMut()) -> String {
    eventually(state, || {
        step();
        let group = group(streamlag);
        (group["state"] == state).then(|| group["state_reason"].as_str().unwrap().to_owned())
    })
}

/// A stream of a hundred entries and a group that was given thirty of them.
fn example(redis: &Redis) {
    redis.run("XGROUP CREATE s g 0 MKSTREAM");
    redis.add("s", 100);
    redis.read("s", "g", "c", 30);
}

#[test]
fn a_group_that_nobody_reads_is_stalled_while_consumers_live_and_stopped_when_they_do_not() {
    let redis = Redis::start();
    example(&redis);
    let streamlag = watch(&redis);
    assert_eq!(group(&streamlag)["state"], "ok");
    // Alive, and asking for nothing new. (On 7.0 asking for what is pending counts as a sign of life.)
    let alive = || drop(redis.run("XREADGROUP GROUP g c COUNT 1 STREAMS s 0"));
    let reason = until(&streamlag, "stalled", alive);
    assert!(reason.contains("lag 70, cursor still at") && reason.contains("1 of 1 consumers alive"), "{reason}");
    let reason = until(&streamlag, "stopped", || {});
    assert!(reason.contains("nobody reads: 0 of 1 consumers alive"), "{reason}");
    let page = streamlag.metrics();
    let state = |state| format!("event_consumer_group_state{{stream=\"s\",consumer_group=\"g\",state=\"{state}\"}}");
    assert_eq!(crate::common::value_of(&page, &state("stopped")), Some(1.0));
    assert_eq!(page.matches("event_consumer_group_state{").count(), 1);
    // Its consumer is dead, and holds what it was given.
    assert_eq!(group(&streamlag)["dead_consumers_with_pending"], 1);
    let consumer = streamlag.json("consumers")["consumers"][0].clone();
    assert_eq!((&consumer["active"], &consumer["health_score"]), (&Json::Bool(false), &Json::from(0)));
    assert_eq!(consumer["pending_share"], 1.0);
    assert!(consumer["oldest_pending_seconds"].is_number());
    // Read to the end, it is well again at once, but for what is not acknowledged.
    redis.read("s", "g", "c", 100);
    streamlag.next_sample();
    assert_ne!(group(&streamlag)["state"], "stopped");
}

#[test]
fn entries_that_are_not_acknowledged() {
    let redis = Redis::start();
    example(&redis);
    let streamlag = watch(&redis);
    let reason = until(&streamlag, "ack_stalled", || {
        redis.add("s", 1);
        redis.read("s", "g", "c", 1000);
    });
    assert!(reason.contains("pending, the oldest of them the same for"), "{reason}");
}

#[test]
fn a_group_that_falls_behind_lags_and_is_told_how_many_consumers_it_takes() {
    let redis = Redis::start();
    example(&redis);
    let streamlag = watch(&redis);
    let reason = until(&streamlag, "lagging", || {
        redis.add("s", 20);
        if let Value::Array(streams) = redis.run("XREADGROUP GROUP g c COUNT 5 NOACK STREAMS s >") {
            assert_eq!(streams.len(), 1);
        }
    });
    assert!(reason.contains("the lag has not fallen for"), "{reason}");
    let group = group(&streamlag);
    assert!(group["added_per_second"].as_f64().unwrap() > group["delivered_per_second"].as_f64().unwrap(), "{group}");
    assert!(group["delivered_per_second"].as_f64().unwrap() > 0.0, "{group}");
    assert_eq!(group["drain_seconds"], Json::Null, "{group}");
    assert!(group["recommended_consumers"].as_u64().unwrap() > 1, "{group}");
    assert!(group["recommended_consumers_reason"].as_str().unwrap().contains("entries/s are added"), "{group}");
    // It catches up.
    let drains = || {
        redis.run("XREADGROUP GROUP g c COUNT 40 NOACK STREAMS s >");
        redis.add("s", 1);
        let group = self::group(&streamlag);
        group["drain_seconds"].as_f64().filter(|seconds| *seconds > 0.0)
    };
    eventually("a time to drain", drains);
}

#[test]
fn lost_entries_are_counted_and_a_rewind_is_noticed() {
    let redis = Redis::start();
    example(&redis);
    let streamlag = watch(&redis);
    assert_eq!(
        (&group(&streamlag)["lost_entries"], &group(&streamlag)["trim_headroom_entries"]),
        (&0.into(), &30.into())
    );
    redis.run("XTRIM s MAXLEN 50");
    let reason = until(&streamlag, "losing", || {});
    assert!(reason.contains("at least 20 entries gone undelivered"), "{reason}");
    let lost = "event_consumer_group_lost_entries_total{stream=\"s\",consumer_group=\"g\"}";
    assert_eq!(streamlag.metric(lost), Some(20.0));
    assert_eq!(group(&streamlag)["ghost_pending"], 30);
    assert_eq!(group(&streamlag)["trim_headroom_entries"], 0);
    redis.read("s", "g", "c", 100);
    until(&streamlag, "ack_stalled", || {});
    redis.run("XGROUP SETID s g 0");
    let reason = until(&streamlag, "rewound", || {});
    assert!(reason.contains("the cursor moved back from"), "{reason}");
    assert_eq!(streamlag.metric(lost), Some(20.0));
}

#[test]
fn consumers_that_are_dead_and_hold_nothing_and_one_that_only_waits() {
    let redis = Redis::start();
    redis.run("XGROUP CREATE s g 0 MKSTREAM");
    redis.run("XGROUP CREATECONSUMER s g gone");
    let streamlag = watch(&redis);
    let idle = || streamlag.json("consumers")["consumers"][0]["idle_seconds"].as_f64().unwrap();
    eventually("it is idle for long", || (idle() > 2.5).then_some(()));
    // Nothing was there to read: it may be blocked, waiting.
    assert_eq!(streamlag.json("consumers")["consumers"][0]["active"], Json::Null);
    assert_eq!(group(&streamlag)["dead_consumers_without_pending"], 0);
    // There is, and it does not come.
    redis.add("s", 1);
    let dead = || (group(&streamlag)["dead_consumers_without_pending"] == 1).then_some(());
    eventually("it is dead", dead);
}

/// The lines of the log with these words, and how many more were left out of it.
fn said(streamlag: &Streamlag, words: &str) -> usize {
    let lines = streamlag.log_lines(words);
    let more = |line: &String| line.split("more=").nth(1)?.split_whitespace().next()?.parse::<usize>().ok();
    lines.iter().map(|line| more(line).unwrap_or(1)).sum()
}

#[test]
fn states_are_logged_once_when_they_begin_and_once_when_they_end() {
    let redis = Redis::start();
    example(&redis);
    let streamlag = watch(&redis);
    let line = |words: &str| {
        let lines = streamlag.log_lines(words);
        assert!(lines.len() < 2, "said twice: {lines:?}");
        lines.into_iter().next()
    };
    let begins = |words: &str, level: &str, fields: &[&str]| {
        let line = eventually(words, || line(words));
        for field in [&[level, "stream=s", "consumer_group=g", "reason="], fields].concat() {
            assert!(line.contains(field), "{field} is not in {line}");
        }
    };
    begins("consumer group stopped reading", "level=warn", &["state=stopped", "lag=70", "lost=0", "and nobody reads"]);
    redis.run("XTRIM s MAXLEN 50");
    begins("consumer group is losing entries", "level=warn", &["state=losing", "lag=50", "lost=20"]);
    begins("consumer group is no longer stopped", "level=info", &["state=losing"]);
    redis.read("s", "g", "c", 100);
    begins("consumer group is no longer losing", "level=info", &["state=ack_stalled", "lag=0", "lost=20"]);
    // However many polls it lasts.
    (0..5).for_each(|_| streamlag.next_sample());
    redis.run("XGROUP SETID s g 0");
    begins("consumer group cursor moved back", "level=info", &["state=rewound"]);
    for words in ["consumer group stopped", "consumer group is losing", "consumer group is no longer losing"] {
        assert!(line(words).is_some(), "{words}");
    }
}

#[test]
fn many_groups_that_stop_at_once_are_a_few_lines_and_a_count() {
    let redis = Redis::start();
    let streams: Vec<String> = (0..200).map(|n| format!("s{n}")).collect();
    for stream in &streams {
        redis.run(&format!("XGROUP CREATE {stream} g 0 MKSTREAM"));
        redis.add(stream, 1);
    }
    let url = redis.url();
    let named = streams.join(",");
    let arguments = [&["--redis.url", &url, "--streams", &named, "--groups", "g"][..], &WINDOW].concat();
    let streamlag = streamlag(&arguments).ready();
    let begun =
        || said(&streamlag, "consumer group stopped reading") + said(&streamlag, "more consumer groups are losing");
    eventually("all have stopped", || (begun() == 200).then_some(()));
    assert!(streamlag.log_lines("consumer group stopped reading").len() < 200, "{:?}", streamlag.log());
    (0..3).for_each(|_| streamlag.next_sample());
    assert_eq!(begun(), 200);
    // They go on at one poll or another, and of one kind of line there are a hundred in a minute.
    const GO_ON: usize = 90;
    streams.iter().take(GO_ON).for_each(|stream| redis.read(stream, "g", "c", 1));
    let ended =
        || said(&streamlag, "consumer group is no longer stopped") + said(&streamlag, "more consumer groups left");
    eventually("they have begun again", || (ended() == GO_ON).then_some(()));
}
