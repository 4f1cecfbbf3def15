//! Incidents told by streamlag itself: to a real Alertmanager that Prometheus tells the same, and to webhooks that misbehave.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde_json::{Value, json};

use crate::common::alertmanager::{Alertmanager, with_prometheuses};
use crate::common::events::VERDICTS;
use crate::common::prometheus::{Prometheus, repository};
use crate::common::receiver::{Received, Receiver};
use crate::common::{Redis, Streamlag, command, eventually, eventually_right, streamlag};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// A stream whose only group was never read, and eleven idle consumers.
fn stopped(redis: &Redis) {
    redis.add_old("orders", 6000);
    redis.run("XGROUP CREATE orders mail 0");
    for n in 0..11 {
        redis.run(&format!("XGROUP CREATECONSUMER orders mail idle-{n}"));
    }
}

fn start(redis: &Redis, dir: &Path, notify: &Value) -> Streamlag {
    let file = dir.join("streamlag.yml");
    // JSON is YAML.
    std::fs::write(&file, json!({"streams": ["orders"], "groups": ["mail"], "notify": notify}).to_string()).unwrap();
    let about = ["--redis.url", &redis.url(), "--config.file", file.to_str().unwrap()];
    streamlag(&[&about, &VERDICTS[..]].concat()).ready()
}

fn secret(dir: &Path) -> &'static str {
    let file = dir.join("secret");
    std::fs::write(&file, SECRET).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    "secret"
}

fn labels(alert: &Value) -> BTreeMap<String, String> {
    serde_json::from_value(alert["labels"].clone()).unwrap()
}

#[test]
fn what_prometheus_says_too_is_one_alert() {
    for (binary, prometheus) in with_prometheuses() {
        let redis = Redis::start();
        stopped(&redis);
        let config = std::fs::read_to_string(repository("deploy/compose/alertmanager.yml")).unwrap();
        let alertmanager = Alertmanager::start(&binary, &config, &[]);
        let dir = tempfile::tempdir().unwrap();
        let url = format!("http://{}", alertmanager.address);
        let exporter = start(&redis, dir.path(), &json!({"alertmanagers": [url], "for": "0s"}));
        let names = |alerts: &[Value]| -> BTreeSet<String> {
            alerts.iter().map(|alert| labels(alert)["alertname"].clone()).collect()
        };
        let expected = [
            "CriticalEventConsumerLag",
            "CriticalEventConsumerLagSeconds",
            "EventConsumerGroupStopped",
            "HighEventConsumerLag",
            "HighEventConsumerLagSeconds",
        ];
        eventually_right(|| {
            let names = names(&alertmanager.alerts());
            if names == expected.map(str::to_owned).into() { Ok(()) } else { Err(format!("{names:?}")) }
        });
        let pushed: Vec<Value> = alertmanager.alerts();
        let stopped = pushed.iter().find(|alert| labels(alert)["alertname"] == "EventConsumerGroupStopped").unwrap();
        assert_eq!(stopped["annotations"]["lag"], "6000");
        assert!(
            stopped["annotations"]["state_reason"].as_str().unwrap().contains("0 of 11 consumers alive"),
            "{stopped}"
        );
        assert_eq!(stopped["status"]["state"], "active");
        let own: BTreeSet<_> = pushed.iter().map(labels).collect();

        // Prometheus says the same of this one, and more.
        let addresses = [exporter.address.to_string()];
        let rules = "alerts/streamlag-replicas.rules.yml";
        let _prometheus = Prometheus::alerting(&prometheus, &addresses, rules, &alertmanager.address);
        eventually("Prometheus has said what it has to say", || {
            let generated = |alert: &Value| alert["generatorURL"].as_str().is_some_and(|url| url.contains("/graph?"));
            let by_prometheus = alertmanager.alerts().into_iter().filter(generated).collect::<Vec<_>>();
            let all: BTreeSet<String> = expected.map(str::to_owned).into();
            (names(&by_prometheus).is_superset(&all)
                && names(&by_prometheus).contains("EventConsumerDeadWithoutPending"))
            .then_some(())
        });
        let both = alertmanager.alerts();
        let all: BTreeSet<_> = both.iter().map(labels).collect();
        assert!(own.is_subset(&all), "{own:#?} {all:#?}");
        assert_eq!(names(&both).len(), both.len(), "an alert is there twice: {both:#?}");

        // Alone again, it is streamlag that says that all is well.
        drop(_prometheus);
        redis.run("XGROUP SETID orders mail $");
        eventually_right(|| {
            let page = exporter.metrics();
            let delivered = page.lines().any(|line| {
                line.starts_with("streamlag_notifications_total{receiver=\"alertmanager 127.0.0.1")
                    && line.contains("outcome=\"delivered\"")
                    && !line.ends_with(" 0")
            });
            let left = names(&alertmanager.alerts());
            let ended = !left.contains("CriticalEventConsumerLag") && !left.contains("HighEventConsumerLag");
            if delivered && ended { Ok(()) } else { Err(format!("{left:?}")) }
        });
    }
}

