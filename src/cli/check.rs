//! `portcullis check`: reports everything wrong with a configuration, and starts nothing.

use std::process::ExitCode;

use crate::config::{Config, Diagnostic, Location};
use crate::observe::metrics::Metrics;
use crate::runtime::descriptors::Descriptors;
use crate::runtime::reload;

pub(super) fn check(location: &Location) -> ExitCode {
    match errors_in(location) {
        Ok(()) => {
            println!("{}: ok", location.file.display());
            ExitCode::SUCCESS
        }
        Err(diagnostics) => {
            report(&diagnostics);
            ExitCode::from(super::FAILED)
        }
    }
}

fn errors_in(location: &Location) -> Result<(), Vec<Diagnostic>> {
    let (config, sources) = Config::at(location)?;
    let metrics = Metrics::new().map_err(|error| {
        let message = error.to_string();
        vec![Diagnostic {
            file: location.file.clone(),
            line: 1,
            column: 1,
            path: String::new(),
            message,
        }]
    })?;
    // The warnings that the gateway would log at its start, under the present limit on open files.
    let warnings = Descriptors::raise().warnings(&config.server);
    reload::compile(config, &sources, &metrics)?;
    for warning in warnings {
        eprintln!("warning: {warning}");
    }
    Ok(())
}

/// Prints one line per error on standard error.
pub(super) fn report(diagnostics: &[Diagnostic]) {
    for diagnostic in diagnostics {
        eprintln!("{diagnostic}");
    }
    let errors = diagnostics.len();
    eprintln!("{errors} error{}", if errors == 1 { "" } else { "s" });
}
