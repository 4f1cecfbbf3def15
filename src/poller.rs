//! One task per target: tick, sample, publish. Whatever Redis does, the task goes on and readers are told.

mod said;

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use prometheus_client::registry::Registry;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use crate::assess::{Assessor, all_unreadable};
use crate::lag::Windows;
use crate::model::sample::{ReadError, SampleError, TargetSample};
use crate::model::snapshot::TargetSnapshot;
use crate::model::view::View;
use crate::model::{GroupSelection, StreamKey};
use crate::process::process_stats;
use crate::render::exposition::{self, Settings};
use crate::render::page::Page;
use crate::self_metrics::{PollOutcome, SelfMetrics};
use crate::snapshot::{Published, Publisher};
use crate::source::{Sampling, Source, Topology};
use said::Said;

/// After so many intervals without a good sample the last one is no longer shown: old numbers look like news. Where
/// polls take longer than the interval, their own pace counts instead, or pages would flap.
const FRESH_INTERVALS: u32 = 3;

/// Time that a page may take to be made before the poller counts as hanging.
const PUBLISHING_TIME: Duration = Duration::from_secs(10);

/// What a poller needs to know.
#[derive(Clone, Debug)]
pub struct PollerSettings {
    /// The streams, in order.
    pub streams: Vec<StreamKey>,
    /// The monitored groups.
    pub selection: GroupSelection,
    /// What verdicts on groups take.
    pub windows: Windows,
    /// The length to which streams are trimmed, where the operator says so.
    pub max_length: Option<u64>,
    /// The deadline of a whole poll.
    pub timeout: Duration,
    /// What the metrics page says of the configuration, the time between polls among it.
    pub page: Settings,
}

/// What a poller is to do from now on.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What it needs to know.
    pub settings: PollerSettings,
    /// What it is to ask for.
    pub sampling: Sampling,
    /// Whom it is to ask.
    pub redis: Topology,
    /// How often whom to ask has changed.
    pub target: u64,
}

/// Polls one target and publishes what it finds.
pub struct Poller {
    settings: PollerSettings,
    source: Source,
    assessor: Assessor,
    /// From when the history counts.
    started: Instant,
    publisher: Publisher,
    own: Arc<Registry>,
    metrics: SelfMetrics,
    view: View,
    sampled: Option<Instant>,
    /// How long the newest poll took, publishing included.
    pace: Duration,
    said: Said,
}

impl Poller {
    /// A poller that has not polled yet. What it publishes first is in [`first`].
    #[must_use]
    pub fn new(
        settings: PollerSettings,
        source: Source,
        publisher: Publisher,
        own: Arc<Registry>,
        metrics: SelfMetrics,
    ) -> Self {
        let view = unread_view(&settings);
        let assessor = assessor(&settings);
        Self {
            settings,
            source,
            assessor,
            started: Instant::now(),
            publisher,
            own,
            metrics,
            view,
            sampled: None,
            pace: Duration::ZERO,
            said: Said::default(),
        }
    }

