//! Authorities that ask a service: what is remembered of its earlier answers, and what an answer means.
//!
//! `runtime::inquiry` asks; what is asked and what follows from the answer is decided here.

use std::sync::Arc;
use std::time::Duration;

use super::Now;
use super::denial::Denial;
use super::digest::Digest;
use super::forward::Forwarder;
use super::identity::Identity;
use super::introspection::Introspector;
use super::memory::{Memory, Turn, Waited};

/// How an authority asks a service.
pub enum Inquiry {
    /// About a bearer token, by its authorization server.
    Introspection(Introspector),
    /// About the request.
    Forward(Forwarder),
}

impl Inquiry {
    /// The entry of `auth:`.
    pub fn authority(&self) -> &Arc<str> {
        match self {
            Inquiry::Introspection(introspector) => &introspector.authority,
            Inquiry::Forward(forwarder) => &forwarder.authority,
        }
    }

    /// The time limit of one question.
    pub fn timeout(&self) -> Duration {
        match self {
            Inquiry::Introspection(introspector) => *introspector.config.timeout,
            Inquiry::Forward(forwarder) => *forwarder.config.timeout,
        }
    }

    /// The most questions under way at once.
    pub fn max_in_flight(&self) -> usize {
        let most = match self {
            Inquiry::Introspection(introspector) => introspector.config.max_in_flight,
            Inquiry::Forward(forwarder) => forwarder.config.max_in_flight,
        };
        usize::try_from(most.get()).unwrap_or(usize::MAX)
    }

    /// What the service has said of the credentials, if it may still be believed.
    pub fn recall(&self, key: &Digest, now: Now) -> Option<Result<Arc<Identity>, Denial>> {
        self.memory()?.recall(key, now, |identity| self.is_over(identity, now))
    }

    /// Waits for the right to ask about the credentials, or for the answer of another request.
    pub async fn turn(&self, key: &Digest, now: Now) -> Waited<'_> {
        let Some(memory) = self.memory() else { return Waited::Each };
        memory.turn(key, now, |identity| self.is_over(identity, now)).await
    }

    /// Remembers an answer for those who come, if it `may_be_kept`, and lets those who wait go on.
    pub fn keep(
        &self,
        key: Digest,
        turn: Turn<'_>,
        answer: &Result<Arc<Identity>, Denial>,
        may_be_kept: bool,
        now: Now,
    ) {
        if let Some(memory) = self.memory() {
            memory.keep(key, turn, answer, may_be_kept, now.moment);
        }
    }

    /// The denial of who asked in vain. `why` completes the sentence that begins with the authority.
    pub fn unanswered(&self, why: impl Into<Box<str>>) -> Denial {
        let why: Box<str> = why.into();
        Denial::Unanswered { authority: self.authority().clone(), why: why.into() }
    }

    fn memory(&self) -> Option<&Memory> {
        match self {
            Inquiry::Introspection(introspector) => introspector.memory.as_ref(),
            Inquiry::Forward(forwarder) => forwarder.memory.as_ref(),
        }
    }

    fn is_over(&self, identity: &Identity, now: Now) -> bool {
        match self {
            Inquiry::Introspection(introspector) => {
                introspector.is_over(identity, now.unix_seconds)
            }
            Inquiry::Forward(_) => false,
        }
    }
}
