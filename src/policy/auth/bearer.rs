//! Bearer tokens (RFC 6750): taken from the request, checked against keys and claims, and cached.
//!
//! A token seen before costs one lookup, and one digest unless its connection has brought it before.
//! Refusals are not cached: the number of good tokens is bounded by what issuers sign, but any client
//! could fill a table of bad ones.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use jsonwebtoken::{Header, crypto, decode_header};
use quick_cache::sync::Cache;

use super::claims::Claims;
use super::config::{self, Algorithms, Jwt, KeySource};
use super::denial::Denial;
use super::digest::Digest;
use super::identity::Identity;
use super::keyring::Keyring;
use super::keys::{InvalidKeys, Key, KeySet};
use super::{Now, Presented};
use crate::time::Moment;

/// Longer tokens are refused without being read.
const MAX_TOKEN_BYTES: usize = 16 * 1024;
/// Longer key ids are refused, because they are kept while keys are fetched.
const MAX_KID_BYTES: usize = 256;

/// Verifies one issuer's tokens.
pub(super) struct Bearer {
    authority: Arc<str>,
    pub(super) keyring: Arc<Keyring>,
    algorithms: Algorithms,
    claims: Claims,
    verified: Option<Verified>,
    /// The least time until missing keys may be requested again.
    min_refetch: Duration,
}

impl Bearer {
    pub(super) fn try_new(authority: &Arc<str>, config: &Jwt) -> Result<Self, InvalidKeys> {
        // Verifying panics if no provider is installed and more than one is compiled in. It is
        // installed once per process; if other code was first, that is fine.
        let _ = crypto::aws_lc::DEFAULT_PROVIDER.install_default();
        let algorithms = config.algorithms.clone();
        let keys = match &config.keys {
            KeySource::Jwks(_) => KeySet::empty(),
            KeySource::PublicKey(pem) => KeySet::from_pem(pem, &algorithms)?,
            KeySource::Secret(secret) => KeySet::from_secret(secret, &algorithms),
        };
        Ok(Bearer {
            authority: authority.clone(),
            keyring: Arc::new(Keyring::new(keys, algorithms.clone())),
            algorithms,
            claims: Claims::new(authority.clone(), &config.claims),
            verified: Verified::new(&config.cache),
            min_refetch: match &config.keys {
                KeySource::Jwks(jwks) => *jwks.min_refetch,
                KeySource::PublicKey(_) | KeySource::Secret(_) => Duration::ZERO,
            },
        })
    }

    /// A verifier with the same keys that keeps other claims. It starts with an empty cache,
    /// because cached identities do not have those claims.
    pub(super) fn keeping(&self, claims: Arc<[Arc<str>]>) -> Self {
        Bearer {
            authority: self.authority.clone(),
            keyring: self.keyring.clone(),
            algorithms: self.algorithms.clone(),
            claims: self.claims.keeping(claims),
            verified: self.verified.as_ref().and_then(|verified| Verified::new(&verified.config)),
            min_refetch: self.min_refetch,
        }
    }

    pub(super) fn kept_claims(&self) -> &[Arc<str>] {
        self.claims.kept()
    }

    pub(super) fn verify(
        &self,
        presented: Presented<'_>,
        now: Now,
    ) -> Result<Arc<Identity>, Denial> {
        let token = token(presented.headers)?;
        let keys = self.keyring.current();
        // Before the cache: with keys that are too old no token is valid, cached or not.
        if !keys.is_usable(now.moment) {
            return Err(self.unchecked(token));
        }
        let Some(verified) = &self.verified else {
            return self.examine(token, &keys, now.unix_seconds).map(Arc::new);
        };
        let digest = match presented.recent {
            Some(recent) => recent.digest(token),
            None => Digest::of([token]),
        };
        if let Some(seen) = verified.tokens.get(&digest)
            && seen.generation == keys.generation
            && now.moment < seen.until
            && !self.claims.is_over(seen.expires_at, now.unix_seconds)
        {
            return Ok(seen.identity);
        }
        let identity = Arc::new(self.examine(token, &keys, now.unix_seconds)?);
        verified.remember(digest, &identity, keys.generation, now.moment);
        Ok(identity)
    }

