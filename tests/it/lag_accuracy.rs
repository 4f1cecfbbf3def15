//! What resets knowledge, what is lost, and what it costs: each on a real server of every version there is.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::common::grants::USER_WITH_SCRIPTS;
use crate::common::sampled::{COUNT_BUDGET, Sampled, present};
use crate::common::{Redis, eventually, servers};
use redis::Value;
use streamlag::analysis::snapshot::{PresentGroup, StreamSnapshot};
use streamlag::model::EntryId;

/// Runs a test on every server.
fn on_every_server(test: impl Fn(&Redis, bool)) {
    for server in servers() {
        let redis = Redis::start_with(&server, &[]);
        println!("{}", server.display());
        test(&redis, redis.is_before_7());
    }
}

/// Adds entries `from-0` to `to-0`.
fn add(redis: &Redis, stream: &str, from: u64, to: u64) {
    let mut pipe = redis::pipe();
    for n in from..=to {
        pipe.cmd("XADD").arg(stream).arg(format!("{n}-0")).arg("n").arg(n).ignore();
    }
    pipe.query::<()>(&mut redis.connection()).unwrap();
}

/// Entries in the stream above an id, counted.
fn above(redis: &Redis, stream: &str, cursor: EntryId) -> u64 {
    let from = cursor.next().unwrap().to_string();
    let reply = redis.run(&format!("XRANGE {stream} {from} +"));
    match reply {
        Value::Array(entries) => entries.len() as u64,
        other => panic!("{other:?}"),
    }
}

/// The lag is exact and right.
fn exact(redis: &Redis, snapshot: &StreamSnapshot, group: &str) -> u64 {
    let found = present(snapshot, group);
    let truth = above(redis, &snapshot.key.to_string(), found.last_delivered.unwrap());
    assert_eq!((found.lag.min, found.lag.max), (truth, truth), "{group}: {found:?}");
    truth
}

/// Lags of hundreds, so that they are not simply counted afresh each time.
fn example(redis: &Redis) {
    redis.run("XGROUP CREATE s g 0 MKSTREAM");
    add(redis, "s", 1, 1000);
    redis.read("s", "g", "c", 300);
}

#[test]
fn what_is_set_by_hand_proves_nothing() {
    on_every_server(|redis, old| {
        example(redis);
        let mut sampled = Sampled::new(redis, &["s"], COUNT_BUDGET);
        assert_eq!(exact(redis, &sampled.one(), "g"), 700);
        let mut lies = vec!["XGROUP SETID s g 500-0", "XCLAIM s g c 0 1-0 LASTID 555-0", "XSETID s NEXT-0"];
        if !old {
            lies.extend([
                "XGROUP SETID s g 400-0 ENTRIESREAD 7",
                "XGROUP CREATE s liar 200-0 ENTRIESREAD 999",
                "XSETID s NEXT-0 ENTRIESADDED 5000 MAXDELETEDID 0-1",
                "XGROUP SETID s g 450-0 ENTRIESREAD 3000",
                "XSETID s NEXT-0 ENTRIESADDED 1400 MAXDELETEDID 0-1",
            ]);
        }
        for (number, lie) in lies.into_iter().enumerate() {
            let next = 2000 + 1000 * number as u64;
            redis.run(&lie.replace("NEXT", &next.to_string()));
            let snapshot = sampled.one();
            assert!(exact(redis, &snapshot, "g") > 100, "{lie}");
            if snapshot.groups.len() > 1 {
                exact(redis, &snapshot, "liar");
            }
            // And goes on from there, with the counters as they now are.
            add(redis, "s", next + 1, next + 20);
            redis.read("s", "g", "c", 10);
            let snapshot = sampled.one();
            assert!(exact(redis, &snapshot, "g") > 100, "{lie}");
            assert_eq!(present(&snapshot, "g").trend.lost, 0, "{lie}");
        }
    });
}

