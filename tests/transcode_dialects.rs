//! Whatever happens to a call, its caller is told in its own protocol, with the code that the
//! same thing has in every other.

use std::time::Duration;

use crate::support::{
    Answer, CODES_OF_STATUS, Call, Dialect, Gateway, H2Client, INVOKE, Plan, Store, Upstream,
    eventually, frame, message, refused_address, request,
};
use crate::transcode::{descriptors, hello, mapped, start};

/// A service whose method may be called by GET.
pub const LOOKUP: &str = r#"
syntax = "proto3";
package lookup;
service Names {
  rpc Find(Key) returns (Found) { option idempotency_level = NO_SIDE_EFFECTS; }
}
message Key { string name = 1; }
message Found { string message = 1; }
"#;

/// Every dialect is told this code.
#[track_caller]
fn assert_told(gateway: &Gateway, code: &str) {
    for dialect in Dialect::ALL {
        let told = dialect.call(gateway, "Ada", &[]);
        assert_eq!(told.code, code, "{dialect:?}: {told:?}");
    }
}

#[test]
fn a_call_and_its_answer_are_the_same_in_every_dialect() {
    let upstream = Upstream::always(hello().header("ETag", "\"of-the-json\""));
    let gateway = start(&upstream, "");
    for dialect in Dialect::ALL {
        let told = dialect.call(&gateway, "Ada", &[("x-user-agent", "test/1.0")]);
        assert_eq!((told.status, told.said()), (200, ("ok", "Hello!")), "{dialect:?}");
        assert_eq!(told.header("content-type"), Some(dialect.content_type()));
        assert_eq!(told.header("etag"), None);
    }
    for request in upstream.wait_complete(5) {
        assert_eq!(request.text(), "{\"name\":\"Ada\"}");
    }
}

#[test]
fn every_error_of_the_upstream_is_one_of_rpc() {
    for (status, code) in CODES_OF_STATUS {
        for body in ["{\"error\":\"so it is\"}", ""] {
            let upstream = Upstream::always(Answer::json(status, body).header("Retry-After", "7"));
            let gateway = start(&upstream, "");
            let text = if body.is_empty() { "the upstream failed" } else { "so it is" };
            for dialect in Dialect::ALL {
                let told = dialect.call(&gateway, "Ada", &[]);
                assert_eq!(told.said(), (code, text), "{status} {dialect:?}");
                assert_eq!(told.header("retry-after"), Some("7"));
            }
            let json = gateway.call(Call::new(&format!("POST {INVOKE}")).json("{}"));
            assert_eq!(json.json()["details"][0]["type"], "google.rpc.RetryInfo");
            let length = json.header("content-length").map(str::to_owned);
            assert_eq!(length, Some(json.body_length.to_string()));
        }
    }
}

#[test]
fn a_route_may_have_its_own_codes_for_single_statuses() {
    for (status, code) in [(501, "internal"), (409, "aborted"), (404, "not_found")] {
        let upstream = Upstream::always(Answer::json(status, "{\"error\":\"so it is\"}"));
        let gateway = start(&upstream, "error_codes: {501: internal, 409: aborted}");
        for dialect in Dialect::ALL {
            let told = dialect.call(&gateway, "Ada", &[]);
            assert_eq!(told.said(), (code, "so it is"), "{status} {dialect:?}");
        }
    }
}

#[test]
fn what_an_upstream_says_of_an_error_is_cut_to_what_callers_take() {
    let long = "x".repeat(2 * 1024 * 1024);
    let cut = Answer::json(404, &format!("{{\"error\":\"{}\"}}", &long[..10_000]));
    let upstream = Upstream::script([cut, Answer::json(404, &format!("{{\"error\":\"{long}\"}}"))]);
    let gateway = start(&upstream, "");
    let told = Dialect::Grpc.call(&gateway, "Ada", &[]);
    assert_eq!(told.said(), ("not_found", &long[..4096]));
    let dropped = Dialect::Grpc.call(&gateway, "Ada", &[]);
    assert_eq!(dropped.said(), ("not_found", "the upstream failed"));
}

