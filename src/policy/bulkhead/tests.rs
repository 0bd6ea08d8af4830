//! Slots that are taken, given back and measured.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::policy::dry_run::Enforce;

const NOW: Moment = Moment::ZERO;

fn fixed(slots: u32) -> Config {
    let slots = NonZeroU32::new(slots).expect("at least 1");
    Config {
        limit: Limit::Fixed(slots),
        queue: None,
        per_consumer: None,
        status: Status::default(),
        enforce: Enforce::Yes,
    }
}

fn bulkhead(slots: u32) -> Arc<Bulkhead> {
    Arc::new(Bulkhead::new(&fixed(slots)))
}

fn adaptive() -> Config {
    serde_yaml::from_str("{adaptive: {min: 10, max: 200}}").expect("valid")
}

#[test]
fn a_full_bulkhead_refuses_at_once() {
    let bulkhead = bulkhead(2);
    let _first = bulkhead.acquire(NOW).expect("free");
    let _second = bulkhead.acquire(NOW).expect("free");
    assert!(bulkhead.acquire(NOW).is_err());
    assert_eq!(bulkhead.in_flight(), 2);
}

#[test]
fn a_dropped_slot_is_free_again() {
    let bulkhead = bulkhead(1);
    drop(bulkhead.acquire(NOW).expect("free"));
    assert_eq!(bulkhead.in_flight(), 0);
    assert!(bulkhead.acquire(NOW).is_ok());
}

#[test]
fn a_shrunk_bulkhead_refuses_until_enough_requests_have_ended() {
    let bulkhead = bulkhead(3);
    let mut slots: Vec<_> = (0..3).map(|_| bulkhead.acquire(NOW).expect("free")).collect();
    bulkhead.reconfigure(&fixed(1), NOW);
    for _ in 0..3 {
        assert!(bulkhead.acquire(NOW).is_err());
        slots.pop();
    }
    assert!(bulkhead.acquire(NOW).is_ok());
}

#[test]
fn a_grown_bulkhead_admits_more_at_once() {
    let bulkhead = bulkhead(1);
    let _first = bulkhead.acquire(NOW).expect("free");
    bulkhead.reconfigure(&fixed(2), NOW);
    assert!(bulkhead.acquire(NOW).is_ok());
}

#[test]
fn eight_threads_never_hold_more_slots_than_there_are() {
    const SLOTS: u32 = 3;
    let bulkhead = bulkhead(SLOTS);
    let held = AtomicU32::new(0);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..20_000 {
                    let Ok(slot) = bulkhead.acquire(NOW) else { continue };
                    assert!(held.fetch_add(1, Ordering::SeqCst) < SLOTS);
                    held.fetch_sub(1, Ordering::SeqCst);
                    drop(slot);
                }
            });
        }
    });
    assert_eq!(bulkhead.in_flight(), 0);
}

#[test]
fn a_panic_gives_the_slot_back() {
    let bulkhead = bulkhead(1);
    let inner = Arc::clone(&bulkhead);
    let end = thread::spawn(move || {
        let _slot = inner.acquire(NOW);
        std::panic::resume_unwind(Box::new(()));
    })
    .join();
    assert!(end.is_err());
    assert_eq!(bulkhead.in_flight(), 0);
}

/// One window in which every slot is held for `held`; returns when it is over.
fn saturate(bulkhead: &Arc<Bulkhead>, begun: Moment, held: Duration) -> Moment {
    let slots: Vec<_> = std::iter::from_fn(|| bulkhead.acquire(begun).ok()).collect();
    let over = begun + held;
    slots.into_iter().for_each(|slot| slot.release(over));
    over
}

#[test]
fn an_adaptive_limit_follows_the_latency() {
    let bulkhead = Arc::new(Bulkhead::new(&adaptive()));
    let mut now = NOW;
    for _ in 0..300 {
        now = saturate(&bulkhead, now, Duration::from_millis(100));
    }
    assert_eq!(bulkhead.capacity(), 200);
    for _ in 0..40 {
        now = saturate(&bulkhead, now, Duration::from_secs(1));
    }
    assert!(bulkhead.capacity() < 20, "{}", bulkhead.capacity());
    assert_eq!(bulkhead.in_flight(), 0);
}

#[test]
fn a_slot_that_is_only_dropped_says_nothing_about_latency() {
    let bulkhead = Arc::new(Bulkhead::new(&adaptive()));
    for seconds in 0..100 {
        let now = NOW + Duration::from_secs(seconds);
        let slots: Vec<_> = std::iter::from_fn(|| bulkhead.acquire(now).ok()).collect();
        drop(slots);
    }
    assert_eq!(bulkhead.capacity(), 20);
}

#[test]
fn an_adaptive_limit_goes_on_from_the_slots_there_are() {
    let bulkhead = bulkhead(50);
    bulkhead.reconfigure(&adaptive(), NOW);
    assert_eq!(bulkhead.capacity(), 50);
    let now = saturate(&bulkhead, NOW, Duration::from_millis(100));
    saturate(&bulkhead, now, Duration::from_millis(100));
    assert!(bulkhead.capacity() > 50);
    bulkhead.reconfigure(&adaptive(), NOW);
    assert!(bulkhead.capacity() > 50, "an unchanged limit starts over");
    bulkhead.reconfigure(&fixed(5), NOW);
    assert_eq!(bulkhead.capacity(), 5);
}

#[test]
fn neither_a_slot_nor_its_return_waits_for_the_lock() {
    let bulkhead = bulkhead(1);
    let _held = bulkhead.0.gradient.lock();
    bulkhead.acquire(NOW).expect("free").release(NOW);
    assert_eq!(bulkhead.in_flight(), 0);
}

proptest! {
    #[test]
    fn it_admits_what_a_list_of_those_inside_admits(
        slots in 1..6_u32,
        steps in prop::collection::vec((0..4_u8, 0..10_usize), 1..200),
    ) {
        let bulkhead = bulkhead(slots);
        let (mut inside, mut limit) = (vec![], slots as usize);
        for (step, nth) in steps {
            match step {
                0 if !inside.is_empty() => drop(inside.swap_remove(nth % inside.len())),
                1 => {
                    limit = nth + 1;
                    bulkhead.reconfigure(&fixed(nth as u32 + 1), NOW);
                }
                _ => {
                    let slot = bulkhead.acquire(NOW);
                    prop_assert_eq!(slot.is_ok(), inside.len() < limit);
                    inside.extend(slot);
                }
            }
            prop_assert_eq!(bulkhead.in_flight() as usize, inside.len());
        }
    }
}
