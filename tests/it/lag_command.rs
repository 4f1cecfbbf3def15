//! `streamlag lag`: one answer on the command line, with the numbers and the settings of the daemon.

use std::process::Command;

use serde_json::{Value, json};

use crate::common::cluster::{self, Cluster, STREAMS};
use crate::common::sentinel::{MASTER, Trio, USER};
use crate::common::{Redis, command, free_port, grants, servers, streamlag};

const GROUP: &str = "signalr-consumers";

/// Exit code, standard output, standard error.
type Run = (Option<i32>, String, String);

fn lag_with_env(arguments: &[&str], env: &[(&str, &str)]) -> Run {
    let output = command(&[&["lag"], arguments].concat(), env).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn lag(arguments: &[&str]) -> Run {
    lag_with_env(arguments, &[])
}

fn lag_json(arguments: &[&str]) -> (Option<i32>, Value) {
    let (code, out, err) = lag(&[arguments, &["--output", "json"]].concat());
    (code, serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out} {err}")))
}

/// A stream with so many entries, of which the group has been given some.
fn fill(redis: &Redis, stream: &str, entries: usize, read: usize) {
    redis.run(&format!("XGROUP CREATE {stream} {GROUP} 0 MKSTREAM"));
    redis.add(stream, entries);
    if read > 0 {
        redis.read(stream, GROUP, "instance-1", read);
    }
}

/// Rows of a table as words.
fn words(table: &str) -> Vec<Vec<&str>> {
    table.lines().map(|line| line.split_whitespace().collect()).collect()
}

#[test]
fn a_line_per_stream_and_group_and_an_exit_code() {
    for server in servers() {
        let redis = Redis::start_with(&server, &[]);
        let url = redis.url();
        let check = |streams: &str, code: i32, rows: &[&[&str]]| {
            let (found, out, err) = lag(&["--redis.url", &url, "--streams", streams]);
            assert_eq!((found, err.as_str()), (Some(code), ""), "{streams} {}: {out}", server.display());
            let mut table = words(&out);
            let header = table.remove(0);
            let expected = ["STREAM", "GROUP", "STATUS", "LAG", "BEHIND", "PENDING", "OLDEST", "CONSUMERS", "NOTE"];
            assert_eq!(header, expected);
            // The times change.
            for (row, expected) in table.iter_mut().zip(rows) {
                if expected.len() == 6 {
                    assert_eq!(row.len(), 8, "{out}");
                    for time in [row.remove(6), row.remove(4)] {
                        assert!(time == "-" || time.ends_with('s'), "{out}");
                    }
                }
            }
            assert_eq!(table, rows, "{out}");
        };
        fill(&redis, "events:chat", 20, 10);
        fill(&redis, "events:ticket", 110, 10);
        fill(&redis, "events:remote", 1200, 0);
        redis.run("SET events:text x");
        redis.run("XADD events:alone * n 1");
        let chat: &[&str] = &["events:chat", GROUP, "healthy", "10", "10", "1"];
        let ticket: &[&str] = &["events:ticket", GROUP, "degraded", "100", "10", "1"];
        check("events:chat", 0, &[chat]);
        check("events:chat,events:ticket", 1, &[chat, ticket]);
        check("events:remote,events:chat", 2, &[&["events:remote", GROUP, "unhealthy", "1200", "0", "0"], chat]);
        let missing: &[&str] =
            &["events:alone", GROUP, "unknown", "-", "-", "-", "-", "-", "the", "group", "does", "not", "exist"];
        check("events:chat,events:alone", 2, &[chat, missing]);
        let absent: &[&str] = &["absent", GROUP, "unknown", "-", "-", "-", "-", "-", "no", "such", "key"];
        check("absent,events:ticket", 2, &[absent, ticket]);
        let (code, out, _) = lag(&["--redis.url", &url, "--streams", "events:text"]);
        assert!(code == Some(2) && out.contains("unknown") && out.contains("WRONGTYPE"), "{out}");
        // A stream that nobody reads is not healthy.
        let (code, out, _) = lag(&["--redis.url", &url, "--streams", "events:alone", "--groups", "*"]);
        assert!(code == Some(2) && out.contains("no monitored group"), "{out}");
    }
}

#[test]
fn json_has_the_rows_of_the_api() {
    let redis = Redis::start();
    fill(&redis, "events:chat", 200, 77);
    redis.run("SET events:ticket x");
    redis.run("XADD events:remote * n 1");
    let url = redis.url();
    let daemon = streamlag(&["--redis.url", &url]).ready();
    let groups = daemon.json("groups");
    let (code, document) = lag_json(&["--redis.url", &url]);
    assert_eq!((code, &document["status"]), (Some(2), &json!("unknown")));
    let rows = document["groups"].as_array().unwrap();
    assert_eq!(rows.len(), 3);
    for (row, expected) in rows.iter().zip(groups["groups"].as_array().unwrap()) {
        let mut row = row.as_object().unwrap().clone();
        assert_eq!(row.remove("target"), Some(json!("default")));
        assert_eq!(row.remove("lag_quality_reason"), Some(Value::Null));
        let expected = expected.as_object().unwrap();
        assert!(row.keys().eq(expected.keys()), "{row:?} {expected:?}");
        // What takes more than one sample, or is an age, is another.
        let changes = |key: &str| {
            key.ends_with("_seconds")
                || key.ends_with("_per_second")
                || key.contains("recommended")
                || key == "state_since"
        };
        for (key, value) in row.iter().filter(|(key, _)| !changes(key)) {
            assert_eq!(Some(value), expected.get(key), "{key}");
        }
    }
    let target = &document["targets"][0];
    assert_eq!(target["redis"], format!("redis://127.0.0.1:{}/0", redis.port));
    assert_eq!(
        (&target["name"], &target["mode"], &target["status"]),
        (&json!("default"), &json!("standalone"), &json!("unknown"))
    );
    assert!(target["sampled_at"].is_string() && target["age_seconds"].is_number() && target.get("error").is_none());
    // With a pattern of groups, a stream that has none is there as well.
    let (_, document) = lag_json(&["--redis.url", &url, "--groups", "*"]);
    let alone = &document["groups"][2];
    assert_eq!((&alone["stream"], &alone["consumer_group"]), (&json!("events:remote"), &Value::Null));
    assert_eq!((&alone["status"], &alone["group_exists"]), (&json!("unknown"), &json!(false)));
}

/// A group whose lag no counter tells: 6000 of 12,000 entries are to be counted, of which each poll may read 800.
#[test]
fn it_counts_until_the_lag_is_exact_and_says_why_it_is_not() {
    for server in servers() {
        let redis = Redis::start_with(&server, &[]);
        let mut pipe = redis::pipe();
        for n in 1..=12_000 {
            pipe.cmd("XADD").arg("events:chat").arg(format!("{n}-0")).arg("n").arg(n).ignore();
        }
        pipe.query::<()>(&mut redis.connection()).unwrap();
        redis.run(&format!("XGROUP CREATE events:chat {GROUP} 6000-0"));
        let url = redis.url();
        let base = ["--redis.url", &url, "--streams", "events:chat", "--poll.interval", "100ms"];
        let budget = ["--lag.count-budget", "10000"];
        let row = |more: &[&str]| lag_json(&[&base, more].concat()).1["groups"][0].clone();
        let exact = row(&[&budget[..], &["--wait", "1m"]].concat());
        assert_eq!((&exact["lag_quality"], &exact["lag"]), (&json!("exact"), &json!(6000)), "{exact}");
        assert_eq!(exact["lag_quality_reason"], Value::Null);
        let bounded = |row: &Value, reason: &str| {
            assert_eq!((&row["lag_quality"], &row["lag_quality_reason"]), (&json!("bounded"), &json!(reason)), "{row}");
            assert!(row["lag_min"].as_u64() <= Some(6000) && row["lag_max"].as_u64() >= Some(6000), "{row}");
        };
        let hurried = [&budget[..], &["--wait", "0s"]].concat();
        bounded(&row(&hurried), "not counted within 0s; raise --wait or --lag.count-budget");
        let (_, out, _) = lag(&[&base, &hurried[..]].concat());
        let line = out.lines().nth(1).unwrap();
        let (_, lag) = line.split_once("unhealthy").unwrap_or_else(|| panic!("{out}"));
        let lag: Vec<&str> = lag.split_whitespace().take(2).collect();
        let bounds = lag[1].trim_matches(['(', ')']).split_once('-').unwrap();
        let [point, min, max] = [lag[0], bounds.0, bounds.1].map(|number| number.parse::<u64>().unwrap());
        assert!(min <= point && point <= max && min < max, "{out}");
        assert!(line.ends_with("bounded: not counted within 0s; raise --wait or --lag.count-budget"), "{out}");
        // Nothing is waited for that cannot come.
        bounded(&row(&["--lag.count-budget", "0", "--wait", "1d"]), "counting is off (--lag.count-budget 0)");
    }
}

/// The first poll looks at 200,000 keys, and later ones at fewer.
#[test]
fn it_searches_until_every_stream_is_found() {
    let redis = Redis::start();
    redis.run_bytes(&[b"EVAL", b"for n = 1, 250000 do redis.call('SET', n, '') end", b"0"]);
    fill(&redis, "events:chat", 3, 0);
    let url = redis.url_of_everybody();
    let base = ["--redis.url", &url, "--streams", "events:*", "--poll.interval", "100ms"];
    let (code, out, err) = lag(&[&base[..], &["--wait", "0s"]].concat());
    assert_ne!(code, Some(0), "{out}");
    assert!(err.contains("the first search for streams that match a pattern has not ended yet"), "{err}");
    let (code, out, err) = lag(&[&base[..], &["--wait", "1m"]].concat());
    assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
    assert!(words(&out)[1].starts_with(&["events:chat", GROUP, "healthy", "3"]), "{out}");
}

#[test]
fn it_says_that_redis_refuses_to_count() {
    let redis = Redis::start_without(std::path::Path::new("redis-server"), &["XRANGE"]);
    for n in 1..=1000 {
        redis.run(&format!("XADD events:chat {n}-0 n {n}"));
    }
    redis.run(&format!("XGROUP CREATE events:chat {GROUP} 500-0"));
    let (_, document) =
        lag_json(&["--redis.url", &redis.url_of_everybody(), "--streams", "events:chat", "--wait", "1d"]);
    assert_eq!(document["groups"][0]["lag_quality_reason"], "Redis refuses XRANGE, so entries cannot be counted");
}

#[test]
fn a_redis_that_cannot_be_read_is_2_and_said_on_standard_error() {
    let url = format!("redis://u:hunter2@127.0.0.1:{}/3", free_port());
    let shown = url.replace("u:hunter2@", "");
    let (code, out, err) = lag(&["--redis.url", &url]);
    assert_eq!(code, Some(2));
    assert!(err.starts_with(&format!("streamlag: {shown}: Connection refused")) && err.lines().count() == 1, "{err}");
    assert!(words(&out)[1..].iter().all(|row| row[2] == "unknown" && row[3] == "-"), "{out}");
    let (code, document) = lag_json(&["--redis.url", &url]);
    assert_eq!((code, &document["status"], &document["groups"][0]["lag"]), (Some(2), &json!("unhealthy"), &json!(-1)));
    assert!(document["targets"][0]["error"].as_str().unwrap().contains("Connection refused"), "{document}");
    assert!(!out.contains("hunter2") && !err.contains("hunter2") && !document.to_string().contains("hunter2"));
    // No stream at all is not healthy either.
    let redis = Redis::start();
    let (code, out, err) = lag(&["--redis.url", &redis.url_of_everybody(), "--streams", "nothing:*"]);
    assert!(code == Some(2) && out.lines().count() == 1 && err.contains("no stream is watched"), "{out} {err}");
}

#[test]
fn several_targets_in_one_table() {
    let (one, two) = (Redis::start(), Redis::start());
    fill(&one, "events:chat", 5, 0);
    fill(&two, "orders", 500, 0);
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().to_str().unwrap();
    let text = format!(
        "api.tokens-file: /nonexistent\nweb.config.file: /nonexistent\nstreams: [events:chat]\ntargets:\n\
         - {{name: one, redis.url: '{}'}}\n- {{name: two, redis.url: '{}', streams: orders}}\n\
         - {{name: down, redis.url: 'redis://127.0.0.1:{}'}}\n",
        one.url(),
        two.url(),
        free_port()
    );
    std::fs::write(path, text).unwrap();
    // The files of the server are not needed, nor readable for everybody.
    let (code, out, err) = lag_with_env(&[], &[("STREAMLAG_CONFIG_FILE", path), ("STREAMLAG_API_TOKEN", "not one")]);
    assert_eq!(code, Some(2));
    assert!(err.starts_with("streamlag: target down: redis://127.0.0.1:") && err.lines().count() == 1, "{err}");
    let rows: Vec<Vec<String>> =
        words(&out).iter().map(|row| row[..5].iter().map(|word| (*word).to_owned()).collect()).collect();
    let expected = [
        ["TARGET", "STREAM", "GROUP", "STATUS", "LAG"],
        ["one", "events:chat", GROUP, "healthy", "5"],
        ["two", "orders", GROUP, "degraded", "500"],
        ["down", "events:chat", GROUP, "unknown", "-"],
    ];
    assert_eq!(rows, expected, "{out}");
    let only = |name: &str| lag(&["--config.file", path, "--target", name]);
    let (code, out, err) = only("two");
    assert!(
        code == Some(1) && err.is_empty() && words(&out)[1][..4] == ["orders", GROUP, "degraded", "500"],
        "{out} {err}"
    );
    assert_eq!(only("one").0, Some(0));
    let (code, out, err) = only("three");
    let expected = "streamlag: invalid value \"three\" for --target: expected a target of the file: one, two, down\n";
    assert_eq!((code, out.as_str(), err.as_str()), (Some(2), "", expected));
}

#[test]
fn a_cluster_and_what_sentinels_name() {
    let server = servers().remove(0);
    let cluster = Cluster::start(&server, &[]);
    let lags = cluster.fill();
    let streams: Vec<String> = (0..STREAMS).map(|n| format!("events:{n}")).collect();
    let base = ["--redis.mode", "cluster", "--redis.url", &cluster.url()];
    let (_, document) = lag_json(&[&base[..], &["--streams", &streams.join(","), "--groups", cluster::GROUP]].concat());
    let rows = document["groups"].as_array().unwrap();
    assert_eq!(rows.len(), STREAMS);
    for row in rows {
        assert_eq!(
            (row["lag"].as_u64(), &row["lag_quality"]),
            (lags.get(row["stream"].as_str().unwrap()).copied(), &json!("exact"))
        );
    }
    let trio = Trio::start(&server, &[]);
    fill(&trio.servers[0], "events:chat", 20, 7);
    let password = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&password, "sentinel-pw\n").unwrap();
    let login = ["--redis.sentinel-user", USER, "--redis.sentinel-password-file", password.path().to_str().unwrap()];
    let login = if trio.has_users { login.to_vec() } else { Vec::new() };
    let base = ["--redis.mode", "sentinel", "--redis.url", &trio.url(), "--redis.sentinel-master", MASTER];
    let (code, document) = lag_json(&[&base[..], &["--streams", "events:chat"], &login].concat());
    assert_eq!((code, &document["groups"][0]["lag"]), (Some(0), &json!(13)), "{document}");
    assert_eq!(document["targets"][0]["mode"], "sentinel");
}

