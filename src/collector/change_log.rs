//! Logs changes: one line each, at most [`LINES_PER_POLL`] of a kind per poll.

use crate::analysis::changes::{Change, GroupStateChange};
use crate::analysis::group_state::GroupState;
use crate::model::names::MAX_NAME_BYTES;

/// Lines of one kind about single streams or groups in one poll. The rest is counted in one more line.
const LINES_PER_POLL: usize = 50;

/// The lines of one poll.
#[derive(Debug, Default)]
pub(super) struct ChangeLog {
    unreadable: LineLimit,
    readable: LineLimit,
    missing: LineLimit,
    found: LineLimit,
    bad_states: LineLimit,
    rewound: LineLimit,
    ended: LineLimit,
}

/// Lines of one kind.
#[derive(Debug, Default)]
struct LineLimit {
    lines: usize,
}

impl LineLimit {
    fn has_room(&mut self) -> bool {
        self.lines += 1;
        self.lines <= LINES_PER_POLL
    }

    /// How many there were beyond the limit.
    fn rest(&self) -> Option<usize> {
        self.lines.checked_sub(LINES_PER_POLL).filter(|more| *more > 0)
    }
}

/// Whether the log tells of a state. `lagging` and `ack_stalled` come and go with the load and with slow handlers.
fn is_logged(state: GroupState) -> bool {
    match state {
        GroupState::Losing | GroupState::Stopped | GroupState::Stalled | GroupState::Rewound => true,
        GroupState::Ok | GroupState::Lagging | GroupState::AckStalled | GroupState::NoGroup => false,
    }
}

fn or_unknown(text: &str) -> &str {
    if text.is_empty() { "unknown" } else { text }
}

impl ChangeLog {
    /// Logs one change.
    pub(super) fn log(&mut self, change: Change<'_>) {
        match change {
            // The reason says what failed: a wrong password is an answer of Redis, too.
            Change::PollFailed(error) => {
                tracing::error!(reason = error.reason.as_str(), error = %error, "poll failed");
            }
            Change::PollRecovered { down } => {
                tracing::info!(down_seconds = down.as_secs_f64(), "poll succeeded again");
            }
            Change::Server(server) => {
                tracing::info!(server = or_unknown(&server.name), version = or_unknown(&server.version), "sampling");
            }
            Change::NodeFailed { address, error, streams } => {
                tracing::error!(node = address, error, streams, "node poll failed");
            }
            Change::NodeRecovered { address } => tracing::info!(node = address, "node poll succeeded again"),
            Change::NodeGone { address } => tracing::info!(node = address, "failed node is no longer a master"),
            Change::StreamUnreadable { stream, error } => {
                if self.unreadable.has_room() {
                    tracing::warn!(stream = %stream, error = %error, "stream read failed");
                }
            }
            Change::StreamReadable { stream } => {
                if self.readable.has_room() {
                    tracing::info!(stream = %stream, "stream read succeeded again");
                }
            }
            Change::GroupMissing { stream, group } => {
                if self.missing.has_room() {
                    tracing::warn!(stream = %stream, consumer_group = %group, "consumer group not found");
                }
            }
            Change::GroupFound { stream, group } => {
                if self.found.has_room() {
                    tracing::info!(stream = %stream, consumer_group = %group, "consumer group found");
                }
            }
            Change::GroupState(change) => self.group_state(&change),
            Change::LongGroupNames { groups } => tracing::warn!(
                groups,
                longest = MAX_NAME_BYTES,
                "group names are too long; skipping their consumers and oldest pending entries"
            ),
            Change::CommandRefused(command) => {
                let (command, without) = command.describe();
                tracing::warn!(command, without, "Redis command refused");
            }
            Change::CommandAllowed(command) => {
                tracing::info!(command = command.describe().0, "Redis command allowed again");
            }
            Change::RoundTripSlow { round_trip, limit } => tracing::warn!(
                round_trip_seconds = round_trip.as_secs_f64(),
                limit_seconds = limit.as_secs_f64(),
                "Redis round trip exceeds the publish timeout"
            ),
            Change::RoundTripNormal { round_trip } => tracing::info!(
                round_trip_seconds = round_trip.as_secs_f64(),
                "Redis round trip is within the publish timeout again"
            ),
            Change::LimitExceeded { limit, left_out } => {
                let (limit, what) = limit.describe();
                tracing::warn!(limit, left_out, "limit exceeded: {what}");
            }
            Change::LimitKept(limit) => tracing::info!(limit = limit.describe().0, "limit no longer exceeded"),
            Change::StreamsDiscovered { new, gone, streams } => {
                tracing::info!(new, gone, streams, "discovered streams changed");
            }
            Change::LogicalStreamEmpty(name) => {
                tracing::warn!(logical_stream = name, "logical stream has no partition with a monitored group");
            }
            Change::LogicalStreamFilled(name) => {
                tracing::info!(logical_stream = name, "logical stream has partitions again");
            }
            Change::IntervalStretched { in_force, configured } => tracing::warn!(
                interval_seconds = milliseconds(in_force),
                wanted_seconds = configured.as_secs_f64(),
                "poll interval stretched to stay within poll.max-redis-share"
            ),
            Change::IntervalRestored { in_force } => {
                tracing::info!(interval_seconds = milliseconds(in_force), "poll interval back to the configured value")
            }
        }
    }

