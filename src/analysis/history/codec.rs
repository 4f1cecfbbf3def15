//! Points as few bytes: one after another for memory ([`OpenSeries`]), and by columns for the file ([`encode`]).

mod packed;

use crate::analysis::group_state::GroupState;
use crate::analysis::history::Point;

/// Numbers of a point beside its time.
const COLUMNS: usize = 15;

/// Which of them are what changes from one point to the next: the others are differences from another column and stored as they are.
const DIFFERENCES: [bool; COLUMNS] =
    [true, true, true, true, true, true, false, false, false, false, false, false, true, true, false];

/// The bit of the time, after those of the columns.
const TIME: u32 = COLUMNS as u32;

/// Parts of an entry in which a mean is kept.
const MEAN_PARTS: f64 = 8.0;

/// Significant digits that the file keeps of ages and rates, and the first number with more.
const DIGITS: u32 = 3;
const LIMIT: u64 = 10_u64.pow(DIGITS);

/// The largest number plus one, which has a bit more than others.
const ABOVE_ALL: [u8; 10] = [0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 2];

/// Bytes that are no points.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the bytes are no history points")]
pub struct Corrupt;

/// The columns of a point. Those that change most come first, so that the mask of the others is short.
fn columns(point: &Point) -> [Option<i64>; COLUMNS] {
    let of = |number: u64| Some(number.cast_signed());
    let signed = |number: Option<u64>| number.map(u64::cast_signed);
    let place = |wanted| GroupState::ALL.iter().position(|state| *state == wanted);
    [
        signed(point.lag_ms),
        of(point.lag),
        signed(point.length),
        signed(point.pending),
        signed(point.delivered_milli),
        signed(point.added_milli),
        Some(((point.mean - point.lag as f64) * MEAN_PARTS).round() as i64),
        of(point.lag.wrapping_sub(point.lowest)),
        of(point.highest.wrapping_sub(point.lag)),
        of(point.lowest.wrapping_sub(point.bound_min)),
        of(point.bound_max.wrapping_sub(point.highest)),
        Some(i64::from(point.samples)),
        signed(point.consumers),
        signed(point.lost),
        point.state.and_then(place).map(|place| place as i64),
    ]
}

fn from_columns(time: i64, columns: &[Option<i64>; COLUMNS]) -> Result<Point, Corrupt> {
    let [
        lag_ms,
        lag,
        length,
        pending,
        delivered,
        added,
        mean,
        low,
        high,
        bound_min,
        bound_max,
        samples,
        consumers,
        lost,
        state,
    ] = *columns;
    let of = |number: Option<i64>| number.map(i64::cast_unsigned).ok_or(Corrupt);
    let unsigned = |number: Option<i64>| number.map(i64::cast_unsigned);
    let lag = of(lag)?;
    let lowest = lag.wrapping_sub(of(low)?);
    let highest = lag.wrapping_add(of(high)?);
    let samples = u32::try_from(of(samples)?).map_err(|_| Corrupt)?;
    let state_at = |place: i64| usize::try_from(place).ok().and_then(|place| GroupState::ALL.get(place)).ok_or(Corrupt);
    Ok(Point {
        time,
        samples: if samples == 0 { return Err(Corrupt) } else { samples },
        lag,
        mean: lag as f64 + mean.ok_or(Corrupt)? as f64 / MEAN_PARTS,
        lowest,
        highest,
        bound_min: lowest.wrapping_sub(of(bound_min)?),
        bound_max: highest.wrapping_add(of(bound_max)?),
        lag_ms: unsigned(lag_ms),
        pending: unsigned(pending),
        length: unsigned(length),
        added_milli: unsigned(added),
        delivered_milli: unsigned(delivered),
        consumers: unsigned(consumers),
        lost: unsigned(lost),
        state: state.map(state_at).transpose()?.copied(),
    })
}

fn put(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn take(bytes: &mut &[u8]) -> Result<u64, Corrupt> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first().ok_or(Corrupt)?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(Corrupt)
}