/// Counters set in a way that nothing shows: a small lag is counted and does not hang on them.
#[test]
fn a_small_lag_hangs_on_no_counter() {
    on_every_server(|redis, old| {
        redis.run("XGROUP CREATE s g 100-0 MKSTREAM");
        add(redis, "s", 1, 150);
        let mut sampled = Sampled::new(redis, &["s"], COUNT_BUDGET);
        assert_eq!(exact(redis, &sampled.one(), "g"), 50);
        redis.run("XTRIM s MAXLEN 120");
        if !old {
            redis.run("XSETID s 150-0 ENTRIESADDED 170 MAXDELETEDID 0-0");
        }
        add(redis, "s", 151, 155);
        assert_eq!(exact(redis, &sampled.one(), "g"), 55);
    });
}

#[test]
fn another_stream_under_the_same_name_is_another_stream() {
    on_every_server(|redis, _| {
        example(redis);
        let mut sampled = Sampled::new(redis, &["s"], COUNT_BUDGET);
        exact(redis, &sampled.one(), "g");
        for (remove, first, count, cursor) in [
            ("DEL s", 1, 1000, 300),
            ("DEL s", 1, 1500, 300),
            ("DEL s", 7, 1200, 301),
            ("FLUSHALL", 500, 2000, 900),
            ("DEL s", 5000, 9000, 6000),
            ("UNLINK s", 1, 250, 20),
        ] {
            redis.run(remove);
            add(redis, "s", first, count);
            redis.run(&format!("XGROUP CREATE s g {cursor}-0"));
            let snapshot = sampled.one();
            assert_eq!(exact(redis, &snapshot, "g"), count - cursor, "{remove} {first} {count}");
            redis.run("XTRIM s MAXLEN 200");
            exact(redis, &sampled.one(), "g");
        }
        // Filled again with ids of its own, of which the first and the last one seen are the same.
        redis.run("DEL s");
        add(redis, "s", 1, 1000);
        redis.run("XGROUP CREATE s g 500-0");
        assert_eq!(exact(redis, &sampled.one(), "g"), 500);
        redis.run("DEL s");
        add(redis, "s", 1, 1);
        add(redis, "s", 600, 2000);
        redis.run("XGROUP CREATE s g 500-0");
        assert_eq!(exact(redis, &sampled.one(), "g"), 1401);
        // An older copy under the same name, without a new connection.
        redis.run("DEL s");
        example(redis);
        exact(redis, &sampled.one(), "g");
        let copy = redis.run("DUMP s");
        add(redis, "s", 1001, 1100);
        redis.read("s", "g", "c", 500);
        exact(redis, &sampled.one(), "g");
        let Value::BulkString(copy) = copy else { panic!("{copy:?}") };
        redis.run_bytes(&[b"RESTORE", b"s", b"0", &copy, b"REPLACE"]);
        assert_eq!(exact(redis, &sampled.one(), "g"), 700);
    });
}

#[test]
fn groups_made_anew_and_cursors_moved_are_followed() {
    on_every_server(|redis, _| {
        example(redis);
        let mut sampled = Sampled::new(redis, &["s"], COUNT_BUDGET);
        exact(redis, &sampled.one(), "g");
        for (command, lag) in [
            ("XGROUP SETID s g 100-0", 900),
            ("XGROUP SETID s g $", 0),
            ("XGROUP SETID s g 0", 1000),
            ("XGROUP SETID s g 5000-0", 0),
            ("XGROUP SETID s g 640-5", 360),
        ] {
            redis.run(command);
            assert_eq!(exact(redis, &sampled.one(), "g"), lag, "{command}");
        }
        redis.run("XGROUP DESTROY s g");
        redis.run("XGROUP CREATE s g 250-0");
        assert_eq!(exact(redis, &sampled.one(), "g"), 750);
        // A cursor ahead of all ids sees entries added below it as delivered.
        redis.run("XGROUP SETID s g 1010-0");
        assert_eq!(exact(redis, &sampled.one(), "g"), 0);
        add(redis, "s", 1001, 1200);
        assert_eq!(exact(redis, &sampled.one(), "g"), 190);
    });
}

