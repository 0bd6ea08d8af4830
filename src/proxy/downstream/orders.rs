//! What the request path has to say about a response on a stream of HTTP/2.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use http::HeaderMap;

/// What the request path has to say about the answer on its stream.
#[derive(Debug, Default)]
pub struct Orders {
    // Relaxed: whoever gives an order and the stream that follows it run in one task.
    pub hold_head: AtomicBool,
    trailers: OnceLock<HeaderMap>,
    pub replace_body: AtomicBool,
}

impl Orders {
    /// End the answer with these trailers, whatever its body ends with. Once.
    pub fn end_with(&self, trailers: HeaderMap) {
        let _ = self.trailers.set(trailers);
    }

    /// The trailers that the answer shall end with.
    pub fn end(&self) -> Option<&HeaderMap> {
        self.trailers.get()
    }

    /// The body that came is read to its end, and another one goes upstream in its place.
    pub fn replace_body(&self) {
        self.replace_body.store(true, Ordering::Relaxed);
    }

    /// Keep the head of the answer back until more of it comes: until then it can be taken back.
    pub fn hold_head(&self) {
        self.hold_head.store(true, Ordering::Relaxed);
    }
}
