//! `streamlag lag`: samples every target once, with the settings and the code of the daemon, and prints a line per stream and group.

mod csv;
mod json;
mod rows;
mod table;

use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use prometheus_client::registry::Registry;
use tokio::time::{Instant, timeout_at};

use crate::analysis::view::View;
use crate::app::poller_runtime;
use crate::app::targets::PolledTargets;
use crate::config::{Config, LagRequest, Output};
use crate::http;
use crate::model::lag::Quality;
use crate::model::sample::RefusedCommand;
use crate::model::thresholds::Status;
pub(in crate::app) use csv::field as csv_field;
use rows::Sampled;

/// Time between polls while entries are counted or streams are searched for, or the configured interval if that is shorter. The
/// budgets of counting and of the search grow with the interval, so they hold as they do for the daemon.
const MAX_INTERVAL: Duration = Duration::from_secs(2);

/// The exit code where a stream is unhealthy or not known, and where the answer cannot be given.
const UNHEALTHY: u8 = 2;

/// What to print and how to exit.
#[derive(Debug)]
pub struct Printed {
    /// For standard output.
    pub output: String,
    /// For standard error: one line per target that could not be read, or not all of it.
    pub problems: Vec<String>,
    /// 0 healthy, 1 degraded, 2 unhealthy or unknown.
    pub code: u8,
}

/// Samples and renders.
///
/// # Errors
/// If the runtime cannot be started.
pub fn lag(request: LagRequest) -> std::io::Result<Printed> {
    let LagRequest { mut config, output, color, wait } = request;
    for target in &mut config.targets {
        target.interval = target.interval.min(MAX_INTERVAL);
    }
    let sampled = sample(&config, wait)?;
    let terminal = std::io::stdout().is_terminal();
    let colored = color.is_on(terminal, std::env::var_os("NO_COLOR").as_deref(), std::env::var_os("TERM").as_deref());
    Ok(Printed {
        output: match output {
            Output::Table => table::render(&sampled, colored),
            Output::Json => json::render(&sampled),
            Output::Csv => csv::render(&sampled, terminal),
        },
        problems: sampled.iter().filter_map(|target| problem(target, sampled.len() > 1)).collect(),
        code: match rows::worst(sampled.iter().map(Sampled::status)) {
            Status::Healthy => 0,
            Status::Degraded => 1,
            Status::Unhealthy | Status::Unknown => UNHEALTHY,
        },
    })
}

/// What is wrong with a target as a whole.
fn problem(sampled: &Sampled, several: bool) -> Option<String> {
    let error = sampled.error()?;
    let mut text = String::new();
    if several {
        // Writing to a String cannot fail.
        let _ = write!(text, "target {}: ", sampled.target.name);
    }
    let _ = write!(text, "{}: {error}", sampled.target.redis);
    Some(text)
}

/// Polls all targets until their lags are exact, or cannot become so, or `wait` has passed; each at least once.
fn sample(config: &Config, wait: Duration) -> std::io::Result<Vec<Sampled>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let sampled = runtime.block_on(async {
        let deadline = Instant::now() + wait;
        let (start, pollers) = poller_runtime::channel();
        let mut targets = PolledTargets::new(start, Arc::new(Registry::default()), None, Vec::new());
        targets.reconfigure(config).await;
        let known = targets.known();
        let sampling = known.all().zip(&config.targets).map(async |(target, config)| {
            let may_count = config.count_budget > 0;
            settle(target, may_count, deadline).await;
            Sampled::new(target.clone(), may_count, wait)
        });
        tokio::select! {
            sampled = join_all(sampling) => sampled,
            () = pollers.run() => Vec::new(),
        }
    });
    // Nothing that still blocks, such as looking up a name, is waited for.
    runtime.shutdown_background();
    Ok(sampled)
}

/// Waits until a target has been polled and another poll would tell no more, or until the deadline.
async fn settle(target: &http::ServedTarget, may_count: bool, deadline: Instant) {
    let mut reader = target.reader.clone();
    reader.polled().await;
    while !is_settled(&reader.newest().view, may_count) {
        if timeout_at(deadline, reader.changed()).await.is_err() {
            return;
        }
    }
}

/// Whether another poll would tell no more: all lags are exact or nothing is counted, and all streams are found; or Redis failed.
fn is_settled(view: &View, may_count: bool) -> bool {
    let Some(fresh) = view.fresh.as_ref().filter(|_| view.redis_up()) else { return true };
    let refuses = |command| fresh.meta.refused.contains(&command);
    let is_searching =
        fresh.meta.search.is_some_and(|search| search.completed.is_none()) && !refuses(RefusedCommand::Scan);
    let mut groups = view.streams.iter().flat_map(|stream| &stream.groups).filter_map(|group| group.present());
    let is_counting = || may_count && !refuses(RefusedCommand::Xrange);
    !is_searching && (!is_counting() || groups.all(|group| group.lag.quality() == Quality::Exact))
}
