//! A load that was steady and then began to grow or to shrink: since when, and by how much per step.
//!
//! For each of several beginnings, a level until then and a line from there on are fitted by least squares to the steps before now. The beginning that
//! explains most is the most likely one. Whether there is a ramp at all is told by the share of the variance that is explained: a burst or a wave
//! leaves most of it, a ramp that has grown out of the noise does not.

/// The shortest step in seconds.
const MIN_STEP: f64 = 300.0;
/// How many steps ago a ramp may have begun: from one to the next by the root of 2.
const BEGINNINGS: [usize; 9] = [16, 23, 32, 45, 64, 91, 128, 181, 256];
/// Level and line together are as many times as long as the line.
const CONTEXT: usize = 2;
/// Of beginnings that explain nearly the same, the latest is taken: what explains at least this share of the most.
const NEARLY: f64 = 0.9;
/// Up to this share of the variance there is no ramp.
const NOT_EXPLAINED: f64 = 0.6;
/// From this share on it counts in full.
const EXPLAINED: f64 = 0.85;
/// Neighbouring errors are alike: the doubt of a slope is as many times that of independent ones.
const ALIKE: f64 = 3.0;
/// Below this share of all that was added up, a variance is a rounding error.
const ROUNDED: f64 = 1e-9;

/// The line since a ramp began.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ramp {
    /// How much of it counts, from 0 (there is none) to 1.
    pub(super) share: f64,
    /// Where the line is now.
    pub(super) level: f64,
    /// By how much it grows per step.
    pub(super) slope: f64,
    /// The doubt of the slope as a share of it: one standard deviation.
    pub(super) doubt: f64,
}

/// Sums over known values `y` at steps `x`.
#[derive(Clone, Copy, Default)]
pub(super) struct Sums {
    pub(super) n: f64,
    x: f64,
    xx: f64,
    y: f64,
    xy: f64,
    yy: f64,
}

impl Sums {
    pub(super) fn with(self, x: f64, y: f64) -> Self {
        Self {
            n: self.n + 1.0,
            x: self.x + x,
            xx: self.xx + x * x,
            y: self.y + y,
            xy: self.xy + x * y,
            yy: self.yy + y * y,
        }
    }

    /// The line of least squares: its slope, and the middle of the values, through which it goes.
    pub(super) fn line(&self) -> (f64, (f64, f64)) {
        let x = self.x / self.n;
        ((self.xy - x * self.y) / (self.xx - x * self.x), (x, self.y / self.n))
    }

    fn without(&self, other: &Self) -> Self {
        Self {
            n: self.n - other.n,
            x: self.x - other.x,
            xx: self.xx - other.xx,
            y: self.y - other.y,
            xy: self.xy - other.xy,
            yy: self.yy - other.yy,
        }
    }
}

/// The ramp after each step of so many seconds, as the steps until then tell it. NaN is a gap. Shorter steps than [`MIN_STEP`] are taken together: chance
/// would make most of their variance.
pub(super) fn ramps(values: &[f64], step: f64) -> Vec<Ramp> {
    let size = (MIN_STEP / step).ceil().max(1.0) as usize;
    // The newest group ends at the newest step.
    let first = values.len() % size;
    let means: Vec<f64> = values[first..].chunks(size).map(mean_of_known).collect();
    let of_groups = ramps_of_groups(&means);
    let at = |at: usize| {
        let ended = (at + 1).checked_sub(first)? / size;
        let ramp = of_groups.get(ended.checked_sub(1)?)?;
        let slope = ramp.slope / size as f64;
        // The mean of a group is that of its middle.
        let since_middle = (at + 1 - first - ended * size) as f64 + (size - 1) as f64 / 2.0;
        Some(Ramp { level: ramp.level + slope * since_middle, slope, ..*ramp })
    };
    (0..values.len()).map(|step| at(step).unwrap_or_default()).collect()
}

/// The mean of the known values; NaN where there are none.
fn mean_of_known(values: &[f64]) -> f64 {
    let known = values.iter().copied().filter(|value| !value.is_nan());
    known.clone().sum::<f64>() / known.count() as f64
}

