//! Viewers of live streams: Server-Sent Events and WebSockets, read as their clients do.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::Value;
use tungstenite::client::IntoClientRequest as _;
use tungstenite::http::HeaderValue;
use tungstenite::{Message, WebSocket};

use super::{PATIENCE, TOKEN};

pub const LIVE: &str = "/api/v1/events/live";

/// An open event stream.
pub struct EventStream {
    reader: BufReader<TcpStream>,
    pub head: Vec<String>,
    /// What was read of the chunked body and is no whole event yet.
    text: String,
}

impl EventStream {
    /// Opens one with the test's token; `query` begins with a question mark or is empty.
    pub fn open(address: SocketAddr, query: &str) -> Self {
        let opened = Self::open_with(address, query, TOKEN);
        assert!(opened.head[0].starts_with("HTTP/1.1 200"), "{:?}", opened.head);
        opened
    }

    pub fn open_with(address: SocketAddr, query: &str, token: &str) -> Self {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let request = format!(
            "GET {LIVE}{query} HTTP/1.1\r\nHost: {address}\r\nAccept: text/event-stream\r\nAuthorization: Bearer {token}\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut reader = BufReader::new(stream);
        let mut head = Vec::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            if line.trim_end().is_empty() {
                break;
            }
            head.push(line.trim_end().to_owned());
        }
        Self { reader, head, text: String::new() }
    }

    /// The next event as it stands there; `None` at the end.
    pub fn next_text(&mut self) -> Option<String> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let (event, rest) = (event.to_owned(), rest.to_owned());
                self.text = rest;
                return Some(event);
            }
            let mut size = String::new();
            self.reader.read_line(&mut size).unwrap();
            let size = usize::from_str_radix(size.trim(), 16).ok()?;
            let mut chunk = vec![0; size + 2];
            self.reader.read_exact(&mut chunk).unwrap();
            if size == 0 {
                return None;
            }
            // A chunk may end within a character; none of the tests' names does that to one.
            self.text.push_str(std::str::from_utf8(&chunk[..size]).unwrap());
        }
    }

    /// The next message; `None` at the end. Heartbeats are passed over.
    pub fn next(&mut self) -> Option<Value> {
        loop {
            let event = self.next_text()?;
            if let Some(data) = event.lines().find_map(|line| line.strip_prefix("data: ")) {
                return Some(serde_json::from_str(data).unwrap());
            }
        }
    }

    /// Reads until a message is as wanted.
    pub fn until(&mut self, what: &str, mut wanted: impl FnMut(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let message = self.next().unwrap_or_else(|| panic!("the stream ended: {what}"));
            if wanted(&message) {
                return message;
            }
            assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        }
    }

    /// Reads to the end: the last message.
    pub fn end(&mut self) -> Option<Value> {
        let (deadline, mut last) = (Instant::now() + PATIENCE, None);
        while let Some(message) = self.next() {
            last = Some(message);
            assert!(Instant::now() < deadline, "the stream has not ended within {PATIENCE:?}");
        }
        last
    }
}

/// The subprotocols by which a browser sends a token.
pub fn protocols(token: &str) -> String {
    use base64::Engine as _;
    let token = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(token);
    format!("streamlag.v1, base64url.bearer.authorization.streamlag.{token}")
}

/// A WebSocket, and what was answered to its request.
pub type Opened = (WebSocket<TcpStream>, tungstenite::http::Response<Option<Vec<u8>>>);

/// Opens a WebSocket with these headers.
pub fn websocket(
    address: SocketAddr,
    query: &str,
    headers: &[(&'static str, &str)],
) -> Result<Opened, Box<tungstenite::Error>> {
    let mut request = format!("ws://{address}{LIVE}{query}").into_client_request().map_err(Box::new)?;
    for (name, value) in headers {
        request.headers_mut().insert(*name, HeaderValue::from_str(value).unwrap());
    }
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    tungstenite::client(request, stream).map_err(|error| match error {
        tungstenite::HandshakeError::Failure(error) => Box::new(error),
        tungstenite::HandshakeError::Interrupted(_) => panic!("the handshake takes too long"),
    })
}

/// Opens one with the test's token.
pub fn open_websocket(address: SocketAddr, query: &str) -> WebSocket<TcpStream> {
    let token = format!("Bearer {TOKEN}");
    websocket(address, query, &[("authorization", &token), ("sec-websocket-protocol", "streamlag.v1")]).unwrap().0
}

/// The status with which a WebSocket is refused.
pub fn refused(address: SocketAddr, query: &str, headers: &[(&'static str, &str)]) -> u16 {
    match websocket(address, query, headers).map_err(|error| *error) {
        Err(tungstenite::Error::Http(response)) => response.status().as_u16(),
        Ok(_) => 101,
        Err(other) => panic!("{other}"),
    }
}

/// The next message of a WebSocket, and the code and the reason with which it is closed.
pub fn next_frame(socket: &mut WebSocket<TcpStream>) -> Result<Value, (u16, String)> {
    loop {
        match socket.read() {
            Ok(Message::Text(text)) => return Ok(serde_json::from_str(&text).unwrap()),
            Ok(Message::Close(Some(close))) => return Err((close.code.into(), close.reason.to_string())),
            Ok(Message::Close(None)) => return Err((1005, String::new())),
            Ok(_) => {}
            Err(error) => return Err((1006, error.to_string())),
        }
    }
}

/// Reads a WebSocket until it is closed: with which code, and the last message.
pub fn closed(socket: &mut WebSocket<TcpStream>) -> (u16, String, Option<Value>) {
    let (deadline, mut last) = (Instant::now() + PATIENCE, None);
    loop {
        match next_frame(socket) {
            Ok(message) => last = Some(message),
            Err((code, reason)) => return (code, reason, last),
        }
        assert!(Instant::now() < deadline, "not closed within {PATIENCE:?}");
    }
}

/// Whether it took less than a second and what a loaded machine takes on top.
pub fn soon(since: Instant) -> bool {
    since.elapsed() < Duration::from_secs(5)
}
