//! Parses YAML text into a tree, and finds the line and column of a value.
//!
//! This is the only file that uses the parser. The parser's values carry no positions, but its
//! errors do. So after a mistake the text is read once more, and the parser is made to fail just
//! before each value whose position is needed. Both readings use the same code, so they count
//! values alike.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::de::{DeserializeSeed, EnumAccess, MapAccess, SeqAccess, Visitor};

use super::fault::{Fault, Position};
use super::node::{Element, Entry, Fits, Node, Origin, Text, Value};
use super::syntax;
use super::{MAX_DEPTH, MAX_VALUES};
use crate::config::code::Code;

/// Parses the only document in `text`; `file` becomes part of every value's [`Origin`]. An empty
/// text is null.
///
/// # Errors
/// The first fault in the text.
pub(super) fn parse(text: &str, file: usize) -> Result<Node, Fault> {
    let mut documents = serde_yaml::Deserializer::from_str(text);
    let mut census = Census::new(file);
    let Some(document) = documents.next() else {
        return Ok(Node::new(Origin { file, ordinal: 0 }, Value::Null));
    };
    let node = Reader(&mut census)
        .deserialize(document)
        .map_err(|error| fault(text, &error, census.refusal.take()))?;
    let Some(second) = documents.next() else { return Ok(node) };
    let message = "a second document begins here".to_owned();
    Err(Fault::new(beginning(second), Code::SecondDocument, message))
}

/// The positions of the values with these ordinals. A mapping in block style begins at its first
/// key.
pub(super) fn locate(text: &str, sought: BTreeSet<usize>) -> BTreeMap<usize, Position> {
    let document = || serde_yaml::Deserializer::from_str(text).next();
    let mut census = Census::new(0);
    if sought.contains(&0) {
        census.found.extend(document().map(|document| (0, beginning(document))));
    }
    if sought.last().is_some_and(|last| *last > 0)
        && let Some(document) = document()
    {
        census.sought = sought;
        // A value that is not found is reported at the start of the file.
        let _ = Reader(&mut census).deserialize(document);
    }
    census.found
}

/// Counts values as they are read, notes the positions that are sought, and enforces the limits.
struct Census {
    file: usize,
    count: usize,
    sought: BTreeSet<usize>,
    found: BTreeMap<usize, Position>,
    depth: usize,
    /// The gateway's own reason for refusing: in the parser's error it would be surrounded by other
    /// text.
    refusal: Option<(Code, String)>,
}

impl Census {
    fn new(file: usize) -> Self {
        let (sought, found) = (BTreeSet::new(), BTreeMap::new());
        Census { file, count: 0, sought, found, depth: 0, refusal: None }
    }

    /// Whether the position of the next value or key is sought.
    fn seeks(&self) -> bool {
        self.sought.contains(&self.count)
    }

    /// Must be called within a `visit_*` method: there the parser adds this value's position to an
    /// error.
    fn count<E: serde::de::Error>(&mut self) -> Result<Origin, E> {
        let ordinal = self.count;
        self.count += 1;
        if ordinal >= MAX_VALUES {
            let message = format!("more than {MAX_VALUES} values, aliases expanded");
            return Err(self.refuse(Code::TooManyValues, message));
        }
        Ok(Origin { file: self.file, ordinal })
    }

    fn descend<E: serde::de::Error>(&mut self) -> Result<(), E> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            let message = format!("nested more than {MAX_DEPTH} levels deep");
            return Err(self.refuse(Code::TooDeep, message));
        }
        Ok(())
    }

    fn refuse<E: serde::de::Error>(&mut self, code: Code, why: String) -> E {
        self.refusal = Some((code, why));
        E::custom("refused")
    }
}

struct Reader<'a>(&'a mut Census);

impl<'de> DeserializeSeed<'de> for Reader<'_> {
    type Value = Node;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Reader<'_> {
    fn scalar<E: serde::de::Error>(self, value: Value) -> Result<Node, E> {
        Ok(Node::new(self.0.count()?, value))
    }
}

