//! What an autoscaler is told by a running streamlag, on every server there is, read by the library that KEDA reads with.

use serde_json::{Value, json};

use crate::common::cluster::{Cluster, GOES_ON, GROUP as CLUSTER_GROUP};
use crate::common::prometheus::{Prometheus, prometheuses, repository};
use crate::common::{
    Redis, Reply, Streamlag, TOKEN, command, eventually, eventually_right, servers, streamlag, streamlag_with_env,
};

const GROUP: &str = "workers";

/// What KEDA's metrics-api scaler makes of an answer (pkg/scalers/metrics_api_scaler.go): anything but 200 is an error, and so is what
/// is not a number.
fn as_keda(reply: &Reply, location: &str) -> Result<f64, u16> {
    if reply.status != 200 {
        return Err(reply.status);
    }
    let text = reply.text();
    let value = gjson::get(&text, location);
    assert!(value.kind() == gjson::Kind::Number, "{location}: {text}");
    Ok(value.f64())
}

fn keys(value: &Value) -> Vec<&str> {
    let mut keys: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

fn start(redis: &Redis, file: &str, arguments: &[&str]) -> (Streamlag, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("streamlag.yml");
    std::fs::write(&path, file).unwrap();
    // The user of the documents may not look for patterns.
    let url = redis.url_of_everybody();
    let mut all = vec!["--redis.url", url.as_str(), "--groups", GROUP, "--config.file", path.to_str().unwrap()];
    // Patterns are looked for at this pace.
    all.extend(["--discovery.interval", "1s"]);
    all.extend(arguments);
    (streamlag(&all).ready(), dir)
}

fn value(streamlag: &Streamlag, path: &str) -> Value {
    // Samples are fresh for 300 ms here. On a busy machine one may be late, and then there is no value for a moment.
    eventually_right(|| {
        let reply = streamlag.get(path);
        if reply.status == 200 { Ok(reply.json()) } else { Err(format!("{path}: {}", reply.text())) }
    })
}

const SCALERS: &str = "
streams: [orders, mail]
logical-streams: ['parts=p:{0..1}']
scalers:
  - {name: orders, stream: orders, group: workers, target: 50}
  - {name: orders-lag, stream: orders, group: workers, signal: lag}
  - {name: orders-consumers, stream: orders, group: workers, signal: consumers}
  - {name: orders-forecast, stream: orders, group: workers, signal: forecast, look_ahead: 10m}
  - {name: new, stream: not-there-yet}
  - {name: parts, logical_stream: parts}
  - {name: globbed, streams: 'q:*'}
  - {name: text, stream: text}
";

#[test]
fn every_signal_on_every_server() {
    for server in servers() {
        let redis = Redis::start_with(&server, &[]);
        let name = server.display();
        redis.run(&format!("XGROUP CREATE orders {GROUP} 0 MKSTREAM"));
        redis.add("orders", 40);
        redis.read("orders", GROUP, "c", 10);
        redis.add("mail", 5);
        redis.add("p:1", 3);
        redis.add("q:7", 4);
        redis.run("SET text x");
        let (streamlag, _dir) = start(&redis, SCALERS, &[]);

        let orders = value(&streamlag, "/api/v1/scale/orders");
        assert_eq!(
            keys(&orders),
            [
                "active",
                "age_seconds",
                "in_flight",
                "lag",
                "lag_max",
                "name",
                "pending",
                "quality",
                "reason",
                "recommended_consumers",
                "sampled_at",
                "signal",
                "target",
                "value"
            ],
            "{name}"
        );
        let (lag, max) = (orders["lag"].as_u64().unwrap(), orders["lag_max"].as_u64().unwrap());
        assert!(lag <= max && max >= 30, "{name}: {orders}");
        assert_eq!((&orders["name"], &orders["signal"]), (&json!("orders"), &json!("work")), "{name}");
        assert_eq!((&orders["value"], &orders["pending"]), (&json!(max + 10), &json!(10)), "{name}: {orders}");
        assert_eq!((&orders["target"], &orders["active"]), (&json!(50.0), &json!(true)), "{name}");
        assert_eq!(orders["in_flight"], 10, "{name}: {orders}");
        assert!(orders["age_seconds"].as_f64().unwrap() < 30.0, "{name}");

        // Counting ends after a few polls at the most.
        let exact = eventually("an exact lag", || {
            let lag = value(&streamlag, "/api/v1/scale/orders-lag");
            (lag["quality"] == "exact").then_some(lag)
        });
        assert_eq!((&exact["value"], &exact["target"]), (&json!(30), &json!(100.0)), "{name}: {exact}");
        let consumers = value(&streamlag, "/api/v1/scale/orders-consumers");
        assert_eq!((&consumers["target"], &consumers["active"]), (&json!(1.0), &json!(true)), "{name}: {consumers}");
        assert!(consumers["value"].as_u64().unwrap() >= 1, "{name}: {consumers}");
        let forecast = value(&streamlag, "/api/v1/scale/orders-forecast");
        assert_eq!((&forecast["value"], &forecast["signal"]), (&json!(40), &json!("forecast")), "{name}: {forecast}");
        assert!(forecast["reason"].as_str().unwrap().starts_with("there is no forecast for 10m ahead"), "{forecast}");

        // A stream that does not exist, a group that does not, several streams, a pattern.
        let new = value(&streamlag, "/api/v1/scale/new");
        assert_eq!((&new["value"], &new["active"]), (&json!(0), &json!(false)), "{name}: {new}");
        assert_eq!(value(&streamlag, "/api/v1/scale/parts")["value"], 3, "{name}");
        let globbed = eventually("the first search", || {
            let reply = streamlag.get("/api/v1/scale/globbed");
            (reply.status == 200).then(|| reply.json())
        });
        assert_eq!(globbed["value"], 4, "{name}: {globbed}");
        let mail = value(&streamlag, "/api/v1/scale?stream=mail&group=workers&signal=lag&target=7");
        assert_eq!((&mail["value"], &mail["target"], &mail["name"]), (&json!(5), &json!(7.0), &json!(null)), "{name}");
        assert!(mail["reason"].as_str().unwrap().contains("the group does not exist"), "{name}: {mail}");

        // What is no stream has no number.
        for path in ["/api/v1/scale/text", "/api/v1/scale?stream=text"] {
            let reply = streamlag.get(path);
            assert_eq!((reply.status, reply.header("retry-after")), (503, Some("1")), "{name}: {reply:?}");
            assert_eq!(reply.header("content-type"), Some("application/problem+json"), "{name}");
            let detail = reply.json()["detail"].to_string();
            assert!(detail.contains("could not be read") && reply.json().get("value").is_none(), "{name}: {detail}");
            assert_eq!(as_keda(&reply, "value"), Err(503), "{name}");
        }
    }
}

#[test]
fn one_entry_is_enough_and_none_is_not() {
    for server in servers() {
        let redis = Redis::start_with(&server, &[]);
        let (streamlag, _dir) = start(&redis, SCALERS, &[]);
        let now = |path: &str| {
            streamlag.next_sample();
            as_keda(&streamlag.get(path), "value")
        };
        let signals = ["orders", "orders-lag", "orders-consumers", "orders-forecast"];
        let all = |expected: [Result<f64, u16>; 4], what: &str| {
            for (signal, expected) in signals.iter().zip(expected) {
                assert_eq!(now(&format!("/api/v1/scale/{signal}")), expected, "{}: {what}: {signal}", server.display());
            }
        };
        all([Ok(0.0); 4], "no stream");
        redis.add("orders", 1);
        all([Ok(1.0); 4], "an entry, and no group");
        redis.run(&format!("XGROUP CREATE orders {GROUP} 0"));
        all([Ok(1.0); 4], "an entry");
        redis.read("orders", GROUP, "c", 1);
        all([Ok(1.0), Ok(0.0), Ok(1.0), Ok(1.0)], "it is being worked on");
        let pending: Vec<Value> = vec![value(&streamlag, "/api/v1/scale/orders")];
        assert_eq!((&pending[0]["pending"], &pending[0]["active"]), (&json!(1), &json!(true)));
        redis.run(&format!("XGROUP DESTROY orders {GROUP}"));
        redis.run("DEL orders");
        all([Ok(0.0); 4], "the stream is gone");
    }
}

#[test]
fn without_a_fresh_sample_there_is_no_number() {
    let mut redis = Redis::start();
    redis.run(&format!("XGROUP CREATE orders {GROUP} 0 MKSTREAM"));
    let (streamlag, _dir) = start(&redis, SCALERS, &["--redis.timeout", "500ms"]);
    let asked = || ["/api/v1/scale/orders", "/api/v1/scale?stream=orders"].map(|path| streamlag.get(path).status);
    assert_eq!(asked(), [200; 2]);
    // It hangs: the sample ages, and then nobody knows.
    redis.signal("-STOP");
    eventually("no number", || (asked() == [503; 2]).then_some(()));
    let reply = streamlag.get("/api/v1/scale/orders");
    assert!(reply.header("retry-after").is_some() && reply.json().get("value").is_none(), "{reply:?}");
    redis.signal("-CONT");
    eventually("a number again", || (asked() == [200; 2]).then_some(()));
    // It is gone: the newest poll failed.
    redis.stop();
    eventually("no number", || (asked() == [503; 2]).then_some(()));
    redis.launch(&[]);
    redis.wait();
    eventually("the stream is gone with it", || {
        let reply = streamlag.get("/api/v1/scale/orders");
        (reply.status == 200 && reply.json()["value"] == 0).then_some(())
    });
}

#[test]
fn before_the_first_poll_there_is_no_number() {
    // Nothing listens there.
    let port = crate::common::free_port();
    let url = format!("redis://127.0.0.1:{port}/0");
    let streamlag = streamlag(&["--redis.url", &url, "--streams", "orders", "--groups", GROUP]);
    let reply = streamlag.get("/api/v1/scale?stream=orders");
    assert_eq!(reply.status, 503, "{reply:?}");
    assert!(reply.header("retry-after").is_some());
}

#[test]
fn keda_reads_it() {
    let redis = Redis::start();
    redis.add("orders", 12);
    redis.run("SET text x");
    let (streamlag, _dir) = start(&redis, SCALERS, &[]);
    let reply = streamlag.get("/api/v1/scale/orders");
    assert_eq!((as_keda(&reply, "value"), as_keda(&reply, "target")), (Ok(12.0), Ok(50.0)));
    assert_eq!(as_keda(&reply, "lag_max"), Ok(12.0));
    let text = reply.text();
    assert!(gjson::get(&text, "active").bool() && gjson::get(&text, "signal").str() == "work", "{text}");
    // A number is found in no error, whatever path is asked for.
    let problem = streamlag.get("/api/v1/scale/text").text();
    assert!(gjson::get(&problem, "value").kind() == gjson::Kind::Null, "{problem}");
    // As KEDA sends the token, and without.
    let with = |token: &str| streamlag.request("GET", "/api/v1/scale/orders", &[("Authorization", token)]).status;
    assert_eq!((with(&format!("Bearer {TOKEN}")), with("Bearer x"), with("")), (200, 401, 401));
    assert_eq!(streamlag.request("GET", "/api/v1/scale?stream=orders", &[]).status, 401);
    let head = streamlag.request("HEAD", "/api/v1/scale/orders", &[("Authorization", &format!("Bearer {TOKEN}"))]);
    assert_eq!((head.status, head.body.len()), (200, 0));
    let post = streamlag.request("POST", "/api/v1/scale/orders", &[("Authorization", &format!("Bearer {TOKEN}"))]);
    assert_eq!((post.status, post.header("allow")), (405, Some("GET, HEAD")));
}

#[test]
fn bad_requests_are_named() {
    let redis = Redis::start();
    redis.add("found:1", 2);
    let (streamlag, _dir) = start(&redis, SCALERS, &["--streams", "orders,found:*"]);
    let check = |path: &str, status, expected: &str| {
        let reply = streamlag.get(path);
        let detail = reply.json()["detail"].as_str().unwrap().to_owned();
        assert!(reply.status == status && detail.contains(expected), "{path}: {} {detail}", reply.status);
        assert_eq!(reply.header("content-type"), Some("application/problem+json"));
    };
    check("/api/v1/scale/nobody", 404, "the scaler \"nobody\" is not declared");
    check("/api/v1/scale/", 404, "there is nothing at");
    check("/api/v1/scale/orders/x", 404, "there is nothing at");
    check("/api/v1/scale/orders?signal=lag", 400, "unknown query parameter \"signal\": expected none here");
    check("/api/v1/scale", 400, "expected a stream");
    check("/api/v1/scale?stream=orders&grup=x", 400, "unknown query parameter \"grup\"");
    check("/api/v1/scale?stream=orders&stream=mail", 400, "given twice");
    check("/api/v1/scale?stream=orders&signal=lag&signal=work", 400, "given twice");
    check("/api/v1/scale?stream=orders&signal=depth", 400, "expected one of lag, work, consumers, forecast");
    check("/api/v1/scale?stream=orders&target=0", 400, "expected a number above 0");
    check("/api/v1/scale?stream=nobody", 404, "the stream \"nobody\" is not monitored");
    check("/api/v1/scale?stream=found:2", 404, "name it in streams");
    check("/api/v1/scale?stream=orders&group=nobody", 404, "the group \"nobody\" is not monitored");
    check("/api/v1/scale?stream=orders&redis_target=nobody", 404, "no such redis_target");
    eventually("it is found", || {
        let reply = streamlag.get("/api/v1/scale?stream=found:1");
        (reply.status == 200 && reply.json()["value"] == 2).then_some(())
    });
}

#[test]
fn a_scaler_that_is_wrong_is_named_with_its_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.yml");
    let check = |scalers: &str, expected: &[&str]| {
        std::fs::write(&path, format!("groups: [g, 'h-*']\nstreams.exclude: [hidden]\nscalers:\n{scalers}")).unwrap();
        let output = command(&["--config.check", "--config.file", path.to_str().unwrap()], &[]).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{scalers}: {said}");
        for expected in expected {
            assert!(said.contains(expected), "{scalers}: {said}");
        }
        assert!(said.trim().lines().count() == 1 && said.len() < 1000, "{said}");
    };
    check("  - {name: a}\n", &["scaler a in", "line 4", "expected one of stream, streams, logical_stream, found none"]);
    check("  - {name: a, stream: s, streams: 's:*'}\n", &["scaler a in", "line 4", "found stream and streams"]);
    check(
        "  - name: a\n    stream: s\n    signal: [lag, work]\n",
        &["signal of scaler a in", "line 6", "one value", "lag,work"],
    );
    check(
        "  - name: a\n    stream: s\n    signal: lag\n    signal: work\n",
        &["signal of scaler a in", "line 7", "twice"],
    );
    check(
        "  - name: a\n    stream: 's:*'\n",
        &["\"s:*\" for stream of scaler a", "line 5", "not a pattern; streams takes"],
    );
    check(
        "  - name: a\n    stream: s\n    group: 'g*'\n",
        &["\"g*\" for group of scaler a", "line 6", "not a pattern"],
    );
    check(
        "  - name: a\n    stream: s\n    group: other\n",
        &["\"other\" for group of scaler a", "line 6", "add it to groups"],
    );
    check("  - {name: a, streams: s}\n", &["\"s\" for streams of scaler a", "expected a pattern"]);
    check("  - {name: a, stream: hidden}\n", &["\"hidden\" for stream of scaler a", "streams.exclude"]);
    check("  - {name: a, stream: s, signal: depth}\n", &["\"depth\" for signal of scaler a", "one of lag, work"]);
    check("  - {name: a, stream: s, target: -5}\n", &["\"-5\" for target of scaler a", "a number above 0"]);
    check("  - {name: a, stream: s, target: .inf}\n", &["line 4", "expected YAML"]);
    check("  - {name: a, stream: s, signal: consumers, target: 5}\n", &["target of scaler a", "expected 1"]);
    check("  - {name: a, stream: s, look_ahead: 5m}\n", &["look_ahead of scaler a", "only with the signal forecast"]);
    check("  - {name: a, stream: s, signal: forecast, look_ahead: 2days}\n", &["look_ahead of scaler a", "1s and 1d,"]);
    check("  - {name: a, stream: s, redis_target: x}\n", &["\"x\" for redis_target of scaler a", "name of a target"]);
    check("  - {name: a, logical_stream: x}\n", &["\"x\" for logical_stream of scaler a"]);
    check("  - {name: a, strem: s}\n", &["unknown key \"strem\" of scaler a", "did you mean stream"]);
    check("  - {name: a, stream: }\n", &["stream of scaler a", "one value"]);
    check("  - {name: a, stream: {x: 1}}\n", &["stream of scaler a", "one value"]);
    check("  - {name: a, stream: s}\n  - {name: a, stream: t}\n", &["scaler a in", "line 5", "another scaler"]);
    check("  - {stream: s}\n", &["a scaler in", "line 4", "expected a name"]);
    check("  - {name: 'a b', stream: s}\n", &["\"a b\" for name of a scaler", "line 4"]);
    check("  - {name: a, stream: s, group: 'redis://:hunter2@h'}\n", &["value \"(not shown)\" for group of scaler a"]);
    check("  - {name: a, 'redis://:hunter2@h': s}\n", &["unknown key \"(not shown)\" of scaler a"]);
    check("  - s\n", &["line 3", "scalers: expected a list of mappings"]);
    check("  name: a\n", &["line 3", "scalers: expected a list of mappings"]);
    // Nothing but patterns of groups: one has to be named.
    std::fs::write(&path, "groups: ['h-*']\nscalers:\n  - {name: a, stream: s}\n").unwrap();
    let output = command(&["--config.check", "--config.file", path.to_str().unwrap()], &[]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        output.status.code() == Some(2) && said.contains("scaler a in") && said.contains("expected a group"),
        "{said}"
    );
    std::fs::write(&path, "groups: ['h-*']\nscalers:\n  - {name: a, stream: s, group: h-1}\n").unwrap();
    let output = command(&["--config.check", "--config.file", path.to_str().unwrap()], &[]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}

#[test]
fn a_reload_changes_scalers() {
    let redis = Redis::start();
    redis.add("orders", 3);
    redis.add("more", 4);
    let (streamlag, dir) = start(&redis, "scalers: [{name: a, stream: orders}]\n", &[]);
    assert_eq!(value(&streamlag, "/api/v1/scale/a")["value"], 3);
    assert_eq!(streamlag.get("/api/v1/scale/b").status, 404);
    std::fs::write(dir.path().join("streamlag.yml"), "scalers: [{name: b, stream: more}]\n").unwrap();
    streamlag.signal("-HUP");
    eventually("the new scaler", || {
        let reply = streamlag.get("/api/v1/scale/b");
        // Until its stream is sampled nobody knows.
        assert!([200, 404, 503].contains(&reply.status), "{reply:?}");
        (reply.status == 200).then(|| assert_eq!(reply.json()["value"], 4))
    });
    assert_eq!(streamlag.get("/api/v1/scale/a").status, 404);
    assert!(streamlag.log_lines("scaler a").len() == 1, "{:?}", streamlag.log());
}

#[test]
fn each_target_has_its_scalers() {
    let (one, two) = (Redis::start(), Redis::start());
    one.add("orders", 1);
    two.add("orders", 2);
    let file = format!(
        "targets: [{{name: one, redis.url: '{}'}}, {{name: two, redis.url: '{}'}}]\n\
         scalers: [{{name: a, stream: orders}}, {{name: b, stream: orders, redis_target: two}}]\n",
        one.url(),
        two.url()
    );
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("streamlag.yml");
    std::fs::write(&path, file).unwrap();
    let streamlag = streamlag(&["--groups", GROUP, "--config.file", path.to_str().unwrap()]).ready();
    assert_eq!(value(&streamlag, "/api/v1/scale/a")["value"], 1);
    assert_eq!(value(&streamlag, "/api/v1/scale/b")["value"], 2);
    assert_eq!(value(&streamlag, "/api/v1/scale?stream=orders&redis_target=two")["value"], 2);
}

#[test]
fn a_token_may_have_a_rate_of_its_own() {
    let redis = Redis::start();
    redis.add("orders", 1);
    let dir = tempfile::tempdir().unwrap();
    let tokens = dir.path().join("tokens");
    let made = command(&["token", "keda", "--rate", "1/s"], &[]).output().unwrap();
    let made = String::from_utf8(made.stdout).unwrap();
    let secret = made.split_whitespace().find(|word| word.starts_with("slt_")).unwrap().to_owned();
    let line = made.lines().find(|line| line.contains("sha256:")).unwrap().trim().to_owned();
    assert!(line.ends_with(" rate:1/s"), "{line}");
    std::fs::write(&tokens, format!("{line}\n")).unwrap();
    let url = redis.url();
    let arguments = ["--redis.url", &url, "--streams", "orders", "--groups", GROUP];
    let file = ["--api.tokens-file", tokens.to_str().unwrap(), "--api.rate-limit", "0"];
    let streamlag =
        streamlag_with_env(&[&arguments[..], &file[..]].concat(), &[("STREAMLAG_API_TOKEN", TOKEN)]).ready();
    let ask = |secret: &str| {
        let token = format!("Bearer {secret}");
        streamlag.request("GET", "/api/v1/scale?stream=orders", &[("Authorization", &token)])
    };
    // Two at once, and then one in a second: of ten in a moment some are too many.
    let replies: Vec<Reply> = (0..10).map(|_| ask(&secret)).collect();
    assert!(replies[0].status == 200 && replies[1].status == 200, "{replies:?}");
    let refused = replies.iter().find(|reply| reply.status == 429).expect("too many");
    assert!(refused.header("retry-after").is_some() && refused.header("ratelimit-policy") == Some("\"token\";q=2;w=2"));
    // The other has none.
    assert!((0..10).all(|_| ask(TOKEN).status == 200));
    for wrong in ["5", "0/s", "x/s", "-1/s"] {
        let output = command(&["token", "keda", &format!("--rate={wrong}")], &[]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            output.status.code() == Some(2) && said.contains("--rate") && said.contains("expected a rate"),
            "{said}"
        );
    }
}

/// The query of deploy/keda/prometheus.yaml.
fn query_for_keda() -> String {
    let file = std::fs::read_to_string(repository("deploy/keda/prometheus.yaml")).unwrap();
    let (_, rest) = file.split_once("query: >-\n").unwrap();
    let (query, _) = rest.split_once("threshold:").unwrap();
    query.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn the_query_for_keda_has_a_number_only_while_streamlag_has_one() {
    let redis = Redis::start();
    redis.add("orders", 5);
    let url = redis.url();
    let arguments = ["--redis.url", &url, "--streams", "orders", "--groups", GROUP, "--redis.timeout", "500ms"];
    let streamlag = streamlag(&arguments).ready();
    let address = [streamlag.address.to_string()];
    let all: Vec<Prometheus> = prometheuses().iter().map(|binary| Prometheus::start(binary, &address)).collect();
    let query = query_for_keda();
    let has = |prometheus: &Prometheus, expected: Option<&str>| {
        let data = prometheus.api("query", &[("query", &query)]).unwrap();
        let values: Vec<&str> =
            data["result"].as_array().unwrap().iter().map(|series| series["value"][1].as_str().unwrap()).collect();
        values == expected.as_slice()
    };
    let becomes = |expected: Option<&str>, what: &str| {
        eventually(what, || all.iter().all(|prometheus| has(prometheus, expected)).then_some(()));
    };
    becomes(Some("5"), "every entry, as there is no group");
    redis.run(&format!("XGROUP CREATE orders {GROUP} 0"));
    redis.read("orders", GROUP, "c", 2);
    redis.add("orders", 1);
    becomes(Some("6"), "four entries to deliver and two pending");
    redis.run(&format!("XREADGROUP GROUP {GROUP} c NOACK STREAMS orders >"));
    redis.run(&format!("XGROUP DELCONSUMER orders {GROUP} c"));
    becomes(Some("0"), "nothing to do");
    // KEDA's default would take this for 0.
    redis.signal("-STOP");
    becomes(None, "no series");
    redis.signal("-CONT");
    becomes(Some("0"), "a number again");
}

#[test]
fn while_a_master_is_down_its_streams_have_no_number() {
    // The others go on without it.
    let server = std::path::Path::new("redis-server");
    let mut cluster = Cluster::start(server, &GOES_ON);
    let lags = cluster.fill();
    cluster.grant_scan();
    let all: u64 = lags.values().sum();
    let (lost, _) = lags.iter().find(|(_, lag)| **lag > 0).unwrap();
    let node = cluster.node_of(lost);
    let (kept, _) = lags.iter().find(|(stream, lag)| **lag > 0 && cluster.node_of(stream) != node).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("streamlag.yml");
    let scaler =
        |name: &str, what: String| format!("  - {{name: {name}, signal: lag, group: {CLUSTER_GROUP}, {what}}}\n");
    let scalers = [
        scaler("all", "streams: 'events:*'".to_owned()),
        scaler("lost", format!("stream: '{lost}'")),
        scaler("kept", format!("stream: '{kept}'")),
        scaler("none", "stream: 'events:none'".to_owned()),
    ];
    std::fs::write(&path, format!("scalers:\n{}", scalers.concat())).unwrap();
    let url = cluster.url();
    let others = cluster.others();
    let streamlag = streamlag(&[
        "--redis.mode",
        "cluster",
        "--redis.url",
        &url,
        "--redis.nodes",
        &others,
        "--streams",
        "events:*",
        "--groups",
        CLUSTER_GROUP,
        "--discovery.interval",
        "1s",
        "--config.file",
        path.to_str().unwrap(),
    ]);
    // Whatever happens: a number is the truth, or there is none.
    let ask = |name: &str, truth: u64| {
        let reply = streamlag.get(&format!("/api/v1/scale/{name}"));
        match reply.status {
            200 => {
                let json = reply.json();
                assert!(json["value"].as_u64().unwrap() >= truth, "{name}: {json}, but {truth}");
                true
            }
            status => {
                assert_eq!(status, 503, "{name}: {}", reply.text());
                false
            }
        }
    };
    let all_answer = || {
        let answers = [ask("all", all), ask("lost", lags[lost]), ask("kept", lags[kept])];
        (answers == [true; 3]).then_some(())
    };
    eventually("all have a number", all_answer);
    eventually("a stream that does not exist is 0", || {
        let reply = streamlag.get("/api/v1/scale/none");
        (reply.status == 200).then(|| assert_eq!(reply.json()["value"], 0))
    });
    cluster.nodes[node].stop();
    eventually("only the other's streams have one", || {
        let answers = [ask("all", all), ask("lost", lags[lost]), ask("kept", lags[kept])];
        (answers == [false, false, true]).then_some(())
    });
    // Its replica takes over.
    eventually("all have a number again", all_answer);
}