/// Names that break a line, a terminal, a table or a spreadsheet.
const HOSTILE: [&[u8]; 7] = [
    b"a\x1b[2J\x1b]0;title\x07b",
    b"two\r\nlines,\"quoted\"",
    b"=HYPERLINK(\"http://x\",\"y\")",
    b"@SUM(A1)",
    "user\u{202e}gpj.exe\u{200b}\u{9b}31m".as_bytes(),
    b"bad\xff",
    "流, 流".as_bytes(),
];

/// What stands in a CSV file (RFC 4180).
fn csv(text: &str) -> Vec<Vec<String>> {
    let (mut rows, mut row, mut cell) = (Vec::new(), Vec::new(), String::new());
    let (mut chars, mut quoted) = (text.chars().peekable(), false);
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => cell.extend(chars.next()),
            '"' => quoted = !quoted,
            ',' if !quoted => row.push(std::mem::take(&mut cell)),
            '\r' if !quoted => {}
            '\n' if !quoted => {
                row.push(std::mem::take(&mut cell));
                rows.push(std::mem::take(&mut row));
            }
            c => cell.push(c),
        }
    }
    assert!(cell.is_empty() && row.is_empty() && !quoted, "{text}");
    rows
}

#[test]
fn hostile_names_act_on_no_terminal_and_no_spreadsheet() {
    let redis = Redis::start();
    for name in HOSTILE {
        redis.run_bytes(&[b"XADD", name, b"*", b"n", b"1"]);
        redis.run_bytes(&[b"XGROUP", b"CREATE", name, name, b"0"]);
    }
    let url = redis.url_of_everybody();
    let base = ["--redis.url", &url, "--streams", "*", "--groups", "*"];
    let acts = |c: char| (c.is_control() && c != '\n') || ('\u{202a}'..='\u{202e}').contains(&c) || c == '\u{200b}';
    let (code, table, _) = lag(&base);
    assert!(code == Some(0) && table.lines().count() == 1 + HOSTILE.len() && !table.contains(acts), "{table:?}");
    assert!(
        table.contains("a\\u{1b}[2J\\u{1b}]0;title\\u{7}b") && table.contains("bad\u{fffd} (0x626164ff)"),
        "{table}"
    );
    let (_, json, _) = lag(&[&base[..], &["-o", "json"]].concat());
    assert!(!json.contains(acts), "{json:?}");
    let document: Value = serde_json::from_str(&json).unwrap();
    let shown = |name: &[u8]| String::from_utf8(name.to_vec()).unwrap_or("bad\u{fffd} (0x626164ff)".to_owned());
    let (_, text, _) = lag(&[&base[..], &["-o", "csv"]].concat());
    let rows = csv(&text);
    assert!(rows.len() == 1 + HOSTILE.len() && rows.iter().all(|row| row.len() == rows[0].len()), "{rows:?}");
    assert_eq!(rows[0][..3], ["target", "stream", "consumer_group"]);
    for name in HOSTILE.map(shown) {
        let row = document["groups"].as_array().unwrap().iter().find(|row| row["stream"] == name);
        assert!(row.is_some_and(|row| row["consumer_group"] == name), "{name:?}");
        let guarded = if name.starts_with(['=', '@']) { format!("'{name}") } else { name };
        let row = rows.iter().find(|row| row[1] == guarded).unwrap_or_else(|| panic!("{guarded:?} {rows:?}"));
        assert_eq!((&row[2], row[4].as_str(), row[5].as_str()), (&guarded, "healthy", "1"));
    }
}

