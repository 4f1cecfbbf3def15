//! What a server executes, in its order, as `MONITOR` tells.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;

use super::{PATIENCE, Redis};

/// A connection on which `MONITOR` runs.
pub struct Monitor(BufReader<TcpStream>);

/// A command that was executed.
#[derive(Clone, Debug)]
pub struct Executed {
    /// When, in seconds of Redis's clock.
    pub at: f64,
    /// Who sent it: an address, or `lua` for a script.
    pub client: String,
    /// Its words, in quotes each.
    pub words: String,
}

impl Monitor {
    pub fn start(redis: &Redis) -> Self {
        Self::at(redis.port).expect("a server answers MONITOR")
    }

    /// The same at a port; nothing where no server answers.
    pub fn at(port: u16) -> Option<Self> {
        let mut connection = TcpStream::connect(("127.0.0.1", port)).ok()?;
        connection.set_read_timeout(Some(PATIENCE)).ok()?;
        connection.write_all(b"MONITOR\r\n").ok()?;
        let (mut monitor, mut line) = (Self(BufReader::new(connection)), String::new());
        monitor.0.read_line(&mut line).ok()?;
        (line == "+OK\r\n").then_some(monitor)
    }

    pub fn next(&mut self) -> Executed {
        let line = self.line();
        Self::parse(&line)
    }

    /// The same; nothing where the server is gone.
    pub fn next_of_mortal(&mut self) -> Option<Executed> {
        let mut line = Vec::new();
        let read = self.0.read_until(b'\n', &mut line).ok()?;
        (read > 0 && line.ends_with(b"\n")).then(|| Self::parse(String::from_utf8_lossy(&line).trim_end()))
    }

    fn parse(line: &str) -> Executed {
        let parts = line.strip_prefix('+').and_then(|line| line.split_once(" ["));
        let (at, rest) = parts.unwrap_or_else(|| panic!("no command: {line}"));
        let (client, words) = rest.split_once("] ").unwrap();
        let client = client.split(' ').nth(1).unwrap_or_default().to_owned();
        Executed { at: at.parse().unwrap(), client, words: words.to_owned() }
    }

    /// Everything that was executed until now.
    pub fn until_now(&mut self, redis: &Redis) -> Vec<Executed> {
        redis.run("ECHO until-now");
        let mut executed = Vec::new();
        loop {
            let next = self.next();
            if next.words.contains("until-now") {
                return executed;
            }
            executed.push(next);
        }
    }

    fn line(&mut self) -> String {
        let mut line = Vec::new();
        self.0.read_until(b'\n', &mut line).unwrap();
        String::from_utf8_lossy(&line).trim_end().to_owned()
    }
}
