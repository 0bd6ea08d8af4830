//! API keys: a header's value looked up among the consumers' keys.
//!
//! SHA-256 digests under a random salt of this process are compared. The time of a lookup depends
//! on those digests, which a client can neither predict nor steer byte by byte, so it reveals
//! nothing about a key. A lookup takes as long among ten thousand keys as among ten.

use std::collections::HashMap;
use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256};
use http::{HeaderMap, HeaderName};

use super::config::ApiKeys;
use super::denial::Denial;
use super::identity::{Identity, KeptClaims};
use super::keys::InvalidKeys;

/// Verifies the keys of one authority.
#[derive(Clone)]
pub(super) struct KeyHolders {
    pub(super) header: HeaderName,
    salt: [u8; 32],
    by_digest: HashMap<[u8; 32], Arc<Identity>>,
}

impl KeyHolders {
    pub(super) fn try_new(authority: &Arc<str>, config: &ApiKeys) -> Result<Self, InvalidKeys> {
        let mut salt = [0; 32];
        aws_lc_rs::rand::fill(&mut salt)
            .map_err(|_| InvalidKeys("the system gave no random bytes; try again".to_owned()))?;
        let mut by_digest = HashMap::with_capacity(config.keys.len());
        for (consumer, entry) in &config.keys {
            let header = consumer.to_header().map_err(|_| {
                InvalidKeys(format!(
                    "keys.{consumer}: the name of the consumer cannot be sent in a header"
                ))
            })?;
            let identity = Identity {
                authority: authority.clone(),
                consumer: consumer.clone(),
                certified: None,
                header,
                scopes: entry.scopes.iter().map(|scope| scope.as_str().into()).collect(),
                roles: entry.role.iter().map(|role| role.as_str().into()).collect(),
                expires_at: None,
                claims: KeptClaims::default(),
                passed: Box::default(),
            };
            by_digest.insert(salted(&salt, entry.key.expose().as_bytes()), Arc::new(identity));
        }
        Ok(KeyHolders { header: config.header.clone(), salt, by_digest })
    }

    pub(super) fn verify(&self, headers: &HeaderMap) -> Result<Arc<Identity>, Denial> {
        let mut values = headers.get_all(&self.header).iter();
        let Some(key) = values.next() else { return Err(Denial::Missing) };
        if values.next().is_some() {
            return Err(Denial::Malformed);
        }
        let digest = salted(&self.salt, key.as_bytes());
        self.by_digest.get(&digest).cloned().ok_or(Denial::UnknownApiKey)
    }
}

fn salted(salt: &[u8; 32], key: &[u8]) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    context.update(salt);
    context.update(key);
    let mut bytes = [0; 32];
    bytes.copy_from_slice(context.finish().as_ref());
    bytes
}

#[cfg(test)]
mod tests {
    use super::super::testing::{headers, now, verifier};
    use super::*;

    const PARTNERS: &str = "api_key: {keys: {acme: k-acme, beta: {key: k-beta, scopes: [a, b], \
                            role: admin}}}";

    fn verify(pairs: &[(&str, &str)]) -> Result<Arc<Identity>, Denial> {
        verifier(PARTNERS).verify(&headers(pairs), now(0))
    }

    #[test]
    fn a_key_names_its_consumer() {
        let identity = verify(&[("x-api-key", "k-acme")]).expect("acme's key");
        assert_eq!(identity.consumer(), "acme");
        assert_eq!(identity.consumer_header(), "acme");
        assert_eq!(identity.authority(), "test");
        assert_eq!(identity.expires_at, None);
    }

    #[test]
    fn a_key_carries_its_scopes_and_role() {
        let identity = verify(&[("x-api-key", "k-beta")]).expect("beta's key");
        assert!(identity.has_scope("a") && identity.has_scope("b") && identity.has_role("admin"));
        assert!(!identity.has_scope("c") && !identity.has_role("a"));
    }

    #[test]
    fn anything_but_a_whole_key_is_refused() {
        for wrong in ["", "k-acm", "k-acmee", "K-ACME", "acme"] {
            assert_eq!(verify(&[("x-api-key", wrong)]), Err(Denial::UnknownApiKey), "{wrong}");
        }
    }

    #[test]
    fn no_key_is_missing_and_two_are_one_too_many() {
        assert_eq!(verify(&[("authorization", "Bearer k-acme")]), Err(Denial::Missing));
        let twice = [("x-api-key", "k-acme"), ("x-api-key", "k-acme")];
        assert_eq!(verify(&twice), Err(Denial::Malformed));
    }
}
