//! A response's body on its way to the client: translated, kept, copied for the record, counted.

use bytes::Bytes;
use http::StatusCode;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use pingora_proxy::Session;

use crate::coding::Encoding;
use crate::policy::idempotency::Answer;
use crate::proxy::dialect::{Protocol, Said};
use crate::proxy::exchange::context::Context;
use crate::proxy::{report, response};
use crate::runtime::snapshot::Route;

/// Largest upstream error in bytes that is translated; the rest of a larger one is dropped.
const TRANSLATED_LIMIT: usize = 64 * 1024;

/// Gives the record what it needs of a response that is replayed.
pub fn watch_replay(ctx: &mut Context, route: &Route, answer: &Answer) {
    let Some(capture) = &route.capture else { return };
    let protocol = ctx.protocol;
    report::recording::note_error(ctx, || response::grpc::kept_message(protocol, answer));
    let Some(body) = &answer.body else { return };
    let content_type = answer.headers.get(CONTENT_TYPE).map(|value| value.as_bytes());
    let mut encoding = Encoding::Identity;
    let (content_type, body) = match &ctx.body.call {
        Some(call) if call.protocol() == Protocol::Http => {
            if answer.status != StatusCode::OK {
                // A Connect error; responses in the other protocols always have status 200.
                return report::recording::note_error(ctx, || Said::in_body(body).given());
            }
            let message = Some(body);
            let Some(json) = message.and_then(|body| call.way.json_of(body)) else { return };
            (Some(&b"application/json"[..]), json)
        }
        Some(_) | None => {
            encoding = Encoding::of(&answer.headers, CONTENT_ENCODING);
            (content_type, body.clone())
        }
    };
    let tap = capture.response(content_type, Some(body.len() as u64));
    if let Some(mut tap) = tap.and_then(|tap| tap.encoded(encoding)) {
        tap.push(&body);
        tap.finish(&mut ctx.row.captured);
    }
}

/// Handles a chunk of the upstream's response. The record gets what the client gets.
pub fn on_response(session: &Session, body: &mut Option<Bytes>, end: bool, ctx: &mut Context) {
    translate(session, body, end, ctx);
    response::keeping::collect(ctx, body.as_ref(), end);
    if let (Some(chunk), Some(tap)) = (&body, &mut ctx.body.response_tap) {
        tap.push(chunk);
    }
    if end && let Some(tap) = ctx.body.response_tap.take() {
        tap.finish(&mut ctx.row.captured);
    }
    // A head that was held back goes with what comes first after it.
    ctx.sent = ctx.sent.or(ctx.attempt.upstream_status);
    ctx.body.response_bytes += body.as_ref().map_or(0, |chunk| chunk.len() as u64);
}

/// Holds an upstream's error back until it is complete, then replaces it.
fn translate(session: &Session, body: &mut Option<Bytes>, end: bool, ctx: &mut Context) {
    let Some(translation) = &mut ctx.body.translation else { return };
    if let Some(chunk) = body.take() {
        let room = TRANSLATED_LIMIT.saturating_sub(translation.body.len());
        translation.body.extend_from_slice(&chunk[..chunk.len().min(room)]);
    }
    if end && let Some(mut translation) = ctx.body.translation.take() {
        translation.inflate(TRANSLATED_LIMIT);
        report::recording::note_error(ctx, || Said::in_body(&translation.body).given());
        let translated = response::translation::translate(session, ctx, translation);
        *body = (!translated.is_empty()).then_some(translated);
    }
}
