//! The certificate authorities that the environment names for upstreams whose `tls.ca` is absent.

use std::ffi::OsStr;
use std::path::Path;

use rustls::RootCertStore;

use crate::files::pem;
use crate::files::text::unmarked;
use crate::units::reason;

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
            .map_err(|error| wrong("SSL_CERT_DIR", &folder, &unreadable(&reason(&error))))?;
    }
    Ok(())
}

/// The error follows the name of the file.
fn all_of(file: &Path) -> Result<(), String> {
    let bytes = std::fs::read(file).map_err(|error| unreadable(&reason(&error)))?;
    // Pingora reads the file once more, and does not skip it.
    if unmarked(&bytes).len() < bytes.len() {
        return Err("begins with a byte order mark, which hides its first certificate".to_owned());
    }
    let mut store = RootCertStore::empty();
    for certificate in pem::certificates(&bytes).map_err(|error| error.to_string())? {
        store.add(certificate).map_err(|error| unreadable(&error.to_string()))?;
    }
    Ok(())
}

fn unreadable(why: &str) -> String {
    format!("cannot be read: {why}")
}

fn wrong(variable: &str, path: &OsStr, error: &str) -> String {
    let path = path.display();
    format!("{variable}: {path} {error}; correct the file or the variable, or remove the variable")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_would_count_only_in_part_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("roots.pem");
        let authority = || {
            let params = rcgen::CertificateParams::new(vec!["one.test".to_owned()]);
            let params = params.expect("a name");
            let key = rcgen::KeyPair::generate().expect("a key");
            params.self_signed(&key).expect("a certificate").pem()
        };
        let (one, other) = (authority(), authority());
        let check = |text: &str| {
            std::fs::write(&path, text).expect("written");
            all_of(&path)
        };
        assert_eq!(check(&format!("{one}{other}")), Ok(()));
        for (text, why) in [
            (format!("\u{feff}{one}{other}"), "begins with a byte order mark"),
            (format!("{}{other}", one.trim_end()), "before `-----BEGIN CERTIFICATE-----`"),
            (String::new(), "holds no certificate in PEM"),
        ] {
            let error = check(&text).expect_err("refused");
            assert!(error.contains(why), "{error}");
        }
    }
}
