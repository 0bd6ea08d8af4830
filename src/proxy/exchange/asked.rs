//! What the client asked for, as its head has it.

use http::header::HOST;
use http::{HeaderValue, Method, Uri, Version};

use crate::proxy::downstream::legible::Legible;

/// What the client asked for. Cheap copies: the session, which has the head, does not outlive the
/// request's future.
#[derive(Default)]
pub struct Asked {
    /// As sent; it does not change with transcoding. `None` if it cannot be read.
    pub method: Option<Method>,
    /// As Pingora parsed it; `None` if the head is refused before that.
    pub uri: Option<Uri>,
    /// In which it was sent.
    pub version: Version,
    /// From `:authority`, the target or `Host`.
    pub host: Option<HeaderValue>,
    /// The path of a head that is refused, as far as it can be read.
    pub legible_path: Option<String>,
}

impl Asked {
    /// What `head` asks for.
    pub fn of(head: &http::request::Parts) -> Asked {
        Asked {
            method: Some(head.method.clone()),
            uri: Some(head.uri.clone()),
            version: head.version,
            host: head.headers.get(HOST).cloned(),
            legible_path: None,
        }
    }

    /// The host, as it came.
    pub fn host(&self) -> Option<&[u8]> {
        match self.uri.as_ref().and_then(Uri::authority) {
            Some(authority) => Some(authority.as_str().as_bytes()),
            None => self.host.as_ref().map(HeaderValue::as_bytes),
        }
    }

    /// The path, as it came.
    pub fn path(&self) -> Option<&str> {
        self.uri.as_ref().map(Uri::path).or(self.legible_path.as_deref())
    }
}

impl From<Legible> for Asked {
    /// What a refused head asked for. The head that Pingora got in its place asks for nothing.
    fn from(Legible { method, path, host }: Legible) -> Asked {
        Asked { method, host, legible_path: path, ..Asked::default() }
    }
}
