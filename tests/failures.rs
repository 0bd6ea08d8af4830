//! Why a request failed: one line in the log, one word in the record, the same for each cause.

use std::time::Duration;

use crate::support::{
    Answer, Authority, Blackhole, Call, Gateway, Leaf, Plan, Store, Upstream, eventually,
    eventually_within, refused_address,
};

/// The lines that tell of failures of `upstream`.
fn lines(gateway: &Gateway, upstream: &str) -> Vec<String> {
    let of = format!("upstreams.{upstream}: ");
    let log = gateway.log();
    let lines = log.lines().filter(|line| line.contains(&of) && line.contains("cause="));
    lines.map(str::to_owned).collect()
}

#[track_caller]
fn line(gateway: &Gateway, upstream: &str) -> String {
    eventually(&format!("a line about {upstream}"), || lines(gateway, upstream).pop())
}

/// An upstream and a route for each name, the endpoint beside it.
fn plan(upstreams: &[(&str, String)], policies: &str) -> Plan {
    let mut yaml = "upstreams:\n".to_owned();
    for (name, url) in upstreams {
        yaml += &format!("  {name}: {{endpoints: ['{url}']}}\n");
    }
    yaml += "routes:\n";
    for (name, _) in upstreams {
        yaml += &format!(
            "  {name}: {{match: {{path: /{name}}}, upstream: {name}, record: {{mode: sync}}, {policies}}}\n"
        );
    }
    Plan::new(&yaml)
}

#[test]
fn each_failure_is_a_line_with_its_cause_and_so_is_its_row() {
    let scripted = |answer: Answer| Upstream::always(answer);
    let (closes, resets, hangs) =
        (scripted(Answer::close()), scripted(Answer::reset()), scripted(Answer::hang()));
    let (no_http, fails) =
        (scripted(Answer::verbatim("SSH-2.0-OpenSSH\r\n\r\n")), scripted(Answer::from(503)));
    let (refused, full) = (refused_address(), Blackhole::start());
    let upstreams = [
        ("refused", format!("http://{refused}")),
        ("full", full.url()),
        ("closes", closes.url()),
        ("resets", resets.url()),
        ("hangs", hangs.url()),
        ("garbage", no_http.url()),
        ("fails", fails.url()),
        ("nameless", "http://no-such-host.invalid:80".to_owned()),
    ];
    let policies = "timeout: {connect: 300ms, attempt: 600ms}";
    let gateway = plan(&upstreams, policies).start();
    let expected = [
        ("refused", "connect_refused", format!("connection refused {refused};")),
        ("full", "connect_timeout", "no connection within the connect timeout".to_owned()),
        ("closes", "closed", "connection closed early".to_owned()),
        ("resets", "reset", "connection broke".to_owned()),
        ("hangs", "attempt_timeout", "no complete response within the attempt timeout".to_owned()),
        ("garbage", "invalid_response", "response is not valid HTTP".to_owned()),
        ("fails", "upstream_5xx", "status 503".to_owned()),
        ("nameless", "dns", "no-such-host.invalid".to_owned()),
    ];
    for (upstream, _, _) in &expected {
        let call = Call::new(&format!("GET /{upstream}"));
        let answer = gateway.call(call.header("X-Request-Id", &format!("id-{upstream}")));
        assert!(answer.status >= 500, "{upstream}");
    }
    let rows = Store::Sqlite.wait_for_rows(&gateway, expected.len());
    for (upstream, cause, words) in &expected {
        let line = line(&gateway, upstream);
        let attempts = u32::from(*upstream != "nameless");
        for part in [
            format!("cause={cause} "),
            format!("route={upstream} "),
            format!("attempts={attempts} "),
            format!("request_id=id-{upstream}"),
            words.clone(),
        ] {
            assert!(line.contains(&part), "{part}: {line}");
        }
        assert_eq!(lines(&gateway, upstream).len(), 1, "{upstream}");
        let row = rows.iter().find(|row| row.text("route") == Some(upstream)).expect("its row");
        assert_eq!(row.text("cause"), Some(*cause));
    }
}

