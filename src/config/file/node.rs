//! A piece of the file: YAML with the lines of its keys, from which serde makes the typed sections.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Range;

use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{self, Deserialize, DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, SeqAccess, Visitor};
use serde::forward_to_deserialize_any;
use serde_saphyr::{Error, Options, Spanned};

/// The keys of a mapping with what is behind them, in order.
pub(super) type Entries = Vec<(Spanned<String>, YamlNode)>;

/// A piece of the file. Scalars are kept as text: what they must be is the setting's business.
pub(super) enum YamlNode {
    Empty,
    Value(String),
    /// A value that YAML takes for a number or a truth value, as YAML prints it, and where it stands. [`YamlNode::parse`] leaves none.
    Typed(String, Range<usize>),
    List(Vec<YamlNode>),
    Map(Entries),
}

impl YamlNode {
    /// Reads a text. Values without quotes are as they are written: a group `007` is not the group `7`, and `on` is not `true`.
    pub(super) fn parse(text: &str, options: Options) -> Result<Self, Box<Error>> {
        let mut node: Self = serde_saphyr::from_str_with_options(text, options)?;
        node.as_written(text);
        Ok(node)
    }

    fn as_written(&mut self, text: &str) {
        match self {
            Self::Typed(value, range) => {
                let written = text.get(range.clone()).map(str::trim).filter(|written| is_the_same(written, value));
                let value = written.map_or_else(|| std::mem::take(value), str::to_owned);
                *self = Self::Value(value);
            }
            Self::List(nodes) => nodes.iter_mut().for_each(|node| node.as_written(text)),
            Self::Map(entries) => entries.iter_mut().for_each(|(_, node)| node.as_written(text)),
            Self::Empty | Self::Value(_) => {}
        }
    }

    /// The same, standing there.
    fn at(spanned: Spanned<Self>) -> Self {
        let span = spanned.defined.span();
        match (spanned.value, span.byte_offset(), span.byte_len()) {
            (Self::Typed(value, _), Some(offset), Some(len)) => {
                let offset = usize::try_from(offset).unwrap_or(usize::MAX);
                Self::Typed(value, offset..offset.saturating_add(usize::try_from(len).unwrap_or(usize::MAX)))
            }
            (node, ..) => node,
        }
    }

    fn value(&self) -> Option<&str> {
        if let Self::Value(value) = self { Some(value) } else { None }
    }

    /// Its plain values; `None` where it is nothing, a mapping, or a list of other things than values.
    pub(super) fn values(&self) -> Option<Vec<&str>> {
        match self {
            Self::Value(value) => Some(vec![value]),
            Self::List(nodes) => nodes.iter().map(Self::value).collect(),
            Self::Empty | Self::Typed(..) | Self::Map(_) => None,
        }
    }
}

impl<'de> Deserialize<'de> for YamlNode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(YamlVisitor)
    }
}

/// Whether this text is that value. Where it is not, the value has a tag, and is what the tag makes of it.
fn is_the_same(written: &str, value: &str) -> bool {
    matches!(serde_saphyr::from_str(written), Ok(YamlNode::Typed(read, _)) if read == value)
}

/// What YAML takes for a number or a truth value. Where it stands, its parent knows.
fn typed<E>(value: impl fmt::Display) -> Result<YamlNode, E> {
    Ok(YamlNode::Typed(value.to_string(), 0..0))
}

struct YamlVisitor;