#[test]
fn a_restart_from_an_old_file_or_another_version_starts_knowledge_again() {
    let servers = servers();
    for server in &servers {
        let mut redis = Redis::start_with(server, &[]);
        example(&redis);
        let mut sampled = Sampled::new(&redis, &["s"], COUNT_BUDGET);
        exact(&redis, &sampled.one(), "g");
        redis.run("SAVE");
        // What happens now is forgotten by the restart, and other entries take its place.
        add(&redis, "s", 1001, 1400);
        redis.read("s", "g", "c", 150);
        assert_eq!(exact(&redis, &sampled.one(), "g"), 950);
        redis.stop();
        // The newest that reads the files of this one: a server does so for those before it.
        let newest = servers.iter().filter(|other| described(other).0 == described(server).0);
        let newest = newest.max_by_key(|other| described(other).1).unwrap();
        println!("{} after {}", newest.display(), server.display());
        redis.switch_to(newest);
        redis.launch(&[]);
        redis.wait();
        add(&redis, "s", 1031, 1900);
        redis.read("s", "g", "c", 100);
        let snapshot = sampled.one();
        assert_eq!(exact(&redis, &snapshot, "g"), 600 + 870);
        assert_eq!(present(&snapshot, "g").trend.lost, 0);
        redis.run("XGROUP SETID s g 1100-0");
        assert_eq!(exact(&redis, &sampled.one(), "g"), 800);
    }
}

/// `Redis` or `Valkey`, and its version, as the binary says.
fn described(server: &Path) -> (String, Vec<u32>) {
    let output = std::process::Command::new(server).arg("--version").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let version = text.split_whitespace().find_map(|word| word.strip_prefix("v=")).unwrap();
    let kind = text.split_whitespace().next().unwrap().to_owned();
    (kind, version.split('.').map(|number| number.parse().unwrap()).collect())
}

#[test]
fn ids_that_are_no_clocks_and_clocks_that_run_backwards() {
    on_every_server(|redis, _| {
        example(redis);
        let snapshot = Sampled::new(redis, &["s"], COUNT_BUDGET).one();
        assert_eq!((present(&snapshot, "g").lag_seconds, present(&snapshot, "g").oldest_pending_seconds), (None, None));
        // A producer's clock that was an hour ahead: Redis goes on from there.
        let ahead = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() + 3_600_000;
        redis.run("XGROUP CREATE t g 0 MKSTREAM");
        redis.run(&format!("XADD t {ahead}-0 n 1"));
        redis.add("t", 500);
        redis.read("t", "g", "c", 100);
        let mut sampled = Sampled::new(redis, &["t"], COUNT_BUDGET);
        let snapshot = sampled.one();
        assert_eq!(exact(redis, &snapshot, "g"), 401);
        // Nobody knows how long they have waited: a 0 would say that none waits.
        assert_eq!((present(&snapshot, "g").lag_seconds, present(&snapshot, "g").oldest_pending_seconds), (None, None));
    });
}

fn group(sampled: &mut Sampled) -> PresentGroup {
    present(&sampled.one(), "g").clone()
}

#[test]
fn what_is_trimmed_or_deleted_undelivered_is_lost_and_nothing_else_is() {
    on_every_server(|redis, old| {
        example(redis);
        // Read up to 300 by somebody who has gone since, so that nobody can have read on.
        redis.run("XGROUP DELCONSUMER s g c");
        let mut sampled = Sampled::new(redis, &["s"], COUNT_BUDGET);
        let first = group(&mut sampled);
        assert_eq!((first.trend.lost, first.trim_headroom_entries), (0, Some(300)));
        // Delivered ones go: no loss, less headroom.
        redis.run("XTRIM s MAXLEN 800");
        let trimmed = group(&mut sampled);
        assert_eq!((trimmed.trend.lost, trimmed.trim_headroom_entries), (0, Some(100)));
        // 100 delivered and 250 undelivered ones.
        redis.run("XTRIM s MAXLEN 450");
        let lost = group(&mut sampled);
        assert_eq!((lost.trend.lost, lost.trim_headroom_entries, lost.lag.point), (250, Some(0), 450));
        // One from the middle, ahead of the cursor; and one that is there only between two samples.
        redis.run("XDEL s 900-0");
        add(redis, "s", 1001, 1001);
        redis.run("XDEL s 1001-0");
        // Before 7.0 nothing tells that there was one more.
        assert_eq!(group(&mut sampled).trend.lost, if old { 251 } else { 252 });
        // All of it.
        redis.run("XTRIM s MAXLEN 0");
        assert_eq!(group(&mut sampled).trend.lost, if old { 700 } else { 701 });
        add(redis, "s", 2000, 2100);
        redis.read("s", "g", "c", 101);
        redis.run("XTRIM s MAXLEN 10");
        let read = group(&mut sampled);
        assert_eq!((read.trend.lost, read.lag.point), (if old { 700 } else { 701 }, 0));
    });
}

