//! Notes on the current handshake, and on the session that it begins or resumes.
//!
//! The parts of rustls that take part in a handshake (signing key, client verifier, ticketer) are
//! shared by all connections and are not told which one they work for. But they run within the
//! connection's task, so they keep their notes in a task-local variable.

use std::cell::Cell;
use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::{Signer, SigningKey};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureAlgorithm,
    SignatureScheme,
};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

tokio::task_local! {
    static UNDER_WAY: Notes;
}

#[derive(Default)]
struct Notes {
    /// The gateway has proved its identity, which only full handshakes need.
    signed: Cell<bool>,
    /// When the client's certificate expires, in seconds since 1970, if this handshake verified
    /// one.
    verified: Cell<Option<u64>>,
    /// The terms of the session that the client asks to resume.
    offered: Cell<Option<Terms>>,
    /// The address that the client has connected to, where that chooses a certificate.
    local: Option<IpAddr>,
}

/// Limits of a session, in seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// When its full handshake was. Resuming the session does not renew it.
    pub begun: u64,
    /// When the client's certificate expires; `None` if it has none.
    pub client_until: Option<u64>,
}

impl Notes {
    fn terms(&self, now: u64) -> Terms {
        let resumed = self.offered.get().filter(|_| !self.signed.get());
        resumed.unwrap_or(Terms { begun: now, client_until: self.verified.get() })
    }
}

/// A handshake that has succeeded.
#[derive(Debug, Clone, Copy)]
pub struct Agreement {
    resumed: bool,
    /// They hold for as long as the connection lasts, and for the tickets it gets.
    pub terms: Terms,
}

impl Agreement {
    /// The value of the metric's label.
    pub fn kind(&self) -> &'static str {
        if self.resumed { "resumed" } else { "full" }
    }
}

/// Runs `handshake` with a client that has connected to the address `local`, and returns with its
/// result what was agreed on. `None`: the address makes no difference.
///
/// # Errors
/// Those of `handshake`.
pub async fn noted<T, E>(
    local: Option<IpAddr>,
    handshake: impl Future<Output = Result<T, E>>,
) -> Result<(T, Agreement), E> {
    UNDER_WAY
        .scope(Notes { local, ..Notes::default() }, async {
            let stream = handshake.await?;
            let agreement = UNDER_WAY.with(|notes| Agreement {
                resumed: !notes.signed.get(),
                terms: notes.terms(UnixTime::now().as_secs()),
            });
            Ok((stream, agreement))
        })
        .await
}

/// The address that the client of the current handshake has connected to, if it was noted.
pub(super) fn local_address() -> Option<IpAddr> {
    UNDER_WAY.try_with(|notes| notes.local).ok().flatten()
}

/// The terms of the session that the current handshake leads to.
pub(super) fn terms(now: u64) -> Terms {
    let noted = UNDER_WAY.try_with(|notes| notes.terms(now));
    noted.unwrap_or(Terms { begun: now, client_until: None })
}

/// The client has presented a ticket that can be opened. A full handshake may still follow, for
/// example if the client asks for another name.
pub(super) fn offered(terms: Terms) {
    note(|notes| notes.offered.set(Some(terms)));
}

/// Does nothing without a connection, as in a unit test.
fn note(write: impl FnOnce(&Notes)) {
    let _ = UNDER_WAY.try_with(write);
}

/// A private key whose use is noted.
#[derive(Debug)]
pub(super) struct Key(pub(super) Arc<dyn SigningKey>);

impl SigningKey for Key {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        note(|notes| notes.signed.set(true));
        self.0.choose_scheme(offered)
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        self.0.public_key()
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        self.0.algorithm()
    }
}

/// A client verifier that notes when certificates expire, because a resumed session is not verified
/// again.
#[derive(Debug)]
pub(super) struct Clients(pub(super) Arc<dyn ClientCertVerifier>);

impl ClientCertVerifier for Clients {
    fn offer_client_auth(&self) -> bool {
        self.0.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.0.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.0.verify_client_cert(leaf, intermediates, now)?;
        // Pingora parses the certificate with the same parser after the handshake, and panics if
        // that fails.
        let (_, parsed) =
            X509Certificate::from_der(leaf).map_err(|_| CertificateError::BadEncoding)?;
        let until = parsed.validity().not_after.timestamp();
        note(|notes| notes.verified.set(Some(u64::try_from(until).unwrap_or_default())));
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, leaf, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, leaf, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }

    fn requires_raw_public_keys(&self) -> bool {
        self.0.requires_raw_public_keys()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;
    const OFFERED: Terms = Terms { begun: NOW - 3600, client_until: Some(NOW + 60) };

    fn scope<T>(handshake: impl FnOnce() -> T) -> T {
        UNDER_WAY.sync_scope(Notes::default(), handshake)
    }

    #[test]
    fn a_session_does_not_grow_younger_by_being_taken_up_again() {
        let terms = scope(|| {
            offered(OFFERED);
            terms(NOW)
        });
        assert_eq!(terms, OFFERED);
    }

    #[test]
    fn a_full_handshake_owes_nothing_to_a_ticket_that_was_of_no_use() {
        let terms = scope(|| {
            offered(OFFERED);
            note(|notes| notes.signed.set(true));
            note(|notes| notes.verified.set(Some(NOW + 3600)));
            terms(NOW)
        });
        assert_eq!(terms, Terms { begun: NOW, client_until: Some(NOW + 3600) });
    }

    #[test]
    fn connections_do_not_see_each_others_handshakes() {
        scope(|| offered(OFFERED));
        assert_eq!(scope(|| terms(NOW)), Terms { begun: NOW, client_until: None });
    }
}
