//! The order in which a request passes the policies and other steps, and the reason for it.
//!
//! There are two lists: the steps that check the client, and the steps before a call is made.
//! Between them a request may get a response without a call; today that is one kept for an
//! idempotency key. The request path walks both lists in its phase `request_filter`
//! (`proxy::request::admission`). Before the lists it checks the head, finds the route, and refuses
//! a request that this process has sent itself (`proxy::request::via`). Steps of policies are decided
//! here, or in the policy's own module; the request path does the rest: it reads bodies and asks
//! stores.
//!
//! Some things are decided outside the lists, because they are not decided once for each request:
//!
//! - whether there is another attempt: [`super::retry::decide`], however the last one ended;
//! - whether the circuits admit that attempt: the two circuits again, in their order here;
//! - which endpoint gets an attempt, and after which wait: `proxy::attempt::next`;
//! - whether the fallback upstream is called, after a refusal or a failed attempt:
//!   `proxy::attempt::divert`;
//! - which response replaces a refusal: [`super::fallback`].

mod circuits;

use std::hash::Hash;
use std::sync::Arc;

use circuits::through;
pub use circuits::{Again, Leave, again, leave};

use super::breaker::Breaker;
use super::dry_run::DryRun;
use super::rate_limit::{self, Heard, Part, Requester, Standing};
use super::{Admission, CircuitOf, Policies, Rejection, Taken};
use crate::time::Moment;

/// A step that checks the client and what it sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OfCaller {
    /// May the client's address use this route?
    Networks,
    /// Are there too many requests from this address?
    FloodGuard,
    /// Is the request well-formed in its own protocol?
    Form,
    /// Is the announced body too large?
    BodySize,
    /// Who is the client, and may it use this route?
    Credentials,
    /// Has it used up a limit? Takes from all of them, or none.
    RateLimits,
    /// Was the request made before? Claims its key.
    IdempotencyKey,
}

/// A step before the call to the upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OfCall {
    /// To which of the route's upstreams? Draws one if there are several; never refuses.
    Split,
    /// Does the route's circuit admit a call? Takes a permit.
    RouteCircuit,
    /// Does the upstream's circuit admit a call? Takes a permit.
    UpstreamCircuit,
    /// May the caller hold another slot, and is one free? Takes it, or waits for one.
    Bulkhead,
    /// Is an address of the upstream known?
    Endpoint,
    /// Is any time left?
    Deadline,
    /// Registers the request in its retry budget; never refuses.
    RetryBudget,
    /// Reads, completes or converts the body if the route asks for it.
    Body,
}

/// The steps that check the client, once the route is known.
pub const CALLER: [OfCaller; 7] = [
    // The cheapest: it looks at the address alone, and counts nothing.
    OfCaller::Networks,
    // A flood must cost next to nothing: it is counted by address alone, before anything is read.
    OfCaller::FloodGuard,
    // No later step can interpret a request that violates its own protocol. The client's own
    // deadline counts from here on, because later steps may wait for a store.
    OfCaller::Form,
    // The head announces the size, so no signature is verified and no limit counted for a body that
    // will be refused.
    OfCaller::BodySize,
    // Limits and idempotency keys belong to an identity, so it must be known.
    OfCaller::Credentials,
    // A request counts even if a later step refuses it. One refused by an earlier step does not.
    OfCaller::RateLimits,
    // A replayed response counts as a request, but needs neither permit nor slot. A key belongs to
    // its client.
    OfCaller::IdempotencyKey,
];

/// The steps before a call is made.
pub const CALL: [OfCall; 8] = [
    // First, because circuits, endpoints and budgets are those of the upstream that is drawn; after the
    // caller is known, because it may be drawn by consumer.
    OfCall::Split,
    // Circuits before the bulkhead: an open one costs no slot. A probe that a later step refuses
    // gives its place back. A request that waits for a slot does so, too, and asks the circuits
    // again once it has one: `after_wait`.
    OfCall::RouteCircuit,
    OfCall::UpstreamCircuit,
    OfCall::Bulkhead,
    // Without an endpoint there is no reason to wait for a body.
    OfCall::Endpoint,
    // Waiting for a store may have used up the request's time.
    OfCall::Deadline,
    // Only a request that will be sent earns retries.
    OfCall::RetryBudget,
    // Last, because it waits for the client: defaults are filled in, a message is transcoded.
    OfCall::Body,
];

impl OfCaller {
    /// The step's name, as `docs/architecture.md` has it.
    pub const fn name(self) -> &'static str {
        match self {
            OfCaller::Networks => "networks",
            OfCaller::FloodGuard => "flood_guard",
            OfCaller::Form => "form",
            OfCaller::BodySize => "body_size",
            OfCaller::Credentials => "credentials",
            OfCaller::RateLimits => "rate_limits",
            OfCaller::IdempotencyKey => "idempotency_key",
        }
    }
}