#[test]
fn what_the_gateway_refuses_is_refused_in_every_dialect() {
    let upstream = Upstream::always(Answer::hang());
    let slow = start(&upstream, "timeout: {attempt: 100ms}");
    assert_told(&slow, "deadline_exceeded");
    let away = mapped("").env("UPSTREAM", &format!("http://{}", refused_address())).start();
    assert_told(&away, "unavailable");
    let limit = "rate_limit: {fixed_window: {requests: 1, per: 1m}, key: client_address}";
    let fine = Upstream::always(hello());
    let limited = start(&fine, limit);
    assert_eq!(Dialect::Grpc.call(&limited, "Ada", &[]).code, "ok");
    assert_told(&limited, "resource_exhausted");
    let sections =
        "auth: {keys: {api_key: {header: X-Api-Key, keys: {a: abcdefghijklmnop-0123456789}}}}";
    let closed = mapped("auth: {require: keys}").section(sections).upstream(&upstream).start();
    assert_told(&closed, "unauthenticated");
    let failing = Upstream::always(503);
    let open = start(&failing, "circuit_breaker: {consecutive: {failures: 1}}");
    assert_told(&open, "unavailable");
    assert_eq!(failing.count(), 1);
}

#[test]
fn a_deadline_that_the_caller_names_is_kept_in_every_dialect() {
    let upstream = Upstream::always(Answer::hang());
    let gateway = start(&upstream, "timeout: {attempt: 10s}");
    for dialect in Dialect::ALL {
        let header = match dialect {
            Dialect::ConnectJson | Dialect::ConnectProto => ("connect-timeout-ms", "100"),
            Dialect::GrpcWeb | Dialect::GrpcWebText | Dialect::Grpc => ("grpc-timeout", "100m"),
        };
        let told = dialect.call(&gateway, "Ada", &[("connect-protocol-version", "1"), header]);
        assert_eq!(told.code, "deadline_exceeded", "{dialect:?}");
    }
    upstream.wait_cancelled(5);
}

#[test]
fn an_answer_that_is_none_is_internal_and_the_log_says_why() {
    let upstream = Upstream::start();
    let gateway = start(&upstream, "");
    let answers = [
        Answer::json(200, "{"),
        Answer::json(200, "[]"),
        Answer::json(200, "{\"message\":7}"),
        Answer::ok().body("<html>"),
        Answer::json(200, "{}").header("content-encoding", "gzip"),
        Answer::json(200, "{}").header("content-encoding", "br"),
    ];
    for answer in answers {
        upstream.answer_always(answer);
        assert_told(&gateway, "internal");
    }
    let log = gateway.log();
    assert_eq!(log.matches("cannot be transcoded: ").count(), 1, "{log}");
    assert!(log.contains("routes.all: an answer of upstream service cannot"), "{log}");
    for answer in [Answer::truncated("{\"message\":", 100), Answer::reset()] {
        upstream.answer_always(answer);
        assert_told(&gateway, "unavailable");
    }
    upstream.answer_always(Answer::json(204, ""));
    assert_eq!(Dialect::Grpc.call(&gateway, "Ada", &[]).said(), ("ok", ""));
}

#[test]
fn what_is_malformed_is_an_invalid_argument_and_the_connection_is_kept() {
    let upstream = Upstream::always(hello());
    let gateway = start(&upstream, "");
    let truncated = [0x0a, 9, b'A'];
    for (dialect, body) in [
        (Dialect::ConnectJson, b"{\"name\":".to_vec()),
        (Dialect::ConnectProto, truncated.to_vec()),
        (Dialect::GrpcWeb, frame(&truncated)),
        (Dialect::GrpcWeb, vec![0, 0, 0]),
        (Dialect::GrpcWeb, [frame(b""), frame(b"")].concat()),
        (Dialect::GrpcWebText, b"AAA*".to_vec()),
        (Dialect::Grpc, frame(&truncated)),
        (Dialect::Grpc, vec![0, 0, 0, 0, 9, 1]),
        (Dialect::Grpc, [frame(b""), frame(b"")].concat()),
    ] {
        let told = dialect.send(&gateway, &body, &[]);
        assert_eq!(told.code, "invalid_argument", "{dialect:?} {body:?}");
    }
    let mut client = gateway.connect();
    let http2 = H2Client::connect(gateway.address);
    for _ in 0..2 {
        let malformed = client.call(&Call::new(&format!("POST {INVOKE}")).json("{"));
        assert_eq!(malformed.code(), "invalid_argument");
        let grpc = |body: &[u8]| {
            let head = request("POST", INVOKE).header("content-type", "application/grpc");
            http2.call(head.body(body).expect("a call"))
        };
        assert_eq!(grpc(b"\0\0\0\0\x02\x0a\x09").status_field("grpc-status"), Some("3"));
        assert_eq!(grpc(&frame(b"")).status_field("grpc-status"), Some("0"));
    }
    assert_eq!(upstream.count(), 2);
}

