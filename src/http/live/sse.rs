//! Server-Sent Events: a response body that does not end by itself.

use bytes::Bytes;
use futures_util::Stream;
use tokio::time::Instant;

use crate::http::live::viewer::{MESSAGE_TIMEOUT, UnsentPieces, Viewer, ViewerEvent, end_message};
use crate::sys::own_metrics::{SelfMetrics, StreamEnd};

/// How long a browser waits before it reconnects, in milliseconds, unless the last event says otherwise.
const RETRY_MS: u64 = 2000;

/// A viewer that is told over HTTP, and what is left of the message that it is told.
struct EventStream {
    viewer: Viewer,
    metrics: SelfMetrics,
    pieces: UnsentPieces,
    /// When the message began.
    began: Instant,
    ended: bool,
}

/// The bytes of an event stream. It is driven by the connection, which asks for more only once there is room: a viewer
/// that does not read is not told.
pub(super) fn event_stream(viewer: Viewer, metrics: SelfMetrics) -> impl Stream<Item = Bytes> + Send {
    let hello = UnsentPieces::from(Bytes::from(format!("retry: {RETRY_MS}\n\n")));
    let stream = EventStream { viewer, metrics, pieces: hello, began: Instant::now(), ended: false };
    futures_util::stream::unfold(stream, |mut stream| async move {
        let piece = stream.next().await?;
        Some((piece, stream))
    })
}

impl EventStream {
    async fn next(&mut self) -> Option<Bytes> {
        if self.began.elapsed() > MESSAGE_TIMEOUT && !self.pieces.is_empty() {
            // In the middle of a message there is no way to say why.
            self.metrics.stream_ended(StreamEnd::TooSlow);
            return None;
        }
        if let Some(piece) = self.pieces.next() {
            return Some(piece);
        }
        if self.ended {
            return None;
        }
        self.pieces = match self.viewer.next().await {
            ViewerEvent::Heartbeat => Bytes::from_static(b": heartbeat\n\n").into(),
            ViewerEvent::Message(message) => {
                message.pieces(&format!("event: {}\ndata: ", message.kind().as_str()), "\n\n")
            }
            ViewerEvent::End(reason) => {
                self.ended = true;
                self.metrics.stream_ended(reason);
                let (json, retry) = end_message(reason);
                Bytes::from(format!("retry: {retry}\nevent: end\ndata: {json}\n\n")).into()
            }
        };
        self.began = Instant::now();
        self.pieces.next()
    }
}
