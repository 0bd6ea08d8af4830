//! A dry run with a queue and its twin, which enforces, get the same traffic: one counts what the other
//! refuses.

use std::collections::BTreeMap;
use std::task::{Poll, Waker};

use proptest::prelude::*;

use super::super::{Bulkhead, Config, InVain, Rehearsal, Slot, Ticket};
use super::*;

/// In microseconds, all of them even but the last.
#[derive(Debug, Clone)]
struct Arrival {
    at: u64,
    takes: u64,
    /// After its arrival.
    deadline: Option<u64>,
    /// The same; less than it takes.
    leaves: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Ends,
    Expires,
    Leaves,
    Arrives,
}

type Steps = BinaryHeap<Reverse<(u64, Step, usize)>>;
type Counts = BTreeMap<&'static str, u64>;

const FULL: &str = "bulkhead_full";
/// After everything.
const END: u64 = 1_000_000_000;

fn at(micros: u64) -> Moment {
    Moment::ZERO + Duration::from_micros(micros)
}

fn config(text: &str, enforce: bool) -> Config {
    serde_yaml::from_str(&format!("{{{text}, enforce: {enforce}}}")).expect("valid")
}

fn steps(arrivals: &[Arrival]) -> Steps {
    let arrives = |(id, arrival): (usize, &Arrival)| Reverse((arrival.at, Step::Arrives, id));
    arrivals.iter().enumerate().map(arrives).collect()
}

