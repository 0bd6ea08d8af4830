//! The profile of a Spring Cloud Gateway, run as its users run it: by environment variables alone.

use std::path::Path;
use std::time::Duration;

use crate::support::{
    Answer, Call, Gateway, Issuer, Plan, Redis, Response, Upstream, eventually, timed, unix_now,
};

/// Both services of the tests are this upstream; the others are never called.
fn start(upstream: &Upstream) -> (Gateway, Issuer) {
    let issuer = Issuer::start();
    (plan(upstream, &issuer).start(), issuer)
}

fn plan(upstream: &Upstream, issuer: &Issuer) -> Plan {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/spring-gateway.yaml");
    Plan::file(file)
        .env("USER_SERVICE_URL", &upstream.url())
        .env("AUTH_SERVICE_URL", &upstream.url())
        .env("JWKS_URL", &issuer.url())
}

fn call(gateway: &Gateway, issuer: &Issuer, line: &str) -> Response {
    gateway.call(Call::new(line).bearer(&issuer.token("ada")))
}

#[track_caller]
fn assert_fallback(response: &Response) {
    let json = response.json();
    assert_eq!((response.status, &json["status"]), (503, &"fallback".into()));
    assert_eq!(json["service"], "user-service");
    assert!(json["message"].is_string() && json["timestamp"].is_string(), "{json}");
}

#[test]
fn a_path_goes_to_its_service_without_its_first_two_segments() {
    let upstream = Upstream::start();
    let (gateway, issuer) = start(&upstream);
    let spoofed = Call::new("GET /api/v1/users/7?full=1").header("X-User-ID", "root");
    let response = gateway.call(spoofed.bearer(&issuer.token("ada")));
    assert_eq!(response.status, 200);
    assert_eq!(response.header("x-gateway-service"), Some("user-service"));
    let request = upstream.only();
    assert_eq!(request.target, "/users/7?full=1");
    assert_eq!(request.header("x-gateway-route"), Some("users"));
    assert_eq!(request.header("x-user-id"), Some("ada"));
    assert_eq!(request.header("x-request-id"), response.header("x-request-id"));
}

#[test]
fn each_side_is_told_the_gateway_s_time() {
    let upstream = Upstream::always(Answer::ok().after(Duration::from_millis(50)));
    let (gateway, issuer) = start(&upstream);
    let before = unix_now();
    let spoofed = Call::new("GET /api/v1/users/7").header("X-Gateway-Timestamp", "0");
    let response = gateway.call(spoofed.bearer(&issuer.token("ada")));
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
    assert_eq!(gateway.get("/health/auth/ready").status, 200);
    let targets: Vec<_> = upstream.requests().into_iter().map(|r| r.target).collect();
    assert_eq!(targets, ["/auth/login", "/health", "/health/ready"]);
}

#[test]
fn a_failure_is_tried_four_times_and_then_answered_by_the_fallback() {
    let upstream = Upstream::always(500);
    let (gateway, issuer) = start(&upstream);
    let (response, took) = timed(|| call(&gateway, &issuer, "GET /api/v1/users/7"));
    assert_fallback(&response);
    assert_eq!(upstream.count(), 4);
    // 100 + 200 + 400 ms.
    assert!(took >= Duration::from_millis(695), "took {took:?}");
    assert_fallback(&call(&gateway, &issuer, "POST /api/v1/users"));
    assert_eq!(upstream.count(), 5, "a POST is sent once");
}

#[test]
fn five_failed_requests_open_the_circuit_of_their_route() {
    let upstream = Upstream::always(Answer::from(500));
    let (gateway, issuer) = start(&upstream);
    for _ in 0..5 {
        assert_fallback(&call(&gateway, &issuer, "POST /api/v1/users"));
    }
    eventually("an open circuit", || {
        (gateway.status()["routes"]["users"]["circuit"]["state"] == "open").then_some(())
    });
    let refused = call(&gateway, &issuer, "POST /api/v1/users");
    assert_fallback(&refused);
    assert!((1..=5).contains(&refused.retry_after()));
    assert_eq!(upstream.count(), 5);
    assert_eq!(gateway.get("/health/users").status, 500, "what the service says itself");
}

#[test]
fn a_user_has_a_burst_of_twenty() {
    let upstream = Upstream::start();
    let (gateway, issuer) = start(&upstream);
    let statuses: Vec<_> =
        (0..60).map(|_| call(&gateway, &issuer, "GET /api/v1/users").status).collect();
    assert_eq!(statuses[..20], [200; 20]);
    assert!(statuses.contains(&429), "{statuses:?}");
    let other = Call::new("GET /api/v1/users").bearer(&issuer.token("grace"));
    assert_eq!(gateway.call(other).status, 200);
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
        let call = |n: usize| call(&gateways[n % 2], &issuer, "GET /api/v1/users");
        (0..60).filter(|n| call(*n).status == 200).count()
    });
    // The burst, and the rate for as long as it took.
    let most = 20 + took.as_millis() as usize / 100 + 1;
    assert!((20..=most).contains(&admitted), "{admitted} in {took:?}");
    assert!(
        redis
            .keys()
            .iter()
            .any(|key| key.starts_with("spring-gateway:users:token_bucket:10/1s:20"))
    );
}

#[test]
fn a_browser_may_call_from_anywhere_with_its_credentials() {
    let upstream = Upstream::start();
    let (gateway, issuer) = start(&upstream);
    let preflight = Call::new("OPTIONS /api/v1/users/7")
        .header("Origin", "https://shop.test")
        .header("Access-Control-Request-Method", "DELETE");
    for response in [
        gateway.call(preflight),
        gateway.call(
            Call::new("GET /api/v1/users/7")
                .header("Origin", "https://shop.test")
                .bearer(&issuer.token("ada")),
        ),
    ] {
        let allowed = response.header("access-control-allow-origin");
        assert_eq!(allowed, Some("https://shop.test"));
        assert_eq!(response.header("access-control-allow-credentials"), Some("true"));
    }
    assert_eq!(upstream.count(), 1);
}
