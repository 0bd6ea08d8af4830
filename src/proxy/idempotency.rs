//! Requests with an idempotency key: looked up, executed once, their answer kept before the client
//! has it.
//!
//! What is first with its key is executed to its end, whether or not its client waits for that: a
//! client that gave up is the one that comes again. The answer is collected on its way through, and
//! its last byte is held back until the store has it; so who has an answer will get it again. A
//! store that fails only then costs the client nothing: the key is undecided, and the answer goes
//! out.
//!
//! What follows from a key's state is decided in [`policy::idempotency`], the store is
//! [`crate::idempotency`].

use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use pingora_http::ResponseHeader;
use pingora_proxy::Session;

use super::context::Context;
use super::dialect::{Protocol, Rendered};
use super::gateway::Gateway;
use super::rejection::Rejection;
use super::{attempt, body, intake};
use crate::idempotency::{Claim, Claimed, Lease};
use crate::policy;
use crate::policy::idempotency::{
    Anonymous, Answer, Config, Fingerprint, Key, OnFailure, Principal, Refusal, Scope,
};
use crate::policy::outcome::Outcome;
use crate::record::new_id;
use crate::runtime::snapshot::{Idempotency, Route};
use crate::time::Clock;

/// A request that is the first with its key.
pub struct Keyed {
    /// Until something has become of it.
    lease: Option<Lease>,
    /// What the client is being answered, and the part of its body that has passed.
    answer: Option<(Answer, Vec<u8>)>,
    /// The body has outgrown what is kept.
    outgrown: bool,
}

impl Keyed {
    fn new(lease: Lease) -> Self {
        Keyed { lease: Some(lease), answer: None, outgrown: false }
    }
}

impl Gateway {
    /// Look up the key of a request, if the route wants to know it: `None`, and it is executed; an
    /// answer, and it is given again.
    pub(super) async fn look_up(
        &self,
        session: &mut Session,
        ctx: &mut Context,
        route: &Route,
    ) -> Result<Option<Answer>, Rejection> {
        let Some(Idempotency { config, lease }) = &route.idempotency else { return Ok(None) };
        if !config.covers(&session.req_header().method) {
            return Ok(None);
        }
        // What is transcoded is one message, both ways.
        let is_call = ctx.protocol == Protocol::Grpc && route.transcoder.is_some();
        let is_whole = is_call || ctx.protocol.is_whole();
        let key = match Key::of(&session.req_header().headers) {
            // A stream can neither be read to its end first, nor be given again with its trailers.
            _ if !is_whole && config.required => {
                return Err(Rejection::InvalidRpc("a stream cannot have the key that is required"));
            }
            _ if !is_whole => return Ok(None),
            Ok(Some(key)) => key,
            Ok(None) if config.required => return Err(refused(Refusal::Missing)),
            Ok(None) => return Ok(None),
            Err(_) => return Err(refused(Refusal::Invalid)),
        };
        let body = body::read_whole(session, ctx, config.max_body.as_usize()).await?;
        let claim = Claim {
            scope: Scope::new(principal(ctx, config), &route.name, &key),
            fingerprint: fingerprint(session, ctx, &body),
            route: route.name.clone(),
            lease: *lease,
            ttl: *config.ttl,
            owner: new_id(ctx.received_at),
        };
        ctx.body.request_bytes = body.len() as u64;
        ctx.body.prepared = Some(body);
        // Without a store the configuration is not valid.
        let Some(keys) = &self.shared.keys else { return Err(refused(Refusal::Unavailable)) };
        let within = patience(ctx);
        match keys.claim(claim, config.on_undecided, within).await {
            Ok(Claimed::First(lease)) => {
                ctx.keyed = Some(Box::new(Keyed::new(lease)));
                if let Some(connection) = &ctx.connection {
                    connection.guard.detachment.go_on_alone();
                }
                Ok(None)
            }
            Ok(Claimed::Replay(answer)) => Ok(Some(answer)),
            Ok(Claimed::Refused(refusal)) => Err(refused(refusal)),
            Err(_) => match config.on_failure {
                OnFailure::Reject => Err(refused(Refusal::Unavailable)),
                OnFailure::Pass => Ok(None),
            },
        }
    }
}

fn refused(refusal: Refusal) -> Rejection {
    Rejection::Policy(policy::Rejection::Idempotency(refusal))
}

fn principal<'a>(ctx: &'a Context, config: &Config) -> Principal<'a> {
    match (&ctx.identity, config.anonymous) {
        (Some(identity), _) => {
            Principal::Consumer { authority: identity.authority(), name: identity.consumer() }
        }
        (None, Anonymous::Address) => Principal::Address(ctx.client),
        (None, Anonymous::Shared) => Principal::Anyone,
    }
}

