//! What a signed token must contain to be accepted.

use std::sync::Arc;

use serde_json::{Value, json};

use super::super::testing::{RSA, TODAY, by_pem, claims_with, consumer, verify};
use super::super::{Denial, Identity, Verifier};

/// The result for a well-signed token whose claims differ by `changes`.
fn with_claims(changes: Value) -> Result<Arc<Identity>, Denial> {
    verify(&by_pem(&RSA, ""), &RSA.sign(&claims_with(changes)))
}

#[test]
fn an_expired_token_passes_within_the_leeway_only() {
    let outcome = |exp: u64| with_claims(json!({ "exp": exp })).map(|_| ());
    assert_eq!(outcome(TODAY - 59), Ok(()));
    assert_eq!(outcome(TODAY - 60), Err(Denial::Expired { at: TODAY - 60 }));
}

#[test]
fn without_leeway_a_token_ends_on_its_second() {
    let verifier = by_pem(&RSA, "leeway: 0s");
    let outcome = |exp: u64| verify(&verifier, &RSA.sign(&claims_with(json!({ "exp": exp }))));
    assert!(outcome(TODAY + 1).is_ok());
    assert_eq!(outcome(TODAY), Err(Denial::Expired { at: TODAY }));
}

#[test]
fn a_token_is_not_valid_before_its_time_less_the_leeway() {
    let outcome = |nbf: u64| with_claims(json!({ "nbf": nbf })).map(|_| ());
    assert_eq!(outcome(TODAY + 60), Ok(()));
    assert_eq!(outcome(TODAY + 61), Err(Denial::NotYetValid));
}

#[test]
fn a_token_without_an_end_is_refused() {
    assert_eq!(with_claims(json!({"exp": null})), Err(Denial::Claims));
}

#[test]
fn times_that_are_not_numbers_are_refused() {
    for time in [json!("1900000000"), json!([1]), json!({}), json!(true)] {
        assert_eq!(with_claims(json!({"exp": time})), Err(Denial::Claims), "{time}");
        assert_eq!(with_claims(json!({"nbf": time})), Err(Denial::Claims), "{time}");
    }
    assert_eq!(with_claims(json!({"exp": -1e300})), Err(Denial::Expired { at: 0 }));
    assert_eq!(with_claims(json!({"nbf": 1e300})), Err(Denial::NotYetValid));
    assert!(with_claims(json!({"exp": TODAY as f64 + 0.5})).is_ok());
}

#[test]
fn the_issuer_must_be_the_one_configured() {
    for iss in [json!("other"), json!(null), json!(["auth-service"]), json!("auth-service ")] {
        assert_eq!(with_claims(json!({"iss": iss})), Err(Denial::Issuer), "{iss}");
    }
}

#[test]
fn the_audience_must_hold_one_of_those_configured() {
    let verifier = by_pem(&RSA, "audience: [portcullis, gate]");
    let outcome =
        |aud: Value| verify(&verifier, &RSA.sign(&claims_with(json!({ "aud": aud })))).map(|_| ());
    assert_eq!(outcome(json!("gate")), Ok(()));
    assert_eq!(outcome(json!(["x", "portcullis"])), Ok(()));
    for aud in [json!("x"), json!([]), json!(null), json!({"gate": 1})] {
        assert_eq!(outcome(aud.clone()), Err(Denial::Audience), "{aud}");
    }
}

#[test]
fn a_consumer_that_cannot_be_a_header_is_refused() {
    for sub in [json!("a\r\nX-Role: admin"), json!(""), json!(null), json!(["ada"]), json!("zoë")]
    {
        assert_eq!(with_claims(json!({"sub": sub})), Err(Denial::Consumer), "{sub}");
    }
    assert_eq!(consumer(with_claims(json!({"sub": 42}))), "42");
}

#[test]
fn scopes_are_words_or_a_list_under_any_usual_name() {
    for name in ["scope", "scp", "scopes"] {
        for scope in [json!("read write"), json!(["read", "write"])] {
            let identity = with_claims(json!({ name: scope })).expect("an identity");
            assert!(identity.has_scope("read") && identity.has_scope("write"), "{name}: {scope}");
            assert!(!identity.has_scope("read write"), "{name}: {scope}");
        }
    }
}

#[test]
fn scopes_come_from_one_claim_the_configured_one_first() {
    let claims = json!({"scope": null, "scp": ["read"], "scopes": ["write"], "perms": "admin"});
    let scopes = |verifier: &Verifier| {
        let identity = verify(verifier, &RSA.sign(&claims_with(claims.clone())));
        let identity = identity.expect("an identity");
        ["read", "write", "admin"].map(|scope| identity.has_scope(scope))
    };
    assert_eq!(scopes(&by_pem(&RSA, "")), [true, false, false]);
    assert_eq!(scopes(&by_pem(&RSA, "scopes_claim: scopes")), [false, true, false]);
    assert_eq!(scopes(&by_pem(&RSA, "scopes_claim: perms")), [false, false, true]);
    // A configured name is not replaced by a guess.
    assert_eq!(scopes(&by_pem(&RSA, "scopes_claim: absent")), [false; 3]);
}

#[test]
fn only_claims_that_are_asked_for_are_kept() {
    let names = ["org.id", "tier", "https://example.com/region", "beta", "list", "empty", "none"];
    let verifier = by_pem(&RSA, "").keeping(names.map(Arc::from).into());
    let claims = json!({
        "org": {"id": "blue", "name": "Blue"}, "tier": 2, "https://example.com/region": "eu",
        "beta": true, "list": ["a"], "empty": "", "other": "x",
    });
    let identity = verify(&verifier, &RSA.sign(&claims_with(claims))).expect("an identity");
    let kept = names.map(|name| identity.claims().get(name));
    let expected = [Some("blue"), Some("2"), Some("eu"), Some("true"), None, None, None];
    assert_eq!(kept, expected);
    assert_eq!(["other", "org", "sub"].map(|name| identity.claims().get(name)), [None; 3]);
}

#[test]
fn claims_may_have_other_names_and_lie_deeper() {
    let verifier = by_pem(&RSA, "consumer_claim: client_id, role_claim: realm_access.roles");
    let deeper = json!({"client_id": "app", "realm_access": {"roles": ["viewer", "admin"]}});
    let identity = verify(&verifier, &RSA.sign(&claims_with(deeper))).expect("an identity");
    assert_eq!(identity.consumer(), "app");
    assert!(identity.has_role("admin") && !identity.has_role("ada"));
}
