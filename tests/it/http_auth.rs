//! Who gets in, how often, and what a reload changes: over real sockets.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::common::{PATIENCE, Redis, Reply, Streamlag, TOKEN, command, eventually, streamlag, streamlag_with_env};

const LAG: &str = "/api/v1/events/consumer-lag";

fn redis() -> Redis {
    let redis = Redis::start();
    redis.run("XGROUP CREATE events:chat signalr-consumers 0 MKSTREAM");
    redis.add("events:chat", 10);
    redis
}

/// The status that the API answers with a token.
fn with_token(streamlag: &Streamlag, token: &str) -> Reply {
    streamlag.request("GET", LAG, &[("Authorization", &format!("Bearer {token}"))])
}

/// Makes a token as a person would: its secret and its line.
fn make_token(arguments: &[&str]) -> (String, String) {
    let output = command(&[&["token"], arguments].concat(), &[]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let mut indented = text.lines().filter_map(|line| line.strip_prefix("  ")).map(str::to_owned);
    (indented.next().unwrap(), indented.next().unwrap())
}

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
}

/// Sends SIGHUP and waits until it was followed: whether everything was reloaded.
fn reload(streamlag: &Streamlag) -> bool {
    let reloads = || (streamlag.log_lines("configuration reloaded").len(), streamlag.log_lines("reload failed").len());
    let (good, bad) = reloads();
    streamlag.signal("-HUP");
    let good_now = eventually("a reload", || Some(reloads()).filter(|now| *now != (good, bad))).0;
    let series = "streamlag_config_last_reload_successful";
    eventually("the metric says so", || {
        (streamlag.metric(series) == Some(f64::from(u8::from(good_now > good)))).then_some(())
    });
    good_now > good
}

#[test]
fn tokens_of_the_file_and_of_the_environment_open_until_they_are_taken_out_or_expire() {
    let redis = redis();
    let file = tempfile::NamedTempFile::new().unwrap();
    let ((ops, ops_line), (ci, ci_line)) = (make_token(&["ops"]), make_token(&["ci", "--expires", "3s"]));
    write(file.path(), &format!("# people\n{ops_line}\n# machines\n{ci_line}\n"));
    let arguments = ["--redis.url", &redis.url(), "--api.tokens-file", file.path().to_str().unwrap()];
    let streamlag = streamlag(&[&arguments[..], &["--log.level", "debug"]].concat()).ready();
    for token in [&ops, &ci, TOKEN] {
        assert_eq!(with_token(&streamlag, token).status, 200);
    }
    eventually("one expires", || (with_token(&streamlag, &ci).status == 401).then_some(()));
    let expired = with_token(&streamlag, &ci);
    assert_eq!(expired.json()["detail"], "the API token has expired");
    assert_eq!(expired.header("www-authenticate"), Some("Bearer realm=\"streamlag\", error=\"invalid_token\""));
    // Who came, and when before, is in the log at debug; the secret is not.
    assert!(!streamlag.log_lines("token=ops").is_empty());
    with_token(&streamlag, &ops);
    assert!(!streamlag.log_lines("unused_seconds=").is_empty());

    let (next, next_line) = make_token(&["ops"]);
    write(file.path(), &format!("{next_line}\n"));
    assert_eq!((with_token(&streamlag, &ops).status, with_token(&streamlag, &next).status), (200, 401));
    assert!(reload(&streamlag));
    assert_eq!((with_token(&streamlag, &ops).status, with_token(&streamlag, &next).status), (401, 200));
    assert_eq!(with_token(&streamlag, TOKEN).status, 200);

    write(file.path(), &format!("{next_line}\nops {next}\n"));
    assert!(!reload(&streamlag));
    let said = streamlag.log_lines("reload failed");
    assert!(said.len() == 1 && said[0].contains("line 2"), "{said:?}");
    assert_eq!(with_token(&streamlag, &next).status, 200);
    let log = streamlag.log().join("\n");
    assert!(![&ops, &ci, &next, TOKEN].iter().any(|secret| log.contains(*secret)), "{log}");
}

#[test]
fn a_tokens_file_that_is_cut_short_opens_nothing() {
    let redis = redis();
    let file = tempfile::NamedTempFile::new().unwrap();
    let (ci, line) = make_token(&["ci", "--expires", "1s"]);
    write(file.path(), &format!("{line}\n"));
    let arguments = ["--redis.url", &redis.url(), "--api.tokens-file", file.path().to_str().unwrap()];
    let streamlag = streamlag(&arguments).ready();
    eventually("it expires", || (with_token(&streamlag, &ci).status == 401).then_some(()));
    // As on a full disk: what is left is a token that does not expire.
    let digest_end = line.find(" expires:").unwrap();
    for end in [digest_end, digest_end + 1, line.len()] {
        write(file.path(), &line[..end]);
        assert!(!reload(&streamlag), "{:?}", &line[..end]);
        assert_eq!(with_token(&streamlag, &ci).status, 401);
    }
    let said = streamlag.log_lines("reload failed");
    assert!(said[0].contains("expected a line end after the last line"), "{said:?}");
    // Somebody writes it in two steps, and reloads between them: the reload waits for the second.
    write(file.path(), &format!("# {}\n", "a comment ".repeat(10)));
    streamlag.signal("-HUP");
    write(file.path(), &format!("{line}\n"));
    eventually("a reload", || (!streamlag.log_lines("configuration reloaded").is_empty()).then_some(()));
    assert_eq!(with_token(&streamlag, &ci).json()["detail"], "the API token has expired");
}

