//! What is in force: what is written, and the defaults of what is not, each with its origin.
//!
//! The schema knows the keys, their defaults, and which values are secrets. A test loads what comes
//! out of here, and compares it with the configuration it was made from.

use std::path::PathBuf;

use serde_json::{Map, Value};

use super::load::{KeyPath, Part, Sources, Written};
use super::{defaults, schema};

/// A value in force.
pub struct Effective {
    /// The value itself.
    pub value: Shape,
    /// Where it comes from.
    pub origin: Origin,
    /// Whether it may be a secret, and must not be shown.
    pub hidden: bool,
}

/// The form of a value.
pub enum Shape {
    /// A single value.
    Scalar(Value),
    /// A list.
    List(Vec<Effective>),
    /// Written keys in the order of the files, then those that have defaults.
    Map(Vec<(String, Effective)>),
}

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// It is written in a file.
    File {
        /// As it was opened.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// The `${…}` in it.
        references: Vec<String>,
        /// The path it is written at, if that is not its own: `defaults.timeout.request`.
        default: Option<KeyPath>,
    },
    /// It is written nowhere.
    Default,
}

/// The configuration that `sources` were read from. The defaults of routes are told where they are
/// in force, and not once more by themselves.
pub fn effective(sources: &Sources) -> Effective {
    let schema = schema::derived();
    let reader = Reader { definitions: &schema["$defs"] };
    let mut all = reader.written(&schema, sources.written(), false);
    if let Shape::Map(sections) = &mut all.value {
        sections.retain(|(name, _)| name != defaults::SECTION);
    }
    all
}

struct Reader<'a> {
    definitions: &'a Value,
}

impl<'a> Reader<'a> {
    fn written(&self, schema: &'a Value, written: Written, hidden: bool) -> Effective {
        let hidden = hidden || is_secret(schema);
        let schema = self.choose(schema, &written.value);
        let hidden = hidden || is_secret(schema) || hints_at_secret(schema, &written.references);
        let value = match written.value {
            Part::Scalar(Value::Null) if is_object(schema) => {
                Shape::Map(self.defaults(schema, &[]))
            }
            Part::Scalar(Value::String(text)) if !written.references.is_empty() => {
                Shape::Scalar(typed(schema, text))
            }
            Part::Scalar(value) => Shape::Scalar(value),
            Part::List(elements) => {
                let schema = schema.get("items").unwrap_or(&Value::Null);
                let each = |element| self.written(schema, element, hidden);
                Shape::List(elements.into_iter().map(each).collect())
            }
            Part::Map(entries) => {
                let names: Vec<String> = entries.iter().map(|(name, _)| name.clone()).collect();
                let each = |(name, value): (String, Written)| {
                    let value = self.written(below(schema, &name), value, hidden);
                    (name, value)
                };
                let mut entries: Vec<_> = entries.into_iter().map(each).collect();
                entries.extend(self.defaults(schema, &names));
                Shape::Map(entries)
            }
        };
        let Written { place: (path, line), references, default, value: _ } = written;
        Effective { value, origin: Origin::File { path, line, references, default }, hidden }
    }

