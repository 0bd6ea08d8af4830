//! One entry of `auth:`, compiled.

use std::fmt;
use std::sync::Arc;

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName};

use super::Now;
use super::api_key::Holders;
use super::bearer::Bearer;
use super::config::{Config, Jwks, KeySource};
use super::denial::Denial;
use super::identity::Identity;
use super::keyring::Keyring;
use super::keys::InvalidKeys;

/// Turns a request's headers into an identity. Keep it over a reload while its configuration is the
/// same: it holds the fetched keys and the verified tokens.
pub struct Verifier {
    authority: Arc<str>,
    scheme: Scheme,
    jwks: Option<Jwks>,
}

enum Scheme {
    Bearer(Box<Bearer>),
    ApiKey(Holders),
}

impl Verifier {
    /// `authority` is the entry's name.
    ///
    /// # Errors
    /// When the keys in the configuration cannot be used; the message names the remedy and belongs
    /// to `auth.<authority>`.
    pub fn try_new(authority: &str, config: &Config) -> Result<Self, InvalidKeys> {
        let authority: Arc<str> = authority.into();
        let mut jwks = None;
        let scheme = match config {
            Config::Jwt(jwt) => {
                if let KeySource::Jwks(source) = &jwt.keys {
                    jwks = Some(source.clone());
                }
                Scheme::Bearer(Box::new(Bearer::try_new(&authority, jwt)?))
            }
            Config::ApiKey(keys) => Scheme::ApiKey(Holders::try_new(&authority, keys)?),
        };
        Ok(Verifier { authority, scheme, jwks })
    }

    /// The same with the same keys, but with `claims` kept in the identities that it makes of tokens.
    #[must_use]
    pub fn keeping(&self, claims: Arc<[Arc<str>]>) -> Self {
        let scheme = match &self.scheme {
            Scheme::Bearer(bearer) => Scheme::Bearer(Box::new(bearer.keeping(claims))),
            Scheme::ApiKey(holders) => Scheme::ApiKey(holders.clone()),
        };
        Verifier { authority: self.authority.clone(), scheme, jwks: self.jwks.clone() }
    }

    /// What `keeping` was told.
    pub fn kept_claims(&self) -> &[Arc<str>] {
        match &self.scheme {
            Scheme::Bearer(bearer) => bearer.kept_claims(),
            Scheme::ApiKey(_) => &[],
        }
    }

    pub fn authority(&self) -> &Arc<str> {
        &self.authority
    }

    /// Who the request speaks for. Allocates only for a token not seen before.
    ///
    /// # Errors
    /// A [`Denial`]; one with [`Denial::wanted_keys`] may be asked again after a fetch.
    pub fn verify(&self, headers: &HeaderMap, now: Now) -> Result<Arc<Identity>, Denial> {
        match &self.scheme {
            Scheme::Bearer(bearer) => bearer.verify(headers, now),
            Scheme::ApiKey(holders) => holders.verify(headers),
        }
    }

    /// The key set to fetch and where to publish it, if that is where the keys come from.
    pub fn remote_keys(&self) -> Option<(&Jwks, &Arc<Keyring>)> {
        match &self.scheme {
            Scheme::Bearer(bearer) => self.jwks.as_ref().map(|jwks| (jwks, &bearer.keyring)),
            Scheme::ApiKey(_) => None,
        }
    }

    /// The header the credentials are in.
    pub fn credential_header(&self) -> &HeaderName {
        match &self.scheme {
            Scheme::Bearer(_) => &AUTHORIZATION,
            Scheme::ApiKey(holders) => &holders.header,
        }
    }

    pub(super) fn takes_tokens(&self) -> bool {
        matches!(self.scheme, Scheme::Bearer(_))
    }
}

/// The name only: everything else is a key or derived from one.
impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").field("authority", &self.authority).finish_non_exhaustive()
    }
}
