//! Who a caller is, and what it may do: keys, tokens, scopes, and what cannot be forged.

use serde_json::{Value, json};

use crate::support::{
    Algorithm, Answer, Call, Gateway, Issuer, Key, Plan, Response, Upstream, eventually, expired,
    unix_now,
};

const JWKS: &str = "auth: {accounts: {jwt: {issuer: auth-service, algorithms: [RS256], jwks: {url: '${JWKS_URL}'}}}}";
const KEYS: &str = "auth: {partners: {api_key: {header: X-Api-Key, keys: {acme: acme-key-0123456789, umbra: {key: umbra-key-0123456789, scopes: [read], role: clerk}}}}}";

fn with_tokens(upstream: &Upstream, issuer: &Issuer, auth: &str) -> Gateway {
    let route = format!("auth: {auth}");
    let plan = Plan::route(&route).section(JWKS).env("JWKS_URL", &issuer.url());
    let gateway = plan.upstream(upstream).start();
    // The keys are fetched in the background.
    eventually("the first fetch of the keys", || (issuer.fetches() > 0).then_some(()));
    gateway
}

fn with_keys(upstream: &Upstream, auth: &str) -> Gateway {
    Plan::route(&format!("auth: {auth}")).section(KEYS).upstream(upstream).start()
}

fn get(token: &str) -> Call {
    Call::new("GET /").bearer(token)
}

fn keyed(key: &str) -> Call {
    Call::new("GET /").header("X-Api-Key", key)
}

#[track_caller]
fn assert_unauthenticated(response: &Response, upstream: &Upstream) {
    assert_eq!(response.status, 401, "{}", response.text());
    assert!(response.header("www-authenticate").is_some(), "401 names a scheme");
    assert_eq!(upstream.count(), 0, "nothing reaches the upstream");
}

#[test]
fn an_api_key_names_its_consumer() {
    let upstream = Upstream::start();
    let gateway = with_keys(&upstream, "{require: partners}");
    assert_eq!(gateway.call(keyed("acme-key-0123456789")).status, 200);
    assert_eq!(upstream.only().header("x-consumer"), Some("acme"));
}

#[test]
fn a_wrong_or_missing_api_key_is_401() {
    let upstream = Upstream::start();
    let gateway = with_keys(&upstream, "{require: partners}");
    for call in [
        Call::new("GET /"),
        keyed(""),
        keyed("acme-key-012345678"),
        keyed("acme-key-0123456789x"),
        keyed("ACME-KEY-0123456789"),
    ] {
        assert_unauthenticated(&gateway.call(call), &upstream);
    }
}

#[test]
fn two_api_keys_are_none() {
    let upstream = Upstream::start();
    let gateway = with_keys(&upstream, "{require: partners}");
    let call = keyed("wrong").header("X-Api-Key", "acme-key-0123456789");
    assert_unauthenticated(&gateway.call(call), &upstream);
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
            "auth: {{accounts: {{jwt: {{issuer: auth-service, algorithms: [{name}], {source}: '${{file:key}}'}}}}}}"
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
        assert_unauthenticated(&response, &upstream);
    }
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
fn a_flood_of_unknown_keys_is_one_fetch() {
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
    assert!(issuer.fetches() <= before + 1, "{} fetches", issuer.fetches() - before);
}

#[test]
fn keys_that_cannot_be_fetched_stop_neither_the_start_nor_the_recovery() {
    let (upstream, issuer) = (Upstream::start(), Issuer::start());
    issuer.publish(500.into());
    let gateway = with_tokens(&upstream, &issuer, "{require: accounts}");
    let refused = gateway.call(get(&issuer.token("ada")));
    assert!(matches!(refused.status, 401 | 503), "refused, never open: {}", refused.status);
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
        let status = gateway.call(get(&token)).status;
        assert!(matches!(status, 200 | 401 | 503), "{status}");
        (status != 200).then_some(())
    });
    issuer.recover();
    eventually("fresh keys to be used", || (gateway.call(get(&token)).status == 200).then_some(()));
}

#[test]
fn credentials_are_not_forwarded() {
    let (upstream, issuer) = (Upstream::start(), Issuer::start());
    let auth = format!("{KEYS}\n{JWKS}").replace("}}}}}\nauth: {", "}}}}, ");
    let plan = Plan::route("auth: {require: [accounts, partners]}").section(&auth);
    let gateway = plan.env("JWKS_URL", &issuer.url()).upstream(&upstream).start();
    assert_eq!(gateway.call(get(&issuer.token("ada"))).status, 200);
    assert_eq!(gateway.call(keyed("acme-key-0123456789")).status, 200);
    for request in upstream.requests() {
        assert_eq!(request.header("authorization"), None);
        assert_eq!(request.header("x-api-key"), None);
    }
}

#[test]
fn credentials_are_forwarded_where_a_route_asks_for_it() {
    let upstream = Upstream::start();
    let gateway = with_keys(&upstream, "{require: partners, forward_credentials: true}");
    gateway.call(keyed("acme-key-0123456789"));
    assert_eq!(upstream.only().header("x-api-key"), Some("acme-key-0123456789"));
}

