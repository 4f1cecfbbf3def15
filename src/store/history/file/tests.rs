use proptest::prelude::*;

use super::*;
use crate::analysis::history::tests::point;
use crate::store::history::memory::tests::key;

/// A time at which an hour and a day begin.
const DAY: i64 = 20_000 * 86_400;

const KEEP_ALL: Limits = Limits { minutes: i64::MAX, hours: i64::MAX, max_bytes: u64::MAX };

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn open(folder: &tempfile::TempDir) -> HistoryFile {
    HistoryFile::open(&folder.path().join("history.db"), DAY).unwrap()
}

fn path_of(file: &HistoryFile) -> PathBuf {
    file.connection.path().unwrap().into()
}

fn read(file: &HistoryFile, group: &str, from: i64, to: i64, step: i64) -> Vec<Point> {
    let connection = open_to_read(&path_of(file)).unwrap();
    let points = points(&connection, &[&key(group)], from, to, step).unwrap().series.remove(0).unwrap_or_default();
    resample(points, step)
}

/// Ages and rates as the file keeps them: the tests' points have only such.
fn minute(number: i64, lag: u64) -> Point {
    point(DAY + number * 60, lag % 99)
}

fn write_minutes(file: &mut HistoryFile, minutes: std::ops::Range<i64>, lag: impl Fn(i64) -> u64) {
    for number in minutes {
        file.write(&[(key("a"), minute(number, lag(number))), (key("b"), minute(number, 7))]).unwrap();
    }
}

#[test]
fn minutes_hours_and_days_come_back_before_and_after_they_are_chunks() {
    let folder = folder();
    let mut file = open(&folder);
    let lag = |number: i64| (number as u64 * 7919) % 90;
    // Two days and a half hour, compacted as it goes.
    for hour in 0..49 {
        let end = if hour == 48 { 30 } else { 60 };
        write_minutes(&mut file, hour * 60..hour * 60 + end, lag);
        file.compact(DAY + (hour * 60 + end - 2) * 60).unwrap();
    }
    let all: Vec<Point> = (0..48 * 60 + 30).map(|number| minute(number, lag(number))).collect();
    let end = DAY + 50 * HOUR;
    assert_eq!(read(&file, "a", DAY, end, 60), all);
    let hours = read(&file, "a", DAY, end, HOUR);
    for (found, expected) in hours.iter().zip(&resample(all.clone(), HOUR)) {
        // A mean is kept to an eighth of an entry.
        assert!((found.mean - expected.mean).abs() <= 0.0626, "{found:?} {expected:?}");
        assert_eq!(Point { mean: 0.0, ..*found }, Point { mean: 0.0, ..*expected });
    }
    assert_eq!(hours.len(), 49);
    let part = read(&file, "a", DAY + 90 * 60, DAY + 100 * 60, 60);
    assert_eq!(part, all[90..100]);
    assert_eq!(read(&file, "b", DAY, end, 60).len(), all.len());
    assert_eq!(read(&file, "none", DAY, end, 60), []);
    let connection = open_to_read(&path_of(&file)).unwrap();
    let info = info(&connection, &path_of(&file)).unwrap();
    assert_eq!((info.schema, info.series), (schema::VERSION, 2));
    assert_eq!(info.resolutions[0].points, 2 * all.len() as u64);
    assert_eq!(keys(&connection).unwrap(), [key("a"), key("b")]);
}

