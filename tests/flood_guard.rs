//! What an address that sends too much is answered, before anybody asks who it is.

use std::time::Duration;

use crate::support::{Call, Gateway, Plan, Upstream, pass};

const KEYS: &str =
    "auth: {partners: {api_key: {header: X-Api-Key, keys: {acme: acme-key-0123456789}}}}";
const TRUSTED: &str = "client_address: {trusted_proxies: [127.0.0.0/8]}";

fn guarded(upstream: &Upstream, requests: u32, per: &str, policies: &str) -> Gateway {
    Plan::route(policies)
        .section(&format!("flood_guard: {{requests: {requests}, per: {per}}}\n{KEYS}\n{TRUSTED}"))
        .upstream(upstream)
        .start()
}

fn from(gateway: &Gateway, address: &str) -> u16 {
    gateway.call(Call::new("GET /").header("X-Forwarded-For", address)).status
}

#[test]
fn an_address_that_floods_is_refused_before_its_credentials_are_looked_at() {
    let upstream = Upstream::start();
    let gateway = guarded(&upstream, 2, "1h", "auth: {require: partners}");
    let call = || gateway.call(Call::new("GET /").header("X-Api-Key", "a-guess-0123456789"));
    assert_eq!([call().status, call().status], [401, 401]);
    let refused = call();
    assert_eq!((refused.status, refused.code().as_str()), (429, "flood"));
    assert_eq!(refused.retry_after(), 3600);
    let call = Call::new("GET /").header("X-Api-Key", "acme-key-0123456789");
    assert_eq!((gateway.call(call).status, upstream.count()), (429, 0));
}

#[test]
fn a_flood_from_one_address_keeps_no_other_out() {
    let upstream = Upstream::start();
    let gateway = guarded(&upstream, 1, "1h", "");
    let statuses = ["192.0.2.1", "192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8::2"];
    let statuses = statuses.map(|address| from(&gateway, address));
    assert_eq!(statuses, [200, 429, 200, 200, 429]);
}

#[test]
fn a_flood_uses_up_no_rate_limit() {
    let upstream = Upstream::start();
    let limit = "rate_limit: {fixed_window: {requests: 3, per: 1h}, key: route}";
    let gateway = guarded(&upstream, 2, "1h", limit);
    (0..5).for_each(|_| _ = from(&gateway, "192.0.2.1"));
    let others = [from(&gateway, "192.0.2.2"), from(&gateway, "192.0.2.2")];
    assert_eq!((others, upstream.count()), ([200, 429], 3));
}

#[test]
fn a_client_that_waits_as_told_is_admitted() {
    let upstream = Upstream::start();
    let gateway = guarded(&upstream, 1, "1s", "");
    let refused = (0..100).map(|_| gateway.get("/")).find(|answer| answer.status == 429);
    let wait = refused.expect("two requests within one second").retry_after();
    pass(Duration::from_secs(wait));
    assert_eq!(gateway.get("/").status, 200);
}

#[test]
fn a_preflight_is_not_counted() {
    let upstream = Upstream::start();
    let gateway = guarded(&upstream, 1, "1h", "cors: {origins: [\"http://a.example\"]}");
    let preflight = || {
        let call = Call::new("OPTIONS /").header("Origin", "http://a.example");
        gateway.call(call.header("Access-Control-Request-Method", "GET")).status
    };
    assert_eq!([preflight(), preflight(), gateway.get("/").status], [204, 204, 200]);
}

#[test]
fn a_reload_forgives_nothing() {
    let upstream = Upstream::start();
    let yaml = |more: &str| {
        format!(
            "flood_guard: {{requests: 1, per: 1h}}\nroutes: {{all: {{match: {{path: /*}}, upstream: service{more}}}}}"
        )
    };
    let gateway = Plan::new(&yaml("")).upstream(&upstream).start();
    assert_eq!(gateway.get("/").status, 200);
    assert!(gateway.reload(&yaml(", max_body: 1MiB")));
    assert_eq!(gateway.get("/").code(), "flood");
}

#[test]
fn refusals_are_counted_by_their_route() {
    let upstream = Upstream::start();
    let gateway = guarded(&upstream, 1, "1h", "");
    (0..3).for_each(|_| _ = gateway.get("/"));
    let labels = [("route", "all"), ("code", "flood")];
    crate::support::eventually("two counted refusals", || {
        (gateway.metric("portcullis_rejections_total", &labels) == 2.0).then_some(())
    });
}

#[test]
fn an_interval_too_short_to_count_in_is_refused() {
    let (code, log) = Plan::route("").section("flood_guard: {requests: 10, per: 100ms}").fails();
    assert_eq!(code, Some(1));
    assert!(log.contains("flood_guard.per: must be from 1s to 1h"), "{log}");
}
