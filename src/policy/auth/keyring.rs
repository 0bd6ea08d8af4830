//! The current key set of one issuer, replaced as a whole when a new one is published.
//!
//! Requests read it without a lock. The task that fetches the document publishes it here.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use super::config::Algorithms;
use super::keys::{InvalidKeys, KeySet};
use crate::time::Moment;

/// An issuer's keys. Before the first publication there are none, and no token is valid.
pub struct Keyring {
    current: ArcSwap<KeySet>,
    algorithms: Algorithms,
}

/// The result of a publication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// Keys that can verify tokens.
    pub usable: usize,
    /// Entries of the document that were skipped.
    pub skipped: usize,
    /// Whether the keys differ from the ones before. If so, all tokens are verified again.
    pub changed: bool,
}

impl Keyring {
    pub(super) fn new(keys: KeySet, algorithms: Algorithms) -> Self {
        Keyring { current: ArcSwap::from_pointee(keys), algorithms }
    }

    pub(super) fn current(&self) -> arc_swap::Guard<Arc<KeySet>> {
        self.current.load()
    }

    /// Replaces the keys by those of `document`, which are valid for `lifetime` from `now`. To be
    /// called by one publisher at a time.
    ///
    /// # Errors
    /// The document is not a key set, or contains no usable key. The keys before remain, and are
    /// valid for no longer than they were.
    pub fn publish(
        &self,
        document: &[u8],
        now: Moment,
        lifetime: Duration,
    ) -> Result<Published, InvalidKeys> {
        let before = self.current.load();
        let next = before.generation + 1;
        let (mut keys, skipped) =
            KeySet::from_document(document, &self.algorithms, next, now + lifetime)?;
        let changed = !keys.equals(&before);
        if !changed {
            // With the same keys, verified tokens stay valid.
            keys.generation = before.generation;
        }
        let usable = keys.len();
        self.current.store(Arc::new(keys));
        Ok(Published { usable, skipped, changed })
    }

    /// Whether a key has this id, valid or too old.
    pub fn contains(&self, kid: &str) -> bool {
        self.current.load().contains(kid)
    }

    /// The number of the current set. It changes whenever the keys do.
    pub fn generation(&self) -> u64 {
        self.current.load().generation
    }

    /// The number of keys, valid or too old.
    pub fn len(&self) -> usize {
        self.current.load().len()
    }

    /// Whether there are no keys: none were published yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether there are keys, and they are not too old.
    pub fn is_usable(&self, now: Moment) -> bool {
        self.current.load().is_usable(now)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{ED25519, OTHER_RSA, P256, P384, RSA, document, verifier};
    use super::*;
    use serde_json::{Value, json};

    fn keyring(algorithms: &str) -> Arc<Keyring> {
        let yaml = format!(
            "jwt: {{issuer: a, audience: any, algorithms: {algorithms}, jwks: {{url: 'http://a/'}}}}"
        );
        verifier(&yaml).remote_keys().expect("a key set").1.clone()
    }

    fn publish(keyring: &Keyring, keys: &[Value]) -> Result<Published, InvalidKeys> {
        keyring.publish(&document(keys), Moment::ZERO, Duration::from_secs(60))
    }

    fn with(mut jwk: Value, name: &str, value: Value) -> Value {
        jwk[name] = value;
        jwk
    }

    #[test]
    fn entries_that_cannot_verify_are_passed_over() {
        let keys = [
            RSA.jwk(),
            with(OTHER_RSA.jwk(), "use", json!("enc")),
            with(OTHER_RSA.jwk(), "key_ops", json!(["encrypt"])),
            with(OTHER_RSA.jwk(), "alg", json!("RSA-OAEP")),
            with(OTHER_RSA.jwk(), "alg", json!("RS512")),
            with(OTHER_RSA.jwk(), "n", json!("AQAB")),
            with(P256.jwk(), "x", json!("AAAA")),
            with(P384.jwk(), "crv", json!("P-256")),
            with(ED25519.jwk(), "crv", json!("X25519")),
            json!({"kty": "oct", "kid": "secret", "k": "c2VjcmV0c2VjcmV0c2VjcmV0", "alg": "HS256"}),
            json!({"kty": "new"}),
            json!("not a key"),
        ];
        let published = publish(&keyring("[RS256, ES256, ES384, EdDSA]"), &keys).expect("one key");
        assert_eq!(published, Published { usable: 1, skipped: 11, changed: true });
    }

    #[test]
    fn a_set_without_a_usable_key_leaves_the_old_one() {
        let keyring = keyring("[RS256]");
        publish(&keyring, &[RSA.jwk()]).expect("one key");
        assert!(publish(&keyring, &[]).is_err());
        assert!(publish(&keyring, &[P256.jwk()]).is_err());
        assert!(keyring.publish(b"<html>", Moment::ZERO, Duration::from_secs(60)).is_err());
        assert!(keyring.contains("rsa-1"));
    }

    #[test]
    fn a_refused_set_does_not_extend_the_life_of_the_old_one() {
        let keyring = keyring("[RS256]");
        publish(&keyring, &[RSA.jwk()]).expect("one key");
        let late = Moment::ZERO + Duration::from_secs(59);
        assert!(keyring.publish(&document(&[]), late, Duration::from_secs(60)).is_err());
        assert!(keyring.is_usable(late));
        assert!(!keyring.is_usable(Moment::ZERO + Duration::from_secs(60)));
    }

    #[test]
    fn the_same_keys_again_live_longer_but_are_no_change() {
        let keyring = keyring("[RS256]");
        publish(&keyring, &[RSA.jwk()]).expect("one key");
        let late = Moment::ZERO + Duration::from_secs(59);
        let again = keyring.publish(&document(&[RSA.jwk()]), late, Duration::from_secs(60));
        assert!(!again.expect("one key").changed);
        assert!(keyring.is_usable(Moment::ZERO + Duration::from_secs(118)));
    }

    #[test]
    fn a_key_without_a_name_is_no_key_for_a_named_token() {
        let keyring = keyring("[RS256]");
        publish(&keyring, &[with(RSA.jwk(), "kid", json!(null))]).expect("one key");
        assert!(!keyring.contains("rsa-1"));
    }
}
