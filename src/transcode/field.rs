//! A field of a message, or of a nested message: `user.name`. Looked up in the message's JSON.

use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};
use serde_json::{Map, Value};

/// The most levels of nested messages in a path.
const MAX_DEPTH: usize = 32;

/// The path to a field. Every step but the last is a message.
#[derive(Clone)]
pub(super) struct FieldPath {
    steps: Vec<FieldDescriptor>,
    /// The value of the field when JSON leaves it out.
    empty: Value,
}

impl FieldPath {
    /// Looks up `text` in `message`; names may be written as in the `.proto` or as in JSON.
    ///
    /// # Errors
    /// Which name is not a field.
    pub(super) fn resolve(message: &MessageDescriptor, text: &str) -> Result<Self, String> {
        let mut steps: Vec<FieldDescriptor> = Vec::new();
        for name in text.split('.') {
            if steps.len() == MAX_DEPTH {
                return Err(format!("goes deeper than {MAX_DEPTH} messages"));
            }
            let within = match steps.last() {
                None => message.clone(),
                Some(step) if step.is_list() || step.is_map() => {
                    return Err(format!("`{}` of `{text}` is repeated", step.name()));
                }
                Some(step) => match step.kind() {
                    Kind::Message(message) => message,
                    _ => return Err(format!("`{}` of `{text}` has no fields", step.name())),
                },
            };
            let by_name = within.get_field_by_name(name);
            let field = by_name.or_else(|| within.get_field_by_json_name(name));
            steps.push(field.ok_or_else(|| {
                let known: Vec<_> = within.fields().map(|f| format!("`{}`", f.name())).collect();
                let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                format!("`{}` has no field `{name}`, but {known}", within.full_name())
            })?);
        }
        let empty = steps.last().map(empty).unwrap_or_default();
        Ok(FieldPath { steps, empty })
    }

    /// The field itself.
    pub(super) fn last(&self) -> &FieldDescriptor {
        // Splitting a text always gives at least one part.
        &self.steps[self.steps.len() - 1]
    }

    /// Whether the field holds a single value that is not a message.
    pub(super) fn is_scalar(&self) -> bool {
        let field = self.last();
        !field.is_list() && !field.is_map() && !matches!(field.kind(), Kind::Message(_))
    }

    pub(super) fn steps(&self) -> &[FieldDescriptor] {
        &self.steps
    }

    /// The field's value in a message's JSON.
    pub(super) fn find<'a>(&self, message: &'a Value) -> Option<&'a Value> {
        self.steps.iter().try_fold(message, |value, step| value.get(step.json_name()))
    }

    /// The field's value, also when the JSON leaves it out because it is empty.
    pub(super) fn value<'a>(&'a self, message: &'a Value) -> &'a Value {
        self.find(message).unwrap_or(&self.empty)
    }

    /// Takes the field's value out of the JSON.
    pub(super) fn take(&self, message: &mut Value) -> Option<Value> {
        let (last, way) = self.steps.split_last()?;
        let within = way.iter().try_fold(message, |value, step| value.get_mut(step.json_name()));
        within?.as_object_mut()?.remove(last.json_name())
    }

    /// Sets the field's value, replacing what a client wrote there. `false` if a step of the path
    /// is not an object.
    pub(super) fn put(&self, message: &mut Value, value: Value) -> bool {
        let Some((last, way)) = self.steps.split_last() else { return false };
        let mut within = message;
        for step in way {
            let Some(object) = object(within) else { return false };
            let key = key_of(object, step);
            within = object.entry(key).or_insert(Value::Null);
        }
        let Some(object) = object(within) else { return false };
        object.remove(last.name());
        object.insert(last.json_name().to_owned(), value);
        true
    }

    /// As [`FieldPath::put`], but appends to the values that are there already.
    pub(super) fn append(&self, message: &mut Value, value: Value) -> bool {
        match self.take(message) {
            Some(Value::Array(mut list)) => {
                list.push(value);
                self.put(message, Value::Array(list))
            }
            Some(_) | None => self.put(message, Value::Array(vec![value])),
        }
    }
}

/// The value of an absent field; null for messages.
fn empty(field: &FieldDescriptor) -> Value {
    if field.is_list() {
        return Value::Array(Vec::new());
    }
    if field.is_map() {
        return Value::Object(Map::new());
    }
    match field.kind() {
        Kind::Double | Kind::Float => Value::from(0),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 | Kind::Uint32 | Kind::Fixed32 => {
            Value::from(0)
        }
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 | Kind::Uint64 | Kind::Fixed64 => {
            Value::from("0")
        }
        Kind::Bool => Value::Bool(false),
        Kind::String | Kind::Bytes => Value::from(""),
        Kind::Message(_) => Value::Null,
        Kind::Enum(of) => Value::from(of.default_value().name()),
    }
}

/// The object in `value`. Null becomes an empty one.
fn object(value: &mut Value) -> Option<&mut Map<String, Value>> {
    if value.is_null() {
        *value = Value::Object(Map::new());
    }
    value.as_object_mut()
}

/// The key of a field. Clients may write its name as in the `.proto`.
fn key_of(object: &Map<String, Value>, field: &FieldDescriptor) -> String {
    match object.contains_key(field.name()) {
        true => field.name().to_owned(),
        false => field.json_name().to_owned(),
    }
}

/// A scalar as text for a path or a query.
pub(super) fn to_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(value) => Some(value.to_string()),
        Value::Number(number) => Some(number.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// Text from a path or a query as JSON that `field` can be read from.
pub(super) fn of_text(field: &FieldDescriptor, text: String) -> Value {
    let boolean = match field.kind() {
        Kind::Bool => true,
        Kind::Message(message) => message.full_name() == "google.protobuf.BoolValue",
        Kind::Enum(_) => {
            return text.parse::<i32>().map_or(Value::String(text), Value::from);
        }
        _ => false,
    };
    match text.as_str() {
        "true" if boolean => Value::Bool(true),
        "false" if boolean => Value::Bool(false),
        // Numbers may be written as strings.
        _ => Value::String(text),
    }
}
