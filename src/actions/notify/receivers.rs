//! The tasks of the receivers.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, sleep};

use crate::actions::notify::alert::{Alert, Alerts};
use crate::actions::notify::alertmanager::{self, Pushed};
use crate::actions::notify::journal::{Area, INCIDENTS, IncidentPrint, SavedIncidents, generation, print};
use crate::actions::notify::signature::headers;
use crate::actions::notify::webhook::{Clocks, Outbox, Print};
use crate::actions::notify::{NotifyConfig, Timing, Webhook, alertmanager_name, key, webhook_name};
use crate::analysis::incident::Incident;
use crate::store::deliveries::{Deliveries, Firing};
use crate::store::history::state::{SavedState, StateChange, StateFile};
use crate::store::latest::Readers;
use crate::sys::http_client::{ClientError, HttpClient, HttpEndpoint, MAX_LOOKUPS, SendError, Sender};
use crate::sys::own_metrics::{NotificationOutcome, SelfMetrics};

/// How often it is looked for what is to be told.
const LOOKS: Duration = Duration::from_millis(500);

/// The wait after an Alertmanager failed; everything that is due is sent then.
const RETRY: Duration = Duration::from_secs(5);

/// How often an outbox is looked through for what has expired, where nothing changes.
const EXPIRY_LOOKS: Duration = Duration::from_secs(60);

/// What there is to be told.
#[derive(Debug, Default)]
struct News {
    alerts: Alerts,
    /// The longest time between polls.
    interval: Duration,
}

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Tells all receivers.
pub struct Notifier {
    config: watch::Receiver<Arc<NotifyConfig>>,
    readers: Readers,
    deliveries: Deliveries,
    metrics: SelfMetrics,
    began: Instant,
    /// Kept over a reload, as lookups go on that nobody waits for any more.
    lookups: Arc<Semaphore>,
    /// By webhook; kept over a reload.
    outboxes: BTreeMap<HttpEndpoint, KeptOutbox>,
    /// Where everything is kept over a restart, and what was.
    state: StateFile,
    kept: SavedState,
    incidents: Area<IncidentPrint>,
}

/// What is to be told to a webhook, in memory and as it is kept.
#[derive(Clone)]
struct KeptOutbox {
    outbox: Arc<Mutex<Outbox>>,
    area: Arc<tokio::sync::Mutex<Area<Print>>>,
}

impl KeptOutbox {
    fn lock(&self) -> MutexGuard<'_, Outbox> {
        self.outbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps it as it is now, as far as that goes.
    async fn keep(&self, now: Duration) {
        let mut area = self.area.lock().await;
        let mut again = area.is_there();
        while again {
            let clocks = Clocks { now, clock: SystemTime::now() };
            let (prints, changes) = {
                let outbox = self.lock();
                let prints = outbox.prints();
                let changes = area.changes(&prints, |key| outbox.text(key, clocks));
                (prints, changes)
            };
            again = area.save(changes, prints).await;
        }
    }
}

/// The time that what was kept may be older than the process. Its own clock begins there.
const BEFORE: Duration = Duration::from_secs(30 * 24 * 60 * 60);

impl Notifier {
    /// One that goes by the newest configuration, tells what is seen there, and notes what became of it. It goes on with what was kept.
    #[must_use]
    pub fn new(
        config: watch::Receiver<Arc<NotifyConfig>>,
        readers: Readers,
        deliveries: Deliveries,
        metrics: SelfMetrics,
        (state, kept, incidents): (StateFile, SavedState, SavedIncidents),
    ) -> Self {
        Self {
            config,
            readers,
            deliveries,
            metrics,
            began: Instant::now(),
            lookups: Arc::new(Semaphore::new(MAX_LOOKUPS)),
            outboxes: BTreeMap::new(),
            incidents: incidents.area(state.clone()),
            state,
            kept,
        }
    }

