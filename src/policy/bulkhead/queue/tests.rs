//! Tickets and their slots, on one thread and on several.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Wake};
use std::thread::{self, Thread};
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::policy::bulkhead::Config;

const NOW: Moment = Moment::ZERO;

fn config(text: &str) -> Config {
    serde_yaml::from_str(text).expect("valid")
}

fn bulkhead(text: &str) -> Bulkhead {
    Bulkhead::new(&config(text))
}

/// `None` while the request waits.
fn poll(ticket: &mut Ticket) -> Option<Result<Slot, InVain>> {
    match ticket.poll(Waker::noop()) {
        Poll::Ready(verdict) => Some(verdict),
        Poll::Pending => None,
    }
}

fn taken(ticket: &mut Ticket) -> Slot {
    poll(ticket).expect("is decided").expect("a slot")
}

#[test]
fn without_a_queue_no_request_waits() {
    let bulkhead = bulkhead("{max_in_flight: 1}");
    let _slot = bulkhead.acquire(NOW).expect("free");
    assert!(bulkhead.wait(None, NOW).is_err());
}

#[test]
fn no_request_that_arrives_overtakes_one_that_waits() {
    let bulkhead = bulkhead("{max_in_flight: 1, queue: {max: 2}}");
    let slot = bulkhead.acquire(NOW).expect("free");
    let mut ticket = bulkhead.wait(None, NOW).expect("room");
    assert!(poll(&mut ticket).is_none());
    assert_eq!(bulkhead.waiting(), 1);
    drop(slot);
    assert!(bulkhead.acquire(NOW).is_err());
    assert_eq!((bulkhead.in_flight(), bulkhead.waiting()), (1, 0));
    drop(taken(&mut ticket));
    assert!(bulkhead.acquire(NOW).is_ok());
}

#[test]
fn a_slot_that_was_not_taken_up_goes_to_the_next() {
    let bulkhead = bulkhead("{max_in_flight: 1, queue: {max: 2}}");
    let slot = bulkhead.acquire(NOW).expect("free");
    let first = bulkhead.wait(None, NOW).expect("room");
    let mut second = bulkhead.wait(None, NOW).expect("room");
    drop(slot);
    drop(first);
    drop(taken(&mut second));
    assert_eq!((bulkhead.in_flight(), bulkhead.waiting()), (0, 0));
}

#[test]
fn a_larger_limit_admits_those_that_wait_and_a_smaller_one_does_not() {
    let bulkhead = bulkhead("{max_in_flight: 2, queue: {max: 4}}");
    let [first, second] = [(); 2].map(|()| bulkhead.acquire(NOW).expect("free"));
    let mut tickets = [(); 4].map(|()| bulkhead.wait(None, NOW).expect("room"));
    bulkhead.reconfigure(&config("{max_in_flight: 1, queue: {max: 4}}"), NOW);
    drop(first);
    assert!(tickets.iter_mut().all(|ticket| poll(ticket).is_none()), "one is taken still");
    bulkhead.reconfigure(&config("{max_in_flight: 3, queue: {max: 4}}"), NOW);
    let admitted: Vec<_> = tickets.iter_mut().map(|ticket| poll(ticket).is_some()).collect();
    // Their slots have come back at once, and gone to the others.
    assert_eq!(admitted, [true; 4]);
    drop(second);
    assert_eq!((bulkhead.in_flight(), bulkhead.capacity(), bulkhead.waiting()), (0, 3, 0));
}

#[test]
fn the_latency_that_a_limit_follows_does_not_include_the_wait() {
    let bulkhead = bulkhead("{adaptive: {min: 1, max: 40, initial: 1}, queue: {max: 9}}");
    let mut now = NOW;
    for _ in 0..2000 {
        let slots: Vec<_> = std::iter::from_fn(|| bulkhead.acquire(now).ok()).collect();
        let mut ticket = bulkhead.wait(None, now).expect("room");
        now = now + Duration::from_millis(10);
        slots.into_iter().for_each(|slot| slot.release(now));
        let slot = taken(&mut ticket);
        now = now + Duration::from_millis(10);
        slot.release(now);
    }
    assert_eq!(bulkhead.capacity(), 40, "every call took 10 ms");
}

