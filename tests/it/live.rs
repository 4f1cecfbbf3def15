//! Live streams: Server-Sent Events and WebSockets.

use std::time::Instant;

use serde_json::Value;

use crate::common::viewer::{
    EventStream, LIVE, closed, next_frame, open_websocket, protocols, refused as status_of, soon, websocket,
};
use crate::common::{Redis, Streamlag, TOKEN, command, eventually, servers, streamlag};

const GROUP: &str = "signalr-consumers";

fn redis() -> Redis {
    let redis = Redis::start();
    for stream in ["events:chat", "events:ticket", "events:remote"] {
        redis.run(&format!("XGROUP CREATE {stream} {GROUP} 0 MKSTREAM"));
    }
    redis.add("events:chat", 10);
    redis
}

fn watching(redis: &Redis, arguments: &[&str]) -> Streamlag {
    streamlag(&[&["--redis.url", &redis.url()], arguments].concat()).ready()
}

/// The lag of a stream's group in a message, where it has a row of it.
fn lag(message: &Value, stream: &str) -> Option<i64> {
    let row = message["groups"].as_array()?.iter().find(|row| row["stream"] == stream)?;
    row["lag"].as_i64()
}

fn names(rows: &Value) -> Vec<&str> {
    rows.as_array().unwrap().iter().map(|row| row["stream"].as_str().unwrap()).collect()
}

fn viewers(streamlag: &Streamlag, expected: f64) {
    eventually(&format!("{expected} viewers"), || {
        (streamlag.metric("streamlag_live_viewers") == Some(expected)).then_some(())
    });
}

#[test]
fn all_rows_and_then_what_has_changed() {
    for server in servers() {
        let redis = Redis::start_with(&server, &[]);
        for stream in ["events:chat", "events:ticket"] {
            redis.run(&format!("XGROUP CREATE {stream} {GROUP} 0 MKSTREAM"));
        }
        redis.add("events:chat", 10);
        let streamlag = watching(&redis, &[]);
        let mut stream = EventStream::open(streamlag.address, "");
        let head = stream.head.join("\n").to_lowercase();
        for header in [
            "content-type: text/event-stream",
            "cache-control: no-store, no-transform",
            "x-accel-buffering: no",
            "connection: close",
        ] {
            assert!(head.contains(header), "{header}: {head}");
        }
        assert!(!head.contains("content-length") && !head.contains("content-encoding"), "{head}");
        let retry = stream.next_text().unwrap();
        assert!(retry.starts_with("retry: "), "{retry}");
        let first = stream.next_text().unwrap();
        assert!(first.starts_with("event: snapshot\ndata: {\"type\":\"snapshot\","), "{first}");
        let first: Value = serde_json::from_str(first.split_once("data: ").unwrap().1).unwrap();
        assert_eq!(names(&first["groups"]), ["events:chat", "events:ticket", "events:remote"]);
        // A row is one of /groups. Ages may have moved on.
        let groups = streamlag.json("groups");
        let keys = |row: &Value| row.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        assert_eq!(keys(&first["groups"][0]), keys(&groups["groups"][0]));
        assert_eq!((first["target"].as_str(), first["redis_connected"].as_bool()), (Some("default"), Some(true)));
        assert!(first["age_seconds"].as_f64().unwrap() < 60.0 && first["sampled_at"].is_string());
        assert_eq!(first["targets"][0]["name"], "default");

        redis.add("events:ticket", 3);
        let update = stream.until("the new lag", |message| lag(message, "events:ticket") == Some(3));
        assert_eq!(update["type"], "update");
        assert!(update["gone"].as_array().unwrap().is_empty(), "{update}");
        // What is as it was is not told again: the stream that is not there has no ages that move.
        assert_eq!(lag(&update, "events:remote"), None);
        redis.run(&format!("XREADGROUP GROUP {GROUP} c STREAMS events:ticket >"));
        stream.until("caught up", |message| lag(message, "events:ticket") == Some(0));
    }
}

