//! Response bodies: bytes that are ready.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::Response;

use crate::http::admission::OpenRequest;

/// What a request is answered with.
pub(super) type HttpResponse = Response<StaticBody>;

/// A body of pieces that are there already. Its length is known, so it is never sent chunked.
#[derive(Debug)]
pub struct StaticBody {
    /// Most bodies are one piece.
    first: Option<Bytes>,
    others: std::vec::IntoIter<Bytes>,
    left: u64,
    /// What is to last as long as this body does.
    _open: Option<OpenRequest>,
}

impl StaticBody {
    /// The same body, which holds its request open until it is dropped.
    pub(super) fn until_sent(self, open: OpenRequest) -> Self {
        Self { _open: Some(open), ..self }
    }
}

impl From<&[Bytes]> for StaticBody {
    fn from(pieces: &[Bytes]) -> Self {
        let left = pieces.iter().map(|piece| piece.len() as u64).sum();
        let others = pieces.get(1..).unwrap_or_default().to_vec().into_iter();
        Self { first: pieces.first().cloned(), others, left, _open: None }
    }
}

impl From<Bytes> for StaticBody {
    fn from(bytes: Bytes) -> Self {
        let left = bytes.len() as u64;
        Self { first: Some(bytes), others: Vec::new().into_iter(), left, _open: None }
    }
}

impl Body for StaticBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let piece = self.first.take().or_else(|| self.others.next());
        self.left -= piece.as_ref().map_or(0, |piece| piece.len() as u64);
        Poll::Ready(piece.map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.others.len() == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