#[test]
fn what_is_lost_is_counted_once() {
    on_every_server(|redis, _| {
        example(redis);
        redis.run("XGROUP DELCONSUMER s g c");
        let mut sampled = Sampled::new(redis, &["s"], COUNT_BUDGET);
        sampled.one();
        redis.run("XDEL s 900-0");
        assert_eq!(group(&mut sampled).trend.lost, 1);
        for _ in 0..3 {
            // It is still missing ahead of the cursor.
            redis.read("s", "g", "c", 100);
            assert_eq!(group(&mut sampled).trend.lost, 1);
        }
    });
}

/// Found by the walks of `tests/it/lag_random_walks.rs`: read and moved back between two samples, and only then removed.
#[test]
fn an_entry_that_was_delivered_and_is_to_be_delivered_again_is_not_lost() {
    on_every_server(|redis, _| {
        redis.run("XGROUP CREATE s g 0 MKSTREAM");
        add(redis, "s", 1, 20);
        let mut sampled = Sampled::new(redis, &["s"], COUNT_BUDGET);
        sampled.one();
        redis.run("XREADGROUP GROUP g c COUNT 5 NOACK STREAMS s >");
        redis.run("XGROUP SETID s g 0");
        redis.run("XDEL s 1-0 2-0");
        assert_eq!(group(&mut sampled).trend.lost, 0);
        redis.run("XTRIM s MAXLEN 15");
        assert_eq!(group(&mut sampled).trend.lost, 0);
        // What was added since is another matter, once the group has passed what it may have been given.
        redis.read("s", "g", "c", 100);
        sampled.one();
        add(redis, "s", 21, 30);
        redis.run("XGROUP DELCONSUMER s g c");
        sampled.one();
        redis.run("XTRIM s MAXLEN 4");
        assert_eq!(group(&mut sampled).trend.lost, 6);
    });
}

#[test]
fn a_failover_to_an_older_replica_starts_knowledge_again() {
    for server in servers() {
        let mut primary = Redis::start_with(&server, &[]);
        let mut replica = Redis::start_with(&server, &[]);
        example(&primary);
        replica.run(&format!("REPLICAOF 127.0.0.1 {}", primary.port));
        eventually("the replica is in step", || {
            let reply = replica.run("XLEN s");
            (reply == Value::Int(1000)).then_some(())
        });
        let mut sampled = Sampled::new(&primary, &["s"], COUNT_BUDGET);
        exact(&primary, &sampled.one(), "g");
        replica.run("REPLICAOF NO ONE");
        // The replica never hears of this.
        add(&primary, "s", 1001, 1400);
        primary.read("s", "g", "c", 150);
        assert_eq!(exact(&primary, &sampled.one(), "g"), 950);
        primary.stop();
        replica.run("SAVE");
        replica.stop();
        replica.port = primary.port;
        replica.launch(&[]);
        replica.wait();
        add(&replica, "s", 1051, 1900);
        let snapshot = sampled.one();
        assert_eq!(exact(&replica, &snapshot, "g"), 700 + 850);
        assert_eq!(present(&snapshot, "g").trend.lost, 0);
        replica.run("XGROUP SETID s g 1200-0");
        assert_eq!(exact(&replica, &sampled.one(), "g"), 700);
    }
}

