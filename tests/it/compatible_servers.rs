//! Servers that are compatible with Redis, as their sources, documents and issues describe them: what they tell is shown, what they
//! do not tell is left out, and nothing of it is a failure. None of them was run.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::common::compatible::{
    ENTRIES, Fake, GROUP, Model, NIL, Own, READ, STREAM, Shape, error, fields, int, list, text,
};
use crate::common::{Streamlag, eventually, streamlag};
use serde_json::{Value, json};

fn watch(fake: &Fake, arguments: &[&str]) -> Streamlag {
    let url = fake.url();
    let arguments = [&["--redis.url", &url, "--groups", GROUP], arguments].concat();
    streamlag(&arguments).ready()
}

/// Samples it twice, and answers with the row of the group. The lag is right, or within its bounds; no poll fails.
fn group_of(streamlag: &Streamlag, server: &str, exact: bool) -> Value {
    let row = || streamlag.json("groups")["groups"][0].clone();
    streamlag.next_sample();
    let group = if exact {
        eventually(&format!("{server}: an exact lag"), || Some(row()).filter(|row| row["lag_quality"] == "exact"))
    } else {
        row()
    };
    let lag = ENTRIES - READ;
    assert!(group["lag_min"].as_u64() <= Some(lag) && Some(lag) <= group["lag_max"].as_u64(), "{server}: {group}");
    assert!(!exact || group["lag"] == lag, "{server}: {group}");
    let failures = streamlag.metric("streamlag_polls_total{outcome=\"failure\"}");
    assert_eq!(failures, Some(0.0), "{server}: {:?}", streamlag.log());
    group
}

/// The commands that are said to be refused, each once.
fn refused(streamlag: &Streamlag) -> Vec<String> {
    streamlag.next_sample();
    let lines = streamlag.log_lines("Redis command refused");
    lines
        .iter()
        .map(|line| line.split("command=").nth(1).unwrap().split(" without").next().unwrap().to_owned())
        .collect()
}

/// Dragonfly before dragonflydb/dragonfly#1948: no `entries-read` and no `lag`. `XINFO CONSUMERS` came later than the others; an
/// unknown subcommand is answered by `UnknownSubCmd`, an unknown command in `main_service.cc` without its arguments. HELLO says
/// "redis" and its own version beside (`server_family.cc`).
#[test]
fn dragonfly_before_it_told_of_lags() {
    let fake = Fake::start(Shape {
        own: |_, words| match words[0].as_str() {
            "HELLO" => Some(fields(&[
                ("server", text("redis")),
                ("version", text("6.2.11")),
                ("dragonfly_version", text("df-v1.9.0")),
                ("proto", int(2)),
                ("mode", text("standalone")),
            ])),
            _ => None,
        },
        unknown: |words| match words[0].as_str() {
            "XINFO" => error("ERR Unknown subcommand or wrong number of arguments for 'CONSUMERS'. Try XINFO HELP."),
            command => error(&format!("ERR unknown command `{command}`")),
        },
        without: &["XINFO CONSUMERS", "EVAL"],
        checks_early: false,
    });
    let streamlag = watch(&fake, &["--streams", "events:*"]);
    let group = group_of(&streamlag, "Dragonfly", true);
    assert_eq!(
        (&group["entries_read"], &group["pending"], &group["consumers"]),
        (&Value::Null, &json!(READ), &json!(1))
    );
    assert_eq!(group["unowned_pending"], Value::Null);
    assert!(group["oldest_pending_seconds"].is_number());
    assert_eq!(refused(&streamlag), ["\"XINFO CONSUMERS\""]);
    // XINFO locks no key there, not even in a transaction: a stream is asked about twice instead.
    assert_eq!(fake.times_asked("MULTI"), 0);
    assert!(streamlag.metrics().contains("{server=\"dragonfly\",version=\"df-v1.9.0\"}"), "{}", streamlag.metrics());
}