#[test]
fn a_token_may_be_used_so_often_and_others_are_not_affected() {
    let redis = redis();
    let file = tempfile::NamedTempFile::new().unwrap();
    let (ops, line) = make_token(&["ops"]);
    write(file.path(), &format!("{line}\n"));
    // One in a hundred seconds, so that a slow machine earns none meanwhile.
    let slow = ["--api.rate-limit", "1", "--api.rate-burst", "5"];
    let arguments = ["--redis.url", &redis.url(), "--api.tokens-file", file.path().to_str().unwrap()];
    let streamlag = streamlag(&[&arguments[..], &slow].concat()).ready();
    let first = with_token(&streamlag, &ops);
    assert_eq!(first.header("ratelimit-policy"), Some("\"token\";q=5;w=5"));
    assert_eq!(first.header("ratelimit"), Some("\"token\";r=4;t=1"));
    let refused = eventually("the burst is used up", || {
        let reply = with_token(&streamlag, &ops);
        (reply.status != 200).then_some(reply)
    });
    assert_eq!((refused.status, refused.header("retry-after")), (429, Some("1")));
    assert_eq!(refused.header("content-type"), Some("application/problem+json"));
    assert!(refused.header("ratelimit").unwrap().starts_with("\"token\";r=0;t="));
    assert_eq!(with_token(&streamlag, TOKEN).status, 200);
    // Whoever waits as long as told gets in again.
    eventually("a second passes", || (with_token(&streamlag, &ops).status == 200).then_some(()));

    // What was used up stays used up over a reload.
    let thousand = ["--redis.url", &redis.url(), "--api.rate-limit", "1", "--api.rate-burst", "1000"];
    let some = streamlag_with_env(&thousand, &[("STREAMLAG_API_TOKEN", TOKEN)]).ready();
    let left = || {
        let reply = with_token(&some, TOKEN);
        let left = reply.header("ratelimit").unwrap().split("r=").nth(1).unwrap().split(';').next().unwrap().to_owned();
        left.parse::<u64>().unwrap()
    };
    for _ in 0..400 {
        left();
    }
    assert!(reload(&some));
    assert!(left() < 900, "the bucket is full again");

    let unlimited =
        streamlag_with_env(&["--redis.url", &redis.url(), "--api.rate-limit", "0"], &[("STREAMLAG_API_TOKEN", TOKEN)])
            .ready();
    for _ in 0..100 {
        let reply = with_token(&unlimited, TOKEN);
        assert_eq!((reply.status, reply.header("ratelimit")), (200, None));
    }
}

#[test]
fn guessing_is_slow_and_hurts_nobody_else() {
    let redis = redis();
    let streamlag = streamlag(&["--redis.url", &redis.url()]).ready();
    let mut known = kept(&streamlag);
    assert_eq!(ask(&mut known, TOKEN), 200);
    let guesses: Vec<u16> = (0..40).map(|n| with_token(&streamlag, &format!("guess-{n}")).status).collect();
    assert!(guesses[..10].iter().all(|status| *status == 401), "{guesses:?}");
    let tried = guesses.iter().filter(|status| **status == 401).count();
    assert!(tried < 20 && guesses.iter().all(|status| [401, 429].contains(status)), "{guesses:?}");
    let refused = with_token(&streamlag, "guess");
    assert_eq!((refused.status, refused.json()["status"].as_u64()), (429, Some(429)));
    assert!((1..=6).contains(&refused.header("retry-after").unwrap().parse::<u64>().unwrap()));
    // A right guess does not get in either, or guessing would not be slow.
    assert_eq!(with_token(&streamlag, TOKEN).status, 429);
    // Who logged in before stays in, over the same connection; so does everybody at another address.
    assert_eq!(ask(&mut known, TOKEN), 200);
    let other = Command::new("curl")
        .args(["-s", "-o", "/dev/null", "-w", "%{http_code}", "--interface", "127.0.0.2"])
        .args(["-H", &format!("Authorization: Bearer {TOKEN}"), &format!("http://{}{LAG}", streamlag.address)])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&other.stdout), "200");
    // What needs no login is not affected, and neither is being told to log in.
    assert_eq!(streamlag.request("GET", "/metrics", &[]).status, 200);
    assert_eq!(streamlag.request("GET", LAG, &[]).status, 401);
    // As many lines as guesses were let through.
    let failed = streamlag.log_lines(&format!("msg=\"login failed\" peer=127.0.0.1 path={LAG} kind=token"));
    assert_eq!(failed.len(), tried, "{:?}", streamlag.log());
}

