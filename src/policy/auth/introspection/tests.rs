//! What the documents of RFC 7662 mean.

use super::super::Config;
use super::super::testing::{TODAY, bearer, config};
use super::*;

fn introspector(more: &str) -> Introspector {
    let yaml = format!("introspection: {{url: 'http://a/introspect'{more}}}");
    let Config::Introspection(config) = config(&yaml) else { panic!("{yaml}") };
    Introspector::new(&"opaque".into(), &config)
}

fn judge(more: &str, document: &str) -> Result<Identity, Denial> {
    introspector(more).judge(document.as_bytes(), TODAY)
}

#[test]
fn the_example_of_the_rfc_is_an_identity() {
    // RFC 7662, section 2.2, with a time that has not passed.
    let document = format!(
        r#"{{"active": true, "client_id": "l238j323ds-23ij4", "username": "jdoe", "scope": "read write dolphin",
            "sub": "Z5O3upPC88QrAjx00dis", "aud": "https://protected.example.net/resource",
            "iss": "https://server.example.com/", "exp": {}, "iat": 1419350238,
            "extension_field": "twenty-seven"}}"#,
        TODAY + 60
    );
    let identity = judge("", &document).expect("active");
    assert_eq!(identity.consumer(), "Z5O3upPC88QrAjx00dis");
    assert!(identity.has_scope("dolphin") && !identity.has_scope("dolph"));
    let checked = ", issuer: 'https://server.example.com/', audience: ['https://protected.example.net/resource']";
    assert!(judge(checked, &document).is_ok());
    assert_eq!(judge(", issuer: else", &document), Err(Denial::Issuer));
    assert_eq!(judge(", audience: [else]", &document), Err(Denial::Audience));
    let named = judge(", consumer_claim: username", &document).expect("active");
    assert_eq!(named.consumer(), "jdoe");
}

#[test]
fn a_token_that_is_not_active_is_denied_whatever_else_is_said() {
    let inactive = Err(Denial::Inactive { authority: "opaque".into() });
    assert_eq!(judge("", r#"{"active": false}"#), inactive);
    assert_eq!(judge("", r#"{"active": false, "sub": "ada"}"#), inactive);
}

#[test]
fn an_active_token_is_held_to_its_times_all_the_same() {
    let at = |exp: u64| judge("", &format!(r#"{{"active": true, "sub": "ada", "exp": {exp}}}"#));
    assert!(at(TODAY + 1).is_ok());
    assert!(at(TODAY - 59).is_ok(), "within the leeway");
    assert_eq!(at(TODAY - 61), Err(Denial::Expired { at: TODAY - 61 }));
    let early = format!(r#"{{"active": true, "sub": "ada", "nbf": {}}}"#, TODAY + 61);
    assert_eq!(judge("", &early), Err(Denial::NotYetValid));
    assert!(judge("", r#"{"active": true, "sub": "ada"}"#).is_ok(), "without a time");
    assert_eq!(judge("", r#"{"active": true}"#), Err(Denial::Consumer));
}

#[test]
fn nonsense_is_the_servers_failure_and_not_the_clients() {
    for document in
        ["", "null", "[]", "true", "<html>", "{}", r#"{"active": "true"}"#, r#"{"active": 1}"#]
    {
        let denial = judge("", document).expect_err(document);
        assert!(matches!(denial, Denial::Unanswered { .. }), "{document}: {denial:?}");
    }
}

#[test]
fn a_question_is_a_form_and_says_who_asks() {
    let asks = introspector(", client_id: 'a:b-c._*d', client_secret: 'p&q'");
    assert_eq!(asks.form("a+b/c="), "token=a%2Bb%2Fc%3D&token_type_hint=access_token");
    let basic = asks.authorization().expect("a login");
    assert_eq!(basic, format!("Basic {}", STANDARD.encode("a%3Ab-c._*d:p%26q")));
    assert!(basic.is_sensitive());
    let bearer = introspector(", token: secret").authorization();
    assert_eq!(bearer.expect("a login"), "Bearer secret");
    assert_eq!(introspector("").authorization(), None);
}

#[test]
fn only_bearer_tokens_are_asked_about() {
    let asks = introspector("");
    assert_eq!(asks.token(&HeaderMap::new()).map(|_| ()), Err(Denial::Missing));
    let headers = bearer("opaque-1");
    let (token, one) = asks.token(&headers).expect("a token");
    assert_eq!(token, "opaque-1");
    assert_ne!(asks.token(&bearer("opaque-2")).expect("a token").1, one);
}
