//! No policy allocates for a request that it admits: not when it is asked, nor when it is told how
//! the request ended. Nor is anything allocated to count it.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use allocation_counter::{AllocationInfo, measure};
use http::{HeaderMap, HeaderValue, Method};
use portcullis::observe::access_log::AccessLog;
use portcullis::observe::metrics::words::{Facet, Facets};
use portcullis::observe::metrics::{Family, Finished, Metrics};
use portcullis::policy::breaker::{Breaker, Verdict};
use portcullis::policy::bulkhead::Bulkhead;
use portcullis::policy::dry_run::DryRun;
use portcullis::policy::order::OfCall;
use portcullis::policy::outcome::Outcome;
use portcullis::policy::rate_limit::{Heard, Limiter, Requester};
use portcullis::policy::retry::{self, Attempt, Budget, Decision};
use portcullis::policy::split::{Destination, Key, Split};
use portcullis::policy::{Admission, Policies, order};
use portcullis::routing::{Asked, Match, Router};
use portcullis::time::Moment;
use serde::de::DeserializeOwned;

#[path = "support/told.rs"]
mod told;

use told::{End, Told};

const NOW: Moment = Moment::ZERO;
const ATTEMPTS: u64 = 1000;

fn parsed<T: DeserializeOwned>(json: &str) -> T {
    serde_json::from_str(json).expect("a valid configuration")
}

fn breaker(json: &str) -> Arc<Breaker> {
    Arc::new(Breaker::new(parsed(json), NOW))
}

