//! Several Redis servers in one process: each is polled, shown and in trouble by itself.

use std::collections::BTreeSet;
use std::path::Path;

use crate::common::prometheus::{Prometheus, prometheuses};
use crate::common::{
    Redis, Reply, Streamlag, TOKEN, command, eventually, eventually_right, free_port, streamlag, streamlag_with_env,
    value_of,
};
use serde_json::{Value, json};

/// As many databases as a redis-server has.
const DATABASES: usize = 16;

/// What the targets of the big test are polled at: some two hundred polls a second, on whatever machine this is.
const INTERVAL: &str = "500ms";

/// Ten groups of seconds are not waited for: whoever is frozen fails every two.
const TIMEOUT: &str = "2s";

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
}

/// A streamlag with this file.
fn with_file(text: &str, more: &[&str]) -> (Streamlag, tempfile::NamedTempFile) {
    let file = tempfile::NamedTempFile::new().unwrap();
    write(file.path(), text);
    let path = file.path().to_str().unwrap().to_owned();
    (streamlag(&[&["--config.file", &path], more].concat()), file)
}

fn reload(streamlag: &Streamlag) {
    let reloads = || streamlag.log_lines("configuration reloaded").len();
    let before = reloads();
    streamlag.signal("-HUP");
    eventually("a reload", || {
        assert_eq!(streamlag.log_lines("reload failed"), Vec::<String>::new());
        (reloads() > before).then_some(())
    });
}

fn probe(streamlag: &Streamlag, target: &str) -> String {
    let reply = streamlag.request("GET", &format!("/probe?target={target}"), &[]);
    assert_eq!(reply.status, 200, "{target}: {}", reply.text());
    reply.text()
}

fn polls(page: &str, outcome: &str) -> f64 {
    value_of(page, &format!("streamlag_polls_total{{outcome=\"{outcome}\"}}")).unwrap()
}

fn problem(reply: &Reply) -> String {
    assert_eq!(reply.header("content-type"), Some("application/problem+json"), "{reply:?}");
    reply.json()["detail"].as_str().unwrap().to_owned()
}

/// Names of the metrics on a page.
fn names(page: &str) -> BTreeSet<&str> {
    page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect()
}

/// Targets do not poll in the same moments, as some may be databases of one server.
#[test]
fn several_targets_are_polled_one_after_the_other() {
    let redis = Redis::start();
    let url = redis.url_of_everybody();
    let targets: String = ["a", "b", "c", "d"].map(|name| format!("- {{name: {name}, redis.url: '{url}'}}\n")).concat();
    let (streamlag, _file) = with_file(&format!("targets:\n{targets}"), &["--poll.interval", "2s"]);
    let streamlag = streamlag.ready();
    eventually_right(|| {
        let targets = streamlag.get("/api/v1/targets").json();
        let ages = targets["targets"].as_array().unwrap().iter().map(|target| target["age_seconds"].as_f64().unwrap());
        let ages: Vec<f64> = ages.collect();
        // Four in a second, some quarter of a second apart, and the first one again a second later.
        let mut turns = ages.clone();
        turns.sort_by(f64::total_cmp);
        let close = turns.windows(2).filter(|pair| pair[1] - pair[0] < 0.1).count();
        if close == 0 { Ok(()) } else { Err(format!("{ages:?}")) }
    });
}

