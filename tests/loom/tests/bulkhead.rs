//! No interleaving puts more requests into a bulkhead than it has slots, or loses one.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};
use std::time::Duration;

use portcullis_loom::concurrently;
use portcullis_loom::policy::bulkhead::{Bulkhead, Config, Slot, Ticket};
use portcullis_loom::time::Moment;

const NOW: Moment = Moment::ZERO;

fn config(yaml: &str) -> Config {
    serde_yaml::from_str(yaml).expect("valid")
}

#[test]
fn never_more_requests_are_in_than_there_are_slots_and_all_slots_come_back() {
    let mut builder = loom::model::Builder::new();
    // Three threads: every schedule with up to this many switches in mid-step.
    builder.preemption_bound = Some(3);
    builder.check(|| {
        let bulkhead = Arc::new(Bulkhead::new(&config("{max_in_flight: 2}")));
        let inside = Arc::new(AtomicU32::new(0));
        concurrently((0..3).map(|_| {
            let (bulkhead, inside) = (Arc::clone(&bulkhead), Arc::clone(&inside));
            move || {
                let Ok(_slot) = bulkhead.acquire(NOW) else { return };
                assert!(inside.fetch_add(1, Ordering::Relaxed) < 2);
                loom::thread::yield_now();
                inside.fetch_sub(1, Ordering::Relaxed);
            }
        }));
        assert_eq!(bulkhead.in_flight(), 0);
    });
}

#[test]
fn a_slot_that_is_free_is_never_refused() {
    loom::model(|| {
        let bulkhead = Arc::new(Bulkhead::new(&config("{max_in_flight: 2}")));
        concurrently((0..2).map(|_| {
            let bulkhead = Arc::clone(&bulkhead);
            move || assert!(bulkhead.acquire(NOW).is_ok())
        }));
    });
}

#[test]
fn a_slot_is_found_in_whichever_lane_it_lies() {
    loom::model(|| {
        let bulkhead = Arc::new(Bulkhead::new(&config("{max_in_flight: 2}")));
        let first = bulkhead.acquire(NOW).expect("free");
        // One is taken throughout, and the other goes to the thread that comes first.
        let taken = Arc::new(AtomicU32::new(0));
        concurrently((0..2).map(|_| {
            let (bulkhead, taken) = (Arc::clone(&bulkhead), Arc::clone(&taken));
            move || {
                if let Ok(slot) = bulkhead.acquire(NOW) {
                    taken.fetch_add(1, Ordering::Relaxed);
                    // Held for ever.
                    std::mem::forget(slot);
                }
            }
        }));
        assert_eq!(taken.load(Ordering::Relaxed), 1, "one, whichever lane its thread is in");
        assert_eq!(bulkhead.in_flight(), 2);
        drop(first);
        assert!(bulkhead.acquire(NOW).is_ok());
    });
}

#[test]
fn a_limit_that_shrinks_meanwhile_loses_no_slot() {
    loom::model(|| {
        let bulkhead = Arc::new(Bulkhead::new(&config("{max_in_flight: 2}")));
        let reloaded = Arc::clone(&bulkhead);
        let reload =
            loom::thread::spawn(move || reloaded.reconfigure(&config("{max_in_flight: 1}"), NOW));
        let other = Arc::clone(&bulkhead);
        let other = loom::thread::spawn(move || drop(other.acquire(NOW)));
        drop(bulkhead.acquire(NOW));
        reload.join().expect("no panic");
        other.join().expect("no panic");
        assert_eq!((bulkhead.in_flight(), bulkhead.capacity()), (0, 1));
        let _only = bulkhead.acquire(NOW).expect("free");
        assert!(bulkhead.acquire(NOW).is_err());
    });
}

#[test]
fn a_limit_that_follows_latency_stays_in_its_bounds_and_loses_no_slot() {
    loom::model(|| {
        let adaptive = "{adaptive: {min: 1, max: 12, initial: 12}}";
        let bulkhead = Arc::new(Bulkhead::new(&config(adaptive)));
        // All but the last two that make a window full.
        let later = NOW + Duration::from_secs(1);
        let slots: Vec<_> = (0..10).filter_map(|_| bulkhead.acquire(NOW).ok()).collect();
        let mut slots = slots.into_iter();
        (0..8).for_each(|_| slots.next().expect("ten").release(later));
        concurrently(slots.map(|slot| move || slot.release(later)));
        assert_eq!(bulkhead.in_flight(), 0);
        assert!((1..=12).contains(&bulkhead.capacity()));
    });
}

const QUEUED: &str = "{max_in_flight: 1, queue: {max: 2}}";

/// The slot that a ticket was handed.
fn slot_of(ticket: &mut Ticket) -> Slot {
    match ticket.poll(Waker::noop()) {
        Poll::Ready(slot) => slot.expect("a slot"),
        Poll::Pending => panic!("the slot is lost"),
    }
}

#[test]
fn a_slot_that_comes_back_is_handed_to_the_request_that_waits() {
    loom::model(|| {
        let bulkhead = Arc::new(Bulkhead::new(&config(QUEUED)));
        let slot = bulkhead.acquire(NOW).expect("free");
        let back = loom::thread::spawn(move || drop(slot));
        // It has found no slot, and now one comes back.
        let mut ticket = bulkhead.wait(None, NOW).expect("room");
        back.join().expect("no panic");
        let slot = slot_of(&mut ticket);
        assert!(bulkhead.acquire(NOW).is_err());
        drop(slot);
        assert_eq!((bulkhead.in_flight(), bulkhead.waiting()), (0, 0));
        assert!(bulkhead.acquire(NOW).is_ok());
    });
}

