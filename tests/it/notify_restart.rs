//! Incidents and what was told of them, over restarts and `kill -9`, in the history file.
//!
//! `INCIDENT_KILLS` says how often: `make incident-kills` does it two hundred times.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::common::receiver::{Received, Receiver};
use crate::common::{Redis, Streamlag, eventually, eventually_right, streamlag};

/// Rules that end at once when their condition does.
const RULES: [&str; 2] = ["CriticalEventConsumerLag", "HighEventConsumerLag"];

fn redis() -> Redis {
    let redis = Redis::start();
    redis.run("XGROUP CREATE orders mail 0 MKSTREAM");
    redis
}

fn start(redis: &Redis, dir: &Path, webhooks: &[&Receiver]) -> Streamlag {
    let file = dir.join("streamlag.yml");
    let webhooks: Vec<Value> = webhooks.iter().map(|receiver| json!({"url": receiver.url("/")})).collect();
    let notify = json!({"webhooks": webhooks, "for": "0s", "group_wait": "0s", "group_interval": "1s"});
    std::fs::write(&file, json!({"streams": ["orders"], "groups": ["mail"], "notify": notify}).to_string()).unwrap();
    let history = dir.join("history.db");
    let arguments = [
        "--redis.url",
        &redis.url(),
        "--config.file",
        file.to_str().unwrap(),
        "--history.path",
        history.to_str().unwrap(),
        "--poll.interval",
        "200ms",
    ];
    streamlag(&arguments)
}

fn kill(mut streamlag: Streamlag) {
    streamlag.signal("-KILL");
    streamlag.wait();
}

/// An incident of this rule as the API has it.
fn row(streamlag: &Streamlag, rule: &str) -> Option<Value> {
    let list = streamlag.get("/api/v1/incidents").json();
    list["incidents"].as_array()?.iter().find(|row| row["rule"] == rule).cloned()
}

fn told(streamlag: &Streamlag, rule: &str, what: &str) -> Value {
    eventually(what, || row(streamlag, rule).filter(|row| row["delivery"][0]["told"] == what))
}

/// Rule, start and status of each alert of a message.
fn said(message: &Received) -> BTreeSet<(String, String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let body = message.json();
    let alerts = body["alerts"].as_array().unwrap().iter();
    alerts
        .map(|alert| (text(&alert["labels"]["alertname"]), text(&alert["startsAt"]), text(&alert["status"])))
        .collect()
}

#[test]
fn an_open_incident_goes_on_after_a_kill_and_is_not_told_twice() {
    let (redis, dir, receiver) = (redis(), tempfile::tempdir().unwrap(), Receiver::start());
    let first = start(&redis, dir.path(), &[&receiver]).ready();
    redis.add("orders", 6000);
    let before: BTreeMap<&str, Value> = RULES.map(|rule| (rule, told(&first, rule, "firing"))).into();
    kill(first);
    let messages = receiver.received().len();
    // What nobody can read or asks for goes.
    let file = rusqlite::Connection::open(dir.path().join("history.db")).unwrap();
    let of_webhook: String =
        file.query_row("SELECT area FROM state WHERE area LIKE 'webhook %' LIMIT 1", (), |row| row.get(0)).unwrap();
    let unread = ["incident", "webhook gone", "other", &of_webhook];
    for area in unread {
        file.execute("INSERT INTO state VALUES (?1, 'alert x', '{')", [area]).unwrap();
    }

    let second = start(&redis, dir.path(), &[&receiver]).ready();
    for rule in RULES {
        let after = row(&second, rule).unwrap();
        for key in ["id", "status", "active_since", "fired_at"] {
            assert_eq!(after[key], before[rule][key], "{key} of {rule}");
        }
        // Who was told is known, too.
        let after = told(&second, rule, "firing");
        assert_eq!(after["delivery"][0]["outcome"], "delivered");
    }
    second.next_sample();
    eventually("nothing that is not read", || {
        let count = |key: &str| -> u64 {
            file.query_row(&format!("SELECT count(*) FROM state WHERE {key}"), (), |row| row.get(0)).unwrap()
        };
        (count("key = 'alert x'") == 0 && count("area = 'incident'") >= 2).then_some(())
    });
    drop(file);
    // What is told next is news: that it is over.
    redis.run("XGROUP SETID orders mail $");
    told(&second, RULES[0], "resolved");
    let next = receiver.received()[messages].clone();
    let start = before[RULES[0]]["fired_at"].as_str().unwrap().to_owned();
    assert!(said(&next).contains(&(RULES[0].to_owned(), start, "resolved".to_owned())), "{next:?}");
}

