//! What each decision of the request path costs by itself, on the admitted path.
//!
//! `bench/decisions.sh`, or `cargo bench --bench decisions`. Configurations are written as an
//! operator writes them.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use http::{HeaderMap, HeaderValue, Method};
use portcullis::coding::{Coding, Encoding};
use portcullis::config::access_log::AccessLog as Config;
use portcullis::config::server;
use portcullis::observe::access_log::AccessLog;
use portcullis::policy::auth::{Guard, Now, Verifier};
use portcullis::policy::breaker::orders::{Forced, Order};
use portcullis::policy::breaker::{Breaker, Verdict};
use portcullis::policy::bulkhead::Bulkhead;
use portcullis::policy::dry_run::DryRun;
use portcullis::policy::rate_limit::{self, Heard, Limiter, Named, Part, Requester};
use portcullis::policy::retry::{self, Attempt, Budget};
use portcullis::policy::split::{Destination, Key, Split};
use portcullis::policy::terms::Terms;
use portcullis::policy::{Admission, Policies, auth, order, outcome::Outcome};
use portcullis::routing::{Asked, Match, Router, path};
use portcullis::runtime::flood_guard::FloodGuard;
use portcullis::time::{Clock, Moment};
use portcullis::transcode::wire::{self, Framing};
use portcullis::transcode::{Codec, Descriptors, Transcoder};
use portcullis::upstream::{Ask, Upstream};
use serde::de::DeserializeOwned;

#[path = "../tests/support/told.rs"]
mod told;

use told::{End, Told};

/// Of the callers, one for each thread.
const ADDRESSES: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), IpAddr::V4(Ipv4Addr::new(198, 51, 100, 2))];
const ADDRESS: IpAddr = ADDRESSES[0];

fn parsed<T: DeserializeOwned>(json: &str) -> T {
    serde_json::from_str(json).expect("a valid configuration")
}