#[test]
fn a_request_that_leaves_as_it_is_handed_a_slot_passes_it_on() {
    loom::model(|| {
        let bulkhead = Arc::new(Bulkhead::new(&config(QUEUED)));
        let slot = bulkhead.acquire(NOW).expect("free");
        let first = bulkhead.wait(None, NOW).expect("room");
        let mut second = bulkhead.wait(None, NOW).expect("room");
        let back = loom::thread::spawn(move || drop(slot));
        drop(first);
        back.join().expect("no panic");
        drop(slot_of(&mut second));
        assert_eq!((bulkhead.in_flight(), bulkhead.waiting()), (0, 0));
    });
}

#[test]
fn a_request_that_leaves_while_another_comes_leaves_it_the_slot() {
    loom::model(|| {
        let bulkhead = Arc::new(Bulkhead::new(&config(QUEUED)));
        let slot = bulkhead.acquire(NOW).expect("free");
        let first = bulkhead.wait(None, NOW).expect("room");
        let back = loom::thread::spawn(move || drop(slot));
        let left = loom::thread::spawn(move || drop(first));
        let mut second = bulkhead.wait(None, NOW).expect("room");
        back.join().expect("no panic");
        left.join().expect("no panic");
        drop(slot_of(&mut second));
        assert_eq!((bulkhead.in_flight(), bulkhead.waiting()), (0, 0));
        assert!(bulkhead.acquire(NOW).is_ok());
    });
}

#[test]
fn a_limit_that_grows_meanwhile_admits_the_request_that_waits() {
    loom::model(|| {
        let bulkhead = Arc::new(Bulkhead::new(&config(QUEUED)));
        let _held = bulkhead.acquire(NOW).expect("free");
        let reloaded = Arc::clone(&bulkhead);
        let reload = loom::thread::spawn(move || {
            reloaded.reconfigure(&config("{max_in_flight: 2, queue: {max: 2}}"), NOW);
        });
        let mut ticket = bulkhead.wait(None, NOW).expect("room");
        reload.join().expect("no panic");
        let _slot = slot_of(&mut ticket);
        assert_eq!(bulkhead.in_flight(), 2);
    });
}

#[test]
fn with_a_queue_never_more_are_in_than_there_are_slots_and_all_are_served() {
    let mut builder = loom::model::Builder::new();
    // More would take minutes.
    builder.preemption_bound = Some(1);
    builder.check(|| {
        let bulkhead = Arc::new(Bulkhead::new(&config(QUEUED)));
        let inside = Arc::new(AtomicU32::new(0));
        let waiting = Arc::new(Mutex::new(Vec::new()));
        concurrently((0..3).map(|_| {
            let (bulkhead, inside) = (Arc::clone(&bulkhead), Arc::clone(&inside));
            let waiting = Arc::clone(&waiting);
            move || match bulkhead.acquire(NOW) {
                Ok(_slot) => {
                    assert_eq!(inside.fetch_add(1, Ordering::Relaxed), 0);
                    loom::thread::yield_now();
                    inside.fetch_sub(1, Ordering::Relaxed);
                }
                Err(_) => {
                    let ticket = bulkhead.wait(None, NOW).expect("room");
                    waiting.lock().expect("no panic").push(ticket);
                }
            }
        }));
        // One after the other: each has the slot, or gets it from the one before.
        let mut waiting = std::mem::take(&mut *waiting.lock().expect("no panic"));
        while !waiting.is_empty() {
            let ready = |ticket: &mut Ticket| match ticket.poll(Waker::noop()) {
                Poll::Ready(slot) => Some(slot.expect("a slot")),
                Poll::Pending => None,
            };
            let found = waiting.iter_mut().enumerate().find_map(|(n, t)| Some((n, ready(t)?)));
            let (nth, slot) = found.expect("one of them has the slot");
            drop(waiting.swap_remove(nth));
            drop(slot);
        }
        assert_eq!((bulkhead.in_flight(), bulkhead.waiting()), (0, 0));
    });
}

#[test]
fn a_caller_never_holds_more_than_its_share_and_loses_none() {
    loom::model(|| {
        let share = "{max_in_flight: 9, per_consumer: {max_in_flight: 1, max_keys: 1}}";
        let bulkhead = Arc::new(Bulkhead::new(&config(share)));
        let inside = Arc::new(AtomicU32::new(0));
        concurrently((0..2).map(|_| {
            let (bulkhead, inside) = (Arc::clone(&bulkhead), Arc::clone(&inside));
            move || {
                let Ok(_share) = bulkhead.share(&"a") else { return };
                assert_eq!(inside.fetch_add(1, Ordering::Relaxed), 0);
                loom::thread::yield_now();
                inside.fetch_sub(1, Ordering::Relaxed);
            }
        }));
        assert_eq!(bulkhead.callers(), 0);
        assert!(bulkhead.share(&"b").is_ok());
    });
}
