//! Samples streams of one Redis once, and prints the lag of each group: `cargo run --example sample -- redis://localhost:6379 orders`

use std::error::Error;
use std::io::Write as _;
use std::time::Duration;

use streamlag::analysis::assess::{Assessor, Bounds};
use streamlag::analysis::snapshot::StreamSnapshot;
use streamlag::analysis::window::Windows;
use streamlag::collector::{SamplingConfig, Standalone};
use streamlag::model::{GroupSelection, StreamKey};
use streamlag::sys::own_metrics::RedisCommands;

/// Time from one sample to the next. One sample is taken here; a program that takes more gets rates and states as well.
const INTERVAL: Duration = Duration::from_secs(5);

/// Entries read per second of the interval, where only counting tells how many are ahead of a group.
const COUNT_BUDGET: u64 = 20_000;

/// What one sample says of these streams, for all of their groups.
pub async fn sample(url: &str, streams: &[&str]) -> Result<Vec<StreamSnapshot>, Box<dyn Error>> {
    let streams: Vec<StreamKey> = streams.iter().map(|name| (*name).into()).collect();
    let groups = GroupSelection::new(vec!["*".to_owned()]);
    let sampling = SamplingConfig::of(streams.clone(), groups.clone(), INTERVAL, COUNT_BUDGET);
    let windows = Windows {
        window: Duration::from_secs(150),
        samples: 30,
        dead_after: Duration::from_secs(300),
        drain_target: Duration::from_secs(60),
    };
    // Two halves: the source asks Redis, the assessor says what the answers mean. Keep both for the next sample.
    let mut source = Standalone::new(streamlag::config::endpoint(url)?, sampling, RedisCommands::default());
    let mut assessor = Assessor::new(streams, groups, windows, Bounds::default());
    let taken = source.sample(Duration::from_secs(5)).await?;
    Ok(assessor.assess(taken, Duration::ZERO).streams)
}

/// A line per group, or per stream that cannot be read.
pub fn lines(streams: &[StreamSnapshot]) -> Vec<String> {
    let mut lines = Vec::new();
    for stream in streams {
        if let Err(error) = &stream.read {
            lines.push(format!("{}: {error}", stream.key));
        }
        for group in &stream.groups {
            if let Some(present) = group.present() {
                let (lag, quality) = (present.lag, present.lag.quality().as_str());
                lines.push(format!(
                    "{} {}: {} to {} entries behind, {quality}",
                    stream.key, group.name, lag.min, lag.max
                ));
            }
        }
    }
    lines
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let url = arguments.next().unwrap_or_else(|| "redis://localhost:6379".to_owned());
    let streams: Vec<String> = arguments.collect();
    let streams: Vec<&str> = streams.iter().map(String::as_str).collect();
    for line in lines(&sample(&url, &streams).await?) {
        writeln!(std::io::stdout(), "{line}")?;
    }
    Ok(())
}
