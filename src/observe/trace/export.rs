//! The way of spans to the collector: a bounded queue, and a thread that empties it.
//!
//! The request path only ever tries to put something in. A collector that is slow or gone
//! fills the queue, and what does not fit is dropped and counted; it is said once when
//! exporting begins to fail and once when it works again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_otlp::{
    Protocol, RetryPolicy, SpanExporter as Otlp, WithExportConfig, WithHttpConfig,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanExporter};
use prometheus::IntCounter;

use super::span::Request;
use crate::config::traces::Collector;
use crate::observe::metrics::Metrics;
use crate::units::Timespan;

/// Requests that wait at most; some 2 MiB.
const QUEUE: usize = 2048;
/// Spans sent at once; one request's are never torn apart.
const BATCH: usize = 512;
/// How long a span waits for company.
const DELAY: Duration = Duration::from_secs(1);

/// Why tracing could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("no HTTP client for the collector: {0}")]
    Client(#[from] reqwest::Error),
    #[error("no exporter: {0}")]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
    #[error("no thread to export from: {0}")]
    Thread(#[from] std::io::Error),
}

/// The end of the queue that the request path has.
pub(super) struct Exporter {
    /// `None` only wakes the thread.
    sender: SyncSender<Option<Box<Request>>>,
    closing: Arc<AtomicBool>,
    /// Closed by the thread's end. Locked by `close` alone.
    ended: Mutex<Receiver<()>>,
    dropped: IntCounter,
}

impl Exporter {
    pub(super) fn start(
        collector: &Collector,
        timeout: Timespan,
        service_name: &str,
        metrics: &Metrics,
    ) -> Result<Self, StartError> {
        let otlp = otlp(collector, timeout, service_name)?;
        let send = move |spans| {
            let sent = futures_executor::block_on(otlp.export(spans));
            sent.map_err(|error| error.to_string())
        };
        Exporter::spawn(QUEUE, DELAY, Counts::of(metrics), collector.to_string(), send)
    }

    /// `send` posts a batch, or says why it could not.
    fn spawn(
        queue: usize,
        delay: Duration,
        counts: Counts,
        to: String,
        send: impl FnMut(Vec<SpanData>) -> Result<(), String> + Send + 'static,
    ) -> Result<Self, StartError> {
        let (sender, requests) = sync_channel(queue);
        let (end, ended) = sync_channel(0);
        let closing = Arc::new(AtomicBool::new(false));
        let dropped = counts.dropped.clone();
        let scope = InstrumentationScope::builder("portcullis")
            .with_version(env!("CARGO_PKG_VERSION"))
            .build();
        let worker = Worker {
            requests,
            delay,
            closing: closing.clone(),
            counts,
            scope,
            to,
            send,
            failing: false,
        };
        std::thread::Builder::new().name("traces".to_owned()).spawn(move || {
            // Dropped last, and by a panic too: nobody waits for a thread that is gone.
            let _end: SyncSender<()> = end;
            worker.run();
        })?;
        Ok(Exporter { sender, closing, ended: Mutex::new(ended), dropped })
    }

    /// One that takes everything and sends it nowhere.
    #[cfg(test)]
    pub(super) fn discarding() -> Self {
        let counts = Counts::of(&Metrics::new().expect("metrics"));
        Exporter::spawn(QUEUE, DELAY, counts, "nowhere".to_owned(), |_| Ok(())).expect("a thread")
    }

    pub(super) fn submit(&self, request: Box<Request>) {
        let spans = request.span_count() as u64;
        if self.sender.try_send(Some(request)).is_err() {
            self.dropped.inc_by(spans);
        }
    }

    pub(super) fn close(&self, limit: Duration) -> bool {
        // Release: what was submitted before is in the queue when the thread sees this.
        self.closing.store(true, Ordering::Release);
        // A full queue wakes the thread by itself.
        let _ = self.sender.try_send(None);
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        ended.recv_timeout(limit) == Err(RecvTimeoutError::Disconnected)
    }
}

/// What became of spans.
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

/// The end of the queue that the thread has.
struct Worker<S> {
    requests: Receiver<Option<Box<Request>>>,
    delay: Duration,
    closing: Arc<AtomicBool>,
    counts: Counts,
    scope: InstrumentationScope,
    /// For the log.
    to: String,
    send: S,
    failing: bool,
}

impl<S: FnMut(Vec<SpanData>) -> Result<(), String>> Worker<S> {
    fn run(mut self) {
        loop {
            // Acquire pairs with the release in `close`.
            let closing = self.closing.load(Ordering::Acquire);
            let mut batch = Vec::new();
            let open = if closing { self.take(&mut batch) } else { self.gather(&mut batch) };
            let sent = batch.is_empty() || self.export(batch);
            // A collector that does not answer is not worth waiting for at the end.
            if !open || (closing && !sent) {
                break;
            }
        }
        let left =
            self.requests.try_iter().flatten().map(|request| request.span_count() as u64).sum();
        self.counts.dropped.inc_by(left);
    }

    /// Wait for a batch to come together. `false` when no more can come.
    fn gather(&self, batch: &mut Vec<SpanData>) -> bool {
        match self.requests.recv() {
            Ok(Some(request)) => batch.extend(request.into_spans(&self.scope)),
            Ok(None) => return true,
            Err(_) => return false,
        }
        let until = Instant::now() + self.delay;
        while batch.len() < BATCH {
            match self.requests.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(Some(request)) => batch.extend(request.into_spans(&self.scope)),
                Ok(None) | Err(RecvTimeoutError::Timeout) => return true,
                Err(RecvTimeoutError::Disconnected) => return false,
            }
        }
        true
    }

    /// Take what is there. `false` when that was all.
    fn take(&self, batch: &mut Vec<SpanData>) -> bool {
        while batch.len() < BATCH {
            match self.requests.try_recv() {
                Ok(Some(request)) => batch.extend(request.into_spans(&self.scope)),
                Ok(None) => {}
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => return false,
            }
        }
        true
    }

    fn export(&mut self, batch: Vec<SpanData>) -> bool {
        let spans = batch.len() as u64;
        let sent = (self.send)(batch);
        match &sent {
            Ok(()) => self.counts.exported.inc_by(spans),
            Err(_) => self.counts.failed.inc_by(spans),
        }
        match &sent {
            Ok(()) if self.failing => log::info!("traces: {} takes spans again", self.to),
            Err(why) if !self.failing => {
                log::warn!("traces: {} takes no spans, they are lost until it does: {why}", self.to)
            }
            Ok(()) | Err(_) => {}
        }
        self.failing = sent.is_err();
        sent.is_ok()
    }
}

fn otlp(collector: &Collector, timeout: Timespan, service_name: &str) -> Result<Otlp, StartError> {
    // Building a client panics where no provider is installed; being second is as good.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let client = reqwest::blocking::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        // The configuration says where spans go, not the environment.
        .no_proxy()
        .timeout(*timeout);
    let client = match collector.is_encrypted() {
        true => client.build()?,
        // Without TLS a system without root certificates will do.
        false => client.tls_certs_only([]).build()?,
    };
    let mut otlp = Otlp::builder()
        .with_http()
        .with_http_client(client)
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(collector.to_string())
        .with_timeout(*timeout)
        // Its pauses are also what keeps a dead collector from being asked all the time.
        .with_retry_policy(RetryPolicy::recommended())
        .build()?;
    let resource = Resource::builder()
        .with_service_name(service_name.to_owned())
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .build();
    otlp.set_resource(&resource);
    Ok(otlp)
}

#[cfg(test)]
mod tests;
