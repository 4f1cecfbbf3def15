//! How often the consumers broke down, and for how long. Breakdowns come at a constant rate. How long they last has an Erlang distribution: one that
//! always takes about as long to repair ends when it is due.

use std::f64::consts::TAU;

use super::random::Random;

/// Shapes of the distribution of how long breakdowns last. 1 is the exponential one, which has no memory; the standard deviation is the mean over the
/// root of the shape.
const SHAPES: [usize; 4] = [1, 2, 4, 8];
/// How likely each shape is before history tells. Chosen on the tuning half of the backtest.
const PRIOR: [f64; SHAPES.len()] = [0.7, 0.1, 0.1, 0.1];
/// The most draws for a duration that is longer than the breakdown of now has lasted. Where none is, it is of another kind than those that ended,
/// such as noise at the border.
const MAX_DRAWS: usize = 30;

/// How often something happened in so many steps.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Hazard {
    pub(super) times: f64,
    pub(super) steps: f64,
}

impl Hazard {
    /// A rate per step that is as likely as not: a few events tell it roughly, so that it differs from future to future. What lasts and has never
    /// ended counts as half an event (Jeffreys' prior).
    pub(super) fn draw(self, random: &mut Random) -> f64 {
        let times = self.times + 0.5;
        times / self.steps.max(1.0) * (random.normal() / times.sqrt()).exp()
    }
}

/// The breakdowns of the past.
#[derive(Debug)]
pub(super) struct Breakdowns {
    /// How many ended, and how many steps they lasted in all.
    ended: Hazard,
    /// Steps that the breakdown of now has lasted; 0 where there is none.
    elapsed: f64,
    /// How likely each shape or one before it is, after what history tells; ascending to 1.
    likely: [f64; SHAPES.len()],
}

/// How long breakdowns last in one future: an Erlang distribution.
#[derive(Clone, Copy, Debug)]
pub(super) struct Durations {
    shape: usize,
    /// Per step.
    rate: f64,
}

impl Breakdowns {
    /// Of the steps that each lasted which ended, and those of the one of now; 0 where there is none.
    pub(super) fn new(lasted: &[f64], elapsed: f64) -> Self {
        let count = lasted.len() as f64;
        let (steps, logs) = (lasted.iter().sum::<f64>(), lasted.iter().map(|steps| steps.ln()).sum::<f64>());
        // The marginal likelihood where the rate has the prior 1/rate: the product of d^(k−1), times Γ(nk) / (Γ(k)^n · (sum of d)^(nk)).
        let log_likelihood = |shape: usize| {
            let shape = shape as f64;
            (shape - 1.0) * logs + ln_gamma(count * shape) - count * ln_gamma(shape) - count * shape * steps.ln()
        };
        let by_shape = if lasted.is_empty() { [0.0; SHAPES.len()] } else { SHAPES.map(log_likelihood) };
        let highest = by_shape.into_iter().fold(f64::NEG_INFINITY, f64::max);
        let mut total = 0.0;
        let mut likely = [0.0; SHAPES.len()];
        for ((likely, log), prior) in likely.iter_mut().zip(by_shape).zip(PRIOR) {
            total += prior * (log - highest).exp();
            *likely = total;
        }
        Self { ended: Hazard { times: count, steps }, elapsed, likely: likely.map(|likely| likely / total) }
    }

    /// One future: for how many steps the breakdown of now goes on, and how long others last.
    pub(super) fn draw(&self, random: &mut Random) -> (f64, Durations) {
        let draws = if self.ended.times > 0.0 { MAX_DRAWS } else { 0 };
        for _ in 0..draws {
            let durations = self.durations(random);
            let steps = durations.draw(random);
            if steps > self.elapsed {
                return (steps - self.elapsed, durations);
            }
        }
        let all = Hazard { steps: self.ended.steps + self.elapsed, ..self.ended };
        let durations = Durations { shape: 1, rate: all.draw(random) };
        let goes_on = if self.elapsed > 0.0 { durations.draw(random) } else { 0.0 };
        (goes_on, durations)
    }

    /// A distribution that is as likely as not after those that ended.
    fn durations(&self, random: &mut Random) -> Durations {
        let among = random.uniform();
        let shape = SHAPES.iter().zip(self.likely).find(|(_, likely)| among < *likely).map_or(1, |(shape, _)| *shape);
        let times = self.ended.times * shape as f64;
        Durations { shape, rate: Hazard { times, ..self.ended }.draw(random) }
    }
}

