//! Clients as their certificates name them.
//!
//! A certificate names its holder by one SPIFFE id, else by DNS names, else by its common name where the
//! file allows that: the first that there is (RFC 9525 leaves common names behind, and SPIFFE asks for
//! exactly one URI). Names are compared as they are, with nothing decoded.

pub mod pattern;
mod xfcc;

use std::fmt::Write;

/// SPIFFE allows no longer ids (SPIFFE-ID, section 2.3).
const MAX_SPIFFE_ID: usize = 2048;
const SCHEME: &str = "spiffe://";

/// The holder of a certificate that was verified, or that a trusted proxy has verified.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Peer {
    /// The SPIFFE id.
    spiffe: Option<Box<str>>,
    /// The DNS names, in the order of the certificate, in lower case.
    dns: Box<[Box<str>]>,
    /// The common name of the subject.
    common_name: Option<Box<str>>,
    /// SHA-256 of the certificate, in hexadecimal; empty if it is not known.
    hash: Box<str>,
}

/// Why a certificate names no one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unnamed {
    /// There is a SPIFFE id and another URI: then neither counts (X509-SVID, section 2).
    #[error("the certificate has a SPIFFE id and another URI; it may have one")]
    TwoUris,
    /// The URI begins like a SPIFFE id but is not a valid one.
    #[error("the certificate's URI is not a SPIFFE id: {0}")]
    Spiffe(NotSpiffe),
}

/// What is wrong with a SPIFFE id (SPIFFE-ID, section 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotSpiffe {
    /// Another scheme.
    #[error("it does not begin with spiffe://")]
    Scheme,
    /// Above 2048 bytes.
    #[error("it is longer than 2048 bytes")]
    Length,
    /// Empty, or with other characters than letters, digits, `.`, `-` and `_`: also a port or a user.
    #[error("the trust domain is empty, or has other characters than a-z, 0-9, `.`, `-` and `_`")]
    TrustDomain,
    /// Empty, `.`, `..`, or with other characters: also a query, a fragment or an escape.
    #[error(
        "a segment of the path is empty or a dot, or has other characters than letters, digits, `.`, \
         `-` and `_`"
    )]
    Path,
}

impl Peer {
    /// By what a certificate has. `hash` is its SHA-256.
    ///
    /// # Errors
    /// It is meant for SPIFFE and breaks its rules.
    pub fn try_new<'a>(
        uris: impl Iterator<Item = &'a str>,
        dns: impl Iterator<Item = &'a str>,
        common_name: Option<&str>,
        hash: &[u8],
    ) -> Result<Self, Unnamed> {
        let (mut spiffe, mut others) = (None, 0);
        for uri in uris {
            let is_spiffe = uri.get(..SCHEME.len()).is_some_and(|s| s.eq_ignore_ascii_case(SCHEME));
            if is_spiffe && spiffe.is_none() {
                spiffe = Some(spiffe_id(uri).map_err(Unnamed::Spiffe)?);
            } else {
                others += 1;
            }
        }
        if spiffe.is_some() && others > 0 {
            return Err(Unnamed::TwoUris);
        }
        Ok(Peer {
            spiffe,
            // A text that looks like another kind of name is not taken as a DNS name.
            dns: dns
                .filter(|name| pattern::is_dns(name.strip_prefix("*.").unwrap_or(name)))
                .map(|name| name.to_ascii_lowercase().into())
                .collect(),
            // Nor is a URI taken as a common name.
            common_name: common_name
                .filter(|name| !name.is_empty() && !name.contains("://"))
                .map(Box::from),
            hash: hex(hash),
        })
    }

    /// By the last element of an `X-Forwarded-Client-Cert` field, which the nearest proxy has added.
    /// `None` if that says nothing about a certificate, or breaks SPIFFE's rules.
    pub fn from_field(field: &str) -> Option<Self> {
        xfcc::read(field)
    }

    /// This peer as an element of that field.
    pub fn to_field(&self) -> String {
        xfcc::write(self)
    }

    /// All names by which it may be allowed, the one that names it first. With a SPIFFE id, that is the
    /// only one.
    pub fn names(&self, with_common_name: bool) -> impl Iterator<Item = Name<'_>> {
        let (mut dns, mut common) = (&self.dns[..], None);
        if self.spiffe.is_some() {
            dns = &[];
        } else if dns.is_empty() && with_common_name {
            common = self.common_name.as_deref();
        }
        let spiffe = self.spiffe.as_deref().map(Name::Spiffe);
        spiffe
            .into_iter()
            .chain(dns.iter().map(|name| Name::Dns(name)))
            .chain(common.map(Name::Common))
    }

    /// What logs call it by: its first name, a common name if it has no other, or its hash without any.
    pub fn label(&self) -> &str {
        self.names(true).next().map_or(&self.hash, Name::as_str)
    }

    /// SHA-256 of the certificate, in hexadecimal; empty if it is not known.
    pub fn hash(&self) -> &str {
        &self.hash
    }
}

/// A name of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Name<'a> {
    /// `spiffe://trust-domain/path`.
    Spiffe(&'a str),
    /// A DNS name, in lower case.
    Dns(&'a str),
    /// A common name.
    Common(&'a str),
}

impl<'a> Name<'a> {
    /// As it is written.
    pub fn as_str(self) -> &'a str {
        match self {
            Name::Spiffe(name) | Name::Dns(name) | Name::Common(name) => name,
        }
    }
}

/// A SPIFFE id in its normal form: scheme and trust domain in lower case, the path as it is.
///
/// # Errors
/// What is wrong with it.
fn spiffe_id(uri: &str) -> Result<Box<str>, NotSpiffe> {
    if uri.len() > MAX_SPIFFE_ID {
        return Err(NotSpiffe::Length);
    }
    let (scheme, rest) = uri.split_at_checked(SCHEME.len()).ok_or(NotSpiffe::Scheme)?;
    if !scheme.eq_ignore_ascii_case(SCHEME) {
        return Err(NotSpiffe::Scheme);
    }
    let (domain, path) = rest.split_once('/').map_or((rest, None), |(d, p)| (d, Some(p)));
    let domain = domain.to_ascii_lowercase();
    if !is_trust_domain(&domain) {
        return Err(NotSpiffe::TrustDomain);
    }
    if path.is_some_and(|path| !path.split('/').all(is_segment)) {
        return Err(NotSpiffe::Path);
    }
    let path = path.map(|path| format!("/{path}")).unwrap_or_default();
    Ok(format!("{SCHEME}{domain}{path}").into())
}

fn is_trust_domain(domain: &str) -> bool {
    let fits =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-_".contains(&byte);
    !domain.is_empty() && domain.len() <= 255 && domain.bytes().all(fits)
}

fn is_segment(segment: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    !matches!(segment, "" | "." | "..") && segment.bytes().all(fits)
}

fn hex(bytes: &[u8]) -> Box<str> {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing to a string never fails.
        let _ = write!(text, "{byte:02x}");
    }
    text.into()
}

#[cfg(test)]
mod tests;
