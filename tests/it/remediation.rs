//! Remediation: plans, approvals, acts and their record, against real servers.

use std::collections::BTreeSet;
use std::path::Path;

use redis::Value as Reply;
use serde_json::{Value, json};

use crate::common::cluster::{self, Cluster};
use crate::common::grants;
use crate::common::monitor::{Executed, Monitor};
use crate::common::receiver::Receiver;
use crate::common::remedy::{ACTOR, Office, Worker, board, decide, documented, grant, grant_all, plan};
use crate::common::schema::Document;
use crate::common::sentinel::{self, Trio};
use crate::common::tls::{self, Authority};
use crate::common::{Redis, Streamlag, TOKEN, command, eventually, servers};

/// Commands that write, as far as acts use them.
const WRITES: [&str; 4] = ["XGROUP", "XCLAIM", "XACK", "XADD"];

/// A group that was given nothing yet, of a stream whose entries are old.
fn fill(redis: &Redis, stream: &str) {
    redis.add_old(stream, 500);
    redis.run(&format!("XGROUP CREATE {stream} g 0"));
}

fn strings(reply: Reply) -> Vec<String> {
    match reply {
        Reply::Array(items) => items.into_iter().flat_map(strings).collect(),
        Reply::Int(number) => vec![number.to_string()],
        other => vec![redis::from_redis_value(other).unwrap()],
    }
}

/// Pending entries of a consumer: id, owner, idle, deliveries.
fn pending(redis: &Redis, stream: &str, consumer: &str) -> Vec<Vec<String>> {
    let all = strings(redis.run(&format!("XPENDING {stream} g - + 100 {consumer}")));
    all.chunks(4).map(<[String]>::to_vec).collect()
}

fn consumers(redis: &Redis, stream: &str) -> BTreeSet<String> {
    let all = strings(redis.run(&format!("XINFO CONSUMERS {stream} g")));
    all.windows(2).filter(|pair| pair[0] == "name").map(|pair| pair[1].clone()).collect()
}

/// A consumer that holds nothing and never comes back.
fn idle(redis: &Redis, stream: &str, consumer: &str) {
    redis.read(stream, "g", consumer, 1);
    let held = pending(redis, stream, consumer);
    redis.run(&format!("XACK {stream} g {}", held[0][0]));
}

fn acts(streamlag: &Streamlag, action: &str, outcome: &str) -> Option<f64> {
    let series = format!("streamlag_remediation_acts_total{{action=\"{action}\",outcome=\"{outcome}\"}}");
    streamlag.metric(&series)
}

/// Addresses of the connections of a user.
fn addresses(redis: &Redis, user: &str) -> BTreeSet<String> {
    let text: String = redis::from_redis_value(redis.run("CLIENT LIST")).unwrap();
    let user = format!("user={user}");
    let of_user = text.lines().filter(|line| line.split(' ').any(|field| field == user));
    of_user.filter_map(|line| Some(line.split_once(" addr=")?.1.split(' ').next()?.to_owned())).collect()
}

fn is_write(executed: &&Executed) -> bool {
    WRITES.iter().any(|command| executed.words.to_uppercase().starts_with(&format!("\"{command}\"")))
}

