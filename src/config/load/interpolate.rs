//! `${…}` inside a string.
//!
//! | written | means |
//! |---|---|
//! | `${VAR}` | the variable; an error if it is not set |
//! | `${VAR:-default}` | the variable, or the default if it is not set or empty |
//! | `${VAR:?why}` | the variable; an error that says why, if it is not set or empty |
//! | `${file:path}` | the file's content without a byte order mark and one trailing newline |
//! | `$$` | `$` |
//!
//! A default and a path may contain further `${…}`; an inserted value is not expanded again. A `$`
//! before anything else stands for itself. No error here quotes a value.

use std::path::{Path, PathBuf};

use super::environment::Environment;
use super::file::read_bounded;
use crate::config::code::Code;
use crate::files::text::text_of;

const MAX_NESTING: usize = 16;

/// A string with its references replaced.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Interpolated {
    pub(super) value: String,
    /// The references it was made from: `${VAR}` without its default, or `${file:path}`.
    pub(super) origins: Vec<String>,
    /// The whole string was `${VAR:-…}` and came out empty, so it counts as not written.
    pub(super) absent: bool,
}

/// Replaces the references in `text`. Paths of files are relative to `directory`; `files` gets each
/// that is referred to, whether it can be read or not.
///
/// # Errors
/// Every reference that could not be resolved, and what to do about it.
pub(super) fn interpolate(
    text: &str,
    environment: &Environment,
    directory: &Path,
    files: &mut Vec<PathBuf>,
) -> Result<Interpolated, Vec<ReferenceError>> {
    let mut expansion = Expansion {
        environment,
        directory,
        files,
        origins: Vec::new(),
        errors: Vec::new(),
        nesting: 0,
    };
    let value = expansion.expand(text);
    if !expansion.errors.is_empty() {
        return Err(expansion.errors);
    }
    let absent = value.is_empty() && is_one_default(text);
    Ok(Interpolated { value, origins: expansion.origins, absent })
}

/// A reference that could not be resolved. Its remedy is that of the code if it has none.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ReferenceError {
    pub(super) code: Code,
    pub(super) message: String,
    pub(super) remedy: Option<String>,
}

struct Expansion<'a> {
    environment: &'a Environment,
    directory: &'a Path,
    files: &'a mut Vec<PathBuf>,
    origins: Vec<String>,
    errors: Vec<ReferenceError>,
    nesting: usize,
}

