//! Forecasts of the groups of a target, as the metrics page shows them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::analysis::forecast::{Forecast, LagQuantiles, TimesTo};
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
    /// When the lag reaches the thresholds and entries are lost.
    pub time_to: TimesTo,
}

impl GroupForecast {
    /// What a forecast says; `None` where it has no points.
    #[must_use]
    pub fn of(stream: &StreamKey, group: &GroupName, horizon: &'static str, forecast: &Forecast) -> Option<Self> {
        let lag = *forecast.points.as_ref().ok()?.last()?;
        Some(Self { stream: stream.clone(), group: group.clone(), horizon, lag, time_to: forecast.time_to })
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::forecast::{NoForecast, TimeTo};
    use crate::analysis::snapshot::tests::{present_group, stream_facts};
    use crate::analysis::snapshot::{GroupSnapshot, Presence};
    use crate::model::lag::Lag;

    const SOON: TimesTo = {
        let soon = TimeTo { q10: 60.0, q50: None, q90: None };
        TimesTo { degraded: Some(soon), unhealthy: None, drained: None, loss: None }
    };

    fn forecast(points: Result<Vec<LagQuantiles>, NoForecast>) -> Option<GroupForecast> {
        let forecast = Forecast { made_at: 0.0, horizon: 900.0, points, time_to: SOON, replay: None };
        GroupForecast::of(&"s".into(), &"g".into(), "15m", &forecast)
    }

    fn at(time: f64, lag: f64) -> LagQuantiles {
        LagQuantiles { time, q025: lag, q05: lag, q10: lag, q50: lag, q90: lag, q95: lag, q975: lag }
    }

    #[test]
    fn what_is_shown_of_a_forecast_is_the_end_of_its_horizon() {
        let shown = forecast(Ok(vec![at(60.0, 5.0), at(900.0, 7.0)])).unwrap();
        assert_eq!((shown.lag, shown.horizon, shown.time_to), (at(900.0, 7.0), "15m", SOON));
        assert_eq!(forecast(Err(NoForecast::NoRates)), None);
        assert_eq!(forecast(Ok(Vec::new())), None);
    }

    #[test]
    fn forecasts_of_groups_that_are_gone_are_not_shown() {
        let forecasts: Arc<[GroupForecast]> = forecast(Ok(vec![at(900.0, 7.0)])).into_iter().collect();
        let check = |stream: &str, group: &str, presence: Presence, expected: usize| {
            let groups = vec![GroupSnapshot { name: group.into(), presence }];
            let stream = StreamSnapshot { key: stream.into(), read: Ok(stream_facts()), groups, groups_left_out: 0 };
            assert_eq!(present(&forecasts, &[stream]).len(), expected);
        };
        let there = || Presence::Present(Box::new(present_group(Lag::exact(7))));
        check("s", "g", there(), 1);
        check("s", "g", Presence::Missing, 0);
        check("s", "h", there(), 0);
        check("t", "g", there(), 0);
        assert_eq!(present(&forecasts, &[]).len(), 0);
    }
}
