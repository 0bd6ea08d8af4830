//! Where a request goes instead of its route's upstream.

use std::sync::Arc;

use crate::policy::fallback::Cause;
use crate::runtime::snapshot::UpstreamTarget;

/// Where a request goes instead.
pub struct Diverted {
    pub target: Arc<UpstreamTarget>,
    pub cause: Cause,
}
