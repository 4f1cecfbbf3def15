//! Forecasts: made when asked for and, where `--collector.forecast` is on, by a task of its own; kept until their time has come, and scored.
//!
//! One forecast is computed at a time, away from pollers and requests. What was made is used again for half a minute. A forecast whose like have
//! turned out no better than the naive one is kept and scored as well, so that it comes back once it is better, and is not shown.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwapOption;
use tokio::sync::Semaphore;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use crate::analysis::forecast::{self, Forecast, ForecastRequest, MIN_OUTCOMES, Scorer, Skill};
use crate::analysis::group_forecast::GroupForecast;
use crate::analysis::history::query::{Range, unix_seconds};
use crate::analysis::history::{HOUR, MINUTE, Point};
use crate::analysis::stats::median;
use crate::model::thresholds::ThresholdRules;
use crate::model::{GroupName, StreamKey, TargetName};
use crate::store::history::memory::SeriesKey;
use crate::store::history::{Answer, History, HistoryQuery, HistoryUnavailable};
use crate::store::latest::Reader;
use crate::store::lock;
use crate::sys::own_metrics::ForecastMetrics;

/// Seconds of history that a forecast reads: enough for the pattern of a week. By the minute as far as that is kept, before it by the hour.
const WINDOW: i64 = 28 * 86_400;

/// For how many seconds a forecast is used again: history has a point a minute.
const REUSED: i64 = 30;

/// Groups and horizons whose forecasts are kept and scored, at most; the one that was asked for longest ago goes. Each takes up to 10 KiB.
const MAX_KEPT: usize = 2_048;

/// How often it is looked at whether the time of a forecast has come.
const SCORED_EVERY: Duration = Duration::from_secs(10);

/// Time from one round of forecasts to the next, at least.
const INTERVAL: Duration = Duration::from_secs(60);

/// Time from the start to the first round: samples come first.
const FIRST: Duration = Duration::from_secs(5);

/// Groups that are forecast in a round, at most: of more, those with most lag.
const GROUPS_PER_INTERVAL: usize = 200;

/// The share of one core that rounds take, at most.
const MAX_SHARE: f64 = 0.1;

/// Time for which the forecasts of a round are shown.
const SHOWN: Duration = Duration::from_secs(300);

/// How long a round begins forecasts: with the last of them and a wait it ends before what the round before has shown is gone.
const ROUND: Duration = Duration::from_secs(150);

/// What a round forecasts: seconds, and the label.
const HORIZONS: [(i64, &str); 2] = [(900, "15m"), (3_600, "1h")];

/// A target whose groups may be forecast.
#[derive(Clone, Debug)]
pub struct ForecastTarget {
    /// Its name.
    pub name: TargetName,
    /// What a lag is called.
    pub thresholds: ThresholdRules,
    /// The length at which streams are trimmed; inferred where it is `None`.
    pub max_length: Option<u64>,
    /// Where its snapshots are.
    pub reader: Reader,
    /// Whether its groups are forecast without being asked for.
    pub rounds: bool,
    /// Where the forecasts of rounds are shown.
    pub shown: ShownForecasts,
}

/// The forecasts of a target's last round.
#[derive(Clone, Debug, Default)]
pub struct ShownForecasts(Arc<ArcSwapOption<Round>>);

#[derive(Debug)]
struct Round {
    ended: Instant,
    forecasts: Arc<[GroupForecast]>,
}

impl ShownForecasts {
    /// Those that are not too old to be shown.
    #[must_use]
    pub fn newest(&self) -> Arc<[GroupForecast]> {
        match &*self.0.load() {
            Some(round) if round.ended.elapsed() < SHOWN => Arc::clone(&round.forecasts),
            _ => Arc::default(),
        }
    }

    fn set(&self, forecasts: Vec<GroupForecast>) {
        let round = Round { ended: Instant::now(), forecasts: forecasts.into() };
        self.0.store((!round.forecasts.is_empty()).then(|| Arc::new(round)));
    }
}

/// A forecast and how good those before it were.
#[derive(Clone, Debug)]
pub struct Made {
    /// The forecast; without points where those before it were no better than the naive one.
    pub forecast: Forecast,
    /// Of forecasts of the same group and horizon that were made by this process and whose time has come.
    pub skill: Skill,
}

/// Why there is no answer.
#[derive(Debug)]
pub enum NotMade {
    /// The group has never been sampled.
    Unknown,
    /// Its history cannot be read now.
    Unavailable(HistoryUnavailable),
    /// The program ends.
    Interrupted,
}

