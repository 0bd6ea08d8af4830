//! What can go wrong between the recorder and its store.

use std::error::Error;

/// A row the store will never take: the value is wrong, not the moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// The row's place in the batch.
    pub(crate) index: usize,
    pub(crate) reason: String,
}

/// The store did not do it, and may do so another time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Lost(pub(crate) String);

impl Lost {
    /// Keeps the whole chain of causes: the outermost error alone hides them.
    pub(crate) fn because(error: &dyn Error) -> Self {
        Lost(chain(error))
    }
}

pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        // Some errors print their source themselves.
        let this = error.to_string();
        if !text.contains(&this) {
            text.push_str(": ");
            text.push_str(&this);
        }
        cause = error.source();
    }
    one_line(&text)
}

/// Servers may say more than a line; the log may not.
pub(crate) fn one_line(text: &str) -> String {
    text.replace(['\n', '\r'], " ")
}

/// Why the store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("record.store: names no store; set postgres.url or sqlite.path")]
    NoStore,
    #[error("record.store.postgres: {0}")]
    Postgres(String),
    /// A file that cannot be written: which, why, and what to do.
    #[error("{0}")]
    Unusable(String),
    #[error("the thread of the embedded store could not be started")]
    Thread(#[source] std::io::Error),
}