#[test]
fn each_action_is_planned_approved_carried_out_and_recorded() {
    for server in servers() {
        let redis = Redis::start_with(&server, &[]);
        fill(&redis, "orders");
        grant_all(&redis);
        // Two ghosts, an entry that nobody can process, three of a consumer that died, and a consumer that held nothing.
        redis.read("orders", "g", "ghostly", 2);
        let ghosts: Vec<String> = pending(&redis, "orders", "ghostly").iter().map(|held| held[0].clone()).collect();
        redis.run(&format!("XDEL orders {}", ghosts.join(" ")));
        redis.read("orders", "g", "poisoned", 1);
        let poison = pending(&redis, "orders", "poisoned")[0][0].clone();
        redis.run(&format!("XCLAIM orders g poisoned 0 {poison} RETRYCOUNT 3 JUSTID"));
        redis.read("orders", "g", "gone", 3);
        let held = pending(&redis, "orders", "gone");
        idle(&redis, "orders", "leftover");
        let _here = Worker::start(&redis, "orders", "g", "here");
        let office = Office::new();
        let actions = ["delete_idle_consumers", "drop_ghosts", "release", "dead_letter"];
        let to = json!({"stream": "orders:dead", "deliveries": 3, "idle": "100ms"});
        let rules =
            json!([{"stream": "orders", "group": "g", "mode": "approve", "actions": actions, "dead_letter": to}]);
        let mut monitor = Monitor::start(&redis);
        let streamlag = office.start(&redis.url(), &rules, &json!({}));
        for action in actions {
            eventually("it begins at 0", || acts(&streamlag, action, "done").filter(|acts| *acts == 0.0));
        }
        let of = |action: &str, consumer: &str| {
            eventually(&format!("a plan to {action} {consumer}"), || {
                let plans = board(&streamlag)["plans"].as_array().unwrap().clone();
                let is_it = |plan: &&Value| plan["action"] == action && plan["evidence"]["consumer"] == consumer;
                plans.iter().find(is_it).cloned()
            })
        };
        let release = of("release", "gone");
        let ref_plan = json!({"$ref": "#/components/schemas/RemediationPlan"});
        Document::read().check(&ref_plan, &release, "a plan");
        assert_eq!(release["evidence"]["taken_over_by"], "here");
        assert_eq!(release["waits_for"], "approval by a token with scope:remediate");
        // A token that only reads decides nothing, nor does a plan that there is not.
        assert_eq!(decide(&streamlag, &release, "approve", TOKEN).status, 403);
        assert_eq!(decide(&streamlag, &release, "approve", "wrong").status, 401);
        assert_eq!(decide(&streamlag, &json!({"id": "0123456789abcdef"}), "approve", &office.alice).status, 409);
        let answer = decide(&streamlag, &release, "approve", &office.alice);
        assert_eq!((answer.status, answer.json()["outcome"].clone()), (200, json!("done")), "{}", answer.text());
        assert_eq!(answer.json()["changed"], 3);
        let taken: Vec<_> = pending(&redis, "orders", "here")
            .into_iter()
            .filter(|now| held.iter().any(|then| then[0] == now[0]))
            .collect();
        assert_eq!(taken.len(), 3);
        for (then, now) in held.iter().zip(&taken) {
            let idle = |entry: &[String]| entry[2].parse::<u64>().unwrap();
            assert!(now[3] == then[3] && idle(now) >= idle(then) + 1000, "{then:?} {now:?}");
        }
        assert_eq!(decide(&streamlag, &release, "approve", &office.alice).status, 409);
        let drop = plan(&streamlag, "drop_ghosts");
        assert_eq!(drop["evidence"]["ghosts"], 2);
        assert_eq!(decide(&streamlag, &drop, "approve", &office.alice).status, 200);
        assert_eq!(pending(&redis, "orders", "ghostly"), Vec::<Vec<String>>::new());
        let letter = plan(&streamlag, "dead_letter");
        assert_eq!(letter["evidence"]["entry"], poison);
        assert_eq!(decide(&streamlag, &letter, "approve", &office.bob).status, 200);
        assert_eq!(pending(&redis, "orders", "poisoned"), Vec::<Vec<String>>::new());
        let copy = strings(redis.run("XRANGE orders:dead - +"));
        let expected = ["streamlag.stream", "orders", "streamlag.group", "g", "streamlag.id", &poison];
        assert_eq!(copy[1..7], expected);
        let (provenance, payload) = (&copy[7..13], &copy[13..]);
        assert_eq!(provenance[..4], ["streamlag.consumer", "poisoned", "streamlag.deliveries", "3"]);
        assert_eq!((provenance[4].as_str(), payload[0].as_str()), ("streamlag.reason", "n"));
        assert_eq!(strings(redis.run(&format!("XRANGE orders {poison} {poison}"))).len(), 3);
        let delete = of("delete_idle_consumers", "leftover");
        assert_eq!(decide(&streamlag, &delete, "approve", &office.alice).status, 200);
        assert!(!consumers(&redis, "orders").contains("leftover"));
        for action in actions {
            eventually("it is counted", || acts(&streamlag, action, "done").filter(|acts| *acts == 1.0));
        }
        // What was written is what is on record, and nobody but the scripts of acts wrote it.
        let watcher = addresses(&redis, "streamlag");
        assert!(!watcher.is_empty());
        let executed = monitor.until_now(&redis);
        assert!(executed.iter().filter(|command| watcher.contains(&command.client)).all(|command| !is_write(&command)));
        let written = |word: &str| {
            let by_scripts = executed.iter().filter(|command| command.client == "lua").filter(is_write);
            by_scripts.filter(|command| command.words.to_uppercase().starts_with(&format!("\"{word}\""))).count()
        };
        // One acknowledgment of nothing shows that the other is allowed.
        assert_eq!(WRITES.map(written), [1, 3, 3, 1]);
        let audit = office.audit();
        let kinds: Vec<&str> = audit.iter().map(|record| record["kind"].as_str().unwrap()).collect();
        assert_eq!(kinds, ["intent", "outcome"].repeat(4));
        let changed: Vec<i64> = audit.iter().filter_map(|record| record["changed"].as_i64()).collect();
        assert_eq!((changed, &audit[0]["by"], &audit[4]["by"]), (vec![3, 2, 1, 1], &json!(["alice"]), &json!(["bob"])));
        let (mut document, board_now) = (Document::read(), board(&streamlag));
        document.check(&json!({"$ref": "#/components/schemas/Remediation"}), &board_now, "GET /api/v1/remediation");
        document.check(&json!({"$ref": "#/components/schemas/RemediationDecision"}), &answer.json(), "approve");
        let history = board(&streamlag)["history"].as_array().unwrap().clone();
        let done = history.iter().filter(|past| past["outcome"] == "done").count();
        assert_eq!(done, 4);
    }
}

