//! Where a route falls back on another upstream: who is called, how often, and who answers.

use std::time::Duration;

use crate::support::{
    Answer, Call, Gateway, Plan, Store, Upstream, assert_within, eventually, refused_address, timed,
};

const ROUTE: &str = "fallback: {upstream: backup}";
const BREAKER: &str = "circuit_breaker: {consecutive: {failures: 1}, open_for: 1m}";

/// `service` and, for when it cannot answer, `backup`.
struct Pair {
    service: Upstream,
    backup: Upstream,
}

impl Pair {
    fn new(service: impl Into<Answer>, backup: impl Into<Answer>) -> Self {
        Pair { service: Upstream::always(service), backup: Upstream::always(backup) }
    }

    fn plan(&self, policies: &str, of_backup: &str) -> Plan {
        let upstreams = format!(
            "upstreams: {{service: {{endpoints: ['${{UPSTREAM}}']}}, backup: {{endpoints: ['${{BACKUP}}'], {of_backup}}}}}"
        );
        let plan = Plan::route(&format!("{ROUTE}\n{policies}")).section(&upstreams);
        plan.upstream(&self.service).env("BACKUP", &self.backup.url())
    }

    fn gateway(&self, policies: &str) -> Gateway {
        self.plan(policies, "").start()
    }

    fn counts(&self) -> (usize, usize) {
        (self.service.count(), self.backup.count())
    }
}

fn backup() -> Answer {
    Answer::ok().body("from the backup")
}

fn calls(gateway: &Gateway, reason: &str) -> f64 {
    let labels = [("route", "all"), ("reason", reason)];
    gateway.metric("portcullis_fallback_calls_total", &labels)
}

#[test]
fn an_open_circuit_sends_requests_elsewhere() {
    let pair = Pair::new(500, backup());
    let gateway = pair.gateway(&format!("{BREAKER}\nrecord: {{mode: sync}}"));
    assert_eq!(gateway.get("/").text(), "upstream 500", "which no retry would have been for");
    for n in 1..=3 {
        let response = gateway.get("/a?b=c");
        assert_eq!((response.status, response.text().as_str()), (200, "from the backup"));
        assert_eq!(pair.counts(), (1, n));
    }
    assert_eq!(calls(&gateway, "circuit_open"), 3.0);
    let request = &pair.backup.requests()[0];
    assert_eq!((request.method.as_str(), request.target.as_str()), ("GET", "/a?b=c"));
    assert_eq!(request.header("host"), Some(pair.backup.address().to_string().as_str()));
    let rows = Store::Sqlite.wait_for_rows(&gateway, 4);
    let of = |name: &str| rows.iter().filter(|row| row.text("upstream") == Some(name)).count();
    assert_eq!((of("service"), of("backup")), (1, 3), "{rows:?}");
    let diverted = rows.iter().filter(|row| row.text("upstream") == Some("backup"));
    assert!(diverted.clone().all(|row| row.is_true("success") && row.number("attempts") == 1));
    assert!(diverted.clone().all(|row| row.text("rejection").is_none()), "{rows:?}");
}

#[test]
fn a_circuit_that_is_open_here_and_there_is_refused() {
    let pair = Pair::new(500, 500);
    let gateway = pair.plan(BREAKER, BREAKER).start();
    let statuses = [gateway.get("/").text(), gateway.get("/").text()];
    assert_eq!(statuses, ["upstream 500", "upstream 500"], "one of each");
    for _ in 0..3 {
        let refused = gateway.get("/");
        assert_eq!((refused.status, refused.code().as_str()), (503, "circuit_open"));
        assert!((1..=60).contains(&refused.retry_after()));
    }
    assert_eq!(pair.counts(), (1, 1));
    let state = |name: &str| gateway.status()["upstreams"][name]["circuit"]["state"].clone();
    assert_eq!(state("backup"), "open");
}

