//! Connection admission: tracks open connections, enforces timeouts per phase, and evicts from the client with the most when full.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::io::{self, IoSlice};
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use prometheus_client::metrics::gauge::Gauge;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, timeout};

use crate::http::rate_limit::client_key;
use crate::sys::own_metrics::Closed;

/// Connections open at a time. Prometheus keeps one, people and probes a handful; at some 20 kB each, this many cost
/// 20 MB.
pub(super) const MAX_CONNECTIONS: usize = 1024;

/// How long a client may take from its connection to its first request, TLS included, and from the first byte of a
/// request's head to the last. A round trip takes milliseconds.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a connection may be idle between requests: twice the longest usual scrape interval, so that a scraper keeps
/// its connection.
const IDLE_TIMEOUT: Duration = Duration::from_secs(120);

/// How long a client may take to read its answers. A page of 10 MB takes 170 kB/s; scrapers give up after ten seconds.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// A client that reads its answer for longer may lose its place to a waiting client. Usual ones take milliseconds.
const SLOW_ANSWER: Duration = Duration::from_secs(1);

/// The share of an address's places that it loses at once when there are too many connections, as to look for them takes
/// time: an eighth.
const EVICTED_SHARE: usize = 8;

/// Connections of an address that are not closed for others once a client has logged in over them. The address may be shut out from new
/// logins by guessers who share it, so these are all that such a client has. A scraper has one.
const KEPT_KNOWN: usize = 8;

/// How long a connection that was made just before the end may take to its first request.
const FIRST_REQUEST: Duration = Duration::from_secs(1);

/// How often a connection looks at its clock, and thus how late it may be closed.
const CLOCK: Duration = Duration::from_secs(1);

/// Interval of retries for a place while all are taken by clients that read.
const NO_PLACE: Duration = Duration::from_millis(50);

/// Where connections have their places.
#[derive(Debug)]
pub(super) struct ConnectionLimiter {
    slots: Arc<Semaphore>,
    open: Mutex<OpenConnections>,
    /// How many are open.
    count: Gauge,
}

#[derive(Debug, Default)]
struct OpenConnections {
    next: u64,
    places: HashMap<u64, (IpAddr, Arc<ConnectionState>)>,
    /// Those that were evicted last, no longer among `places`. Some may still hold theirs.
    evicted: Vec<Arc<ConnectionState>>,
}

/// A connection's place; dropping it leaves the room.
#[derive(Debug)]
pub(super) struct ConnectionPermit {
    id: u64,
    limiter: Arc<ConnectionLimiter>,
    pub(super) activity: Arc<ConnectionState>,
}

impl ConnectionLimiter {
    /// A limiter with this many permits, which reports how many are taken.
    pub(super) fn new(places: usize, count: Gauge) -> Self {
        Self { slots: Arc::new(Semaphore::new(places)), open: Mutex::default(), count }
    }

    /// Gives a new connection its place. Where all are taken, one that waits for its client is closed: of the address that
    /// holds most places, one that never asked for anything, else the one that has waited longest. So a client with many connections loses its own.
    pub(super) async fn admit(self: &Arc<Self>, address: IpAddr) -> Option<ConnectionPermit> {
        loop {
            if self.slots.available_permits() == 0 {
                self.evict(Instant::now());
            }
            // What was evicted leaves as soon as its task is run.
            match timeout(NO_PLACE, Arc::clone(&self.slots).acquire_owned()).await {
                Ok(Ok(slot)) => return Some(self.take(address, slot)),
                Ok(Err(_closed)) => return None,
                Err(_) => {}
            }
        }
    }

    /// How many connections there are.
    pub(super) fn open_connections(&self) -> usize {
        self.open().places.len()
    }

    fn take(self: &Arc<Self>, address: IpAddr, slot: OwnedSemaphorePermit) -> ConnectionPermit {
        let activity = Arc::new(ConnectionState::new(Some(slot)));
        let mut open = self.open();
        open.next += 1;
        let id = open.next;
        open.places.insert(id, (client_key(address), Arc::clone(&activity)));
        self.count.inc();
        ConnectionPermit { id, limiter: Arc::clone(self), activity }
    }

