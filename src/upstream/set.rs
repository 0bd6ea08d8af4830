//! The endpoints of an upstream at one moment.
//!
//! A set is immutable and replaced as a whole, by what changes the members or what is available
//! of them; a request only reads it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use super::balance::{Ask, Limits, Policy, Pool};
use super::config::{NoneAvailable, Url, Use, is_of};
use super::ejection;
use super::endpoint::{Address, Endpoint, Key};

/// The most endpoints that a line of the log names.
const MOST_NAMED: usize = 10;

/// An endpoint and its part in the set.
#[derive(Debug, Clone)]
pub struct Member {
    /// Kept for as long as its key is in the set.
    pub endpoint: Arc<Endpoint>,
    /// Its share of the requests is its weight divided by the sum of all; above 0. An operator may
    /// have ordered another one.
    pub weight: u32,
    /// It gets requests only while no other endpoint is available.
    pub backup: bool,
}

impl Member {
    /// Whether it is taken out, and not to be used in any case.
    pub(super) fn is_drained(&self) -> bool {
        self.endpoint.standing.is_drained()
    }

    /// Its weight, or the one that an operator has ordered.
    pub fn weight_in_force(&self) -> u32 {
        self.endpoint.orders.weight().unwrap_or(self.weight)
    }
}

/// What holds for the sets of an upstream.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules<'a> {
    pub(super) policy: &'a Policy,
    pub(super) limits: Limits,
    pub(super) none_available: NoneAvailable,
    pub(super) ejection: Option<&'a ejection::config::Config>,
}

/// Numbers of endpoints, of those that are not drained.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// All of them.
    pub known: usize,
    /// Those that are available.
    pub available: usize,
    /// Those that are ejected.
    pub ejected: usize,
}

/// All endpoints, and those that are to be used.
#[derive(Debug)]
pub struct Set {
    members: Box<[Member]>,
    /// What is used, and of how many.
    pub usage: Use,
    /// How many there are.
    pub counts: Counts,
    /// Whether another endpoint may be ejected.
    may_eject: bool,
    /// Whether backups stand in for the others.
    backups: bool,
    used: Pool,
    /// The available backups, while other endpoints are used: for requests that have tried them all.
    spare: Option<Pool>,
}

impl Set {
    pub(super) fn new(members: Vec<Member>, rules: Rules<'_>) -> Self {
        let pool = |chosen: &dyn Fn(&Member) -> bool| {
            let chosen = members.iter().filter(|member| chosen(member));
            let endpoints =
                chosen.map(|member| (member.endpoint.clone(), member.weight_in_force()));
            Pool::new(endpoints.collect(), rules.policy, rules.limits)
        };
        let count = |of: &dyn Fn(&Member) -> bool| members.iter().filter(|m| of(m)).count();
        let is_available = |member: &Member| member.endpoint.standing.is_available();
        let counts = Counts {
            known: count(&|member| !member.is_drained()),
            available: count(&is_available),
            ejected: count(&|member| !member.is_drained() && member.endpoint.standing.is_ejected()),
        };
        // Backups stand in for the others only if none of these is available.
        let backups = counts.available > 0 && count(&|m| !m.backup && is_available(m)) == 0;
        let alike = count(&|member| member.backup == backups && !member.is_drained());
        let left = count(&|member| member.backup == backups && is_available(member));
        let usage = match counts.available {
            0 => rules.none_available.usage(0, counts.known),
            _ => rules.none_available.usage(left, alike),
        };
        let used = match usage {
            Use::Available => pool(&|member| member.backup == backups && is_available(member)),
            // Any may have recovered, so all get their share; without one, the backups too.
            Use::All => pool(&|member| {
                !member.is_drained() && (counts.available == 0 || member.backup == backups)
            }),
            Use::None => pool(&|_| false),
        };
        let spare = (!backups).then(|| pool(&|member| member.backup && is_available(member)));
        let spare = spare.filter(|spare| !spare.is_empty() && !used.is_empty());
        let room = |config: &ejection::config::Config| {
            counts.ejected < config.most_ejected(counts.known) && counts.available > 1
        };
        let may_eject = rules.ejection.is_some_and(room);
        Set { members: members.into(), usage, counts, may_eject, backups, used, spare }
    }

    /// Whether this endpoint may be ejected: it is here and available, another one is, and not too
    /// many are ejected.
    pub(super) fn may_eject(&self, endpoint: &Endpoint) -> bool {
        let is_here = |member: &Member| std::ptr::eq(&*member.endpoint, endpoint);
        self.may_eject && endpoint.standing.is_available() && self.members.iter().any(is_here)
    }

    /// Whether another endpoint may be ejected at all.
    pub(super) fn may_eject_any(&self) -> bool {
        self.may_eject
    }

    /// Whether endpoints of this kind are used, as far as they are available.
    pub(super) fn uses(&self, member: &Member) -> bool {
        member.backup == self.backups || self.counts.available == 0
    }

    /// Every endpoint, whether or not it is used.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The endpoints by their key.
    pub(super) fn by_key(&self) -> HashMap<&Key, &Arc<Endpoint>> {
        self.members.iter().map(|member| (&member.endpoint.key, &member.endpoint)).collect()
    }

    /// The addresses that are known of `url`.
    pub(super) fn addresses(&self, url: &Url) -> Vec<Address> {
        let of_url = self.members.iter().filter(|member| is_of(url, &member.endpoint.key));
        of_url.map(|member| member.endpoint.key.address.clone()).collect()
    }

    /// Which endpoints have come and gone between this set and `after`, in words.
    pub(super) fn change(&self, after: &Set) -> Option<String> {
        let lacking = |from: &Set, all: &Set| {
            let from = from.by_key();
            let gone = all.members.iter().filter(|one| !from.contains_key(&one.endpoint.key));
            let gone: Vec<_> = gone.map(|member| &*member.endpoint.label).collect();
            match gone.len().checked_sub(MOST_NAMED) {
                None | Some(0) => gone.join(", "),
                Some(more) => format!("{} and {more} more", gone[..MOST_NAMED].join(", ")),
            }
        };
        let (came, left) = (lacking(self, after), lacking(after, self));
        let came = (!came.is_empty()).then(|| format!("{came} came"));
        let left = (!left.is_empty()).then(|| format!("{left} left"));
        let words = came.into_iter().chain(left).collect::<Vec<_>>().join("; ");
        let count = after.members.len();
        (!words.is_empty()).then(|| format!("{words}; endpoints now: {count}"))
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
