//! What one caller may hold of a route's slots, and take of its retries, so that it leaves something to
//! others: consumers of keys, services with certificates, and addresses.

use std::net::TcpStream;

use crate::callers::{Mesh, WEB, status};
use crate::support::{
    Answer, Call, Client, Gateway, H2Client, H2Upstream, Issuer, Plan, Reply, Upstream, at_once,
    connect_tls, eventually, frame, request, websocket,
};

const KEYS: &str =
    "auth: {partners: {api_key: {keys: {acme: acme-key-0123456789, umbra: umbra-key-0123456789}}}}";
const ACME: &str = "acme-key-0123456789";
const UMBRA: &str = "umbra-key-0123456789";
const TWO: &str =
    "auth: {require: partners}\nbulkhead: {max_in_flight: 9, per_consumer: {max_in_flight: 2}}";

fn by_key(call: &str, key: &str) -> Call {
    Call::new(call).header("X-Api-Key", key)
}

fn send(gateway: &Gateway, call: Call) -> Client {
    let mut client = gateway.connect();
    client.send(call.bytes());
    client
}

/// No caller holds anything.
#[track_caller]
fn assert_free(gateway: &Gateway) {
    eventually("all shares to be free", || {
        let bulkhead = &gateway.status()["routes"]["all"]["bulkhead"];
        (bulkhead["consumers"] == 0 && bulkhead["free"] == bulkhead["slots"]).then_some(())
    });
}

#[test]
fn a_caller_with_its_share_is_refused_and_others_are_served() {
    let upstream = Upstream::script([Answer::ok().held(), Answer::ok().held()]);
    let gateway = Plan::route(TWO).section(KEYS).upstream(&upstream).start();
    let mut held: Vec<_> = (0..2).map(|_| send(&gateway, by_key("GET /", ACME))).collect();
    upstream.wait_for(2);
    let refused = gateway.call(by_key("GET /", ACME));
    assert_eq!((refused.status, refused.code().as_str()), (429, "bulkhead_full"));
    assert_eq!(refused.header("retry-after"), None);
    assert_eq!(gateway.call(by_key("GET /", UMBRA)).status, 200);
    assert_eq!(upstream.count(), 3);
    eventually("one that still has something", || {
        (gateway.status()["routes"]["all"]["bulkhead"]["consumers"] == 1).then_some(())
    });
    let route = [("route", "all")];
    gateway.expect_metric("portcullis_bulkhead_consumers", &route, 1.0);
    gateway.expect_metric("portcullis_bulkhead_consumer_full_total", &route, 1.0);
    let lines = gateway.wait_for_access_lines(1);
    let line = lines.iter().find(|line| line["portcullis.cause"] == "bulkhead_full");
    let line = line.expect("a line");
    assert_eq!(
        line["portcullis.error"],
        "the caller has all under way that it may have at once: 2"
    );
    assert_eq!(line["portcullis.limit"], "bulkhead.per_consumer.max_in_flight");
    upstream.release();
    assert!(held.iter_mut().all(|client| client.receive().status == 200));
    assert_free(&gateway);
    assert_eq!(gateway.call(by_key("GET /", ACME)).status, 200);
}

#[test]
fn a_caller_beyond_its_share_does_not_go_on_at_the_fallback() {
    let upstream = Upstream::script([Answer::ok().held(), Answer::ok().held()]);
    let instead = Upstream::start();
    let fallback = format!(
        "{TWO}\nfallback: {{on: [bulkhead_full], upstream: instead, json: {{status: 200, body: {{}}}}}}"
    );
    let more = format!("  instead: {{endpoints: ['{}']}}", instead.url());
    let plan = Plan::route(&fallback)
        .section(KEYS)
        .section(&format!("upstreams:\n  service: {{endpoints: [\"${{UPSTREAM}}\"]}}\n{more}"));
    let gateway = plan.upstream(&upstream).start();
    let held = [(); 2].map(|()| send(&gateway, by_key("GET /", ACME)));
    upstream.wait_for(2);
    let refused = gateway.call(by_key("GET /", ACME));
    assert_eq!((refused.status, refused.code().as_str()), (429, "bulkhead_full"));
    assert_eq!(instead.count(), 0);
    upstream.release();
    drop::<[Client; 2]>(held);
    assert_free(&gateway);
}