#[test]
fn rows_that_go_and_come_back() {
    let redis = Redis::start();
    redis.run("XGROUP CREATE s:1 g 0 MKSTREAM");
    redis.run("XGROUP CREATE s:2 g 0 MKSTREAM");
    let url = redis.url_of_everybody();
    let arguments = ["--redis.url", &url, "--streams", "s:*", "--groups", "*", "--discovery.interval", "1s"];
    let streamlag = streamlag(&arguments).ready();
    let mut stream = EventStream::open(streamlag.address, "");
    stream.until("both", |message| lag(message, "s:1").is_some() && lag(message, "s:2").is_some());
    redis.run("XGROUP DESTROY s:2 g");
    let gone = stream.until("one is gone", |message| message["gone"].as_array().is_some_and(|gone| !gone.is_empty()));
    assert_eq!(gone["gone"], serde_json::json!([{"stream": "s:2", "consumer_group": "g"}]));
    redis.run("XGROUP CREATE s:2 g 0");
    let back = stream.until("it is back", |message| lag(message, "s:2") == Some(0));
    assert!(back["gone"].as_array().unwrap().is_empty(), "{back}");
}

#[test]
fn a_websocket_is_told_the_same() {
    let redis = redis();
    let streamlag = watching(&redis, &[]);
    // As browsers do it, from the page's own origin.
    let (protocols, origin) = (protocols(TOKEN), format!("http://{}", streamlag.address));
    let headers = [("sec-websocket-protocol", &*protocols), ("origin", &*origin)];
    let (mut browser, response) = websocket(streamlag.address, "", &headers).unwrap();
    assert_eq!(response.headers()["sec-websocket-protocol"], "streamlag.v1");
    assert!(response.headers().get("sec-websocket-extensions").is_none());
    let first = next_frame(&mut browser).unwrap();
    assert_eq!((first["type"].as_str(), lag(&first, "events:chat")), (Some("snapshot"), Some(10)));
    redis.add("events:chat", 5);
    assert_eq!(next_frame(&mut browser).unwrap()["type"], "incident");
    loop {
        let update = next_frame(&mut browser).unwrap();
        assert_eq!(update["type"], "update");
        if lag(&update, "events:chat") == Some(15) {
            break;
        }
    }
    // As programs do it.
    let mut program = open_websocket(streamlag.address, "?stream=events:t*");
    assert_eq!(names(&next_frame(&mut program).unwrap()["groups"]), ["events:ticket"]);
    viewers(&streamlag, 2.0);
    program.close(None).unwrap();
    assert_eq!(closed(&mut program).0, 1005);
    viewers(&streamlag, 1.0);
    drop(browser);
    viewers(&streamlag, 0.0);
}

#[test]
fn incidents_at_connect_and_then_each_change() {
    let redis = redis();
    let file = tempfile::Builder::new().suffix(".yml").tempfile().unwrap();
    // Nobody is told; they fire at once.
    std::fs::write(file.path(), "notify: {for: 0s}\n").unwrap();
    let streamlag = watching(&redis, &["--config.file", file.path().to_str().unwrap()]);
    let mut stream = EventStream::open(streamlag.address, "");
    assert!(stream.next_text().unwrap().starts_with("retry: "));
    assert!(stream.next_text().unwrap().starts_with("event: snapshot\n"));
    let none = "event: incident\ndata: {\"type\":\"incident\",\"target\":\"default\",\"all\":true,\"incidents\":[],\"gone\":[],\"left_out\":0}";
    assert_eq!(stream.next_text().unwrap(), none);
    let mut others = EventStream::open(streamlag.address, "?stream=events:t*");
    let of_chat = |message: &Value, status: &str| {
        let rows = message["incidents"].as_array().into_iter().flatten();
        let mut rows = rows.filter(|row| row["rule"] == "HighEventConsumerLag" && row["stream"] == "events:chat");
        rows.any(|row| row["status"] == status)
    };
    redis.add("events:chat", 2000);
    let fires = stream.until("it fires", |message| of_chat(message, "firing"));
    assert_eq!((&fires["type"], &fires["all"]), (&"incident".into(), &false.into()));
    // A row is one of the API.
    let listed = streamlag.get("/api/v1/incidents").json();
    let keys = |row: &Value| row.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&fires["incidents"][0]), keys(&listed["incidents"][0]));
    // Who comes later is told the same, over a WebSocket too.
    let mut later = open_websocket(streamlag.address, "");
    assert_eq!(next_frame(&mut later).unwrap()["type"], "snapshot");
    let all = next_frame(&mut later).unwrap();
    assert!(all["all"] == true && of_chat(&all, "firing"), "{all}");
    redis.run(&format!("XGROUP SETID events:chat {GROUP} $"));
    stream.until("it is over", |message| of_chat(message, "resolved"));
    loop {
        let message = next_frame(&mut later).unwrap();
        if of_chat(&message, "resolved") {
            break;
        }
    }
    // What is lately over is listed at connect, too.
    let mut last = EventStream::open(streamlag.address, "");
    last.until("all of them", |message| message["all"] == true && of_chat(message, "resolved"));
    // Who looks at other streams is not told.
    redis.add("events:ticket", 1);
    others.until("its own", |message| {
        assert!(!of_chat(message, "firing") && !of_chat(message, "resolved"), "{message}");
        lag(message, "events:ticket") == Some(1)
    });
}

