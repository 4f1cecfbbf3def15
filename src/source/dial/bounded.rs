//! A stream of replies that ends in an error before it can fill the memory.
//!
//! The redis crate reads whatever it is sent, and keeps a reply until it is whole. So each reply is followed on its way in:
//! how many bytes and values it has, what it announces, how deep it is nested. A server that is mad, or is none, costs one
//! failed sample.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes that one sample may read: twice what it means to read of large entries while their size is unknown, which is by far
/// the most it ever does. A thousand streams take some 10 MB.
pub(crate) const MAX_REPLY_BYTES: u64 = 512 * 1024 * 1024;

/// Values that one sample may read, as each takes some 50 bytes of memory, however short it is on the wire: those of 30,000
/// streams with three groups of five consumers.
pub(crate) const MAX_REPLY_VALUES: u64 = 8 * 1024 * 1024;

/// How deep replies may be nested: twice as deep as the fields of an entry lie in the answer to a transaction.
const MAX_DEPTH: usize = 8;

/// The longest line: an error, a status, a number. Redis itself cuts what it repeats to 128 bytes.
const MAX_LINE_BYTES: usize = 4096;

/// The fewest bytes of a value: `+` and a line end.
const LEAST_BYTES: u64 = 3;

/// What may still be read until the next sample begins.
#[derive(Debug)]
pub(crate) struct Meter {
    bytes: AtomicU64,
    values: AtomicU64,
    end: OnceLock<End>,
}

/// Why nothing more is read.
#[derive(Debug)]
pub(crate) enum End {
    /// It would be too much, or is no reply.
    Excess(String),
    /// Redis said this, before it was asked anything perhaps, and closed the connection. The redis crate drops what it did not
    /// ask for.
    Refused(String),
    /// The connection broke. The redis crate may have no better word for it than that it is closed.
    Broken(String),
}

impl Default for Meter {
    fn default() -> Self {
        Self { bytes: AtomicU64::new(MAX_REPLY_BYTES), values: AtomicU64::new(MAX_REPLY_VALUES), end: OnceLock::new() }
    }
}

impl Meter {
    /// A sample begins.
    pub(crate) fn renew(&self) {
        self.bytes.store(MAX_REPLY_BYTES, Ordering::Relaxed);
        self.values.store(MAX_REPLY_VALUES, Ordering::Relaxed);
    }

    /// Why nothing more is read.
    pub(crate) fn end(&self) -> Option<&End> {
        self.end.get()
    }

    fn take_bytes(&self, bytes: u64) -> Result<(), String> {
        take(&self.bytes, bytes)
            .ok_or_else(|| format!("Redis sent more than {} MiB in one sample", MAX_REPLY_BYTES / 1024 / 1024))
    }

    fn take_value(&self) -> Result<(), String> {
        take(&self.values, 1).ok_or_else(|| format!("Redis sent more than {MAX_REPLY_VALUES} values in one sample"))
    }

    fn may_come(&self, bytes: u64) -> Result<(), String> {
        let left = self.bytes.load(Ordering::Relaxed);
        let why = || format!("Redis announced {bytes} bytes, where one sample may have {left} more");
        if bytes <= left { Ok(()) } else { Err(why()) }
    }

    fn values_may_come(&self, values: u64) -> Result<(), String> {
        let left = self.values.load(Ordering::Relaxed);
        let why = || format!("Redis announced {values} values, where one sample may have {left} more");
        if values <= left { self.may_come(values * LEAST_BYTES) } else { Err(why()) }
    }
}

/// Takes what is there; `None` where that is too little.
fn take(left: &AtomicU64, amount: u64) -> Option<()> {
    left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(amount)).ok().map(drop)
}

/// Where in its replies a server is.
#[derive(Debug, Default)]
struct Follower {
    /// Bytes of a string that are still to come, its line end included.
    rest: u64,
    /// The line that is coming, as far as it came.
    line: Vec<u8>,
    /// For each array that is open, how many values it still wants.
    open: Vec<u64>,
    /// Whether anything came, and the error that was all that came.
    begun: bool,
    refusal: Option<String>,
}

