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
        let text = name.as_str();
        (may_be_of_proxies(text) && (*name == PROXY || (!ctx.peer_trusted && is_of_proxies(text))))
            || (has_other_spelling(text) && is_lookalike(name, ctx, route))
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

/// Whether `name` begins as the names do that are asserted, and is as long as one of them: most names are not.
fn may_be_of_proxies(name: &str) -> bool {
    // One bit for the length of each; those of the family have no longest.
    const LENGTHS: u64 = {
        let mut lengths = 1 << "proxy".len();
        let mut place = 0;
        while place < OTHERS.len() {
            lengths |= 1 << OTHERS[place].len();
            place += 1;
        }
        lengths
    };
    matches!(name.as_bytes()[0], b'c' | b'f' | b'p' | b't' | b'x')
        && ((name.len() < 64 && LENGTHS >> name.len() & 1 == 1) || name.starts_with(X_FORWARDED))
}

/// Whether proxies assert `name`. Excludes the three fields that the gateway writes itself.
fn is_of_proxies(name: &str) -> bool {
    let of_family = name.strip_prefix(X_FORWARDED);
    of_family.is_some_and(|rest| !["for", "proto", "host"].contains(&rest))
        || OTHERS.contains(&name)
}

/// Whether a server might read `name` as another name: few requests have such names.
fn has_other_spelling(name: &str) -> bool {
    // Names of headers are in lower case. No early end: so several octets are looked at together.
    let other = |byte: u8| !(byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    name.bytes().fold(false, |found, byte| found | other(byte))
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

    #[test]
    fn the_whole_family_of_forwarding_headers_is_of_proxies() {
        for of_proxies in ["forwarded", "x-forwarded-port", "x-forwarded-user", "true-client-ip"] {
            assert!(is_of_proxies(of_proxies), "{of_proxies}");
        }
        for other in ["x-forwarded-for", "x-forwarded-host", "x-forwarder", "x-real", "accept"] {
            assert!(!is_of_proxies(other), "{other}");
        }
    }

    #[test]
    fn names_that_differ_in_punctuation_alone_are_alike() {
        for spelled in ["x_real_ip", "x-real_ip", "x.real.ip", "x~real!ip"] {
            assert!(is_alike(spelled, "x-real-ip"), "{spelled}");
            assert!(has_other_spelling(spelled), "{spelled}");
        }
        assert!(!is_alike("x-real-ips", "x-real-ip"));
        assert!(!has_other_spelling("x-real-ip"));
    }

    #[test]
    fn the_short_cut_over_first_letters_and_lengths_misses_none() {
        let family = [
            "x-forwarded-port",
            "x-forwarded-client-certificate-chain-of-the-first-proxy-in-front",
        ];
        for name in OTHERS.into_iter().chain(family) {
            assert!(may_be_of_proxies(name) && is_of_proxies(name), "{name}");
        }
        assert!(may_be_of_proxies(PROXY.as_str()));
        for other in ["accept", "te", "cookie", "x-a", "user-agent", "grpc-timeout"] {
            assert!(!may_be_of_proxies(other), "{other}");
        }
    }
}
