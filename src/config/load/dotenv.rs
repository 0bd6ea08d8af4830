//! The file `.env`: variables for `${VAR}`, one to a line.
//!
//! | written | means |
//! |---|---|
//! | `NAME=value` | the value without spaces around it; ` #` begins a comment |
//! | `NAME='value'` | everything between the quotes |
//! | `NAME="value"` | the same, with `\n`, `\t`, `\"`, `\\` and `\$` replaced |
//! | `export NAME=…` | as without `export` |
//! | `# …` | a comment |
//!
//! A value is not expanded: `$` stands for itself. The later of two lines with one name counts.

use std::collections::BTreeMap;

use crate::files::text::{NotText, text_of};

/// The name of the file, beside the configuration.
pub(super) const NAME: &str = ".env";

/// A line that is not understood. Does not repeat it, because it may hold a secret.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mistake {
    /// From 1.
    pub(super) line: usize,
    pub(super) message: &'static str,
}

/// The variables in the file.
///
/// # Errors
/// The first line that is not understood.
pub(super) fn parse(bytes: &[u8]) -> Result<BTreeMap<String, String>, Mistake> {
    let text = text_of(bytes).map_err(|NotText { good, reason }| {
        let line = bytes[..good].iter().filter(|byte| **byte == b'\n').count() + 1;
        Mistake { line, message: reason }
    })?;
    let mut variables = BTreeMap::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, value) =
            variable(line).map_err(|message| Mistake { line: number + 1, message })?;
        variables.insert(name, value);
    }
    Ok(variables)
}

fn variable(line: &str) -> Result<(String, String), &'static str> {
    let line = line.strip_prefix("export ").unwrap_or(line);
    let (name, value) = line.split_once('=').ok_or("expected NAME=value")?;
    let name = name.trim_end();
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) || !name.chars().all(word)
    {
        return Err("expected NAME=value, with a name of letters, digits and underscores");
    }
    let value = value.trim_start();
    let value = match value.chars().next() {
        Some('\'') => quoted(&value[1..], '\'')?,
        Some('"') => quoted(&value[1..], '"')?,
        Some('#') | None => String::new(),
        Some(_) => {
            let end = value.find(" #").or_else(|| value.find("\t#")).unwrap_or(value.len());
            value[..end].trim_end().to_owned()
        }
    };
    Ok((name.to_owned(), value))
}

/// The value up to the closing `quote`, after which only a comment may follow.
fn quoted(text: &str, quote: char) -> Result<String, &'static str> {
    let mut value = String::new();
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        match c {
            c if c == quote => {
                let after = rest.as_str().trim_start();
                return match after.is_empty() || after.starts_with('#') {
                    true => Ok(value),
                    false => Err("there is more after the closing quote"),
                };
            }
            '\\' if quote == '"' => value.push(match rest.next() {
                Some('n') => '\n',
                Some('t') => '\t',
                Some(c @ ('"' | '\\' | '$')) => c,
                Some(_) | None => return Err("expected \\n, \\t, \\\", \\\\ or \\$"),
            }),
            c => value.push(c),
        }
    }
    Err("a quote is not closed on its line")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_what_is_written_or_what_is_between_its_quotes() {
        for (line, value) in [
            ("A=b", "b"),
            ("export A=b", "b"),
            ("  A = b c  # comment", "b c"),
            ("A=b#c", "b#c"),
            ("A=", ""),
            ("A= # nothing", ""),
            ("A='b # $c\\n'", "b # $c\\n"),
            (r#"A="b \"c\" \\ \n" # comment"#, "b \"c\" \\ \n"),
            ("A=postgres://u:p@h/d?x=y", "postgres://u:p@h/d?x=y"),
            ("# comment\n\nA=1\r\nA=2\r\n", "2"),
            ("\u{feff}A=b", "b"),
        ] {
            let variables = parse(line.as_bytes()).expect(line);
            assert_eq!(variables.into_iter().collect::<Vec<_>>(), [("A".into(), value.into())]);
        }
        assert_eq!(parse(b""), Ok(BTreeMap::new()));
    }

    #[test]
    fn a_line_that_is_not_understood_is_named_and_not_repeated() {
        for (text, line) in [
            ("A=1\nB", 2),
            ("A B=1", 1),
            ("1A=1", 1),
            ("=1", 1),
            ("A='b", 1),
            ("A=\"b\\q\"", 1),
            ("\n\nA='b'c", 3),
        ] {
            let mistake = parse(text.as_bytes()).expect_err(text);
            assert_eq!(mistake.line, line, "{text}");
        }
        assert_eq!(parse(b"A=1\nB=\xff").expect_err("not text").line, 2);
    }
}
