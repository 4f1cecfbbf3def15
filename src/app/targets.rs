//! Starts, reconfigures and stops the poller of each target as the configuration says.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::Instrument as _;

use crate::analysis::assess::Bounds;
use crate::analysis::incident::Incident;
use crate::analysis::incidents::IncidentSettings;
use crate::app::poller_runtime::{Running, Start};
use crate::collector::poller::{self, Poller, PollerConfig, SelfRegistries};
use crate::collector::{SamplingConfig, Source};
use crate::config::{Config, TargetConfig};
use crate::exposition::collectors::Collector;
use crate::exposition::registry::PageSettings;
use crate::http;
use crate::model::TargetName;
use crate::store::forecasts::{ForecastTarget, Forecasts, ShownForecasts};
use crate::store::history::Recorders;
use crate::store::latest::{self, Reader, Readers};
use crate::sys::own_metrics::PollMetrics;

/// Over how long the first polls of several targets are spread, or an interval where that is shorter, so that they do not all poll in
/// the same moments: some may be databases of one server.
const FIRST_POLLS: Duration = Duration::from_secs(1);

/// Everything that is polled.
pub(super) struct PolledTargets {
    start: Start,
    /// The counters of the process, which are on the first target's page.
    process: Arc<Registry>,
    /// In the order of the configuration.
    polled: Vec<PolledTarget>,
    readers: watch::Sender<Vec<Reader>>,
    /// Where snapshots are remembered, by the target's name, and forecast from; nowhere for a program that polls once.
    history: Option<(Recorders, Forecasts)>,
    /// Incidents of the process before, until its targets go on with them.
    incidents: Vec<Incident>,
}

/// A target that is polled until this is dropped.
struct PolledTarget {
    config: TargetConfig,
    plans: watch::Sender<PollerConfig>,
    reader: Reader,
    forecasts: ShownForecasts,
    _running: Running,
}

impl PolledTargets {
    /// No targets yet; the first ones go on with these incidents.
    pub(super) fn new(
        start: Start,
        process: Arc<Registry>,
        history: Option<(Recorders, Forecasts)>,
        incidents: Vec<Incident>,
    ) -> Self {
        Self { start, process, polled: Vec::new(), readers: watch::Sender::default(), history, incidents }
    }

    /// Where to look for what was found.
    pub(super) fn readers(&self) -> Readers {
        self.readers.subscribe()
    }

    /// The same, by the name of the target.
    pub(super) fn named_readers(&self) -> Vec<(TargetName, Reader)> {
        self.polled.iter().map(|polled| (polled.config.name.clone(), polled.reader.clone())).collect()
    }

    /// Polls the targets of this configuration from now on. Those that stay keep what was seen of them; those that are not
    /// in it any more end.
    pub(super) async fn reconfigure(&mut self, config: &Config) {
        let mut before: BTreeMap<TargetName, PolledTarget> =
            self.polled.drain(..).map(|polled| (polled.config.name.clone(), polled)).collect();
        let (several, now) = (config.targets.len() > 1, Instant::now());
        for (place, target) in config.targets.iter().enumerate() {
            let polled = match before.remove(&target.name) {
                Some(mut polled) => {
                    let changes =
                        polled.plans.borrow().target + u64::from(!polled.config.redis.same_target(&target.redis));
                    polled.plans.send_replace(plan(config, target, place == 0, changes));
                    polled.config = target.clone();
                    polled
                }
                None => {
                    let turn = place as f64 / config.targets.len() as f64;
                    let first = now + FIRST_POLLS.min(target.interval).mul_f64(turn);
                    self.begin(plan(config, target, place == 0, 0), target.clone(), several, first).await
                }
            };
            self.polled.push(polled);
        }
        if let Some((_, forecasts)) = &self.history {
            forecasts.set_targets(self.polled.iter().map(forecast_target).collect());
        }
        self.incidents = Vec::new();
        self.readers.send_replace(self.polled.iter().map(|polled| polled.reader.clone()).collect());
    }

    async fn begin(&self, plan: PollerConfig, config: TargetConfig, several: bool, first: Instant) -> PolledTarget {
        let mut registry = Registry::default();
        let metrics = PollMetrics::register(&mut registry);
        let history = self.history.as_ref().map(|(recorders, _)| recorders.of(config.name.as_str()));
        let forecasts = ShownForecasts::default();
        let own = SelfRegistries {
            polls: Arc::new(registry),
            process: Arc::clone(&self.process),
            forecasts: forecasts.clone(),
        };
        let source = Source::new(plan.redis.clone(), plan.sampling.clone(), metrics.redis_commands.clone());
        let (publisher, reader) = latest::channel(poller::first(&plan, &own), history);
        let mut poller = Poller::new(plan.clone(), source, publisher, own, metrics);
        poller.restore(self.incidents.iter().filter(|incident| incident.target == config.name).cloned().collect());
        let (plans, new_plans) = watch::channel(plan);
        // Where there is one target, its lines need not say which.
        let span =
            if several { tracing::error_span!("poller", redis_target = %config.name) } else { tracing::Span::none() };
        let running = self.start.start(poller.run(new_plans, first).instrument(span)).await;
        PolledTarget { config, plans, reader, forecasts, _running: running }
    }

    /// What the server is to know of them.
    pub(super) fn known(&self) -> http::ServedTargets {
        let known = |PolledTarget { config, reader, .. }: &PolledTarget| http::ServedTarget {
            name: config.name.clone(),
            redis: config.redis.to_string(),
            mode: config.redis.mode.as_str(),
            thresholds: config.thresholds.clone(),
            selection: config.groups.clone(),
            drain_target: config.windows.drain_target,
            interval: config.interval,
            collectors: config.collectors,
            reader: reader.clone(),
        };
        http::ServedTargets::new(self.polled.iter().map(known).collect())
    }
}

fn forecast_target(polled: &PolledTarget) -> ForecastTarget {
    let PolledTarget { config, reader, forecasts, .. } = polled;
    ForecastTarget {
        name: config.name.clone(),
        thresholds: config.thresholds.clone(),
        max_length: config.stream_max_len,
        reader: reader.clone(),
        rounds: config.collectors.contains(Collector::Forecast),
        shown: forecasts.clone(),
    }
}

/// What a poller is to do. `changes` counts those of the Redis that is sampled.
fn plan(config: &Config, target: &TargetConfig, is_first: bool, changes: u64) -> PollerConfig {
    let sampling = SamplingConfig {
        streams: target.stream_selection(config.shard),
        stream_limit: target.limits.streams,
        discovery_interval: target.discovery_interval,
        selection: target.groups.clone(),
        group_limit: target.limits.groups,
        consumers: target.consumers,
        interval: target.interval,
        count_budget: target.count_budget,
        spread: target.spread,
    };
    PollerConfig {
        redis: target.redis.clone(),
        target: changes,
        windows: target.windows,
        bounds: Bounds { max_length: target.stream_max_len, consumers: target.limits.consumers },
        thresholds: target.thresholds.clone(),
        incidents: IncidentSettings {
            target: target.name.clone(),
            several_targets: config.targets.len() > 1,
            hold: config.notify.hold,
        },
        collectors: target.collectors,
        timeout: target.timeout,
        page: PageSettings {
            poll_interval: target.interval,
            max_redis_share: target.max_redis_share,
            discovery_interval: (!sampling.streams.patterns().is_empty()).then_some(target.discovery_interval),
            shard: config.shard,
            round_trip_limit: config.transport.publish_timeout,
            thresholds: target.thresholds.otherwise,
            whole: is_first,
        },
        logical: target.logical.clone(),
        sampling,
    }
}
