//! A guest of Redis: polls that are spread over the interval, and put off where they would take too much of its time.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use crate::common::monitor::{Executed, Monitor};
use crate::common::proxy::{Fault, Proxy};
use crate::common::{PATIENCE, Redis, Streamlag, eventually, eventually_right, streamlag, value_of};

const STREAMS: usize = 300;
const GROUPS: usize = 3;

fn fill(redis: &Redis) -> String {
    let mut pipe = redis::pipe();
    let keys: Vec<String> = (0..STREAMS).map(|n| format!("s:{n}")).collect();
    for key in &keys {
        for group in 0..GROUPS {
            pipe.cmd("XGROUP").arg("CREATE").arg(key).arg(format!("g{group}")).arg("0").arg("MKSTREAM").ignore();
        }
        pipe.cmd("XADD").arg(key).arg("*").arg("n").arg(1).ignore();
    }
    pipe.query::<()>(&mut redis.connection()).unwrap();
    keys.join(",")
}

/// Another client of Redis, which sends a PING as soon as the last one was answered.
struct Other {
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Other {
    fn start(redis: &Redis) -> Self {
        let mut connection = TcpStream::connect(("127.0.0.1", redis.port)).unwrap();
        connection.set_nodelay(true).unwrap();
        connection.set_read_timeout(Some(PATIENCE)).unwrap();
        let ended = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&ended);
        let thread = std::thread::spawn(move || {
            let mut answer = [0; 7];
            while !until.load(Ordering::Relaxed) {
                connection.write_all(b"PING\r\n").unwrap();
                connection.read_exact(&mut answer).unwrap();
            }
        });
        Self { ended, thread: Some(thread) }
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(std::thread::panicking() || matches!(ended, Some(Ok(()))), "the other client broke off");
    }
}

/// What Redis executed for one sample: seconds from the first question about a stream to the last, how many commands it took, and
/// how many of them were executed in a row, without one of another client in between.
#[derive(Debug)]
struct Taken {
    seconds: f64,
    commands: usize,
    in_a_row: usize,
}

/// The next sample that can be seen from its beginning.
fn next_sample(monitor: &mut Monitor) -> Taken {
    let mut until_time = || {
        let mut executed: Vec<Executed> = Vec::new();
        loop {
            let next = monitor.next();
            if next.words.eq_ignore_ascii_case("\"TIME\"") {
                return executed;
            }
            executed.push(next);
        }
    };
    until_time();
    let executed = until_time();
    let is_other = |command: &&Executed| command.words.eq_ignore_ascii_case("\"PING\"");
    let asked: Vec<f64> = executed.iter().filter(|command| !is_other(command)).map(|command| command.at).collect();
    let rows = executed.split(|command| is_other(&command)).map(<[Executed]>::len);
    Taken {
        seconds: asked.last().unwrap() - asked.first().unwrap(),
        commands: asked.len(),
        in_a_row: rows.max().unwrap(),
    }
}

fn watch(redis: &Redis, streams: &str, more: &[&str]) -> Streamlag {
    let url = redis.url();
    let arguments = ["--redis.url", &url, "--streams", streams, "--groups", "*", "--redis.timeout", "20s"];
    let streamlag = streamlag(&[&arguments[..], more].concat()).ready();
    // The first sample does not know yet what there is.
    streamlag.next_sample();
    streamlag
}

#[test]
fn a_poll_is_spread_over_its_share_of_the_interval_and_others_are_served_meanwhile() {
    let redis = Redis::start();
    let streams = fill(&redis);
    let _other = Other::start(&redis);
    {
        let _streamlag = watch(&redis, &streams, &["--poll.interval", "2s", "--poll.spread", "50%"]);
        let mut monitor = Monitor::start(&redis);
        eventually_right(|| {
            let taken = next_sample(&mut monitor);
            assert!(taken.commands >= STREAMS * (2 + GROUPS), "{taken:?}");
            // Half of the interval is a second, the last piece of it begins a little before. It cannot be quicker.
            assert!(taken.seconds >= 0.5, "{taken:?}");
            // The machine may keep the other client from asking.
            if taken.in_a_row * 20 <= taken.commands { Ok(()) } else { Err(format!("{taken:?}")) }
        });
    }
    let _streamlag = watch(&redis, &streams, &["--poll.interval", "500ms", "--poll.spread", "0%"]);
    let mut monitor = Monitor::start(&redis);
    eventually_right(|| {
        let taken = next_sample(&mut monitor);
        if taken.seconds < 0.2 { Ok(()) } else { Err(format!("not at once: {taken:?}")) }
    });
}

