//! What readers ask of the history file.

use std::collections::BTreeMap;
use std::path::Path;

use rusqlite::{Connection, OpenFlags, OptionalExtension as _, params};

use super::{BUSY, Fault, HOURS, MINUTES, TIERS, Tier, is_ours, size, unpack};
use crate::analysis::history::{HOUR, Point};
use crate::store::history::memory::SeriesKey;
use crate::store::history::schema;

/// Opens a file of ours for reading.
///
/// # Errors
/// Where it is not ours or cannot be read.
pub fn open_to_read(path: &Path) -> Result<Connection, Fault> {
    match is_ours(path)? {
        Some(true) => {}
        Some(false) => return Err(Fault::Foreign),
        None => return Err(Fault::Io("there is no such file, or it is empty".to_owned())),
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY)?;
    match schema::version(&connection)? {
        schema::VERSION => Ok(connection),
        newer if newer > schema::VERSION => Err(Fault::Newer(newer)),
        older => Err(Fault::Io(format!("it has schema version {older}; streamlag migrates it when it starts with it"))),
    }
}

fn find_series(connection: &Connection, key: &SeriesKey) -> Result<Option<u64>, Fault> {
    let mut find =
        connection.prepare_cached("SELECT id FROM series WHERE target = ?1 AND stream = ?2 AND consumer_group = ?3")?;
    Ok(find.query_row(params![&*key.target, &*key.stream, &*key.group], |row| row.get(0)).optional()?)
}

/// Points of some series of a tier, `to` not included: those of chunks, and those of batches.
fn tier_points(
    connection: &Connection,
    tier: Tier,
    series: &mut SeriesPoints,
    from: i64,
    to: i64,
) -> Result<(), Fault> {
    let span: Option<(i64, i64)> = connection.query_row(
        "SELECT (SELECT min(start) FROM chunks WHERE tier = ?1), (SELECT max(start) FROM chunks WHERE tier = ?1)",
        [tier.number],
        |row| Ok(row.get::<_, Option<i64>>(0)?.zip(row.get(1)?)),
    )?;
    let mut chunk =
        connection.prepare_cached("SELECT data FROM chunks WHERE tier = ?1 AND start = ?2 AND series = ?3")?;
    let within = |point: &Point| (from..to).contains(&point.time);
    if let Some((first, last)) = span {
        // Whatever range is asked for, chunks are looked up only where there are some.
        let next = |start: &i64| start.checked_add(tier.chunk);
        let starts = std::iter::successors(Some(Point::bucket(from, tier.chunk).max(first)), next);
        for start in starts.take_while(|start| *start < to && *start <= last) {
            for (id, points) in series.iter_mut() {
                let data: Option<Vec<u8>> = chunk.query_row((tier.number, start, id), |row| row.get(0)).optional()?;
                if let Some(data) = data {
                    points.extend(unpack(&data)?.into_iter().map(|(_, point)| point).filter(within));
                }
            }
        }
    }
    batch_points(connection, tier, series, from, to)
}

/// The same of batches alone. Each is unpacked once for all series.
fn batch_points(
    connection: &Connection,
    tier: Tier,
    series: &mut SeriesPoints,
    from: i64,
    to: i64,
) -> Result<(), Fault> {
    let mut batches = connection
        .prepare_cached("SELECT data FROM batches WHERE tier = ?1 AND time >= ?2 AND time < ?3 ORDER BY time, rowid")?;
    let mut rows = batches.query((tier.number, from, to))?;
    while let Some(row) = rows.next()? {
        for (id, point) in unpack(row.get_ref(0)?.as_blob().map_err(rusqlite::Error::from)?)? {
            if let Some(points) = series.get_mut(&id).filter(|_| (from..to).contains(&point.time)) {
                points.push(point);
            }
        }
    }
    Ok(())
}

/// Points of series, by their number.
type SeriesPoints = BTreeMap<u64, Vec<Point>>;

/// Points of groups.
#[derive(Debug)]
pub struct FoundPoints {
    /// Those of each group; `None` for one that is not in the file.
    pub series: Vec<Option<Vec<Point>>>,
    /// Where the step is less than an hour: points that begin before this time are of an hour each, as their minutes are gone.
    pub hours_until: Option<i64>,
}

