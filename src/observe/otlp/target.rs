//! Where one signal is exported to, as far as it can be told without a connection: by it a reload knows
//! whether anything about an export has changed.

use std::path::PathBuf;

use crate::config::otlp::telemetry::Destination;
use crate::units::reason;

/// Why a collector cannot be exported to as configured.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// The system's certificates of authorities, in most cases.
    #[error("no client for the collector can be made: {0}")]
    Client(String),
    /// The file of `ca` cannot be read.
    #[error("the file `{}` cannot be read: {why}", file.display())]
    Unreadable {
        /// As configured.
        file: PathBuf,
        /// What the system said.
        why: String,
    },
    /// The file of `ca` can be read, but does not help.
    #[error("the file `{}` {why}", file.display())]
    NoAuthorities {
        /// As configured.
        file: PathBuf,
        /// Phrased to follow the name of the file.
        why: String,
    },
}

/// A destination with the content of its `ca`, and what the exports say about this process. Two that are
/// equal are exported to in the same way.
#[derive(Debug, PartialEq)]
pub struct Target {
    /// Its `ca` is `None`: the content counts, not the file's name.
    pub(super) destination: Destination,
    /// The file that was read, and its content; `None`: the system's authorities.
    pub(super) authorities: Option<Authorities>,
    /// Sent with every export: the configured attributes of the exporting process.
    pub(super) attributes: Vec<(String, String)>,
}

/// The content of `ca`.
#[derive(Debug)]
pub(super) struct Authorities {
    pub(super) file: PathBuf,
    pub(super) pem: Vec<u8>,
}

impl PartialEq for Authorities {
    fn eq(&self, other: &Self) -> bool {
        self.pem == other.pem
    }
}

impl Target {
    /// Reads the file of `ca`, unless exports are not encrypted.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn read(
        destination: &Destination,
        attributes: &[(String, String)],
    ) -> Result<Self, Unusable> {
        let file = destination.ca.as_ref().filter(|_| destination.is_encrypted());
        let read = |file: &PathBuf| match std::fs::read(file) {
            Ok(pem) => Ok(Authorities { file: file.clone(), pem }),
            Err(error) => Err(Unusable::Unreadable { file: file.clone(), why: reason(&error) }),
        };
        Ok(Target {
            authorities: file.map(read).transpose()?,
            destination: Destination { ca: None, ..destination.clone() },
            attributes: attributes.to_vec(),
        })
    }
}

/// Its address and protocol.
impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.destination.fmt(f)
    }
}
