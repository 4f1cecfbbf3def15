//! The history file: SQLite, written by one thread, read by others.
//!
//! Points arrive as a batch of all groups per minute. When an hour is over, its batches go to one chunk per group, and become a batch of hour
//! points, which in turn go to longer chunks when the day is over. Every blob has a checksum: SQLite does not check what it stores.

mod read;
mod state;

use std::collections::{BTreeMap, HashMap};
use std::fs::{File, TryLockError};
use std::io::{ErrorKind, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use flate2::Compression;
use flate2::read::{DeflateDecoder, ZlibDecoder};
use flate2::write::DeflateEncoder;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension as _, Transaction, params};

use crate::analysis::history::{HOUR, MINUTE, Point, codec, resample};
use crate::store::history::memory::SeriesKey;
use crate::store::history::schema;

pub use read::{FileInfo, FoundPoints, Resolution, info, keys, open_to_read, points};

/// Time that a lock of another connection is waited for.
const BUSY: Duration = Duration::from_secs(5);

/// Bytes that a blob may unpack to: a batch of a million points is less.
const MAX_UNPACKED: u64 = 256 << 20;

/// Points of a blob, at most.
const MAX_POINTS: usize = 1 << 18;

/// Points that compaction unpacks at a time, about.
const POINTS_AT_ONCE: u64 = 200_000;

/// Bytes beyond which the write-ahead log is cut when it has been copied.
const WAL_BYTES: i64 = 8 << 20;

/// Free pages given back to the file system at a time.
const VACUUM_PAGES: u32 = 2_000;

/// The start of every SQLite file, and where its application id is.
const MAGIC: &[u8] = b"SQLite format 3\0";
const APPLICATION_ID_AT: usize = 68;
const HEADER_BYTES: usize = 100;

/// The zlib level: a minute of 10,000 groups takes some milliseconds.
const COMPRESSION: Compression = Compression::new(6);

/// A resolution, in seconds: width of its points, of the batches that are compacted together, and of the chunks that they are added to.
/// A chunk is to be less than a quarter of a page (4 KiB): the rest of a longer one would take pages of its own, half of them empty.
#[derive(Clone, Copy)]
struct Tier {
    number: i64,
    resolution: i64,
    compacted: i64,
    chunk: i64,
}

const MINUTES: Tier = Tier { number: 0, resolution: MINUTE, compacted: HOUR, chunk: HOUR };
const HOURS: Tier = Tier { number: 1, resolution: HOUR, compacted: 24 * HOUR, chunk: 48 * HOUR };
const TIERS: [Tier; 2] = [MINUTES, HOURS];

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// It is no history file: left as it is.
    #[error("it is a file of another program, which is left as it is")]
    Foreign,
    /// It is of a later streamlag: left as it is.
    #[error("it has schema version {0}, and this streamlag knows versions up to {known}; it is left as it is", known = schema::VERSION)]
    Newer(i32),
    /// Another streamlag has it.
    #[error("another process uses it")]
    InUse,
    /// It is damaged.
    #[error("it is damaged: {0}")]
    Corrupt(String),
    /// It cannot be read or written now.
    #[error("{0}")]
    Io(String),
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Self::Corrupt(error.to_string()),
            Some(_) => Self::Io(error.to_string()),
            // A type or a row that is not as it was written.
            None => Self::Corrupt(error.to_string()),
        }
    }
}

impl From<std::io::Error> for Fault {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error.to_string())
    }
}

/// How long points are kept, and how many bytes they may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Of minutes, seconds.
    pub minutes: i64,
    /// Of hours, seconds.
    pub hours: i64,
    /// Of the file with its write-ahead log.
    pub max_bytes: u64,
}

/// The file, open for writing by this process alone.
#[derive(Debug)]
pub struct HistoryFile {
    connection: Connection,
    ids: HashMap<SeriesKey, u64>,
    /// Held as long as the file is open. A file of its own, as closing any descriptor of the database would end SQLite's own locks.
    _lock: File,
}

