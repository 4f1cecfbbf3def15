//! Every path, status, header and limit of the HTTP server, over real sockets.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use crate::common::{
    PATIENCE, Redis, Reply, Streamlag, TOKEN, pipe_through, shows_streams, streamlag, streamlag_with_env,
};

const API: [&str; 6] = [
    "/api/v1/events/consumer-lag",
    "/api/v1/events/streams",
    "/api/v1/events/health",
    "/api/v1/events/groups",
    "/api/v1/events/consumers",
    "/api/v1/events/logical-streams",
];

fn with_redis() -> (Redis, Streamlag) {
    let redis = Redis::start();
    redis.run("XGROUP CREATE events:chat signalr-consumers 0 MKSTREAM");
    redis.add("events:chat", 10);
    redis.read("events:chat", "signalr-consumers", "instance-1", 4);
    let streamlag = streamlag(&["--redis.url", &redis.url(), "--streams", "events:chat"]).ready();
    (redis, streamlag)
}

fn problem(reply: &Reply, status: u16) {
    assert_eq!(reply.status, status, "{reply:?}");
    assert_eq!(reply.header("content-type"), Some("application/problem+json"), "{reply:?}");
    let problem = reply.json();
    assert_eq!(problem["status"], status);
    assert_eq!(problem["type"], "about:blank");
    assert!(!problem["title"].as_str().unwrap().is_empty() && !problem["detail"].as_str().unwrap().is_empty());
}

#[test]
fn every_path_answers_get_and_head_and_nothing_else() {
    let (_redis, streamlag) = with_redis();
    let auth = format!("Bearer {TOKEN}");
    for path in ["/", "/metrics", "/-/healthy", "/-/ready"].iter().chain(&API) {
        let get = streamlag.get(path);
        assert_eq!(get.status, 200, "{path}: {get:?}");
        let length = get.header("content-length").unwrap();
        assert_eq!(length.parse::<usize>().unwrap(), get.body.len(), "{path}");
        let head = streamlag.request("HEAD", path, &[("Authorization", &auth)]);
        assert_eq!((head.status, head.body.len()), (200, 0), "{path}");
        assert_eq!(head.header("content-type"), get.header("content-type"), "{path}");
        assert!(head.header("content-length").is_some(), "{path}");
        for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "BREW"] {
            let reply = streamlag.request(method, path, &[("Authorization", &auth)]);
            problem(&reply, 405);
            assert_eq!(reply.header("allow"), Some("GET, HEAD"), "{method} {path}");
        }
    }
    for path in ["/nothing", "/metrics/", "/api/v1/events", "/api/v1/events/", "/api", "//", "/-/metrics", "/%6detrics"]
    {
        problem(&streamlag.get(path), 404);
    }
}