impl OfCall {
    /// The step's name, as `docs/architecture.md` has it.
    pub const fn name(self) -> &'static str {
        match self {
            OfCall::Split => "split",
            OfCall::RouteCircuit => "route_circuit",
            OfCall::UpstreamCircuit => "upstream_circuit",
            OfCall::Bulkhead => "bulkhead",
            OfCall::Endpoint => "endpoint",
            OfCall::Deadline => "deadline",
            OfCall::RetryBudget => "retry_budget",
            OfCall::Body => "body",
        }
    }

    /// Whether the step concerns the upstream that the route names. A request that falls back to
    /// another upstream skips it.
    pub const fn is_of_upstream(self) -> bool {
        match self {
            OfCall::Split
            | OfCall::RouteCircuit
            | OfCall::UpstreamCircuit
            | OfCall::Bulkhead
            | OfCall::Endpoint => true,
            OfCall::Deadline | OfCall::RetryBudget | OfCall::Body => false,
        }
    }

    /// Takes what the step's policy grants, into `admission`. Steps that are not decided by a
    /// policy take nothing. If a dry policy would refuse, that is noted in `dry_run`, and what
    /// `admission` holds of dry policies is given back.
    ///
    /// # Errors
    /// The policy refuses. Dropping `admission` gives back what was taken before.
    pub fn take(
        self,
        policies: &Policies,
        admission: &mut Admission,
        dry_run: &mut DryRun,
        now: Moment,
    ) -> Result<(), Rejection> {
        let was_over = dry_run.is_over();
        self.ask(policies, admission, dry_run, now)?;
        if dry_run.is_over() && !was_over {
            admission.give_back_dry(policies.breakers(), policies.bulkhead_enforce);
        }
        Ok(())
    }

    fn ask(
        self,
        policies: &Policies,
        admission: &mut Admission,
        dry_run: &mut DryRun,
        now: Moment,
    ) -> Result<(), Rejection> {
        // Destructured in full: a new policy does not compile until it has its step.
        let Policies {
            rate_limits: _,
            route_breaker,
            upstream_breaker,
            bulkhead,
            bulkhead_status,
            bulkhead_enforce,
        } = policies;
        match self {
            OfCall::RouteCircuit => {
                admission.route_permit = through(route_breaker, CircuitOf::Route, dry_run, now)?;
            }
            OfCall::UpstreamCircuit => {
                admission.upstream_permit =
                    through(upstream_breaker, CircuitOf::Upstream, dry_run, now)?;
            }
            OfCall::Bulkhead => {
                let Some(bulkhead) = bulkhead else { return Ok(()) };
                if bulkhead_enforce.is_dry() && dry_run.is_over() {
                    return Ok(());
                }
                match bulkhead.acquire(now) {
                    Ok(slot) => admission.slot = Some(slot),
                    Err(_) => {
                        let (what, status) = (Taken::Slots, bulkhead_status.code());
                        let full = Rejection::BulkheadFull { what, status };
                        if !bulkhead_enforce.is_dry() {
                            return Err(full);
                        }
                        dry_run.refuse(full.code());
                    }
                }
            }
            OfCall::Split
            | OfCall::Endpoint
            | OfCall::Deadline
            | OfCall::RetryBudget
            | OfCall::Body => {}
        }
        Ok(())
    }
}

/// Takes the caller's share of the bulkhead, before a slot is taken or waited for: a caller that holds
/// its whole share would only wait for its own requests, so it is refused. If a dry bulkhead would
/// refuse, that is noted in `dry_run`.
///
/// # Errors
/// The caller has as many requests under way as it may.
pub fn share(
    policies: &Policies,
    caller: &impl Hash,
    admission: &mut Admission,
    dry_run: &mut DryRun,
) -> Result<(), Rejection> {
    let Some(bulkhead) = &policies.bulkhead else { return Ok(()) };
    let is_dry = policies.bulkhead_enforce.is_dry();
    if is_dry && dry_run.is_over() {
        return Ok(());
    }
    match bulkhead.share(caller) {
        Ok(share) => admission.share = Some(share),
        Err(_) => {
            let (what, status) = (Taken::Share, policies.bulkhead_status.code());
            let full = Rejection::BulkheadFull { what, status };
            if !is_dry {
                return Err(full);
            }
            if dry_run.refuse(full.code()) {
                admission.give_back_dry(policies.breakers(), policies.bulkhead_enforce);
            }
        }
    }
    Ok(())
}

/// Asks the circuits again, for a request that has waited for its slot: it held no permit meanwhile,
/// and they may have opened.
///
/// # Errors
/// As [`OfCall::take`].
pub fn after_wait(
    policies: &Policies,
    admission: &mut Admission,
    dry_run: &mut DryRun,
    now: Moment,
) -> Result<(), Rejection> {
    let mut circuits = [OfCall::RouteCircuit, OfCall::UpstreamCircuit].into_iter();
    circuits.try_for_each(|circuit| circuit.take(policies, admission, dry_run, now))
}

/// Counts a request of `requester` in all limits of a route, or in none.
///
/// Leaves the request's standing in `standing`: the response to a counted request reports it, even
/// if another policy refuses the request later. Dry limits have no part in it: they count a request
/// that all limits admit, and note in `dry_run` what they would have refused.
///
/// # Errors
/// A limit is used up, or its store is unavailable and the limit refuses then.
pub fn count(
    policies: &Policies,
    requester: &Requester<'_>,
    heard: &Heard,
    standing: &mut Option<Standing>,
    dry_run: &mut DryRun,
    now: Moment,
) -> Result<(), Rejection> {
    let limits = &policies.rate_limits;
    let check = |part| match rate_limit::check_shared(limits, requester, heard, part, now) {
        Err(_) => (None, Err(Rejection::LimitStoreUnavailable)),
        Ok(standing) => match standing.filter(|standing| !standing.verdict.admitted) {
            Some(refused) => (standing, Err(Rejection::RateLimited(refused.verdict))),
            None => (standing, Ok(())),
        },
    };
    let (enforced, dry) = Part::of(limits);
    let (stands, outcome) = check(enforced);
    *standing = stands;
    outcome?;
    if let Some(dry) = dry
        && !dry_run.is_over()
        && let (_, Err(refused)) = check(dry)
    {
        dry_run.refuse(refused.code());
    }
    Ok(())
}

impl Policies {
    /// The circuits, in the order in which they are asked: the route's and its upstream's.
    pub fn breakers(&self) -> [Option<&Arc<Breaker>>; 2] {
        [self.route_breaker.as_ref(), self.upstream_breaker.as_ref()]
    }
}
