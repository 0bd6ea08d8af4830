//! A listener's limits on a request's head.

/// The limits in bytes; zero means no limit of its own.
#[derive(Debug)]
pub struct Limits {
    pub max_header_bytes: usize,
    pub max_path_bytes: usize,
}