fn signed(message: &Received) -> bool {
    let header = |name| message.header(name).unwrap_or_else(|| panic!("no {name}: {message:?}"));
    let text =
        format!("{}.{}.{}", header("webhook-id"), header("webhook-timestamp"), String::from_utf8_lossy(&message.body));
    // openssl is another implementation than streamlag's.
    let key: String = {
        use base64::Engine as _;
        let secret = base64::engine::general_purpose::STANDARD.decode(&SECRET["whsec_".len()..]).unwrap();
        secret.iter().map(|byte| format!("{byte:02x}")).collect()
    };
    let script = format!("openssl dgst -sha256 -mac HMAC -macopt hexkey:{key} -binary | base64");
    let (_, code) = crate::common::pipe_through("sh", &["-c", &script], text.as_bytes());
    header("webhook-signature") == format!("v1,{}", code.trim())
}

fn firing(message: &Received) -> BTreeSet<String> {
    let body = message.json();
    let alerts = body["alerts"].as_array().unwrap().iter().filter(|alert| alert["status"] == "firing");
    alerts.map(|alert| labels(alert)["alertname"].clone()).collect()
}

#[test]
fn a_webhook_is_told_again_until_it_listens_and_then_that_it_is_over() {
    let redis = Redis::start();
    stopped(&redis);
    let dir = tempfile::tempdir().unwrap();
    // Away, then cut off in the middle of its answer, then busy.
    let receiver = Receiver::answering(|n, _| match n {
        0 => ("503 Service Unavailable\r\n".to_owned(), "no".to_owned()),
        1 => ("200 OK\r\nContent-Length: 99\r\nX-".to_owned(), "half".to_owned()),
        2 => ("429 Too Many Requests\r\nRetry-After: 1\r\n".to_owned(), String::new()),
        _ => ("204 No Content\r\n".to_owned(), String::new()),
    });
    let webhook = json!({"url": receiver.url("/hook/s3cret"), "secret_file": secret(dir.path())});
    let notify = json!({"webhooks": [webhook], "for": "0s", "group_wait": "0s", "group_interval": "1s"});
    let exporter = start(&redis, dir.path(), &notify);
    let messages = eventually("the fourth attempt", || Some(receiver.received()).filter(|all| all.len() >= 4));
    for message in &messages[..4] {
        assert_eq!(message.header("webhook-id"), messages[0].header("webhook-id"));
        assert_eq!(message.body, messages[0].body);
        assert!(signed(message), "{message:?}");
    }
    assert_eq!((messages[0].path.as_str(), &messages[0].json()["version"]), ("/hook/s3cret", &json!("4")));
    eventually("all that is wrong is told", || {
        let told = firing(receiver.received().last()?);
        told.is_superset(&["CriticalEventConsumerLag", "EventConsumerGroupStopped"].map(str::to_owned).into())
            .then_some(())
    });
    redis.run("XGROUP SETID orders mail $");
    eventually("the end of what has no keep_firing_for is told", || {
        let received = receiver.received();
        let resolved =
            |alert: &Value| alert["status"] == "resolved" && labels(alert)["alertname"] == "CriticalEventConsumerLag";
        received.iter().any(|message| message.json()["alerts"].as_array().unwrap().iter().any(resolved)).then_some(())
    });
    let ids: BTreeSet<&str> = messages.iter().filter_map(|message| message.header("webhook-id")).collect();
    assert!(ids.len() <= messages.len() - 3, "{ids:?}");
    let log = exporter.log().join("\n");
    assert!(!log.contains("s3cret") && !log.contains(SECRET), "{log}");
    assert_eq!(exporter.log_lines("notification not delivered").len(), 1, "{log}");
}

