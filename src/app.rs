//! Wires the components and owns their tasks.

use std::ffi::OsString;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::registry::Registry;
use tokio::sync::watch;

use crate::actions::notify::{Notifier, take_incidents};
use crate::actions::remediate::{Remediator, Watched};
use crate::collector::REPLY_MEMORY;
use crate::config::{self, API_TOKEN_VARIABLE, Config};
use crate::http::{ApiAuth, BindError, Bound, ServerConfig, Service};
use crate::store::deliveries::Deliveries;
use crate::store::forecasts::Forecasts;
use crate::store::history as past;
use crate::store::history::History;
use crate::store::history::prometheus::OtherServer;
use crate::store::remediation::{Desk, desk};
use crate::sys::log;
use crate::sys::metric_catalog;
use crate::sys::own_metrics::{ForecastMetrics, HistoryMetrics, SelfMetrics};
use crate::sys::panic_hook;
use crate::sys::reload;

mod audit;
mod healthcheck;
mod history;
mod lag;
mod notify;
mod poller_runtime;
mod reloader;
#[cfg_attr(not(unix), path = "app/not_unix/signals.rs")]
pub mod signals;
#[cfg_attr(not(unix), path = "app/not_unix/systemd.rs")]
pub mod systemd;
mod targets;

pub use audit::{AuditVerifyError, audit_verify};
pub use healthcheck::{HealthcheckError, healthcheck};
pub use history::history;
pub use lag::{Printed, lag};
pub use notify::notify_test;
use reloader::Reloader;
use targets::PolledTargets;

/// Time that the last minute of history may take to be written when the program ends.
const HISTORY_TIME: Duration = Duration::from_secs(5);

/// Why the program cannot run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A port cannot be had.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// Signals cannot be handled.
    #[error("cannot listen for signals: {0}")]
    Signals(std::io::Error),
    /// There is no thread for history.
    #[error("cannot keep history: {0}")]
    History(std::io::Error),
    /// What answers at the URL of Prometheus is none.
    #[error(
        "invalid value {url:?} for --history.prometheus-url: expected the URL of a Prometheus, Thanos, Mimir or VictoriaMetrics; found {found}"
    )]
    NoPrometheus {
        /// The URL without its path, which may be a secret.
        url: String,
        /// What is there.
        found: OtherServer,
    },
    /// There is no thread for the pollers.
    #[error("cannot start polling: {0}")]
    Pollers(std::io::Error),
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
    let (shutdown, signals) = signals::listen(reloads.clone()).map_err(RunError::Signals)?;
    let mut registry = Registry::default();
    let metrics = SelfMetrics::register(&mut registry);
    let (history, mut keeper) =
        past::start(&config.history, HistoryMetrics::register(&mut registry)).map_err(RunError::History)?;
    if let (Some(prometheus), Err(found)) = (&config.history.prometheus, history.check_source().await) {
        return Err(RunError::NoPrometheus { url: prometheus.endpoint.without_path(), found });
    }
    let bound = if config.systemd_socket { Bound::from_systemd()? } else { Bound::bind(&config.listen).await? };
    let forecasts = Forecasts::new(history.clone(), ForecastMetrics::register(&mut registry));
    metric_catalog::LOG_LINES_DROPPED.register(&mut registry, log::dropped());
    panic_hook::watch(metrics.clone());

    REPLY_MEMORY.set_limit(config.memory_for_replies);
    let (start, pollers) = crate::app::poller_runtime::channel();
    let mut kept = keeper.kept().await;
    let history_and_forecasts = Some((keeper.recorders(), forecasts.clone()));
    let (incidents, saved) = take_incidents(&mut kept);
    let mut targets = PolledTargets::new(start, Arc::new(registry), history_and_forecasts, incidents);
    targets.reconfigure(&config).await;
    let readers = targets.readers();
    let address = bound.addresses().first().map(ToString::to_string).unwrap_or_default();
    let deliveries = Deliveries::default();
    let (desk, clerk) = desk();
    let policy = policy(&config, &targets, history.clone(), deliveries.clone(), forecasts.clone(), desk.clone());
    let service = Arc::new(Service::new(policy, address, metrics.clone(), reloads));
    log_startup(&config, &bound);
    let past_source = history.clone();
    let (notify, notify_changes) = watch::channel(Arc::new(config.notify.clone()));
    let notifier = Notifier::new(
        notify_changes,
        targets.readers(),
        deliveries.clone(),
        metrics.clone(),
        (keeper.state(), kept, saved),
    );
    let (watched, watched_changes) = watch::channel(watched(&config, &targets));
    let remediator = Remediator::new(watched_changes, clerk, metrics.clone());
    let reloader = Reloader {
        arguments,
        config,
        service: Arc::clone(&service),
        targets,
        history,
        deliveries,
        forecasts: forecasts.clone(),
        notify,
        desk,
        watched,
        level,
        metrics,
    };

    let polling = pollers.run_apart().map_err(RunError::Pollers)?;

    // Should one of them panic, the program ends: see the module `panics`.
    tokio::select! {
        () = bound.serve(service, shutdown.clone()) => {}
        () = polling => {}
        () = notifier.run() => {}
        () = forecasts.run() => {}
        () = remediator.run() => {}
        () = reloader.run(asked, shutdown) => {}
        () = signals => {}
        () = systemd::watch(readers) => {}
        () = keeper.watch() => {}
        () = past_source.watch_source() => {}
    }
    let ended = tokio::task::spawn_blocking(move || keeper.end());
    if tokio::time::timeout(HISTORY_TIME, ended).await.is_err() {
        tracing::warn!("history not written: the disk takes too long");
    }
    Ok(())
}

