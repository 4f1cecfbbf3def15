//! RESP over a socket: requests go out, replies come in, in the same order.
//!
//! Replies are taken off while requests are still being written, so that a server, or a proxy before it, that stops reading until
//! it is read from does not stop everything.

use std::future::{Future as _, poll_fn};
use std::io::{self, ErrorKind};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};

use crate::model::FailureReason;
use crate::model::sample::SampleError;
use crate::redis::refusals::protocol;
use crate::redis::reply_memory;
use crate::redis::resp::{DecodeBudget, Reply, ReplyReader, RespError, command};
use crate::redis::tls::described;

/// Room that is made before each read: what Redis writes at most at a time, so that few reads take it all.
const READ_BYTES: usize = 64 * 1024;

/// Bytes of replies that are taken off while requests are being written. Redis itself reads on without that.
const MAX_UNREAD_BYTES: u64 = 16 * 1024 * 1024;

/// Any kind of socket, with or without TLS.
pub(crate) trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Socket for S {}

/// A connection. Dropped, it is closed.
pub(crate) struct RespStream {
    socket: Box<dyn Socket>,
    replies: ReplyReader,
    budget: DecodeBudget,
    /// Whether it waits until there is memory for more replies.
    is_waiting: bool,
}

impl RespStream {
    /// A connection over this socket. Nothing has been sent yet.
    pub(crate) fn over(socket: Box<dyn Socket>) -> Self {
        let replies = ReplyReader::of(&reply_memory::PROCESS);
        Self { socket, replies, budget: DecodeBudget::default(), is_waiting: false }
    }

    /// A sample begins, and may read as much as any.
    pub(crate) fn begin_sample(&mut self) {
        self.budget = DecodeBudget::default();
    }

    /// Sends one command, given as its words, and waits for the answer.
    pub(crate) async fn ask(&mut self, words: &[&[u8]]) -> Result<Reply<'_>, SampleError> {
        let mut bytes = Vec::new();
        command(&mut bytes, words.iter().copied());
        if let Err(error) = self.send(&bytes).await {
            // Redis may have said why it hung up.
            return self.receive(1).await.ok().and_then(|replies| replies.iter().next()).ok_or(error);
        }
        let replies = self.receive(1).await?;
        replies.iter().next().ok_or_else(|| ended("no reply".to_owned()))
    }

    /// Sends requests.
    pub(crate) async fn send(&mut self, requests: &[u8]) -> Result<(), SampleError> {
        let mut sent = 0;
        poll_fn(|cx| self.poll_send(cx, requests, &mut sent)).await
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, requests: &[u8], sent: &mut usize) -> Poll<Result<(), SampleError>> {
        loop {
            let writing = match Pin::new(&mut self.socket).poll_write(cx, &requests[*sent..]) {
                Poll::Ready(Ok(0)) if *sent < requests.len() => return Poll::Ready(Err(closed())),
                Poll::Ready(Ok(more)) => {
                    *sent += more;
                    if *sent < requests.len() { continue } else { Pin::new(&mut self.socket).poll_flush(cx) }
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(broken(error))),
                Poll::Pending => Poll::Pending,
            };
            if let Poll::Ready(flushed) = writing {
                return Poll::Ready(flushed.map_err(broken));
            }
            // Not before there is room for more; meanwhile what is there is taken off.
            let has_room = self.replies.make_room(READ_BYTES).map_err(unreadable)?;
            if self.replies.unread() > MAX_UNREAD_BYTES || !has_room {
                return Poll::Pending;
            }
            ready!(self.poll_read(cx))?;
        }
    }

    /// How many of them are whole, and how many bytes came of the next one.
    pub(crate) fn progress(&self) -> (usize, u64) {
        (self.replies.whole(), self.replies.on_its_way())
    }

    /// Waits for this many replies.
    pub(crate) async fn receive(&mut self, wanted: usize) -> Result<&ReplyReader, SampleError> {
        self.replies.next();
        while !self.replies.read(wanted, &mut self.budget).map_err(unreadable)? {
            if self.replies.is_short() || !self.replies.make_room(READ_BYTES).map_err(unreadable)? {
                self.is_waiting = true;
                self.replies.wait_for_memory().await;
                self.is_waiting = false;
                continue;
            }
            poll_fn(|cx| self.poll_read(cx)).await?;
        }
        Ok(&self.replies)
    }

    /// Whether it waits until other connections have read their replies, as there is no memory for more.
    pub(crate) fn is_waiting_for_memory(&self) -> bool {
        self.is_waiting
    }

    /// Gives back the memory of large replies that were read; whether there were any.
    pub(crate) fn release(&mut self) -> bool {
        let is_large = self.replies.is_counted();
        if is_large {
            self.replies.next();
        }
        is_large
    }

    /// A sample ends.
    pub(crate) fn end_sample(&mut self) {
        self.replies.rest();
    }

    /// There is room for more.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), SampleError>> {
        let buffer = self.replies.buffer();
        match ready!(pin!(self.socket.read_buf(buffer)).poll(cx)) {
            Ok(0) => return Poll::Ready(Err(closed())),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Poll::Ready(Err(closed())),
            Err(error) => return Poll::Ready(Err(broken(error))),
        }
        let unread = self.replies.unread();
        Poll::Ready(self.budget.may_come(unread).map_err(unreadable))
    }
}

fn closed() -> SampleError {
    ended("Redis closed the connection".to_owned())
}

fn broken(error: io::Error) -> SampleError {
    ended(described(&error))
}

fn ended(detail: String) -> SampleError {
    SampleError { reason: FailureReason::Io, detail }
}

/// What came is more than may come, or is no reply.
fn unreadable(error: RespError) -> SampleError {
    protocol(&error.to_string())
}

/// The same error, of the first words on a connection: one that ends while it is being made was not made.
pub(crate) fn while_connecting(error: SampleError) -> SampleError {
    match error.reason {
        FailureReason::Io => SampleError { reason: FailureReason::Connect, ..error },
        _ => error,
    }
}
