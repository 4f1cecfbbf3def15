//! Sentinel: a real master with two replicas and three sentinels, while the master is exchanged and while sentinels die.

use std::time::Instant;

use crate::common::observer::{Observer, Truth};
use crate::common::sentinel::{MASTER, Trio, USER};
use crate::common::{Streamlag, eventually, grants, servers, streamlag, value_of};

const GROUP: &str = "signalr-consumers";
const LAG: f64 = 13.0;

/// The password of the sentinels' user in a file, as `--redis.sentinel-password-file` takes it.
fn password() -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&file, "sentinel-pw\n").unwrap();
    file
}

/// The login at the sentinels, where they know users.
fn login<'a>(trio: &Trio, password: &'a tempfile::NamedTempFile) -> Vec<&'a str> {
    let file = password.path().to_str().unwrap();
    let login = ["--redis.sentinel-user", USER, "--redis.sentinel-password-file", file];
    if trio.has_users { login.to_vec() } else { Vec::new() }
}

fn watch(trio: &Trio, password: &tempfile::NamedTempFile, more: &[&str]) -> Streamlag {
    let (url, others) = (trio.url(), trio.others());
    let base = ["--redis.mode", "sentinel", "--redis.url", &url, "--redis.nodes", &others, "--streams", "events:chat"];
    streamlag(&[&base[..], &["--redis.sentinel-master", MASTER], &login(trio, password), more].concat())
}

/// A stream in the master that every replica has.
fn fill(trio: &Trio) -> Truth {
    let master = &trio.servers[0];
    master.add("events:chat", 20);
    master.run(&format!("XGROUP CREATE events:chat {GROUP} 0"));
    master.read("events:chat", GROUP, "instance-1", 7);
    for replica in &trio.servers[1..] {
        eventually("the replica has it", || {
            let groups: Result<Vec<Vec<redis::Value>>, _> =
                redis::cmd("XINFO").arg("GROUPS").arg("events:chat").query(&mut replica.connection());
            let read = format!("{:?}", groups.ok()?.first()?);
            read.contains("\"pending\"'), int(7)").then_some(())
        });
    }
    [(format!("{{stream=\"events:chat\",consumer_group=\"{GROUP}\"}}"), LAG)].into()
}

/// Waits until the page shows the lag, as this server says it.
fn shows(streamlag: &Streamlag, trio: &Trio, server: usize, when: &str) {
    let node = format!("streamlag_redis_node_up{{node=\"127.0.0.1:{}\"}}", trio.servers[server].port);
    eventually(&format!("the lag is shown {when}: {:?}", streamlag.log()), || {
        let page = streamlag.metrics();
        let lag = format!("event_consumer_lag{{stream=\"events:chat\",consumer_group=\"{GROUP}\"}}");
        (value_of(&page, &lag) == Some(LAG) && value_of(&page, &node) == Some(1.0)).then_some(())
    });
}

#[test]
fn a_sentinel_that_is_taken_for_a_redis_is_called_one() {
    // Older ones do not know HELLO, and then it is TIME that they do not know.
    let server = servers().pop().unwrap();
    let trio = Trio::start(&server, &[]);
    let url = format!("redis://{USER}:sentinel-pw@127.0.0.1:{}/0", trio.sentinels[0].port);
    let streamlag = streamlag(&["--redis.url", &url, "--streams", "events:chat"]);
    let line = eventually("it says so", || streamlag.log_lines("poll failed").pop());
    assert!(line.contains("this is a sentinel, which has no streams; see redis.mode"), "{line}");
}

/// Follows a failover; how long it took from `began`, and from when every sentinel named the new master.
fn follow(trio: &Trio, streamlag: &Streamlag, before: usize, began: Instant) -> (usize, String) {
    let (mut down, mut first, mut agreed) = (None, None, None);
    eventually("the new master is followed", || {
        let page = streamlag.metrics();
        if value_of(&page, "streamlag_redis_up") == Some(0.0) {
            down.get_or_insert(began.elapsed());
        }
        let named: Vec<_> = (0..3).map(|sentinel| trio.named(sentinel)).collect();
        if let Some(new) = named.iter().flatten().find(|server| **server != before) {
            first.get_or_insert(began.elapsed());
            if named.iter().all(|server| *server == Some(*new)) {
                agreed.get_or_insert((*new, began.elapsed()));
            }
        }
        let (new, agreed) = agreed?;
        let node = format!("streamlag_redis_node_up{{node=\"127.0.0.1:{}\"}}", trio.servers[new].port);
        let up = value_of(&page, &node) == Some(1.0) && value_of(&page, "streamlag_redis_up") == Some(1.0);
        let at = began.elapsed();
        let timeline =
            format!("down {down:.2?}, one sentinel names another {first:.2?}, all do {agreed:.2?}, followed {at:.2?}");
        up.then_some((new, timeline))
    })
}

