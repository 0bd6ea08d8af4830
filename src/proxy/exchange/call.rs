//! A transcoded RPC call, between its request and its response.

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

/// The upstream's response to an attempt at a call.
pub struct Answer {
    /// As the upstream sent it.
    pub head: ResponseHeader,
    /// What has arrived of it, at most as much as a message may have.
    pub body: Vec<u8>,
    /// Where gRPC reports how the call ended.
    pub trailers: Option<HeaderMap>,
    /// The client's response body, once a successful response is complete.
    pub good: Option<Bytes>,
}

/// The content type of plain HTTP's side.
pub const JSON: HeaderValue = HeaderValue::from_static("application/json");

const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");

const IDENTITY: HeaderValue = HeaderValue::from_static("identity");

/// Fields of the caller's protocol, which mean nothing to a plain HTTP upstream.
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

/// A transcoded call in progress.
pub struct Call {
    /// Which side is which.
    pub way: Way,
    /// The upstream request's.
    pub method: Method,
    /// Path and query of the upstream request, without the endpoint's base path.
    pub target: String,
    /// Whether the upstream request has a body.
    pub has_body: bool,
    /// The response to the attempt under way, as far as it has arrived.
    pub answer: Option<Answer>,
}

/// Which side speaks which protocol.
#[derive(Clone)]
pub enum Way {
    /// The caller speaks RPC, the upstream plain HTTP.
    ToHttp {
        /// The method that is called.
        method: Arc<transcode::Method>,
        /// How the caller's message is encoded, and its response will be.
        codec: Codec,
        /// What the caller's message is wrapped in, and its response will be.
        framing: Framing,
    },
    /// The caller speaks plain HTTP, the upstream gRPC.
    ToRpc {
        /// The method that is called.
        method: Arc<transcode::Method>,
        /// The index of the method's binding that the request matched; it writes the response.
        binding: usize,
    },
}

impl Call {
    /// Sets the method and target that the upstream expects.
    pub fn address(&self, parts: &mut http::request::Parts, endpoint: &Endpoint) {
        parts.method = self.method.clone();
        let target = match endpoint.key.base_path.is_empty() {
            true => self.target.parse(),
            false => [&endpoint.key.base_path, &self.target[..]].concat().parse(),
        };
        // Always parses: every field in it is percent-encoded.
        if let Ok(target) = target {
            parts.uri = target;
        }
    }

    /// Sets the headers that describe the body, and removes those of the caller's protocol.
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

    /// The protocol the upstream speaks.
    pub fn protocol(&self) -> Protocol {
        match &self.way {
            Way::ToHttp { .. } => Protocol::Http,
            Way::ToRpc { .. } => Protocol::Grpc,
        }
    }
}

impl Way {
    /// The JSON of the message in a successful response that was made from JSON; `None` for any
    /// other response.
    pub fn json_of(&self, body: &[u8]) -> Option<Bytes> {
        let Way::ToHttp { method, codec, framing } = self else { return None };
        let message = wire::first(*framing, body).ok()?;
        let answer = method.read(&message, *codec).ok()?;
        method.write(&answer, Codec::Json).ok().map(Bytes::from)
    }

    /// The largest message, in bytes, in any encoding.
    pub fn max_message(&self) -> usize {
        match self {
            Way::ToHttp { method, .. } | Way::ToRpc { method, .. } => method.max_message(),
        }
    }
}
