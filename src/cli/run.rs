//! `portcullis run`: the gateway itself.

use std::process::ExitCode;
use std::time::Duration;

use crate::config::Location;
use crate::observe::logs::Logs;
use crate::runtime::server::{self, StartError};

/// Limit on writing the last lines of the log.
const FLUSH: Duration = Duration::from_secs(1);

pub(super) fn run(location: &Location) -> ExitCode {
    let logs = match Logs::start() {
        Ok(logs) => logs,
        Err(error) => {
            eprintln!("portcullis: {error}");
            return ExitCode::from(super::FAILED);
        }
    };
    let ended = server::run(location, &logs);
    // What was logged comes before why it ended.
    logs.flush(FLUSH);
    match ended {
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
