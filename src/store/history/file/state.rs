//! What is kept over a restart beside history.

use rusqlite::params;

use super::{Fault, HistoryFile};
use crate::store::history::state::{StateChange, StateEntry};

impl HistoryFile {
    /// Keeps these changes, all of them or none.
    ///
    /// # Errors
    /// Where they are not written.
    pub fn save(&mut self, changes: &[StateChange]) -> Result<(), Fault> {
        let transaction = self.connection.transaction()?;
        for change in changes {
            match change {
                StateChange::Clear(area) => {
                    transaction.prepare_cached("DELETE FROM state WHERE area = ?1")?.execute([area])?;
                }
                StateChange::Only(areas) => {
                    let all: Vec<String> = transaction
                        .prepare_cached("SELECT DISTINCT area FROM state")?
                        .query_map((), |row| row.get(0))?
                        .collect::<Result<_, _>>()?;
                    for area in all.iter().filter(|area| !areas.contains(area)) {
                        transaction.prepare_cached("DELETE FROM state WHERE area = ?1")?.execute([area])?;
                    }
                }
                StateChange::Set(area, key, Some(value)) => {
                    let mut set = transaction.prepare_cached("INSERT OR REPLACE INTO state VALUES (?1, ?2, ?3)")?;
                    set.execute(params![area, key, value])?;
                }
                StateChange::Set(area, key, None) => {
                    let mut remove = transaction.prepare_cached("DELETE FROM state WHERE area = ?1 AND key = ?2")?;
                    remove.execute(params![area, key])?;
                }
            }
        }
        Ok(transaction.commit()?)
    }

    /// What is kept, by area and key, and whether so many bytes are enough for all of it.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn kept(&self, max_bytes: usize) -> Result<(Vec<StateEntry>, bool), Fault> {
        let mut select = self.connection.prepare("SELECT area, key, value FROM state ORDER BY area, key")?;
        let rows =
            select.query_map((), |row| Ok(StateEntry { area: row.get(0)?, key: row.get(1)?, value: row.get(2)? }))?;
        let (mut entries, mut bytes) = (Vec::new(), 0);
        for entry in rows {
            let entry = entry?;
            bytes += entry.area.len() + entry.key.len() + entry.value.len();
            if bytes > max_bytes {
                return Ok((entries, false));
            }
            entries.push(entry);
        }
        Ok((entries, true))
    }
}