#[test]
fn csv_leaves_what_is_unknown_empty() {
    let redis = Redis::start();
    redis.run("XADD events:chat * n 1");
    let (_, text, _) = lag(&["--redis.url", &redis.url(), "--streams", "events:chat,absent", "-o", "csv"]);
    let rows = csv(&text);
    let column = |name: &str| rows[0].iter().position(|column| column == name).unwrap();
    for (row, note) in rows[1..].iter().zip(["the group does not exist", "no such key"]) {
        assert_eq!((row[column("lag")].as_str(), row[column("note")].as_str()), ("", note));
        assert_eq!((row[column("status")].as_str(), row[column("pending")].as_str()), ("unknown", ""));
    }
}

/// Through `script`, which gives it a terminal.
#[test]
fn colours_on_a_terminal_only() {
    let redis = Redis::start();
    fill(&redis, "events:chat", 5, 0);
    let url = redis.url();
    let on_a_terminal = |more: &str, no_color: Option<&str>| {
        let line =
            format!("'{}' lag --redis.url '{url}' --streams events:chat {more}", env!("CARGO_BIN_EXE_streamlag"));
        let mut script = Command::new("script");
        script
            .args(["-qec", &line, "/dev/null"])
            .env_remove("NO_COLOR")
            .env("TERM", "xterm")
            .envs(no_color.map(|value| ("NO_COLOR", value)));
        String::from_utf8(script.output().unwrap().stdout).unwrap()
    };
    let green = "\x1b[32mhealthy\x1b[0m";
    assert!(on_a_terminal("", None).contains(green));
    assert!(on_a_terminal("", Some("")).contains(green));
    assert!(!on_a_terminal("", Some("1")).contains('\x1b'));
    assert!(!on_a_terminal("--color never", None).contains('\x1b'));
    let piped = |more: &[&str]| lag(&[&["--redis.url", &url, "--streams", "events:chat"], more].concat()).1;
    assert!(!piped(&[]).contains('\x1b') && piped(&["--color", "always"]).contains(green));
}

