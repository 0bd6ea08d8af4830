//! Compressed messages of RPC, to an upstream that knows only HTTP and JSON; and compressed answers.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::support::{
    Answer, Call, Dialect, Gateway, H2Client, INVOKE, Response, Upstream, compress, decompress,
    frame, gzip_at, message, request,
};
use crate::transcode::{hello, plan, start};

pub const CODINGS: [&str; 2] = ["gzip", "deflate"];
/// A name that gets smaller.
const LONG: &str = "Ada Lovelace, Ada Lovelace, Ada Lovelace, Ada Lovelace, Ada Lovelace";

fn is_connect(dialect: Dialect) -> bool {
    matches!(dialect, Dialect::ConnectJson | Dialect::ConnectProto)
}

/// How a caller says how its message is encoded.
fn encoding_header(dialect: Dialect) -> &'static str {
    if is_connect(dialect) { "content-encoding" } else { "grpc-encoding" }
}

fn accept_header(dialect: Dialect) -> &'static str {
    if is_connect(dialect) { "accept-encoding" } else { "grpc-accept-encoding" }
}

/// The message that says `name`, in no frame.
fn bare(dialect: Dialect, name: &str) -> Vec<u8> {
    match dialect {
        Dialect::ConnectJson => dialect.body(name),
        _ => message(name),
    }
}

/// What `data` is on the wire as a compressed message.
fn framed(dialect: Dialect, data: &[u8]) -> Vec<u8> {
    let in_frame = || {
        let mut framed = frame(data);
        framed[0] = 1;
        framed
    };
    match dialect {
        Dialect::ConnectJson | Dialect::ConnectProto => data.to_vec(),
        Dialect::GrpcWeb | Dialect::Grpc => in_frame(),
        Dialect::GrpcWebText => STANDARD.encode(in_frame()).into_bytes(),
    }
}

fn limited(limits: &str, upstream: &Upstream, policies: &str) -> Gateway {
    let transcode = format!(
        "transcode: {{descriptors: gateway, method: gateway.v1.GatewayService/InvokeCustom, http: {{path: /invoke, body: '*'}}, {limits}}}"
    );
    plan(&format!("{transcode}\n{policies}")).upstream(upstream).start()
}

#[test]
fn every_dialect_may_send_its_message_in_gzip_or_deflate() {
    let upstream = Upstream::always(hello());
    let gateway = start(&upstream, "");
    for dialect in Dialect::ALL {
        for coding in CODINGS {
            let data = compress(coding, &bare(dialect, LONG));
            let header = [(encoding_header(dialect), coding)];
            let told = dialect.send(&gateway, &framed(dialect, &data), &header);
            assert_eq!(told.said(), ("ok", "Hello!"), "{dialect:?} {coding}");
        }
        // Two members are one body, and nothing is nothing in any encoding.
        let name = bare(dialect, LONG);
        let (begin, end) = name.split_at(name.len() / 2);
        let members = [compress("gzip", begin), compress("gzip", end)].concat();
        let header = [(encoding_header(dialect), "gzip")];
        let told = dialect.send(&gateway, &framed(dialect, &members), &header);
        assert_eq!(told.code, "ok", "{dialect:?}");
        if dialect != Dialect::ConnectJson {
            let told = dialect.send(&gateway, &framed(dialect, b""), &header);
            assert_eq!(told.code, "ok", "{dialect:?}");
        }
    }
    let seen = upstream.wait_complete(19);
    for request in &seen {
        let name = if request.text().contains("World") { "World" } else { LONG };
        assert_eq!(request.text(), format!("{{\"name\":\"{name}\"}}"));
        let length = request.header("content-length").map(str::to_owned);
        assert_eq!(length, Some(request.body_length.to_string()));
        assert_eq!(request.header("content-encoding"), None);
        assert_eq!(request.header("accept-encoding"), Some("identity"));
        for name in ["grpc-encoding", "grpc-accept-encoding"] {
            assert_eq!(request.header(name), None, "{name}");
        }
    }
    assert_eq!(seen.iter().filter(|request| request.text().contains("World")).count(), 4);
}

#[test]
fn a_message_that_is_not_what_its_encoding_says_is_an_invalid_argument() {
    let upstream = Upstream::always(hello());
    let gateway = start(&upstream, "");
    for dialect in Dialect::ALL {
        for coding in CODINGS {
            let whole = compress(coding, &bare(dialect, LONG));
            let mut damaged = whole.clone();
            let middle = damaged.len() / 2;
            damaged[middle] ^= 0xff;
            let mut checksum = whole.clone();
            let end = checksum.len() - 5;
            checksum[end] ^= 1;
            for (what, data) in [
                ("cut short", whole[..whole.len() - 1].to_vec()),
                ("its head alone", whole[..2].to_vec()),
                ("followed by more", [&whole[..], b"more"].concat()),
                ("damaged", damaged),
                ("another checksum", if coding == "gzip" { checksum } else { b"x\x9c".to_vec() }),
                ("not compressed", bare(dialect, "Ada")),
            ] {
                let header = [(encoding_header(dialect), coding)];
                let told = dialect.send(&gateway, &framed(dialect, &data), &header);
                assert_eq!(told.code, "invalid_argument", "{dialect:?} {coding} {what}");
            }
        }
    }
    assert_eq!(upstream.count(), 0);
}

