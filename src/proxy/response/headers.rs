//! Response headers on their way to the client: hop-by-hop fields are removed, ids and limits
//! added.

use http::header::{
    CONNECTION, CONTENT_LENGTH, HeaderName, PROXY_AUTHENTICATE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderValue, StatusCode, Version};
use pingora_core::Result;
use pingora_http::ResponseHeader;
use pingora_proxy::Session;

use crate::proxy::exchange::context::Context;
use crate::proxy::exchange::fields::{echo, edit, joined, remove_all};
use crate::proxy::response;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");

const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

const HOP_BY_HOP: [HeaderName; 6] =
    [CONNECTION, KEEP_ALIVE, PROXY_CONNECTION, PROXY_AUTHENTICATE, TRAILER, UPGRADE];

/// Rewrites the response's head into the form in which the client gets it.
///
/// # Errors
/// Those of Pingora's header functions.
pub fn prepare_response(
    session: &mut Session,
    response: &mut ResponseHeader,
    ctx: &Context,
) -> Result<()> {
    let ends = ctx.connection.as_ref().is_some_and(|connection| connection.is_ordered_to_end());
    if ends || ctx.in_flight.is_draining() {
        // That was decided while the request was under way: the client must not send another one.
        session.set_keepalive(None);
    }
    let old = session.req_header().version == Version::HTTP_10;
    if old && response.remove_header(&TRANSFER_ENCODING).is_some() {
        // HTTP/1.0 has no chunks: its bodies end with the connection (RFC 9112, section 6.1).
        session.set_keepalive(None);
    }
    with_headers(response, |headers, status| {
        strip_hop_by_hop(headers, status);
        response::quota::write(headers, ctx);
        if let Some(route) = &ctx.route {
            edit(&route.config.headers.response, headers, ctx);
            if let Some(name) = &route.config.retry_info_header {
                headers.insert(name.0.clone(), retry_info(ctx));
            }
        }
        echo(headers, ctx);
    });
    match ctx.route.as_ref().and_then(|route| route.config.cors.as_ref()) {
        Some(cors) => response::cors::permit(cors, &session.req_header().headers, response),
        None => Ok(()),
    }
}

/// `attempts=2, stopped=budget`, a dictionary of structured fields (RFC 9651, section 3.2).
fn retry_info(ctx: &Context) -> HeaderValue {
    let mut info = format!("attempts={}", ctx.attempts);
    if let Some(reason) = ctx.verdict.retry_stopped {
        info.push_str(", stopped=");
        info.push_str(reason);
    }
    // A number and the gateway's own words always form a header value.
    HeaderValue::try_from(info).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// Changes a response's headers in one step; as in requests, the case of their names is dropped.
pub fn with_headers(
    response: &mut ResponseHeader,
    change: impl FnOnce(&mut HeaderMap, StatusCode),
) {
    let empty = http::Response::new(()).into_parts().0;
    let mut parts: http::response::Parts = std::mem::replace(response, empty.into()).into();
    change(&mut parts.headers, parts.status);
    *response = parts.into();
}

/// RFC 9110, section 7.6.1. `Transfer-Encoding` stays, because Pingora frames the body by it.
fn strip_hop_by_hop(headers: &mut HeaderMap, status: StatusCode) {
    if status == StatusCode::SWITCHING_PROTOCOLS {
        return;
    }
    if let Some(nominated) = joined(headers, &CONNECTION) {
        for name in nominated.split(|byte| *byte == b',') {
            let Ok(name) = HeaderName::from_bytes(name.trim_ascii()) else { continue };
            if name != TRANSFER_ENCODING && name != CONTENT_LENGTH {
                headers.remove(name);
            }
        }
    }
    remove_all(headers, &HOP_BY_HOP);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_that_connection_nominates_are_removed_whatever_else_it_holds() {
        let mut headers = HeaderMap::new();
        let nominated = HeaderValue::from_bytes(b"\xff, X-Hop").expect("a value");
        headers.append(CONNECTION, nominated);
        headers.append(CONNECTION, HeaderValue::from_static("x-other , Content-Length"));
        for name in ["x-hop", "x-other", "x-end", "content-length"] {
            headers.append(name, HeaderValue::from_static("1"));
        }
        strip_hop_by_hop(&mut headers, StatusCode::OK);
        let left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        assert_eq!(left, ["x-end", "content-length"]);
    }
}
