use super::*;
use crate::analysis::history::query::Range;
use crate::analysis::history::tests::point;
use crate::store::history::backend::{Answer, AnswerSink};
use crate::store::history::memory::tests::key;
use crate::store::history::{HistoryConfig, HistorySource};
use crate::sys::own_metrics::HistoryMetrics;

struct Fixture {
    folder: tempfile::TempDir,
    shared: Arc<SharedHistory>,
    writer: Writer,
    now: i64,
}

impl Fixture {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let day = Duration::from_secs(86_400);
        let config = HistoryConfig {
            path: Some(folder.path().join("history.db")),
            memory: 1 << 20,
            retention: day * 14,
            coarse_retention: day * 400,
            max_size: 1 << 30,
            prometheus: None,
        };
        let shared = config.shared(HistoryMetrics::default());
        let (writer, ..) = Writer::new(Arc::clone(&shared), config.limits());
        Self { folder, shared, writer, now: Point::bucket(unix_seconds(SystemTime::now()), MINUTE) }
    }

    fn up(&self) -> bool {
        self.shared.metrics.up.get() == 1
    }

    /// A minute of one group, so many minutes ago.
    fn write(&mut self, minutes_ago: i64, lag: u64) {
        self.writer.keep(vec![(key("a"), point(self.now - minutes_ago * MINUTE, lag))]);
        self.work();
    }

    fn work(&mut self) {
        // As if it was long ago.
        self.writer.tried = None;
        self.writer.work();
    }

    fn lags(&self) -> Option<(HistorySource, Vec<u64>)> {
        let answer = self.answer(Range { from: self.now - 7200, to: self.now + 60, step: 60 })?;
        Some((answer.source, answer.points.iter().map(|point| point.lag).collect()))
    }

    fn answer(&self, range: Range) -> Option<Answer> {
        let (sender, answers) = std::sync::mpsc::sync_channel(1);
        let mut take: AnswerSink = Box::new(move |_, answer| sender.send(answer).unwrap());
        self.shared.read_some(&[key("a")], range, &mut take);
        answers.try_recv().ok()
    }

    fn others(&self) -> Vec<String> {
        let names = std::fs::read_dir(self.folder.path()).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut others: Vec<_> = names.filter(|name| name.contains("damaged")).collect();
        others.sort();
        others
    }
}

#[test]
fn minutes_are_written_and_read() {
    let mut history = Fixture::new();
    history.write(3, 1);
    history.write(2, 2);
    assert!(history.up());
    assert_eq!(history.lags(), Some((HistorySource::Sqlite, vec![1, 2])));
    assert_eq!(history.shared.metrics.points.get(), 2);
}

#[test]
fn two_processes_share_the_second_in_which_a_minute_begins() {
    let mut history = Fixture::new();
    history.write(1, 40);
    // The next one knows nothing of what was written.
    let written = std::mem::take(&mut *lock(&history.shared.file.as_ref().unwrap().written));
    assert!(!written.is_empty());
    lock(&history.shared.memory).push(&key("a"), point(history.now - MINUTE, 70));
    for from in [history.now - 7200, history.now - MINUTE] {
        let answer = history.answer(Range { from, to: history.now, step: 60 }).unwrap();
        let lags: Vec<_> = answer.points.iter().map(|point| (point.lowest, point.lag, point.highest)).collect();
        assert_eq!(lags, [(40, 70, 70)], "from {from}");
    }
}

#[test]
fn what_a_full_disk_refuses_waits_and_is_written_later() {
    let mut history = Fixture::new();
    history.write(9, 1);
    let file = history.writer.file.as_ref().unwrap();
    file.limit_pages();
    // What fits into pages that are there may still be written.
    let mut ago = 8;
    while history.up() {
        let many = (0..500).map(|n| (key(&format!("group-{n}")), point(history.now - 8 * MINUTE, n * n)));
        history.writer.keep(many.collect());
        history.write(ago, 2);
        ago = 7;
    }
    assert!(history.writer.file.is_none(), "closed until the next try");
    assert!(!history.writer.backlog.is_empty());
    assert_eq!(history.lags().map(|(source, _)| source), Some(HistorySource::Sqlite), "it can still be read");
    history.write(6, 3);
    assert!(history.up() && history.writer.backlog.is_empty());
    let (_, lags) = history.lags().unwrap();
    assert_eq!((lags.first(), lags.last()), (Some(&1), Some(&3)));
    assert!(lags.contains(&2), "{lags:?}");
    assert_eq!(history.others(), Vec::<String>::new());
    assert_eq!(history.shared.metrics.samples_dropped.get(), 0);
}