/// One hundred targets: three of them are dead, frozen and locked, and the others do not notice.
#[test]
fn a_hundred_targets_and_the_trouble_of_one_is_not_the_trouble_of_others() {
    let servers: Vec<Redis> = (0..4).map(|_| Redis::start()).collect();
    let frozen = Redis::start();
    let healthy: Vec<String> = (0..97).map(|n| format!("t{n}")).collect();
    let mut file = format!("poll.interval: {INTERVAL}\nredis.timeout: {TIMEOUT}\ngroups: [g]\ntargets:\n");
    for (n, name) in healthy.iter().enumerate() {
        let (server, db) = (&servers[n % servers.len()], n / servers.len() % DATABASES);
        let mut connection = server.connection();
        let mut pipe = redis::pipe();
        pipe.cmd("SELECT").arg(db).ignore();
        pipe.cmd("XGROUP").arg(&["CREATE", &format!("s{n}"), "g", "0", "MKSTREAM"]).ignore();
        for _ in 0..=n {
            pipe.cmd("XADD").arg(&[&format!("s{n}"), "*", "a", "b"]).ignore();
        }
        pipe.query::<()>(&mut connection).unwrap();
        file += &format!("- name: {name}\n  streams: [s{n}]\n  redis.url: redis://127.0.0.1:{}/{db}\n", server.port);
    }
    let dead = format!("redis://127.0.0.1:{}/0", free_port());
    let locked = format!("redis://streamlag:hunter2@127.0.0.1:{}/0", servers[0].port);
    for (name, url) in [("dead", &dead), ("frozen", &frozen.url_of_everybody()), ("locked", &locked)] {
        file += &format!("- {{name: {name}, redis.url: '{url}'}}\n");
    }
    frozen.signal("-STOP");
    let (streamlag, _file) = with_file(&file, &["--poll.interval", INTERVAL]);
    // Ready once each has been polled, the frozen one too.
    let reply = streamlag.request("GET", "/-/ready", &[]);
    assert!(reply.status == 503 || polls(&probe(&streamlag, "frozen"), "failure") >= 1.0, "{reply:?}");
    let streamlag = streamlag.ready();
    let failed = || polls(&probe(&streamlag, "frozen"), "failure");
    assert!(failed() >= 1.0);
    // While the frozen one fails twice more, which takes eight intervals, the others are polled at their pace.
    let before: Vec<f64> = healthy.iter().map(|name| polls(&probe(&streamlag, name), "success")).collect();
    let until = failed() + 2.0;
    eventually("the frozen one fails", || (failed() >= until).then_some(()));
    for ((n, name), before) in healthy.iter().enumerate().zip(before) {
        let page = probe(&streamlag, name);
        assert!(polls(&page, "success") >= before + 3.0, "{name} was held up");
        assert_eq!(polls(&page, "failure") + polls(&page, "partial"), 0.0, "{name}");
        let lag = format!("event_consumer_lag{{stream=\"s{n}\",consumer_group=\"g\"}}");
        assert_eq!(value_of(&page, &lag), Some((n + 1) as f64), "{name}");
        assert_eq!(page.matches("event_stream_up{").count(), 1, "{name} shows what is not its own");
    }
    for (name, reason) in [("dead", "connect"), ("frozen", "timeout"), ("locked", "auth")] {
        let page = probe(&streamlag, name);
        assert_eq!(value_of(&page, "streamlag_redis_up"), Some(0.0), "{name}");
        let failures = value_of(&page, &format!("streamlag_poll_failures_total{{reason=\"{reason}\"}}"));
        assert!(failures >= Some(1.0), "{name}: {page}");
    }
    let listed = streamlag.get("/api/v1/targets").json();
    let listed = listed["targets"].as_array().unwrap();
    let up = listed.iter().filter(|target| target["up"] == true).count();
    assert_eq!((listed.len(), up), (100, 97));
    frozen.signal("-CONT");
    eventually("the frozen one is polled", || {
        (value_of(&probe(&streamlag, "frozen"), "streamlag_redis_up") == Some(1.0)).then_some(())
    });
    for line in streamlag.log() {
        assert!(!line.contains("hunter2"), "{line}");
    }
    let said = streamlag.log_lines("poll failed");
    for name in ["dead", "frozen", "locked"] {
        assert_eq!(said.iter().filter(|line| line.contains(&format!("redis_target={name}"))).count(), 1, "{said:?}");
    }
    assert_eq!(said.len(), 3, "{said:?}");
}

/// Two servers, each with a stream of the same name.
fn two() -> (Redis, Redis, String) {
    let (one, two) = (Redis::start(), Redis::start());
    for (redis, entries) in [(&one, 1), (&two, 2)] {
        redis.run("XGROUP CREATE orders mail 0 MKSTREAM");
        redis.add("orders", entries);
    }
    let file = format!(
        "streams: [orders]\ngroups: [mail]\ntargets:\n\
         - {{name: one, redis.url: '{}'}}\n- {{name: two, redis.url: '{}', lag.thresholds: ['ord*=1/1']}}\n",
        one.url(),
        two.url()
    );
    (one, two, file)
}

