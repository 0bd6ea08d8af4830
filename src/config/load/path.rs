//! A place in the configuration: `routes.users.retry.on[2]`.
//!
//! A path names a place in the merged configuration, not in a file; [`super::Sources`] knows the
//! file.

use std::fmt;

/// A place in the configuration, from its root down.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyPath(Vec<Step>);

/// One step down: into a mapping or into a list.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    /// A key of a mapping, unquoted.
    Key(String),
    /// A position in a list, from 0.
    Index(usize),
}

impl KeyPath {
    /// The whole configuration; prints as the empty string.
    pub fn root() -> Self {
        KeyPath::default()
    }

    /// The value of `key` in the mapping at this path. The key may contain any character, dots
    /// included.
    #[must_use]
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.0.push(Step::Key(key.into()));
        self
    }

    /// The element at `index`, from 0, of the list at this path.
    #[must_use]
    pub fn index(mut self, index: usize) -> Self {
        self.0.push(Step::Index(index));
        self
    }

    /// Whether this is the whole configuration.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The steps from the root down; empty at the root.
    pub fn steps(&self) -> &[Step] {
        &self.0
    }

    /// The path of the mapping or list that contains this one; `None` at the root.
    pub fn parent(&self) -> Option<KeyPath> {
        let (_, above) = self.0.split_last()?;
        Some(KeyPath(above.to_vec()))
    }

    pub(super) fn last_key(&self) -> Option<&str> {
        match self.0.last()? {
            Step::Key(key) => Some(key),
            Step::Index(_) => None,
        }
    }

    pub(super) fn push(&mut self, step: Step) {
        self.0.push(step);
    }

    pub(super) fn pop(&mut self) {
        self.0.pop();
    }
}

impl FromIterator<Step> for KeyPath {
    fn from_iter<I: IntoIterator<Item = Step>>(steps: I) -> Self {
        KeyPath(steps.into_iter().collect())
    }
}

impl fmt::Display for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (depth, step) in self.0.iter().enumerate() {
            match step {
                Step::Index(index) => write!(f, "[{index}]")?,
                Step::Key(key) => {
                    f.write_str(if depth > 0 { "." } else { "" })?;
                    write_key(f, key)?;
                }
            }
        }
        Ok(())
    }
}

/// Parses what `Display` writes. Text that does not fit that form becomes a key as it is.
impl From<&str> for KeyPath {
    fn from(text: &str) -> Self {
        let mut steps = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let (step, after) =
                read_index(rest).or_else(|| read_quoted(rest)).unwrap_or_else(|| read_plain(rest));
            steps.push(step);
            rest = after.strip_prefix('.').unwrap_or(after);
        }
        KeyPath(steps)
    }
}

impl From<String> for KeyPath {
    fn from(text: String) -> Self {
        KeyPath::from(text.as_str())
    }
}

impl From<&KeyPath> for KeyPath {
    fn from(path: &KeyPath) -> Self {
        path.clone()
    }
}

fn write_key(f: &mut fmt::Formatter<'_>, key: &str) -> fmt::Result {
    let plain = |c: char| c.is_alphanumeric() || c == '_' || c == '-';
    if !key.is_empty() && key.chars().all(plain) {
        return f.write_str(key);
    }
    f.write_str("\"")?;
    for c in key.chars() {
        match c {
            '"' | '\\' => write!(f, "\\{c}")?,
            c if c.is_control() => write!(f, "{}", c.escape_default())?,
            c => write!(f, "{c}")?,
        }
    }
    f.write_str("\"")
}

fn read_index(text: &str) -> Option<(Step, &str)> {
    let (digits, after) = text.strip_prefix('[')?.split_once(']')?;
    Some((Step::Index(digits.parse().ok()?), after))
}

fn read_quoted(text: &str) -> Option<(Step, &str)> {
    let body = text.strip_prefix('"')?;
    let mut key = String::new();
    let mut chars = body.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((Step::Key(key), &body[at + 1..])),
            '\\' => key.push(chars.next()?.1),
            c => key.push(c),
        }
    }
    None
}

fn read_plain(text: &str) -> (Step, &str) {
    // Starts at the second character, so that every call consumes something.
    let end = text.char_indices().skip(1).find(|&(_, c)| c == '.' || c == '[');
    let (key, after) = text.split_at(end.map_or(text.len(), |(at, _)| at));
    (Step::Key(key.to_owned()), after)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_with_odd_characters_are_quoted() {
        let path = KeyPath::root().key("routes").key("a.b \"c\"").key("on").index(2);
        assert_eq!(path.to_string(), r#"routes."a.b \"c\"".on[2]"#);
        assert_eq!(KeyPath::root().key("a\nb").to_string(), r#""a\nb""#);
    }

    #[test]
    fn a_printed_path_reads_as_itself() {
        let path = KeyPath::root().index(0).key("routes").key("a.b[\"\\").key("").index(7);
        assert_eq!(KeyPath::from(path.to_string()), path);
        assert_eq!(KeyPath::from(""), KeyPath::root());
    }

    #[test]
    fn text_that_is_no_path_is_taken_as_keys() {
        for text in ["..", "[", "[x]", "\"", "a.", ".a", "[1", "\"a\\"] {
            assert!(!KeyPath::from(text).is_root(), "{text}");
        }
    }

    #[test]
    fn the_parent_of_a_path_is_one_step_shorter() {
        let path = KeyPath::from("routes.users");
        assert_eq!(path.parent(), Some(KeyPath::from("routes")));
        assert_eq!(KeyPath::root().parent(), None);
    }
}
