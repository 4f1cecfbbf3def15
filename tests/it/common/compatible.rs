//! A fake of servers that are compatible with Redis, over a real socket: none of them can be had here. It answers as their sources,
//! documents and issues say, which are named where they are used; it was not held against the servers themselves.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

pub const STREAM: &str = "events:chat";
pub const GROUP: &str = "signalr-consumers";

/// Entries of the stream; how many the group was given, all of them pending still.
pub const ENTRIES: u64 = 20;
pub const READ: u64 = 5;

pub fn int(number: impl std::fmt::Display) -> String {
    format!(":{number}\r\n")
}

pub fn text(text: &str) -> String {
    format!("${}\r\n{text}\r\n", text.len())
}

pub fn list(items: &[String]) -> String {
    format!("*{}\r\n{}", items.len(), items.concat())
}

pub fn fields(fields: &[(&str, String)]) -> String {
    list(&fields.iter().flat_map(|(name, value)| [text(name), value.clone()]).collect::<Vec<_>>())
}

pub fn error(error: &str) -> String {
    format!("-{error}\r\n")
}

pub const NIL: &str = "$-1\r\n";

/// What the fake holds: one stream, one group, one consumer.
#[derive(Clone, Copy)]
pub struct Model {
    began_ms: u64,
    /// Where the fake listens.
    port: u16,
}

impl Model {
    /// The id of an entry, counted from 1.
    pub fn id(self, entry: u64) -> String {
        format!("{}-0", self.began_ms + entry)
    }

    pub fn entry(self, entry: u64) -> String {
        list(&[text(&self.id(entry)), list(&[text("n"), text("1")])])
    }

    /// What Redis 5.0 to 6.2 tell of a stream, as KeyDB does.
    pub fn stream(self) -> Vec<(&'static str, String)> {
        vec![
            ("length", int(ENTRIES)),
            ("radix-tree-keys", int(1)),
            ("radix-tree-nodes", int(2)),
            ("last-generated-id", text(&self.id(ENTRIES))),
            ("groups", int(1)),
            ("first-entry", self.entry(1)),
            ("last-entry", self.entry(ENTRIES)),
        ]
    }

    /// What 7.0 tells beside.
    pub fn stream_of_7(self) -> Vec<(&'static str, String)> {
        let more = [
            ("max-deleted-entry-id", text("0-0")),
            ("entries-added", int(ENTRIES)),
            ("recorded-first-entry-id", text(&self.id(1))),
        ];
        [self.stream(), more.to_vec()].concat()
    }

    /// What Redis 5.0 to 6.2 tell of a group.
    pub fn group(self) -> Vec<(&'static str, String)> {
        vec![
            ("name", text(GROUP)),
            ("consumers", int(1)),
            ("pending", int(READ)),
            ("last-delivered-id", text(&self.id(READ))),
        ]
    }

    pub fn consumer(self) -> Vec<(&'static str, String)> {
        vec![("name", text("instance-1")), ("pending", int(READ)), ("idle", int(10))]
    }

    /// `CLUSTER SLOTS`: all slots are here, at this host.
    pub fn slots(self, words: &[String], host: &str, metadata: &[String]) -> Option<String> {
        let node = list(&[host.to_owned(), int(self.port), text("the-id"), list(metadata)]);
        (words.join(" ") == "CLUSTER SLOTS").then(|| list(&[list(&[int(0), int(16383), node])]))
    }

    /// An answer as Redis gives it, to all that streamlag asks; `None` where it does not know the command.
    pub fn answer(self, words: &[String]) -> Option<String> {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        Some(match words[..] {
            ["AUTH", ..] | ["SELECT", "0"] => "+OK\r\n".to_owned(),
            ["HELLO", ..] => fields(&[("server", text("redis")), ("version", text("6.2.0")), ("proto", int(2))]),
            ["TIME"] => list(&[text(&now.as_secs().to_string()), text(&now.subsec_micros().to_string())]),
            ["XINFO", "STREAM" | "GROUPS" | "CONSUMERS", key, ..] if key != STREAM => error("ERR no such key"),
            ["XINFO", "STREAM", _] => fields(&self.stream()),
            ["XINFO", "GROUPS", _] => list(&[fields(&self.group())]),
            ["XINFO", "CONSUMERS", _, GROUP] => list(&[fields(&self.consumer())]),
            ["XINFO", "CONSUMERS", ..] | ["XPENDING", _, "", ..] => error("NOGROUP No such consumer group"),
            ["XPENDING", _, GROUP, "-", "+", "1"] => {
                list(&[list(&[text(&self.id(1)), text("instance-1"), int(10), int(1)])])
            }
            ["XLEN", _] => int(ENTRIES),
            ["XRANGE", _, from, to, "COUNT", count] => {
                let ms = |id: &str| id.split('-').next().unwrap_or_default().parse().unwrap_or(u64::MAX);
                let seq = |id: &str| id.split('-').nth(1).map_or(0, |seq| seq.parse::<u64>().unwrap());
                let first = (ms(from) + u64::from(seq(from) > 0)).saturating_sub(self.began_ms).max(1);
                let last = if to == "+" { ENTRIES } else { ms(to).saturating_sub(self.began_ms).min(ENTRIES) };
                let entries: Vec<String> = (first..=last).map(|entry| self.entry(entry)).collect();
                list(&entries[..entries.len().min(count.parse().unwrap())])
            }
            ["SCAN", ..] => list(&[text("0"), list(&[text(STREAM)])]),
            _ => return None,
        })
    }
}

