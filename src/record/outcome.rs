//! What became of a row: where it was committed, or why it was not.

use std::time::Duration;

/// Where a row was committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Committed {
    /// It can be read from there.
    Store,
    /// The row will be shipped to the store later.
    Journal,
    /// The journal is full, and `when_full: drop` says to go on.
    Nowhere,
}

/// What happened to a row's first write by the end of its request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Commit {
    /// The request ended before it had a response.
    #[default]
    NotTried,
    /// Where.
    Made(Committed),
    /// It failed, and the client got a refusal, whose own row is not committed before it leaves.
    Failed,
}

/// Why a row was not committed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    /// With the error of the store.
    #[error("the record store is down: {0}")]
    Down(String),
    /// After this long.
    #[error("the record store did not commit within {0:?}")]
    Late(Duration),
    /// The store or the journal; the words say which.
    #[error("{0}")]
    Full(String),
    /// With the error of the store; trying again does not help.
    #[error("the record store refuses the row: {0}")]
    Refused(String),
    /// The process ends.
    #[error("the recorder is closing")]
    Closing,
}
