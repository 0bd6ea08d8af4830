//! Transcoded calls, RPC to plain HTTP with JSON or the other way round: the response's half.
//!
//! Only the complete response decides what the caller gets, status included. So the head is held
//! back, the body collected, and the response written once the attempt is over. Until then an
//! attempt that fails can be retried.

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderName};
use http::{HeaderMap, HeaderValue, StatusCode};
use percent_encoding::percent_decode_str;
use pingora_core::protocols::http::ServerSession;
use pingora_core::{Error, Result};
use pingora_http::ResponseHeader;
use pingora_proxy::Session;

use crate::coding::Encoding;
use crate::config::rpc_code::RpcCode;
use crate::policy::failure::Cause;
use crate::proxy::dialect::names::{GRPC_ENCODING, GRPC_MESSAGE, GRPC_STATUS};
use crate::proxy::dialect::{Protocol, Rendered};
use crate::proxy::exchange::call::{Answer, Call, Way};
use crate::proxy::exchange::context::Context;
use crate::proxy::exchange::signal::{REJECTED, UNREADABLE};
use crate::proxy::exchange::translation::Translation;
use crate::proxy::rejection::Rejection;
use crate::proxy::{attempt, exchange, request, response};
use crate::summary::words::Words;
use crate::transcode::config::Upstream;
use crate::transcode::wire::Framing;
use crate::transcode::{Codec, Fault, Method, wire};

/// Length in bytes of the prefix of a gRPC message.
const FRAME: u64 = 5;
/// Why a response cannot be read.
const COMPRESSED: &str = "it is compressed by an encoding that is not read here";
const GRPC_OK: HeaderValue = HeaderValue::from_static("0");

/// Keeps the head of a response, and leaves Pingora one that is never sent.
///
/// # Errors
/// [`UNREADABLE`], or [`REJECTED`] if the response is too large.
pub fn begin(session: &mut Session, ctx: &mut Context, head: &mut ResponseHeader) -> Result<()> {
    let Some(call) = &mut ctx.body.call else { return Ok(()) };
    // The gateway asks for no encoding, but reads gzip and deflate all the same.
    let unknown = Encoding::of(&head.headers, CONTENT_ENCODING) == Encoding::Unknown;
    if unknown && head.status.is_success() {
        return Err(unreadable(ctx, COMPRESSED));
    }
    let ended = !exchange::sent::has_body(session, head);
    let longest = call.way.max_message() as u64 + FRAME;
    let too_long = head.status.is_success()
        && exchange::fields::content_length(&head.headers).is_some_and(|length| length > longest);
    call.answer = Some(Answer { head: head.clone(), body: Vec::new(), trailers: None, good: None });
    if too_long {
        return Err(too_large(ctx));
    }
    // An informational head does not end a response. Over HTTP/2 the gateway drops such heads; over
    // HTTP/1 Pingora must be told not to send this one.
    if let ServerSession::H1(downstream) = session.as_downstream_mut() {
        downstream.set_ignore_info_resp(true);
    }
    head.set_status(StatusCode::EARLY_HINTS)?;
    if ended { collect(&mut None, true, ctx) } else { Ok(()) }
}

/// Collects a piece of a response's body. With the last one a plain HTTP response is complete.
///
/// # Errors
/// As [`begin`].
pub fn collect(body: &mut Option<Bytes>, end: bool, ctx: &mut Context) -> Result<()> {
    let Some(call) = &mut ctx.body.call else { return Ok(()) };
    let Call { way, answer: Some(answer), .. } = &mut **call else { return Ok(()) };
    if let Some(chunk) = body.take() {
        let room = (way.max_message() + FRAME as usize).saturating_sub(answer.body.len());
        if chunk.len() <= room {
            answer.body.extend_from_slice(&chunk);
        } else if answer.head.status.is_success() {
            return Err(too_large(ctx));
        }
        // The rest of an error that is too long is dropped.
    }
    match (end, way) {
        (true, Way::ToHttp { .. }) => conclude(ctx),
        (true | false, Way::ToHttp { .. } | Way::ToRpc { .. }) => Ok(()),
    }
}

/// The trailers of a response: a gRPC response is complete.
///
/// # Errors
/// As [`begin`].
pub fn end(trailers: &HeaderMap, ctx: &mut Context) -> Result<()> {
    let Some(call) = &mut ctx.body.call else { return Ok(()) };
    if let Some(answer) = &mut call.answer {
        answer.trailers = Some(trailers.clone());
    }
    conclude(ctx)
}