#[test]
fn a_plan_is_only_shown_and_costs_no_writes_and_off_is_off() {
    let redis = Redis::start();
    fill(&redis, "orders");
    idle(&redis, "orders", "leftover");
    let _here = Worker::start(&redis, "orders", "g", "here");
    let office = Office::new();
    let rules = json!([
        {"stream": "orders", "group": "other", "mode": "auto", "actions": ["release"], "budget": {"acts_per_hour": 1, "entries_per_act": 1}},
        {"stream": "orders", "group": "g", "mode": "plan", "actions": ["delete_idle_consumers"]},
    ]);
    let mut monitor = Monitor::start(&redis);
    let streamlag = office.start(&redis.url(), &rules, &json!({}));
    let delete = plan(&streamlag, "delete_idle_consumers");
    assert_eq!(decide(&streamlag, &delete, "approve", &office.alice).status, 409);
    streamlag.next_sample();
    assert!(consumers(&redis, "orders").contains("leftover") && office.audit().is_empty());
    let executed = monitor.until_now(&redis);
    assert!(!executed.iter().any(|command| command.client == "lua" && is_write(&command)));
    assert_eq!(addresses(&redis, ACTOR), BTreeSet::new());
    // It comes back: the plan is void.
    redis.read("orders", "g", "leftover", 1);
    eventually("the plan is void", || {
        let board = board(&streamlag);
        let is_gone = board["plans"].as_array().unwrap().iter().all(|plan| plan["id"] != delete["id"]);
        (is_gone && board["history"][0]["outcome"] == "void").then_some(())
    });
    assert_eq!(decide(&streamlag, &delete, "reject", &office.alice).status, 409);
    // Off by a reload, and from the start.
    office.config(&json!([{"stream": "*", "group": "*", "mode": "off"}]), &json!({}));
    streamlag.signal("-HUP");
    let nothing = json!({
        "enabled": false, "stopped": null, "token": "default", "may_decide": false, "plans": [], "history": [],
    });
    eventually("remediation is off", || (board(&streamlag) == nothing).then_some(()));
    let plain = crate::common::streamlag(&["--redis.url", &redis.url(), "--streams", "orders"]).ready();
    assert_eq!(board(&plain), nothing);
    assert!(!plain.metrics().contains("streamlag_remediation"));
}

/// Beside a consumer that works, one that may be deleted, and the plan to do so where it needs an approval.
fn leftover(redis: &Redis, office: &Office, settings: &Value) -> (Worker, Streamlag, Value) {
    fill(redis, "orders");
    grant(redis, &documented("delete_idle_consumers"));
    idle(redis, "orders", "leftover");
    let here = Worker::start(redis, "orders", "g", "here");
    let rules = json!([{"stream": "*", "group": "*", "mode": "approve", "actions": ["delete_idle_consumers"]}]);
    let streamlag = office.start(&redis.url(), &rules, settings);
    let delete = plan(&streamlag, "delete_idle_consumers");
    (here, streamlag, delete)
}

