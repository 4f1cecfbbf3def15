//! The live page in a real browser.

use std::path::PathBuf;

use crate::common::browser::Browser;
use crate::common::receiver::Receiver;
use crate::common::{Redis, Streamlag, TOKEN, command, eventually, free_port, streamlag};

const GROUP: &str = "signalr-consumers";

/// Three streams: one whose group lags, one whose group is well, one without the group.
fn redis() -> Redis {
    let redis = Redis::start();
    redis.run(&format!("XGROUP CREATE events:chat {GROUP} 0 MKSTREAM"));
    redis.run(&format!("XGROUP CREATE events:ticket {GROUP} 0 MKSTREAM"));
    redis.add("events:chat", 1500);
    redis.add("events:ticket", 5);
    redis.add("events:remote", 1);
    redis.read("events:ticket", GROUP, "instance-1", 5);
    redis
}

fn watching(redis: &Redis, arguments: &[&str]) -> Streamlag {
    streamlag(&[&["--redis.url", &redis.url()], arguments].concat()).ready()
}

pub fn page(streamlag: &Streamlag) -> String {
    format!("http://{}/ui/", streamlag.address)
}

/// Opens the page and gives it the token.
pub fn log_in(browser: &mut Browser, url: &str, token: &str) {
    browser.open(url);
    browser.wait("document.querySelector('#token')?.checkVisibility() === true");
    browser.eval("document.querySelector('#token').focus()");
    enter(browser, token);
}

/// Types a token into the form that has the focus.
pub fn enter(browser: &mut Browser, token: &str) {
    browser.type_text(token);
    browser.press("Enter");
}

fn seen(browser: &mut Browser) {
    browser.wait("document.querySelectorAll('#rows tr:not(.space)').length > 0");
}

/// The text of a column of the row of a stream.
fn cell(stream: &str, column: &str) -> String {
    format!(
        "[...document.querySelectorAll('#rows tr')].find(tr => tr.querySelector('[data-column=stream]')?.innerText === {stream:?})?.querySelector('[data-column={column}]').innerText"
    )
}

fn streams(browser: &mut Browser) -> Vec<String> {
    let names =
        browser.eval("[...document.querySelectorAll('#rows [data-column=stream]')].map(cell => cell.innerText)");
    serde_json::from_value(names).unwrap()
}

pub fn pictures() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
}

