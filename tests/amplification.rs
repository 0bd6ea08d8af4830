//! How many calls an outage makes of the requests that come, whatever comes: many routes, many
//! clients at once, one budget of each kind.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::support::{Answer, Call, Client, Gateway, Plan, Upstream, eventually};

const ROUTES: usize = 8;
const CLIENTS: usize = 16;
const EACH: usize = 25;
const REQUESTS: usize = CLIENTS * EACH;

/// Routes that would each try ten times more, and share one budget.
fn sharing(upstream: &Upstream, budget: &str) -> Gateway {
    let mut yaml = format!("retry_budgets: {{shared: {{{budget}}}}}\nroutes:\n");
    for n in 0..ROUTES {
        yaml += &format!(
            "  r{n}: {{match: {{path: /{n}}}, upstream: service, retry: {{max_retries: 10, \
             on: [503, reset, timeout], budget: shared, backoff: {{base: 0}}}}}}\n"
        );
    }
    Plan::new(&yaml).upstream(upstream).start()
}

/// All clients at once, each request to another route; all see the upstream's own answer.
fn storm(gateway: &Gateway) {
    let turn = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                for _ in 0..EACH {
                    let route = turn.fetch_add(1, Ordering::Relaxed) % ROUTES;
                    assert_eq!(gateway.get(&format!("/{route}")).status, 503);
                }
            });
        }
    });
}

fn withdrawn(gateway: &Gateway) -> f64 {
    gateway.metric("portcullis_retry_budget_withdrawn_total", &[("budget", "shared")])
}

#[test]
fn a_bucket_adds_its_tokens_to_the_requests_of_an_outage() {
    let upstream = Upstream::always(503);
    let gateway = sharing(&upstream, "token_bucket: {capacity: 20, refill_per_second: 0.001}");
    storm(&gateway);
    assert_eq!(upstream.count(), REQUESTS + 20);
    assert_eq!(withdrawn(&gateway), 20.0);
}

#[test]
fn a_ratio_adds_its_share_to_the_requests_of_an_outage() {
    let upstream = Upstream::always(503);
    let gateway = sharing(&upstream, "ratio: {share: 20%, min_per_second: 0, ttl: 60s}");
    storm(&gateway);
    assert_eq!(upstream.count(), REQUESTS + REQUESTS / 5);
    assert_eq!(withdrawn(&gateway), (REQUESTS / 5) as f64);
}

#[test]
fn a_concurrency_budget_has_no_more_retries_under_way_than_its_share() {
    // First tries fail together, once all are there; retries are kept waiting.
    let upstream = Upstream::script(vec![Answer::from(503).held(); CLIENTS]);
    upstream.answer_always(Answer::hang());
    let gateway = sharing(&upstream, "concurrency: {share: 25%, min: 0}");
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| gateway.connect()).collect();
    for (n, client) in clients.iter_mut().enumerate() {
        client.send(Call::new(&format!("GET /{}", n % ROUTES)).bytes());
    }
    upstream.wait_for(CLIENTS);
    upstream.release();
    let labels = [("budget", "shared")];
    eventually("every request to have been refused a retry, or granted one", || {
        let refused = gateway.metric("portcullis_retry_budget_refused_total", &labels);
        (refused + withdrawn(&gateway) == CLIENTS as f64).then_some(())
    });
    upstream.wait_for(CLIENTS + CLIENTS / 4);
    assert_eq!(withdrawn(&gateway), (CLIENTS / 4) as f64);
    clients.into_iter().for_each(Client::vanish);
    eventually("every request to have ended", || {
        (gateway.status()["requests_in_flight"] == 0).then_some(())
    });
    assert_eq!(upstream.count(), CLIENTS + CLIENTS / 4);
}

#[test]
fn connections_that_break_are_bounded_like_answers() {
    let upstream = Upstream::always(Answer::reset());
    let gateway = sharing(&upstream, "token_bucket: {capacity: 20, refill_per_second: 0.001}");
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let gateway = &gateway;
            scope.spawn(move || {
                for n in 0..EACH {
                    let route = (client + n) % ROUTES;
                    assert_eq!(gateway.get(&format!("/{route}")).status, 502);
                }
            });
        }
    });
    assert_eq!(upstream.count(), REQUESTS + 20);
}

#[test]
fn a_circuit_bounds_an_outage_to_less_than_the_requests() {
    let upstream = Upstream::always(503);
    let yaml = "
retry_budgets: {shared: {token_bucket: {capacity: 20, refill_per_second: 0.001}}}
upstreams: {service: {endpoints: ['${UPSTREAM}'], circuit_breaker: {consecutive: {failures: 5}}}}
routes: {all: {match: {path: /*}, upstream: service, retry: {max_retries: 10, on: [503], budget: shared, backoff: {base: 0}}}}
";
    let gateway = Plan::new(yaml).upstream(&upstream).start();
    storm(&gateway);
    // Five trip it; those that were on their way with them, one to a client, come through.
    assert!((5..5 + CLIENTS).contains(&upstream.count()), "{}", upstream.count());
}