const LAG: &str = "event_consumer_lag{stream=\"orders\",consumer_group=\"mail\"}";

#[test]
fn each_target_has_its_page_and_the_first_is_the_one_of_metrics() {
    let (one, two, file) = two();
    let (streamlag, _file) = with_file(&file, &[]);
    let streamlag = streamlag.ready();
    streamlag.next_sample();
    let (whole, first, second) = (streamlag.metrics(), probe(&streamlag, "one"), probe(&streamlag, "two"));
    assert_eq!([&whole, &first, &second].map(|page| value_of(page, LAG)), [Some(1.0), Some(1.0), Some(2.0)]);
    // What is of the process is on the page of the whole, and on no other.
    let alone: BTreeSet<&str> = names(&second).difference(&names(&whole)).copied().collect();
    // It alone has thresholds by pattern.
    assert_eq!(alone, BTreeSet::from(["event_stream_lag_threshold"]));
    assert!(first.contains("\nstreamlag_build_info{") && second.contains("\nstreamlag_build_info{"));
    for of_process in ["process_cpu_seconds", "streamlag_http_requests", "streamlag_panics"] {
        let has = |page: &str| page.contains(&format!("\n{of_process}"));
        assert!(has(&whole) && !has(&first) && !has(&second), "{of_process}");
    }
    let of_polls = "streamlag_poll_duration_seconds_count ";
    assert!(first.contains(of_polls) && second.contains(of_polls));
    // As pages are everywhere: in four forms, and for HEAD.
    let forms = [("Accept", "application/openmetrics-text"), ("Accept-Encoding", "gzip")];
    for target in ["one", "two"] {
        let reply = streamlag.request("HEAD", &format!("/probe?target={target}"), &forms);
        assert_eq!((reply.status, reply.body.len(), reply.header("content-encoding")), (200, 0, Some("gzip")));
        assert!(reply.header("content-type").unwrap().starts_with("application/openmetrics-text"));
        // And each is of the newest poll.
        let polled = || polls(&probe(&streamlag, target), "success");
        let before = polled();
        eventually("polls go on", || (polled() > before).then_some(()));
    }
    drop((one, two));
}

/// A page of one target without a file has the same metrics in the same order as `/metrics` of before there were several.
#[test]
fn one_target_is_called_default_and_is_on_both_pages() {
    let redis = Redis::start();
    let streamlag = streamlag(&["--redis.url", &redis.url()]).ready();
    streamlag.next_sample();
    let whole = streamlag.metrics();
    let order: Vec<&str> = whole.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    let at = |name: &str| order.iter().position(|it| *it == name).unwrap_or_else(|| panic!("no {name}: {order:?}"));
    let places = [
        "streamlag_lag_threshold",
        "streamlag_build_info",
        "process_start_time_seconds",
        "streamlag_poll_duration_seconds",
        "streamlag_http_requests_total",
        "streamlag_config_last_reload_success_timestamp_seconds",
    ];
    assert!(places.map(at).is_sorted(), "{order:?}");
    let alone = probe(&streamlag, "default");
    assert!(alone.contains("\nstreamlag_redis_up 1\n") && !alone.contains("process_") && !alone.contains("_http_"));
    let of_process: BTreeSet<&str> = names(&whole).difference(&names(&alone)).copied().collect();
    let expected: BTreeSet<String> =
        streamlag::sys::metric_catalog::OF_PROCESS.iter().map(|name| name.series()).collect();
    let configured = ["streamlag_notifications_total", "streamlag_remediation_acts_total"];
    let expected: BTreeSet<String> = expected.into_iter().filter(|name| !configured.contains(&name.as_str())).collect();
    assert_eq!(of_process, expected.iter().map(String::as_str).collect());
}

