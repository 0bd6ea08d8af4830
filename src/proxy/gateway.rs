//! The request path: what happens in which of Pingora's phases.
//!
//! | phase | once per | what happens |
//! |---|---|---|
//! | `new_ctx` | request | take the snapshot and the connection, start the clock |
//! | `early_request_filter` | request | the head is complete: lift its time limit, identify the client, give the request its ids |
//! | `request_filter` | request | route; then the steps of [`crate::policy::order`]; or the refusal |
//! | `upstream_peer` | attempt | wait before a retry (watching the client), choose an endpoint, set its timeouts |
//! | `connected_to_upstream` | attempt | look at the upstream's certificate, if it is pinned |
//! | `upstream_request_filter` | attempt | write the headers of the upstream request |
//! | `request_body_filter` | attempt | limit, count and copy the request body |
//! | `upstream_response_filter` | attempt | classify; retry, fall back or pass on |
//! | `fail_to_connect`, `error_while_proxy` | attempt | the same, for attempts without a response |
//! | `response_filter` | request | write the response headers; commit a `durable` or `sync` record; start to keep the response |
//! | `upstream_response_body_filter`, `upstream_response_trailer_filter` | piece | count, copy, keep; the end of an RPC |
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

use crate::proxy::downstream::connection::Connection;
use crate::proxy::exchange::context::Context;
use crate::proxy::report::Reported;
use crate::proxy::request::admission::Admitted;
use crate::proxy::{attempt, reply, report, request, response};
use crate::runtime::shared::Shared;
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
        response::head::pass_on(self.shared.recorder.as_ref(), session, ctx, head).await
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
        let again = attempt::failed::broke_off(session, ctx, &mut error, reused);
        error.set_retry(again);
        error
    }

    async fn fail_to_proxy(
        &self,
        session: &mut Session,
        _: &Error,
        ctx: &mut Reported,
    ) -> FailToProxy {
        let error_code = reply::choose::failed(&self.shared, session, ctx).await;
        FailToProxy { error_code, can_reuse_downstream: false }
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
