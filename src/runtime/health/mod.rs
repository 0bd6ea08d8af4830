//! Sends the active health checks of upstreams, over their own TLS and protocol.
//!
//! `upstream::health` decides when an endpoint is checked, and what the results say of it. Each
//! upstream has one task, which ends with the upstream, or when a reload puts another in its place.
//! The new one goes on with the verdicts and the times of the endpoints that both have.

mod check;
mod fault;
mod grpc;
mod http;

use std::sync::Arc;
use std::time::Duration;

pub(super) use check::Checker;
use tokio::sync::oneshot;

use super::snapshot::{Snapshot, UpstreamTarget};
use super::task::Task;
use crate::time::Clock;
use crate::upstream::Endpoint;
use crate::upstream::health::keep_checked;

/// How long a start or a reload waits for the first checks, whatever they find.
const FIRST_WAIT: Duration = Duration::from_secs(1);

/// Begins the checks that `next` needs, and ends those of `before` that it does not. Returns once
/// every endpoint has been checked, or after [`FIRST_WAIT`]; the rest happens in the background.
pub(super) async fn begin(checker: &Arc<Checker>, next: &Snapshot, before: Option<&Snapshot>) {
    let gone = before.into_iter().flat_map(|before| &before.upstreams);
    for (name, target) in gone {
        let stays = next.upstreams.get(name).is_some_and(|same| Arc::ptr_eq(same, target));
        if !stays && let Some(task) = target.checks.get() {
            task.end();
        }
    }
    let mut firsts = Vec::new();
    for (name, target) in &next.upstreams {
        if target.checks.get().is_some() {
            continue;
        }
        let before = before.and_then(|before| before.upstreams.get(name));
        let before = before.and_then(|before| before.upstream.config().health.as_ref());
        target.upstream.begin_checks(before, Clock::now());
        if target.upstream.config().health.is_some() {
            target.metrics.expect_checks();
            let (first, done) = oneshot::channel();
            // Generations are started one at a time, so it is still empty.
            let _ = target.checks.set(Task::spawn(run(checker.clone(), target, first)));
            firsts.push(done);
        }
    }
    let all = async {
        for first in firsts {
            // An error: the task has ended.
            let _ = first.await;
        }
    };
    let _ = tokio::time::timeout(FIRST_WAIT, all).await;
}

fn run(
    checker: Arc<Checker>,
    target: &Arc<UpstreamTarget>,
    first: oneshot::Sender<()>,
) -> impl Future<Output = ()> + Send + 'static {
    let (upstream, target) = (Arc::downgrade(&target.upstream), Arc::downgrade(target));
    let check = move |endpoint: Arc<Endpoint>| {
        let (checker, target) = (checker.clone(), target.clone());
        async move {
            let target = target.upgrade()?;
            let config = target.upstream.config().health.as_ref()?;
            let found = checker.check(&target, &endpoint, config).await;
            if let Some(result) = &found {
                let result = result.as_ref().map_or_else(|failure| failure.kind, |()| "passed");
                target.metrics.checked(result);
            }
            found
        }
    };
    keep_checked(upstream, check, Clock::now, first)
}
