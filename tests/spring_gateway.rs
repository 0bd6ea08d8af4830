//! The profile of a Spring Cloud Gateway, run as its users run it: by environment variables alone.

use std::path::Path;
use std::time::Duration;

use serde_json::json;

use crate::support::{
    Answer, Call, Gateway, Issuer, Plan, Redis, Response, Store, Upstream, eventually, timed,
    unix_now, wait_for_spans,
};

/// The routes below `/api/v1`, and the name of each one's service.
const SERVICES: [(&str, &str); 5] = [
    ("users", "User"),
    ("orders", "Order"),
    ("products", "Product"),
    ("notifications", "Notification"),
    ("auth", "Auth"),
];

/// Every service that the tests call is this upstream.
fn start(upstream: &Upstream) -> (Gateway, Issuer) {
    let issuer = Issuer::start();
    (plan(upstream, &issuer).start(), issuer)
}

fn plan(upstream: &Upstream, issuer: &Issuer) -> Plan {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/spring-gateway.yaml");
    Plan::file(file)
        .env("USER_SERVICE_URL", &upstream.url())
        .env("ORDER_SERVICE_URL", &upstream.url())
        .env("PRODUCT_SERVICE_URL", &upstream.url())
        .env("AUTH_SERVICE_URL", &upstream.url())
        .env("NOTIFICATION_SERVICE_URL", &upstream.url())
        .env("JWKS_URL", &issuer.url())
}

/// Of the issuer that the profile names.
fn token(issuer: &Issuer, user: &str) -> String {
    issuer.token_with(user, json!({"iss": "http://auth-service"}))
}

fn call(gateway: &Gateway, issuer: &Issuer, line: &str) -> Response {
    gateway.call(Call::new(line).bearer(&token(issuer, "ada")))
}

#[track_caller]
fn assert_fallback(response: &Response, name: &str) {
    let json = response.json();
    assert_eq!((response.status, &json["status"]), (503, &"fallback".into()));
    assert_eq!(json["service"], format!("{}-service", name.to_lowercase()));
    assert_eq!(json["message"], format!("{name} service is temporarily unavailable"));
    let milliseconds = json["timestamp"].as_u64().expect("milliseconds");
    assert!(milliseconds.abs_diff(unix_now() * 1000) < 60_000, "{json}");
}

/// What a response says is left of the user's burst, beside the two fields that are always the same; `None`
/// if it has none of the three.
#[track_caller]
fn left(response: &Response) -> Option<u32> {
    let header = |name: &str| response.header(&format!("x-ratelimit-{name}"));
    assert_eq!(header("limit"), None);
    let others = (header("burst-capacity"), header("replenish-rate"));
    let Some(remaining) = header("remaining") else {
        assert_eq!(others, (None, None));
        return None;
    };
    assert_eq!(others, (Some("20"), Some("10")));
    Some(remaining.parse().expect("a number"))
}

#[test]
fn a_service_is_found_by_its_id_and_by_none_that_is_not_listed() {
    let upstream = Upstream::start();
    let (gateway, issuer) = start(&upstream);
    assert_eq!(call(&gateway, &issuer, "GET /order-service/orders/7?full=1").status, 200);
    assert_eq!(upstream.only().target, "/orders/7?full=1");
    assert_eq!(gateway.get("/order-service/orders/7").status, 401);
    let unknown = call(&gateway, &issuer, "GET /billing-service/bills/7");
    assert_eq!((unknown.status, unknown.code().as_str()), (404, "no_route"));
    assert_eq!(upstream.count(), 1);
}

#[test]
fn a_path_goes_to_its_service_without_its_first_two_segments() {
    let upstream = Upstream::start();
    let (gateway, issuer) = start(&upstream);
    for (n, (path, name)) in SERVICES.into_iter().enumerate() {
        let line = format!("GET /api/v1/{path}/7?full=1");
        let spoofed = Call::new(&line).header("X-User-ID", "root");
        let response = gateway.call(spoofed.bearer(&token(&issuer, "ada")));
        assert_eq!(response.status, 200, "{path}");
        let request = &upstream.wait_for(n + 1)[n];
        assert_eq!(request.target, format!("/{path}/7?full=1"));
        let user = (path != "auth").then_some("ada");
        assert_eq!(request.header("x-user-id"), user, "{path}");
        assert_eq!(request.header("x-request-id"), response.header("x-request-id"));
        for (_, other) in SERVICES {
            let own = (other == name).then_some("Gateway");
            let told = request.header(&format!("x-request-{other}-service"));
            assert_eq!(told, own, "{path}: {other}");
            let told = response.header(&format!("x-response-{other}-service"));
            assert_eq!(told, own, "{path}: {other}");
        }
    }
}

