//! What in a request's head made the gateway refuse it: for the operator, who does not have the request.

use std::borrow::Cow;

use http::header::{CONTENT_TYPE, HeaderName, VIA};
use http::{HeaderMap, HeaderValue};

use crate::policy;
use crate::policy::idempotency::{self, Key};
use crate::proxy::dialect::Protocol;
use crate::proxy::rejection::Rejection;
use crate::proxy::request::compression;
use crate::proxy::request::rpc_timeout;

/// Header fields, or the rule that one of them breaks. Never a credential. `None` if the rejection's
/// own words say it all, or the body was at fault.
pub fn of(
    protocol: Protocol,
    headers: &HeaderMap,
    rejection: &Rejection,
) -> Option<Cow<'static, str>> {
    match rejection {
        Rejection::UnsupportedMediaType(_) => Some(field(headers, &CONTENT_TYPE)),
        Rejection::UnsupportedCompression => {
            let framing = compression::framing(protocol)?;
            Some(field(headers, &compression::encoding_field(framing)))
        }
        Rejection::InvalidRpc(_) => {
            let name = rpc_timeout::malformed(protocol, headers)?;
            Some(field(headers, &name))
        }
        Rejection::Loop => Some(field(headers, &VIA)),
        Rejection::Policy(policy::Rejection::Idempotency(idempotency::Refusal::Invalid)) => {
            Some(Key::of(headers).err()?.as_str().into())
        }
        _ => None,
    }
}

/// `content-type: text/csv`, with all values of a field that is repeated.
fn field(headers: &HeaderMap, name: &HeaderName) -> Cow<'static, str> {
    let shown = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let values: Vec<_> = headers.get_all(name).iter().map(shown).collect();
    if values.is_empty() {
        return format!("no {name}").into();
    }
    format!("{name}: {}", values.join(", ")).into()
}
