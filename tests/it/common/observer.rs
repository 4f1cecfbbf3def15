//! Looks at every page of a streamlag, and notes what is wrong on any.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::{PATIENCE, eventually, value_of};

/// How long a page may take while something else is wrong. Pages are ready bytes; this is for a loaded machine.
const PAGE_PATIENCE: Duration = Duration::from_secs(5);

/// The pause between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(15);

/// Labels to lag.
pub type Truth = BTreeMap<String, f64>;

/// Polls that ended with success, partial success and failure.
type Polls = [f64; 3];

#[derive(Clone, Debug)]
pub struct Look {
    pub at: Instant,
    pub took: Duration,
    pub up: bool,
    pub polls: Polls,
    /// Lags are shown, all of them exact.
    pub exact: bool,
}

impl Look {
    pub fn polls(&self) -> f64 {
        self.polls.iter().sum()
    }
}

/// Scrapes every [`LOOK_EVERY`], and says what was wrong on any page.
pub struct Observer {
    seen: Arc<Mutex<Seen>>,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Seen {
    looks: Vec<Look>,
    /// What may be shown: the lags before and after a change of the data.
    truths: Vec<Truth>,
    wrong: Vec<String>,
    /// The most that any group was ever said to have lost.
    lost: f64,
    /// The fewest streams that were sampled at a time, whether they could be read or not.
    fewest: Option<usize>,
}

impl Observer {
    pub fn start(address: SocketAddr, truth: Truth) -> Self {
        let seen = Arc::new(Mutex::new(Seen { truths: vec![truth], ..Seen::default() }));
        let ended = Arc::new(AtomicBool::new(false));
        let (for_thread, until) = (Arc::clone(&seen), Arc::clone(&ended));
        let thread = std::thread::spawn(move || {
            while !until.load(Ordering::Relaxed) {
                let began = Instant::now();
                let page = scrape(address);
                for_thread.lock().unwrap().look(began, &page);
                std::thread::sleep(LOOK_EVERY);
            }
        });
        Self { seen, ended, thread: Some(thread) }
    }

    /// From now on these lags may be shown as well.
    pub fn also(&self, truth: Truth) {
        self.seen.lock().unwrap().truths.push(truth);
    }

    /// From now on these are the only lags that may be shown, from the next poll on.
    pub fn only(&self, truth: Truth) {
        self.also(truth.clone());
        self.next_poll();
        self.seen.lock().unwrap().truths = vec![truth];
        self.next_poll();
        self.nothing_was_wrong();
    }

    /// The most that any group was ever said to have lost.
    pub fn lost(&self) -> f64 {
        self.seen.lock().unwrap().lost
    }

    /// The fewest streams that were sampled at a time, whether they could be read or not.
    pub fn fewest_streams(&self) -> usize {
        eventually("a look at the page", || self.seen.lock().unwrap().fewest)
    }

    pub fn newest(&self) -> Look {
        eventually("a look at the page", || self.seen.lock().unwrap().looks.last().cloned())
    }

    pub fn since(&self, mark: Instant) -> Vec<Look> {
        self.seen.lock().unwrap().looks.iter().filter(|look| look.at >= mark).cloned().collect()
    }

    /// Waits for a look at the page of a poll that began after this call, and says how many polls there were by then.
    pub fn next_poll(&self) -> f64 {
        let mark = Instant::now();
        let before = eventually("a look", || self.since(mark).first().map(Look::polls));
        // The next to end may have begun before.
        eventually("two more polls", || (self.newest().polls() >= before + 2.0).then_some(before + 2.0))
    }

    pub fn nothing_was_wrong(&self) {
        // Without the lock, or the observing thread would end as well, in a panic of its own.
        let wrong = self.seen.lock().unwrap().wrong.clone();
        assert!(wrong.is_empty(), "{} pages: {:#?}", wrong.len(), &wrong[..wrong.len().min(5)]);
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Seen {
    fn look(&mut self, at: Instant, page: &Result<String, String>) {
        let took = at.elapsed();
        let page = match page {
            Ok(page) => page,
            Err(error) => return self.wrong.push(format!("no page after {took:?}: {error}")),
        };
        if took > PAGE_PATIENCE {
            self.wrong.push(format!("a page took {took:?}"));
        }
        let polls = |outcome| value_of(page, &format!("streamlag_polls_total{{outcome=\"{outcome}\"}}")).unwrap();
        let lags = self.lags(page);
        let look = Look {
            at,
            took,
            up: value_of(page, "streamlag_redis_up") == Some(1.0),
            polls: ["success", "partial", "failure"].map(polls),
            exact: lags.is_ok_and(|exact| exact),
        };
        if let Some(before) = self.looks.last()
            && look.polls() == before.polls() + 1.0
            && look.up != (look.polls[2] == before.polls[2])
        {
            self.wrong.push(format!("up is not what the newest poll found: {before:?}, {look:?}"));
        }
        self.looks.push(look);
    }

    /// Whether every lag there should be is shown as exact. One that is wrong is noted.
    fn lags(&mut self, page: &str) -> Result<bool, ()> {
        let mut exact = 0;
        let sampled = value_of(page, "streamlag_streams").map(|streams| streams as usize);
        self.fewest = [self.fewest, sampled].into_iter().flatten().min();
        for line in page.lines() {
            if line.starts_with("event_") && line.rsplit_once(' ').is_some_and(|(_, value)| value.starts_with('-')) {
                self.wrong.push(format!("below zero: {line}"));
            }
            if line.starts_with("event_consumer_group_lost_entries_total") {
                let lost = line.rsplit_once(' ').and_then(|(_, lost)| lost.parse().ok()).unwrap();
                self.lost = self.lost.max(lost);
            }
            let Some((labels, lag)) = line.strip_prefix("event_consumer_lag{").and_then(|rest| rest.rsplit_once(' '))
            else {
                continue;
            };
            let (labels, lag) = (format!("{{{labels}"), lag.parse::<f64>().unwrap());
            let uncertainty = value_of(page, &format!("event_consumer_lag_uncertainty{labels}")).unwrap();
            let right = |truth: &Truth| truth.get(&labels).is_some_and(|right| (right - lag).abs() <= uncertainty);
            if !self.truths.iter().any(right) {
                self.wrong.push(format!("{labels} is shown as {lag} ± {uncertainty}, not as any of {:?}", self.truths));
                return Err(());
            }
            exact += usize::from(uncertainty == 0.0);
        }
        Ok(exact == self.truths[0].len())
    }
}

/// A page, over a connection of its own.
fn scrape(address: SocketAddr) -> Result<String, String> {
    let ask = || {
        let mut connection = TcpStream::connect_timeout(&address, PATIENCE)?;
        connection.set_read_timeout(Some(PATIENCE))?;
        connection.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
        let mut page = String::new();
        connection.read_to_string(&mut page)?;
        Ok(page)
    };
    let page = ask().map_err(|error: std::io::Error| error.to_string())?;
    if page.starts_with("HTTP/1.1 200 ") { Ok(page) } else { Err(page) }
}
