//! Which signatures and keys are accepted, and for how long. What a signed token must contain is
//! tested with the claims.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::keys::MAX_CANDIDATES;
use super::super::testing::{
    ED25519, OTHER_RSA, P256, P384, RSA, Signer, TODAY, base64url, bearer, by_pem, claims,
    claims_with, consumer, document, headers, now, verifier, verify,
};
use super::super::{Denial, Verifier, Wanted};
use super::{MAX_KID_BYTES, MAX_TOKEN_BYTES};
use crate::time::Moment;

const SECRET: &str = "0123456789abcdef0123456789abcdef";
const HOUR: Duration = Duration::from_secs(3600);

/// A verifier whose keys come from a key set with `keys`.
fn by_key_set(algorithms: &str, keys: &[Value]) -> Verifier {
    let verifier = empty_key_set(algorithms);
    publish(&verifier, keys);
    verifier
}

fn empty_key_set(algorithms: &str) -> Verifier {
    verifier(&format!(
        "jwt: {{issuer: auth-service, audience: any, algorithms: {algorithms}, jwks: {{url: 'http://keys'}}}}"
    ))
}

fn publish(verifier: &Verifier, keys: &[Value]) {
    let (_, keyring) = verifier.remote_keys().expect("a key set");
    keyring.publish(&document(keys), Moment::ZERO, HOUR).expect("usable keys");
}

fn denial(verifier: &Verifier, token: &str) -> Denial {
    verify(verifier, token).expect_err("a denial")
}

#[test]
fn every_public_key_algorithm_verifies_by_pem() {
    for signer in [&*RSA, &P256, &P384, &ED25519] {
        let outcome = verify(&by_pem(signer, ""), &signer.sign(&claims()));
        assert_eq!(consumer(outcome), "ada", "{:?}", signer.algorithm);
    }
}

#[test]
fn every_public_key_algorithm_verifies_by_key_set() {
    let keys = [RSA.jwk(), P256.jwk(), P384.jwk(), ED25519.jwk()];
    // Two elliptic keys with one id: the algorithm distinguishes them.
    let verifier = by_key_set("[RS256, ES256, ES384, EdDSA]", &keys);
    for signer in [&*RSA, &P256, &P384, &ED25519] {
        let outcome = verify(&verifier, &signer.sign(&claims()));
        assert_eq!(consumer(outcome), "ada", "{:?}", signer.algorithm);
    }
}

#[test]
fn every_rsa_variant_verifies() {
    use Algorithm::{PS256, PS384, PS512, RS256, RS384, RS512};
    let mut jwk = RSA.jwk();
    jwk.as_object_mut().expect("a map").remove("alg");
    let verifier = by_key_set("[RS256, RS384, RS512, PS256, PS384, PS512]", &[jwk]);
    for alg in [RS256, RS384, RS512, PS256, PS384, PS512] {
        let token = RSA.sign_with(Header { alg, ..RSA.header() }, &claims());
        assert_eq!(consumer(verify(&verifier, &token)), "ada", "{alg:?}");
    }
}

#[test]
fn every_hmac_algorithm_verifies() {
    let verifier = verifier(&format!(
        "jwt: {{issuer: auth-service, audience: any, algorithms: [HS256, HS384, HS512], secret: {SECRET}}}"
    ));
    for algorithm in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
        let key = EncodingKey::from_secret(SECRET.as_bytes());
        let token = encode(&Header::new(algorithm), &claims(), &key).expect("a token");
        assert_eq!(consumer(verify(&verifier, &token)), "ada", "{algorithm:?}");
    }
}

#[test]
fn a_public_key_is_not_an_hmac_secret() {
    let key = EncodingKey::from_secret(RSA.public_pem.as_bytes());
    let token = encode(&Header::new(Algorithm::HS256), &claims(), &key).expect("a token");
    assert_eq!(denial(&by_pem(&RSA, ""), &token), Denial::Algorithm);
}

#[test]
fn an_unsigned_token_is_refused() {
    let body = base64url(claims().to_string().as_bytes());
    for alg in ["none", "None", "NONE", ""] {
        let header = base64url(json!({"alg": alg, "typ": "JWT"}).to_string().as_bytes());
        for token in [format!("{header}.{body}."), format!("{header}.{body}")] {
            assert_eq!(denial(&by_pem(&RSA, ""), &token), Denial::Malformed, "{alg}");
        }
    }
}

