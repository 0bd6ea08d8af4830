//! A request that ends by a panic, and a deadline that a timer meets early.
//!
//! No phase is known to panic, and no test can make one panic from outside. So a task that holds
//! everything a request can hold panics as a phase would. A timer that fires early does so by
//! chance, so that is simulated too.

use std::sync::Arc;

use pingora_core::ErrorType;

use super::*;
use crate::config::Config;
use crate::config::load::Environment;
use crate::observe::metrics::Metrics;
use crate::policy::breaker::{State, Verdict};
use crate::policy::failure::Cause;
use crate::policy::order;
use crate::policy::outcome::Outcome;
use crate::proxy::attempt::conclude::conclude;
use crate::proxy::attempt::ended::{Ended, classify_connect};
use crate::runtime::lifecycle::Lifecycle;
use crate::upstream::Ask;

const YAML: &str = "
listeners: {public: {address: '127.0.0.1:0'}}
retry_budgets: {shared: {concurrency: {share: 0%, min: 1}}}
upstreams:
  service:
    endpoints: ['http://127.0.0.1:9']
    circuit_breaker: {consecutive: {failures: 1}, open_for: 1s, half_open_calls: 1}
routes:
  all:
    match: {path: /*}
    upstream: service
    circuit_breaker: {consecutive: {failures: 1}, open_for: 1s, half_open_calls: 1}
    bulkhead: {max_in_flight: 1}
    retry: {budget: shared}
";

fn snapshot() -> Arc<Snapshot> {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("portcullis.yaml");
    std::fs::write(&file, YAML).expect("a file");
    let environment = Environment::fixed([("", ""); 0]);
    let (config, _) = Config::load(&file, &environment).expect("valid");
    let metrics = Metrics::new().expect("metrics");
    Arc::new(Snapshot::compile(config, None, &metrics, Moment::ZERO).expect("compiles"))
}

/// A context that holds a slot, both probes, a retry of the budget, and its place in the count of
/// requests in flight.
fn holding(snapshot: &Arc<Snapshot>, lifecycle: &Arc<Lifecycle>, now: Moment) -> Context {
    let route = &snapshot.routes[0];
    let mut context = Context::new(Arc::clone(snapshot), None, lifecycle.enter(), now);
    for step in order::CALL {
        let (admission, dry_run) = (&mut context.admission, &mut context.dry_run);
        step.take(&route.policies, admission, dry_run, now).expect("admitted");
    }
    let mut stake = snapshot.budgets["shared"].enter(now);
    assert!(stake.withdraw(now));
    context.stake = Some(stake);
    context.begin_on(Arc::clone(route));
    context
}

#[tokio::test]
async fn a_panic_gives_back_everything_a_request_holds() {
    let (snapshot, lifecycle) = (snapshot(), Arc::new(Lifecycle::default()));
    let policies = &snapshot.routes[0].policies;
    let circuits = [&policies.route_breaker, &policies.upstream_breaker]
        .map(|circuit| circuit.clone().expect("configured"));
    for circuit in &circuits {
        circuit.acquire(Moment::ZERO).expect("closed").record(Verdict::Failure, Moment::ZERO);
    }
    let now = Moment::ZERO + std::time::Duration::from_secs(1);
    let bulkhead = policies.bulkhead.as_ref().expect("configured");
    let budget = &snapshot.budgets["shared"];
    let held = || {
        let probes = circuits.each_ref().map(|circuit| match circuit.state(now) {
            State::HalfOpen { in_flight, .. } => in_flight,
            other => panic!("{other:?}"),
        });
        (probes, bulkhead.in_flight(), budget.tokens(now), lifecycle.in_flight())
    };

    let context = Box::new(holding(&snapshot, &lifecycle, now));
    assert_eq!(held(), ([1, 1], 1, 0.0, 1));
    // As Pingora runs a request: in a task that owns its context.
    let ended = tokio::spawn(async move {
        tokio::task::yield_now().await;
        let _context = context;
        // Not `panic!`: that would write to the log of the tests.
        std::panic::resume_unwind(Box::new(()));
    });
    assert!(ended.await.expect_err("a panic").is_panic());
    assert_eq!(held(), ([0, 0], 0, 1.0, 0));
}

#[tokio::test]
async fn a_connect_timer_that_fires_just_before_the_deadline_it_was_cut_to_says_deadline() {
    let (snapshot, lifecycle) = (snapshot(), Arc::new(Lifecycle::default()));
    let mut context = holding(&snapshot, &lifecycle, Moment::ZERO);
    let micros = |n| Moment::ZERO + std::time::Duration::from_micros(n);
    context.deadline = Some(micros(300_000));
    for (etype, at, expected) in [
        (ErrorType::ConnectTimedout, 298_900, Cause::ConnectTimeout),
        (ErrorType::ConnectTimedout, 299_100, Cause::DeadlineExceeded),
        (ErrorType::TLSHandshakeTimedout, 299_100, Cause::DeadlineExceeded),
        (ErrorType::ConnectRefused, 299_100, Cause::ConnectRefused),
        (ErrorType::ConnectRefused, 300_000, Cause::DeadlineExceeded),
    ] {
        let error = pingora_core::Error::new(etype.clone());
        let ended = classify_connect(&error, &context, micros(at));
        assert_eq!(ended, Ended::Upstream(expected), "{etype:?} at {at}");
    }
}

#[tokio::test]
async fn a_caller_in_a_hurry_fails_no_endpoint_also_if_the_timer_fires_just_before_its_deadline() {
    let lifecycle = Arc::new(Lifecycle::default());
    let at = |micros| Moment::ZERO + std::time::Duration::from_micros(micros);
    // Ends an attempt that a caller's deadline of 20 ms has cut. Returns the endpoint's share of failures.
    let cut = |ended: Moment| {
        // Breakers count it, and would be open for the next.
        let snapshot = snapshot();
        let mut context = holding(&snapshot, &lifecycle, Moment::ZERO);
        context.deadline = Some(at(20_000));
        let upstream = context.upstream().expect("configured").upstream.clone();
        let ask = Ask { tried: &[], key: None, random: 0, in_flight: 0, now: Moment::ZERO };
        let mut before = upstream.pick(&ask).expect("an endpoint");
        let answered = Some(std::time::Duration::from_millis(300));
        upstream.ended(&mut before, Outcome::Response(200), answered, Moment::ZERO);
        context.attempt.ticket = Some(upstream.pick(&ask).expect("an endpoint"));
        conclude(&mut context, Outcome::Timeout, ended);
        before.endpoint().load.failing(ended)
    };
    assert_eq!(cut(at(20_000)), 0.0);
    assert_eq!(cut(at(19_100)), 0.0);
    assert!(cut(at(18_900)) > 0.0, "another limit than the caller's");
}