impl Expansion<'_> {
    fn expand(&mut self, text: &str) -> String {
        let mut expanded = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('$') {
            expanded.push_str(before);
            if let Some(after) = after.strip_prefix('$') {
                expanded.push('$');
                rest = after;
                continue;
            }
            let Some(after) = after.strip_prefix('{') else {
                expanded.push('$');
                rest = after;
                continue;
            };
            let Some(end) = closing_brace(after) else {
                self.fail(Code::ReferenceUnclosed, "a `${` is not closed".to_owned());
                return expanded;
            };
            expanded.push_str(&self.evaluate(&after[..end]).unwrap_or_default());
            rest = &after[end + 1..];
        }
        expanded.push_str(rest);
        expanded
    }

    /// The value of the reference between the braces; `None` after an error.
    fn evaluate(&mut self, reference: &str) -> Option<String> {
        if let Some(path) = reference.strip_prefix("file:") {
            return self.content_of(path);
        }
        let (name, rest) = split_name(reference);
        if name.is_empty() {
            let message = "a `${` needs the name of a variable".to_owned();
            return self.fail(Code::ReferenceForm, message);
        }
        let value = match self.environment.lookup(name) {
            Ok(value) => value,
            Err(error) => return self.fail(Code::VariableNotText, error),
        };
        self.origins.push(format!("${{{name}}}"));
        if rest.is_empty() {
            return value.or_else(|| {
                self.errors.push(ReferenceError {
                    code: Code::VariableUnset,
                    message: format!("the environment variable `{name}` is not set"),
                    remedy: Some(format!("set it or give it a default: ${{{name}:-default}}")),
                });
                None
            });
        }
        let value = value.filter(|value| !value.is_empty());
        if let Some(default) = rest.strip_prefix(":-") {
            return value.or_else(|| self.nested(default));
        }
        if let Some(why) = rest.strip_prefix(":?") {
            let why = if why.is_empty() { "it is required" } else { why };
            return value.or_else(|| {
                let message = format!("the environment variable `{name}` must be set: {why}");
                self.fail(Code::VariableRequired, message)
            });
        }
        let message = format!("what follows `${{{name}` is not understood");
        self.fail(Code::ReferenceForm, message)
    }

    fn content_of(&mut self, written: &str) -> Option<String> {
        let failures = self.errors.len();
        let path = self.nested(written)?;
        if self.errors.len() > failures {
            return None;
        }
        self.origins.push(format!("${{file:{written}}}"));
        let file = self.directory.join(&path);
        let read = read_bounded(&file);
        self.files.push(file);
        let bytes = match read {
            Ok(bytes) => bytes,
            Err((_, error)) => {
                return self.fail(Code::ReferencedFile, format!("the file `{written}` {error}"));
            }
        };
        match text_of(&bytes) {
            Ok(text) => {
                let line = text.strip_suffix('\n');
                let line = line.map(|line| line.strip_suffix('\r').unwrap_or(line));
                Some(line.unwrap_or(text).to_owned())
            }
            Err(error) => {
                self.errors.push(ReferenceError {
                    code: Code::ReferencedFile,
                    message: format!("the file `{written}` {}", error.reason),
                    remedy: Code::FileNotUtf8.remedy().map(str::to_owned),
                });
                None
            }
        }
    }

    fn nested(&mut self, text: &str) -> Option<String> {
        if self.nesting == MAX_NESTING {
            let message = format!("`${{` nested more than {MAX_NESTING} levels deep");
            return self.fail(Code::ReferenceTooDeep, message);
        }
        self.nesting += 1;
        let expanded = self.expand(text);
        self.nesting -= 1;
        Some(expanded)
    }

    fn fail(&mut self, code: Code, message: String) -> Option<String> {
        self.errors.push(ReferenceError { code, message, remedy: None });
        None
    }
}

/// The position of the brace that closes the one just before `text`.
fn closing_brace(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let (mut at, mut open) = (0, 0_usize);
    while let Some(&byte) = bytes.get(at) {
        match (byte, bytes.get(at + 1)) {
            (b'$', Some(b'$')) => at += 1,
            (b'$', Some(b'{')) => {
                open += 1;
                at += 1;
            }
            (b'}', _) if open == 0 => return Some(at),
            (b'}', _) => open -= 1,
            _ => {}
        }
        at += 1;
    }
    None
}

fn split_name(reference: &str) -> (&str, &str) {
    let end = reference.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let (name, rest) = reference.split_at(end.unwrap_or(reference.len()));
    if name.starts_with(|c: char| c.is_ascii_digit()) { ("", reference) } else { (name, rest) }
}

