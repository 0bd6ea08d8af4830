//! What is told of a request when it has ended: to circuits and bulkheads, to the record, the trace and the
//! metrics. Each request is told of once: by [`ended`], or by the drop of its [`Reported`] context.
//!
//! | file | what it is for |
//! |---|---|
//! | [`summary`] | the two values that the rest is told from: a request's opening, and its summary |
//! | [`recording`] | the row: what it says, and at which of two moments it is written |
//! | [`limit`] | which limit ended a request |
//! | [`fault`] | whose fault it was, where the cause alone does not say it |
//! | [`facts`] | what else the line of a failure says |
//! | [`spans`] | the trace: a span for each attempt, and one for the request |

pub mod facts;
pub mod fault;
pub mod limit;
pub mod recording;
pub mod spans;
pub mod summary;

use std::net::IpAddr;
use std::ops::{Deref, DerefMut};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use pingora_proxy::Session;

use self::summary::{Lost, Sent};
use crate::observe::access_log::Rules;
use crate::observe::events::FailedRequest;
use crate::observe::metrics::{Finished, RouteMetrics};
use crate::policy::breaker::Breaker;
use crate::proxy::exchange::context::Context;
use crate::proxy::{attempt, exchange, response};
use crate::runtime::shared::Shared;
use crate::summary::Summary;
use crate::summary::ending::{Cut, Ending, NoRequest};
use crate::summary::values::Values;
use crate::time::{Clock, Moment};

/// A request's context that does not end unreported: if it is dropped before [`ended`] was called,
/// the request was cut off, and that is what is told.
pub struct Reported {
    /// Boxed: Pingora moves it often, and it is large.
    ctx: Box<Context>,
    /// `None` once the request has been reported.
    shared: Option<Arc<Shared>>,
}

impl Reported {
    /// Reports `ctx` when dropped, unless that was done before.
    pub fn new(ctx: Box<Context>, shared: Arc<Shared>) -> Self {
        Reported { ctx, shared: Some(shared) }
    }
}

impl Deref for Reported {
    type Target = Context;

    fn deref(&self) -> &Context {
        &self.ctx
    }
}

impl DerefMut for Reported {
    fn deref_mut(&mut self) -> &mut Context {
        &mut self.ctx
    }
}

impl Drop for Reported {
    fn drop(&mut self) {
        let Some(shared) = self.shared.take() else { return };
        let ctx = &mut *self.ctx;
        // A panic in a destructor, while another unwinds the stack, would end the process. What has
        // panicked may do so again.
        let told = catch_unwind(AssertUnwindSafe(|| cut(&shared, ctx)));
        if told.is_err() {
            log::error!("request {} was cut off, and cannot be reported", self.ctx.request_id());
        }
    }
}

/// The request's future was dropped.
fn cut(shared: &Shared, ctx: &mut Context) {
    let overdue = ctx.connection.as_ref().is_some_and(|c| c.guard.is_overdue());
    let why = match () {
        () if std::thread::panicking() => Cut::Panic,
        () if shared.lifecycle.is_cut() => Cut::Shutdown,
        () => Cut::Overdue,
    };
    if why == Cut::Overdue && !overdue {
        log::error!("request {} was dropped before it ended", ctx.request_id());
    }
    ctx.end.cut(why, ctx.sent.is_some());
    let sent = Sent { status: ctx.sent.unwrap_or(0), body_bytes: ctx.body.response_bytes };
    tell(shared, ctx, sent, Clock::now());
}

/// The request is over, and `well` if nothing broke off. Never waits. Later calls do nothing.
pub fn ended(session: &Session, reported: &mut Reported, well: bool) {
    let Some(shared) = reported.shared.take() else { return };
    let ctx = &mut *reported.ctx;
    response::keeping::ended(ctx, well);
    let now = Clock::now();
    if ctx.admission.rehearsal.is_some() {
        let over = attempt::dry_run::over(ctx);
        attempt::dry_run::rehearsed(ctx, over, now);
    }
    if ctx.end.rejection().is_none()
        && !ctx.end.is_client_gone()
        && let Some(outcome) = ctx.attempt.answered
    {
        attempt::conclude::conclude(ctx, outcome, now);
    }
    if !ctx.end.is_client_gone()
        && let Some(outcome) = ctx.verdict.last_outcome
    {
        attempt::conclude::conclude_request(ctx, outcome, now);
        // What another upstream took says nothing about this one.
        if ctx.diverted.is_none()
            && let Some(slot) = ctx.admission.slot.take()
        {
            slot.release(now);
        }
    }
    let mut status = exchange::sent::status_of(session, ctx);
    if ctx.connection.as_ref().is_some_and(|connection| connection.guard.detachment.is_deserted()) {
        ctx.end.client_left();
        status = 499;
    }
    let body_bytes = session.as_ref().body_bytes_sent() as u64;
    tell(&shared, ctx, Sent { status, body_bytes }, now);
}

