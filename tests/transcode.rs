//! Calls of RPC in every protocol, to an upstream that knows only HTTP and JSON.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::support::{
    Answer, Call, Gateway, H2Client, H2Upstream, Plan, Reply, Response, Store, Upstream,
    eventually, frame, request,
};

const PATH: &str = "/gateway.v1.GatewayService/InvokeCustom";

fn plan(policies: &str) -> Plan {
    let descriptors = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/gateway.binpb");
    let section = format!("descriptors: {{gateway: {{file: '{}'}}}}", descriptors.display());
    Plan::route(policies).section(&section)
}

/// The shipped mapping, and further policies.
fn mapped(policies: &str) -> Plan {
    let transcode = "transcode: {descriptors: gateway, method: gateway.v1.GatewayService/InvokeCustom, http: {path: /invoke, body: '*'}, defaults: {name: World}}";
    plan(&format!("{transcode}\n{policies}"))
}

fn start(upstream: &Upstream, policies: &str) -> Gateway {
    mapped(policies).upstream(upstream).start()
}

fn hello() -> Answer {
    Answer::json(200, "{\"message\":\"Hello!\",\"more\":[1]}")
}

/// Either message with its one field, a string.
fn message(text: &str) -> Vec<u8> {
    let length = u8::try_from(text.len()).expect("a short text");
    [&[0x0a, length], text.as_bytes()].concat()
}

fn call(content_type: &str, body: impl AsRef<[u8]>) -> Call {
    Call::new(&format!("POST {PATH}")).header("content-type", content_type).body(body)
}