#[test]
fn each_side_is_told_the_gateway_s_time() {
    let upstream = Upstream::always(Answer::ok().after(Duration::from_millis(50)));
    let (gateway, issuer) = start(&upstream);
    let before = unix_now();
    let spoofed = Call::new("GET /api/v1/users/7").header("X-Gateway-Timestamp", "0");
    let response = gateway.call(spoofed.bearer(&token(&issuer, "ada")));
    let sent: u64 = upstream
        .only()
        .header("x-gateway-timestamp")
        .and_then(|ms| ms.parse().ok())
        .expect("a time");
    assert!((before * 1000..=(unix_now() + 1) * 1000).contains(&sent), "{sent}");
    let took = response.header("x-gateway-response-time").and_then(|time| time.strip_suffix("ms"));
    let took: u64 = took.and_then(|ms| ms.parse().ok()).expect("a duration");
    assert!((50..5000).contains(&took), "{took}");
}

#[test]
fn auth_and_health_are_open_and_the_rest_is_not() {
    let upstream = Upstream::start();
    let (gateway, _issuer) = start(&upstream);
    assert_eq!(gateway.get("/api/v1/users/7").status, 401);
    assert_eq!(gateway.post("/api/v1/auth/login", "{}").status, 200);
    assert_eq!(gateway.get("/health/users").status, 200);
    assert_eq!(gateway.get("/healthz").status, 200);
    let targets: Vec<_> = upstream.requests().into_iter().map(|r| r.target).collect();
    assert_eq!(targets, ["/auth/login", "/users"]);
}

#[test]
fn a_failure_is_tried_four_times_and_then_answered_by_the_fallback() {
    let upstream = Upstream::always(500);
    let (gateway, issuer) = start(&upstream);
    let (response, took) = timed(|| call(&gateway, &issuer, "GET /api/v1/users/7"));
    assert_fallback(&response, "User");
    assert_eq!(upstream.count(), 4);
    // 100 + 200 + 400 ms.
    assert!(took >= Duration::from_millis(695), "took {took:?}");
    assert_fallback(&call(&gateway, &issuer, "POST /api/v1/users"), "User");
    assert_eq!(upstream.count(), 5, "a POST is sent once");
}

#[test]
fn each_fallback_names_its_service_and_says_what_is_left_of_the_limit() {
    let upstream = Upstream::always(500);
    let (gateway, issuer) = start(&upstream);
    for (path, name) in SERVICES {
        let response = call(&gateway, &issuer, &format!("POST /api/v1/{path}"));
        assert_fallback(&response, name);
        let left = left(&response);
        match path {
            "auth" => assert_eq!(left, None, "it has no limit"),
            _ => assert!(left.is_some_and(|left| left < 20), "{path}: {left:?}"),
        }
    }
}

#[test]
fn five_failed_requests_open_the_circuit_of_their_route() {
    let upstream = Upstream::always(Answer::from(500));
    let (gateway, issuer) = start(&upstream);
    for _ in 0..5 {
        assert_fallback(&call(&gateway, &issuer, "POST /api/v1/users"), "User");
    }
    eventually("an open circuit", || {
        (gateway.status()["routes"]["users"]["circuit"]["state"] == "open").then_some(())
    });
    let refused = call(&gateway, &issuer, "POST /api/v1/users");
    assert_fallback(&refused, "User");
    assert!(left(&refused).is_some(), "what is left is on this response too");
    assert!((1..=5).contains(&refused.retry_after()));
    assert_eq!(upstream.count(), 5);
    assert_eq!(gateway.get("/health/users").status, 500, "what the service says itself");
}

#[test]
fn a_user_has_a_burst_of_twenty_and_every_answer_says_what_is_left() {
    let upstream = Upstream::start();
    let (gateway, issuer) = start(&upstream);
    let (responses, took) = timed(|| {
        let call = |_| call(&gateway, &issuer, "GET /api/v1/notifications");
        (0..60).map(call).collect::<Vec<_>>()
    });
    let statuses: Vec<_> = responses.iter().map(|response| response.status).collect();
    assert_eq!(statuses[..20], [200; 20]);
    assert!(statuses.contains(&429), "{statuses:?} in {took:?}");
    for response in &responses {
        let left = left(response).expect("what is left");
        assert!(left < 20 && (response.status == 200 || left == 0), "{left}");
    }
    let other = Call::new("GET /api/v1/notifications").bearer(&token(&issuer, "grace"));
    assert_eq!(gateway.call(other).status, 200);
}

