//! Forecasts of the groups of a target, as the metrics page shows them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::analysis::forecast::{Forecast, LagQuantiles, TimeTo};
use crate::analysis::snapshot::StreamSnapshot;
use crate::model::{GroupName, StreamKey};

/// What is forecast of a group over one horizon.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupForecast {
    /// The stream.
    pub stream: StreamKey,
    /// The group.
    pub group: GroupName,
    /// The horizon, as its label says it.
    pub horizon: &'static str,
    /// The lag at the end of the horizon, in entries.
    pub lag: LagQuantiles,
    /// When entries are lost; `None` where that is unlikely within the horizon or cannot be told.
    pub loss: Option<TimeTo>,
}

impl GroupForecast {
    /// What a forecast says; `None` where it has no points.
    #[must_use]
    pub fn of(stream: &StreamKey, group: &GroupName, horizon: &'static str, forecast: &Forecast) -> Option<Self> {
        let lag = *forecast.points.as_ref().ok()?.last()?;
        Some(Self { stream: stream.clone(), group: group.clone(), horizon, lag, loss: forecast.time_to.loss })
    }
}

/// Those whose groups are in this sample.
#[must_use]
pub fn present(forecasts: &Arc<[GroupForecast]>, streams: &[StreamSnapshot]) -> Arc<[GroupForecast]> {
    if forecasts.is_empty() {
        return Arc::clone(forecasts);
    }
    let named: BTreeSet<&StreamKey> = forecasts.iter().map(|forecast| &forecast.stream).collect();
    let there: BTreeMap<&StreamKey, &StreamSnapshot> =
        streams.iter().filter(|stream| named.contains(&stream.key)).map(|stream| (&stream.key, stream)).collect();
    let is_there = |forecast: &&GroupForecast| {
        let group = there.get(&forecast.stream).and_then(|stream| {
            stream.groups.iter().find(|group| group.name == forecast.group).and_then(|group| group.present())
        });
        group.is_some()
    };
    forecasts.iter().filter(is_there).cloned().collect()
}