/// A replica that is behind, and a server that comes back empty, are not losses.
#[test]
fn what_another_server_does_not_have_is_not_lost() {
    on_every_server(|redis, _| {
        redis.run("XGROUP CREATE s g 0 MKSTREAM");
        add(redis, "s", 1, 40);
        redis.run("XTRIM s MAXLEN 30");
        let older = redis.run("DUMP s");
        add(redis, "s", 41, 60);
        let mut sampled = Sampled::new(redis, &["s"], COUNT_BUDGET);
        assert_eq!(group(&mut sampled).lag.point, 50);
        let Value::BulkString(older) = older else { panic!("{older:?}") };
        let all: &[&[u8]] = &[b"CLIENT", b"KILL", b"TYPE", b"normal"];
        redis.run_bytes(&[b"RESTORE", b"s", b"0", &older, b"REPLACE"]);
        redis.run_bytes(all);
        assert_eq!((group(&mut sampled).lag.point, group(&mut sampled).trend.lost), (30, 0));
        add(redis, "s", 41, 60);
        assert_eq!((group(&mut sampled).lag.point, group(&mut sampled).trend.lost), (50, 0));
        redis.run("XTRIM s MAXLEN 45");
        assert_eq!(group(&mut sampled).trend.lost, 5);
    });
}

/// Found by the walks of `tests/it/lag_random_walks.rs`: before 7.0 a stream that was flushed and filled again looks as if it was trimmed.
#[test]
fn what_was_delivered_before_a_flush_is_not_lost() {
    on_every_server(|redis, _| {
        redis.run("XGROUP CREATE s g 0 MKSTREAM");
        add(redis, "s", 1, 12);
        let mut sampled = Sampled::new(redis, &["s"], COUNT_BUDGET);
        assert_eq!(group(&mut sampled).lag.point, 12);
        redis.run("XREADGROUP GROUP g c COUNT 11 NOACK STREAMS s >");
        redis.run("FLUSHALL");
        redis.run("XGROUP CREATE s g 0 MKSTREAM");
        add(redis, "s", 13, 13);
        assert_eq!(group(&mut sampled).trend.lost, 0);
    });
}

#[test]
fn lag_in_seconds_needs_no_counting() {
    on_every_server(|redis, _| {
        redis.run("XGROUP CREATE s g 0 MKSTREAM");
        redis.add("s", 20);
        redis.read("s", "g", "c", 10);
        let mut sampled = Sampled::new(redis, &["s"], 0);
        for _ in 0..3 {
            let found = group(&mut sampled);
            assert!(found.lag_seconds.is_some() && found.lag.uncertainty() > 0, "{found:?}");
            redis.add("s", 3);
        }
    });
}

#[test]
fn pending_entries_without_a_payload_are_counted() {
    on_every_server(|redis, _| {
        redis.run("XGROUP CREATE s g 0 MKSTREAM");
        add(redis, "s", 1, 3000);
        redis.read("s", "g", "c", 2500);
        let mut sampled = Sampled::new(redis, &["s"], COUNT_BUDGET);
        assert_eq!(group(&mut sampled).ghost_pending, Some(0));
        redis.run("XTRIM s MAXLEN 2960");
        assert_eq!(group(&mut sampled).ghost_pending, Some(40));
        redis.run("XACK s g 1-0 2-0");
        assert_eq!(group(&mut sampled).ghost_pending, Some(38));
        // At least so many.
        redis.run("XTRIM s MAXLEN 600");
        assert_eq!(group(&mut sampled).ghost_pending, Some(200));
        // Twice more, as only the sample after a change knows that nothing changes any more. Then they are not counted again.
        for _ in 0..2 {
            assert_eq!(group(&mut sampled).ghost_pending, Some(200));
        }
        redis.run("CONFIG RESETSTAT");
        for _ in 0..5 {
            assert_eq!(group(&mut sampled).ghost_pending, Some(200));
        }
        assert!(!redis.info("commandstats").contains("xpending"), "{}", redis.info("commandstats"));
        redis.run("XTRIM s MAXLEN 0");
        assert_eq!(group(&mut sampled).ghost_pending, Some(2498));
    });
}

