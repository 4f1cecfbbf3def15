//! Incidents of the running program, against what Prometheus makes of the same rules.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::common::{Redis, eventually, streamlag};

fn firing(list: &Value) -> BTreeSet<(String, String)> {
    let rows = list["incidents"].as_array().unwrap().iter();
    rows.map(|row| (row["rule"].as_str().unwrap().to_owned(), row["status"].as_str().unwrap().to_owned())).collect()
}

#[test]
fn an_incident_shows_in_the_api_and_on_the_page_and_survives_an_outage_of_redis() {
    let mut redis = Redis::start();
    redis.run("XGROUP CREATE orders workers $ MKSTREAM");
    let streamlag =
        streamlag(&["--redis.url", &redis.url(), "--streams", "orders,absent", "--groups", "workers"]).ready();
    let list = || streamlag.get("/api/v1/incidents").json();
    let pending = |rule: &str| (rule.to_owned(), "pending".to_owned());
    assert_eq!(firing(&list()), BTreeSet::from([pending("EventStreamUnreadable")]));
    let row = list()["incidents"][0].clone();
    assert_eq!((&row["stream"], &row["severity"]), (&"absent".into(), &"critical".into()));
    assert_eq!(row["summary"], "Stream absent cannot be read");
    redis.add("orders", 6000);
    eventually("the lag is an incident", || {
        let expected = ["EventStreamUnreadable", "CriticalEventConsumerLag", "HighEventConsumerLag"].map(pending);
        (firing(&list()) == BTreeSet::from(expected)).then_some(())
    });
    let series = |rule: &str, severity: &str, status: &str| {
        format!("event_incidents{{rule=\"{rule}\",severity=\"{severity}\",status=\"{status}\"}}")
    };
    streamlag.next_sample();
    assert_eq!(streamlag.metric(&series("CriticalEventConsumerLag", "critical", "pending")), Some(1.0));
    assert_eq!(streamlag.metric(&series("CriticalEventConsumerLag", "critical", "firing")), Some(0.0));
    assert_eq!(streamlag.metric("streamlag_incidents_left_out"), Some(0.0));
    assert_eq!(streamlag.get("/api/v1/incidents?status=firing").json()["incidents"].as_array().unwrap().len(), 0);
    assert_eq!(streamlag.get("/api/v1/incidents?status=bad").status, 400);
    assert_eq!(streamlag.get("/api/v1/incidents?target=nobody").status, 404);
    assert_eq!(streamlag.request("GET", "/api/v1/incidents", &[]).status, 401);
    redis.stop();
    eventually("the outage is an incident", || firing(&list()).contains(&pending("StreamlagRedisDown")).then_some(()));
}
