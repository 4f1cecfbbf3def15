//! The scalers that the configuration declares.

use std::collections::BTreeMap;

use crate::analysis::scaling::Scaler;
use crate::model::TargetName;

/// A scaler and the target whose streams it is about.
#[derive(Clone, Debug, PartialEq)]
pub struct DeclaredScaler {
    /// The target.
    pub redis_target: TargetName,
    /// What is scaled, and by what.
    pub scaler: Scaler,
}

/// Every declared scaler by its name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scalers(BTreeMap<String, DeclaredScaler>);

impl Scalers {
    /// The one of this name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&DeclaredScaler> {
        self.0.get(name)
    }
}

impl FromIterator<(String, DeclaredScaler)> for Scalers {
    fn from_iter<I: IntoIterator<Item = (String, DeclaredScaler)>>(scalers: I) -> Self {
        Self(scalers.into_iter().collect())
    }
}