/// A request of the twin.
enum Twin {
    Waits(Ticket, &'static str),
    Holds(Slot),
}

/// What a bulkhead refuses that enforces.
fn enforced(text: &str, arrivals: &[Arrival]) -> Counts {
    let bulkhead = Bulkhead::new(&config(text, true));
    let mut steps = steps(arrivals);
    let mut requests: BTreeMap<usize, Twin> = BTreeMap::new();
    let mut refused = Counts::new();
    while let Some(Reverse((time, step, id))) = steps.pop() {
        let (now, arrival) = (at(time), &arrivals[id]);
        match step {
            Step::Arrives => {
                let request = bulkhead.acquire(now).map(Twin::Holds).or_else(|_| {
                    let deadline = arrival.deadline.map(|deadline| at(time + deadline));
                    let ticket = bulkhead.wait(deadline, now)?;
                    let until = ticket.until();
                    let is_own = deadline.is_some_and(|deadline| deadline <= until);
                    let until = until.since(Moment::ZERO).as_micros() as u64;
                    steps.push(Reverse((until, Step::Expires, id)));
                    let vain = if is_own { Vain::Deadline } else { Vain::Wait };
                    Ok::<_, Full>(Twin::Waits(ticket, vain.code()))
                });
                match request {
                    Err(_) => *refused.entry(FULL).or_default() += 1,
                    Ok(request) => {
                        if matches!(request, Twin::Holds(_)) {
                            steps.push(Reverse((time + arrival.takes, Step::Ends, id)));
                        }
                        requests.insert(id, request);
                        let leaves = arrival.leaves.map(|leaves| time + leaves);
                        steps.extend(leaves.map(|leaves| Reverse((leaves, Step::Leaves, id))));
                    }
                }
            }
            Step::Ends | Step::Leaves => {
                if let Some(Twin::Holds(slot)) = requests.remove(&id) {
                    slot.release(now);
                }
            }
            Step::Expires => {
                if let Some(Twin::Waits(_, code)) = requests.get(&id) {
                    *refused.entry(code).or_default() += 1;
                    requests.remove(&id);
                }
            }
        }
        let ids: Vec<_> = requests.keys().copied().collect();
        for id in ids {
            let Some(Twin::Waits(ticket, own)) = requests.get_mut(&id) else { continue };
            let (own, polled) = (*own, ticket.poll(Waker::noop()));
            match polled {
                Poll::Pending => {}
                Poll::Ready(Ok(slot)) => {
                    requests.insert(id, Twin::Holds(slot));
                    steps.push(Reverse((time + arrivals[id].takes, Step::Ends, id)));
                }
                Poll::Ready(Err(why)) => {
                    let code = if why == InVain::Expired { own } else { Vain::Wait.code() };
                    *refused.entry(code).or_default() += 1;
                    requests.remove(&id);
                }
            }
        }
    }
    refused
}

/// What a dry run counts of the same.
fn rehearsed(text: &str, arrivals: &[Arrival]) -> Counts {
    let bulkhead = Bulkhead::new(&config(text, false));
    let mut steps = steps(arrivals);
    let mut requests: BTreeMap<usize, Rehearsal> = BTreeMap::new();
    let mut refused = Counts::new();
    while let Some(Reverse((time, step, id))) = steps.pop() {
        let (now, arrival) = (at(time), &arrivals[id]);
        let over = match step {
            Step::Arrives => {
                let deadline = arrival.deadline.map(|deadline| at(time + deadline));
                match bulkhead.rehearse(deadline, now) {
                    Err(Full) => *refused.entry(FULL).or_default() += 1,
                    Ok(request) => drop(requests.insert(id, request)),
                }
                let end = match arrival.leaves {
                    Some(leaves) => (time + leaves, Step::Leaves, id),
                    None => (time + arrival.takes, Step::Ends, id),
                };
                steps.push(Reverse(end));
                continue;
            }
            Step::Ends | Step::Expires => Over::Served,
            Step::Leaves => Over::Left,
        };
        let vain = requests.remove(&id).and_then(|request| request.end(over, now));
        if let Some(vain) = vain {
            *refused.entry(vain.code()).or_default() += 1;
        }
    }
    let Late { wait, deadline } = bulkhead.late_refusals(at(END));
    for (vain, count) in [(Vain::Wait, wait), (Vain::Deadline, deadline)] {
        if count > 0 {
            *refused.entry(vain.code()).or_default() += count;
        }
    }
    assert_eq!((bulkhead.in_flight(), bulkhead.late_refusals(at(END))), (0, Late::default()));
    refused
}

fn arrivals(leave: bool) -> impl Strategy<Value = Vec<Arrival>> {
    let even = |range: std::ops::Range<u64>| range.prop_map(|n| n * 2);
    let one = (
        even(0..3_000),
        even(1..10_000),
        proptest::option::weighted(0.3, even(1..20_000)),
        proptest::option::weighted(0.2, 0.0..1.0),
    );
    proptest::collection::vec(one, 1..120).prop_map(move |all| {
        let mut time = 0;
        let arrival = |(gap, takes, deadline, leaves): (u64, u64, Option<u64>, Option<f64>)| {
            time += gap;
            let leaves =
                leaves.filter(|_| leave).map(|share| (takes as f64 / 2.0 * share) as u64 * 2 + 1);
            Arrival { at: time, takes, deadline, leaves }
        };
        all.into_iter().map(arrival).collect()
    })
}

const FIXED: [&str; 3] = [
    "max_in_flight: 2, queue: {max: 5, max_wait: 20ms}",
    "max_in_flight: 1, queue: {max: 50, max_wait: 60s, target: 2ms, interval: 10ms}",
    "max_in_flight: 3, queue: {max: 3, max_wait: 5ms, target: 1ms, interval: 4ms}",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn a_dry_run_with_a_queue_counts_what_its_twin_refuses(
        arrivals in arrivals(true),
        text in proptest::sample::select(&FIXED[..]),
    ) {
        prop_assert_eq!(rehearsed(text, &arrivals), enforced(text, &arrivals));
    }

    #[test]
    fn so_does_one_whose_limit_follows_latency(arrivals in arrivals(false)) {
        let text = "adaptive: {min: 1, max: 6, initial: 2}, queue: {max: 5, max_wait: 20ms}";
        prop_assert_eq!(rehearsed(text, &arrivals), enforced(text, &arrivals));
    }
}

#[test]
fn a_request_that_would_have_waited_and_been_served_is_not_counted() {
    let two = [0, 2_000].map(|at| Arrival { at, takes: 10_000, deadline: None, leaves: None });
    assert_eq!(rehearsed(FIXED[0], &two), Counts::new());
    let text = "max_in_flight: 1, queue: {max: 5, max_wait: 20ms}";
    assert_eq!(rehearsed(text, &two), Counts::new());
    // It would wait until 10 ms, and hold its slot until 20 ms; the third one waits for that.
    let third = Arrival { at: 3_000, takes: 1_000, deadline: Some(16_000), leaves: None };
    let three = [&two[..], &[third]].concat();
    assert_eq!(rehearsed(text, &three), Counts::from([("deadline_exceeded", 1)]));
    assert_eq!(enforced(text, &three), Counts::from([("deadline_exceeded", 1)]));
}

#[test]
fn a_slot_that_comes_back_as_a_wait_ends_comes_back_first() {
    let arrival = |at, takes, deadline| Arrival { at, takes, deadline, leaves: None };
    let arrivals = [
        arrival(0, 10_000, None),
        // Its wait ends as the first one does, at 10 ms. It is still the one that has waited longest, and long
        // enough: the queue stands from then on. The others have not waited that long.
        arrival(2_000, 1_000, Some(8_000)),
        arrival(9_000, 12_000, None),
        // Given up at 22 ms, after an interval.
        arrival(9_000, 2_000, None),
        arrival(9_000, 2_000, None),
    ];
    let expected = Counts::from([("bulkhead_wait_exceeded", 1), ("deadline_exceeded", 1)]);
    assert_eq!(enforced(FIXED[1], &arrivals), expected);
    assert_eq!(rehearsed(FIXED[1], &arrivals), expected);
}

#[test]
fn a_reload_that_enforces_it_holds_no_slot_for_what_was_in_the_mind() {
    let text = "max_in_flight: 1, queue: {max: 5}";
    let bulkhead = Bulkhead::new(&config(text, false));
    let requests = [0, 1, 2].map(|time| bulkhead.rehearse(None, at(time)).expect("goes on"));
    assert_eq!(bulkhead.in_flight(), 1);
    bulkhead.reconfigure(&config(text, true), at(3));
    let slot = bulkhead.acquire(at(4)).expect("a free slot");
    let [first, others @ ..] = requests;
    others.into_iter().for_each(|request| assert_eq!(request.end(Over::Served, at(5)), None));
    assert_eq!(bulkhead.in_flight(), 1);
    // The other way, a request that holds a slot counts.
    bulkhead.reconfigure(&config(text, false), at(6));
    let next = bulkhead.rehearse(Some(at(8)), at(7)).expect("goes on");
    // It is no request of this dry run, and ends for none.
    assert_eq!(first.end(Over::Served, at(7)), None);
    drop(slot);
    assert_eq!(next.end(Over::Served, at(9)), Some(Vain::Deadline));
}
