//! Makes something to look at: producers and consumers of different speeds on the event transport's three streams.
//!
//! `events:chat` keeps up, `events:ticket` falls behind slowly, and on `events:remote` one of two consumers acknowledges
//! only a part and dies after a while, so that its pending entries stay and the other one falls behind.

use std::error::Error;
use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use clap::{Arg, ArgMatches, Command, value_parser};
use redis::{Client, Connection, RedisResult};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

const GROUP: &str = "signalr-consumers";

/// Where the event transport trims its streams (`EVENT_TRANSPORT_STREAM_MAX_LEN`): the bound on what is kept in Redis.
const STREAM_MAX_LEN: usize = 10_000;

/// Producers and consumers take turns once per tick: often enough to look steady, seldom enough to cost little.
const TICK: Duration = Duration::from_millis(100);

/// How many entries are sent at a time where many are to be added.
const BATCH: u64 = 500;

/// How long Redis may take for a connection, or for one reply. A signal is not seen in the meantime.
const REDIS_DEADLINE: Duration = Duration::from_secs(5);

/// One stream, with who writes to it and who reads from it. Speeds are in entries per tick.
struct Stream {
    key: &'static str,
    event_types: &'static [&'static str],
    /// Entries there from the start, so that there is a lag to see at once.
    backlog: u64,
    produced: u64,
    consumers: &'static [Consumer],
}

struct Consumer {
    name: &'static str,
    speed: usize,
    /// Every so manyth entry is read and never acknowledged.
    forgets_every: Option<usize>,
    dies_after: Option<Duration>,
}

static STREAMS: [Stream; 3] = [
    Stream {
        key: "events:chat",
        event_types: &["message_created", "typing_started", "typing_stopped"],
        backlog: 0,
        produced: 20,
        consumers: &[
            Consumer { name: "instance-1", speed: 15, forgets_every: None, dies_after: None },
            Consumer { name: "instance-2", speed: 10, forgets_every: None, dies_after: None },
        ],
    },
    Stream {
        key: "events:ticket",
        event_types: &["status_changed", "assigned"],
        backlog: 150,
        produced: 6,
        consumers: &[Consumer { name: "instance-1", speed: 4, forgets_every: None, dies_after: None }],
    },
    Stream {
        key: "events:remote",
        event_types: &["session_started", "session_ended"],
        backlog: 0,
        produced: 4,
        consumers: &[
            Consumer { name: "instance-1", speed: 3, forgets_every: None, dies_after: None },
            Consumer {
                name: "instance-2",
                speed: 2,
                forgets_every: Some(4),
                dies_after: Some(Duration::from_secs(30)),
            },
        ],
    },
];

type AnyResult = Result<(), Box<dyn Error + Send + Sync>>;

fn main() -> ExitCode {
    match run(&arguments()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "loadgen: {error}");
            ExitCode::FAILURE
        }
    }
}

fn arguments() -> ArgMatches {
    let url = Arg::new("redis.url").long("redis.url").env("REDIS_URL").hide_env_values(true);
    let minutes = Arg::new("minutes").long("minutes").value_parser(value_parser!(u64).range(1..=24 * 60));
    let once = Arg::new("once").long("once").value_parser(value_parser!(u64).range(1..=1_000_000));
    Command::new("loadgen")
        .about("Load on the event transport's streams, to watch streamlag with. Not for a Redis that others use.")
        .arg(url.value_name("URL").default_value("redis://localhost:6380/0").help("The Redis to load"))
        .arg(minutes.value_name("MINUTES").default_value("60").help("How long, unless a signal ends it before"))
        .arg(once.value_name("N").help("Only add N test entries to events:chat, and end"))
        .get_matches()
}

fn run(arguments: &ArgMatches) -> AnyResult {
    let url = arguments.get_one::<String>("redis.url").map_or("", String::as_str);
    let mut redis = Client::open(url)?.get_connection_with_timeout(REDIS_DEADLINE)?;
    redis.set_read_timeout(Some(REDIS_DEADLINE))?;
    redis.set_write_timeout(Some(REDIS_DEADLINE))?;
    match arguments.get_one("once") {
        Some(&entries) => add_test_entries(&mut redis, entries),
        None => load(&mut redis, arguments.get_one("minutes").copied().unwrap_or(1)),
    }
}

fn add_test_entries(redis: &mut Connection, entries: u64) -> AnyResult {
    let entry = |at| ("test_message", format!("test_{at}"));
    let mut added = 0;
    while added < entries {
        let end = entries.min(added + BATCH);
        add(redis, "events:chat", (added..end).map(entry))?;
        added = end;
    }
    Ok(writeln!(std::io::stdout(), "added {entries} entries to events:chat")?)
}

