//! A response that is kept, to be sent again.

use bytes::Bytes;
use http::header::{CONNECTION, HeaderName, HeaderValue};
use http::{HeaderMap, StatusCode};

/// Fields that are not kept: those of one connection (RFC 9110, section 7.6.1), those that describe
/// one moment, and credentials, which must not be in a database.
const NOT_KEPT: [&str; 19] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "content-length",
    "age",
    "date",
    "ratelimit",
    "ratelimit-policy",
    "x-ratelimit-limit",
    "x-ratelimit-remaining",
    "x-ratelimit-reset",
    "set-cookie",
    "authentication-info",
    "proxy-authentication-info",
];

/// The response that a client got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// As the client got it.
    pub status: StatusCode,
    /// Without those that hold for one connection or one request.
    pub headers: HeaderMap,
    /// `None` if it was too large to be kept.
    pub body: Option<Bytes>,
    /// The trailers; in gRPC they say how the call ended. Boxed, because few responses have any.
    pub trailers: Option<Box<HeaderMap>>,
}

/// A response in the columns of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// A final status, 200 or above.
    pub status: u16,
    /// The header fields as lines of HTTP/1.1.
    pub head: Vec<u8>,
    /// `None` if it was too large to be kept.
    pub body: Option<Bytes>,
    /// The trailers in the same form. HTTP/2 responses may have them, and gRPC's say how the call
    /// ended.
    pub trailers: Option<Vec<u8>>,
}

impl Answer {
    /// A response without its body so far, with the header fields that are worth keeping.
    pub fn begin(status: StatusCode, headers: &HeaderMap) -> Self {
        let nominated: Vec<&str> = headers
            .get_all(CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|list| list.split(','))
            .map(str::trim)
            .collect();
        Answer { status, headers: worth_keeping(headers, &nominated), body: None, trailers: None }
    }

    /// Adds the trailers, as far as they are worth keeping.
    pub fn end_with(&mut self, trailers: &HeaderMap) {
        self.trailers = Some(Box::new(worth_keeping(trailers, &[])));
    }

    /// The response in the form of a store.
    pub fn to_kept(&self) -> Kept {
        Kept {
            status: self.status.as_u16(),
            head: lines(&self.headers),
            body: self.body.clone(),
            trailers: self.trailers.as_deref().map(lines),
        }
    }

    /// The response from a store; `None` if it is not in our form.
    pub fn read(kept: Kept) -> Option<Self> {
        Some(Answer {
            status: StatusCode::from_u16(kept.status).ok()?,
            headers: fields(&kept.head)?,
            body: kept.body,
            trailers: match kept.trailers {
                Some(trailers) => Some(Box::new(fields(&trailers)?)),
                None => None,
            },
        })
    }
}

fn worth_keeping(fields: &HeaderMap, nominated: &[&str]) -> HeaderMap {
    let is_kept = |name: &HeaderName| {
        !NOT_KEPT.contains(&name.as_str())
            && !nominated.iter().any(|other| name.as_str().eq_ignore_ascii_case(other))
    };
    let kept = fields.iter().filter(|(name, _)| is_kept(name));
    kept.map(|(name, value)| (name.clone(), value.clone())).collect()
}

fn lines(fields: &HeaderMap) -> Vec<u8> {
    let mut lines = Vec::new();
    for (name, value) in fields {
        lines.extend_from_slice(name.as_str().as_bytes());
        lines.extend_from_slice(b": ");
        lines.extend_from_slice(value.as_bytes());
        lines.extend_from_slice(b"\r\n");
    }
    lines
}

fn fields(lines: &[u8]) -> Option<HeaderMap> {
    let mut fields = HeaderMap::new();
    // The value of a field never contains a line feed.
    for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let line = line.strip_suffix(b"\r")?;
        let colon = memchr::memchr(b':', line)?;
        let name = HeaderName::from_bytes(&line[..colon]).ok()?;
        let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii_start()).ok()?;
        fields.append(name, value);
    }
    Some(fields)
}
