//! Connect errors: `{"code", "message", "details"}`, either as the whole body with the code's HTTP
//! status, or at the end of a stream.
//!
//! Source: the Connect protocol's "Error End-Stream", "Streaming-Response" and "Error Codes".

use bytes::Bytes;
use http::HeaderValue;
use http::header::CONTENT_TYPE;
use serde::{Deserialize, Serialize};

use super::details::{self, RETRY_INFO};
use super::{Rendered, RpcError};
use crate::config::rpc_code::RpcCode;

/// The flag of a stream's last envelope.
const END_STREAM: u8 = 0b10;

#[derive(Serialize)]
struct ConnectError<'a> {
    code: &'static str,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<[Detail; 1]>,
}

#[derive(Serialize)]
struct Detail {
    #[serde(rename = "type")]
    kind: &'static str,
    value: String,
}

#[derive(Serialize)]
struct EndOfStream<'a> {
    error: ConnectError<'a>,
}

impl<'a> From<&RpcError<'a>> for ConnectError<'a> {
    fn from(error: &RpcError<'a>) -> Self {
        let detail = |after| Detail {
            kind: RETRY_INFO,
            value: details::in_base64(&details::retry_info(after)),
        };
        ConnectError {
            code: error.code.as_str(),
            message: error.message,
            details: error.retry_after.map(|after| [detail(after)]),
        }
    }
}

pub(super) fn unary(error: &RpcError<'_>) -> Rendered {
    let body = json(&ConnectError::from(error));
    let content_type = HeaderValue::from_static("application/json");
    Rendered::new(error.code.http_status(), vec![(CONTENT_TYPE, content_type)], body)
}

/// A stream that ends before its first message.
pub(super) fn stream(error: &RpcError<'_>, content_type: HeaderValue) -> Rendered {
    let body = super::envelope(END_STREAM, &json(&EndOfStream { error: error.into() }));
    Rendered::new(200, vec![(CONTENT_TYPE, content_type)], body)
}

/// The code and the message of the error in a stream's last envelope, if it holds one.
pub fn end_of_stream(json: &[u8]) -> Option<(u8, Option<String>)> {
    #[derive(Deserialize)]
    struct End {
        error: Option<Error>,
    }
    #[derive(Deserialize)]
    struct Error {
        code: Option<String>,
        message: Option<String>,
    }
    let Error { code, message } = serde_json::from_slice::<End>(json).ok()?.error?;
    let code = code.and_then(|name| RpcCode::named(&name)).unwrap_or(RpcCode::Unknown);
    Some((code.number(), message.filter(|message| !message.is_empty())))
}

fn json(value: &impl Serialize) -> Bytes {
    // Strings always serialize.
    serde_json::to_vec(value).unwrap_or_default().into()
}