    /// The keys of `schema` that have defaults, without those that are `written`.
    fn defaults(&self, schema: &'a Value, written: &[String]) -> Vec<(String, Effective)> {
        let Some(Value::Object(properties)) = schema.get("properties") else { return Vec::new() };
        let absent = properties.iter().filter(|(name, _)| !written.contains(name));
        let value = |schema: &'a Value| match schema.get("default") {
            Some(default) => Some(plain(default)),
            None => {
                let section = self.resolve(schema);
                let optional = section.get("anyOf").is_some() || section.get("oneOf").is_some();
                let complete = is_object(section) && section.get("required").is_none();
                // A mapping of names has no keys of its own, and is empty by default.
                let has_keys = section.get("properties").is_some();
                (complete && has_keys && !optional)
                    .then(|| from_default(Shape::Map(self.defaults(section, &[]))))
            }
        };
        absent.filter_map(|(name, schema)| Some((name.clone(), value(schema)?))).collect()
    }

    fn resolve(&self, schema: &'a Value) -> &'a Value {
        let name = schema.get("$ref").and_then(|name| name.as_str()?.strip_prefix("#/$defs/"));
        match name.and_then(|name| self.definitions.get(name)) {
            Some(schema) => self.resolve(schema),
            None => schema,
        }
    }

    /// The schema without references, and of its alternatives the one that `value` is written in.
    fn choose(&self, schema: &'a Value, value: &Part) -> &'a Value {
        let schema = self.resolve(schema);
        let alternatives = ["anyOf", "oneOf"].iter().find_map(|key| schema.get(*key)?.as_array());
        let fits = |schema: &'a Value| {
            let schema = self.choose(schema, value);
            let is = |kind: &str| is_of(schema, kind);
            let fits = match value {
                Part::Map(entries) => {
                    is("object")
                        && entries.first().is_none_or(|(name, _)| !below(schema, name).is_null())
                }
                Part::List(_) => is("array"),
                Part::Scalar(_) => !is("array") && !is("object") && !is("null"),
            };
            fits.then_some(schema)
        };
        alternatives.and_then(|list| list.iter().find_map(fits)).unwrap_or(schema)
    }
}

/// The schema of the value under `name`; null if there is none.
fn below<'a>(schema: &'a Value, name: &str) -> &'a Value {
    let property = schema.get("properties").and_then(|properties| properties.get(name));
    // There is one pattern at most: that of all names.
    let named = || schema.get("patternProperties")?.as_object()?.values().next();
    let other = || schema.get("additionalProperties").filter(|schema| schema.is_object());
    property.or_else(named).or_else(other).unwrap_or(&Value::Null)
}

fn is_object(schema: &Value) -> bool {
    schema.get("type").is_some_and(|kind| kind == "object")
}

/// Whether values of this kind are among those that the schema names.
fn is_of(schema: &Value, kind: &str) -> bool {
    match schema.get("type") {
        Some(Value::Array(kinds)) => kinds.iter().any(|one| one == kind),
        Some(one) => one == kind,
        None => false,
    }
}

fn is_secret(schema: &Value) -> bool {
    schema.get("writeOnly") == Some(&Value::Bool(true))
}

/// Whether a value of these references may be a secret though its type does not say so: it may be
/// anything, or it is named like one.
fn hints_at_secret(schema: &Value, references: &[String]) -> bool {
    const NAMES: [&str; 6] = ["key", "token", "secret", "password", "passwd", "credential"];
    let named = |reference: &String| {
        let reference = reference.to_lowercase();
        NAMES.iter().any(|name| reference.contains(name))
    };
    let is_typed = schema.as_object().is_some_and(|members: &Map<String, Value>| {
        ["type", "enum", "const", "anyOf", "oneOf"].iter().any(|key| members.contains_key(*key))
    });
    !references.is_empty() && (!is_typed || references.iter().any(named))
}

/// The text that references were replaced in, as a number or boolean if the type asks for one.
fn typed(schema: &Value, text: String) -> Value {
    let is = |kind: &str| is_of(schema, kind);
    if is("string") || !(is("boolean") || is("integer") || is("number")) {
        return Value::String(text);
    }
    // JSON's spelling; any other stays the text that the loader has read.
    serde_json::from_str(&text.trim().to_ascii_lowercase()).unwrap_or(Value::String(text))
}

fn plain(value: &Value) -> Effective {
    from_default(match value {
        Value::Array(elements) => Shape::List(elements.iter().map(plain).collect()),
        Value::Object(members) => {
            Shape::Map(members.iter().map(|(name, value)| (name.clone(), plain(value))).collect())
        }
        scalar => Shape::Scalar(scalar.clone()),
    })
}

fn from_default(value: Shape) -> Effective {
    Effective { value, origin: Origin::Default, hidden: false }
}
