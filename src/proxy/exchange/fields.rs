//! Header fields that requests and responses have in common.

use http::header::{CONTENT_LENGTH, HeaderName};
use http::{HeaderMap, HeaderValue};

use crate::config::header_value::Value;
use crate::config::route::Edits;
use crate::proxy::exchange::context::Context;
use crate::time::Clock;

/// Writes the request's ids into `headers`.
pub fn echo(headers: &mut HeaderMap, ctx: &Context) {
    let names = &ctx.snapshot.config.identifiers;
    headers.insert(names.request_id.0.clone(), ctx.request_id.clone());
    if let (Some(name), Some(id)) = (&names.correlation_id, &ctx.correlation_id) {
        headers.insert(name.0.clone(), id.clone());
    }
}

/// One pass over the headers present is cheaper than a look-up for each name that is absent.
pub fn remove_all(headers: &mut HeaderMap, names: &[HeaderName]) {
    if headers.keys().any(|name| names.contains(name)) {
        for name in names {
            headers.remove(name);
        }
    }
}

/// All lines of a header as one list. Not as text: an element that cannot be read must not hide the others.
pub fn joined(headers: &HeaderMap, name: &HeaderName) -> Option<Vec<u8>> {
    let mut lines = headers.get_all(name).iter().map(|value| value.as_bytes());
    let mut all = lines.next()?.to_owned();
    for line in lines {
        all.extend_from_slice(b", ");
        all.extend_from_slice(line);
    }
    Some(all)
}

/// Apply a route's edits: remove, set, add.
pub fn edit(edits: &Edits, headers: &mut HeaderMap, ctx: &Context) {
    for name in &edits.remove {
        headers.remove(&name.0);
    }
    for (name, value) in &edits.set.0 {
        headers.insert(name.clone(), fill(value, ctx));
    }
    for (name, value) in &edits.add.0 {
        headers.append(name.clone(), fill(value, ctx));
    }
}

/// A value that a route writes, for this request.
pub fn fill(value: &Value, ctx: &Context) -> HeaderValue {
    value.fill(&ctx.request_id, ctx.received_at, || Clock::now().since(ctx.started))
}

/// The declared length of the body, unless it is in chunks.
pub fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.split(',').next()?.trim().parse().ok()
}
