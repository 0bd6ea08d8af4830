//! One error, read by callers of every protocol: refusals, and what plain HTTP upstreams answer.

use base64::Engine as _;

use crate::support::{
    Answer, Call, Gateway, H2Client, H2Response, H2Upstream, Plan, Reply, Response, Upstream,
    eventually, frame, request,
};

/// What a caller of any protocol learns from an error.
#[derive(Debug, PartialEq)]
struct Learned {
    code: String,
    message: String,
}

/// The numbers of gRPC as Connect writes them; those that are used here.
fn name(number: &str) -> String {
    let names = [
        ("3", "invalid_argument"),
        ("4", "deadline_exceeded"),
        ("5", "not_found"),
        ("6", "already_exists"),
        ("8", "resource_exhausted"),
        ("9", "failed_precondition"),
        ("11", "out_of_range"),
        ("12", "unimplemented"),
        ("13", "internal"),
        ("14", "unavailable"),
        ("16", "unauthenticated"),
    ];
    let found = names.iter().find(|(n, _)| *n == number);
    found.unwrap_or_else(|| panic!("no name for {number}")).1.to_owned()
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        match (first, tail) {
            (b'%', [a, b, tail @ ..]) => {
                let hex = std::str::from_utf8(&[*a, *b]).unwrap().to_owned();
                bytes.push(u8::from_str_radix(&hex, 16).expect("two digits"));
                rest = tail;
            }
            (byte, tail) => {
                bytes.push(*byte);
                rest = tail;
            }
        }
    }
    String::from_utf8(bytes).expect("UTF-8")
}

/// Envelopes or frames: flags and content.
fn frames(mut body: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut found = Vec::new();
    while let [flags, a, b, c, d, rest @ ..] = body {
        let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
        found.push((*flags, rest[..length].to_vec()));
        body = &rest[length..];
    }
    assert!(body.is_empty(), "half a frame: {body:?}");
    found
}

#[track_caller]
fn connect(response: &Response) -> Learned {
    assert_eq!(response.header("content-type"), Some("application/json"));
    learned(&response.json())
}

fn learned(error: &serde_json::Value) -> Learned {
    let text = |field: &str| error[field].as_str().expect("text").to_owned();
    Learned { code: text("code"), message: text("message") }
}

#[track_caller]
fn connect_stream(response: &Response) -> Learned {
    assert_eq!(response.status, 200, "{}", response.text());
    assert_eq!(response.header("content-type"), Some("application/connect+json"));
    let [(2, end)] = &frames(&response.body)[..] else { panic!("{:?}", response.body) };
    learned(&serde_json::from_slice::<serde_json::Value>(end).expect("JSON")["error"])
}

#[track_caller]
fn grpc_web(response: &Response, body: &[u8]) -> Learned {
    assert_eq!(response.status, 200);
    let [(0x80, trailers)] = &frames(body)[..] else { panic!("{body:?}") };
    let block = String::from_utf8(trailers.clone()).expect("ASCII");
    let field = |name: &str| {
        let line = block.split("\r\n").find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        line.unwrap_or_else(|| panic!("no {name} in {block:?}")).to_owned()
    };
    Learned { code: name(&field("grpc-status")), message: percent_decoded(&field("grpc-message")) }
}

#[track_caller]
fn grpc(response: &H2Response) -> Learned {
    assert_eq!((response.status, response.header("content-type")), (200, Some("application/grpc")));
    assert_eq!((response.body.len(), response.reset), (0, None));
    Learned {
        code: name(response.status_field("grpc-status").expect("a status")),
        message: percent_decoded(response.status_field("grpc-message").unwrap_or_default()),
    }
}

fn web(content_type: &str) -> Call {
    Call::new("POST /s.S/M").header("Content-Type", content_type).body(frame(b"x"))
}

/// The same error as callers of all RPC protocols see it.
#[track_caller]
fn in_all_dialects(gateway: &Gateway) -> Vec<Learned> {
    let unary = Call::new("POST /s.S/M").header("Connect-Protocol-Version", "1").json("{}");
    let get = Call::new("GET /s.S/M?encoding=json&message=%7B%7D&connect=v1");
    let text = gateway.call(web("application/grpc-web-text"));
    assert_eq!(text.header("content-type"), Some("application/grpc-web-text"));
    let decoded = base64::engine::general_purpose::STANDARD.decode(&text.body).expect("Base64");
    let binary = gateway.call(web("application/grpc-web+proto"));
    assert_eq!(binary.header("content-type"), Some("application/grpc-web+proto"));
    let call = request("POST", "/s.S/M").header("content-type", "application/grpc");
    let body = frame(b"x");
    let over_h2 = H2Client::connect(gateway.address).call(call.body(&body[..]).unwrap());
    vec![
        connect(&gateway.call(unary)),
        connect(&gateway.call(get)),
        connect_stream(&gateway.call(web("application/connect+json"))),
        grpc_web(&binary, &binary.body),
        grpc_web(&text, &decoded),
        grpc(&over_h2),
    ]
}

