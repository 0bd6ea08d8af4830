//! The merged configuration as a tree: each value with the place where it is written, and the
//! references that it was made from.
//!
//! Nothing in this file implements `Debug`, because the values may be secrets.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde_json::Value as Json;

use super::fault::Position;
use super::node::{Entry, Node, Origin, Value};
use super::parse::locate;
use super::path::{KeyPath, Step};
use super::sources::Sources;

/// A value and where it comes from.
pub struct Written {
    /// What was written, with references replaced.
    pub value: Part,
    /// The file and line of the value.
    pub place: (PathBuf, usize),
    /// `${NAME}` without its default, and `${file:path}`. Empty for plain values.
    pub references: Vec<String>,
    /// The path it is written at, if that is one for several things: `defaults.timeout.request`.
    pub default: Option<KeyPath>,
}

/// The value itself.
pub enum Part {
    /// A single value, or nothing.
    Scalar(Json),
    /// A list.
    List(Vec<Written>),
    /// Keys in the order of the files.
    Map(Vec<(String, Written)>),
}

impl Sources {
    /// Everything that is in force, except the gateway's own defaults.
    pub fn written(&self) -> Written {
        let mut sought: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
        collect(self.tree(), &mut sought);
        let mut places = BTreeMap::new();
        for (file, ordinals) in sought {
            for (ordinal, position) in locate(self.text(file), ordinals) {
                places.insert(Origin { file, ordinal }, position);
            }
        }
        self.written_at(self.tree(), &mut KeyPath::root(), &places, false)
    }

    fn written_at(
        &self,
        node: &Node,
        path: &mut KeyPath,
        places: &BTreeMap<Origin, Position>,
        is_default: bool,
    ) -> Written {
        let mut below = |step: Step, node: &Node, is_default: bool| {
            path.push(step);
            let written = self.written_at(node, path, places, is_default);
            path.pop();
            written
        };
        let mut references = Vec::new();
        let value = match &node.value {
            Value::Null => Part::Scalar(Json::Null),
            Value::Bool(value) => Part::Scalar((*value).into()),
            Value::Integer(value) => Part::Scalar(integer(*value)),
            Value::Float(value) => Part::Scalar((*value).into()),
            Value::Text(text) => {
                references.clone_from(&text.origins);
                Part::Scalar(text.value.as_str().into())
            }
            Value::Sequence(elements) => {
                let parts =
                    elements.iter().map(|e| below(Step::Index(e.index), &e.node, is_default));
                Part::List(parts.collect())
            }
            Value::Mapping(_) => {
                let own = node.own_entries();
                let parts = node.entries().map(|Entry { key, node, .. }| {
                    let is_default = is_default || own.iter().all(|own| own.key != *key);
                    (key.clone(), below(Step::Key(key.clone()), node, is_default))
                });
                Part::Map(parts.collect())
            }
        };
        let line = places.get(&node.origin).map_or(1, |position| position.line);
        let place = (self.name(node.origin.file).to_owned(), line);
        let default = if is_default { self.default_of(path) } else { None };
        Written { value, place, references, default }
    }
}

/// Larger numbers have been refused by their type.
fn integer(value: i128) -> Json {
    match (u64::try_from(value), i64::try_from(value)) {
        (Ok(value), _) => value.into(),
        (Err(_), Ok(value)) => value.into(),
        (Err(_), Err(_)) => value.to_string().into(),
    }
}

/// The origins of all values below `node`.
fn collect(node: &Node, sought: &mut BTreeMap<usize, BTreeSet<usize>>) {
    sought.entry(node.origin.file).or_default().insert(node.origin.ordinal);
    match &node.value {
        Value::Null | Value::Bool(_) | Value::Integer(_) | Value::Float(_) | Value::Text(_) => {}
        Value::Sequence(elements) => elements.iter().for_each(|e| collect(&e.node, sought)),
        Value::Mapping(entries) => entries.iter().for_each(|e| collect(&e.node, sought)),
    }
}
