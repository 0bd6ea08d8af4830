//! Compressed bodies where nothing is transcoded from RPC: plain HTTP to gRPC, JSON with defaults, the
//! record, errors that are translated, answers that are given again.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::compression::CODINGS;
use crate::support::{
    Answer, Call, Dialect, Gateway, H2Upstream, Plan, Reply, Store, Upstream, compress, decompress,
    frame, gzip_at, message,
};
use crate::transcode::{descriptors, plan};
use crate::transcode_dialects::LOOKUP;

fn json(coding: &str, body: &[u8]) -> Call {
    let call = Call::new("POST /v1/hello").header("Content-Type", "application/json");
    call.header("Content-Encoding", coding).body(body)
}

#[test]
fn plain_http_may_be_compressed_both_ways_and_so_may_the_answer_of_grpc() {
    let text = "Hello Ada! ".repeat(11);
    let mut compressed = frame(&compress("gzip", &message(&text)));
    compressed[0] = 1;
    let grpc = Reply::status(200).header("content-type", "application/grpc");
    let reply = grpc.clone().header("grpc-encoding", "gzip").body(&compressed);
    let upstream = H2Upstream::always(reply.trailer("grpc-status", "0"));
    let transcode = "transcode: {descriptors: gateway, method: gateway.v1.GatewayService/InvokeCustom, upstream: grpc, http: {path: /v1/hello, body: '*'}, compress_from: 100B}\nrecord: {mode: sync, capture: {name: request.name, result_message: response.message}}";
    let plan = plan(transcode).section(&Store::Sqlite.section());
    let gateway = plan.h2_upstream(&upstream).start();
    for coding in CODINGS {
        let body = compress(coding, b"{\"name\":\"Ada\"}");
        let answer = gateway.call(json(coding, &body).header("Accept-Encoding", coding));
        assert_eq!((answer.status, answer.header("content-encoding")), (200, Some(coding)));
        assert_eq!(answer.header("vary"), Some("Accept-Encoding"));
        let told = decompress(coding, &answer.body);
        assert_eq!(String::from_utf8_lossy(&told), format!("{{\"message\":\"{text}\"}}"));
        let plain = gateway.call(json(coding, &body));
        assert_eq!((plain.header("content-encoding"), plain.header("grpc-encoding")), (None, None));
        assert_eq!(plain.json()["message"], text.as_str());
        let cut = gateway.call(json(coding, &body[..body.len() - 1]));
        assert_eq!((cut.status, cut.code().as_str()), (400, "invalid_body"));
        let bomb = gateway.call(json(coding, &compress(coding, &vec![b' '; 10 << 20])));
        assert_eq!((bomb.status, bomb.code().as_str()), (413, "body_too_large"));
    }
    for request in upstream.wait_for(4) {
        assert_eq!(request.body, frame(&message("Ada")));
        for name in ["content-encoding", "grpc-encoding", "grpc-accept-encoding"] {
            assert!(!request.headers.contains_key(name), "{name}");
        }
    }
    let rows = Store::Sqlite.wait_for_rows(&gateway, 8);
    let good = |row: &&crate::support::Row| row.is_true("success");
    let good: Vec<_> = rows.iter().filter(good).collect();
    assert_eq!(good.len(), 4);
    for row in good {
        assert_eq!((row.text("name"), row.text("result_message")), (Some("Ada"), Some(&text[..])));
    }
    for (encoding, code) in [("zstd", 502), ("identity", 502)] {
        let reply = grpc.clone().header("grpc-encoding", encoding).body(&compressed);
        let upstream = H2Upstream::always(reply.trailer("grpc-status", "0"));
        let gateway = crate::transcode::plan(transcode).section(&Store::Sqlite.section());
        let gateway = gateway.h2_upstream(&upstream).start();
        assert_eq!(gateway.call(json("identity", b"{}")).status, code, "{encoding}");
    }
}

