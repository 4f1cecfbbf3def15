//! Response bodies: bytes that are ready.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::room::OpenRequest;

/// A body of pieces that are there already. Its length is known, so it is never sent chunked.
#[derive(Debug)]
pub struct Ready {
    pieces: std::vec::IntoIter<Bytes>,
    left: u64,
    /// What is to last as long as this body does.
    _open: Option<OpenRequest>,
}

impl Ready {
    /// The same body, which holds its request open until it is dropped.
    pub(super) fn until_sent(self, open: OpenRequest) -> Self {
        Self { _open: Some(open), ..self }
    }
}

impl From<Vec<Bytes>> for Ready {
    fn from(pieces: Vec<Bytes>) -> Self {
        let left = pieces.iter().map(|piece| piece.len() as u64).sum();
        Self { pieces: pieces.into_iter(), left, _open: None }
    }
}

impl From<Bytes> for Ready {
    fn from(bytes: Bytes) -> Self {
        vec![bytes].into()
    }
}

impl Body for Ready {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let piece = self.pieces.next();
        self.left -= piece.as_ref().map_or(0, |piece| piece.len() as u64);
        Poll::Ready(piece.map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.pieces.len() == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