/// An answer of a server's own; `None` where it answers as Redis does.
pub type Own = fn(Model, &[String]) -> Option<String>;

/// How a server differs from Redis.
#[derive(Clone)]
pub struct Shape {
    /// Its own answers.
    pub own: Own,
    /// What it says of a command that it does not know.
    pub unknown: fn(&[String]) -> String,
    /// Commands that it does not know, by their first words.
    pub without: &'static [&'static str],
    /// Whether it looks at a command of a transaction when that is queued; else only when it runs.
    pub checks_early: bool,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            own: |_, _| None,
            unknown: |words| error(&format!("ERR unknown command '{}', with args beginning with: ", words[0])),
            without: &[],
            checks_early: true,
        }
    }
}

impl Shape {
    /// The answer, and whether it is that the command is not known.
    fn answer(&self, model: Model, words: &[String]) -> (String, bool) {
        let line = words.join(" ");
        if self.without.iter().any(|command| line == *command || line.starts_with(&format!("{command} "))) {
            return ((self.unknown)(words), true);
        }
        match (self.own)(model, words).or_else(|| model.answer(words)) {
            Some(answer) => (answer, false),
            None => ((self.unknown)(words), true),
        }
    }
}

/// A server that is not quite Redis.
pub struct Fake {
    pub port: u16,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Fake {
    pub fn start(shape: Shape) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let model = Model { began_ms: u64::try_from(now.as_millis()).unwrap() - 60_000, port };
        let asked = Arc::default();
        let heard = Arc::clone(&asked);
        // Ends with the test's process.
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let (shape, heard) = (shape.clone(), Arc::clone(&heard));
                std::thread::spawn(move || serve(client, &shape, model, &heard));
            }
        });
        Self { port, asked }
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// How often it was asked what begins like this.
    pub fn times_asked(&self, line: &str) -> usize {
        self.asked.lock().unwrap().iter().filter(|asked| asked.starts_with(line)).count()
    }
}

fn serve(mut client: TcpStream, shape: &Shape, model: Model, heard: &Mutex<Vec<String>>) {
    client.set_nodelay(true).unwrap();
    let (mut unread, mut bytes) = (Vec::new(), [0; 64 * 1024]);
    // What is queued, and whether it will not run.
    let mut queued: Option<(Vec<Vec<String>>, bool)> = None;
    loop {
        let length = match client.read(&mut bytes) {
            Ok(0) | Err(_) => return,
            Ok(length) => length,
        };
        unread.extend_from_slice(&bytes[..length]);
        let mut said = String::new();
        while let Some((words, length)) = command(&unread) {
            unread.drain(..length);
            heard.lock().unwrap().push(words.join(" "));
            let transacts = !shape.without.contains(&"MULTI");
            match (words[0].as_str(), &mut queued) {
                ("MULTI", None) if transacts => {
                    queued = Some((Vec::new(), false));
                    said += "+OK\r\n";
                }
                ("EXEC", _) if transacts => {
                    said += &match queued.take() {
                        None => error("ERR EXEC without MULTI"),
                        Some((_, true)) => error("EXECABORT Transaction discarded because of previous errors."),
                        Some((commands, false)) => {
                            list(&commands.iter().map(|words| shape.answer(model, words).0).collect::<Vec<_>>())
                        }
                    };
                }
                (_, Some((commands, aborted))) => {
                    let (answer, unknown) = shape.answer(model, &words);
                    if unknown && shape.checks_early {
                        *aborted = true;
                        said += &answer;
                    } else {
                        commands.push(words);
                        said += "+QUEUED\r\n";
                    }
                }
                _ => said += &shape.answer(model, &words).0,
            }
        }
        if client.write_all(said.as_bytes()).is_err() {
            return;
        }
    }
}

/// The words of the command that these bytes begin with, and its length; `None` where it is not all there.
fn command(bytes: &[u8]) -> Option<(Vec<String>, usize)> {
    let number = |at: usize| -> Option<(usize, usize)> {
        let end = at + bytes.get(at..)?.windows(2).position(|end| end == b"\r\n")?;
        Some((std::str::from_utf8(&bytes[at + 1..end]).unwrap().parse().unwrap(), end + 2))
    };
    let (count, mut at) = number(0)?;
    let mut words = Vec::new();
    for _ in 0..count {
        let (length, from) = number(at)?;
        words.push(String::from_utf8_lossy(bytes.get(from..from + length)?).into_owned());
        at = from + length + 2;
    }
    (bytes.len() >= at).then_some((words, at))
}