#[test]
fn only_declared_targets_are_to_be_had() {
    let (_one, _two, file) = two();
    // Somebody who would be found out if he were asked.
    let elsewhere = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    elsewhere.set_nonblocking(true).unwrap();
    let port = elsewhere.local_addr().unwrap().port();
    let (streamlag, _file) = with_file(&file, &[]);
    let streamlag = streamlag.ready();
    for (query, status, detail) in [
        ("", 400, "name a target, as in /probe?target=NAME"),
        ("?target=", 400, "name a target"),
        ("?other=one", 400, "name a target"),
        ("?target=three", 404, "the target three is not declared"),
        ("?target=ONE", 404, "the target ONE is not declared"),
        (&format!("?target=redis://:hunter2@127.0.0.1:{port}/0"), 404, "there is no such target"),
        (&format!("?target=127.0.0.1:{port}"), 404, "there is no such target"),
    ] {
        let reply = streamlag.request("GET", &format!("/probe{query}"), &[]);
        assert_eq!(reply.status, status, "{query}");
        let said = problem(&reply);
        assert!(said.starts_with(detail) && !said.contains("hunter2"), "{query}: {said}");
    }
    for path in ["consumer-lag", "streams", "health", "groups", "consumers"] {
        let get = |query: &str| streamlag.get(&format!("/api/v1/events/{path}{query}"));
        assert_eq!([get(""), get("?target=one"), get("?group=mail&target=two")].map(|reply| reply.status), [200; 3]);
        let reply = get("?target=three");
        assert_eq!((reply.status, problem(&reply).as_str()), (404, "the target three is not declared"));
        assert_eq!(get(&format!("?target=redis://127.0.0.1:{port}/0")).status, 404);
    }
    let lag = |target: &str| streamlag.json(&format!("consumer-lag?target={target}"))["streams"]["orders"].clone();
    assert_eq!([lag("one"), lag("two")].map(|stream| stream["lag"].clone()), [1, 2]);
    // The second has thresholds of its own, by pattern.
    assert_eq!([lag("one"), lag("two")].map(|stream| stream["status"].clone()), ["healthy", "unhealthy"]);
    let rows = streamlag.get("/api/v1/targets").json();
    let told = |key: &str| [0, 1].map(|place: usize| rows["targets"][place][key].clone());
    assert_eq!(
        (told("status"), told("total_lag")),
        (["healthy", "unhealthy"].map(Value::from), [1, 2].map(Value::from))
    );
    assert!(elsewhere.accept().is_err(), "somebody came whom nobody sent");
}

#[test]
fn what_is_told_of_targets_is_told_to_those_who_may_know() {
    let (one, mut two, file) = two();
    let (streamlag, _file) = with_file(&file, &[]);
    let streamlag = streamlag.ready();
    two.stop();
    let row = eventually("the second is down", || {
        let listed = streamlag.get("/api/v1/targets").json();
        listed["targets"].as_array().unwrap().iter().find(|row| row["up"] == false).cloned()
    });
    assert_eq!((&row["name"], &row["mode"]), (&json!("two"), &json!("standalone")));
    assert_eq!(row["redis"], format!("redis://127.0.0.1:{}/0", two.port));
    assert_eq!((&row["streams"], &row["poll_interval_seconds"]), (&json!(1), &json!(0.1)));
    assert_eq!(row["status"], "unhealthy");
    assert!(row["error"].is_string() && row["age_seconds"].is_number() && row["sampled_at"].is_string(), "{row}");
    let rows = streamlag.get("/api/v1/targets").json();
    let first = &rows["targets"][0];
    assert_eq!((&first["name"], &first["up"], &first["unknown_streams"]), (&json!("one"), &json!(true), &json!(0)));
    assert_eq!(
        (&first["status"], &first["max_lag"], &first["states"]["ok"]),
        (&json!("healthy"), &json!(1), &json!(1))
    );
    assert!(first.get("error").is_none() && !rows.to_string().contains("pw"), "{rows}");
    assert_eq!(streamlag.request("GET", "/api/v1/targets", &[]).status, 401);
    drop(one);

    // The document of Prometheus: where the client found the server, or where it listens.
    let sd = |headers: &[(&str, &str)]| {
        let head: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        streamlag.raw(format!("GET /api/v1/sd HTTP/1.1\r\n{head}Connection: close\r\n\r\n").as_bytes())
    };
    let reply = sd(&[("Host", "exporter.example.org:8000")]);
    assert_eq!((reply.status, reply.header("content-type")), (200, Some("application/json")));
    let group = |name: &str, address: &str| {
        let labels = json!({"__metrics_path__": "/probe", "__param_target": name, "redis_target": name});
        json!({"targets": [address], "labels": labels})
    };
    let expected = |address: &str| json!([group("one", address), group("two", address)]);
    assert_eq!(reply.json(), expected("exporter.example.org:8000"));
    assert_eq!(sd(&[("Host", "[::1]:80")]).json(), expected("[::1]:80"));
    let here = streamlag.address.to_string();
    for bad in ["a b", "x/y", "u:p@h", "h:x"] {
        let reply = sd(&[("Host", bad)]);
        assert!(reply.status == 400 || reply.json() == expected(&here), "{bad}: {reply:?}");
    }
}