impl Follower {
    fn follow(&mut self, mut bytes: &[u8], meter: &Meter) -> Result<(), String> {
        while !bytes.is_empty() {
            if self.rest > 0 {
                let now = bytes.len().min(usize::try_from(self.rest).unwrap_or(usize::MAX));
                meter.take_bytes(now as u64)?;
                self.rest -= now as u64;
                bytes = &bytes[now..];
                continue;
            }
            let end = memchr::memchr(b'\n', bytes).map_or(bytes.len(), |at| at + 1);
            meter.take_bytes(end as u64)?;
            if self.line.len() + end > MAX_LINE_BYTES {
                return Err(format!("Redis sent a line of more than {MAX_LINE_BYTES} bytes"));
            }
            self.line.extend_from_slice(&bytes[..end]);
            bytes = &bytes[end..];
            if self.line.ends_with(b"\r\n") {
                self.line_ended(meter)?;
                self.line.clear();
            }
        }
        Ok(())
    }

    /// A line says what it is by its first byte. RESP2 only, which is what is asked for.
    fn line_ended(&mut self, meter: &Meter) -> Result<(), String> {
        let junk = || "Redis sent something that is no reply".to_owned();
        let (kind, text) = self.line.split_first().ok_or_else(junk)?;
        let number = || str::from_utf8(text).ok()?.trim().parse::<i64>().ok();
        meter.take_value()?;
        let refusal = || String::from_utf8_lossy(text).trim_end().to_owned();
        self.refusal = (*kind == b'-' && !self.begun).then(refusal);
        self.begun = true;
        match kind {
            b'+' | b'-' | b':' => self.value_ended(),
            b'$' => {
                // Below 0 is null, and has no bytes.
                if let Ok(length) = u64::try_from(number().ok_or_else(junk)?) {
                    meter.may_come(length)?;
                    self.rest = length + 2;
                }
                self.value_ended();
            }
            b'*' => match u64::try_from(number().ok_or_else(junk)?) {
                Ok(1..) if self.open.len() == MAX_DEPTH => {
                    return Err(format!("Redis sent a reply that is nested more than {MAX_DEPTH} deep"));
                }
                Ok(length @ 1..) => {
                    meter.values_may_come(length)?;
                    self.open.push(length);
                }
                Ok(0) | Err(_) => self.value_ended(),
            },
            _ => return Err(junk()),
        }
        Ok(())
    }

    fn value_ended(&mut self) {
        while let Some(wanted) = self.open.last_mut() {
            *wanted -= 1;
            if *wanted > 0 {
                break;
            }
            self.open.pop();
        }
    }
}

/// A stream whose replies are followed.
#[derive(Debug)]
pub(super) struct Bounded<S> {
    stream: S,
    follower: Follower,
    meter: Arc<Meter>,
}