    /// Never ends.
    pub async fn run(mut self) {
        loop {
            let config = Arc::clone(&self.config.borrow_and_update());
            let (news, receiver) = watch::channel(Arc::new(News::default()));
            self.deliveries.set_receivers(config.keys().collect());
            let mut running = self.tasks(&config, &receiver);
            // Receivers that are gone, and those that come later, start from nothing.
            self.kept = SavedState::default();
            let areas = config.keys().map(|(key, _)| key.to_string()).chain([INCIDENTS.to_owned()]).collect();
            self.state.save(vec![StateChange::Only(areas)]).await;
            let (deliveries, kept) = (self.deliveries.clone(), &mut self.incidents);
            let looking = look(self.readers.clone(), Arc::clone(&config), deliveries, kept, news);
            let mut changes = self.config.clone();
            tokio::select! {
                () = looking => {}
                () = async { while running.next().await.is_some() {} std::future::pending().await } => {}
                changed = changes.changed() => {
                    if changed.is_err() {
                        std::future::pending::<()>().await;
                    }
                }
            }
        }
    }

    fn tasks(&mut self, config: &Arc<NotifyConfig>, news: &watch::Receiver<Arc<News>>) -> FuturesUnordered<Task> {
        let running = FuturesUnordered::new();
        if config.receivers().next().is_none() {
            // A client reads all certificates that the system trusts.
            self.outboxes.clear();
            return running;
        }
        // It was checked when the configuration was read.
        let client = match HttpClient::new(config.ca.as_deref()) {
            Ok(client) => client,
            Err(error) => {
                tracing::error!(%error, "notifications are off");
                return running;
            }
        };
        let line = |name: String, endpoint: &HttpEndpoint, to: HttpEndpoint| ReceiverTask {
            key: key(&name, endpoint),
            deliveries: self.deliveries.clone(),
            sender: client.to(to, &self.lookups),
            metrics: self.metrics.clone(),
            began: self.began,
            failing: false,
            name,
        };
        for endpoint in &config.alertmanagers {
            let line = line(alertmanager_name(endpoint), endpoint, endpoint.below(alertmanager::PATH));
            running.push(Box::pin(line.push(news.clone())) as Task);
        }
        let mut outboxes = BTreeMap::new();
        for webhook in &config.webhooks {
            let line = line(webhook_name(&webhook.endpoint), &webhook.endpoint, webhook.endpoint.clone());
            let outbox = self.outboxes.remove(&webhook.endpoint).unwrap_or_else(|| self.restored(&line.key));
            outboxes.insert(webhook.endpoint.clone(), outbox.clone());
            running.push(Box::pin(line.tell(webhook.clone(), outbox, config.timing, news.clone())));
        }
        self.outboxes = outboxes;
        running
    }

    /// The outbox that the process before has kept for a receiver, or an empty one.
    fn restored(&self, key: &str) -> KeptOutbox {
        let clocks = Clocks { now: BEFORE + self.began.elapsed(), clock: SystemTime::now() };
        let entries = || self.kept.entries.iter().filter(|entry| entry.area == key);
        let outbox = Outbox::restored(entries(), clocks);
        self.deliveries.restore(key, outbox.told());
        let prints = outbox.prints();
        let generation = generation(self.kept.generation, entries(), &prints);
        let area = Area::new(key, self.state.clone(), generation, prints);
        KeptOutbox { outbox: Arc::new(Mutex::new(outbox)), area: Arc::new(tokio::sync::Mutex::new(area)) }
    }
}

/// Looks for incidents that are to be told, and keeps them. Never ends.
async fn look(
    readers: Readers,
    config: Arc<NotifyConfig>,
    deliveries: Deliveries,
    kept: &mut Area<IncidentPrint>,
    news: watch::Sender<Arc<News>>,
) {
    let is_anybody_told = config.receivers().next().is_some();
    if !is_anybody_told && !kept.is_there() {
        std::future::pending::<()>().await;
    }
    let mut before: Vec<Arc<[Arc<Incident>]>> = Vec::new();
    loop {
        let published: Vec<_> = readers.borrow().iter().map(|reader| reader.newest().clone()).collect();
        // Before its first poll, a target that was there before a reload would look as if all had ended.
        let polled = published.iter().all(|published| published.view.newest_poll.is_some());
        let now: Vec<_> = published.iter().map(|published| Arc::clone(&published.view.incidents.all)).collect();
        let same = now.len() == before.len() && now.iter().zip(&before).all(|(now, before)| Arc::ptr_eq(now, before));
        if polled && (!same || kept.has_failed()) {
            // Before anything is sent.
            keep(kept, &now).await;
        }
        if polled && !same && is_anybody_told {
            let interval = published.iter().map(|published| published.view.interval).max().unwrap_or_default();
            let (all, labels) = (now.clone(), Arc::clone(&config));
            // A storm of incidents has many texts.
            let alerts = tokio::task::spawn_blocking(move || alerts(&all, &labels.labels)).await;
            if let Ok(alerts) = alerts {
                deliveries.keep(&alerts.values().flat_map(|alerts| alerts.keys().map(String::as_str)).collect());
                news.send_replace(Arc::new(News { alerts, interval }));
                before = now;
            }
        } else if polled {
            before = now;
        }
        sleep(LOOKS).await;
    }
}