/// A signed number as one that is small where it is near 0.
fn zigzag(number: i64) -> u64 {
    ((number << 1) ^ (number >> 63)).cast_unsigned()
}

fn unzigzag(number: u64) -> i64 {
    (number >> 1).cast_signed() ^ -((number & 1).cast_signed())
}

/// A number that may be absent: 0 is none.
fn put_optional(bytes: &mut Vec<u8>, number: Option<u64>) {
    match number {
        Some(u64::MAX) => bytes.extend(ABOVE_ALL),
        Some(number) => put(bytes, number + 1),
        None => put(bytes, 0),
    }
}

fn take_optional(bytes: &mut &[u8]) -> Result<Option<u64>, Corrupt> {
    if let Some(rest) = bytes.strip_prefix(&ABOVE_ALL) {
        *bytes = rest;
        return Ok(Some(u64::MAX));
    }
    take(bytes).map(|number| number.checked_sub(1))
}

/// What the next point is told by: the last one.
#[derive(Clone, Copy, Debug, Default)]
struct Last {
    time: i64,
    step: i64,
    columns: [Option<i64>; COLUMNS],
    /// The last value of each column that there was.
    known: [i64; COLUMNS],
}

/// Points one after another, each as what has changed since the one before.
#[derive(Clone, Debug, Default)]
pub struct OpenSeries {
    bytes: Vec<u8>,
    last: Last,
    first: i64,
    points: u32,
}

impl OpenSeries {
    /// Appends a point.
    pub fn push(&mut self, point: &Point) {
        let (new, last) = (columns(point), &mut self.last);
        if self.points == 0 {
            self.first = point.time;
        }
        let step = point.time.wrapping_sub(last.time);
        let mut mask = u64::from(step != last.step) << TIME;
        for (place, value) in new.iter().enumerate() {
            mask |= u64::from(*value != last.columns[place]) << place;
        }
        put(&mut self.bytes, mask);
        for (place, value) in new.iter().enumerate().filter(|(place, _)| mask >> place & 1 == 1) {
            let base = if DIFFERENCES[place] { last.known[place] } else { 0 };
            put_optional(&mut self.bytes, value.map(|value| zigzag(value.wrapping_sub(base))));
            last.known[place] = value.unwrap_or(last.known[place]);
        }
        if mask >> TIME == 1 {
            put(&mut self.bytes, zigzag(step.wrapping_sub(last.step)));
        }
        (last.time, last.step, last.columns) = (point.time, step, new);
        self.points = self.points.saturating_add(1);
    }

    /// Time of the first point; 0 where there is none.
    #[must_use]
    pub fn first(&self) -> i64 {
        self.first
    }

    /// Time of the last point; 0 where there is none.
    #[must_use]
    pub fn last(&self) -> i64 {
        self.last.time
    }

    /// The same points, of which there will be no more.
    #[must_use]
    pub fn close(self) -> ClosedSeries {
        ClosedSeries { bytes: self.bytes.into(), first: self.first, last: self.last.time }
    }

    /// How many points there are.
    #[must_use]
    pub fn points(&self) -> u32 {
        self.points
    }

    /// Bytes that it holds.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes.capacity()
    }

    /// The points.
    ///
    /// # Errors
    /// Where the bytes are no points, which would be a defect.
    pub fn decode(&self) -> Result<Vec<Point>, Corrupt> {
        decode_series(&self.bytes)
    }
}

/// Points to which no more are added. Takes a tenth of the memory that an [`OpenSeries`] takes beside its bytes.
#[derive(Clone, Debug)]
pub struct ClosedSeries {
    bytes: Box<[u8]>,
    first: i64,
    last: i64,
}

impl ClosedSeries {
    /// Time of the first point.
    #[must_use]
    pub fn first(&self) -> i64 {
        self.first
    }

    /// Time of the last point.
    #[must_use]
    pub fn last(&self) -> i64 {
        self.last
    }

