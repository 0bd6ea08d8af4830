//! A listener's limits on a request's head.

/// The limits in bytes; zero means no limit of its own.
#[derive(Debug)]
pub struct Limits {
    /// Of all header fields, without the request line.
    pub max_header_bytes: usize,
    /// The request target, with its query.
    pub max_path_bytes: usize,
}
