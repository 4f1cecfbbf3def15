//! The documented ACL line: enough for everything, each grant needed, and nothing in it that writes.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use crate::common::{Redis, Streamlag, eventually, grants, servers, streamlag};
use redis::Value;

const STREAMS: &str = "events:chat,events:gaps,events:large";

/// What there is to be told of streams: a group that read and acknowledged not all of it; one whose lag has to be counted,
/// as entries behind its cursor are gone; one whose entries are large.
fn fill(redis: &Redis) {
    let mut pipe = redis::pipe();
    let large = vec![b'x'; 20 * 1024];
    for n in 1..=300 {
        pipe.cmd("XADD").arg("events:gaps").arg("*").arg("n").arg(n).ignore();
    }
    for _ in 0..20 {
        pipe.cmd("XADD").arg("events:chat").arg("*").arg("n").arg(1).ignore();
        pipe.cmd("XADD").arg("events:large").arg("*").arg("n").arg(&large[..]).ignore();
    }
    for stream in STREAMS.split(',') {
        pipe.cmd("XGROUP").arg("CREATE").arg(stream).arg("signalr-consumers").arg("0").ignore();
    }
    pipe.query::<()>(&mut redis.connection()).unwrap();
    for (stream, read) in [("events:chat", 5), ("events:gaps", 150), ("events:large", 5)] {
        redis.read(stream, "signalr-consumers", "instance-1", read);
    }
    let Value::Array(rest) = redis.run("XRANGE events:gaps - + COUNT 200") else { panic!("no entries") };
    let gone = rest.into_iter().skip(170).step_by(3).map(|entry| match entry {
        Value::Array(parts) => String::from_utf8(redis::from_redis_value(parts[0].clone()).unwrap()).unwrap(),
        other => panic!("{other:?}"),
    });
    redis.run(&format!("XDEL events:gaps {}", gone.collect::<Vec<_>>().join(" ")));
}

/// Makes a user of this name, and starts a streamlag as it.
fn watch(redis: &Redis, user: &str, words: &[String]) -> Streamlag {
    redis.run(&format!("ACL SETUSER {user} on >{} {}", grants::PASSWORD, words.join(" ")));
    streamlag(&["--redis.url", &redis.url_as(user), "--streams", STREAMS]).ready()
}

/// The commands that Redis refused a user, and how often it did, as `ACL LOG` says.
fn refused(redis: &Redis, user: &str) -> BTreeMap<String, i64> {
    let Value::Array(lines) = redis.run("ACL LOG 128") else { panic!("no log") };
    let mut refused = BTreeMap::new();
    for line in lines {
        let line: BTreeMap<String, Value> = redis::from_redis_value(line).unwrap();
        let text = |key: &str| redis::from_redis_value::<String>(line[key].clone()).unwrap();
        if text("username") == user {
            let count: i64 = redis::from_redis_value(line["count"].clone()).unwrap();
            *refused.entry(text("object").to_ascii_lowercase()).or_insert(0) += count;
        }
    }
    refused
}

/// What Redis keeps of a user: its rules, without the password.
fn rules(redis: &Redis, user: &str) -> String {
    let lines: Vec<String> = redis::from_redis_value(redis.run("ACL LIST")).unwrap();
    let line = lines.iter().find_map(|line| line.strip_prefix(&format!("user {user} "))).unwrap();
    line.split(' ').filter(|word| !word.starts_with('#')).collect::<Vec<_>>().join(" ")
}

/// `>`, `|` and `*` mean something to a shell.
#[test]
fn the_documented_line_can_be_pasted_into_a_shell() {
    let redis = Redis::start();
    if redis.is_before_7() {
        // The line is for 7.0 and later, and says what to change before.
        return;
    }
    let line = grants::line_in("docs/deploy.md");
    let pasted = line.replacen("redis-cli ", &format!("redis-cli -u {} ", redis.url_of_everybody()), 1);
    let output = Command::new("sh").args(["-c", &pasted]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "OK", "{pasted}: {output:?}");
    // The same words, with no shell in between.
    redis.run(&format!("ACL SETUSER plain on >PASSWORD {}", grants::documented_in("docs/deploy.md").join(" ")));
    assert_eq!(rules(&redis, grants::USER), rules(&redis, "plain"));
}

