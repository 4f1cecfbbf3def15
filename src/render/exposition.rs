//! The metrics page: everything known, as OpenMetrics text, through prometheus-client.
//!
//! Families are built afresh from the facts each time, so that what vanished from Redis vanishes from the page.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::registry::Registry;

use super::names::{self, Kind, Name};
use crate::lag::{GroupState, Thresholds};
use crate::model::EntryId;
use crate::model::sample::NodeStatus;
use crate::model::snapshot::{ConsumerSnapshot, GroupSnapshot, PresentGroup, StreamFacts, StreamSnapshot};
use crate::model::view::View;

/// What the page says beside the view: settings and the process.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// The configured time between polls.
    pub poll_interval: Duration,
    /// What a Redis round trip is held against.
    pub round_trip_limit: Duration,
    /// What a lag is called.
    pub thresholds: Thresholds,
}

/// The process as the operating system sees it.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProcessStats {
    /// User and system CPU time in seconds.
    pub cpu_seconds: f64,
    /// Resident memory in bytes.
    pub resident_bytes: u64,
    /// Virtual memory in bytes.
    pub virtual_bytes: u64,
    /// Open file descriptors.
    pub open_fds: u64,
    /// The most file descriptors it may have open; `None` where there is no limit.
    pub max_fds: Option<u64>,
    /// Threads.
    pub threads: u64,
    /// When it started, seconds since the Unix epoch.
    pub start_seconds: f64,
}

/// Appends the whole page to `page`: the view, then the program's own counters.
///
/// # Errors
/// Where `page` refuses to be written to.
pub fn encode(
    page: &mut impl fmt::Write,
    view: View,
    settings: Settings,
    process: Option<ProcessStats>,
    own: &Registry,
) -> fmt::Result {
    let mut facts = Registry::default();
    facts.register_collector(Box::new(Facts { view, settings, process }));
    encode_registry(page, &facts)?;
    encode_registry(page, own)?;
    encode_eof(page)
}

#[derive(Debug)]
struct Facts {
    view: View,
    settings: Settings,
    process: Option<ProcessStats>,
}

impl Collector for Facts {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let mut page = Families { encoder: &mut encoder };
        if let Some(fresh) = &self.view.fresh {
            self.streams(&mut page, fresh.server_now_ms)?;
        }
        self.redis(&mut page)?;
        self.nodes(&mut page)?;
        self.process(&mut page)
    }
}

impl Facts {
    fn streams(&self, page: &mut Families<'_, '_>, now_ms: u64) -> fmt::Result {
        let per_group: [(&Name, Of<PresentGroup>); 17] = [
            (&names::LAG, |group| Some(group.lag.point.into())),
            (&names::LAG_UNCERTAINTY, |group| Some(group.lag.uncertainty().into())),
            (&names::LAG_SECONDS, |group| group.lag_seconds.map(Number::from)),
            (&names::GROUP_ENTRIES_READ, |group| group.entries_read.map(Number::from)),
            (&names::GROUP_PENDING, |group| Some(group.pending.into())),
            (&names::GROUP_OLDEST_PENDING, |group| group.oldest_pending_seconds.map(Number::from)),
            (&names::GROUP_CONSUMERS, |group| Some(group.consumers.into())),
            (&names::GROUP_LOST, |group| Some(group.course.lost.into())),
            (&names::GROUP_HEADROOM, |group| Some(group.trim_headroom_entries.into())),
            (&names::GROUP_HEADROOM_SECONDS, |group| group.trim_headroom_seconds.map(Number::from)),
            (&names::GROUP_GHOSTS, |group| group.ghost_pending.map(Number::from)),
            (&names::GROUP_DELIVERED_RATE, |group| group.course.delivered_rate.map(Number::from)),
            (&names::GROUP_ACKNOWLEDGED_RATE, |group| group.course.acknowledged_rate.map(Number::from)),
            (&names::GROUP_DRAIN, |group| group.drain_seconds.map(Number::from)),
            (&names::GROUP_DEAD_HOLDING, |group| group.dead_consumers().map(|(holding, _)| holding.into())),
            (&names::GROUP_DEAD_EMPTY, |group| group.dead_consumers().map(|(_, empty)| empty.into())),
            (&names::GROUP_RECOMMENDED, |group| group.recommendation.count().map(Number::from)),
        ];
        for (name, number) in per_group {
            page.family(name, |family| {
                self.each_group(|labels, group| match group.present().and_then(number) {
                    Some(number) => family.sample(&labels, number),
                    None => Ok(()),
                })
            })?;
        }
        page.family(&names::GROUP_STATE, |family| {
            self.each_group(|[stream, group_name], group| {
                let Some(state) = group.state() else { return Ok(()) };
                // OpenMetrics has a type for such a set, but demands that the label be named like the metric.
                GroupState::ALL.iter().try_for_each(|each| {
                    let is_it = u64::from(*each == state);
                    family.sample(&[stream, group_name, ("state", each.as_str())], is_it.into())
                })
            })
        })?;
        self.consumers(page)?;
        page.family(&names::STREAM_UP, |family| {
            self.each_stream(|labels, stream| family.sample(&labels, u64::from(stream.read.is_ok()).into()))
        })?;
        let mut per_stream = |name: &Name, number: &dyn Fn(&StreamFacts) -> Option<Number>| {
            page.family(name, |family| {
                self.each_stream(|labels, stream| match stream.read.as_ref().ok().and_then(number) {
                    Some(number) => family.sample(&labels, number),
                    None => Ok(()),
                })
            })
        };
        let timestamp = |id: Option<EntryId>| id.and_then(|id| id.timestamp_seconds(now_ms)).map(Number::from);
        per_stream(&names::STREAM_LENGTH, &|stream| Some(stream.length.into()))?;
        per_stream(&names::STREAM_GROUPS, &|stream| Some(stream.groups.into()))?;
        per_stream(&names::STREAM_FIRST_ENTRY, &|stream| timestamp(stream.first))?;
        per_stream(&names::STREAM_LAST_ENTRY, &|stream| timestamp(stream.last))?;
        per_stream(&names::STREAM_ENTRIES_ADDED, &|stream| stream.entries_added.map(Number::from))?;
        per_stream(&names::STREAM_ADDED_RATE, &|stream| stream.rates.added.map(Number::from))?;
        per_stream(&names::STREAM_REMOVED_RATE, &|stream| stream.rates.removed.map(Number::from))
    }

