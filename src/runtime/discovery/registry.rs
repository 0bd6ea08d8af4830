//! Ends the leases of registered instances.
//!
//! What instances say comes over the admin listener, and is taken in at once; here time passes.

use std::sync::Weak;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::time::{Clock, Moment};
use crate::upstream::Upstream;
use crate::upstream::discovery::registry::{News, Registry};

/// Time between two looks: a lease is over at most this late.
const EVERY: Duration = Duration::from_millis(500);

/// Takes care of the register until the upstream is dropped.
pub(super) async fn keep(upstream: Weak<Upstream>, first: oneshot::Sender<()>) {
    let mut first = Some(first);
    loop {
        let Some(upstream) = upstream.upgrade() else { return };
        let now = Clock::now();
        let knows_some = upstream.source().is_some_and(|source| source.endpoints > 0);
        let over = upstream.register(now, |registry, rules| {
            // A reload may have narrowed where instances may be, and one may have registered through
            // the upstream as it was before the reload.
            registry.keep_allowed(&rules.allow);
            let over = expire(registry, now);
            // An empty register is accepted only once it has been empty for a while.
            let is_empty = registry.entries().next().is_none();
            (over, if is_empty && knows_some { News::Nothing } else { News::None })
        });
        for (id, address) in over.unwrap_or_default() {
            log::warn!(
                "upstreams.{}: the instance {id} at {address} has not renewed its lease",
                upstream.name
            );
        }
        if let Some(first) = first.take() {
            // The start may have stopped waiting for this.
            let _ = first.send(());
        }
        drop(upstream);
        tokio::time::sleep(EVERY).await;
    }
}

/// The ids and addresses of those whose lease is over.
fn expire(registry: &mut Registry, now: Moment) -> Vec<(String, String)> {
    let over = registry.expire(now);
    over.into_iter().map(|(id, entry)| (id, entry.instance.address.to_string())).collect()
}
