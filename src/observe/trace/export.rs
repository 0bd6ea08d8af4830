//! Sends spans to the collector: a bounded queue, and a task that empties it.
//!
//! The request path never waits for room. If the collector is slow or unreachable, the queue fills
//! up, and further requests are dropped and counted.

use std::sync::Arc;
use std::time::Duration;

use opentelemetry::InstrumentationScope;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::transform::trace::tonic::group_spans_by_resource_and_scope;
use opentelemetry_sdk::trace::SpanData;
use prometheus::IntCounter;
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;

use super::span::Request;
use crate::observe::metrics::Metrics;
use crate::observe::otlp::{Channel, Ending, Sent};

/// The most requests that wait; about 2 MiB.
const QUEUE: usize = 2048;
/// Spans sent at once. The spans of one request are always sent together.
const BATCH: usize = 512;
/// How long a span may wait for more to fill its batch.
const DELAY: Duration = Duration::from_secs(1);

/// The queue's sending end, held by the request path.
pub(super) struct Exporter {
    sender: mpsc::Sender<Box<Request>>,
    ending: Ending,
    dropped: IntCounter,
}

impl Exporter {
    pub(super) fn start(channel: Channel, metrics: &Metrics) -> Self {
        let (exporter, worker) = Exporter::new(QUEUE, DELAY, Counts::of(metrics));
        let (channel, closing) = (Arc::new(channel), worker.closing.clone());
        let sending = channel.clone();
        let send = move |spans| {
            let (channel, closing) = (sending.clone(), closing.clone());
            async move {
                let resource_spans = group_spans_by_resource_and_scope(spans, &channel.resource);
                channel.send(&ExportTraceServiceRequest { resource_spans }, closing).await
            }
        };
        channel.spawn(worker.run(send));
        exporter
    }

    fn new(queue: usize, delay: Duration, counts: Counts) -> (Self, Worker) {
        let (sender, requests) = mpsc::channel(queue);
        let (ending, closing) = Ending::new();
        let dropped = counts.dropped.clone();
        let scope = InstrumentationScope::builder("portcullis")
            .with_version(env!("CARGO_PKG_VERSION"))
            .build();
        let worker = Worker { requests, closing, delay, counts, scope };
        (Exporter { sender, ending, dropped }, worker)
    }

    /// An exporter whose spans are discarded.
    #[cfg(test)]
    pub(super) fn discarding() -> Self {
        Exporter::new(1, DELAY, Counts::of(&Metrics::new().expect("metrics"))).0
    }

    pub(super) fn submit(&self, request: Box<Request>) {
        if let Err(refused) = self.sender.try_send(request) {
            self.dropped.inc_by(refused.into_inner().span_count() as u64);
        }
    }

    pub(super) async fn close(&self, limit: Duration) -> bool {
        self.ending.close(limit).await
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
    closing: watch::Receiver<bool>,
    delay: Duration,
    counts: Counts,
    scope: InstrumentationScope,
}

impl Worker {
    /// Runs until the queue is closed; `send` posts a batch.
    async fn run<F: Future<Output = Sent>>(mut self, mut send: impl FnMut(Vec<SpanData>) -> F) {
        loop {
            let mut batch = Vec::new();
            let open = self.gather(&mut batch).await;
            let closing = !open || *self.closing.borrow();
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
    async fn gather(&mut self, batch: &mut Vec<SpanData>) -> bool {
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
                _ = self.closing.wait_for(|closing| *closing), if !self.requests.is_closed() => {
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
