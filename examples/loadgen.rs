//! Makes something to look at: producers and consumers of different speeds on the event transport's three streams.
//!
//! `events:chat` keeps up, `events:ticket` falls behind slowly, and on `events:remote` one of two consumers acknowledges
//! only a part and dies after a while, so that its pending entries stay and the other one falls behind.

use std::error::Error;
use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Arg, ArgMatches, Command, value_parser};
use redis::aio::MultiplexedConnection;
use redis::{Client, RedisResult};
use streamlag::app::signals;
use streamlag::sys::shutdown;
use tokio::task::JoinSet;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep};

const GROUP: &str = "signalr-consumers";

/// Where the event transport trims its streams (`EVENT_TRANSPORT_STREAM_MAX_LEN`): the bound on what is kept in Redis.
const STREAM_MAX_LEN: usize = 10_000;

/// Producers and consumers work in ticks: often enough to look steady, seldom enough to cost little.
const TICK: Duration = Duration::from_millis(100);

/// How many entries are sent at a time where many are to be added.
const BATCH: u64 = 500;

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

#[tokio::main]
async fn main() -> ExitCode {
    match run(&arguments()).await {
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

async fn run(arguments: &ArgMatches) -> AnyResult {
    // rediss:// needs a provider, and rustls picks none by itself.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let url = arguments.get_one::<String>("redis.url").map_or("", String::as_str);
    let redis = Client::open(url)?.get_multiplexed_async_connection().await?;
    match arguments.get_one("once") {
        Some(&entries) => add_test_entries(redis, entries).await,
        None => load(redis, arguments.get_one("minutes").copied().unwrap_or(1)).await,
    }
}

async fn add_test_entries(mut redis: MultiplexedConnection, entries: u64) -> AnyResult {
    let entry = |at| ("test_message", format!("test_{at}"));
    let mut added = 0;
    while added < entries {
        let end = entries.min(added + BATCH);
        add(&mut redis, "events:chat", (added..end).map(entry)).await?;
        added = end;
    }
    Ok(writeln!(std::io::stdout(), "added {entries} entries to events:chat")?)
}

async fn load(mut redis: MultiplexedConnection, minutes: u64) -> AnyResult {
    let (mut ending, signals) = signals::listen(streamlag::sys::reload::channel().0)?;
    tokio::spawn(signals);
    let mut tasks = JoinSet::new();
    for stream in &STREAMS {
        create_group(&mut redis, stream.key).await?;
        add(&mut redis, stream.key, events(stream, 0..stream.backlog)).await?;
        tasks.spawn(produce(redis.clone(), stream));
        for consumer in stream.consumers {
            tasks.spawn(consume(redis.clone(), stream.key, consumer));
        }
    }
    // Whoever started this can tell by this line that the streams and their groups are there.
    writeln!(std::io::stdout(), "loading for {minutes} min")?;
    tokio::select! {
        () = shutdown::begins(&mut ending) => Ok(()),
        () = sleep(Duration::from_secs(minutes * 60)) => Ok(()),
        failed = first_failure(tasks) => failed,
    }
}

/// Ends only when a task fails; a consumer that dies as planned is no failure.
async fn first_failure(mut tasks: JoinSet<RedisResult<()>>) -> AnyResult {
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    Ok(())
}

async fn create_group(redis: &mut MultiplexedConnection, stream: &str) -> RedisResult<()> {
    let mut create = redis::cmd("XGROUP");
    match create.arg("CREATE").arg(stream).arg(GROUP).arg("$").arg("MKSTREAM").exec_async(redis).await {
        // It is there already.
        Err(error) if error.code() == Some("BUSYGROUP") => Ok(()),
        created => created,
    }
}

async fn produce(mut redis: MultiplexedConnection, stream: &'static Stream) -> RedisResult<()> {
    let mut ticks = ticks();
    let mut next = stream.backlog;
    loop {
        ticks.tick().await;
        add(&mut redis, stream.key, events(stream, next..next + stream.produced)).await?;
        next += stream.produced;
    }
}

fn events(stream: &Stream, numbers: std::ops::Range<u64>) -> impl Iterator<Item = (&'static str, String)> {
    let event_types = stream.event_types.iter().cycle();
    event_types.zip(numbers).map(|(event_type, number)| (*event_type, format!(r#"{{"number":{number}}}"#)))
}

/// Adds entries as the event transport does: a type, the data, and the stream trimmed to about its bound.
async fn add(
    redis: &mut MultiplexedConnection,
    stream: &str,
    entries: impl Iterator<Item = (&str, String)>,
) -> RedisResult<()> {
    let mut pipeline = redis::pipe();
    for (event_type, data) in entries {
        pipeline.cmd("XADD").arg(stream).arg("MAXLEN").arg("~").arg(STREAM_MAX_LEN).arg("*");
        pipeline.arg("event_type").arg(event_type).arg("data").arg(data).ignore();
    }
    // Sending nothing is an error to the client.
    if pipeline.is_empty() { Ok(()) } else { pipeline.exec_async(redis).await }
}

/// Acknowledges at each tick what it read at the one before, as a consumer that takes a tick for its work. What it has
/// at hand when it dies stays pending.
async fn consume(mut redis: MultiplexedConnection, stream: &str, consumer: &Consumer) -> RedisResult<()> {
    let mut ticks = ticks();
    let death = consumer.dies_after.map(|after| Instant::now() + after);
    let mut at_hand = Vec::new();
    let mut read = 0;
    loop {
        let now = ticks.tick().await;
        if death.is_some_and(|death| now >= death) {
            return Ok(());
        }
        acknowledge(&mut redis, stream, &at_hand).await?;
        at_hand = read_some(&mut redis, stream, consumer).await?;
        at_hand.retain(|_| {
            read += 1;
            consumer.forgets_every.is_none_or(|every| read % every != 0)
        });
    }
}

async fn acknowledge(redis: &mut MultiplexedConnection, stream: &str, ids: &[String]) -> RedisResult<()> {
    if ids.is_empty() {
        return Ok(());
    }
    redis::cmd("XACK").arg(stream).arg(GROUP).arg(ids).exec_async(redis).await
}

/// The ids of the entries read; none where there is nothing new. Does not block: the connection is shared.
async fn read_some(redis: &mut MultiplexedConnection, stream: &str, consumer: &Consumer) -> RedisResult<Vec<String>> {
    type Entry = (String, Vec<String>);
    let mut command = redis::cmd("XREADGROUP");
    command.arg("GROUP").arg(GROUP).arg(consumer.name).arg("COUNT").arg(consumer.speed);
    command.arg("STREAMS").arg(stream).arg(">");
    let reply: Option<Vec<(String, Vec<Entry>)>> = command.query_async(redis).await?;
    let entries = reply.into_iter().flatten().flat_map(|(_, entries)| entries);
    Ok(entries.map(|(id, _)| id).collect())
}

fn ticks() -> Interval {
    let mut ticks = interval(TICK);
    // A late tick must not be followed by a burst that makes up for it.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}
