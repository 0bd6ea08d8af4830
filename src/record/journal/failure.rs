//! Why the journal did not do it.

use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;

use crate::record::outcome::Unavailable;
use crate::record::store::error::chain;

#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("{0}: no room for more rows: the disk or record.journal.max_size is full")]
    Full(PathBuf),
    #[error("{0}: {1}")]
    Damaged(PathBuf, String),
    #[error("{0}: {1}")]
    Other(PathBuf, String),
}

impl Failure {
    /// As the requests hear it whose rows are not kept.
    pub(super) fn unavailable(&self) -> Unavailable {
        match self {
            Failure::Full(_) => Unavailable::Full(self.to_string()),
            Failure::Damaged(..) | Failure::Other(..) => Unavailable::Down(self.to_string()),
        }
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
        _ => match error {
            // A value of another kind than was ever written; a statement of ours that the schema does
            // not know.
            rusqlite::Error::SqlInputError { .. }
            | rusqlite::Error::InvalidColumnType(..)
            | rusqlite::Error::FromSqlConversionFailure(..)
            | rusqlite::Error::IntegralValueOutOfRange(..) => Failure::Damaged(path, chain(error)),
            _ => Failure::Other(path, chain(error)),
        },
    }
}
