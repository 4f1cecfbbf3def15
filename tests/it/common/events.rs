//! Streams and groups in every state that there is, on a real Redis, kept in it by traffic.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use super::{Redis, Streamlag, eventually_right};

/// The group of the default configuration.
pub const GROUP: &str = "signalr-consumers";

/// What is monitored. `events:gone` does not exist, nor does the group `absent`.
pub const STREAMS: [&str; 5] = ["events:chat", "events:gone", "events:remote", "events:short", "events:ticket"];
pub const MONITORED: &str = "absent,audit,signalr-consumers,is-*";

/// Every group that exists, and the state that it is kept in.
const STATES: [(&str, &str, &str); 12] = [
    // Read as fast as it is written to.
    ("events:chat", GROUP, "ok"),
    // Reads faster than is written, from a backlog that lasts for as long as the traffic does.
    ("events:chat", "is-draining", "ok"),
    // Never acknowledges the first entry that it was given.
    ("events:chat", "is-holding", "ack_stalled"),
    // Reads a little less than is written.
    ("events:chat", "is-lagging", "lagging"),
    // Is set back again and again.
    ("events:chat", "is-rewound", "rewound"),
    // Read for a while, and no more; nothing was acknowledged.
    ("events:remote", GROUP, "stopped"),
    ("events:remote", "audit", "ok"),
    // Goes on with entries an hour old, so slowly that it gets later and later.
    ("events:remote", "is-late", "ok"),
    // Never acknowledges entries that are trimmed meanwhile.
    ("events:short", "is-haunted", "ack_stalled"),
    // Never reads what is trimmed.
    ("events:short", "is-losing", "losing"),
    // Was never read.
    ("events:ticket", GROUP, "stopped"),
    // Its consumer asks for its pending entries only.
    ("events:ticket", "is-stalled", "stalled"),
];

/// The names of all groups, that of the one that does not exist included.
pub fn groups() -> Vec<String> {
    let names: BTreeSet<&str> = STATES.iter().map(|(_, group, _)| *group).chain(["absent"]).collect();
    names.into_iter().map(str::to_owned).collect()
}

/// What makes a state visible in seconds. A poll may take long on a loaded machine.
pub const VERDICTS: [&str; 8] =
    ["--group.window", "3s", "--group.window-samples", "5", "--consumer.dead-after", "2s", "--redis.timeout", "10s"];

const CHAT_BACKLOG: u64 = 10_000;
const IDLE_CONSUMERS: u64 = 11;
const REMOTE_AT_ONCE: u64 = 600;
const REMOTE_SINCE: u64 = 390;
const REMOTE_READ: usize = 700;
const SHORT_LENGTH: u64 = 50;
const TICKET_ENTRIES: u64 = 12_000;

const MINUTE_MS: u64 = 60_000;

/// Fills the streams, and keeps writing and reading until it is dropped.
pub struct Traffic {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Traffic {
    /// Should it never be stopped, it ends by itself after so many rounds: some two minutes.
    const ROUNDS: usize = 6000;

