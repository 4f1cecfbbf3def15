//! History from real servers that speak PromQL, and what becomes of it where they are slow, absent or something else.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;

use serde_json::{Value, json};

use crate::common::promql::{PromqlServer, promql_servers};
use crate::common::receiver::Receiver;
use crate::common::{Redis, Reply, Streamlag, command, eventually, free_port, streamlag};

const STREAM: &str = "events:chat";
const GROUP: &str = "signalr-consumers";

/// PromQL, regular expressions and URLs have meanings for all of it.
const HOSTILE: &str = r#"hostile"}or_vector(1)#\.*|&=%{"#;

/// What finds it: a name with all that would be a pattern itself.
const PATTERN: &str = "hostile*";

fn redis(entries: usize) -> Redis {
    let redis = Redis::start();
    for stream in [STREAM, HOSTILE] {
        redis.run(&format!("XGROUP CREATE {stream} {GROUP} 0 MKSTREAM"));
    }
    redis.add(STREAM, entries);
    redis.add(HOSTILE, entries + 1);
    redis
}

fn address() -> String {
    format!("127.0.0.1:{}", free_port())
}

fn start(redis: &Redis, listen: &str, arguments: &[&str]) -> Streamlag {
    let url = redis.url_of_everybody();
    let streams = format!("{STREAM},{PATTERN}");
    let own = ["--redis.url", &url, "--streams", &streams, "--web.listen-address", listen];
    streamlag(&[&own, arguments].concat()).ready()
}

fn history_of(streamlag: &Streamlag, stream: &str, query: &str) -> Reply {
    let stream = form_urlencoded::byte_serialize(stream.as_bytes()).collect::<String>();
    streamlag.get(&format!("/api/v1/events/history?stream={stream}&group={GROUP}&{query}"))
}

fn points(streamlag: &Streamlag, stream: &str, query: &str) -> Vec<Value> {
    let reply = history_of(streamlag, stream, query);
    if reply.status != 200 {
        // The server is not ready, or has scraped nothing yet.
        return Vec::new();
    }
    let answer = reply.json();
    assert_eq!(answer["source"], "prometheus", "{answer}");
    answer["points"].as_array().unwrap().clone()
}

/// The page is that of the last poll.
fn is_up(streamlag: &Streamlag, up: f64) {
    eventually(&format!("history is up: {up}"), || {
        (streamlag.metric("streamlag_history_up") == Some(up)).then_some(())
    });
}

/// Waits for an exact lag; the points up to it.
fn exactly(streamlag: &Streamlag, stream: &str, lag: u64) -> Vec<Value> {
    eventually(&format!("an exact lag of {lag} in {stream}"), || {
        let points = points(streamlag, stream, "from=-5m&step=1s");
        let is_it = |point: &Value| point["lag"] == lag && point["lag_min"] == lag && point["lag_max"] == lag;
        points.last().is_some_and(is_it).then_some(points)
    })
}

