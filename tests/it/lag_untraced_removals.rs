//! Trims that remove acknowledged entries from anywhere and leave no trace (`ACKED`, Redis 8.2 and later), on real servers: lags stay
//! exact, cost no more than without, and what is not delivered is neither lost nor said to be about to be.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::common::sampled::{COUNT_BUDGET, Sampled, present};
use crate::common::{Redis, servers};
use streamlag::analysis::group_state::GroupState;

/// Runs a test on each server that can trim so.
fn on_every_server(test: impl Fn(&Redis)) {
    let mut tried = 0;
    for server in servers() {
        let redis = Redis::start_with(&server, &[]);
        if redis.trims_acknowledged() {
            println!("{}", server.display());
            test(&redis);
            tried += 1;
        }
    }
    // Which servers there are is up to the machine; CI has two of these.
    assert!(tried > 0 || std::env::var_os("STREAMLAG_TEST_SERVERS").is_none(), "no server knows ACKED");
}

/// Adds entries with these ids, each with this trim.
fn add(redis: &Redis, ids: std::ops::Range<u64>, trim: &[&str]) {
    let mut pipe = redis::pipe();
    for id in ids {
        pipe.cmd("XADD").arg("s").arg(trim).arg(format!("{id}-0")).arg("n").arg(1).ignore();
    }
    pipe.exec(&mut redis.connection()).unwrap();
}

/// Reads and acknowledges so many entries, but the last `keep`.
fn work(redis: &Redis, group: &str, count: u64, keep: usize) {
    type Entries = Vec<(String, Vec<String>)>;
    let mut connection = redis.connection();
    let mut read = redis::cmd("XREADGROUP");
    read.arg("GROUP").arg(group).arg("worker").arg("COUNT").arg(count).arg("STREAMS").arg("s").arg(">");
    let streams: Option<Vec<(String, Entries)>> = read.query(&mut connection).unwrap();
    let entries = streams.into_iter().flatten().flat_map(|(_, entries)| entries);
    let ids: Vec<String> = entries.map(|(id, _)| id).collect();
    if ids.len() > keep {
        redis::cmd("XACK").arg("s").arg(group).arg(&ids[..ids.len() - keep]).exec(&mut connection).unwrap();
    }
}

/// Commands that the server has run.
fn commands(redis: &Redis) -> u64 {
    let stats = redis.info("commandstats");
    let calls = |line: &str| line.split("calls=").nth(1)?.split(',').next()?.parse::<u64>().ok();
    stats.lines().filter(|line| !line.contains("cmdstat_info")).filter_map(calls).sum()
}

/// A backlog of 120,000, two groups that read on, entries added before each poll. Returns the commands of ten polls, all exact.
fn backlog(redis: &Redis, trim: &[&str]) -> u64 {
    const ROUND: u64 = 70;
    redis.run("FLUSHALL");
    add(redis, 1..125_001, &[]);
    redis.run("XGROUP CREATE s slow 5000-0");
    redis.run("XGROUP CREATE s quick 20000-0");
    let mut sampled = Sampled::new(redis, &["s"], COUNT_BUDGET);
    let (mut next, mut in_polls) = (125_001, 0);
    for poll in 0..13 {
        add(redis, next..next + ROUND, trim);
        next += ROUND;
        work(redis, "slow", 50, 7);
        work(redis, "quick", 90, 3);
        let before = commands(redis);
        let snapshot = sampled.one();
        if poll < 3 {
            continue;
        }
        in_polls += commands(redis) - before;
        for name in ["slow", "quick"] {
            let (lag, cursor) = (present(&snapshot, name).lag, present(&snapshot, name).last_delivered.unwrap().ms);
            assert_eq!((lag.min, lag.max), (next - 1 - cursor, next - 1 - cursor), "{name} in poll {poll}");
        }
    }
    in_polls
}

#[test]
fn a_backlog_is_followed_exactly_at_the_cost_of_one_that_is_not_trimmed() {
    on_every_server(|redis| {
        let plain = backlog(redis, &[]);
        let acknowledged = backlog(redis, &["ACKED", "MAXLEN", "1000"]);
        println!("commands in ten polls: {plain} untrimmed, {acknowledged} trimmed with ACKED");
        assert!(acknowledged * 10 <= plain * 12, "{acknowledged} commands in place of {plain}");
    });
}

