//! What runs: the build, and the configuration in force.

use std::time::{SystemTime, UNIX_EPOCH};

use prometheus::{IntCounter, IntGauge, Registry};

use super::register::{counters, gauge, gauges};

/// The metrics of the configuration in force.
pub struct ConfigMetrics {
    /// The generation in force: 1 at start, one more with every reload.
    pub generation: IntGauge,
    reloaded: IntCounter,
    refused: IntCounter,
    successful: IntGauge,
    taken_at: IntGauge,
    hash: IntGauge,
}

/// Shows the build, as a gauge that is always 1.
pub(super) fn build_info(r: &Registry) -> prometheus::Result<()> {
    let labels = ["version", "os", "arch", "profile"];
    let info = gauges(r, "build_info", "The build that runs; always 1", &labels)?;
    let profile = if cfg!(debug_assertions) { "debug" } else { "release" };
    let (version, os, arch) =
        (env!("CARGO_PKG_VERSION"), std::env::consts::OS, std::env::consts::ARCH);
    info.with_label_values(&[version, os, arch, profile]).set(1);
    Ok(())
}

impl ConfigMetrics {
    pub(super) fn new(r: &Registry) -> prometheus::Result<Self> {
        let help = "Reloads of the configuration";
        let reloads = counters(r, "reloads_total", help, &["result"])?;
        Ok(ConfigMetrics {
            generation: gauge(r, "config_generation", "The configuration in force")?,
            reloaded: reloads.with_label_values(&["ok"]),
            refused: reloads.with_label_values(&["failed"]),
            successful: gauge(
                r,
                "config_last_reload_successful",
                "1 if the latest reload, or the start, took the files; 0 if it refused them",
            )?,
            taken_at: gauge(
                r,
                "config_last_reload_success_timestamp_seconds",
                "When files were last taken, in seconds since 1970",
            )?,
            hash: gauge(
                r,
                "config_hash",
                "48 bits of a hash of the files in force; differs between replicas that have others",
            )?,
        })
    }

    /// The process has started with the files whose [`digest`](crate::config::Sources::digest) this
    /// is.
    pub fn started(&self, digest: u64, now: SystemTime) {
        self.take(digest, now);
    }

    /// A reload has put them in force.
    pub fn reloaded(&self, digest: u64, now: SystemTime) {
        self.reloaded.inc();
        self.take(digest, now);
    }

    /// A reload has refused the files.
    pub fn refused(&self) {
        self.refused.inc();
        self.successful.set(0);
    }

    fn take(&self, digest: u64, now: SystemTime) {
        self.successful.set(1);
        let seconds = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        self.taken_at.set(i64::try_from(seconds).unwrap_or(i64::MAX));
        // A number of Prometheus is exact up to 53 bits.
        self.hash.set((digest >> 16) as i64);
    }
}
