//! What a webhook is told: Alertmanager's payload of version 4, one message per target at a time. Pure: time and chance are arguments.
//!
//! A message that fails for now is sent again, the same to the byte and with the same id, so that a receiver that took it can tell. What
//! happens meanwhile is in the next one: nothing is lost by waiting, as every incident is told until a message with it was taken.

mod saved;

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::actions::notify::Timing;
use crate::actions::notify::alert::{Alert, Alerts};
use crate::model::text::hex;
use crate::store::deliveries::Firing;
use crate::sys::http_client::SendError;

pub(in crate::actions::notify) use saved::{Clocks, Print};

/// Alerts of one message: about a megabyte. The body says how many more there are; those come next.
pub(super) const MAX_ALERTS: usize = 1000;

/// Alerts of a target that are remembered. Of more, those that ended first are forgotten.
const MAX_KNOWN: usize = 25_000;

/// A message that was not taken for so long is given up, and made anew of what is so then.
const EXPIRES: Duration = Duration::from_secs(60 * 60);

/// An end that could not be told for so long is told to nobody any more.
const ENDS_EXPIRE: Duration = Duration::from_secs(24 * 60 * 60);

/// The wait after the first failure; it doubles from one to the next.
const FIRST_RETRY: Duration = Duration::from_secs(1);

/// The longest wait between attempts.
const MAX_RETRY: Duration = Duration::from_secs(300);

/// The receiver's name in the payload.
const RECEIVER: &str = "streamlag";

/// A message as it is sent.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct WebhookMessage {
    /// The target that it is about.
    pub(super) target: String,
    /// `webhook-id`.
    pub(super) id: String,
    /// The body.
    pub(super) body: Bytes,
    /// What of each alert it tells.
    told: Vec<(String, Stamp)>,
    /// When it was made.
    made: Duration,
    /// When it is to be sent.
    due: Duration,
    failures: u32,
}

impl WebhookMessage {
    /// The firings that it tells of.
    pub(super) fn firings(&self) -> impl Iterator<Item = Firing<'_>> {
        self.told.iter().map(|(id, (starts_at, ends_at))| Firing { id, starts_at: *starts_at, ends_at: *ends_at })
    }
}

/// Which firing of an alert, and whether it has ended.
type Stamp = (SystemTime, Option<SystemTime>);

/// What is to be told to one webhook.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    targets: BTreeMap<String, TargetOutbox>,
}

#[derive(Debug, Default)]
struct TargetOutbox {
    known: BTreeMap<String, Known>,
    /// Since when something has not been told.
    untold: Option<Duration>,
    /// When the last message was taken or refused.
    last: Option<Duration>,
    message: Option<WebhookMessage>,
    /// Messages so far.
    sent: u64,
}

#[derive(Debug)]
struct Known {
    alert: Alert,
    told: Option<Stamp>,
    /// Since when no snapshot lists it any more.
    unlisted: Option<Duration>,
}

impl Known {
    fn stamp(&self) -> Stamp {
        (self.alert.starts_at, self.alert.ends_at)
    }

    fn is_told(&self) -> bool {
        self.told == Some(self.stamp())
    }
}

impl Outbox {
    /// What is so now. Gives how many ends were forgotten untold.
    pub(super) fn update(&mut self, now: Duration, clock: SystemTime, alerts: &Alerts) -> u64 {
        for target in alerts.keys() {
            self.targets.entry(target.clone()).or_default();
        }
        let nothing = BTreeMap::new();
        let mut forgotten = 0;
        self.targets.retain(|target, outbox| {
            forgotten += outbox.update(now, clock, alerts.get(target).unwrap_or(&nothing));
            // What was told of it lately matters for when it is told of next.
            !outbox.known.is_empty() || outbox.message.is_some() || alerts.contains_key(target)
        });
        forgotten
    }

    /// A message that is to be sent now.
    pub(super) fn due(&mut self, now: Duration, timing: &Timing) -> Option<WebhookMessage> {
        self.targets.iter_mut().find_map(|(target, outbox)| outbox.due(target, now, timing))
    }

    /// A message was taken, or refused for good.
    pub(super) fn done(&mut self, now: Duration, message: &WebhookMessage) {
        let Some(outbox) = self.targets.get_mut(&message.target) else { return };
        for (id, stamp) in &message.told {
            if let Some(known) = outbox.known.get_mut(id) {
                known.told = Some(*stamp);
            }
        }
        (outbox.message, outbox.last) = (None, Some(now));
        outbox.sent += 1;
        outbox.untold = outbox.known.values().any(|known| !known.is_told()).then_some(now);
    }

    /// A message was not taken for now; `chance` is from 0 to 1. Whether it is given up.
    pub(super) fn failed(&mut self, now: Duration, message: &WebhookMessage, error: &SendError, chance: f64) -> bool {
        let Some(outbox) = self.targets.get_mut(&message.target) else { return true };
        let Some(message) = &mut outbox.message else { return true };
        if now.saturating_sub(message.made) >= EXPIRES {
            outbox.message = None;
            return true;
        }
        let wait = FIRST_RETRY.saturating_mul(2u32.saturating_pow(message.failures)).min(MAX_RETRY);
        message.failures += 1;
        // Half of it by chance, so that receivers that come back are not met by all at once.
        message.due = now + wait.mul_f64(0.5 + chance.clamp(0.0, 1.0) / 2.0).max(error.retry_after.unwrap_or_default());
        false
    }
}