/// Dragonfly of 2026 (`src/server/stream_family.cc`): all fields of Redis 7.0.
#[test]
fn dragonfly_of_today() {
    let fake = Fake::start(Shape {
        own: |model, words| match (words[0].as_str(), words.get(1).map(String::as_str)) {
            ("XINFO", Some("STREAM")) => Some(fields(&model.stream_of_7())),
            ("XINFO", Some("GROUPS")) => {
                let more = vec![("entries-read", int(READ)), ("lag", int(ENTRIES - READ))];
                Some(list(&[fields(&[model.group(), more].concat())]))
            }
            ("XINFO", Some("CONSUMERS")) => {
                Some(list(&[fields(&[model.consumer(), vec![("inactive", int(-1))]].concat())]))
            }
            _ => None,
        },
        ..Shape::default()
    });
    let streamlag = watch(&fake, &["--streams", STREAM]);
    let group = group_of(&streamlag, "Dragonfly", true);
    assert_eq!((&group["entries_read"], &group["unowned_pending"]), (&json!(READ), &json!(0)));
    assert_eq!(streamlag.json("consumers")["consumers"][0]["inactive_seconds"], Value::Null);
    assert_eq!(refused(&streamlag), [""; 0]);
}

/// KeyDB is a fork of Redis 6 (`src/version.h`: 6.0.9 to 6.3): its fields, and its words with backticks.
#[test]
fn keydb() {
    let fake = Fake::start(Shape {
        unknown: |words| error(&format!("ERR unknown command `{}`, with args beginning with: ", words[0])),
        without: &["EVAL_RO"],
        ..Shape::default()
    });
    let streamlag = watch(&fake, &["--streams", STREAM]);
    let group = group_of(&streamlag, "KeyDB", true);
    assert_eq!((&group["entries_read"], &group["added_per_second"]), (&Value::Null, &Value::Null));
    assert!(!streamlag.metrics().contains("event_stream_entries_added_total{"));
    assert_eq!(refused(&streamlag), [""; 0]);
}

/// Kvrocks (`src/commands/cmd_stream.cc`, `src/server/server.h`): neither `radix-tree-keys` nor `groups`, `version` 4.0.0, `entries-read`
/// and `lag` that may have wrapped (apache/kvrocks#3578, #3581), idle times and delivery counts of 0 in `XPENDING` (#3178).
/// Before 2.9 there is no XPENDING (#1734).
#[test]
fn kvrocks() {
    fn own(model: Model, words: &[String]) -> Option<String> {
        match (words[0].as_str(), words.get(1).map(String::as_str)) {
            ("HELLO", _) => Some(fields(&[("server", text("redis")), ("version", text("4.0.0")), ("proto", int(2))])),
            ("XINFO", Some("STREAM")) => {
                let told = |name: &&str| !["radix-tree-keys", "radix-tree-nodes", "groups"].contains(name);
                Some(fields(&model.stream_of_7().into_iter().filter(|(name, _)| told(name)).collect::<Vec<_>>()))
            }
            ("XINFO", Some("GROUPS")) => {
                let more = vec![("entries-read", int(ENTRIES + 8)), ("lag", int(18_446_744_073_709_551_608_u64))];
                Some(list(&[fields(&[model.group(), more].concat())]))
            }
            ("XPENDING", _) if words[2] == GROUP => {
                Some(list(&[list(&[text(&model.id(1)), text("instance-1"), int(0), int(0)])]))
            }
            _ => None,
        }
    }
    let unknown =
        |words: &[String]| error(&format!("ERR unknown command `{}`, with args beginning with: `{STREAM}`", words[0]));
    for (without, expected) in [(&[][..], &[][..]), (&["XPENDING"], &["XPENDING"])] {
        let fake = Fake::start(Shape { own, unknown, without, checks_early: true });
        let streamlag = watch(&fake, &["--streams", STREAM]);
        let group = group_of(&streamlag, "Kvrocks", true);
        assert_eq!(group["pending"], READ);
        assert_eq!(group["oldest_pending_seconds"].is_number(), without.is_empty(), "{group}");
        assert_eq!(refused(&streamlag), expected);
    }
}

/// Kvrocks lists a group twice that `XREADGROUP` over several streams made (apache/kvrocks#2568): which of them is right nobody knows,
/// so that stream is unreadable, and says why. Other streams are read.
#[test]
fn a_group_twice_is_the_trouble_of_its_stream() {
    let fake = Fake::start(Shape {
        own: |model, words| match (words[0].as_str(), words.get(1).map(String::as_str)) {
            ("XINFO", Some("GROUPS")) if words[2] == "twice" => {
                Some(list(&[fields(&model.group()), fields(&model.group())]))
            }
            ("XINFO", Some("STREAM")) if words[2] == "twice" => Some(fields(&model.stream())),
            _ => None,
        },
        ..Shape::default()
    });
    let streamlag = watch(&fake, &["--streams", &format!("{STREAM},twice")]);
    group_of(&streamlag, "Kvrocks", true);
    let lag = streamlag.json("consumer-lag");
    let error = lag["streams"]["twice"]["error"].as_str().unwrap();
    assert_eq!(error, "unexpected reply to XINFO GROUPS: the same name twice");
}

