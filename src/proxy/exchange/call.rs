//! A call of RPC that is transcoded, between its request and its response.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, HeaderName, TE};
use http::{HeaderMap, HeaderValue, Method};
use pingora_http::ResponseHeader;

use crate::proxy::dialect::{CONNECT_PROTOCOL_VERSION, Protocol};
use crate::transcode;
use crate::transcode::wire::Framing;
use crate::transcode::{Codec, wire};
use crate::upstream::Endpoint;

/// What an attempt at a call was answered.
pub struct Answer {
    pub head: ResponseHeader,
    pub body: Vec<u8>,
    /// Where gRPC says how it ended.
    pub trailers: Option<HeaderMap>,
    /// What the client gets as the body, once all of a good answer is there.
    pub good: Option<Bytes>,
}

pub const JSON: HeaderValue = HeaderValue::from_static("application/json");

const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");

const IDENTITY: HeaderValue = HeaderValue::from_static("identity");

/// What a caller says about its protocol, and means nothing to a plain upstream.
const OF_PROTOCOL: [HeaderName; 10] = [
    CONNECT_PROTOCOL_VERSION,
    HeaderName::from_static("connect-timeout-ms"),
    HeaderName::from_static("connect-content-encoding"),
    HeaderName::from_static("connect-accept-encoding"),
    HeaderName::from_static("grpc-timeout"),
    HeaderName::from_static("grpc-encoding"),
    HeaderName::from_static("grpc-accept-encoding"),
    HeaderName::from_static("x-grpc-web"),
    CONTENT_ENCODING,
    TE,
];

/// A call on its way through.
pub struct Call {
    pub way: Way,
    pub method: Method,
    pub target: String,
    pub has_body: bool,
    /// Of the attempt under way, as far as it is there.
    pub answer: Option<Answer>,
}

/// Who speaks what.
#[derive(Clone)]
pub enum Way {
    /// The caller RPC, the upstream plain HTTP.
    ToHttp { method: Arc<transcode::Method>, codec: Codec, framing: Framing },
    /// The caller plain HTTP, the upstream gRPC.
    ToRpc { method: Arc<transcode::Method>, binding: usize },
}

impl Call {
    /// Where the call goes.
    pub fn address(&self, parts: &mut http::request::Parts, endpoint: &Endpoint) {
        parts.method = self.method.clone();
        let target = match endpoint.base_path.is_empty() {
            true => self.target.parse(),
            false => [&endpoint.base_path, &self.target[..]].concat().parse(),
        };
        // Every field in it is percent-encoded.
        if let Ok(target) = target {
            parts.uri = target;
        }
    }

    /// Say what the body is; nothing of the caller's protocol goes on.
    pub fn describe(&self, headers: &mut HeaderMap) {
        for name in &OF_PROTOCOL {
            headers.remove(name);
        }
        headers.insert(ACCEPT_ENCODING, IDENTITY);
        match &self.way {
            Way::ToHttp { .. } => {
                headers.insert(ACCEPT, JSON);
                match self.has_body {
                    true => headers.insert(CONTENT_TYPE, JSON),
                    false => headers.remove(CONTENT_TYPE),
                };
            }
            Way::ToRpc { .. } => {
                headers.remove(ACCEPT);
                headers.insert(CONTENT_TYPE, GRPC);
            }
        }
    }

    /// What the upstream speaks.
    pub fn protocol(&self) -> Protocol {
        match &self.way {
            Way::ToHttp { .. } => Protocol::Http,
            Way::ToRpc { .. } => Protocol::Grpc,
        }
    }
}

impl Way {
    /// The JSON of the message in a good answer that was made of JSON; `None` for any other.
    pub fn json_of(&self, body: &[u8]) -> Option<Bytes> {
        let Way::ToHttp { method, codec, framing } = self else { return None };
        let message = wire::first(*framing, body).ok()?;
        let answer = method.read(&message, *codec).ok()?;
        method.write(&answer, Codec::Json).ok().map(Bytes::from)
    }

    pub fn max_message(&self) -> usize {
        match self {
            Way::ToHttp { method, .. } | Way::ToRpc { method, .. } => method.max_message(),
        }
    }
}