#[test]
fn filters_and_targets() {
    let (one, other) = (redis(), Redis::start());
    other.run("XGROUP CREATE jobs mailers 0 MKSTREAM");
    let file = tempfile::Builder::new().suffix(".yml").tempfile().unwrap();
    let targets = |names: &[(&str, &Redis, &str)]| {
        let mut text = "targets:\n".to_owned();
        for (name, redis, rest) in names {
            text.push_str(&format!("  - name: {name}\n    redis: {{url: '{}'}}\n{rest}", redis.url()));
        }
        std::fs::write(file.path(), text).unwrap();
    };
    let rest = "    streams: [jobs]\n    groups: [mailers]\n";
    targets(&[("one", &one, ""), ("other", &other, rest)]);
    let streamlag = streamlag(&["--config.file", file.path().to_str().unwrap()]).ready();
    let first = |query: &str| EventStream::open(streamlag.address, query).next().unwrap();
    assert_eq!(names(&first("")["groups"]), ["events:chat", "events:ticket", "events:remote"]);
    assert_eq!(names(&first("?stream=events%3A%5Bcr%5D*&group=s*")["groups"]), ["events:chat", "events:remote"]);
    assert!(names(&first("?group=nobody")["groups"]).is_empty());
    let message = first("?target=other");
    assert_eq!((names(&message["groups"]), message["target"].as_str()), (vec!["jobs"], Some("other")));
    assert_eq!(message["targets"].as_array().unwrap().len(), 2);
    let mut filtered = EventStream::open(streamlag.address, "?stream=events:ticket");
    let mut of_other = EventStream::open(streamlag.address, "?target=other");
    filtered.next().unwrap();
    one.add("events:chat", 1);
    one.add("events:ticket", 1);
    let update = filtered
        .until("its own", |message| message["type"] == "update" && !message["groups"].as_array().unwrap().is_empty());
    assert_eq!(names(&update["groups"]), ["events:ticket"]);

    // A reload that takes the target away.
    targets(&[("one", &one, "")]);
    streamlag.signal("-HUP");
    let last = of_other.end().unwrap();
    assert_eq!((last["type"].as_str(), last["reason"].as_str()), (Some("end"), Some("target_removed")));
    one.add("events:ticket", 1);
    filtered.until("the other one goes on", |message| lag(message, "events:ticket") == Some(2));
}

