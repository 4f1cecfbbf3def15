use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use prometheus_client::metrics::gauge::Gauge;
use tokio::time::Instant;

use super::*;
use crate::analysis::view::View;
use crate::exposition::encoding::{EncodedPage, Page};

fn published() -> Arc<Published> {
    let view = View::unread(Duration::from_secs(5));
    let page = Page::made(EncodedPage::default());
    Arc::new(Published { view, sampled: None, fresh_until: None, next_by: Instant::now(), page })
}

fn key(group: Option<&str>) -> AnswerKey {
    let target = TargetName::new("one").unwrap();
    AnswerKey { target, route: ApiRoute::Groups, group: group.map(str::to_owned) }
}

fn text(pieces: &Pieces) -> String {
    String::from_utf8(pieces.concat()).unwrap()
}

#[test]
fn json_is_cut_at_its_end_wherever_its_pieces_end() {
    let (memory, cache) = (ReaderMemory::new(1 << 24, Gauge::default()), JsonCache::default());
    // A piece ends before each byte of the end, and behind it.
    for length in (FIRST_PIECE_BYTES - 40..FIRST_PIECE_BYTES + 5).chain([0, 1_000_000]) {
        let value = serde_json::json!({"a": "x".repeat(length), "b": null});
        let json = Json::without_end(&value, "null}", &memory, &cache).unwrap();
        assert_eq!(text(&json.pieces) + "null}", value.to_string());
        let largest = json.pieces.iter().map(Bytes::len).max().unwrap();
        assert!(largest <= MAX_PIECE_BYTES + FIRST_PIECE_BYTES, "{largest}");
    }
    let other = Json::without_end(&serde_json::json!({"a": 1}), "null}", &memory, &cache);
    assert!(matches!(other, Err(JsonError::End)));
}

#[test]
fn an_answer_is_made_once_for_each_snapshot_and_configuration() {
    let (memory, cache) = (ReaderMemory::new(1 << 24, Gauge::default()), JsonCache::default());
    let config = crate::http::service::tests::config();
    let (first, config) = (published(), Arc::new(config));
    let made = AtomicUsize::new(0);
    let ask = |group: Option<&str>, published: &Arc<Published>, config: &Arc<ServerConfig>| {
        let make = || {
            let value = serde_json::json!({"made": made.fetch_add(1, Ordering::Relaxed)});
            Json::without_end(&value, "}", &memory, &cache)
        };
        text(&cache.get(key(group), published, config, make).unwrap())
    };
    assert_eq!(ask(None, &first, &config), "{\"made\":0");
    assert_eq!(ask(None, &first, &config), "{\"made\":0");
    assert_eq!(ask(Some("g"), &first, &config), "{\"made\":1");
    let other = Arc::new(crate::http::service::tests::config());
    assert_eq!(ask(None, &first, &other), "{\"made\":2");
    let second = published();
    assert_eq!(ask(None, &second, &config), "{\"made\":3");
    assert_eq!(cache.entries().len(), 4);
    drop(first);
    cache.forget_old();
    assert_eq!(cache.entries().len(), 1);
    for group in 0..2 * MAX_ANSWERS {
        ask(Some(&group.to_string()), &second, &config);
    }
    assert_eq!(cache.entries().len(), MAX_ANSWERS);
}

#[test]
fn without_memory_what_nobody_reads_goes_and_then_an_answer_is_refused() {
    let limit = 8 * MAX_PIECE_BYTES as u64;
    let (memory, cache) = (ReaderMemory::new(limit, Gauge::default()), JsonCache::default());
    let (published, config) = (published(), Arc::new(crate::http::service::tests::config()));
    let ask = |group: &str| {
        let value = serde_json::json!({"a": "x".repeat(2 * MAX_PIECE_BYTES)});
        cache.get(key(Some(group)), &published, &config, || Json::without_end(&value, "}", &memory, &cache))
    };
    drop(ask("one").unwrap());
    let read = ask("two").unwrap();
    assert_eq!(cache.entries().len(), 1, "the one that nobody reads is gone");
    assert!(matches!(ask("three"), Err(JsonError::NoMemory(_))));
    drop(read);
    assert!(ask("three").is_ok());
}

#[test]
fn answers_that_fail_push_out_none_that_do_not() {
    let (memory, cache) = (ReaderMemory::new(1 << 24, Gauge::default()), JsonCache::default());
    let (published, config) = (published(), Arc::new(crate::http::service::tests::config()));
    let made = AtomicUsize::new(0);
    let good = || {
        let make = || {
            made.fetch_add(1, Ordering::Relaxed);
            Json::without_end(&serde_json::json!({}), "}", &memory, &cache)
        };
        cache.get(key(None), &published, &config, make).unwrap()
    };
    good();
    for group in 0..2 * MAX_ANSWERS {
        let refused = cache.get(key(Some(&group.to_string())), &published, &config, || Err(JsonError::End));
        assert!(refused.is_err());
    }
    good();
    assert_eq!((made.load(Ordering::Relaxed), cache.entries().len()), (1, 1));
}
