//! One error in every dialect, byte by byte.

use std::time::Duration;

use super::*;

const ERROR: RpcError<'static> =
    RpcError { code: RpcCode::Unavailable, message: "50% är nere", retry_after: None };

fn written(protocol: Protocol, error: &RpcError<'_>) -> Rendered {
    let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/x"))]);
    let reader = Reader {
        protocol,
        headers: &headers,
        codes: &ErrorCodes::GATEWAY,
        statuses: None,
        request_id: "r-1",
    };
    reader.fail(error)
}

fn header<'a>(rendered: &'a Rendered, name: &str) -> &'a str {
    let found = rendered.headers.iter().find(|(known, _)| known == name);
    found.expect("the header").1.to_str().expect("text")
}

#[test]
fn connect_is_json_with_the_status_of_its_code() {
    let rendered = written(Protocol::Connect, &ERROR);
    assert_eq!((rendered.status, header(&rendered, "content-type")), (503, "application/json"));
    assert_eq!(
        &rendered.body[..],
        "{\"code\":\"unavailable\",\"message\":\"50% är nere\"}".as_bytes()
    );
}

#[test]
fn a_connect_stream_ends_with_an_envelope() {
    let rendered = written(Protocol::ConnectStream, &ERROR);
    assert_eq!((rendered.status, header(&rendered, "content-type")), (200, "application/x"));
    let (prefix, json) = rendered.body.split_at(5);
    assert_eq!(prefix, [2, 0, 0, 0, u8::try_from(json.len()).expect("short")]);
    let json: serde_json::Value = serde_json::from_slice(json).expect("JSON");
    assert_eq!(json["error"]["code"], "unavailable");
}

#[test]
fn grpc_is_a_head_and_nothing_else() {
    let rendered = written(Protocol::Grpc, &ERROR);
    assert_eq!((rendered.status, rendered.bare, rendered.body.len()), (200, true, 0));
    assert_eq!(header(&rendered, "grpc-status"), "14");
    assert_eq!(header(&rendered, "grpc-message"), "50%25 %C3%A4r nere");
}

#[test]
fn grpc_web_is_a_frame_of_trailers() {
    let rendered = written(Protocol::GrpcWeb, &ERROR);
    let block = b"grpc-status: 14\r\ngrpc-message: 50%25 %C3%A4r nere\r\n";
    assert_eq!(&rendered.body[..], &envelope(0x80, block)[..]);
    let text = written(Protocol::GrpcWebText, &ERROR);
    use base64::Engine as _;
    let decoded = base64::engine::general_purpose::STANDARD.decode(&text.body);
    assert_eq!(decoded.expect("Base64"), &rendered.body[..]);
}

#[test]
fn when_to_try_again_is_a_detail() {
    let error = RpcError { retry_after: Some(Duration::from_secs(7)), ..ERROR };
    let json: serde_json::Value =
        serde_json::from_slice(&written(Protocol::Connect, &error).body).expect("JSON");
    let detail = &json["details"][0];
    assert_eq!(
        (&detail["type"], &detail["value"]),
        (&"google.rpc.RetryInfo".into(), &"CgIIBw".into())
    );
    assert!(header(&written(Protocol::Grpc, &error), "grpc-status-details-bin").len() > 20);
}

#[test]
fn an_upstreams_own_words_are_found() {
    for (body, message) in [
        (&br#"{"error":"taken"}"#[..], "taken"),
        (br#"{"message":"gone"}"#, "gone"),
        (b"<html>", "the upstream failed"),
    ] {
        let said = Said::in_body(body);
        assert_eq!((said.code, said.message.as_str()), (None, message));
    }
}

#[test]
fn an_upstream_that_speaks_connect_is_known_by_its_code() {
    let code = |body: &[u8]| Said::in_body(body).code;
    assert_eq!(code(br#"{"code":"failed_precondition"}"#), Some(RpcCode::FailedPrecondition));
    assert_eq!(code(br#"{"code":"E1234"}"#), None);
}
