//! Bearer tokens whose authorization server is asked (RFC 7662).

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderValue};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value};

use super::bearer::token;
use super::claims::Claims;
use super::config::{Introspection, Login};
use super::denial::Denial;
use super::digest::Digest;
use super::identity::Identity;
use super::memory::Memory;

/// Asks one authorization server.
pub struct Introspector {
    pub(super) authority: Arc<str>,
    /// As configured.
    pub config: Introspection,
    claims: Claims,
    pub(super) memory: Option<Memory>,
}

impl Introspector {
    pub(super) fn new(authority: &Arc<str>, config: &Introspection) -> Self {
        let claims = Claims::new(authority.clone(), &config.claims);
        Introspector {
            authority: authority.clone(),
            memory: memory(config),
            claims,
            config: config.clone(),
        }
    }

    /// One that keeps other claims. Nothing is remembered, because identities that were do not have
    /// those claims.
    pub(super) fn keeping(&self, claims: Arc<[Arc<str>]>) -> Self {
        Introspector {
            authority: self.authority.clone(),
            config: self.config.clone(),
            claims: self.claims.keeping(claims),
            memory: memory(&self.config),
        }
    }

    pub(super) fn kept_claims(&self) -> &[Arc<str>] {
        self.claims.kept()
    }

    /// The token that a request brings, and the key under which answers about it are remembered.
    ///
    /// # Errors
    /// There is no bearer token, or it cannot be one.
    pub fn token<'a>(&self, headers: &'a HeaderMap) -> Result<(&'a str, Digest), Denial> {
        let token = token(headers)?;
        // RFC 6750, section 2.1: a part of ASCII.
        let text = std::str::from_utf8(token).map_err(|_| Denial::Malformed)?;
        Ok((text, Digest::of([token])))
    }

    /// The form that asks about `token` (RFC 7662, section 2.1).
    pub fn form(&self, token: &str) -> String {
        format!("token={}&token_type_hint=access_token", encoded(token))
    }

    /// The `Authorization` of the question; `None` if the gateway does not say who asks.
    pub fn authorization(&self) -> Option<HeaderValue> {
        let text = match &self.config.login {
            Login::None => return None,
            // Both are encoded as in a form before they are joined (RFC 6749, section 2.3.1).
            Login::Client { id, secret } => {
                let pair = format!("{}:{}", encoded(id), encoded(secret.expose()));
                format!("Basic {}", STANDARD.encode(pair))
            }
            Login::Token(token) => format!("Bearer {}", token.expose()),
        };
        let mut value = HeaderValue::try_from(text).ok()?;
        value.set_sensitive(true);
        Some(value)
    }

    /// What follows from the document that the server has answered with. `unix_seconds` is now.
    ///
    /// # Errors
    /// The token is not active or not for this gateway, or the document is not as RFC 7662 has it.
    pub fn judge(&self, document: &[u8], unix_seconds: u64) -> Result<Identity, Denial> {
        let nonsense =
            |why: &str| Denial::Unanswered { authority: self.authority.clone(), why: why.into() };
        let claims: Map<String, Value> = serde_json::from_slice(document)
            .map_err(|_| nonsense("the answer is not a JSON object"))?;
        match claims.get("active") {
            Some(Value::Bool(true)) => self.claims.read_answer(&claims, unix_seconds),
            Some(Value::Bool(false)) => Err(Denial::Inactive { authority: self.authority.clone() }),
            _ => Err(nonsense("the answer does not say whether the token is `active`")),
        }
    }

    pub(super) fn is_over(&self, identity: &Identity, unix_seconds: u64) -> bool {
        identity.expires_at.is_some_and(|at| self.claims.is_over(at, unix_seconds))
    }
}

fn memory(config: &Introspection) -> Option<Memory> {
    let cache = &config.cache;
    let is_kept = !cache.ttl.is_zero() || !config.refused_ttl.is_zero();
    is_kept.then(|| Memory::new(cache.max_tokens, *cache.ttl, *config.refused_ttl))
}

/// What a form encodes (RFC 6749, appendix B).
const IN_FORMS: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'*');

fn encoded(text: &str) -> impl std::fmt::Display + '_ {
    utf8_percent_encode(text, IN_FORMS)
}

#[cfg(test)]
mod tests;
