//! Combines limits that replicas count together with limits that are counted here.
//!
//! How a store counts is its own concern. This module decides what its verdict means for a request,
//! and what happens if it does not respond. A request must be within all limits, and counts in all
//! or none.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{
    Limiter, OnFailure, Part, Requester, Standing, Verdict, check_part, count_all, longest_refusal,
    look_then_count,
};
use crate::time::Moment;

/// What the store replied about a route's shared limits.
#[derive(Debug, Default)]
pub enum Heard {
    /// No store was asked: all limits are counted here.
    #[default]
    Nothing,
    /// A verdict for each shared limit, in order.
    Verdicts {
        /// One for each shared limit, in the order of the route's list.
        verdicts: Vec<Verdict>,
        /// What [`refused_here`] returned before; if it refused, the store did not count the
        /// request.
        refused_here: Option<Standing>,
        /// The same of dry limits; if one would have refused, the store counted the request in
        /// enforced limits only.
        would_refuse_here: Option<Standing>,
    },
    /// The store is down, or did not reply in time.
    Unavailable,
}

/// The store is unavailable, and a limit is configured to refuse then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreUnavailable;

/// The longest refusal among the limits of `part` that are counted here, without counting: if one of
/// them refuses a request, it does not count in the shared limits either.
pub fn refused_here(
    limiters: &[Arc<Limiter>],
    requester: &Requester<'_>,
    part: Part,
    now: Moment,
) -> Option<Standing> {
    let seen = part.numbered(limiters, |limiter| !limiter.is_shared());
    longest_refusal(seen.map(|(limit, limiter)| Standing::new(limit, limiter.peek(requester, now))))
}

/// Checks the limits of `part`, some of which may be shared; a request must be within all of them,
/// and counts in all or none. Returns the strictest: of refusals the longest, else the one with the
/// fewest requests remaining, for the longest time; `None` without limits.
///
/// All limits are checked before the request is counted in any. If another thread then takes the
/// last request of a limit, what was counted in the limits before it is given back.
///
/// # Errors
/// The store is unavailable, and one of its limits has `on_failure: closed`.
pub fn check_shared(
    limiters: &[Arc<Limiter>],
    requester: &Requester<'_>,
    heard: &Heard,
    part: Part,
    now: Moment,
) -> Result<Option<Standing>, StoreUnavailable> {
    let standing = match heard {
        Heard::Nothing => return Ok(check_part(limiters, requester, part, now)),
        Heard::Verdicts { verdicts, refused_here, would_refuse_here } => {
            let refused_here = match part {
                Part::All | Part::Enforced => refused_here,
                Part::Dry => would_refuse_here,
            };
            together(limiters, requester, verdicts, *refused_here, part, now)
        }
        Heard::Unavailable => without_store(limiters, requester, part, now)?,
    };
    if let Some(refusal) = standing.filter(|standing| !standing.verdict.admitted) {
        limiters[refusal.limit].note_refusal();
    }
    Ok(standing)
}

/// What the operator is told: the stores without which these limits refuse are unavailable.
pub fn closed_without(limiters: &[Arc<Limiter>]) -> String {
    let shared = limiters.iter().filter_map(|limiter| limiter.config().shared.as_ref());
    let closed = shared.filter(|shared| shared.on_failure == OnFailure::Closed);
    let names: BTreeSet<_> = closed.map(|s| format!("rate_limit_stores.{}", s.store)).collect();
    let names: Vec<_> = names.into_iter().collect();
    format!("{}: away, or did not answer in time", names.join(", "))
}

