//! The targets that there are, as the server knows them.

use std::time::Duration;

use crate::exposition::collectors::Collectors;
use crate::model::thresholds::ThresholdRules;
use crate::model::{GroupSelection, TargetName};
use crate::store::latest::Reader;

/// What the server knows of one target.
#[derive(Clone, Debug)]
pub struct ServedTarget {
    /// What the operator calls it.
    pub name: TargetName,
    /// Where it is, without credentials.
    pub redis: String,
    /// What is there, in a word.
    pub mode: &'static str,
    /// What a lag is called.
    pub thresholds: ThresholdRules,
    /// Which groups are monitored.
    pub selection: GroupSelection,
    /// In what time a group should drain its lag.
    pub drain_target: Duration,
    /// The time between polls.
    pub interval: Duration,
    /// What its metrics page shows of streams.
    pub collectors: Collectors,
    /// Where its snapshots are.
    pub reader: Reader,
}

/// Every target that is declared, in the order of the configuration. What is not here is not to be had: nothing in a
/// request leads to another Redis.
#[derive(Clone, Debug)]
pub struct ServedTargets(Vec<ServedTarget>);

impl ServedTargets {
    /// These targets, of which the first is meant where none is named.
    #[must_use]
    pub fn new(targets: Vec<ServedTarget>) -> Self {
        Self(targets)
    }

    /// The one that is asked for, or is meant where none is named; `None` where there is no such target.
    #[must_use]
    pub fn find(&self, asked: Option<&str>) -> Option<&ServedTarget> {
        match asked {
            Some(name) => self.0.iter().find(|target| target.name.as_str() == name),
            None => self.0.first(),
        }
    }

    /// Whether it is the one that is meant where none is named.
    #[must_use]
    pub fn is_first(&self, target: &ServedTarget) -> bool {
        self.0.first().is_some_and(|first| first.name == target.name)
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &ServedTarget> {
        self.0.iter()
    }
}
