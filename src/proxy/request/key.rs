//! Requests with an idempotency key: looked up, executed once, and their response stored before the
//! client has all of it.
//!
//! The first request with a key is executed to its end, whether or not its client stays connected:
//! a client that gave up is the one that retries. The response is collected as it passes, and its
//! last byte is held back until the store has it, so a client that has a complete response can get
//! it again. If only that final write to the store fails, the client still gets its response, and
//! the key stays undecided.
//!
//! [`policy::idempotency`] decides what follows from a key's state; the store is
//! [`crate::idempotency`].

use std::borrow::Cow;
use std::time::Duration;

use http::Version;
use http::header::CONTENT_TYPE;
use pingora_proxy::Session;

use crate::idempotency::{Claim, Claimed};
use crate::policy;
use crate::policy::idempotency::{
    Anonymous, Answer, Config, Fingerprint, Key, OnFailure, Principal, Refusal, Scope,
};
use crate::proxy::dialect::Protocol;
use crate::proxy::exchange::context::Context;
use crate::proxy::exchange::keyed::Keyed;
use crate::proxy::rejection::Rejection;
use crate::proxy::request::envelopes::Envelopes;
use crate::proxy::{attempt, request};
use crate::record::new_id;
use crate::runtime::shared::Shared;
use crate::runtime::snapshot::{Idempotency, Route};
use crate::time::Clock;
use crate::transcode::wire;

/// Looks up the key of a request, if its route uses keys. `None` means that the request is
/// executed, a response that it is replayed.
///
/// # Errors
/// The rejection of a request whose key is missing, invalid, in use or cannot be checked, or whose
/// body cannot be read.
pub async fn look_up(
    shared: &Shared,
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
        // A stream cannot be read to its end before it is forwarded.
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
    let body = request::body::read_whole(session, ctx, limit).await?;
    check_messages(session, ctx, route, &body)?;
    if ctx.body.envelopes.is_none() {
        attempt::dry_run::measured(ctx, body.len() as u64);
    }
    let inflated = request::compression::inflate_keyed(session, ctx, route, &body, limit)?;
    let claim = Claim {
        scope: Scope::new(principal(ctx, config), &route.name, &key),
        fingerprint: fingerprint(session, ctx, inflated.as_ref().unwrap_or(&body)),
        route: route.name.clone(),
        lease: *lease,
        ttl: *config.ttl,
        // Also the id of its row, if it is recorded: that is where others find it.
        owner: *ctx.row.id.get_or_insert_with(|| new_id(ctx.received_at)),
    };
    ctx.body.request_bytes = body.len() as u64;
    ctx.body.prepared = inflated.filter(|_| ctx.body.inflated).or(Some(body));
    // Unreachable: a configuration with keys and no store is invalid.
    let Some(keys) = &shared.keys else { return Err(refused(Refusal::Unavailable)) };
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
        Ok(Claimed::Refused { refusal, first }) => {
            ctx.verdict.first_request = Some(first);
            Err(refused(refusal))
        }
        unavailable @ (Ok(Claimed::NoRoom) | Err(_)) => match config.on_failure {
            OnFailure::Reject => {
                ctx.verdict.said = Some(match (unavailable, keys.error()) {
                    (Ok(_), _) => Cow::Borrowed("record.store is full"),
                    (Err(_), Some(error)) => format!("record.store is away: {error}").into(),
                    (Err(_), None) => Cow::Borrowed("record.store did not answer in time"),
                });
                Err(refused(Refusal::Unavailable))
            }
            OnFailure::Pass => Ok(None),
        },
    }
}

/// Bytes of a body to read at most. A message in a frame has its own limit.
fn limit(ctx: &Context, route: &Route, config: &Config) -> usize {
    let limit = config.max_body.as_usize();
    match route.config.max_body.enforced().as_usize() {
        max_body if max_body != 0 && ctx.body.envelopes.is_none() => max_body.min(limit),
        _ => limit,
    }
}

/// Allows a gRPC call with a key one message only: more than one is a stream, which cannot be
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
            Some(envelopes) => {
                envelopes.check_one(body)?;
                envelopes.restart();
                let longest = envelopes.longest();
                attempt::dry_run::measured(ctx, longest);
                Ok(())
            }
            None => Ok(()),
        },
        Protocol::GrpcWebText => {
            let body = wire::of_base64(body)
                .map_err(|_| Rejection::InvalidRpc("the message is not Base64"))?;
            let headers = &session.req_header().headers;
            let max_message = route.config.max_body.enforced().0;
            let envelopes = Envelopes::of(Protocol::GrpcWeb, headers, max_message);
            let Some(mut envelopes) = envelopes else { return Ok(()) };
            envelopes.check_one(&body)?;
            attempt::dry_run::measured(ctx, envelopes.longest());
            Ok(())
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
