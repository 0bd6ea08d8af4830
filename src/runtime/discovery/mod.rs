//! Asks the sources that upstreams discover their endpoints from.
//!
//! `upstream::discovery` decides what an answer means. Each upstream with a source has one task, which
//! ends with the upstream, or when a reload puts another in its place. The new one starts with the
//! endpoints that the old one knew, if it asks the same source for them.

mod backoff;
mod consul;
mod dns;
mod eureka;
mod file;
mod files;
mod http;
mod kubernetes;
mod registry;
mod srv;

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::oneshot;

use super::snapshot::{Snapshot, UpstreamTarget};
use super::task::Task;
use crate::time::Clock;
use crate::upstream::Upstream;
use crate::upstream::config::Listed;
use crate::upstream::discovery::config::{Discover, Source};
use crate::upstream::discovery::known::Said;

/// How long a start or a reload waits for the first answers.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// How often a source's latest answer is considered again if it is empty: after `empty_after` it is
/// accepted, also if the source sends only changes.
const REPEAT: Duration = Duration::from_secs(1);

/// Something that knows the endpoints of an upstream.
trait Asked: Send + 'static {
    /// The next thing it says. It paces itself: the first answer comes as soon as it can, the next one
    /// once there may be something new, or it is time to ask again.
    fn next(&mut self) -> impl Future<Output = Said<Vec<Listed>>> + Send;
}

/// Tells of instances that a registry names, and that cannot be used: once, until there is another one.
struct Unusable {
    upstream: Arc<str>,
    source: String,
    told: Option<String>,
}

impl Unusable {
    fn new(upstream: &Arc<str>, source: String) -> Self {
        Unusable { upstream: upstream.clone(), source, told: None }
    }

    fn tell(&mut self, unusable: Option<String>) {
        if let Some(unusable) = unusable.as_ref().filter(|_| unusable != self.told) {
            let Unusable { upstream, source, .. } = self;
            log::warn!("upstreams.{upstream}: {source}: {unusable}; not used");
        }
        self.told = unusable;
    }
}

/// Begins to ask the sources that `next` has, and ends to ask those of `before` that it does not.
/// Returns once each has said something, or after [`FIRST_WAIT`].
pub(super) async fn begin(next: &Snapshot, before: Option<&Snapshot>) {
    let gone = before.into_iter().flat_map(|before| &before.upstreams);
    for (name, target) in gone {
        let stays = next.upstreams.get(name).is_some_and(|same| Arc::ptr_eq(same, target));
        if !stays && let Some(task) = target.source.get() {
            task.end();
        }
    }
    let mut firsts = Vec::new();
    for target in next.upstreams.values() {
        let Some(discover) = &target.upstream.config().discover else { continue };
        if target.source.get().is_some() {
            continue;
        }
        let (first, done) = oneshot::channel();
        // Generations are started one at a time, so it is still empty.
        let _ = target.source.set(spawn(discover, target, first));
        firsts.push(done);
    }
    let all = async {
        for first in firsts {
            // An error: the task has ended.
            let _ = first.await;
        }
    };
    let _ = tokio::time::timeout(FIRST_WAIT, all).await;
}

fn spawn(discover: &Discover, target: &UpstreamTarget, first: oneshot::Sender<()>) -> Task {
    let upstream = Arc::downgrade(&target.upstream);
    // From before a reload.
    let is_known = target.upstream.source().is_some_and(|source| source.endpoints > 0);
    match &discover.source {
        Source::File(config) => {
            Task::spawn(ask(file::FileSource::new(config, is_known), upstream, first))
        }
        Source::Registry(_) => Task::spawn(registry::keep(upstream, first)),
        Source::Kubernetes(config) => {
            let form = discover.form.as_ref();
            let source = kubernetes::KubernetesSource::new(config, form);
            Task::spawn(ask(source, upstream, first))
        }
        Source::Srv(config) => {
            let source = srv::SrvSource::new(config, discover, &target.upstream);
            Task::spawn(ask(source, upstream, first))
        }
        Source::Consul(config) => {
            let source = consul::ConsulSource::new(config, &target.upstream);
            Task::spawn(ask(source, upstream, first))
        }
        Source::Eureka(config) => {
            let source = eureka::EurekaSource::new(config, &target.upstream);
            Task::spawn(ask(source, upstream, first))
        }
    }
}

/// Passes on what the source says until the upstream is dropped.
async fn ask(mut source: impl Asked, upstream: Weak<Upstream>, first: oneshot::Sender<()>) {
    let mut first = Some(first);
    let mut nothing = None;
    loop {
        let said = {
            let mut next = std::pin::pin!(source.next());
            loop {
                tokio::select! {
                    said = &mut next => break said,
                    () = tokio::time::sleep(REPEAT), if nothing.is_some() => {
                        let Some(upstream) = upstream.upgrade() else { return };
                        let knows_some = upstream.source().is_some_and(|known| known.endpoints > 0);
                        if let Some(words) = nothing.clone().filter(|_| knows_some) {
                            upstream.discovered(Said::Nothing(words), Clock::now());
                        }
                    }
                }
            }
        };
        nothing = match &said {
            Said::Nothing(words) => Some(words.clone()),
            Said::These(_) | Said::Failed(_) => None,
        };
        let Some(upstream) = upstream.upgrade() else { return };
        upstream.discovered(said, Clock::now());
        if let Some(first) = first.take() {
            // The start may have stopped waiting for this.
            let _ = first.send(());
        }
    }
}