/// Upstash answers what it does not know in its own words (sidekiq/sidekiq#5641), here TIME and EVAL_RO.
#[test]
fn upstash() {
    let fake = Fake::start(Shape {
        unknown: |words| {
            let link = "https://upstash.com/docs/redis/overall/rediscompatibility";
            error(&format!("ERR Command is not available: '{}'. See {link} for details", words[0]))
        },
        without: &["TIME", "EVAL", "EVAL_RO"],
        ..Shape::default()
    });
    let streamlag = watch(&fake, &["--streams", "events:*"]);
    let group = group_of(&streamlag, "Upstash", true);
    // By the local clock.
    let oldest = group["oldest_pending_seconds"].as_f64().unwrap();
    assert!((59.0..90.0).contains(&oldest), "{group}");
    assert_eq!(refused(&streamlag), ["TIME"]);
}

/// A proxy that passes on neither transactions nor SCAN, and has words of its own without `ERR` (envoyproxy/envoy#32928).
#[test]
fn a_proxy_without_transactions() {
    let fake = Fake::start(Shape {
        unknown: |words| error(&format!("unsupported command '{}'", words[0].to_ascii_lowercase())),
        without: &["MULTI", "EXEC", "SCAN", "HELLO", "EVAL", "EVAL_RO"],
        ..Shape::default()
    });
    let streamlag = watch(&fake, &["--streams", &format!("{STREAM},other:*")]);
    let group = group_of(&streamlag, "a proxy", true);
    // What is asked one after the other is not of one moment.
    assert_eq!(group["unowned_pending"], Value::Null);
    assert_eq!(refused(&streamlag), ["SCAN", "MULTI"]);
    // Whether it may by now is asked once per poll, not per stream.
    let polls = || streamlag.metric("streamlag_polls_total{outcome=\"partial\"}").unwrap();
    assert!((fake.times_asked("MULTI") as f64) < polls() + 5.0);
}

/// Without transactions a stream that changed while it was read is read again in the same poll. Here one reading of three is of one
/// moment.
#[test]
fn what_changed_while_it_was_read_is_read_again() {
    static CALLS: AtomicUsize = AtomicUsize::new(0);
    let fake = Fake::start(Shape {
        own: |model, words| {
            if words.join(" ") != format!("XINFO STREAM {STREAM}") {
                return None;
            }
            let call = CALLS.fetch_add(1, Ordering::Relaxed);
            let mut told = model.stream();
            told.push(("a-field-of-its-own", int([0, 1, 1][call % 3])));
            Some(fields(&told))
        },
        without: &["MULTI", "EVAL", "EVAL_RO"],
        ..Shape::default()
    });
    let streamlag = watch(&fake, &["--streams", STREAM, "--lag.count-budget", "0"]);
    for _ in 0..3 {
        streamlag.next_sample();
    }
    assert!(streamlag.log_lines("stream read failed").is_empty(), "{:?}", streamlag.log());
    assert_eq!(streamlag.metric(&format!("event_stream_up{{stream=\"{STREAM}\"}}")), Some(1.0));
}

/// Old Kvrocks has cursors that are no numbers, and servers before 6.0 no `TYPE`: streams that are named are read all the same.
#[test]
fn scan_that_answers_something_else() {
    let answers: [Own; 3] = [
        |_, words| (words[0] == "SCAN").then(|| list(&[text("_key"), list(&[text(STREAM)])])),
        |_, words| (words[0] == "SCAN").then(|| error("ERR syntax error")),
        |_, words| (words[0] == "SCAN").then(|| NIL.to_owned()),
    ];
    for own in answers {
        let fake = Fake::start(Shape { own, ..Shape::default() });
        let streamlag = watch(&fake, &["--streams", &format!("{STREAM},other:*")]);
        group_of(&streamlag, "SCAN", true);
        assert_eq!(refused(&streamlag), ["SCAN"]);
    }
}

