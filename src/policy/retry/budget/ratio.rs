//! Retries as a share of the requests of the last seconds, after the budgets of tower and linkerd.
//!
//! A request deposits, a retry withdraws, and both are forgotten after `ttl`, a tenth of it at a
//! time. Unlike in tower, the price of a retry is not rounded to whole requests (there, 30 % is 33
//! %), and concurrent threads together get no more than one thread would.

use crossbeam_utils::CachePadded;

use super::config::{Ratio, millionths};
use crate::policy::lanes::Lanes;
use crate::policy::sync::{AtomicU64, Mutex, MutexGuard, Ordering, PoisonError};
use crate::time::Moment;

#[derive(Debug)]
pub(super) struct Share {
    /// Requests by slot, each one word, as `pack` lays it out. Written on the request path, and
    /// therefore kept by lane; a retry sums them up.
    requests: Lanes<[AtomicU64; SLOTS]>,
    /// Retries by slot. A plain lock: taken only for retries, for a few instructions.
    retries: CachePadded<Mutex<Retries>>,
    /// How much of a retry a request is worth, in millionths.
    share: u64,
    /// Retries granted per `ttl` without any deposit, in millionths.
    reserve: u64,
    /// The length of a slot in nanoseconds.
    slot: u64,
}

/// The retries of the slots up to `newest`; slot `s` is at `s % SLOTS`.
#[derive(Debug, Default)]
struct Retries {
    newest: u64,
    granted: [u64; SLOTS],
}

const SLOTS: usize = 10;
const MILLION: u64 = 1_000_000;

impl Share {
    pub(super) fn new(config: &Ratio) -> Self {
        let ttl = config.ttl.as_millis();
        // At most 60,000 ms x 1,000,000 x 1000.
        let reserve = ttl * u128::from(config.min_per_second) * u128::from(MILLION / 1000);
        Share {
            requests: Lanes::default(),
            retries: CachePadded::default(),
            share: millionths(config.share),
            reserve: u64::try_from(reserve).unwrap_or(u64::MAX),
            slot: u64::try_from(config.ttl.as_nanos()).unwrap_or(u64::MAX) / SLOTS as u64,
        }
    }

    /// Deposits a request.
    pub(super) fn deposit(&self, now: Moment) {
        let slot = self.slot_of(now);
        let word = &self.requests.mine()[index(slot)];
        // Relaxed throughout: a slot's number and count are one word, and a deposit that a
        // withdrawal misses counts as later. An error means that the word belongs to a later slot,
        // so this request is too old to count.
        _ = word.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |seen| {
            let (of, count) = unpack(seen);
            match of.cmp(&tag(slot)) {
                std::cmp::Ordering::Less => Some(pack(slot, 1)),
                std::cmp::Ordering::Equal => Some(pack(slot, count.saturating_add(1))),
                std::cmp::Ordering::Greater => None,
            }
        });
    }

    /// Withdraws a retry, if there is one.
    pub(super) fn withdraw(&self, now: Moment) -> bool {
        let mut retries = self.turn_to(self.slot_of(now));
        if self.balance(&retries) < MILLION {
            return false;
        }
        let newest = index(retries.newest);
        retries.granted[newest] += 1;
        true
    }

    /// Retries that are left, including a fraction of the next one.
    pub(super) fn tokens(&self, now: Moment) -> f64 {
        self.balance(&self.turn_to(self.slot_of(now))) as f64 / MILLION as f64
    }

    /// The retries, after dropping those that are too old. An older clock reading counts as the
    /// newest one.
    fn turn_to(&self, slot: u64) -> MutexGuard<'_, Retries> {
        // A panic cannot leave anything half-done under this lock.
        let mut retries = self.retries.lock().unwrap_or_else(PoisonError::into_inner);
        let begun = slot.saturating_sub(retries.newest).min(SLOTS as u64);
        for ago in 0..begun {
            retries.granted[index(slot - ago)] = 0;
        }
        retries.newest = retries.newest.max(slot);
        retries
    }

    /// Retries left, in millionths.
    fn balance(&self, retries: &Retries) -> u64 {
        let oldest = retries.newest.saturating_sub(SLOTS as u64 - 1);
        let live = |lane: &[AtomicU64; SLOTS]| -> u64 {
            (oldest..=retries.newest)
                .map(|slot| {
                    // Relaxed: see `deposit`.
                    let (of, count) = unpack(lane[index(slot)].load(Ordering::Relaxed));
                    // A slot later than the newest comes from a deposit with a newer clock reading.
                    if of >= tag(slot) { u64::from(count) } else { 0 }
                })
                .sum()
        };
        let requests: u64 = self.requests.iter().map(live).sum();
        let granted: u64 = retries.granted.iter().sum();
        let earned = self.reserve.saturating_add(requests.saturating_mul(self.share));
        earned.saturating_sub(granted.saturating_mul(MILLION))
    }

    fn slot_of(&self, now: Moment) -> u64 {
        now.as_nanos() / self.slot
    }
}

