//! The tables of the history file, by version.

use rusqlite::{Connection, Transaction};

/// What says that a file is ours: `SLAG`.
pub(super) const APPLICATION_ID: i32 = 0x534c_4147;

/// The newest version.
pub(super) const VERSION: i32 = 3;

/// What leads from each version to the next, the first being from an empty file.
const STEPS: [&str; VERSION as usize] = [
    // `batches` are points of all groups at once, by the minute (tier 0) or hour (tier 1), until a whole chunk is there. `chunks` are those of
    // one group over an hour (tier 0) or two days (tier 1). Ordered by time, so that they are written at the end and removed at the start.
    "CREATE TABLE series (
        id INTEGER PRIMARY KEY, target TEXT NOT NULL, stream TEXT NOT NULL, consumer_group TEXT NOT NULL,
        last INTEGER NOT NULL, UNIQUE (target, stream, consumer_group)
     ) STRICT;
     CREATE TABLE batches (
        tier INTEGER NOT NULL, time INTEGER NOT NULL, points INTEGER NOT NULL, data BLOB NOT NULL
     ) STRICT;
     CREATE INDEX batches_by_time ON batches (tier, time);
     CREATE TABLE chunks (
        tier INTEGER NOT NULL, start INTEGER NOT NULL, series INTEGER NOT NULL, points INTEGER NOT NULL, data BLOB NOT NULL,
        PRIMARY KEY (tier, start, series)
     ) STRICT, WITHOUT ROWID;
     CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;",
    // Blobs have another form, which the first version takes for damage. Those that it wrote are still read.
    "",
    // What is kept over a restart: incidents, and what was told to whom.
    "CREATE TABLE state (
        area TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (area, key)
     ) STRICT, WITHOUT ROWID;",
];

/// The version of a file's tables.
pub(super) fn version(connection: &Connection) -> rusqlite::Result<i32> {
    connection.query_row("PRAGMA user_version", (), |row| row.get(0))
}

/// Leads a file forward to the newest version, all the way or not at all.
pub(super) fn migrate(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    let from = usize::try_from(version(transaction)?).unwrap_or(STEPS.len());
    for step in STEPS.iter().skip(from) {
        transaction.execute_batch(step)?;
    }
    transaction.pragma_update(None, "user_version", VERSION)
}