#[test]
fn a_bomb_is_resource_exhausted_and_takes_no_more_memory_than_the_bound() {
    let upstream = Upstream::always(hello());
    let gateway = start(&upstream, "");
    let zeros = vec![b' '; 64 << 20];
    let bombs = CODINGS.map(|coding| (coding, compress(coding, &zeros)));
    drop(zeros);
    let send = |dialect: Dialect, coding: &str, bomb: &[u8]| {
        let header = [(encoding_header(dialect), coding)];
        dialect.send(&gateway, &framed(dialect, bomb), &header)
    };
    // What requests of this size cost anyway is there before.
    for dialect in Dialect::ALL {
        let message = compress("gzip", &bare(dialect, LONG));
        assert_eq!(send(dialect, "gzip", &message).code, "ok");
        for _ in 0..4 {
            let unread = vec![b' '; bombs[0].1.len()];
            assert_eq!(send(dialect, "gzip", &unread).code, "invalid_argument");
        }
    }
    let before = gateway.memory("VmHWM");
    for (coding, bomb) in &bombs {
        assert!(bomb.len() < 100_000, "{}", bomb.len());
        let mut lying = bomb.clone();
        let end = lying.len() - 4;
        lying[end..].copy_from_slice(&[9, 0, 0, 0]);
        for dialect in Dialect::ALL {
            for bomb in [bomb, &lying] {
                let told = send(dialect, coding, bomb);
                assert_eq!(told.code, "resource_exhausted", "{dialect:?} {coding}");
            }
        }
    }
    let grown = gateway.memory("VmHWM") - before;
    assert!(grown < 16 << 20, "grew by {grown} bytes");
    assert_eq!(upstream.count(), 5);
}

#[test]
fn messages_are_bounded_once_they_are_decoded() {
    let upstream = Upstream::always(hello());
    let text = |length: usize| format!("{{\"name\":\"{}\"}}", "a".repeat(length - 11));
    for (limits, policies) in [("max_message: 1KiB", ""), ("max_message: 1MiB", "max_body: 1KiB")] {
        let gateway = limited(limits, &upstream, policies);
        for coding in CODINGS {
            let send = |length: usize| {
                let body = compress(coding, text(length).as_bytes());
                let call = Call::new(&format!("POST {INVOKE}")).header("content-encoding", coding);
                gateway.call(call.header("content-type", "application/json").body(body))
            };
            assert_eq!(send(1024).status, 200, "{limits} {policies} {coding}");
            let beyond = send(1025);
            assert_eq!((beyond.status, beyond.code().as_str()), (429, "resource_exhausted"));
        }
    }
    assert_eq!(upstream.count(), 4);
}

/// The one field of a message, which may be long.
#[track_caller]
fn field(message: &[u8]) -> String {
    assert_eq!(message[0], 0x0a);
    let length = message[1..].iter().position(|byte| byte & 0x80 == 0).expect("a length");
    String::from_utf8(message[length + 2..].to_vec()).expect("text")
}

/// The message in an answer's body, its encoding undone.
#[track_caller]
fn text_of(dialect: Dialect, body: &[u8], coding: Option<&str>) -> String {
    let undone = |data: &[u8], flags: u8| match coding {
        Some(coding) => {
            assert_eq!(flags, 1, "{dialect:?}");
            decompress(coding, data)
        }
        None => {
            assert_eq!(flags, 0, "{dialect:?}");
            data.to_vec()
        }
    };
    let in_frame = |body: &[u8]| {
        let length = u32::from_be_bytes(body[1..5].try_into().expect("four bytes")) as usize;
        let rest = &body[5 + length..];
        let is_web = dialect != Dialect::Grpc;
        assert_eq!(rest, if is_web { &b"\x80\0\0\0\x0fgrpc-status:0\r\n"[..] } else { b"" });
        field(&undone(&body[5..5 + length], body[0]))
    };
    let flags = u8::from(coding.is_some());
    match dialect {
        Dialect::ConnectJson => {
            let json: serde_json::Value =
                serde_json::from_slice(&undone(body, flags)).expect("JSON");
            json["message"].as_str().expect("a message").to_owned()
        }
        Dialect::ConnectProto => field(&undone(body, flags)),
        Dialect::GrpcWeb | Dialect::Grpc => in_frame(body),
        Dialect::GrpcWebText => in_frame(&STANDARD.decode(body).expect("Base64")),
    }
}