/// Callers over HTTP/1.1: their content type, and how they frame a message.
fn framings() -> [(&'static str, fn(&[u8]) -> Vec<u8>); 3] {
    [
        ("application/proto", <[u8]>::to_vec),
        ("application/grpc-web+proto", frame),
        ("application/grpc-web-text", |message| STANDARD.encode(frame(message)).into_bytes()),
    ]
}

/// The status of RPC that an answer of gRPC-Web has.
#[track_caller]
fn web_status(response: &Response) -> String {
    let mut body = response.body.clone();
    if response.header("content-type").is_some_and(|t| t.contains("text")) {
        body = STANDARD.decode(body).expect("Base64");
    }
    let text = String::from_utf8_lossy(&body).to_ascii_lowercase();
    let (_, status) = text.split_once("grpc-status:").expect("a status");
    status.chars().skip_while(|c| *c == ' ').take_while(char::is_ascii_digit).collect()
}

#[track_caller]
fn assert_sent(upstream: &Upstream, bodies: &[&str]) {
    let seen = upstream.wait_complete(bodies.len());
    assert_eq!(seen.iter().map(|r| r.text()).collect::<Vec<_>>(), bodies);
    for request in seen {
        assert_eq!((request.method.as_str(), request.target.as_str()), ("POST", "/invoke"));
        assert_eq!(request.header("content-type"), Some("application/json"));
        let length = request.header("content-length").map(str::to_owned);
        assert_eq!(length, Some(request.body_length.to_string()));
        for name in ["connect-protocol-version", "x-grpc-web", "te", "grpc-timeout"] {
            assert_eq!(request.header(name), None, "{name}");
        }
    }
}

#[test]
fn connect_in_json_is_answered_in_json() {
    let upstream = Upstream::always(hello());
    let gateway = start(&upstream, "");
    let mut client = gateway.connect();
    for body in ["{\"name\":\"Ada\",\"unknown\":1}", "{\"name\":\"\"}", "{}"] {
        let versioned = call("application/json", body).header("connect-protocol-version", "1");
        let response = client.call(&versioned);
        assert_eq!((response.status, response.text().as_str()), (200, "{\"message\":\"Hello!\"}"));
        assert_eq!(response.header("content-type"), Some("application/json"));
    }
    let response = client.call(&call("application/json; charset=utf-8", "{\"name\":\"B\"}"));
    assert_eq!(response.text(), "{\"message\":\"Hello!\"}");
    let world = "{\"name\":\"World\"}";
    assert_sent(&upstream, &["{\"name\":\"Ada\"}", world, world, "{\"name\":\"B\"}"]);
}

#[test]
fn connect_in_proto_and_both_kinds_of_grpc_web_are_answered_as_they_ask() {
    let upstream = Upstream::always(hello());
    let gateway = start(&upstream, "");
    let mut client = gateway.connect();
    for (content_type, framed) in framings() {
        for text in [message("Ada"), Vec::new()] {
            let response =
                client.call(&call(content_type, framed(&text)).header("x-grpc-web", "1"));
            assert_eq!(response.status, 200, "{content_type}: {}", response.text());
            assert_eq!(response.header("content-type"), Some(content_type));
            let trailers = b"\x80\0\0\0\x0fgrpc-status:0\r\n";
            let expected = match content_type {
                "application/proto" => message("Hello!"),
                "application/grpc-web+proto" => [&frame(&message("Hello!"))[..], trailers].concat(),
                _ => STANDARD
                    .encode([&frame(&message("Hello!"))[..], trailers].concat())
                    .into_bytes(),
            };
            assert_eq!(response.body, expected, "{content_type}");
        }
    }
    let (ada, world) = ("{\"name\":\"Ada\"}", "{\"name\":\"World\"}");
    assert_sent(&upstream, &[ada, world, ada, world, ada, world]);
}

#[test]
fn grpc_is_answered_with_a_message_and_trailers() {
    let upstream =
        Upstream::script([hello(), Answer::json(404, "{\"error\":\"none\"}"), Answer::from(503)]);
    let gateway = start(&upstream, "");
    let client = H2Client::connect(gateway.address);
    let call = |body: &[u8]| {
        let head = request("POST", PATH)
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        client.call(head.body(body).unwrap())
    };
    let good = call(&frame(&message("Ada")));
    assert_eq!((good.status, &good.body[..]), (200, &frame(&message("Hello!"))[..]));
    assert_eq!(good.header("content-type"), Some("application/grpc"));
    assert_eq!(good.trailers.as_ref().expect("trailers")["grpc-status"], "0");
    let missing = call(&frame(&message("Ada")));
    assert_eq!((missing.status, missing.status_field("grpc-status")), (200, Some("5")));
    assert_eq!(missing.status_field("grpc-message"), Some("none"));
    let unavailable = call(&frame(&message("Ada")));
    assert_eq!(unavailable.status_field("grpc-status"), Some("14"));
    assert_sent(&upstream, &["{\"name\":\"Ada\"}"; 3]);
    let malformed = call(b"\0\0\0\0\x02\x0a\x09");
    assert_eq!(malformed.status_field("grpc-status"), Some("3"));
    let compressed = call(b"\x01\0\0\0\x00");
    assert_eq!(compressed.status_field("grpc-status"), Some("13"));
    assert_eq!(upstream.count(), 3);
}

#[test]
fn every_error_of_the_upstream_is_one_of_rpc() {
    for (status, code, number) in [
        (400, "invalid_argument", "3"),
        (401, "unauthenticated", "16"),
        (403, "permission_denied", "7"),
        (404, "not_found", "5"),
        (409, "already_exists", "6"),
        (429, "resource_exhausted", "8"),
        (500, "internal", "13"),
        (502, "unavailable", "14"),
        (503, "unavailable", "14"),
        (504, "deadline_exceeded", "4"),
        (507, "internal", "13"),
    ] {
        for body in ["{\"error\":\"so it is\"}", ""] {
            let upstream = Upstream::always(Answer::json(status, body).header("Retry-After", "7"));
            let gateway = start(&upstream, "");
            let json = gateway.call(call("application/json", "{}"));
            assert_eq!(json.code(), code, "{status}");
            assert_eq!(json.json()["details"][0]["type"], "google.rpc.RetryInfo");
            let length = json.header("content-length").map(str::to_owned);
            assert_eq!(length, Some(json.body_length.to_string()));
            let proto = gateway.call(call("application/proto", message("Ada")));
            assert_eq!((proto.status, proto.code().as_str()), (json.status, code));
            assert_eq!(proto.header("content-type"), Some("application/json"));
            for (content_type, framed) in &framings()[1..] {
                let web = gateway.call(call(content_type, framed(&message("Ada"))));
                assert_eq!((web.status, web_status(&web).as_str()), (200, number), "{status}");
            }
            if !body.is_empty() {
                assert_eq!(json.json()["message"], "so it is");
            }
        }
    }
}

#[test]
fn what_is_malformed_never_reaches_the_upstream() {
    let upstream = Upstream::always(hello());
    let gateway = start(&upstream, "");
    for body in ["{", "[]", "\"x\"", "{\"name\":7}", "{\"name\":\"a\"}{}", ""] {
        let response = gateway.call(call("application/json", body));
        assert_eq!(
            (response.status, response.code().as_str()),
            (400, "invalid_argument"),
            "{body}"
        );
    }
    let truncated = [0x0a, 9, b'A'];
    let proto = gateway.call(call("application/proto", truncated));
    assert_eq!((proto.status, proto.code().as_str()), (400, "invalid_argument"));
    for body in [
        frame(&truncated),
        Vec::new(),
        vec![0, 0, 0, 0, 9, 1],
        [frame(&message("A")), frame(&message("B"))].concat(),
        vec![4, 0, 0, 0, 0],
    ] {
        let web = gateway.call(call("application/grpc-web", &body));
        assert_eq!(web_status(&web), "3", "{body:?}");
    }
    let text = gateway.call(call("application/grpc-web-text", "AAA*"));
    assert_eq!(web_status(&text), "3");
    assert_eq!(upstream.count(), 0);
}

#[test]
fn what_is_compressed_or_of_another_type_is_unimplemented() {
    let upstream = Upstream::always(hello());
    let gateway = start(&upstream, "");
    let gzip = |call: Call, header: &str| gateway.call(call.header(header, "gzip"));
    let unary = gzip(call("application/json", "{}"), "content-encoding");
    assert_eq!((unary.status, unary.code().as_str()), (501, "unimplemented"));
    let web = gzip(call("application/grpc-web", b"\x01\0\0\0\0"), "grpc-encoding");
    assert_eq!(web_status(&web), "12");
    // An encoding that is named need not be used.
    let plain = gzip(call("application/grpc-web", frame(&message("A"))), "grpc-encoding");
    assert_eq!(web_status(&plain), "0");
    for content_type in ["text/plain", "application/x-www-form-urlencoded"] {
        let response = gateway.call(call(content_type, "{}"));
        assert_eq!(response.code(), "unimplemented", "{content_type}");
    }
    let other = gateway.call(Call::new("POST /gateway.v1.GatewayService/Other").json("{}"));
    assert_eq!(other.code(), "unimplemented");
    let get =
        gateway.call(Call::new(&format!("GET {PATH}?connect=v1&encoding=json&message=%7B%7D")));
    assert_eq!((get.code().as_str(), get.header("allow")), ("unimplemented", Some("POST")));
    assert_eq!(upstream.count(), 1);
}

#[test]
fn messages_are_bounded_both_ways() {
    let transcode = |limit| {
        format!(
            "transcode: {{descriptors: gateway, method: gateway.v1.GatewayService/InvokeCustom, http: {{path: /invoke, body: '*'}}, max_message: {limit}}}"
        )
    };
    let long = "x".repeat(2000);
    let upstream = Upstream::always(Answer::json(200, &format!("{{\"message\":\"{long}\"}}")));
    let gateway = plan(&transcode("1KiB")).upstream(&upstream).start();
    let request = gateway.call(call("application/json", format!("{{\"name\":\"{long}\"}}")));
    assert_eq!(request.code(), "resource_exhausted");
    assert_eq!(upstream.count(), 0);
    let answer = gateway.call(call("application/json", "{}"));
    assert_eq!(answer.code(), "resource_exhausted");
    upstream.answer_always(Answer::chunked(&format!("{{\"message\":\"{long}\"}}"), 100));
    let answer = gateway.call(call("application/json", "{}"));
    assert_eq!(answer.code(), "resource_exhausted");
}

#[test]
fn a_message_larger_than_what_can_be_replayed_is_sent_and_sent_again() {
    let upstream = Upstream::script([Answer::from(503), hello(), Answer::from(503), hello()]);
    let retry = "retry: {max_retries: 1, methods: any, on: [503], backoff: {base: 1ms, max: 1ms}}";
    let gateway = start(&upstream, retry);
    let json = format!("{{\"name\":\"{}\"}}", "x".repeat(300_000));
    let response = gateway.call(call("application/json", &json));
    assert_eq!((response.status, response.text().as_str()), (200, "{\"message\":\"Hello!\"}"));
    let client = H2Client::connect(gateway.address);
    let head = request("POST", PATH).header("content-type", "application/json");
    let response = client.call(head.body(json.as_bytes()).unwrap());
    assert_eq!((response.status, response.text().as_str()), (200, "{\"message\":\"Hello!\"}"));
    for request in upstream.wait_complete(4) {
        assert_eq!(request.text(), json);
    }
}

#[test]
fn an_answer_that_is_none_is_unavailable_and_costs_the_connection_nothing() {
    let upstream = Upstream::start();
    let gateway = start(&upstream, "");
    let answers = [
        Answer::json(200, "{"),
        Answer::json(200, "[]"),
        Answer::json(200, "{\"message\":7}"),
        Answer::ok().body("<html>"),
        Answer::json(200, "{}").header("content-encoding", "gzip"),
        Answer::truncated("{\"message\":", 100),
        Answer::reset(),
    ];
    for answer in answers {
        upstream.answer_always(answer);
        let json = gateway.call(call("application/json", "{}"));
        assert_eq!((json.status, json.code().as_str()), (503, "unavailable"), "{}", json.text());
        let web = gateway.call(call("application/grpc-web", frame(b"")));
        assert_eq!(web_status(&web), "14");
    }
    upstream.answer_always(Answer::json(204, ""));
    assert_eq!(gateway.call(call("application/json", "{}")).text(), "{}");
}

#[test]
fn an_answer_that_breaks_off_is_asked_for_again() {
    let upstream = Upstream::script([Answer::truncated("{\"message\":", 100), hello()]);
    let retry =
        "retry: {max_retries: 1, methods: any, on: [reset], backoff: {base: 1ms, max: 1ms}}";
    let gateway = start(&upstream, retry);
    let response = gateway.call(call("application/json", "{\"name\":\"Ada\"}"));
    assert_eq!((response.status, response.text().as_str()), (200, "{\"message\":\"Hello!\"}"));
    assert_sent(&upstream, &["{\"name\":\"Ada\"}"; 2]);
}

#[test]
fn an_answer_in_pieces_is_held_until_it_is_whole() {
    let upstream = Upstream::always(Answer::chunked("{\"message\":\"Hello!\"}", 3));
    let gateway = start(&upstream, "");
    let mut client = gateway.connect();
    for _ in 0..3 {
        let response = client.call(&call("application/json", "{}"));
        assert_eq!((response.status, response.text().as_str()), (200, "{\"message\":\"Hello!\"}"));
    }
}

#[test]
fn the_deadline_holds_for_the_whole_answer() {
    let upstream = Upstream::always(Answer::hold_body());
    let gateway = start(&upstream, "timeout: {attempt: 200ms}");
    let json = gateway.call(call("application/json", "{}"));
    assert_eq!((json.status, json.code().as_str()), (504, "deadline_exceeded"));
    let told = call("application/grpc-web", frame(b"")).header("grpc-timeout", "100m");
    assert_eq!(web_status(&gateway.call(told)), "4");
    eventually("both cancelled", || (upstream.wait_cancelled(2).len() == 2).then_some(()));
}

#[test]
fn the_record_has_what_both_sides_said_in_json() {
    let upstream = Upstream::script([hello(), Answer::json(409, "{\"error\":\"taken\"}")]);
    let record =
        "record: {mode: sync, capture: {name: request.name, result_message: response.message}}";
    let gateway = mapped(record).section(&Store::Sqlite.section()).upstream(&upstream).start();
    let web = gateway.call(call("application/grpc-web", frame(&message("Ada"))));
    assert_eq!(web_status(&web), "0");
    let row = &Store::Sqlite.wait_for_rows(&gateway, 1)[0];
    assert_eq!((row.text("name"), row.text("result_message")), (Some("Ada"), Some("Hello!")));
    assert!(row.is_true("success"));
    let failed = gateway.call(call("application/grpc-web", frame(b"")));
    assert_eq!(web_status(&failed), "6");
    let row = &Store::Sqlite.wait_for_rows(&gateway, 2)[1];
    assert_eq!((row.text("name"), row.is_true("success")), (Some("World"), false));
}

#[test]
fn the_shipped_descriptors_are_those_of_the_shipped_proto() {
    let conf = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf");
    let mut compiler = protox::Compiler::new([&conf]).expect("a folder");
    compiler.include_imports(true).open_file("gateway.proto").expect("a valid file");
    let shipped = std::fs::read(conf.join("gateway.binpb")).expect("a file");
    assert!(
        compiler.encode_file_descriptor_set() == shipped,
        "`make descriptors` brings them together"
    );
}

#[test]
fn what_cannot_be_transcoded_is_said_at_load_with_its_place() {
    let transcode = |text: &str| format!("transcode: {{descriptors: gateway, {text}}}");
    let service = "gateway.v1.GatewayService";
    for (policies, wanted) in [
        (transcode(&format!("method: {service}/Nothing")), "routes.all.transcode.method: "),
        (transcode(&format!("method: {service}/InvokeCustom")), "google.api.http"),
        (
            transcode(&format!("method: {service}/InvokeCustom, http: {{path: '/{{nam}}'}}")),
            "routes.all.transcode.http.path: ",
        ),
        (
            transcode(&format!(
                "method: {service}/InvokeCustom, http: {{path: /}}, defaults: {{x: y}}"
            )),
            "routes.all.transcode.defaults.x: ",
        ),
        ("transcode: {descriptors: gatewy, service: x}".to_owned(), "`gateway`"),
        (
            transcode(&format!(
                "method: {service}/InvokeCustom, upstream: grpc, http: {{path: /}}"
            )),
            "routes.all.transcode.upstream: ",
        ),
        (format!("json: {{defaults: {{a: b}}}}\n{}", transcode("service: x")), "routes.all.json: "),
    ] {
        let upstream = Upstream::start();
        let (code, log) = plan(&policies).upstream(&upstream).fails();
        assert!(code != Some(0) && log.contains(wanted), "{policies}: {log}");
    }
    let unread = Plan::route("").section("descriptors: {gateway: {file: nowhere.binpb}}");
    let (_, log) = unread.env("UPSTREAM", "http://127.0.0.1:9").fails();
    assert!(log.contains("descriptors.gateway.file: ") && log.contains("cannot be read"), "{log}");
    let broken = Plan::route("")
        .beside("no.binpb", "syntax")
        .section("descriptors: {gateway: {file: no.binpb}}");
    let (_, log) = broken.env("UPSTREAM", "http://127.0.0.1:9").fails();
    assert!(log.contains("is no complete descriptor set"), "{log}");
}

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
        assert_eq!((request.method.as_str(), request.path.as_str()), ("POST", PATH));
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
fn an_empty_message_of_rpc_reaches_an_upstream_of_http2() {
    let reply = Reply::status(200).header("content-type", "application/json");
    let upstream = H2Upstream::always(reply.body(b"{\"message\":\"Hello!\"}"));
    let gateway = mapped("").h2_upstream(&upstream).start();
    let mut client = gateway.connect();
    for _ in 0..3 {
        let response = client.call(&call("application/proto", ""));
        assert_eq!((response.status, response.body), (200, message("Hello!")));
    }
    assert_eq!(upstream.requests().len(), 3);
    for request in upstream.requests() {
        assert_eq!(String::from_utf8_lossy(&request.body), "{\"name\":\"World\"}");
    }
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
        (broken, 502, "upstream_protocol_error"),
    ] {
        let upstream = H2Upstream::always(reply);
        let gateway = bound(http, "").h2_upstream(&upstream).start();
        let response = gateway.post("/v1/hello", "{}");
        assert_eq!((response.status, response.code().as_str()), (status, code));
        if status == 403 {
            assert_eq!(response.json()["message"], "not you");
        }
        let malformed = gateway.post("/v1/hello", "{\"name\":");
        assert_eq!((malformed.status, malformed.code().as_str()), (400, "invalid_rpc"));
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
