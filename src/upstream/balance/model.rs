//! Balancers in virtual time: servers with a few slots and a queue each, requests that come by chance.
//!
//! The requests go through [`Upstream::pick`](super::super::Upstream::pick), as those of the gateway do.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use crate::time::Moment;
use crate::upstream::tests::{ask, at, port, upstream};
use crate::upstream::{Ended, Ticket, Upstream};

const SERVERS: usize = 10;
const SLOTS: usize = 4;

/// What a server does with a request.
#[derive(Clone, Copy)]
struct Service {
    takes: f64,
    fails: bool,
}

struct Server {
    service: Service,
    busy: usize,
    waiting: VecDeque<Job>,
}

struct Job {
    ticket: Ticket,
    arrived: u64,
}

/// What came of a simulation.
struct Outcome {
    /// Of the requests that came after the first five seconds, by server.
    requests: Vec<usize>,
    /// From arrival to end, in milliseconds, sorted.
    latencies: Vec<f64>,
}

impl Outcome {
    fn share(&self, server: usize) -> f64 {
        self.requests[server] as f64 / self.requests.iter().sum::<usize>() as f64
    }

    fn p99(&self) -> f64 {
        self.latencies[self.latencies.len() * 99 / 100]
    }
}

/// Sends `per_second` requests for `seconds`, with times between them and times of service that are
/// exponentially distributed.
fn simulate(balance: &str, services: [Service; SERVERS], per_second: f64, seconds: u64) -> Outcome {
    let urls: Vec<_> = (0..SERVERS).map(|n| format!("http://127.0.0.1:{}", n + 1)).collect();
    let upstream: Upstream = upstream(&format!("{{endpoints: {urls:?}, balance: {balance}}}"));
    let mut random = fastrand::Rng::with_seed(1);
    let mut exponential = |mean: f64| -(1.0 - random.f64()).ln() * mean;
    let mut servers: Vec<Server> = services
        .iter()
        .map(|service| Server { service: *service, busy: 0, waiting: VecDeque::new() })
        .collect();
    // The ends of services: when, at which server.
    let mut ends: BinaryHeap<Reverse<(u64, usize)>> = BinaryHeap::new();
    let mut served: Vec<Vec<(u64, Job)>> = (0..SERVERS).map(|_| Vec::new()).collect();
    let mut outcome = Outcome { requests: vec![0; SERVERS], latencies: Vec::new() };
    let (end, warm) = (at(seconds).as_nanos(), at(5).as_nanos());
    let mut arrival = 0_u64;
    while arrival < end {
        // Everything that ends before the next arrival.
        while let Some(Reverse((when, place))) = ends.peek().copied()
            && when <= arrival
        {
            ends.pop();
            let server = &mut servers[place];
            let of = served[place].iter().position(|(until, _)| *until == when).expect("served");
            let (_, mut job) = served[place].swap_remove(of);
            let took = when - job.arrived;
            let ended =
                Ended { failed: server.service.fails, latency: Some(Duration::from_nanos(took)) };
            job.ticket.ended(ended, Moment::from_nanos(when));
            if job.arrived >= warm {
                outcome.latencies.push(took as f64 / 1e6);
            }
            server.busy -= 1;
            if let Some(next) = server.waiting.pop_front() {
                server.busy += 1;
                let until = when + nanos(exponential(server.service.takes));
                ends.push(Reverse((until, place)));
                served[place].push((until, next));
            }
        }
        let now = Moment::from_nanos(arrival);
        let ticket = upstream.pick(&ask(&[], None, now)).expect("an endpoint");
        let place = usize::from(port(ticket.endpoint())) - 1;
        outcome.requests[place] += usize::from(arrival >= warm);
        let (server, job) = (&mut servers[place], Job { ticket, arrived: arrival });
        if server.busy < SLOTS {
            server.busy += 1;
            let until = arrival + nanos(exponential(server.service.takes));
            ends.push(Reverse((until, place)));
            served[place].push((until, job));
        } else {
            server.waiting.push_back(job);
        }
        arrival += nanos(exponential(1.0 / per_second)).max(1);
    }
    // What is still there has taken at least this long.
    let waiting = servers.iter().flat_map(|server| &server.waiting);
    let left = served.iter().flatten().map(|(_, job)| job).chain(waiting);
    let since = left.filter(|job| job.arrived >= warm).map(|job| (end - job.arrived) as f64 / 1e6);
    outcome.latencies.extend(since);
    outcome.latencies.sort_by(f64::total_cmp);
    outcome
}

fn nanos(seconds: f64) -> u64 {
    (seconds * 1e9) as u64
}

const GOOD: Service = Service { takes: 0.010, fails: false };

#[test]
fn an_endpoint_that_fails_fast_does_not_attract_requests() {
    let mut services = [GOOD; SERVERS];
    services[3] = Service { takes: 0.001, fails: true };
    for balance in ["least_request", "peak_ewma"] {
        let share = simulate(balance, services, 2000.0, 20).share(3);
        assert!(share <= 0.02, "{balance}: {share}");
    }
    // What the others do, so that the model is seen to tell the difference.
    for balance in ["round_robin", "random"] {
        let share = simulate(balance, services, 2000.0, 20).share(3);
        assert!(share > 0.08, "{balance}: {share}");
    }
}

#[test]
fn slow_endpoints_do_not_collect_a_queue() {
    let mut services = [GOOD; SERVERS];
    services[1].takes = 0.100;
    services[2].takes = 0.100;
    // 60 % of what the ten can do together.
    let rate = 0.6 * (8.0 * 400.0 + 2.0 * 40.0);
    for balance in ["least_request", "peak_ewma"] {
        let p99 = simulate(balance, services, rate, 20).p99();
        assert!(p99 < 400.0, "{balance}: {p99}");
    }
    let naive = simulate("round_robin", services, rate, 20).p99();
    assert!(naive > 1000.0, "{naive}");
}

#[test]
fn equal_endpoints_get_equal_shares() {
    for balance in ["least_request", "peak_ewma", "round_robin", "random"] {
        let outcome = simulate(balance, [GOOD; SERVERS], 2800.0, 20);
        for server in 0..SERVERS {
            let share = outcome.share(server);
            assert!((0.08..0.12).contains(&share), "{balance}: {share}");
        }
        // 70 % of what they can do.
        assert!(outcome.p99() < 100.0, "{balance}: {}", outcome.p99());
    }
}
