//! Response bodies: bytes that are ready, and streams of events.

use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::Stream;
use http_body::{Body, Frame, SizeHint};
use hyper::Response;

use crate::http::admission::OpenRequest;

/// What a request is answered with.
pub(super) type HttpResponse = Response<StaticBody>;

/// The bytes of an event stream, as they come.
pub(super) type EventBytes = Pin<Box<dyn Stream<Item = Bytes> + Send>>;

/// A body of pieces that are there already. Its length is known, so it is never sent chunked; that of events is not.
pub struct StaticBody {
    /// Most bodies are one piece.
    first: Option<Bytes>,
    others: std::vec::IntoIter<Bytes>,
    left: u64,
    /// What comes behind those, as long as it does.
    events: Option<EventBytes>,
    /// What is to last as long as this body does.
    open: Option<OpenRequest>,
}

impl StaticBody {
    /// The same body, which holds its request open until it is dropped.
    pub(super) fn until_sent(self, mut open: OpenRequest) -> Self {
        if self.events.is_some() {
            open.is_stream();
        }
        Self { open: Some(open), ..self }
    }
}

impl From<EventBytes> for StaticBody {
    fn from(events: EventBytes) -> Self {
        Self { events: Some(events), ..Self::from(Bytes::new()) }
    }
}

impl fmt::Debug for StaticBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StaticBody").field("left", &self.left).field("events", &self.events.is_some()).finish()
    }
}

impl From<&[Bytes]> for StaticBody {
    fn from(pieces: &[Bytes]) -> Self {
        let left = pieces.iter().map(|piece| piece.len() as u64).sum();
        let others = pieces.get(1..).unwrap_or_default().to_vec().into_iter();
        Self { first: pieces.first().cloned(), others, left, events: None, open: None }
    }
}

impl From<Bytes> for StaticBody {
    fn from(bytes: Bytes) -> Self {
        let left = bytes.len() as u64;
        Self { first: Some(bytes), others: Vec::new().into_iter(), left, events: None, open: None }
    }
}

impl Body for StaticBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let body = &mut *self;
        if let Some(events) = &mut body.events {
            if let Some(open) = &body.open {
                open.asked_for_more();
            }
            return events.as_mut().poll_next(cx).map(|piece| piece.map(|piece| Ok(Frame::data(piece))));
        }
        let piece = self.first.take().or_else(|| self.others.next());
        self.left -= piece.as_ref().map_or(0, |piece| piece.len() as u64);
        Poll::Ready(piece.map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.events.is_none() && self.first.is_none() && self.others.len() == 0
    }

    fn size_hint(&self) -> SizeHint {
        if self.events.is_some() { SizeHint::default() } else { SizeHint::with_exact(self.left) }
    }
}
