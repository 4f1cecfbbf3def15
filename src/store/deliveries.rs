//! Outcomes of notifications by receiver: written by the senders, read by the API.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use crate::sys::own_metrics::NotificationOutcome;

/// Which firing of an incident: its identity, when it fired, and when it ended.
#[derive(Clone, Copy, Debug)]
pub struct Firing<'a> {
    /// The incident's identity.
    pub id: &'a str,
    /// When it fired.
    pub starts_at: SystemTime,
    /// When it ended; `None` while it fires.
    pub ends_at: Option<SystemTime>,
}

/// What a receiver has taken of a firing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Told {
    /// That it fires.
    Firing,
    /// That it ended.
    Resolved,
}

impl Told {
    /// The word that the API uses.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Firing => "firing",
            Self::Resolved => "resolved",
        }
    }
}

/// What became of telling one receiver of one firing.
#[derive(Clone, Debug, PartialEq)]
pub struct Delivery {
    /// The receiver's name.
    pub receiver: Arc<str>,
    /// What became of the last attempt; `None` before the first.
    pub outcome: Option<NotificationOutcome>,
    /// What it has taken.
    pub told: Option<Told>,
    /// Attempts to send a message with this firing.
    pub attempts: u64,
    /// When the last one ended.
    pub last_attempt: Option<SystemTime>,
    /// Why the last one failed.
    pub error: Option<Arc<str>>,
}

impl Delivery {
    fn waiting(receiver: &Arc<str>) -> Self {
        let receiver = Arc::clone(receiver);
        Self { receiver, outcome: None, told: None, attempts: 0, last_attempt: None, error: None }
    }

    /// Whether both say the same of what is told. Attempts that change nothing do not count.
    #[must_use]
    pub fn says_the_same(&self, other: &Self) -> bool {
        (&self.receiver, self.outcome, self.told, &self.error)
            == (&other.receiver, other.outcome, other.told, &other.error)
    }
}

/// Deliveries to all receivers. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Deliveries(Arc<Mutex<Vec<ReceiverDeliveries>>>);

#[derive(Debug)]
struct ReceiverDeliveries {
    /// What tells it from the others; names may be the same.
    key: Arc<str>,
    name: Arc<str>,
    firings: HashMap<String, (SystemTime, Delivery)>,
}

impl Deliveries {
    /// There are these receivers, by key and name. What is known of those that stay is kept.
    pub fn set_receivers(&self, receivers: Vec<(Arc<str>, Arc<str>)>) {
        let mut all = self.lock();
        let mut before: BTreeMap<Arc<str>, ReceiverDeliveries> =
            all.drain(..).map(|receiver| (Arc::clone(&receiver.key), receiver)).collect();
        all.extend(receivers.into_iter().map(|(key, name)| match before.remove(&key) {
            Some(receiver) => receiver,
            None => ReceiverDeliveries { key, name, firings: HashMap::new() },
        }));
    }

    /// Only these incidents are listed: what is known of others is forgotten.
    pub fn keep(&self, ids: &HashSet<&str>) {
        for receiver in self.lock().iter_mut() {
            receiver.firings.retain(|id, _| ids.contains(id.as_str()));
        }
    }

    /// A message with these firings was sent, or was to be.
    pub fn attempted<'a>(
        &self,
        key: &str,
        firings: impl Iterator<Item = Firing<'a>>,
        outcome: NotificationOutcome,
        error: Option<&str>,
        now: SystemTime,
    ) {
        let mut all = self.lock();
        let Some(receiver) = all.iter_mut().find(|receiver| *receiver.key == *key) else { return };
        let error: Option<Arc<str>> = error.map(Into::into);
        for Firing { id, starts_at, ends_at } in firings {
            let new = || (starts_at, Delivery::waiting(&receiver.name));
            let (of, delivery) = receiver.firings.entry(id.to_owned()).or_insert_with(new);
            if *of != starts_at {
                (*of, *delivery) = new();
            }
            delivery.outcome = Some(outcome);
            delivery.attempts += 1;
            delivery.last_attempt = Some(now);
            delivery.error.clone_from(&error);
            if outcome == NotificationOutcome::Delivered {
                let told = if ends_at.is_some() { Told::Resolved } else { Told::Firing };
                // A message that took its time does not take back what a later one said.
                delivery.told = delivery.told.max(Some(told));
            }
        }
    }

    /// The process before has delivered these.
    pub fn restore<'a>(&self, key: &str, firings: impl Iterator<Item = Firing<'a>>) {
        let mut all = self.lock();
        let Some(receiver) = all.iter_mut().find(|receiver| *receiver.key == *key) else { return };
        for Firing { id, starts_at, ends_at } in firings {
            let told = Some(if ends_at.is_some() { Told::Resolved } else { Told::Firing });
            let outcome = Some(NotificationOutcome::Delivered);
            let delivery = Delivery { outcome, told, ..Delivery::waiting(&receiver.name) };
            receiver.firings.insert(id.to_owned(), (starts_at, delivery));
        }
    }

    /// What became of telling each receiver of a firing, in the order of the configuration.
    #[must_use]
    pub fn of(&self, id: &str, starts_at: SystemTime) -> Vec<Delivery> {
        let all = self.lock();
        let of = |receiver: &ReceiverDeliveries| {
            let known = receiver.firings.get(id).filter(|(of, _)| *of == starts_at);
            known.map_or_else(|| Delivery::waiting(&receiver.name), |(_, delivery)| delivery.clone())
        };
        all.iter().map(of).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<ReceiverDeliveries>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_delivery_is_of_one_firing_and_of_one_receiver() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let deliveries = Deliveries::default();
        let receiver = |key: &str| (key.into(), "webhook h:1".into());
        deliveries.set_receivers(vec![receiver("a"), receiver("b")]);
        let attempted = |key: &str, starts, ends: Option<u64>, outcome, error| {
            let firing = Firing { id: "x", starts_at: at(starts), ends_at: ends.map(at) };
            deliveries.attempted(key, [firing].into_iter(), outcome, error, at(100));
        };
        let told = |starts| -> Vec<_> {
            let all = deliveries.of("x", at(starts)).into_iter();
            all.map(|delivery| (delivery.outcome, delivery.told, delivery.attempts)).collect()
        };
        assert_eq!(told(1), [(None, None, 0), (None, None, 0)]);
        attempted("b", 1, None, NotificationOutcome::Failed, Some("503"));
        assert_eq!(deliveries.of("x", at(1))[1].error.as_deref(), Some("503"));
        attempted("b", 1, None, NotificationOutcome::Delivered, None);
        attempted("b", 1, Some(5), NotificationOutcome::Delivered, None);
        attempted("b", 1, None, NotificationOutcome::Delivered, None);
        let (delivered, resolved) = (Some(NotificationOutcome::Delivered), Some(Told::Resolved));
        assert_eq!(told(1), [(None, None, 0), (delivered, resolved, 4)]);
        assert_eq!(deliveries.of("x", at(1))[1].error, None);
        // It fires again: another one.
        assert_eq!(told(9)[1], (None, None, 0));
        attempted("b", 9, None, NotificationOutcome::Delivered, None);
        assert_eq!(told(9)[1], (delivered, Some(Told::Firing), 1));
        // A receiver that is gone, and one that stays.
        deliveries.set_receivers(vec![receiver("b")]);
        assert_eq!(told(9), [(delivered, Some(Told::Firing), 1)]);
        deliveries.keep(&HashSet::new());
        assert_eq!(told(9), [(None, None, 0)]);
    }
}
