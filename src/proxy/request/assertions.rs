//! Header fields that only the gateway, or a proxy it trusts, may assert: removed from the requests
//! of other clients.
//!
//! Servers that turn fields into variables (CGI, WSGI) read `X_Real_IP`, and some even `X.Real.IP`,
//! as `X-Real-IP`. So names are compared as such servers do: every character that is neither a
//! letter nor a digit counts as the same one.

use http::HeaderMap;
use http::header::HeaderName;

use crate::proxy::exchange::context::Context;
use crate::runtime::snapshot::Route;

/// CGI servers turn it into the variable `HTTP_PROXY`, which tells their HTTP clients to send
/// everything through that proxy ("httpoxy", CVE-2016-5385). No standard defines it.
const PROXY: HeaderName = HeaderName::from_static("proxy");
/// Prefix of the non-standard fields of proxies: `X-Forwarded-Port`, `-Prefix`, `-Server`, `-User`,
/// `-Client-Cert`.
const X_FORWARDED: &str = "x-forwarded-";
/// Other fields that proxies assert: where a request comes from, and what it asked for before a
/// rewrite.
const OTHERS: [&str; 20] = [
    "forwarded",
    "x-forwarded",
    "x-real-ip",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-remote-ip",
    "x-remote-addr",
    "client-ip",
    "true-client-ip",
    "cf-connecting-ip",
    "fastly-client-ip",
    "x-envoy-external-address",
    "x-original-forwarded-for",
    "x-original-host",
    "x-original-method",
    "x-original-uri",
    "x-original-url",
    "x-rewrite-url",
    "front-end-https",
    "x-url-scheme",
];

/// Removes the fields that the client must not assert. The gateway overwrites its own fields later,
/// so of those only other spellings are removed here.
pub fn remove_forged(headers: &mut HeaderMap, ctx: &Context, route: &Route) {
    let is_forged = |name: &HeaderName| {
        *name == PROXY
            || (!ctx.peer_trusted && is_of_proxies(name))
            || (has_other_spelling(name) && is_lookalike(name, ctx, route))
    };
    // Most requests have none, so this allocates nothing for them.
    if !headers.keys().any(is_forged) {
        return;
    }
    let forged: Vec<HeaderName> = headers.keys().filter(|name| is_forged(name)).cloned().collect();
    for name in forged {
        headers.remove(&name);
    }
}

/// Whether proxies assert `name`. Excludes the three fields that the gateway writes itself.
fn is_of_proxies(name: &HeaderName) -> bool {
    let of_family = || {
        name.as_str().starts_with(X_FORWARDED)
            && !["for", "proto", "host"].contains(&&name.as_str()[X_FORWARDED.len()..])
    };
    // The names in both lists begin with one of these.
    matches!(name.as_str().as_bytes()[0], b'c' | b'f' | b't' | b'x')
        && (of_family() || OTHERS.contains(&name.as_str()))
}

/// Whether a server might read `name` as another name: few requests have such names.
fn has_other_spelling(name: &HeaderName) -> bool {
    name.as_str().bytes().any(|byte| byte != b'-' && !byte.is_ascii_alphanumeric())
}

/// Whether `name` is another spelling of a field that proxies or the gateway assert, that the route
/// sets, adds or removes, or that holds its credentials. Removed from a trusted proxy's requests
/// too: the proxy would not write such a name, but may pass on its client's.
fn is_lookalike(name: &HeaderName, ctx: &Context, route: &Route) -> bool {
    let names = &ctx.snapshot.config.identifiers;
    let edits = &route.config.headers.request;
    let correlation = names.correlation_id.as_ref().map(|name| &name.0);
    let mut asserted = [
        &names.request_id.0,
        &names.consumer.0,
        &names.client_certificate.0,
        &names.attempt_count.0,
    ]
    .into_iter()
    .chain(correlation)
    .chain(edits.set.0.iter().map(|(name, _)| name))
    .chain(edits.add.0.iter().map(|(name, _)| name))
    .chain(edits.remove.iter().map(|name| &name.0))
    .chain(route.credential_headers())
    .map(HeaderName::as_str)
    .chain(OTHERS);
    let spelled = name.as_str();
    let family = as_variable(spelled).take(X_FORWARDED.len()).eq(X_FORWARDED.bytes());
    family || asserted.any(|ours| spelled != ours && is_alike(spelled, ours))
}

fn is_alike(one: &str, other: &str) -> bool {
    as_variable(one).eq(as_variable(other))
}

/// `name` as seen by servers that turn it into a variable.
fn as_variable(name: &str) -> impl Iterator<Item = u8> {
    name.bytes().map(|byte| if byte.is_ascii_alphanumeric() { byte } else { b'-' })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &'static str) -> HeaderName {
        HeaderName::from_static(text)
    }

    #[test]
    fn the_whole_family_of_forwarding_headers_is_of_proxies() {
        for of_proxies in ["forwarded", "x-forwarded-port", "x-forwarded-user", "true-client-ip"] {
            assert!(is_of_proxies(&name(of_proxies)), "{of_proxies}");
        }
        for other in ["x-forwarded-for", "x-forwarded-host", "x-forwarder", "x-real", "accept"] {
            assert!(!is_of_proxies(&name(other)), "{other}");
        }
    }

    #[test]
    fn names_that_differ_in_punctuation_alone_are_alike() {
        for spelled in ["x_real_ip", "x-real_ip", "x.real.ip", "x~real!ip"] {
            assert!(is_alike(spelled, "x-real-ip"), "{spelled}");
            assert!(has_other_spelling(&name(spelled)), "{spelled}");
        }
        assert!(!is_alike("x-real-ips", "x-real-ip"));
        assert!(!has_other_spelling(&name("x-real-ip")));
    }

    #[test]
    fn the_short_cut_over_first_letters_misses_none() {
        assert!(OTHERS.iter().all(|other| is_of_proxies(&name(other))));
    }
}
