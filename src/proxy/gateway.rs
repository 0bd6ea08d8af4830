//! The request path: what happens in which of Pingora's phases.
//!
//! | phase | once per | what happens |
//! |---|---|---|
//! | `early_request_filter` | request | the head is complete: lift its time limit, identify the client, give the request its ids |
//! | `request_filter` | request | route; then flood guard, credentials, rate limits, idempotency key, breakers, bulkhead; or the refusal |
//! | `upstream_peer` | attempt | wait before a retry (watching the client), choose an endpoint, set its timeouts |
//! | `connected_to_upstream` | attempt | look at the upstream's certificate, if it is pinned |
//! | `upstream_request_filter` | attempt | write the headers of the upstream request |
//! | `request_body_filter` | attempt | limit, count and copy the request body |
//! | `upstream_response_filter` | attempt | classify; retry, fall back or pass on |
//! | `fail_to_connect`, `error_while_proxy` | attempt | the same, for attempts without a response |
//! | `response_filter` | request | write the response headers; commit a `durable` or `sync` record; start to keep the response |
//! | `fail_to_proxy` | request | the refusal, if there is no response to pass on |
//! | `logging` | request | the response to a transcoded call; breakers, record, spans, metrics |
//!
//! This file only connects Pingora's phases to the modules that do the work. The gateway's own
//! responses are written in [`super::reply`].

use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::HeaderMap;
use pingora_core::modules::http::HttpModules;
use pingora_core::protocols::Digest;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_core::{Error, Result};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::{FailToProxy, ProxyHttp, ProxyWarnLogContext, Session};

use crate::policy::failure::Cause;
use crate::policy::outcome::Outcome;
use crate::proxy::attempt::ended::Ended;
use crate::proxy::downstream::connection::Connection;
use crate::proxy::exchange::context::Context;
use crate::proxy::exchange::signal::{REJECTED, RETRY};
use crate::proxy::rejection::Rejection;
use crate::proxy::report::Reported;
use crate::proxy::request::admission::Admitted;
use crate::proxy::{attempt, downstream, exchange, reply, report, request, response};
use crate::runtime::pins::UNPINNED;
use crate::runtime::shared::Shared;
use crate::summary::attempt::Connection as Connected;
use crate::time::Clock;

/// The gateway, as Pingora sees it.
pub struct Gateway {
    /// That of the process.
    pub shared: Arc<Shared>,
}

impl Gateway {
    /// One for all listeners.
    pub fn new(shared: Arc<Shared>) -> Self {
        Gateway { shared }
    }
}

#[async_trait]
impl ProxyHttp for Gateway {
    type CTX = Reported;

    fn new_ctx(&self) -> Reported {
        let shared = &self.shared;
        let snapshot = shared.snapshot.load_full();
        let connection = Connection::of_task();
        let ctx = Context::new(snapshot, connection, shared.lifecycle.enter(), Clock::now());
        Reported::new(Box::new(ctx), shared.clone())
    }

    /// Registers no modules: Pingora's default module allocates a compression context per request.
    fn init_downstream_modules(&self, _: &mut HttpModules) {}

    async fn early_request_filter(&self, session: &mut Session, ctx: &mut Reported) -> Result<()> {
        request::admission::receive(&self.shared, session, ctx);
        Ok(())
    }

    async fn request_filter(&self, session: &mut Session, ctx: &mut Reported) -> Result<bool> {
        let admitted = request::admission::admit(&self.shared, session, ctx).await;
        let forwarded = ctx.upstream().is_some();
        if forwarded && matches!(admitted, Ok(Admitted::Call)) {
            report::recording::expect(self.shared.recorder.as_ref(), ctx);
            return Ok(false);
        }
        // Boxed: most requests are forwarded, and need not carry this future's state.
        Box::pin(reply::choose::answer(&self.shared, session, ctx, admitted)).await;
        Ok(true)
    }

    async fn upstream_peer(
        &self,
        session: &mut Session,
        ctx: &mut Reported,
    ) -> Result<Box<HttpPeer>> {
        attempt::next::next_peer(session, ctx).await
    }

    async fn connected_to_upstream(
        &self,
        _: &mut Session,
        _: bool,
        _: &HttpPeer,
        _: RawFd,
        digest: Option<&Digest>,
        ctx: &mut Reported,
    ) -> Result<()> {
        attempt::next::pinned(ctx, digest)
    }

    async fn upstream_request_filter(
        &self,
        _: &mut Session,
        request: &mut RequestHeader,
        ctx: &mut Reported,
    ) -> Result<()> {
        if let (Some(route), Some(endpoint)) = (&ctx.route, ctx.attempt.endpoint()) {
            request::headers::prepare_request(&self.shared.via, request, ctx, route, endpoint);
            attempt::next::connected(ctx, Clock::now());
            response::keeping::sending(ctx);
        }
        Ok(())
    }

    async fn request_body_filter(
        &self,
        _: &mut Session,
        body: &mut Option<Bytes>,
        end: bool,
        ctx: &mut Reported,
    ) -> Result<()> {
        let max_body = ctx.route.as_ref().map_or(0, |route| route.config.max_body.enforced().0);
        request::body::on_request(body, end, ctx, max_body)
    }

