//! Plans on the live page: looked at, approved and rejected in a real browser, and done in a real Redis.

use serde_json::{Value, json};

use crate::common::browser::Browser;
use crate::common::remedy::{Office, Worker, board, decide, grant_all, plan};
use crate::common::{Redis, Streamlag, TOKEN, eventually};
use crate::live_page::{CONTRAST, axe, log_in, page, pictures};

const HELD: &str = "<b>gone</b>";

/// A worker, a dead consumer that holds three entries, and one that holds nothing.
fn sick(redis: &Redis) -> Worker {
    redis.add_old("orders", 2000);
    redis.run("XGROUP CREATE orders g 0");
    grant_all(redis);
    redis.read("orders", "g", HELD, 3);
    idle(redis, "leftover");
    Worker::start(redis, "orders", "g", "here")
}

fn idle(redis: &Redis, consumer: &str) {
    redis.read("orders", "g", consumer, 1);
    let held = redis.run(&format!("XPENDING orders g - + 1 {consumer}"));
    let held: Vec<(String, String, u64, u64)> = redis::from_redis_value(held).unwrap();
    redis.run(&format!("XACK orders g {}", held[0].0));
}

/// Names and pending entries of the consumers.
fn holds(redis: &Redis, consumer: &str) -> Option<u64> {
    let all: Vec<std::collections::HashMap<String, redis::Value>> =
        redis::from_redis_value(redis.run("XINFO CONSUMERS orders g")).unwrap();
    let text = |value: &redis::Value| redis::from_redis_value::<String>(value.clone()).unwrap();
    let found = all.iter().find(|one| text(&one["name"]) == consumer)?;
    Some(redis::from_redis_value(found["pending"].clone()).unwrap())
}

fn start(office: &Office, redis: &Redis, more: &Value) -> Streamlag {
    let actions = ["delete_idle_consumers", "release"];
    let rules = json!([{"stream": "*", "group": "*", "mode": "approve", "actions": actions}]);
    // A worker that is late is not dead at once: its plans would be void.
    office.start_with(&redis.url(), &rules, more, &["--consumer.dead-after", "3s"])
}

/// An expression: the line of this action in a list.
fn line(list: &str, action: &str) -> String {
    format!("[...document.querySelectorAll('#{list} li')].find(li => li.innerText.includes('{action}'))")
}

fn shows(browser: &mut Browser, list: &str, action: &str, text: &str) {
    browser.wait(&format!("{}?.innerText.includes({text:?})", line(list, action)));
}

fn focus(browser: &mut Browser, action: &str, button: &str) {
    browser.eval(&format!("{}.querySelector('button[value={button}]').focus()", line("plans", action)));
}