#[test]
fn first_rows_an_update_in_place_filter_sort_and_one_group() {
    let redis = redis();
    let streamlag = watching(&redis, &[]);
    let mut browser = Browser::start();
    log_in(&mut browser, &page(&streamlag), TOKEN);
    seen(&mut browser);
    // What is wrong comes first.
    assert_eq!(streams(&mut browser), ["events:remote", "events:chat", "events:ticket"]);
    browser.wait(&format!("{} === 'no group'", cell("events:remote", "state")));
    browser.wait(&format!("{} === '1,500'", cell("events:chat", "lag")));
    browser.wait(
        "document.querySelector('#verdict-text').innerText.startsWith('2 of 3 groups need attention: 1 no group, 1 ')",
    );
    // Its incident is above all else, and not said twice.
    browser.wait(&format!("{} === 'missing'", cell("events:remote", "lag")));
    browser.wait("document.querySelector('#incidents-title').innerText.startsWith('2 open incidents: ')");
    let line = |browser: &mut Browser, name: &str| {
        browser.eval(&format!("[...document.querySelectorAll('#open-incidents li')].find(li => li.querySelector('.name').innerText.includes('{name}')).innerText"))
    };
    let missing = line(&mut browser, "events:remote / signalr-consumers");
    let missing = missing.as_str().unwrap();
    assert!(missing.contains("EventConsumerGroupMissing: ") && missing.contains(", pending"), "{missing}");
    assert_eq!(browser.eval("document.querySelectorAll('#problems li').length"), 0);
    let books = browser.eval("[...document.querySelectorAll('#open-incidents a[target]')].map(a => a.href)");
    let books: Vec<String> = serde_json::from_value(books).unwrap();
    assert!(books.iter().any(|book| book.ends_with("/docs/runbooks/EventConsumerGroupMissing.md")), "{books:?}");

    // The same row, another number.
    browser.eval(
        "window.row = [...document.querySelectorAll('#rows tr')].find(tr => tr.innerText.includes('events:chat')); 0",
    );
    redis.add("events:chat", 7);
    browser.wait(&format!(
        "{} === '1,507' && window.row.isConnected && window.row.innerText.includes('1,507')",
        cell("events:chat", "lag")
    ));

    browser.eval("document.querySelector('#filter').focus()");
    browser.type_text("TICK signalr");
    browser.wait("document.querySelectorAll('#rows tr:not(.space)').length === 1");
    assert_eq!(streams(&mut browser), ["events:ticket"]);
    assert!(browser.eval("location.hash").as_str().unwrap().contains("filter=TICK"));
    browser
        .eval("const box = document.querySelector('#filter'); box.value = ''; box.dispatchEvent(new Event('input'))");
    browser.wait("document.querySelectorAll('#rows tr:not(.space)').length === 3");
    browser.click("#columns [data-sort=stream] button");
    browser.wait("document.querySelector('#columns [data-sort=stream]').getAttribute('aria-sort') === 'ascending'");
    assert_eq!(streams(&mut browser), ["events:chat", "events:remote", "events:ticket"]);
    browser.click("#columns [data-sort=stream] button");
    browser.wait("document.querySelector('#columns [data-sort=stream]').getAttribute('aria-sort') === 'descending'");
    assert_eq!(streams(&mut browser), ["events:ticket", "events:remote", "events:chat"]);
    browser.click("#states button[value=problems]");
    browser.wait("document.querySelectorAll('#rows tr:not(.space)').length === 2");
    browser.click("#states button[value=all]");

    // By the keyboard alone: into the table, down to a row, into the group, back again.
    browser.wait("document.querySelectorAll('#rows tr:not(.space)').length === 3");
    browser.eval("document.querySelector('#scroll').focus()");
    browser.press("ArrowDown");
    browser.wait("document.activeElement.innerText === 'events:ticket'");
    browser.press("ArrowDown");
    browser.press("ArrowDown");
    browser.press("ArrowUp");
    browser.press("End");
    browser.wait("document.activeElement.innerText === 'events:chat'");
    browser.press("Enter");
    browser.wait("document.querySelector('#detail-title').innerText === 'events:chat / signalr-consumers'");
    browser.wait("document.querySelector('#facts').innerText.includes('1,507') && document.querySelectorAll('#plots path.one').length === 3");
    browser.wait("document.querySelector('#consumers-note').innerText === 'The group has no consumer.'");
    // What was before the page began to look is asked for once.
    let answers = browser.events("Network.responseReceived");
    let of_history = |answer: &&serde_json::Value| answer["response"]["url"].as_str().unwrap().contains("/history?");
    let statuses: Vec<_> =
        answers.iter().filter(of_history).map(|answer| answer["response"]["status"].as_u64()).collect();
    assert_eq!(statuses, [Some(200)]);
    redis.read("events:chat", GROUP, "<svg/onload=alert(1)>", 1);
    browser.wait("document.querySelector('#consumer-rows')?.innerText.includes('<svg/onload=alert(1)>')");
    browser.press("Escape");
    browser.wait(
        "document.querySelector('#overview').checkVisibility() && document.activeElement.innerText === 'events:chat'",
    );
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn incidents_come_first_with_who_was_told_and_go_below_when_they_are_over() {
    let redis = redis();
    redis.run(&format!("XGROUP CREATE events:remote {GROUP} 0"));
    let receiver = Receiver::start();
    let refusing = Receiver::answering(|_, _| ("403 Forbidden\r\n".to_owned(), "<b>no</b>".to_owned()));
    let file = tempfile::Builder::new().suffix(".yml").tempfile().unwrap();
    let webhooks = [&receiver, &refusing].map(|receiver| format!("{{url: '{}'}}", receiver.url("/")));
    let text =
        format!("notify: {{for: 0s, group_wait: 0s, group_interval: 1s, webhooks: [{}]}}\n", webhooks.join(", "));
    std::fs::write(file.path(), text).unwrap();
    let streamlag = watching(&redis, &["--config.file", file.path().to_str().unwrap()]);
    let mut browser = Browser::start();
    log_in(&mut browser, &page(&streamlag), TOKEN);
    seen(&mut browser);
    redis.add("events:chat", 5000);
    // One line for the group, of the worst; the other rule is in it.
    browser.wait("document.querySelectorAll('#open-incidents li').length === 1");
    let has = |text: &str| format!("document.querySelector('#open-incidents li')?.innerText.includes({text:?})");
    browser.wait(&has("CriticalEventConsumerLag: "));
    for text in ["critical", "events:chat / signalr-consumers", "also HighEventConsumerLag", "since ", "What to do"] {
        browser.wait(&has(text));
    }
    browser.wait(&has("told to 1 of 2 receivers; webhook"));
    browser.wait(&has("refused: 403 Forbidden: <b>no</b>"));
    assert_eq!(browser.eval("document.querySelectorAll('#incidents li b b').length"), 0);
    let above = browser.eval(
        "document.querySelector('#incidents').getBoundingClientRect().bottom <= document.querySelector('#tools').getBoundingClientRect().top",
    );
    assert_eq!(above, true);
    // By the keyboard into the group, and back.
    browser.eval("document.querySelector('#open-incidents a').focus()");
    browser.press("Enter");
    browser.wait("document.querySelector('#detail-title').innerText === 'events:chat / signalr-consumers'");
    browser.press("Escape");
    browser.wait("document.querySelector('#incidents').checkVisibility()");
    redis.run(&format!("XGROUP SETID events:chat {GROUP} $"));
    browser.wait("document.querySelectorAll('#open-incidents li').length === 0");
    browser
        .wait("document.querySelector('#resolved-title').innerText === '2 incidents resolved in the last 15 minutes'");
    browser.eval("document.querySelector('#resolved-title').focus()");
    browser.press("Enter");
    browser.wait("document.querySelector('#resolved-incidents').checkVisibility()");
    browser.wait("document.querySelector('#resolved-incidents li').innerText.includes('end told to 1 of 2 receivers')");
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn a_pause_is_obeyed_and_a_hidden_page_is_paused() {
    let redis = redis();
    let streamlag = watching(&redis, &[]);
    let mut browser = Browser::start();
    log_in(&mut browser, &page(&streamlag), TOKEN);
    seen(&mut browser);
    browser.click("#pause");
    browser.wait("document.querySelector('#connection').innerText.startsWith('Paused at the sample of')");
    browser.wait("document.querySelector('#pause').innerText === 'Resume'");
    eventually("the server has no viewer", || (streamlag.metric("streamlag_live_viewers") == Some(0.0)).then_some(()));
    redis.add("events:chat", 7);
    streamlag.next_sample();
    assert_eq!(browser.eval(&cell("events:chat", "lag")), "1,500");
    browser.click("#pause");
    browser.wait(&format!("{} === '1,507'", cell("events:chat", "lag")));

    let hidden = |browser: &mut Browser, hidden: bool| {
        browser.eval(&format!(
            "Object.defineProperty(document, 'hidden', {{ get: () => {hidden}, configurable: true }}); document.dispatchEvent(new Event('visibilitychange'))"
        ));
    };
    hidden(&mut browser, true);
    eventually("nobody looks", || (streamlag.metric("streamlag_live_viewers") == Some(0.0)).then_some(()));
    redis.add("events:chat", 1);
    streamlag.next_sample();
    assert_eq!(browser.eval(&cell("events:chat", "lag")), "1,507");
    hidden(&mut browser, false);
    browser.wait(&format!("{} === '1,508'", cell("events:chat", "lag")));
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn it_comes_back_after_a_restart_of_the_server() {
    let redis = redis();
    let address = format!("127.0.0.1:{}", free_port());
    let arguments = ["--web.listen-address", &address];
    let first = watching(&redis, &arguments);
    let mut browser = Browser::start();
    log_in(&mut browser, &page(&first), TOKEN);
    seen(&mut browser);
    first.signal("-TERM");
    browser
        .wait("document.querySelector('#connection').innerText.startsWith('streamlag is shutting down; next try in')");
    drop(first);
    redis.add("events:chat", 7);
    let _second = watching(&redis, &arguments);
    browser.wait(&format!("{} === '1,507'", cell("events:chat", "lag")));
    browser.wait("document.querySelector('#connection').innerText.startsWith('Live')");
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn a_redis_that_is_gone_is_what_is_seen_first() {
    let mut redis = redis();
    let streamlag = watching(&redis, &[]);
    let mut browser = Browser::start();
    log_in(&mut browser, &page(&streamlag), TOKEN);
    seen(&mut browser);
    redis.stop();
    browser.wait("document.querySelector('#verdict-text').innerText === 'Redis does not answer'");
    browser.wait("document.querySelector('#verdict-more').innerText.includes('What to do')");
    browser.wait("document.querySelector('#open-incidents').innerText.includes('StreamlagRedisDown')");
    browser.wait(&format!(
        "{} === 'unreadable' && {} === 'unknown'",
        cell("events:chat", "state"),
        cell("events:chat", "lag")
    ));
    browser.wait("document.title === '(!) streamlag'");
    redis.launch(&[]);
    browser.wait("document.querySelector('#verdict-text').innerText !== 'Redis does not answer'");
}

#[test]
fn tokens_wrong_expired_and_kept() {
    let redis = redis();
    let file = tempfile::NamedTempFile::new().unwrap();
    // Until it expires, streamlag, Chromium and the page have to start, and the rows to be seen.
    let made = command(&["token", "short", "--expires", "20s"], &[]).output().unwrap();
    let text = String::from_utf8(made.stdout).unwrap();
    let mut made = text.lines().filter_map(|line| line.strip_prefix("  "));
    let (short, line) = (made.next().unwrap(), made.next().unwrap());
    std::fs::write(file.path(), format!("{line}\n")).unwrap();
    let streamlag = watching(&redis, &["--api.tokens-file", file.path().to_str().unwrap()]);
    let mut browser = Browser::start();
    log_in(&mut browser, &page(&streamlag), "wrong");
    browser.wait("document.querySelector('#login-why').innerText === 'The API token is not valid.'");
    browser.wait("document.activeElement.id === 'token'");
    enter(&mut browser, short);
    seen(&mut browser);
    // While it is looked at.
    browser.wait("document.querySelector('#login-why').innerText === 'The API token has expired.'");
    browser.wait("!document.querySelector('#overview').checkVisibility()");

    // Kept only where that is asked for, and for the tab only.
    enter(&mut browser, TOKEN);
    seen(&mut browser);
    assert_eq!(browser.eval("sessionStorage.length + localStorage.length + document.cookie.length"), 0);
    browser.open(&page(&streamlag));
    browser.wait("document.querySelector('#token')?.checkVisibility() === true");
    browser.click("#remember");
    browser.eval("document.querySelector('#token').focus()");
    enter(&mut browser, TOKEN);
    seen(&mut browser);
    assert_eq!(browser.eval("sessionStorage.length"), 1);
    browser.open(&page(&streamlag));
    seen(&mut browser);
    // The whole page, its data included.
    let before = browser.events("Network.requestWillBeSent").len();
    browser.open(&page(&streamlag));
    seen(&mut browser);
    let requests = browser.events("Network.requestWillBeSent");
    let urls: Vec<&str> = requests[before..].iter().filter_map(|request| request["request"]["url"].as_str()).collect();
    let urls: Vec<&&str> = urls.iter().filter(|url| url.starts_with("http")).collect();
    assert!(urls.len() <= 5 && urls.iter().all(|url| !url.contains(TOKEN)), "{urls:?}");
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn several_targets() {
    let (one, other) = (redis(), Redis::start());
    other.run("XGROUP CREATE jobs mailers 0 MKSTREAM");
    let file = tempfile::Builder::new().suffix(".yml").tempfile().unwrap();
    let text = format!(
        "targets:\n  - name: one\n    redis: {{url: '{}'}}\n  - name: other\n    redis: {{url: '{}'}}\n    streams: [jobs]\n    groups: [mailers]\n",
        one.url(),
        other.url()
    );
    std::fs::write(file.path(), text).unwrap();
    let streamlag = streamlag(&["--config.file", file.path().to_str().unwrap()]).ready();
    let mut browser = Browser::start();
    log_in(&mut browser, &page(&streamlag), TOKEN);
    seen(&mut browser);
    browser.wait("document.querySelector('#target').innerText.includes('one: unhealthy')");
    browser.eval(
        "const box = document.querySelector('#target'); box.value = 'other'; box.dispatchEvent(new Event('change'))",
    );
    browser.wait(&format!("{} === '0'", cell("jobs", "lag")));
    assert_eq!(streams(&mut browser), ["jobs"]);
    // What is wrong elsewhere is not out of sight.
    browser.wait("document.querySelector('#verdict-more').innerText.includes('Other targets: one unhealthy')");
    assert!(browser.eval("location.hash").as_str().unwrap().contains("target=other"));
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn hostile_names_are_text() {
    let redis = Redis::start();
    let names: [&[u8]; 7] = [
        b"<script>document.title='owned'</script>",
        b"<img src=x onerror=\"document.title='owned'\">",
        b"\"><svg/onload=document.title='owned'>",
        b"javascript:document.title='owned'",
        "\u{202e}gnp.live\u{202c} \u{200b}".as_bytes(),
        b"\xff\xfe\x00\x0a\x0d{{constructor.constructor('x')()}}",
        b"a&amp;b%00&stream=c#d",
    ];
    for name in names {
        redis.run_bytes(&[b"XGROUP", b"CREATE", name, b"<b>g</b>&", b"0", b"MKSTREAM"]);
        redis.run_bytes(&[b"XADD", name, b"*", b"k", b"v"]);
    }
    let url = redis.url_of_everybody();
    let streamlag = streamlag(&["--redis.url", &url, "--streams", "*", "--groups", "*"]).ready();
    let mut browser = Browser::start();
    log_in(&mut browser, &page(&streamlag), TOKEN);
    browser.wait("document.querySelectorAll('#rows tr:not(.space)').length === 7");
    let shown = streams(&mut browser);
    assert!(shown.contains(&"<script>document.title='owned'</script>".to_owned()), "{shown:?}");
    assert_eq!(browser.eval("document.querySelectorAll('script').length"), 1);
    assert_eq!(browser.eval("document.querySelectorAll('#rows img, #rows svg:not(.spark), #rows b').length"), 0);
    // Each is found again by its address.
    for stream in &shown {
        browser
            .eval(&format!("[...document.querySelectorAll('#rows a')].find(a => a.innerText === {stream:?}).click()"));
        browser.wait("document.querySelector('#detail').checkVisibility()");
        browser.wait("document.querySelector('#facts').innerText.includes('Certainty')");
        assert_eq!(
            browser.eval("document.querySelectorAll('#detail img, #detail svg:not(.plot), #detail script').length"),
            0
        );
        browser.press("Escape");
        browser.wait("document.querySelector('#overview').checkVisibility()");
    }
    assert_ne!(browser.eval("document.title"), "owned");
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn ten_thousand_groups_in_a_window_of_rows() {
    let redis = Redis::start();
    let mut pipe = redis::pipe();
    for n in 0..10_000 {
        pipe.cmd("XGROUP").arg("CREATE").arg(format!("s:{n:05}")).arg("g").arg("0").arg("MKSTREAM").ignore();
    }
    pipe.query::<()>(&mut redis.connection()).unwrap();
    redis.add("s:07777", 2000);
    // A row whose newest sample is three intervals old is gone, and with it the focus: a busy machine takes seconds for 10,000 of them.
    let (url, slow) = (redis.url_of_everybody(), ["--poll.interval", "10s", "--redis.timeout", "30s"]);
    let streamlag =
        streamlag(&[&["--redis.url", &url, "--streams", "s:*", "--groups", "*"][..], &slow].concat()).ready();
    let mut browser = Browser::start();
    log_in(&mut browser, &page(&streamlag), TOKEN);
    browser.wait("document.querySelector('#count').innerText === '10,000 groups'");
    browser.wait("document.querySelector('#rows [data-column=stream]')?.innerText === 's:07777'");
    let drawn = browser.eval("document.querySelectorAll('#rows tr').length");
    assert!(drawn.as_u64().unwrap() < 100, "{drawn}");
    browser.eval("document.querySelector('#scroll').focus()");
    browser.press("ArrowDown");
    browser.press("End");
    browser.wait(
        "document.activeElement.innerText === 's:09999' && document.activeElement.closest('tr').ariaRowIndex === '10001'",
    );
    browser.press("Home");
    browser.wait("document.activeElement.innerText === 's:07777'");
    redis.add("s:00001", 3000);
    browser.wait(&format!("{} === '3,000'", cell("s:00001", "lag")));
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

/// The contrast of an element's text against its background, as WCAG 2.2 reckons it.
pub const CONTRAST: &str = r"
(selector => {
  const canvas = new OffscreenCanvas(1, 1).getContext('2d', { willReadFrequently: true });
  const rgb = color => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1); return [...canvas.getImageData(0, 0, 1, 1).data]; };
  const light = ([r, g, b]) => [r, g, b].map(v => v / 255).map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4).reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
  const back = e => { for (; e; e = e.parentElement) { const c = rgb(getComputedStyle(e).backgroundColor); if (c[3] > 0) return c; } return [255, 255, 255, 255]; };
  return Math.min(...[...document.querySelectorAll(selector)].filter(e => e instanceof HTMLElement && e.checkVisibility() && e.innerText.trim()).map(e => {
    const [a, b] = [light(rgb(getComputedStyle(e).color)), light(back(e))].sort((x, y) => y - x);
    return (a + .05) / (b + .05);
  }));
})";

#[test]
fn light_and_dark_can_be_read_and_a_mark_needs_no_colour() {
    let redis = redis();
    let streamlag = watching(&redis, &[]);
    let mut browser = Browser::start();
    for scheme in ["light", "dark"] {
        browser.prefers(scheme);
        log_in(&mut browser, &page(&streamlag), TOKEN);
        seen(&mut browser);
        let contrast = browser.eval(&format!("{CONTRAST}('body *')"));
        assert!(contrast.as_f64().unwrap() >= 4.5, "{scheme}: {contrast}");
        browser.screenshot(&pictures().join(format!("live-{scheme}.png")));
        let background = browser.eval("getComputedStyle(document.body).backgroundColor");
        assert_eq!(background == "rgb(255, 255, 255)", scheme == "light", "{background}");
    }
    // Every level has a shape of its own, and a word.
    let shapes = browser.eval(
        "['bad', 'warn', 'ok', 'unknown'].map(level => { const box = document.createElement('p'); box.dataset.level = level; box.append(Object.assign(document.createElement('span'), { className: 'mark' })); document.body.append(box); const style = getComputedStyle(box.firstChild); const shape = [style.clipPath, style.borderRadius, style.borderStyle].join(); box.remove(); return shape; })",
    );
    let shapes: std::collections::BTreeSet<String> = serde_json::from_value(shapes).unwrap();
    assert_eq!(shapes.len(), 4, "{shapes:?}");
    browser.resize(360, 740);
    browser.wait("document.documentElement.scrollWidth <= 360");
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

/// What comes is drawn behind what was, with what happened and a longer time where the file has it.
#[test]
fn a_group_shows_what_is_expected_what_was_lost_and_days() {
    use crate::forecast;
    let (redis, folder) = (forecast::redis(), tempfile::tempdir().unwrap());
    let streamlag = forecast::start(&redis, &forecast::grown(&folder), &[]);
    let mut browser = Browser::start();
    for scheme in ["light", "dark"] {
        browser.prefers(scheme);
        log_in(&mut browser, &page(&streamlag), TOKEN);
        browser.wait("document.querySelectorAll('#rows tr:not(.space)').length === 1");
        browser.click("#rows [data-column=stream] a");
        // Of the plot of lag alone: a band, and a line within it.
        browser.wait("document.querySelectorAll('#plots path.ahead').length === 1 && document.querySelectorAll('#plots path.likely').length === 1");
        browser.wait("document.querySelector('#outlook').innerText.startsWith('In 60 min: lag 1,')");
        let outlook = browser.eval("document.querySelector('#outlook').innerText");
        assert!(outlook.as_str().unwrap().contains("with 80 % between "), "{outlook}");
        let label = browser.eval("document.querySelector('#plots svg').getAttribute('aria-label')");
        assert!(label.as_str().unwrap().contains(" expected"), "{label}");
        if scheme == "light" {
            redis.run("XTRIM orders MAXLEN 1000");
        }
        browser.wait("document.querySelectorAll('#plots path.loss').length === 3");
        browser.wait("/[0-9] 80 lost/.test(document.querySelector('#marks').innerText)");
        browser.wait("!document.querySelector('#spans button[value=day]').disabled");
        browser.click("#spans button[value=day]");
        browser.wait("document.querySelector('#spans button[value=day]').getAttribute('aria-pressed') === 'true'");
        // Six hours ahead are beyond this history: an hour is not.
        browser.wait("document.querySelector('#outlook').innerText.startsWith('In 60 min')");
        browser.wait("document.querySelectorAll('#plots path.ahead').length === 1");
        browser.screenshot(&pictures().join(format!("forecast-{scheme}.png")));
        browser.click("#spans button[value=hour]");
        browser.wait("document.querySelectorAll('#plots path.ahead').length === 1");
        browser.screenshot(&pictures().join(format!("forecast-hour-{scheme}.png")));
        let contrast = browser.eval(&format!("{CONTRAST}('#detail *')"));
        assert!(contrast.as_f64().unwrap() >= 4.5, "{scheme}: {contrast}");
    }
    let asked = browser.events("Network.responseReceived");
    let is_of_a_day = |answer: &serde_json::Value| answer["response"]["url"].as_str().unwrap().contains("step=300s");
    assert!(asked.iter().any(is_of_a_day));
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

/// axe-core, where `scripts/axe` puts it.
pub fn axe() -> String {
    let file = pictures().join("../axe-core-4.14.1/package/axe.min.js");
    std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{} ({error}): run scripts/axe", file.display()))
}

#[test]
fn axe_finds_nothing_in_the_list_and_in_a_group_in_light_and_in_dark() {
    let (redis, axe) = (redis(), axe());
    let streamlag = watching(&redis, &[]);
    let mut browser = Browser::start();
    for scheme in ["light", "dark"] {
        browser.prefers(scheme);
        log_in(&mut browser, &page(&streamlag), TOKEN);
        seen(&mut browser);
        for view in ["list", "group"] {
            if view == "group" {
                browser.click("#rows [data-column=stream] a");
                browser.wait("document.querySelector('#detail')?.checkVisibility() === true");
            }
            browser.eval(&format!("{axe}; true"));
            let found = browser.eval(
                "axe.run().then(found => found.violations.map(violation => violation.id + ': ' + violation.nodes[0].html))",
            );
            assert_eq!(found, serde_json::json!([]), "{scheme}, {view}");
        }
    }
}
