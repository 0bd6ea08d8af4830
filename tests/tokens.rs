//! Tokens: which are believed, and whose keys they are believed by.

use serde_json::{Value, json};

use crate::support::{
    Algorithm, Answer, Call, Dialect, Gateway, Issuer, Key, Plan, Upstream, eventually, expired,
    refused_address, unix_now,
};
use crate::transcode::{hello, mapped};

const JWKS: &str = "auth: {accounts: {jwt: {issuer: auth-service, audience: any, algorithms: [RS256], jwks: {url: '${JWKS_URL}'}}}}";

fn with_tokens(upstream: &Upstream, issuer: &Issuer, auth: &str) -> Gateway {
    let route = format!("auth: {auth}");
    let plan = Plan::route(&route).section(JWKS).env("JWKS_URL", &issuer.url());
    let gateway = plan.upstream(upstream).start();
    // The keys are fetched in the background.
    eventually("the first fetch of the keys", || (issuer.fetches() > 0).then_some(()));
    gateway
}

fn get(token: &str) -> Call {
    Call::new("GET /").bearer(token)
}

#[test]
fn a_token_of_every_algorithm_is_accepted() {
    for (algorithm, name) in [
        (Algorithm::Rs256, "RS256"),
        (Algorithm::Es256, "ES256"),
        (Algorithm::EdDsa, "EdDSA"),
        (Algorithm::Hs256, "HS256"),
    ] {
        let key = Key::new(algorithm, "k");
        let source = if algorithm == Algorithm::Hs256 { "secret" } else { "public_key" };
        let auth = format!(
            "auth: {{accounts: {{jwt: {{issuer: auth-service, audience: any, algorithms: [{name}], {source}: '${{file:key}}'}}}}}}"
        );
        let upstream = Upstream::start();
        let plan = Plan::route("auth: {require: accounts}").section(&auth);
        let gateway = plan.beside("key", &key.configured()).upstream(&upstream).start();
        let claims = json!({"sub": "ada", "iss": "auth-service", "exp": unix_now() + 60});
        assert_eq!(gateway.call(get(&key.token(&claims))).status, 200, "{name}");
        assert_eq!(upstream.only().header("x-consumer"), Some("ada"), "{name}");
    }
}

#[test]
fn published_keys_of_every_kind_are_understood() {
    for (algorithm, name) in
        [(Algorithm::Rs256, "RS256"), (Algorithm::Es256, "ES256"), (Algorithm::EdDsa, "EdDSA")]
    {
        let issuer = Issuer::with(Key::new(algorithm, "k"));
        let upstream = Upstream::start();
        let auth = JWKS.replace("RS256", name);
        let plan = Plan::route("auth: {require: accounts}").section(&auth);
        let gateway = plan.env("JWKS_URL", &issuer.url()).upstream(&upstream).start();
        assert_eq!(gateway.call(get(&issuer.token("ada"))).status, 200, "{name}");
    }
}

#[test]
fn a_token_that_is_not_good_is_401() {
    let (upstream, issuer) = (Upstream::start(), Issuer::start());
    let gateway = with_tokens(&upstream, &issuer, "{require: accounts}");
    let good = issuer.token("ada");
    let (signed, signature) = good.rsplit_once('.').expect("a token");
    let tampered = issuer.token("eve").rsplit_once('.').map(|(s, _)| format!("{s}.{signature}"));
    for (what, token) in [
        ("expired", issuer.token_with("ada", expired())),
        ("not yet valid", issuer.token_with("ada", json!({"nbf": unix_now() + 3600}))),
        ("of another issuer", issuer.token_with("ada", json!({"iss": "else"}))),
        ("without an expiry", issuer.token_with("ada", json!({"exp": Value::Null}))),
        ("without its signature", format!("{signed}.")),
        ("tampered with", tampered.expect("a token")),
        ("garbage", "garbage".to_owned()),
        ("empty", String::new()),
        ("of a consumer that is no header value", issuer.token("ada\r\nX-Role: root")),
    ] {
        let response = gateway.call(get(&token));
        assert_eq!(response.status, 401, "a token {what}");
        assert!(response.header("www-authenticate").is_some_and(|c| c.starts_with("Bearer")));
    }
    assert_eq!(upstream.count(), 0);
}

