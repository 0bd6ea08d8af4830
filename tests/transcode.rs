//! Calls of RPC in every protocol, to an upstream that knows only HTTP and JSON.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::support::{
    Answer, Call, Dialect, Gateway, H2Client, H2Upstream, INVOKE, Plan, Reply, Upstream,
    eventually, frame, message, request,
};

pub fn plan(policies: &str) -> Plan {
    let descriptors = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/gateway.binpb");
    let section = format!("descriptors: {{gateway: {{file: '{}'}}}}", descriptors.display());
    Plan::route(policies).section(&section)
}

/// The shipped mapping, and further policies.
pub fn mapped(policies: &str) -> Plan {
    let transcode = "transcode: {descriptors: gateway, method: gateway.v1.GatewayService/InvokeCustom, http: {path: /invoke, body: '*'}, defaults: {name: World}}";
    plan(&format!("{transcode}\n{policies}"))
}

pub fn start(upstream: &Upstream, policies: &str) -> Gateway {
    mapped(policies).upstream(upstream).start()
}

pub fn hello() -> Answer {
    Answer::json(200, "{\"message\":\"Hello!\",\"more\":[1]}")
}

fn call(content_type: &str, body: impl AsRef<[u8]>) -> Call {
    Call::new(&format!("POST {INVOKE}")).header("content-type", content_type).body(body)
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
    let in_frames = [&frame(&message("Hello!"))[..], b"\x80\0\0\0\x0fgrpc-status:0\r\n"].concat();
    for (dialect, expected) in [
        (Dialect::ConnectProto, message("Hello!")),
        (Dialect::GrpcWeb, in_frames.clone()),
        (Dialect::GrpcWebText, STANDARD.encode(in_frames).into_bytes()),
    ] {
        for name in ["Ada", ""] {
            let call = call(dialect.content_type(), dialect.body(name)).header("x-grpc-web", "1");
            let response = client.call(&call);
            assert_eq!(response.status, 200, "{dialect:?}: {}", response.text());
            assert_eq!(response.header("content-type"), Some(dialect.content_type()));
            assert_eq!(response.body, expected, "{dialect:?}");
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
        let head = request("POST", INVOKE)
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
        let web = Dialect::GrpcWeb.send(&gateway, &body, &[]);
        assert_eq!(web.code, "invalid_argument", "{body:?}");
    }
    let text = Dialect::GrpcWebText.send(&gateway, b"AAA*", &[]);
    assert_eq!(text.code, "invalid_argument");
    assert_eq!(upstream.count(), 0);
}

#[test]
fn a_call_may_become_a_get_without_a_body() {
    let upstream = Upstream::always(hello());
    let transcode = "transcode: {descriptors: gateway, method: gateway.v1.GatewayService/InvokeCustom, http: {method: GET, path: '/hello/{name}'}, defaults: {name: World}}";
    let retry = "retry: {max_retries: 1, methods: any, on: [503], backoff: {base: 1ms, max: 1ms}}";
    let gateway = plan(&format!("{transcode}\n{retry}")).upstream(&upstream).start();
    for dialect in Dialect::ALL {
        for name in ["A b", ""] {
            assert_eq!(dialect.call(&gateway, name, &[]).said(), ("ok", "Hello!"), "{dialect:?}");
        }
    }
    let seen = upstream.wait_complete(10);
    for (n, request) in seen.iter().enumerate() {
        let target = if n % 2 == 0 { "/hello/A%20b" } else { "/hello/World" };
        assert_eq!((request.method.as_str(), request.target.as_str()), ("GET", target));
        assert_eq!(request.body_length, 0);
        assert!(matches!(request.header("content-length"), None | Some("0")));
        for name in ["content-type", "transfer-encoding"] {
            assert_eq!(request.header(name), None, "{name}");
        }
    }
    // Where the field has no place in the path, nothing goes upstream.
    let climbing = Dialect::ConnectJson.call(&gateway, "..", &[]);
    assert_eq!(climbing.code, "invalid_argument");
    let again = Upstream::script([Answer::from(503), hello()]);
    let gateway = plan(&format!("{transcode}\n{retry}")).upstream(&again).start();
    assert_eq!(Dialect::Grpc.call(&gateway, "Ada", &[]).code, "ok");
    assert_eq!((again.count(), upstream.count()), (2, 10));
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
    assert_eq!(answer.code(), "internal");
    upstream.answer_always(Answer::chunked(&format!("{{\"message\":\"{long}\"}}"), 100));
    let answer = gateway.call(call("application/json", "{}"));
    assert_eq!(answer.code(), "internal");
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
    let head = request("POST", INVOKE).header("content-type", "application/json");
    let response = client.call(head.body(json.as_bytes()).unwrap());
    assert_eq!((response.status, response.text().as_str()), (200, "{\"message\":\"Hello!\"}"));
    for request in upstream.wait_complete(4) {
        assert_eq!(request.text(), json);
    }
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
    let told = Dialect::GrpcWeb.call(&gateway, "", &[("grpc-timeout", "100m")]);
    assert_eq!(told.code, "deadline_exceeded");
    eventually("both cancelled", || (upstream.wait_cancelled(2).len() == 2).then_some(()));
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
        // `FILE:line:column: `, where the route is.
        let place = log.split("portcullis.yaml:").nth(1).and_then(|rest| rest.split(':').next());
        assert!(place.is_some_and(|line| matches!(line, "6" | "7")), "{policies}: {log}");
    }
    let unread = Plan::route("").section("descriptors: {gateway: {file: nowhere.binpb}}");
    let (_, log) = unread.env("UPSTREAM", "http://127.0.0.1:9").fails();
    assert!(log.contains("descriptors.gateway.file: ") && log.contains("cannot be read"), "{log}");
    let broken = Plan::route("")
        .beside("no.binpb", "syntax")
        .section("descriptors: {gateway: {file: no.binpb}}");
    let (_, log) = broken.env("UPSTREAM", "http://127.0.0.1:9").fails();
    assert!(log.contains("is not a complete descriptor set"), "{log}");
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
fn a_reload_reads_the_descriptors_again_and_keeps_the_old_ones_if_they_are_broken() {
    let upstream = Upstream::always(Answer::json(200, "{\"message\":\"A\",\"other\":\"B\"}"));
    let transcode = "transcode: {descriptors: own, method: s.S/M, http: {path: /m, body: '*'}}";
    let plan = Plan::route(transcode)
        .beside("own.binpb", &compiled("message"))
        .section("descriptors: {own: {file: own.binpb}}");
    let gateway = plan.upstream(&upstream).start();
    let answer = || gateway.call(Call::new("POST /s.S/M").json("{}")).text();
    assert_eq!(answer(), "{\"message\":\"A\"}");
    let file = gateway.directory().join("own.binpb");
    std::fs::write(&file, compiled("other")).expect("written");
    gateway.signal("HUP");
    eventually("the new descriptors", || (answer() == "{\"other\":\"B\"}").then_some(()));
    std::fs::write(&file, "broken").expect("written");
    gateway.signal("HUP");
    gateway.wait_for_log("descriptors.own.file: ");
    assert_eq!(answer(), "{\"other\":\"B\"}");
}

/// A service whose answer has one field of this name.
fn compiled(field: &str) -> Vec<u8> {
    let text = format!(
        "syntax = \"proto3\"; package s; message In {{}} message Out {{ string {field} = 1; }} service S {{ rpc M(In) returns (Out); }}"
    );
    descriptors(&text)
}

/// The descriptor set of a file.
pub fn descriptors(proto: &str) -> Vec<u8> {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("own.proto"), proto).expect("a file");
    let mut compiler = protox::Compiler::new([folder.path()]).expect("a folder");
    compiler.include_imports(true).open_file("own.proto").expect("a valid file");
    compiler.encode_file_descriptor_set()
}
