//! Braces in the definition of a logical stream, as shells have them: `{0..63}`, `{00..63}` and `{eu,us}` stand for several
//! texts. Braces without a range or a comma in them are meant: Redis's hash tags are written so. Hence `orders:{{0..2}}`
//! is `orders:{0}`, `orders:{1}` and `orders:{2}`. A backslash before a character means that character.

use crate::analysis::logical::LogicalProblem;

/// Partitions of one logical stream at most: each is a stream to sample, and a process samples some ten thousand well.
pub const MAX_PARTITIONS: usize = 10_000;

/// How deep braces may be nested. People write two; the expansion calls itself.
pub const MAX_NESTING: usize = 8;

/// What all names of one definition may take together: 400 bytes each at the most partitions, more than any keys need.
pub const MAX_EXPANDED_BYTES: usize = 4 * 1024 * 1024;

/// Every text that `text` stands for, in order. Backslashes stay where they are.
pub(in crate::analysis) fn expand(text: &str) -> Result<Vec<String>, LogicalProblem> {
    Braces { whole: text }.expand(text, 0)
}

struct Braces<'a> {
    /// What the operator wrote, for saying what is wrong with it.
    whole: &'a str,
}

impl Braces<'_> {
    fn expand(&self, text: &str, depth: usize) -> Result<Vec<String>, LogicalProblem> {
        if depth > MAX_NESTING {
            return Err(LogicalProblem::Nesting(self.whole.to_owned()));
        }
        let mut expanded = vec![String::new()];
        let mut rest = text;
        while let Some((open, ..)) = marks(rest).find(|(_, mark, _)| *mark == '{') {
            let (before, inner) = (&rest[..open], &rest[open + 1..]);
            let (close, ..) = marks(inner)
                .find(|(_, mark, depth)| *mark == '}' && *depth == 0)
                .ok_or_else(|| LogicalProblem::Unclosed(self.whole.to_owned()))?;
            let choices = self.choices(&inner[..close], depth)?;
            expanded = self.combined(expanded, before, &choices)?;
            rest = &inner[close + 1..];
        }
        self.combined(expanded, rest, &[String::new()])
    }

    /// What a pair of braces with this between them stands for.
    fn choices(&self, body: &str, depth: usize) -> Result<Vec<String>, LogicalProblem> {
        let mut commas = commas_outside(body).peekable();
        if commas.peek().is_none() {
            return match body.split_once("..").filter(|_| marks(body).next().is_none()) {
                Some((low, high)) => self.range(low, high),
                None => Ok(self.expand(body, depth + 1)?.iter().map(|text| format!("{{{text}}}")).collect()),
            };
        }
        let mut choices = Vec::new();
        let mut from = 0;
        for end in commas.chain([body.len()]) {
            choices.extend(self.expand(&body[from..end], depth + 1)?);
            from = end + 1;
            if choices.len() > MAX_PARTITIONS {
                return Err(self.too_many());
            }
        }
        Ok(choices)
    }

    /// The numbers from `low` to `high`, as wide as the wider of the two where one has a zero in front.
    fn range(&self, low: &str, high: &str) -> Result<Vec<String>, LogicalProblem> {
        let number = |digits: &str| {
            let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
            plain.then(|| digits.parse::<u64>().ok()).flatten()
        };
        let bounds = number(low).zip(number(high)).filter(|(from, to)| from <= to);
        let Some((from, to)) = bounds else { return Err(LogicalProblem::Range(format!("{{{low}..{high}}}"))) };
        if to - from >= MAX_PARTITIONS as u64 {
            return Err(self.too_many());
        }
        let padded = |digits: &str| digits.len() > 1 && digits.starts_with('0');
        let width = if padded(low) || padded(high) { low.len().max(high.len()) } else { 0 };
        // The format's width has 16 bits.
        let width = width.min(usize::from(u16::MAX));
        Ok((from..=to).map(|number| format!("{number:0width$}")).collect())
    }

    /// Each of these texts, with each of the choices behind it.
    fn combined(
        &self,
        mut texts: Vec<String>,
        between: &str,
        choices: &[String],
    ) -> Result<Vec<String>, LogicalProblem> {
        let count = texts.len().saturating_mul(choices.len());
        let length = |texts: &[String]| texts.iter().map(String::len).sum::<usize>();
        let bytes = length(&texts)
            .saturating_mul(choices.len())
            .saturating_add(length(choices).saturating_mul(texts.len()))
            .saturating_add(between.len().saturating_mul(count));
        if count > MAX_PARTITIONS || bytes > MAX_EXPANDED_BYTES {
            return Err(self.too_many());
        }
        // In place where there is one choice, or a text of many braces would be copied as often.
        if let [choice] = choices {
            for text in &mut texts {
                text.push_str(between);
                text.push_str(choice);
            }
            return Ok(texts);
        }
        let mut combined = Vec::with_capacity(count);
        for text in &texts {
            combined.extend(choices.iter().map(|choice| format!("{text}{between}{choice}")));
        }
        Ok(combined)
    }

    fn too_many(&self) -> LogicalProblem {
        LogicalProblem::Partitions(self.whole.to_owned())
    }
}

/// The braces and commas of a text that have no backslash before them: where, which, and how many braces are open there.
fn marks(text: &str) -> impl Iterator<Item = (usize, char, usize)> {
    let mut depth = 0_usize;
    let mut escaped = false;
    text.char_indices().filter_map(move |(at, c)| {
        if std::mem::take(&mut escaped) {
            return None;
        }
        match c {
            '\\' => {
                escaped = true;
                None
            }
            '{' => {
                depth += 1;
                Some((at, c, depth - 1))
            }
            '}' => {
                let pairs = depth;
                depth = depth.saturating_sub(1);
                Some((at, c, pairs))
            }
            ',' => Some((at, c, depth)),
            _ => None,
        }
    })
}

/// Where the commas are that are in no braces.
pub(in crate::analysis) fn commas_outside(text: &str) -> impl Iterator<Item = usize> {
    marks(text).filter(|(_, mark, depth)| *mark == ',' && *depth == 0).map(|(at, ..)| at)
}
