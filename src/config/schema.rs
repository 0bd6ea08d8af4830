//! The configuration as JSON Schema (2020-12), from the types that read it.
//!
//! The derived schema knows what is read. [`for_editors`] adds what the loader does before that: a
//! reference such as `${NAME}` may stand for any single value, an empty section counts as `{}`, files
//! include others, and `x-…` at the top holds anchors. It may accept a file that the loader refuses,
//! because not every rule can be said in a schema; it never refuses one that the loader accepts.

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::{Config, defaults};

/// Schemas below these keys are for parts of the value.
const BY_NAME: [&str; 3] = ["$defs", "properties", "patternProperties"];
const NESTED: [&str; 2] = ["additionalProperties", "items"];
/// What stays beside `anyOf` when a schema becomes one of several alternatives.
const ABOUT: [&str; 3] = ["description", "default", "writeOnly"];

/// The schema of [`Config`] as it is read, after references and includes are resolved.
pub fn derived() -> Value {
    let mut schema = Value::from(
        SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<Config>(),
    );
    each_schema(&mut schema, &mut |schema| {
        if let Some(Value::String(text)) = schema.get_mut("description") {
            *text = prose(text);
        }
        // Absent: many keys do not accept a `null` that is written out.
        if schema.get("default") == Some(&Value::Null) {
            schema.remove("default");
        }
    });
    schema
}

/// The schema of a configuration file, or of a file that one includes.
pub fn for_editors() -> Value {
    let mut schema = derived();
    adapt(&mut schema);
    let Value::Object(root) = &mut schema else { return schema };
    root.insert("title".to_owned(), json!("Portcullis"));
    // A file that is included has no listeners, and neither has one that includes them.
    root.remove("required");
    root.insert("patternProperties".to_owned(), json!({ "^x-": true }));
    for section in ["Route", "RouteDefaults"] {
        for key in defaults::switched_off() {
            if let Some(schema) = root["$defs"][section]["properties"].get_mut(key) {
                admit_off(schema);
            }
        }
    }
    insert(
        root,
        "properties",
        "include",
        json!({
            "description": "Further files by pattern, relative to this one, whose named things are added.",
            "anyOf": [
                { "type": "string" },
                { "type": "array", "items": { "type": "string" } },
                { "type": "null" },
            ],
        }),
    );
    insert(
        root,
        "$defs",
        "Reference",
        json!({
            "description": "${NAME}, ${NAME:-default}, ${NAME:?why it must be set} or ${file:path}.",
            "type": "string",
            "pattern": "\\$\\{",
        }),
    );
    schema
}

fn insert(root: &mut Map<String, Value>, section: &str, name: &str, schema: Value) {
    if let Some(Value::Object(named)) = root.get_mut(section) {
        named.insert(name.to_owned(), schema);
    }
}

/// Calls `see` with `schema` and every schema in it.
fn each_schema(schema: &mut Value, see: &mut impl FnMut(&mut Map<String, Value>)) {
    let Value::Object(members) = schema else { return };
    see(members);
    for part in parts(members) {
        each_schema(part, see);
    }
    for choice in ["anyOf", "oneOf"] {
        if let Some(Value::Array(choices)) = members.get_mut(choice) {
            choices.iter_mut().for_each(|choice| each_schema(choice, see));
        }
    }
}

/// The schemas in `members`, except alternatives.
fn parts(members: &mut Map<String, Value>) -> impl Iterator<Item = &mut Value> {
    members.iter_mut().flat_map(|(key, value)| {
        if NESTED.contains(&key.as_str()) {
            return vec![value];
        }
        match value {
            Value::Object(named) if BY_NAME.contains(&key.as_str()) => named.values_mut().collect(),
            _ => Vec::new(),
        }
    })
}

/// Admits what the loader admits before values are read.
fn adapt(schema: &mut Value) {
    let Value::Object(members) = schema else { return };
    parts(members).for_each(adapt);
    // An alternative that is a reference may fit several others.
    if let Some(choices) = members.remove("oneOf") {
        members.insert("anyOf".to_owned(), choices);
    }
    if let Some(Value::Array(choices)) = members.get_mut("anyOf") {
        let takes_reference = choices.iter().any(is_constrained);
        choices.iter_mut().filter(|choice| !is_constrained(choice)).for_each(adapt);
        if takes_reference {
            choices.push(json!({ "$ref": "#/$defs/Reference" }));
        }
    } else if is_constrained(&Value::Object(members.clone())) {
        let about = ABOUT.iter().filter_map(|key| members.remove_entry(*key)).collect();
        let literal = std::mem::replace(members, about);
        let choices = json!([literal, { "$ref": "#/$defs/Reference" }]);
        members.insert("anyOf".to_owned(), choices);
    } else {
        admit_nothing(members);
    }
}

/// Whether it is a schema of single values that `${NAME}` itself does not fit.
fn is_constrained(schema: &Value) -> bool {
    let limits = ["const", "enum", "pattern", "format", "maxLength"];
    let is = |kind: &Value| ["integer", "number", "boolean"].iter().any(|name| kind == name);
    limits.iter().any(|key| schema.get(*key).is_some())
        || match schema.get("type") {
            Some(Value::Array(kinds)) => {
                kinds.iter().any(is) && !kinds.iter().any(|kind| kind == "string")
            }
            Some(kind) => is(kind),
            None => false,
        }
}

/// An empty section is an empty mapping or list, if that is valid.
fn admit_nothing(members: &mut Map<String, Value>) {
    let needs = ["required", "minItems", "minProperties"];
    let kind = members.get("type").filter(|kind| *kind == "object" || *kind == "array").cloned();
    if let (Some(kind), false) = (kind, needs.iter().any(|key| members.contains_key(*key))) {
        members.insert("type".to_owned(), json!([kind, "null"]));
    }
}

/// `off` switches a default of routes off.
fn admit_off(schema: &mut Value) {
    let off = json!({ "const": "off" });
    let Value::Object(members) = schema else { return };
    if let Some(Value::Array(choices)) = members.get_mut("anyOf") {
        choices.push(off);
        return;
    }
    let about = ABOUT.iter().filter_map(|key| members.remove_entry(*key)).collect();
    let other = std::mem::replace(members, about);
    members.insert("anyOf".to_owned(), json!([other, off]));
}

/// A comment as text: one line for each paragraph, and no links into the code.
fn prose(comment: &str) -> String {
    let paragraphs = comment.split("\n\n").map(|paragraph| paragraph.replace('\n', " "));
    paragraphs.collect::<Vec<_>>().join("\n\n").replace("[`", "`").replace("`]", "`")
}
