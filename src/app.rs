//! Wires the components and owns their tasks.

use std::ffi::OsString;
use std::sync::Arc;

use prometheus_client::registry::Registry;
use tokio::sync::watch;

use crate::config::{API_TOKEN_VARIABLE, Config};
use crate::log;
use crate::poller::{self, Plan, Poller, PollerSettings};
use crate::render::exposition::Settings;
use crate::self_metrics::SelfMetrics;
use crate::server::{ApiAuth, BindError, Bound, Policy, Service};
use crate::source::{Sampling, Source};
use crate::{panics, reload, shutdown, snapshot, systemd};

mod healthcheck;
mod reloader;

pub use healthcheck::healthcheck;
use reloader::Reloader;

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

/// Runs until a signal ends the program. `arguments` are those that the configuration was made of; a reload reads them
/// again, with the files that they name.
///
/// # Errors
/// Where it cannot start, or cannot go on.
///
/// # Panics
/// Where a task that the program cannot do without has done so.
pub async fn run(config: Config, arguments: Vec<OsString>, level: log::Level) -> Result<(), RunError> {
    let (reloads, asked) = reload::channel();
    let (ending, signals) = shutdown::listen(reloads.clone()).map_err(RunError::Signals)?;
    let bound = if config.systemd_socket { Bound::from_systemd()? } else { Bound::bind(&config.listen).await? };
    let mut registry = Registry::default();
    let metrics = SelfMetrics::register(&mut registry);
    panics::watch(metrics.clone());
    let registry = Arc::new(registry);

    let plan = plan(&config, 0);
    let commands = metrics.redis_commands.clone();
    let source = Source::new(plan.redis.clone(), plan.sampling.clone(), commands);
    let (publisher, reader) = snapshot::channel(poller::first(&plan.settings, &registry));
    let poller = Poller::new(plan.settings.clone(), source, publisher, registry, metrics.clone());
    let (new_plans, plans) = watch::channel(plan);
    let service = Arc::new(Service::new(policy(&config), reader.clone(), metrics.clone(), reloads));
    say_what_runs(&config, &bound);
    let reloader = Reloader { arguments, config, service: Arc::clone(&service), plans: new_plans, level, metrics };

    // The poller runs on this thread: spawned, it would take turns with the task that reads replies, on the same worker.
    // Should one of them panic, the program ends: see the module `panics`.
    tokio::select! {
        () = bound.serve(service, ending.clone()) => {}
        () = poller.run(plans) => {}
        () = reloader.run(asked, ending) => {}
        () = signals => {}
        () = systemd::watch(reader) => {}
    }
    Ok(())
}

/// What the poller is to do. `target` counts the changes of the Redis that is sampled.
fn plan(config: &Config, target: u64) -> Plan {
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
    let sampling = Sampling {
        streams: config.streams.clone(),
        selection: config.groups.clone(),
        interval: config.poll_interval,
        count_budget: config.count_budget,
    };
    Plan { settings, sampling, redis: config.redis.clone(), target }
}

/// What the server is to go by.
fn policy(config: &Config) -> Policy {
    Policy {
        telemetry_path: config.telemetry_path.clone(),
        auth: config.auth.clone(),
        token_rate: config.token_rate,
        lifecycle: config.lifecycle,
        users: config.web.users.clone(),
        rate: config.web.rate_limit,
        headers: config.web.headers.clone(),
        tls: config.web.tls.clone(),
        thresholds: config.thresholds,
        selection: config.groups.clone(),
        transport: config.transport,
        retry_after: config.poll_interval,
    }
}

fn say_what_runs(config: &Config, bound: &Bound) {
    for address in bound.addresses() {
        let tls = config.web.tls.is_some();
        tracing::info!(%address, tls, version = env!("CARGO_PKG_VERSION"), "listening");
    }
    tracing::info!(
        redis = %config.redis,
        streams = config.streams.len(),
        interval_seconds = config.poll_interval.as_secs_f64(),
        "polling"
    );
    match &config.auth {
        ApiAuth::Tokens(_) => {}
        ApiAuth::Closed => {
            tracing::warn!(
                "no API token: every API call is answered 401; set {API_TOKEN_VARIABLE} or --api.tokens-file"
            );
        }
        ApiAuth::InsecureOpen => tracing::warn!("the API is open to everybody: --api.insecure-no-auth"),
    }
}
