//! Response bodies: bytes that are ready, and streams of events.

use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::Stream;
use http_body::{Body, Frame, SizeHint};
use hyper::Response;

use crate::exposition::encoding::Pieces;
use crate::http::admission::OpenRequest;
use crate::http::reader_memory::{AnswerReading, ReaderMemory};

/// What a request is answered with.
pub(super) type HttpResponse = Response<StaticBody>;

/// The bytes of an event stream, as they come.
pub(super) type EventBytes = Pin<Box<dyn Stream<Item = Bytes> + Send>>;

/// Bytes that are handed to the connection at a time. What has been written can be counted no finer, and a connection holds some of these
/// while it waits for its client.
const MAX_FRAME_BYTES: usize = 64 * 1024;

/// A body of pieces that are there already. Its length is known, so it is never sent chunked; that of events is not.
pub struct StaticBody {
    /// What it shares with others who read the same, unless that is with `reading`.
    pieces: Pieces,
    /// The piece that comes next, by its number.
    next: usize,
    /// What is this body's own, after all pieces.
    tail: Bytes,
    /// What is left of the piece that is being sent.
    piece: Bytes,
    left: u64,
    /// Counts what is held for the client, and holds its request open.
    reading: Option<Arc<AnswerReading>>,
    /// What comes instead, as long as it does, and its request.
    events: Option<(EventBytes, Option<OpenRequest>)>,
}

impl StaticBody {
    /// These pieces, and after them bytes that no other body has.
    pub(super) fn new(pieces: Pieces, tail: Bytes) -> Self {
        let left = pieces.iter().chain([&tail]).map(|piece| piece.len() as u64).sum();
        Self { pieces, next: 0, tail, piece: Bytes::new(), left, reading: None, events: None }
    }

    /// The same body, which counts as held and holds its request open until its last byte has been written or dropped. Events are bounded
    /// by the number of viewers, and hold their request open for as long as they come.
    pub(super) fn until_sent(self, mut open: OpenRequest, memory: &ReaderMemory) -> Self {
        if let Some((events, _)) = self.events {
            open.is_stream();
            return Self { events: Some((events, Some(open))), ..Self::new(self.pieces, self.tail) };
        }
        let reading = memory.reading(self.pieces, open);
        Self { pieces: Pieces::default(), reading: Some(Arc::new(reading)), ..self }
    }

    /// The next bytes to be sent, without a copy.
    fn next_frame(&mut self) -> Option<Bytes> {
        while self.piece.is_empty() {
            let pieces = self.reading.as_ref().map_or(&self.pieces, |reading| reading.pieces());
            self.piece = match pieces.get(self.next) {
                Some(piece) => piece.clone(),
                None if self.tail.is_empty() => return None,
                None => std::mem::take(&mut self.tail),
            };
            self.next += 1;
        }
        let bytes = self.piece.split_to(self.piece.len().min(MAX_FRAME_BYTES));
        self.left -= bytes.len() as u64;
        Some(match &self.reading {
            Some(reading) => Bytes::from_owner(Sent { bytes, reading: Arc::clone(reading) }),
            None => bytes,
        })
    }
}

/// Bytes on their way out. The connection drops them once they are written.
struct Sent {
    bytes: Bytes,
    reading: Arc<AnswerReading>,
}

impl AsRef<[u8]> for Sent {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Sent {
    fn drop(&mut self) {
        self.reading.sent(self.bytes.len() as u64);
    }
}

impl From<EventBytes> for StaticBody {
    fn from(events: EventBytes) -> Self {
        Self { events: Some((events, None)), ..Self::from(Bytes::new()) }
    }
}

impl fmt::Debug for StaticBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StaticBody").field("left", &self.left).field("events", &self.events.is_some()).finish()
    }
}

impl From<&Pieces> for StaticBody {
    fn from(pieces: &Pieces) -> Self {
        Self::new(Arc::clone(pieces), Bytes::new())
    }
}

impl From<Bytes> for StaticBody {
    fn from(bytes: Bytes) -> Self {
        Self::new(Pieces::from([bytes]), Bytes::new())
    }
}

impl Body for StaticBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some((events, open)) = &mut self.events {
            if let Some(open) = open {
                open.asked_for_more();
            }
            return events.as_mut().poll_next(cx).map(|piece| piece.map(|piece| Ok(Frame::data(piece))));
        }
        Poll::Ready(self.next_frame().map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.events.is_none() && self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        if self.events.is_some() { SizeHint::default() } else { SizeHint::with_exact(self.left) }
    }
}