#[test]
fn hours_answer_for_minutes_that_are_gone() {
    let folder = folder();
    let mut file = open(&folder);
    write_minutes(&mut file, 0..48 * 60, |_| 5);
    file.compact(DAY + 48 * HOUR).unwrap();
    let now = DAY + 48 * HOUR;
    file.expire(now, Limits { minutes: 24 * HOUR, ..KEEP_ALL }, true).unwrap();
    let points = read(&file, "a", DAY, now, 60);
    let first_minute = points.iter().position(|point| point.samples == 1).unwrap();
    assert_eq!((first_minute, points[0].samples), (23, 60), "a point per hour, then one per minute, by the chunk");
    assert_eq!(points.len(), 23 + 25 * 60);
    let connection = open_to_read(&path_of(&file)).unwrap();
    let hours_until = |from, step| super::points(&connection, &[&key("a")], from, now, step).unwrap().hours_until;
    assert_eq!(hours_until(DAY, 60), Some(DAY + 23 * HOUR));
    assert_eq!((hours_until(DAY + 23 * HOUR, 60), hours_until(DAY, HOUR)), (None, None), "all of one width");
    // A clock that is doubted removes nothing.
    file.expire(now + 10_000 * 86_400, Limits { minutes: 60, hours: 60, ..KEEP_ALL }, false).unwrap();
    assert_eq!(read(&file, "a", DAY, now, 60).len(), points.len());
    file.expire(now + 10_000 * 86_400, Limits { minutes: 60, hours: 60, ..KEEP_ALL }, true).unwrap();
    assert_eq!(read(&file, "a", DAY, now, 60), []);
    assert_eq!(
        keys(&open_to_read(&path_of(&file)).unwrap()).unwrap().len(),
        2,
        "names stay until there is something newer"
    );
}

#[test]
fn a_range_far_beyond_what_is_kept_ends_with_what_is_kept() {
    let folder = folder();
    let mut file = open(&folder);
    write_minutes(&mut file, 0..49 * 60, |_| 5);
    file.compact(DAY + 49 * HOUR).unwrap();
    for step in [60, HOUR] {
        assert_eq!(read(&file, "a", i64::MAX - 10, i64::MAX, step), []);
        assert_eq!(read(&file, "a", i64::MIN, i64::MIN + 10, step), []);
        let kept = 49 * HOUR / step;
        assert_eq!(read(&file, "a", DAY, i64::MAX, step).len() as i64, kept);
        assert_eq!(read(&file, "a", i64::MIN, i64::MAX, step).len() as i64, kept);
    }
}

#[test]
fn the_oldest_points_go_where_the_bytes_are_not_enough() {
    let folder = folder();
    let mut file = open(&folder);
    let batch: Vec<_> = (0..400).map(|group| (key(&format!("group-{group}")), point(0, group))).collect();
    for hour in 0..72 {
        for number in [0, 20, 40] {
            let time = DAY + hour * HOUR + number * 60;
            let at = |(key, point): &(SeriesKey, Point)| (key.clone(), Point { time, lag: time as u64, ..*point });
            file.write(&batch.iter().map(at).collect::<Vec<_>>()).unwrap();
        }
    }
    let now = DAY + 72 * HOUR;
    file.compact(now).unwrap();
    let before = file.used_bytes().unwrap();
    let max_bytes = before * 3 / 4;
    file.expire(now, Limits { max_bytes, ..KEEP_ALL }, true).unwrap();
    assert!(file.used_bytes().unwrap() <= max_bytes);
    let points = read(&file, "group-7", DAY, now, 60);
    assert_eq!(points.last().unwrap().time, now - 20 * 60, "the newest stay");
    assert!(points[0].time >= DAY && points.iter().any(|point| point.samples == 3), "the old are hours now");
}

#[test]
fn a_clock_that_goes_back_adds_to_what_is_there() {
    let folder = folder();
    let mut file = open(&folder);
    write_minutes(&mut file, 0..120, |_| 10);
    file.compact(DAY + 2 * HOUR + 600).unwrap();
    write_minutes(&mut file, 30..40, |_| 90);
    file.compact(DAY + 2 * HOUR + 600).unwrap();
    let points = read(&file, "a", DAY, DAY + 2 * HOUR, 60);
    assert_eq!(points.len(), 120);
    let twice: Vec<_> =
        points.iter().filter(|point| (point.samples, point.lowest, point.highest) == (2, 10, 90)).collect();
    assert_eq!((twice.len(), twice[0].time), (10, DAY + 1800));
    let hours = read(&file, "a", DAY, DAY + 2 * HOUR, HOUR);
    assert_eq!(hours.iter().map(|point| (point.samples, point.highest)).collect::<Vec<_>>(), [(70, 90), (60, 10)]);
}

