//! A receiver of HTTP requests that keeps what it was sent, and answers as the test says.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Received {
    pub path: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Received {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.as_str())
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// What is answered to the n-th request: the head after `HTTP/1.1 `, and the body.
type Answer = dyn Fn(usize, &Received) -> (String, String) + Send + Sync;

/// A listening receiver; its threads end with the process of the test.
pub struct Receiver {
    pub address: SocketAddr,
    received: Arc<Mutex<Vec<Received>>>,
}

impl Receiver {
    /// Answers 200 and `ok`, as Slack does.
    pub fn start() -> Self {
        Self::answering(|_, _| ("200 OK\r\n".to_owned(), "ok".to_owned()))
    }

    pub fn answering(answer: impl Fn(usize, &Received) -> (String, String) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let received = Arc::new(Mutex::new(Vec::new()));
        let (kept, answer): (_, Arc<Answer>) = (Arc::clone(&received), Arc::new(answer));
        std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let (kept, answer) = (Arc::clone(&kept), Arc::clone(&answer));
                std::thread::spawn(move || serve(&connection, &kept, &*answer));
            }
        });
        Self { address, received }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Everything it was sent so far.
    pub fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }
}

fn serve(connection: &TcpStream, kept: &Mutex<Vec<Received>>, answer: &Answer) -> Option<()> {
    connection.set_read_timeout(Some(Duration::from_secs(30))).ok()?;
    let mut reader = BufReader::new(connection);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let path = line.split(' ').nth(1)?.to_owned();
    let mut headers = Vec::new();
    loop {
        line.clear();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let mut received = Received { path, headers, body: Vec::new() };
    let length = received.header("content-length").map_or(0, |length| length.parse().unwrap());
    received.body.resize(length, 0);
    reader.read_exact(&mut received.body).ok()?;
    let count = {
        let mut kept = kept.lock().unwrap();
        kept.push(received.clone());
        kept.len() - 1
    };
    let (head, body) = answer(count, &received);
    let mut connection = connection;
    write!(connection, "HTTP/1.1 {head}Content-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len()).ok()
}