#[test]
fn passwords_guard_the_pages_of_targets_as_they_guard_metrics() {
    let (_one, _two, file) = two();
    let dir = tempfile::tempdir().unwrap();
    let web = dir.path().join("web.yml");
    write(&web, &format!("basic_auth_users:\n  u: {}\n", bcrypt::hash("p", 4).unwrap()));
    let (streamlag, _file) = with_file(&file, &["--web.config.file", web.to_str().unwrap()]);
    let streamlag = streamlag.ready();
    for path in ["/metrics", "/probe?target=one", "/probe?target=three", "/probe", "/api/v1/sd"] {
        let reply = streamlag.request("GET", path, &[]);
        assert_eq!((reply.status, reply.header("www-authenticate").is_some()), (401, true), "{path}");
        // A token of the API is no password.
        assert_eq!(streamlag.get(path).status, 401, "{path}");
        let known = streamlag.request("GET", path, &[("Authorization", "Basic dTpw")]).status;
        assert!([200, 400, 404].contains(&known), "{path} {known}");
    }
}

#[test]
fn a_reload_adds_changes_and_ends_targets_and_the_others_keep_what_was_seen() {
    let (one, two, text) = two();
    let (streamlag, file) = with_file(&text, &[]);
    let streamlag = streamlag.ready();
    streamlag.next_sample();
    // A loss, which only a poller that remembers the sample before can know.
    let lost = "event_consumer_group_lost_entries_total{stream=\"orders\",consumer_group=\"mail\"}";
    one.run("XTRIM orders MAXLEN 0");
    eventually("the loss is seen", || (value_of(&probe(&streamlag, "one"), lost) == Some(1.0)).then_some(()));
    let connections = |redis: &Redis| {
        let list: String = redis::cmd("CLIENT").arg("LIST").query(&mut redis.connection()).unwrap();
        list.lines().filter(|line| line.contains("user=streamlag ")).count()
    };
    assert_eq!((connections(&one), connections(&two)), (1, 1));

    // One more, the order reversed: another is the first now.
    let third = Redis::start();
    third.run("XGROUP CREATE orders mail 0 MKSTREAM");
    third.add("orders", 3);
    let target = |name: &str, redis: &Redis| format!("- {{name: {name}, redis.url: '{}'}}\n", redis.url());
    let head = "streams: [orders]\ngroups: [mail]\ntargets:\n";
    write(file.path(), &format!("{head}{}{}{}", target("three", &third), target("one", &one), target("two", &two)));
    reload(&streamlag);
    eventually("the new one is polled, and is the first", || {
        let page = streamlag.metrics();
        (value_of(&page, LAG) == Some(3.0) && page.contains("\nstreamlag_http_requests_total{")).then_some(())
    });
    assert_eq!(streamlag.request("GET", "/-/ready", &[]).status, 200);
    eventually("the page of the one that was the first is of the target alone", || {
        (!probe(&streamlag, "one").contains("streamlag_http_requests_total{")).then_some(())
    });
    assert_eq!(value_of(&probe(&streamlag, "one"), lost), Some(1.0));
    assert_eq!((connections(&one), connections(&two)), (1, 1), "a connection was dropped");

    // One goes, one leads elsewhere.
    write(file.path(), &format!("{head}{}{}", target("one", &one), target("three", &two)));
    reload(&streamlag);
    assert_eq!(streamlag.request("GET", "/probe?target=two", &[]).status, 404);
    assert_eq!(streamlag.get("/api/v1/events/streams?target=two").status, 404);
    eventually("the third is the second", || (value_of(&probe(&streamlag, "three"), LAG) == Some(2.0)).then_some(()));
    eventually("nobody asks the third server", || (connections(&third) == 0).then_some(()));
    assert_eq!(value_of(&probe(&streamlag, "one"), lost), Some(1.0));
    assert_eq!(streamlag.get("/api/v1/targets").json()["targets"].as_array().unwrap().len(), 2);
    let page = probe(&streamlag, "one");
    let polled = polls(&page, "success");
    eventually("polls go on", || (polls(&probe(&streamlag, "one"), "success") > polled).then_some(()));

    // A file that is wrong changes nothing.
    write(file.path(), &format!("{head}{}{}", target("one", &one), target("one", &two)));
    streamlag.signal("-HUP");
    let said = eventually("it says why", || streamlag.log_lines("reload failed").pop());
    streamlag.log_clear();
    assert!(said.contains("there are two targets of the name one"), "{said}");
    assert_eq!(value_of(&probe(&streamlag, "three"), LAG), Some(2.0));

    // Without any, the one of the other settings is called default.
    write(file.path(), &format!("streams: [orders]\ngroups: [mail]\nredis.url: '{}'\n", third.url()));
    reload(&streamlag);
    eventually("the default one is polled", || (value_of(&streamlag.metrics(), LAG) == Some(3.0)).then_some(()));
    assert_eq!(streamlag.request("GET", "/probe?target=default", &[]).status, 200);
    eventually("nobody asks the others", || (connections(&one) + connections(&two) == 0).then_some(()));
}