fn together(
    limiters: &[Arc<Limiter>],
    requester: &Requester<'_>,
    verdicts: &[Verdict],
    refused_here: Option<Standing>,
    part: Part,
    now: Moment,
) -> Option<Standing> {
    let told = || {
        let shared = Part::All.numbered(limiters, Limiter::is_shared).zip(verdicts);
        let of_part = shared.filter(move |((_, limiter), _)| part.has(limiter));
        of_part.map(|((limit, _), verdict)| Standing::new(limit, *verdict))
    };
    if let Some(refusal) = longest_refusal(told().chain(refused_here)) {
        return Some(refusal);
    }
    let backed_up = |limiter: &Limiter| limiter.on_failure() == Some(OnFailure::Local);
    for (_, limiter) in part.numbered(limiters, backed_up) {
        // Counted here as well, so that this replica knows the count if it must decide alone later.
        limiter.check(requester, now);
    }
    let strictest =
        told().reduce(|one, other| if other.is_stricter_than(&one) { other } else { one });
    let first = told().find_map(|standing| standing.first);
    let strictest = strictest.map(|standing| Standing { first, ..standing });
    count_all(part.numbered(limiters, |limiter| !limiter.is_shared()), strictest, requester, now)
}

fn without_store(
    limiters: &[Arc<Limiter>],
    requester: &Requester<'_>,
    part: Part,
    now: Moment,
) -> Result<Option<Standing>, StoreUnavailable> {
    let closed = |limiter: &Limiter| limiter.on_failure() == Some(OnFailure::Closed);
    if part.numbered(limiters, closed).next().is_some() {
        return Err(StoreUnavailable);
    }
    let applies = |limiter: &Limiter| limiter.on_failure() != Some(OnFailure::Open);
    Ok(look_then_count(part.numbered(limiters, applies), requester, now))
}

impl Limiter {
    fn is_shared(&self) -> bool {
        self.config.shared.is_some()
    }

    /// `None` for a limit that is counted here only.
    fn on_failure(&self) -> Option<OnFailure> {
        self.config.shared.as_ref().map(|shared| shared.on_failure)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};
    use std::time::Duration;

    use http::HeaderMap;

    use super::super::{Algorithm, Config, FixedWindow, Key, Replays, Shared};
    use super::*;
    use crate::policy::dry_run::Enforce;
    use crate::units::Timespan;

    /// A limit of `requests` a minute. It is shared if `on_failure` is given.
    fn limit(requests: u32, on_failure: Option<OnFailure>) -> Arc<Limiter> {
        let per = Timespan::from_secs(60);
        Arc::new(Limiter::new(Config {
            algorithm: Algorithm::FixedWindow(FixedWindow { requests, per }),
            key: Key::default(),
            cost: 1,
            replays: Replays::Counted,
            max_keys: 10,
            shared: on_failure.map(|on_failure| Shared { store: "redis".to_owned(), on_failure }),
            enforce: Enforce::Yes,
        }))
    }

    fn says(admitted: bool, remaining: u32, seconds: u64) -> Verdict {
        let wait = Duration::from_secs(seconds);
        let retry_after = if admitted { Duration::ZERO } else { wait };
        Verdict { admitted, limit: 9, remaining, reset_after: wait, retry_after }
    }

    fn check(
        limiters: &[Arc<Limiter>],
        verdicts: Option<Vec<Verdict>>,
    ) -> Option<Option<Standing>> {
        let headers = HeaderMap::new();
        let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let requester = Requester { consumer: None, claims: None, address, headers: &headers };
        let refused_here = refused_here(limiters, &requester, Part::All, Moment::ZERO);
        let heard = match verdicts {
            Some(verdicts) => Heard::Verdicts { verdicts, refused_here, would_refuse_here: None },
            None => Heard::Unavailable,
        };
        check_shared(limiters, &requester, &heard, Part::All, Moment::ZERO).ok()
    }

    fn admitted(limiters: &[Arc<Limiter>], verdicts: Option<Vec<Verdict>>) -> bool {
        let standing = check(limiters, verdicts).expect("an answer");
        standing.is_none_or(|standing| standing.verdict.admitted)
    }

