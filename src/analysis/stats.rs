//! Quantiles, and slopes that outliers do not move.

/// The median; NaN of nothing. Sorts the values, of which none may be NaN.
#[must_use]
pub fn median(values: &mut [f64]) -> f64 {
    quantile(values, 0.5)
}

/// A quantile by linear interpolation; NaN of nothing. Sorts the values.
#[must_use]
pub fn quantile(values: &mut [f64], share: f64) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    sorted_quantile(values, share)
}

/// A quantile of sorted values; NaN of nothing.
#[must_use]
pub fn sorted_quantile(values: &[f64], share: f64) -> f64 {
    let Some(last) = values.len().checked_sub(1) else { return f64::NAN };
    let place = share.clamp(0.0, 1.0) * last as f64;
    let low = place as usize;
    let high = (low + 1).min(last);
    values[low] + (values[high] - values[low]) * (place - low as f64)
}

/// A slope, and how sure it is that there is one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Slope {
    /// The median slope of all pairs of points (Theil and Sen).
    pub median: f64,
    /// Rises less falls, over all pairs, in standard deviations of what chance makes of them (Mann and Kendall).
    pub significance: f64,
    /// Whether every pair rises, or every pair falls.
    pub strict: bool,
}

/// The slope of points (time and value) in order of time; NaN of fewer than two.
#[must_use]
pub fn slope(points: &[(f64, f64)]) -> Slope {
    let count = points.len() as f64;
    let pairs = count * (count - 1.0) / 2.0;
    let (mut slopes, mut score) = (Vec::with_capacity(pairs as usize), 0.0);
    for (place, (time, value)) in points.iter().enumerate() {
        for (later, after) in &points[place + 1..] {
            slopes.push((after - value) / (later - time));
            score += if after > value { 1.0 } else { 0.0 } - if after < value { 1.0 } else { 0.0 };
        }
    }
    let deviation = (count * (count - 1.0) * (2.0 * count + 5.0) / 18.0).sqrt();
    Slope { median: median(&mut slopes), significance: score / deviation, strict: f64::abs(score) == pairs }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_lie_between_values() {
        let mut values = [4.0, 1.0, 3.0, 2.0];
        assert_eq!((median(&mut values), quantile(&mut values, 0.0), quantile(&mut values, 1.0)), (2.5, 1.0, 4.0));
        assert_eq!(quantile(&mut values, 0.1), 1.3);
        assert_eq!(sorted_quantile(&values, 2.0), 4.0);
        assert!(median(&mut []).is_nan());
        assert_eq!(median(&mut [7.0]), 7.0);
    }

    #[test]
    fn one_outlier_moves_no_slope() {
        let points: Vec<(f64, f64)> =
            (0..20).map(|n| (f64::from(n), if n == 7 { 1e6 } else { f64::from(3 * n) })).collect();
        let found = slope(&points);
        assert!((found.median - 3.0).abs() < 1e-9 && found.significance > 4.0 && !found.strict, "{found:?}");
        let rising = slope(&points[10..]);
        assert!(rising.strict);
        // Kendall's score of ten that rise, 45, over its standard deviation without a trend: the root of 10 x 9 x 25 / 18.
        assert!((rising.significance - 45.0 / 125_f64.sqrt()).abs() < 1e-9, "{rising:?}");
        let flat = slope(&[(0.0, 1.0), (1.0, 1.0), (2.0, 1.0)]);
        assert_eq!((flat.median, flat.significance, flat.strict), (0.0, 0.0, false));
        assert!(slope(&points[..1]).median.is_nan());
        assert_eq!(slope(&[(10.0, 1.0), (12.0, 5.0)]).median, 2.0, "times begin anywhere");
    }
}
