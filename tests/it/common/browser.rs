//! A real browser: headless Chromium, driven over the Chrome DevTools Protocol.

use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use base64::Engine as _;
use serde_json::{Value, json};
use tungstenite::stream::MaybeTlsStream;
use tungstenite::{Message, WebSocket};

use super::{PATIENCE, eventually_right};

/// Events that are kept, of each browser.
const MAX_EVENTS: usize = 10_000;

/// A browser with one page.
pub struct Browser {
    child: Child,
    _profile: tempfile::TempDir,
    socket: WebSocket<MaybeTlsStream<TcpStream>>,
    session: String,
    calls: u64,
    events: VecDeque<Value>,
}

impl Browser {
    pub fn start() -> Self {
        let profile = tempfile::tempdir().unwrap();
        let mut child = Command::new("chromium")
            .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"])
            .args(["--disable-background-networking", "--disable-component-update", "--disable-extensions"])
            .args(["--remote-debugging-port=0", "--window-size=1280,800", "--force-color-profile=srgb", "--lang=en-US"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank")
            .env("TZ", "UTC")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("chromium ({error}): run 'make test', which installs it"));
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let mut lines = stderr.lines().map_while(Result::ok);
        let address = lines.by_ref().find_map(|line| line.strip_prefix("DevTools listening on ").map(str::to_owned));
        let address = address.expect("chromium says where it listens");
        // Whatever else it complains of is read, so that it does not wait.
        std::thread::spawn(move || lines.for_each(drop));
        let (socket, _) = tungstenite::connect(&address).unwrap();
        if let MaybeTlsStream::Plain(stream) = socket.get_ref() {
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
        }
        let mut browser =
            Self { child, _profile: profile, socket, session: String::new(), calls: 0, events: VecDeque::new() };
        let targets = browser.call("Target.getTargets", json!({}));
        let page = targets["targetInfos"].as_array().unwrap().iter().find(|target| target["type"] == "page").unwrap();
        let page = page["targetId"].clone();
        let attached = browser.call("Target.attachToTarget", json!({"targetId": page, "flatten": true}));
        browser.session = attached["sessionId"].as_str().unwrap().to_owned();
        for domain in ["Page", "Runtime", "Log", "Network", "Audits"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        browser
    }

    pub fn call(&mut self, method: &str, params: Value) -> Value {
        self.calls += 1;
        let mut request = json!({"id": self.calls, "method": method, "params": params});
        if !self.session.is_empty() {
            request["sessionId"] = self.session.clone().into();
        }
        self.socket.send(Message::text(request.to_string())).unwrap();
        loop {
            let Message::Text(text) = self.socket.read().unwrap() else { continue };
            let mut message: Value = serde_json::from_str(&text).unwrap();
            if message["id"] == self.calls {
                assert!(message.get("error").is_none(), "{method}: {}", message["error"]);
                return message["result"].take();
            }
            if message.get("method").is_some() {
                self.events.push_back(message);
                if self.events.len() > MAX_EVENTS {
                    self.events.pop_front();
                }
            }
        }
    }

    pub fn open(&mut self, url: &str) {
        // A page that differs in its fragment only would not be loaded.
        self.call("Page.navigate", json!({"url": "about:blank"}));
        self.call("Page.navigate", json!({"url": url}));
    }

    /// What an expression comes to; promises are waited for.
    pub fn eval(&mut self, expression: &str) -> Value {
        let params = json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let mut result = self.call("Runtime.evaluate", params);
        assert!(result.get("exceptionDetails").is_none(), "{expression}: {}", result["exceptionDetails"]);
        result["result"]["value"].take()
    }

    /// Waits until an expression is true.
    pub fn wait(&mut self, expression: &str) {
        let show = "document.body?.innerText.slice(0, 2000)";
        eventually_right(|| {
            let params = json!({"expression": expression, "returnByValue": true});
            let found = self.call("Runtime.evaluate", params)["result"]["value"] == true;
            if found { Ok(()) } else { Err(format!("{expression}; the page: {}", self.eval(show))) }
        });
    }

    pub fn click(&mut self, selector: &str) {
        self.eval(&format!("document.querySelector({selector:?}).click()"));
    }

    /// Types into what has the focus.
    pub fn type_text(&mut self, text: &str) {
        self.call("Input.insertText", json!({"text": text}));
    }

    pub fn press(&mut self, key: &str) {
        let code = match key {
            "Enter" => 13,
            "Tab" => 9,
            "Escape" => 27,
            "ArrowUp" => 38,
            "ArrowDown" => 40,
            "End" => 35,
            "Home" => 36,
            other => panic!("{other}"),
        };
        let mut params = json!({"type": "keyDown", "key": key, "code": key, "windowsVirtualKeyCode": code});
        if key == "Enter" {
            params["text"] = "\r".into();
        }
        self.call("Input.dispatchKeyEvent", params.clone());
        params["type"] = "keyUp".into();
        params.as_object_mut().unwrap().remove("text");
        self.call("Input.dispatchKeyEvent", params);
    }

    pub fn prefers(&mut self, scheme: &str) {
        let features = json!([{"name": "prefers-color-scheme", "value": scheme}]);
        self.call("Emulation.setEmulatedMedia", json!({"features": features}));
    }

    /// What the browser has seen by now: `Network.requestWillBeSent` and the like.
    pub fn events(&mut self, method: &str) -> Vec<Value> {
        // What has happened has been told before this is answered.
        self.call("Runtime.evaluate", json!({"expression": "0"}));
        self.events.iter().filter(|event| event["method"] == method).map(|event| event["params"].clone()).collect()
    }

    /// What went wrong in the page: exceptions, violations of its policy, what it logs as errors. A refused or broken
    /// request is none.
    pub fn complaints(&mut self) -> Vec<String> {
        let mut found: Vec<String> = Vec::new();
        found.extend(self.events("Runtime.exceptionThrown").iter().map(Value::to_string));
        let logged = self.events("Log.entryAdded");
        let logged = logged.iter().filter(|entry| entry["entry"]["source"] != "network");
        found.extend(logged.map(Value::to_string));
        found.extend(
            self.events("Audits.issueAdded")
                .iter()
                .filter(|issue| issue["issue"]["code"] == "ContentSecurityPolicyIssue")
                .map(Value::to_string),
        );
        found
    }

    /// A picture of the page as it can be seen.
    pub fn screenshot(&mut self, file: &Path) {
        let picture = self.call("Page.captureScreenshot", json!({"format": "png"}));
        let bytes = base64::engine::general_purpose::STANDARD.decode(picture["data"].as_str().unwrap()).unwrap();
        std::fs::write(file, bytes).unwrap();
    }

    pub fn resize(&mut self, width: u32, height: u32) {
        let params = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.call("Emulation.setDeviceMetricsOverride", params);
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // It ends its own processes where it is asked to.
        let close = json!({"id": u64::MAX >> 12, "method": "Browser.close"});
        let _ = self.socket.send(Message::text(close.to_string()));
        let deadline = std::time::Instant::now() + Duration::from_secs(5);
        while matches!(self.child.try_wait(), Ok(None)) && std::time::Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
