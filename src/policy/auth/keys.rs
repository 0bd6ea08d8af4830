//! Verification keys: made from configuration or from a key set, and selected for a token.
//!
//! A key is bound to the algorithms it may be used with, so a token cannot choose how its own
//! signature is checked.

use std::time::Duration;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519};
use aws_lc_rs::signature::{ParsedPublicKey, VerificationAlgorithm};
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, DecodingKeyKind};

use super::config::{Algorithms, Pem};
use crate::time::Moment;
use crate::units::Secret;

/// A modulus of 2048 bits has this many bytes.
const RSA_MIN_BYTES: usize = 256;

/// The most keys that are tried for one token. If a token names none, each key of its algorithm may
/// have signed it (RFC 7515, section 4.1.4). Each try costs a verification of 20 to 200 µs, which a
/// client could cause with garbage.
pub(super) const MAX_CANDIDATES: usize = 8;

/// Why keys cannot be used, or none of them can. Names the remedy, never the key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidKeys(pub(super) String);

/// The keys of one issuer at one time.
pub(super) struct KeySet {
    keys: Vec<Key>,
    /// Differs from that of every other set of the same issuer; 0 is the empty set before any
    /// fetch.
    pub(super) generation: u64,
    good_until: Moment,
    /// Whether the key matches any key id: a key in the configuration file is the only one.
    any_kid: bool,
}

pub(super) struct Key {
    kid: Option<Box<str>>,
    algorithms: Vec<Algorithm>,
    pub(super) decoding: DecodingKey,
}

impl KeySet {
    /// No keys yet: never usable.
    pub(super) fn empty() -> Self {
        KeySet { keys: Vec::new(), generation: 0, good_until: Moment::ZERO, any_kid: false }
    }

    pub(super) fn from_secret(secret: &Secret, algorithms: &Algorithms) -> Self {
        let decoding = DecodingKey::from_secret(secret.expose().as_bytes());
        let key = Key { kid: None, algorithms: algorithms.iter().collect(), decoding };
        KeySet::fixed(key)
    }

    /// The key of a PEM.
    ///
    /// # Errors
    /// The PEM does not parse, the key is too short, or none of `algorithms` fits it.
    pub(super) fn from_pem(pem: &Pem, algorithms: &Algorithms) -> Result<Self, InvalidKeys> {
        let pem = pem.as_bytes();
        let decoding = DecodingKey::from_rsa_pem(pem)
            .or_else(|_| DecodingKey::from_ec_pem(pem))
            .or_else(|_| DecodingKey::from_ed_pem(pem))
            .map_err(|_| {
                wrong("public_key: the text is not an RSA, P-256, P-384 or Ed25519 key in PEM")
            })?;
        let Some(usable) = usable_with(&decoding) else {
            return Err(wrong("public_key: the key is damaged, or an RSA key below 2048 bits"));
        };
        if let Some(stray) = algorithms.iter().find(|a| !usable.contains(a)) {
            return Err(wrong(&format!(
                "algorithms: {stray:?} cannot be verified with this key, which is for {}",
                usable.iter().map(|one| format!("{one:?}")).collect::<Vec<_>>().join(", ")
            )));
        }
        Ok(KeySet::fixed(Key { kid: None, algorithms: algorithms.iter().collect(), decoding }))
    }

    /// A key set (RFC 7517, section 5). Entries that are not for verifying, of unknown types,
    /// damaged, or for other algorithms are skipped, as the RFC requires; the second value counts
    /// them.
    ///
    /// # Errors
    /// The document is not a key set, or contains no usable key.
    pub(super) fn from_document(
        document: &[u8],
        algorithms: &Algorithms,
        generation: u64,
        good_until: Moment,
    ) -> Result<(Self, usize), InvalidKeys> {
        #[derive(serde::Deserialize)]
        struct Document {
            keys: Vec<serde_json::Value>,
        }
        let Document { keys: entries } = serde_json::from_slice(document)
            .map_err(|_| wrong("the document is not a JSON Web Key Set"))?;
        let found = entries.len();
        let keys: Vec<Key> = entries
            .into_iter()
            .filter_map(|entry| serde_json::from_value(entry).ok())
            .filter_map(|jwk| Key::from_jwk(&jwk, algorithms))
            .collect();
        if keys.is_empty() {
            return Err(wrong(&format!(
                "none of the {found} keys in the set is for verifying with the algorithms allowed"
            )));
        }
        let skipped = found - keys.len();
        Ok((KeySet { keys, generation, good_until, any_kid: false }, skipped))
    }

