//! Keeps the endpoints of an upstream checked.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::{AbortHandle, JoinSet};

use super::schedule::{Id, Schedule, id};
use super::{Config, Failure};
use crate::time::Moment;
use crate::upstream::{Endpoint, Upstream};

/// Checks of an upstream that run at the same time. Others wait until one has ended.
const AT_ONCE: usize = 256;

/// How a check has ended; `None` if it could not find out anything about the endpoint.
type Found = Option<Result<(), Failure>>;

/// Checks the endpoints of an upstream until it is dropped. `now` is the clock. `first` is told once
/// every endpoint has been checked.
pub async fn keep_checked<C, F>(
    owner: Weak<Upstream>,
    check: C,
    now: impl Fn() -> Moment,
    first: oneshot::Sender<()>,
) where
    C: Fn(Arc<Endpoint>) -> F,
    F: Future<Output = Found> + Send + 'static,
{
    let Some(changes) = owner.upgrade().map(|upstream| upstream.changes()) else { return };
    let mut first = Some(first);
    let mut schedule = Schedule::default();
    let mut running = Running::default();
    let (mut has_changed, mut unchecked) = (true, 0);
    loop {
        let Some(upstream) = owner.upgrade() else { return };
        let Some(config) = &upstream.config().health else { return };
        let moment = now();
        if has_changed {
            let set = upstream.set();
            let members = set.members().iter().map(|member| &member.endpoint);
            unchecked = members.clone().filter(|endpoint| !endpoint.health.is_checked()).count();
            let plan =
                |endpoint: &Arc<Endpoint>| endpoint.health.plan(config, fastrand::f64(), moment);
            running.abort(&schedule.sync(members, plan));
        }
        if unchecked == 0
            && let Some(first) = first.take()
        {
            // The start may have stopped waiting for this.
            let _ = first.send(());
        }
        while running.has_room()
            && let Some(endpoint) = schedule.take_due(moment)
        {
            running.begin(endpoint.clone(), check(endpoint));
        }
        let next = schedule.next().filter(|_| running.has_room());
        let pause = next.map(|next| next.since(moment));
        drop(upstream);
        has_changed = false;
        let (endpoint, found) = tokio::select! {
            () = changes.notified() => {
                has_changed = true;
                continue;
            }
            () = after(pause) => continue,
            ended = running.next() => ended,
        };
        let Some(upstream) = owner.upgrade() else { return };
        let Some(config) = &upstream.config().health else { return };
        if schedule.ended(&endpoint) {
            let moment = now();
            take_in(&upstream, config, &endpoint, found, moment, &mut unchecked);
            let due = endpoint.health.plan_next(config, fastrand::f64(), moment);
            schedule.wait(endpoint, due);
        }
    }
}

fn take_in(
    upstream: &Upstream,
    config: &Config,
    endpoint: &Arc<Endpoint>,
    found: Found,
    now: Moment,
    unchecked: &mut usize,
) {
    let Some(result) = found else { return };
    if !endpoint.health.is_checked() {
        *unchecked = unchecked.saturating_sub(1);
    }
    upstream.checked(endpoint, result, config, now);
}

async fn after(pause: Option<Duration>) {
    match pause {
        Some(pause) => tokio::time::sleep(pause).await,
        None => std::future::pending().await,
    }
}

/// The checks under way. They are aborted when this is dropped.
#[derive(Default)]
struct Running {
    tasks: JoinSet<Found>,
    endpoints: HashMap<tokio::task::Id, (Arc<Endpoint>, AbortHandle)>,
}

impl Running {
    fn has_room(&self) -> bool {
        self.tasks.len() < AT_ONCE
    }

    fn begin(
        &mut self,
        endpoint: Arc<Endpoint>,
        check: impl Future<Output = Found> + Send + 'static,
    ) {
        let handle = self.tasks.spawn(check);
        self.endpoints.insert(handle.id(), (endpoint, handle));
    }

    fn abort(&self, gone: &[Id]) {
        for (endpoint, handle) in self.endpoints.values() {
            if gone.contains(&id(endpoint)) {
                handle.abort();
            }
        }
    }

    /// The next check that ends. One that panics, which the runtime logs, has found out nothing.
    async fn next(&mut self) -> (Arc<Endpoint>, Found) {
        loop {
            let (task, found) = match self.tasks.join_next_with_id().await {
                Some(Ok((task, found))) => (task, found),
                Some(Err(error)) => (error.id(), None),
                None => std::future::pending().await,
            };
            if let Some((endpoint, _)) = self.endpoints.remove(&task) {
                return (endpoint, found);
            }
        }
    }
}

#[cfg(test)]
mod tests;
