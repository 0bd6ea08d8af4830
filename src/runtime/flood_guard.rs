//! Requests per client address, roughly and in fixed memory: what holds off a flood before it
//! costs the checking of credentials.
//!
//! Not a policy: the sketch underneath reads the clock by itself. Exact limits, by whoever the
//! credentials prove, are in [`crate::policy::rate_limit`].

use std::net::IpAddr;
use std::time::Duration;

use pingora_limits::rate::Rate;

use crate::config::server;
use crate::policy::rate_limit::Subject;

/// Rows of the sketch; an address is counted in one slot of each, and the least of them is taken.
const ROWS: usize = 4;
/// With two intervals of 8 bytes a slot, 1 MiB in all.
const SLOTS: usize = 16 * 1024;

/// One for all listeners and routes.
///
/// It counts by intervals, so up to twice `requests` pass around the seam of two, and requests of
/// the very moment in which one begins may go uncounted. Within an interval a count-min sketch
/// never counts too little; an address may be charged with others' requests, by about one for
/// every 16,384 that arrive in it, less where traffic is uneven.
pub struct FloodGuard {
    config: server::FloodGuard,
    rate: Rate,
}

impl FloodGuard {
    pub fn new(config: server::FloodGuard) -> Self {
        let rate = Rate::new_with_estimator_config(*config.per, ROWS, SLOTS);
        FloodGuard { config, rate }
    }

    /// What it was made from. A reload keeps a guard whose configuration is unchanged.
    pub fn config(&self) -> &server::FloodGuard {
        &self.config
    }

    /// Counts a request from `address`.
    ///
    /// # Errors
    /// The address has made too many in this interval; with the time after which the next one
    /// has begun for certain. Requests that are refused count too, but only in this interval.
    pub fn observe(&self, address: IpAddr) -> Result<(), Duration> {
        let seen = self.rate.observe(&Subject::address(address), 1);
        let within = u32::try_from(seen).is_ok_and(|seen| seen <= self.config.requests);
        if within { Ok(()) } else { Err(*self.config.per) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Timespan;

    /// An interval that no test outlasts.
    fn guard(requests: u32) -> FloodGuard {
        FloodGuard::new(server::FloodGuard { requests, per: Timespan::from_secs(3600) })
    }

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn an_address_may_make_so_many_requests_and_no_more() {
        let guard = guard(3);
        let observed: Vec<_> = (0..5).map(|_| guard.observe(address("192.0.2.1"))).collect();
        let refused = Err(Duration::from_secs(3600));
        assert_eq!(observed, [Ok(()), Ok(()), Ok(()), refused, refused]);
    }

    #[test]
    fn a_flood_from_one_address_costs_another_nothing() {
        let guard = guard(3);
        (0..1000).for_each(|_| _ = guard.observe(address("192.0.2.1")));
        assert!(guard.observe(address("192.0.2.2")).is_ok());
    }

    #[test]
    fn an_ipv6_network_is_one_client() {
        let guard = guard(1);
        assert!(guard.observe(address("2001:db8::1")).is_ok());
        assert!(guard.observe(address("2001:db8::ffff:1")).is_err());
        assert!(guard.observe(address("2001:db8:0:1::1")).is_ok());
    }

    #[test]
    fn many_quiet_addresses_are_not_taken_for_a_flood() {
        let guard = guard(50);
        let refused =
            (0..100_000_u32).filter(|n| guard.observe(IpAddr::from(n.to_be_bytes())).is_err());
        assert_eq!(refused.count(), 0);
    }
}
