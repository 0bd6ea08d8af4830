//! The response to a transcoded call, written once its attempt is over.

use std::sync::Arc;

use http::header::{
    ACCEPT_RANGES, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, ETAG, HeaderName,
    TRANSFER_ENCODING,
};
use pingora_core::Result;
use pingora_http::ResponseHeader;
use pingora_proxy::Session;

use crate::proxy::dialect::Rendered;
use crate::proxy::dialect::names::{GRPC_ENCODING, GRPC_MESSAGE, GRPC_STATUS};
use crate::proxy::exchange::context::Context;
use crate::proxy::rejection::Rejection;
use crate::proxy::{attempt, exchange, reply, report, response};
use crate::runtime::shared::Shared;
use crate::time::Clock;

/// Header fields that describe the upstream's body and protocol.
const OF_UPSTREAM: [HeaderName; 12] = [
    ACCEPT_RANGES,
    ETAG,
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
    HeaderName::from_static("grpc-accept-encoding"),
    CONTENT_LENGTH,
    CONTENT_ENCODING,
    CONTENT_TYPE,
    TRANSFER_ENCODING,
    GRPC_STATUS,
    GRPC_MESSAGE,
    GRPC_ENCODING,
];

/// Writes the response to a call whose attempt is over, if none has been written.
pub async fn answer_call(shared: &Arc<Shared>, session: &mut Session, ctx: &mut Context) {
    let Some(answer) = ctx.body.call.as_mut().and_then(|call| call.answer.take()) else { return };
    let refused = ctx.end.rejection().is_some();
    if refused || ctx.end.is_client_gone() || exchange::sent::is_answered(session) {
        return;
    }
    // Before the first byte goes out. For a response without a body, no other place reports this.
    attempt::conclude::answered(ctx, Clock::now());
    ctx.end.judge_rpc(answer.good.is_none());
    let Some(call) = ctx.body.call.take() else { return };
    let (head, mut rendered) = answer.render(session, ctx, &call.way);
    // The log names its method.
    ctx.body.call = Some(call);
    let Ok(mut head) = rewritten(head, &rendered) else {
        return reply::choose::refuse(shared, session, ctx, Rejection::Internal).await;
    };
    if ctx.keyed.is_some() {
        response::keeping::begin(ctx, &head, exchange::sent::has_body(session, &head)).await;
    }
    let recorder = shared.recorder.as_ref();
    if let Err(rejection) = report::recording::commit(recorder, session, ctx, rendered.status).await
    {
        return reply::choose::refuse(shared, session, ctx, rejection).await;
    }
    response::keeping::collect(ctx, Some(&rendered.body), true);
    // Compressed only now: the stored response must be readable by every client that gets a replay.
    rendered.body = response::compression::deflate_answer(session, ctx, &mut head, rendered.body);
    ctx.body.response_bytes = rendered.body.len() as u64;
    if reply::wire::deliver(session, ctx, head, rendered).await.is_err() {
        ctx.end.client_left();
    }
}

/// The upstream's head, with the fields that the response in the caller's protocol replaces.
fn rewritten(mut head: ResponseHeader, rendered: &Rendered) -> Result<ResponseHeader> {
    head.set_status(rendered.status)?;
    for name in &OF_UPSTREAM {
        head.remove_header(name);
    }
    for (name, value) in &rendered.headers {
        head.insert_header(name, value)?;
    }
    Ok(head)
}
