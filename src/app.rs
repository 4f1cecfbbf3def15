//! Wires the components and owns their tasks.

use std::io::{Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use prometheus_client::registry::Registry;

use crate::config::{API_TOKEN_VARIABLE, Config};
use crate::poller::{self, Poller, PollerSettings};
use crate::render::exposition::Settings;
use crate::self_metrics::SelfMetrics;
use crate::server::{ApiAuth, BindError, Bound, Service};
use crate::source::{Sampling, Standalone};
use crate::{shutdown, snapshot};

/// How long a health check waits for an answer: less than the three seconds that container runtimes give it.
const HEALTHCHECK_TIMEOUT: Duration = Duration::from_secs(2);

/// Why the program cannot run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A port cannot be had.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// Signals cannot be handled.
    #[error("cannot listen for signals: {0}")]
    Signals(std::io::Error),
}

/// Runs until a signal ends the program.
///
/// # Errors
/// Where it cannot start, or cannot go on.
pub async fn run(config: Config) -> Result<(), RunError> {
    let ending = shutdown::listen().map_err(RunError::Signals)?;
    let bound = Bound::bind(&config.listen).await?;
    let mut registry = Registry::default();
    let metrics = SelfMetrics::register(&mut registry);
    let registry = Arc::new(registry);
    let settings = PollerSettings {
        streams: config.streams.clone(),
        selection: config.groups.clone(),
        windows: config.windows,
        max_length: config.stream_max_len,
        timeout: config.redis_timeout,
        page: Settings {
            poll_interval: config.poll_interval,
            round_trip_limit: config.transport.publish_timeout,
            thresholds: config.thresholds,
        },
    };
    let commands = metrics.redis_commands.clone();
    let sampling = Sampling {
        streams: config.streams.clone(),
        selection: config.groups.clone(),
        interval: config.poll_interval,
        count_budget: config.count_budget,
    };
    let source = Standalone::new(config.redis.clone(), sampling, commands);
    let (publisher, reader) = snapshot::channel(poller::first(&settings, &registry));
    let poller = Poller::new(settings, source, publisher, registry, metrics.clone());
    let service = Arc::new(Service {
        telemetry_path: config.telemetry_path.clone(),
        auth: config.auth.clone(),
        thresholds: config.thresholds,
        selection: config.groups.clone(),
        transport: config.transport,
        retry_after: config.poll_interval,
        reader,
        metrics,
        draining: AtomicBool::new(false),
    });
    say_what_runs(&config, &bound);

    // The poller runs on this thread: spawned, it would take turns with the task that reads replies, on the same worker.
    // Should it panic, the program ends: a server that shows its last numbers for ever would be worse.
    tokio::select! {
        () = bound.serve(service, ending) => {}
        () = poller.run() => {}
    }
    Ok(())
}

fn say_what_runs(config: &Config, bound: &Bound) {
    for address in bound.addresses() {
        tracing::info!(%address, version = env!("CARGO_PKG_VERSION"), "listening");
    }
    tracing::info!(
        redis = %config.redis,
        streams = config.streams.len(),
        interval_seconds = config.poll_interval.as_secs_f64(),
        "polling"
    );
    match &config.auth {
        ApiAuth::Token(_) => {}
        ApiAuth::Closed => {
            tracing::warn!("no API token: every API call is answered 401; set {API_TOKEN_VARIABLE} to open the API");
        }
        ApiAuth::InsecureOpen => tracing::warn!("the API is open to everybody: --api.insecure-no-auth"),
    }
}

/// Asks the streamlag that listens on the first configured address whether it is healthy.
///
/// # Errors
/// What is wrong, in one line.
pub fn healthcheck(config: &Config) -> Result<(), String> {
    let address = config.listen.first().map_or("", String::as_str);
    // Listening on every address includes the loopback one.
    let address = address.replace("0.0.0.0:", "127.0.0.1:").replace("[::]:", "[::1]:");
    ask_health(&address).map_err(|error| format!("{address}: {error}"))
}

fn ask_health(address: &str) -> Result<(), String> {
    let failed = |error: std::io::Error| error.to_string();
    let resolved = address.to_socket_addrs().map_err(failed)?.next().ok_or("no such address")?;
    let mut connection = TcpStream::connect_timeout(&resolved, HEALTHCHECK_TIMEOUT).map_err(failed)?;
    connection.set_read_timeout(Some(HEALTHCHECK_TIMEOUT)).map_err(failed)?;
    let request = format!("GET /-/healthy HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    connection.write_all(request.as_bytes()).map_err(failed)?;
    let mut status = [0; "HTTP/1.1 200 ".len()];
    connection.read_exact(&mut status).map_err(failed)?;
    match &status {
        b"HTTP/1.1 200 " => Ok(()),
        other => Err(format!("it answered {:?}", String::from_utf8_lossy(other))),
    }
}
