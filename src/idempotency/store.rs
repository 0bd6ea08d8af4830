//! What a store of keys must provide. Each step is one statement, and safe to repeat.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use uuid::Uuid;

use crate::policy::idempotency::{Answer, Entry, Fingerprint, Kept, Scope, Stamp, State};
use crate::record::store::error::Lost;

/// A request that wants to be the first with its key.
#[derive(Clone, Debug)]
pub struct Claim {
    /// What the key is looked up by.
    pub scope: Scope,
    /// Tells whether a later request is the same.
    pub fingerprint: Fingerprint,
    /// For operators who look into the store.
    pub route: Arc<str>,
    /// How long the request may take, whatever its outcome.
    pub lease: Duration,
    /// How long the key counts, from the claim and again from its response.
    pub ttl: Duration,
    /// Different for every claim.
    pub owner: Uuid,
}

/// The entry found, who holds it, and the store's current time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) entry: Entry,
    pub(super) owner: Uuid,
    pub(super) now: Stamp,
}

impl Found {
    /// Whether the first request has its response.
    pub(super) fn is_answered(&self) -> bool {
        matches!(self.entry.state, State::Answered(_))
    }
}

/// The result of inserting a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Insertion {
    /// The key was new, and is leased.
    Done,
    /// There is an entry for the key.
    Taken,
    /// The key may be new, but there is no room for it. Existing entries can still be found.
    NoRoom,
}

impl From<bool> for Insertion {
    fn from(done: bool) -> Self {
        if done { Insertion::Done } else { Insertion::Taken }
    }
}

#[async_trait]
pub(super) trait Store: Send + Sync {
    /// Connects if need be and brings the schema up to date.
    async fn migrate(&self) -> Result<(), Lost>;

    /// Leases the key, unless there is an entry for it.
    async fn insert(&self, claim: &Claim) -> Result<Insertion, Lost>;

    async fn find(&self, scope: &Scope) -> Result<Option<Found>, Lost>;

    /// Leases the key in place of `found`, unless that has changed. Returns whether it was leased.
    async fn take_over(&self, claim: &Claim, found: &Found) -> Result<bool, Lost>;

    /// Keeps the response of the key's owner; without its body, if there is no room for that.
    /// Returns whether the owner still held the key.
    async fn keep(
        &self,
        scope: &Scope,
        owner: Uuid,
        answer: &Answer,
        ttl: Duration,
    ) -> Result<bool, Lost>;

    /// Deletes a key whose owner has sent nothing.
    async fn release(&self, scope: &Scope, owner: Uuid) -> Result<(), Lost>;

    /// Deletes up to `at_most` expired keys, and returns how many.
    async fn expire(&self, at_most: u32) -> Result<u64, Lost>;
}

/// A row as both stores return it, with times as stamps.
pub(super) struct Row {
    pub(super) fingerprint: Vec<u8>,
    pub(super) owner: Uuid,
    pub(super) lease_until: i64,
    pub(super) expires_at: i64,
    pub(super) status: Option<i32>,
    pub(super) head: Option<Vec<u8>>,
    pub(super) body: Option<Vec<u8>>,
    pub(super) trailers: Option<Vec<u8>>,
    pub(super) now: i64,
}

impl Row {
    pub(super) fn read(self) -> Result<Found, Lost> {
        let strange = || Lost("a row of idempotency_keys is not as it was written".to_owned());
        let fingerprint = self.fingerprint.try_into().map_err(|_| strange())?;
        let state = match self.status {
            None => State::Leased { until: stamp(self.lease_until) },
            Some(status) => {
                let status = u16::try_from(status).map_err(|_| strange())?;
                let (head, body) = (self.head.unwrap_or_default(), self.body.map(Bytes::from));
                let kept = Kept { status, head, body, trailers: self.trailers };
                State::Answered(Answer::read(kept).ok_or_else(strange)?)
            }
        };
        Ok(Found {
            entry: Entry {
                fingerprint: Fingerprint(fingerprint),
                state,
                expires_at: stamp(self.expires_at),
            },
            owner: self.owner,
            now: stamp(self.now),
        })
    }
}

/// Our times are never before 1970.
fn stamp(millis: i64) -> Stamp {
    Stamp(u64::try_from(millis).unwrap_or(0))
}
