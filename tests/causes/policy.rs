//! Policies that refuse, and the stores that they and the record ask.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{Scenario, call, line};
use crate::support::{
    Answer, Call, Gateway, Issuer, Plan, Postgres, Store, Upstream, eventually, expired,
    refused_address,
};

pub const REFUSALS: &[Scenario] = &[
    ("address_denied", denied_address),
    ("credentials_missing", no_key),
    ("credentials_invalid", wrong_key),
    ("token_expired", old_token),
    ("keys_unavailable", no_keys),
    ("auth_unavailable", no_service),
    ("auth_denied", denied_by_service),
    ("caller_denied", other_caller),
    ("auth_redirect", redirected_by_service),
    ("scope_missing", no_scope),
    ("role_missing", no_role),
    ("call_denied", no_such_call),
    ("rate_limited", too_often),
    ("circuit_open", open_circuit),
    ("circuit_open.of_the_upstream", open_circuit_of_the_upstream),
    ("bulkhead_full", too_many),
    ("bulkhead_full.of_one_caller", too_many_of_one),
    ("bulkhead_wait_exceeded", waited_too_long),
    ("endpoints_full", too_many_connections),
    ("idempotency_key_missing", keyless),
    ("idempotency_key_invalid", key_of_two_words),
    ("idempotency_in_flight", still_running),
    ("idempotency_key_reused", another_request),
    ("idempotency_answer_not_kept", large_answer),
    ("idempotency_undecided", undecided),
];

pub const STORES: &[Scenario] = &[
    ("limit_store_unavailable", no_redis),
    ("record_unavailable", no_record),
    ("idempotency_unavailable", no_keys_of_idempotency),
];

/// The line about `cause`, after `calls` of which the last is refused.
fn after(plan: Plan, calls: &[Call], cause: &str) -> Option<Value> {
    let upstream = Upstream::start();
    let gateway = plan.upstream(&upstream).start();
    for call in calls {
        gateway.call(call.clone());
    }
    assert_eq!(upstream.count(), calls.len() - 1, "{cause}");
    Some(line(&gateway, cause))
}

fn orders() -> Call {
    call("GET /orders")
}

const KEYS: &str = "auth: {partners: {api_key: {header: X-Api-Key, keys: {umbra: {key: umbra-key-0123456789, role: clerk}}}}}";

fn denied_address() -> Option<Value> {
    after(Plan::route("networks: {allow: [10.0.0.0/8]}"), &[orders()], "address_denied")
}

fn no_key() -> Option<Value> {
    after(
        Plan::route("auth: {require: partners}").section(KEYS),
        &[orders()],
        "credentials_missing",
    )
}

fn wrong_key() -> Option<Value> {
    let guess = orders().header("X-Api-Key", "a-guess-0123456789");
    after(Plan::route("auth: {require: partners}").section(KEYS), &[guess], "credentials_invalid")
}

fn no_role() -> Option<Value> {
    let plan = Plan::route("auth: {require: partners, role: admin}").section(KEYS);
    after(plan, &[orders().header("X-Api-Key", "umbra-key-0123456789")], "role_missing")
}

fn no_such_call() -> Option<Value> {
    let permit = "[{callers: umbra, paths: /invoices/*}]";
    let plan = Plan::route(&format!("auth: {{require: partners, permit: {permit}}}")).section(KEYS);
    after(plan, &[orders().header("X-Api-Key", "umbra-key-0123456789")], "call_denied")
}

/// A gateway that knows the keys of `issuer`, or has tried to.
fn with_tokens(issuer: &Issuer, auth: &str) -> Plan {
    let jwt =
        "{issuer: auth-service, audience: any, algorithms: [RS256], jwks: {url: '${JWKS_URL}'}}";
    let section = format!("auth: {{accounts: {{jwt: {jwt}}}}}");
    Plan::route(&format!("auth: {auth}")).section(&section).env("JWKS_URL", &issuer.url())
}

fn old_token() -> Option<Value> {
    let issuer = Issuer::start();
    let token = issuer.token_with("ada", expired());
    after(with_tokens(&issuer, "{require: accounts}"), &[orders().bearer(&token)], "token_expired")
}

fn no_scope() -> Option<Value> {
    let issuer = Issuer::start();
    let token = issuer.token_with("ada", json!({"scope": "read"}));
    let plan = with_tokens(&issuer, "{require: accounts, scopes: [write]}");
    after(plan, &[orders().bearer(&token)], "scope_missing")
}