/// Forecasts for readers. Clones share them.
#[derive(Clone, Debug)]
pub struct Forecasts {
    shared: Arc<SharedForecasts>,
}

#[derive(Debug)]
struct SharedForecasts {
    history: History,
    targets: Mutex<Vec<ForecastTarget>>,
    kept: Mutex<ForecastCache>,
    /// Each takes milliseconds of a core, and the poller needs one.
    one: Arc<Semaphore>,
    metrics: ForecastMetrics,
}

/// What is kept, by group and seconds of the horizon.
#[derive(Debug, Default)]
struct ForecastCache {
    entries: HashMap<(SeriesKey, i64), ForecastEntry>,
    /// Counts what is asked for.
    asked: u64,
}

#[derive(Debug, Default)]
struct ForecastEntry {
    scorer: Scorer,
    newest: Option<Forecast>,
    asked: u64,
}

impl ForecastCache {
    /// The entry of a group and horizon; in place of the one that was asked for longest ago where there is no room.
    fn entry(&mut self, key: &SeriesKey, horizon: i64) -> &mut ForecastEntry {
        self.asked += 1;
        let key = (key.clone(), horizon);
        if self.entries.len() >= MAX_KEPT && !self.entries.contains_key(&key) {
            let oldest = self.entries.iter().min_by_key(|(_, entry)| entry.asked).map(|(key, _)| key.clone());
            if let Some(oldest) = oldest {
                self.entries.remove(&oldest);
            }
        }
        let entry = self.entries.entry(key).or_default();
        entry.asked = self.asked;
        entry
    }

    /// What was made lately, if it was.
    fn reusable(&mut self, key: &SeriesKey, horizon: i64, now: i64) -> Option<Made> {
        // No entry for what has never been made: it may be a name that does not exist.
        let entry = self.entries.get_mut(&(key.clone(), horizon))?;
        let newest = entry.newest.as_ref()?;
        let age = now as f64 - newest.made_at;
        (0.0..REUSED as f64).contains(&age).then(|| entry.made())?
    }

    /// The median of the groups' errors, and the share of outcomes within the 80% interval, of those with enough outcomes.
    fn overall(&self) -> (Option<f64>, Option<f64>) {
        let skills = self.entries.values().map(|entry| entry.scorer.skill());
        let told: Vec<Skill> = skills.filter(|skill| skill.forecasts >= MIN_OUTCOMES).collect();
        let mut errors: Vec<f64> = told.iter().filter_map(|skill| skill.mase).collect();
        let all: u64 = told.iter().map(|skill| skill.forecasts).sum();
        let covered: f64 = told.iter().map(|skill| skill.coverage_80.unwrap_or(0.0) * skill.forecasts as f64).sum();
        ((!errors.is_empty()).then(|| median(&mut errors)), (all > 0).then(|| covered / all as f64))
    }
}

impl ForecastEntry {
    fn made(&self) -> Option<Made> {
        let skill = self.scorer.skill();
        Some(Made { forecast: self.newest.clone()?.judged_by(&skill), skill })
    }
}

impl Forecasts {
    /// No forecasts yet.
    #[must_use]
    pub fn new(history: History, metrics: ForecastMetrics) -> Self {
        let shared = SharedForecasts {
            history,
            targets: Mutex::default(),
            kept: Mutex::default(),
            one: Arc::new(Semaphore::new(1)),
            metrics,
        };
        Self { shared: Arc::new(shared) }
    }

    /// Without history, for tests.
    #[cfg(test)]
    pub(crate) fn nowhere() -> Self {
        Self::new(History::nowhere(), ForecastMetrics::default())
    }

    /// These are the targets from now on.
    pub fn set_targets(&self, targets: Vec<ForecastTarget>) {
        targets.iter().filter(|target| !target.rounds).for_each(|target| target.shown.set(Vec::new()));
        *lock(&self.shared.targets) = targets;
    }

    /// The forecast of a group's lag over so many seconds.
    ///
    /// # Errors
    /// Where there is nothing to be made it from.
    pub async fn of(&self, key: &SeriesKey, horizon: i64) -> Result<Made, NotMade> {
        let made = self.at(key, &[horizon], unix_seconds(SystemTime::now())).await?;
        made.into_iter().next().ok_or(NotMade::Interrupted)
    }

