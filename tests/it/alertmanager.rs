//! Alerts from a real Redis, by streamlag, Prometheus and the shipped configuration of Alertmanager, to a webhook, Slack and a mailbox.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::common::alertmanager::{Alertmanager, alertmanagers, with_prometheuses};
use crate::common::events::VERDICTS;
use crate::common::prometheus::{Prometheus, repository};
use crate::common::receiver::{Received, Receiver};
use crate::common::{Redis, eventually, eventually_right, free_port, streamlag};
use serde_json::{Value, json};

/// A name that would notify everybody in a channel of Slack, were it not escaped.
const HOSTILE: &str = "<!channel>&co";

const GROUP: &str = "mail";

/// The shipped configuration, with other addresses and without its waits.
fn shipped(pager: &str, smtp_port: u16, ca: &Path) -> String {
    let mut config = fs::read_to_string(repository("deploy/alertmanager/alertmanager.yml")).unwrap();
    let mut replace = |from: &str, to: &str| {
        assert!(config.contains(from), "the shipped configuration has no {from:?}");
        config = config.replace(from, to);
    };
    replace("https://pager.example.org/streamlag", pager);
    replace("smtp.example.org:587", &format!("localhost:{smtp_port}"));
    replace("/etc/alertmanager/secrets/", "secret-");
    replace("group_wait: 30s", "group_wait: 1s");
    replace("group_interval: 5m", "group_interval: 1s");
    replace("group_interval: 1h", "group_interval: 1s");
    // Only a certificate that the system trusts needs no more than is shipped.
    let to = "to: streams@example.org";
    replace(to, &format!("{to}\n        tls_config: {{ca_file: {}}}", ca.display()));
    config
}

/// A mail server with STARTTLS and AUTH, in a directory with its certificate and what it was sent.
struct Mailbox {
    port: u16,
    dir: tempfile::TempDir,
    child: Child,
}

const PASSWORD: &str = "post-4711";

impl Mailbox {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        fs::write(dir.path().join("certificate.pem"), made.cert.pem()).unwrap();
        fs::write(dir.path().join("key.pem"), made.signing_key.serialize_pem()).unwrap();
        let port = free_port();
        // Debian's Python is the one that has Debian's aiosmtpd.
        let mut child = Command::new("/usr/bin/python3")
            .arg(repository("tests/it/common/smtp_server.py"))
            .args([&port.to_string(), "certificate.pem", "key.pem", "streamlag", PASSWORD, "."])
            .current_dir(dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let stdout = child.stdout.take().unwrap();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line).unwrap();
        assert_eq!(line, "ready\n", "aiosmtpd does not start: run 'make test', which installs it");
        Self { port, dir, child }
    }

    fn certificate(&self) -> PathBuf {
        self.dir.path().join("certificate.pem")
    }

    /// The messages, in no order.
    fn mail(&self) -> Vec<String> {
        let entries = fs::read_dir(self.dir.path()).unwrap().map(|entry| entry.unwrap().path());
        let mail = entries.filter(|path| path.extension().is_some_and(|extension| extension == "eml"));
        // Lines of quoted-printable go on after a "=" at their end.
        mail.map(|path| fs::read_to_string(path).unwrap().replace("\r\n", "\n").replace("=\n", "").replace("=3D", "="))
            .collect()
    }
}

