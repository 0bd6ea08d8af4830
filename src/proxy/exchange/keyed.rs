//! A request that holds its idempotency key: the first with that key, until it ends.

use http::HeaderMap;

use crate::idempotency::Lease;
use crate::policy::idempotency::Answer;

/// A request that is the first with its idempotency key.
pub struct Keyed {
    /// Held until the key is completed or given up.
    pub lease: Option<Lease>,
    /// The response being sent to the client, and the part of its body that has passed.
    pub answer: Option<(Answer, Vec<u8>)>,
    /// The body's length according to the head.
    pub length: Option<u64>,
    /// The body is longer than the limit on what is kept.
    pub outgrown: bool,
    /// The trailers of the upstream's response.
    pub trailers: Option<HeaderMap>,
}

impl Keyed {
    /// No response yet.
    pub fn new(lease: Lease) -> Self {
        Keyed { lease: Some(lease), answer: None, length: None, outgrown: false, trailers: None }
    }
}
