//! Which of a route's upstreams a request goes to.

use pingora_proxy::Session;

use crate::policy::rate_limit::Requester;
use crate::proxy::exchange::context::Context;
use crate::runtime::snapshot::{Route, Target};

/// Draws one if the route has several. It stays the request's upstream, retries included.
pub fn draw(session: &Session, ctx: &mut Context, route: &Route) {
    let Target::Fork(fork) = &route.target else { return };
    // What a path names has been found with the route.
    let Some(split) = fork.split() else { return };
    let headers = &session.req_header().headers;
    let requester = Requester::new(ctx.identity.as_deref(), ctx.client, headers);
    ctx.drawn = Some(split.draw(&requester));
}
