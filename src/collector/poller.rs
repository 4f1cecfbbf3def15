//! One task per target: tick, sample, publish. No failure of Redis ends the task, and readers are told of it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::analysis::assess::{Assessor, Bounds, all_unreadable};
use crate::analysis::changes::{Change, ChangeDetector};
use crate::analysis::group_forecast;
use crate::analysis::incident::Incident;
use crate::analysis::incidents::{IncidentSettings, IncidentTracker, Now};
use crate::analysis::logical::LogicalStreams;
use crate::analysis::snapshot::TargetSnapshot;
use crate::analysis::view::View;
use crate::analysis::window::Windows;
use crate::collector::change_log::ChangeLog;
pub use crate::collector::page_builder::SelfRegistries;
use crate::collector::page_builder::{PageBuilder, print_without_streams};
use crate::collector::sample_sink::SampleSink;
use crate::collector::schedule::{Rate, Schedule};
use crate::collector::stream_rules::StreamRules;
use crate::collector::{SamplingConfig, Source, Topology};
use crate::exposition::collectors::{Collector, Collectors};
use crate::exposition::registry::PageSettings;
use crate::exposition::series::SeriesWriter;
use crate::model::sample::{ReadError, SampleError};
use crate::model::thresholds::ThresholdRules;
use crate::model::{FailureReason, StreamKey};
use crate::store::latest::{Published, Publisher};
use crate::sys::own_metrics::{PollMetrics, PollOutcome};

/// Time that a page may take to be made before the poller counts as hanging.
const PUBLISHING_TIME: Duration = Duration::from_secs(10);

/// The error while a poll takes longer than the last sample is shown.
const SILENT: &str = "Redis has not answered for too long";

/// What a poller is to do.
#[derive(Clone, Debug)]
pub struct PollerConfig {
    /// What it is to ask for.
    pub sampling: SamplingConfig,
    /// Whom it is to ask.
    pub redis: Topology,
    /// How often whom to ask has changed.
    pub target: u64,
    /// What verdicts on groups take.
    pub windows: Windows,
    /// What the operator says of streams and groups.
    pub bounds: Bounds,
    /// Streams that are one to those who use them.
    pub logical: LogicalStreams,
    /// What a lag is called.
    pub thresholds: ThresholdRules,
    /// What incidents are called, and how long their conditions must hold.
    pub incidents: IncidentSettings,
    /// What the metrics page shows of streams.
    pub collectors: Collectors,
    /// The deadline of a whole poll.
    pub timeout: Duration,
    /// What the metrics page says of the configuration, the time between polls among it.
    pub page: PageSettings,
}

/// Polls one target and publishes what it finds.
pub struct Poller {
    plan: PollerConfig,
    source: Source,
    assessor: Assessor,
    page_builder: PageBuilder,
    rules: StreamRules,
    /// From when the history counts.
    started: Instant,
    publisher: Publisher,
    own: SelfRegistries,
    metrics: PollMetrics,
    view: View,
    sampled: Option<Instant>,
    schedule: Schedule,
    changes: ChangeDetector,
    incidents: IncidentTracker,
}

impl Poller {
    /// A poller of these streams, and of those that it will find, that has not polled yet. What it publishes first is in [`first`].
    #[must_use]
    pub fn new(
        plan: PollerConfig,
        source: Source,
        publisher: Publisher,
        own: SelfRegistries,
        metrics: PollMetrics,
    ) -> Self {
        let mut poller = Self {
            view: unread_view(&plan),
            assessor: assessor(&plan),
            source,
            page_builder: PageBuilder { lines: SeriesWriter::shown_by(plan.collectors), ..PageBuilder::default() },
            rules: StreamRules::default(),
            started: Instant::now(),
            publisher,
            own,
            metrics,
            sampled: None,
            schedule: Schedule::default(),
            changes: ChangeDetector::of(&plan.sampling.streams),
            incidents: IncidentTracker::default(),
            plan,
        };
        poller.incidents.reconfigure(poller.plan.incidents.clone());
        poller
    }

    /// Goes on with incidents of the process before, as far as they are of this target.
    pub fn restore(&mut self, incidents: Vec<Incident>) {
        let now = Now { at: self.started.elapsed(), clock: SystemTime::now() };
        self.incidents.restore(now, incidents);
    }

