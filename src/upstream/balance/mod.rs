//! Which of the available endpoints gets a request.
//!
//! A `Pool` is made when the set of available endpoints changes, with a table for its policy. A
//! choice reads the table and the state of a few endpoints; it takes no lock, allocates nothing, and
//! costs the same for three endpoints as for thousands. Randomness and time are arguments.

mod hashed;
pub mod key;
pub mod load;
#[cfg(test)]
mod model;
mod sampler;
mod turns;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hashed::Hashed;
use key::MaxLoad;
use sampler::Sampler;

use super::endpoint::Endpoint;
use crate::time::Moment;

/// How an endpoint is chosen.
#[derive(Debug, Clone, Default, PartialEq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    /// Of two endpoints drawn by weight, the one with fewer requests in flight for its weight.
    /// Endpoints that fail count as busier than they are.
    #[default]
    LeastRequest,
    /// Each in its turn, as often as its weight says.
    RoundRobin,
    /// Drawn by weight.
    Random,
    /// Of two endpoints drawn by weight, the one with the lower product of latency and requests in
    /// flight. A rise of latency counts at once, a fall slowly; a failure counts as 1 s.
    PeakEwma,
    /// By the request's key.
    Hash(key::Hash),
}

impl Policy {
    /// The path parameter that it needs of a request.
    pub fn parameter(&self) -> Option<&str> {
        match self {
            Policy::Hash(hash) => hash.key.parameter(),
            Policy::LeastRequest | Policy::RoundRobin | Policy::Random | Policy::PeakEwma => None,
        }
    }
}

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// The endpoints this request has been sent to, in their order.
    pub tried: &'a [Arc<Endpoint>],
    /// The hash of its key; `None` if it has none, or the policy needs none.
    pub key: Option<u64>,
    /// Uniform over all of `u64`.
    pub random: u64,
    /// Attempts in flight at all endpoints; only needed by a policy with a bound by share.
    pub in_flight: u32,
    /// The time of the choice.
    pub now: Moment,
}

/// What holds for each endpoint of an upstream.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Attempts that an endpoint may have in flight.
    pub(super) in_flight: u32,
    /// How long a new endpoint's share grows; zero: not at all.
    pub(super) slow_start: Duration,
}

/// Endpoints that may be chosen, all of them on the same terms.
#[derive(Debug)]
pub(super) struct Pool {
    places: Box<[Place]>,
    table: Table,
    limits: Limits,
    /// Until then some endpoint's share still grows.
    warming_until: Moment,
}

#[derive(Debug)]
struct Place {
    endpoint: Arc<Endpoint>,
    /// Its weight in units of the average weight.
    weight: f32,
}

#[derive(Debug)]
enum Table {
    Turns(Box<[u32]>),
    Drawn(Sampler),
    /// The lower cost of two.
    Compared(Sampler, Cost),
    /// By key; without one, as by `least_request`.
    ByKey(Hashed, MaxLoad, Sampler),
}

#[derive(Debug, Clone, Copy)]
enum Cost {
    Requests,
    Latency,
}

/// How many endpoints are drawn before all are looked at.
const DRAWS: usize = 8;

/// The least share of an endpoint whose share grows, as Envoy has it.
const LEAST_SHARE: f32 = 0.1;