impl<'de> Visitor<'de> for Reader<'_> {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<Node, E> {
        self.scalar(Value::Null)
    }

    fn visit_none<E: serde::de::Error>(self) -> Result<Node, E> {
        self.scalar(Value::Null)
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<Node, E> {
        self.scalar(Value::Bool(value))
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Node, E> {
        self.scalar(Value::Integer(value.into()))
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Node, E> {
        self.scalar(Value::Integer(value.into()))
    }

    fn visit_i128<E: serde::de::Error>(self, value: i128) -> Result<Node, E> {
        self.scalar(Value::Integer(value))
    }

    fn visit_u128<E: serde::de::Error>(self, value: u128) -> Result<Node, E> {
        // Out of the range of every setting in either case.
        self.scalar(Value::Integer(i128::try_from(value).unwrap_or(i128::MAX)))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Node, E> {
        self.scalar(Value::Float(value))
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Node, E> {
        self.scalar(Value::Text(Text { value: value.to_owned(), origins: Vec::new() }))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Node, A::Error> {
        let origin = self.0.count()?;
        self.0.descend()?;
        let mut elements = Vec::new();
        loop {
            if self.0.seeks() {
                sequence.next_element_seed(Place(&mut *self.0))?;
            }
            let Some(node) = sequence.next_element_seed(Reader(&mut *self.0))? else { break };
            elements.push(Element { index: elements.len(), node });
        }
        self.0.depth -= 1;
        Ok(Node::new(origin, Value::Sequence(elements)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut mapping: A) -> Result<Node, A::Error> {
        let origin = self.0.count()?;
        self.0.descend()?;
        let mut entries = Vec::new();
        loop {
            if self.0.seeks() {
                mapping.next_key_seed(Place(&mut *self.0))?;
            }
            let Some((key, key_origin)) = mapping.next_key_seed(KeyReader(&mut *self.0))? else {
                break;
            };
            if self.0.seeks() {
                mapping.next_value_seed(Place(&mut *self.0))?;
            }
            let node = mapping.next_value_seed(Reader(&mut *self.0))?;
            entries.push(Entry { key, key_origin, node, fits: Fits::not_yet() });
        }
        self.0.depth -= 1;
        Ok(Node::new(origin, Value::Mapping(entries)))
    }

    fn visit_enum<A: EnumAccess<'de>>(self, _: A) -> Result<Node, A::Error> {
        Err(self.0.refuse(Code::YamlTag, "YAML tags (!name) are not supported".to_owned()))
    }
}

/// A key: any scalar, as written, so that `200` and `true` are ordinary names.
struct KeyReader<'a>(&'a mut Census);

impl<'de> DeserializeSeed<'de> for KeyReader<'_> {
    type Value = (String, Origin);

    fn deserialize<D: serde::Deserializer<'de>>(
        self,
        deserializer: D,
    ) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for KeyReader<'_> {
    type Value = (String, Origin);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: serde::de::Error>(self, key: &str) -> Result<Self::Value, E> {
        if matches!(key, "" | "~" | "null" | "Null" | "NULL") {
            let message = "a key must not be empty or null".to_owned();
            return Err(self.0.refuse(Code::YamlEmptyKey, message));
        }
        Ok((key.to_owned(), self.0.count()?))
    }
}

/// Notes where the next value begins, without reading it.
struct Place<'a>(&'a mut Census);

impl<'de> DeserializeSeed<'de> for Place<'_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if let Err(error) = deserializer.deserialize_newtype_struct("", Endless) {
            self.0.found.insert(self.0.count, position_in(&error.to_string()));
        }
        Ok(())
    }
}

/// A newtype nested without end. The parser consumes nothing for the outer ones, so it stops at its
/// recursion limit, with an error that gives its current position.
struct Endless;

impl<'de> Visitor<'de> for Endless {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an end")
    }

    fn visit_newtype_struct<D: serde::Deserializer<'de>>(self, inner: D) -> Result<(), D::Error> {
        inner.deserialize_newtype_struct("", Endless)
    }
}

/// Where a document's outermost value begins.
fn beginning(document: serde_yaml::Deserializer<'_>) -> Position {
    let error = serde::Deserializer::deserialize_newtype_struct(document, "", Endless).err();
    error.as_ref().map_or(Position::START, position_of)
}

/// The position in an error's text, for errors of unknown type. The very start has none.
fn position_in(message: &str) -> Position {
    let place = message.rsplit_once(" at line ").and_then(|(_, place)| {
        let (line, column) = place.split_once(" column ")?;
        Some(Position { line: line.parse().ok()?, column: column.parse().ok()? })
    });
    place.unwrap_or(Position::START)
}

fn position_of(error: &serde_yaml::Error) -> Position {
    error.location().map_or(Position::START, |location| Position {
        line: location.line(),
        column: location.column(),
    })
}

