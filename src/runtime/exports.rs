//! Where a generation sends its spans and the metrics. A reload goes on with what it does not change; what
//! it changes ends by itself, off the request path.
//!
//! ```text
//! spans    n's exporter ──> n + 1 sends elsewhere ──> n's last request ends ──> what waits is sent ──> over
//! metrics  n's push     ──> n + 1 sends elsewhere ──> one last export ──> over
//! ```
//!
//! A request hands its spans to the generation it began with, so none of them is in between.
//! [`Exporting`] has all of this that is not over, and the shutdown waits for it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use prometheus::proto::MetricFamily;

use crate::config::code::Code;
use crate::config::load::KeyPath;
use crate::config::otlp::Otlp;
use crate::config::otlp::telemetry::Telemetry;
use crate::config::{Config, Problem};
use crate::observe::metrics::Metrics;
use crate::observe::otlp::Exporting;
use crate::observe::otlp::push::Push;
use crate::observe::otlp::target::{Target, Unusable};
use crate::observe::trace::Tracer;
use crate::observe::trace::export::Exporter;

/// Where one generation sends its spans and the metrics.
#[derive(Default)]
pub struct Exports {
    /// Samples the generation's requests, and takes their spans.
    pub tracer: Tracer,
    /// `None` if no metrics are sent.
    push: Option<Arc<Push>>,
    /// About variables that cannot be read.
    warnings: Vec<String>,
}

impl Exports {
    /// Those that `telemetry` asks for; what `before` has of them goes on. Nothing is sent yet.
    ///
    /// # Errors
    /// Collectors that cannot be exported to.
    pub(super) fn compile(
        config: &Config,
        telemetry: Telemetry,
        before: Option<&Exports>,
        metrics: &Metrics,
    ) -> Result<Self, Vec<Problem>> {
        let Telemetry { traces, metrics: pushed, interval, resource, warnings } = telemetry;
        let exporter = traces.map(|to| {
            let target = Target::read(&to, &resource)?;
            let kept = before.and_then(|before| before.tracer.exporter());
            match kept.filter(|kept| kept.target == target) {
                Some(kept) => Ok(kept.clone()),
                None => Exporter::new(target, metrics).map(Arc::new),
            }
        });
        let push = pushed.map(|to| {
            let target = Target::read(&to, &resource)?;
            let kept = before.and_then(|before| before.push.as_ref());
            match kept.filter(|kept| kept.target == target && kept.interval == interval) {
                Some(kept) => Ok(kept.clone()),
                None => Push::new(target, interval).map(Arc::new),
            }
        });
        match (exporter.transpose(), push.transpose()) {
            (Ok(exporter), Ok(push)) => {
                Ok(Exports { tracer: Tracer::new(exporter, config.traces.sample), push, warnings })
            }
            (exporter, push) => {
                let of = |section: &str, own: &Otlp, why: Option<Unusable>| {
                    why.map(|why| problem(config, section, own, &why))
                };
                let traces = of("traces", &config.traces.otlp, exporter.err());
                let metrics = of("metrics", &config.metrics.otlp, push.err());
                Err(traces.into_iter().chain(metrics).collect())
            }
        }
    }

    /// Makes sure that there is a thread to export from, if anything is exported.
    ///
    /// # Errors
    /// The system's limit on threads.
    pub(super) fn prepare(&self, exporting: &Exporting) -> io::Result<()> {
        if self.tracer.exporter().is_some() || self.push.is_some() {
            exporting.thread()?;
        }
        Ok(())
    }

    /// Starts what is new, now that the generation is in force, and ends what `before` has sent that this one
    /// does not. `gather` copies the metrics.
    pub(super) fn begin(
        &self,
        before: Option<&Exports>,
        exporting: &Exporting,
        metrics: &Metrics,
        gather: impl Fn() -> Vec<MetricFamily> + Send + Sync + 'static,
    ) {
        if before.is_none_or(|before| before.warnings != self.warnings) {
            self.warnings.iter().for_each(|warning| log::warn!("{warning}"));
        }
        if let Some(push) = before.and_then(|before| before.push.as_ref())
            && self.push.as_ref().is_none_or(|own| !Arc::ptr_eq(own, push))
        {
            push.end();
        }
        let exporter = self.tracer.exporter().map(|exporter| exporter.start(exporting));
        let push = self.push.as_ref().map(|push| {
            // After a reload it shows at once whether the collector takes them.
            let wait = if before.is_some() { Duration::ZERO } else { *push.interval };
            push.start(exporting, wait, metrics.metric_exports.clone(), gather)
        });
        for failed in [exporter, push].into_iter().flatten().filter_map(Result::err) {
            // The thread was there in `prepare`.
            log::error!("otlp: no thread to export from: {failed}");
        }
    }

    /// A line for each signal that is sent.
    pub(super) fn lines(&self) -> Vec<String> {
        self.changes(&Exports::default())
    }

    /// A line for each signal that is sent in another way than in `before`.
    pub(super) fn changes(&self, before: &Exports) -> Vec<String> {
        let traces = match (before.tracer.exporter(), self.tracer.exporter()) {
            (None, None) => None,
            (Some(old), Some(new)) if Arc::ptr_eq(old, new) => None,
            (_, Some(new)) => Some(format!("traces to {}", new.target)),
            (Some(old), None) => Some(format!("traces no longer to {}", old.target)),
        };
        let metrics = match (&before.push, &self.push) {
            (None, None) => None,
            (Some(old), Some(new)) if Arc::ptr_eq(old, new) => None,
            (_, Some(new)) => Some(format!("metrics to {} every {}", new.target, new.interval)),
            (Some(old), None) => Some(format!("metrics no longer to {}", old.target)),
        };
        traces.into_iter().chain(metrics).collect()
    }
}

/// At the `ca` that counts, or if the environment names it, where it could be written.
fn problem(config: &Config, section: &str, own: &Otlp, why: &Unusable) -> Problem {
    let path = match (&own.ca, &config.otlp.ca) {
        (Some(_), _) => KeyPath::root().key(section).key("otlp").key("ca"),
        (None, Some(_)) => KeyPath::root().key("otlp").key("ca"),
        (None, None) => KeyPath::root().key("otlp"),
    };
    let problem = Problem::new(Code::CollectorUnusable, path, why.to_string());
    match why {
        Unusable::Unreadable { .. } => problem.remedied(
            "check the path, which is relative to the directory that the gateway is started in, and \
             that the gateway's user may read the file",
        ),
        Unusable::NoAuthorities { .. } => {
            problem.remedied("name a file with a line `-----BEGIN CERTIFICATE-----`")
        }
        Unusable::Client(_) => problem,
    }
}
