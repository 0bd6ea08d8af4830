//! Why a TLS handshake with a client failed.

use std::io;

use rustls::{AlertDescription, CertificateError, Error, PeerIncompatible};

use crate::policy::failure::Cause;
use crate::summary::words::Words;

/// The kind of a failure, which is the value of the metric's label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    /// It took as long as it may.
    Timeout,
    /// As many handshakes as there may be were under way, and its turn did not come in time.
    QueueTimeout,
    /// The client speaks plain HTTP.
    NotTls,
    /// The client asked for a name that no certificate has.
    UnknownName,
    /// The client speaks no version of TLS that the listener does.
    NoSharedVersion,
    /// Client and gateway have no cipher, group or signature in common.
    NoSharedCipher,
    /// The client speaks none of the protocols of `alpn`.
    NoSharedProtocol,
    /// The client has shown no certificate, and must.
    NoClientCertificate,
    /// The client's certificate is not from an authority of `client_ca`.
    UnknownAuthority,
    /// The client's certificate has expired.
    ClientCertificateExpired,
    /// Another thing is wrong with the client's certificate.
    ClientCertificate,
    /// The client says that it does not accept the gateway's certificate.
    CertificateRefused,
    /// The client ended the handshake with another alert.
    Alert,
    /// The connection ended in the middle of the handshake.
    Closed,
    /// What the client sent is not TLS, or breaks its rules.
    Malformed,
    /// The gateway could not go on.
    Internal,
}

impl Reason {
    /// All of them.
    pub(super) const ALL: [Reason; 16] = [
        Reason::Timeout,
        Reason::QueueTimeout,
        Reason::NotTls,
        Reason::UnknownName,
        Reason::NoSharedVersion,
        Reason::NoSharedCipher,
        Reason::NoSharedProtocol,
        Reason::NoClientCertificate,
        Reason::UnknownAuthority,
        Reason::ClientCertificateExpired,
        Reason::ClientCertificate,
        Reason::CertificateRefused,
        Reason::Alert,
        Reason::Closed,
        Reason::Malformed,
        Reason::Internal,
    ];

    /// The value of the metric's label.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Reason::Timeout => "timeout",
            Reason::QueueTimeout => "queue_timeout",
            Reason::NotTls => "not_tls",
            Reason::UnknownName => "unknown_name",
            Reason::NoSharedVersion => "no_shared_version",
            Reason::NoSharedCipher => "no_shared_cipher",
            Reason::NoSharedProtocol => "no_shared_protocol",
            Reason::NoClientCertificate => "no_client_certificate",
            Reason::UnknownAuthority => "unknown_authority",
            Reason::ClientCertificateExpired => "client_certificate_expired",
            Reason::ClientCertificate => "client_certificate",
            Reason::CertificateRefused => "certificate_refused",
            Reason::Alert => "alert",
            Reason::Closed => "closed",
            Reason::Malformed => "malformed",
            Reason::Internal => "internal",
        }
    }

    fn of(error: &io::Error) -> Self {
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
        match (inner, error.kind()) {
            (Some(error), _) => Reason::of_tls(error),
            (None, io::ErrorKind::TimedOut) => Reason::Timeout,
            (None, _) => Reason::Closed,
        }
    }

    fn of_tls(error: &Error) -> Self {
        match error {
            Error::PeerIncompatible(what) => Reason::of_incompatible(what),
            Error::NoApplicationProtocol => Reason::NoSharedProtocol,
            Error::NoCertificatesPresented => Reason::NoClientCertificate,
            Error::InvalidCertificate(what) => match what {
                CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                    Reason::ClientCertificateExpired
                }
                // An authority that was made anew under the same name has another key.
                CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                    Reason::UnknownAuthority
                }
                _ => Reason::ClientCertificate,
            },
            Error::AlertReceived(alert) => match alert {
                AlertDescription::BadCertificate
                | AlertDescription::UnsupportedCertificate
                | AlertDescription::CertificateRevoked
                | AlertDescription::CertificateExpired
                | AlertDescription::CertificateUnknown
                | AlertDescription::UnknownCA => Reason::CertificateRefused,
                AlertDescription::ProtocolVersion => Reason::NoSharedVersion,
                _ => Reason::Alert,
            },
            Error::InvalidMessage(_)
            | Error::InappropriateMessage { .. }
            | Error::InappropriateHandshakeMessage { .. }
            | Error::PeerMisbehaved(_)
            | Error::PeerSentOversizedRecord
            | Error::DecryptError => Reason::Malformed,
            _ => Reason::Internal,
        }
    }

    fn of_incompatible(what: &PeerIncompatible) -> Self {
        match what {
            PeerIncompatible::ServerDoesNotSupportTls12Or13
            | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
            | PeerIncompatible::SupportedVersionsExtensionRequired
            | PeerIncompatible::Tls12NotOffered
            | PeerIncompatible::Tls12NotOfferedOrEnabled
            | PeerIncompatible::Tls13RequiredForQuic => Reason::NoSharedVersion,
            _ => Reason::NoSharedCipher,
        }
    }
}

