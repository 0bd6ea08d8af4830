//! The fallback upstream that a request goes to instead of its route's own.

use std::sync::Arc;

use crate::policy::fallback::Cause;
use crate::runtime::snapshot::UpstreamTarget;

/// A request that was diverted to its route's fallback.
pub struct Diverted {
    /// The upstream that is called instead.
    pub target: Arc<UpstreamTarget>,
    /// Why the route's own upstream is not called, or not again.
    pub cause: Cause,
}
