//! The rows as a table for people.

use crate::app::lag::rows::{LagRow, Sampled};
use crate::model::thresholds::Status;
use crate::sys::terminal::{self, Align, Cell, Paint};

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// What stands for a value that is not known.
const UNKNOWN: &str = "-";

/// Columns behind that of the target.
const COLUMNS: [(&str, Align); 9] = [
    ("STREAM", Align::Left),
    ("GROUP", Align::Left),
    ("STATUS", Align::Left),
    ("LAG", Align::Right),
    ("BEHIND", Align::Right),
    ("PENDING", Align::Right),
    ("OLDEST", Align::Right),
    ("CONSUMERS", Align::Right),
    ("NOTE", Align::Left),
];

/// All targets in one table; which target a row is of stands first if there are several.
pub(super) fn render(sampled: &[Sampled], colored: bool) -> String {
    let several = sampled.len() > 1;
    let mut columns = vec![("TARGET", Align::Left)];
    columns.extend(COLUMNS);
    let rows = sampled.iter().flat_map(Sampled::rows).map(|row| cells(&row));
    let rows: Vec<Vec<Cell>> = rows.map(|row| row.into_iter().skip(usize::from(!several)).collect()).collect();
    terminal::table(&columns[usize::from(!several)..], &rows, colored)
}

fn cells(row: &LagRow<'_>) -> Vec<Cell> {
    let group = &row.group;
    let status = group.status.0;
    let paint = match status {
        Status::Healthy => Paint::Green,
        Status::Degraded => Paint::Yellow,
        Status::Unhealthy => Paint::Red,
        Status::Unknown => Paint::Magenta,
    };
    let number = |number: Option<u64>| Cell::new(&number.map_or(UNKNOWN.to_owned(), |number| number.to_string()));
    let time = |seconds: Option<f64>| Cell::new(&seconds.map_or(UNKNOWN.to_owned(), duration));
    vec![
        Cell::new(row.target),
        Cell::new(&group.stream),
        Cell::new(group.consumer_group.as_deref().unwrap_or(UNKNOWN)),
        Cell::new(status.as_str()).painted(paint),
        Cell::new(&lag(row)),
        time(group.lag_seconds),
        number(group.pending),
        time(group.oldest_pending_seconds),
        number(group.consumers),
        Cell::new(&row.note().unwrap_or_default()),
    ]
}

/// The lag, with its bounds where it is not exact.
fn lag(row: &LagRow<'_>) -> String {
    let lag = row.group.lag;
    match (row.group.lag_min, row.group.lag_max) {
        _ if !row.is_known() => UNKNOWN.to_owned(),
        (Some(min), Some(max)) if min != max => format!("{lag} ({min}-{max})"),
        _ => lag.to_string(),
    }
}

/// Seconds in the two largest units.
fn duration(seconds: f64) -> String {
    // The cast saturates; what is shown is never negative.
    let whole = seconds as u64;
    match whole {
        0..10 if seconds > 0.0 => format!("{seconds:.1}s"),
        0..MINUTE => format!("{whole}s"),
        MINUTE..HOUR => format!("{}m {}s", whole / MINUTE, whole % MINUTE),
        HOUR..DAY => format!("{}h {}m", whole / HOUR, whole % HOUR / MINUTE),
        DAY.. => format!("{}d {}h", whole / DAY, whole % DAY / HOUR),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_two_units() {
        let check = |seconds, expected| assert_eq!(duration(seconds), expected, "{seconds}");
        check(0.0, "0s");
        check(0.25, "0.2s");
        check(9.96, "10.0s");
        check(52.57, "52s");
        check(60.0, "1m 0s");
        check(3599.9, "59m 59s");
        check(3600.0, "1h 0m");
        check(100_000.0, "1d 3h");
        check(1e300, "213503982334601d 7h");
    }
}
