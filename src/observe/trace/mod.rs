//! Distributed tracing: which requests are traced, and how their spans get to a collector.
//!
//! Every request has a [`Trace`], its own or its caller's, and forwards it. That is cheap, and
//! happens whether or not anything is exported. Spans are made only when a request has ended, and
//! only if it was sampled. [`span`] says what they contain, `export` hands them to the exporting
//! thread, and `proxy::report::spans` collects the facts of a request.

pub mod context;
pub mod export;
pub mod span;

use std::sync::Arc;

use http::HeaderMap;

use self::context::{SpanId, TraceId, TraceParent};
use self::export::Exporter;
use self::span::Request;
use crate::units::Percent;

/// The bits of a trace id that decide about sampling: those that are random in every way of
/// generating ids.
const RANDOM_BITS: u32 = 56;

/// A request's place in its trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trace {
    /// The request's own span, which its child spans name as their parent.
    own: TraceParent,
    /// The caller's span.
    pub parent: Option<SpanId>,
    /// Its spans are exported when it has ended.
    pub recorded: bool,
}

impl Trace {
    /// A new trace that is not recorded.
    pub fn unsampled() -> Self {
        let own = TraceParent::new(TraceId::random(), SpanId::random(), false);
        Trace { own, parent: None, recorded: false }
    }

    /// The caller's, or a new one.
    pub fn id(&self) -> TraceId {
        self.own.trace
    }

    /// The request's own span, whose parent is the caller's.
    pub fn span(&self) -> SpanId {
        self.own.span
    }

    /// The parent that an attempt with this span sends to the upstream.
    pub fn parent_for(&self, attempt: SpanId) -> TraceParent {
        self.own.with_span(attempt)
    }
}

/// Decides which requests are sampled, and takes their spans. One per generation; those that send to the
/// same target share the exporter.
#[derive(Default)]
pub struct Tracer {
    /// Trace ids whose random bits are below this are sampled; zero if nothing is exported.
    threshold: u128,
    exporter: Option<Arc<Exporter>>,
}

impl Tracer {
    /// Without an `exporter` nothing is sampled or exported.
    pub fn new(exporter: Option<Arc<Exporter>>, sample: Percent) -> Self {
        Tracer { threshold: exporter.as_ref().map_or(0, |_| threshold(sample)), exporter }
    }

    /// `None` if nothing is exported.
    pub fn exporter(&self) -> Option<&Arc<Exporter>> {
        self.exporter.as_ref()
    }

    /// The trace of a request with these headers. The caller's sampling decision is followed.
    pub fn begin(&self, headers: &HeaderMap) -> Trace {
        let exports = self.exporter.is_some();
        match TraceParent::of(headers) {
            Some(caller) => Trace {
                own: caller.with_span(SpanId::random()),
                parent: Some(caller.span),
                recorded: exports && caller.is_sampled(),
            },
            None => {
                let id = TraceId::random();
                let sampled = id.as_u128() & ((1 << RANDOM_BITS) - 1) < self.threshold;
                let own = TraceParent::new(id, SpanId::random(), sampled);
                Trace { own, parent: None, recorded: sampled }
            }
        }
    }

    /// Hands over a request that has ended. Never waits: if the queue is full, its spans are
    /// dropped and counted.
    pub fn submit(&self, request: Box<Request>) {
        if let Some(exporter) = &self.exporter {
            exporter.submit(request);
        }
    }
}

fn threshold(sample: Percent) -> u128 {
    // In 0..=2^56, where an `f64` is exact enough for every possible fraction.
    (sample.fraction() * (1_u64 << RANDOM_BITS) as f64) as u128
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const SAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    const UNSAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";

    fn off() -> Tracer {
        Tracer::default()
    }

    fn on(sample: &str) -> Tracer {
        let exporter = Arc::new(Exporter::discarding());
        Tracer::new(Some(exporter), sample.parse().expect("a percentage"))
    }

    fn begin(tracer: &Tracer, traceparent: Option<&'static str>) -> Trace {
        let value = traceparent.map(HeaderValue::from_static);
        tracer.begin(&value.map(|value| (context::TRACEPARENT, value)).into_iter().collect())
    }

    fn sent(trace: &Trace) -> String {
        let header = trace.parent_for(SpanId::random()).to_header();
        header.to_str().expect("text").to_owned()
    }

    #[test]
    fn a_callers_decision_is_obeyed() {
        assert!(begin(&on("0%"), Some(SAMPLED)).recorded);
        assert!(!begin(&on("100%"), Some(UNSAMPLED)).recorded);
    }

    #[test]
    fn a_trace_is_continued_under_a_span_of_its_own() {
        let trace = begin(&off(), Some(SAMPLED));
        assert_eq!(trace.id().to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(trace.parent.map(SpanId::as_u64), Some(0x00f0_67aa_0ba9_02b7));
        assert_ne!(Some(trace.span()), trace.parent);
    }

    #[test]
    fn a_malformed_parent_begins_a_new_trace() {
        let malformed = "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01";
        let trace = begin(&off(), Some(malformed));
        assert_ne!(trace.id().to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(trace.parent, None);
    }

    #[test]
    fn without_a_collector_a_callers_flag_is_passed_on_and_nobody_is_sampled_anew() {
        let continued = begin(&off(), Some(SAMPLED));
        assert!(!continued.recorded && sent(&continued).ends_with("-01"));
        let new = begin(&off(), None);
        assert!(!new.recorded && sent(&new).ends_with("-00"));
    }

    #[test]
    fn the_share_of_samples_is_the_configured_one() {
        let share = |sample: &str| {
            let tracer = on(sample);
            (0..10_000).filter(|_| begin(&tracer, None).recorded).count()
        };
        assert_eq!(share("0%"), 0);
        assert_eq!(share("100%"), 10_000);
        // Wide enough for ten standard deviations.
        assert!((2_000..=3_000).contains(&share("25%")));
    }

    #[test]
    fn what_is_recorded_is_sent_on_as_sampled() {
        for sample in ["0%", "100%"] {
            let trace = begin(&on(sample), None);
            assert_eq!(sent(&trace).ends_with("-01"), trace.recorded);
        }
    }
}