/// A handshake that failed.
#[derive(Debug)]
pub(super) struct Unagreed {
    pub(super) reason: Reason,
    /// In words.
    pub(super) said: Words,
    /// The client has sent nothing.
    pub(super) silent: bool,
}

impl Unagreed {
    /// For a reason of the gateway's own.
    pub(super) fn new(reason: Reason, said: impl Into<std::borrow::Cow<'static, str>>) -> Self {
        Unagreed { reason, said: Words::Text(said.into()), silent: false }
    }

    /// In one line of bounded length.
    pub(super) fn said(&self) -> Option<String> {
        // The cause decides how the words are found, not what they are.
        self.said.of(Cause::TlsFailed)
    }
}

impl From<io::Error> for Unagreed {
    fn from(error: io::Error) -> Self {
        let reason = Reason::of(&error);
        Unagreed { reason, said: Words::Error(Box::new(error)), silent: false }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use rustls::{InvalidMessage, PeerMisbehaved};

    use super::*;

    fn of(error: Error) -> &'static str {
        Unagreed::from(io::Error::new(io::ErrorKind::InvalidData, error)).reason.as_str()
    }

    #[test]
    fn the_kind_of_an_error_is_its_reason() {
        for (error, reason) in [
            (PeerIncompatible::Tls12NotOffered.into(), "no_shared_version"),
            (PeerIncompatible::NoCipherSuitesInCommon.into(), "no_shared_cipher"),
            (PeerIncompatible::NoKxGroupsInCommon.into(), "no_shared_cipher"),
            (Error::NoApplicationProtocol, "no_shared_protocol"),
            (Error::NoCertificatesPresented, "no_client_certificate"),
            (CertificateError::UnknownIssuer.into(), "unknown_authority"),
            (CertificateError::Expired.into(), "client_certificate_expired"),
            (CertificateError::InvalidPurpose.into(), "client_certificate"),
            (Error::AlertReceived(AlertDescription::UnknownCA), "certificate_refused"),
            (Error::AlertReceived(AlertDescription::UserCanceled), "alert"),
            (InvalidMessage::InvalidContentType.into(), "malformed"),
            (PeerMisbehaved::IncorrectBinder.into(), "malformed"),
            (Error::General("no".to_owned()), "internal"),
        ] {
            assert_eq!(of(error.clone()), reason, "{error}");
        }
        let plain = |kind: io::ErrorKind| Reason::of(&kind.into());
        assert_eq!(plain(io::ErrorKind::TimedOut), Reason::Timeout);
        assert_eq!(plain(io::ErrorKind::UnexpectedEof), Reason::Closed);
        assert_eq!(plain(io::ErrorKind::ConnectionReset), Reason::Closed);
    }

    #[test]
    fn every_reason_has_a_word_of_its_own() {
        let words: BTreeSet<_> = Reason::ALL.map(Reason::as_str).into_iter().collect();
        assert_eq!(words.len(), Reason::ALL.len());
    }
}