    /// Bytes that it holds.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The points.
    ///
    /// # Errors
    /// Where the bytes are no points, which would be a defect.
    pub fn decode(&self) -> Result<Vec<Point>, Corrupt> {
        decode_series(&self.bytes)
    }
}

fn decode_series(mut bytes: &[u8]) -> Result<Vec<Point>, Corrupt> {
    let (mut last, mut points) = (Last::default(), Vec::new());
    while !bytes.is_empty() {
        let mask = take(&mut bytes)?;
        for place in (0..COLUMNS).filter(|place| mask >> place & 1 == 1) {
            let base = if DIFFERENCES[place] { last.known[place] } else { 0 };
            last.columns[place] = take_optional(&mut bytes)?.map(|delta| unzigzag(delta).wrapping_add(base));
            last.known[place] = last.columns[place].unwrap_or(last.known[place]);
        }
        if mask >> TIME == 1 {
            last.step = last.step.wrapping_add(unzigzag(take(&mut bytes)?));
        }
        last.time = last.time.wrapping_add(last.step);
        points.push(from_columns(last.time, &last.columns)?);
    }
    Ok(points)
}

/// A number by its first digits, rounded up, so that what is not 0 stays so: numbers that look alike are near each other.
fn shortened(number: u64) -> u64 {
    let mut exponent = number.checked_ilog10().unwrap_or(0).saturating_sub(DIGITS - 1);
    let mut digits = number.div_ceil(10_u64.pow(exponent));
    if digits == LIMIT {
        (exponent, digits) = (exponent + 1, LIMIT / 10);
    }
    u64::from(exponent) * LIMIT + digits
}

fn lengthened(short: u64) -> Result<u64, Corrupt> {
    let exponent = u32::try_from(short / LIMIT).map_err(|_| Corrupt)?;
    let unit = 10_u64.checked_pow(exponent).ok_or(Corrupt)?;
    Ok((short % LIMIT).saturating_mul(unit))
}

/// Columns of ages and rates, which the file keeps by their first digits.
const SHORTENED: [usize; 3] = [0, 4, 5];

