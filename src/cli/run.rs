//! `portcullis run`: the gateway itself.

use std::process::ExitCode;
use std::time::Duration;

use super::diagnostics::{self, Format};
use crate::config::Location;
use crate::observe::logs::Logs;
use crate::runtime::server;
use crate::runtime::start_error::StartError;
use crate::runtime::upgrade::activation::Activated;

/// Limit on writing the last lines of the log.
const FLUSH: Duration = Duration::from_secs(1);

pub(super) fn run(location: &Location) -> ExitCode {
    if location.file.as_os_str() == "-" {
        eprintln!("portcullis: -c -: a gateway reads its file again at every reload: name a file");
        return ExitCode::from(super::USAGE);
    }
    // Logs are written by a thread.
    let activated = Activated::from_environment();
    let logs = match Logs::start() {
        Ok(logs) => logs,
        Err(error) => {
            eprintln!("portcullis: {error}");
            return ExitCode::from(super::FAILED);
        }
    };
    let ended = server::run(location, &logs, activated);
    // What was logged comes before why it ended.
    logs.flush(FLUSH);
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(StartError::Config(diagnostics)) => {
            diagnostics::write(&diagnostics, Format::of_stderr());
            ExitCode::from(super::FAILED)
        }
        Err(error) => {
            eprintln!("portcullis: {error}");
            ExitCode::from(super::FAILED)
        }
    }
}
