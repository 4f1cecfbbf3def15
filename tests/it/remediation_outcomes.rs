//! What an act came to, where that is not simply told: answers that are lost or not understood, writes that a server refuses, and what is
//! shown of all that after a restart.

use std::collections::HashMap;
use std::path::Path;

use serde_json::{Value, json};

use crate::common::gate::{CUTS_ANSWER, Gate, HOLDS_ANSWER, OPEN};
use crate::common::remedy::{Office, Worker, board, decide, documented, grant, grant_all, plan};
use crate::common::schema::Document;
use crate::common::{Redis, Streamlag, eventually, servers};

/// A group with consumers that died: these hold nothing.
fn sick(redis: &Redis, leftover: &[&str]) -> Worker {
    redis.add_old("orders", 2000);
    redis.run("XGROUP CREATE orders g 0");
    for consumer in leftover {
        redis.read("orders", "g", consumer, 1);
        let held = redis.run(&format!("XPENDING orders g - + 1 {consumer}"));
        let held: Vec<(String, String, u64, u64)> = redis::from_redis_value(held).unwrap();
        redis.run(&format!("XACK orders g {}", held[0].0));
    }
    Worker::start(redis, "orders", "g", "here")
}

fn has(redis: &Redis, consumer: &str) -> bool {
    let consumers: Vec<HashMap<String, redis::Value>> =
        redis::from_redis_value(redis.run("XINFO CONSUMERS orders g")).unwrap();
    consumers.iter().any(|one| one["name"] == redis::Value::BulkString(consumer.as_bytes().to_vec()))
}

fn plan_of(streamlag: &Streamlag, action: &str, consumer: &str) -> Value {
    eventually(&format!("a plan to {action} of {consumer}"), || {
        let plans = board(streamlag)["plans"].as_array().unwrap().clone();
        plans.into_iter().find(|plan| plan["action"] == action && plan["evidence"]["consumer"] == consumer)
    })
}

fn through(redis: &Redis, gate: &Gate) -> String {
    redis.url().replace(&redis.port.to_string(), &gate.port.to_string())
}

const DELETE: &str = "delete_idle_consumers";

#[test]
fn an_answer_that_is_lost_or_not_understood_leaves_it_unknown() {
    let redis = Redis::start();
    let _here = sick(&redis, &["cut", "word", "type", "noise", "left"]);
    grant_all(&redis);
    let gate = Gate::start(redis.port);
    let office = Office::new();
    let rules = json!([{"stream": "orders", "group": "g", "mode": "approve", "actions": [DELETE]}]);
    let streamlag = office.start(&through(&redis, &gate), &rules, &json!({}));
    let spoil = |consumer: &str| match consumer {
        "cut" => gate.set(CUTS_ANSWER),
        "word" => gate.spoil(b"*4\r\n$3\r\nyes\r\n$0\r\n\r\n:1\r\n:0\r\n"),
        "type" => gate.spoil(b":1\r\n"),
        _ => gate.spoil(b"?what\r\n"),
    };
    for consumer in ["cut", "word", "type", "noise"] {
        let plan = plan_of(&streamlag, DELETE, consumer);
        spoil(consumer);
        let answer = decide(&streamlag, &plan, "approve", &office.alice);
        gate.set(OPEN);
        let decided = answer.json();
        assert_eq!((answer.status, &decided["outcome"], &decided["changed"]), (200, &json!("unknown"), &json!(0)));
        assert_ne!(decided["detail"], "", "why it is not known");
        // It was carried out all the same.
        eventually("the consumer is gone", || (!has(&redis, consumer)).then_some(()));
        let audit = office.audit();
        let (intent, outcome) = (&audit[audit.len() - 2], &audit[audit.len() - 1]);
        assert_eq!((&intent["kind"], &outcome["kind"]), (&json!("intent"), &json!("outcome")));
        assert_eq!((&outcome["outcome"], &outcome["plan"]), (&json!("unknown"), &plan["id"]), "{consumer}");
    }
    let series = format!("streamlag_remediation_acts_total{{action=\"{DELETE}\",outcome=\"unknown\"}}");
    eventually("they are counted", || streamlag.metric(&series).filter(|acts| *acts == 4.0));
    let history = board(&streamlag)["history"].clone();
    let unknown = history.as_array().unwrap().iter().filter(|past| past["outcome"] == "unknown").count();
    assert_eq!(unknown, 4, "{history}");
    // What is not known does not stand in the way of what comes after it.
    let plan = plan_of(&streamlag, DELETE, "left");
    assert_eq!(decide(&streamlag, &plan, "approve", &office.alice).json()["outcome"], "done");
}

