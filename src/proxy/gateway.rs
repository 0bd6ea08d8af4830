//! The request path: what happens in which of Pingora's phases.
//!
//! | phase | once per | what happens |
//! |---|---|---|
//! | `early_request_filter` | request | the head is complete: lift its time limit, know the client, name the request |
//! | `request_filter` | request | route; then flood guard, credentials, rate limits, idempotency key, breakers, bulkhead; or the refusal |
//! | `upstream_peer` | attempt | wait before a retry (watching the client), choose an endpoint, set its timeouts |
//! | `upstream_request_filter` | attempt | every header write |
//! | `request_body_filter` | attempt | cap, count, tap |
//! | `upstream_response_filter` | attempt | classify; retry, fall back or pass on |
//! | `fail_to_connect`, `error_while_proxy` | attempt | the same, for attempts without an answer |
//! | `response_filter` | request | headers out; a `durable` or `sync` record commits; an answer begins to be kept |
//! | `fail_to_proxy` | request | the refusal, where there is no answer to pass on |
//! | `logging` | request | the answer to a transcoded call; breakers, record, spans, metrics |
//!
//! Nothing but this file turns a decision into HTTP; the decisions themselves are made
//! elsewhere.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::HeaderMap;
use pingora_core::modules::http::HttpModules;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_core::{Error, Result};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::{FailToProxy, ProxyHttp, ProxyWarnLogContext, Session};

use super::admission::Admitted;
use super::attempt::{self, REJECTED, RETRY};
use super::context::Context;
use super::ended::{self, Ended};
use super::listener::Connection;
use super::rejection::Rejection;
use super::{
    answer, body, date, headers, idempotency, linger, recording, response, spans, transcoded,
    well_formed,
};
use crate::policy::failure::Cause;
use crate::policy::outcome::Outcome;
use crate::runtime::shared::Shared;
use crate::time::Clock;

/// The gateway, as Pingora sees it.
pub struct Gateway {
    pub(super) shared: Arc<Shared>,
}

impl Gateway {
    pub fn new(shared: Arc<Shared>) -> Self {
        Gateway { shared }
    }
}

#[async_trait]
impl ProxyHttp for Gateway {
    /// Boxed: Pingora moves it about, and it is large.
    type CTX = Box<Context>;

    fn new_ctx(&self) -> Box<Context> {
        let shared = &self.shared;
        let snapshot = shared.snapshot.load_full();
        let connection = Connection::of_task();
        Box::new(Context::new(snapshot, connection, shared.lifecycle.enter(), Clock::now()))
    }

    /// None: Pingora's default module allocates a compression context per request.
    fn init_downstream_modules(&self, _: &mut HttpModules) {}

    async fn early_request_filter(
        &self,
        session: &mut Session,
        ctx: &mut Box<Context>,
    ) -> Result<()> {
        self.receive(session, ctx);
        Ok(())
    }

    async fn request_filter(&self, session: &mut Session, ctx: &mut Box<Context>) -> Result<bool> {
        let admitted = self.admit(session, ctx).await;
        let forwarded = ctx.upstream().is_some();
        if forwarded && matches!(admitted, Ok(Admitted::Call)) {
            recording::expect(self.shared.recorder.as_ref(), ctx);
            return Ok(false);
        }
        // Boxed: most requests are forwarded, and have no use for its room.
        Box::pin(self.answer(session, ctx, admitted)).await;
        Ok(true)
    }

    async fn upstream_peer(
        &self,
        session: &mut Session,
        ctx: &mut Box<Context>,
    ) -> Result<Box<HttpPeer>> {
        self.next_peer(session, ctx).await
    }

    async fn upstream_request_filter(
        &self,
        _: &mut Session,
        request: &mut RequestHeader,
        ctx: &mut Box<Context>,
    ) -> Result<()> {
        if let (Some(route), Some(endpoint)) = (&ctx.route, &ctx.attempt.endpoint) {
            headers::prepare_request(request, ctx, route, endpoint);
            idempotency::sending(ctx);
        }
        Ok(())
    }

    async fn request_body_filter(
        &self,
        _: &mut Session,
        body: &mut Option<Bytes>,
        end: bool,
        ctx: &mut Box<Context>,
    ) -> Result<()> {
        let max_body = ctx.route.as_ref().map_or(0, |route| route.config.max_body.0);
        body::on_request(body, end, ctx, max_body)
    }