/// Hosts in `CLUSTER SLOTS` that are empty or nil stand for the one that was asked (Redis Enterprise behind one endpoint, Redis 7.0 with
/// `unknown-endpoint`; vert-x3/vertx-redis-client#437); ElastiCache adds an empty `hostname` (valkey-io/valkey-glide#5373).
#[test]
fn cluster_slots_without_hosts() {
    let shapes: [Own; 3] = [
        |model, words| model.slots(words, NIL, &[]),
        |model, words| model.slots(words, &text(""), &[]),
        |model, words| model.slots(words, &text("127.0.0.1"), &[text("hostname"), text("")]),
    ];
    for own in shapes {
        let fake = Fake::start(Shape { own, ..Shape::default() });
        let streamlag = watch(&fake, &["--streams", STREAM, "--redis.mode", "cluster"]);
        group_of(&streamlag, "a cluster without hosts", true);
        let node = format!("streamlag_redis_node_up{{node=\"127.0.0.1:{}\"}}", fake.port);
        assert_eq!(streamlag.metric(&node), Some(1.0), "{}", streamlag.metrics());
    }
}

/// A field that cannot be is that field's trouble; here each in turn, of a stream that is otherwise as it should be.
#[test]
fn fields_that_cannot_be_cost_what_they_tell_and_no_poll() {
    /// The fields of this stream are as its name says.
    fn own(model: Model, words: &[String]) -> Option<String> {
        let key = words.get(2)?;
        let (field, value) = key.strip_prefix("odd:")?.split_once('=')?;
        let value = match value {
            "nil" => NIL.to_owned(),
            "wrapped" => int(u64::MAX - 7),
            "negative" => int(-8),
            "late" => text(&model.id(ENTRIES + 100)),
            "late-entry" => model.entry(ENTRIES + 100),
            "early" => text("1-0"),
            other => text(other),
        };
        let with = |mut told: Vec<(&'static str, String)>| {
            told.iter_mut().filter(|(name, _)| *name == field).for_each(|(_, old)| *old = value.clone());
            fields(&told)
        };
        let of_7 = vec![("entries-read", int(READ)), ("lag", int(ENTRIES - READ))];
        Some(match (words[0].as_str(), words[1].as_str()) {
            ("XINFO", "STREAM") => with(model.stream_of_7()),
            ("XINFO", "GROUPS") => list(&[with([model.group(), of_7].concat())]),
            ("XINFO", "CONSUMERS") if words[3] == GROUP => list(&[with(model.consumer())]),
            _ => return None,
        })
    }
    // Of each: whether the lag is exact all the same.
    let cases = [
        ("lag=wrapped", true),
        ("lag=negative", true),
        ("entries-read=wrapped", true),
        ("entries-added=negative", true),
        ("max-deleted-entry-id=nonsense", true),
        ("last-generated-id=nil", true),
        ("last-generated-id=early", true),
        ("first-entry=nil", false),
        ("first-entry=late-entry", false),
        ("last-entry=nonsense", false),
        ("last-delivered-id=nonsense", false),
        ("last-delivered-id=nil", false),
        ("pending=negative", true),
        ("consumers=wrapped", true),
        ("idle=nil", true),
    ];
    let fake = Fake::start(Shape { own, ..Shape::default() });
    let mut streams: Vec<String> = cases.iter().map(|(case, _)| format!("odd:{case}")).collect();
    streams.extend(["odd:length=wrapped".to_owned(), STREAM.to_owned()]);
    let streamlag = watch(&fake, &["--streams", &streams.join(",")]);
    let rows = || streamlag.json("groups")["groups"].as_array().unwrap().clone();
    let row = |stream: &str| rows().into_iter().find(|row| row["stream"] == stream).unwrap();
    for (case, exact) in cases {
        let stream = format!("odd:{case}");
        let group = eventually(&format!("{case}: the lag"), || {
            Some(row(&stream)).filter(|row| (row["lag_quality"] == "exact") == exact)
        });
        let lag = ENTRIES - READ;
        assert!(group["lag_min"].as_u64() <= Some(lag) && Some(lag) <= group["lag_max"].as_u64(), "{case}: {group}");
        assert!(!exact || group["lag"] == lag, "{case}: {group}");
        let expected = |key: &str, told: Value| if case.starts_with(key) { Value::Null } else { told };
        // The case names the field of the consumer as well.
        assert_eq!(group["pending"], expected("pending", json!(READ)), "{case}: {group}");
        assert_eq!(group["consumers"], expected("consumers", json!(1)), "{case}: {group}");
        assert_eq!(group["last_delivered_id"].is_null(), case.starts_with("last-delivered-id"), "{case}: {group}");
        assert!(group["oldest_pending_seconds"].is_number(), "{case}: {group}");
        assert_eq!(group["lost_entries"], 0, "{case}: {group}");
        // Nothing is safe to trim of which that cannot be known.
        let told = streamlag.json("streams")["streams"].as_array().unwrap().clone();
        let told = told.into_iter().find(|told| told["name"] == stream.as_str()).unwrap();
        let is_known = exact && !case.starts_with("pending");
        assert_eq!(told["safe_to_trim_id"].is_string(), is_known, "{case}: {told}");
        let consumers = streamlag.json("consumers")["consumers"].as_array().unwrap().clone();
        let consumer = consumers.iter().find(|consumer| consumer["stream"] == stream.as_str()).unwrap();
        assert_eq!(consumer["idle_seconds"].is_null(), case.starts_with("idle"), "{case}: {consumer}");
        assert_eq!(streamlag.metric(&format!("event_stream_up{{stream=\"{stream}\"}}")), Some(1.0), "{case}");
    }
    assert_eq!(row(STREAM)["lag"], ENTRIES - READ);
    let error = streamlag.json("consumer-lag")["streams"]["odd:length=wrapped"]["error"].as_str().unwrap().to_owned();
    assert!(error.contains("length is a number that does not fit 64 bits, not a count"), "{error}");
    let page = streamlag.metrics();
    assert!(!page.contains("event_consumer_lag{stream=\"odd:length=wrapped\""), "{page}");
    let failures = crate::common::value_of(&page, "streamlag_polls_total{outcome=\"failure\"}");
    assert_eq!(failures, Some(0.0), "{:?}", streamlag.log());
}