/// What came from `client` is no request. Never waits.
pub fn no_request(shared: &Shared, client: Option<IpAddr>, lost: &Lost<'_>) {
    let snapshot = shared.snapshot.load();
    let summary = summary::no_request(client, snapshot.generation, lost);
    count(shared, None, &summary);
    let rules = Rules { refusals: shared.unrouted.refusals(), query: None, values: None };
    shared.access_log.tell(&snapshot.config.access_log, &summary, rules);
}

/// Tells the record, the trace, the metrics and the logs of a request that has ended.
fn tell(shared: &Shared, ctx: &mut Context, sent: Sent, now: Moment) {
    let attempts = spans::of_attempts(ctx, now);
    let finished = recording::finished(ctx);
    let summary = summary::summary(ctx, summary::ending(ctx, sent.status), sent, now);
    recording::finish(shared.recorder.as_ref(), ctx, &summary, finished);
    if let Some(attempts) = attempts {
        spans::finish(ctx, &summary, attempts);
    }
    count(shared, Some(ctx), &summary);
    let query = ctx.route.as_ref().and_then(|route| route.recorded_query.as_ref());
    let refusals = metrics_of(shared, ctx).refusals();
    let rules = Rules { refusals, query, values: Some(&|| values(ctx, now)) };
    shared.access_log.tell(&ctx.snapshot.config.access_log, &summary, rules);
    log_failure(ctx);
}

/// What the policies of the request's route hold.
fn values(ctx: &Context, now: Moment) -> Values {
    let facts = facts::of(ctx, now);
    let Some(route) = &ctx.route else { return Values { facts, ..Values::default() } };
    let policies = route.policies(ctx.drawn);
    let state = |breaker: &Option<Arc<Breaker>>| breaker.as_ref().map(|b| b.state(now));
    let budget = route.budget(ctx.drawn);
    Values {
        route_circuit: state(&policies.route_breaker),
        upstream_circuit: state(&policies.upstream_breaker),
        bulkhead: policies.bulkhead.as_ref().map(|b| (b.in_flight(), b.capacity())),
        limit: ctx.standing,
        budget: budget.map(|budget| budget.tokens(now)),
        facts,
    }
}

/// Logs how the upstream failed the request, if it did. Never waits. Takes the context and no summary:
/// a request that is about to go to its fallback has none yet.
pub fn log_failure(ctx: &Context) {
    let (Some(failure), Some(route)) = (&ctx.verdict.failure, &ctx.route) else { return };
    ctx.snapshot.events.failed(Box::new(FailedRequest {
        failure: failure.clone(),
        route: route.name.clone(),
        request_id: ctx.request_id.clone(),
        attempts: ctx.attempts,
        no_retry: summary::no_retry(ctx),
    }));
}

/// Those of the request's route, or those of requests without one.
fn metrics_of<'a>(shared: &'a Shared, ctx: &'a Context) -> &'a RouteMetrics {
    ctx.route.as_ref().map_or(&shared.unrouted, |route| &route.metrics)
}

/// Counts a request, or a connection on which none began.
fn count(shared: &Shared, ctx: Option<&Context>, summary: &Summary<'_>) {
    match summary.ending {
        // Counted by what was wrong with it, where that is known.
        Ending::NoRequest(NoRequest::ProxyHeader | NoRequest::Handshake) => return,
        Ending::NoRequest(
            why @ (NoRequest::HeadLate | NoRequest::HeadCutOff | NoRequest::Http2),
        ) => {
            return shared.metrics.no_requests.with_label_values(&[why.as_str()]).inc();
        }
        Ending::Cut { why: Cut::Overdue, .. } => shared.metrics.requests_cut.inc(),
        Ending::Cut { why: Cut::Panic | Cut::Shutdown, .. }
        | Ending::Answered
        | Ending::Failed { .. }
        | Ending::Replayed { .. }
        | Ending::Unforwarded
        | Ending::Refused(_)
        | Ending::BrokeOff(_)
        | Ending::ClientGone { .. } => {}
    }
    let Some(ctx) = ctx else { return };
    let metrics = metrics_of(shared, ctx);
    metrics.answered(Finished {
        family: ctx.protocol.family(),
        status: summary.status,
        cut: matches!(summary.ending, Ending::Cut { .. }),
        took: summary.duration,
        bytes_in: summary.bytes_in.unwrap_or(0),
        bytes_out: summary.bytes_out,
    });
    if let Some(refusal) = summary.ending.refusal() {
        metrics.rejected(refusal.code);
    }
    if let Some(code) = summary.would_refuse {
        metrics.would_refuse(code);
    }
}

#[cfg(test)]
mod tests;
