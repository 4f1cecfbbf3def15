//! `make history-figures`: bytes of a group, CPU and bytes of a day of 10,000 groups, and a query over 14 days.

#![allow(clippy::unwrap_used, reason = "what cannot be measured ends")]
#![allow(clippy::print_stdout, reason = "that is what it is for")]

use std::time::Duration;

use streamlag::analysis::group_state::GroupState;
use streamlag::analysis::history::{HOUR, MINUTE, Point};
use streamlag::store::history::file::{self, HistoryFile};
use streamlag::store::history::memory::SeriesKey;

const START: i64 = 20_000 * 86_400;
const DAY: i64 = 24 * HOUR;

fn key(group: u64) -> SeriesKey {
    SeriesKey { target: "default".into(), stream: "events:chat".into(), group: format!("group-{group}").into() }
}

/// A group with 333 entries per second in and out, of which every number of every minute is noise.
struct Group {
    random: u64,
    lag: u64,
}

impl Group {
    fn next(&mut self, below: u64) -> u64 {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) % below
    }

    /// Of a stream whose consumers keep up all day, but for a burst now and then.
    fn busy_minute(&mut self, time: i64) -> Point {
        let day = (time % DAY) as f64 / DAY as f64 * std::f64::consts::TAU;
        let arrivals = (6_000.0 * (1.0 + 0.5 * day.sin())) as u64 + self.next(300);
        let burst = if self.next(360) == 0 { 5_000 } else { 0 };
        self.lag = self.next(9) + burst + if self.lag > 300 { self.lag - 250 } else { 0 };
        let (low, high) = (self.lag.saturating_sub(self.next(5)), self.lag + self.next(10));
        Point {
            time,
            samples: 12,
            lag: self.lag,
            mean: self.lag as f64 + (self.next(17) as f64 - 8.0) / 8.0,
            lowest: low,
            highest: high,
            bound_min: low,
            bound_max: high,
            lag_ms: Some(self.lag * 10 + if self.lag > 0 { self.next(10) } else { 0 }),
            pending: Some(self.next(20)),
            length: Some(10_000),
            added_milli: Some(arrivals * 1000 / 60),
            delivered_milli: Some((arrivals + self.next(20)) * 1000 / 60),
            consumers: Some(4),
            lost: Some(0),
            state: Some(GroupState::Ok),
        }
    }

    /// Of a stream on which something happens now and then.
    fn quiet_minute(&mut self, time: i64) -> Point {
        let entries = if self.next(10) == 0 { self.next(5) } else { 0 };
        self.lag += entries;
        Point {
            lag: 0,
            mean: 0.0,
            lowest: 0,
            highest: entries.min(1),
            bound_min: 0,
            bound_max: entries.min(1),
            lag_ms: Some(0),
            pending: Some(0),
            length: Some(self.lag.min(1_000)),
            added_milli: Some(entries * 1000 / 60),
            delivered_milli: Some(entries * 1000 / 60),
            ..self.busy_minute(time)
        }
    }

    fn minute(&mut self, time: i64) -> Point {
        let arrivals = 20_000 + self.next(2_000);
        self.lag = (self.lag + arrivals).saturating_sub(20_000 + self.next(2_000));
        let (low, high) = (self.lag.saturating_sub(self.next(200)), self.lag + self.next(300));
        Point {
            time,
            samples: 12,
            lag: self.lag,
            mean: (low + high) as f64 / 2.0,
            lowest: low,
            highest: high,
            bound_min: low,
            bound_max: high,
            lag_ms: Some(self.lag * 3 + self.next(50)),
            pending: Some(50 + self.next(50)),
            length: Some(10_000),
            added_milli: Some(arrivals * 1000 / 60),
            delivered_milli: Some(333_000 + self.next(20_000)),
            consumers: Some(2),
            lost: Some(0),
            state: Some(GroupState::Ok),
        }
    }
}

/// What happens to a group within a minute.
type Load = fn(&mut Group, i64) -> Point;

const LOADS: [(&str, Load); 3] =
    [("noise", Group::minute), ("busy", Group::busy_minute), ("quiet", Group::quiet_minute)];

/// CPU time of this thread, user and system.
fn cpu() -> Duration {
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(told.split(' ').next().unwrap().parse().unwrap())
}

/// Writes minutes as the daemon does; what that took of a core.
fn write(file: &mut HistoryFile, groups: &mut [Group], minutes: std::ops::Range<i64>, load: Load) -> Duration {
    let mut took = Duration::ZERO;
    for minute in minutes {
        let time = START + minute * MINUTE;
        let points: Vec<_> =
            groups.iter_mut().enumerate().map(|(number, group)| (key(number as u64), load(group, time))).collect();
        let began = cpu();
        file.write(&points).unwrap();
        file.compact(time).unwrap();
        took += cpu() - began;
    }
    took
}

fn groups(count: u64) -> Vec<Group> {
    (0..count).map(|number| Group { random: number, lag: 1000 }).collect()
}

fn main() {
    for (name, load) in LOADS {
        println!("{name}:");
        bytes_of_a_group(load);
    }
    a_query_over_two_weeks();
    for (name, load) in LOADS {
        println!("{name}:");
        ten_thousand(load);
    }
}

fn bytes_of_a_group(load: Load) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("history.db");
    let mut file = HistoryFile::open(&path, START).unwrap();
    let count = 20;
    write(&mut file, &mut groups(count), 0..14 * 24 * 60 + 5, load);
    drop(file);
    let connection = file::open_to_read(&path).unwrap();
    let info = file::info(&connection, &path).unwrap();
    let minutes = info.bytes as f64 / count as f64;
    println!(
        "14 days of minutes: {minutes:.0} bytes of the file per group, {:.2} per raw sample",
        minutes / (14.0 * 1440.0 * 12.0)
    );
    for resolution in &info.resolutions {
        println!(
            "{} s: {:.2} bytes per point, packed",
            resolution.seconds,
            resolution.bytes as f64 / resolution.points as f64
        );
    }
    let hours = &info.resolutions[1];
    let year = hours.bytes as f64 / hours.points as f64 * 400.0 * 24.0;
    println!("with 400 days of hours: {:.0} bytes per group", minutes + year);
}

/// A file of busy groups, which is read from the page cache.
fn a_query_over_two_weeks() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("history.db");
    let mut file = HistoryFile::open(&path, START).unwrap();
    let count = 200;
    write(&mut file, &mut groups(count), 0..14 * 24 * 60 + 5, Group::busy_minute);
    drop(file);
    let connection = file::open_to_read(&path).unwrap();
    let mut times = Vec::new();
    for query in 0..500 {
        let (key, began) = (key(query * 7 % count), cpu());
        let found = file::points(&connection, &[&key], START, START + 14 * DAY, 120).unwrap().series.remove(0);
        times.push(cpu() - began);
        assert!(found.unwrap().len() > 20_000);
    }
    times.sort();
    println!("a query of one of {count} groups over 14 days: p50 {:?}, p99 {:?} of CPU", times[250], times[494]);
}

fn ten_thousand(load: Load) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("history.db");
    let mut file = HistoryFile::open(&path, START).unwrap();
    // With the compaction of the fourth hour.
    let took = write(&mut file, &mut groups(10_000), 0..4 * 60 + 1, load);
    drop(file);
    let share = took.as_secs_f64() / (4 * HOUR) as f64;
    println!(
        "10,000 groups: {:.2}% of a core, a file of {:.0} MB a day",
        share * 100.0,
        file::size(&path) as f64 * 6.0 / 1e6
    );
}
