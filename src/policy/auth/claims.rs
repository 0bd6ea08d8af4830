//! What a signed token must contain, and the identity read from it.
//!
//! The time checks are our own, because the JWT library reads the clock itself.

use std::sync::Arc;

use jsonwebtoken::dangerous::insecure_decode_claims;
use serde_json::{Map, Value};

use super::config::{Audience, ClaimRules};
use super::denial::Denial;
use super::identity::{Consumer, Identity};

/// Where issuers put scopes: RFC 8693 says `scope`, Entra ID and Okta `scp`, others `scopes`.
const SCOPES: [&str; 3] = ["scope", "scp", "scopes"];

/// The claims one issuer's tokens must carry.
#[derive(Clone)]
pub(super) struct Claims {
    authority: Arc<str>,
    issuer: Option<Box<str>>,
    audience: Audience,
    leeway_seconds: u64,
    consumer: Box<str>,
    /// The claim that holds the scopes; if none is configured, the first of [`SCOPES`] that is
    /// present.
    scopes: Option<Box<str>>,
    role: Box<str>,
    /// Further claims that are kept.
    kept: Arc<[Arc<str>]>,
}

impl Claims {
    /// Those of tokens, or of the answers of an authorization server.
    pub(super) fn new(authority: Arc<str>, rules: &ClaimRules) -> Self {
        let ClaimRules { issuer, audience, leeway, consumer_claim, scopes_claim, role_claim } =
            rules;
        Claims {
            authority,
            issuer: issuer.as_deref().map(Box::from),
            audience: audience.clone(),
            leeway_seconds: leeway.as_secs(),
            consumer: consumer_claim.as_str().into(),
            scopes: scopes_claim.as_deref().map(Box::from),
            role: role_claim.as_str().into(),
            kept: Arc::default(),
        }
    }

    pub(super) fn keeping(&self, kept: Arc<[Arc<str>]>) -> Self {
        Claims { kept, ..self.clone() }
    }

    pub(super) fn kept(&self) -> &[Arc<str>] {
        &self.kept
    }

    /// Reads a token **whose signature has been verified**; `unix_seconds` is now.
    pub(super) fn read(&self, token: &[u8], unix_seconds: u64) -> Result<Identity, Denial> {
        let claims: Map<String, Value> =
            insecure_decode_claims(token).map_err(|_| Denial::Claims)?;
        let expires_at = numeric_date(&claims, "exp")?.ok_or(Denial::Claims)?;
        self.check(&claims, Some(expires_at), unix_seconds)
    }

    /// Reads what an authorization server says of an active token, which need not have an `exp`.
    pub(super) fn read_answer(
        &self,
        claims: &Map<String, Value>,
        unix_seconds: u64,
    ) -> Result<Identity, Denial> {
        let expires_at = numeric_date(claims, "exp")?;
        self.check(claims, expires_at, unix_seconds)
    }

    fn check(
        &self,
        claims: &Map<String, Value>,
        expires_at: Option<u64>,
        unix_seconds: u64,
    ) -> Result<Identity, Denial> {
        if let Some(at) = expires_at.filter(|at| self.is_over(*at, unix_seconds)) {
            return Err(Denial::Expired { at });
        }
        let starts_at = numeric_date(claims, "nbf")?.unwrap_or(0);
        if unix_seconds.saturating_add(self.leeway_seconds) < starts_at {
            return Err(Denial::NotYetValid);
        }
        if self.issuer.is_some() && claims.get("iss").and_then(Value::as_str) != self.issuer() {
            return Err(Denial::Issuer);
        }
        if !self.is_audience(claims.get("aud")) {
            return Err(Denial::Audience);
        }
        self.identity(claims, expires_at)
    }

    /// Whether a token with this `exp` has expired: it is not accepted on or after that second (RFC
    /// 7519, section 4.1.4), plus the leeway.
    pub(super) fn is_over(&self, expires_at: u64, unix_seconds: u64) -> bool {
        unix_seconds >= expires_at.saturating_add(self.leeway_seconds)
    }