    fn evict(&self, now: Instant) {
        let mut open = self.open();
        // On a busy machine they leave more slowly than new ones come: more of them for each new one would soon be clients that read.
        if open.evicted.iter().any(|activity| activity.holds_slot()) {
            return;
        }
        open.evicted.clear();
        let mut counts: HashMap<IpAddr, usize> = HashMap::new();
        let mut known: HashMap<IpAddr, usize> = HashMap::new();
        for (address, activity) in open.places.values() {
            *counts.entry(*address).or_default() += 1;
            *known.entry(*address).or_default() += usize::from(activity.is_known());
        }
        let is_kept = |address: &IpAddr, activity: &ConnectionState| {
            activity.is_known() && known.get(address).is_some_and(|known| *known <= KEPT_KNOWN)
        };
        // Where others have no time to lose theirs, a client that has logged in keeps its place nevertheless.
        let all_are_kept = open.places.values().all(|(address, activity)| is_kept(address, activity));
        let waiting = open.places.iter().filter_map(|(id, (address, activity))| {
            let since = activity.waits_since(now).filter(|_| all_are_kept || !is_kept(address, activity))?;
            Some((Reverse(*counts.get(address)?), activity.has_asked(), since, *address, *id))
        });
        let mut waiting: Vec<_> = waiting.collect();
        waiting.sort_unstable();
        let Some(&(Reverse(count), .., heaviest, _)) = waiting.first() else { return };
        let own = waiting.iter().filter(|(.., address, _)| *address == heaviest);
        for (.., id) in own.take((count / EVICTED_SHARE).max(1)) {
            if let Some((_, activity)) = open.places.remove(id) {
                activity.close(Closed::Evicted);
                open.evicted.push(activity);
            }
        }
    }

    fn open(&self) -> MutexGuard<'_, OpenConnections> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.limiter.open().places.remove(&self.id);
        self.limiter.count.dec();
        self.activity.give_up_slot();
    }
}

/// What a connection is at.
#[derive(Debug)]
pub(super) struct ConnectionState {
    state: Mutex<PhaseState>,
    /// Its place among the connections; a connection of a viewer has one among the viewers instead.
    slot: Mutex<Option<OwnedSemaphorePermit>>,
    /// Told of the reason for which it is to be closed at once.
    closing: Notify,
    /// Told of the first request.
    opened: Notify,
}

#[derive(Debug)]
struct PhaseState {
    stage: Phase,
    /// When the stage began; of answers, when the oldest request came of those that are open, or were when all bytes had last
    /// gone out.
    since: Instant,
    /// The open requests, by their number, and when they came.
    open: Vec<(u64, Instant)>,
    /// Requests that are answered by a stream, and when more of it was last asked for.
    streams: Vec<(u64, Instant)>,
    requests: u64,
    /// Whether what is read between requests is the head of the next one. Over HTTP/2 it may be anything.
    reads_heads: bool,
    /// Why it is to be closed at once.
    closing: Option<Closed>,
    /// Whether its client has logged in.
    is_known: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// No whole request has come yet.
    Opening,
    /// Between requests.
    Idle,
    /// A part of a request's head has come.
    Head,
    /// Requests are being answered, or the bytes of answers have still to go out.
    Answering,
    /// It is no longer HTTP: a viewer's WebSocket, which has clocks of its own.
    Upgraded,
}

impl ConnectionState {
    pub(super) fn new(slot: Option<OwnedSemaphorePermit>) -> Self {
        let (stage, since) = (Phase::Opening, Instant::now());
        let state = PhaseState {
            stage,
            since,
            open: Vec::new(),
            streams: Vec::new(),
            requests: 0,
            reads_heads: true,
            closing: None,
            is_known: false,
        };
        Self { state: Mutex::new(state), slot: Mutex::new(slot), closing: Notify::new(), opened: Notify::new() }
    }