    /// The same of several horizons as of `now`, in seconds since the Unix epoch. History is read once for all of them.
    async fn at(&self, key: &SeriesKey, horizons: &[i64], now: i64) -> Result<Vec<Made>, NotMade> {
        let shared = &self.shared;
        let reusable = || -> Vec<Option<Made>> {
            let mut kept = lock(&shared.kept);
            horizons.iter().map(|horizon| kept.reusable(key, *horizon, now)).collect()
        };
        if let Some(made) = reusable().into_iter().collect() {
            return Ok(made);
        }
        // Before the points are read: who waits holds none.
        let permit = Arc::clone(&shared.one).acquire_owned().await.map_err(|_| NotMade::Interrupted)?;
        // Another request may have waited for the same.
        let lately = reusable();
        let missing =
            || horizons.iter().zip(&lately).filter(|(_, lately)| lately.is_none()).map(|(horizon, _)| *horizon);
        let requests: Vec<ForecastRequest> = missing().map(|horizon| shared.request(key, horizon, now)).collect();
        let (made, lag, _permit) = if requests.is_empty() {
            (Vec::new(), 0.0, permit)
        } else {
            let range = Range::last(WINDOW, MINUTE, now);
            let asked = HistoryQuery { keys: vec![key.clone()], range, of_first_target: shared.is_of_first(key) };
            let answer = shared.history.points(asked).await.map_err(NotMade::Unavailable)?.ok_or(NotMade::Unknown)?;
            let work = move || {
                let points = forecast_points(&answer, now);
                let lag = answer.points.last().map_or(0.0, |point| point.lag as f64);
                let made = requests.iter().map(|request| forecast::forecast(&points, request)).collect();
                // Held by the work and not by the request: a client that hangs up makes no room for the next. Then until others find it.
                (made, lag, permit)
            };
            tokio::task::spawn_blocking(work).await.map_err(|_| NotMade::Interrupted)?
        };
        let mut kept = lock(&shared.kept);
        let mut new = missing().zip(made).map(|(horizon, made)| {
            let entry = kept.entry(key, horizon);
            entry.scorer.keep(&made, lag);
            entry.newest = Some(made);
            entry.made()
        });
        lately.iter().map(|lately| lately.clone().or_else(|| new.next()?).ok_or(NotMade::Interrupted)).collect()
    }

    /// Scores what has been made, and makes forecasts where that is configured. Never ends.
    pub async fn run(self) {
        tokio::join!(self.score(), self.rounds());
    }

    async fn score(&self) {
        let mut ticks = interval(SCORED_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if lock(&self.shared.kept).entries.is_empty() {
                continue;
            }
            let shared = Arc::clone(&self.shared);
            let work = move || shared.score(unix_seconds(SystemTime::now()));
            if tokio::task::spawn_blocking(work).await.is_err() {
                tracing::debug!("the program ends, or scoring has panicked");
            }
        }
    }

    async fn rounds(&self) {
        sleep(FIRST).await;
        loop {
            let began = Instant::now();
            self.round().await;
            sleep(INTERVAL.saturating_sub(began.elapsed()).max(FIRST)).await;
        }
    }

    /// Forecasts the groups of every target that wants it, one after the other.
    async fn round(&self) {
        let mut targets = lock(&self.shared.targets).clone();
        targets.retain(|target| target.rounds);
        let mut groups: Vec<(Reverse<u64>, usize, StreamKey, GroupName)> = Vec::new();
        for (place, target) in targets.iter().enumerate() {
            let published = target.reader.newest();
            if published.view.fresh.is_none() {
                continue;
            }
            for stream in published.view.streams.iter() {
                let present = stream.groups.iter().filter_map(|group| Some((group, group.present()?)));
                groups.extend(
                    present.map(|(group, it)| (Reverse(it.lag.max), place, stream.key.clone(), group.name.clone())),
                );
            }
        }
        groups.sort_unstable();
        let (of_all, round_began) = (groups.len(), Instant::now());
        let mut done = 0;
        let mut made: BTreeMap<usize, Vec<GroupForecast>> = BTreeMap::new();
        for (_, place, stream, group) in groups.into_iter().take(GROUPS_PER_INTERVAL) {
            // Those that were made first must not be too old when they are shown, nor what is shown be gone before.
            if round_began.elapsed() > ROUND {
                break;
            }
            done += 1;
            let key = SeriesKey {
                target: targets[place].name.as_str().into(),
                stream: stream.display_name().into(),
                group: group.display_name().into(),
            };
            let began = Instant::now();
            let horizons = HORIZONS.map(|(horizon, _)| horizon);
            if let Ok(of_group) = self.at(&key, &horizons, unix_seconds(SystemTime::now())).await {
                let rows = HORIZONS.iter().zip(&of_group);
                let rows = rows.filter_map(|((_, label), Made { forecast, .. })| {
                    GroupForecast::of(&stream, &group, label, forecast)
                });
                made.entry(place).or_default().extend(rows);
            }
            // Less than the share, as waiting for others' forecasts counts as well.
            sleep(began.elapsed().mul_f64(1.0 / MAX_SHARE - 1.0)).await;
        }
        self.shared.metrics.set_left_out((of_all - done) as u64);
        for (place, target) in targets.iter().enumerate() {
            let mut forecasts = made.remove(&place).unwrap_or_default();
            forecasts.sort_by(|one, two| (&one.stream, &one.group).cmp(&(&two.stream, &two.group)));
            target.shown.set(forecasts);
        }
    }
}

