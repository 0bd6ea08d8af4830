//! The gateway's own responses: refusals, replays, and routes that it serves by itself.
//!
//! Here a `durable` or `sync` record is committed first; [`super::wire`] writes the response.

use std::sync::Arc;

use pingora_proxy::Session;

use crate::policy;
use crate::policy::idempotency::Answer;
use crate::proxy::exchange::context::Context;
use crate::proxy::rejection::Rejection;
use crate::proxy::request::admission::Admitted;
use crate::proxy::{exchange, reply, report, request, response};
use crate::runtime::shared::Shared;
use crate::runtime::snapshot::{Served, Target};
use crate::runtime::status;

/// Refuses a request. A `durable` or `sync` row is committed first; if that fails, the client gets
/// that failure as the refusal instead.
pub async fn refuse(
    shared: &Arc<Shared>,
    session: &mut Session,
    ctx: &mut Context,
    rejection: Rejection,
) {
    if exchange::sent::is_answered(session) {
        return;
    }
    if let Rejection::Policy(policy::Rejection::CircuitOpen { .. })
    | Rejection::Policy(policy::Rejection::BulkheadFull { .. })
    | Rejection::Policy(policy::Rejection::BulkheadWaitExceeded { .. })
    | Rejection::Policy(policy::Rejection::RateLimited(_))
    | Rejection::Policy(policy::Rejection::LimitStoreUnavailable)
    | Rejection::Policy(policy::Rejection::Idempotency(_)) = &rejection
        && let Some(route) = ctx.route.clone()
    {
        // The row of a refusal also names the operation that was refused.
        request::admission::watch_bodies(session, ctx, &route);
        match &route.transcoder {
            Some(transcoder) => request::transcode::look(session, ctx, &route, transcoder).await,
            None => request::body::read_unforwarded(session, ctx).await,
        }
    }
    if ctx.verdict.said.is_none() {
        let headers = &session.req_header().headers;
        ctx.verdict.said = request::evidence::of(ctx.protocol, headers, &rejection);
    }
    let mut rejection = rejection;
    let mut rendered = reply::wire::render(session, ctx, &rejection);
    ctx.end.refuse(rejection.clone());
    if let Err(unavailable) =
        report::recording::commit(shared.recorder.as_ref(), session, ctx, rendered.status).await
    {
        rejection = unavailable;
        rendered = reply::wire::render(session, ctx, &rejection);
        ctx.end.refuse(rejection.clone());
    }
    if let Some((_, cause)) = reply::stand_in::of(ctx, &rejection)
        && let Some(route) = &ctx.route
    {
        route.metrics.fell_back(cause.as_str());
    }
    response::keeping::settle(ctx, &rejection, &rendered).await;
    if reply::wire::refuse(session, ctx, &rejection, rendered).await.is_err() {
        ctx.end.client_left();
    }
}

/// Ends a request that failed after it was admitted: by the refusal, or by the end of a response
/// that has begun. Returns the status of the refusal; 0 if there is none, or the client has left.
pub async fn failed(shared: &Arc<Shared>, session: &mut Session, ctx: &mut Context) -> u16 {
    if ctx.end.is_client_gone() {
        return 0;
    }
    if exchange::sent::is_answered(session) {
        reply::wire::end_midway(session, ctx).await;
        return 0;
    }
    let rejection = ctx.end.rejection().cloned().unwrap_or(Rejection::Internal);
    // Pingora closes the connection after this phase: the response must say so.
    session.set_keepalive(None);
    refuse(shared, session, ctx, rejection).await;
    exchange::sent::status_of(session, ctx)
}

/// Sends the stored response to an earlier request with the same key.
async fn replay(shared: &Arc<Shared>, session: &mut Session, ctx: &mut Context, kept: Answer) {
    ctx.end.replay(response::grpc::has_failed(ctx.protocol, &kept));
    if let Some(route) = ctx.route.clone() {
        // Read the request as the first one was read when it was sent.
        if let Some(transcoder) = &route.transcoder {
            request::transcode::begin(session, ctx, &route, transcoder).await.ok();
        } else {
            if let Some(json) = &route.config.json {
                request::body::prepare(session, ctx, json).await.ok();
            }
            request::admission::watch_bodies(session, ctx, &route);
        }
        request::body::read_unforwarded(session, ctx).await;
        response::body::watch_replay(ctx, &route, &kept);
    }
    let status = kept.status.as_u16();
    if let Err(rejection) =
        report::recording::commit(shared.recorder.as_ref(), session, ctx, status).await
    {
        refuse(shared, session, ctx, rejection).await;
    } else if reply::wire::replay(session, ctx, kept).await.is_err() {
        ctx.end.client_left();
    }
}

/// Sends the response that `admitted` calls for, if it does not come from an upstream.
pub async fn answer(
    shared: &Arc<Shared>,
    session: &mut Session,
    ctx: &mut Context,
    admitted: Result<Admitted, Rejection>,
) {
    match admitted {
        Ok(Admitted::Call) => serve(shared, session, ctx).await,
        Ok(Admitted::Replay(answer)) => replay(shared, session, ctx, answer).await,
        Ok(Admitted::Preflight | Admitted::Ping) => {
            ctx.end.forward_nothing();
            if reply::wire::preflight(session, ctx).await.is_err() {
                ctx.end.client_left();
            }
        }
        Err(rejection) => {
            if !ctx.end.is_client_gone() {
                refuse(shared, session, ctx, rejection).await;
            }
        }
    }
}

/// Serves a route that has no upstream.
async fn serve(shared: &Arc<Shared>, session: &mut Session, ctx: &mut Context) {
    let Some(route) = ctx.route.clone() else { return };
    let Target::Serve(served) = &route.target else { return };
    let rendered = match served {
        Served::Page(what) => Ok(reply::own::page(status::answer(shared, *what).await)),
        Served::Respond(respond) => reply::own::respond(session, ctx, respond),
        Served::Redirect(redirect) => reply::own::redirect(session, ctx, redirect),
    };
    let rendered = match rendered {
        Ok(rendered) => rendered,
        Err(rejection) => return refuse(shared, session, ctx, rejection).await,
    };
    if let Err(rejection) =
        report::recording::commit(shared.recorder.as_ref(), session, ctx, rendered.status).await
    {
        refuse(shared, session, ctx, rejection).await;
    } else if reply::wire::reply(session, ctx, rendered).await.is_err() {
        ctx.end.client_left();
    }
}
