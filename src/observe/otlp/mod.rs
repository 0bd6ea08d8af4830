//! The way to a collector, for spans and metrics alike: OTLP over gRPC or HTTP.
//!
//! Everything here runs on one thread of its own, never on the request path. What is to be sent
//! comes from [`super::trace`] and [`super::metrics`]; how it is sent is in `sender`; what is
//! said about a collector that does not take it, in `outage`.

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
    #[error("no HTTP client for the collector: {0}")]
    Client(#[from] reqwest::Error),
    #[error("the authorities of the collector's certificate: {path}: {why}")]
    Authorities { path: String, why: String },
    #[error("no thread to export from: {0}")]
    Thread(#[from] std::io::Error),
}

/// The thread that exports, and the ways to the collectors. Dropped, nothing is exported any more.
pub struct Exporting {
    pub traces: Option<Channel>,
    pub metrics: Option<Channel>,
    /// Absent where nothing is exported.
    _runtime: Option<Runtime>,
}

/// One signal's way to its collector.
#[derive(Clone)]
pub struct Channel {
    runtime: Handle,
    sender: Arc<Sender>,
    reporter: Reporter,
    pub resource: Arc<ResourceAttributesWithSchema>,
}

/// What became of an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// Taken, but for this many spans or points.
    Taken {
        rejected: u64,
    },
    Failed,
}

impl Exporting {
    /// # Errors
    /// When no client can be built, as on a system without root certificates, or no thread.
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
    /// Send `message`, repeating it within the time an export may take; what goes wrong is logged
    /// here, once. While `closing` it is tried once.
    pub async fn send(&self, message: &impl Message, closing: watch::Receiver<bool>) -> Sent {
        let result = self.sender.send(message, closing).await;
        self.reporter.report(&result);
        match result {
            Ok(sender::Accepted { rejected, .. }) => Sent::Taken { rejected },
            Err(_) => Sent::Failed,
        }
    }

    pub fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        // Its end shows in what it holds: see [`Ending`].
        drop(self.runtime.spawn(work));
    }
}

/// Tells work in the background to finish, and waits for it.
pub struct Ending(watch::Sender<bool>);

impl Ending {
    /// The other end belongs to the work, and goes with it.
    pub fn new() -> (Self, watch::Receiver<bool>) {
        let (sender, receiver) = watch::channel(false);
        (Ending(sender), receiver)
    }

    /// Whether the work ended within `limit`.
    pub async fn close(&self, limit: Duration) -> bool {
        self.0.send_replace(true);
        tokio::time::timeout(limit, self.0.closed()).await.is_ok()
    }
}
