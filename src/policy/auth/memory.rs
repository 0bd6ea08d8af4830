//! What services have said of credentials, for as long as that may be believed.
//!
//! Those who may pass and those who may not have tables of their own, so that a flood of bad
//! credentials drives no good ones out.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use quick_cache::sync::{Cache, PlaceholderGuard};
use quick_cache::{DefaultHashBuilder, UnitWeighter};

use super::Now;
use super::denial::Denial;
use super::digest::Digest;
use super::identity::Identity;
use crate::time::Moment;

/// Earlier answers of one service.
pub(super) struct Memory {
    ttl: Duration,
    refused_ttl: Duration,
    passed: Cache<Digest, Passed>,
    refused: Cache<Digest, Refused>,
}

#[derive(Clone)]
struct Passed {
    /// `None` only tells those who wait that each may ask.
    identity: Option<Arc<Identity>>,
    until: Moment,
}

#[derive(Clone)]
struct Refused {
    denial: Denial,
    until: Moment,
}

/// The right to ask about credentials. Others with the same credentials wait for the answer; if it is not
/// kept, each of them asks. If the right is dropped without an answer, the next of them has it.
pub struct Turn<'a>(
    PlaceholderGuard<
        'a,
        Digest,
        Passed,
        UnitWeighter,
        DefaultHashBuilder,
        quick_cache::sync::DefaultLifecycle<Digest, Passed>,
    >,
);

/// What came of waiting for the right to ask.
pub enum Waited<'a> {
    /// It is this request's.
    Turn(Turn<'a>),
    /// Another request has been answered meanwhile: this one may pass, too.
    Passed(Arc<Identity>),
    /// Another request has been answered, which says nothing about this one, or nothing is remembered: each may ask.
    Each,
}

impl Memory {
    /// Remembers at most `most` of each kind; who is refused, not at all if `refused_ttl` is zero.
    pub(super) fn new(most: NonZeroU32, ttl: Duration, refused_ttl: Duration) -> Self {
        let most = usize::try_from(most.get()).unwrap_or(usize::MAX);
        let refused = if refused_ttl.is_zero() { 0 } else { most };
        Memory { ttl, refused_ttl, passed: Cache::new(most), refused: Cache::new(refused) }
    }

    /// What was said, if it may still be believed. `is_over` tells of an identity's `exp`.
    pub(super) fn recall(
        &self,
        key: &Digest,
        now: Now,
        is_over: impl Fn(&Identity) -> bool,
    ) -> Option<Result<Arc<Identity>, Denial>> {
        if let Some(passed) = self.passed.get(key)
            && now.moment < passed.until
            && let Some(identity) = passed.identity
            && !is_over(&identity)
        {
            return Some(Ok(identity));
        }
        let refused = self.refused.get(key).filter(|refused| now.moment < refused.until)?;
        Some(Err(refused.denial))
    }

    /// Waits for the right to ask, or for another request's answer. That is not in the table yet when those who wait
    /// hear of it.
    pub(super) async fn turn(
        &self,
        key: &Digest,
        now: Now,
        is_over: impl Fn(&Identity) -> bool,
    ) -> Waited<'_> {
        // An old answer would be taken for a new one.
        self.passed.remove_if(key, |passed| {
            now.moment >= passed.until || passed.identity.as_deref().is_none_or(&is_over)
        });
        match self.passed.get_value_or_guard_async(key).await {
            Err(guard) => Waited::Turn(Turn(guard)),
            Ok(Passed { identity: Some(identity), .. }) => Waited::Passed(identity),
            Ok(Passed { identity: None, .. }) => Waited::Each,
        }
    }

    /// Remembers an answer, if it `may_be_kept`, and lets those who wait go on.
    pub(super) fn keep(
        &self,
        key: Digest,
        turn: Turn<'_>,
        answer: &Result<Arc<Identity>, Denial>,
        may_be_kept: bool,
        now: Moment,
    ) {
        match answer {
            Ok(identity) if may_be_kept && !self.ttl.is_zero() => {
                let passed = Passed { identity: Some(identity.clone()), until: now + self.ttl };
                // Fails if the entry was removed meanwhile; then it is asked again.
                let _ = turn.0.insert(passed);
                return;
            }
            Err(denial) if may_be_kept && denial.is_final() && !self.refused_ttl.is_zero() => {
                let refused = Refused { denial: denial.clone(), until: now + self.refused_ttl };
                self.refused.insert(key, refused);
            }
            Ok(_) | Err(_) => {}
        }
        // Dropped, the right would go to one of them after the other, each for the time of a question.
        let _ = turn.0.insert(Passed { identity: None, until: now });
        self.passed.remove_if(&key, |passed| passed.identity.is_none());
    }
}
