//! Values in force as a configuration file that reads as the same configuration.

use std::fmt::Write;

use serde_json::Value;

use super::HIDDEN;
use crate::config::effective::{Effective, Origin, Shape};

/// Whether secrets are written out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum Secrets {
    Hidden,
    /// For the test that reads the file again.
    #[cfg(test)]
    Shown,
}

/// The whole file, with the origin of each value as a comment.
pub(in crate::cli) fn file(all: &Effective, secrets: Secrets) -> String {
    let mut text = String::new();
    if let Shape::Map(entries) = &all.value {
        map(&mut text, entries, 0, secrets);
    }
    text
}

fn map(text: &mut String, entries: &[(String, Effective)], depth: usize, secrets: Secrets) {
    for (name, part) in entries {
        indent(text, depth);
        text.push_str(&scalar(&Value::String(name.clone())));
        text.push(':');
        value(text, part, depth, secrets);
    }
}

/// What follows a key or a dash, with the end of the line.
fn value(text: &mut String, part: &Effective, depth: usize, secrets: Secrets) {
    match &part.value {
        Shape::Map(entries) if !entries.is_empty() => {
            text.push('\n');
            map(text, entries, depth + 1, secrets);
        }
        Shape::List(elements) if !elements.is_empty() => {
            text.push('\n');
            for element in elements {
                indent(text, depth + 1);
                text.push('-');
                value(text, element, depth + 1, secrets);
            }
        }
        Shape::Map(_) => line(text, "{}", &part.origin),
        Shape::List(_) => line(text, "[]", &part.origin),
        Shape::Scalar(_) if part.hidden && secrets == Secrets::Hidden => {
            line(text, &scalar(&HIDDEN.into()), &part.origin);
        }
        Shape::Scalar(value) => line(text, &scalar(value), &part.origin),
    }
}

fn line(text: &mut String, value: &str, origin: &Origin) {
    // Writing to a string does not fail.
    let _ = match origin {
        Origin::Default => writeln!(text, " {value}  # default"),
        Origin::File { path, line, references, default } => {
            let default = default.as_ref().map(|default| format!("{default}, "));
            let place = format!("{}{}:{line}", default.unwrap_or_default(), path.display());
            let from = references.join(" ");
            let from = if from.is_empty() { from } else { format!(", from {from}") };
            // A path may hold anything, and a comment ends with its line.
            let comment: String = format!("{place}{from}")
                .chars()
                .map(|c| if c.is_control() { '?' } else { c })
                .collect();
            writeln!(text, " {value}  # {comment}")
        }
    };
}

fn indent(text: &mut String, depth: usize) {
    text.extend(std::iter::repeat_n("  ", depth));
}

/// On one line. A dollar sign that could begin a reference is written twice.
fn scalar(value: &Value) -> String {
    let Value::String(text) = value else { return value.to_string() };
    let text = if text.contains("${") || text.contains("$$") {
        text.replace('$', "$$")
    } else {
        text.clone()
    };
    match serde_yaml::to_string(&text) {
        Ok(plain) if plain.lines().count() == 1 => plain.trim_end().to_owned(),
        // A string of JSON is one of YAML.
        Ok(_) | Err(_) => Value::String(text).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::effective::effective;
    use crate::config::{Config, Environment};

    /// What the files require.
    const NEEDED: [(&str, &str); 2] =
        [("API_KEY", "key-0123456789abcdef"), ("REGISTRY_TOKEN", "token-0123456789abcdef")];

    /// Every value is written out, so a default that the schema has wrong would be another value.
    #[test]
    fn what_is_in_force_reads_as_the_same_configuration() {
        let conf = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf");
        let mut files = 0;
        for entry in std::fs::read_dir(conf).expect("conf") {
            let path = entry.expect("an entry").path();
            if path.extension().is_none_or(|ext| ext != "yaml") {
                continue;
            }
            let none = Environment::fixed(NEEDED);
            let (config, sources) = Config::load(&path, &none).expect("valid");
            let text = file(&effective(&sources), Secrets::Shown);
            let directory = tempfile::tempdir().expect("a directory");
            let copy = directory.path().join("copy.yaml");
            std::fs::write(&copy, &text).expect("a file");
            let (mut read, _) =
                Config::load(&copy, &none).unwrap_or_else(|e| panic!("{e:?}\n{text}"));
            // Relative to their files.
            for (name, descriptors) in &mut read.descriptors {
                descriptors.file = config.descriptors[name].file.clone();
            }
            for (name, upstream) in &mut read.upstreams {
                upstream.discover = config.upstreams[name].discover.clone();
            }
            // They are written out in each route.
            read.defaults = config.defaults.clone();
            assert_eq!(read, config, "{text}");
            files += 1;
        }
        assert!(files >= 6, "{files}");
    }
}