fn index(slot: u64) -> usize {
    (slot % SLOTS as u64) as usize
}

// The slot's number in the upper half, its requests in the lower. The shortest slot is 100 ms, so
// the number lasts for 13 years of uptime.
fn pack(slot: u64, count: u32) -> u64 {
    u64::from(tag(slot)) << 32 | u64::from(count)
}

fn unpack(word: u64) -> (u32, u32) {
    ((word >> 32) as u32, word as u32)
}

fn tag(slot: u64) -> u32 {
    slot as u32
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;
    use std::thread;

    use proptest::prelude::*;

    use super::*;
    use crate::units::{Percent, Timespan};

    fn share(percent: u8, min_per_second: u32, ttl: Timespan) -> Share {
        Share::new(&Ratio { share: Percent::new(percent), min_per_second, ttl })
    }

    fn at(millis: u64) -> Moment {
        Moment::from_nanos(millis * 1_000_000)
    }

    /// Takes retries until there are none, and returns how many there were.
    fn taken(share: &Share, millis: u64) -> usize {
        (0..1000).take_while(|_| share.withdraw(at(millis))).count()
    }

    const SECOND: Timespan = Timespan::from_secs(1);

    // What tower's tests require of its budget.

    #[test]
    fn an_empty_budget_without_a_reserve_grants_nothing() {
        assert_eq!(taken(&share(100, 0, SECOND), 0), 0);
    }

    #[test]
    fn a_deposit_is_gone_after_its_time() {
        let share = share(100, 0, SECOND);
        share.deposit(at(0));
        assert_eq!(taken(&share, 3000), 0);
    }

    #[test]
    fn deposits_expire_slot_by_slot() {
        let share = share(50, 0, SECOND);
        share.deposit(at(0));
        share.deposit(at(0));
        assert!(share.withdraw(at(900)));
        for millis in [2900, 3200, 4000] {
            share.deposit(at(millis));
        }
        // The first of these three has expired; the other two are worth one retry.
        assert_eq!(taken(&share, 4000), 1);
    }

    #[test]
    fn the_reserve_is_there_again_after_its_time() {
        let share = share(100, 5, SECOND);
        assert_eq!([0, 999, 1000, 1500].map(|millis| taken(&share, millis)), [5, 0, 5, 0]);
    }

    // Differences to tower.

    #[test]
    fn a_share_is_not_rounded_to_whole_requests() {
        let share = share(30, 0, SECOND);
        (0..100).for_each(|_| share.deposit(at(0)));
        assert_eq!(taken(&share, 0), 30);
    }

    #[test]
    fn the_reserve_is_per_second_of_the_time_to_live() {
        assert_eq!(taken(&share(20, 3, Timespan::from_secs(10)), 0), 30);
    }

    #[test]
    fn a_clock_reading_that_is_behind_gets_no_more() {
        let share = share(100, 1, SECOND);
        assert_eq!(taken(&share, 10_000), 1);
        share.deposit(at(0));
        assert_eq!(taken(&share, 0), 0);
    }

    #[test]
    fn a_request_does_not_wait_for_the_lock_of_retries() {
        let share = share(100, 0, SECOND);
        let held = share.retries.lock();
        share.deposit(at(0));
        drop(held);
        assert_eq!(taken(&share, 0), 1);
    }

    #[test]
    fn sixteen_threads_get_their_share_and_no_more() {
        let share = share(20, 0, SECOND);
        let granted = AtomicU32::new(0);
        thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| {
                    for _ in 0..1000 {
                        share.deposit(at(0));
                        granted.fetch_add(share.withdraw(at(0)).into(), Ordering::Relaxed);
                    }
                });
            }
        });
        assert_eq!(granted.into_inner() as usize + taken(&share, 0), 16 * 1000 / 5);
    }

    proptest! {
        #[test]
        fn it_grants_what_a_naive_list_grants(
            percent in 0..=100_u8, min_per_second in 0..5_u32,
            steps in prop::collection::vec((0..250_u64, any::<bool>()), 1..300),
        ) {
            let share = share(percent, min_per_second, SECOND);
            let (mut now, mut deposits, mut grants) = (0, vec![], vec![]);
            for (pause, retry) in steps {
                now += pause;
                let live = |list: &[u64]| list.iter().filter(|at| *at / 100 + 10 > now / 100).count();
                if !retry {
                    share.deposit(at(now));
                    deposits.push(now);
                    continue;
                }
                let earned = u64::from(percent) * live(&deposits) as u64 / 100;
                let left = min_per_second as usize + earned as usize;
                let expected = live(&grants) < left;
                prop_assert_eq!(share.withdraw(at(now)), expected, "at {}", now);
                if expected { grants.push(now) }
            }
        }
    }
}