fn breaker() -> Arc<Breaker> {
    let config = parsed(r#"{"consecutive": {"failures": 5, "reset_every": "10s"}}"#);
    Arc::new(Breaker::new(config, Moment::ZERO))
}

fn limiter() -> Limiter {
    Limiter::new(parsed(r#"{"fixed_window": {"requests": 1000000, "per": "100ms"}}"#))
}

fn bulkhead() -> Arc<Bulkhead> {
    Arc::new(Bulkhead::new(&parsed(r#"{"max_in_flight": 100}"#)))
}

/// So much virtual time passes between two decisions of a thread that windows end and tokens come
/// back: every decision is that of an admitted request.
const STEP: u64 = 5000;

/// With failures, one call in so many is one.
const FAILS_EVERY: u64 = 100;

/// The same on one thread and on two at once, as `NAME/threads/N`: what they share must not keep
/// them from each other. Each thread is told its number.
fn on_threads(c: &mut Criterion, name: &str, decide: impl Fn(usize, Moment) + Sync) {
    let clock = AtomicU64::new(0);
    for threads in [1_usize, 2] {
        c.bench_function(&format!("{name}/threads/{threads}"), |b| {
            b.iter_custom(|decisions| {
                let from = clock.fetch_add(decisions * STEP, Ordering::Relaxed);
                let start = Barrier::new(threads);
                let (start, decide) = (&start, &decide);
                let took = |thread: usize| {
                    move || {
                        start.wait();
                        let begun = Instant::now();
                        for n in 0..decisions {
                            decide(thread, black_box(Moment::from_nanos(from + n * STEP)));
                        }
                        begun.elapsed()
                    }
                };
                std::thread::scope(|scope| {
                    let others: Vec<_> =
                        (1..threads).map(|thread| scope.spawn(took(thread))).collect();
                    let own = took(0)();
                    let others = others.into_iter().map(|other| other.join().expect("no panic"));
                    others.fold(own, Duration::max)
                })
            });
        });
    }
}

fn policies(c: &mut Criterion) {
    c.bench_function("clock", |b| b.iter(Clock::now));
    for (name, config, failures) in [
        ("consecutive", r#"{"consecutive": {"failures": 5, "reset_every": "10s"}}"#, false),
        ("window_calls", r#"{"window": {"calls": 100}}"#, false),
        ("window_calls/with_failures", r#"{"window": {"calls": 100}}"#, true),
        ("window_time", r#"{"window": {"time": "60s", "minimum_calls": 100}}"#, false),
        ("window_time/with_failures", r#"{"window": {"time": "60s"}}"#, true),
    ] {
        let breaker = Arc::new(Breaker::new(parsed(config), Moment::ZERO));
        on_threads(c, &format!("breaker/{name}"), |_, now| {
            let permit = black_box(&breaker).acquire(now).expect("closed");
            let nth = now.as_nanos() / STEP;
            let fails = failures && nth % FAILS_EVERY == FAILS_EVERY - 1;
            permit.record(if fails { Verdict::Failure } else { Verdict::Success }, now);
        });
    }
    let open = breaker();
    let terms = Terms { since: Moment::ZERO, until: None, author: None, reason: None };
    open.order(Order { wanted: Forced::Open, terms });
    on_threads(c, "breaker/open", |_, now| assert!(open.acquire(now).is_err()));

    for (name, config) in [
        ("fixed", r#"{"max_in_flight": 100}"#),
        ("few", r#"{"max_in_flight": 2}"#),
        ("adaptive", r#"{"adaptive": {"min": 10, "max": 200}}"#),
    ] {
        let bulkhead = Arc::new(Bulkhead::new(&parsed(config)));
        on_threads(c, &format!("bulkhead/{name}"), |_, now| {
            black_box(&bulkhead).acquire(now).expect("free").release(now);
        });
    }
}

fn named(name: &str) -> Option<Named<'_>> {
    Some(Named { authority: None, name })
}

fn rate_limits(c: &mut Criterion) {
    let headers = HeaderMap::new();
    let acme =
        Requester { consumer: named("acme"), claims: None, address: ADDRESS, headers: &headers };
    let own = [acme, Requester { consumer: named("globex"), address: ADDRESSES[1], ..acme }];
    for (name, config) in [
        ("fixed_window", r#"{"fixed_window": {"requests": 1000000, "per": "100ms"}}"#),
        ("sliding_window", r#"{"sliding_window": {"requests": 1000000, "per": "1s"}}"#),
        ("token_bucket", r#"{"token_bucket": {"rate": 1000000, "burst": 1000000}}"#),
    ] {
        let limiter = Limiter::new(parsed(config));
        on_threads(c, &format!("rate_limit/{name}"), |thread, now| {
            assert!(limiter.check(black_box(&own[thread]), now).admitted);
        });
        // Another one: its time begins anew.
        let limiter = Limiter::new(parsed(config));
        on_threads(c, &format!("rate_limit/{name}/same_key"), |_, now| {
            assert!(limiter.check(black_box(&acme), now).admitted);
        });
    }
    let limiter = self::limiter();
    let names: Vec<String> = (0..10_000).map(|n| format!("consumer-{n}")).collect();
    let mut turn = names.iter().cycle();
    let mut now = Moment::ZERO;
    c.bench_function("rate_limit/fixed_window/10000_keys", |b| {
        b.iter(|| {
            now = now + Duration::from_nanos(STEP);
            let consumer = turn.next().and_then(|name| named(name));
            limiter.check(&Requester { consumer, ..acme }, now)
        });
    });
    let two = || [Arc::new(self::limiter()), Arc::new(self::limiter())];
    let both = |two: &[Arc<Limiter>], requester: &Requester<'_>, now| {
        let (requester, heard) = (black_box(requester), Heard::Nothing);
        let standing = rate_limit::check_shared(two, requester, &heard, Part::All, now);
        assert!(standing.is_ok_and(|some| some.is_some_and(|one| one.verdict.admitted)));
    };
    let limits = two();
    on_threads(c, "rate_limit/two_limits", |thread, now| both(&limits, &own[thread], now));
    let limits = two();
    on_threads(c, "rate_limit/two_limits/same_key", |_, now| both(&limits, &acme, now));
    let guard: server::FloodGuard = parsed(r#"{"requests": 1000000, "per": "1s"}"#);
    let guard = FloodGuard::new(guard);
    let observe = |address, now| _ = black_box(guard.observe(black_box(address), now).is_ok());
    on_threads(c, "flood_guard", |thread, now| observe(ADDRESSES[thread], now));
    on_threads(c, "flood_guard/same_address", |_, now| observe(ADDRESS, now));
}

fn retries(c: &mut Criterion) {
    let now = Clock::now();
    let policy: retry::Config = parsed(r#"{"on": [503]}"#);
    let attempt = Attempt {
        outcome: Outcome::Response(503),
        method: &Method::GET,
        keyed: false,
        retries_done: 0,
        body_replayable: true,
        response_started: false,
        client_gone: false,
        nested: false,
        server_asks: None,
        time_left: None,
        random: 0.5,
    };
    for (name, config) in [
        (
            "token_bucket",
            r#"{"token_bucket": {"capacity": 1000000, "refill_per_second": 1000000}}"#,
        ),
        ("ratio", r#"{"ratio": {"share": "100%"}}"#),
        ("concurrency", r#"{"concurrency": {}}"#),
    ] {
        let budget = Arc::new(Budget::new(parsed(config), Moment::ZERO));
        // What every request pays, retried or not.
        on_threads(c, &format!("retry_budget/{name}/enter"), |_, now| {
            drop(black_box(budget.enter(now)));
        });
        on_threads(c, &format!("retry_budget/{name}/retry"), |_, now| {
            let mut stake = budget.enter(now);
            let decision = retry::decide(&policy, black_box(&attempt), Some(&mut stake), now);
            // On two threads at once a share may be spent: that is an answer, too.
            _ = black_box(decision);
        });
    }
    let other = Attempt { outcome: Outcome::Response(200), ..attempt };
    c.bench_function("retry/not_retryable", |b| {
        b.iter(|| retry::decide(&policy, black_box(&other), None, now));
    });
}

fn admission(c: &mut Criterion) {
    let headers = HeaderMap::new();
    let all = Policies {
        rate_limits: vec![Arc::new(self::limiter())],
        route_breaker: Some(self::breaker()),
        upstream_breaker: Some(self::breaker()),
        bulkhead: Some(self::bulkhead()),
        ..Policies::default()
    };
    on_threads(c, "admit/all_policies", |thread, now| {
        let requester = Requester::new(None, ADDRESSES[thread], &headers);
        let (mut standing, mut dry_run) = (None, DryRun::default());
        let heard = Heard::Nothing;
        let counted = order::count(&all, &requester, &heard, &mut standing, &mut dry_run, now);
        assert!(counted.is_ok());
        let mut admission = Admission::default();
        for step in order::CALL {
            assert!(step.take(&all, &mut admission, &mut dry_run, now).is_ok());
        }
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
        let headers = HeaderMap::new();
        let asked = Asked { headers: Some(&headers), ..Asked::of(&Method::GET) };
        c.bench_function(&format!("route/{routes}"), |b| {
            b.iter(|| {
                let found = router.find("api.example.com", black_box(&path), &asked);
                found.map(|found| found.route).ok()
            });
        });
    }
}

/// What a route with conditions, and one with several upstreams, ask of a request besides.
fn splitting(c: &mut Criterion) {
    let matches: [Match; 3] = [
        parsed(r#"{"path": "/a"}"#),
        parsed(r#"{"path": "/a", "headers": {"X-Version": {"prefix": "2."}}}"#),
        parsed(r#"{"path": "/a", "cookies": {"canary": {"present": true}}}"#),
    ];
    let routes = matches.iter().enumerate().map(|(n, criteria)| (n, "route", criteria));
    let router = Router::try_new(routes).expect("no conflicts");
    let cookie = HeaderValue::from_static("theme=dark; session=0123456789abcdef; lang=en");
    let headers = HeaderMap::from_iter([(http::header::COOKIE, cookie)]);
    let asked = Asked { headers: Some(&headers), ..Asked::of(&Method::GET) };
    c.bench_function("route/two_conditions_not_met", |b| {
        b.iter(|| router.find("api.example.com", black_box("/a"), &asked).is_ok());
    });
    let upstreams = r#"[{"name": "stable", "weight": 95}, {"name": "canary", "weight": 5}]"#;
    let Destination::Split(upstreams) = parsed(upstreams) else { panic!("a list") };
    let requester = Requester::new(None, IpAddr::V4(Ipv4Addr::LOCALHOST), &headers);
    for (name, key) in [("random", None), ("cookie", Some(Key::Cookie("session".into())))] {
        let split = Split::new(&upstreams, key, None);
        c.bench_function(&format!("split/{name}"), |b| {
            b.iter(|| split.draw(black_box(&requester)))
        });
    }
}

/// An endpoint for an attempt, and the end of the attempt without a result.
fn balancing(c: &mut Criterion) {
    let policies = [
        ("least_request", r#""least_request""#),
        ("round_robin", r#""round_robin""#),
        ("random", r#""random""#),
        ("peak_ewma", r#""peak_ewma""#),
        ("hash", r#"{"hash": {"key": "client_address", "max_load": 0}}"#),
        ("hash_bounded", r#"{"hash": {"key": "client_address", "max_load": 1.25}}"#),
    ];
    for (name, balance) in policies {
        for count in [3, 30, 300, 3000] {
            let endpoint = |n| format!(r#"{{"url": "http://10.0.{}.{}:80"}}"#, n / 250, n % 250);
            let endpoints: Vec<String> = (0..count).map(endpoint).collect();
            let endpoints = endpoints.join(", ");
            let config = format!(r#"{{"endpoints": [{endpoints}], "balance": {balance}}}"#);
            let upstream = Upstream::new("service", parsed(&config), Moment::ZERO);
            let (mut random, now) = (fastrand::Rng::with_seed(7), Moment::ZERO);
            c.bench_function(&format!("pick/{name}/{count}"), |b| {
                b.iter(|| {
                    let random = random.u64(..);
                    let key = Some(random);
                    let ask = Ask { tried: &[], key, random, in_flight: 0, now: black_box(now) };
                    black_box(&upstream).pick(&ask).is_ok()
                });
            });
        }
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
        b.iter(|| guard.check(&http::Method::GET, "/x", black_box(&headers), now).is_ok());
    });

    let secret = "a-secret-of-at-least-thirty-two-bytes";
    let config: auth::Config = parsed(&format!(
        r#"{{"jwt": {{"algorithms": ["HS256"], "secret": "{secret}", "issuer": "i", "audience": "any"}}}}"#
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
        b.iter(|| guard.check(&http::Method::GET, "/x", black_box(&headers), now).is_ok());
    });
}

/// A call with a message of 100 bytes, to JSON and its answer back: what a transcoding route adds to
/// a request, apart from holding both bodies.
fn transcoding(c: &mut Criterion) {
    let set = include_bytes!("../conf/gateway.binpb");
    let descriptors = Descriptors::parse(set).expect("the shipped descriptors");
    let config = r#"{"descriptors": "gateway", "method": "gateway.v1.GatewayService/InvokeCustom",
        "http": {"path": "/invoke", "body": "*"}, "defaults": {"name": "World"}}"#;
    let transcoder = Transcoder::compile(&parsed(config), &descriptors).expect("fits");
    let path = "/gateway.v1.GatewayService/InvokeCustom";
    let text = "a".repeat(98);
    let proto = [&[0x0a, 98], text.as_bytes()].concat();
    let json = format!(r#"{{"name":"{text}"}}"#).into_bytes();
    let answer = format!(r#"{{"message":"{text}"}}"#).into_bytes();
    for (name, codec, framing, message) in [
        ("connect_json", Codec::Json, Framing::Bare, json),
        ("connect_proto", Codec::Proto, Framing::Bare, proto.clone()),
        ("grpc", Codec::Proto, Framing::Grpc, wire::wrap(Framing::Grpc, proto.clone())),
        // As a request is framed: without the trailers of an answer.
        ("grpc_web", Codec::Proto, Framing::GrpcWeb, wire::wrap(Framing::Grpc, proto)),
    ] {
        let call = || {
            let method = transcoder.method(black_box(path)).ok()?;
            let message = black_box(&message);
            let message = wire::unwrap(framing, message, Encoding::Identity, 0).ok()?;
            let request = transcoder.to_http(method, codec, &message).ok()?;
            let told = method.answer(black_box(&answer)).ok()?;
            let told = wire::wrap(framing, method.write(&told, codec).ok()?);
            Some((request, told))
        };
        // What is refused would cost less.
        assert!(call().is_some(), "{name}");
        c.bench_function(&format!("transcode/{name}"), |b| b.iter(call));
    }
}

/// A message of 1 KiB in each coding: read, and an answer of its size written.
fn codings(c: &mut Criterion) {
    let words = ["order", "Ada ", "item", "42,", "price", "user ", "lovelace", "1843"];
    let text: String = (0_usize..).map(|n| words[n * n % 7 + n % 2]).take(228).collect();
    assert!((900..1100).contains(&text.len()), "{}", text.len());
    for (name, coding) in [("gzip", Coding::Gzip), ("deflate", Coding::Deflate)] {
        let coded = coding.write(text.as_bytes()).expect("it gets smaller");
        assert_eq!(coding.read(&coded, 2000).as_deref(), Ok(text.as_bytes()));
        c.bench_function(&format!("coding/{name}/read"), |b| {
            b.iter(|| coding.read(black_box(&coded), 1 << 20));
        });
        c.bench_function(&format!("coding/{name}/write"), |b| {
            b.iter(|| coding.write(black_box(text.as_bytes())));
        });
    }
}

/// Lines that are timed before the log's thread gets to write them: a quarter of what its queue holds. A
/// queue that is full of them would measure the memory it takes.
const LINES: u64 = 2048;

/// What the log costs a request, until its thread has the line; and what it costs one without a line.
fn access_log(c: &mut Criterion) {
    let told = Told::default();
    for (name, end, config) in [
        ("failure", End::TimedOut, r#"{"to": {"file": "/dev/null"}}"#),
        ("success", End::Answered, r#"{"to": {"file": "/dev/null"}, "keep": {"success": "100%"}}"#),
        ("text", End::TimedOut, r#"{"to": {"file": "/dev/null"}, "format": "text"}"#),
    ] {
        let config: Config = parsed(config);
        let log = AccessLog::start(&config).expect("a thread");
        c.bench_function(&format!("access_log/{name}"), |b| {
            b.iter_custom(|lines| {
                let mut took = Duration::ZERO;
                let mut left = lines;
                while left > 0 {
                    let now = left.min(LINES);
                    let begun = Instant::now();
                    for _ in 0..now {
                        log.tell(&config, black_box(&told.summary(end)), told.rules());
                    }
                    took += begun.elapsed();
                    log.flush(Duration::from_secs(10));
                    left -= now;
                }
                took
            });
        });
        assert_eq!(log.lines().dropped, 0, "{name}: every line was written");
    }
    let config: Config = parsed(r#"{"keep": {"refusals": "0/s"}}"#);
    let log = AccessLog::default();
    for (name, end) in [("no_line", End::Answered), ("left_out", End::Refused)] {
        c.bench_function(&format!("access_log/{name}"), |b| {
            b.iter(|| log.tell(&config, black_box(&told.summary(end)), told.rules()));
        });
    }
    assert_eq!(log.latest().len(), 0, "no line was made");
}

criterion_group!(
    benches,
    policies,
    rate_limits,
    retries,
    admission,
    routing,
    splitting,
    balancing,
    credentials,
    transcoding,
    codings,
    access_log
);
criterion_main!(benches);