#[test]
fn no_other_algorithm_gets_a_token_in() {
    let (upstream, issuer) = (Upstream::start(), Issuer::start());
    let gateway = with_tokens(&upstream, &issuer, "{require: accounts}");
    let claims = json!({"sub": "eve", "iss": "auth-service", "exp": unix_now() + 60});
    // The classic: a public key, known to all, used as a shared secret.
    let confused = Key::hmac(issuer.key.configured().as_bytes(), "first");
    let unsigned = issuer.key.token_under(&json!({"alg": "none", "kid": "first"}), &claims);
    for (what, token) in [
        ("HS256 with the public key", confused.token(&claims)),
        ("none", unsigned),
        (
            "RS512 by name",
            issuer.key.token_under(&json!({"alg": "RS512", "kid": "first"}), &claims),
        ),
        (
            "an unknown crit",
            issuer.key.token_under(
                &json!({"alg": "RS256", "kid": "first", "crit": ["exp2"], "exp2": 1}),
                &claims,
            ),
        ),
    ] {
        assert_eq!(gateway.call(get(&token)).status, 401, "{what}");
    }
    assert_eq!(upstream.count(), 0);
}

#[test]
fn no_url_in_a_token_is_fetched() {
    let (upstream, issuer, trap) = (Upstream::start(), Issuer::start(), Upstream::start());
    let gateway = with_tokens(&upstream, &issuer, "{require: accounts}");
    let header = json!({"alg": "RS256", "kid": "evil", "jku": trap.url(), "x5u": trap.url()});
    let claims = json!({"sub": "eve", "iss": trap.url(), "exp": unix_now() + 60});
    assert_eq!(gateway.call(get(&issuer.key.token_under(&header, &claims))).status, 401);
    assert_eq!(trap.count(), 0);
}

#[test]
fn a_rotated_key_is_fetched_when_its_first_token_comes() {
    let (upstream, mut issuer) = (Upstream::start(), Issuer::start());
    let gateway = with_tokens(&upstream, &issuer, "{require: accounts}");
    assert_eq!(gateway.call(get(&issuer.token("ada"))).status, 200);
    let before = issuer.fetches();
    issuer.rotate();
    assert_eq!(gateway.call(get(&issuer.token("ada"))).status, 200);
    assert_eq!(issuer.fetches(), before + 1);
}

#[test]
fn a_flood_of_unknown_keys_is_a_handful_of_fetches() {
    let (upstream, issuer) = (Upstream::start(), Issuer::start());
    let gateway = with_tokens(&upstream, &issuer, "{require: accounts}");
    assert_eq!(gateway.call(get(&issuer.token("ada"))).status, 200);
    let before = issuer.fetches();
    std::thread::scope(|scope| {
        for n in 0..20 {
            let (gateway, issuer) = (&gateway, &issuer);
            scope.spawn(move || {
                let header = json!({"alg": "RS256", "kid": format!("unknown-{n}")});
                let claims = json!({"sub": "eve", "iss": "auth-service", "exp": unix_now() + 60});
                let token = issuer.key.token_under(&header, &claims);
                assert_eq!(gateway.call(get(&token)).status, 401);
            });
        }
    });
    assert!(issuer.fetches() <= before + 5, "{} fetches", issuer.fetches() - before);
}

#[test]
fn a_key_asked_for_in_vain_is_not_asked_for_again_at_once() {
    let (upstream, issuer) = (Upstream::start(), Issuer::start());
    let gateway = with_tokens(&upstream, &issuer, "{require: accounts}");
    assert_eq!(gateway.call(get(&issuer.token("ada"))).status, 200);
    let before = issuer.fetches();
    let claims = json!({"sub": "eve", "iss": "auth-service", "exp": unix_now() + 60});
    let token = issuer.key.token_under(&json!({"alg": "RS256", "kid": "unknown"}), &claims);
    for _ in 0..5 {
        assert_eq!(gateway.call(get(&token)).status, 401);
    }
    assert_eq!(issuer.fetches(), before + 1);
}