#[test]
fn the_documented_line_is_enough_for_everything() {
    for server in servers() {
        let redis = Redis::start_with(&server, &[]);
        fill(&redis);
        // As documented, with the documented pattern.
        let streamlag = watch(&redis, grants::USER, &grants::on(&server, "events:*"));
        let groups = || streamlag.json("groups")["groups"].as_array().unwrap().clone();
        eventually("every lag is exact", || groups().iter().all(|group| group["lag_quality"] == "exact").then_some(()));
        for (group, lag) in groups().iter().zip([15, 140, 15]) {
            assert_eq!(group["lag"], lag, "{}: {group}", server.display());
            assert!(group["lag_seconds"].is_number() && group["oldest_pending_seconds"].is_number(), "{group}");
            assert!(group["pending"].as_u64().unwrap() > 0, "{group}");
        }
        let page = streamlag.metrics();
        for stream in STREAMS.split(',') {
            let consumer = format!("event_consumer_instance_pending{{stream=\"{stream}\"");
            assert!(page.contains(&consumer), "{}: {consumer}", server.display());
        }

        // What it goes on asking is reading, and Redis refuses none of it but what the documents say.
        redis.run("CONFIG RESETSTAT");
        redis.add("events:chat", 1);
        redis.run_bytes(&[b"XADD", b"events:large", b"*", b"n", &vec![b'x'; 20 * 1024]]);
        redis.read("events:chat", "signalr-consumers", "instance-1", 1);
        disconnect_and_wait(&redis, &streamlag);
        let asked: BTreeSet<String> = redis
            .info("commandstats")
            .lines()
            .filter_map(|line| Some(line.strip_prefix("cmdstat_")?.split(':').next()?.to_owned()))
            .collect();
        let by_the_test = ["config|resetstat", "config", "client|setinfo", "client|kill", "client", "info"];
        let by_the_test: BTreeSet<&str> = by_the_test.into_iter().chain(["xadd", "xreadgroup"]).collect();
        let scripts = grants::of_scripts(&server).trim_start_matches('+');
        let reading = ["auth", "hello", "multi", "exec", "time", "xinfo", "xpending", "xrange", "xlen", scripts];
        for command in asked.iter().filter(|command| !by_the_test.contains(command.as_str())) {
            let container = command.split('|').next().unwrap();
            assert!(reading.contains(&container), "{}: {command}", server.display());
        }
        assert!(["xinfo|stream", "xinfo"].iter().any(|command| asked.contains(*command)), "{asked:?}");

        let connections = streamlag.metric("streamlag_redis_commands_total{command=\"hello\"}").unwrap();
        let mut refused = refused(&redis, grants::USER);
        assert_eq!(refused.remove(scripts).map(|times| times as f64), Some(connections), "{}", server.display());
        if grants::version(&server) < (6, 2) {
            assert_eq!(refused.remove("hello").map(|times| times as f64), Some(connections));
        }
        assert!(refused.is_empty(), "{}: {refused:?}", server.display());
        assert_eq!(streamlag.metric("streamlag_polls_total{outcome=\"partial\"}"), Some(0.0), "{:?}", streamlag.log());
        assert_eq!(streamlag.metric("streamlag_polls_total{outcome=\"failure\"}"), Some(0.0), "{:?}", streamlag.log());
        assert!(streamlag.log_lines("level=warn").is_empty(), "{}: {:?}", server.display(), streamlag.log());
    }
}

/// Has streamlag connect again, and poll on.
fn disconnect_and_wait(redis: &Redis, streamlag: &Streamlag) {
    redis.run("CLIENT KILL TYPE normal SKIPME yes");
    for _ in 0..3 {
        streamlag.next_sample();
    }
}

#[test]
fn scripts_are_all_that_the_optional_grant_adds() {
    for server in servers() {
        let redis = Redis::start_with(&server, &[]);
        fill(&redis);
        let scripts = grants::of_scripts(&server);
        let words = [grants::on(&server, "events:*"), vec![scripts.to_owned()]].concat();
        let streamlag = watch(&redis, grants::USER_WITH_SCRIPTS, &words);
        disconnect_and_wait(&redis, &streamlag);
        let mut refused = refused(&redis, grants::USER_WITH_SCRIPTS);
        refused.remove("hello").filter(|_| grants::version(&server) < (6, 2));
        assert!(refused.is_empty(), "{}: {refused:?}", server.display());
    }
}

/// Makes a user of this name, and starts a streamlag as it that has to look for its streams.
fn search(redis: &Redis, user: &str, words: &[String]) -> Streamlag {
    redis.run(&format!("ACL SETUSER {user} on >{} {}", grants::PASSWORD, words.join(" ")));
    streamlag(&["--redis.url", &redis.url_as(user), "--streams", "events:*", "--discovery.interval", "1s"]).ready()
}