#[test]
fn a_service_gets_no_more_than_its_own_limit_whoever_asks() {
    let upstream = Upstream::start();
    let (gateway, issuer) = start(&upstream);
    let (responses, took) = timed(|| {
        let call = |n: usize| {
            let user = if n.is_multiple_of(2) { "ada" } else { "grace" };
            gateway.call(Call::new("GET /api/v1/users/7").bearer(&token(&issuer, user)))
        };
        (0..40).map(call).collect::<Vec<_>>()
    });
    // Twenty requests of each user, which is a burst: no refusal is for the user's own limit.
    assert!(responses.iter().all(|response| left(response).is_some_and(|left| left <= 20)));
    let mut refused = responses.iter().filter(|response| response.status == 429);
    assert!(refused.all(|response| left(response) > Some(0)), "{responses:?}");
    let statuses: Vec<_> = responses.iter().map(|response| response.status).collect();
    let admitted = statuses.iter().filter(|status| **status == 200).count();
    // Ten in each window that was touched.
    let most = 10 * (2 + took.as_secs() as usize);
    assert!((10..=most).contains(&admitted), "{admitted} in {took:?}");
    assert!(statuses.iter().all(|status| [200, 429].contains(status)), "{statuses:?}");
}

/// How many requests of different users a service gets in a second that has just begun.
fn in_one_second(gateway: &Gateway, issuer: &Issuer, path: &str, limit: usize) -> usize {
    let mut user = 0;
    let mut admitted = || {
        user += 1;
        let call = Call::new(&format!("GET {path}")).bearer(&token(issuer, &format!("u-{user}")));
        gateway.call(call).status == 200
    };
    eventually("a second that was not over before its requests were", || {
        let count = (0..).take_while(|_| admitted()).count();
        // None: the second before is not over. More: another second has begun meanwhile.
        assert!(count == 0 || count >= limit, "{path}: {count}");
        (count == limit).then_some(count)
    })
}

#[test]
fn orders_have_twenty_a_second_products_fifteen_and_users_ten() {
    let upstream = Upstream::start();
    let (gateway, issuer) = start(&upstream);
    for (path, limit) in
        [("/api/v1/orders/7", 20), ("/api/v1/products/7", 15), ("/api/v1/users/7", 10)]
    {
        assert_eq!(in_one_second(&gateway, &issuer, path, limit), limit, "{path}");
    }
}

#[test]
fn a_token_of_another_issuer_is_refused_unless_it_is_the_configured_one() {
    let upstream = Upstream::start();
    let issuer = Issuer::start();
    let by_default = plan(&upstream, &issuer).start();
    let configured = plan(&upstream, &issuer).env("JWT_ISSUER", "auth-service").start();
    let call = |gateway: &Gateway, iss: &str| {
        let token = issuer.token_with("ada", json!({ "iss": iss }));
        gateway.call(Call::new("GET /api/v1/users/7").bearer(&token)).status
    };
    for (issuer, expected) in [("http://auth-service", (200, 401)), ("auth-service", (401, 200))] {
        assert_eq!((call(&by_default, issuer), call(&configured, issuer)), expected, "{issuer}");
    }
    assert_eq!(upstream.count(), 2);
}

#[test]
fn every_request_has_a_line_with_method_path_id_user_and_status() {
    let upstream = Upstream::start();
    let (gateway, issuer) = start(&upstream);
    let named = Call::new("POST /api/v1/users/7?full=1").header("X-Request-ID", "r-1").json("{}");
    assert_eq!(gateway.call(named.bearer(&token(&issuer, "ada"))).status, 200);
    assert_eq!(
        gateway.call(Call::new("GET /api/v1/orders").header("X-Request-ID", "r-2")).status,
        401
    );
    assert_eq!(
        gateway.call(Call::new("GET /health/users").header("X-Request-ID", "r-3")).status,
        200
    );
    let lines = gateway.wait_for_access_lines(3);
    let expected = [
        ("r-1", "POST", "/api/v1/users/7", Some("ada"), 200),
        ("r-2", "GET", "/api/v1/orders", None, 401),
        ("r-3", "GET", "/health/users", None, 200),
    ];
    for (id, method, path, user, status) in expected {
        let line = lines.iter().find(|line| line["portcullis.request_id"] == id);
        let line = line.unwrap_or_else(|| panic!("no line of {id}: {lines:#?}"));
        assert_eq!(line["http.request.method"], method, "{line:#}");
        assert_eq!(line["url.path"], path, "{line:#}");
        assert_eq!(line["portcullis.consumer"].as_str(), user, "{line:#}");
        assert_eq!(line["http.response.status_code"], status, "{line:#}");
        assert!(line["portcullis.duration_us"].is_u64(), "{line:#}");
    }
}