/// One route with everything on it.
fn policies() -> Policies {
    let limits = [
        r#"{"fixed_window": {"requests": 1000000, "per": "1m"}}"#,
        r#"{"sliding_window": {"requests": 1000000, "per": "1m"}, "key": "client_address"}"#,
        r#"{"token_bucket": {"rate": 1000000, "burst": 1000000}, "key": "client_address"}"#,
    ];
    let upstream = r#"{"consecutive": {"failures": 5}, "window": {"calls": 100}}"#;
    Policies {
        rate_limits: limits.iter().map(|json| Arc::new(Limiter::new(parsed(json)))).collect(),
        route_breaker: Some(breaker(r#"{"consecutive": {"failures": 5}, "count": "requests"}"#)),
        upstream_breaker: Some(breaker(upstream)),
        bulkhead: Some(Arc::new(Bulkhead::new(&parsed(r#"{"max_in_flight": 10}"#)))),
        ..Policies::default()
    }
}

/// One request, from its admission to its end.
fn serve(policies: &Policies, headers: &HeaderMap) {
    let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let requester = Requester::new(None, address, headers);
    let (heard, mut standing, mut dry_run) = (Heard::Nothing, None, DryRun::default());
    let counted = order::count(policies, &requester, &heard, &mut standing, &mut dry_run, NOW);
    counted.expect("admitted");
    let mut admission = Admission::default();
    for step in order::CALL {
        step.take(policies, &mut admission, &mut dry_run, NOW).expect("admitted");
    }
    for permit in [admission.route_permit, admission.upstream_permit].into_iter().flatten() {
        permit.record(Verdict::Success, NOW);
    }
    if let Some(slot) = admission.slot {
        slot.release(NOW);
    }
}

#[track_caller]
fn assert_none(info: &AllocationInfo) {
    assert_eq!((info.count_total, info.bytes_total), (0, 0), "{info:?}");
}

#[test]
fn the_count_counts() {
    let info = measure(|| drop(std::hint::black_box(vec![0_u8; 100])));
    assert_eq!((info.count_total, info.bytes_total), (1, 100));
}

#[test]
fn an_admitted_request_allocates_nothing_in_any_policy() {
    let (policies, headers) = (policies(), HeaderMap::new());
    // Its key is known from then on.
    serve(&policies, &headers);
    assert_none(&measure(|| (0..ATTEMPTS).for_each(|_| serve(&policies, &headers))));
}

#[test]
fn a_route_is_found_by_its_conditions_without_an_allocation() {
    let matches: [Match; 3] = [
        parsed(r#"{"path": "/a"}"#),
        parsed(r#"{"path": "/a", "headers": {"X-A": "1"}, "cookies": {"b": {"prefix": "2"}}}"#),
        parsed(r#"{"path": "/a", "query": {"c": "a b"}, "cookies": {"b": {"present": true}}}"#),
    ];
    let routes = matches.iter().enumerate().map(|(n, criteria)| (n, "route", criteria));
    let router = Router::try_new(routes).expect("no conflicts");
    let cookie = HeaderValue::from_static("a=1; b=\"23\"");
    let headers = HeaderMap::from_iter([(http::header::COOKIE, cookie)]);
    let query = Some("b=1&c=a%20b");
    let asked = Asked {
        method: &Method::GET,
        headers: Some(&headers),
        query,
        scheme: None,
        certificate: None,
    };
    let find = || router.find("a.example", "/a", &asked).ok().map(|found| found.route);
    assert_eq!(find(), Some(2));
    assert_none(&measure(|| {
        for _ in 0..ATTEMPTS {
            std::hint::black_box(find());
        }
    }));
}

#[test]
fn a_request_is_drawn_without_an_allocation() {
    let Destination::Split(upstreams) =
        parsed(r#"[{"name": "stable", "weight": 95}, {"name": "canary", "weight": 5}]"#)
    else {
        panic!("a list");
    };
    let cookie = HeaderValue::from_static("a=1; session=s7");
    let headers = HeaderMap::from_iter([(http::header::COOKIE, cookie)]);
    let requester = Requester::new(None, IpAddr::V4(Ipv4Addr::LOCALHOST), &headers);
    for key in [None, Some(Key::Cookie("session".into())), Some(Key::ClientAddress)] {
        let split = Split::new(&upstreams, key, None);
        // The generator of this thread is made with its first number.
        split.draw(&requester);
        assert_none(&measure(|| {
            for _ in 0..ATTEMPTS {
                std::hint::black_box(split.draw(&requester));
            }
        }));
    }
}

#[test]
fn a_refusal_that_is_not_made_allocates_nothing() {
    let circuit = breaker(r#"{"consecutive": {"failures": 1}, "enforce": false}"#);
    circuit.acquire(NOW).expect("closed").record(Verdict::Failure, NOW);
    let mut limit: portcullis::policy::rate_limit::Config =
        parsed(r#"{"fixed_window": {"requests": 1, "per": "1m"}, "key": "client_address"}"#);
    limit.enforce = portcullis::policy::dry_run::Enforce::No;
    let headers = HeaderMap::new();
    for dry in [
        Policies { route_breaker: Some(circuit), ..policies() },
        Policies { rate_limits: vec![Arc::new(Limiter::new(limit))], ..policies() },
    ] {
        serve(&dry, &headers);
        assert_none(&measure(|| (0..ATTEMPTS).for_each(|_| serve(&dry, &headers))));
    }
}

#[test]
fn a_retry_allocates_nothing_in_any_budget() {
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
    for budget in [
        r#"{"token_bucket": {"capacity": 1000000, "refill_per_second": 1}}"#,
        r#"{"ratio": {"share": "100%"}}"#,
        r#"{"concurrency": {"min": 10}}"#,
    ] {
        let budget = Arc::new(Budget::new(parsed(budget), NOW));
        assert_none(&measure(|| {
            for _ in 0..ATTEMPTS {
                let mut stake = budget.enter(NOW);
                let decision = retry::decide(&policy, &attempt, Some(&mut stake), NOW);
                assert!(matches!(decision, Decision::Retry { .. }));
            }
        }));
    }
}

#[test]
fn requests_after_the_first_are_counted_without_an_allocation() {
    let metrics = Metrics::new().expect("names that are right");
    let facets = Facets::default().with(Facet::ExactStatus, true);
    let (route, upstream) = (metrics.route(&"a".into(), facets), metrics.upstream(&"u".into()));
    let count = |status| {
        route.begun();
        route.answered(Finished {
            family: Family::Http,
            status,
            cut: false,
            took: Duration::from_millis(1),
            bytes_in: 7,
            bytes_out: 7,
        });
        route.rejected("rate_limited");
        route.rejected("circuit_open");
        route.retried();
        route.retry_stopped("budget");
        route.diverted("circuit_open");
        route.fell_back("circuit_open");
        upstream.attempted("2xx");
        upstream.attempted("timeout");
        upstream.answered(Duration::from_millis(1));
    };
    // A route that nothing was counted for has nothing to count in.
    assert!(measure(|| count(200)).count_total > 0);
    assert_none(&measure(|| (0..ATTEMPTS).for_each(|_| count(503))));
    assert_eq!((route.requests(), route.errors()), (ATTEMPTS + 1, ATTEMPTS));
}

#[test]
fn a_request_without_a_line_in_the_log_allocates_nothing_for_it() {
    let config = parsed(r#"{"keep": {"refusals": "0/s"}}"#);
    let (log, told) = (AccessLog::default(), Told::default());
    let tell = |end| log.tell(&config, &told.summary(end), told.rules());
    assert_none(&measure(|| (0..ATTEMPTS).for_each(|_| tell(End::Answered))));
    // A refusal is counted, in a place that the first one of its cause makes.
    tell(End::Refused);
    assert_none(&measure(|| (0..ATTEMPTS).for_each(|_| tell(End::Refused))));
    assert_eq!(log.lines().left_out, ATTEMPTS + 1);
    // A line is more than nothing, or nothing was measured.
    assert!(measure(|| tell(End::TimedOut)).count_total > 0);
}

#[test]
fn a_refusal_allocates_nothing_either() {
    let mut policies = policies();
    let circuit = breaker(r#"{"consecutive": {"failures": 1}}"#);
    circuit.acquire(NOW).expect("closed").record(Verdict::Failure, NOW);
    policies.route_breaker = Some(circuit);
    let refused = || {
        let (mut admission, mut dry_run) = (Admission::default(), DryRun::default());
        let mut take = |step: OfCall| step.take(&policies, &mut admission, &mut dry_run, NOW);
        assert!(order::CALL.into_iter().any(|step| take(step).is_err()));
    };
    refused();
    assert_none(&measure(|| (0..ATTEMPTS).for_each(|_| refused())));
}
