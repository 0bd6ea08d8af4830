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
use http::{HeaderMap, Version};
use pingora_http::ResponseHeader;
use pingora_proxy::Session;

use super::context::Context;
use super::dialect::{Protocol, Rendered};
use super::envelopes::Envelopes;
use super::gateway::Gateway;
use super::rejection::Rejection;
use super::stream::Orders;
use super::{body, compression, intake};
use crate::idempotency::{Claim, Claimed, Lease};
use crate::policy;
use crate::policy::idempotency::{
    Anonymous, Answer, Config, Fingerprint, Key, OnFailure, Principal, Refusal, Scope,
};
use crate::policy::outcome::Outcome;
use crate::record::new_id;
use crate::runtime::snapshot::{Idempotency, Route};
use crate::time::Clock;
use crate::transcode::wire;

/// A request that is the first with its key.
pub struct Keyed {
    /// Until something has become of it.
    lease: Option<Lease>,
    /// What the client is being answered, and the part of its body that has passed.
    answer: Option<(Answer, Vec<u8>)>,
    /// What the head says of its body's length.
    length: Option<u64>,
    /// The body has outgrown what is kept.
    outgrown: bool,
    /// What the upstream's answer ends with.
    trailers: Option<HeaderMap>,
}

impl Keyed {
    fn new(lease: Lease) -> Self {
        Keyed { lease: Some(lease), answer: None, length: None, outgrown: false, trailers: None }
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
        let Some(Idempotency { config, lease }) = route.idempotency.as_deref() else {
            return Ok(None);
        };
        if !config.covers(&session.req_header().method) {
            return Ok(None);
        }
        let key = match Key::of(&session.req_header().headers) {
            // It cannot be read to its end first.
            _ if ctx.protocol.is_stream() && config.required => {
                return Err(Rejection::InvalidRpc("a stream cannot have the key that is required"));
            }
            _ if ctx.protocol.is_stream() => return Ok(None),
            Ok(Some(key)) => key,
            Ok(None) if config.required => return Err(refused(Refusal::Missing)),
            Ok(None) => return Ok(None),
            Err(_) => return Err(refused(Refusal::Invalid)),
        };
        if ctx.protocol == Protocol::Grpc && session.req_header().version != Version::HTTP_2 {
            return Err(Rejection::InvalidRpc("gRPC needs HTTP/2: it ends in trailers"));
        }
        let limit = limit(ctx, route, config);
        let body = body::read_whole(session, ctx, limit).await?;
        check_messages(session, ctx, route, &body)?;
        let inflated = compression::inflate_keyed(session, ctx, route, &body, limit)?;
        let claim = Claim {
            scope: Scope::new(principal(ctx, config), &route.name, &key),
            fingerprint: fingerprint(session, ctx, inflated.as_ref().unwrap_or(&body)),
            route: route.name.clone(),
            lease: *lease,
            ttl: *config.ttl,
            owner: new_id(ctx.received_at),
        };
        ctx.body.request_bytes = body.len() as u64;
        ctx.body.prepared = inflated.filter(|_| ctx.body.inflated).or(Some(body));
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
            Ok(Claimed::NoRoom) | Err(_) => match config.on_failure {
                OnFailure::Reject => Err(refused(Refusal::Unavailable)),
                OnFailure::Pass => Ok(None),
            },
        }
    }
}

/// The most that is worth reading of a body. A message in a frame is bounded by itself.
fn limit(ctx: &Context, route: &Route, config: &Config) -> usize {
    let limit = config.max_body.as_usize();
    match route.config.max_body.as_usize() {
        max_body if max_body != 0 && ctx.body.envelopes.is_none() => max_body.min(limit),
        _ => limit,
    }
}

/// Who sends a key with a call of gRPC means one message: more of them are a stream, which cannot be
/// compared before it has ended.
fn check_messages(
    session: &Session,
    ctx: &mut Context,
    route: &Route,
    body: &[u8],
) -> Result<(), Rejection> {
    match ctx.protocol {
        Protocol::Http | Protocol::Connect | Protocol::ConnectStream => Ok(()),
        Protocol::Grpc | Protocol::GrpcWeb => match &mut ctx.body.envelopes {
            Some(envelopes) => envelopes.check_one(body).map(|()| envelopes.restart()),
            None => Ok(()),
        },
        Protocol::GrpcWebText => {
            let body = wire::of_base64(body)
                .map_err(|_| Rejection::InvalidRpc("the message is not Base64"))?;
            let headers = &session.req_header().headers;
            let max_message = route.config.max_body.0;
            let envelopes = Envelopes::of(Protocol::GrpcWeb, headers, max_message);
            envelopes.map_or(Ok(()), |mut envelopes| envelopes.check_one(&body))
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
pub async fn begin(ctx: &mut Context, head: &ResponseHeader, has_body: bool) {
    let Some(keyed) = ctx.keyed.as_mut() else { return };
    let Some(lease) = keyed.lease.take() else { return };
    let mut answer = Answer::begin(head.status, &head.headers);
    if !lease.traces.exist() {
        lease.release(grace(ctx)).await;
    } else if has_body {
        keyed.length = intake::content_length(&head.headers);
        let largest = largest(ctx.route.as_deref());
        keyed.outgrown = keyed.length.is_some_and(|length| length > largest);
        keyed.answer = Some((answer, Vec::new()));
        keyed.trailers = None;
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
    let orders = ctx.connection.as_ref().and_then(|connection| connection.orders.as_ref());
    // A client of HTTP/1.1 has all of it with the last byte of its length, and is not told what an
    // upstream of HTTP/2 says after that.
    let end = end || (orders.is_none() && keyed.length == Some(collected.len() as u64));
    if end
        && let Some((mut answer, collected)) = keyed.answer.take()
        && let Some(lease) = keyed.lease.take()
    {
        answer.body = (!keyed.outgrown).then(|| collected.into());
        if let Some(trailers) = orders.and_then(Orders::end).or(keyed.trailers.as_ref()) {
            answer.end_with(trailers);
        }
        let kept = lease.keep(answer, grace(ctx));
        if let Some(connection) = &ctx.connection {
            connection.guard.detachment.hold(kept);
        }
    }
}

/// What comes after the last chunk, which is told of later.
pub fn end_with(ctx: &mut Context, trailers: &HeaderMap) {
    if let Some(keyed) = &mut ctx.keyed {
        keyed.trailers = Some(trailers.clone());
    }
}

/// The exchange is over. An answer of HTTP/2 that ends with its head is known to have no body only
/// now.
pub fn ended(ctx: &mut Context, well: bool) {
    let Some(keyed) = ctx.keyed.as_mut() else { return };
    if well
        && let Some((mut answer, collected)) = keyed.answer.take()
        && let Some(lease) = keyed.lease.take()
        && collected.is_empty()
        && !keyed.outgrown
    {
        answer.body = Some(Bytes::new());
        // Nobody waits for it: the client has its answer.
        drop(lease.keep(answer, grace(ctx)));
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