/// An entry that nobody can process is to be copied; the server refuses one or the other write.
fn refuses(server: &Path) {
    let redis = Redis::start_with(server, &[]);
    let _here = sick(&redis, &[]);
    redis.read("orders", "g", "poisoned", 1);
    let held = || -> Vec<(String, String, u64, u64)> {
        redis::from_redis_value(redis.run("XPENDING orders g - + 1 poisoned")).unwrap()
    };
    let id = held()[0].0.clone();
    redis.run(&format!("XCLAIM orders g poisoned 0 {id} RETRYCOUNT 3 JUSTID"));
    let office = Office::new();
    let to = json!({"stream": "orders:dead", "deliveries": 3, "idle": "100ms"});
    let rules =
        json!([{"stream": "orders", "group": "g", "mode": "approve", "actions": ["dead_letter"], "dead_letter": to}]);
    let streamlag = office.start(&redis.url(), &rules, &json!({}));
    let approve = || {
        let plan = plan_of(&streamlag, "dead_letter", "poisoned");
        decide(&streamlag, &plan, "approve", &office.alice).json()
    };
    // What takes dead letters is no stream.
    grant_all(&redis);
    redis.run("SET orders:dead text");
    let decided = approve();
    assert_eq!((&decided["outcome"], &decided["changed"]), (&json!("failed"), &json!(0)), "{decided}");
    assert!(decided["detail"].as_str().unwrap().contains("WRONGTYPE"), "{decided}");
    redis.run("DEL orders:dead");
    // The second write is not allowed: nor is the first one made.
    let grants: Vec<String> = documented("dead_letter").into_iter().filter(|grant| grant != "+xack").collect();
    grant(&redis, &grants);
    let decided = approve();
    assert_eq!((&decided["outcome"], &decided["changed"]), (&json!("failed"), &json!(0)), "{decided}");
    assert_eq!((redis.run("XLEN orders:dead"), held()[0].3), (redis::Value::Int(0), 3));
    grant_all(&redis);
    let decided = approve();
    assert_eq!((&decided["outcome"], &decided["changed"]), (&json!("done"), &json!(1)), "{decided}");
    assert_eq!((redis.run("XLEN orders:dead"), held().len()), (redis::Value::Int(1), 0));
}

#[test]
fn a_write_that_the_server_refuses_changes_nothing() {
    std::thread::scope(|scope| {
        for server in servers() {
            scope.spawn(move || refuses(&server));
        }
    });
}