#[test]
fn a_request_that_succeeds_or_is_refused_says_nothing_of_its_upstream() {
    let upstream = Upstream::script([Answer::ok(), Answer::from(404)]);
    let policies = "rate_limit: {fixed_window: {requests: 2, per: 1m}}\nrecord: {mode: sync}";
    let gateway = Gateway::route(&upstream, policies);
    assert_eq!([(); 3].map(|()| gateway.get("/").status), [200, 404, 429]);
    let rows = Store::Sqlite.wait_for_rows(&gateway, 3);
    let causes: Vec<_> = rows.iter().map(|row| row.text("cause")).collect();
    assert_eq!(causes, [None, Some("upstream_4xx"), Some("rate_limited")]);
    let mut gateway = gateway;
    gateway.signal("TERM");
    gateway.exit();
    assert_eq!(lines(&gateway, "service"), [""; 0]);
}

#[test]
fn a_retried_request_is_one_line_that_counts_its_attempts() {
    let upstream = Upstream::always(503);
    let gateway = Gateway::route(&upstream, "retry: {max_retries: 2, backoff: {base: 1ms}}");
    gateway.get("/");
    let line = line(&gateway, "service");
    assert!(line.contains("attempts=3 ") && line.contains("no_retry=exhausted"), "{line}");
    assert_eq!(lines(&gateway, "service").len(), 1);
}

#[test]
fn many_failures_of_one_kind_are_one_line_and_one_that_counts_them() {
    let refused = format!("http://{}", refused_address());
    let mut gateway = plan(&[("service", refused)], "").start();
    for _ in 0..40 {
        gateway.get("/service");
    }
    gateway.signal("TERM");
    gateway.exit();
    let all = lines(&gateway, "service");
    let [first, last] = &all[..] else { panic!("two lines: {all:#?}") };
    assert!(first.contains("WARN") && first.contains("request_id="), "{first}");
    assert!(
        last.contains("no more of these failures after") && last.contains("(40 times)"),
        "{last}"
    );
}

#[test]
fn a_circuit_says_when_it_opens_and_closes_and_why() {
    let upstream = Upstream::script([500, 500]);
    let gateway =
        Gateway::route(&upstream, "circuit_breaker: {consecutive: {failures: 2}, open_for: 300ms}");
    gateway.get("/");
    assert!(!gateway.log().contains("the circuit of"));
    gateway.get("/");
    gateway.wait_for_log("the circuit of route all opened: 2 failures in a row");
    eventually("a circuit that is closed again", || (gateway.get("/").status == 200).then_some(()));
    gateway.wait_for_log("the circuit of route all closed after");
    assert_eq!(gateway.log().matches("the circuit of").count(), 2);
}

#[test]
fn a_circuit_that_opens_by_its_rate_says_of_how_many_calls_how_many_failed() {
    let upstream = Upstream::script([500, 200, 500, 500]);
    let window = "circuit_breaker: {window: {calls: 10, minimum_calls: 4, failure_rate: 75%}, \
                  open_for: 1m}";
    let gateway = Gateway::route(&upstream, window);
    for _ in 0..3 {
        gateway.get("/");
    }
    assert!(!gateway.log().contains("the circuit of"));
    gateway.get("/");
    let line = "the circuit of route all opened: of 4 calls 3 failed and 0 were slow; calls are \
                refused for 60s";
    gateway.wait_for_log(line);
    assert_eq!(gateway.get("/").status, 503);
    assert_eq!(gateway.log().matches("the circuit of").count(), 1);
}

/// Requests to an upstream that shows `leaf`, from a gateway that trusts `trusted`.
pub(crate) fn over_tls(leaf: &Leaf, trusted: &Authority) -> (Gateway, Gateway) {
    let listener = "listeners: {public: {address: \"127.0.0.1:${PORT}\", tls: {certificates: [{certificate: one.pem, key: one.key}]}}}";
    let behind = Plan::new("routes: {all: {match: {path: /*}, serve: live}}").section(listener);
    let behind = behind.beside("one.pem", &leaf.pem()).beside("one.key", &leaf.key_pem()).start();
    let service = format!(
        "upstreams: {{service: {{endpoints: ['https://{}'], tls: {{server_name: one.test, ca: ca.pem}}}}}}",
        behind.address
    );
    let route = "record: {mode: sync}\nretry: {max_retries: 1, on: [connect_failure], backoff: {base: 1ms}}";
    let plan = Plan::route(route).section(&service).beside("ca.pem", &trusted.pem());
    (plan.start(), behind)
}

