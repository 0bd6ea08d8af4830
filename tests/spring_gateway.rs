//! The profile of a Spring Cloud Gateway, run as its users run it: by environment variables alone.

use std::path::Path;
use std::time::Duration;

use crate::support::{
    Answer, Call, Gateway, Issuer, Plan, Redis, Response, Upstream, eventually, timed, unix_now,
};

/// Every service that the tests call is this upstream.
fn start(upstream: &Upstream) -> (Gateway, Issuer) {
    let issuer = Issuer::start();
    (plan(upstream, &issuer).start(), issuer)
}

fn plan(upstream: &Upstream, issuer: &Issuer) -> Plan {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/spring-gateway.yaml");
    Plan::file(file)
        .env("USER_SERVICE_URL", &upstream.url())
        .env("AUTH_SERVICE_URL", &upstream.url())
        .env("NOTIFICATION_SERVICE_URL", &upstream.url())
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
    assert_eq!(json["message"], "User service is temporarily unavailable");
    let milliseconds = json["timestamp"].as_u64().expect("milliseconds");
    assert!(milliseconds.abs_diff(unix_now() * 1000) < 60_000, "{json}");
}

#[test]
fn a_path_goes_to_its_service_without_its_first_two_segments() {
    let upstream = Upstream::start();
    let (gateway, issuer) = start(&upstream);
    let spoofed = Call::new("GET /api/v1/users/7?full=1").header("X-User-ID", "root");
    let response = gateway.call(spoofed.bearer(&issuer.token("ada")));
    assert_eq!(response.status, 200);
    assert_eq!(response.header("x-response-user-service"), Some("Gateway"));
    let request = upstream.only();
    assert_eq!(request.target, "/users/7?full=1");
    assert_eq!(request.header("x-request-user-service"), Some("Gateway"));
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
    assert_eq!(gateway.get("/healthz").status, 200);
    let targets: Vec<_> = upstream.requests().into_iter().map(|r| r.target).collect();
    assert_eq!(targets, ["/auth/login", "/users"]);
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
        let header =
            |name: &str| response.header(&format!("x-ratelimit-{name}")).map(str::to_owned);
        assert_eq!(header("burst-capacity").as_deref(), Some("20"));
        assert_eq!(header("replenish-rate").as_deref(), Some("10"));
        let left: u32 = header("remaining").and_then(|left| left.parse().ok()).expect("a number");
        assert!(left < 20 && (response.status == 200 || left == 0), "{left}");
        assert_eq!(header("limit"), None);
    }
    let other = Call::new("GET /api/v1/notifications").bearer(&issuer.token("grace"));
    assert_eq!(gateway.call(other).status, 200);
}

#[test]
fn a_service_gets_no_more_than_its_own_limit_whoever_asks() {
    let upstream = Upstream::start();
    let (gateway, issuer) = start(&upstream);
    let (statuses, took) = timed(|| {
        let call = |n: usize| {
            let user = if n.is_multiple_of(2) { "ada" } else { "grace" };
            gateway.call(Call::new("GET /api/v1/users/7").bearer(&issuer.token(user))).status
        };
        (0..40).map(call).collect::<Vec<_>>()
    });
    let admitted = statuses.iter().filter(|status| **status == 200).count();
    // Ten in each window that was touched.
    let most = 10 * (2 + took.as_secs() as usize);
    assert!((10..=most).contains(&admitted), "{admitted} in {took:?}");
    assert!(statuses.iter().all(|status| [200, 429].contains(status)), "{statuses:?}");
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
