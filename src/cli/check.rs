//! `portcullis check`: reports everything wrong with a configuration, and starts nothing.

use std::process::ExitCode;

use clap::Args;

use super::diagnostics::{self, Format};
use crate::config::code::Code;
use crate::config::{Config, Diagnostic, Location};
use crate::observe::metrics::Metrics;
use crate::runtime::descriptors::Descriptors;
use crate::runtime::reload;

#[derive(Debug, Args)]
#[command(after_help = "Exit codes: 0 without errors, 1 with errors, 2 for a wrong command line.

Examples:
  portcullis check -c portcullis.yaml --deny-warnings
  helm template . | yq .data.config | portcullis check -c - --format json")]
pub(super) struct Options {
    #[command(flatten)]
    file: super::File,
    /// How to write what is found; default: `full` on a terminal, else `line`
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Exit with 1 if there are warnings
    #[arg(long)]
    deny_warnings: bool,
}

impl Options {
    /// As for `check -c FILE`.
    pub(super) fn of(file: super::File) -> Self {
        Options { file, format: None, deny_warnings: false }
    }
}

pub(super) fn check(options: &Options) -> ExitCode {
    let location = options.file.location();
    let path = &location.file;
    let (found, not_enforced) = diagnose(&location);
    let format = options.format.unwrap_or_else(Format::of_stderr);
    diagnostics::write(&found, format);
    if format != Format::Json {
        for path in not_enforced {
            eprintln!("note: {path} is not enforced");
        }
    }
    let errors = found.iter().filter(|diagnostic| diagnostic.is_error()).count();
    let denied = options.deny_warnings && !found.is_empty();
    if errors == 0 && format != Format::Json {
        println!("{}: {}", path.display(), if denied { "has warnings" } else { "ok" });
    }
    ExitCode::from(if errors > 0 || denied { super::FAILED } else { 0 })
}

/// Everything found, warnings included; and the paths of the policies that are dry runs.
pub(super) fn diagnose(location: &Location) -> (Vec<Diagnostic>, Vec<String>) {
    // Warnings are those that the gateway would log at its start, under the limit it would have.
    Descriptors::raise();
    let compiled = location.environment().and_then(|environment| {
        let (config, sources) = Config::load(&location.file, &environment)?;
        let metrics = Metrics::new().map_err(|error| {
            vec![Diagnostic::of_file(Code::Internal, &location.file, error.to_string())]
        })?;
        let not_enforced = config.not_enforced();
        let (_, warnings) = reload::compile(config, &sources, &environment, None, &metrics)?;
        Ok((warnings, not_enforced))
    });
    compiled.unwrap_or_else(|diagnostics| (diagnostics, Vec::new()))
}
