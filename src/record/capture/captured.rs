//! The fields of a row that were taken from the bodies of its request and response.

use std::sync::Arc;

use crate::record::bound::{bound_string, has_nul};

/// The most bytes of a value that are kept.
pub(crate) const CAPTURED_BYTES: usize = 1024;

/// Fields taken from the bodies.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Captured {
    /// The column `name`.
    pub name: Option<String>,
    /// The column `result_message`.
    pub result_message: Option<String>,
    /// Fields without a column of their own.
    pub other: Vec<(Arc<str>, String)>,
}

impl Captured {
    pub(crate) fn insert(&mut self, field: &Arc<str>, value: String) {
        match &**field {
            "name" => self.name = Some(value),
            "result_message" => self.result_message = Some(value),
            _ => match self.other.iter_mut().find(|(known, _)| known == field) {
                Some((_, old)) => *old = value,
                None => self.other.push((Arc::clone(field), value)),
            },
        }
    }

    /// Whether the field has a value.
    pub(crate) fn has(&self, field: &str) -> bool {
        match field {
            "name" => self.name.is_some(),
            "result_message" => self.result_message.is_some(),
            _ => self.other.iter().any(|(known, _)| **known == *field),
        }
    }

    pub(crate) fn bound(&mut self) {
        for text in [&mut self.name, &mut self.result_message] {
            text.iter_mut().for_each(|text| bound_string(text, CAPTURED_BYTES));
        }
        for (field, value) in &mut self.other {
            if has_nul(field) {
                *field = field.replace('\0', "\u{fffd}").into();
            }
            bound_string(value, CAPTURED_BYTES);
        }
    }
}