/// What a caller got: its fields, and the bytes of its body.
struct Got {
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Got {
    fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }
}

#[track_caller]
fn call(gateway: &Gateway, dialect: Dialect, headers: &[(&str, &str)]) -> Got {
    if dialect == Dialect::Grpc {
        let mut head = request("POST", INVOKE).header("content-type", dialect.content_type());
        for (name, value) in headers {
            head = head.header(*name, *value);
        }
        let body = dialect.body("Ada");
        let answer = H2Client::connect(gateway.address).call(head.body(&body[..]).expect("a call"));
        assert_eq!(answer.status_field("grpc-status"), Some("0"));
        let text = |value: &http::HeaderValue| value.to_str().expect("text").to_owned();
        let fields = answer.headers.iter().map(|(name, value)| (name.to_string(), text(value)));
        return Got { headers: fields.collect(), body: answer.body.to_vec() };
    }
    let mut call = Call::new(&format!("POST {INVOKE}")).body(dialect.body("Ada"));
    call = call.header("content-type", dialect.content_type());
    for (name, value) in headers {
        call = call.header(name, value);
    }
    let response: Response = gateway.call(call);
    assert_eq!(response.status, 200, "{}", response.text());
    let length = response.header("content-length").expect("a length");
    assert_eq!(length, response.body_length.to_string());
    Got { headers: response.headers, body: response.body }
}

#[test]
fn an_answer_is_compressed_as_its_caller_accepts_it() {
    let long = "Hello Ada! ".repeat(200);
    let upstream = Upstream::always(Answer::json(200, &format!("{{\"message\":\"{long}\"}}")));
    let gateway = start(&upstream, "");
    for dialect in Dialect::ALL {
        for (accepted, coding) in [
            ("gzip", Some("gzip")),
            ("identity,gzip", Some("gzip")),
            ("br, deflate", Some("deflate")),
            ("identity", None),
            ("br", None),
            ("gzip;q=0", None),
        ] {
            let got = call(&gateway, dialect, &[(accept_header(dialect), accepted)]);
            let said = got.header(encoding_header(dialect));
            assert_eq!(said, coding, "{dialect:?} {accepted}");
            assert_eq!(text_of(dialect, &got.body, coding), long, "{dialect:?} {accepted}");
            assert_eq!(got.body.len() < 500, coding.is_some(), "{dialect:?} {accepted}");
            let varies = is_connect(dialect).then_some("Accept-Encoding");
            assert_eq!(got.header("vary"), varies, "{dialect:?}");
        }
        // Each protocol has a field of its own; the other's says nothing.
        let other = if is_connect(dialect) { "grpc-accept-encoding" } else { "accept-encoding" };
        let got =
            call(&gateway, dialect, &[(other, "gzip"), (encoding_header(dialect), "identity")]);
        assert_eq!(got.header(encoding_header(dialect)), None, "{dialect:?}");
        assert_eq!(text_of(dialect, &got.body, None), long, "{dialect:?}");
    }
}

#[test]
fn what_is_short_or_gets_no_shorter_is_not_compressed() {
    let medium = "Hello Ada! ".repeat(10);
    let answer = |text: &str| Answer::json(200, &format!("{{\"message\":\"{text}\"}}"));
    let upstream = Upstream::always(answer(&medium));
    for (limits, compressed) in
        [("compress_from: 1KiB", false), ("compress_from: 32B", true), ("compress_from: 0B", true)]
    {
        let gateway = limited(limits, &upstream, "");
        upstream.answer_always(answer(&medium));
        for dialect in Dialect::ALL {
            let got = call(&gateway, dialect, &[(accept_header(dialect), "gzip")]);
            let said = got.header(encoding_header(dialect));
            assert_eq!(said, compressed.then_some("gzip"), "{limits} {dialect:?}");
        }
        upstream.answer_always(answer("x"));
        for dialect in Dialect::ALL {
            let got = call(&gateway, dialect, &[(accept_header(dialect), "gzip")]);
            assert_eq!(got.header(encoding_header(dialect)), None, "{limits} {dialect:?}");
            assert_eq!(text_of(dialect, &got.body, None), "x");
        }
    }
}

