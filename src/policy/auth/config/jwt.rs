//! `jwt:`: tokens of one issuer. Its key set over HTTP is in `jwks`.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

use jsonwebtoken::{Algorithm, AlgorithmFamily};
use serde::de::{self, Deserialize, Deserializer, SeqAccess, Visitor};

use super::jwks::Jwks;
use crate::units::schema::written_as;
use crate::units::{Secret, Timespan};

/// Tokens of one issuer.
#[derive(Debug, Clone, PartialEq, serde::Deserialize, schemars::JsonSchema)]
#[schemars(with = "WrittenJwt")]
#[serde(try_from = "WrittenJwt")]
pub struct Jwt {
    /// What the token must say. An issuer is mandatory with `jwks`, because a key server may sign for more
    /// than one; an audience is always written, because a token that is meant for another service of the same issuer
    /// is otherwise accepted here.
    pub claims: ClaimRules,
    /// The algorithms a token may be signed with; at least one.
    pub algorithms: Algorithms,
    /// The keys `jwks`, `public_key` and `secret`, of which exactly one is present.
    pub keys: KeySource,
    /// Remembers verified tokens; default: 10,000 for 1 min.
    pub cache: Cache,
}

/// What a token, or an authorization server's answer about one, must say, and where it names its holder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimRules {
    /// The required `iss`; absent: any, or none.
    pub issuer: Option<String>,
    /// What `aud` must contain.
    pub audience: Audience,
    /// The allowed difference between our clock and the issuer's, for `exp` and `nbf`; may be 0,
    /// default 1 min.
    pub leeway: Timespan,
    /// The claim that names the consumer; default `sub`.
    pub consumer_claim: String,
    /// The claim with the scopes: one string separated by spaces (RFC 8693), or a list. Absent: the
    /// first one present of `scope`, `scp` and `scopes`.
    pub scopes_claim: Option<String>,
    /// The claim with a role, or a list of roles; default `role`.
    pub role_claim: String,
}

/// For whom a token must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Audience {
    /// `any`: `aud` is not looked at.
    Any,
    /// `aud` must contain one of these; at least one.
    OneOf(Vec<String>),
}

written_as!(Audience, "Audience", {
    "description": "Audiences of which a token must name one, or `any`: not checked.",
    "anyOf": [
        { "const": "any" },
        { "type": "array", "items": { "type": "string" }, "minItems": 1 },
    ],
});

impl<'de> Deserialize<'de> for Audience {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AudienceVisitor;

        impl<'de> Visitor<'de> for AudienceVisitor {
            type Value = Audience;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of audiences such as [orders], or any")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Audience, E> {
                match text {
                    "any" => Ok(Audience::Any),
                    _ => Err(E::custom("expected a list of audiences such as [orders], or any")),
                }
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Audience, A::Error> {
                let mut names: Vec<String> = Vec::new();
                while let Some(name) = list.next_element()? {
                    names.push(name);
                }
                if names.is_empty() {
                    let nothing = "no token fits an empty list: write any to accept every audience";
                    return Err(de::Error::custom(nothing));
                }
                Ok(Audience::OneOf(names))
            }
        }

        deserializer.deserialize_any(AudienceVisitor)
    }
}

/// Where the key for a token comes from: exactly one of `jwks`, `public_key` and `secret`.
#[derive(Debug, Clone, PartialEq)]
pub enum KeySource {
    /// A key set, fetched and refreshed.
    Jwks(Jwks),
    /// One key of an asymmetric algorithm.
    PublicKey(Pem),
    /// HMAC, at least 16 bytes. RFC 7518, section 3.2, requires 32 for HS256. Shorter secrets
    /// exist, and only the issuer can change them, but below 16 bytes they can be guessed.
    Secret(Secret),
}

/// The cache of verified tokens, so that a token is verified once and not with every request.
#[derive(Debug, Clone, PartialEq, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Cache {
    /// The most tokens remembered; at least 1, default 10,000.
    pub max_tokens: NonZeroU32,
    /// A token is dropped after this long, or at its `exp` if that is sooner. 0 means no cache;
    /// default 1 min.
    pub ttl: Timespan,
}

impl Default for Cache {
    fn default() -> Self {
        const TOKENS: NonZeroU32 = NonZeroU32::new(10_000).expect("not zero");
        Cache { max_tokens: TOKENS, ttl: Timespan::from_secs(60) }
    }
}

/// A non-empty list of algorithms, all symmetric or all asymmetric. If both were allowed, an
/// attacker could use a public key as an HMAC secret.
#[derive(Debug, Clone, PartialEq, serde::Deserialize)]
#[serde(try_from = "Vec<Algorithm>")]
pub struct Algorithms(Vec<Algorithm>);

impl Algorithms {
    /// Whether a token may be signed with `algorithm`.
    pub fn contains(&self, algorithm: Algorithm) -> bool {
        self.0.contains(&algorithm)
    }

    pub(in crate::policy::auth) fn iter(&self) -> impl Iterator<Item = Algorithm> + '_ {
        self.0.iter().copied()
    }

    fn are_symmetric(&self) -> bool {
        self.iter().any(|algorithm| algorithm.family() == AlgorithmFamily::Hmac)
    }
}

impl TryFrom<Vec<Algorithm>> for Algorithms {
    type Error = String;

