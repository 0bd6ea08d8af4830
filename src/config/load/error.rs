//! Errors from reading the tree as typed values, in an operator's words.
//!
//! Types and serde speak of `u16`, `struct Route` and `map`; this file translates. Values are never
//! quoted, except an unknown name, and [`super::collect`] hides that if it was interpolated.

use std::fmt;

use serde::de::{Expected, Unexpected};

use super::path::{KeyPath, Step};
use super::problem::did_you_mean;
use super::suggest::suggest;
use crate::config::code::Code;

/// What std only calls a socket address.
const SOCKET: &str = "an IP address and a port, such as `127.0.0.1:8080` or `[::]:8080`";
/// Known names are listed if there are at most this many.
const FEW: usize = 10;

#[derive(Debug)]
pub(super) struct Error {
    pub(super) kind: Kind,
    /// The steps from the wrong value up to the root.
    steps: Vec<Step>,
    /// The last step's key is wrong, not its value.
    pub(super) on_key: bool,
}

#[derive(Debug)]
pub(super) enum Kind {
    Message(Code, String),
    MissingKey(&'static str),
    UnknownKey { key: String, known: &'static [&'static str] },
    UnknownValue { value: String, known: &'static [&'static str] },
}

impl Error {
    pub(super) fn new(kind: Kind) -> Self {
        Error { kind, steps: Vec::new(), on_key: false }
    }

    pub(super) fn under(mut self, step: Step) -> Self {
        self.steps.push(step);
        self
    }

    pub(super) fn at_key(mut self, key: &str) -> Self {
        self.on_key = true;
        self.under(Step::Key(key.to_owned()))
    }

    /// Says which keys a mapping has, where there is something else than a mapping.
    pub(super) fn with_keys(mut self, known: &[&str]) -> Self {
        const FIRST: usize = 3;
        let keys = known.iter().take(FIRST).map(|key| format!("`{key}`")).collect::<Vec<_>>();
        if let Kind::Message(Code::WrongType, message) = &mut self.kind
            && let Some(found) = message.strip_prefix("expected a mapping, ")
            && self.steps.is_empty()
            && !keys.is_empty()
        {
            let such = if keys.len() < known.len() { "keys such as" } else { "the keys" };
            *message = format!("expected a mapping with {such} {}, {found}", keys.join(", "));
        }
        self
    }

    pub(super) fn path(&self) -> KeyPath {
        self.steps.iter().rev().cloned().collect()
    }
}

impl Kind {
    /// The known key that an unknown one probably means.
    pub(super) fn suggestion(&self) -> Option<&'static str> {
        match self {
            Kind::UnknownKey { key: wrong, known } | Kind::UnknownValue { value: wrong, known } => {
                suggest(wrong, known.iter().copied())
            }
            Kind::Message(..) | Kind::MissingKey(_) => None,
        }
    }

    pub(super) fn code(&self) -> Code {
        match self {
            Kind::Message(code, _) => *code,
            Kind::MissingKey(_) => Code::MissingKey,
            Kind::UnknownKey { .. } => Code::UnknownKey,
            Kind::UnknownValue { .. } => Code::UnknownValue,
        }
    }

    /// What to do, if there is more to say than for every mistake of this kind.
    pub(super) fn remedy(&self) -> Option<String> {
        if let Kind::UnknownKey { key, known } = self
            && let Some((name, _)) = key.split_once(':')
            && known.contains(&name)
        {
            // Inside brackets YAML takes it for a key without a value.
            return Code::YamlSpaceAfterColon.remedy().map(str::to_owned);
        }
        self.suggestion().map(did_you_mean)
    }

    fn unknown(&self, what: &str, wrong: &str, known: &[&str]) -> String {
        // What follows a colon is a value, which may be a secret.
        let shown =
            wrong.split_once(':').map_or_else(|| wrong.into(), |(key, _)| format!("{key}:…"));
        let wrong = shorten(&shown);
        // If there is a suggestion, it is the remedy.
        match one_of(known).filter(|_| self.suggestion().is_none()) {
            Some(list) => format!("unknown {what} `{wrong}`, expected {list}"),
            None => format!("unknown {what} `{wrong}`"),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Kind::Message(_, message) => f.write_str(message),
            Kind::MissingKey(key) => write!(f, "missing key `{key}`"),
            Kind::UnknownKey { key, known } => f.write_str(&self.unknown("key", key, known)),
            Kind::UnknownValue { value, known } => {
                f.write_str(&self.unknown("value", value, known))
            }
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path(), self.kind)
    }
}

impl std::error::Error for Error {}

impl serde::de::Error for Error {
    fn custom<T: fmt::Display>(message: T) -> Self {
        let mut message = message.to_string();
        if message == "invalid socket address syntax" {
            message = format!("expected {SOCKET}");
        }
        let untagged = message.starts_with("data did not match any variant");
        let none = "the value has none of the forms that are accepted here".to_owned();
        Error::new(Kind::Message(Code::InvalidValue, if untagged { none } else { message }))
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let wanted = expected.to_string();
        let is_integer = integer_range(&wanted).is_some();
        let (code, message) = match found {
            Unexpected::Float(_) if is_integer => {
                (Code::WrongType, "expected a whole number, found a fraction".to_owned())
            }
            Unexpected::Bool(_)
            | Unexpected::Unsigned(_)
            | Unexpected::Signed(_)
            | Unexpected::Float(_)
                if wanted == "a string" =>
            {
                (Code::UnquotedText, format!("expected a string, found {}", kind_of(&found)))
            }
            found => {
                let (wanted, found) = (in_words(&wanted), kind_of(&found));
                (Code::WrongType, format!("expected {wanted}, found {found}"))
            }
        };
        Error::new(Kind::Message(code, message))
    }

