//! The slots of a bulkhead, counted exactly without one count that every thread writes.
//!
//! The free slots are spread over lanes. A thread takes one from its own lane, else from another; a
//! slot is given back to the lane of the thread that took it. So slots gather where they are
//! needed, and threads contend only when few are free. That holds for two slots as for a thousand.
//!
//! The bound is exact: each held slot was taken out of a lane, and there are no more than
//! `capacity`. Refusals are exact, too: there was a moment at which no lane had a free slot. When
//! the capacity shrinks by more than is free, the rest is owed, and paid with the next slots that
//! threads take.
//!
//! While requests wait, every lane says so. An arriving thread then finds no slot, and a thread that
//! gives one back learns of it in the same step: it sees the mark, or its slot is seen by the one
//! that has set the mark and looks for a slot after that.

use crate::policy::lanes::Lanes;
use crate::policy::sync::{AtomicU32, AtomicU64, Ordering};

#[derive(Debug, Default)]
pub(super) struct Slots {
    /// Free slots in the lower half, then the mark that requests wait, then the number of slots ever
    /// added.
    lanes: Lanes<AtomicU64>,
    capacity: AtomicU32,
    /// Taken slots that must not come back. Almost always 0.
    owed: AtomicU32,
}

const WAITED_FOR: u64 = 1 << 32;
const PUT_IN: u64 = 1 << 33;

/// Who takes a slot.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Taker {
    /// A request that has just arrived.
    Arriving,
    /// One that has waited.
    Waiting,
}

// Two lanes are read in order (Acquire). No other memory depends on these words, and changes to
// each are totally ordered.
impl Slots {
    /// Slots in all, as of now.
    pub(super) fn capacity(&self) -> u32 {
        self.capacity.load(Ordering::Relaxed)
    }

    /// Slots taken, approximately: lanes are read one after the other while threads take and give
    /// back.
    pub(super) fn taken(&self) -> u32 {
        let free: u32 = self.lanes.iter().map(|lane| free(lane.load(Ordering::Acquire))).sum();
        let all = self.capacity().saturating_add(self.owed.load(Ordering::Acquire));
        all.saturating_sub(free)
    }

    /// Takes a slot, from `lane` if it has one; `false` if all are taken, or waited for.
    pub(super) fn take(&self, lane: usize) -> bool {
        self.take_as(Taker::Arriving, lane)
    }

    /// The same for a request that waits; `false` if all are taken.
    pub(super) fn take_for_waiting(&self, lane: usize) -> bool {
        self.take_as(Taker::Waiting, lane)
    }

    /// Returns whether requests wait: then one of them is to get the slot.
    pub(super) fn give_back(&self, lane: usize) -> bool {
        // Acquire: what a request did before it set the mark is seen by the one that serves it.
        self.lanes.at(lane).fetch_add(PUT_IN + 1, Ordering::AcqRel) & WAITED_FOR != 0
    }

    /// Marks whether requests wait. To be called by one thread at a time.
    pub(super) fn set_waited_for(&self, wait: bool) {
        for lane in self.lanes.iter() {
            match wait {
                true => lane.fetch_or(WAITED_FOR, Ordering::AcqRel),
                false => lane.fetch_and(!WAITED_FOR, Ordering::AcqRel),
            };
        }
    }

    /// Sets the number of slots. To be called by one thread at a time. Returns whether requests wait
    /// for slots that were added.
    pub(super) fn resize(&self, slots: u32) -> bool {
        let before = self.capacity.swap(slots, Ordering::Relaxed);
        if slots > before {
            return self.add(slots - before);
        }
        self.remove(before - slots);
        false
    }

    fn take_as(&self, taker: Taker, lane: usize) -> bool {
        while self.take_one(taker, lane) {
            if !self.pay_one() {
                return true;
            }
        }
        false
    }

    fn add(&self, slots: u32) -> bool {
        let pay = |owed: u32| Some(owed - owed.min(slots));
        let owed = self.owed.fetch_update(Ordering::AcqRel, Ordering::Acquire, pay).unwrap_or(0);
        let slots = slots - owed.min(slots);
        let count = self.lanes.count() as u32;
        let mut waited_for = false;
        for (nth, lane) in (0..).zip(self.lanes.iter()) {
            let part = slots / count + u32::from(nth < slots % count);
            if part > 0 {
                let word = lane.fetch_add(PUT_IN + u64::from(part), Ordering::AcqRel);
                waited_for |= word & WAITED_FOR != 0;
            }
        }
        waited_for
    }

    fn remove(&self, slots: u32) {
        let mut left = slots;
        for lane in self.lanes.iter() {
            let without = |word: u64| Some(word - u64::from(free(word).min(left)));
            let word = lane.fetch_update(Ordering::AcqRel, Ordering::Acquire, without);
            left -= word.map_or(0, free).min(left);
        }
        if left > 0 {
            self.owed.fetch_add(left, Ordering::AcqRel);
        }
    }

    fn take_one(&self, taker: Taker, own: usize) -> bool {
        let mut seen = None;
        loop {
            let mut put_in = 0_u64;
            for lane in own..own + self.lanes.count() {
                match take_from(self.lanes.at(lane), taker) {
                    Ok(_) => return true,
                    Err(word) => put_in = put_in.wrapping_add(word / PUT_IN),
                }
            }
            // The same sum twice: no lane got a slot between its first read and its second, so none
            // had one at the moment between the two rounds.
            if seen == Some(put_in) {
                return false;
            }
            seen = Some(put_in);
        }
    }

    /// Gives up a slot that the caller has taken, if one is owed.
    fn pay_one(&self) -> bool {
        let less = |owed: u32| owed.checked_sub(1);
        self.owed.load(Ordering::Acquire) > 0
            && self.owed.fetch_update(Ordering::AcqRel, Ordering::Acquire, less).is_ok()
    }
}

fn take_from(lane: &AtomicU64, taker: Taker) -> Result<u64, u64> {
    let less = |word: u64| {
        let may = word & WAITED_FOR == 0 || taker == Taker::Waiting;
        (may && free(word) > 0).then(|| word - 1)
    };
    lane.fetch_update(Ordering::AcqRel, Ordering::Acquire, less)
}

fn free(word: u64) -> u32 {
    word as u32
}