fn ramps_of_groups(values: &[f64]) -> Vec<Ramp> {
    let mut sums = Vec::with_capacity(values.len() + 1);
    let mut sum = Sums::default();
    sums.push(sum);
    for (at, value) in values.iter().enumerate() {
        if !value.is_nan() {
            sum = sum.with(at as f64, *value);
        }
        sums.push(sum);
    }
    (1..sums.len()).map(|end| ramp(&sums[..=end])).collect()
}

/// The ramp after the last step; `sums` are those of the steps before each.
fn ramp(sums: &[Sums]) -> Ramp {
    let now = sums.len() - 1;
    let known = BEGINNINGS.into_iter().take_while(|steps| CONTEXT * steps <= now);
    let found: Vec<(f64, Ramp)> = known.filter_map(|steps| since(sums, steps)).collect();
    let most = found.iter().map(|(explained, _)| *explained).fold(0.0, f64::max);
    let likely = found.into_iter().find(|(explained, _)| *explained >= NEARLY * most);
    likely.map_or(Ramp::default(), |(_, ramp)| ramp)
}

/// The ramp if it began so many steps ago, and the variance that it explains. `None` where too little is known.
fn since(sums: &[Sums], steps: usize) -> Option<(f64, Ramp)> {
    let now = sums.len() - 1;
    let all = sums[now].without(&sums[now - CONTEXT * steps]);
    let line = sums[now].without(&sums[now - steps]);
    let least = steps as f64 / 2.0;
    let variance = all.yy - all.y * all.y / all.n;
    if line.n < least || all.n - line.n < least || variance <= ROUNDED * sums[now].yy {
        return None;
    }
    // The regression of y on h = max(0, x - begin).
    let begin = (now - steps) as f64 - 1.0;
    let h = line.x - begin * line.n;
    let hh = line.xx - 2.0 * begin * line.x + begin * begin * line.n;
    let hy = line.xy - begin * line.y;
    let explained = (hy - h * all.y / all.n).powi(2) / (hh - h * h / all.n);
    let ratio = (explained / variance).min(1.0);
    // The level would make its slope steeper where the ramp is older: the slope is that of the line alone.
    let (slope, (middle, mean)) = line.line();
    let ramp = Ramp {
        share: ((ratio - NOT_EXPLAINED) / (EXPLAINED - NOT_EXPLAINED)).clamp(0.0, 1.0),
        level: mean + slope * ((now - 1) as f64 - middle),
        slope,
        doubt: ALIKE * ((1.0 - ratio) / ratio / line.n).sqrt(),
    };
    Some((explained, ramp))
}

#[cfg(test)]
mod tests {
    use super::super::random::Random;
    use super::*;

    /// Ten per step, and so much more with each of the last `steps`.
    fn grown(steps: usize, slope: f64) -> Vec<f64> {
        (0..600_usize).map(|at| 10.0 + slope * (at + 1 + steps).saturating_sub(600) as f64).collect()
    }

    fn last(values: &[f64]) -> Ramp {
        *ramps(values, MIN_STEP).last().unwrap()
    }

    fn near(found: f64, expected: f64, by: f64) {
        assert!((found - expected).abs() <= by, "{found} is not {expected}");
    }

    #[test]
    fn a_line_that_began_at_one_of_the_moments_is_found_as_it_is() {
        for steps in BEGINNINGS {
            for slope in [0.5, -0.01] {
                let ramp = last(&grown(steps, slope));
                near(ramp.share, 1.0, 0.0);
                near(ramp.slope, slope, 1e-6);
                near(ramp.level, 10.0 + slope * steps as f64, 1e-4);
                near(ramp.doubt, 0.0, 1e-4);
            }
        }
    }

    #[test]
    fn between_two_of_them_and_beyond_the_earliest_one_it_is_nearly_so() {
        for steps in [27, 54, 110, 215, 300] {
            let ramp = last(&grown(steps, 0.5));
            near(ramp.share, 1.0, 0.0);
            near(ramp.slope, 0.5, 0.06);
        }
    }

