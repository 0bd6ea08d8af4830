//! Why the process could not start.

use crate::config::Diagnostic;

/// Why the process could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Every mistake, in the order of the files.
    #[error("the configuration has errors")]
    Config(Vec<Diagnostic>),
    /// An address cannot be bound.
    #[error("{name}: cannot listen on {address}: {source}")]
    Listen {
        /// The key with the address, such as `listeners.public.address`.
        name: String,
        /// As configured.
        address: String,
        /// What the system said, such as that the address is in use.
        source: std::io::Error,
    },
    /// One line that names what is missing: a store, a thread, a signal.
    #[error("{0}")]
    Other(String),
}
