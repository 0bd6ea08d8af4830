//! What a listener allows of a request's head.

/// What a request must know of the listener it came through.
#[derive(Debug)]
pub struct Limits {
    pub max_header_bytes: usize,
    pub max_path_bytes: usize,
}