    fn consumers(&self, page: &mut Families<'_, '_>) -> fmt::Result {
        let per_consumer: [(&Name, Of<ConsumerSnapshot>); 4] = [
            (&names::INSTANCE_PENDING, |consumer| Some(consumer.sample.pending.into())),
            (&names::INSTANCE_IDLE, |consumer| Some(seconds(consumer.sample.idle_ms))),
            (&names::INSTANCE_INACTIVE, |consumer| consumer.sample.inactive_ms.map(seconds)),
            (&names::INSTANCE_HEALTH, |consumer| Some(u64::from(consumer.health).into())),
        ];
        for (name, number) in per_consumer {
            page.family(name, |family| {
                self.each_group(|[stream, group_name], group| {
                    let members = group.present().and_then(|group| group.members.as_deref()).unwrap_or_default();
                    for consumer in members {
                        if let Some(number) = number(consumer) {
                            let labels = [stream, group_name, ("consumer", &*consumer.sample.name.shown())];
                            family.sample(&labels, number)?;
                        }
                    }
                    Ok(())
                })
            })?;
        }
        Ok(())
    }

    fn redis(&self, page: &mut Families<'_, '_>) -> fmt::Result {
        let (view, settings) = (&self.view, &self.settings);
        let since_epoch = |time: SystemTime| time.duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
        page.single(&names::REDIS_UP, u64::from(view.redis_up()).into())?;
        if let Some(fresh) = &view.fresh {
            if !fresh.server.name.is_empty() {
                let labels = [("server", &*fresh.server.name), ("version", &*fresh.server.version)];
                page.family(&names::REDIS_SERVER, |family| family.sample(&labels, 1u64.into()))?;
            }
            page.single(&names::REDIS_ROUND_TRIP, fresh.round_trip.as_secs_f64().into())?;
        }
        page.single(&names::REDIS_ROUND_TRIP_LIMIT, settings.round_trip_limit.as_secs_f64().into())?;
        page.single(&names::LAST_SUCCESSFUL_POLL, view.last_success.map_or(0.0, since_epoch).into())?;
        page.single(&names::POLL_INTERVAL, settings.poll_interval.as_secs_f64().into())?;
        page.family(&names::LAG_THRESHOLD, |family| {
            family.sample(&[("level", "degraded")], settings.thresholds.degraded.into())?;
            family.sample(&[("level", "unhealthy")], settings.thresholds.unhealthy.into())
        })?;
        page.family(&names::BUILD, |family| family.sample(&[("version", env!("CARGO_PKG_VERSION"))], 1u64.into()))
    }

