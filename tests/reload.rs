//! SIGHUP: a valid file takes over with nothing lost, an invalid one changes nothing.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::support::{Answer, Call, Gateway, Plan, Upstream, eventually};

#[test]
fn a_reload_under_load_fails_no_request() {
    let upstream = Upstream::start();
    let gateway = Gateway::route(&upstream, "headers: {response: {set: {X-Version: '0'}}}");
    let (done, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut client = gateway.connect();
                // Relaxed: nothing else is published by the flag.
                while !done.load(Ordering::Relaxed) {
                    let response = client.call(&"GET /".into());
                    assert_eq!(response.status, 200);
                    assert!(response.header("x-version").is_some());
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for version in 1..=5 {
            let policies = format!("headers: {{response: {{set: {{X-Version: '{version}'}}}}}}");
            let taken = gateway.reload_route(&policies);
            done.store(!taken, Ordering::Relaxed);
            assert!(taken, "the reload is taken:\n{}", gateway.log());
        }
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(answered.load(Ordering::Relaxed), upstream.count());
    assert_eq!(gateway.get("/").header("x-version"), Some("5"));
}

#[test]
fn routes_come_and_go() {
    let upstream = Upstream::start();
    let gateway = Plan::new("routes: {old: {match: {path: /old}, upstream: service}}")
        .upstream(&upstream)
        .start();
    assert!(gateway.reload("routes: {new: {match: {path: /new}, upstream: service}}"));
    assert_eq!((gateway.get("/old").status, gateway.get("/new").status), (404, 200));
}

#[test]
fn other_endpoints_are_used_from_the_next_request_on() {
    let (a, b) = (Upstream::start(), Upstream::start());
    let yaml = |name: &str| {
        format!(
            "upstreams: {{service: {{endpoints: ['${{{name}}}']}}}}\nroutes: {{all: {{match: {{path: /*}}, upstream: service}}}}"
        )
    };
    let gateway = Plan::new(&yaml("A")).env("A", &a.url()).env("B", &b.url()).start();
    gateway.get("/");
    assert!(gateway.reload(&yaml("B")));
    gateway.get("/");
    assert_eq!((a.count(), b.count()), (1, 1));
}

#[test]
fn a_request_in_flight_ends_as_it_began() {
    let upstream = Upstream::script([Answer::ok().held()]);
    let gateway = Plan::new("routes: {old: {match: {path: /old}, upstream: service, headers: {response: {set: {X-Version: old}}}}}")
        .upstream(&upstream)
        .start();
    let mut client = gateway.connect();
    client.send(Call::new("GET /old").bytes());
    upstream.wait_for(1);
    assert!(gateway.reload("routes: {new: {match: {path: /new}, upstream: service}}"));
    upstream.release();
    let response = client.receive();
    assert_eq!((response.status, response.header("x-version")), (200, Some("old")));
}

#[test]
fn an_open_circuit_stays_open() {
    let upstream = Upstream::script([500]);
    let policies = "circuit_breaker: {consecutive: {failures: 1}}";
    let gateway = Gateway::route(&upstream, policies);
    gateway.get("/");
    assert!(gateway.reload_route(&format!("{policies}\nmax_body: 1MiB")));
    assert_eq!(gateway.get("/").code(), "circuit_open");
    assert_eq!(upstream.count(), 1);
}

#[test]
fn what_was_counted_stays_counted() {
    let upstream = Upstream::start();
    let policies = "rate_limit: {fixed_window: {requests: 2, per: 1m}}";
    let gateway = Gateway::route(&upstream, policies);
    gateway.get("/");
    assert!(gateway.reload_route(&format!("{policies}\nmax_body: 1MiB")));
    assert_eq!([gateway.get("/").status, gateway.get("/").status], [200, 429]);
}

#[test]
fn a_spent_budget_stays_spent() {
    let upstream = Upstream::always(503);
    let yaml = |more: &str| {
        format!("
retry_budgets: {{few: {{token_bucket: {{capacity: 1, refill_per_second: 1}}}}}}
routes: {{all: {{match: {{path: /*}}, upstream: service, {more}retry: {{max_retries: 1, on: [503], budget: few, backoff: {{base: 1ms}}}}}}}}")
    };
    let gateway = Plan::new(&yaml("")).upstream(&upstream).start();
    gateway.get("/");
    assert!(gateway.reload(&yaml("max_body: 1MiB, ")));
    let withdrawn = gateway.metric("portcullis_retry_budget_withdrawn_total", &[("budget", "few")]);
    assert_eq!(withdrawn, 1.0);
}

#[test]
fn slots_that_are_taken_stay_taken_when_their_number_changes() {
    let upstream = Upstream::always(Answer::ok().held());
    let gateway = Gateway::route(&upstream, "bulkhead: {max_in_flight: 1}");
    let mut clients = [gateway.connect(), gateway.connect()];
    clients[0].send(Call::new("GET /").bytes());
    upstream.wait_for(1);
    assert!(gateway.reload_route("bulkhead: {max_in_flight: 2}"));
    clients[1].send(Call::new("GET /").bytes());
    upstream.wait_for(2);
    assert_eq!(gateway.get("/").status, 429);
    upstream.release();
    for client in &mut clients {
        assert_eq!(client.receive().status, 200);
    }
    eventually("both slots", || {
        (gateway.metric("portcullis_bulkhead_in_flight", &[]) == 0.0).then_some(())
    });
}

#[test]
fn a_changed_policy_starts_afresh() {
    let upstream = Upstream::script([500]);
    let gateway = Gateway::route(&upstream, "circuit_breaker: {consecutive: {failures: 1}}");
    gateway.get("/");
    assert_eq!(gateway.get("/").status, 503);
    assert!(gateway.reload_route("circuit_breaker: {consecutive: {failures: 2}}"));
    assert_eq!(gateway.get("/").status, 200);
}

#[test]
fn an_invalid_file_changes_nothing_and_is_reported_with_its_line() {
    let upstream = Upstream::start();
    let gateway = Gateway::route(&upstream, "");
    let bad = "routes:\n  all:\n    match: {path: /*}\n    upstream: service\n    reties: {}\n";
    assert!(!gateway.reload(bad));
    assert_eq!(gateway.get("/").status, 200);
    gateway.wait_for_log("portcullis.yaml:5:5");
    assert!(gateway.log().contains("retry"), "the right name is suggested");
    let failed = gateway.metric("portcullis_reloads_total", &[("result", "failed")]);
    assert_eq!(failed, 1.0);
}

#[test]
fn a_file_that_is_gone_or_garbage_changes_nothing() {
    let upstream = Upstream::start();
    let gateway = Gateway::route(&upstream, "");
    assert!(!gateway.reload("\u{0}\u{1}: [}"));
    assert!(!gateway.reload("routes: []"));
    assert_eq!(gateway.get("/").status, 200);
    assert!(gateway.reload_route("max_body: 1MiB"), "and a good one is taken afterwards");
}

#[test]
fn what_cannot_change_in_a_running_process_is_named_and_not_half_applied() {
    let upstream = Upstream::start();
    let gateway = Gateway::route(&upstream, "");
    let other = "
server: {threads: 1, drain_timeout: 7s}
routes: {new: {match: {path: /new}, upstream: service}}
";
    assert!(!gateway.reload(other));
    gateway.wait_for_log("server.threads: cannot change in a running process");
    assert_eq!(gateway.get("/").status, 200, "the old route still answers");
}

#[test]
fn many_reloads_leave_nothing_behind() {
    let upstream = Upstream::start();
    let yaml = |n: u32| {
        format!("
upstreams: {{service: {{endpoints: ['${{UPSTREAM}}', 'http://localhost:1'], resolve_every: 1{n}s}}}}
auth: {{accounts: {{jwt: {{issuer: i, audience: any, algorithms: [RS256], jwks: {{url: 'http://127.0.0.1:9/{n}'}}}}}}}}
routes: {{all: {{match: {{path: /*}}, upstream: service}}}}")
    };
    let gateway = Plan::new(&yaml(0)).upstream(&upstream).start();
    assert!(gateway.reload(&yaml(1)));
    let before = gateway.descriptors();
    for n in 2..20 {
        assert!(gateway.reload(&yaml(n)));
    }
    eventually("no more descriptors", || (gateway.descriptors() <= before + 3).then_some(()));
}
