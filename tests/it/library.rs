//! The library, as its documentation shows it.

use crate::common::{Redis, servers};

#[allow(dead_code, reason = "its main is run by hand")]
#[path = "../../examples/sample.rs"]
mod example;

#[tokio::test]
async fn the_example_of_the_documentation_samples_a_redis() {
    for server in servers() {
        let redis = Redis::start_with(&server, &[]);
        redis.run("XGROUP CREATE orders billing 0 MKSTREAM");
        redis.add("orders", 3);
        redis.run("SET text x");
        let found = example::sample(&redis.url(), &["orders", "text"]).await.unwrap();
        let lines = example::lines(&found);
        assert_eq!(lines[0], "orders billing: 3 to 3 entries behind, exact");
        assert!(lines.len() == 2 && lines[1].starts_with("text: ") && lines[1].contains("WRONGTYPE"), "{lines:?}");
        let gone = redis.url();
        drop(redis);
        let error = example::sample(&gone, &["orders"]).await.unwrap_err().to_string();
        assert!(error.contains("refused"), "{error}");
    }
}
