//! A TCP proxy between streamlag and Redis that does on command what networks and broken servers do. A fault applies to
//! connections that are open as well as to new ones.

use std::io::{ErrorKind, Read, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use super::eventually;

/// How long a thread waits for bytes before it looks whether the fault is another.
const LOOK: Duration = Duration::from_millis(5);

/// Makes of a reply what is sent in its place. Replies are numbered from the first of their connection.
pub type Rewrite = Arc<dyn Fn(usize, &[u8]) -> Vec<u8> + Send + Sync>;

#[derive(Clone)]
pub enum Fault {
    /// Everything passes.
    None,
    /// What Redis sends comes so much later.
    Latency(Duration),
    /// It comes so many bytes at a time, a millisecond apart.
    Drip(usize),
    /// Half of what Redis sends comes, then the end of the connection.
    CutMidReply,
    /// Connections are accepted and read, and nothing is answered.
    BlackHole,
    /// Connections are accepted and reset.
    Reset,
    /// Redis's side is gone, and streamlag's side is neither read nor closed.
    HalfOpen,
    /// Nobody listens.
    Refuse,
    /// Other replies than Redis's. Connections that are open end at its beginning, so that all replies are counted.
    Replies(Rewrite),
}

struct State {
    fault: Fault,
    upstream: u16,
    /// Rises with every change.
    generation: u64,
    /// Connections from before this generation are to end.
    cut_before: u64,
    /// The generation for which the listener is as it should be.
    applied: u64,
    ended: bool,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    /// The most replies that one connection carried under [`Fault::Replies`].
    replies: AtomicUsize,
}

pub struct Proxy {
    pub port: u16,
    shared: Arc<Shared>,
    listening: Option<JoinHandle<()>>,
}

impl Proxy {
    /// In front of a Redis on this port.
    pub fn start(upstream: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = State { fault: Fault::None, upstream, generation: 0, cut_before: 0, applied: 0, ended: false };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new(), replies: 0.into() });
        let for_listener = Arc::clone(&shared);
        let listening = std::thread::spawn(move || for_listener.listen(listener, port));
        Self { port, shared, listening: Some(listening) }
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }

    /// From now on, and until the next call.
    pub fn set(&self, fault: Fault) {
        self.shared.change(|state| {
            if matches!(fault, Fault::Replies(_)) {
                state.cut_before = state.generation + 1;
            }
            state.fault = fault;
        });
    }

    /// Another Redis from now on; connections to the last one end.
    pub fn switch(&self, upstream: u16) {
        self.shared.change(|state| {
            state.upstream = upstream;
            state.cut_before = state.generation + 1;
        });
    }

    /// The most replies that one connection carried under [`Fault::Replies`].
    pub fn replies(&self) -> usize {
        self.shared.replies.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.change(|state| {
            state.ended = true;
            state.cut_before = state.generation + 1;
        });
        let _ = self.listening.take().unwrap().join();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Changes something, and waits until the listener follows.
    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state();
        change(&mut state);
        state.generation += 1;
        self.changed.notify_all();
        let generation = state.generation;
        drop(self.changed.wait_while(state, |state| state.applied < generation).unwrap());
    }

    /// Waits for so long, or until something changes.
    fn pause(&self, time: Duration) {
        let state = self.state();
        let generation = state.generation;
        drop(self.changed.wait_timeout_while(state, time, |state| state.generation == generation).unwrap());
    }

    fn listen(self: Arc<Self>, listener: TcpListener, port: u16) {
        let mut listener = Some(listener);
        loop {
            let (refuse, ended, generation) = {
                let state = self.state();
                (matches!(state.fault, Fault::Refuse), state.ended, state.generation)
            };
            if refuse || ended {
                listener = None;
            } else if listener.is_none() {
                listener = Some(eventually("the port is free again", || TcpListener::bind(("127.0.0.1", port)).ok()));
            }
            self.state().applied = generation;
            self.changed.notify_all();
            if ended {
                return;
            }
            if let Some(listener) = &listener {
                listener.set_nonblocking(true).unwrap();
                while let Ok((client, _)) = listener.accept() {
                    client.set_nonblocking(false).unwrap();
                    self.serve(client);
                }
            }
            self.pause(LOOK);
        }
    }

    fn serve(self: &Arc<Self>, client: TcpStream) {
        let (upstream, born) = {
            let state = self.state();
            (state.upstream, state.generation)
        };
        // Where Redis is gone, the client sees its connection end.
        let Ok(upstream) = TcpStream::connect(("127.0.0.1", upstream)) else { return };
        for stream in [&client, &upstream] {
            stream.set_nodelay(true).unwrap();
            stream.set_read_timeout(Some(LOOK)).unwrap();
            // A client that reads no more must not hold a thread.
            stream.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
        }
        let connection = Arc::new(Connection { shared: Arc::clone(self), client, upstream, born, done: false.into() });
        let other = Arc::clone(&connection);
        std::thread::spawn(move || other.run(Connection::questions));
        std::thread::spawn(move || connection.run(Connection::answers));
    }
}