    /// Waits for the first request, but not for long: its client may have made the connection only to have it.
    pub(super) async fn first_request(&self) {
        if self.state().stage == Phase::Opening {
            // Whichever it is.
            let _ = timeout(FIRST_REQUEST, self.opened.notified()).await;
        }
    }

    /// Waits until the connection has to be closed.
    pub(super) async fn has_to_end(&self) -> Closed {
        loop {
            tokio::select! {
                () = self.closing.notified() => {}
                () = sleep(CLOCK) => {}
            }
            if let Some(closed) = self.state().overdue(Instant::now()) {
                return closed;
            }
        }
    }

    /// Has it closed at once, for this reason.
    pub(super) fn close(&self, why: Closed) {
        self.state().closing.get_or_insert(why);
        self.closing.notify_one();
    }

    /// Why it is to be closed at once.
    #[cfg(test)]
    pub(super) fn is_closing(&self) -> Option<Closed> {
        self.state().closing
    }

    /// HTTP/2 was agreed on.
    pub(super) fn is_http2(&self) {
        self.state().reads_heads = false;
    }

    /// A request has come whole. It is open until what is returned is dropped.
    pub(super) fn request(self: &Arc<Self>) -> OpenRequest {
        let mut state = self.state();
        let now = Instant::now();
        if state.stage == Phase::Opening {
            self.opened.notify_one();
        }
        // Beside streams alone nothing has been waited for.
        if state.stage != Phase::Answering || state.open.is_empty() && !state.streams.is_empty() {
            (state.stage, state.since) = (Phase::Answering, now);
        }
        state.requests += 1;
        let number = state.requests;
        state.open.push((number, now));
        OpenRequest { activity: Arc::clone(self), number }
    }

    /// It is a viewer's WebSocket from now on.
    pub(super) fn is_upgraded(&self) {
        self.state().stage = Phase::Upgraded;
        self.give_up_slot();
    }

