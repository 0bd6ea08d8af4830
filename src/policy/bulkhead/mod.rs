//! Bulkhead: how many requests may be in flight at once.
//!
//! Try-acquire, no queue: a request that finds no slot is refused at once, so that a slow
//! upstream holds a bounded share of the gateway. The slot is the caller's to hold until the
//! last byte of the answer has left.

use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use serde::de::{self, Deserialize, Deserializer, Visitor};

/// `bulkhead:` of a route.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Requests in flight at most; at least 1.
    pub max_in_flight: NonZeroU32,
    /// What a refused client is answered.
    #[serde(default)]
    pub status: Status,
}

/// The status of a refusal.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Status {
    /// 429, the default.
    #[default]
    TooManyRequests,
    /// 503, as some proxies have it.
    ServiceUnavailable,
}

impl Status {
    /// The number on the wire.
    pub const fn code(self) -> u16 {
        match self {
            Status::TooManyRequests => 429,
            Status::ServiceUnavailable => 503,
        }
    }
}

/// Counts the requests in flight. A reload with another limit [resizes](Bulkhead::resize) it, so
/// that requests in flight stay counted.
#[derive(Debug)]
pub struct Bulkhead {
    in_flight: AtomicU32,
    capacity: AtomicU32,
}

impl Bulkhead {
    pub fn new(config: &Config) -> Self {
        Bulkhead {
            in_flight: AtomicU32::new(0),
            capacity: AtomicU32::new(config.max_in_flight.get()),
        }
    }

    /// Takes a slot, if one is free.
    ///
    /// # Errors
    /// [`Full`] when `capacity` slots, or after a resize more, are taken.
    pub fn acquire(self: &Arc<Self>) -> Result<Slot, Full> {
        // Relaxed throughout: the count guards no other memory, and read-modify-writes of one
        // atomic are totally ordered, which is all the bound needs.
        let capacity = self.capacity.load(Ordering::Relaxed);
        self.in_flight
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |taken| {
                (taken < capacity).then(|| taken + 1)
            })
            .map_err(|_| Full)?;
        Ok(Slot { bulkhead: Arc::clone(self) })
    }

    /// Slots taken now. May exceed the capacity for a while after it shrank.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Slots in all.
    pub fn capacity(&self) -> u32 {
        self.capacity.load(Ordering::Relaxed)
    }

    /// Changes the number of slots. Nobody in flight is cut off: fewer slots take effect as
    /// requests end.
    pub fn resize(&self, max_in_flight: NonZeroU32) {
        self.capacity.store(max_in_flight.get(), Ordering::Relaxed);
    }
}

/// A place in the bulkhead, given back when dropped.
#[must_use = "a slot that is dropped at once limits nothing"]
#[derive(Debug)]
pub struct Slot {
    bulkhead: Arc<Bulkhead>,
}

impl Drop for Slot {
    fn drop(&mut self) {
        // Relaxed: see `acquire`.
        self.bulkhead.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Every slot is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("every slot of the bulkhead is taken")]
pub struct Full;

impl<'de> Deserialize<'de> for Status {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_u64(StatusVisitor)
    }
}

struct StatusVisitor;

impl Visitor<'_> for StatusVisitor {
    type Value = Status;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("429 or 503")
    }

    fn visit_u64<E: de::Error>(self, code: u64) -> Result<Status, E> {
        match code {
            429 => Ok(Status::TooManyRequests),
            503 => Ok(Status::ServiceUnavailable),
            other => Err(E::custom(format_args!("must be 429 or 503, not {other}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn bulkhead(max_in_flight: u32) -> Arc<Bulkhead> {
        let max_in_flight = NonZeroU32::new(max_in_flight).expect("at least 1");
        Arc::new(Bulkhead::new(&Config { max_in_flight, status: Status::default() }))
    }

    #[test]
    fn a_full_bulkhead_refuses_at_once() {
        let bulkhead = bulkhead(2);
        let _first = bulkhead.acquire().expect("free");
        let _second = bulkhead.acquire().expect("free");
        assert!(bulkhead.acquire().is_err());
        assert_eq!(bulkhead.in_flight(), 2);
    }

    #[test]
    fn a_dropped_slot_is_free_again() {
        let bulkhead = bulkhead(1);
        drop(bulkhead.acquire().expect("free"));
        assert_eq!(bulkhead.in_flight(), 0);
        assert!(bulkhead.acquire().is_ok());
    }

    #[test]
    fn a_shrunk_bulkhead_refuses_until_enough_requests_have_ended() {
        let bulkhead = bulkhead(3);
        let mut slots: Vec<_> = (0..3).map(|_| bulkhead.acquire().expect("free")).collect();
        bulkhead.resize(NonZeroU32::MIN);
        for _ in 0..3 {
            assert!(bulkhead.acquire().is_err());
            slots.pop();
        }
        assert!(bulkhead.acquire().is_ok());
    }

    #[test]
    fn a_grown_bulkhead_admits_more_at_once() {
        let bulkhead = bulkhead(1);
        let _first = bulkhead.acquire().expect("free");
        bulkhead.resize(NonZeroU32::new(2).expect("not 0"));
        assert!(bulkhead.acquire().is_ok());
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
                        let Ok(slot) = bulkhead.acquire() else { continue };
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
            let _slot = inner.acquire();
            std::panic::resume_unwind(Box::new(()));
        })
        .join();
        assert!(end.is_err());
        assert_eq!(bulkhead.in_flight(), 0);
    }

    #[test]
    fn a_status_other_than_429_and_503_is_refused() {
        let config: Config = serde_yaml::from_str("{max_in_flight: 100}").expect("valid");
        assert_eq!(config.status.code(), 429);
        let config: Config =
            serde_yaml::from_str("{max_in_flight: 1, status: 503}").expect("valid");
        assert_eq!(config.status.code(), 503);
        assert!(serde_yaml::from_str::<Config>("{max_in_flight: 1, status: 500}").is_err());
        assert!(serde_yaml::from_str::<Config>("{max_in_flight: 0}").is_err());
    }
}
