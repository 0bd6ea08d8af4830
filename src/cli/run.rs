//! `portcullis run`: the gateway itself.

use std::path::Path;
use std::process::ExitCode;

use crate::observe::logs;
use crate::runtime::server::{self, StartError};

pub(super) fn run(path: &Path) -> ExitCode {
    logs::init();
    match server::run(path) {
        Ok(()) => ExitCode::SUCCESS,
        Err(StartError::Config(diagnostics)) => {
            super::check::report(&diagnostics);
            ExitCode::from(super::FAILED)
        }
        Err(error) => {
            eprintln!("portcullis: {error}");
            ExitCode::from(super::FAILED)
        }
    }
}