#[test]
fn history_trends_and_forecasts_come_from_any_server() {
    for binary in promql_servers() {
        let [eu, us] = [address(), address()];
        let of = |cluster: &str, replica: &str| json!({"cluster": cluster, "replica": replica, "prometheus": "p"});
        let scraped = [(eu.as_str(), of("eu", "a")), (&eu, of("eu", "b")), (&us, of("us", "a"))];
        let server = PromqlServer::start(&binary, &scraped);
        let url = format!("http://{}", server.address);
        let (redis, other) = (redis(40), redis(5));
        let labels = "cluster=eu,prometheus=p";
        let streamlag = start(&redis, &eu, &["--history.prometheus-url", &url, "--history.prometheus-labels", labels]);
        let without_labels = start(&other, &us, &["--history.prometheus-url", &url]);

        exactly(&streamlag, STREAM, 40);
        exactly(&streamlag, HOSTILE, 41);
        // A second of its own, which what is read and added next is not a part of.
        eventually("two seconds with a lag of 40", || {
            let points = points(&streamlag, STREAM, "from=-5m&step=1s");
            let lowest = points.iter().filter(|point| point["lag_lowest"] == 40);
            (lowest.count() >= 2).then_some(())
        });
        // In this order the lag is never above 70, whenever it is sampled.
        redis.read(STREAM, GROUP, "instance-1", 30);
        redis.add(STREAM, 60);
        let points_of = exactly(&streamlag, STREAM, 70);
        let times: Vec<&str> = points_of.iter().map(|point| point["time"].as_str().unwrap()).collect();
        assert!(times.is_sorted_by(|one, other| one < other), "two replicas are one: {times:?}");
        assert!(points_of.iter().any(|point| point["lag_lowest"] == 40), "{points_of:?}");
        let settled = eventually("a state", || {
            let points = points(&streamlag, STREAM, "from=-5m&step=1s");
            points.into_iter().rfind(|point| !point["state"].is_null() && point["lag"] == 70)
        });
        for (key, value) in [("pending", json!(30)), ("length", json!(100)), ("lost_entries", json!(0))] {
            assert_eq!(settled[key], value, "{key} of {settled}");
        }
        assert_eq!((&settled["consumers"], &settled["state"]), (&json!(1), &json!("ok")), "{settled}");
        assert!(settled["lag_seconds"].as_f64() > Some(0.0), "{settled}");

        // Without its label, another Redis with the same names looks like a replica that disagrees: never exact.
        eventually("bounds over both", || {
            let points = points(&without_labels, STREAM, "from=-5m&step=5m");
            let is_wide = |point: &Value| {
                let lag = |key: &str| point[key].as_u64().unwrap();
                lag("lag_min") <= 5 && lag("lag_highest") == 70 && lag("lag_max") > 70
            };
            points.iter().any(is_wide).then_some(())
        });

        // Redis counts reads from the first one on, and each replica has rates of what it saw itself.
        for pending in [40, 50, 60] {
            redis.read(STREAM, GROUP, "instance-1", 10);
            redis.add(STREAM, 10);
            eventually("a scrape of it", || {
                let points = points(&streamlag, STREAM, "from=-5m&step=1s");
                points.last().is_some_and(|point| point["pending"] == pending).then_some(())
            });
        }
        eventually("rates", || {
            let points = points(&streamlag, STREAM, "from=-5m&step=1s");
            let has_rate = |key: &str| points.iter().any(|point| point[key].as_f64() > Some(0.0));
            (has_rate("added_per_second") && has_rate("delivered_per_second")).then_some(())
        });

        let trends = streamlag.json("trends?window=5m");
        let rows = trends["trends"].as_array().unwrap();
        let seen: Vec<_> = rows.iter().map(|row| row["stream"].as_str().unwrap()).collect();
        assert_eq!(seen, [STREAM, HOSTILE], "{trends}");
        assert_eq!((&rows[0]["source"], &rows[0]["peak_lag"]), (&json!("prometheus"), &json!(70)), "{trends}");
        // Two weeks of minutes are more than one query may ask for.
        let made = streamlag.json(&format!("forecast?stream={STREAM}&group={GROUP}&horizon=30m"));
        assert!(made["reason"].as_str().unwrap().starts_with("history is too short for this horizon"), "{made}");

        is_up(&streamlag, 1.0);
        let unknown = history_of(&streamlag, "none", "");
        assert_eq!(unknown.status, 400);
        assert!(unknown.text().contains(r#"invalid value \"none\" for stream: expected one"#), "{}", unknown.text());
    }
}

#[test]
fn a_certificate_of_a_ca_and_a_token_are_enough_and_needed() {
    let listen = address();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &str| {
        let path = folder.path().join(name).to_str().unwrap().to_owned();
        std::fs::write(&path, content).unwrap();
        path
    };
    let tls = [file("crt.pem", &made.cert.pem()), file("key.pem", &made.signing_key.serialize_pem())];
    let port = free_port();
    let scraped = [(listen.as_str(), json!({}))];
    let _server = PromqlServer::start_at(&format!("127.0.0.1:{port}"), Path::new("prometheus"), &scraped, Some(&tls));
    let redis = redis(40);
    let url = format!("https://localhost:{port}");
    {
        let streamlag = start(&redis, &listen, &["--history.prometheus-url", &url]);
        let refused = history_of(&streamlag, STREAM, "");
        assert_eq!(refused.status, 503, "{}", refused.text());
        assert!(refused.text().contains("certificate"), "{}", refused.text());
    }
    let streamlag =
        start(&redis, &listen, &["--history.prometheus-url", &url, "--history.prometheus-ca-file", &tls[0]]);
    exactly(&streamlag, STREAM, 40);
    // A CA that is replaced is not taken up, and not passed over either.
    std::fs::write(&tls[0], rcgen::generate_simple_self_signed(["h".to_owned()]).unwrap().cert.pem()).unwrap();
    streamlag.signal("-HUP");
    let refused = eventually("a refused reload", || streamlag.log_lines("reload failed").pop());
    assert!(refused.contains("history.prometheus-ca-file has changed, which requires a restart"), "{refused}");
    drop(streamlag);

    let plain = PromqlServer::start(Path::new("prometheus"), &scraped);
    let gate = gate(&plain.address, "Bearer s3cret");
    let url = format!("http://{gate}");
    let token = file("token", "wrong\n");
    let arguments = ["--history.prometheus-url", &url, "--history.prometheus-token-file", &token];
    let streamlag = start(&redis, &listen, &arguments);
    let refused = history_of(&streamlag, STREAM, "");
    assert!(refused.status == 503 && refused.text().contains("401"), "{}", refused.text());
    is_up(&streamlag, 0.0);
    // A token that is replaced needs no reload.
    file("token", "s3cret\n");
    exactly(&streamlag, STREAM, 40);
    is_up(&streamlag, 1.0);
    assert!(streamlag.log().iter().all(|line| !line.contains("s3cret")));
}

/// Lets requests with this header through, and answers 401 to others.
fn gate(server: &str, authorization: &str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (server, needed) = (server.to_owned(), format!("authorization: {authorization}\r\n"));
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let (server, needed) = (server.clone(), needed.clone());
            std::thread::spawn(move || pass(client, &server, &needed));
        }
    });
    address
}

