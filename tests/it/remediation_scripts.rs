//! The scripts of acts, by themselves: what is not as planned is refused, and then nothing has changed. What stands between plan and act
//! cannot be timed by the running program: a consumer that comes back does so here.

use redis::{Script, Value};

use crate::common::{Redis, eventually, servers};

macro_rules! script {
    ($file:literal) => {
        concat!(
            include_str!("../../src/actions/remediate/scripts/common.lua"),
            include_str!(concat!("../../src/actions/remediate/scripts/", $file))
        )
    };
}

const DELETE_IDLE_CONSUMERS: &str = script!("delete_idle_consumers.lua");
const RELEASE: &str = script!("release.lua");
const DROP_GHOSTS: &str = script!("drop_ghosts.lua");
const DEAD_LETTER: &str = script!("dead_letter.lua");

/// An idle time, in milliseconds, that nobody here has.
const LONG: &str = "100000000";

/// The idle time of a consumer that counts as dead here, in milliseconds.
const DEAD_AFTER: u64 = 1000;

/// An id behind all that are here.
const BEHIND: &str = "9999999999999-0";

/// A stream with the entries 1-0 to 5-0 and two groups. In `g`, `gone` holds 1-0, whose payload is gone, `dead` holds 2-0 and 3-0, `alive` holds
/// 4-0, and `empty` holds nothing. In `ghosts`, `gone` holds 1-0.
fn filled(binary: &std::path::Path) -> Redis {
    let redis = Redis::start_with(binary, &[]);
    for id in 1..=5 {
        redis.run(&format!("XADD s {id}-0 n {id}"));
    }
    for group in ["g", "ghosts"] {
        redis.run(&format!("XGROUP CREATE s {group} 0"));
    }
    for (consumer, count) in [("gone", 1), ("dead", 2), ("alive", 1), ("empty", 1)] {
        redis.read("s", "g", consumer, count);
    }
    redis.run("XACK s g 5-0");
    redis.read("s", "ghosts", "gone", 1);
    redis.run("XDEL s 1-0");
    redis
}

/// Runs a script as an act does: the keys, then group, cursor and the arguments of its own. How it ended, why, what was changed, and the
/// entries without payload that were left.
fn run(redis: &Redis, text: &str, keys: &[&str], arguments: &[&str]) -> (String, String, u64, u64) {
    let script = Script::new(text);
    let mut call = script.prepare_invoke();
    for key in keys {
        call.key(*key);
    }
    for argument in arguments {
        call.arg(*argument);
    }
    call.invoke(&mut redis.connection()).unwrap()
}

/// All that an act could change. Idle times change by themselves.
fn state(redis: &Redis) -> Vec<Value> {
    let owners = |group: &str| -> Value {
        let pending: Vec<(String, String, u64, u64)> =
            redis::from_redis_value(redis.run(&format!("XPENDING s {group} - + 100"))).unwrap();
        let owners = pending.into_iter().map(|(id, owner, _, deliveries)| format!("{id} {owner} {deliveries}"));
        Value::BulkString(owners.collect::<Vec<_>>().join(", ").into_bytes())
    };
    let consumers = |group: &str| Value::BulkString(names(redis, group).join(", ").into_bytes());
    vec![owners("g"), owners("ghosts"), consumers("g"), consumers("ghosts"), redis.run("XLEN s"), redis.run("XLEN d")]
}

fn names(redis: &Redis, group: &str) -> Vec<String> {
    let consumers: Vec<std::collections::HashMap<String, Value>> =
        redis::from_redis_value(redis.run(&format!("XINFO CONSUMERS s {group}"))).unwrap();
    consumers.into_iter().map(|consumer| redis::from_redis_value(consumer["name"].clone()).unwrap()).collect()
}