    pub(super) fn is_usable(&self, now: Moment) -> bool {
        now < self.good_until
    }

    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }

    pub(super) fn contains(&self, kid: &str) -> bool {
        self.keys.iter().any(|key| key.kid.as_deref() == Some(kid))
    }

    /// Whether both hold the same keys, in any order.
    pub(super) fn equals(&self, other: &KeySet) -> bool {
        self.len() == other.len() && self.keys.iter().all(|key| other.keys.contains(key))
    }

    /// The keys that may have signed a token with this `kid`, or without one: those with that id
    /// and algorithm, at most [`MAX_CANDIDATES`].
    pub(super) fn candidates(
        &self,
        kid: Option<&str>,
        algorithm: Algorithm,
    ) -> impl Iterator<Item = &Key> {
        let kid = kid.filter(|_| !self.any_kid);
        self.keys
            .iter()
            .filter(move |key| kid.is_none_or(|kid| key.kid.as_deref() == Some(kid)))
            .filter(move |key| key.algorithms.contains(&algorithm))
            .take(MAX_CANDIDATES)
    }

    /// Whether the keys come from the configuration file, and so never change.
    pub(super) fn is_fixed(&self) -> bool {
        self.any_kid
    }

    fn fixed(key: Key) -> Self {
        let good_until = Moment::ZERO + Duration::MAX;
        KeySet { keys: vec![key], generation: 1, good_until, any_kid: true }
    }
}

impl Key {
    fn from_jwk(jwk: &Jwk, allowed: &Algorithms) -> Option<Self> {
        let common = &jwk.common;
        if common.public_key_use.as_ref().is_some_and(|u| *u != PublicKeyUse::Signature) {
            return None;
        }
        if common.key_operations.as_ref().is_some_and(|ops| !ops.contains(&KeyOperations::Verify)) {
            return None;
        }
        let kind = &jwk.algorithm;
        if !matches!(
            kind,
            AlgorithmParameters::RSA(_)
                | AlgorithmParameters::EllipticCurve(_)
                | AlgorithmParameters::OctetKeyPair(_)
        ) {
            // This refuses `oct` too: a secret must not be in a public document.
            return None;
        }
        let decoding = DecodingKey::from_jwk(jwk).ok()?;
        let declared = match common.key_algorithm {
            Some(declared) => Some(Algorithm::try_from(declared).ok()?),
            None => None,
        };
        let usable = usable_with(&decoding)?;
        if !curve_fits(kind, usable) {
            return None;
        }
        let algorithms: Vec<Algorithm> = allowed
            .iter()
            .filter(|a| usable.contains(a) && declared.is_none_or(|declared| declared == *a))
            .collect();
        if algorithms.is_empty() {
            return None;
        }
        let kid = common.key_id.as_deref().map(Box::from);
        Some(Key { kid, algorithms, decoding })
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.kid == other.kid
            && self.algorithms == other.algorithms
            && match (self.decoding.kind(), other.decoding.kind()) {
                (DecodingKeyKind::SecretOrDer(a), DecodingKeyKind::SecretOrDer(b)) => a == b,
                (
                    DecodingKeyKind::RsaModulusExponent { n, e },
                    DecodingKeyKind::RsaModulusExponent { n: other_n, e: other_e },
                ) => n == other_n && e == other_e,
                (DecodingKeyKind::SecretOrDer(_), DecodingKeyKind::RsaModulusExponent { .. })
                | (DecodingKeyKind::RsaModulusExponent { .. }, DecodingKeyKind::SecretOrDer(_)) => {
                    false
                }
            }
    }
}

/// The algorithms that a public key can verify; `None` if it is damaged or too short.
fn usable_with(key: &DecodingKey) -> Option<&'static [Algorithm]> {
    use Algorithm::{ES256, ES384, EdDSA, PS256, PS384, PS512, RS256, RS384, RS512};

    let bytes = match key.kind() {
        DecodingKeyKind::RsaModulusExponent { n, .. } => n,
        DecodingKeyKind::SecretOrDer(bytes) => bytes,
    };
    let parses = |algorithm: &'static dyn VerificationAlgorithm| {
        ParsedPublicKey::new(algorithm, bytes).is_ok()
    };
    match key.family() {
        AlgorithmFamily::Rsa => {
            // The verifier enforces the exact bound; this one gives an early error with a name.
            let significant = bytes.iter().skip_while(|b| **b == 0).count();
            (significant >= RSA_MIN_BYTES)
                .then_some(&[RS256, RS384, RS512, PS256, PS384, PS512][..])
        }
        AlgorithmFamily::Ec if parses(&ECDSA_P256_SHA256_FIXED) => Some(&[ES256]),
        AlgorithmFamily::Ec if parses(&ECDSA_P384_SHA384_FIXED) => Some(&[ES384]),
        AlgorithmFamily::Ed if parses(&ED25519) => Some(&[EdDSA]),
        AlgorithmFamily::Ec | AlgorithmFamily::Ed | AlgorithmFamily::Hmac => None,
    }
}

/// Whether the curve an entry declares is the one its point lies on.
fn curve_fits(kind: &AlgorithmParameters, usable: &[Algorithm]) -> bool {
    match kind {
        AlgorithmParameters::EllipticCurve(point) => match point.curve {
            EllipticCurve::P256 => usable.contains(&Algorithm::ES256),
            EllipticCurve::P384 => usable.contains(&Algorithm::ES384),
            _ => false,
        },
        AlgorithmParameters::OctetKeyPair(point) => point.curve == EllipticCurve::Ed25519,
        _ => true,
    }
}

fn wrong(remedy: &str) -> InvalidKeys {
    InvalidKeys(remedy.to_owned())
}
