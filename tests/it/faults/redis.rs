//! What happens to a real Redis: killed, frozen, busy, full, failed over, emptied.

use std::cell::RefCell;
use std::path::Path;
use std::thread::JoinHandle;

use crate::common::storm::{Storm, fill, truth};
use crate::common::{Redis, eventually, servers, value_of};

/// Runs a command that takes long, over a connection of its own.
fn in_background(redis: &Redis, words: &'static [&'static str]) -> JoinHandle<()> {
    let mut connection = redis.connection();
    std::thread::spawn(move || {
        // It may be killed.
        let _ = redis::cmd(words[0]).arg(&words[1..]).query::<redis::Value>(&mut connection);
    })
}

#[test]
fn frozen_and_thawed() {
    let mut storm = Storm::new(&[]);
    storm.outage("SIGSTOP", &["timeout"], |storm| storm.redis.signal("-STOP"), |storm| storm.redis.signal("-CONT"));
}

#[test]
fn killed_and_started_with_other_data() {
    let mut storm = Storm::direct(&[]);
    storm.outage(
        "SIGKILL, other data",
        &["connect"],
        |storm| storm.redis.stop(),
        |storm| {
            let other = Redis::start();
            fill(&other, 9, 2);
            other.run("SAVE");
            std::fs::copy(other.dir.path().join("dump.rdb"), storm.redis.dir.path().join("dump.rdb")).unwrap();
            storm.observer.also(truth(9, 2));
            storm.redis.launch(&[]);
            storm.redis.wait();
        },
    );
    storm.observer.only(truth(9, 2));
}

#[test]
fn a_master_that_fails_over_to_its_replica() {
    let mut storm = Storm::new(&[]);
    let replica = Redis::start();
    replica.run(&format!("REPLICAOF 127.0.0.1 {}", storm.redis.port));
    eventually("the replica has everything", || replica.info("replication").contains("_link_status:up").then_some(()));
    storm.outage(
        "failover",
        // The proxy stands for whatever takes the master's place in the network: it accepts, and nobody is behind it.
        &["io", "connect"],
        |storm| storm.redis.stop(),
        |storm| {
            replica.run("REPLICAOF NO ONE");
            storm.proxy.switch(replica.port);
        },
    );
    storm.observer.also(truth(21, 5));
    replica.add("events:chat", 1);
    storm.observer.only(truth(21, 5));
}

#[test]
fn no_more_clients() {
    let mut storm = Storm::direct(&[]);
    let held = RefCell::new(storm.redis.connection());
    let run = |words: &[&str]| redis::cmd(words[0]).arg(&words[1..]).exec(&mut *held.borrow_mut()).unwrap();
    storm.outage(
        "maxclients",
        &["server", "io"],
        |_| {
            run(&["CONFIG", "SET", "maxclients", "1"]);
            run(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
        },
        |_| run(&["CONFIG", "SET", "maxclients", "1000"]),
    );
}

#[test]
fn no_more_memory() {
    // Redis, up to some version, refuses to queue commands then, even those that only read.
    for server in servers() {
        let storm = Storm::over(Redis::start_with(&server, &[]), &["--groups", "*"]);
        let (redis, streamlag) = (&storm.redis, &storm.streamlag);
        redis.run("XGROUP CREATE events:chat middle 0");
        redis.read("events:chat", "middle", "reader", 2);
        storm.streamlag.log_clear();
        redis.run("CONFIG SET maxmemory 1");
        let queued =
            redis::pipe().atomic().cmd("XLEN").arg("events:chat").query::<redis::Value>(&mut redis.connection());
        let changes = usize::from(queued.is_err());
        eventually("it is said", || (streamlag.log_lines("command=MULTI").len() == changes).then_some(()));
        // So that a connection is made in this state, too.
        redis.run("CLIENT KILL TYPE normal");
        streamlag.next_sample();
        let lag = "event_consumer_lag{stream=\"events:chat\",consumer_group=\"middle\"}";
        let uncertainty = lag.replacen("_lag", "_lag_uncertainty", 1);
        let of = |page: &str, series: &str| value_of(page, series);
        let length = of(&streamlag.metrics(), "event_stream_length{stream=\"events:chat\"}").unwrap();
        let exact = |expected: f64| {
            eventually("the lag is exact", || {
                let page = streamlag.metrics();
                (of(&page, lag) == Some(expected) && of(&page, &uncertainty) == Some(0.0)).then_some(())
            });
        };
        exact(length - 2.0);
        // What still can be done: to read without leaving anything pending, and to delete.
        redis.run("XTRIM events:chat MAXLEN 3");
        exact(3.0);
        assert_eq!(streamlag.metric("streamlag_redis_up"), Some(1.0));
        assert_eq!(storm.log().len(), changes, "{}: {:?}", server.display(), storm.log());
        redis.run("CONFIG SET maxmemory 0");
        eventually("it is over", || (streamlag.log_lines("command allowed again").len() == changes).then_some(()));
        assert_eq!(storm.log().len(), 2 * changes, "{}: {:?}", server.display(), storm.log());
        exact(3.0);
    }
}

#[test]
fn a_script_that_does_not_end() {
    let mut storm = Storm::direct(&[]);
    storm.redis.run("CONFIG SET lua-time-limit 50");
    let mut running = None;
    storm.outage(
        "endless script",
        &["server"],
        |storm| running = Some(in_background(&storm.redis, &["EVAL", "while true do end", "0"])),
        |storm| drop(storm.redis.run("SCRIPT KILL")),
    );
    running.unwrap().join().unwrap();
}

#[test]
fn a_command_that_takes_seconds() {
    let version = std::process::Command::new("redis-server").arg("--version").output();
    let version = version.unwrap_or_else(|error| panic!("redis-server ({error}): run 'make test', which installs it"));
    let allowed = String::from_utf8_lossy(&version.stdout).contains("v=6.");
    let options: &[&str] = if allowed { &[] } else { &["--enable-debug-command", "yes"] };
    let mut storm = Storm::over(Redis::start_with(Path::new("redis-server"), options), &[]);
    let mut running = None;
    storm.outage(
        "DEBUG SLEEP 4",
        &["timeout"],
        |storm| running = Some(in_background(&storm.redis, &["DEBUG", "SLEEP", "4"])),
        |storm| storm.redis.wait(),
    );
    running.unwrap().join().unwrap();
}

#[test]
fn emptied_and_filled_again() {
    let mut storm = Storm::direct(&[]);
    let keys = ["events:chat", "events:ticket"];
    let dumps = keys.map(|key| redis::cmd("DUMP").arg(key).query::<Vec<u8>>(&mut storm.redis.connection()).unwrap());
    storm.unreadable(
        "FLUSHALL",
        |storm| drop(storm.redis.run("FLUSHALL")),
        |storm| {
            // Both at once, so that no poll sees a half of it.
            let mut restore = redis::pipe();
            for (key, dump) in keys.into_iter().zip(&dumps) {
                restore.atomic().cmd("RESTORE").arg(key).arg(0).arg(dump).ignore();
            }
            restore.exec(&mut storm.redis.connection()).unwrap();
        },
    );
}