#[test]
fn who_is_not_let_in() {
    let redis = redis();
    let streamlag = watching(&redis, &["--web.allowed-origins", "https://grafana.example"]);
    let bearer = format!("Bearer {TOKEN}");
    let get = |path: &str, headers: &[(&str, &str)]| {
        let reply = streamlag.request("GET", path, headers);
        assert_eq!(reply.header("content-type"), Some("application/problem+json"), "{path}");
        (reply.status, reply.json()["detail"].as_str().unwrap().to_owned())
    };
    let sse = [("Accept", "text/event-stream"), ("Authorization", &*bearer)];
    assert_eq!(get(LIVE, &sse[..1]).0, 401);
    assert_eq!(get(LIVE, &[sse[0], ("Authorization", "Bearer wrong")]).0, 401);
    assert_eq!(get(LIVE, &sse[1..]).0, 406);
    assert_eq!(get(LIVE, &[sse[1], ("Accept", "*/*")]).0, 406);
    assert_eq!(get(&format!("{LIVE}?target=nobody"), &sse).0, 404);
    let (status, detail) = get(&format!("{LIVE}?streams=a"), &sse);
    assert_eq!((status, detail.as_str()), (400, "unknown parameter \"streams\": expected stream, group or target"));
    assert_eq!(get(&format!("{LIVE}?stream="), &sse).0, 400);
    assert_eq!(streamlag.request("POST", LIVE, &sse).status, 405);
    let head = streamlag.request("HEAD", LIVE, &sse);
    assert_eq!((head.status, head.header("content-type")), (200, Some("text/event-stream; charset=utf-8")));
    assert!(head.body.is_empty());
    // Which pages.
    assert_eq!(get(LIVE, &[sse[0], sse[1], ("Origin", "https://evil.example")]).0, 403);
    let address = streamlag.address;
    let from = |origin: &str| status_of(address, "", &[("authorization", &bearer), ("origin", origin)]);
    assert_eq!(from("https://evil.example"), 403);
    assert_eq!(from("null"), 403);
    assert_eq!(from("https://grafana.example"), 101);
    assert_eq!(from(&format!("http://{address}")), 101);
    // Upgrades that are none.
    let upgrade = [("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Authorization", &*bearer)];
    let old =
        [&upgrade[..], &[("Sec-WebSocket-Version", "8"), ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")]].concat();
    // `request` sends its own Connection header; this is beside it.
    let reply = streamlag.request("GET", LIVE, &old);
    assert_eq!((reply.status, reply.header("sec-websocket-version")), (426, Some("13")));
    let no_key = [&upgrade[..], &[("Sec-WebSocket-Version", "13")]].concat();
    assert_eq!(get(LIVE, &no_key).0, 400);
    assert_eq!(status_of(address, "", &[("authorization", &bearer), ("sec-websocket-protocol", "chat")]), 400);
    assert_eq!(status_of(address, "", &[]), 401);
    viewers(&streamlag, 0.0);
}

#[test]
fn no_more_than_the_limit_and_a_place_is_free_again() {
    let redis = redis();
    let streamlag = watching(&redis, &["--limit.viewers", "3"]);
    let mut open: Vec<_> = (0..2).map(|_| EventStream::open(streamlag.address, "")).collect();
    let socket = open_websocket(streamlag.address, "");
    let refused = EventStream::open_with(streamlag.address, "", TOKEN);
    assert!(refused.head[0].starts_with("HTTP/1.1 503"), "{:?}", refused.head);
    assert!(refused.head.iter().any(|line| line == "retry-after: 10"), "{:?}", refused.head);
    // Others are not affected, and a place that is left is free.
    assert_eq!(streamlag.get("/api/v1/events/groups").status, 200);
    open.pop();
    viewers(&streamlag, 2.0);
    let again = EventStream::open(streamlag.address, "");
    drop(socket);
    let bearer = format!("Bearer {TOKEN}");
    let headers = [("authorization", &*bearer)];
    eventually("another place", || Some(()).filter(|()| status_of(streamlag.address, "", &headers) == 101));
    drop(again);

    let none = watching(&redis, &["--limit.viewers", "0"]);
    let refused = EventStream::open_with(none.address, "", TOKEN);
    assert!(refused.head[0].starts_with("HTTP/1.1 503"), "{:?}", refused.head);
}

/// Makes a token: its secret and its line.
fn make_token(arguments: &[&str]) -> (String, String) {
    let output = command(&[&["token"], arguments].concat(), &[]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let mut indented = text.lines().filter_map(|line| line.strip_prefix("  ")).map(str::to_owned);
    (indented.next().unwrap(), indented.next().unwrap())
}

#[test]
fn streams_end_with_their_token() {
    let redis = redis();
    let file = tempfile::NamedTempFile::new().unwrap();
    let ((kept, kept_line), (removed, removed_line)) = (make_token(&["kept"]), make_token(&["removed"]));
    let (short, short_line) = make_token(&["short", "--expires", "6s"]);
    std::fs::write(file.path(), format!("{kept_line}\n{removed_line}\n{short_line}\n")).unwrap();
    let streamlag = watching(&redis, &["--api.tokens-file", file.path().to_str().unwrap()]);
    let address = streamlag.address;
    let open = |token: &str| {
        let stream = EventStream::open_with(address, "", token);
        assert!(stream.head[0].starts_with("HTTP/1.1 200"), "{:?}", stream.head);
        stream
    };
    let (mut by_kept, mut by_removed, mut by_short) = (open(&kept), open(&removed), open(&short));
    let (protocols_removed, protocols_short) = (protocols(&removed), protocols(&short));
    let mut socket_removed = websocket(address, "", &[("sec-websocket-protocol", &protocols_removed)]).unwrap().0;
    let mut socket_short = websocket(address, "", &[("sec-websocket-protocol", &protocols_short)]).unwrap().0;

    let expires = short_line.split("expires:").nth(1).unwrap().trim();
    let expires = humantime_seconds(expires);
    assert_eq!(by_short.end().unwrap()["reason"], "token_expired");
    let late = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64() - expires;
    assert!((-0.5..5.0).contains(&late), "ended {late} s after its token");
    let (code, reason, last) = closed(&mut socket_short);
    assert_eq!((code, reason.as_str(), last.unwrap()["type"].as_str()), (1008, "token_expired", Some("end")));

    std::fs::write(file.path(), format!("{kept_line}\n")).unwrap();
    let began = Instant::now();
    streamlag.signal("-HUP");
    assert_eq!(by_removed.end().unwrap()["reason"], "token_removed");
    let (code, reason, _) = closed(&mut socket_removed);
    assert_eq!((code, reason.as_str()), (1008, "token_removed"));
    assert!(soon(began), "{:?}", began.elapsed());
    redis.add("events:chat", 1);
    by_kept.until("the other goes on", |message| lag(message, "events:chat") == Some(11));
    viewers(&streamlag, 1.0);
    assert_eq!(streamlag.metric("streamlag_live_streams_ended_total{reason=\"token_removed\"}"), Some(2.0));
}

/// The time of a token's line as seconds since the Unix epoch, by `date`, which has no part in the program.
fn humantime_seconds(time: &str) -> f64 {
    let output = std::process::Command::new("date").args(["-u", "-d", time, "+%s"]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
}

#[test]
fn streams_end_at_a_shutdown_and_say_so() {
    let redis = redis();
    let mut streamlag = watching(&redis, &[]);
    let mut streams: Vec<_> = (0..5).map(|_| EventStream::open(streamlag.address, "")).collect();
    let mut socket = open_websocket(streamlag.address, "");
    for stream in &mut streams {
        stream.next().unwrap();
    }
    let began = Instant::now();
    streamlag.signal("-TERM");
    let mut retries = Vec::new();
    for stream in &mut streams {
        let last = stream.end().unwrap();
        assert_eq!((last["type"].as_str(), last["reason"].as_str()), (Some("end"), Some("shutting_down")));
        retries.push(last["retry"].as_u64().unwrap());
    }
    let (code, reason, _) = closed(&mut socket);
    assert_eq!((code, reason.as_str()), (1001, "shutting_down"));
    assert_eq!(streamlag.wait(), Some(0));
    assert!(soon(began), "{:?}", began.elapsed());
    // They do not all come back in the same moment.
    retries.dedup();
    assert!(retries.len() > 1 && retries.iter().all(|retry| (500..10_000).contains(retry)), "{retries:?}");
}

#[test]
fn a_target_that_was_not_polled_yet_has_no_stream() {
    // It takes connections, and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://{}", silent.local_addr().unwrap());
    let streamlag = streamlag(&["--redis.url", &url, "--redis.timeout", "60s"]);
    let refused = EventStream::open_with(streamlag.address, "", TOKEN);
    assert!(refused.head[0].starts_with("HTTP/1.1 503"), "{:?}", refused.head);
    assert!(refused.head.iter().any(|line| line.starts_with("retry-after: ")), "{:?}", refused.head);
}

#[test]
fn redis_sees_no_more_commands_for_any_number_of_viewers() {
    let redis = redis();
    let streamlag = watching(&redis, &["--poll.interval", "500ms"]);
    let rate = || {
        let commands = || {
            let page = streamlag.metrics();
            let lines = page.lines().filter(|line| line.starts_with("streamlag_redis_commands_total"));
            let sent: f64 = lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum();
            let polls = crate::common::value_of(&page, "streamlag_polls_total{outcome=\"success\"}").unwrap_or(0.0)
                + crate::common::value_of(&page, "streamlag_polls_total{outcome=\"partial\"}").unwrap_or(0.0);
            (sent, polls)
        };
        let before = commands();
        let after = eventually("ten polls", || Some(commands()).filter(|now| now.1 >= before.1 + 10.0));
        (after.0 - before.0) / (after.1 - before.1)
    };
    streamlag.next_sample();
    let alone = rate();
    let _viewers: Vec<_> = (0..50).map(|_| EventStream::open(streamlag.address, "")).collect();
    let watched = rate();
    assert!((alone - watched).abs() < 1.0, "{alone} commands a poll, {watched} with viewers");
}

#[test]
fn curl_over_http2_and_http1() {
    let redis = redis();
    let dir = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(dir.path().join("c.pem"), made.cert.pem()).unwrap();
    std::fs::write(dir.path().join("k.pem"), made.signing_key.serialize_pem()).unwrap();
    let web = dir.path().join("web.yml");
    std::fs::write(&web, "tls_server_config:\n  cert_file: c.pem\n  key_file: k.pem\n").unwrap();
    let encrypted = streamlag(&["--redis.url", &redis.url(), "--web.config.file", web.to_str().unwrap()]);
    let plain = watching(&redis, &[]);
    for (url, version) in [
        (format!("https://{}{LIVE}", encrypted.address), "--http2"),
        (format!("https://{}{LIVE}", encrypted.address), "--http1.1"),
        (format!("http://{}{LIVE}", plain.address), "--http1.1"),
    ] {
        let bearer = format!("Authorization: Bearer {TOKEN}");
        let curl = |arguments: &[&str]| {
            let mut command = std::process::Command::new("curl");
            command.args(["-skN", version, "-H", "Accept: text/event-stream", "-H", &bearer, &url]).args(arguments);
            command
        };
        let status = ["-o", "/dev/null", "-w", "%{http_version} %{http_code}", "-I"];
        eventually("it was polled", || {
            let head = String::from_utf8(curl(&status).output().unwrap().stdout).unwrap();
            head.ends_with(" 200").then_some(())
        });
        let head = String::from_utf8(curl(&status).output().unwrap().stdout).unwrap();
        assert_eq!(head.starts_with('2'), version == "--http2", "{head}");
        let mut child = curl(&[]).stdout(std::process::Stdio::piped()).spawn().unwrap();
        let lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
        let mut messages = lines
            .map_while(Result::ok)
            .filter_map(|line| line.strip_prefix("data: ").map(|data| serde_json::from_str::<Value>(data).unwrap()));
        let before = lag(&messages.next().unwrap(), "events:chat").unwrap();
        redis.add("events:chat", 1);
        assert!(messages.any(|message| lag(&message, "events:chat") == Some(before + 1)), "{url}");
        child.kill().unwrap();
        child.wait().unwrap();
    }
    // One that is open at the end is told of it over HTTP/2 too.
    let bearer = format!("Authorization: Bearer {TOKEN}");
    let url = format!("https://{}{LIVE}", encrypted.address);
    let child = std::process::Command::new("curl")
        .args(["-skN", "--http2", "-H", "Accept: text/event-stream", "-H", &bearer, &url])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    eventually("it is open", || {
        let output = std::process::Command::new("curl")
            .args(["-sk", &format!("https://{}/metrics", encrypted.address)])
            .output();
        let page = String::from_utf8(output.unwrap().stdout).unwrap();
        (crate::common::value_of(&page, "streamlag_live_viewers") == Some(1.0)).then_some(())
    });
    encrypted.signal("-TERM");
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && text.trim_end().lines().last().unwrap().contains("shutting_down"), "{text}");
}
