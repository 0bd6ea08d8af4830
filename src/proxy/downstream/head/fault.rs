//! Why the head of a request is refused.

use http::HeaderValue;

use crate::proxy::rejection::Rejection;

/// Why a head is refused. A number, so that a connection can keep it in an atomic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Fault {
    /// Not `METHOD target HTTP/1.0` or `HTTP/1.1` (RFC 9112, section 3).
    RequestLine = 1,
    /// A bare line feed.
    LineEnding,
    /// A line that begins with white space (RFC 9112, section 5.2).
    FoldedField,
    /// Not a token, or followed by white space (RFC 9112, section 5.1).
    FieldName,
    /// It holds a control character (RFC 9110, section 5.5).
    FieldValue,
    /// Beyond `max_path_bytes`, or what `http::Uri` accepts.
    TargetTooLong,
    /// The fields are beyond `max_header_bytes`, or what Pingora reads.
    TooLarge,
    /// More than [`super::MAX_FIELDS`].
    TooManyFields,
    /// A `#` in the target.
    Fragment,
    /// Not a token.
    Method,
    /// `Transfer-Encoding` is not `chunked` alone, or the version is HTTP/1.0.
    Coding,
    /// `Content-Length` beside `Transfer-Encoding`.
    TwoFramings,
    /// `Content-Length` is no number.
    Length,
    /// There are different ones.
    TwoLengths,
    /// Missing, repeated, invalid, or not that of the target.
    Host,
    /// `Connection` names `Host` or a field `X-Forwarded-…`, which the upstream must get.
    Nominated,
    /// The method is `CONNECT`.
    Connect,
    /// Found after the head: what follows is not framed as the head says.
    Body,
}

impl Fault {
    pub(super) const ALL: [Fault; 18] = [
        Fault::RequestLine,
        Fault::LineEnding,
        Fault::FoldedField,
        Fault::FieldName,
        Fault::FieldValue,
        Fault::TargetTooLong,
        Fault::TooLarge,
        Fault::TooManyFields,
        Fault::Fragment,
        Fault::Method,
        Fault::Coding,
        Fault::TwoFramings,
        Fault::Length,
        Fault::TwoLengths,
        Fault::Host,
        Fault::Nominated,
        Fault::Connect,
        Fault::Body,
    ];

    /// The fault that `number` stands for; `None` for zero.
    pub fn of_number(number: u8) -> Option<Fault> {
        Fault::ALL.into_iter().find(|fault| *fault as u8 == number)
    }

    /// What the client is told.
    pub fn rejection(self) -> Rejection {
        let what = match self {
            Fault::RequestLine => "the request line is malformed",
            Fault::LineEnding => "a line of the head does not end in CRLF",
            Fault::FoldedField => "a header field is folded over several lines",
            Fault::FieldName => "the name of a header field is invalid",
            Fault::FieldValue => "the value of a header field contains a control character",
            Fault::TargetTooLong => return Rejection::PathTooLong,
            Fault::TooLarge => return Rejection::HeadersTooLarge,
            Fault::TooManyFields => return Rejection::TooManyHeaders,
            Fault::Fragment => "the request target contains a fragment",
            Fault::Method => "the method is invalid",
            Fault::Coding => "the transfer coding is not plain chunked",
            Fault::TwoFramings => "the body is framed in two ways",
            Fault::Length => "the Content-Length is invalid",
            Fault::TwoLengths => "there are two Content-Lengths, and they differ",
            Fault::Host => "the Host is repeated, invalid, or differs from the request target",
            Fault::Nominated => "the Connection header names a field that must reach the upstream",
            Fault::Connect => {
                return Rejection::MethodNotAllowed(HeaderValue::from_static(""));
            }
            Fault::Body => "the body is malformed",
        };
        Rejection::BadRequest(what.into())
    }
}
