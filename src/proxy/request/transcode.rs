//! Calls of RPC that become plain HTTP with JSON, or the other way round: the request's half.
//!
//! The whole message is read before anything goes upstream, so a malformed or too large one is
//! never sent. The response is handled in [`crate::proxy::response::transcode`].

use bytes::Bytes;
use http::header::{CONTENT_TYPE, EXPECT};
use http::{HeaderValue, Method, Version};
use pingora_proxy::Session;

use crate::coding::Encoding;
use crate::proxy::dialect::Protocol;
use crate::proxy::exchange::call::{Call, JSON, Way};
use crate::proxy::exchange::context::Context;
use crate::proxy::rejection::Rejection;
use crate::proxy::request::fault::rejected;
use crate::proxy::{attempt, request};
use crate::runtime::snapshot::Route;
use crate::transcode::config::Upstream;
use crate::transcode::wire::Framing;
use crate::transcode::{Codec, Fault, Transcoder, wire};

/// The content types that are read, from RPC callers and from plain HTTP callers.
const RPC_TYPES: &str = "application/json, application/proto, application/grpc, application/grpc-web, application/grpc-web-text";
const PLAIN_TYPES: &str = "application/json";

/// Reads the call, and converts it to what goes upstream.
///
/// # Errors
/// The rejection of a request that is not a call this route accepts.
pub async fn begin(
    session: &mut Session,
    ctx: &mut Context,
    route: &Route,
    transcoder: &Transcoder,
) -> Result<(), Rejection> {
    let call = match transcoder.upstream() {
        Upstream::Http => to_http(session, ctx, route, transcoder).await?,
        Upstream::Grpc => to_rpc(session, ctx, route, transcoder).await?,
    };
    // The body's envelopes have been checked.
    ctx.body.envelopes = None;
    ctx.body.call = Some(Box::new(call));
    Ok(())
}

/// Which protocol an RPC caller speaks, and which method it calls, by its head.
///
/// # Errors
/// As [`begin`].
pub fn way(session: &Session, ctx: &Context, transcoder: &Transcoder) -> Result<Way, Rejection> {
    let request = session.req_header();
    let path = ctx.path.as_deref().unwrap_or_else(|| request.uri.path());
    let method = transcoder.method(path).map_err(rejected)?.clone();
    let (codec, framing) = match request.method {
        Method::POST => encoding(ctx.protocol, request)?,
        Method::GET if method.has_no_side_effects() => {
            let codec = wire::codec_of_query(request.uri.query().unwrap_or_default());
            (codec.map_err(rejected)?, Framing::Bare)
        }
        _ => {
            let allowed = if method.has_no_side_effects() { "GET, POST" } else { "POST" };
            return Err(Rejection::MethodNotAllowed(HeaderValue::from_static(allowed)));
        }
    };
    Ok(Way::ToHttp { method, codec, framing })
}

async fn to_http(
    session: &mut Session,
    ctx: &mut Context,
    route: &Route,
    transcoder: &Transcoder,
) -> Result<Call, Rejection> {
    let way = way(session, ctx, transcoder)?;
    let Way::ToHttp { method, codec, framing } = &way else { return Err(Rejection::Internal) };
    let max_message = max_message(route, transcoder);
    let request = session.req_header();
    let message = match request.method {
        Method::GET => {
            let query = request.uri.query().unwrap_or_default();
            let encoding = wire::encoding_of_query(query);
            let message = wire::message_of_query(query).map_err(rejected)?;
            read(session, ctx, 0).await?;
            let message = wire::unwrap(Framing::Bare, &message, encoding, max_message);
            message.map_err(rejected)?.into_owned()
        }
        _ => {
            let encoding = request::compression::of_request(*framing, &request.headers, ctx);
            let body = read(session, ctx, limit(route, transcoder)).await?;
            let message = wire::unwrap(*framing, &body, encoding, max_message);
            message.map_err(rejected)?.into_owned()
        }
    };
    attempt::dry_run::measured(ctx, message.len() as u64);
    let request = transcoder.to_http(method, *codec, &message).map_err(rejected)?;
    let length = request.body.as_ref().map(|body| body.len() as u64);
    let has_body = request.body.is_some();
    let capture = route.capture.as_ref();
    ctx.body.request_tap = capture.and_then(|c| c.request(Some(JSON.as_bytes()), length));
    ctx.body.prepared = Some(request.body.unwrap_or_default());
    Ok(Call { way, method: request.method, target: request.target, has_body, answer: None })
}

