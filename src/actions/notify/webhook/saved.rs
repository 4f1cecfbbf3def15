//! An outbox as texts, to be kept over a restart: every alert that is known with what was told of it, and the message that is not taken yet.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::{Alert, Known, Outbox, Stamp, TargetOutbox, WebhookMessage};
use crate::model::text::{of_unix_millis, unix_millis};
use crate::store::deliveries::Firing;
use crate::store::history::state::StateEntry;

/// What a text is kept for.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::actions::notify) enum Print {
    /// Of an alert: which firing it is, and what was told.
    Alert(Stamp, Option<Stamp>),
    /// Of a target: messages so far, and the one that is to be sent.
    Target(u64, Option<String>),
}

/// Times are milliseconds since the Unix epoch.
#[derive(Serialize, Deserialize)]
struct KeptAlert {
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
    starts_at: u64,
    ends_at: Option<u64>,
    told: Option<(u64, Option<u64>)>,
}

#[derive(Serialize, Deserialize)]
struct KeptTarget {
    sent: u64,
    last: Option<u64>,
    message: Option<KeptMessage>,
}

#[derive(Serialize, Deserialize)]
struct KeptMessage {
    id: String,
    body: String,
    told: Vec<(String, u64, Option<u64>)>,
    made: u64,
}

/// The time by two clocks: one that never steps, and the one that people read.
#[derive(Clone, Copy)]
pub(in crate::actions::notify) struct Clocks {
    pub(in crate::actions::notify) now: Duration,
    pub(in crate::actions::notify) clock: SystemTime,
}

impl Clocks {
    fn kept(self, at: Duration) -> u64 {
        unix_millis(self.clock.checked_sub(self.now.saturating_sub(at)).unwrap_or(UNIX_EPOCH))
    }

    /// A clock that was set back says that it was later than now.
    fn restored(self, at: u64) -> Duration {
        let age = of_unix_millis(at).and_then(|at| self.clock.duration_since(at).ok()).unwrap_or_default();
        self.now.saturating_sub(age)
    }
}

/// The key of an alert; no identity has a space.
fn alert_key(target: &str, id: &str) -> String {
    format!("alert {id} {target}")
}

fn target_key(target: &str) -> String {
    format!("target {target}")
}

impl Outbox {
    /// What has to be kept.
    pub(in crate::actions::notify) fn prints(&self) -> BTreeMap<String, Print> {
        let mut prints = BTreeMap::new();
        for (target, outbox) in &self.targets {
            let message = outbox.message.as_ref().map(|message| message.id.clone());
            prints.insert(target_key(target), Print::Target(outbox.sent, message));
            for (id, known) in &outbox.known {
                prints.insert(alert_key(target, id), Print::Alert(known.stamp(), known.told));
            }
        }
        prints
    }

    /// The text of a key; `None` where there is none.
    pub(in crate::actions::notify) fn text(&self, key: &str, clocks: Clocks) -> Option<String> {
        let (kind, rest) = key.split_once(' ')?;
        if kind == "target" {
            let outbox = self.targets.get(rest)?;
            let message = outbox.message.as_ref().map(|message| KeptMessage {
                id: message.id.clone(),
                body: String::from_utf8_lossy(&message.body).into_owned(),
                told: message
                    .told
                    .iter()
                    .map(|(id, (starts, ends))| (id.clone(), unix_millis(*starts), ends.map(unix_millis)))
                    .collect(),
                made: clocks.kept(message.made),
            });
            let last = outbox.last.map(|last| clocks.kept(last));
            return serde_json::to_string(&KeptTarget { sent: outbox.sent, last, message }).ok();
        }
        let (id, target) = rest.split_once(' ')?;
        let Known { alert, told, .. } = self.targets.get(target)?.known.get(id)?;
        let kept = KeptAlert {
            labels: alert.labels.clone(),
            annotations: alert.annotations.clone(),
            starts_at: unix_millis(alert.starts_at),
            ends_at: alert.ends_at.map(unix_millis),
            told: told.map(|(starts, ends)| (unix_millis(starts), ends.map(unix_millis))),
        };
        serde_json::to_string(&kept).ok()
    }

    /// The outbox of these texts. What cannot be read is left out: it is told once more.
    pub(in crate::actions::notify) fn restored<'a>(
        entries: impl Iterator<Item = &'a StateEntry>,
        clocks: Clocks,
    ) -> Self {
        let mut outbox = Self::default();
        for entry in entries {
            let Some((kind, rest)) = entry.key.split_once(' ') else { continue };
            if kind == "target" {
                let Ok(kept) = serde_json::from_str::<KeptTarget>(&entry.value) else { continue };
                outbox.targets.entry(rest.to_owned()).or_default().restore(rest, kept, clocks);
            } else if let Some((id, target)) = rest.split_once(' ')
                && let Some(known) = serde_json::from_str(&entry.value).ok().and_then(|kept| known(id, kept))
            {
                outbox.targets.entry(target.to_owned()).or_default().known.insert(id.to_owned(), known);
            }
        }
        for target in outbox.targets.values_mut() {
            target.untold = target.known.values().any(|known| !known.is_told()).then_some(clocks.now);
        }
        outbox
    }

    /// What was told.
    pub(in crate::actions::notify) fn told(&self) -> impl Iterator<Item = Firing<'_>> {
        let all = self.targets.values().flat_map(|target| &target.known);
        all.filter_map(|(id, known)| known.told.map(|(starts_at, ends_at)| Firing { id, starts_at, ends_at }))
    }
}

impl TargetOutbox {
    fn restore(&mut self, target: &str, kept: KeptTarget, clocks: Clocks) {
        self.sent = kept.sent;
        self.last = kept.last.map(|last| clocks.restored(last));
        self.message = kept.message.map(|message| WebhookMessage {
            target: target.to_owned(),
            id: message.id,
            body: message.body.into(),
            told: message
                .told
                .into_iter()
                .filter_map(|(id, starts, ends)| Some((id, (of_unix_millis(starts)?, ends.and_then(of_unix_millis)))))
                .collect(),
            made: clocks.restored(message.made),
            due: clocks.now,
            failures: 0,
        });
    }
}

fn known(id: &str, kept: KeptAlert) -> Option<Known> {
    let alert = Alert {
        id: id.to_owned(),
        labels: kept.labels,
        annotations: kept.annotations,
        starts_at: of_unix_millis(kept.starts_at)?,
        ends_at: kept.ends_at.and_then(of_unix_millis),
    };
    let told = kept.told.and_then(|(starts, ends)| Some((of_unix_millis(starts)?, ends.and_then(of_unix_millis))));
    Some(Known { alert, told, unlisted: None })
}
