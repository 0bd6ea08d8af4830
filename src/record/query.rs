//! The query of a request, as far as a row may keep it.
//!
//! Values of parameters whose names look like secrets are never kept; a route may name more.

use std::sync::Arc;

use super::config::Policy;

/// A parameter whose name contains one of these counts as a secret.
const SECRET_PARTS: [&str; 10] = [
    "token",
    "secret",
    "password",
    "passwd",
    "passphrase",
    "signature",
    "credential",
    "apikey",
    "authorization",
    "assertion",
];
/// So does a parameter with one of these names.
const SECRET_NAMES: [&str; 10] =
    ["key", "code", "sig", "auth", "jwt", "pwd", "pass", "session", "sid", "ticket"];
const REDACTED: &str = "***";

/// What a route keeps of queries.
#[derive(Debug, Clone)]
pub struct Query {
    redact: Arc<[String]>,
}

impl Query {
    /// `None` if the route does not keep queries.
    pub fn compile(policy: &Policy) -> Option<Self> {
        policy.query.then(|| Query { redact: policy.redact.iter().map(|n| plain(n)).collect() })
    }

    /// `query` with its secrets taken out.
    pub fn redacted(&self, query: &str) -> String {
        let mut kept = String::with_capacity(query.len());
        for (index, parameter) in query.split('&').enumerate() {
            if index > 0 {
                kept.push('&');
            }
            match parameter.split_once('=') {
                Some((name, _)) if self.is_secret(name) => {
                    kept.extend([name, "=", REDACTED]);
                }
                Some(_) | None => kept.push_str(parameter),
            }
        }
        kept
    }

    fn is_secret(&self, name: &str) -> bool {
        let name = plain(name);
        SECRET_NAMES.contains(&&*name)
            || SECRET_PARTS.iter().any(|part| name.contains(part))
            || self.redact.contains(&name)
    }
}

/// The name in a canonical form: percent-decoded, lower case, without separators.
fn plain(name: &str) -> String {
    let mut bytes = name.bytes();
    let mut decoded = Vec::with_capacity(name.len());
    while let Some(byte) = bytes.next() {
        let mut digits = bytes.clone();
        let escaped = (byte == b'%').then(|| {
            let mut digit = || char::from(digits.next()?).to_digit(16);
            u8::try_from(digit()? * 16 + digit()?).ok()
        });
        match escaped.flatten() {
            Some(escaped) => {
                bytes = digits;
                decoded.push(escaped);
            }
            None => decoded.push(byte),
        }
    }
    decoded.retain(|byte| !matches!(byte, b'_' | b'-' | b'.'));
    String::from_utf8_lossy(&decoded).to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redacted(query: &str) -> String {
        let policy: Policy =
            serde_yaml::from_str("{query: true, redact: [Customer-Id]}").expect("a valid policy");
        Query::compile(&policy).expect("kept").redacted(query)
    }

    #[test]
    fn secrets_are_not_kept_however_they_are_spelled() {
        for name in ["token", "access_token", "API-Key", "apiKey", "X-Amz-Signature", "%74oken"] {
            assert_eq!(redacted(&format!("a=1&{name}=s3cret&b=")), format!("a=1&{name}=***&b="));
        }
        assert_eq!(
            redacted("customer_id=7&customer_name=Ada"),
            "customer_id=***&customer_name=Ada"
        );
    }

    #[test]
    fn everything_else_is_kept_as_it_came() {
        for query in ["", "a", "a=1&&b", "=", "keyboard=qwerty", "q=%zz%", "monkey=1", "a=b=c"] {
            assert_eq!(redacted(query), query);
        }
    }

    #[test]
    fn nothing_is_kept_unless_asked_for() {
        assert!(Query::compile(&Policy::default()).is_none());
    }
}