    fn group_state(&mut self, change: &GroupStateChange<'_>) {
        // The fields of each line.
        macro_rules! say {
            ($level:ident, $($message:tt)+) => {
                tracing::$level!(
                    stream = %change.stream,
                    consumer_group = %change.group,
                    state = change.verdict.state.as_str(),
                    reason = %change.verdict,
                    lag = change.lag,
                    lost = change.lost,
                    $($message)+
                )
            };
        }
        if is_logged(change.was) && self.ended.has_room() {
            say!(info, "consumer group is no longer {}", change.was.as_str());
        }
        let limit = match change.verdict.state {
            GroupState::Losing | GroupState::Stopped | GroupState::Stalled => &mut self.bad_states,
            GroupState::Rewound => &mut self.rewound,
            GroupState::Ok | GroupState::Lagging | GroupState::AckStalled | GroupState::NoGroup => return,
        };
        if !limit.has_room() {
            return;
        }
        match change.verdict.state {
            GroupState::Losing => say!(warn, "consumer group is losing entries"),
            GroupState::Stopped => say!(warn, "consumer group stopped reading"),
            GroupState::Stalled => say!(warn, "consumer group stalled: live consumers read nothing new"),
            GroupState::Rewound => say!(info, "consumer group cursor moved back"),
            GroupState::Ok | GroupState::Lagging | GroupState::AckStalled | GroupState::NoGroup => {}
        }
    }

    /// Logs how many lines were left out.
    pub(super) fn end(self) {
        let warnings = [
            (self.unreadable, "more stream reads failed"),
            (self.missing, "more consumer groups not found"),
            (self.bad_states, "more consumer groups are losing, stopped or stalled"),
        ];
        let notes = [
            (self.readable, "more stream reads succeeded again"),
            (self.found, "more consumer groups found"),
            (self.rewound, "more consumer group cursors moved back"),
            (self.ended, "more consumer groups left such a state"),
        ];
        for (limit, what) in warnings {
            if let Some(more) = limit.rest() {
                tracing::warn!(more, "{what}");
            }
        }
        for (limit, what) in notes {
            if let Some(more) = limit.rest() {
                tracing::info!(more, "{what}");
            }
        }
    }
}

/// Seconds to the millisecond: the rest is noise.
fn milliseconds(time: std::time::Duration) -> f64 {
    time.as_millis() as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_poll_logs_a_few_lines_about_single_streams_and_how_many_more_there_are() {
        let mut lines = LineLimit::default();
        assert_eq!((0..1000).filter(|_| lines.has_room()).count(), LINES_PER_POLL);
        assert_eq!(lines.rest(), Some(1000 - LINES_PER_POLL));
    }
}