impl TargetOutbox {
    fn update(&mut self, now: Duration, clock: SystemTime, alerts: &BTreeMap<String, Alert>) -> u64 {
        for (id, alert) in alerts {
            match self.known.get_mut(id) {
                Some(known) => {
                    known.unlisted = None;
                    if known.alert != *alert {
                        known.alert = alert.clone();
                    }
                }
                None => {
                    let known = Known { alert: alert.clone(), told: None, unlisted: None };
                    drop(self.known.insert(id.clone(), known));
                }
            }
        }
        let mut forgotten = 0;
        self.known.retain(|id, known| {
            if alerts.contains_key(id) {
                return true;
            }
            // No snapshot lists it any more: its target is gone, or it ended a while ago.
            known.alert.ends_at.get_or_insert(clock);
            // Not by the clock that people read: it may jump a day.
            let expired = now.saturating_sub(*known.unlisted.get_or_insert(now)) >= ENDS_EXPIRE;
            forgotten += u64::from(expired && !known.is_told());
            !expired && !known.is_told()
        });
        while self.known.len() > MAX_KNOWN {
            let oldest =
                self.known.iter().min_by_key(|(_, known)| (known.alert.ends_at.is_none(), known.alert.ends_at));
            let Some(oldest) = oldest.map(|(id, _)| id.clone()) else { break };
            self.known.remove(&oldest);
            forgotten += 1;
        }
        if self.untold.is_none() && self.known.values().any(|known| !known.is_told()) {
            self.untold = Some(now);
        }
        forgotten
    }

    fn due(&mut self, target: &str, now: Duration, timing: &Timing) -> Option<WebhookMessage> {
        if let Some(message) = &self.message {
            return (message.due <= now).then(|| message.clone());
        }
        let fires = || self.known.values().any(|known| known.alert.ends_at.is_none());
        let after = |since: Option<Duration>, wait: Duration| since.is_some_and(|since| now >= since + wait);
        let due = match self.untold {
            Some(_) if self.last.is_none() => after(self.untold, timing.group_wait),
            Some(_) => after(self.last, timing.group_interval),
            None => after(self.last, timing.repeat_interval) && fires(),
        };
        if !due {
            return None;
        }
        let message = self.message(target, now)?;
        self.message = Some(message.clone());
        Some(message)
    }

    /// Everything that fires, and what ended and was not told.
    fn message(&self, target: &str, now: Duration) -> Option<WebhookMessage> {
        let is_said = |known: &&Known| known.alert.ends_at.is_none() || !known.is_told();
        let mut said: Vec<&Known> = self.known.values().filter(is_said).collect();
        // What was not told comes first, so that all is told some time; then the worst.
        said.sort_by_key(|known| (known.is_told(), known.alert.rank()));
        let left_out = said.len().saturating_sub(MAX_ALERTS);
        said.truncate(MAX_ALERTS);
        said.sort_by_key(|known| known.alert.rank());
        let first = said.first()?;
        let common = |of: fn(&Alert) -> &BTreeMap<String, String>| {
            let mut common = of(&first.alert).clone();
            common.retain(|name, value| said.iter().all(|known| of(&known.alert).get(name) == Some(value)));
            common
        };
        let body = json!({
            "version": "4",
            "groupKey": format!("{{}}:{{redis_target=\"{target}\"}}"),
            "truncatedAlerts": left_out,
            "status": first.alert.status(),
            "receiver": RECEIVER,
            "groupLabels": {"redis_target": target},
            "commonLabels": common(|alert| &alert.labels),
            "commonAnnotations": common(|alert| &alert.annotations),
            "externalURL": "",
            "alerts": said.iter().map(|known| json!(known.alert.told())).collect::<Vec<_>>(),
        });
        let told: Vec<(String, Stamp)> = said.iter().map(|known| (known.alert.id.clone(), known.stamp())).collect();
        Some(WebhookMessage {
            target: target.to_owned(),
            id: self.id(target, &told),
            // Texts and numbers: there is nothing that JSON cannot hold.
            body: serde_json::to_vec(&body).unwrap_or_default().into(),
            told,
            made: now,
            due: now,
            failures: 0,
        })
    }

    /// Derived from what is told, so that the same is told under the same id.
    fn id(&self, target: &str, told: &[(String, Stamp)]) -> String {
        let mut digest = Sha256::new();
        digest.update(target);
        // One that is repeated is another.
        digest.update(self.sent.to_be_bytes());
        let millis = |time: SystemTime| time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
        for (id, (starts_at, ends_at)) in told {
            digest.update(id);
            digest.update(millis(*starts_at).to_be_bytes());
            digest.update(ends_at.map_or(0, millis).to_be_bytes());
        }
        format!("msg_{}", hex(&digest.finalize()[..16]))
    }
}

#[cfg(test)]
pub(super) mod tests;
