//! No interleaving gives two requests the probe of an endpoint, loses the next one, or leaves a failure
//! in the breaker that has led to an ejection.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use portcullis_loom::concurrently;
use portcullis_loom::policy::breaker::{Breaker, State};
use portcullis_loom::time::Moment;
use portcullis_loom::upstream::Endpoint;

const NOW: Moment = Moment::ZERO;

/// Every schedule with up to three switches in mid-step.
fn bounded(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(model);
}

/// One that may be probed from the second moment on.
fn ejected() -> (Arc<Endpoint>, Moment) {
    let endpoint = Arc::new(Endpoint::default());
    endpoint.eject(None, NOW);
    (endpoint, NOW + Duration::from_secs(10))
}

#[test]
fn of_requests_at_once_one_is_the_probe_and_its_drop_offers_another() {
    bounded(|| {
        let (endpoint, now) = ejected();
        // Of `std`: no part of the model.
        let (out, probes) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        concurrently((0..2).map(|_| {
            let (endpoint, out, probes) = (endpoint.clone(), out.clone(), probes.clone());
            move || {
                let Some(epoch) = endpoint.probe(now) else { return };
                assert_eq!(out.fetch_add(1, Ordering::Relaxed), 0, "two probes at once");
                probes.fetch_add(1, Ordering::Relaxed);
                loom::thread::yield_now();
                out.fetch_sub(1, Ordering::Relaxed);
                endpoint.drop_probe(epoch);
            }
        }));
        assert!(probes.load(Ordering::Relaxed) >= 1);
        assert!(endpoint.probe(now).is_some(), "the next probe was lost");
        assert!(endpoint.probe(now).is_none());
    });
}

#[test]
fn a_failure_that_led_to_an_ejection_is_in_no_order_left_in_the_breaker() {
    bounded(|| {
        let endpoint = Arc::new(Endpoint::default());
        let yaml = "{consecutive: {failures: 5}}";
        let breaker = Arc::new(Breaker::new(serde_yaml::from_str(yaml).expect("valid"), NOW));
        let mark = endpoint.failed().expect("not late");
        let (one, counts) = (endpoint.clone(), breaker.clone());
        let count = loom::thread::spawn(move || one.count(mark, &counts, NOW));
        endpoint.eject(Some(&breaker), NOW);
        count.join().expect("no panic");
        assert_eq!(breaker.state(NOW), State::Closed { failures: 0 });
    });
}
