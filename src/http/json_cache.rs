//! JSON responses, made once per poll and shared by all requests for the same.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use bytes::{Bytes, BytesMut};
use serde::Serialize;

use crate::exposition::encoding::Pieces;
use crate::http::reader_memory::{NoMemory, ReaderMemory, Reservation};
use crate::http::route::ApiRoute;
use crate::http::server_config::ServerConfig;
use crate::model::TargetName;
use crate::store::latest::Published;

/// Answers that are kept, of all targets: a handful of paths, with some groups each. The oldest goes when there are more.
const MAX_ANSWERS: usize = 64;

/// Bytes of an answer's first piece of memory. Each further piece has twice as many, up to [`MAX_PIECE_BYTES`].
const FIRST_PIECE_BYTES: usize = 4 * 1024;

/// The bytes that are reserved and filled at a time, at most.
const MAX_PIECE_BYTES: usize = 256 * 1024;

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AnswerKey {
    pub(super) target: TargetName,
    pub(super) route: ApiRoute,
    /// The group, as the query has it.
    pub(super) group: Option<String>,
}

/// The answers.
#[derive(Debug, Default)]
pub(super) struct JsonCache(Mutex<VecDeque<CachedJson>>);

#[derive(Debug)]
struct CachedJson {
    key: AnswerKey,
    /// Of what it is made. It goes when one of them has been replaced.
    published: Weak<Published>,
    config: Weak<ServerConfig>,
    /// Locked while it is made, so that others who ask for the same wait for it.
    answer: Arc<Mutex<Option<Json>>>,
}

/// JSON as pieces of memory that is reserved.
#[derive(Debug)]
pub(super) struct Json {
    pieces: Pieces,
    _reservation: Reservation,
}

/// Why there is no JSON.
#[derive(Debug, thiserror::Error)]
pub(super) enum JsonError {
    #[error(transparent)]
    NoMemory(#[from] NoMemory),
    #[error(transparent)]
    Encoding(#[from] serde_json::Error),
    #[error("the answer ends in another way than expected")]
    End,
}

impl JsonCache {
    /// The answer to this question from this snapshot and configuration. It is made where nobody has asked before.
    pub(super) fn get<E>(
        &self,
        key: AnswerKey,
        published: &Arc<Published>,
        config: &Arc<ServerConfig>,
        make: impl FnOnce() -> Result<Json, E>,
    ) -> Result<Pieces, E> {
        let entry = self.entry(key, published, config);
        let mut answer = entry.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(json) = &*answer {
            return Ok(Arc::clone(&json.pieces));
        }
        // One that cannot be answered takes no place of those that can.
        let json = make().inspect_err(|_| self.entries().retain(|other| !Arc::ptr_eq(&other.answer, &entry)))?;
        let pieces = Arc::clone(&json.pieces);
        *answer = Some(json);
        Ok(pieces)
    }

    fn entry(
        &self,
        key: AnswerKey,
        published: &Arc<Published>,
        config: &Arc<ServerConfig>,
    ) -> Arc<Mutex<Option<Json>>> {
        let (published, config) = (Arc::downgrade(published), Arc::downgrade(config));
        let mut entries = self.entries();
        let same = |entry: &&CachedJson| {
            entry.key == key && entry.published.ptr_eq(&published) && entry.config.ptr_eq(&config)
        };
        if let Some(entry) = entries.iter().find(same) {
            return Arc::clone(&entry.answer);
        }
        entries.retain(CachedJson::is_current);
        if entries.len() >= MAX_ANSWERS {
            entries.pop_front();
        }
        let answer = Arc::default();
        entries.push_back(CachedJson { key, published, config, answer: Arc::clone(&answer) });
        answer
    }

    /// Forgets what is out of date.
    pub(super) fn forget_old(&self) {
        self.entries().retain(CachedJson::is_current);
    }

    /// Forgets what nobody reads.
    pub(super) fn forget_unread(&self) {
        self.entries().retain(|entry| !entry.is_unread());
    }

    fn entries(&self) -> MutexGuard<'_, VecDeque<CachedJson>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CachedJson {
    fn is_current(&self) -> bool {
        self.published.strong_count() > 0 && self.config.strong_count() > 0
    }

    /// Whether it is made and nobody reads it.
    fn is_unread(&self) -> bool {
        let Ok(answer) = self.answer.try_lock() else { return false };
        answer.as_ref().is_some_and(|json| Arc::strong_count(&json.pieces) == 1)
    }
}

impl Json {
    /// A value as JSON without `end`, with which it must end.
    ///
    /// # Errors
    /// Where there is no memory left for it, or the value cannot be encoded or ends otherwise.
    pub(super) fn without_end(
        value: &impl Serialize,
        end: &str,
        memory: &ReaderMemory,
        cache: &JsonCache,
    ) -> Result<Self, JsonError> {
        let (pieces, piece) = (Vec::new(), BytesMut::new());
        let mut writer = JsonWriter { cache, reservation: memory.nothing(), pieces, piece, is_refused: false };
        if let Err(error) = serde_json::to_writer(&mut writer, value) {
            return Err(if writer.is_refused { NoMemory.into() } else { error.into() });
        }
        let JsonWriter { mut pieces, piece, reservation, .. } = writer;
        let mut last = piece.freeze();
        if last.len() < end.len() {
            // Its end may be in two pieces.
            last = [pieces.pop().unwrap_or_default(), last].concat().into();
        }
        let kept = last.strip_suffix(end.as_bytes()).ok_or(JsonError::End)?.len();
        last.truncate(kept);
        pieces.push(last);
        Ok(Self { pieces: pieces.into(), _reservation: reservation })
    }
}

/// Writes into pieces that are reserved one by one: a long answer is refused before it takes memory, and is never moved.
struct JsonWriter<'a> {
    cache: &'a JsonCache,
    reservation: Reservation,
    pieces: Vec<Bytes>,
    piece: BytesMut,
    is_refused: bool,
}

impl JsonWriter<'_> {
    /// Begins another piece.
    fn begin_piece(&mut self) -> io::Result<()> {
        let size = (self.piece.capacity() * 2).clamp(FIRST_PIECE_BYTES, MAX_PIECE_BYTES);
        if self.reservation.grow(size as u64).is_err() {
            self.cache.forget_unread();
            self.reservation.grow(size as u64).map_err(|error| {
                self.is_refused = true;
                io::Error::other(error)
            })?;
        }
        let full = std::mem::replace(&mut self.piece, BytesMut::with_capacity(size));
        if !full.is_empty() {
            self.pieces.push(full.freeze());
        }
        Ok(())
    }
}

impl io::Write for JsonWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.piece.len() == self.piece.capacity() {
            self.begin_piece()?;
        }
        let room = self.piece.capacity() - self.piece.len();
        let taken = bytes.get(..room).unwrap_or(bytes);
        self.piece.extend_from_slice(taken);
        Ok(taken.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