/// Points of groups, `to` not included, for steps of `step` seconds: of minutes where the step is less than an hour and they are kept, of
/// hours otherwise. Takes memory for all of these points at once.
///
/// # Errors
/// Where the file cannot be read.
pub fn points(
    connection: &Connection,
    keys: &[&SeriesKey],
    from: i64,
    to: i64,
    step: i64,
) -> Result<FoundPoints, Fault> {
    // One view of the file, whatever is written meanwhile.
    let _view = connection.unchecked_transaction()?;
    let ids = keys.iter().map(|key| find_series(connection, key)).collect::<Result<Vec<_>, _>>()?;
    let mut series: SeriesPoints = ids.iter().flatten().map(|id| (*id, Vec::new())).collect();
    if series.is_empty() {
        return Ok(FoundPoints { series: vec![None; keys.len()], hours_until: None });
    }
    let oldest_minute: Option<i64> = connection.query_row(
        "SELECT min(time) FROM (SELECT min(start) AS time FROM chunks WHERE tier = 0 UNION ALL
         SELECT min(time) FROM batches WHERE tier = 0)",
        (),
        |row| row.get(0),
    )?;
    let to_minutes = if step >= HOURS.resolution { Point::bucket(to, HOUR) } else { oldest_minute.unwrap_or(to) };
    let border = Point::bucket(to_minutes.clamp(from, to), HOUR).max(from);
    if from < border {
        tier_points(connection, HOURS, &mut series, Point::bucket(from, HOUR), border)?;
        // Of hours that are not over there are minutes only.
        batch_points(connection, MINUTES, &mut series, from, border)?;
    }
    tier_points(connection, MINUTES, &mut series, border, to)?;
    let hours_until = (step < HOURS.resolution && from < border).then_some(border);
    Ok(FoundPoints { series: ids.into_iter().map(|id| series.remove(&id?)).collect(), hours_until })
}

/// What is in a file, for people.
#[derive(Debug)]
pub struct FileInfo {
    /// The version of its tables.
    pub schema: i32,
    /// Bytes with the write-ahead log.
    pub bytes: u64,
    /// Groups that it has points of.
    pub series: u64,
    /// What there is of minutes and of hours.
    pub resolutions: Vec<Resolution>,
}

/// Points of one resolution.
#[derive(Debug)]
pub struct Resolution {
    /// Seconds of a point.
    pub seconds: i64,
    /// How many there are.
    pub points: u64,
    /// Bytes that they take, packed.
    pub bytes: u64,
    /// Start of the oldest and of the newest chunk or batch, seconds since the Unix epoch.
    pub span: Option<(i64, i64)>,
}

/// What is in a file.
///
/// # Errors
/// Where it cannot be read.
pub fn info(connection: &Connection, path: &Path) -> Result<FileInfo, Fault> {
    let tiers = TIERS.iter().map(|tier| {
        Ok(connection.query_row(
            "SELECT coalesce(sum(points), 0), coalesce(sum(length(data)), 0), min(time), max(time) FROM (
                SELECT points, data, start AS time FROM chunks WHERE tier = ?1
                UNION ALL SELECT points, data, time FROM batches WHERE tier = ?1)",
            [tier.number],
            |row| {
                Ok(Resolution {
                    seconds: tier.resolution,
                    points: row.get(0)?,
                    bytes: row.get(1)?,
                    span: row.get::<_, Option<i64>>(2)?.zip(row.get(3)?),
                })
            },
        )?)
    });
    Ok(FileInfo {
        schema: schema::version(connection)?,
        bytes: size(path),
        series: connection.query_row("SELECT count(*) FROM series", (), |row| row.get(0))?,
        resolutions: tiers.collect::<Result<_, Fault>>()?,
    })
}

/// Every series of a file, by name.
///
/// # Errors
/// Where it cannot be read.
pub fn keys(connection: &Connection) -> Result<Vec<SeriesKey>, Fault> {
    let mut select = connection
        .prepare("SELECT target, stream, consumer_group FROM series ORDER BY target, stream, consumer_group")?;
    let text = |row: &rusqlite::Row<'_>, place| row.get::<_, String>(place).map(Into::into);
    let rows = select
        .query_map((), |row| Ok(SeriesKey { target: text(row, 0)?, stream: text(row, 1)?, group: text(row, 2)? }))?;
    Ok(rows.collect::<Result<_, _>>()?)
}
