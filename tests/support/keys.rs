//! Every key of the configuration, read off its JSON Schema.

use std::collections::BTreeMap;

use serde_json::Value;

/// The keys of one mapping.
pub struct Section {
    /// Such as `upstreams.NAME.health`; empty for the file as a whole.
    pub path: String,
    pub about: String,
    pub keys: Vec<Key>,
}

pub struct Key {
    pub name: String,
    /// Its values, as Markdown.
    pub kind: String,
    /// As Markdown; empty if it depends on something.
    pub default: String,
    pub about: String,
}

impl Section {
    /// The whole path of one of its keys.
    pub fn at(&self, key: &Key) -> String {
        join(&self.path, &key.name)
    }
}

/// A path as the forge makes an anchor of it.
pub fn anchor(path: &str) -> String {
    let kept = |c: &char| c.is_alphanumeric() || *c == '_' || *c == '-';
    path.to_lowercase().chars().filter(kept).collect()
}

/// Kinds of single values that need a word of explanation, by their schema's name.
const KINDS: &[(&str, &str)] = &[
    ("Timespan", "[time](#kinds-of-values)"),
    ("Size", "[size](#kinds-of-values)"),
    ("Percent", "[share](#kinds-of-values)"),
    ("Secret", "[secret](#kinds-of-values)"),
    ("SecretText", "[secret](#kinds-of-values)"),
    ("Token", "[secret](#kinds-of-values)"),
    ("PublicKey", "[secret](#kinds-of-values)"),
    ("HeaderName", "header name"),
    ("HeaderValue", "header value"),
    ("EndpointUrl", "URL"),
    ("KeysUrl", "URL"),
    ("Origin", "origin"),
    ("HostPattern", "host"),
    ("PathPattern", "path"),
    ("PathTemplate", "path"),
    ("PathPrefix", "path"),
    ("OpenPath", "path"),
    ("DnsServer", "address"),
    ("PerSecond", "rate, such as `10/s`"),
];

/// All sections, each once, in the order of `top` (the keys of the file).
pub fn sections(schema: &Value, top: &[String]) -> Vec<Section> {
    let mut walk = Walk { schema, seen: BTreeMap::new(), found: Vec::new() };
    let properties = &schema["properties"];
    let names = properties.as_object().expect("keys").keys();
    let mut order: Vec<&String> = names.collect();
    order.sort_by_key(|name| top.iter().position(|other| other == *name).unwrap_or(usize::MAX));
    let keys: Vec<Key> =
        order.iter().map(|name| walk.key("", name, &properties[*name], false)).collect();
    let about = "The file.".to_owned();
    let mut all = vec![Section { path: String::new(), about, keys }];
    all.append(&mut walk.found);
    all
}

struct Walk<'a> {
    schema: &'a Value,
    /// Definitions that have a section, with its path.
    seen: BTreeMap<String, String>,
    found: Vec<Section>,
}

impl<'a> Walk<'a> {
    fn key(&mut self, path: &str, name: &str, schema: &'a Value, required: bool) -> Key {
        let mut about = text(schema, "description");
        if let (true, Some(reference)) = (about.is_empty(), schema["$ref"].as_str()) {
            let name = reference.rsplit('/').next().expect("a name");
            about = text(&self.schema["$defs"][name], "description");
        }
        // Its keys are those of a route.
        if path.is_empty() && name == "defaults" {
            let kind = "keys of a [route](#routesname)".to_owned();
            return Key { name: name.to_owned(), kind, default: "none".to_owned(), about };
        }
        let kinds = self.kinds(&join(path, name), schema);
        let default = match required {
            true => "required".to_owned(),
            false => default(schema, &about),
        };
        Key { name: name.to_owned(), kind: kinds.join(" or "), default, about }
    }

    /// What a value may be; sections in it are added under `path`.
    fn kinds(&mut self, path: &str, schema: &'a Value) -> Vec<String> {
        let mut kinds = Vec::new();
        let mut objects = Vec::new();
        self.collect(path, schema, None, &mut kinds, &mut objects);
        if !objects.is_empty() {
            kinds.push(self.section(path, schema, objects));
        }
        let mut unique: Vec<String> = Vec::new();
        for kind in kinds {
            if !unique.contains(&kind) {
                unique.push(kind);
            }
        }
        // One of them, or a list: `off` is never in a list.
        let (lists, mut alone): (Vec<String>, Vec<String>) =
            unique.into_iter().partition(|kind| kind.starts_with("list of "));
        let single: Vec<&str> =
            alone.iter().map(String::as_str).filter(|kind| *kind != "`off`").collect();
        let of_these = format!("list of {}", single.join(" or "));
        let said = |list: String| if list == of_these { "list of these".to_owned() } else { list };
        let lists: Vec<String> = lists.into_iter().map(said).collect();
        alone.extend(lists);
        alone
    }

