//! Sends spans to the collector: a bounded queue, and a task that empties it.
//!
//! The queue's sending end is held by the generations that send there. When the last of them is dropped, the
//! task sends what waits, and ends: a request hands its spans over before it lets go of its generation.
//!
//! The request path never waits for room. If the collector is slow or unreachable, the queue fills
//! up, and further requests are dropped and counted.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use opentelemetry::InstrumentationScope;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::transform::trace::tonic::group_spans_by_resource_and_scope;
use opentelemetry_sdk::trace::SpanData;
use prometheus::IntCounter;
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;

use super::span::Request;
use crate::config::otlp::environment::Signal;
use crate::observe::metrics::Metrics;
use crate::observe::otlp::sender::Sender;
use crate::observe::otlp::target::{Target, Unusable};
use crate::observe::otlp::{Exporting, Sent};

/// The most requests that wait; about 2 MiB.
const QUEUE: usize = 2048;
/// Spans sent at once. The spans of one request are always sent together.
const BATCH: usize = 512;
/// How long a span may wait for more to fill its batch.
const DELAY: Duration = Duration::from_secs(1);

/// Sends spans to one target. A reload that does not change the target goes on with it.
pub struct Exporter {
    /// Where they are sent to.
    pub target: Target,
    queue: Queue,
    /// Until it is started: a configuration that is only checked sends nothing.
    unstarted: Mutex<Option<(Sender, Worker)>>,
}

/// The queue's sending end, held by the request path.
struct Queue {
    sender: mpsc::Sender<Box<Request>>,
    dropped: IntCounter,
}

impl Exporter {
    /// Sends nothing yet.
    ///
    /// # Errors
    /// As [`Sender::new`].
    pub fn new(target: Target, metrics: &Metrics) -> Result<Self, Unusable> {
        let sender = Sender::new(&target)?;
        let (queue, worker) = Queue::new(QUEUE, DELAY, Counts::of(metrics));
        Ok(Exporter { target, queue, unstarted: Mutex::new(Some((sender, worker))) })
    }

    /// Starts to send, unless that has been done.
    ///
    /// # Errors
    /// As [`Exporting::thread`].
    pub fn start(&self, exporting: &Exporting) -> std::io::Result<()> {
        let unstarted = self.unstarted.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some((sender, worker)) = unstarted else { return Ok(()) };
        let channel = Arc::new(exporting.channel(sender, &self.target, Signal::Traces));
        exporting.spawn(Signal::Traces, |closing| {
            let told = closing.clone();
            let send = move |spans| {
                let (channel, closing) = (channel.clone(), told.clone());
                async move {
                    let resource_spans =
                        group_spans_by_resource_and_scope(spans, &channel.resource);
                    channel.send(&ExportTraceServiceRequest { resource_spans }, closing).await
                }
            };
            worker.run(closing, send)
        })?;
        Ok(())
    }

    pub(super) fn submit(&self, request: Box<Request>) {
        self.queue.submit(request);
    }

    /// An exporter whose spans are discarded.
    #[cfg(test)]
    pub(super) fn discarding() -> Self {
        use crate::config::otlp::telemetry::Telemetry;
        use crate::config::{Config, Environment};
        let config =
            "{listeners: {public: {address: '127.0.0.1:1'}}, otlp: {endpoint: 'http://h:1'}}";
        let config: Config = serde_yaml::from_str(config).expect("valid");
        let environment = Environment::fixed([("", ""); 0]);
        let traces = Telemetry::resolve(&config, &environment).traces.expect("a destination");
        let target = Target::read(&traces, &[]).expect("no file is read");
        Exporter::new(target, &Metrics::new().expect("metrics")).expect("a client")
    }
}

impl Queue {
    fn new(queue: usize, delay: Duration, counts: Counts) -> (Self, Worker) {
        let (sender, requests) = mpsc::channel(queue);
        let dropped = counts.dropped.clone();
        let scope = InstrumentationScope::builder("portcullis")
            .with_version(env!("CARGO_PKG_VERSION"))
            .build();
        (Queue { sender, dropped }, Worker { requests, delay, counts, scope })
    }

    fn submit(&self, request: Box<Request>) {
        if let Err(refused) = self.sender.try_send(request) {
            self.dropped.inc_by(refused.into_inner().span_count() as u64);
        }
    }
}

/// Counts of spans by result.
struct Counts {
    exported: IntCounter,
    failed: IntCounter,
    dropped: IntCounter,
}

impl Counts {
    fn of(metrics: &Metrics) -> Self {
        let of = |result| metrics.trace_spans.with_label_values(&[result]);
        Counts { exported: of("exported"), failed: of("failed"), dropped: of("dropped") }
    }
}

/// The queue's receiving end, held by the exporting thread.
struct Worker {
    requests: mpsc::Receiver<Box<Request>>,
    delay: Duration,
    counts: Counts,
    scope: InstrumentationScope,
}

impl Worker {
    /// Runs until the queue is closed, which `closing` does too; `send` posts a batch.
    async fn run<F: Future<Output = Sent>>(
        mut self,
        mut closing: watch::Receiver<bool>,
        mut send: impl FnMut(Vec<SpanData>) -> F,
    ) {
        loop {
            let mut batch = Vec::new();
            let open = self.gather(&mut batch, &mut closing).await;
            // Whether by `closing`, or because no generation sends here any more.
            let closing = self.requests.is_closed();
            let mut sent = true;
            if !batch.is_empty() {
                let spans = batch.len() as u64;
                sent = self.count(spans, send(batch).await);
            }
            // At the end, a collector that does not respond is not waited for.
            if !open || (closing && !sent) {
                break;
            }
        }
        self.requests.close();
        while let Ok(request) = self.requests.try_recv() {
            self.counts.dropped.inc_by(request.span_count() as u64);
        }
    }

    /// Waits until a batch is full or has waited long enough. Returns `false` when no more can
    /// come.
    async fn gather(
        &mut self,
        batch: &mut Vec<SpanData>,
        closing: &mut watch::Receiver<bool>,
    ) -> bool {
        let mut delay = std::pin::pin!(None);
        while batch.len() < BATCH {
            let wait = async {
                match delay.as_mut().as_pin_mut() {
                    Some(delay) => delay.await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                // The order matters: first the end, then waiting requests, then the delay.
                biased;
                // Closes the queue, so that the remaining requests are received without waiting.
                _ = closing.wait_for(|closing| *closing), if !self.requests.is_closed() => {
                    self.requests.close();
                    delay.set(None);
                }
                request = self.requests.recv() => {
                    let Some(request) = request else { return false };
                    batch.extend(request.into_spans(&self.scope));
                    if delay.is_none() && !self.requests.is_closed() {
                        delay.set(Some(sleep(self.delay)));
                    }
                }
                () = wait => return true,
            }
        }
        true
    }

    /// Counts the spans of a batch. Returns whether the collector accepted it.
    fn count(&self, spans: u64, sent: Sent) -> bool {
        match sent {
            Sent::Taken { rejected } => {
                let rejected = rejected.min(spans);
                self.counts.failed.inc_by(rejected);
                self.counts.exported.inc_by(spans - rejected);
                true
            }
            Sent::Failed => {
                self.counts.failed.inc_by(spans);
                false
            }
        }
    }
}

#[cfg(test)]
mod tests;
