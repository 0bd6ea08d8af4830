//! Request bodies on their way upstream: counted, limited, copied for the record, and in two cases
//! rewritten.
//!
//! Bodies stream in constant memory. Only a route's `json` defaults and idempotency keys hold a
//! request body back (at most 64 KiB), and only the translation of an upstream's error holds back a
//! response body. Transcoding holds both back, in [`super::transcode`].

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, EXPECT, TRANSFER_ENCODING};
use pingora_core::{Error, Result};
use pingora_proxy::Session;
use serde::de::IgnoredAny;
use serde_json::Value;
use serde_json::error::Category;

use crate::coding::Encoding;
use crate::config::route::Json;
use crate::proxy::exchange::context::{Context, earlier};
use crate::proxy::exchange::end::End;
use crate::proxy::exchange::fields::content_length;
use crate::proxy::exchange::signal::REJECTED;
use crate::proxy::rejection::Rejection;
use crate::proxy::{attempt, request};
use crate::time::Clock;
use crate::transcode::wire::Framing;
use crate::transcode::{Fault, wire};
use crate::units::Size;

/// Largest request body in bytes that is held back: the most that Pingora can replay.
pub const PREPARED_LIMIT: usize = 64 * 1024;
/// How long the gateway waits for a body that only the record needs.
pub const UNFORWARDED_TIME: Duration = Duration::from_millis(100);

/// Reads the request's body and fills in `json`'s defaults, before anything goes upstream.
///
/// # Errors
/// The rejection of a body that is too large, unreadable or not a JSON object.
pub async fn prepare(
    session: &mut Session,
    ctx: &mut Context,
    json: &Json,
) -> Result<(), Rejection> {
    let headers = &session.req_header().headers;
    let encoding = request::compression::of_request(Framing::Bare, headers, ctx);
    if encoding == Encoding::Unknown {
        return Err(Rejection::UnsupportedCompression);
    }
    let body = match ctx.body.prepared.take() {
        Some(body) => body,
        None => read_whole(session, ctx, PREPARED_LIMIT).await?,
    };
    let max_body = ctx.route.as_ref().map(|route| route.config.max_body.enforced());
    let max_body = max_body.map_or(0, Size::as_usize);
    let limit = if max_body == 0 { PREPARED_LIMIT } else { max_body.min(PREPARED_LIMIT) };
    let plain =
        wire::unwrap(Framing::Bare, &body, encoding, limit).map_err(|fault| match fault {
            Fault::Malformed(what) => Rejection::InvalidBody(what),
            fault => request::fault::rejected(fault),
        })?;
    attempt::dry_run::measured(ctx, plain.len() as u64);
    let complete = with_defaults(&plain, json).inspect_err(|_| {
        ctx.verdict.said = flaw(&plain);
    });
    ctx.body.prepared = Some(complete?);
    ctx.body.inflated |= encoding != Encoding::Identity;
    Ok(())
}

