//! Checks whether an upstream's response can be passed on. This covers what Pingora lets through,
//! and what it refuses without saying why.
//!
//! A response whose end is ambiguous is a 502 (RFC 9112, section 6.3), and its connection is not
//! reused.

use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderValue, StatusCode, Version};
use pingora_core::{Error, ErrorType, ImmutStr, Result};
use pingora_http::ResponseHeader;
use pingora_proxy::Session;

use crate::policy::failure::Cause;
use crate::proxy::exchange::context::Context;
use crate::proxy::rejection::Rejection;
use crate::proxy::request;
use crate::runtime::snapshot::Route;

const WEBSOCKET: &[u8] = b"websocket";
/// The error of Pingora's parser for a head with too many fields.
const TOO_MANY: &str = "too many headers";

const LENGTH: &str = "the upstream's response does not say clearly how long it is";
const CODING: &str = "the upstream's response has a transfer coding other than chunked";
const OLD_CODING: &str = "the upstream's response of HTTP/1.0 has a transfer coding";
const SWITCHED: &str = "the upstream changed protocols, which it was not asked to";
const FIELDS: &str = "the upstream's response has more than 256 header fields";
const MALFORMED: &str = "the upstream's response was malformed";

/// Checks the head of a response, and corrects what can be corrected.
///
/// # Errors
/// An error of the upstream, which [`flaw`] explains.
pub fn check(session: &Session, route: &Route, head: &mut ResponseHeader) -> Result<()> {
    if head.status == StatusCode::SWITCHING_PROTOCOLS && !is_agreed(session, route, head) {
        return malformed(SWITCHED);
    }
    if let Some(why) = coding_flaw(&head.headers, head.version) {
        return malformed(why);
    }
    match request::length::repaired(&head.headers) {
        Ok(None) => {}
        Ok(Some(length)) => head.insert_header(CONTENT_LENGTH, length)?,
        Err(request::length::Invalid) => return malformed(LENGTH),
    }
    // These have no body, so they must not describe its framing (RFC 9112, section 6.1; RFC 9110,
    // 8.6).
    let without_body = matches!(
        head.status,
        StatusCode::SWITCHING_PROTOCOLS | StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
    );
    if without_body {
        head.remove_header(&TRANSFER_ENCODING);
        if head.status != StatusCode::NOT_MODIFIED {
            head.remove_header(&CONTENT_LENGTH);
        }
    }
    Ok(())
}

/// Whether the client asked for the protocol that the upstream changes to, and the route allows it.
fn is_agreed(session: &Session, route: &Route, head: &ResponseHeader) -> bool {
    let is_websocket = |value: Option<&HeaderValue>| {
        value.is_some_and(|v| v.as_bytes().eq_ignore_ascii_case(WEBSOCKET))
    };
    route.config.websocket.is_some()
        && session.is_upgrade_req()
        && is_websocket(session.req_header().headers.get(UPGRADE))
        && is_websocket(head.headers.get(UPGRADE))
}

/// What is wrong with a response's transfer coding, given its version.
fn coding_flaw(headers: &HeaderMap, version: Version) -> Option<&'static str> {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let coding = codings.next()?;
    if version == Version::HTTP_10 {
        return Some(OLD_CODING);
    }
    let is_chunked = coding.as_bytes().eq_ignore_ascii_case(b"chunked");
    (!is_chunked || codings.next().is_some()).then_some(CODING)
}

fn malformed(why: &'static str) -> Result<()> {
    Err(Error::explain(ErrorType::InvalidHTTPHeader, why).into_up())
}

/// Tells the client what was wrong with the response, if the request ends because of it.
pub fn explain(ctx: &mut Context, flaw: Option<&'static str>) {
    if let Some(why) = flaw
        && let Some(Rejection::Upstream(Cause::InvalidResponse)) = ctx.end.rejection()
    {
        ctx.end.refuse(Rejection::MalformedResponse(why));
    }
}

/// Why a response could not be passed on, in words fit for a client: nothing of the response is
/// quoted. If this says more than Pingora's error did, the error and the log get it too.
pub fn flaw(error: &mut Error) -> &'static str {
    let why = found(error);
    if why != MALFORMED {
        (error.cause, error.context) = (None, Some(ImmutStr::Static(why)));
    }
    why
}

fn found(error: &Error) -> &'static str {
    if error.cause.as_ref().is_some_and(|cause| cause.to_string() == TOO_MANY) {
        return FIELDS;
    }
    match &error.context {
        Some(ImmutStr::Static(why)) if [LENGTH, CODING, OLD_CODING, SWITCHED].contains(why) => why,
        Some(why) if why.as_str().contains("Content-Length") => LENGTH,
        Some(_) | None => MALFORMED,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flaw_of(codings: &[&str], version: Version) -> Option<&'static str> {
        let mut headers = HeaderMap::new();
        for coding in codings {
            headers.append(TRANSFER_ENCODING, coding.parse().expect("a value"));
        }
        coding_flaw(&headers, version)
    }

    #[test]
    fn chunked_alone_frames_a_response() {
        for sound in [&[][..], &["chunked"], &["Chunked"]] {
            assert_eq!(flaw_of(sound, Version::HTTP_11), None, "{sound:?}");
        }
        for codings in
            [&["gzip"][..], &["gzip, chunked"], &["chunked, gzip"], &["chunked", "chunked"], &[""]]
        {
            assert_eq!(flaw_of(codings, Version::HTTP_11), Some(CODING), "{codings:?}");
        }
    }

    #[test]
    fn a_response_of_http_1_0_has_no_transfer_coding() {
        assert_eq!(flaw_of(&["chunked"], Version::HTTP_10), Some(OLD_CODING));
        assert_eq!(flaw_of(&[], Version::HTTP_10), None);
    }

    #[test]
    fn the_words_for_a_flaw_quote_nothing() {
        let quoting = Error::explain(ErrorType::InvalidHTTPHeader, format!("buf: {}", "secret"));
        assert_eq!(found(&quoting), MALFORMED);
        let length = Error::explain(ErrorType::InvalidHTTPHeader, "invalid Content-Length header");
        assert_eq!(found(&length), LENGTH);
    }
}
