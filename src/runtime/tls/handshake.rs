//! What is known of the handshake under way, and of the session it begins or takes up again.
//!
//! The parts of rustls that take part in a handshake (signing key, verifier of clients, ticketer)
//! are shared by all connections and are not told which one they work for. They run within the
//! connection's task: what they note there is its own.

use std::cell::Cell;
use std::future::Future;
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
    /// The gateway has proved who it is: only full handshakes need that.
    signed: Cell<bool>,
    /// When the certificate expires that the client was verified by, in this handshake.
    verified: Cell<Option<u64>>,
    /// Of the session that the client wants to take up again.
    offered: Cell<Option<Terms>>,
}

/// How long a session may last; in seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// When its full handshake was. What takes it up again does not make it younger.
    pub begun: u64,
    /// When the client's certificate expires; `None` where it has none.
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
    pub terms: Terms,
}

impl Agreement {
    /// As the metrics have it.
    pub fn kind(&self) -> &'static str {
        if self.resumed { "resumed" } else { "full" }
    }
}

/// `handshake`, and what was agreed on if it succeeds.
pub async fn noted<T, E>(
    handshake: impl Future<Output = Result<T, E>>,
) -> Result<(T, Agreement), E> {
    UNDER_WAY
        .scope(Notes::default(), async {
            let stream = handshake.await?;
            let agreement = UNDER_WAY.with(|notes| Agreement {
                resumed: !notes.signed.get(),
                terms: notes.terms(UnixTime::now().as_secs()),
            });
            Ok((stream, agreement))
        })
        .await
}

/// The terms of the session that the handshake under way leads to.
pub(super) fn terms(now: u64) -> Terms {
    let noted = UNDER_WAY.try_with(|notes| notes.terms(now));
    noted.unwrap_or(Terms { begun: now, client_until: None })
}

/// The client has shown a ticket that can be read. It may still come to a full handshake, as for
/// another name.
pub(super) fn offered(terms: Terms) {
    note(|notes| notes.offered.set(Some(terms)));
}

/// Without a connection, as in a unit test, there is nowhere to note anything.
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

/// A verifier of clients that notes until when their certificates are good: a session that is taken
/// up again is not verified.
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
        // Pingora reads it by the same parser after the handshake, and panics if it cannot.
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
