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

/// A request whose retries are counted in this budget; how many attempts the upstream saw of it.
fn attempts(gateway: &Gateway, upstream: &Upstream, path: &str) -> usize {
    let before = upstream.count();
    assert_eq!(gateway.get(path).status, 503);
    upstream.count() - before
}

/// `/a` and `/b` go to `service`, `/c` to `other`; `more` is more of their `retry`.
fn unnamed(more: &str) -> String {
    let retry = format!("retry: {{max_retries: 3, on: [503], backoff: {{base: 0}}{more}}}");
    format!(
        "
routes:
  a: {{match: {{path: /a}}, upstream: service, {retry}}}
  b: {{match: {{path: /b}}, upstream: service, {retry}}}
  c: {{match: {{path: /c}}, upstream: other, {retry}}}
upstreams: {{service: {{endpoints: [\"${{UPSTREAM}}\"]}}, other: {{endpoints: [\"${{OTHER}}\"]}}}}
"
    )
}

#[test]
fn without_a_budget_of_its_own_a_route_shares_that_of_its_upstream() {
    let [upstream, other] = [Upstream::always(503), Upstream::always(503)];
    let plan = Plan::new(&unnamed("")).upstream(&upstream).env("OTHER", &other.url());
    let gateway = plan.start();
    let begun = std::time::Instant::now();
    for n in 0..60 {
        gateway.get(if n % 2 == 0 { "/a" } else { "/b" });
    }
    let seconds = begun.elapsed().as_secs() as usize + 1;
    let retries = upstream.count() - 60;
    // 20 % of the requests, and 3 a second over ten seconds.
    assert!((12 + 30..=12 + 30 + 3 * seconds).contains(&retries), "{retries} in {seconds} s");
    let budget = [("budget", "upstream:service")];
    let withdrawn = || gateway.metric("portcullis_retry_budget_withdrawn_total", &budget);
    assert_eq!(withdrawn() as usize, retries);
    assert_eq!(attempts(&gateway, &other, "/c"), 4, "another upstream has a budget of its own");

    // A reload that changes the routes takes the budget along.
    assert!(gateway.reload(&unnamed(", max_retry_after: 5s")));
    gateway.get("/a");
    assert!(withdrawn() as usize >= retries && withdrawn() as usize <= retries + 3 * seconds + 9);

    assert!(gateway.reload(&unnamed(", budget: unlimited")));
    assert_eq!([0; 20].map(|_| attempts(&gateway, &upstream, "/b")), [4; 20]);
}
