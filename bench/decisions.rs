//! What each decision of the request path costs by itself, on the admitted path.
//!
//! `cargo bench --bench decisions`. Configurations are written as an operator writes them.

use std::hint::black_box;
use std::net::IpAddr;
use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use http::{HeaderMap, Method};
use portcullis::config::server;
use portcullis::policy::auth::{Guard, Now, Verifier};
use portcullis::policy::breaker::{Breaker, Verdict};
use portcullis::policy::bulkhead::Bulkhead;
use portcullis::policy::rate_limit::{self, Limiter, Requester};
use portcullis::policy::retry::{self, Attempt, Budget, budget};
use portcullis::policy::{Caller, Policies, admit, auth, outcome::Outcome};
use portcullis::routing::{Match, Router, path};
use portcullis::runtime::flood_guard::FloodGuard;
use portcullis::time::Clock;
use serde::de::DeserializeOwned;

/// The address every anonymous caller here has.
const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

fn parsed<T: DeserializeOwned>(json: &str) -> T {
    serde_json::from_str(json).expect("a valid configuration")
}

fn breaker() -> Arc<Breaker> {
    let config = parsed(r#"{"consecutive": {"failures": 5, "reset_every": "10s"}}"#);
    Arc::new(Breaker::new(config, Clock::now()))
}

fn limiter() -> Limiter {
    Limiter::new(parsed(r#"{"fixed_window": {"requests": 1000000, "per": "1s"}}"#))
}

fn bulkhead() -> Arc<Bulkhead> {
    Arc::new(Bulkhead::new(&parsed(r#"{"max_in_flight": 100}"#)))
}

fn policies(c: &mut Criterion) {
    let now = Clock::now();
    c.bench_function("clock", |b| b.iter(Clock::now));

    let breaker = breaker();
    c.bench_function("breaker/closed", |b| {
        b.iter(|| breaker.acquire(now).map(|permit| permit.record(Verdict::Success, now)).is_ok());
    });

    let bulkhead = bulkhead();
    c.bench_function("bulkhead", |b| b.iter(|| bulkhead.acquire(now).is_ok()));

    let limiter = limiter();
    let headers = HeaderMap::new();
    let names: Vec<String> = (0..10_000).map(|n| format!("consumer-{n}")).collect();
    let mut turn = names.iter().cycle();
    let acme = Requester { consumer: Some("acme"), address: ADDRESS, headers: &headers };
    c.bench_function("rate_limit/fixed_window/one_key", |b| {
        b.iter(|| limiter.check(black_box(&acme), now));
    });
    let two = [Arc::new(self::limiter()), Arc::new(self::limiter())];
    c.bench_function("rate_limit/fixed_window/two_limits", |b| {
        b.iter(|| rate_limit::check_all(&two, black_box(&acme), now));
    });
    let guard: server::FloodGuard = parsed(r#"{"requests": 1000000, "per": "1s"}"#);
    let guard = FloodGuard::new(guard);
    c.bench_function("flood_guard", |b| {
        b.iter(|| guard.observe(black_box(ADDRESS), now).is_ok());
    });
    c.bench_function("rate_limit/fixed_window/10000_keys", |b| {
        b.iter(|| {
            let consumer = turn.next().map(String::as_str);
            limiter.check(&Requester { consumer, address: ADDRESS, headers: &headers }, now)
        });
    });

    let config: budget::Config =
        parsed(r#"{"token_bucket": {"capacity": 1000000, "refill_per_second": 1000000}}"#);
    let budget = Arc::new(Budget::new(config, now));
    c.bench_function("retry/decide", |b| {
        let policy: retry::Config = parsed(r#"{"on": [503]}"#);
        let attempt = Attempt {
            outcome: Outcome::Response(503),
            method: &Method::GET,
            retries_done: 0,
            body_replayable: true,
            response_started: false,
            client_gone: false,
            nested: false,
            server_asks: None,
            time_left: None,
            random: 0.5,
        };
        let mut stake = budget.enter(now);
        b.iter(|| retry::decide(&policy, black_box(&attempt), Some(&mut stake), Clock::now()));
    });

    let all = Policies {
        rate_limits: vec![Arc::new(self::limiter())],
        route_breaker: Some(self::breaker()),
        upstream_breaker: Some(self::breaker()),
        bulkhead: Some(self::bulkhead()),
        ..Policies::default()
    };
    c.bench_function("admit/all_policies", |b| {
        b.iter(|| {
            let caller = Caller {
                identity: Ok(None),
                address: ADDRESS,
                headers: &headers,
                shared: rate_limit::Heard::Nothing,
            };
            admit(&all, caller, &mut None, black_box(now)).is_ok()
        });
    });
}

fn routing(c: &mut Criterion) {
    c.bench_function("path/canonical", |b| {
        b.iter(|| path::canonicalize(black_box(b"/api/v1/users/42")).is_ok());
    });
    for routes in [10, 10_000] {
        let matches: Vec<(String, Match)> = (0..routes)
            .map(|n| {
                let json = format!(r#"{{"path": "/api/v1/service-{n}/:id", "methods": ["GET"]}}"#);
                (format!("route-{n}"), parsed(&json))
            })
            .collect();
        let named = matches.iter().enumerate().map(|(n, (name, m))| (n, name.as_str(), m));
        let router = Router::try_new(named).expect("no conflicts");
        let path = format!("/api/v1/service-{}/42", routes / 2);
        c.bench_function(&format!("route/{routes}"), |b| {
            b.iter(|| {
                let found = router.find("api.example.com", &Method::GET, black_box(&path));
                found.map(|found| found.route).ok()
            });
        });
    }
}

fn credentials(c: &mut Criterion) {
    let config: auth::Config =
        parsed(r#"{"api_key": {"keys": {"acme": "a-key-of-some-length-0123456789"}}}"#);
    let verifier = Arc::new(Verifier::try_new("partners", &config).expect("valid keys"));
    let guard = Guard::try_new(&parsed(r#"{"require": "partners"}"#), |_| Some(verifier.clone()))
        .expect("a known authority");
    let key = "a-key-of-some-length-0123456789".parse().expect("a header");
    let headers = HeaderMap::from_iter([(http::HeaderName::from_static("x-api-key"), key)]);
    let now = Now { unix_seconds: 1_700_000_000, moment: Clock::now() };
    c.bench_function("auth/api_key", |b| {
        b.iter(|| guard.check("/x", black_box(&headers), now).is_ok());
    });

    let secret = "a-secret-of-at-least-thirty-two-bytes";
    let config: auth::Config = parsed(&format!(
        r#"{{"jwt": {{"algorithms": ["HS256"], "secret": "{secret}", "issuer": "i"}}}}"#
    ));
    let verifier = Arc::new(Verifier::try_new("accounts", &config).expect("valid keys"));
    let guard = Guard::try_new(&parsed(r#"{"require": "accounts"}"#), |_| Some(verifier.clone()))
        .expect("a known authority");
    let claims = serde_json::json!({"iss": "i", "sub": "acme", "exp": now.unix_seconds + 3600});
    let token = jsonwebtoken::encode(
        &jsonwebtoken::Header::default(),
        &claims,
        &jsonwebtoken::EncodingKey::from_secret(secret.as_bytes()),
    )
    .expect("a token");
    let bearer = format!("Bearer {token}").parse().expect("a header");
    let headers = HeaderMap::from_iter([(http::header::AUTHORIZATION, bearer)]);
    c.bench_function("auth/token_seen_before", |b| {
        b.iter(|| guard.check("/x", black_box(&headers), now).is_ok());
    });
}

criterion_group!(benches, policies, routing, credentials);
criterion_main!(benches);
