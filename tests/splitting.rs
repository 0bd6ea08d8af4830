//! A route with several upstreams: who is drawn, who stays, and what belongs to the one that was drawn.

use std::collections::BTreeMap;
use std::path::Path;

use crate::support::{Answer, Call, Client, Gateway, Plan, Store, Upstream, eventually};

const USERS: usize = 1000;

/// Two upstreams that say their names.
struct Fleet {
    stable: Upstream,
    canary: Upstream,
}

fn named(name: &str) -> Answer {
    Answer::ok().body(name)
}

/// The route of these tests; `rest` is what else it has.
fn route(stable: u32, canary: u32, rest: &str) -> String {
    format!(
        "routes:\n  all:\n    match: {{path: /*}}\n    upstream: [{{name: stable, weight: {stable}}}, \
         {{name: canary, weight: {canary}}}]\n    {}\n",
        rest.trim().replace('\n', "\n    ")
    )
}

impl Fleet {
    fn new() -> Self {
        Fleet::answering(named("stable"), named("canary"))
    }

    fn answering(stable: impl Into<Answer>, canary: impl Into<Answer>) -> Self {
        Fleet { stable: Upstream::always(stable), canary: Upstream::always(canary) }
    }

    fn plan(&self, route: &str) -> Plan {
        self.plan_with(route, "")
    }

    /// `each` is what both upstreams have besides their endpoint.
    fn plan_with(&self, route: &str, each: &str) -> Plan {
        let one = |name: &str, upstream: &Upstream| {
            format!("  {name}: {{endpoints: ['{}']{each}}}\n", upstream.url())
        };
        let (stable, canary) = (one("stable", &self.stable), one("canary", &self.canary));
        Plan::new(route).section(&format!("upstreams:\n{stable}{canary}"))
    }

    fn counts(&self) -> (usize, usize) {
        (self.stable.count(), self.canary.count())
    }
}

fn of_user(user: usize) -> Call {
    Call::new("GET /a").header("Cookie", &format!("theme=dark; session=user-{user}"))
}

/// The upstream of each user's requests.
fn places(gateway: &Gateway) -> Vec<String> {
    let mut client = gateway.connect();
    (0..USERS).map(|user| client.call(&of_user(user)).text()).collect()
}

/// The number of a user whose requests go to `upstream`.
fn user_of(client: &mut Client, upstream: &str) -> usize {
    (0..USERS).find(|user| client.call(&of_user(*user)).text() == upstream).expect("a user")
}

#[test]
fn requests_are_shared_by_weight_and_a_weight_of_0_gets_none() {
    const REQUESTS: usize = 4000;
    let fleet = Fleet::new();
    let off = Upstream::start();
    let yaml = route(3, 1, "").replace("}]", "}, {name: off, weight: 0}]");
    let off_too = format!("  off: {{endpoints: ['{}']}}\nroutes:", off.url());
    let gateway = fleet.plan(&yaml).replacing("routes:", &off_too).start();
    let mut client = gateway.connect();
    for _ in 0..REQUESTS {
        assert_eq!(client.call(&Call::new("GET /a")).status, 200);
    }
    let (stable, canary) = fleet.counts();
    assert_eq!((stable + canary, off.count()), (REQUESTS, 0));
    // Six standard deviations: once in five hundred million runs.
    let most = 6.0 * (REQUESTS as f64 * 0.25 * 0.75).sqrt();
    assert!((canary as f64 - 1000.0).abs() < most, "{canary} of {REQUESTS}");

    for (name, weight, requests) in [("stable", 3, stable), ("canary", 1, canary), ("off", 0, 0)] {
        let labels = [("route", "all"), ("upstream", name)];
        let metric = |metric| gateway.metric(metric, &labels);
        assert_eq!(metric("portcullis_split_requests_total"), requests as f64, "{name}");
        assert_eq!(metric("portcullis_split_weight"), f64::from(weight), "{name}");
    }
    let status = gateway.status();
    let split = &status["routes"]["all"]["split"];
    assert_eq!(split[1]["upstream"], "canary");
    assert_eq!((&split[1]["weight"], &split[1]["requests"]), (&1.into(), &canary.into()));
    assert!(status["routes"]["all"]["upstream"].is_null(), "{status}");
}