async fn to_rpc(
    session: &mut Session,
    ctx: &mut Context,
    route: &Route,
    transcoder: &Transcoder,
) -> Result<Call, Rejection> {
    let headers = &session.req_header().headers;
    if !ctx.protocol.reads_json() {
        return Err(Rejection::UnsupportedMediaType(PLAIN_TYPES));
    }
    let encoding = request::compression::of_request(Framing::Bare, headers, ctx);
    if encoding == Encoding::Unknown {
        return Err(Rejection::UnsupportedCompression);
    }
    let is_json = headers.get(CONTENT_TYPE).is_none_or(|of| is_json(of.as_bytes()));
    let body = read(session, ctx, limit(route, transcoder)).await?;
    if !is_json && !body.is_empty() {
        return Err(Rejection::UnsupportedMediaType(PLAIN_TYPES));
    }
    let refused = |fault| match fault {
        Fault::Malformed(what) => Rejection::InvalidBody(what),
        fault => rejected(fault),
    };
    let body = wire::unwrap(Framing::Bare, &body, encoding, max_message(route, transcoder));
    let body = body.map_err(refused)?;
    attempt::dry_run::measured(ctx, body.len() as u64);
    let request = session.req_header();
    let path = ctx.path.as_deref().unwrap_or_else(|| request.uri.path());
    let call = transcoder.to_rpc(&request.method, path, request.uri.query(), &body);
    let call = call.inspect_err(|fault| {
        if let Fault::Malformed(_) = fault {
            ctx.verdict.said = request::body::flaw(&body);
        }
    });
    let (method, call) = call.map_err(refused)?;
    // The record gets what the client sent, not what it was converted to.
    ctx.body.request_tap = None;
    let capture = route.capture.as_ref();
    let tap = capture.and_then(|c| c.request(Some(JSON.as_bytes()), Some(body.len() as u64)));
    if let Some(mut tap) = tap {
        tap.push(&body);
        tap.finish(&mut ctx.row.captured);
    }
    ctx.body.prepared = Some(call.body);
    let way = Way::ToRpc { method, binding: call.binding };
    Ok(Call { way, method: Method::POST, target: call.path, has_body: true, answer: None })
}

/// Reads a call that is not forwarded, as far as the record needs it.
pub async fn look(
    session: &mut Session,
    ctx: &mut Context,
    route: &Route,
    transcoder: &Transcoder,
) {
    let Some(capture) = &route.capture else { return };
    if ctx.body.call.is_some() || capture.request(Some(JSON.as_bytes()), None).is_none() {
        return;
    }
    if ctx.body.prepared.is_none() {
        let headers = &session.req_header().headers;
        if headers.contains_key(EXPECT) {
            return;
        }
        let whole = request::body::read_whole(session, ctx, request::body::PREPARED_LIMIT);
        match tokio::time::timeout(request::body::UNFORWARDED_TIME, whole).await {
            Ok(Ok(whole)) => ctx.body.prepared = Some(whole),
            Ok(Err(_)) | Err(_) => return,
        }
    }
    // A malformed message does not change why the request was refused, and one that is too large for
    // a dry limit would not have been looked at by it.
    let dry_run = ctx.dry_run;
    if begin(session, ctx, route, transcoder).await.is_ok() {
        request::body::read_unforwarded(session, ctx).await;
    }
    ctx.dry_run = dry_run;
}

/// The body, which has already been read if the request has an idempotency key.
async fn read(session: &mut Session, ctx: &mut Context, limit: usize) -> Result<Bytes, Rejection> {
    let body = match ctx.body.prepared.take() {
        Some(body) if body.len() > limit => {
            ctx.body.too_large = Some(limit);
            return Err(Rejection::BodyTooLarge);
        }
        Some(body) => body,
        None => request::body::read_whole(session, ctx, limit).await?,
    };
    attempt::dry_run::measured(ctx, body.len() as u64);
    Ok(body)
}

/// Bytes of a body to read at most.
fn limit(route: &Route, transcoder: &Transcoder) -> usize {
    match route.config.max_body.enforced().as_usize() {
        0 => transcoder.max_body(),
        max_body => max_body.min(transcoder.max_body()),
    }
}

/// The longest message in bytes, once it is decoded.
pub fn max_message(route: &Route, transcoder: &Transcoder) -> usize {
    match route.config.max_body.enforced().as_usize() {
        0 => transcoder.max_message(),
        max_body => max_body.min(transcoder.max_message()),
    }
}

/// How the caller encodes and frames its message.
///
/// # Errors
/// The rejection of a content type that is not read.
pub fn encoding(
    protocol: Protocol,
    head: &http::request::Parts,
) -> Result<(Codec, Framing), Rejection> {
    let content_type = head.headers.get(CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    let essence = essence(content_type);
    let framing = match protocol {
        Protocol::Grpc if head.version != Version::HTTP_2 => {
            return Err(Rejection::InvalidRpc("gRPC needs HTTP/2: it ends in trailers"));
        }
        Protocol::Grpc => Framing::Grpc,
        Protocol::GrpcWeb => Framing::GrpcWeb,
        Protocol::GrpcWebText => Framing::GrpcWebText,
        Protocol::Connect => match &essence.to_ascii_lowercase()[..] {
            b"application/json" => return Ok((Codec::Json, Framing::Bare)),
            b"application/proto" => return Ok((Codec::Proto, Framing::Bare)),
            _ => return Err(Rejection::UnsupportedMediaType(RPC_TYPES)),
        },
        Protocol::Http | Protocol::ConnectStream => {
            return Err(Rejection::UnsupportedMediaType(RPC_TYPES));
        }
    };
    let suffix = essence.iter().position(|byte| *byte == b'+').map(|at| &essence[at + 1..]);
    match suffix {
        None | Some(b"proto") => Ok((Codec::Proto, framing)),
        Some(b"json") => Ok((Codec::Json, framing)),
        Some(_) => Err(Rejection::UnsupportedMediaType(RPC_TYPES)),
    }
}

/// A content type without its parameters.
fn essence(content_type: &[u8]) -> &[u8] {
    content_type.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii()
}

fn is_json(content_type: &[u8]) -> bool {
    let essence = essence(content_type);
    essence.eq_ignore_ascii_case(b"application/json") || essence.ends_with(b"+json")
}
