//! Calls of RPC that became plain HTTP with JSON, or the other way round: the answer's half.
//!
//! Only the whole answer tells what the caller gets, status included. So its head is kept from
//! the client, its body collected, and the answer written once the attempt is over: until then an
//! attempt that fails can be taken back.

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, StatusCode};
use percent_encoding::percent_decode_str;
use pingora_core::protocols::http::ServerSession;
use pingora_core::{Error, Result};
use pingora_http::ResponseHeader;
use pingora_proxy::Session;

use super::attempt::{self, MALFORMED, REJECTED};
use super::context::{Context, Translation};
use super::dialect::Rendered;
use super::gateway::Gateway;
use super::rejection::Rejection;
use super::rpc_code::RpcCode;
use super::transcoding::{Call, Way};
use super::{answer, idempotency, intake, recording};
use crate::transcode::wire::{self, Framing};
use crate::transcode::{Codec, Fault};

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const GRPC_ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
/// What an upstream says of its body, and of its protocol.
const OF_UPSTREAM: [HeaderName; 7] = [
    CONTENT_LENGTH,
    CONTENT_ENCODING,
    CONTENT_TYPE,
    TRANSFER_ENCODING,
    GRPC_STATUS,
    GRPC_MESSAGE,
    GRPC_ENCODING,
];
/// What surrounds a message of gRPC.
const FRAME: u64 = 5;
const GRPC_OK: HeaderValue = HeaderValue::from_static("0");

/// What an attempt at a call was answered.
pub struct Answer {
    head: ResponseHeader,
    body: Vec<u8>,
    /// Where gRPC says how it ended.
    trailers: Option<HeaderMap>,
    /// What the client gets as the body, once all of a good answer is there.
    good: Option<Bytes>,
}

/// The head of an answer: take it, and leave one that no client sees.
pub fn begin(session: &mut Session, ctx: &mut Context, head: &mut ResponseHeader) -> Result<()> {
    let Some(call) = &mut ctx.body.call else { return Ok(()) };
    if head.headers.get(CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity") {
        return Err(Error::new_up(MALFORMED));
    }
    let ended = !attempt::has_body(session, head);
    let longest = call.way.max_message() as u64 + FRAME;
    let too_long = intake::content_length(&head.headers).is_some_and(|length| length > longest);
    call.answer = Some(Answer { head: head.clone(), body: Vec::new(), trailers: None, good: None });
    if too_long {
        return Err(too_large(ctx));
    }
    // An informational head ends nothing; those of HTTP/2 are never sent, these shall not be.
    if let ServerSession::H1(downstream) = session.as_downstream_mut() {
        downstream.set_ignore_info_resp(true);
    }
    head.set_status(StatusCode::EARLY_HINTS)?;
    if ended { collect(&mut None, true, ctx) } else { Ok(()) }
}

/// A piece of an answer's body; with the last one, plain HTTP has said everything.
pub fn collect(body: &mut Option<Bytes>, end: bool, ctx: &mut Context) -> Result<()> {
    let Some(call) = &mut ctx.body.call else { return Ok(()) };
    let Call { way, answer: Some(answer), .. } = &mut **call else { return Ok(()) };
    if let Some(chunk) = body.take() {
        if answer.body.len() + chunk.len() > way.max_message() + FRAME as usize {
            return Err(too_large(ctx));
        }
        answer.body.extend_from_slice(&chunk);
    }
    match (end, way) {
        (true, Way::ToHttp { .. }) => conclude(ctx),
        (true | false, Way::ToHttp { .. } | Way::ToRpc { .. }) => Ok(()),
    }
}

/// The trailers of an answer: gRPC has said everything.
pub fn end(trailers: &HeaderMap, ctx: &mut Context) -> Result<()> {
    let Some(call) = &mut ctx.body.call else { return Ok(()) };
    if let Some(answer) = &mut call.answer {
        answer.trailers = Some(trailers.clone());
    }
    conclude(ctx)
}

/// All of an answer is there: what the client gets of it, unless it is an error. Once.
fn conclude(ctx: &mut Context) -> Result<()> {
    let Some(call) = &mut ctx.body.call else { return Ok(()) };
    let Call { way, answer: Some(answer), .. } = &mut **call else { return Ok(()) };
    if answer.good.is_some() {
        return Ok(());
    }
    let (good, json) = match way {
        Way::ToHttp { method, codec, framing } => {
            let good = answer.head.status.is_success().then(|| {
                let message = method.answer(&answer.body, *codec)?;
                Ok(Bytes::from(wire::wrap(*framing, message)))
            });
            (good, Some(Bytes::copy_from_slice(&answer.body)))
        }
        Way::ToRpc { method, binding } => {
            let good = (answer.grpc_status() == Some(0)).then(|| {
                let encoding = answer.head.headers.get(GRPC_ENCODING);
                let compressed = encoding.is_some_and(|encoding| encoding != "identity");
                method.reply(*binding, &answer.body, compressed).map(Bytes::from)
            });
            let json = good.as_ref().and_then(|good| good.as_ref().ok()).cloned();
            (good, json)
        }
    };
    match good.transpose() {
        Ok(good) => answer.good = good,
        Err(Fault::TooLarge) => return Err(too_large(ctx)),
        Err(_) => return Err(Error::new_up(MALFORMED)),
    }
    if let (Some(mut tap), Some(json)) = (ctx.body.response_tap.take(), json) {
        tap.push(&json);
        tap.finish(&mut ctx.row.captured);
    }
    Ok(())
}