#[test]
fn keys_that_cannot_be_fetched_stop_neither_the_start_nor_the_recovery() {
    let (upstream, issuer) = (Upstream::start(), Issuer::start());
    issuer.publish(500.into());
    let gateway = with_tokens(&upstream, &issuer, "{require: accounts}");
    let refused = gateway.call(get(&issuer.token("ada")));
    assert_eq!((refused.status, &*refused.code()), (503, "keys_unavailable"));
    assert_eq!(upstream.count(), 0);
    issuer.recover();
    eventually("a token that is accepted after all", || {
        (gateway.call(get(&issuer.token("ada"))).status == 200).then_some(())
    });
}

#[test]
fn garbage_instead_of_keys_leaves_the_old_ones_in_use() {
    let (upstream, issuer) = (Upstream::start(), Issuer::start());
    let auth = JWKS.replace("'${JWKS_URL}'", "'${JWKS_URL}', refresh: 100ms");
    let plan = Plan::route("auth: {require: accounts}").section(&auth);
    let gateway = plan.env("JWKS_URL", &issuer.url()).upstream(&upstream).start();
    assert_eq!(gateway.call(get(&issuer.token("ada"))).status, 200);
    for answer in [Answer::ok().body("<html>"), Answer::json(200, "{\"keys\": []}"), Answer::hang()]
    {
        issuer.publish(answer);
        let before = issuer.fetches();
        eventually("another fetch", || (issuer.fetches() > before).then_some(()));
        let fresh = issuer.token_with("ada", json!({"jti": before}));
        assert_eq!(gateway.call(get(&fresh)).status, 200);
    }
}

#[test]
fn stale_keys_are_refused_once_their_time_is_over() {
    let (upstream, issuer) = (Upstream::start(), Issuer::start());
    let auth = JWKS.replace("'${JWKS_URL}'", "'${JWKS_URL}', refresh: 100ms, max_stale: 600ms");
    let plan = Plan::route("auth: {require: accounts}").section(&auth);
    let gateway = plan.env("JWKS_URL", &issuer.url()).upstream(&upstream).start();
    let token = issuer.token("ada");
    assert_eq!(gateway.call(get(&token)).status, 200);
    issuer.publish(Answer::close());
    // The token that was verified before is no exception.
    eventually("stale keys to be refused", || {
        let response = gateway.call(get(&token));
        if response.status == 200 {
            return None;
        }
        assert_eq!((response.status, &*response.code()), (503, "keys_unavailable"));
        assert!(response.retry_after() > 0);
        Some(())
    });
    gateway.expect_metric("portcullis_jwks_keys", &[("auth", "accounts")], 0.0);
    issuer.recover();
    eventually("fresh keys to be used", || (gateway.call(get(&token)).status == 200).then_some(()));
}

#[test]
fn a_key_that_is_replaced_under_its_id_is_fetched_with_its_first_token() {
    let (upstream, mut issuer) = (Upstream::start(), Issuer::start());
    let gateway = with_tokens(&upstream, &issuer, "{require: accounts}");
    let old = issuer.token("ada");
    assert_eq!(gateway.call(get(&old)).status, 200);
    let before = issuer.fetches();
    issuer.replace_key();
    assert_eq!(gateway.call(get(&issuer.token("ada"))).status, 200);
    assert_eq!(issuer.fetches(), before + 1);
    // What the old key signed is not believed any more, though it was verified before.
    let refused = gateway.call(get(&old));
    assert_eq!((refused.status, &*refused.code()), (401, "credentials_invalid"));
}

#[test]
fn garbage_signatures_cause_a_handful_of_fetches_and_hold_up_no_other_client() {
    let (upstream, issuer) = (Upstream::start(), Issuer::start());
    let gateway = with_tokens(&upstream, &issuer, "{require: accounts}");
    let good = issuer.token("ada");
    assert_eq!(gateway.call(get(&good)).status, 200);
    let before = issuer.fetches();
    // The issuer does not answer any more: a request that waits for it waits for the fetch's time limit.
    issuer.publish(Answer::hang());
    let forged = |n: usize| {
        let signed = issuer.token_with("eve", json!({"jti": n}));
        let (signed, _) = signed.rsplit_once('.').expect("a token");
        let (_, signature) = good.rsplit_once('.').expect("a token");
        format!("{signed}.{signature}")
    };
    std::thread::scope(|scope| {
        let attackers: Vec<_> = (0..50)
            .map(|n| {
                let (gateway, forged) = (&gateway, forged(n));
                scope.spawn(move || gateway.call(get(&forged)).status)
            })
            .collect();
        eventually("a fetch for a forged token", || (issuer.fetches() > before).then_some(()));
        for n in 0..20 {
            let fresh = issuer.token_with("ada", json!({"jti": format!("good-{n}")}));
            assert_eq!(gateway.call(get(&fresh)).status, 200);
        }
        assert!(attackers.iter().any(|attacker| !attacker.is_finished()), "they wait, alone");
        for attacker in attackers {
            assert_eq!(attacker.join().expect("a client"), 401);
        }
    });
    assert!(issuer.fetches() <= before + 5, "{} fetches", issuer.fetches() - before);
    assert_eq!(upstream.count(), 21);
}