#[test]
fn files_that_are_not_ours_are_left_as_they_are() {
    let folder = folder();
    let path = folder.path().join("history.db");
    let other = Connection::open(folder.path().join("other.db")).unwrap();
    other.execute_batch("CREATE TABLE accounts (id INTEGER)").unwrap();
    other.close().unwrap();
    let database = std::fs::read(folder.path().join("other.db")).unwrap();
    std::fs::remove_file(folder.path().join("other.db")).unwrap();
    for bytes in [b"my diary".to_vec(), vec![0; 5000], MAGIC.to_vec(), database] {
        std::fs::write(&path, &bytes).unwrap();
        assert!(matches!(HistoryFile::open(&path, DAY), Err(Fault::Foreign)));
        assert!(matches!(open_to_read(&path), Err(Fault::Foreign)));
        assert_eq!(std::fs::read(&path).unwrap(), bytes);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is put beside it");
    }
    std::fs::write(&path, b"").unwrap();
    drop(open(&folder));
    let newer = Connection::open(&path).unwrap();
    newer.pragma_update(None, "user_version", schema::VERSION + 1).unwrap();
    newer.close().unwrap();
    assert!(matches!(HistoryFile::open(&path, DAY), Err(Fault::Newer(_))));
    assert!(matches!(open_to_read(&path), Err(Fault::Newer(_))));
}

#[test]
fn a_pipe_is_no_history_file_and_is_not_waited_for() {
    let folder = folder();
    let path = folder.path().join("history.db");
    assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
    let (said, opened) = std::sync::mpsc::sync_channel(1);
    std::thread::spawn(move || {
        let _ = said.send((HistoryFile::open(&path, DAY), open_to_read(&path)));
    });
    let opened = opened.recv_timeout(Duration::from_secs(30)).expect("nobody waits for a writer");
    assert!(matches!(opened, (Err(Fault::Foreign), Err(Fault::Foreign))), "{opened:?}");
}

#[test]
fn an_older_version_is_led_forward() {
    let folder = folder();
    let path = folder.path().join("history.db");
    let old = Connection::open(&path).unwrap();
    old.pragma_update(None, "application_id", schema::APPLICATION_ID).unwrap();
    assert_eq!(schema::version(&old).unwrap(), 0);
    old.execute_batch("VACUUM").unwrap();
    old.close().unwrap();
    assert!(open_to_read(&path).is_err(), "a reader does not migrate");
    write_minutes(&mut open(&folder), 0..1, |_| 1);
    assert_eq!(schema::version(&open_to_read(&path).unwrap()).unwrap(), schema::VERSION);
}

#[test]
fn one_process_at_a_time_writes() {
    let folder = folder();
    let file = open(&folder);
    assert!(matches!(HistoryFile::open(&path_of(&file), DAY), Err(Fault::InUse)));
    let path = path_of(&file);
    drop(file);
    HistoryFile::open(&path, DAY).unwrap();
}

#[test]
fn a_damaged_file_is_an_error_and_never_a_wrong_point() {
    let folder = folder();
    let mut file = open(&folder);
    let lag = |number: i64| (number as u64 * 7919) % 90;
    write_minutes(&mut file, 0..600, lag);
    file.compact(DAY + 10 * HOUR + 300).unwrap();
    let all = read(&file, "a", DAY, DAY + 10 * HOUR, 60);
    assert_eq!(all.len(), 600);
    let path = path_of(&file);
    let HistoryFile { connection, _lock, .. } = file;
    drop(_lock);
    connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    connection.close().unwrap();
    let good = std::fs::read(&path).unwrap();
    let mut found = 0;
    // Behind the header, which says whose file it is.
    for place in (HEADER_BYTES..good.len()).step_by(397) {
        let mut bad = good.clone();
        for byte in &mut bad[place..(place + 8).min(good.len())] {
            *byte ^= 0x5a;
        }
        std::fs::write(&path, &bad).unwrap();
        let result =
            open_to_read(&path).and_then(|connection| points(&connection, &[&key("a")], DAY, DAY + 10 * HOUR, 60));
        match result {
            Ok(points) => {
                let points = points.series.into_iter().flatten().flatten().collect::<Vec<_>>();
                assert!(points.iter().all(|point| all.contains(point)), "byte {place}: a wrong point");
            }
            Err(Fault::Corrupt(_)) => found += 1,
            Err(Fault::Io(_)) => {}
            Err(fault) => panic!("{fault}"),
        }
    }
    assert!(found > 0);
    let aside = set_aside(&path, SystemTime::UNIX_EPOCH).unwrap();
    assert!(!path.exists() && aside.exists());
    drop(open(&folder));
    assert_ne!(set_aside(&path, SystemTime::UNIX_EPOCH).unwrap(), aside, "none is written over");
}