async fn keep(kept: &mut Area<IncidentPrint>, all: &[Arc<[Arc<Incident>]>]) {
    if !kept.is_there() {
        return;
    }
    let incidents: BTreeMap<String, &Incident> =
        all.iter().flat_map(|incidents| incidents.iter()).map(|incident| (incident.id(), &**incident)).collect();
    loop {
        let prints = incidents.iter().map(|(id, incident)| (id.clone(), print(incident))).collect();
        let changes = kept.changes(&prints, |id| incidents.get(id).map(|incident| incident.to_text()));
        if !kept.save(changes, prints).await {
            return;
        }
    }
}

fn alerts(all: &[Arc<[Arc<Incident>]>], labels: &BTreeMap<String, String>) -> Alerts {
    let mut alerts = Alerts::new();
    for incident in all.iter().flat_map(|incidents| incidents.iter()) {
        let id = incident.id();
        if let Some(alert) = Alert::of(incident, &id, labels) {
            alerts.entry(incident.target.to_string()).or_default().insert(id, alert);
        }
    }
    alerts
}

/// The way to one receiver.
struct ReceiverTask {
    name: String,
    key: Arc<str>,
    deliveries: Deliveries,
    sender: Sender,
    metrics: SelfMetrics,
    began: Instant,
    /// Whether the log has said that the receiver does not take anything.
    failing: bool,
}

impl ReceiverTask {
    /// Pushes to an Alertmanager. Never ends.
    async fn push(mut self, news: watch::Receiver<Arc<News>>) {
        self.metrics.notifies(&self.name);
        let mut pushed = Pushed::default();
        loop {
            let newest = Arc::clone(&news.borrow());
            let now = self.now();
            let due = pushed.due(now, &newest.alerts);
            let mut wait = LOOKS;
            if !due.is_empty() {
                let body = alertmanager::body(&due, SystemTime::now(), newest.interval);
                match self.sender.post(&[], body.into()).await {
                    Ok(()) => {
                        pushed.sent(now, &due);
                        self.outcome(due.iter().map(|alert| alert.firing()), NotificationOutcome::Delivered, None);
                        // There may be more than one request takes.
                        wait = Duration::ZERO;
                    }
                    Err(error) => {
                        let firings = due.iter().map(|alert| alert.firing());
                        self.outcome(firings, NotificationOutcome::Failed, Some(&error));
                        wait = RETRY.max(error.retry_after.unwrap_or_default());
                    }
                }
            }
            sleep(wait).await;
        }
    }

