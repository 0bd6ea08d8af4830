//! `introspection:`: bearer tokens that an authorization server is asked about (RFC 7662).

use std::num::NonZeroU32;

use super::asked::{five_seconds, in_flight, two_seconds};
use super::jwt::{Audience, Cache, ClaimRules, one_minute, role, sub};
use super::{ServiceUrl, asked};
use crate::units::{Secret, Timespan};

/// Bearer tokens that an authorization server is asked about (RFC 7662).
#[derive(Debug, Clone, PartialEq, serde::Deserialize, schemars::JsonSchema)]
#[schemars(with = "WrittenIntrospection")]
#[serde(try_from = "WrittenIntrospection")]
pub struct Introspection {
    /// The server's introspection endpoint.
    pub url: ServiceUrl,
    /// How the gateway proves to the server who asks.
    pub login: Login,
    /// What the server's answer must say; the audience is `any` by default.
    pub claims: ClaimRules,
    /// The time limit of one question, including the connect; longer than 0, default 2 s.
    pub timeout: Timespan,
    /// The most questions under way at once; at least 1, default 128.
    pub max_in_flight: NonZeroU32,
    /// Remembers active tokens; default: 10,000 for 1 min.
    pub cache: Cache,
    /// How long a token that is not active is refused without asking again; default 5 s.
    pub refused_ttl: Timespan,
}

/// How the gateway proves to an authorization server who asks.
#[derive(Debug, Clone, PartialEq)]
pub enum Login {
    /// Not at all.
    None,
    /// By a name and a password in `Authorization: Basic` (RFC 6749, section 2.3.1).
    Client {
        /// The name.
        id: String,
        /// The password.
        secret: Secret,
    },
    /// By a token in `Authorization: Bearer`.
    Token(Secret),
}

#[derive(serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
struct WrittenIntrospection {
    /// The server's introspection endpoint.
    url: ServiceUrl,
    /// The gateway's name at the server, with `client_secret`; absent: `token`, or no proof.
    client_id: Option<String>,
    /// The gateway's password at the server.
    client_secret: Option<Secret>,
    /// The gateway's own token at the server, instead of `client_id`.
    token: Option<Secret>,
    /// The required `iss`; absent: any, or none.
    issuer: Option<String>,
    /// `aud` must contain one of these, or `any`: not checked; default `any`.
    #[serde(default = "any")]
    audience: Audience,
    /// The allowed difference between our clock and the server's, for `exp` and `nbf`; may be 0,
    /// default 1 min.
    #[serde(default = "one_minute")]
    leeway: Timespan,
    /// The member of the answer that names the consumer; default `sub`.
    #[serde(default = "sub")]
    consumer_claim: String,
    /// The member with the scopes: one string separated by spaces, or a list. Absent: the first one
    /// present of `scope`, `scp` and `scopes`.
    scopes_claim: Option<String>,
    /// The member with a role, or a list of roles; default `role`.
    #[serde(default = "role")]
    role_claim: String,
    /// The time limit of one question, including the connect; longer than 0, default 2 s.
    #[serde(default = "two_seconds")]
    timeout: Timespan,
    /// The most questions under way at once; further ones wait. At least 1, default 128.
    #[serde(default = "in_flight")]
    max_in_flight: NonZeroU32,
    /// Remembers active tokens: 10,000 for 1 min by default, never beyond their `exp` and the leeway.
    #[serde(default)]
    cache: Cache,
    /// How long a token that is not active is refused without asking again; 0: not at all, default
    /// 5 s.
    #[serde(default = "five_seconds")]
    refused_ttl: Timespan,
}

impl TryFrom<WrittenIntrospection> for Introspection {
    type Error = String;

    fn try_from(written: WrittenIntrospection) -> Result<Self, String> {
        let login = match (written.client_id, written.client_secret, written.token) {
            (None, None, None) => Login::None,
            (Some(id), Some(secret), None) => Login::Client { id, secret },
            (None, None, Some(token)) => Login::Token(token),
            _ => {
                return Err("write client_id and client_secret together, or token alone".to_owned());
            }
        };
        if let Login::Token(token) = &login {
            asked::bearer(token)?;
        }
        if written.timeout.is_zero() {
            return Err("timeout must be more than 0".to_owned());
        }
        Ok(Introspection {
            url: written.url,
            login,
            claims: ClaimRules {
                issuer: written.issuer,
                audience: written.audience,
                leeway: written.leeway,
                consumer_claim: written.consumer_claim,
                scopes_claim: written.scopes_claim,
                role_claim: written.role_claim,
            },
            timeout: written.timeout,
            max_in_flight: written.max_in_flight,
            cache: written.cache,
            refused_ttl: written.refused_ttl,
        })
    }
}

fn any() -> Audience {
    Audience::Any
}
