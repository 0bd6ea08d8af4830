//! The endpoints of an upstream at one moment.
//!
//! A set is immutable and replaced as a whole, by whoever changes the members or what is available
//! of them; a request only reads it.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use super::balance::{Ask, Limits, Policy, Pool};
use super::config::{Url, is_of};
use super::endpoint::{Address, Endpoint, Key};
use super::standing::Absence;

/// An endpoint and its part in the set.
#[derive(Debug, Clone)]
pub struct Member {
    /// Kept for as long as its key is in the set.
    pub endpoint: Arc<Endpoint>,
    /// Its share of the requests is its weight divided by the sum of all; above 0.
    pub weight: u32,
    /// It gets requests only while no other endpoint is available.
    pub backup: bool,
}

impl Member {
    /// Whether it is taken out, and not to be used in any case.
    pub(super) fn is_drained(&self) -> bool {
        self.endpoint.standing.has(Absence::Drained)
    }
}

/// All endpoints, and those that are to be used.
#[derive(Debug)]
pub struct Set {
    members: Box<[Member]>,
    used: Pool,
    /// The available backups, while other endpoints are used: for requests that have tried them all.
    spare: Option<Pool>,
}

impl Set {
    pub(super) fn new(members: Vec<Member>, policy: Policy, limits: Limits) -> Self {
        let pool = |chosen: &dyn Fn(&Member) -> bool| {
            let chosen = members.iter().filter(|member| chosen(member));
            let endpoints = chosen.map(|member| (member.endpoint.clone(), member.weight));
            Pool::new(endpoints.collect(), policy, limits)
        };
        let is_available = |member: &Member| member.endpoint.standing.is_available();
        let primary = pool(&|member| !member.backup && is_available(member));
        let backup = pool(&|member| member.backup && is_available(member));
        let (used, spare) = match (primary.is_empty(), backup.is_empty()) {
            (false, false) => (primary, Some(backup)),
            (false, true) => (primary, None),
            (true, false) => (backup, None),
            // None is available. Any may have recovered, so all get their share.
            (true, true) => (pool(&|member| !member.is_drained()), None),
        };
        Set { members: members.into(), used, spare }
    }

    /// Every endpoint, whether or not it is used.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The endpoint with this key.
    pub(super) fn endpoint(&self, key: &Key) -> Option<&Arc<Endpoint>> {
        let same = |member: &&Member| member.endpoint.key == *key;
        self.members.iter().find(same).map(|member| &member.endpoint)
    }

    /// The addresses that are known of `url`.
    pub(super) fn addresses(&self, url: &Url) -> Vec<Address> {
        let of_url = self.members.iter().filter(|member| is_of(url, &member.endpoint.key));
        of_url.map(|member| member.endpoint.key.address.clone()).collect()
    }

    /// Whether no endpoint is known.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// The endpoint of a request; `None` if there is none with room for it.
    pub(super) fn pick(&self, ask: &Ask<'_>, turn: &AtomicUsize) -> Option<&Arc<Endpoint>> {
        if let Some(spare) = &self.spare
            && !ask.tried.is_empty()
            && !self.used.has_untried(ask.tried)
            && spare.has_untried(ask.tried)
        {
            return spare.pick(ask, turn);
        }
        self.used.pick(ask, turn)
    }

    /// Whether there is an endpoint that the request has not been sent to, neither now nor before.
    pub(super) fn has_other(&self, tried: &[Arc<Endpoint>], now: &Arc<Endpoint>) -> bool {
        let pools = [Some(&self.used), self.spare.as_ref()];
        pools.into_iter().flatten().any(|pool| pool.has_other(tried, now))
    }
}
