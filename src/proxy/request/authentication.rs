//! Identifies the caller: by the route's authorities, in their order. Fetches keys, or asks services,
//! where an authority needs that.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use pingora_proxy::Session;

use crate::identity::Peer;
use crate::policy::auth::{self, Denial, Guard, Identity, Inquiry, Presented, Refusal, Told};
use crate::proxy::downstream::address::X_FORWARDED_CLIENT_CERT;
use crate::proxy::exchange::context::Context;
use crate::proxy::request;
use crate::runtime::inquiry::Question;
use crate::runtime::snapshot::Route;
use crate::time::{Clock, Moment};

/// A request that is not let in.
pub struct Refused {
    /// Why.
    pub refusal: Refusal,
    /// The caller, if it is known, and not authorized.
    pub who: Option<Arc<Identity>>,
    /// The request's deadline came before it was known whether it may pass.
    pub is_late: bool,
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Refused { refusal, who: None, is_late: false }
    }
}

/// The caller; `None` if the route does not ask for one.
///
/// # Errors
/// The route does not admit the caller, or it cannot be checked.
pub async fn of(
    session: &Session,
    ctx: &Context,
    route: &Route,
    now: Moment,
) -> Result<Option<Arc<Identity>>, Refused> {
    let Some(guard) = &route.guard else { return Ok(None) };
    if guard.asks() {
        // Boxed: few routes need this future's state.
        return Box::pin(by_asking(session, ctx, route, guard, now)).await;
    }
    let said = said(session, ctx);
    let presented = presented(session, ctx, &said);
    let check = |moment| {
        let method = &session.req_header().method;
        guard.check(method, path(session, ctx), presented, clocks(ctx, moment))
    };
    let mut refusal = match check(now) {
        Ok(identity) => return Ok(identity),
        Err(refusal) => refusal,
    };
    if has_other_keys(ctx, &refusal).await {
        match check(Clock::now()) {
            Ok(identity) => return Ok(identity),
            Err(again) => refusal = again,
        }
    }
    let who = match refusal {
        Refusal::Unauthenticated(_) => None,
        // Verifies once more what has just been verified, to learn whom the credentials name.
        Refusal::Forbidden(_) => guard.authenticate(presented, clocks(ctx, ctx.started)).ok(),
    };
    Err(Refused { refusal, who, is_late: false })
}

/// The same where an authority has to ask a service. Each authority is tried, and its service asked, in
/// its turn, so a service is asked only if no authority before it has accepted the request.
async fn by_asking(
    session: &Session,
    ctx: &Context,
    route: &Route,
    guard: &Guard,
    now: Moment,
) -> Result<Option<Arc<Identity>>, Refused> {
    if guard.is_anonymous(path(session, ctx)) {
        return Ok(None);
    }
    let said = said(session, ctx);
    let presented = presented(session, ctx, &said);
    let mut told = Denial::Missing;
    let mut found = None;
    for verifier in guard.verifiers() {
        let verdict = match verifier.inquiry() {
            None => verifier.verify(presented, clocks(ctx, now)),
            Some(inquiry) => ask(session, ctx, route, inquiry).await,
        };
        match verdict {
            Ok(identity) => {
                found = Some(identity);
                break;
            }
            Err(denial) if denial.outweighs(&told) => told = denial,
            Err(_) => {}
        }
    }
    let identity = match found {
        Some(identity) => identity,
        None => {
            let refusal = Refusal::Unauthenticated(told);
            if !has_other_keys(ctx, &refusal).await {
                let is_unanswered =
                    matches!(refusal, Refusal::Unauthenticated(Denial::Unanswered { .. }));
                return Err(Refused {
                    is_late: is_unanswered && left(ctx).is_zero(),
                    ..refusal.into()
                });
            }
            let again = guard.authenticate(presented, clocks(ctx, Clock::now()));
            again.map_err(Refusal::Unauthenticated)?
        }
    };
    match guard.authorize(&identity, &session.req_header().method, path(session, ctx)) {
        Ok(()) => Ok(Some(identity)),
        Err(lack) => Err(Refused { who: Some(identity), ..Refusal::Forbidden(lack).into() }),
    }
}