    /// Tells a webhook. Never ends.
    async fn tell(mut self, to: Webhook, kept: KeptOutbox, timing: Timing, news: watch::Receiver<Arc<News>>) {
        self.metrics.notifies(&self.name);
        let mut seen: Option<(Arc<News>, Duration)> = None;
        loop {
            let newest = Arc::clone(&news.borrow());
            let (now, clock) = (self.now(), SystemTime::now());
            // Before the first news nothing has ended, it is only not known yet.
            let is_news = !newest.interval.is_zero()
                && seen.as_ref().is_none_or(|(seen, at)| !Arc::ptr_eq(seen, &newest) || now >= *at + EXPIRY_LOOKS);
            let message = {
                let mut outbox = kept.lock();
                if is_news {
                    seen = Some((Arc::clone(&newest), now));
                    for _ in 0..outbox.update(now, clock, &newest.alerts) {
                        self.metrics.notified(&self.name, NotificationOutcome::Expired);
                    }
                }
                outbox.due(now, &timing)
            };
            if is_news || message.is_some() {
                kept.keep(now).await;
            }
            if let Some(message) = message {
                let headers = headers(to.secret.as_deref(), &message.id, clock, &message.body);
                let sent = self.sender.post(&headers, message.body.clone()).await;
                let now = self.now();
                let outcome = match &sent {
                    Ok(()) => {
                        kept.lock().done(now, &message);
                        NotificationOutcome::Delivered
                    }
                    Err(error) if error.is_temporary => match kept.lock().failed(now, &message, error, chance()) {
                        true => NotificationOutcome::Expired,
                        false => NotificationOutcome::Failed,
                    },
                    Err(_refused) => {
                        kept.lock().done(now, &message);
                        NotificationOutcome::Refused
                    }
                };
                // What is said to be told stays told, whatever happens now.
                kept.keep(now).await;
                self.outcome(message.firings(), outcome, sent.as_ref().err());
            }
            sleep(LOOKS).await;
        }
    }

    fn now(&self) -> Duration {
        BEFORE + self.began.elapsed()
    }

    /// What became of a message with these firings.
    fn outcome<'a>(
        &mut self,
        firings: impl Iterator<Item = Firing<'a>>,
        outcome: NotificationOutcome,
        error: Option<&SendError>,
    ) {
        self.metrics.notified(&self.name, outcome);
        let why = error.map(|error| error.why.as_str());
        self.deliveries.attempted(&self.key, firings, outcome, why, SystemTime::now());
        match error {
            None if std::mem::take(&mut self.failing) => {
                tracing::info!(receiver = self.name, "notifications are delivered again");
            }
            None => {}
            // For good: each is another message.
            Some(error) if outcome == NotificationOutcome::Refused => {
                tracing::error!(receiver = self.name, error = error.why, "notification refused");
            }
            Some(error) if !std::mem::replace(&mut self.failing, true) => {
                tracing::warn!(receiver = self.name, error = error.why, "notification not delivered; trying again");
            }
            Some(_) => {}
        }
    }
}

/// From 0 to 1.
fn chance() -> f64 {
    // Without chance, everybody comes at the end of the wait.
    getrandom::u32().map_or(1.0, |number| f64::from(number) / f64::from(u32::MAX))
}

/// Why a receiver did not take a test.
#[derive(Clone, Debug, thiserror::Error)]
pub enum NotifyTestError {
    /// There is no client.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// It was not delivered.
    #[error(transparent)]
    Send(#[from] SendError),
}

/// Tells every receiver that telling works; what became of each.
pub async fn test(config: &NotifyConfig) -> Vec<(String, Result<(), NotifyTestError>)> {
    let client = match HttpClient::new(config.ca.as_deref()) {
        Ok(client) => client,
        Err(error) => return config.receivers().map(|name| (name, Err(error.clone().into()))).collect(),
    };
    let now = SystemTime::now();
    let alert = Alert::test(&config.labels, now);
    let lookups = Arc::new(Semaphore::new(MAX_LOOKUPS));
    let mut outcomes = Vec::new();
    for endpoint in &config.alertmanagers {
        let body: Bytes = alertmanager::body(&[&alert], now, Duration::ZERO).into();
        let sent = client.to(endpoint.below(alertmanager::PATH), &lookups).post(&[], body).await;
        outcomes.push((alertmanager_name(endpoint), sent.map_err(NotifyTestError::from)));
    }
    for webhook in &config.webhooks {
        let mut outbox = Outbox::default();
        let alerts = BTreeMap::from([(alert.id.clone(), alert.clone())]);
        outbox.update(Duration::ZERO, now, &BTreeMap::from([("test".to_owned(), alerts)]));
        let at_once = Timing { group_wait: Duration::ZERO, ..config.timing };
        if let Some(message) = outbox.due(Duration::ZERO, &at_once) {
            let headers = headers(webhook.secret.as_deref(), &message.id, now, &message.body);
            let sent = client.to(webhook.endpoint.clone(), &lookups).post(&headers, message.body.clone()).await;
            outcomes.push((webhook_name(&webhook.endpoint), sent.map_err(NotifyTestError::from)));
        }
    }
    outcomes
}