/// Ids are dense and nothing is deleted in the middle, so the facts of one moment tell the truth of that moment.
#[test]
fn facts_agree_with_each_other_while_others_write_and_read() {
    const SAMPLES: usize = 200;
    on_every_server(|redis, _| {
        redis.run("XGROUP CREATE s fast 0 MKSTREAM");
        redis.run("XGROUP CREATE s g 0");
        let next = AtomicU64::new(0);
        let done = AtomicBool::new(false);
        let (mut exact, mut answers) = (0, 0);
        std::thread::scope(|scope| {
            let until_done = |mut step: Box<dyn FnMut(&mut redis::Connection) + Send>| {
                let mut connection = redis.connection();
                let done = &done;
                scope.spawn(move || {
                    while !done.load(Ordering::Relaxed) {
                        step(&mut connection);
                    }
                });
            };
            let next = Arc::new(next);
            until_done(Box::new(move |connection| {
                let id = format!("{}-0", next.fetch_add(1, Ordering::Relaxed) + 1);
                redis::cmd("XADD").arg("s").arg("MAXLEN").arg(400).arg(id).arg("n").arg(1).exec(connection).unwrap();
            }));
            for (group, count) in [("fast", 50), ("g", 1)] {
                until_done(Box::new(move |connection| {
                    let mut command = redis::cmd("XREADGROUP");
                    command.arg("GROUP").arg(group).arg("c").arg("COUNT").arg(count).arg("NOACK");
                    command.arg("STREAMS").arg("s").arg(">").exec(connection).unwrap();
                }));
            }
            let mut sampled = Sampled::new(redis, &["s"], COUNT_BUDGET);
            for _ in 0..SAMPLES {
                let snapshot = sampled.one();
                let Some((first, last)) = sampled.ends() else { continue };
                for name in ["fast", "g"] {
                    let group = present(&snapshot, name);
                    let truth = last.ms - group.last_delivered.unwrap().ms.max(first.ms - 1);
                    assert!(group.lag.min <= truth && truth <= group.lag.max, "{name}: {truth} {snapshot:?}");
                    answers += 1;
                    exact += u64::from(group.lag.min == group.lag.max);
                }
            }
            done.store(true, Ordering::Relaxed);
        });
        println!("{exact} of {answers} exact");
        assert!(answers > 0);
    });
}

/// Bytes that Redis ever sent.
fn bytes_sent(redis: &Redis) -> u64 {
    let stats = redis.info("stats");
    let sent = stats.lines().find_map(|line| line.strip_prefix("total_net_output_bytes:")?.trim().parse().ok());
    sent.unwrap_or_else(|| panic!("{stats}"))
}

/// Adds so many entries with dense ids, from 1-0 on, inside Redis.
fn fill_dense(redis: &Redis, entries: u64) {
    let script = format!("for i = 1, {entries} do redis.call('XADD', KEYS[1], i .. '-0', 'n', i) end");
    redis.run_bytes(&[b"EVAL", script.as_bytes(), b"1", b"s"]);
}

#[test]
fn half_a_million_entries_are_counted_within_a_minute_of_polls() {
    const ENTRIES: u64 = 1_000_000;
    const POLLS: usize = 12;
    on_every_server(|redis, old| {
        fill_dense(redis, ENTRIES);
        // Unknown to the server: nil before the first delivery.
        redis.run("XGROUP CREATE s g 500000-0");
        let mut sampled = Sampled::new(redis, &["s"], COUNT_BUDGET);
        redis.run("CONFIG RESETSTAT");
        let mut narrower = u64::MAX;
        for poll in 1..=POLLS {
            let snapshot = sampled.one();
            let lag = present(&snapshot, "g").lag;
            let truth = above_dense(&sampled, &snapshot);
            assert!(lag.min <= truth && truth <= lag.max, "{truth} {lag:?}");
            if lag.min == lag.max {
                println!("exact after {poll} polls; {}", commandstats(redis));
                break;
            }
            assert!(poll < POLLS, "still {lag:?} after {POLLS} polls, a minute at the default interval");
            assert!(lag.uncertainty() < narrower, "a count that does not go on: {lag:?}");
            narrower = lag.uncertainty();
            // Others go on adding and trimming meanwhile; before 7.0 nothing would tell that apart from anything else.
            if !old {
                let last = sampled.ends().unwrap().1.ms;
                add(redis, "s", last + 1, last + 100);
                redis.run("XTRIM s MAXLEN ~ 1000000");
            }
        }
        // Once known, it stays known without counting.
        let read = bytes_sent(redis);
        if !old {
            let snapshot = sampled.one();
            let last = above_dense(&sampled, &snapshot) + 500_000;
            add(redis, "s", last + 1, last + 10);
        }
        let snapshot = sampled.one();
        exact_dense(&sampled, &snapshot);
        let read = bytes_sent(redis) - read;
        assert!(read < 64 * 1024, "{read} bytes");
        assert!(snapshot.read.unwrap().length >= ENTRIES);
    });
}