/// What the authority's service says, now or a moment ago.
async fn ask(
    session: &Session,
    ctx: &Context,
    route: &Route,
    inquiry: &Inquiry,
) -> Result<Arc<Identity>, Denial> {
    let service = ctx.snapshot.service(inquiry.authority());
    let Some(service) = service else {
        return Err(inquiry.unanswered("the gateway is not ready to ask"));
    };
    let (asked, left) = (Clock::now(), left(ctx));
    let now = clocks(ctx, asked);
    match inquiry {
        Inquiry::Introspection(introspector) => {
            let (token, key) = introspector.token(&session.req_header().headers)?;
            let question = || Question::of_token(introspector, token);
            service.answer(inquiry, Some(key), now, left, question).await
        }
        Inquiry::Forward(forwarder) => {
            let about = request::inquiry::about(session, ctx, route);
            let key = forwarder.key(about.target(), about.certificate(ctx), &about.headers);
            let question = || Question::of_request(forwarder, about.to_send(forwarder, ctx));
            service.answer(inquiry, key, now, left, question).await
        }
    }
}

/// Whether keys came that may verify what was refused. They are fetched as often as the authority's limit
/// allows: a client that sends garbage delays only itself.
async fn has_other_keys(ctx: &Context, refusal: &Refusal) -> bool {
    let Some((authority, wanted)) = refusal.wanted_keys() else { return false };
    let Some(jwks) = ctx.snapshot.jwks(authority) else { return false };
    let fetched = Box::pin(tokio::time::timeout(left(ctx), jwks.refresh_for(wanted))).await;
    fetched.unwrap_or(false)
}

fn presented<'a>(session: &'a Session, ctx: &'a Context, said: &'a Said) -> Presented<'a> {
    let inbound = ctx.connection.as_ref().map(|connection| &connection.inbound);
    let certified = inbound.and_then(|inbound| inbound.certified.as_ref());
    let peer = certified.map(|certified| &certified.peer);
    let recent = inbound.map(|inbound| &inbound.recent);
    let told = match said {
        Said::ByNoProxy => None,
        Said::Nothing => Some(Told::Nothing),
        Said::Nonsense => Some(Told::Nonsense),
        Said::Of(peer) => Some(Told::Peer(peer)),
    };
    Presented { headers: &session.req_header().headers, peer, told, recent }
}

/// What is said of the client's certificate in the request's head.
enum Said {
    /// The connection is not a trusted proxy's: whatever is there is the client's.
    ByNoProxy,
    Nothing,
    Nonsense,
    Of(Peer),
}

fn said(session: &Session, ctx: &Context) -> Said {
    if !ctx.peer_trusted {
        return Said::ByNoProxy;
    }
    // The last line is the nearest proxy's.
    let lines = session.req_header().headers.get_all(X_FORWARDED_CLIENT_CERT);
    let Some(line) = lines.iter().next_back() else { return Said::Nothing };
    let peer = line.to_str().ok().and_then(Peer::from_field);
    peer.map_or(Said::Nonsense, Said::Of)
}

fn path<'a>(session: &'a Session, ctx: &'a Context) -> &'a str {
    ctx.recorded_path.as_deref().unwrap_or_else(|| session.req_header().uri.path())
}

fn clocks(ctx: &Context, moment: Moment) -> auth::Now {
    let unix_seconds = ctx.received_at.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    auth::Now { unix_seconds, moment }
}

/// Until the request's deadline.
fn left(ctx: &Context) -> Duration {
    ctx.deadline.map_or(Duration::MAX, |deadline| deadline.since(Clock::now()))
}
