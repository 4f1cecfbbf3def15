//! The metrics page apart from the streams, as OpenMetrics text, through prometheus-client. The lines about streams, which
//! are nearly all of it, are written in [`series`](crate::exposition::series).

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::registry::Registry;

use crate::analysis::forecast::TimeTo;
use crate::analysis::group_forecast::GroupForecast;
use crate::analysis::incident::IncidentStatus;
use crate::analysis::incidents::rules;
use crate::analysis::view::View;
use crate::exposition::logical;
use crate::exposition::number::Number;
use crate::model::Shard;
use crate::model::sample::NodeStatus;
use crate::model::thresholds::Thresholds;
use crate::sys::metric_catalog::{self, Kind, MetricName};
use crate::sys::process_metrics::ProcessStats;

/// What the page needs in addition to the view: settings and the process.
#[derive(Clone, Copy, Debug)]
pub struct PageSettings {
    /// The configured time between polls.
    pub poll_interval: Duration,
    /// The most of one core of Redis's time that polls may take, 1 being all of it.
    pub max_redis_share: f64,
    /// The time within which a new stream is to show; `None` where no patterns look for any.
    pub discovery_interval: Option<Duration>,
    /// Which share of the streams is sampled; `None` where all are.
    pub shard: Option<Shard>,
    /// What a Redis round trip is held against.
    pub round_trip_limit: Duration,
    /// What a lag is called.
    pub thresholds: Thresholds,
    /// Whether the page is of the process as well, and not of the target alone.
    pub whole: bool,
}

/// Appends the rest of the page: what is not about streams: Redis, settings, the process, and the program's own counters: those of
/// the polls, which are text already, and those of the process.
///
/// # Errors
/// Where `page` refuses to be written to.
pub fn encode_rest(
    page: &mut impl fmt::Write,
    view: View,
    settings: PageSettings,
    process: Option<ProcessStats>,
    polls: &str,
    own: Option<&Registry>,
) -> fmt::Result {
    let mut facts = Registry::default();
    facts.register_collector(Box::new(PageContent { view, settings, process }));
    encode_registry(page, &facts)?;
    page.write_str(polls)?;
    own.map_or(Ok(()), |own| encode_registry(page, own))?;
    encode_eof(page)
}

#[derive(Debug)]
struct PageContent {
    view: View,
    settings: PageSettings,
    process: Option<ProcessStats>,
}

impl Collector for PageContent {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let mut page = FamilyCollectors { encoder: &mut encoder };
        self.thresholds(&mut page)?;
        self.logical(&mut page)?;
        self.forecasts(&mut page)?;
        self.incidents(&mut page)?;
        self.found(&mut page)?;
        self.redis(&mut page)?;
        self.nodes(&mut page)?;
        self.process(&mut page)
    }
}