#[test]
fn bad_arguments_are_2_and_one_line() {
    let check = |arguments: &[&str], expected: &str| {
        let (code, out, err) = lag(arguments);
        assert_eq!((code, out.as_str(), err), (Some(2), "", format!("streamlag: {expected}\n")), "{arguments:?}");
    };
    check(&["--output", "xml"], "invalid value \"xml\" for --output: expected one of table, json, csv");
    check(&["--color", "sometimes"], "invalid value \"sometimes\" for --color: expected one of auto, always, never");
    check(
        &["--wait", "soon"],
        "invalid value \"soon\" for --wait: expected a duration between 0s and 1d, such as 500ms, 5s or 1m",
    );
    check(
        &["--wait", "2d"],
        "invalid value \"2d\" for --wait: expected a duration between 0s and 1d, such as 500ms, 5s or 1m",
    );
    check(&["--stream", "x"], "unknown flag --stream: did you mean --streams? See streamlag lag --help");
    check(&["surplus"], "unexpected argument \"surplus\": expected flags only; see streamlag lag --help");
    check(
        &["--poll.interval", "1ms"],
        "invalid value \"1ms\" for --poll.interval: expected a duration between 50ms and 1d, such as 500ms, 5s or 1m",
    );
}

/// The documented user may do all of it.
#[test]
fn the_documented_grants_are_enough() {
    let redis = Redis::start();
    fill(&redis, "events:chat", 5, 2);
    assert!(redis.url().contains(grants::USER));
    assert_eq!(lag(&["--redis.url", &redis.url(), "--streams", "events:chat"]).0, Some(0));
}