struct Connection {
    shared: Arc<Shared>,
    client: TcpStream,
    upstream: TcpStream,
    born: u64,
    done: AtomicBool,
}

/// `None` where the connection is to end.
type Goes = Option<()>;

impl Connection {
    fn run(&self, direction: impl Fn(&Self, &mut Replies) -> Goes) {
        let mut replies = Replies::default();
        let mut goes = Some(());
        while !self.done.load(Ordering::Relaxed) && goes.is_some() {
            goes = direction(self, &mut replies);
        }
        self.done.store(true, Ordering::Relaxed);
        if matches!(self.fault(), Some(Fault::Reset)) {
            // With nothing to linger for, the last close is a reset.
            let _ = socket2::SockRef::from(&self.client).set_linger(Some(Duration::ZERO));
        } else {
            let _ = self.client.shutdown(Shutdown::Both);
        }
        let _ = self.upstream.shutdown(Shutdown::Both);
    }

    fn fault(&self) -> Option<Fault> {
        let state = self.shared.state();
        (self.born >= state.cut_before).then(|| state.fault.clone())
    }

    fn questions(&self, _: &mut Replies) -> Goes {
        match self.fault()? {
            Fault::Reset | Fault::Refuse => None,
            Fault::HalfOpen => self.half_open(),
            Fault::BlackHole => read(&self.client).map(drop),
            _ => (&self.upstream).write_all(&read(&self.client)?).ok(),
        }
    }

    fn answers(&self, replies: &mut Replies) -> Goes {
        let fault = self.fault()?;
        match fault {
            Fault::Reset | Fault::Refuse => return None,
            Fault::HalfOpen => return self.half_open(),
            Fault::BlackHole => return read(&self.upstream).map(drop),
            _ => {}
        }
        let bytes = match read(&self.upstream) {
            Some(bytes) => bytes,
            // The other direction ended it.
            None if matches!(self.fault(), Some(Fault::HalfOpen)) => return self.half_open(),
            None => return None,
        };
        if bytes.is_empty() {
            return Some(());
        }
        // What is left from a time when replies were taken apart.
        let rewrites = matches!(fault, Fault::Replies(_));
        let bytes = if rewrites { bytes } else { [std::mem::take(&mut replies.unread), bytes].concat() };
        match fault {
            Fault::Latency(time) => self.shared.pause(time),
            Fault::CutMidReply => {
                let _ = (&self.client).write_all(&bytes[..bytes.len() / 2]);
                return None;
            }
            Fault::Drip(most) => {
                for drop in bytes.chunks(most) {
                    (&self.client).write_all(drop).ok()?;
                    self.shared.pause(Duration::from_millis(1));
                }
                return Some(());
            }
            Fault::Replies(rewrite) => {
                let sent = replies.rewrite(&bytes, &*rewrite);
                self.shared.replies.fetch_max(replies.seen, Ordering::Relaxed);
                return (&self.client).write_all(&sent).ok();
            }
            _ => {}
        }
        (&self.client).write_all(&bytes).ok()
    }

    fn half_open(&self) -> Goes {
        let _ = self.upstream.shutdown(Shutdown::Both);
        while matches!(self.fault(), Some(Fault::HalfOpen)) {
            self.shared.pause(Duration::from_secs(60));
        }
        None
    }
}

/// What there is to read; nothing where nothing came, `None` at the end.
fn read(mut stream: &TcpStream) -> Option<Vec<u8>> {
    let mut bytes = [0; 64 * 1024];
    match stream.read(&mut bytes) {
        Ok(0) => None,
        Ok(length) => Some(bytes[..length].to_vec()),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Some(Vec::new()),
        Err(_) => None,
    }
}

/// The replies of a connection, taken apart no further than where each ends.
#[derive(Default)]
struct Replies {
    unread: Vec<u8>,
    seen: usize,
}

impl Replies {
    fn rewrite(&mut self, bytes: &[u8], rewrite: &dyn Fn(usize, &[u8]) -> Vec<u8>) -> Vec<u8> {
        self.unread.extend_from_slice(bytes);
        let mut sent = Vec::new();
        while let Some(length) = reply_length(&self.unread) {
            let reply: Vec<u8> = self.unread.drain(..length).collect();
            sent.extend(rewrite(self.seen, &reply));
            self.seen += 1;
        }
        sent
    }
}

/// The length of the reply that these bytes begin with; `None` where it is not all there. (RESP2, which streamlag asks for.)
fn reply_length(bytes: &[u8]) -> Option<usize> {
    let line = bytes.windows(2).position(|end| end == b"\r\n")? + 2;
    let number = || std::str::from_utf8(&bytes[1..line - 2]).unwrap().parse::<i64>().unwrap();
    match bytes[0] {
        b'$' => {
            let length = line + usize::try_from(number()).map_or(0, |length| length + 2);
            (bytes.len() >= length).then_some(length)
        }
        b'*' => (0..number())
            .try_fold(line, |length, _| Some(length + reply_length(bytes.get(length..).filter(|b| !b.is_empty())?)?)),
        _ => Some(line),
    }
}
