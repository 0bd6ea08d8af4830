//! `X-Forwarded-Client-Cert`, as Envoy has made it common: elements separated by commas, one for each
//! proxy, of pairs separated by semicolons. Values that hold one of these are quoted.

use std::fmt::Write;

use super::{Name, Peer};

/// The last element.
pub(super) fn read(field: &str) -> Option<Peer> {
    let element = split(field, b',').pop()?;
    let (mut uris, mut dns, mut subject, mut hash) = (Vec::new(), Vec::new(), None, None);
    for pair in split(element, b';') {
        let (key, value) = pair.split_once('=')?;
        // A quote there would hide what follows it, which may be what a proxy has added.
        if key.contains('"') {
            return None;
        }
        let value = unquoted(value.trim())?;
        match key.trim().to_ascii_lowercase().as_str() {
            "uri" if !value.is_empty() => uris.push(value),
            "dns" if !value.is_empty() => dns.push(value),
            "subject" => subject = Some(value),
            "hash" => hash = Some(value),
            _ => {}
        }
    }
    if uris.is_empty() && dns.is_empty() && subject.is_none() {
        return None;
    }
    let common_name = subject.as_deref().and_then(common_name);
    let (uris, dns) = (uris.iter().map(String::as_str), dns.iter().map(String::as_str));
    let mut peer = Peer::try_new(uris, dns, common_name, &[]).ok()?;
    let is_hex = |text: &String| text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
    peer.hash = hash.filter(is_hex).unwrap_or_default().into();
    Some(peer)
}

pub(super) fn write(peer: &Peer) -> String {
    let mut element = String::with_capacity(128);
    if !peer.hash.is_empty() {
        // Writing to a string never fails.
        let _ = write!(element, "Hash={}", peer.hash);
    }
    let mut pair = |key: &str, value: &str| {
        let separator = if element.is_empty() { "" } else { ";" };
        let _ = write!(element, "{separator}{key}={}", quoted(value));
    };
    // Escapes in subjects are read in many ways: a name that would need one is not told.
    if let Some(name) = peer.common_name.as_deref().filter(|name| is_plain(name)) {
        pair("Subject", &format!("CN={name}"));
    }
    for name in peer.names(false) {
        match name {
            Name::Spiffe(id) => pair("URI", id),
            Name::Dns(name) => pair("DNS", name),
            Name::Common(_) => {}
        }
    }
    element
}

/// The parts between `separator`s outside quotes.
fn split(text: &str, separator: u8) -> Vec<&str> {
    let (mut parts, mut from, mut quoted, mut escaped) = (Vec::new(), 0, false, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ if byte == separator && !quoted => {
                parts.push(&text[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[from..]);
    parts
}

/// `None` if a quote does not end, or stands within a value: what follows it might be another's, to which a
/// proxy has added its own.
fn unquoted(value: &str) -> Option<String> {
    let Some(inner) = value.strip_prefix('"') else {
        return (!value.contains('"')).then(|| value.to_owned());
    };
    let (mut text, mut escaped) = (String::with_capacity(inner.len()), false);
    for (at, letter) in inner.char_indices() {
        match letter {
            _ if escaped => {
                text.push(letter);
                escaped = false;
            }
            '\\' => escaped = true,
            '"' => return (at + 1 == inner.len()).then_some(text),
            _ => text.push(letter),
        }
    }
    None
}

fn quoted(value: &str) -> String {
    // What is no visible ASCII cannot be in a header, and stands for nothing there.
    let visible =
        value.chars().map(|letter| if matches!(letter, ' '..='~') { letter } else { '?' });
    let plain: String = visible.collect();
    if !plain.contains(['"', ',', ';', '=', '\\', ' ']) {
        return plain;
    }
    format!("\"{}\"", plain.replace('\\', "\\\\").replace('"', "\\\""))
}

/// Of a subject as RFC 4514 writes it. `None` if it has none or several, or could be read in another way.
fn common_name(subject: &str) -> Option<&str> {
    if subject.contains(['\\', '"', '+', '/']) {
        return None;
    }
    let mut names = subject.split(',').filter_map(|part| part.trim().strip_prefix("CN="));
    names.next().filter(|name| is_plain(name) && names.next().is_none())
}

fn is_plain(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b" .-_@:".contains(&byte);
    name.trim() == name && !name.is_empty() && name.bytes().all(fits)
}
