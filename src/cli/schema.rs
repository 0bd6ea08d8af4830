//! `portcullis schema`: the configuration as editors check it.

use std::io::{self, Write};
use std::process::ExitCode;

use crate::config::schema;

pub(super) fn schema() -> ExitCode {
    super::written(writeln!(io::stdout().lock(), "{:#}", schema::for_editors()))
}
