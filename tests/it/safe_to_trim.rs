//! Up to where a stream may be trimmed, and which group holds it back: against counting, on real servers.

use crate::common::sampled::{COUNT_BUDGET, Sampled};
use crate::common::{Redis, eventually_right, servers, streamlag};

fn on_every_server(test: impl Fn(&Redis)) {
    for server in servers() {
        test(&Redis::start_with(&server, &[]));
    }
}

/// Fills a stream with ids 1-0 to so many.
fn fill(redis: &Redis, entries: u64) {
    for ids in (1..=entries).collect::<Vec<_>>().chunks(1000) {
        let mut pipe = redis::pipe();
        for id in ids {
            pipe.cmd("XADD").arg("s").arg(format!("{id}-0")).arg("n").arg(1).ignore();
        }
        pipe.exec(&mut redis.connection()).unwrap();
    }
}

/// The id, the group and the number of entries of the next sample.
fn safe(sampled: &mut Sampled) -> Option<(String, String, u64)> {
    let safe = sampled.one().read.unwrap().safe_to_trim?;
    Some((safe.id.to_string(), safe.held_by.to_string(), safe.reclaimable))
}

fn said(id: &str, group: &str, entries: u64) -> Option<(String, String, u64)> {
    Some((id.to_owned(), group.to_owned(), entries))
}

#[test]
fn the_lowest_entry_that_some_group_needs_holds_the_stream() {
    on_every_server(|redis| {
        fill(redis, 3000);
        let mut sampled = Sampled::new(redis, &["s"], COUNT_BUDGET);
        // No group: nobody knows who will come.
        assert_eq!(safe(&mut sampled), None);
        redis.run("XGROUP CREATE s slow 0");
        redis.run("XGROUP CREATE s quick 0");
        assert_eq!(safe(&mut sampled), said("0-1", "quick", 0));
        redis.read("s", "quick", "c", 2000);
        redis.read("s", "slow", "c", 1500);
        assert_eq!(safe(&mut sampled), said("1-0", "quick", 0));
        redis.run("XGROUP SETID s quick 2000-0");
        // One of the slow group's entries is left, in the middle.
        let ids: Vec<String> = (1..=1500).filter(|id| *id != 700).map(|id| format!("{id}-0")).collect();
        redis::cmd("XACK").arg("s").arg("slow").arg(&ids).exec(&mut redis.connection()).unwrap();
        let ids: Vec<String> = (1..=2000).map(|id| format!("{id}-0")).collect();
        redis::cmd("XACK").arg("s").arg("quick").arg(&ids).exec(&mut redis.connection()).unwrap();
        sampled.one();
        // It stands still, so what lies below it is counted, and stays right while others come and go.
        assert_eq!(safe(&mut sampled), said("700-0", "slow", 699));
        redis.run("XTRIM s MAXLEN 2900");
        redis.read("s", "quick", "c", 10);
        assert_eq!(safe(&mut sampled), said("700-0", "slow", 599));
        redis.run("XACK s slow 700-0");
        assert_eq!(safe(&mut sampled), said("1500-1", "slow", 1400));
        redis.run("XTRIM s MAXLEN 0");
        assert_eq!(safe(&mut sampled).unwrap().2, 0);
    });
}

/// What may be trimmed by it takes nothing from any group, whatever the groups do: at least so many entries lie below.
#[test]
fn never_more_than_there_are() {
    on_every_server(|redis| {
        fill(redis, 500);
        redis.run("XGROUP CREATE s a 0");
        redis.run("XGROUP CREATE s b 0");
        let mut sampled = Sampled::new(redis, &["s"], COUNT_BUDGET);
        for round in 0..60_u64 {
            redis.read("s", "a", "c", (round % 7) as usize + 1);
            redis.read("s", "b", "c", (round % 5) as usize + 1);
            for (group, upto) in [("a", round * 3), ("b", round * 2)] {
                let ids: Vec<String> = (upto..upto + 3).map(|id| format!("{id}-0")).collect();
                redis::cmd("XACK").arg("s").arg(group).arg(&ids).exec(&mut redis.connection()).unwrap();
            }
            if round % 10 == 9 {
                redis.run(&format!("XDEL s {}-0", round * 2));
            }
            let (id, _, reclaimable) = safe(&mut sampled).unwrap();
            let id: u64 = id.split('-').next().unwrap().parse().unwrap();
            let below: Vec<redis::Value> = redis::cmd("XRANGE")
                .arg("s")
                .arg("-")
                .arg(id.saturating_sub(1))
                .query(&mut redis.connection())
                .unwrap();
            // The id may be the one after an entry's, which is not in the range.
            assert!(reclaimable <= below.len() as u64 + 1, "round {round}: {reclaimable} below {id}");
        }
    });
}

#[test]
fn it_is_served_unless_a_group_is_not_monitored() {
    let redis = Redis::start();
    fill(&redis, 100);
    redis.run("XGROUP CREATE s g 40-0");
    let port = redis.url();
    let program = |groups: &str| {
        let arguments = ["--redis.url", &port, "--streams", "s", "--groups", groups, "--poll.interval", "50ms"];
        streamlag(&arguments).ready()
    };
    let all = program("*");
    eventually_right(|| {
        let row = all.json("streams")["streams"][0].clone();
        let is_right = row["safe_to_trim_id"] == "40-1" && row["reclaimable_entries"] == 40 && row["held_by"] == "g";
        if is_right { Ok(()) } else { Err(row.to_string()) }
    });
    assert_eq!(all.metric("event_stream_reclaimable_entries{stream=\"s\"}"), Some(40.0));
    redis.run("XGROUP CREATE s other 20-0");
    let one = program("g");
    let row = one.json("streams")["streams"][0].clone();
    for key in ["safe_to_trim_id", "reclaimable_entries", "held_by"] {
        assert!(row[key].is_null(), "{row}");
    }
    assert_eq!(one.metric("event_stream_reclaimable_entries{stream=\"s\"}"), None);
}