#[test]
fn two_people_and_a_rejection() {
    let redis = Redis::start();
    let office = Office::new();
    let (_here, streamlag, delete) = leftover(&redis, &office, &json!({"two_person": true}));
    assert_eq!(decide(&streamlag, &delete, "approve", &office.alice).status, 202);
    assert_eq!(decide(&streamlag, &delete, "approve", &office.alice).status, 409);
    assert_eq!(board(&streamlag)["plans"][0]["approved_by"], json!(["alice"]));
    assert!(consumers(&redis, "orders").contains("leftover"));
    assert_eq!(decide(&streamlag, &delete, "approve", &office.bob).status, 200);
    assert!(!consumers(&redis, "orders").contains("leftover"));
    assert_eq!(office.audit()[0]["by"], json!(["alice", "bob"]));
    idle(&redis, "orders", "another");
    let delete = plan(&streamlag, "delete_idle_consumers");
    assert_eq!(decide(&streamlag, &delete, "reject", &office.bob).json()["outcome"], "rejected");
    assert_eq!(decide(&streamlag, &delete, "approve", &office.alice).status, 409);
    streamlag.next_sample();
    streamlag.next_sample();
    assert_eq!(board(&streamlag)["plans"], json!([]));
    assert_eq!(office.audit().last().unwrap()["outcome"], "rejected");
    // Nor is it planned again by other rules.
    idle(&redis, "orders", "third");
    plan(&streamlag, "delete_idle_consumers");
    let rule = |group: &str, mode: &str| json!({"stream": "*", "group": group, "mode": mode, "actions": ["delete_idle_consumers"]});
    office.config(&json!([rule("other", "plan"), rule("*", "plan")]), &json!({}));
    streamlag.signal("-HUP");
    eventually("the other plan is made by the new rule", || {
        let plans = board(&streamlag)["plans"].as_array().unwrap().clone();
        (plans.len() == 1 && plans[0]["mode"] == "plan").then_some(())
    });
    streamlag.next_sample();
    let plans = board(&streamlag)["plans"].as_array().unwrap().clone();
    assert_eq!(plans.iter().map(|plan| &plan["evidence"]["consumer"]).collect::<Vec<_>>(), ["third"]);
}

#[test]
fn auto_keeps_to_its_budget_over_a_restart_and_stops_at_the_switch_and_where_most_are_sick() {
    let redis = Redis::start();
    redis.add_old("orders", 5000);
    redis.run("XGROUP CREATE orders g 0");
    grant(&redis, &documented("delete_idle_consumers"));
    for n in 0..3 {
        idle(&redis, "orders", &format!("leftover-{n}"));
    }
    let mut here: Vec<Worker> = (0..5).map(|n| Worker::start(&redis, "orders", "g", &format!("here-{n}"))).collect();
    let office = Office::new();
    let rules = |acts: u64| {
        let budget = json!({"acts_per_hour": acts, "entries_per_act": 10});
        json!([{"stream": "*", "group": "*", "mode": "auto", "actions": ["delete_idle_consumers"], "budget": budget}])
    };
    std::fs::write(office.path("stop"), "").unwrap();
    let mut streamlag = office.start(&redis.url(), &rules(2), &json!({}));
    let left = || consumers(&redis, "orders").iter().filter(|name| name.starts_with("leftover")).count();
    plan(&streamlag, "delete_idle_consumers");
    let delete = eventually("three plans", || {
        let plans = board(&streamlag)["plans"].as_array().unwrap().clone();
        (plans.len() == 3).then(|| plans[0].clone())
    });
    assert_eq!(decide(&streamlag, &delete, "approve", &office.alice).status, 503);
    assert_eq!((left(), board(&streamlag)["stopped"].as_str()), (3, Some("the kill switch file is there")));
    std::fs::remove_file(office.path("stop")).unwrap();
    eventually("two acts", || (left() == 1).then_some(()));
    streamlag.next_sample();
    assert_eq!(office.audit().len(), 4);
    streamlag.signal("-TERM");
    streamlag.wait();
    let streamlag = office.start(&redis.url(), &rules(2), &json!({}));
    plan(&streamlag, "delete_idle_consumers");
    for _ in 0..5 {
        streamlag.next_sample();
    }
    assert_eq!((left(), office.audit().len()), (1, 4));
    // Most of the group is gone: whatever the budget, a person must decide.
    here.clear();
    let _here = Worker::start(&redis, "orders", "g", "here-0");
    eventually("most are not alive", || {
        let plans = board(&streamlag)["plans"].as_array().unwrap().clone();
        plans.iter().find(|plan| plan["evidence"]["consumer"] == "here-3").cloned()
    });
    office.config(&rules(100), &json!({}));
    streamlag.signal("-HUP");
    let waits = eventually("plans by the new rules", || {
        let plans = board(&streamlag)["plans"].as_array().unwrap().clone();
        let waits = |plan: &Value| plan["waits_for"].as_str().map(str::to_owned);
        let waits: Vec<String> = plans.iter().filter_map(waits).filter(|why| why.contains("51 %")).collect();
        (waits.len() == 5).then_some(waits)
    });
    assert!(waits.len() == 5 && waits.iter().all(|why| why.contains("51 %")), "{waits:?}");
    assert_eq!(left(), 1);
}