#[test]
fn a_connect_get_may_hold_a_compressed_message() {
    let text = "Hello Ada! ".repeat(200);
    let upstream = Upstream::always(Answer::json(200, &format!("{{\"message\":\"{text}\"}}")));
    let transcode = "transcode: {descriptors: lookup, method: lookup.Names/Find, http: {path: /find, body: '*'}}";
    let plan = Plan::route(transcode)
        .beside("lookup.binpb", &descriptors(LOOKUP))
        .section("descriptors: {lookup: {file: lookup.binpb}}");
    let gateway = plan.upstream(&upstream).start();
    for coding in CODINGS {
        let message = URL_SAFE_NO_PAD.encode(compress(coding, b"{\"name\":\"Ada\"}"));
        let query = format!("encoding=json&base64=1&compression={coding}&message={message}");
        let line = format!("GET /lookup.Names/Find?connect=v1&{query}");
        let plain = gateway.call(Call::new(&line));
        assert_eq!((plain.status, plain.header("vary")), (200, Some("Accept-Encoding")));
        assert_eq!(plain.header("content-encoding"), None);
        assert_eq!(plain.json()["message"], text.as_str());
        let got = gateway.call(Call::new(&line).header("accept-encoding", coding));
        assert_eq!((got.status, got.header("content-encoding")), (200, Some(coding)));
        assert_eq!(decompress(coding, &got.body), plain.body);
    }
    for request in upstream.wait_complete(4) {
        assert_eq!(request.text(), "{\"name\":\"Ada\"}");
    }
}

#[test]
fn defaults_are_filled_into_json_that_came_compressed() {
    let upstream = Upstream::start();
    let policies = "json: {defaults: {name: World}}\nrecord: {mode: sync, capture: {name: request.name}}\nidempotency: {}";
    let plan = Plan::route(policies).section(&Store::Sqlite.section());
    let gateway = plan.upstream(&upstream).start();
    for coding in CODINGS {
        let body = compress(coding, b"{\"name\":\"\",\"n\":1}");
        assert_eq!(gateway.call(json(coding, &body)).status, 200, "{coding}");
        let keyed = json(coding, &body).header("Idempotency-Key", coding);
        assert_eq!(gateway.call(keyed).status, 200, "{coding}");
        let cut = gateway.call(json(coding, &body[..body.len() - 1]));
        assert_eq!((cut.status, cut.code().as_str()), (400, "invalid_body"), "{coding}");
        let keyed = json(coding, &body[..9]).header("Idempotency-Key", "cut");
        assert_eq!(gateway.call(keyed).code(), "invalid_body", "{coding}");
        let bomb = gateway.call(json(coding, &compress(coding, &vec![b' '; 10 << 20])));
        assert_eq!((bomb.status, bomb.code().as_str()), (413, "body_too_large"), "{coding}");
    }
    let unknown = gateway.call(json("br", b"{}"));
    assert_eq!((unknown.status, unknown.code().as_str()), (415, "unsupported_compression"));
    assert_eq!(unknown.header("accept-encoding"), Some("gzip, deflate, identity"));
    for request in upstream.wait_complete(4) {
        let sent: serde_json::Value = serde_json::from_slice(&request.body).expect("JSON");
        assert_eq!(sent, serde_json::json!({"name": "World", "n": 1}));
        assert_eq!(request.header("content-encoding"), None);
    }
    let rows = Store::Sqlite.wait_for_rows(&gateway, 11);
    let named = rows.iter().filter(|row| row.text("name") == Some("World"));
    assert_eq!(named.count(), 4);
    assert_eq!(upstream.count(), 4);
}

#[test]
fn the_record_reads_what_passes_compressed() {
    let upstream = Upstream::start();
    let record =
        "record: {mode: async, capture: {name: request.name, result_message: response.message}}";
    let plan = Plan::route(record).section(&Store::Sqlite.section());
    let gateway = plan.upstream(&upstream).start();
    for coding in CODINGS {
        upstream.answer_always(Answer::json(200, "{\"message\":\"Hello!\"}").compressed(coding));
        let body = compress(coding, b"{\"name\":\"Ada\"}");
        let call = json(coding, &body).header("Accept-Encoding", "br, gzip, deflate;q=0.5, zstd");
        let answer = gateway.call(call);
        // As they were sent, both.
        assert_eq!(answer.header("content-encoding"), Some(coding));
        assert_eq!(decompress(coding, &answer.body), b"{\"message\":\"Hello!\"}");
        let seen = upstream.requests().pop().expect("a request");
        assert_eq!((seen.header("content-encoding"), &seen.body), (Some(coding), &body));
    }
    // Nothing that could not be read was asked for.
    for seen in upstream.requests() {
        assert_eq!(seen.header("accept-encoding"), Some("gzip, deflate;q=0.5"));
    }
    for row in Store::Sqlite.wait_for_rows(&gateway, 2) {
        assert_eq!((row.text("name"), row.text("result_message")), (Some("Ada"), Some("Hello!")));
    }
    // A route that reads nothing passes on what is asked for.
    let gateway = Gateway::route(&upstream, "");
    gateway.call(Call::new("GET /").header("Accept-Encoding", "br"));
    assert_eq!(upstream.requests()[2].header("accept-encoding"), Some("br"));
}