    /// Polls for ever, at most once per interval and never twice at a time: a tick that a long poll missed is not made
    /// up for.
    ///
    /// A plan with other streams, another pace, other collectors or another Redis is followed at once, any other with the next poll. What was seen
    /// of the streams that stay is kept. The first poll is at `first`.
    pub async fn run(mut self, mut plans: watch::Receiver<PollerConfig>, first: Instant) {
        let mut next = first;
        loop {
            tokio::select! {
                biased;
                Ok(()) = plans.changed() => {
                    let new = plans.borrow_and_update().clone();
                    if self.reconfigure(new) {
                        next = Instant::now();
                    }
                }
                () = sleep_until(next) => {
                    let began = Instant::now();
                    self.poll().await;
                    next = began + self.interval();
                }
            }
        }
    }

    /// Goes by a new plan from now on; whether that calls for a poll at once.
    fn reconfigure(&mut self, new: PollerConfig) -> bool {
        let (before, now) = (&self.plan.page, &new.page);
        let another = self.plan.target != new.target;
        let same_pace = before.poll_interval == now.poll_interval && before.max_redis_share == now.max_redis_share;
        let same_lines = self.plan.collectors == new.collectors;
        let same_page = same_pace && same_lines && before.whole == now.whole;
        let at_once = another || !same_page || self.plan.sampling.streams != new.sampling.streams;
        self.plan = new;
        let plan = &self.plan;
        self.source.reconfigure(plan.sampling.clone(), another.then(|| plan.redis.clone()));
        self.incidents.reconfigure(plan.incidents.clone());
        self.rules.clear();
        if another {
            // Nothing of the one server is to be held against the other.
            self.assessor = assessor(plan);
            let newest_poll = self.view.newest_poll.clone();
            self.view = View { newest_poll, ..unread_view(plan) };
            self.sampled = None;
            self.schedule.retarget();
            self.incidents.retarget();
            self.changes.retarget(&plan.sampling.streams);
        } else {
            self.assessor.reconfigure(plan.sampling.selection.clone(), plan.windows, plan.bounds);
        }
        if !same_lines {
            // Of what readers see now: should the next poll fail, its page is made of them.
            self.page_builder.lines = SeriesWriter::of(&self.view.streams, plan.collectors);
        }
        at_once
    }

    fn rate(&self) -> Rate {
        let PageSettings { poll_interval, max_redis_share, .. } = self.plan.page;
        Rate { interval: poll_interval, max_redis_share }
    }

    fn interval(&self) -> Duration {
        self.schedule.interval(self.rate())
    }

    async fn poll(&mut self) {
        let began = Instant::now();
        let mut log = ChangeLog::default();
        let mut emit = |change: Change<'_>| log.log(change);
        let outcome = match self.sample_while_fresh().await {
            Ok(snapshot) => self.sampled(began, snapshot, &mut emit),
            Err(error) => self.failed(error, &mut emit),
        };
        self.metrics.poll_ended(outcome, began.elapsed());
        self.view.interval = self.interval();
        self.changes.interval(self.plan.page.poll_interval, self.view.interval, &mut emit);
        log.end();
        let now = Now { at: self.started.elapsed(), clock: SystemTime::now() };
        self.view.incidents = self.incidents.update(now, &self.view);
        self.publish().await;
        self.schedule.polled(began.elapsed());
    }