#[test]
fn without_a_record_nothing_is_done() {
    let redis = Redis::start();
    let office = Office::new();
    let (_here, streamlag, delete) = leftover(&redis, &office, &json!({"audit_file": "/dev/full"}));
    let answer = decide(&streamlag, &delete, "approve", &office.alice);
    assert!(answer.status == 503 && answer.text().contains("No space left"), "{}", answer.text());
    assert!(consumers(&redis, "orders").contains("leftover"));
    assert_eq!(acts(&streamlag, "delete_idle_consumers", "done"), Some(0.0));
}

#[test]
fn a_hook_is_signed_and_called_once() {
    let redis = Redis::start();
    fill(&redis, "orders");
    redis.read("orders", "g", "gone", 3);
    let receiver = Receiver::start();
    let office = Office::new();
    let hook = json!({"url": receiver.url("/restart"), "secret_file": "secret"});
    let rules = json!([{"stream": "*", "group": "*", "mode": "approve", "actions": ["hook"], "hook": hook}]);
    let streamlag = office.start(&redis.url(), &rules, &json!({}));
    let call = plan(&streamlag, "hook");
    assert_eq!(decide(&streamlag, &call, "approve", &office.alice).json()["outcome"], "done");
    let received = receiver.received();
    assert_eq!(received.len(), 1);
    assert_eq!(received[0].header("webhook-id"), call["id"].as_str());
    assert!(received[0].header("webhook-signature").unwrap().starts_with("v1,"));
    assert_eq!((&received[0].json()["stream"], &received[0].json()["consumer_group"]), (&json!("orders"), &json!("g")));
    assert_eq!(office.audit().len(), 2);
}

/// What a group needs of this action, again and again.
fn need(redis: &Redis, action: &str) {
    match action {
        "delete_idle_consumers" => idle(redis, "orders", "leftover"),
        "release" => redis.read("orders", "g", "gone", 1),
        _ => {
            redis.read("orders", "g", "holder", 1);
            let id = pending(redis, "orders", "holder")[0][0].clone();
            if action == "drop_ghosts" {
                redis.run(&format!("XDEL orders {id}"));
            } else {
                redis.run(&format!("XCLAIM orders g holder 0 {id} RETRYCOUNT 3 JUSTID"));
            }
        }
    }
}

#[test]
fn the_documented_grants_are_enough_for_each_action_and_each_is_needed() {
    // On the first and the last of them, as it takes half a minute each: the grants are of commands that have not changed between.
    let servers = servers();
    for server in servers.first().into_iter().chain(servers.get(1..).and_then(<[_]>::last)) {
        for action in ["delete_idle_consumers", "drop_ghosts", "release", "dead_letter"] {
            let redis = Redis::start_with(server, &[]);
            fill(&redis, "orders");
            need(&redis, action);
            let _here = Worker::start(&redis, "orders", "g", "here");
            let office = Office::new();
            let to = json!({"stream": "orders:dead", "deliveries": 3, "idle": "0s"});
            let rules =
                json!([{"stream": "*", "group": "*", "mode": "approve", "actions": [action], "dead_letter": to}]);
            let grants = documented(action);
            grant(&redis, &grants);
            let streamlag = office.start(&redis.url(), &rules, &json!({}));
            for without in &grants {
                let others: Vec<String> = grants.iter().filter(|grant| *grant != without).cloned().collect();
                grant(&redis, &others);
                redis.run("SCRIPT FLUSH");
                let plan = plan(&streamlag, action);
                let answer = decide(&streamlag, &plan, "approve", &office.alice);
                let at = format!("{} {action} without {without}: {}", server.display(), answer.text());
                assert_eq!((answer.status, answer.json()["outcome"].clone()), (200, json!("failed")), "{at}");
            }
            assert_eq!(strings(redis.run("EXISTS orders:dead")), ["0"]);
            grant(&redis, &grants);
            redis.run("SCRIPT FLUSH");
            redis.run("ACL LOG RESET");
            let plan = plan(&streamlag, action);
            let answer = decide(&streamlag, &plan, "approve", &office.alice);
            assert_eq!(answer.json()["outcome"], "done", "{} {action}: {}", server.display(), answer.text());
            assert_eq!(strings(redis.run("ACL LOG")), Vec::<String>::new());
        }
    }
}