#[test]
fn an_upstreams_error_is_translated_from_whatever_it_is_compressed_by() {
    let upstream = Upstream::start();
    let gateway = Gateway::route(&upstream, "");
    let connect = || Call::new("POST /s.S/M").header("Connect-Protocol-Version", "1").json("{}");
    for coding in CODINGS {
        // One that speaks Connect already: its code, its words, its details.
        let error = r#"{"code":"failed_precondition","message":"not yet","details":[{"type":"a.B","value":"CgE"}]}"#;
        upstream.answer_always(Answer::json(400, error).compressed(coding));
        let told = gateway.call(connect().header("Accept-Encoding", "gzip, deflate, br"));
        assert_eq!((told.status, told.text().as_str()), (400, error), "{coding}");
        assert_eq!(told.header("content-encoding"), None);
        let seen = upstream.requests().pop().expect("a request");
        assert_eq!(seen.header("accept-encoding"), Some("gzip, deflate"));
        // One that speaks plain HTTP.
        upstream.answer_always(Answer::json(404, "{\"error\":\"none\"}").compressed(coding));
        let told = gateway.call(connect());
        assert_eq!(told.json()["message"], "none", "{coding}");
        for dialect in [Dialect::Grpc, Dialect::GrpcWeb, Dialect::GrpcWebText] {
            let told = dialect.call(&gateway, "Ada", &[]);
            assert_eq!(told.said(), ("not_found", "none"), "{dialect:?} {coding}");
        }
        let bomb = format!("{{\"error\":\"{}\"}}", "0".repeat(1 << 20));
        upstream.answer_always(Answer::json(404, &bomb).compressed(coding));
        let told = gateway.call(connect());
        assert_eq!((told.status, told.code().as_str()), (404, "not_found"));
        assert_eq!(told.json()["message"], "the upstream failed");
    }
}

#[test]
fn a_kept_answer_suits_who_gets_it_again_and_a_body_compressed_anew_is_the_same() {
    let upstream =
        Upstream::always(Answer::json(200, "{\"message\":\"Hello!\"}").compressed("gzip"));
    let gateway = Gateway::route(&upstream, "idempotency: {}");
    let body = b"{\"name\":\"Ada Lovelace, Ada Lovelace\"}";
    let send = |seconds: u32, body: &[u8], accepted: &str| {
        let call = json("gzip", &gzip_at(seconds, body)).header("Idempotency-Key", "k");
        gateway.call(call.header("Accept-Encoding", accepted))
    };
    let first = send(1, body, "gzip, br");
    assert_eq!(first.header("content-encoding"), Some("gzip"));
    // What could not be undone was not asked for; what was sent went on as it came.
    let seen = upstream.only();
    assert_eq!(seen.header("accept-encoding"), Some("gzip"));
    assert_eq!((seen.header("content-encoding"), &seen.body), (Some("gzip"), &gzip_at(1, body)));
    for (seconds, accepted, coding) in [(2, "gzip", Some("gzip")), (3, "identity", None)] {
        let again = send(seconds, body, accepted);
        assert_eq!(again.header("idempotency-replayed"), Some("true"));
        assert_eq!(again.header("content-encoding"), coding);
        let told = match coding {
            Some(coding) => decompress(coding, &again.body),
            None => again.body,
        };
        assert_eq!(String::from_utf8_lossy(&told), "{\"message\":\"Hello!\"}");
    }
    assert_eq!(send(1, b"{\"name\":\"somebody else\"}", "gzip").status, 422);
    assert_eq!(upstream.count(), 1);
}