impl<'de> Visitor<'de> for YamlVisitor {
    type Value = YamlNode;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value, a list of values or a mapping")
    }

    fn visit_unit<E>(self) -> Result<YamlNode, E> {
        Ok(YamlNode::Empty)
    }

    fn visit_bool<E>(self, value: bool) -> Result<YamlNode, E> {
        typed(value)
    }

    fn visit_i64<E>(self, value: i64) -> Result<YamlNode, E> {
        typed(value)
    }

    fn visit_u64<E>(self, value: u64) -> Result<YamlNode, E> {
        typed(value)
    }

    fn visit_f64<E>(self, value: f64) -> Result<YamlNode, E> {
        typed(value)
    }

    fn visit_str<E>(self, value: &str) -> Result<YamlNode, E> {
        Ok(YamlNode::Value(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<YamlNode, A::Error> {
        let mut values = Vec::new();
        while let Some(node) = seq.next_element()? {
            values.push(YamlNode::at(node));
        }
        Ok(YamlNode::List(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<YamlNode, A::Error> {
        let mut entries = Vec::new();
        while let Some((key, node)) = map.next_entry()? {
            entries.push((key, YamlNode::at(node)));
        }
        Ok(YamlNode::Map(entries))
    }
}

/// A value of a section, and the line of its key.
#[derive(Clone, Debug)]
pub(crate) struct Given {
    pub(in crate::config) line: u64,
    pub(in crate::config) value: String,
}

/// The line does not count: what has only moved is not another configuration.
impl Hash for Given {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.value.hash(state);
    }
}

impl<'de> Deserialize<'de> for Given {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let [(line, value)] = <[(u64, String); 1]>::deserialize(deserializer)?;
        Ok(Self { line, value })
    }
}

/// A typed section, made of the entries of a mapping that begins in this line.
pub(super) fn section<T: for<'de> Deserialize<'de>>(entries: Entries, line: u64) -> Result<T, Misfit> {
    T::deserialize(Piece { node: YamlNode::Map(entries), line, is_item: false })
}

/// The same of an item of a list, which has no keys without a value.
pub(super) fn item<T: for<'de> Deserialize<'de>>(entries: Entries, line: u64) -> Result<T, Misfit> {
    T::deserialize(Piece { node: YamlNode::Map(entries), line, is_item: true })
}

/// Where a section is not as its type has it.
#[derive(Debug, thiserror::Error)]
#[error("{what:?} at {path:?} in line {line}")]
pub(super) struct Misfit {
    /// The keys that lead there.
    pub(super) path: Vec<String>,
    pub(super) line: u64,
    pub(super) what: Mismatch,
}

#[derive(Debug)]
pub(super) enum Mismatch {
    /// There is no such key, but these.
    Unknown(&'static [&'static str]),
    Twice,
    Missing,
    /// A value where a list belongs, or the other way round; with the values of a list where one value belongs.
    Shape(Option<String>),
}

impl Misfit {
    fn new(what: Mismatch) -> Self {
        Self { path: Vec::new(), line: 0, what }
    }

    fn at(self, line: u64) -> Self {
        if self.line == 0 { Self { line, ..self } } else { self }
    }
}

impl de::Error for Misfit {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self::new(Mismatch::Shape(None))
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        Self { path: vec![field.to_owned()], ..Self::new(Mismatch::Unknown(expected)) }
    }

    fn duplicate_field(field: &'static str) -> Self {
        Self { path: vec![field.to_owned()], ..Self::new(Mismatch::Twice) }
    }

    fn missing_field(field: &'static str) -> Self {
        Self { path: vec![field.to_owned()], ..Self::new(Mismatch::Missing) }
    }
}

/// What is behind the key of a line.
struct Piece {
    node: YamlNode,
    line: u64,
    is_item: bool,
}

impl<'de> IntoDeserializer<'de, Misfit> for Piece {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de> Deserializer<'de> for Piece {
    type Error = Misfit;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        let Self { node, line, .. } = self;
        match node {
            YamlNode::Empty => visitor.visit_unit(),
            YamlNode::Value(value) | YamlNode::Typed(value, _) => visitor.visit_string(value),
            YamlNode::List(nodes) => {
                let items = nodes.into_iter().map(|node| Self { node, line, is_item: true });
                visitor.visit_seq(SeqDeserializer::new(items))
            }
            YamlNode::Map(entries) => {
                visitor.visit_map(MappingEntries { entries: entries.into_iter(), next: None, line })
            }
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        visitor.visit_some(self)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Misfit> {
        let YamlNode::Map(mut entries) = self.node else { return Err(Misfit::new(Mismatch::Shape(None))) };
        for (key, _) in &mut entries {
            key.value = key.value.replace('-', "_");
        }
        // No value is as good as no key; but a slip is a slip.
        entries.retain(|(key, node)| {
            self.is_item || !matches!(node, YamlNode::Empty) || !fields.contains(&key.value.as_str())
        });
        let begins = entries.first().map_or(self.line, |(key, _)| key.referenced.line());
        let mut pieces = MappingEntries { entries: entries.into_iter(), next: None, line: begins };
        visitor.visit_map(&mut pieces).map_err(|misfit| match misfit.what {
            Mismatch::Missing => misfit.at(begins),
            _ => misfit.at(pieces.line),
        })
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Misfit> {
        // A list of one value is that value.
        match self.node.values().as_deref() {
            Some(&[value]) => visitor.visit_seq(MapDeserializer::new(std::iter::once((self.line, value)))),
            values => Err(Misfit::new(Mismatch::Shape(values.map(|values| values.join(","))))),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf
        unit unit_struct newtype_struct seq map tuple_struct enum ignored_any identifier
    }
}

/// The entries of a mapping.
struct MappingEntries {
    entries: std::vec::IntoIter<(Spanned<String>, YamlNode)>,
    next: Option<(String, YamlNode)>,
    /// Of the last key.
    line: u64,
}

impl<'de> MapAccess<'de> for MappingEntries {
    type Error = Misfit;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Misfit> {
        let Some((key, node)) = self.entries.next() else { return Ok(None) };
        self.line = key.referenced.line();
        self.next = Some((key.value.clone(), node));
        seed.deserialize(key.value.into_deserializer()).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Misfit> {
        let (key, node) = self.next.take().unwrap_or((String::new(), YamlNode::Empty));
        seed.deserialize(Piece { node, line: self.line, is_item: false }).map_err(|mut misfit| {
            misfit.path.insert(0, key);
            misfit.at(self.line)
        })
    }
}
