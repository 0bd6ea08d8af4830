//! PEM in files that an operator names.
//!
//! The parser ignores every line outside a section, and a first line of a section that does not begin
//! with `-----BEGIN` is such a line to it: the section would be lost without an error. A byte order mark at
//! the beginning of a file is skipped here, and a file that has anything else there is refused.

use memchr::{memchr_iter, memmem};
use rustls::pki_types::pem::{Error, PemObject};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};

use super::text::unmarked;

/// Why a file cannot be used. Phrased to follow its name. Shows nothing of its content, which can be a
/// private key.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotPem {
    /// There is no section of the kind that is needed.
    #[error("holds no {what} in PEM")]
    Absent {
        /// The kind, in words: `certificate`.
        what: &'static str,
        /// The label of its sections: `CERTIFICATE`.
        label: &'static str,
    },
    /// The parser would ignore a section, because something comes before it in the same line.
    #[error(
        "has text, white space or a byte order mark before `-----BEGIN {label}-----` in line \
         {line}: remove it, or start a new line there"
    )]
    Hidden {
        /// The label of the section.
        label: &'static str,
        /// Counted from 1.
        line: usize,
    },
    /// A section cannot be read.
    #[error("is not valid PEM: {0}")]
    Damaged(&'static str),
}

/// All certificates in `bytes`, in their order; at least one.
///
/// # Errors
/// There is none, one cannot be read, or one would be ignored.
pub fn certificates(bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, NotPem> {
    all(bytes, "certificate", "CERTIFICATE")
}

/// All revocation lists in `bytes`, in their order; at least one.
///
/// # Errors
/// There is none, one cannot be read, or one would be ignored.
pub fn revocation_lists(
    bytes: &[u8],
) -> Result<Vec<CertificateRevocationListDer<'static>>, NotPem> {
    all(bytes, "revocation list", "X509 CRL")
}

/// The first private key in `bytes`.
///
/// # Errors
/// There is none, or a section up to it cannot be read.
pub fn private_key(bytes: &[u8]) -> Result<PrivateKeyDer<'static>, NotPem> {
    match PrivateKeyDer::pem_slice_iter(unmarked(bytes)).next() {
        Some(key) => key.map_err(|error| damaged(&error)),
        None => Err(NotPem::Absent { what: "private key", label: "PRIVATE KEY" }),
    }
}

fn all<T: PemObject>(
    bytes: &[u8],
    what: &'static str,
    label: &'static str,
) -> Result<Vec<T>, NotPem> {
    let bytes = unmarked(bytes);
    if let Some(line) = hidden(bytes, label) {
        return Err(NotPem::Hidden { label, line });
    }
    let found: Result<Vec<T>, Error> = T::pem_slice_iter(bytes).collect();
    let found = found.map_err(|error| damaged(&error))?;
    match found.is_empty() {
        true => Err(NotPem::Absent { what, label }),
        false => Ok(found),
    }
}

/// The first line in which a section begins after something else. A line that begins with `#` is a
/// comment, by which an operator has left out a section.
fn hidden(bytes: &[u8], label: &str) -> Option<usize> {
    let marker = format!("-----BEGIN {label}-----");
    memmem::find_iter(bytes, &marker).find_map(|at| {
        let before = &bytes[..at];
        let start = before.iter().rposition(|byte| matches!(*byte, b'\n' | b'\r'));
        let line = &before[start.map_or(0, |end| end + 1)..];
        let is_comment = line.trim_ascii_start().starts_with(b"#");
        (!line.is_empty() && !is_comment).then(|| 1 + memchr_iter(b'\n', before).count())
    })
}

/// Without the parser's own words, which quote the file.
fn damaged(error: &Error) -> NotPem {
    NotPem::Damaged(match error {
        Error::MissingSectionEnd { .. } => "a section has no `-----END` line",
        Error::IllegalSectionStart { .. } => "a `-----BEGIN` line does not end with `-----`",
        Error::Base64Decode(_) => "a section is not valid base64",
        Error::SectionTooLarge => "a section is larger than 256 MiB",
        _ => "it cannot be parsed",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section(label: &str, base64: &str) -> String {
        format!("-----BEGIN {label}-----\n{base64}\n-----END {label}-----\n")
    }

    fn ders(found: Result<Vec<CertificateDer<'static>>, NotPem>) -> Vec<Vec<u8>> {
        found.expect("certificates").iter().map(|one| one.to_vec()).collect()
    }

    #[test]
    fn a_byte_order_mark_hides_no_section() {
        let two = |label: &str| {
            format!("\u{feff}{}{}", section(label, "AAAA"), section(label, "BBBB")).into_bytes()
        };
        let found = ders(certificates(&two("CERTIFICATE")));
        assert_eq!(found, [vec![0, 0, 0], vec![4, 16, 65]]);
        assert_eq!(revocation_lists(&two("X509 CRL")).expect("lists").len(), 2);
        let key = private_key(&two("PRIVATE KEY")).expect("a key");
        assert_eq!(key.secret_der(), [0_u8, 0, 0]);
    }

    #[test]
    fn a_section_that_would_be_ignored_is_refused() {
        let label = "X509 CRL";
        let list = section(label, "AAAA");
        let joined = format!("{}{list}", list.trim_end());
        let marked_twice = format!("{list}\u{feff}{list}");
        let hidden = |line| Err(NotPem::Hidden { label, line });
        assert_eq!(revocation_lists(joined.as_bytes()), hidden(3));
        assert_eq!(revocation_lists(marked_twice.as_bytes()), hidden(4));
        assert_eq!(revocation_lists(format!("\n {list}").as_bytes()), hidden(2));
        // Behind a section of another kind.
        let mixed = format!("{}{list}", section("CERTIFICATE", "AAAA").trim_end());
        assert_eq!(revocation_lists(mixed.as_bytes()), hidden(3));
    }

    #[test]
    fn comments_and_sections_of_other_kinds_are_ignored() {
        let (own, other) = (section("CERTIFICATE", "AAAA"), section("X509 CRL", "BBBB"));
        let left_out = "# -----BEGIN CERTIFICATE-----\n# BBBB\n# -----END CERTIFICATE-----\n";
        let text = format!("a name\r\n======\r\n{own}{left_out}{other}");
        assert_eq!(ders(certificates(text.as_bytes())), [vec![0, 0, 0]]);
    }

    #[test]
    fn what_is_wrong_is_told_without_the_content() {
        let told = |text: &str| certificates(text.as_bytes()).expect_err("none").to_string();
        assert_eq!(told("AAAA"), "holds no certificate in PEM");
        assert_eq!(told(&section("PUBLIC KEY", "AAAA")), "holds no certificate in PEM");
        let damaged = told(&section("CERTIFICATE", "A?"));
        assert_eq!(damaged, "is not valid PEM: a section is not valid base64");
        // The line breaks are lost.
        let line = section("PRIVATE KEY", "c2VjcmV0").replace('\n', "");
        for text in [&line[..], &line[..35]] {
            let error = private_key(text.as_bytes()).expect_err("no key");
            assert!(matches!(error, NotPem::Damaged(_)), "{error}");
            assert!(!error.to_string().contains("c2VjcmV0"), "{error}");
        }
    }
}
