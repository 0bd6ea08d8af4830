//! Plain HTTP with JSON, to an upstream that knows only gRPC.

use protox::file::{ChainFileResolver, File, FileResolver, GoogleFileResolver};

use crate::support::{
    Call, Gateway, H2Client, H2Upstream, INVOKE, Plan, Reply, Store, Upstream, frame, message,
    refused_address, request,
};
use crate::transcode::plan;

const SHELVES: &str = r#"
syntax = "proto3";
package library;
import "google/api/annotations.proto";
service Shelves {
  rpc Get(GetRequest) returns (Shelf) {
    option (google.api.http) = {
      get: "/v1/{name=shelves/*}"
      additional_bindings { get: "/v1/titles/{name}" response_body: "title" }
    };
  }
  rpc Create(CreateRequest) returns (Shelf) {
    option (google.api.http) = { post: "/v1/shelves" body: "shelf" };
  }
}
message GetRequest { string name = 1; string view = 2; }
message CreateRequest { string request_id = 1; Shelf shelf = 2; }
message Shelf { string title = 1; }
"#;

struct Sources;

impl FileResolver for Sources {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        match name {
            "google/api/annotations.proto" => {
                File::from_source(name, include_str!("protos/annotations.proto"))
            }
            "shelves.proto" => File::from_source(name, SHELVES),
            _ => Err(protox::Error::file_not_found(name)),
        }
    }
}

/// Every annotated method of a service, on one route.
fn annotated(upstream: &H2Upstream) -> Gateway {
    let mut resolver = ChainFileResolver::new();
    resolver.add(Sources);
    resolver.add(GoogleFileResolver::new());
    let mut compiler = protox::Compiler::with_file_resolver(resolver);
    compiler.include_imports(true).open_file("shelves.proto").expect("a valid file");
    Plan::route("transcode: {descriptors: library, service: library.Shelves, upstream: grpc}")
        .beside("library.binpb", &compiler.encode_file_descriptor_set())
        .section("descriptors: {library: {file: library.binpb}}")
        .h2_upstream(upstream)
        .start()
}