#[test]
fn where_both_fail_the_static_answer_is_the_last() {
    let pair = Pair::new(500, 503);
    let policies = format!("{BREAKER}\nrecord: {{mode: sync}}");
    let route = policies.clone()
        + "\nfallback: {upstream: backup, on: [circuit_open], status: 299, json: {sorry: '{code}'}}";
    let plan = pair.plan(&route, BREAKER);
    let gateway = plan.replacing(ROUTE, "").start();
    gateway.get("/");
    let answers = [(); 3].map(|()| gateway.get("/"));
    let texts = answers.each_ref().map(|answer| (answer.status, answer.text()));
    let [first, second, third] = texts;
    // The backup's own failure, then its open circuit.
    assert_eq!(first, (299, r#"{"sorry":"upstream_5xx"}"#.to_owned()));
    assert_eq!(second, (299, r#"{"sorry":"circuit_open"}"#.to_owned()));
    assert_eq!(second, third);
    assert_eq!(pair.counts(), (1, 1));
    let counted = gateway.metric("portcullis_fallbacks_total", &[("reason", "circuit_open")]);
    assert_eq!((calls(&gateway, "circuit_open"), counted), (1.0, 3.0));
}

#[test]
fn a_full_bulkhead_sends_requests_elsewhere() {
    let pair = Pair::new(Answer::ok().held(), backup());
    let gateway = pair.gateway("bulkhead: {max_in_flight: 1}");
    let mut first = gateway.connect();
    first.send(Call::new("GET /").bytes());
    pair.service.wait_for(1);
    assert_eq!(gateway.get("/").text(), "from the backup");
    pair.service.release();
    assert_eq!(first.receive().text(), "ok");
    assert_eq!((pair.counts(), calls(&gateway, "bulkhead_full")), ((1, 1), 1.0));
}

#[test]
fn spent_attempts_are_followed_by_one_call_elsewhere() {
    let pair = Pair::new(503, backup());
    let policies = "retry: {max_retries: 2, backoff: {base: 0}}\nrecord: {mode: sync}\nretry_info_header: X-Retry-Info";
    let gateway = pair.gateway(policies);
    let response = gateway.get("/");
    assert_eq!(response.text(), "from the backup");
    assert_eq!(response.header("x-retry-info"), Some("attempts=4, stopped=exhausted"));
    assert_eq!((pair.counts(), calls(&gateway, "attempts_spent")), ((3, 1), 1.0));
    let row = &Store::Sqlite.wait_for_rows(&gateway, 1)[0];
    assert_eq!((row.text("upstream"), row.number("attempts")), (Some("backup"), 4));
    assert_eq!((row.number("upstream_status"), row.is_true("success")), (200, true));
    assert_eq!(pair.backup.only().header("x-envoy-attempt-count"), Some("4"));
}

#[test]
fn an_attempt_without_an_answer_is_followed_by_a_call_elsewhere() {
    for answer in [Answer::reset(), Answer::hang(), Answer::verbatim("nonsense\r\n\r\n")] {
        let pair = Pair::new(answer, backup());
        let gateway = pair.gateway("timeout: {attempt: 300ms}");
        assert_eq!(gateway.get("/").text(), "from the backup");
        assert_eq!(pair.counts(), (1, 1));
    }
    let pair = Pair::new(200, backup());
    let away = format!("http://{}", refused_address());
    let gateway = pair.plan("", "").env("UPSTREAM", &away).start();
    assert_eq!(gateway.post("/", "{}").text(), "from the backup", "nothing was sent before");
    let gateway = pair.plan("", "").env("UPSTREAM", "http://nobody.invalid:1").start();
    assert_eq!(gateway.get("/").text(), "from the backup");
    assert_eq!(pair.counts(), (0, 2));
}

#[test]
fn the_other_upstream_is_called_once_whatever_becomes_of_it() {
    let retry = "retry: {max_retries: 3, methods: any, on: [5xx, reset, timeout, connect_failure], backoff: {base: 0}}";
    for (answer, status) in [(Answer::from(503), 503), (Answer::reset(), 502)] {
        let pair = Pair::new(503, answer);
        let gateway = pair.gateway(retry);
        // The second call finds a connection that is open already.
        for n in 1..=2 {
            let response = gateway.post("/", "{}");
            assert_eq!((response.status, pair.counts()), (status, (4 * n, n)));
        }
    }
}

#[test]
fn what_the_other_upstream_has_to_say_is_passed_on() {
    for status in [404, 500, 503] {
        let pair = Pair::new(503, status);
        let gateway = pair.gateway("");
        let response = gateway.get("/");
        assert_eq!((response.status, response.text()), (status, format!("upstream {status}")));
        assert_eq!(pair.counts(), (1, 1));
    }
}

#[test]
fn a_good_answer_is_asked_of_nobody_else() {
    let pair = Pair::new(404, backup());
    let gateway = pair.gateway(BREAKER);
    assert_eq!([gateway.get("/").status, gateway.get("/").status], [404, 404]);
    assert_eq!(pair.counts(), (2, 0));
}

#[test]
fn the_circuits_hear_of_their_own_upstream_only() {
    let pair = Pair::new(503, 503);
    let route = "circuit_breaker: {consecutive: {failures: 2}, open_for: 1m, count: requests}";
    let other = "circuit_breaker: {consecutive: {failures: 3}, open_for: 1m}";
    let gateway = pair.plan(route, other).start();
    (0..2).for_each(|_| _ = gateway.get("/"));
    let (of_route, of_backup) = ("/routes/all/circuit/state", "/upstreams/backup/circuit/state");
    eventually("an open circuit", || (gateway.status().pointer(of_route)? == "open").then_some(()));
    assert_eq!(gateway.status().pointer(of_backup).expect("a circuit"), "closed");
    gateway.get("/");
    assert_eq!(gateway.status().pointer(of_backup).expect("a circuit"), "open");
    assert_eq!(pair.counts(), (2, 3));
}

#[test]
fn a_body_that_was_kept_goes_along() {
    let pair = Pair::new(503, backup());
    let gateway = pair.gateway("retry: {max_retries: 0, methods: any}");
    let body = "x".repeat(60 * 1024);
    assert_eq!(gateway.call(Call::new("POST /").body(&body)).text(), "from the backup");
    assert_eq!(pair.backup.only().body, body.as_bytes());
    assert_eq!(pair.counts(), (1, 1));
}

#[test]
fn a_body_of_which_nothing_was_read_goes_along_whatever_its_size() {
    let pair = Pair::new(500, backup());
    let gateway = pair.gateway(BREAKER);
    gateway.get("/");
    let body = "x".repeat(1024 * 1024);
    assert_eq!(gateway.call(Call::new("POST /").body(&body)).text(), "from the backup");
    let received = pair.backup.only();
    assert_eq!((received.body_length, received.complete), (1024 * 1024, true));
}

#[test]
fn a_body_that_is_gone_keeps_the_request_here() {
    let pair = Pair::new(503, backup());
    let gateway = pair.gateway("retry: {max_retries: 0, methods: any}");
    let body = "x".repeat(200 * 1024);
    let response = gateway.call(Call::new("POST /").body(&body));
    assert_eq!((response.status, response.text().as_str()), (503, "upstream 503"));
    assert_eq!((pair.counts(), calls(&gateway, "attempts_spent")), ((1, 0), 0.0));
}

#[test]
fn what_may_not_be_sent_twice_is_not_sent_elsewhere_either() {
    for answer in [Answer::from(503), Answer::reset()] {
        let pair = Pair::new(answer, backup());
        let gateway = pair.gateway("");
        assert!(gateway.post("/", "{}").status >= 502);
        assert_eq!(pair.counts(), (1, 0));
    }
}

#[test]
fn the_deadline_is_one_for_both() {
    let pair = Pair::new(Answer::hang(), Answer::hang());
    let gateway = pair.gateway("timeout: {attempt: 500ms, request: 800ms}");
    let (response, took) = timed(|| gateway.get("/"));
    assert_eq!((response.status, response.code().as_str()), (504, "deadline_exceeded"));
    assert_within(took, Duration::from_millis(900));
    assert_eq!(pair.counts(), (1, 1));
}

#[test]
fn requests_that_went_elsewhere_leave_nothing_behind() {
    let pair = Pair::new(503, backup());
    let policies = "bulkhead: {max_in_flight: 1}\ncircuit_breaker: {consecutive: {failures: 1}, open_for: 50ms, half_open_calls: 1}";
    let gateway = pair.gateway(policies);
    let mut client = gateway.connect();
    for _ in 0..20 {
        assert_eq!(client.call(&"GET /".into()).text(), "from the backup");
    }
    assert_eq!(pair.backup.count(), 20);
    pair.service.answer_always(200);
    eventually("the service's own answer", || {
        (client.call(&"GET /".into()).text() == "ok").then_some(())
    });
}

#[test]
fn a_reference_that_leads_nowhere_or_back_is_refused() {
    for (name, why) in
        [("bakup", "did you mean `backup`"), ("service", "is the route's own upstream")]
    {
        let pair = Pair::new(200, 200);
        let plan = pair.plan("", "").replacing(ROUTE, &format!("fallback: {{upstream: {name}}}"));
        let (code, log) = plan.fails();
        assert_eq!(code, Some(1));
        assert!(log.contains("routes.all.fallback.upstream") && log.contains(why), "{log}");
    }
}