/// `path` with more at its end.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Whether there is a file of ours; `None` where there is nothing.
fn is_ours(path: &Path) -> Result<Option<bool>, Fault> {
    // Asked before it is opened: opening a pipe would wait for a writer.
    match std::fs::metadata(path) {
        Ok(file) if !file.is_file() => return Ok(Some(false)),
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    let mut header = Vec::new();
    File::open(path)?.take(HEADER_BYTES as u64).read_to_end(&mut header)?;
    let id = header.get(APPLICATION_ID_AT..APPLICATION_ID_AT + 4);
    let ours = header.starts_with(MAGIC) && id == Some(&schema::APPLICATION_ID.to_be_bytes());
    // An empty file is a database without tables.
    Ok(if header.is_empty() { None } else { Some(ours) })
}

/// Makes an empty history file under another name first: what has the name is whole.
fn create(path: &Path) -> Result<(), Fault> {
    let draft = beside(path, ".new");
    for name in [draft.clone(), beside(&draft, "-journal")] {
        match std::fs::remove_file(name) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
    }
    let mut connection = Connection::open(&draft)?;
    connection.execute_batch("PRAGMA auto_vacuum = INCREMENTAL")?;
    let transaction = connection.transaction()?;
    transaction.pragma_update(None, "application_id", schema::APPLICATION_ID)?;
    schema::migrate(&transaction)?;
    transaction.commit()?;
    connection.close().map_err(|(_, error)| error)?;
    Ok(std::fs::rename(&draft, path)?)
}

/// How a blob is packed, in the byte behind its checksum. What the first version of the file wrote begins there with zlib's own 0x78.
const PLAIN: u8 = 0;
const DEFLATED: u8 = 1;

/// A checksum, the form, and the points: compressed, unless they are noise, which that makes longer.
fn pack(points: &[(u64, Point)]) -> Result<Vec<u8>, Fault> {
    let plain = codec::encode(points);
    let mut deflated = DeflateEncoder::new(vec![0, 0, 0, 0, DEFLATED], COMPRESSION);
    deflated.write_all(&plain)?;
    let mut packed = deflated.finish()?;
    if packed.len() > 5 + plain.len() {
        packed.truncate(4);
        packed.push(PLAIN);
        packed.extend(plain);
    }
    let sum = crc32fast::hash(&packed[4..]);
    packed[..4].copy_from_slice(&sum.to_le_bytes());
    Ok(packed)
}

fn unpack(packed: &[u8]) -> Result<Vec<(u64, Point)>, Fault> {
    let damaged = || Fault::Corrupt("a checksum does not match".to_owned());
    let (sum, data) = packed.split_first_chunk::<4>().ok_or_else(damaged)?;
    if crc32fast::hash(data) != u32::from_le_bytes(*sum) {
        return Err(damaged());
    }
    let whole = |mut unpacked: Box<dyn std::io::Read + '_>| {
        let mut bytes = Vec::new();
        unpacked.read_to_end(&mut bytes).map_err(|_| damaged())?;
        Ok::<_, Fault>(bytes)
    };
    let points = match data.split_first() {
        Some((&PLAIN, plain)) => codec::decode(plain, MAX_POINTS),
        Some((&DEFLATED, deflated)) => {
            codec::decode(&whole(Box::new(DeflateDecoder::new(deflated).take(MAX_UNPACKED)))?, MAX_POINTS)
        }
        _ => codec::decode_first(&whole(Box::new(ZlibDecoder::new(data).take(MAX_UNPACKED)))?),
    };
    points.map_err(|error| Fault::Corrupt(error.to_string()))
}