    /// Polls for ever, at most once per interval and never twice at a time: a tick that a long poll missed is not made
    /// up for.
    ///
    /// A plan with other streams, another interval or another Redis is followed at once, any other with the next poll. What was
    /// seen of the streams that stay is kept.
    pub async fn run(mut self, mut plans: watch::Receiver<Plan>) {
        let mut target = plans.borrow_and_update().target;
        loop {
            let mut ticks = interval(self.settings.page.poll_interval);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    biased;
                    Ok(()) = plans.changed() => {
                        let plan = plans.borrow_and_update().clone();
                        if self.follow(plan, &mut target) {
                            break;
                        }
                    }
                    _ = ticks.tick() => self.poll().await,
                }
            }
        }
    }

    /// Goes by a new plan from now on; whether that calls for a poll at once.
    fn follow(&mut self, plan: Plan, target: &mut u64) -> bool {
        let (before, now) = (&self.settings, &plan.settings);
        let another = plan.target != *target;
        let at_once = another || before.page.poll_interval != now.page.poll_interval || before.streams != now.streams;
        *target = plan.target;
        self.source.follow(plan.sampling, another.then_some(plan.redis));
        if another {
            // Nothing of the one server is to be held against the other.
            self.assessor = assessor(now);
            (self.sampled, self.view) = (None, View { newest_poll: self.view.newest_poll.clone(), ..unread_view(now) });
        } else {
            self.assessor.follow(assessor(now));
        }
        self.settings = plan.settings;
        at_once
    }

    async fn poll(&mut self) {
        let began = Instant::now();
        let outcome = self.sample_while_fresh().await;
        let poll_outcome = match outcome {
            Ok(sample) => {
                let snapshot = self.assessor.assess(sample, began - self.started);
                self.sampled(began, snapshot)
            }
            Err(error) => self.failed(error),
        };
        self.metrics.poll_ended(poll_outcome, began.elapsed());
        self.publish().await;
        self.pace = began.elapsed();
    }

    /// Samples, and publishes meanwhile that the last sample is too old to be shown, should it become so.
    async fn sample_while_fresh(&mut self) -> Result<TargetSample, SampleError> {
        let stale_at = self.stale_at().filter(|_| self.view.fresh.is_some());
        let timeout = self.settings.timeout;
        let Some(stale_at) = stale_at else {
            return self.source.sample(timeout).await;
        };
        let Self { source, view, settings, publisher, own, sampled, .. } = self;
        let sampling = source.sample(timeout);
        tokio::pin!(sampling);
        tokio::select! {
            outcome = &mut sampling => return outcome,
            () = sleep_until(stale_at) => {}
        }
        // Redis has been silent for so long, whatever this poll will bring.
        let silent = ReadError("Redis has not answered for too long".to_owned());
        view.fresh = None;
        view.streams = all_unreadable(&settings.streams, &settings.selection, &silent).into();
        publish(publisher, view, *sampled, settings, own).await;
        sampling.await
    }

    fn stale_at(&self) -> Option<Instant> {
        Some(self.sampled? + self.settings.page.poll_interval.max(self.pace) * FRESH_INTERVALS)
    }

    fn sampled(&mut self, began: Instant, snapshot: TargetSnapshot) -> PollOutcome {
        self.said.sample(&snapshot, self.settings.page.round_trip_limit);
        let all_read = snapshot.streams.iter().all(|stream| stream.read.is_ok());
        let complete = all_read && snapshot.refused.is_empty();
        self.sampled = Some(began);
        self.view = View::from(snapshot);
        if complete { PollOutcome::Success } else { PollOutcome::Partial }
    }

    fn failed(&mut self, error: SampleError) -> PollOutcome {
        self.said.failure(&error);
        self.metrics.poll_failed(error.reason);
        if self.stale_at().is_none_or(|stale_at| Instant::now() >= stale_at) {
            let reason = ReadError(error.to_string());
            self.view.fresh = None;
            self.view.streams = all_unreadable(&self.settings.streams, &self.settings.selection, &reason).into();
        }
        self.view.failed(error);
        PollOutcome::Failure
    }

    async fn publish(&mut self) {
        self.metrics.tasks(Handle::current().metrics().num_alive_tasks());
        publish(&mut self.publisher, &self.view, self.sampled, &self.settings, &self.own).await;
    }
}

fn assessor(settings: &PollerSettings) -> Assessor {
    let PollerSettings { streams, selection, windows, max_length, .. } = settings;
    Assessor::new(streams.clone(), selection.clone(), *windows, *max_length)
}

/// What readers see before the first poll has ended.
#[must_use]
pub fn first(settings: &PollerSettings, own: &Registry) -> Published {
    let view = unread_view(settings);
    let page = encode(view.clone(), settings.page, own, BytesMut::new());
    Published { view, sampled: None, next_by: next_by(settings), page }
}

fn unread_view(settings: &PollerSettings) -> View {
    let reason = ReadError("not read yet".to_owned());
    View {
        newest_poll: None,
        fresh: None,
        last_success: None,
        streams: all_unreadable(&settings.streams, &settings.selection, &reason).into(),
        nodes: Arc::default(),
    }
}

async fn publish(
    publisher: &mut Publisher,
    view: &View,
    sampled: Option<Instant>,
    settings: &PollerSettings,
    own: &Arc<Registry>,
) {
    let (view, own, shown) = (view.clone(), Arc::clone(own), settings.page);
    let buffer = publisher.buffer();
    // A big page takes milliseconds, which the threads that serve should not lose.
    let encoding = tokio::task::spawn_blocking(move || (encode(view.clone(), shown, &own, buffer), view));
    match encoding.await {
        Ok((page, view)) => publisher.publish(Published { view, sampled, next_by: next_by(settings), page }),
        Err(error) => match error.try_into_panic() {
            // Readers would be shown the last page for ever.
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => tracing::debug!("the program ends before the page is encoded"),
        },
    }
}

/// When the next page is due, if all is well: after an interval and a poll, and with a generous time to make it in.
fn next_by(settings: &PollerSettings) -> Instant {
    Instant::now() + settings.page.poll_interval + settings.timeout + PUBLISHING_TIME
}

/// Encodes a page into an empty buffer.
fn encode(view: View, settings: Settings, own: &Registry, mut buffer: BytesMut) -> Page {
    let encoded = exposition::encode(&mut buffer, view, settings, process_stats(), own);
    debug_assert!(encoded.is_ok(), "writing to memory does not fail");
    match Page::from_openmetrics(buffer.freeze()) {
        Ok(page) => page,
        Err(error) => {
            // Writing to memory does not fail; should it, an empty page fails the scrape, which is seen.
            tracing::error!(%error, "the metrics page could not be compressed");
            Page::default()
        }
    }
}
