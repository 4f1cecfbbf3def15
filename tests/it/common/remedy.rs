//! A streamlag that may act, the tokens that decide, and groups that need it.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::{Value, json};

use super::{Redis, Reply, Streamlag, TOKEN, command, eventually, streamlag_with_env};

/// The user that acts.
pub const ACTOR: &str = "streamlag-act";

/// Its password.
pub const PASSWORD: &str = "pw-of-the-actor";

/// Flags with which things happen soon, where others are not given.
pub const SOON: [&str; 6] = ["--consumer.dead-after", "1s", "--group.window", "1s", "--group.window-samples", "3"];

/// A folder with a password, tokens and an audit file.
pub struct Office {
    pub dir: tempfile::TempDir,
    /// What is watched.
    pub stream: &'static str,
    /// Secrets of tokens that may decide.
    pub alice: String,
    pub bob: String,
}

impl Office {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let file = dir.path().join(name);
            std::fs::write(&file, text).unwrap();
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        };
        write("password", PASSWORD);
        write("secret", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
        let [(alice, one), (bob, two)] = TOKENS.clone();
        write("tokens", &format!("{one}\n{two}\n"));
        Self { dir, stream: "orders", alice, bob }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A configuration file of these rules.
    pub fn config(&self, rules: &Value, more: &Value) -> String {
        let mut section = json!({
            "user": ACTOR, "password_file": "password", "audit_file": "audit.jsonl", "kill_switch_file": "stop",
            "rules": rules,
        });
        section.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap_or_default());
        let file = self.path("streamlag.yml");
        let whole = json!({"streams": [self.stream], "groups": ["*"], "remediation": section});
        std::fs::write(&file, whole.to_string()).unwrap();
        file.to_str().unwrap().to_owned()
    }

    pub fn start(&self, url: &str, rules: &Value, more: &Value) -> Streamlag {
        self.start_with(url, rules, more, &[])
    }

    pub fn start_with(&self, url: &str, rules: &Value, more: &Value, flags: &[&str]) -> Streamlag {
        self.start_in(url, rules, more, flags, &[])
    }

    /// The same in an environment.
    pub fn start_in(&self, url: &str, rules: &Value, more: &Value, flags: &[&str], env: &[(&str, &str)]) -> Streamlag {
        let (file, tokens) = (self.config(rules, more), self.path("tokens"));
        let own = ["--redis.url", url, "--config.file", &file, "--api.tokens-file", tokens.to_str().unwrap()];
        let soon = SOON.chunks(2).filter(|flag| !flags.contains(&flag[0])).flatten().copied();
        let all = [&own, &soon.collect::<Vec<_>>()[..], flags].concat();
        streamlag_with_env(&all, &[&[("STREAMLAG_API_TOKEN", TOKEN)], env].concat()).ready()
    }

    /// What the record says, line by line. It must hold together.
    pub fn audit(&self) -> Vec<Value> {
        let file = self.path("audit.jsonl");
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        if !text.is_empty() {
            let verified = command(&["audit", "verify", file.to_str().unwrap()], &[]).output().unwrap();
            assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stderr));
        }
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// Those of alice and of bob.
static TOKENS: LazyLock<[(String, String); 2]> = LazyLock::new(|| ["alice", "bob"].map(token));

/// The secret and the line of a token that may decide.
fn token(name: &str) -> (String, String) {
    let made = command(&["token", name, "--scope", "remediate"], &[]).output().unwrap();
    let text = String::from_utf8(made.stdout).unwrap();
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let secret = lines.iter().find(|line| line.starts_with("slt_")).unwrap();
    let line = lines.iter().find(|line| line.contains("sha256:")).unwrap();
    assert!(line.ends_with(" scope:remediate"), "{line}");
    ((*secret).to_owned(), (*line).to_owned())
}

/// Grants of the acting user by action, from the document: those of every act, and those of this one.
pub fn documented(action: &str) -> Vec<String> {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/remediation.md")).unwrap();
    let base = text.lines().find(|line| line.starts_with("redis-cli ACL SETUSER streamlag-act ")).unwrap();
    let row = format!("| `{action}` | `+");
    let row = text.lines().find_map(|line| line.strip_prefix(row.trim_end_matches('+'))).unwrap();
    let row = row.split('`').next().unwrap().replace('\\', "");
    let words = base.split(' ').map(|word| word.trim_matches('\'').to_owned()).filter(|word| word.starts_with('+'));
    words.chain(row.split(' ').map(str::to_owned)).collect()
}

/// Makes the acting user, with these grants and no others.
pub fn grant(redis: &Redis, grants: &[String]) {
    redis.run(&format!("ACL SETUSER {ACTOR} reset on >{PASSWORD} ~orders* -@all {}", grants.join(" ")));
}

/// Makes the acting user, with everything that the actions take.
pub fn grant_all(redis: &Redis) {
    let actions = ["delete_idle_consumers", "drop_ghosts", "release", "dead_letter"];
    let mut all: Vec<String> = actions.iter().flat_map(|action| documented(action)).collect();
    all.sort();
    all.dedup();
    grant(redis, &all);
}

pub fn board(streamlag: &Streamlag) -> Value {
    streamlag.get("/api/v1/remediation").json()
}

/// The plan of this action, once there is one.
pub fn plan(streamlag: &Streamlag, action: &str) -> Value {
    eventually(&format!("a plan to {action}"), || {
        let plans = board(streamlag)["plans"].as_array().unwrap().clone();
        plans.into_iter().find(|plan| plan["action"] == action)
    })
}

pub fn decide(streamlag: &Streamlag, plan: &Value, word: &str, secret: &str) -> Reply {
    let path = format!("/api/v1/remediation/{}/{word}", plan["id"].as_str().unwrap());
    streamlag.request("POST", &path, &[("Authorization", &format!("Bearer {secret}"))])
}

/// A consumer that reads an entry at a time and acknowledges it.
pub struct Worker {
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    pub fn start(redis: &Redis, stream: &str, group: &str, name: &str) -> Self {
        let ends = Arc::new(AtomicBool::new(false));
        let (told, client) = (Arc::clone(&ends), redis.client());
        let (stream, group, name) = (stream.to_owned(), group.to_owned(), name.to_owned());
        let thread = std::thread::spawn(move || {
            let mut connection = client.get_connection().unwrap();
            while !told.load(Ordering::Relaxed) {
                let mut read = redis::cmd("XREADGROUP");
                read.arg("GROUP").arg(&group).arg(&name).arg("COUNT").arg(1).arg("STREAMS").arg(&stream).arg(">");
                let read: redis::RedisResult<redis::Value> = read.query(&mut connection);
                if let Ok(redis::Value::Array(streams)) = read {
                    let id = first_id(&streams);
                    let _ = redis::cmd("XACK").arg(&stream).arg(&group).arg(id).query::<i64>(&mut connection);
                }
                std::thread::sleep(Duration::from_millis(150));
            }
        });
        Self { ends, thread: Some(thread) }
    }
}

fn first_id(streams: &[redis::Value]) -> String {
    let list = |value: &redis::Value, at: usize| match value {
        redis::Value::Array(items) => items[at].clone(),
        other => panic!("{other:?}"),
    };
    let entry = list(&list(&streams[0], 1), 0);
    redis::from_redis_value(list(&entry, 0)).unwrap()
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