/// A script, its keys, its arguments, and why it refuses.
type Refusal = (&'static str, &'static [&'static str], &'static [&'static str], &'static str);

const REFUSALS: [Refusal; 23] = [
    (DELETE_IDLE_CONSUMERS, &["none"], &["g", "5-0", "empty", "0"], "the stream is gone"),
    (DELETE_IDLE_CONSUMERS, &["s"], &["other", "5-0", "empty", "0"], "the group is gone"),
    (DELETE_IDLE_CONSUMERS, &["s"], &["g", BEHIND, "empty", "0"], "the group is another one: its cursor moved back"),
    (DELETE_IDLE_CONSUMERS, &["s"], &["g", "5-0", "nobody", "0"], "the consumer is gone"),
    (DELETE_IDLE_CONSUMERS, &["s"], &["g", "5-0", "dead", "0"], "the consumer holds entries"),
    (DELETE_IDLE_CONSUMERS, &["s"], &["g", "5-0", "gone", "0"], "the consumer holds entries"),
    (DELETE_IDLE_CONSUMERS, &["s"], &["g", "5-0", "empty", LONG], "the consumer is alive"),
    (RELEASE, &["s"], &["other", "5-0", "dead", "0", "2", "alive", "10"], "the group is gone"),
    (
        RELEASE,
        &["s"],
        &["g", BEHIND, "dead", "0", "2", "alive", "10"],
        "the group is another one: its cursor moved back",
    ),
    (RELEASE, &["s"], &["g", "5-0", "nobody", "0", "2", "alive", "10"], "the consumer is gone"),
    (RELEASE, &["s"], &["g", "5-0", "dead", "0", "2", "nobody", "10"], "the consumer that was to take over is gone"),
    (RELEASE, &["s"], &["g", "5-0", "dead", LONG, "2", "alive", "10"], "the consumer is alive"),
    (RELEASE, &["s"], &["g", "5-0", "dead", "0", "3", "alive", "10"], "the consumer holds another number of entries"),
    (
        RELEASE,
        &["s"],
        &["g", "5-0", "dead", "0", "2", "alive", "10"],
        "the consumer that was to take over is not alive",
    ),
    (DROP_GHOSTS, &["s"], &["other", "5-0", "1"], "the group is gone"),
    (DROP_GHOSTS, &["s"], &["g", "5-0", "2"], "fewer pending entries without payload than planned were found"),
    (DROP_GHOSTS, &["s"], &["ghosts", "1-0", "2"], "fewer pending entries without payload than planned were found"),
    (DEAD_LETTER, &["s", "d"], &["other", "5-0", "2-0", "dead", "1", "0", "why"], "the group is gone"),
    (DEAD_LETTER, &["s", "d"], &["g", "5-0", "5-0", "dead", "1", "0", "why"], "the entry was acknowledged"),
    (DEAD_LETTER, &["s", "d"], &["g", "5-0", "2-0", "alive", "1", "0", "why"], "the entry has another owner"),
    (DEAD_LETTER, &["s", "d"], &["g", "5-0", "2-0", "dead", "2", "0", "why"], "the entry was delivered again"),
    (DEAD_LETTER, &["s", "d"], &["g", "5-0", "2-0", "dead", "1", LONG, "why"], "the entry was delivered only just now"),
    (DEAD_LETTER, &["s", "d"], &["g", "5-0", "1-0", "gone", "1", "0", "why"], "the payload of the entry is gone"),
];

#[test]
fn what_is_not_as_planned_is_refused_and_changes_nothing() {
    for server in servers() {
        let redis = filled(&server);
        let before = state(&redis);
        for (text, keys, arguments, expected) in REFUSALS {
            let (word, why, changed, ghosts) = run(&redis, text, keys, arguments);
            let left = u64::from(expected.contains("payload of"));
            assert_eq!((&*word, &*why, changed, ghosts), ("refused", expected, 0, left), "{keys:?} {arguments:?}");
            assert_eq!(state(&redis), before, "{keys:?} {arguments:?}");
        }
    }
}

#[test]
fn what_is_as_planned_is_carried_out() {
    for server in servers() {
        let redis = filled(&server);
        let dead_after = DEAD_AFTER.to_string();
        let done = |text: &str, keys: &[&str], arguments: &[&str]| match run(&redis, text, keys, arguments) {
            (word, _, changed, _) if word == "done" => Ok(changed),
            (_, why, ..) => Err(why),
        };
        assert_eq!(done(DELETE_IDLE_CONSUMERS, &["s"], &["g", "5-0", "empty", "0"]), Ok(1));
        assert!(!names(&redis, "g").contains(&"empty".to_owned()));
        // The taker has to be seen to be alive just before. Reading what it holds does that on every version.
        let release = |consumer: &str, pending: &str, ended: &dyn Fn(&Result<u64, String>) -> bool| {
            eventually("a consumer is dead beside one that is alive", || {
                redis.run("XREADGROUP GROUP g alive COUNT 1 STREAMS s 0");
                let outcome = done(RELEASE, &["s"], &["g", "5-0", consumer, &dead_after, pending, "alive", "10"]);
                ended(&outcome).then_some(())
            });
        };
        release("gone", "1", &|outcome| *outcome == Err("none of its entries has a payload".to_owned()));
        release("dead", "2", &|outcome| *outcome == Ok(2));
        let pending = |id: &str| -> (String, String, u64, u64) {
            let found: Vec<_> = redis::from_redis_value(redis.run(&format!("XPENDING s g {id} {id} 1"))).unwrap();
            found.into_iter().next().unwrap()
        };
        let (_, owner, idle, deliveries) = pending("2-0");
        assert_eq!((&*owner, deliveries), ("alive", 1));
        assert!(idle >= DEAD_AFTER, "{idle} ms: its idle time stays, or the application's own claim would not see it");
        assert_eq!(done(DROP_GHOSTS, &["s"], &["g", "5-0", "1"]), Ok(1));
        assert_eq!(done(DEAD_LETTER, &["s", "d"], &["g", "5-0", "2-0", "alive", "1", "0", "why"]), Ok(1));
        let copies: Vec<(String, Vec<(String, String)>)> = redis::from_redis_value(redis.run("XRANGE d - +")).unwrap();
        let fields: Vec<&str> = copies[0].1.iter().map(|(_, value)| value.as_str()).collect();
        assert_eq!((copies.len(), fields), (1, vec!["s", "g", "2-0", "alive", "1", "why", "2"]));
        let left: Vec<Value> = redis::from_redis_value(redis.run("XPENDING s g - + 100")).unwrap();
        assert_eq!(left.len(), 2, "3-0 and 4-0");
    }
}

#[test]
fn entries_without_payload_do_not_block_those_behind_them() {
    for server in servers() {
        let redis = Redis::start_with(&server, &[]);
        let add = |from: u64, to: u64| {
            let mut pipe = redis::pipe();
            for id in from..=to {
                pipe.cmd("XADD").arg("s").arg(format!("{id}-0")).arg("n").arg(1).ignore();
            }
            pipe.query::<()>(&mut redis.connection()).unwrap();
        };
        let delete = |from: u64, to: u64| {
            let ids: Vec<String> = (from..=to).map(|id| format!("{id}-0")).collect();
            redis.run(&format!("XDEL s {}", ids.join(" ")));
        };
        add(1, 2000);
        redis.run("XGROUP CREATE s g 0");
        redis.run("XGROUP CREATE s other 0");
        redis.read("s", "g", "dead", 1100);
        redis.read("s", "g", "alive", 1);
        // The first of all, so that none of these is before the stream's first entry, and two in between.
        delete(2, 900);
        delete(903, 904);
        let release = |pending: u64, most: &str| {
            let (pending, dead_after) = (pending.to_string(), DEAD_AFTER.to_string());
            eventually("a consumer is dead beside one that is alive", || {
                redis.run("XREADGROUP GROUP g alive COUNT 1 STREAMS s 0");
                let arguments = ["g", "1101-0", "dead", &dead_after, &pending, "alive", most];
                let (word, why, changed, ghosts) = run(&redis, RELEASE, &["s"], &arguments);
                (!why.ends_with(" alive")).then_some((word, why, changed, ghosts))
            })
        };
        let owned = |consumer: &str| -> Vec<String> {
            let held = redis.run(&format!("XPENDING s g - + 3000 {consumer}"));
            let held: Vec<(String, String, u64, u64)> = redis::from_redis_value(held).unwrap();
            held.into_iter().map(|(id, ..)| id).collect()
        };
        let done = |changed, ghosts| ("done".to_owned(), String::new(), changed, ghosts);
        assert_eq!(release(1100, "1"), done(1, 0));
        assert_eq!(release(1099, "1"), done(1, 899), "899 without payload are before it");
        assert_eq!(release(1098, "4"), done(4, 901), "and two in between");
        assert_eq!(owned("alive"), ["1-0", "901-0", "902-0", "905-0", "906-0", "907-0", "1101-0"]);
        // The bound of what is passed over.
        delete(908, 1010);
        let (word, why, changed, ghosts) = release(1094, "1");
        assert_eq!((&*word, changed), ("refused", 0));
        let passed: u64 = why.strip_prefix("none of its first ").unwrap().split(' ').next().unwrap().parse().unwrap();
        assert!((1000..1004).contains(&passed) && ghosts == passed, "{why} {ghosts}");
        assert_eq!(owned("dead").len(), 1094);
        // Those are dropped in spite of the entries with payload that are before and between them.
        let drop = |count| run(&redis, DROP_GHOSTS, &["s"], &["g", "1101-0", count]);
        assert_eq!(drop("1005").0, "refused", "there are 1,004");
        assert_eq!(drop("1000"), done(1000, 0));
        assert_eq!(drop("4"), done(4, 0));
        assert_eq!(owned("alive"), ["1-0", "901-0", "902-0", "905-0", "906-0", "907-0", "1101-0"]);
        assert_eq!(owned("dead").len(), 90, "1011-0 to 1100-0");
    }
}

#[test]
fn an_error_after_a_first_write_tells_what_was_changed() {
    // The scripts see to it that what follows a first write is allowed. This one does not: its second write is to a key of another type.
    const COMMON: &str = include_str!("../../src/actions/remediate/scripts/common.lua");
    let second = "local answer = redis.pcall('XADD', KEYS[2], '*', 'n', 1)
        if type(answer) == 'table' and answer.err then return failed(answer, changed) end
        return {'done', '', changed, 0}";
    for server in servers() {
        let redis = filled(&server);
        redis.run("SET d text");
        let after = format!("{COMMON}\nlocal changed = redis.call('XACK', key, group, '2-0')\n{second}");
        let (word, why, changed, _) = run(&redis, &after, &["s", "d"], &["g", "5-0"]);
        assert_eq!((&*word, changed), ("failed", 1));
        assert!(why.contains("WRONGTYPE"), "{why}");
        // Before anything has changed, it is an error, as that of a script that reads what it may not.
        let before = format!("{COMMON}\nlocal changed = 0\n{second}");
        let script = Script::new(&before);
        let mut call = script.prepare_invoke();
        call.key("s").key("d").arg("g").arg("5-0");
        let error = call.invoke::<Value>(&mut redis.connection()).unwrap_err();
        assert!(error.to_string().contains("WRONGTYPE") || error.to_string().contains("wrong kind"), "{error}");
    }
}