    fn nodes(&self, page: &mut Families<'_, '_>) -> fmt::Result {
        let nodes = &self.view.nodes;
        page.family(&names::REDIS_NODE_UP, |family| {
            let is_up = |node: &NodeStatus| u64::from(node.error.is_none());
            nodes.iter().try_for_each(|node| family.sample(&[("node", &*node.address)], is_up(node).into()))
        })?;
        page.family(&names::REDIS_NODE_STREAMS, |family| {
            nodes.iter().try_for_each(|node| family.sample(&[("node", &*node.address)], node.streams.into()))
        })
    }

    fn process(&self, page: &mut Families<'_, '_>) -> fmt::Result {
        let Some(process) = &self.process else { return Ok(()) };
        page.single(&names::PROCESS_CPU, process.cpu_seconds.into())?;
        page.single(&names::PROCESS_RESIDENT, process.resident_bytes.into())?;
        page.single(&names::PROCESS_VIRTUAL, process.virtual_bytes.into())?;
        page.single(&names::PROCESS_OPEN_FDS, process.open_fds.into())?;
        if let Some(max_fds) = process.max_fds {
            page.single(&names::PROCESS_MAX_FDS, max_fds.into())?;
        }
        page.single(&names::PROCESS_THREADS, process.threads.into())?;
        page.single(&names::PROCESS_START, process.start_seconds.into())
    }

    fn each_stream(&self, mut visit: impl FnMut([Label<'_>; 1], &StreamSnapshot) -> fmt::Result) -> fmt::Result {
        self.view.streams.iter().try_for_each(|stream| visit([("stream", &*stream.key.shown())], stream))
    }

    fn each_group(&self, mut visit: impl FnMut([Label<'_>; 2], &GroupSnapshot) -> fmt::Result) -> fmt::Result {
        self.each_stream(|[stream_label], stream| {
            let mut visit =
                |group: &GroupSnapshot| visit([stream_label, ("consumer_group", &*group.name.shown())], group);
            stream.groups.iter().try_for_each(&mut visit)
        })
    }
}

/// What a series says of a thing; `None` where the thing has no such series.
type Of<T> = fn(&T) -> Option<Number>;

type Label<'a> = (&'static str, &'a str);

/// A value of a sample. The format knows whole numbers and floats.
#[derive(Clone, Copy, Debug)]
enum Number {
    Whole(u64),
    Float(f64),
}

impl From<u64> for Number {
    fn from(number: u64) -> Self {
        Self::Whole(number)
    }
}

impl From<f64> for Number {
    fn from(number: f64) -> Self {
        Self::Float(number)
    }
}

fn seconds(ms: u64) -> Number {
    Number::Float(ms as f64 / 1000.0)
}

/// Writes families to the page.
struct Families<'a, 'e> {
    encoder: &'a mut DescriptorEncoder<'e>,
}

impl Families<'_, '_> {
    /// Writes one family's description and whatever samples `fill` gives it.
    fn family(&mut self, name: &Name, fill: impl FnOnce(&mut Family<'_>) -> fmt::Result) -> fmt::Result {
        let metric = self.encoder.encode_descriptor(name.family, name.help, None, name.kind.metric_type())?;
        fill(&mut Family { metric, kind: name.kind })
    }

    /// Writes a family of one sample without labels.
    fn single(&mut self, name: &Name, number: Number) -> fmt::Result {
        let mut metric = self.encoder.encode_descriptor(name.family, name.help, None, name.kind.metric_type())?;
        write(&mut metric, name.kind, number)
    }
}

struct Family<'a> {
    metric: MetricEncoder<'a>,
    kind: Kind,
}

impl Family<'_> {
    fn sample(&mut self, labels: &[Label<'_>], number: Number) -> fmt::Result {
        match self.kind {
            Kind::Info => self.metric.encode_info(&labels),
            kind => write(&mut self.metric.encode_family(&labels)?, kind, number),
        }
    }
}

fn write(metric: &mut MetricEncoder<'_>, kind: Kind, number: Number) -> fmt::Result {
    match (kind, number) {
        (Kind::Counter, Number::Whole(number)) => metric.encode_counter::<NoLabelSet, _, f64>(&number, None),
        (Kind::Counter, Number::Float(number)) => metric.encode_counter::<NoLabelSet, _, f64>(&number, None),
        (_, Number::Whole(number)) => metric.encode_gauge(&number),
        (_, Number::Float(number)) => metric.encode_gauge(&number),
    }
}
