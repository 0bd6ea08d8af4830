//! What is wrong with a configuration, and where.
//!
//! A [`Problem`] names a place in the configuration, a [`Diagnostic`] a place in a file.
//! [`super::Sources`] converts one to the other.

use std::fmt;
use std::path::PathBuf;

use super::path::KeyPath;

/// A mistake found by validation, with its path in the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The place in the merged configuration.
    pub path: KeyPath,
    /// In lower case, without a full stop.
    pub message: String,
}

impl Problem {
    /// `path` is text (`"routes.users.retry"`, names with dots quoted) or built with [`KeyPath`].
    /// `message` is in lower case without a full stop, and says what would be right.
    pub fn new(path: impl Into<KeyPath>, message: impl Into<String>) -> Self {
        Problem { path: path.into(), message: message.into() }
    }

    /// Adds a "did you mean" if there is a name to suggest; see [`super::suggest()`].
    #[must_use]
    pub fn suggesting(mut self, name: Option<&str>) -> Self {
        if let Some(name) = name {
            self.message.push_str(&format!(", did you mean `{name}`?"));
        }
        self
    }
}

/// A problem with its place in a file. Ordered by place; printed as `file:line:column: path:
/// message`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Diagnostic {
    /// As named by the operator or found by `include`.
    pub file: PathBuf,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// The path in the configuration; empty for a whole file.
    pub path: String,
    /// A single line.
    pub message: String,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: ", self.file.display(), self.line, self.column)?;
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for Diagnostic {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_diagnostic_prints_as_compilers_do() {
        let mut diagnostic = Diagnostic {
            file: "conf/a.yaml".into(),
            line: 3,
            column: 7,
            path: "routes.users".into(),
            message: "missing key `upstream`".into(),
        };
        let printed = "conf/a.yaml:3:7: routes.users: missing key `upstream`";
        assert_eq!(diagnostic.to_string(), printed);
        diagnostic.path.clear();
        assert_eq!(diagnostic.to_string(), "conf/a.yaml:3:7: missing key `upstream`");
    }

    #[test]
    fn a_suggestion_is_added_only_if_there_is_one() {
        let problem = || Problem::new("routes.a.upstream", "no upstream is called `usrs`");
        assert_eq!(problem().suggesting(None), problem());
        assert!(problem().suggesting(Some("users")).message.ends_with(", did you mean `users`?"));
    }
}
