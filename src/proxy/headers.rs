//! Header fields on their way: what is taken out, what is put in, and by whose word.
//!
//! Everything the gateway asserts is written in `upstream_request_filter`, after Pingora
//! has removed what the client's `Connection` header nominated: before it, a client could
//! strip it.

use http::header::{
    CONNECTION, HOST, HeaderName, PROXY_AUTHENTICATE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderValue, StatusCode};
use pingora_core::Result;
use pingora_http::{RequestHeader, ResponseHeader};

use super::client_address::{X_FORWARDED_FOR, X_FORWARDED_HOST, X_FORWARDED_PROTO};
use super::context::Context;
use crate::config::route::Edits;
use crate::observe::trace::context::{TRACEPARENT, TRACESTATE};
use crate::runtime::snapshot::Route;
use crate::upstream::Endpoint;
use crate::upstream::config::HostHeader;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const HOP_BY_HOP: [HeaderName; 6] =
    [CONNECTION, KEEP_ALIVE, PROXY_CONNECTION, PROXY_AUTHENTICATE, TRAILER, UPGRADE];

/// Write the request as the upstream shall see it.
pub fn prepare_request(
    request: &mut RequestHeader,
    ctx: &Context,
    route: &Route,
    endpoint: &Endpoint,
    peer: Option<std::net::IpAddr>,
) -> Result<()> {
    target(request, ctx, endpoint);
    forwarded(request, ctx, peer)?;
    if let HostHeader::Endpoint = route.host_header() {
        request.insert_header(HOST, endpoint.authority.clone())?;
    }
    for name in route.credential_headers() {
        request.remove_header(name);
    }
    trace(request, ctx)?;
    edit(&route.config.headers.request, request)?;
    identify(request, ctx)
}

/// The path that was routed is the path that is forwarded, in origin form.
fn target(request: &mut RequestHeader, ctx: &Context, endpoint: &Endpoint) {
    let as_it_came = ctx.path.is_none() && endpoint.base_path.is_empty();
    if as_it_came && request.raw_path().starts_with(b"/") {
        return;
    }
    let path = ctx.path.as_deref().unwrap_or_else(|| request.uri.path());
    let mut target = String::with_capacity(endpoint.base_path.len() + path.len() + 32);
    target.push_str(&endpoint.base_path);
    target.push_str(path);
    if let Some(query) = request.uri.query() {
        target.push('?');
        target.push_str(query);
    }
    // A canonical path and a query that was parsed once are a URI.
    if let Ok(uri) = target.parse() {
        request.set_uri(uri);
    }
}

/// `X-Forwarded-*`: extended for a trusted peer, replaced for anybody else.
fn forwarded(
    request: &mut RequestHeader,
    ctx: &Context,
    peer: Option<std::net::IpAddr>,
) -> Result<()> {
    let peer = peer.map(|ip| ip.to_canonical().to_string()).unwrap_or_default();
    let known = ctx.peer_trusted.then(|| joined(&request.headers, &X_FORWARDED_FOR)).flatten();
    let hops = match known {
        Some(hops) => format!("{hops}, {peer}"),
        None => peer,
    };
    request.insert_header(X_FORWARDED_FOR, hops)?;
    if !ctx.peer_trusted || !request.headers.contains_key(X_FORWARDED_PROTO) {
        request.insert_header(X_FORWARDED_PROTO, HeaderValue::from_static("http"))?;
    }
    if !ctx.peer_trusted || !request.headers.contains_key(X_FORWARDED_HOST) {
        match request.headers.get(HOST).cloned() {
            Some(host) => request.insert_header(X_FORWARDED_HOST, host)?,
            None => drop(request.remove_header(&X_FORWARDED_HOST)),
        }
    }
    Ok(())
}

/// The attempt is the parent of whatever the upstream does. Written before the route's own
/// edits: whoever must not know of our traces can be kept from it.
fn trace(request: &mut RequestHeader, ctx: &Context) -> Result<()> {
    let span = ctx.attempt.span.unwrap_or_else(|| ctx.trace.span());
    request.insert_header(TRACEPARENT, ctx.trace.parent_for(span).to_header())?;
    // Belongs to the parent it came with.
    if ctx.trace.parent.is_none() {
        request.remove_header(&TRACESTATE);
    }
    Ok(())
}