    #[test]
    fn each_step_knows_what_came_before_it_only() {
        let values = grown(64, 0.5);
        let all = ramps(&values, MIN_STEP);
        assert_eq!(all.len(), values.len());
        for end in [1, 31, 32, 300, 537, 560, 600] {
            let known = last(&values[..end]);
            assert_eq!(format!("{known:?}"), format!("{:?}", all[end - 1]), "after {end} steps");
        }
        assert_eq!(all[..537].iter().filter(|ramp| ramp.share > 0.0).count(), 0);
    }

    #[test]
    fn a_gap_is_not_a_value() {
        let mut values = grown(64, 0.5);
        values[560..580].fill(f64::NAN);
        near(last(&values).slope, 0.5, 1e-6);
        // Without anything before it a line is none that began.
        values[..568].fill(f64::NAN);
        near(last(&values).share, 0.0, 0.0);
    }

    #[test]
    fn short_steps_are_taken_together_so_that_their_noise_hides_no_ramp() {
        let mut random = Random::new(3);
        // Each step five times, with noise that a mean of five has less of.
        let noisy = |value: f64| [value; 5].map(|value| value + 20.0 * random.normal());
        let values: Vec<f64> = grown(91, 1.0).into_iter().flat_map(noisy).collect();
        let by_the_step = *ramps(&values, MIN_STEP).last().unwrap();
        let together = *ramps(&values, MIN_STEP / 5.0).last().unwrap();
        assert!(by_the_step.share < 0.5 && together.share > 0.9, "{by_the_step:?}, {together:?}");
        near(together.slope, 0.2, 0.02);
        near(together.level, 101.0, 10.0);
    }

    #[test]
    fn a_step_of_a_group_that_has_not_ended_is_further_on_the_line_of_the_last_one() {
        let exact: Vec<f64> = (0..1_200_usize).map(|at| 10.0 + at.saturating_sub(900) as f64).collect();
        let all = ramps(&exact, MIN_STEP / 4.0);
        // A ramp of about 64 groups, each of them at another place in its group.
        for at in 1_154..1_158 {
            near(all[at].slope, 1.0, 0.03);
            near(all[at].level, exact[at], 2.0);
        }
        assert_eq!(ramps(&exact[..3], MIN_STEP / 4.0).len(), 3, "fewer steps than make a group");
    }

    #[test]
    fn neither_noise_nor_a_burst_nor_what_stands_still_is_a_ramp() {
        let mut random = Random::new(1);
        let noise: Vec<f64> = (0..600).map(|_| 100.0 + 10.0 * random.normal()).collect();
        assert_eq!(ramps(&noise, MIN_STEP).iter().filter(|ramp| ramp.share > 0.0).count(), 0);
        let mut burst = noise.clone();
        burst[590..595].fill(5_000.0);
        near(last(&burst).share, 0.0, 0.0);
        // After millions, the rounding errors of sums are larger than what is left.
        let still = [vec![3e7; 300], vec![0.1; 300]].concat();
        near(last(&still).share, 0.0, 0.0);
        near(last(&vec![0.0; 600]).share, 0.0, 0.0);
    }

    #[test]
    fn the_more_noise_the_less_a_ramp_counts_and_the_more_its_slope_is_in_doubt() {
        let with_noise = |noise: f64, seed: u64| {
            let mut random = Random::new(seed);
            let values: Vec<f64> = grown(91, 1.0).into_iter().map(|value| value + noise * random.normal()).collect();
            last(&values)
        };
        let [little, more, much] = [2.0, 15.0, 80.0].map(|noise| with_noise(noise, 7));
        near(little.share, 1.0, 0.0);
        near(little.slope, 1.0, 0.05);
        assert!(more.share > 0.0 && more.share < 1.0, "{more:?}");
        near(much.share, 0.0, 0.0);
        // What slopes are apart where errors are independent; the beginning that was chosen is a part of it. Others are more apart.
        let all: Vec<Ramp> = (0..200).map(|seed| with_noise(15.0, seed)).collect();
        let mean = |of: fn(&Ramp) -> f64| all.iter().map(of).sum::<f64>() / all.len() as f64;
        let slope = mean(|ramp| ramp.slope);
        let apart = (mean(|ramp| ramp.slope * ramp.slope) - slope * slope).sqrt() / slope;
        let doubt = mean(|ramp| ramp.doubt);
        assert!(doubt > apart && doubt < 2.0 * apart, "{doubt} for {apart}");
    }
}