    fn try_from(list: Vec<Algorithm>) -> Result<Self, String> {
        if list.is_empty() {
            return Err("name at least one algorithm, such as [RS256]".to_owned());
        }
        let symmetric = list.iter().filter(|a| a.family() == AlgorithmFamily::Hmac).count();
        if symmetric != 0 && symmetric != list.len() {
            return Err("HS* cannot be allowed together with public-key algorithms: write two \
                        authorities and require either"
                .to_owned());
        }
        Ok(Algorithms(list))
    }
}

/// A public key in PEM, written in the configuration file.
#[derive(Clone, Debug, PartialEq)]
pub struct Pem(String);

impl Pem {
    pub(in crate::policy::auth) fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl FromStr for Pem {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.contains("PRIVATE KEY-----") {
            return Err("this is a private key: the gateway needs the public half only".to_owned());
        }
        if !text.contains("-----BEGIN PUBLIC KEY-----")
            && !text.contains("-----BEGIN RSA PUBLIC KEY-----")
        {
            return Err("expected a public key in PEM (-----BEGIN PUBLIC KEY-----); to read it \
                        from a file, write ${file:path}"
                .to_owned());
        }
        Ok(Pem(text.to_owned()))
    }
}

impl<'de> Deserialize<'de> for Pem {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[derive(serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
struct WrittenJwt {
    /// The required `iss`; absent: any. Mandatory with `jwks`, because a key server may sign for
    /// more than one issuer.
    issuer: Option<String>,
    /// `aud` must contain one of these, or `any`: not checked.
    audience: Option<Audience>,
    /// The algorithms a token may be signed with; at least one.
    algorithms: Algorithms,
    /// The allowed difference between our clock and the issuer's, for `exp` and `nbf`; may be 0,
    /// default 1 min.
    #[serde(default = "one_minute")]
    leeway: Timespan,
    /// A key set, fetched and refreshed.
    jwks: Option<Jwks>,
    /// One key of an asymmetric algorithm, in PEM.
    public_key: Option<Pem>,
    /// The key of HMAC, at least 16 bytes.
    secret: Option<Secret>,
    /// The claim that names the consumer; default `sub`.
    #[serde(default = "sub")]
    consumer_claim: String,
    /// The claim with the scopes: one string separated by spaces, or a list. Absent: the first one
    /// present of `scope`, `scp` and `scopes`.
    scopes_claim: Option<String>,
    /// The claim with a role, or a list of roles; default `role`.
    #[serde(default = "role")]
    role_claim: String,
    /// Remembers verified tokens; default: 10,000 for 1 min.
    #[serde(default)]
    cache: Cache,
}

impl TryFrom<WrittenJwt> for Jwt {
    type Error = String;

    fn try_from(written: WrittenJwt) -> Result<Self, String> {
        let keys = match (written.jwks, written.public_key, written.secret) {
            (Some(jwks), None, None) => KeySource::Jwks(jwks),
            (None, Some(pem), None) => KeySource::PublicKey(pem),
            (None, None, Some(secret)) => KeySource::Secret(secret),
            _ => return Err("write exactly one of jwks, public_key and secret".to_owned()),
        };
        check_source(&keys, &written.algorithms, written.issuer.as_deref())?;
        let audience = written.audience.ok_or(
            "`audience` is missing: name what tokens for this gateway carry in `aud`, or write \
             `audience: any` to accept those for other services too",
        )?;
        Ok(Jwt {
            claims: ClaimRules {
                issuer: written.issuer,
                audience,
                leeway: written.leeway,
                consumer_claim: written.consumer_claim,
                scopes_claim: written.scopes_claim,
                role_claim: written.role_claim,
            },
            algorithms: written.algorithms,
            keys,
            cache: written.cache,
        })
    }
}

fn check_source(
    keys: &KeySource,
    algorithms: &Algorithms,
    issuer: Option<&str>,
) -> Result<(), String> {
    let wrong = match keys {
        KeySource::Secret(_) if !algorithms.are_symmetric() => {
            "algorithms: a `secret` verifies only HS256, HS384 and HS512: write one of them, or give \
             `jwks` or a `public_key`"
        }
        KeySource::Secret(secret) if secret.expose().len() < 16 => {
            "secret: the secret is shorter than 16 bytes and can be guessed: use 32 random ones, as \
             `openssl rand -hex 32` makes them"
        }
        KeySource::Jwks(_) | KeySource::PublicKey(_) if algorithms.are_symmetric() => {
            "algorithms: HS256, HS384 and HS512 need a `secret`: public keys cannot verify them"
        }
        KeySource::Jwks(_) if issuer.is_none() => {
            "jwks: needs an `issuer`: write what the tokens carry in `iss`"
        }
        KeySource::Jwks(_) | KeySource::PublicKey(_) | KeySource::Secret(_) => return Ok(()),
    };
    Err(wrong.to_owned())
}

pub(super) fn one_minute() -> Timespan {
    Timespan::from_secs(60)
}

pub(super) fn sub() -> String {
    "sub".to_owned()
}

pub(super) fn role() -> String {
    "role".to_owned()
}

written_as!(Pem, "PublicKey", {
    "description": "A public key in PEM; ${file:path} reads it from a file.",
    "type": "string",
    "pattern": "-----BEGIN (RSA )?PUBLIC KEY-----",
});

// All that the library reads; which of them fit the key is found while loading.
written_as!(Algorithms, "Algorithms", {
    "description": "All symmetric (HS*) or all asymmetric.",
    "type": "array",
    "minItems": 1,
    "items": {
        "enum": [
            "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA",
            "HS256", "HS384", "HS512",
        ],
    },
});
