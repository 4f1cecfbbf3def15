//! The name of a target: a Redis that is watched, as the operator calls it.

use std::fmt;
use std::sync::Arc;

/// The longest name of a target, in bytes: it is a label in Prometheus, and a word in a query.
pub const MAX_TARGET_NAME_BYTES: usize = 64;

/// The name of a target. Letters, digits, `.`, `_` and `-`, so that it needs no quoting anywhere.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TargetName(Arc<str>);

impl TargetName {
    /// A name, where the text can be one.
    #[must_use]
    pub fn new(name: &str) -> Option<Self> {
        let fits = (1..=MAX_TARGET_NAME_BYTES).contains(&name.len());
        let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
        (fits && plain).then(|| Self(name.into()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The only target of a configuration that names none.
impl Default for TargetName {
    fn default() -> Self {
        Self("default".into())
    }
}

impl fmt::Display for TargetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_need_no_quoting() {
        for good in ["a", "orders-eu.1", "A_b", &"x".repeat(64), TargetName::default().as_str()] {
            assert_eq!(TargetName::new(good).unwrap().as_str(), good);
        }
        for bad in ["", " a", "a b", "a/b", "é", "a\n", "redis://h", &"x".repeat(65)] {
            assert_eq!(TargetName::new(bad), None, "{bad:?}");
        }
    }
}
