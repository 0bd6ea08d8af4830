//! Deletes rows that are old enough, a few at a time, so that writers are not held up.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use log::{info, warn};
use tokio::time::sleep;

use super::link::Link;
use super::stats::Counters;
use super::store::Lost;

/// Rows deleted in one transaction.
const PORTION: u32 = 1000;
/// Between two transactions, for the writers.
const BREATH: Duration = Duration::from_millis(50);

/// Deletes rows older than `retention`, now and regularly. Never returns.
pub(crate) async fn keep(link: Arc<Link>, retention: Duration, counters: Arc<Counters>) {
    let interval = (retention / 100).clamp(Duration::from_secs(1), Duration::from_secs(600));
    loop {
        link.ready().await;
        // A retention beyond the beginning of time deletes nothing.
        if let Some(before) = SystemTime::now().checked_sub(retention) {
            match expire(&link, before).await {
                Ok(0) => {}
                Ok(rows) => {
                    counters.expired.add(rows);
                    info!("record store: deleted {rows} rows that were old enough");
                }
                Err(lost) => warn!("record store: old rows could not be deleted: {lost}"),
            }
        }
        sleep(interval).await;
    }
}

/// Deletes all rows from before `before`, and says how many.
pub(crate) async fn expire(link: &Link, before: SystemTime) -> Result<u64, Lost> {
    let mut gone = 0;
    loop {
        let rows = link.expire(before, PORTION).await?;
        gone += rows;
        if rows < u64::from(PORTION) {
            return Ok(gone);
        }
        sleep(BREATH).await;
    }
}
