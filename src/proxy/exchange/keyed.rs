//! A request that is the first with its idempotency key, while it lasts.

use http::HeaderMap;

use crate::idempotency::Lease;
use crate::policy::idempotency::Answer;

/// A request that is the first with its key.
pub struct Keyed {
    /// Until something has become of it.
    pub lease: Option<Lease>,
    /// What the client is being answered, and the part of its body that has passed.
    pub answer: Option<(Answer, Vec<u8>)>,
    /// What the head says of its body's length.
    pub length: Option<u64>,
    /// The body has outgrown what is kept.
    pub outgrown: bool,
    /// What the upstream's answer ends with.
    pub trailers: Option<HeaderMap>,
}

impl Keyed {
    pub fn new(lease: Lease) -> Self {
        Keyed { lease: Some(lease), answer: None, length: None, outgrown: false, trailers: None }
    }
}
