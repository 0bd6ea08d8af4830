//! Requests of RPC that are not what their protocol says: the right code, and nothing broken
//! reaches an upstream as if it were whole.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use h2::Reason;

use crate::support::{
    Call, Gateway, H2Client, H2Response, H2Upstream, Plan, Reply, Upstream, frame, request,
};

const INVALID_ARGUMENT: &str = "3";
const RESOURCE_EXHAUSTED: &str = "8";
const INTERNAL: &str = "13";

fn h2c(upstream: &H2Upstream, policies: &str) -> Gateway {
    Plan::route(policies).h2_upstream(upstream).start()
}

fn grpc() -> http::request::Builder {
    request("POST", "/s.S/M").header("content-type", "application/grpc")
}

#[track_caller]
fn assert_grpc(response: &H2Response, status: &str) {
    assert_eq!(
        (response.status, response.header("grpc-status")),
        (200, Some(status)),
        "{response:?}"
    );
}

#[test]
fn a_malformed_timeout_is_invalid_and_nothing_is_sent() {
    let upstream = H2Upstream::always(Reply::grpc(b"ok", 0));
    let gateway = h2c(&upstream, "");
    let client = H2Client::connect(gateway.address);
    for timeout in ["1", "S", "123456789m", "1 S", "-1S", "1s"] {
        let call = grpc().header("grpc-timeout", timeout);
        assert_grpc(&client.call(call.body(&frame(b"x")[..]).unwrap()), INVALID_ARGUMENT);
    }
    assert_eq!(upstream.count(), 0);
    assert_eq!(
        client.call(grpc().body(&frame(b"x")[..]).unwrap()).status_field("grpc-status"),
        Some("0")
    );
}

#[test]
fn a_malformed_connect_request_is_invalid_and_its_connection_is_kept() {
    let upstream = Upstream::start();
    let gateway = Gateway::route(&upstream, "");
    let post = || Call::new("POST /s.S/M").json("{}");
    let mut client = gateway.connect();
    for call in [
        post().header("Connect-Protocol-Version", "2"),
        post().header("Connect-Protocol-Version", "1").header("Connect-Timeout-Ms", "1s"),
        post().header("Connect-Protocol-Version", "1").header("Connect-Timeout-Ms", "12345678901"),
        Call::new("GET /s.S/M?connect=v1&encoding=json&message=%7B%7"),
        Call::new("GET /s.S/M?connect=v1&encoding=json&message=%zz"),
        Call::new("GET /s.S/M?connect=v1&encoding=xml&message=x"),
        Call::new("GET /s.S/M?connect=v1&message=x"),
        Call::new("GET /s.S/M?connect=v1&encoding=json"),
        Call::new("GET /s.S/M?connect=v1&encoding=proto&base64=1&message=a*b"),
    ] {
        let response = client.call(&call);
        assert_eq!(
            (response.status, response.code().as_str()),
            (400, "invalid_argument"),
            "{call:?}"
        );
    }
    assert_eq!(upstream.count(), 0);
    for fine in [
        "connect=v1&encoding=json&message=%7B%7D",
        "connect=v1&encoding=proto&base64=1&message=CgE_",
        "connect=v1&encoding=proto&base64=1&compression=gzip&message=H4sI",
    ] {
        assert_eq!(client.call(&Call::new(&format!("GET /s.S/M?{fine}"))).status, 200, "{fine}");
    }
    assert_eq!(
        upstream.requests()[1].target,
        "/s.S/M?connect=v1&encoding=proto&base64=1&message=CgE_"
    );
}

#[test]
fn a_path_that_is_no_percent_encoding_is_invalid_and_costs_its_stream_alone() {
    let upstream = Upstream::start();
    let gateway = Gateway::route(&upstream, "");
    let client = H2Client::connect(gateway.address);
    for (content_type, code) in [
        ("application/grpc", INVALID_ARGUMENT),
        ("application/grpc-web+proto", INVALID_ARGUMENT),
        ("application/proto", "invalid_argument"),
        ("application/connect+proto", "invalid_argument"),
    ] {
        let head = request("POST", "/s.S/M%zz").header("content-type", content_type);
        let answer = client.call(head.body(&frame(b"x")[..]).unwrap());
        let said = match answer.status_field("grpc-status") {
            Some(status) => status.to_owned(),
            None => code_of(content_type, &answer.body),
        };
        assert_eq!(said, code, "{content_type}");
    }
    assert_eq!(upstream.count(), 0);
    assert_eq!(client.get("/").status, 200);
}

