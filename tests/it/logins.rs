//! Logins cannot be starved: neither by guesses that wait to be checked, nor by those that shut an address out.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::common::{PATIENCE, Redis, Streamlag, eventually, streamlag};

const USER: &str = "prometheus:scrape-me-8c1d";

/// Addresses that guess, and guesses of each: as many as an address has at once.
const GUESSERS: u8 = 40;
const GUESSES: usize = 10;

/// Connections that streamlag has places for: `MAX_CONNECTIONS` of `src/http/admission.rs`.
const PLACES: usize = 1024;

struct Guarded {
    streamlag: Streamlag,
    _redis: Redis,
    _dir: tempfile::TempDir,
}

/// A streamlag whose metrics page wants a password, which takes bcrypt this cost to check.
fn guarded(cost: u32) -> Guarded {
    let (redis, dir) = (Redis::start(), tempfile::tempdir().unwrap());
    let (name, password) = USER.split_once(':').unwrap();
    let web = dir.path().join("web.yml");
    let hash = bcrypt::hash(password, cost).unwrap();
    std::fs::write(&web, format!("basic_auth_users:\n  {name}: {hash}\n")).unwrap();
    let streamlag = streamlag(&["--redis.url", &redis.url(), "--web.config.file", web.to_str().unwrap()]).ready();
    Guarded { streamlag, _redis: redis, _dir: dir }
}

/// A connection from this address of the loopback network.
fn connect(from: Ipv4Addr, to: SocketAddr) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((from, 0)).into()).unwrap();
    socket.connect(&to.into()).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn ask(stream: &mut TcpStream, path: &str, login: &str) {
    let login = STANDARD.encode(login);
    write!(stream, "HEAD {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Basic {login}\r\n\r\n").unwrap();
}

/// The head of the next answer, without its end; `None` where the connection was closed.
fn head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        match stream.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            _ => return None,
        }
    }
    Some(String::from_utf8(head).unwrap())
}

fn status(stream: &mut TcpStream) -> Option<u16> {
    head(stream)?.split(' ').nth(1)?.parse().ok()
}

/// Guesses that may be checked, or be seen in the log only now, while a login is answered.
const FEW: usize = 20;

#[test]
fn a_first_login_does_not_wait_for_guesses() {
    let guarded = guarded(8);
    let streamlag = &guarded.streamlag;
    let mut guesses = Vec::new();
    for guess in 0..GUESSES {
        for guesser in 0..GUESSERS {
            let mut stream = connect(Ipv4Addr::new(127, 0, 1, guesser), streamlag.address);
            ask(&mut stream, "/metrics", &format!("prometheus:guess-{guess}"));
            guesses.push(stream);
        }
    }
    let checked = || streamlag.log_lines("login failed").len();
    eventually("some guesses were checked", || (checked() > 3).then_some(()));
    let before = checked();
    let mut scraper = connect(Ipv4Addr::LOCALHOST, streamlag.address);
    ask(&mut scraper, "/metrics", USER);
    assert_eq!(status(&mut scraper), Some(200));
    let meanwhile = checked() - before;
    println!("{before} guesses were checked before the login, {meanwhile} while it waited");
    // The one that was being checked, and those until the log is read. In the order of arrival it would be all that wait: 64.
    assert!(meanwhile <= FEW, "{meanwhile} guesses were checked first");
    // It is remembered, and waits for nothing from now on.
    let before = checked();
    let mut other = connect(Ipv4Addr::LOCALHOST, streamlag.address);
    ask(&mut other, "/metrics", USER);
    assert_eq!(status(&mut other), Some(200));
    assert!(checked() - before <= FEW);
    let mut refused = 0;
    for mut guess in guesses {
        let head = head(&mut guess).expect("a guess was not answered");
        match head.split(' ').nth(1) {
            Some("401") => {}
            Some("429") => {
                let wait: u64 =
                    head.split_once("retry-after: ").unwrap().1.split_once("\r\n").unwrap().0.parse().unwrap();
                assert!((1..=6).contains(&wait), "{head}");
                refused += 1;
            }
            _ => panic!("{head}"),
        }
    }
    println!("{refused} guesses were refused at once");
    assert!(refused > 0);
}

#[test]
fn a_scraper_is_not_shut_out_by_its_address_and_its_number_of_connections() {
    let guarded = guarded(4);
    let address = guarded.streamlag.address;
    let mut scraper = connect(Ipv4Addr::LOCALHOST, address);
    ask(&mut scraper, "/metrics", USER);
    assert_eq!(status(&mut scraper), Some(200));
    // Somebody at the same address guesses until it is shut out.
    eventually("the address is shut out", || {
        let mut stream = connect(Ipv4Addr::LOCALHOST, address);
        ask(&mut stream, "/metrics", "prometheus:guess");
        (status(&mut stream) == Some(429)).then_some(())
    });
    // And takes all places with connections that have asked, and are younger than the scraper's.
    assert!(rlimit::increase_nofile_limit(2 * PLACES as u64).unwrap() >= 2 * PLACES as u64);
    let mut held = Vec::new();
    for _ in 0..PLACES + PLACES / 4 {
        let mut stream = connect(Ipv4Addr::LOCALHOST, address);
        ask(&mut stream, "/-/healthy", "");
        assert_eq!(status(&mut stream), Some(200));
        held.push(stream);
    }
    for _ in 0..3 {
        ask(&mut scraper, "/metrics", USER);
        assert_eq!(status(&mut scraper), Some(200), "the scraper was shut out");
    }
    // Over another connection nobody gets in, and over this one only who is known.
    ask(&mut scraper, "/metrics", "prometheus:guess");
    assert_eq!(status(&mut scraper), Some(429));
    ask(&mut scraper, "/metrics", USER);
    assert_eq!(status(&mut scraper), Some(200));
    let mut other = connect(Ipv4Addr::LOCALHOST, address);
    ask(&mut other, "/metrics", USER);
    assert_eq!(status(&mut other), Some(429));
}
