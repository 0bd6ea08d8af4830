//! Header fields on their way upstream: which are removed, which are added, and on whose authority.
//!
//! The gateway writes its own fields in `upstream_request_filter`, after Pingora has removed the
//! fields that the client's `Connection` header nominates. Written earlier, a client could have
//! them removed.

use http::header::{CONTENT_TYPE, COOKIE, HOST, TE};
use http::{HeaderMap, HeaderValue, Version};
use pingora_http::RequestHeader;

use crate::observe::trace::context::{TRACEPARENT, TRACESTATE};
use crate::proxy::downstream::address::{X_FORWARDED_FOR, X_FORWARDED_HOST, X_FORWARDED_PROTO};
use crate::proxy::exchange::context::{Context, earlier};
use crate::proxy::exchange::fields::{echo, edit, joined};
use crate::proxy::request;
use crate::proxy::request::via::Via;
use crate::runtime::snapshot::Route;
use crate::upstream::Endpoint;
use crate::upstream::config::HostHeader;

/// The most fields that the gateway adds to a request, besides the route's own edits.
const ADDED: usize = 10;

/// Rewrites the request into the form in which the upstream gets it.
pub fn prepare_request(
    via: &Via,
    request: &mut RequestHeader,
    ctx: &Context,
    route: &Route,
    endpoint: &Endpoint,
) {
    let mut parts = take_request(request);
    name_host(&mut parts);
    match &ctx.body.call {
        Some(call) => call.address(&mut parts, endpoint),
        None => target(&mut parts, ctx, endpoint),
    }
    let headers = &mut parts.headers;
    request::assertions::remove_forged(headers, ctx, route);
    headers.reserve(ADDED);
    forwarded(headers, ctx);
    certified(headers, ctx);
    let host = ctx.upstream().map(|target| target.upstream.config().host_header);
    if let None | Some(HostHeader::Endpoint) = host {
        headers.insert(HOST, endpoint.key.authority.clone());
    }
    for name in route.credential_headers() {
        headers.remove(name);
    }
    for (name, value) in ctx.identity.iter().flat_map(|identity| identity.passed()) {
        headers.append(name.clone(), value.clone());
    }
    via.add(ctx, headers);
    trace(headers, ctx);
    match &ctx.body.call {
        Some(call) => call.describe(headers),
        None => request::compression::restrict(headers, ctx, route),
    }
    edit(&route.config.headers.request, headers, ctx);
    identify(headers, ctx);
    request::body::frame(headers, ctx);
    // Not the time for its first byte: a stream that has begun in time may last longer.
    if let Some(deadline) = earlier(ctx.attempt.deadline, ctx.deadline) {
        let protocol = ctx.body.call.as_ref().map_or(ctx.protocol, |call| call.protocol());
        let always = ctx.attempt.deadline == Some(deadline);
        request::rpc_timeout::tell(protocol, headers, deadline.since(ctx.attempt.started), always);
    }
    if parts.version == Version::HTTP_2 {
        allow_trailers(headers);
    }
    *request = parts.into();
}

/// An HTTP/2 client may name the host in the target only.
fn name_host(request: &mut http::request::Parts) {
    if let Some(authority) = request.uri.authority()
        && !request.headers.contains_key(HOST)
        && let Ok(host) = HeaderValue::from_str(authority.as_str())
    {
        request.headers.insert(HOST, host);
    }
}