    /// Whether a token, not verified yet, does not even claim to be from this issuer. Saves a fetch
    /// of keys for tokens of another authority of the same route.
    pub(super) fn is_foreign(&self, token: &[u8]) -> bool {
        #[derive(serde::Deserialize)]
        struct Claimed {
            iss: Option<Value>,
        }
        let Some(issuer) = self.issuer() else { return false };
        insecure_decode_claims::<Claimed>(token)
            .is_ok_and(|claimed| claimed.iss.as_ref().and_then(Value::as_str) != Some(issuer))
    }

    fn issuer(&self) -> Option<&str> {
        self.issuer.as_deref()
    }

    /// `aud` is one string or a list (RFC 7519, section 4.1.3).
    fn is_audience(&self, claim: Option<&Value>) -> bool {
        match &self.audience {
            Audience::Any => true,
            Audience::OneOf(names) => {
                words(claim).iter().any(|word| names.iter().any(|name| **name == **word))
            }
        }
    }

    fn identity(
        &self,
        claims: &Map<String, Value>,
        expires_at: Option<u64>,
    ) -> Result<Identity, Denial> {
        let name = match find(claims, &self.consumer) {
            Some(Value::String(name)) => name.parse(),
            Some(Value::Number(number)) if number.is_u64() => number.to_string().parse(),
            _ => return Err(Denial::Consumer),
        };
        let consumer: Consumer = name.map_err(|_| Denial::Consumer)?;
        let scopes = match &self.scopes {
            Some(name) => find(claims, name),
            None => SCOPES.iter().find_map(|name| claims.get(*name).filter(|it| !it.is_null())),
        };
        let scopes = words(scopes)
            .iter()
            .flat_map(|text| text.split_ascii_whitespace())
            .map(Box::from)
            .collect();
        Ok(Identity {
            authority: self.authority.clone(),
            header: consumer.to_header().map_err(|_| Denial::Consumer)?,
            consumer,
            certified: None,
            scopes,
            roles: words(find(claims, &self.role)).into_iter().map(Box::from).collect(),
            expires_at,
            passed: Box::default(),
            claims: self
                .kept
                .iter()
                .filter_map(|name| Some((name.clone(), text(find(claims, name)?)?)))
                .collect(),
        })
    }
}

/// A claim by its name, or by a path of names separated by dots (`realm_access.roles`). The whole
/// name is tried first, because names that are URLs contain dots.
fn find<'a>(claims: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    if let Some(value) = claims.get(name) {
        return Some(value);
    }
    let (first, rest) = name.split_once('.')?;
    find(claims.get(first)?.as_object()?, rest)
}

/// The strings of a claim that is a string or a list of strings; none for any other type.
fn words(claim: Option<&Value>) -> Vec<&str> {
    match claim {
        Some(Value::String(word)) => vec![word],
        Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

/// A claim with a single value. An empty one, a list or an object does not identify a consumer.
fn text(claim: &Value) -> Option<Box<str>> {
    match claim {
        Value::String(text) if !text.is_empty() => Some(text.as_str().into()),
        Value::Number(number) => Some(number.to_string().into()),
        Value::Bool(value) => Some(value.to_string().into()),
        Value::String(_) | Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// A time claim in whole seconds, rounded down; its value may have a fraction.
fn numeric_date(claims: &Map<String, Value>, name: &str) -> Result<Option<u64>, Denial> {
    let Some(value) = claims.get(name) else { return Ok(None) };
    if let Some(seconds) = value.as_u64() {
        return Ok(Some(seconds));
    }
    let seconds = value.as_f64().filter(|s| s.is_finite()).ok_or(Denial::Claims)?;
    // `as` saturates: a time before 1970 is 0, one beyond `u64` is its maximum.
    Ok(Some(seconds as u64))
}

#[cfg(test)]
mod tests;