#[test]
fn grpc_that_is_no_post_is_invalid() {
    let upstream = H2Upstream::always(Reply::grpc(b"ok", 0));
    let gateway = h2c(&upstream, "");
    let call = request("PUT", "/s.S/M").header("content-type", "application/grpc");
    let response = H2Client::connect(gateway.address).call(call.body(&b""[..]).unwrap());
    assert_grpc(&response, INVALID_ARGUMENT);
    assert_eq!(upstream.count(), 0);
}

#[test]
fn a_broken_stream_of_messages_gets_its_code_and_is_never_completed() {
    let upstream = H2Upstream::always(Reply::grpc(b"ok", 0));
    let gateway = h2c(&upstream, "max_body: 1KiB");
    let client = H2Client::connect(gateway.address);
    let large = [&[0, 0, 0, 4, 1][..], &[7; 1025]].concat();
    for (body, status) in [
        (&[8, 0, 0, 0, 1, 7][..], INVALID_ARGUMENT),
        (&[0, 0, 0, 0, 9, 7], INVALID_ARGUMENT),
        (&[0, 0, 0], INVALID_ARGUMENT),
        (&[1, 0, 0, 0, 1, 7], INTERNAL),
        (&large, RESOURCE_EXHAUSTED),
    ] {
        assert_grpc(&client.call(grpc().body(body).unwrap()), status);
    }
    assert!(upstream.requests().iter().all(|r| !r.complete), "{:#?}", upstream.requests());
    assert_eq!(
        client.call(grpc().body(&frame(b"x")[..]).unwrap()).status_field("grpc-status"),
        Some("0")
    );
}

#[test]
fn a_stream_that_breaks_after_its_answer_began_is_ended_in_trailers() {
    let echo = Reply::echo().header("content-type", "application/grpc").trailer("grpc-status", "0");
    let upstream = H2Upstream::always(echo);
    let gateway = h2c(&upstream, "");
    let client = H2Client::connect(gateway.address);
    let mut stream = client.open(grpc().body(()).unwrap(), false);
    assert_eq!(stream.head().status(), 200);
    stream.send(&[9, 0, 0, 0, 0], false);
    let end = stream.finish();
    assert_eq!(end.trailers.expect("trailers")["grpc-status"], INVALID_ARGUMENT);
    upstream.wait_cancelled(1);
}

/// The RPC code in an answer, whichever protocol it is of.
fn code_of(content_type: &str, body: &[u8]) -> String {
    let body = match content_type.contains("-text") {
        true => STANDARD.decode(body).expect("Base64"),
        false => body.to_vec(),
    };
    let text = String::from_utf8_lossy(&body);
    match text.split_once("grpc-status:") {
        Some((_, status)) => status.lines().next().unwrap_or_default().trim().to_owned(),
        None => text.split('"').skip_while(|part| *part != "code").nth(2).unwrap_or("").to_owned(),
    }
}

