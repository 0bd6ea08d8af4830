//! What the operator may configure, and what is refused before the gateway starts.

use super::super::Verifier;
use super::super::testing::{ED25519, RSA, config, try_config};
use super::Audience;
use super::{Config, KeySource};
use crate::units::Timespan;

fn refusal(yaml: &str) -> String {
    try_config(yaml).expect_err(yaml)
}

fn jwt(yaml: &str) -> super::Jwt {
    match config(yaml) {
        Config::Jwt(jwt) => *jwt,
        Config::ApiKey(_)
        | Config::ClientCertificate(_)
        | Config::Introspection(_)
        | Config::Forward(_) => {
            panic!("not a jwt: {yaml}")
        }
    }
}

#[test]
fn the_least_one_can_write_has_safe_defaults() {
    let jwt =
        jwt("jwt: {issuer: a, audience: any, algorithms: [RS256], jwks: {url: 'http://a/keys'}}");
    assert_eq!(jwt.claims.leeway, Timespan::from_secs(60));
    assert_eq!(
        (&*jwt.claims.consumer_claim, jwt.claims.scopes_claim.as_deref(), &*jwt.claims.role_claim),
        ("sub", None, "role")
    );
    assert_eq!((jwt.cache.max_tokens.get(), jwt.cache.ttl), (10_000, Timespan::from_secs(60)));
    let KeySource::Jwks(jwks) = jwt.keys else { panic!("not a key set") };
    assert_eq!(jwks.url.to_string(), "http://a/keys");
    assert_eq!(
        (jwks.refresh, jwks.max_stale),
        (Timespan::from_secs(300), Timespan::from_secs(3600))
    );
    assert_eq!((jwks.timeout, jwks.min_refetch), (Timespan::from_secs(5), Timespan::from_secs(5)));
}

#[test]
fn keys_have_exactly_one_source() {
    let secret = "secret: 0123456789abcdef";
    for keys in ["issuer: a", &format!("issuer: a, {secret}, jwks: {{url: 'http://a/'}}")] {
        let error = refusal(&format!("jwt: {{audience: any, algorithms: [HS256], {keys}}}"));
        assert!(error.contains("exactly one of jwks, public_key and secret"), "{error}");
    }
}

#[test]
fn none_is_not_an_algorithm() {
    let error = refusal("jwt: {audience: any, algorithms: [none], secret: 0123456789abcdef}");
    assert!(error.contains("unknown variant `none`"), "{error}");
}

#[test]
fn secrets_and_public_keys_are_never_mixed() {
    let keys = "issuer: a, jwks: {url: 'http://a/'}";
    for (algorithms, keys, why) in [
        ("[RS256, HS256]", keys, "two authorities"),
        ("[HS256]", keys, "need a `secret`"),
        ("[RS256]", "secret: 0123456789abcdef", "`jwks` or a `public_key`"),
        ("[]", keys, "at least one algorithm"),
    ] {
        let error = refusal(&format!("jwt: {{audience: any, algorithms: {algorithms}, {keys}}}"));
        assert!(error.contains(why), "{error}");
    }
}

#[test]
fn a_secret_that_can_be_guessed_is_refused_and_not_repeated() {
    let error = refusal("jwt: {audience: any, algorithms: [HS256], secret: hunter2}");
    assert!(error.contains("shorter than 16 bytes") && !error.contains("hunter2"), "{error}");
}

#[test]
fn tokens_are_for_someone_or_explicitly_for_anyone() {
    let with = |audience: &str| {
        format!("jwt: {{algorithms: [HS256], secret: 0123456789abcdef{audience}}}")
    };
    let audience = |text: &str| jwt(&with(text)).claims.audience;
    assert_eq!(audience(", audience: any"), Audience::Any);
    let named = ["orders", "any"].map(str::to_owned).into();
    assert_eq!(audience(", audience: [orders, any]"), Audience::OneOf(named));
    for (wrong, why) in [
        ("", "or write `audience: any`"),
        (", audience: []", "write any to accept every audience"),
        (", audience: orders", "expected a list of audiences such as [orders], or any"),
    ] {
        let error = refusal(&with(wrong));
        assert!(error.contains(why), "{error}");
    }
}

#[test]
fn a_key_set_needs_an_issuer() {
    let error = refusal("jwt: {audience: any, algorithms: [RS256], jwks: {url: 'http://a/'}}");
    assert!(error.contains("needs an `issuer`"), "{error}");
}

#[test]
fn a_key_set_has_a_plain_web_address() {
    for url in ["file:///etc/keys", "keys.json", "/keys", "ftp://a/", "http://", "http://u:p@a/"] {
        let yaml = format!(
            "jwt: {{issuer: a, audience: any, algorithms: [RS256], jwks: {{url: '{url}'}}}}"
        );
        assert!(try_config(&yaml).is_err(), "{url}");
    }
}

#[test]
fn an_address_is_shown_without_its_query() {
    let yaml = "jwt: {issuer: a, audience: any, algorithms: [RS256], jwks: {url: 'https://a/keys?token=s3cr3t'}}";
    assert!(!format!("{:?}", config(yaml)).contains("s3cr3t"));
}

#[test]
fn good_keys_outlive_the_refresh() {
    let jwks = "jwks: {url: 'http://a/', refresh: 10m, max_stale: 5m}";
    let error = refusal(&format!("jwt: {{issuer: a, audience: any, algorithms: [RS256], {jwks}}}"));
    assert!(error.contains("max_stale must be at least refresh (10m)"), "{error}");
}