impl<S> Bounded<S> {
    pub(super) fn new(stream: S, meter: Arc<Meter>) -> Self {
        Self { stream, follower: Follower::default(), meter }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Bounded<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { stream, follower, meter } = &mut *self;
        if let Some(End::Excess(why)) = meter.end() {
            return Poll::Ready(Err(io::Error::other(why.clone())));
        }
        let before = buf.filled().len();
        let broken = |follower: &mut Follower, why| follower.refusal.take().map_or(End::Broken(why), End::Refused);
        let end = match ready!(Pin::new(stream).poll_read(cx, buf)) {
            Err(error) => broken(follower, error.to_string()),
            Ok(()) if buf.filled().len() == before => {
                let _ = meter.end.set(broken(follower, "Redis closed the connection".to_owned()));
                return Poll::Ready(Ok(()));
            }
            Ok(()) => match follower.follow(&buf.filled()[before..], meter) {
                Ok(()) => return Poll::Ready(Ok(())),
                Err(excess) => End::Excess(excess),
            },
        };
        // What is wrong with a reply is not to be read as one.
        buf.set_filled(before);
        let (End::Excess(why) | End::Refused(why) | End::Broken(why)) = &end;
        let error = io::Error::other(why.clone());
        let _ = meter.end.set(end);
        Poll::Ready(Err(error))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Bounded<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Follows replies in pieces of every size; all must say the same.
    fn check(replies: &[u8], expected: Result<u64, &str>) {
        for size in [1, 2, 3, 7, replies.len().max(1)] {
            let (meter, mut follower) = (Meter::default(), Follower::default());
            let followed = replies.chunks(size).try_for_each(|piece| follower.follow(piece, &meter));
            let values = MAX_REPLY_VALUES - meter.values.load(Ordering::Relaxed);
            match (followed, expected) {
                (Ok(()), Ok(expected)) => assert_eq!(values, expected, "{}", replies.escape_ascii()),
                (Err(error), Err(expected)) => assert!(error.contains(expected), "{error} lacks {expected}"),
                (followed, _) => panic!("{}: {followed:?}, expected {expected:?}", replies.escape_ascii()),
            }
            assert!(expected.is_err() || (follower.open.is_empty() && follower.rest == 0 && follower.line.is_empty()));
        }
    }

    #[test]
    fn replies_pass() {
        check(b"", Ok(0));
        check(b"+OK\r\n-ERR no\r\n:1\r\n$-1\r\n*-1\r\n*0\r\n$0\r\n\r\n", Ok(7));
        check(b"*2\r\n*2\r\n$4\r\n\r\n*9\r\n:2\r\n$1\r\nx\r\n+OK\r\n", Ok(6));
        // A line end is both its bytes.
        check(b"+a\nb\rc\r\n:2\r\n", Ok(2));
        let deep = b"*1\r\n".repeat(MAX_DEPTH);
        check(&[&deep[..], b":1\r\n", &deep[..], b"*0\r\n"].concat(), Ok(2 * MAX_DEPTH as u64 + 2));
    }

    #[test]
    fn what_would_take_too_much_is_refused_as_soon_as_it_is_announced() {
        check(b"$2147483648\r\n", Err("announced 2147483648 bytes"));
        check(b"$9223372036854775807\r\n", Err("announced 9223372036854775807 bytes"));
        check(b"*2147483647\r\n", Err("announced 2147483647 values"));
        check(b"*9223372036854775807\r\n", Err("announced 9223372036854775807 values"));
        check(&b"*1\r\n".repeat(10_000), Err("nested more than 8 deep"));
        check(&[b"-ERR ".as_slice(), &[b'x'; MAX_LINE_BYTES]].concat(), Err("a line of more than 4096 bytes"));
    }

    #[test]
    fn what_is_no_reply_is_refused() {
        for junk in ["\r\n", "HTTP/1.1 200 OK\r\n", "$x\r\n", "*\r\n", "$99999999999999999999\r\n", "%1\r\n", "_\r\n"] {
            check(junk.as_bytes(), Err("is no reply"));
        }
    }

    #[test]
    fn a_sample_reads_only_so_much_and_the_next_one_as_much_again() {
        let meter = Meter::default();
        let follow = |replies: &[u8]| Follower::default().follow(replies, &meter);
        for _ in 0..2 {
            assert_eq!(follow(b"*2\r\n:1\r\n:2\r\n"), Ok(()));
            meter.bytes.store(6, Ordering::Relaxed);
            // Neither what is announced nor what comes.
            assert!(follow(b"$3\r\nxxx").unwrap_err().contains("announced 3 bytes"));
            assert!(follow(b":123\r\n").unwrap_err().contains("more than 512 MiB in one sample"));
            meter.renew();
            meter.values.store(1, Ordering::Relaxed);
            assert!(follow(b":1\r\n:2\r\n").unwrap_err().contains("more than 8388608 values"));
            meter.renew();
            assert_eq!(meter.bytes.load(Ordering::Relaxed), MAX_REPLY_BYTES);
        }
    }

    #[test]
    fn a_value_takes_what_the_bound_says() {
        assert!(size_of::<redis::Value>() <= 56, "{}", size_of::<redis::Value>());
    }
}
