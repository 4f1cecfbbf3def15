//! Viewers that mean no good. Throughout each attack, scrapes succeed and an honest viewer is told what changes; after it,
//! what it took is given back.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use base64::Engine as _;

use crate::common::viewer::{EventStream, LIVE, protocols, refused, websocket};
use crate::common::{PATIENCE, Redis, Streamlag, TOKEN, eventually, eventually_right, streamlag, streamlag_with_env};
use crate::http_abuse::{Attack, Held, MEMORY_KB, SCRAPES, big_page, connect, is_open, memory_kb, scrapes};

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// The head of a request for a WebSocket, with the token and more lines.
fn upgrade(more: &str) -> Vec<u8> {
    format!(
        "GET {LIVE} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: {KEY}\r\nAuthorization: Bearer {TOKEN}\r\n{more}\r\n"
    )
    .into_bytes()
}

fn sse(query: &str) -> Vec<u8> {
    format!(
        "GET {LIVE}{query} HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"
    )
    .into_bytes()
}

/// A frame as a client sends it: masked with zeros, which leave the payload as it is.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        short if short < 126 => frame.push(0x80 | short as u8),
        medium if medium < 65_536 => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&(medium as u16).to_be_bytes());
        }
        long => {
            frame.push(0x80 | 127);
            frame.extend_from_slice(&(long as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(payload);
    frame
}

/// A raw WebSocket, past its handshake.
fn open_raw(address: SocketAddr) -> TcpStream {
    open_saying(address, b"")
}

/// The same, where the client says this in one breath with its upgrade.
fn open_saying(address: SocketAddr, says: &[u8]) -> TcpStream {
    let mut stream = ask(address, &[&upgrade("")[..], says].concat());
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    assert!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
    stream
}

/// A connection over which this was sent.
fn ask(address: SocketAddr, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(bytes).unwrap();
    stream
}

/// Reads frames of the server until it closes: the code and the reason of its close frame.
fn close_code(stream: &mut TcpStream) -> Option<(u16, String)> {
    loop {
        let mut head = [0; 2];
        stream.read_exact(&mut head).ok()?;
        assert_eq!(head[1] & 0x80, 0, "a server masks nothing");
        let mut long = [0; 8];
        let length = match head[1] {
            126 => {
                stream.read_exact(&mut long[6..]).ok()?;
                u64::from_be_bytes(long)
            }
            127 => {
                stream.read_exact(&mut long).ok()?;
                u64::from_be_bytes(long)
            }
            short => u64::from(short),
        };
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        stream.read_exact(&mut payload).ok()?;
        if head[0] & 0x0f == 8 {
            let (code, reason) = payload.split_first_chunk()?;
            return Some((u16::from_be_bytes(*code), String::from_utf8(reason.to_vec()).unwrap()));
        }
    }
}

/// What a client of a WebSocket says, and with which code it is shown out.
fn is_closed(streamlag: &Streamlag, what: &str, says: &[u8], expected: u16) {
    let mut stream = open_raw(streamlag.address);
    // It may be shown out before it has said everything.
    let _ = stream.write_all(says);
    let (code, reason) = close_code(&mut stream).unwrap();
    assert_eq!(code, expected, "{what}");
    // Silence has this code too, in the end.
    assert!(code != 1008 || reason == "too_many_frames", "{what}: {reason}");
    drop(stream);
    no_viewers(streamlag);
}

fn no_viewers(streamlag: &Streamlag) {
    eventually("no viewer is left", || (streamlag.metric("streamlag_live_viewers") == Some(0.0)).then_some(()));
}

fn watching() -> (Redis, Streamlag) {
    let redis = Redis::start();
    redis.run("XGROUP CREATE events:chat signalr-consumers 0 MKSTREAM");
    let streamlag = streamlag(&["--redis.url", &redis.url()]).ready();
    (redis, streamlag)
}

/// Scrapes and an honest viewer while `attack` goes on, and after it.
fn withstands(what: &str, blows: u64, attack: impl FnOnce(SocketAddr) -> Attack) {
    let (redis, mut streamlag) = big_page();
    let mut honest = EventStream::open(streamlag.address, "?stream=stream-7&group=one");
    honest.next().unwrap();
    let (peace, memory) = (scrapes(&streamlag), memory_kb(&streamlag));
    let attack = attack(streamlag.address);
    attack.has_struck(blows);
    let war = scrapes(&streamlag);
    redis.add("stream-7", 3);
    honest.until("news while it goes on", |message| {
        message["groups"].as_array().is_some_and(|rows| rows.iter().any(|row| row["lag"] == 3))
    });
    let taken = memory_kb(&streamlag).saturating_sub(memory);
    println!(
        "{what}: scrapes took {:?} at most in peace, {:?} during it (median {:?} and {:?}); {taken} kB of memory",
        peace[SCRAPES - 1],
        war[SCRAPES - 1],
        peace[SCRAPES / 2],
        war[SCRAPES / 2],
    );
    assert!(taken < MEMORY_KB, "{what} took {taken} kB");
    drop(attack);
    eventually_right(|| {
        let (open, viewers) =
            (streamlag.metric("streamlag_http_connections"), streamlag.metric("streamlag_live_viewers"));
        let free = open.is_some_and(|open| open <= 5.0) && viewers == Some(1.0);
        if free { Ok(()) } else { Err(format!("places are not free again: {open:?} connections, {viewers:?} viewers")) }
    });
    assert!(streamlag.is_running() && streamlag.log_lines("panic").is_empty(), "{:?}", streamlag.log());
}

// Who is let in.

#[test]
fn pages_of_other_sites_without_a_token_to_guess() {
    let redis = Redis::start();
    redis.run("XGROUP CREATE events:chat signalr-consumers 0 MKSTREAM");
    let open = streamlag_with_env(&["--redis.url", &redis.url(), "--api.insecure-no-auth"], &[]).ready();
    let address = open.address;
    let (own, port) = (format!("http://{address}"), address.port());
    assert_eq!(refused(address, "", &[]), 101, "it is open");
    assert_eq!(refused(address, "", &[("origin", &own)]), 101);
    for origin in [
        "http://evil.example".to_owned(),
        "null".to_owned(),
        format!("{own}.evil.example"),
        format!("http://evil.example:{port}"),
        format!("{own}/"),
        format!("http://user@{address}"),
        format!("http://127.0.0.1:{}", port ^ 1),
        "file://".to_owned(),
        format!("{own}, http://evil.example"),
    ] {
        assert_eq!(refused(address, "", &[("origin", &origin)]), 403, "{origin}");
        let reply = open.request("GET", LIVE, &[("Accept", "text/event-stream"), ("Origin", &origin)]);
        assert_eq!(reply.status, 403, "{origin}");
    }
    let two = [("Accept", "text/event-stream"), ("Origin", &*own), ("Origin", "http://evil.example")];
    assert_eq!(open.request("GET", LIVE, &two).status, 403);
    // No page of another site may read an answer, or ask whether it may.
    let preflight = open.request("OPTIONS", LIVE, &[("Origin", "http://evil.example")]);
    assert_eq!((preflight.status, preflight.header("access-control-allow-origin")), (405, None));
}

#[test]
fn tokens_in_the_query_and_in_the_log() {
    let (_redis, streamlag) = watching();
    for key in ["token", "access_token", "api_key", "authorization", "bearer"] {
        let query = format!("?{key}={TOKEN}");
        assert_eq!(refused(streamlag.address, &query, &[]), 401, "{key}");
        let bearer = format!("Bearer {TOKEN}");
        let reply = streamlag.request(
            "GET",
            &format!("{LIVE}{query}"),
            &[("Accept", "text/event-stream"), ("Authorization", &bearer)],
        );
        assert_eq!(reply.status, 400, "{key}");
        assert!(!reply.text().contains(TOKEN), "{}", reply.text());
    }
    assert!(!streamlag.log().join("\n").contains(TOKEN));
}

#[test]
fn subprotocols_that_are_none() {
    let (_redis, streamlag) = watching();
    let address = streamlag.address;
    let with = |value: &str| refused(address, "", &[("sec-websocket-protocol", value)]);
    let token = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(TOKEN);
    let good = format!("base64url.bearer.authorization.streamlag.{token}");
    assert_eq!(with(&format!("streamlag.v1, {good}")), 101);
    // The token comes first, or the name is missing, or there are two, or it is another's.
    assert_eq!(with(&format!("{good}, streamlag.v1")), 101);
    assert_eq!(with(&good), 400);
    assert_eq!(with(&format!("streamlag.v1, {good}, {good}")), 400);
    assert_eq!(with("streamlag.v1"), 401);
    assert_eq!(with(&format!("streamlag.v1, base64url.bearer.authorization.k8s.io.{token}")), 401);
    for wrong in [TOKEN, "", "%00", "AAAA====", &format!("{token}="), &token.to_uppercase()] {
        let value = format!("streamlag.v1, base64url.bearer.authorization.streamlag.{wrong}");
        assert_eq!(with(&value), 401, "{wrong}");
    }
    let long = format!("streamlag.v1, base64url.bearer.authorization.streamlag.{}", "A".repeat(20_000));
    assert_eq!(with(&long), 431);
    // It is never said again, and a wrong header is not made up for by a right subprotocol.
    let value = protocols(TOKEN);
    let (_socket, response) = websocket(address, "", &[("sec-websocket-protocol", &value)]).unwrap();
    assert!(response.headers().iter().all(|(_, value)| !value.to_str().unwrap().contains(&token)));
    assert_eq!(refused(address, "", &[("sec-websocket-protocol", &value), ("authorization", "Bearer wrong")]), 401);
}

#[test]
fn guesses_by_subprotocol_are_limited_as_others_are() {
    let (_redis, streamlag) = watching();
    let guess =
        |n: u32| refused(streamlag.address, "", &[("sec-websocket-protocol", &protocols(&format!("guess-{n}")))]);
    let statuses: Vec<u16> = (0..30).map(guess).collect();
    assert!(statuses.starts_with(&[401; 10]) && statuses.ends_with(&[429]), "{statuses:?}");
}

// What is no WebSocket.

#[test]
fn frames_that_are_too_large() {
    let (_redis, streamlag) = watching();
    let memory = memory_kb(&streamlag);
    // Announced only: 2^62 bytes, and one more than is taken.
    let announced = [&[0x82, 0xff][..], &(1_u64 << 62).to_be_bytes(), &[0; 4]].concat();
    is_closed(&streamlag, "2^62 bytes", &announced, 1009);
    is_closed(&streamlag, "4097 bytes", &frame(0x82, &[b'a'; 4097]), 1009);
    // In fragments, without end.
    let mut fragments = frame(0x02, &[b'a'; 1000]);
    fragments.extend(frame(0x00, &[b'a'; 1000]).repeat(100));
    is_closed(&streamlag, "a message in fragments", &fragments, 1009);
    // The sign bit of a 63 bit length, and a length that could have been shorter.
    let negative = [&[0x82, 0xff][..], &u64::MAX.to_be_bytes(), &[0; 4]].concat();
    is_closed(&streamlag, "2^64 - 1 bytes", &negative, 1009);
    assert!(memory_kb(&streamlag).saturating_sub(memory) < MEMORY_KB / 10);
}

#[test]
fn fragments_of_nothing_without_end() {
    let (_redis, streamlag) = watching();
    let zeros = [frame(0x01, b""), frame(0x00, b"").repeat(10_000)].concat();
    is_closed(&streamlag, "a message that does not end", &zeros, 1008);
}

#[test]
fn floods_of_pings_and_pongs() {
    let (_redis, streamlag) = watching();
    is_closed(&streamlag, "pings", &frame(0x89, b"x").repeat(5000), 1008);
    is_closed(&streamlag, "pongs that answer nothing", &frame(0x8a, b"x").repeat(5000), 1008);
    is_closed(&streamlag, "pings within a message", &[frame(0x01, b"a"), frame(0x89, b"x").repeat(500)].concat(), 1008);
}

#[test]
fn compressed_bombs_and_reserved_bits() {
    let (_redis, streamlag) = watching();
    // A compressed message, where no extension was agreed on.
    let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(&vec![0; 3_000_000]).unwrap();
    let bomb = encoder.finish().unwrap();
    is_closed(&streamlag, "a bomb", &frame(0xc2, &bomb[..bomb.len().min(4000)]), 1002);
    for bits in [0x90, 0xa0, 0xf0] {
        is_closed(&streamlag, "reserved bits", &frame(bits | 0x02, b"a"), 1002);
    }
    // Offered, and not taken up.
    let extensions = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n";
    let mut stream = ask(streamlag.address, &upgrade(extensions));
    let mut head = [0; 2048];
    let read = stream.read(&mut head).unwrap();
    let head = String::from_utf8_lossy(&head[..read]).to_lowercase();
    assert!(head.starts_with("http/1.1 101") && !head.contains("sec-websocket-extensions"), "{head}");
}

#[test]
fn frames_that_break_the_rules() {
    let (_redis, streamlag) = watching();
    let check = |what: &str, says: &[u8], code| is_closed(&streamlag, what, says, code);
    check("not masked", &[0x81, 0x01, b'a'], 1002);
    check("opcode 3", &frame(0x83, b"a"), 1002);
    check("opcode 15", &frame(0x8f, b""), 1002);
    check("a ping of 126 bytes", &frame(0x89, &[0; 126]), 1002);
    check("a ping in fragments", &frame(0x09, b"a"), 1002);
    check("a continuation of nothing", &frame(0x80, b"a"), 1002);
    check("a message within a message", &[frame(0x01, b"a"), frame(0x81, b"b")].concat(), 1002);
    check("half a close code", &frame(0x88, &[3]), 1002);
    check("text that is not UTF-8", &frame(0x81, b"\xff\xfe"), 1003);
    check("a text", &frame(0x81, b"{\"type\":\"subscribe\"}"), 1003);
    check("bytes", &frame(0x82, b"\0\0\0"), 1003);
    check("HTTP", b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", 1002);
}

#[test]
fn a_close_frame_is_answered() {
    let (_redis, streamlag) = watching();
    for (payload, code) in [(&[0x03, 0xe8][..], 1000), (&[0x0f, 0xa0, b'x'], 4000)] {
        is_closed(&streamlag, "a close frame", &frame(0x88, payload), code);
    }
    // A code that nobody may send, and a reason that is not UTF-8.
    for payload in [&[0x03, 0xed][..], &[0xff, 0xff], &[0x03, 0xe8, 0xff]] {
        let mut stream = open_raw(streamlag.address);
        stream.write_all(&frame(0x88, payload)).unwrap();
        close_code(&mut stream);
        drop(stream);
        no_viewers(&streamlag);
    }
}

/// What is told and the close frame are there at the same moment: a viewer that watches on has the feed ready.
#[test]
fn a_close_frame_is_answered_where_there_is_news() {
    let (_redis, streamlag) = watching();
    let mut other = EventStream::open(streamlag.address, "");
    other.next().unwrap();
    for _ in 0..200 {
        let mut stream = open_saying(streamlag.address, &frame(0x88, &[0x03, 0xe8]));
        assert_eq!(close_code(&mut stream).map(|(code, _)| code), Some(1000));
    }
}

#[test]
fn requests_that_are_smuggled_behind_an_upgrade() {
    let (_redis, streamlag) = watching();
    let smuggled = b"GET /api/v1/events/groups HTTP/1.1\r\nHost: x\r\n\r\n";
    // What comes behind is read as frames, and as nothing else.
    let mut stream = ask(streamlag.address, &[&upgrade("")[..], smuggled].concat());
    let mut all = Vec::new();
    let _ = stream.read_to_end(&mut all);
    assert_eq!(String::from_utf8_lossy(&all).matches("HTTP/1.1 ").count(), 1);
    // A body, which no upgrade has.
    for more in ["Content-Length: 46\r\n", "Transfer-Encoding: chunked\r\n"] {
        let mut stream = ask(streamlag.address, &[&upgrade(more)[..], smuggled].concat());
        let _ = stream.shutdown(Shutdown::Write);
        let mut all = Vec::new();
        let _ = stream.read_to_end(&mut all);
        assert!(String::from_utf8_lossy(&all).matches("HTTP/1.1 ").count() <= 1, "{more}");
    }
    // An upgrade that a proxy would understand otherwise.
    let other = String::from_utf8(upgrade("")).unwrap().replace("Upgrade: websocket", "Upgrade: h2c");
    let last = b"GET /api/v1/events/groups HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let reply = streamlag.raw(&[other.as_bytes(), last].concat());
    assert_eq!(reply.status, 406);
    no_viewers(&streamlag);
}

// What takes much.

#[test]
fn viewers_that_never_read() {
    withstands("100 event streams that nobody reads", 100, |address| {
        Attack::new(1, move |_| {
            let mut held = Held::new(address, 99);
            move || {
                std::thread::sleep(Duration::from_millis(1));
                held.strike(&sse(""), |_| true);
            }
        })
    });
}

#[test]
fn sockets_that_never_read() {
    withstands("99 WebSockets that nobody reads", 100, |address| {
        Attack::new(1, move |_| {
            let mut held = Held::new(address, 99);
            move || {
                std::thread::sleep(Duration::from_millis(1));
                held.strike(&upgrade(""), |_| true);
            }
        })
    });
}

#[test]
fn viewers_that_read_a_byte_now_and_then() {
    withstands("99 viewers that read byte by byte", 1000, |address| {
        Attack::new(1, move |_| {
            let mut held = Held::new(address, 99);
            move || {
                held.strike(&sse(""), |stream| {
                    std::thread::sleep(Duration::from_micros(200));
                    match stream.read(&mut [0; 1]) {
                        Ok(read) => read > 0,
                        Err(error) => error.kind() == ErrorKind::WouldBlock,
                    }
                });
            }
        })
    });
}

#[test]
fn ten_thousand_viewers() {
    let descriptors = rlimit::increase_nofile_limit(11_000).unwrap();
    let count = usize::try_from(descriptors).unwrap().saturating_sub(500).min(10_000);
    withstands("10,000 viewers", count as u64, move |address| {
        Attack::new(1, move |_| {
            let mut held = Held::new(address, count);
            move || held.strike(&sse(""), is_open)
        })
    });
}

#[test]
fn ten_thousand_upgrades_that_say_nothing_more() {
    let descriptors = rlimit::increase_nofile_limit(11_000).unwrap();
    let count = usize::try_from(descriptors).unwrap().saturating_sub(500).min(10_000);
    withstands("10,000 WebSockets", count as u64, move |address| {
        Attack::new(1, move |_| {
            let mut held = Held::new(address, count);
            move || held.strike(&upgrade(""), is_open)
        })
    });
}

#[test]
fn viewers_that_come_and_go() {
    withstands("viewers that leave at once", 500, |address| {
        Attack::new(2, move |thread| {
            move || {
                if let Some(mut stream) = connect(address) {
                    let _ = stream.write_all(if thread == 0 { sse("") } else { upgrade("") }.as_slice());
                    std::thread::sleep(Duration::from_millis(2));
                    // With what it was sent unread, so that its end is a reset.
                    drop(stream);
                }
            }
        })
    });
}

#[test]
fn filters_that_differ_and_take_long() {
    withstands("costly filters", 300, |address| {
        Attack::new(1, move |_| {
            let (mut held, mut n) = (Held::new(address, 99), 0_u64);
            move || {
                std::thread::sleep(Duration::from_millis(1));
                n += 1;
                let glob = format!("{}{n}", "*s*t*r*e*a*m".repeat(60));
                held.strike(&sse(&format!("?stream={glob}")), is_open);
            }
        })
    });
}

/// Each filter has a message of its own, of all rows. Without a bound they take a message per viewer: here 80 MB.
#[test]
fn filters_that_differ_and_find_the_same() {
    let redis = Redis::start();
    let names: Vec<String> = (0..2000).map(|n| format!("stream-{n}")).collect();
    let mut pipe = redis::pipe();
    for name in &names {
        pipe.cmd("XGROUP").arg("CREATE").arg(name).arg("one").arg("0").arg("MKSTREAM").ignore();
    }
    pipe.query::<()>(&mut redis.connection()).unwrap();
    let (url, streams) = (redis.url(), names.join(","));
    let arguments = [
        ["--redis.url", &url],
        ["--streams", &streams],
        ["--groups", "*"],
        ["--redis.timeout", "30s"],
        ["--api.rate-limit", "0"],
        ["--limit.memory-for-readers", "16MiB"],
    ];
    let streamlag = streamlag(&arguments.concat()).ready();
    let mut honest = EventStream::open(streamlag.address, "?stream=stream-7");
    honest.next().unwrap();
    let memory = memory_kb(&streamlag);
    let groups = ["*", "?*", "??*", "???*", "o*", "on*", "*e", "*n*", "one"];
    let filters = (0..=8).flat_map(|n| groups.map(|group| format!("?stream={}*&group={group}", "?".repeat(n))));
    let unread: Vec<TcpStream> = filters
        .map(|filter| {
            let mut stream = connect(streamlag.address).unwrap();
            stream.write_all(&sse(&filter)).unwrap();
            stream
        })
        .collect();
    eventually("some are told that there is no memory", || {
        streamlag.metric("streamlag_live_streams_ended_total{reason=\"no_memory\"}").filter(|ended| *ended > 0.0)
    });
    let taken = memory_kb(&streamlag).saturating_sub(memory);
    println!("{} viewers, each of another message: {taken} kB of memory", unread.len());
    assert!(taken < 60 * 1024, "{taken} kB");
    redis.add("stream-7", 3);
    honest.until("news while it goes on", |message| {
        message["groups"].as_array().is_some_and(|rows| rows.iter().any(|row| row["lag"] == 3))
    });
    drop((unread, honest));
    no_viewers(&streamlag);
    assert_eq!(streamlag.metric("streamlag_panics_total"), Some(0.0));
}

#[test]
fn upgrades_that_come_byte_by_byte() {
    withstands("slow upgrades", 2000, |address| {
        Attack::new(1, move |_| {
            let mut held = Held::new(address, 1200);
            let head = upgrade("X-Slow: ");
            move || {
                held.strike(&head[..head.len() - 2], |stream| {
                    std::thread::sleep(Duration::from_micros(100));
                    stream.write_all(b"a").is_ok()
                });
            }
        })
    });
}

#[test]
fn pings_from_all_sides() {
    withstands("99 sockets that ping", 2000, |address| {
        Attack::new(1, move |_| {
            let mut held = Held::new(address, 99);
            let pings = frame(0x89, &[b'p'; 125]).repeat(20);
            move || {
                held.strike(&upgrade(""), |stream| {
                    let _ = stream.read(&mut [0; 4096]);
                    match stream.write(&pings) {
                        Ok(written) => written > 0,
                        Err(error) => error.kind() == ErrorKind::WouldBlock,
                    }
                });
            }
        })
    });
}

#[test]
fn viewers_that_hang_up_half_way() {
    let (_redis, streamlag) = watching();
    let began = Instant::now();
    for says in [sse(""), upgrade("")] {
        for _ in 0..20 {
            let mut stream = TcpStream::connect(streamlag.address).unwrap();
            stream.write_all(&says).unwrap();
            let _ = stream.read(&mut [0; 100]);
            let _ = stream.shutdown(Shutdown::Write);
        }
        no_viewers(&streamlag);
    }
    println!("40 viewers that hung up half way were gone after {:?}", began.elapsed());
}
