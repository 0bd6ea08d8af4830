//! Which things have defaults in which section, and what becomes of a default where a thing says
//! something itself. [`super::layer`] makes it so.

use super::path::{KeyPath, Step};

/// Which section holds defaults of which other one.
#[derive(Debug)]
pub struct Layering {
    /// The section of defaults.
    pub defaults: &'static str,
    /// The section of the named things that have them.
    pub things: &'static str,
    /// What may have a default.
    pub keys: &'static [Key],
    /// What each thing has to say itself.
    pub own: &'static [&'static str],
}

/// A key that may have a default.
#[derive(Debug)]
pub struct Key {
    /// The key itself.
    pub name: &'static str,
    /// What becomes of the default where a thing says something itself.
    pub meets: Meets,
    /// Only things with this key have the default.
    pub only_with: Option<&'static str>,
    /// How a thing says that it wants nothing.
    pub off: Off,
}

/// What becomes of a default where a thing says something itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meets {
    /// Of two mappings, at any depth, the thing's own has what it lacks from the default. Any other
    /// value replaces the default.
    Merges,
    /// The thing's own value replaces the default as a whole.
    Replaces,
}

/// How a thing says that it wants nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Off {
    /// By the value that means so; there is no word for it.
    Value,
    /// `off`, or an empty value.
    Word,
    /// `off`. An empty value may be a slip, and it would open what the default closes.
    WordAlone,
}

impl Layering {
    /// The place of the default of what is at `path`; `None` if that is no part of a thing.
    pub(super) fn default_of(&self, path: &KeyPath) -> Option<KeyPath> {
        match path.steps() {
            [Step::Key(section), Step::Key(_), rest @ ..] if section == self.things => {
                let defaults = Step::Key(self.defaults.to_owned());
                Some(std::iter::once(defaults).chain(rest.iter().cloned()).collect())
            }
            _ => None,
        }
    }

    /// Whether `path` is that of a default.
    pub(super) fn is_default(&self, path: &KeyPath) -> bool {
        matches!(path.steps(), [Step::Key(section), ..] if section == self.defaults)
    }

    pub(super) fn key(&self, name: &str) -> Option<&Key> {
        self.keys.iter().find(|key| key.name == name)
    }
}
