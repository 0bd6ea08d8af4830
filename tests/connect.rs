//! Refusals and upstream errors as a Connect client reads them.

use crate::support::{
    Answer, CODES_OF_STATUS, Call, Gateway, Issuer, Plan, Response, Upstream, eventually,
};

#[track_caller]
fn assert_connect(response: &Response, status: u16, code: &str) {
    assert_eq!((response.status, response.code().as_str()), (status, code), "{}", response.text());
    assert_eq!(response.header("content-type"), Some("application/json"));
    let error = response.json();
    assert!(error["message"].as_str().is_some_and(|text| !text.is_empty()), "{error}");
}

#[test]
fn an_upstreams_status_becomes_its_code_with_its_message() {
    for (status, code) in CODES_OF_STATUS {
        let upstream = Upstream::always(Answer::json(status, "{\"error\":\"so it is\"}"));
        let response = Gateway::route(&upstream, "errors: connect").post("/", "{}");
        assert_eq!(response.code(), code, "{status}");
        assert_eq!(response.json()["message"], "so it is");
        assert_eq!(response.header("content-type"), Some("application/json"));
        let length = response.header("content-length").map(str::to_owned);
        assert!(length.is_none_or(|l| l == response.body_length.to_string()), "{status}");
    }
}

#[test]
fn a_success_passes_as_it_is() {
    let upstream = Upstream::always(Answer::json(200, "{\"error\":\"not one\"}"));
    let response = Gateway::route(&upstream, "errors: connect").post("/", "{}");
    assert_eq!((response.status, response.text().as_str()), (200, "{\"error\":\"not one\"}"));
}

#[test]
fn an_upstream_that_speaks_connect_is_passed_on_as_it_is() {
    let body = "{\"code\":\"failed_precondition\",\"message\":\"no\"}";
    let upstream = Upstream::always(Answer::json(400, body));
    let response = Gateway::route(&upstream, "errors: connect").post("/", "{}");
    assert_eq!((response.status, response.text().as_str()), (400, body));
}

#[test]
fn an_error_page_becomes_an_error_without_its_markup() {
    let upstream = Upstream::always(Answer::from(503).body("<html>oops</html>"));
    let response = Gateway::route(&upstream, "errors: connect").post("/", "{}");
    assert_connect(&response, 503, "unavailable");
    assert!(!response.text().contains("html"), "{}", response.text());
}

#[test]
fn every_refusal_is_a_connect_error() {
    let (upstream, issuer) = (Upstream::always(503), Issuer::start());
    let sections = "auth: {accounts: {jwt: {issuer: auth-service, audience: any, algorithms: [RS256], jwks: {url: '${JWKS_URL}'}}}}";
    let route = "
errors: connect
auth: {require: accounts, anonymous: [/open]}
rate_limit: {fixed_window: {requests: 3, per: 1m}, key: client_address}
circuit_breaker: {consecutive: {failures: 2}}
max_body: 1KiB";
    let plan = Plan::route(route).section(sections).env("JWKS_URL", &issuer.url());
    let gateway = plan.upstream(&upstream).start();
    assert_connect(&gateway.post("/", "{}"), 401, "unauthenticated");
    assert_eq!(gateway.post("/open", "{}").status, 503);
    assert_eq!(gateway.post("/open", "{}").status, 503);
    let open = gateway.post("/open", "{}");
    assert_connect(&open, 503, "unavailable");
    assert!(open.retry_after() > 0);
    let limited = gateway.post("/open", "{}");
    assert_connect(&limited, 429, "resource_exhausted");
    assert!(limited.retry_after() > 0);
    assert_eq!(upstream.count(), 2);
}

#[test]
fn a_timeout_is_deadline_exceeded() {
    let upstream = Upstream::always(Answer::hang());
    let gateway = Gateway::route(&upstream, "errors: connect\ntimeout: {attempt: 100ms}");
    assert_connect(&gateway.post("/", "{}"), 504, "deadline_exceeded");
}

#[test]
fn an_upstream_that_is_not_there_is_unavailable() {
    let plan = Plan::route("errors: connect").env("UPSTREAM", "http://127.0.0.1:9");
    assert_connect(&plan.start().post("/", "{}"), 503, "unavailable");
}

#[test]
fn a_full_bulkhead_is_resource_exhausted() {
    let upstream = Upstream::script([Answer::ok().held()]);
    let gateway = Gateway::route(&upstream, "errors: connect\nbulkhead: {max_in_flight: 1}");
    let mut first = gateway.connect();
    first.send(Call::new("POST /").json("{}").bytes());
    upstream.wait_for(1);
    assert_connect(&gateway.post("/", "{}"), 429, "resource_exhausted");
}

#[test]
fn absent_and_empty_fields_get_their_defaults() {
    let upstream = Upstream::start();
    let gateway = Gateway::route(&upstream, "json: {defaults: {name: World}}");
    for body in
        ["{}", "{\"name\":\"\"}", "{\"name\":null}", "{\"name\":\"Ada\"}", "{\"other\":[1]}"]
    {
        assert_eq!(gateway.post("/", body).status, 200, "{body}");
    }
    let sent: Vec<serde_json::Value> = upstream
        .wait_complete(5)
        .iter()
        .map(|r| serde_json::from_slice(&r.body).expect("JSON upstream"))
        .collect();
    let names: Vec<_> = sent.iter().map(|body| body["name"].as_str()).collect();
    assert_eq!(names, [Some("World"), Some("World"), Some("World"), Some("Ada"), Some("World")]);
    assert_eq!(sent[4]["other"][0], 1);
    for request in upstream.requests() {
        let length = request.header("content-length").map(str::to_owned);
        assert!(length.is_none_or(|l| l == request.body_length.to_string()));
    }
}

#[test]
fn what_is_no_json_object_is_invalid_argument_and_not_forwarded() {
    let upstream = Upstream::start();
    let gateway = Gateway::route(&upstream, "json: {defaults: {name: World}}\nerrors: connect");
    for body in ["{", "[]", "\"x\"", "{\"a\":1}{\"b\":2}"] {
        assert_connect(&gateway.post("/", body), 400, "invalid_argument");
    }
    eventually("no request", || (upstream.count() == 0).then_some(()));
}