    /// Leaves its place among the connections to others.
    fn give_up_slot(&self) {
        drop(self.slot.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    fn holds_slot(&self) -> bool {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    fn read(&self) {
        let mut state = self.state();
        if state.stage == Phase::Idle && state.reads_heads {
            (state.stage, state.since) = (Phase::Head, Instant::now());
        }
    }

    /// Everything that was written has gone out.
    fn flushed(&self) {
        let mut state = self.state();
        if state.stage == Phase::Answering && state.is_done() {
            (state.stage, state.since) = (Phase::Idle, Instant::now());
        }
    }

    /// Since when it has waited for its client; `None` where it is busy.
    fn waits_since(&self, now: Instant) -> Option<Instant> {
        let state = self.state();
        if state.stage == Phase::Upgraded || state.is_stream_alone() {
            return None;
        }
        let busy = state.stage == Phase::Answering;
        (!busy || now.saturating_duration_since(state.since) > SLOW_ANSWER).then_some(state.since)
    }

    /// Whether its client has logged in.
    pub(super) fn set_known(&self, is_known: bool) {
        self.state().is_known = is_known;
    }

    fn is_known(&self) -> bool {
        self.state().is_known
    }

    /// Whether a request has ever come.
    fn has_asked(&self) -> bool {
        self.state().requests > 0
    }

    fn state(&self) -> MutexGuard<'_, PhaseState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PhaseState {
    fn is_done(&self) -> bool {
        self.open.is_empty() && self.streams.is_empty()
    }

    /// Whether all that is open are streams.
    fn is_stream_alone(&self) -> bool {
        self.open.is_empty() && !self.streams.is_empty()
    }

    fn overdue(&self, now: Instant) -> Option<Closed> {
        if self.closing.is_some() {
            return self.closing;
        }
        // A stream is asked for more at every heartbeat, unless its client does not read.
        let stalled = |(_, asked): &(u64, Instant)| now.saturating_duration_since(*asked) >= ANSWER_TIMEOUT;
        if self.streams.iter().any(stalled) {
            return Some(Closed::AnswerTimeout);
        }
        if self.stage == Phase::Upgraded || self.is_stream_alone() {
            return None;
        }
        let (limit, closed) = match self.stage {
            Phase::Opening | Phase::Head => (HEAD_TIMEOUT, Closed::HeadTimeout),
            Phase::Idle => (IDLE_TIMEOUT, Closed::IdleTimeout),
            Phase::Answering | Phase::Upgraded => (ANSWER_TIMEOUT, Closed::AnswerTimeout),
        };
        (now.saturating_duration_since(self.since) >= limit).then_some(closed)
    }
}

/// A request that is being answered.
#[derive(Debug)]
pub(super) struct OpenRequest {
    activity: Arc<ConnectionState>,
    number: u64,
}

impl OpenRequest {
    /// The connection that it came over.
    pub(super) fn connection(&self) -> Arc<ConnectionState> {
        Arc::clone(&self.activity)
    }

    /// It is answered by a stream: a class of its own. It is in no hurry, and is bounded by the number of viewers.
    pub(super) fn is_stream(&mut self) {
        let mut state = self.activity.state();
        state.open.retain(|(number, _)| *number != self.number);
        state.streams.push((self.number, Instant::now()));
        // Over HTTP/1 the connection is the stream's alone. Over HTTP/2 it goes on being a connection.
        let is_own = state.reads_heads;
        drop(state);
        if is_own {
            self.activity.give_up_slot();
        }
    }

    /// More of the stream is asked for.
    pub(super) fn asked_for_more(&self) {
        let mut state = self.activity.state();
        if let Some((_, asked)) = state.streams.iter_mut().find(|(number, _)| *number == self.number) {
            *asked = Instant::now();
        }
    }
}

impl Drop for OpenRequest {
    fn drop(&mut self) {
        let mut state = self.activity.state();
        let streams = state.streams.len();
        state.streams.retain(|(number, _)| *number != self.number);
        if state.streams.len() < streams && state.is_done() {
            state.since = Instant::now();
        }
        state.open.retain(|(number, _)| *number != self.number);
        // Over HTTP/2 others may still be open, and the oldest of them counts: a client that does not read one answer gains
        // nothing by reading others.
        if let Some(oldest) = state.open.iter().map(|(_, came)| *came).min() {
            state.since = oldest;
        }
    }
}

/// A stream that tells what passes over it.
#[derive(Debug)]
pub(super) struct TrackedIo<S> {
    pub(super) stream: S,
    pub(super) activity: Arc<ConnectionState>,
}

impl<S: AsyncRead + Unpin> AsyncRead for TrackedIo<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.activity.read();
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for TrackedIo<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        if flushed.is_ready() {
            self.activity.flushed();
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::advance;

    fn address(last: u8) -> IpAddr {
        [192, 0, 2, last].into()
    }

    async fn is_evicted(place: &ConnectionPermit) -> bool {
        timeout(Duration::ZERO, place.activity.closing.notified()).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_holds_most_loses_what_waited_longest() {
        let limiter = Arc::new(ConnectionLimiter::new(4, Gauge::default()));
        let other = limiter.admit(address(1)).await.unwrap();
        let mut many = Vec::new();
        for _ in 0..3 {
            advance(Duration::from_millis(1)).await;
            many.push(limiter.admit(address(2)).await.unwrap());
        }
        // The oldest of the many is being answered, so the second oldest goes.
        let answering = many[0].activity.request();
        let admitting = tokio::spawn({
            let limiter = Arc::clone(&limiter);
            async move { limiter.admit(address(3)).await }
        });
        tokio::task::yield_now().await;
        assert!(is_evicted(&many[1]).await && !is_evicted(&many[2]).await && !is_evicted(&many[0]).await);
        assert!(!is_evicted(&other).await && !admitting.is_finished());
        many.remove(1);
        assert!(admitting.await.unwrap().is_some());
        drop(answering);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_else_is_evicted_while_those_that_were_are_leaving() {
        let places = 16;
        let limiter = Arc::new(ConnectionLimiter::new(places, Gauge::default()));
        let mut silent = Vec::new();
        for _ in 0..places {
            silent.push(limiter.admit(address(1)).await.unwrap());
            advance(Duration::from_millis(1)).await;
        }
        // Longer than `SLOW_ANSWER`.
        let scraper = silent.pop().unwrap();
        let scrape = scraper.activity.request();
        advance(Duration::from_secs(2)).await;
        // One that waits for a place looks for one again and again.
        for _ in 0..places {
            limiter.evict(Instant::now());
        }
        let evicted = silent.iter().filter(|place| place.activity.is_closing().is_some()).count();
        assert_eq!(evicted, places / EVICTED_SHARE);
        assert_eq!(scraper.activity.is_closing(), None);
        // When they are gone, others may have to go.
        silent.retain(|place| place.activity.is_closing().is_none());
        limiter.evict(Instant::now());
        assert!(silent.iter().any(|place| place.activity.is_closing().is_some()));
        drop(scrape);
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_logged_in_keeps_its_place_up_to_a_number() {
        let limiter = Arc::new(ConnectionLimiter::new(KEPT_KNOWN + 2, Gauge::default()));
        let mut known = Vec::new();
        for _ in 0..KEPT_KNOWN {
            let place = limiter.admit(address(1)).await.unwrap();
            drop(place.activity.request());
            place.activity.flushed();
            place.activity.set_known(true);
            known.push(place);
            advance(Duration::from_millis(1)).await;
        }
        let mut other = limiter.admit(address(1)).await.unwrap();
        let busy = limiter.admit(address(1)).await.unwrap();
        let request = busy.activity.request();
        limiter.evict(Instant::now());
        assert!(is_evicted(&other).await);
        drop(other);
        limiter.evict(Instant::now());
        for place in &known {
            assert!(!is_evicted(place).await, "the last one will have time in a moment");
        }
        drop((request, busy));
        // With more, they are as those of any other client.
        other = limiter.admit(address(1)).await.unwrap();
        other.activity.set_known(true);
        limiter.evict(Instant::now());
        assert!(is_evicted(&other).await || is_evicted(&known[0]).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_reads_keeps_its_place_for_a_while() {
        let limiter = Arc::new(ConnectionLimiter::new(1, Gauge::default()));
        let place = limiter.admit(address(1)).await.unwrap();
        let request = place.activity.request();
        advance(Duration::from_millis(1000)).await;
        limiter.evict(Instant::now());
        assert!(!is_evicted(&place).await);
        drop(request);
        limiter.evict(Instant::now());
        assert!(!is_evicted(&place).await, "its last bytes are on their way");
        advance(Duration::from_millis(1)).await;
        limiter.evict(Instant::now());
        assert!(is_evicted(&place).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_has_no_time_but_has_to_be_read() {
        let limiter = Arc::new(ConnectionLimiter::new(1, Gauge::default()));
        let place = limiter.admit(address(1)).await.unwrap();
        let mut request = place.activity.request();
        request.is_stream();
        // Its place among the connections is free, and the connection is not evicted.
        let other = limiter.admit(address(2)).await.unwrap();
        for _ in 0..100 {
            advance(Duration::from_secs(15)).await;
            request.asked_for_more();
            assert_eq!(place.activity.state().overdue(Instant::now()), None);
        }
        assert_eq!(place.activity.waits_since(Instant::now()), None);
        advance(ANSWER_TIMEOUT).await;
        assert_eq!(place.activity.state().overdue(Instant::now()), Some(Closed::AnswerTimeout));
        drop(other);
        // What comes behind it is held to what other answers are.
        drop(request);
        advance(Duration::from_secs(59)).await;
        assert_eq!(place.activity.state().overdue(Instant::now()), None);
        place.activity.flushed();
        advance(IDLE_TIMEOUT).await;
        assert_eq!(place.activity.state().overdue(Instant::now()), Some(Closed::IdleTimeout));
    }

    #[tokio::test(start_paused = true)]
    async fn requests_beside_a_stream_have_their_time_and_the_connection_its_place() {
        let limiter = Arc::new(ConnectionLimiter::new(1, Gauge::default()));
        let place = limiter.admit(address(1)).await.unwrap();
        place.activity.is_http2();
        let mut stream = place.activity.request();
        stream.is_stream();
        assert_eq!(limiter.slots.available_permits(), 0, "an HTTP/2 connection goes on being one");
        advance(Duration::from_secs(50)).await;
        stream.asked_for_more();
        let request = place.activity.request();
        advance(Duration::from_secs(59)).await;
        stream.asked_for_more();
        assert_eq!(place.activity.state().overdue(Instant::now()), None);
        advance(Duration::from_secs(1)).await;
        assert_eq!(place.activity.state().overdue(Instant::now()), Some(Closed::AnswerTimeout));
        drop(request);
        assert_eq!(place.activity.state().overdue(Instant::now()), None);
        // A WebSocket keeps its own time.
        place.activity.is_upgraded();
        drop(stream);
        advance(10 * IDLE_TIMEOUT).await;
        assert_eq!(place.activity.state().overdue(Instant::now()), None);
    }

    #[tokio::test(start_paused = true)]
    async fn every_stage_has_its_time() {
        let ends_after = async |activity: &ConnectionState| {
            let began = Instant::now();
            let closed = activity.has_to_end().await;
            (closed, began.elapsed().as_secs())
        };
        let activity = Arc::new(ConnectionState::new(None));
        activity.read();
        assert_eq!(ends_after(&activity).await, (Closed::HeadTimeout, 10));

        let activity = Arc::new(ConnectionState::new(None));
        let request = activity.request();
        advance(Duration::from_secs(30)).await;
        drop(request);
        // The last bytes have not gone out yet, and to ask again is no way out.
        drop(activity.request());
        assert_eq!(ends_after(&activity).await, (Closed::AnswerTimeout, 30));
        activity.flushed();
        assert_eq!(ends_after(&activity).await, (Closed::IdleTimeout, 120));

        let activity = Arc::new(ConnectionState::new(None));
        drop(activity.request());
        activity.flushed();
        advance(Duration::from_secs(100)).await;
        // A byte of the next head now and then does not help.
        activity.read();
        advance(Duration::from_secs(5)).await;
        activity.read();
        assert_eq!(ends_after(&activity).await, (Closed::HeadTimeout, 5));

        let activity = Arc::new(ConnectionState::new(None));
        activity.is_http2();
        drop(activity.request());
        activity.flushed();
        advance(Duration::from_secs(100)).await;
        activity.read();
        assert_eq!(ends_after(&activity).await, (Closed::IdleTimeout, 20));
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_is_not_read_counts_though_others_are() {
        let activity = Arc::new(ConnectionState::new(None));
        activity.is_http2();
        let stalled = activity.request();
        for _ in 0..59 {
            advance(Duration::from_secs(1)).await;
            drop(activity.request());
            activity.flushed();
        }
        assert!(activity.waits_since(Instant::now()).is_some());
        advance(Duration::from_secs(1)).await;
        assert_eq!(activity.state().overdue(Instant::now()), Some(Closed::AnswerTimeout));
        drop(stalled);
    }

    #[tokio::test(start_paused = true)]
    async fn who_never_asked_goes_first_and_then_who_has_waited_longest() {
        let limiter = Arc::new(ConnectionLimiter::new(3, Gauge::default()));
        let mut places = Vec::new();
        // The lowest address came last.
        for last in [3, 2, 1] {
            let place = limiter.admit(address(last)).await.unwrap();
            drop(place.activity.request());
            place.activity.flushed();
            places.push(place);
            advance(Duration::from_millis(1)).await;
        }
        limiter.evict(Instant::now());
        assert!(is_evicted(&places[0]).await && !is_evicted(&places[1]).await && !is_evicted(&places[2]).await);
        places.remove(0);
        let silent = limiter.admit(address(4)).await.unwrap();
        limiter.evict(Instant::now());
        assert!(is_evicted(&silent).await && !is_evicted(&places[0]).await);
    }
}