    async fn upstream_response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut Box<Context>,
    ) -> Result<()> {
        // 103 and its like come before the answer; 101 is one.
        if response.status.is_informational() && response.status != 101 {
            return Ok(());
        }
        response::on_head(session, ctx, response, Clock::now())
    }

    fn upstream_response_trailer_filter(
        &self,
        session: &mut Session,
        trailers: &mut HeaderMap,
        ctx: &mut Box<Context>,
    ) -> Result<()> {
        response::on_trailers(session, ctx, trailers, Clock::now())
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        head: &mut ResponseHeader,
        ctx: &mut Box<Context>,
    ) -> Result<()> {
        if head.status.is_informational() && head.status != 101 {
            return Ok(());
        }
        if !attempt::has_body(session, head) {
            attempt::answered(ctx, Clock::now());
        }
        if ctx.keyed.is_some() {
            let has_body = response::has_body(session, head);
            // Boxed, as below: most answers have no use for its room.
            Box::pin(idempotency::begin(ctx, head, has_body)).await;
        }
        headers::prepare_response(session, head, ctx)?;
        let status = head.status.as_u16();
        let recorder = self.shared.recorder.as_ref();
        if recording::commits(recorder, ctx)
            && let Err(rejection) =
                Box::pin(recording::commit(recorder, session, ctx, status)).await
        {
            ctx.end.rejection = Some(rejection);
            return Err(Error::new_in(REJECTED));
        }
        date::keep(ctx, head);
        if status == 101 {
            response::begin_tunnel(ctx, Clock::now());
        }
        Ok(())
    }

    fn upstream_response_body_filter(
        &self,
        session: &mut Session,
        body: &mut Option<Bytes>,
        end: bool,
        ctx: &mut Box<Context>,
    ) -> Result<Option<Duration>> {
        transcoded::collect(body, end, ctx)?;
        response::on_body(session, ctx, body.as_ref())?;
        if end {
            attempt::answered(ctx, Clock::now());
        }
        body::on_response(session, body, end, ctx);
        Ok(None)
    }

    fn fail_to_connect(
        &self,
        session: &mut Session,
        _: &HttpPeer,
        ctx: &mut Box<Context>,
        mut error: Box<Error>,
    ) -> Box<Error> {
        let ended = ended::classify_connect(&error, ctx, Clock::now());
        let again = attempt::failed(session, ctx, ended, &mut error);
        error.set_retry(again);
        error
    }

    fn error_while_proxy(
        &self,
        _: &HttpPeer,
        session: &mut Session,
        mut error: Box<Error>,
        ctx: &mut Box<Context>,
        reused: bool,
    ) -> Box<Error> {
        // Pingora leaves errors of reused connections undecided, and panics if they stay so.
        error.retry.decide_reuse(reused);
        let stale = error.retry();
        let refused = ended::is_refused(&error);
        if *error.etype() == RETRY {
            error.set_retry(true);
            return error;
        }
        error.set_retry(false);
        if *error.etype() == REJECTED {
            return error;
        }
        let ended = match refused {
            true => Ended::Upstream(Cause::RefusedStream),
            false => ended::classify(&error, session, ctx, Clock::now()),
        };
        if session.was_upgraded() {
            // However a tunnel ends, it is nobody's fault.
            return error;
        }
        if attempt::is_answered(session) {
            ctx.end.client_gone |= ended == Ended::ClientGone;
            ctx.end.truncated = true;
            ctx.end.broke_off = ended.rejection();
            if let Some(outcome) = ended.outcome() {
                attempt::conclude(ctx, outcome, Clock::now());
            }
            if let Some(cause) = ended.cause() {
                attempt::give_up(ctx, cause, ended::words(&mut error));
            }
            return error;
        }
        let gone = reused && ended.outcome() == Some(Outcome::Reset);
        if stale && (refused || gone) && attempt::reconnect(session, ctx, refused, Clock::now()) {
            error.set_retry(true);
            return error;
        }
        let ended = if stale && gone { Ended::Upstream(Cause::StaleConnection) } else { ended };
        let flaw = (ended == Ended::Upstream(Cause::InvalidResponse))
            .then(|| well_formed::flaw(&mut error));
        let again = attempt::failed(session, ctx, ended, &mut error);
        well_formed::explain(ctx, flaw);
        error.set_retry(again);
        error
    }

    async fn fail_to_proxy(
        &self,
        session: &mut Session,
        _: &Error,
        ctx: &mut Box<Context>,
    ) -> FailToProxy {
        let nothing = FailToProxy { error_code: 0, can_reuse_downstream: false };
        if ctx.end.client_gone {
            return nothing;
        }
        if attempt::is_answered(session) {
            answer::end_midway(session, ctx).await;
            return nothing;
        }
        let rejection = ctx.end.rejection.take().unwrap_or(Rejection::Internal);
        // Pingora closes the connection after this phase: the answer must say so.
        session.set_keepalive(None);
        self.refuse(session, ctx, rejection).await;
        FailToProxy { error_code: attempt::status_of(session, ctx), can_reuse_downstream: false }
    }

    async fn logging(&self, session: &mut Session, e: Option<&Error>, ctx: &mut Box<Context>) {
        if ctx.body.call.is_some() {
            // Boxed: few requests have a use for its room.
            Box::pin(self.answer_call(session, ctx)).await;
        }
        idempotency::ended(ctx, e.is_none());
        let now = Clock::now();
        let mut status = attempt::status_of(session, ctx);
        if !ctx.end.client_gone
            && ctx.end.rejection.is_none()
            && let Some(outcome) = ctx.attempt.answered
        {
            attempt::conclude(ctx, outcome, now);
        }
        if !ctx.end.client_gone
            && let Some(outcome) = ctx.end.last_outcome
        {
            attempt::conclude_request(ctx, outcome, now);
            // What another upstream took says nothing about this one.
            if ctx.diverted.is_none()
                && let Some(slot) = ctx.admission.slot.take()
            {
                slot.release(now);
            }
        }
        if ctx
            .connection
            .as_ref()
            .is_some_and(|connection| connection.guard.detachment.is_deserted())
        {
            (ctx.end.client_gone, status) = (true, 499);
        }
        if !ctx.end.preflight {
            recording::finish(self.shared.recorder.as_ref(), session, ctx, status, now);
        }
        spans::finish(&self.shared.tracer, session, ctx, status, now);
        let metrics = match &ctx.route {
            Some(route) => &route.metrics,
            None => &self.shared.unrouted,
        };
        metrics.answered(ctx.protocol.family(), status, now.since(ctx.started));
        if let Some(rejection) = &ctx.end.rejection {
            metrics.rejected(rejection.code());
            if !ctx.end.client_gone {
                // Nothing is held for it any more.
                ctx.admission = Default::default();
                linger::linger(session).await;
            }
        }
    }

    fn suppress_error_log(&self, _: &Session, _: &Box<Context>, _: &Error) -> bool {
        true
    }

    fn suppress_proxy_warn_log(
        &self,
        _: &Session,
        _: &Box<Context>,
        _: &Error,
        _: ProxyWarnLogContext,
    ) -> bool {
        true
    }
}
