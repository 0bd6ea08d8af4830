//! `portcullis config`: what is in force, and where each value comes from.

pub(super) mod yaml;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use serde_json::{Map, Value, json};

use super::File;
use crate::config::Config;
use crate::config::effective::{self, Effective, Origin, Shape};

#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(flatten)]
    file: File,
    #[arg(long, value_enum, default_value_t = Format::Yaml)]
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A configuration file, with the origin of each value as a comment
    Yaml,
    /// The same tree; each value is an object with its origin
    Json,
}

/// Shown instead of what may be a secret.
const HIDDEN: &str = "***";

pub(super) fn config(options: &Options) -> ExitCode {
    let sources = match Config::at(&options.file.location()) {
        Ok((_, sources)) => sources,
        Err(diagnostics) => {
            super::diagnostics::write(&diagnostics, super::diagnostics::Format::of_stderr());
            return ExitCode::from(super::FAILED);
        }
    };
    let all = effective::effective(&sources);
    let text = match options.format {
        Format::Yaml => yaml::file(&all, yaml::Secrets::Hidden),
        Format::Json => format!("{:#}\n", tree(&all)),
    };
    super::written(io::stdout().lock().write_all(text.as_bytes()))
}

/// Mappings and lists as they are, single values with their origin.
fn tree(part: &Effective) -> Value {
    match &part.value {
        Shape::Map(entries) => {
            Value::Object(entries.iter().map(|(name, part)| (name.clone(), tree(part))).collect())
        }
        Shape::List(elements) => elements.iter().map(tree).collect(),
        Shape::Scalar(value) => {
            let mut leaf = Map::new();
            let shown = if part.hidden { &json!(HIDDEN) } else { value };
            leaf.insert("value".to_owned(), shown.clone());
            match &part.origin {
                Origin::Default => {
                    leaf.insert("origin".to_owned(), json!("default"));
                }
                Origin::File { path, line, references, default } => {
                    let place = format!("{}:{line}", path.display());
                    leaf.insert("origin".to_owned(), place.into());
                    if let Some(default) = default {
                        leaf.insert("default".to_owned(), default.to_string().into());
                    }
                    if !references.is_empty() {
                        leaf.insert("references".to_owned(), json!(references));
                    }
                }
            }
            if part.hidden {
                leaf.insert("hidden".to_owned(), true.into());
            }
            Value::Object(leaf)
        }
    }
}