/// It was deleted from within the stream, so that samples do not show it.
#[test]
fn an_entry_without_payload_is_dropped_once_a_script_has_met_it() {
    let redis = Redis::start();
    // Before it is an entry that has its payload.
    let _here = sick(&redis, &["first"]);
    grant_all(&redis);
    redis.read("orders", "g", "poisoned", 2);
    let held = || -> Vec<(String, String, u64, u64)> {
        redis::from_redis_value(redis.run("XPENDING orders g - + 9 poisoned")).unwrap()
    };
    let ids: Vec<String> = held().into_iter().map(|(id, ..)| id).collect();
    redis.run(&format!("XCLAIM orders g poisoned 0 {} RETRYCOUNT 3 JUSTID", ids.join(" ")));
    redis.run(&format!("XDEL orders {}", ids[0]));
    let office = Office::new();
    let actions = ["drop_ghosts", "dead_letter"];
    let to = json!({"stream": "orders:dead", "deliveries": 3, "idle": "100ms"});
    let rules = json!([{"stream": "orders", "group": "g", "mode": "approve", "actions": actions, "dead_letter": to}]);
    let streamlag = office.start(&redis.url(), &rules, &json!({}));
    let approve = |plan: &Value| decide(&streamlag, plan, "approve", &office.alice).json();
    let letter = plan(&streamlag, "dead_letter");
    assert_eq!(letter["evidence"]["entry"], ids[0]);
    assert!(board(&streamlag)["plans"].as_array().unwrap().iter().all(|plan| plan["action"] != "drop_ghosts"));
    let refused = approve(&letter);
    assert!(refused.to_string().contains("the payload of the entry is gone"), "{refused}");
    let drop = plan(&streamlag, "drop_ghosts");
    assert_eq!(drop["evidence"]["ghosts"], 1);
    let dropped = approve(&drop);
    assert_eq!((&dropped["outcome"], &dropped["changed"]), (&json!("done"), &json!(1)), "{dropped}");
    // It no longer stands before the other one.
    let letter = plan(&streamlag, "dead_letter");
    assert_eq!(letter["evidence"]["entry"], ids[1]);
    assert_eq!(approve(&letter)["outcome"], "done");
    assert_eq!((redis.run("XLEN orders:dead"), held()), (redis::Value::Int(1), vec![]));
}

#[test]
fn how_plans_ended_is_shown_after_a_restart() {
    let redis = Redis::start();
    let _here = sick(&redis, &["done", "rejected", "cut"]);
    grant_all(&redis);
    let gate = Gate::start(redis.port);
    let office = Office::new();
    let rules = json!([{"stream": "orders", "group": "g", "mode": "approve", "actions": [DELETE]}]);
    let start = || office.start(&through(&redis, &gate), &rules, &json!({}));
    let mut streamlag = start();
    let history = |streamlag: &Streamlag| board(streamlag)["history"].as_array().unwrap().clone();
    let approve = plan_of(&streamlag, DELETE, "done");
    assert_eq!(decide(&streamlag, &approve, "approve", &office.alice).json()["outcome"], "done");
    let reject = plan_of(&streamlag, DELETE, "rejected");
    assert_eq!(decide(&streamlag, &reject, "reject", &office.bob).json()["outcome"], "rejected");
    // A plan that has become void meanwhile is not on record.
    let ended = |past: &Value| past["outcome"] != "void";
    let mut before: Vec<Value> = history(&streamlag).into_iter().filter(ended).collect();
    assert_eq!(before.len(), 2);
    let cut = plan_of(&streamlag, DELETE, "cut");
    gate.set(HOLDS_ANSWER);
    std::thread::scope(|scope| {
        let (address, id, token) = (streamlag.address, cut["id"].as_str().unwrap(), &office.alice);
        scope.spawn(move || {
            use std::io::{Read as _, Write as _};
            let head = format!(
                "POST /api/v1/remediation/{id}/approve HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n\r\n"
            );
            let mut connection = std::net::TcpStream::connect(address).unwrap();
            connection.write_all(head.as_bytes()).unwrap();
            let _ = connection.read_to_end(&mut Vec::new());
        });
        eventually("the act is carried out", || gate.has_caught().then_some(()));
        streamlag.signal("-KILL");
        streamlag.wait();
        gate.set(OPEN);
    });
    let streamlag = start();
    let mut after = history(&streamlag);
    Document::read().check(&json!({"$ref": "#/components/schemas/Remediation"}), &board(&streamlag), "after a restart");
    // The record has when it was written.
    before.iter_mut().chain(&mut after).for_each(|past| drop(past.as_object_mut().unwrap().remove("ended_at")));
    assert_eq!((after.len(), &after[1..]), (3, &before[..]), "{after:#?}");
    assert_eq!(
        (&after[0]["id"], &after[0]["outcome"], &after[0]["by"]),
        (&cut["id"], &json!("unknown"), &json!(["alice"]))
    );
    assert_eq!(after[0]["detail"], "the program ended before it knew");
}