/// Reads the request's body, at most `limit` bytes, before anything goes upstream. The caller
/// stores it as `prepared`, and it goes upstream in place of what Pingora keeps. If neither a
/// length nor HTTP/2 bounds the body, it may be at most as long as what Pingora can keep.
///
/// # Errors
/// The rejection of a body that is too large, malformed or late.
pub async fn read_whole(
    session: &mut Session,
    ctx: &mut Context,
    limit: usize,
) -> Result<Bytes, Rejection> {
    let headers = &session.req_header().headers;
    let expects = headers.contains_key(EXPECT);
    let length =
        content_length(headers).map(|length| usize::try_from(length).unwrap_or(usize::MAX));
    if length.is_some_and(|length| length > limit) {
        ctx.body.too_large = Some(limit);
        return Err(Rejection::BodyTooLarge);
    }
    let chunked = headers.contains_key(TRANSFER_ENCODING);
    let orders = ctx.connection.as_ref().and_then(|connection| connection.orders.as_ref());
    let limit = match (orders, length) {
        (Some(orders), _) => {
            orders.replace_body();
            limit
        }
        (None, Some(0)) => return read_nothing(session, ctx).await,
        (None, None) if !chunked => return read_nothing(session, ctx).await,
        (None, Some(_)) => limit,
        (None, None) => limit.min(PREPARED_LIMIT),
    };
    if expects && session.as_downstream_mut().write_continue_response().await.is_err() {
        ctx.end.client_left();
        return Err(Rejection::RequestTimeout);
    }
    // The body is small, so the longest pause allowed between two chunks is the limit for all of
    // it.
    let idle = ctx.route.as_ref().map(|route| *route.config.timeout.idle).unwrap_or_default();
    let idle = (!idle.is_zero()).then(|| Clock::now() + idle);
    ctx.guard(earlier(idle, ctx.deadline));
    ctx.body.received = Some(0);
    let mut body = Vec::with_capacity(length.unwrap_or(0).min(PREPARED_LIMIT));
    loop {
        if length.is_none_or(|length| length.saturating_sub(body.len()) <= PREPARED_LIMIT) {
            // From here on Pingora keeps the body, and replays it to every attempt as it does for a
            // retry.
            session.as_downstream_mut().enable_retry_buffering();
        }
        match session.as_downstream_mut().read_request_body().await {
            Ok(Some(chunk)) => {
                body.extend_from_slice(&chunk);
                ctx.body.received = Some(body.len() as u64);
            }
            Ok(None) => break,
            Err(_) if idle.is_some_and(|limit| Clock::now() >= limit) => {
                return Err(Rejection::RequestTimeout);
            }
            Err(error) => {
                let ended =
                    attempt::ended::classify(&error.into_down(), session, ctx, Clock::now());
                let rejection = ended.rejection();
                if rejection.is_none() {
                    ctx.end.client_left();
                }
                return Err(rejection.unwrap_or(Rejection::RequestTimeout));
            }
        }
        if body.len() > limit {
            ctx.body.too_large = Some(limit);
            return Err(Rejection::BodyTooLarge);
        }
    }
    Ok(body.into())
}

/// Handles an HTTP/1 request without a body. Over HTTP/2 Pingora would send no body at all, even if
/// the gateway has one to send. So the request gets a body of one placeholder byte, which the
/// gateway replaces.
async fn read_nothing(session: &mut Session, ctx: &mut Context) -> Result<Bytes, Rejection> {
    ctx.body.received = Some(0);
    let Some(connection) = &ctx.connection else { return Ok(Bytes::new()) };
    let length = session.req_header_mut().insert_header(CONTENT_LENGTH, 1);
    length.map_err(|_| Rejection::Internal)?;
    let downstream = session.as_downstream_mut();
    downstream.enable_retry_buffering();
    connection.guard.stand_in(true);
    let read = downstream.read_request_body().await;
    connection.guard.stand_in(false);
    read.map(|_| Bytes::new()).map_err(|_| Rejection::RequestTimeout)
}

/// Where `body` is not JSON, for the operator; `None` if it is JSON.
pub fn flaw(body: &[u8]) -> Option<Cow<'static, str>> {
    let error = serde_json::from_slice::<IgnoredAny>(body).err()?;
    let what = match error.classify() {
        Category::Eof => "the body ends too early",
        Category::Io | Category::Syntax | Category::Data => "the body is not JSON",
    };
    let (line, column) = (error.line(), error.column());
    Some(format!("{what}: line {line}, column {column}, of {} bytes", body.len()).into())
}

/// Fills in the defaults; an empty body counts as an empty object.
fn with_defaults(body: &[u8], json: &Json) -> Result<Bytes, Rejection> {
    let body = if body.trim_ascii().is_empty() { b"{}" } else { body };
    let mut value: Value = serde_json::from_slice(body)
        .map_err(|_| Rejection::InvalidBody("the body is not valid JSON"))?;
    let Value::Object(fields) = &mut value else {
        return Err(Rejection::InvalidBody("the body is not a JSON object"));
    };
    for (name, default) in &json.defaults {
        let missing = match fields.get(name) {
            None | Some(Value::Null) => true,
            Some(Value::String(text)) => text.is_empty(),
            Some(_) => false,
        };
        if missing {
            fields.insert(name.clone(), Value::String(default.clone()));
        }
    }
    // A value that was parsed always serializes.
    Ok(serde_json::to_vec(&value).unwrap_or_default().into())
}

/// Announces the prepared body; for any other body, reduces repeated lengths to one.
pub fn frame(headers: &mut HeaderMap, ctx: &Context) {
    match &ctx.body.prepared {
        Some(body) => {
            headers.remove(&TRANSFER_ENCODING);
            headers.remove(&EXPECT);
            if ctx.body.inflated {
                headers.remove(&CONTENT_ENCODING);
            }
            // Also if it is zero: without it, Pingora would send a chunked body if the client sent
            // one.
            headers.insert(CONTENT_LENGTH, body.len().into());
        }
        None => {
            // Invalid lengths do not get here: Pingora has refused them.
            if let Ok(Some(length)) = request::length::repaired(headers) {
                headers.insert(CONTENT_LENGTH, length);
            }
        }
    }
}

