use tokio::time::{advance, timeout};

use super::*;
use crate::http::response_body::StaticBody;

const MIB: u64 = 1 << 20;

fn memory(limit: u64) -> ReaderMemory {
    ReaderMemory::new(limit, Gauge::default())
}

fn answer(mib: u64) -> Pieces {
    let piece = Bytes::from(vec![0; MIB as usize]);
    (0..mib).map(|_| piece.clone()).collect()
}

struct TestReader {
    connection: Arc<ConnectionState>,
    reading: Option<AnswerReading>,
}

impl TestReader {
    fn reads(memory: &ReaderMemory, pieces: &Pieces) -> Self {
        let connection = Arc::new(ConnectionState::new(None));
        let reading = Some(memory.reading(Arc::clone(pieces), connection.request()));
        Self { connection, reading }
    }

    fn has_read(&self, bytes: u64) {
        self.reading.as_ref().unwrap().sent(bytes);
    }

    async fn closed(&self) -> Option<Closed> {
        timeout(Duration::ZERO, self.connection.has_to_end()).await.ok()
    }
}

fn old(memory: &ReaderMemory) -> u64 {
    memory.held().old()
}

#[tokio::test(start_paused = true)]
async fn an_answer_counts_once_and_only_when_it_is_no_longer_the_newest() {
    let memory = memory(64 * MIB);
    let page = answer(5);
    let clients = [TestReader::reads(&memory, &page), TestReader::reads(&memory, &page)];
    assert_eq!(old(&memory), 0);
    drop(page);
    assert_eq!(old(&memory), 5 * MIB);
    let [one, other] = clients;
    drop(one);
    assert_eq!(old(&memory), 5 * MIB);
    drop(other);
    assert_eq!(old(&memory), 0);
    assert_eq!(memory.held().read, 0);
}

#[tokio::test(start_paused = true)]
async fn the_slowest_goes_first_and_no_more_than_it_takes() {
    let memory = memory(12 * MIB);
    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.push(TestReader::reads(&memory, &answer(5)));
        advance(Duration::from_secs(1)).await;
    }
    // By rate, not by age, and not by what was read in all.
    for (client, mib) in clients.iter().zip([4, 2, 3]) {
        client.has_read(mib * MIB);
    }
    assert_eq!(old(&memory), 15 * MIB);
    clients.push(TestReader::reads(&memory, &answer(5)));
    let mut closed = Vec::new();
    for client in &clients {
        closed.push(client.closed().await);
    }
    assert_eq!(closed, [None, Some(Closed::ReaderMemory), None, None]);
    assert_eq!(old(&memory), 15 * MIB);
}

#[tokio::test(start_paused = true)]
async fn answers_are_held_to_the_size_of_the_largest_too() {
    let memory = memory(1024 * MIB);
    let mut clients = Vec::new();
    for _ in 0..20 {
        clients.push(TestReader::reads(&memory, &answer(4)));
        advance(Duration::from_secs(1)).await;
    }
    // The last one was the newest when it was begun.
    assert_eq!(old(&memory), SMALL_ANSWERS + LARGEST_ANSWERS * 4 * MIB + 4 * MIB);
    assert!(clients[0].closed().await.is_some() && clients[19].closed().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn who_shares_an_answer_with_somebody_quick_is_not_closed_in_vain() {
    let memory = memory(9 * MIB);
    let shared = answer(6);
    let [quick, slow] = [TestReader::reads(&memory, &shared), TestReader::reads(&memory, &shared)];
    drop(shared);
    quick.has_read(3 * MIB);
    let alone = TestReader::reads(&memory, &answer(4));
    advance(Duration::from_secs(2)).await;
    let _next = TestReader::reads(&memory, &answer(4));
    assert_eq!((slow.closed().await, alone.closed().await), (None, Some(Closed::ReaderMemory)));
}

#[tokio::test(start_paused = true)]
async fn what_is_reserved_counts_and_makes_room_by_closing_the_slow_only() {
    let memory = memory(10 * MIB);
    let kept = memory.reserve(2 * MIB).unwrap();
    let clients = [TestReader::reads(&memory, &answer(3)), TestReader::reads(&memory, &answer(4))];
    let closed = async || [clients[0].closed().await, clients[1].closed().await];
    let mut fits = memory.reserve(MIB).unwrap();
    assert_eq!(fits.grow(MIB), Err(NoMemory), "all are young");
    advance(YOUNG).await;
    clients.iter().for_each(|client| client.has_read(QUICK));
    assert_eq!(fits.grow(MIB), Err(NoMemory), "all are quick");
    assert_eq!((fits.bytes, closed().await), (MIB, [None, None]));
    advance(YOUNG).await;
    clients[1].has_read(QUICK);
    fits.grow(MIB).unwrap();
    assert_eq!(closed().await, [Some(Closed::ReaderMemory), None]);
    drop((kept, fits));
    // Some is left for pages.
    assert!(memory.reserve(5 * MIB).is_ok() && memory.reserve(6 * MIB).is_err());
    memory.set_limit(12 * MIB);
    assert!(memory.reserve(6 * MIB).is_ok());
}

#[tokio::test(start_paused = true)]
async fn who_reads_below_the_least_rate_is_closed() {
    let memory = memory(64 * MIB);
    let page = answer(5);
    let clients = [0, LEAST_RATE - 1, LEAST_RATE].map(|rate| (rate, TestReader::reads(&memory, &page)));
    for second in 1..=3 * u64::from(RATE_WINDOW) {
        // What the kernel takes at once counts in the first window.
        let burst = if second == 1 { 2 * LEAST_RATE * u64::from(RATE_WINDOW) } else { 0 };
        for (rate, client) in &clients {
            client.has_read(rate + burst);
        }
        assert!(memory.tick(Instant::now()));
        let expected = (second >= 2 * u64::from(RATE_WINDOW)).then_some(Closed::SlowReader);
        let mut closed = Vec::new();
        for (_, client) in &clients {
            closed.push(client.connection.is_closing());
        }
        assert_eq!(closed, [expected, expected, None], "after {second} s");
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_held_until_its_last_bytes_are_written_and_no_longer() {
    let memory = memory(64 * MIB);
    let connection = Arc::new(ConnectionState::new(None));
    let mut body = StaticBody::from(&answer(1)).until_sent(connection.request(), &memory);
    let mut frames = Vec::new();
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    while let std::task::Poll::Ready(Some(Ok(frame))) =
        http_body::Body::poll_frame(std::pin::Pin::new(&mut body), &mut context)
    {
        frames.push(frame.into_data().unwrap());
    }
    drop(body);
    assert_eq!((frames.len(), frames.concat().len() as u64, old(&memory)), (16, MIB, MIB));
    let last = frames.pop();
    let sent =
        || memory.held().answers.values().map(|answer| answer.readers[0].sent.load(Ordering::Relaxed)).sum::<u64>();
    drop(frames);
    assert_eq!((old(&memory), sent()), (MIB, MIB / 16 * 15));
    drop(last);
    assert_eq!(old(&memory), 0);
}