#[test]
fn a_public_key_is_inline_and_public() {
    let of = |pem: &str| {
        let pem = serde_json::to_string(pem).expect("a string");
        refusal(&format!("jwt: {{audience: any, algorithms: [RS256], public_key: {pem}}}"))
    };
    assert!(of("keys/public.pem").contains("${file:path}"));
    let private = RSA.public_pem.replace("PUBLIC", "PRIVATE");
    assert!(of(&private).contains("public half"));
}

#[test]
fn a_public_key_that_does_not_fit_is_named_when_compiled() {
    let error = |algorithm: &str, pem: &str| {
        let pem = serde_json::to_string(pem).expect("a string");
        let yaml = format!("jwt: {{audience: any, algorithms: [{algorithm}], public_key: {pem}}}");
        Verifier::try_new("a", &config(&yaml)).expect_err("refused").to_string()
    };
    assert!(error("ES256", &RSA.public_pem).contains("algorithms: ES256"));
    assert!(error("RS256", &ED25519.public_pem).contains("algorithms: RS256"));
    let damaged = "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n";
    assert!(error("RS256", damaged).contains("public_key: the text is not an RSA"));
}

#[test]
fn two_consumers_do_not_share_a_key() {
    let error = refusal("api_key: {keys: {acme: s3cr3t, beta: {key: s3cr3t}}}");
    assert!(error.contains("acme and beta have the same key"), "{error}");
    assert!(!error.contains("s3cr3t"), "{error}");
}

#[test]
fn a_key_no_client_could_send_is_refused() {
    for key in ["\"s3cr3t\\n\"", "\"a b\"", "\"\"", "{key: \"é\"}"] {
        let error = refusal(&format!("api_key: {{keys: {{acme: {key}}}}}"));
        assert!(!error.contains("s3cr3t"), "{error}");
    }
}

#[test]
fn api_keys_need_a_consumer_and_a_header() {
    for yaml in ["api_key: {keys: {}}", "api_key: {header: 'a b', keys: {a: k}}", "api_key: {}"] {
        assert!(try_config(yaml).is_err(), "{yaml}");
    }
}

#[test]
fn a_consumer_that_cannot_be_a_header_is_refused() {
    assert!(try_config("api_key: {keys: {\"a\\n\": k}}").is_err());
}

#[test]
fn a_configuration_never_prints_its_secrets() {
    let yaml = "api_key: {keys: {acme: s3cr3t, beta: {key: s3cr3t-2}}}";
    assert!(!format!("{:?}", config(yaml)).contains("s3cr3t"));
}

#[test]
fn unknown_keys_are_refused() {
    for yaml in [
        "jwt: {audience: any, algorithms: [HS256], secret: 0123456789abcdef, isuer: a}",
        "jwt: {audience: any, algorithms: [HS256], secret: 0123456789abcdef, cache: {size: 1}}",
        "api_key: {keys: {a: {key: k, scope: [x]}}}",
        "basic: {}",
    ] {
        assert!(refusal(yaml).contains("unknown"), "{yaml}");
    }
}

#[test]
fn an_authorization_server_is_asked_with_one_proof_of_who_asks() {
    let url = "url: 'https://a/introspect'";
    for login in ["client_id: g", "client_secret: s", "client_id: g, client_secret: s, token: t"] {
        let error = refusal(&format!("introspection: {{{url}, {login}}}"));
        assert!(error.contains("client_id and client_secret together, or token alone"), "{error}");
    }
    for login in ["", ", token: t", ", client_id: g, client_secret: s"] {
        assert!(try_config(&format!("introspection: {{{url}{login}}}")).is_ok(), "{login}");
    }
    let error = refusal(&format!("introspection: {{{url}, token: \"a b\"}}"));
    assert!(error.contains("visible ASCII"), "{error}");
    let error = refusal(&format!("introspection: {{{url}, timeout: '0'}}"));
    assert!(error.contains("timeout must be more than 0"), "{error}");
    let error = refusal("introspection: {url: 'https://g:s@a/introspect'}");
    assert!(error.contains("must not hold a user name or password"), "{error}");
}

#[test]
fn what_forward_auth_cannot_do_is_refused() {
    for (written, why) in [
        ("timeout: '0'", "timeout must be more than 0"),
        ("response_headers: [Set-Cookie]", "`set-cookie` belongs to the service's own response"),
        ("response_headers: ['X User']", "response_headers: `X User` is not the name of a header"),
        ("consumer_header: ''", "consumer_header: `` is not the name of a header"),
        ("cache: {by: [], ttl: 1s}", "name at least one header field"),
        ("cache: {by: [Cookie], ttl: '0'}", "cache.ttl must be more than 0"),
        (
            "request_headers: [Authorization], cache: {by: [Cookie], ttl: 1s}",
            "the service does not get `cookie`",
        ),
        (
            "response_headers: [X-User], cache: {by: [X-User], ttl: 1s}",
            "the service does not get `x-user`",
        ),
        ("cache: {by: [Range], ttl: 1s}", "the service does not get `range`"),
    ] {
        let error = refusal(&format!("forward: {{url: 'http://a/check', {written}}}"));
        assert!(error.contains(why), "{error}");
    }
}
