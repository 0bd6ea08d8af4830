//! The parts of a route's list of limits: those that are enforced, and dry runs.
//!
//! Within a part a request counts in all limits or in none. A request that the enforced limits
//! refuse does not count in dry ones, and one that a dry limit would have refused counts in the
//! enforced ones alone: they count what passes. See [`dry_run`](crate::policy::dry_run).

use std::sync::Arc;

use super::Limiter;

/// Which limits of a list are checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// All of them; of a list without dry runs.
    All,
    /// Those that refuse.
    Enforced,
    /// Those that let pass.
    Dry,
}

impl Part {
    /// The part of `limiters` that can refuse, and the dry part, if there is one.
    pub fn of(limiters: &[Arc<Limiter>]) -> (Part, Option<Part>) {
        match limiters.iter().any(|limiter| limiter.is_dry()) {
            true => (Part::Enforced, Some(Part::Dry)),
            false => (Part::All, None),
        }
    }

    /// The limits of the part that are `wanted`, with their places in the list.
    pub(super) fn numbered(
        self,
        limiters: &[Arc<Limiter>],
        wanted: impl Fn(&Limiter) -> bool + Clone,
    ) -> impl Iterator<Item = (usize, &Arc<Limiter>)> + Clone {
        let numbered = limiters.iter().enumerate();
        numbered.filter(move |(_, limiter)| self.has(limiter) && wanted(limiter))
    }

    pub(super) fn has(self, limiter: &Limiter) -> bool {
        match self {
            Part::All => true,
            Part::Enforced => !limiter.is_dry(),
            Part::Dry => limiter.is_dry(),
        }
    }
}

impl Limiter {
    /// Whether the limit lets pass what it would refuse.
    pub fn is_dry(&self) -> bool {
        self.config.enforce.is_dry()
    }
}