#[test]
fn no_secret_of_a_target_is_shown() {
    let redis = Redis::start();
    redis.run("ACL SETUSER one on >hunter2-one ~* +@all");
    let dir = tempfile::tempdir().unwrap();
    let password = dir.path().join("password");
    write(&password, "hunter2-file");
    let file = dir.path().join("config.yml");
    let port = redis.port;
    let text = format!(
        "redis.password-file: {}\ntargets:\n- {{name: one, redis.url: 'redis://one:hunter2-one@127.0.0.1:{port}/0'}}\n\
         - {{name: two, redis.url: 'redis://one@127.0.0.1:{port}/0'}}\n\
         - {{name: three, redis.url: 'redis://one:hunter2-other@127.0.0.1:{port}/0'}}\n",
        password.display()
    );
    write(&file, &text);
    for format in ["logfmt", "json"] {
        let arguments = ["--config.file", file.to_str().unwrap(), "--log.level", "trace", "--log.format", format];
        let streamlag = streamlag_with_env(&arguments, &[("STREAMLAG_API_TOKEN", TOKEN)]).ready();
        let mut said = streamlag.log();
        // Each line of a target's poller says whose it is.
        let of_two = if format == "json" { "\"redis_target\":\"two\"" } else { "redis_target=two" };
        assert!(streamlag.log_lines("poll failed").iter().any(|line| line.contains(of_two)), "{said:?}");
        let paths = ["/api/v1/targets", "/api/v1/sd", "/metrics", "/probe?target=two", "/", "/probe?target=four"];
        let of_api = ["one", "two", "three"].map(|target| format!("/api/v1/events/health?target={target}"));
        for path in paths.into_iter().chain(of_api.iter().map(String::as_str)) {
            let reply = streamlag.get(path);
            said.push(format!("{:?} {}", reply.headers, reply.text()));
        }
        assert!(said.iter().all(|said| !said.contains("hunter2")), "{said:?}");
    }
    // Nor where something is wrong with it.
    for broken in [
        text.replace("/0'", "/x'"),
        text.replace("name: two", "name: 'redis://hunter2'"),
        text.replace("name: two,", "name: two, redis.user: one,"),
        text.replace("three, redis.url", "three, redis://hunter2"),
    ] {
        write(&file, &broken);
        let output = command(&["--config.check", "--config.file", file.to_str().unwrap()], &[]).output().unwrap();
        let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert!(output.status.code() == Some(2) && !said.contains("hunter2"), "{said}");
    }
}