/// Handles a chunk of the request's body on its way upstream; on a retry, the whole body that was
/// kept.
///
/// # Errors
/// [`REJECTED`], with the rejection in the context.
pub fn on_request(
    body: &mut Option<Bytes>,
    end: bool,
    ctx: &mut Context,
    max_body: u64,
) -> Result<()> {
    if let Some(prepared) = &ctx.body.prepared {
        // The replay is one chunk; an empty body arrives here as no chunk.
        *body = end.then(|| prepared.clone()).filter(|prepared| !prepared.is_empty());
    }
    if end && body.as_ref().is_some_and(Bytes::is_empty) {
        // An HTTP/2 body may end with an empty frame. Pingora would write it to HTTP/1.1 as a last
        // chunk, followed by its own last chunk, which the upstream would take for the next
        // request.
        *body = None;
    }
    if let Some(chunk) = body {
        ctx.body.request_bytes += chunk.len() as u64;
        // In a stream, the limit applies to each message.
        if let Some(envelopes) = &mut ctx.body.envelopes {
            envelopes.pass(chunk).map_err(|rejection| reject(&mut ctx.end, rejection))?;
            let longest = envelopes.longest();
            attempt::dry_run::measured(ctx, longest);
        } else if ctx.body.call.is_none() {
            if max_body != 0 && ctx.body.request_bytes > max_body {
                return Err(reject(&mut ctx.end, Rejection::BodyTooLarge));
            }
            attempt::dry_run::measured(ctx, ctx.body.request_bytes);
        }
        if let Some(tap) = &mut ctx.body.request_tap {
            tap.push(chunk);
        }
    }
    if end && let Some(envelopes) = &ctx.body.envelopes {
        envelopes.end().map_err(|rejection| reject(&mut ctx.end, rejection))?;
    }
    if end && let Some(tap) = ctx.body.request_tap.take() {
        tap.finish(&mut ctx.row.captured);
    }
    ctx.attempt.is_uploading = !end;
    if end {
        attempt::next::uploaded(ctx);
    }
    Ok(())
}

fn reject(end: &mut End, rejection: Rejection) -> Box<Error> {
    end.refuse(rejection);
    Error::new_down(REJECTED)
}

/// Reads a body that will not be forwarded, as far as the record needs it: a small one that the
/// client has already sent, or sends at once.
pub async fn read_unforwarded(session: &mut Session, ctx: &mut Context) {
    let Some(mut tap) = ctx.body.request_tap.take() else { return };
    if let Some(body) = &ctx.body.prepared {
        tap.push(body);
        return tap.finish(&mut ctx.row.captured);
    }
    let headers = &session.req_header().headers;
    let small = content_length(headers).is_some_and(|length| length <= PREPARED_LIMIT as u64);
    if !small || headers.contains_key(EXPECT) {
        return;
    }
    let whole = tokio::time::timeout(UNFORWARDED_TIME, async {
        while let Ok(Some(chunk)) = session.as_downstream_mut().read_request_body().await {
            tap.push(&chunk);
        }
    });
    if whole.await.is_ok() {
        tap.finish(&mut ctx.row.captured);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json() -> Json {
        Json { defaults: [("name".to_owned(), "World".to_owned())].into() }
    }

    #[test]
    fn absent_null_and_empty_fields_get_their_default() {
        for body in ["", "{}", r#"{"name":""}"#, r#"{"name":null}"#] {
            let filled = with_defaults(body.as_bytes(), &json()).expect("an object");
            assert_eq!(&filled[..], br#"{"name":"World"}"#, "{body}");
        }
    }

    #[test]
    fn a_field_that_is_there_is_kept() {
        let filled = with_defaults(br#"{"name":"Ada","x":1}"#, &json()).expect("an object");
        assert_eq!(&filled[..], br#"{"name":"Ada","x":1}"#);
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for body in ["[]", "7", "{", "name=Ada"] {
            assert!(with_defaults(body.as_bytes(), &json()).is_err(), "{body}");
        }
    }
}
