//! A fleet in virtual time: what share of the requests an endpoint gets that fails at once.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::*;
use crate::policy::outcome::Outcome;

const COUNT: usize = 10;
const OK_AFTER: Duration = Duration::from_millis(20);
const FAILED_AFTER: Duration = Duration::from_millis(1);

/// 500 requests a second for as long as asked.
struct Fleet {
    upstream: Upstream,
    now: Moment,
    /// When attempts end, and how.
    under_way: BinaryHeap<Reverse<(Moment, usize)>>,
    tickets: Vec<Option<(Ticket, Outcome)>>,
    /// By port.
    sent: [u32; COUNT],
    random: fastrand::Rng,
}

impl Fleet {
    fn new(more: &str) -> Self {
        let names: Vec<_> = (1..=COUNT).map(|port| format!("http://127.0.0.1:{port}")).collect();
        Fleet {
            upstream: upstream(&format!("{{endpoints: {names:?}, {more}}}")),
            now: at(1),
            under_way: BinaryHeap::new(),
            tickets: Vec::new(),
            sent: [0; COUNT],
            random: fastrand::Rng::with_seed(7),
        }
    }

    /// Serves for so long, while the endpoints up to this port fail.
    fn serve(&mut self, seconds: u64, failing: usize) {
        self.sent = [0; COUNT];
        let end = self.now + Duration::from_secs(seconds);
        while self.now < end {
            // Poisson's gaps, in microseconds.
            let gap = -(1.0 - self.random.f64()).ln() * 2_000.0;
            self.now = self.now + Duration::from_micros(gap as u64);
            while let Some(Reverse((due, place))) = self.under_way.peek().copied()
                && due <= self.now
            {
                self.under_way.pop();
                let (mut ticket, outcome) = self.tickets[place].take().expect("under way");
                self.upstream.ended(&mut ticket, outcome, Some(OK_AFTER), due);
            }
            let ask = Ask { random: self.random.u64(..), ..ask(&[], None, self.now) };
            let ticket = self.upstream.pick(&ask).expect("an endpoint");
            let port = usize::from(port(ticket.endpoint()));
            self.sent[port - 1] += 1;
            let (outcome, after) = match port <= failing {
                true => (Outcome::Response(503), FAILED_AFTER),
                false => (Outcome::Response(200), OK_AFTER),
            };
            self.under_way.push(Reverse((self.now + after, self.tickets.len())));
            self.tickets.push(Some((ticket, outcome)));
        }
    }

    /// The share of the first endpoint.
    fn share(&self) -> f64 {
        f64::from(self.sent[0]) / f64::from(self.sent.iter().sum::<u32>())
    }

    fn used(&self) -> usize {
        self.sent.iter().filter(|sent| **sent > 50).count()
    }
}

const BALANCERS: [&str; 4] = ["least_request", "round_robin", "random", "peak_ewma"];

#[test]
fn one_of_ten_that_fails_fast_gets_two_percent_at_most_after_five_seconds() {
    for balance in BALANCERS {
        let mut fleet = Fleet::new(&format!("balance: {balance}"));
        fleet.serve(5, 1);
        fleet.serve(60, 1);
        assert!(fleet.share() <= 0.02, "{balance}: {}", fleet.share());
    }
}

/// The balancers that know of load have a penalty for failures; the others need ejection.
#[test]
fn without_ejection_a_balancer_that_does_not_know_of_failures_loses_a_tenth() {
    for (balance, knows) in BALANCERS.into_iter().zip([true, false, false, true]) {
        let mut fleet = Fleet::new(&format!("balance: {balance}, ejection: off"));
        fleet.serve(5, 1);
        fleet.serve(60, 1);
        let share = fleet.share();
        assert!(if knows { share <= 0.02 } else { share > 0.08 }, "{balance}: {share}");
    }
}

#[test]
fn when_all_fail_most_are_still_used_and_all_are_after_the_recovery() {
    for balance in BALANCERS {
        let mut fleet = Fleet::new(&format!("balance: {balance}"));
        fleet.serve(60, COUNT);
        assert!(fleet.used() >= 7, "{balance}: {:?}", fleet.sent);
        assert_eq!(fleet.upstream.set().counts.ejected, 3, "{balance}");
        // The longest ejection of these 60 s is over after another 96 s.
        fleet.serve(100, 0);
        assert_eq!(fleet.upstream.set().counts.ejected, 0, "{balance}");
        fleet.serve(20, 0);
        assert_eq!(fleet.used(), COUNT, "{balance}: {:?}", fleet.sent);
    }
}

#[test]
fn an_endpoint_that_recovers_has_its_share_after_its_probe_and_slow_start() {
    let mut fleet = Fleet::new("balance: random, slow_start: 10s");
    fleet.serve(8, 1);
    fleet.serve(5, 0);
    assert!(fleet.share() < 0.05, "{}", fleet.share());
    fleet.serve(15, 0);
    fleet.serve(20, 0);
    assert!((fleet.share() - 0.1).abs() < 0.02, "{}", fleet.share());
}
