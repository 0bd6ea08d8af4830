//! Why a journal operation failed.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;

use crate::condition::Condition;
use crate::record::outcome::Unavailable;
use crate::record::store::error::chain;
use crate::time::Clock;

pub(super) const UNKNOWN_VERSION: &str = "the file is of an unknown version";

#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error(
        "{0}: no room for more rows: the disk is full, or record.journal.max_size or the limit on the size of files is reached"
    )]
    Full(PathBuf),
    #[error("{0}: {1}")]
    Damaged(PathBuf, String),
    #[error("{0}: {1}")]
    Other(PathBuf, String),
}

impl Failure {
    /// The error reported to requests whose rows were not kept.
    pub(super) fn unavailable(&self) -> Unavailable {
        match self {
            Failure::Full(_) => Unavailable::Full(self.to_string()),
            Failure::Damaged(..) | Failure::Other(..) => Unavailable::Down(self.to_string()),
        }
    }
}

/// That the journal fails, logged when it begins and when it works again.
#[derive(Debug, Default)]
pub(super) struct Trouble(Condition);

impl Trouble {
    pub(super) fn met(&mut self, failure: &Failure) {
        if self.0.met(Clock::now()) {
            log::error!("record journal: {failure}");
        }
    }

    pub(super) fn over(&mut self) {
        if let Some(over) = self.0.over(Clock::now()) {
            log::info!("record journal: works again {over}");
        }
    }

    pub(super) fn is_met(&self) -> bool {
        self.0.is_met()
    }
}

/// What an error of SQLite means for the file at `path`.
pub(super) fn failure(path: &Path, error: &rusqlite::Error) -> Failure {
    let path = path.to_owned();
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => Failure::Full(path),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            Failure::Damaged(path, chain(error))
        }
        // Our statements are correct, so the file is in a format that no version of SQLite has.
        Some(ErrorCode::Unknown) => Failure::Damaged(path, chain(error)),
        Some(ErrorCode::ReadOnly) if has_unknown_version(&path) => {
            Failure::Damaged(path, UNKNOWN_VERSION.to_owned())
        }
        _ => match error {
            // A value of a type that was never written, or a statement of ours that does not match
            // the schema.
            rusqlite::Error::SqlInputError { .. }
            | rusqlite::Error::InvalidColumnType(..)
            | rusqlite::Error::FromSqlConversionFailure(..)
            | rusqlite::Error::IntegralValueOutOfRange(..) => Failure::Damaged(path, chain(error)),
            _ => Failure::Other(path, chain(error)),
        },
    }
}

/// Whether the file asks for a write version that does not exist (file format, section 1.3.3).
/// SQLite would open such a file read-only.
pub(super) fn has_unknown_version(path: &Path) -> bool {
    const WRITE_VERSION: usize = 18;
    let mut head = [0; WRITE_VERSION + 1];
    let is_read = File::open(path).and_then(|mut file| file.read_exact(&mut head));
    is_read.is_ok() && !matches!(head[WRITE_VERSION], 1 | 2)
}
