//! An answer that is kept, to be given again.

use bytes::Bytes;
use http::header::{CONNECTION, HeaderName, HeaderValue};
use http::{HeaderMap, StatusCode};

/// Fields that are not kept: those of one connection (RFC 9110, section 7.6.1), those of one moment,
/// and credentials, which have no place in a database.
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

/// What a client was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    /// `None`: it was too large to be kept.
    pub body: Option<Bytes>,
}

impl Answer {
    /// An answer whose body is still to come, with the headers that are worth keeping.
    pub fn begin(status: StatusCode, headers: &HeaderMap) -> Self {
        let nominated: Vec<&str> = headers
            .get_all(CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|list| list.split(','))
            .map(str::trim)
            .collect();
        let worth_keeping = |name: &HeaderName| {
            !NOT_KEPT.contains(&name.as_str())
                && !nominated.iter().any(|other| name.as_str().eq_ignore_ascii_case(other))
        };
        let kept = headers.iter().filter(|(name, _)| worth_keeping(name));
        let kept = kept.map(|(name, value)| (name.clone(), value.clone()));
        Answer { status, headers: kept.collect(), body: None }
    }

    /// The headers as a store keeps them: lines as in HTTP/1.1.
    pub fn head(&self) -> Vec<u8> {
        let mut head = Vec::new();
        for (name, value) in &self.headers {
            head.extend_from_slice(name.as_str().as_bytes());
            head.extend_from_slice(b": ");
            head.extend_from_slice(value.as_bytes());
            head.extend_from_slice(b"\r\n");
        }
        head
    }

    /// The answer that a store has kept; `None` if it is none of ours.
    pub fn read(status: u16, head: &[u8], body: Option<Vec<u8>>) -> Option<Self> {
        let mut headers = HeaderMap::new();
        // A header's value holds no line feed.
        for line in head.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let line = line.strip_suffix(b"\r")?;
            let colon = memchr::memchr(b':', line)?;
            let name = HeaderName::from_bytes(&line[..colon]).ok()?;
            let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii_start()).ok()?;
            headers.append(name, value);
        }
        let status = StatusCode::from_u16(status).ok()?;
        Some(Answer { status, headers, body: body.map(Bytes::from) })
    }
}
