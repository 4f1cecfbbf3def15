use std::sync::mpsc::channel;

use tokio::time::timeout;

use super::*;

#[tokio::test]
async fn a_panic_of_either_thread_is_one_of_whoever_watches() {
    for (is_first, other_ends) in [(true, false), (false, false), (true, true), (false, true)] {
        let (queue, _recorded) = sync_channel(1);
        // Each thread waits until its sender is dropped.
        let (running, ended) = channel::<()>();
        let (start, started) = channel::<()>();
        let other = Thread::spawn("other", move || _ = ended.recv()).unwrap();
        let defect = Thread::spawn("defect", move || panic!("a defect: {:?}", started.recv())).unwrap();
        let running = (!other_ends).then_some(running);
        while other_ends && !other.handle.is_finished() {
            tokio::task::yield_now().await;
        }
        let threads = if is_first { vec![defect, other] } else { vec![other, defect] };
        let mut keeper = Keeper { queue, metrics: HistoryMetrics::default(), threads };
        let watching = tokio::spawn(async move { keeper.watch().await });
        drop(start);
        let watched = timeout(Duration::from_secs(30), watching).await.unwrap();
        assert!(watched.unwrap_err().is_panic(), "first: {is_first}, the other ends: {other_ends}");
        drop(running);
    }
}