fn no_keys() -> Option<Value> {
    let issuer = Issuer::start();
    issuer.publish(500.into());
    let call = orders().bearer(&issuer.token("ada"));
    after(with_tokens(&issuer, "{require: accounts}"), &[call], "keys_unavailable")
}

/// A gateway that asks a service which gives this answer.
fn by_service(answer: impl Into<Answer>, cause: &str) -> Option<Value> {
    let service = Upstream::always(answer);
    let auth = format!("auth: {{portal: {{forward: {{url: '{}/check'}}}}}}", service.url());
    after(Plan::route("auth: {require: portal}").section(&auth), &[orders()], cause)
}

fn no_service() -> Option<Value> {
    by_service(500, "auth_unavailable")
}

fn denied_by_service() -> Option<Value> {
    by_service(403, "auth_denied")
}

/// The name is told by a proxy, which needs no handshake.
fn other_caller() -> Option<Value> {
    let auth =
        "auth: {mesh: {client_certificate: {allow: ['spiffe://prod/*'], from_proxies: true}}}";
    let server = "client_address: {trusted_proxies: [127.0.0.0/8]}";
    let plan = Plan::route("auth: {require: mesh}").section(auth).section(server);
    let call = orders().header("X-Forwarded-Client-Cert", "URI=spiffe://test/web");
    after(plan, &[call], "caller_denied")
}

fn redirected_by_service() -> Option<Value> {
    let answer = Answer::from(302).header("Location", "https://login.example/");
    by_service(answer, "auth_redirect")
}

fn too_often() -> Option<Value> {
    let plan = Plan::route("rate_limit: {fixed_window: {requests: 1, per: 1h}, key: route}");
    after(plan, &[orders(), orders()], "rate_limited")
}

const BREAKER: &str = "circuit_breaker: {consecutive: {failures: 1}, open_for: 1h}";

fn open_circuit() -> Option<Value> {
    let upstream = Upstream::always(500);
    let gateway = Gateway::route(&upstream, BREAKER);
    assert_eq!(gateway.get("/orders").status, 500);
    gateway.call(orders());
    Some(line(&gateway, "circuit_open"))
}

fn open_circuit_of_the_upstream() -> Option<Value> {
    let upstream = Upstream::always(500);
    let service = format!("upstreams: {{service: {{endpoints: ['${{UPSTREAM}}'], {BREAKER}}}}}");
    let gateway = Plan::route("").section(&service).upstream(&upstream).start();
    assert_eq!(gateway.get("/orders").status, 500);
    gateway.call(orders());
    Some(line(&gateway, "circuit_open"))
}

fn too_many() -> Option<Value> {
    let upstream = Upstream::script([Answer::ok().held()]);
    let gateway = Gateway::route(&upstream, "bulkhead: {max_in_flight: 1}");
    let mut first = gateway.connect();
    first.send(Call::new("GET /orders").bytes());
    upstream.wait_for(1);
    gateway.call(orders());
    Some(line(&gateway, "bulkhead_full"))
}

fn too_many_of_one() -> Option<Value> {
    let upstream = Upstream::script([Answer::ok().held()]);
    let bulkhead = "bulkhead: {max_in_flight: 9, per_consumer: {max_in_flight: 1}}";
    let gateway = Gateway::route(&upstream, bulkhead);
    let mut first = gateway.connect();
    first.send(Call::new("GET /orders").bytes());
    upstream.wait_for(1);
    gateway.call(orders());
    Some(line(&gateway, "bulkhead_full"))
}

fn waited_too_long() -> Option<Value> {
    let upstream = Upstream::script([Answer::ok().held()]);
    let queue = "bulkhead: {max_in_flight: 1, queue: {max: 10, max_wait: 100ms}}";
    let gateway = Gateway::route(&upstream, queue);
    let mut first = gateway.connect();
    first.send(Call::new("GET /orders").bytes());
    upstream.wait_for(1);
    gateway.call(orders());
    Some(line(&gateway, "bulkhead_wait_exceeded"))
}

fn too_many_connections() -> Option<Value> {
    let upstream = Upstream::script([Answer::ok().held()]);
    let service = "upstreams: {service: {endpoints: ['${UPSTREAM}'], max_connections: 1}}";
    let gateway = Plan::route("").section(service).upstream(&upstream).start();
    let mut first = gateway.connect();
    first.send(Call::new("GET /orders").bytes());
    upstream.wait_for(1);
    gateway.call(orders());
    Some(line(&gateway, "endpoints_full"))
}

fn pay(key: &str) -> Call {
    call("POST /pay").header("Idempotency-Key", key).json("{\"amount\":10}")
}