#[test]
fn a_certificate_that_is_not_accepted_is_told_by_its_fault() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    for (leaf, trusted, cause, words) in [
        (ours.sign_expired("one.test"), &ours, "tls_expired", "certificate expired"),
        (ours.sign("two.test"), &ours, "tls_wrong_name", "not valid for name"),
        // Both authorities have the same name.
        (ours.sign("one.test"), &theirs, "tls_unknown_authority", "has another key"),
    ] {
        let (gateway, _behind) = over_tls(&leaf, trusted);
        let answer = gateway.get("/");
        assert_eq!((answer.status, answer.code().as_str()), (502, cause));
        let line = line(&gateway, "service");
        assert!(line.contains(&format!("cause={cause} ")) && line.contains(words), "{line}");
        let attempts = |outcome| {
            let labels = [("upstream", "service"), ("outcome", outcome)];
            gateway.metric("portcullis_upstream_attempts_total", &labels)
        };
        // As ever, `connect_failure` in a list covers it: it was tried again.
        assert_eq!((attempts("tls_failure"), attempts("connect_failure")), (2.0, 0.0));
        let row = &Store::Sqlite.wait_for_rows(&gateway, 1)[0];
        assert_eq!((row.text("cause"), row.number("attempts")), (Some(cause), 2));
    }
}

#[test]
fn a_retry_goes_to_endpoints_that_were_not_tried() {
    let upstreams: Vec<_> = (0..4).map(|_| Upstream::always(503)).collect();
    let urls: Vec<_> = upstreams.iter().map(Upstream::url).collect();
    let yaml = format!(
        "upstreams: {{service: {{endpoints: {urls:?}, ejection: off}}}}
routes: {{all: {{match: {{path: /*}}, upstream: service, retry: {{max_retries: 3, budget: unlimited, backoff: {{base: 20ms}}}}}}}}"
    );
    let gateway = Plan::new(&yaml).start();
    // At once, so that each moves the others' turns on between their attempts.
    std::thread::scope(|scope| {
        for n in 0..24 {
            let call = Call::new(&format!("GET /{n}"));
            let gateway = &gateway;
            scope.spawn(move || assert_eq!(gateway.call(call).status, 503));
        }
    });
    for upstream in &upstreams {
        let mut paths: Vec<_> = upstream.requests().iter().map(|r| r.target.clone()).collect();
        paths.sort();
        paths.dedup();
        assert_eq!((paths.len(), upstream.count()), (24, 24), "each request once: {paths:?}");
    }
}

#[test]
fn a_name_that_is_not_resolved_shows_in_the_metrics() {
    let nameless = "http://no-such-host.invalid:80".to_owned();
    let upstream = Upstream::start();
    let gateway = plan(&[("nameless", nameless), ("service", upstream.url())], "").start();
    let of = |name: &str, upstream| gateway.metric(name, &[("upstream", upstream)]);
    eventually("failed look-ups, and how long for", || {
        let failed = of("portcullis_upstream_failed_lookups_total", "nameless");
        let seconds = of("portcullis_upstream_unresolved_seconds", "nameless");
        (failed >= 1.0 && seconds >= 1.0).then_some(())
    });
    assert_eq!(of("portcullis_upstream_failed_lookups_total", "service"), 0.0);
    assert_eq!(of("portcullis_upstream_unresolved_seconds", "service"), 0.0);
    let said = "upstreams.nameless: cannot resolve no-such-host.invalid";
    assert_eq!(gateway.log().matches(said).count(), 1, "once, however often it is looked up");
}

/// Servers of gRPC close connections that are asked more often than they allow ("Too many pings").
#[test]
fn a_silent_stream_of_http2_is_not_asked_whether_it_is_there_unless_configured() {
    use crate::support::{H2Client, H2Upstream, Reply, request};
    let streams: Vec<_> = ["", ", h2_ping_interval: 10s"]
        .map(|more| {
            let upstream = H2Upstream::always(Reply::stall());
            let service = format!(
                "upstreams: {{service: {{endpoints: ['{}'], protocol: h2c{more}}}}}",
                upstream.url()
            );
            let gateway = Plan::route("timeout: {request: 0s, attempt: 0s, idle: 0s}");
            let gateway = gateway.section(&service).start();
            let client = H2Client::connect(gateway.address);
            let stream = client.open(request("GET", "/").body(()).unwrap(), true);
            upstream.wait_for(1);
            (upstream, gateway, client, stream)
        })
        .into();
    // After 10 s, the shortest interval there may be; the other stream is as old.
    eventually_within(Duration::from_secs(20), "a ping where one is asked for", || {
        (streams[1].0.pings() >= 1).then_some(())
    });
    assert_eq!(streams[0].0.pings(), 0, "none by default");
    assert!(streams.iter().all(|(upstream, ..)| !upstream.requests()[0].cancelled));
}