#[test]
fn in_a_cluster_and_behind_sentinels() {
    let actions = json!(["delete_idle_consumers"]);
    let rules = json!([{"stream": "*", "group": "*", "mode": "approve", "actions": actions}]);
    let acting = documented("delete_idle_consumers");
    let cluster = Cluster::start(Path::new("redis-server"), &[]);
    for node in &cluster.nodes {
        grant(node, &[&acting[..], &["~events:*", "+cluster|slots", "+ping"].map(str::to_owned)].concat());
    }
    let owner = &cluster.nodes[cluster.node_of("events:chat")];
    fill(owner, "events:chat");
    idle(owner, "events:chat", "leftover");
    let here = Worker::start(owner, "events:chat", "g", "here");
    let office = Office { stream: "events:chat", ..Office::new() };
    let nodes = cluster.others();
    let flags = ["--redis.mode", "cluster", "--redis.nodes", &nodes];
    let streamlag = office.start_with(&cluster.url(), &rules, &json!({}), &flags);
    let delete = plan(&streamlag, "delete_idle_consumers");
    let answer = decide(&streamlag, &delete, "approve", &office.alice);
    assert_eq!(answer.json()["outcome"], "done", "{}", answer.text());
    assert!(!consumers(owner, "events:chat").contains("leftover"));
    drop((here, streamlag));

    let trio = Trio::start(Path::new("redis-server"), &[]);
    for server in &trio.servers {
        grant(server, &[&acting[..], &["+role".to_owned()]].concat());
    }
    let master = &trio.servers[0];
    fill(master, "orders");
    idle(master, "orders", "leftover");
    let _here = Worker::start(master, "orders", "g", "here");
    let office = Office::new();
    let others = trio.others();
    let file = office.path("sentinel-password");
    std::fs::write(&file, "sentinel-pw").unwrap();
    let file = file.to_str().unwrap();
    let login = ["--redis.sentinel-user", sentinel::USER, "--redis.sentinel-password-file", file];
    let flags = ["--redis.mode", "sentinel", "--redis.sentinel-master", sentinel::MASTER, "--redis.nodes", &others];
    let flags = [&flags[..], &login[..]].concat();
    let streamlag = office.start_with(&trio.url(), &rules, &json!({}), &flags);
    let delete = plan(&streamlag, "delete_idle_consumers");
    let answer = decide(&streamlag, &delete, "approve", &office.alice);
    assert_eq!(answer.json()["outcome"], "done", "{}", answer.text());
    assert!(!consumers(master, "orders").contains("leftover"));
    // A password of the sentinels that was changed is taken up without a reload.
    for sentinel in &trio.sentinels {
        sentinel.try_run(&["ACL", "SETUSER", sentinel::USER, "resetpass", ">changed"]).unwrap();
    }
    std::fs::write(file, "changed").unwrap();
    idle(master, "orders", "another");
    let delete = plan(&streamlag, "delete_idle_consumers");
    let answer = decide(&streamlag, &delete, "approve", &office.alice);
    assert_eq!(answer.json()["outcome"], "done", "{}", answer.text());
    assert!(!consumers(master, "orders").contains("another"));
}

/// Approves the deletion of a consumer at `redis`, which streamlag reaches by these flags, and of another one; what came of each. Between
/// them, `change` is called.
fn act_twice(redis: &Redis, url: &str, flags: &[&str], change: impl FnOnce()) -> [Value; 2] {
    fill(redis, "orders");
    idle(redis, "orders", "first");
    let _here = Worker::start(redis, "orders", "g", "here");
    let office = Office::new();
    let rules = json!([{"stream": "*", "group": "*", "mode": "approve", "actions": ["delete_idle_consumers"]}]);
    let streamlag = office.start_with(url, &rules, &json!({}), flags);
    let act = || decide(&streamlag, &plan(&streamlag, "delete_idle_consumers"), "approve", &office.alice).json();
    let first = act();
    idle(redis, "orders", "second");
    change();
    [first, act()]
}

#[test]
fn acts_go_over_tls_with_our_certificate_and_read_its_files_again() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let identity = ours.issue_for(&["localhost", "127.0.0.1"]);
    let (redis, url) = tls::redis_with_certificate(&identity, &ours.ca(), &["--tls-auth-clients", "yes"]);
    grant(&redis, &documented("delete_idle_consumers"));
    let ([certificate, key], ca) = (ours.issue("client.test"), ours.ca());
    let flags = ["--redis.tls-ca-file", &ca, "--redis.tls-cert-file", &certificate, "--redis.tls-key-file", &key];
    let [first, second] = act_twice(&redis, &url, &flags, || {
        std::fs::copy(theirs.ca(), &ca).unwrap();
    });
    assert_eq!(first["outcome"], "done", "{first}");
    // The server is not trusted any more: nothing was sent to it.
    assert_eq!(second["outcome"], "failed", "{second}");
    assert!(second["detail"].as_str().unwrap().to_lowercase().contains("certificate"), "{second}");
    assert!(!consumers(&redis, "orders").contains("first") && consumers(&redis, "orders").contains("second"));

    // The name of a certificate cannot be another one than the host's.
    let office = Office::new();
    let rules = json!([{"stream": "*", "group": "*", "mode": "approve", "actions": ["release"]}]);
    let file = office.config(&rules, &json!({}));
    let flags = ["--redis.url", "rediss://watcher@127.0.0.1:1", "--redis.tls-server-name", "redis.test"];
    let output = command(&[&["--config.check", "--config.file", &file], &flags[..]].concat(), &[]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(2) && said.contains("does not go with --redis.tls-server-name"), "{said}");
}

