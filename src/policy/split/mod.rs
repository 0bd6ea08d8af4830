//! Which of a route's upstreams a request goes to, by their weights.
//!
//! A request is drawn once, and its retries stay where it was drawn. With a key, requests of one key
//! go to one upstream, on every replica and after every restart: what decides is the key, the names of
//! the upstreams and their weights, and nothing else.
//!
//! The rule is rendezvous hashing by weight: for each upstream a number is made of the key and the
//! upstream's name, uniform in (0, 1); the least `-ln(number) / weight` wins. So an upstream whose weight
//! rises takes keys from the others, one whose weight falls gives keys to them, and no key moves between
//! two upstreams whose weights stay. With two upstreams, moving 5 % to one of them moves 5 % of the keys.
//! No rule that knows only the weights moves less for every change of them (Moulton and Jiang, Maximally
//! Consistent Sampling and the Jaccard Index of Probability Distributions, 2018).
//!
//! Weights that an operator orders take the place of the configured ones all at once (`orders`), so that
//! each request is drawn by the weights of one order. A reload hands them on by name.

pub mod config;
pub mod hash;
pub mod named;
pub mod orders;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use arc_swap::ArcSwapOption;
pub use config::{Config, Destination, Key};

use self::config::{MAX_UPSTREAMS, Weighted};
use crate::policy::rate_limit::Requester;
use crate::policy::sync::{AtomicU64, Mutex, Ordering};

/// The upstreams of a route, with what each has drawn.
#[derive(Debug)]
pub struct Split {
    key: Option<Key>,
    shares: Box<[Share]>,
    /// Requests without the key; shared as the counts of each upstream are.
    unkeyed: Arc<AtomicU64>,
    /// The order in force. Shared with the generations before, so that an order given during a reload is
    /// not lost.
    ordered: Arc<ArcSwapOption<orders::Ordered>>,
    /// Held while an order takes the place of another.
    ordering: Arc<Mutex<()>>,
}

/// One upstream of a split.
#[derive(Debug)]
struct Share {
    name: Arc<str>,
    /// Made of the name.
    seed: u64,
    configured: u32,
    /// Shared with the generations before, in which it was in the list without a break: an order names it
    /// by this.
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    drawn: AtomicU64,
}

/// The state of one upstream of a split, for status and metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// The upstream's name.
    pub name: Arc<str>,
    /// The weight in force.
    pub weight: u32,
    /// The weight in the configuration.
    pub configured: u32,
    /// Requests drawn for it since the process started.
    pub drawn: u64,
}

impl Split {
    /// The split of `upstreams`. Orders and counts are those of `before`, for upstreams that were in it.
    pub fn new(upstreams: &[Weighted], key: Option<Key>, before: Option<&Split>) -> Self {
        let kept = |name: &str| {
            let mut shares = before.into_iter().flat_map(|before| &before.shares);
            shares.find(|share| *share.name == *name).map(|share| share.state.clone())
        };
        let share = |upstream: &Weighted| Share {
            name: upstream.name.as_str().into(),
            seed: hash::of(upstream.name.as_bytes()),
            configured: upstream.weight,
            state: kept(&upstream.name).unwrap_or_default(),
        };
        let shares: Box<[Share]> = upstreams.iter().map(share).collect();
        let unkeyed = before.map(|before| before.unkeyed.clone()).unwrap_or_default();
        // An order whose upstreams are all gone sets nothing any more.
        let ordered = before.map(|before| before.ordered.clone()).unwrap_or_default();
        let ordering = before.map(|before| before.ordering.clone()).unwrap_or_default();
        Split { key, shares, unkeyed, ordered, ordering }
    }

    /// Draws an upstream for a request, and counts it. Returns its place in the list. A request without
    /// the key is drawn at random. Neither locks nor allocates.
    pub fn draw(&self, requester: &Requester<'_>) -> usize {
        let key = self.key.as_ref().and_then(|key| key.hash(requester));
        let place = match key {
            Some(key) => self.place_of(key),
            None => self.place_at(|sum| fastrand::u64(0..sum)),
        };
        // Relaxed, here and below: no other data depends on the counts.
        if self.key.is_some() && key.is_none() {
            self.unkeyed.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(share) = self.shares.get(place) {
            share.state.drawn.fetch_add(1, Ordering::Relaxed);
        }
        place
    }

    /// Requests drawn at random because they had no key, since the process started.
    pub fn unkeyed(&self) -> u64 {
        self.unkeyed.load(Ordering::Relaxed)
    }

    /// All upstreams, in the order of the list.
    pub fn standings(&self) -> impl Iterator<Item = Standing> {
        let weights = self.weights();
        self.shares.iter().zip(weights).map(|(share, weight)| Standing {
            name: share.name.clone(),
            weight,
            configured: share.configured,
            drawn: share.state.drawn.load(Ordering::Relaxed),
        })
    }

    /// The weights in force; those that are configured if orders have left none above zero.
    fn weights(&self) -> [u32; MAX_UPSTREAMS] {
        let ordered = self.ordered.load();
        let mut weights = [0; MAX_UPSTREAMS];
        for (weight, share) in weights.iter_mut().zip(&self.shares) {
            let of_order = ordered.as_ref().and_then(|ordered| ordered.weight(share));
            *weight = of_order.unwrap_or(share.configured);
        }
        if weights == [0; MAX_UPSTREAMS] {
            for (weight, share) in weights.iter_mut().zip(&self.shares) {
                *weight = share.configured;
            }
        }
        weights
    }

    /// Where requests with this key go.
    fn place_of(&self, key: u64) -> usize {
        let weights = self.weights();
        let shares = self.shares.iter().zip(weights).enumerate();
        let scores =
            shares.filter(|(_, (_, weight))| *weight > 0).map(|(place, (share, weight))| {
                let number = hash::uniform(hash::mix(key ^ share.seed));
                (place, -number.ln() / f64::from(weight))
            });
        scores.min_by(|(_, a), (_, b)| a.total_cmp(b)).map_or(0, |(place, _)| place)
    }

    /// Where the request falls whose number, below the sum of the weights, is drawn by `number`.
    fn place_at(&self, number: impl FnOnce(u64) -> u64) -> usize {
        let weights = self.weights();
        let sum: u64 = weights.iter().copied().map(u64::from).sum();
        // A configuration has a sum above zero.
        let mut left = number(sum.max(1));
        let mut places = weights.iter().take(self.shares.len());
        let fallen = places.position(|weight| {
            let falls = left < u64::from(*weight);
            left = left.saturating_sub(u64::from(*weight));
            falls
        });
        fallen.unwrap_or(0)
    }
}
