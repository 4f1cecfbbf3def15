//! Redis's own glob dialect, and which groups are monitored.
//!
//! Redis's dialect and no library's: users know it from `KEYS`, and patterns for streams are answered by `SCAN
//! MATCH`, so both must agree. The crates at hand speak the shell's dialect (`[!a]`, `{a,b}`) instead.

use crate::model::GroupName;

/// Whether `text` matches `pattern`: `*`, `?`, `[a-c]`, `[^a]`, and `\` before a character that is meant literally.
///
/// As `stringmatchlen` in Redis's util.c, but linear in memory and bounded in time: a later `*` makes an earlier one's
/// choice final, so one point to go back to is enough.
#[must_use]
pub fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut back: Option<(usize, usize)> = None;
    while t < text.len() {
        if pattern.get(p) == Some(&b'*') {
            p += 1;
            back = Some((p, t));
        } else if let Some(width) = match_one(&pattern[p..], text[t]) {
            p += width;
            t += 1;
        } else if let Some((after_star, from)) = back {
            p = after_star;
            t = from + 1;
            back = Some((after_star, t));
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|&c| c == b'*')
}

/// Matches one byte against the pattern's head; the head's width where it matches.
fn match_one(pattern: &[u8], byte: u8) -> Option<usize> {
    match *pattern.first()? {
        b'?' => Some(1),
        b'\\' if pattern.len() > 1 => (pattern[1] == byte).then_some(2),
        b'[' => {
            let (matched, width) = match_class(pattern, byte);
            matched.then_some(width)
        }
        literal => (literal == byte).then_some(1),
    }
}

/// Matches one byte against a class that begins at `pattern[0]`. A class that is never closed reaches to the end.
fn match_class(pattern: &[u8], byte: u8) -> (bool, usize) {
    let mut i = 1;
    let negated = pattern.get(i) == Some(&b'^');
    i += usize::from(negated);
    let mut matched = false;
    loop {
        match pattern.get(i) {
            None => return (matched != negated, i),
            Some(b']') => return (matched != negated, i + 1),
            Some(b'\\') if i + 1 < pattern.len() => {
                matched |= pattern[i + 1] == byte;
                i += 2;
            }
            Some(&low) if pattern.get(i + 1) == Some(&b'-') && i + 2 < pattern.len() => {
                let high = pattern[i + 2];
                matched |= (low.min(high)..=low.max(high)).contains(&byte);
                i += 3;
            }
            Some(&literal) => {
                matched |= literal == byte;
                i += 1;
            }
        }
    }
}

/// Whether the text means something else to [`matches()`] than itself.
#[must_use]
pub fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?', '[', '\\'])
}

/// Whether any of these names and patterns means `name`.
#[must_use]
pub fn any_matches(entries: &[String], name: &[u8]) -> bool {
    entries.iter().any(|entry| matches(entry.as_bytes(), name))
}

/// The groups to monitor: names, which are reported even where they do not exist, and patterns; less those excluded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupSelection {
    entries: Vec<String>,
    exclude: Vec<String>,
    literals: Vec<GroupName>,
}

impl GroupSelection {
    /// A selection from names and patterns in the order of the configuration.
    #[must_use]
    pub fn new(entries: Vec<String>) -> Self {
        let mut literals: Vec<GroupName> = Vec::new();
        for entry in entries.iter().filter(|entry| !is_pattern(entry)) {
            let name = GroupName::from(entry.as_str());
            if !literals.contains(&name) {
                literals.push(name);
            }
        }
        Self { entries, exclude: Vec::new(), literals }
    }

    /// The same without the groups that these names and patterns mean: not even named ones are monitored then.
    #[must_use]
    pub fn without(mut self, exclude: Vec<String>) -> Self {
        self.exclude.extend(exclude);
        self.literals.retain(|name| !any_matches(&self.exclude, name.as_bytes()));
        self
    }

    /// Whether a group of this name is monitored.
    #[must_use]
    pub fn contains(&self, group: &GroupName) -> bool {
        any_matches(&self.entries, group.as_bytes()) && !any_matches(&self.exclude, group.as_bytes())
    }

    /// The names that are no patterns: monitored whether or not they exist.
    #[must_use]
    pub fn literals(&self) -> &[GroupName] {
        &self.literals
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_are_redis_globs() {
        let check =
            |p: &str, t: &str, expected| assert_eq!(matches(p.as_bytes(), t.as_bytes()), expected, "{p:?} on {t:?}");
        check("*", "", true);
        check("*", "anything", true);
        check("", "", true);
        check("", "a", false);
        check("h?llo", "hello", true);
        check("h?llo", "hllo", false);
        check("h*llo", "heeeello", true);
        check("*a*b*c", "xxaxxbxxc", true);
        check("*a*b*c", "xxaxxbxxcx", false);
        check("h[ae]llo", "hallo", true);
        check("h[ae]llo", "hillo", false);
        check("h[^e]llo", "hallo", true);
        check("h[^e]llo", "hello", false);
        check("h[a-b]llo", "hbllo", true);
        check("h[b-a]llo", "hallo", true);
        check(r"a\*b", "a*b", true);
        check(r"a\*b", "axb", false);
        check(r"[\]]", "]", true);
        check("[a-", "a", true);
        // What opens a class and what negates it are no members.
        check("h[ae]llo", "h[llo", false);
        check("h[^e]llo", "h[llo", true);
        check("h[^e]llo", "h^llo", true);
        check("h[^a-c]llo", "hdllo", true);
        check("h[^a-c]llo", "hbllo", false);
        check("h[a-cx-z]llo", "hyllo", true);
        check("h[a-cx-z]llo", "hdllo", false);
        // At the end it stands for itself.
        check(r"a\", r"a\", true);
        check(r"a\", "a", false);
        check(r"a\", "ab", false);
        check(r"[a\", r"\", true);
        check(r"[a\", "a", true);
        check(r"[a\", "b", false);
        check("orders:[0-9]*", "orders:17", true);
        check(&"*a".repeat(40), &"a".repeat(39), false);
    }

    #[test]
    fn selection_keeps_names_apart_from_patterns() {
        let groups = GroupSelection::new(vec!["billing-*".into(), "mail".into(), "mail".into()]);
        assert_eq!(groups.literals(), [GroupName::from("mail")]);
        assert!(groups.contains(&"billing-eu".into()));
        assert!(groups.contains(&"mail".into()));
        assert!(!groups.contains(&"mails".into()));
    }

    #[test]
    fn excluded_groups_are_not_monitored_whether_named_or_matched() {
        let groups = GroupSelection::new(vec!["mail".into(), "audit".into(), "*".into()])
            .without(vec!["audit".into(), "debug-*".into()]);
        assert_eq!(groups.literals(), [GroupName::from("mail")]);
        for (name, expected) in
            [("mail", true), ("other", true), ("audit", false), ("debug-7", false), ("audits", true)]
        {
            assert_eq!(groups.contains(&name.into()), expected, "{name}");
        }
    }
}
