//! Upkeep of the store. It prepares what later writes will need, and deletes old rows, a few at a
//! time, so that writers are not blocked for long.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use log::{info, warn};
use tokio::time::sleep;

use crate::condition::Condition;
use crate::record::stats::Counters;
use crate::record::store::error::Lost;
use crate::record::store::link::Link;
use crate::time::Clock;

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
    let (mut unprepared, mut undeleted) = (Condition::default(), Condition::default());
    loop {
        link.ready().await;
        let prepared = link.prepare().await;
        let what = "not prepared for what is to come";
        tell(&mut unprepared, what, prepared.as_ref().err());
        // A retention that reaches back too far to represent deletes nothing.
        let before = SystemTime::now().checked_sub(retention).filter(|_| !retention.is_zero());
        if let Some(before) = before {
            let expired = expire(&link, before).await;
            tell(&mut undeleted, "old rows could not be deleted", expired.as_ref().err());
            if let Ok(rows @ 1..) = expired {
                counters.expired.add(rows);
                info!("record store: deleted {rows} rows that were old enough");
            }
        }
        sleep(interval).await;
    }
}

/// Logs that upkeep begins to fail, and that it succeeds again.
fn tell(condition: &mut Condition, what: &str, failure: Option<&Lost>) {
    let now = Clock::now();
    match failure {
        Some(lost) if condition.met(now) => warn!("record store: {what}: {lost}"),
        Some(_) => {}
        None => {
            if let Some(over) = condition.over(now) {
                info!("record store: over {over}: {what}");
            }
        }
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