    /// What can be said of a token without keys. A token that no key could make valid is refused
    /// for that reason, so that its client need not try again.
    fn unchecked(&self, token: &[u8]) -> Denial {
        let Ok(header) = decode_header(token) else { return Denial::Malformed };
        if let Err(denial) = self.check_header(&header) {
            return denial;
        }
        if self.claims.is_foreign(token) {
            return Denial::Issuer;
        }
        Denial::KeysUnavailable { authority: self.authority.clone(), retry_after: self.min_refetch }
    }

    fn examine(&self, token: &[u8], keys: &KeySet, unix: u64) -> Result<Identity, Denial> {
        let header = decode_header(token).map_err(|_| Denial::Malformed)?;
        self.check_header(&header)?;
        self.check_signature(token, &header, keys)?;
        self.claims.read(token, unix)
    }

    /// Ignores the token's own `jku`, `x5u`, `jwk` and `x5c`: a token must not choose which key is
    /// trusted.
    fn check_header(&self, header: &Header) -> Result<(), Denial> {
        if header.crit.is_some() {
            return Err(Denial::Critical);
        }
        if !self.algorithms.contains(header.alg) {
            return Err(Denial::Algorithm);
        }
        if header.kid.as_ref().is_some_and(|kid| kid.len() > MAX_KID_BYTES) {
            return Err(Denial::Malformed);
        }
        Ok(())
    }

    fn check_signature(&self, token: &[u8], header: &Header, keys: &KeySet) -> Result<(), Denial> {
        let kid = header.kid.as_deref();
        let text = std::str::from_utf8(token).map_err(|_| Denial::Malformed)?;
        let (message, signature) = text.rsplit_once('.').ok_or(Denial::Malformed)?;
        let verifies = |key: &Key| {
            crypto::verify(signature, message.as_bytes(), &key.decoding, header.alg)
                .is_ok_and(|good| good)
        };
        if keys.candidates(kid, header.alg).any(verifies) {
            return Ok(());
        }
        Err(self.not_verified(token, kid, keys))
    }

    /// No current key verifies the token. The denial says whether another key might.
    fn not_verified(&self, token: &[u8], kid: Option<&str>, keys: &KeySet) -> Denial {
        if keys.is_fixed() {
            return Denial::BadSignature;
        }
        if self.claims.is_foreign(token) {
            return Denial::Issuer;
        }
        let authority = self.authority.clone();
        match kid {
            Some(kid) if !keys.contains(kid) => Denial::UnknownKey { authority, kid: kid.into() },
            Some(_) | None => Denial::NotVerified {
                authority,
                kid: kid.map(Box::from),
                generation: keys.generation,
            },
        }
    }
}

/// Verified tokens by digest, so that the table holds no credential.
struct Verified {
    config: config::Cache,
    tokens: Cache<Digest, Seen>,
}

#[derive(Clone)]
struct Seen {
    identity: Arc<Identity>,
    expires_at: u64,
    until: Moment,
    /// The generation of the keys that verified it. With other keys it has to be verified again.
    generation: u64,
}

impl Verified {
    /// `None` if nothing is to be cached.
    fn new(config: &config::Cache) -> Option<Self> {
        let tokens = usize::try_from(config.max_tokens.get()).unwrap_or(usize::MAX);
        (!config.ttl.is_zero())
            .then(|| Verified { config: config.clone(), tokens: Cache::new(tokens) })
    }

    fn remember(&self, digest: Digest, identity: &Arc<Identity>, generation: u64, now: Moment) {
        let Some(expires_at) = identity.expires_at else { return };
        let until = now + *self.config.ttl;
        let seen = Seen { identity: identity.clone(), expires_at, until, generation };
        self.tokens.insert(digest, seen);
    }
}

/// The one bearer token of a request. Credentials of another scheme are ignored.
pub(super) fn token(headers: &HeaderMap) -> Result<&[u8], Denial> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let Some(value) = values.next() else { return Err(Denial::Missing) };
    if values.next().is_some() {
        // It is unknown which one the upstream would accept.
        return Err(Denial::Malformed);
    }
    let value = value.as_bytes();
    let end = value.iter().position(|b| *b == b' ').unwrap_or(value.len());
    let (scheme, rest) = value.split_at(end);
    if !scheme.eq_ignore_ascii_case(b"bearer") {
        return Err(Denial::Missing);
    }
    let token = rest.trim_ascii();
    if token.is_empty() || token.len() > MAX_TOKEN_BYTES {
        return Err(Denial::Malformed);
    }
    Ok(token)
}

#[cfg(test)]
mod tests;
