//! One error, written for its caller: a refusal of the gateway's, or an upstream's plain one.
//!
//! What is refused, and with which status and code, was decided in [`super::rejection`]. Here it
//! becomes a head and bytes. Which dialect that is, [`Protocol::of`] reads off the request.
//!
//! | file | what it is for |
//! |---|---|
//! | `protocol` | which protocol a caller speaks, and what its head must look like |
//! | `problem` | plain HTTP: `application/problem+json` (RFC 9457) |
//! | `connect` | Connect: JSON, alone or at the end of a stream |
//! | `grpc` | gRPC and gRPC-Web: a status beside the messages |
//! | [`names`] | header fields of the RPC protocols |
//! | `details` | when to try again, as a detail of an RPC error |

use bytes::{BufMut, Bytes, BytesMut};
pub use connect::end_of_stream as connect_end;
pub use grpc::{END as GRPC_END, trailer_status, trailers_of, web_message, web_status};
use http::header::{CONTENT_TYPE, HeaderName};
use http::{HeaderMap, HeaderValue, StatusCode};
pub use protocol::{CONNECT_PROTOCOL_VERSION, Protocol};

use crate::config::error_codes::ErrorCodes;
use crate::config::rpc_code::RpcCode;
use crate::config::status_map::StatusMap;
use crate::policy::idempotency::Answer;
use crate::proxy::rejection::{Rejection, RpcError};

mod connect;
mod details;
mod grpc;
pub mod names;
mod problem;
mod protocol;

/// An error as an answer.
pub struct Rendered {
    /// The HTTP status; 200 in most RPC protocols.
    pub status: u16,
    /// Without the length of the body.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Empty if the head says it all.
    pub body: Bytes,
    /// There is no body, not even an empty one: the head ends the response.
    pub bare: bool,
}

impl Rendered {
    /// With a body, even if it is empty.
    pub fn new(status: u16, headers: Vec<(HeaderName, HeaderValue)>, body: Bytes) -> Self {
        Rendered { status, headers, body, bare: false }
    }

    /// As it is stored for an idempotency key, to be replayed.
    pub fn to_answer(&self) -> Answer {
        let headers = self.headers.iter().cloned().collect();
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::BAD_GATEWAY);
        Answer { status, headers, body: Some(self.body.clone()), trailers: None }
    }
}

/// Who is answered, and how.
#[derive(Clone, Copy)]
pub struct Reader<'a> {
    /// Decides the form.
    pub protocol: Protocol,
    /// The request's: an answer to RPC has its content type.
    pub headers: &'a HeaderMap,
    /// The codes of statuses, by the route's `error_codes`.
    pub codes: &'a ErrorCodes,
    /// What plain HTTP gets for the statuses of an upstream's errors of RPC.
    pub statuses: Option<&'a StatusMap>,
    /// Lets a person find the request in the record.
    pub request_id: &'a str,
}

impl Reader<'_> {
    /// Write `rejection`.
    pub fn refuse(self, rejection: &Rejection) -> Rendered {
        match self.protocol {
            Protocol::Http => problem::render(rejection, self.request_id),
            // Connect wants the status 415 here, which belongs to none of its codes.
            Protocol::Connect if matches!(rejection, Rejection::UnsupportedMediaType(_)) => {
                let error = rejection.to_rpc(self.codes);
                Rendered { status: rejection.status().as_u16(), ..self.fail(&error) }
            }
            _ => self.fail(&rejection.to_rpc(self.codes)),
        }
    }

    /// Write an error of RPC.
    pub fn fail(self, error: &RpcError<'_>) -> Rendered {
        match self.protocol {
            Protocol::Http => problem::of_rpc(error, self.statuses, self.request_id),
            Protocol::Connect => connect::unary(error),
            Protocol::ConnectStream => connect::stream(error, self.content_type()),
            Protocol::Grpc => grpc::head_only(error, self.content_type()),
            Protocol::GrpcWeb => grpc::web(error, self.content_type(), false),
            Protocol::GrpcWebText => grpc::web(error, self.content_type(), true),
        }
    }

    fn content_type(self) -> HeaderValue {
        let json = || HeaderValue::from_static("application/json");
        self.headers.get(CONTENT_TYPE).cloned().unwrap_or_else(json)
    }
}

/// The end of an answer of gRPC that went wrong after its head.
pub fn grpc_trailers(error: &RpcError<'_>) -> HeaderMap {
    grpc::trailers(error)
}

/// What the body of an upstream's error says.
pub struct Said {
    /// It is an error of Connect already.
    pub code: Option<RpcCode>,
    /// Its `error` or `message`, if it is JSON that has one; else a few words of ours.
    pub message: String,
    is_ours: bool,
}

impl Said {
    /// Reads `body` as JSON; it may be anything.
    pub fn in_body(body: &[u8]) -> Self {
        let json: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
        let text = |field: &str| json.get(field)?.as_str();
        let given = text("error").or_else(|| text("message"));
        let message = given.unwrap_or("the upstream failed").to_owned();
        Said { code: text("code").and_then(RpcCode::named), message, is_ours: given.is_none() }
    }

    /// The words of the upstream, if it gave any.
    pub fn given(self) -> Option<String> {
        Some(self.message).filter(|_| !self.is_ours)
    }
}

/// A message as Connect's streams and both kinds of gRPC frame it: flags, length, bytes.
fn envelope(flags: u8, message: &[u8]) -> Bytes {
    let mut framed = BytesMut::with_capacity(5 + message.len());
    framed.put_u8(flags);
    // What the gateway says of an error is far below 4 GiB.
    framed.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    framed.put_slice(message);
    framed.freeze()
}

#[cfg(test)]
mod tests;