impl Durations {
    /// Steps that one breakdown lasts: as many exponential ones in a row as the shape says.
    pub(super) fn draw(self, random: &mut Random) -> f64 {
        let product: f64 = (0..self.shape).map(|_| 1.0 - random.uniform()).product();
        -product.ln() / self.rate
    }
}

/// ln Γ(x) for x from 1 on, by Stirling's series (DLMF 5.11.1) to its third term: off by 0.0003 at 1, by less than 10⁻⁵ from 2 on.
fn ln_gamma(x: f64) -> f64 {
    let series = 1.0 / (12.0 * x) - 1.0 / (360.0 * x.powi(3)) + 1.0 / (1260.0 * x.powi(5));
    (x - 0.5) * x.ln() - x + 0.5 * TAU.ln() + series
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The median of how long the breakdown of now goes on.
    fn goes_on(lasted: &[f64], elapsed: f64) -> f64 {
        let breakdowns = Breakdowns::new(lasted, elapsed);
        let mut random = Random::new(7);
        let mut left: Vec<f64> = (0..2_000).map(|_| breakdowns.draw(&mut random).0).collect();
        crate::analysis::stats::median(&mut left)
    }

    #[test]
    fn repairs_that_always_take_as_long_end_when_they_are_due() {
        let alike = [38.0, 41.0, 43.0, 39.0, 40.0, 37.0, 42.0];
        let (young, old) = (goes_on(&alike, 5.0), goes_on(&alike, 40.0));
        assert!((28.0..42.0).contains(&young), "{young}");
        assert!((4.0..14.0).contains(&old), "{old}");
    }

    #[test]
    fn repairs_that_differ_as_chance_does_have_no_memory() {
        let differing = [4.0, 90.0, 12.0, 33.0, 150.0, 1.0, 20.0, 55.0];
        let (young, old) = (goes_on(&differing, 5.0), goes_on(&differing, 60.0));
        assert!((0.6..1.7).contains(&(old / young)), "{young} and {old}");
    }

    #[test]
    fn a_breakdown_longer_than_any_has_no_memory() {
        // The rate is that of all steps, those of now included: 7 ends in 680 steps, so half of an exponential duration is 63 steps.
        let left = goes_on(&[38.0, 41.0, 43.0, 39.0, 40.0, 37.0, 42.0], 400.0);
        assert!((45.0..80.0).contains(&left), "{left}");
    }

    #[test]
    fn a_breakdown_that_never_ended_goes_on() {
        assert!(goes_on(&[], 30.0) > 30.0);
        assert!(goes_on(&[], 300.0) > 300.0);
    }

    #[test]
    fn of_one_repair_nothing_tells_how_repairs_differ() {
        let likely = Breakdowns::new(&[40.0], 0.0).likely;
        for (likely, expected) in likely.into_iter().zip([0.7, 0.8, 0.9, 1.0]) {
            assert!((likely - expected).abs() < 1e-3, "{likely}, expected {expected}");
        }
    }

    #[test]
    fn erlang_durations_have_their_mean_and_deviation() {
        let mut random = Random::new(3);
        for shape in SHAPES {
            let durations = Durations { shape, rate: shape as f64 / 40.0 };
            let drawn: Vec<f64> = (0..20_000).map(|_| durations.draw(&mut random)).collect();
            let mean = drawn.iter().sum::<f64>() / drawn.len() as f64;
            let deviation = (drawn.iter().map(|steps| (steps - mean).powi(2)).sum::<f64>() / drawn.len() as f64).sqrt();
            assert!((mean / 40.0 - 1.0).abs() < 0.03, "shape {shape}: mean {mean}");
            assert!(
                (deviation * (shape as f64).sqrt() / 40.0 - 1.0).abs() < 0.03,
                "shape {shape}: deviation {deviation}"
            );
        }
    }

    #[test]
    fn ln_gamma_is_that_of_factorials() {
        let mut factorial = 0.0_f64;
        for n in 1..200 {
            assert!(
                (ln_gamma(f64::from(n)) - factorial).abs() < 5e-4,
                "{n}: {}, expected {factorial}",
                ln_gamma(f64::from(n))
            );
            factorial += f64::from(n).ln();
        }
    }
}