/// Plain HTTP in, gRPC to the upstream.
pub(crate) fn bound(http: &str, policies: &str) -> Plan {
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

#[test]
fn a_route_says_which_statuses_the_codes_become() {
    let upstream = H2Upstream::script([
        Reply::grpc(&message("Hello!"), 0),
        Reply::trailers_only(5),
        Reply::trailers_only(7),
        Reply::trailers_only(5),
    ]);
    let policies = "status_map: {200: 201, 404: 410, 400: 422}";
    let gateway = bound("{path: '/v1/hello', body: '*'}", policies).h2_upstream(&upstream).start();
    let created = gateway.post("/v1/hello", "{}");
    assert_eq!((created.status, created.text().as_str()), (201, "{\"message\":\"Hello!\"}"));
    let gone = gateway.post("/v1/hello", "{}");
    assert_eq!((gone.status, gone.code().as_str()), (410, "not_found"));
    assert_eq!((&gone.json()["status"], &gone.json()["title"]), (&410.into(), &"Gone".into()));
    assert_eq!(gateway.post("/v1/hello", "{}").status, 403);
    let connect = Call::new("POST /v1/hello").header("Connect-Protocol-Version", "1").json("{}");
    assert_eq!(gateway.call(connect).status, 404, "an RPC protocol's status is its code's");
    // What the gateway itself refuses is not the upstream's.
    assert_eq!(gateway.post("/v1/hello", "{").status, 400);
}

#[test]
fn annotations_say_which_requests_are_which_calls() {
    let upstream = H2Upstream::always(Reply::grpc(&message("Novels"), 0));
    let gateway = annotated(&upstream);
    let shelf = "{\"title\":\"Novels\"}";
    assert_eq!(gateway.get("/v1/shelves/7?view=full").text(), shelf);
    assert_eq!(gateway.get("/v1/titles/a%20b").text(), "\"Novels\"");
    let created = gateway.post("/v1/shelves?request_id=r1", shelf);
    assert_eq!((created.status, created.text().as_str()), (200, shelf));
    let seen = upstream.wait_for(3);
    let of = |field: u8, bytes: &[u8]| {
        let head = [field << 3 | 2, u8::try_from(bytes.len()).expect("short")];
        [&head[..], bytes].concat()
    };
    let expected = [
        ("/library.Shelves/Get", [of(1, b"shelves/7"), of(2, b"full")].concat()),
        ("/library.Shelves/Get", of(1, b"a b")),
        ("/library.Shelves/Create", [of(1, b"r1"), of(2, &message("Novels"))].concat()),
    ];
    for (request, (path, message)) in seen.iter().zip(expected) {
        assert_eq!((request.path.as_str(), &request.body), (path, &frame(&message)));
    }
    let wrong = gateway.call(Call::new("DELETE /v1/shelves/7"));
    assert_eq!((wrong.status, wrong.header("allow")), (405, Some("GET")));
    assert_eq!(gateway.get("/v1/elsewhere").status, 404);
    assert_eq!(upstream.count(), 3);
}

#[test]
fn what_is_no_json_goes_nowhere_and_says_what_would_be() {
    let upstream = H2Upstream::always(Reply::grpc(&message("Hello!"), 0));
    let gateway = bound("{path: '/v1/hello', body: '*'}", "").h2_upstream(&upstream).start();
    let post = |name: &str, value: &str, body: &[u8]| {
        gateway.call(Call::new("POST /v1/hello").header(name, value).body(body))
    };
    let form = post("content-type", "application/x-www-form-urlencoded", b"name=Ada");
    assert_eq!((form.status, form.code().as_str()), (415, "unsupported_media_type"));
    assert_eq!(form.header("accept-post"), Some("application/json"));
    let web = post("content-type", "application/grpc-web", &frame(&message("Ada")));
    assert_eq!(web.status, 200);
    assert!(web.text().contains("grpc-status: 12"), "{}", web.text());
    let compressed = post("content-encoding", "br", b"\x1f\x8b");
    let known = compressed.header("accept-encoding");
    assert_eq!((compressed.status, known), (415, Some("gzip, deflate, identity")));
    for body in ["{", "[]", "{\"name\":7}"] {
        let malformed = gateway.post("/v1/hello", body);
        assert_eq!((malformed.status, malformed.code().as_str()), (400, "invalid_body"), "{body}");
        assert_eq!(malformed.header("content-type"), Some("application/problem+json"));
    }
    assert_eq!(upstream.count(), 0);
}

#[test]
fn an_upstream_of_grpc_that_is_late_or_away_is_told_as_ever() {
    let late = H2Upstream::always(Reply::hang());
    let http = "{path: '/v1/hello', body: '*'}";
    let gateway = bound(http, "timeout: {attempt: 100ms}").h2_upstream(&late).start();
    let response = gateway.post("/v1/hello", "{}");
    assert_eq!((response.status, response.code().as_str()), (504, "attempt_timeout"));
    late.wait_cancelled(1);
    let address = refused_address();
    let upstreams =
        format!("upstreams: {{service: {{endpoints: ['http://{address}'], protocol: h2c}}}}");
    let away = bound(http, "fallback: {status: 200, json: {message: 'Not here'}}");
    let response = away.section(&upstreams).start().post("/v1/hello", "{}");
    assert_eq!((response.status, response.text().as_str()), (200, "{\"message\":\"Not here\"}"));
}

#[test]
fn an_answer_of_grpc_is_given_again_for_its_key() {
    let upstream =
        H2Upstream::script([Reply::grpc(&message("Hello!"), 0), Reply::trailers_only(5)]);
    let gateway = bound("{path: '/v1/hello', body: '*'}", "idempotency: {}");
    let gateway = gateway.h2_upstream(&upstream).start();
    for (key, status) in [("a", 200), ("b", 404)] {
        let call = || Call::new("POST /v1/hello").header("idempotency-key", key).json("{}");
        let first = gateway.call(call());
        let again = gateway.call(call());
        assert_eq!((first.status, again.status), (status, status));
        assert_eq!(again.header("idempotency-replayed"), Some("true"));
        assert_eq!(again.body, first.body);
    }
    assert_eq!(upstream.count(), 2);
}

#[test]
fn grpc_is_not_called_over_http_1() {
    let upstream = Upstream::start();
    let transcode = "transcode: {descriptors: gateway, method: gateway.v1.GatewayService/InvokeCustom, upstream: grpc, http: {path: /}}";
    let more = "fallback: {upstream: other}";
    let both = "upstreams: {service: {endpoints: ['http://127.0.0.1:9'], protocol: h2c}, other: {endpoints: ['http://127.0.0.1:9']}}";
    let (_, log) = plan(transcode).upstream(&upstream).fails();
    assert!(log.contains("routes.all.transcode.upstream: gRPC needs HTTP/2"), "{log}");
    let (_, log) = plan(&format!("{transcode}\n{more}")).section(both).fails();
    assert!(log.contains("routes.all.fallback.upstream: gRPC needs HTTP/2"), "{log}");
}