/// What the API says of telling of this rule, by receiver.
fn delivery(streamlag: &Streamlag, rule: &str) -> Option<Vec<Value>> {
    let list = streamlag.get("/api/v1/incidents").json();
    let row = list["incidents"].as_array()?.iter().find(|row| row["rule"] == rule)?;
    Some(row["delivery"].as_array().unwrap().clone())
}

#[test]
fn the_api_says_what_became_of_telling_each_receiver() {
    const RULE: &str = "CriticalEventConsumerLag";
    let redis = Redis::start();
    stopped(&redis);
    let dir = tempfile::tempdir().unwrap();
    let good = Receiver::answering(|n, _| match n {
        0 => ("503 Service Unavailable\r\n".to_owned(), "not now".to_owned()),
        _ => ("204 No Content\r\n".to_owned(), String::new()),
    });
    let bad = Receiver::answering(|_, _| ("410 Gone\r\n".to_owned(), String::new()));
    let late = Receiver::start();
    let webhooks = [&good, &bad].map(|receiver| json!({"url": receiver.url("/")}));
    // Two of one name are told apart.
    let webhooks = json!([webhooks[0], webhooks[1], {"url": bad.url("/other")}]);
    let notify = json!({"webhooks": webhooks, "for": "0s", "group_wait": "2s", "group_interval": "1s"});
    let mut exporter = start(&redis, dir.path(), &notify);
    let waiting = eventually("it fires", || delivery(&exporter, RULE).filter(|all| !all.is_empty()));
    assert_eq!(waiting[0]["receiver"], format!("webhook {}", good.address));
    assert_eq!(
        (&waiting[0]["outcome"], &waiting[0]["told"], &waiting[0]["attempts"]),
        (&json!("waiting"), &json!(null), &json!(0))
    );
    let failed =
        eventually("the first attempt", || delivery(&exporter, RULE).filter(|all| all[0]["outcome"] == "failed"));
    assert_eq!((&failed[0]["attempts"], &failed[0]["error"]), (&json!(1), &json!("503 Service Unavailable: not now")));
    assert!(failed[0]["last_attempt_at"].is_string());
    let all =
        eventually("it is delivered", || delivery(&exporter, RULE).filter(|all| all[0]["outcome"] == "delivered"));
    assert_eq!((&all[0]["told"], &all[0]["attempts"], &all[0]["error"]), (&json!("firing"), &json!(2), &json!(null)));
    for refused in &all[1..] {
        assert_eq!((&refused["outcome"], &refused["told"]), (&json!("refused"), &json!(null)), "{refused}");
    }
    redis.run("XGROUP SETID orders mail $");
    let all = eventually("the end is told", || delivery(&exporter, RULE).filter(|all| all[0]["told"] == "resolved"));
    assert_eq!((&all[1]["told"], &all[1]["outcome"]), (&json!(null), &json!("refused")));
    // A receiver that a reload adds is a receiver like the others.
    let file = dir.path().join("streamlag.yml");
    let notify = json!({"webhooks": [{"url": good.url("/")}, {"url": late.url("/")}], "for": "0s"});
    std::fs::write(&file, json!({"streams": ["orders"], "groups": ["mail"], "notify": notify}).to_string()).unwrap();
    exporter.signal("-HUP");
    let all = eventually("two are left", || delivery(&exporter, RULE).filter(|all| all.len() == 2));
    assert_eq!((&all[0]["told"], &all[1]["outcome"]), (&json!("resolved"), &json!("waiting")));
    exporter.signal("-TERM");
    exporter.wait();
}

