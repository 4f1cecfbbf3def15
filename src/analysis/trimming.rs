//! Whether trimming spares what has not been delivered yet. Pure: the time is an argument.
//!
//! `XTRIM … ACKED` (Redis 8.2) removes only what every group was given and acknowledged. So does, on any server, an application that
//! trims up to the lowest cursor. Such trimming comes as near to the undelivered entries as can be, and never takes one: how near it
//! is says nothing then.

use std::time::Duration;

use crate::analysis::window::Windows;
use crate::model::EntryId;
use crate::model::lag::Continuity;
use crate::model::sample::{GroupSample, StreamSample};

/// What trimming has done lately.
#[derive(Debug, Default)]
pub struct Trimming {
    /// Entries removed, first entry and highest deleted id at the newest sample.
    last: Option<(u64, Option<EntryId>, Option<EntryId>)>,
    /// Since when every removal has spared what was not delivered.
    sparing_since: Option<Duration>,
    /// When entries were last removed.
    removed_at: Option<Duration>,
    /// When a removal left a hole behind the first entry, as only a trim that spares does.
    hole_at: Option<Duration>,
}

impl Trimming {
    /// Takes a sample with all groups of the stream; `lost` where some group lost entries since the one before. Whether trimming spares
    /// what is not delivered.
    ///
    /// It does where entries were removed behind the first one, which neither moved nor was passed by a deletion: within the window, and
    /// nothing else was removed since. Or where, for a whole window, nothing was left below the lowest cursor after each removal
    /// but what is pending, and yet nothing was lost: trimming follows that cursor.
    pub fn take(
        &mut self,
        stream: &StreamSample,
        groups: &[GroupSample],
        lost: bool,
        at: Duration,
        windows: &Windows,
    ) -> bool {
        if stream.continuity != Continuity::Continuous {
            *self = Self::default();
        }
        let Some(removed) = stream.reply.entries_added.and_then(|added| added.checked_sub(stream.reply.length)) else {
            return false;
        };
        let now = (removed, stream.reply.first, stream.reply.max_deleted);
        let Some(before) = self.last.replace(now) else { return false };
        if removed > before.0 {
            self.removed_at = Some(at);
            let lowest = groups.iter().min_by_key(|group| group.last_delivered);
            let behind_the_first = (now.1, now.2) == (before.1, before.2)
                && lowest.zip(stream.reply.first).is_some_and(|(lowest, first)| first <= lowest.last_delivered);
            // A plain trim does not spare pending entries either: then some are older than the first entry.
            let spared = |group: &&GroupSample| group.oldest_pending >= stream.reply.first;
            let ghosts = groups.iter().any(|group| group.oldest_pending.is_some() && !spared(&group));
            let pending = groups.iter().filter(spared).map(|group| group.pending).fold(0, u64::saturating_add);
            let left_only_pending = lowest
                .and_then(|lowest| lowest.resolved)
                .is_some_and(|resolved| !ghosts && stream.reply.length.saturating_sub(resolved.lag.min) <= pending);
            if behind_the_first && !lost {
                self.hole_at = Some(at);
            }
            if !lost && (behind_the_first || left_only_pending) {
                self.sparing_since.get_or_insert(at);
            } else {
                (self.sparing_since, self.hole_at) = (None, None);
            }
        }
        let in_window = |when: Option<Duration>| when.is_some_and(|when| at.saturating_sub(when) < windows.window);
        let for_a_window = self.sparing_since.is_some_and(|since| at.saturating_sub(since) >= windows.window);
        in_window(self.hole_at) || (for_a_window && in_window(self.removed_at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::snapshot::tests::WINDOWS;
    use crate::model::lag::Lag;
    use crate::model::lag::Resolved;
    use crate::model::reply::StreamReply;

    fn id(ms: u64) -> EntryId {
        EntryId { ms, seq: 0 }
    }

    /// A stream to which 1000 entries were added, of which this many are there from `first` on, and a group at `cursor`.
    fn sample(length: u64, first: u64, cursor: u64, pending: u64, lag: u64) -> (StreamSample, Vec<GroupSample>) {
        let stream = StreamSample {
            reply: StreamReply {
                length,
                first: Some(id(first)),
                max_deleted: Some(id(0)),
                entries_added: Some(1000),
                ..StreamReply::default()
            },
            continuity: Continuity::Continuous,
            ..StreamSample::default()
        };
        let resolved = Some(Resolved { lag: Lag { min: lag, max: lag, point: lag }, ..Resolved::default() });
        let group = GroupSample { last_delivered: id(cursor), pending, resolved, ..GroupSample::default() };
        (stream, vec![group])
    }

    /// One sample every ten seconds; the answer after each.
    fn spares(samples: impl IntoIterator<Item = (StreamSample, Vec<GroupSample>)>) -> Vec<bool> {
        let mut trimming = Trimming::default();
        let take = |(place, (stream, groups)): (usize, (StreamSample, Vec<GroupSample>))| {
            trimming.take(&stream, &groups, false, Duration::from_secs(10 * place as u64), &WINDOWS)
        };
        samples.into_iter().enumerate().map(take).collect()
    }

    #[test]
    fn a_hole_behind_the_first_entry_proves_it_for_a_window() {
        let (before, hole) = (|| sample(900, 1, 500, 9, 500), || sample(890, 1, 500, 9, 500));
        assert_eq!(spares([before(), hole(), hole(), hole(), hole()]), [false, true, true, true, false]);
        // The first entry went as well: a plain trim may have done that.
        assert_eq!(spares([before(), sample(890, 11, 500, 9, 500)]), [false, false]);
        assert_eq!(spares([before(), hole(), sample(880, 11, 500, 9, 500)]), [false, true, false]);
        // A hole where the group has not been yet.
        assert_eq!(spares([sample(900, 501, 400, 9, 900), sample(890, 501, 400, 9, 890)]), [false, false]);
    }

    #[test]
    fn trimming_that_follows_the_cursor_for_a_window() {
        let following = |step: u64| sample(500 - 10 * step, 501 + 10 * step, 500 + 10 * step, 0, 500 - 10 * step);
        assert_eq!(spares((0..6).map(following)), [false, false, false, false, true, true]);
        // Entries are left that no group needs: it does not follow the cursor, it only has not come that far.
        let coming = |step: u64| sample(700 - 10 * step, 301 + 10 * step, 500, 0, 500);
        assert_eq!(spares((0..6).map(coming)), [false; 6]);
    }

    #[test]
    fn so_do_pending_entries_without_payload() {
        let hugging = |oldest: u64, step: u64| {
            let (stream, mut groups) = sample(500 - 10 * step, 401 + 10 * step, 500 + 10 * step, 100, 400 - 10 * step);
            groups[0].oldest_pending = Some(id(oldest + 10 * step));
            (stream, groups)
        };
        assert_eq!(spares((0..6).map(|step| hugging(401, step))), [false, false, false, false, true, true]);
        assert_eq!(spares((0..6).map(|step| hugging(400, step))), [false; 6]);
    }

    #[test]
    fn a_loss_disproves_it() {
        let mut trimming = Trimming::default();
        let mut take = |length, lost, at| {
            let (stream, groups) = sample(length, 1001 - length, 100, 0, length);
            trimming.take(&stream, &groups, lost, Duration::from_secs(at), &WINDOWS)
        };
        assert!(!take(500, false, 0) && !take(490, true, 10) && !take(480, true, 50) && !take(470, true, 100));
    }
}
