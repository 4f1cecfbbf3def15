//! An application: reads, takes its time, acknowledges; and reads again what it holds, as it was handed over to it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use redis::Value as Reply;

use super::place::Ports;
use super::{STREAM, entries};

pub const RUNS: u8 = 0;
/// Holds what it has read, and does nothing.
pub const PAUSED: u8 = 1;
/// Never comes back.
pub const KILLED: u8 = 2;
/// Ends what it has begun, then goes.
pub const RETIRES: u8 = 3;
/// Ends what it has begun, then goes on under another name.
pub const RENAMED: u8 = 4;

/// How long an entry takes.
const WORK: Duration = Duration::from_millis(120);
const LOOK: Duration = Duration::from_millis(20);

/// Where and when each consumer read: ports, and seconds since the Unix epoch.
pub type Reads = BTreeMap<String, Vec<(u16, f64)>>;

/// What all consumers of a day did.
#[derive(Default)]
pub struct Work {
    names: AtomicU64,
    /// Who processed an entry, once for each time.
    pub processed: Mutex<BTreeMap<String, Vec<String>>>,
    /// Reads that any server shows.
    pub reads: Mutex<Reads>,
    /// Entries of which a consumer does not know whether its acknowledgment arrived, or that were acknowledged under the one who held them.
    pub unsure: Mutex<BTreeSet<String>>,
    /// When an entry was delivered or acknowledged: from before the command was sent until its answer was there.
    pub moments: Mutex<BTreeMap<String, Vec<(Instant, Instant)>>>,
}

impl Work {
    /// Notes a read that any server shows: one that found something, or asked for what is held.
    pub fn note_read(&self, name: &str, port: u16) {
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs_f64();
        self.reads.lock().unwrap().entry(name.to_owned()).or_default().push((port, now));
    }

    fn moment(&self, id: &str, sent: Instant) {
        self.moments.lock().unwrap().entry(id.to_owned()).or_default().push((sent, Instant::now()));
    }

    fn name(&self) -> String {
        format!("c{}", self.names.fetch_add(1, Ordering::Relaxed))
    }
}

pub struct Consumer {
    state: Arc<AtomicU8>,
    thread: Option<JoinHandle<()>>,
}

impl Consumer {
    pub fn start(ports: &Ports, work: &Arc<Work>) -> Self {
        let state = Arc::new(AtomicU8::new(RUNS));
        let (told, ports, work) = (Arc::clone(&state), ports.clone(), Arc::clone(work));
        let thread = std::thread::spawn(move || {
            let (mut name, mut connection, mut turn) = (work.name(), None, 0_u64);
            loop {
                match told.load(Ordering::Relaxed) {
                    KILLED | RETIRES => return,
                    PAUSED => {
                        std::thread::sleep(LOOK);
                        continue;
                    }
                    RENAMED => {
                        name = work.name();
                        told.store(RUNS, Ordering::Relaxed);
                    }
                    _ => {}
                }
                turn += 1;
                if one_turn(&ports, &mut connection, &work, &told, &name, turn.is_multiple_of(4)).is_none() {
                    connection = None;
                    std::thread::sleep(LOOK);
                }
            }
        });
        Self { state, thread: Some(thread) }
    }

    pub fn tell(&self, state: u8) {
        self.state.store(state, Ordering::Relaxed);
    }

    pub fn is(&self, state: u8) -> bool {
        self.state.load(Ordering::Relaxed) == state
    }

    /// Waits until it has gone.
    pub fn join(mut self) {
        self.thread.take().unwrap().join().unwrap();
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        // Nobody waits for it where its day has failed.
        if self.thread.is_some() {
            self.tell(KILLED);
        }
    }
}

/// Reads and processes; nothing where the server does not answer.
fn one_turn(
    ports: &Ports,
    kept: &mut Option<(u16, redis::Connection)>,
    work: &Work,
    told: &AtomicU8,
    name: &str,
    is_again: bool,
) -> Option<()> {
    if kept.is_none() {
        *kept = ports.find();
    }
    let (port, connection) = kept.as_mut()?;
    let mut read = redis::cmd("XREADGROUP");
    read.arg("GROUP").arg("g").arg(name).arg("COUNT").arg(2).arg("STREAMS").arg(STREAM);
    read.arg(if is_again { "0" } else { ">" });
    let sent = Instant::now();
    let held = entries(&read.query::<Reply>(connection).ok()?);
    if is_again || !held.is_empty() {
        work.note_read(name, *port);
    }
    if !is_again {
        held.iter().for_each(|id| work.moment(id, sent));
    }
    std::thread::sleep(if held.is_empty() { LOOK } else { WORK });
    // Between reading and acknowledging is the worst moment for either.
    while told.load(Ordering::Relaxed) == PAUSED {
        std::thread::sleep(LOOK);
    }
    for id in held {
        if told.load(Ordering::Relaxed) == KILLED {
            return Some(());
        }
        work.processed.lock().unwrap().entry(id.clone()).or_default().push(name.to_owned());
        let sent = Instant::now();
        if redis::cmd("XACK").arg(STREAM).arg("g").arg(&id).query::<i64>(connection).is_err() {
            work.unsure.lock().unwrap().insert(id);
            return None;
        }
        work.moment(&id, sent);
    }
    Some(())
}