#[test]
fn a_share_comes_back_however_a_request_ends() {
    let one = "bulkhead: {max_in_flight: 9, per_consumer: {max_in_flight: 1}}";
    let upstream = Upstream::start();
    let gateway = Gateway::route(&upstream, &format!("{one}\ntimeout: {{attempt: 200ms}}"));
    for answer in [Answer::reset(), Answer::close(), Answer::truncated("x", 9), Answer::hang()] {
        upstream.answer_always(answer);
        // Some of them are cut off.
        _ = send(&gateway, Call::new("GET /")).try_receive("GET");
        assert_free(&gateway);
    }
    let gateway = Gateway::route(&upstream, one);
    upstream.answer_always(Answer::hold_body());
    let mut leaves = send(&gateway, Call::new("GET /"));
    assert_eq!(leaves.receive_head().status, 200);
    assert_eq!(gateway.get("/").code(), "bulkhead_full");
    leaves.vanish();
    assert_free(&gateway);
}

#[test]
fn a_websocket_holds_its_callers_share_until_it_is_closed() {
    let (address, _heads) = websocket::echo();
    let one = "websocket: {}\nbulkhead: {max_in_flight: 9, per_consumer: {max_in_flight: 1}}";
    let gateway = Plan::route(one).env("UPSTREAM", &format!("http://{address}")).start();
    let mut socket: TcpStream = websocket::open(gateway.address, "/chat");
    assert!(websocket::echoes(&mut socket, "one"));
    assert_eq!(gateway.get("/chat").code(), "bulkhead_full");
    drop(socket);
    assert_free(&gateway);
}

/// Anonymous requests count by address, as in rate limits; all clients here have one.
#[test]
fn anonymous_requests_have_the_share_of_their_address() {
    let upstream = Upstream::script([Answer::ok().held()]);
    let route = "bulkhead: {max_in_flight: 9, per_consumer: {max_in_flight: 1}}";
    let server = "client_address: {trusted_proxies: [127.0.0.0/8]}";
    let gateway = Plan::route(route).section(server).upstream(&upstream).start();
    let from = |address: &str| Call::new("GET /").header("X-Forwarded-For", address);
    let mut first = send(&gateway, from("203.0.113.7"));
    upstream.wait_for(1);
    assert_eq!(gateway.call(from("203.0.113.7")).code(), "bulkhead_full");
    assert_eq!(gateway.call(from("203.0.113.8")).status, 200);
    upstream.release();
    assert_eq!(first.receive().status, 200);
}

#[test]
fn one_that_waits_counts_and_one_beyond_its_share_does_not_wait() {
    let upstream = Upstream::script([Answer::ok().held()]);
    let route = "auth: {require: partners}\n\
                 bulkhead: {max_in_flight: 1, queue: {max: 9, max_wait: 30s}, per_consumer: {max_in_flight: 2}}";
    let gateway = Plan::route(route).section(KEYS).upstream(&upstream).start();
    let mut first = send(&gateway, by_key("GET /", ACME));
    upstream.wait_for(1);
    let mut waits = send(&gateway, by_key("GET /", ACME));
    let waiting = |count: u64| {
        eventually("requests that wait", || {
            (gateway.status()["routes"]["all"]["bulkhead"]["waiting"] == count).then_some(())
        });
    };
    waiting(1);
    assert_eq!(gateway.call(by_key("GET /", ACME)).code(), "bulkhead_full");
    let mut other = send(&gateway, by_key("GET /", UMBRA));
    waiting(2);
    upstream.release();
    for client in [&mut first, &mut waits, &mut other] {
        assert_eq!(client.receive().status, 200);
    }
    assert_free(&gateway);
    assert_eq!(upstream.count(), 3);
}

#[test]
fn a_dry_run_counts_what_it_would_refuse_and_serves_it() {
    let upstream = Upstream::script([Answer::ok().held()]);
    let route = "bulkhead: {max_in_flight: 9, enforce: false, per_consumer: {max_in_flight: 1}}";
    let gateway = Gateway::route(&upstream, route);
    let mut first = send(&gateway, Call::new("GET /"));
    upstream.wait_for(1);
    assert_eq!(gateway.get("/").status, 200);
    eventually("it would be refused", || {
        let labels = [("route", "all"), ("code", "bulkhead_full")];
        (gateway.metric("portcullis_would_refuse_total", &labels) == 1.0).then_some(())
    });
    upstream.release();
    assert_eq!(first.receive().status, 200);
    assert_free(&gateway);
}