#[test]
fn an_encoding_that_is_not_read_is_unimplemented_and_the_caller_is_told_which_are() {
    let upstream = Upstream::always(hello());
    let gateway = start(&upstream, "");
    for dialect in Dialect::ALL {
        let is_connect = matches!(dialect, Dialect::ConnectJson | Dialect::ConnectProto);
        let (header, told_by) = match is_connect {
            true => ("content-encoding", "accept-encoding"),
            false => ("grpc-encoding", "grpc-accept-encoding"),
        };
        let compressed = match dialect {
            Dialect::GrpcWebText => b"AQAAAAA=".to_vec(),
            _ => b"\x01\0\0\0\0".to_vec(),
        };
        for encoding in ["br", "zstd", "snappy", "gzip, gzip"] {
            let told = dialect.send(&gateway, &compressed, &[(header, encoding)]);
            assert_eq!(told.code, "unimplemented", "{dialect:?}");
            assert_eq!(told.header(told_by), Some("gzip, deflate, identity"), "{dialect:?}");
        }
        if !is_connect {
            let unannounced = dialect.send(&gateway, &compressed, &[]);
            assert_eq!(unannounced.code, "internal", "{dialect:?}");
            // An encoding that is named need not be used.
            assert_eq!(dialect.call(&gateway, "Ada", &[(header, "zstd")]).code, "ok");
        }
    }
    assert_eq!(upstream.count(), 3);
}

#[test]
fn what_is_no_rpc_is_told_what_would_be() {
    let upstream = Upstream::always(hello());
    let gateway = start(&upstream, "");
    for content_type in ["text/plain", "application/x-www-form-urlencoded", "application/xml"] {
        let call = Call::new(&format!("POST {INVOKE}")).header("content-type", content_type);
        let refused = gateway.call(call.body("{}"));
        assert_eq!((refused.status, refused.code().as_str()), (415, "unimplemented"));
        let known = refused.header("accept-post").expect("Accept-Post");
        assert!(known.contains("application/grpc-web"), "{known}");
    }
    let other = gateway.call(Call::new("POST /gateway.v1.GatewayService/Other").json("{}"));
    assert_eq!(other.code(), "unimplemented");
    let query = "connect=v1&encoding=json&message=%7B%7D";
    let get = gateway.call(Call::new(&format!("GET {INVOKE}?{query}")));
    assert_eq!((get.code().as_str(), get.header("allow")), ("unimplemented", Some("POST")));
    let over_http1 =
        Call::new(&format!("POST {INVOKE}")).header("content-type", "application/grpc");
    let refused = gateway.call(over_http1.body(frame(b"")));
    assert_eq!(refused.header("grpc-status"), Some("3"));
    assert_eq!(upstream.count(), 0);
}

#[test]
fn a_method_without_side_effects_may_be_called_by_get() {
    let upstream = Upstream::always(hello());
    let transcode = "transcode: {descriptors: lookup, method: lookup.Names/Find, http: {path: /find, body: '*'}}";
    let plan = Plan::route(transcode)
        .beside("lookup.binpb", &descriptors(LOOKUP))
        .section("descriptors: {lookup: {file: lookup.binpb}}");
    let gateway = plan.upstream(&upstream).start();
    let mut client = gateway.connect();
    let mut get = |query: &str| {
        client.call(&Call::new(&format!("GET /lookup.Names/Find?connect=v1&{query}")))
    };
    let json = get("encoding=json&message=%7B%22name%22%3A%22A+b%22%7D");
    assert_eq!((json.status, json.text().as_str()), (200, "{\"message\":\"Hello!\"}"));
    assert_eq!(json.header("content-type"), Some("application/json"));
    let proto = get("encoding=proto&base64=1&message=CgNBIGI");
    assert_eq!((proto.status, &proto.body), (200, &message("Hello!")));
    assert_eq!(proto.header("content-type"), Some("application/proto"));
    let padded = get("encoding=json&base64=1&message=eyJuYW1lIjoiQSBiIn0%3D");
    assert_eq!(padded.status, 200);
    for (query, code) in [
        ("encoding=json&message=%7B", "invalid_argument"),
        ("encoding=json", "invalid_argument"),
        ("message=%7B%7D", "invalid_argument"),
        ("encoding=proto&base64=1&message=*", "invalid_argument"),
        ("encoding=proto&base64=1&message=CgNB&compression=gzip", "invalid_argument"),
        ("encoding=proto&base64=1&message=CgNB&compression=br", "unimplemented"),
    ] {
        assert_eq!(get(query).code(), code, "{query}");
    }
    for request in upstream.wait_complete(3) {
        assert_eq!((request.method.as_str(), request.target.as_str()), ("POST", "/find"));
        assert_eq!(request.text(), "{\"name\":\"A b\"}");
    }
    assert_eq!(upstream.count(), 3);
}