#[test]
fn nothing_undelivered_is_lost_or_near_to_it() {
    on_every_server(|redis| {
        add(redis, 1..2001, &[]);
        redis.run("XGROUP CREATE s g 0");
        let mut sampled = Sampled::new(redis, &["s"], COUNT_BUDGET);
        let mut states = Vec::new();
        let (mut next, mut last) = (2001, None);
        for _ in 0..12 {
            add(redis, next..next + 100, &["ACKED", "MAXLEN", "10"]);
            next += 100;
            work(redis, "g", 60, 2);
            let snapshot = sampled.one();
            let group = present(&snapshot, "g");
            assert_eq!((group.lag.uncertainty(), group.trend.lost), (0, 0));
            states.push(group.trend.verdict.state);
            last = Some((group.trim_headroom_entries, group.trim_headroom_seconds, snapshot.read.unwrap().rates.added));
        }
        // A hundred every five seconds; an undelivered entry cannot be lost, so there is no headroom to speak of.
        assert_eq!(last, Some((None, None, Some(20.0))));
        assert_eq!(states.last(), Some(&GroupState::Lagging), "{states:?}");
    });
}

#[test]
fn groups_made_and_set_back_below_holes_are_exact() {
    on_every_server(|redis| {
        add(redis, 1..1001, &[]);
        redis.run("XGROUP CREATE s g 0");
        work(redis, "g", 600, 0);
        redis.read("s", "g", "worker", 1);
        redis.run("XTRIM s MAXLEN 10 ACKED");
        let mut sampled = Sampled::new(redis, &["s"], COUNT_BUDGET);
        let mut exact = |group: &str, lag: u64| {
            let snapshot = sampled.one();
            let said = present(&snapshot, group).lag;
            assert_eq!((said.min, said.max), (lag, lag), "{group}");
            assert_eq!(present(&snapshot, group).trend.lost, 0, "{group}");
        };
        exact("g", 399);
        redis.run("XGROUP CREATE s below 400-0");
        exact("below", 400);
        redis.run("XGROUP SETID s g 500-0");
        exact("g", 400);
        redis.run("XGROUP SETID s g 601-0");
        exact("below", 400);
        add(redis, 1001..1201, &["ACKED", "MAXLEN", "10"]);
        exact("below", 600);
        work(redis, "below", 50, 0);
        exact("below", 550);
    });
}

/// While others write, read, acknowledge and trim as fast as they can: what is exact is right, and nearly all is.
#[test]
fn lags_are_exact_while_others_work() {
    const SAMPLES: usize = 150;
    on_every_server(|redis| {
        add(redis, 1..3001, &[]);
        for group in ["slow", "quick"] {
            redis.run(&format!("XGROUP CREATE s {group} 0"));
        }
        let (next, done) = (AtomicU64::new(3001), AtomicBool::new(false));
        let (mut exact, mut answers) = (0, 0);
        std::thread::scope(|scope| {
            let (next, done) = (&next, &done);
            let running = move || !done.load(Ordering::Relaxed);
            scope.spawn(move || {
                while running() {
                    let id = next.fetch_add(1, Ordering::Relaxed);
                    add(redis, id..id + 1, &["ACKED", "MAXLEN", "100"]);
                }
            });
            for (group, count, keep) in [("slow", 1, 0), ("quick", 20, 2)] {
                scope.spawn(move || {
                    while running() {
                        work(redis, group, count, keep);
                    }
                });
            }
            let mut sampled = Sampled::new(redis, &["s"], COUNT_BUDGET);
            for sample in 0..SAMPLES {
                let snapshot = sampled.one();
                let (_, last) = sampled.ends().unwrap();
                for name in ["slow", "quick"] {
                    let group = present(&snapshot, name);
                    let truth = last.ms - group.last_delivered.unwrap().ms;
                    assert!(group.lag.min <= truth && truth <= group.lag.max, "{name}: {truth} {:?}", group.lag);
                    assert_eq!(group.trend.lost, 0, "{name}");
                    if sample > 5 {
                        answers += 1;
                        exact += u64::from(group.lag.uncertainty() == 0);
                    }
                }
            }
            done.store(true, Ordering::Relaxed);
        });
        println!("{exact} of {answers} exact");
        assert!(exact * 10 >= answers * 9, "only {exact} of {answers} are exact");
    });
}