/// A gRPC server may refuse a request that does not accept trailers. `TE` applies to one hop, so
/// the gateway must write its own.
fn allow_trailers(headers: &mut HeaderMap) {
    let content_type = headers.get(CONTENT_TYPE).map_or(&b""[..], |value| value.as_bytes());
    if content_type.starts_with(b"application/grpc") {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
}

/// Takes the request's parts. Pingora keeps the case of every header name beside them, which costs
/// more than all of the gateway's own work on headers. Names are sent in lower case instead, as in
/// HTTP/2. A request made from the parts again has its target in origin form.
pub fn take_request(request: &mut RequestHeader) -> http::request::Parts {
    let empty = http::Request::new(()).into_parts().0;
    std::mem::replace(request, empty.into()).into()
}

/// Drops the case of the client's header names, which Pingora would copy for every attempt.
pub fn forget_case(request: &mut RequestHeader) {
    *request = take_request(request).into();
}

/// Joins the cookies into one line. An HTTP/2 client may send each cookie in a line of its own, but
/// other protocols must see one line (RFC 9113, section 8.2.3), and many servers read only one.
/// Done when the request arrives, so that policies, records and upstreams of any protocol see the
/// same.
pub fn join_cookies(request: &mut RequestHeader) {
    let mut lines = request.headers.get_all(COOKIE).iter();
    let (Some(first), Some(second)) = (lines.next(), lines.next()) else { return };
    let mut joined = first.as_bytes().to_vec();
    for line in [second].into_iter().chain(lines) {
        joined.extend_from_slice(b"; ");
        joined.extend_from_slice(line.as_bytes());
    }
    // Valid values, joined, are a valid value.
    if let Ok(mut cookies) = HeaderValue::from_maybe_shared(bytes::Bytes::from(joined)) {
        cookies.set_sensitive(first.is_sensitive());
        let _ = request.insert_header(COOKIE, cookies);
    }
}

/// Forwards the path that was routed, in origin form.
fn target(request: &mut http::request::Parts, ctx: &Context, endpoint: &Endpoint) {
    let as_it_came = ctx.path.is_none() && endpoint.key.base_path.is_empty();
    if as_it_came && request.uri.scheme().is_none() && request.uri.authority().is_none() {
        return;
    }
    let path = ctx.path.as_deref().unwrap_or_else(|| request.uri.path());
    let mut target = String::with_capacity(endpoint.key.base_path.len() + path.len() + 32);
    target.push_str(&endpoint.key.base_path);
    target.push_str(path);
    if let Some(query) = request.uri.query() {
        target.push('?');
        target.push_str(query);
    }
    // A canonical path and a parsed query always form a URI.
    if let Ok(uri) = target.parse() {
        request.uri = uri;
    }
}

/// Whether there is exactly one. Of several, the upstream might read another than the one by which the
/// request was routed.
fn has_one_scheme(headers: &HeaderMap) -> bool {
    let mut said = headers.get_all(X_FORWARDED_PROTO).iter();
    said.next().is_some_and(|one| !one.as_bytes().contains(&b',')) && said.next().is_none()
}

/// `X-Forwarded-*`: extended for a trusted peer, replaced for any other.
pub fn forwarded(headers: &mut HeaderMap, ctx: &Context) {
    let peer = ctx.connection.as_ref().and_then(|connection| connection.inbound.peer.as_ref());
    let known = ctx.peer_trusted.then(|| joined(headers, &X_FORWARDED_FOR)).flatten();
    let hops = match (known, peer) {
        (Some(mut known), Some(peer)) => {
            known.extend_from_slice(b", ");
            known.extend_from_slice(peer.text.as_bytes());
            HeaderValue::try_from(known).ok()
        }
        (Some(known), None) => HeaderValue::try_from(known).ok(),
        (None, peer) => peer.map(|peer| peer.text.clone()),
    };
    match hops {
        Some(hops) => headers.insert(X_FORWARDED_FOR, hops),
        None => headers.remove(X_FORWARDED_FOR),
    };
    if !ctx.peer_trusted || !has_one_scheme(headers) {
        let scheme = request::head::scheme(ctx, headers).as_str();
        headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(scheme));
    }
    if !ctx.peer_trusted || !headers.contains_key(X_FORWARDED_HOST) {
        match headers.get(HOST).cloned() {
            Some(host) => headers.insert(X_FORWARDED_HOST, host),
            None => headers.remove(&X_FORWARDED_HOST),
        };
    }
}

/// What the upstream is told of the client's certificate: nothing that the client says itself. A trusted
/// proxy says it of its own clients, and has added to what it says here that of its own certificate.
pub fn certified(headers: &mut HeaderMap, ctx: &Context) {
    let name = &ctx.snapshot.config.identifiers.client_certificate.0;
    let own = ctx.connection.as_ref().and_then(|connection| connection.inbound.certified.as_ref());
    if !ctx.peer_trusted {
        headers.remove(name);
    }
    if let Some(own) = own {
        headers.append(name.clone(), own.field.clone());
    }
}

/// Makes the attempt the parent of the upstream's spans. Written before the route's own edits, so
/// that a route can withhold traces from its upstream.
fn trace(headers: &mut HeaderMap, ctx: &Context) {
    let span = ctx.attempt.span.unwrap_or_else(|| ctx.trace.span());
    headers.insert(TRACEPARENT, ctx.trace.parent_for(span).to_header());
    // A `tracestate` belongs to the parent it came with.
    if ctx.trace.parent.is_none() {
        headers.remove(TRACESTATE);
    }
}

/// Sets or removes the ids, the consumer and the attempt number; the client's own values never
/// pass.
fn identify(headers: &mut HeaderMap, ctx: &Context) {
    let names = &ctx.snapshot.config.identifiers;
    echo(headers, ctx);
    match &ctx.identity {
        Some(identity) => {
            headers.insert(names.consumer.0.clone(), identity.consumer_header().clone())
        }
        None => headers.remove(&names.consumer.0),
    };
    headers.insert(names.attempt_count.0.clone(), number(ctx.attempts));
}

/// Gives a question about the request its ids, and makes it a part of its trace.
pub fn identify_question(headers: &mut HeaderMap, ctx: &Context) {
    echo(headers, ctx);
    trace(headers, ctx);
}

/// Most requests have one attempt, whose number needs no formatting.
fn number(attempt: u32) -> HeaderValue {
    if attempt == 1 { HeaderValue::from_static("1") } else { attempt.into() }
}