fn pass(mut client: TcpStream, server: &str, needed: &str) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        client.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    if !String::from_utf8_lossy(&head).contains(needed) {
        client.write_all(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 4\r\n\r\nwho?")?;
        // Closed before everything is read, the connection would be reset.
        return std::io::copy(&mut client, &mut std::io::sink()).map(drop);
    }
    let mut server = TcpStream::connect(server)?;
    server.write_all(&head)?;
    let (mut from, mut to) = (client.try_clone()?, server.try_clone()?);
    std::thread::spawn(move || std::io::copy(&mut from, &mut to));
    std::io::copy(&mut server, &mut client).map(drop)
}

#[test]
fn while_prometheus_is_absent_or_slow_streamlag_goes_on() {
    let (listen, server) = (address(), address());
    let redis = redis(40);
    let streamlag = start(&redis, &listen, &["--history.prometheus-url", &format!("http://{server}")]);
    let refused = |streamlag: &Streamlag, why: &str| {
        for path in ["history", "trends", "forecast"] {
            let reply = streamlag.get(&format!("/api/v1/events/{path}?stream={STREAM}&group={GROUP}"));
            assert_eq!(reply.status, 503, "{path}: {}", reply.text());
            assert!(reply.header("retry-after").is_some(), "{path}");
            let detail = reply.json()["detail"].as_str().unwrap().to_owned();
            assert!(detail.starts_with("Prometheus at 127.0.0.1:") && detail.contains(why), "{path}: {detail}");
        }
        is_up(streamlag, 0.0);
        assert_eq!(streamlag.metric("streamlag_redis_up"), Some(1.0));
        assert_eq!(streamlag.log_lines("Prometheus does not answer").len(), 1, "{:?}", streamlag.log());
    };
    refused(&streamlag, "refused");
    let there = PromqlServer::start_at(&server, Path::new("prometheus"), &[(&listen, json!({}))], None);
    exactly(&streamlag, STREAM, 40);
    is_up(&streamlag, 1.0);
    assert_eq!(streamlag.log_lines("Prometheus answers again").len(), 1);
    drop(there);

    // It takes connections and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let slow = start(&redis, "127.0.0.1:0", &["--history.prometheus-url", &url]);
    std::thread::scope(|scope| {
        // More at once than are asked at a time, and pages all the while.
        for _ in 0..6 {
            scope.spawn(|| {
                let reply = history_of(&slow, STREAM, "");
                assert!(reply.status == 503 && reply.text().contains("no answer within 10 s"), "{}", reply.text());
            });
        }
        slow.next_sample();
    });
    assert_eq!(slow.log_lines("Prometheus does not answer").len(), 1, "{:?}", slow.log());
}

