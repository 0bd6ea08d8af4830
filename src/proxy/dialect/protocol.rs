//! Which protocol a client speaks, according to its request.

use http::header::{CONTENT_TYPE, HeaderName};
use http::{HeaderMap, Method, request};

use crate::observe::metrics::Family;
use crate::proxy::rejection::Rejection;
use crate::transcode::{Fault, wire};

/// Sent by clients of Connect; its value is `1`.
pub const CONNECT_PROTOCOL_VERSION: HeaderName =
    HeaderName::from_static("connect-protocol-version");

/// The protocol of a request; its errors are written in it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Protocol {
    /// Plain HTTP.
    #[default]
    Http,
    /// Connect, one message each way.
    Connect,
    /// Connect with a stream in one direction or both: messages in envelopes.
    ConnectStream,
    /// gRPC over HTTP/2.
    Grpc,
    /// gRPC-Web, in bytes.
    GrpcWeb,
    /// gRPC-Web in Base64, for clients that cannot read binary bodies.
    GrpcWebText,
}

impl Protocol {
    /// Reads the protocol from the request's head. Costs one look-up if there is no content type.
    pub fn of(head: &request::Parts) -> Protocol {
        let Some(content_type) = head.headers.get(CONTENT_TYPE) else {
            let asks = head.method == Method::GET && is_connect_get(head.uri.query());
            return if asks { Protocol::Connect } else { Protocol::Http };
        };
        let essence = content_type.as_bytes().split(|byte| *byte == b';').next();
        let essence = essence.unwrap_or_default().trim_ascii();
        match essence.strip_prefix(b"application/") {
            Some(b"json") => unary(&head.headers),
            // Connect's own name for protobuf.
            Some(b"proto") => Protocol::Connect,
            Some(subtype) => of_subtype(subtype),
            None => Protocol::Http,
        }
    }

    /// Whether a response in this protocol can have this `content_type`, errors included. Connect's
    /// unary errors have the content type of any JSON: only their body identifies them.
    pub fn is_spoken_by(self, content_type: &[u8]) -> bool {
        match self {
            Protocol::Http => true,
            Protocol::Connect => false,
            Protocol::ConnectStream => content_type.starts_with(b"application/connect+"),
            Protocol::Grpc => {
                content_type.starts_with(b"application/grpc")
                    && !content_type.starts_with(b"application/grpc-web")
            }
            Protocol::GrpcWeb | Protocol::GrpcWebText => {
                content_type.starts_with(b"application/grpc-web")
            }
        }
    }

    /// Whether the head alone shows that the request is a stream of messages. In gRPC it never
    /// does.
    pub fn is_stream(self) -> bool {
        self == Protocol::ConnectStream
    }

    /// Checks that a request that claims this protocol has the form the protocol requires.
    ///
    /// # Errors
    /// The rejection that says what is wrong with the request.
    pub fn check(self, head: &request::Parts) -> Result<(), Rejection> {
        let invalid = |what| Err(Rejection::InvalidRpc(what));
        match self {
            Protocol::Http => Ok(()),
            // A route that writes its errors as Connect may also receive ordinary GETs.
            Protocol::Connect if head.method == Method::GET => match head.uri.query() {
                query if !is_connect_get(query) => Ok(()),
                Some(query) if !is_percent_encoded(query) => {
                    invalid("the query is not percent-encoded")
                }
                Some(query) if !matches!(encoding_of(query), Some("json" | "proto")) => {
                    invalid("the query names no encoding, json or proto")
                }
                query => match query.map(wire::message_of_query) {
                    Some(Err(Fault::Malformed(what))) => invalid(what),
                    // A compressed message is left to the upstream to read.
                    Some(_) | None => Ok(()),
                },
            },
            Protocol::Connect | Protocol::ConnectStream => {
                match head.headers.get(&CONNECT_PROTOCOL_VERSION) {
                    Some(version) if version != "1" => {
                        invalid("the version of Connect is not 1, the only one there is")
                    }
                    Some(_) | None => Ok(()),
                }
            }
            Protocol::Grpc | Protocol::GrpcWeb | Protocol::GrpcWebText => {
                match head.method == Method::POST {
                    true => Ok(()),
                    false => invalid("the method is not POST, the only one of gRPC"),
                }
            }
        }
    }