#[test]
fn approved_and_rejected_by_the_keyboard_and_done_in_redis() {
    let redis = Redis::start();
    let (office, _here) = (Office::new(), sick(&redis));
    let streamlag = start(&office, &redis, &json!({}));
    let (release, _) = (plan(&streamlag, "release"), plan(&streamlag, "delete_idle_consumers"));
    let mut browser = Browser::start();
    log_in(&mut browser, &page(&streamlag), &office.alice);
    browser.wait("document.querySelector('#remediation-title').innerText === '2 remediation plans'");
    shows(&mut browser, "plans", "release", "Hand 3 of <b>gone</b>'s 3 pending entries in group g of orders to here");
    for text in
        ["Why: <b>gone</b> did nothing for ", "Changes: who holds the entries", "Does not change: entries, cursor"]
    {
        shows(&mut browser, "plans", "release", text);
    }
    for text in ["by streamlag, mode approve; expires in 15 min", "Waits for approval by a token with scope:remediate"]
    {
        shows(&mut browser, "plans", "release", text);
    }
    assert_eq!(browser.eval("document.querySelectorAll('#remediation b b').length"), 0);
    // Incidents stay above it, the table below.
    let order = browser.eval("['verdict', 'incidents', 'remediation', 'overview'].map(id => [...document.querySelectorAll('main > section')].findIndex(section => section.id === id))");
    let order: Vec<u64> = serde_json::from_value(order).unwrap();
    assert!(order.is_sorted(), "{order:?}");

    // Asked before it is done; to say no is what has the focus, and gives it back.
    focus(&mut browser, "release", "Approve");
    browser.press("Enter");
    browser.wait("document.querySelector('#confirm').open && document.activeElement.id === 'confirm-no'");
    let asked = browser.eval("document.querySelector('#confirm').innerText");
    let asked = asked.as_str().unwrap();
    for text in ["Hand 3 of <b>gone</b>'s 3 pending entries", "Does not change", "numbers of deliveries", "default"] {
        assert!(asked.contains(text), "{asked}");
    }
    browser.press("Escape");
    browser.wait("!document.querySelector('#confirm').open && document.activeElement.value === 'Approve'");
    assert_eq!((holds(&redis, HELD), office.audit().len()), (Some(3), 0));
    browser.press("Enter");
    browser.wait("document.querySelector('#confirm').open && document.activeElement.id === 'confirm-no'");
    browser.press("Tab");
    browser.wait("document.activeElement.id === 'confirm-yes'");
    browser.press("Enter");
    browser
        .wait("/Approve release, orders \\/ g: done, 3 changed$/.test(document.querySelector('#decided').innerText)");
    browser.wait("document.activeElement.id === 'decided'");
    assert_eq!(holds(&redis, HELD), Some(0));
    let audit = office.audit();
    assert_eq!((audit.len(), &audit[0]["by"], &audit[0]["plan"]), (2, &json!(["alice"]), &release["id"]));
    browser.wait("document.querySelector('#acts-title').innerText.includes(' ended, the newest at ')");
    browser.eval("document.querySelector('#acts-title').focus()");
    browser.press("Enter");
    shows(&mut browser, "acts", "release", "decided by alice");
    shows(&mut browser, "acts", "release", "3 changed");
    browser.wait(&format!("{}.dataset.level === 'ok'", line("acts", "release done")));

    // A rejection asks nothing, and does nothing.
    shows(&mut browser, "plans", "delete consumer leftover".replace("delete", "Delete").as_str(), "leftover");
    focus(&mut browser, "Delete consumer leftover", "Reject");
    browser.press("Enter");
    browser.wait(
        "/Reject delete idle consumers, orders \\/ g: rejected$/.test(document.querySelector('#decided').innerText)",
    );
    shows(&mut browser, "acts", "rejected", "Delete consumer leftover");
    assert_eq!(holds(&redis, "leftover"), Some(0));

    // What was decided elsewhere meanwhile: the server's answer, as it is.
    let again = eventually("a plan for the consumer that holds nothing now", || {
        let plans = board(&streamlag)["plans"].as_array().unwrap().clone();
        plans.into_iter().find(|plan| plan["evidence"]["consumer"] == HELD)
    });
    shows(&mut browser, "plans", "Delete consumer <b>gone</b>", "holds 0 entries");
    browser.click("#pause");
    browser.wait("document.querySelector('#connection').innerText.startsWith('Paused')");
    assert_eq!(decide(&streamlag, &again, "reject", &office.bob).status, 200);
    focus(&mut browser, "Delete consumer <b>gone</b>", "Approve");
    browser.press("Enter");
    browser.click("#confirm-yes");
    browser.wait("document.querySelector('#decided').innerText.endsWith(': 409, there is no such plan any more: it has ended, or what it rested on has changed')");
    browser.click("#pause");
    browser.wait("document.querySelector('#remediation-title').innerText === 'No remediation plan'");

    // A plan that goes while the page asks.
    idle(&redis, "late");
    let late = plan(&streamlag, "delete_idle_consumers");
    shows(&mut browser, "plans", "Delete consumer late", "late");
    focus(&mut browser, "Delete consumer late", "Approve");
    browser.press("Enter");
    browser.wait("document.querySelector('#confirm').open");
    assert_eq!(decide(&streamlag, &late, "reject", &office.bob).status, 200);
    browser.wait("document.querySelector('#confirm-gone').innerText.startsWith('This plan is gone')");
    browser.click("#confirm-yes");
    browser.wait("document.querySelector('#confirm').open");
    browser.press("Escape");
    browser.wait("!document.querySelector('#confirm').open");
    browser.wait("document.activeElement.id === 'remediation-title'");
    let posts: Vec<Value> = browser.events("Network.requestWillBeSent");
    let posts = posts.iter().filter(|sent| sent["request"]["method"] == "POST").count();
    assert_eq!(posts, 3);
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn two_people_and_those_who_may_look_only() {
    let redis = Redis::start();
    let (office, _here) = (Office::new(), sick(&redis));
    let streamlag = start(&office, &redis, &json!({"two_person": true}));
    plan(&streamlag, "release");
    let mut browser = Browser::start();
    let axe = axe();
    for scheme in ["light", "dark"] {
        browser.prefers(scheme);
        log_in(&mut browser, &page(&streamlag), TOKEN);
        shows(&mut browser, "plans", "release", "Hand 3 of ");
        browser.wait("document.querySelector('#remediation-note').innerText === 'To approve or reject takes a token with scope:remediate'");
        assert_eq!(browser.eval("document.querySelectorAll('#plans button').length"), 0);

        log_in(&mut browser, &page(&streamlag), &office.alice);
        shows(&mut browser, "plans", "release", "Hand 3 of ");
        if scheme == "light" {
            browser.wait("document.querySelectorAll('#plans button[value=Approve]').length > 0");
            focus(&mut browser, "release", "Approve");
            browser.press("Enter");
            browser.wait("document.querySelector('#confirm').open");
            let contrast = browser.eval(&format!("{CONTRAST}('dialog *')"));
            assert!(contrast.as_f64().unwrap() >= 4.5, "{contrast}");
            browser.screenshot(&pictures().join("plans-confirm-light.png"));
            browser.click("#confirm-yes");
            browser.wait("document.querySelector('#decided').innerText.endsWith(': approved once: another token with scope:remediate must approve it too')");
        }
        shows(
            &mut browser,
            "plans",
            "release",
            "Approved by alice; waits for approval by two tokens with scope:remediate",
        );
        // Nobody approves twice.
        let words = browser
            .eval(&format!("[...{}.querySelectorAll('button')].map(b => b.value).join()", line("plans", "release")));
        assert_eq!(words, "Reject");
        if scheme == "dark" {
            focus(&mut browser, "Delete consumer leftover", "Reject");
            browser.press("Enter");
            browser.wait("document.querySelector('#decided').innerText.endsWith(': rejected')");
            browser.click("#acts-title");
            shows(&mut browser, "acts", "rejected", "decided by alice");
        }
        for view in ["list", "group"] {
            if view == "group" {
                browser.click("#plans a");
                browser.wait("document.querySelector('#detail')?.checkVisibility() === true");
                shows(&mut browser, "plans", "release", "Hand 3 of ");
            }
            browser.screenshot(&pictures().join(format!("plans-{view}-{scheme}.png")));
            let contrast = browser.eval(&format!("{CONTRAST}('#remediation *')"));
            assert!(contrast.as_f64().unwrap() >= 4.5, "{scheme}: {contrast}");
            browser.eval(&format!("{axe}; true"));
            let found = browser.eval(
                "axe.run().then(found => found.violations.map(violation => violation.id + ': ' + violation.nodes[0].html))",
            );
            assert_eq!(found, json!([]), "{scheme}, {view}");
        }
    }
    browser.resize(360, 740);
    browser.wait("document.documentElement.scrollWidth <= 360");
    browser.screenshot(&pictures().join("plans-narrow.png"));
    log_in(&mut browser, &page(&streamlag), &office.bob);
    shows(&mut browser, "plans", "release", "Approved by alice");
    focus(&mut browser, "release", "Approve");
    browser.press("Enter");
    browser.wait("document.querySelector('#confirm').open");
    browser.click("#confirm-yes");
    browser.wait("document.querySelector('#decided').innerText.endsWith('release, orders / g: done, 3 changed')");
    let audit = office.audit();
    let intent = audit.iter().find(|record| record["kind"] == "intent").unwrap();
    assert_eq!((holds(&redis, HELD), &intent["by"]), (Some(0), &json!(["alice", "bob"])));
    // Off is off: nothing of it is on the page.
    office.config(&json!([{"stream": "*", "group": "*", "mode": "off"}]), &json!({}));
    streamlag.signal("-HUP");
    browser.wait("!document.querySelector('#remediation').checkVisibility()");
    assert_eq!(browser.complaints(), Vec::<String>::new());
}
