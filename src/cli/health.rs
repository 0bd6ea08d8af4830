//! `portcullis health`: a health check for images without a shell.

use std::process::ExitCode;

use clap::Args;

use super::running::Place;

#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(flatten)]
    place: Place,
    /// What to ask for
    #[arg(long, default_value = "/livez")]
    path: String,
}

pub(super) fn health(options: &Options) -> ExitCode {
    // It reads no configuration: a probe costs next to nothing.
    let gateway = options.place.running(None);
    match gateway.and_then(|gateway| gateway.ask("GET", &options.path)) {
        Ok(answer) if answer.status == 200 => ExitCode::SUCCESS,
        Ok(answer) => {
            eprintln!("portcullis: {} answered {}", options.path, answer.status);
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("portcullis: {error}");
            ExitCode::FAILURE
        }
    }
}
