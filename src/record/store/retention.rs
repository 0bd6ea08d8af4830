//! Upkeep of the store. It prepares what later writes will need, and deletes old rows, a few at a
//! time, so that writers are not blocked for long.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use log::{info, warn};
use tokio::time::sleep;

use crate::record::stats::Counters;
use crate::record::store::error::Lost;
use crate::record::store::link::Link;

/// Rows deleted in one transaction.
const PORTION: u32 = 1000;
/// A pause between two transactions, for the writers.
const BREATH: Duration = Duration::from_millis(50);
const LONGEST_INTERVAL: Duration = Duration::from_secs(600);

/// Prepares the store and deletes rows older than `retention`, now and at regular intervals; zero
/// deletes none. Never returns.
pub(crate) async fn keep(link: Arc<Link>, retention: Duration, counters: Arc<Counters>) {
    let interval = match retention {
        Duration::ZERO => LONGEST_INTERVAL,
        retention => (retention / 100).clamp(Duration::from_secs(1), LONGEST_INTERVAL),
    };
    loop {
        link.ready().await;
        if let Err(lost) = link.prepare().await {
            warn!("record store: not prepared for what is to come: {lost}");
        }
        // A retention that reaches back too far to represent deletes nothing.
        let before = SystemTime::now().checked_sub(retention).filter(|_| !retention.is_zero());
        if let Some(before) = before {
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

/// Deletes all rows created before `before`, and returns how many.
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
