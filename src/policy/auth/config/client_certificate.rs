//! `client_certificate:`: clients by the names in their certificates.

use crate::identity::pattern::Pattern;

/// Clients by the certificate that a listener with `client_ca` has verified.
#[derive(Debug, Clone, PartialEq, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClientCertificate {
    /// The names that are accepted, of which a certificate must have one; an element may hold several,
    /// separated by commas. Default: every name.
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

/// Of one element.
#[derive(serde::Deserialize)]
#[serde(try_from = "String")]
struct Patterns(Vec<Pattern>);

impl TryFrom<String> for Patterns {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        // Blanks beside a comma are no part of a name, but those at the ends are refused.
        let parts = text.split_inclusive(',').enumerate().map(|(place, part)| {
            let part = if place == 0 { part } else { part.trim_start() };
            part.strip_suffix(',').map_or(part, str::trim_end).parse()
        });
        parts.collect::<Result<_, _>>().map(Patterns)
    }
}

fn some_patterns<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<Pattern>, D::Error> {
    let elements: Vec<Patterns> = serde::Deserialize::deserialize(deserializer)?;
    let patterns: Vec<Pattern> = elements.into_iter().flat_map(|element| element.0).collect();
    if patterns.is_empty() {
        let empty = "an empty list allows no one: leave `allow` out to accept every name";
        return Err(serde::de::Error::custom(empty));
    }
    Ok(patterns)
}