#[test]
fn acts_go_over_tls_in_a_cluster_and_behind_a_sentinel() {
    let authority = Authority::new();
    let (identity, ca) = (authority.issue_for(&["localhost", "127.0.0.1"]), authority.ca());
    let cluster = ["--tls-auth-clients", "no", "--tls-cluster", "yes", "--cluster-enabled", "yes"];
    let (redis, url) = tls::redis_with_certificate(&identity, &ca, &cluster);
    redis.run("CLUSTER ADDSLOTSRANGE 0 16383");
    eventually("it has all slots", || cluster::info(&redis).contains("cluster_state:ok").then_some(()));
    let watcher =
        |redis: &Redis, words: &[String]| redis.run(&format!("ACL SETUSER {} {}", grants::USER, words.join(" ")));
    watcher(&redis, &cluster::documented_grants());
    let acting = |more: &[&str]| {
        [documented("delete_idle_consumers"), more.iter().map(|word| (*word).to_owned()).collect()].concat()
    };
    grant(&redis, &acting(&["+cluster|slots", "+ping"]));
    let done = |outcomes: [Value; 2]| assert!(outcomes.iter().all(|act| act["outcome"] == "done"), "{outcomes:?}");
    done(act_twice(&redis, &url, &["--redis.mode", "cluster", "--redis.tls-ca-file", &ca], || ()));

    let (redis, url) = tls::redis_with_certificate(&identity, &ca, &["--tls-auth-clients", "no"]);
    watcher(&redis, &["+role".to_owned()]);
    grant(&redis, &acting(&["+role"]));
    let master: u16 = url.rsplit_once(':').unwrap().1.split('/').next().unwrap().parse().unwrap();
    let sentinel = sentinel::Sentinel::start_with_tls(Path::new("redis-server"), master, &identity, &ca);
    let url = url.replace(&format!(":{master}/"), &format!(":{}/", sentinel.port));
    let flags = ["--redis.mode", "sentinel", "--redis.sentinel-master", sentinel::MASTER, "--redis.tls-ca-file", &ca];
    done(act_twice(&redis, &url, &flags, || ()));
}