impl Drop for Mailbox {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// By stream, the alerts that the newest message to the pager says are firing.
fn paged(messages: &[Received]) -> BTreeMap<String, Vec<String>> {
    let mut paged = BTreeMap::new();
    for message in messages {
        let body = message.json();
        assert_eq!(body["version"], "4");
        let alerts = body["alerts"].as_array().unwrap().iter();
        let firing =
            alerts.filter(|alert| alert["status"] == "firing").map(|alert| text(&alert["labels"]["alertname"]));
        paged.insert(text(&body["commonLabels"]["stream"]), firing.collect());
    }
    paged
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_owned()
}

/// What Slack says a message of attachments may be, of those limits that it publishes.
fn slack_takes(message: &Value) -> Result<(), String> {
    let attachments = message["attachments"].as_array().ok_or("no attachments")?;
    let longest = |value: &Value, most: usize, what: &str| match value.as_str() {
        Some(text) if text.chars().count() > most => Err(format!("{what} has more than {most} characters: {text}")),
        _ => Ok(()),
    };
    let ping = |value: &Value| match value.as_str() {
        Some(text) if ["<!", "<@", "<#"].iter().any(|ping| text.contains(ping)) => {
            Err(format!("it notifies people: {text}"))
        }
        _ => Ok(()),
    };
    if attachments.is_empty() || attachments.len() > 100 {
        return Err(format!("{} attachments", attachments.len()));
    }
    for attachment in attachments {
        longest(&attachment["text"], 40_000, "the text")?;
        // The plain text of a header block.
        longest(&attachment["title"], 150, "the title")?;
        longest(&attachment["fallback"], 150, "the fallback")?;
        ["text", "title", "fallback", "pretext"].iter().try_for_each(|key| ping(&attachment[*key]))?;
        let buttons = attachment["actions"].as_array().cloned().unwrap_or_default();
        if buttons.len() > 5 {
            return Err(format!("{} buttons", buttons.len()));
        }
        for button in buttons {
            longest(&button["text"], 75, "a button")?;
            longest(&button["url"], 3000, "a link")?;
            if !button["url"].as_str().is_some_and(|url| url.starts_with("http")) {
                return Err(format!("a button leads nowhere: {button}"));
            }
        }
    }
    Ok(())
}

#[test]
fn alerts_reach_a_webhook_slack_and_a_mailbox_grouped_and_are_resolved() {
    for (binary, prometheus) in with_prometheuses() {
        let redis = Redis::start();
        let streams = ["bills", "orders", HOSTILE];
        for stream in streams {
            redis.add_old(stream, 6000);
            redis.run(&format!("XGROUP CREATE {stream} {GROUP} 0"));
        }
        for n in 0..11 {
            redis.run(&format!("XGROUP CREATECONSUMER bills {GROUP} idle-{n}"));
        }
        let arguments = ["--redis.url", &redis.url(), "--streams", &streams.join(","), "--groups", GROUP];
        let exporter = streamlag(&[&arguments, &VERDICTS[..]].concat()).ready();
        eventually_right(|| {
            let groups = exporter.json("groups");
            let wrong = groups["groups"].as_array().unwrap().iter().find(|row| row["state"] != "stopped");
            wrong.map_or(Ok(()), |row| Err(format!("{row} is not stopped")))
        });

        let (pager, slack, mailbox) = (Receiver::start(), Receiver::start(), Mailbox::start());
        let config = shipped(&pager.url("/pager"), mailbox.port, &mailbox.certificate());
        let slack_url = slack.url("/services/T0/B0/x");
        let secrets = [
            ("secret-pager-token", "pager-token"),
            ("secret-slack-url", &slack_url),
            ("secret-smtp-password", PASSWORD),
        ];
        let alertmanager = Alertmanager::start(&binary, &config, &secrets);
        let addresses = [exporter.address.to_string()];
        let rules = "alerts/streamlag.rules.yml";
        let _prometheus = Prometheus::alerting(&prometheus, &addresses, rules, &alertmanager.address);

        // It fires: one page per stream, of the worst.
        let worst: BTreeMap<String, Vec<String>> =
            streams.map(|stream| (stream.to_owned(), vec!["EventConsumerGroupStopped".to_owned()])).into();
        eventually_right(|| {
            let paged = paged(&pager.received());
            if paged == worst { Ok(()) } else { Err(format!("{paged:#?}\n{}", alertmanager.log())) }
        });
        let keys: BTreeSet<String> = pager.received().iter().map(|page| text(&page.json()["groupKey"])).collect();
        assert_eq!(keys.len(), streams.len(), "{keys:?}");
        assert!(pager.received().iter().all(|page| page.header("authorization") == Some("Bearer pager-token")));

        eventually_right(|| {
            let messages: Vec<Value> = slack.received().iter().map(Received::json).collect();
            let about = |stream: &str| messages.iter().any(|message| message.to_string().contains(stream));
            let escaped = "&lt;!channel&gt;&amp;co";
            if about("orders") && about(escaped) {
                Ok(())
            } else {
                Err(format!("{messages:#?}\n{}", alertmanager.log()))
            }
        });
        for message in slack.received() {
            assert_eq!(message.path, "/services/T0/B0/x");
            let message = message.json();
            slack_takes(&message).unwrap_or_else(|why| panic!("{why}\n{message:#}"));
        }
        let stopped = eventually("Slack is told of the group that stopped", || {
            let texts = slack.received().into_iter().map(|message| text(&message.json()["attachments"][0]["text"]));
            texts.into_iter().find(|text| text.contains("*EventConsumerGroupStopped*"))
        });
        for part in [
            "6k entries",
            "State: stopped: entries wait, and no consumer is alive",
            "EventConsumerGroupStopped.md|Runbook>",
        ] {
            assert!(stopped.contains(part), "no {part:?} in {stopped}");
        }

        // info goes to the list.
        let mail = eventually("there is mail", || mailbox.mail().into_iter().find(|mail| mail.contains("[FIRING")));
        for part in [
            "To: streams@example.org",
            "EventConsumerDeadWithoutPending (info)",
            "11 dead consumers",
            "Runbook: https://",
        ] {
            assert!(mail.contains(part), "no {part:?} in {mail}");
        }

        // It resolves, everywhere.
        for stream in streams {
            redis.run(&format!("XGROUP SETID {stream} {GROUP} $"));
        }
        for n in 0..11 {
            redis.run(&format!("XGROUP DELCONSUMER bills {GROUP} idle-{n}"));
        }
        let resolved = streams.map(|stream| (stream.to_owned(), Vec::new())).into();
        eventually_right(|| {
            let paged = paged(&pager.received());
            if paged == resolved { Ok(()) } else { Err(format!("{paged:#?}\n{}", alertmanager.log())) }
        });
        eventually("Slack is told that all is well", || {
            let last = slack.received().last()?.json();
            let (color, title) = (&last["attachments"][0]["color"], &last["attachments"][0]["title"]);
            slack_takes(&last).unwrap();
            (color == "good" && text(title).starts_with("[RESOLVED]")).then_some(())
        });
        eventually("mail says so", || mailbox.mail().into_iter().find(|mail| mail.contains("[RESOLVED]")));
    }
}

/// Alerts of one group: name and severity are enough for inhibition.
fn alerts(stream: &str, names: &[&str]) -> Vec<Value> {
    let rules = severities();
    let alert = |name: &&str| {
        let severity = rules.get(*name).unwrap_or_else(|| panic!("there is no rule {name}"));
        let labels = json!({
            "alertname": name, "severity": severity, "job": "streamlag", "instance": "a:8000",
            "stream": stream, "consumer_group": GROUP,
        });
        json!({"labels": labels, "annotations": {"summary": "x", "runbook_url": "https://example.org"}})
    };
    names.iter().map(alert).collect()
}

/// The severity of every rule.
fn severities() -> BTreeMap<String, String> {
    let rules = fs::read_to_string(repository("alerts/streamlag.rules.yml")).unwrap();
    let (mut severities, mut name) = (BTreeMap::new(), String::new());
    for line in rules.lines().map(str::trim) {
        if let Some(alert) = line.strip_prefix("- alert: ") {
            alert.clone_into(&mut name);
        } else if let Some(severity) = line.strip_prefix("severity: ") {
            severities.insert(name.clone(), severity.to_owned());
        }
    }
    severities
}

/// What Alertmanager does not inhibit: stream and name.
fn active(alertmanager: &Alertmanager) -> BTreeSet<(String, String)> {
    let active = alertmanager.alerts().into_iter().filter(|alert| alert["status"]["state"] == "active");
    active.map(|alert| (text(&alert["labels"]["stream"]), text(&alert["labels"]["alertname"]))).collect()
}

const STOPPED: [&str; 5] = [
    "EventConsumerGroupStopped",
    "CriticalEventConsumerLag",
    "CriticalEventConsumerLagSeconds",
    "HighEventConsumerLag",
    "HighEventConsumerLagSeconds",
];

#[test]
fn three_stopped_streams_are_three_pages_not_fourteen() {
    for binary in alertmanagers() {
        let config = fs::read_to_string(repository("deploy/compose/alertmanager.yml")).unwrap();
        let alertmanager = Alertmanager::start(&binary, &config, &[]);
        let lossy = ["EventConsumerLosingEntries", "EventConsumerLossNear"];
        // The third is trimmed, too. What was left of its lag is below the critical limit.
        let trimmed = [&lossy, &STOPPED[..1], &STOPPED[2..3]].concat();
        let storm = [alerts("a", &STOPPED), alerts("b", &STOPPED), alerts("c", &trimmed)].concat();
        assert_eq!(storm.len(), 14);
        alertmanager.post(&json!(storm));
        let pages = [("a", STOPPED[0]), ("b", STOPPED[0]), ("c", lossy[0])];
        let pages: BTreeSet<(String, String)> = pages.map(|(stream, name)| (stream.to_owned(), name.to_owned())).into();
        eventually_right(|| {
            let active = active(&alertmanager);
            let all = alertmanager.alerts().len();
            if active == pages && all == storm.len() { Ok(()) } else { Err(format!("{active:?} of {all}")) }
        });
        assert!(alertmanager.alerts().iter().all(|alert| alert["status"]["state"] != "unprocessed"));
    }
}

#[test]
fn each_alert_is_inhibited_by_what_is_worse_in_the_same_group_only() {
    /// What is there, and what of it is sent.
    const CASES: &[(&[&str], &[&str])] = &[
        (&["CriticalEventConsumerLag", "HighEventConsumerLag"], &["CriticalEventConsumerLag"]),
        (&["CriticalEventConsumerLag", "CriticalEventConsumerLagSeconds"], &["CriticalEventConsumerLag"]),
        (&["CriticalEventConsumerLagSeconds", "HighEventConsumerLagSeconds"], &["CriticalEventConsumerLagSeconds"]),
        (&["CriticalEventConsumerLagSeconds", "HighEventConsumerLag"], &["CriticalEventConsumerLagSeconds"]),
        (&["HighEventConsumerLag", "HighEventConsumerLagSeconds"], &["HighEventConsumerLag"]),
        (&["EventConsumerLosingEntries", "EventConsumerLossNear"], &["EventConsumerLosingEntries"]),
        (&["EventConsumerLossNear", "EventConsumerGroupStopped"], &["EventConsumerLossNear"]),
        (&["EventConsumerLossNear", "EventConsumerNotCatchingUp"], &["EventConsumerLossNear"]),
        (&["EventConsumerGroupStopped", "EventConsumerDeadWithPending"], &["EventConsumerGroupStopped"]),
        (&["EventConsumerGroupStopped", "EventConsumerPendingOld"], &["EventConsumerGroupStopped"]),
        (&["EventConsumerGroupStalled", "HighEventConsumerLag"], &["EventConsumerGroupStalled"]),
        (&["EventConsumerNotCatchingUp", "HighEventConsumerLagSeconds"], &["EventConsumerNotCatchingUp"]),
        (&["EventConsumerDeadWithPending", "EventConsumerPendingOld"], &["EventConsumerDeadWithPending"]),
        (&["EventConsumerGhostPending", "EventConsumerGroupAckStalled"], &["EventConsumerGhostPending"]),
        // A warning keeps no critical alert back, and what has another cause is said.
        (
            &["EventConsumerGroupStalled", "CriticalEventConsumerLag"],
            &["CriticalEventConsumerLag", "EventConsumerGroupStalled"],
        ),
        (
            &["EventConsumerGroupStopped", "EventConsumerGhostPending"],
            &["EventConsumerGhostPending", "EventConsumerGroupStopped"],
        ),
        (&["EventConsumerGroupMissing"], &["EventConsumerGroupMissing"]),
    ];
    for binary in alertmanagers() {
        let config = fs::read_to_string(repository("deploy/compose/alertmanager.yml")).unwrap();
        let alertmanager = Alertmanager::start(&binary, &config, &[]);
        let mut expected = BTreeSet::new();
        let mut posted = 0;
        for (case, (there, sent)) in CASES.iter().enumerate() {
            let stream = format!("s{case}");
            alertmanager.post(&json!(alerts(&stream, there)));
            posted += there.len();
            expected.extend(sent.iter().map(|name| (stream.clone(), (*name).to_owned())));
        }
        eventually_right(|| {
            let (active, all) = (active(&alertmanager), alertmanager.alerts().len());
            let wrong: Vec<_> = active.symmetric_difference(&expected).collect();
            if wrong.is_empty() && all == posted { Ok(()) } else { Err(format!("{wrong:?}, {all} of {posted}")) }
        });
    }
}

#[test]
fn a_stream_of_one_exporter_or_target_inhibits_nothing_of_another() {
    for binary in alertmanagers() {
        let config = fs::read_to_string(repository("deploy/compose/alertmanager.yml")).unwrap();
        let alertmanager = Alertmanager::start(&binary, &config, &[]);
        let mut posted = alerts("s", &["EventConsumerGroupStopped"]);
        for (label, other) in [
            ("stream", "t"),
            ("consumer_group", "h"),
            ("instance", "b:8000"),
            ("redis_target", "b"),
            ("job", "c"),
            ("namespace", "d"),
        ] {
            let mut alert = alerts("s", &["CriticalEventConsumerLag"]).remove(0);
            alert["labels"][label] = json!(other);
            posted.push(alert);
        }
        alertmanager.post(&json!(posted));
        eventually_right(|| {
            let alerts = alertmanager.alerts();
            let active = alerts.iter().filter(|alert| alert["status"]["state"] == "active").count();
            if active == posted.len() { Ok(()) } else { Err(format!("{alerts:#?}")) }
        });
    }
}