#[test]
fn a_refusal_is_written_in_the_callers_protocol() {
    let gateway = Plan::route("").start();
    for error in in_all_dialects(&gateway) {
        assert_eq!(error.code, "unavailable");
        assert_eq!(error.message, "the upstream could not be reached");
    }
    assert_eq!(gateway.post("/", "{}").code(), "connect_refused", "plain HTTP has its own");
}

#[test]
fn what_has_no_route_is_unimplemented() {
    let routes = "routes: {only: {match: {path: /elsewhere}, serve: live}}";
    for error in in_all_dialects(&Plan::new(routes).start()) {
        assert_eq!(error.code, "unimplemented");
    }
}

#[test]
fn a_request_that_comes_back_is_refused_in_the_callers_protocol() {
    let gateway = Gateway::route(&Upstream::start(), "");
    // Both lead to each other; what the second one says passes through the first one as it is.
    let other = Plan::route("").env("UPSTREAM", &format!("http://{}", gateway.address)).start();
    let section = format!("upstreams: {{service: {{endpoints: ['http://{}']}}}}", other.address);
    assert!(gateway.reload_plan(&Plan::route("").section(&section)));
    for error in in_all_dialects(&gateway) {
        assert_eq!(error.code, "failed_precondition");
    }
}

#[test]
fn an_upstreams_plain_error_becomes_the_callers() {
    let upstream = Upstream::always(Answer::json(409, "{\"error\":\"schon vergeben: 100% ü\"}"));
    for error in in_all_dialects(&Gateway::route(&upstream, "")) {
        let message = "schon vergeben: 100% ü".to_owned();
        assert_eq!(error, Learned { code: "already_exists".to_owned(), message });
    }
}

#[test]
fn an_upstreams_empty_error_has_a_code_too() {
    let upstream = Upstream::always(Answer::from(503).body(""));
    for error in in_all_dialects(&Gateway::route(&upstream, "")) {
        assert_eq!(error.code, "unavailable");
    }
}

#[test]
fn the_table_of_the_connect_protocol_is_an_option() {
    let upstream = Upstream::always(Answer::json(404, "{\"error\":\"no\"}"));
    for error in in_all_dialects(&Gateway::route(&upstream, "error_codes: connect")) {
        assert_eq!(error.code, "unimplemented");
    }
}

#[test]
fn a_route_may_have_its_own_codes_for_single_statuses() {
    for (status, codes, expected) in [
        (501, "{501: internal}", "internal"),
        (416, "{501: internal, 416: out_of_range}", "out_of_range"),
        // Above another table than the default; what is not listed is as there.
        (501, "{base: connect, 501: internal}", "internal"),
        (404, "{base: connect, 501: internal}", "unimplemented"),
        (404, "{501: internal}", "not_found"),
    ] {
        let upstream = Upstream::always(Answer::json(status, "{\"error\":\"no\"}"));
        let gateway = Gateway::route(&upstream, &format!("error_codes: {codes}"));
        for error in in_all_dialects(&gateway) {
            let told = (error.code.as_str(), error.message.as_str());
            assert_eq!(told, (expected, "no"), "{status} with {codes}");
        }
    }
}

#[test]
fn an_upstream_that_speaks_the_protocol_is_not_remapped() {
    let body = "{\"code\":\"failed_precondition\",\"message\":\"no\"}";
    let upstream = Upstream::always(Answer::json(400, body));
    for table in ["gateway", "connect"] {
        let gateway = Gateway::route(&upstream, &format!("error_codes: {table}"));
        let unary = Call::new("POST /").header("Connect-Protocol-Version", "1").json("{}");
        let response = gateway.call(unary);
        assert_eq!((response.status, response.text().as_str()), (400, body), "{table}");
    }
    let frame = frame(b"{\"error\":{\"code\":\"aborted\"}}");
    let answer = Answer::from(500).header("Content-Type", "application/connect+json");
    let upstream = Upstream::always(answer.body(std::str::from_utf8(&frame).unwrap()));
    let response = Gateway::route(&upstream, "").call(web("application/connect+json"));
    assert_eq!((response.status, response.body), (500, frame));
}

#[test]
fn an_upstream_that_speaks_connect_has_its_code_in_every_other_protocol() {
    let body = "{\"code\":\"aborted\",\"message\":\"somebody was faster\"}";
    let upstream = Upstream::always(Answer::json(409, body));
    let gateway = Gateway::route(&upstream, "");
    let end = connect_stream(&gateway.call(web("application/connect+json")));
    assert_eq!((end.code.as_str(), end.message.as_str()), ("aborted", "somebody was faster"));
    let call = request("POST", "/").header("content-type", "application/grpc");
    let response = H2Client::connect(gateway.address).call(call.body(&b""[..]).unwrap());
    assert_eq!(response.status_field("grpc-status"), Some("10"));
}