#[test]
fn content_types_and_negotiation() {
    let (_redis, streamlag) = with_redis();
    let scrape = |headers: &[(&str, &str)]| streamlag.request("GET", "/metrics", headers);
    let classic = scrape(&[]);
    assert_eq!(classic.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    assert_eq!(classic.header("vary"), Some("Accept, Accept-Encoding"));
    assert_eq!(classic.header("content-encoding"), None);
    let (clean, said) = pipe_through("promtool", &["check", "metrics"], &classic.body);
    assert!(clean && said.is_empty(), "{said}");
    let openmetrics = scrape(&[("Accept", "application/openmetrics-text;version=1.0.0,text/plain;q=0.5")]);
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    assert_eq!(openmetrics.header("content-type"), Some(content_type));
    assert!(openmetrics.text().ends_with("# EOF\n"));
    // For the reference parser: promtool reads the classic format only. See scripts/check-openmetrics.
    std::fs::write(concat!(env!("CARGO_TARGET_TMPDIR"), "/openmetrics.txt"), &openmetrics.body).unwrap();
    for accept in ["text/plain", "application/openmetrics-text"] {
        let packed = scrape(&[("Accept", accept), ("Accept-Encoding", "gzip")]);
        assert_eq!(packed.header("content-encoding"), Some("gzip"));
        let (unpacked, text) = pipe_through("gzip", &["-dc"], &packed.body);
        assert!(unpacked && text.contains("event_consumer_lag{stream=\"events:chat\""), "{text}");
    }
    assert_eq!(streamlag.get("/").header("content-type"), Some("text/html; charset=utf-8"));
    assert!(streamlag.get("/").text().contains(env!("CARGO_PKG_VERSION")));
    for path in API {
        let reply = streamlag.get(path);
        assert_eq!(reply.header("content-type"), Some("application/json"), "{path}");
        assert_eq!(reply.header("cache-control"), Some("no-store"), "{path}");
    }
}

#[test]
fn the_api_wants_the_token_and_health_never_does() {
    let (_redis, streamlag) = with_redis();
    for path in API {
        let missing = streamlag.request("GET", path, &[]);
        problem(&missing, 401);
        assert_eq!(missing.header("www-authenticate"), Some("Bearer realm=\"streamlag\""));
        let reply = streamlag.request("GET", path, &[("Authorization", "Bearer nope")]);
        problem(&reply, 401);
        assert!(reply.header("www-authenticate").unwrap().starts_with("Bearer"));
        problem(&streamlag.request("GET", path, &[("Authorization", "Basic dGVzdDp0ZXN0")]), 401);
        assert_eq!(streamlag.request("GET", path, &[("Authorization", &format!("bearer {TOKEN}"))]).status, 200);
    }
    for wrong in ["Bearer ", "Bearer test-token-3f9", "Bearer test-token-3f9ab"] {
        problem(&streamlag.request("GET", API[0], &[("Authorization", wrong)]), 401);
    }
    for path in ["/", "/metrics", "/-/healthy", "/-/ready"] {
        assert_eq!(streamlag.request("GET", path, &[]).status, 200, "{path}");
    }
}

#[test]
fn without_a_token_nobody_gets_in_unless_the_operator_says_so() {
    let redis = Redis::start();
    let closed = streamlag_with_env(&["--redis.url", &redis.url()], &[]).ready();
    for path in API {
        problem(&closed.get(path), 401);
        problem(&closed.request("GET", path, &[("Authorization", "Bearer ")]), 401);
    }
    assert_eq!(closed.log_lines("STREAMLAG_API_TOKEN").len(), 1);
    let open = streamlag_with_env(&["--redis.url", &redis.url(), "--api.insecure-no-auth"], &[]).ready();
    assert_eq!(open.request("GET", "/api/v1/events/consumer-lag", &[]).status, 200);
    assert_eq!(open.log_lines("level=warn msg=\"API open without authentication").len(), 1);
}

#[test]
fn before_the_first_poll_ends_the_api_waits_and_metrics_do_not() {
    // A listener that never answers: the first poll lasts until its deadline.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://{}", silent.local_addr().unwrap());
    let streamlag = streamlag(&["--redis.url", &url, "--redis.timeout", "1h", "--poll.interval", "3s"]);
    for path in API {
        let reply = streamlag.get(path);
        problem(&reply, 503);
        assert_eq!(reply.header("retry-after"), Some("3"));
    }
    problem(&streamlag.get("/-/ready"), 503);
    assert_eq!(streamlag.get("/-/healthy").status, 200);
    let metrics = streamlag.get("/metrics");
    assert_eq!(metrics.status, 200);
    let page = metrics.text();
    assert_eq!(crate::common::value_of(&page, "streamlag_redis_up"), Some(0.0));
    assert_eq!(crate::common::value_of(&page, "streamlag_last_successful_poll_timestamp_seconds"), Some(0.0));
    assert!(!shows_streams(&page), "{page}");
}

#[test]
fn the_metrics_page_moves_and_its_requests_are_counted_by_route() {
    let redis = Redis::start();
    let url = redis.url();
    let streamlag = streamlag(&["--redis.url", &url, "--web.telemetry-path", "/m"]);
    crate::common::eventually("ready", || (streamlag.get("/-/ready").status == 200).then_some(()));
    assert_eq!(streamlag.get("/metrics").status, 404);
    assert!(streamlag.get("/").text().contains("href=\"/m\""));
    for n in 0..5 {
        streamlag.get(&format!("/random/{n}"));
    }
    let series = "streamlag_http_requests_total{path=\"other\",code=\"404\"}";
    crate::common::eventually("requests are counted", || {
        let page = streamlag.get("/m").text();
        assert!(!page.contains("random"), "{page}");
        crate::common::value_of(&page, series).filter(|count| *count == 6.0)
    });
}

#[test]
fn bad_requests_get_an_answer_or_are_closed_and_never_hurt() {
    let (_redis, streamlag) = with_redis();
    let status = |bytes: &[u8]| streamlag.raw(bytes).status;
    let big = format!("GET / HTTP/1.1\r\nHost: x\r\nX-Big: {}\r\n\r\n", "a".repeat(64 * 1024));
    assert_eq!(status(big.as_bytes()), 431);
    let many = format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", "A: b\r\n".repeat(2000));
    assert_eq!(status(many.as_bytes()), 431);
    assert!([414, 431].contains(&status(format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(100_000)).as_bytes())));
    assert_eq!(status(b"nonsense\r\n\r\n"), 400);
    assert_eq!(status(b"GET / HTTP/1.1\r\nHost : x\r\n\r\n"), 400);
    assert_eq!(status(b"GET /\xff HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n") / 100, 4);
    let smuggled =
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /";
    assert!([200, 400].contains(&status(smuggled)));
    let header =
        b"GET /api/v1/events/health HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer \xff\xfe\r\nConnection: close\r\n\r\n";
    assert_eq!(status(header), 401);
    let query = format!("/api/v1/events/consumer-lag?group=%ff%00{}", "%41".repeat(100));
    problem(&streamlag.get(&query), 404);
    let body = b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 999999999\r\nConnection: close\r\n\r\nabc";
    assert_eq!(status(body), 405);
    assert_eq!(streamlag.get("/metrics").status, 200);
    assert!(streamlag.log_lines("panicked").is_empty(), "{:?}", streamlag.log());
}

