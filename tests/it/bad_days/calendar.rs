//! Which days there are, where, and how many at a time; and what came of them.
//!
//! `BAD_DAYS` is how many (by default one at each place), `BAD_DAYS_SEED` the first of them (`BAD_DAYS` is then 1 by default, so that a day
//! that has failed is run again by its seed), `BAD_DAYS_AT_A_TIME` how many run beside each other. A seed says where a day takes place:
//! that goes by the servers that there are.

use std::collections::BTreeMap;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::day;
use super::place::{Kind, Place};
use crate::common::servers;

/// Days at a time: most of a day is waiting. In the short form the rest of the suite keeps the cores busy too.
const AT_A_TIME: u64 = 12;
const AT_A_TIME_IN_SHORT: u64 = 4;

/// How often it is said how far it is.
const PROGRESS: Duration = Duration::from_secs(60);

/// Days that have failed before no other is begun: more would say the same.
const MAX_FAILED: usize = 20;

/// What happened, for people.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    pub days: u64,
    pub steps: u64,
    pub entries: u64,
    /// How often each thing was done to them.
    pub blows: BTreeMap<&'static str, u64>,
    /// Acts by action, outcome and why.
    pub acts: BTreeMap<(String, String, String), u64>,
    /// Entries that were processed more than once.
    pub twice: u64,
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.days += other.days;
        self.steps += other.steps;
        self.entries += other.entries;
        self.twice += other.twice;
        other.blows.into_iter().for_each(|(blow, count)| *self.blows.entry(blow).or_default() += count);
        other.acts.into_iter().for_each(|(act, count)| *self.acts.entry(act).or_default() += count);
    }

    fn acts_by_outcome(&self) -> BTreeMap<&str, u64> {
        let mut by_outcome = BTreeMap::new();
        for ((_, outcome, _), count) in &self.acts {
            *by_outcome.entry(outcome.as_str()).or_default() += count;
        }
        by_outcome
    }
}

/// All days of a run.
pub struct Calendar {
    seeds: Range<u64>,
    at_a_time: u64,
    /// What is different about places is their kind and their server.
    places: Vec<(Kind, PathBuf)>,
    /// The places of the days, in turn: those with one server come twice, as they take least.
    rota: Vec<usize>,
    next: AtomicU64,
    /// Places at which nobody is.
    free: Mutex<Vec<(usize, Place)>>,
    course: Mutex<Course>,
}

/// How it goes.
struct Course {
    all: Tally,
    failed: Vec<String>,
    begun: Instant,
    said: Instant,
}

/// A whole number from the environment.
fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok().filter(|text| !text.is_empty())?;
    Some(text.parse().unwrap_or_else(|_| panic!("invalid value {text:?} for {name}: expected a whole number")))
}

/// Seconds of processor that this process and those that it waited for have taken: the fields utime to cstime of `/proc/self/stat`, in
/// hundredths.
fn processor_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = text.rsplit(") ").next().unwrap_or_default().split(' ').skip(11).take(4);
    fields.filter_map(|field| field.parse::<f64>().ok()).sum::<f64>() / 100.0
}

impl Calendar {
    pub fn of_environment() -> Self {
        let mut places: Vec<(Kind, PathBuf)> = servers().into_iter().map(|server| (Kind::Alone, server)).collect();
        // They take the longest.
        places.insert(0, (Kind::Sentinels, PathBuf::from("redis-server")));
        places.insert(0, (Kind::Cluster, PathBuf::from("redis-server")));
        let (days, seed) = (number("BAD_DAYS"), number("BAD_DAYS_SEED"));
        let count = days.unwrap_or(if seed.is_some() { 1 } else { places.len() as u64 });
        let default = if days.is_some() { AT_A_TIME } else { AT_A_TIME_IN_SHORT };
        let begun = Instant::now();
        Self {
            seeds: seed.unwrap_or(0)..seed.unwrap_or(0) + count,
            at_a_time: number("BAD_DAYS_AT_A_TIME").unwrap_or(default).max(1),
            rota: (0..places.len()).chain(2..places.len()).collect(),
            places,
            next: AtomicU64::new(seed.unwrap_or(0)),
            free: Mutex::default(),
            course: Mutex::new(Course { all: Tally::default(), failed: Vec::new(), begun, said: begun }),
        }
    }

    /// Has all of them, and says what came of them.
    pub fn run(&self) {
        std::thread::scope(|scope| {
            for _ in 0..self.at_a_time {
                scope.spawn(|| while self.one_day() {});
            }
        });
        let course = self.course.lock().unwrap();
        course.say(&self.seeds);
        println!("what was done to them: {:#?}", course.all.blows);
        println!("acts: {:#?}", course.all.acts);
        assert!(course.failed.is_empty(), "{} days failed:\n{}", course.failed.len(), course.failed.join("\n"));
    }

    /// Whether there was one.
    fn one_day(&self) -> bool {
        let seed = self.next.fetch_add(1, Ordering::Relaxed);
        if seed >= self.seeds.end || self.course.lock().unwrap().failed.len() >= MAX_FAILED {
            return false;
        }
        let at = self.rota[usize::try_from(seed % self.rota.len() as u64).unwrap()];
        let (kind, server) = &self.places[at];
        let kept = {
            let mut free = self.free.lock().unwrap();
            let found = free.iter().position(|(of, _)| *of == at);
            found.map(|found| free.swap_remove(found).1)
        };
        let had = catch_unwind(AssertUnwindSafe(|| {
            let mut place = kept.unwrap_or_else(|| Place::start(kind, server));
            let tally = day(&mut place, seed);
            if self.seeds.end - seed > self.at_a_time && place.mend() {
                self.free.lock().unwrap().push((at, place));
            }
            tally
        }));
        let mut course = self.course.lock().unwrap();
        match had {
            Ok(tally) => course.all.add(tally),
            Err(why) => {
                let why = why.downcast_ref::<String>().cloned();
                let why = why.unwrap_or_else(|| "a panic without text".to_owned());
                let failed = format!("BAD_DAYS_SEED={seed} ({kind:?}, {}): {why}", server.display());
                println!("{failed}");
                course.failed.push(failed);
            }
        }
        if course.said.elapsed() >= PROGRESS {
            course.said = Instant::now();
            course.say(&self.seeds);
        }
        true
    }
}

impl Course {
    fn say(&self, seeds: &Range<u64>) {
        let Self { all, failed, begun, .. } = self;
        let of = |what: &str| failed.iter().filter(|failed| failed.contains(&format!("): {what}: "))).count();
        println!(
            "{} of {} days in {} s ({:.2} s of processor each): {} steps, {} entries, {} blows; acts {:?}; {} entries processed twice; days with \
             an entry lost: {}, an act off the record: {}, an act on the living: {}, an entry twice for no reason: {}, failed in all: {}",
            all.days + failed.len() as u64,
            seeds.end - seeds.start,
            begun.elapsed().as_secs(),
            processor_seconds() / all.days.max(1) as f64,
            all.steps,
            all.entries,
            all.blows.values().sum::<u64>(),
            all.acts_by_outcome(),
            all.twice,
            of("lost"),
            of("off the record"),
            of("acts on the living"),
            of("twice"),
            failed.len(),
        );
    }
}