    async fn upstream_response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut Reported,
    ) -> Result<()> {
        // 103 and the like come before the response; 101 is the response.
        if response.status.is_informational() && response.status != 101 {
            return Ok(());
        }
        response::head::on_head(session, ctx, response, Clock::now())
    }

    fn upstream_response_trailer_filter(
        &self,
        session: &mut Session,
        trailers: &mut HeaderMap,
        ctx: &mut Reported,
    ) -> Result<()> {
        response::head::on_trailers(session, ctx, trailers, Clock::now())
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        head: &mut ResponseHeader,
        ctx: &mut Reported,
    ) -> Result<()> {
        if head.status.is_informational() && head.status != 101 {
            return Ok(());
        }
        if !exchange::sent::has_body(session, head) {
            attempt::conclude::answered(ctx, Clock::now());
        }
        if ctx.keyed.is_some() {
            let has_body = response::head::has_body(session, head);
            // Boxed, as below: most responses need not carry this future's state.
            Box::pin(response::keeping::begin(ctx, head, has_body)).await;
        }
        response::headers::prepare_response(session, head, ctx)?;
        let status = head.status.as_u16();
        let recorder = self.shared.recorder.as_ref();
        if report::recording::commits(recorder, ctx)
            && let Err(rejection) =
                Box::pin(report::recording::commit(recorder, session, ctx, status)).await
        {
            ctx.end.refuse(rejection);
            return Err(Error::new_in(REJECTED));
        }
        if !ctx.holds_head() {
            ctx.sent = Some(status);
        }
        downstream::date::keep(ctx, head);
        if status == 101 {
            response::head::begin_tunnel(ctx, Clock::now());
        }
        Ok(())
    }

    fn upstream_response_body_filter(
        &self,
        session: &mut Session,
        body: &mut Option<Bytes>,
        end: bool,
        ctx: &mut Reported,
    ) -> Result<Option<Duration>> {
        response::transcode::collect(body, end, ctx)?;
        response::head::on_body(session, ctx, body.as_ref())?;
        if end {
            attempt::conclude::answered(ctx, Clock::now());
        }
        response::body::on_response(session, body, end, ctx);
        Ok(None)
    }

    fn fail_to_connect(
        &self,
        session: &mut Session,
        _: &HttpPeer,
        ctx: &mut Reported,
        mut error: Box<Error>,
    ) -> Box<Error> {
        let ended = attempt::ended::classify_connect(&error, ctx, Clock::now());
        let again = attempt::failed::failed(session, ctx, ended, &mut error);
        error.set_retry(again);
        error
    }

    fn error_while_proxy(
        &self,
        _: &HttpPeer,
        session: &mut Session,
        mut error: Box<Error>,
        ctx: &mut Reported,
        reused: bool,
    ) -> Box<Error> {
        // Pingora leaves this undecided for reused connections, and panics if it stays so.
        error.retry.decide_reuse(reused);
        let connection = if reused { Connected::Reused } else { Connected::New };
        ctx.attempt.connection = Some(connection);
        let stale = error.retry();
        let refused = attempt::ended::is_refused(&error);
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
            // Nothing was sent: it is as if there had been no connection.
            false if *error.etype() == UNPINNED => {
                attempt::ended::classify_connect(&error, ctx, Clock::now())
            }
            false => attempt::ended::classify(&error, session, ctx, Clock::now()),
        };
        if session.was_upgraded() {
            // The end of a tunnel is not a failure, whichever side ends it.
            return error;
        }
        if exchange::sent::is_answered(session) {
            match ended.rejection() {
                Some(rejection) => ctx.end.break_off(rejection),
                None => ctx.end.client_left_midway(),
            }
            if let Some(outcome) = ended.outcome() {
                attempt::conclude::conclude(ctx, outcome, Clock::now());
            }
            if let Some(cause) = ended.cause() {
                attempt::conclude::give_up(ctx, cause, attempt::ended::words(&mut error));
            }
            return error;
        }
        let gone = reused && ended.outcome() == Some(Outcome::Reset);
        if stale
            && (refused || gone)
            && attempt::retry::reconnect(session, ctx, refused, &mut error, Clock::now())
        {
            error.set_retry(true);
            return error;
        }
        let ended = if stale && gone { Ended::Upstream(Cause::StaleConnection) } else { ended };
        let flaw = (ended == Ended::Upstream(Cause::InvalidResponse))
            .then(|| response::well_formed::flaw(&mut error));
        let again = attempt::failed::failed(session, ctx, ended, &mut error);
        response::well_formed::explain(ctx, flaw);
        error.set_retry(again);
        error
    }

    async fn fail_to_proxy(
        &self,
        session: &mut Session,
        _: &Error,
        ctx: &mut Reported,
    ) -> FailToProxy {
        let nothing = FailToProxy { error_code: 0, can_reuse_downstream: false };
        if ctx.end.is_client_gone() {
            return nothing;
        }
        if exchange::sent::is_answered(session) {
            reply::wire::end_midway(session, ctx).await;
            return nothing;
        }
        let rejection = ctx.end.rejection().cloned().unwrap_or(Rejection::Internal);
        // Pingora closes the connection after this phase: the response must say so.
        session.set_keepalive(None);
        reply::choose::refuse(&self.shared, session, ctx, rejection).await;
        FailToProxy {
            error_code: exchange::sent::status_of(session, ctx),
            can_reuse_downstream: false,
        }
    }

    async fn logging(&self, session: &mut Session, e: Option<&Error>, ctx: &mut Reported) {
        if ctx.body.call.is_some() {
            // Boxed: few requests need this future's state.
            Box::pin(reply::call::answer_call(&self.shared, session, ctx)).await;
        }
        report::ended(session, ctx, e.is_none());
        let is_own = ctx.end.rejection().is_some() || ctx.upstream().is_none();
        if is_own && !ctx.end.is_client_gone() {
            // Release what the request holds before lingering for the client.
            ctx.admission = Default::default();
            reply::linger::linger(session).await;
        }
    }

    fn suppress_error_log(&self, _: &Session, _: &Reported, _: &Error) -> bool {
        true
    }

    fn suppress_proxy_warn_log(
        &self,
        _: &Session,
        _: &Reported,
        _: &Error,
        _: ProxyWarnLogContext,
    ) -> bool {
        true
    }
}
