//! Sends metrics to a collector: the registry that `/metrics` shows, gathered at every interval and
//! once more at the end.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use prometheus::IntCounterVec;
use prometheus::proto::MetricFamily;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::sender::Sender;
use super::target::{Target, Unusable};
use super::{Channel, Ending, Exporting, Sent};
use crate::config::otlp::environment::Signal;
use crate::observe::metrics::otlp::Converter;
use crate::units::Timespan;

/// Sends metrics to one target, from when it is started until it is told to end, or the process does. A
/// reload that changes neither target nor interval goes on with it.
pub struct Push {
    /// Where they are sent to.
    pub target: Target,
    /// Time between two exports.
    pub interval: Timespan,
    /// Until it is started: a configuration that is only checked sends nothing.
    sender: Mutex<Option<Sender>>,
    ending: OnceLock<Ending>,
}

impl Push {
    /// Sends nothing yet.
    ///
    /// # Errors
    /// As [`Sender::new`].
    pub fn new(target: Target, interval: Timespan) -> Result<Self, Unusable> {
        let sender = Mutex::new(Some(Sender::new(&target)?));
        Ok(Push { target, interval, sender, ending: OnceLock::new() })
    }

    /// Starts to send, after a `wait`, unless that has been done. `gather` copies the registry, and runs on
    /// the exporting thread.
    ///
    /// # Errors
    /// As [`Exporting::thread`].
    pub fn start(
        &self,
        exporting: &Exporting,
        wait: Duration,
        exports: IntCounterVec,
        gather: impl Fn() -> Vec<MetricFamily> + Send + Sync + 'static,
    ) -> std::io::Result<()> {
        let sender = self.sender.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(sender) = sender else { return Ok(()) };
        let channel = exporting.channel(sender, &self.target, Signal::Metrics);
        let worker = Worker { channel, converter: exporting.converter.clone(), exports, gather };
        let (first, interval) = (Instant::now() + wait, *self.interval);
        let ending =
            exporting.spawn(Signal::Metrics, |closing| worker.run(first, interval, closing))?;
        // It was not started before, so this is still empty.
        let _ = self.ending.set(ending);
        Ok(())
    }

    /// Has it send the values as they are now, and end. Does not wait for that.
    pub fn end(&self) {
        if let Some(ending) = self.ending.get() {
            ending.begin();
        }
    }
}

/// What the exporting thread runs.
struct Worker<G> {
    channel: Channel,
    converter: Arc<Mutex<Converter>>,
    exports: IntCounterVec,
    gather: G,
}

impl<G: Fn() -> Vec<MetricFamily>> Worker<G> {
    async fn run(self, first: Instant, interval: Duration, mut closing: watch::Receiver<bool>) {
        let mut ticks = interval_at(first, interval);
        // A slow collector misses nothing: the next export contains the counts so far.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let last = tokio::select! {
                _ = ticks.tick() => false,
                _ = closing.wait_for(|closing| *closing) => true,
            };
            let request = self.request();
            let result = match self.channel.send(&request, closing.clone()).await {
                Sent::Taken { rejected: 0 } => "exported",
                Sent::Taken { .. } | Sent::Failed => "failed",
            };
            self.exports.with_label_values(&[result]).inc();
            if last {
                break;
            }
        }
    }

    fn request(&self) -> ExportMetricsServiceRequest {
        let families = (self.gather)();
        let mut converter = self.converter.lock().unwrap_or_else(PoisonError::into_inner);
        converter.convert(families, &self.channel.resource, SystemTime::now())
    }
}