#[test]
fn the_record_has_what_both_sides_said_in_every_dialect() {
    let upstream = Upstream::always(hello());
    let record = "record: {mode: sync, capture: {name: request.name, result_message: response.message}}\ncircuit_breaker: {consecutive: {failures: 1}}";
    let gateway = mapped(record).section(&Store::Sqlite.section()).upstream(&upstream).start();
    for dialect in Dialect::ALL {
        assert_eq!(dialect.call(&gateway, "Ada", &[]).code, "ok");
    }
    upstream.answer_always(Answer::json(503, "{\"error\":\"taken\"}"));
    assert_eq!(Dialect::Grpc.call(&gateway, "", &[]).said(), ("unavailable", "taken"));
    // The circuit is open: nothing is sent.
    for dialect in Dialect::ALL {
        assert_eq!(dialect.call(&gateway, "Eve", &[]).code, "unavailable");
    }
    let rows = Store::Sqlite.wait_for_rows(&gateway, 11);
    let said = |row: &crate::support::Row| {
        (row.text("name").map(str::to_owned), row.text("result_message").map(str::to_owned))
    };
    for (n, row) in rows.iter().enumerate() {
        let expected = match n {
            0..5 => (Some("Ada".to_owned()), Some("Hello!".to_owned())),
            5 => (Some("World".to_owned()), None),
            _ => (Some("Eve".to_owned()), None),
        };
        assert_eq!((said(row), row.is_true("success")), (expected, n < 5), "row {n}");
    }
    assert_eq!(upstream.count(), 6);
}

#[test]
fn a_fallback_answers_in_every_dialect() {
    let away = format!("http://{}", refused_address());
    let json = "fallback: {status: 200, json: {message: 'Hello from afar!'}}";
    let gateway = mapped(json).env("UPSTREAM", &away).start();
    for dialect in Dialect::ALL {
        let told = dialect.call(&gateway, "Ada", &[]);
        assert_eq!((told.status, told.said()), (200, ("ok", "Hello from afar!")), "{dialect:?}");
    }
    let json = "fallback: {status: 503, json: {message: 'Not now'}}\ncircuit_breaker: {consecutive: {failures: 1}}";
    let gateway = mapped(json).env("UPSTREAM", &away).start();
    for dialect in Dialect::ALL {
        let told = dialect.call(&gateway, "Ada", &[]);
        assert_eq!(told.said(), ("unavailable", "Not now"), "{dialect:?}");
    }
}

#[test]
fn a_client_that_leaves_takes_its_call_with_it() {
    let upstream = Upstream::always(Answer::hold_body());
    let gateway = start(&upstream, "bulkhead: {max_in_flight: 2}");
    let mut client = gateway.connect();
    client.send(Call::new(&format!("POST {INVOKE}")).json("{}").bytes());
    let http2 = H2Client::connect(gateway.address);
    let head = request("POST", INVOKE).header("content-type", "application/grpc");
    let mut stream = http2.open(head.body(()).expect("a call"), false);
    stream.send(&frame(b""), true);
    upstream.wait_for(2);
    client.vanish();
    stream.reset(h2::Reason::CANCEL);
    upstream.wait_cancelled(2);
    upstream.answer_always(hello());
    eventually("free slots", || (gateway.status()["requests_in_flight"] == 0).then_some(()));
    assert_eq!(Dialect::Grpc.call(&gateway, "Ada", &[]).code, "ok");
}

#[test]
fn a_good_answer_waits_no_longer_than_its_body() {
    let upstream = Upstream::always(hello().after(Duration::from_millis(1)));
    let gateway = start(&upstream, "timeout: {attempt: 5s}");
    let http2 = H2Client::connect(gateway.address);
    for _ in 0..20 {
        let head = request("POST", INVOKE).header("content-type", "application/grpc");
        let told = http2.call(head.body(&frame(&message("Ada"))[..]).expect("a call"));
        assert_eq!(told.trailers.expect("trailers")["grpc-status"], "0");
        assert_eq!(told.headers.get("grpc-status"), None);
        assert_eq!(told.headers.get("content-length"), None);
    }
}
