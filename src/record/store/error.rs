//! What can go wrong between the recorder and its store.

use std::error::Error;

/// A row the store will never accept, because of its values and not of the moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// The row's index in the batch.
    pub(crate) index: usize,
    pub(crate) reason: String,
}

/// The store failed to do it; a later attempt may succeed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Lost(pub(crate) String);

impl Lost {
    /// Keeps the whole chain of causes, because the outermost error alone says too little.
    pub(crate) fn because(error: &dyn Error) -> Self {
        Lost(chain(error))
    }
}

pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        // Some errors include their source in their own message.
        let this = error.to_string();
        if !text.contains(&this) {
            text.push_str(": ");
            text.push_str(&this);
        }
        cause = error.source();
    }
    one_line(&text)
}

/// An error as one line for the log, though servers may send several.
pub(crate) fn one_line(text: &str) -> String {
    text.replace(['\n', '\r'], " ")
}

/// Why the store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Neither has its URL or path.
    #[error("record.store: names no store; set postgres.url or sqlite.path")]
    NoStore,
    /// The settings of TLS or of the pool do not fit; nothing was connected yet.
    #[error("record.store.postgres: {0}")]
    Postgres(String),
    /// A file that cannot be written: which, why, and what to do.
    #[error("{0}")]
    Unusable(String),
    /// The system's limit on threads.
    #[error("the thread of the embedded store could not be started")]
    Thread(#[source] std::io::Error),
}
