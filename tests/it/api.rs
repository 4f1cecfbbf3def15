//! The requirement's three endpoints and the two beside them, against every server there is.

use crate::common::{Redis, Streamlag, TOKEN, eventually, servers, streamlag};
use serde_json::{Value, json};

const GROUP: &str = "signalr-consumers";

/// The requirement's example: 123 and 45 entries behind, and a drained stream.
fn example(redis: &Redis) {
    for (stream, entries, read) in [("events:chat", 200, 77), ("events:ticket", 45, 0), ("events:remote", 9, 9)] {
        redis.run(&format!("XGROUP CREATE {stream} {GROUP} 0 MKSTREAM"));
        redis.add(stream, entries);
        if read > 0 {
            redis.read(stream, GROUP, "instance-1", read);
        }
    }
    redis.run("XGROUP CREATE events:chat other 0");
}

fn start(redis: &Redis, arguments: &[&str]) -> Streamlag {
    let url = redis.url();
    let mut all = vec!["--redis.url", url.as_str()];
    all.extend(arguments);
    streamlag(&all).ready()
}

fn keys(value: &Value) -> Vec<&str> {
    let mut keys: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

#[test]
fn the_requirements_answers_on_every_server() {
    for server in servers() {
        let redis = Redis::start_with(&server, &[]);
        example(&redis);
        let streamlag = start(&redis, &[]);
        let name = server.display();

        let lag = streamlag.json("consumer-lag");
        assert_eq!(
            keys(&lag),
            ["age_seconds", "consumer_group", "sampled_at", "stream_count", "streams", "total_lag"],
            "{name}"
        );
        let chat = &lag["streams"]["events:chat"];
        assert_eq!(
            keys(chat),
            [
                "consumers",
                "group_exists",
                "lag",
                "lag_max",
                "lag_min",
                "lag_quality",
                "lag_seconds",
                "oldest_pending_seconds",
                "pending",
                "state",
                "state_reason",
                "status"
            ]
        );
        let point = chat["lag"].as_i64().unwrap();
        let (min, max) = (chat["lag_min"].as_i64().unwrap(), chat["lag_max"].as_i64().unwrap());
        assert!(min <= 123 && 123 <= max, "{name}: {chat}");
        assert!(min <= point && point <= max, "{name}: {chat}");
        assert_eq!(chat["lag_quality"] == "exact", min == max, "{name}: {chat}");
        assert_eq!(chat["consumers"], json!(["instance-1"]), "{name}");
        assert_eq!(chat["pending"], 77, "{name}");
        assert!(chat["lag_seconds"].as_f64().unwrap() >= 0.0, "{name}: {chat}");
        assert!(chat["oldest_pending_seconds"].as_f64().unwrap() >= 0.0, "{name}: {chat}");
        for (stream, exact, status) in [("events:ticket", 45, "healthy"), ("events:remote", 0, "healthy")] {
            let stream = &lag["streams"][stream];
            assert_eq!((&stream["lag"], &stream["lag_quality"]), (&json!(exact), &json!("exact")), "{name}");
            assert_eq!(stream["status"], status, "{name}");
            assert_eq!(stream["group_exists"], true, "{name}");
        }
        assert_eq!(lag["streams"]["events:remote"]["lag_seconds"], 0.0, "{name}");
        assert_eq!(lag["total_lag"], point + 45, "{name}");
        assert_eq!(lag["stream_count"], 3, "{name}");
        assert_eq!(lag["consumer_group"], GROUP, "{name}");

        let streams = streamlag.json("streams");
        // One of its groups is not monitored, so nobody knows what all of them need.
        let first = json!({"name": "events:chat", "length": 200, "groups": 2, "consumer_group": GROUP,
            "safe_to_trim_id": null, "reclaimable_entries": null, "held_by": null});
        assert_eq!(streams["streams"][0], first, "{name}");

        let health = streamlag.json("health");
        assert_eq!(
            keys(&health),
            [
                "age_seconds",
                "consumer_group",
                "fallback_to_http",
                "lost_entries",
                "max_lag",
                "redis_connected",
                "redis_round_trip_limit_seconds",
                "redis_round_trip_seconds",
                "sampled_at",
                "states",
                "status",
                "streams",
                "total_lag",
                "transport_mode"
            ],
            "{name}"
        );
        assert_eq!((&health["states"]["ok"], &health["lost_entries"]), (&json!(3), &json!(0)), "{name}");
        assert_eq!(health["redis_connected"], true, "{name}");
        assert_eq!(health["transport_mode"], "redis_streams", "{name}");
        assert_eq!(health["max_lag"], point.max(45), "{name}");
        assert_eq!(health["total_lag"], point + 45, "{name}");
        assert_eq!(health["consumer_group"], GROUP, "{name}");
        assert_eq!(health["streams"]["unknown"], 0, "{name}");

        let consumers = streamlag.json("consumers");
        let consumer = &consumers["consumers"][0];
        assert_eq!(
            keys(consumer),
            [
                "active",
                "consumer",
                "consumer_group",
                "health_score",
                "idle_seconds",
                "inactive_seconds",
                "oldest_pending_seconds",
                "pending",
                "pending_share",
                "stream"
            ]
        );
        assert_eq!((&consumer["consumer"], &consumer["pending"]), (&json!("instance-1"), &json!(77)), "{name}");

        let groups = streamlag.json("groups");
        let group = &groups["groups"][0];
        assert_eq!(
            keys(group),
            [
                "acknowledged_estimate_per_second",
                "added_per_second",
                "consumer_group",
                "consumers",
                "consumers_not_shown",
                "dead_consumers_with_pending",
                "dead_consumers_without_pending",
                "delivered_per_second",
                "drain_seconds",
                "entries_read",
                "ghost_pending",
                "group_exists",
                "lag",
                "lag_max",
                "lag_min",
                "lag_quality",
                "lag_seconds",
                "last_delivered_id",
                "lost_entries",
                "oldest_pending_deliveries",
                "oldest_pending_seconds",
                "pending",
                "recommended_consumers",
                "recommended_consumers_reason",
                "state",
                "state_reason",
                "state_since",
                "status",
                "stream",
                "trim_headroom_entries",
                "trim_headroom_seconds",
                "unowned_pending"
            ]
        );
        assert_eq!((&group["consumers"], &group["pending"]), (&json!(1), &json!(77)), "{name}");
        assert_eq!(group["oldest_pending_deliveries"], 1, "{name}");
        // Of a group that is new, consumers are asked for later than it is.
        crate::common::eventually("a sample of one moment", || {
            (streamlag.json("groups")["groups"][0]["unowned_pending"] == 0).then_some(())
        });
        assert_eq!(group["consumers_not_shown"], 0, "{name}");
        assert_eq!(streamlag.metric("streamlag_polls_total{outcome=\"failure\"}"), Some(0.0), "{name}");
    }
}

#[test]
fn numbers_move_with_redis() {
    let redis = Redis::start();
    example(&redis);
    let streamlag = start(&redis, &[]);
    redis.add("events:ticket", 1000);
    redis.run("XGROUP CREATE events:remote newcomer $");
    streamlag.next_sample();
    let lag = streamlag.json("consumer-lag");
    assert_eq!(lag["streams"]["events:ticket"]["lag"], 1045);
    assert_eq!(lag["streams"]["events:ticket"]["status"], "unhealthy");
    assert_eq!(streamlag.json("health")["status"], "unhealthy");
    redis.run("XTRIM events:ticket MAXLEN 500");
    streamlag.next_sample();
    assert_eq!(streamlag.json("consumer-lag")["streams"]["events:ticket"]["lag"], 500);
    assert_eq!(streamlag.json("health")["status"], "degraded");
}

#[test]
fn what_cannot_be_read_is_said_and_leaves_the_rest_alone() {
    let redis = Redis::start();
    example(&redis);
    redis.run("SET string value");
    let streamlag = start(&redis, &["--streams", "events:chat,missing,string,events:remote"]);
    let lag = streamlag.json("consumer-lag");
    for (stream, error) in [("missing", "no such key"), ("string", "WRONGTYPE")] {
        let unreadable = &lag["streams"][stream];
        assert_eq!((&unreadable["lag"], &unreadable["consumers"]), (&json!(-1), &json!([])));
        assert_eq!(unreadable["status"], "unknown");
        assert!(unreadable["error"].as_str().unwrap().contains(error), "{unreadable}");
    }
    assert_eq!(lag["stream_count"], 4);
    assert_eq!(lag["total_lag"], lag["streams"]["events:chat"]["lag"]);
    let health = streamlag.json("health");
    assert_eq!((&health["status"], &health["streams"]["unknown"]), (&json!("degraded"), &json!(2)));
    let page = streamlag.metrics();
    assert_eq!(crate::common::value_of(&page, "event_stream_up{stream=\"missing\"}"), Some(0.0));
    assert_eq!(crate::common::value_of(&page, "event_stream_up{stream=\"events:chat\"}"), Some(1.0));
    assert!(!page.contains("event_consumer_lag{stream=\"missing\""), "{page}");
    assert!(!page.contains("event_stream_length{stream=\"missing\""), "{page}");
    assert!(streamlag.metric("streamlag_polls_total{outcome=\"partial\"}").unwrap() > 0.0);
    // Said once, not every poll.
    streamlag.next_sample();
    assert_eq!(streamlag.log_lines("stream=missing").len(), 1, "{:?}", streamlag.log());
    redis.run("XADD missing * a b");
    eventually("the stream is read", || {
        streamlag.metric("event_stream_up{stream=\"missing\"}").filter(|up| *up == 1.0)
    });
}

#[test]
fn a_missing_group_is_no_group_and_never_a_healthy_zero() {
    let redis = Redis::start();
    example(&redis);
    let streamlag = start(&redis, &["--groups", "absent,other"]);
    let lag = streamlag.json("consumer-lag");
    let absent = &lag["streams"]["events:chat"];
    assert_eq!(
        (&absent["lag"], &absent["group_exists"], &absent["state"], &absent["status"]),
        (&json!(0), &json!(false), &json!("no_group"), &json!("unknown"))
    );
    assert_eq!(streamlag.json("health")["status"], "degraded");
    let page = streamlag.metrics();
    assert!(!page.contains("event_consumer_lag{stream=\"events:chat\",consumer_group=\"absent\"}"));
    let state = |state| {
        format!("event_consumer_group_state{{stream=\"events:chat\",consumer_group=\"absent\",state=\"{state}\"}}")
    };
    assert_eq!(crate::common::value_of(&page, &state("no_group")), Some(1.0));
    assert_eq!(crate::common::value_of(&page, &state("ok")), None);
    // The other monitored group, by name; one that is not monitored is not found.
    let other = streamlag.json("consumer-lag?group=other");
    assert_eq!((&other["consumer_group"], &other["streams"]["events:chat"]["lag"]), (&json!("other"), &json!(200)));
    let unknown = streamlag.get("/api/v1/events/consumer-lag?group=nobody");
    assert_eq!((unknown.status, unknown.header("content-type")), (404, Some("application/problem+json")));
    redis.run("XGROUP CREATE events:chat absent 0");
    streamlag.next_sample();
    assert_eq!(streamlag.json("consumer-lag")["streams"]["events:chat"]["lag"], 200);
    assert_eq!(streamlag.metric(&state("no_group")), None);
    assert_eq!(streamlag.metric(&state("ok")), Some(1.0));
}

/// One group is far behind on one stream and missing on the other. That the first one is well hides neither.
#[test]
fn health_is_of_all_groups_and_streams_and_of_one_group_where_it_is_asked_for() {
    for server in servers() {
        let redis = Redis::start_with(&server, &[]);
        let name = server.display();
        for stream in ["orders", "invoices"] {
            redis.run(&format!("XGROUP CREATE {stream} billing 0 MKSTREAM"));
        }
        redis.run("XGROUP CREATE orders mail 0");
        redis.add("orders", 2001);
        redis.read("orders", "billing", "c", 2001);
        let about = ["--streams", "orders,invoices", "--groups"];
        let streamlag = start(&redis, &[&about[..], &["billing,mail"]].concat());
        let health = |path: &str| {
            let health = streamlag.json(path);
            ["status", "streams", "max_lag", "total_lag", "consumer_group"].map(|key| health[key].clone())
        };
        let counts = |healthy: u8, unhealthy: u8, unknown: u8| json!({"healthy": healthy, "degraded": 0, "unhealthy": unhealthy, "unknown": unknown});
        let all = [json!("unhealthy"), counts(0, 1, 1), json!(2001), json!(2001), json!("billing")];
        assert_eq!(health("health"), all, "{name}");
        let billing = [json!("healthy"), counts(2, 0, 0), json!(0), json!(0), json!("billing")];
        assert_eq!(health("health?group=billing"), billing, "{name}");
        let mail = [json!("unhealthy"), counts(0, 1, 1), json!(2001), json!(2001), json!("mail")];
        assert_eq!(health("health?group=mail"), mail, "{name}");
        assert_eq!(streamlag.json("health")["states"]["no_group"], 1, "{name}");
        assert_eq!(streamlag.get("/api/v1/events/health?group=nobody").status, 404, "{name}");
        let target = streamlag.get("/api/v1/targets").json()["targets"][0].clone();
        let told = ["status", "max_lag", "total_lag"].map(|key| target[key].clone());
        assert_eq!(told, [json!("unhealthy"), json!(2001), json!(2001)], "{name}");
        assert_eq!(target["states"], streamlag.json("health")["states"], "{name}");

        // What is lost is no lag, and stands beside the status.
        redis.run("XTRIM orders MAXLEN 50");
        streamlag.next_sample();
        let lost = streamlag.json("health");
        assert_eq!((&lost["status"], &lost["total_lag"]), (&json!("degraded"), &json!(50)), "{name}: {lost}");
        assert_eq!(lost["states"]["losing"], 1, "{name}: {lost}");
        let counted = lost["lost_entries"].as_u64().unwrap();
        // Before 7.0 one entry is what can be proved.
        let least = if redis.is_before_7() { 1 } else { 1951 };
        assert!((least..=1951).contains(&counted), "{name}: {lost}");
        assert_eq!(streamlag.json("health?group=billing")["lost_entries"], 0, "{name}");
    }
}

#[test]
fn patterns_alone_mean_no_group_by_name() {
    let redis = Redis::start();
    redis.add("s", 1);
    let streamlag = start(&redis, &["--streams", "s", "--groups", "*"]);
    let group = |path: &str| streamlag.json(path)["consumer_group"].clone();
    assert_eq!(["health", "consumer-lag"].map(group), [Value::Null, Value::Null]);
    assert_eq!(streamlag.json("streams")["streams"][0]["consumer_group"], Value::Null);
    // Nobody reads it.
    assert_eq!(streamlag.json("health")["status"], "degraded");
    let stream = streamlag.json("consumer-lag")["streams"]["s"].clone();
    assert_eq!((&stream["status"], &stream["group_exists"]), (&json!("unknown"), &json!(false)));
    redis.run("XGROUP CREATE s b 0");
    redis.run("XGROUP CREATE s a 0");
    streamlag.next_sample();
    // One answer speaks of one group, the other of both.
    assert_eq!(["health", "consumer-lag", "health?group=b"].map(group), [Value::Null, json!("a"), json!("b")]);
    let health = streamlag.json("health");
    assert_eq!((&health["status"], &health["total_lag"]), (&json!("healthy"), &json!(2)));
}

#[test]
fn all_groups_by_pattern_and_a_group_that_goes_leaves_the_page() {
    let redis = Redis::start();
    example(&redis);
    let streamlag = start(&redis, &["--groups", "*"]);
    let names = |streamlag: &Streamlag| -> Vec<String> {
        let groups = streamlag.json("groups");
        let groups = groups["groups"].as_array().unwrap();
        groups.iter().map(|group| format!("{}/{}", group["stream"], group["consumer_group"]).replace('"', "")).collect()
    };
    let all = ["events:chat/other", "events:chat/signalr-consumers"];
    assert_eq!(names(&streamlag)[..2], all);
    redis.run("XGROUP DESTROY events:chat other");
    redis.run("XGROUP DELCONSUMER events:chat signalr-consumers instance-1");
    streamlag.next_sample();
    assert_eq!(names(&streamlag)[0], "events:chat/signalr-consumers");
    let page = streamlag.metrics();
    assert!(!page.contains("consumer_group=\"other\""), "{page}");
    assert!(!page.contains("stream=\"events:chat\",consumer_group=\"signalr-consumers\",consumer="), "{page}");
}

#[test]
fn names_that_are_not_text_are_shown_apart() {
    let redis = Redis::start();
    redis.run("XADD s 1-0 a b");
    for group in [&b"bad\xff"[..], b"bad\xfe", b"quote\"back\\slash\nline"] {
        redis.run_bytes(&[b"XGROUP", b"CREATE", b"s", group, b"0"]);
        redis.run_bytes(&[b"XREADGROUP", b"GROUP", group, b"c\xf0", b"STREAMS", b"s", b">"]);
    }
    let streamlag = start(&redis, &["--streams", "s", "--groups", "*"]);
    let page = streamlag.metrics();
    let shown = ["bad\u{fffd} (0x626164ff)", "bad\u{fffd} (0x626164fe)", "quote\\\"back\\\\slash\\nline"];
    for group in shown {
        let series = format!("event_consumer_lag{{stream=\"s\",consumer_group=\"{group}\"}}");
        assert_eq!(crate::common::value_of(&page, &series), Some(0.0), "{series}\n{page}");
    }
    let (clean, said) = crate::common::pipe_through("promtool", &["check", "metrics"], page.as_bytes());
    assert!(clean && said.is_empty(), "{said}");
    let asked = streamlag.json("consumer-lag?group=bad%EF%BF%BD%20(0x626164fe)");
    assert_eq!(asked["streams"]["s"]["lag"], 0);
    // Ids that are no clocks have no age, and no age is no series.
    assert_eq!(asked["streams"]["s"]["oldest_pending_seconds"], Value::Null);
    assert!(!page.contains("\nevent_stream_first_entry_timestamp_seconds{"));
}

/// Nobody knows how old an entry is whose id is ahead of the clock. A 0 would say that nothing waits.
#[test]
fn ids_ahead_of_the_clock_have_no_age() {
    for server in servers() {
        let redis = Redis::start_with(&server, &[]);
        let name = server.display();
        let now_ms = std::time::UNIX_EPOCH.elapsed().unwrap().as_millis();
        for (stream, ahead_ms) in [("hour", 3_600_000), ("clock", 0)] {
            redis.run(&format!("XGROUP CREATE {stream} g 0 MKSTREAM"));
            redis.run(&format!("XADD {stream} {}-0 a b", now_ms + ahead_ms));
            redis.run(&format!("XADD {stream} {}-1 a b", now_ms + ahead_ms));
            redis.read(stream, "g", "c", 1);
        }
        let streamlag = start(&redis, &["--streams", "hour,clock", "--groups", "g"]);
        eventually("the entry after the cursor is known", || {
            streamlag.json("consumer-lag")["streams"]["clock"]["lag_seconds"].as_f64()
        });
        let streams = streamlag.json("consumer-lag")["streams"].clone();
        let ages = ["lag_seconds", "oldest_pending_seconds"];
        assert_eq!(ages.map(|age| streams["hour"][age].clone()), [Value::Null, Value::Null], "{name}: {streams}");
        assert!(ages.iter().all(|age| streams["clock"][*age].is_number()), "{name}: {streams}");
        assert_eq!((&streams["hour"]["lag"], &streams["hour"]["pending"]), (&json!(1), &json!(1)), "{name}");
        let page = streamlag.metrics();
        let of = |metric: &str, stream: &str| {
            crate::common::value_of(
                &page,
                &format!("event_consumer_{metric}{{stream=\"{stream}\",consumer_group=\"g\"}}"),
            )
        };
        for metric in ["lag_seconds", "group_oldest_pending_seconds"] {
            assert_eq!(of(metric, "hour"), None, "{name}: {page}");
            assert!(of(metric, "clock").is_some(), "{name}: {page}");
        }
        // Where nothing waits, 0 is true.
        redis.read("hour", "g", "c", 1);
        streamlag.next_sample();
        assert_eq!(streamlag.json("consumer-lag")["streams"]["hour"]["lag_seconds"], 0.0, "{name}");
    }
}

#[test]
fn the_transports_settings_are_reported() {
    let redis = Redis::start();
    let url = redis.url();
    let env = [
        ("STREAMLAG_API_TOKEN", TOKEN),
        ("REDIS_URL", &url),
        ("EVENT_TRANSPORT_REDIS_STREAMS_PERCENTAGE", "25"),
        ("EVENT_TRANSPORT_FALLBACK_TO_HTTP", "false"),
        ("EVENT_TRANSPORT_PUBLISH_TIMEOUT_MS", "250"),
        ("EVENT_TRANSPORT_CONSUMER_GROUP", "mine"),
        ("STREAMLAG_LAG_DEGRADED", ""),
    ];
    let streamlag = crate::common::streamlag_with_env(&[], &env).ready();
    let health = streamlag.json("health");
    assert_eq!(health["transport_mode"], "hybrid");
    assert_eq!(health["fallback_to_http"], false);
    assert_eq!(health["redis_round_trip_limit_seconds"], 0.25);
    assert!(health["redis_round_trip_seconds"].as_f64().unwrap() > 0.0);
    assert_eq!(health["consumer_group"], "mine");
}
