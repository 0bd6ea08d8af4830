//! Authentication and authorization: the identity behind a request, and whether its route admits
//! it.
//!
//! A [`Verifier`] is one entry of the file's `auth:` section, compiled: it turns the headers of a
//! request into an [`Identity`] or a [`Denial`]. A [`Guard`] is one route's `auth:`: which
//! verifiers it accepts, the scopes and the role it requires, and the paths it leaves open.
//!
//! Everything here decides on values that are passed in. `runtime::jwks` fetches key sets over HTTP
//! and publishes them into a [`Keyring`]; `runtime::inquiry` asks the services of an [`Inquiry`]; the
//! request path writes the 401, 403 or 503.

mod api_key;
mod bearer;
mod caller;
mod certificate;
mod claims;
mod config;
mod denial;
mod digest;
mod forward;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod guard;
mod identity;
mod inquiry;
mod introspection;
mod keyring;
mod keys;
mod memory;
mod permit;
mod recent;
mod refetch;
mod refusal;
mod requirement;
#[cfg(test)]
pub(crate) mod testing;
mod verifier;

pub use caller::{Accepted, Caller, Names, Unclear};
pub use config::{
    Algorithms, ApiKey, ApiKeys, Audience, Cache, ClaimRules, ClientCertificate, Config, Forward,
    ForwardCache, Introspection, Jwks, Jwt, KeySource, Login, Pem, ServiceUrl,
};
pub use denial::{Denial, Said, Verdict, Wanted};
pub use digest::Digest;
pub use forward::{Answer, Forwarder};
pub use guard::{Guard, Unusable};
pub use identity::{Certified, Consumer, Identity, KeptClaims};
pub use inquiry::Inquiry;
pub use introspection::Introspector;
pub use keyring::{Keyring, Published};
pub use keys::InvalidKeys;
pub use memory::{Turn, Waited};
pub use permit::{Permit, Unpermitted};
pub use recent::Recent;
pub use refetch::Refetch;
pub use refusal::{Forbidden, Refusal};
pub use requirement::{Authorities, Prefix, Requirement, Scope, ScopesMatch};
pub use verifier::Verifier;

use http::HeaderMap;

use crate::identity::Peer;
use crate::time::Moment;

/// What a client presents of itself.
#[derive(Clone, Copy, Debug)]
pub struct Presented<'a> {
    /// Tokens, keys and whatever else is in the request's head.
    pub headers: &'a HeaderMap,
    /// The client, by the certificate of its connection; `None` if it has none.
    pub peer: Option<&'a Peer>,
    /// The same by what a trusted proxy says; `None` if the connection is not a proxy's.
    pub told: Option<Told<'a>>,
    /// What its connection has brought before; `None` where that is not known.
    pub recent: Option<&'a Recent>,
}

/// What a trusted proxy says of its client's certificate.
#[derive(Clone, Copy, Debug)]
pub enum Told<'a> {
    /// Nothing: the client has none.
    Nothing,
    /// Something that names no one.
    Nonsense,
    /// Whom it names.
    Peer(&'a Peer),
}

impl<'a> From<&'a HeaderMap> for Presented<'a> {
    /// Without a certificate.
    fn from(headers: &'a HeaderMap) -> Self {
        Presented { headers, peer: None, told: None, recent: None }
    }
}

/// The two clocks that verification needs, read once by the caller. Tokens use wall-clock time. Our
/// own bounds (cache, stale keys) use the monotonic clock, which is never set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Seconds since 1970-01-01 UTC, as in `exp` and `nbf` (RFC 7519, section 2, NumericDate).
    pub unix_seconds: u64,
    /// On the monotonic clock.
    pub moment: Moment,
}
