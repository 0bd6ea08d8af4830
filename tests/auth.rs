//! Who a caller is, and what it may do: keys, scopes, and what cannot be forged.
//! Which tokens are believed is in `tokens`.

use serde_json::json;

use crate::support::{Call, Gateway, Issuer, Plan, Response, Upstream, eventually, expired};

const JWKS: &str = "auth: {accounts: {jwt: {issuer: auth-service, audience: any, algorithms: [RS256], jwks: {url: '${JWKS_URL}'}}}}";
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
fn callers_that_share_a_connection_are_told_apart() {
    let (upstream, issuer) = (Upstream::start(), Issuer::start());
    let gateway = with_tokens(&upstream, &issuer, "{require: accounts}");
    let (ada, eve) = (issuer.token("ada"), issuer.token("eve"));
    let forged = format!("{}{}", &ada[..ada.len() - 8], "AAAAAAAA");
    let mut client = gateway.connect();
    let mut status = |token: &str| client.call(&get(token)).status;
    let statuses = [&ada, &ada, &eve, &ada, &forged, &ada, &eve].map(|token| status(token));
    assert_eq!(statuses, [200, 200, 200, 200, 401, 200, 200]);
    let requests = upstream.requests();
    let consumers = requests.iter().map(|request| request.header("x-consumer").unwrap_or("-"));
    assert_eq!(consumers.collect::<Vec<_>>(), ["ada", "ada", "eve", "ada", "ada", "eve"]);
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
fn what_a_route_sets_is_sent_whatever_it_is_called() {
    let upstream = Upstream::start();
    let plan = Plan::route("headers: {request: {set: {X_Consumer: legacy}}}");
    plan.upstream(&upstream).start().call(get("no token"));
    assert_eq!(upstream.only().header("x_consumer"), Some("legacy"));
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
    // A request so malformed that it is quoted by a careless server.
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