    pub fn start(redis: &Redis) -> Self {
        fill(redis);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let mut connection = redis.connection();
        let thread = std::thread::spawn(move || {
            let mut rewind_to = None;
            for n in (0..Self::ROUNDS).take_while(|_| !stopped.load(Ordering::Relaxed)) {
                let added = round(n, rewind_to.as_deref()).query::<Vec<String>>(&mut connection).unwrap();
                if n.is_multiple_of(REWIND_EVERY) {
                    rewind_to = added.into_iter().next();
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(std::thread::panicking() || matches!(ended, Some(Ok(()))), "the traffic broke off");
    }
}

/// Entries of the past, so that no age crosses a limit while the test runs.
fn fill(redis: &Redis) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
    let now = u64::try_from(now).unwrap();
    let add = |stream: &str, entries: u64, from: u64, to: u64| {
        let mut pipe = redis::pipe();
        for n in 0..entries {
            let id = format!("{}-{n}", from + (to - from) * n / entries);
            pipe.cmd("XADD").arg(&[stream, &id, "n", "1"]).ignore();
        }
        pipe.query::<()>(&mut redis.connection()).unwrap();
    };

    add("events:chat", CHAT_BACKLOG, now - 120 * MINUTE_MS, now);
    redis.run(&format!("XGROUP CREATE events:chat {GROUP} $"));
    redis.run("XGROUP CREATE events:chat is-draining 0");
    redis.run("XREADGROUP GROUP is-draining instance-1 COUNT 200 NOACK STREAMS events:chat >");
    redis.run(&format!("XGROUP CREATE events:chat is-holding {}", now - MINUTE_MS / 10));
    redis.read("events:chat", "is-holding", "instance-1", 1);
    redis.run(&format!("XGROUP CREATE events:chat is-lagging {}", now - MINUTE_MS / 10));
    redis.run("XGROUP CREATE events:chat is-rewound $");

    let begin = now - 60 * MINUTE_MS;
    add("events:remote", REMOTE_AT_ONCE, begin, begin + 1);
    add("events:remote", REMOTE_SINCE, begin + MINUTE_MS, now);
    redis.run(&format!("XGROUP CREATE events:remote {GROUP} 0"));
    redis.read("events:remote", GROUP, "instance-1", REMOTE_READ);
    redis.run("XGROUP CREATE events:remote audit $");
    redis.run("XGROUP CREATE events:remote is-late 0");
    // One deleted ahead of the cursors: no server's counters tell the lag any more.
    redis.run(&format!("XDEL events:remote {}-200", begin + MINUTE_MS + 59 * MINUTE_MS * 200 / REMOTE_SINCE));

    redis.add("events:short", usize::try_from(SHORT_LENGTH).unwrap());
    redis.run("XGROUP CREATE events:short is-losing 0");
    redis.run("XGROUP CREATE events:short is-haunted 0");
    redis.read("events:short", "is-haunted", "instance-1", usize::try_from(SHORT_LENGTH).unwrap());

    add("events:ticket", TICKET_ENTRIES, now - 120 * MINUTE_MS, now - 119 * MINUTE_MS);
    redis.run(&format!("XGROUP CREATE events:ticket {GROUP} 0"));
    for n in 0..IDLE_CONSUMERS {
        redis.run(&format!("XGROUP CREATECONSUMER events:ticket {GROUP} idle-{n}"));
    }
    redis.run("XGROUP CREATE events:ticket is-stalled 0");
}

const REWIND_EVERY: usize = 20;

/// One round of traffic, in one transaction, so that nobody sees a lag in between. The answer is the id added to
/// `events:chat`.
fn round(n: usize, rewind_to: Option<&str>) -> redis::Pipeline {
    let mut round = redis::pipe();
    round.atomic();
    let trimmed = |stream: &'static str, length: u64| [stream, "MAXLEN", &length.to_string()].map(str::to_owned);
    round.cmd("XADD").arg(&trimmed("events:chat", CHAT_BACKLOG)).arg(&["*", "n", "1"]);
    round.cmd("XADD").arg(&trimmed("events:short", SHORT_LENGTH)).arg(&["*", "n", "1"]).ignore();
    let mut read = |stream: &str, group: &str, consumer: &str, count: usize, from: &str| {
        let words = ["GROUP", group, consumer, "COUNT", &count.to_string(), "NOACK", "STREAMS", stream, from];
        round.cmd("XREADGROUP").arg(&words).ignore();
    };
    read("events:chat", GROUP, ["instance-1", "instance-2"][n % 2], 1, ">");
    // Reads 7500 until the end.
    read("events:chat", "is-draining", "instance-1", 1 + usize::from(n.is_multiple_of(4)), ">");
    read("events:chat", "is-holding", "instance-1", 5, ">");
    if n.is_multiple_of(10) {
        // As many until the end as were added at once.
        read("events:remote", "is-late", "instance-1", 1, ">");
    } else {
        // Falls behind by 600 until the end.
        read("events:chat", "is-lagging", "instance-1", 1, ">");
    }
    read("events:short", "is-haunted", "instance-1", 1, ">");
    read("events:ticket", "is-stalled", "instance-1", 1, "0");
    match rewind_to {
        Some(id) if n.is_multiple_of(REWIND_EVERY) => {
            round.cmd("XGROUP").arg(&["SETID", "events:chat", "is-rewound", id]).ignore();
        }
        // Back at the end when it is set back again.
        _ => read("events:chat", "is-rewound", "instance-1", 2, ">"),
    }
    round
}

/// Waits until all that takes a window of samples has happened.
pub fn settled(streamlag: &Streamlag) {
    eventually_right(|| {
        let groups = streamlag.json("groups");
        let rows = groups["groups"].as_array().unwrap().iter();
        let wrong: Vec<&Value> = rows.filter(|row| !is_right(row)).collect();
        if wrong.is_empty() { Ok(()) } else { Err(format!("{wrong:#?}")) }
    });
}

fn is_right(row: &Value) -> bool {
    let state = |(stream, group, state): &(&str, &str, &'static str)| {
        (row["stream"] == *stream && row["consumer_group"] == *group).then_some(*state)
    };
    let expected = STATES.iter().find_map(state).or((row["stream"] != "events:gone").then_some("no_group"));
    let idle = if row["stream"] == "events:ticket" && row["consumer_group"] == GROUP { IDLE_CONSUMERS } else { 0 };
    row["state"].as_str() == expected && row["dead_consumers_without_pending"].as_u64().unwrap_or_default() == idle
}
