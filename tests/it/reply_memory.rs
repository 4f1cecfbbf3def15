//! What Redis servers send takes no more memory than one budget for the process, whatever they announce or send, and however many of them
//! do; and the others are sampled meanwhile.

use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::common::liar::{Answer, Liar, flood};
use crate::common::storm::memory;
use crate::common::{Redis, Streamlag, TOKEN, eventually, streamlag_with_env, value_of};

/// Masters that lie.
const LIARS: usize = 6;

/// What each of them sends at most of one reply: more than any sample may read.
const SENT: usize = 600 << 20;

/// The memory limit of deploy/helm/streamlag/values.yaml: the whole process has to stay below it.
const LIMIT: u64 = 256 << 20;

/// For how long they lie.
const DURATION: Duration = Duration::from_secs(6);

/// Streams of 16,384 slots: one in each of the liars' parts, and some in the honest one's.
fn slots(ports: &[u16]) -> String {
    let share = 16_384 / ports.len();
    let range = |(place, port): (usize, &u16)| {
        let last = if place + 1 == ports.len() { 16_383 } else { (place + 1) * share - 1 };
        format!("*3\r\n:{}\r\n:{last}\r\n*2\r\n$9\r\n127.0.0.1\r\n:{port}\r\n", place * share)
    };
    let ranges: String = ports.iter().enumerate().map(range).collect();
    format!("*{}\r\n{ranges}", ports.len())
}

/// A lie in place of the answers to a command.
fn in_place_of(
    command: &'static str,
    lie: impl Fn(&mut dyn Write) -> std::io::Result<()> + Send + Sync + 'static,
) -> Answer {
    Arc::new(move |words, writer| {
        if !words[0].eq_ignore_ascii_case(command) {
            return Ok(false);
        }
        lie(writer)?;
        Ok(true)
    })
}

/// Whether an honest server beside six of these is sampled, and how much memory the process ever had, in bytes.
fn beside_liars(what: &str, lie: &Answer) -> u64 {
    let redis = Redis::start();
    redis.run("XGROUP CREATE honest g 0 MKSTREAM");
    redis.add("honest", 5);
    let liars: Vec<Liar> = (0..LIARS).map(|_| Liar::start(Arc::clone(lie))).collect();
    let ports: Vec<u16> = liars.iter().map(|liar| liar.port).collect();
    // Tells the slots of the liars, and is asked for nothing else: a cluster's honest master is a target of its own here.
    let map = slots(&ports);
    let seed = Liar::start(Arc::new(move |words, writer| {
        if !words[0].eq_ignore_ascii_case("CLUSTER") {
            return Ok(false);
        }
        writer.write_all(map.as_bytes())?;
        Ok(true)
    }));
    let names: Vec<String> = (0..400).map(|n| format!("s{n}")).collect();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("streamlag.yml");
    let targets = format!(
        "poll.interval: 200ms\nredis.timeout: 2s\napi.rate-limit: 0\ntargets:\n  - name: honest\n    redis.url: {}\n    streams: [honest]\n    groups: ['*']\n  \
         - name: liars\n    redis.url: redis://127.0.0.1:{}/0\n    redis.mode: cluster\n    streams: [{}]\n    groups: ['*']\n",
        redis.url(),
        seed.port,
        names.join(", ")
    );
    std::fs::write(&file, targets).unwrap();
    let mut streamlag =
        streamlag_with_env(&["--config.file", file.to_str().unwrap()], &[("STREAMLAG_API_TOKEN", TOKEN)]).ready();
    let polls = |streamlag: &Streamlag| {
        value_of(&streamlag.metrics(), "streamlag_polls_total{outcome=\"success\"}").unwrap_or_default()
    };
    let (began, mut before) = (Instant::now(), polls(&streamlag));
    while began.elapsed() < DURATION {
        eventually("the honest server is sampled", || (polls(&streamlag) >= before + 2.0).then_some(()));
        before = polls(&streamlag);
        assert!(streamlag.is_running(), "{what}: streamlag ended: {:?}", streamlag.log());
    }
    let lag = streamlag.metric("event_consumer_lag{stream=\"honest\",consumer_group=\"g\"}");
    assert_eq!(lag, Some(5.0), "{what}");
    assert!(!streamlag.log_lines("poll failed").is_empty(), "{what}: nobody lied: {:?}", streamlag.log());
    assert_eq!(streamlag.metric("streamlag_panics_total"), Some(0.0), "{what}");
    let most = memory(streamlag.pid(), "VmHWM");
    println!(
        "{what}: {} MiB at most; {:?}",
        most >> 20,
        streamlag.log_lines("fail").iter().take(3).collect::<Vec<_>>()
    );
    most
}

fn check(
    what: &str,
    command: &'static str,
    lie: impl Fn(&mut dyn Write) -> std::io::Result<()> + Send + Sync + 'static,
) {
    let most = beside_liars(what, &in_place_of(command, lie));
    assert!(most <= LIMIT, "{what}: {} MiB", most >> 20);
}

