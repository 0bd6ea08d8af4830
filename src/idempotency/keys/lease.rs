//! A key held by the one request that is the first with it.

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use crate::idempotency::keys::Keys;
use crate::idempotency::store::Claim;
use crate::idempotency::tries::{Tries, count};
use crate::policy::idempotency::{Answer, Scope, Traces};
use crate::record::store::error::Lost;

/// A leased key. Dropping it frees the key if the request has left no traces. Otherwise the lease
/// lapses, and the request is not executed again unless the policy says so.
#[must_use = "dropping a lease gives the key back"]
pub struct Lease {
    keys: Keys,
    scope: Scope,
    owner: Uuid,
    lease: Duration,
    ttl: Duration,
    /// Whether the upstream may have acted on the request.
    pub traces: Traces,
    /// Set once a drop has nothing left to do.
    settled: bool,
}

impl Lease {
    pub(in crate::idempotency) fn new(keys: &Keys, claim: &Claim) -> Self {
        Lease {
            keys: keys.clone(),
            scope: claim.scope,
            owner: claim.owner,
            lease: claim.lease,
            ttl: claim.ttl,
            traces: Traces::default(),
            settled: false,
        }
    }

    /// Keeps the response. The receiver resolves when that is done, or after `within` at the
    /// latest. While the store is down this is retried for as long as the lease; after that the key
    /// is undecided.
    pub fn keep(mut self, answer: Answer, within: Duration) -> oneshot::Receiver<()> {
        self.settled = true;
        let (done, waiting) = oneshot::channel();
        let runtime = self.keys.runtime().clone();
        runtime.spawn(async move {
            let mut keeping = std::pin::pin!(self.kept(&answer));
            let in_time = timeout(within, &mut keeping).await;
            done.send(()).ok();
            let kept = match in_time {
                Ok(kept) => kept,
                Err(_) => keeping.await,
            };
            match kept {
                Ok(true) => {}
                Ok(false) => self.keys.late(),
                Err(_) => count(&self.keys.counters().lost),
            }
        });
        waiting
    }

    async fn kept(&self, answer: &Answer) -> Result<bool, Lost> {
        let mut tries = Tries::until(Instant::now() + self.lease);
        loop {
            let kept = match self.keys.store().await {
                Ok(store) => store.keep(&self.scope, self.owner, answer, self.ttl).await,
                Err(lost) => Err(lost),
            };
            match kept {
                Err(lost) if self.keys.again(&mut tries, &lost).await => {}
                Err(lost) => return Err(lost),
                Ok(kept) => {
                    self.keys.answered();
                    if kept {
                        count(&self.keys.counters().kept);
                    }
                    return Ok(kept);
                }
            }
        }
    }

    /// Gives the key back because nothing was sent. Waits at most `within` for that.
    pub async fn release(mut self, within: Duration) {
        let done = self.give_back();
        // Giving back continues in the background.
        timeout(within, done).await.ok();
    }

    /// Drops the lease without giving a key back: the request was not the first.
    pub(in crate::idempotency) fn forget(mut self) {
        self.settled = true;
    }

    fn give_back(&mut self) -> oneshot::Receiver<()> {
        self.settled = true;
        let (done, waiting) = oneshot::channel();
        let (keys, scope, owner) = (self.keys.clone(), self.scope, self.owner);
        let mut tries = Tries::until(Instant::now() + self.lease);
        self.keys.runtime().spawn(async move {
            loop {
                let released = match keys.store().await {
                    Ok(store) => store.release(&scope, owner).await,
                    Err(lost) => Err(lost),
                };
                match released {
                    Err(lost) if keys.again(&mut tries, &lost).await => {}
                    Err(_) => break,
                    Ok(()) => {
                        keys.answered();
                        count(&keys.counters().released);
                        break;
                    }
                }
            }
            done.send(()).ok();
        });
        waiting
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.settled {
            return;
        }
        if self.traces.exist() {
            count(&self.keys.counters().undecided);
        } else {
            self.give_back();
        }
    }
}

impl std::fmt::Debug for Lease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lease").field("traces", &self.traces).finish_non_exhaustive()
    }
}