#[test]
fn a_query_that_prometheus_refuses_is_no_outage() {
    let server = Receiver::answering(|_, received| {
        if received.path == "/base/api/v1/query" {
            return ("200 OK\r\n".to_owned(), r#"{"status":"success","data":{}}"#.to_owned());
        }
        let body =
            r#"{"status":"error","errorType":"execution","error":"query processing would load too many samples"}"#;
        ("422 Unprocessable Entity\r\n".to_owned(), body.to_owned())
    });
    let redis = redis(1);
    let streamlag = start(&redis, "127.0.0.1:0", &["--history.prometheus-url", &server.url("/base/")]);
    let reply = history_of(&streamlag, STREAM, "");
    assert!(reply.status == 503 && reply.text().contains("would load too many samples"), "{}", reply.text());
    is_up(&streamlag, 1.0);
    let query = String::from_utf8(server.received().last().unwrap().body.clone()).unwrap();
    assert!(query.contains("step=60") && query.contains("timeout=10s"), "{query}");
}

#[test]
fn a_round_of_forecasts_reads_history_once_for_a_group() {
    let server = Receiver::answering(|_, received| {
        let data = if received.path.ends_with("query_range") { r#"{"result":[]}"# } else { "{}" };
        ("200 OK\r\n".to_owned(), format!(r#"{{"status":"success","data":{data}}}"#))
    });
    let redis = redis(1);
    let url = server.url("");
    let of_redis = redis.url_of_everybody();
    let own = ["--redis.url", &of_redis, "--streams", STREAM, "--history.prometheus-url", &url, "--collector.forecast"];
    let streamlag = streamlag(&own).ready();
    let ranges = || server.received().iter().filter(|received| received.path.ends_with("query_range")).count();
    eventually("a round", || (ranges() > 0).then_some(()));
    // It waits for those of the round, and uses them.
    for horizon in ["15m", "1h"] {
        streamlag.json(&format!("forecast?stream={STREAM}&group={GROUP}&horizon={horizon}"));
    }
    // Four weeks of minutes take five queries.
    assert_eq!(ranges(), 5);
}

#[test]
fn what_is_no_prometheus_is_named_with_what_was_expected() {
    let redis = redis(1);
    let not_found = Receiver::answering(|_, _| ("404 Not Found\r\n".to_owned(), "there is nothing".to_owned()));
    let page = Receiver::start();
    let folder = tempfile::tempdir().unwrap();
    let empty = folder.path().join("empty");
    std::fs::write(&empty, "\n").unwrap();
    let empty = empty.to_str().unwrap();
    let url = "--history.prometheus-url";
    let (at_not_found, at_page) = (not_found.url(""), page.url("/hunter2"));
    let plain = TcpListener::bind("127.0.0.1:0").unwrap();
    let at_plain = format!("https://{}", plain.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut client in plain.incoming().flatten() {
            let _ = client.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
            let _ = std::io::copy(&mut client, &mut std::io::sink());
        }
    });
    let without_path = page.url("/***");
    let form = "(not shown) for --history.prometheus-url: expected a URL such as";
    let cases: [(&[&str], [&str; 2]); 16] = [
        (&[url, &at_plain], [&at_plain, "found received corrupt message"]),
        (&[url, &at_not_found], [&at_not_found, "expected the URL of a Prometheus"]),
        (&[url, &at_page], [&without_path, "found 200 OK without the JSON"]),
        (&[url, "hunter2:9090"], [form, ""]),
        (&[url, "ftp://hunter2"], [form, ""]),
        (&[url, "http://user:hunter2"], [form, ""]),
        (&[url, "http://h:99999"], [form, ""]),
        (&[url, "http://h/?tenant=hunter2"], ["(not shown)", "expected a URL without a query"]),
        (&[url, "http://h/#hunter2"], ["(not shown)", "expected a URL without a query"]),
        (&[url, "http://user:hunter2@h"], ["(not shown)", "without user and password"]),
        (&[url, "http://h", "--history.path", "history.db"], [url, "contradicts --history.path"]),
        (&[url, "http://h", "--history.prometheus-token-file", empty], [empty, "expected a file with one token"]),
        (&[url, "http://h", "--history.prometheus-ca-file", empty], [empty, "expected PEM"]),
        (&[url, "http://h", "--history.prometheus-labels", "stream=a"], ["stream=a", "expected name=value"]),
        (&[url, "http://h", "--history.prometheus-labels", "cluster"], ["\"cluster\"", "expected name=value"]),
        (&["--history.prometheus-ca-file", empty], [empty, "expected --history.prometheus-url"]),
    ];
    for (arguments, parts) in cases {
        let own = ["--redis.url", &redis.url_of_everybody(), "--web.listen-address", "127.0.0.1:0"];
        let command = command(&[&own, arguments].concat(), &[]);
        // One that runs on fails the test, and does not hang it.
        let output = std::process::Command::new("timeout")
            .arg("30")
            .arg(command.get_program())
            .args(command.get_args())
            .output();
        let output = output.unwrap();
        let said = String::from_utf8_lossy(&output.stderr).replace("\\\"", "\"");
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
        assert!(parts.iter().all(|part| said.contains(part)) && !said.contains("hunter2"), "{arguments:?}: {said}");
    }
}