/// A group's oldest pending entry is asked for where it may have changed, and now and then.
#[test]
fn pending_entries_are_asked_for_where_they_may_have_changed() {
    let redis = Redis::start();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
    let [first, second] = [now - 100_000, now - 50_000];
    redis.run(&format!("XADD s {first}-0 n 1"));
    redis.run(&format!("XADD s {second}-0 n 2"));
    redis.run("XGROUP CREATE s g 0");
    redis.read("s", "g", "a", 2);
    let streamlag = watch(&redis, "s", &["--poll.interval", "50ms"]);
    let is_oldest = |ago: f64| {
        let age =
            streamlag.metric("event_consumer_group_oldest_pending_seconds{stream=\"s\",consumer_group=\"g\"}").unwrap();
        (ago..ago + 40.0).contains(&age)
    };
    let asked = || {
        let page = streamlag.metrics();
        let of = |series: &str| value_of(&page, series).unwrap();
        (of("streamlag_polls_total{outcome=\"success\"}"), of("streamlag_redis_commands_total{command=\"xpending\"}"))
    };
    assert!(is_oldest(100.0));
    let (polls, pending) = asked();
    let (polls, pending) = eventually("many polls", || {
        let (polls_now, pending_now) = asked();
        (polls_now - polls >= 60.0).then_some((polls_now - polls, pending_now - pending))
    });
    // Every twelfth or so; the page may lie a poll behind the counters.
    assert!((3.0..=polls / 6.0).contains(&pending), "{pending} of {polls}");
    redis.run(&format!("XACK s g {first}-0"));
    eventually("the next one is the oldest", || is_oldest(50.0).then_some(()));
}

/// Many streams that are sampled as quickly as can be: connections that broke or fell silent are given up, and none is left behind.
#[test]
fn an_unspread_sample_survives_broken_and_silent_connections() {
    let redis = Redis::start();
    let (streams, url) = (fill(&redis), redis.url());
    let base = ["--redis.url", &url, "--streams", &streams, "--groups", "*", "--redis.timeout", "1s"];
    let streamlag = streamlag(&[&base[..], &["--poll.spread", "0%"]].concat()).ready();
    (0..3).for_each(|_| streamlag.next_sample());
    let lags = |streamlag: &Streamlag| {
        let page = streamlag.metrics();
        page.lines().filter(|line| line.starts_with("event_consumer_lag{") && line.ends_with(" 1")).count()
    };
    assert_eq!(lags(&streamlag), STREAMS * GROUPS);

    redis.run("CLIENT KILL TYPE normal SKIPME yes");
    (0..3).for_each(|_| streamlag.next_sample());
    assert_eq!(streamlag.metric("streamlag_polls_total{outcome=\"failure\"}"), Some(0.0), "{:?}", streamlag.log());
    redis.signal("-STOP");
    eventually("it is seen that Redis is silent", || {
        (streamlag.metric("streamlag_polls_total{outcome=\"failure\"}")? >= 3.0).then_some(())
    });
    redis.signal("-CONT");
    eventually("all are read again", || (lags(&streamlag) == STREAMS * GROUPS).then_some(()));
    eventually_right(|| {
        let clients = format!("{:?}", redis.run("CLIENT LIST"));
        let ours = clients.matches("user=streamlag ").count();
        if ours == 1 { Ok(()) } else { Err(clients) }
    });
}

