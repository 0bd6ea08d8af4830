//! `portcullis schema`: the configuration as editors check it.

use std::process::ExitCode;

use crate::config::schema;

pub(super) fn schema() -> ExitCode {
    println!("{:#}", schema::for_editors());
    ExitCode::SUCCESS
}