/// Moves a damaged file out of the way, with what belongs to it. Returns where it went.
///
/// # Errors
/// Where it cannot be moved.
pub fn set_aside(path: &Path, now: SystemTime) -> std::io::Result<PathBuf> {
    let stamp = humantime::format_rfc3339_seconds(now).to_string().replace([':', '-'], "");
    let free = |name: &PathBuf| !name.exists();
    let names = (0..1000).map(|number| beside(path, &format!(".damaged-{stamp}-{number}")));
    let aside = names.into_iter().find(free).ok_or(ErrorKind::AlreadyExists)?;
    for suffix in ["-wal", "-shm"] {
        match std::fs::rename(beside(path, suffix), beside(&aside, suffix)) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    std::fs::rename(path, &aside)?;
    Ok(aside)
}

impl HistoryFile {
    /// Opens the file for writing, makes it where there is none, and migrates it where it is old.
    ///
    /// # Errors
    /// Where it cannot be used. Nothing was changed that is not ours.
    pub fn open(path: &Path, now: i64) -> Result<Self, Fault> {
        // Before the lock: nothing is put beside what is not ours.
        if is_ours(path)? == Some(false) {
            return Err(Fault::Foreign);
        }
        let lock = File::options().create(true).truncate(false).write(true).open(beside(path, ".lock"))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(Fault::InUse),
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
        if is_ours(path)?.is_none() {
            create(path)?;
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(BUSY)?;
        connection.execute_batch(&format!(
            "PRAGMA cell_size_check = ON; PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;
             PRAGMA journal_size_limit = {WAL_BYTES}"
        ))?;
        let found = schema::version(&connection)?;
        if found > schema::VERSION {
            return Err(Fault::Newer(found));
        }
        // Even where nothing is to be migrated: a file that cannot be written is to show it now.
        let transaction = connection.transaction()?;
        schema::migrate(&transaction)?;
        transaction.execute("INSERT OR REPLACE INTO meta VALUES ('opened', ?1)", [now.to_string()])?;
        transaction.commit()?;
        Ok(Self { connection, ids: HashMap::new(), _lock: lock })
    }

    /// Writes points of minutes, all of them or none.
    ///
    /// # Errors
    /// Where they are not written.
    pub fn write(&mut self, points: &[(SeriesKey, Point)]) -> Result<(), Fault> {
        if points.is_empty() {
            return Ok(());
        }
        let (transaction, mut ids) = (self.connection.transaction()?, Vec::new());
        let mut minutes: BTreeMap<i64, Vec<(u64, Point)>> = BTreeMap::new();
        for (key, point) in points {
            let id = match self.ids.get(key) {
                Some(id) => *id,
                None => {
                    let id = series_id(&transaction, key, point.time)?;
                    ids.push((key.clone(), id));
                    id
                }
            };
            let point = point.in_bucket(MINUTES.resolution);
            minutes.entry(point.time).or_default().push((id, point));
        }
        for (minute, points) in &mut minutes {
            points.sort_by_key(|(id, _)| *id);
            insert_batch(&transaction, MINUTES, *minute, points)?;
        }
        transaction.commit()?;
        // Only now are they in the file.
        self.ids.extend(ids);
        Ok(())
    }

    /// Makes chunks of the batches whose hour or day is over at `now`.
    ///
    /// # Errors
    /// Where it cannot; what was there is there.
    pub fn compact(&mut self, now: i64) -> Result<(), Fault> {
        for tier in TIERS {
            let until = Point::bucket(now, tier.compacted);
            loop {
                let transaction = self.connection.transaction()?;
                let oldest: Option<i64> = transaction.query_row(
                    "SELECT min(time) FROM batches WHERE tier = ?1 AND time < ?2",
                    (tier.number, until),
                    |row| row.get(0),
                )?;
                let Some(oldest) = oldest else { break };
                compact_chunk(&transaction, tier, Point::bucket(oldest, tier.compacted))?;
                transaction.commit()?;
            }
        }
        Ok(())
    }

    /// Removes what is too old, unless the clock is doubted, and the oldest beyond the bytes.
    ///
    /// # Errors
    /// Where it cannot; what was there is there.
    pub fn expire(&mut self, now: i64, limits: Limits, by_age: bool) -> Result<(), Fault> {
        if by_age {
            for (tier, keep) in [(MINUTES, limits.minutes), (HOURS, limits.hours)] {
                let before = now.saturating_sub(keep).saturating_sub(tier.chunk);
                self.connection.execute("DELETE FROM chunks WHERE tier = ?1 AND start < ?2", (tier.number, before))?;
                self.connection.execute("DELETE FROM batches WHERE tier = ?1 AND time < ?2", (tier.number, before))?;
            }
        }
        while self.used_bytes()? > limits.max_bytes {
            if !self.remove_oldest()? {
                break;
            }
        }
        self.forget_series()?;
        self.connection.execute_batch(&format!("PRAGMA incremental_vacuum({VACUUM_PAGES})"))?;
        Ok(())
    }

    /// Removes the oldest hour of minutes while there are two days of them, else the oldest day of hours, else the oldest of either;
    /// whether there was anything.
    fn remove_oldest(&mut self) -> Result<bool, Fault> {
        let span = |tier: Tier| -> Result<Option<(i64, i64)>, Fault> {
            Ok(self.connection.query_row(
                "SELECT min(start), max(start) FROM chunks WHERE tier = ?1",
                [tier.number],
                |row| Ok(row.get::<_, Option<i64>>(0)?.zip(row.get(1)?)),
            )?)
        };
        let (minutes, hours) = (span(MINUTES)?, span(HOURS)?);
        let enough = minutes.is_some_and(|(first, last)| last - first >= 48 * HOUR);
        let (tier, first) = match (minutes, hours) {
            (Some((first, _)), _) if enough => (MINUTES, first),
            (_, Some((first, _))) => (HOURS, first),
            (Some((first, _)), None) => (MINUTES, first),
            (None, None) => return Ok(false),
        };
        self.connection.execute("DELETE FROM chunks WHERE tier = ?1 AND start = ?2", (tier.number, first))?;
        Ok(true)
    }

    /// Forgets names that have no points any more.
    fn forget_series(&mut self) -> Result<(), Fault> {
        // Names of late may be in batches, where nobody can see them from outside.
        let oldest: Option<i64> = self.connection.query_row(
            "SELECT min(time) FROM (SELECT min(start) AS time FROM chunks WHERE tier = 0 UNION ALL
             SELECT min(start) FROM chunks WHERE tier = 1 UNION ALL SELECT min(time) FROM batches)",
            (),
            |row| row.get(0),
        )?;
        let Some(oldest) = oldest else { return Ok(()) };
        let gone = self.connection.execute("DELETE FROM series WHERE last < ?1", [oldest])?;
        if gone > 0 {
            self.ids.clear();
        }
        Ok(())
    }

    /// Bytes in use: pages that are not free.
    fn used_bytes(&self) -> Result<u64, Fault> {
        let number = |pragma: &str| -> Result<u64, Fault> {
            Ok(self.connection.query_row(&format!("PRAGMA {pragma}"), (), |row| row.get(0))?)
        };
        Ok(number("page_count")?.saturating_sub(number("freelist_count")?) * number("page_size")?)
    }

    /// No page is added from now on: a full disk, for tests.
    #[cfg(test)]
    pub(super) fn limit_pages(&self) {
        self.connection.execute_batch("PRAGMA max_page_count = 1").unwrap();
    }
}

/// Bytes of the file and its write-ahead log.
#[must_use]
pub fn size(path: &Path) -> u64 {
    let bytes = |path: &Path| std::fs::metadata(path).map_or(0, |file| file.len());
    bytes(path) + bytes(&beside(path, "-wal"))
}

fn series_id(transaction: &Transaction<'_>, key: &SeriesKey, time: i64) -> Result<u64, Fault> {
    let mut insert = transaction.prepare_cached(
        "INSERT INTO series (target, stream, consumer_group, last) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT DO UPDATE SET last = max(last, excluded.last) RETURNING id",
    )?;
    Ok(insert.query_row(params![&*key.target, &*key.stream, &*key.group, time], |row| row.get(0))?)
}

fn insert_batch(transaction: &Transaction<'_>, tier: Tier, time: i64, points: &[(u64, Point)]) -> Result<(), Fault> {
    let mut insert =
        transaction.prepare_cached("INSERT INTO batches (tier, time, points, data) VALUES (?1, ?2, ?3, ?4)")?;
    for points in points.chunks(MAX_POINTS) {
        insert.execute(params![tier.number, time, points.len() as u64, pack(points)?])?;
    }
    Ok(())
}

/// Adds the batches that are compacted together to their chunks, and makes a batch of the next tier.
fn compact_chunk(transaction: &Transaction<'_>, tier: Tier, from: i64) -> Result<(), Fault> {
    let start = Point::bucket(from, tier.chunk);
    let range = (tier.number, from, from.saturating_add(tier.compacted));
    let total: u64 = transaction.query_row(
        "SELECT sum(points) FROM batches WHERE tier = ?1 AND time >= ?2 AND time < ?3",
        range,
        |row| row.get(0),
    )?;
    let parts = total.div_ceil(POINTS_AT_ONCE).max(1);
    let mut coarse: Vec<(u64, Point)> = Vec::new();
    let mut select = transaction
        .prepare_cached("SELECT data FROM batches WHERE tier = ?1 AND time >= ?2 AND time < ?3 ORDER BY time, rowid")?;
    let mut old =
        transaction.prepare_cached("SELECT data FROM chunks WHERE tier = ?1 AND start = ?2 AND series = ?3")?;
    let mut insert = transaction.prepare_cached(
        "INSERT OR REPLACE INTO chunks (tier, start, series, points, data) VALUES (?1, ?2, ?3, ?4, ?5)",
    )?;
    let mut seen = transaction.prepare_cached("UPDATE series SET last = max(last, ?2) WHERE id = ?1")?;
    // A part of the groups at a time: all points of an hour at once would take much memory.
    for part in 0..parts {
        let mut series: BTreeMap<u64, Vec<Point>> = BTreeMap::new();
        let mut rows = select.query(range)?;
        while let Some(row) = rows.next()? {
            for (id, point) in unpack(row.get_ref(0)?.as_blob().map_err(rusqlite::Error::from)?)? {
                if id % parts == part {
                    series.entry(id).or_default().push(point);
                }
            }
        }
        for (id, mut points) in series {
            if tier.number == MINUTES.number {
                coarse.extend(resample(points.clone(), HOURS.resolution).into_iter().map(|point| (id, point)));
            }
            let before: Option<Vec<u8>> = old.query_row((tier.number, start, id), |row| row.get(0)).optional()?;
            if let Some(before) = before {
                let before = unpack(&before)?.into_iter().map(|(_, point)| point);
                points = before.chain(points).collect();
            }
            let points: Vec<_> = resample(points, tier.resolution).into_iter().map(|point| (0, point)).collect();
            let last = points.last().map_or(start, |(_, point)| point.time);
            insert.execute(params![tier.number, start, id, points.len() as u64, pack(&points)?])?;
            seen.execute((id, last))?;
        }
    }
    if !coarse.is_empty() {
        coarse.sort_by_key(|(id, point)| (point.time, *id));
        for hour in coarse.chunk_by(|(_, one), (_, other)| one.time == other.time) {
            insert_batch(transaction, HOURS, hour[0].1.time, hour)?;
        }
    }
    transaction.execute("DELETE FROM batches WHERE tier = ?1 AND time >= ?2 AND time < ?3", range)?;
    Ok(())
}

#[cfg(test)]
mod tests;