#[test]
fn a_group_that_reads_on_costs_what_it_read() {
    on_every_server(|redis, old| {
        let traceless = redis.trims_acknowledged();
        fill_dense(redis, 50_000);
        redis.run("XGROUP CREATE s g 10000-0");
        let mut sampled = Sampled::new(redis, &["s"], COUNT_BUDGET);
        assert_eq!(exact_dense_of_next(&mut sampled), 40_000);
        for round in 0..10 {
            redis.read("s", "g", "c", 500);
            redis.run("XTRIM s MAXLEN 45000");
            // Before 7.0, entries added hide whether others were removed; then all of it is counted.
            if !old {
                add(redis, "s", 50_001 + round * 100, 50_100 + round * 100);
            }
            let before = bytes_sent(redis);
            let lag = exact_dense_of_next(&mut sampled);
            let bytes = bytes_sent(redis) - before;
            assert_eq!(lag, 40_000 - (round + 1) * if old { 500 } else { 400 });
            // 40,000 entries are 1.7 MB. A server that may remove entries without a trace has all of them counted once.
            assert!(old || traceless && round == 0 || bytes < 100_000, "{bytes} bytes to count 500 entries");
        }
    });
}

/// The lag, which must be exact, of a stream whose ids are dense.
fn exact_dense(sampled: &Sampled, snapshot: &StreamSnapshot) -> u64 {
    let lag = present(snapshot, "g").lag;
    assert_eq!((lag.min, lag.max), (above_dense(sampled, snapshot), above_dense(sampled, snapshot)), "{snapshot:?}");
    lag.point
}

/// The same of the next sample.
fn exact_dense_of_next(sampled: &mut Sampled) -> u64 {
    let snapshot = sampled.one();
    exact_dense(sampled, &snapshot)
}

/// The lag of a stream whose ids are dense, by its last id and the cursor.
fn above_dense(sampled: &Sampled, snapshot: &StreamSnapshot) -> u64 {
    sampled.ends().unwrap().1.ms - present(snapshot, "g").last_delivered.unwrap().ms
}

fn commandstats(redis: &Redis) -> String {
    redis.info("commandstats").lines().filter(|line| line.contains("xrange")).collect()
}

#[test]
fn large_payloads_stay_on_the_server_and_a_poll_is_bounded() {
    const STREAMS: usize = 100;
    const PAYLOAD: usize = 1024 * 1024;
    on_every_server(|redis, _| {
        let streams: Vec<String> = (0..STREAMS).map(|n| format!("big:{n}")).collect();
        let names: Vec<&str> = streams.iter().map(String::as_str).collect();
        let payload = vec![b'x'; PAYLOAD];
        for stream in &names {
            let mut pipe = redis::pipe();
            pipe.cmd("XADD").arg(stream).arg("1-0").arg("n").arg(&payload[..]).ignore();
            pipe.cmd("XADD").arg(stream).arg("2-0").arg("n").arg(1).ignore();
            pipe.cmd("XADD").arg(stream).arg("3-0").arg("n").arg(&payload[..]).ignore();
            pipe.cmd("XGROUP").arg("CREATE").arg(stream).arg("g").arg("1-0").ignore();
            pipe.query::<()>(&mut redis.connection()).unwrap();
        }
        let output = || bytes_sent(redis);
        let check = |sampled: &mut Sampled, lag: u64, most: u64, what: &str| {
            let before = output();
            let snapshots = sampled.next();
            let bytes = output() - before;
            println!("{what}: {} KiB", bytes / 1024);
            assert!(bytes < most, "{what}: {bytes} bytes");
            let right = snapshots.iter().filter(|snapshot| {
                let found = present(snapshot, "g").lag;
                assert!(found.min <= lag && lag <= found.max, "{lag} {found:?}");
                found.min == lag && found.max == lag
            });
            right.count()
        };
        let change = || {
            let mut pipe = redis::pipe();
            for stream in &names {
                pipe.cmd("XADD").arg(stream).arg("*").arg("n").arg(&payload[..]).ignore();
            }
            pipe.query::<()>(&mut redis.connection()).unwrap();
        };
        const SMALL: u64 = 512 * 1024;
        let mut sampled = Sampled::of(&redis.url_as(USER_WITH_SCRIPTS), &names, COUNT_BUDGET);
        // What has to be counted is counted page by page, over as many polls as that takes.
        let settle = |sampled: &mut Sampled, lag: u64, most: u64, what: &str| {
            const POLLS: usize = 20;
            let exact = (0..POLLS).any(|_| check(sampled, lag, most, what) == STREAMS);
            assert!(exact, "{what}: not exact after {POLLS} polls");
        };
        settle(&mut sampled, 2, SMALL, "by script");
        assert_eq!(check(&mut sampled, 2, SMALL, "nothing has changed"), STREAMS);
        change();
        check(&mut sampled, 3, SMALL, "all have changed");
        // Where scripts are refused, they have to be read once to know; then only those that change, in turns.
        let mut sampled = Sampled::new(redis, &names, COUNT_BUDGET);
        check(&mut sampled, 3, 300 * 1024 * 1024, "first poll without scripts");
        settle(&mut sampled, 3, 130 * 1024 * 1024, "without scripts");
        assert_eq!(check(&mut sampled, 3, SMALL, "nothing has changed"), STREAMS);
        change();
        // To see that they changed puts an entry of each on the wire, but only once.
        check(&mut sampled, 4, 260 * 1024 * 1024, "all have changed, without scripts");
        for lag in 5..8 {
            change();
            check(&mut sampled, lag, 150 * 1024 * 1024, "they change on, without scripts");
        }
    });
}

