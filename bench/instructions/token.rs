//! The issuer of the full chain's token.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rsa::{KeyPair, KeySize};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jsonwebtoken::jwk::{Jwk, JwkSet};
use jsonwebtoken::{Algorithm, EncodingKey, Header};

const LIFE: Duration = Duration::from_secs(3600);
const KEY_ID: &str = "bench";

pub struct Issuer {
    key: EncodingKey,
    keys: JwkSet,
}

impl Issuer {
    pub fn generate() -> Self {
        let pair = KeyPair::generate(KeySize::Rsa2048).expect("a key");
        let der: Pkcs8V1Der<'_> = pair.as_der().expect("an encoding");
        let text = STANDARD.encode(der.as_ref());
        let pem = format!("-----BEGIN PRIVATE KEY-----\n{text}\n-----END PRIVATE KEY-----\n");
        let key = EncodingKey::from_rsa_pem(pem.as_bytes()).expect("a key");
        let mut public = Jwk::from_encoding_key(&key, Algorithm::RS256).expect("a key");
        public.common.key_id = Some(KEY_ID.to_owned());
        Issuer { key, keys: JwkSet { keys: vec![public] } }
    }

    /// As it would publish them.
    pub fn keys(&self) -> Vec<u8> {
        serde_json::to_vec(&self.keys).expect("a document")
    }

    pub fn token(&self) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
        let header = Header { kid: Some(KEY_ID.to_owned()), ..Header::new(Algorithm::RS256) };
        let claims = serde_json::json!({
            "iss": "auth-service",
            "sub": "demo",
            "iat": now.as_secs(),
            "exp": (now + LIFE).as_secs(),
        });
        jsonwebtoken::encode(&header, &claims, &self.key).expect("a token")
    }
}