/// Bytes per group over the time that points are kept by default, of a group whose every number is noise.
#[test]
fn two_weeks_of_minutes_and_a_year_of_hours_take_a_third_of_a_megabyte_at_most() {
    let (mut bytes, mut points) = (0, 0);
    let mut random = 1_u64;
    let mut next = |below: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (random >> 33) % below
    };
    let mut lag = 0_u64;
    // A busy group: every number of every minute differs. An hour, and two days of hours.
    for (count, chunks, step) in [(60, 14 * 24, 60), (48, 200, 3600)] {
        for _ in 0..20 {
            let series: Vec<_> = (0..count)
                .map(|number| {
                    let arrivals = 20_000 + next(2_000);
                    lag = (lag + arrivals).saturating_sub(20_000 + next(2_000));
                    let (low, high) = (lag.saturating_sub(next(200)), lag + next(300));
                    let point = Point {
                        samples: 12,
                        mean: (low + high) as f64 / 2.0,
                        lowest: low,
                        highest: high,
                        bound_min: low,
                        bound_max: high,
                        lag_ms: Some(lag * 3 + next(50)),
                        pending: Some(50 + next(50)),
                        added_milli: Some(arrivals * 1000 / 60),
                        delivered_milli: Some(333_000 + next(20_000)),
                        ..point(DAY + number * step, lag)
                    };
                    (0, point)
                })
                .collect();
            let packed = pack(&series).unwrap();
            assert_eq!(unpack(&packed).unwrap().len(), series.len());
            // The row's own bytes, and what a tree of pages leaves free.
            bytes += (packed.len() + 16) * chunks / 20;
            points += count as usize * chunks / 20;
        }
    }
    let per_sample = bytes as f64 / points as f64 / 12.0;
    assert!(per_sample <= 3.0, "{per_sample} bytes of a raw sample");
    assert!(bytes <= 350_000, "{bytes}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn any_order_of_minutes_is_read_as_it_was_written(
        order in proptest::collection::vec((0..300_i64, 0..90_u64), 1..60),
        compact in proptest::collection::vec(0..60_usize, 0..4),
    ) {
        let folder = folder();
        let mut file = open(&folder);
        let mut written = Vec::new();
        for (place, (number, lag)) in order.iter().enumerate() {
            file.write(&[(key("a"), minute(*number, *lag))]).unwrap();
            written.push(minute(*number, *lag));
            if compact.contains(&place) {
                file.compact(DAY + 5 * HOUR).unwrap();
            }
        }
        let found = read(&file, "a", DAY, DAY + 5 * HOUR, 60);
        let expected = resample(written, 60);
        let gist = |points: &[Point]| -> Vec<(i64, u32, u64, u64)> {
            points.iter().map(|point| (point.time, point.samples, point.lowest, point.highest)).collect()
        };
        prop_assert_eq!(gist(&found), gist(&expected));
    }
}

/// What the first version wrote: a minute of 40 groups, and minutes 50 to 59 of one.
const FIRST_BATCH: &str = "8B0045A0789CD3606A78FCEF3D0FD3FF472092817A9081E90B235B838344C7218B092E91338E552EF098B5E2D4AE0D3EB7779CFBBD8589452165C51BC605DCCC0C4C2B564100130303032308728149094626100D00BF3A1F10";
const FIRST_CHUNK: &str =
    "5FB43A37789CE362F8F0EEE77B1E86EF6F41243A60B6E3FAC38CC4674A6175106816290E60626460606004412E3029C1C804A2019C0D0B44";