#[test]
fn a_signature_that_was_cut_off_is_refused() {
    let token = RSA.sign(&claims());
    let (message, _) = token.rsplit_once('.').expect("three parts");
    assert_eq!(denial(&by_pem(&RSA, ""), &format!("{message}.")), Denial::BadSignature);
}

#[test]
fn an_algorithm_that_is_not_allowed_is_refused() {
    let token = RSA.sign_with(Header { alg: Algorithm::RS512, ..RSA.header() }, &claims());
    assert_eq!(denial(&by_pem(&RSA, ""), &token), Denial::Algorithm);
}

#[test]
fn the_key_sets_own_algorithm_binds_the_key() {
    let verifier = by_key_set("[RS256, RS512]", &[RSA.jwk()]);
    let token = RSA.sign_with(Header { alg: Algorithm::RS512, ..RSA.header() }, &claims());
    assert!(matches!(denial(&verifier, &token), Denial::NotVerified { .. }));
}

#[test]
fn a_key_of_another_kind_is_not_tried_under_its_name() {
    let verifier = by_key_set("[RS256, ES256]", &[RSA.jwk()]);
    let header = Header { kid: Some(RSA.kid.to_owned()), ..P256.header() };
    let denial = denial(&verifier, &P256.sign_with(header, &claims()));
    assert!(matches!(denial, Denial::NotVerified { .. }));
    // The issuer may have replaced it by an elliptic key.
    assert!(denial.wanted_keys().is_some());
}

#[test]
fn another_key_does_not_verify() {
    assert_eq!(denial(&by_pem(&RSA, ""), &OTHER_RSA.sign(&claims())), Denial::BadSignature);
}

#[test]
fn changed_claims_do_not_verify() {
    let token = RSA.sign(&claims());
    let parts: Vec<&str> = token.split('.').collect();
    let forged = base64url(claims_with(json!({"sub": "root"})).to_string().as_bytes());
    let token = format!("{}.{forged}.{}", parts[0], parts[2]);
    assert_eq!(denial(&by_pem(&RSA, ""), &token), Denial::BadSignature);
}

#[test]
fn an_unknown_key_is_named_so_that_it_can_be_fetched() {
    let verifier = by_key_set("[RS256]", &[RSA.jwk()]);
    let denial = denial(&verifier, &OTHER_RSA.sign(&claims()));
    assert_eq!(denial.wanted_keys(), Some(("test", Wanted::Named("rsa-2"))));
}

#[test]
fn a_bad_signature_under_a_known_key_id_asks_for_another_key_set() {
    let verifier = by_key_set("[RS256]", &[RSA.jwk()]);
    let header = || Header { kid: Some(RSA.kid.to_owned()), ..OTHER_RSA.header() };
    let token = OTHER_RSA.sign_with(header(), &claims());
    let wanted = Wanted::Other { generation: 1, kid: Some(RSA.kid) };
    assert_eq!(denial(&verifier, &token).wanted_keys(), Some(("test", wanted)));
    let foreign = OTHER_RSA.sign_with(header(), &claims_with(json!({"iss": "elsewhere"})));
    assert_eq!(denial(&verifier, &foreign), Denial::Issuer);
    // A key in the configuration file does not change.
    assert_eq!(denial(&by_pem(&RSA, ""), &token).wanted_keys(), None);
}

#[test]
fn a_token_of_another_issuer_does_not_cause_a_fetch() {
    let verifier = by_key_set("[RS256]", &[RSA.jwk()]);
    let token = OTHER_RSA.sign(&claims_with(json!({"iss": "elsewhere"})));
    assert_eq!(denial(&verifier, &token), Denial::Issuer);
}

#[test]
fn a_token_without_a_key_id_is_tried_with_every_key_of_its_algorithm() {
    let token = |signer: &Signer| signer.sign_with(Header::new(signer.algorithm), &claims());
    let verifier = by_key_set("[RS256, ES256]", &[P256.jwk(), RSA.jwk(), OTHER_RSA.jwk()]);
    for signer in [&*RSA, &OTHER_RSA, &P256] {
        assert_eq!(consumer(verify(&verifier, &token(signer))), "ada", "{}", signer.kid);
    }
    let one = by_key_set("[RS256]", &[RSA.jwk()]);
    let wanted = Wanted::Other { generation: 1, kid: None };
    assert_eq!(denial(&one, &token(&OTHER_RSA)).wanted_keys(), Some(("test", wanted)));
}

