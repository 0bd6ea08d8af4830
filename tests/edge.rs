//! The profile of an edge gateway, run as its users run it: by environment variables alone.

use serde_json::json;

use crate::support::{
    Answer, Call, Gateway, Issuer, Plan, Response, Store, Upstream, eventually, timed,
    wait_for_spans,
};

use std::path::Path;

/// Three services behind one gateway.
struct Edge {
    users: Upstream,
    orders: Upstream,
    catalog: Upstream,
    issuer: Issuer,
}

impl Edge {
    fn new() -> Self {
        Edge {
            users: Upstream::start().checked_at("/health"),
            orders: Upstream::start().checked_at("/health"),
            catalog: Upstream::start().checked_at("/health"),
            issuer: Issuer::start(),
        }
    }

    fn plan(&self) -> Plan {
        Plan::file(Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/edge.yaml"))
            .env("USER_SERVICE_URL", &self.users.url())
            .env("ORDER_SERVICE_URL", &self.orders.url())
            .env("CATALOG_SERVICE_URL", &self.catalog.url())
            .env("JWKS_URL", &self.issuer.url())
            .env("RETRY_DELAY_MS", "1")
    }

    fn start(&self) -> Gateway {
        self.plan().start()
    }

    /// A call of `ada`, with these scopes.
    fn call(&self, gateway: &Gateway, line: &str, scope: &str) -> Response {
        let token = self.issuer.token_with("ada", json!({ "scope": scope }));
        gateway.call(Call::new(line).bearer(&token))
    }

    fn counts(&self) -> [usize; 3] {
        [self.users.count(), self.orders.count(), self.catalog.count()]
    }
}

#[test]
fn the_most_specific_route_says_which_scopes_are_needed() {
    let edge = Edge::new();
    let gateway = edge.start();
    let status = |line: &str, scope: &str| edge.call(&gateway, line, scope).status;
    assert_eq!(status("GET /api/v1/users/me", ""), 200, "static before parameter");
    assert_eq!(status("GET /api/v1/users/7", ""), 403);
    assert_eq!(status("GET /api/v1/users/7", "users:read"), 200);
    assert_eq!(status("PUT /api/v1/users/7", "users:read"), 403);
    assert_eq!(status("PUT /api/v1/users/7", "users:read users:write"), 200);
    assert_eq!(status("GET /api/v1/users/7/sessions", "users:read users:write"), 403);
    assert_eq!(status("GET /api/v1/users/7/sessions", "users:admin"), 200, "the wildcard");
    assert_eq!(status("POST /api/v1/orders", "users:admin"), 403);
    assert_eq!(status("POST /api/v1/orders", "orders:admin"), 200, "any of two");
    assert_eq!(gateway.get("/api/v1/users/me").status, 401);
    assert_eq!(edge.counts(), [4, 1, 0]);
}

#[test]
fn parameters_go_into_the_path_and_prefixes_out_of_it() {
    let edge = Edge::new();
    let gateway = edge.start();
    edge.call(&gateway, "GET /api/v1/users/7/orders?open=1", "orders:read");
    edge.call(&gateway, "GET /api/v1/orders/9", "orders:read");
    assert_eq!(gateway.get("/api/v1/catalog/shoes").status, 200);
    let targets: Vec<_> = edge.orders.requests().into_iter().map(|r| r.target).collect();
    assert_eq!(targets, ["/orders/by-user/7?open=1", "/orders/9"]);
    assert_eq!(edge.catalog.only().target, "/catalog/shoes");
    assert_eq!(gateway.post("/api/v1/catalog/shoes", "{}").status, 405);
    assert_eq!(gateway.get("/api/v2/catalog/shoes").status, 404);
    assert_eq!(gateway.get("/health").status, 200);
}

#[test]
fn headers_are_rewritten_on_both_ways() {
    let edge = Edge::new();
    edge.catalog.answer_always(Answer::ok().header("Server", "x").header("X-Powered-By", "y"));
    let gateway = edge.start();
    let call = Call::new("GET /api/v1/catalog/1")
        .header("Cookie", "session=1")
        .header("X-User-Id", "root")
        .header("X-Request-Id", "r-1")
        .header("X-Forwarded-For", "192.0.2.7");
    let response = gateway.call(call);
    let request = edge.catalog.only();
    assert_eq!(request.header("x-gateway"), Some("edge"));
    assert_eq!((request.header("cookie"), request.header("x-user-id")), (None, None));
    assert_eq!(request.header("x-request-id"), Some("r-1"));
    assert_eq!(request.header("x-forwarded-for"), Some("192.0.2.7, 127.0.0.1"));
    assert_eq!(request.header("x-forwarded-proto"), Some("http"));
    assert_eq!(response.header("x-request-id"), Some("r-1"));
    let time = response.header("x-response-time").and_then(|time| time.strip_suffix("ms"));
    assert!(time.is_some_and(|time| time.parse::<u32>().is_ok()), "{time:?}");
    assert_eq!((response.header("server"), response.header("x-powered-by")), (None, None));
}

#[test]
fn every_answer_says_what_is_left_and_a_refusal_when_to_come_back() {
    let edge = Edge::new();
    let gateway = edge.plan().env("RATE_LIMIT", "2").env("RATE_WINDOW_MS", "3600000").start();
    let answers = [(); 3].map(|()| edge.call(&gateway, "GET /api/v1/users/me", ""));
    assert_eq!(answers.each_ref().map(|answer| answer.status), [200, 200, 429]);
    let remaining = answers.each_ref().map(|answer| answer.header("x-ratelimit-remaining"));
    assert_eq!(remaining, [Some("1"), Some("0"), Some("0")]);
    assert!(answers.iter().all(|answer| answer.header("x-ratelimit-limit") == Some("2")));
    assert!((1..=7200).contains(&answers[2].retry_after()));
    for answer in &answers {
        let reset = answer.header("x-ratelimit-reset").and_then(|reset| reset.parse::<u64>().ok());
        assert!(reset.is_some_and(|seconds| (1..=7200).contains(&seconds)), "{reset:?}");
    }
    // Another user, another route.
    let ben = edge.issuer.token("ben");
    assert_eq!(gateway.call(Call::new("GET /api/v1/users/me").bearer(&ben)).status, 200);
    assert_eq!(gateway.get("/api/v1/catalog/1").status, 200);
}

#[test]
fn a_browser_may_call_from_its_origin() {
    let edge = Edge::new();
    let gateway = edge.plan().env("CORS_ORIGIN", "http://shop.test").start();
    let preflight = Call::new("OPTIONS /api/v1/users/7")
        .header("Origin", "http://shop.test")
        .header("Access-Control-Request-Method", "PUT");
    let allowed = gateway.call(preflight);
    assert_eq!(allowed.header("access-control-allow-origin"), Some("http://shop.test"));
    assert_eq!(allowed.header("access-control-allow-credentials"), Some("true"));
    let call = Call::new("GET /api/v1/catalog/1").header("Origin", "http://evil.test");
    assert_eq!(gateway.call(call).header("access-control-allow-origin"), None);
    assert_eq!(edge.counts(), [0, 0, 1]);
}

#[test]
fn listed_statuses_are_tried_again_within_a_budget() {
    let edge = Edge::new();
    edge.catalog.answer_always(503);
    let gateway = edge.plan().env("CIRCUIT_FAILURES", "1000").env("CIRCUIT_MINIMUM_CALLS", "1000");
    let gateway = gateway.start();
    let (requests, took) = timed(|| {
        let statuses = [(); 30].map(|()| gateway.get("/api/v1/catalog/1").status);
        assert!(statuses.iter().all(|status| *status == 503));
        statuses.len()
    });
    let retries = edge.catalog.count() - requests;
    // Three a second, saved up for ten seconds; and a fifth of the requests.
    let granted = 30 + 3 * (took.as_secs() as usize + 1) + requests / 5;
    assert!(retries >= 3 && retries <= granted, "{retries} of {granted}");
    assert!(retries < 3 * requests, "not three for each");
    edge.users.answer_always(500);
    edge.call(&gateway, "GET /api/v1/users/me", "");
    assert_eq!(edge.users.count(), 1, "500 is not listed");
}

#[test]
fn a_failing_service_is_left_alone_for_a_while_and_the_others_are_not() {
    let edge = Edge::new();
    edge.catalog.answer_always(500);
    let gateway = edge.plan().env("CIRCUIT_OPEN_MS", "1000").start();
    let statuses = [(); 7].map(|()| gateway.get("/api/v1/catalog/1").status);
    assert_eq!(statuses, [500, 500, 500, 500, 500, 503, 503]);
    assert_eq!(edge.catalog.count(), 5);
    assert_eq!(edge.call(&gateway, "GET /api/v1/users/me", "").status, 200);
    edge.catalog.answer_always(200);
    eventually("a half-open circuit", || {
        let state = gateway.metric("portcullis_circuit_state", &[("name", "catalog-service")]);
        (state == 1.0).then_some(())
    });
    let statuses = [(); 4].map(|()| gateway.get("/api/v1/catalog/1").status);
    assert_eq!(statuses, [200; 4]);
}

#[test]
fn few_failures_among_few_calls_open_nothing() {
    let edge = Edge::new();
    let gateway = edge.start();
    let statuses = [500, 200, 500, 200, 500, 200].map(|status| {
        edge.catalog.answer_always(status);
        gateway.get("/api/v1/catalog/1").status
    });
    assert_eq!(statuses, [500, 200, 500, 200, 500, 200]);
}

#[test]
fn a_failure_rate_opens_the_circuit_once_there_are_enough_calls() {
    let edge = Edge::new();
    let gateway = edge.plan().env("CIRCUIT_MINIMUM_CALLS", "6").start();
    let statuses = [500, 200, 500, 200, 500, 200, 200].map(|status| {
        edge.catalog.answer_always(status);
        gateway.get("/api/v1/catalog/1").status
    });
    assert_eq!(statuses, [500, 200, 500, 200, 500, 200, 503]);
}

#[test]
fn bodies_are_bounded() {
    let edge = Edge::new();
    let gateway = edge.plan().env("MAX_BODY_BYTES", "1000").start();
    let token = edge.issuer.token_with("ada", json!({"scope": "orders:admin"}));
    let call = |size: usize| {
        let call = Call::new("POST /api/v1/orders").bearer(&token).body("x".repeat(size));
        gateway.call(call).status
    };
    assert_eq!((call(1000), call(1001)), (200, 413));
    assert_eq!(edge.counts(), [0, 1, 0]);
}

#[test]
fn a_service_gets_the_id_of_the_request_and_a_client_nothing_internal() {
    let mut edge = Edge::new();
    let users = Upstream::always(Answer::ok().header("X-Internal-Trace", "a.b.c"));
    edge.users = users.checked_at("/health");
    let gateway = edge.plan().env("TRUSTED_PROXIES", "127.0.0.1/32, 10.0.0.0/8").start();
    let token = edge.issuer.token_with("ada", json!({ "scopes": ["users:read"] }));
    let call = Call::new("GET /api/v1/users/7").header("X-Forwarded-For", "203.0.113.9");
    let call = call.header("X-Gateway-Request-Id", "forged").header("Cookie", "a=1");
    let response = gateway.call(call.bearer(&token));
    assert_eq!(response.status, 200, "the claim `scopes` counts");
    assert_eq!(response.header("x-internal-trace"), None);
    assert!(response.header("x-response-time").is_some());
    let request = edge.users.only();
    let id = response.header("x-request-id").expect("an id");
    assert_eq!(request.header("x-gateway-request-id"), Some(id));
    assert_eq!(request.header("cookie"), None);
    let row = &Store::Sqlite.wait_for_rows(&gateway, 1)[0];
    assert_eq!(row.text("client_address"), Some("203.0.113.9"));
}

#[test]
fn the_next_version_gets_its_share_and_those_who_ask_for_it() {
    let (edge, next) = (Edge::new(), Upstream::start().checked_at("/health"));
    let plan = |present: &str, share: &str| {
        let plan = edge.plan().env("CATALOG_NEXT_URL", &next.url());
        plan.env("CATALOG_WEIGHT", present).env("CATALOG_NEXT_WEIGHT", share).start()
    };
    let get = |gateway: &Gateway, path: &str, accept: &str| {
        let call = Call::new(&format!("GET /api/v1/catalog/{path}")).header("Accept", accept);
        assert_eq!(gateway.call(call).status, 200);
        (edge.catalog.count(), next.count())
    };
    let gateway = plan("100", "0");
    assert_eq!(get(&gateway, "1", "application/json"), (1, 0));
    assert_eq!(get(&gateway, "1", "application/vnd.api.v2+json"), (1, 1));
    assert_eq!(get(&gateway, "1?version=2", "application/json"), (1, 2));
    assert_eq!(get(&gateway, "1?version=2", "application/vnd.api.v2+json"), (1, 3));
    assert_eq!(next.requests()[1].target, "/catalog/1?version=2");
    assert_eq!(get(&plan("0", "100"), "1", "application/json"), (1, 4));
}

#[test]
fn a_request_is_traced() {
    let (edge, collector) = (Edge::new(), Upstream::start());
    let gateway = edge.plan().env("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url()).start();
    assert_eq!(gateway.get("/api/v1/catalog/1").status, 200);
    let spans = wait_for_spans(&collector, "edge-gateway", 2);
    assert!(spans.iter().any(|span| span.name.contains("/api/v1/catalog/*")), "{spans:#?}");
}

#[test]
fn instances_register_themselves_with_weights_and_get_requests_after_a_check_has_passed() {
    let edge = Edge::new();
    let gateway = edge.start();
    let other = Upstream::start().checked_at("/health");
    let path = "/upstreams/catalog-service/endpoints/catalog-2";
    let body = json!({ "address": other.address().to_string(), "weight": 3 });
    let registered = gateway.admin(Call::new(&format!("PUT {path}")).body(body.to_string()));
    assert_eq!(registered.status, 201);
    eventually("it gets requests", || {
        assert_eq!(gateway.get("/api/v1/catalog/7").status, 200);
        (other.count() > 0).then_some(())
    });
    let before = (edge.catalog.count(), other.count());
    for _ in 0..8 {
        assert_eq!(gateway.get("/api/v1/catalog/7").status, 200);
    }
    let shares = (edge.catalog.count() - before.0, other.count() - before.1);
    assert_eq!(shares, (2, 6), "by weight");
    assert_eq!(gateway.admin(Call::new(&format!("DELETE {path}"))).status, 204);
    let before = other.count();
    for _ in 0..4 {
        assert_eq!(gateway.get("/api/v1/catalog/7").status, 200);
    }
    assert_eq!(other.count(), before);
    let log = gateway.log();
    assert!(!log.contains("no instance is registered"), "they need not register: {log}");
}
