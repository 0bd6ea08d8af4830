//! Sends metrics to a collector: the registry that `/metrics` shows, gathered at every interval and
//! once more at the end.

use std::time::{Duration, SystemTime};

use prometheus::IntCounterVec;
use prometheus::proto::MetricFamily;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::{Channel, Ending, Sent};
use crate::observe::metrics::otlp::Converter;

/// Sends metrics until it is closed.
pub struct Push(Ending);

impl Push {
    /// Starts to send. `gather` copies the registry, and runs on the exporting thread.
    pub fn start(
        channel: Channel,
        interval: Duration,
        exports: IntCounterVec,
        gather: impl FnMut() -> Vec<MetricFamily> + Send + 'static,
    ) -> Self {
        let (ending, closing) = Ending::new();
        channel.spawn(run(channel.clone(), interval, exports, gather, closing));
        Push(ending)
    }

    /// Sends the final values, within `limit`. Returns whether that was attempted.
    pub async fn close(&self, limit: Duration) -> bool {
        self.0.close(limit).await
    }
}

async fn run(
    channel: Channel,
    interval: Duration,
    exports: IntCounterVec,
    mut gather: impl FnMut() -> Vec<MetricFamily>,
    mut closing: watch::Receiver<bool>,
) {
    let mut converter = Converter::new(SystemTime::now());
    let mut ticks = interval_at(Instant::now() + interval, interval);
    // A slow collector misses nothing: the next export contains the counts so far.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let last = tokio::select! {
            _ = ticks.tick() => false,
            // An error means that [`Push`] was dropped, which ends it too.
            _ = closing.wait_for(|closing| *closing) => true,
        };
        let request = converter.convert(gather(), &channel.resource, SystemTime::now());
        let result = match channel.send(&request, closing.clone()).await {
            Sent::Taken { rejected: 0 } => "exported",
            Sent::Taken { .. } | Sent::Failed => "failed",
        };
        exports.with_label_values(&[result]).inc();
        if last {
            break;
        }
    }
}