/// The response is complete: converts a success to what the client gets, once.
fn conclude(ctx: &mut Context) -> Result<()> {
    let Some(call) = &mut ctx.body.call else { return Ok(()) };
    let Call { way, answer: Some(answer), .. } = &mut **call else { return Ok(()) };
    if answer.good.is_some() {
        return Ok(());
    }
    let wants_json = ctx.body.response_tap.is_some();
    let inflated = answer.inflate(way.max_message());
    let concluded = match way {
        _ if inflated.is_err() => inflated.map(|()| None),
        Way::ToHttp { method, codec, framing } if answer.head.status.is_success() => {
            of_json(method, (*codec, *framing), &answer.body, wants_json).map(Some)
        }
        Way::ToHttp { .. } => Ok(None),
        Way::ToRpc { method, binding } if answer.grpc_status() == Some(0) => {
            let encoding = Encoding::of(&answer.head.headers, GRPC_ENCODING);
            let json = method.reply(*binding, &answer.body, encoding).map(Bytes::from);
            json.map(|json| Some((json.clone(), Some(json))))
        }
        Way::ToRpc { .. } => Ok(None),
    };
    let json = match concluded {
        Ok(Some((good, json))) => {
            answer.good = Some(good);
            json
        }
        Ok(None) => Some(Bytes::copy_from_slice(&answer.body)).filter(|_| wants_json),
        Err(Fault::TooLarge) => return Err(too_large(ctx)),
        Err(Fault::Malformed(why)) => return Err(unreadable(ctx, why)),
        Err(_) => return Err(unreadable(ctx, COMPRESSED)),
    };
    if let (Some(mut tap), Some(json)) = (ctx.body.response_tap.take(), json) {
        tap.push(&json);
        tap.finish(&mut ctx.row.captured);
    }
    Ok(())
}

/// The upstream's JSON as a response body in the caller's protocol, and as JSON for the record.
fn of_json(
    method: &Method,
    (codec, framing): (Codec, Framing),
    json: &[u8],
    wants_json: bool,
) -> Result<(Bytes, Option<Bytes>), Fault> {
    let answer = method.answer(json)?;
    let message = method.write(&answer, codec)?;
    let seen = match codec {
        _ if !wants_json => None,
        Codec::Json => Some(Bytes::copy_from_slice(&message)),
        Codec::Proto => Some(method.write(&answer, Codec::Json)?.into()),
    };
    Ok((wire::wrap(framing, message).into(), seen))
}

/// A complete response that is not a valid message; another attempt may get a valid one. Logged
/// rarely: the upstream, or the descriptors, must be corrected.
fn unreadable(ctx: &Context, why: &str) -> Box<Error> {
    complain(ctx, why);
    Error::explain(UNREADABLE, why.to_owned()).into_up()
}

fn complain(ctx: &Context, why: &str) {
    let (Some(route), Some(target)) = (&ctx.route, ctx.upstream()) else { return };
    let Some(transcoder) = &route.transcoder else { return };
    if let Some(begun) = transcoder.unreadable().met() {
        let (route, upstream) = (route.name.clone(), &target.upstream.name);
        log::warn!("routes.{route}: an answer of upstream {upstream} cannot be transcoded: {why}");
        begun.until(move |over| {
            log::info!("routes.{route}: no more answers that cannot be transcoded {over}");
        });
    }
}

fn too_large(ctx: &mut Context) -> Box<Error> {
    const WHY: &str = "it is larger than max_message";
    complain(ctx, WHY);
    attempt::conclude::give_up(ctx, Cause::AnswerUnreadable, Words::Text(WHY.into()));
    ctx.end.refuse(Rejection::Upstream(Cause::AnswerUnreadable));
    Error::new_up(REJECTED)
}

impl Answer {
    /// Decodes the upstream's body, once. An error whose body cannot be decoded is still an error.
    fn inflate(&mut self, limit: usize) -> Result<(), Fault> {
        let encoding = Encoding::of(&self.head.headers, CONTENT_ENCODING);
        if encoding == Encoding::Identity {
            return Ok(());
        }
        self.head.remove_header(&CONTENT_ENCODING);
        match wire::inflated(Framing::Bare, &self.body, encoding, limit) {
            Ok(body) => self.body = body,
            Err(_) if !self.head.status.is_success() => self.body.clear(),
            Err(fault) => return Err(fault),
        }
        Ok(())
    }