#[test]
fn a_reload_keeps_what_callers_hold() {
    let upstream = Upstream::script([Answer::ok().held()]);
    let plan = |most: u32| {
        let route = format!(
            "auth: {{require: partners}}\nbulkhead: {{max_in_flight: 9, per_consumer: {{max_in_flight: {most}}}}}"
        );
        Plan::route(&route).section(KEYS).upstream(&upstream)
    };
    let gateway = plan(1).start();
    let mut first = send(&gateway, by_key("GET /", ACME));
    upstream.wait_for(1);
    assert!(gateway.reload_plan(&plan(1).section("log: {level: warn}")));
    assert_eq!(gateway.call(by_key("GET /", ACME)).code(), "bulkhead_full");
    assert!(gateway.reload_plan(&plan(2)));
    assert_eq!(gateway.call(by_key("GET /", ACME)).status, 200);
    upstream.release();
    assert_eq!(first.receive().status, 200);
    assert_free(&gateway);
}

#[test]
fn a_service_in_the_mesh_has_a_share_by_its_name_over_grpc() {
    let mesh = Mesh::new();
    let upstream = H2Upstream::always(Reply::grpc(b"x", 0).held());
    let route =
        "auth: {require: mesh}\nbulkhead: {max_in_flight: 9, per_consumer: {max_in_flight: 1}}";
    let gateway = mesh.plan("", "", route).h2_upstream(&upstream).start();
    let call = |uri: &str| {
        // Two certificates of one name are one caller.
        let own = mesh.of(uri);
        let stream = connect_tls(gateway.address, "one.test", &mesh.ours, Some(&own), "h2");
        let client = H2Client::over(async { stream.expect("a handshake") });
        let head = request("POST", "/s.S/M").header("content-type", "application/grpc");
        let mut call = client.open(head.header("te", "trailers").body(()).expect("a call"), false);
        call.send(&frame(b"x"), true);
        (client, call)
    };
    let (_first, held) = call(WEB);
    upstream.wait_for(1);
    let (_second, refused) = call(WEB);
    assert_eq!(refused.finish().status_field("grpc-status"), Some("8"));
    let (_third, other) = call("spiffe://prod/ns/shop/sa/other");
    upstream.wait_for(2);
    upstream.release();
    for call in [held, other] {
        assert_eq!(call.finish().status_field("grpc-status"), Some("0"));
    }
    assert_free(&gateway);
}

/// Thousands of consumers, whose names a trusted proxy says, and places for a few.
#[test]
fn a_flood_of_callers_stays_within_the_bounds() {
    let upstream = Upstream::start();
    let route = "auth: {require: mesh}\n\
        bulkhead: {max_in_flight: 99, per_consumer: {max_in_flight: 9, max_keys: 2}}\n\
        retry: {max_retries: 1, on: [503], budget: own, backoff: {base: 0}}";
    let plan = Plan::route(route)
        .section("auth: {mesh: {client_certificate: {from_proxies: true}}}")
        .section("client_address: {trusted_proxies: [127.0.0.0/8]}")
        .section("retry_budgets: {own: {ratio: {ttl: 60s}, per: consumer, max_keys: 100}}");
    let gateway = plan.upstream(&upstream).start();
    at_once(0..4, |part| {
        let mut client = gateway.connect();
        for caller in (0..5000).skip(part).step_by(4) {
            let field = format!("URI=spiffe://prod/c/{caller}");
            let call = Call::new("GET /").header("X-Forwarded-Client-Cert", &field);
            assert_eq!(client.call(&call).status, 200);
        }
    });
    gateway.expect_metric("portcullis_retry_budget_consumers", &[("budget", "own")], 100.0);
    assert_free(&gateway);
}

const RETRY: &str = "retry: {max_retries: 3, on: [503], budget: own, backoff: {base: 0}}";