#[test]
fn so_many_keys_are_tried_and_no_more() {
    let named = |signer: &Signer, n: usize| {
        let mut jwk = signer.jwk();
        jwk["kid"] = json!(format!("key-{n}"));
        jwk
    };
    let last_of = |count: usize| {
        let mut keys: Vec<Value> = (1..count).map(|n| named(&RSA, n)).collect();
        keys.push(named(&OTHER_RSA, count));
        let token = OTHER_RSA.sign_with(Header::new(Algorithm::RS256), &claims());
        verify(&by_key_set("[RS256]", &keys), &token)
    };
    assert!(last_of(MAX_CANDIDATES).is_ok());
    assert!(matches!(last_of(MAX_CANDIDATES + 1), Err(Denial::NotVerified { .. })));
}

#[test]
fn two_keys_of_one_name_are_both_tried() {
    let mut renamed = OTHER_RSA.jwk();
    renamed["kid"] = json!(RSA.kid);
    let verifier = by_key_set("[RS256]", &[RSA.jwk(), renamed]);
    let header = Header { kid: Some(RSA.kid.to_owned()), ..OTHER_RSA.header() };
    assert_eq!(consumer(verify(&verifier, &OTHER_RSA.sign_with(header, &claims()))), "ada");
}

#[test]
fn a_key_in_the_token_itself_is_not_trusted() {
    let jwk = serde_json::from_value(OTHER_RSA.jwk()).expect("a key");
    let header = Header {
        jwk: Some(jwk),
        jku: Some("http://attacker/keys".to_owned()),
        x5u: Some("http://attacker/certificate".to_owned()),
        kid: Some(RSA.kid.to_owned()),
        ..OTHER_RSA.header()
    };
    let verifier = by_key_set("[RS256]", &[RSA.jwk()]);
    let denial = denial(&verifier, &OTHER_RSA.sign_with(header, &claims()));
    assert!(matches!(denial, Denial::NotVerified { .. }));
}

#[test]
fn a_token_that_demands_extensions_is_refused() {
    for crit in [vec!["b64".to_owned()], vec![]] {
        let header = Header { crit: Some(crit), ..RSA.header() };
        let token = RSA.sign_with(header, &claims());
        assert_eq!(denial(&by_pem(&RSA, ""), &token), Denial::Critical);
    }
}

#[test]
fn the_credential_is_found_only_where_it_belongs() {
    let verifier = by_pem(&RSA, "");
    let token = RSA.sign(&claims());
    let outcome = |headers: HeaderMap| verifier.verify(&headers, now(0)).map(|_| ());
    let authorization = |value: &str| headers(&[("authorization", value)]);
    assert_eq!(outcome(HeaderMap::new()), Err(Denial::Missing));
    assert_eq!(outcome(authorization("Basic YWRhOnNlY3JldA==")), Err(Denial::Missing));
    assert_eq!(outcome(authorization(&token)), Err(Denial::Missing));
    assert_eq!(outcome(authorization("Bearer")), Err(Denial::Malformed));
    assert_eq!(outcome(authorization("Bearer  ")), Err(Denial::Malformed));
    assert_eq!(outcome(authorization(&format!("bEARER  {token}"))), Ok(()));
    let value = format!("Bearer {token}");
    let twice = headers(&[("authorization", &value), ("authorization", &value)]);
    assert_eq!(outcome(twice), Err(Denial::Malformed));
}

#[test]
fn what_is_too_long_is_not_read() {
    let verifier = by_key_set("[RS256]", &[RSA.jwk()]);
    assert_eq!(denial(&verifier, &"a".repeat(MAX_TOKEN_BYTES + 1)), Denial::Malformed);
    let header = Header { kid: Some("k".repeat(MAX_KID_BYTES + 1)), ..RSA.header() };
    assert_eq!(denial(&verifier, &RSA.sign_with(header, &claims())), Denial::Malformed);
}

#[test]
fn a_token_seen_before_is_the_same_identity() {
    let verifier = by_pem(&RSA, "");
    let token = RSA.sign(&claims());
    let first = verify(&verifier, &token).expect("an identity");
    assert!(Arc::ptr_eq(&first, &verify(&verifier, &token).expect("an identity")));
}

#[test]
fn a_remembered_token_is_examined_again_after_the_ttl() {
    let verifier = by_pem(&RSA, "cache: {ttl: 10s}");
    let headers = bearer(&RSA.sign(&claims()));
    let at = |seconds| verifier.verify(&headers, now(seconds)).expect("an identity");
    let first = at(0);
    assert!(Arc::ptr_eq(&first, &at(9)));
    assert!(!Arc::ptr_eq(&first, &at(10)));
}