/// Points, each with the number of its series, by columns. Ages and rates keep three digits.
#[must_use]
pub fn encode(points: &[(u64, Point)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    put(&mut bytes, points.len() as u64);
    let Some((_, first)) = points.first() else { return bytes };
    put(&mut bytes, zigzag(first.time));
    let series = points.iter().map(|(series, _)| Some(series.cast_signed()));
    packed::put_column(&mut bytes, &series.collect::<Vec<_>>());
    let steps = points.windows(2).map(|pair| Some(pair[1].1.time.wrapping_sub(pair[0].1.time)));
    packed::put_column(&mut bytes, &steps.collect::<Vec<_>>());
    let rows: Vec<_> = points.iter().map(|(_, point)| columns(point)).collect();
    for place in 0..COLUMNS {
        let short = |value: i64| shortened(value.cast_unsigned()).cast_signed();
        let is_short = SHORTENED.contains(&place);
        let column = rows.iter().map(|row| if is_short { row[place].map(short) } else { row[place] });
        packed::put_column(&mut bytes, &column.collect::<Vec<_>>());
    }
    bytes
}

/// What [`encode`] made, of at most so many points: constant columns take no bytes, so that the bytes do not bound them.
///
/// # Errors
/// Where it did not make it.
pub fn decode(mut bytes: &[u8], max_points: usize) -> Result<Vec<(u64, Point)>, Corrupt> {
    let bytes = &mut bytes;
    let count = usize::try_from(take(bytes)?).map_err(|_| Corrupt)?;
    if count > max_points {
        return Err(Corrupt);
    }
    let Some(steps) = count.checked_sub(1) else { return if bytes.is_empty() { Ok(Vec::new()) } else { Err(Corrupt) } };
    let mut time = unzigzag(take(bytes)?);
    let series = packed::take_column(bytes, count)?;
    let mut steps = packed::take_column(bytes, steps)?.into_iter();
    let mut keys = Vec::with_capacity(count);
    for series in series {
        keys.push((series.ok_or(Corrupt)?.cast_unsigned(), time));
        if let Some(step) = steps.next() {
            time = time.wrapping_add(step.ok_or(Corrupt)?);
        }
    }
    decode_columns(bytes, keys)
}

/// What the first version of the file made, where each point had its key before the columns. A point took at least two bytes.
///
/// # Errors
/// Where it did not make it.
pub fn decode_first(mut bytes: &[u8]) -> Result<Vec<(u64, Point)>, Corrupt> {
    let bytes = &mut bytes;
    let count = usize::try_from(take(bytes)?).map_err(|_| Corrupt)?;
    if count > bytes.len() / 2 {
        return Err(Corrupt);
    }
    let mut keys = Vec::with_capacity(count);
    let (mut series, mut time, mut step) = (0_u64, 0_i64, 0_i64);
    for _ in 0..count {
        series = series.wrapping_add(unzigzag(take(bytes)?).cast_unsigned());
        step = step.wrapping_add(unzigzag(take(bytes)?));
        time = time.wrapping_add(step);
        keys.push((series, time));
    }
    decode_columns(bytes, keys)
}

fn decode_columns(bytes: &mut &[u8], keys: Vec<(u64, i64)>) -> Result<Vec<(u64, Point)>, Corrupt> {
    let count = keys.len();
    let mut rows = vec![[None; COLUMNS]; count];
    for place in 0..COLUMNS {
        let column = packed::take_column(bytes, count)?;
        for (row, value) in rows.iter_mut().zip(column) {
            row[place] = match value {
                Some(short) if SHORTENED.contains(&place) => Some(lengthened(short.cast_unsigned())?.cast_signed()),
                value => value,
            };
        }
    }
    if !bytes.is_empty() {
        return Err(Corrupt);
    }
    keys.iter().zip(&rows).map(|((series, time), row)| Ok((*series, from_columns(*time, row)?))).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::analysis::history::tests::point;

    fn any_point() -> impl Strategy<Value = Point> {
        let number = || prop_oneof![Just(0), Just(u64::MAX), Just(u64::MAX - 1), 0..2000_u64, any::<u64>()];
        let optional = move || proptest::option::of(number());
        let lags = proptest::collection::vec(number(), 5);
        (
            (-1_000_000..4_000_000_000_i64, 1..u32::MAX, lags, -8000..8000_i64),
            (
                (optional(), optional(), optional(), optional(), optional(), optional(), optional()),
                proptest::option::of(0..GroupState::ALL.len()),
            ),
        )
            .prop_map(|((time, samples, mut lags, mean), rest)| {
                let ((lag_ms, pending, length, added_milli, delivered_milli, consumers, lost), state) = rest;
                lags.sort_unstable();
                Point {
                    time,
                    samples,
                    lag: lags[2],
                    mean: lags[2] as f64 + if lags[2] < 1 << 40 { mean as f64 / MEAN_PARTS } else { 0.0 },
                    lowest: lags[1],
                    highest: lags[3],
                    bound_min: lags[0],
                    bound_max: lags[4],
                    lag_ms,
                    pending,
                    length,
                    added_milli,
                    delivered_milli,
                    consumers,
                    lost,
                    state: state.map(|state| GroupState::ALL[state]),
                }
            })
    }

    proptest! {
        #[test]
        fn points_of_memory_come_back_as_they_were(points in proptest::collection::vec(any_point(), 0..40)) {
            let mut series = OpenSeries::default();
            points.iter().for_each(|point| series.push(point));
            let (first, last) = (points.first().map_or(0, |point| point.time), points.last().map_or(0, |point| point.time));
            prop_assert_eq!((series.first(), series.last(), series.points() as usize), (first, last, points.len()));
            prop_assert_eq!(series.decode(), Ok(points.clone()));
            let (open_bytes, closed) = (series.bytes(), series.close());
            prop_assert!(closed.bytes() >= points.len() && closed.bytes() <= open_bytes);
            prop_assert_eq!((closed.first(), closed.last(), closed.decode()), (first, last, Ok(points)));
        }

        #[test]
        fn points_of_the_file_come_back_with_three_digits_of_ages_and_rates(
            points in proptest::collection::vec((any::<u64>(), any_point()), 0..40),
        ) {
            let back = decode(&encode(&points), points.len()).unwrap();
            prop_assert_eq!(back.len(), points.len());
            for ((series, point), (back_series, back)) in points.iter().zip(&back) {
                prop_assert_eq!(series, back_series);
                for (exact, kept) in [(point.lag_ms, back.lag_ms), (point.added_milli, back.added_milli)] {
                    prop_assert_eq!(exact.map(|exact| lengthened(shortened(exact)).unwrap()), kept);
                }
                let same = Point {
                    lag_ms: point.lag_ms,
                    added_milli: point.added_milli,
                    delivered_milli: point.delivered_milli,
                    ..*back
                };
                prop_assert_eq!(&same, point);
            }
        }

        #[test]
        fn any_bytes_are_points_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = (decode(&bytes, 1000), decode_first(&bytes));
        }
    }

    /// A point a minute, with these lags.
    fn minutes(series: u64, count: u64, lag: impl Fn(u64) -> u64) -> Vec<(u64, Point)> {
        let of = |n: u64| Point { lag_ms: None, ..point(n.cast_signed() * 60, lag(n)) };
        (0..count).map(|n| (series, of(n))).collect()
    }

    #[test]
    fn what_the_first_version_wrote_is_read() {
        let points = [minutes(7, 40, |n| 100 + n * n), minutes(9, 3, |n| 3 * n)].concat();
        let mut bytes = Vec::new();
        put(&mut bytes, points.len() as u64);
        let (mut last_series, mut last_time, mut last_step) = (0, 0, 0);
        for (series, point) in &points {
            let step = point.time - last_time;
            put(&mut bytes, zigzag(series.wrapping_sub(last_series).cast_signed()));
            put(&mut bytes, zigzag(step - last_step));
            (last_series, last_time, last_step) = (*series, point.time, step);
        }
        let rows: Vec<_> = points.iter().map(|(_, point)| columns(point)).collect();
        for place in 0..COLUMNS {
            let short = |value: i64| {
                if SHORTENED.contains(&place) { shortened(value.cast_unsigned()).cast_signed() } else { value }
            };
            packed::put_column(&mut bytes, &rows.iter().map(|row| row[place].map(short)).collect::<Vec<_>>());
        }
        assert_eq!(decode_first(&bytes), Ok(points));
        assert_eq!(decode_first(&bytes[..bytes.len() - 1]), Err(Corrupt));
    }

    #[test]
    fn a_point_takes_the_bits_in_which_it_differs_from_those_around_it() {
        let bits = |lag: fn(u64) -> u64| {
            let size = |count| encode(&minutes(7, count, lag)).len() as f64 * 8.0;
            (size(6400) - size(3200)) / 3200.0
        };
        let check = |lag, most| assert!(bits(lag) <= most, "{} bits, more than {most}", bits(lag));
        check(|_| 1_000_000, 0.0);
        // Blocks of 32 points take a few bytes each.
        check(|n| 1_000_000 + n * 1000, 2.0);
        check(|n| 1_000_000 + n * 7919 % 1000, 13.0);
    }

    #[test]
    fn what_is_not_zero_does_not_become_so() {
        let kept = |number| lengthened(shortened(number)).unwrap();
        assert_eq!([0, 1, 999, 1000, 1001, 9999, 12_341].map(kept), [0, 1, 999, 1000, 1010, 10_000, 12_400]);
        assert_eq!(kept(u64::MAX), u64::MAX, "as far as it goes");
        assert_eq!(lengthened(u64::MAX), Err(Corrupt));
    }
}