fn keyless() -> Option<Value> {
    let plan = Plan::route("idempotency: {required: true}");
    after(plan, &[call("POST /pay").json("{}")], "idempotency_key_missing")
}

fn key_of_two_words() -> Option<Value> {
    after(Plan::route("idempotency: {}"), &[pay("two words")], "idempotency_key_invalid")
}

fn another_request() -> Option<Value> {
    let plan = Plan::route("idempotency: {}");
    after(plan, &[pay("k"), pay("k").header("X", "y").json("{}")], "idempotency_key_reused")
}

fn still_running() -> Option<Value> {
    let upstream = Upstream::always(Answer::ok().held());
    let gateway = Gateway::route(&upstream, "idempotency: {}");
    let mut first = gateway.connect();
    first.send(pay("k").bytes());
    upstream.wait_for(1);
    gateway.call(pay("k"));
    Some(line(&gateway, "idempotency_in_flight"))
}

fn large_answer() -> Option<Value> {
    let upstream = Upstream::script([Answer::ok().body(&"x".repeat(3000))]);
    let gateway = Gateway::route(&upstream, "idempotency: {max_response: 2KiB}");
    assert_eq!(gateway.call(pay("k")).status, 200);
    gateway.call(pay("k"));
    Some(line(&gateway, "idempotency_answer_not_kept"))
}

/// The first request breaks off, and what it has done will never be known.
fn undecided() -> Option<Value> {
    let store = "record: {store: {sqlite: {path: \"${PORTCULLIS_DATA}/portcullis.db\"}}, commit_timeout: 1s}";
    let upstream = Upstream::always(Answer::hang());
    let plan = Plan::route("timeout: {request: 300ms}\nidempotency: {lease: 0}").section(store);
    let gateway = plan.upstream(&upstream).start();
    assert_eq!(gateway.call(pay("k")).status, 504);
    eventually("the end of the lease", || {
        let code = gateway.call(pay("k")).code();
        (code == "idempotency_undecided").then_some(())
    });
    Some(line(&gateway, "idempotency_undecided"))
}

#[test]
fn a_refused_key_names_the_row_of_the_first_request() {
    let upstream = Upstream::start();
    let policies = "idempotency: {}\nrecord: {mode: sync}";
    let gateway = Gateway::route(&upstream, policies);
    assert_eq!(gateway.call(pay("k")).status, 200);
    assert_eq!(gateway.call(pay("k").json("{}")).status, 422);
    let line = line(&gateway, "idempotency_key_reused");
    let rows = Store::Sqlite.wait_for_rows(&gateway, 2);
    let first = rows.iter().find(|row| row.text("status") == Some("200")).expect("the first");
    assert_eq!(line["portcullis.first_request"].as_str(), first.text("id"), "{line:#}");
    assert!(line["portcullis.first_request_before_us"].as_u64() < Some(60_000_000), "{line:#}");
}

fn no_redis() -> Option<Value> {
    let store = format!("{{redis: {{url: 'redis://{}'}}}}", refused_address());
    let limit = "rate_limit: {fixed_window: {requests: 9, per: 1h}, shared: {store: shared, on_failure: closed}}";
    let plan = Plan::route(limit).section(&format!("rate_limit_stores: {{shared: {store}}}"));
    let upstream = Upstream::start();
    let gateway = plan.upstream(&upstream).start();
    // Why it cannot be asked is known once that has been tried.
    gateway.wait_for_log(": cannot be asked, limits do as their on_failure says");
    gateway.call(orders());
    assert_eq!(upstream.count(), 0);
    Some(line(&gateway, "limit_store_unavailable"))
}

/// A store whose server has gone, and that is not waited for long.
fn stopped() -> Option<String> {
    let server = Arc::new(Postgres::start()?);
    let store = Store::on(server.clone());
    let section = store.section().replace("record: {", "record: {commit_timeout: 500ms, ");
    server.stop();
    Some(section)
}

fn no_record() -> Option<Value> {
    let plan = Plan::route("record: {mode: sync, on_failure: reject}").section(&stopped()?);
    let upstream = Upstream::start();
    let gateway = plan.upstream(&upstream).start();
    gateway.call(orders());
    assert_eq!(upstream.count(), 1, "it was asked, and its response withheld");
    Some(line(&gateway, "record_unavailable"))
}

fn no_keys_of_idempotency() -> Option<Value> {
    after(
        Plan::route("idempotency: {}").section(&stopped()?),
        &[pay("k")],
        "idempotency_unavailable",
    )
}
