//! A fake Redis server that lies. No real server announces or sends what it does, so a fake has to.

use std::io::{BufRead as _, BufReader, Read as _, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// Writes what the liar answers to a command, given as its words. Whether it did; otherwise the liar answers as an honest server with no
/// streams would.
pub type Answer = Arc<dyn Fn(&[String], &mut dyn Write) -> std::io::Result<bool> + Send + Sync>;

pub struct Liar {
    pub port: u16,
    ended: Arc<AtomicBool>,
    connections: Arc<Mutex<Vec<TcpStream>>>,
    listening: Option<JoinHandle<()>>,
}

impl Liar {
    pub fn start(answer: Answer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (ended, connections) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let (is_over, open) = (Arc::clone(&ended), Arc::clone(&connections));
        let listening = std::thread::spawn(move || {
            let mut serving = Vec::new();
            for client in listener.incoming().map_while(Result::ok) {
                if is_over.load(Ordering::Relaxed) {
                    break;
                }
                let mut open = open.lock().unwrap();
                // Those that are over are forgotten.
                open.retain(|stream: &TcpStream| stream.peer_addr().is_ok());
                open.push(client.try_clone().unwrap());
                let answer = Arc::clone(&answer);
                serving.push(std::thread::spawn(move || serve(client, &answer)));
                serving.retain(|thread: &JoinHandle<()>| !thread.is_finished());
            }
            for thread in serving {
                let _ = thread.join();
            }
        });
        Self { port, ended, connections, listening: Some(listening) }
    }
}

impl Drop for Liar {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        // Wakes the listener.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        for stream in self.connections.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
        let _ = self.listening.take().unwrap().join();
    }
}

fn serve(client: TcpStream, answer: &Answer) {
    let mut writer = client.try_clone().unwrap();
    let mut reader = BufReader::new(client);
    // Queued commands of a transaction.
    let mut queued = None;
    while let Some(words) = command(&mut reader) {
        if serve_one(&words, &mut writer, answer, &mut queued).is_err() {
            break;
        }
    }
    let _ = writer.shutdown(Shutdown::Both);
}

fn serve_one(
    words: &[String],
    writer: &mut TcpStream,
    answer: &Answer,
    queued: &mut Option<usize>,
) -> std::io::Result<()> {
    let name = words.first().map(|word| word.to_ascii_uppercase()).unwrap_or_default();
    if answer(words, writer)? {
        // It ends a transaction as well, whatever it was.
        if name == "EXEC" {
            *queued = None;
        }
        return Ok(());
    }
    match (name.as_str(), &mut *queued) {
        ("MULTI", _) => {
            *queued = Some(0);
            writer.write_all(b"+OK\r\n")
        }
        ("EXEC", Some(commands)) => {
            let nothing = format!("*{commands}\r\n{}", "*0\r\n".repeat(*commands));
            *queued = None;
            writer.write_all(nothing.as_bytes())
        }
        (_, Some(commands)) => {
            *commands += 1;
            writer.write_all(b"+QUEUED\r\n")
        }
        ("HELLO", None) => writer.write_all(b"*4\r\n$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nversion\r\n$5\r\n7.4.0\r\n"),
        ("TIME", None) => writer.write_all(b"*2\r\n$10\r\n1800000000\r\n$1\r\n0\r\n"),
        ("ROLE", None) => writer.write_all(b"*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n"),
        ("SCAN", None) => writer.write_all(b"*2\r\n$1\r\n0\r\n*0\r\n"),
        ("EVAL" | "EVAL_RO", None) => writer.write_all(b":1\r\n"),
        ("AUTH" | "SELECT", None) => writer.write_all(b"+OK\r\n"),
        (_, None) => writer.write_all(b"-ERR no such key\r\n"),
    }
}

/// The next command; `None` at the end.
fn command(reader: &mut BufReader<TcpStream>) -> Option<Vec<String>> {
    let number = |reader: &mut BufReader<TcpStream>| {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
        line.trim_end().get(1..)?.parse::<usize>().ok()
    };
    let words = number(reader)?;
    (0..words)
        .map(|_| {
            let mut word = vec![0; number(reader)? + 2];
            reader.read_exact(&mut word).ok()?;
            word.truncate(word.len() - 2);
            Some(String::from_utf8_lossy(&word).into_owned())
        })
        .collect()
}

/// Writes bytes again and again, until the client has had enough or `bytes` are sent.
pub fn flood(writer: &mut dyn Write, piece: &[u8], bytes: usize) -> std::io::Result<()> {
    let chunk = piece.repeat((64 * 1024 / piece.len()).max(1));
    for _ in 0..bytes / chunk.len() + 1 {
        writer.write_all(&chunk)?;
    }
    Ok(())
}