fn since_epoch(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// The quantiles 0.1, 0.5 and 0.9 of a forecast, as far as there are any.
fn quantiles(
    family: &mut FamilyCollector<'_>,
    of: &GroupForecast,
    level: Option<&str>,
    values: [Option<f64>; 3],
) -> fmt::Result {
    let (stream, group) = (of.stream.display_name(), of.group.display_name());
    for (quantile, value) in ["0.1", "0.5", "0.9"].into_iter().zip(values) {
        let Some(value) = value else { continue };
        let labels = [("stream", &*stream), ("consumer_group", &*group)].into_iter();
        let labels = labels.chain(level.map(|level| ("level", level)));
        let labels: Vec<_> = labels.chain([("horizon", of.horizon), ("quantile", quantile)]).collect();
        family.sample(&labels, value.into())?;
    }
    Ok(())
}

impl PageContent {
    /// The thresholds of streams that have their own.
    fn thresholds(&self, page: &mut FamilyCollectors<'_, '_>) -> fmt::Result {
        if self.view.thresholds.is_empty() {
            return Ok(());
        }
        page.family(&metric_catalog::STREAM_LAG_THRESHOLD, |family| {
            self.view.thresholds.iter().try_for_each(|(stream, thresholds)| {
                let stream = stream.display_name();
                family.sample(&[("stream", &*stream), ("level", "degraded")], thresholds.degraded.into())?;
                family.sample(&[("stream", &*stream), ("level", "unhealthy")], thresholds.unhealthy.into())
            })
        })
    }

    fn logical(&self, page: &mut FamilyCollectors<'_, '_>) -> fmt::Result {
        if self.view.logical.is_empty() {
            return Ok(());
        }
        for (name, value) in logical::FAMILIES {
            page.family(name, |family| {
                self.view.logical.iter().try_for_each(|stream| {
                    stream.groups.iter().try_for_each(|group| {
                        let Some(number) = value(group) else { return Ok(()) };
                        let labels =
                            [("logical_stream", &*stream.name), ("consumer_group", &*group.name.display_name())];
                        family.sample(&labels, number)
                    })
                })
            })?;
        }
        Ok(())
    }

    /// What is forecast of groups.
    fn forecasts(&self, page: &mut FamilyCollectors<'_, '_>) -> fmt::Result {
        if self.view.forecasts.is_empty() {
            return Ok(());
        }
        let forecasts = || self.view.forecasts.iter();
        page.family(&metric_catalog::LAG_FORECAST, |family| {
            forecasts().try_for_each(|of| quantiles(family, of, None, [of.lag.q10, of.lag.q50, of.lag.q90].map(Some)))
        })?;
        let times = |time: Option<TimeTo>| time.map_or([None; 3], |time| [Some(time.q10), time.q50, time.q90]);
        page.family(&metric_catalog::THRESHOLD_FORECAST, |family| {
            forecasts().try_for_each(|of| {
                quantiles(family, of, Some("degraded"), times(of.time_to.degraded))?;
                quantiles(family, of, Some("unhealthy"), times(of.time_to.unhealthy))
            })
        })?;
        page.family(&metric_catalog::LOSS_FORECAST, |family| {
            forecasts().try_for_each(|of| quantiles(family, of, None, times(of.time_to.loss)))
        })
    }

    /// How many incidents there are of each rule that has some, and how many are left out.
    fn incidents(&self, page: &mut FamilyCollectors<'_, '_>) -> fmt::Result {
        let mut counts = BTreeMap::new();
        for incident in self.view.incidents.all.iter().filter(|incident| incident.resolved_at.is_none()) {
            *counts.entry((&incident.rule.name, incident.rule.severity, incident.status.as_str())).or_insert(0u64) += 1;
        }
        page.family(&metric_catalog::INCIDENTS, |family| {
            rules().iter().try_for_each(|rule| {
                [IncidentStatus::Pending, IncidentStatus::Firing].map(IncidentStatus::as_str).into_iter().try_for_each(
                    |status| {
                        let count = counts.get(&(&rule.name, rule.severity, status)).copied().unwrap_or(0);
                        let labels = [("rule", &*rule.name), ("severity", rule.severity.as_str()), ("status", status)];
                        family.sample(&labels, count.into())
                    },
                )
            })
        })?;
        page.single(&metric_catalog::INCIDENTS_LEFT_OUT, self.view.incidents.left_out.into())
    }

    /// Which streams there are, and how many there are too many of.
    fn found(&self, page: &mut FamilyCollectors<'_, '_>) -> fmt::Result {
        if let Some(shard) = self.settings.shard {
            let shard = shard.to_string();
            page.family(&metric_catalog::SHARD, |family| family.sample(&[("shard", &*shard)], 1u64.into()))?;
        }
        if let Some(interval) = self.settings.discovery_interval {
            page.single(&metric_catalog::DISCOVERY_INTERVAL, interval.as_secs_f64().into())?;
        }
        let Some(fresh) = &self.view.fresh else { return Ok(()) };
        page.single(&metric_catalog::STREAMS, (self.view.streams.len() as u64).into())?;
        page.family(&metric_catalog::OVER_LIMIT, |family| {
            let over = fresh.over;
            let limits = [("streams", over.streams), ("groups", over.groups), ("consumers", over.consumers)];
            limits.into_iter().try_for_each(|(limit, number)| family.sample(&[("limit", limit)], number.into()))
        })?;
        let Some(search) = fresh.meta.search else { return Ok(()) };
        page.single(&metric_catalog::DISCOVERY_STREAMS, search.found.into())?;
        let ended = search.completed.map_or(0.0, |(ended, _)| since_epoch(ended));
        page.single(&metric_catalog::DISCOVERY_LAST_SCAN, ended.into())?;
        search
            .completed
            .map_or(Ok(()), |(_, took)| page.single(&metric_catalog::DISCOVERY_SCAN, took.as_secs_f64().into()))
    }

    fn redis(&self, page: &mut FamilyCollectors<'_, '_>) -> fmt::Result {
        let (view, settings) = (&self.view, &self.settings);
        page.single(&metric_catalog::REDIS_UP, u64::from(view.redis_up()).into())?;
        if let Some(fresh) = &view.fresh {
            if !fresh.meta.server.name.is_empty() {
                let labels = [("server", &*fresh.meta.server.name), ("version", &*fresh.meta.server.version)];
                page.family(&metric_catalog::REDIS_SERVER, |family| family.sample(&labels, 1u64.into()))?;
            }
            page.single(&metric_catalog::REDIS_ROUND_TRIP, fresh.meta.round_trip.as_secs_f64().into())?;
        }
        page.single(&metric_catalog::REDIS_ROUND_TRIP_LIMIT, settings.round_trip_limit.as_secs_f64().into())?;
        page.single(&metric_catalog::LAST_SUCCESSFUL_POLL, view.last_success.map_or(0.0, since_epoch).into())?;
        page.single(&metric_catalog::POLL_INTERVAL, settings.poll_interval.as_secs_f64().into())?;
        page.single(&metric_catalog::POLL_EFFECTIVE_INTERVAL, view.interval.as_secs_f64().into())?;
        page.single(&metric_catalog::REDIS_TIME_LIMIT, settings.max_redis_share.into())?;
        page.family(&metric_catalog::LAG_THRESHOLD, |family| {
            family.sample(&[("level", "degraded")], settings.thresholds.degraded.into())?;
            family.sample(&[("level", "unhealthy")], settings.thresholds.unhealthy.into())
        })?;
        page.family(&metric_catalog::BUILD, |family| {
            family.sample(&[("version", env!("CARGO_PKG_VERSION"))], 1u64.into())
        })
    }

    fn nodes(&self, page: &mut FamilyCollectors<'_, '_>) -> fmt::Result {
        let nodes = &self.view.nodes;
        page.family(&metric_catalog::REDIS_NODE_UP, |family| {
            let is_up = |node: &NodeStatus| u64::from(node.error.is_none());
            nodes.iter().try_for_each(|node| family.sample(&[("node", &*node.address)], is_up(node).into()))
        })?;
        page.family(&metric_catalog::REDIS_NODE_STREAMS, |family| {
            nodes.iter().try_for_each(|node| family.sample(&[("node", &*node.address)], node.streams.into()))
        })
    }

    fn process(&self, page: &mut FamilyCollectors<'_, '_>) -> fmt::Result {
        let Some(process) = &self.process else { return Ok(()) };
        page.single(&metric_catalog::PROCESS_CPU, process.cpu_seconds.into())?;
        page.single(&metric_catalog::PROCESS_RESIDENT, process.resident_bytes.into())?;
        page.single(&metric_catalog::PROCESS_VIRTUAL, process.virtual_bytes.into())?;
        page.single(&metric_catalog::PROCESS_OPEN_FDS, process.open_fds.into())?;
        if let Some(max_fds) = process.max_fds {
            page.single(&metric_catalog::PROCESS_MAX_FDS, max_fds.into())?;
        }
        page.single(&metric_catalog::PROCESS_THREADS, process.threads.into())?;
        page.single(&metric_catalog::PROCESS_START, process.start_seconds.into())
    }
}

/// Writes families to the page.
struct FamilyCollectors<'a, 'e> {
    encoder: &'a mut DescriptorEncoder<'e>,
}

impl FamilyCollectors<'_, '_> {
    /// Writes one family's description and the samples that `fill` gives it.
    fn family(&mut self, name: &MetricName, fill: impl FnOnce(&mut FamilyCollector<'_>) -> fmt::Result) -> fmt::Result {
        let metric = self.encoder.encode_descriptor(name.family, name.help, None, name.kind.metric_type())?;
        fill(&mut FamilyCollector { metric, kind: name.kind })
    }

    /// Writes a family of one sample without labels.
    fn single(&mut self, name: &MetricName, number: Number) -> fmt::Result {
        let mut metric = self.encoder.encode_descriptor(name.family, name.help, None, name.kind.metric_type())?;
        write(&mut metric, name.kind, number)
    }
}

struct FamilyCollector<'a> {
    metric: MetricEncoder<'a>,
    kind: Kind,
}

impl FamilyCollector<'_> {
    fn sample(&mut self, labels: &[(&'static str, &str)], number: Number) -> fmt::Result {
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
