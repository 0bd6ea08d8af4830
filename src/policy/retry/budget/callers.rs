//! A budget of which each caller has its own, in bounded memory: the arithmetic of the others, under a lock.
//!
//! A caller has an account while it is in use. When all places are taken, an account that is as good as new
//! makes room: its bucket is full, its last request was a `ttl` ago, or it has none in flight. So nothing that
//! counts is ever forgotten, and a flood of names gets no retries but its own: callers that find no room
//! have one account together.

use std::hash::Hash;

use super::accounts::{Active, Bucket, Earned, Portion, Rate, Share};
use super::config::{Concurrency, Ratio, TokenBucket};
use super::table::{Seat, Table};
use crate::time::Moment;

/// The accounts of all callers.
#[derive(Debug)]
pub(super) enum Callers {
    Buckets(Table<Bucket>),
    Shares(Table<Share>),
    Active(Table<Active>),
}

impl Callers {
    pub(super) fn of_bucket(config: &TokenBucket, max_keys: u32) -> Self {
        Callers::Buckets(Table::new(Rate::of(config), max_keys))
    }

    pub(super) fn of_ratio(config: &Ratio, max_keys: u32) -> Self {
        Callers::Shares(Table::new(Earned::of(config), max_keys))
    }

    pub(super) fn of_concurrency(config: &Concurrency, max_keys: u32) -> Self {
        Callers::Active(Table::new(Portion::of(config), max_keys))
    }

    pub(super) fn enter(&self, caller: &impl Hash, now: Moment) -> Seat {
        match self {
            // A request that is never retried needs no account.
            Callers::Buckets(table) => table.seat(caller),
            Callers::Shares(table) => {
                let seat = table.seat(caller);
                table.with(seat, now, |share, rule| share.deposit(rule, now)).0
            }
            Callers::Active(table) => {
                let seat = table.seat(caller);
                table.with(seat, now, |active, _| active.enter()).0
            }
        }
    }

    /// Returns where it is counted from then on. `retrying`: the attempt before this one was a retry, which has
    /// ended.
    pub(super) fn withdraw(&self, seat: Seat, retrying: bool, now: Moment) -> (Seat, bool) {
        match self {
            Callers::Buckets(table) => {
                table.with(seat, now, |bucket, rule| bucket.withdraw(rule, now))
            }
            Callers::Shares(table) => {
                table.with(seat, now, |share, rule| share.withdraw(rule, now))
            }
            Callers::Active(table) => {
                table.with(seat, now, |active, rule| active.begin_retry(rule, retrying))
            }
        }
    }

    pub(super) fn leave(&self, seat: Seat, retrying: bool) {
        match self {
            Callers::Buckets(_) | Callers::Shares(_) => {}
            Callers::Active(table) => {
                // It is in use, so it is still there.
                table.with(seat, Moment::ZERO, |active, _| active.leave(retrying));
            }
        }
    }

    /// Retries that the callers with an account, and those without one, could make at `now`.
    pub(super) fn tokens(&self, now: Moment) -> f64 {
        match self {
            Callers::Buckets(table) => table.sum(|bucket, rule| bucket.tokens(rule, now)),
            Callers::Shares(table) => table.sum(|share, rule| share.tokens(rule, now)),
            Callers::Active(table) => table.sum(|active, rule| active.tokens(rule)),
        }
    }

    /// Accounts, without the one that is shared.
    pub(super) fn count(&self) -> usize {
        match self {
            Callers::Buckets(table) => table.count(),
            Callers::Shares(table) => table.count(),
            Callers::Active(table) => table.count(),
        }
    }
}

#[cfg(test)]
mod tests;