#[test]
fn a_file_is_in_use_again_once_it_takes_points() {
    let mut history = Fixture::new();
    history.write(3, 1);
    // As where a change of an incident finds the disk full.
    history.writer.fault(&Fault::Io("database or disk is full".to_owned()));
    history.work();
    assert!(history.writer.said.is_some(), "it opened, and nothing was written");
    history.write(2, 2);
    assert_eq!(history.writer.said, None);
}

#[test]
fn the_backlog_is_bounded_and_counts_what_it_drops() {
    let mut history = Fixture::new();
    std::fs::write(history.folder.path().join("history.db"), "my diary").unwrap();
    let many: PointBatch = (0..MAX_BACKLOG as u64 / 2).map(|n| (key("a"), point(0, n))).collect();
    for _ in 0..3 {
        history.writer.keep(many.clone());
        history.work();
    }
    assert!(!history.up());
    assert_eq!(history.writer.backlog.len(), MAX_BACKLOG);
    assert_eq!(history.shared.metrics.samples_dropped.get(), MAX_BACKLOG as u64 / 2);
    assert_eq!(history.lags(), None);
    assert_eq!(std::fs::read(history.folder.path().join("history.db")).unwrap(), b"my diary");
}

#[test]
fn a_damaged_file_is_set_aside_and_a_new_one_begun() {
    let mut history = Fixture::new();
    history.write(3, 1);
    // What a reader finds is what the writer is told.
    let path = history.folder.path().join("history.db");
    let other = rusqlite::Connection::open(&path).unwrap();
    // It is in a chunk where its hour is just over.
    other.execute_batch("UPDATE batches SET data = zeroblob(100); UPDATE chunks SET data = zeroblob(100)").unwrap();
    drop(other);
    assert_eq!(history.lags(), None, "no wrong value");
    history.write(2, 2);
    assert!(!history.up());
    assert_eq!(history.others().len(), 1);
    assert!(!path.exists());
    history.work();
    assert!(history.up());
    assert_eq!(history.lags(), Some((HistorySource::Sqlite, vec![2])));
    let kept = std::fs::read(history.folder.path().join(&history.others()[0])).unwrap();
    assert!(kept.starts_with(b"SQLite format 3\0"));
}

#[test]
fn a_file_that_is_left_alone_is_not_tried_at_once() {
    let mut history = Fixture::new();
    let path = history.folder.path().join("history.db");
    std::fs::write(&path, "my diary").unwrap();
    history.writer.work();
    assert!(!history.up());
    std::fs::remove_file(&path).unwrap();
    history.writer.work();
    assert!(!history.up(), "left alone");
    history.work();
    assert!(history.up());
}

/// The start waits for it, and compaction may take long: here it finds damage.
#[tokio::test]
async fn what_was_kept_is_told_before_anything_else_is_done() {
    use crate::store::history::state::StateEntry;
    let mut history = Fixture::new();
    history.write(150, 1);
    let set = StateChange::Set("a".to_owned(), "x".to_owned(), Some("1".to_owned()));
    assert_eq!(history.writer.save(&[set]), Some(1));
    let file = history.writer.file.take().unwrap();
    drop(file);
    let path = history.folder.path().join("history.db");
    let other = rusqlite::Connection::open(path).unwrap();
    // As if the hour had not been compacted yet.
    other.execute("DELETE FROM batches", ()).unwrap();
    let time = history.now - 150 * MINUTE;
    other.execute("INSERT INTO batches VALUES (0, ?1, 1, zeroblob(100))", [time]).unwrap();
    drop(other);

    let (writer, minutes, _, kept) = Writer::new(Arc::clone(&history.shared), history.writer.limits);
    let running = std::thread::spawn(move || writer.run());
    let entry = StateEntry { area: "a".to_owned(), key: "x".to_owned(), value: "1".to_owned() };
    assert_eq!(kept.await.unwrap(), SavedState { entries: vec![entry], generation: 1 });
    drop(minutes);
    tokio::task::spawn_blocking(move || running.join().unwrap()).await.unwrap();
    assert_eq!(history.others().len(), 1, "it was damaged");
}

#[test]
fn a_clock_that_ran_ahead_of_the_time_that_passed_removes_nothing() {
    let mut history = Fixture::new();
    let file = |history: &Fixture| {
        let path = history.folder.path().join("history.db");
        file::info(&file::open_to_read(&path).unwrap(), &path).unwrap().resolutions[0].points
    };
    let now = history.writer.began.0;
    // Began twenty days ago by the clock, and just now by the time that passed.
    history.writer.began.0 = now - 20 * 86_400;
    history.writer.expired = None;
    history.write(16 * 24 * 60, 1);
    assert_eq!(file(&history), 1, "older than the retention, and perhaps it is not");
    history.writer.began.0 = now;
    history.writer.expired = None;
    history.work();
    assert_eq!(file(&history), 0);
}