#[test]
fn an_error_of_connect_is_compressed_and_one_of_grpc_has_nothing_to_compress() {
    let long = "not here, ".repeat(200);
    let upstream = Upstream::always(Answer::json(404, &format!("{{\"error\":\"{long}\"}}")));
    let gateway = start(&upstream, "");
    let call = Call::new(&format!("POST {INVOKE}")).header("accept-encoding", "gzip").json("{}");
    let error = gateway.call(call);
    assert_eq!((error.status, error.header("content-encoding")), (404, Some("gzip")));
    let json = decompress("gzip", &error.body);
    let json: serde_json::Value = serde_json::from_slice(&json).expect("JSON");
    assert_eq!((&json["code"], &json["message"]), (&"not_found".into(), &long.as_str().into()));
    for dialect in [Dialect::Grpc, Dialect::GrpcWeb, Dialect::GrpcWebText] {
        let accepted = [("grpc-accept-encoding", "gzip"), ("accept-encoding", "gzip")];
        let told = dialect.call(&gateway, "Ada", &accepted);
        assert_eq!(told.code, "not_found", "{dialect:?}");
        for name in ["grpc-encoding", "content-encoding"] {
            assert_eq!(told.header(name), None, "{dialect:?}");
        }
    }
}

#[test]
fn an_upstream_that_compresses_unasked_is_read() {
    let upstream = Upstream::start();
    let gateway = start(&upstream, "");
    for coding in CODINGS {
        upstream.answer_always(hello().compressed(coding));
        for dialect in Dialect::ALL {
            let told = dialect.call(&gateway, "Ada", &[]);
            assert_eq!(told.said(), ("ok", "Hello!"), "{dialect:?} {coding}");
        }
        upstream.answer_always(Answer::json(404, "{\"error\":\"none\"}").compressed(coding));
        for dialect in Dialect::ALL {
            let told = dialect.call(&gateway, "Ada", &[]);
            assert_eq!(told.said(), ("not_found", "none"), "{dialect:?} {coding}");
        }
        // More than the bound is no answer; of an error, the status tells.
        let zeros = format!("{{\"message\":\"{}\"}}", "0".repeat(2 << 20));
        upstream.answer_always(Answer::json(200, &zeros).compressed(coding));
        assert_eq!(Dialect::Grpc.call(&gateway, "Ada", &[]).code, "internal");
        upstream.answer_always(Answer::json(404, &zeros).compressed(coding));
        assert_eq!(Dialect::Grpc.call(&gateway, "Ada", &[]).code, "not_found");
    }
    upstream.answer_always(Answer::json(404, "{}").header("content-encoding", "br"));
    assert_eq!(Dialect::Grpc.call(&gateway, "Ada", &[]).code, "not_found");
}

#[test]
fn a_message_compressed_anew_is_the_same_for_its_key_and_its_answer_suits_who_gets_it() {
    let long = "Hello Ada! ".repeat(200);
    let upstream = Upstream::always(Answer::json(200, &format!("{{\"message\":\"{long}\"}}")));
    let gateway = start(&upstream, "idempotency: {}");
    for dialect in Dialect::ALL {
        let key = format!("{dialect:?}");
        let send = |name: &str, seconds: Option<u32>, accepted: &str| {
            let data = bare(dialect, name);
            let body = match seconds {
                Some(seconds) => framed(dialect, &gzip_at(seconds, &data)),
                None => dialect.body(name),
            };
            let encoding = if seconds.is_some() { "gzip" } else { "identity" };
            let fields = [
                ("idempotency-key", key.as_str()),
                (encoding_header(dialect), encoding),
                (accept_header(dialect), accepted),
            ];
            if dialect == Dialect::Grpc {
                let mut head = request("POST", INVOKE).header("content-type", "application/grpc");
                for (name, value) in fields {
                    head = head.header(name, value);
                }
                let answer =
                    H2Client::connect(gateway.address).call(head.body(&body[..]).expect("a call"));
                let replayed = answer.header("idempotency-replayed").is_some();
                let said = answer.header("grpc-encoding").map(str::to_owned);
                return (replayed, said, answer.body.to_vec());
            }
            let mut call = Call::new(&format!("POST {INVOKE}")).body(body);
            call = call.header("content-type", dialect.content_type());
            for (name, value) in fields {
                call = call.header(name, value);
            }
            let answer = gateway.call(call);
            let replayed = answer.header("idempotency-replayed").is_some();
            let said = answer.header(encoding_header(dialect)).map(str::to_owned);
            (replayed, said, answer.body)
        };
        let turns = [
            (Some(1), "gzip", Some("gzip")),
            (Some(2), "identity", None),
            (None, "deflate", Some("deflate")),
            (Some(3), "gzip", Some("gzip")),
        ];
        for (n, (seconds, accepted, coding)) in turns.into_iter().enumerate() {
            let (replayed, said, body) = send(LONG, seconds, accepted);
            assert_eq!((replayed, said.as_deref()), (n > 0, coding), "{dialect:?} {n}");
            assert_eq!(text_of(dialect, &body, coding), long, "{dialect:?} {n}");
        }
        let (replayed, _, body) = send("somebody else", Some(1), "identity");
        assert!(!replayed && !String::from_utf8_lossy(&body).contains("Hello"), "{dialect:?}");
    }
    assert_eq!(upstream.count(), Dialect::ALL.len());
}