impl Pool {
    /// For endpoints with weights above 0.
    pub(super) fn new(
        endpoints: Vec<(Arc<Endpoint>, u32)>,
        policy: &Policy,
        limits: Limits,
    ) -> Self {
        let weights: Vec<u32> = endpoints.iter().map(|(_, weight)| *weight).collect();
        let sum: f32 = weights.iter().map(|weight| *weight as f32).sum();
        let average = sum / weights.len() as f32;
        let table = match policy {
            Policy::RoundRobin => Table::Turns(turns::cycle(&weights)),
            Policy::Random => Table::Drawn(Sampler::new(&weights)),
            Policy::LeastRequest => Table::Compared(Sampler::new(&weights), Cost::Requests),
            Policy::PeakEwma => Table::Compared(Sampler::new(&weights), Cost::Latency),
            Policy::Hash(config) => {
                let places = endpoints.iter().map(|(endpoint, weight)| (&*endpoint.label, *weight));
                let hashed = Hashed::new(&places.collect::<Vec<_>>());
                Table::ByKey(hashed, config.max_load, Sampler::new(&weights))
            }
        };
        let warm = |(endpoint, _): &(Arc<Endpoint>, u32)| {
            Some(endpoint.warming_since()? + limits.slow_start)
        };
        let warming_until = endpoints.iter().filter_map(warm).max();
        let places = endpoints
            .into_iter()
            .map(|(endpoint, weight)| Place { endpoint, weight: weight as f32 / average });
        Pool {
            places: places.collect(),
            table,
            limits,
            warming_until: warming_until.unwrap_or_default(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Whether the request has not been sent to one of the endpoints yet.
    pub(super) fn has_untried(&self, tried: &[Arc<Endpoint>]) -> bool {
        self.places.iter().any(|place| !is_among(&place.endpoint, tried))
    }

    /// The same, if the request is at the endpoint `now`.
    pub(super) fn has_other(&self, tried: &[Arc<Endpoint>], now: &Arc<Endpoint>) -> bool {
        let other = |place: &Place| !Arc::ptr_eq(&place.endpoint, now);
        self.places.iter().any(|place| other(place) && !is_among(&place.endpoint, tried))
    }

    /// An endpoint; `None` if there is none, or all have as many requests as they may. `turn` is the
    /// number of the turn for policies that have turns.
    pub(super) fn pick(&self, ask: &Ask<'_>, turn: &AtomicUsize) -> Option<&Arc<Endpoint>> {
        let mut random = ask.random;
        if self.places.len() > 1 {
            if let (Table::ByKey(table, most, _), Some(key)) = (&self.table, ask.key)
                && let Some(place) = self.by_key(key, table, *most, ask)
            {
                return Some(&place.endpoint);
            }
            for _ in 0..DRAWS {
                if let Some(place) = self.draw(ask, &mut random, turn) {
                    return Some(&place.endpoint);
                }
            }
        }
        self.scan(ask, random)
    }

    /// An endpoint drawn by the policy; `None` if it may not be used for this request.
    fn draw(&self, ask: &Ask<'_>, random: &mut u64, turn: &AtomicUsize) -> Option<&Place> {
        match &self.table {
            Table::Turns(order) => {
                // Relaxed: turns only need to be spread, not ordered.
                let turn = turn.fetch_add(1, Ordering::Relaxed);
                let place = &self.places[order[turn % order.len()] as usize];
                self.admits(place, ask, random).then_some(place)
            }
            Table::Drawn(sampler) => {
                let place = &self.places[sampler.draw(next(random))];
                self.admits(place, ask, random).then_some(place)
            }
            Table::ByKey(_, _, sampler) => self.compared(sampler, Cost::Requests, ask, random),
            Table::Compared(sampler, cost) => self.compared(sampler, *cost, ask, random),
        }
    }

    /// The better one of two.
    fn compared(
        &self,
        sampler: &Sampler,
        cost: Cost,
        ask: &Ask<'_>,
        random: &mut u64,
    ) -> Option<&Place> {
        let one = sampler.draw(next(random));
        let mut other = sampler.draw(next(random));
        if one == other {
            other = sampler.draw(next(random));
        }
        if one == other {
            other = (one + 1) % self.places.len();
        }
        let (one, other) = (&self.places[one], &self.places[other]);
        // Where nothing is going on the first one decides: its share must be exact.
        if !self.admits(one, ask, random) {
            return None;
        }
        let is_better = || other.cost(cost, ask.now) < one.cost(cost, ask.now);
        Some(if self.admits(other, ask, random) && is_better() { other } else { one })
    }

    /// The place of a key, or one of those where its keys go instead: it was tried, or has no room, or
    /// more than its share of what is in flight.
    fn by_key(&self, key: u64, table: &Hashed, most: MaxLoad, ask: &Ask<'_>) -> Option<&Place> {
        let share = 1.0 / self.places.len() as f32;
        (0..DRAWS as u64).map(|attempt| &self.places[table.place(key, attempt)]).find(|place| {
            let endpoint = &place.endpoint;
            let most = most.bound(ask.in_flight, share * place.weight);
            self.has_room(endpoint)
                && most.is_none_or(|most| endpoint.in_flight() < most)
                && !is_among(endpoint, ask.tried)
        })
    }

    /// Whether the endpoint may be used: it has room, was not tried, and its share allows it.
    fn admits(&self, place: &Place, ask: &Ask<'_>, random: &mut u64) -> bool {
        self.has_room(&place.endpoint)
            && (ask.tried.is_empty() || !is_among(&place.endpoint, ask.tried))
            && (ask.now >= self.warming_until || self.is_warm_enough(&place.endpoint, ask, random))
    }

    fn has_room(&self, endpoint: &Endpoint) -> bool {
        endpoint.in_flight() < self.limits.in_flight
    }

    /// An endpoint whose share grows is passed over with the probability of what it lacks.
    fn is_warm_enough(&self, endpoint: &Endpoint, ask: &Ask<'_>, random: &mut u64) -> bool {
        let Some(since) = endpoint.warming_since() else { return true };
        let share = ask.now.since(since).as_secs_f32() / self.limits.slow_start.as_secs_f32();
        share >= 1.0 || (next(random) >> 40) as f32 / (1 << 24) as f32 <= share.max(LEAST_SHARE)
    }

    /// Looks at all endpoints: those tried the fewest times, not the one tried last if there is
    /// another, and of these the one with the fewest requests.
    fn scan(&self, ask: &Ask<'_>, mut random: u64) -> Option<&Arc<Endpoint>> {
        let count = self.places.len();
        let start = next(&mut random) as usize % count.max(1);
        let in_turn = self.places[start..].iter().chain(&self.places[..start]);
        in_turn.map(|place| &place.endpoint).filter(|endpoint| self.has_room(endpoint)).min_by_key(
            |endpoint| {
                let times = ask.tried.iter().filter(|tried| Arc::ptr_eq(tried, endpoint)).count();
                let is_last = ask.tried.last().is_some_and(|last| Arc::ptr_eq(last, endpoint));
                (times, is_last, endpoint.in_flight())
            },
        )
    }
}

impl Place {
    /// What one more request costs here. A heavy endpoint may have more requests than others before
    /// it counts as busier: so weights decide where little is going on.
    fn cost(&self, cost: Cost, now: Moment) -> f32 {
        let in_flight = (self.endpoint.in_flight() as f32 / self.weight) as u32;
        match cost {
            Cost::Requests => self.endpoint.load.requests(in_flight, now),
            Cost::Latency => self.endpoint.load.millis(in_flight, now),
        }
    }
}

fn is_among(endpoint: &Arc<Endpoint>, tried: &[Arc<Endpoint>]) -> bool {
    tried.iter().any(|tried| Arc::ptr_eq(tried, endpoint))
}

/// The next random number after `state`: SplitMix64 (Steele, Lea, Flood, 2014).
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}
