//! The log: it stops nothing where nobody reads it, and is clean and bounded whatever is said in it.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use crate::common::proxy::{Fault, Proxy};
use crate::common::{Redis, TOKEN, eventually, eventually_right, streamlag_logging_to};

/// Nothing of these may be in a line as it is.
fn is_harmful(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

const HOSTILE: &str =
    "x\u{1b}c\u{7f}\u{85}\u{9b}\u{61c}\u{200e}\u{200f}\u{202a}\u{202e}\u{2028}\u{2029}\u{2066}\u{2069}\ty";

#[test]
fn a_log_that_nobody_reads_stops_nothing() {
    let redis = Redis::start();
    redis.add("events:chat", 3);
    for format in ["logfmt", "json"] {
        let (reader, mut writer) = std::io::pipe().unwrap();
        // As much as a pipe holds.
        writer.write_all(&[b'\n'; 64 * 1024]).unwrap();
        let url = redis.url();
        let options = ["--redis.url", &url, "--poll.interval", "100ms", "--log.format", format, "--log.level", "debug"];
        let mut streamlag = streamlag_logging_to(writer, &[&options[..], &["--api.rate-limit", "0"]].concat());
        let dropped = "streamlag_log_lines_dropped_total";
        eventually("it is counted", || {
            assert_eq!(streamlag.get("/-/healthy").status, 200);
            // Each is a line; so few that their answers need not be read meanwhile.
            let ask = |more: &str| {
                let head =
                    format!("GET /api/v1/events/health HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n");
                format!("{head}{more}\r\n")
            };
            streamlag.raw([ask("").repeat(50), ask("Connection: close\r\n")].concat().as_bytes());
            streamlag.metric(dropped).filter(|dropped| *dropped > 0.0)
        });
        let before = streamlag.metric(dropped).unwrap();
        for _ in 0..20 {
            streamlag.json("health");
        }
        eventually("they are counted", || streamlag.metric(dropped).filter(|dropped| *dropped >= before + 20.0));
        eventually("polls go on", || streamlag.metric("streamlag_redis_up").filter(|up| *up == 1.0));
        assert_eq!(streamlag.get("/-/ready").status, 200);
        assert!(streamlag.is_running());
        streamlag.signal("-TERM");
        assert_eq!(streamlag.wait(), Some(0));
        drop(reader);
    }
}

#[test]
fn what_is_left_of_the_log_is_written_at_the_end() {
    let redis = Redis::start();
    let (mut reader, mut writer) = std::io::pipe().unwrap();
    // As much as a pipe holds, so that all of the log waits.
    writer.write_all(&[b'\n'; 64 * 1024]).unwrap();
    let url = redis.url();
    let mut streamlag = streamlag_logging_to(writer, &["--redis.url", &url, "--log.level", "debug"]);
    streamlag.signal("-TERM");
    eventually("it serves no more", || TcpStream::connect(streamlag.address).err());
    let mut log = String::new();
    reader.read_to_string(&mut log).unwrap();
    assert_eq!(streamlag.wait(), Some(0));
    let last = log.lines().last().unwrap();
    assert!(log.ends_with('\n') && last.contains("msg=stopped"), "{last}");
}

#[test]
fn no_line_holds_what_would_harm_who_reads_it() {
    let redis = Redis::start();
    redis.run("SET wrong 1");
    let (stream, group) = (format!("s{HOSTILE}"), format!("g{HOSTILE}"));
    redis.add(&stream, 1);
    let proxy = Proxy::start(redis.port);
    proxy.set(Fault::Replies(Arc::new(|_, reply| {
        let text = format!("-WRONGTYPE {HOSTILE} {}\r\n", "\u{202e}".repeat(1000));
        let reply = String::from_utf8_lossy(reply);
        let Some((before, after)) = reply.split_once("-WRONGTYPE ") else { return reply.into_owned().into_bytes() };
        let after = after.split_once("\r\n").unwrap().1;
        format!("{before}{text}{after}").into_bytes()
    })));
    let url = redis.url().replace(&redis.port.to_string(), &proxy.port.to_string());
    for format in ["logfmt", "json"] {
        let long = "n".repeat(3000);
        let streams = format!("wrong,{stream},missing{HOSTILE},{long}");
        let options = ["--redis.url", &url, "--streams", &streams, "--groups", &group, "--log.format", format];
        let streamlag = crate::common::streamlag(&options).ready();
        for what in ["consumer group not found", "no such key", "WRONGTYPE"] {
            eventually(what, || streamlag.log_lines(what).pop());
        }
        let log = streamlag.log();
        for line in &log {
            assert!(!line.contains(is_harmful), "{line:?}");
            assert!(line.len() < 4096, "{} bytes: {line}", line.len());
        }
        let line = streamlag.log_lines("consumer group not found").pop().unwrap();
        if format == "json" {
            let parsed: Vec<serde_json::Value> = log.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
            let said = parsed.iter().find(|line| line["msg"] == "consumer group not found").unwrap();
            assert_eq!((said["stream"].as_str(), said["consumer_group"].as_str()), (Some(&*stream), Some(&*group)));
            let said = parsed.iter().find(|line| line["stream"] == "wrong").unwrap();
            let error = said["error"].as_str().unwrap();
            assert!(error.starts_with("WRONGTYPE x") && error.ends_with('…') && error.len() < 1100, "{error:?}");
        } else {
            for escaped in ["\\u{1b}", "\\u{202e}", "\\u{2028}", "\\u{85}"] {
                assert!(line.contains(escaped), "{line}");
            }
        }
    }
}

/// A request without a good token, from this address.
fn fails_to_log_in(from: [u8; 4], to: SocketAddr) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((from, 0)).into()).unwrap();
    socket.connect(&to.into()).unwrap();
    let mut stream = TcpStream::from(socket);
    let head =
        "GET /api/v1/events/health HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer wrong\r\nConnection: close\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    let mut status = String::new();
    BufReader::new(stream).read_line(&mut status).unwrap();
    assert!(status.contains("401"), "{from:?}: {status}");
}

#[test]
fn one_kind_of_line_does_not_fill_the_log() {
    let redis = Redis::start();
    let url = redis.url();
    let mut streamlag = crate::common::streamlag(&["--redis.url", &url]).ready();
    for last in 0..150 {
        fails_to_log_in([127, 0, 7, last], streamlag.address);
    }
    streamlag.signal("-TERM");
    assert_eq!(streamlag.wait(), Some(0));
    eventually_right(|| {
        let (failed, more) = (streamlag.log_lines("msg=\"login failed\""), streamlag.log_lines("left_out=50"));
        if failed.len() == 100 && more.len() == 1 {
            Ok(())
        } else {
            Err(format!("{} {:?}", failed.len(), streamlag.log()))
        }
    });
    let more = streamlag.log_lines("left_out=50").pop().unwrap();
    assert!(more.contains("like=\"login failed\""), "{more}");
}
