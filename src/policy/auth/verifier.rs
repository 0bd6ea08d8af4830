//! One entry of `auth:`, compiled.

use std::fmt;
use std::sync::Arc;

use http::HeaderName;
use http::header::AUTHORIZATION;

use super::api_key::KeyHolders;
use super::bearer::Bearer;
use super::caller::{Accepted, Names};
use super::certificate::CertificateHolders;
use super::config::{Config, Jwks, KeySource};
use super::denial::Denial;
use super::forward::Forwarder;
use super::identity::Identity;
use super::inquiry::Inquiry;
use super::introspection::Introspector;
use super::keyring::Keyring;
use super::keys::InvalidKeys;
use super::{Now, Presented};

/// Turns a request's headers into an identity. A reload keeps it while its configuration is
/// unchanged, because it holds the fetched keys and the verified tokens.
pub struct Verifier {
    authority: Arc<str>,
    scheme: Scheme,
    jwks: Option<Jwks>,
}

enum Scheme {
    Bearer(Box<Bearer>),
    ApiKey(KeyHolders),
    Certificate(CertificateHolders),
    Asked(Arc<Inquiry>),
}

/// Where tokens are.
static OF_TOKENS: [HeaderName; 1] = [AUTHORIZATION];

impl Verifier {
    /// `authority` is the entry's name.
    ///
    /// # Errors
    /// The keys in the configuration cannot be used. The message names the remedy and belongs to
    /// `auth.<authority>`.
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
            Config::ApiKey(keys) => Scheme::ApiKey(KeyHolders::try_new(&authority, keys)?),
            Config::ClientCertificate(config) => {
                Scheme::Certificate(CertificateHolders::new(&authority, config))
            }
            Config::Introspection(config) => Scheme::Asked(Arc::new(Inquiry::Introspection(
                Introspector::new(&authority, config),
            ))),
            Config::Forward(config) => {
                Scheme::Asked(Arc::new(Inquiry::Forward(Forwarder::new(&authority, config))))
            }
        };
        Ok(Verifier { authority, scheme, jwks })
    }

    /// A verifier with the same keys that keeps `claims` of tokens in the identities.
    #[must_use]
    pub fn keeping(&self, claims: Arc<[Arc<str>]>) -> Self {
        let scheme = match &self.scheme {
            Scheme::Bearer(bearer) => Scheme::Bearer(Box::new(bearer.keeping(claims))),
            Scheme::ApiKey(holders) => Scheme::ApiKey(holders.clone()),
            Scheme::Certificate(holders) => Scheme::Certificate(holders.clone()),
            Scheme::Asked(inquiry) => Scheme::Asked(match &**inquiry {
                Inquiry::Introspection(introspector) => {
                    Arc::new(Inquiry::Introspection(introspector.keeping(claims)))
                }
                Inquiry::Forward(_) => inquiry.clone(),
            }),
        };
        Verifier { authority: self.authority.clone(), scheme, jwks: self.jwks.clone() }
    }

    /// The claims that are kept; see [`Verifier::keeping`].
    pub fn kept_claims(&self) -> &[Arc<str>] {
        match &self.scheme {
            Scheme::Bearer(bearer) => bearer.kept_claims(),
            Scheme::ApiKey(_) | Scheme::Certificate(_) => &[],
            Scheme::Asked(inquiry) => match &**inquiry {
                Inquiry::Introspection(introspector) => introspector.kept_claims(),
                Inquiry::Forward(_) => &[],
            },
        }
    }

    /// The name of the entry in `auth`.
    pub fn authority(&self) -> &Arc<str> {
        &self.authority
    }

    /// How it names those whom it accepts.
    pub(super) fn accepted(&self) -> Accepted<'_> {
        let names = match &self.scheme {
            Scheme::Certificate(holders) => holders.names(),
            Scheme::Bearer(_) | Scheme::ApiKey(_) | Scheme::Asked(_) => Names::Own,
        };
        Accepted { authority: &self.authority, names }
    }

    /// The service that has to be asked before [`Verifier::verify`] can tell anything; `None` if it
    /// decides by itself.
    pub fn inquiry(&self) -> Option<&Arc<Inquiry>> {
        match &self.scheme {
            Scheme::Asked(inquiry) => Some(inquiry),
            Scheme::Bearer(_) | Scheme::ApiKey(_) | Scheme::Certificate(_) => None,
        }
    }

    /// The identity behind a request. Allocates only for a token not seen before.
    ///
    /// # Errors
    /// A [`Denial`]. If it has [`Denial::wanted_keys`], try again after a fetch. Where a service has
    /// to be asked, [`Denial::Missing`].
    pub fn verify<'a>(
        &self,
        presented: impl Into<Presented<'a>>,
        now: Now,
    ) -> Result<Arc<Identity>, Denial> {
        let presented = presented.into();
        match &self.scheme {
            Scheme::Bearer(bearer) => bearer.verify(presented, now),
            Scheme::ApiKey(holders) => holders.verify(presented.headers),
            Scheme::Certificate(holders) => holders.verify(presented.peer, presented.told),
            Scheme::Asked(_) => Err(Denial::Missing),
        }
    }

    /// The key set to fetch and where to publish it, if the keys come from one.
    pub fn remote_keys(&self) -> Option<(&Jwks, &Arc<Keyring>)> {
        match &self.scheme {
            Scheme::Bearer(bearer) => self.jwks.as_ref().map(|jwks| (jwks, &bearer.keyring)),
            Scheme::ApiKey(_) | Scheme::Certificate(_) | Scheme::Asked(_) => None,
        }
    }

    /// The headers that hold the credentials.
    pub fn credential_headers(&self) -> &[HeaderName] {
        match &self.scheme {
            Scheme::Bearer(_) => &OF_TOKENS,
            Scheme::ApiKey(holders) => std::slice::from_ref(&holders.header),
            Scheme::Certificate(_) => &[],
            Scheme::Asked(inquiry) => match &**inquiry {
                Inquiry::Introspection(_) => &OF_TOKENS,
                Inquiry::Forward(forwarder) => &forwarder.config.credentials,
            },
        }
    }

    /// The headers that the upstream believes to come from the authority. A client must not set them.
    pub fn asserted_headers(&self) -> &[HeaderName] {
        match &self.scheme {
            Scheme::Bearer(_) | Scheme::ApiKey(_) | Scheme::Certificate(_) => &[],
            Scheme::Asked(inquiry) => match &**inquiry {
                Inquiry::Introspection(_) => &[],
                Inquiry::Forward(forwarder) => &forwarder.asserted,
            },
        }
    }

    /// How it asks for credentials in `WWW-Authenticate`; `None` if only a service knows, or they are no
    /// part of a request.
    pub(super) fn challenge(&self, error: &str) -> Option<String> {
        match &self.scheme {
            Scheme::Bearer(_) => Some(format!("Bearer realm=\"portcullis\"{error}")),
            Scheme::ApiKey(holders) => {
                Some(format!("ApiKey realm=\"portcullis\", header=\"{}\"", holders.header))
            }
            Scheme::Certificate(_) => None,
            Scheme::Asked(inquiry) => match &**inquiry {
                Inquiry::Introspection(_) => Some(format!("Bearer realm=\"portcullis\"{error}")),
                Inquiry::Forward(_) => None,
            },
        }
    }

    pub(super) fn takes_tokens(&self) -> bool {
        match &self.scheme {
            Scheme::Bearer(_) => true,
            Scheme::ApiKey(_) | Scheme::Certificate(_) => false,
            Scheme::Asked(inquiry) => matches!(**inquiry, Inquiry::Introspection(_)),
        }
    }
}

/// Prints the name only: everything else is a key or derived from one.
impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").field("authority", &self.authority).finish_non_exhaustive()
    }
}