#[test]
fn grpc_that_fails_in_a_plain_way_gets_a_status() {
    let upstream = H2Upstream::always(Reply::status(503).body(b"<html>down</html>"));
    let gateway = Plan::route("").h2_upstream(&upstream).start();
    let call = request("POST", "/").header("content-type", "application/grpc");
    let response = H2Client::connect(gateway.address).call(call.body(&b""[..]).unwrap());
    assert_eq!(grpc(&response).code, "unavailable");
}

#[test]
fn an_answer_of_grpc_that_breaks_off_says_why() {
    let stall = Reply::stall().header("content-type", "application/grpc").body(&frame(b"first"));
    let upstream = H2Upstream::always(stall);
    let gateway = Plan::route("timeout: {request: 300ms}").h2_upstream(&upstream).start();
    let call = request("POST", "/").header("content-type", "application/grpc");
    let response = H2Client::connect(gateway.address).call(call.body(&b""[..]).unwrap());
    assert_eq!((response.status, &response.body[..]), (200, &frame(b"first")[..]));
    assert_eq!(response.trailers.expect("trailers")["grpc-status"], "4");
}

/// `google.rpc.Status` and what is in it, as any client decodes them.
#[derive(Clone, PartialEq, prost::Message)]
struct Status {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Any {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    retry_delay: Option<Delay>,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct Delay {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

#[track_caller]
fn seconds(retry_info: &[u8]) -> i64 {
    let info: RetryInfo = prost::Message::decode(retry_info).expect("a RetryInfo");
    info.retry_delay.expect("a delay").seconds
}

#[test]
fn when_to_try_again_is_among_the_details() {
    let policies = "rate_limit: {fixed_window: {requests: 1, per: 1m}, key: route}";
    let gateway = Gateway::route(&Upstream::start(), policies);
    gateway.get("/");
    let decode =
        |text: &str| base64::engine::general_purpose::STANDARD_NO_PAD.decode(text).expect("Base64");

    let unary = Call::new("POST /").header("Connect-Protocol-Version", "1").json("{}");
    let response = gateway.call(unary);
    assert_eq!((response.status, response.code().as_str()), (429, "resource_exhausted"));
    let detail = &response.json()["details"][0];
    assert_eq!(detail["type"], "google.rpc.RetryInfo");
    assert!((1..=60).contains(&seconds(&decode(detail["value"].as_str().expect("text")))));

    let call = request("POST", "/").header("content-type", "application/grpc");
    let response = H2Client::connect(gateway.address).call(call.body(&b""[..]).unwrap());
    let bytes = decode(response.header("grpc-status-details-bin").expect("details"));
    let status: Status = prost::Message::decode(&bytes[..]).expect("a Status");
    assert_eq!((status.code, status.message.as_str()), (8, "the rate limit is used up"));
    assert_eq!(status.details[0].type_url, "type.googleapis.com/google.rpc.RetryInfo");
    assert!((1..=60).contains(&seconds(&status.details[0].value)));
}

#[test]
fn an_upstreams_retry_after_is_among_the_details_too() {
    let upstream = Upstream::always(Answer::json(503, "{}").header("Retry-After", "7"));
    let unary = Call::new("POST /").header("Connect-Protocol-Version", "1").json("{}");
    let error = Gateway::route(&upstream, "").call(unary).json();
    let value = error["details"][0]["value"].as_str().expect("text");
    let bytes = base64::engine::general_purpose::STANDARD_NO_PAD.decode(value).expect("Base64");
    assert_eq!(seconds(&bytes), 7);
}

#[test]
fn a_route_may_write_its_errors_as_connect_for_everybody() {
    let upstream = Upstream::script([Answer::ok(), Answer::from(404)]);
    let gateway = Gateway::route(&upstream, "errors: connect");
    assert_eq!(gateway.get("/plain?x=1").status, 200);
    assert_eq!(gateway.get("/plain?x=1").code(), "not_found");
}

#[test]
fn a_fallback_is_for_those_who_read_json() {
    let policies = "fallback: {status: 200, json: {stand: in}}";
    let gateway = Plan::route(policies).start();
    assert_eq!(gateway.get("/").json()["stand"], "in");
    let end = connect_stream(&gateway.call(web("application/connect+json")));
    assert_eq!(end.code, "unavailable");
}

#[test]
fn statuses_are_rewritten_for_plain_http_alone() {
    let upstream = Upstream::always(Answer::json(404, "{\"error\":\"no\"}"));
    let policies = "status_map: {404: 410}\nrecord: {mode: async}";
    let gateway = Gateway::route(&upstream, policies);
    let response = gateway.get("/");
    assert_eq!((response.status, response.text().as_str()), (410, "{\"error\":\"no\"}"));
    let unary = Call::new("POST /").header("Connect-Protocol-Version", "1").json("{}");
    assert_eq!(gateway.call(unary).status, 404);
    eventually("the request in the metrics", || {
        let counted = gateway.metric("portcullis_requests_total", &[("protocol", "connect")]);
        (counted == 1.0).then_some(())
    });
}
