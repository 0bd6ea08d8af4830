//! Clients that prove in the handshake who they are: which certificates are accepted, and whom they name.

use std::fmt::Display;
use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest as sha256};
use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

use super::Digest;
use super::files::{Mistake, revocation_lists};
use crate::config::tls::{ClientAuth, Tls};
use crate::identity::{Peer, Unnamed};

/// Which file is wrong.
pub(super) enum Wrong {
    /// That of the authorities.
    Authorities(Mistake),
    /// That of the revocation lists.
    Lists(Mistake),
}

/// The revocation lists of `client_crl`.
pub(super) fn revoked(tls: &Tls) -> Result<Vec<CertificateRevocationListDer<'static>>, Mistake> {
    let Some(file) = &tls.client_crl else { return Ok(Vec::new()) };
    if tls.client_ca.is_none() {
        return Err(Mistake::new("there is no `client_ca` whose clients it could refuse"));
    }
    revocation_lists(file)
}

/// What connections of the same clients have in common.
pub(super) fn digest(auth: ClientAuth, authorities: Digest) -> Digest {
    let mut text = authorities.to_vec();
    text.push(u8::from(auth == ClientAuth::Optional));
    let mut digest = Digest::default();
    digest.copy_from_slice(sha256(&SHA256, &text).as_ref());
    digest
}

pub(super) fn verifier(
    file: &Path,
    authorities: Vec<CertificateDer<'static>>,
    auth: ClientAuth,
    revoked: Vec<CertificateRevocationListDer<'static>>,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, Wrong> {
    let of_file = |error: &dyn Display| Mistake::new(format!("`{}`: {error}", file.display()));
    let mut roots = RootCertStore::empty();
    for certificate in authorities {
        roots.add(certificate).map_err(|error| Wrong::Authorities(of_file(&error)))?;
    }
    let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    if !revoked.is_empty() {
        builder = builder
            .with_crls(revoked)
            .only_check_end_entity_revocation()
            .allow_unknown_revocation_status();
    }
    if auth == ClientAuth::Optional {
        builder = builder.allow_unauthenticated();
    }
    builder.build().map_err(|error| match error {
        VerifierBuilderError::InvalidCrl(_) => Wrong::Lists(Mistake::new(error.to_string())),
        _ => Wrong::Authorities(of_file(&error)),
    })
}

/// Whom a certificate names.
///
/// # Errors
/// It cannot be read, or breaks the rules of SPIFFE.
pub fn peer(leaf: &CertificateDer<'_>) -> Result<Peer, Nameless> {
    let (_, parsed) = X509Certificate::from_der(leaf).map_err(|_| Nameless::Unreadable)?;
    let names = parsed.subject_alternative_name().map_err(|_| Nameless::Unreadable)?;
    let names = names.map(|extension| &extension.value.general_names[..]).unwrap_or_default();
    let uris = names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    let dns = names.iter().filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(*name),
        _ => None,
    });
    let mut common = parsed.subject().iter_common_name();
    let common = common.next().and_then(|name| name.as_str().ok());
    Peer::try_new(uris, dns, common, sha256(&SHA256, leaf).as_ref()).map_err(Nameless::Spiffe)
}

/// Why a certificate names no one.
#[derive(Debug, thiserror::Error)]
pub enum Nameless {
    /// One parser has accepted it, and another cannot read it.
    #[error("it cannot be read")]
    Unreadable,
    /// It is meant for SPIFFE, and breaks its rules.
    #[error(transparent)]
    Spiffe(Unnamed),
}
