//! A connection that a thread of its own reads and writes, while the poller's thread has its time for what is in the answers.
//!
//! Linux likes to wake whoever waits for bytes on the very processor that has just sent them, through epoll since 6.13. A Redis on
//! the same machine and a poller that waits for it then take turns on one processor, even where another is idle, and a sample takes
//! as long as both together. Here it is a thread that only moves bytes that is woken so, and it wakes the poller, which is
//! left where it was: docs/performance.md has what that saves.

use std::io;
use std::pin::Pin;
use std::sync::OnceLock;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf, copy_bidirectional, duplex};
use tokio::net::{TcpStream, UnixStream};
use tokio::runtime::{Builder, Handle};
use tokio::task::JoinSet;

/// Bytes between the two threads, either way: some answers ahead of the poller.
const ROOM: usize = 256 * 1024;

/// The poller's end.
pub(crate) struct OffloadedStream {
    inner: DuplexStream,
    /// Closes the connection when it is dropped.
    _pump: JoinSet<()>,
}

impl OffloadedStream {
    /// Has this thread move the bytes of a connection.
    ///
    /// # Errors
    /// Where the socket cannot be taken from one thread to the other; then the connection is lost.
    pub(crate) fn tcp(socket: TcpStream, thread: &Handle) -> io::Result<Self> {
        let socket = socket.into_std()?;
        Ok(Self::of(async { TcpStream::from_std(socket) }, thread))
    }

    /// The same for a socket in the file system.
    ///
    /// # Errors
    /// As above.
    pub(crate) fn unix(socket: UnixStream, thread: &Handle) -> io::Result<Self> {
        let socket = socket.into_std()?;
        Ok(Self::of(async { UnixStream::from_std(socket) }, thread))
    }

    /// `there` makes the socket one of the other thread.
    fn of<S>(there: impl Future<Output = io::Result<S>> + Send + 'static, thread: &Handle) -> Self
    where
        S: AsyncRead + AsyncWrite + Send + Unpin,
    {
        let (inner, mut outer) = duplex(ROOM);
        let mut pump = JoinSet::new();
        let moving = async move {
            let moved = match there.await {
                Ok(mut socket) => copy_bidirectional(&mut socket, &mut outer).await,
                Err(error) => Err(error),
            };
            // The poller sees no more than that the connection is at its end.
            if let Err(error) = moved {
                tracing::debug!(%error, "a connection to Redis broke");
            }
        };
        pump.spawn_on(moving, thread);
        Self { inner, _pump: pump }
    }
}

/// The thread that moves bytes, one for all connections. `None` where there is none to be had: it is tried once.
pub(crate) fn thread() -> Option<&'static Handle> {
    static THREAD: OnceLock<Option<Handle>> = OnceLock::new();
    let started = THREAD.get_or_init(|| {
        let handle = start();
        if let Err(error) = &handle {
            tracing::warn!(%error, "cannot start the I/O thread; sampling many streams takes longer");
        }
        handle.ok()
    });
    started.as_ref()
}

fn start() -> io::Result<Handle> {
    let (started, handle) = std::sync::mpsc::sync_channel(1);
    // Made where it runs: a poller's thread, which waits for others, may not even drop it.
    let run = move || match Builder::new_current_thread().enable_io().build() {
        Ok(runtime) => {
            let _ = started.send(Ok(runtime.handle().clone()));
            runtime.block_on(std::future::pending::<()>());
        }
        Err(error) => drop(started.send(Err(error))),
    };
    std::thread::Builder::new().name("pump".to_owned()).spawn(run)?;
    handle.recv().map_err(io::Error::other)?
}

impl AsyncRead for OffloadedStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl AsyncWrite for OffloadedStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