#[test]
fn one_callers_retries_leave_those_of_others() {
    let upstream = Upstream::always(503);
    let budget = "retry_budgets: {own: {token_bucket: {capacity: 2, refill_per_second: 0.001}, per: consumer}}";
    let plan = || {
        let route = format!("auth: {{require: partners}}\n{RETRY}");
        Plan::route(&route).section(KEYS).section(budget).upstream(&upstream)
    };
    let gateway = plan().start();
    let attempts = |key: &str| {
        let before = upstream.count();
        assert_eq!(gateway.call(by_key("GET /", key)).status, 503);
        upstream.count() - before
    };
    assert_eq!([attempts(ACME), attempts(ACME)], [3, 1]);
    assert_eq!([attempts(UMBRA), attempts(UMBRA), attempts(ACME)], [3, 1, 1]);
    let of = |name: &str| {
        gateway.metric(&format!("portcullis_retry_budget_{name}"), &[("budget", "own")])
    };
    assert_eq!([of("withdrawn_total"), of("refused_total"), of("consumers")], [4.0, 5.0, 2.0]);
    // A reload that does not change it keeps what was taken.
    assert!(gateway.reload_plan(&plan().section("log: {level: warn}")));
    assert_eq!([attempts(UMBRA), attempts(ACME)], [1, 1]);
}

#[test]
fn callers_beyond_the_table_share_one_budget() {
    let upstream = Upstream::always(503);
    let budget = "retry_budgets: {own: {ratio: {share: 0%, min_per_second: 1, ttl: 2s}, per: consumer, max_keys: 1}}";
    let server = "client_address: {trusted_proxies: [127.0.0.0/8]}";
    let gateway = Plan::route(RETRY).section(budget).section(server).upstream(&upstream).start();
    let attempts = |last: u8| {
        let before = upstream.count();
        let call = Call::new("GET /").header("X-Forwarded-For", &format!("203.0.113.{last}"));
        assert_eq!(gateway.call(call).status, 503);
        upstream.count() - before
    };
    assert_eq!(attempts(1), 3, "its own");
    assert_eq!([attempts(2), attempts(3)], [3, 1], "these have one together");
}

#[test]
fn a_key_a_token_and_a_certificate_of_one_name_are_three_callers() {
    let (issuer, upstream) = (Issuer::start(), Upstream::start());
    let jwt = "jwt: {issuer: auth-service, audience: any, algorithms: [RS256], jwks: {url: '${JWKS_URL}'}}";
    let auth = format!(
        "auth: {{accounts: {{{jwt}}}, mesh: {{client_certificate: {{from_proxies: true}}}}, \
         partners: {{api_key: {{keys: {{acme: {ACME}}}}}}}}}"
    );
    let route = "auth: {require: [mesh, accounts, partners]}\n\
        rate_limit: {fixed_window: {requests: 1, per: 1h}, key: consumer}";
    let server = "client_address: {trusted_proxies: [127.0.0.0/8]}";
    let plan = Plan::route(route).section(&auth).section(server).upstream(&upstream);
    let gateway = plan.env("JWKS_URL", &issuer.url()).start();
    for call in [
        by_key("GET /", ACME),
        Call::new("GET /").bearer(&issuer.token("acme")),
        Call::new("GET /").header("X-Forwarded-Client-Cert", "DNS=acme"),
    ] {
        assert_eq!(gateway.call(call.clone()).status, 200);
        assert_eq!(gateway.call(call).status, 429);
    }
}

#[test]
fn limits_after_the_credentials_know_the_name_in_the_certificate() {
    let (mesh, upstream) = (Mesh::new(), Upstream::start());
    // The permit refuses before the limit counts.
    let route = "auth: {require: mesh, permit: [{callers: 'spiffe://prod/*', paths: /orders}]}\n\
        rate_limit: {fixed_window: {requests: 1, per: 1h}}";
    let gateway = mesh.plan("", "", route).upstream(&upstream).start();
    let statuses =
        [WEB, "spiffe://test/a", WEB, "spiffe://test/a", "spiffe://prod/other"].map(|uri| {
            let answer = mesh.call(&gateway, Some(&mesh.of(uri)), "").expect("an answer");
            status(&answer).to_owned()
        });
    assert_eq!(statuses, ["200", "403", "429", "403", "200"]);
}
