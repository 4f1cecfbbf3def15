//! Completes a stream's sample once everything about it has been read. Pure.

use crate::analysis::lag::lowest_needed;
use crate::collector::stream_state::StreamState;
use crate::model::GroupSelection;
use crate::model::lag::Lag;
use crate::model::lag::Resolved;
use crate::model::sample::{GroupSample, SafeToTrim, StreamSample};

/// The monitored groups of a stream, each with its place in the sample; without those whose cursor is not known, of which nothing
/// can be remembered.
pub(super) fn monitored(stream: &StreamSample) -> impl Iterator<Item = (usize, &GroupSample)> + Clone {
    stream.groups.iter().enumerate().filter(|(_, group)| group.monitored && !group.unknown.last_delivered)
}

/// Says which groups are monitored: those that are named, then others in their order, up to the limit.
pub(super) fn mark_monitored(stream: &mut StreamSample, selection: &GroupSelection, limit: usize) {
    let mut selected = 0;
    for group in &mut stream.groups {
        group.monitored = selection.contains(&group.name);
        selected += usize::from(group.monitored);
    }
    if selected <= limit {
        return;
    }
    stream.groups_left_out = (selected - limit) as u64;
    let is_named = |group: &GroupSample| selection.literals().contains(&group.name);
    let named = stream.groups.iter().filter(|group| group.monitored && is_named(group)).count().min(limit);
    let (mut of_named, mut of_others) = (named, limit - named);
    for group in stream.groups.iter_mut().filter(|group| group.monitored) {
        let left = if is_named(group) { &mut of_named } else { &mut of_others };
        group.monitored = *left > 0;
        *left = left.saturating_sub(1);
    }
}

/// Up to where all groups have acknowledged everything.
fn safe_to_trim(state: &mut StreamState, stream: &StreamSample) -> Option<Box<SafeToTrim>> {
    let (id, held_by) = lowest_needed(&stream.groups).filter(|_| !stream.ends_unknown)?;
    let reclaimable = state.tracker.below_held(stream, id).unwrap_or(0);
    Some(Box::new(SafeToTrim { id, held_by: held_by.clone(), reclaimable }))
}

/// Resolves the lags of a stream that was read, and keeps what the next sample needs.
pub(super) fn settle(state: &mut StreamState, at: usize, stream: &mut StreamSample) {
    let within_length = Resolved { lag: Lag::within_length(stream.length), ..Resolved::default() };
    if stream.carried {
        for group in &mut stream.groups {
            group.resolved = Some(within_length);
        }
        return;
    }
    let mut groups = std::mem::take(&mut stream.groups);
    for group in groups.iter_mut().filter(|group| group.monitored) {
        let known = !stream.ends_unknown && !group.unknown.last_delivered;
        group.resolved = if known { state.tracker.resolve(stream, group) } else { Some(within_length) };
    }
    stream.groups = groups;
    stream.safe_to_trim = safe_to_trim(state, stream);
    stream.may_be_carried = state.is_large() && !stream.ends_unknown;
    state.keep(at, stream);
    state.kept = stream.may_be_carried.then(|| stream.clone());
}