fn fault(text: &str, error: &serde_yaml::Error, refusal: Option<(Code, String)>) -> Fault {
    let position = position_of(error);
    if let Some((code, message)) = refusal {
        return Fault::new(position, code, message);
    }
    let said = error.to_string();
    let limits = [
        ("repetition limit", Code::TooManyValues, "aliases expand to too many values".to_owned()),
        ("recursion limit", Code::TooDeep, format!("nested more than {MAX_DEPTH} levels deep")),
        ("invalid type", Code::YamlKey, "a key must be a string, a number, true or false".into()),
        ("invalid value", Code::YamlTag, "the value does not fit its YAML tag".to_owned()),
    ];
    for (words, code, message) in limits {
        if said.contains(words) {
            return Fault::new(position, code, message);
        }
    }
    // The parser's message without the position, which a diagnostic already shows.
    let place = format!(" at line {} column {}", position.line, position.column);
    syntax::explain(text, position, &said.replacen(&place, "", 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faulty(text: &str) -> (usize, usize, String) {
        let fault = parse(text, 0).err().expect("a fault");
        (fault.position.line, fault.position.column, fault.message)
    }

    #[test]
    fn every_value_is_found_again_where_it_was_written() {
        let text = "a: 1\nb:\n  - x\n  - {c: ü, d: y}\n";
        let Ok(root) = parse(text, 0) else { panic!("valid") };
        let Value::Mapping(entries) = &root.value else { panic!("a mapping") };
        let Value::Sequence(elements) = &entries[1].node.value else { panic!("a list") };
        let Value::Mapping(inner) = &elements[1].node.value else { panic!("a mapping") };
        let at = |origin: Origin| {
            let position = locate(text, BTreeSet::from([origin.ordinal]))[&origin.ordinal];
            (position.line, position.column)
        };
        assert_eq!(at(entries[0].node.origin), (1, 4));
        assert_eq!(at(entries[1].key_origin), (2, 1));
        assert_eq!(at(elements[0].node.origin), (3, 5));
        assert_eq!(at(elements[1].node.origin), (4, 5));
        assert_eq!(at(inner[1].key_origin), (4, 12));
        assert_eq!(at(inner[1].node.origin), (4, 15));
    }

    #[test]
    fn an_aliased_value_is_found_where_it_is_used_and_what_it_holds_at_the_anchor() {
        let text = "a: &x [1]\nb: *x\nc: 2\n";
        let Ok(root) = parse(text, 0) else { panic!("valid") };
        let node = |key| &root.entry(key).expect("an entry").node;
        let line = |node: &Node| {
            locate(text, BTreeSet::from([node.origin.ordinal]))[&node.origin.ordinal].line
        };
        assert_eq!((line(node("a")), line(node("b")), line(node("c"))), (1, 2, 3));
        let Value::Sequence(elements) = &node("b").value else { panic!("a list") };
        assert_eq!(line(&elements[0].node), 1);
    }

    #[test]
    fn all_values_are_found_at_once_as_one_by_one() {
        let text =
            "# first\na: {b: [1, {c: 2}], \"d\": ''}\ne:\n- f: g\n  h: [\n  ]\n- - |\n   i\n";
        let all = locate(text, (0..30).collect());
        let places: Vec<_> = all.values().map(|place| (place.line, place.column)).collect();
        let first = [(2, 1), (2, 1), (2, 4), (2, 5), (2, 8), (2, 9), (2, 12), (2, 13), (2, 16)];
        let second = [(2, 21), (2, 26), (3, 1), (4, 1), (4, 3), (4, 3), (4, 6), (5, 3), (5, 6)];
        assert_eq!(places, [&first[..], &second[..], &[(7, 3), (7, 5)]].concat());
        for (ordinal, position) in &all {
            assert_eq!(locate(text, BTreeSet::from([*ordinal])).get(ordinal), Some(position));
        }
    }

    #[test]
    fn a_syntax_error_has_its_place_once() {
        let (line, column, message) = faulty("a: 1\nb: [1\nc: 2\n");
        assert_eq!((line, column), (2, 4));
        assert_eq!(message, "`[` is opened here and never closed");
        let (_, _, message) = faulty("? a\n: b\n? {c\n");
        assert!(!message.contains(" at line "), "{message}");
    }

    #[test]
    fn an_unquoted_variable_in_braces_gets_a_hint() {
        let (_, _, message) = faulty("a: {url: ${URL}}\n");
        assert!(message.contains("the braces of a variable"), "{message}");
    }

    #[test]
    fn what_we_do_not_take_is_named() {
        assert_eq!(faulty("a: !x 1\n"), (1, 4, "YAML tags (!name) are not supported".into()));
        assert_eq!(faulty("a: 1\n~: 1\n"), (2, 1, "a key must not be empty or null".into()));
        let key = "a key must be a string, a number, true or false";
        assert_eq!(faulty("a: 1\n[b]: 1\n"), (2, 1, key.into()));
        let second = "a second document begins here";
        assert_eq!(faulty("a: 1\n---\nb: 1\n"), (3, 1, second.into()));
    }

    #[test]
    fn nesting_is_bounded() {
        let nested = |levels| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        assert!(parse(&nested(MAX_DEPTH), 0).is_ok());
        let (line, _, message) = faulty(&nested(MAX_DEPTH + 1));
        assert_eq!((line, message.as_str()), (1, "nested more than 64 levels deep"));
    }

    #[test]
    fn aliases_cannot_multiply_without_bound() {
        let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for level in 1..12 {
            let above = format!("*a{}", level - 1);
            text.push_str(&format!("a{level}: &a{level} [{}]\n", [above.as_str(); 10].join(", ")));
        }
        assert_eq!(faulty(&text).2, "aliases expand to too many values");
    }
}
