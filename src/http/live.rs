//! Live streams: one feed per target that has viewers.
//!
//! A feed encodes every row once per snapshot, and every message once for all who are told the same. A viewer keeps no
//! queue: it is told what has changed since what it was told last, once its connection has room. Without viewers there is
//! no feed, and nothing is encoded.

mod feed;
pub(super) mod request;
mod sse;
mod viewer;
mod websocket;

use std::collections::HashMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use hyper::upgrade::OnUpgrade;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::http::api::targets::target_states;
use crate::http::auth::Admission;
use crate::http::live::feed::{Channel, Version};
use crate::http::live::request::RowFilter;
use crate::http::live::viewer::{HEARTBEAT, Versions, ViewerPermit};
use crate::http::reader_memory::ReaderMemory;
use crate::http::response_body::EventBytes;
use crate::http::server_config::ServerConfig;
use crate::model::TargetName;
use crate::sys::own_metrics::SelfMetrics;

pub(super) use viewer::Viewer;
pub(super) use websocket::Session;

/// A WebSocket that is granted, on its way to the connection that it takes over.
#[derive(Clone, Debug)]
pub(super) struct PendingUpgrade(Arc<Mutex<Option<(Session, OnUpgrade)>>>);

impl PendingUpgrade {
    pub(super) fn new(session: Session, upgrading: OnUpgrade) -> Self {
        Self(Arc::new(Mutex::new(Some((session, upgrading)))))
    }

    /// What is to be run once the last answer is out.
    pub(super) fn take(&self) -> Option<(Session, OnUpgrade)> {
        lock(&self.0).take()
    }
}

/// All feeds and viewers.
#[derive(Debug)]
pub(super) struct LiveHub {
    configs: watch::Sender<Arc<ServerConfig>>,
    feeds: Mutex<HashMap<TargetName, Weak<Feed>>>,
    /// Viewers of all feeds.
    open: Arc<AtomicU64>,
    /// Turns true when the streams are to end.
    shutdown: watch::Sender<bool>,
    metrics: SelfMetrics,
    memory: ReaderMemory,
}

/// What the viewers of one target have in common.
#[derive(Debug)]
struct Feed {
    versions: Versions,
    channels: Mutex<HashMap<RowFilter, Weak<Channel>>>,
}

/// Who wants to see what.
pub(super) struct Visit {
    pub(super) target: TargetName,
    pub(super) filter: RowFilter,
    pub(super) admission: Admission,
    pub(super) certified: bool,
}

impl LiveHub {
    pub(super) fn new(config: Arc<ServerConfig>, metrics: SelfMetrics, memory: ReaderMemory) -> Self {
        Self {
            configs: watch::channel(config).0,
            feeds: Mutex::default(),
            open: Arc::default(),
            shutdown: watch::channel(false).0,
            metrics,
            memory,
        }
    }

    /// Streams go by this from now on; those that it does not allow end.
    pub(super) fn reconfigure(&self, config: Arc<ServerConfig>) {
        self.configs.send_replace(config);
    }

    /// Ends all streams.
    pub(super) fn end(&self) {
        self.shutdown.send_replace(true);
    }

    /// Lets a viewer in, or `None` where `most` are in.
    pub(super) fn open(&self, visit: Visit, most: u64) -> Option<Viewer> {
        let permit = ViewerPermit::take(&self.open, most, &self.metrics.live_viewers)?;
        let feed = self.feed(&visit.target);
        let channel = feed.channel(&visit.target, visit.filter, &self.memory);
        Some(Viewer {
            channel,
            versions: feed.versions.clone(),
            configs: self.configs.subscribe(),
            shutdown: self.shutdown.subscribe(),
            admission: visit.admission,
            expires: false,
            certified: visit.certified,
            seen: None,
            incidents_seen: None,
            heartbeat: Instant::now() + HEARTBEAT,
            _feed: feed,
            _permit: permit,
        })
    }

    /// Tells a viewer over HTTP.
    pub(super) fn event_stream(&self, viewer: Viewer) -> EventBytes {
        Box::pin(sse::event_stream(viewer, self.metrics.clone()))
    }

    /// Tells a viewer over a WebSocket.
    pub(super) fn session(&self, viewer: Viewer) -> Session {
        Session { viewer, metrics: self.metrics.clone() }
    }

    /// The feed of a target, which is begun where there is none.
    fn feed(&self, target: &TargetName) -> Arc<Feed> {
        let mut feeds = lock(&self.feeds);
        // One whose target was taken away has ended; the target may be back.
        let running = feeds.get(target).and_then(Weak::upgrade).filter(|feed| feed.versions.has_changed().is_ok());
        if let Some(feed) = running {
            return feed;
        }
        let (sender, versions) = watch::channel(None);
        tokio::spawn(run(target.clone(), self.configs.subscribe(), sender));
        let feed = Arc::new(Feed { versions, channels: Mutex::default() });
        feeds.retain(|_, feed| feed.strong_count() > 0);
        feeds.insert(target.clone(), Arc::downgrade(&feed));
        feed
    }
}

impl Feed {
    /// Where all are who want to see the same.
    fn channel(&self, target: &TargetName, filter: RowFilter, memory: &ReaderMemory) -> Arc<Channel> {
        let mut channels = lock(&self.channels);
        if let Some(channel) = channels.get(&filter).and_then(Weak::upgrade) {
            return channel;
        }
        let channel = Arc::new(Channel::new(target.clone(), filter.clone(), memory.clone()));
        // At most as many as there are viewers.
        channels.retain(|_, channel| channel.strong_count() > 0);
        channels.insert(filter, Arc::downgrade(&channel));
        channel
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes a version of every snapshot, until no viewer is left or the target is gone.
async fn run(
    name: TargetName,
    mut configs: watch::Receiver<Arc<ServerConfig>>,
    versions: watch::Sender<Option<Arc<Version>>>,
) {
    loop {
        let config = Arc::clone(&configs.borrow_and_update());
        let Some(target) = config.targets.find(Some(name.as_str())) else { return };
        let mut reader = target.reader.clone();
        loop {
            reader.mark_seen();
            let before = versions.borrow().clone();
            let Some(version) = encode(&config, &name, before).await else { return };
            versions.send_replace(Some(version));
            tokio::select! {
                () = reader.changed() => {}
                // Thresholds may be others, or the target another one.
                changed = configs.changed() => match changed {
                    Ok(()) => break,
                    Err(_) => return,
                },
                () = versions.closed() => return,
            }
        }
    }
}

/// The next version; `None` where it could not be made, or there is nothing to make it of.
async fn encode(config: &Arc<ServerConfig>, name: &TargetName, before: Option<Arc<Version>>) -> Option<Arc<Version>> {
    let (config, name) = (Arc::clone(config), name.clone());
    // Ten thousand rows take some 30 ms of a core.
    let made = tokio::task::spawn_blocking(move || {
        let targets = config.targets.all().map(|target| (&target.name, Arc::clone(&target.reader.newest()), target));
        let targets: Vec<_> = targets.collect();
        // Of the same moment as the states beside it.
        let (_, published, target) = targets.iter().find(|(target, ..)| **target == name)?;
        let states = targets.iter().map(|(name, published, target)| (*name, &published.view, &target.thresholds));
        let states = serde_json::to_string(&target_states(states));
        let version = states.and_then(|states| {
            let (view, sampled) = (&published.view, published.sampled);
            Version::next(before.as_deref(), (view, sampled), &name, &target.thresholds, &states, &config.deliveries)
        });
        version.map_err(|error| tracing::error!(%error, "cannot encode a live update")).ok()
    });
    made.await.ok().flatten().map(Arc::new)
}
