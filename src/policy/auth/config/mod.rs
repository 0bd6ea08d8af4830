//! The `auth:` section as the operator configures it: named authorities, each a JWT issuer, a set of API
//! keys, a rule for certificates, or a service that is asked. What a route requires of them is in `requirement`.
//!
//! Whatever can be checked while parsing is refused here, so that the error has a line. Whether a
//! PEM contains a usable key is found when a `Verifier` is made from it.

mod address;
mod api_key;
mod asked;
mod client_certificate;
mod forward;
mod introspection;
mod jwks;
mod jwt;

pub use address::ServiceUrl;
pub use api_key::{ApiKey, ApiKeys};
pub use client_certificate::ClientCertificate;
pub use forward::{Forward, ForwardCache};
pub use introspection::{Introspection, Login};
pub use jwks::Jwks;
pub use jwt::{Algorithms, Audience, Cache, ClaimRules, Jwt, KeySource, Pem};

use super::caller::Names;

/// One authority.
#[derive(Debug, Clone, PartialEq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Config {
    /// Bearer tokens (RFC 6750, RFC 7519).
    Jwt(Box<Jwt>),
    /// A shared secret in a header.
    ApiKey(ApiKeys),
    /// The names in the certificate by which a client has proved who it is in its TLS handshake.
    ClientCertificate(ClientCertificate),
    /// Bearer tokens that an authorization server is asked about (RFC 7662).
    Introspection(Box<Introspection>),
    /// An HTTP service that is asked about each request, as Traefik's `forwardAuth` and NGINX's
    /// `auth_request` do.
    Forward(Box<Forward>),
}

impl Config {
    /// How it names those whom it accepts.
    pub fn names(&self) -> Names {
        match self {
            Config::ClientCertificate(ClientCertificate { common_name, .. }) => {
                Names::Certified { common_name: *common_name }
            }
            Config::Jwt(_) | Config::ApiKey(_) | Config::Introspection(_) | Config::Forward(_) => {
                Names::Own
            }
        }
    }

    /// Whether it knows more of a client than its name: the claims of a token.
    pub fn has_claims(&self) -> bool {
        match self {
            Config::Jwt(_) | Config::Introspection(_) => true,
            Config::ApiKey(_) | Config::ClientCertificate(_) | Config::Forward(_) => false,
        }
    }
}

#[cfg(test)]
mod tests;