/// A piece of docs/fleet.md: the code between two markers, with the exporter's address as it is in this test.
fn documented(marker: &str, address: &str) -> String {
    let text = std::fs::read_to_string(crate::common::prometheus::repository("docs/fleet.md")).unwrap();
    let (_, rest) = text.split_once(&format!("<!-- {marker}: begin -->\n```yaml\n")).expect(marker);
    rest.split_once("```").unwrap().0.replace("streamlag:8000", address)
}

/// The scrape jobs of docs/fleet.md, and what comes of them: each target is an instance of its own, and nothing but the
/// version is there twice.
#[test]
fn prometheus_finds_the_targets_and_keeps_them_apart() {
    let (_one, _two, file) = two();
    let (streamlag, _file) = with_file(&file, &[]);
    let streamlag = streamlag.ready();
    let address = streamlag.address.to_string();
    let configs = ["found-by-prometheus", "named-for-prometheus"].map(|marker| {
        // The document's targets have other names.
        let text = documented(marker, &address).replace("orders-eu", "one").replace("sessions", "two");
        serde_saphyr::from_str::<Value>(&text).unwrap()["scrape_configs"].take()
    });
    let binaries = prometheuses();
    let all = configs.iter().flat_map(|jobs| binaries.iter().map(move |binary| (binary, jobs)));
    // All are started before the first is asked, so that they scrape side by side.
    let all: Vec<Prometheus> = all.map(|(binary, jobs)| Prometheus::scraping(binary, &[], jobs.clone())).collect();
    all.iter().for_each(|prometheus| scraped(&streamlag, prometheus));
}

fn scraped(streamlag: &Streamlag, prometheus: &Prometheus) {
    let query = |query: &str| prometheus.api("query", &[("query", query)]).unwrap()["result"].clone();
    let lags = eventually("both are scraped", || {
        let found = query("event_consumer_lag").as_array().unwrap().clone();
        (found.len() == 2).then_some(found)
    });
    for lag in &lags {
        let metric = &lag["metric"];
        let expected = if metric["redis_target"] == "one" { "1" } else { "2" };
        assert_eq!(lag["value"][1], expected, "{lag}");
        assert_eq!((&metric["job"], &metric["instance"]), (&json!("streamlag"), &metric["redis_target"]), "{lag}");
    }
    let once = eventually("the process is scraped", || {
        Some(query("process_resident_memory_bytes")).filter(|found| found.as_array().is_some_and(|all| !all.is_empty()))
    });
    assert_eq!(once.as_array().unwrap().len(), 1, "{once}");
    let names = |selector: &str| -> BTreeSet<String> {
        let found = prometheus.api("label/__name__/values", &[("match[]", selector)]).unwrap();
        found.as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned()).collect()
    };
    let of_both = |name: &&String| **name == "up" || name.starts_with("scrape_") || *name == "streamlag_build_info";
    let (of_targets, of_process) = (names("{job='streamlag'}"), names("{job='streamlag-process'}"));
    let twice: Vec<&String> = of_targets.intersection(&of_process).filter(|name| !of_both(name)).collect();
    assert!(twice.is_empty(), "{twice:?}");
    // And nothing of a whole page is missing.
    let whole = streamlag.metrics();
    let known = of_targets.union(&of_process).cloned().collect::<BTreeSet<String>>();
    let series = whole.lines().filter_map(|line| line.split(['{', ' ']).next()).filter(|name| !name.starts_with('#'));
    let missing: BTreeSet<&str> = series.filter(|name| !name.is_empty() && !known.contains(*name)).collect();
    assert!(missing.is_empty(), "{missing:?}");
    // Queries that hold series of an instance against each other can tell the targets apart.
    eventually("both are late", || {
        let late =
            "event_consumer_lag > on (job, instance) group_left () (0 * streamlag_lag_threshold{level='unhealthy'})";
        (query(late).as_array()?.len() == 2).then_some(())
    });
}

/// The file that docs/fleet.md shows is good.
#[test]
fn the_file_that_is_shown_is_good() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().to_str().unwrap();
    let text = documented("targets", "").replace("/etc/streamlag", at);
    for name in ["redis-password", "sessions-password"] {
        write(&dir.path().join(name), "pw");
    }
    let file = dir.path().join("streamlag.yml");
    write(&file, &text);
    let output = command(&["--config.check", "--config.file", file.to_str().unwrap()], &[]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}