#[test]
fn a_request_that_is_given_up_is_woken() {
    struct Count(AtomicU32);
    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
    let bulkhead = bulkhead("{max_in_flight: 1, queue: {max: 9}}");
    let mut slot = bulkhead.acquire(NOW).expect("free");
    let mut tickets = [(); 4].map(|()| bulkhead.wait(None, NOW).expect("room"));
    let count = Arc::new(Count(AtomicU32::new(0)));
    assert!(tickets[1].poll(&Waker::from(count.clone())).is_pending());
    // The first gets a slot in time, and the others stand there for more than an interval.
    slot.release(NOW + Duration::from_millis(10));
    slot = taken(&mut tickets[0]);
    slot.release(NOW + Duration::from_millis(120));
    assert_eq!(poll(&mut tickets[1]).map(|verdict| verdict.err()), Some(Some(InVain::Overload)));
    assert_eq!(count.0.load(Ordering::Relaxed), 1);
    // The newest goes first.
    assert!(poll(&mut tickets[2]).is_none());
    drop(taken(&mut tickets[3]));
}

/// Waits on this thread for the ticket's slot.
fn block_on(mut ticket: Ticket) -> Result<Slot, InVain> {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    loop {
        if let Poll::Ready(verdict) = ticket.poll(Context::from_waker(&waker).waker()) {
            return verdict;
        }
        thread::park();
    }
}

#[test]
fn threads_that_wait_are_all_served_and_no_slot_is_lost() {
    const SLOTS: u32 = 2;
    let bulkhead = bulkhead("{max_in_flight: 2, queue: {max: 100, max_wait: 1h}}");
    let (inside, served) = (AtomicU32::new(0), AtomicU32::new(0));
    thread::scope(|scope| {
        for thread in 0..8 {
            let (bulkhead, inside, served) = (&bulkhead, &inside, &served);
            scope.spawn(move || {
                for n in 0..2000 {
                    let slot = match bulkhead.acquire(NOW) {
                        Ok(slot) => slot,
                        Err(_) => {
                            let ticket = bulkhead.wait(None, NOW).expect("room");
                            if (n + thread) % 5 == 0 {
                                drop(ticket);
                                continue;
                            }
                            block_on(ticket).expect("a slot")
                        }
                    };
                    assert!(inside.fetch_add(1, Ordering::SeqCst) < SLOTS);
                    served.fetch_add(1, Ordering::Relaxed);
                    inside.fetch_sub(1, Ordering::SeqCst);
                    drop(slot);
                }
            });
        }
    });
    assert_eq!((bulkhead.in_flight(), bulkhead.waiting()), (0, 0));
    assert!(served.load(Ordering::Relaxed) >= 8 * 2000 * 4 / 5);
}

proptest! {
    #[test]
    fn a_slot_is_free_only_while_no_request_waits(
        slots in 1..4_u32,
        steps in prop::collection::vec((0..6_u8, 0..10_usize), 1..200),
    ) {
        let written = |slots: u32| format!("{{max_in_flight: {slots}, queue: {{max: 5}}}}");
        let bulkhead = bulkhead(&written(slots));
        let (mut inside, mut waiting, mut limit) = (Vec::new(), Vec::new(), slots);
        for (step, nth) in steps {
            match step {
                0 if !inside.is_empty() => drop(inside.swap_remove(nth % inside.len())),
                1 if !waiting.is_empty() => drop(waiting.remove(nth % waiting.len())),
                2 => {
                    limit = nth as u32 + 1;
                    bulkhead.reconfigure(&config(&written(limit)), NOW);
                }
                _ => match bulkhead.acquire(NOW) {
                    Ok(slot) => inside.push(slot),
                    Err(Full) => waiting.extend(bulkhead.wait(None, NOW)),
                },
            }
            // In the order of arrival.
            while let Some(ticket) = waiting.first_mut() {
                let Some(slot) = poll(ticket) else { break };
                inside.push(slot.expect("a slot"));
                drop(waiting.remove(0));
            }
            prop_assert_eq!(bulkhead.in_flight() as usize, inside.len());
            prop_assert_eq!(bulkhead.waiting(), waiting.len());
            prop_assert!(waiting.iter_mut().all(|ticket| poll(ticket).is_none()));
            prop_assert!(waiting.is_empty() || inside.len() >= limit as usize);
            prop_assert!(waiting.len() <= 5);
        }
        drop(inside);
        prop_assert!(waiting.iter_mut().all(|ticket| poll(ticket).is_some()));
        drop(waiting);
        prop_assert_eq!((bulkhead.in_flight(), bulkhead.waiting()), (0, 0));
    }
}
