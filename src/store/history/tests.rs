use std::sync::mpsc::sync_channel;

use tokio::time::timeout;

use super::*;

#[tokio::test]
async fn a_panic_of_either_thread_is_one_of_whoever_watches() {
    for (is_first, other_ends) in [(true, false), (false, false), (true, true), (false, true)] {
        let (queue, _recorded) = sync_channel(1);
        // Each thread waits until its sender is dropped.
        let (running, ended) = sync_channel::<()>(1);
        let (start, started) = sync_channel::<()>(1);
        let other = Thread::spawn("other", move || _ = ended.recv()).unwrap();
        let defect = Thread::spawn("defect", move || panic!("a defect: {:?}", started.recv())).unwrap();
        let running = (!other_ends).then_some(running);
        while other_ends && !other.handle.is_finished() {
            tokio::task::yield_now().await;
        }
        let threads = if is_first { vec![defect, other] } else { vec![other, defect] };
        let mut keeper =
            Keeper { queue, metrics: HistoryMetrics::default(), threads, state: StateFile::default(), kept: None };
        let watching = tokio::spawn(async move { keeper.watch().await });
        drop(start);
        let watched = timeout(Duration::from_secs(30), watching).await.unwrap();
        assert!(watched.unwrap_err().is_panic(), "first: {is_first}, the other ends: {other_ends}");
        drop(running);
    }
}

#[tokio::test]
async fn what_is_kept_comes_back_and_who_keeps_something_holds_no_end_up() {
    use crate::store::history::state::{StateChange, StateEntry};
    let folder = tempfile::tempdir().unwrap();
    let day = Duration::from_secs(86_400);
    let config = HistoryConfig {
        path: Some(folder.path().join("history.db")),
        memory: 1 << 20,
        retention: day,
        coarse_retention: day,
        max_size: 1 << 30,
        prometheus: None,
    };
    let (_, mut keeper) = start(&config, HistoryMetrics::default()).unwrap();
    assert_eq!(keeper.kept().await, SavedState { entries: Vec::new(), generation: 1 });
    let state = keeper.state();
    let set = |key: &str| StateChange::Set("a".to_owned(), key.to_owned(), Some("1".to_owned()));
    assert_eq!(state.save(vec![set("x"), set("y")]).await, Some(1));
    tokio::task::spawn_blocking(move || keeper.end()).await.unwrap();
    // Its thread has ended, though there is still somebody who could keep something.
    assert_eq!(state.save(vec![set("z")]).await, None);

    let (_, mut keeper) = start(&config, HistoryMetrics::default()).unwrap();
    let kept = keeper.kept().await;
    let entry = |key: &str| StateEntry { area: "a".to_owned(), key: key.to_owned(), value: "1".to_owned() };
    assert_eq!(kept, SavedState { entries: vec![entry("x"), entry("y")], generation: 1 });
    tokio::task::spawn_blocking(move || keeper.end()).await.unwrap();
    // Without a file there is nothing, and nobody waits.
    let (_, mut keeper) = start(&HistoryConfig { path: None, ..config }, HistoryMetrics::default()).unwrap();
    assert!(!keeper.state().is_there());
    assert_eq!((keeper.kept().await, keeper.state().save(vec![set("x")]).await), (SavedState::default(), None));
    tokio::task::spawn_blocking(move || keeper.end()).await.unwrap();
}
