//! Counts requests per client address, approximately and in fixed memory, so that a flood is
//! refused before it costs the checking of credentials.
//!
//! Exact limits, for verified callers, are in [`crate::policy::rate_limit`].

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use pingora_limits::estimator::Estimator;

use crate::config::server;
use crate::policy::rate_limit::Subject;
use crate::time::Moment;

/// Rows of the sketch. An address has one slot in each, and its count is the smallest of them.
const ROWS: usize = 4;
/// With 8 bytes per slot and one sketch for each of two intervals, 1 MiB in all.
const SLOTS: usize = 16 * 1024;

/// One for all listeners and routes.
///
/// It counts by intervals, so up to twice `requests` can pass around the boundary between two.
/// Within an interval a count-min sketch never counts too few, except for requests at the very
/// moment in which an interval begins after a pause. An address may be charged with requests of
/// others: about one for every 16,384 that arrive in the interval, fewer if traffic is uneven.
pub struct FloodGuard {
    config: server::FloodGuard,
    /// Shared with the guards that count the same.
    counts: Arc<Counts>,
}

struct Counts {
    /// For even and for odd intervals: the one not in use is already cleared for the next.
    sketches: [Estimator; 2],
    /// The number of the latest interval in which a request was counted.
    latest: AtomicU64,
}

impl FloodGuard {
    /// Takes its memory, 1 MiB, at once.
    pub fn new(config: server::FloodGuard) -> Self {
        let sketches = [(); 2].map(|()| Estimator::new(ROWS, SLOTS));
        let counts = Arc::new(Counts { sketches, latest: AtomicU64::new(0) });
        FloodGuard { config, counts }
    }

    /// A guard for `wanted` that goes on with what this one has counted, and shares it with this
    /// one. `None` if they differ in more than `enforce`.
    pub fn continued(&self, wanted: &server::FloodGuard) -> Option<FloodGuard> {
        let config = server::FloodGuard { enforce: wanted.enforce, ..self.config.clone() };
        (config == *wanted).then(|| FloodGuard { config, counts: self.counts.clone() })
    }

    /// The configuration it was made from. A reload keeps the guard if that is unchanged.
    pub fn config(&self) -> &server::FloodGuard {
        &self.config
    }

    /// Counts a request from `address`.
    ///
    /// # Errors
    /// The time until the next interval, if the address has made too many requests in this one.
    /// Refused requests count too, but only in this interval.
    pub fn observe(&self, address: IpAddr, now: Moment) -> Result<(), Duration> {
        let per = u64::try_from(self.config.per.as_nanos()).unwrap_or(u64::MAX);
        let interval = now.as_nanos() / per;
        self.counts.begin(interval);
        let seen = self.counts.sketch(interval).incr(Subject::address(address), 1);
        let within = u32::try_from(seen).is_ok_and(|seen| seen <= self.config.requests);
        if within { Ok(()) } else { Err(Duration::from_nanos(per - now.as_nanos() % per)) }
    }
}

impl Counts {
    /// The first request of an interval, and only that one, clears the sketch for the next; after a
    /// pause, its own as well.
    fn begin(&self, interval: u64) {
        // Relaxed: no other data is published with it. A request counted before the clearing ends
        // may lose its count, which happens only to one that is late by a whole interval.
        let latest = self.latest.load(Ordering::Relaxed);
        let swap = |next| {
            let (ok, failed) = (Ordering::Relaxed, Ordering::Relaxed);
            self.latest.compare_exchange(latest, next, ok, failed)
        };
        if interval > latest && swap(interval).is_ok() {
            if interval - latest > 1 {
                self.sketch(interval).reset();
            }
            self.sketch(interval + 1).reset();
        }
    }

    fn sketch(&self, interval: u64) -> &Estimator {
        &self.sketches[(interval % 2) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::dry_run::Enforce;
    use crate::units::Timespan;

    const PER: u64 = 10;

    fn guard(requests: u32) -> FloodGuard {
        let enforce = Enforce::Yes;
        FloodGuard::new(server::FloodGuard { requests, per: Timespan::from_secs(PER), enforce })
    }

    fn at(seconds: u64) -> Moment {
        Moment::ZERO + Duration::from_secs(seconds)
    }

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn an_address_may_make_so_many_requests_and_no_more() {
        let guard = guard(3);
        let observed: Vec<_> = (0..5).map(|n| guard.observe(address("192.0.2.1"), at(n))).collect();
        let refused = |seconds| Err(Duration::from_secs(seconds));
        assert_eq!(observed, [Ok(()), Ok(()), Ok(()), refused(7), refused(6)]);
    }

    #[test]
    fn every_interval_begins_at_nothing() {
        let guard = guard(1);
        // Consecutive intervals, and pauses of an even and an odd number.
        for interval in [0, 1, 2, 3, 5, 8, 9, 12] {
            let observe = || guard.observe(address("192.0.2.1"), at(interval * PER));
            assert_eq!((observe(), observe().is_err()), (Ok(()), true), "{interval}");
        }
    }

    #[test]
    fn a_flood_from_one_address_costs_another_nothing() {
        let guard = guard(3);
        (0..1000).for_each(|_| _ = guard.observe(address("192.0.2.1"), at(0)));
        assert!(guard.observe(address("192.0.2.2"), at(0)).is_ok());
    }

    #[test]
    fn an_ipv6_network_is_one_client() {
        let guard = guard(1);
        assert!(guard.observe(address("2001:db8::1"), at(0)).is_ok());
        assert!(guard.observe(address("2001:db8::ffff:1"), at(0)).is_err());
        assert!(guard.observe(address("2001:db8:0:1::1"), at(0)).is_ok());
    }

    #[test]
    fn many_quiet_addresses_are_not_taken_for_a_flood() {
        let guard = guard(50);
        let observe = |n: &u32| guard.observe(IpAddr::from(n.to_be_bytes()), at(0)).is_err();
        assert_eq!((0..100_000_u32).filter(observe).count(), 0);
    }
}
