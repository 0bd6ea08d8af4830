//! A place in a text, and what is wrong with the text there.

use crate::config::code::Code;

/// Line and column, both from 1; the column counts characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) line: usize,
    pub(super) column: usize,
}

impl Position {
    pub(super) const START: Position = Position { line: 1, column: 1 };
}

/// Why a text is not YAML, or not YAML that the gateway accepts.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) position: Position,
    pub(super) code: Code,
    pub(super) message: String,
    /// What to do about it, if there is more to say than for every fault of this kind.
    pub(super) remedy: Option<&'static str>,
}

impl Fault {
    /// With the remedy of its kind.
    pub(super) fn new(position: Position, code: Code, message: impl Into<String>) -> Self {
        Fault { position, code, message: message.into(), remedy: None }
    }

    pub(super) fn remedied(self, remedy: &'static str) -> Self {
        Fault { remedy: Some(remedy), ..self }
    }
}