/// What the server is to go by.
fn policy(
    config: &Config,
    targets: &PolledTargets,
    history: History,
    deliveries: Deliveries,
    forecasts: Forecasts,
    remediation: Desk,
) -> ServerConfig {
    ServerConfig {
        telemetry_path: config.telemetry_path.clone(),
        auth: config.auth.clone(),
        token_rate: config.token_rate,
        lifecycle: config.lifecycle,
        users: config.web.users.clone(),
        rate: config.web.rate_limit,
        memory_for_readers: config.memory_for_readers,
        headers: config.web.headers.clone(),
        tls: config.web.tls.clone(),
        scalers: config.scalers.clone(),
        allowed_origins: config.allowed_origins.clone(),
        max_viewers: config.max_viewers,
        targets: targets.known(),
        history,
        deliveries,
        forecasts,
        remediation,
        transport: config.transport,
    }
}

/// What remediation is to go by.
fn watched(config: &Config, targets: &PolledTargets) -> Watched {
    Watched { config: Arc::new(config.remediation.clone()), targets: targets.named_readers() }
}

fn log_startup(config: &Config, bound: &Bound) {
    for address in bound.addresses() {
        let tls = config.web.tls.is_some();
        tracing::info!(%address, tls, version = env!("CARGO_PKG_VERSION"), "listening");
    }
    for target in &config.targets {
        let (redis, selection) = (&target.redis, target.stream_selection(config.shard));
        let (streams, patterns) = (selection.literals().len(), selection.patterns().len());
        let interval_seconds = target.interval.as_secs_f64();
        let shard = config.shard.map(tracing::field::display);
        if config.targets.len() == 1 {
            tracing::info!(%redis, streams, patterns, shard, interval_seconds, "polling");
        } else {
            tracing::info!(redis_target = %target.name, %redis, streams, patterns, shard, interval_seconds, "polling");
        }
    }
    for (variable, did_you_mean) in config::unknown_variables() {
        tracing::warn!(variable, did_you_mean, "unknown environment variable");
    }
    for (file, mode) in config.exposed_files() {
        tracing::warn!(file = %file.display(), mode = format!("{mode:04o}"), "other users can read or write this file of secrets; expected mode 0600");
    }
    if let Some(prometheus) = &config.history.prometheus
        && prometheus.token_file.is_some()
        && prometheus.endpoint.is_plain_elsewhere()
    {
        tracing::warn!(
            url = prometheus.endpoint.without_path(),
            "the token for Prometheus is sent without TLS; expected https://"
        );
    }
    match &config.auth {
        ApiAuth::Tokens(_) => {}
        ApiAuth::Closed => {
            tracing::warn!(
                "no API token configured: every API request gets 401; set {API_TOKEN_VARIABLE} or --api.tokens-file"
            );
        }
        ApiAuth::InsecureOpen => tracing::warn!("API open without authentication: --api.insecure-no-auth"),
    }
}
