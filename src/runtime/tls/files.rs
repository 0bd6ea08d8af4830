//! Reads PEM files of certificates and keys, and says what is wrong with them.

use std::path::Path;

use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};

use crate::config::Problem;
use crate::config::code::Code;
use crate::config::load::KeyPath;
use crate::files::pem::{self, NotPem};
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
    read(file, pem::certificates)
}

/// All revocation lists in a file, which has one at least.
pub(super) fn revocation_lists(
    file: &Path,
) -> Result<Vec<CertificateRevocationListDer<'static>>, Mistake> {
    read(file, pem::revocation_lists)
}

/// The first private key in a file.
pub(super) fn private_key(file: &Path) -> Result<PrivateKeyDer<'static>, Mistake> {
    read(file, pem::private_key)
}

/// What `parse` finds in the content of a file.
fn read<T>(file: &Path, parse: impl FnOnce(&[u8]) -> Result<T, NotPem>) -> Result<T, Mistake> {
    let name = file.display();
    let bytes = std::fs::read(file).map_err(|error| {
        Mistake::new(format!("the file `{name}` cannot be read: {}", reason(&error))).remedied(
            "check the path, which is relative to the directory that the gateway is started in, \
             and that the gateway's user may read the file",
        )
    })?;
    parse(&bytes).map_err(|error| {
        let mistake = Mistake::new(format!("the file `{name}` {error}"));
        match error {
            NotPem::Absent { label, .. } => {
                mistake.remedied(format!("name a file with a line `-----BEGIN {label}-----`"))
            }
            NotPem::Hidden { .. } | NotPem::Damaged(_) => mistake,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_order_mark_hides_no_section_of_a_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("marked.pem");
        let write = |label: &str| {
            let section = format!("-----BEGIN {label}-----\nAAAA\n-----END {label}-----\n");
            std::fs::write(&path, format!("\u{feff}{section}{section}")).expect("written");
        };
        write("CERTIFICATE");
        assert_eq!(certificates(&path).expect("certificates").len(), 2);
        write("X509 CRL");
        assert_eq!(revocation_lists(&path).expect("lists").len(), 2);
        write("PRIVATE KEY");
        assert_eq!(private_key(&path).expect("a key").secret_der(), [0_u8, 0, 0]);
        let missing = certificates(&path).expect_err("no certificate");
        let file = path.display();
        assert_eq!(missing.message, format!("the file `{file}` holds no certificate in PEM"));
        let remedy = missing.remedy.expect("a remedy");
        assert_eq!(remedy, "name a file with a line `-----BEGIN CERTIFICATE-----`");
    }
}