#[test]
fn what_ended_meanwhile_is_resolved_and_told() {
    let (redis, dir, receiver) = (redis(), tempfile::tempdir().unwrap(), Receiver::start());
    let first = start(&redis, dir.path(), &[&receiver]).ready();
    redis.add("orders", 6000);
    let before = told(&first, RULES[0], "firing");
    kill(first);
    redis.run("XGROUP SETID orders mail $");
    let second = start(&redis, dir.path(), &[&receiver]).ready();
    let after = told(&second, RULES[0], "resolved");
    for key in ["id", "active_since", "fired_at"] {
        assert_eq!(after[key], before[key], "{key}");
    }
    kill(second);
    // Once is enough.
    let messages = receiver.received().len();
    let third = start(&redis, dir.path(), &[&receiver]).ready();
    told(&third, RULES[0], "resolved");
    redis.add("orders", 6000);
    told(&third, RULES[0], "firing");
    let next = said(&receiver.received()[messages]);
    assert!(next.iter().all(|(_, _, status)| status == "firing"), "{next:?}");
}

#[test]
fn a_receiver_that_was_away_over_a_restart_is_told_of_an_end_that_it_missed() {
    let (redis, dir, receiver) = (redis(), tempfile::tempdir().unwrap(), Receiver::start());
    let first = start(&redis, dir.path(), &[&receiver]).ready();
    redis.add("orders", 6000);
    let before = told(&first, RULES[0], "firing");
    kill(first);
    // Its stream is not monitored any more: nobody looks at it, and it is over.
    let history = dir.path().join("history.db");
    let notify =
        json!({"webhooks": [{"url": receiver.url("/")}], "for": "0s", "group_wait": "0s", "group_interval": "1s"});
    let file = dir.path().join("other.yml");
    std::fs::write(&file, json!({"streams": ["absent"], "groups": ["mail"], "notify": notify}).to_string()).unwrap();
    let (url, file) = (redis.url(), file.to_str().unwrap());
    let _second = streamlag(&["--redis.url", &url, "--config.file", file, "--history.path", history.to_str().unwrap()]);
    let firing = (RULES[0].to_owned(), before["fired_at"].as_str().unwrap().to_owned(), "resolved".to_owned());
    eventually("the end", || receiver.received().iter().any(|message| said(message).contains(&firing)).then_some(()));
}

/// A receiver that takes, refuses for now, or takes and says nothing, by the number of the message.
fn moody() -> Receiver {
    Receiver::answering(|n, _| match n % 7 {
        2 => ("503 Service Unavailable\r\n".to_owned(), String::new()),
        4 => ("200 OK\r\nContent-Length: 99\r\nX-".to_owned(), "half".to_owned()),
        _ => ("200 OK\r\n".to_owned(), "ok".to_owned()),
    })
}

#[test]
fn no_incident_is_lost_by_kills_at_any_moment() {
    let kills: u64 = std::env::var("INCIDENT_KILLS").map_or(6, |kills| kills.parse().unwrap());
    let (redis, dir, receiver) = (redis(), tempfile::tempdir().unwrap(), moody());
    let mut random: u64 = std::process::id().into();
    let mut next = |limit: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % limit
    };
    for n in 0..kills {
        let streamlag = start(&redis, dir.path(), &[&receiver]);
        if n % 2 == 0 {
            redis.add("orders", 6000);
        } else {
            redis.run("XGROUP SETID orders mail $");
        }
        // Any moment is one that it has to survive.
        std::thread::sleep(Duration::from_millis(next(1500)));
        kill(streamlag);
    }
    redis.run("XGROUP SETID orders mail $");
    let last = start(&redis, dir.path(), &[&receiver]).ready();
    let believes = || {
        let mut believes: BTreeMap<String, (String, String)> = BTreeMap::new();
        for (rule, start, status) in receiver.received().iter().flat_map(said) {
            believes.insert(rule, (start, status));
        }
        believes
    };
    // Nothing is left that it believes to fire, of rules that end at once.
    eventually_right(|| {
        let believes = believes();
        let over = |rule: &&str| believes.get(*rule).is_none_or(|(_, status)| status == "resolved");
        let open = row(&last, RULES[0]).is_some_and(|row| row["status"] != "resolved");
        if RULES.iter().all(over) && !open { Ok(()) } else { Err(format!("{believes:#?}")) }
    });
    // What came twice is the same message: once more for each kill, and for each that was not answered.
    let (mut bodies, mut twice) = (BTreeMap::new(), 0);
    let all = receiver.received();
    for message in &all {
        let id = message.header("webhook-id").unwrap().to_owned();
        if let Some(before) = bodies.insert(id, message.body.clone()) {
            assert_eq!(before, message.body);
            twice += 1;
        }
    }
    let unanswered = (0..all.len()).filter(|n| [2, 4].contains(&(n % 7))).count() as u64;
    assert!(twice <= kills + unanswered, "{twice} of {} came twice, after {kills} kills", all.len());
    println!("{kills} kills, {} messages, {twice} of them again", all.len());
}
