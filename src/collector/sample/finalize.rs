//! Resolves a stream once everything about it has been read: what the server said becomes a sample. Pure.

use crate::collector::reading::StreamReading;
use crate::collector::stream_state::StreamState;
use crate::model::lag::{Lag, Resolved};
use crate::model::reply::GroupReply;
use crate::model::sample::{GroupSample, SafeToTrim, StreamSample};

/// Resolves the lags of a stream that was read, by a clock that told `now_ms`, and keeps what the next sample needs. `at` is the
/// stream's place.
pub(super) fn resolve(state: &mut StreamState, at: usize, mut reading: StreamReading, now_ms: u64) -> StreamSample {
    if reading.is_partial {
        let groups = reading.groups.into_iter().map(|group| GroupSample::new(group, None)).collect();
        return StreamSample { reply: reading.reply, carried: true, now_ms, groups, ..StreamSample::default() };
    }
    state.keep(at, &reading);
    let may_be_carried = reading.may_be_carried(state.is_large());
    let needed = reading.lowest_needed().filter(|_| !reading.reply.ends_unknown);
    let needed = needed.map(|(id, held_by)| (id, held_by.clone()));
    let within_length = Resolved { lag: Lag::within_length(reading.reply.length), ..Resolved::default() };
    let mut monitored = std::mem::take(&mut reading.monitored).into_iter().peekable();
    let mut groups = Vec::with_capacity(reading.groups.len());
    for (place, mut group) in std::mem::take(&mut reading.groups).into_iter().enumerate() {
        let Some(known) = monitored.next_if(|monitored| monitored.place == place) else {
            groups.push(GroupSample::new(group, None));
            continue;
        };
        let is_known = !reading.reply.ends_unknown && !group.unknown.last_delivered;
        let resolved = if is_known { state.tracker.resolve(&reading.reply, &group) } else { None };
        group = GroupReply {
            ghost_pending: known.ghosts(&group),
            oldest_pending: group.oldest_pending.or(Some(known.known_oldest)),
            ..group
        };
        groups.push(GroupSample::new(group, Some(resolved.unwrap_or(within_length))));
    }
    let safe_to_trim = needed.map(|(id, held_by)| {
        let reclaimable = state.tracker.below_held(&reading.reply, id).unwrap_or(0);
        Box::new(SafeToTrim { id, held_by, reclaimable })
    });
    StreamSample {
        reply: reading.reply,
        carried: false,
        may_be_carried,
        continuity: reading.continuity,
        now_ms,
        safe_to_trim,
        groups_left_out: reading.groups_left_out,
        groups,
    }
}
