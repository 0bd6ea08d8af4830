//! Callers of RPC: one call in every protocol, and what each of them is told.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::client::{Call, Client, Response};
use super::gateway::Gateway;
use super::h2_client::{H2Client, request};
use super::h2_upstream::frame;

/// The method that the shipped descriptors describe.
pub const INVOKE: &str = "/gateway.v1.GatewayService/InvokeCustom";

/// What an upstream's status is to callers of RPC, by the product's own table.
pub const CODES_OF_STATUS: [(u16, &str); 11] = [
    (400, "invalid_argument"),
    (401, "unauthenticated"),
    (403, "permission_denied"),
    (404, "not_found"),
    (409, "already_exists"),
    (429, "resource_exhausted"),
    (500, "internal"),
    (502, "unavailable"),
    (503, "unavailable"),
    (504, "deadline_exceeded"),
    (507, "internal"),
];

/// The codes that tests come across, at the place of their number.
const CODES: [&str; 17] = [
    "ok",
    "canceled",
    "unknown",
    "invalid_argument",
    "deadline_exceeded",
    "not_found",
    "already_exists",
    "permission_denied",
    "resource_exhausted",
    "failed_precondition",
    "aborted",
    "out_of_range",
    "unimplemented",
    "internal",
    "unavailable",
    "data_loss",
    "unauthenticated",
];

/// How a caller speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    ConnectJson,
    ConnectProto,
    GrpcWeb,
    GrpcWebText,
    Grpc,
}

/// What a caller was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// Of HTTP.
    pub status: u16,
    /// `ok`, or the name of an error's code.
    pub code: String,
    /// The message's only field, or what an error says.
    pub text: String,
    pub headers: Vec<(String, String)>,
}

impl Dialect {
    pub const ALL: [Dialect; 5] = [
        Dialect::ConnectJson,
        Dialect::ConnectProto,
        Dialect::GrpcWeb,
        Dialect::GrpcWebText,
        Dialect::Grpc,
    ];

    pub fn content_type(self) -> &'static str {
        match self {
            Dialect::ConnectJson => "application/json",
            Dialect::ConnectProto => "application/proto",
            Dialect::GrpcWeb => "application/grpc-web+proto",
            Dialect::GrpcWebText => "application/grpc-web-text",
            Dialect::Grpc => "application/grpc",
        }
    }

    /// The body of a call that says `name`.
    pub fn body(self, name: &str) -> Vec<u8> {
        match self {
            Dialect::ConnectJson => serde_json::json!({"name": name}).to_string().into_bytes(),
            Dialect::ConnectProto => message(name),
            Dialect::GrpcWeb | Dialect::Grpc => frame(&message(name)),
            Dialect::GrpcWebText => STANDARD.encode(frame(&message(name))).into_bytes(),
        }
    }

    /// [`INVOKE`] in the gateway, and what it says.
    #[track_caller]
    pub fn call(self, gateway: &Gateway, name: &str, headers: &[(&str, &str)]) -> Told {
        self.send(gateway, &self.body(name), headers)
    }

    /// With a body of the test's own.
    #[track_caller]
    pub fn send(self, gateway: &Gateway, body: &[u8], headers: &[(&str, &str)]) -> Told {
        if self == Dialect::Grpc {
            let mut head = request("POST", INVOKE)
                .header("content-type", self.content_type())
                .header("te", "trailers");
            for (name, value) in headers {
                head = head.header(*name, *value);
            }
            let answer = H2Client::connect(gateway.address).call(head.body(body).expect("a call"));
            assert_eq!(answer.reset, None);
            let code = answer.status_field("grpc-status").expect("a status").to_owned();
            let said = answer.status_field("grpc-message").unwrap_or_default();
            let text = match answer.body.get(5..) {
                Some(message) => field(message),
                None => said.to_owned(),
            };
            let fields = answer.headers.iter().chain(answer.trailers.iter().flatten());
            let fields = fields
                .map(|(name, value)| (name.to_string(), value.to_str().expect("text").to_owned()));
            return Told {
                status: answer.status,
                code: named(&code),
                text,
                headers: fields.collect(),
            };
        }
        let mut call = Call::new(&format!("POST {INVOKE}")).body(body);
        call = call.header("content-type", self.content_type());
        for (name, value) in headers {
            call = call.header(name, value);
        }
        self.told(&Client::connect(gateway.address).call(&call))
    }

    /// What an answer over HTTP/1.1 says.
    #[track_caller]
    pub fn told(self, response: &Response) -> Told {
        let (code, text) = match self {
            Dialect::ConnectJson | Dialect::ConnectProto if response.status != 200 => {
                assert_eq!(response.header("content-type"), Some("application/json"));
                let said = response.json()["message"].as_str().expect("a message").to_owned();
                (response.code(), said)
            }
            Dialect::ConnectJson => {
                let message = response.json()["message"].as_str().unwrap_or_default().to_owned();
                ("ok".to_owned(), message)
            }
            Dialect::ConnectProto => ("ok".to_owned(), field(&response.body)),
            Dialect::GrpcWeb => web(&response.body),
            Dialect::GrpcWebText => web(&STANDARD.decode(&response.body).expect("Base64")),
            Dialect::Grpc => panic!("gRPC needs HTTP/2"),
        };
        let (status, headers) = (response.status, response.headers.clone());
        Told { status, code, text, headers }
    }
}

impl Told {
    pub fn header(&self, wanted: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted));
        found.map(|(_, value)| value.as_str())
    }

    /// `(code, text)`.
    pub fn said(&self) -> (&str, &str) {
        (&self.code, &self.text)
    }
}

/// A message whose one field is this text.
pub fn message(text: &str) -> Vec<u8> {
    if text.is_empty() {
        return Vec::new();
    }
    let length = u8::try_from(text.len()).expect("a short text");
    assert!(length < 128);
    [&[0x0a, length], text.as_bytes()].concat()
}

#[track_caller]
fn field(message: &[u8]) -> String {
    match message {
        [] => String::new(),
        [0x0a, length, text @ ..] => {
            assert_eq!(usize::from(*length), text.len());
            String::from_utf8(text.to_vec()).expect("text")
        }
        other => panic!("not the message that was expected: {other:?}"),
    }
}

/// The messages and the trailers of an answer of gRPC-Web.
#[track_caller]
fn web(mut body: &[u8]) -> (String, String) {
    let (mut text, mut code) = (String::new(), None);
    while let Some(([flags, length @ ..], rest)) = body.split_first_chunk::<5>() {
        let (data, rest) = rest.split_at(u32::from_be_bytes(*length) as usize);
        body = rest;
        if flags & 0x80 == 0 {
            text = field(data);
            continue;
        }
        for line in String::from_utf8_lossy(data).lines() {
            let (name, value) = line.split_once(':').expect("a field");
            match name.to_ascii_lowercase().as_str() {
                "grpc-status" => code = Some(named(value.trim())),
                "grpc-message" => text = value.trim().to_owned(),
                _ => {}
            }
        }
    }
    assert!(body.is_empty(), "{body:?}");
    (code.expect("a frame of trailers"), text)
}

#[track_caller]
fn named(number: &str) -> String {
    CODES[number.parse::<usize>().expect("a number")].to_owned()
}