#[test]
fn either_of_two_kinds_of_credentials_will_do() {
    let (upstream, issuer) = (Upstream::start(), Issuer::start());
    let auth = format!("{KEYS}\n{JWKS}").replace("}}}}}\nauth: {", "}}}}, ");
    let plan = Plan::route("auth: {require: [accounts, partners]}").section(&auth);
    let gateway = plan.env("JWKS_URL", &issuer.url()).upstream(&upstream).start();
    gateway.call(get(&issuer.token("ada")));
    gateway.call(keyed("acme-key-0123456789"));
    let consumers: Vec<_> =
        upstream.requests().iter().map(|r| r.header("x-consumer").map(str::to_owned)).collect();
    assert_eq!(consumers, [Some("ada".to_owned()), Some("acme".to_owned())]);
}

#[test]
fn no_client_sets_the_consumer() {
    let upstream = Upstream::start();
    let gateway = with_keys(&upstream, "{require: partners}");
    let call = keyed("acme-key-0123456789")
        .header("X-Consumer", "root")
        .header("x-consumer", "admin")
        .header("X_Consumer", "root");
    gateway.call(call);
    let request = upstream.only();
    assert_eq!(request.header("x-consumer"), Some("acme"));
    assert_eq!(request.header("x_consumer"), None, "upstreams may read it as the same name");
}

#[test]
fn no_client_strips_the_consumer_by_nominating_it() {
    let upstream = Upstream::start();
    let gateway = with_keys(&upstream, "{require: partners}");
    let call = keyed("acme-key-0123456789")
        .header("Connection", "X-Consumer, X-Request-Id, X-Forwarded-For");
    if gateway.call(call).status == 400 {
        assert_eq!(upstream.count(), 0);
        return;
    }
    let request = upstream.only();
    assert_eq!(request.header("x-consumer"), Some("acme"));
    assert!(request.header("x-request-id").is_some());
    assert!(request.header("x-forwarded-for").is_some());
}

#[test]
fn an_anonymous_route_forwards_no_consumer_at_all() {
    let upstream = Upstream::start();
    let gateway = Gateway::route(&upstream, "");
    gateway.call(Call::new("GET /").header("X-Consumer", "root"));
    assert_eq!(upstream.only().header("x-consumer"), None);
}

#[test]
fn an_anonymous_prefix_opens_whole_segments_only() {
    let upstream = Upstream::start();
    let gateway = with_keys(&upstream, "{require: partners, anonymous: [/health]}");
    for (path, status) in [
        ("/health", 200),
        ("/health/deep", 200),
        ("/healthX", 401),
        ("/", 401),
        ("/x/health", 401),
        ("/HEALTH", 401),
    ] {
        assert_eq!(gateway.get(path).status, status, "{path}");
    }
    let path = gateway.get("/health/../secret").status;
    assert!(matches!(path, 400 | 401), "{path}");
    assert_eq!(upstream.count(), 2);
}

#[test]
fn an_anonymous_call_on_an_open_prefix_names_no_consumer() {
    let upstream = Upstream::start();
    let gateway = with_keys(&upstream, "{require: partners, anonymous: [/health]}");
    gateway.call(Call::new("GET /health").header("X-Consumer", "root"));
    assert_eq!(upstream.only().header("x-consumer"), None);
}

#[test]
fn missing_scopes_are_403() {
    let (upstream, issuer) = (Upstream::start(), Issuer::start());
    let gateway = with_tokens(&upstream, &issuer, "{require: accounts, scopes: [read, write]}");
    let scoped = |scope: &str| get(&issuer.token_with("ada", json!({"scope": scope})));
    let refused = gateway.call(scoped("read"));
    assert_eq!((refused.status, refused.code().as_str()), (403, "scope_missing"));
    assert_eq!(upstream.count(), 0);
    assert_eq!(gateway.call(scoped("write other read")).status, 200);
}

#[test]
fn one_of_several_scopes_will_do_where_any_is_asked_for() {
    let (upstream, issuer) = (Upstream::start(), Issuer::start());
    let auth = "{require: accounts, scopes: [read, write], scopes_match: any}";
    let gateway = with_tokens(&upstream, &issuer, auth);
    let scoped = |scope: &str| get(&issuer.token_with("ada", json!({"scope": scope})));
    assert_eq!(gateway.call(scoped("write")).status, 200);
    assert_eq!(gateway.call(scoped("readwrite")).status, 403);
}

#[test]
fn a_key_has_the_scopes_and_the_role_it_was_given() {
    let upstream = Upstream::start();
    let gateway = with_keys(&upstream, "{require: partners, scopes: [read], role: clerk}");
    assert_eq!(gateway.call(keyed("umbra-key-0123456789")).status, 200);
    assert_eq!(gateway.call(keyed("acme-key-0123456789")).status, 403);
    let gateway = with_keys(&upstream, "{require: partners, role: admin}");
    assert_eq!(gateway.call(keyed("umbra-key-0123456789")).status, 403);
}

#[test]
fn no_credential_is_ever_logged_or_answered() {
    let (upstream, issuer) = (Upstream::start(), Issuer::start());
    let gateway = with_tokens(&upstream, &issuer, "{require: accounts}");
    let token = issuer.token_with("eve", expired());
    let answer = gateway.call(get(&token)).text();
    // A request so malformed that it is quoted by whoever is careless.
    let mut client = gateway.connect();
    client
        .send(format!("GET / HTTP/1.1\r\nAuthorization: Bearer {token}\r\nBad Header: x\r\n\r\n"));
    let refused = client.try_receive("GET").map(|r| r.text()).unwrap_or_default();
    for text in [
        answer,
        refused,
        gateway.log(),
        gateway.admin("GET /metrics").text(),
        gateway.status().to_string(),
    ] {
        assert!(!text.contains(&token[token.len() - 40..]), "{text}");
    }
}