fn is_one_default(text: &str) -> bool {
    let Some(inside) = text.strip_prefix("${") else { return false };
    let alone = closing_brace(inside).is_some_and(|end| end + 1 == inside.len());
    alone && split_name(inside).1.starts_with(":-")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(text: &str) -> Result<Interpolated, Vec<ReferenceError>> {
        let environment =
            Environment::fixed([("PORT", "8080"), ("EMPTY", ""), ("KEY", "hunter2-${PORT}")]);
        interpolate(text, &environment, Path::new("/nonexistent"), &mut Vec::new())
    }

    fn value(text: &str) -> String {
        run(text).expect("resolves").value
    }

    fn error(text: &str) -> String {
        let errors = run(text).expect_err("fails");
        let text = |e: &ReferenceError| {
            let remedy = e.remedy.as_deref().or_else(|| e.code.remedy());
            format!("{}; {}", e.message, remedy.unwrap_or_default())
        };
        errors.iter().map(text).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn a_variable_takes_its_place() {
        assert_eq!(value("0.0.0.0:${PORT}/x"), "0.0.0.0:8080/x");
        assert_eq!(value("${EMPTY}"), "");
        assert_eq!(run("a${PORT}").expect("resolves").origins, ["${PORT}"]);
        assert!(run("plain").expect("resolves").origins.is_empty());
    }

    #[test]
    fn a_default_stands_in_for_unset_and_for_empty() {
        assert_eq!(value("${NO:-http://h:1/x?a}"), "http://h:1/x?a");
        assert_eq!(value("${EMPTY:-d}"), "d");
        assert_eq!(value("${PORT:-d}"), "8080");
        assert_eq!(value("${NO:-a${NO:-b${PORT}}c}d"), "ab8080cd");
        assert_eq!(value("${NO:-}"), "");
    }

    #[test]
    fn a_value_that_came_in_is_not_expanded_again() {
        assert_eq!(value("${KEY}"), "hunter2-${PORT}");
    }

    #[test]
    fn a_dollar_sign_can_be_written() {
        assert_eq!(value("$$"), "$");
        assert_eq!(value("$${PORT}"), "${PORT}");
        assert_eq!(value("${NO:-$$}}"), "$}");
        assert_eq!(value("^/a$"), "^/a$");
        assert_eq!(value("$PORT"), "$PORT");
    }

    #[test]
    fn only_a_lone_empty_default_counts_as_absent() {
        assert!(run("${NO:-}").expect("resolves").absent);
        assert!(run("${EMPTY:-${NO:-}}").expect("resolves").absent);
        assert!(!run("${EMPTY}").expect("resolves").absent);
        assert!(!run("${NO:-}${NO:-}").expect("resolves").absent);
        assert!(!run("${PORT:-}").expect("resolves").absent);
        assert!(!run("").expect("resolves").absent);
    }

    #[test]
    fn an_unset_variable_is_named_with_the_remedy() {
        assert_eq!(
            error("${NO}"),
            "the environment variable `NO` is not set; set it or give it a default: ${NO:-default}"
        );
        assert_eq!(
            error("${EMPTY:?ask the team}"),
            "the environment variable `EMPTY` must be set: ask the team; set it"
        );
        assert_eq!(run("${A}${B}").expect_err("fails").len(), 2);
    }

    #[test]
    fn what_is_not_understood_is_an_error_without_the_text() {
        for text in
            ["${", "x${NO:-", "${NO:-${NO}", "${}", "${1A}", "${KEY-x}", "${KEY:x}", "${a b}"]
        {
            let error = error(text);
            assert!(error.contains("$"), "{text}: {error}");
            assert!(!error.contains("hunter2"), "{text}: {error}");
        }
    }

    #[test]
    fn nesting_is_bounded() {
        let text = format!("{}x{}", "${NO:-".repeat(40), "}".repeat(40));
        assert!(error(&text).starts_with("`${` nested more than 16 levels deep; "));
    }

    #[test]
    fn a_file_gives_its_content_without_one_newline() {
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::write(directory.path().join("key"), "hunter2\n\n").expect("written");
        std::fs::write(directory.path().join("bad"), b"\xff").expect("written");
        let environment = Environment::fixed([("NAME", "key")]);
        let run = |text| interpolate(text, &environment, directory.path(), &mut Vec::new());
        assert_eq!(run("${file:key}").expect("read").value, "hunter2\n");
        assert_eq!(run("${file:${NAME}}").expect("read").value, "hunter2\n");
        let missing = run("${file:none}").expect_err("fails");
        let why = "the file `none` cannot be read: No such file or directory";
        assert_eq!((missing.len(), missing[0].message.as_str()), (1, why));
        assert!(run("${file:bad}").is_err());
        std::fs::write(directory.path().join("marked"), "\u{feff}hunter2\r\n").expect("written");
        assert_eq!(run("${file:marked}").expect("read").value, "hunter2");
        std::fs::write(directory.path().join("wide"), b"\xff\xfeh\0").expect("written");
        let wide = run("${file:wide}").expect_err("fails");
        assert_eq!(wide[0].message, "the file `wide` is in UTF-16");
        assert_eq!(wide[0].remedy.as_deref(), Some("save it as UTF-8"));
        assert!(run("${file:}").is_err());
    }
}
