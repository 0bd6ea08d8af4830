//! Reads PEM files of certificates and keys, and says what is wrong with them.

use std::path::Path;

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::config::Problem;
use crate::config::code::Code;
use crate::config::load::KeyPath;
use crate::units::reason;

/// What is wrong with a file, and what to do about it.
#[derive(Debug)]
pub(in crate::runtime) struct Mistake {
    message: String,
    /// `None` if there is no more to say than for every mistake of its kind.
    remedy: Option<String>,
}

impl Mistake {
    pub(in crate::runtime) fn new(message: impl Into<String>) -> Self {
        Mistake { message: message.into(), remedy: None }
    }

    pub(super) fn remedied(self, remedy: impl Into<String>) -> Self {
        Mistake { remedy: Some(remedy.into()), ..self }
    }

    /// As a problem of the configuration, at `path`.
    pub(in crate::runtime) fn told(self, code: Code, path: KeyPath) -> Problem {
        let problem = Problem::new(code, path, self.message);
        match self.remedy {
            Some(remedy) => problem.remedied(remedy),
            None => problem,
        }
    }
}

/// All certificates in a file, which has one at least.
pub(in crate::runtime) fn certificates(
    file: &Path,
) -> Result<Vec<CertificateDer<'static>>, Mistake> {
    let found = CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| unusable(file, "certificate", &error))?;
    match found.is_empty() {
        true => Err(unusable(file, "certificate", &pem::Error::NoItemsFound)),
        false => Ok(found),
    }
}

/// The first private key in a file.
pub(super) fn private_key(file: &Path) -> Result<PrivateKeyDer<'static>, Mistake> {
    PrivateKeyDer::from_pem_file(file).map_err(|error| unusable(file, "private key", &error))
}

fn unusable(file: &Path, what: &str, error: &pem::Error) -> Mistake {
    let file = file.display();
    match error {
        pem::Error::Io(error) => {
            let reason = reason(error);
            Mistake::new(format!("the file `{file}` cannot be read: {reason}")).remedied(
                "check the path, which is relative to the directory that the gateway is started in, and \
                 that the gateway's user may read the file",
            )
        }
        pem::Error::NoItemsFound => {
            let marker = what.to_ascii_uppercase();
            Mistake::new(format!("the file `{file}` holds no {what} in PEM"))
                .remedied(format!("name a file with a line `-----BEGIN {marker}-----`"))
        }
        other => Mistake::new(format!("the file `{file}` holds no {what} in PEM: {other}")),
    }
}