fn fingerprint(session: &Session, ctx: &Context, body: &[u8]) -> Fingerprint {
    let request = session.req_header();
    let path = ctx.recorded_path.as_deref().unwrap_or_else(|| request.uri.path());
    let content_type = request.headers.get(CONTENT_TYPE).map(|value| value.as_bytes());
    Fingerprint::new(request.method.as_str(), path, request.uri.query(), content_type, body)
}

/// How long a request waits for the store.
fn patience(ctx: &Context) -> Duration {
    let limit = *ctx.snapshot.config.record.commit_timeout;
    ctx.deadline.map_or(limit, |deadline| deadline.since(Clock::now()).min(limit))
}

/// Whether the request may be sent twice because it holds its key.
pub fn is_held(ctx: &Context) -> bool {
    ctx.keyed.as_ref().is_some_and(|keyed| keyed.lease.is_some())
}

/// The request is about to be written to an upstream.
pub fn sending(ctx: &mut Context) {
    if let Some(lease) = ctx.keyed.as_mut().and_then(|keyed| keyed.lease.as_mut()) {
        lease.traces.sending();
    }
}

/// What has become of an attempt.
pub fn attempted(ctx: &mut Context, outcome: Outcome) {
    let Some(keyed) = &mut ctx.keyed else { return };
    let idempotency = ctx.route.as_ref().and_then(|route| route.idempotency.as_ref());
    if let (Some(lease), Some(idempotency)) = (&mut keyed.lease, idempotency) {
        lease.traces.attempted(outcome, &idempotency.config);
    }
}

/// The upstream's answer is about to begin. It is kept from here on, or, if the upstream says that
/// it has done nothing, the key is given back.
pub async fn begin(session: &Session, ctx: &mut Context, head: &ResponseHeader) {
    let Some(keyed) = ctx.keyed.as_mut() else { return };
    let Some(lease) = keyed.lease.take() else { return };
    let mut answer = Answer::begin(head.status, &head.headers);
    if !lease.traces.exist() {
        lease.release(grace(ctx)).await;
    } else if attempt::has_body(session, head) {
        let length = intake::content_length(&head.headers);
        keyed.outgrown = length.is_some_and(|length| length > largest(ctx.route.as_deref()));
        keyed.answer = Some((answer, Vec::new()));
        keyed.lease = Some(lease);
        return;
    } else {
        answer.body = Some(Bytes::new());
        lease.keep(answer, grace(ctx)).await.ok();
    }
    ctx.guard(ctx.next_deadline());
}

/// A chunk of the answer, as the client gets it. The last one waits for the store.
pub fn collect(ctx: &mut Context, chunk: Option<&Bytes>, end: bool) {
    let Some(keyed) = ctx.keyed.as_mut() else { return };
    let Some((_, collected)) = &mut keyed.answer else { return };
    let largest = largest(ctx.route.as_deref());
    if let Some(chunk) = chunk.filter(|_| !keyed.outgrown) {
        keyed.outgrown = (collected.len() + chunk.len()) as u64 > largest;
        collected.extend_from_slice(chunk);
    }
    if keyed.outgrown {
        *collected = Vec::new();
    }
    if end
        && let Some((mut answer, collected)) = keyed.answer.take()
        && let Some(lease) = keyed.lease.take()
    {
        answer.body = (!keyed.outgrown).then(|| collected.into());
        let kept = lease.keep(answer, grace(ctx));
        if let Some(connection) = &ctx.connection {
            connection.guard.detachment.hold(kept);
        }
    }
}

fn largest(route: Option<&Route>) -> u64 {
    let idempotency = route.and_then(|route| route.idempotency.as_ref());
    idempotency.map_or(0, |idempotency| idempotency.config.max_answer.0)
}

/// How long the store may take for what has become of a request. Its time is not the upstream's, nor
/// the client's: the request's deadline waits for it.
fn grace(ctx: &Context) -> Duration {
    let within = *ctx.snapshot.config.record.commit_timeout;
    let until = Clock::now() + within;
    ctx.guard(ctx.next_deadline().map(|deadline| deadline.max(until)));
    within
}

/// The gateway answers in its own name. The key is given back if nothing was sent; where the
/// upstream did answer, this is its answer; of anything else nobody knows what became.
pub async fn settle(ctx: &mut Context, rejection: &Rejection, rendered: &Rendered) {
    let Some(lease) = ctx.keyed.as_mut().and_then(|keyed| keyed.lease.take()) else { return };
    let within = grace(ctx);
    if !lease.traces.exist() {
        lease.release(within).await;
    } else if let Rejection::Attempt(Outcome::Response(_) | Outcome::Grpc(_))
    | Rejection::AnswerUnreadable = rejection
    {
        lease.keep(rendered.to_answer(), within).await.ok();
    }
}
