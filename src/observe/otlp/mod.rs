//! The connection to a collector, for spans and metrics: OTLP over gRPC or HTTP.
//!
//! Everything here runs on a thread of its own, never on the request path. [`super::trace`] and
//! [`super::metrics`] provide what is sent; `sender` sends it; `outage` logs when a collector does
//! not accept it.

mod grpc;
mod outage;
pub mod push;
mod resource;
mod sender;

use std::sync::Arc;
use std::time::Duration;

use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use prost::Message;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::watch;

use self::outage::{Collector, Reporter};
use self::sender::Sender;
use crate::config::otlp::environment::Signal;
use crate::config::otlp::telemetry::{Destination, Telemetry};

/// Why exporting could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The settings of TLS, in most cases.
    #[error("no HTTP client for the collector: {0}")]
    Client(#[from] reqwest::Error),
    /// The file of `ca` does not help.
    #[error("the authorities of the collector's certificate: {path}: {why}")]
    Authorities {
        /// The file that `ca` names.
        path: String,
        /// That it cannot be read, or holds no certificate.
        why: String,
    },
    /// The system's limit on threads.
    #[error("no thread to export from: {0}")]
    Thread(#[from] std::io::Error),
}

/// The exporting thread, with a channel for each signal. Dropping it ends all exports.
pub struct Exporting {
    /// `None` if no spans are exported.
    pub traces: Option<Channel>,
    /// `None` if no metrics are exported.
    pub metrics: Option<Channel>,
    /// `None` if nothing is exported.
    _runtime: Option<Runtime>,
}

/// One signal's channel to its collector.
#[derive(Clone)]
pub struct Channel {
    runtime: Handle,
    sender: Arc<Sender>,
    reporter: Reporter,
    /// Attributes of the exporting process, sent with every export.
    pub resource: Arc<ResourceAttributesWithSchema>,
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

impl Exporting {
    /// Starts the exporting thread, if anything is exported.
    ///
    /// # Errors
    /// No client can be built, for example on a system without root certificates, or no thread can
    /// be started.
    pub fn start(telemetry: &Telemetry) -> Result<Self, StartError> {
        let Telemetry { traces, metrics, .. } = telemetry;
        if traces.is_none() && metrics.is_none() {
            return Ok(Exporting { traces: None, metrics: None, _runtime: None });
        }
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("telemetry")
            .enable_all()
            .build()?;
        let resource = Arc::new(resource::of(&telemetry.resource));
        let shared = Collector::shared(traces.as_ref(), metrics.as_ref());
        let channel = |signal: Signal, destination: &Destination| {
            let collector = shared.clone().unwrap_or_else(|| Collector::of(destination));
            Ok::<_, StartError>(Channel {
                runtime: runtime.handle().clone(),
                sender: Arc::new(Sender::new(destination)?),
                reporter: Reporter::new(collector, signal),
                resource: resource.clone(),
            })
        };
        let traces = traces.as_ref().map(|to| channel(Signal::Traces, to)).transpose()?;
        let metrics = metrics.as_ref().map(|to| channel(Signal::Metrics, to)).transpose()?;
        Ok(Exporting { traces, metrics, _runtime: Some(runtime) })
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

    /// Runs `work` on the exporting thread. It ends with the thread at the latest.
    pub fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        // [`Ending`] tells when it has ended, so the handle is not needed.
        drop(self.runtime.spawn(work));
    }
}

/// Tells background work to finish, and waits for it.
pub struct Ending(watch::Sender<bool>);

impl Ending {
    /// The work holds the receiver, and drops it when it ends.
    pub fn new() -> (Self, watch::Receiver<bool>) {
        let (sender, receiver) = watch::channel(false);
        (Ending(sender), receiver)
    }

    /// Asks the work to finish. Returns whether it ended within `limit`.
    pub async fn close(&self, limit: Duration) -> bool {
        self.0.send_replace(true);
        tokio::time::timeout(limit, self.0.closed()).await.is_ok()
    }
}
