//! Replies that are none, or none to what was asked: nothing of it is believed, and none of it hurts.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use crate::common::proxy::{Fault, Rewrite};
use crate::common::storm::Storm;

/// For faults that are tried at every place in turn.
const QUICK: [&str; 2] = ["--poll.interval", "50ms"];

/// This instead of the reply in one place, on every connection.
fn instead_at(place: usize, other: &[u8]) -> Fault {
    let other = other.to_vec();
    replies(move |at, reply| if at == place { other.clone() } else { reply.to_vec() })
}

fn replies(rewrite: impl Fn(usize, &[u8]) -> Vec<u8> + Send + Sync + 'static) -> Fault {
    Fault::Replies(Arc::new(rewrite) as Rewrite)
}

/// The places of the replies on a connection, from its making to its second poll: what is asked then is what is asked in
/// every later one.
fn places(storm: &Storm) -> std::ops::Range<usize> {
    storm.proxy.set(replies(|_, reply| reply.to_vec()));
    storm.observer.next_poll();
    let places = 0..storm.proxy.replies();
    storm.proxy.set(Fault::None);
    storm.observer.next_poll();
    assert!(places.len() > 20, "{places:?}");
    places
}

/// A fault in each place in turn, or in some.
fn sweep(name: &str, step: usize, fault: impl Fn(usize) -> Fault) {
    let mut storm = Storm::new(&QUICK);
    let places = places(&storm);
    storm.sweep(name, places.step_by(step).map(fault));
}

/// Each of these instead of the reply in each place in turn, one beside the other.
fn everywhere(name: &str, others: &[&'static [u8]]) {
    std::thread::scope(|scope| {
        for other in others {
            let name = format!("{name} {}, everywhere", String::from_utf8_lossy(other).escape_debug());
            scope.spawn(move || sweep(&name, 1, |place| instead_at(place, other)));
        }
    });
}

#[test]
fn errors_of_the_server_in_every_place() {
    everywhere("error", &[b"-ERR no\r\n", b"-LOADING loading\r\n", b"-BUSY busy\r\n", b"-OOM out of memory\r\n"]);
}

#[test]
fn errors_of_permission_and_place_in_every_place() {
    let noperm = b"-NOPERM no permissions to run the command\r\n";
    everywhere(
        "error",
        &[noperm, b"-MOVED 1 10.0.0.1:6379\r\n", b"-MASTERDOWN link down\r\n", b"-READONLY replica\r\n"],
    );
}

#[test]
fn other_types_in_every_place() {
    everywhere("type", &[b":42\r\n", b"$-1\r\n", b"*0\r\n", b"*1\r\n*-1\r\n"]);
}

#[test]
fn replies_swapped_doubled_and_missing() {
    let swapped = |place| {
        let held = Mutex::new(Vec::new());
        replies(move |at, reply| {
            let mut held = held.lock().unwrap();
            if at == place {
                *held = reply.to_vec();
                return Vec::new();
            }
            let held = std::mem::take(&mut *held);
            if at == place + 1 { [reply, &held].concat() } else { reply.to_vec() }
        })
    };
    let twice = |place| replies(move |at, reply| if at == place { reply.repeat(2) } else { reply.to_vec() });
    let missing = |place| instead_at(place, b"");
    std::thread::scope(|scope| {
        scope.spawn(move || sweep("replies swapped, everywhere", 1, swapped));
        scope.spawn(move || sweep("a reply twice, everywhere", 1, twice));
        // Each costs a timeout.
        scope.spawn(move || sweep("a reply missing, in every third place", 3, missing));
    });
}

/// The place of the reply to `HELLO`, the first there is.
const HELLO: usize = 0;

/// The place of the reply to the first `EXEC` of a connection's first poll.
const EXEC: usize = 8;

fn outage_by(name: &str, reason: &str, place: usize, other: &[u8]) {
    Storm::new(&[]).outage_by(name, &[reason], instead_at(place, other));
}

#[test]
fn reasons_that_take_turns_are_said_once_each() {
    let connections = AtomicUsize::new(0);
    let by_turns = replies(move |at, reply| match at {
        HELLO if connections.fetch_add(1, Ordering::Relaxed).is_multiple_of(2) => b"-LOADING loading\r\n".to_vec(),
        HELLO => b"-ERR no\r\n".to_vec(),
        _ => reply.to_vec(),
    });
    Storm::new(&[]).outage_by("two errors by turns", &["loading", "server"], by_turns);
}

#[test]
fn junk() {
    let junk = b"\x00\xff\xfejunk\r\n";
    outage_by("junk for HELLO", "protocol", HELLO, junk);
    // All that the client says here is that it gave the connection up.
    outage_by("junk for EXEC", "protocol", EXEC, junk);
}

#[test]
fn ten_thousand_arrays_in_each_other() {
    outage_by("nesting 10,000 deep", "protocol", HELLO, &b"*1\r\n".repeat(10_000));
}

#[test]
fn more_announced_than_there_can_be() {
    std::thread::scope(|scope| {
        scope.spawn(|| outage_by("2 GiB announced", "protocol", EXEC, b"$2147483648\r\n"));
        scope.spawn(|| outage_by("array of 2^31-1 announced", "protocol", EXEC, b"*2147483647\r\n"));
        let nested = b"*2147483647\r\n".repeat(90);
        scope.spawn(move || outage_by("90 such arrays in each other", "protocol", EXEC, &nested));
    });
}

#[test]
fn lengths_that_cannot_be() {
    let mut storm = Storm::new(&[]);
    for other in ["$9223372036854775807", "|9223372036854775807", "=-1", "%9223372036854775807"] {
        let line = format!("{other}\r\n");
        storm.sweep(other, [HELLO, EXEC].map(|place| instead_at(place, line.as_bytes())));
    }
}

/// What is sent of a reply that does not end. The client holds it in a buffer that doubles.
const ENDLESS: usize = 16 << 20;

#[test]
fn a_reply_that_does_not_end() {
    let mut endless = b"$2147483648\r\n".to_vec();
    endless.resize(ENDLESS, b'x');
    outage_by("16 MiB of one reply", "protocol", EXEC, &endless);
}

#[test]
fn a_line_that_does_not_end() {
    let mut endless = b"+".to_vec();
    endless.resize(ENDLESS, b'x');
    // So much takes its time on a busy machine, and is not to be called a timeout.
    let patient = ["--redis.timeout", "5s"];
    Storm::new(&patient).outage_by("16 MiB of one line", &["protocol"], instead_at(EXEC, &endless));
}