#[test]
fn endless_numbers() {
    check("numbers", "EXEC", |writer| {
        writer.write_all(b"*2\r\n*8000000\r\n")?;
        flood(writer, b":1\r\n", SENT)
    });
}

#[test]
fn endless_texts() {
    let text = [b"$16000\r\n".as_slice(), &[b'x'; 16_000], b"\r\n"].concat();
    check("texts", "EXEC", move |writer| {
        writer.write_all(b"*2\r\n*30000\r\n")?;
        flood(writer, &text, SENT)
    });
}

/// As `XINFO GROUPS` would have them, with as little on the wire as can be.
#[test]
fn many_groups_of_many_streams() {
    let head = "*2\r\n*4\r\n$6\r\nlength\r\n:1\r\n$4\r\nlast\r\n:1\r\n*8000\r\n";
    let group = |n| format!("*2\r\n$4\r\nname\r\n$6\r\n{n:06}\r\n");
    let groups: String = (0..8_000).map(group).collect();
    let reply = format!("{head}{groups}").into_bytes();
    check("groups", "EXEC", move |writer| writer.write_all(&reply));
}

#[test]
fn endless_words_of_welcome() {
    check("welcome", "HELLO", |writer| {
        writer.write_all(b"*1000000\r\n")?;
        flood(writer, b"$7\r\nversion\r\n", SENT)
    });
}

/// Most of a large reply, and then nothing more until the poll is given up.
#[test]
fn replies_that_stop_half_way() {
    check("half a reply", "EXEC", |writer| {
        writer.write_all(b"*2\r\n*8000000\r\n")?;
        flood(writer, b":1\r\n", 8 << 20)?;
        std::thread::sleep(Duration::from_secs(5));
        Ok(())
    });
}

/// A Redis with a group of so many consumers, and another stream.
fn with_consumers(consumers: usize) -> Redis {
    let redis = Redis::start();
    redis.run("XGROUP CREATE events:many g 0 MKSTREAM");
    redis.run("XGROUP CREATE events:few g 0 MKSTREAM");
    redis.add("events:few", 5);
    let mut pipe = redis::pipe();
    for n in 0..consumers {
        pipe.cmd("XGROUP").arg("CREATECONSUMER").arg("events:many").arg("g").arg(format!("consumer-{n:06}")).ignore();
    }
    pipe.query::<()>(&mut redis.connection()).unwrap();
    redis
}

#[test]
fn large_replies_of_several_targets_take_turns() {
    let redis = with_consumers(30_000);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("streamlag.yml");
    let names = ["a", "b", "c", "d"];
    let targets: String = names.map(|name| format!("  - name: {name}\n    redis.url: {}\n", redis.url())).concat();
    // A sixth is shared, and half is for one large reply: one of these takes 8 to 11 MiB.
    let text = format!(
        "limit.memory-for-replies: 64MiB\npoll.interval: 100ms\nredis.timeout: 20s\nstreams: ['events:many', 'events:few']\ngroups: ['*']\n\
         targets:\n{targets}"
    );
    std::fs::write(&file, text).unwrap();
    let streamlag = streamlag_with_env(&["--config.file", file.to_str().unwrap()], &[("STREAMLAG_API_TOKEN", TOKEN)]);
    for name in names {
        let page = || streamlag.get(&format!("/probe?target={name}")).text();
        let polls = |outcome: &str| value_of(&page(), &format!("streamlag_polls_total{{outcome=\"{outcome}\"}}"));
        eventually("polls with all consumers", || {
            let consumers =
                value_of(&page(), "event_consumer_group_consumers{stream=\"events:many\",consumer_group=\"g\"}");
            (polls("success") >= Some(5.0) && consumers == Some(30_000.0)).then_some(())
        });
        assert_eq!((polls("partial"), polls("failure")), (Some(0.0), Some(0.0)), "{:?}", streamlag.log());
    }
    assert!(streamlag.log_lines("exceeds the read limit").is_empty(), "{:?}", streamlag.log());
}

#[test]
fn a_group_with_too_many_consumers_costs_only_these() {
    let redis = with_consumers(30_000);
    let url = redis.url();
    let arguments = [
        ["--redis.url", &url],
        ["--streams", "events:many,events:few"],
        ["--groups", "*"],
        ["--limit.memory-for-replies", "8MiB"],
    ];
    let streamlag = streamlag_with_env(&arguments.concat(), &[("STREAMLAG_API_TOKEN", TOKEN)]).ready();
    let lag = |stream: &str| {
        let lag = streamlag.metric(&format!("event_consumer_lag{{stream=\"{stream}\",consumer_group=\"g\"}}"));
        let up = streamlag.metric(&format!("event_stream_up{{stream=\"{stream}\"}}"));
        lag.filter(|_| up == Some(1.0))
    };
    eventually("both streams are sampled", || {
        (lag("events:many") == Some(0.0) && lag("events:few") == Some(5.0)).then_some(())
    });
    let said = streamlag.log_lines("exceeds the read limit");
    assert!(
        said.len() == 1 && said[0].contains("events:many") && said[0].contains("its consumers are not read"),
        "{said:?}"
    );
    assert!(streamlag.json("consumers").to_string().len() < 10_000);
}