#[test]
fn a_user_stays_over_requests_reloads_and_restarts_unless_its_share_moves() {
    let fleet = Fleet::new();
    let by_session = "split: {key: {cookie: session}}";
    let plan = |stable, canary| fleet.plan(&route(stable, canary, by_session));
    let gateway = plan(90, 10).start();
    let before = places(&gateway);
    assert_eq!(places(&gateway), before, "by the second request of each");
    let canaries = before.iter().filter(|place| *place == "canary").count();
    // Six standard deviations of 1,000 keys; the keys are the same in each run.
    assert!(canaries.abs_diff(100) < 57, "{canaries}");

    // Of one user, over a thousand requests.
    let mut client = gateway.connect();
    let user = user_of(&mut client, "canary");
    let seen = fleet.counts();
    for _ in 0..USERS {
        assert_eq!(client.call(&of_user(user)).text(), "canary");
    }
    assert_eq!(fleet.counts(), (seen.0, seen.1 + USERS));

    assert!(gateway.reload_plan(&plan(60, 40)));
    let after = places(&gateway);
    let moved: Vec<_> = before.iter().zip(&after).filter(|(from, to)| from != to).collect();
    assert!(moved.iter().all(|(from, to)| (&***from, &***to) == ("stable", "canary")), "{moved:?}");
    // 30 % of the users.
    assert!(moved.len().abs_diff(300) < 87, "{}", moved.len());

    assert!(gateway.reload_plan(&plan(90, 10)));
    assert_eq!(places(&gateway), before);
    let another = plan(90, 10).start();
    assert_eq!(places(&another), before, "by another replica");
}

#[test]
fn a_request_without_its_key_is_drawn_at_random() {
    let fleet = Fleet::new();
    let gateway = fleet.plan(&route(1, 1, "split: {key: {cookie: session}}")).start();
    let mut client = gateway.connect();
    client.call(&of_user(1));
    eventually("both upstreams", || {
        client.call(&Call::new("GET /a").header("Cookie", "theme=dark; session="));
        let (stable, canary) = fleet.counts();
        (stable > 0 && canary > 0).then_some(())
    });
    let (stable, canary) = fleet.counts();
    let unkeyed = gateway.metric("portcullis_split_unkeyed_total", &[("route", "all")]);
    assert_eq!(unkeyed, (stable + canary - 1) as f64, "all but the first");
}

#[test]
fn the_record_names_the_upstream_that_was_drawn() {
    let fleet = Fleet::new();
    let rest = "split: {key: {cookie: session}}\nrecord: {mode: sync}";
    let gateway = fleet.plan(&route(1, 1, rest)).start();
    let mut client = gateway.connect();
    let mut answered: Vec<_> = (0..20).map(|user| client.call(&of_user(user)).text()).collect();
    let rows = Store::Sqlite.wait_for_rows(&gateway, 20);
    let mut recorded: Vec<_> =
        rows.iter().map(|row| row.text("upstream").expect("an upstream").to_owned()).collect();
    answered.sort_unstable();
    recorded.sort_unstable();
    assert_eq!(recorded, answered);
    assert!(answered.first() != answered.last(), "{answered:?}");
}

#[test]
fn a_user_may_be_told_by_header_or_by_its_verified_name() {
    let fleet = Fleet::new();
    let keys: String = (0..16).map(|n| format!("user-{n}: secret-of-user-{n}, ")).collect();
    let auth = format!("auth:\n  users: {{api_key: {{header: X-Key, keys: {{{keys}}}}}}}");
    let by_consumer = "auth: {require: users}\nsplit: {key: consumer}";
    let by_consumer = fleet.plan(&route(1, 1, by_consumer)).section(&auth).start();
    let by_header = fleet.plan(&route(1, 1, "split: {key: {header: X-User}}")).start();
    let (mut one, mut other) = (by_consumer.connect(), by_header.connect());
    let mut places = BTreeMap::new();
    for (user, round) in (0..16).flat_map(|user| (0..4).map(move |round| (user, round))) {
        let key = format!("secret-of-user-{user}");
        // What a client merely claims does not count where the consumer is asked for.
        let claim = format!("user-{round}");
        let call = Call::new("GET /a").header("X-Key", &key).header("X-User", &claim);
        let place = one.call(&call).text();
        assert_eq!(places.entry(user).or_insert_with(|| place.clone()), &place);
        let call = Call::new("GET /a").header("X-User", &format!("user-{user}"));
        assert_eq!(other.call(&call).text(), place, "the same key, wherever it comes from");
    }
    let canaries = places.values().filter(|place| *place == "canary").count();
    assert!((1..16).contains(&canaries), "{places:?}");
}

#[test]
fn retries_stay_where_the_request_was_drawn() {
    let fleet = Fleet::answering(503, named("canary"));
    let retry = "split: {key: {cookie: session}}\nretry: {max_retries: 2, backoff: {base: 1ms}, budget: unlimited}";
    let gateway = fleet.plan(&route(1, 1, retry)).start();
    let mut client = gateway.connect();
    let stable = (0..USERS).find(|user| client.call(&of_user(*user)).status == 503);
    let (tried, of_others) = fleet.counts();
    assert_eq!(tried, 3, "each attempt of the one request");
    let response = client.call(&of_user(stable.expect("a user")));
    assert_eq!(response.status, 503);
    assert_eq!(fleet.counts(), (6, of_others));
    let line = gateway.wait_for_access_lines(2).remove(1);
    assert_eq!(
        (&line["portcullis.upstream"], &line["portcullis.attempts"]),
        (&"stable".into(), &3.into())
    );
}

