//! Collectors: the parts of the metrics page that `--collector.NAME` turns on and off and that `?collect[]=NAME` asks for alone, as
//! in node_exporter. What is of the exporter itself (`streamlag_*`, `process_*`) belongs to none and is always shown.

use crate::sys::metric_catalog::{self, MetricName};

/// A part of the page about streams, groups and consumers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Collector {
    /// Lag, and what else there is to know of a group. Always on: it is what the exporter is for.
    Groups,
    /// Consumers one by one: what they hold, and how long they have been idle.
    Consumers,
    /// What else there is to know of a consumer, and of those that have no series of their own.
    ConsumerHealth,
    /// Rates over the window, and what follows from them.
    Rates,
    /// What a group has lost, and is about to lose.
    Loss,
    /// The state that a group is in.
    States,
    /// Streams.
    Streams,
    /// What is forecast of groups.
    Forecast,
}

impl Collector {
    /// Every collector.
    pub const ALL: [Self; 8] = [
        Self::Groups,
        Self::Consumers,
        Self::ConsumerHealth,
        Self::Rates,
        Self::Loss,
        Self::States,
        Self::Streams,
        Self::Forecast,
    ];

    /// Its name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Groups => "groups",
            Self::Consumers => "consumers",
            Self::ConsumerHealth => "consumer-health",
            Self::Rates => "rates",
            Self::Loss => "loss",
            Self::States => "states",
            Self::Streams => "streams",
            Self::Forecast => "forecast",
        }
    }

    /// The collector of this name.
    #[must_use]
    pub fn find(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|collector| collector.as_str() == name)
    }

    /// The families that it shows. [`Collector::Groups`] shows those, too, that no collector names.
    fn families(self) -> &'static [MetricName] {
        match self {
            // With every lag that is missing goes the reason why.
            Self::Groups => &[metric_catalog::STREAM_UP],
            Self::Consumers => &[metric_catalog::INSTANCE_PENDING, metric_catalog::INSTANCE_IDLE],
            Self::ConsumerHealth => &[
                metric_catalog::INSTANCE_INACTIVE,
                metric_catalog::INSTANCE_HEALTH,
                metric_catalog::GROUP_OVERFLOW,
                metric_catalog::GROUP_OVERFLOW_PENDING,
            ],
            Self::Rates => &[
                metric_catalog::GROUP_DELIVERED_RATE,
                metric_catalog::GROUP_ACKNOWLEDGED_RATE,
                metric_catalog::GROUP_DRAIN,
                metric_catalog::GROUP_RECOMMENDED,
                metric_catalog::STREAM_ADDED_RATE,
                metric_catalog::STREAM_REMOVED_RATE,
                metric_catalog::STREAM_FIRST_ENTRY,
            ],
            Self::Loss => &[
                metric_catalog::GROUP_LOST,
                metric_catalog::GROUP_HEADROOM,
                metric_catalog::GROUP_HEADROOM_SECONDS,
                metric_catalog::GROUP_GHOSTS,
            ],
            Self::States => &[metric_catalog::GROUP_STATE],
            Self::Streams => &[
                metric_catalog::STREAM_UP,
                metric_catalog::STREAM_LENGTH,
                metric_catalog::STREAM_GROUPS,
                metric_catalog::STREAM_LAST_ENTRY,
                metric_catalog::STREAM_ENTRIES_ADDED,
                metric_catalog::STREAM_RECLAIMABLE,
            ],
            Self::Forecast => &[metric_catalog::LAG_FORECAST, metric_catalog::LOSS_FORECAST],
        }
    }
}

/// A set of collectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Collectors(u16);

impl Default for Collectors {
    /// Those that are on by default.
    fn default() -> Self {
        Self::NONE
            .with(Collector::Groups)
            .with(Collector::Consumers)
            .with(Collector::Loss)
            .with(Collector::States)
            .with(Collector::Streams)
    }
}

impl Collectors {
    /// No collector.
    pub const NONE: Self = Self(0);

    /// Every collector.
    pub const ALL: Self = Self((1 << Collector::ALL.len()) - 1);

    /// These and that one.
    #[must_use]
    pub const fn with(self, collector: Collector) -> Self {
        Self(self.0 | 1 << collector as u8)
    }

    /// Whether that one is among them.
    #[must_use]
    pub fn contains(self, collector: Collector) -> bool {
        self.0 & 1 << collector as u8 != 0
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self == Self::NONE
    }

    /// Whether a family is shown where these are: one of them shows it, or it is of the exporter itself.
    #[must_use]
    pub fn show(self, family: &str) -> bool {
        Self::of(family).is_none_or(|shown_by| self.0 & shown_by.0 != 0)
    }

    /// The collectors that show a family, which is named without its suffix; `None` where it is of the exporter itself.
    #[must_use]
    pub fn of(family: &str) -> Option<Self> {
        if !family.starts_with("event_") {
            return None;
        }
        let shows = |collector: &Collector| collector.families().iter().any(|name| name.family == family);
        let of = Collector::ALL.into_iter().filter(shows).fold(Self::NONE, Self::with);
        Some(if of.is_empty() { of.with(Collector::Groups) } else { of })
    }

    /// Their names, separated by commas.
    #[must_use]
    pub fn names(self) -> String {
        let names = Collector::ALL.into_iter().filter(|collector| self.contains(*collector)).map(Collector::as_str);
        names.collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets() {
        let set = Collectors::NONE.with(Collector::Rates).with(Collector::Streams);
        assert_eq!(set.names(), "rates, streams");
        assert!(set.contains(Collector::Rates) && !set.contains(Collector::Loss));
        assert_eq!(Collector::ALL.into_iter().fold(Collectors::NONE, Collectors::with), Collectors::ALL);
        assert_eq!(Collectors::default().names(), "groups, consumers, loss, states, streams");
        for collector in Collector::ALL {
            assert_eq!(Collector::find(collector.as_str()), Some(collector));
        }
        assert_eq!(Collector::find("forecasts"), None);
    }

    #[test]
    fn what_shows_a_family() {
        let check = |family, expected: Option<&str>| {
            assert_eq!(Collectors::of(family).map(Collectors::names).as_deref(), expected, "{family}");
        };
        check("event_consumer_lag", Some("groups"));
        check("event_logical_stream_lag", Some("groups"));
        check("event_consumer_instance_idle_seconds", Some("consumers"));
        check("event_stream_up", Some("groups, streams"));
        check("event_stream_entries_added", Some("streams"));
        check("streamlag_redis_up", None);
        check("process_threads", None);
        let rates = Collectors::NONE.with(Collector::Rates);
        assert!(rates.show("streamlag_redis_up") && rates.show("event_stream_added_per_second"));
        assert!(!rates.show("event_consumer_lag"));
    }

    /// A name that is written wrongly would be no family's.
    #[test]
    fn every_collector_shows_something_about_streams() {
        for collector in Collector::ALL {
            let alone = Collectors::NONE.with(collector);
            assert!(
                metric_catalog::ALL.iter().any(|name| name.family.starts_with("event_") && alone.show(name.family))
            );
        }
    }
}