#[test]
fn a_message_that_is_too_large_is_resource_exhausted_in_every_protocol() {
    let upstream = Upstream::start();
    let gateway = Gateway::route(&upstream, "max_body: 1KiB");
    let http2 = H2Client::connect(gateway.address);
    let mut http1 = gateway.connect();
    let message = [7; 1025];
    // A length tells before anything is read; a message's own, in the middle of an attempt, which over
    // HTTP/1.1 ends the connection.
    for (content_type, body, code, in_midst) in [
        ("application/proto", message.to_vec(), "resource_exhausted", false),
        ("application/connect+json", frame(&message), "resource_exhausted", true),
        ("application/connect+proto", frame(&message), "resource_exhausted", true),
        ("application/grpc-web+proto", frame(&message), RESOURCE_EXHAUSTED, true),
        (
            "application/grpc-web-text",
            STANDARD.encode(frame(&message)).into(),
            RESOURCE_EXHAUSTED,
            false,
        ),
    ] {
        let call = Call::new("POST /s.S/M").header("Content-Type", content_type);
        let answer = http1.call(&call.clone().body(&body));
        assert_eq!(code_of(content_type, &answer.body), code, "{content_type}");
        let closes = answer.header("connection").is_some_and(|v| v.eq_ignore_ascii_case("close"));
        assert_eq!(closes, in_midst, "{content_type}");
        if closes {
            assert!(http1.is_closed(), "{content_type}");
            http1 = gateway.connect();
        }
        assert_eq!(http1.call(&Call::new("GET /")).status, 200, "{content_type}: the next one");
        http1.send(call.header("Transfer-Encoding", "chunked").bytes());
        http1.send([format!("{:x}\r\n", body.len()).as_bytes(), &body, b"\r\n0\r\n\r\n"].concat());
        let chunked = http1.receive();
        assert_eq!(code_of(content_type, &chunked.body), code, "{content_type}, in chunks");
        http1 = gateway.connect();
        let head = request("POST", "/s.S/M").header("content-type", content_type);
        let answer = http2.call(head.body(&body[..]).unwrap());
        assert_eq!(code_of(content_type, &answer.body), code, "{content_type}, HTTP/2");
        assert_eq!(http2.get("/").status, 200, "{content_type}: the next stream");
    }
    let (fine, refused): (Vec<_>, Vec<_>) =
        upstream.requests().into_iter().partition(|r| r.method == "GET");
    assert_eq!(fine.len(), 10);
    assert!(refused.iter().all(|r| !r.complete), "{refused:#?}");
}

#[test]
fn the_limit_on_bodies_is_one_on_each_message_of_a_stream() {
    let upstream = H2Upstream::always(Reply::grpc(b"ok", 0));
    let gateway = h2c(&upstream, "max_body: 1KiB");
    let stream = frame(&[7; 1000]).repeat(10);
    let response = H2Client::connect(gateway.address).call(grpc().body(&stream[..]).unwrap());
    assert_eq!(response.status_field("grpc-status"), Some("0"));
    assert_eq!(upstream.only().body, stream);
}

#[test]
fn compressed_messages_pass_where_their_encoding_is_named() {
    let upstream = H2Upstream::always(Reply::grpc(b"ok", 0));
    let gateway = h2c(&upstream, "");
    let call = grpc().header("grpc-encoding", "gzip");
    let response =
        H2Client::connect(gateway.address).call(call.body(&[1, 0, 0, 0, 1, 7][..]).unwrap());
    assert_eq!(response.status_field("grpc-status"), Some("0"));
}

#[test]
fn a_broken_stream_over_http_1_gets_its_code_too() {
    let upstream = Upstream::start();
    let gateway = Gateway::route(&upstream, "");
    let call = |body: &[u8]| {
        Call::new("POST /s.S/M").header("Content-Type", "application/connect+json").body(body)
    };
    for (body, code) in [(&[4, 0, 0, 0, 0][..], "invalid_argument"), (&[1, 0, 0, 0, 0], "internal")]
    {
        let response = gateway.call(call(body));
        assert_eq!(response.status, 200);
        assert!(response.text().contains(&format!("\"code\":\"{code}\"")), "{}", response.text());
    }
    assert!(upstream.requests().iter().all(|r| !r.complete));
}

#[test]
fn frames_that_are_none_end_their_connection_and_no_other() {
    use std::io::{Read, Write};
    let upstream = Upstream::start();
    let gateway = Gateway::route(&upstream, "");
    let mut stream = std::net::TcpStream::connect(gateway.address).expect("a connection");
    // A preface, settings, then DATA on a stream that was never opened.
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").unwrap();
    stream.write_all(b"\0\0\x01\0\0\0\0\0\x01x").unwrap();
    let mut heard = Vec::new();
    // It ends, with or without a word.
    let _ = stream.read_to_end(&mut heard);
    assert!(
        heard
            .windows(4)
            .any(|w| w == [0, 0, 0, Reason::PROTOCOL_ERROR.into()].map(|b: u32| b as u8))
    );
    assert_eq!(gateway.get("/").status, 200);
}
