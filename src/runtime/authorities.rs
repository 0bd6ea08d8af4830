//! The certificate authorities that the environment names for upstreams whose `tls.ca` is absent.

use std::ffi::OsStr;
use std::path::Path;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

/// Checks what the variables name before Pingora does, which panics where it cannot read them.
///
/// # Errors
/// The variable, what is wrong, and what to do.
pub(super) fn check() -> Result<(), String> {
    if let Some(file) = std::env::var_os("SSL_CERT_FILE") {
        all_of(Path::new(&file)).map_err(|error| wrong("SSL_CERT_FILE", &file, &error))?;
    }
    if let Some(folder) = std::env::var_os("SSL_CERT_DIR") {
        std::fs::read_dir(&folder)
            .map_err(|error| wrong("SSL_CERT_DIR", &folder, &error.to_string()))?;
    }
    Ok(())
}

fn all_of(file: &Path) -> Result<(), String> {
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(file).map_err(|error| error.to_string())? {
        let certificate = certificate.map_err(|error| error.to_string())?;
        store.add(certificate).map_err(|error| error.to_string())?;
    }
    Ok(())
}

fn wrong(variable: &str, path: &OsStr, error: &str) -> String {
    let path = path.display();
    format!("{variable}: {path} cannot be read: {error}; correct the variable, or remove it")
}