#[test]
fn the_budget_is_that_of_the_upstream_that_was_drawn() {
    let fleet = Fleet::answering(named("stable"), 503);
    let retry = "split: {key: {cookie: session}}\nretry: {max_retries: 1, backoff: {base: 1ms}}";
    let gateway = fleet.plan(&route(1, 1, retry)).start();
    let mut client = gateway.connect();
    (0..40).for_each(|user| drop(client.call(&of_user(user))));
    let withdrawn = |upstream: &str| {
        let status = gateway.status();
        status["retry_budgets"][format!("upstream:{upstream}")]["withdrawn"]
            .as_u64()
            .expect("a count")
    };
    assert_eq!(withdrawn("stable"), 0);
    assert!(withdrawn("canary") > 0);
}

#[test]
fn the_circuit_is_that_of_the_upstream_that_was_drawn() {
    let fleet = Fleet::new();
    let each = ", circuit_breaker: {consecutive: {failures: 1}, open_for: 1m}";
    let plan = fleet.plan_with(&route(1, 1, "split: {key: {cookie: session}}"), each);
    let gateway = plan.start();
    let mut client = gateway.connect();
    let (of_stable, of_canary) = (user_of(&mut client, "stable"), user_of(&mut client, "canary"));
    fleet.canary.answer_always(500);
    assert_eq!(client.call(&of_user(of_canary)).status, 500);
    let seen = fleet.canary.count();
    let refused = client.call(&of_user(of_canary));
    assert_eq!((refused.status, refused.code().as_str()), (503, "circuit_open"));
    assert_eq!(fleet.canary.count(), seen);
    assert_eq!(client.call(&of_user(of_stable)).text(), "stable");
    let state = |name| gateway.metric("portcullis_circuit_state", &[("name", name)]);
    assert_eq!((state("stable"), state("canary")), (0.0, 2.0));
}

#[test]
fn a_canary_may_fall_back_on_the_upstream_beside_it_and_that_one_on_nothing() {
    let fleet = Fleet::new();
    let rest = "split: {key: {cookie: session}}\nfallback: {upstream: stable, on: [circuit_open, attempts_spent]}\nretry: {max_retries: 1, backoff: {base: 1ms}, budget: unlimited}";
    let gateway = fleet.plan(&route(1, 1, rest)).start();
    let mut client = gateway.connect();
    let (of_stable, of_canary) = (user_of(&mut client, "stable"), user_of(&mut client, "canary"));
    fleet.canary.answer_always(503);
    assert_eq!(client.call(&of_user(of_canary)).text(), "stable");

    fleet.stable.answer_always(503);
    let seen = fleet.stable.count();
    assert_eq!(client.call(&of_user(of_stable)).status, 503);
    assert_eq!(fleet.stable.count(), seen + 2, "one attempt and its retry, and no call to itself");
}

#[test]
fn a_reload_may_add_an_upstream_and_goes_on_counting() {
    let fleet = Fleet::new();
    let gateway = fleet.plan(&route(1, 0, "")).start();
    let mut client = gateway.connect();
    (0..10).for_each(|_| drop(client.call(&Call::new("GET /a"))));
    assert_eq!(fleet.counts(), (10, 0));
    assert!(gateway.reload_plan(&fleet.plan(&route(0, 1, ""))));
    (0..5).for_each(|_| drop(client.call(&Call::new("GET /a"))));
    assert_eq!(fleet.counts(), (10, 5));
    let requests = |name| gateway.metric("portcullis_split_requests_total", &[("upstream", name)]);
    assert_eq!((requests("stable"), requests("canary")), (10.0, 5.0));
}

#[test]
fn the_routes_show_who_shares_them_and_by_what() {
    let yaml = "
listeners: {public: {address: '127.0.0.1:8080'}}
upstreams:
  stable: {endpoints: ['http://127.0.0.1:1'], circuit_breaker: {consecutive: {failures: 5}, open_for: 1s}}
  canary: {endpoints: ['http://127.0.0.1:2']}
routes:
  all:
    upstream: [{name: stable, weight: 95}, {name: canary, weight: 5}]
    split: {key: {cookie: session}}
    retry: {max_retries: 1}
";
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(directory.path().join("c.yaml"), yaml).expect("a file");
    let run = |arguments: &[&str]| {
        let finished = Gateway::finish(arguments, Path::new(directory.path()), &[]);
        assert_eq!(finished.code, Some(0), "{}", finished.stderr);
        finished.stdout
    };
    let table = run(&["routes", "-c", "c.yaml"]);
    assert!(table.contains("stable 95, canary 5"), "{table}");
    assert!(table.contains("split: by cookie=session"), "{table}");
    assert!(table.contains("upstream_circuit: stable: 5 failures in a row"), "{table}");
    let line: serde_json::Value =
        serde_json::from_str(&run(&["routes", "-c", "c.yaml", "--format", "json"])).expect("JSON");
    assert_eq!(line["upstream"][1], serde_json::json!({"name": "canary", "weight": 5}));
    let config = run(&["config", "-c", "c.yaml"]);
    assert!(config.contains("weight: 95") && config.contains("cookie: session"), "{config}");
}