/// Until a signal, or until its minutes are over.
fn load(redis: &mut Connection, minutes: u64) -> AnyResult {
    let signalled = Arc::new(AtomicBool::new(false));
    for signal in [SIGHUP, SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&signalled))?;
    }
    for stream in &STREAMS {
        create_group(redis, stream.key)?;
        add(redis, stream.key, events(stream, 0..stream.backlog))?;
    }
    // Whoever started this can tell by this line that the streams and their groups are there.
    writeln!(std::io::stdout(), "loading for {minutes} min")?;

    let start = Instant::now();
    let mut next = STREAMS.each_ref().map(|stream| stream.backlog);
    let mut readers: Vec<_> = STREAMS.iter().flat_map(readers_of).collect();
    while !signalled.load(Ordering::Relaxed) && start.elapsed() < Duration::from_secs(minutes * 60) {
        let tick = Instant::now();
        for (stream, next) in STREAMS.iter().zip(&mut next) {
            add(redis, stream.key, events(stream, *next..*next + stream.produced))?;
            *next += stream.produced;
        }
        readers.retain(|reader| reader.consumer.dies_after.is_none_or(|after| start.elapsed() < after));
        for reader in &mut readers {
            reader.take_turn(redis)?;
        }
        // A late tick must not be followed by a burst that makes up for it.
        sleep(TICK.saturating_sub(tick.elapsed()));
    }
    Ok(())
}

fn create_group(redis: &mut Connection, stream: &str) -> RedisResult<()> {
    let mut create = redis::cmd("XGROUP");
    match create.arg("CREATE").arg(stream).arg(GROUP).arg("$").arg("MKSTREAM").exec(redis) {
        // It is there already.
        Err(error) if error.code() == Some("BUSYGROUP") => Ok(()),
        created => created,
    }
}

fn events(stream: &Stream, numbers: std::ops::Range<u64>) -> impl Iterator<Item = (&'static str, String)> {
    let event_types = stream.event_types.iter().cycle();
    event_types.zip(numbers).map(|(event_type, number)| (*event_type, format!(r#"{{"number":{number}}}"#)))
}

/// Adds entries as the event transport does: a type, the data, and the stream trimmed to about its bound.
fn add<'a>(redis: &mut Connection, stream: &str, entries: impl Iterator<Item = (&'a str, String)>) -> RedisResult<()> {
    let mut pipeline = redis::pipe();
    for (event_type, data) in entries {
        pipeline.cmd("XADD").arg(stream).arg("MAXLEN").arg("~").arg(STREAM_MAX_LEN).arg("*");
        pipeline.arg("event_type").arg(event_type).arg("data").arg(data).ignore();
    }
    // Sending nothing is an error to the client.
    if pipeline.is_empty() { Ok(()) } else { pipeline.exec(redis) }
}

/// A consumer at work.
struct Reader {
    stream: &'static str,
    consumer: &'static Consumer,
    /// Ids of entries that were read and are not acknowledged yet. They stay pending where it dies.
    in_hand: Vec<String>,
    /// How many entries it has read.
    read: usize,
}

fn readers_of(stream: &'static Stream) -> impl Iterator<Item = Reader> {
    stream.consumers.iter().map(|consumer| Reader { stream: stream.key, consumer, in_hand: Vec::new(), read: 0 })
}

impl Reader {
    /// Acknowledges what it read at the tick before, as a consumer that takes a tick for its work, and reads on.
    fn take_turn(&mut self, redis: &mut Connection) -> RedisResult<()> {
        if !self.in_hand.is_empty() {
            redis::cmd("XACK").arg(self.stream).arg(GROUP).arg(&self.in_hand).exec(redis)?;
        }
        self.in_hand = self.read_new(redis)?;
        self.in_hand.retain(|_| {
            self.read += 1;
            self.consumer.forgets_every.is_none_or(|every| !self.read.is_multiple_of(every))
        });
        Ok(())
    }

    /// The ids of the entries read; none where there is nothing new. Does not block: the connection is shared.
    fn read_new(&self, redis: &mut Connection) -> RedisResult<Vec<String>> {
        type Entry = (String, Vec<String>);
        let mut command = redis::cmd("XREADGROUP");
        command.arg("GROUP").arg(GROUP).arg(self.consumer.name).arg("COUNT").arg(self.consumer.speed);
        command.arg("STREAMS").arg(self.stream).arg(">");
        let reply: Option<Vec<(String, Vec<Entry>)>> = command.query(redis)?;
        let entries = reply.into_iter().flatten().flat_map(|(_, entries)| entries);
        Ok(entries.map(|(id, _)| id).collect())
    }
}