/// Patterns take the one grant that the documents say, and nothing else.
#[test]
fn patterns_need_scan_and_no_more() {
    for server in servers() {
        let redis = Redis::start_with(&server, &[]);
        fill(&redis);
        let words = grants::on(&server, "events:*");
        let with = search(&redis, "finder", &[words.clone(), vec![grants::of_patterns()]].concat());
        disconnect_and_wait(&redis, &with);
        assert_eq!(with.metric("streamlag_discovery_streams"), Some(3.0), "{}", server.display());
        assert!(with.log_lines("level=warn").is_empty(), "{}: {:?}", server.display(), with.log());
        let mut refused = refused(&redis, "finder");
        refused.remove(grants::of_scripts(&server).trim_start_matches('+'));
        refused.remove("hello").filter(|_| grants::version(&server) < (6, 2));
        assert!(refused.is_empty(), "{}: {refused:?}", server.display());

        let without = search(&redis, "blind", &words);
        without.next_sample();
        assert_eq!(without.metric("streamlag_discovery_streams"), Some(0.0), "{}", server.display());
        let said = without.log_lines("Redis command refused\" command=SCAN");
        assert_eq!(said.len(), 1, "{}: {:?}", server.display(), without.log());
    }
}

/// Without a grant, streamlag says what is missing.
#[test]
fn each_grant_of_the_documented_line_is_needed() {
    for server in servers() {
        let redis = Redis::start_with(&server, &[]);
        fill(&redis);
        let words = grants::on(&server, "events:*");
        let without = |word: &str| {
            let user = format!("without-{}", word.trim_start_matches(['+', '%']).replace(['|', '~', ':', '*'], "-"));
            let rest: Vec<String> = words.iter().filter(|other| *other != word).cloned().collect();
            watch(&redis, &user, &rest)
        };
        let mut needed = 0;
        for word in &words {
            let said = match word.as_str() {
                // These take away what a user has, and give nothing.
                "resetkeys" | "resetchannels" | "-@all" => continue,
                "+xinfo|consumers" => "Redis command refused\" command=\"XINFO CONSUMERS\"",
                "+xpending" => "Redis command refused\" command=XPENDING",
                "+xrange" => "Redis command refused\" command=XRANGE",
                "+xlen" => "Redis command refused\" command=XLEN",
                "+time" => "Redis command refused\" command=TIME",
                "+multi" => "Redis command refused\" command=MULTI",
                "+exec" => "Redis command refused\" command=EXEC",
                "+xinfo|stream" | "+xinfo|groups" => "stream read failed",
                keys if keys.ends_with("~events:*") => "stream read failed",
                other => panic!("nobody says what {other} is for"),
            };
            let streamlag = without(word);
            eventually(&format!("{}: without {word} it says {said}", server.display()), || {
                let lines = streamlag.log_lines(said);
                let named =
                    lines.iter().all(|line| line.contains("msg=\"Redis command refused") || line.contains("NOPERM"));
                assert!(named, "{word}: {lines:?}");
                (!lines.is_empty()).then_some(())
            });
            needed += 1;
        }
        assert_eq!(needed, 10);
    }
}

#[test]
fn nothing_in_the_documented_line_writes() {
    for server in servers() {
        let redis = Redis::start_with(&server, &[]);
        let words = grants::on(&server, "*");
        let first_grant = words.iter().position(|word| word.starts_with('+')).unwrap();
        assert!(words[..first_grant].iter().any(|word| word == "-@all"), "{words:?}");
        for word in words
            .iter()
            .filter_map(|word| word.strip_prefix('+'))
            .chain([&grants::of_scripts(&server)[1..], &grants::of_patterns()[1..]])
        {
            assert!(!word.starts_with('@'), "{word} grants what a later version puts into it");
            let command = if redis.is_before_7() { word.split('|').next().unwrap() } else { word };
            let flags = flags(&redis, command);
            assert!(!flags.contains("write"), "{}: {word} {flags:?}", server.display());
        }
        // So is what nobody is refused.
        for command in ["auth", "hello"] {
            assert!(!flags(&redis, command).contains("write"));
        }
    }
}

fn flags(redis: &Redis, command: &str) -> BTreeSet<String> {
    match redis.run(&format!("COMMAND INFO {command}")) {
        Value::Array(mut infos) => match infos.remove(0) {
            Value::Array(parts) => redis::from_redis_value(parts[2].clone()).unwrap(),
            other => panic!("{command}: {other:?}"),
        },
        other => panic!("{command}: {other:?}"),
    }
}