#[test]
fn what_is_wrong_with_the_section_is_told_at_the_check() {
    let office = Office::new();
    std::fs::write(office.path("open"), "x".repeat(32)).unwrap();
    let good = || {
        json!([{
            "stream": "{orders}:*", "group": "*", "mode": "auto", "actions": ["release", "dead_letter", "hook"],
            "budget": {"acts_per_hour": 1, "entries_per_act": 1},
            "dead_letter": {"stream": "{orders}:dead", "deliveries": 3},
            "hook": {"url": "https://hooks.example.org/x", "secret_file": "secret"},
        }])
    };
    let check = |rules: Value, more: Value, flags: &[&str], expected: Option<&str>| {
        let file = office.config(&rules, &more);
        let all =
            [&["--config.check", "--config.file", &file, "--redis.url", "redis://watcher@127.0.0.1:1"], flags].concat();
        let output = command(&all, &[]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        match expected {
            None => assert!(output.status.success(), "{said}"),
            Some(expected) => {
                assert_eq!(output.status.code(), Some(2), "{expected}: {said}");
                assert!(said.contains(expected), "{expected}: {said}");
            }
        }
    };
    check(good(), json!({}), &[], None);
    check(good(), json!({}), &["--redis.mode", "cluster"], None);
    let with = |pointer: &str, value: Value| {
        let mut rules = good();
        match rules.pointer_mut(pointer) {
            Some(place) => *place = value,
            None => rules[0][&pointer[3..]] = value,
        }
        rules
    };
    let without = |key: &str| {
        let mut rules = good();
        rules[0].as_object_mut().unwrap().remove(key);
        rules
    };
    let bad = |rules: Value, expected: &str| check(rules, json!({}), &[], Some(expected));
    bad(with("/0/actions", json!(["restart"])), "remediation.rules.actions in ");
    bad(
        with("/0/actions", json!(["restart"])),
        "line 1: invalid value \"restart\": expected one of delete_idle_consumers",
    );
    bad(with("/0/mode", json!("always")), "invalid value \"always\": expected one of off, plan, approve, auto");
    bad(with("/0/actions", json!([])), "expected one or more of delete_idle_consumers");
    bad(
        with("/0/action", json!([])),
        "unknown key \"action\" of remediation.rules: did you mean remediation.rules.actions?",
    );
    bad(without("budget"), "mode auto requires a budget");
    bad(without("dead_letter"), "dead_letter is missing");
    bad(without("hook"), "hook is missing");
    bad(with("/0/hook", json!({"url": "https://h"})), "remediation.rules.hook in ");
    bad(without("stream"), "remediation.rules.stream is missing");
    bad(with("/0/budget/acts_per_hour", json!(0)), "invalid value \"0\": expected a whole number between 1 and 1000");
    bad(with("/0/dead_letter/deliveries", json!(1)), "invalid value \"1\": expected a whole number of at least 2");
    let soon = json!({"stream": "{orders}:dead", "deliveries": 3, "idle": "soon"});
    bad(with("/0/dead_letter", soon), "invalid value \"soon\": expected a duration between");
    bad(with("/0/target", json!("nobody")), "invalid value \"nobody\": expected a pattern that matches a target");
    bad(with("/0/hook/url", json!("http://hooks.example.org/x")), "allow_plain: true sends without TLS");
    bad(with("/0/hook/secret_file", json!("open")), "expected a file that not everybody can read");
    let elsewhere = with("/0/dead_letter/stream", json!("dead"));
    check(elsewhere.clone(), json!({}), &[], None);
    check(elsewhere, json!({}), &["--redis.mode", "cluster"], Some("expected the same slot of the cluster"));
    let more = |more: Value, expected: &str| check(good(), more, &[], Some(expected));
    more(
        json!({"user": "watcher"}),
        "invalid value \"watcher\": expected another user than the one who watches target default",
    );
    more(json!({"user": null}), "user is missing: mode approve and auto act as a Redis user of its own");
    more(json!({"password_file": null}), "password_file is missing");
    more(json!({"password_file": "nowhere"}), "expected a file that can be read");
    more(json!({"password_file": "open"}), "expected a file that not everybody can read");
    more(
        json!({"audit_file": null}),
        "audit_file is missing: expected a file, as mode approve and auto record every act",
    );
    more(json!({"audit_file": "/nowhere/audit"}), "expected a file in a folder that is there");
    more(json!({"usr": "x"}), "unknown key \"usr\" of remediation: did you mean remediation.user?");
    more(json!({"two_person": "maybe"}), "remediation.two_person in ");
    // A reload refuses the same.
    let redis = Redis::start();
    let streamlag = office.start(&redis.url(), &json!([]), &json!({}));
    office.config(&without("budget"), &json!({}));
    streamlag.signal("-HUP");
    eventually("the reload is refused", || {
        (!streamlag.log_lines("mode auto requires a budget").is_empty()).then_some(())
    });
}

#[test]
fn nothing_is_done_while_the_record_is_not_where_it_was_until_a_reload_makes_it_again() {
    let redis = Redis::start();
    let office = Office::new();
    let (_here, streamlag, delete) = leftover(&redis, &office, &json!({}));
    assert_eq!(decide(&streamlag, &delete, "approve", &office.alice).status, 200);
    idle(&redis, "orders", "another");
    let delete = plan(&streamlag, "delete_idle_consumers");
    std::fs::rename(office.path("audit.jsonl"), office.path("moved")).unwrap();
    let answer = decide(&streamlag, &delete, "approve", &office.alice);
    assert!(answer.status == 503 && answer.text().contains("the audit file was moved or removed"), "{}", answer.text());
    assert!(consumers(&redis, "orders").contains("another"));
    // As with a log file: moved, and then made again.
    streamlag.signal("-HUP");
    eventually("a reload", || (streamlag.log_lines("configuration reloaded").len() == 1).then_some(()));
    let answer = decide(&streamlag, &delete, "approve", &office.alice);
    assert_eq!((answer.status, answer.json()["outcome"].clone()), (200, json!("done")), "{}", answer.text());
    let moved = std::fs::read_to_string(office.path("moved")).unwrap();
    assert_eq!((moved.lines().count(), office.audit().len()), (2, 2));
}