#[test]
fn polls_that_would_take_too_much_of_redis_are_put_off_until_they_may() {
    let redis = Redis::start();
    let streams = fill(&redis);
    let file = tempfile::NamedTempFile::new().unwrap();
    let share = |share: &str| {
        let text = format!(
            "groups: ['*']\npoll.interval: 100ms\npoll.spread: 0%\ntargets:\n- name: one\n  redis.url: {}\n  streams: [{streams}]\n  poll.max-redis-share: {share}\n",
            redis.url()
        );
        std::fs::write(file.path(), text).unwrap();
    };
    share("100%");
    let streamlag = streamlag(&["--config.file", file.path().to_str().unwrap()]).ready();
    let reload = || {
        let reloads = || streamlag.log_lines("configuration reloaded").len();
        let before = reloads();
        streamlag.signal("-HUP");
        eventually("a reload", || (reloads() > before).then_some(()));
    };
    let metric = |name: &str| streamlag.metric(name).unwrap();
    let taken = || metric("streamlag_redis_time_seconds_total");
    let before = taken();
    streamlag.next_sample();
    assert!(before > 0.0 && taken() > before);
    assert_eq!(metric("streamlag_poll_interval_seconds"), 0.1);
    assert_eq!(metric("streamlag_redis_time_ratio_limit"), 1.0);
    let as_close_as_configured = || {
        eventually("polls are as close as configured", || {
            (metric("streamlag_poll_effective_interval_seconds") == 0.1).then_some(())
        });
    };
    as_close_as_configured();

    streamlag.log_clear();
    share("0.01%");
    reload();
    let effective = eventually("polls are put off", || {
        let page = streamlag.metrics();
        let limited = value_of(&page, "streamlag_redis_time_ratio_limit") == Some(0.0001);
        let effective = value_of(&page, "streamlag_poll_effective_interval_seconds").unwrap();
        (limited && effective > 0.15).then_some(effective)
    });
    let target = streamlag.get("/api/v1/targets").json()["targets"][0].clone();
    assert_eq!(target["poll_interval_seconds"], 0.1);
    assert_eq!(target["effective_poll_interval_seconds"].as_f64(), Some(effective));
    // What is shown is as old as that, and no older than it may be.
    assert_eq!(metric("streamlag_redis_up"), 1.0);
    assert_eq!(streamlag.metrics().matches("event_stream_up{").count(), STREAMS);
    let said = streamlag.log_lines("poll interval stretched");
    assert_eq!(said.len(), 1, "{said:?}");

    share("100%");
    reload();
    as_close_as_configured();
    streamlag.next_sample();
    assert_eq!(streamlag.log_lines("poll interval stretched").len(), 1, "{:?}", streamlag.log());
    assert_eq!(streamlag.log_lines("poll interval back to the configured value").len(), 1, "{:?}", streamlag.log());
}

/// A Redis that answers, but not to everything in time, is asked less often: what nothing came of has been taken from it as well.
#[test]
fn polls_that_fail_half_way_count_for_the_share() {
    let redis = Redis::start();
    let streams = fill(&redis);
    let proxy = Proxy::start(redis.port);
    // The replies from here on are lost: those to the later batches.
    let lost_from = 1500;
    proxy.set(Fault::Replies(Arc::new(move |at, reply| if at < lost_from { reply.to_vec() } else { Vec::new() })));
    let url = proxy.url();
    let base = ["--redis.url", &url, "--streams", &streams, "--groups", "*", "--redis.timeout", "500ms"];
    let streamlag = streamlag(&[&base[..], &["--poll.spread", "0%", "--poll.max-redis-share", "0.01%"]].concat());
    // What an answer took beyond the quickest of late may be nothing by the clock, but not each time.
    let page = eventually("polls that failed count", || {
        let page = streamlag.metrics();
        let taken = value_of(&page, "streamlag_redis_time_seconds_total")?;
        let interval = value_of(&page, "streamlag_poll_effective_interval_seconds")?;
        (taken > 0.0 && interval > 0.1).then_some(page)
    });
    assert_eq!(value_of(&page, "streamlag_polls_total{outcome=\"success\"}"), Some(0.0));
    let said = streamlag.log_lines("poll failed").pop().unwrap();
    assert!(said.contains("answers, but not to all questions, within 500ms"), "{said}");
}

/// A lag that only counting tells is counted though polls are spread, and in the poll that finds it.
#[test]
fn a_poll_that_is_spread_counts_as_far_as_its_budget_goes() {
    let redis = Redis::start();
    redis.add("events", 20_000);
    let middle: Vec<String> = redis::cmd("XRANGE")
        .arg("events")
        .arg("-")
        .arg("+")
        .arg("COUNT")
        .arg(10_000)
        .query::<Vec<(String, Vec<String>)>>(&mut redis.connection())
        .unwrap()
        .into_iter()
        .map(|(id, _)| id)
        .collect();
    redis.run(&format!("XGROUP CREATE events g {}", middle[9_999]));
    let url = redis.url();
    // As it comes, but for what it watches: five seconds between polls, half of the timeout to spread them over.
    let arguments = ["--redis.url", &url, "--streams", "events", "--groups", "*", "--poll.interval", "5s"];
    let streamlag = streamlag(&arguments).ready();
    let of_group = "{stream=\"events\",consumer_group=\"g\"}";
    let page = streamlag.metrics();
    let shown = |family: &str| value_of(&page, &format!("{family}{of_group}"));
    assert_eq!((shown("event_consumer_lag"), shown("event_consumer_lag_uncertainty")), (Some(10_000.0), Some(0.0)));
    assert_eq!(value_of(&page, "streamlag_polls_total{outcome=\"success\"}"), Some(1.0));
}