    #[test]
    fn a_request_the_store_refuses_counts_in_no_limit_here() {
        let limits = [limit(1, None), limit(9, Some(OnFailure::Local))];
        assert!(!admitted(&limits, Some(vec![says(false, 0, 1)])));
        assert!(admitted(&limits, Some(vec![says(true, 8, 1)])));
        assert!(!admitted(&limits, Some(vec![says(true, 7, 1)])), "the limit here is used up");
    }

    #[test]
    fn of_refusals_here_and_there_the_longest_speaks() {
        let limits = [limit(1, None), limit(9, Some(OnFailure::Open))];
        check(&limits, Some(vec![says(true, 8, 1)]));
        let standing = |seconds| check(&limits, Some(vec![says(false, 0, seconds)])).flatten();
        assert_eq!(standing(59).map(|standing| standing.limit), Some(0));
        assert_eq!(standing(61).map(|standing| standing.limit), Some(1));
    }

    #[test]
    fn of_limits_here_and_there_the_strictest_speaks() {
        let limits = [limit(5, None), limit(9, Some(OnFailure::Open))];
        let standing = |remaining| check(&limits, Some(vec![says(true, remaining, 1)])).flatten();
        assert_eq!(standing(8).map(|s| (s.limit, s.verdict.remaining)), Some((0, 4)));
        assert_eq!(standing(2).map(|s| (s.limit, s.verdict.remaining)), Some((1, 2)));
    }

    #[test]
    fn of_the_first_limit_it_is_known_what_is_left_whoever_speaks() {
        let first_shared = [limit(9, Some(OnFailure::Open)), limit(2, None)];
        let left = |verdict| check(&first_shared, Some(vec![verdict])).flatten();
        let left = |verdict| left(verdict).map(|s: Standing| (s.limit, s.first));
        assert_eq!(left(says(true, 8, 1)), Some((1, Some(8))));
        assert_eq!(left(says(true, 7, 1)), Some((1, Some(7))));
        // Refused by the second: the first, which had 7 left, has not counted the request.
        assert_eq!(left(says(true, 6, 1)), Some((1, Some(7))));
        assert_eq!(left(says(false, 0, 99)), Some((0, Some(0))));
        let first_here = [limit(2, None), limit(9, Some(OnFailure::Open))];
        let left = |verdict| check(&first_here, Some(vec![verdict])).flatten();
        assert_eq!(left(says(true, 0, 1)).map(|s| (s.limit, s.first)), Some((1, Some(1))));
    }

    #[test]
    fn a_refusal_is_noted_with_the_limit_it_is_for() {
        let limits = [limit(5, None), limit(9, Some(OnFailure::Open))];
        check(&limits, Some(vec![says(false, 0, 1)]));
        assert_eq!(limits.map(|limit| limit.refused()), [0, 1]);
    }

    #[test]
    fn without_the_store_each_limit_does_as_it_says() {
        let open = [limit(1, Some(OnFailure::Open))];
        assert!((0..9).all(|_| admitted(&open, None)));
        let closed = [limit(5, None), limit(9, Some(OnFailure::Closed))];
        assert_eq!(check(&closed, None), None);
        let local = [limit(2, Some(OnFailure::Local)), limit(1, Some(OnFailure::Open))];
        assert_eq!([(); 3].map(|()| admitted(&local, None)), [true, true, false]);
        let mixed = [limit(1, Some(OnFailure::Open)), limit(2, None)];
        assert_eq!([(); 3].map(|()| admitted(&mixed, None)), [true, true, false]);
    }

    #[test]
    fn a_limit_that_must_decide_alone_knows_what_has_passed_here() {
        let limits = [limit(3, Some(OnFailure::Local))];
        assert!((0..2).all(|_| admitted(&limits, Some(vec![says(true, 1, 1)]))));
        assert!(!admitted(&limits, Some(vec![says(false, 0, 1)])), "which is not counted");
        assert_eq!([(); 2].map(|()| admitted(&limits, None)), [true, false]);
    }
}
