//! Reading the configuration again while the program runs: all of it, or nothing changes.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;

use crate::actions::notify::NotifyConfig;
use crate::actions::remediate::Watched;
use crate::app::systemd;
use crate::app::targets::PolledTargets;
use crate::app::{policy, watched};
use crate::collector::REPLY_MEMORY;
use crate::config::{self, Config, Invocation};
use crate::http::Service;
use crate::store::deliveries::Deliveries;
use crate::store::forecasts::Forecasts;
use crate::store::history::History;
use crate::store::remediation::Desk;
use crate::sys::files::FileFingerprint;
use crate::sys::log;
use crate::sys::own_metrics::SelfMetrics;
use crate::sys::reload::{ReloadError, ReloadOutcome, ReloadRequests};
use crate::sys::shutdown::{self, Shutdown};

/// How often the files of `--web.config.file` are looked at: tools that renew certificates send no signals.
const FILES_LOOKED_AT: Duration = Duration::from_secs(10);

/// Reloads the configuration.
pub(super) struct Reloader {
    pub(super) arguments: Vec<OsString>,
    /// What holds.
    pub(super) config: Config,
    pub(super) service: Arc<Service>,
    pub(super) targets: PolledTargets,
    pub(super) history: History,
    pub(super) deliveries: Deliveries,
    pub(super) forecasts: Forecasts,
    pub(super) notify: watch::Sender<Arc<NotifyConfig>>,
    pub(super) desk: Desk,
    pub(super) watched: watch::Sender<Watched>,
    pub(super) level: log::Level,
    pub(super) metrics: SelfMetrics,
}

impl Reloader {
    /// Reloads on request, and when a file of the web configuration has changed. Never ends.
    pub(super) async fn run(mut self, mut asked: ReloadRequests, mut shutdown: Shutdown) {
        let mut seen = looks(&self.config.web.files);
        let mut newest = seen.clone();
        loop {
            let answer = tokio::select! {
                answer = asked.next() => answer,
                () = sleep(FILES_LOOKED_AT) => {
                    let before = std::mem::replace(&mut newest, looks(&self.config.web.files));
                    // Only once it is the same twice: a file that is being written is cut short, and says less than it will.
                    if newest == seen || newest != before {
                        continue;
                    }
                    None
                }
                () = shutdown::triggered(&mut shutdown) => {
                    drop(asked);
                    return std::future::pending().await;
                }
            };
            // Before they are read: what changes meanwhile is seen the next time.
            seen = looks(&self.config.web.files);
            let files = self.config.web.files.clone();
            let outcome = self.reload_and_say().await;
            if files != self.config.web.files {
                seen = looks(&self.config.web.files);
            }
            if let Some(answer) = answer {
                // The requester need not wait for it.
                let _ = answer.send(outcome);
            }
        }
    }

    async fn reload_and_say(&mut self) -> ReloadOutcome {
        systemd::reloading();
        let before = self.config.digests.clone();
        let outcome = self.reload().await;
        systemd::reloaded();
        self.metrics.reloaded(outcome.is_ok());
        match &outcome {
            Ok(()) => tracing::info!(changed = before.changed(&self.config.digests), "configuration reloaded"),
            Err(why) => {
                tracing::error!(error = %why, "configuration reload failed; keeping the previous configuration")
            }
        }
        outcome
    }

    async fn reload(&mut self) -> ReloadOutcome {
        let arguments = self.arguments.clone();
        // It reads files, which may be slow.
        let reading = tokio::task::spawn_blocking(move || config::parse(arguments)).await;
        let request = reading.map_err(refused)?.map_err(refused)?;
        let Invocation::Run(new) = request else { return Err(refused("there is nothing to run")) };
        self.config.may_become(&new).map_err(refused)?;
        self.say_what_opens(&new);
        // From here on nothing can fail.
        REPLY_MEMORY.set_limit(new.memory_for_replies);
        self.targets.reconfigure(&new).await;
        let (history, deliveries, forecasts) = (self.history.clone(), self.deliveries.clone(), self.forecasts.clone());
        let policy = policy(&new, &self.targets, history, deliveries, forecasts, self.desk.clone());
        self.service.set_policy(policy);
        if new.notify != self.config.notify {
            self.notify.send_replace(Arc::new(new.notify.clone()));
        }
        self.watched.send_replace(watched(&new, &self.targets));
        self.level.set(new.log_level);
        self.config = *new;
        Ok(())
    }

    /// What was closed so far and will not be any more, which may not be meant.
    fn say_what_opens(&self, new: &Config) {
        let (before, now) = (&self.config.web, &new.web);
        if before.tls.is_some() && now.tls.is_none() {
            tracing::warn!("TLS disabled: the web configuration has no tls_server_config");
        }
        if !before.users.is_empty() && now.users.is_empty() {
            tracing::warn!("basic auth disabled: the web configuration has no basic_auth_users");
        }
    }
}

fn refused(why: impl std::fmt::Display) -> ReloadError {
    ReloadError::Configuration(why.to_string())
}

fn looks(files: &[PathBuf]) -> Vec<Option<FileFingerprint>> {
    files.iter().map(|file| FileFingerprint::of(file)).collect()
}