impl SharedForecasts {
    /// Whether it is a group of the target that is meant where none is named.
    fn is_of_first(&self, key: &SeriesKey) -> bool {
        lock(&self.targets).first().is_some_and(|first| first.name.as_str() == &*key.target)
    }

    fn request(&self, key: &SeriesKey, horizon: i64, now: i64) -> ForecastRequest {
        let targets = lock(&self.targets);
        let target = targets.iter().find(|target| target.name.as_str() == &*key.target);
        let thresholds = target.map(|target| target.thresholds.of(&(&*key.stream).into()));
        ForecastRequest {
            now: now as f64,
            horizon: horizon as f64,
            max_length: target.and_then(|target| target.max_length).map(|length| length as f64),
            degraded: thresholds.map(|thresholds| thresholds.degraded as f64),
            unhealthy: thresholds.map(|thresholds| thresholds.unhealthy_from() as f64),
            seed: now as u64,
        }
    }

    /// Scores every forecast whose time has come by `now` against the first sample from then on.
    fn score(&self, now: i64) {
        let time = now as f64;
        let is_due = |entry: &ForecastEntry| entry.scorer.due().filter(|due| *due <= time);
        let due: Vec<(SeriesKey, i64, f64)> = lock(&self.kept)
            .entries
            .iter()
            .filter_map(|((key, horizon), entry)| Some((key.clone(), *horizon, is_due(entry)?)))
            .collect();
        for (key, horizon, first) in due {
            // Several may be due, where a round was late.
            let samples = self.history.samples(&key, first.ceil() as i64, now.saturating_add(1));
            let mut kept = lock(&self.kept);
            let Some(entry) = kept.entries.get_mut(&(key, horizon)) else { continue };
            for sample in samples {
                entry.scorer.observe(sample.time as f64, sample.bound_min as f64, sample.bound_max as f64);
                if is_due(entry).is_none() {
                    break;
                }
            }
            entry.scorer.expire(time);
        }
        let (mase, coverage) = lock(&self.kept).overall();
        self.metrics.set(mase, coverage);
    }
}

/// History as the forecast takes it: what was known at the end of each minute, or hour where there is no more.
fn forecast_points(answer: &Answer, now: i64) -> Vec<forecast::LagPoint> {
    let is_hour = |point: &Point| answer.hours_until.is_some_and(|until| point.time < until);
    let width = |point: &Point| if is_hour(point) { HOUR } else { MINUTE };
    answer.points.iter().map(|point| forecast_point(point, width(point), now)).collect()
}

fn forecast_point(point: &Point, width: i64, now: i64) -> forecast::LagPoint {
    let rate = |milli: Option<u64>| milli.map(|milli| milli as f64 / 1000.0);
    // The bounds of the last sample are not kept apart: where there were only exact lags, the last one is exact too.
    let bound = |bound: u64| Some(if point.is_exact() { point.lag } else { bound } as f64);
    forecast::LagPoint {
        time: point.time.saturating_add(width).min(now) as f64,
        lag_min: bound(point.bound_min),
        lag_max: bound(point.bound_max),
        lag_lowest: Some(point.lowest as f64),
        added_per_second: rate(point.added_milli),
        delivered_per_second: rate(point.delivered_milli),
        length: point.length.map(|length| length as f64),
    }
}

#[cfg(test)]
mod tests;
