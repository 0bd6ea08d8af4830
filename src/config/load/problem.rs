//! What is wrong with a configuration, and where.
//!
//! A [`Problem`] names a place in the configuration, a [`Diagnostic`] a place in a file.
//! [`super::Sources`] converts one to the other.

use std::fmt;
use std::path::{Path, PathBuf};

use super::path::KeyPath;
use crate::config::code::{Code, Severity};

/// A mistake found by validation, with its path in the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The place in the merged configuration.
    pub path: KeyPath,
    /// What kind of mistake it is.
    pub code: Code,
    /// In lower case, without a full stop.
    pub message: String,
    /// What to do about it; `None` if there is nothing to say.
    pub remedy: Option<String>,
    /// What it does not fit together with: told if one of the two is a default, and so far away.
    pub with: Vec<KeyPath>,
    /// A value elsewhere whose place the message ends with.
    pub beside: Option<Box<KeyPath>>,
}

impl Problem {
    /// `path` is text (`"routes.users.retry"`, names with dots quoted) or built with [`KeyPath`].
    /// `message` is in lower case without a full stop; one that begins with `KEY: ` is about the value
    /// of this key below `path`. The remedy is that of `code`.
    pub fn new(code: Code, path: impl Into<KeyPath>, message: impl Into<String>) -> Self {
        Problem {
            path: path.into(),
            code,
            message: message.into(),
            remedy: code.remedy().map(str::to_owned),
            with: Vec::new(),
            beside: None,
        }
    }

    /// Says what to do instead of what `code` says.
    #[must_use]
    pub fn remedied(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    /// Tells where the other value is that the message speaks of.
    #[must_use]
    pub fn beside(mut self, other: impl Into<KeyPath>) -> Self {
        self.beside = Some(Box::new(other.into()));
        self
    }

    /// Names one more value that it does not fit together with.
    #[must_use]
    pub fn with(mut self, other: impl Into<KeyPath>) -> Self {
        self.with.push(other.into());
        self
    }

    /// Asks "did you mean" if there is a name to suggest; see [`super::suggest()`].
    #[must_use]
    pub fn suggesting(mut self, name: Option<&str>) -> Self {
        if let Some(name) = name {
            self.remedy = Some(did_you_mean(name));
        }
        self
    }
}

/// A remedy that suggests a name.
pub(super) fn did_you_mean(name: &str) -> String {
    format!("{QUESTION} `{name}`?")
}

const QUESTION: &str = "did you mean";

/// A problem with its place in a file. Ordered by place; printed as `file:line:column: path:
/// message; remedy`, with `warning: ` before the path of a warning.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Diagnostic {
    /// As named by the operator or found by `include`.
    pub file: PathBuf,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// The column after the last character of what is wrong; `column` if that is not known.
    pub end: usize,
    /// The path in the configuration; empty for a whole file.
    pub path: String,
    /// A single line.
    pub message: String,
    /// A single line that says what to do; `None` if the message says it.
    pub remedy: Option<String>,
    /// What kind of mistake it is.
    pub code: Code,
    /// The line of the file, with secrets replaced; `None` if there is nothing to show.
    pub source: Option<String>,
}

impl Diagnostic {
    /// One about a whole file.
    pub fn of_file(code: Code, file: &Path, message: impl Into<String>) -> Self {
        Diagnostic {
            file: file.to_owned(),
            line: 1,
            column: 1,
            end: 1,
            path: String::new(),
            message: message.into(),
            remedy: code.remedy().map(str::to_owned),
            code,
            source: None,
        }
    }

    /// Whether the configuration is refused because of it.
    pub fn is_error(&self) -> bool {
        self.code.severity() == Severity::Error
    }

    /// The message and the remedy.
    pub fn text(&self) -> String {
        match &self.remedy {
            Some(remedy) if remedy.starts_with(QUESTION) => format!("{}, {remedy}", self.message),
            Some(remedy) => format!("{}; {remedy}", self.message),
            None => self.message.clone(),
        }
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: ", self.file.display(), self.line, self.column)?;
        match self.code.severity() {
            Severity::Error => {}
            Severity::Warning => f.write_str("warning: ")?,
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.text())
    }
}

impl std::error::Error for Diagnostic {}

#[cfg(test)]
mod tests {
    use super::*;

    fn diagnostic(code: Code) -> Diagnostic {
        Diagnostic {
            line: 3,
            column: 7,
            path: "routes.users".into(),
            ..Diagnostic::of_file(code, Path::new("conf/a.yaml"), "missing key `upstream`")
        }
    }

    #[test]
    fn a_diagnostic_prints_as_compilers_do() {
        let mut diagnostic = diagnostic(Code::MissingKey);
        let printed = "conf/a.yaml:3:7: routes.users: missing key `upstream`; add it";
        assert_eq!(diagnostic.to_string(), printed);
        diagnostic.path.clear();
        diagnostic.remedy = None;
        assert_eq!(diagnostic.to_string(), "conf/a.yaml:3:7: missing key `upstream`");
    }

    #[test]
    fn a_warning_says_that_it_is_one() {
        let printed = diagnostic(Code::UnusedUpstream).to_string();
        assert!(printed.starts_with("conf/a.yaml:3:7: warning: routes.users: "), "{printed}");
    }

    #[test]
    fn a_suggestion_replaces_the_remedy_only_if_there_is_one() {
        let problem = || Problem::new(Code::UnknownName, "routes.a.upstream", "no such name");
        assert_eq!(problem().suggesting(None), problem());
        let suggested = problem().suggesting(Some("users")).remedy;
        assert_eq!(suggested.as_deref(), Some("did you mean `users`?"));
    }
}
