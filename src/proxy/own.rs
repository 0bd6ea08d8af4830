//! Answers in the gateway's own name: refusals, replays, and routes that it serves by itself.
//!
//! Here a `durable` or `sync` record meets them; how they are put on the wire is in [`super::answer`].

use pingora_proxy::Session;

use super::admission::Admitted;
use super::context::Context;
use super::gateway::Gateway;
use super::rejection::Rejection;
use super::{answer, attempt, body, fallback, idempotency, recording, response, transcoding};
use crate::policy;
use crate::policy::idempotency::Answer;
use crate::runtime::snapshot::Target;
use crate::runtime::status;

impl Gateway {
    /// Answer in the gateway's own name. A `durable` or `sync` row is committed first, and when that
    /// fails the refusal says so instead.
    pub(super) async fn refuse(
        &self,
        session: &mut Session,
        ctx: &mut Context,
        rejection: Rejection,
    ) {
        if attempt::is_answered(session) {
            return;
        }
        if let Rejection::Policy(policy::Rejection::CircuitOpen { .. })
        | Rejection::Policy(policy::Rejection::BulkheadFull { .. })
        | Rejection::Policy(policy::Rejection::RateLimited(_))
        | Rejection::Policy(policy::Rejection::LimitStoreUnavailable)
        | Rejection::Policy(policy::Rejection::Idempotency(_)) = &rejection
            && let Some(route) = ctx.route.clone()
        {
            // The row of a refusal names what was refused, too.
            self.watch_bodies(session, ctx, &route);
            match &route.transcoder {
                Some(transcoder) => transcoding::look(session, ctx, &route, transcoder).await,
                None => body::read_unforwarded(session, ctx).await,
            }
        }
        let mut rejection = rejection;
        let mut rendered = answer::render(session, ctx, &rejection);
        ctx.end.rejection = Some(rejection.clone());
        if let Err(unavailable) =
            recording::commit(self.shared.recorder.as_ref(), session, ctx, rendered.status).await
        {
            rejection = unavailable;
            rendered = answer::render(session, ctx, &rejection);
            ctx.end.rejection = Some(rejection.clone());
        }
        if let Some((_, cause)) = fallback::of(ctx, &rejection)
            && let Some(route) = &ctx.route
        {
            route.metrics.fell_back(cause.as_str());
        }
        idempotency::settle(ctx, &rejection, &rendered).await;
        if answer::refuse(session, ctx, &rejection, rendered).await.is_err() {
            ctx.end.client_gone = true;
        }
    }

    /// Give an answer that another request with the same key has got before.
    async fn replay(&self, session: &mut Session, ctx: &mut Context, kept: Answer) {
        ctx.end.replayed = true;
        ctx.end.rpc_failed = response::has_failed(ctx.protocol, &kept);
        if let Some(route) = ctx.route.clone() {
            // As the first one's, which was sent.
            if let Some(transcoder) = &route.transcoder {
                transcoding::begin(session, ctx, &route, transcoder).await.ok();
            } else {
                if let Some(json) = &route.config.json {
                    body::prepare(session, ctx, json).await.ok();
                }
                self.watch_bodies(session, ctx, &route);
            }
            body::read_unforwarded(session, ctx).await;
            body::watch_replay(ctx, &route, &kept);
        }
        let status = kept.status.as_u16();
        if let Err(rejection) =
            recording::commit(self.shared.recorder.as_ref(), session, ctx, status).await
        {
            ctx.end.replayed = false;
            self.refuse(session, ctx, rejection).await;
        } else if answer::replay(session, ctx, kept).await.is_err() {
            ctx.end.client_gone = true;
        }
    }

    /// Give what `admitted` asks for, where that is not an upstream's answer.
    pub(super) async fn answer(
        &self,
        session: &mut Session,
        ctx: &mut Context,
        admitted: Result<Admitted, Rejection>,
    ) {
        match admitted {
            Ok(Admitted::Call) => self.serve(session, ctx).await,
            Ok(Admitted::Replay(answer)) => self.replay(session, ctx, answer).await,
            Ok(Admitted::Preflight | Admitted::Ping) => {
                ctx.end.preflight = true;
                ctx.end.client_gone = answer::preflight(session, ctx).await.is_err();
            }
            Err(rejection) => {
                if !ctx.end.client_gone {
                    self.refuse(session, ctx, rejection).await;
                }
            }
        }
    }

    /// Routes without an upstream.
    async fn serve(&self, session: &mut Session, ctx: &mut Context) {
        let Some(Target::Serve(what)) = ctx.route.as_ref().map(|route| &route.target) else {
            return;
        };
        let answer = status::answer(&self.shared, *what).await;
        if let Err(rejection) =
            recording::commit(self.shared.recorder.as_ref(), session, ctx, answer.status).await
        {
            self.refuse(session, ctx, rejection).await;
        } else if answer::reply(session, ctx, answer).await.is_err() {
            ctx.end.client_gone = true;
        }
    }
}