/// Redis 8.8: entries that `XNACK` released are pending and of nobody. The shapes are those of its documentation (redis/docs,
/// content/commands/xnack.md: consumer "" and idle time -1; LLONG_MAX deliveries after FATAL), and of cunla/fakeredis-py#521, by which no
/// consumer's count has them. Ready, and not run: there is no 8.8 here.
#[test]
fn entries_of_nobody_are_counted_for_themselves() {
    let fake = Fake::start(Shape {
        own: |model, words| match (words[0].as_str(), words.get(1).map(String::as_str)) {
            ("XINFO", Some("STREAM")) => Some(fields(&model.stream_of_7())),
            ("XINFO", Some("CONSUMERS")) if words[3] == GROUP => {
                Some(list(&[fields(&[("name", text("instance-1")), ("pending", int(READ - 2)), ("idle", int(10))])]))
            }
            ("XPENDING", _) if words[2] == GROUP => {
                Some(list(&[list(&[text(&model.id(1)), text(""), int(-1), int(i64::MAX)])]))
            }
            _ => None,
        },
        ..Shape::default()
    });
    let streamlag = watch(&fake, &["--streams", STREAM]);
    let group = group_of(&streamlag, "Redis 8.8", true);
    assert_eq!(
        (&group["pending"], &group["unowned_pending"], &group["consumers"]),
        (&json!(READ), &json!(2), &json!(1))
    );
    assert_eq!(group["oldest_pending_deliveries"], i64::MAX);
    let consumers = streamlag.json("consumers")["consumers"].as_array().unwrap().clone();
    let names: Vec<&str> = consumers.iter().map(|consumer| consumer["consumer"].as_str().unwrap()).collect();
    assert_eq!(names, ["instance-1"]);
    let page = streamlag.metrics();
    let labels = format!("{{stream=\"{STREAM}\",consumer_group=\"{GROUP}\"}}");
    let value = |name: &str| crate::common::value_of(&page, &format!("event_consumer_group_{name}{labels}"));
    assert_eq!(value("unowned_pending"), Some(2.0));
    assert_eq!(value("oldest_pending_deliveries"), Some(i64::MAX as f64));
    assert!(!page.contains("consumer=\"\""), "{page}");
}