    /// A field of the trailers, or of the head of a response that has no trailers.
    fn grpc_field(&self, name: &HeaderName) -> Option<&str> {
        let trailers = self.trailers.as_ref().and_then(|trailers| trailers.get(name));
        trailers.or_else(|| self.head.headers.get(name))?.to_str().ok()
    }

    fn grpc_status(&self) -> Option<u8> {
        self.grpc_field(&GRPC_STATUS)?.parse().ok()
    }

    /// The response in the caller's protocol, with the upstream's head.
    pub fn render(
        mut self,
        session: &Session,
        ctx: &Context,
        way: &Way,
    ) -> (ResponseHeader, Rendered) {
        let rendered = match (self.good.take(), way) {
            (Some(good), Way::ToHttp { codec, framing, .. }) => {
                success(session, *codec, *framing, good)
            }
            (Some(good), Way::ToRpc { .. }) => {
                let json = HeaderValue::from_static("application/json");
                Rendered::new(ok(ctx), vec![(CONTENT_TYPE, json)], good)
            }
            (None, Way::ToRpc { .. }) if self.grpc_status().is_some() => {
                let code = self.grpc_status().and_then(RpcCode::numbered);
                let message = self.grpc_field(&GRPC_MESSAGE).unwrap_or("the upstream failed");
                let message = percent_decode_str(message).decode_utf8_lossy().into_owned();
                let code = code.unwrap_or(RpcCode::Unknown);
                response::translation::render_error(session, ctx, code, &message)
            }
            (None, Way::ToHttp { .. } | Way::ToRpc { .. }) => {
                let error =
                    Translation { body: self.body, ..response::translation::collected(&self.head) };
                response::translation::render_collected(session, ctx, &error)
            }
        };
        (self.head, rendered)
    }
}

/// The status a plain HTTP caller gets for an upstream's `OK`.
fn ok(ctx: &Context) -> u16 {
    let route = ctx.route.as_ref().filter(|_| ctx.protocol == Protocol::Http);
    let status = route.and_then(|route| route.config.status_map.get(200));
    status.map_or(200, |status| status.as_u16())
}

/// A message, framed, as a successful response.
fn success(session: &Session, codec: Codec, framing: Framing, body: Bytes) -> Rendered {
    let mut headers = vec![(CONTENT_TYPE, content_type(session, codec))];
    if framing == Framing::Grpc {
        headers.push((GRPC_STATUS, GRPC_OK));
    }
    Rendered::new(200, headers, body)
}

/// A fallback's JSON in the caller's protocol, converted like an upstream's; `None` if it does not
/// fit the method's response.
pub fn stand_in(session: &Session, ctx: &Context, fallback: Rendered) -> Option<Rendered> {
    let Some(transcoder) = ctx.route.as_ref().and_then(|route| route.transcoder.as_ref()) else {
        return Some(fallback);
    };
    let way = match (&ctx.body.call, transcoder.upstream()) {
        (_, Upstream::Grpc) => return Some(fallback),
        (Some(call), Upstream::Http) => call.way.clone(),
        (None, Upstream::Http) => request::transcode::way(session, ctx, transcoder).ok()?,
    };
    let Way::ToHttp { method, codec, framing } = way else { return Some(fallback) };
    if !(200..300).contains(&fallback.status) {
        let body = fallback.body.to_vec();
        let error = Translation {
            status: fallback.status,
            retry_after: None,
            encoding: Encoding::Identity,
            body,
        };
        return Some(response::translation::render_collected(session, ctx, &error));
    }
    let (body, _) = of_json(&method, (codec, framing), &fallback.body, false).ok()?;
    Some(success(session, codec, framing, body))
}

/// The request's content type. A Connect GET has none, and names its codec in the query.
fn content_type(session: &Session, codec: Codec) -> HeaderValue {
    let by_codec = || match codec {
        Codec::Json => HeaderValue::from_static("application/json"),
        Codec::Proto => HeaderValue::from_static("application/proto"),
    };
    session.req_header().headers.get(CONTENT_TYPE).cloned().unwrap_or_else(by_codec)
}
