//! A plan in words.

use super::{Plan, PlanSubject};

impl Plan {
    /// What it would do.
    #[must_use]
    pub fn what(&self) -> String {
        let (stream, group) = (&self.stream, &self.group);
        match &self.subject {
            PlanSubject::Consumer { name, to: None, .. } => {
                format!("delete consumer {name} of group {group} of {stream}")
            }
            PlanSubject::Consumer { name, pending, to: Some(to), .. } => format!(
                "hand {} of {name}'s {pending} pending entries in group {group} of {stream} to {to}, with their idle time and \
                 deliveries",
                self.entries.min(*pending)
            ),
            PlanSubject::Ghosts { count } => {
                let entries = self.entries.min(*count);
                format!("acknowledge {entries} pending entries of group {group} of {stream} whose payload is gone")
            }
            PlanSubject::Entry { id, .. } => {
                let to = self.dead_letter.as_ref().map(|to| to.stream.to_string()).unwrap_or_default();
                format!("copy entry {id} of {stream} to {to} and acknowledge it in group {group}")
            }
            PlanSubject::Group { .. } => format!("call the webhook for group {group} of {stream}"),
        }
    }

    /// Why.
    #[must_use]
    pub fn why(&self) -> String {
        match &self.subject {
            PlanSubject::Consumer { name, pending, idle_ms, .. } => format!(
                "{name} did nothing for {} s though there was something to do, holds {pending} entries, and was seen so twice",
                idle_ms / 1000
            ),
            PlanSubject::Ghosts { count } => {
                format!("{count} pending entries or more are not in the stream any more: nobody can process them")
            }
            PlanSubject::Entry { id, owner, deliveries } => {
                format!("{id} was delivered {deliveries} times, last to {owner}, and not acknowledged")
            }
            PlanSubject::Group { state, dead } => {
                format!("the group is {}; dead consumers that hold entries: {dead}", state.as_str())
            }
        }
    }

    /// What it would change.
    #[must_use]
    pub fn changes(&self) -> &'static str {
        match &self.subject {
            PlanSubject::Consumer { to: None, .. } => "the list of consumers",
            PlanSubject::Consumer { .. } => "who holds the entries",
            PlanSubject::Ghosts { .. } => "the list of pending entries",
            PlanSubject::Entry { .. } => "the list of pending entries; the other stream gets one entry",
            PlanSubject::Group { .. } => "nothing in Redis",
        }
    }

    /// What it would not change.
    #[must_use]
    pub fn keeps(&self) -> &'static str {
        match &self.subject {
            PlanSubject::Consumer { to: None, .. } => {
                "entries, cursor, pending entries; a consumer that comes back is made again by its next read"
            }
            PlanSubject::Consumer { .. } => "entries, cursor, idle times, numbers of deliveries",
            PlanSubject::Ghosts { .. } => "entries, cursor, pending entries with a payload",
            PlanSubject::Entry { .. } => "the entry in its own stream, the cursor, other groups",
            PlanSubject::Group { .. } => "everything in Redis",
        }
    }
}