#[test]
fn a_set_that_has_not_changed_is_not_fetched_again_for_each_bad_signature() {
    let (upstream, issuer) = (Upstream::start(), Issuer::start());
    let gateway = with_tokens(&upstream, &issuer, "{require: accounts}");
    assert_eq!(gateway.call(get(&issuer.token("ada"))).status, 200);
    let before = issuer.fetches();
    let other = Key::other_rsa("first");
    for n in 0..10 {
        let claims = json!({"sub": "eve", "iss": "auth-service", "exp": unix_now() + 60, "n": n});
        assert_eq!(gateway.call(get(&other.token(&claims))).status, 401);
    }
    assert_eq!(issuer.fetches(), before + 1);
    assert_eq!(upstream.count(), 1);
}

#[test]
fn a_token_that_names_no_key_is_tried_with_every_key_of_its_algorithm() {
    let (upstream, issuer) = (Upstream::start(), Issuer::start());
    let other = Key::other_rsa("second");
    issuer.publish_keys(&[&issuer.key, &other]);
    let gateway = with_tokens(&upstream, &issuer, "{require: accounts}");
    let claims = json!({"sub": "ada", "iss": "auth-service", "exp": unix_now() + 60});
    for key in [&issuer.key, &other] {
        let token = key.token_under(&json!({"alg": "RS256"}), &claims);
        assert_eq!(gateway.call(get(&token)).status, 200);
    }
    let forged = Key::hmac(b"0123456789abcdef0123456789abcdef", "none");
    assert_eq!(
        gateway.call(get(&forged.token_under(&json!({"alg": "RS256"}), &claims))).status,
        401
    );
    assert_eq!(upstream.count(), 2);
}

#[test]
fn keys_that_were_never_fetched_are_no_fault_of_the_clients_in_any_dialect() {
    let upstream = Upstream::always(hello());
    let plan = mapped("auth: {require: accounts}").section(JWKS);
    let nowhere = format!("http://{}/keys", refused_address());
    let gateway = plan.env("JWKS_URL", &nowhere).upstream(&upstream).start();
    let issuer = Issuer::start();
    let bearer = format!("Bearer {}", issuer.token("ada"));
    for dialect in Dialect::ALL {
        let told = dialect.call(&gateway, "Ada", &[("authorization", &bearer)]);
        assert_eq!(told.code, "unavailable", "{dialect:?}: {told:?}");
        // The others have it among the details of their status.
        let retry = told.header("retry-after").or(told.header("grpc-status-details-bin"));
        let of_web = matches!(dialect, Dialect::GrpcWeb | Dialect::GrpcWebText);
        assert!(of_web || retry.is_some_and(|after| after != "0"), "{dialect:?}");
        assert_eq!(told.header("www-authenticate"), None, "{dialect:?}");
    }
    // Credentials that no key could save are the client's fault all the same.
    let missing = Dialect::Grpc.call(&gateway, "Ada", &[]);
    assert_eq!(missing.code, "unauthenticated");
    let garbage = Dialect::Grpc.call(&gateway, "Ada", &[("authorization", "Bearer garbage")]);
    assert_eq!(garbage.code, "unauthenticated");
    assert_eq!(upstream.count(), 0);
    let status = gateway.status();
    assert_eq!(status["auth"]["accounts"]["keys"], 0);
    let error = status["auth"]["accounts"]["error"].as_str().expect("an error").to_owned();
    assert!(error.contains("refused"), "{error}");
    // It is ready: other routes have no use for these keys.
    assert_eq!(gateway.admin("GET /readyz").status, 200);
}
