//! What the recorder requires of a store.

use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;

use crate::record::invocation::Row;
use crate::record::store::error::{Lost, Refusal};
use crate::record::store::safety::Safety;

/// A place that keeps rows. Every method may be called again after a failure.
#[async_trait]
pub(crate) trait Store: Send + Sync {
    /// Connects if need be and brings the schema up to date. Fails on a store that is read-only.
    async fn migrate(&self) -> Result<(), Lost>;

    /// Commits `rows`, except those the store will never accept: they are set aside in
    /// `invocations_dead` and returned.
    ///
    /// After `Lost` it is unknown which of them were committed; writing them again is harmless.
    async fn write(&self, rows: &Arc<Vec<Row>>, safety: Safety) -> Result<Vec<Refusal>, Lost>;

    /// Whether the store responds and could be written to.
    async fn ping(&self) -> Result<(), Lost>;

    /// Prepares what later writes will need.
    async fn prepare(&self) -> Result<(), Lost> {
        Ok(())
    }

    /// Deletes up to `at_most` rows created before `before`, and returns how many. Deletes more if
    /// rows can only be deleted together.
    async fn expire(&self, before: SystemTime, at_most: u32) -> Result<u64, Lost>;
}