/// What stands behind a head that has a body is never taken for another request.
#[test]
fn requests_in_bodies_are_not_requests() {
    let (_redis, streamlag) = with_redis();
    let inner = "GET /-/healthy HTTP/1.1\r\nHost: x\r\n\r\n";
    let length = inner.len();
    for head in [
        format!("GET / HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n"),
        format!("POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: {length}\r\n\r\n"),
        "GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nHost: x\r\nContent-Length: +5\r\n\r\n".to_owned(),
    ] {
        let reply = streamlag.raw((head.clone() + inner).as_bytes());
        assert!([200, 400, 405].contains(&reply.status), "{head:?}: {reply:?}");
        assert!(!String::from_utf8_lossy(&reply.body).contains("is healthy"), "{head:?}: {reply:?}");
    }
}

#[test]
fn a_kept_connection_serves_request_after_request() {
    let (_redis, streamlag) = with_redis();
    let mut connection = TcpStream::connect(streamlag.address).unwrap();
    connection.set_read_timeout(Some(PATIENCE)).unwrap();
    let ask = b"GET /-/healthy HTTP/1.1\r\nHost: x\r\n\r\n";
    // Three at once, then one by one.
    connection.write_all(&[&ask[..], ask, ask].concat()).unwrap();
    read_answers(&mut connection, 3);
    for _ in 0..3 {
        connection.write_all(ask).unwrap();
        read_answers(&mut connection, 1);
    }
}

/// Reads so many answers of `/-/healthy`, and nothing more.
fn read_answers(connection: &mut TcpStream, count: usize) {
    let mut read = Vec::new();
    let mut buffer = [0; 4096];
    while String::from_utf8_lossy(&read).matches("streamlag is healthy\n").count() < count {
        let bytes = connection.read(&mut buffer).unwrap();
        assert!(bytes > 0, "closed after {:?}", String::from_utf8_lossy(&read));
        read.extend(&buffer[..bytes]);
    }
    connection.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
    assert!(connection.read(&mut buffer).is_err(), "more than {count} answers");
    connection.set_read_timeout(Some(PATIENCE)).unwrap();
}
