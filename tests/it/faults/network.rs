//! What networks do to a connection: nothing of it is a wrong number, and all of it passes.

use std::time::{Duration, Instant};

use crate::common::proxy::Fault;
use crate::common::storm::Storm;

#[test]
fn late_answers_within_the_timeout_are_no_outage() {
    let mut storm = Storm::new(&["--redis.timeout", "5s", "--poll.interval", "300ms"]);
    let late = Fault::Latency(Duration::from_millis(20));
    storm.harmless("latency 20 ms", |storm| storm.proxy.set(late), |storm| storm.proxy.set(Fault::None));
}

#[test]
fn answers_later_than_the_timeout_are_an_outage() {
    Storm::new(&[]).outage_by("latency 2 s", &["timeout"], Fault::Latency(Duration::from_secs(2)));
}

#[test]
fn answers_that_drip_are_read() {
    let mut storm = Storm::new(&["--redis.timeout", "30s", "--poll.interval", "300ms"]);
    storm.harmless("drip 50 bytes/ms", |storm| storm.proxy.set(Fault::Drip(50)), |storm| storm.proxy.set(Fault::None));
}

#[test]
fn answers_that_drip_past_the_timeout_are_an_outage() {
    Storm::new(&[]).outage_by("drip 1 byte/ms", &["timeout"], Fault::Drip(1));
}

#[test]
fn answers_cut_in_the_middle() {
    Storm::new(&[]).outage_by("cut mid-reply", &["io", "connect"], Fault::CutMidReply);
}

#[test]
fn a_black_hole() {
    Storm::new(&[]).outage_by("black hole", &["timeout"], Fault::BlackHole);
}

#[test]
fn resets() {
    Storm::new(&[]).outage_by("RST", &["io", "connect"], Fault::Reset);
}

#[test]
fn a_half_open_connection() {
    // The connections end with the fault, the last of them in the middle of a poll.
    Storm::new(&[]).outage_by("half-open", &["timeout", "io", "connect"], Fault::HalfOpen);
}

#[test]
fn connections_refused() {
    Storm::new(&[]).outage_by("refused", &["connect", "io"], Fault::Refuse);
}

#[test]
fn polls_longer_than_the_interval_never_overlap_and_never_queue() {
    let latency = Duration::from_millis(300);
    let interval = Duration::from_millis(50);
    let storm = Storm::new(&["--poll.interval", "50ms", "--redis.timeout", "30s"]);
    storm.proxy.set(Fault::Latency(latency));
    let from = storm.observer.next_poll();
    let began = Instant::now();
    let mut polls = from;
    while polls < from + 4.0 {
        polls = storm.observer.next_poll();
        let clients = storm.redis.info("clients");
        // One of them is this test's.
        let ours = clients.lines().find_map(|line| line.strip_prefix("connected_clients:")).unwrap();
        assert!(ours.trim().parse::<u32>().unwrap() <= 2, "{clients}");
    }
    // Each poll waited for an answer at least once, so that more of them in this time would have overlapped.
    let most = began.elapsed().as_secs_f64() / latency.as_secs_f64() + 1.0;
    assert!(polls - from <= most, "{} polls, and {most} fit in", polls - from);
    storm.proxy.set(Fault::None);
    let from = storm.observer.next_poll();
    let began = Instant::now();
    let mut polls = from;
    while polls < from + 10.0 {
        polls = storm.observer.next_poll();
    }
    let most = began.elapsed().as_secs_f64() / interval.as_secs_f64() + 2.0;
    assert!(polls - from <= most, "{} polls, and {most} fit in: missed ones were made up for", polls - from);
    storm.is_well();
    storm.observer.nothing_was_wrong();
}
