//! Discovery's passes on real servers: what SCAN really answers, while keys come and go and tables grow and shrink.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::common::Redis;
use streamlag::collector::{ScanRequest, Scanner};
use streamlag::model::StreamSelection;

const INTERVAL: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_secs(5);

fn scan(connection: &mut redis::Connection, ask: &ScanRequest) -> (u64, Vec<Vec<u8>>) {
    let mut command = redis::cmd("SCAN");
    command.arg(ask.cursor);
    if let Some(pattern) = &ask.pattern {
        command.arg("MATCH").arg(pattern);
    }
    command.arg("COUNT").arg(ask.count).arg("TYPE").arg("stream").query(connection).unwrap()
}

/// Keys that are no streams, as many as needed for several calls of SCAN, set or deleted.
fn strings(connection: &mut redis::Connection, command: &str) {
    let mut pipe = redis::pipe();
    for number in 0..20_000 {
        let key = format!("events:string:{number}");
        match command {
            "SET" => pipe.cmd("SET").arg(key).arg("x").ignore(),
            _ => pipe.cmd("DEL").arg(key).ignore(),
        };
    }
    pipe.exec(connection).unwrap();
}

fn name(number: u32) -> String {
    format!("events:{number:04}")
}

fn streams(connection: &mut redis::Connection, numbers: std::ops::Range<u32>) {
    let mut pipe = redis::pipe();
    for number in numbers {
        pipe.cmd("XADD").arg(name(number)).arg("*").arg("f").arg("v").ignore();
    }
    pipe.exec(connection).unwrap();
}

fn found(discovery: &mut Scanner) -> BTreeSet<String> {
    discovery.changed();
    discovery.streams().iter().map(ToString::to_string).collect()
}

#[test]
fn streams_are_found_among_many_keys_and_followed_while_tables_grow_and_shrink() {
    for binary in crate::common::servers() {
        let redis = Redis::start_with(&binary, &[]);
        let mut connection = redis.connection();
        strings(&mut connection, "SET");
        streams(&mut connection, 0..300);
        redis.run("XADD other * f v");
        let selection = StreamSelection::new(&["events:*".to_owned()]).without(vec!["events:0007".to_owned()]);
        let mut discovery = Scanner::new(selection, INTERVAL, 10_000);
        let expected = |numbers: std::ops::Range<u32>| -> BTreeSet<String> {
            numbers.map(name).filter(|name| name != "events:0007").collect()
        };

        // The first poll knows all, in several calls.
        let mut now = Duration::ZERO;
        let mut calls = 0;
        while let Some(ask) = discovery.next(now) {
            let (cursor, keys) = scan(&mut connection, &ask);
            discovery.answer(cursor, keys, now);
            calls += 1;
        }
        assert!(calls >= 40, "{calls}");
        assert_eq!(found(&mut discovery), expected(0..300), "{}", binary.display());

        // In the middle of the next passes the table shrinks, and grows again; streams come and go.
        streams(&mut connection, 300..400);
        let mut polls = 0;
        let mut grown = false;
        let mut passes = 0;
        let mut completed = discovery.stats().completed_at;
        while passes < 3 {
            now += POLL;
            polls += 1;
            assert!(polls < 100, "no end of passes");
            while let Some(ask) = discovery.next(now) {
                let (cursor, keys) = scan(&mut connection, &ask);
                discovery.answer(cursor, keys, now);
            }
            // What is there all the time is never lost.
            assert!(found(&mut discovery).is_superset(&expected(100..300)), "{}", binary.display());
            if polls % 4 == 0 {
                strings(&mut connection, if grown { "SET" } else { "DEL" });
                grown = !grown;
                for number in 0..100 {
                    redis.run(&format!("DEL {}", name(number)));
                }
            }
            if discovery.stats().completed_at != completed {
                completed = discovery.stats().completed_at;
                passes += 1;
            }
        }
        assert_eq!(found(&mut discovery), expected(100..400), "{}", binary.display());
    }
}