#[test]
fn streams_with_large_entries_are_followed_without_xlen_and_when_they_are_made_anew() {
    on_every_server(|redis, _| {
        let payload = vec![b'x'; 20 * 1024];
        let fill = |to: u64| {
            let mut pipe = redis::pipe();
            for id in 1..=to {
                pipe.cmd("XADD").arg("s").arg(format!("{id}-0")).arg("n").arg(&payload[..]).ignore();
            }
            pipe.cmd("XGROUP").arg("CREATE").arg("s").arg("g").arg("20-0").ignore();
            pipe.query::<()>(&mut redis.connection()).unwrap();
        };
        redis.run("ACL SETUSER plain on >pw ~* +@all -xlen");
        let plain = format!("redis://plain:pw@127.0.0.1:{}/", redis.port);
        for url in [redis.url(), redis.url_as(USER_WITH_SCRIPTS), plain] {
            let mut sampled = Sampled::of(&url, &["s"], COUNT_BUDGET);
            redis.run("DEL s");
            fill(50);
            for _ in 0..3 {
                assert_eq!(exact(redis, &sampled.one(), "g"), 30);
            }
            redis.run("XGROUP SETID s g 45-0");
            assert_eq!(exact(redis, &sampled.one(), "g"), 5);
            redis.run("DEL s");
            fill(50);
            assert_eq!(exact(redis, &sampled.one(), "g"), 30);
        }
    });
}

/// The same first entries, and counters that fit, under the name of the stream that was seen, over the same connection.
#[test]
fn a_fork_of_the_stream_is_not_the_stream() {
    on_every_server(|redis, _| {
        let dump = || match redis.run("DUMP s") {
            Value::BulkString(dump) => dump,
            other => panic!("{other:?}"),
        };
        redis.run("XGROUP CREATE s g 0 MKSTREAM");
        add(redis, "s", 1, 2000);
        redis.read("s", "g", "c", 1000);
        let fork = dump();
        add(redis, "s", 2001, 2300);
        redis.read("s", "g", "c", 1000);
        let mut sampled = Sampled::new(redis, &["s"], COUNT_BUDGET);
        assert_eq!(exact(redis, &sampled.one(), "g"), 300);
        redis.run_bytes(&[b"RESTORE", b"s", b"0", &fork, b"REPLACE"]);
        add(redis, "s", 2301, 3500);
        redis.read("s", "g", "c", 1400);
        assert_eq!(exact(redis, &sampled.one(), "g"), 800);
        add(redis, "s", 3501, 3600);
        assert_eq!(exact(redis, &sampled.one(), "g"), 900);
    });
}