#[test]
fn blobs_of_the_first_version_are_read() {
    let bytes = |hex: &str| -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|place| u8::from_str_radix(&hex[place..place + 2], 16).unwrap()).collect()
    };
    let expected = |minute: u64, group: u64| {
        let lag = minute * 31 % 1009 + group;
        Point {
            samples: 12,
            highest: lag + 5,
            bound_max: lag + 5,
            lag_ms: None,
            pending: Some(group),
            length: Some(minute),
            added_milli: None,
            consumers: Some(1),
            ..point(DAY + minute as i64 * MINUTE, lag)
        }
    };
    let batch: Vec<_> = (0..40).map(|group| (group + 1, expected(720, group))).collect();
    assert_eq!(unpack(&bytes(FIRST_BATCH)).unwrap(), batch);
    let chunk: Vec<_> = (50..60).map(|minute| (0, expected(minute, 0))).collect();
    assert_eq!(unpack(&bytes(FIRST_CHUNK)).unwrap(), chunk);
}

#[test]
fn noise_is_not_compressed_and_damage_is_found_in_either_form() {
    let mut random = 1_u64;
    let mut next = |below: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (random >> 33) % below
    };
    let noise: Vec<_> = (0..60).map(|n| (0, point(DAY + n * MINUTE, next(1 << 30)))).collect();
    let same: Vec<_> = (0..600).map(|n| (n / 60, point(DAY + n as i64 % 60 * MINUTE, n % 7))).collect();
    for (points, form) in [(noise, PLAIN), (same, DEFLATED), (Vec::new(), PLAIN)] {
        let packed = pack(&points).unwrap();
        assert_eq!(packed[4], form);
        let mut back = unpack(&packed).unwrap();
        // Three digits of the age.
        back.iter_mut().zip(&points).for_each(|((_, back), (_, point))| back.lag_ms = point.lag_ms);
        assert_eq!(back, points);
        for place in 0..packed.len() {
            let mut bad = packed.clone();
            bad[place] ^= 0x10;
            assert!(matches!(unpack(&bad), Err(Fault::Corrupt(_))), "byte {place} of form {form}");
        }
    }
}

#[test]
fn what_is_kept_beside_history_comes_back_and_an_old_file_is_migrated() {
    use crate::store::history::state::{StateChange, StateEntry};
    let folder = folder();
    let set = |area: &str, key: &str, value: Option<&str>| {
        StateChange::Set(area.to_owned(), key.to_owned(), value.map(str::to_owned))
    };
    let kept = |file: &HistoryFile| -> Vec<String> {
        let (entries, is_whole) = file.kept(usize::MAX).unwrap();
        assert!(is_whole);
        entries.into_iter().map(|StateEntry { area, key, value }| format!("{area}/{key}={value}")).collect()
    };
    let mut file = open(&folder);
    write_minutes(&mut file, 0..3, |_| 5);
    file.save(&[set("a", "x", Some("1")), set("a", "y", Some("2")), set("w 1", "x", Some("3"))]).unwrap();
    file.save(&[set("a", "x", Some("4")), set("a", "y", None), set("w 2", "x", Some("5"))]).unwrap();
    assert_eq!(kept(&file), ["a/x=4", "w 1/x=3", "w 2/x=5"]);
    drop(file);
    let mut file = open(&folder);
    assert_eq!(kept(&file), ["a/x=4", "w 1/x=3", "w 2/x=5"]);
    // Of what is too much, as much is read as is allowed.
    let (first, is_whole) = file.kept("ax4".len() + 1).unwrap();
    assert_eq!((first.len(), is_whole), (1, false));
    file.save(&[StateChange::Only(vec!["a".to_owned(), "w 2".to_owned()])]).unwrap();
    assert_eq!(kept(&file), ["a/x=4", "w 2/x=5"]);
    // All of them or none.
    file.limit_pages();
    let long = "x".repeat(100_000);
    assert!(file.save(&[StateChange::Clear("a".to_owned()), set("b", "x", Some(&long))]).is_err());
    drop(file);

    // As the version before had it.
    let old = Connection::open(folder.path().join("history.db")).unwrap();
    old.execute_batch("DROP TABLE state; PRAGMA user_version = 2").unwrap();
    drop(old);
    let mut file = open(&folder);
    assert_eq!((kept(&file).len(), schema::version(&file.connection).unwrap()), (0, schema::VERSION));
    file.save(&[set("a", "x", Some("1"))]).unwrap();
    assert_eq!(read(&file, "a", DAY, DAY + HOUR, 60).len(), 3);
    assert_eq!(kept(&file), ["a/x=1"]);
}