#[test]
fn a_request_is_recorded_with_its_client_and_traced() {
    let (upstream, collector) = (Upstream::start(), Upstream::start());
    let issuer = Issuer::start();
    let gateway = plan(&upstream, &issuer)
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url())
        .env("TRUSTED_PROXIES", "127.0.0.1/32")
        .start();
    let call = Call::new("GET /api/v1/orders/7").header("X-Forwarded-For", "203.0.113.9");
    assert_eq!(gateway.call(call.bearer(&token(&issuer, "ada"))).status, 200);
    let row = &Store::Sqlite.wait_for_rows(&gateway, 1)[0];
    assert_eq!((row.text("route"), row.text("consumer")), (Some("orders"), Some("ada")));
    assert_eq!((row.text("path"), row.number("status")), (Some("/api/v1/orders/7"), 200));
    assert_eq!(row.text("client_address"), Some("203.0.113.9"));
    // The request, and its one attempt.
    let spans = wait_for_spans(&collector, "api-gateway", 2);
    assert!(spans.iter().any(|span| span.name.contains("/api/v1/orders/*")), "{spans:#?}");
    assert!(spans.iter().all(|span| span.trace_id == spans[0].trace_id));
}

#[test]
fn no_limit_is_on_the_way_to_a_token_and_circuits_are_part_of_the_health() {
    let upstream = Upstream::start();
    let (gateway, _issuer) = start(&upstream);
    for _ in 0..40 {
        assert_eq!(gateway.post("/api/v1/auth/login", "{}").status, 200);
    }
    let health = gateway.get("/healthz");
    assert_eq!(health.status, 200);
    assert_eq!(
        health.json()["circuits"]["routes"]["users"]["state"],
        "closed",
        "{}",
        health.text()
    );
}

#[test]
fn with_redis_a_user_has_one_burst_on_all_gateways() {
    let Some(redis) = Redis::start() else { return };
    let upstream = Upstream::start();
    let issuer = Issuer::start();
    // Patient: a busy machine is not what is tested.
    let start = || {
        let plan = plan(&upstream, &issuer).env("REDIS_URL", &redis.url());
        plan.env("REDIS_TIMEOUT", "1s").start()
    };
    let gateways = [(); 2].map(|()| start());
    for gateway in &gateways {
        let up = || gateway.metric("portcullis_rate_limit_store_up", &[]) > 0.0;
        eventually("Redis", || up().then_some(()));
    }
    let (admitted, took) = timed(|| {
        let call = |n: usize| call(&gateways[n % 2], &issuer, "GET /api/v1/notifications");
        (0..60).filter(|n| call(*n).status == 200).count()
    });
    // The burst, and the rate for as long as it took.
    let most = 20 + took.as_millis() as usize / 100 + 1;
    assert!((20..=most).contains(&admitted), "{admitted} in {took:?}");
    assert!(
        redis
            .keys()
            .iter()
            .any(|key| key.starts_with("spring-gateway:notifications:token_bucket:10/1s:20"))
    );
}

#[test]
fn a_browser_may_call_from_anywhere_with_its_credentials() {
    let upstream = Upstream::start();
    let (gateway, issuer) = start(&upstream);
    let preflight = Call::new("OPTIONS /api/v1/users/7")
        .header("Origin", "https://shop.test")
        .header("Access-Control-Request-Method", "DELETE")
        .header("Access-Control-Request-Headers", "x-anything");
    let preflight = gateway.call(preflight);
    assert_eq!(preflight.header("access-control-allow-headers"), Some("x-anything"));
    for response in [
        preflight,
        gateway.call(
            Call::new("GET /api/v1/users/7")
                .header("Origin", "https://shop.test")
                .bearer(&token(&issuer, "ada")),
        ),
    ] {
        let allowed = response.header("access-control-allow-origin");
        assert_eq!(allowed, Some("https://shop.test"));
        assert_eq!(response.header("access-control-allow-credentials"), Some("true"));
    }
    assert_eq!(upstream.count(), 1);
}
