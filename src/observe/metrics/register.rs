//! Creates and registers metrics in one step, with the gateway's prefix.

use prometheus::core::Collector;
use prometheus::{
    HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

/// In seconds: from a response out of a cache to a slow report.
pub(super) const LATENCY_BUCKETS: [f64; 14] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

pub(super) fn opts(name: &str, help: &str) -> Opts {
    Opts::new(name, help).namespace("portcullis")
}

pub(super) fn register<C: Collector + Clone + 'static>(
    r: &Registry,
    metric: C,
) -> prometheus::Result<C> {
    r.register(Box::new(metric.clone()))?;
    Ok(metric)
}

pub(super) fn counter(r: &Registry, name: &str, help: &str) -> prometheus::Result<IntCounter> {
    register(r, IntCounter::with_opts(opts(name, help))?)
}

pub(super) fn counters(
    r: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> prometheus::Result<IntCounterVec> {
    register(r, IntCounterVec::new(opts(name, help), labels)?)
}

pub(super) fn gauge(r: &Registry, name: &str, help: &str) -> prometheus::Result<IntGauge> {
    register(r, IntGauge::with_opts(opts(name, help))?)
}

pub(super) fn gauges(
    r: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> prometheus::Result<IntGaugeVec> {
    register(r, IntGaugeVec::new(opts(name, help), labels)?)
}

pub(super) fn histograms_in(
    r: &Registry,
    name: &str,
    help: &str,
    label: &str,
    buckets: &[f64],
) -> prometheus::Result<HistogramVec> {
    let opts = HistogramOpts::new(name, help).namespace("portcullis").buckets(buckets.to_vec());
    register(r, HistogramVec::new(opts, &[label])?)
}