    fn invalid_value(_: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let wanted = expected.to_string();
        let (code, message) = match integer_range(&wanted) {
            // An upper bound that is not the value's own.
            Some((least, most)) if most >= u64::MAX.into() => {
                (Code::OutOfRange, format!("expected a whole number that is at least {least}"))
            }
            Some((least, most)) => {
                (Code::OutOfRange, format!("expected a whole number from {least} to {most}"))
            }
            None => (Code::InvalidValue, format!("expected {}", in_words(&wanted))),
        };
        Error::new(Kind::Message(code, message))
    }

    fn invalid_length(length: usize, expected: &dyn Expected) -> Self {
        let wanted = expected.to_string();
        // "a tuple of size 2", "an array of length 2", "struct X with 2 elements"
        let number = wanted.split(' ').find_map(|word| word.parse::<usize>().ok());
        let message = match number {
            Some(number) => format!("expected a list of {number}, found {length}"),
            None => format!("expected {}, found {length} elements", in_words(&wanted)),
        };
        Error::new(Kind::Message(Code::WrongType, message))
    }

    fn unknown_variant(value: &str, known: &'static [&'static str]) -> Self {
        Error::new(Kind::UnknownValue { value: value.to_owned(), known })
    }

    fn unknown_field(key: &str, known: &'static [&'static str]) -> Self {
        Error::new(Kind::UnknownKey { key: key.to_owned(), known })
    }

    fn missing_field(key: &'static str) -> Self {
        Error::new(Kind::MissingKey(key))
    }

    fn duplicate_field(key: &'static str) -> Self {
        // Keys are unique in the tree, but one field may have two names.
        let message = format!("`{key}` is given twice, under two names");
        Error::new(Kind::Message(Code::RepeatedKey, message))
    }
}

/// The names for a message, if they are few enough to read.
pub(super) fn one_of(known: &[&str]) -> Option<String> {
    let quoted = || known.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    match known.len() {
        0 => None,
        1 => Some(quoted()),
        2..=FEW => Some(format!("one of {}", quoted())),
        _ => None,
    }
}

fn shorten(name: &str) -> String {
    const MOST: usize = 60;
    let mut short: String = name.chars().take(MOST).collect();
    if short.len() < name.len() {
        short.push('…');
    }
    short
}

fn kind_of(found: &Unexpected<'_>) -> &'static str {
    match found {
        Unexpected::Bool(_) => "true or false",
        Unexpected::Unsigned(_) | Unexpected::Signed(_) => "a number",
        Unexpected::Float(_) => "a fraction",
        Unexpected::Str(_) | Unexpected::Char(_) | Unexpected::Bytes(_) => "a string",
        Unexpected::Unit | Unexpected::Option => "nothing",
        Unexpected::Seq | Unexpected::TupleVariant => "a list",
        Unexpected::Map | Unexpected::StructVariant => "a mapping",
        Unexpected::Enum
        | Unexpected::UnitVariant
        | Unexpected::NewtypeVariant
        | Unexpected::NewtypeStruct
        | Unexpected::Other(_) => "something else",
    }
}

/// Translates what serde's own and derived visitors expect. The gateway's own visitors need no
/// translation.
fn in_words(expected: &str) -> &str {
    if integer_range(expected).is_some() {
        return "a number";
    }
    let begins = |beginnings: &[&str]| beginnings.iter().any(|word| expected.starts_with(word));
    match expected {
        "f32" | "f64" => "a number",
        "a boolean" => "true or false",
        "a borrowed string" | "path string" | "os string" => "a string",
        "a map" | "map" => "a mapping",
        "a sequence" | "sequence" => "a list",
        "unit" | "option" => "nothing",
        "socket address" => SOCKET,
        _ if begins(&["struct ", "internally tagged ", "adjacently tagged "]) => "a mapping",
        _ if begins(&["tuple ", "a tuple ", "an array ", "an empty array"]) => "a list",
        _ if begins(&["enum ", "struct variant ", "newtype variant "]) => "a mapping with one key",
        _ if begins(&["unit "]) => "nothing",
        _ => expected,
    }
}

/// The bounds of an integer type, by the name its visitor gives it.
fn integer_range(expected: &str) -> Option<(i128, i128)> {
    let (name, nonzero) = match expected.strip_prefix("a nonzero ") {
        Some(name) => (name, true),
        None => (expected, false),
    };
    let (least, most) = match name {
        "u8" => (0, u8::MAX.into()),
        "u16" => (0, u16::MAX.into()),
        "u32" => (0, u32::MAX.into()),
        "u64" | "usize" => (0, u64::MAX.into()),
        "u128" => (0, i128::MAX),
        "i8" => (i8::MIN.into(), i8::MAX.into()),
        "i16" => (i16::MIN.into(), i16::MAX.into()),
        "i32" => (i32::MIN.into(), i32::MAX.into()),
        "i64" | "isize" => (i64::MIN.into(), i64::MAX.into()),
        "i128" => (i128::MIN, i128::MAX),
        _ => return None,
    };
    Some(if nonzero && least == 0 { (1, most) } else { (least, most) })
}