#[test]
fn a_failover_that_is_asked_for_is_followed_within_an_interval() {
    for server in servers() {
        let (trio, password) = (Trio::start(&server, &["+role"]), password());
        let truth = fill(&trio);
        let streamlag = watch(&trio, &password, &[]).ready();
        shows(&streamlag, &trio, 0, "before");
        let observer = Observer::start(streamlag.address, truth);
        let began = Instant::now();
        trio.sentinels[2].try_run(&["SENTINEL", "FAILOVER", MASTER]).unwrap();
        let (new, timeline) = follow(&trio, &streamlag, 0, began);
        eprintln!("{}: failover: {timeline}", server.display());
        shows(&streamlag, &trio, new, "after");
        observer.nothing_was_wrong();
        assert_eq!(observer.lost(), 0.0);
        assert!(streamlag.metric("streamlag_redis_master_changes_total").unwrap() >= 1.0);
        assert!(!streamlag.log_lines("master changed").is_empty());
        // None of the documented grants is missing, anywhere.
        for server in &trio.servers {
            let refused = format!("{:?}", server.run("ACL LOG 128"));
            assert!(!refused.contains("\"role\"") && !refused.contains("xinfo"), "{refused}");
        }
        for sentinel in (0..3).filter(|_| trio.has_users) {
            let refused = format!("{:?}", trio.sentinels[sentinel].try_run(&["ACL", "LOG"]));
            assert!(!refused.contains("NOPERM") && !refused.contains("\"command\""), "{refused}");
        }
    }
}

#[test]
fn a_master_that_dies_is_replaced_by_the_one_that_the_sentinels_name() {
    for server in servers() {
        let (mut trio, password) = (Trio::start(&server, &["+role"]), password());
        let truth = fill(&trio);
        let streamlag = watch(&trio, &password, &[]).ready();
        shows(&streamlag, &trio, 0, "before");
        let observer = Observer::start(streamlag.address, truth);
        let began = Instant::now();
        trio.servers[0].stop();
        let (new, timeline) = follow(&trio, &streamlag, 0, began);
        eprintln!("{}: killed: {timeline}", server.display());
        shows(&streamlag, &trio, new, "after");
        observer.nothing_was_wrong();
        assert_eq!(observer.lost(), 0.0);
        // It comes back, and is made a replica.
        trio.servers[0].launch(&[]);
        trio.servers[0].wait();
        streamlag.next_sample();
        shows(&streamlag, &trio, new, "with the dead one back");
        assert_eq!(streamlag.metric("streamlag_redis_master_changes_total"), Some(1.0));
    }
}

#[test]
fn sentinels_that_die_or_fall_silent_cost_nothing_and_it_is_said_once_where_all_have() {
    let (mut trio, password) = (Trio::start(&servers()[0], &[]), password());
    fill(&trio);
    let streamlag = watch(&trio, &password, &["--poll.interval", "200ms"]).ready();
    shows(&streamlag, &trio, 0, "without a grant for ROLE");
    let failures = || streamlag.metric("streamlag_polls_total{outcome=\"failure\"}").unwrap();

    trio.sentinels[0].signal("-STOP");
    streamlag.next_sample();
    trio.sentinels[0].signal("-CONT");
    trio.sentinels[0].stop();
    streamlag.next_sample();
    assert!(streamlag.log_lines("no sentinel reachable").is_empty(), "{:?}", streamlag.log());
    trio.sentinels[1].stop();
    trio.sentinels[2].stop();
    eventually("it says so", || (!streamlag.log_lines("no sentinel reachable").is_empty()).then_some(()));
    for _ in 0..3 {
        streamlag.next_sample();
    }
    assert_eq!(streamlag.log_lines("no sentinel reachable").len(), 1, "{:?}", streamlag.log());
    assert_eq!(streamlag.metric("streamlag_redis_up"), Some(1.0));
    assert_eq!(failures(), 0.0, "{:?}", streamlag.log());
}

#[test]
fn what_no_sentinel_knows_is_said() {
    let (trio, password) = (Trio::start(&servers()[0], &[]), password());
    let check = |arguments: &[&str], expected: &str| {
        let streamlag = streamlag(arguments);
        eventually(&format!("it says {expected}"), || {
            let line = streamlag.log_lines("poll failed").pop()?;
            assert!(line.contains(expected) && !line.contains(grants::PASSWORD), "{line}");
            Some(())
        });
    };
    let url = trio.url();
    let base = ["--redis.mode", "sentinel", "--redis.url", &url];
    let another = [&base[..], &login(&trio, &password), &["--redis.sentinel-master", "another"]].concat();
    check(&another, "no master is named \\\"another\\\"");
    let nobody = ["--redis.mode", "sentinel", "--redis.url", "redis://127.0.0.1:1/0"];
    check(&nobody, "no sentinel names the master; 127.0.0.1:1: Connection refused");
}

/// A server that was demoted while nobody noticed is not sampled as if it were the master.
#[test]
fn a_replica_is_not_taken_for_the_master() {
    let (trio, password) = (Trio::start(&servers()[0], &["+role"]), password());
    let truth = fill(&trio);
    let streamlag = watch(&trio, &password, &[]).ready();
    shows(&streamlag, &trio, 0, "before");
    let observer = Observer::start(streamlag.address, truth);
    // The sentinels take half a minute to act on that, and name it until then.
    let master = &trio.servers[0];
    master.run("REPLICAOF 127.0.0.1 1");
    master.run("CLIENT KILL TYPE normal SKIPME yes");
    let refused = || streamlag.log_lines("it is no master any more but a slave");
    eventually("it refuses the replica", || (!refused().is_empty()).then_some(()));
    master.run("REPLICAOF NO ONE");
    shows(&streamlag, &trio, 0, "after");
    observer.nothing_was_wrong();
    assert_eq!(observer.lost(), 0.0);
}
