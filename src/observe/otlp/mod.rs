//! The connection to a collector, for spans and metrics: OTLP over gRPC or HTTP.
//!
//! Everything here runs on a thread of its own, never on the request path. [`super::trace`] and
//! [`super::metrics`] provide what is sent; `target` says where to; `sender` sends it; `outage` logs when a
//! collector does not accept it. [`Exporting`] is what outlives a reload.

mod grpc;
mod outage;
pub mod push;
mod resource;
pub mod sender;
pub mod target;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use prost::Message;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::watch;

use self::outage::{Collector, Reporter};
use self::sender::Sender;
use self::target::Target;
use crate::config::otlp::environment::Signal;
use crate::observe::metrics::otlp::Converter;

/// All exports of the process, those of generations before among them. One per process; it outlives every
/// reload.
pub struct Exporting {
    /// The exporting thread. Started for the first export, and there from then on.
    runtime: Mutex<Option<Runtime>>,
    /// The `service.instance.id` of this process.
    instance: String,
    /// Those that are exported to, so that what is known of one survives a reload.
    collectors: Mutex<Vec<Weak<Collector>>>,
    /// Of all work that is not over.
    endings: Mutex<Vec<(Signal, Ending)>>,
    /// Remembers since when each series counts, whichever collector it is sent to.
    converter: Arc<Mutex<Converter>>,
}

/// One signal's way to its collector.
pub struct Channel {
    sender: Sender,
    reporter: Reporter,
    /// Attributes of the exporting process, sent with every export.
    pub resource: ResourceAttributesWithSchema,
}

/// The result of an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// Accepted, except for this many spans or points.
    Taken {
        /// The collector's `partial_success`; it dropped them.
        rejected: u64,
    },
    /// Nothing was accepted, after all retries.
    Failed,
}

impl Default for Exporting {
    fn default() -> Self {
        Exporting {
            runtime: Mutex::default(),
            instance: resource::instance(),
            collectors: Mutex::default(),
            endings: Mutex::default(),
            converter: Arc::new(Mutex::new(Converter::new(SystemTime::now()))),
        }
    }
}

impl Exporting {
    /// The exporting thread, which is started if there is none.
    ///
    /// # Errors
    /// The system's limit on threads.
    pub fn thread(&self) -> std::io::Result<Handle> {
        let mut runtime = lock(&self.runtime);
        if let Some(runtime) = &*runtime {
            return Ok(runtime.handle().clone());
        }
        let started = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("telemetry")
            .enable_all()
            .build()?;
        Ok(runtime.insert(started).handle().clone())
    }

    /// Runs `work` on the exporting thread, where it is to end when the receiver says so.
    ///
    /// # Errors
    /// As [`Exporting::thread`].
    pub fn spawn<W: Future<Output = ()> + Send + 'static>(
        &self,
        signal: Signal,
        work: impl FnOnce(watch::Receiver<bool>) -> W,
    ) -> std::io::Result<Ending> {
        let thread = self.thread()?;
        let (ending, closing) = Ending::new();
        let mut endings = lock(&self.endings);
        endings.retain(|(_, ending)| !ending.is_over());
        endings.push((signal, ending.clone()));
        // [`Ending`] tells when it has ended, so the handle is not needed.
        drop(thread.spawn(work(closing)));
        Ok(ending)
    }

    /// The way to `target` for a signal.
    pub fn channel(&self, sender: Sender, target: &Target, signal: Signal) -> Channel {
        let name = outage::name(&target.destination);
        let mut collectors = lock(&self.collectors);
        collectors.retain(|collector| collector.strong_count() > 0);
        let mut known = collectors.iter().filter_map(Weak::upgrade);
        let known = known.find(|collector| collector.name() == name);
        let collector = known.unwrap_or_else(|| {
            let new = Arc::new(Collector::new(name));
            collectors.push(Arc::downgrade(&new));
            new
        });
        Channel {
            sender,
            reporter: Reporter::new(collector, signal),
            resource: resource::of(&target.attributes, &self.instance),
        }
    }

    /// Has all of a signal that waits sent, within `limit`. Returns whether that was attempted.
    pub async fn close(&self, signal: Signal, limit: Duration) -> bool {
        let endings: Vec<_> =
            lock(&self.endings).iter().filter(|(of, _)| *of == signal).cloned().collect();
        // All are told before the first is waited for.
        endings.iter().for_each(|(_, ending)| ending.begin());
        let all = async {
            for (_, ending) in &endings {
                ending.over().await;
            }
        };
        tokio::time::timeout(limit, all).await.is_ok()
    }
}

impl Channel {
    /// Sends `message`, with retries within the timeout of an export. A failure is logged here,
    /// once. While `closing` there is one attempt only.
    pub async fn send(&self, message: &impl Message, closing: watch::Receiver<bool>) -> Sent {
        let result = self.sender.send(message, closing).await;
        self.reporter.report(&result);
        match result {
            Ok(sender::Accepted { rejected, .. }) => Sent::Taken { rejected },
            Err(_) => Sent::Failed,
        }
    }
}

/// Tells background work to finish, and when it has.
#[derive(Clone)]
pub struct Ending(Arc<watch::Sender<bool>>);

impl Ending {
    /// The work holds the receiver, and drops it when it ends.
    pub fn new() -> (Self, watch::Receiver<bool>) {
        let (sender, receiver) = watch::channel(false);
        (Ending(Arc::new(sender)), receiver)
    }

    /// Asks the work to finish.
    pub fn begin(&self) {
        self.0.send_replace(true);
    }

    /// Waits until the work has ended.
    pub async fn over(&self) {
        self.0.closed().await;
    }

    fn is_over(&self) -> bool {
        self.0.is_closed()
    }
}

/// Nothing panics while it holds one of these locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