#[test]
fn what_is_refused_for_good_is_said_and_not_repeated_and_no_redirect_is_followed() {
    let redis = Redis::start();
    stopped(&redis);
    let dir = tempfile::tempdir().unwrap();
    let elsewhere = Receiver::start();
    let location = elsewhere.url("/");
    let moved =
        Receiver::answering(move |_, _| (format!("307 Temporary Redirect\r\nLocation: {location}\r\n"), String::new()));
    let refusing = Receiver::answering(|_, _| ("400 Bad Request\r\n".to_owned(), "no such channel".to_owned()));
    let webhooks = [&moved, &refusing].map(|receiver| json!({"url": receiver.url("/")}));
    let notify = json!({"webhooks": webhooks, "for": "0s", "group_wait": "3s", "group_interval": "1h"});
    let exporter = start(&redis, dir.path(), &notify);
    let count = |receiver: &Receiver, outcome: &str| {
        let receiver = format!("webhook {}", receiver.address);
        exporter.metric(&format!("streamlag_notifications_total{{receiver=\"{receiver}\",outcome=\"{outcome}\"}}"))
    };
    for receiver in [&moved, &refusing] {
        eventually("it is refused", || (count(receiver, "refused") == Some(1.0)).then_some(()));
        assert_eq!((count(receiver, "failed"), count(receiver, "delivered")), (Some(0.0), Some(0.0)));
        assert_eq!(receiver.received().len(), 1);
    }
    assert!(elsewhere.received().is_empty());
    assert!(
        exporter.log().iter().any(|line| line.contains("notification refused") && line.contains("no such channel"))
    );
    assert!(exporter.log().iter().any(|line| line.contains("redirects are not followed")));
}

#[test]
fn notify_test_tells_every_receiver_and_says_what_became_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let (good, bad) =
        (Receiver::start(), Receiver::answering(|_, _| ("404 Not Found\r\n".to_owned(), "nobody".to_owned())));
    let run = |notify: Value| {
        let file = dir.path().join("streamlag.yml");
        std::fs::write(&file, json!({"notify": notify}).to_string()).unwrap();
        let output = command(&["notify", "test", "--config.file", file.to_str().unwrap()], &[]).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let webhook = json!({"url": good.url("/x"), "secret_file": secret(dir.path())});
    let (code, output, _) = run(json!({"alertmanagers": [good.url("/am")], "webhooks": [webhook]}));
    let address = good.address;
    assert_eq!((code, output), (Some(0), format!("alertmanager {address}: delivered\nwebhook {address}: delivered\n")));
    let received = good.received();
    assert_eq!(received[0].path, "/am/api/v2/alerts");
    assert_eq!(labels(&received[0].json()[0])["alertname"], "StreamlagTest");
    assert!(signed(&received[1]));
    let (code, output, _) = run(json!({"webhooks": [{"url": bad.url("/x")}]}));
    assert_eq!((code, output), (Some(1), format!("webhook {}: failed: 404 Not Found: nobody\n", bad.address)));
    let (code, _, error) = run(json!({}));
    assert_eq!((code, error.contains("there is nobody to be told")), (Some(2), true), "{error}");
}

#[test]
fn a_receiver_that_repeats_its_path_does_not_get_it_shown() {
    let redis = Redis::start();
    stopped(&redis);
    let dir = tempfile::tempdir().unwrap();
    // As Express says it; only the last piece, far behind; the query, decoded; a piece that is cut.
    let echoes = |n: usize, received: &Received| match n % 4 {
        0 => format!("Cannot POST {}", received.path),
        1 => format!("{}{}", " ".repeat(5000), received.path.split(['/', '?']).nth(4).unwrap()),
        2 => "no such key: hunter2=key".to_owned(),
        _ => format!("Cannot POST {:.30}", received.path),
    };
    let receiver = Receiver::answering(move |n, received| ("404 Not Found\r\n".to_owned(), echoes(n, received)));
    let url = receiver.url("/services/T024BE7LD/B036/s3cret-t0ken?key=hunter2%3Dkey");
    let is_clean = |text: &str| {
        let told = ["s3cret", "hunter2", "T024BE7LD", "Cannot"].iter().any(|piece| text.contains(piece));
        assert!(!told, "{text}");
    };
    for n in 0..4 {
        let file = dir.path().join("test.yml");
        std::fs::write(&file, json!({"notify": {"webhooks": [{"url": url}]}}).to_string()).unwrap();
        let output = command(&["notify", "test", "--config.file", file.to_str().unwrap()], &[]).output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert_eq!(said, format!("webhook {}: failed: 404 Not Found\n", receiver.address), "{n}");
        is_clean(&String::from_utf8(output.stderr).unwrap());
    }
    let notify = json!({"webhooks": [{"url": url}], "for": "0s", "group_wait": "0s", "group_interval": "1s"});
    let exporter = start(&redis, dir.path(), &notify);
    eventually("it refused", || exporter.log_lines("notification refused").first().cloned());
    is_clean(&exporter.log().join("\n"));
}

