//! What a real Prometheus asks for, what it gets, and what it makes of it: formats, escaping of names, native histograms.

use std::io::{BufRead, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::common::prometheus::{Prometheus, major_version, prometheuses};
use crate::common::{Redis, Streamlag, eventually, streamlag};

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const CLASSIC: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A stream whose name needs UTF-8.
const STREAM: &str = "événements ☃";

/// Stands between a Prometheus and streamlag, and keeps what was asked for and what came: `Accept` and `Content-Type` of each scrape.
struct Tap {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<(String, String)>>>,
}

impl Tap {
    fn start(upstream: SocketAddr) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&seen);
        std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let kept = Arc::clone(&kept);
                std::thread::spawn(move || pass(&connection, upstream, &kept));
            }
        });
        Self { address, seen }
    }

    /// What was asked for and what came, of each scrape so far.
    fn seen(&self) -> Vec<(String, String)> {
        self.seen.lock().unwrap().clone()
    }
}

/// Passes one request on and its answer back, and closes the connection: a Prometheus makes another.
fn pass(client: &TcpStream, upstream: SocketAddr, kept: &Mutex<Vec<(String, String)>>) -> Option<()> {
    let mut server = TcpStream::connect(upstream).ok()?;
    let request = head(&mut BufReader::new(client))?;
    let asked = header(&request, "accept").unwrap_or_default();
    write!(server, "{}\r\nconnection: close\r\n\r\n", request.trim_end()).ok()?;
    let mut answer = BufReader::new(server);
    let told = head(&mut answer)?;
    // Before anything of the answer is passed on: who sees the scrape finds it here.
    kept.lock().unwrap().push((asked, header(&told, "content-type").unwrap_or_default()));
    let mut client = client;
    client.write_all(told.as_bytes()).ok()?;
    std::io::copy(&mut answer, &mut client).ok()?;
    client.shutdown(std::net::Shutdown::Both).ok()
}

/// Everything to the first empty line, with it.
fn head(from: &mut impl BufRead) -> Option<String> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        from.read_line(&mut head).ok().filter(|length| *length > 0)?;
    }
    Some(head)
}

fn header(head: &str, name: &str) -> Option<String> {
    let fields = head.lines().filter_map(|line| line.split_once(": "));
    fields.filter(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned()).next()
}

/// A scrape job: its name, what it adds to the configuration, what the Prometheus then asks for first, and what it gets.
type Job = (&'static str, Value, &'static str, &'static str);

fn jobs(major: u32) -> Vec<Job> {
    if major < 3 {
        return vec![("default", json!({}), "application/openmetrics-text;version=1.0.0", OPENMETRICS)];
    }
    let usual = ["OpenMetricsText1.0.0", "OpenMetricsText0.0.1", "PrometheusText1.0.0", "PrometheusText0.0.4"];
    let openmetrics = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8";
    vec![
        ("default", json!({"scrape_protocols": usual}), openmetrics, OPENMETRICS),
        // No name needs UTF-8: for those who do not take it, nothing is escaped.
        (
            "legacy",
            json!({
                "scrape_protocols": usual, "metric_name_validation_scheme": "legacy", "metric_name_escaping_scheme": "underscores",
            }),
            "application/openmetrics-text;version=1.0.0;escaping=underscores",
            OPENMETRICS,
        ),
        // Every Prometheus takes the classic text, whatever else it asks for.
        (
            "text-1",
            json!({"scrape_protocols": ["PrometheusText1.0.0"]}),
            "text/plain;version=1.0.0;escaping=allow-utf-8",
            CLASSIC,
        ),
        ("text-0", json!({"scrape_protocols": ["PrometheusText0.0.4"]}), "text/plain;version=0.0.4", CLASSIC),
        // What a Prometheus with native histograms asks for by default.
        (
            "protobuf",
            json!({}),
            "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited",
            OPENMETRICS,
        ),
        // Native histograms of the poll's duration cost streamlag nothing: Prometheus makes them of the classic ones.
        (
            "native",
            json!({"scrape_protocols": usual, "convert_classic_histograms_to_nhcb": true}),
            openmetrics,
            OPENMETRICS,
        ),
    ]
}

#[test]
fn each_prometheus_gets_a_format_that_it_takes() {
    let redis = Redis::start();
    redis.run_bytes(&[b"XADD", STREAM.as_bytes(), b"*", b"n", b"1"]);
    redis.run_bytes(&[b"XGROUP", b"CREATE", STREAM.as_bytes(), b"workers", b"0"]);
    let streamlag = streamlag(&["--redis.url", &redis.url(), "--streams", STREAM, "--groups", "workers"]).ready();
    for binary in prometheuses() {
        scraped(&streamlag, &binary);
    }
}

fn scraped(streamlag: &Streamlag, binary: &Path) {
    let major = major_version(binary);
    let jobs = jobs(major);
    let taps: Vec<Tap> = jobs.iter().map(|_| Tap::start(streamlag.address)).collect();
    let configs = jobs.iter().zip(&taps).map(|((name, more, _, _), tap)| {
        let mut job = json!({"job_name": name, "static_configs": [{"targets": [tap.address.to_string()]}]});
        job.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        job
    });
    let arguments: &[&str] = if major < 3 { &[] } else { &["--enable-feature=native-histograms"] };
    let prometheus = Prometheus::scraping(binary, arguments, configs.collect());
    let value = |query: &str| {
        let data = prometheus.api("query", &[("query", query)]).unwrap_or_else(|error| panic!("{query}: {error}"));
        data["result"][0]["value"][1].as_str().map(str::to_owned)
    };
    let becomes = |query: &str, expected: &str| {
        eventually(&format!("{query} is {expected} in {}", binary.display()), || {
            (value(query)? == expected).then_some(())
        });
    };
    for ((name, _, asks, gets), tap) in jobs.iter().zip(&taps) {
        becomes(&format!("up{{job=\"{name}\"}}"), "1");
        let seen = tap.seen();
        let wrong = seen.iter().find(|(asked, got)| !asked.starts_with(asks) || got != gets);
        assert!(!seen.is_empty() && wrong.is_none(), "{name} in {}: {wrong:?}", binary.display());
        becomes(&format!("event_consumer_lag{{job=\"{name}\",stream=\"{STREAM}\"}}"), "1");
    }
    if major >= 3 {
        becomes(&format!("{{\"event_consumer_lag\",\"job\"=\"default\",\"stream\"=\"{STREAM}\"}}"), "1");
        becomes("histogram_count(streamlag_poll_duration_seconds{job=\"native\"}) > bool 0", "1");
        becomes("histogram_quantile(0.9, streamlag_poll_duration_seconds{job=\"native\"}) < bool 10", "1");
        becomes("count(streamlag_poll_duration_seconds_bucket{job=\"native\"}) or vector(0)", "0");
        becomes("count(streamlag_poll_duration_seconds_bucket{job=\"default\"}) > bool 1", "1");
    }
}