    /// Whether the client can read a plain JSON body.
    pub fn reads_json(self) -> bool {
        matches!(self, Protocol::Http | Protocol::Connect)
    }

    /// The label of metrics.
    pub fn family(self) -> Family {
        match self {
            Protocol::Http => Family::Http,
            Protocol::Connect | Protocol::ConnectStream => Family::Connect,
            Protocol::Grpc => Family::Grpc,
            Protocol::GrpcWeb | Protocol::GrpcWebText => Family::GrpcWeb,
        }
    }
}

/// JSON means Connect if the request names Connect's version.
fn unary(headers: &HeaderMap) -> Protocol {
    match headers.contains_key(&CONNECT_PROTOCOL_VERSION) {
        true => Protocol::Connect,
        false => Protocol::Http,
    }
}

fn of_subtype(subtype: &[u8]) -> Protocol {
    let is = |name: &[u8]| {
        subtype.strip_prefix(name).is_some_and(|rest| matches!(rest, [] | [b'+', ..]))
    };
    if subtype.starts_with(b"connect+") {
        Protocol::ConnectStream
    } else if is(b"grpc") {
        Protocol::Grpc
    } else if is(b"grpc-web") {
        Protocol::GrpcWeb
    } else if is(b"grpc-web-text") {
        Protocol::GrpcWebText
    } else {
        Protocol::Http
    }
}

/// `?connect=v1&…` (Connect protocol, "Unary-Get-Request").
fn is_connect_get(query: Option<&str>) -> bool {
    query.is_some_and(|query| query.split('&').any(|pair| pair == "connect=v1"))
}

/// The parameter `encoding` of a Connect GET.
fn encoding_of(query: &str) -> Option<&str> {
    query.split('&').find_map(|pair| pair.strip_prefix("encoding="))
}

/// Every percent sign is followed by two hexadecimal digits.
fn is_percent_encoded(query: &str) -> bool {
    let mut parts = query.split('%').map(str::as_bytes);
    parts.next();
    parts.all(|part| matches!(part, [a, b, ..] if a.is_ascii_hexdigit() && b.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(method: &str, target: &str, headers: &[(&str, &str)]) -> Protocol {
        let mut request = http::Request::builder().method(method).uri(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Protocol::of(&request.body(()).expect("a request").into_parts().0)
    }

    #[test]
    fn the_content_type_tells() {
        for (content_type, protocol) in [
            ("application/grpc", Protocol::Grpc),
            ("application/grpc+proto", Protocol::Grpc),
            ("application/grpc; charset=utf-8", Protocol::Grpc),
            ("application/grpc-web", Protocol::GrpcWeb),
            ("application/grpc-web+proto", Protocol::GrpcWeb),
            ("application/grpc-web-text+proto", Protocol::GrpcWebText),
            ("application/connect+json", Protocol::ConnectStream),
            ("application/proto", Protocol::Connect),
            ("application/json", Protocol::Http),
            ("application/grpcish", Protocol::Http),
            ("text/plain", Protocol::Http),
        ] {
            assert_eq!(
                of("POST", "/", &[("content-type", content_type)]),
                protocol,
                "{content_type}"
            );
        }
    }

    #[test]
    fn json_is_connect_where_its_version_is_named() {
        let headers = [("content-type", "application/json"), ("connect-protocol-version", "1")];
        assert_eq!(of("POST", "/", &headers), Protocol::Connect);
    }

    #[test]
    fn a_get_is_connect_by_its_query() {
        assert_eq!(of("GET", "/s/M?encoding=json&connect=v1", &[]), Protocol::Connect);
        assert_eq!(of("GET", "/s/M?reconnect=v1", &[]), Protocol::Http);
        assert_eq!(of("GET", "/s/M", &[]), Protocol::Http);
    }
}