#[test]
fn a_remembered_token_still_expires() {
    let verifier = by_pem(&RSA, "leeway: 0s, cache: {ttl: 1h}");
    let headers = bearer(&RSA.sign(&claims_with(json!({"exp": TODAY + 5}))));
    assert!(verifier.verify(&headers, now(4)).is_ok());
    assert_eq!(verifier.verify(&headers, now(5)), Err(Denial::Expired { at: now(5).unix_seconds }));
}

#[test]
fn without_a_ttl_nothing_is_remembered() {
    let verifier = by_pem(&RSA, "cache: {ttl: 0s}");
    let token = RSA.sign(&claims());
    let first = verify(&verifier, &token).expect("an identity");
    assert!(!Arc::ptr_eq(&first, &verify(&verifier, &token).expect("an identity")));
}

#[test]
fn a_withdrawn_key_takes_its_remembered_tokens_with_it() {
    let verifier = by_key_set("[RS256]", &[RSA.jwk(), OTHER_RSA.jwk()]);
    let token = RSA.sign(&claims());
    assert!(verify(&verifier, &token).is_ok());
    publish(&verifier, &[OTHER_RSA.jwk()]);
    assert!(matches!(denial(&verifier, &token), Denial::UnknownKey { .. }));
}

#[test]
fn a_refresh_without_change_keeps_what_was_remembered() {
    let verifier = by_key_set("[RS256]", &[RSA.jwk(), OTHER_RSA.jwk()]);
    let token = RSA.sign(&claims());
    let first = verify(&verifier, &token).expect("an identity");
    publish(&verifier, &[OTHER_RSA.jwk(), RSA.jwk()]);
    assert!(Arc::ptr_eq(&first, &verify(&verifier, &token).expect("an identity")));
}

#[test]
fn before_the_first_key_set_nothing_passes() {
    let verifier = empty_key_set("[RS256]");
    let unavailable = denial(&verifier, &RSA.sign(&claims()));
    assert_eq!(unavailable.wanted_keys(), Some(("test", Wanted::Any)));
    // A token that no key could make valid is refused for that reason.
    assert_eq!(denial(&verifier, "garbage"), Denial::Malformed);
    assert_eq!(denial(&verifier, &P256.sign(&claims())), Denial::Algorithm);
    let foreign = RSA.sign(&claims_with(json!({"iss": "elsewhere"})));
    assert_eq!(denial(&verifier, &foreign), Denial::Issuer);
}

#[test]
fn stale_keys_verify_nothing_not_even_remembered_tokens() {
    let verifier = by_key_set("[RS256]", &[RSA.jwk()]);
    let headers = bearer(&RSA.sign(&claims_with(json!({"exp": TODAY + 9000}))));
    assert!(verifier.verify(&headers, now(3599)).is_ok());
    let denial = verifier.verify(&headers, now(3600)).expect_err("a denial");
    assert!(matches!(denial, Denial::KeysUnavailable { .. }));
}

proptest! {
    #[test]
    fn garbage_is_refused_and_never_panics(token in "\\PC{0,200}|[A-Za-z0-9_.-]{0,200}") {
        let verifier = by_pem(&P256, "");
        if let Ok(value) = http::HeaderValue::from_bytes(format!("Bearer {token}").as_bytes()) {
            let mut headers = HeaderMap::new();
            headers.insert("authorization", value);
            prop_assert!(verifier.verify(&headers, now(0)).is_err());
        }
    }

    #[test]
    fn headers_and_claims_of_any_json_are_refused_and_never_panic(
        header in "\\{(\"(alg|kid|crit|typ|jwk)\":(\"ES256\"|\"\"|1|null|\\[\\]|\\{\\}),?){0,4}\\}",
        body in "[\\[\\]{}\":,a-z0-9]{0,60}",
    ) {
        let (header, body) = (base64url(header.as_bytes()), base64url(body.as_bytes()));
        let verifier = by_key_set("[ES256]", &[P256.jwk()]);
        let token = format!("{header}.{body}.AAAA");
        prop_assert!(verify(&verifier, &token).is_err());
    }

    #[test]
    fn a_token_with_one_byte_changed_is_refused(at in 0usize..10_000, to in "[A-Za-z0-9_-]") {
        let token = ED25519.sign(&claims());
        let at = at % token.len();
        prop_assume!(token[at..=at] != to);
        let mut changed = token;
        changed.replace_range(at..=at, &to);
        prop_assert!(verify(&by_pem(&ED25519, ""), &changed).is_err());
    }
}
