//! Plain HTTP with JSON, to an upstream that knows only gRPC.

use crate::support::{
    Call, H2Client, H2Upstream, INVOKE, Plan, Reply, Store, frame, message, request,
};
use crate::transcode::plan;

/// Plain HTTP in, gRPC to the upstream.
fn bound(http: &str, policies: &str) -> Plan {
    let transcode = format!(
        "transcode: {{descriptors: gateway, method: gateway.v1.GatewayService/InvokeCustom, upstream: grpc, http: {http}}}"
    );
    plan(&format!("{transcode}\n{policies}"))
}

#[track_caller]
fn assert_called(upstream: &H2Upstream, names: &[&str]) {
    let seen = upstream.requests();
    let bodies: Vec<_> = seen.iter().map(|r| r.body.clone()).collect();
    assert_eq!(bodies, names.iter().map(|name| frame(&message(name))).collect::<Vec<_>>());
    for request in seen {
        assert_eq!((request.method.as_str(), request.path.as_str()), ("POST", INVOKE));
        assert_eq!(request.headers["content-type"], "application/grpc");
        assert_eq!(request.headers["te"], "trailers");
        assert!(request.headers.contains_key("grpc-timeout"));
    }
}

#[test]
fn plain_http_is_answered_by_an_upstream_of_grpc() {
    let upstream = H2Upstream::always(Reply::grpc(&message("Hello!"), 0));
    let gateway = bound("{path: '/v1/hello', body: '*'}", "").h2_upstream(&upstream).start();
    let mut client = gateway.connect();
    let http2 = H2Client::connect(gateway.address);
    for name in ["Ada", "Bob"] {
        let json = format!("{{\"name\":\"{name}\"}}");
        let response = client.call(&Call::new("POST /v1/hello").json(&json));
        assert_eq!((response.status, response.text().as_str()), (200, "{\"message\":\"Hello!\"}"));
        assert_eq!(response.header("content-type"), Some("application/json"));
        assert_eq!(response.header("grpc-status"), None);
        let head = request("POST", "/v1/hello").header("content-type", "application/json");
        let response = http2.call(head.body(json.as_bytes()).unwrap());
        assert_eq!((response.status, response.text().as_str()), (200, "{\"message\":\"Hello!\"}"));
    }
    assert_called(&upstream, &["Ada", "Ada", "Bob", "Bob"]);
}

#[test]
fn a_request_without_a_body_becomes_a_message_too() {
    let upstream = H2Upstream::always(Reply::grpc(&message("Hello!"), 0));
    let gateway =
        bound("{method: GET, path: '/v1/hello/{name}'}", "").h2_upstream(&upstream).start();
    let mut client = gateway.connect();
    let http2 = H2Client::connect(gateway.address);
    for _ in 0..3 {
        let response = client.call(&Call::new("GET /v1/hello/A%20b"));
        assert_eq!((response.status, response.text().as_str()), (200, "{\"message\":\"Hello!\"}"));
        let response = http2.get("/v1/hello/A%20b");
        assert_eq!((response.status, response.text().as_str()), (200, "{\"message\":\"Hello!\"}"));
    }
    let wrong = client.call(&Call::new("POST /v1/hello/A").json("{}"));
    assert_eq!((wrong.status, wrong.header("allow")), (405, Some("GET")));
    assert_eq!(gateway.get("/v1/other").status, 404);
    assert_called(&upstream, &["A b"; 6]);
}

#[test]
fn errors_of_grpc_are_statuses_of_http() {
    let broken = Reply::grpc(b"\x0a\x09", 0);
    let http = "{path: '/v1/hello', body: '*'}";
    for (reply, status, code) in [
        (Reply::trailers_only(5), 404, "not_found"),
        (Reply::grpc(b"", 7).trailer("grpc-message", "not%20you"), 403, "permission_denied"),
        (Reply::trailers_only(99), 500, "unknown"),
        (Reply::status(503), 503, "unavailable"),
        (broken, 502, "answer_unreadable"),
    ] {
        let upstream = H2Upstream::always(reply);
        let gateway = bound(http, "").h2_upstream(&upstream).start();
        let response = gateway.post("/v1/hello", "{}");
        assert_eq!((response.status, response.code().as_str()), (status, code));
        if status == 403 {
            assert_eq!(response.json()["detail"], "not you");
        }
        let malformed = gateway.post("/v1/hello", "{\"name\":");
        assert_eq!((malformed.status, malformed.code().as_str()), (400, "invalid_body"));
        assert_eq!(upstream.count(), 1);
    }
    let upstream = H2Upstream::script([Reply::grpc(b"", 14), Reply::grpc(&message("Hello!"), 0)]);
    let retry = "retry: {max_retries: 1, methods: any, on: [grpc_unavailable], backoff: {base: 1ms, max: 1ms}}";
    let record =
        "record: {mode: sync, capture: {name: request.name, result_message: response.message}}";
    let plan = bound(http, &format!("{retry}\n{record}")).section(&Store::Sqlite.section());
    let gateway = plan.h2_upstream(&upstream).start();
    let response = gateway.post("/v1/hello", "{\"name\":\"Ada\"}");
    assert_eq!((response.status, response.text().as_str()), (200, "{\"message\":\"Hello!\"}"));
    assert_called(&upstream, &["Ada", "Ada"]);
    let row = &Store::Sqlite.wait_for_rows(&gateway, 1)[0];
    assert_eq!((row.text("name"), row.text("result_message")), (Some("Ada"), Some("Hello!")));
}
