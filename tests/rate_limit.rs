//! How many requests a consumer gets through, and what the others are told.

use std::time::Duration;

use crate::support::{Call, Gateway, Plan, Upstream, pass};

const KEYS: &str = "auth: {partners: {api_key: {header: X-Api-Key, keys: {acme: acme-key-0123456789, umbra: umbra-key-0123456789}}}}";

fn limited(upstream: &Upstream, limit: &str) -> Gateway {
    Gateway::route(upstream, &format!("rate_limit: {limit}"))
}

#[test]
fn exactly_as_many_requests_as_allowed_reach_the_upstream() {
    let upstream = Upstream::start();
    let gateway = limited(&upstream, "{fixed_window: {requests: 20, per: 1m}}");
    let admitted: usize = std::thread::scope(|scope| {
        let callers: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    let mut client = gateway.connect();
                    (0..10).filter(|_| client.call(&"GET /".into()).status == 200).count()
                })
            })
            .collect();
        callers.into_iter().map(|caller| caller.join().expect("a caller")).sum()
    });
    assert_eq!((admitted, upstream.count()), (20, 20));
}

#[test]
fn a_refusal_says_when_the_window_ends_in_whole_seconds() {
    let upstream = Upstream::start();
    let gateway = limited(&upstream, "{fixed_window: {requests: 1, per: 30s}}");
    assert_eq!(gateway.get("/").status, 200);
    let refused = gateway.get("/");
    assert_eq!((refused.status, refused.code().as_str()), (429, "rate_limited"));
    assert!((29..=30).contains(&refused.retry_after()), "{}", refused.retry_after());
    assert_eq!(upstream.count(), 1);
}

#[test]
fn who_waits_as_told_is_admitted() {
    let upstream = Upstream::start();
    let gateway = limited(&upstream, "{fixed_window: {requests: 1, per: 1s}}");
    assert_eq!(gateway.get("/").status, 200);
    let refused = gateway.get("/");
    pass(Duration::from_secs(refused.retry_after()));
    assert_eq!(gateway.get("/").status, 200);
}

#[test]
fn every_consumer_has_its_own_count() {
    let upstream = Upstream::start();
    let route = "auth: {require: partners}\nrate_limit: {fixed_window: {requests: 2, per: 1m}, key: consumer}";
    let gateway = Plan::route(route).section(KEYS).upstream(&upstream).start();
    let call = |key: &str| gateway.call(Call::new("GET /").header("X-Api-Key", key)).status;
    let acme: Vec<_> = (0..3).map(|_| call("acme-key-0123456789")).collect();
    let umbra: Vec<_> = (0..3).map(|_| call("umbra-key-0123456789")).collect();
    assert_eq!((acme, umbra), (vec![200, 200, 429], vec![200, 200, 429]));
}

#[test]
fn a_refused_credential_costs_no_consumer_anything() {
    let upstream = Upstream::start();
    let route = "auth: {require: partners}\nrate_limit: {fixed_window: {requests: 1, per: 1m}, key: consumer}";
    let gateway = Plan::route(route).section(KEYS).upstream(&upstream).start();
    let call = |key: &str| gateway.call(Call::new("GET /").header("X-Api-Key", key)).status;
    assert_eq!([call("wrong"), call("wrong"), call("acme-key-0123456789")], [401, 401, 200]);
}

#[test]
fn every_client_address_has_its_own_count() {
    let upstream = Upstream::start();
    let route = "rate_limit: {fixed_window: {requests: 1, per: 1m}, key: client_address}";
    let trusted = "client_address: {trusted_proxies: [127.0.0.0/8]}";
    let gateway = Plan::route(route).section(trusted).upstream(&upstream).start();
    let call =
        |address: &str| gateway.call(Call::new("GET /").header("X-Forwarded-For", address)).status;
    assert_eq!([call("192.0.2.1"), call("192.0.2.1"), call("192.0.2.2")], [200, 429, 200]);
}

#[test]
fn a_made_up_address_escapes_no_limit() {
    let upstream = Upstream::start();
    let gateway = limited(&upstream, "{fixed_window: {requests: 1, per: 1m}, key: client_address}");
    let call =
        |address: &str| gateway.call(Call::new("GET /").header("X-Forwarded-For", address)).status;
    assert_eq!([call("192.0.2.1"), call("192.0.2.2")], [200, 429]);
}

#[test]
fn every_route_counts_for_itself() {
    let upstream = Upstream::start();
    let yaml = "
routes:
  a: {match: {path: /a}, upstream: service, rate_limit: {fixed_window: {requests: 1, per: 1m}}}
  b: {match: {path: /b}, upstream: service, rate_limit: {fixed_window: {requests: 1, per: 1m}}}
";
    let gateway = Plan::new(yaml).upstream(&upstream).start();
    let statuses = ["/a", "/a", "/b", "/b"].map(|path| gateway.get(path).status);
    assert_eq!(statuses, [200, 429, 200, 429]);
}