/// Ids and the consumer: set or removed, never the client's own word.
fn identify(request: &mut RequestHeader, ctx: &Context) -> Result<()> {
    let names = &ctx.snapshot.config.identifiers;
    request.insert_header(names.request_id.0.clone(), ctx.request_id.clone())?;
    if let (Some(name), Some(id)) = (&names.correlation_id, &ctx.correlation_id) {
        request.insert_header(name.0.clone(), id.clone())?;
    }
    remove_lookalikes(request, &names.consumer.0);
    match &ctx.identity {
        Some(identity) => {
            request.insert_header(names.consumer.0.clone(), identity.consumer_header().clone())
        }
        None => {
            request.remove_header(&names.consumer.0);
            Ok(())
        }
    }
}

/// Servers that turn headers into variables (CGI, WSGI) read `x_consumer` as `x-consumer`.
fn remove_lookalikes(request: &mut RequestHeader, name: &HeaderName) {
    let alike = |other: &HeaderName| {
        other != name
            && other.as_str().len() == name.as_str().len()
            && other
                .as_str()
                .bytes()
                .zip(name.as_str().bytes())
                .all(|(a, b)| a == b || (a == b'_' && b == b'-') || (a == b'-' && b == b'_'))
    };
    let found: Vec<HeaderName> =
        request.headers.keys().filter(|other| alike(other)).cloned().collect();
    for other in found {
        request.remove_header(&other);
    }
}

/// Write the response as the client shall see it: hop-by-hop fields out, ids in.
pub fn prepare_response(response: &mut ResponseHeader, ctx: &Context) -> Result<()> {
    strip_hop_by_hop(response);
    if let Some(route) = &ctx.route {
        edit(&route.config.headers.response, response)?;
    }
    echo(response, ctx)
}

/// The ids a client gets back with every answer.
pub fn echo(response: &mut ResponseHeader, ctx: &Context) -> Result<()> {
    let names = &ctx.snapshot.config.identifiers;
    response.insert_header(names.request_id.0.clone(), ctx.request_id.clone())?;
    if let (Some(name), Some(id)) = (&names.correlation_id, &ctx.correlation_id) {
        response.insert_header(name.0.clone(), id.clone())?;
    }
    Ok(())
}

/// RFC 9110, section 7.6.1. `Transfer-Encoding` stays: Pingora frames the body by it.
fn strip_hop_by_hop(response: &mut ResponseHeader) {
    if response.status == StatusCode::SWITCHING_PROTOCOLS {
        return;
    }
    if let Some(nominated) = joined(&response.headers, &CONNECTION) {
        for name in nominated.split(',') {
            let name = name.trim().to_ascii_lowercase();
            if name != TRANSFER_ENCODING.as_str() && name != "content-length" {
                response.remove_header(name.as_str());
            }
        }
    }
    // One pass over what is there is cheaper than a look-up for each that is not.
    if response.headers.keys().any(|name| HOP_BY_HOP.contains(name)) {
        for name in &HOP_BY_HOP {
            response.remove_header(name);
        }
    }
}

/// All lines of a header as one list.
fn joined(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let mut lines = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    let mut all = lines.next()?.to_owned();
    for line in lines {
        all.push_str(", ");
        all.push_str(line);
    }
    Some(all)
}

/// What both kinds of head have in common.
pub trait Head {
    fn insert(&mut self, name: HeaderName, value: HeaderValue) -> Result<()>;
    fn append(&mut self, name: HeaderName, value: HeaderValue) -> Result<()>;
    fn remove(&mut self, name: &HeaderName);
}

impl Head for RequestHeader {
    fn insert(&mut self, name: HeaderName, value: HeaderValue) -> Result<()> {
        self.insert_header(name, value)
    }

    fn append(&mut self, name: HeaderName, value: HeaderValue) -> Result<()> {
        self.append_header(name, value).map(|_| ())
    }

    fn remove(&mut self, name: &HeaderName) {
        self.remove_header(name);
    }
}

impl Head for ResponseHeader {
    fn insert(&mut self, name: HeaderName, value: HeaderValue) -> Result<()> {
        self.insert_header(name, value)
    }

    fn append(&mut self, name: HeaderName, value: HeaderValue) -> Result<()> {
        self.append_header(name, value).map(|_| ())
    }

    fn remove(&mut self, name: &HeaderName) {
        self.remove_header(name);
    }
}

/// Apply a route's edits: remove, set, add.
pub fn edit(edits: &Edits, head: &mut impl Head) -> Result<()> {
    for name in &edits.remove {
        head.remove(&name.0);
    }
    for (name, value) in &edits.set.0 {
        head.insert(name.clone(), value.clone())?;
    }
    for (name, value) in &edits.add.0 {
        head.append(name.clone(), value.clone())?;
    }
    Ok(())
}
