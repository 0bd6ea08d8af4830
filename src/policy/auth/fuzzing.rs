//! Fuzz targets for tokens and key sets: only signed tokens are accepted.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};
use serde_json::{Map, Value, json};

use super::Now;
use super::bearer::Bearer;
use super::config::{Config, Jwt};
use super::denial::Denial;
use super::identity::Identity;
use crate::time::Moment;

const SECRET: &str = "a secret that is known to these lines alone";
const ISSUER: &str = "issuer";
const LEEWAY: u64 = 60;
/// The time, in all runs.
const UNIX: u64 = 1_800_000_000;
/// Separates the parts of an input.
const NEXT: u8 = b'\n';

/// Credentials: first as they are; then, as a header, a line end and claims, signed.
///
/// A token is accepted only with the right signature, of this issuer, and in its time.
pub fn token(input: &[u8]) {
    let verifier = bearer(json!({
        "issuer": ISSUER, "audience": "any", "algorithms": ["HS256"], "secret": SECRET, "cache": {"ttl": "0"},
    }));
    if verify(&verifier, input).is_ok() {
        assert!(is_signed(input), "accepted without a signature");
    }
    let mut parts = input.splitn(2, |byte| *byte == NEXT);
    let (header, claims) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let message = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part)).join(".");
    let signature = hmac::sign(&key(), message.as_bytes());
    let signature = URL_SAFE_NO_PAD.encode(signature.as_ref());
    let signed = format!("{message}.{signature}");
    if let Ok(identity) = verify(&verifier, signed.as_bytes()) {
        check_accepted(header, claims, &identity);
    }
    let (first, rest) = signature.split_at(1);
    let other = if first == "A" { "B" } else { "A" };
    for wrong in ["", "AAAA", &format!("{other}{rest}"), &signature[..signature.len() - 1]] {
        let token = format!("{message}.{wrong}");
        assert!(verify(&verifier, token.as_bytes()).is_err(), "signed with {wrong:?}");
    }
}

/// A key set as an issuer publishes it. Usable keys are used, and none of them makes an unsigned
/// token valid.
pub fn jwks(input: &[u8]) {
    let verifier = bearer(json!({
        "issuer": ISSUER, "audience": "any", "algorithms": ["RS256", "PS384", "ES256", "ES384", "EdDSA"],
        "jwks": {"url": "https://issuer.example/keys"}, "cache": {"ttl": "0"},
    }));
    let minute = Duration::from_secs(60);
    let Ok(published) = verifier.keyring.publish(input, Moment::ZERO, minute) else {
        assert!(verifier.keyring.is_empty(), "refused, and something of it is used");
        return;
    };
    // Values that are not read need not even be text.
    let Ok(document) = serde_json::from_slice::<Value>(input) else { return };
    // Serde also accepts a list of a structure's fields in place of the structure.
    let entries = document.get("keys").or_else(|| document.get(0));
    let entries = entries.and_then(Value::as_array).expect("a key set has keys");
    assert_eq!(published.usable + published.skipped, entries.len());
    assert!(published.usable > 0 && published.usable == verifier.keyring.len());
    let again = verifier.keyring.publish(input, Moment::ZERO, minute).expect("as before");
    assert!(!again.changed, "the same keys are no change");
    let claims = json!({"iss": ISSUER, "sub": "ada", "exp": UNIX + 3600}).to_string();
    let kids = entries.iter().map(|entry| entry["kid"].clone()).take(4).chain([Value::Null]);
    for kid in kids.filter(|kid| kid.is_string() || kid.is_null()) {
        for algorithm in ["none", "HS256", "RS256", "ES256", "EdDSA"] {
            let mut header = Map::from_iter([("alg".to_owned(), algorithm.into())]);
            header.extend(kid.as_str().map(|kid| ("kid".to_owned(), kid.into())));
            let header = Value::Object(header).to_string();
            let message = [&header, &claims].map(|part| URL_SAFE_NO_PAD.encode(part)).join(".");
            for signature in [&[][..], &[0x5a; 64], &[0x5a; 256]] {
                let token = format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature));
                assert!(verify(&verifier, token.as_bytes()).is_err(), "{header}");
            }
        }
    }
}

fn bearer(config: Value) -> Bearer {
    let config: Jwt = match serde_json::from_value(json!({ "jwt": config })) {
        Ok(Config::Jwt(jwt)) => *jwt,
        other => panic!("not a configuration: {other:?}"),
    };
    Bearer::try_new(&Arc::from("fuzzing"), &config).expect("its keys can be used")
}

fn verify(bearer: &Bearer, token: &[u8]) -> Result<Arc<Identity>, Denial> {
    let value = HeaderValue::from_bytes(&[b"Bearer ", token].concat());
    let value = value.map_err(|_| Denial::Malformed)?;
    let headers = HeaderMap::from_iter([(AUTHORIZATION, value)]);
    bearer.verify((&headers).into(), Now { unix_seconds: UNIX, moment: Moment::ZERO })
}

fn key() -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes())
}

/// Whether the token is signed, according to an independent reader of RFC 7515.
fn is_signed(token: &[u8]) -> bool {
    let token = token.trim_ascii();
    let Some(dot) = token.iter().rposition(|byte| *byte == b'.') else { return false };
    let signature = URL_SAFE_NO_PAD.decode(&token[dot + 1..]).unwrap_or_default();
    hmac::verify(&key(), &token[..dot], &signature).is_ok()
}

fn check_accepted(header: &[u8], claims: &[u8], identity: &Identity) {
    let object = |text| serde_json::from_slice::<Value>(text).expect("a part that is read is JSON");
    let (header, claims) = (object(header), object(claims));
    // Serde also accepts a list of a structure's fields in place of the structure.
    if header.is_object() {
        assert_eq!(header["alg"], "HS256");
        assert!(header["crit"].is_null(), "what is critical is not understood");
    }
    assert_eq!(claims["iss"], ISSUER);
    let expires_at = claims["exp"].as_f64().expect("an end");
    assert!(expires_at >= (UNIX - LEEWAY) as f64, "accepted after its end");
    let starts_at = claims["nbf"].as_f64().unwrap_or(0.0);
    assert!(starts_at < (UNIX + LEEWAY + 1) as f64, "accepted before its time");
    let subject = match &claims["sub"] {
        Value::String(name) => name.clone(),
        other => other.to_string(),
    };
    assert_eq!(identity.consumer(), subject);
    assert!(identity.consumer().chars().all(|c| !c.is_control()), "{subject:?} in a header");
}
