//! A WebSocket: the same messages as texts, and frames of the client, of which none is wanted but answers to pings.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::time::{Instant, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::CapacityError;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::frame::{CloseFrame, Frame};
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message as WsMessage};

use crate::http::live::viewer::{MESSAGE_TIMEOUT, Viewer, ViewerEvent, ViewerMessage, end_message};
use crate::sys::own_metrics::{SelfMetrics, StreamEnd};

/// The longest message of a client, in bytes. None is wanted; control frames are shorter still.
const MAX_MESSAGE_BYTES: usize = 4096;

/// Bytes that are read at once, for each viewer.
const READ_BUFFER_BYTES: usize = 4096;

/// Bytes that wait to be written, for each viewer: a fragment and its header, a pong and a close frame.
const MAX_WRITE_BUFFER_BYTES: usize = 64 * 1024;

/// Frames that a client may send between two heartbeats. It has one ping to answer.
const MAX_FRAMES: u32 = 50;

/// Bytes that a client may send between two heartbeats: answers to pings are not a hundredth of it.
const MAX_INPUT_BYTES: usize = 32 * 1024;

/// Bytes of a client that are read and dropped after the farewell, so that the farewell arrives.
const MAX_DRAINED_BYTES: usize = 256 * 1024;

/// How long a client may be silent. It answers a ping at every heartbeat.
const MAX_SILENCE: Duration = Duration::from_secs(40);

/// How long a client may take to answer a close frame.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

type ClientSocket = WebSocketStream<Metered>;

/// A connection of which only so much is read. Frames may be tiny, and some are counted nowhere.
#[derive(Debug)]
struct Metered {
    stream: TokioIo<Upgraded>,
    left: usize,
}

impl AsyncRead for Metered {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.left == 0 {
            return Poll::Ready(Err(io::ErrorKind::QuotaExceeded.into()));
        }
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.left = self.left.saturating_sub(buf.filled().len() - before);
        read
    }
}

impl AsyncWrite for Metered {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// A viewer that was let in and waits for its connection.
#[derive(Debug)]
pub(in crate::http) struct Session {
    pub(super) viewer: Viewer,
    pub(super) metrics: SelfMetrics,
}

impl Session {
    /// Serves until one of the two has enough.
    pub(in crate::http) async fn run(self, upgraded: Upgraded) {
        let Self { mut viewer, metrics } = self;
        let config = WebSocketConfig::default()
            .max_message_size(Some(MAX_MESSAGE_BYTES))
            .max_frame_size(Some(MAX_MESSAGE_BYTES))
            .read_buffer_size(READ_BUFFER_BYTES)
            .write_buffer_size(0)
            .max_write_buffer_size(MAX_WRITE_BUFFER_BYTES);
        let stream = Metered { stream: TokioIo::new(upgraded), left: MAX_INPUT_BYTES };
        let mut socket = WebSocketStream::from_raw_socket(stream, Role::Server, Some(config)).await;
        let Some(reason) = converse(&mut viewer, &mut socket).await else { return };
        metrics.stream_ended(reason);
        // The place is free from now on, whether or not the client reads the farewell.
        drop(viewer);
        let _ = timeout(CLOSE_TIMEOUT, farewell(socket, reason)).await;
    }
}

/// Tells and listens; why to end, or `None` where the client has ended it.
async fn converse(viewer: &mut Viewer, socket: &mut ClientSocket) -> Option<StreamEnd> {
    let (mut heard, mut frames) = (Instant::now(), 0);
    loop {
        tokio::select! {
            event = viewer.next() => match event {
                ViewerEvent::Message(message) => match timeout(MESSAGE_TIMEOUT, send(socket, &message)).await {
                    Ok(sent) => sent.ok()?,
                    Err(_late) => return Some(StreamEnd::TooSlow),
                },
                ViewerEvent::Heartbeat => {
                    if heard.elapsed() > MAX_SILENCE {
                        return Some(StreamEnd::Unresponsive);
                    }
                    (frames, socket.get_mut().left) = (0, MAX_INPUT_BYTES);
                    let ping = socket.send(WsMessage::Ping(Bytes::new()));
                    match timeout(MESSAGE_TIMEOUT, ping).await {
                        Ok(sent) => sent.ok()?,
                        Err(_late) => return Some(StreamEnd::TooSlow),
                    }
                }
                ViewerEvent::End(reason) => return Some(reason),
            },
            frame = socket.next() => {
                (heard, frames) = (Instant::now(), frames + 1);
                match frame? {
                    Ok(WsMessage::Ping(_) | WsMessage::Pong(_)) if frames <= MAX_FRAMES => {}
                    Ok(WsMessage::Ping(_) | WsMessage::Pong(_)) => return Some(StreamEnd::TooManyFrames),
                    Ok(WsMessage::Text(_) | WsMessage::Binary(_) | WsMessage::Frame(_)) => {
                        return Some(StreamEnd::UnexpectedMessage);
                    }
                    // The answer goes out with the next read. To send a message first would fail, and the answer be lost.
                    Ok(WsMessage::Close(_)) => {
                        let _ = timeout(CLOSE_TIMEOUT, socket.next()).await;
                        return None;
                    }
                    Err(Error::Capacity(CapacityError::MessageTooLong { .. })) => {
                        return Some(StreamEnd::MessageTooLarge);
                    }
                    Err(Error::Utf8(_)) => return Some(StreamEnd::UnexpectedMessage),
                    Err(Error::Protocol(_)) => return Some(StreamEnd::ProtocolError),
                    Err(Error::Io(error)) if error.kind() == io::ErrorKind::QuotaExceeded => {
                        return Some(StreamEnd::TooManyFrames);
                    }
                    Err(_gone) => return None,
                }
            }
        }
    }
}

/// Sends a message in fragments, so that no more than one of them is copied.
async fn send(socket: &mut ClientSocket, message: &ViewerMessage) -> Result<(), Error> {
    let mut pieces = message.pieces("", "").peekable();
    let mut code = OpCode::Data(Data::Text);
    while let Some(piece) = pieces.next() {
        let last = pieces.peek().is_none();
        socket.send(WsMessage::Frame(Frame::message(piece, code, last))).await?;
        code = OpCode::Data(Data::Continue);
    }
    Ok(())
}

/// Says why, and waits until the client has read it.
async fn farewell(mut socket: ClientSocket, reason: StreamEnd) {
    // Whether or not these arrive, it is over. In the middle of a message no other may begin.
    if reason != StreamEnd::TooSlow {
        let (json, _) = end_message(reason);
        let _ = socket.send(WsMessage::text(json)).await;
    }
    let close = CloseFrame { code: CloseCode::from(reason.close_code()), reason: reason.as_str().into() };
    let _ = socket.close(Some(close)).await;
    let Metered { mut stream, .. } = socket.into_inner();
    let _ = stream.shutdown().await;
    // Closed with something unread, the connection would be reset, and what was said last would be lost. None of it is looked
    // at.
    let (mut bytes, mut left) = ([0; READ_BUFFER_BYTES], MAX_DRAINED_BYTES);
    while let Ok(read) = stream.read(&mut bytes).await
        && read > 0
        && left > 0
    {
        left = left.saturating_sub(read);
    }
}
