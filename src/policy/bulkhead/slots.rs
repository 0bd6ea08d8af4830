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

use crate::policy::lanes::Lanes;
use crate::policy::sync::{AtomicU32, AtomicU64, Ordering};

#[derive(Debug, Default)]
pub(super) struct Slots {
    /// Free slots in the lower half, and the number of slots ever added in the upper half.
    lanes: Lanes<AtomicU64>,
    capacity: AtomicU32,
    /// Taken slots that must not come back. Almost always 0.
    owed: AtomicU32,
}

const PUT_IN: u64 = 1 << 32;

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

    /// Takes a slot, from `lane` if it has one; `false` if all are taken.
    pub(super) fn take(&self, lane: usize) -> bool {
        while self.take_one(lane) {
            if !self.pay_one() {
                return true;
            }
        }
        false
    }

    pub(super) fn give_back(&self, lane: usize) {
        self.lanes.at(lane).fetch_add(PUT_IN + 1, Ordering::Release);
    }

    /// Sets the number of slots. To be called by one thread at a time.
    pub(super) fn resize(&self, slots: u32) {
        let before = self.capacity.swap(slots, Ordering::Relaxed);
        if slots > before {
            self.add(slots - before);
        } else {
            self.remove(before - slots);
        }
    }

    fn add(&self, slots: u32) {
        let pay = |owed: u32| Some(owed - owed.min(slots));
        let owed = self.owed.fetch_update(Ordering::AcqRel, Ordering::Acquire, pay).unwrap_or(0);
        let slots = slots - owed.min(slots);
        let count = self.lanes.count() as u32;
        for (nth, lane) in (0..).zip(self.lanes.iter()) {
            let part = slots / count + u32::from(nth < slots % count);
            if part > 0 {
                lane.fetch_add(PUT_IN + u64::from(part), Ordering::Release);
            }
        }
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

    fn take_one(&self, own: usize) -> bool {
        let mut seen = None;
        loop {
            let mut put_in = 0_u64;
            for lane in own..own + self.lanes.count() {
                match take_from(self.lanes.at(lane)) {
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

fn take_from(lane: &AtomicU64) -> Result<u64, u64> {
    let less = |word: u64| (free(word) > 0).then(|| word - 1);
    lane.fetch_update(Ordering::AcqRel, Ordering::Acquire, less)
}

fn free(word: u64) -> u32 {
    word as u32
}
