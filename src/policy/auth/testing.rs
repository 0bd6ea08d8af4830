//! Test helpers: keys of every kind, tokens signed with them, and verifiers.
#![allow(clippy::unwrap_used, reason = "a test that cannot make its keys has failed")]

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair,
    EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair, RsaKeyPair,
};
use http::{HeaderMap, HeaderName, HeaderValue};
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};

use super::{Config, Denial, Identity, Now, Verifier};
use crate::time::Moment;

/// The wall clock of every test, unless stated otherwise.
pub const TODAY: u64 = 1_800_000_000;

pub static RSA: LazyLock<Signer> = LazyLock::new(|| rsa("rsa-1"));
pub static OTHER_RSA: LazyLock<Signer> = LazyLock::new(|| rsa("rsa-2"));
pub static P256: LazyLock<Signer> =
    LazyLock::new(|| ec(&ECDSA_P256_SHA256_FIXED_SIGNING, Algorithm::ES256));
pub static P384: LazyLock<Signer> =
    LazyLock::new(|| ec(&ECDSA_P384_SHA384_FIXED_SIGNING, Algorithm::ES384));
pub static ED25519: LazyLock<Signer> = LazyLock::new(ed);

/// A private key and its public part.
pub struct Signer {
    pub key: EncodingKey,
    pub public_pem: String,
    pub algorithm: Algorithm,
    pub kid: &'static str,
}

impl Signer {
    /// A token with this key's `kid`.
    pub fn sign(&self, claims: &Value) -> String {
        self.sign_with(self.header(), claims)
    }

    pub fn sign_with(&self, header: Header, claims: &Value) -> String {
        encode(&header, claims, &self.key).unwrap()
    }

    pub fn header(&self) -> Header {
        Header { kid: Some(self.kid.to_owned()), ..Header::new(self.algorithm) }
    }

    /// The public half as an entry of a key set.
    pub fn jwk(&self) -> Value {
        let mut jwk = Jwk::from_encoding_key(&self.key, self.algorithm).unwrap();
        jwk.common.key_id = Some(self.kid.to_owned());
        serde_json::to_value(jwk).unwrap()
    }
}

/// A key-set document.
pub fn document(keys: &[Value]) -> Vec<u8> {
    serde_json::to_vec(&json!({ "keys": keys })).unwrap()
}

/// Claims that every verifier here accepts: from `auth-service`, valid for an hour.
pub fn claims() -> Value {
    json!({"iss": "auth-service", "sub": "ada", "exp": TODAY + 3600})
}

/// [`claims`] with some of them replaced, or removed by `null`.
pub fn claims_with(changes: Value) -> Value {
    let mut claims = claims();
    for (name, value) in changes.as_object().unwrap() {
        if value.is_null() {
            claims.as_object_mut().unwrap().remove(name);
        } else {
            claims[name] = value.clone();
        }
    }
    claims
}

pub fn config(yaml: &str) -> Config {
    try_config(yaml).unwrap()
}

/// By way of JSON, because serde_yaml on its own reads enums as tags, while the gateway's loader
/// reads them as maps.
pub fn try_config(yaml: &str) -> Result<Config, String> {
    let value: Value = serde_yaml::from_str(yaml).unwrap();
    serde_json::from_value(value).map_err(|error| error.to_string())
}

pub fn verifier(yaml: &str) -> Verifier {
    Verifier::try_new("test", &config(yaml)).unwrap()
}

/// `seconds` after the start of both clocks.
pub fn now(seconds: u64) -> Now {
    Now { unix_seconds: TODAY + seconds, moment: Moment::ZERO + Duration::from_secs(seconds) }
}

pub fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
    let pair = |(name, value): &(&str, &str)| {
        (name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap())
    };
    let mut headers = HeaderMap::new();
    for (name, value) in pairs.iter().map(pair) {
        headers.append(name, value);
    }
    headers
}

pub fn bearer(token: &str) -> HeaderMap {
    headers(&[("authorization", &format!("Bearer {token}"))])
}

/// A verifier of tokens signed by `signer`, by its PEM; `more` is further YAML of the `jwt` map.
pub fn by_pem(signer: &Signer, more: &str) -> Verifier {
    let pem = serde_json::to_string(&signer.public_pem).unwrap();
    let algorithm = signer.algorithm;
    let audience = if more.contains("audience") { "" } else { "audience: any, " };
    verifier(&format!(
        "jwt: {{{audience}issuer: auth-service, algorithms: [{algorithm:?}], public_key: {pem}, {more}}}"
    ))
}

/// The result of `verifier` for a token at the start of time.
pub fn verify(verifier: &Verifier, token: &str) -> Result<Arc<Identity>, Denial> {
    verifier.verify(&bearer(token), now(0))
}

pub fn consumer(outcome: Result<Arc<Identity>, Denial>) -> String {
    outcome.unwrap().consumer().to_owned()
}

fn rsa(kid: &'static str) -> Signer {
    let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    let der = AsDer::<Pkcs8V1Der>::as_der(&pair).unwrap();
    let public = AsDer::<PublicKeyX509Der>::as_der(pair.public_key()).unwrap();
    let pem = pem("PRIVATE KEY", der.as_ref());
    Signer {
        key: EncodingKey::from_rsa_pem(pem.as_bytes()).unwrap(),
        public_pem: self::pem("PUBLIC KEY", public.as_ref()),
        algorithm: Algorithm::RS256,
        kid,
    }
}

fn ec(curve: &'static EcdsaSigningAlgorithm, algorithm: Algorithm) -> Signer {
    let pair = EcdsaKeyPair::generate(curve).unwrap();
    let public = AsDer::<PublicKeyX509Der>::as_der(pair.public_key()).unwrap();
    Signer {
        key: EncodingKey::from_ec_der(pair.to_pkcs8v1().unwrap().as_ref()),
        public_pem: pem("PUBLIC KEY", public.as_ref()),
        algorithm,
        kid: "ec-1",
    }
}

fn ed() -> Signer {
    let pair = Ed25519KeyPair::generate().unwrap();
    let public = AsDer::<PublicKeyX509Der>::as_der(pair.public_key()).unwrap();
    Signer {
        key: EncodingKey::from_ed_der(pair.to_pkcs8v1().unwrap().as_ref()),
        public_pem: pem("PUBLIC KEY", public.as_ref()),
        algorithm: Algorithm::EdDSA,
        kid: "ed-1",
    }
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = base64(der, b"+/", true);
    format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n")
}

/// Base64url without padding, as in the parts of a token.
pub fn base64url(bytes: &[u8]) -> String {
    base64(bytes, b"-_", false)
}

fn base64(bytes: &[u8], last_two: &[u8; 2], padded: bool) -> String {
    let letters: Vec<u8> =
        (b'A'..=b'Z').chain(b'a'..=b'z').chain(b'0'..=b'9').chain(*last_two).collect();
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let bits = chunk.iter().chain([0, 0].iter()).take(3).fold(0, |n, b| n << 8 | u32::from(*b));
        for place in 0..=chunk.len() {
            text.push(char::from(letters[(bits >> (18 - 6 * place) & 63) as usize]));
        }
        for _ in chunk.len()..3 {
            text.push_str(if padded { "=" } else { "" });
        }
    }
    text
}