#[test]
fn what_a_receiver_says_does_nothing_to_the_terminal() {
    let dir = tempfile::tempdir().unwrap();
    let said = "no\u{1b}[2J \u{202e}eman\u{200b}".to_owned();
    let receiver = Receiver::answering(move |_, _| ("404 Not Found\r\n".to_owned(), said.clone()));
    let file = dir.path().join("test.yml");
    std::fs::write(&file, json!({"notify": {"webhooks": [{"url": receiver.url("/")}]}}).to_string()).unwrap();
    let output = command(&["notify", "test", "--config.file", file.to_str().unwrap()], &[]).output().unwrap();
    let expected = format!("webhook {}: failed: 404 Not Found: no[2J \\u{{202e}}eman\\u{{200b}}\n", receiver.address);
    assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
}

#[test]
fn a_wrong_configuration_is_refused_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, content: &str, mode: u32| {
        std::fs::write(dir.path().join(name), content).unwrap();
        std::fs::set_permissions(dir.path().join(name), std::fs::Permissions::from_mode(mode)).unwrap();
    };
    write("open", SECRET, 0o644);
    write("short", "abc", 0o600);
    write("secret", SECRET, 0o640);
    let check = |notify: Value, expected: &str| {
        let file = dir.path().join("streamlag.yml");
        std::fs::write(&file, json!({"notify": notify}).to_string()).unwrap();
        let output = command(&["--config.check", "--config.file", file.to_str().unwrap()], &[]).output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        if expected.is_empty() {
            assert_eq!((output.status.code(), error.as_str()), (Some(0), ""), "{notify}");
        } else {
            assert_eq!(output.status.code(), Some(2), "{notify}: {error}");
            assert!(error.contains(expected) && error.lines().count() == 1, "{notify}: {error}");
        }
        assert!(!error.contains("s3cret") && !error.contains("MfKQ"), "{error}");
    };
    let webhook = |more: Value| {
        let mut webhook = json!({"url": "https://example.org/s3cret"});
        webhook.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"webhooks": [webhook]})
    };
    check(json!({"alertmanagers": ["http://am:9093"], "labels": {"job": "lag", "cluster": "eu"}}), "");
    check(webhook(json!({"secret_file": "secret"})), "");
    check(webhook(json!({"url": "http://example.org/s3cret", "allow_plain": true})), "");
    check(webhook(json!({"url": "http://127.0.0.1:1/s3cret"})), "");
    check(webhook(json!({"url": "http://example.org/s3cret"})), "allow_plain: true sends without TLS");
    check(webhook(json!({"url": "ftp://example.org/s3cret"})), "expected a URL such as https://");
    check(webhook(json!({"url": "https://user:s3cret@example.org/"})), "a URL without user and password");
    check(webhook(json!({"secret_file": "open"})), "that not everybody can read, such as mode 0640; it has 0644");
    check(webhook(json!({"secret_file": "short"})), "expected a secret of 24 to 64 bytes, found 3");
    check(webhook(json!({"secret_file": "absent"})), "expected a file that can be read");
    check(webhook(json!({"secret": "x"})), "unknown key \"secret\" of a webhook: expected one of url");
    check(json!({"webhooks": [{"secret_file": "secret"}]}), "expected a url");
    for port in ["99999", "9o93"] {
        check(json!({"alertmanagers": [format!("http://am:{port}")]}), "expected a URL such as https://host:port/path");
        check(
            webhook(json!({"url": format!("https://h:{port}/s3cret")})),
            "expected a URL such as https://host:port/path",
        );
    }
    check(json!({"alertmanager": ["http://am:9093"]}), "did you mean notify.alertmanagers?");
    check(json!({"alertmanagers": "http://am:9093"}), "notify.alertmanagers: expected a list of URLs");
    check(json!({"alertmanagers": ["http://am:9093", "http://am:9093"]}), "a receiver is listed twice");
    check(json!({"labels": {"severity": "critical"}}), "invalid label \"severity\"");
    check(json!({"for": "soon"}), "invalid value \"soon\": expected a duration");
    check(json!({"ca_file": "secret"}), "expected PEM with one or more certificates");
    check(json!(7), "notify: expected a mapping");
}