fn too_large(ctx: &mut Context) -> Box<Error> {
    ctx.end.rejection = Some(Rejection::AnswerTooLarge);
    Error::new_up(REJECTED)
}

impl Answer {
    /// In the trailers, or in the head of an answer that has nothing else.
    fn grpc_field(&self, name: &HeaderName) -> Option<&str> {
        let trailers = self.trailers.as_ref().and_then(|trailers| trailers.get(name));
        trailers.or_else(|| self.head.headers.get(name))?.to_str().ok()
    }

    fn grpc_status(&self) -> Option<u8> {
        self.grpc_field(&GRPC_STATUS)?.parse().ok()
    }

    /// In the caller's protocol; and the head it came with.
    fn render(
        self,
        session: &Session,
        ctx: &Context,
        way: &Way,
    ) -> (ResponseHeader, Rendered, Option<HeaderMap>) {
        let json = HeaderValue::from_static("application/json");
        match (&self.good, way) {
            (Some(good), Way::ToHttp { codec, framing, .. }) => {
                let trailers = (*framing == Framing::Grpc)
                    .then(|| HeaderMap::from_iter([(GRPC_STATUS, GRPC_OK)]));
                let content_type = vec![(CONTENT_TYPE, content_type(session, *codec))];
                let rendered = Rendered::new(200, content_type, good.clone());
                (self.head, rendered, trailers)
            }
            (Some(good), Way::ToRpc { .. }) => {
                let rendered = Rendered::new(200, vec![(CONTENT_TYPE, json)], good.clone());
                (self.head, rendered, None)
            }
            (None, Way::ToRpc { .. }) if self.grpc_status().is_some() => {
                let code = self.grpc_status().and_then(RpcCode::numbered);
                let message = self.grpc_field(&GRPC_MESSAGE).unwrap_or("the upstream failed");
                let message = percent_decode_str(message).decode_utf8_lossy().into_owned();
                let code = code.unwrap_or(RpcCode::Unknown);
                let rendered = answer::render_error(session, ctx, code, &message);
                (self.head, rendered, None)
            }
            (None, Way::ToHttp { .. } | Way::ToRpc { .. }) => {
                let error = Translation { body: self.body, ..answer::collected(&self.head) };
                (self.head, answer::render_collected(session, ctx, &error), None)
            }
        }
    }
}

impl Gateway {
    /// Write the answer to a call whose attempt is over, if nothing has been written for it.
    pub(super) async fn answer_call(&self, session: &mut Session, ctx: &mut Context) {
        let Some(call) = ctx.body.call.take() else { return };
        let Some(answer) = call.answer else { return };
        if ctx.end.client_gone || ctx.end.rejection.is_some() || attempt::is_answered(session) {
            return;
        }
        ctx.end.rpc_failed = answer.good.is_none();
        let (head, rendered, trailers) = answer.render(session, ctx, &call.way);
        let Ok(head) = rewritten(head, &rendered) else {
            return self.refuse(session, ctx, Rejection::Internal).await;
        };
        ctx.body.response_bytes = rendered.body.len() as u64;
        if ctx.keyed.is_some() {
            idempotency::begin(session, ctx, &head).await;
        }
        let recorder = self.shared.recorder.as_ref();
        if let Err(rejection) = recording::commit(recorder, session, ctx, rendered.status).await {
            return self.refuse(session, ctx, rejection).await;
        }
        idempotency::collect(ctx, Some(&rendered.body), true);
        if answer::deliver(session, ctx, head, rendered, trailers).await.is_err() {
            ctx.end.client_gone = true;
        }
    }
}

/// The upstream's head, but for what the answer in the caller's protocol says.
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

/// The request's own; a Connect GET has none, and names its codec in the query.
fn content_type(session: &Session, codec: Codec) -> HeaderValue {
    let by_codec = || match codec {
        Codec::Json => HeaderValue::from_static("application/json"),
        Codec::Proto => HeaderValue::from_static("application/proto"),
    };
    session.req_header().headers.get(CONTENT_TYPE).cloned().unwrap_or_else(by_codec)
}