/// A connection that is kept.
fn kept(streamlag: &Streamlag) -> TcpStream {
    let connection = TcpStream::connect(streamlag.address).unwrap();
    connection.set_read_timeout(Some(PATIENCE)).unwrap();
    connection
}

/// Asks over a connection that is kept; the status.
fn ask(connection: &mut TcpStream, token: &str) -> u16 {
    write!(connection, "HEAD {LAG} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n").unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        connection.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap().split(' ').nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_reload_over_http_wants_a_token_and_to_be_enabled() {
    let redis = redis();
    let url = redis.url();
    let reload = |streamlag: &Streamlag, method: &str, token: &str| {
        streamlag.request(method, "/-/reload", &[("Authorization", &format!("Bearer {token}"))])
    };
    let off = streamlag(&["--redis.url", &url]).ready();
    assert_eq!(reload(&off, "POST", TOKEN).status, 403);
    let on = streamlag(&["--redis.url", &url, "--web.enable-lifecycle"]).ready();
    assert_eq!(reload(&on, "POST", "wrong").status, 401);
    assert_eq!(on.request("POST", "/-/reload", &[]).status, 401);
    let get = reload(&on, "GET", TOKEN);
    assert_eq!((get.status, get.header("allow")), (405, Some("POST, PUT")));
    assert!(on.log_lines("reloaded").is_empty());
    let before = on.metric("streamlag_config_last_reload_success_timestamp_seconds").unwrap();
    let reply = reload(&on, "POST", TOKEN);
    assert_eq!((reply.status, reply.text().as_str()), (200, "reloaded\n"));
    eventually("the log says so", || {
        (on.log_lines("configuration reloaded\" changed=nothing").len() == 1).then_some(())
    });
    eventually("the metric says when", || {
        (on.metric("streamlag_config_last_reload_success_timestamp_seconds")? > before).then_some(())
    });
}

#[test]
fn a_reload_is_all_or_nothing_and_drops_nothing() {
    let redis = redis();
    redis.run("XGROUP CREATE events:chat slow 0");
    redis.run("XGROUP CREATE other slow 0 MKSTREAM");
    let file = tempfile::NamedTempFile::new().unwrap();
    let config = |more: &str| {
        let url = redis.url();
        write(file.path(), &format!("redis: {{url: \"{url}\"}}\npoll: {{interval: 100ms}}\n{more}"));
    };
    config("streams: [events:chat, gone]\ngroups: ['*']\n");
    let streamlag = streamlag_with_env(
        &["--config.file", file.path().to_str().unwrap(), "--web.listen-address", "127.0.0.1:0"],
        &[("STREAMLAG_API_TOKEN", TOKEN)],
    )
    .ready();
    let mut kept = kept(&streamlag);
    assert_eq!(ask(&mut kept, TOKEN), 200);
    // A loss, which only a poller that remembers the sample before can know.
    streamlag.next_sample();
    redis.run("XTRIM events:chat MAXLEN 0");
    let lost = "event_consumer_group_lost_entries_total{stream=\"events:chat\",consumer_group=\"slow\"}";
    eventually("the loss is seen", || (streamlag.metric(lost) == Some(10.0)).then_some(()));

    config("streams: [other, events:chat]\ngroups: ['*']\nlag: {degraded: 7}\n");
    assert!(reload(&streamlag));
    let page = eventually("the new stream is there", || {
        let page = streamlag.metrics();
        page.contains("event_stream_up{stream=\"other\"} 1").then_some(page)
    });
    assert!(!page.contains("stream=\"gone\""), "{page}");
    let said = streamlag.log_lines("msg=\"configuration reloaded\" changed=\"lag.degraded, streams\"");
    assert_eq!(said.len(), 1, "{:?}", streamlag.log());
    assert_eq!(crate::common::value_of(&page, lost), Some(10.0));
    assert_eq!(crate::common::value_of(&page, "streamlag_lag_threshold{level=\"degraded\"}"), Some(7.0));
    assert_eq!(ask(&mut kept, TOKEN), 200, "a connection was dropped");
    // One connection to Redis all the time.
    assert_eq!(page.matches("streamlag_redis_commands_total{command=\"hello\"} 1\n").count(), 1, "{page}");

    let second = Redis::start();
    second.run("XGROUP CREATE other elsewhere 0 MKSTREAM");
    // One bad value, and the good ones beside it do not count either.
    config("streams: [other]\nredis.timeout: never\n");
    assert!(!reload(&streamlag));
    config("streams: [other]\nweb: {listen_address: \"127.0.0.1:1\"}\n");
    // The flag wins, so that this one is good.
    assert!(reload(&streamlag));
    config("streams: [other]\nlog: {level: debug, format: json}\n");
    assert!(!reload(&streamlag));
    let said = streamlag.log_lines("reload failed");
    assert!(said[0].contains("redis.timeout") && said[0].contains("never"), "{said:?}");
    assert!(said[1].contains("log.format has changed, which requires a restart"), "{said:?}");
    assert!(!streamlag.metrics().contains("events:chat"));

    write(
        file.path(),
        &format!(
            "redis: {{url: \"{}\"}}\nstreams: [other]\ngroups: [elsewhere]\nlog: {{level: debug}}\n",
            second.url()
        ),
    );
    assert!(reload(&streamlag));
    eventually("another Redis is sampled", || {
        streamlag.metrics().contains("consumer_group=\"elsewhere\"").then_some(())
    });
    with_token(&streamlag, TOKEN);
    eventually("debug lines are logged", || (!streamlag.log_lines("API request").is_empty()).then_some(()));
}

/// A process that is stopped whatever happens.
struct Stopped(Child);

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What systemd does, by a tool of its own: sockets that are open already, and a socket that is told.
#[test]
fn systemd_opens_the_sockets_and_is_told() {
    let redis = redis();
    let dir = tempfile::tempdir().unwrap();
    let notify = std::os::unix::net::UnixDatagram::bind(dir.path().join("notify")).unwrap();
    notify.set_read_timeout(Some(PATIENCE)).unwrap();
    let told = || {
        let mut message = [0; 512];
        let length = notify.recv(&mut message).expect("nothing was told");
        String::from_utf8(message[..length].to_vec()).unwrap().trim_end().to_owned()
    };
    let port = crate::common::free_port();
    let mut child = Command::new("systemd-socket-activate");
    child.args(["--listen", &format!("127.0.0.1:{port}")]);
    child.args(["-E", &format!("NOTIFY_SOCKET={}", dir.path().join("notify").display())]);
    // Half of it is 200 ms.
    child.args(["-E", "WATCHDOG_USEC=400000", "-E", &format!("STREAMLAG_API_TOKEN={TOKEN}")]);
    // Beside the Redis one that accepts and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let file = dir.path().join("streamlag.yml");
    let targets = [("one", redis.url()), ("silent", format!("redis://{}/0", silent.local_addr().unwrap()))];
    let targets = targets.map(|(name, url)| format!("- {{name: {name}, redis.url: '{url}', redis.timeout: 300ms}}\n"));
    write(&file, &format!("targets:\n{}", targets.concat()));
    child.args([env!("CARGO_BIN_EXE_streamlag"), "--web.systemd-socket", "--config.file", file.to_str().unwrap()]);
    child.args(["--poll.interval", "100ms"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child =
        Stopped(child.spawn().unwrap_or_else(|error| panic!("systemd-socket-activate ({error}): apt install systemd")));
    // It starts the program at the first connection, which that then answers.
    let get = |path: &str| {
        let mut connection = TcpStream::connect(("127.0.0.1", port)).ok()?;
        connection.set_read_timeout(Some(PATIENCE)).unwrap();
        connection.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes()).ok()?;
        let mut answer = String::new();
        connection.read_to_string(&mut answer).ok()?;
        Some(answer)
    };
    let healthy = eventually("the first request is answered", || get("/-/healthy"));
    assert!(healthy.starts_with("HTTP/1.1 200"), "{healthy}");
    assert_eq!(told(), "READY=1");
    // Once every target has been polled, in vain or not.
    let page = get("/probe?target=silent").unwrap();
    let in_vain = crate::common::value_of(&page.replace('\r', ""), "streamlag_poll_failures_total{reason=\"timeout\"}");
    assert!(in_vain >= Some(1.0), "{page}");
    assert_eq!((told(), told()), ("WATCHDOG=1".to_owned(), "WATCHDOG=1".to_owned()));
    let signal = |signal: &str| {
        assert!(Command::new("kill").args([signal, &child.0.id().to_string()]).status().unwrap().success());
    };
    let next = || eventually("something else", || Some(told()).filter(|message| message != "WATCHDOG=1"));
    signal("-HUP");
    let reloading = next();
    assert!(reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{reloading}");
    assert_eq!(next(), "READY=1");
    signal("-TERM");
    assert_eq!(next(), "STOPPING=1");
    assert!(child.0.wait().unwrap().success());
}

#[test]
fn without_sockets_of_systemd_it_says_so() {
    let output = command(&["--web.systemd-socket"], &[]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("--web.systemd-socket takes listening TCP sockets"), "{said}");
}
