//! The fallback upstream that a request goes to instead of its route's own.

use std::sync::Arc;

use crate::policy::fallback::Cause;
use crate::runtime::snapshot::UpstreamTarget;

/// A request that was diverted to its route's fallback.
pub struct Diverted {
    pub target: Arc<UpstreamTarget>,
    pub cause: Cause,
}