    /// Samples, and publishes meanwhile that the last sample is too old to be shown, and Redis silent, should it become so.
    async fn sample_while_fresh(&mut self) -> Result<TargetSnapshot, SampleError> {
        let timeout = self.plan.timeout;
        // A timer is a system call, and mostly the sample has ended by then.
        let ends_by = Instant::now() + timeout;
        let stale_at = self.stale_at().filter(|at| self.view.fresh.is_some() && *at < ends_by);
        let before: Vec<StreamKey> = stale_at.iter().flat_map(|_| self.assessor.keys().cloned()).collect();
        let Self { source, view, plan, publisher, own, sampled, assessor, page_builder, .. } = self;
        let mut sink = SampleSink::new(assessor, &mut page_builder.lines, self.started);
        let sample = {
            let sampling = source.sample_into(timeout, &mut sink);
            tokio::pin!(sampling);
            let stale = async {
                match stale_at {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                sample = &mut sampling => sample?,
                () = stale => {
                    // However this poll ends: redis_up must not be 1 where no lag is shown.
                    make_stale(view, plan, &before, &ReadError::Target(SILENT.to_owned()));
                    view.newest_poll = Some(Err(SampleError { reason: FailureReason::Timeout, detail: SILENT.to_owned() }));
                    let page = print_without_streams(view.clone(), plan.page, own.clone());
                    let next_by = next_by(plan, view.interval);
                    publisher.publish(Published { view: view.clone(), sampled: *sampled, fresh_until: None, next_by, page });
                    sampling.await?
                }
            }
        };
        let streams = sink.end();
        self.metrics.redis_time(sample.redis_time);
        self.schedule.sampled(sample.redis_time);
        Ok(TargetSnapshot { meta: sample.meta, streams })
    }

    fn stale_at(&self) -> Option<Instant> {
        Some(self.sampled? + self.schedule.stale_after(self.rate()))
    }

    fn sampled(&mut self, began: Instant, snapshot: TargetSnapshot, emit: &mut dyn FnMut(Change<'_>)) -> PollOutcome {
        let at = self.started.elapsed();
        self.changes.sample(at, &snapshot, self.plan.page.round_trip_limit, emit);
        let all_read = snapshot.streams.iter().all(|stream| stream.read.is_ok());
        let complete = all_read && snapshot.meta.refused.is_empty();
        self.sampled = Some(began);
        self.view = View::from(snapshot);
        if let Some(fresh) = &mut self.view.fresh {
            fresh.is_share = self.plan.page.shard.is_some();
        }
        if self.plan.collectors.contains(Collector::Forecast) {
            self.view.forecasts = group_forecast::present(&self.own.forecasts.newest(), &self.view.streams);
        }
        let (rules, PollerConfig { thresholds, logical, .. }) = (&mut self.rules, &self.plan);
        rules.follow(thresholds, logical, &self.view.streams);
        self.view.thresholds = rules.thresholds(&self.view.streams);
        let logical =
            logical.summarize(&self.view.streams, |stream| rules.logical(stream), |name| thresholds.of(&name.into()));
        self.view.logical = logical.into();
        if let Some(fresh) = &self.view.fresh {
            self.changes.over_limits(fresh.over, emit);
            if let Some((at, _)) = fresh.meta.search.and_then(|search| search.completed) {
                self.changes.discovered(self.assessor.keys(), at, emit);
            }
        }
        if all_read && self.view.error().is_none() {
            self.changes.logical(&self.view.logical, emit);
        }
        if complete { PollOutcome::Success } else { PollOutcome::Partial }
    }

    fn failed(&mut self, error: SampleError, emit: &mut dyn FnMut(Change<'_>)) -> PollOutcome {
        // What it took of Redis's time is taken, though nothing came of it.
        let redis_time = self.source.redis_time();
        self.metrics.redis_time(redis_time);
        self.schedule.failed(redis_time);
        self.changes.failure(self.started.elapsed(), &error, emit);
        self.metrics.poll_failed(error.reason);
        if self.stale_at().is_none_or(|stale_at| Instant::now() >= stale_at) {
            let streams: Vec<StreamKey> = self.assessor.keys().cloned().collect();
            make_stale(&mut self.view, &self.plan, &streams, &ReadError::Target(error.to_string()));
        }
        self.view.failed(error);
        PollOutcome::Failure
    }

    async fn publish(&mut self) {
        let (view, shown, own) = (self.view.clone(), self.plan.page, self.own.clone());
        let page = self.page_builder.print(view, shown, own).await;
        let Some(page) = page else { return };
        let next_by = next_by(&self.plan, self.view.interval);
        let fresh_until = self.stale_at();
        self.publisher.publish(Published {
            view: self.view.clone(),
            sampled: self.sampled,
            fresh_until,
            next_by,
            page,
        });
    }
}

fn assessor(plan: &PollerConfig) -> Assessor {
    let SamplingConfig { streams, selection, .. } = &plan.sampling;
    Assessor::new(streams.literals().to_vec(), selection.clone(), plan.windows, plan.bounds)
}

/// What readers see before the first poll has ended.
#[must_use]
pub fn first(plan: &PollerConfig, own: &SelfRegistries) -> Published {
    let view = unread_view(plan);
    let page = print_without_streams(view.clone(), plan.page, own.clone());
    Published { next_by: next_by(plan, view.interval), view, sampled: None, fresh_until: None, page }
}

fn unread_view(plan: &PollerConfig) -> View {
    let mut view = View::unread(plan.page.poll_interval);
    make_stale(&mut view, plan, plan.sampling.streams.literals(), &ReadError::NotRead);
    view
}

/// Shows the streams as unreadable, for this reason.
fn make_stale(view: &mut View, plan: &PollerConfig, streams: &[StreamKey], reason: &ReadError) {
    view.fresh = None;
    view.streams = all_unreadable(streams, &plan.sampling.selection, reason).into();
    view.logical = Vec::new().into();
    view.thresholds = Arc::default();
    view.forecasts = Arc::default();
}

/// When the next page is due, if all is well: after an interval and a poll, and with a generous time to make it in.
fn next_by(plan: &PollerConfig, interval: Duration) -> Instant {
    Instant::now() + interval + plan.timeout + PUBLISHING_TIME
}

#[cfg(test)]
mod tests {
    use prometheus_client::registry::Registry;

    use super::*;
    use crate::model::GroupSelection;
    use crate::model::thresholds::Thresholds;
    use crate::redis::connector::{Address, Credentials, Endpoint, Resolver};
    use crate::store::forecasts::ShownForecasts;
    use crate::store::latest;

    const HOUR: Duration = Duration::from_secs(3_600);

    /// Each hour, of a Redis that is not there.
    fn plan() -> PollerConfig {
        let thresholds = Thresholds { degraded: 100, unhealthy: 1_000 };
        let (window, dead_after) = (Duration::from_secs(60), Duration::from_secs(300));
        PollerConfig {
            sampling: SamplingConfig::of(
                vec!["orders".into()],
                GroupSelection::new(vec!["billing".to_owned()]),
                HOUR,
                0,
            ),
            redis: Topology::standalone(Endpoint {
                address: Address::Unix("/nowhere/redis.sock".into()),
                tls: None,
                credentials: Credentials::default(),
                db: 0,
                resolver: Resolver::default(),
            }),
            target: 0,
            windows: Windows { window, samples: 3, dead_after, drain_target: dead_after },
            bounds: Bounds::default(),
            logical: LogicalStreams::default(),
            thresholds: thresholds.into(),
            incidents: IncidentSettings::default(),
            collectors: Collectors::default(),
            timeout: Duration::from_secs(5),
            page: PageSettings {
                poll_interval: HOUR,
                max_redis_share: 1.0,
                discovery_interval: None,
                shard: None,
                round_trip_limit: Duration::from_millis(1),
                thresholds,
                whole: true,
            },
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_plan_that_changes_before_a_poller_begins_is_followed() {
        let mut registry = Registry::default();
        let metrics = PollMetrics::register(&mut registry);
        let own =
            SelfRegistries { polls: Arc::new(registry), process: Arc::default(), forecasts: ShownForecasts::default() };
        let plan = plan();
        let source = Source::new(plan.redis.clone(), plan.sampling.clone(), metrics.redis_commands.clone());
        let (publisher, mut reader) = latest::channel(first(&plan, &own), None);
        let poller = Poller::new(plan.clone(), source, publisher, own, metrics);
        let (plans, new_plans) = watch::channel(plan.clone());
        plans.send_replace(PollerConfig { page: PageSettings { poll_interval: 2 * HOUR, ..plan.page }, ..plan });
        let (began, running) = (Instant::now(), tokio::spawn(poller.run(new_plans, Instant::now() + HOUR)));
        reader.polled().await;
        assert!(began.elapsed() < HOUR, "another interval is followed at once");
        assert!(reader.newest().view.interval >= 2 * HOUR);
        running.abort();
    }
}
