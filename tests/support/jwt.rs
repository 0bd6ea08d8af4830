//! An issuer of tokens: keys of every kind, and the server that publishes them.
//!
//! Signed with the bare primitives, not with the library the gateway verifies with: the
//! two would share their mistakes.

use std::sync::LazyLock;
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256,
    RsaKeyPair,
};
use aws_lc_rs::{hmac, rsa};
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD, Engine};
use serde_json::{Value, json};

use super::answer::Answer;
use super::upstream::Upstream;

/// RSA keys take their time to make; two are enough for every test.
static RSA: LazyLock<[RsaKeyPair; 2]> =
    LazyLock::new(|| [0, 1].map(|_| rsa::KeyPair::generate(KeySize::Rsa2048).expect("a key")));

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    Rs256,
    Es256,
    EdDsa,
    Hs256,
}

/// A key with its id.
pub struct Key {
    id: String,
    secret: Secret,
}

enum Secret {
    Rsa(&'static RsaKeyPair),
    Ec(Box<EcdsaKeyPair>),
    Ed(Box<Ed25519KeyPair>),
    Hmac(Vec<u8>),
}

/// `auth-service`: publishes the key it signs with, until told otherwise.
pub struct Issuer {
    pub key: Key,
    server: Upstream,
}

impl Issuer {
    pub fn start() -> Self {
        Issuer::with(Key::new(Algorithm::Rs256, "first"))
    }

    pub fn with(key: Key) -> Self {
        let server = Upstream::start();
        server.answer_always(Answer::json(200, &key_set(&[&key])));
        Issuer { key, server }
    }

    pub fn url(&self) -> String {
        format!("{}/.well-known/jwks.json", self.server.url())
    }

    /// A token for `consumer`, good for an hour.
    pub fn token(&self, consumer: &str) -> String {
        self.key.token(&claims(consumer, json!({})))
    }

    /// The same with other claims besides, or instead.
    pub fn token_with(&self, consumer: &str, more: Value) -> String {
        self.key.token(&claims(consumer, more))
    }

    /// Sign with another key from now on, and publish only that.
    pub fn rotate(&mut self) {
        self.key = Key::rsa(1, "second");
        self.publish(Answer::json(200, &key_set(&[&self.key])));
    }

    /// Sign with another key from now on, and publish it under the old one's id.
    pub fn replace_key(&mut self) {
        self.key = Key::rsa(1, &self.key.id);
        self.recover();
    }

    /// Publish these keys, whichever the tokens are signed with.
    pub fn publish_keys(&self, keys: &[&Key]) {
        self.publish(Answer::json(200, &key_set(keys)));
    }

    /// What is published from now on, whatever it is.
    pub fn publish(&self, answer: Answer) {
        self.server.answer_always(answer);
    }

    /// Publish the current key again.
    pub fn recover(&self) {
        self.publish(Answer::json(200, &key_set(&[&self.key])));
    }

    /// How often the keys were fetched.
    pub fn fetches(&self) -> usize {
        self.server.count()
    }
}

impl Key {
    pub fn new(algorithm: Algorithm, id: &str) -> Self {
        let secret = match algorithm {
            Algorithm::Rs256 => return Key::rsa(0, id),
            Algorithm::Es256 => Secret::Ec(Box::new(
                EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key"),
            )),
            Algorithm::EdDsa => Secret::Ed(Box::new(Ed25519KeyPair::generate().expect("a key"))),
            Algorithm::Hs256 => Secret::Hmac(b"a-shared-secret-of-32-bytes-or-more!".to_vec()),
        };
        Key { id: id.to_owned(), secret }
    }

    fn rsa(number: usize, id: &str) -> Self {
        Key { id: id.to_owned(), secret: Secret::Rsa(&RSA[number]) }
    }

    /// The other RSA key there is.
    pub fn other_rsa(id: &str) -> Self {
        Key::rsa(1, id)
    }

    /// An HMAC key of these bytes, say those of a public key.
    pub fn hmac(bytes: &[u8], id: &str) -> Self {
        Key { id: id.to_owned(), secret: Secret::Hmac(bytes.to_vec()) }
    }

    /// A token with these claims and a proper header.
    pub fn token(&self, claims: &Value) -> String {
        let algorithm = match self.secret {
            Secret::Rsa(_) => "RS256",
            Secret::Ec(_) => "ES256",
            Secret::Ed(_) => "EdDSA",
            Secret::Hmac(_) => "HS256",
        };
        self.token_under(&json!({"alg": algorithm, "typ": "JWT", "kid": self.id}), claims)
    }

    /// A token under any header, signed with this key whatever the header says.
    pub fn token_under(&self, header: &Value, claims: &Value) -> String {
        let signed = format!("{}.{}", encoded(header), encoded(claims));
        let signature = self.sign(signed.as_bytes());
        format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
    }

    /// The public key, or the shared secret, as configuration takes it.
    pub fn configured(&self) -> String {
        let der: PublicKeyX509Der<'_> = match &self.secret {
            Secret::Hmac(bytes) => return String::from_utf8_lossy(bytes).into_owned(),
            Secret::Rsa(pair) => pair.public_key().as_der().expect("a public key"),
            Secret::Ec(pair) => pair.public_key().as_der().expect("a public key"),
            Secret::Ed(pair) => pair.public_key().as_der().expect("a public key"),
        };
        let text = BASE64_STANDARD.encode(der.as_ref());
        format!("-----BEGIN PUBLIC KEY-----\n{text}\n-----END PUBLIC KEY-----\n")
    }

    /// The public key as a JWK.
    pub fn jwk(&self) -> Value {
        let text = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
        match &self.secret {
            Secret::Rsa(pair) => {
                let modulus = pair.public_key().modulus();
                let n = text(modulus.big_endian_without_leading_zero());
                json!({"kty": "RSA", "use": "sig", "kid": self.id, "n": n, "e": "AQAB"})
            }
            Secret::Ec(pair) => {
                let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
                json!({"kty": "EC", "crv": "P-256", "kid": self.id, "x": text(x), "y": text(y)})
            }
            Secret::Ed(pair) => {
                let x = text(pair.public_key().as_ref());
                json!({"kty": "OKP", "crv": "Ed25519", "kid": self.id, "x": x})
            }
            Secret::Hmac(_) => panic!("a shared secret is not published"),
        }
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match &self.secret {
            Secret::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature).expect("signed");
                signature
            }
            Secret::Ec(pair) => pair.sign(&random, message).expect("signed").as_ref().to_vec(),
            Secret::Ed(pair) => pair.sign(message).as_ref().to_vec(),
            Secret::Hmac(bytes) => {
                hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, bytes), message).as_ref().to_vec()
            }
        }
    }
}

pub fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}

/// An `exp` well beyond any leeway.
pub fn expired() -> Value {
    json!({"exp": unix_now() - 3600})
}

fn claims(consumer: &str, more: Value) -> Value {
    let mut claims = json!({"sub": consumer, "iss": "auth-service", "exp": unix_now() + 3600});
    for (name, value) in more.as_object().expect("claims are an object") {
        claims[name] = value.clone();
    }
    claims
}

fn key_set(keys: &[&Key]) -> String {
    json!({"keys": keys.iter().map(|k| k.jwk()).collect::<Vec<_>>()}).to_string()
}

fn encoded(part: &Value) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(part.to_string())
}
