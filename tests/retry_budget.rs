//! What all routes that share a budget may retry together, by each kind of budget.

use crate::support::{Answer, Call, Client, Gateway, Plan, Upstream, eventually};

const RETRY: &str = "retry: {max_retries: 3, on: [503], budget: shared, backoff: {base: 0}}";

/// Two routes, `/a` and `/b`, that share this budget.
fn sharing(upstream: &Upstream, budget: &str) -> Gateway {
    let yaml = format!(
        "
retry_budgets: {{shared: {{{budget}}}}}
routes:
  a: {{match: {{path: /a}}, upstream: service, {RETRY}}}
  b: {{match: {{path: /b}}, upstream: service, {RETRY}}}
"
    );
    Plan::new(&yaml).upstream(upstream).start()
}

fn ask(gateway: &Gateway) -> Client {
    let mut client = gateway.connect();
    client.send(Call::new("GET /a").bytes());
    client
}

#[test]
fn a_ratio_grants_its_share_of_the_requests_and_no_more() {
    let upstream = Upstream::always(503);
    let gateway = sharing(&upstream, "ratio: {share: 20%, min_per_second: 0, ttl: 60s}");
    for n in 0..20 {
        let path = if n % 2 == 0 { "/a" } else { "/b" };
        assert_eq!(gateway.get(path).text(), "upstream 503", "the last answer, unchanged");
    }
    assert_eq!(upstream.count(), 20 + 4);
    assert_eq!(
        gateway.metric("portcullis_retry_budget_withdrawn_total", &[("budget", "shared")]),
        4.0
    );
}

#[test]
fn a_ratio_has_a_minimum_for_quiet_times() {
    let upstream = Upstream::always(503);
    let gateway = sharing(&upstream, "ratio: {share: 0%, min_per_second: 1, ttl: 2s}");
    assert_eq!(gateway.get("/a").status, 503);
    assert_eq!(upstream.count(), 3, "two in any two seconds");
}

#[test]
fn a_concurrency_budget_bounds_the_retries_that_are_under_way() {
    let fails = || Answer::from(503);
    let held = || Answer::ok().held();
    let upstream = Upstream::script([fails(), held(), fails(), held(), fails()]);
    let gateway = sharing(&upstream, "concurrency: {share: 0%, min: 2}");
    let mut first = ask(&gateway);
    upstream.wait_for(2);
    let mut second = ask(&gateway);
    upstream.wait_for(4);
    assert_eq!(gateway.get("/b").status, 503, "two retries are under way already");
    assert_eq!(upstream.count(), 5);
    upstream.release();
    assert_eq!([first.receive().status, second.receive().status], [200, 200]);
    eventually("both places to be free", || {
        let tokens = gateway.metric("portcullis_retry_budget_tokens", &[("budget", "shared")]);
        (tokens == 2.0).then_some(())
    });
}

#[test]
fn a_retry_that_ended_makes_room_for_the_next() {
    let upstream = Upstream::script([503, 503, 503]);
    let gateway = sharing(&upstream, "concurrency: {share: 0%, min: 1}");
    assert_eq!(gateway.get("/a").status, 200);
    assert_eq!(upstream.count(), 4);
}
