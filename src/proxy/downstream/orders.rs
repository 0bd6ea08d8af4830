//! How the request path controls the response on an HTTP/2 stream.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use http::HeaderMap;

/// Settings of the request path for its response. The stream obeys them.
#[derive(Debug, Default)]
pub struct Orders {
    // Relaxed: the request path and the stream run in one task.
    /// Set by [`Orders::hold_head`].
    pub hold_head: AtomicBool,
    trailers: OnceLock<HeaderMap>,
    /// Set by [`Orders::replace_body`].
    pub replace_body: AtomicBool,
}

impl Orders {
    /// Ends the response with these trailers, whatever the upstream ends it with. Only the first
    /// call counts.
    pub fn end_with(&self, trailers: HeaderMap) {
        let _ = self.trailers.set(trailers);
    }

    /// The trailers to end the response with.
    pub fn end(&self) -> Option<&HeaderMap> {
        self.trailers.get()
    }

    /// The request's body is read to its end, and another one goes upstream in its place.
    pub fn replace_body(&self) {
        self.replace_body.store(true, Ordering::Relaxed);
    }

    /// Holds the head of the response back until more of the response comes. Until then it can be
    /// withdrawn.
    pub fn hold_head(&self) {
        self.hold_head.store(true, Ordering::Relaxed);
    }
}