    /// `name` is that of the definition that `schema` comes from.
    fn collect(
        &mut self,
        path: &str,
        schema: &'a Value,
        name: Option<&'a str>,
        kinds: &mut Vec<String>,
        objects: &mut Vec<(Option<&'a str>, &'a Value)>,
    ) {
        if let Some(reference) = schema["$ref"].as_str() {
            let name = reference.rsplit('/').next().expect("a name");
            if name == "Reference" {
                return;
            }
            if let Some((_, kind)) = KINDS.iter().find(|(known, _)| *known == name) {
                kinds.push((*kind).to_owned());
                return;
            }
            return self.collect(path, &self.schema["$defs"][name], Some(name), kinds, objects);
        }
        if let Some(choices) = schema["anyOf"].as_array() {
            let before = objects.len();
            for choice in choices {
                self.collect(path, choice, None, kinds, objects);
            }
            // They are what the definition is.
            for object in &mut objects[before..] {
                object.0 = object.0.or(name);
            }
            return;
        }
        if let Some(value) = schema.get("const") {
            // YAML reads `off` as a boolean in its older version.
            if !value.is_boolean() {
                kinds.push(format!("`{}`", plain(value)));
            }
            return;
        }
        if let Some(values) = schema["enum"].as_array() {
            let values = values.iter().filter(|value| !value.is_boolean());
            kinds.extend(values.map(|value| format!("`{}`", plain(value))));
            return;
        }
        if schema["properties"].is_object() {
            objects.push((name, schema));
            return;
        }
        let more = &schema["additionalProperties"];
        if more.is_object() {
            let of = self.kinds(&join(path, "NAME"), more).join(" or ");
            kinds.push(match of.is_empty() {
                true => "mapping".to_owned(),
                false => format!("by name: {of}"),
            });
            return;
        }
        let types: Vec<&str> = match &schema["type"] {
            Value::Array(types) => types.iter().filter_map(Value::as_str).collect(),
            Value::String(one) => vec![one.as_str()],
            _ => vec!["any"],
        };
        let has_text = types.contains(&"string");
        for kind in types {
            match kind {
                "null" => {}
                // What YAML makes of a word such as `off`, or of a number.
                "boolean" | "integer" if has_text => {}
                "array" => {
                    let items = self.kinds(path, &schema["items"]);
                    let between = if items.len() > 8 { ", " } else { " or " };
                    kinds.push(format!("list of {}", items.join(between)));
                }
                "object" => kinds.push("mapping".to_owned()),
                "integer" | "number" => kinds.push("number".to_owned()),
                "boolean" => kinds.push("`true` or `false`".to_owned()),
                "string" => kinds.push("text".to_owned()),
                other => kinds.push(other.to_owned()),
            }
        }
    }

    /// Adds the section of a value that may be any of `objects`; the link to it.
    fn section(
        &mut self,
        path: &str,
        schema: &'a Value,
        objects: Vec<(Option<&'a str>, &'a Value)>,
    ) -> String {
        let name = objects.iter().find_map(|(name, _)| *name);
        let before = name.and_then(|name| self.seen.get(name));
        if let Some(before) = before.filter(|before| *before != path) {
            return format!("[as `{before}`](#{})", anchor(before));
        }
        let link = format!("[section](#{})", anchor(path));
        if let Some(name) = name {
            self.seen.insert(name.to_owned(), path.to_owned());
        }
        // Before its own sections; another form of the same value adds its keys.
        let place = self.found.iter().position(|section| section.path == path);
        let place = place.unwrap_or_else(|| {
            let own = name.map(|name| text(&self.schema["$defs"][name], "description"));
            let own = own.filter(|text| !text.is_empty() && !text.starts_with("As a mapping"));
            let about = own.unwrap_or_else(|| text(schema, "description"));
            self.found.push(Section { path: path.to_owned(), about, keys: Vec::new() });
            self.found.len() - 1
        });
        let mut keys = std::mem::take(&mut self.found[place].keys);
        for (_, object) in &objects {
            let required = object["required"].as_array().cloned().unwrap_or_default();
            for (name, property) in object["properties"].as_object().expect("keys") {
                if keys.iter().any(|key| key.name == *name) {
                    continue;
                }
                // Of several forms one is chosen, so none of their keys is needed.
                let required = objects.len() == 1 && required.iter().any(|other| other == name);
                let mut key = self.key(path, name, property, required);
                if key.about.is_empty() {
                    key.about = text(object, "description");
                }
                keys.push(key);
            }
        }
        self.found[place].keys = keys;
        link
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

fn text(schema: &Value, member: &str) -> String {
    schema[member].as_str().unwrap_or_default().replace('\n', " ")
}

/// A value as YAML has it.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) if text.is_empty() => "\"\"".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(values) => {
            format!("[{}]", values.iter().map(plain).collect::<Vec<_>>().join(", "))
        }
        Value::Object(members) if members.is_empty() => "{}".to_owned(),
        other => other.to_string(),
    }
}

/// From the schema, or else from the words of the key's description.
fn default(schema: &Value, about: &str) -> String {
    if let Some(value) = schema.get("default").filter(|value| !value.is_object()) {
        return format!("`{}`", plain(value));
    }
    let lower = about.to_lowercase();
    let said = ["absent: ", "default: ", "default "].iter().find_map(|word| {
        let at = lower.rfind(word)? + word.len();
        let rest = about.get(at..)?;
        let end = [". ", "; ", ": "].iter().filter_map(|end| rest.find(end)).min();
        Some(rest[..end.unwrap_or(rest.len())].trim_end_matches('.').to_owned())
    });
    said.unwrap_or_default()
}
