//! Between a streamlag and its Redis: holds the next act back, or its answer, so that it can be killed at that step; or spoils the answer.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::eventually;

/// Everything passes.
pub const OPEN: u8 = 0;
/// The next act is held, and dropped at the end.
pub const DROPS_ACT: u8 = 1;
/// The next act is held, and passes once streamlag is gone.
pub const DELAYS_ACT: u8 = 2;
/// The next act passes, its answer is held.
pub const HOLDS_ANSWER: u8 = 3;
/// The next act passes, its connection is cut before it is answered.
pub const CUTS_ANSWER: u8 = 4;
/// The next act passes, and is answered in another way.
const SPOILS_ANSWER: u8 = 5;
/// It is gone.
const ENDED: u8 = 6;

const LOOK: Duration = Duration::from_millis(2);

struct Shared {
    mode: AtomicU8,
    caught: AtomicBool,
    /// What an act is answered with instead.
    spoiled: Mutex<&'static [u8]>,
}

pub struct Gate {
    pub port: u16,
    shared: Arc<Shared>,
}

impl Gate {
    /// In front of a server on this port.
    pub fn start(upstream: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Shared { mode: AtomicU8::new(OPEN), caught: AtomicBool::new(false), spoiled: Mutex::default() };
        let shared = Arc::new(shared);
        let of_listener = Arc::clone(&shared);
        std::thread::spawn(move || {
            for near in listener.incoming().map_while(Result::ok) {
                if of_listener.mode.load(Ordering::Relaxed) == ENDED {
                    return;
                }
                let Ok(far) = TcpStream::connect(("127.0.0.1", upstream)) else { continue };
                let [one, other] = [(); 2].map(|()| Arc::clone(&of_listener));
                let acts = Arc::new(AtomicBool::new(false));
                let (told, from, to) = (Arc::clone(&acts), near.try_clone().unwrap(), far.try_clone().unwrap());
                std::thread::spawn(move || one.requests(from, to, &told));
                std::thread::spawn(move || other.answers(far, near, &acts));
            }
        });
        Self { port, shared }
    }

    /// What happens to the next act.
    pub fn set(&self, mode: u8) {
        self.shared.caught.store(false, Ordering::Relaxed);
        self.shared.mode.store(mode, Ordering::Relaxed);
    }

    /// The next act is answered with this.
    pub fn spoil(&self, answer: &'static [u8]) {
        *self.shared.spoiled.lock().unwrap() = answer;
        self.set(SPOILS_ANSWER);
    }

    /// Whether an act is held at the moment, or its answer.
    pub fn has_caught(&self) -> bool {
        self.shared.caught.load(Ordering::Relaxed)
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.set(ENDED);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

impl Shared {
    /// Holds until the mode is another; whether it is still the same at the end.
    fn hold(&self, mode: u8) {
        self.caught.store(true, Ordering::Relaxed);
        while self.mode.load(Ordering::Relaxed) == mode {
            std::thread::sleep(LOOK);
        }
    }

    fn requests(&self, mut from: TcpStream, mut to: TcpStream, acts: &AtomicBool) {
        let mut bytes = [0; 16 * 1024];
        while let Ok(read @ 1..) = from.read(&mut bytes) {
            let is_act = bytes[..read].windows(7).any(|word| word == b"EVALSHA");
            acts.fetch_or(is_act, Ordering::Relaxed);
            let mode = self.mode.load(Ordering::Relaxed);
            if is_act && (mode == DROPS_ACT || mode == DELAYS_ACT) {
                self.hold(mode);
                if mode == DROPS_ACT {
                    break;
                }
            }
            if to.write_all(&bytes[..read]).is_err() {
                break;
            }
        }
        // What was sent is still answered.
        let _ = to.shutdown(Shutdown::Write);
    }

    fn answers(&self, mut from: TcpStream, mut to: TcpStream, acts: &AtomicBool) {
        let mut bytes = [0; 64 * 1024];
        while let Ok(read @ 1..) = from.read(&mut bytes) {
            let mode = self.mode.load(Ordering::Relaxed);
            // Scripts answer with four things. Before that, one may not be known yet, and is then sent.
            let is_answer = acts.load(Ordering::Relaxed) && bytes[..read].starts_with(b"*4\r\n");
            let mut answer = &bytes[..read];
            match mode {
                HOLDS_ANSWER if is_answer => self.hold(mode),
                CUTS_ANSWER if is_answer => break,
                SPOILS_ANSWER if is_answer => answer = *self.spoiled.lock().unwrap(),
                _ => {}
            }
            if to.write_all(answer).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Both);
        let _ = from.shutdown(Shutdown::Both);
    }
}

/// Waits for what one of them catches, so long.
pub fn caught_within(gates: &[Gate], time: Duration) -> bool {
    let deadline = std::time::Instant::now() + time;
    let has_caught = || gates.iter().any(Gate::has_caught);
    eventually("an act, or the end of the wait", || {
        (has_caught() || std::time::Instant::now() >= deadline).then(has_caught)
    })
}
