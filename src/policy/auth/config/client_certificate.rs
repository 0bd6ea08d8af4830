//! `client_certificate:`: clients by the names in their certificates.

use crate::policy::auth::peer::pattern::Pattern;

/// Clients by the certificate that a listener with `client_ca` has verified.
#[derive(Debug, Clone, PartialEq, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClientCertificate {
    /// The names that are accepted, of which a certificate must have one; default: every name.
    #[serde(default, deserialize_with = "some_patterns")]
    #[schemars(length(min = 1))]
    pub allow: Vec<Pattern>,
    /// Whether the common name counts where a certificate has neither a SPIFFE id nor a DNS name; default
    /// `false`.
    #[serde(default)]
    pub common_name: bool,
    /// Whether a peer in `trusted_proxies` that ended TLS itself is believed what it says of the
    /// client's certificate in `X-Forwarded-Client-Cert`; default `false`.
    #[serde(default)]
    pub from_proxies: bool,
}

fn some_patterns<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<Pattern>, D::Error> {
    let patterns: Vec<Pattern> = serde::Deserialize::deserialize(deserializer)?;
    if patterns.is_empty() {
        let empty = "an empty list allows no one: leave `allow` out to accept every name";
        return Err(serde::de::Error::custom(empty));
    }
    Ok(patterns)
}
